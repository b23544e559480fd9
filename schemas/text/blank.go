package text

import (
	"unicode"
	"unicode/utf8"
)

// Blank reports whether a phone would show nothing for s: every character is a blank or invisible. Such a message costs
// money and has no content for the recipient.
func Blank(s string) bool {
	for _, r := range s {
		if !invisible(r) {
			return false
		}
	}
	return true
}

// BlankBytes is [Blank] for a text that is not a string yet.
func BlankBytes(b []byte) bool {
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if !invisible(r) {
			return false
		}
		b = b[size:]
	}
	return true
}

// invisible reports whether a character shows nothing by itself: blanks, control characters, what Unicode calls format
// characters and default ignorable ones (U+200B and its like, fillers, variation selectors), and two that only look
// blank.
func invisible(r rune) bool {
	switch {
	case r > ' ' && r < 0x7f:
		return false
	case unicode.IsSpace(r), unicode.IsControl(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Variation_Selector, r),
		unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r):
		return true
	}
	return r == '⠀' // BRAILLE PATTERN BLANK, which is a symbol to Unicode
}

// Blank reports whether the text shows nothing for any recipient: it has no field, and is blank.
func (t *Template) Blank() bool {
	for i := range t.parts {
		if !Blank(t.parts[i].text) {
			return false
		}
	}
	return len(t.parts) == 0 && Blank(t.tail)
}

// OnlyFields reports whether the text shows only the values of its fields, so that a recipient without values would get
// an empty message.
func (t *Template) OnlyFields() bool {
	for i := range t.parts {
		if !Blank(t.parts[i].text) {
			return false
		}
	}
	return len(t.parts) > 0 && Blank(t.tail) && len(t.links) == 0 && !t.optOut
}
