package text

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// plain has replacements for characters that GSM-7 lacks and that do not decompose into a letter of GSM-7.
var plain = map[rune]string{
	'‘': "'", '’': "'", '‚': "'", '‛': "'", '′': "'", '´': "'", '`': "'", '“': `"`, '”': `"`, '„': `"`, '‟': `"`, '″': `"`, '«': `"`, '»': `"`,
	'‹': "'", '›': "'", '‐': "-", '‑': "-", '‒': "-", '–': "-", '—': "-", '―': "-", '−': "-", '…': "...", '•': "*", '·': ".",
	'\u00a0': " ", '\u2002': " ", '\u2003': " ", '\u2009': " ", '\u200a': " ", '\u202f': " ", '\u200b': "", '\u2060': "", '\ufeff': "", '\u00ad': "",
	'œ': "oe", 'Œ': "OE", 'ł': "l", 'Ł': "L", 'đ': "d", 'Đ': "D", 'ð': "d", 'Ð': "D", 'þ': "th", 'Þ': "Th", 'ı': "i", 'ħ': "h", 'Ħ': "H",
	'™': "TM", '©': "(c)", '®': "(R)", '×': "x", '÷': "/", '°': "o", '№': "No",
}

// Transliterate replaces the characters of s that GSM-7 lacks by ones that it has. When one of them cannot be replaced,
// it returns s as it is: the text needs UCS-2 anyway, so replacing the others would save nothing.
func Transliterate(s string) string {
	at := strings.IndexFunc(s, func(r rune) bool { return gsmUnits(r) == 0 })
	if at < 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	b.WriteString(s[:at])
	for _, r := range s[at:] {
		if gsmUnits(r) > 0 {
			b.WriteRune(r)
			continue
		}
		if p, ok := plain[r]; ok {
			b.WriteString(p)
			continue
		}
		letters := 0
		for _, d := range norm.NFKD.String(string(r)) {
			switch {
			case unicode.Is(unicode.Mn, d): // the accent goes, the letter stays
			case gsmUnits(d) > 0:
				b.WriteRune(d)
				letters++
			default:
				return s
			}
		}
		if letters == 0 && !unicode.Is(unicode.Mn, r) {
			return s
		}
	}
	return b.String()
}
