package api

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// pay reserves what the messages cost, of a tenant whose credit is limited: nothing is sent for money that was not reserved (P4).
func (s *server) pay(ctx context.Context, m *single) error {
	if !m.who.limited || m.test {
		return nil
	}
	for campaign, n := range m.campaigns {
		if err := s.Store.Reserve(ctx, m.who.tenant.ID, campaign, m.price*uint64(m.size.Segments)*n); err != nil {
			return s.storeProblem(err)
		}
	}
	return nil
}

// records makes a record for each destination that is sent to: on the route's transactional lane, or in held until its time.
// They differ in little, so what they share is made once and the rest is cut from a few large pieces of memory.
func (s *server) records(ctx context.Context, m *single) ([]*kgo.Record, error) {
	seqs, err := s.seqs.take(ctx, m.who.tenant.ID, m.now, m.accepted)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	msg := m.message()
	event := schemas.Event{
		Topic: s.Names.Messages(m.route.Name, schemas.LaneTxn), Tenant: m.who.tenant.ID, Type: schemas.TypeMessage, Source: "api", Time: m.now, Value: msg,
		Traceparent: requestOf(ctx).trace,
	}
	try := uint8(1)
	if !m.due.IsZero() { // nobody has dealt it yet: the scheduler's deal, when its time comes, is the first try
		try, msg.Try = 0, 0
		event.Topic, event.Type = s.Names.Held(), schemas.TypeHeld
		event.Value = &fanfarev1.Held{Message: msg, DueMs: m.due.UnixMilli()}
	}
	shared := event.Shared()
	each := shared.Len() + 1
	slab, headers := make([]kgo.Record, m.accepted), make([]kgo.RecordHeader, 0, each*m.accepted)
	bytes := make([]byte, 0, m.accepted*(len(m.body)+256))
	out := make([]*kgo.Record, 0, m.accepted)
	for i := range m.targets {
		t := &m.targets[i]
		if t.reason != "" {
			continue
		}
		seq := &seqs[len(out)]
		m.count(seq.campaignID)
		t.id = s.Keys.Message(seq.campaign, seq.seq)
		r := &slab[len(out)]
		r.Topic = event.Topic
		id := cutFrom(&bytes, s.Keys.Submission(seq.campaign, seq.seq, try).AppendTo)
		r.Key = cutFrom(&bytes, func(b []byte) []byte {
			if m.due.IsZero() {
				return append(append(append(b, msg.GetTenant()...), '/'), t.e164...)
			}
			return append(b, schemas.DeliveryKey(msg.GetTenant(), t.id)...)
		})
		msg.CampaignId, msg.CampaignNumber, msg.CampaignVersion, msg.Seq = seq.campaignID, seq.campaign, seq.version, seq.seq
		msg.To, msg.Country = t.e164, t.country
		r.Value = cutFrom(&bytes, func(b []byte) []byte {
			b, err = proto.MarshalOptions{}.MarshalAppend(b, event.Value)
			return b
		})
		if err != nil {
			return nil, err
		}
		from := len(headers)
		headers = append(shared.Append(headers, id), kgo.RecordHeader{Key: schemas.HeaderSubmission, Value: id})
		r.Headers = headers[from:len(headers):len(headers)]
		out = append(out, r)
	}
	return out, nil
}

// cutFrom appends to buf what fill does, and returns that part of it. An earlier part stays where it is when buf grows.
func cutFrom(buf *[]byte, fill func([]byte) []byte) []byte {
	from := len(*buf)
	*buf = fill(*buf)
	return (*buf)[from:len(*buf):len(*buf)]
}

// count notes which campaign holds how many of the messages.
func (m *single) count(campaign string) {
	if m.who.limited {
		if m.campaigns == nil {
			m.campaigns = map[string]uint64{}
		}
		m.campaigns[campaign]++
	}
}

// message is what all messages of the request have in common.
func (m *single) message() *fanfarev1.Message {
	from := m.now
	msg := &fanfarev1.Message{
		Tenant: m.who.tenant.ID, Try: 1, Leg: 1, Channel: fanfarev1.Channel_CHANNEL_SMS, Route: m.route.Name, Sender: m.sender,
		Body:     &fanfarev1.Message_Text{Text: &fanfarev1.Text{Body: m.body, Encoding: m.size.Encoding}},
		Segments: uint32(m.size.Segments), PriceMicros: m.price, Currency: m.who.tenant.Currency, Test: m.test,
		Zone: m.who.tenant.Timezone, CustomerRef: m.ref,
	}
	if !m.due.IsZero() {
		from, msg.NotBeforeMs = m.due, m.due.UnixMilli()
	}
	msg.NotAfterMs = from.Add(singleValidity).UnixMilli()
	return msg
}

// reserve keeps, under the Idempotency-Key and before anything is produced, what will be answered: whoever repeats the request
// after a crash in between learns these ids, and nothing is produced again.
func (s *server) reserve(ctx context.Context, c *store.Claim, m *single) error {
	b, err := json.Marshal(m.result())
	if err != nil {
		return err
	}
	if err := s.Store.ReserveIDs(ctx, *c, b); err != nil {
		return s.storeProblem(err)
	}
	requestOf(ctx).reserved = true
	return nil
}

// acks gathers what Kafka says about records, for as long as somebody waits.
type acks struct {
	mu   sync.Mutex
	errs []error // by record; errNoAck until it is known
	left int
	done chan struct{}
}

var errNoAck = errors.New("not acknowledged in time")

// deliver writes the records and waits until all are acknowledged, or ctx ends. kgo's own wait would not end: a record that may
// be on the wire is never given up, for nobody knows whether it was written.
func (s *server) deliver(ctx context.Context, records []*kgo.Record) []error {
	a := &acks{errs: make([]error, len(records)), left: len(records), done: make(chan struct{})}
	for i := range a.errs {
		a.errs[i] = errNoAck
	}
	for i, r := range records {
		s.Kafka.Produce(ctx, r, func(_ *kgo.Record, err error) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.errs[i] = err
			if a.left--; a.left == 0 {
				close(a.done)
			}
		})
	}
	select {
	case <-a.done:
	case <-ctx.Done():
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.errs)
}

// produce writes the records and waits for Kafka. It goes on when the client hangs up: what was begun is finished.
func (s *server) produce(ctx context.Context, m *single, records []*kgo.Record) error {
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.AckTimeout)
	defer cancel()
	errs := s.deliver(wait, records)
	failed, i := 0, 0
	for k := range m.targets {
		t := &m.targets[k]
		if t.reason != "" {
			continue
		}
		if errs[i] != nil {
			t.reason = reasonNotAcked
			failed++
		} else {
			s.recent.add(m.who.tenant.ID, m.ref, t.id)
		}
		i++
	}
	s.metrics.sends.WithLabelValues("accepted").Add(float64(len(records) - failed))
	if failed == 0 {
		return nil
	}
	s.metrics.sends.WithLabelValues("not_acknowledged").Add(float64(failed))
	if failed == len(records) {
		p := unavailable(2*time.Second, errs[0], "The log did not acknowledge the message in time; it may or may not be sent.")
		if requestOf(ctx).reserved {
			return p.fixed("Repeat the request with the same Idempotency-Key: it answers the id and what became of it, and never sends twice.")
		}
		return p.fixed("Send with an Idempotency-Key to be able to ask what became of it. Without one, sending again may send twice.")
	}
	return nil
}

// result is the answer.
func (m *single) result() *SendResult {
	out := &SendResult{Simulation: m.test, Results: make([]SendDestination, len(m.targets)), Warning: m.warning, CustomerMessageID: m.ref}
	for i := range m.targets {
		t := &m.targets[i]
		d := &out.Results[i]
		d.Destination, d.Reasons = t.e164, []string{}
		if d.Destination == "" {
			d.Destination = truncate(t.raw, 40)
		}
		d.Unicode, d.Parts = m.size.Encoding == fanfarev1.Encoding_ENCODING_UCS2, m.size.Segments
		if !t.id.IsZero() {
			d.MessageID = orNull(t.id.String())
			if out.MessageID == "" {
				out.MessageID = *d.MessageID
			}
		}
		if d.Accepted = t.reason == ""; !d.Accepted {
			d.Reasons = append(d.Reasons, t.reason)
		}
	}
	if out.CustomerMessageID == "" {
		out.CustomerMessageID = out.MessageID
	}
	return out
}
