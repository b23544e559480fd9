package phone

import (
	"errors"
	"strings"
	"testing"
)

// Numbers as spreadsheets, programs and address books write them.
func TestCleanAccepts(t *testing.T) {
	p := newParser(t)
	const want = "+393331230022"
	for _, text := range []string{
		// Excel, pandas, a JSON number
		"393331230022.0", "393331230022.00", "393331230022,0", "+393331230022.0", "3331230022.0",
		"3.93331230022e+11", "3.93331230022E11", "3.93331230022E+11", "3,93331230022E+11", "3.933312300220e+11", "+3.93331230022E+11", "393331230022e0",
		"'+393331230022", `="+393331230022"`, `="393331230022"`, "tel:+39-333-123-0022", "TEL:+393331230022",
		" +39 333 1230022 ", "\t+393331230022\r\n", "+39\u00a0333\u00a01230022", "+39\u2009333\u202f1230022", "\u3000+393331230022",
		"\u202a+393331230022\u202c", "\u200e+393331230022", "\ufeff+393331230022", "\u2066+39 333 1230022\u2069", "+39\u200b333\u200d1230022", "\u061c+393331230022",
		"+39-333-1230022", "+39–333–1230022", "+39 (333) 123.0022", "+39/333/1230022", "＋３９３３３１２３００２２", "+٣٩٣٣٣١٢٣٠٠٢٢", "+३९३३३१२३००२२",
		"+𝟛𝟡𝟛𝟛𝟛𝟙𝟚𝟛𝟘𝟘𝟚𝟚", "+𝟯𝟵𝟯𝟯𝟯𝟭𝟮𝟯𝟬𝟬𝟮𝟮", "333.1230022", "333,1230022", "333-12-30-022", "0039 333 1230022", "(+39) 333 1230022", "+39 333•123•0022",
	} {
		n, err := p.Parse(text, "IT")
		if err != nil || n.E164 != want {
			t.Errorf("%q: got %s, %v, want %s", text, n.E164, err, want)
		}
	}
}

// Text that is not a number is refused, and the error names what is wrong. No character is dropped or read as another.
func TestCleanRefuses(t *testing.T) {
	p := newParser(t)
	for text, want := range map[string]string{
		"+39 333 123005O":          `the letter 'O'`,
		"+39 333 l230022":          `the letter 'l'`,
		"1-800-FLOWERS":            `the letter 'F'`,
		"+393331230022 x12":        `the letter 'x'`,
		"+393331230022 ext. 5":     `the letter 'e'`,
		"+393331230022#5":          `the character '#'`,
		"+393331230022;ext=5":      `the character ';'`,
		"+39333*230022":            `the character '*'`,
		"+39 333 1230022 Anna":     `the letter 'A'`,
		"+393331230022/+393331230": `a + after its first digit`,
		"39+3331230022":            `a + after its first digit`,
		"393331230022.5":           `a fraction, after the '.'`,
		"393331230022,25":          `a fraction, after the ','`,
		"3331230022.123":           `a fraction`,
		"3.933312300225e+11":       `a fraction`,
		"3.93331E+11":              `rounded`,
		"3.9333123002E+11":         `rounded`, // its last digit may be a 0, or may be lost
		"3,9E+11":                  `rounded`,
		"4E11":                     `rounded`,
		"+393331230022E":           `the letter 'E'`,
		"+3933312E300":             `the letter 'E'`,
		"Ⅲ331230022":               `the character 'Ⅲ'`,
		"²3331230022":              `the character '²'`,
		"NaN":                      `the letter 'N'`,
		"\x00+393331230022":        `the character`,
		"":                         `no digits`,
		"   ":                      `no digits`,
		"n/a":                      `the letter 'n'`,
		"1":                        `too few`,
	} {
		n, err := p.Parse(text, "US")
		if !errors.Is(err, ErrNumber) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %+v, %v, want an error with %q", text, n, err, want)
		}
	}
}

// Whatever clean returns is ASCII digits and separators, and cleaning it again changes nothing.
func FuzzClean(f *testing.F) {
	for _, s := range []string{"393331230022.0", "3.93331230022e+11", "\u202a+39\u202c", "＋٣", "'=\"1", "tel:tel:1", "1,0,0", "1e99", "+𝟛"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := clean(s)
		if err != nil {
			if !errors.Is(err, ErrNumber) {
				t.Fatalf("%q: got error %v, want one that wraps ErrNumber", s, err)
			}
			return
		}
		if strings.Trim(got, "0123456789+-./() ") != "" || strings.LastIndexByte(got, '+') > 0 && strings.Trim(got[:strings.LastIndexByte(got, '+')], "-./() ") != "" {
			t.Fatalf("%q: got %q, want digits, separators and one + before them", s, got)
		}
	})
}
