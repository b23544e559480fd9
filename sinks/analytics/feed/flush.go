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

// sending is one batch on its way into the store.
type sending struct {
	p     *partition
	batch analytics.Batch
	dead  []stream.Dead
}

// flush appends everything that has been read, in the steps of the package's comment. It returns nil also when something has
// to wait for the next time; an error ends the feed.
func (f *Feed) flush(ctx context.Context) error {
	batches := f.gather()
	if len(batches) == 0 {
		f.settle(ctx)
		if f.cfg.Now().Sub(f.lastMark) >= idleMark {
			f.mark(ctx)
		}
		return nil
	}
	batches = f.declare(ctx, batches)
	if err := f.interrupt("declared"); err != nil {
		return err
	}
	if !f.bury(ctx, batches) || !f.append(ctx, batches) {
		return nil // stopped: the batches are declared, whoever comes next appends them
	}
	if err := f.interrupt("appended"); err != nil {
		return err
	}
	f.mu.Lock()
	for _, b := range batches {
		b.p.done(b.batch.End)
	}
	f.mu.Unlock()
	f.mark(ctx)
	if f.positioner != nil && f.cfg.Now().Sub(f.lastSettle) >= idleMark {
		f.settle(ctx) // no declaration does it
	}
	return f.interrupt("marked")
}

// idleMark is how often the store is told that nothing has come, and how often the group is told what a store that keeps its
// positions has: both are for people.
const idleMark = time.Second

func (f *Feed) interrupt(step string) error {
	if f.interrupted == nil {
		return nil
	}
	return f.interrupted(step)
}

// gather makes a batch of each partition that has anything to append: of exactly the declared bounds where they are declared.
func (f *Feed) gather() []sending {
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
		n, _ := slices.BinarySearchFunc(p.events, end, func(e analytics.Event, end int64) int { return cmp.Compare(e.Offset, end) })
		d, _ := slices.BinarySearchFunc(p.dead, end, func(d stream.Dead, end int64) int { return cmp.Compare(d.Record.Offset, end) })
		out = append(out, sending{
			p:     p,
			batch: analytics.Batch{Topic: f.topicID, Partition: p.id, First: p.start, End: end, Events: p.events[:n:n]},
			dead:  p.dead[:d:d],
		})
	}
	slices.SortFunc(out, func(a, b sending) int { return cmp.Compare(a.p.id, b.p.id) })
	return out
}

// done forgets what stands below end: it is stored.
func (p *partition) done(end int64) {
	n, _ := slices.BinarySearchFunc(p.events, end, func(e analytics.Event, end int64) int { return cmp.Compare(e.Offset, end) })
	d, _ := slices.BinarySearchFunc(p.dead, end, func(d stream.Dead, end int64) int { return cmp.Compare(d.Record.Offset, end) })
	// The room is used again: it is as large as a batch gets.
	p.events = p.events[:copy(p.events, p.events[n:])]
	p.dead = slices.Clone(p.dead[d:])
	p.start, p.declared = end, 0
	for len(p.checks) > 0 && p.checks[0].end <= p.start {
		p.asOf, p.checks = p.checks[0].at, p.checks[1:]
	}
}

// declare writes the bounds of batches ahead, into the group's offset commit: the same commit settles the batches before them.
// It returns the batches that may be appended. A store that keeps positions needs no declaration.
func (f *Feed) declare(ctx context.Context, batches []sending) []sending {
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

// settle tells the group what is stored, where no later batch has done it.
func (f *Feed) settle(ctx context.Context) {
	f.lastSettle = f.cfg.Now()
	wanted := map[*partition]commitment{}
	for _, p := range f.owned() {
		if p.declared == 0 && p.start > p.settled {
			wanted[p] = commitment{offset: p.start}
		}
	}
	f.commit(ctx, stepSettle, wanted)
}

// commitment is what is committed of one partition: everything below offset is stored, and [offset, end) may be about to be. end 0: nothing is.
type commitment struct{ offset, end int64 }

// commitTimeout is how long a commit may take. During a rebalance it waits; then it is tried again with the next flush.
const commitTimeout = 5 * time.Second

// commit returns the partitions for which the commit was accepted. Those that were taken away are left out: the group accepts
// a commit from any of its members, also for what is another's.
func (f *Feed) commit(ctx context.Context, step string, wanted map[*partition]commitment) map[*partition]bool {
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
	if failed != nil && ctx.Err() == nil {
		f.metrics.retries.WithLabelValues(step).Inc()
		f.log.WarnContext(ctx, "offset commit refused", "step", step, "error", failed)
	}
	return accepted
}

// bury writes the dead letters and waits for their acknowledgement; false: ctx ended first.
func (f *Feed) bury(ctx context.Context, batches []sending) bool {
	var records []*kgo.Record
	for _, b := range batches {
		for _, d := range b.dead {
			records = append(records, stream.DeadLetter(f.cfg.Cluster.Names, Stage, d))
		}
	}
	return len(records) == 0 || f.retry(ctx, stepDead, func() error {
		return f.cl.ProduceSync(ctx, records...).FirstErr()
	})
}

// retry runs do until it succeeds, with growing pauses; false: ctx ended first.
func (f *Feed) retry(ctx context.Context, step string, do func() error) bool {
	wait := 50 * time.Millisecond
	for {
		err := do()
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		f.metrics.retries.WithLabelValues(step).Inc()
		f.log.WarnContext(ctx, "trying again", "step", step, "error", err)
		if !pause(ctx, wait) {
			return false
		}
		wait = min(2*wait, 5*time.Second)
	}
}

// append gives the batches to the store until it takes them: the same rows under the same bounds each time. Those of partitions
// that were taken away meanwhile are left to their new owner. false: ctx ended first.
func (f *Feed) append(ctx context.Context, batches []sending) bool {
	return f.retry(ctx, stepAppend, func() error {
		var left []analytics.Batch
		var rows []int
		f.mu.Lock()
		for _, b := range batches {
			if !b.p.lost {
				left = append(left, b.batch)
				rows = append(rows, len(b.batch.Events))
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

// divide appends what the store will take of a batch of which it will not take all: halves of halves, down to the rows that it
// refuses. The bounds follow from the rows, so whoever repeats it makes the same batches.
func (f *Feed) divide(ctx context.Context, b analytics.Batch) error {
	err := f.cfg.Store.Append(ctx, b)
	if !errors.Is(err, analytics.ErrData) {
		return err
	}
	if len(b.Events) > 1 {
		half := len(b.Events) / 2
		low, high := b, b
		low.Events, high.Events = b.Events[:half], b.Events[half:]
		low.End = high.Events[0].Offset
		high.First = low.End
		if err := f.divide(ctx, low); err != nil {
			return err
		}
		return f.divide(ctx, high)
	}
	if len(b.Events) == 0 {
		return err // it is not the rows that it minds
	}
	if err := f.refuse(ctx, b, err); err != nil {
		return err
	}
	b.Events = nil
	return f.cfg.Store.Append(ctx, b)
}

// refuse makes a dead letter of the one event of a batch. The record itself is gone by then; what the event says is enough to find it.
func (f *Feed) refuse(ctx context.Context, b analytics.Batch, cause error) error {
	e := &b.Events[0]
	at := &kgo.Record{Topic: f.topic, Partition: b.Partition, Offset: e.Offset, Key: fmt.Appendf(nil, "%s/%s", e.Campaign.Tenant, e.MessageID)}
	err := f.cl.ProduceSync(ctx, stream.DeadLetter(f.cfg.Cluster.Names, Stage, stream.Dead{Record: at, Cause: cause})).FirstErr()
	if err != nil {
		return fmt.Errorf("write a dead letter: %w", err)
	}
	f.metrics.dead.WithLabelValues(causeStore).Inc()
	f.log.ErrorContext(ctx, "the store refuses an event", "partition", b.Partition, "offset", e.Offset, "error", cause)
	return nil
}
