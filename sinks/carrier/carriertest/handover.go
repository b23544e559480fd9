package carriertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"fanfare/sinks/carrier"
)

// oneAnswer: many goroutines call Send at once, and every hand-over gets exactly one answer.
func oneAnswer(ctx context.Context, open func(Peer) (Subject, error)) error {
	s, err := open(Peer{Window: 64, Latency: 5 * time.Millisecond})
	if err != nil {
		return err
	}
	const senders, batches = 8, 12
	limit := min(s.Connector.Caps().MaxBatch, 32)
	logs := make([]*batchLog, senders*batches)
	errs := make([]error, len(logs))
	var wg sync.WaitGroup
	for sender := range senders {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(sender)))
			for b := range batches {
				n := sender*batches + b
				batch, err := Batch(n*100, 1+r.IntN(limit))
				if err == nil {
					logs[n], err = send(ctx, s.Connector, batch)
				}
				errs[n] = err
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	for _, l := range logs {
		if err := l.wait(ctx); err != nil {
			return err
		}
	}
	if err := drain(ctx, s.Connector, 5*time.Second); err != nil {
		return err
	}
	for _, l := range logs {
		if err := l.all(carrier.Accepted); err != nil {
			return err
		}
	}
	return honest(s, logs...)
}

func emptyBatch(ctx context.Context, open func(Peer) (Subject, error)) error {
	s, err := open(Peer{Window: 4})
	if err != nil {
		return err
	}
	l, err := send(ctx, s.Connector, nil)
	if err != nil {
		return fmt.Errorf("got error %w, want none", err)
	}
	return l.check()
}

// batchLimit: Send takes MaxBatch messages and refuses one more.
func batchLimit(ctx context.Context, open func(Peer) (Subject, error)) error {
	s, err := open(Peer{Window: 64})
	if err != nil {
		return err
	}
	most := s.Connector.Caps().MaxBatch
	if most < 1 {
		return fmt.Errorf("MaxBatch is %d, want at least 1", most)
	}
	batch, err := Batch(0, most+1)
	if err != nil {
		return err
	}
	l, err := send(ctx, s.Connector, batch)
	if err := untouched(s, l, err, carrier.ErrBatch); err != nil {
		return fmt.Errorf("a batch of MaxBatch + 1: %w", err)
	}
	if l, err = send(ctx, s.Connector, batch[:most]); err != nil {
		return fmt.Errorf("a batch of MaxBatch: %w", err)
	}
	return errors.Join(l.wait(ctx), l.all(carrier.Accepted), honest(s, l))
}

// deadline: a message is not written after its deadline. The rest of its batch is written.
func deadline(ctx context.Context, open func(Peer) (Subject, error)) error {
	s, err := open(Peer{Window: 64})
	if err != nil {
		return err
	}
	for _, late := range [][]bool{{false, true, false}, {true, true}, {true}} {
		if len(late) > s.Connector.Caps().MaxBatch {
			continue
		}
		batch, err := Batch(100*len(late), len(late))
		if err != nil {
			return err
		}
		for i := range batch {
			if batch[i].Deadline = time.Now().Add(time.Minute); late[i] {
				batch[i].Deadline = time.Now().Add(-time.Millisecond)
			}
		}
		l, err := send(ctx, s.Connector, batch)
		if err != nil {
			return err
		}
		if err := errors.Join(l.wait(ctx), honest(s, l)); err != nil {
			return err
		}
		for i, r := range l.results {
			want := carrier.Accepted
			if late[i] {
				want = carrier.Retryable
			}
			if r.Outcome != want {
				return fmt.Errorf("past its deadline %v: got %v, want %v", late[i], r.Outcome, want)
			}
		}
	}
	return nil
}

// deadlineAfterWaiting: the connector checks the deadline right before the write, not when Send is called.
func deadlineAfterWaiting(ctx context.Context, open func(Peer) (Subject, error)) error {
	const latency = 400 * time.Millisecond
	s, err := open(Peer{Window: 2, Latency: latency})
	if err != nil {
		return err
	}
	l, err := fill(ctx, s.Connector, 2)
	if err != nil {
		return err
	}
	batch, err := Batch(1000, 1)
	if err != nil {
		return err
	}
	batch[0].Deadline = time.Now().Add(latency / 4)
	late, err := send(ctx, s.Connector, batch)
	if err != nil {
		return errors.Join(untouched(s, late, err, nil), l.wait(ctx))
	}
	return errors.Join(l.wait(ctx), late.wait(ctx), late.notWritten(), honest(s, late))
}

// withdrawn: a message is not written if it is withdrawn before Send, or while Send waits for the window.
func withdrawn(ctx context.Context, open func(Peer) (Subject, error)) error {
	const latency = 200 * time.Millisecond
	s, err := open(Peer{Window: 2, Latency: latency})
	if err != nil {
		return err
	}
	l, err := fill(ctx, s.Connector, 2)
	if err != nil {
		return err
	}
	batch, err := Batch(1000, 2)
	if err != nil {
		return err
	}
	var flags [2]atomic.Bool
	flags[1].Store(true)
	defer time.AfterFunc(latency/4, func() { flags[0].Store(true) }).Stop()
	for i := range batch {
		batch[i].Deadline, batch[i].Withdrawn = time.Now().Add(time.Minute), &flags[i]
		late, err := send(ctx, s.Connector, batch[i:i+1])
		if err != nil {
			return fmt.Errorf("got error %w, want none", err)
		}
		if err := errors.Join(late.wait(ctx), late.notWritten(), honest(s, late)); err != nil {
			return err
		}
	}
	return l.wait(ctx)
}

// fill sends n messages, in several calls if batches are small.
func fill(ctx context.Context, c carrier.Connector, n int) (*batchLog, error) {
	most := c.Caps().MaxBatch
	var last *batchLog
	for first := 0; first < n; first += most {
		batch, err := Batch(first, min(most, n-first))
		if err != nil {
			return nil, err
		}
		if last, err = send(ctx, c, batch); err != nil {
			return nil, err
		}
	}
	return last, nil
}

// contextEndsWait: while the window is full, Send blocks until its context ends.
func contextEndsWait(ctx context.Context, open func(Peer) (Subject, error)) error {
	s, err := open(Peer{Window: 4, Silent: true})
	if err != nil {
		return err
	}
	if _, err := fill(ctx, s.Connector, 4); err != nil {
		return err
	}
	batch, err := Batch(1000, 1)
	if err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	started := time.Now()
	l, err := send(short, s.Connector, batch)
	if took := time.Since(started); took > 3*time.Second {
		return fmt.Errorf("Send returned %v after its context had ended, want at once", took)
	}
	if err != nil {
		return untouched(s, l, err, context.DeadlineExceeded)
	}
	return errors.Join(l.wait(ctx), l.notWritten(), honest(s, l))
}

// contextTakesNothingBack: after Send has returned, the end of its context has no effect.
func contextTakesNothingBack(ctx context.Context, open func(Peer) (Subject, error)) error {
	s, err := open(Peer{Window: 64, Latency: 100 * time.Millisecond})
	if err != nil {
		return err
	}
	batch, err := Batch(0, min(8, s.Connector.Caps().MaxBatch))
	if err != nil {
		return err
	}
	short, cancel := context.WithCancel(ctx)
	l, err := send(short, s.Connector, batch)
	cancel()
	if err != nil {
		return err
	}
	if err := l.wait(ctx); err != nil {
		return err
	}
	for i, r := range l.results {
		if r.Outcome != carrier.Accepted && r.Outcome != carrier.Retryable {
			return fmt.Errorf("index %d: got %v, want accepted, or retryable when it was not written yet", i, r.Outcome)
		}
	}
	return honest(s, l)
}

func drain(ctx context.Context, c carrier.Connector, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	started := time.Now()
	if err := c.Drain(ctx); err != nil {
		return fmt.Errorf("drain: got error %w, want none", err)
	}
	if took := time.Since(started); took > patience+3*time.Second {
		return fmt.Errorf("drain took %v with a patience of %v", took, patience)
	}
	return nil
}

// leftovers: a message that has no answer when Drain ends gets Unknown.
func leftovers(ctx context.Context, open func(Peer) (Subject, error)) error {
	s, err := open(Peer{Window: 64, Silent: true})
	if err != nil {
		return err
	}
	batch, err := Batch(0, min(10, s.Connector.Caps().MaxBatch))
	if err != nil {
		return err
	}
	l, err := send(ctx, s.Connector, batch)
	if err != nil {
		return err
	}
	// Wait until the peer has the message: otherwise nothing waits for an answer.
	if err := await(ctx, func() error { return seen(s, l.keys, exactly(1)) }); err != nil {
		return err
	}
	if err := drain(ctx, s.Connector, 50*time.Millisecond); err != nil {
		return err
	}
	return l.all(carrier.Unknown)
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// nothingAfterDrain: other goroutines call Send while Drain runs, and some wait for the window. No result comes after
// Drain has returned.
func nothingAfterDrain(ctx context.Context, open func(Peer) (Subject, error)) error {
	s, err := open(Peer{Window: 32, Latency: 30 * time.Millisecond})
	if err != nil {
		return err
	}
	type sent struct {
		log *batchLog
		err error
	}
	var (
		mu   sync.Mutex
		all  []sent
		wg   sync.WaitGroup
		size = min(4, s.Connector.Caps().MaxBatch)
	)
	for sender := range 16 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				batch, err := Batch(sender*10_000+n*10, size)
				if err != nil {
					return
				}
				l, err := send(ctx, s.Connector, batch)
				mu.Lock()
				all = append(all, sent{l, err})
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	pause(ctx, 100*time.Millisecond)
	// A second call of Drain at the same time has no effect.
	second := make(chan error, 1)
	go func() { second <- drain(ctx, s.Connector, 10*time.Millisecond) }()
	if err := errors.Join(drain(ctx, s.Connector, 10*time.Millisecond), <-second); err != nil {
		return err
	}
	count := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, x := range all {
			n += x.log.answered()
		}
		return n
	}
	wg.Wait() // a Send that waited must return, too
	before := count()
	pause(ctx, 150*time.Millisecond)
	if after := count(); after != before {
		return fmt.Errorf("done was called %d times after Drain had returned", after-before)
	}
	counts, err := s.Seen()
	if err != nil {
		return fmt.Errorf("what the peer has seen: %w", err)
	}
	for _, x := range all {
		if x.err != nil {
			if err := errors.Join(refused(x.log, x.err, carrier.ErrDrained), compare(counts, x.log.keys, exactly(0))); err != nil {
				return err
			}
			continue
		}
		if err := errors.Join(x.log.check(), x.log.complete(), x.log.honest(counts)); err != nil {
			return err
		}
	}
	batch, err := Batch(900_000, 1)
	if err != nil {
		return err
	}
	l, err := send(ctx, s.Connector, batch)
	return untouched(s, l, err, carrier.ErrDrained)
}

// complete returns an error unless every hand-over has its answer.
func (l *batchLog) complete() error {
	if n := l.answered(); n != len(l.keys) {
		return fmt.Errorf("Drain has returned, and %d of %d hand-overs have an answer", n, len(l.keys))
	}
	return nil
}

// drainWaits: Drain returns only after every running call of done has returned. In this check done blocks, although the
// contract forbids it.
func drainWaits(ctx context.Context, open func(Peer) (Subject, error)) error {
	s, err := open(Peer{Window: 4})
	if err != nil {
		return err
	}
	batch, err := Batch(0, 1)
	if err != nil {
		return err
	}
	var over atomic.Bool
	began, sent := make(chan struct{}), make(chan error, 1)
	go func() {
		sent <- s.Connector.Send(ctx, batch, func(int, carrier.Result) {
			close(began)
			pause(ctx, 200*time.Millisecond)
			over.Store(true)
		})
	}()
	select {
	case <-began:
	case <-ctx.Done():
		return fmt.Errorf("done was never called: %w", ctx.Err())
	}
	if err := drain(ctx, s.Connector, time.Millisecond); err != nil {
		return err
	}
	if !over.Load() {
		return errors.New("Drain returned while done was running")
	}
	return <-sent
}

// health: InFlight counts the hand-overs without an answer, and a drained connector is not ready.
func health(ctx context.Context, open func(Peer) (Subject, error)) error {
	s, err := open(Peer{Window: 8, Silent: true})
	if err != nil {
		return err
	}
	if h := s.Connector.Health(); !h.Ready || h.InFlight != 0 || h.Window != 8 {
		return fmt.Errorf("at rest: got %+v, want ready, nothing in flight, a window of 8", h)
	}
	if _, err := fill(ctx, s.Connector, 3); err != nil {
		return err
	}
	if h := s.Connector.Health(); h.InFlight != 3 {
		return fmt.Errorf("with three hand-overs unanswered: got %d in flight, want 3", h.InFlight)
	}
	if err := drain(ctx, s.Connector, 10*time.Millisecond); err != nil {
		return err
	}
	if h := s.Connector.Health(); h.Ready || h.InFlight != 0 {
		return fmt.Errorf("drained: got %+v, want not ready, nothing in flight", h)
	}
	return nil
}
