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

// wire walks over the fields of a record. The whole decoder would build strings and slices that nobody here reads, at ten
// times the cost, two or three times for every message that is sent.
type wire struct {
	b []byte
	v uint64 // of a varint
	s []byte // of a field of bytes
}

// next reads a field; 0 at the end and when err is set.
func (w *wire) next() (field int, err error) {
	if len(w.b) == 0 {
		return 0, nil
	}
	tag, ok := w.varint()
	if !ok || tag>>3 == 0 || tag>>3 > 1<<29-1 {
		return 0, errWire
	}
	switch tag & 7 {
	case wireVarint:
		if w.v, ok = w.varint(); !ok {
			return 0, errWire
		}
	case wireBytes:
		n, ok := w.varint()
		if !ok || n > uint64(len(w.b)) {
			return 0, errWire
		}
		w.s, w.b = w.b[:n], w.b[n:]
	case wireFixed64, wireFixed32:
		n := 8
		if tag&7 == wireFixed32 {
			n = 4
		}
		if len(w.b) < n {
			return 0, errWire
		}
		w.b = w.b[n:]
		w.v, w.s = 0, nil // we have none of these
	default:
		return 0, errWire
	}
	return int(tag >> 3), nil
}

func (w *wire) varint() (uint64, bool) {
	if len(w.b) > 0 && w.b[0] < 0x80 {
		v := uint64(w.b[0])
		w.b = w.b[1:]
		return v, true
	}
	var v uint64
	for i := 0; i < len(w.b) && i < 10; i++ {
		b := w.b[i]
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			if i == 9 && b > 1 {
				return 0, false
			}
			w.b = w.b[i+1:]
			return v, true
		}
	}
	return 0, false
}

// decodeDelivery reads a record of `deliveries` into e.
func decodeDelivery(b []byte, e *event) error {
	*e = event{logged: e.logged}
	var segments uint64
	for w := (wire{b: b}); ; {
		field, err := w.next()
		if err != nil {
			return err
		}
		switch field {
		case 0:
			e.price *= max(segments, 1)
			e.leg = max(e.leg, 1)
			return nil
		case deliveryTenant:
			e.tenant = w.s
		case deliveryCampaign:
			e.id = w.s
		case deliveryNumber:
			e.campaign = w.v
		case deliverySeq:
			e.seq = uint32(w.v)
		case deliveryTry:
			e.try = uint32(w.v)
		case deliveryLeg:
			e.leg = uint32(w.v)
		case deliveryKind:
			e.kind = fanfarev1.Kind(w.v)
		case deliveryCode:
			e.code = fanfarev1.Code(w.v)
		case deliveryTime:
			e.at = int64(w.v)
		case deliverySegments:
			segments = w.v
		case deliveryPrice:
			e.price = w.v
		case deliveryAgain:
			e.again = int64(w.v)
		}
	}
}

// decodeMessage reads a record of a transactional lane into e, whose kind stays unspecified.
func decodeMessage(b []byte, e *event) error {
	*e = event{logged: e.logged}
	for w := (wire{b: b}); ; {
		field, err := w.next()
		if err != nil {
			return err
		}
		switch field {
		case 0:
			e.leg = max(e.leg, 1)
			return nil
		case messageTenant:
			e.tenant = w.s
		case messageCampaign:
			e.id = w.s
		case messageNumber:
			e.campaign = w.v
		case messageSeq:
			e.seq = uint32(w.v)
		case messageTry:
			e.try = uint32(w.v)
		case messageLeg:
			e.leg = uint32(w.v)
		case messageNotAfter:
			e.notAfter = int64(w.v)
		}
	}
}
