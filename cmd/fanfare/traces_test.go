package main

import (
	"compress/gzip"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"fanfare/api/store"
)

// collector is an OTLP collector over HTTP.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracepb.Span
	bad   []string
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *collector) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var data tracepb.TracesData
	z, err := gzip.NewReader(r.Body)
	if err == nil {
		var b []byte
		if b, err = io.ReadAll(z); err == nil {
			err = proto.Unmarshal(b, &data)
		}
	}
	if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		c.bad = append(c.bad, fmt.Sprint(r.URL.Path, " ", r.Header.Get("Content-Type"), " ", err))
	}
	for _, rs := range data.GetResourceSpans() {
		for _, ss := range rs.GetScopeSpans() {
			c.spans = append(c.spans, ss.GetSpans()...)
		}
	}
}

// named returns how many spans there are of a name.
func (c *collector) named(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := map[string]bool{}
	for _, s := range c.spans {
		if s.GetName() == name {
			ids[string(s.GetSpanId())] = true
		}
	}
	return len(ids)
}

// wait waits until there are n spans of a name.
func (c *collector) wait(t *testing.T, name string, n int) {
	t.Helper()
	for range 1200 {
		if c.named(name) >= n {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("got %d spans %q within a minute, want %d", c.named(name), name, n)
}

// twilio is a provider of SMS that accepts every message and keeps the address for its receipt.
type twilio struct {
	mu       sync.Mutex
	receipts []url.Values
}

func (p *twilio) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sid := fmt.Sprintf("SM%d", len(p.receipts))
	p.receipts = append(p.receipts, url.Values{"to": {r.FormValue("To")}, "sid": {sid}, "at": {r.FormValue("StatusCallback")}})
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, `{"sid":%q,"status":"queued"}`, sid)
}

// deliver calls back for every message.
func (p *twilio) deliver(t *testing.T, token string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.receipts {
		form := url.Values{"MessageSid": {m.Get("sid")}, "MessageStatus": {"delivered"}, "To": {m.Get("to")}}
		mac := hmac.New(sha1.New, []byte(token))
		_, _ = io.WriteString(mac, m.Get("at")+"MessageSid"+m.Get("sid")+"MessageStatusdelivered"+"To"+m.Get("to"))
		call := func() int {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, m.Get("at"), strings.NewReader(form.Encode()))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("X-Twilio-Signature", base64.StdEncoding.EncodeToString(mac.Sum(nil)))
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			return resp.StatusCode
		}
		status := call()
		for range 600 { // providers repeat a callback that was not taken
			if status != http.StatusServiceUnavailable {
				break
			}
			time.Sleep(50 * time.Millisecond)
			status = call()
		}
		if status >= 300 {
			t.Fatalf("the callback of %s: got %d", m.Get("sid"), status)
		}
	}
}

// One trace has the way of a campaign's messages from the confirm to their receipts, each span below the one that
// caused it, although the process is stopped and started between hand-over and receipt. A single send has a trace of
// its own, with a link to the trace of the caller. No span has a number or a text.
func TestTraces(t *testing.T) {
	t.Parallel()
	spans, carrier := newCollector(t), &twilio{}
	provider := httptest.NewServer(carrier)
	defer provider.Close()
	addr := freeAddr(t)
	cfg := testConfig(t, func(c *Config) { c.HTTP, c.OTLPEndpoint, c.TraceOneIn = addr, spans.URL, 1 })
	w := newWiring(cfg, slog.New(slog.DiscardHandler))
	ctx, interrupt := context.WithCancel(t.Context())
	served := serveReady(ctx, t, w)
	tenant, err := w.store.CreateTenant(t.Context(), store.TenantSpec{Name: "Acme", Region: "IT"})
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := w.store.CreateKey(t.Context(), tenant.ID, "", []store.Scope{"read", "campaigns", "confirm", "contacts", "send", "admin"}, false)
	if err != nil {
		t.Fatal(err)
	}
	api := &client{base: "http://" + addr, key: key}
	type o = map[string]any
	api.must(t, http.MethodPost, "/api/routes", o{
		"name": "web", "connector": "httpsms", "rate": 100, "configuration": o{"preset": "twilio", "callbackUrl": api.base + "/api/callback/web"},
		"credentials": o{"values": o{"accountSid": "AC1", "authToken": "s3cret", "baseUrl": provider.URL}},
	}, nil, "")
	var list, made struct{ ID string }
	api.must(t, http.MethodPost, "/api/contacts/list", o{"name": "people"}, &list, "")
	api.must(t, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", strings.NewReader("phone\n+393406000001\n+393406000002\n+393406000003\n"), nil, "text/csv")
	api.must(t, http.MethodPost, "/api/campaigns", o{
		"name": "traced", "channel": "sms", "message": "Secret words", "contactList": list.ID, "sendImmediately": true, "route": "web",
	}, &made, "")
	api.must(t, http.MethodPut, "/api/campaigns/"+made.ID+"/confirm", nil, nil, "")
	spans.wait(t, "submit", 3)

	const caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, api.base+"/api/message-server/sms/send",
		strings.NewReader(`{"phoneNumber":"+393401234567","message":"Secret words","sender":"Acme"}`))
	req.Header.Set("X-Api-Key", key)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Traceparent", caller)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the single send: got %s", resp.Status)
	}
	spans.wait(t, "receipt", 1) // of the single send, by the simulated carrier

	interrupt()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	w.close()
	again := newWiring(cfg, slog.New(slog.DiscardHandler))
	defer again.close()
	ctx, interrupt = context.WithCancel(t.Context())
	defer interrupt()
	served = serveReady(ctx, t, again)
	carrier.deliver(t, "s3cret")
	spans.wait(t, "receipt", 4)
	interrupt()
	if err := <-served; err != nil {
		t.Fatal(err)
	}

	spans.mu.Lock()
	defer spans.mu.Unlock()
	for _, b := range spans.bad {
		t.Errorf("a request that is not OTLP: %s", b)
	}
	byID := map[string]*tracepb.Span{}
	for _, s := range spans.spans {
		byID[string(s.GetSpanId())] = s
		for _, word := range []string{"Secret", "39340600000", "393401234567"} {
			if strings.Contains(s.String(), word) {
				t.Errorf("a span has a number or a text: %s", s)
			}
		}
		if s.GetEndTimeUnixNano() < s.GetStartTimeUnixNano() {
			t.Errorf("span %s ends before it starts", s.GetName())
		}
	}
	ways := map[string]int{}
	for _, s := range byID {
		if s.GetName() != "receipt" {
			continue
		}
		way, root := []string{"receipt"}, s
		for at := s; len(at.GetParentSpanId()) > 0; root = at {
			if at = byID[string(at.GetParentSpanId())]; at == nil {
				way = append(way, "nothing")
				break
			}
			if string(at.GetTraceId()) != string(s.GetTraceId()) {
				t.Errorf("%s is in another trace than its receipt", at.GetName())
			}
			way = append(way, at.GetName())
		}
		slices.Reverse(way)
		ways[strings.Join(way, " > ")]++
		if links := root.GetLinks(); root.GetName() == "send" && (len(links) != 1 || hex.EncodeToString(links[0].GetTraceId())+hex.EncodeToString(links[0].GetSpanId()) != "0af7651916cd43dd8448eb211c80319cb7ad6b7169203331") {
			t.Errorf("the single send has the links %v, want one to its caller", links)
		}
	}
	if ways["confirm > deal > expand > submit > receipt"] != 3 || ways["send > submit > receipt"] != 1 || len(ways) != 2 {
		t.Errorf("got %v, want 3 messages of a campaign and a single send", ways)
	}
}
