package sender

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/wire"
)

// source is the CloudEvents source of the records that this stage writes.
const source = "sender"

// placeholder replaces a message whose record cannot be decoded: it has the fields that the outcome needs, from the
// record's headers.
func placeholder(route string, r *kgo.Record, id schemas.ID) *fanfarev1.Message {
	return &fanfarev1.Message{
		Tenant: validUTF8(string(schemas.Header(r, schemas.HeaderTenant))), CampaignId: schemas.CampaignID(id.CampaignNumber()),
		CampaignNumber: id.CampaignNumber(), Seq: id.Seq(), Try: uint32(id.Try()), Route: route,
	}
}

// outcomeEncoder encodes outcomes. There is one for every message, so headers that many have in common are made once,
// and the rest takes one allocation.
type outcomeEncoder struct {
	topic string
	keys  *schemas.Keys
	last  atomic.Pointer[sharedHeaders]
}

// sharedHeaders are the headers that all outcomes of one tenant in one millisecond have in common.
type sharedHeaders struct {
	tenant string
	ms     int64
	shared schemas.Shared
}

// outcomeHeaders is how many headers an outcome has: CloudEvents, tenant, trace, and the source that the window adds.
const outcomeHeaders = 10

func newOutcomeEncoder(names schemas.Names, keys *schemas.Keys) *outcomeEncoder {
	return &outcomeEncoder{topic: names.Deliveries(), keys: keys}
}

// outcome encodes the event that v describes into out and appends its headers to h. It keeps the trace of the message.
func (s *outcomeEncoder) outcome(out *kgo.Record, h []kgo.RecordHeader, r *kgo.Record, m *fanfarev1.Message, id schemas.ID, v *verdict, now time.Time) {
	message := s.keys.MessageOf(id)
	ms := now.UnixMilli()
	head := s.last.Load()
	if head == nil || head.ms != ms || head.tenant != m.GetTenant() {
		head = &sharedHeaders{m.GetTenant(), ms, schemas.Event{Topic: s.topic, Tenant: m.GetTenant(), Type: schemas.TypeDelivery, Source: source, Time: time.UnixMilli(ms)}.Shared()}
		s.last.Store(head)
	}

	kind, code := "", schemas.CodeName(v.code)
	if info, ok := schemas.LookupKind(v.kind); ok {
		kind = info.Name
	}
	const ids = 30 // characters of an id
	d := fanfarev1.Delivery{
		Tenant: m.GetTenant(), CampaignId: m.GetCampaignId(), CampaignNumber: m.GetCampaignNumber(), Seq: m.GetSeq(), Try: m.GetTry(), Leg: m.GetLeg(),
		Kind: v.kind, Code: v.code, RawCode: validUTF8(v.raw), TimeMs: ms, Channel: m.GetChannel(), Route: m.GetRoute(), Sender: m.GetSender(), To: m.GetTo(),
		Country: m.GetCountry(), Variant: m.GetVariant(), Segments: m.GetSegments(), PriceMicros: m.GetPriceMicros(), Currency: m.GetCurrency(),
		ProviderId: validUTF8(v.ref), PartProviderIds: v.parts, CustomerRef: m.GetCustomerRef(), ContactId: m.GetContactId(), MessageId: message[:], SubmissionId: id[:], Test: m.GetTest(),
	}
	if !v.again.IsZero() {
		d.AgainAtMs = v.again.UnixMilli()
	}
	b := make([]byte, 0, len(m.GetTenant())+1+ids+ids+2+len(kind)+len(code)+wire.DeliverySize(&d))
	b = append(append(b, m.GetTenant()...), '/')
	b = message.AppendTo(b)
	key := len(b)
	b = id.AppendTo(b)
	b = append(append(b, '/'), kind...)
	if code != "" {
		b = append(append(b, '/'), code...)
	}
	event := len(b)
	b = wire.AppendDelivery(b, &d)

	h = head.shared.Append(h, b[key:event:event])
	if trace := schemas.Header(r, schemas.HeaderTraceparent); trace != nil {
		h = append(h, kgo.RecordHeader{Key: schemas.HeaderTraceparent, Value: trace})
	}
	out.Topic, out.Key, out.Value, out.Headers = s.topic, b[:key:key], b[event:len(b):len(b)], h
}

// outcomeOf returns the submission of a final outcome, from its CloudEvents id. An ambiguous outcome is not final.
func outcomeOf(r *kgo.Record) (schemas.ID, error) {
	text := string(schemas.Header(r, "ce_id"))
	name, kind, ok := strings.Cut(text, "/")
	if !ok {
		return schemas.ID{}, fmt.Errorf("%w: ce_id %.40q", schemas.ErrID, text)
	}
	info, _ := schemas.LookupKind(schemas.KindAmbiguous)
	if kind, _, _ = strings.Cut(kind, "/"); kind == info.Name {
		return schemas.ID{}, errors.New("the outcome is not final")
	}
	return schemas.ParseID(name)
}

// held returns the record that keeps a single send until it is due.
func held(names schemas.Names, keys *schemas.Keys, m *fanfarev1.Message, id schemas.ID, due, now time.Time) (*kgo.Record, error) {
	message := keys.MessageOf(id)
	return schemas.Event{
		Topic: names.Held(), Key: schemas.DeliveryKey(m.GetTenant(), message), Tenant: m.GetTenant(), Type: schemas.TypeHeld, Source: source,
		ID: id.String() + "/held", Time: now, Value: &fanfarev1.Held{Message: m, DueMs: due.UnixMilli()},
	}.Record()
}
