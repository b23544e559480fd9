package importfile

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"
)

// Reading ends for any input. Each row is read, or refused with a reason; the values that were read are text that can
// be stored; and the result does not depend on how many bytes arrive at a time.
func FuzzOpen(f *testing.F) {
	for _, s := range []string{
		"phone,first_name\n+393330000001,Anna\n", "\ufeffphone;city\r\n333;\"a\nb\"\r\n", "sep=|\nphone|x\n1|2\n", "\xff\xfep\x00h\x00o\x00n\x00e\x00\n\x001\x00",
		"phone,phone\n1,2\n", "phone\n\"open\n1\n", "phone,\xe9\n1,2\n", "PK\x03\x04phone\n", "phone\tx\n1\t\xff\n2\t\x00\n",
		`[{"phone":"+393330000001","attributes":{"a":1}},5,{"a":1,"a":2}]`, `{"phone":"1"}{"phone":"2"} `, `[{"phone":"\ud800"},{"phone":[1]}`, "[[[[[[", `{"a":{"b":{}}}`, "BEGIN:VCARD\nTEL;CELL:1\nN;ENCODING=QUOTED-PRINTABLE:=41=\n=42\nEND:VCARD\n", "\x1f\x8b\x08\x00", "sep=;\n", "phone, \"a\" ,b\n1, \"2\"\t,3\n", `[{"phone":1e400}]x`,
	} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, text []byte, chunk int) {
		for _, format := range []Format{CSV, JSON, VCard, ""} {
			var all [2]string
			for i, size := range []int{len(text) + 1, max(1, chunk%4096)} {
				all[i] = readAll(t, format, text, size)
			}
			if all[0] != all[1] {
				t.Errorf("%s: got %q in one piece and %q in many", format, all[0], all[1])
			}
		}
	})
}

// readAll reads a file to its end and returns what it says.
func readAll(t *testing.T, format Format, text []byte, chunk int) string {
	t.Helper()
	from, err := Open(&slow{text, chunk}, Options{Format: format, MaxBytes: 1 << 20})
	var out strings.Builder
	if err != nil {
		return "no file: " + err.Error()
	}
	defer func() { _ = from.Close() }()
	var row Row
	for range 1<<20 + 2 { // a small gzip may hold many lines
		err := from.Next(&row)
		var bad *RowError
		switch {
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return out.String()
		case errors.As(err, &bad):
			if bad.Reason == "" {
				t.Fatalf("got a refused row without a reason: %+v", bad)
			}
			fmt.Fprintf(&out, "%d refused: %s %s\n", row.Line, bad.Column, bad.Reason)
		case err != nil:
			return out.String() + "broke off"
		default:
			for _, c := range row.Cells {
				if !utf8.ValidString(c.Value) || strings.ContainsRune(c.Value, 0) || c.Value == "" {
					t.Fatalf("got the value %q, which cannot be stored", c.Value)
				}
				fmt.Fprintf(&out, "%d %s=%s\n", row.Line, c.Column.Header, c.Value)
			}
		}
	}
	t.Fatal("does not come to an end")
	return ""
}
