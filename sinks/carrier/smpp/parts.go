package smpp

import (
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/smpp/pdu"
)

// pending is a unit that waits for its answer. If its message has several parts, it has a long as well.
type pending struct {
	done    func(int, carrier.Result)
	i       int
	part    int // from 1
	long    *long
	key     carrier.Key
	to      string
	expires time.Time
}

// long is a message of several parts. The connector's lock guards it.
type long struct {
	parts []partResult
	units [][]byte // kept because they may be written again
	open  int      // parts without a result
	begun bool     // a part was written, so the others follow, whatever the deadline
	until time.Time
}

// partResult is the result of one part.
type partResult struct {
	outcome    carrier.Outcome
	id         string
	code       string
	sub        schemas.Code
	retryAfter time.Duration
}

// retry is a part that will be written again. It keeps its place in the window.
type retry struct {
	at      time.Time
	pending pending
}

// completions are calls of done that must be made without the lock.
type completions struct{ list []completion }

type completion struct {
	done   func(int, carrier.Result)
	i      int
	result carrier.Result
}

func (d *completions) add(p *pending, r carrier.Result) {
	d.list = append(d.list, completion{p.done, p.i, r})
}

// unlock releases the lock, makes the calls, and empties the list. Drain waits for these calls.
func (c *Connector) unlock(d *completions) {
	if len(d.list) == 0 {
		c.mu.Unlock()
		return
	}
	c.calling++
	c.mu.Unlock()
	for i := range d.list {
		d.list[i].done(d.list[i].i, d.list[i].result)
	}
	clear(d.list)
	d.list = d.list[:0]
	c.mu.Lock()
	c.calling--
	if c.closed {
		c.turn.Broadcast()
	}
	c.mu.Unlock()
}

// enqueue queues one unit under its own sequence number. The caller holds the lock and has a place in the window.
func (s *session) enqueue(unit []byte, p pending, until permit) {
	start, sequence := len(s.queue.buf), s.next()
	s.queue.buf = append(s.queue.buf, unit...)
	pdu.SetSequence(s.queue.buf[start:], sequence)
	s.queue.add(item{end: len(s.queue.buf), sequence: sequence, submit: true, long: p.long, permit: until})
	s.pending[sequence] = p
	s.signal()
}

// complete ends the wait for the answer to one unit. The caller holds the lock.
func (s *session) complete(d *completions, sequence uint32, r partResult) {
	if p, ok := s.pending[sequence]; ok {
		delete(s.pending, sequence)
		s.settle(d, &p, r)
	}
}

// settle frees the place of a unit and notes its result. The caller holds the lock.
func (s *session) settle(d *completions, p *pending, r partResult) {
	s.c.release(s, 1)
	if p.long == nil {
		d.add(p, r.result())
		return
	}
	if l := p.long; l.note(p.part, r) && (s.err != nil || !s.repeat(p)) {
		d.add(p, s.c.joined(p))
	}
}

// note notes the result of a part, and reports whether all parts have a result.
func (l *long) note(part int, r partResult) bool {
	l.parts[part-1] = r
	l.open--
	return l.open == 0
}

// repeat schedules another write of the parts that were not accepted, if other parts were accepted. The caller holds
// the lock.
func (s *session) repeat(p *pending) bool {
	l, now := p.long, time.Now()
	taken, again := 0, 0
	for _, r := range l.parts {
		switch r.outcome {
		case carrier.Accepted:
			taken++
		case carrier.Throttled, carrier.Retryable:
			again++
		default:
		}
	}
	if taken == 0 || again == 0 || taken+again < len(l.parts) || now.After(l.until) {
		return false
	}
	for i, r := range l.parts {
		if r.outcome != carrier.Accepted {
			part := *p
			part.part = i + 1
			s.retries = append(s.retries, retry{now.Add(min(max(r.retryAfter, 250*time.Millisecond), time.Second)), part})
		}
	}
	l.open = again
	s.used += again
	s.c.used += again
	return true
}

// repeatDue queues the parts whose time has come. The caller holds the lock.
func (s *session) repeatDue(now time.Time) {
	kept := s.retries[:0]
	for _, r := range s.retries {
		if now.Before(r.at) {
			kept = append(kept, r)
			continue
		}
		r.pending.expires = now.Add(time.Duration(s.c.cfg.AnswerTimeout))
		s.enqueue(r.pending.long.units[r.pending.part-1], r.pending, permit{})
	}
	s.retries = kept
}

// result returns the result of a message of one part.
func (r *partResult) result() carrier.Result {
	return carrier.Result{Outcome: r.outcome, Ref: r.id, Code: r.code, Sub: r.sub, RetryAfter: r.retryAfter}
}

// joined returns the result of a message of several parts. If the message centre has accepted some parts, the result is
// accepted, and receipts say which parts failed: another hand-over would deliver the accepted parts twice. The caller
// holds the lock.
func (c *Connector) joined(p *pending) carrier.Result {
	parts := p.long.parts
	taken := 0
	var refused *partResult
	for i := range parts {
		switch r := &parts[i]; {
		case r.outcome == carrier.Unknown:
			return carrier.Result{Outcome: carrier.Unknown, Code: r.code}
		case r.outcome == carrier.Accepted:
			taken++
		case refused == nil:
			refused = r
		}
	}
	if taken == 0 {
		return refused.result()
	}
	out := carrier.Result{Outcome: carrier.Accepted, Parts: len(parts), PartRefs: make([]string, len(parts))}
	for i := range parts {
		r := &parts[i]
		out.PartRefs[i] = r.id
		if out.Ref == "" {
			out.Ref = r.id
		}
		if r.outcome != carrier.Accepted {
			c.addOwn(p, i+1, len(parts), schemas.ReceiptStatusFailed, r)
		}
	}
	return out
}
