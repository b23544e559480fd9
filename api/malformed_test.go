package api_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"fanfare/api/store"

	"github.com/prometheus/client_golang/prometheus"
)

func newRegistry() *prometheus.Registry { return prometheus.NewRegistry() }

// bodyOf is an operation that takes a JSON object.
type bodyOf struct {
	method, path string
	optional     bool
	fields       map[string]any // name -> schema
}

// bodies reads from the document which operations take an object, and of which fields.
func bodies(t testing.TB) []bodyOf {
	t.Helper()
	raw, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			RequestBody struct {
				Required bool
				Content  map[string]struct {
					Schema struct {
						Ref string `json:"$ref"`
					}
				}
			}
		}
		Components struct {
			Schemas map[string]struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	var out []bodyOf
	for path, item := range doc.Paths {
		for method, op := range item {
			ref := op.RequestBody.Content["application/json"].Schema.Ref
			if ref == "" {
				continue
			}
			schema := doc.Components.Schemas[strings.TrimPrefix(ref, "#/components/schemas/")]
			out = append(out, bodyOf{strings.ToUpper(method), path, !op.RequestBody.Required, schema.Properties})
		}
	}
	return out
}

// at fills in the ids of a path.
func (w *env) at(path, campaign, list, contact string) string {
	switch {
	case strings.Contains(path, "/campaigns/"):
		return strings.Replace(path, "{id}", campaign, 1)
	case strings.Contains(path, "/contacts/list/"):
		return strings.Replace(path, "{id}", list, 1)
	}
	return strings.Replace(path, "{id}", contact, 1)
}

// The test sends malformed bodies to every operation that takes an object, by the OpenAPI document. A body that is not
// JSON gets 400 and the place of the error. JSON of another shape gets 400 or 422 and the name of the field. No such
// request changes anything or gets 500.
func TestMalformedBodies(t *testing.T) {
	w := newEnv(t)
	w.key = w.newKey(w.tenant.ID, store.Scopes, false) // operators' operations too
	w.relay()
	list, campaign := w.list("l", 1, 0), w.campaign(1, "")
	contact := w.call("POST", "/api/contacts", `{"phoneNumber":"+393339999999"}`).want(201).id()
	before := w.call("GET", "/api/campaigns/"+campaign, "").header.Get("ETag")
	deep := strings.Repeat(`{"a":`, 10_001) + "1" + strings.Repeat("}", 10_001)
	tried := 0
	for _, b := range bodies(t) {
		path := w.at(b.path, campaign, list, contact)
		for body, code := range map[string]string{
			"{":                       "malformed_json",
			"nonsense":                "malformed_json",
			"{\n \"a\": 1,\n}":        "malformed_json",
			`{"a":"` + "\xff" + `"}`:  "malformed_json",
			"{}{}":                    "malformed_json",
			"[]":                      "malformed_request",
			`"text"`:                  "malformed_request",
			"17":                      "malformed_request",
			`{"no_such_field":1}`:     "unknown_field",
			`{"no_such_field":{"a":[`: "",
			deep:                      "",
			`{"` + strings.Repeat("x", 5000) + `":1}`: "unknown_field",
		} {
			tried++
			a := w.call(b.method, path, body)
			a.what += " " + body[:min(len(body), 40)]
			if a.status != 400 && a.status != 422 {
				t.Errorf("%s: got %d %s, want 400 or 422", a.what, a.status, a.body)
				continue
			}
			p := a.object()
			if code != "" && p["code"] != code {
				t.Errorf("%s: got code %v, want %s: %s", a.what, p["code"], code, a.body)
			}
			if len(a.body) > 2000 {
				t.Errorf("%s: got %d bytes, want an answer that does not echo", a.what, len(a.body))
			}
		}
		if got := w.call(b.method, path, "{\n \"a\": ,\n}").object()["detail"].(string); !strings.Contains(strings.ToLower(got), "line 2 column 7") {
			t.Errorf("%s %s: got %q, want line 2 column 7", b.method, path, got)
		}
		for field := range b.fields {
			for _, value := range []string{`{"zz":1}`, `[[1]]`, `17.5`, `true`, `"\u0000"`, `1e999`} {
				tried++
				a := w.call(b.method, path, fmt.Sprintf(`{%q:%s}`, field, value))
				if a.status >= 500 {
					t.Errorf("%s %s with %s %s: got %d %s", b.method, path, field, value, a.status, a.body)
				}
				if a.status >= 400 && a.header.Get("Content-Type") != "application/problem+json" {
					t.Errorf("%s %s with %s %s: got %q, want a problem", b.method, path, field, value, a.header.Get("Content-Type"))
				}
				// No field takes an object of an unknown shape.
				if field != "configuration" && field != "credentials" && value == `{"zz":1}` && a.status < 400 {
					t.Errorf("%s %s with %s %s: got %d %s, want it refused", b.method, path, field, value, a.status, a.body)
				}
				// Any object may be a configuration; the connector says what is wrong with it.
				if field != "configuration" && field != "credentials" && value == `{"zz":1}` && !strings.HasPrefix(fmt.Sprint(a.object()["field"]), field) {
					t.Errorf("%s %s with %s %s: got %s, want field %s", b.method, path, field, value, a.body, field)
				}
			}
		}
		for field := range b.fields { // a name that comes twice means nothing
			a := w.call(b.method, path, fmt.Sprintf(`{%q:null,%q:null}`, field, field))
			a.problem(400, "malformed_json", field)
			break
		}
	}
	if tried < 200 {
		t.Errorf("tried %d bodies, want all operations", tried)
	}
	_ = before
	if got := w.call("GET", "/api/campaigns/"+campaign, "").want(200).object()["state"]; got != "configured" && got != "cost_calculated" && got != "draft" && got != "ready" {
		t.Errorf("after all that: got state %v", got)
	}
}

// The error for an unknown field suggests a known field with a similar name. Case matters.
func TestNearestField(t *testing.T) {
	w := newEnv(t)
	for got, want := range map[string]string{"contactlist": "contactList", "Name": "name", "mesage": "message", "sendImediately": "sendImmediately"} {
		p := w.call("POST", "/api/campaigns", fmt.Sprintf(`{%q:"x"}`, got)).problem(422, "unknown_field", got)
		if fix := p["fix"].(string); !strings.Contains(fix, want) {
			t.Errorf("%s: got fix %q, want %s in it", got, fix, want)
		}
	}
}

// Whatever bytes come as a body, of whatever operation: an answer below 500, and a problem when it is refused.
func FuzzBodies(f *testing.F) {
	for _, seed := range []string{docCreate, docUpdate, docGoal, docSend, docPhaseTwo, `{"scheduledTime":{"local":"2025-04-15T09:00","timezone":"Europe/Rome"}}`, `{"contactList":["a","b"]}`, `{"expectedCost":1e-7}`, `{"tags":["a",null]}`, `{"a":1,"a":2}`, "\xef\xbb\xbf{}", "[", `{"goalContactCount":9223372036854775808}`, `{"phoneNumber":"+39 333","message":"{{a}}","variables":{"a":"\ud800"}}`} {
		for i := range 4 {
			f.Add(i, []byte(seed))
		}
	}
	w := newEnvOf(f)
	w.relay()
	list, campaign := w.list("l", 1, 0), w.campaign(1, "")
	contact := w.call("POST", "/api/contacts", `{"phoneNumber":"+393339999999"}`).want(201).id()
	ops := bodies(f)
	f.Fuzz(func(t *testing.T, op int, body []byte) {
		b := ops[uint(op)%uint(len(ops))]
		r := httptest.NewRequest(b.method, w.at(b.path, campaign, list, contact), strings.NewReader(string(body)))
		r.Header.Set("X-Api-Key", w.key)
		r.Header.Set("Content-Type", "application/json")
		rec := httptest.NewRecorder()
		w.server.ServeHTTP(rec, r)
		if rec.Code >= 500 {
			t.Fatalf("%s %s %q: got %d %s", b.method, b.path, body, rec.Code, rec.Body)
		}
		if rec.Code >= 400 {
			var p map[string]any
			if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || p["code"] == nil || p["fix"] == nil {
				t.Fatalf("%s %s %q: got %d %s, want a problem", b.method, b.path, body, rec.Code, rec.Body)
			}
		}
	})
}
