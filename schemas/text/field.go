package text

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// FieldName turns the header of a column, the key of an object or the inside of a placeholder into the name of a merge
// field: letters, digits and the marks that belong to them (composed, NFC) in lower case, and one underscore for each
// run of other characters between them. "First Name", "FIRST_NAME" and "first-name" are first_name. FieldName does not
// change a name that it returned.
func FieldName(header string) string {
	if plainName(header) {
		return header
	}
	var b strings.Builder
	gap := false
	for _, r := range norm.NFC.String(strings.ToValidUTF8(header, " ")) {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && (!unicode.IsMark(r) || b.Len() == 0 || gap) {
			if !unicode.Is(unicode.Cf, r) { // direction marks and joiners are invisible and do not separate words
				gap = b.Len() > 0
			}
			continue
		}
		if gap {
			b.WriteByte('_')
			gap = false
		}
		switch r {
		case 'ς': // the form of σ at the end of a word; in a header in capitals it cannot be distinguished from σ
			r = 'σ'
		case 'İ': // in Unicode its small letter is two characters
			r = 'i'
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return norm.NFC.String(b.String())
}

// plainName reports whether s is already a name in the form of FieldName, as most are.
func plainName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case c == '_' && i > 0 && i < len(s)-1 && s[i-1] != '_':
		default:
			return false
		}
	}
	return true
}

// Shorten returns the first characters of a text, followed by an ellipsis when there are more.
func Shorten(s string, characters int) string {
	n := 0
	for i := range s {
		if n == characters {
			return s[:i] + "…"
		}
		n++
	}
	return s
}
