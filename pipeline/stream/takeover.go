package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
)

// takeOver makes parts of what is committed: it verifies that it can be trusted, asks the second witness, and reads what was
// seen. Errors of the broker are tried again until ctx ends.
func (w *Window) takeOver(ctx context.Context, member string, all []found, known map[int32]*settledHere) ([]*part, error) {
	if len(all) == 0 {
		return nil, nil
	}
	retry := newBackoff(50*time.Millisecond, 2*time.Second)
	for {
		parts, err := w.tryTakeOver(ctx, member, all, known)
		if err == nil {
			return parts, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		w.log.WarnContext(ctx, "taking partitions over is tried again", "err", err)
		if !retry.wait(ctx) {
			return nil, ctx.Err()
		}
	}
}

func (w *Window) tryTakeOver(ctx context.Context, member string, all []found, known map[int32]*settledHere) ([]*part, error) {
	adm := kadm.NewClient(w.cl)
	starts, err := adm.ListStartOffsets(ctx, w.cfg.Topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list the beginning of %s: %w", w.cfg.Topic, err)
	}
	ends, err := adm.ListEndOffsets(ctx, w.cfg.Topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list the end of %s: %w", w.cfg.Topic, err)
	}
	witness, err := w.witness(ctx, adm)
	if err != nil {
		return nil, err
	}
	var (
		parts []*part
		below = map[int32]span{}
		saw   = map[int32]*seen{}
	)
	for _, f := range all {
		start, _ := starts.Lookup(w.cfg.Topic, f.id)
		end, _ := ends.Lookup(w.cfg.Topic, f.id)
		s := newSeen()
		in, suspended := w.examine(f, start.Offset, end.Offset)
		if suspended != nil {
			p := newPart(w, f.id, member, max(f.offset, 0), f.epoch, intent{head: max(f.offset, 0)}, s, nil)
			p.stop(stopSuspended)
			parts = append(parts, p)
			w.suspend(suspended)
			continue
		}
		if last, ok := witness[f.id]; ok && last >= in.end() {
			head := min(last+1+int64(w.size()), max(end.Offset, last+1))
			w.metrics.lostCommits.Inc()
			w.log.ErrorContext(ctx, "THE BROKER HAS LOST COMMITS: outcomes are known of records above what is committed; what may have been handed over is uncertain",
				"partition", f.id, "committed", f.offset, "head", in.end(), "last_outcome", last, "uncertain_to", head)
			in = intent{head: head}
		}
		parts = append(parts, newPart(w, f.id, member, f.offset, f.epoch, in, s, known[f.id]))
		below[f.id] = span{max(start.Offset, f.offset-seenBefore), f.offset}
		saw[f.id] = s
	}
	err = w.readSpans(ctx, adm, w.cfg.Topic, below, kgo.ReadCommitted(), func(r *kgo.Record) {
		if id, err := w.cfg.Identity(r); err == nil {
			saw[r.Partition].remember(id)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read what was seen: %w", err)
	}
	return parts, nil
}

// examine says what is committed of a partition whose log is [start, end), or why nothing may be done to it.
func (w *Window) examine(f found, start, end int64) (intent, *SuspendedError) {
	s := &SuspendedError{Topic: w.cfg.Topic, Partition: f.id}
	command := fmt.Sprintf("kafka-consumer-groups.sh --group %s --topic %s:%d --reset-offsets --to-offset N --execute", w.cfg.Group, w.cfg.Topic, f.id)
	last := fmt.Sprintf("find the last `source` of %s/%d in the outcomes and commit the offset after it while no sender runs: %s", w.cfg.Topic, f.id, command)
	switch {
	case f.offset < 0:
		s.Reason, s.Detail, s.Fix = ReasonNoOffset, "the group has no offset here", last
	case f.offset < start || f.offset > end:
		s.Reason, s.Detail = ReasonOutOfRange, fmt.Sprintf("offset %d is committed and the log is [%d, %d)", f.offset, start, end)
		s.Fix = last
	default:
		in, err := parseIntent(f.metadata, f.offset)
		if err == nil {
			return in, nil
		}
		s.Reason, s.Detail = ReasonMetadata, err.Error()
		s.Fix = "find out who commits in this group, then " + last
	}
	return intent{}, s
}

// suspend tells about a partition that is held.
func (w *Window) suspend(s *SuspendedError) {
	w.log.Error("a partition is suspended", "partition", s.Partition, "reason", string(s.Reason), "detail", s.Detail, "fix", s.Fix)
	if w.cfg.Suspended == nil {
		w.fail(s)
		return
	}
	w.cfg.Suspended(s)
}

// witnessed is how many of the newest outcomes are asked for what was handed over.
const witnessed = 50_000

// witness returns the greatest offset of each partition that the newest outcomes name as their source.
func (w *Window) witness(ctx context.Context, adm *kadm.Client) (map[int32]int64, error) {
	last := map[int32]int64{}
	if w.cfg.Outcomes == "" {
		return last, nil
	}
	ends, err := adm.ListEndOffsets(ctx, w.cfg.Outcomes)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list the end of %s: %w", w.cfg.Outcomes, err)
	}
	starts, err := adm.ListStartOffsets(ctx, w.cfg.Outcomes)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list the beginning of %s: %w", w.cfg.Outcomes, err)
	}
	newest := map[int32]span{}
	share := int64(witnessed / max(1, len(ends[w.cfg.Outcomes])))
	ends.Each(func(o kadm.ListedOffset) {
		start, _ := starts.Lookup(o.Topic, o.Partition)
		newest[o.Partition] = span{max(start.Offset, o.Offset-share), o.Offset}
	})
	prefix := w.cfg.Topic + "/"
	err = w.readSpans(ctx, adm, w.cfg.Outcomes, newest, kgo.ReadUncommitted(), func(r *kgo.Record) {
		source, ok := strings.CutPrefix(string(schemas.Header(r, schemas.HeaderSource)), prefix)
		if !ok {
			return
		}
		number, at, _ := strings.Cut(source, "/")
		p, err := strconv.ParseInt(number, 10, 32)
		if err != nil {
			return
		}
		offset, err := strconv.ParseInt(at, 10, 64)
		if err != nil {
			return
		}
		if have, ok := last[int32(p)]; !ok || offset > have {
			last[int32(p)] = offset
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read the newest of %s: %w", w.cfg.Outcomes, err)
	}
	return last, nil
}

// span is a part of a log, [from, to).
type span struct{ from, to int64 }

// readSpans gives the records of spans of a topic to each, without a group.
func (w *Window) readSpans(ctx context.Context, adm *kadm.Client, topic string, spans map[int32]span, level kgo.IsolationLevel, each func(*kgo.Record)) error {
	left := map[int32]int64{} // where a partition's span ends
	from := map[int32]kgo.Offset{}
	for id, s := range spans {
		if s.from < s.to {
			left[id], from[id] = s.to, kgo.NewOffset().At(s.from)
		}
	}
	if len(left) == 0 {
		return nil
	}
	cl, err := w.cfg.Cluster.Named(w.cfg.Cluster.Name+"-takeover").Client(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.FetchIsolationLevel(level),
		kgo.KeepControlRecords(), // the last of a span may be one
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	for asked := false; len(left) > 0; {
		polling, cancel := context.WithTimeout(ctx, quietRead)
		fetches := cl.PollRecords(polling, 10_000)
		quiet := polling.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, context.DeadlineExceeded) {
				return fmt.Errorf("fetch %s/%d: %w", e.Topic, e.Partition, e.Err)
			}
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			for _, r := range p.Records {
				end, reading := left[p.Partition]
				if !reading {
					return
				}
				if r.Offset < end && !r.Attrs.IsControl() {
					each(r)
				}
				if r.Offset >= end-1 {
					delete(left, p.Partition)
					cl.PauseFetchPartitions(map[string][]int32{topic: {p.Partition}})
				}
			}
		})
		if !quiet || fetches.NumRecords() > 0 {
			asked = false
			continue
		}
		if asked {
			break
		}
		// What is left of the span has no records, it was aborted or compacted, or its leader is away or moving, which is told by
		// nobody: each leader is asked, and then there must be silence once more.
		listed, err := adm.ListEndOffsets(ctx, topic)
		if err == nil {
			err = listed.Error()
		}
		if err != nil {
			return fmt.Errorf("list the end of %s: %w", topic, err)
		}
		asked = true
	}
	return nil
}

// quietRead is how long nothing may come of a span before its leaders are asked; after as long again it counts as read.
const quietRead = 3 * time.Second

// beginAnew takes parts over again whose commits are not ours. It runs between polls, while rebalances are held up.
func (w *Window) beginAnew(ctx context.Context) error {
	ended, cancel := context.WithCancel(ctx)
	cancel()
	w.cl.PollRecords(ended, 1) // polls nothing and holds rebalances up
	defer w.cl.AllowRebalance()

	w.mu.Lock()
	var old []*part
	for _, p := range w.order {
		if p.why == stopReset {
			old = append(old, p)
		}
	}
	w.mu.Unlock()
	if len(old) == 0 {
		return nil
	}
	w.awaitOutcomes(ctx, old)
	have, err := kadm.NewClient(w.cl).FetchOffsets(kadm.RequireStable(ctx), w.cfg.Group)
	if err == nil {
		err = have.Error()
	}
	if err != nil {
		return fmt.Errorf("read what is committed: %w", err)
	}
	all, known := w.reexamine(old, have)
	member, _ := w.cl.GroupMetadata()
	parts, err := w.takeOver(ctx, member, all, known)
	if err != nil {
		return err
	}
	offsets := map[int32]kgo.EpochOffset{}
	w.mu.Lock()
	for _, p := range parts {
		w.drop(w.parts[p.id])
		w.own(p)
		offsets[p.id] = kgo.EpochOffset{Epoch: p.epoch, Offset: p.base}
	}
	w.mu.Unlock()
	w.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{w.cfg.Topic: offsets})
	w.nudge()
	return nil
}

// reexamine returns what is committed of parts, and what of each we have settled ourselves.
func (w *Window) reexamine(old []*part, have kadm.OffsetResponses) (all []found, known map[int32]*settledHere) {
	known = map[int32]*settledHere{}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range old {
		f := found{id: p.id, offset: -1, epoch: -1}
		if o, ok := have.Lookup(w.cfg.Topic, p.id); ok {
			f = found{p.id, o.At, o.LeaderEpoch, o.Metadata}
		}
		all = append(all, f)
		known[p.id] = p.settledHere()
	}
	return all, known
}

// awaitOutcomes waits until the outcomes of parts that are on their way are acknowledged, for at most DrainTimeout.
func (w *Window) awaitOutcomes(ctx context.Context, parts []*part) {
	w.await(ctx, parts, func(p *part) (n int) {
		for _, it := range p.items {
			if it.state.Load() == itemSettling {
				n++
			}
		}
		return n
	}, func() {})
}
