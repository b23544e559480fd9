package carrier

import (
	"context"
	"time"
)

// Backoff waits longer after each failure, from 20 ms up to 2 s. Connectors use it while their receipts cannot be made
// durable.
type Backoff struct{ last time.Duration }

// Reset starts again with the shortest wait; call it after a success.
func (b *Backoff) Reset() { b.last = 0 }

// Wait ends early when ctx does.
func (b *Backoff) Wait(ctx context.Context) {
	b.last = min(max(2*b.last, 20*time.Millisecond), 2*time.Second)
	t := time.NewTimer(b.last)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
