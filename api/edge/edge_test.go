package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const (
	number = 10001
	shop   = "https://shop.example/sale?id=1"
	chrome = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36"
)

// view is a control-plane view of one campaign.
type view struct {
	campaign *fanfarev1.Campaign
	domains  map[string]*fanfarev1.Domain
	ready    chan struct{}
}

func (v *view) CampaignByNumber(n uint64) *fanfarev1.Campaign {
	if v.campaign.GetNumber() != n {
		return nil
	}
	return v.campaign
}

func (v *view) Domain(host string) *fanfarev1.Domain { return v.domains[host] }

func (v *view) Ready() <-chan struct{} { return v.ready }

type env struct {
	*Server
	t       *testing.T
	view    *view
	keys    *schemas.Keys
	cluster *kfake.Cluster
	reg     *prometheus.Registry
	clock   atomic.Int64 // milliseconds
	away    atomic.Bool  // Kafka accepts no records
	dir     string
}

func newEnv(t *testing.T, change ...func(*Config)) *env {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	e := &env{t: t, keys: keys, dir: t.TempDir(), view: &view{ready: make(chan struct{}), campaign: &fanfarev1.Campaign{
		Tenant: "tn_a", Id: "camp_10001", Number: number, State: schemas.StateSending,
		Links: &fanfarev1.LinkTable{Base: "https://go.example/", ValidAfterEndMs: time.Hour.Milliseconds(), Links: []*fanfarev1.Link{
			{Number: 1, Id: "lnk_1", Url: shop, Target: shop + "&utm_source=sms", Variant: 2}, {Number: 2, Id: "lnk_2", Url: "http://other.example"},
		}},
	}}}
	close(e.view.ready)
	e.clock.Store(1_780_000_000_000)
	if e.cluster, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, e.names().Deliveries(), e.names().Inbound())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.cluster.Close)
	e.cluster.ControlKey(0, func(kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		if e.away.Load() {
			return nil, errAway, true
		}
		return nil, nil, false
	})
	e.open(change...)
	return e
}

var errAway = errors.New("the broker is away")

func (e *env) names() schemas.Names {
	n, _ := schemas.NewNames("test.")
	return n
}

// open starts a server on the same file.
func (e *env) open(change ...func(*Config)) {
	e.t.Helper()
	kafka, err := kgo.NewClient(kgo.SeedBrokers(e.cluster.ListenAddrs()...), kgo.ProducerLinger(0), kgo.RecordDeliveryTimeout(2*time.Second))
	if err != nil {
		e.t.Fatal(err)
	}
	e.reg = prometheus.NewRegistry()
	cfg := Config{
		Names: e.names(), Keys: e.keys, Spool: filepath.Join(e.dir, "clicks"), Logger: slog.New(slog.DiscardHandler), Registry: e.reg,
		Patience: 5 * time.Second, Now: func() time.Time { return time.UnixMilli(e.clock.Load()) },
	}
	for _, f := range change {
		f(&cfg)
	}
	if e.Server, err = New(cfg, e.view, kafka); err != nil {
		e.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(e.t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	e.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			e.t.Error(err)
		}
		kafka.Close()
	})
}

func (e *env) token(seq uint32, link uint8) string {
	return string(e.keys.AppendLink(nil, schemas.Link{Campaign: number, Seq: seq, Number: link}))
}

func (e *env) ask(method, path string, dress ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.RemoteAddr, r.Host = "192.0.2.1:1234", "go.example"
	r.Header.Set("User-Agent", chrome)
	r.Header.Set("Accept-Language", "it-IT,it;q=0.9,en;q=0.8")
	for _, f := range dress {
		f(r)
	}
	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	return w
}

// published returns n records of a topic, in order.
func (e *env) published(topic string, n int) []*kgo.Record {
	e.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(e.cluster.ListenAddrs()...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		e.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(e.t.Context(), 20*time.Second)
	defer cancel()
	var out []*kgo.Record
	for len(out) < n {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			e.t.Fatalf("got %d records of %s, want %d", len(out), topic, n)
		}
		out = append(out, fetches.Records()...)
	}
	return out
}

func clicks(t *testing.T, records []*kgo.Record) (out []*fanfarev1.Delivery) {
	t.Helper()
	for _, r := range records {
		d := &fanfarev1.Delivery{}
		if err := proto.Unmarshal(r.Value, d); err != nil {
			t.Fatal(err)
		}
		out = append(out, d)
	}
	return out
}

// TestRedirect (X6, R138): a link leads to the address in its campaign's table. The click event names the recipient,
// the link, the variant, and who or what opened the link.
func TestRedirect(t *testing.T) {
	e := newEnv(t)
	for _, path := range []string{"/" + e.token(7, 1), "/" + e.token(8, 2) + ".", "/" + e.token(9, 2) + "/"} {
		w := e.ask(http.MethodGet, path)
		want := shop + "&utm_source=sms"
		if path != "/"+e.token(7, 1) {
			want = "http://other.example"
		}
		if w.Code != http.StatusFound || w.Header().Get("Location") != want || w.Header().Get("Cache-Control") != "no-store" || w.Body.Len() != 0 {
			t.Errorf("%s: got %d to %q, %v", path, w.Code, w.Header().Get("Location"), w.Header())
		}
	}
	if w := e.ask(http.MethodHead, "/"+e.token(7, 1)); w.Code != http.StatusFound || w.Header().Get("Location") == "" {
		t.Errorf("HEAD: got %d", w.Code)
	}
	records := e.published(e.names().Deliveries(), 4)
	got := clicks(t, records)
	message := e.keys.Message(number, 7)
	first := got[0]
	if first.GetTenant() != "tn_a" || first.GetCampaignId() != "camp_10001" || first.GetSeq() != 7 || first.GetKind() != schemas.KindClicked || first.GetCode() != 0 ||
		first.GetRawCode() != "person" || first.GetLinkId() != "lnk_1" || first.GetVariant() != 2 || string(first.GetMessageId()) != string(message[:]) ||
		string(records[0].Key) != schemas.DeliveryKey("tn_a", message) {
		t.Errorf("got %v, key %s", first, records[0].Key)
	}
	if got[3].GetCode() != schemas.CodeBot || got[3].GetRawCode() != "head" {
		t.Errorf("HEAD: got %v", got[3])
	}
	if a, b := string(schemas.Header(records[0], "ce_id")), string(schemas.Header(records[3], "ce_id")); a == b || a == "" {
		t.Errorf("two clicks have the ids %q and %q", a, b)
	}
	// The links of an aborted campaign still lead to their addresses until they expire.
	e.view.campaign.State, e.view.campaign.SettledMs = schemas.StateAborted, e.clock.Load()
	e.clock.Add(time.Hour.Milliseconds())
	if w := e.ask(http.MethodGet, "/"+e.token(7, 1)); w.Code != http.StatusFound {
		t.Errorf("after the abort: got %d", w.Code)
	}
	e.clock.Add(1)
	w := e.ask(http.MethodGet, "/"+e.token(7, 1))
	if w.Code != http.StatusGone || w.Header().Get("Content-Language") != "it" || !strings.Contains(w.Body.String(), "scaduto") {
		t.Errorf("expired: got %d %s", w.Code, w.Body)
	}
}

// TestNothingElseIsAnswered: the edge limits hostile tokens, methods and floods, and writes nothing for them.
func TestNothingElseIsAnswered(t *testing.T) {
	e := newEnv(t)
	other, err := schemas.NewKeys([]byte("another secret.."))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/": 404, "/x": 404, "/" + strings.Repeat("a", 16): 404, "/" + strings.Repeat("z", 8000): 404, "/%00": 404, "/https://evil.example": 404, "//evil.example/": 404,
		"/" + string(other.AppendLink(nil, schemas.Link{Campaign: number, Number: 1})): 404,
		// The token is valid, but the campaign does not exist
		"/" + string(e.keys.AppendLink(nil, schemas.Link{Campaign: number + 1, Number: 1})): 410,
		"/" + e.token(1, 9): 410, "/healthz": 200, "/robots.txt": 200,
	} {
		w := e.ask(http.MethodGet, path)
		if w.Code != want || w.Header().Get("Location") != "" {
			t.Errorf("%.40s: got %d to %q, want %d", path, w.Code, w.Header().Get("Location"), want)
		}
		if strings.Contains(w.Body.String(), "evil") {
			t.Errorf("%s: the page says what the request said", path)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodTrace} {
		if w := e.ask(method, "/"+e.token(1, 1)); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: got %d", method, w.Code)
		}
	}
	guess := func(from string) int {
		return e.ask(http.MethodGet, "/"+strings.Repeat("b", 16), func(r *http.Request) { r.RemoteAddr = from }).Code
	}
	answered := 0
	for range 10_000 {
		if guess("198.51.100.9:1") == http.StatusNotFound {
			answered++
		}
	}
	if answered != limitBurst/costGuess {
		t.Errorf("got %d of 10,000 guesses answered, want %d", answered, limitBurst/costGuess)
	}
	if got := e.ask(http.MethodGet, "/"+e.token(1, 1), func(r *http.Request) { r.RemoteAddr = "198.51.100.9:1" }); got.Code != http.StatusTooManyRequests || got.Header().Get("Retry-After") == "" {
		t.Errorf("the address goes on: got %d", got.Code)
	}
	if got := guess("203.0.113.7:1"); got != http.StatusNotFound {
		t.Errorf("another address: got %d", got)
	}
	e.clock.Add(1000)
	if got := guess("198.51.100.9:1"); got != http.StatusNotFound {
		t.Errorf("a second later: got %d", got)
	}
	families, err := e.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "fanfare_edge_clicks_total" {
			t.Errorf("got clicks: %v", f)
		}
	}
	if e.spool.waiting() != 0 {
		t.Errorf("got %d kept, want none", e.spool.waiting())
	}
	e.view.ready = make(chan struct{}) // the topic is still being read
	if w := e.ask(http.MethodGet, "/"+string(e.keys.AppendLink(nil, schemas.Link{Campaign: number + 1, Number: 1}))); w.Code != http.StatusServiceUnavailable {
		t.Errorf("starting: got %d", w.Code)
	}
	// The campaign as it was before it was confirmed
	e.view.campaign = &fanfarev1.Campaign{Tenant: "tn_a", Number: number, Id: schemas.CampaignID(number)}
	early := "/" + string(e.keys.AppendLink(nil, schemas.Link{Campaign: number, Number: 1}))
	if w := e.ask(http.MethodGet, early); w.Code != http.StatusServiceUnavailable {
		t.Errorf("starting, with an old version of the campaign: got %d", w.Code)
	}
	close(e.view.ready)
	if w := e.ask(http.MethodGet, early); w.Code != http.StatusGone {
		t.Errorf("started, a campaign without links: got %d", w.Code)
	}
}

// TestHosts (R39): the edge answers links only on the host of the installation, on the tenant's domains and on shared
// ones. It answers opt-out pages on every host.
func TestHosts(t *testing.T) {
	e := newEnv(t, func(c *Config) { c.Proxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	e.view.domains = map[string]*fanfarev1.Domain{
		"mine.example": {Host: "mine.example", Tenant: "tn_a"}, "all.example": {Host: "all.example"}, "theirs.example": {Host: "theirs.example", Tenant: "tn_b"},
	}
	for _, c := range []struct {
		host, forwarded, from string
		want                  int
	}{
		{"go.example", "", "", 302},
		{"GO.example.:8443", "", "", 302},
		{"mine.example", "", "", 302},
		{"all.example:443", "", "", 302},
		{"theirs.example", "", "", 421},
		{"evil.example", "", "", 421},
		{"", "", "", 421},
		{"192.0.2.9", "", "", 421},
		{"evil.example", "mine.example", "", 421}, // the client names the host, not a trusted proxy
		{"edge.internal", "mine.example", "10.1.2.3:99", 302},
		{"mine.example", "evil.example", "10.1.2.3:99", 421},
	} {
		dress := func(r *http.Request) {
			r.Host = c.host
			if c.forwarded != "" {
				r.Header.Set("X-Forwarded-Host", c.forwarded)
			}
			if c.from != "" {
				r.RemoteAddr = c.from
			}
		}
		if w := e.ask(http.MethodGet, "/"+e.token(1, 1), dress); w.Code != c.want || (w.Header().Get("Location") != "") != (c.want == 302) {
			t.Errorf("%+v: got %d to %q", c, w.Code, w.Header().Get("Location"))
		}
		if w := e.ask(http.MethodGet, "/"+e.token(1, schemas.LinkOptOut), dress); w.Code != http.StatusOK { // whatever the host
			t.Errorf("%+v: opt-out page: got %d", c, w.Code)
		}
		if w := e.ask(http.MethodGet, "/healthz", dress); w.Code != http.StatusOK {
			t.Errorf("%+v: health: got %d", c, w.Code)
		}
	}
}

// inbound decodes the opt-outs that the edge has published.
func inbound(t *testing.T, records []*kgo.Record) (out []*fanfarev1.Inbound) {
	t.Helper()
	for _, r := range records {
		in := &fanfarev1.Inbound{}
		if err := proto.Unmarshal(r.Value, in); err != nil {
			t.Fatal(err)
		}
		out = append(out, in)
	}
	return out
}

// form makes a request that sends the form of the opt-out page.
func form(body string) func(*http.Request) {
	return func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
}

// TestOptOut (X10): GET and HEAD show what would be stopped and change nothing. POST opts out, of all channels or of
// the campaign's channel. The page works after the links of the campaign have expired, and contains nothing of the
// request.
func TestOptOut(t *testing.T) {
	e := newEnv(t)
	e.view.campaign.Legs = []*fanfarev1.Leg{{Channel: schemas.ChannelSMS, Sender: "<Shop>"}}
	e.view.campaign.State, e.view.campaign.SettledMs = schemas.StateAborted, 1 // long ago
	path := func(seq uint32) string { return "/" + e.token(seq, schemas.LinkOptOut) }
	for range 3 {
		w := e.ask(http.MethodGet, path(7)+"?scope=all")
		if w.Code != http.StatusOK || w.Header().Get("Content-Language") != "it" || !strings.Contains(w.Body.String(), "&lt;Shop&gt;") ||
			!strings.Contains(w.Body.String(), "Interrompi solo SMS") || !strings.Contains(w.Header().Get("Content-Security-Policy"), "form-action 'self'") {
			t.Fatalf("got %d %s", w.Code, w.Body)
		}
		if w := e.ask(http.MethodHead, path(7)); w.Code != http.StatusOK || w.Body.Len() != 0 {
			t.Fatalf("HEAD: got %d, %d bytes", w.Code, w.Body.Len())
		}
	}
	for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodOptions} {
		if w := e.ask(method, path(7)); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD, POST" {
			t.Errorf("%s: got %d", method, w.Code)
		}
	}
	for i, body := range []string{"scope=all", "scope=channel", "List-Unsubscribe=One-Click", "", "scope=%zz&<script>" + strings.Repeat("x", 2*maxForm)} {
		w := e.ask(http.MethodPost, path(uint32(i)), form(body))
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "Fatto") || strings.Contains(w.Body.String(), "<form") || strings.Contains(w.Body.String(), "script") {
			t.Errorf("%.20q: got %d %s", body, w.Code, w.Body)
		}
		if i == 1 && !strings.Contains(w.Body.String(), "messaggi SMS") {
			t.Errorf("the page does not say that one channel was stopped: %s", w.Body)
		}
	}
	e.ask(http.MethodPost, path(0), form("scope=all")) // the recipient taps twice
	e.clock.Add(1000)
	e.ask(http.MethodPost, path(0), form("scope=all"))
	records := e.published(e.names().Inbound(), 7)
	ids := map[string]int{}
	for _, in := range inbound(t, records) {
		ids[in.GetId()]++
		want := schemas.ChannelUnspecified
		if in.GetSeq() == 1 {
			want = schemas.ChannelSMS
		}
		if in.GetTenant() != "tn_a" || in.GetCampaignNumber() != number || in.GetWay() != schemas.InboundWayLink || in.GetScope() != want || in.GetReceivedMs() == 0 {
			t.Errorf("got %v", in)
		}
	}
	if len(records) != 7 || len(ids) != 6 {
		t.Errorf("got %d records of %d facts, want 7 of 6: twice within a second is one", len(records), len(ids))
	}
	message := e.keys.Message(number, 2)
	found := false
	for _, r := range records {
		found = found || string(r.Key) == schemas.DeliveryKey("tn_a", message) && string(schemas.Header(r, "tenant")) == "tn_a"
	}
	if !found {
		t.Error("no record has the key of its message")
	}
	// With a chain of channels, the page offers only an opt-out of all channels.
	e.view.campaign.Legs = append(e.view.campaign.Legs, &fanfarev1.Leg{Channel: schemas.ChannelRCS})
	if w := e.ask(http.MethodGet, path(7)); strings.Contains(w.Body.String(), "solo") {
		t.Errorf("got %s", w.Body)
	}
	// One address may send twenty forms a second.
	sent := 0
	for range 1000 {
		if w := e.ask(http.MethodPost, path(9), form(""), func(r *http.Request) { r.RemoteAddr = "198.51.100.9:1" }); w.Code == http.StatusOK {
			sent++
		}
	}
	if sent > limitBurst/costOptOut+1 {
		t.Errorf("got %d forms of one address taken, want about %d", sent, limitBurst/costOptOut)
	}
}

// TestOptOutKafkaAway (P5): while Kafka is away, an opt-out is kept in the file. If it can be neither published nor
// kept, the edge refuses it.
func TestOptOutKafkaAway(t *testing.T) {
	e := newEnv(t, func(c *Config) { c.Patience, c.SpoolBytes = 50*time.Millisecond, 1200 })
	e.away.Store(true)
	kept := 0
	for seq := range uint32(10) {
		w := e.ask(http.MethodPost, "/"+e.token(seq, schemas.LinkOptOut), form("scope=all"))
		switch {
		case w.Code == http.StatusOK:
			kept++
		case w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "":
			t.Fatalf("got %d", w.Code)
		}
	}
	if kept == 0 || kept == 10 || e.spool.waiting() != kept {
		t.Errorf("got %d answered and %d kept, want the same, and some refused", kept, e.spool.waiting())
	}
	e.away.Store(false)
	seen := map[uint32]bool{}
	for _, in := range inbound(t, e.published(e.names().Inbound(), kept)) {
		seen[in.GetSeq()] = true
	}
	for seq := range uint32(kept) {
		if !seen[seq] {
			t.Errorf("the opt-out of recipient %d was answered and is lost", seq)
		}
	}
}

// TestKafkaAway (P5): while Kafka is away, recipients are redirected, and their clicks wait in a file that survives a
// crash of the process. They are published when Kafka is back. The size of the file is limited.
func TestKafkaAway(t *testing.T) {
	e := newEnv(t, func(c *Config) { c.Patience = 50 * time.Millisecond })
	e.away.Store(true)
	for seq := range uint32(20) {
		if w := e.ask(http.MethodGet, "/"+e.token(seq, 1)); w.Code != http.StatusFound {
			t.Fatalf("got %d", w.Code)
		}
	}
	if n := e.spool.waiting(); n != 20 {
		t.Errorf("got %d kept, want 20", n)
	}
	if _, err := openSpool(filepath.Join(e.dir, "clicks"), 1<<20); err == nil {
		t.Error("two edges share a file")
	}
	e.away.Store(false)
	seen := map[uint32]bool{}
	for _, d := range clicks(t, e.published(e.names().Deliveries(), 20)) {
		seen[d.GetSeq()] = true
	}
	if len(seen) != 20 {
		t.Errorf("got the clicks of %d, want 20", len(seen))
	}

	path := filepath.Join(t.TempDir(), "f")
	s, err := openSpool(path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	for i := range 100 {
		err := s.add(&kgo.Record{Topic: "t", Key: fmt.Append(nil, i), Value: []byte("v"), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte{0xff}}}})
		if errors.Is(err, errFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kept++
	}
	if _, err := s.file.WriteAt([]byte(`{"topic":"half`), s.size); err != nil { // cut off by a crash
		t.Fatal(err)
	}
	if err := s.close(); err != nil || kept < 5 || kept == 100 {
		t.Fatalf("kept %d, %v", kept, err)
	}
	if s, err = openSpool(path, 1000); err != nil {
		t.Fatal(err)
	}
	records, lines, bytes, err := s.head(1000)
	if err != nil || len(records) != kept || lines != kept || s.waiting() != kept || string(records[1].Key) != "1" || records[1].Headers[0].Value[0] != 0xff {
		t.Errorf("got %d records back, %v, want %d", len(records), err, kept)
	}
	if err := s.drop(bytes, lines); err != nil || s.waiting() != 0 || s.size != 0 {
		t.Errorf("got %d bytes left, %v", s.size, err)
	}
}

// TestClassify: requests of known programs do not count as clicks of people, and requests of people's phones do.
func TestClassify(t *testing.T) {
	for agent, want := range map[string]string{
		chrome: "person",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1": "person",
		"Mozilla/5.0 (Linux; Android 11; CUBOT NOTE 20) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/96.0.4664.45 Mobile Safari/537.36":          "person",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 Instagram 334.0.4.32.98":   "person",
		"WhatsApp/2.23.20.0 A": "preview", "TelegramBot (like TwitterBot)": "preview", "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)": "preview",
		// iMessage
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_1) AppleWebKit/601.2.4 (KHTML, like Gecko) Version/9.0.1 Safari/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0": "preview",
		"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)":                                                                                            "scanner", "curl/8.5.0": "scanner", "python-requests/2.31": "scanner",
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/126.0.0.0 Safari/537.36": "scanner",
		"": "unknown", "Nokia6230": "unknown",
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("User-Agent", agent)
		r.Header.Set("Accept-Language", "it")
		if got := classify(r); schemas.ClickClass(got.code) != want {
			t.Errorf("%q: got %+v, want %s", agent, got, want)
		}
	}
	for header, want := range map[string]string{"Sec-Purpose: prefetch;prerender": "preview", "Purpose: prefetch": "preview", "X-Moz: prefetch": "preview", "Sec-Fetch-Dest: image": "preview", "Sec-Fetch-Dest: document": "person", "Accept-Language: ": "unknown"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("User-Agent", chrome)
		r.Header.Set("Accept-Language", "it")
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Set(name, value)
		if got := classify(r); schemas.ClickClass(got.code) != want {
			t.Errorf("%s: got %+v, want %s", header, got, want)
		}
	}
	// One place opens the links of many recipients: the first ones may be people, the others do not count as people.
	e := newEnv(t)
	for seq := range uint32(manyTokens + 20) {
		e.ask(http.MethodGet, "/"+e.token(seq, 1))
	}
	for i, d := range clicks(t, e.published(e.names().Deliveries(), manyTokens+20)) {
		if program := d.GetCode() == schemas.CodeBot; program != (i >= manyTokens) {
			t.Errorf("recipient %d: got %s %s", i, schemas.ClickClass(d.GetCode()), d.GetRawCode())
		}
	}
}

// TestHousehold: the IPv6 addresses of one household count as one place.
func TestHousehold(t *testing.T) {
	l := newLimiter()
	if l.place(netip.MustParseAddr("2001:db8::1")) != l.place(netip.MustParseAddr("2001:db8::ffff:1")) || l.place(netip.MustParseAddr("2001:db8::1")) == l.place(netip.MustParseAddr("2001:db8:0:1::1")) {
		t.Error("a household of IPv6 is not one place")
	}
}

// FuzzEdge: for any request, the edge redirects only to addresses in the table, and no page contains parts of the
// request.
func FuzzEdge(f *testing.F) {
	f.Add("GET", "/0123456789abcdef", "host.example", "ua")
	f.Add("POST", "//evil.example", "evil.example", "<script>")
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		f.Fatal(err)
	}
	s := &Server{
		cfg:       Config{Keys: keys, Now: time.Now},
		campaigns: &view{campaign: &fanfarev1.Campaign{}}, limits: newLimiter(), crowd: &crowd{}, metrics: newMetrics(prometheus.NewRegistry(), &spool{}),
	}
	f.Fuzz(func(t *testing.T, method, path, host, agent string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Method, r.URL.Path, r.Host = method, path, host
		r.Header.Set("User-Agent", agent)
		r.RemoteAddr = host
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Header().Get("Location") != "" || w.Code == http.StatusOK && path != "/healthz" && path != "/robots.txt" {
			t.Fatalf("%s %q: got %d to %q", method, path, w.Code, w.Header().Get("Location"))
		}
	})
}
