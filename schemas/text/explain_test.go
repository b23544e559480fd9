package text_test

import (
	"fmt"
	"strings"
	"testing"

	"fanfare/schemas"
	"fanfare/schemas/text"
)

func TestBlank(t *testing.T) {
	for _, s := range []string{"", " ", "\t\r\n", "\u00a0", "\u2009\u3000", "\u200b", "\u200b \ufeff", "\u2060\u200d", "\u3164", "\u115f\u1160", "\u2800", "\ufe0f", "\u180e", "\u00ad", "\x00\x1f", "\u202e"} {
		if !text.Blank(s) || !text.BlankBytes([]byte(s)) {
			t.Errorf("%q: got not blank", s)
		}
	}
	for _, s := range []string{"a", " . ", "\u200ba", "€", "😀", "न", "0", "\ufffd", "ㅤx"} {
		if text.Blank(s) || text.BlankBytes([]byte(s)) {
			t.Errorf("%q: got blank", s)
		}
	}
	for in, want := range map[string][2]bool{ // blank, only fields
		"": {true, false}, " \u200b ": {true, false}, "{{a}}": {false, true}, " {{a}}\n{{b}} ": {false, true}, "{{a}}!": {false, false}, "x{{a}}": {false, false}, "x": {false, false},
	} {
		tmpl, err := text.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := [2]bool{tmpl.Blank(), tmpl.OnlyFields()}; got != want {
			t.Errorf("%q: got %v, want %v", in, got, want)
		}
	}
}

func ExampleExplain() {
	c, _ := text.Explain("Ciao Zoë, il tuo ordine è pronto: puoi ritirarlo in negozio da domani mattina alle 9")
	fmt.Println(c)
	c, _ = text.Explain(strings.Repeat("x", 159) + "€")
	fmt.Println(c)
	// Output:
	// 'ë' (U+00EB) (character 8) is not in GSM-7: the text is sent as UCS-2 and takes 2 segments; without it it would be GSM-7 and take 1 segment.
	// '€' (U+20AC) (character 160) takes two places in GSM-7: the text takes 2 segments; without it it would take 1 segment.
}

// C14: Explain names the character that makes a text longer, its place, and what it costs.
func TestExplain(t *testing.T) {
	for _, c := range []struct {
		text          string
		characters    string
		first, count  int
		with, without text.Size
	}{
		{"Zoë", "ë", 3, 1, text.Size{Encoding: schemas.EncodingUCS2, Units: 3, Segments: 1}, text.Size{Encoding: schemas.EncodingGSM7, Units: 3, Segments: 1}},
		{"it’s “fine”", "’“”", 3, 3, text.Size{Encoding: schemas.EncodingUCS2, Units: 11, Segments: 1}, text.Size{Encoding: schemas.EncodingGSM7, Units: 11, Segments: 1}},
		{"a\u00a0b", "\u00a0", 2, 1, text.Size{Encoding: schemas.EncodingUCS2, Units: 3, Segments: 1}, text.Size{Encoding: schemas.EncodingGSM7, Units: 3, Segments: 1}},
		{"Grazie 😀 mille", "😀", 8, 1, text.Size{Encoding: schemas.EncodingUCS2, Units: 15, Segments: 1}, text.Size{Encoding: schemas.EncodingGSM7, Units: 14, Segments: 1}},
		{strings.Repeat("x", 150) + "[]{}~^", "[]{}~", 151, 6, text.Size{Encoding: schemas.EncodingGSM7, Units: 162, Segments: 2}, text.Size{Encoding: schemas.EncodingGSM7, Units: 156, Segments: 1}},
	} {
		got, ok := text.Explain(c.text)
		if !ok || string(got.Characters) != c.characters || got.First != c.first || got.Count != c.count || got.With != c.with || got.Without != c.without {
			t.Errorf("%q: got %+v, %v, want %q first at %d, %d in all, %+v and %+v", c.text, got, ok, c.characters, c.first, c.count, c.with, c.without)
		}
		if s := got.String(); strings.Contains(s, "\u00a0") || !strings.Contains(s, fmt.Sprintf("%d segment", c.with.Segments)) {
			t.Errorf("%q: got %q", c.text, s)
		}
	}
	for _, s := range []string{"", "plain", "10 €", "Привет, как дела?", "你好", "हैलो Anna"} { // nothing to save
		if got, ok := text.Explain(s); ok {
			t.Errorf("%q: got %v, want nothing", s, got)
		}
	}
}

// For a text with fields, the position is the one in the text as written, and only the encoding is known.
func TestExplainTemplate(t *testing.T) {
	for in, want := range map[string]string{
		"Ciao {{ first_name }}, torna da Zoë": `'ë' (U+00EB) (character 35) is not in GSM-7: every text is sent as UCS-2, in which a segment holds 70 characters instead of 160.`,
		"Ciao {{first_name}}, 10 € di sconto": "",
		"{{ë}}":                               "",
		"Zoë":                                 `'ë' (U+00EB) (character 3) is not in GSM-7: the text is sent as UCS-2 and takes 1 segment; without it it would be GSM-7 and take 1 segment.`,
	} {
		tmpl, err := text.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if c, ok := tmpl.Explain(); ok {
			got = c.String()
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
