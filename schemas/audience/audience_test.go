package audience_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"fanfare/schemas/audience"
)

func read(t interface{ Fatal(...any) }, blob []byte) []audience.Entry {
	r, err := audience.NewReader(blob)
	if err != nil {
		t.Fatal(err)
	}
	var out []audience.Entry
	for {
		var e audience.Entry
		if !r.Next(&e) {
			break
		}
		out = append(out, e)
	}
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	return out
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	word := rapid.StringN(0, 12, 60)
	entry := rapid.Custom(func(t *rapid.T) audience.Entry {
		e := audience.Entry{
			ContactID: rapid.Uint64().Draw(t, "contact"), To: word.Draw(t, "to"),
			Zone: rapid.SampledFrom([]string{"Europe/Rome", "America/New_York", ""}).Draw(t, "zone"), Country: rapid.SampledFrom([]string{"IT", "US", ""}).Draw(t, "country"),
			Class: audience.Class(rapid.IntRange(0, 3).Draw(t, "class")), Flag: audience.Flag(rapid.IntRange(0, 4).Draw(t, "flag")),
		}
		for range rapid.IntRange(0, 4).Draw(t, "attrs") {
			e.Attrs = append(e.Attrs, audience.Attr{Name: word.Draw(t, "name"), Value: word.Draw(t, "value")})
		}
		return e
	})
	rapid.Check(t, func(t *rapid.T) {
		var w audience.Writer
		for range 2 { // a writer is used again after Flush
			want := rapid.SliceOfN(entry, 0, 40).Draw(t, "entries")
			for i := range want {
				w.Add(&want[i])
			}
			got := read(t, w.Flush())
			if len(got) != len(want) {
				t.Fatalf("got %d entries, want %d", len(got), len(want))
			}
			for i := range want {
				if d := cmp.Diff(want[i], got[i], cmp.Comparer(func(a, b []audience.Attr) bool { return fmt.Sprint(a) == fmt.Sprint(b) })); d != "" {
					t.Fatalf("entry %d (-want +got):\n%s", i, d)
				}
			}
		}
	})
}

// TestSeek: the reader returns the same entry after Next and after any Seek.
func TestSeek(t *testing.T) {
	var w audience.Writer
	const n = 50
	for i := range n {
		w.Add(&audience.Entry{ContactID: uint64(i), To: fmt.Sprintf("+39%d", i), Zone: "Europe/Rome", Attrs: []audience.Attr{{Name: "a", Value: fmt.Sprint(i)}}})
	}
	blob := w.Flush()
	rapid.Check(t, func(t *rapid.T) {
		r, err := audience.NewReader(blob)
		if err != nil {
			t.Fatal(err)
		}
		var e audience.Entry
		for range rapid.IntRange(1, 10).Draw(t, "moves") {
			i := rapid.IntRange(-1, n).Draw(t, "to")
			if got, want := r.Seek(i), i >= 0 && i < n; got != want {
				t.Fatalf("seek %d: got %v, want %v", i, got, want)
			} else if !want {
				continue
			}
			for range rapid.IntRange(0, 3).Draw(t, "reads") {
				got, want := r.Next(&e), i < n
				if got != want {
					t.Fatalf("next %d: got %v, want %v", i, got, want)
				}
				if want && (e.ContactID != uint64(i) || e.To != fmt.Sprintf("+39%d", i) || e.Attrs[0].Value != fmt.Sprint(i)) {
					t.Fatalf("entry %d: got %+v", i, e)
				}
				i = min(i+1, n)
			}
		}
	})

	damaged, err := audience.NewReader(blob[:len(blob)-1])
	if err == nil && damaged.Seek(n-1) {
		t.Error("got an entry beyond the end of a cut blob")
	}
}

func TestEntryValue(t *testing.T) {
	e := audience.Entry{Attrs: []audience.Attr{{Name: "first_name", Value: "Ada"}}}
	if v, ok := e.Value("first_name"); v != "Ada" || !ok {
		t.Errorf("first_name: got %q %v", v, ok)
	}
	if _, ok := e.Value("last_name"); ok {
		t.Error("last_name: found in an entry without one")
	}
}

func FuzzReader(f *testing.F) {
	var w audience.Writer
	w.Add(&audience.Entry{ContactID: 7, To: "+393401234567", Zone: "Europe/Rome", Country: "IT", Attrs: []audience.Attr{{Name: "a", Value: "b"}}})
	f.Add(w.Flush())
	f.Add([]byte{})
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, blob []byte) {
		r, err := audience.NewReader(blob)
		if err != nil {
			if !errors.Is(err, audience.ErrBlob) {
				t.Fatalf("got %v, want ErrBlob", err)
			}
			return
		}
		var e audience.Entry
		for r.Next(&e) {
			continue
		}
	})
}

func BenchmarkRead(b *testing.B) {
	var w audience.Writer
	for i := range audience.BlobSize {
		w.Add(&audience.Entry{
			ContactID: uint64(i), To: fmt.Sprintf("+39340%07d", i), Zone: "Europe/Rome", Country: "IT",
			Attrs: []audience.Attr{{Name: "first_name", Value: "Ada"}, {Name: "city", Value: "Torino"}},
		})
	}
	blob := w.Flush()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		r, err := audience.NewReader(blob)
		if err != nil {
			b.Fatal(err)
		}
		var e audience.Entry
		for r.Next(&e) {
			n++
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "entries/s")
	b.ReportMetric(float64(len(blob))/audience.BlobSize, "bytes/entry")
}

// Holds searches a blob without reading its entries. It never misses a text that an entry has, in capital or small
// letters.
func TestHolds(t *testing.T) {
	var w audience.Writer
	w.Add(&audience.Entry{ContactID: 1, To: "+393331234567", Zone: "Europe/Rome", Attrs: []audience.Attr{{Name: "first_name", Value: "Anna"}, {Name: "email", Value: "ANNA@Example.com"}}})
	w.Add(&audience.Entry{ContactID: 2, To: "+393331234568", Zone: "Europe/Rome", Attrs: []audience.Attr{{Name: "first_name", Value: "Bruno"}}})
	r, err := audience.NewReader(w.Flush())
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"": true, "anna": true, "nna@ex": true, "bruno": true, "+39333": true, "4568": true, "carla": false, "annab": false, "é": true,
	} {
		if got := r.Holds(text); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
	w.Add(&audience.Entry{ContactID: 1, To: "+903331234567", Attrs: []audience.Attr{{Name: "first_name", Value: "\u0130REM"}, {Name: "last_name", Value: "\u212aaya"}}})
	if r, err = audience.NewReader(w.Flush()); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"irem", "kaya"} {
		if !r.Holds(text) {
			t.Errorf("%q is missed", text)
		}
	}
}
