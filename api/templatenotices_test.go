package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"fanfare/api"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// R16: what a carrier says about a template moves the tenant's that has the carrier's account, and suspends the
// campaigns under way that use it with the reason template_paused. They can't be resumed by hand, and go on by
// themselves once the template may be used again. A person who pauses the template does the same.
func TestTemplateNotices(t *testing.T) {
	w := newEnv(t, func(w *env) {
		_, err := kadm.NewClient(w.client).CreateTopic(w.Context(), 1, 1, nil, w.names.Callbacks())
		w.check(err)
		w.deps.Connectors.Verify = func(_ *http.Request, c *fanfarev1.Callback) (out api.Called, err error) {
			return out, json.Unmarshal(c.GetBody(), &out.Templates)
		}
	})
	w.call("POST", "/api/channels", `{"name":"Acme on WhatsApp","channel":"whatsapp","address":"+393331234567","accountId":"waba1"}`).want(201)
	template := "/api/templates/" + w.template("order_shipped", "whatsapp", "Ciao", `"language":"it"`)
	other := "/api/templates/" + w.template("hello", "whatsapp", "Hi", `"language":"it"`)
	list := w.list("l", 10, 0)
	start := func(message string) (path string) {
		t.Helper()
		id := w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"c","channel":"whatsapp","message":%q,"contactList":%q,"sendImmediately":true}`, message, list)).want(201).id()
		w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
		w.move(id, func(c *schemas.Change) { c.To, c.Trigger = schemas.StateSending, schemas.TriggerDeal })
		return "/api/campaigns/" + id
	}
	uses, not := start("order_shipped"), start("hello")
	notice := func(account, name, language, status, reason string) {
		t.Helper()
		raw, err := json.Marshal([]api.TemplateNotice{{Account: account, Name: name, Language: language, Status: status, Reason: reason}})
		w.check(err)
		w.callAs("", "POST", "/api/callback/acme", string(raw)).want(200)
	}
	state := func(what, path, want string) {
		t.Helper()
		subset(t, what, w.call("GET", path, "").want(200).body, want)
	}

	notice("waba2", "order_shipped", "it", "paused", "of another account")
	notice("waba1", "order_shipped", "en", "paused", "in another language")
	notice("", "order_shipped", "it", "paused", "of no account")
	state("others' notices", template, `{"status":"approved"}`)
	state("others' notices", uses, `{"state":"sending"}`)

	for range 2 { // it comes again
		notice("waba1", "order_shipped", "it", "paused", "Paused for 3 hours.")
		state("paused", template, `{"status":"paused","reason":"Paused for 3 hours."}`)
		state("paused", uses, `{"state":"suspended","suspendedReason":"template_paused"}`)
		state("another template", not, `{"state":"sending"}`)
	}
	w.call("POST", uses+"/resume", "").problem(409, "wrong_state", "")
	notice("waba1", "order_shipped", "it", "approved", "")
	state("approved", template, `{"status":"approved","reason":null}`)
	state("goes on", uses, `{"state":"sending","suspendedReason":null}`)

	admin := w.admin()
	w.callAs(admin, "POST", other+"/pause", `{"reason":"low quality"}`).want(200)
	state("by a person", not, `{"state":"suspended","suspendedReason":"template_paused"}`)
	state("by a person", uses, `{"state":"sending"}`)
	w.callAs(admin, "POST", other+"/approve", "").want(200)
	state("by a person", not, `{"state":"sending","suspendedReason":null}`)
}
