package webhook

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/api/store"
	"fanfare/pipeline/stream"
	"fanfare/pipeline/stream/streamtest"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

var (
	_ Store = (*store.Store)(nil)

	loopbackOnly = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	// start of the tests' clock.
	start = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// env is a store on SQLite with a tenant, and a clock.
type env struct {
	*testing.T
	store  *store.Store
	tenant store.Tenant
	keys   *schemas.Keys
	clock  atomic.Int64 // milliseconds; 0: the machine's
	view   fakeView
	dsn    string
}

func (e *env) now() time.Time {
	if at := e.clock.Load(); at != 0 {
		return time.UnixMilli(at).UTC()
	}
	return time.Now()
}

func (e *env) forward(d time.Duration) { e.clock.Add(d.Milliseconds()) }

// newEnv returns an env whose clock stands still at start.
func newEnv(t *testing.T) *env {
	t.Helper()
	e := &env{T: t}
	e.clock.Store(start.UnixMilli())
	e.open(filepath.Join(t.TempDir(), "store.db"))
	var err error
	if e.tenant, err = e.store.CreateTenant(t.Context(), store.TenantSpec{Name: "acme"}); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *env) open(dsn string) {
	e.Helper()
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		e.Fatal(err)
	}
	cfg := store.Config{DSN: dsn, Keys: keys, Now: e.now}
	if err := store.Migrate(e.Context(), cfg); err != nil {
		e.Fatal(err)
	}
	s, err := store.Open(e.Context(), cfg)
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() { _ = s.Close() })
	e.store, e.keys, e.dsn = s, keys, dsn
}

// hook creates an endpoint.
func (e *env) hook(name, url string, change ...func(*schemas.WebhookSettings)) schemas.Webhook {
	e.Helper()
	set := schemas.WebhookSettings{URL: url, Secrets: []schemas.WebhookSecret{{Value: secret}}}
	for _, c := range change {
		c(&set)
	}
	doc, err := json.Marshal(&set)
	if err != nil {
		e.Fatal(err)
	}
	r, err := e.store.CreateResource(e.Context(), store.Resource{Tenant: e.tenant.ID, Kind: store.KindWebhook, Name: name, Status: store.WebhookActive, Doc: doc})
	if err != nil {
		e.Fatal(err)
	}
	return schemas.Webhook{Tenant: e.tenant.ID, Number: r.Number, Created: r.Created, WebhookSettings: set}
}

// status returns the status of an endpoint, with its reason.
func (e *env) status(w schemas.Webhook) (status, reason string) {
	e.Helper()
	r, err := e.store.Resource(e.Context(), w.Tenant, store.KindWebhook, w.Number)
	if err != nil {
		e.Fatal(err)
	}
	var set schemas.WebhookSettings
	if err := json.Unmarshal(r.Doc, &set); err != nil {
		e.Fatal(err)
	}
	return r.Status, set.Reason
}

func (e *env) config(cluster stream.Cluster) Config {
	return Config{Cluster: cluster, Allow: loopbackOnly, Now: e.now, Jitter: func() float64 { return 0.5 }, Timeout: 5 * time.Second}
}

// deliverer returns a deliverer without a broker, whose recorder runs.
func (e *env) deliverer() *deliverer {
	e.Helper()
	cluster := stream.Cluster{Brokers: []string{"127.0.0.1:1"}, Logger: streamtest.Logger(e)}
	w, err := New(e.config(cluster), e.store, &e.view)
	if err != nil {
		e.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(e.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.deliverer.record(ctx)
	}()
	e.Cleanup(func() { stop(); <-done })
	return w.deliverer
}

// lane runs the lane of an endpoint until it ends, if a tick would start it; otherwise it returns false.
func (e *env) lane(d *deliverer, w schemas.Webhook) bool {
	e.Helper()
	if err := e.store.ClaimWebhooks(e.Context(), d.owner, d.cfg.Lease, d.cfg.Most); err != nil {
		e.Fatal(err)
	}
	hs, err := e.store.OwnedWebhooks(e.Context(), d.owner)
	if err != nil {
		e.Fatal(err)
	}
	i := slices.IndexFunc(hs, func(h schemas.WebhookHealth) bool { return h.Endpoint == w.Number })
	if i < 0 || hs[i].Due.IsZero() || hs[i].Due.After(e.now()) || hs[i].NotBefore.After(e.now()) {
		return false
	}
	d.lane(e.Context(), hs[i])
	return true
}

func (e *env) queue(w schemas.Webhook, events ...string) {
	e.Helper()
	var items []schemas.WebhookItem
	for _, name := range events { // a1, a2: two events of message a
		items = append(items, schemas.WebhookItem{
			Tenant: w.Tenant, Endpoint: w.Number, EventID: "evt_" + name, Type: "message.sent", Order: "msg_" + name[:1], Data: []byte(`{"messageId":"` + name + `"}`), Time: e.now(),
		})
	}
	if err := e.store.QueueWebhooks(e.Context(), items, nil); err != nil {
		e.Fatal(err)
	}
}

// states lists the events of an endpoint as name:state:tries, in order.
func (e *env) states(w schemas.Webhook) (out []string) {
	e.Helper()
	items, err := e.store.WebhookItems(e.Context(), w.Tenant, w.Number, store.WebhookFilter{Limit: 1000})
	if err != nil {
		e.Fatal(err)
	}
	for _, it := range slices.Backward(items) {
		out = append(out, it.EventID+":"+it.State.String()+":"+number(uint64(it.Tries)))
	}
	return out
}

// post is a request that an endpoint got.
type post struct {
	id     string
	body   []byte
	header http.Header
}

// receiver is a customer's endpoint.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	posts []post
	// answer answers the n-th request, 0 and up; nil: 204.
	answer func(n int, p post, w http.ResponseWriter)
	came   chan struct{}
}

func newReceiver(t testing.TB, answer func(n int, p post, w http.ResponseWriter)) *receiver {
	r := &receiver{answer: answer, came: make(chan struct{}, 10_000)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		p := post{req.Header.Get(standardwebhooks.HeaderWebhookID), body, req.Header.Clone()}
		r.mu.Lock()
		n := len(r.posts)
		r.posts = append(r.posts, p)
		r.mu.Unlock()
		r.came <- struct{}{}
		if r.answer == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		r.answer(n, p, w)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) got() []post {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.posts)
}

func (r *receiver) ids() (out []string) {
	for _, p := range r.got() {
		out = append(out, p.id)
	}
	return out
}

// wait waits for the n-th request.
func (r *receiver) wait(t testing.TB, n int) {
	t.Helper()
	deadline := time.After(time.Minute)
	for len(r.got()) < n {
		select {
		case <-r.came:
		case <-deadline:
			t.Fatalf("got %d requests within a minute, want %d", len(r.got()), n)
		}
	}
}

// fakeView has campaigns and routes.
type fakeView struct {
	campaigns map[string]*fanfarev1.Campaign
	routes    map[string]*fanfarev1.Route
}

func (v *fakeView) Campaign(id string) *fanfarev1.Campaign { return v.campaigns[id] }
func (v *fakeView) Route(name string) *fanfarev1.Route     { return v.routes[name] }

// event is the record of a delivery event.
func (e *env) event(names schemas.Names, campaign uint64, seq uint32, kind schemas.Kind, change ...func(*fanfarev1.Delivery)) *kgo.Record {
	e.Helper()
	message, submission := e.keys.Message(campaign, seq), e.keys.Submission(campaign, seq, 1)
	d := &fanfarev1.Delivery{
		Tenant: e.tenant.ID, CampaignId: schemas.CampaignID(campaign), CampaignNumber: campaign, Seq: seq, Try: 1, Leg: 1, Kind: kind, TimeMs: e.now().UnixMilli(),
		Channel: schemas.ChannelSMS, Route: "sim", Sender: "ACME", To: "+393331234567", Country: "IT", Segments: 1, MessageId: message[:], SubmissionId: submission[:],
	}
	for _, c := range change {
		c(d)
	}
	r, err := schemas.DeliveryEvent(names.Deliveries(), "test", d, "").Record()
	if err != nil {
		e.Fatal(err)
	}
	r.Timestamp = e.now()
	r.Partition = int32(seq % 6) // all events of a message have the same partition
	return r
}
