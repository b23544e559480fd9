package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"
)

// The carrier of a campaign's route goes away in the middle, then the process is killed. The recipients that still wait
// go over the other route, each recipient gets one message of one carrier, and the doubtful ones stay where they were
// (P2, P3). The campaign is never suspended, and goes on when nobody does anything.
func TestEndToEndFailover(t *testing.T) {
	const people = 600
	var carriers [2]*provider
	var servers [2]*httptest.Server
	for i := range carriers {
		carriers[i] = &provider{token: "s3cret", taken: map[string]int{}}
		servers[i] = httptest.NewServer(carriers[i])
		defer servers[i].Close()
	}
	data, addr := filepath.Join(t.TempDir(), "data"), freeAddr(t)
	runBinary(t, "tenants", "create", "Acme", "--data", data, "--route", "first")
	api := &client{base: "http://" + addr, key: runBinary(t, "keys", "create", "--tenant", "Acme", "--data", data, "--scope", "read,campaigns,confirm,contacts,send,admin")}
	process := startProcess(t, "fanfare", fanfareBinary(t), "serve", "--data", data, "--http", addr, "--log-level", "warn")
	api.waitReady(t)

	type o = map[string]any
	for i, name := range []string{"first", "second"} {
		api.must(t, http.MethodPost, "/api/routes", o{
			"name": name, "connector": "httpsms", "rate": 40, "receiptWindow": 3600, "configuration": o{"preset": "twilio"}, "priority": i,
			"credentials": o{"values": o{"accountSid": "AC1", "authToken": "s3cret", "baseUrl": servers[i].URL}}, "care": o{"downAfter": 20, "failover": true},
		}, nil, "")
	}
	var csv bytes.Buffer
	csv.WriteString("phone,name\n")
	for n := range people {
		fmt.Fprintf(&csv, "+393406%06d,Anna\n", n)
	}
	var list, made struct{ ID string }
	api.must(t, http.MethodPost, "/api/contacts/list", o{"name": "all"}, &list, "")
	api.must(t, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", bytes.NewReader(csv.Bytes()), nil, "text/csv")
	api.must(t, http.MethodPost, "/api/campaigns", o{"name": "all", "channel": "sms", "message": "Good morning {{name}}", "contactList": list.ID, "sendImmediately": true}, &made, "")
	api.must(t, http.MethodPut, "/api/campaigns/"+made.ID+"/confirm", nil, nil, "")

	var view struct {
		State, Route string
		OtherRoutes  []string
	}
	until := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
			view.State = ""
			api.must(t, http.MethodGet, "/api/campaigns/"+made.ID, nil, &view, "")
			if view.State == "suspended" {
				t.Fatalf("%s: the campaign is suspended although a route is left", what)
			}
			if is() {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: the campaign is %+v", what, view)
			}
		}
	}
	until("the first carrier has some", func() bool { n, _ := carriers[0].counts(); return n >= 50 })
	if view.Route != "first" || len(view.OtherRoutes) != 1 || view.OtherRoutes[0] != "second" {
		t.Errorf("the campaign shows the routes %q and %q, want first and second", view.Route, view.OtherRoutes)
	}
	servers[0].CloseClientConnections()
	servers[0].Config.SetKeepAlivesEnabled(false)
	if l, ok := servers[0].Listener.(*net.TCPListener); ok {
		_ = l.Close() // nobody listens any more: a connection is refused
	}
	until("the second carrier has some", func() bool { n, _ := carriers[1].counts(); return n >= 50 })
	process.kill()
	process.start()
	api.waitReady(t)
	until("the campaign ends", func() bool { return view.State == "completed" })

	var stats statsAnswer
	until("the statistics are complete", func() bool {
		stats = statsAnswer{}
		api.must(t, http.MethodGet, "/api/campaigns/"+made.ID+"/stats", nil, &stats, "")
		return stats.Pending == 0 && stats.Sent+stats.Ambiguous == people
	})
	all := map[string]int{}
	for _, p := range carriers {
		p.mu.Lock()
		for to, n := range p.taken {
			all[to] += n
		}
		p.mu.Unlock()
	}
	for to, n := range all {
		if n != 1 {
			t.Errorf("%s got %d messages, want one", to, n)
		}
	}
	byFirst, _ := carriers[0].counts()
	bySecond, _ := carriers[1].counts()
	t.Logf("%d over the first route, %d over the second, %d are ambiguous", byFirst, bySecond, stats.Ambiguous)
	if len(all) < stats.Sent || len(all)+stats.Ambiguous < people {
		t.Errorf("%d people got a message, %d count as sent and %d as ambiguous: want that nobody is lost of %d", len(all), stats.Sent, stats.Ambiguous, people)
	}
}
