package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
)

// Item is one record that was released. Its methods may be called by anybody at any time.
type Item struct {
	Record *kgo.Record
	// Uncertain: an earlier owner may have handed it over. Settle it with an ambiguous outcome and do nothing else; Begin is
	// false for it.
	Uncertain bool

	p     *part
	state atomic.Uint32
}

// States of an item.
const (
	itemQueued   uint32 = iota // polled; no commit covers it yet
	itemReleased               // with the releaser
	itemBegun                  // handed over, not answered
	itemSettling               // its outcome is on the way to Kafka
	itemDone                   // its outcome is acknowledged, or it needs none
	itemRecalled               // Begin has said no; it is released again
	itemGone                   // its partition was taken away before it was begun
)

// Begin reports whether the item may be handed over now: it is ours, nothing stops us and the guard has not expired. It is
// called right before the hand-over. False: forget the item, the window looks after it.
func (i *Item) Begin() bool {
	w := i.p.w
	if !i.Uncertain && !i.p.stopped.Load() && !w.stopping.Load() {
		if w.guard.holds() {
			return i.state.CompareAndSwap(itemReleased, itemBegun)
		}
		if !w.tripped.Swap(true) {
			w.metrics.guardTrips.Inc()
			w.log.Warn("the guard holds submissions back: no commit was accepted for too long", "age", w.guard.age())
		}
	}
	if i.state.CompareAndSwap(itemReleased, itemRecalled) {
		w.recalled.Add(1)
		w.nudge()
	}
	return false
}

// Deadline is the guard's: nothing may be written to the carrier after it. A connector tests it right before the write.
func (i *Item) Deadline() time.Time { return i.p.w.guard.deadline() }

// Settle gives the outcome, once for each item. The window adds header `source` and produces it; the item is done when Kafka
// has acknowledged it. Without Begin it is for outcomes that are no hand-over: returned, skipped, ambiguous; then it is
// dropped when the item is not ours any more, for the next owner decides about it.
func (i *Item) Settle(outcome *kgo.Record) {
	for {
		switch state := i.state.Load(); state {
		case itemReleased, itemBegun:
			if i.state.CompareAndSwap(state, itemSettling) {
				i.produce(outcome, i.acked)
				return
			}
		case itemSettling, itemDone:
			i.Late(outcome)
			return
		default: // recalled or gone: the window looks after it
			return
		}
	}
}

// Late gives another outcome after Settle, such as an answer that came after the time-out. It is produced; nothing waits for it.
func (i *Item) Late(outcome *kgo.Record) { i.produce(outcome, i.lateAcked) }

func (i *Item) produce(outcome *kgo.Record, promise func(*kgo.Record, error)) {
	p := i.p
	source := make([]byte, 0, len(p.source)+20)
	source = strconv.AppendInt(append(source, p.source...), i.Record.Offset, 10)
	outcome.Headers = append(outcome.Headers, kgo.RecordHeader{Key: schemas.HeaderSource, Value: source})
	// An outcome must be written whatever ends meanwhile; closing the client is what ends it.
	p.w.cl.Produce(context.Background(), outcome, promise)
}

// acked is the promise of the outcome that settles the item.
func (i *Item) acked(outcome *kgo.Record, err error) {
	if err != nil {
		i.p.w.unproduced(&unproduced{i, outcome, i.acked}, err)
		return
	}
	i.state.Store(itemDone)
	i.p.w.done()
}

func (i *Item) lateAcked(outcome *kgo.Record, err error) {
	if err != nil {
		i.p.w.unproduced(&unproduced{i, outcome, i.lateAcked}, err)
	}
}

// done takes note of an item that was released and is done or gone.
func (w *Window) done() {
	left := w.unsettled.Add(-1)
	if freed := w.freed.Add(1); left == 0 || freed%w.quantum.Load() == 0 {
		w.nudge()
	}
}

// unproduced is an outcome that could not be produced.
type unproduced struct {
	item    *Item
	outcome *kgo.Record
	promise func(*kgo.Record, error)
}

// unproduced keeps an outcome for another attempt: the base waits for it.
func (w *Window) unproduced(u *unproduced, err error) {
	if w.stopping.Load() || errors.Is(err, kgo.ErrClientClosed) || errors.Is(err, kgo.ErrAborting) {
		return // the item stays in doubt, and that is what the next owner is told or finds
	}
	w.log.Error("an outcome cannot be produced and is tried again", append(position(u.item.Record), "err", err)...)
	if permanent(err) {
		// It must not hold up the partition: the message it is about tells what happened, as a dead letter.
		u.outcome = DeadLetter(w.cfg.Cluster.Names, "window", Dead{u.item.Record, fmt.Errorf("produce its outcome: %w", err)})
	}
	w.mu.Lock()
	w.retries = append(w.retries, u)
	w.mu.Unlock()
	w.nudge()
}

// produceAgain produces what could not be produced.
func (w *Window) produceAgain() {
	w.mu.Lock()
	again := w.retries
	w.retries = nil
	w.mu.Unlock()
	for _, u := range again {
		w.cl.Produce(context.Background(), u.outcome, u.promise)
	}
}
