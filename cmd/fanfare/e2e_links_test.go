package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// aPhone sets the headers that a browser on a phone sends, and the n-th address of a network.
func aPhone(n int) func(*http.Request) {
	return func(r *http.Request) {
		browser(r)
		r.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&0xff, n&0xff))
	}
}

func browser(r *http.Request) {
	r.Header.Set("User-Agent", "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36")
	r.Header.Set("Accept-Language", "it-IT,it;q=0.9")
}

// open opens an address without following redirects.
func open(t *testing.T, method, address string, dress func(*http.Request)) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	dress(r)
	c := http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp
}

// A campaign whose text has a link, through the whole product (R39, R138, X6): each recipient has its own address,
// which counts in segments and price before the confirm. People, previews and scanners open the addresses at the public
// edge, with kill -9 in the middle. The click-through rate equals the clicks of the handsets, and the clickers can be
// selected.
func TestEndToEndLinks(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; left out by -short")
	}
	const people, target = 300, "https://shop.example/sale?id=7"
	public := freeAddr(t)
	w := newEmbeddedEnv(t, 500, "--edge", public, "--link-url", "http://"+public, "--proxies", "127.0.0.0/8", "--receipt-window", "1h", "--log-level", "warn")
	api := w.api()
	var csv bytes.Buffer
	csv.WriteString("phone\n")
	for n := range people {
		fmt.Fprintf(&csv, "+39340%07d\n", n)
	}
	var list, made struct{ ID string }
	api.must(t, http.MethodPost, "/api/contacts/list", map[string]any{"name": "people"}, &list, "")
	api.must(t, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", bytes.NewReader(csv.Bytes()), nil, "text/csv")
	text := "Buy {{link:" + target + "}} " + strings.Repeat("a", 160-len("Buy  ")-len("http://"+public+"/")-16)
	var c struct {
		ID       string
		Segments int
		State    string
		Links    []struct{ ID, URL, Target string }
	}
	api.must(t, http.MethodPost, "/api/campaigns", map[string]any{
		"name": "links", "channel": "sms", "message": text, "contactList": list.ID, "sendImmediately": true, "utm": map[string]string{"source": "sms"},
	}, &made, "")
	api.must(t, http.MethodGet, "/api/campaigns/"+made.ID, nil, &c, "")
	if c.Segments != 1 {
		t.Fatalf("got %d segments, want 1: the text has 160 characters with its link", c.Segments)
	}
	api.must(t, http.MethodPut, "/api/campaigns/"+made.ID+"/confirm", nil, nil, "")
	var stats struct {
		statsAnswer
		Clicked   int
		ClickRate float64
	}
	read := func(done func() bool, what string) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
			api.must(t, http.MethodGet, "/api/campaigns/"+made.ID+"/stats", nil, &stats, "")
			if done() {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: got %+v", what, stats)
			}
		}
	}
	read(func() bool { return stats.State == "completed" && stats.Awaiting < people/10 }, "completed, and most receipts are there")

	w.stop(t) // the carrier's record is complete after the stop
	subs, _ := (&truthFile{path: w.truth()}).all(t)
	w.proc.start()
	api.waitReady(t)
	links := map[string]string{} // by number
	form := regexp.MustCompile(`^Buy (http://` + regexp.QuoteMeta(public) + `/\w{16}) a+$`)
	for _, s := range subs {
		m := form.FindStringSubmatch(s.Body)
		if m == nil {
			t.Fatalf("the carrier was handed %q", s.Body)
		}
		if links[s.To] != "" && links[s.To] != m[1] {
			t.Errorf("%s: a retry had another link", s.To)
		}
		links[s.To] = m[1]
	}
	if len(links) != people {
		t.Fatalf("got %d links, want one for each of %d: %+v", len(links), people, stats)
	}
	var page struct {
		Data []struct {
			Phone, State string
			Clicked      bool
		}
	}
	members := func() {
		api.must(t, http.MethodGet, "/api/campaigns/"+made.ID+"/members?limit=1000", nil, &page, "")
	}

	// Every third person taps, some twice; previews and scanners open others' links.
	clicked, n := map[string]bool{}, 0
	for to, link := range links {
		if n++; n == people/2 {
			w.kill(t, 0)
		}
		switch n % 3 {
		case 0:
			for range 1 + n%2 {
				if resp := open(t, http.MethodGet, link, aPhone(n)); resp.StatusCode != http.StatusFound || resp.Header.Get("Location") != target+"&utm_source=sms" {
					t.Fatalf("got %d to %q", resp.StatusCode, resp.Header.Get("Location"))
				}
			}
			clicked[to] = true
		case 1:
			if resp := open(t, http.MethodHead, link, aPhone(n)); resp.StatusCode != http.StatusFound {
				t.Fatalf("HEAD: got %d", resp.StatusCode)
			}
			open(t, http.MethodGet, link, func(r *http.Request) { r.Header.Set("User-Agent", "WhatsApp/2.23.20.0 A") })
		}
	}
	read(func() bool { // receipts still arrive, so the two answers agree only at the end
		members()
		both := 0
		for _, m := range page.Data {
			if clicked[m.Phone] && m.State == "delivered" {
				both++
			}
		}
		return stats.Clicked == len(clicked) && stats.ClickRate == math.Round(float64(both)/float64(stats.Delivered)*1e4)/1e4
	}, fmt.Sprintf("%d clickers, and the rate of those of them who have the message", len(clicked)))
	members()
	for _, m := range page.Data {
		if m.Clicked != clicked[m.Phone] {
			t.Errorf("%s: got clicked %v, want %v", m.Phone, m.Clicked, clicked[m.Phone])
		}
	}
	for path, status := range map[string]int{"/": http.StatusNotFound, "/0123456789abcdef": http.StatusNotFound, "/robots.txt": http.StatusOK, "/api/campaigns": http.StatusNotFound} {
		if resp := open(t, http.MethodGet, "http://"+public+path, browser); resp.StatusCode != status {
			t.Errorf("%s: got %d, want %d", path, resp.StatusCode, status)
		}
	}
	w.stop(t)
}
