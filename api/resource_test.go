package api_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"fanfare/api/store"
)

// get reads one value of a JSON body as text: "data.0.id".
func (a *answer) get(path string) string {
	a.Helper()
	var at any
	a.into(&at)
	for name := range strings.SplitSeq(path, ".") {
		switch v := at.(type) {
		case map[string]any:
			at = v[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i >= len(v) {
				a.Fatalf("%s: got %s, want %s", a.what, a.body, path)
			}
			at = v[i]
		}
	}
	if at == nil {
		return ""
	}
	return fmt.Sprint(at)
}

// X12: every resource pages, is searched, changed under its ETag, deleted, and its name comes free.
func TestResources(t *testing.T) {
	w := newEnv(t)
	for path, make := range map[string]func(name string) string{
		"/api/templates": func(name string) string {
			return fmt.Sprintf(`{"name":%q,"channel":"sms","body":"Ciao {{first_name}}"}`, name)
		},
		"/api/agents":   func(name string) string { return fmt.Sprintf(`{"name":%q}`, name) },
		"/api/channels": func(name string) string { return fmt.Sprintf(`{"name":%q,"channel":"sms","address":"ACME"}`, name) },
	} {
		t.Run(strings.TrimPrefix(path, "/api/"), func(t *testing.T) {
			var ids []string
			for i := range 5 {
				got := w.call("POST", path, make(fmt.Sprintf("name_%d", i))).want(201)
				ids = append(ids, got.id())
			}
			w.call("POST", path, make("name_3")).problem(409, "name_taken", "name")
			page := w.call("GET", path+"?limit=2&after="+ids[3], "").want(200)
			if got := page.get("data.0.id") + " " + page.get("data.1.id"); got != ids[2]+" "+ids[1] {
				t.Errorf("got %s after %s, want %s %s", got, ids[3], ids[2], ids[1])
			}
			if got := w.call("GET", path+"?search=ME_4", "").want(200).get("total"); got != "1" {
				t.Errorf("got %s for a search, want 1", got)
			}
			one := w.call("GET", path+"/name_4", "").want(200)
			tag := one.header.Get("ETag")
			w.call("PUT", path+"/"+ids[4], `{"name":"other"}`, header{"If-Match", tag}).want(200)
			w.call("PUT", path+"/"+ids[4], `{"name":"another"}`, header{"If-Match", tag}).want(412)
			w.call("PUT", path+"/"+ids[4], `{"name":"name_0"}`).problem(409, "name_taken", "name")
			w.call("PUT", path+"/"+ids[4], `{"name":" "}`).problem(422, "required", "name")
			w.call("DELETE", path+"/"+ids[0], "").want(200)
			w.call("GET", path+"/"+ids[0], "").want(404)
			w.call("POST", path, make("name_0")).want(201)
			if got := w.call("GET", path+"?includeDeleted=true&limit=100", "").want(200).get("total"); got != "6" {
				t.Errorf("got %s with deleted ones, want 6", got)
			}
			_, other := w.newTenant("other of " + strings.TrimPrefix(path, "/api/"))
			w.callAs(other, "GET", path+"/"+ids[1], "").want(404) // P7
			w.callAs(other, "PUT", path+"/"+ids[1], `{"name":"mine"}`).want(404)
			w.callAs(other, "DELETE", path+"/"+ids[1], "").want(404)
		})
	}
}

// R16, R19, R159: a template is approved before it is used, and a change of its text takes the approval back.
func TestTemplateApproval(t *testing.T) {
	w := newEnv(t)
	admin := w.newKey(w.tenant.ID, store.Scopes, false)
	id := w.call("POST", "/api/templates", `{"name":"order_shipped","channel":"whatsapp","language":"it","category":"utility",
		"body":"Ciao {{1}}, il tuo ordine {{2}} è partito.","buttons":[{"type":"url","text":"Segui","value":"https://example.com/{{3}}"}]}`).want(201).id()
	path := "/api/templates/" + id
	got := w.call("GET", path, "").want(200)
	if got.get("status") != "draft" || got.get("parameters.2") != "3" {
		t.Errorf("got %s", got.body)
	}
	w.call("PUT", path, `{"status":"approved"}`).problem(422, "read_only", "status")
	w.call("POST", path+"/approve", "").want(403)
	w.call("POST", path+"/submit", "").want(200)
	w.call("POST", path+"/submit", "").want(409)
	w.callAs(admin, "POST", path+"/reject", `{}`).problem(422, "required", "reason")
	w.callAs(admin, "POST", path+"/approve", "").want(200)
	if got := w.call("PUT", path, `{"name":"order_sent"}`).want(200).get("status"); got != "approved" {
		t.Errorf("got %s after a change of the name, want approved", got)
	}
	if got := w.call("PUT", path, `{"body":"Ciao {{1}}, ordine {{2}}."}`).want(200).get("status"); got != "draft" {
		t.Errorf("got %s after a change of the text, want draft", got)
	}
	w.callAs(admin, "POST", path+"/approve", "").want(200)
	if got := w.callAs(admin, "POST", path+"/pause", `{"reason":"low quality"}`).want(200).get("reason"); got != "low quality" {
		t.Errorf("got reason %q", got)
	}
}

// Bad templates are refused with the field and the rule.
func TestTemplateRefusals(t *testing.T) {
	w := newEnv(t)
	for body, field := range map[string]string{
		`{"name":"x","channel":"pigeon","body":"Hi"}`:                                                            "channel",
		`{"name":"x","body":"Hi"}`:                                                                               "channel",
		`{"name":"Big Name","channel":"whatsapp","body":"Hi"}`:                                                   "name",
		`{"name":"x","channel":"sms","body":" "}`:                                                                "body",
		`{"name":"x","channel":"whatsapp","body":"{{1}} {{3}}"}`:                                                 "body",
		`{"name":"x","channel":"rcs","body":"{{1}} {{name}}"}`:                                                   "body",
		`{"name":"x","channel":"rcs","body":"{{}}"}`:                                                             "body",
		`{"name":"x","channel":"whatsapp","body":"` + strings.Repeat("a", 1025) + `"}`:                           "body",
		`{"name":"x","channel":"whatsapp","category":"fun","body":"Hi"}`:                                         "category",
		`{"name":"x","channel":"sms","category":"utility","body":"Hi"}`:                                          "category",
		`{"name":"x","channel":"sms","language":"italiano","body":"Hi"}`:                                         "language",
		`{"name":"x","channel":"sms","header":{"type":"text","text":"Hi"},"body":"Hi"}`:                          "header",
		`{"name":"x","channel":"rcs","header":{"type":"image","url":"http://example.com/a.png"},"body":"Hi"}`:    "header.url",
		`{"name":"x","channel":"rcs","body":"Hi","buttons":[{"type":"url","text":"Go","value":"javascript:1"}]}`: "buttons[0].value",
		`{"name":"x","channel":"rcs","body":"Hi","buttons":[{"type":"fax","text":"Go","value":"1"}]}`:            "buttons[0].type",
		`{"name":"x","channel":"rcs","agent":"nobody","body":"Hi"}`:                                              "agent",
		`{"name":"template_10001","channel":"sms","body":"Hi"}`:                                                  "name",
	} {
		got := w.call("POST", "/api/templates", body).want(422)
		if got.get("field") != field || got.get("fix") == "" {
			t.Errorf("%s: got %s, want field %s and a fix", body, got.body, field)
		}
	}
	w.call("POST", "/api/agents", `{"name":"Acme Retail"}`).want(201)
	if got := w.call("POST", "/api/templates", `{"name":"x","channel":"rcs","agent":"Acme Retial","body":"Hi"}`).want(422).get("fix"); !strings.Contains(got, "Acme Retail") {
		t.Errorf("got fix %q, want the nearest name", got)
	}
	for body, field := range map[string]string{
		`{"name":"x","channel":"whatsapp","address":"ACME"}`:                            "address",
		`{"name":"x","channel":"sms","address":"TOO LONG A NAME"}`:                      "address",
		`{"name":"x","channel":"sms"}`:                                                  "address",
		`{"name":"x","address":"ACME"}`:                                                 "channel",
		`{"name":"x","channel":"sms","address":"ACME","limits":{"concurrent":3}}`:       "limits.concurrent",
		`{"name":"x","channel":"whatsapp","address":"+393331234567","route":"nowhere"}`: "route",
		`{"name":"x","channel":"sms","address":"ACME","status":"broken"}`:               "status",
	} {
		if got := w.call("POST", "/api/channels", body).want(422); got.get("field") != field {
			t.Errorf("%s: got %s, want field %s", body, got.body, field)
		}
	}
}
