package smpp

import (
	"context"
	"errors"
	"time"

	"fanfare/sinks/carrier"
)

// patience is how long a hand-over waits while no session is bound. If a connection comes back within this time,
// nothing happens; otherwise the route's breaker counts a failure.
const patience = time.Second

// Errors of reserve.
var (
	errNotConnected = errors.New("not connected")
	errLate         = errors.New("deadline is over")
)

// waiter waits for places in a window.
type waiter struct {
	need, want int
	granted    chan grant // has one grant
}

// grant is n places in the window of a session, or the error if there are none.
type grant struct {
	session *session
	n       int
	err     error
}

// reserve takes at least need and at most want places in the window of one session; if the window is smaller than need,
// it takes fewer. It waits for places until ctx ends, until the given time (zero: no limit), or until no session has
// been bound for patience.
func (c *Connector) reserve(ctx context.Context, need, want int, until time.Time) (*session, int, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, 0, carrier.ErrDrained
	}
	w := &waiter{need: need, want: want}
	if len(c.waiters) == 0 {
		if g, ok := c.tryGrant(w); ok {
			c.mu.Unlock()
			return g.session, g.n, g.err
		}
	}
	w.granted = make(chan grant, 1)
	c.waiters = append(c.waiters, w)
	c.grantWaiting() // this sets the timer of the pace
	c.mu.Unlock()

	pause := patience
	if !until.IsZero() {
		pause = min(pause, time.Until(until))
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case g := <-w.granted:
			return g.session, g.n, g.err
		case <-ctx.Done():
			return c.withdraw(w, ctx.Err())
		case <-timer.C:
		}
		c.mu.Lock()
		connected := len(c.submitters) > 0
		c.mu.Unlock()
		switch left := time.Until(until); {
		case !connected:
			return c.withdraw(w, errNotConnected)
		case until.IsZero():
			timer.Reset(patience)
		case left <= 0:
			return c.withdraw(w, errLate)
		default:
			timer.Reset(min(left, patience))
		}
	}
}

// withdraw ends the wait with err, unless the places were granted at the same moment.
func (c *Connector) withdraw(w *waiter, err error) (*session, int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case g := <-w.granted:
		return g.session, g.n, g.err
	default:
	}
	for i, x := range c.waiters {
		if x == w {
			c.waiters = append(c.waiters[:i], c.waiters[i+1:]...)
			break
		}
	}
	c.grantWaiting() // the next waiter may need fewer places
	return nil, 0, err
}

// tryGrant gives w its places if a session has them. The caller holds the lock.
func (c *Connector) tryGrant(w *waiter) (grant, bool) {
	var best *session
	free, need := 0, w.need
	for _, s := range c.submitters {
		if f := s.room(); f > free {
			best, free = s, f
			need = min(w.need, s.width())
		}
	}
	if best == nil || free < need {
		return grant{}, false
	}
	n := c.pace.take(min(free, w.want), need, time.Now())
	if n == 0 {
		return grant{}, false
	}
	best.used += n
	c.used += n
	return grant{session: best, n: n}, true
}

// grantWaiting gives places to the waiters, in the order in which they came. The caller holds the lock.
func (c *Connector) grantWaiting() {
	for len(c.waiters) > 0 {
		w := c.waiters[0]
		g, ok := c.tryGrant(w)
		if !ok {
			break
		}
		c.waiters[0] = nil
		c.waiters = c.waiters[1:]
		w.granted <- g
	}
	if len(c.waiters) == 0 {
		return
	}
	if wait, ok := c.pace.wait(c.waiters[0].need, time.Now()); ok && !c.pace.armed {
		c.pace.armed = true
		time.AfterFunc(wait, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.pace.armed = false
			c.grantWaiting()
		})
	}
}

// release returns places. The caller holds the lock.
func (c *Connector) release(s *session, n int) {
	if n == 0 {
		return
	}
	s.used -= n
	c.used -= n
	c.grantWaiting()
	if c.closed {
		c.turn.Broadcast()
	}
}

// pace limits hand-overs to a rate, with a token bucket that holds a tenth of a second. The zero value has no limit.
// The connector's lock guards it.
type pace struct {
	rate   float64
	tokens float64
	last   time.Time
	armed  bool // a timer will call grantWaiting
}

func (p *pace) burst() float64 { return max(1, p.rate/10) }

func (p *pace) refill(now time.Time) {
	if p.last.IsZero() {
		p.tokens = p.burst()
	} else if d := now.Sub(p.last); d > 0 {
		p.tokens = min(p.burst(), p.tokens+d.Seconds()*p.rate)
	}
	p.last = now
}

// take takes up to n tokens, and at least need; it returns 0 if there are fewer than need. If the bucket is smaller
// than need, it takes them on credit.
func (p *pace) take(n, need int, now time.Time) int {
	if p.rate <= 0 {
		return n
	}
	p.refill(now)
	if p.tokens < min(float64(need), p.burst()) {
		return 0
	}
	n = max(need, min(n, int(p.tokens)))
	p.tokens -= float64(n)
	return n
}

// wait returns how long it takes until there are need tokens; ok is false if there are enough now.
func (p *pace) wait(need int, now time.Time) (d time.Duration, ok bool) {
	if p.rate <= 0 {
		return 0, false
	}
	p.refill(now)
	missing := min(float64(need), p.burst()) - p.tokens
	return max(time.Millisecond, time.Duration(missing/p.rate*float64(time.Second))), missing > 0
}
