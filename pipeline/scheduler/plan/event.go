package plan

import (
	"fanfare/schemas"
	"fanfare/schemas/billing"
	"fanfare/schemas/wire"
)

// Event is what the planner reads of a delivery event, or of a message on a transactional lane.
type Event struct {
	Campaign           uint64
	Seq                uint32
	Try, Leg           uint32
	Kind               schemas.Kind
	Code               schemas.Code
	TimeMs, AgainMs    int64  // milliseconds
	PriceMicros        uint64 // segments times price per segment
	NotAfterMs         int64  // of a message
	LoggedMs           int64  // when the record was written
	Tenant, CampaignID []byte // slices of the record: copy them to keep them
}

// DecodeDelivery reads a record of topic `deliveries` into e, except LoggedMs.
func DecodeDelivery(b []byte, e *Event) error {
	var f wire.Fields
	if err := f.Read(b, wire.DeliveryLayout); err != nil {
		return err
	}
	*e = Event{
		Campaign: f.Number(wire.DeliveryCampaignNumber), Seq: uint32(f.Number(wire.DeliverySeq)), Try: uint32(f.Number(wire.DeliveryTry)),
		Leg: max(uint32(f.Number(wire.DeliveryLeg)), 1), Kind: schemas.Kind(f.Number(wire.DeliveryKind)), Code: schemas.Code(f.Number(wire.DeliveryCode)),
		TimeMs: int64(f.Number(wire.DeliveryTimeMs)), AgainMs: int64(f.Number(wire.DeliveryAgainAtMs)),
		PriceMicros: billing.Amount(f.Number(wire.DeliverySegments), f.Number(wire.DeliveryPriceMicros)),
		Tenant:      f.Bytes(wire.DeliveryTenant), CampaignID: f.Bytes(wire.DeliveryCampaignID), LoggedMs: e.LoggedMs,
	}
	return nil
}

// DecodeMessage reads a record of a transactional lane into e, except LoggedMs. The kind stays unspecified.
func DecodeMessage(b []byte, e *Event) error {
	var f wire.Fields
	if err := f.Read(b, wire.MessageLayout); err != nil {
		return err
	}
	*e = Event{
		Campaign: f.Number(wire.MessageCampaignNumber), Seq: uint32(f.Number(wire.MessageSeq)), Try: uint32(f.Number(wire.MessageTry)),
		Leg: max(uint32(f.Number(wire.MessageLeg)), 1), NotAfterMs: int64(f.Number(wire.MessageNotAfterMs)),
		Tenant: f.Bytes(wire.MessageTenant), CampaignID: f.Bytes(wire.MessageCampaignID), LoggedMs: e.LoggedMs,
	}
	return nil
}
