package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Body is a JSON body that is read strictly: a name that is not known, a name that comes twice and a value of another type are
// errors that say which field it is, and a body that is no JSON says at which line and column it stops being one. huma would
// parse it twice, keep only the text of the error, and echo the body in it.
type Body[T any] struct {
	Value T
	err   *Problem
}

// Schema documents the body as a T.
func (Body[T]) Schema(r huma.Registry) *huma.Schema {
	return r.Schema(reflect.TypeFor[T](), true, "")
}

// Resolve hands what was wrong with the body to huma, after the parameters.
func (b *Body[T]) Resolve(huma.Context) []error {
	if b.err == nil {
		return nil
	}
	return []error{b.err}
}

func (b *Body[T]) decode(data []byte) { b.err = decodeStrict(data, &b.Value) }

// bodyDecoder is what [Body] looks like to the format.
type bodyDecoder interface{ decode(data []byte) }

// jsonFormat is the one format of bodies.
func jsonFormat() huma.Format {
	return huma.Format{
		Marshal: func(w io.Writer, v any) error { return json.MarshalWrite(w, v, json.Deterministic(true)) },
		Unmarshal: func(data []byte, v any) error {
			if p := reflect.ValueOf(v).Elem(); p.Kind() == reflect.Pointer { // a body that may be left out
				p.Set(reflect.New(p.Type().Elem()))
				v = p.Interface()
			}
			if b, ok := v.(bodyDecoder); ok {
				b.decode(data)
				return nil
			}
			return fmt.Errorf("body of %T is not read strictly", v)
		},
	}
}

// jsonMediaType reports whether a body of that type is read as JSON. E's examples are curl -d without a content type, which
// curl sends as a form; so a form is taken for JSON too, and says so if it is none.
func jsonMediaType(ct string) bool {
	ct, _, _ = strings.Cut(ct, ";")
	ct = strings.ToLower(strings.TrimSpace(ct))
	return ct == "" || ct == "application/json" || ct == "application/x-www-form-urlencoded" || ct == "text/json" || strings.HasSuffix(ct, "+json")
}

// decodeStrict reads data into v.
func decodeStrict(data []byte, v any) *Problem {
	err := json.Unmarshal(data, v, json.RejectUnknownMembers(true))
	if err == nil {
		return holdsNUL(data)
	}
	var own *Problem
	var sem *json.SemanticError
	if errors.As(err, &sem) {
		// What comes after may be no JSON at all, which is said first.
		var whole jsontext.Value
		if worse := json.Unmarshal(data, &whole); worse != nil {
			err = worse
		}
	}
	if errors.As(err, &sem) {
		field := fieldPath(sem.JSONPointer)
		switch {
		case errors.As(sem.Err, &own):
			if own.Field == "" {
				own.Field = field
			}
			if strings.HasPrefix(own.Detail, "is ") {
				own.Detail = own.Field + " " + own.Detail
			}
			return own
		case errors.Is(sem.Err, json.ErrUnknownName):
			p := fieldProblem(CodeUnknownField, field, "%s is not a field of this request.", field)
			if near := nearestField(v, sem.JSONPointer); near != "" {
				p = p.fixed("Did you mean %s?", near)
			}
			return p
		case field == "":
			return problem(CodeMalformed, "The body is %s; an object is wanted.", article(kindName(sem.JSONKind)))
		}
		want := typeName(sem.GoType)
		if sem.Err != nil && want == "" {
			return fieldProblem(CodeInvalid, field, "%s: %s.", field, sem.Err)
		}
		return fieldProblem(CodeInvalid, field, "%s is %s; %s is wanted.", field, article(kindName(sem.JSONKind)), article(want))
	}
	if syn, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		line, col := position(data, syn.ByteOffset)
		if errors.Is(syn.Err, jsontext.ErrDuplicateName) {
			field := fieldPath(syn.JSONPointer)
			return fieldProblem(CodeMalformedJSON, field, "%s stands twice, the second time at line %d column %d.", field, line, col)
		}
		if errors.Is(syn.Err, io.ErrUnexpectedEOF) {
			return problem(CodeMalformedJSON, "The JSON ends too early, at line %d column %d.", line, col)
		}
		return problem(CodeMalformedJSON, "Line %d column %d: %s.", line, col, strings.TrimPrefix(fmt.Sprint(syn.Err), "jsontext: "))
	}
	return problem(CodeMalformedJSON, "The body cannot be read as JSON.").because(err)
}

// holdsNUL refuses the one character that neither a message nor Postgres can hold. It is written as an escape: raw it is no JSON.
func holdsNUL(data []byte) *Problem {
	if !bytes.Contains(data, []byte(`\u0000`)) {
		return nil
	}
	d := jsontext.NewDecoder(bytes.NewReader(data))
	for token, err := d.ReadToken(); err == nil; token, err = d.ReadToken() {
		if token.Kind() == '"' && strings.IndexByte(token.String(), 0) >= 0 {
			field := strings.ReplaceAll(fieldPath(d.StackPointer()), "\x00", "")
			return fieldProblem(CodeInvalid, field, "%s holds the character U+0000, which no text can hold.", field)
		}
	}
	return nil // the escape was that of a backslash
}

// position turns a byte offset into line and column, both from 1, the column in characters.
func position(data []byte, offset int64) (line, col int) {
	before := string(data[:min(max(offset, 0), int64(len(data)))])
	line = strings.Count(before, "\n") + 1
	return line, utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
}

// fieldPath writes a JSON pointer as clients write fields: /destinations/2/number is destinations[2].number.
func fieldPath(p jsontext.Pointer) string {
	var b strings.Builder
	for tok := range p.Tokens() {
		if _, err := strconv.ParseUint(tok, 10, 32); err == nil && b.Len() > 0 {
			b.WriteString("[" + tok + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(truncate(tok, 100))
	}
	return b.String()
}

// truncate cuts s to at most n bytes, at a character.
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// kindName names what stands in the JSON.
func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "boolean"
	case '"':
		return "string"
	case '0':
		return "number"
	case '[':
		return "array"
	case '{':
		return "object"
	}
	return "value"
}

// article puts a or an before a noun.
func article(noun string) string {
	if noun == "null" {
		return noun
	}
	return cond(strings.ContainsRune("aeiou", rune(noun[0])), "an ", "a ") + noun
}

// typeName names what a Go type takes.
func typeName(t reflect.Type) string {
	if t == nil {
		return ""
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Uint, reflect.Uint32, reflect.Uint64:
		return "whole number"
	case reflect.Float64:
		return "number"
	case reflect.String:
		return "string"
	case reflect.Slice:
		return "array"
	case reflect.Struct, reflect.Map:
		return "object"
	default:
		return ""
	}
}

// nearestField finds the field that was probably meant: the same letters in another case, or one edit away.
func nearestField(v any, p jsontext.Pointer) string {
	if p.Parent() != "" {
		return ""
	}
	t := reflect.TypeOf(v).Elem()
	if t.Kind() != reflect.Struct {
		return ""
	}
	got := p.LastToken()
	for f := range fieldsOf(t) {
		if strings.EqualFold(f, got) || edits(strings.ToLower(f), strings.ToLower(truncate(got, 40))) <= 2 {
			return f
		}
	}
	return ""
}

// fieldsOf yields the JSON names of a struct.
func fieldsOf(t reflect.Type) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, f := range reflect.VisibleFields(t) {
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" && !yield(name) {
				return
			}
		}
	}
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost = 1 + min(diag, row[j], row[j+1])
			}
			diag, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// Optional is a field of a partial update: absent, null, or a value.
type Optional[T any] struct {
	Set   bool // the field was there
	Null  bool // and was null
	Value T
}

// UnmarshalJSONFrom reads the field.
func (o *Optional[T]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	o.Set = true
	if d.PeekKind() == 'n' {
		o.Null = true
		return d.SkipValue()
	}
	return json.UnmarshalDecode(d, &o.Value)
}

// MarshalJSONTo writes it.
func (o Optional[T]) MarshalJSONTo(e *jsontext.Encoder) error {
	if !o.Set || o.Null {
		return e.WriteToken(jsontext.Null)
	}
	return json.MarshalEncode(e, o.Value)
}

// IsZero reports whether the field was absent.
func (o Optional[T]) IsZero() bool { return !o.Set }

// Schema documents the field as a T that may be null.
func (Optional[T]) Schema(r huma.Registry) *huma.Schema {
	s := *r.Schema(reflect.TypeFor[T](), true, "")
	if s.Type != "" {
		s.Nullable = true
	} else if s.OneOf != nil {
		s.OneOf = append(slices.Clone(s.OneOf), &huma.Schema{Type: "null"})
	}
	return &s
}

// Money is an amount in micro-units of the currency beside it. In JSON it is a number with at least two decimals, as E writes
// it (250.00), and as many as it needs, so that nothing is rounded away.
type Money int64

// MarshalJSONTo writes the number.
func (m Money) MarshalJSONTo(e *jsontext.Encoder) error { return e.WriteValue(m.append(nil)) }

func (m Money) append(b []byte) []byte {
	if m == 0 {
		return append(b, '0')
	}
	u := uint64(m)
	if m < 0 {
		b = append(b, '-')
		u = -u
	}
	b = append(strconv.AppendUint(b, u/1e6, 10), '.')
	frac := fmt.Sprintf("%06d", u%1e6)
	return append(b, frac[:max(2, len(strings.TrimRight(frac, "0")))]...)
}

// String returns the number as JSON has it.
func (m Money) String() string { return string(m.append(nil)) }

// UnmarshalJSONFrom reads a number with up to six decimals, exactly.
func (m *Money) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	v, err := d.ReadValue()
	if err != nil {
		return err
	}
	if v.Kind() != '0' {
		return fieldProblem(CodeInvalid, "", "is %s; a number such as 250.00 is wanted.", article(kindName(v.Kind())))
	}
	n, ok := parseMoney(string(v))
	if !ok {
		return fieldProblem(CodeInvalid, "", "is not an amount of money: want a number such as 250.00 with at most 6 decimals.")
	}
	*m = n
	return nil
}

// Schema documents it.
func (Money) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeNumber, Description: "Amount of money; at least two decimals.", Examples: []any{250.00}}
}

func parseMoney(s string) (Money, bool) {
	neg := strings.HasPrefix(s, "-")
	whole, frac, _ := strings.Cut(strings.TrimPrefix(s, "-"), ".")
	frac = strings.TrimRight(frac, "0")
	if whole == "" || len(frac) > 6 || len(whole) > 12 {
		return 0, false
	}
	n, err := strconv.ParseUint(whole+frac+strings.Repeat("0", 6-len(frac)), 10, 63)
	if err != nil {
		return 0, false
	}
	if neg {
		return -Money(n), true
	}
	return Money(n), true
}

// StringList is a string or an array of strings (C27). It is written back as it came.
type StringList struct {
	Values []string
	Array  bool
}

// UnmarshalJSONFrom reads either form.
func (l *StringList) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	switch d.PeekKind() {
	case '"':
		l.Values = make([]string, 1)
		return json.UnmarshalDecode(d, &l.Values[0])
	case '[':
		l.Array = true
		return json.UnmarshalDecode(d, &l.Values)
	}
	return fieldProblem(CodeInvalid, "", "is %s; a string or an array of strings is wanted.", article(kindName(d.PeekKind())))
}

// MarshalJSONTo writes a string, or an array when there are several.
func (l StringList) MarshalJSONTo(e *jsontext.Encoder) error {
	if len(l.Values) == 1 && !l.Array {
		return e.WriteToken(jsontext.String(l.Values[0]))
	}
	if len(l.Values) == 0 {
		return e.WriteToken(jsontext.Null)
	}
	return json.MarshalEncode(e, l.Values)
}

// Schema documents both forms.
func (StringList) Schema(huma.Registry) *huma.Schema {
	str := &huma.Schema{Type: huma.TypeString}
	return &huma.Schema{OneOf: []*huma.Schema{str, {Type: huma.TypeArray, Items: str}}, Examples: []any{"list_12345"}}
}
