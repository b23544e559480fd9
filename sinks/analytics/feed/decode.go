package feed

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"fanfare/schemas"
	"fanfare/schemas/wire"
	"fanfare/sinks/analytics"
)

// errRecord means that the record is not of its topic's type and never will be.
var errRecord = errors.New("record is not of the topic's type")

// envelope has the campaign and the tenant that a record names. The feed compares them with the control plane.
type envelope struct {
	tenant, campaign string
	number           uint64
}

// decoder decodes delivery events. It shares strings that repeat and copies the other strings into large blocks. That
// costs a third of unmarshalling the protobuf message.
type decoder struct {
	shared map[string]string
	last   [fields]string
	text   strings.Builder
}

// fields is the greatest number of a field whose values repeat, plus one.
const fields = wire.DeliveryLinkID + 1

// maxShared bounds the table of shared strings. A full table is cleared.
const maxShared = 20_000

// textBlock is the size of the blocks for strings that do not repeat.
const textBlock = 64 << 10

func newDecoder() *decoder { return &decoder{shared: make(map[string]string)} }

// share returns b as a string, the same one for equal b.
func (d *decoder) share(field int, b []byte) string {
	if d.last[field] == string(b) {
		return d.last[field]
	}
	out, ok := d.shared[string(b)]
	if !ok {
		if len(d.shared) >= maxShared {
			clear(d.shared)
		}
		out = string(b)
		d.shared[out] = out
	}
	d.last[field] = out
	return out
}

// keep returns b as a string in a large block.
func (d *decoder) keep(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if d.text.Cap()-d.text.Len() < len(b) {
		// The old block stays alive as long as one of its strings is in use.
		d.text = strings.Builder{}
		d.text.Grow(max(textBlock, len(b)))
	}
	from := d.text.Len()
	d.text.Write(b)
	return d.text.String()[from:]
}

// decode reads a record's value into e, except for e.Campaign. It does not keep the value. Every error wraps errRecord.
func (d *decoder) decode(value []byte, e *analytics.Event) (env envelope, err error) {
	var f wire.Fields
	if err := f.Read(value, wire.DeliveryLayout); err != nil {
		return env, fmt.Errorf("%w: %w", errRecord, err)
	}
	env.tenant = d.share(wire.DeliveryTenant, f.Bytes(wire.DeliveryTenant))
	env.campaign = d.share(wire.DeliveryCampaignID, f.Bytes(wire.DeliveryCampaignID))
	env.number = f.Number(wire.DeliveryCampaignNumber)
	e.Kind, e.Code = schemas.Kind(f.Number(wire.DeliveryKind)), schemas.Code(f.Number(wire.DeliveryCode))
	e.RawCode = d.share(wire.DeliveryRawCode, f.Bytes(wire.DeliveryRawCode))
	e.TimeMS = int64(f.Number(wire.DeliveryTimeMs))
	e.Channel = schemas.Channel(f.Number(wire.DeliveryChannel))
	e.Route = d.share(wire.DeliveryRoute, f.Bytes(wire.DeliveryRoute))
	e.Sender = d.share(wire.DeliverySender, f.Bytes(wire.DeliverySender))
	e.Country = d.share(wire.DeliveryCountry, f.Bytes(wire.DeliveryCountry))
	e.Currency = d.share(wire.DeliveryCurrency, f.Bytes(wire.DeliveryCurrency))
	e.LinkID = d.share(wire.DeliveryLinkID, f.Bytes(wire.DeliveryLinkID))
	e.ContactID = f.Number(wire.DeliveryContactID)
	seq, try, leg := f.Number(wire.DeliverySeq), f.Number(wire.DeliveryTry), f.Number(wire.DeliveryLeg)
	variant, segments, price := f.Number(wire.DeliveryVariant), f.Number(wire.DeliverySegments), f.Number(wire.DeliveryPriceMicros)
	message := f.Bytes(wire.DeliveryMessageID)
	switch {
	case env.campaign == "":
		return env, fmt.Errorf("%w: no campaign", errRecord)
	case seq > schemas.MaxSeq, try > schemas.MaxTry, leg > math.MaxUint8, variant > math.MaxUint8, segments > schemas.MaxSegments, price > schemas.MaxPriceMicros:
		return env, fmt.Errorf("%w: seq %d, try %d, leg %d, variant %d, segments %d or price %d is out of bounds", errRecord, seq, try, leg, variant, segments, price)
	case e.TimeMS < 0 || e.TimeMS > analytics.MaxTimeMS:
		return env, fmt.Errorf("%w: time %d is out of bounds", errRecord, e.TimeMS)
	case len(message) != len(e.MessageID):
		return env, fmt.Errorf("%w: message id of %d bytes, want %d", errRecord, len(message), len(e.MessageID))
	}
	e.Seq, e.Try, e.Leg, e.Variant, e.Segments, e.PriceMicros = uint32(seq), uint8(try), uint8(leg), uint8(variant), uint8(segments), uint32(price)
	e.To, e.ProviderID, e.CustomerRef = d.keep(f.Bytes(wire.DeliveryTo)), d.keep(f.Bytes(wire.DeliveryProviderID)), d.keep(f.Bytes(wire.DeliveryCustomerRef))
	copy(e.MessageID[:], message)
	if e.MessageID.CampaignNumber() != env.number || e.MessageID.Seq() != e.Seq || e.MessageID.Try() != 0 {
		return env, fmt.Errorf("%w: the message id is of campaign %d seq %d, want campaign %d seq %d", errRecord, e.MessageID.CampaignNumber(), e.MessageID.Seq(), env.number, e.Seq)
	}
	if _, ok := schemas.LookupKind(e.Kind); !ok {
		return env, fmt.Errorf("%w: kind %d is not known", errRecord, e.Kind)
	}
	if e.Code < 0 || e.Code > math.MaxUint16 {
		return env, fmt.Errorf("%w: code %d is out of bounds", errRecord, e.Code)
	}
	return env, nil
}
