package api_test

import (
	"encoding/json"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"fanfare/api"
)

// openAPIDocument is the document as a validator of JSON Schema reads it.
type openAPIDocument struct {
	*testing.T
	schemas    map[string]map[string]any
	operations map[string]openAPIOperation
}

type openAPIOperation struct {
	OperationID string
	Parameters  []struct {
		Name   string
		Schema map[string]any
	}
	RequestBody struct {
		Required bool
		Content  map[string]struct {
			Schema   map[string]any
			Examples map[string]struct{ Value any }
		}
	}
	method, path string
}

func newDocument(t *testing.T) *openAPIDocument {
	t.Helper()
	raw, err := api.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths      map[string]map[string]openAPIOperation
		Components struct{ Schemas map[string]map[string]any }
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	d := &openAPIDocument{t, doc.Components.Schemas, map[string]openAPIOperation{}}
	for path, item := range doc.Paths {
		for method, op := range item {
			op.method, op.path = strings.ToUpper(method), path
			d.operations[op.OperationID] = op
		}
	}
	return d
}

// property is a property of a schema of the document.
func (d *openAPIDocument) property(schema, name string) map[string]any {
	d.Helper()
	properties, _ := d.schemas[schema]["properties"].(map[string]any)
	p, _ := properties[name].(map[string]any)
	if p == nil {
		d.Errorf("there is no property %s.%s", schema, name)
	}
	return p
}

// body is the schema of an operation's body.
func (d *openAPIDocument) body(operation string) map[string]any {
	d.Helper()
	s := d.operations[operation].RequestBody.Content["application/json"].Schema
	if s == nil {
		d.Fatalf("the operation %s has no body", operation)
	}
	return d.resolve(s)
}

func (d *openAPIDocument) resolve(s map[string]any) map[string]any {
	ref, _ := s["$ref"].(string)
	if name, ok := strings.CutPrefix(ref, "#/components/schemas/"); ok {
		return d.schemas[name]
	}
	return s
}

// takes reports whether a value meets a schema, by the keywords of JSON Schema that the document says requirements
// with.
func (d *openAPIDocument) takes(s map[string]any, v any) bool {
	s = d.resolve(s)
	some := func(keyword string) (met int) {
		list, _ := s[keyword].([]any)
		for _, one := range list {
			if d.takes(one.(map[string]any), v) {
				met++
			}
		}
		return met
	}
	all, _ := s["allOf"].([]any)
	if s["allOf"] != nil && some("allOf") < len(all) || s["anyOf"] != nil && some("anyOf") == 0 || s["oneOf"] != nil && some("oneOf") != 1 {
		return false
	}
	if constant, ok := s["const"]; ok && constant != v {
		return false
	}
	if enum, ok := s["enum"].([]any); ok && !slices.Contains(enum, v) {
		return false
	}
	if condition, ok := s["if"].(map[string]any); ok {
		branch, _ := s["else"].(map[string]any)
		if d.takes(condition, v) {
			branch, _ = s["then"].(map[string]any)
		}
		if !d.takes(branch, v) {
			return false
		}
	}
	return d.takesType(s, v) && d.takesParts(s, v)
}

func (d *openAPIDocument) takesType(s map[string]any, v any) bool {
	types, _ := s["type"].([]any)
	if one, ok := s["type"].(string); ok {
		types = []any{one}
	}
	kind := map[reflect.Kind]string{reflect.String: "string", reflect.Bool: "boolean", reflect.Float64: "number", reflect.Slice: "array", reflect.Map: "object"}[reflect.ValueOf(v).Kind()]
	if v == nil {
		kind = "null"
	}
	n, _ := v.(float64)
	return len(types) == 0 || slices.Contains(types, any(kind)) || kind == "number" && n == math.Trunc(n) && slices.Contains(types, any("integer"))
}

func (d *openAPIDocument) takesParts(s map[string]any, v any) bool {
	if list, ok := v.([]any); ok && s["items"] != nil {
		for _, e := range list {
			if !d.takes(s["items"].(map[string]any), e) {
				return false
			}
		}
	}
	object, ok := v.(map[string]any)
	if !ok {
		return true
	}
	for _, name := range required(s) {
		if _, there := object[name]; !there {
			return false
		}
	}
	properties, _ := s["properties"].(map[string]any)
	for name, e := range object {
		p, known := properties[name].(map[string]any)
		if !known && s["additionalProperties"] == false || known && !d.takes(p, e) {
			return false
		}
	}
	return true
}

func required(s map[string]any) (out []string) {
	list, _ := s["required"].([]any)
	for _, name := range list {
		out = append(out, name.(string))
	}
	return out
}

// The schema of a body takes what the server takes, and refuses what it refuses: fields that are missing, also when
// they depend on others, and words that are not among those of the field. What a change takes has no required field.
func TestSchemasOfBodies(t *testing.T) {
	w := newEnv(t)
	w.relay()
	d := newDocument(t)
	w.key = w.admin()
	w.list("l", 1, 0)
	w.newTenant("Charlie")
	w.template("seasons", "sms", "Hi")
	campaign := w.campaign(1, "")
	for _, op := range []struct {
		id             string
		taken, refused []string
	}{
		{
			"createAgent",
			[]string{`{"name":"A"}`, `{"name":"A2","region":"us","status":"draft"}`},
			[]string{`{"name":"B","region":"mars"}`, `{"name":"B","trafficType":"spam"}`, `{"name":"B","status":"gone"}`},
		},
		{"createCampaign", []string{
			`{"name":"C","channel":"sms","message":"Hi","contactList":"l"}`, `{"name":"C","sendingMode":"SMS","message":"Hi","contactList":["l"]}`,
			`{"name":"C","channel":"sms","contactList":"l","variants":[{"name":"a","message":"Hi"},{"name":"b","message":"Ho"}]}`,
			`{"name":"C","channel":"sms","draft":true}`, `{"name":"C","sendingMode":"SMS","draft":true,"contactList":null}`,
			`{"name":"C","channel":"sms","message":"Hi","contactList":"l","missingField":"fail","trafficType":null}`,
		}, []string{
			`{"channel":"sms","draft":true}`, `{"name":"C","draft":true}`, `{"name":null,"channel":"sms","draft":true}`, `{"name":"C","channel":"sms","contactList":"l"}`,
			`{"name":"C","channel":"sms","message":"Hi"}`, `{"name":"C","message":"Hi","contactList":"l"}`, `{"name":"C","channel":"sms","draft":false}`,
			`{"name":"C","channel":"fax","draft":true}`, `{"name":"C","sendingMode":"FAX","draft":true}`, `{"name":"C","channel":"sms","draft":true,"trafficType":"x"}`,
			`{"name":"C","channel":"sms","draft":true,"missingField":"x"}`, `{"name":"C","channel":"voice","draft":true,"amdEnabled":true,"amdAction":"x"}`,
			`{"name":"C","channel":"sms","draft":true,"color":"red"}`,
		}},
		{
			"createChannel",
			[]string{`{"name":"W","channel":"whatsapp","address":"+393331234567"}`},
			[]string{`{"name":"X","channel":"rcs","address":"+393331234567"}`, `{"name":"X","channel":"voice","address":"+393331234567","status":"x"}`},
		},
		{"createContact", []string{`{"phoneNumber":"+393471234567"}`}, []string{`{"firstName":"Anna"}`, `{"phoneNumber":null}`}},
		{"createRate", []string{`{"channel":"sms","country":"FR","price":0.07}`}, []string{`{"channel":"fax","country":"ES","price":0.07}`}},
		{
			"createRoute",
			[]string{`{"name":"r1","connector":"sim","rate":10}`, `{"name":"r2","connector":"sim","rate":10,"channels":["rcs"]}`},
			[]string{`{"name":"r3","connector":"pigeon","rate":10}`, `{"name":"r3","connector":"sim","rate":10,"channels":["fax"]}`},
		},
		{"rescheduleCampaign", nil, []string{`{}`, `{"scheduledTime":null}`}},
		{
			"sendSMS",
			[]string{`{"phoneNumber":"+393471234568","message":"Hi"}`, `{"destination":["+393471234568"],"body":"Hi"}`, `{"destinations":"+393471234568","message":"Hi"}`},
			[]string{`{"message":"Hi"}`, `{"phoneNumber":"+393471234568"}`, `{}`},
		},
		{"createSender", []string{`{"name":"ACME"}`}, []string{`{"name":"ACME2","type":"x"}`}},
		{
			"createTemplate",
			[]string{`{"name":"t1","channel":"sms","body":"Hi"}`, `{"name":"t2","channel":"whatsapp","body":"Hi","category":"utility"}`},
			[]string{`{"name":"t3","channel":"fax","body":"Hi"}`, `{"name":"t3","channel":"rcs","body":"Hi","type":"x"}`, `{"name":"t3","channel":"whatsapp","body":"Hi","category":"x"}`},
		},
		{"rejectTemplate", []string{`{"reason":"No."}`}, []string{`{}`}},
		{"createTenant", []string{`{"name":"Bravo"}`}, []string{`{"region":"IT"}`}},
		{"addCredit", []string{`{"amount":5}`, `{"unlimited":true}`}, []string{`{}`, `{"note":"Hi"}`, `{"unlimited":false}`}},
		{
			"createUser",
			[]string{`{"email":"anna@example.com","role":"viewer"}`, `{"email":"bob@example.com","operator":true}`},
			[]string{`{"email":"carl@example.com"}`, `{"email":"carl@example.com","role":"boss"}`, `{"email":"carl@example.com","operator":false}`, `{"operator":true}`},
		},
		{
			"createWebhook",
			[]string{`{"url":"https://example.com/hook","events":["READ"],"channels":["sms"],"statuses":["SENT"],"status":"paused"}`},
			[]string{`{"url":"https://example.com/2","events":["BOGUS"]}`, `{"url":"https://example.com/2","channels":["fax"]}`, `{"url":"https://example.com/2","statuses":["x"]}`, `{"url":"https://example.com/2","status":"disabled"}`},
		},
		{"createKey", []string{`{}`, `{"scopes":["read"]}`}, []string{`{"scopes":["root"]}`}},
		{"createSuppression", []string{`{"phoneNumber":"+393471234569"}`, `{"phoneNumber":"+393471234569","channel":"all"}`}, []string{`{"phoneNumber":"+393471234569","channel":"fax"}`}},
		{"exportMembers", nil, []string{`{}`}},
		{"exportDeliveryReports", nil, []string{`{}`}},
	} {
		schema := d.body(op.id)
		try := func(body any, want bool) {
			t.Helper()
			raw, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			if got := d.takes(schema, body); got != want {
				t.Errorf("%s %s: the document says %v, want %v", op.id, raw, got, want)
			}
			id := map[string]string{"rescheduleCampaign": campaign, "rejectTemplate": "seasons", "addCredit": "Charlie"}[op.id]
			answer := w.call(d.operations[op.id].method, strings.Replace(d.operations[op.id].path, "{id}", id, 1), string(raw))
			if got := answer.status < 300; got != want || answer.status >= 500 {
				t.Errorf("%s %s: the server answers %d %s, want it taken: %v", op.id, raw, answer.status, answer.body, want)
			}
		}
		parse := func(body string) (v map[string]any) {
			t.Helper()
			if err := json.Unmarshal([]byte(body), &v); err != nil {
				t.Fatalf("%s: %v", body, err)
			}
			return v
		}
		for _, body := range op.refused {
			try(parse(body), false)
		}
		for _, body := range op.taken {
			for _, name := range required(schema) {
				without := maps.Clone(parse(body))
				delete(without, name)
				try(without, false)
			}
			try(parse(body), true)
		}
		for name, e := range d.operations[op.id].RequestBody.Content["application/json"].Examples {
			if !d.takes(schema, e.Value) {
				t.Errorf("%s: the document refuses its own example %s", op.id, name)
			}
		}
	}
	for _, id := range []string{
		"updateAgent", "updateCampaign", "updateChannel", "updateContact", "updateList", "updateRate", "updateRoute", "updateSender", "updateTemplate", "updateTenant", "updateUser",
		"updateWebhook", "patchLiveCampaign", "updatePolicy",
	} {
		if schema := d.body(id); len(required(schema)) > 0 || !d.takes(schema, map[string]any{}) {
			t.Errorf("%s requires %v, want nothing", id, required(schema))
		}
	}
	w.call("PUT", "/api/campaigns/"+campaign, `{}`).want(200)
	w.call("PUT", "/api/agents/A", `{}`).want(200)
	for id, want := range map[string]string{
		"createAgent": "name", "createCampaign": "name", "createChannel": "name channel address", "createContact": "phoneNumber", "createRate": "channel price",
		"createRoute": "name connector rate", "rescheduleCampaign": "scheduledTime", "createSender": "name", "createTemplate": "name channel body", "createTenant": "name",
		"createUser": "email", "createWebhook": "url", "createDeliveryStatusWebhook": "url", "exportMembers": "campaignId", "rejectTemplate": "reason", "disableSender": "reason",
		"createList": "name", "createErasure": "phoneNumber", "importMappedFile": "uploadId contactList", "approveTemplate": "", "createKey": "", "sendSMS": "", "addCredit": "",
	} {
		if got := strings.Join(required(d.body(id)), " "); got != want {
			t.Errorf("%s requires %q, want %q", id, got, want)
		}
		if want != "" && !d.operations[id].RequestBody.Required {
			t.Errorf("%s requires %q of a body that may be left out", id, want)
		}
	}
	for _, verb := range []string{"reject", "disable"} {
		w.callAs(w.admin(), "POST", "/api/senders/ACME/"+verb, "").problem(400, "body_required", "")
		w.callAs(w.admin(), "POST", "/api/senders/ACME/"+verb, `{}`).problem(422, "required", "reason")
	}
}
