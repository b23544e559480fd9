package text_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"fanfare/schemas/text"
)

// A link is not a merge field. Append asks for it by its address and renders it at its place.
func TestLinks(t *testing.T) {
	tmpl, err := text.Parse("Ciao {{first_name}}: {{link:https://shop.example/sale?a=1&b=2}} o {{ Link: http://x.example }} o {{link:https://shop.example/sale?a=1&b=2}}. Stop: {{Opt Out}}")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tmpl.Links(), []string{"https://shop.example/sale?a=1&b=2", "http://x.example"}; !slices.Equal(got, want) {
		t.Errorf("got links %q, want %q", got, want)
	}
	if f := tmpl.Fields(); len(f) != 1 || f[0].Name != "first_name" || !tmpl.OptOut() || !tmpl.Personal() {
		t.Errorf("got fields %v, opt-out %v", f, tmpl.OptOut())
	}
	got, err := tmpl.Append(nil, noLimit, func(name string) (string, bool) {
		if address, ok := text.LinkOf(name); ok {
			return "s.example/" + strings.Repeat("T", len(address)%10), true
		}
		return map[string]string{"first_name": "Anna", text.FieldOptOut: "s.example/O"}[name], true
	}, policyFail, "")
	if want := "Ciao Anna: s.example/TTT o s.example/TTTTTT o s.example/TTT. Stop: s.example/O"; err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	plain, err := text.Parse("{{link:https://shop.example}}")
	if err != nil || plain.Personal() || plain.OnlyFields() || plain.Blank() {
		t.Errorf("a text that is a link: %v, %+v", err, plain)
	}
}

// TestBadLinks: only a web address can be a link, and the error names the place and the fix.
func TestBadLinks(t *testing.T) {
	for in, want := range map[string]string{
		"x {{link:}}":                                                  "at character 3: a link leads to http:// or https://",
		"{{link:javascript:alert(1)}}":                                 "http:// or https://",
		"{{link:tel:+39}}":                                             "http:// or https://",
		"{{link://evil.example}}":                                      "http:// or https://",
		"{{link:https://}}":                                            "names no host",
		"{{link:https:///path}}":                                       "names no host",
		"{{link:https://a b.example}}":                                 "no blanks",
		"{{link:https://shop.example/\r\nX: y}}":                       "no control characters",
		"{{link:https://u:secret@shop.example}}":                       "a user or a password",
		"{{link:https://shop.example/?p={{phone}}}":                    "no merge field",
		"{{link:https://x.example/" + strings.Repeat("a", 2000) + "}}": "longer than 2,000",
		"{{link:https://%zz.example}}":                                 "no address",
	} {
		if _, err := text.Parse(in); !errors.Is(err, text.ErrTemplate) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v, want %q", in, err, want)
		}
	}
}

func TestShortenLinks(t *testing.T) {
	for in, want := range map[string]string{
		"no address here, https is a word":               "no address here, https is a word",
		"Buy https://shop.example/a, now.":               "Buy {{link:https://shop.example/a}}, now.",
		"(https://shop.example/a_(b)). HTTP://X.example": "({{link:https://shop.example/a_(b)}}). {{link:HTTP://X.example}}",
		"https://a.example!https://b.example":            "{{link:https://a.example!https://b.example}}",
		"https://a.example?u={{phone}} end":              "https://a.example?u={{phone}} end",
		"{{link:https://a.example}} {{opt_out}}":         "{{link:https://a.example}} {{opt_out}}",
		"https://a.example {{name}}":                     "{{link:https://a.example}} {{name}}",
		"https://u:p@a.example {{":                       "https://u:p@a.example {{",
	} {
		if got := text.ShortenLinks(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
		if got := text.ShortenLinks(text.ShortenLinks(in)); got != want {
			t.Errorf("%q twice: got %q, want %q", in, got, want)
		}
	}
}

// FuzzLinks: a text parses after ShortenLinks if it parsed before, and each of its links is an address that a phone may
// open.
func FuzzLinks(f *testing.F) {
	for _, s := range []string{"a https://b.example/c. {{x}}", "{{link:http://a}}", "http://", "https://a{{link:https://b}}", "https://[::1]/x", "{{link:https://a}}}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, before := text.Parse(s)
		short := text.ShortenLinks(s)
		tmpl, err := text.Parse(short)
		if (err == nil) != (before == nil) {
			t.Fatalf("%q parses: %v; shortened, %q: %v", s, before, short, err)
		}
		if err != nil {
			return
		}
		for _, address := range tmpl.Links() {
			if fault := text.BadLink(address); fault != "" || !strings.HasPrefix(strings.ToLower(address), "http") {
				t.Fatalf("%q has the link %q: %s", s, address, fault)
			}
		}
	})
}
