package window

import (
	"sync/atomic"
	"time"

	"fanfare/pipeline/stream"
)

// guard knows until when this process certainly owns its partitions: for the session timeout less a margin, counted
// from the start of the last accepted commit, because the broker restarts the session when it accepts a commit. It
// reads two clocks: the monotonic clock stands still while a machine is suspended, and the wall clock can be set back.
type guard struct {
	lasts time.Duration
	epoch time.Time        // monotonic readings count from it
	wall  func() time.Time // nil: time.Now

	provedMono atomic.Int64 // nanoseconds since epoch; 0: never
	provedWall atomic.Int64 // nanoseconds since 1970
}

func newGuard(lasts time.Duration, wall func() time.Time) *guard {
	// The epoch lies in the past, so that no reading is 0.
	return &guard{lasts: lasts, epoch: time.Now().Add(-time.Second), wall: wall}
}

// reading is a time on both clocks.
type reading struct{ mono, wall int64 }

func (g *guard) read() reading {
	now := time.Now()
	if g.wall == nil {
		return reading{int64(now.Sub(g.epoch)), now.UnixNano()}
	}
	return reading{int64(now.Sub(g.epoch)), g.wall().UnixNano()}
}

// prove records that a commit that began at r was accepted.
func (g *guard) prove(r reading) {
	g.provedWall.Store(r.wall)
	g.provedMono.Store(r.mono)
}

// age is how long ago ownership was proved last, by the clock that shows the longer time; [stream.Never] before the
// first proof.
func (g *guard) age() time.Duration {
	mono := g.provedMono.Load()
	if mono == 0 {
		return stream.Never
	}
	now := g.read()
	return time.Duration(max(now.mono-mono, now.wall-g.provedWall.Load()))
}

// holds reports whether records may be handed over now.
func (g *guard) holds() bool { return g.age() < g.lasts }

// deadline is the time after which nothing may be handed over.
func (g *guard) deadline() time.Time {
	return g.epoch.Add(time.Duration(g.provedMono.Load()) + g.lasts)
}
