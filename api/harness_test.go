package api_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/api"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
	analyticssqlite "fanfare/sinks/analytics/sqlite"
)

// start of every test's clock: E's examples are scheduled two weeks later.
var start = time.Date(2025, 4, 1, 9, 0, 0, 0, time.UTC)

// env is the API with its services: a store on SQLite, an embedded broker, statistics on SQLite.
type env struct {
	testing.TB
	clock  *clock
	store  *store.Store
	stats  *switchedStats
	kafka  *kfake.Cluster
	client *kgo.Client
	names  schemas.Names
	keys   *schemas.Keys
	deps   api.Deps
	server *api.Server
	url    string
	tenant store.Tenant
	key    string
	logs   *syncBuffer
	dsn    string
	lists  int
}

type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.UnixMilli(c.at.Load()).UTC() }
func (c *clock) forward(d time.Duration) { c.at.Add(d.Milliseconds()) }

// syncBuffer is what the log of a test writes to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// switchedStats is a statistics store that can be away.
type switchedStats struct {
	analytics.Store
	away  atomic.Bool
	slow  atomic.Pointer[chan struct{}] // Stats waits until it is closed
	asked atomic.Int64
}

var errAway = fmt.Errorf("statistics are away")

func (s *switchedStats) Stats(ctx context.Context, tenant, campaign string) (analytics.Stats, error) {
	if s.away.Load() {
		return analytics.Stats{}, errAway
	}
	s.asked.Add(1)
	if release := s.slow.Load(); release != nil {
		<-*release
	}
	return s.Store.Stats(ctx, tenant, campaign)
}

func (s *switchedStats) StatsMany(ctx context.Context, tenant string, campaigns []string) (map[string]analytics.Stats, error) {
	if s.away.Load() {
		return nil, errAway
	}
	return s.Store.StatsMany(ctx, tenant, campaigns)
}

func (s *switchedStats) Cost(ctx context.Context, tenant string, campaigns ...string) (map[string][]analytics.CostLine, error) {
	if s.away.Load() {
		return nil, errAway
	}
	return s.Store.Cost(ctx, tenant, campaigns...)
}

func (s *switchedStats) InFlight(ctx context.Context, tenant string, campaigns ...string) (map[string]uint64, error) {
	if s.away.Load() {
		return nil, errAway
	}
	return s.Store.InFlight(ctx, tenant, campaigns...)
}

func (s *switchedStats) Members(ctx context.Context, tenant, campaign string, seqs []uint32) ([]analytics.Member, error) {
	if s.away.Load() {
		return nil, errAway
	}
	return s.Store.Members(ctx, tenant, campaign, seqs)
}

// newEnv makes an env with one tenant and one key; change may alter the dependencies of the API.
func newEnv(t *testing.T, change ...func(*env)) *env {
	t.Helper()
	t.Parallel()
	return newEnvOf(t, change...)
}

// fresh are a store and statistics that nothing is in: made once, for making tables takes longer than most tests.
var fresh = sync.OnceValues(func() (files map[string][]byte, err error) {
	dir, err := os.MkdirTemp("", "fanfare-api")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := store.Migrate(context.Background(), store.Config{DSN: filepath.Join(dir, "store.db")}); err != nil {
		return nil, err
	}
	st, err := analyticssqlite.Open(context.Background(), analyticssqlite.Config{Path: filepath.Join(dir, "stats.db")})
	if err != nil {
		return nil, err
	}
	if err := st.Close(); err != nil {
		return nil, err
	}
	files = map[string][]byte{}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range names {
		if files[f.Name()], err = os.ReadFile(filepath.Join(dir, f.Name())); err != nil {
			return nil, err
		}
	}
	return files, nil
})

func newEnvOf(t testing.TB, change ...func(*env)) *env {
	t.Helper()
	ctx := t.Context()
	w := &env{TB: t, clock: &clock{}, logs: &syncBuffer{}}
	w.clock.at.Store(start.UnixMilli())
	logger := slog.New(slog.NewTextHandler(w.logs, nil))
	w.check(w.makeKeys())
	dir := t.TempDir()
	files, err := fresh()
	w.check(err)
	for name, content := range files {
		w.check(os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	cfg := store.Config{DSN: filepath.Join(dir, "store.db"), Keys: w.keys, Logger: logger, Now: w.clock.now}
	w.dsn = cfg.DSN
	w.store, err = store.Open(ctx, cfg)
	w.check(err)
	t.Cleanup(func() { _ = w.store.Close() })
	st, err := analyticssqlite.Open(ctx, analyticssqlite.Config{Path: filepath.Join(dir, "stats.db")})
	w.check(err)
	t.Cleanup(func() { _ = st.Close() })
	w.stats = &switchedStats{Store: st}
	w.names, err = schemas.NewNames("test.")
	w.check(err)
	w.startKafka()
	_, _, err = w.store.EnsureRoute(ctx, store.Route{
		Name: "sim", Connector: "sim", Rate: 2000, Enabled: true, P99: 50 * time.Millisecond, ReceiptWindow: time.Hour,
		Channels: []schemas.Channel{schemas.ChannelSMS, schemas.ChannelRCS, schemas.ChannelWhatsApp, schemas.ChannelVoice},
	})
	w.check(err)
	w.tenant, w.key = w.newTenant("Acme")
	w.deps = api.Deps{
		Store: w.store, Analytics: w.stats, Kafka: w.client, Names: w.names, Keys: w.keys, Logger: logger,
		Registry: newRegistry(), Now: w.clock.now, Limits: api.Limits{PerSecond: 1e6, PerMinute: 1e6}, StatsMaxAge: -1,
		Connectors: connectors(t),
	}
	for _, f := range change {
		f(w)
	}
	w.serve()
	return w
}

func (w *env) makeKeys() (err error) {
	w.keys, err = schemas.NewKeys([]byte("a secret of the test's own"))
	return err
}

func (w *env) startKafka() {
	w.Helper()
	var err error
	opts := []kfake.Opt{kfake.NumBrokers(1)}
	_, bench := w.TB.(*testing.B)
	if bench { // as it runs embedded
		opts = append(opts, kfake.DataDir(w.TempDir()))
	}
	var brokers []string
	if given := os.Getenv("FANFARE_TEST_KAFKA"); bench && given != "" {
		brokers = strings.Split(given, ",")
		w.names, err = schemas.NewNames("bench" + strings.ToLower(rand.Text()[:8]) + ".")
		w.check(err)
	} else {
		w.kafka, err = kfake.NewCluster(opts...)
		w.check(err)
		w.Cleanup(w.kafka.Close)
		brokers = w.kafka.ListenAddrs()
	}
	w.client, err = kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	w.check(err)
	w.Cleanup(w.client.Close)
	adm := kadm.NewClient(w.client)
	for _, topic := range []string{w.names.Messages("sim", schemas.LaneTxn), w.names.Held()} {
		_, err = adm.CreateTopic(w.Context(), 3, 1, nil, topic)
		w.check(err)
	}
}

// eventually waits until ok holds, for a minute at most. got points to what ok has read; it is printed after a failure.
func (w *env) eventually(what string, got any, ok func() bool) {
	w.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("%s: not within a minute, got %+v", what, got)
		}
	}
}

// serve replaces the API by a new one made from deps.
func (w *env) serve() {
	w.Helper()
	var err error
	w.server, err = api.New(w.deps)
	w.check(err)
	srv := httptest.NewServer(w.server)
	w.Cleanup(srv.Close)
	w.url = srv.URL
}

func (w *env) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *env) newTenant(name string) (store.Tenant, string) {
	w.Helper()
	tenant, err := w.store.CreateTenant(w.Context(), store.TenantSpec{Name: name})
	w.check(err)
	return tenant, w.newKey(tenant.ID, nil, false)
}

func (w *env) newKey(tenant string, scopes []store.Scope, test bool) string {
	w.Helper()
	_, secret, err := w.store.CreateKey(w.Context(), tenant, "test", scopes, test)
	w.check(err)
	return secret
}

// relay publishes opt-outs as the relay would: it marks them published.
func (w *env) relay() {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			if rows, err := w.store.Unpublished(ctx, 100); err == nil && len(rows) > 0 {
				_ = w.store.MarkPublished(ctx, rows)
			}
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Millisecond):
			}
		}
	})
	w.Cleanup(func() { cancel(); done.Wait() })
}

// answer is a response that was read.
type answer struct {
	*env
	status int
	header http.Header
	body   []byte
	what   string
}

// header is an option of call.
type header struct{ name, value string }

// call asks the API with the tenant's key.
func (w *env) call(method, path, body string, headers ...header) *answer {
	w.Helper()
	return w.callAs(w.key, method, path, body, headers...)
}

func (w *env) callAs(key, method, path, body string, headers ...header) *answer {
	w.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(w.Context(), method, w.url+path, r)
	w.check(err)
	if key != "" {
		req.Header.Set("X-Api-Key", key)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		req.Header.Set(h.name, h.value)
		if h.value == "" {
			req.Header.Del(h.name)
		}
	}
	resp, err := http.DefaultClient.Do(req)
	w.check(err)
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	w.check(err)
	return &answer{w, resp.StatusCode, resp.Header, b, method + " " + path}
}

// want fails unless the status is the wanted one.
func (a *answer) want(status int) *answer {
	a.Helper()
	if a.status != status {
		a.Fatalf("%s: got %d %s, want %d", a.what, a.status, a.body, status)
	}
	return a
}

// into reads the body.
func (a *answer) into(v any) {
	a.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		a.Fatalf("%s: got %s: %v", a.what, a.body, err)
	}
}

// object reads the body as an object.
func (a *answer) object() map[string]any {
	a.Helper()
	var out map[string]any
	a.into(&out)
	return out
}

func (a *answer) id() string {
	a.Helper()
	id, _ := a.object()["id"].(string)
	if id == "" {
		a.Fatalf("%s: got %s, want an id", a.what, a.body)
	}
	return id
}

// problem checks that the body is a whole problem with that code and field.
func (a *answer) problem(status int, code, field string) map[string]any {
	a.Helper()
	a.want(status)
	if got, want := a.header.Get("Content-Type"), "application/problem+json"; got != want {
		a.Errorf("%s: got content type %q, want %q", a.what, got, want)
	}
	p := a.object()
	for _, member := range []string{"type", "title", "status", "detail", "code", "field", "fix"} {
		if v, ok := p[member]; !ok || v == "" && member != "field" {
			a.Errorf("%s: got %s, want a member %s", a.what, a.body, member)
		}
	}
	if got := int(p["status"].(float64)); got != status {
		a.Errorf("%s: got status %d in the body, want %d", a.what, got, status)
	}
	if p["code"] != code || p["field"] != field {
		a.Errorf("%s: got code %q field %q, want %q %q: %s", a.what, p["code"], p["field"], code, field, a.body)
	}
	if p["requestId"] != a.header.Get("X-Request-Id") {
		a.Errorf("%s: got requestId %v, want that of the header, %s", a.what, p["requestId"], a.header.Get("X-Request-Id"))
	}
	return p
}

// list makes a contact list with n contacts, Italian mobiles from the given one on, and returns its id.
func (w *env) list(name string, n, from int) string {
	w.Helper()
	id := w.call("POST", "/api/contacts/list", fmt.Sprintf(`{"name":%q}`, name)).want(201).id()
	number, _ := store.ListNumber(id)
	contacts := make([]uint64, n)
	for i := range n {
		c, err := w.store.CreateContact(w.Context(), store.Contact{Tenant: w.tenant.ID, Phone: phoneOf(from + i), FirstName: fmt.Sprintf("Name%d", i)})
		if errors.Is(err, store.ErrNameTaken) { // in another list already
			c, err = w.store.ContactByPhone(w.Context(), w.tenant.ID, phoneOf(from+i))
		}
		w.check(err)
		contacts[i] = c.Number
	}
	if n > 0 {
		_, err := w.store.AddToList(w.Context(), w.tenant.ID, number, contacts)
		w.check(err)
	}
	return id
}

// contactID is the id of the contact with a number.
func (w *env) contactID(e164 string) string {
	w.Helper()
	c, err := w.store.ContactByPhone(w.Context(), w.tenant.ID, e164)
	w.check(err)
	return c.ID()
}

func phoneOf(i int) string { return fmt.Sprintf("+39333%07d", 1000000+i) }

// campaign makes a configured campaign of n contacts.
func (w *env) campaign(n int, more string) string {
	w.Helper()
	return w.campaignAs(w.key, n, more)
}

func (w *env) campaignAs(key string, n int, more string) string {
	w.Helper()
	w.lists++
	list := w.list(fmt.Sprintf("list %d", w.lists), n, 100_000+1000*w.lists)
	return w.callAs(key, "POST", "/api/campaigns", fmt.Sprintf(`{"name":"C","channel":"sms","message":"Hello","contactList":%q%s}`, list, more)).want(201).id()
}

// records reads everything that is in a topic.
func (w *env) records(topic string) []*kgo.Record {
	w.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.ListenAddrs()...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	w.check(err)
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(w.Context(), topic)
	w.check(err)
	want := 0
	ends.Each(func(o kadm.ListedOffset) { want += int(o.Offset) })
	var out []*kgo.Record
	ctx, cancel := context.WithTimeout(w.Context(), 5*time.Second)
	defer cancel()
	for len(out) < want && ctx.Err() == nil {
		out = append(out, cl.PollFetches(ctx).Records()...)
	}
	if len(out) != want {
		w.Fatalf("%s: got %d records, want %d", topic, len(out), want)
	}
	return out
}

// happened adds delivery events of a campaign to the statistics: kind and code for each seq of [from, to).
func (w *env) happened(tenant, campaign string, from, to uint32, kind schemas.Kind, code schemas.Code) {
	w.Helper()
	w.check(w.stats.Append(w.Context(), analytics.Batch{Events: w.events(tenant, campaign, from, to, kind, code)}))
}

// events makes an event of a kind of each recipient from a seq to another.
func (w *env) events(tenant, campaign string, from, to uint32, kind schemas.Kind, code schemas.Code) []analytics.Event {
	w.Helper()
	month := &analytics.Campaign{Tenant: tenant, ID: campaign, Month: analytics.MonthOf(w.clock.now())}
	number, err := schemas.CampaignNumber(campaign)
	w.check(err)
	var events []analytics.Event
	for seq := from; seq < to; seq++ {
		events = append(events, analytics.Event{
			Campaign: month, TimeMS: w.clock.now().UnixMilli(), Seq: seq, Kind: kind, Code: code, Channel: schemas.ChannelSMS, Try: 1, Leg: 1,
			Segments: 1, PriceMicros: 50_000, MessageID: w.keys.Message(number, seq), Route: "sim", Sender: "FANFARE", Currency: "EUR", To: phoneOf(int(seq)),
		})
	}
	return events
}

// freeze makes a confirmed campaign's audience n recipients, as the freeze would, and lets it send.
func (w *env) freeze(campaign string, n uint32) {
	w.Helper()
	c, err := w.store.Campaign(w.Context(), w.tenant.ID, campaign)
	w.check(err)
	w.check(w.store.Freeze(w.Context(), w.tenant.ID, campaign, c.Version))
	c, err = w.store.Campaign(w.Context(), w.tenant.ID, campaign)
	w.check(err)
	_, err = w.store.Apply(w.Context(), schemas.Change{
		Tenant: w.tenant.ID, Campaign: campaign, Version: c.Version, To: schemas.StateSending, Trigger: schemas.TriggerDeal,
		Actor: schemas.ActorScheduler, At: w.clock.now(),
	})
	w.check(err)
	if n != c.Total {
		w.resize(campaign, n)
	}
}

// resize pretends that the audience has n recipients: making five thousand contacts takes longer than all the rest of a
// test.
func (w *env) resize(campaign string, n uint32) {
	w.Helper()
	db, err := sql.Open("sqlite", w.dsn+"?_pragma=busy_timeout(10000)")
	w.check(err)
	defer func() { _ = db.Close() }()
	number, err := schemas.CampaignNumber(campaign)
	w.check(err)
	_, err = db.ExecContext(w.Context(), "PRAGMA busy_timeout = 5000; UPDATE campaigns SET total = ? WHERE number = ?", n, number)
	w.check(err)
}
