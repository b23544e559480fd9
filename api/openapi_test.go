package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"

	"fanfare/api"
)

var update = flag.Bool("update", false, "rewrite schemas/openapi/openapi.json")

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
		t.Errorf("%s is not what the code says; `go generate ./api` rewrites it", document)
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

// Every property, parameter and header of an answer has a description that says more than its name, and the document
// says where the server is.
func TestOpenAPIDescribesEverything(t *testing.T) {
	raw, err := api.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Servers []struct{ URL, Description string }
		Paths   map[string]map[string]struct {
			OperationID string
			Parameters  []struct{ Name, In, Description string }
			RequestBody struct {
				Content map[string]struct{ Schema any }
			}
			Responses map[string]struct {
				Headers map[string]struct{ Description string }
				Content map[string]struct{ Schema any }
			}
		}
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Servers) != 1 || doc.Servers[0].URL != "/" || doc.Servers[0].Description == "" {
		t.Errorf("got the servers %+v, want one with a description, at /", doc.Servers)
	}
	letters := func(s string) string {
		return strings.Map(func(r rune) rune {
			if unicode.IsLetter(r) {
				return unicode.ToLower(r)
			}
			return -1
		}, s)
	}
	count := 0
	check := func(what, name, text string) {
		if count++; text == "" || letters(text) == letters(name) {
			t.Errorf("%s is described as %q", what, text)
		}
	}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		schema, ok := v.(map[string]any)
		if !ok {
			return
		}
		properties, _ := schema["properties"].(map[string]any)
		for name, p := range properties {
			text, _ := p.(map[string]any)["description"].(string)
			check(at+"."+name, name, text)
			walk(at+"."+name, p)
		}
		for _, one := range []string{"items", "additionalProperties"} {
			walk(at, schema[one])
		}
		for _, several := range []string{"oneOf", "anyOf", "allOf"} {
			list, _ := schema[several].([]any)
			for _, s := range list {
				walk(at, s)
			}
		}
	}
	for name, schema := range doc.Components.Schemas {
		walk(name, schema)
	}
	for _, item := range doc.Paths {
		for _, op := range item {
			for _, p := range op.Parameters {
				check(op.OperationID+": the parameter "+p.Name+" in the "+p.In, p.Name, p.Description)
			}
			for _, media := range op.RequestBody.Content {
				walk(op.OperationID, media.Schema)
			}
			for status, answer := range op.Responses {
				for name, h := range answer.Headers {
					check(op.OperationID+": the header "+name+" of "+status, name, h.Description)
				}
				for _, media := range answer.Content {
					walk(op.OperationID+" "+status, media.Schema)
				}
			}
		}
	}
	if count < 2000 {
		t.Errorf("%d descriptions were looked at, want all", count)
	}
}

// A field that takes one of several words says which.
func TestOpenAPIEnums(t *testing.T) {
	d := newDocument(t)
	channels := "sms rcs whatsapp voice"
	for property, want := range map[string]string{
		"CampaignInput.channel": channels + " null", "CampaignInput.amdAction": "hangup voicemail null", "CampaignInput.missingField": "default empty fail null",
		"CampaignInput.sendingMode": "RCS RCS_SMS SMS VOICE WHATSAPP WHATSAPP_RCS WHATSAPP_RCS_SMS WHATSAPP_SMS null",
		"CampaignInput.trafficType": "outbound inbound_outbound null",
		"CampaignCreate.channel":    channels + " null",
		"TemplateCreate.channel":    channels, // required, so not null
		"TemplateInput.channel":     channels + " null",
		"TemplateInput.type":        "text rich_card carousel media call null",
		"TemplateInput.category":    "marketing utility authentication null",
		"WebhookInput.status":       "active paused null",
		"WebhookInput.events":       "DELIVERY READ CLICK OPT_OUT INBOUND CAMPAIGN ENDPOINT",
		"WebhookInput.statuses":     "SENT DELIVERED ERROR EXPIRED",
		"WebhookInput.channels":     channels,
		"KeyInput.scopes":           "read campaigns confirm contacts send admin",
		"UserInput.role":            "viewer editor approver null",
		"RouteInput.connector":      "sim smpp httpsms rcs whatsapp voice null",
		"RouteInput.channels":       channels,
		"SendDestination.reasons":   "INVALID_NUMBER OPTED_OUT DUPLICATE_RECIPIENT NOT_ACKNOWLEDGED",
		"Stats.state":               "draft configured cost_calculated ready scheduled preparing sending paused suspended completed cancelled aborted rejected failed",
		"Group.status":              "pending ambiguous notSent skipped awaiting undelivered delivered",
		"CampaignEvent.actor":       "user approver guard scheduler operator",
		"Member.channel":            channels + " null",
		"MessageHistory.channel":    channels + " null",
		"Export.format":             "csv ndjson xlsx parquet",
		"AuditFigure.unit":          "recipients money",
		"PriceRowInput.channel":     channels + " null",
		"SuppressionInput.channel":  "all " + channels,
		"Campaign.encoding":         "GSM-7 UCS-2 null",
		"AgentInput.region":         "europe us asia null",
		"ChannelInput.channel":      "sms whatsapp voice null",
		"SenderInput.type":          "alphanumeric number short_code null",
		"ReplayInput.statuses":      "Delivered UnDelivered NotSent Sent",
		"Campaign.trafficType":      "outbound inbound_outbound",
		"Contact.numberType":        "unknown mobile fixed_line other premium_rate freephone shared_cost voip personal pager uan voicemail satellite",
		"LedgerEntry.from":          "outside available reserved captured",
		"ChannelInput.status":       "active paused null",
		"Campaign.allowedActions":   "abort ambiguous confirm delete duplicate edit pause price remove reschedule resume start unschedule",
		"Key.scopes":                "read campaigns confirm contacts send admin",
		"FallbackInput.channel":     "rcs sms",
		"Webhook.events":            "DELIVERY READ CLICK OPT_OUT INBOUND CAMPAIGN ENDPOINT",
		"Price.encoding":            "GSM-7 UCS-2 null",
		"SubStatusPart.status":      "pending ambiguous notSent skipped awaiting undelivered delivered",
		"StatsEvent.state":          "draft configured cost_calculated ready scheduled preparing sending paused suspended completed cancelled aborted rejected failed",
	} {
		schema, name, _ := strings.Cut(property, ".")
		p := d.property(schema, name)
		if items, ok := p["items"].(map[string]any); ok {
			p = items
		}
		values, _ := p["enum"].([]any)
		var got []string
		for _, v := range values {
			if got = append(got, fmt.Sprint(v)); v == nil {
				got[len(got)-1] = "null"
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s takes %v, want %s", property, got, want)
		}
	}
	statuses, _ := d.property("Stats", "status")["enum"].([]any)
	// Of all vocabularies
	for _, word := range []any{"draft", "cost_calculated", "sending", "completed", "Submitted", "Running", "Finished"} {
		if !slices.Contains(statuses, word) {
			t.Errorf("Stats.status takes %v, want %s among them", statuses, word)
		}
	}
	for id, op := range d.operations {
		for _, p := range op.Parameters {
			if p.Name == "vocab" && fmt.Sprint(p.Schema["enum"]) != "[a b c d e]" {
				t.Errorf("%s: vocab takes %v, want a to e", id, p.Schema["enum"])
			}
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
