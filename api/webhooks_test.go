package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
)

// X6, X12: webhooks are one resource at two paths; its secret is shown once.
func TestWebhooks(t *testing.T) {
	w := newEnv(t)
	made := w.call("POST", "/api/webhooks/delivery-status", `{"url":"https://Example.com/hooks","events":["delivery","READ"],"statuses":["delivered","ERROR"],"channels":["sms"]}`).want(201)
	id := made.id()
	if got := made.header.Get("Location"); got != "/api/webhooks/delivery-status/"+id {
		t.Errorf("got Location %q", got)
	}
	if !strings.HasPrefix(made.get("secret"), "whsec_") || len(made.get("secret")) < 40 {
		t.Errorf("got secret %q", made.get("secret"))
	}
	for _, path := range []string{"/api/webhooks/", "/api/webhooks/delivery-status/"} {
		got := w.call("GET", path+id, "").want(200)
		subset(t, path, got.body, `{"name":"Example.com","status":"active","events":["DELIVERY","READ"],"statuses":["DELIVERED","ERROR"],"channels":["sms"],"campaigns":[],"batchSize":1,"reason":null}`)
		if strings.Contains(string(got.body), "whsec_") {
			t.Errorf("%s shows the secret again", path)
		}
		if got := w.call("GET", strings.TrimSuffix(path, "/"), "").want(200); got.get("total") != "1" || strings.Contains(string(got.body), "whsec_") {
			t.Errorf("%s: got %s", path, got.body)
		}
	}
	tag := w.call("GET", "/api/webhooks/"+id, "").header.Get("ETag")
	changed := w.call("PUT", "/api/webhooks/"+id, `{"name":"shop","batchSize":100,"status":"paused"}`, header{"If-Match", tag}).want(200)
	subset(t, "changed", changed.body, `{"name":"shop","batchSize":100,"status":"paused","events":["DELIVERY","READ"]}`)
	w.call("PUT", "/api/webhooks/"+id, `{"name":"x"}`, header{"If-Match", tag}).want(412)
	w.call("POST", "/api/webhooks/"+id+"/test", "").problem(409, "wrong_state", "")
	w.call("DELETE", "/api/webhooks/delivery-status/shop", "").want(200)
	w.call("GET", "/api/webhooks/"+id, "").want(404)

	_, other := w.newTenant("other") // P7
	id = w.call("POST", "/api/webhooks", `{"url":"https://example.com/"}`).want(201).id()
	for _, c := range [][2]string{
		{"GET", ""}, {"PUT", ""}, {"DELETE", ""}, {"POST", "/rotate"}, {"POST", "/recover"}, {"POST", "/test"}, {"GET", "/health"}, {"GET", "/deliveries"},
	} {
		body := ""
		if c[1] == "/recover" {
			body = `{"since":"2025-04-01T00:00:00Z"}`
		} else if c[0] == "PUT" {
			body = "{}"
		}
		w.callAs(other, c[0], "/api/webhooks/"+id+c[1], body).want(404)
	}
}

// X6: what can't be meant is refused, with the word that is wrong.
func TestWebhookRefusals(t *testing.T) {
	w := newEnv(t)
	long := `{"url":"https://example.com/` + strings.Repeat("x", 2000) + `"}`
	for body, field := range map[string]string{
		`{}`:                                                     "url",
		`{"url":"example.com"}`:                                  "url",
		`{"url":"ftp://example.com"}`:                            "url",
		`{"url":"http://example.com"}`:                           "url", // events name phone numbers
		`{"url":"https://user:pw@example.com"}`:                  "url",
		`{"url":"https://localhost/x"}`:                          "url",
		`{"url":"https://127.0.0.1/x"}`:                          "url",
		`{"url":"https://10.1.2.3"}`:                             "url",
		`{"url":"https://169.254.169.254/"}`:                     "url",
		`{"url":"https://[::1]:8443/"}`:                          "url",
		`{"url":"https://[::ffff:10.0.0.1]/"}`:                   "url",
		long:                                                     "url",
		`{"url":"https://example.com","events":["BOUNCE"]}`:      "events",
		`{"url":"https://example.com","statuses":["READ"]}`:      "statuses",
		`{"url":"https://example.com","channels":["fax"]}`:       "channels",
		`{"url":"https://example.com","campaigns":["camp_1"]}`:   "campaigns",
		`{"url":"https://example.com","batchSize":101}`:          "batchSize",
		`{"url":"https://example.com","status":"disabled"}`:      "status",
		`{"url":"https://example.com","name":"delivery-status"}`: "name",
	} {
		a := w.call("POST", "/api/webhooks", body)
		if p := a.want(422).object(); !strings.Contains(string(a.body), `"`+field+`"`) {
			t.Errorf("%s: got %v, want it to name %s", body, p, field)
		}
	}
	w.call("POST", "/api/webhooks", `{"url":"https://example.com","events":["CLICK","OPT_OUT","INBOUND"]}`).want(201)
}

// An operator may allow private ranges; then http will do, as in a test installation.
func TestWebhookAllow(t *testing.T) {
	open := newEnv(t, func(w *env) { w.deps.WebhookAllow = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")} })
	open.call("POST", "/api/webhooks", `{"url":"http://10.1.2.3:8080/x"}`).want(201)
	open.call("POST", "/api/webhooks", `{"url":"http://10.2.2.3:8080/x"}`).problem(422, "invalid_value", "url")
	open.call("POST", "/api/webhooks", `{"name":"camp","url":"https://example.com","campaigns":["`+open.campaign(1, "")+`"]}`).want(201)
}

// X6: rotation with overlap: the old secret signs for as long as was asked.
func TestWebhookRotation(t *testing.T) {
	w := newEnv(t)
	made := w.call("POST", "/api/webhooks", `{"url":"https://example.com"}`).want(201)
	path := "/api/webhooks/" + made.id()
	signing := func() (out []string) {
		hooks, err := w.store.Webhooks(t.Context())
		w.check(err)
		for _, s := range hooks[0].Secrets {
			if s.Until.IsZero() || w.clock.now().Before(s.Until) {
				out = append(out, s.Value)
			}
		}
		return out
	}
	second := w.call("POST", path+"/rotate", `{"overlapHours":1}`).want(200)
	if got, want := fmt.Sprint(signing()), fmt.Sprint([]string{second.get("secret"), made.get("secret")}); got != want {
		t.Errorf("got %v, want the new and the old secret", got)
	}
	if got := w.call("GET", path, "").get("oldSecretUntil"); got != "2025-04-01T10:00:00.000Z" && got != "2025-04-01T10:00:00Z" {
		t.Errorf("got oldSecretUntil %q, want an hour from now", got)
	}
	w.clock.forward(time.Hour)
	if got := signing(); len(got) != 1 || got[0] != second.get("secret") {
		t.Errorf("got %v after the overlap, want the new secret alone", got)
	}
	third := w.call("POST", path+"/rotate", `{"overlapHours":0}`).want(200)
	if got := signing(); len(got) != 1 || got[0] != third.get("secret") || third.get("secret") == second.get("secret") {
		t.Errorf("got %v without an overlap", got)
	}
	w.call("POST", path+"/rotate", "").want(200) // a day by default
	if got := signing(); len(got) != 2 {
		t.Errorf("got %d secrets, want 2", len(got))
	}
	w.call("POST", path+"/rotate", `{"overlapHours":169}`).problem(422, "invalid_value", "overlapHours")
}

// X6: deliveries are listed with answer and time, a test says what the endpoint answered, and what failed since a date
// is queued again.
func TestWebhookDeliveries(t *testing.T) {
	w := newEnv(t)
	id := w.call("POST", "/api/webhooks", `{"url":"https://example.com"}`).want(201).id()
	path := "/api/webhooks/" + id
	number, _ := store.ResourceNumber(store.KindWebhook, id)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- answerWebhooks(ctx, w, number) }() // in place of the stage
	got := w.call("POST", path+"/test", "").want(200)
	subset(t, "test", got.body, `{"type":"webhook.test","state":"failed","tries":1,"statusCode":500,"answer":"no","error":"the endpoint answered 500","durationMs":12,"nextTryAt":null}`)
	stop()
	w.check(<-done)
	w.check(w.store.QueueWebhooks(t.Context(), []schemas.WebhookItem{
		{Tenant: w.tenant.ID, Endpoint: number, EventID: "evt_1", Type: "message.sent", Order: "msg_1", Data: json.RawMessage("{}"), Time: start},
	}, nil))
	page := w.call("GET", path+"/deliveries?limit=1", "").want(200)
	if page.get("data.0.eventId") != "evt_1" || page.get("data.0.state") != "pending" || page.get("data.0.subject") != "msg_1" || page.get("data.0.statusCode") != "" {
		t.Errorf("got %s", page.body)
	}
	next := w.call("GET", path+"/deliveries?limit=1&after="+page.get("data.0.id"), "").want(200)
	if next.get("data.0.type") != "webhook.test" {
		t.Errorf("got %s after the first", next.body)
	}
	if got := w.call("GET", path+"/deliveries?state=failed", "").want(200); got.get("total") != "1" {
		t.Errorf("got %s", got.body)
	}
	w.call("GET", path+"/deliveries?state=lost", "").want(422)
	subset(t, "health", w.call("GET", path+"/health", "").want(200).body, `{"pending":1,"failures":1,"failingSince":"2025-04-01T09:00:00Z","lastSuccessAt":null}`)

	got = w.call("POST", path+"/recover", `{"since":"2025-03-31T00:00:00+02:00"}`).want(202)
	subset(t, "recover", got.body, `{"queuedAgain":1,"since":"2025-03-30T22:00:00Z"}`)
	if got := w.call("GET", path+"/health", "").get("recoveringSince"); got != "2025-03-30T22:00:00Z" {
		t.Errorf("got recoveringSince %q", got)
	}
	for _, since := range []string{"", "yesterday", "2025-02-01T00:00:00Z", "2025-04-02T00:00:00Z"} {
		a := w.call("POST", path+"/recover", fmt.Sprintf(`{"since":%q}`, since)).want(422)
		if !strings.Contains(string(a.body), `"since"`) {
			t.Errorf("since %q: got %s", since, a.body)
		}
	}
}

// answerWebhooks answers 500 for an endpoint.
func answerWebhooks(ctx context.Context, w *env, number uint64) error {
	for ctx.Err() == nil {
		items, err := w.store.DueWebhooks(ctx, number, 10)
		if err != nil && ctx.Err() == nil {
			return err
		}
		for i := range items {
			items[i].State, items[i].Tries, items[i].Tried, items[i].Status = schemas.WebhookGivenUp, 1, w.clock.now(), 500
			items[i].Answer, items[i].Error, items[i].Took = "no", "the endpoint answered 500", 12*time.Millisecond
		}
		if len(items) > 0 {
			health := schemas.WebhookHealth{Failures: 1, Failing: w.clock.now()}
			if err := w.store.SettleWebhooks(ctx, []schemas.WebhookOutcome{{Endpoint: number, Items: items, Health: health}}); err != nil {
				return err
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}
