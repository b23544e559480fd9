package text

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// MaxFieldName is the most bytes of the name of a merge field.
const MaxFieldName = 64

// ErrTemplate is wrapped by every error of [Parse].
var ErrTemplate = errors.New("merge field")

// ErrMissing is wrapped by the error of [Template.Append] for a recipient without a value, under MISSING_POLICY_FAIL.
var ErrMissing = errors.New("merge field has no value")

// Template is a text with merge fields, read once and filled in for each recipient. It does not change and may be shared.
type Template struct {
	parts []part
	tail  string
	names []string
}

// part is a text and the field after it.
type part struct{ text, field string }

const (
	opening = "{{"
	closing = "}}"
)

// Parse reads a text with merge fields such as {{first_name}}, or {{ first_name }}. A name has 1 to [MaxFieldName] bytes of
// letters, digits, `_`, `-` and `.`, none of the last two first. One brace, and closing braces that were not opened, are plain text.
// The error says at which character of the text what is wrong and what to do.
func Parse(template string) (*Template, error) {
	t := &Template{}
	rest := template
	for {
		before, after, ok := strings.Cut(rest, opening)
		if !ok {
			t.tail = rest
			return t, nil
		}
		at := utf8.RuneCountInString(template[:len(template)-len(after)-len(opening)]) + 1
		inside, following, ok := strings.Cut(after, closing)
		if !ok {
			return nil, fmt.Errorf("%w: %q at character %d is not closed: write %q after the name, or a single brace if no field is meant", ErrTemplate, opening, at, closing)
		}
		name := strings.TrimFunc(inside, unicode.IsSpace)
		if fault := badName(name); fault != "" {
			return nil, fmt.Errorf("%w: %q at character %d: %s", ErrTemplate, cut(opening+inside+closing), at, fault)
		}
		t.parts = append(t.parts, part{before, name})
		if !slices.Contains(t.names, name) {
			t.names = append(t.names, name)
		}
		rest = following
	}
}

// badName returns what is wrong with a name and what to do, "" when nothing is.
func badName(name string) string {
	if name == "" {
		return "a name is missing: write one such as {{first_name}}"
	}
	if len(name) > MaxFieldName {
		return fmt.Sprintf("the name is longer than %d bytes: shorten the attribute's name", MaxFieldName)
	}
	for i, r := range name {
		switch {
		case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_':
		case i > 0 && (unicode.IsMark(r) || r == '-' || r == '.'):
		case i == 0:
			return fmt.Sprintf("a name does not begin with %q: begin with a letter, a digit or _, as in {{first_name}}", r)
		default:
			return fmt.Sprintf("a name does not hold %q: use letters, digits, _ - and . only, as in {{first_name}}", r)
		}
	}
	return ""
}

// cut shortens what is quoted in an error.
func cut(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	n := most
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// Fields returns the names of the merge fields, each once, in order of appearance.
func (t *Template) Fields() []string { return slices.Clone(t.names) }

// Append appends the text for one recipient to dst. An attribute that is there but empty is missing: what policy says stands
// in its place, fallback under MISSING_POLICY_DEFAULT, and nothing when no policy is given. Under MISSING_POLICY_FAIL a missing
// one ends it with [ErrMissing] and the field's name. Values are text and never read as templates.
// The slice returned with an error is dst with whatever was appended: its room may be used again.
func (t *Template) Append(dst []byte, value func(name string) (string, bool), policy fanfarev1.MissingPolicy, fallback string) ([]byte, error) {
	for i := range t.parts {
		p := &t.parts[i]
		dst = append(dst, p.text...)
		v, ok := value(p.field)
		if !ok || v == "" {
			switch policy {
			case fanfarev1.MissingPolicy_MISSING_POLICY_FAIL:
				return dst, fmt.Errorf("%w: %s", ErrMissing, p.field)
			case fanfarev1.MissingPolicy_MISSING_POLICY_DEFAULT:
				v = fallback
			default:
				v = ""
			}
		}
		dst = append(dst, v...)
	}
	return append(dst, t.tail...), nil
}
