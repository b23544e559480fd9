package keyword

import (
	"strings"
	"testing"
	"unicode/utf8"

	"fanfare/schemas"
	"fanfare/schemas/text"
)

// TestRead (X10): a keyword must be the whole message, in any spelling. A sentence with a keyword in it is left for a
// person to read.
func TestRead(t *testing.T) {
	w, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	const none, out, in, look = schemas.ReplyMeaningUnspecified, schemas.ReplyMeaningOptOut, schemas.ReplyMeaningOptIn, schemas.ReplyMeaningReview
	for said, want := range map[string]schemas.ReplyMeaning{
		"STOP": out, " stop. ": out, "“Stop!”": out, "ＳＴＯＰ": out, "S\u200bTOP": out, "stop\x00": out, "Arrêt": out, "ARRÉT": out, "İPTAL": out, "iptal": out, "IPTAL": out,
		"ıptal": out, "Отписаться": out, "إيقاف": out, "ايقاف": out, "Opt-Out": out, "opt   out": out, "BASTA": out, "BAJA": out, "Abmelden!!": out, "STOP 🙏": out,
		"START": in, "unstop": in, "Старт": in,
		"Please stop sending me this": look, "BASTA con questi messaggi": look, "don't text me": look, "dont text me": look, "Wrong number, sorry": look, "لا أريد رسائل": look,
		"": none, "   ": none, "👍": none, "yes": none, "no": none, "ok, when?": none, "nonstop flights?": none, "STO": none, "fine": none, "grazie": none,
		strings.Repeat("a ", 5000) + "stop": none,
	} {
		if got, _ := w.Read(said, "48000"); got != want {
			t.Errorf("%.40q: got %v, want %v", said, got, want)
		}
	}
	if _, got := w.Read("Basta", "+393399900011"); got != "Non riceverai altri messaggi da +393399900011. Rispondi START per riceverli di nuovo." {
		t.Errorf("got confirmation %q", got)
	}
}

// TestLanguages (X10): each of the twelve languages has a stop, a start and a hint, and no confirmation is longer than
// two segments.
func TestLanguages(t *testing.T) {
	w, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]map[schemas.ReplyMeaning]bool{}
	err = rows(keywordFile, func(f found, _ string) error {
		if have[f.language] == nil {
			have[f.language] = map[schemas.ReplyMeaning]bool{}
		}
		have[f.language][f.meaning] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(have) != 12 {
		t.Errorf("got %d languages, want 12", len(have))
	}
	for language, m := range have {
		if len(m) != 3 {
			t.Errorf("%s: got meanings %v, want stop, start and hint", language, m)
		}
	}
	for f, said := range w.confirmations {
		if n := text.Measure(strings.ReplaceAll(said, "{sender}", "+393399900011")).Segments; n > 2 {
			t.Errorf("%s: the confirmation takes %d segments", f.language, n)
		}
	}
}

// FuzzRead: Read does not panic on any text, returns the same result twice, and is quick.
func FuzzRead(f *testing.F) {
	w, err := Open()
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"STOP", "Arrêt", "\xff\xfe", "ｓｔｏｐ", "إيقاف", strings.Repeat("\u0301", 100)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n := Normalise(s)
		if !utf8.ValidString(n) || Normalise(n) != n {
			t.Errorf("%q: got %q, and %q of it", s, n, Normalise(n))
		}
		one, _ := w.Read(s, "48000")
		if two, _ := w.Read(n, "48000"); one != two {
			t.Errorf("%q: got %v, and %v after normalisation", s, one, two)
		}
	})
}
