package smpp

import (
	"context"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/smpp/sms"
)

// Bounds for parts that wait for other parts.
const (
	// joinWait is shorter than the response timers of message centres, which are at least 10 s.
	joinWait = 5 * time.Second
	// mostJoined is how many texts may wait.
	mostJoined = 1000
)

// written is a part of a recipient's message, with its unit.
type written struct {
	arrival arrival
	message carrier.Inbound
	part    sms.Concat
}

// Inbound implements [carrier.InboundSource]. It emits a text of several parts when all parts have come, and then
// answers them. If some do not come within 5 s, it emits each part that has come by itself, with its number, because
// some message centres send the next part only after the answer to the one before.
func (c *Connector) Inbound(ctx context.Context, emit func([]carrier.Inbound) error) error {
	if !c.openBox(&c.messages) {
		return errTwoTakers
	}
	defer c.closeBox(&c.messages)
	parts := sms.NewJoiner[written](mostJoined, joinWait)
	defer func() {
		// These parts still wait for others. The message centre sends them again.
		late, _, _ := parts.Expire(time.Now().Add(2 * joinWait))
		for _, j := range late {
			c.answer(arrivalsOf(j.Units), errTwoTakers)
		}
	}()
	timer := time.NewTimer(joinWait)
	defer timer.Stop()
	var pause carrier.Backoff
	for {
		arrived, ok := c.next(ctx, &c.messages, timer.C)
		if !ok {
			return nil
		}
		now := time.Now()
		var ready []sms.Joined[written]
		for i := range arrived {
			w, text := c.readWritten(&arrived[i])
			ready = append(ready, parts.Add(w.message.From, w.message.To, w.part, text, w, now)...)
		}
		late, next, waiting := parts.Expire(now)
		ready = append(ready, late...)
		if timer.Reset(joinWait); waiting {
			timer.Reset(next.Sub(now))
		}
		if len(ready) == 0 {
			continue
		}
		list, units := messagesOf(ready)
		err := emit(list)
		c.answer(units, err)
		if err != nil {
			pause.Wait(ctx)
		} else {
			pause.Reset()
		}
	}
}

// readWritten reads one unit.
func (c *Connector) readWritten(a *arrival) (w written, text string) {
	m := &a.message
	text, concat, binary := sms.Decode(m, c.cfg.sms.Alphabet)
	if binary {
		text = "" // Raw has the octets
	}
	return written{arrival: *a, part: concat, message: carrier.Inbound{
		Account: c.account, Channel: schemas.ChannelSMS, From: e164(m.Source), To: e164(m.Dest), Text: text, At: a.at, Raw: []byte(a.body),
	}}, text
}

// messagesOf returns the joined messages, and the single parts whose other parts have not come.
func messagesOf(ready []sms.Joined[written]) (list []carrier.Inbound, units []arrival) {
	for _, j := range ready {
		units = append(units, arrivalsOf(j.Units)...)
		if j.Have == j.Total {
			m := j.Units[0].message
			m.Text = j.Text
			for _, u := range j.Units[1:] {
				m.Raw = append(m.Raw, u.message.Raw...)
			}
			list = append(list, m)
			continue
		}
		for _, u := range j.Units {
			m := u.message
			m.Part, m.Parts = uint8(u.part.Number), uint8(u.part.Total)
			list = append(list, m)
		}
	}
	return list, units
}

func arrivalsOf(units []written) []arrival {
	list := make([]arrival, len(units))
	for i := range units {
		list[i] = units[i].arrival
	}
	return list
}
