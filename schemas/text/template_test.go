package text_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/text"
)

const (
	policyNone    = fanfarev1.MissingPolicy_MISSING_POLICY_UNSPECIFIED
	policyEmpty   = fanfarev1.MissingPolicy_MISSING_POLICY_EMPTY
	policyDefault = fanfarev1.MissingPolicy_MISSING_POLICY_DEFAULT
	policyFail    = fanfarev1.MissingPolicy_MISSING_POLICY_FAIL
)

func values(m map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := m[name]; return v, ok }
}

func ExampleParse() {
	t, err := text.Parse("Ciao {{ first_name }}, il codice è {{code}}.")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(t.Fields())
	out, err := t.Append(nil, values(map[string]string{"first_name": "Zoë", "code": "{{x}}"}), policyFail, "")
	fmt.Println(string(out), err)
	_, err = text.Parse("Ciao {{first name}}")
	fmt.Println(err)
	// Output:
	// [first_name code]
	// Ciao Zoë, il codice è {{x}}. <nil>
	// merge field: "{{first name}}" at character 6: a name does not hold ' ': use letters, digits, _ - and . only, as in {{first_name}}
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
		{"{{città}} {{_x}} {{a-b.c9}} {{2nd}}", []string{"città", "_x", "a-b.c9", "2nd"}},
		{"{{" + strings.Repeat("n", 64) + "}}", []string{strings.Repeat("n", 64)}},
	} {
		got, err := text.Parse(tc.in)
		if err != nil {
			t.Errorf("%q: %v", tc.in, err)
			continue
		}
		if d := cmp.Diff(tc.fields, got.Fields()); d != "" {
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
		{"x{{a {{b}}", `merge field: "{{a {{b}}" at character 2: a name does not hold ' ': use letters, digits, _ - and . only, as in {{first_name}}`},
		{"{{a|upper}}", `merge field: "{{a|upper}}" at character 1: a name does not hold '|': use letters, digits, _ - and . only, as in {{first_name}}`},
		{"{{" + strings.Repeat("è", 33) + "}}", `merge field: "{{` + strings.Repeat("è", 19) + `…" at character 1: the name is longer than 64 bytes: shorten the attribute's name`},
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
		policy fanfarev1.MissingPolicy
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
		got, err := tmpl.Append(nil, values(tc.values), tc.policy, "friend")
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

// TestTemplateAgainstRegexp: what comes out is what replacing by a regular expression gives.
func TestTemplateAgainstRegexp(t *testing.T) {
	names := []string{"a", "first_name", "x.y", "città"}
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
		got, err := tmpl.Append([]byte("> "), values(have), policyDefault, "?")
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

// FuzzParse: whatever a user writes is read, or refused with an error that says where; what is read fills in.
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
		for _, name := range tmpl.Fields() {
			if !strings.Contains(s, name) || len(name) > text.MaxFieldName {
				t.Fatalf("got field %q of %q", name, s)
			}
		}
		out, err := tmpl.Append(nil, values(nil), policyEmpty, "")
		if err != nil || len(out) > len(s) || len(tmpl.Fields()) == 0 && string(out) != s {
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
		if buf, err = tmpl.Append(buf[:0], value, policyFail, ""); err != nil {
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
	n := testing.AllocsPerRun(100, func() { buf, _ = tmpl.Append(buf[:0], value, policyFail, "") })
	if n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}
