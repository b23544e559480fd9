package stream

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is a wait that doubles each time, with jitter, so that clients that failed together do not retry together.
type Backoff struct{ next, most time.Duration }

// NewBackoff returns a wait that begins at first and grows to most.
func NewBackoff(first, most time.Duration) *Backoff { return &Backoff{first, most} }

// Step returns a random wait between half of the current wait and all of it, and doubles the current wait.
func (b *Backoff) Step() time.Duration {
	d := b.next/2 + rand.N(b.next/2+1)
	b.next = min(2*b.next, b.most)
	return d
}

// Wait waits for [Backoff.Step]; it returns false when ctx ended first.
func (b *Backoff) Wait(ctx context.Context) bool { return Sleep(ctx, b.Step()) }

// Sleep waits for d; it returns false when ctx ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
