package smpp

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"fanfare/sinks/carrier"
)

// outgoing are units that are written with one system call.
type outgoing struct {
	buf   []byte
	items []item
	// earliest is the earliest deadline of all units; zero: none.
	earliest time.Time
}

// item is one unit of outgoing.
type item struct {
	end      int // offset in buf
	sequence uint32
	submit   bool
	long     *long
	permit
}

// permit is the time until which a hand-over may be written; see [carrier.Outbound.Expired].
type permit struct {
	deadline  time.Time
	withdrawn *atomic.Bool
}

// expired reports whether a unit may not be written any more. The remaining parts of a message that has begun may
// always be written.
func (it *item) expired(now time.Time) bool {
	if it.long != nil && it.long.begun {
		return false
	}
	return !it.deadline.IsZero() && !now.Before(it.deadline) || it.withdrawn != nil && it.withdrawn.Load()
}

func (o *outgoing) add(it item) {
	o.items = append(o.items, it)
	if it.long != nil && it.long.begun {
		return
	}
	if !it.deadline.IsZero() && (o.earliest.IsZero() || it.deadline.Before(o.earliest)) {
		o.earliest = it.deadline
	}
}

// chunk is how much one system call writes at most, and so how much can be late.
const chunk = 64 << 10

// write writes queued units until the session ends. It writes all units that wait together.
func (s *session) write() {
	var spare outgoing
	for {
		select {
		case <-s.ended:
			return
		case <-s.wake:
		}
		for {
			limit := s.take(&spare)
			if len(s.writing.buf) == 0 {
				break
			}
			n, err := s.writeOut(limit)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = errWriteLate
			}
			s.c.mu.Lock()
			if err == nil {
				err = s.err // the session has ended meanwhile
			}
			if err == nil {
				spare, s.writing = s.writing, outgoing{}
			}
			s.c.mu.Unlock()
			if err != nil {
				s.fail(err, n)
				return
			}
		}
	}
}

// writeOut writes the units that take has returned, and returns how many octets were written. limit is the deadline of
// the write.
func (s *session) writeOut(limit time.Time) (int, error) {
	if err := s.conn.SetWriteDeadline(limit); err != nil {
		return 0, err
	}
	return s.conn.Write(s.writing.buf)
}

// take moves up to a chunk of queued units to the write. It drops hand-overs that may not be written any more, and ends
// them. It returns the earliest deadline of the units, at which a blocked write must end.
func (s *session) take(spare *outgoing) (limit time.Time) {
	c := s.c
	now := time.Now()
	var late completions
	c.mu.Lock()
	if s.err != nil {
		c.mu.Unlock()
		return now
	}
	q := &s.queue
	for i := range q.items {
		if q.items[i].expired(now) {
			s.dropLate(&late, now)
			break
		}
	}
	if len(q.items) == 0 {
		c.unlock(&late)
		return now
	}
	n, size := len(q.items), len(q.buf)
	if size > chunk {
		for n = 1; n < len(q.items) && q.items[n].end <= chunk; n++ {
		}
		size = q.items[n-1].end
	}
	for _, it := range q.items[:n] {
		if it.long != nil {
			it.long.begun = true
		}
	}
	if n == len(q.items) {
		s.writing, s.queue = s.queue, outgoing{buf: spare.buf[:0], items: spare.items[:0]}
	} else {
		rest := outgoing{buf: append(spare.buf[:0], q.buf[size:]...), items: spare.items[:0]}
		for _, it := range q.items[n:] {
			it.end -= size
			rest.add(it)
		}
		s.writing = outgoing{buf: q.buf[:size], items: q.items[:n], earliest: q.earliest}
		s.queue = rest
	}
	limit = now.Add(time.Duration(c.cfg.AnswerTimeout))
	if e := s.writing.earliest; !e.IsZero() && e.Before(limit) {
		limit = e
	}
	c.unlock(&late)
	return limit
}

// dropLate removes the units that may not be written any more from the queue. The caller holds the lock.
func (s *session) dropLate(late *completions, now time.Time) {
	kept := outgoing{items: s.queue.items[:0]}
	start, end := 0, 0
	for _, it := range s.queue.items {
		unit := s.queue.buf[start:it.end]
		start = it.end
		if it.submit && it.expired(now) {
			s.complete(late, it.sequence, partResult{outcome: carrier.Retryable, code: carrier.CodeDeadline})
			continue
		}
		end += copy(s.queue.buf[end:], unit)
		it.end = end
		kept.add(it)
	}
	kept.buf = s.queue.buf[:end]
	s.queue = kept
}
