package problem_test

import (
	"testing"

	"fanfare/api/problem"
)

// What is wrong with a body is reported with its field or its place.
func TestDecode(t *testing.T) {
	type item struct {
		Count int `json:"count"`
	}
	type body struct {
		Name  string `json:"name"`
		Items []item `json:"items"`
	}
	for _, c := range []struct {
		name, in            string
		code                problem.Code
		field, detail, want string // want: what was read
	}{
		{"good", `{"name":"a"}`, "", "", "", "a"},
		{"byte order mark", "\xef\xbb\xbf" + `{"name":"a"}`, "", "", "", "a"},
		{"unknown field", `{"nmae":"a"}`, problem.CodeUnknownField, "nmae", "nmae is not a field of this request.", ""}, //nolint:misspell // on purpose
		{"wrong type deep inside", `{"items":[{"count":1},{"count":"x"}]}`, problem.CodeInvalid, "items[1].count", "items[1].count is a string; want a whole number.", ""},
		{"field twice", `{"name":"a",` + "\n" + ` "name":"b"}`, problem.CodeMalformedJSON, "name", "name occurs twice, the second time at line 2 column 2.", ""},
		{"cut off", `{"name":`, problem.CodeMalformedJSON, "", "The JSON ends too early, at line 1 column 9.", ""},
		{"not an object", `[]`, problem.CodeMalformed, "", "The body is an array; want an object.", ""},
		{"U+0000", `{"name":"a\u0000b"}`, problem.CodeInvalid, "name", "name has the character U+0000, which is not allowed.", ""},
	} {
		var got body
		p := problem.Decode([]byte(c.in), &got)
		if p == nil {
			if c.code != "" || got.Name != c.want {
				t.Errorf("%s: got name %q and no problem, want %q, code %q", c.name, got.Name, c.want, c.code)
			}
			continue
		}
		if p.Code != c.code || p.Field != c.field || p.Detail != c.detail {
			t.Errorf("%s: got %s of %q: %s; want %s of %q: %s", c.name, p.Code, p.Field, p.Detail, c.code, c.field, c.detail)
		}
	}
}
