package sms_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"fanfare/schemas"
	"fanfare/schemas/text"
	"fanfare/sinks/carrier/smpp/pdu"
	"fanfare/sinks/carrier/smpp/sms"
)

// message returns a part as a unit.
func message(t interface{ Fatal(...any) }, p sms.Part, o sms.Options) pdu.Message {
	m := pdu.Message{Coding: p.Coding}
	if p.UDHI {
		m.ESMClass = pdu.ESMUDHI
	}
	var tlvs []byte
	add := func(tag pdu.Tag, v string) {
		var err error
		if tlvs, err = pdu.AppendTLV(tlvs, tag, v); err != nil {
			t.Fatal(err)
		}
	}
	if o.Long == sms.SAR && p.Total > 1 {
		add(pdu.TagSARRef, string([]byte{byte(p.Ref >> 8), byte(p.Ref)}))
		add(pdu.TagSARTotal, string([]byte{byte(p.Total)}))
		add(pdu.TagSARPart, string([]byte{byte(p.Number)}))
	}
	if len(p.Octets) > 254 {
		add(pdu.TagPayload, string(p.Octets))
	} else {
		m.Short = string(p.Octets)
	}
	m.TLVs = pdu.TLVs(tlvs)
	return m
}

// TestRoundTrip: with any options of the account, a decoded text equals the original, has as many parts as were
// counted, and no part is larger than the 140 octets of a handset.
func TestRoundTrip(t *testing.T) {
	alphabets := []string{"abcdefgh €[]{}~^|\\\n@", "abc", "àèìòù ABC £", "жabc😀", "😀", "ëabc"}
	rapid.Check(t, func(t *rapid.T) {
		letters := []rune(rapid.SampledFrom(alphabets).Draw(t, "letters"))
		s := string(rapid.SliceOfN(rapid.SampledFrom(letters), 0, 700).Draw(t, "text"))
		o := sms.Options{
			Alphabet: rapid.SampledFrom([]sms.Alphabet{sms.GSM7, sms.GSM7Packed, sms.Latin1}).Draw(t, "alphabet"), UCS2: pdu.CodingUCS2,
			Long: rapid.SampledFrom([]sms.Long{sms.UDH8, sms.UDH16, sms.SAR, sms.Payload}).Draw(t, "long"),
		}
		size := text.Measure(s)
		parts, err := sms.NewEncoder(o).Encode(s, size.Encoding, 0xABCD)
		if err != nil {
			t.Fatal(err)
		}
		switch want := size.Segments; {
		case o.Long == sms.Payload && len(parts) != 1:
			t.Fatalf("got %d parts, want the whole text in one", len(parts))
		case o.Long == sms.UDH16 && len(parts) != want && len(parts) != want+1 && len(parts) != want+2,
			(o.Long == sms.UDH8 || o.Long == sms.SAR) && o.Alphabet != sms.Latin1 && len(parts) != want:
			t.Fatalf("got %d parts, %d were counted", len(parts), want)
		}
		var whole strings.Builder
		for i, p := range parts {
			if o.Long != sms.Payload && !fits(p, o) {
				t.Fatalf("part %d has %d octets of coding %d", i, len(p.Octets), p.Coding)
			}
			m := message(t, p, o)
			got, c, binary := sms.Decode(&m, o.Alphabet)
			if binary {
				t.Fatal("a text was read as binary")
			}
			want := sms.Concat{}
			if len(parts) > 1 {
				want = sms.Concat{Ref: 0xABCD, Number: i + 1, Total: len(parts)}
				if o.Long == sms.UDH8 {
					want.Ref = 0xCD
				}
			}
			if c != want {
				t.Fatalf("part %d: got %+v, want %+v", i, c, want)
			}
			whole.WriteString(got)
		}
		got, want := whole.String(), s
		if o.Alphabet == sms.GSM7Packed { // nothing tells an @ that fills the last octet of a part from padding
			got, want = strings.ReplaceAll(got, "@", ""), strings.ReplaceAll(want, "@", "")
		}
		if got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}

// fits reports whether a handset accepts a part: at most 140 octets of user data, where eight unpacked septets count as
// seven octets.
func fits(p sms.Part, o sms.Options) bool {
	header := 0
	if p.UDHI {
		header = int(p.Octets[0]) + 1
	} else if p.Total > 1 {
		header = 6 // the message centre adds this header
	}
	body := len(p.Octets)
	if p.UDHI {
		body -= header
	}
	switch {
	case p.Coding == pdu.CodingUCS2, o.Alphabet == sms.GSM7Packed:
		return header+body <= 140
	default: // septets; the message centre converts Latin-1 to septets
		return (header*8+6)/7+body <= 160
	}
}

func TestEncodeRefuses(t *testing.T) {
	e := sms.NewEncoder(sms.Options{UCS2: pdu.CodingUCS2})
	if _, err := e.Encode("😀", schemas.EncodingGSM7, 1); !errors.Is(err, sms.ErrText) {
		t.Errorf("what was counted as GSM-7 and is not: got %v", err)
	}
	if _, err := e.Encode(strings.Repeat("a", 153*255+1), schemas.EncodingGSM7, 1); !errors.Is(err, sms.ErrTooLong) {
		t.Errorf("256 parts: got %v", err)
	}
	if parts, err := e.Encode(strings.Repeat("a", 153*255), schemas.EncodingGSM7, 1); err != nil || len(parts) != 255 {
		t.Errorf("255 parts: got %d, %v", len(parts), err)
	}
}

// TestPackedEnd: a packed text that leaves seven bits unused does not get an @ at its end.
func TestPackedEnd(t *testing.T) {
	e := sms.NewEncoder(sms.Options{Alphabet: sms.GSM7Packed})
	parts, err := e.Encode("1234567", schemas.EncodingGSM7, 1)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(text.AppendUnpacked(nil, string(parts[0].Octets), 0, 8)); got != "1234567\r" {
		t.Errorf("who counts octets reads %q, want a carriage return at the end", got)
	}
}

func TestDecode(t *testing.T) {
	for _, tc := range []struct {
		name, octets, want string
		coding             byte
		udhi               bool
		concat             sms.Concat
		binary             bool
	}{
		{name: "the default alphabet", octets: "\x00a\x1be", want: "@a€"},
		{name: "ASCII", coding: 1, octets: "a@[", want: "a@["},
		{name: "Latin-1", coding: 3, octets: "caff\xe8", want: "caffè"},
		{name: "UCS-2", coding: 8, octets: "\x04\x36", want: "ж"},
		{name: "UCS-2 by the group of 23.038", coding: 0x18, octets: "\x04\x36", want: "ж"},
		{name: "a class of message, GSM-7", coding: 0xF0, octets: "\x00", want: "@"},
		{name: "a class of message, octets", coding: 0xF5, octets: "\x00\xff", want: "\x00ÿ", binary: true},
		{name: "message waiting, UCS-2", coding: 0xE0, octets: "\x00a", want: "a"},
		{name: "binary", coding: 4, octets: "\xff", want: "ÿ", binary: true},
		{name: "an alphabet that this package does not decode", coding: 6, octets: "\xc1", want: "Á", binary: true},
		{name: "8 bit reference", udhi: true, octets: "\x05\x00\x03\x07\x02\x01hi", want: "hi", concat: sms.Concat{Ref: 7, Number: 1, Total: 2}},
		{name: "16 bit reference after a port", udhi: true, octets: "\x0c\x05\x04\x15\x8a\x00\x00\x08\x04\x01\x07\x03\x02hi", want: "hi", concat: sms.Concat{Ref: 263, Number: 2, Total: 3}},
		{name: "part 3 of 2", udhi: true, octets: "\x05\x00\x03\x07\x02\x03hi", want: "hi"},
		{name: "a header that says more than there is", udhi: true, octets: "\x7fhi", want: "àhi"},
		{name: "a header whose element is torn", udhi: true, octets: "\x03\x00\x03\x07hi", want: "hi"},
		{name: "an announced header that is missing", udhi: true, octets: "", want: ""},
	} {
		m := pdu.Message{Coding: tc.coding, Short: tc.octets}
		if tc.udhi {
			m.ESMClass = pdu.ESMUDHI
		}
		got, c, binary := sms.Decode(&m, sms.GSM7)
		if got != tc.want || c != tc.concat || binary != tc.binary {
			t.Errorf("%s: got %q, %+v, binary %v, want %q, %+v, %v", tc.name, got, c, binary, tc.want, tc.concat, tc.binary)
		}
	}
}

func TestJoiner(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	two := func(n int) sms.Concat { return sms.Concat{Ref: 9, Number: n, Total: 2} }
	j := sms.NewJoiner[int](2, time.Second)
	want := func(what string, got []sms.Joined[int], want ...sms.Joined[int]) {
		t.Helper()
		slices.SortFunc(got, func(a, b sms.Joined[int]) int { return strings.Compare(a.Text, b.Text) })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	want("by itself", j.Add("a", "b", sms.Concat{}, "x", 1, start), sms.Joined[int]{"x", []int{1}, 1, 1})
	want("the second part first", j.Add("a", "b", two(2), "lo", 2, start))
	want("another sender's", j.Add("c", "b", two(1), "other", 3, start))
	want("the second part again", j.Add("a", "b", two(2), "lo", 4, start))
	want("the first part", j.Add("a", "b", two(1), "hel", 5, start), sms.Joined[int]{"hello", []int{2, 4, 5}, 2, 2})
	j.Add("d", "b", two(1), "d", 6, start.Add(10*time.Millisecond))
	want("too many", j.Add("e", "b", two(1), "e", 7, start.Add(20*time.Millisecond)), sms.Joined[int]{"other", []int{3}, 1, 2})
	late, next, ok := j.Expire(start.Add(time.Second + 15*time.Millisecond))
	want("waited too long", late, sms.Joined[int]{"d", []int{6}, 1, 2})
	if !ok || !next.Equal(start.Add(time.Second+20*time.Millisecond)) {
		t.Errorf("got %v, %v, want the end of the other", next, ok)
	}
	late, _, ok = j.Expire(start.Add(time.Hour))
	want("the other", late, sms.Joined[int]{"e", []int{7}, 1, 2})
	if ok {
		t.Error("something waits still")
	}
}

// FuzzDecode: Decode does not panic on anything that a handset may send.
func FuzzDecode(f *testing.F) {
	f.Add(byte(0), byte(0), "hello", "")
	f.Add(pdu.ESMUDHI, byte(8), "\x05\x00\x03\x07\x02\x01\x00a", "")
	f.Add(byte(0), byte(0xF5), "\xff", "\x02\x0c\x00\x02\x00\x01\x02\x0e\x00\x01\x02\x02\x0f\x00\x01\x01")
	f.Fuzz(func(t *testing.T, class, coding byte, short, tlvs string) {
		for _, a := range []sms.Alphabet{sms.GSM7, sms.GSM7Packed, sms.Latin1} {
			m := pdu.Message{ESMClass: class, Coding: coding, Short: short, TLVs: pdu.TLVs(tlvs)}
			s, c, _ := sms.Decode(&m, a)
			if c.Total != 0 && (c.Number < 1 || c.Number > c.Total || c.Total > sms.MaxParts) || len(s) > 4*len(m.Text())+8 {
				t.Fatalf("got %d octets, %+v", len(s), c)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	e := sms.NewEncoder(sms.Options{UCS2: pdu.CodingUCS2})
	s := strings.Repeat("Hello Ada, ", 7)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Encode(s, schemas.EncodingGSM7, 1); err != nil {
			b.Fatal(err)
		}
	}
}
