package stream

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
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
	w.await(ctx, parts, (*part).inFlight, w.produceAgain)
}

// await waits until left, which is called with the lock held, is 0 for all parts, for at most DrainTimeout. Between two looks it
// calls meanwhile.
func (w *Window) await(ctx context.Context, parts []*part, left func(*part) int, meanwhile func()) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.DrainTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		n := 0
		w.mu.Lock()
		for _, p := range parts {
			n += left(p)
		}
		w.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			meanwhile()
		}
	}
}
