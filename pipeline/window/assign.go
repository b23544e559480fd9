package window

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"fanfare/pipeline/stream"
)

// found is the committed offset and metadata of an assigned partition.
type found struct {
	id       int32
	offset   int64 // -1: none
	epoch    int32
	metadata string
}

// fetched takes over assigned partitions. The client calls it when it has their committed offsets and before it fetches
// records, while heartbeats go on. ctx ends when the partitions are revoked meanwhile.
func (w *Window) fetched(ctx context.Context, cl *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
	<-w.started
	var all []found
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			// Newer brokers answer with the topic's id; only one topic was asked for
			if t.Topic != w.cfg.Topic && t.Topic != "" {
				continue
			}
			for _, p := range t.Partitions {
				if p.ErrorCode != 0 {
					continue // the client reports it with the next fetch
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
	w.wakeCommitter()
	return nil
}

// adjust is called after fetched with the offsets at which fetching begins. A suspended partition may have no committed
// offset; without this the client would choose one.
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

// own adds the part of an assigned partition. w.mu is held.
func (w *Window) own(p *part) {
	w.parts[p.id] = p
	w.order = append(w.order, p)
	slices.SortFunc(w.order, func(a, b *part) int { return int(a.id - b.id) })
	if p.why == stopSuspended {
		w.cl.PauseFetchPartitions(map[string][]int32{w.cfg.Topic: {p.id}})
		p.paused = true
	}
}

// drop removes a part: its items that were not begun can no longer begin. w.mu is held.
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

// revoked gives up partitions that go to another member.
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
		w.giveUp(ctx, parts)
	}
}

// lost drops partitions that another member may own already: a commit could take back what that member has declared.
func (w *Window) lost(ctx context.Context, _ *kgo.Client, lost map[string][]int32) {
	<-w.started
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range lost[w.cfg.Topic] {
		if p := w.parts[id]; p != nil {
			w.log.WarnContext(ctx, "partition lost; records in flight are uncertain for the next owner", "partition", id, "in_flight", p.inFlight())
			w.drop(p)
		}
	}
}

// giveUp stops parts, waits for what is in flight, and commits their final intents.
func (w *Window) giveUp(ctx context.Context, parts []*part) {
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
	retry := stream.NewBackoff(20*time.Millisecond, 500*time.Millisecond)
	for !w.commit(ctx, w.finalEntries(parts)) {
		if again := w.worthAgain(parts); !again || !retry.Wait(ctx) {
			w.log.ErrorContext(ctx, "final commit failed; declared records are uncertain for the next owner", "partitions", len(parts))
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

// finalEntries returns the commit that gives parts up.
func (w *Window) finalEntries(parts []*part) []entry {
	w.mu.Lock()
	defer w.mu.Unlock()
	var entries []entry
	for _, p := range parts {
		if p.gone || p.why != stopLeaving {
			continue // this process must not change its committed offset
		}
		p.trim()
		in, doubts := p.finalIntent()
		base := p.oldest()
		metadata, complete := in.encode(base)
		if doubts > 0 || !complete {
			w.metrics.handedOver.Add(float64(doubts))
			w.log.Warn("partition given up with uncertain records", "partition", p.id, "uncertain", doubts, "all_declared", !complete)
		}
		entries = append(entries, entry{p: p, base: base, head: in.head, metadata: metadata})
	}
	return entries
}

// worthAgain reports whether a refused final commit may be accepted when it is sent again.
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

// awaitAnswers waits, for at most DrainTimeout, until nothing of parts is in flight.
func (w *Window) awaitAnswers(ctx context.Context, parts []*part) {
	w.await(ctx, parts, (*part).inFlight, w.produceAgain)
}

// await waits, for at most DrainTimeout, until left is 0 for all parts. left is called with w.mu held; meanwhile is
// called between two looks.
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
