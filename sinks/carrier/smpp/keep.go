package smpp

import (
	"context"
	"math/rand/v2"
	"time"

	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/smpp/pdu"
)

// longLived is how long a session must have lasted so that the next one is bound at once: the end of such a session
// does not mean that the message centre has a problem.
const longLived = 10 * time.Second

// keep keeps one session bound until ctx ends. bound is the first session, or nil.
func (c *Connector) keep(ctx context.Context, command pdu.Command, bound *session) {
	pause := time.Duration(c.cfg.ReconnectMin)
	for ctx.Err() == nil {
		s := bound
		bound = nil
		if s == nil {
			var err error
			if s, err = c.open(ctx, command); err != nil {
				if ctx.Err() != nil {
					return
				}
				c.failed(err)
				c.log.WarnContext(ctx, "session not bound", "command", command.String(), "err", err, "again_in_ms", pause.Milliseconds())
				wait(ctx, jitter(pause))
				pause = min(2*pause, time.Duration(c.cfg.ReconnectMax))
				continue
			}
			c.attach(s)
		}
		c.log.InfoContext(ctx, "session bound", "command", command.String())
		began := time.Now()
		s.run(ctx)
		if ctx.Err() != nil {
			return
		}
		c.log.WarnContext(ctx, "session ended", "command", command.String(), "err", s.err)
		if time.Since(began) >= longLived {
			pause = time.Duration(c.cfg.ReconnectMin)
			wait(ctx, jitter(min(pause, 200*time.Millisecond)))
			continue
		}
		wait(ctx, jitter(pause))
		pause = min(2*pause, time.Duration(c.cfg.ReconnectMax))
	}
}

func (c *Connector) failed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastErr = err
}

// jitter returns a time between d/2 and d, so that clients that have lost a message centre together do not all come
// back at the same time.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// run reads, writes and looks until the session or ctx ends.
func (s *session) run(ctx context.Context) {
	c := s.c
	c.running.Go(s.write)
	c.running.Go(s.read)
	timeout, enquire := time.Duration(c.cfg.AnswerTimeout), time.Duration(c.cfg.EnquireLink)
	tick := time.NewTicker(min(max(min(timeout, enquire)/20, 10*time.Millisecond), 250*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-s.ended:
			return
		case <-ctx.Done():
			s.fail(errDrained, writtenUnknown)
			return
		case now := <-tick.C:
			if err := s.look(now); err != nil {
				s.fail(err, writtenUnknown)
				return
			}
		}
	}
}

// look ends hand-overs that are overdue, queues parts again whose time has come, and sends enquire_link. If the session
// is over, it returns the reason.
func (s *session) look(now time.Time) error {
	c := s.c
	silent := now.Sub(time.Unix(0, s.lastRead.Load()))
	var done completions
	c.mu.Lock()
	defer c.unlock(&done)
	for sequence, p := range s.pending {
		if now.After(p.expires) && !s.isQueued(sequence) {
			s.lost.add(sequence, p)
			s.complete(&done, sequence, partResult{outcome: carrier.Unknown, code: "no answer"})
		}
	}
	s.repeatDue(now)
	switch {
	case !s.leaving.IsZero() && (len(s.pending) == 0 && len(s.queue.buf) == 0 || now.Sub(s.leaving) > leaveWait):
		return errUnbound
	case silent > time.Duration(c.cfg.Inactivity):
		return errSilent
	case silent > time.Duration(c.cfg.EnquireLink) && s.enquired.IsZero():
		s.enquired = now
		s.send(pdu.Header{Command: pdu.EnquireLink, Sequence: s.next()})
	}
	return nil
}

// leaveWait is how long the connector waits for answers after the message centre has sent unbind.
const leaveWait = 2 * time.Second

// isQueued reports whether a unit has not been written yet. The time for its answer starts when it is written. The
// caller holds the lock.
func (s *session) isQueued(sequence uint32) bool {
	for _, it := range s.queue.items {
		if it.submit && it.sequence == sequence {
			return true
		}
	}
	return false
}
