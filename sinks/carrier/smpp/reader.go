package smpp

import (
	"errors"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/smpp/pdu"
)

// answer is a response to a hand-over, as it was read.
type answer struct {
	sequence  uint32
	status    pdu.Status
	id        string
	congested bool
}

// mostAtOnce is how many units are read before the connector acts on them.
const mostAtOnce = 256

// read reads units until the session ends. It acts on all units together that have come.
func (s *session) read() {
	var answers []answer
	var arrived []arrival
	var commands []pdu.Header
	for {
		answers, arrived, commands = answers[:0], arrived[:0], commands[:0]
		for {
			h, body, err := s.reader.Next()
			if err != nil {
				s.act(answers, arrived, commands)
				if errors.Is(err, pdu.ErrLength) {
					s.sayGoodbye(pdu.Header{Command: pdu.GenericNack, Status: pdu.InvalidCmdLength, Sequence: h.Sequence})
				}
				s.fail(err, writtenUnknown)
				return
			}
			switch h.Command {
			case pdu.SubmitSMResp, pdu.DataSMResp:
				answers = append(answers, readAnswer(h, body))
			case pdu.GenericNack:
				answers = append(answers, answer{sequence: h.Sequence, status: h.Status})
			case pdu.DeliverSM, pdu.DataSM:
				arrived = append(arrived, arrival{session: s, header: h, body: string(body)})
			default:
				commands = append(commands, h)
			}
			if len(answers)+len(arrived)+len(commands) >= mostAtOnce || !s.reader.Ready() {
				break
			}
		}
		s.lastRead.Store(time.Now().UnixNano())
		s.act(answers, arrived, commands)
	}
}

func readAnswer(h pdu.Header, body []byte) answer {
	a := answer{sequence: h.Sequence, status: h.Status}
	if len(body) == 0 {
		return a
	}
	m := pdu.DecodeMessageResp(string(body))
	a.id = m.ID
	if v, ok := m.TLVs.Byte(pdu.TagCongestion); ok {
		a.congested = v >= congested
	}
	return a
}

// congested is the congestion_state (SMPP 5.0 §4.8.4.18) from which a message centre is near its limit.
const congested = 80

// act acts on the units that were read.
func (s *session) act(answers []answer, arrived []arrival, commands []pdu.Header) {
	if len(answers)+len(arrived)+len(commands) == 0 {
		return
	}
	c, now := s.c, time.Now()
	var done completions
	c.mu.Lock()
	s.enquired = time.Time{}
	for i := range answers {
		s.answered(&done, &answers[i], now)
	}
	for i := range arrived {
		c.arrive(&arrived[i], now)
	}
	for _, h := range commands {
		s.command(&done, h, now)
	}
	c.unlock(&done)
}

// answered handles the answer to a hand-over. The caller holds the lock.
func (s *session) answered(d *completions, a *answer, now time.Time) {
	r := partResult{outcome: carrier.Accepted, id: a.id}
	if a.status != pdu.OK {
		r = s.c.refusal(a.status)
	}
	throttled := r.outcome == carrier.Throttled
	s.c.noteThrottled(throttled)
	switch {
	case throttled || a.congested:
		s.throttled(now)
	case r.outcome == carrier.Accepted:
		s.accepted()
	}
	if _, waits := s.pending[a.sequence]; waits {
		s.complete(d, a.sequence, r)
	} else if p, ok := s.lost.take(a.sequence); ok {
		s.c.lateAnswer(&p, &r)
	}
	if a.status == pdu.IncorrectBind {
		s.leave(d, now)
	}
}

// refusal returns the result for an answer with this status. A status that the account's table does not have is final,
// because the message centre has answered and not accepted the message.
func (c *Connector) refusal(status pdu.Status) partResult {
	r := partResult{outcome: carrier.Rejected, sub: schemas.CodeNotSentOther, code: status.String()}
	if a, ok := c.cfg.codes.Answer(r.code); ok {
		r.outcome, r.sub = a.Outcome, a.Sub
	}
	return r
}

// command handles a unit that is neither an answer to a hand-over nor a message. The caller holds the lock.
func (s *session) command(d *completions, h pdu.Header, now time.Time) {
	switch h.Command {
	case pdu.EnquireLink:
		s.send(pdu.Header{Command: pdu.EnquireLinkResp, Sequence: h.Sequence})
	case pdu.Unbind:
		s.send(pdu.Header{Command: pdu.UnbindResp, Sequence: h.Sequence})
		s.leave(d, now)
	case pdu.UnbindResp:
		s.leave(d, now)
	case pdu.EnquireLinkResp, pdu.Outbind, pdu.AlertNotification:
	default:
		if !h.Command.IsResponse() {
			s.send(pdu.Header{Command: pdu.GenericNack, Status: pdu.InvalidCommand, Sequence: h.Sequence})
		}
	}
}

// leave stops writing hand-overs to a session that is no longer bound. Written ones may still be answered. The caller
// holds the lock.
func (s *session) leave(d *completions, now time.Time) {
	if !s.leaving.IsZero() || s.err != nil {
		return
	}
	s.leaving = now
	s.c.detach(s, errUnbound)
	kept := outgoing{}
	start := 0
	for _, it := range s.queue.items {
		unit := s.queue.buf[start:it.end]
		start = it.end
		if it.submit {
			s.complete(d, it.sequence, notTaken(errUnbound))
			continue
		}
		kept.buf = append(kept.buf, unit...)
		kept.add(item{end: len(kept.buf)})
	}
	s.queue = kept
	s.signal()
}

// sayGoodbye writes a last unit if it can be written at once.
func (s *session) sayGoodbye(h pdu.Header) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.send(h)
}
