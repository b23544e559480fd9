package whatsapp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/carriertest"
	"fanfare/sinks/carrier/sim"
	"fanfare/sinks/carrier/whatsapp"
	"fanfare/sinks/carrier/whatsapp/graph"
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
	token     = "an access token"
	appSecret = "an app secret"
	verify    = "a word of ours"
	phoneID   = "106540352242922"
)

// peer is WhatsApp with the simulator behind it.
type peer struct {
	url    string
	truth  string
	server *graph.Server
}

func startPeer(t testing.TB, profile sim.Profile, cfg graph.Config) *peer {
	t.Helper()
	p := &peer{truth: filepath.Join(t.TempDir(), "carrier-sim.ndjson")}
	c, err := sim.Open(sim.Config{Keys: testKeys(t), Profile: profile, Seed: 1, Truth: p.truth})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Keys, cfg.AccessToken, cfg.AppSecret, cfg.VerifyToken = testKeys(t), token, appSecret, verify
	cfg.Open = func(id string) (graph.Line, error) { return c.Connector(sim.Options{Account: id}), nil }
	if p.server, err = graph.New(cfg); err != nil {
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

func config(address string) whatsapp.Config {
	return whatsapp.Config{PhoneNumberID: phoneID, AccessToken: token, AppSecret: appSecret, VerifyToken: verify, BaseURL: address}
}

func open(t testing.TB, cfg whatsapp.Config) *whatsapp.Connector {
	t.Helper()
	c, err := whatsapp.New(cfg, "wa")
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

// TestContract holds the connector to the contract of package carrier.
func TestContract(t *testing.T) {
	carriertest.Run(t, func(t *testing.T, p carriertest.Peer) carriertest.Subject {
		profile := sim.Profile{Answer: sim.Lognormal{P50: p.Latency}, Lost: 1}
		if p.Silent {
			profile.Silent = 1
		}
		peer := startPeer(t, profile, graph.Config{})
		cfg := config(peer.url)
		cfg.Window = p.Window
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
					seen[e.Submission]++
				}
				return seen, nil
			},
		}
	})
}

func message(t testing.TB, seq int) carrier.Outbound {
	t.Helper()
	return carrier.Outbound{
		Key: testKeys(t).Submission(10001, uint32(seq), 1), Channel: schemas.ChannelWhatsApp, To: fmt.Sprintf("+39347%07d", seq), From: "+390612345678",
		Body: carrier.Body{Text: carrier.Text{Body: "hello", Segments: 1}},
	}
}

func hand(t testing.TB, c carrier.Connector, o carrier.Outbound) (r carrier.Result) {
	t.Helper()
	done := make(chan carrier.Result, 1)
	if err := c.Send(t.Context(), []carrier.Outbound{o}, func(_ int, r carrier.Result) { done <- r }); err != nil {
		t.Fatal(err)
	}
	return <-done
}

// TestRequest: the connector sends a template with its components or values, or a text, from the right number.
func TestRequest(t *testing.T) {
	var got, path, bearer string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		got, path, bearer = string(raw), r.URL.Path, r.Header.Get("Authorization")
		_, _ = io.WriteString(w, `{"messages":[{"id":"wamid.1","message_status":"accepted"}]}`)
	}))
	defer srv.Close()
	c := open(t, config(srv.URL))
	o := message(t, 7)
	tail := `,"biz_opaque_callback_data":"` + o.Key.String() + `"}`
	head := `{"messaging_product":"whatsapp","recipient_type":"individual","to":"393470000007","type":`
	for name, tc := range map[string]struct {
		body carrier.Body
		from string
		want string
	}{
		"components": {
			body: carrier.Body{Template: &carrier.Template{Name: "order", Language: "it", Params: []string{"Anna"}, Components: []byte(`[{"type":"header"}]`)}},
			want: `"template","template":{"name":"order","language":{"code":"it"},"components":[{"type":"header"}]}`,
		},
		"values": {
			body: carrier.Body{Template: &carrier.Template{Name: "order", Language: "en_US", Params: []string{`A "B"`, "2"}}},
			want: `"template","template":{"name":"order","language":{"code":"en_US"},"components":[{"type":"body","parameters":[{"type":"text","text":"A \"B\""},{"type":"text","text":"2"}]}]}`,
		},
		"no values":      {body: carrier.Body{Template: &carrier.Template{Name: "hello_world", Language: "en_US"}}, want: `"template","template":{"name":"hello_world","language":{"code":"en_US"}}`},
		"text":           {body: carrier.Body{Text: carrier.Text{Body: "Ciao €"}}, want: `"text","text":{"preview_url":false,"body":"Ciao €"}`},
		"another number": {body: carrier.Body{Text: carrier.Text{Body: "x"}}, from: "99999999", want: `"text","text":{"preview_url":false,"body":"x"}`},
	} {
		o.Body, o.From = tc.body, tc.from
		if r := hand(t, c, o); r.Outcome != carrier.Accepted || r.Ref != "wamid.1" || r.Code != "" {
			t.Errorf("%s: got %+v, want accepted as wamid.1", name, r)
		}
		wantPath := "/v23.0/" + phoneID + "/messages"
		if tc.from != "" {
			wantPath = "/v23.0/" + tc.from + "/messages"
		}
		if got != head+tc.want+tail || path != wantPath || bearer != "Bearer "+token {
			t.Errorf("%s: got %s %s\n%s\nwant\n%s", name, path, bearer, got, head+tc.want+tail)
		}
	}
	o.Body = carrier.Body{Template: &carrier.Template{Name: "order", Language: "it", Components: []byte(`[{`)}}
	if r := hand(t, c, o); r.Outcome != carrier.Rejected || r.Sub != schemas.CodeRenderError {
		t.Errorf("components that are no JSON: got %+v, want rejected as RENDER_ERROR", r)
	}
}

// TestAnswers: the result for each answer of WhatsApp.
func TestAnswers(t *testing.T) {
	var status int
	var body string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	defer srv.Close()
	cfg := config(srv.URL)
	cfg.Codes = []string{"answer,131099,throttled,THROTTLED", "wait,131099,3s,"}
	c := open(t, cfg)
	fault := func(code int) string {
		return fmt.Sprintf(`{"error":{"message":"m","type":"OAuthException","code":%d}}`, code)
	}
	for n, tc := range []struct {
		status int
		body   string
		want   carrier.Result
	}{
		{200, `{"messages":[{"id":"wamid.9"}]}`, carrier.Result{Outcome: carrier.Accepted, Ref: "wamid.9"}},
		{200, `{"messages":[{"id":"wamid.9","message_status":"held_for_quality_assessment"}]}`, carrier.Result{Outcome: carrier.Accepted, Ref: "wamid.9"}},
		{200, `{"messages":[{"id":"wamid.9","message_status":"paused"}]}`, carrier.Result{Outcome: carrier.Rejected, Ref: "wamid.9", Code: "paused", Sub: schemas.CodeTemplatePaused}},
		{200, `{"messages":[]}`, carrier.Result{Outcome: carrier.Unknown, Code: "answer without the message"}},
		{200, `<html>`, carrier.Result{Outcome: carrier.Unknown, Code: "answer without the message"}},
		{429, fault(130429), carrier.Result{Outcome: carrier.Throttled, Code: "130429", Sub: schemas.CodeThrottled, RetryAfter: time.Second}},
		{400, fault(131056), carrier.Result{Outcome: carrier.Retryable, Code: "131056", Sub: schemas.CodeThrottled, RetryAfter: 6 * time.Second}},
		{400, fault(131048), carrier.Result{Outcome: carrier.Retryable, Code: "131048", Sub: schemas.CodeThrottled, RetryAfter: 10 * time.Minute}},
		{400, fault(80007), carrier.Result{Outcome: carrier.Throttled, Code: "80007", Sub: schemas.CodeThrottled, RetryAfter: time.Minute}},
		{400, fault(131026), carrier.Result{Outcome: carrier.Unsupported, Code: "131026", Sub: schemas.CodeNotWhatsAppUser}},
		{404, fault(132001), carrier.Result{Outcome: carrier.Rejected, Code: "132001", Sub: schemas.CodeTemplateNotFound}},
		{400, fault(132000), carrier.Result{Outcome: carrier.Rejected, Code: "132000", Sub: schemas.CodeTemplateMismatch}},
		{400, fault(132015), carrier.Result{Outcome: carrier.Rejected, Code: "132015", Sub: schemas.CodeTemplatePaused}},
		{401, fault(190), carrier.Result{Outcome: carrier.Retryable, Code: "190", Sub: schemas.CodeProviderError}},
		{401, fault(0), carrier.Result{Outcome: carrier.Retryable, Code: "0", Sub: schemas.CodeProviderError}},
		{403, "", carrier.Result{Outcome: carrier.Retryable, Code: "403", Sub: schemas.CodeProviderError}},
		{400, fault(131042), carrier.Result{Outcome: carrier.Retryable, Code: "131042", Sub: schemas.CodeNoCredits, RetryAfter: 10 * time.Minute}},
		{400, fault(777), carrier.Result{Outcome: carrier.Rejected, Code: "777", Sub: schemas.CodeNotSentOther}},
		{400, fault(131099), carrier.Result{Outcome: carrier.Throttled, Code: "131099", Sub: schemas.CodeThrottled, RetryAfter: 3 * time.Second}},
		{302, "", carrier.Result{Outcome: carrier.Retryable, Code: "302", Sub: schemas.CodeProviderError}},
		{500, fault(131000), carrier.Result{Outcome: carrier.Unknown, Code: "131000"}},
		{500, fault(777), carrier.Result{Outcome: carrier.Unknown, Code: "777"}},
		{503, fault(131016), carrier.Result{Outcome: carrier.Retryable, Code: "131016", Sub: schemas.CodeProviderError}},
		{502, "<html>", carrier.Result{Outcome: carrier.Unknown, Code: "502"}},
	} {
		status, body = tc.status, tc.body
		if got := hand(t, c, message(t, n)); got.Outcome != tc.want.Outcome || got.Ref != tc.want.Ref || got.Code != tc.want.Code || got.Sub != tc.want.Sub || got.RetryAfter != tc.want.RetryAfter {
			t.Errorf("%d %s: got %+v, want %+v", tc.status, tc.body, got, tc.want)
		}
	}
}

// webhook is a batch of statuses in mixed order, with one of another program and a message of a recipient.
const webhook = `{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"messages","value":{"messaging_product":"whatsapp",
"metadata":{"display_phone_number":"15550783881","phone_number_id":"106540352242922"},"statuses":[
{"id":"wamid.1","status":"read","timestamp":"1700000009","recipient_id":"393470000001","biz_opaque_callback_data":"KEY1","pricing":{"billable":true,"pricing_model":"PMP","category":"marketing"}},
{"id":"wamid.1","status":"delivered","timestamp":"1700000005","recipient_id":"393470000001","biz_opaque_callback_data":"KEY1"},
{"id":"wamid.1","status":"sent","timestamp":"1700000004","recipient_id":"393470000001","biz_opaque_callback_data":"KEY1"},
{"id":"wamid.2","status":"failed","timestamp":"1700000006","recipient_id":"393470000002","biz_opaque_callback_data":"KEY2","errors":[{"code":131026,"title":"Message undeliverable"}]},
{"id":"wamid.3","status":"failed","timestamp":"1700000006","recipient_id":"XY.1234","biz_opaque_callback_data":"KEY2","errors":[{"code":999999,"title":"New"}]},
{"id":"wamid.4","status":"tickled","timestamp":"x","recipient_id":"393470000002","biz_opaque_callback_data":"KEY2"},
{"id":"wamid.5","status":"delivered","timestamp":"1700000006","recipient_id":"393470000009"},
{"id":"wamid.6","status":"delivered","timestamp":"1700000006","recipient_id":"393470000009","biz_opaque_callback_data":"order 17"}]}}]},
{"id":"1","changes":[{"field":"account_alerts","value":{}},{"field":"messages","value":{"metadata":{"display_phone_number":"15550783881"},"messages":[
{"id":"wamid.7","from":"393470000001","timestamp":"1700000010","type":"text","text":{"body":"STOP"}},
{"id":"wamid.8","from":"393470000001","timestamp":"1700000011","type":"interactive","interactive":{"type":"button_reply","button_reply":{"id":"1","title":"Yes"}}}]}}]}]}`

// TestWebhook: statuses in any order become receipts with our id. Statuses of other programs are omitted.
func TestWebhook(t *testing.T) {
	c := open(t, config("http://127.0.0.1:1"))
	key1, key2 := message(t, 1).Key, message(t, 2).Key
	body := strings.NewReplacer("KEY1", key1.String(), "KEY2", key2.String()).Replace(webhook)
	cb := &carrier.Callback{Method: "POST", URL: "https://h/api/callback/wa", Body: []byte(body), Header: http.Header{"X-Hub-Signature-256": {graph.Sign(appSecret, []byte(body))}}}
	if err := c.Verify(cb); err != nil {
		t.Errorf("its own signature: %v", err)
	}
	for _, wrong := range []string{"", "sha256=", "sha256=zz", graph.Sign("another", []byte(body)), strings.TrimPrefix(graph.Sign(appSecret, []byte(body)), "sha256=")} {
		if c.Verify(&carrier.Callback{Method: "POST", Body: cb.Body, Header: http.Header{"X-Hub-Signature-256": {wrong}}}) == nil {
			t.Errorf("signature %q is taken", wrong)
		}
	}
	if c.Verify(&carrier.Callback{Method: "POST", Body: append(cb.Body, ' '), Header: cb.Header}) == nil {
		t.Error("the signature of another body is taken")
	}
	receipts, inbound, err := c.Parse(cb)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		ref, to, code string
		key           carrier.Key
		status        schemas.ReceiptStatus
		sub           schemas.Code
		at            int64
	}
	want := []row{
		{"wamid.1", "+393470000001", "read", key1, schemas.ReceiptStatusRead, schemas.CodeRead, 1700000009},
		{"wamid.1", "+393470000001", "delivered", key1, schemas.ReceiptStatusDelivered, schemas.CodeDelivered, 1700000005},
		{"wamid.1", "+393470000001", "sent", key1, schemas.ReceiptStatusBuffered, schemas.CodeEnroute, 1700000004},
		{"wamid.2", "+393470000002", "131026", key2, schemas.ReceiptStatusFailed, schemas.CodeNotWhatsAppUser, 1700000006},
		{"wamid.3", "", "999999", key2, schemas.ReceiptStatusFailed, schemas.CodeUndeliveredOther, 1700000006},
		{"wamid.4", "+393470000002", "tickled", key2, schemas.ReceiptStatusUnknown, 0, 0},
	}
	var got []row
	for _, r := range receipts {
		at := int64(0)
		if !r.At.IsZero() {
			at = r.At.Unix()
		}
		got = append(got, row{r.Ref, r.To, r.Code, r.Key, r.Status, r.Sub, at})
		if r.Account != "wa" || !json.Valid(r.Raw) {
			t.Errorf("got account %q and %s", r.Account, r.Raw)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
	if !strings.Contains(string(receipts[0].Raw), `"category":"marketing"`) {
		t.Errorf("the price's category is lost: %s", receipts[0].Raw)
	}
	if len(inbound) != 2 || inbound[0].Text != "STOP" || inbound[0].From != "+393470000001" || inbound[0].To != "+15550783881" || inbound[1].Text != "Yes" {
		t.Errorf("got %+v", inbound)
	}
	if _, _, err := c.Parse(&carrier.Callback{Method: "POST", Body: []byte("status=1")}); err == nil {
		t.Error("a body that is no JSON is taken")
	}
}

// TestTemplates (R16): Meta's decisions about templates, by account, name and language.
func TestTemplates(t *testing.T) {
	c := open(t, config("http://127.0.0.1:1"))
	body := `{"entry":[{"id":"102290129340398","changes":[
{"field":"message_template_status_update","value":{"event":"PAUSED","message_template_id":1689556908129832,"message_template_name":"order_shipped","message_template_language":"it","reason":"NONE","other_info":{"title":"FIRST_PAUSE","description":"Paused for 3 hours."}}},
{"field":"message_template_status_update","value":{"event":"APPROVED","message_template_name":"hello","message_template_language":"en_US","reason":"NONE"}},
{"field":"message_template_status_update","value":{"event":"REJECTED","message_template_name":"bad","message_template_language":"en","reason":"INCORRECT_CATEGORY"}},
{"field":"message_template_status_update","value":{"event":"DISABLED","message_template_name":"gone","message_template_language":"en"}},
{"field":"message_template_status_update","value":{"event":"FLAGGED","message_template_name":"hello","message_template_language":"en_US"}},
{"field":"message_template_status_update","value":7},
{"field":"messages","value":{"event":"PAUSED","message_template_name":"hello"}}]}]}`
	want := []carrier.TemplateNotice{
		{Account: "102290129340398", Name: "order_shipped", Language: "it", Status: "paused", Reason: "Paused for 3 hours."},
		{Account: "102290129340398", Name: "hello", Language: "en_US", Status: "approved"},
		{Account: "102290129340398", Name: "bad", Language: "en", Status: "rejected", Reason: "INCORRECT_CATEGORY"},
		{Account: "102290129340398", Name: "gone", Language: "en", Status: "disabled", Reason: "DISABLED"},
	}
	cb := &carrier.Callback{Method: "POST", Body: []byte(body)}
	if got := c.Templates(cb); !slices.Equal(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	if receipts, inbound, err := c.Parse(&carrier.Callback{Method: "POST", Body: []byte(strings.Split(body, `{"field":"messages"`)[0] + `{"field":"x"}]}]}`)}); err != nil || len(receipts)+len(inbound) > 0 {
		t.Errorf("read for receipts: got %v, %v, %v, want nothing", receipts, inbound, err)
	}
	if got := c.Templates(&carrier.Callback{Body: []byte("x")}); got != nil {
		t.Errorf("no JSON: got %v", got)
	}
}

// TestHandshake: if Meta's request has our verify token, its challenge comes back.
func TestHandshake(t *testing.T) {
	c := open(t, config("http://127.0.0.1:1"))
	without := config("http://127.0.0.1:1")
	without.VerifyToken = ""
	closed := open(t, without)
	for query, want := range map[string]string{
		"hub.mode=subscribe&hub.verify_token=a+word+of+ours&hub.challenge=1158201444": "1158201444",
		"hub.mode=subscribe&hub.verify_token=another&hub.challenge=1158201444":        "",
		"hub.mode=subscribe&hub.verify_token=&hub.challenge=1158201444":               "",
		"hub.verify_token=a+word+of+ours&hub.challenge=1158201444":                    "",
		"hub.mode=subscribe&hub.verify_token=a+word+of+ours":                          "",
		"": "",
	} {
		cb := &carrier.Callback{Method: "GET", URL: "https://h/api/callback/wa?" + query}
		if got, ok, err := c.Handshake(cb); got != want || !ok || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v, %v, want %q", query, got, ok, err, want)
		}
		if _, _, err := closed.Handshake(cb); err == nil {
			t.Errorf("%s: a route without a word answers", query)
		}
	}
	if _, ok, _ := c.Handshake(&carrier.Callback{Method: "POST", URL: "https://h/api/callback/wa"}); ok {
		t.Error("a webhook is taken for a handshake")
	}
}

// TestEndToEnd: every accepted message gets its receipts by webhooks that verify, single and in batches, although the
// first ones are refused. Messages that are too frequent for one person, or that go to too many people, are refused as
// WhatsApp does.
func TestEndToEnd(t *testing.T) {
	var mu sync.Mutex
	calls, delivered, unverified := 0, map[carrier.Key]bool{}, 0
	var c *whatsapp.Connector
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
	p := startPeer(t, sim.Profile{Receipt: sim.Lognormal{P50: 20 * time.Millisecond, P99: 200 * time.Millisecond}}, graph.Config{Webhook: hook.URL, Pair: time.Hour, Portfolio: n, Batch: 7})
	c = open(t, config(p.url))
	if err := c.Reach(t.Context()); err != nil {
		t.Errorf("reach: %v", err)
	}
	stranger := config(p.url)
	stranger.AccessToken = "expired"
	if err := open(t, stranger).Reach(t.Context()); err == nil || !strings.Contains(err.Error(), "190") {
		t.Errorf("reach with an expired token: got %v, want code 190", err)
	}
	for i := range n {
		if r := hand(t, c, message(t, i)); r.Outcome != carrier.Accepted {
			t.Fatalf("got %+v, want accepted", r)
		}
	}
	if r := hand(t, c, message(t, 1)); r.Code != "131056" || r.RetryAfter != 6*time.Second {
		t.Errorf("one person twice: got %+v, want 131056", r)
	}
	if r := hand(t, c, message(t, n)); r.Code != "131048" {
		t.Errorf("too many people: got %+v, want 131048", r)
	}
	for {
		mu.Lock()
		have := 0
		for _, ok := range delivered {
			if ok {
				have++
			}
		}
		mu.Unlock()
		if have == n {
			break
		}
		if t.Context().Err() != nil {
			t.Fatalf("%d of %d were reported as delivered", have, n)
		}
		time.Sleep(5 * time.Millisecond)
	}
	mu.Lock()
	defer mu.Unlock()
	if s := p.server.Stats(); unverified > 0 || s.Repeated == 0 || s.Delivered < n*2/7 {
		t.Errorf("%d webhooks do not verify, %+v", unverified, s)
	}
}

// TestConfig: an error names the wrong field, and secrets are not shown.
func TestConfig(t *testing.T) {
	for raw, want := range map[string]string{
		`{}`: "phoneNumberId is missing",
		`{"phoneNumberId":"+39061234","accessToken":"a","appSecret":"b"}`:                         "want the id that Meta gives",
		`{"phoneNumberId":"12345","appSecret":"b"}`:                                               "accessToken is missing",
		`{"phoneNumberId":"12345","accessToken":"a"}`:                                             "appSecret is missing",
		`{"phoneNumberId":"12345","accessToken":"a","appSecret":"b","version":"23"}`:              "version",
		`{"phoneNumberId":"12345","accessToken":"a","appSecret":"b","baseUrl":"graph"}`:           "baseUrl",
		`{"phoneNumberId":"12345","accessToken":"a","appSecret":"b","window":5000}`:               "window",
		`{"phoneNumberId":"12345","accessToken":"a","appSecret":"b","answerTimeout":"1ms"}`:       "answerTimeout",
		`{"phoneNumberId":"12345","accessToken":"a","appSecret":"b","ca":"x"}`:                    "ca",
		`{"phoneNumberId":"12345","accessToken":"a","appSecret":"b","codes":["answer,1,maybe,"]}`: "codes, line 1",
		`{"phoneNumberId":"12345","accessToken":"a","appSecret":"b","token":"x"}`:                 "token",
	} {
		if _, err := whatsapp.Parse([]byte(raw)); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "whatsapp: ") {
			t.Errorf("%s: got %v, want an error with %q", raw, err, want)
		}
	}
	cfg, err := whatsapp.Parse([]byte(`{"phoneNumberId":"12345","accessToken":"s3cr3t","appSecret":"s3cr3t","verifyToken":"s3cr3t"}`))
	if err != nil {
		t.Fatal(err)
	}
	if shown, _ := json.Marshal(cfg); strings.Contains(fmt.Sprintf("%v %+v %#v %s", cfg, cfg, cfg, shown), "s3cr3t") {
		t.Error("a secret is shown")
	}
}

// FuzzParse: Parse does not panic on any input, and a receipt always has a submission.
func FuzzParse(f *testing.F) {
	f.Add([]byte(webhook))
	f.Add([]byte(`{"entry":[{"changes":[{"field":"messages","value":{"statuses":[{"biz_opaque_callback_data":1}]}}]}]}`))
	c, err := whatsapp.New(config("http://127.0.0.1:1"), "wa")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		receipts, _, err := c.Parse(&carrier.Callback{Method: "POST", Body: body})
		for _, r := range receipts {
			if err != nil || r.Key.IsZero() {
				t.Errorf("got %+v, %v", r, err)
			}
		}
	})
}
