package problem

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Body is a JSON body that is read strictly. An unknown name, a name that occurs twice and a value of the wrong type
// become problems that name the field; a body that is not JSON becomes a problem with line and column. huma's own
// reader would parse the body twice, lose the field, and quote the body in its error.
type Body[T any] struct {
	Value T
	err   *Problem
}

// Schema documents the body as a T.
func (Body[T]) Schema(r huma.Registry) *huma.Schema {
	return r.Schema(reflect.TypeFor[T](), true, "")
}

// Resolve returns the problem of the body to huma, which reports it after the problems of the parameters.
func (b *Body[T]) Resolve(huma.Context) []error {
	if b.err == nil {
		return nil
	}
	return []error{b.err}
}

func (b *Body[T]) decode(data []byte) { b.err = Decode(data, &b.Value) }

// bodyDecoder is a [Body] of any type.
type bodyDecoder interface{ decode(data []byte) }

// JSONFormat is huma's format for application/json: request bodies are read strictly, answers are written with sorted
// keys.
func JSONFormat() huma.Format {
	return huma.Format{
		Marshal: func(w io.Writer, v any) error { return json.MarshalWrite(w, v, json.Deterministic(true)) },
		Unmarshal: func(data []byte, v any) error {
			if p := reflect.ValueOf(v).Elem(); p.Kind() == reflect.Pointer { // an optional body
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

// IsJSON reports whether a body of that content type is read as JSON. E's examples use curl -d without a content type.
// curl then sends the content type of a form, so a body with that type is read as JSON too.
func IsJSON(ct string) bool {
	ct, _, _ = strings.Cut(ct, ";")
	ct = strings.ToLower(strings.TrimSpace(ct))
	return ct == "" || ct == "application/json" || ct == "application/x-www-form-urlencoded" || ct == "text/json" || strings.HasSuffix(ct, "+json")
}

// byteOrderMark of UTF-8, which some Windows programs write before JSON.
var byteOrderMark = []byte("\xef\xbb\xbf")

// Decode reads data strictly into v.
func Decode(data []byte, v any) *Problem {
	data = bytes.TrimPrefix(data, byteOrderMark)
	err := json.Unmarshal(data, v, json.RejectUnknownMembers(true))
	if err == nil {
		return holdsNUL(data)
	}
	var own *Problem
	var sem *json.SemanticError
	if errors.As(err, &sem) {
		// When the rest of the body is not even JSON, that is the error to report.
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
			p := Field(CodeUnknownField, field, "%s is not a field of this request.", field)
			if near := nearestField(v, sem.JSONPointer); near != "" {
				p = p.WithFix("Did you mean %s?", near)
			}
			return p
		case field == "":
			return New(CodeMalformed, "The body is %s; want an object.", KindName(sem.JSONKind))
		}
		want := typeName(sem.GoType)
		if sem.Err != nil && want == "" {
			return Field(CodeInvalid, field, "%s: %s.", field, sem.Err)
		}
		return Field(CodeInvalid, field, "%s is %s; want %s.", field, KindName(sem.JSONKind), article(want))
	}
	if syn, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		line, col := position(data, syn.ByteOffset)
		if errors.Is(syn.Err, jsontext.ErrDuplicateName) {
			field := fieldPath(syn.JSONPointer)
			return Field(CodeMalformedJSON, field, "%s occurs twice, the second time at line %d column %d.", field, line, col)
		}
		if errors.Is(syn.Err, io.ErrUnexpectedEOF) {
			return New(CodeMalformedJSON, "The JSON ends too early, at line %d column %d.", line, col)
		}
		return New(CodeMalformedJSON, "Line %d column %d: %s.", line, col, strings.TrimPrefix(fmt.Sprint(syn.Err), "jsontext: "))
	}
	return New(CodeMalformedJSON, "The body cannot be read as JSON.").Because(err)
}

// holdsNUL returns a problem if a string has U+0000, which neither a message nor Postgres can store. JSON can contain
// it only as an escape.
func holdsNUL(data []byte) *Problem {
	if !bytes.Contains(data, []byte(`\u0000`)) {
		return nil
	}
	d := jsontext.NewDecoder(bytes.NewReader(data))
	for token, err := d.ReadToken(); err == nil; token, err = d.ReadToken() {
		if token.Kind() == '"' && strings.IndexByte(token.String(), 0) >= 0 {
			field := strings.ReplaceAll(fieldPath(d.StackPointer()), "\x00", "")
			return Field(CodeInvalid, field, "%s has the character U+0000, which is not allowed.", field)
		}
	}
	return nil // the six characters followed an escaped backslash
}

// position turns a byte offset into line and column. Both count from 1, the column in characters.
func position(data []byte, offset int64) (line, col int) {
	before := string(data[:min(max(offset, 0), int64(len(data)))])
	line = strings.Count(before, "\n") + 1
	return line, utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
}

// fieldPath converts a JSON pointer to the form that clients use: /destinations/2/number becomes
// destinations[2].number.
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
		b.WriteString(Truncate(tok, 100))
	}
	return b.String()
}

// KindName names a kind of JSON value, with its article: "a string", "an array", "null".
func KindName(k jsontext.Kind) string { return article(kindName(k)) }

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

// article returns a noun with a or an before it.
func article(noun string) string {
	if noun == "null" {
		return noun
	}
	if noun != "" && strings.ContainsRune("aeiou", rune(noun[0])) {
		return "an " + noun
	}
	return "a " + noun
}

// typeName names the JSON value that a Go type is read from.
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

// nearestField returns the field that the client probably meant: it differs only in case, or by at most two edits.
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
		if strings.EqualFold(f, got) || edits(strings.ToLower(f), strings.ToLower(Truncate(got, 40))) <= 2 {
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

// edits returns the Levenshtein distance.
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
