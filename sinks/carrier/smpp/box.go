package smpp

import (
	"context"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/smpp/dlr"
	"fanfare/sinks/carrier/smpp/pdu"
)

// arrival is a deliver_sm or data_sm, or a receipt that the connector has made itself. It waits for the caller of
// Receipts or Inbound.
type arrival struct {
	session *session // nil: it needs no response
	header  pdu.Header
	body    string
	at      time.Time
	message pdu.Message
	own     *carrier.Receipt
}

// arrive puts a message into its box. If the box is full, it asks the message centre to send the message again. The
// caller holds the lock.
func (c *Connector) arrive(a *arrival, now time.Time) {
	m, err := pdu.DecodeMessage(a.header.Command, a.body)
	if err != nil {
		// Otherwise the message centre would send the same malformed message again for ever.
		c.log.Error("message from the message centre is malformed", "err", err, "octets", len(a.body))
		a.reply(pdu.InvalidMsgLength)
		return
	}
	a.message, a.at = m, now
	box := &c.messages
	if dlr.Marked(&m) {
		box = &c.receipts
	}
	if !box.put(*a) {
		a.reply(pdu.TemporaryAppError)
	}
}

// reply sends the response to the message centre. The caller holds the lock.
func (a *arrival) reply(status pdu.Status) {
	if s := a.session; s != nil && s.err == nil {
		s.queue.buf = appendDeliverResp(s.queue.buf, a.header, status)
		s.queue.add(item{end: len(s.queue.buf)})
		s.signal()
	}
}

// appendDeliverResp appends the response to a deliver_sm or data_sm. Its message_id is empty (SMPP 3.4 §4.6.2).
func appendDeliverResp(b []byte, h pdu.Header, status pdu.Status) []byte {
	out, err := (&pdu.MessageResp{}).Append(b, pdu.Header{Command: h.Command.Response(), Status: status, Sequence: h.Sequence})
	if err != nil {
		return b // an empty body always fits
	}
	return out
}

// addOwn adds a receipt that the connector makes itself, about one part or the whole of a message. The caller holds the
// lock.
func (c *Connector) addOwn(p *pending, part, parts int, status schemas.ReceiptStatus, r *partResult) {
	receipt := &carrier.Receipt{
		Account: c.account, Ref: r.id, Key: p.key, To: p.to, Status: status, Code: r.code, Sub: r.sub, At: time.Now(),
		Raw: []byte("submit_sm_resp " + r.code),
	}
	if parts > 1 {
		receipt.Part, receipt.Parts = uint8(part), uint8(parts)
	}
	c.receipts.put(arrival{own: receipt})
}

// box holds arrivals until the caller of Receipts or Inbound takes them. The connector's lock guards it.
type box struct {
	list []arrival
	more chan struct{} // has room for one value, which says that the box has a new arrival
	// holds says that the box keeps arrivals that come before the first caller. Otherwise it refuses them.
	holds         bool
	open, wasOpen bool
}

// mostHeld is how many arrivals a box keeps. Message centres have windows of a few hundred at most.
const mostHeld = 10_000

// put adds an arrival and reports whether the box had room.
func (b *box) put(a arrival) bool {
	if !b.open && (b.wasOpen || !b.holds) || len(b.list) >= mostHeld {
		return false
	}
	b.list = append(b.list, a)
	select {
	case b.more <- struct{}{}:
	default:
	}
	return true
}

// mostTaken is the most arrivals that one call takes.
const mostTaken = 1000

// take removes and returns the oldest arrivals.
func (b *box) take() []arrival {
	n := min(mostTaken, len(b.list))
	if n == 0 {
		return nil
	}
	out := append([]arrival(nil), b.list[:n]...)
	rest := copy(b.list, b.list[n:])
	clear(b.list[rest:])
	b.list = b.list[:rest]
	if rest > 0 {
		select {
		case b.more <- struct{}{}:
		default:
		}
	}
	return out
}

// openBox makes the caller the only taker; it returns false if there is one already.
func (c *Connector) openBox(b *box) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.open {
		return false
	}
	b.open, b.wasOpen = true, true
	return true
}

// closeBox refuses the arrivals that were not taken, so that the message centre sends them again.
func (c *Connector) closeBox(b *box) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b.open = false
	for i := range b.list {
		b.list[i].reply(pdu.TemporaryAppError)
	}
	b.list = nil
}

// next waits for arrivals. ok is false if the caller must stop. If wake fires first, there are no arrivals.
func (c *Connector) next(ctx context.Context, b *box, wake <-chan time.Time) (arrived []arrival, ok bool) {
	for {
		if ctx.Err() != nil {
			return nil, false
		}
		c.mu.Lock()
		arrived = b.take()
		c.mu.Unlock()
		if len(arrived) > 0 {
			return arrived, true
		}
		select {
		case <-ctx.Done():
		case <-c.over:
			return nil, false
		case <-wake:
			return nil, true
		case <-b.more:
		}
	}
}

// answer sends the responses to the message centre. After an error, receipts that the connector has made itself wait
// for the next call of emit, because the message centre would not send them again.
func (c *Connector) answer(arrived []arrival, err error) {
	status := pdu.OK
	if err != nil {
		status = pdu.TemporaryAppError
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range arrived {
		a := &arrived[i]
		switch {
		case a.own == nil:
			a.reply(status)
		case err != nil:
			c.receipts.put(*a)
		}
	}
}
