package text_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"fanfare/schemas"
	"fanfare/schemas/text"
)

// TestGSM7Table holds the table against the standard at the places where tables go wrong (3GPP TS 23.038 §6.2.1).
func TestGSM7Table(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"@", "\x00"},
		{"$", "\x02"},
		{"\n", "\x0a"},
		{"\r", "\x0d"},
		{"Δ", "\x10"},
		{"_", "\x11"},
		{"Ξ", "\x1a"},
		{"Æ", "\x1c"},
		{"É", "\x1f"},
		{" ", " "},
		{"¤", "$"},
		{"¡", "@"},
		{"§", "_"},
		{"¿", "`"},
		{"à", "\x7f"},
		{"ü", "~"},
		{"Az", "Az"},
		{"\f", "\x1b\x0a"},
		{"^", "\x1b\x14"},
		{"{", "\x1b("},
		{"}", "\x1b)"},
		{"\\", "\x1b/"},
		{"[", "\x1b<"},
		{"~", "\x1b="},
		{"]", "\x1b>"},
		{"|", "\x1b@"},
		{"€", "\x1be"},
	} {
		got, ok := text.AppendGSM7(nil, tc.in)
		if !ok || string(got) != tc.want {
			t.Errorf("%q: got %q, %v, want %q", tc.in, got, ok, tc.want)
		}
		if back := text.AppendFromGSM7(nil, tc.want); string(back) != tc.in {
			t.Errorf("%q: got %q back, want %q", tc.want, back, tc.in)
		}
	}
	for _, s := range []string{"ç", "`", "\x1b", "a\xff", "Α", "😀"} {
		if got, ok := text.AppendGSM7([]byte("kept"), s); ok || string(got) != "kept" {
			t.Errorf("%q: got %q, %v, want what was there, and false", s, got, ok)
		}
	}
	// Input that no table has: an unknown extension, an escape at the end, an octet with its top bit set.
	for in, want := range map[string]string{"\x1bA": " A", "a\x1b": "a ", "\x1b\x1b": "  ", "\xc1": "A"} {
		if got := text.AppendFromGSM7(nil, in); string(got) != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// TestPackedSamples checks samples whose packed form other programs agree on.
func TestPackedSamples(t *testing.T) {
	for _, tc := range []struct {
		in, want string
		fill     int
	}{
		{"", "", 0},
		{"hello", "\xe8\x32\x9b\xfd\x06", 0},
		{"hellohello", "\xe8\x32\x9b\xfd\x46\x97\xd9\xec\x37", 0},
		{"a", "\xc2", 1},
	} {
		if got := text.AppendPacked(nil, []byte(tc.in), tc.fill); string(got) != tc.want {
			t.Errorf("%q: got %x, want %x", tc.in, got, tc.want)
		}
	}
	// Seven octets hold eight septets, or seven and padding that looks like an @: only the number of septets
	// distinguishes them.
	packed := string(text.AppendPacked(nil, []byte("1234567"), 0))
	if got := text.AppendUnpacked(nil, packed, 0, -1); string(got) != "1234567" {
		t.Errorf("got %q, want the rest left out", got)
	}
	if got := text.AppendUnpacked(nil, packed, 0, 8); string(got) != "1234567\x00" {
		t.Errorf("got %q, want eight septets", got)
	}
}

// TestPackedRoundTrip: unpacking gives the packed septets again, with any number of fill bits.
func TestPackedRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		septets := rapid.SliceOf(rapid.ByteRange(0, 127)).Draw(t, "septets")
		fill := rapid.IntRange(0, 6).Draw(t, "fill")
		packed := text.AppendPacked(nil, septets, fill)
		if want := (fill + 7*len(septets) + 7) / 8; len(septets) > 0 && len(packed) != want {
			t.Fatalf("got %d octets, want %d", len(packed), want)
		}
		if got := text.AppendUnpacked(nil, string(packed), fill, len(septets)); string(got) != string(septets) {
			t.Fatalf("got %x, want %x", got, septets)
		}
	})
}

// TestCutAgreesWithMeasure: Cut makes as many pieces as Measure counts (and as are billed), each fits into a segment,
// and together they are the text.
func TestCutAgreesWithMeasure(t *testing.T) {
	alphabets := []string{"abcdefgh €[]{}~^|\\\n", "abc€", "àèìòù ABC", "жabc😀", "😀"}
	rapid.Check(t, func(t *rapid.T) {
		letters := []rune(rapid.SampledFrom(alphabets).Draw(t, "alphabet"))
		s := string(rapid.SliceOfN(rapid.SampledFrom(letters), 0, 800).Draw(t, "text"))
		size := text.Measure(s)
		limit, concat := text.GSMSingle, text.GSMConcat
		if size.Encoding == schemas.EncodingUCS2 {
			limit, concat = text.UCS2Single, text.UCS2Concat
		}
		if size.Segments > 1 {
			limit = concat
		}
		var whole strings.Builder
		pieces := 0
		for head, tail := text.Cut(s, size.Encoding, limit); ; head, tail = text.Cut(tail, size.Encoding, limit) {
			pieces++
			whole.WriteString(head)
			var units int
			if size.Encoding == schemas.EncodingGSM7 {
				b, ok := text.AppendGSM7(nil, head)
				if !ok {
					t.Fatalf("%q was counted as GSM-7", head)
				}
				units = len(b)
			} else {
				units = len(text.AppendUCS2(nil, head)) / 2
			}
			if units > limit {
				t.Fatalf("piece %d has %d units, at most %d fit", pieces, units, limit)
			}
			if tail == "" {
				break
			}
		}
		if pieces != size.Segments || whole.String() != s {
			t.Fatalf("got %d pieces, %q, want %d, %q", pieces, whole.String(), size.Segments, s)
		}
	})
}

func TestUCS2(t *testing.T) {
	for in, want := range map[string]string{"": "", "aж": "\x00a\x04\x36", "😀": "\xd8\x3d\xde\x00"} {
		if got := string(text.AppendUCS2(nil, in)); got != want {
			t.Errorf("%q: got %x, want %x", in, got, want)
		}
		if got := string(text.AppendFromUCS2(nil, want)); got != in {
			t.Errorf("%x: got %q, want %q", want, got, in)
		}
	}
	for in, want := range map[string]string{"\xd8\x3d": "\uFFFD", "\xd8\x3d\x00a": "\uFFFDa", "\xde\x00\xd8\x3d": "\uFFFD\uFFFD", "\x00a\x00": "a\uFFFD"} {
		if got := string(text.AppendFromUCS2(nil, in)); got != want {
			t.Errorf("%x: got %q, want %q", in, got, want)
		}
	}
	if got, want := string(text.AppendUCS2(nil, "a\xff")), "\x00a\xff\xfd"; got != want {
		t.Errorf("not UTF-8: got %x, want %x", got, want)
	}
}

// FuzzAlphabets: any input is decoded to its end, and a GSM-7 text is the same after encoding and decoding.
func FuzzAlphabets(f *testing.F) {
	for _, s := range []string{"hello", "€5 [a]", "\x1b", "\x1b\x65", "\xd8\x3d\xde\x00", "\xff", "caffè"} {
		f.Add(s, 0)
	}
	f.Fuzz(func(t *testing.T, s string, fill int) {
		fill = int(uint(fill) % 7)
		text.AppendFromUCS2(nil, s)
		text.AppendFromGSM7(nil, string(text.AppendUnpacked(nil, s, fill, -1)))
		if septets, ok := text.AppendGSM7(nil, s); ok {
			if got := string(text.AppendFromGSM7(nil, string(septets))); got != s {
				t.Fatalf("got %q, want %q", got, s)
			}
		}
	})
}
