package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"fanfare/schemas"
)

// found is what is committed of a partition that we are given.
type found struct {
	id       int32
	offset   int64 // -1: nothing
	epoch    int32
	metadata string
}

// fetched is called when the committed offsets of partitions that we were given are known and before anything of them is
// fetched, while heartbeats go on. It takes the partitions over. ctx ends when they are taken away meanwhile.
func (w *Window) fetched(ctx context.Context, cl *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
	<-w.started
	var all []found
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			if t.Topic != w.cfg.Topic && t.Topic != "" { // newer brokers answer with its id; no other was asked for
				continue
			}
			for _, p := range t.Partitions {
				if p.ErrorCode != 0 {
					continue // the client says so in a fetch
				}
				f := found{id: p.Partition, offset: p.Offset, epoch: p.LeaderEpoch}
				if p.Metadata != nil {
					f.metadata = *p.Metadata
				}
				all = append(all, f)
			}
		}
	}
	member, _ := cl.GroupMetadata()
	parts, err := w.takeOver(ctx, member, all, nil)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range parts {
		if old := w.parts[p.id]; old != nil {
			w.drop(old)
		}
		w.own(p)
	}
	w.nudge()
	return nil
}

// adjust is called after fetched with where fetching begins. A partition without an offset is suspended, and would else be
// fetched from a beginning that the client chooses.
func (w *Window) adjust(_ context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range offsets[w.cfg.Topic] {
		if p := w.parts[id]; p != nil && p.why == stopSuspended {
			offsets[w.cfg.Topic][id] = kgo.NewOffset().At(p.base)
		}
	}
	return offsets, nil
}

// own makes a part one of ours. The lock is held.
func (w *Window) own(p *part) {
	w.parts[p.id] = p
	w.order = append(w.order, p)
	slices.SortFunc(w.order, func(a, b *part) int { return int(a.id - b.id) })
	if p.why == stopSuspended {
		w.cl.PauseFetchPartitions(map[string][]int32{w.cfg.Topic: {p.id}})
		p.paused = true
	}
}

// drop lets go of a part: what was not begun is not begun any more. The lock is held.
func (w *Window) drop(p *part) {
	p.gone = true
	p.stopped.Store(true)
	p.recall()
	if w.parts[p.id] == p {
		delete(w.parts, p.id)
		w.order = slices.DeleteFunc(w.order, func(q *part) bool { return q == p })
	}
	if p.paused {
		w.cl.ResumeFetchPartitions(map[string][]int32{w.cfg.Topic: {p.id}})
	}
}

// revoked hands over what goes to somebody else.
func (w *Window) revoked(ctx context.Context, _ *kgo.Client, lost map[string][]int32) {
	<-w.started
	var parts []*part
	w.mu.Lock()
	for _, id := range lost[w.cfg.Topic] {
		if p := w.parts[id]; p != nil {
			parts = append(parts, p)
		}
	}
	w.mu.Unlock()
	if len(parts) > 0 {
		w.handOver(ctx, parts)
	}
}

// lost lets go of what is somebody else's already: to commit would take back what they have declared.
func (w *Window) lost(ctx context.Context, _ *kgo.Client, lost map[string][]int32) {
	<-w.started
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range lost[w.cfg.Topic] {
		if p := w.parts[id]; p != nil {
			w.log.WarnContext(ctx, "a partition is lost; what was in flight is uncertain for the next owner", "partition", id, "in_flight", p.inFlight())
			w.drop(p)
		}
	}
}

// handOver stops parts, waits for what is in flight, and commits what of them is settled.
func (w *Window) handOver(ctx context.Context, parts []*part) {
	w.mu.Lock()
	for _, p := range parts {
		if p.why != stopSuspended && p.why != stopReset {
			p.stop(stopLeaving)
		}
		p.recall()
	}
	w.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, w.cfg.DrainTimeout+leaveTimeout)
	defer cancel()
	w.awaitAnswers(ctx, parts)

	w.commits.Lock()
	defer w.commits.Unlock()
	retry := newBackoff(20*time.Millisecond, 500*time.Millisecond)
	for !w.commit(ctx, w.handOvers(parts)) {
		if again := w.worthAgain(parts); !again || !retry.wait(ctx) {
			w.log.ErrorContext(ctx, "the hand-over could not be committed; what is declared is uncertain for the next owner", "partitions", len(parts))
			break
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range parts {
		if !p.gone {
			w.drop(p)
		}
	}
}

// handOvers returns the commit that hands parts over.
func (w *Window) handOvers(parts []*part) []entry {
	w.mu.Lock()
	defer w.mu.Unlock()
	var entries []entry
	for _, p := range parts {
		if p.gone || p.why != stopLeaving {
			continue // what is committed of it is not ours to change
		}
		p.trim()
		in, doubts := p.handOver()
		base := p.oldest()
		metadata, complete := in.encode(base)
		if doubts > 0 || !complete {
			w.metrics.handedOver.Add(float64(doubts))
			w.log.Warn("a partition is handed over with records in doubt", "partition", p.id, "doubtful", doubts, "all", !complete)
		}
		entries = append(entries, entry{p, base, in.head, 0, metadata})
	}
	return entries
}

// worthAgain reports whether a hand-over that was refused may still be accepted.
func (w *Window) worthAgain(parts []*part) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range parts {
		if p.why != stopLeaving || p.gone {
			continue
		}
		var refusal *kerr.Error
		if errors.As(p.refusal, &refusal) && !refusal.Retriable && !errors.Is(refusal, kerr.RebalanceInProgress) {
			return false
		}
	}
	return true
}

// awaitAnswers waits until nothing of parts is in flight, for at most DrainTimeout.
func (w *Window) awaitAnswers(ctx context.Context, parts []*part) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.DrainTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		n := 0
		w.mu.Lock()
		for _, p := range parts {
			n += p.inFlight()
		}
		w.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.produceAgain() //nolint:contextcheck // closing the client is what ends it
		}
	}
}

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
	for len(left) > 0 {
		polling, cancel := context.WithTimeout(ctx, quietRead)
		fetches := cl.PollRecords(polling, 10_000)
		quiet := polling.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
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
		if quiet && fetches.NumRecords() == 0 {
			// What is left of the span has no records: it was aborted, or compacted. A broker that is away does not say so.
			if _, err := adm.ListEndOffsets(ctx, topic); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// quietRead is how long a span without a record may be read before it counts as read.
const quietRead = 3 * time.Second

// poll queues records until ctx ends.
func (w *Window) poll(ctx context.Context) {
	retry := newBackoff(50*time.Millisecond, 2*time.Second)
	for ctx.Err() == nil {
		polling, cancel := context.WithCancel(ctx)
		w.mu.Lock()
		w.unpoll = cancel
		resets := w.resets
		w.resets = false
		room := w.capacity()
		w.mu.Unlock()
		switch {
		case resets:
			if err := w.beginAnew(ctx); err != nil && ctx.Err() == nil {
				w.log.WarnContext(ctx, "beginning anew is tried again", "err", err)
				retry.wait(ctx)
				w.mu.Lock()
				w.resets = true
				w.mu.Unlock()
			} else {
				retry = newBackoff(50*time.Millisecond, 2*time.Second)
			}
		case room <= 0:
			select {
			case <-polling.Done():
			case <-w.room:
			}
		default:
			fetches := w.cl.PollRecords(polling, room)
			if fetches.IsClientClosed() {
				cancel()
				return
			}
			// What was polled just before a revoke belongs to the assignment before it, so it is queued before rebalances go on.
			w.queue(ctx, fetches)
			w.cl.AllowRebalance()
		}
		cancel()
	}
}

// Bounds of what is polled and not declared yet, in records.
const (
	queueMost  = 8192
	queueStuck = queueMost / 2 // of a partition whose base does not move: it must not keep the others from being polled
)

// capacity is how many records may be polled now. The lock is held.
func (w *Window) capacity() int {
	room := queueMost
	for _, p := range w.order {
		if p.why != stopSuspended {
			room -= p.undeclared()
		}
	}
	return room
}

// letPoll wakes the poller when there is room, and pauses and resumes partitions that are stuck.
func (w *Window) letPoll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.order {
		if p.why == stopSuspended {
			continue
		}
		switch n := p.undeclared(); {
		case !p.paused && n > queueStuck && time.Since(p.movedAt) > time.Second:
			p.paused = true
			w.cl.PauseFetchPartitions(map[string][]int32{w.cfg.Topic: {p.id}})
		case p.paused && n < queueStuck/4:
			p.paused = false
			w.cl.ResumeFetchPartitions(map[string][]int32{w.cfg.Topic: {p.id}})
		}
	}
	w.metrics.observe(w, time.Now())
	if w.capacity() >= queueMost/8 {
		signal(w.room)
	}
}

// queue takes in what was polled.
func (w *Window) queue(ctx context.Context, fetches kgo.Fetches) {
	dropped, doubts, polled := 0, 0, 0
	part := func(id int32) *part {
		if p := w.parts[id]; p != nil && p.why != stopSuspended && p.why != stopReset {
			return p
		}
		return nil
	}
	fetches.EachError(func(topic string, id int32, err error) {
		if ctx.Err() != nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return
		}
		w.fetchFailed(topic, id, err)
	})
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		w.mu.Lock()
		p := part(f.Partition)
		w.mu.Unlock()
		if p == nil || len(f.Records) == 0 {
			return
		}
		block, again := p.recognise(f.Records)
		w.mu.Lock()
		defer w.mu.Unlock()
		if p == part(f.Partition) {
			d, u := p.take(block, again)
			p.high = max(p.high, f.HighWatermark)
			dropped, doubts, polled = dropped+d, doubts+u, polled+len(block)
		}
	})
	if polled > 0 {
		w.metrics.seenDrops.Add(float64(dropped))
		w.metrics.uncertain.Add(float64(doubts))
		w.nudge()
	}
}

// fetchFailed suspends a partition whose log does not have what is to be read any more.
func (w *Window) fetchFailed(topic string, id int32, err error) {
	var loss *kgo.ErrDataLoss
	isLoss := errors.As(err, &loss)
	if !isLoss && !errors.Is(err, kerr.OffsetOutOfRange) {
		w.log.Warn("window cannot fetch", "partition", id, "err", err)
		return
	}
	w.mu.Lock()
	p := w.parts[id]
	if p == nil || topic != w.cfg.Topic || p.why == stopSuspended {
		w.mu.Unlock()
		return
	}
	s := &SuspendedError{Topic: topic, Partition: id, Reason: ReasonOutOfRange, Detail: fmt.Sprintf("offset %d is to be read next: %v", p.next, err)}
	s.Fix = fmt.Sprintf("find out what became of the log, then commit where to go on while no sender runs: "+
		"kafka-consumer-groups.sh --group %s --topic %s:%d --reset-offsets --to-offset N --execute", w.cfg.Group, topic, id)
	if isLoss {
		s.Reason = ReasonDataLoss
	}
	p.stop(stopSuspended)
	p.recall()
	p.paused = true
	w.mu.Unlock()
	w.cl.PauseFetchPartitions(map[string][]int32{topic: {id}})
	w.suspend(s)
}

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
	ctx, cancel := context.WithTimeout(ctx, w.cfg.DrainTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		n := 0
		w.mu.Lock()
		for _, p := range parts {
			for _, it := range p.items {
				if it.state.Load() == itemSettling {
					n++
				}
			}
		}
		w.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
