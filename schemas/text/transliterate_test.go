package text

import (
	"testing"

	"fanfare/schemas"
)

// Smart quotes, dashes and accents are replaced. If a character cannot be replaced, the whole text stays unchanged.
func TestTransliterate(t *testing.T) {
	for in, want := range map[string]string{
		"Ciao":                   "Ciao",
		"perché è già così €5":   "perché è già così €5", // GSM-7 has all of these
		"“L’offerta” – 50 % …":   `"L'offerta" - 50 % ...`,
		"ação ção crème brûlée":  "acao cao crème brulée",
		"Łódź, Dvořák, Ştefan":   "Lodz, Dvorak, Stefan",
		"Привет “you”":           "Привет “you”",
		"party 🎉 “now”":          "party 🎉 “now”",
		"e\u0301te\u0301":        "ete",
		"a\u00a0b\u200bc\ufeffd": "a bcd",
	} {
		got := Transliterate(in)
		if got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
		if got != in && Measure(got).Encoding != schemas.EncodingGSM7 {
			t.Errorf("%q: got %q, which is no GSM-7", in, got)
		}
	}
}

func FuzzTransliterate(f *testing.F) {
	f.Add("“é” – ş")
	f.Fuzz(func(t *testing.T, s string) {
		got := Transliterate(s)
		if got != s && Measure(got).Encoding != schemas.EncodingGSM7 {
			t.Errorf("%q: got %q, which is neither the text nor GSM-7", s, got)
		}
		if again := Transliterate(got); again != got {
			t.Errorf("%q: got %q, then %q", s, got, again)
		}
	})
}
