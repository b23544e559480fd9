package carriertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// handOver hands n messages over and returns their results, which are all accepted.
func handOver(ctx context.Context, c carrier.Connector, n int) (*batchLog, error) {
	n = min(n, c.Caps().MaxBatch)
	batch, err := Batch(0, n)
	if err != nil {
		return nil, err
	}
	l, err := send(ctx, c, batch)
	if err != nil {
		return nil, err
	}
	return l, errors.Join(l.wait(ctx), l.all(carrier.Accepted))
}

var errNotDurable = errors.New("not durable")

// receiptsUntilTaken: a receipt comes again if emit returned an error for it, and does not come again if emit returned
// nil.
func receiptsUntilTaken(ctx context.Context, open func(Peer) (Subject, error)) error {
	s, err := open(Peer{Window: 64, Receipts: true})
	if err != nil {
		return err
	}
	source, ok := s.Connector.(carrier.ReceiptSource)
	if !ok {
		return nil // its receipts come by webhook, or there are none
	}
	l, err := handOver(ctx, s.Connector, 40)
	if err != nil {
		return err
	}
	var (
		mu       sync.Mutex
		refusals = 3
		offered  = map[int]int{}
		taken    = map[int]int{}
		wrong    error
		emitting atomic.Int32
	)
	all := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- source.Receipts(ctx, func(list []carrier.Receipt) error {
			if emitting.Add(1) > 1 {
				wrong = errors.New("emit was called while it was running")
			}
			defer emitting.Add(-1)
			mu.Lock()
			defer mu.Unlock()
			into := taken
			if refusals > 0 {
				into = offered
			}
			for i := range list {
				n, err := l.match(s.Connector.Caps(), &list[i])
				if err != nil {
					wrong = errors.Join(wrong, err)
					continue
				}
				into[n]++
			}
			if refusals > 0 {
				refusals--
				return errNotDurable
			}
			if len(taken) == len(l.keys) {
				select {
				case <-all:
				default:
					close(all)
				}
			}
			return nil
		})
	}()
	select {
	case <-all:
	case <-ctx.Done():
		mu.Lock()
		defer mu.Unlock()
		return fmt.Errorf("%d of %d receipts came after emit had refused some: %w", len(taken), len(l.keys), errors.Join(wrong, ctx.Err()))
	}
	pause(ctx, 150*time.Millisecond) // a second copy would come in this time
	cancel()
	if err := <-ended; err != nil {
		return fmt.Errorf("receipts ended with error %w, want none", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if wrong != nil {
		return wrong
	}
	if len(offered) == 0 {
		return errors.New("emit was never refused: the check shows nothing")
	}
	for n, times := range taken {
		if times != 1 {
			return fmt.Errorf("index %d: its receipt was taken, and came %d times, want 1", n, times)
		}
	}
	return nil
}

// match finds the hand-over of a receipt, and compares the two.
func (l *batchLog) match(caps carrier.Caps, r *carrier.Receipt) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := slices.IndexFunc(l.results, func(x carrier.Result) bool { return x.Ref == r.Ref || slices.Contains(r.AltRefs, x.Ref) })
	switch {
	case n < 0:
		return 0, fmt.Errorf("receipt for the provider's id %q, which no answer had", r.Ref)
	case caps.EchoesKey && r.Key != l.keys[n]:
		return 0, fmt.Errorf("receipt with the key %v, want %v", r.Key, l.keys[n])
	case !caps.EchoesKey && !r.Key.IsZero():
		return 0, fmt.Errorf("receipt with a key, want none of a carrier that echoes none")
	case r.Status != schemas.ReceiptStatusDelivered:
		return 0, fmt.Errorf("receipt with status %v, want delivered", r.Status)
	case r.At.IsZero():
		return 0, errors.New("receipt without a time")
	case len(bytes.TrimSpace(r.Raw)) == 0:
		return 0, errors.New("receipt without what came in")
	}
	return n, nil
}

// receiptsToTheNext: another consumer gets the receipts that the first did not acknowledge.
func receiptsToTheNext(ctx context.Context, open func(Peer) (Subject, error)) error {
	s, err := open(Peer{Window: 64, Receipts: true})
	if err != nil {
		return err
	}
	first, ok := s.Connector.(carrier.ReceiptSource)
	if !ok {
		return nil
	}
	l, err := handOver(ctx, s.Connector, 20)
	if err != nil {
		return err
	}
	// The first consumer gets some, acknowledges none, and ends.
	short, cancel := context.WithCancel(ctx)
	defer cancel()
	err = first.Receipts(short, func([]carrier.Receipt) error {
		cancel()
		return errNotDurable
	})
	if err != nil {
		return fmt.Errorf("receipts ended with error %w, want none", err)
	}
	next, err := s.Again()
	if err != nil {
		return fmt.Errorf("open another consumer: %w", err)
	}
	second, ok := next.(carrier.ReceiptSource)
	if !ok {
		return errors.New("the second connector is no source of receipts")
	}
	taken := map[int]bool{}
	var wrong error
	ctx, cancel = context.WithCancel(ctx)
	defer cancel()
	err = second.Receipts(ctx, func(list []carrier.Receipt) error {
		for i := range list {
			n, err := l.match(s.Connector.Caps(), &list[i])
			if err != nil {
				wrong = err
			}
			taken[n] = true
		}
		if len(taken) == len(l.keys) || wrong != nil {
			cancel()
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("receipts ended with error %w, want none", err)
	}
	if wrong != nil {
		return wrong
	}
	if len(taken) != len(l.keys) {
		return fmt.Errorf("the second consumer got %d receipts, want %d", len(taken), len(l.keys))
	}
	return nil
}
