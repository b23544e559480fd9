package smsc

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/smpp/pdu"
	"fanfare/sinks/carrier/smpp/sms"
)

// account is the state that all sessions of one system id share.
type account struct {
	server *Server
	line   Line

	mu        sync.Mutex
	gathering map[string]*gathering
	origins   map[messageNumber]origin
	order     []messageNumber
	receivers []*session
	turn      int // the receiver that gets the next message
	queue     []*parcel
}

// gathering is a text whose parts have not all come yet.
type gathering struct {
	began time.Time
	ref   messageNumber
	key   carrier.Key
	texts []string
	left  int
}

// origin is data of a message that its receipts need and the line does not keep. If an origin is dropped, its receipts
// lack the sender's address and the ids of Quirks.PerSession.
type origin struct {
	source     pdu.Address
	registered byte
	ids        []string // id of each unit; nil without Quirks.PerSession
}

const (
	// gatherWait is how long a part waits for the other parts.
	gatherWait = time.Minute
	// mostOrigins limits the memory; an origin takes about 100 octets.
	mostOrigins = 500_000
)

func newAccount(s *Server, line Line) *account {
	return &account{server: s, line: line, gathering: map[string]*gathering{}, origins: map[messageNumber]origin{}}
}

// take makes a submission from a unit.
func (a *account) take(x *session, m *pdu.Message, now time.Time) submission {
	s := a.server
	body, part, _ := sms.Decode(m, alphabet)
	key, ok := a.keyOf(m)
	if part.Total == 0 {
		if !ok {
			key = s.names.next()
		}
		ref := newMessageNumber(s.refs.Add(1), 1)
		return submission{id: a.remember(x, m, ref, 0), whole: true, out: a.outbound(m, key, ref, body, 1, now)}
	}
	a.mu.Lock()
	name := fmt.Sprint(m.Source.Addr, "\x00", m.Dest.Addr, "\x00", part.Ref, "\x00", part.Total)
	g := a.gathering[name]
	if g == nil || now.Sub(g.began) > gatherWait || g.texts[part.Number-1] != "" {
		if !ok {
			key = s.names.next()
		}
		if g != nil {
			s.count(func(n *Stats) { n.Alone += part.Total - g.left })
		}
		g = &gathering{began: now, ref: newMessageNumber(s.refs.Add(1), part.Total), key: key, texts: make([]string, part.Total), left: part.Total}
		a.gathering[name] = g
	}
	g.texts[part.Number-1] = body
	g.left--
	whole := g.left == 0
	if whole {
		delete(a.gathering, name)
	}
	a.mu.Unlock()
	sub := submission{id: a.remember(x, m, g.ref, part.Number-1)}
	if whole {
		sub.whole, sub.out = true, a.outbound(m, g.key, g.ref, strings.Join(g.texts, ""), part.Total, now)
	}
	return sub
}

// keyOf returns the submission id that a message carries.
func (a *account) keyOf(m *pdu.Message) (key carrier.Key, ok bool) {
	v, _ := m.TLVs.Get(a.server.cfg.ReferenceTLV)
	if len(v) != len(key) {
		return key, false
	}
	copy(key[:], v)
	return key, a.server.cfg.Keys.Verify(key) == nil && key.Try() > 0
}

// remember assigns an id to a unit and keeps the unit's origin.
func (a *account) remember(x *session, m *pdu.Message, ref messageNumber, unit int) string {
	q := &a.server.cfg.Quirks
	id := q.IDs.spell(ref.unit(unit))
	a.mu.Lock()
	defer a.mu.Unlock()
	o, known := a.origins[ref]
	if !known {
		if len(a.order) >= mostOrigins {
			delete(a.origins, a.order[0])
			a.order = a.order[1:]
		}
		a.order = append(a.order, ref)
		o = origin{source: m.Source, registered: m.Registered}
	}
	if q.PerSession {
		x.mu.Lock()
		x.counter++
		id = q.IDs.spell(x.counter)
		x.mu.Unlock()
		if o.ids == nil {
			o.ids = make([]string, ref.units())
		}
		o.ids[unit] = id
	}
	a.origins[ref] = o
	return id
}

// parcel is a message on its way to a client.
type parcel struct {
	message pdu.Message
	refused int // how often a client has refused it
	done    func()
}

// emit sends receipts and returns when clients have accepted all of them. While no client is bound as a receiver, the
// receipts wait.
func (a *account) emit(ctx context.Context, list []carrier.Receipt) error {
	messages := make([]pdu.Message, 0, len(list))
	for i := range list {
		messages = a.receipts(messages, &list[i])
	}
	return a.deliver(ctx, messages)
}

// deliver sends messages and waits until clients have accepted them, or until ctx ends.
func (a *account) deliver(ctx context.Context, messages []pdu.Message) error {
	if len(messages) == 0 {
		return nil
	}
	taken := make(chan struct{})
	a.mu.Lock()
	left := len(messages)
	for i := range messages {
		a.queue = append(a.queue, &parcel{message: messages[i], done: func() {
			if left--; left == 0 {
				close(taken)
			}
		}})
	}
	a.pump()
	a.mu.Unlock()
	select {
	case <-taken:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join adds a session to the receivers.
func (a *account) join(x *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.receivers = append(a.receivers, x)
	a.pump()
}

// leave removes a session from the receivers. Other receivers get the messages that it has not accepted.
func (a *account) leave(x *session, back map[uint32]*parcel) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, r := range a.receivers {
		if r == x {
			a.receivers = append(a.receivers[:i:i], a.receivers[i+1:]...)
			break
		}
	}
	for _, p := range back {
		a.queue = append(a.queue, p)
	}
	a.pump()
}

// pump sends waiting messages to sessions that have room, in turns. The caller holds the lock.
func (a *account) pump() {
	for len(a.queue) > 0 {
		sent := false
		for range a.receivers {
			a.turn++
			if x := a.receivers[a.turn%len(a.receivers)]; x.deliver(a.queue[0]) {
				a.queue[0] = nil
				a.queue, sent = a.queue[1:], true
				break
			}
		}
		if !sent {
			return
		}
	}
	a.queue = nil
}

// defaultDeliverWindow is the default of Quirks.DeliverWindow.
const defaultDeliverWindow = 100

// deliver sends a message if the session has room for it.
func (x *session) deliver(p *parcel) bool {
	x.mu.Lock()
	most := x.server.cfg.Quirks.DeliverWindow
	if most == 0 {
		most = defaultDeliverWindow
	}
	if x.closed || x.closing || len(x.delivering) >= most {
		x.mu.Unlock()
		return false
	}
	x.sequence++
	sequence := x.sequence
	x.delivering[sequence] = p
	x.mu.Unlock()
	x.reply(func(b []byte) []byte {
		out, err := p.message.Append(b, pdu.Header{Command: pdu.DeliverSM, Sequence: sequence})
		if err != nil {
			x.server.log.Error("message to a client cannot be written", "err", err)
		}
		return out
	})
	return true
}

// again is the pause before the first repetition of a message that a client refused. It doubles with each repetition,
// up to a second.
const again = 20 * time.Millisecond

// delivered handles a client's response to a message.
func (x *session) delivered(sequence uint32, status pdu.Status) {
	x.mu.Lock()
	p := x.delivering[sequence]
	delete(x.delivering, sequence)
	x.mu.Unlock()
	a := x.account
	if p == nil || a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if status == pdu.OK {
		x.server.count(func(n *Stats) { n.Delivered++ })
		p.done()
	} else {
		x.server.count(func(n *Stats) { n.DeliverRefused++ })
		pause := min(again<<min(p.refused, 6), time.Second)
		p.refused++
		time.AfterFunc(pause, func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.queue = append(a.queue, p)
			a.pump()
		})
	}
	a.pump()
}
