package api_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"fanfare/api"
	"fanfare/api/domaincheck"
	"fanfare/api/store"
	"fanfare/schemas"
)

// TestDomains (R39, R40): a tenant has its own domains and uses shared ones, with limits and weights. The error for bad
// input says what to do.
func TestDomains(t *testing.T) {
	w := newEnv(t)
	admin := w.admin()
	got := w.call("POST", "/api/domains", `{"host":"Go.Example.com.","dailyLimit":10,"totalLimit":100,"weight":3}`).want(201)
	subset(t, "made", got.body, `{"host":"go.example.com","kind":"short","shared":false,"status":"active","weight":3,"dailyLimit":10,"totalLimit":100,"usedToday":0,"usedTotal":0,"room":10,"usable":true,"health":"unchecked"}`)
	id := got.id()
	w.call("POST", "/api/shared-domains", `{"host":"all.example"}`).want(403)
	w.callAs(admin, "POST", "/api/shared-domains", `{"host":"all.example","kind":"opt_out"}`).want(201)
	w.callAs(admin, "POST", "/api/shared-domains", `{"host":"go.example.com"}`).problem(409, "name_taken", "name")
	if got, want := rowsOf(w.call("GET", "/api/domains/pool", "")), "all.example opt_out shared true room - used 0 usable true; go.example.com short shared false room 10 used 0 usable true"; got != want {
		t.Errorf("pool: got %s, want %s", got, want)
	}
	if got, want := rowsOf(w.call("GET", "/api/domains", "")), "go.example.com short shared false room 10 used 0 usable true"; got != want {
		t.Errorf("own: got %s, want %s", got, want)
	}
	if got, want := rowsOf(w.callAs(admin, "GET", "/api/shared-domains", "")), "all.example opt_out shared true room - used 0 usable true"; got != want {
		t.Errorf("shared: got %s, want %s", got, want)
	}
	subset(t, "changed", w.call("PUT", "/api/domains/go.example.com", `{"status":"paused","totalLimit":null,"dailyLimit":0}`).want(200).body, `{"status":"paused","usable":false,"room":null,"weight":3}`)
	for body, field := range map[string]string{
		`{}`:                                                 "host",
		`{"host":"https://go.example"}`:                      "host",
		`{"host":"go.example/x"}`:                            "host",
		`{"host":"go.example:443"}`:                          "host",
		`{"host":"192.0.2.1"}`:                               "host",
		`{"host":"localhost"}`:                               "host",
		`{"host":"-a.example"}`:                              "host",
		`{"host":"a..example"}`:                              "host",
		`{"host":"münchen.example"}`:                         "host",
		`{"host":"a.example","weight":0}`:                    "weight",
		`{"host":"a.example","kind":"x"}`:                    "kind",
		`{"host":"a.example","status":"x"}`:                  "status",
		`{"host":"a.example","totalLimit":2000000000}`:       "totalLimit",
		`{"host":"` + strings.Repeat("a.", 60) + `example"}`: "host",
	} {
		p := w.call("POST", "/api/domains", body).want(422)
		if p.get("field") != field || p.get("detail") == "" {
			t.Errorf("%s: got %s, want field %s", body, p.body, field)
		}
	}
	w.call("PUT", "/api/domains/"+id, `{"host":"other.example"}`).problem(422, "read_only", "host")
	w.call("PUT", "/api/domains/"+id, `{"kind":"opt_out"}`).problem(422, "read_only", "kind")
	w.call("DELETE", "/api/domains/"+id, "").want(200)
	w.call("GET", "/api/domains/"+id, "").want(404)
}

// rowsOf lists the domains of an answer.
func rowsOf(a *answer) string {
	var list struct {
		Data []struct {
			Host, Kind     string
			Shared, Usable bool
			Room           *uint64
			Used           int
		}
	}
	a.want(200).into(&list)
	var out []string
	for _, d := range list.Data {
		room := "-"
		if d.Room != nil {
			room = fmt.Sprint(*d.Room)
		}
		out = append(out, fmt.Sprintf("%s %s shared %v room %s used %d usable %v", d.Host, d.Kind, d.Shared, room, d.Used, d.Usable))
	}
	return strings.Join(out, "; ")
}

// linkCampaign creates a campaign of n recipients with a link, in state sending.
func (w *env) linkCampaign(n int, more string) string {
	w.Helper()
	list := w.list(fmt.Sprint("l", n, more), n, 0)
	id := w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"c","channel":"sms","message":"{{link:https://shop.example}}","contactList":%q,"sendImmediately":true%s}`, list, more)).want(201).id()
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	c, err := w.store.Campaign(w.Context(), w.tenant.ID, id)
	w.check(err)
	w.check(w.store.Freeze(w.Context(), w.tenant.ID, id, c.Version))
	w.move(id, func(c *schemas.Change) { c.To, c.Trigger = schemas.StateSending, schemas.TriggerDeal })
	return id
}

// allot reserves domains for recipients, as the scheduler does.
func (w *env) allot(id string, n uint32) (recipients uint32) {
	w.Helper()
	c, err := w.store.Campaign(w.Context(), w.tenant.ID, id)
	w.check(err)
	blocks, err := w.store.AllotDomains(w.Context(), schemas.DomainRequest{Tenant: w.tenant.ID, Campaign: id, Number: c.Number, FreezeID: c.FreezeID, Want: n})
	w.check(err)
	for _, b := range blocks {
		recipients += b.GetRecipients()
	}
	return recipients
}

// TestCampaignDomains (R39, R40, R77, R137): a campaign is confirmed with domains and uses up their limits. It is then
// suspended as no_domains, cannot be resumed while no domain has room, and continues by itself when a domain is added
// to it.
func TestCampaignDomains(t *testing.T) {
	w := newEnv(t) // without --link-url
	w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"c","channel":"sms","message":"{{link:https://shop.example}}","contactList":%q}`, w.list("first", 1, 0))).problem(422, "invalid_value", "message")
	one := w.call("POST", "/api/domains", `{"host":"one.example","totalLimit":3}`).want(201).id()
	w.call("POST", "/api/domains", `{"host":"pool.example"}`).want(201)
	w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"c","channel":"sms","message":"x","contactList":%q,"domains":["two.example"]}`, "first")).problem(422, "invalid_value", "domains")
	id := w.linkCampaign(10, `,"domains":["one.example"]`)
	path := "/api/campaigns/" + id
	subset(t, "campaign", w.call("GET", path, "").want(200).body, `{"domains":["`+one+`"],"state":"sending"}`)
	if l := w.record(id).GetLinks(); !l.GetShortDomains() || l.GetOptOutDomains() {
		t.Errorf("got %v, want short domains alone", l)
	}
	if got := w.allot(id, 100); got != 3 {
		t.Errorf("got %d recipients with a domain, want 3", got)
	}
	subset(t, "spent", w.call("GET", path+"/domains", "").want(200).body, `{"kinds":["short"],"spent":["short"]}`)
	if got, want := rowsOf(w.call("GET", path+"/domains", "")), "one.example short shared false room 0 used 3 usable false"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	w.move(id, func(c *schemas.Change) {
		c.To, c.Trigger, c.Actor, c.Reason = schemas.StateSuspended, schemas.TriggerSuspend, schemas.ActorGuard, schemas.ReasonNoDomains
	})
	subset(t, "suspended", w.call("GET", path, "").want(200).body, `{"state":"suspended","suspendedReason":"no_domains"}`)
	if p := w.call("POST", path+"/resume", "").problem(409, "wrong_state", ""); !strings.Contains(fmt.Sprint(p["detail"]), "POST "+path+"/domains") {
		t.Errorf("got %v, want the fix", p)
	}
	w.call("DELETE", "/api/domains/"+one, "").problem(409, "changed_meanwhile", "")

	add := func(body string) *answer { return w.call("POST", path+"/domains", body) }
	add(`{}`).problem(422, "required", "domains")
	add(`{"domains":["none.example"]}`).problem(422, "invalid_value", "domains")
	add(`{"domains":["pool.example"],"host":"x.example"}`).problem(422, "invalid_value", "domains")
	add(`{"host":"not a host"}`).problem(422, "invalid_value", "host")
	if p := add(`{"host":"longer.example"}`).problem(422, "invalid_value", "domains"); !strings.Contains(fmt.Sprint(p["detail"]), "11") {
		t.Errorf("got %v, want the length of a host", p)
	}
	subset(t, "still", w.call("GET", path, "").want(200).body, `{"state":"suspended"}`)
	if got, want := rowsOf(add(`{"host":"two.example","totalLimit":4}`)), "one.example short shared false room 0 used 3 usable false; two.example short shared false room 4 used 0 usable true"; got != want {
		t.Errorf("quick add: got %s, want %s", got, want)
	}
	subset(t, "goes on", w.call("GET", path, "").want(200).body, `{"state":"sending","suspendedReason":null}`)
	if got := w.allot(id, 100); got != 7 {
		t.Errorf("got %d recipients with a domain, want 7", got)
	}
	// Raising a limit has the same effect as adding a domain.
	w.move(id, func(c *schemas.Change) {
		c.To, c.Trigger, c.Actor, c.Reason = schemas.StateSuspended, schemas.TriggerSuspend, schemas.ActorGuard, schemas.ReasonNoDomains
	})
	w.call("PUT", "/api/domains/one.example", `{"totalLimit":50}`).want(200)
	subset(t, "goes on with a higher limit", w.call("GET", path, "").want(200).body, `{"state":"sending"}`)
	if got := w.allot(id, 100); got != 10 {
		t.Errorf("got %d recipients with a domain, want all 10", got)
	}
	subset(t, "an end", w.call("POST", path+"/abort", "").want(200).body, `{"state":"aborted"}`)
	add(`{"domains":["pool.example"]}`).problem(409, "wrong_state", "")
}

// noNames is a DNS in which no name exists.
type noNames struct{}

func (noNames) LookupHost(context.Context, string) ([]string, error) {
	return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}

func (noNames) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("refused")
}

// TestDomainHealth (R39): the role api checks domains. A bad domain gets no recipients, and the API says why.
func TestDomainHealth(t *testing.T) {
	w := newEnv(t, func(w *env) {
		w.deps.DomainChecks = api.DomainChecks{Checker: domaincheck.New(domaincheck.Config{Resolver: noNames{}, Dialer: noNames{}, Tries: 1})}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.server.RunJobs(ctx) }()
	defer func() {
		cancel()
		w.check(<-done)
	}()
	w.call("POST", "/api/domains", `{"host":"go.example"}`).want(201)
	for until := time.Now().Add(90 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		got := w.call("GET", "/api/domains/go.example", "").want(200)
		if got.get("health") == store.DomainUnresolved {
			subset(t, "bad", got.body, `{"usable":false,"status":"active"}`)
			if !strings.Contains(got.get("healthReason"), "does not resolve") || got.get("checkedAt") == "" {
				t.Errorf("got %s", got.body)
			}
			return
		}
		if time.Now().After(until) {
			t.Fatalf("got %s, want an unresolved domain", got.body)
		}
	}
}
