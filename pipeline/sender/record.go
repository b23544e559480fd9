package sender

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Identity returns the submission id that a message's record names in its header; the intent window recognises twins by it.
func Identity(r *kgo.Record) (schemas.ID, error) {
	for i := range r.Headers {
		if r.Headers[i].Key == schemas.HeaderSubmission {
			id, err := schemas.ParseID(string(r.Headers[i].Value))
			if err == nil && id.Try() == 0 {
				return id, fmt.Errorf("%w: a message, want a submission", schemas.ErrID)
			}
			return id, err
		}
	}
	return schemas.ID{}, fmt.Errorf("%w: no header %s", schemas.ErrID, schemas.HeaderSubmission)
}

// decode reads a message and the id of its submission. What it refuses is poison: nobody can say to whom it goes, or it is in
// the wrong place. id is what the header says even then, zero when it says nothing.
func decode(keys *schemas.Keys, route string, r *kgo.Record) (m *fanfarev1.Message, id schemas.ID, err error) {
	id, headerErr := Identity(r)
	m = &fanfarev1.Message{}
	if err := proto.Unmarshal(r.Value, m); err != nil {
		return nil, id, fmt.Errorf("decode message: %w", err)
	}
	if err := check(m, route); err != nil {
		return nil, id, err
	}
	switch {
	case headerErr != nil:
		return m, keys.Submission(m.GetCampaignNumber(), m.GetSeq(), uint8(m.GetTry())), nil
	case id.CampaignNumber() != m.GetCampaignNumber() || id.Seq() != m.GetSeq() || uint32(id.Try()) != m.GetTry():
		return nil, id, fmt.Errorf("header %s names another message than the record has", schemas.HeaderSubmission)
	}
	return m, id, nil
}

func check(m *fanfarev1.Message, route string) error {
	switch {
	case m.GetTenant() == "" || m.GetTo() == "":
		return errors.New("message without tenant or recipient")
	case m.GetTry() < 1 || m.GetTry() > schemas.MaxTry || m.GetSeq() > schemas.MaxSeq || m.GetCampaignNumber() > schemas.MaxCampaignNumber:
		return errors.New("message with numbers out of range")
	case m.GetCampaignId() != schemas.CampaignID(m.GetCampaignNumber()):
		return errors.New("message whose campaign id and number differ")
	case m.GetRoute() != route:
		return fmt.Errorf("message of route %q", m.GetRoute())
	case m.GetBody() == nil:
		return errors.New("message without a body")
	}
	return nil
}

// ghost is what is known of a message whose record does not decode: enough for its outcome.
func ghost(route string, r *kgo.Record, id schemas.ID) *fanfarev1.Message {
	return &fanfarev1.Message{
		Tenant: clean(string(schemas.Header(r, schemas.HeaderTenant))), CampaignId: schemas.CampaignID(id.CampaignNumber()),
		CampaignNumber: id.CampaignNumber(), Seq: id.Seq(), Try: uint32(id.Try()), Route: route,
	}
}

// source of the records of this stage (CloudEvents).
const source = "sender"

// delivery returns the event about a message that v describes.
func delivery(keys *schemas.Keys, m *fanfarev1.Message, id schemas.ID, v verdict, now time.Time) *fanfarev1.Delivery {
	message := keys.MessageOf(id)
	d := &fanfarev1.Delivery{
		Tenant: m.GetTenant(), CampaignId: m.GetCampaignId(), CampaignNumber: m.GetCampaignNumber(), Seq: m.GetSeq(), Try: m.GetTry(), Leg: m.GetLeg(),
		Kind: v.kind, Code: v.code, RawCode: clean(v.raw), TimeMs: now.UnixMilli(), Channel: m.GetChannel(), Route: m.GetRoute(), Sender: m.GetSender(),
		To: m.GetTo(), Country: m.GetCountry(), Variant: m.GetVariant(), Segments: m.GetSegments(), PriceMicros: m.GetPriceMicros(), Currency: m.GetCurrency(),
		ProviderId: clean(v.ref), CustomerRef: m.GetCustomerRef(), ContactId: m.GetContactId(), MessageId: message[:], SubmissionId: id[:], Test: m.GetTest(),
	}
	if !v.again.IsZero() {
		d.AgainAtMs = v.again.UnixMilli()
	}
	return d
}

// outcome returns the record of the event that v describes, with the trace of the message continued.
func outcome(names schemas.Names, keys *schemas.Keys, r *kgo.Record, m *fanfarev1.Message, id schemas.ID, v verdict, now time.Time) (*kgo.Record, error) {
	e := schemas.DeliveryEvent(names.Deliveries(), source, delivery(keys, m, id, v, now), "")
	e.Traceparent = string(schemas.Header(r, schemas.HeaderTraceparent))
	return e.Record()
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
	var b bytes.Buffer
	b.Grow(64)
	fmt.Fprintf(&b, "%s/%s/%d/%s/%d", r.GetRoute(), r.GetProviderId(), r.GetStatus(), r.GetRawCode(), r.GetPart())
	return schemas.Event{
		Topic: names.Receipts(), Key: schemas.ReceiptKey(r.GetRoute(), r.GetProviderId()), Type: schemas.TypeReceipt, Source: source,
		ID: b.String(), Time: time.UnixMilli(r.GetReceivedMs()),
	}.Raw(value), nil
}
