package api

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// pay takes the price of the messages from the reserved credit of a tenant with limited credit. A message whose price
// is not reserved is not sent (P4).
func (s *server) pay(ctx context.Context, m *single) error {
	if !m.who.limited || m.test {
		return nil
	}
	for campaign, micros := range m.campaigns {
		if err := s.credit.take(ctx, m.who.tenant.ID, campaign, micros); err != nil {
			s.unpay(m) //nolint:contextcheck // the money is returned although the request has ended
			return s.storeProblem(err)
		}
		m.paid = append(m.paid, campaign)
	}
	return nil
}

// unpay returns the money that pay took for messages that are not produced.
func (s *server) unpay(m *single) {
	for _, campaign := range m.paid {
		s.credit.give(m.who.tenant.ID, campaign, m.campaigns[campaign])
	}
	m.paid = nil
}

// records makes a record for each accepted destination: for the route's transactional lane, or for topic held when the
// send is scheduled. It encodes the common part of the records once, and cuts their own parts from a few large buffers.
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
	if !m.due.IsZero() { // the scheduler deals the first try when its time comes
		try, msg.Try = 0, 0
		event.Topic, event.Type = s.Names.Held(), schemas.TypeHeld
		event.Value = &fanfarev1.Held{Message: msg, DueMs: m.due.UnixMilli()}
	}
	shared := event.Shared()
	each := shared.Len() + 1
	if s.Traces != nil && event.Traceparent == "" {
		each++ // the traceparent of a recipient that is traced
	}
	slab, headers := make([]kgo.Record, m.accepted), make([]kgo.RecordHeader, 0, each*m.accepted)
	bytes := make([]byte, 0, m.accepted*(len(m.body)+256))
	out := make([]*kgo.Record, 0, m.accepted)
	for i := range m.targets {
		t := &m.targets[i]
		if t.reason != "" {
			continue
		}
		seq := &seqs[len(out)]
		m.count(seq.campaignID, t.price)
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
		msg.To, msg.Country, msg.PriceMicros = t.e164, t.country, t.price
		r.Value = cutFrom(&bytes, func(b []byte) []byte {
			b, err = proto.MarshalOptions{}.MarshalAppend(b, event.Value)
			return b
		})
		if err != nil {
			return nil, err
		}
		from := len(headers)
		headers = append(shared.Append(headers, id), kgo.RecordHeader{Key: schemas.HeaderSubmission, Value: id})
		if event.Traceparent == "" && s.Traces.Samples(seq.campaign, seq.seq) {
			headers = append(headers, kgo.RecordHeader{Key: schemas.HeaderTraceparent, Value: []byte(s.Traces.OfSingle(seq.campaign, seq.seq).Root().Traceparent())})
		}
		r.Headers = headers[from:len(headers):len(headers)]
		out = append(out, r)
	}
	return out, nil
}

// cutFrom appends to buf with fill and returns the appended part. Parts cut earlier stay valid when buf grows.
func cutFrom(buf *[]byte, fill func([]byte) []byte) []byte {
	from := len(*buf)
	*buf = fill(*buf)
	return (*buf)[from:len(*buf):len(*buf)]
}

// count adds the price of a message of a hidden campaign to the amount that pay takes.
func (m *single) count(campaign string, price uint64) {
	if m.who.limited {
		if m.campaigns == nil {
			m.campaigns = map[string]uint64{}
		}
		m.campaigns[campaign] += price * uint64(m.size.Segments)
	}
}

// message returns the common part of all messages of the request.
func (m *single) message() *fanfarev1.Message {
	from := m.now
	msg := &fanfarev1.Message{
		Tenant: m.who.tenant.ID, Try: 1, Leg: 1, Channel: m.channel, Route: m.route.Name, Sender: m.sender,
		Body:     &fanfarev1.Message_Text{Text: &fanfarev1.Text{Body: m.body, Encoding: m.size.Encoding}},
		Segments: uint32(m.size.Segments), Currency: m.who.tenant.Currency, Test: m.test,
		Zone: m.who.tenant.Timezone, CustomerRef: m.ref,
	}
	if m.dress != nil {
		m.dress(msg)
	}
	if !m.due.IsZero() {
		from, msg.NotBeforeMs = m.due, m.due.UnixMilli()
	}
	msg.NotAfterMs = from.Add(singleValidity).UnixMilli()
	return msg
}

// reserve stores the answer under the Idempotency-Key before anything is produced. If this process crashes before it
// has produced the messages, a repeated request gets these ids and produces nothing.
func (s *server) reserve(ctx context.Context, c *store.Claim, m *single) error {
	b, err := json.Marshal(m.result(), json.Deterministic(true)) // in the encoding of the answer
	if err != nil {
		return err
	}
	a := &packedAnswer{b, pack(b)}
	if err := s.Store.ReserveIDs(ctx, *c, a.packed); err != nil {
		return s.storeProblem(err)
	}
	requestOf(ctx).reserved = a
	return nil
}

// acks collects the acknowledgements of records.
type acks struct {
	mu   sync.Mutex
	errs []error // by record; errNoAck until Kafka answers
	left int
	done chan struct{}
}

var errNoAck = errors.New("not acknowledged in time")

// deliver produces the records and waits until all are acknowledged or ctx ends. It does not use ProduceSync, which
// would not return at the end of ctx, because kgo does not cancel records that it may already have sent.
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

// produce produces the records and waits for Kafka, also after the client has disconnected.
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
		s.traceSend(ctx, m, t, errs[i])
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
		p := problem.Unavailable(2*time.Second, errs[0], "Kafka did not acknowledge the message in time; it may or may not be sent.")
		if requestOf(ctx).reserved != nil {
			return p.WithFix("Repeat the request with the same Idempotency-Key: it returns the ids and their status, and never sends twice.")
		}
		return p.WithFix("Send an Idempotency-Key, with which a request can be repeated safely. Without one, repeating this request may send the message twice.")
	}
	return nil
}

// result builds the answer.
func (m *single) result() *SendResult {
	out := &SendResult{Simulation: m.test, Results: make([]SendDestination, len(m.targets)), Warning: m.warning, CustomerMessageID: m.ref}
	for i := range m.targets {
		t := &m.targets[i]
		d := &out.Results[i]
		d.Destination, d.Reasons = t.e164, []string{}
		if d.Destination == "" {
			d.Destination = problem.Truncate(t.raw, 40)
		}
		d.Unicode, d.Parts = m.size.Encoding == schemas.EncodingUCS2, m.size.Segments
		if !t.id.IsZero() {
			d.MessageID = orNull(t.id.String())
			if out.MessageID == "" {
				out.MessageID = *d.MessageID
			}
		}
		if d.Accepted = t.reason == ""; !d.Accepted {
			d.Reasons = append(d.Reasons, t.reason)
			if t.wrong != nil {
				d.Detail = strings.TrimSpace(t.wrong.Detail + " " + t.wrong.Fix)
			}
		}
	}
	if out.CustomerMessageID == "" {
		out.CustomerMessageID = out.MessageID
	}
	return out
}
