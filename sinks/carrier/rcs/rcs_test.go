package rcs_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/carriertest"
	"fanfare/sinks/carrier/rcs"
	"fanfare/sinks/carrier/rcs/rbm"
	"fanfare/sinks/carrier/settings"
	"fanfare/sinks/carrier/sim"
)

func testKeys(t testing.TB) *schemas.Keys {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("a key of the carriers' conformance suite"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

const (
	clientToken = "SJENCPGJESMGUFPY"
	agentID     = "acme_agent"
)

// serviceAccount is one for all tests: making a key takes time.
var serviceAccount = sync.OnceValues(rbm.NewAccount)

// peer is RCS for Business with the simulator behind it.
type peer struct {
	url    string
	truth  string
	server *rbm.Server
}

func startPeer(t testing.TB, profile sim.Profile, cfg rbm.Config) *peer {
	t.Helper()
	p := &peer{truth: filepath.Join(t.TempDir(), "carrier-sim.ndjson")}
	profile.Doubt = carrier.DoubtNaturalID
	c, err := sim.Open(sim.Config{Keys: testKeys(t), Profile: profile, Seed: 1, Truth: p.truth})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Keys, cfg.ClientToken = testKeys(t), clientToken
	if cfg.Account, err = serviceAccount(); err != nil {
		t.Fatal(err)
	}
	cfg.Open = func(id string) (rbm.Line, error) { return c.Connector(sim.Options{Account: id}), nil }
	if p.server, err = rbm.New(cfg); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(p.server)
	p.url = srv.URL
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- c.Run(ctx) }()
	go func() { ended <- p.server.Run(ctx) }()
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("peer: %v", err)
			}
		}
		if err := c.Close(); err != nil {
			t.Errorf("peer: %v", err)
		}
	})
	return p
}

// config returns the configuration of an account whose API and token server are at an address.
func config(t testing.TB, address string) rcs.Config {
	t.Helper()
	account, err := serviceAccount()
	if err != nil {
		t.Fatal(err)
	}
	file, err := account.JSON()
	if err != nil {
		t.Fatal(err)
	}
	c := rcs.Config{AgentID: agentID, ClientToken: clientToken, BaseURL: address, TokenURL: address + "/token"}
	if err := json.Unmarshal(file, &c.ServiceAccount); err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t testing.TB, cfg rcs.Config) *rcs.Connector {
	t.Helper()
	c, err := rcs.New(cfg, "rcs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if err := c.Drain(ctx); err != nil {
			t.Errorf("drain: %v", err)
		}
	})
	return c
}

// TestContract holds the connector to the contract of package carrier, with single messages, and with a capabilities
// query before each batch.
func TestContract(t *testing.T) {
	for name, capabilities := range map[string]bool{"one by one": false, "asks who has RCS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			carriertest.Run(t, func(t *testing.T, p carriertest.Peer) carriertest.Subject {
				profile := sim.Profile{Answer: sim.Lognormal{P50: p.Latency}, Lost: 1}
				if p.Silent {
					profile.Silent = 1
				}
				peer := startPeer(t, profile, rbm.Config{})
				cfg := config(t, peer.url)
				cfg.Window, cfg.Capabilities = p.Window, capabilities
				return carriertest.Subject{
					Connector: open(t, cfg),
					Again:     func() (carrier.Connector, error) { return open(t, cfg), nil },
					Seen: func() (map[carrier.Key]int, error) {
						truth, err := sim.ReadTruth(peer.truth)
						if err != nil {
							return nil, err
						}
						seen := map[carrier.Key]int{}
						for _, e := range truth.Entries {
							if e.Outcome != sim.Duplicate {
								seen[e.Submission]++
							}
						}
						return seen, nil
					},
				}
			})
		})
	}
}

func message(t testing.TB, seq int) carrier.Outbound {
	t.Helper()
	return carrier.Outbound{
		Key: testKeys(t).Submission(10001, uint32(seq), 1), Channel: schemas.ChannelRCS, To: fmt.Sprintf("+39347%07d", seq),
		Body: carrier.Body{Text: carrier.Text{Body: "hello", Segments: 1}},
	}
}

// hand hands a batch over and waits for its answers.
func hand(t testing.TB, c carrier.Connector, batch ...carrier.Outbound) []carrier.Result {
	t.Helper()
	out := make([]carrier.Result, len(batch))
	done := make(chan int, len(batch))
	if err := c.Send(t.Context(), batch, func(i int, r carrier.Result) {
		out[i] = r
		done <- i
	}); err != nil {
		t.Fatal(err)
	}
	for range batch {
		<-done
	}
	return out
}

// uuid returns a submission id in the form of the platform.
func uuid(k carrier.Key) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", k[:4], k[4:6], k[6:8], k[8:10], k[10:])
}

// stub is a platform that gives the answers a test sets, and remembers the last request.
type stub struct {
	*httptest.Server

	mu     sync.Mutex
	status int
	body   string
	method string
	asked  string // path and query
	got    string
	bearer string
	tokens int
}

func startStub(t *testing.T) *stub {
	s := &stub{status: 200, body: "{}"}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.URL.Path == "/token" {
			s.tokens++
			_, _ = fmt.Fprintf(w, `{"access_token":"t%d","token_type":"Bearer","expires_in":3600}`, s.tokens)
			return
		}
		raw, _ := io.ReadAll(r.Body)
		s.method, s.asked, s.got, s.bearer = r.Method, r.URL.RequestURI(), string(raw), r.Header.Get("Authorization")
		w.WriteHeader(s.status)
		_, _ = io.WriteString(w, s.body)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *stub) says(status int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.body = status, body
}

func (s *stub) last() (method, asked, got, bearer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.method, s.asked, s.got, s.bearer
}

// TestRequest: the connector sends our id as the message's id, the agent, the unchanged content, and the end of its
// validity.
func TestRequest(t *testing.T) {
	s := startStub(t)
	cfg := config(t, s.URL)
	cfg.TrafficType = "promotion"
	c := open(t, cfg)
	o := message(t, 7)
	for name, tc := range map[string]struct {
		body carrier.Body
		from string
		want string
	}{
		"text":  {body: carrier.Body{Text: carrier.Text{Body: `Ciao "€"`}}, want: `{"text":"Ciao \"€\""}`},
		"card":  {body: carrier.Body{Rich: &carrier.Rich{JSON: []byte(`{"richCard":{"standaloneCard":{}}}`)}}, want: `{"richCard":{"standaloneCard":{}}}`},
		"agent": {body: carrier.Body{Text: carrier.Text{Body: "x"}}, from: "another_agent", want: `{"text":"x"}`},
	} {
		o.Body, o.From = tc.body, tc.from
		r := hand(t, c, o)[0]
		if r.Outcome != carrier.Accepted || r.Ref != uuid(o.Key) {
			t.Errorf("%s: got %+v, want accepted as %s", name, r, uuid(o.Key))
		}
		agent := agentID
		if tc.from != "" {
			agent = tc.from
		}
		method, asked, got, bearer := s.last()
		if want := "/v1/phones/+393470000007/agentMessages?agentId=" + agent + "&messageId=" + uuid(o.Key); method != "POST" || asked != want || bearer != "Bearer t1" {
			t.Errorf("%s: got %s %s by %s, want %s", name, method, asked, bearer, want)
		}
		if want := `{"contentMessage":` + tc.want + `,"messageTrafficType":"PROMOTION"}`; got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	for left, want := range map[time.Duration]time.Duration{time.Second: 10 * time.Second, time.Hour: time.Hour, 1000 * time.Hour: 15 * 24 * time.Hour} {
		before := time.Now()
		o.NotAfter = before.Add(left)
		hand(t, c, o)
		_, _, got, _ := s.last()
		var m struct {
			Expires time.Time `json:"expireTime"`
		}
		if err := json.Unmarshal([]byte(got), &m); err != nil {
			t.Fatal(err)
		}
		if off := m.Expires.Sub(before.Add(want)); off < -time.Second || off > 2*time.Second {
			t.Errorf("%v before the end of its validity: expires after %v, want %v", left, m.Expires.Sub(before), want)
		}
	}
	o.Body = carrier.Body{Rich: &carrier.Rich{JSON: []byte(`{`)}}
	if r := hand(t, c, o)[0]; r.Outcome != carrier.Rejected || r.Sub != schemas.CodeRenderError {
		t.Errorf("content that is no JSON: got %+v, want rejected as RENDER_ERROR", r)
	}
}

// TestAnswers: the result for each answer of the platform.
func TestAnswers(t *testing.T) {
	s := startStub(t)
	cfg := config(t, s.URL)
	cfg.Codes = []string{"answer,OUT_OF_RANGE,throttled,THROTTLED", "wait,OUT_OF_RANGE,3s,"}
	c := open(t, cfg)
	fault := func(word string) string { return fmt.Sprintf(`{"error":{"code":1,"status":%q}}`, word) }
	for n, tc := range []struct {
		status int
		body   string
		want   carrier.Result
	}{
		{200, `{"name":"phones/+1/agentMessages/x"}`, carrier.Result{Outcome: carrier.Accepted}},
		{409, fault("ALREADY_EXISTS"), carrier.Result{Outcome: carrier.Accepted}},
		{404, fault("NOT_FOUND"), carrier.Result{Outcome: carrier.Unsupported, Code: "NOT_FOUND", Sub: schemas.CodeRCSNotCapable}},
		{404, "", carrier.Result{Outcome: carrier.Unsupported, Code: "404", Sub: schemas.CodeRCSNotCapable}},
		{400, fault("INVALID_ARGUMENT"), carrier.Result{Outcome: carrier.Unsupported, Code: "INVALID_ARGUMENT", Sub: schemas.CodeNotSentOther}},
		{403, fault("PERMISSION_DENIED"), carrier.Result{Outcome: carrier.Retryable, Code: "PERMISSION_DENIED", Sub: schemas.CodeProviderError, RetryAfter: time.Minute}},
		{429, fault("RESOURCE_EXHAUSTED"), carrier.Result{Outcome: carrier.Throttled, Code: "RESOURCE_EXHAUSTED", Sub: schemas.CodeThrottled, RetryAfter: time.Second}},
		{400, fault("OUT_OF_RANGE"), carrier.Result{Outcome: carrier.Throttled, Code: "OUT_OF_RANGE", Sub: schemas.CodeThrottled, RetryAfter: 3 * time.Second}},
		{410, "", carrier.Result{Outcome: carrier.Rejected, Code: "410", Sub: schemas.CodeNotSentOther}},
		{302, "", carrier.Result{Outcome: carrier.Retryable, Code: "302", Sub: schemas.CodeProviderError}},
		{500, fault("INTERNAL"), carrier.Result{Outcome: carrier.Unknown, Code: "INTERNAL"}},
		{503, fault("UNAVAILABLE"), carrier.Result{Outcome: carrier.Unknown, Code: "UNAVAILABLE"}},
		{502, "<html>", carrier.Result{Outcome: carrier.Unknown, Code: "502"}},
	} {
		s.says(tc.status, tc.body)
		got := hand(t, c, message(t, n))[0]
		if got.Outcome == carrier.Accepted {
			tc.want.Ref = uuid(message(t, n).Key)
		}
		if got.Outcome != tc.want.Outcome || got.Ref != tc.want.Ref || got.Code != tc.want.Code || got.Sub != tc.want.Sub || got.RetryAfter != tc.want.RetryAfter {
			t.Errorf("%d %s: got %+v, want %+v", tc.status, tc.body, got, tc.want)
		}
	}
}

// TestTokens: if the platform refuses a token, the connector fetches a new one. Without a token it hands nothing over.
// With a wrong key it gets no token.
func TestTokens(t *testing.T) {
	p := startPeer(t, sim.Profile{}, rbm.Config{})
	c := open(t, config(t, p.url))
	if err := c.Reach(t.Context()); err != nil {
		t.Errorf("reach: %v", err)
	}
	if r := hand(t, c, message(t, 1))[0]; r.Outcome != carrier.Accepted {
		t.Fatalf("got %+v, want accepted", r)
	}
	p.server.Forget()
	if r := hand(t, c, message(t, 2))[0]; r.Outcome != carrier.Retryable || r.Code != "UNAUTHENTICATED" {
		t.Errorf("a token that holds no more: got %+v, want retryable", r)
	}
	if r := hand(t, c, message(t, 2))[0]; r.Outcome != carrier.Accepted {
		t.Errorf("after that: got %+v, want accepted with a new token", r)
	}
	other, err := rbm.NewAccount()
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t, p.url)
	file, err := other.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(file, &cfg.ServiceAccount); err != nil {
		t.Fatal(err)
	}
	stranger := open(t, cfg)
	if r := hand(t, stranger, message(t, 3))[0]; r.Outcome != carrier.Retryable || r.Code != "no token" {
		t.Errorf("another's key: got %+v, want retryable without a token", r)
	}
	if err := stranger.Reach(t.Context()); err == nil || strings.Contains(err.Error(), "PRIVATE") {
		t.Errorf("reach with another's key: got %v", err)
	}
	truth, err := sim.ReadTruth(p.truth)
	if err != nil || len(truth.Entries) != 2 {
		t.Errorf("the platform has %d messages (%v), want 2", len(truth.Entries), err)
	}
}

// TestCapabilities: the connector asks once for the whole batch which recipients have RCS, and does not ask again while
// it remembers the answers. If the query fails, the recipients get the message.
func TestCapabilities(t *testing.T) {
	p := startPeer(t, sim.Profile{}, rbm.Config{Unreachable: 0.4})
	cfg := config(t, p.url)
	cfg.Capabilities = true
	c := open(t, cfg)
	batch := make([]carrier.Outbound, 50)
	for i := range batch {
		batch[i] = message(t, i)
	}
	without := 0
	for round := range 3 {
		n := 0
		for i, r := range hand(t, c, batch...) {
			switch {
			case r.Outcome == carrier.Unsupported && r.Sub == schemas.CodeRCSNotCapable && r.Code == "capabilities":
				n++
			case r.Outcome != carrier.Accepted:
				t.Errorf("round %d, index %d: got %+v", round, i, r)
			}
		}
		if round > 0 && n != without {
			t.Errorf("round %d: %d have no RCS, want %d as before", round, n, without)
		}
		without = n
	}
	if without < 10 || without > 30 || p.server.Stats().Probes != 1 {
		t.Errorf("%d of 50 have no RCS by %d questions, want about 20 by one", without, p.server.Stats().Probes)
	}
	truth, err := sim.ReadTruth(p.truth)
	if err != nil {
		t.Fatal(err)
	}
	if got := truth.Outcomes()[sim.Accepted]; got != 50-without || len(truth.Doubles()) > 0 {
		t.Errorf("the platform has %d messages and %d doubles, want %d and none", got, len(truth.Doubles()), 50-without)
	}
	reach, ttl, err := c.Probe(t.Context(), []string{batch[0].To, "+393499999999"})
	if err != nil || len(reach) != 2 || ttl != 24*time.Hour || p.server.Stats().Probes != 2 {
		t.Errorf("probe: got %v for %v, %v, after %d questions", reach, ttl, err, p.server.Stats().Probes)
	}

	s := startStub(t)
	cfg = config(t, s.URL)
	cfg.Capabilities = true
	c = open(t, cfg)
	s.says(500, "")
	if _, _, err := c.Probe(t.Context(), []string{"+393470000001"}); err == nil {
		t.Error("a question that fails has an answer")
	}
	if r := hand(t, c, message(t, 1))[0]; r.Outcome != carrier.Unknown {
		t.Errorf("got %+v, want that the message was handed over and is unknown", r)
	}
	if _, asked, _, _ := s.last(); !strings.Contains(asked, "agentMessages") {
		t.Errorf("the last request was %s, want the hand-over", asked)
	}
}

// TestRevoke: the message is revoked, or it is too late, or the outcome is unknown.
func TestRevoke(t *testing.T) {
	s := startStub(t)
	c := open(t, config(t, s.URL))
	id := uuid(message(t, 1).Key)
	for status, want := range map[int]carrier.RevokeOutcome{200: carrier.Revoked, 404: carrier.RevokeTooLate, 500: carrier.RevokeUnknown, 401: carrier.RevokeUnknown} {
		s.says(status, "{}")
		got, err := c.Revoke(t.Context(), "+393470000001", id)
		method, asked, _, _ := s.last()
		if got != want || (err == nil) != (want != carrier.RevokeUnknown) || method != "DELETE" || asked != "/v1/phones/+393470000001/agentMessages/"+id+"?agentId="+agentID {
			t.Errorf("%d: got %v, %v by %s %s, want %v", status, got, err, method, asked, want)
		}
	}
}

// callback puts an event into a callback as the platform does.
func callback(t testing.TB, event string) *carrier.Callback {
	t.Helper()
	body, err := json.Marshal(map[string]any{"message": map[string]any{"data": []byte(event)}})
	if err != nil {
		t.Fatal(err)
	}
	return &carrier.Callback{Method: "POST", URL: "https://h/api/callback/rcs", Body: body, Header: http.Header{"X-Goog-Signature": {rbm.Sign(clientToken, []byte(event))}}}
}

// TestWebhook: an event becomes a receipt with our id, or a message of a recipient.
func TestWebhook(t *testing.T) {
	c := open(t, config(t, "http://127.0.0.1:1"))
	key := message(t, 1).Key
	id := uuid(key)
	at := time.Date(2026, 11, 22, 10, 0, 0, 123e6, time.UTC)
	user := `"senderPhoneNumber":"+393470000001","agentId":"acme_agent","eventId":"1","sendTime":"2026-11-22T10:00:00.123Z"`
	for name, tc := range map[string]struct {
		event  string
		status schemas.ReceiptStatus
		sub    schemas.Code
		said   string
	}{
		"delivered":         {`{` + user + `,"eventType":"DELIVERED","messageId":"` + id + `"}`, schemas.ReceiptStatusDelivered, schemas.CodeDelivered, ""},
		"read":              {`{` + user + `,"eventType":"READ","messageId":"` + id + `"}`, schemas.ReceiptStatusRead, schemas.CodeRead, ""},
		"taken back":        {`{"phoneNumber":"+393470000001","agentId":"acme_agent","eventType":"TTL_EXPIRATION_REVOKED","messageId":"` + id + `","sendTime":"2026-11-22T10:00:00.123Z"}`, schemas.ReceiptStatusFailed, schemas.CodeExpired, ""},
		"not taken back":    {`{"phoneNumber":"+393470000001","agentId":"acme_agent","eventType":"TTL_EXPIRATION_REVOKE_FAILED","messageId":"` + id + `","sendTime":"2026-11-22T10:00:00.123Z"}`, schemas.ReceiptStatusUnknown, 0, ""},
		"typing":            {`{` + user + `,"eventType":"IS_TYPING"}`, 0, 0, ""},
		"another program's": {`{` + user + `,"eventType":"DELIVERED","messageId":"order-17"}`, 0, 0, ""},
		"text":              {`{` + user + `,"messageId":"MxA","text":"STOP"}`, 0, 0, "STOP"},
		"suggestion":        {`{` + user + `,"messageId":"MxA","suggestionResponse":{"postbackData":"yes","text":"Yes!"}}`, 0, 0, "Yes!"},
		"unsubscribe":       {`{` + user + `,"eventType":"UNSUBSCRIBE","messageId":"MxA"}`, 0, 0, "STOP"},
	} {
		cb := callback(t, tc.event)
		if err := c.Verify(cb); err != nil {
			t.Errorf("%s: its own signature: %v", name, err)
		}
		receipts, inbound, err := c.Parse(cb)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if tc.status == 0 {
			if len(receipts) != 0 || (len(inbound) == 1) != (tc.said != "") {
				t.Errorf("%s: got %v and %v", name, receipts, inbound)
			}
			if tc.said != "" && (inbound[0].Text != tc.said || inbound[0].From != "+393470000001" || inbound[0].To != "acme_agent" || !inbound[0].At.Equal(at)) {
				t.Errorf("%s: got %+v", name, inbound[0])
			}
			continue
		}
		if len(receipts) != 1 || len(inbound) != 0 {
			t.Errorf("%s: got %v and %v, want one receipt", name, receipts, inbound)
			continue
		}
		if r := receipts[0]; r.Account != "rcs" || r.Ref != id || r.Key != key || r.To != "+393470000001" || r.Status != tc.status || r.Sub != tc.sub || !r.At.Equal(at) || string(r.Raw) != tc.event {
			t.Errorf("%s: got %+v", name, r)
		}
	}
	cb := callback(t, `{"eventType":"READ"}`)
	for _, wrong := range []string{"", "AAAA", rbm.Sign("another", []byte(`{"eventType":"READ"}`)), rbm.Sign(clientToken, cb.Body)} {
		if c.Verify(&carrier.Callback{Method: "POST", Body: cb.Body, Header: http.Header{"X-Goog-Signature": {wrong}}}) == nil {
			t.Errorf("signature %q is taken", wrong)
		}
	}
	for _, body := range []string{"", "x", `{"message":{"data":""}}`, `{"message":{"data":"%%"}}`, `{"message":{"data":"bm90IEpTT04="}}`} {
		if _, _, err := c.Parse(&carrier.Callback{Method: "POST", Body: []byte(body)}); err == nil {
			t.Errorf("%q is read", body)
		}
	}
}

// TestHandshake: a caller that knows our token gets the secret back.
func TestHandshake(t *testing.T) {
	c := open(t, config(t, "http://127.0.0.1:1"))
	for body, want := range map[string]string{
		`{"clientToken":"SJENCPGJESMGUFPY","secret":"1234567890"}`: "1234567890",
		`{"clientToken":"another","secret":"1234567890"}`:          "",
		`{"secret":"1234567890"}`:                                  "",
		`{"clientToken":"SJENCPGJESMGUFPY"}`:                       "",
	} {
		if got, ok, err := c.Handshake(&carrier.Callback{Method: "POST", Body: []byte(body)}); got != want || !ok || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v, %v, want %q", body, got, ok, err, want)
		}
	}
	if _, ok, _ := c.Handshake(callback(t, `{"eventType":"READ"}`)); ok {
		t.Error("an event is taken for a handshake")
	}
}

// TestEndToEnd: every accepted message is reported as delivered by callbacks that verify, although some callbacks are
// refused at first.
func TestEndToEnd(t *testing.T) {
	var mu sync.Mutex
	calls, unverified, delivered := 0, 0, map[carrier.Key]bool{}
	var c *rcs.Connector
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		cb := &carrier.Callback{Method: r.Method, URL: "http://" + r.Host + r.URL.String(), Header: r.Header, Body: raw}
		if answer, ok, err := c.Handshake(cb); ok && err == nil {
			_, _ = io.WriteString(w, answer)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if calls++; calls%3 == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if c.Verify(cb) != nil {
			unverified++
		}
		receipts, _, err := c.Parse(cb)
		if err != nil {
			t.Error(err)
		}
		for _, r := range receipts {
			delivered[r.Key] = delivered[r.Key] || r.Status == schemas.ReceiptStatusDelivered
		}
	}))
	defer hook.Close()
	const n = 60
	p := startPeer(t, sim.Profile{Receipt: sim.Lognormal{P50: 20 * time.Millisecond, P99: 200 * time.Millisecond}, Read: 0.5}, rbm.Config{Webhook: hook.URL})
	c = open(t, config(t, p.url))
	for i := range n {
		if r := hand(t, c, message(t, i))[0]; r.Outcome != carrier.Accepted {
			t.Fatalf("got %+v, want accepted", r)
		}
	}
	for {
		mu.Lock()
		have := len(delivered)
		mu.Unlock()
		if have == n {
			break
		}
		if t.Context().Err() != nil {
			t.Fatalf("%d of %d were reported", have, n)
		}
		time.Sleep(5 * time.Millisecond)
	}
	// The platform counts a callback once it was answered.
	for deadline := time.Now().Add(time.Minute); p.server.Stats().Delivered < n && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	mu.Lock()
	defer mu.Unlock()
	if s := p.server.Stats(); unverified > 0 || s.Repeated == 0 || s.Delivered < n {
		t.Errorf("%d callbacks do not verify, %+v", unverified, s)
	}
}

// TestConfig: an error names the wrong field, a key file may be an object or a text, and secrets are not shown.
func TestConfig(t *testing.T) {
	account, err := serviceAccount()
	if err != nil {
		t.Fatal(err)
	}
	file, err := account.JSON()
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]any{"agentId": "acme_agent", "clientToken": "s3cr3t", "serviceAccount": json.RawMessage(file)}
	for field, tc := range map[string]struct {
		value any
		want  string
	}{
		"agentId":         {"acme agent", "agentId"},
		"region":          {"mars", "region"},
		"trafficType":     {"spam", "trafficType"},
		"clientToken":     {"", "clientToken is missing"},
		"serviceAccount":  {nil, "serviceAccount is missing"},
		"capabilitiesFor": {"1ms", "capabilitiesFor"},
		"baseUrl":         {"google", "baseUrl"},
		"tokenUrl":        {"google", "tokenUrl"},
		"codes":           {[]string{"stat,READ,perhaps,"}, "codes, line 1"},
		"agent":           {"x", "agent"},
	} {
		bad := map[string]any{}
		maps.Copy(bad, good)
		bad[field] = tc.value
		raw, err := json.Marshal(bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rcs.Parse(raw); err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "rcs: ") {
			t.Errorf("%s: got %v, want an error with %q", field, err, tc.want)
		}
	}
	for key, want := range map[string]string{"": "PEM", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n": "no private key"} {
		good["serviceAccount"] = map[string]string{"client_email": "a@b", "private_key": key}
		raw, _ := json.Marshal(good)
		if _, err := rcs.Parse(raw); err == nil || !strings.Contains(err.Error(), "serviceAccount.private_key") || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	for _, given := range []any{json.RawMessage(file), string(file)} {
		good["serviceAccount"] = given
		raw, _ := json.Marshal(good)
		cfg, err := rcs.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if shown, _ := json.Marshal(cfg); strings.Contains(fmt.Sprintf("%v %+v %#v %s", cfg, cfg, cfg, shown), "BEGIN") || strings.Contains(fmt.Sprintf("%+v %s", cfg, shown), "s3cr3t") {
			t.Error("a secret is shown")
		}
		if cfg.ServiceAccount.Key == settings.Secret("") || cfg.ServiceAccount.Email != account.Email {
			t.Errorf("got %+v", cfg.ServiceAccount)
		}
	}
}

// FuzzParse: Parse does not panic on any input, and a receipt always has a submission.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"senderPhoneNumber":"+393470000001","eventType":"DELIVERED","messageId":"00000000-2711-0000-0101-000000000000"}`))
	f.Add([]byte(`{"text":"STOP","messageId":"x"}`))
	c := open(f, config(f, "http://127.0.0.1:1"))
	f.Fuzz(func(t *testing.T, event []byte) {
		receipts, _, err := c.Parse(callback(t, string(event)))
		for _, r := range receipts {
			if err != nil || r.Key.IsZero() || r.Status == schemas.ReceiptStatusUnspecified {
				t.Errorf("got %+v, %v", r, err)
			}
		}
	})
}
