package api

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"fanfare/api/problem"
)

// Money is an amount in micro-units of the tenant's currency. In JSON it is a number with two decimals, as E writes it
// (250.00), and up to six when the amount needs them: amounts are never rounded.
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

// String returns the number as in JSON.
func (m Money) String() string { return string(m.append(nil)) }

// UnmarshalJSONFrom reads a number with up to six decimals, exactly.
func (m *Money) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	v, err := d.ReadValue()
	if err != nil {
		return err
	}
	if v.Kind() != '0' {
		return problem.Field(problem.CodeInvalid, "", "is %s; want a number such as 250.00.", problem.KindName(v.Kind()))
	}
	n, ok := parseMoney(string(v))
	if !ok {
		return problem.Field(problem.CodeInvalid, "", "is not an amount of money: want a number such as 250.00 with at most 6 decimals.")
	}
	*m = n
	return nil
}

// Schema documents it.
func (Money) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeNumber, Format: "double", Description: "Amount of money; at least two decimals.", Examples: []any{250.00}}
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

// StringList is a string or an array of strings (C27). It is written in the form in which it was read; null when empty.
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
	return problem.Field(problem.CodeInvalid, "", "is %s; want a string or an array of strings.", problem.KindName(d.PeekKind()))
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
