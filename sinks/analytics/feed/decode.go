package feed

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
)

// errRecord: the record will never become an event, whoever reads it.
var errRecord = errors.New("not a delivery event")

// envelope is what a record says about the campaign of its event, which is checked and not believed.
type envelope struct {
	tenant, campaign string
	number           uint64
}

// decoder reads delivery events. It knows the wire format only as far as it needs it, shares the strings that repeat, and copies
// what else it keeps into large pieces of memory. That costs a third of unmarshalling the message.
type decoder struct {
	shared map[string]string
	last   [fields]string
	text   strings.Builder
}

// fields is one more than the greatest field number that is read.
const fields = 28

// maxShared bounds the strings that are shared. Beyond it they begin anew.
const maxShared = 20_000

// pieceSize is how much memory is taken at once for strings that do not repeat.
const pieceSize = 64 << 10

func newDecoder() *decoder { return &decoder{shared: make(map[string]string)} }

// share returns b as a string that others have too.
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

// keep returns b as a string.
func (d *decoder) keep(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if d.text.Cap()-d.text.Len() < len(b) {
		// What was written stays where it is, for as long as somebody has a part of it.
		d.text = strings.Builder{}
		d.text.Grow(max(pieceSize, len(b)))
	}
	from := d.text.Len()
	d.text.Write(b)
	return d.text.String()[from:]
}

// cursor reads the wire format.
type cursor struct {
	b   []byte
	at  int
	bad bool
}

func (c *cursor) fail() {
	c.bad, c.at = true, len(c.b)
}

func (c *cursor) varint() uint64 {
	if c.at < len(c.b) && c.b[c.at] < 0x80 {
		c.at++
		return uint64(c.b[c.at-1])
	}
	return c.longVarint()
}

func (c *cursor) longVarint() uint64 {
	var x uint64
	for i := 0; c.at < len(c.b) && i < 10; i++ {
		b := c.b[c.at]
		c.at++
		x |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return x
		}
	}
	c.fail()
	return 0
}

func (c *cursor) bytes() []byte {
	n := c.varint()
	if n > uint64(len(c.b)-c.at) {
		c.fail()
		return nil
	}
	from := c.at
	c.at += int(n)
	return c.b[from:c.at]
}

// skip steps over a field that is not known.
func (c *cursor) skip(t protowire.Type) {
	switch t {
	case protowire.VarintType:
		c.varint()
	case protowire.BytesType:
		c.bytes()
	case protowire.Fixed32Type, protowire.Fixed64Type:
		n := 4
		if t == protowire.Fixed64Type {
			n = 8
		}
		if len(c.b)-c.at < n {
			c.fail()
			return
		}
		c.at += n
	default:
		c.fail()
	}
}

// wireTypes of the fields of a delivery event, -1 for those that are not read.
var wireTypes = func() (t [fields]protowire.Type) {
	for i := range t {
		t[i] = -1
	}
	for _, f := range []protowire.Number{3, 4, 5, 6, 7, 8, 10, 11, 16, 17, 18, 23} {
		t[f] = protowire.VarintType
	}
	for _, f := range []protowire.Number{1, 2, 9, 12, 13, 14, 15, 19, 20, 21, 22, 25} {
		t[f] = protowire.BytesType
	}
	return t
}()

// decode reads a record's value into e, except for its campaign, and keeps nothing of the value. Every error wraps errRecord.
func (d *decoder) decode(value []byte, e *analytics.Event) (env envelope, err error) {
	c := cursor{b: value}
	var try, leg, variant, segments, seq, price uint64
	var message, to, provider, ref []byte
	for c.at < len(c.b) {
		key := c.varint()
		field, wire := key>>3, protowire.Type(key&7)
		if field >= fields || wireTypes[field] < 0 {
			if field == 0 {
				c.bad = true
				break
			}
			c.skip(wire)
			continue
		}
		if wire != wireTypes[field] {
			return env, fmt.Errorf("%w: field %d has wire type %d", errRecord, field, wire)
		}
		if wire == protowire.VarintType {
			v := c.varint()
			switch field {
			case 3:
				env.number = v
			case 4:
				seq = v
			case 5:
				try = v
			case 6:
				leg = v
			case 7:
				e.Kind = fanfarev1.Kind(v)
			case 8:
				e.Code = fanfarev1.Code(v)
			case 10:
				e.TimeMS = int64(v)
			case 11:
				e.Channel = fanfarev1.Channel(v)
			case 16:
				variant = v
			case 17:
				segments = v
			case 18:
				price = v
			case 23:
				e.ContactID = v
			}
			continue
		}
		s := c.bytes()
		switch field {
		case 1:
			env.tenant = d.share(1, s)
		case 2:
			env.campaign = d.share(2, s)
		case 9:
			e.RawCode = d.share(9, s)
		case 12:
			e.Route = d.share(12, s)
		case 13:
			e.Sender = d.share(13, s)
		case 14:
			to = s
		case 15:
			e.Country = d.share(15, s)
		case 19:
			e.Currency = d.share(19, s)
		case 20:
			provider = s
		case 21:
			e.LinkID = d.share(21, s)
		case 22:
			ref = s
		case 25:
			message = s
		}
	}
	switch {
	case c.bad:
		return env, fmt.Errorf("%w: cut off, or not protobuf", errRecord)
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
	e.To, e.ProviderID, e.CustomerRef = d.keep(to), d.keep(provider), d.keep(ref)
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
