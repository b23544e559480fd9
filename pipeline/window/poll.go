package window

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
)

// poll polls and queues records until ctx ends.
func (w *Window) poll(ctx context.Context) {
	retry := stream.NewBackoff(50*time.Millisecond, 2*time.Second)
	for ctx.Err() == nil {
		polling, cancel := context.WithCancel(ctx)
		w.mu.Lock()
		w.interruptPoll = cancel
		resets := w.resets
		w.resets = false
		room := w.capacity()
		w.mu.Unlock()
		switch {
		case resets:
			if err := w.restartParts(ctx); err != nil && ctx.Err() == nil {
				w.log.WarnContext(ctx, "reset of partitions failed; it is retried", "err", err)
				retry.Wait(ctx)
				w.mu.Lock()
				w.resets = true
				w.mu.Unlock()
			} else {
				retry = stream.NewBackoff(50*time.Millisecond, 2*time.Second)
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
			// Records polled just before a revoke belong to the old assignment, so they are queued before rebalances go
			// on.
			w.queue(ctx, fetches)
			w.cl.AllowRebalance()
		}
		cancel()
	}
}

// Limits, in records, of the records that are polled and not declared yet.
const (
	queueMost  = 8192
	queueStuck = queueMost / 2 // for a partition whose base stands still, so that the other partitions are polled
)

// capacity is how many records may be polled now. w.mu is held.
func (w *Window) capacity() int {
	room := queueMost
	for _, p := range w.order {
		if p.why != stopSuspended {
			room -= p.undeclared()
		}
	}
	return room
}

// letPoll wakes the poller when there is room, and pauses and resumes partitions whose base stands still.
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
	now := time.Now()
	w.metrics.observe(w, now)
	w.reportTakeovers(now)
	if w.capacity() >= queueMost/8 {
		signal(w.room)
	}
}

// queue adds polled records to their parts.
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
		w.wakeCommitter()
	}
}

// fetchFailed suspends a partition when the next offset is not in its log any more.
func (w *Window) fetchFailed(topic string, id int32, err error) {
	var loss *kgo.ErrDataLoss
	isLoss := errors.As(err, &loss)
	if !isLoss && !errors.Is(err, kerr.OffsetOutOfRange) {
		w.log.Warn("fetch failed", "partition", id, "err", err)
		return
	}
	w.mu.Lock()
	p := w.parts[id]
	if p == nil || topic != w.cfg.Topic || p.why == stopSuspended {
		w.mu.Unlock()
		return
	}
	s := &SuspendedError{Topic: topic, Partition: id, Reason: ReasonOutOfRange, Detail: fmt.Sprintf("offset %d is to be read next: %v", p.next, err)}
	s.Fix = fmt.Sprintf("find out what happened to the log, then commit the offset at which to go on while no sender runs: "+
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
