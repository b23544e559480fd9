package scheduler

import (
	"errors"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// event is what the dealer reads of a delivery event, and of a message on the transactional lane.
type event struct {
	campaign   uint64
	seq        uint32
	try, leg   uint32
	kind       fanfarev1.Kind
	code       fanfarev1.Code
	at, again  int64  // milliseconds
	price      uint64 // segments times price per segment
	notAfter   int64  // of a message
	logged     int64  // when the record was written
	tenant, id []byte // parts of the record: not to be kept
}

// Numbers of the fields that are read; the golden test holds them to the schema.
const (
	deliveryTenant   = 1
	deliveryCampaign = 2
	deliveryNumber   = 3
	deliverySeq      = 4
	deliveryTry      = 5
	deliveryLeg      = 6
	deliveryKind     = 7
	deliveryCode     = 8
	deliveryTime     = 10
	deliverySegments = 17
	deliveryPrice    = 18
	deliveryAgain    = 24
	messageTenant    = 1
	messageCampaign  = 2
	messageNumber    = 3
	messageSeq       = 5
	messageTry       = 6
	messageLeg       = 7
	messageNotAfter  = 21
	wireVarint       = 0
	wireFixed64      = 1
	wireBytes        = 2
	wireFixed32      = 5
)

// errWire is returned for bytes that are no protobuf record.
var errWire = errors.New("not a protobuf record")

// fields are the numbers and the first bytes of a record, by field number below their length. The whole decoder would build strings and
// slices that nobody here reads, at many times the cost, two or three times for every message that is sent.
type fields struct {
	v [32]uint64
	s [3][]byte // parts of the record
}

// read walks over the fields of a record. Of a field that comes twice the last one counts, as everywhere in protobuf.
func (f *fields) read(b []byte) error {
	for i := 0; i < len(b); {
		tag := uint64(b[i])
		i++
		if tag >= 0x80 {
			var n int
			if tag, n = varint(b[i-1:]); n == 0 {
				return errWire
			}
			i += n - 1
		}
		field := tag >> 3
		if field == 0 || field > 1<<29-1 {
			return errWire
		}
		switch tag & 7 {
		case wireVarint, wireBytes:
			if i == len(b) {
				return errWire
			}
			v := uint64(b[i])
			i++
			if v >= 0x80 {
				var n int
				if v, n = varint(b[i-1:]); n == 0 {
					return errWire
				}
				i += n - 1
			}
			if tag&7 == wireVarint {
				if field < uint64(len(f.v)) {
					f.v[field] = v
				}
				continue
			}
			if v > uint64(len(b)-i) {
				return errWire
			}
			if field < uint64(len(f.s)) {
				f.s[field] = b[i : i+int(v)]
			}
			i += int(v)
		case wireFixed64:
			i += 8 // we have none of these
		case wireFixed32:
			i += 4
		default:
			return errWire
		}
		if i > len(b) {
			return errWire
		}
	}
	return nil
}

// varint reads a number of up to ten bytes; n is 0 when there is none.
func varint(b []byte) (v uint64, n int) {
	for i := 0; i < len(b) && i < 10; i++ {
		c := b[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if i == 9 && c > 1 {
				return 0, 0
			}
			return v, i + 1
		}
	}
	return 0, 0
}

// decodeDelivery reads a record of `deliveries` into e.
func decodeDelivery(b []byte, e *event) error {
	var f fields
	if err := f.read(b); err != nil {
		return err
	}
	*e = event{
		campaign: f.v[deliveryNumber], seq: uint32(f.v[deliverySeq]), try: uint32(f.v[deliveryTry]), leg: max(uint32(f.v[deliveryLeg]), 1),
		kind: fanfarev1.Kind(f.v[deliveryKind]), code: fanfarev1.Code(f.v[deliveryCode]), at: int64(f.v[deliveryTime]), again: int64(f.v[deliveryAgain]),
		price: f.v[deliveryPrice] * max(f.v[deliverySegments], 1), tenant: f.s[deliveryTenant], id: f.s[deliveryCampaign], logged: e.logged,
	}
	return nil
}

// decodeMessage reads a record of a transactional lane into e, whose kind stays unspecified.
func decodeMessage(b []byte, e *event) error {
	var f fields
	if err := f.read(b); err != nil {
		return err
	}
	*e = event{
		campaign: f.v[messageNumber], seq: uint32(f.v[messageSeq]), try: uint32(f.v[messageTry]), leg: max(uint32(f.v[messageLeg]), 1),
		notAfter: int64(f.v[messageNotAfter]), tenant: f.s[messageTenant], id: f.s[messageCampaign], logged: e.logged,
	}
	return nil
}
