package problem

import (
	"reflect"
	"slices"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Optional is a field of a partial update: absent, null, or a value.
type Optional[T any] struct {
	Set   bool // the body has the field
	Null  bool // the field is null
	Value T
}

// UnmarshalJSONFrom reads the value or null.
func (o *Optional[T]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	o.Set = true
	if d.PeekKind() == 'n' {
		o.Null = true
		return d.SkipValue()
	}
	return json.UnmarshalDecode(d, &o.Value)
}

// MarshalJSONTo writes the value or null.
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
