package stream

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff is a growing wait with jitter, so that many who fail together do not come back together.
type backoff struct{ next, most time.Duration }

func newBackoff(first, most time.Duration) *backoff { return &backoff{first, most} }

// step returns between half and the whole of the next wait.
func (b *backoff) step() time.Duration {
	d := b.next/2 + rand.N(b.next/2+1)
	b.next = min(2*b.next, b.most)
	return d
}

// wait waits; false: ctx ended.
func (b *backoff) wait(ctx context.Context) bool {
	timer := time.NewTimer(b.step())
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
