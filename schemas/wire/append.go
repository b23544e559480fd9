package wire

import "google.golang.org/protobuf/encoding/protowire"

// AppendNumber appends a field that is a number, unless it is 0: proto3 does not write zeros.
func AppendNumber(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// AppendBool appends a field, unless it is false.
func AppendBool(b []byte, field protowire.Number, v bool) []byte {
	return AppendNumber(b, field, protowire.EncodeBool(v))
}

// AppendText appends a field, unless it is empty. The text must be valid UTF-8: readers refuse a record whose strings
// are not.
func AppendText(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// AppendTextAlways appends one value of a repeated field: an empty one too, because its position counts.
func AppendTextAlways(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// AppendBytes appends a field of bytes, or of a string, unless it is empty.
func AppendBytes(b []byte, field protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

// AppendHeader appends the beginning of a field that is a message of size bytes. The caller appends the message.
func AppendHeader(b []byte, field protowire.Number, size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(size))
}

// SizeNumber is the number of bytes that [AppendNumber] appends.
func SizeNumber(field protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(field) + protowire.SizeVarint(v)
}

// SizeBytes is the number of bytes that [AppendText] and [AppendBytes] append for a value of n bytes.
func SizeBytes(field protowire.Number, n int) int {
	if n == 0 {
		return 0
	}
	return protowire.SizeTag(field) + protowire.SizeBytes(n)
}
