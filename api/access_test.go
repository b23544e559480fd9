package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"fanfare/api"
	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// sha is the hash of a request's body, as claims keep it.
func sha(body string) []byte {
	h := sha256.Sum256([]byte(body))
	return h[:]
}

// R104, X8: the key in X-Api-Key or as the password of Basic; nothing without one.
func TestAuthentication(t *testing.T) {
	w := newEnv(t)
	a := w.callAs("", "GET", "/api/campaigns", "")
	a.problem(401, "unauthenticated", "")
	if !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Basic ") {
		t.Errorf("401: got WWW-Authenticate %q, want Basic", a.header.Get("WWW-Authenticate"))
	}
	w.callAs("ff_live_wrong", "GET", "/api/campaigns", "").problem(401, "unauthenticated", "")
	w.callAs(w.key+"x", "GET", "/api/campaigns", "").problem(401, "unauthenticated", "")
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/api/campaigns", nil)
	req.SetBasicAuth("anybody", w.key)
	resp, err := http.DefaultClient.Do(req)
	w.check(err)
	_ = resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("Basic: got %d, want 200", resp.StatusCode)
	}
	// A key that is revoked, and the keys of a tenant that is disabled, work for two more seconds at most.
	keys, err := w.store.Keys(t.Context(), w.tenant.ID)
	w.check(err)
	w.check(w.store.RevokeKey(t.Context(), w.tenant.ID, keys[0].ID, 0))
	w.clock.forward(2 * time.Second)
	w.call("GET", "/api/campaigns", "").problem(401, "unauthenticated", "")
	tenant, key := w.newTenant("Off")
	w.callAs(key, "GET", "/api/campaigns", "").want(200)
	_, err = w.store.UpdateTenant(t.Context(), tenant.ID, 0, func(tn *store.Tenant) error { tn.Enabled = false; return nil })
	w.check(err)
	w.clock.forward(2 * time.Second)
	w.callAs(key, "GET", "/api/campaigns", "").problem(401, "unauthenticated", "")
}

// operations reads the document: every operation there is.
func operations(t *testing.T) map[string][]string {
	t.Helper()
	raw, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for path, item := range doc.Paths {
		for method := range item {
			if strings.HasSuffix(path, "/download") { // it needs no key but a signed link: see TestExportLink
				continue
			}
			out[path] = append(out[path], strings.ToUpper(method))
		}
	}
	return out
}

// Every operation of the document refuses a stranger, and a key without its scope, which it names.
func TestScopes(t *testing.T) {
	w := newEnv(t)
	none := w.newKey(w.tenant.ID, []store.Scope{store.ScopeAdmin}, false)
	scopes := map[string]int{}
	for path, methods := range operations(t) {
		for _, method := range methods {
			path := strings.NewReplacer("{id}", "camp_1", "{importId}", "imp_1", "{customerMessageId}", "x").Replace(path)
			w.callAs("", method, path, "").problem(401, "unauthenticated", "")
			key := none
			if w.callAs(none, method, path, "").status != 403 { // an operation of operators
				key = w.key
			}
			p := w.callAs(key, method, path, "").problem(403, "scope_missing", "")
			_, scope, _ := strings.Cut(p["detail"].(string), `"`)
			scopes[strings.TrimSuffix(scope, `".`)]++
			if method == http.MethodGet && key == none && !strings.Contains(p["detail"].(string), `"read"`) {
				t.Errorf("%s %s: got %q, want scope read", method, path, p["detail"])
			}
		}
	}
	for _, scope := range []string{"read", "campaigns", "confirm", "contacts", "send", "admin"} {
		if scopes[scope] == 0 {
			t.Errorf("scope %s: got no operation that needs it", scope)
		}
	}
	confirmOnly := w.newKey(w.tenant.ID, []store.Scope{store.ScopeConfirm}, false)
	id := w.campaign(1, "")
	w.callAs(confirmOnly, "PUT", "/api/campaigns/"+id, `{"name":"x"}`).problem(403, "scope_missing", "")
	w.callAs(confirmOnly, "PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
}

// A key that may only read sees the price, and changes nothing.
func TestReadersLeaveNoTrace(t *testing.T) {
	w := newEnv(t)
	id := w.campaign(3, "")
	reader := w.newKey(w.tenant.ID, []store.Scope{store.ScopeRead}, false)
	before := w.call("GET", "/api/campaigns/"+id, "")
	for range 2 {
		subset(t, "price", w.callAs(reader, "GET", "/api/campaigns/"+id+"/price", "").want(200).body, `{"totalContacts":3,"estimatedCost":0.15}`)
	}
	after := w.call("GET", "/api/campaigns/"+id, "")
	if before.header.Get("ETag") != after.header.Get("ETag") || string(before.body) != string(after.body) {
		t.Errorf("after a reader asked for the price: got %s, want it as it was: %s", after.body, before.body)
	}
	draft := w.call("POST", "/api/campaigns", `{"name":"N","channel":"sms","draft":true}`).want(201).id()
	w.callAs(reader, "GET", "/api/campaigns/"+draft+"/price", "").problem(422, "required", "message")
	w.call("GET", "/api/campaigns/"+id+"/price", "").want(200)
	subset(t, "priced by one who may", w.call("GET", "/api/campaigns/"+id, "").body, `{"state":"cost_calculated"}`)
}

// X8: so many requests a minute and a second for each key, and headers that say so.
func TestRateLimit(t *testing.T) {
	w := newEnv(t, func(w *env) { w.deps.Limits = api.Limits{} })
	first := w.call("GET", "/api/campaigns", "").want(200)
	if first.header.Get("X-RateLimit-Limit") != "1000" || first.header.Get("X-RateLimit-Remaining") != "999" {
		t.Errorf("headers: got %v, want 1000 and 999", first.header)
	}
	var refused *answer
	for range 60 {
		if a := w.call("GET", "/api/campaigns", ""); a.status != 200 {
			refused = a
			break
		}
	}
	if refused == nil {
		t.Fatal("61 in no time: got no 429")
	}
	p := refused.problem(429, "rate_limited", "")
	if refused.header.Get("Retry-After") != "1" || p["retryAfter"].(float64) != 1 || refused.header.Get("X-RateLimit-Limit") == "" {
		t.Errorf("429: got %v %v, want Retry-After 1", refused.header, p)
	}
	w.callAs(w.newKey(w.tenant.ID, nil, false), "GET", "/api/campaigns", "").want(200) // each key has its own
	w.clock.forward(time.Second)
	w.call("GET", "/api/campaigns", "").want(200)
	// A key may have limits of its own.
	w.deps.LimitsOf = func(*store.Key) api.Limits { return api.Limits{PerMinute: 3} }
	w.deps.Registry = newRegistry()
	w.serve()
	for range 3 {
		subset(t, "own", w.call("GET", "/api/campaigns", "").want(200).body, `{"total":0}`)
	}
	w.call("GET", "/api/campaigns", "").problem(429, "rate_limited", "")
}

// P7: with the ids of one tenant in hand, another learns nothing and changes nothing.
func TestTwoTenants(t *testing.T) {
	w := newEnv(t)
	w.relay()
	list := w.list("mine", 2, 0)
	campaign := w.campaign(1, `,"sendImmediately":true`)
	contact := w.call("POST", "/api/contacts", `{"phoneNumber":"+393339999999"}`).want(201).id()
	w.call("POST", "/api/suppressions", `{"phoneNumber":"+393338888888"}`).want(201)
	imported := w.call("POST", "/api/contacts/list/"+list+"/import", "phone\n+393337777777\n", header{"Content-Type", "text/csv"}).want(200).id()
	stranger, _ := w.newTenant("Other")
	other := w.newKey(stranger.ID, store.Scopes, false)
	for path, methods := range operations(t) {
		for _, method := range methods {
			id := campaign
			switch {
			case strings.Contains(path, "/contacts/list/"):
				id = list
			case strings.Contains(path, "/contacts/"):
				id = contact
			case strings.Contains(path, "/imports/"):
				id = imported
			}
			if !strings.Contains(path, "{") || strings.Contains(path, "/messages/") { // those are in TestMessageStatus
				continue
			}
			at := strings.NewReplacer("{id}", id, "{importId}", imported, "{seq}", "0").Replace(path)
			at = strings.Replace(at, "{tag}", "theirs", 1)
			body := ""
			switch {
			case method == "PUT" && strings.HasSuffix(path, "{tag}"):
				body = `{"tag":"x"}`
			case strings.HasSuffix(path, "/import"):
				body = "phone\n+393331111111\n"
			case method == "PUT" && strings.HasSuffix(path, "{id}"), method == "PATCH", strings.HasSuffix(path, "/credit"), strings.HasSuffix(path, "/ambiguous"),
				strings.HasSuffix(path, "/selection"), strings.HasSuffix(path, "/recover"), strings.HasSuffix(path, "/segments"),
				method == "POST" && strings.HasSuffix(path, "/replay"), strings.HasSuffix(path, "/reschedule"), strings.HasSuffix(path, "/test"),
				strings.HasSuffix(path, "/reject"), strings.HasSuffix(path, "/disable"), strings.HasSuffix(path, "/templates/{id}/pause"),
				method == "POST" && strings.HasSuffix(path, "/conversations/{id}/messages"), strings.HasSuffix(path, "/opt-out-reviews/{id}"),
				method == "POST" && strings.HasSuffix(path, "/domains"):
				body = "{}"
			}
			a := w.callAs(other, method, at, body, header{"Content-Type", map[bool]string{true: "text/csv", false: "application/json"}[strings.HasSuffix(path, "/import")]})
			if a.status != 404 {
				t.Errorf("%s %s of another tenant: got %d %s, want 404", method, at, a.status, a.body)
			}
		}
	}
	for _, path := range []string{"/api/campaigns", "/api/contacts", "/api/contacts/list", "/api/suppressions", "/api/campaigns?includeDeleted=true"} {
		subset(t, path, w.callAs(other, "GET", path, "").want(200).body, `{"total":0,"data":[]}`)
	}
	subset(t, "totals", w.callAs(other, "GET", "/api/campaigns/stats", "").want(200).body, `{"campaigns":0,"totalMessages":0}`)
	w.callAs(other, "POST", "/api/campaigns", fmt.Sprintf(`{"name":"N","channel":"sms","message":"m","contactList":%q}`, list)).problem(422, "invalid_value", "contactList")
	w.callAs(other, "POST", "/api/campaigns", `{"name":"N","channel":"sms","message":"m","contactList":"mine"}`).problem(422, "invalid_value", "contactList")
	w.callAs(other, "POST", "/api/contacts/list", `{"name":"mine"}`).want(201) // a name is only taken within a tenant
	w.callAs(other, "DELETE", "/api/contacts/list?id="+list, "").problem(404, "not_found", "")
	w.callAs(other, "POST", "/api/contacts/list/contacts", fmt.Sprintf(`{"listId":"mine","contactIds":[%q]}`, contact)).problem(404, "not_found", "")
	// Its own, of which there is none
	w.callAs(other, "DELETE", "/api/suppressions", `{"phoneNumber":"+393338888888"}`).want(200)
	subset(t, "still suppressed", w.call("GET", "/api/suppressions", "").body, `{"total":1}`)
	subset(t, "untouched", w.call("GET", "/api/campaigns/"+campaign, "").body, `{"name":"C","state":"configured"}`)
}

// Every code of the catalogue is provoked by something; what nothing provokes has no business there.
func TestEveryProblem(t *testing.T) {
	g := &gate{}
	logs := ""
	w := newEnv(t, func(w *env) {
		w.deps.Moderator, w.deps.Approver = g, g
		w.deps.AckTimeout, w.deps.PublishTimeout = 200*time.Millisecond, 100*time.Millisecond
	})
	w.list("l", 1, 0)
	id := w.campaign(1, `,"sendImmediately":true`)
	path := "/api/campaigns/" + id
	csv := header{"Content-Type", "text/csv"}
	cases := map[string]func() *answer{
		"malformed_request": func() *answer {
			return w.call("POST", "/api/contacts/list/l/import", "phone\n+39333", csv, header{"Idempotency-Key", strings.Repeat("k", 256)})
		},
		"malformed_json":  func() *answer { return w.call("POST", "/api/campaigns", `{"name":`) },
		"body_required":   func() *answer { return w.call("POST", "/api/campaigns", "") },
		"unauthenticated": func() *answer { return w.callAs("", "GET", path, "") },
		"test_key": func() *answer {
			return w.callAs(w.newKey(w.tenant.ID, nil, true), "POST", "/api/suppressions", `{"phoneNumber":"+393331234567"}`)
		},
		"scope_missing": func() *answer {
			return w.callAs(w.newKey(w.tenant.ID, []store.Scope{store.ScopeSend}, false), "GET", path, "")
		},
		"not_found":              func() *answer { return w.call("GET", "/api/campaigns/camp_1", "") },
		"no_such_path":           func() *answer { return w.call("GET", "/api/nowhere", "") },
		"method_not_allowed":     func() *answer { return w.call("PATCH", "/api/campaigns", "{}") },
		"unsupported_media_type": func() *answer { return w.call("POST", "/api/campaigns", "<a/>", header{"Content-Type", "text/xml"}) },
		"body_too_large":         func() *answer { return w.call("POST", "/api/campaigns", `{"name":"`+strings.Repeat("x", 2<<20)+`"}`) },
		"required":               func() *answer { return w.call("POST", "/api/campaigns", "{}") },
		"unknown_merge_field":    func() *answer { return w.call("PUT", path, `{"message":"Ciao {{surname}}"}`) },
		"unknown_field":          func() *answer { return w.call("POST", "/api/campaigns", `{"nome":"x"}`) },
		"invalid_value":          func() *answer { return w.call("GET", "/api/campaigns?limit=0", "") },
		"read_only":              func() *answer { return w.call("PUT", path, `{"state":"x"}`) },
		"too_long":               func() *answer { return w.call("PUT", path, `{"name":"`+strings.Repeat("x", 201)+`"}`) },
		"list_in_use": func() *answer {
			w.campaign(1, "")
			return w.call("DELETE", fmt.Sprintf("/api/contacts/list/list%%20%d", w.lists), "")
		},
		"too_many_contacts": func() *answer { return w.call("POST", path+"/calculateGoal", `{"goalContactCount":1000001}`) },
		"time_in_past": func() *answer {
			return w.call("PUT", path, `{"sendImmediately":false,"scheduledTime":"2020-01-01T00:00:00Z"}`)
		},
		"invalid_number": func() *answer { return w.call("POST", "/api/contacts", `{"phoneNumber":"abc"}`) },
		"name_taken":     func() *answer { return w.call("POST", "/api/contacts/list", `{"name":"l"}`) },
		"not_replayable": func() *answer { return w.call("POST", path+"/replay", `{"statuses":["Delivered"]}`) },
		"fixed_by_replay": func() *answer {
			old := w.sentAndAnswered()
			w.complete(old)
			w.clock.forward(25 * time.Hour)
			made := w.call("POST", "/api/campaigns/"+old+"/replay", `{"statuses":["Delivered"]}`).want(201).id()
			return w.call("PUT", "/api/campaigns/"+made, `{"sender":"OTHER"}`)
		},
		"wrong_state":      func() *answer { return w.call("POST", path+"/pause", "") },
		"version_mismatch": func() *answer { return w.call("PUT", path, `{"notes":"x"}`, header{"If-Match", `"99"`}) },
		"price_changed":    func() *answer { return w.call("PUT", path+"/confirm", `{"expectedCost":1}`) },
		"idempotency_in_flight": func() *answer {
			_, err := w.store.Begin(t.Context(), w.tenant.ID, "POST /api/contacts/list", "k", sha(`{"name":"z"}`))
			w.check(err)
			return w.call("POST", "/api/contacts/list", `{"name":"z"}`, header{"Idempotency-Key", "k"})
		},
		"idempotency_mismatch": func() *answer {
			return w.call("POST", "/api/contacts/list", `{"name":"y"}`, header{"Idempotency-Key", "k"})
		},
		"approval_required": func() *answer {
			g.approve = "no"
			defer func() { g.approve = "" }()
			return w.call("PUT", path+"/confirm", "")
		},
		"rule_of_country": func() *answer {
			w.callAs(w.admin(), "PUT", "/api/policy", `{"compliance":"refuse"}`).want(200)
			a := w.call("PUT", "/api/campaigns/"+w.campaign(1, "")+"/confirm", "")
			w.callAs(w.admin(), "PUT", "/api/policy", `{"compliance":"off"}`).want(200)
			return a
		},
		"content_rejected": func() *answer {
			g.moderate = "abusive"
			defer func() { g.moderate = "" }()
			return w.call("PUT", "/api/campaigns/"+w.campaign(1, "")+"/confirm", "")
		},
		"insufficient_credit": func() *answer {
			poor, key := w.newTenant("poor")
			w.check(w.store.SetCredit(t.Context(), poor.ID, 10, false))
			w.callAs(key, "POST", "/api/contacts/list", `{"name":"l"}`).want(201)
			w.callAs(key, "POST", "/api/contacts", `{"phoneNumber":"+393331234567","listIds":["l"]}`).want(201)
			id := w.callAs(key, "POST", "/api/campaigns", `{"name":"N","channel":"sms","message":"m","contactList":"l"}`).want(201).id()
			return w.callAs(key, "PUT", "/api/campaigns/"+id+"/confirm", "")
		},
		"opted_out": func() *answer {
			w.check(w.store.Suppress(t.Context(), w.tenant.ID, "api", "+393331234567"))
			return w.call("POST", sendPath, `{"phoneNumber":"+393331234567","message":"m"}`)
		},
		// The relay does not publish
		"unavailable": func() *answer { return w.call("POST", "/api/suppressions", `{"phoneNumber":"+393331234568"}`) },
		"campaign_active": func() *answer {
			running := w.campaign(1, `,"sendImmediately":true`)
			w.call("PUT", "/api/campaigns/"+running+"/confirm", "").want(200)
			w.freeze(running, 1)
			return w.call("DELETE", "/api/campaigns/"+running, "")
		},
		"campaign_ended": func() *answer {
			w.call("DELETE", path, "").want(200)
			return w.call("DELETE", path, "")
		},
		"too_many_active_campaigns": func() *answer {
			for range 10 {
				if a := w.call("PUT", "/api/campaigns/"+w.campaign(1, "")+"/confirm", ""); a.status != 200 {
					return a
				}
			}
			return w.call("PUT", "/api/campaigns/"+w.campaign(1, "")+"/confirm", "")
		},
		"campaigns_disabled": func() *answer {
			tenant, key := w.newTenant("No campaigns")
			_, err := w.store.UpdateTenant(t.Context(), tenant.ID, 0, func(tn *store.Tenant) error { tn.CampaignsEnabled = false; return nil })
			w.check(err)
			return w.callAs(key, "POST", "/api/campaigns", `{"name":"N","channel":"sms","draft":true}`)
		},
		"rate_limited": func() *answer {
			w.deps.Limits, w.deps.Registry = api.Limits{PerSecond: 1, PerMinute: 1}, newRegistry()
			w.serve()
			w.call("GET", "/api/campaigns", "")
			return w.call("GET", "/api/campaigns", "")
		},
		"internal": func() *answer {
			w.deps.Limits, w.deps.Registry, w.deps.Analytics = api.Limits{PerSecond: 1e6, PerMinute: 1e6}, newRegistry(), nil
			w.deps.Analytics = &panicking{w.stats}
			w.serve()
			id := w.campaign(1, "")
			// A panic in the goroutine that reads for several requests must not end the process either.
			w.call("GET", "/api/campaigns/"+id+"/stats", "").problem(500, "internal", "")
			a := w.call("GET", "/api/campaigns/"+id+"/stats/timeline", "")
			logs = w.logs.String()
			return a
		},
	}
	// These change the env for the cases after them
	order := []string{"campaign_ended", "too_many_active_campaigns", "rate_limited", "internal"}
	names := make([]string, 0, len(cases))
	for name := range cases {
		if !slices.Contains(order, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	i, j := slices.Index(names, "idempotency_in_flight"), slices.Index(names, "idempotency_mismatch")
	if i > j {
		t.Fatal("the mismatch needs the key of the one in flight")
	}
	for _, name := range append(names, order...) {
		a := cases[name]()
		p := a.object()
		status := problem.Code(name).Status()
		field, _ := p["field"].(string)
		a.what = name + ": " + a.what
		a.problem(status, name, field)
	}
	if !strings.Contains(logs, "panic in a handler") || strings.Contains(logs, "+39") {
		t.Errorf("log of a panic: got %q, want it said, without numbers", logs)
	}
	for _, code := range problem.Codes() {
		// A slow body; a race that is lost five times
		if cases[string(code)] == nil && !slices.Contains([]problem.Code{problem.CodeTimeout, problem.CodeConflict}, code) {
			t.Errorf("code %s: nothing provokes it", code)
		}
	}
}

// panicking is a statistics store with a bug.
type panicking struct{ *switchedStats }

func (*panicking) Close() error { return nil }

func (p *panicking) Cost(context.Context, string, ...string) (map[string][]analytics.CostLine, error) {
	none := make([]analytics.CostLine, len(os.Args[:0]))
	return map[string][]analytics.CostLine{"": none[1:]}, nil // a bug
}

func (p *panicking) Timeline(context.Context, string, string, analytics.Span) ([]analytics.Point, error) {
	none := make([]analytics.Point, len(os.Args[:0]))
	return none[1:], nil // a bug
}

// /healthz says that the process lives; /readyz asks what it needs, and says degraded when the view of the control
// plane is old.
func TestHealth(t *testing.T) {
	var broken error
	age := time.Second
	hung := make(chan struct{})
	defer close(hung)
	registry := newRegistry()
	w := newEnv(t, func(w *env) {
		w.deps.Registry, w.deps.Metrics = registry, promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
		w.deps.ControlAge = func() time.Duration { return age }
		w.deps.Ready = []api.Check{{Name: "store", Do: w.store.Ping}, {Name: "kafka", Do: func(ctx context.Context) error {
			if errors.Is(broken, io.EOF) { // hangs until it is told to stop
				<-ctx.Done()
				return ctx.Err()
			}
			return broken
		}}}
	})
	if got := string(w.callAs("", "GET", "/healthz", "").want(200).body); got != "ok\n" {
		t.Errorf("healthz: got %q, want ok", got)
	}
	subset(t, "ready", w.callAs("", "GET", "/readyz", "").want(200).body, `{"status":"ready","checks":{"store":"ok","kafka":"ok","control_view":"ok"}}`)
	age = 6 * time.Second
	subset(t, "degraded", w.callAs("", "GET", "/readyz", "").want(200).body, `{"status":"degraded","checks":{"control_view":"stale for 6s"}}`)
	broken = errors.New("no broker answers")
	subset(t, "unready", w.callAs("", "GET", "/readyz", "").want(503).body, `{"status":"unready","checks":{"kafka":"no broker answers","store":"ok"}}`)
	broken = io.EOF
	began := time.Now()
	w.callAs("", "GET", "/readyz", "").want(503)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("a check that hangs: got an answer after %v, want one within a second or so", took)
	}
	w.call("GET", "/api/campaigns", "").want(200)
	metrics := string(w.callAs("", "GET", "/metrics", "").want(200).body)
	for _, want := range []string{`fanfare_api_requests_total{operation="listCampaigns",status="200"} 1`, "fanfare_api_request_seconds_bucket"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics: got none of %q", want)
		}
	}
}

// A process without an API has its health, and nothing else.
func TestOps(t *testing.T) {
	h := api.NewOps(api.Deps{Ready: []api.Check{{Name: "process", Do: func(context.Context) error { return errAway }}}})
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/metrics": 404, "/api/campaigns": 404, "/": 404} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
		if rec.Code != want {
			t.Errorf("%s: got %d, want %d", path, rec.Code, want)
		}
	}
}

// Structural: every answer has a request id, the client's when it is one that can be logged.
func TestRequestIDs(t *testing.T) {
	w := newEnv(t)
	for given, kept := range map[string]bool{"abc-1.2_3:4": true, "": false, "with space": false, strings.Repeat("x", 65): false} {
		got := w.call("GET", "/api/campaigns", "", header{"X-Request-Id", given}).header.Get("X-Request-Id")
		if (got == given) != kept || got == "" {
			t.Errorf("id %q: got %q, want it kept: %v", given, got, kept)
		}
	}
}

// R101, P5: while the statistics are away the last answer is given, with its age; what was never asked is 503.
func TestStatisticsAway(t *testing.T) {
	w := newEnv(t)
	a, b := w.campaign(1, `,"sendImmediately":true`), w.campaign(1, "")
	w.call("PUT", "/api/campaigns/"+a+"/confirm", "").want(200)
	w.freeze(a, 100)
	w.happened(w.tenant.ID, a, 0, 40, schemas.KindSent, schemas.CodeAwaitingDLR)
	before := w.call("GET", "/api/campaigns/"+a+"/stats", "").want(200)
	w.call("GET", "/api/campaigns/stats", "").want(200)
	w.stats.away.Store(true)
	if got := w.call("GET", "/api/campaigns/"+a+"/stats", "").want(200); !bytes.Equal(got.body, before.body) {
		t.Errorf("away: got %s, want the last answer %s", got.body, before.body)
	}
	away := w.call("GET", "/api/campaigns/"+b+"/stats", "")
	away.problem(503, "unavailable", "")
	if away.header.Get("Retry-After") == "" {
		t.Error("503: got no Retry-After")
	}
	subset(t, "totals", w.call("GET", "/api/campaigns/stats", "").want(200).body, `{"campaigns":2,"sent":40}`)
}

// X2: totals over all campaigns, but tests and what was removed; the identities hold for them too.
func TestTotals(t *testing.T) {
	w := newEnv(t)
	ids := []string{w.campaign(1, `,"sendImmediately":true`), w.campaign(1, `,"sendImmediately":true,"testRun":true`), w.campaign(1, "")}
	for _, id := range ids[:2] {
		w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
		w.freeze(id, 50)
		w.happened(w.tenant.ID, id, 0, 20, schemas.KindDelivered, schemas.CodeDelivered)
		w.happened(w.tenant.ID, id, 20, 25, schemas.KindNotSent, schemas.CodeInvalidNumber)
	}
	w.call("DELETE", "/api/campaigns/"+ids[2], "").want(200)
	subset(t, "totals", w.call("GET", "/api/campaigns/stats", "").want(200).body,
		`{"campaigns":2,"byStatus":{"sending":1,"cancelled":1},"byState":{"sending":1,"cancelled":1},"totalMessages":50,"sent":20,"delivered":20,"failed":5,"notSent":5,"pending":25,"deliveryRate":1,"failureRate":0.2,"deliveryRateOfTotal":0.4}`)
	w.call("DELETE", "/api/campaigns/"+ids[2]+"?remove=true", "").want(200)
	subset(t, "without the removed", w.call("GET", "/api/campaigns/stats", "").body, `{"campaigns":1}`)
	subset(t, "by day", w.call("GET", "/api/campaigns/stats?endDate=2025-03-31", "").body, `{"campaigns":0,"totalMessages":0}`)
}

// The store keeps the figures of a campaign that ended an hour ago: they count while the statistics are away. If a
// receipt comes later, the next request for the campaign corrects them.
func TestTotalsAreKept(t *testing.T) {
	w := newEnv(t)
	id := w.campaign(1, `,"sendImmediately":true`)
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	w.freeze(id, 50)
	w.happened(w.tenant.ID, id, 0, 50, schemas.KindUndelivered, schemas.CodeHandsetOff)
	for _, change := range []schemas.Change{{To: schemas.StateCompleted, Trigger: schemas.TriggerComplete}, {Settled: true, Captured: 30 * smsPrice}} {
		c, err := w.store.Campaign(t.Context(), w.tenant.ID, id)
		w.check(err)
		change.Tenant, change.Campaign, change.Version, change.Actor = w.tenant.ID, id, c.Version, schemas.ActorScheduler
		_, err = w.store.Apply(t.Context(), change)
		w.check(err)
	}
	before := `{"campaigns":1,"totalMessages":50,"undelivered":50,"delivered":0,"cost":1.50}`
	subset(t, "before", w.call("GET", "/api/campaigns/stats", "").want(200).body, before)
	w.clock.forward(2 * time.Hour)
	// The statistics are as new as that
	w.check(w.stats.Mark(t.Context(), analytics.TopicID{1}, []analytics.Mark{{AsOf: w.clock.now()}}))
	subset(t, "kept", w.call("GET", "/api/campaigns/stats", "").want(200).body, before)
	rows, err := w.store.Unkept(t.Context(), w.tenant.ID, 0, 10)
	w.check(err)
	if len(rows) != 0 {
		t.Errorf("got %v, want the figures kept", rows)
	}
	w.stats.away.Store(true)
	subset(t, "away", w.call("GET", "/api/campaigns/stats", "").want(200).body, before)
	w.stats.away.Store(false)
	w.happened(w.tenant.ID, id, 0, 20, schemas.KindDelivered, schemas.CodeDelivered)
	w.call("GET", "/api/campaigns/"+id+"/stats", "").want(200)
	subset(t, "corrected", w.call("GET", "/api/campaigns/stats", "").want(200).body, `{"campaigns":1,"totalMessages":50,"undelivered":30,"delivered":20}`)
}

// R102, C10: when the rest will be handed over.
func TestCompletionTime(t *testing.T) {
	w := newEnv(t)
	id := w.campaign(1, `,"sendImmediately":true,"rate":100`)
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	w.freeze(id, 60_000)
	subset(t, "600 s at 100/s", w.call("GET", "/api/campaigns/"+id+"/stats", "").body, `{"startTime":"2025-04-01T09:00:00Z","estimatedCompletionTime":"2025-04-01T09:10:00Z","inFlight":0}`)
	w.happened(w.tenant.ID, id, 0, 30_000, schemas.KindSent, schemas.CodeAwaitingDLR)
	w.clock.forward(time.Minute)
	subset(t, "the other half", w.call("GET", "/api/campaigns/"+id+"/stats", "").body, `{"estimatedCompletionTime":"2025-04-01T09:06:00Z"}`)
	w.call("POST", "/api/campaigns/"+id+"/pause", "").want(200)
	subset(t, "no estimate while it is paused", w.call("GET", "/api/campaigns/"+id+"/stats", "").body, `{"estimatedCompletionTime":null,"paused":true}`)
}
