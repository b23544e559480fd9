package text

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"fanfare/schemas"
)

// MaxFieldName is the most bytes of the name of a merge field.
const MaxFieldName = 64

// ErrTemplate marks every error of [Parse]: the error wraps it.
var ErrTemplate = errors.New("merge field")

// ErrMissing marks the error of [Template.Append] for a recipient without a value, under MISSING_POLICY_FAIL: that
// error wraps it.
var ErrMissing = errors.New("merge field has no value")

// ErrTooLong is the error of [Template.Append] for a text that exceeds its limit.
var ErrTooLong = errors.New("text is longer than its limit")

// Template is a text with merge fields, read once and filled in for each recipient. It does not change and may be
// shared.
type Template struct {
	parts  []part
	tail   string
	fields []Field
	links  []string
	optOut bool
}

// Field is a merge field of a template.
type Field struct {
	Written string // as the text has it, such as Nome
	Name    string // [FieldName] of that: the attribute that is filled in
	Column  string // the column of a contact that is filled in when there is no such attribute, "" for none: first_name
}

// part is a text and the field after it.
type part struct {
	text, field, column string
	written             int // characters of the field, with its braces
}

const (
	opening = "{{"
	closing = "}}"
)

// Parse reads a text with merge fields such as {{first_name}}. A field is found by the rule that gives columns of an
// import their names, so the header of the column can be written as it stands in the file: {{First Name}},
// {{FIRST_NAME}}, {{order-id}}. A field that is an alias of a column of a contact means that column: {{Nome}} is
// {{first_name}}. A name has at most [MaxFieldName] bytes. A single brace, and closing braces that were not opened, are
// plain text. The error says what is wrong, at which character of the text, and what to do.
//
// {{link:https://…}} is a link of a campaign, and {{opt_out}} its opt-out link: they are not fields of a contact. See
// [Template.Links].
func Parse(template string) (*Template, error) {
	t := &Template{}
	seen := map[Field]bool{}
	rest := template
	for {
		before, after, ok := strings.Cut(rest, opening)
		if !ok {
			t.tail = rest
			return t, nil
		}
		// Only errors need it, because it reads all the text before
		at := func() int { return utf8.RuneCountInString(template[:len(template)-len(after)-len(opening)]) + 1 }
		inside, following, ok := strings.Cut(after, closing)
		if !ok {
			return nil, fmt.Errorf("%w: %q at character %d is not closed: write %q after the name, or a single brace if no field is meant", ErrTemplate, opening, at(), closing)
		}
		name := strings.TrimFunc(inside, unicode.IsSpace)
		if len(name) >= len(linkPrefix) && strings.EqualFold(name[:len(linkPrefix)], linkPrefix) {
			address := strings.TrimFunc(name[len(linkPrefix):], unicode.IsSpace)
			if fault := BadLink(address); fault != "" {
				return nil, fmt.Errorf("%w: %q at character %d: %s", ErrTemplate, Shorten(opening+inside+closing, 24), at(), fault)
			}
			t.addLink(before, inside, address)
			rest = following
			continue
		}
		if fault := badName(name); fault != "" {
			return nil, fmt.Errorf("%w: %q at character %d: %s", ErrTemplate, Shorten(opening+inside+closing, 24), at(), fault)
		}
		f := fieldOf(name)
		if f.Name == FieldOptOut {
			t.optOut = true
			t.parts = append(t.parts, part{text: before, field: FieldOptOut, written: utf8.RuneCountInString(inside) + len(opening) + len(closing)})
			rest = following
			continue
		}
		t.parts = append(t.parts, part{before, f.Name, f.Column, utf8.RuneCountInString(inside) + len(opening) + len(closing)})
		if key := (Field{Name: f.Name}); !seen[key] {
			seen[key] = true
			t.fields = append(t.fields, f)
		}
		rest = following
	}
}

// fieldOf returns the field of a name as it is written.
func fieldOf(written string) Field {
	f := Field{Written: written, Name: FieldName(written)}
	if column, _ := Column(f.Name); column != f.Name {
		f.Column = column
	}
	return f
}

// badName returns what is wrong with a name and what to do; "" if the name is valid.
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
		case i == 0:
			return fmt.Sprintf("a name does not begin with %q: begin with a letter, a digit or _, as in {{first_name}}", r)
		case unicode.IsControl(r) || strings.ContainsRune("{}|<>=$%`\"\\", r) || r == utf8.RuneError:
			return fmt.Sprintf("a name does not hold %q: write the header of a column, as in {{first_name}}", r)
		}
	}
	if FieldName(name) == "" {
		return "a name has a letter or a digit, as in {{first_name}}"
	}
	return ""
}

// Fields returns the merge fields, each once, in order of appearance.
func (t *Template) Fields() []Field { return slices.Clone(t.fields) }

// Append appends the text for one recipient to dst. value returns the value of a field by its name; it is asked for the
// name of the field, then for its column. An empty value counts as missing, and policy decides what takes its place:
// fallback under MISSING_POLICY_DEFAULT, nothing when no policy is given. Under MISSING_POLICY_FAIL a missing value
// ends the text with [ErrMissing] and the field's name. Values are text and never read as templates.
//
// Append composes the text (NFC): a letter and a separate accent become one character, as a phone shows and a carrier
// counts it.
//
// limit is the most bytes that are appended. A longer text ends with [ErrTooLong] as soon as it exceeds the limit, so
// that a short template with many fields and long values cannot fill the memory: see [MaxBytes]. The slice returned
// with an error is dst with the bytes appended until then; the caller may reuse its memory.
func (t *Template) Append(dst []byte, limit int, value func(name string) (string, bool), policy schemas.MissingPolicy, fallback string) ([]byte, error) {
	start, most := len(dst), len(dst)+limit
	for i := range t.parts {
		p := &t.parts[i]
		if len(dst)+len(p.text) > most {
			return dst, ErrTooLong
		}
		dst = append(dst, p.text...)
		v, ok := value(p.field)
		if (!ok || v == "") && p.column != "" {
			v, ok = value(p.column)
		}
		if !ok || v == "" {
			switch policy {
			case schemas.MissingPolicyFail:
				return dst, fmt.Errorf("%w: %s", ErrMissing, p.field)
			case schemas.MissingPolicyDefault:
				v = fallback
			default:
				v = ""
			}
		}
		if len(dst)+len(v) > most {
			return dst, ErrTooLong
		}
		dst = append(dst, v...)
	}
	if len(dst)+len(t.tail) > most {
		return dst, ErrTooLong
	}
	return compose(append(dst, t.tail...), start), nil
}

// compose composes dst from start on.
func compose(dst []byte, start int) []byte {
	for i := start; i < len(dst); i++ {
		if dst[i] >= utf8.RuneSelf {
			if !norm.NFC.IsNormal(dst[start:]) {
				return append(dst[:start], norm.NFC.Bytes(dst[start:])...)
			}
			return dst
		}
	}
	return dst
}

// Compose returns a text in its composed form (NFC), without the byte order marks that some editors leave in it.
func Compose(s string) string {
	return norm.NFC.String(strings.ReplaceAll(s, "\ufeff", ""))
}
