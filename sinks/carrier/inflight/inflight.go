// Package inflight tracks the hand-overs of a connector that wait for their answers, for connectors that use requests.
// It limits their number, and passes on exactly one answer for each, and none after Drain. This part of the contract of
// package carrier is the same for every carrier.
package inflight

import (
	"context"
	"errors"
	"sync"
	"time"

	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/once"
)

// Book tracks the hand-overs of one connector.
type Book struct {
	mu     sync.Mutex
	turn   *sync.Cond // signals an answer, or the end of a Drain
	window int
	used   int
	open   map[*Batch]struct{}
	active int // batches that Send or its goroutine still works on
	closed bool
	// The share of the last answers that asked us to slow down. Each answer has a weight of one hundredth.
	throttled float64
	err       error
}

// Batch is one batch that is being handed over.
type Batch struct {
	book   *Book
	done   func(int, carrier.Result)
	cancel context.CancelFunc // ends the work on it; may be nil

	mu       sync.Mutex
	answered []bool
	left     int
	calling  int
}

// New returns a book for at most window hand-overs at a time.
func New(window int) *Book {
	b := &Book{window: window, open: map[*Batch]struct{}{}}
	b.turn = sync.NewCond(&b.mu)
	return b
}

// Begin waits until the window has room for n hand-overs, and enters them; the end of ctx ends the wait. cancel ends
// the work on them; it may be nil. The caller must call Leave when it does no more work for them. The error is
// [carrier.ErrDrained] or that of ctx.
func (b *Book) Begin(ctx context.Context, n int, done func(int, carrier.Result), cancel context.CancelFunc) (*Batch, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed && b.used+n > b.window {
		defer context.AfterFunc(ctx, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.turn.Broadcast()
		})()
		for !b.closed && ctx.Err() == nil && b.used+n > b.window {
			b.turn.Wait()
		}
	}
	if b.closed {
		return nil, carrier.ErrDrained
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f := &Batch{book: b, done: done, cancel: cancel, answered: make([]bool, n), left: n}
	b.used += n
	b.active++
	b.open[f] = struct{}{}
	return f, nil
}

// Send hands over a batch of at most most messages, as [carrier.Connector] requires. It waits until the window has
// room, and then works in a goroutine, for which Drain waits. ctx bounds only the wait for the window, not requests on
// the wire.
func (b *Book) Send(ctx context.Context, batch []carrier.Outbound, most int, done func(int, carrier.Result), work func(context.Context, *Batch)) error {
	switch {
	case len(batch) == 0:
		return nil
	case len(batch) > most:
		return carrier.ErrBatch
	}
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f, err := b.Begin(ctx, len(batch), done, cancel)
	if err != nil {
		cancel()
		return err
	}
	go func() {
		defer b.Leave()
		defer cancel()
		work(working, f)
	}()
	return nil
}

// Leave says that the connector does no more work for one batch. Answers to it may still come.
func (b *Book) Leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active--
	b.turn.Broadcast()
}

// Len is the number of hand-overs in the batch.
func (f *Batch) Len() int { return len(f.answered) }

// Answer passes an answer on, unless the hand-over has one already.
func (f *Batch) Answer(i int, r carrier.Result) {
	f.mu.Lock()
	if f.answered[i] {
		f.mu.Unlock()
		return
	}
	f.answered[i] = true
	f.left--
	f.calling++
	f.mu.Unlock()

	f.done(i, r)

	f.mu.Lock()
	f.calling--
	over := f.left == 0 && f.calling == 0
	f.mu.Unlock()
	f.book.end(f, over, r.Outcome == carrier.Throttled)
}

// Rest gives this answer to every hand-over that has none.
func (f *Batch) Rest(r carrier.Result) {
	for i := range f.answered {
		f.Answer(i, r)
	}
}

// end frees the place of one hand-over and, when its batch is over, the batch.
func (b *Book) end(f *Batch, over, throttled bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used--
	b.throttled *= 0.99
	if throttled {
		b.throttled += 0.01
	}
	if over {
		delete(b.open, f)
	}
	b.turn.Broadcast()
}

// Drain refuses new batches, waits for the open ones until ctx ends, and then gives Unknown to all hand-overs without
// an answer. After it has returned, no call of done runs or will run, and no goroutine works on a batch.
func (b *Book) Drain(ctx context.Context) {
	b.mu.Lock()
	b.closed = true
	b.turn.Broadcast()
	defer context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.turn.Broadcast()
	})()
	for len(b.open) > 0 && ctx.Err() == nil {
		b.turn.Wait()
	}
	left := make([]*Batch, 0, len(b.open))
	for f := range b.open {
		left = append(left, f)
	}
	b.mu.Unlock()
	for _, f := range left {
		f.Rest(carrier.Result{Outcome: carrier.Unknown, Code: "drained"})
		if f.cancel != nil {
			f.cancel()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.open) > 0 || b.active > 0 {
		b.turn.Wait() // for calls of done that are running, and for goroutines that were cancelled
	}
}

// Failed notes an error of the connection; nil means that it works again.
func (b *Book) Failed(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

// Unanswered returns what an error of [once.Client.Do] means for the messages of the request: either nothing was
// written and they may be handed over again, or the carrier may have them. It remembers the error as [Book.Failed]
// does, unless the request had expired or ctx ended the wait for an answer.
func (b *Book) Unanswered(ctx context.Context, err error) carrier.Result {
	switch {
	case errors.Is(err, once.ErrExpired):
		return carrier.Result{Outcome: carrier.Retryable, Code: carrier.CodeDeadline}
	case errors.Is(err, once.ErrNotConnected):
		b.Failed(err)
		return carrier.Result{Outcome: carrier.Retryable, Code: "not connected", RetryAfter: time.Second}
	case ctx.Err() == nil:
		b.Failed(err)
	}
	return carrier.Result{Outcome: carrier.Unknown, Code: "no answer"}
}

// Health returns whether the book accepts batches, how many hand-overs have no answer, and the latest error.
func (b *Book) Health() carrier.Health {
	b.mu.Lock()
	defer b.mu.Unlock()
	return carrier.Health{
		Ready: !b.closed, InFlight: b.used, Window: b.window, Throttled: b.throttled, LastError: b.err,
	}
}
