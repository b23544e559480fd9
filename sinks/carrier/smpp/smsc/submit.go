package smsc

import (
	"context"
	"strconv"
	"strings"
	"time"

	"fanfare/schemas"
	"fanfare/schemas/text"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/smpp/pdu"
	"fanfare/sinks/carrier/smpp/sms"
)

// mostSubmits is how many messages are handed to the line together.
const mostSubmits = 100

// submission is a unit that the message centre has accepted so far.
type submission struct {
	header pdu.Header
	id     string // the unit's message id
	out    carrier.Outbound
	whole  bool // all parts have come, so it goes to the line
}

// read reads one hand-over. A unit that is refused here, or a part that is not the last one, is answered at once.
func (x *session) read(list []submission, h pdu.Header, body string) []submission {
	s, now := x.server, time.Now()
	refuse := func(status pdu.Status) []submission {
		s.count(func(n *Stats) { n.Refused++ })
		x.reply(pdu.Header{Command: h.Command.Response(), Status: status, Sequence: h.Sequence}.Append)
		return list
	}
	if x.account == nil || x.command == pdu.BindReceiver {
		return refuse(pdu.IncorrectBind)
	}
	m, err := pdu.DecodeMessage(h.Command, body)
	switch {
	case err != nil:
		return refuse(pdu.InvalidMsgLength)
	case !m.TLVs.Whole():
		return refuse(pdu.InvalidTLVs)
	case m.Dest.Addr == "":
		return refuse(pdu.InvalidDest)
	}
	x.mu.Lock()
	status := s.cfg.Quirks.refuses(&x.throttle, x.unanswered, now)
	if status == pdu.OK {
		x.unanswered++
	}
	x.mu.Unlock()
	if status != pdu.OK {
		return refuse(status)
	}
	s.count(func(n *Stats) { n.Submits++ })
	sub := x.account.take(x, &m, now)
	sub.header = h
	return append(list, sub)
}

// submit hands the submissions to the line. It returns false when the session must end.
func (x *session) submit(ctx context.Context, list []submission) bool {
	x.taken += len(list)
	q := &x.server.cfg.Quirks
	if q.HalfOpenAfter > 0 && x.taken >= q.HalfOpenAfter {
		x.mu.Lock()
		x.mute = true
		x.mu.Unlock()
	}
	batch, whole := make([]carrier.Outbound, 0, len(list)), make([]submission, 0, len(list))
	for i := range list {
		if list[i].whole {
			batch, whole = append(batch, list[i].out), append(whole, list[i])
		} else {
			x.answer(&list[i], pdu.OK)
		}
	}
	if q.ResetAfter > 0 && x.taken >= q.ResetAfter {
		x.mu.Lock()
		x.mute = true // the answers of the line come too late
		x.mu.Unlock()
	}
	line := x.account.line
	for most := max(1, line.Caps().MaxBatch); len(batch) > 0; {
		n := min(most, len(batch))
		part := whole[:n]
		err := line.Send(ctx, batch[:n], func(i int, r carrier.Result) { x.answered(&part[i], r) })
		if err != nil {
			for i := range part {
				x.answer(&part[i], pdu.SystemError)
			}
		}
		batch, whole = batch[n:], whole[n:]
	}
	if q.ResetAfter > 0 && x.taken >= q.ResetAfter {
		x.reset()
		return false
	}
	return true
}

// answered sends the client the line's answer.
func (x *session) answered(sub *submission, r carrier.Result) {
	switch r.Outcome {
	case carrier.Accepted:
		x.answer(sub, pdu.OK)
	case carrier.Unknown:
		if r.Code == "connection broken" {
			x.reset()
		} // otherwise the client gets no answer
	default:
		x.answer(sub, statusOf(r))
	}
}

// statusOf returns the status for a refusal: the result's code if it is a number, otherwise the status with the same
// meaning.
func statusOf(r carrier.Result) pdu.Status {
	if n, err := strconv.ParseUint(r.Code, 0, 32); err == nil && n != 0 {
		return pdu.Status(n)
	}
	switch r.Outcome {
	case carrier.Throttled:
		return pdu.Throttled
	case carrier.Rejected, carrier.Unsupported:
		switch r.Sub {
		case schemas.CodeInvalidNumber:
			return pdu.InvalidDest
		case schemas.CodeSenderInvalid:
			return pdu.InvalidSource
		default:
			return pdu.SubmitFailed
		}
	default:
		return pdu.SystemError
	}
}

// answer sends the response to a hand-over.
func (x *session) answer(sub *submission, status pdu.Status) {
	x.reply(func(b []byte) []byte {
		x.unanswered--
		h := pdu.Header{Command: sub.header.Command.Response(), Status: status, Sequence: sub.header.Sequence}
		if status != pdu.OK {
			return h.Append(b)
		}
		b, _ = (&pdu.MessageResp{ID: sub.id}).Append(b, h) // our ids always fit
		return b
	})
}

// outbound makes the message that the line gets.
func (a *account) outbound(m *pdu.Message, key carrier.Key, ref messageNumber, body string, parts int, now time.Time) carrier.Outbound {
	encoding := schemas.EncodingGSM7
	if m.Coding == pdu.CodingUCS2 {
		encoding = schemas.EncodingUCS2
	}
	if parts == 1 {
		parts = text.Measure(body).Segments // message_payload
	}
	return carrier.Outbound{
		Key: key, Channel: schemas.ChannelSMS, To: "+" + strings.TrimPrefix(m.Dest.Addr, "+"), From: m.Source.Addr,
		Body:     carrier.Body{Text: carrier.Text{Body: body, Encoding: encoding, Segments: parts}},
		NotAfter: validUntil(m.Validity, now), Meta: map[string]string{MetaRef: strconv.FormatUint(uint64(ref), 10)},
	}
}

// validUntil reads validity_period; zero if it is empty.
func validUntil(s string, now time.Time) time.Time {
	if len(s) != 16 {
		return time.Time{}
	}
	if s[15] != 'R' {
		t, err := time.Parse("060102150405", s[:12])
		if err != nil {
			return time.Time{}
		}
		return t
	}
	n := make([]int, 6)
	for i := range n {
		v, err := strconv.Atoi(s[2*i : 2*i+2])
		if err != nil {
			return time.Time{}
		}
		n[i] = v
	}
	return now.AddDate(n[0], n[1], n[2]).Add(time.Duration(n[3])*time.Hour + time.Duration(n[4])*time.Minute + time.Duration(n[5])*time.Second)
}

// alphabet is the alphabet of data_coding 0.
const alphabet = sms.GSM7
