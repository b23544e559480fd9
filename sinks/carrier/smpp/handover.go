package smpp

import (
	"context"
	"errors"
	"time"

	"fanfare/sinks/carrier"
)

// MaxBatch is how many messages one Send may have.
const MaxBatch = 200

// unit is one part of a message of a batch, encoded in batchWork.buf.
type unit struct {
	i           int // index of the message
	part, parts int
	start, end  int
}

// batchWork is the data of one Send.
type batchWork struct {
	encoder *encoder
	batch   []carrier.Outbound
	done    func(int, carrier.Result)
	buf     []byte
	units   []unit
	longs   []*long // by message; nil for a message of one part
	answers completions
}

// Send implements [carrier.Connector]. It may use several sessions for a batch, but uses one session for all parts of a
// message.
func (c *Connector) Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	switch {
	case len(batch) == 0:
		return nil
	case len(batch) > MaxBatch:
		return carrier.ErrBatch
	case ctx.Err() != nil:
		return ctx.Err()
	}
	if !c.enter() {
		return carrier.ErrDrained
	}
	defer c.leave()
	w, _ := c.work.Get().(*batchWork)
	defer c.work.Put(w)
	w.encode(batch, done, time.Now())
	for next := 0; next < len(w.units); {
		need := w.units[next].parts - w.units[next].part + 1
		s, n, err := c.reserve(ctx, need, len(w.units)-next, w.until(next))
		if err != nil {
			if next == 0 && !errors.Is(err, errNotConnected) && !errors.Is(err, errLate) {
				w.answers.list = w.answers.list[:0]
				return err // ctx ended, or ErrDrained: nothing was handed over
			}
			c.giveBack(w, next, err)
			return nil
		}
		next = c.enqueue(s, w, next, n)
	}
	c.mu.Lock()
	c.unlock(&w.answers)
	return nil
}

// enter counts a call of Send, for which Drain must wait. It returns false after Drain was called.
func (c *Connector) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.active++
	return true
}

func (c *Connector) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active--
	if c.closed {
		c.turn.Broadcast()
	}
}

// encode makes the units of a batch. It refuses messages that cannot be encoded.
func (w *batchWork) encode(batch []carrier.Outbound, done func(int, carrier.Result), now time.Time) {
	w.batch, w.done = batch, done
	w.buf, w.units, w.longs = w.buf[:0], w.units[:0], w.longs[:0]
	for i := range batch {
		first := len(w.units)
		refusal, ok := w.append(i, now)
		if !ok {
			w.units = w.units[:first]
			w.answers.add(&pending{done: done, i: i}, refusal)
		}
		var l *long
		if n := len(w.units) - first; n > 1 {
			l = &long{parts: make([]partResult, n), open: n}
			for _, u := range w.units[first:] {
				l.units = append(l.units, append([]byte(nil), w.buf[u.start:u.end]...))
			}
		}
		w.longs = append(w.longs, l)
	}
}

// until returns the latest deadline of the messages from a unit on; zero if one of them has no deadline.
func (w *batchWork) until(next int) (last time.Time) {
	for _, u := range w.units[next:] {
		d := w.batch[u.i].Deadline
		if d.IsZero() {
			return d
		}
		if d.After(last) {
			last = d
		}
	}
	return last
}

// pending returns the entry of a unit that waits for its answer.
func (w *batchWork) pending(u *unit, expires time.Time) pending {
	out := &w.batch[u.i]
	return pending{done: w.done, i: u.i, part: u.part, long: w.longs[u.i], key: out.Key, to: out.To, expires: expires}
}

// enqueue queues units from next on, for which n places are taken, and returns the first unit that it did not queue. It
// queues the parts of a message together. If a message has more parts than the window, it queues them as places become
// free.
func (c *Connector) enqueue(s *session, w *batchWork, next, n int) int {
	now := time.Now()
	expires := now.Add(time.Duration(c.cfg.AnswerTimeout))
	c.mu.Lock()
	for next < len(w.units) && n > 0 {
		u := &w.units[next]
		left := u.parts - u.part + 1 // of this message
		if left > n && u.part == 1 && n < s.width() {
			break // keep the parts together: they go with the next places
		}
		out := &w.batch[u.i]
		until, late := permit{out.Deadline, out.Withdrawn}, out.Expired(now)
		if u.part == 1 && (late || s.err != nil) {
			p := w.pending(u, expires)
			r := partResult{outcome: carrier.Retryable, code: carrier.CodeDeadline}
			if !late {
				r = notTaken(s.err)
			}
			w.answers.add(&p, r.result())
			next += left
			continue
		}
		for ; left > 0 && n > 0; left, n, next = left-1, n-1, next+1 {
			u := &w.units[next]
			p := w.pending(u, expires)
			if p.long != nil {
				p.long.until = now.Add(time.Duration(c.cfg.AnswerTimeout) / 2)
			}
			if s.err != nil {
				s.settle(&w.answers, &p, notTaken(s.err))
				continue
			}
			s.enqueue(w.buf[u.start:u.end], p, until)
		}
	}
	c.release(s, n)
	c.unlock(&w.answers)
	return next
}

// giveBack ends the hand-over of the units from next on, which got no place, with an error.
func (c *Connector) giveBack(w *batchWork, next int, err error) {
	now := time.Now()
	c.mu.Lock()
	for ; next < len(w.units); next++ {
		u := &w.units[next]
		p := w.pending(u, now)
		r := partResult{outcome: carrier.Retryable, code: "window full"}
		switch {
		case errors.Is(err, errNotConnected):
			r.code, r.retryAfter = err.Error(), time.Second
		case errors.Is(err, carrier.ErrDrained):
			r.code = "drained"
		case errors.Is(err, errLate), w.batch[u.i].Expired(now):
			r.code = carrier.CodeDeadline
		}
		switch {
		case p.long == nil:
			w.answers.add(&p, r.result())
		case p.long.note(u.part, r):
			w.answers.add(&p, c.joined(&p))
		}
	}
	c.unlock(&w.answers)
}
