package text

import (
	"unicode/utf8"
	"unsafe"

	"fanfare/schemas"
)

// Units that a segment holds. A text of more than one segment gives 6 octets of each to the header that joins them
// (3GPP TS 23.040 §9.2.3.24.1), which are 7 septets or 3 UTF-16 units.
const (
	GSMSingle  = 160
	GSMConcat  = 153
	UCS2Single = 70
	UCS2Concat = 67
)

// Size is the size of a text as an SMS.
type Size struct {
	Encoding schemas.Encoding
	// Units are septets of GSM-7, where a character of the extension table is two, or UTF-16 units, where one beyond
	// the basic plane (an emoji) is two.
	Units int
	// Segments is how many segments are sent and billed: at least 1.
	Segments int
}

// MaxBytes is a number of bytes that no text of so many segments exceeds, whatever its characters. A septet of GSM-7 is
// at most 2 bytes of UTF-8 and a UTF-16 unit at most 3; a text that is not composed (NFD) has at most 3 times the bytes
// of the composed text, and the composed text is the one that is measured.
func MaxBytes(segments int) int { return 3 * 2 * GSMSingle * segments }

// MaxCharactersBytes is the same for a text that is bounded in characters (code points).
func MaxCharactersBytes(characters int) int { return 3 * 4 * characters }

// Measure returns the size of s: GSM-7 when every character has one there, else UCS-2. Neither the two septets of an
// extension character nor a surrogate pair are ever cut in two, so a segment may end one unit early. The empty text is
// one segment. Each byte that is not UTF-8 counts as U+FFFD, as it would be sent.
func Measure(s string) Size {
	units, pairs, ok := measureGSM(s)
	if ok {
		return Size{schemas.EncodingGSM7, units, segments(s, units, pairs, GSMSingle, GSMConcat, gsmUnits)}
	}
	units, pairs = 0, 0
	for _, r := range s {
		units++
		if r > 0xffff {
			units++
			pairs++
		}
	}
	return Size{schemas.EncodingUCS2, units, segments(s, units, pairs, UCS2Single, UCS2Concat, utf16Units)}
}

// MeasureBytes is [Measure] for a text that is not a string yet.
func MeasureBytes(b []byte) Size {
	return Measure(unsafe.String(unsafe.SliceData(b), len(b))) // Measure does not keep the string
}

// measureGSM counts the septets of s and the characters that take two; ok is false when one is not in GSM-7.
func measureGSM(s string) (septets, pairs int, ok bool) {
	for i := 0; i < len(s); {
		// Most texts are only ASCII: the loop adds up eight bytes at once and then checks the sum.
		for ; i+8 <= len(s); i += 8 {
			b := s[i : i+8]
			sum := ascii[b[0]] + ascii[b[1]] + ascii[b[2]] + ascii[b[3]] + ascii[b[4]] + ascii[b[5]] + ascii[b[6]] + ascii[b[7]]
			if sum >= foreign {
				break
			}
			septets += int(sum & 0xff)
			pairs += int(sum >> 8)
		}
		if i == len(s) {
			break
		}
		if w := ascii[s[i]]; w < foreign {
			septets += int(w & 0xff)
			pairs += int(w >> 8)
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		w := gsmUnits(r)
		if w == 0 {
			return 0, 0, false
		}
		septets += w
		pairs += w >> 1
		i += size
	}
	return septets, pairs, true
}

// segments cuts s greedily: a character that does not fit into the rest of a segment opens the next one.
func segments(s string, units, pairs, single, concat int, width func(rune) int) int {
	if units <= single {
		return 1
	}
	if pairs == 0 {
		return (units + concat - 1) / concat
	}
	n, used := 1, 0
	for _, r := range s {
		w := width(r)
		if used+w > concat {
			n++
			used = 0
		}
		used += w
	}
	return n
}

func utf16Units(r rune) int {
	if r > 0xffff {
		return 2
	}
	return 1
}

// gsmUnits returns the septets of r, 0 when GSM-7 has no such character.
func gsmUnits(r rune) int {
	switch {
	case r < utf8.RuneSelf:
		if ascii[r] >= foreign {
			return 0
		}
		return int(ascii[r] & 0xff)
	case r >= latinFirst && r <= latinLast:
		return int(latin[r-latinFirst])
	case r >= greekFirst && r <= greekLast:
		return int(greek[r-greekFirst])
	case r == '€':
		return 2
	default:
		return 0
	}
}

// The default alphabet of GSM-7 and its extension table (3GPP TS 23.038 §6.2.1), without the escape itself.
const (
	basic = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?" +
		"¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
	extension = "\f^{}\\[~]|€"
)

const (
	latinFirst, latinLast = '¡', 'ü'
	greekFirst, greekLast = 'Γ', 'Ω'
)

// foreign marks a byte that is not a character of GSM-7 by itself.
const foreign = 1 << 12

// Of each byte below 0x80: its septets, and 1<<8 when they are two; foreign otherwise. The sum of eight of them has no
// carry into the mark. The other tables are for the other characters, which lie in two ranges except for the euro sign:
// their septets, 0 if they have none.
var ascii, latin, greek = func() (a [256]uint16, l [latinLast - latinFirst + 1]uint8, g [greekLast - greekFirst + 1]uint8) {
	for i := range a {
		a[i] = foreign
	}
	set := func(alphabet string, w uint8) {
		for _, r := range alphabet {
			switch {
			case r < utf8.RuneSelf:
				a[r] = uint16(w) | uint16(w>>1)<<8
			case r >= latinFirst && r <= latinLast:
				l[r-latinFirst] = w
			case r >= greekFirst && r <= greekLast:
				g[r-greekFirst] = w
			}
		}
	}
	set(basic, 1)
	set(extension, 2)
	return a, l, g
}()
