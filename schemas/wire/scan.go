package wire

import (
	"errors"
	"math"
)

// ErrMalformed is returned for bytes that are not a protobuf record, and for groups, which no record of ours has.
var ErrMalformed = errors.New("not a protobuf record")

// Layout says which fields of a record are numbers (varints) and which are strings, bytes or messages: a bit for each
// field number, numbers in the lower half, bytes in the upper.
type Layout uint64

const bytesHalf = 32

// maxField is the greatest field number that [Fields] keeps.
const maxField = 31

// Fields are the fields of one record. The zero value is ready for [Fields.Read], which may be called once.
type Fields struct {
	record []byte
	// value of each field: a number, or the position of its bytes: offset << 32 | length.
	value [maxField + 1]uint64
	// unknown: the record has a field that the layout lacks or has with another wire type. repeated: the record has a
	// field of bytes twice.
	unknown, repeated bool
}

// Wire types of protobuf.
const (
	typeVarint  = 0
	typeFixed64 = 1
	typeBytes   = 2
	typeFixed32 = 5
)

// Read reads a record. It skips fields that the layout does not have, such as those of a newer version. If a field
// occurs twice, the last one counts, as everywhere in protobuf. The record must not change while the fields are in use.
func (f *Fields) Read(b []byte, l Layout) error {
	f.record = b
	if len(b) > math.MaxInt32 {
		return ErrMalformed
	}
	for i := 0; i < len(b); {
		tag := uint64(b[i])
		i++
		if tag >= 0x80 {
			if i < len(b) && b[i] < 0x80 { // field numbers from 16 on have tags of two bytes
				tag = tag&0x7f | uint64(b[i])<<7
				i++
			} else if tag, i = varint(b, i-1); i == 0 {
				return ErrMalformed
			}
		}
		if tag&5 != 0 || tag-8 > maxField<<3|7-8 || i == len(b) {
			f.unknown = true
			if i = skip(b, i, tag); i < 0 {
				return ErrMalformed
			}
			continue
		}
		v := uint64(b[i])
		i++
		if v >= 0x80 {
			if v, i = varint(b, i-1); i == 0 {
				return ErrMalformed
			}
		}
		if tag&typeBytes != 0 {
			if v > uint64(len(b)-i) {
				return ErrMalformed
			}
			at := uint64(i)
			i += int(v)
			v |= at << 32
			f.repeated = f.repeated || f.value[tag>>3&maxField] != 0
		}
		if l&(1<<((tag>>3|tag&typeBytes<<4)&63)) == 0 {
			f.unknown = true
			continue
		}
		f.value[tag>>3&maxField] = v
	}
	return nil
}

// skip returns the end of a field that the layout lacks and whose tag ends at i; -1 when the field is malformed.
func skip(b []byte, i int, tag uint64) int {
	if tag>>3 == 0 || tag>>3 > 1<<29-1 {
		return -1
	}
	size := uint64(0)
	switch tag & 7 {
	case typeVarint, typeBytes:
		v, end := varint(b, i)
		if end == 0 {
			return -1
		}
		i = end
		if tag&7 == typeBytes {
			size = v
		}
	case typeFixed64:
		size = 8
	case typeFixed32:
		size = 4
	default:
		return -1
	}
	if size > uint64(len(b)-i) {
		return -1
	}
	return i + int(size)
}

// Number returns a field that is a number, 0 when it is absent.
func (f *Fields) Number(field int) uint64 { return f.value[field&maxField] }

// Bytes returns a field of bytes, empty when it is absent. It is a part of the record.
func (f *Fields) Bytes(field int) []byte {
	at := f.value[field&maxField]
	return f.record[at>>32 : at>>32+at&math.MaxUint32]
}

// has reports whether the record has a field of bytes: no field's bytes begin at offset 0.
func (f *Fields) has(field int) bool { return f.value[field&maxField] != 0 }

// in returns a field of bytes as a part of the record's copy s.
func (f *Fields) in(s string, field int) string {
	at := f.value[field&maxField]
	return s[at>>32 : at>>32+at&math.MaxUint32]
}

// varint reads a number of up to ten bytes from b[at:] and returns where it ends, 0 when there is none.
func varint(b []byte, at int) (v uint64, end int) {
	for shift := uint(0); shift < 63; shift += 7 {
		if uint(at) >= uint(len(b)) {
			return 0, 0
		}
		c := b[at]
		at++
		v |= uint64(c&0x7f) << (shift & 63)
		if c < 0x80 {
			return v, at
		}
	}
	if at < len(b) && b[at] <= 1 { // the tenth byte has only the last bit
		return v | uint64(b[at])<<63, at + 1
	}
	return 0, 0
}
