package sender

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// source of the records of this stage (CloudEvents).
const source = "sender"

// ghost is what is known of a message whose record does not decode: enough for its outcome.
func ghost(route string, r *kgo.Record, id schemas.ID) *fanfarev1.Message {
	return &fanfarev1.Message{
		Tenant: clean(string(schemas.Header(r, schemas.HeaderTenant))), CampaignId: schemas.CampaignID(id.CampaignNumber()),
		CampaignNumber: id.CampaignNumber(), Seq: id.Seq(), Try: uint32(id.Try()), Route: route,
	}
}

// scribe writes the records of outcomes. One is written for every message, so what they have in common is made once, and the
// rest in one allocation.
type scribe struct {
	topic string
	keys  *schemas.Keys
	last  atomic.Pointer[letterhead]
}

// letterhead is the headers of the outcomes of one tenant in one millisecond.
type letterhead struct {
	tenant string
	ms     int64
	shared schemas.Shared
}

// outcomeHeaders is how many headers an outcome has: those of CloudEvents, the tenant, a trace, and the source that the window adds.
const outcomeHeaders = 10

func newScribe(names schemas.Names, keys *schemas.Keys) *scribe {
	return &scribe{topic: names.Deliveries(), keys: keys}
}

// outcome writes the event that v describes into out, whose headers are appended to h. The trace of the message goes on.
func (s *scribe) outcome(out *kgo.Record, h []kgo.RecordHeader, r *kgo.Record, m *fanfarev1.Message, id schemas.ID, v *verdict, now time.Time) {
	message := s.keys.MessageOf(id)
	ms := now.UnixMilli()
	head := s.last.Load()
	if head == nil || head.ms != ms || head.tenant != m.GetTenant() {
		head = &letterhead{m.GetTenant(), ms, schemas.Event{Topic: s.topic, Tenant: m.GetTenant(), Type: schemas.TypeDelivery, Source: source, Time: time.UnixMilli(ms)}.Shared()}
		s.last.Store(head)
	}

	kind, code := "", schemas.CodeName(v.code)
	if info, ok := schemas.LookupKind(v.kind); ok {
		kind = info.Name
	}
	const ids = 30 // characters of an id
	b := make([]byte, 0, len(m.GetTenant())+1+ids+ids+2+len(kind)+len(code)+deliverySize(m, v))
	b = append(append(b, m.GetTenant()...), '/')
	b = message.AppendTo(b)
	key := len(b)
	b = id.AppendTo(b)
	b = append(append(b, '/'), kind...)
	if code != "" {
		b = append(append(b, '/'), code...)
	}
	event := len(b)
	b = appendDelivery(b, m, &message, &id, v, ms)

	h = head.shared.Append(h, b[key:event:event])
	if trace := schemas.Header(r, schemas.HeaderTraceparent); trace != nil {
		h = append(h, kgo.RecordHeader{Key: schemas.HeaderTraceparent, Value: trace})
	}
	out.Topic, out.Key, out.Value, out.Headers = s.topic, b[:key:key], b[event:len(b):len(b)], h
}

// Numbers of the fields of fanfare.v1.Delivery that are written here. A test compares with the generated code.
const (
	deliveryTenant         protowire.Number = 1
	deliveryCampaignID     protowire.Number = 2
	deliveryCampaignNumber protowire.Number = 3
	deliverySeq            protowire.Number = 4
	deliveryTry            protowire.Number = 5
	deliveryLeg            protowire.Number = 6
	deliveryKind           protowire.Number = 7
	deliveryCode           protowire.Number = 8
	deliveryRawCode        protowire.Number = 9
	deliveryTime           protowire.Number = 10
	deliveryChannel        protowire.Number = 11
	deliveryRoute          protowire.Number = 12
	deliverySender         protowire.Number = 13
	deliveryTo             protowire.Number = 14
	deliveryCountry        protowire.Number = 15
	deliveryVariant        protowire.Number = 16
	deliverySegments       protowire.Number = 17
	deliveryPrice          protowire.Number = 18
	deliveryCurrency       protowire.Number = 19
	deliveryProviderID     protowire.Number = 20
	deliveryCustomerRef    protowire.Number = 22
	deliveryContactID      protowire.Number = 23
	deliveryAgainAt        protowire.Number = 24
	deliveryMessageID      protowire.Number = 25
	deliverySubmissionID   protowire.Number = 26
	deliveryTest           protowire.Number = 27
)

// deliverySize is at least what appendDelivery appends.
func deliverySize(m *fanfarev1.Message, v *verdict) int {
	const numbers, ids, lengths = 15 * 12, 2 * 19, 10 * 4
	return numbers + ids + lengths + len(m.GetTenant()) + len(m.GetCampaignId()) + len(v.raw) + len(m.GetRoute()) + len(m.GetSender()) + len(m.GetTo()) +
		len(m.GetCountry()) + len(m.GetCurrency()) + len(v.ref) + len(m.GetCustomerRef())
}

func appendDelivery(b []byte, m *fanfarev1.Message, message, submission *schemas.ID, v *verdict, ms int64) []byte {
	b = appendText(b, deliveryTenant, m.GetTenant())
	b = appendText(b, deliveryCampaignID, m.GetCampaignId())
	b = appendNumber(b, deliveryCampaignNumber, m.GetCampaignNumber())
	b = appendNumber(b, deliverySeq, uint64(m.GetSeq()))
	b = appendNumber(b, deliveryTry, uint64(m.GetTry()))
	b = appendNumber(b, deliveryLeg, uint64(m.GetLeg()))
	b = appendNumber(b, deliveryKind, uint64(v.kind))
	b = appendNumber(b, deliveryCode, uint64(v.code))
	b = appendText(b, deliveryRawCode, clean(v.raw))
	b = appendNumber(b, deliveryTime, uint64(ms))
	b = appendNumber(b, deliveryChannel, uint64(m.GetChannel()))
	b = appendText(b, deliveryRoute, m.GetRoute())
	b = appendText(b, deliverySender, m.GetSender())
	b = appendText(b, deliveryTo, m.GetTo())
	b = appendText(b, deliveryCountry, m.GetCountry())
	b = appendNumber(b, deliveryVariant, uint64(m.GetVariant()))
	b = appendNumber(b, deliverySegments, uint64(m.GetSegments()))
	b = appendNumber(b, deliveryPrice, m.GetPriceMicros())
	b = appendText(b, deliveryCurrency, m.GetCurrency())
	b = appendText(b, deliveryProviderID, clean(v.ref))
	b = appendText(b, deliveryCustomerRef, m.GetCustomerRef())
	b = appendNumber(b, deliveryContactID, m.GetContactId())
	if !v.again.IsZero() {
		b = appendNumber(b, deliveryAgainAt, uint64(v.again.UnixMilli()))
	}
	b = protowire.AppendBytes(protowire.AppendTag(b, deliveryMessageID, protowire.BytesType), message[:])
	b = protowire.AppendBytes(protowire.AppendTag(b, deliverySubmissionID, protowire.BytesType), submission[:])
	return appendNumber(b, deliveryTest, protowire.EncodeBool(m.GetTest()))
}

// appendNumber appends a field unless it is 0, which is not written.
func appendNumber(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// appendText appends a field unless it is empty.
func appendText(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// held returns the record that keeps a single message until it is due.
func held(names schemas.Names, keys *schemas.Keys, m *fanfarev1.Message, id schemas.ID, due, now time.Time) (*kgo.Record, error) {
	message := keys.MessageOf(id)
	return schemas.Event{
		Topic: names.Held(), Key: schemas.DeliveryKey(m.GetTenant(), message), Tenant: m.GetTenant(), Type: schemas.TypeHeld, Source: source,
		ID: id.String() + "/held", Time: now, Value: &fanfarev1.Held{Message: m, DueMs: due.UnixMilli()},
	}.Record()
}

// receiptRecord returns a receipt as topic `receipts` has it.
func receiptRecord(names schemas.Names, r *fanfarev1.Receipt) (*kgo.Record, error) {
	value, err := proto.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode receipt: %w", err)
	}
	return schemas.Event{
		Topic: names.Receipts(), Key: schemas.ReceiptKey(r.GetRoute(), r.GetProviderId()), Type: schemas.TypeReceipt, Source: source,
		ID:   fmt.Sprintf("%s/%s/%d/%s/%d", r.GetRoute(), r.GetProviderId(), r.GetStatus(), r.GetRawCode(), r.GetPart()),
		Time: time.UnixMilli(r.GetReceivedMs()),
	}.Raw(value), nil
}
