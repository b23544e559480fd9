package smpp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/smpp/pdu"
)

// Reasons for which a session ends.
var (
	errUnbound   = errors.New("the message centre has unbound")
	errSilent    = errors.New("the message centre does not answer any more")
	errDrained   = errors.New("drained")
	errWriteLate = errors.New("the message centre does not read")
)

// BindError means that the message centre has refused to bind.
type BindError struct {
	Command pdu.Command
	Status  pdu.Status
}

// bindHints are the usual causes of each refusal.
var bindHints = map[pdu.Status]string{
	pdu.AlreadyBound: "ESME_RALYBND: the account allows no further session", pdu.BindFailed: "ESME_RBINDFAIL: wrong account, address or mode",
	pdu.InvalidPassword: "ESME_RINVPASWD: wrong password", pdu.InvalidSystemID: "ESME_RINVSYSID: unknown systemId",
	pdu.InvalidCommand: "ESME_RINVCMDID: this mode is not supported, try split", pdu.Throttled: "ESME_RTHROTTLED: too many attempts",
}

// Error names the command, the status and what it means.
func (e *BindError) Error() string {
	hint := bindHints[e.Status]
	if hint == "" {
		hint = "see the carrier's list"
	}
	return fmt.Sprintf("%v refused with %v (%s)", e.Command, e.Status, hint)
}

// AccountRefused reports whether the message centre refuses the account: its name or its password.
func (e *BindError) AccountRefused() bool {
	return e.Status == pdu.InvalidPassword || e.Status == pdu.InvalidSystemID || e.Status == pdu.BindFailed
}

// session is one bound connection.
type session struct {
	c      *Connector
	conn   net.Conn
	reader *pdu.Reader
	bindBy pdu.Command // the command of its bind
	wake   chan struct{}
	ended  chan struct{} // closed by fail

	lastRead atomic.Int64 // Unix nanoseconds

	// The connector's lock guards the following fields.
	err      error
	sequence uint32
	used     int     // taken places of the window
	limit    float64 // present size of the window
	shrunk   time.Time
	pending  map[uint32]pending
	queue    outgoing // to be written
	writing  outgoing // units in the running system call
	retries  []retry
	lost     lost
	enquired time.Time // when enquire_link was sent; zero once a unit has come since
	leaving  time.Time // when the message centre sent unbind; answers may still come
}

// open connects and binds.
func (c *Connector) open(ctx context.Context, command pdu.Command) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.cfg.ConnectTimeout))
	defer cancel()
	conn, err := c.dial(ctx, c.cfg.addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if c.cfg.tls != nil {
		secured := tls.Client(conn, c.cfg.tls)
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("connect with TLS: %w", err)
		}
		conn = secured
	}
	s := &session{
		c: c, conn: conn, reader: pdu.NewReader(conn), bindBy: command, wake: make(chan struct{}, 1), ended: make(chan struct{}),
		sequence: 1, limit: float64(c.cfg.Window), pending: map[uint32]pending{}, lost: lost{most: 4 * c.cfg.Window},
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err = s.bind()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	s.lastRead.Store(time.Now().UnixNano())
	return s, nil
}

// bind binds the session. Before it has the answer, it answers only enquire_link. The message centre sends all other
// units again.
func (s *session) bind() error {
	cfg := s.c.cfg
	m := pdu.Bind{SystemID: cfg.SystemID, Password: string(cfg.Password), SystemType: cfg.SystemType, Version: cfg.version}
	unit, err := m.Append(nil, pdu.Header{Command: s.bindBy, Sequence: s.sequence})
	if err != nil {
		return err
	}
	if _, err := s.conn.Write(unit); err != nil {
		return fmt.Errorf("%v: %w", s.bindBy, err)
	}
	for {
		h, _, err := s.reader.Next()
		if err != nil {
			return fmt.Errorf("%v: %w", s.bindBy, err)
		}
		switch {
		case h.Sequence == s.sequence && (h.Command == s.bindBy.Response() || h.Command == pdu.GenericNack):
			s.sequence++
			if h.Status != pdu.OK {
				return &BindError{s.bindBy, h.Status}
			}
			return nil
		case h.Command == pdu.EnquireLink:
			if _, err := s.conn.Write(pdu.Header{Command: pdu.EnquireLinkResp, Sequence: h.Sequence}.Append(nil)); err != nil {
				return fmt.Errorf("%v: %w", s.bindBy, err)
			}
		}
	}
}

// submits reports whether the session can hand messages over.
func (s *session) submits() bool { return s.bindBy != pdu.BindReceiver }

// width is the present size of the window, at least one.
func (s *session) width() int { return max(1, int(s.limit)) }

// room is the number of free places in the window. The caller holds the lock.
func (s *session) room() int { return s.width() - s.used }

// throttled halves the window. It does so once for all throttled answers of about one round trip. The caller holds the
// lock.
func (s *session) throttled(now time.Time) {
	if now.Sub(s.shrunk) < 100*time.Millisecond {
		return
	}
	s.shrunk = now
	s.limit = max(1, s.limit/2)
}

// accepted lets the window grow, by one place per window of answers. The caller holds the lock.
func (s *session) accepted() {
	if most := float64(s.c.cfg.Window); s.limit < most {
		s.limit = min(most, s.limit+1/s.limit)
	}
}

// signal wakes the writer.
func (s *session) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// writtenUnknown is the argument of fail when the caller is not the writer.
const writtenUnknown = -1

// fail ends the session and decides the results of all hand-overs without an answer. A unit that was not written
// completely was not accepted, because the message centre cannot read a part of a unit. A unit that was written
// completely may have been accepted. Only the writer knows how much of the running write has gone out, so it decides
// about these units. It returns at once, because the connection is closed.
func (s *session) fail(err error, written int) {
	c := s.c
	var done completions
	c.mu.Lock()
	if s.err == nil {
		s.err = err
		close(s.ended)
		_ = s.conn.Close()
		c.detach(s, err)
		s.abandon(&done)
	}
	if written != writtenUnknown {
		for _, it := range s.writing.items {
			switch {
			case !it.submit:
			case it.end > written:
				s.complete(&done, it.sequence, notTaken(s.err))
			default:
				s.complete(&done, it.sequence, mayBeTaken(s.err))
			}
		}
		s.writing = outgoing{}
	}
	c.unlock(&done)
}

// abandon ends all hand-overs except those in the running write. The caller holds the lock.
func (s *session) abandon(done *completions) {
	for _, it := range s.queue.items {
		if it.submit {
			s.complete(done, it.sequence, notTaken(s.err))
		}
	}
	for _, r := range s.retries {
		s.settle(done, &r.pending, notTaken(s.err))
	}
	s.queue, s.retries = outgoing{}, nil
	writing := make(map[uint32]bool, len(s.writing.items))
	for _, it := range s.writing.items {
		writing[it.sequence] = it.submit
	}
	for sequence := range s.pending {
		if !writing[sequence] {
			s.complete(done, sequence, mayBeTaken(s.err))
		}
	}
}

// notTaken is the result of a unit that was not written.
func notTaken(err error) partResult {
	switch {
	case errors.Is(err, errWriteLate):
		return partResult{outcome: carrier.Retryable, code: carrier.CodeDeadline}
	case errors.Is(err, errDrained):
		return partResult{outcome: carrier.Retryable, code: "drained"}
	default:
		return partResult{outcome: carrier.Retryable, code: errNotConnected.Error(), retryAfter: time.Second}
	}
}

// mayBeTaken is the result of a unit that was written and has no answer.
func mayBeTaken(err error) partResult {
	if errors.Is(err, errDrained) {
		return partResult{outcome: carrier.Unknown, code: "drained"}
	}
	return partResult{outcome: carrier.Unknown, code: "connection lost"}
}

// send queues a unit that is not a hand-over. The caller holds the lock.
func (s *session) send(h pdu.Header) {
	if s.err == nil {
		s.queue.buf = h.Append(s.queue.buf)
		s.queue.add(item{end: len(s.queue.buf)})
		s.signal()
	}
}

// next returns a sequence number. They go from 1 to 0x7FFFFFFF. The caller holds the lock.
func (s *session) next() uint32 {
	n := s.sequence
	if s.sequence++; s.sequence > 0x7fffffff {
		s.sequence = 1
	}
	return n
}
