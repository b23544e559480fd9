package feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"fanfare/pipeline/stream"
	"fanfare/sinks/analytics"
)

// sending is one batch that is being stored.
type sending struct {
	p     *partition
	batch analytics.Batch
	dead  []stream.Dead
}

// flush appends everything that has been read, in the steps described in the package comment. It returns nil also if
// some batches have to wait for the next flush. An error ends the feed.
func (f *reader) flush(ctx context.Context) error {
	batches := f.gather()
	if len(batches) == 0 {
		f.settle(ctx)
		if f.marks && f.cfg.Now().Sub(f.lastMark) >= idleMark {
			f.mark(ctx)
		}
		return nil
	}
	batches = f.declare(ctx, batches)
	if err := f.interrupt("declared"); err != nil {
		return err
	}
	if !f.writeDead(ctx, batches) || !f.append(ctx, batches) {
		return nil // stopped: the batches are declared, and the next owner appends them
	}
	if err := f.interrupt("appended"); err != nil {
		return err
	}
	f.mu.Lock()
	for _, b := range batches {
		b.p.done(b.batch.End)
	}
	f.mu.Unlock()
	if f.marks {
		f.mark(ctx)
	}
	if f.positioner != nil && f.cfg.Now().Sub(f.lastSettle) >= idleMark {
		f.settle(ctx) // with a positioner there is no declaration that would settle
	}
	return f.interrupt("marked")
}

// idleMark is how often the feed marks the store while no events arrive, and how often it commits the position of a
// store that keeps its own. Both are only for display.
const idleMark = time.Second

func (f *reader) interrupt(step string) error {
	if f.interrupted == nil {
		return nil
	}
	return f.interrupted(step)
}

// gather returns one batch for each partition that has something to append. A declared batch has exactly the declared
// bounds.
func (f *reader) gather() []sending {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []sending
	for _, p := range f.partitions {
		end := p.next
		if p.declared > 0 {
			end = p.declared
		}
		if end > p.next || p.next == p.start {
			continue
		}
		n, d, dead := p.below(end)
		out = append(out, sending{
			p:     p,
			batch: analytics.Batch{Topic: f.topicID, Partition: p.id, First: p.start, End: end, Events: p.events[:n:n], Deals: p.deals[:d:d]},
			dead:  p.dead[:dead:dead],
		})
	}
	slices.SortFunc(out, func(a, b sending) int { return cmp.Compare(a.p.id, b.p.id) })
	return out
}

// below returns how many events, deals and dead letters are below an offset.
func (p *partition) below(end int64) (events, deals, dead int) {
	events, _ = slices.BinarySearchFunc(p.events, end, func(e analytics.Event, end int64) int { return cmp.Compare(e.Offset, end) })
	deals, _ = slices.BinarySearchFunc(p.deals, end, func(d analytics.Deal, end int64) int { return cmp.Compare(d.Offset, end) })
	dead, _ = slices.BinarySearchFunc(p.dead, end, func(d stream.Dead, end int64) int { return cmp.Compare(d.Record.Offset, end) })
	return events, deals, dead
}

// done drops the rows below end, which are stored.
func (p *partition) done(end int64) {
	n, d, dead := p.below(end)
	// The slice keeps its capacity for the next batch.
	p.events = p.events[:copy(p.events, p.events[n:])]
	p.deals = slices.Clone(p.deals[d:])
	p.dead = slices.Clone(p.dead[dead:])
	p.start, p.declared = end, 0
	for len(p.checks) > 0 && p.checks[0].end <= p.start {
		p.asOf, p.checks = p.checks[0].at, p.checks[1:]
	}
}

// declare writes the bounds of batches into the metadata of the group's offset commit, before they are appended. The
// same commit settles the batches before them. declare returns the batches that may be appended. A store that keeps
// positions needs none of this.
func (f *reader) declare(ctx context.Context, batches []sending) []sending {
	if f.positioner != nil {
		return batches
	}
	wanted := map[*partition]commitment{}
	for _, b := range batches {
		if b.p.declared == 0 {
			wanted[b.p] = commitment{b.p.start, b.batch.End}
		}
	}
	accepted := f.commit(ctx, stepDeclare, wanted)
	return slices.DeleteFunc(batches, func(b sending) bool {
		if b.p.declared != 0 {
			return false
		}
		if !accepted[b.p] {
			return true
		}
		b.p.declared = b.batch.End
		return false
	})
}

// settle commits the stored offsets that no declaration has committed yet.
func (f *reader) settle(ctx context.Context) {
	f.lastSettle = f.cfg.Now()
	wanted := map[*partition]commitment{}
	for _, p := range f.owned() {
		if p.declared == 0 && p.start > p.settled {
			wanted[p] = commitment{offset: p.start}
		}
	}
	f.commit(ctx, stepSettle, wanted)
}

// commitment is what is committed for one partition: everything below offset is stored, and [offset, end) is declared.
// If end is 0, nothing is declared.
type commitment struct{ offset, end int64 }

// commitTimeout bounds a commit, which may have to wait for a rebalance. The next flush repeats a commit that timed
// out.
const commitTimeout = 5 * time.Second

// commit returns the partitions for which the broker accepted the commit. It skips partitions that were revoked,
// because the broker would accept a commit from any member of the group, even for another member's partition.
func (f *reader) commit(ctx context.Context, step string, wanted map[*partition]commitment) map[*partition]bool {
	accepted := map[*partition]bool{}
	if len(wanted) == 0 {
		return accepted
	}
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	f.mu.Lock()
	defer f.mu.Unlock()
	byID := map[int32]*partition{}
	offsets := map[int32]kgo.EpochOffset{}
	for p, c := range wanted {
		if !p.lost {
			byID[p.id] = p
			offsets[p.id] = kgo.EpochOffset{Epoch: -1, Offset: c.offset}
		}
	}
	if len(offsets) == 0 {
		return accepted
	}
	withIntent := kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		for i := range req.Topics {
			for j := range req.Topics[i].Partitions {
				p := &req.Topics[i].Partitions[j]
				metadata := ""
				if end := wanted[byID[p.Partition]].end; end > 0 {
					metadata = intent(end)
				}
				p.Metadata = &metadata
			}
		}
		return nil
	})
	var failed error
	f.cl.CommitOffsetsSync(withIntent, map[string]map[int32]kgo.EpochOffset{f.topic: offsets}, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if err != nil {
			failed = err
			return
		}
		for _, t := range resp.Topics {
			for _, rp := range t.Partitions {
				p := byID[rp.Partition]
				if err := kerr.ErrorForCode(rp.ErrorCode); err != nil || p == nil {
					failed = cmp.Or(failed, err)
					continue
				}
				accepted[p] = true
				p.settled = offsets[rp.Partition].Offset
			}
		}
	})
	switch {
	case failed == nil:
		f.outages.OK(ctx, step)
	case ctx.Err() == nil:
		f.failed(ctx, step, failed)
	}
	return accepted
}

// writeDead writes the dead letters and waits for their acknowledgement. It returns false if ctx ended first.
func (f *reader) writeDead(ctx context.Context, batches []sending) bool {
	var records []*kgo.Record
	for _, b := range batches {
		for _, d := range b.dead {
			records = append(records, stream.DeadLetter(f.cfg.Cluster.Names, f.stage, d))
		}
	}
	return len(records) == 0 || f.retry(ctx, stepDead, func() error {
		return f.cl.ProduceSync(ctx, records...).FirstErr()
	})
}

// failed records that a step failed and will be tried again.
func (f *reader) failed(ctx context.Context, step string, err error) {
	f.metrics.retries.WithLabelValues(step).Inc()
	f.outages.Failed(ctx, step, err)
}

// retry calls do until it succeeds, with growing pauses. It returns false if ctx ended first.
func (f *reader) retry(ctx context.Context, step string, do func() error) bool {
	wait := 50 * time.Millisecond
	for {
		err := do()
		if err == nil {
			f.outages.OK(ctx, step)
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		f.failed(ctx, step, err)
		if !pause(ctx, wait) {
			return false
		}
		wait = min(2*wait, 5*time.Second)
	}
}

// append offers the batches to the store until it accepts them, each time the same rows with the same bounds. It drops
// batches of revoked partitions, because the new owner appends them. append returns false if ctx ended first.
func (f *reader) append(ctx context.Context, batches []sending) bool {
	return f.retry(ctx, stepAppend, func() error {
		var left []analytics.Batch
		var rows []int
		f.mu.Lock()
		for _, b := range batches {
			if !b.p.lost {
				left = append(left, b.batch)
				rows = append(rows, len(b.batch.Events)+len(b.batch.Deals))
			}
		}
		f.mu.Unlock()
		if len(left) == 0 {
			return nil
		}
		began := time.Now()
		err := f.cfg.Store.Append(ctx, left...)
		if errors.Is(err, analytics.ErrData) {
			for _, b := range left {
				if err = f.divide(ctx, b); err != nil {
					break
				}
			}
		}
		if err == nil {
			f.metrics.appended(len(left), rows, time.Since(began))
		}
		return err
	})
}

// divide appends a batch of which the store refuses some rows: it halves the batch until each refused row is alone. The
// bounds of the halves depend only on the rows, so a repetition produces the same batches.
func (f *reader) divide(ctx context.Context, b analytics.Batch) error {
	err := f.cfg.Store.Append(ctx, b)
	if !errors.Is(err, analytics.ErrData) {
		return err
	}
	// A batch has either events or deals.
	if n := len(b.Events) + len(b.Deals); n > 1 {
		low, high := b, b
		if half := n / 2; len(b.Events) > 0 {
			low.Events, high.Events = b.Events[:half], b.Events[half:]
			low.End = high.Events[0].Offset
		} else {
			low.Deals, high.Deals = b.Deals[:half], b.Deals[half:]
			low.End = high.Deals[0].Offset
		}
		high.First = low.End
		if err := f.divide(ctx, low); err != nil {
			return err
		}
		return f.divide(ctx, high)
	}
	if len(b.Events)+len(b.Deals) == 0 {
		return err // not caused by a row
	}
	if err := f.refuse(ctx, b, err); err != nil {
		return err
	}
	b.Events, b.Deals = nil, nil
	return f.cfg.Store.Append(ctx, b)
}

// refuse writes a dead letter for the single row of a batch. The record is no longer in memory; the dead letter names
// its offset.
func (f *reader) refuse(ctx context.Context, b analytics.Batch, cause error) error {
	at := &kgo.Record{Topic: f.topic, Partition: b.Partition}
	if len(b.Events) > 0 {
		e := &b.Events[0]
		at.Offset, at.Key = e.Offset, fmt.Appendf(nil, "%s/%s", e.Campaign.Tenant, e.MessageID)
	} else {
		d := &b.Deals[0]
		at.Offset, at.Key = d.Offset, fmt.Appendf(nil, "%s/%s#%d", d.Campaign.Tenant, d.Campaign.ID, d.Number)
	}
	err := f.cl.ProduceSync(ctx, stream.DeadLetter(f.cfg.Cluster.Names, f.stage, stream.Dead{Record: at, Cause: cause})).FirstErr()
	if err != nil {
		return fmt.Errorf("write a dead letter: %w", err)
	}
	f.metrics.dead.WithLabelValues(causeStore).Inc()
	f.log.ErrorContext(ctx, "store refused a row; written to the dead letters", "partition", b.Partition, "offset", at.Offset, "err", cause)
	return nil
}
