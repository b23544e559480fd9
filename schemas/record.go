package schemas

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Header keys of records, besides those of CloudEvents.
const (
	HeaderTenant = "tenant"
	// Of a message: its submission id as text, so that a record that does not decode can get its outcome
	HeaderSubmission = "submission"
	HeaderSource     = "source" // of an outcome: `<topic>/<partition>/<offset>` of its message
	// Of a row of the control plane: its version in decimal; a tombstone has it only here
	HeaderVersion     = "version"
	HeaderTraceparent = "traceparent"
	// Headers of a dead letter: the cause, the stage, and the position of the record.
	HeaderCause       = "cause"
	HeaderStage       = "stage"
	HeaderSourceTopic = "source_topic"
)

// ContentType of every record value.
const ContentType = "application/protobuf"

// EventType is the CloudEvents type of a record.
type EventType string

// Types of records.
const (
	TypeCampaign    EventType = "fanfare.campaign.v1"
	TypeControl     EventType = "fanfare.control.v1"
	TypeSuppression EventType = "fanfare.suppression.v1"
	TypeCursor      EventType = "fanfare.cursor.v1"
	TypeHeld        EventType = "fanfare.held.v1"
	TypeChunk       EventType = "fanfare.chunk.v1"
	TypeMessage     EventType = "fanfare.message.v1"
	TypeReceipt     EventType = "fanfare.receipt.v1"
	TypeCallback    EventType = "fanfare.callback.v1"
	TypeInbound     EventType = "fanfare.inbound.v1"
	TypeReply       EventType = "fanfare.reply.v1"
	TypeDelivery    EventType = "fanfare.delivery.v1"
	TypeHealth      EventType = "fanfare.health.v1"
)

// Event describes a record to be made.
type Event struct {
	Topic  string
	Key    string
	Tenant string
	Type   EventType
	// Source is the stage that writes it, such as `sender`.
	Source string
	// ID is the same each time the same event is written.
	ID   string
	Time time.Time
	// Traceparent continues a trace (W3C); may be empty.
	Traceparent string
	Value       proto.Message
}

// Record returns the event as a record with CloudEvents binary headers and room for two more.
func (e Event) Record() (*kgo.Record, error) {
	value, err := proto.Marshal(e.Value)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", e.Type, e.ID, err)
	}
	return e.Raw(value), nil
}

// Raw is [Event.Record] with an already encoded value.
func (e Event) Raw(value []byte) *kgo.Record {
	h := make([]kgo.RecordHeader, 0, 10)
	h = append(h,
		kgo.RecordHeader{Key: "ce_specversion", Value: specVersion},
		kgo.RecordHeader{Key: "ce_type", Value: []byte(e.Type)},
		kgo.RecordHeader{Key: "ce_source", Value: []byte(e.Source)},
		kgo.RecordHeader{Key: "ce_id", Value: []byte(e.ID)},
		kgo.RecordHeader{Key: "ce_time", Value: e.Time.UTC().AppendFormat(make([]byte, 0, 24), "2006-01-02T15:04:05.000Z")},
		kgo.RecordHeader{Key: "content-type", Value: contentType},
		kgo.RecordHeader{Key: HeaderTenant, Value: []byte(e.Tenant)},
	)
	if e.Traceparent != "" {
		h = append(h, kgo.RecordHeader{Key: HeaderTraceparent, Value: []byte(e.Traceparent)})
	}
	return &kgo.Record{Topic: e.Topic, Key: []byte(e.Key), Value: value, Headers: h}
}

// Shared has the headers of [Event.Record] for many events that differ only in their ids, such as the 5,000 messages of
// one chunk, which have the same tenant, time and source.
type Shared struct {
	headers []kgo.RecordHeader
}

// sharedID is the index of ce_id in the headers.
const sharedID = 3

// Shared returns the headers of e. It ignores the ID of e.
func (e Event) Shared() Shared { return Shared{e.Raw(nil).Headers} }

// Len returns how many headers Append appends.
func (s Shared) Len() int { return len(s.headers) }

// Append appends to h the headers of the event with the given id. The records share all header bytes except those of
// the id.
func (s Shared) Append(h []kgo.RecordHeader, id []byte) []kgo.RecordHeader {
	n := len(h)
	h = append(h, s.headers...)
	h[n+sharedID].Value = id
	return h
}

var (
	specVersion = []byte("1.0")
	contentType = []byte(ContentType)
)

// Header returns the value of the last header of that key, nil when there is none.
func Header(r *kgo.Record, key string) []byte {
	for _, h := range slices.Backward(r.Headers) {
		if h.Key == key {
			return h.Value
		}
	}
	return nil
}

// Keys of records. Every key of a tenant's record contains the tenant (P7).

// CampaignKey is the key of a campaign and of its cursor.
func CampaignKey(tenant, campaign string) string { return tenant + "/" + campaign }

// MessageKey is the key of a message: all messages to one number fall into one partition.
func MessageKey(tenant, to string) string { return tenant + "/" + to }

// DeliveryKey is the key of a delivery event.
func DeliveryKey(tenant string, message ID) string {
	b := make([]byte, 0, len(tenant)+1+idTextLen)
	b = append(append(b, tenant...), '/')
	return string(message.AppendTo(b))
}

// ReceiptKey is the key of a receipt.
func ReceiptKey(route, providerID string) string { return route + "/" + providerID }

// SuppressionKey is the key of an opt-out.
func SuppressionKey(tenant string, hash [8]byte) string {
	return tenant + "/" + hex.EncodeToString(hash[:])
}

// ConversationKey is the key of a message that a recipient wrote.
func ConversationKey(tenant, conversation string) string { return tenant + "/" + conversation }

// HealthKey is the key of a process's report about a route.
func HealthKey(route, process string) string { return route + "/" + process }

// RouteKey is the key of a route in control.
func RouteKey(name string) string { return "route/" + name }

// TenantKey is the key of a tenant in control.
func TenantKey(id string) string { return "tenant/" + id }

// SenderKey is the key of a sender id in control.
func SenderKey(tenant, sender string) string { return "sender/" + tenant + "/" + sender }

// DomainKey is the key of a domain in control.
func DomainKey(host string) string { return "domain/" + host }

// DeliveryEvent describes the record of a delivery event. Its id is made of the submission, the kind and the code: the
// same event written again has the same id. Clicks, replies and opt-outs pass in fact a text that distinguishes several
// events of one recipient.
func DeliveryEvent(topic, source string, d *fanfarev1.Delivery, fact string) Event {
	var message, submission ID
	copy(message[:], d.GetMessageId())
	copy(submission[:], d.GetSubmissionId())
	id := submission
	if id.IsZero() {
		id = message
	}
	b := make([]byte, 0, idTextLen+32)
	b = id.AppendTo(b)
	b = append(b, '/')
	if info, ok := LookupKind(d.GetKind()); ok {
		b = append(b, info.Name...)
	}
	if c := CodeName(d.GetCode()); c != "" {
		b = append(append(b, '/'), c...)
	}
	if fact != "" {
		b = append(append(b, '/'), fact...)
	}
	return Event{
		Topic: topic, Key: DeliveryKey(d.GetTenant(), message), Tenant: d.GetTenant(), Type: TypeDelivery, Source: source,
		ID: string(b), Time: time.UnixMilli(d.GetTimeMs()), Value: d,
	}
}

// ReceiptEvent describes the record of a receipt. The same receipt written again has the same id.
func ReceiptEvent(topic, source string, r *fanfarev1.Receipt) Event {
	return Event{
		Topic: topic, Key: ReceiptKey(r.GetRoute(), r.GetProviderId()), Type: TypeReceipt, Source: source,
		ID:   fmt.Sprintf("%s/%s/%d/%s/%d", r.GetRoute(), r.GetProviderId(), r.GetStatus(), r.GetRawCode(), r.GetPart()),
		Time: time.UnixMilli(r.GetReceivedMs()), Value: r,
	}
}

// CallbackEvent describes the record of a carrier's callback. A repeated callback has the same id and the same key.
func CallbackEvent(topic, source string, c *fanfarev1.Callback) Event {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(c.GetMethod()), []byte(c.GetUrl()), c.GetBody()} {
		h.Write(part)
		h.Write([]byte{0})
	}
	id := c.GetRoute() + "/" + hex.EncodeToString(h.Sum(nil)[:16])
	return Event{Topic: topic, Key: id, Type: TypeCallback, Source: source, ID: id, Time: time.UnixMilli(c.GetReceivedMs()), Value: c}
}

// InboundEvent describes the record of something that a recipient did. All records of one person are in the same
// partition, as far as the record identifies the person.
func InboundEvent(topic, source string, in *fanfarev1.Inbound, message ID) Event {
	key := in.GetRoute() + "/" + in.GetFrom()
	if in.GetWay() == InboundWayLink {
		key = DeliveryKey(in.GetTenant(), message)
	}
	return Event{Topic: topic, Key: key, Tenant: in.GetTenant(), Type: TypeInbound, Source: source, ID: in.GetId(), Time: time.UnixMilli(in.GetReceivedMs()), Value: in}
}

// MessageIn describes the record of a message that a recipient wrote, as a carrier brought it. The same message has the
// same id each time: it is made from the carrier's own id of the message, or, if the carrier gives none, from its text
// and time.
func MessageIn(topic, source string, in *fanfarev1.Inbound, at time.Time) Event {
	in.Way = InboundWayMessage
	told := in.GetProviderId()
	if told == "" {
		told = at.UTC().Format(time.RFC3339Nano) + "\x00" + in.GetText()
	}
	sum := sha256.Sum256([]byte(in.GetRoute() + "\x00" + in.GetFrom() + "\x00" + in.GetTo() + "\x00" + told))
	in.Id = "in_" + hex.EncodeToString(sum[:16])
	return InboundEvent(topic, source, in, ID{})
}

// ReplyEvent describes the record of what a recipient wrote, matched to a tenant.
func ReplyEvent(topic, source string, r *fanfarev1.Reply) Event {
	return Event{
		Topic: topic, Key: ConversationKey(r.GetTenant(), r.GetConversationId()), Tenant: r.GetTenant(), Type: TypeReply, Source: source, ID: r.GetId(),
		Time: time.UnixMilli(r.GetReceivedMs()), Value: r,
	}
}
