package window

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

// Item is one released record. Its methods are safe for concurrent use.
type Item struct {
	Record *kgo.Record
	// ID is what [Config.Identity] returned for the record; zero when it returned an error.
	ID        schemas.ID
	p         *part
	state     atomic.Uint32
	uncertain atomic.Bool
	// Guarded by the window's mu.
	declared bool   // an accepted commit covers it
	planned  uint32 // the last plan that was to declare it; see fairness
}

// Uncertain reports whether an earlier owner may have handed the record over. Begin returns false for it. Settle it
// with an ambiguous outcome; or report it with Doubt, ask the outside system about it, and then Settle or Clear it.
func (i *Item) Uncertain() bool { return i.uncertain.Load() }

// States of an item.
const (
	itemQueued   uint32 = iota // polled; no commit covers it yet
	itemReleased               // given to the releaser
	itemBegun                  // handed over and not answered
	itemDoubted                // reported as ambiguous; the releaser still resolves it
	itemSettling               // its outcome is on its way to Kafka
	itemDone                   // its outcome is acknowledged, or it needs none
	itemRecalled               // Begin has refused it; it will be released again
	itemGone                   // its partition was taken away before Begin
)

// Begin reports whether the item may be handed over now: we own its partition, the partition is not stopped and the
// guard holds. Call it right before the hand-over. When it returns false, drop the item: the window releases it again
// if it is still ours.
func (i *Item) Begin() bool {
	w := i.p.w
	if !i.uncertain.Load() && !i.p.stopped.Load() && !w.stopping.Load() {
		if w.guard.holds() {
			if !i.state.CompareAndSwap(itemReleased, itemBegun) {
				return false
			}
			if w.begun.Add(1)%w.quantum.Load() == 0 {
				w.wakeCommitter() // there is room to declare more
			}
			return true
		}
		if !w.tripped.Swap(true) {
			w.metrics.guardTrips.Inc()
			w.log.Warn("guard expired; nothing is handed over until a commit is accepted", "age_ms", w.guard.age().Milliseconds())
		}
	}
	if i.state.CompareAndSwap(itemReleased, itemRecalled) {
		w.recalled.Add(1)
		w.wakeCommitter()
	}
	return false
}

// Return takes Begin back: it says that the record was certainly not handed over, so that it may begin again. It
// returns false when the partition is being given up or is gone; then drop the item: the next owner handles the record.
func (i *Item) Return() bool {
	w := i.p.w
	w.mu.Lock() // the part's last look at its items must not miss an item that becomes untouched
	defer w.mu.Unlock()
	if i.p.gone || i.p.ending() {
		if i.state.CompareAndSwap(itemBegun, itemGone) {
			w.done()
		}
		return false
	}
	return i.state.CompareAndSwap(itemBegun, itemReleased)
}

// Doubt reports that the record may have been handed over, with an ambiguous outcome, and keeps the item open until
// Settle or Clear: the base does not pass it, so that a crash meanwhile leaves it to the next owner, but it takes no
// place of the window. It returns false and writes nothing if this process does not own the item any more or has
// settled it.
func (i *Item) Doubt(outcome *kgo.Record) bool {
	for {
		state := i.state.Load()
		if state != itemBegun && (state != itemReleased || !i.uncertain.Load()) {
			return false
		}
		if i.state.CompareAndSwap(state, itemDoubted) {
			i.produce(outcome, i.lateAcked)
			i.p.w.freedPlace()
			return true
		}
	}
}

// BeginAgain reports whether a doubted item may be handed over once more now. That is safe only with a carrier that
// ignores a submission that it already had. The item stays doubted.
func (i *Item) BeginAgain() bool {
	w := i.p.w
	return i.state.Load() == itemDoubted && !i.p.stopped.Load() && !w.stopping.Load() && w.guard.holds()
}

// Clear says that a doubted item was certainly not handed over: it may begin as if it had just been released. It
// returns false when the partition is being given up or is gone; then drop the item: the next owner handles it.
func (i *Item) Clear() bool {
	w := i.p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if i.state.Load() != itemDoubted || i.p.gone || i.p.ending() {
		return false
	}
	i.uncertain.Store(false)
	return i.state.CompareAndSwap(itemDoubted, itemReleased)
}

// Doubted reports whether the item is doubted and this process still owns it. If not, drop it: it was settled, or the
// next owner continues.
func (i *Item) Doubted() bool {
	w := i.p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	return i.state.Load() == itemDoubted && !i.p.gone && !i.p.ending()
}

// Crowded reports whether so many records wait for their base to pass a doubted item that its partition will soon stop.
// Then the doubt must be given up: settle the item with its ambiguous outcome.
func (i *Item) Crowded() bool {
	w := i.p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	p := i.p
	return len(p.items) > 0 && p.declared > maxSpan/2 && i.Record.Offset-p.items[0].Record.Offset < maxSpan/4
}

// Deadline is when the guard expires: nothing may be written to the carrier after it. Connectors test it right before
// they write.
func (i *Item) Deadline() time.Time { return i.p.w.guard.deadline() }

// Settle writes the outcome of the item, with header `source`. The item is done when Kafka has acknowledged the
// outcome. An item that was not begun must get an outcome without a hand-over: returned, skipped, ambiguous; if its
// partition is gone, Settle does nothing, because the next owner decides about it.
func (i *Item) Settle(outcome *kgo.Record) {
	for {
		switch state := i.state.Load(); state {
		case itemReleased, itemBegun, itemDoubted:
			if i.state.CompareAndSwap(state, itemSettling) {
				i.produce(outcome, i.acked)
				return
			}
		case itemSettling, itemDone:
			i.Late(outcome)
			return
		default: // recalled: it is released again; gone: the next owner handles it
			return
		}
	}
}

// Late writes another outcome after Settle, such as an answer that came after the time-out. The base does not wait for
// it.
func (i *Item) Late(outcome *kgo.Record) { i.produce(outcome, i.lateAcked) }

func (i *Item) produce(outcome *kgo.Record, promise func(*kgo.Record, error)) {
	p := i.p
	source := make([]byte, 0, len(p.source)+20)
	source = strconv.AppendInt(append(source, p.source...), i.Record.Offset, 10)
	outcome.Headers = append(outcome.Headers, kgo.RecordHeader{Key: schemas.HeaderSource, Value: source})
	// No context of a caller may stop an outcome from being written; only closing the client does.
	p.w.cl.Produce(context.Background(), outcome, promise)
}

// acked is called when Kafka has answered for the outcome that settles the item.
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

// done counts a released item that is done or gone.
func (w *Window) done() {
	if left := w.unsettled.Add(-1); left == 0 {
		w.wakeCommitter()
	}
	w.freedPlace()
}

// freedPlace counts a place of the window that became free.
func (w *Window) freedPlace() {
	if w.freed.Add(1)%w.quantum.Load() == 0 {
		w.wakeCommitter()
	}
}

// unproduced is an outcome that Kafka did not take.
type unproduced struct {
	item    *Item
	outcome *kgo.Record
	promise func(*kgo.Record, error)
}

// unproduced keeps an outcome for another attempt. The base does not move past its item meanwhile.
func (w *Window) unproduced(u *unproduced, err error) {
	if w.stopping.Load() || errors.Is(err, kgo.ErrClientClosed) || errors.Is(err, kgo.ErrAborting) {
		return // the item stays in flight, so it is uncertain for the next owner
	}
	w.log.Error("produce outcome failed; it is retried", append(stream.Position(u.item.Record), "err", err)...)
	if stream.Permanent(err) {
		// Kafka will never take it, and it must not block the partition: a dead letter of its message takes its place.
		u.outcome = stream.DeadLetter(w.cfg.Cluster.Names, "window", stream.Dead{Record: u.item.Record, Cause: fmt.Errorf("produce its outcome: %w", err)})
	}
	w.mu.Lock()
	w.retries = append(w.retries, u)
	w.mu.Unlock()
	w.wakeCommitter()
}

// produceAgain retries the outcomes that Kafka did not take.
func (w *Window) produceAgain() {
	w.mu.Lock()
	again := w.retries
	w.retries = nil
	w.mu.Unlock()
	for _, u := range again {
		w.cl.Produce(context.Background(), u.outcome, u.promise)
	}
}
