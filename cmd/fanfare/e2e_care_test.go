package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// provider is an HTTP provider of SMS whose failures the test controls.
type provider struct {
	mu     sync.Mutex
	status int // the HTTP status of its answers; 0: it accepts messages from an account with the token
	token  string
	taken  map[string]int // by number
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, token, _ := r.BasicAuth()
	switch to := r.FormValue("To"); {
	case token != p.token:
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"code":20003,"message":"Authenticate"}`)
	case p.status != 0:
		w.WriteHeader(p.status)
	default:
		p.taken[to]++
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"sid":"SM%s","status":"queued"}`, strings.Trim(to, "+"))
	}
}

func (p *provider) set(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = status
}

func (p *provider) counts() (people, messages int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.taken {
		messages += n
	}
	return len(p.taken), messages
}

// A carrier that fails, and one that refuses the password, suspend the campaigns of their routes with a reason that
// says so. Both campaigns go on by themselves: when the carrier works again, and when the operator has renewed the
// password. Each recipient gets one message (R77, R79, P3).
func TestEndToEndRouteCare(t *testing.T) {
	const people = 120
	ill, strict := &provider{token: "s3cret", taken: map[string]int{}}, &provider{token: "renewed", taken: map[string]int{}}
	illServer, strictServer := httptest.NewServer(ill), httptest.NewServer(strict)
	defer illServer.Close()
	defer strictServer.Close()

	data, addr := filepath.Join(t.TempDir(), "data"), freeAddr(t)
	runBinary(t, "tenants", "create", "Acme", "--data", data)
	api := &client{base: "http://" + addr, key: runBinary(t, "keys", "create", "--tenant", "Acme", "--data", data, "--scope", "read,campaigns,confirm,contacts,send,admin")}
	startProcess(t, "fanfare", fanfareBinary(t), "serve", "--data", data, "--http", addr, "--log-level", "warn")
	api.waitReady(t)

	type o = map[string]any
	credentials := func(server *httptest.Server, token string) o {
		return o{"values": o{"accountSid": "AC1", "authToken": token, "baseUrl": server.URL}}
	}
	campaign := func(name string, server *httptest.Server) (id string) {
		api.must(t, http.MethodPost, "/api/routes", o{
			"name": name, "connector": "httpsms", "rate": 60, "receiptWindow": 3600, "configuration": o{"preset": "twilio"},
			"credentials": credentials(server, "s3cret"), "care": o{"downAfter": 1},
		}, nil, "")
		var csv bytes.Buffer
		csv.WriteString("phone,name\n")
		for n := range people {
			fmt.Fprintf(&csv, "+393406%06d,Anna\n", n)
		}
		var list, made struct{ ID string }
		api.must(t, http.MethodPost, "/api/contacts/list", o{"name": name}, &list, "")
		api.must(t, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", bytes.NewReader(csv.Bytes()), nil, "text/csv")
		api.must(t, http.MethodPost, "/api/campaigns", o{
			"name": name, "channel": "sms", "message": "Good morning {{name}}", "contactList": list.ID, "sendImmediately": true, "route": name,
		}, &made, "")
		api.must(t, http.MethodPut, "/api/campaigns/"+made.ID+"/confirm", nil, nil, "")
		return made.ID
	}
	var view struct {
		State           string
		SuspendedReason string
		SuspendedText   string
	}
	until := func(what, id string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			view.State, view.SuspendedReason, view.SuspendedText = "", "", ""
			api.must(t, http.MethodGet, "/api/campaigns/"+id, nil, &view, "")
			if is() {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: the campaign is %+v", what, view)
			}
		}
	}

	a := campaign("ill", illServer)
	b := campaign("strict", strictServer)
	until("a sixth is sent", a, func() bool {
		n, _ := ill.counts()
		return n >= people/6
	})
	ill.set(http.StatusServiceUnavailable)
	until("the carrier fails", a, func() bool {
		return view.State == "suspended" && view.SuspendedReason == "route_down" && view.SuspendedText != ""
	})
	var route struct {
		Health struct {
			State, Breaker string
			AccountRefused bool
			Accepted       int
		}
	}
	api.must(t, http.MethodGet, "/api/routes/ill", nil, &route, "")
	if h := route.Health; h.State != "down" && h.State != "trial" || h.Breaker == "closed" || h.Accepted == 0 || h.AccountRefused {
		t.Errorf("health of the route: %+v, want that it is down, its breaker is not closed, and what was accepted before", h)
	}
	ill.set(0)
	until("the carrier works again", a, func() bool { return view.State == "completed" })

	until("the carrier refuses the account", b, func() bool {
		return view.State == "suspended" && view.SuspendedReason == "provider_auth" && view.SuspendedText != ""
	})
	api.must(t, http.MethodGet, "/api/routes/strict", nil, &route, "")
	if h := route.Health; !h.AccountRefused || h.State == "up" {
		t.Errorf("health of the route: %+v, want that the account is refused", h)
	}
	api.must(t, http.MethodPut, "/api/routes/strict", o{"credentials": credentials(strictServer, "renewed")}, nil, "")
	until("the operator has renewed the password", b, func() bool { return view.State == "completed" })

	// The carrier may have accepted the messages that it answered with 503: they are ambiguous, and not sent again.
	for name, at := range map[string]struct {
		*provider
		campaign string
	}{"ill": {ill, a}, "strict": {strict, b}} {
		var stats statsAnswer
		api.must(t, http.MethodGet, "/api/campaigns/"+at.campaign+"/stats", nil, &stats, "")
		if n, messages := at.counts(); n+stats.Ambiguous != people || messages != n {
			t.Errorf("%s: %d messages to %d people, want one to each of %d but the ambiguous: %+v", name, messages, n, people, stats)
		}
	}
}
