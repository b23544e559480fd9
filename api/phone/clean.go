package phone

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrNumber is wrapped by every error about a text that is not a phone number.
var ErrNumber = errors.New("not a phone number")

// errRounded is the error of a number in scientific notation that has lost digits.
var errRounded = fmt.Errorf("%w: a spreadsheet has rounded it: format the column as text and export it again", ErrNumber)

// separators maps the punctuation that people write between digits to the ASCII characters that plain knows. clean
// handles blanks of every kind.
var separators = map[rune]byte{
	'-': '-', '.': '.', '/': '/', '(': '(', ')': ')', '+': '+', '[': '(', ']': ')', '~': '-', '·': '.', '•': '.', ',': ',', '_': '-',
	'＋': '+', '．': '.', '，': ',', '／': '/', '（': '(', '）': ')', '［': '(', '］': ')', '〜': '-', '⁓': '-', '∼': '-', '～': '-',
	'‐': '-', '‑': '-', '‒': '-', '–': '-', '—': '-', '―': '-', '−': '-', 'ー': '-', '－': '-',
}

// clean converts a number as people and programs write it to ASCII digits, separators and at most one leading plus. It
// refuses letters and other characters, and its error names them: "123005O" is not 123005, and an extension is not a
// part of a mobile number.
//
//   - Blanks of every kind become ordinary blanks; invisible characters (direction marks, joiners, byte order marks)
//     are removed.
//   - Digits of other scripts become 0 to 9.
//   - 'number and ="number", by which a spreadsheet stores a number as text, and tel:number (RFC 3966) become the
//     number.
//   - A whole number that a program wrote as a floating-point number (393331230022.0, 3.93331230022e+11) is that
//     number. One with a fraction, or with fewer digits than its exponent says, is refused.
func clean(text string) (string, error) {
	if len(text) > maxText {
		return "", fmt.Errorf("%w: it has more than %d characters", ErrNumber, maxText)
	}
	text = visible(text)
	text = strings.TrimPrefix(text, "'")
	if formula, ok := strings.CutPrefix(text, `="`); ok {
		text = strings.TrimSuffix(formula, `"`)
	}
	if len(text) > 4 && strings.EqualFold(text[:4], "tel:") {
		text = text[4:]
	}
	text, err := whole(strings.TrimSpace(text))
	if err != nil {
		return "", err
	}
	for i := 0; i < len(text); i++ { // nearly all numbers are plain ASCII and need no further work
		if c := text[i]; (c < '0' || c > '9') && (c != '+' || i > 0) {
			return punctuated(text)
		}
	}
	return text, nil
}

// maxText is the longest text that clean accepts. No notation of a phone number has so many characters.
const maxText = 250

// visible replaces blanks of every kind by ordinary ones and removes invisible characters.
func visible(text string) string {
	for i := range len(text) {
		if c := text[i]; c >= utf8.RuneSelf || c < ' ' {
			return strings.Map(func(r rune) rune {
				switch {
				case unicode.Is(unicode.Cf, r): // direction marks, joiners, soft hyphens, byte order marks
					return -1
				case unicode.IsSpace(r), r == 'ㅤ', r == '⠀':
					// These two look like blanks, but Unicode does not classify them as blanks
					return ' '
				}
				return r
			}, text)
		}
	}
	return text
}

// punctuated converts digits and separators to ASCII. Its error names the first character that is neither.
func punctuated(text string) (string, error) {
	var b strings.Builder
	b.Grow(len(text))
	digits := 0
	for _, r := range text {
		switch {
		case r >= '0' && r <= '9':
			b.WriteByte(byte(r))
			digits++
		case r == ' ':
			b.WriteByte(' ')
		case separators[r] == '+' && digits > 0:
			return "", fmt.Errorf("%w: it has a + after its first digit", ErrNumber)
		case separators[r] == ',':
			b.WriteByte('-')
		case separators[r] != 0:
			b.WriteByte(separators[r])
		case unicode.IsDigit(r):
			b.WriteByte('0' + digitValue(r))
			digits++
		case unicode.IsLetter(r):
			return "", fmt.Errorf("%w: it has the letter %q", ErrNumber, r)
		default:
			return "", fmt.Errorf("%w: it has the character %q", ErrNumber, r)
		}
	}
	return b.String(), nil
}

// digitValue returns the value of a decimal digit of any script. Unicode keeps the ten digits of a script together and
// in order; only the mathematical ones follow each other without a gap.
func digitValue(r rune) byte {
	const first, last = 0x1D7CE, 0x1D7FF
	if r >= first && r <= last {
		return byte((r - first) % 10)
	}
	zero := r
	for r-zero < 9 && unicode.IsDigit(zero-1) {
		zero--
	}
	return byte(r - zero)
}

// whole converts the notation of programs that took a phone number for a quantity: 393331230022.0, 393331230022,00 and
// 3.93331230022e+11 become 393331230022.
func whole(text string) (string, error) {
	mantissa, exponent := text, 0
	if at := strings.IndexAny(text, "eE"); at > 0 {
		power, ok := smallNumber(strings.TrimPrefix(text[at+1:], "+"))
		if !ok {
			return text, nil // punctuated refuses the letter later
		}
		mantissa, exponent = text[:at], power
	}
	sign := ""
	if strings.HasPrefix(mantissa, "+") {
		sign, mantissa = "+", mantissa[1:]
	}
	before, after, point := cutPoint(mantissa)
	if !plainDigits(before) || point && !plainDigits(after) {
		return text, nil
	}
	switch {
	case mantissa == text[len(sign):]: // no exponent
		if !point || !decimal(before, after) {
			return text, nil
		}
	case exponent > len(after):
		return "", errRounded
	}
	if strings.Trim(after[exponent:], "0") != "" {
		return "", fmt.Errorf("%w: it has a fraction, after the %q", ErrNumber, rune(mantissa[len(before)]))
	}
	return sign + before + after[:exponent], nil
}

// decimal tells a decimal point from a separator between groups of digits, when there is nothing else between them:
// 333.1234567 is two groups, and 393331230022.5 is a number with a fraction. People do not write a separator after ten
// digits in a row, nor separate the last one or two digits from seven others; and a last group with only zeros is not a
// subscriber number.
func decimal(before, after string) bool {
	zeros := strings.Trim(after, "0") == ""
	return len(before) >= 10 || len(before) >= 7 && (zeros || len(after) <= 2)
}

// cutPoint cuts around the only point or comma of a number.
func cutPoint(s string) (before, after string, found bool) {
	at := strings.IndexAny(s, ".,")
	if at < 0 {
		return s, "", false
	}
	return s[:at], s[at+1:], true
}

func plainDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// smallNumber parses an exponent. The exponent of a phone number has at most two digits.
func smallNumber(s string) (n int, ok bool) {
	if len(s) > 2 || !plainDigits(s) {
		return 0, false
	}
	for _, c := range []byte(s) {
		n = n*10 + int(c-'0')
	}
	return n, true
}
