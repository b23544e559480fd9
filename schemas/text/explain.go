package text

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"fanfare/schemas"
)

// Costly are the characters that make a text cost more than it would without them.
type Costly struct {
	// Characters are the distinct ones, at most [maxCostly], in order of appearance; First is where the first of them
	// stands, 1 for the first character of the text; Count is how many there are in all.
	Characters []rune
	First      int
	Count      int
	// With is the size of the text, and Without its size with a plain letter in place of each of these characters.
	With, Without Size
	// Fields is true if the text has merge fields, so that only the encodings of the two sizes are known.
	Fields bool
}

// maxCostly is how many characters are named: a text in another script has hundreds, and a few of them explain as much.
const maxCostly = 5

// Explain returns the characters that make s cost more than necessary: characters that GSM-7 does not have, which turn
// the whole text into UCS-2; else characters that take two septets, when they add a segment. ok is false when nothing
// does, or when most of the text is in a script that GSM-7 does not have: then there is nothing to save.
func Explain(s string) (c Costly, ok bool) {
	c.With = Measure(s)
	costly := func(r rune) bool { return gsmUnits(r) == 2 }
	if c.With.Encoding == schemas.EncodingUCS2 {
		costly = func(r rune) bool { return gsmUnits(r) == 0 }
	}
	var plain strings.Builder
	at, letters := 0, 0
	for _, r := range s {
		at++
		if !costly(r) {
			if !invisible(r) {
				letters++
			}
			plain.WriteRune(r)
			continue
		}
		plain.WriteByte('x')
		c.Count++
		if c.First == 0 {
			c.First = at
		}
		if len(c.Characters) < maxCostly && !strings.ContainsRune(string(c.Characters), r) {
			c.Characters = append(c.Characters, r)
		}
	}
	if c.Count == 0 || c.With.Encoding == schemas.EncodingUCS2 && 2*c.Count > letters {
		return Costly{}, false
	}
	c.Without = Measure(plain.String())
	if c.Without.Encoding == c.With.Encoding && c.Without.Segments == c.With.Segments {
		return Costly{}, false
	}
	return c, true
}

// Explain is [Explain] of the text that the template was made from. The values of its fields are not known, so it names
// only characters of the text itself that require UCS-2.
func (t *Template) Explain() (c Costly, ok bool) {
	if len(t.parts) == 0 {
		return Explain(t.tail)
	}
	var b strings.Builder
	for i := range t.parts {
		p := &t.parts[i]
		b.WriteString(p.text)
		b.WriteString(strings.Repeat("x", p.written)) // keeps the positions of the characters that follow
	}
	b.WriteString(t.tail)
	c, ok = Explain(b.String())
	c.Fields = true
	return c, ok && c.With.Encoding != c.Without.Encoding
}

// String returns the explanation as a sentence.
func (c Costly) String() string {
	var b strings.Builder
	for i, r := range c.Characters {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(describe(r))
	}
	if more := c.Count - len(c.Characters); more > 0 && len(c.Characters) == maxCostly {
		b.WriteString(" and others")
	}
	is, it := "is", "it"
	if c.Count > 1 {
		is, it = "are", "them"
	}
	where := fmt.Sprintf("character %d", c.First)
	if c.Count > 1 {
		where = fmt.Sprintf("first at character %d, %d in all", c.First, c.Count)
	}
	why := "takes two places in GSM-7"
	if c.With.Encoding == schemas.EncodingUCS2 {
		why = "not in GSM-7"
		if c.Fields {
			return fmt.Sprintf("%s (%s) %s %s: every text is sent as UCS-2, in which a segment holds %d characters instead of %d.",
				b.String(), where, is, why, UCS2Single, GSMSingle)
		}
		return fmt.Sprintf("%s (%s) %s %s: the text is sent as UCS-2 and takes %s; without %s it would be GSM-7 and take %s.",
			b.String(), where, is, why, segmentsText(c.With), it, segmentsText(c.Without))
	}
	if c.Count > 1 {
		why = "take two places in GSM-7"
	}
	return fmt.Sprintf("%s (%s) %s: the text takes %s; without %s it would take %s.",
		b.String(), where, why, segmentsText(c.With), it, segmentsText(c.Without))
}

func segmentsText(s Size) string {
	if s.Segments == 1 {
		return "1 segment"
	}
	return fmt.Sprintf("%d segments", s.Segments)
}

// describe names a character so that a person can find it: by the character itself if it is visible, and by its code
// point.
func describe(r rune) string {
	if invisible(r) || !utf8.ValidRune(r) || r == utf8.RuneError {
		return fmt.Sprintf("U+%04X", r)
	}
	return fmt.Sprintf("%q (U+%04X)", r, r)
}
