package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
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
		Tags  []struct{ Name, Description string }
		Paths map[string]map[string]struct {
			OperationID string
			Summary     string
			Description string
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
	tags := map[string]bool{}
	for _, tag := range doc.Tags {
		if tags[tag.Name] = true; tag.Description == "" {
			t.Errorf("tag %s has no description", tag.Name)
		}
	}
	operations := 0
	for path, item := range doc.Paths {
		for method, op := range item {
			operations++
			if op.Summary == "" || len(op.Tags) != 1 || len(op.Security) == 0 {
				t.Errorf("%s %s: got summary %q, tags %v, security %v, want all of them", method, path, op.Summary, op.Tags, op.Security)
			}
			if op.Description == "" || !strings.HasSuffix(op.Description, ".") || op.Description == op.Summary {
				t.Errorf("%s %s: got the description %q, want a sentence", method, path, op.Description)
			}
			for _, tag := range op.Tags {
				if !tags[tag] {
					t.Errorf("%s %s: its tag %s is not among those of the document", method, path, tag)
				}
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

// Each example of a body is one that the server takes, and says back as it was sent: one campaign for each channel.
func TestExamplesOfCampaigns(t *testing.T) {
	raw, err := api.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]struct {
			Post struct {
				RequestBody struct {
					Content map[string]struct {
						Examples map[string]struct{ Value json.RawMessage }
					}
				}
			}
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	w := newEnv(t)
	w.list("Customers", 1, 0)
	w.agent("Acme Agent")
	w.way("Acme WhatsApp", "whatsapp", "+390612345679")
	w.way("Acme phone", "voice", "+390612345678")
	w.template("spring_card", "rcs", "Hi {{1}}, look what is new.", `"agent":"Acme Agent"`)
	w.template("order_shipped", "whatsapp", "Hi {{1}}, your order is on its way.", `"language":"it","category":"utility"`)
	examples := doc.Paths["/api/campaigns"].Post.RequestBody.Content["application/json"].Examples
	for name, channel := range map[string]string{"sms": "sms", "rcs": "rcs", "whatsapp": "whatsapp", "voice": "voice"} {
		body := examples[name].Value
		if body == nil {
			t.Errorf("there is no example %s", name)
			continue
		}
		made := w.call("POST", "/api/campaigns", string(body)).want(201)
		subset(t, name, made.body, fmt.Sprintf(`{"channel":%q,"status":"configured"}`, channel))
		w.call("GET", "/api/campaigns/"+made.id()+"/price", "").want(200)
	}
	if len(examples) != 4 {
		t.Errorf("got %d examples, want one for each channel", len(examples))
	}
}
