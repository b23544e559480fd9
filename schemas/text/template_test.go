package text_test

import (
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	"fanfare/schemas"
	"fanfare/schemas/text"
)

const (
	policyNone    = schemas.MissingPolicyUnspecified
	policyEmpty   = schemas.MissingPolicyEmpty
	policyDefault = schemas.MissingPolicyDefault
	policyFail    = schemas.MissingPolicyFail
)

const noLimit = 1 << 20

func values(m map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := m[name]; return v, ok }
}

func ExampleParse() {
	t, err := text.Parse("Ciao {{ first_name }}, il codice è {{code}}.")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range t.Fields() {
		fmt.Println(f.Name)
	}
	out, err := t.Append(nil, noLimit, values(map[string]string{"first_name": "Zoë", "code": "{{x}}"}), policyFail, "")
	fmt.Println(string(out), err)
	_, err = text.Parse("Ciao {{first_name|upper}}")
	fmt.Println(err)
	// Output:
	// first_name
	// code
	// Ciao Zoë, il codice è {{x}}. <nil>
	// merge field: "{{first_name|upper}}" at character 6: a name does not hold '|': write the header of a column, as in {{first_name}}
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		in     string
		fields []string
	}{
		{"", nil},
		{"plain { one } brace", nil},
		{"closing }} alone", nil},
		{"{{a}}", []string{"a"}},
		{"{{a}}{{b}}{{a}}", []string{"a", "b"}},
		{"{{\ta \n}}}", []string{"a"}},
		{"{{città}} {{_x}} {{a-b.c9}} {{2nd}}", []string{"città", "x", "a_b_c9", "2nd"}},
		{"{{First Name}} {{FIRST_NAME}} {{first-name}}", []string{"first_name"}},
		{"{{" + strings.Repeat("n", 64) + "}}", []string{strings.Repeat("n", 64)}},
	} {
		got, err := text.Parse(tc.in)
		if err != nil {
			t.Errorf("%q: %v", tc.in, err)
			continue
		}
		var names []string
		for _, f := range got.Fields() {
			names = append(names, f.Name)
		}
		if d := cmp.Diff(tc.fields, names); d != "" {
			t.Errorf("%q: fields, want(-) got(+): %s", tc.in, d)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"Zoë {{first_name", `merge field: "{{" at character 5 is not closed: write "}}" after the name, or a single brace if no field is meant`},
		{"{{}}", `merge field: "{{}}" at character 1: a name is missing: write one such as {{first_name}}`},
		{"{{ }}", `merge field: "{{ }}" at character 1: a name is missing: write one such as {{first_name}}`},
		{"{{-a}}", `merge field: "{{-a}}" at character 1: a name does not begin with '-': begin with a letter, a digit or _, as in {{first_name}}`},
		{"{{{a}}}", `merge field: "{{{a}}" at character 1: a name does not begin with '{': begin with a letter, a digit or _, as in {{first_name}}`},
		{"x{{a {{b}}", `merge field: "{{a {{b}}" at character 2: a name does not hold '{': write the header of a column, as in {{first_name}}`},
		{"{{a|upper}}", `merge field: "{{a|upper}}" at character 1: a name does not hold '|': write the header of a column, as in {{first_name}}`},
		{"{{__}}", `merge field: "{{__}}" at character 1: a name has a letter or a digit, as in {{first_name}}`},
		{"{{" + strings.Repeat("è", 33) + "}}", `merge field: "{{` + strings.Repeat("è", 22) + `…" at character 1: the name is longer than 64 bytes: shorten the attribute's name`},
	} {
		_, err := text.Parse(tc.in)
		if !errors.Is(err, text.ErrTemplate) {
			t.Errorf("%q: got error %v, want ErrTemplate", tc.in, err)
			continue
		}
		if got := err.Error(); got != tc.want {
			t.Errorf("%q:\n got %s\nwant %s", tc.in, got, tc.want)
		}
	}
}

func TestAppendMissing(t *testing.T) {
	tmpl, err := text.Parse("Hi {{name}}!")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		values map[string]string
		policy schemas.MissingPolicy
		want   string
		fails  bool
	}{
		{"there", map[string]string{"name": "Ada"}, policyFail, "Hi Ada!", false},
		{"no policy", nil, policyNone, "Hi !", false},
		{"empty", nil, policyEmpty, "Hi !", false},
		{"default", nil, policyDefault, "Hi friend!", false},
		{"default of an empty value", map[string]string{"name": ""}, policyDefault, "Hi friend!", false},
		{"fail", nil, policyFail, "", true},
		{"fail on an empty value", map[string]string{"name": ""}, policyFail, "", true},
	} {
		got, err := tmpl.Append(nil, noLimit, values(tc.values), tc.policy, "friend")
		if tc.fails {
			if !errors.Is(err, text.ErrMissing) || err.Error() != "merge field has no value: name" {
				t.Errorf("%s: got error %v, want ErrMissing that names the field", tc.name, err)
			}
			continue
		}
		if err != nil || string(got) != tc.want {
			t.Errorf("%s: got %q, %v, want %q", tc.name, got, err, tc.want)
		}
	}
}

var fieldPattern = regexp.MustCompile(`\{\{\s*([^{}]*?)\s*\}\}`)

// TestTemplateAgainstRegexp: rendering gives the same text as a replacement by a regular expression.
func TestTemplateAgainstRegexp(t *testing.T) {
	names := []string{"a", "first_name", "x_y", "città"}
	rapid.Check(t, func(t *rapid.T) {
		var src strings.Builder
		for range rapid.IntRange(0, 8).Draw(t, "parts") {
			src.WriteString(rapid.StringMatching(`[a-z0-9 èж}]{0,12}`).Draw(t, "text"))
			if rapid.Bool().Draw(t, "field") {
				pad := rapid.SampledFrom([]string{"", " ", "\t "}).Draw(t, "pad")
				src.WriteString("{{" + pad + rapid.SampledFrom(names).Draw(t, "name") + pad + "}}")
			}
		}
		have := map[string]string{}
		for _, n := range names {
			if rapid.Bool().Draw(t, "has "+n) {
				have[n] = rapid.StringMatching(`[A-Z{}]{0,5}`).Draw(t, n)
			}
		}
		tmpl, err := text.Parse(src.String())
		if err != nil {
			t.Fatalf("%q: %v", src.String(), err)
		}
		got, err := tmpl.Append([]byte("> "), noLimit, values(have), policyDefault, "?")
		if err != nil {
			t.Fatal(err)
		}
		want := "> " + fieldPattern.ReplaceAllStringFunc(src.String(), func(f string) string {
			if v := have[fieldPattern.FindStringSubmatch(f)[1]]; v != "" {
				return v
			}
			return "?"
		})
		if string(got) != want {
			t.Fatalf("%q: got %q, want %q", src.String(), got, want)
		}
	})
}

// The appended text never exceeds the limit, and the limit does not affect a text that fits.
func TestAppendStopsAtItsLimit(t *testing.T) {
	tmpl, err := text.Parse("ab{{x}}cd{{x}}e")
	if err != nil {
		t.Fatal(err)
	}
	value := values(map[string]string{"x": "123"})
	for limit := range 13 {
		got, err := tmpl.Append([]byte("> "), limit, value, policyFail, "")
		if len(got) > 2+limit {
			t.Errorf("limit %d: got %q", limit, got)
		}
		if fits := limit >= len("ab123cd123e"); fits != (err == nil) || fits && string(got) != "> ab123cd123e" || !fits && !errors.Is(err, text.ErrTooLong) {
			t.Errorf("limit %d: got %q, %v", limit, got, err)
		}
	}
}

// A template bomb, 150 kB of {{a}} with a long value, is stopped at the size of the most segments; and a template with
// very many fields is parsed in time that grows with its length alone.
func TestTemplateBomb(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	tmpl, err := text.Parse(strings.Repeat("{{a}}", 30_000))
	if err != nil {
		t.Fatal(err)
	}
	const segments = 255
	before := allocated()
	got, err := tmpl.Append(nil, text.MaxBytes(segments), values(map[string]string{"a": long}), policyFail, "")
	if !errors.Is(err, text.ErrTooLong) {
		t.Errorf("got error %v, want ErrTooLong", err)
	}
	if used := allocated() - before; len(got) > text.MaxBytes(segments) || used > 4<<20 {
		t.Errorf("got %d bytes and %d allocated, want at most %d and 4 MiB", len(got), used, text.MaxBytes(segments))
	}
	var many strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&many, "{{f%d}}", i)
	}
	if tmpl, err = text.Parse(many.String()); err != nil || len(tmpl.Fields()) != 100_000 {
		t.Errorf("got %d fields, %v; want 100,000", len(tmpl.Fields()), err)
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// FuzzAppend: for any template, value and limit, Append appends no more than the limit, and never refuses a text for
// its length if it has no more segments than the limit is for.
func FuzzAppend(f *testing.F) {
	f.Add("{{a}}{{a}}", "xyz", uint8(1))
	f.Add("Ciao {{a}}, {{b}}", strings.Repeat("é", 100), uint8(3))
	f.Add("{{a}}", strings.Repeat("e\u0301\u0323", 70), uint8(1))
	f.Fuzz(func(t *testing.T, template, value string, segments uint8) {
		tmpl, err := text.Parse(template)
		if err != nil {
			return
		}
		limit := text.MaxBytes(int(segments))
		all := func(string) (string, bool) { return value, true }
		got, err := tmpl.Append(nil, limit, all, policyEmpty, "")
		if len(got) > limit {
			t.Fatalf("got %d bytes, want at most %d", len(got), limit)
		}
		if len(template)*len(value) > 1<<20 {
			return // the limit exists to avoid rendering such a text completely
		}
		whole, wholeErr := tmpl.Append(nil, 1<<30, all, policyEmpty, "")
		if wholeErr != nil {
			t.Fatal(wholeErr)
		}
		if err == nil && string(got) != string(whole) {
			t.Fatalf("got %q, want %q", got, whole)
		}
		if n := text.MeasureBytes(whole).Segments; err != nil && n <= int(segments) {
			t.Fatalf("%d bytes in %d segments were refused at a limit of %d segments", len(whole), n, segments)
		}
	})
}

// FuzzParse: any text is parsed, or refused with an error that names the place. A parsed text can be rendered.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "{{a}}", "{{ a }} {{b}}", "{{", "}}", "{{{a}}}", "{{a}", "\xff{{\xff}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tmpl, err := text.Parse(s)
		if err != nil {
			if !errors.Is(err, text.ErrTemplate) || !strings.Contains(err.Error(), "at character ") {
				t.Fatalf("got error %v, want one that says where", err)
			}
			return
		}
		for _, f := range tmpl.Fields() {
			if !strings.Contains(s, f.Written) || len(f.Written) > text.MaxFieldName || f.Name == "" || f.Name != text.FieldName(f.Name) {
				t.Fatalf("got field %+v of %q", f, s)
			}
		}
		out, err := tmpl.Append(nil, noLimit, values(nil), policyEmpty, "")
		if err != nil || len(out) > 3*len(s) || len(tmpl.Fields()) == 0 && string(out) != norm.NFC.String(s) {
			t.Fatalf("%q: got %q, %v", s, out, err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	tmpl, err := text.Parse("Ciao {{first_name}}, la tua consegna arriva domani tra le 9 e le 12. Info: {{link}}")
	if err != nil {
		b.Fatal(err)
	}
	attrs := []struct{ name, value string }{{"first_name", "Maria"}, {"link", "https://f.co/aB3d"}}
	value := func(name string) (string, bool) {
		for i := range attrs {
			if attrs[i].name == name {
				return attrs[i].value, true
			}
		}
		return "", false
	}
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		if buf, err = tmpl.Append(buf[:0], noLimit, value, policyFail, ""); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	tmpl, err := text.Parse("Ciao {{first_name}}!")
	if err != nil {
		t.Fatal(err)
	}
	value := values(map[string]string{"first_name": "Maria"})
	buf := make([]byte, 0, 64)
	n := testing.AllocsPerRun(100, func() { buf, _ = tmpl.Append(buf[:0], noLimit, value, policyFail, "") })
	if n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}
