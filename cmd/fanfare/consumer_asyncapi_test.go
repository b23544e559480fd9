package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"testing"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// checkAsyncAPI compares records with their public description.
func checkAsyncAPI(t *testing.T, message string, records []*kgo.Record) {
	t.Helper()
	raw, err := os.ReadFile("../../schemas/asyncapi/asyncapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := yaml.Parser().Unmarshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err = json.Marshal(tree); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Components struct {
			Messages map[string]struct {
				Headers struct {
					Required   []string
					Properties map[string]struct{ Const, Pattern string }
				}
				Bindings struct {
					Kafka struct{ Key struct{ Pattern string } }
				}
			}
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	m, ok := doc.Components.Messages[message]
	if !ok || len(records) == 0 {
		t.Fatalf("%s: described: %v; %d records", message, ok, len(records))
	}
	patterns := map[string]*regexp.Regexp{"": regexp.MustCompile(m.Bindings.Kafka.Key.Pattern)}
	for name, p := range m.Headers.Properties {
		patterns[name] = regexp.MustCompile(p.Pattern)
	}
	wrong := map[string]string{}
	for _, r := range records {
		if !patterns[""].Match(r.Key) {
			wrong["key"] = string(r.Key)
		}
		has := map[string]bool{}
		for _, h := range r.Headers {
			has[h.Key] = true
			p, ok := m.Headers.Properties[h.Key]
			if !ok || p.Const != "" && p.Const != string(h.Value) || !patterns[h.Key].Match(h.Value) {
				wrong["header "+h.Key] = string(h.Value)
			}
		}
		for _, h := range m.Headers.Required {
			if !has[h] {
				wrong["header "+h] = "missing"
			}
		}
		var value proto.Message = &fanfarev1.Delivery{}
		if message == "campaign" {
			value = &fanfarev1.Campaign{}
		}
		if err := proto.Unmarshal(r.Value, value); err != nil || len(value.ProtoReflect().GetUnknown()) > 0 {
			wrong["value"] = fmt.Sprintf("%v, %d unknown bytes", err, len(value.ProtoReflect().GetUnknown()))
		}
	}
	for what, got := range wrong {
		t.Errorf("%s: %s is not as AsyncAPI describes it, such as %q", message, what, got)
	}
	t.Logf("%d records of %s are as described", len(records), message)
}
