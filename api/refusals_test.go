package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"fanfare/api/problem"
	"fanfare/api/store"
)

// documented is an operation as the document has it.
type documented struct {
	method, path string
	OperationID  string
	Parameters   []struct {
		Name, In string
		Required bool
		Schema   jsonSchema
	}
	RequestBody *struct {
		Required bool
		Content  map[string]struct{ Schema jsonSchema }
	}
	Responses map[string]any
}

// jsonSchema is as much of a schema as says which kinds of values it takes.
type jsonSchema struct {
	Ref                  string `json:"$ref"`
	Type                 any
	Enum                 []any
	OneOf                []jsonSchema
	Properties           map[string]jsonSchema
	Items                *jsonSchema
	AdditionalProperties any
}

// takes reports whether the schema takes values of a JSON type.
func (s jsonSchema) takes(kind string) bool {
	switch t := s.Type.(type) {
	case string:
		return t == kind || t == "number" && kind == "integer"
	case []any:
		return slices.ContainsFunc(t, func(one any) bool { return jsonSchema{Type: one}.takes(kind) })
	}
	return slices.ContainsFunc(s.OneOf, func(one jsonSchema) bool { return one.takes(kind) })
}

// readDocument reads the committed document.
func readDocument(t testing.TB) []byte {
	t.Helper()
	raw, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// documentedOperations are those of the committed document, with the schemas of their bodies in place.
func documentedOperations(t testing.TB) []documented {
	t.Helper()
	raw := readDocument(t)
	var doc struct {
		Paths      map[string]map[string]documented
		Components struct{ Schemas map[string]jsonSchema }
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	var out []documented
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(doc.Paths[path])) {
			op := doc.Paths[path][method]
			op.method, op.path = strings.ToUpper(method), path
			if op.RequestBody != nil {
				for ctype, c := range op.RequestBody.Content {
					if name, ok := strings.CutPrefix(c.Schema.Ref, "#/components/schemas/"); ok {
						c.Schema = doc.Components.Schemas[name]
						op.RequestBody.Content[ctype] = c
					}
				}
			}
			out = append(out, op)
		}
	}
	return out
}

// refused checks an answer to something that is no request: below 500, a whole problem, a code of the catalogue with
// its status, and a status that the document names.
func (op *documented) refused(t *testing.T, a *answer, what string) (code string) {
	t.Helper()
	a.what = fmt.Sprintf("%s %s, %s", op.method, op.path, what)
	if a.status < 400 || a.status >= 500 {
		t.Errorf("%s: got %d %.300s, want it refused", a.what, a.status, a.body)
		return ""
	}
	code, _ = a.object()["code"].(string)
	if !slices.Contains(problem.Codes(), problem.Code(code)) || problem.Code(code).Status() != a.status {
		t.Errorf("%s: got %d %q, want a code of the catalogue with its status", a.what, a.status, code)
		return code
	}
	field, _ := a.object()["field"].(string)
	a.problem(a.status, code, field)
	if op.Responses[fmt.Sprint(a.status)] == nil {
		t.Errorf("%s: got %d, which the document does not name", a.what, a.status)
	}
	return code
}

// The test sends requests to every operation of the committed document, each with one error: no key, an id that does
// not exist, a parameter of another type, no body, a body that is not JSON or has another type, an unknown field, or a
// text that is too long. The API names what it refuses (requirements 2b), and no such request changes anything.
func TestEveryOperationRefuses(t *testing.T) {
	w := newEnv(t)
	w.relay()
	w.list("l", 1, 0)
	contact := w.call("POST", "/api/contacts", `{"phoneNumber":"+393339999999"}`).want(201).id()
	values := map[string]string{"string": `"x"`, "integer": `17`, "number": `17.5`, "boolean": `true`, "array": `[[]]`, "object": `{"no such field":[]}`}
	long := strings.Repeat("x", 20_000)
	ops := documentedOperations(t)
	if len(ops) < 40 {
		t.Fatalf("got %d operations, want all", len(ops))
	}
	w.key = w.newKey(w.tenant.ID, store.Scopes, false) // operators' operations too
	for _, op := range ops {
		op := &op
		campaign := w.campaign(1, "") // no wrong request is the reason that the next is refused
		path := w.at(op.path, campaign, "l", contact)
		path = strings.NewReplacer("{seq}", "0", "{importId}", "imp_none", "{customerMessageId}", "nobody", "{id}", "msg_none").Replace(path)
		path = strings.Replace(path, "{tag}", "none", 1)
		if got := op.refused(t, w.callAs("", op.method, path, ""), "no key"); got != "unauthenticated" {
			t.Errorf("%s %s without a key: got %s", op.method, op.path, got)
		}
		body := func() string { // what a body that is required needs to get as far as the parameters
			if strings.HasPrefix(op.path, "/api/tags/") && op.RequestBody != nil {
				return `{"tag":"x"}`
			}
			if op.RequestBody != nil && op.RequestBody.Required {
				return "{}"
			}
			return ""
		}
		ctype := header{"Content-Type", "application/json"}
		if op.RequestBody != nil && op.RequestBody.Content["text/csv"].Schema.Type != nil {
			ctype.value = "text/csv"
		}
		if strings.Contains(op.path, "{") {
			nobody := op.path[:strings.IndexByte(op.path, '{')] + "nobody" + strings.Replace(op.path[strings.IndexByte(op.path, '}')+1:], "{importId}", "x", 1)
			nobody = strings.Replace(nobody, "{seq}", "0", 1)
			// Which needs a signed link, see TestExportLink
			if got := op.refused(t, w.call(op.method, nobody, body(), ctype), "an id that does not exist"); got != "not_found" && !strings.HasSuffix(op.path, "/download") {
				t.Errorf("%s %s of an id that does not exist: got %s", op.method, op.path, got)
			}
		}
		for _, p := range op.Parameters {
			if p.In != "query" {
				continue
			}
			var wrong []string
			if p.Schema.takes("integer") {
				wrong = append(wrong, "x", "-1", "1.5", "99999999999999999999")
			}
			if p.Schema.takes("boolean") || p.Schema.Enum != nil {
				wrong = append(wrong, "perhaps")
			}
			for _, v := range append(wrong, "%00", "%ff", "%zz") {
				a := w.call(op.method, path+"?"+p.Name+"="+v, body(), ctype)
				if code := op.refused(t, a, p.Name+"="+v); code != "" && !strings.HasPrefix(v, "%") && a.object()["field"] != p.Name {
					t.Errorf("%s: got field %v, want %s", a.what, a.object()["field"], p.Name)
				}
			}
			if p.Required {
				if got := op.refused(t, w.call(op.method, path, body(), ctype), "without "+p.Name); got != "required" {
					t.Errorf("%s %s without %s: got %s", op.method, op.path, p.Name, got)
				}
			}
		}
		if op.RequestBody == nil {
			continue
		}
		if ctype.value == "text/csv" {
			op.refused(t, w.call(op.method, path, "", ctype), "an empty file")
			op.refused(t, w.call(op.method, path, "x", header{"Content-Type", "application/pdf"}), "a file of another type")
			continue
		}
		if op.RequestBody.Required {
			if got := op.refused(t, w.call(op.method, path, ""), "no body"); got != "body_required" {
				t.Errorf("%s %s without a body: got %s", op.method, op.path, got)
			}
		}
		for _, wrong := range []struct{ what, body, ctype, code string }{
			{"no JSON", "nonsense", "application/json", "malformed_json"},
			{"half of it", `{"a":`, "application/json", "malformed_json"},
			{"another type", "[]", "application/json", "malformed_request"},
			{"an unknown field", `{"no_such_field":1}`, "application/json", "unknown_field"},
			{"XML", "<a/>", "text/xml", "unsupported_media_type"},
			{"2 MiB", `{"x":"` + strings.Repeat(long, 110) + `"}`, "application/json", "body_too_large"},
		} {
			if got := op.refused(t, w.call(op.method, path, wrong.body, header{"Content-Type", wrong.ctype}), wrong.what); got != wrong.code {
				t.Errorf("%s %s, %s: got %s, want %s", op.method, op.path, wrong.what, got, wrong.code)
			}
		}
		for name, schema := range op.RequestBody.Content["application/json"].Schema.Properties {
			for kind, value := range values {
				if schema.takes(kind) && kind != "object" && kind != "array" {
					continue
				}
				if kind == "object" && (name == "configuration" || name == "credentials") { // any object may be one
					continue
				}
				a := w.call(op.method, path, fmt.Sprintf(`{%q:%s}`, name, value))
				if op.refused(t, a, name+" is "+kind); !strings.HasPrefix(fmt.Sprint(a.object()["field"]), name) {
					t.Errorf("%s: got %.300s, want field %s", a.what, a.body, name)
				}
			}
			for kind, value := range map[string]string{"string": fmt.Sprintf("%q", long), "array": fmt.Sprintf("[%q]", long), "object": fmt.Sprintf(`{"a":%q}`, long)} {
				if !schema.takes(kind) {
					continue
				}
				a := w.call(op.method, path, fmt.Sprintf(`{%q:%s}`, name, value))
				if op.refused(t, a, name+" is a long "+kind); len(a.body) > 4000 {
					t.Errorf("%s: got %d bytes, want an answer that does not echo", a.what, len(a.body))
				}
			}
		}
		if c := w.call("GET", "/api/campaigns/"+campaign, ""); c.status == 200 && strings.Contains(op.path, "campaigns/") && op.RequestBody != nil {
			if got := c.object(); got["state"] != "configured" && got["state"] != "cost_calculated" || got["name"] != "C" {
				t.Errorf("%s %s: got %s after nothing but wrong requests", op.method, op.path, c.body)
			}
		}
	}
}
