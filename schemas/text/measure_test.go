package text_test

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"pgregory.net/rapid"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/text"
)

const (
	gsm7 = schemas.EncodingGSM7
	ucs2 = schemas.EncodingUCS2
)

func ExampleMeasure() {
	for _, s := range []string{"Ciao!", "Costa 5 €", "Ciao 😀", strings.Repeat("a", 161)} {
		size := text.Measure(s)
		fmt.Println(size.Encoding, size.Units, size.Segments)
	}
	// Output:
	// ENCODING_GSM7 5 1
	// ENCODING_GSM7 10 1
	// ENCODING_UCS2 7 1
	// ENCODING_GSM7 161 2
}

func TestMeasure(t *testing.T) {
	rep := strings.Repeat
	for _, tc := range []struct {
		name, in string
		want     text.Size
	}{
		{"empty", "", text.Size{Encoding: gsm7, Units: 0, Segments: 1}},
		{"form feed is of the extension table", "\f", text.Size{Encoding: gsm7, Units: 2, Segments: 1}},
		{"the escape is no character", "\x1b", text.Size{Encoding: ucs2, Units: 1, Segments: 1}},
		{"small c with cedilla is not in GSM-7, the capital is", "ç", text.Size{Encoding: ucs2, Units: 1, Segments: 1}},
		{"a Greek capital that looks Latin is not", "Α", text.Size{Encoding: ucs2, Units: 1, Segments: 1}},
		{"160 fit", rep("a", 160), text.Size{Encoding: gsm7, Units: 160, Segments: 1}},
		{"161 do not", rep("a", 161), text.Size{Encoding: gsm7, Units: 161, Segments: 2}},
		{"two of 153", rep("a", 306), text.Size{Encoding: gsm7, Units: 306, Segments: 2}},
		{"one more", rep("a", 307), text.Size{Encoding: gsm7, Units: 307, Segments: 3}},
		{"80 euro signs fit", rep("€", 80), text.Size{Encoding: gsm7, Units: 160, Segments: 1}},
		// 306 units would fit into two, but a pair on each border leaves a septet empty: 76 pairs to a segment.
		{"a pair is not cut by a border", rep("€", 153), text.Size{Encoding: gsm7, Units: 306, Segments: 3}},
		{"70 fit", rep("ж", 70), text.Size{Encoding: ucs2, Units: 70, Segments: 1}},
		{"71 do not", rep("ж", 71), text.Size{Encoding: ucs2, Units: 71, Segments: 2}},
		{"two of 67", rep("ж", 134), text.Size{Encoding: ucs2, Units: 134, Segments: 2}},
		{"surrogates are not cut by a border", rep("😀", 67), text.Size{Encoding: ucs2, Units: 134, Segments: 3}},
		{"one such character makes all of it UCS-2", rep("a", 70) + "ж", text.Size{Encoding: ucs2, Units: 71, Segments: 2}},
		{"not UTF-8", "a\xffb", text.Size{Encoding: ucs2, Units: 3, Segments: 1}},
	} {
		if got := text.Measure(tc.in); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
		if got := text.MeasureBytes([]byte(tc.in)); got != tc.want {
			t.Errorf("%s, as bytes: got %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

//go:embed testdata/segments.tsv
var corpus string

// TestMeasureCorpus compares our results with those of two other programs for the same texts; the file says how it was
// made.
func TestMeasureCorpus(t *testing.T) {
	var cases int
	for n, line := range strings.Split(strings.TrimSpace(corpus), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.SplitN(line, "\t", 4)
		var s string
		if len(f) != 4 || json.Unmarshal([]byte(f[3]), &s) != nil {
			t.Fatalf("line %d does not read: %q", n+1, line)
		}
		units, err := strconv.Atoi(f[1])
		if err != nil {
			t.Fatal(err)
		}
		segments, err := strconv.Atoi(f[2])
		if err != nil {
			t.Fatal(err)
		}
		want := text.Size{Encoding: schemas.Encoding(fanfarev1.Encoding_value["ENCODING_"+f[0]]), Units: units, Segments: segments}
		if got := text.Measure(s); got != want {
			t.Errorf("line %d: %q: got %+v, want %+v", n+1, s, got, want)
		}
		cases++
	}
	if cases < 800 {
		t.Errorf("got %d cases, want the whole corpus", cases)
	}
}

var chars = rapid.SampledFrom([]rune("abcdefg 0123@£èàΔΩ§¿\n€[]{}~^|\\\fëжç中😀🎉𝒳"))

// TestMeasureProperties checks properties that every text has, independent of the tables.
func TestMeasureProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOfN(chars, 0, 700).Draw(t, "text"))
		checkSize(t, s)
		more := s + string(chars.Draw(t, "one more"))
		a, b := text.Measure(s), text.Measure(more)
		if a.Encoding == b.Encoding && (b.Units <= a.Units || b.Segments < a.Segments || b.Segments > a.Segments+1) {
			t.Fatalf("one more character: got %+v after %+v", b, a)
		}
		if a.Encoding == ucs2 && b.Encoding == gsm7 {
			t.Fatalf("one more character made it GSM-7: %q", more)
		}
	})
}

// FuzzMeasure: the size of any text is within the bounds, and no text makes Measure fail.
func FuzzMeasure(f *testing.F) {
	for _, s := range []string{"", "a", "€", "😀", "\xff\xfe", strings.Repeat("[", 200), strings.Repeat("😀", 80)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { checkSize(t, s) })
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// checkSize tests the size of s against a slow, plain reading of the rules.
func checkSize(t failer, s string) {
	t.Helper()
	got := text.Measure(s)
	const (
		basic = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
		extra = "\f^{}\\[~]|€"
	)
	want := text.Size{Encoding: gsm7}
	widths := []int{}
	for _, r := range s {
		switch {
		case strings.ContainsRune(extra, r):
			widths = append(widths, 2)
		case strings.ContainsRune(basic, r) && r != '\uFFFD':
			widths = append(widths, 1)
		default:
			want.Encoding = ucs2
		}
	}
	single, concat := 160, 153
	if want.Encoding == ucs2 {
		single, concat, widths = 70, 67, nil
		for _, r := range s {
			widths = append(widths, len(utf16.Encode([]rune{r})))
		}
	}
	want.Segments = 1
	used := 0
	for _, w := range widths {
		want.Units += w
		if used += w; used > concat {
			want.Segments++
			used = w
		}
	}
	if want.Units <= single {
		want.Segments = 1
	}
	if got != want {
		t.Fatalf("%q: got %+v, want %+v", s, got, want)
	}
}

// sample has 83 characters, as most campaigns' texts do.
const sample = "Ciao Maria, la tua consegna arriva domani tra le 9 e le 12. Info: https://f.co/aB3d"

func BenchmarkMeasure(b *testing.B) {
	for _, tc := range []struct{ name, s string }{
		{"gsm", sample},
		{"accents", strings.ReplaceAll(sample, "a", "à")},
		{"ucs2", sample[:82] + "ж"},
		{"pairs across borders", strings.Repeat("€", 153)},
	} {
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if text.Measure(tc.s).Segments == 0 {
					b.Fatal("no segment")
				}
			}
		})
	}
}

func TestMeasureDoesNotAllocate(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { text.Measure(sample + "") }); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}
