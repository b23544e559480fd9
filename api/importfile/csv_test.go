package importfile

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// records reads a file with our reader, chunk bytes at a time.
func records(t *testing.T, text []byte, chunk int) (out [][]string, bad int) {
	t.Helper()
	c := &csvRows{in: &slow{text, chunk}, buf: make([]byte, 2*maxRow), line: 1, comma: ','}
	for range len(text) + 2 {
		err := c.record()
		var row *RowError
		switch {
		case errors.Is(err, io.EOF):
			return out, bad
		case errors.As(err, &row):
			bad++
		case err != nil:
			t.Fatal(err)
		case !c.blank():
			var fields []string
			for i := range c.ends {
				fields = append(fields, string(c.field(i)))
			}
			out = append(out, fields)
		}
	}
	t.Fatal("does not come to an end")
	return nil, 0
}

type slow struct {
	rest  []byte
	chunk int
}

func (s *slow) Read(b []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), s.chunk)], s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// If encoding/csv reads a file without an error, our reader returns the same records. Our reader reaches the end of any
// input.
func FuzzCSV(f *testing.F) {
	for _, s := range []string{"a,b\n1,2\n", "\"a\"\"b\",\"c\nd\"\r\n,,\n", "a\"b\n", "\"x\" y\nz\n", "\"open\n1,2\n3", "\n\n,\n", "a\rb", ",\"\"\n"} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, text []byte, chunk int) {
		got, bad := records(t, text, max(1, chunk%4096))
		if bytes.IndexByte(text, '\r') >= 0 || len(text) >= maxRow {
			return // a carriage return alone ends a line for us, but not for encoding/csv
		}
		r := csv.NewReader(bytes.NewReader(text))
		r.FieldsPerRecord = -1
		all, err := r.ReadAll()
		if err != nil {
			return
		}
		want := slices.DeleteFunc(all, func(fields []string) bool {
			return !slices.ContainsFunc(fields, func(s string) bool { return strings.TrimSpace(s) != "" })
		})
		if bad != 0 || !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("got %q and %d bad rows, want %q", got, bad, want)
		}
	})
}

// A row that cannot be read costs only itself, also when lines end with a carriage return alone.
func TestCSVBadRowOfAMac(t *testing.T) {
	for _, end := range []string{"\n", "\r", "\r\n"} {
		for _, chunk := range []int{1, 5, 4096} {
			text := strings.Join([]string{"phone", "1", `"Anna"x`, "2", "3", ""}, end)
			got, bad := records(t, []byte(text), chunk)
			if want := [][]string{{"phone"}, {"1"}, {"2"}, {"3"}}; bad != 1 || !slices.EqualFunc(got, want, slices.Equal) {
				t.Errorf("lines end with %q, %d bytes at a time: got %q and %d bad rows, want %q and one", end, chunk, got, bad, want)
			}
		}
	}
}

// A quote that is never closed makes only its own line unreadable, and takes no memory.
func TestCSVUnclosedQuote(t *testing.T) {
	text := []byte("a,\"never closed " + strings.Repeat("x", 3*maxRow) + "\n" + strings.Repeat("1,2\n", 100_000))
	got, bad := records(t, text, 1<<20)
	if len(got) != 100_000 || bad != 1 {
		t.Errorf("got %d rows and %d bad ones, want 100000 and 1", len(got), bad)
	}
}
