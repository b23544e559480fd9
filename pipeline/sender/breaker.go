package sender

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// The breaker of a route opens after five batches in a row that the carrier did not answer, or when half of at least
// twenty within ten seconds were not answered. A refusal is an answer.
const (
	breakerInterval    = 10 * time.Second
	breakerConsecutive = 5
	breakerRequests    = 20
)

// DefaultBreakerPause is how long a route pauses before one batch tries the carrier again.
const DefaultBreakerPause = 5 * time.Second

var (
	errOpen    = errors.New("breaker is open")
	errProbing = errors.New("breaker is half open and one batch is on its way")
	// errNothing is reported for a batch that had no message left to hand over: such a batch shows nothing about the
	// carrier.
	errNothing = errors.New("nothing was handed over")
)

// breaker stops a route whose carrier does not answer. Both lanes share it.
type breaker struct {
	now   func() time.Time
	two   *gobreaker.TwoStepCircuitBreaker[struct{}]
	state atomic.Int32 // gobreaker.State, so that the usual state is read without a lock
	until atomic.Int64 // Unix nanoseconds
	since atomic.Int64 // Unix nanoseconds, since when it is not closed; 0: it is closed
	good  atomic.Int64 // Unix nanoseconds of the last batch that the carrier answered; 0: none
}

// newBreaker returns a breaker; moved is called when it opens and closes.
func newBreaker(route string, pause time.Duration, now func() time.Time, moved func(open bool)) *breaker {
	b := &breaker{now: now}
	b.two = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name: route, Interval: breakerInterval, BucketPeriod: breakerInterval / 10, Timeout: pause,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			tried := c.Requests - min(c.Requests, c.TotalExclusions)
			return c.ConsecutiveFailures >= breakerConsecutive || tried >= breakerRequests && 2*c.TotalFailures >= tried
		},
		IsExcluded: func(err error) bool { return errors.Is(err, errNothing) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				b.until.Store(now().Add(pause).UnixNano())
			}
			b.state.Store(int32(to))
			if (to == gobreaker.StateClosed) != (from == gobreaker.StateClosed) {
				b.since.Store(0)
				if to != gobreaker.StateClosed {
					b.since.Store(now().UnixNano())
				}
				moved(to != gobreaker.StateClosed)
			}
		},
	})
	return b
}

// open reports whether nothing may be handed over, and when to deal again. The times have jitter, so that the messages
// do not all come back at once.
func (b *breaker) open(now time.Time) (bool, time.Time) {
	if gobreaker.State(b.state.Load()) != gobreaker.StateOpen || b.two.State() != gobreaker.StateOpen {
		return false, time.Time{}
	}
	again := time.Unix(0, b.until.Load())
	if again.Before(now) {
		again = now
	}
	return true, again.Add(time.Duration(rand.Int64N(int64(500 * time.Millisecond))))
}

// probing reports whether the next batch tests whether the carrier answers again.
func (b *breaker) probing() bool {
	return gobreaker.State(b.state.Load()) == gobreaker.StateHalfOpen
}

// allow asks whether one batch may be handed over. The caller must call report with the result.
func (b *breaker) allow() (report func(error), err error) {
	done, err := b.two.Allow()
	switch {
	case errors.Is(err, gobreaker.ErrTooManyRequests):
		return nil, errProbing
	case err != nil:
		return nil, errOpen
	}
	return func(err error) {
		if err == nil {
			b.good.Store(b.now().UnixNano())
		}
		done(err)
	}, nil
}
