package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

// optOutWithin is how long after its answer an opt-out may still be unknown to senders (P4).
const optOutWithin = 2 * time.Second

// Opting out by the link in a message, through the whole product (X10, P4). A scanner that opens the page changes
// nothing. A person who submits the page's form gets no message of a second, running campaign later than two seconds
// after the answer, by the carrier's own record and despite a kill -9. Each opt-out has one proof, and the figure of
// the first campaign equals the number of people who opted out.
func TestEndToEndOptOut(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; left out by -short")
	}
	const people, leaving, rate = 300, 60, 25
	public := freeAddr(t)
	w := newEmbeddedEnv(t, 500, "--edge", public, "--proxies", "127.0.0.0/8", "--receipt-window", "1h", "--log-level", "warn")
	api := w.api()
	var csv bytes.Buffer
	csv.WriteString("phone\n")
	for n := range people {
		fmt.Fprintf(&csv, "+39340%07d\n", n)
	}
	var list struct{ ID string }
	api.must(t, http.MethodPost, "/api/contacts/list", map[string]any{"name": "people"}, &list, "")
	api.must(t, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", bytes.NewReader(csv.Bytes()), nil, "text/csv")
	var stats struct {
		statsAnswer
		OptedOut int
	}
	send := func(name, text string, rate int) string {
		t.Helper()
		var made struct{ ID string }
		api.must(t, http.MethodPost, "/api/campaigns", map[string]any{
			"name": name, "channel": "sms", "message": text, "contactList": list.ID, "sendImmediately": true, "rate": rate, "maxRetries": 0,
		}, &made, "")
		api.must(t, http.MethodPut, "/api/campaigns/"+made.ID+"/confirm", nil, nil, "")
		return made.ID
	}
	until := func(id string, done func() bool, what string) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
			api.must(t, http.MethodGet, "/api/campaigns/"+id+"/stats", nil, &stats, "")
			if done() {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: got %+v", what, stats)
			}
		}
	}
	first := send("first", "Sale. Stop: {{opt_out}}", 0)
	until(first, func() bool { return stats.State == "completed" }, "the first campaign is out")
	w.stop(t) // the carrier's record is complete after the stop
	subs, _ := (&truthFile{path: w.truth()}).all(t)
	w.proc.start()
	api.waitReady(t)
	links := map[string]string{} // by number
	form := regexp.MustCompile(`^Sale. Stop: (http://\S+/\w{16})$`)
	for _, s := range subs {
		m := form.FindStringSubmatch(s.Body)
		if m == nil {
			t.Fatalf("the carrier was handed %q", s.Body)
		}
		links[s.To] = m[1]
	}
	if len(links) != people {
		t.Fatalf("got %d opt-out links, want one for each of %d", len(links), people)
	}

	second := send("second", "Again", rate)
	until(second, func() bool { return stats.Sent >= people/10 }, "the second campaign runs")
	answered := map[string]time.Time{}
	n := 0
	for to, link := range links {
		if n++; n == leaving/2 {
			w.kill(t, 0)
		}
		if resp := open(t, http.MethodGet, link, aPhone(n)); resp.StatusCode != http.StatusOK || resp.Header.Get("Location") != "" {
			t.Fatalf("the page of %s: got %d", to, resp.StatusCode)
		}
		if len(answered) == leaving {
			continue // this person looks at the page and leaves
		}
		if resp := open(t, http.MethodPost, link, aPhone(n)); resp.StatusCode != http.StatusOK {
			t.Fatalf("the form of %s: got %d", to, resp.StatusCode)
		}
		answered[to] = time.Now()
	}
	until(second, func() bool { return stats.State == "completed" }, "the second campaign is out")
	// A recipient whose hand-over is in doubt after the kill may have opted out since: the sender does not repeat the
	// hand-over.
	skipped, doubtful := stats.Skipped, stats.Ambiguous
	until(first, func() bool { return stats.OptedOut == leaving }, fmt.Sprintf("%d have opted out of the first campaign", leaving))
	var page struct {
		Data []struct {
			Phone    string
			OptedOut bool
		}
	}
	api.must(t, http.MethodGet, "/api/campaigns/"+first+"/members?limit=1000", nil, &page, "")
	for _, m := range page.Data {
		if _, did := answered[m.Phone]; did != m.OptedOut {
			t.Errorf("%s: got opted out %v, want %v", m.Phone, m.OptedOut, did)
		}
	}
	for to := range answered {
		time.Sleep(25 * time.Millisecond) // a key may make 50 requests a second
		var history struct{ Data []struct{ Source, By string } }
		api.must(t, http.MethodGet, "/api/suppressions/history?phoneNumber="+url.QueryEscape(to), nil, &history, "")
		if len(history.Data) != 1 || history.Data[0].Source != "link" || !strings.HasPrefix(history.Data[0].By, "msg_") {
			t.Errorf("%s: got the proof %+v, want one entry", to, history.Data)
		}
	}
	w.stop(t)
	spared := 0
	subs, _ = (&truthFile{path: w.truth()}).all(t)
	got := map[string]bool{}
	for _, s := range subs {
		if s.Body != "Again" {
			continue
		}
		got[s.To] = true
		if at, ok := answered[s.To]; ok && s.Time.After(at.Add(optOutWithin)) {
			t.Errorf("%s was handed over %s after its opt-out was answered", s.To, s.Time.Sub(at))
		}
	}
	for to := range answered {
		if !got[to] {
			spared++
		}
	}
	if spared < leaving/4 || spared < skipped || spared > skipped+doubtful {
		t.Errorf("%d of %d were spared the second campaign, %d skipped and %d in doubt; want all of those who were spared among them, and not fewer than %d",
			spared, leaving, skipped, doubtful, leaving/4)
	}
}
