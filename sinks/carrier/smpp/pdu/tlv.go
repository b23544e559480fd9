package pdu

import (
	"encoding/binary"
	"fmt"
	"iter"
)

// Tag names an optional parameter (SMPP 3.4 §5.3.2). The tags from 0x1400 to 0x3FFF are specific to a message centre.
type Tag uint16

// Tags that this project uses.
const (
	TagReceiptedMessageID Tag = 0x001E
	TagUserMessageRef     Tag = 0x0204
	TagSourcePort         Tag = 0x020A
	TagDestPort           Tag = 0x020B
	TagSARRef             Tag = 0x020C // sar_msg_ref_num
	TagSARTotal           Tag = 0x020E
	TagSARPart            Tag = 0x020F // sar_segment_seqnum
	TagInterfaceVersion   Tag = 0x0210 // sc_interface_version
	TagNetworkError       Tag = 0x0423
	TagPayload            Tag = 0x0424 // message_payload
	TagDeliveryFailure    Tag = 0x0425
	TagMoreMessages       Tag = 0x0426
	TagMessageState       Tag = 0x0427
	TagCongestion         Tag = 0x0428 // congestion_state, SMPP 5.0
)

// TLVs are the optional parameters of a unit, in their encoded form.
type TLVs string

// All returns the parameters in order, up to the first one that is longer than the rest of the unit.
func (t TLVs) All() iter.Seq2[Tag, string] {
	return func(yield func(Tag, string) bool) {
		for len(t) >= 4 {
			n := int(t[2])<<8 | int(t[3])
			if len(t)-4 < n || !yield(Tag(t[0])<<8|Tag(t[1]), string(t[4:4+n])) {
				return
			}
			t = t[4+n:]
		}
	}
}

// Get returns the value of the first parameter with a tag.
func (t TLVs) Get(tag Tag) (value string, ok bool) {
	for found, v := range t.All() {
		if found == tag {
			return v, true
		}
	}
	return "", false
}

// Byte returns the value of a parameter of one octet.
func (t TLVs) Byte(tag Tag) (value byte, ok bool) {
	if v, _ := t.Get(tag); len(v) == 1 {
		return v[0], true
	}
	return 0, false
}

// Whole reports whether the last parameter ends at the end of the unit.
func (t TLVs) Whole() bool {
	used := 0
	for _, v := range t.All() {
		used += 4 + len(v)
	}
	return used == len(t)
}

// AppendTLV appends one parameter. A value of more than 65,535 octets is an error.
func AppendTLV[V string | []byte](b []byte, tag Tag, value V) ([]byte, error) {
	if len(value) > 0xffff {
		return b, fmt.Errorf("%w: TLV 0x%04x has %d octets, at most 65535 fit", ErrTooLong, uint16(tag), len(value))
	}
	b = binary.BigEndian.AppendUint16(b, uint16(tag))
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...), nil
}
