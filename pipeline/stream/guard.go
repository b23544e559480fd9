package stream

import (
	"sync/atomic"
	"time"
)

// guard says how long our ownership is certain: for the session's time less a margin after the start of the last commit that
// was accepted, since accepting it began the session's time anew. It looks at two clocks: the monotonic one stands still
// while a machine is suspended, the wall clock can be set back.
type guard struct {
	lasts time.Duration
	epoch time.Time        // what the monotonic readings count from
	wall  func() time.Time // nil: time.Now

	provedMono atomic.Int64 // nanoseconds since epoch, 0: never
	provedWall atomic.Int64 // nanoseconds since 1970
}

func newGuard(lasts time.Duration, wall func() time.Time) *guard {
	// The epoch is a moment ago, so that no reading is 0.
	return &guard{lasts: lasts, epoch: time.Now().Add(-time.Second), wall: wall}
}

// reading is a moment on both clocks.
type reading struct{ mono, wall int64 }

func (g *guard) read() reading {
	now := time.Now()
	if g.wall == nil {
		return reading{int64(now.Sub(g.epoch)), now.UnixNano()}
	}
	return reading{int64(now.Sub(g.epoch)), g.wall().UnixNano()}
}

// prove records that a commit that was begun at r was accepted.
func (g *guard) prove(r reading) {
	g.provedWall.Store(r.wall)
	g.provedMono.Store(r.mono)
}

// age is how long ago ownership was proved last, by the clock that says more; long before it ever was.
func (g *guard) age() time.Duration {
	mono := g.provedMono.Load()
	if mono == 0 {
		return Never
	}
	now := g.read()
	return time.Duration(max(now.mono-mono, now.wall-g.provedWall.Load()))
}

// holds reports whether something may be submitted now.
func (g *guard) holds() bool { return g.age() < g.lasts }

// deadline is the moment after which nothing may be submitted.
func (g *guard) deadline() time.Time {
	return g.epoch.Add(time.Duration(g.provedMono.Load()) + g.lasts)
}
