package webhook

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"fanfare/api/store"
	"fanfare/schemas"
)

// X6: checks the posted request, its signature by Standard Webhooks, and the client's reference.
func TestRequest(t *testing.T) {
	e := newEnv(t)
	e.clock.Store(0) // the library uses the machine's clock
	r := newReceiver(t, nil)
	w := e.hook("shop", r.URL)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	item := schemas.WebhookItem{
		Tenant: w.Tenant, Endpoint: w.Number, EventID: "evt_1", Type: "message.delivered", Order: "msg_1", Data: []byte(`{"messageId":"msg_1","status":"DELIVERED"}`), Time: at,
	}
	if err := e.store.QueueWebhooks(t.Context(), []schemas.WebhookItem{item}, []schemas.WebhookReference{{Tenant: w.Tenant, Message: "msg_1", Reference: `order "7"`}}); err != nil {
		t.Fatal(err)
	}
	e.lane(e.deliverer(), w)
	got := r.got()
	if len(got) != 1 {
		t.Fatalf("got %d requests, want 1", len(got))
	}
	want := `{"id":"evt_1","type":"message.delivered","timestamp":"2026-01-02T03:04:05.000Z","data":{"customerMessageId":"order \"7\"","messageId":"msg_1","status":"DELIVERED"}}`
	if string(got[0].body) != want {
		t.Errorf("got  %s\nwant %s", got[0].body, want)
	}
	if got[0].header.Get("Content-Type") != "application/json" || got[0].id != "evt_1" {
		t.Errorf("got headers %v", got[0].header)
	}
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := verifier.Verify(got[0].body, got[0].header); err != nil {
		t.Error(err)
	}
	if err := verifier.Verify(append(got[0].body, ' '), got[0].header); err == nil {
		t.Error("the signature holds for another body")
	}
	if states := e.states(w); !slices.Equal(states, []string{"evt_1:delivered:1"}) {
		t.Errorf("got %v", states)
	}
}

// Rotation: while both secrets are valid, both sign; then only the new one.
func TestRotation(t *testing.T) {
	old := "whsec_" + strings.Repeat("A", 32)
	secrets := []schemas.WebhookSecret{{Value: secret}, {Value: old, Until: start.Add(time.Hour)}}
	for _, c := range []struct {
		at   time.Time
		old  bool
		sigs int
	}{{start, true, 2}, {start.Add(time.Hour), false, 1}} {
		header, err := sign(secrets, c.at, "evt_1", []byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		h.Set(standardwebhooks.HeaderWebhookID, "evt_1")
		h.Set(standardwebhooks.HeaderWebhookTimestamp, fmt.Sprint(c.at.Unix()))
		h.Set(standardwebhooks.HeaderWebhookSignature, header)
		for value, want := range map[string]bool{secret: true, old: c.old} {
			v, err := standardwebhooks.NewWebhook(value)
			if err != nil {
				t.Fatal(err)
			}
			if got := v.VerifyIgnoringTimestamp([]byte("{}"), h) == nil; got != want {
				t.Errorf("at %v: got %v for a secret, want %v", c.at, got, want)
			}
		}
		if got := len(strings.Fields(header)); got != c.sigs {
			t.Errorf("at %v: got %d signatures, want %d", c.at, got, c.sigs)
		}
	}
	if _, err := sign(nil, start, "evt_1", nil); err == nil {
		t.Error("signed without a secret")
	}
}

// Order is kept for each message: its second event waits while its first one fails, but the events of other messages do
// not wait.
func TestOrderWhileRetrying(t *testing.T) {
	e := newEnv(t)
	failing := true
	r := newReceiver(t, func(_ int, p post, w http.ResponseWriter) {
		if p.id == "evt_a1" && failing {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	w := e.hook("shop", r.URL)
	e.queue(w, "a1", "a2", "b1", "b2", "c1", "a3")
	d := e.deliverer()
	e.lane(d, w)
	if got, want := e.states(w), []string{"evt_a1:pending:1", "evt_a2:pending:0", "evt_b1:delivered:1", "evt_b2:delivered:1", "evt_c1:delivered:1", "evt_a3:pending:0"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	e.forward(4 * time.Second)
	e.lane(d, w)
	if n := len(r.got()); n != 4 {
		t.Errorf("got %d requests before the retry is due, want 4", n)
	}
	failing = false
	e.forward(2 * time.Second)
	e.lane(d, w)
	after := r.ids()[4:]
	if want := []string{"evt_a1", "evt_a2", "evt_a3"}; !slices.Equal(after, want) {
		t.Errorf("got %v after the retry, want %v", after, want)
	}
}

// The schedule of an event that its endpoint never accepts while it accepts others: ten tries over three days, then the
// event is given up.
func TestSchedule(t *testing.T) {
	e := newEnv(t)
	r := newReceiver(t, func(_ int, p post, w http.ResponseWriter) {
		if p.id == "evt_a1" {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte("no such order"))
		}
	})
	w := e.hook("shop", r.URL)
	e.queue(w, "a1")
	d := e.deliverer()
	taken := 0
	var gaps []time.Duration
	last := start
	for tries := 0; tries < 10; {
		e.lane(d, w)
		if n := len(r.got()) - taken; n > tries {
			tries = n
			taken++ // the endpoint accepts this other event, so it is not down
			e.queue(w, fmt.Sprintf("b%d", taken))
			e.lane(d, w)
			gaps, last = append(gaps, e.now().Sub(last)), e.now()
			e.forward(time.Second)
			continue
		}
		e.forward(time.Second)
		if e.now().Sub(last) > time.Minute {
			e.forward(time.Minute)
		}
		if e.now().Sub(last) > 25*time.Hour {
			t.Fatalf("no try %d", tries+1)
		}
	}
	for i, want := range append([]time.Duration{0}, waits...) {
		if diff := gaps[i] - want; diff < 0 || diff > 2*time.Minute {
			t.Errorf("try %d came %v after the one before, want %v", i+1, gaps[i], want)
		}
	}
	if got := e.states(w); got[0] != "evt_a1:failed:10" {
		t.Errorf("got %v, want it given up after ten tries", got)
	}
	status, _ := e.status(w)
	if status != "active" {
		t.Errorf("the endpoint is %s, want active: it has failed for three days only", status)
	}
}

// An endpoint that fails for all events gets one request at a time and is disabled after five days. The tenant's other
// endpoint gets an event about it.
func TestFailingEndpoint(t *testing.T) {
	e := newEnv(t)
	dead := newReceiver(t, func(_ int, _ post, w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) })
	other := newReceiver(t, nil)
	w := e.hook("dead", dead.URL)
	ops := e.hook("ops", other.URL, func(s *schemas.WebhookSettings) { s.Events = []schemas.WebhookEvent{schemas.WebhookEndpoint} })
	deaf := e.hook("deaf", other.URL, func(s *schemas.WebhookSettings) { s.Events = []schemas.WebhookEvent{schemas.WebhookDelivery} })
	d := e.deliverer()
	d.cfg.Requests = 3
	var events []string
	for i := range 26 {
		events = append(events, string(rune('a'+i))+"1")
	}
	e.queue(w, events...)
	e.lane(d, w)
	if n := len(dead.got()); n < 3 || n > 5 {
		t.Errorf("got %d requests to an endpoint that fails, want 3 and those under way", n)
	}
	if e.lane(d, w) {
		t.Error("posted again at once")
	}
	tried := len(dead.got())
	for e.now().Sub(start) < 5*24*time.Hour+10*time.Minute {
		e.forward(6 * time.Minute)
		before := len(dead.got())
		e.lane(d, w)
		if n := len(dead.got()) - before; n > 1 {
			t.Fatalf("got %d requests at once to an endpoint that is down", n)
		}
	}
	if n := len(dead.got()) - tried; n < 1000 || n > 1600 {
		t.Errorf("got %d requests in five days, want one in about five minutes", n)
	}
	status, reason := e.status(w)
	if status != "disabled" || !strings.Contains(reason, "five days") || !strings.Contains(reason, "502") {
		t.Errorf("got %s, %q, want disabled, with the reason", status, reason)
	}
	e.lane(d, ops)
	e.lane(d, deaf)
	got := other.got()
	if len(got) != 1 {
		t.Fatalf("got %d events at the others, want 1", len(got))
	}
	var event struct {
		Type string
		Data map[string]any
	}
	if err := json.Unmarshal(got[0].body, &event); err != nil {
		t.Fatal(err)
	}
	if event.Type != "endpoint.disabled" || event.Data["endpointId"] != "webhook_"+number(w.Number) || event.Data["failingSince"] != stamp(start) {
		t.Errorf("got %s", got[0].body)
	}
	// A success in between restarts the five days.
	if got := pause(time.Hour, 0.5); got != pauseMost {
		t.Errorf("got a pause of %v after an hour, want %v", got, pauseMost)
	}
}

// Retry-After holds back all events of the endpoint; 410 disables it at once.
func TestRetryAfterAndGone(t *testing.T) {
	e := newEnv(t)
	r := newReceiver(t, func(n int, _ post, w http.ResponseWriter) {
		switch n {
		case 0:
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(http.StatusTooManyRequests)
		case 1:
			w.WriteHeader(http.StatusGone)
		}
	})
	w := e.hook("shop", r.URL)
	d := e.deliverer()
	d.cfg.Requests = 1
	e.queue(w, "a1", "b1")
	e.lane(d, w)
	e.forward(119 * time.Second)
	if e.lane(d, w) || len(r.got()) != 1 {
		t.Errorf("got %d requests within Retry-After, want 1", len(r.got()))
	}
	e.forward(2 * time.Second)
	e.lane(d, w)
	if status, reason := e.status(w); status != "disabled" || !strings.Contains(reason, "410") || len(r.got()) != 2 {
		t.Errorf("got %s, %q after %d requests, want disabled by 410 after two", status, reason, len(r.got()))
	}
	e.queue(w, "c1")
	e.forward(time.Hour)
	e.lane(d, w)
	if n := len(r.got()); n != 2 {
		t.Errorf("got %d requests to a disabled endpoint", n)
	}
	for header, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "999999": time.Hour, "-1": 0, "soon": 0, start.Add(time.Minute).Format(http.TimeFormat): time.Minute} {
		if got := retryAfter(header, start); got != want {
			t.Errorf("Retry-After %q: got %v, want %v", header, got, want)
		}
	}
}

// Batches have as many events as the endpoint allows, and the endpoint accepts or refuses all events of a batch
// together.
func TestBatches(t *testing.T) {
	e := newEnv(t)
	r := newReceiver(t, func(n int, _ post, w http.ResponseWriter) {
		if n == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	w := e.hook("shop", r.URL, func(s *schemas.WebhookSettings) { s.Batch = 3 })
	d := e.deliverer()
	d.cfg.Requests = 1
	e.queue(w, "a1", "b1", "c1", "d1", "a2")
	e.lane(d, w)
	e.forward(time.Minute)
	e.lane(d, w)
	var sizes []string
	for _, p := range r.got() {
		var body struct {
			ID, Type string
			Data     []struct{ ID, Type string }
		}
		if err := json.Unmarshal(p.body, &body); err != nil {
			t.Fatalf("%s: %v", p.body, err)
		}
		if body.Type != "batch" || body.ID != p.id || !strings.HasPrefix(p.id, "batch_") {
			t.Errorf("got %s with webhook-id %s", p.body, p.id)
		}
		var ids []string
		for _, ev := range body.Data {
			ids = append(ids, strings.TrimPrefix(ev.ID, "evt_"))
		}
		sizes = append(sizes, strings.Join(ids, " "))
	}
	if want := []string{"a1 b1 c1", "d1", "a1 b1 c1", "a2"}; !slices.Equal(sizes, want) {
		t.Errorf("got batches %q, want %q", sizes, want)
	}
}

// A test event is posted before all others, and only once.
func TestTestEvent(t *testing.T) {
	e := newEnv(t)
	r := newReceiver(t, func(_ int, _ post, w http.ResponseWriter) { w.WriteHeader(http.StatusTeapot) })
	w := e.hook("shop", r.URL)
	d := e.deliverer()
	d.cfg.Requests = 1
	e.queue(w, "a1")
	if err := e.store.QueueWebhooks(t.Context(), []schemas.WebhookItem{{
		Tenant: w.Tenant, Endpoint: w.Number, EventID: "evt_test", Type: schemas.WebhookTestType, Order: "evt_test", Data: []byte("{}"), Time: start, Due: time.UnixMilli(1),
	}}, nil); err != nil {
		t.Fatal(err)
	}
	e.lane(d, w)
	if got := r.ids(); len(got) < 1 || got[0] != "evt_test" {
		t.Errorf("got %v, want the test first", got)
	}
	var waited dto.Metric
	if err := d.metrics.wait.Write(&waited); err != nil {
		t.Fatal(err)
	}
	if got := waited.GetHistogram().GetSampleSum(); got > 60 {
		t.Errorf("got a wait of %v s: a test is no late event", got)
	}
	if got := e.states(w); !slices.Contains(got, "evt_test:failed:1") {
		t.Errorf("got %v, want the test tried once", got)
	}
}

// The guard: Fanfare never connects to a private, local or special address, in any spelling, and follows no redirect.
func TestGuard(t *testing.T) {
	e := newEnv(t)
	inside := newReceiver(t, nil)
	outside := newReceiver(t, func(_ int, _ post, w http.ResponseWriter) {
		w.Header().Set("Location", inside.URL)
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	cfg := e.config(e.deliverer().cfg.Cluster)
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	redirected := newPoster(cfg).post(t.Context(), &schemas.Webhook{WebhookSettings: schemas.WebhookSettings{URL: outside.URL, Secrets: []schemas.WebhookSecret{{Value: secret}}}}, "evt_1", nil)
	if redirected.status != http.StatusTemporaryRedirect || redirected.err == "" {
		t.Errorf("a redirect: got %+v, want a failure", redirected)
	}
	cfg.Allow = nil
	p := newPoster(cfg)
	port := inside.URL[strings.LastIndex(inside.URL, ":"):]
	for _, host := range []string{"127.0.0.1", "localhost", "127.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "[fd00::1]", "[fe80::1]"} {
		a := p.post(t.Context(), &schemas.Webhook{WebhookSettings: schemas.WebhookSettings{URL: "http://" + host + port, Secrets: []schemas.WebhookSecret{{Value: secret}}}}, "evt_1", nil)
		if a.err == "" || a.status != 0 {
			t.Errorf("%s: got %+v, want no connection", host, a)
		}
		if host != "127.1" && host != "[fe80::1]" && !strings.Contains(a.err, "private or special") {
			t.Errorf("%s: got %q, want words about the address", host, a.err)
		}
	}
	if n := len(inside.got()); n != 0 {
		t.Errorf("got %d requests inside, want none", n)
	}
}

// The error of a request that was cut off, or whose endpoint does not exist, says so in plain words.
func TestUnreachable(t *testing.T) {
	e := newEnv(t)
	gone := newReceiver(t, nil)
	gone.Close()
	w := e.hook("shop", gone.URL)
	e.queue(w, "a1")
	e.lane(e.deliverer(), w)
	items, err := e.store.WebhookItems(t.Context(), w.Tenant, w.Number, store.WebhookFilter{})
	if err != nil {
		t.Fatal(err)
	}
	if len(items) != 1 || items[0].Status != 0 || !strings.Contains(items[0].Error, "refused") || strings.Contains(items[0].Error, "http://") {
		t.Errorf("got %+v", items)
	}
	if d := cmp.Diff(schemas.WebhookPending, items[0].State); d != "" {
		t.Error(d)
	}
}
