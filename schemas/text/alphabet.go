package text

import (
	"slices"
	"unicode/utf16"
	"unicode/utf8"

	"fanfare/schemas"
)

// escape announces a character of the extension table (3GPP TS 23.038 §6.2.1).
const escape = 0x1b

// septetOf has the septet of each rune of GSM-7; a rune of the extension table has extended set, and is sent after an
// escape. toRune and toExtension are its inverse; 0 marks a septet of the extension table without a character.
var septetOf, toRune, toExtension = func() (m map[rune]uint16, basics, extensions [128]rune) {
	m = make(map[rune]uint16, 138)
	at := 0
	for _, r := range basic {
		if at == escape {
			at++
		}
		m[r], basics[at] = uint16(at), r
		at++
	}
	basics[escape] = ' ' // a receiver that does not know the extension table shows a space
	for i, r := range []rune(extension) {
		s := extensionSeptets[i]
		m[r], extensions[s] = extended|uint16(s), r
	}
	return m, basics, extensions
}()

// extensionSeptets are those of the characters of the extension table, in the order of the constant.
const extensionSeptets = "\x0a\x14\x28\x29\x2f\x3c\x3d\x3e\x40\x65"

const extended = 1 << 8

// asciiSeptets has the septet of each ASCII character, so that most texts are encoded without the map.
var asciiSeptets = func() (t [utf8.RuneSelf]uint16) {
	for c := range t {
		t[c] = noSeptet
		if s, ok := septetOf[rune(c)]; ok {
			t[c] = s
		}
	}
	return t
}()

const noSeptet = 1 << 9

// AppendGSM7 appends s in GSM-7, one septet per octet. ok is false when GSM-7 lacks a character of s; then dst is
// returned unchanged. It does not allocate beyond dst.
func AppendGSM7(dst []byte, s string) (out []byte, ok bool) {
	out = slices.Grow(dst, len(s))
	for i := 0; i < len(s); {
		// Most characters are ASCII that GSM-7 has one septet for.
		run := out[len(out):cap(out)]
		n := 0
		for n < len(run) && i+n < len(s) && s[i+n] < utf8.RuneSelf {
			septet := asciiSeptets[s[i+n]]
			if septet >= extended {
				break
			}
			run[n] = byte(septet)
			n++
		}
		out, i = out[:len(out)+n], i+n
		if i == len(s) {
			break
		}
		var septet uint16
		if c := s[i]; c < utf8.RuneSelf {
			septet = asciiSeptets[c]
			i++
		} else {
			r, size := utf8.DecodeRuneInString(s[i:])
			v, known := septetOf[r]
			if !known {
				return dst, false
			}
			septet = v
			i += size
		}
		switch {
		case septet == noSeptet:
			return dst, false
		case septet&extended != 0:
			out = append(out, escape, byte(septet))
		default:
			out = append(out, byte(septet))
		}
	}
	return out, true
}

// AppendFromGSM7 appends the characters of septets, one per octet, in UTF-8. It never fails: an escape before a septet
// that the extension table does not have is a space followed by the character of the default table, and the top bit of
// an octet is ignored.
func AppendFromGSM7(dst []byte, septets string) []byte {
	for i := 0; i < len(septets); i++ {
		c := septets[i] & 0x7f
		if c == escape && i+1 < len(septets) {
			if r := toExtension[septets[i+1]&0x7f]; r != 0 {
				dst = utf8.AppendRune(dst, r)
				i++
				continue
			}
		}
		dst = utf8.AppendRune(dst, toRune[c])
	}
	return dst
}

// AppendPacked appends septets, one per octet, packed eight into seven octets (3GPP TS 23.038 §6.1.2.1), after fill
// bits of zero: 0..6 of them bring the first septet to a septet border when a header stands before it.
func AppendPacked(dst, septets []byte, fill int) []byte {
	bits, have := uint(0), fill
	for _, s := range septets {
		bits |= uint(s&0x7f) << have
		for have += 7; have >= 8; have -= 8 {
			dst = append(dst, byte(bits))
			bits >>= 8
		}
	}
	if have > 0 {
		dst = append(dst, byte(bits))
	}
	return dst
}

// AppendUnpacked is the inverse of [AppendPacked]: it appends the septets that packed holds, one per octet. A last
// septet of zero may be padding of the last octet, or an `@`. The number of septets n decides; if n is below 0, the
// caller does not know it, and the septet counts as padding.
func AppendUnpacked(dst []byte, packed string, fill, n int) []byte {
	start := len(dst)
	bits, have := uint(0), -fill
	for i := range len(packed) {
		if have < 0 { // the fill bits are in the first octet
			bits, have = uint(packed[i])>>fill, 8-fill
		} else {
			bits |= uint(packed[i]) << have
			have += 8
		}
		for ; have >= 7; have -= 7 {
			dst = append(dst, byte(bits&0x7f))
			bits >>= 7
		}
	}
	if got := len(dst) - start; n >= 0 && got > n {
		return dst[:start+n]
	}
	if total := len(packed)*8 - fill; n < 0 && total > 0 && total%7 == 0 && len(dst) > start && dst[len(dst)-1] == 0 {
		return dst[:len(dst)-1]
	}
	return dst
}

// Cut cuts off the longest beginning of s that fits into units of the encoding, septets or UTF-16 units, without
// cutting a character in two. Cutting with [GSMConcat] or [UCS2Concat] until nothing is left gives as many pieces as
// [Measure] says.
func Cut(s string, encoding schemas.Encoding, units int) (head, tail string) {
	width := utf16Units
	if encoding == schemas.EncodingGSM7 {
		width = gsmUnits
		if 2*len(s) <= units {
			return s, ""
		}
		if septets, _, ok := measureGSM(s); ok && septets <= units {
			return s, ""
		}
	} else if len(s) <= units { // a text has at most as many units as octets of UTF-8
		return s, ""
	}
	used := 0
	for i, r := range s {
		if used += width(r); used > units && i > 0 {
			return s[:i], s[i:]
		}
	}
	return s, ""
}

// AppendUCS2 appends s as UTF-16, big-endian, with surrogate pairs beyond the basic plane. Carriers call it UCS-2. Each
// byte that is not UTF-8 becomes U+FFFD.
func AppendUCS2(dst []byte, s string) []byte {
	for _, r := range s {
		if r > 0xffff {
			high, low := utf16.EncodeRune(r)
			dst = append(dst, byte(high>>8), byte(high), byte(low>>8), byte(low))
			continue
		}
		dst = append(dst, byte(r>>8), byte(r))
	}
	return dst
}

// AppendFromUCS2 appends the characters of octets of big-endian UTF-16 in UTF-8. Half a surrogate pair, and a last
// octet without its second one, become U+FFFD.
func AppendFromUCS2(dst []byte, octets string) []byte {
	for i := 0; i+1 < len(octets); i += 2 {
		r := rune(octets[i])<<8 | rune(octets[i+1])
		if utf16.IsSurrogate(r) {
			pair := rune(utf8.RuneError)
			if i+3 < len(octets) {
				pair = utf16.DecodeRune(r, rune(octets[i+2])<<8|rune(octets[i+3]))
			}
			if r = pair; pair != utf8.RuneError {
				i += 2
			}
		}
		dst = utf8.AppendRune(dst, r)
	}
	if len(octets)%2 == 1 {
		dst = utf8.AppendRune(dst, utf8.RuneError)
	}
	return dst
}
