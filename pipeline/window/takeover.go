package window

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

// takeOver makes the parts of assigned partitions: it checks the committed offsets and their intents, compares them
// with the newest outcomes, and reads the submissions below the offsets. It retries errors of the broker until ctx
// ends.
func (w *Window) takeOver(ctx context.Context, member string, all []found, known map[int32]*settledHere) ([]*part, error) {
	if len(all) == 0 {
		return nil, nil
	}
	retry := stream.NewBackoff(50*time.Millisecond, 2*time.Second)
	for {
		parts, err := w.tryTakeOver(ctx, member, all, known)
		if err == nil {
			return parts, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		w.log.WarnContext(ctx, "takeover of partitions failed; retrying", "err", err)
		if !retry.Wait(ctx) {
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
	outcomes, err := w.lastOutcomes(ctx, adm, all)
	if err != nil {
		return nil, err
	}
	var (
		parts  []*part
		report = &takeoverReport{began: time.Now(), campaigns: map[uint64]int{}}
		below  = map[int32]span{}
		saw    = map[int32]*seen{}
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
		if last := outcomes[f.id].last; last >= in.end() {
			head := min(last+1+int64(w.size()), max(end.Offset, last+1))
			w.metrics.lostCommits.Inc()
			w.log.ErrorContext(ctx, "broker has lost commits: records above the committed head have outcomes; records that may have been handed over are uncertain",
				"partition", f.id, "committed", f.offset, "head", in.end(), "last_outcome", last, "uncertain_to", head)
			in = intent{head: head}
		}
		p := newPart(w, f.id, member, f.offset, f.epoch, in, s, known[f.id])
		p.answered, p.report, p.metadata = outcomes[f.id].final, report, f.metadata
		if p.claimed > p.next {
			report.open++
		}
		parts = append(parts, p)
		below[f.id] = span{max(start.Offset, f.offset-seenBefore), f.offset}
		saw[f.id] = s
	}
	err = w.readSpans(ctx, adm, w.cfg.Topic, below, kgo.ReadCommitted(), func(r *kgo.Record) {
		if id, err := w.cfg.Identity(r); err == nil {
			saw[r.Partition].remember(id)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read the submissions below the committed offsets: %w", err)
	}
	if report.open > 0 {
		w.mu.Lock()
		w.reports = append(w.reports, report)
		w.mu.Unlock()
	}
	return parts, nil
}

// takeoverReport counts what one takeover finds uncertain, for one line in the log.
type takeoverReport struct {
	began     time.Time
	open      int // parts whose declared records are not all polled
	uncertain int
	campaigns map[uint64]int
}

// reportAfter is how long a report waits for the declared records of its parts: some may be of transactions that were
// aborted.
const reportAfter = 3 * time.Second

// reportTakeovers logs the takeovers whose declared records are polled. w.mu is held.
func (w *Window) reportTakeovers(now time.Time) {
	w.reports = slices.DeleteFunc(w.reports, func(r *takeoverReport) bool {
		if r.open > 0 && now.Sub(r.began) < reportAfter {
			return false
		}
		if r.uncertain > 0 {
			w.log.Warn("takeover: records may have been handed over by the last owner", "uncertain", r.uncertain, "campaigns", r.names())
		}
		return true
	})
}

// maxNamed is how many campaigns a report names.
const maxNamed = 10

// names lists the campaigns with the most uncertain records, such as `camp_10001:41 camp_10002:3`.
func (r *takeoverReport) names() string {
	numbers := slices.SortedFunc(maps.Keys(r.campaigns), func(a, b uint64) int {
		return cmp.Or(r.campaigns[b]-r.campaigns[a], cmp.Compare(a, b))
	})
	var b strings.Builder
	for i, n := range numbers {
		if i == maxNamed {
			fmt.Fprintf(&b, " and %d more", len(numbers)-maxNamed)
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s:%d", schemas.CampaignID(n), r.campaigns[n])
	}
	return b.String()
}

// examine returns the committed intent of a partition whose log is [start, end), or why the partition must be
// suspended.
func (w *Window) examine(f found, start, end int64) (intent, *SuspendedError) {
	s := &SuspendedError{Topic: w.cfg.Topic, Partition: f.id}
	command := fmt.Sprintf("kafka-consumer-groups.sh --group %s --topic %s:%d --reset-offsets --to-offset N --execute", w.cfg.Group, w.cfg.Topic, f.id)
	last := fmt.Sprintf("find the last `source` of %s/%d in the outcomes and commit the offset after it while no sender runs: %s", w.cfg.Topic, f.id, command)
	switch {
	case f.offset < 0:
		s.Reason, s.Detail, s.Fix = ReasonNoOffset, "the group has no committed offset", last
	case f.offset < start || f.offset > end:
		s.Reason, s.Detail = ReasonOutOfRange, fmt.Sprintf("offset %d is committed and the log is [%d, %d)", f.offset, start, end)
		s.Fix = last
	default:
		in, err := parseIntent(f.metadata, f.offset)
		if err == nil {
			return in, nil
		}
		s.Reason, s.Detail = ReasonMetadata, err.Error()
		s.Fix = "find out which client commits in this group, then " + last
	}
	return intent{}, s
}

// suspend reports a partition that is suspended.
func (w *Window) suspend(s *SuspendedError) {
	w.log.Error("partition suspended", "partition", s.Partition, "reason", string(s.Reason), "detail", s.Detail, "fix", s.Fix)
	if w.cfg.Suspended == nil {
		w.fail(s)
		return
	}
	w.cfg.Suspended(s)
}

// lastOutcomeRecords is how many of the newest outcomes are read at a takeover. If many records are declared, it reads
// more, up to maxOutcomeRecords, because a message has outcomes of several stages.
const (
	lastOutcomeRecords = 50_000
	maxOutcomeRecords  = 400_000
)

// outcomesOf holds the newest outcomes that belong to one partition.
type outcomesOf struct {
	last  int64                // greatest source; -1: none
	final map[int64]schemas.ID // submissions that have a final outcome, by source, from the committed offset on
}

// lastOutcomes reads the newest outcomes and returns, for each partition, the greatest source and the submissions with
// a final outcome.
func (w *Window) lastOutcomes(ctx context.Context, adm *kadm.Client, of []found) (map[int32]*outcomesOf, error) {
	out := map[int32]*outcomesOf{}
	from := map[int32]int64{}
	for _, f := range of {
		out[f.id], from[f.id] = &outcomesOf{last: -1, final: map[int64]schemas.ID{}}, f.offset
	}
	if w.cfg.Outcomes == "" {
		return out, nil
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
	declared := int64(0)
	for _, f := range of {
		if in, err := parseIntent(f.metadata, f.offset); err == nil {
			declared += in.end() - f.offset
		}
	}
	newest := map[int32]span{}
	share := min(max(lastOutcomeRecords, 4*declared), maxOutcomeRecords) / int64(max(1, len(ends[w.cfg.Outcomes])))
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
		have := out[int32(p)]
		if have == nil {
			return
		}
		have.last = max(have.last, offset)
		if w.cfg.Reread != nil {
			w.cfg.Reread(r)
		}
		if w.cfg.OutcomeOf != nil && offset >= from[int32(p)] {
			if id, err := w.cfg.OutcomeOf(r); err == nil {
				have.final[offset] = id
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read the newest of %s: %w", w.cfg.Outcomes, err)
	}
	return out, nil
}

// span is the offsets [from, to).
type span struct{ from, to int64 }

// readSpans calls each for every record in spans of a topic.
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
		kgo.KeepControlRecords(), // the last record of a span may be one
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
		// No record arrived for a while. Either the rest of the spans has no records (aborted or compacted), or a
		// leader is unreachable or moving, which a poll does not report. So the window asks every leader and then waits
		// once more; if no record arrives again, the spans are read.
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

// quietRead is how long no record may arrive before the window asks the leaders of the spans. After the same time again
// the spans count as read.
const quietRead = 3 * time.Second

// restartParts repeats the takeover of the parts whose committed offset another member wrote. The poller calls it
// between two polls, while rebalances are blocked.
func (w *Window) restartParts(ctx context.Context) error {
	ended, cancel := context.WithCancel(ctx)
	cancel()
	w.cl.PollRecords(ended, 1) // this polls no records, but blocks rebalances
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
		return fmt.Errorf("fetch committed offsets: %w", err)
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
	w.wakeCommitter()
	return nil
}

// reexamine returns the committed intents of parts, and what this process has settled of each.
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

// awaitOutcomes waits, for at most DrainTimeout, until Kafka has acknowledged the outcomes of parts that are on their
// way.
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
