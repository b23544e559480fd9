package main

import (
	"bytes"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A campaign of 1,050 recipients with links on ten domains of 100 messages each, through the whole product (R39, R40,
// R77, R137). It is suspended after 1,000 messages and continues by itself after a domain is added. No domain gets more
// messages than its limit, although all stages are killed with kill -9 in the middle. Every recipient has one domain,
// and the edge answers on it.
func TestEndToEndDomains(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds; left out by -short")
	}
	const people, limit, domains = 1050, 100, 10
	public := freeAddr(t)
	w := newEmbeddedEnv(t, 500, "--edge", public, "--domain-checks", "0", "--receipt-window", "1h", "--log-level", "warn")
	api := w.api()
	for n := range domains {
		api.must(t, http.MethodPost, "/api/domains", map[string]any{"host": fmt.Sprintf("d%02d.example", n), "totalLimit": limit, "weight": 1 + n%3}, nil, "")
	}
	var csv bytes.Buffer
	csv.WriteString("phone\n")
	for n := range people {
		fmt.Fprintf(&csv, "+39340%07d\n", n)
	}
	var list, made struct{ ID string }
	api.must(t, http.MethodPost, "/api/contacts/list", map[string]any{"name": "people"}, &list, "")
	api.must(t, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", bytes.NewReader(csv.Bytes()), nil, "text/csv")
	api.must(t, http.MethodPost, "/api/campaigns", map[string]any{
		"name": "domains", "channel": "sms", "message": "Buy {{link:https://shop.example/}}", "contactList": list.ID, "sendImmediately": true,
	}, &made, "")
	path := "/api/campaigns/" + made.ID
	api.must(t, http.MethodPut, path+"/confirm", nil, nil, "")
	var c struct {
		State           string
		SuspendedReason *string
	}
	var use struct {
		Data []struct {
			Host string
			Used int
		}
		Spent []string
	}
	used := func() (sum int) {
		t.Helper()
		use.Data = nil
		api.must(t, http.MethodGet, path+"/domains", nil, &use, "")
		for _, d := range use.Data {
			sum += d.Used
		}
		return sum
	}
	until := func(what string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(90 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: got %+v %+v", what, c, use)
			}
		}
	}
	state := func(want string) func() bool {
		return func() bool {
			c.SuspendedReason = nil
			api.must(t, http.MethodGet, path, nil, &c, "")
			return c.State == want
		}
	}
	until("a part is dealt", func() bool { return used() > 200 })
	w.kill(t, 0)
	until("suspended", state("suspended"))
	if c.SuspendedReason == nil || *c.SuspendedReason != "no_domains" {
		t.Fatalf("got reason %v, want no_domains", c.SuspendedReason)
	}
	if n := used(); n != domains*limit || fmt.Sprint(use.Spent) != "[short]" {
		t.Fatalf("got %d recipients with a domain, spent %v; want %d", n, use.Spent, domains*limit)
	}
	api.must(t, http.MethodPost, path+"/domains", map[string]any{"host": "new.example", "totalLimit": limit}, nil, "")
	until("completed", state("completed"))
	form := regexp.MustCompile(`^Buy https://([a-z0-9]+\.example)/(\w{16})$`)
	tokens := map[string]string{} // one of each domain
	until("messages on each domain", func() bool {
		subs, _ := (&truthFile{path: w.truth()}).all(t)
		for _, s := range subs {
			if m := form.FindStringSubmatch(s.Body); m != nil {
				tokens[m[1]] = m[2]
			}
		}
		return len(tokens) == domains+1
	})
	for host, token := range tokens {
		on := func(host string) func(*http.Request) {
			return func(r *http.Request) { browser(r); r.Host = host }
		}
		resp := open(t, http.MethodGet, "http://"+public+"/"+token, on(host))
		if resp.StatusCode != http.StatusFound || !strings.HasPrefix(resp.Header.Get("Location"), "https://shop.example/") {
			t.Fatalf("%s: got %d to %q", host, resp.StatusCode, resp.Header.Get("Location"))
		}
		if resp := open(t, http.MethodGet, "http://"+public+"/"+token, on("evil.example")); resp.StatusCode != http.StatusMisdirectedRequest {
			t.Fatalf("a host that is no domain: got %d", resp.StatusCode)
		}
	}

	w.stop(t) // the carrier's record is complete after the stop

	subs, _ := (&truthFile{path: w.truth()}).all(t)
	of, count := map[string]string{}, map[string]int{}
	for _, s := range subs {
		m := form.FindStringSubmatch(s.Body)
		if m == nil {
			t.Fatalf("the carrier was handed %q", s.Body)
		}
		switch was := of[s.To]; was {
		case "":
			of[s.To] = m[1]
			count[m[1]]++
		case m[1]:
		default:
			t.Errorf("%s has links on %s and on %s", s.To, was, m[1])
		}
	}
	if len(of) != people {
		t.Errorf("got %d recipients with a link, want %d", len(of), people)
	}
	for n := range domains {
		if host := fmt.Sprintf("d%02d.example", n); count[host] != limit {
			t.Errorf("%s: got %d recipients, want exactly %d", host, count[host], limit)
		}
	}
	if count["new.example"] != people-domains*limit {
		t.Errorf("the new domain: got %d recipients, want %d", count["new.example"], people-domains*limit)
	}
}
