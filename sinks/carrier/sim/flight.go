package sim

import (
	"context"
	"sync"

	"fanfare/sinks/carrier"
)

// book keeps the hand-overs of a connector that wait for their answer: it bounds them, sees to it that each gets one answer and no
// second, and that none comes after Drain.
type book struct {
	mu     sync.Mutex
	turn   *sync.Cond // something was answered, or drained
	window int
	used   int
	open   map[*flight]struct{}
	active int // batches that their Send, or the goroutine it left them to, is not done with
	closed bool
	// Of the last answers, each weighing a hundredth: the share that asked to slow down.
	throttled float64
	err       error
}

// flight is one batch on its way.
type flight struct {
	book   *book
	done   func(int, carrier.Result)
	cancel context.CancelFunc // ends what still works on it; may be nil

	mu       sync.Mutex
	answered []bool
	left     int
	calling  int
}

func newBook(window int) *book {
	b := &book{window: window, open: map[*flight]struct{}{}}
	b.turn = sync.NewCond(&b.mu)
	return b
}

// begin waits until the window has room for n hand-overs and enters them. Whoever began says leave when no more work is done for them.
func (b *book) begin(ctx context.Context, n int, done func(int, carrier.Result), cancel context.CancelFunc) (*flight, error) {
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
	f := &flight{book: b, done: done, cancel: cancel, answered: make([]bool, n), left: n}
	b.used += n
	b.active++
	b.open[f] = struct{}{}
	return f, nil
}

// leave says that nobody works on one batch any more. Answers to it may still come.
func (b *book) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active--
	b.turn.Broadcast()
}

// answer passes the answer on unless there was one before.
func (f *flight) answer(i int, r carrier.Result) {
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

// rest gives every hand-over without an answer this one.
func (f *flight) rest(r carrier.Result) {
	for i := range f.answered {
		f.answer(i, r)
	}
}

// end frees the place of one hand-over and, when its batch is over, the batch.
func (b *book) end(f *flight, over, throttled bool) {
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

// drain refuses new batches, waits for the open ones until ctx ends, and answers Unknown for what is left. When it returns, no call of done
// runs or will, and nobody works on a batch.
func (b *book) drain(ctx context.Context) {
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
	left := make([]*flight, 0, len(b.open))
	for f := range b.open {
		left = append(left, f)
	}
	b.mu.Unlock()
	for _, f := range left {
		f.rest(carrier.Result{Outcome: carrier.Unknown, Code: "drained"})
		if f.cancel != nil {
			f.cancel()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.open) > 0 || b.active > 0 {
		b.turn.Wait() // for calls of done that are running, and for who was cancelled
	}
}

// failed remembers what went wrong with the connection; nil: it works again.
func (b *book) failed(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *book) health() carrier.Health {
	b.mu.Lock()
	defer b.mu.Unlock()
	return carrier.Health{
		Ready: !b.closed, InFlight: b.used, Window: b.window, Throttled: b.throttled, LastError: b.err,
	}
}
