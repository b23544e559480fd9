package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"fanfare/api"
)

var update = flag.Bool("update", false, "write schemas/openapi/openapi.json anew")

const document = "../schemas/openapi/openapi.json"

// The document that is committed is the one that the code describes itself with.
func TestOpenAPI(t *testing.T) {
	got, err := api.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(document, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the code says; `go generate ./api` writes it anew", document)
	}
	w := newEnv(t)
	if served := w.callAs("", "GET", "/api/openapi.json", "").want(200); !bytes.Equal(served.body, want) {
		t.Error("/api/openapi.json is another document than the committed one")
	}
}

// Every operation says what it needs and how it fails, and every reference leads somewhere.
func TestOpenAPIIsWhole(t *testing.T) {
	raw, err := api.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string
			Summary     string
			Tags        []string
			Security    []map[string][]string
			Parameters  []struct{ Name, In string }
			Responses   map[string]struct{ Content map[string]any }
		}
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	operations := 0
	for path, item := range doc.Paths {
		for method, op := range item {
			operations++
			if op.Summary == "" || len(op.Tags) != 1 || len(op.Security) == 0 {
				t.Errorf("%s %s: got summary %q, tags %v, security %v, want all of them", method, path, op.Summary, op.Tags, op.Security)
			}
			for _, status := range []string{"401", "403", "429", "503"} {
				if op.Responses[status].Content["application/problem+json"] == nil {
					t.Errorf("%s %s: got no problem for %s", method, path, status)
				}
			}
			keyed := false
			for _, p := range op.Parameters {
				keyed = keyed || p.Name == "Idempotency-Key"
				if p.In == "path" && !strings.Contains(path, "{"+p.Name+"}") {
					t.Errorf("%s %s: got parameter %s, which the path does not have", method, path, p.Name)
				}
			}
			if keyed != (method == "post") {
				t.Errorf("%s %s: got Idempotency-Key %v, want it on every POST and nowhere else (X12)", method, path, keyed)
			}
		}
	}
	if operations < 40 {
		t.Errorf("got %d operations, want all of them", operations)
	}
	for _, part := range strings.Split(string(raw), `"#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		if doc.Components.Schemas[name] == nil {
			t.Errorf("a reference to schema %s leads nowhere", name)
		}
	}
}
