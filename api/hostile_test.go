package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"fanfare/api/store"

	"golang.org/x/text/unicode/norm"
)

// hostileTexts are 200 texts that break programs: controls, marks of direction, SQL, HTML, templates, formulas, paths,
// JSON, numbers, words that mean something to a parser, and very long ones.
func hostileTexts() []string {
	out := []string{
		"", " ", "\t", "\n", "\r\n", "  outer  ", "a\tb", "a\nb", "a\rb", "\x00", "a\x00b", "\x01", "\x07", "\x08", "\x0b", "\x0c", "\x1b[31mred\x1b[0m", "\x1f", "\x7f", "\u0080", "\u0085", "\u009f",
		"\u00a0", "a\u00a0b", "\u00ad", "\u200b", "a\u200bb", "\u200d", "\u200e", "\u200f", "\u202e", "abc\u202edef", "\u2066a\u2069", "\u061c", "\u2028", "a\u2028b", "\u2029", "\ufeff", "\ufeffname", "\ufffd", "\ufffe", "\uffff", "\U0010ffff", "\ue000", "\u180e", "\u3000", "\u2060", "\ufff9\ufffb",
		"é", "e\u0301", "Å", "A\u030a", "\u212b", "ﬁ", "ß", "ẞ", "İ", "ı", "ſ", "K", "ǅ", "ΑΒΓ", "Привет", "שלום", "مرحبا", "नमस्ते", "สวัสดี", "你好", "こんにちは", "안녕하세요", "𝕳𝖊𝖑𝖑𝖔", "𐍈", "Z̸͎͐a̷̛l̴g̵o̶", "\u0301", "ﷺ", "﷽", "㋿", "½²³", "٣٤٥", "１２３",
		"😀", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇮🇹", "👍🏽", "☎️", "❤", "🫠",
		"'", "''", "\"", "`", "' OR '1'='1", "'; DROP TABLE campaigns; --", "1; DELETE FROM tenants", "\" OR 1=1 --", "admin'--", "') UNION SELECT NULL--", "%", "_", "100%_x", "%' ESCAPE '\\", "/*x*/", "--", "#", "$1", "?", ":name", "@v", "\\", "\\'", "\\\\", "E'\\x41'", "x'41'",
		"<script>alert(1)</script>", "<b>x</b>", "<img src=x onerror=alert(1)>", "&amp;", "&#x3C;", "&lt;b&gt;", "</textarea>", "<!--", "]]>", "<![CDATA[x]]>", "<?xml version=\"1.0\"?>", "<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]>", "javascript:alert(1)", "data:text/html,<b>", "\" onmouseover=\"x", "<svg/onload=x>",
		"{{first_name}}", "{{", "}}", "{{.}}", "{{no such}}", "{{{x}}}", "{{ {{ }}", "${x}", "${jndi:ldap://x/a}", "#{1+1}", "<%= 1 %>", "{% if %}", "{0}", "%s%n%x", "%d", "{{1}}", "{{range .}}",
		"=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0", "\t=1+1", "=HYPERLINK(\"http://x\")", "|x", "a,b", "a;b", "a|b", "\"a\",\"b\"", "a\",\n\"b",
		"../../etc/passwd", "..", ".", "/", "//", "\\\\x\\y", "..\\..\\x", "C:\\x", "%2e%2e%2f", "%00", "file:///etc/passwd", "CON", "~", "a/b", "?a=b&c=d", "#x", "http://127.0.0.1/", "http://[::1]/", "//x.example",
		"{", "}", "[", "]", "{}", "[]", "null", "true", "false", "NaN", "Infinity", "undefined", "None", "0", "-0", "1e309", "0x10", "1e3", "99999999999999999999", "{\"a\":1}", "\\u0000", "\\ud800", "\\n", "\",\"x\":\"",
		"$(id)", "`id`", "; ls", "| ls", "&& ls", "a\r\nSet-Cookie: x=1", "a\nX-Header: 1", "*)(uid=*", "constructor", "__proto__", "toString", "2025-02-30T25:61:00Z", "24:00", "Mars/Olympus", "0001-01-01T00:00:00Z", "9999-12-31T23:59:60Z",
		strings.Repeat("x", 201), strings.Repeat("é", 5000), strings.Repeat("😀", 3000), strings.Repeat("a ", 9000), strings.Repeat("{{a}}", 2000), strings.Repeat("\u0301", 300), strings.Repeat("<", 1000), strings.Repeat("'", 4001), strings.Repeat("../", 700),
	}
	return out
}

// textField is a place in a body that takes a text: the names of the members, 0 for an element of an array, * for the
// value of a map.
type textField []string

// textFields finds the places of a schema that take any text.
func (s jsonSchema) textFields(all map[string]jsonSchema, at textField, depth int) (out []textField) {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		s = all[name]
	}
	if depth > 6 || s.Enum != nil {
		return nil
	}
	under := func(name string) textField { return append(slices.Clone(at), name) }
	if s.takes("string") && len(at) > 0 && !slices.ContainsFunc(s.OneOf, func(o jsonSchema) bool { return o.Enum != nil }) {
		out = append(out, at)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		out = append(out, s.Properties[name].textFields(all, under(name), depth+1)...)
	}
	if s.Items != nil {
		out = append(out, s.Items.textFields(all, under("0"), depth+1)...)
	}
	if more, ok := s.AdditionalProperties.(map[string]any); ok {
		var of jsonSchema
		raw, _ := json.Marshal(more)
		if json.Unmarshal(raw, &of) == nil {
			out = append(out, of.textFields(all, under("*"), depth+1)...)
		}
	}
	for _, o := range s.OneOf {
		out = append(out, slices.DeleteFunc(o.textFields(all, at, depth+1), func(f textField) bool { return len(f) == len(at) })...)
	}
	return out
}

// put returns a copy of body with a text at that place.
func (f textField) put(body any, text string) any {
	if len(f) == 0 {
		return text
	}
	if f[0] == "0" {
		out := []any{nil}
		if have, ok := body.([]any); ok && len(have) > 0 {
			out = slices.Clone(have)
		}
		out[0] = f[1:].put(out[0], text)
		return out
	}
	out := map[string]any{}
	if have, ok := body.(map[string]any); ok {
		out = maps.Clone(have)
	}
	name := f[0]
	if name == "*" {
		name = "k"
	}
	out[name] = f[1:].put(out[name], text)
	return out
}

// get returns what an answer has at that place, and whether it has the place.
func (f textField) get(body any) (any, bool) {
	if len(f) == 0 {
		return body, true
	}
	switch have := body.(type) {
	case []any:
		if f[0] == "0" && len(have) > 0 {
			return f[1:].get(have[0])
		}
	case map[string]any:
		name := f[0]
		if name == "*" {
			name = "k"
		}
		if v, ok := have[name]; ok {
			return f[1:].get(v)
		}
	}
	return nil, false
}

// hostileBodies are bodies that each operation takes, beside the text. $n becomes another number in each request. An
// operation that creates or changes something has to be here.
var hostileBodies = map[string]string{
	"createAgent": `{"name":"A$n","providerId":"p$n"}`, "updateAgent": `{}`,
	"createCampaign": `{"name":"C","channel":"sms","draft":true,"message":"Hi"}`, "updateCampaign": `{}`, "patchLiveCampaign": `{}`,
	"createSegment": `{}`,
	"createChannel": `{"name":"W$n","channel":"whatsapp","address":"+39333$n"}`, "updateChannel": `{}`,
	"createContact": `{"phoneNumber":"+39333$n"}`, "updateContact": `{"attributes":{}}`, "updateContactByQuery": `{"attributes":{}}`,
	"createList": `{"name":"L$n"}`, "updateList": `{}`,
	"createDomain": `{"host":"d$n.example"}`, "updateDomain": `{}`, "createSharedDomain": `{"host":"s$n.example"}`, "updateSharedDomain": `{}`,
	"updateConversation": `{}`, "createErasure": `{}`,
	"createKey": `{}`, "updatePolicy": `{}`,
	"createRate": `{"channel":"sms","country":"FR","price":0.07}`, "updateRate": `{}`,
	"createRoute": `{"name":"r$n","connector":"sim","rate":10}`, "updateRoute": `{}`,
	"createSender": `{"name":"S$n"}`, "updateSender": `{}`,
	"createSuppression": `{"phoneNumber":"+39333$n"}`,
	"createTemplate":    `{"name":"t$n","channel":"whatsapp","body":"Hi","header":{"type":"text","text":"H"},"buttons":[{"type":"reply","text":"Yes","value":"y"}]}`,
	"updateTemplate":    `{}`,
	"createTenant":      `{"name":"N$n"}`, "updateTenant": `{}`, "addCredit": `{"amount":1}`,
	"createUser": `{"email":"u$n@x.example","role":"viewer"}`, "updateUser": `{}`,
	"createWebhook": `{"name":"H$n","url":"https://example.com/$n"}`, "updateWebhook": `{}`,
	"createDeliveryStatusWebhook": `{"url":"https://example.com/$n"}`, "updateDeliveryStatusWebhook": `{}`,
}

// Every text field of every operation of the document gets 200 hostile texts. A text comes back as it was given, apart
// from outer space, or is refused by the name of its field with a rule and a way out. Nothing gets 500.
// A field gets each eighth text and the next field those beside them, so that eight fields get all: with
// FANFARE_TEST_HOSTILE=all each field gets all 200, in 70,000 requests.
func TestHostileTexts(t *testing.T) {
	w := newEnv(t)
	w.key = w.newKey(w.tenant.ID, store.Scopes, false)
	w.relay()
	texts := hostileTexts()
	if len(texts) < 200 {
		t.Fatalf("got %d texts, want 200", len(texts))
	}
	var doc struct {
		Components struct{ Schemas map[string]jsonSchema }
	}
	w.check(json.Unmarshal(readDocument(t), &doc))
	ids := w.hostileObjects()
	n, fields, requests := 100_000, 0, 0
	all := os.Getenv("FANFARE_TEST_HOSTILE") == "all"
	seen := map[string]int{}
	for _, op := range documentedOperations(t) {
		if op.RequestBody == nil {
			continue
		}
		content, isJSON := op.RequestBody.Content["application/json"]
		if !isJSON {
			continue
		}
		base, changes := hostileBodies[op.OperationID]
		if !changes && (strings.HasPrefix(op.OperationID, "create") || strings.HasPrefix(op.OperationID, "update")) {
			t.Errorf("%s: give it a body in hostileBodies", op.OperationID)
		}
		path := op.path
		for prefix, id := range ids {
			if strings.HasPrefix(path, prefix+"/{id}") {
				path = strings.Replace(path, "{id}", id, 1)
			}
		}
		path = strings.NewReplacer("{id}", "none", "{tag}", "none").Replace(path)
		if op.OperationID == "updateContactByQuery" {
			path += "?id=" + ids["/api/contacts"]
		}
		for _, field := range content.Schema.textFields(doc.Components.Schemas, nil, 0) {
			fields++
			for i, text := range texts {
				if !all && i%8 != fields%8 {
					continue
				}
				n++
				requests++
				var body any
				if base != "" {
					w.check(json.Unmarshal([]byte(strings.ReplaceAll(base, "$n", fmt.Sprint(n))), &body))
				}
				raw, err := json.Marshal(field.put(body, text))
				w.check(err)
				r := httptest.NewRequest(op.method, path, strings.NewReader(string(raw)))
				r.Header.Set("X-Api-Key", w.key)
				r.Header.Set("Content-Type", "application/json")
				rec := httptest.NewRecorder()
				w.server.ServeHTTP(rec, r)
				var got any
				if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
					t.Errorf("%s %v %.60q: got %d %.200s, want JSON", op.OperationID, field, text, rec.Code, rec.Body)
					continue
				}
				what := op.OperationID + " " + strings.Join(field, ".")
				fault := func(format string, args ...any) {
					if seen[what]++; seen[what] <= 3 {
						t.Errorf("%s with %.60q: "+format, append([]any{what, text}, args...)...)
					}
				}
				if rec.Code >= 500 {
					fault("got %d %.300s", rec.Code, rec.Body)
					continue
				}
				if rec.Code >= 400 {
					p, _ := got.(map[string]any)
					named, _ := p["field"].(string)
					if p["detail"] == "" || p["fix"] == nil || p["fix"] == "" || p["code"] == nil {
						fault("got %.300s, want a rule and a fix", rec.Body)
					}
					if rec.Code != 404 && rec.Code != 409 && changes && !strings.HasPrefix(named, group(field[0])) {
						fault("got %.300s, want field %s", rec.Body, field[0])
					}
					continue
				}
				if v, ok := field.get(got); ok && !same(field, text, v) {
					fault("got %.60q back", v)
				}
			}
		}
	}
	t.Logf("%d requests", requests)
}

// group is how the names of fields begin that are checked together.
func group(field string) string {
	if strings.HasPrefix(field, "callingHours") {
		return "callingHours"
	}
	return field
}

// same reports whether an answer has the data of a text. A blank text leaves the field to its default. Outer space and a
// mark of byte order are no data, a text and its composed form (NFC) are one, and a number is answered in E.164.
func same(field textField, text string, got any) bool {
	v, _ := got.(string)
	text = strings.TrimSpace(strings.ReplaceAll(text, "\ufeff", ""))
	switch field[len(field)-1] {
	case "phoneNumber", "address":
		return v == text || strings.HasPrefix(v, "+") && strings.Trim(v, "+0123456789") == ""
	}
	if last := field[len(field)-1]; text == "" || last == "agent" && strings.HasPrefix(v, "agent_") { // a name is answered as its id
		return true
	}
	return v == text || norm.NFC.String(strings.TrimSpace(strings.ReplaceAll(v, "\ufeff", ""))) == norm.NFC.String(text)
}

// hostileObjects makes one object of each kind, by the path of the kind.
func (w *env) hostileObjects() map[string]string {
	w.Helper()
	w.list("l", 1, 0)
	out := map[string]string{"/api/campaigns": w.campaign(1, "")}
	for path, body := range map[string]string{
		"/api/agents": "createAgent", "/api/channels": "createChannel", "/api/contacts": "createContact", "/api/contacts/list": "createList",
		"/api/domains": "createDomain", "/api/shared-domains": "createSharedDomain", "/api/prices": "createRate", "/api/routes": "createRoute", "/api/senders": "createSender",
		"/api/templates": "createTemplate", "/api/tenants": "createTenant", "/api/users": "createUser", "/api/webhooks": "createWebhook",
		"/api/webhooks/delivery-status": "createDeliveryStatusWebhook",
	} {
		a := w.call("POST", path, strings.ReplaceAll(hostileBodies[body], "$n", "99999"))
		var o map[string]any
		if a.status != 201 {
			w.Fatalf("%s: %d %s", a.what, a.status, a.body)
		}
		a.into(&o)
		id, _ := o["id"].(string)
		if id == "" {
			id, _ = o["name"].(string)
		}
		out[path] = url.PathEscape(id)
	}
	return out
}
