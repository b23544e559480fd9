package sender

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	crand "crypto/rand"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/ratelimit"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

// plant is Kafka (kfake, or a real one when its address is given), Redis (miniredis) and a carrier, for senders as they are
// run in production.
type plant struct {
	t       testing.TB
	cluster stream.Cluster
	cl      *kgo.Client
	adm     *kadm.Client
	redis   *miniredis.Miniredis
	rdb     redis.Options
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	keys    *schemas.Keys
	carrier *slowCarrier
	version uint64
	mixed   []*kgo.Record // go among those that send writes, one to a hundred
}

func newPlant(t testing.TB) *plant {
	t.Helper()
	server := miniredis.RunT(t)
	p := &plant{t: t, redis: server, rdb: redis.Options{Addr: server.Addr()}, dial: (&net.Dialer{}).DialContext}
	if addr := os.Getenv("FANFARE_TEST_KAFKA"); addr != "" {
		p.cluster.Brokers = strings.Split(addr, ",")
	} else {
		p.fake(kfake.DataDir(t.TempDir()))
	}
	p.build()
	return p
}

// newVirtualPlant is a plant for a bubble of its own time: nothing in it touches a socket or a disk.
func newVirtualPlant(t testing.TB) *plant {
	t.Helper()
	server := miniredis.NewMiniRedis()
	t.Cleanup(server.Close)
	var network kfake.VirtualNetwork
	p := &plant{t: t, redis: server, dial: network.DialContext}
	p.rdb = redis.Options{Addr: "127.0.0.1:1", Dialer: func(context.Context, string, string) (net.Conn, error) { return server.Dial() }}
	p.fake(kfake.ListenFn(network.Listen))
	p.build()
	return p
}

func (p *plant) fake(opts ...kfake.Opt) {
	p.t.Helper()
	fake, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(100*time.Millisecond))...)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(fake.Close)
	p.cluster.Brokers = fake.ListenAddrs()
}

func (p *plant) build() {
	t := p.t
	t.Helper()
	names, err := schemas.NewNames("t" + strings.ToLower(crand.Text()[:10]) + ".")
	if err != nil {
		t.Fatal(err)
	}
	p.keys, p.carrier = testKeys(t), &slowCarrier{seen: map[schemas.ID]int{}}
	logger := slog.New(slog.DiscardHandler)
	if os.Getenv("FANFARE_TEST_LOG") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	p.cluster.Names, p.cluster.Logger, p.cluster.Options = names, logger, []kgo.Opt{kgo.Dialer(p.dial)}
	if p.cl, err = p.cluster.Named("test").Client(kgo.ProducerLinger(0), kgo.MaxBufferedRecords(50_000)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.cl.Close)
	p.adm = kadm.NewClient(p.cl)
	topics := append(names.Fixed(), names.Route("sim")...)
	if err := stream.EnsureTopics(t.Context(), p.adm, 1, topics); err != nil {
		t.Fatal(err)
	}
	p.route(&fanfarev1.Route{Name: "sim", Connector: "sim", Rate: 2_000, P99Ms: 100, Enabled: true})
	p.publish(schemas.Event{
		Topic: names.Control(), Key: schemas.TenantKey("tn_a"), Tenant: "tn_a", Type: schemas.TypeControl,
		Value: &fanfarev1.Control{Version: 1, Row: &fanfarev1.Control_Tenant{Tenant: &fanfarev1.Tenant{Id: "tn_a", Enabled: true}}},
	})
}

func (p *plant) publish(events ...schemas.Event) {
	p.t.Helper()
	var recs []*kgo.Record
	for _, e := range events {
		r, err := e.Record()
		if err != nil {
			p.t.Fatal(err)
		}
		recs = append(recs, r)
	}
	if err := p.cl.ProduceSync(p.t.Context(), recs...).FirstErr(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plant) route(r *fanfarev1.Route) {
	p.t.Helper()
	p.version++
	p.publish(schemas.Event{
		Topic: p.cluster.Names.Control(), Key: schemas.RouteKey(r.GetName()), Type: schemas.TypeControl,
		Value: &fanfarev1.Control{Version: p.version, Row: &fanfarev1.Control_Route{Route: r}},
	})
}

// campaign publishes campaign 10001; the time is when Kafka had acknowledged it.
func (p *plant) campaign(version uint64, state fanfarev1.State) time.Time {
	p.t.Helper()
	c := &fanfarev1.Campaign{Tenant: "tn_a", Id: "camp_10001", Number: 10001, Version: version, State: state}
	p.publish(schemas.Event{Topic: p.cluster.Names.Campaigns(), Key: schemas.CampaignKey("tn_a", c.GetId()), Tenant: "tn_a", Type: schemas.TypeCampaign, Value: c})
	return time.Now()
}

// send writes messages seq from..to of the campaign to the bulk lane.
func (p *plant) send(from, to int) {
	p.t.Helper()
	recs := make([]*kgo.Record, 0, to-from)
	for i := from; i < to; i++ {
		m := testMessage(10001, uint32(i), 1)
		m.To = fmt.Sprintf("+39333%07d", i)
		r := messageRecord(p.t, p.keys, m)
		r.Topic = p.cluster.Names.Messages("sim", schemas.LaneBulk)
		recs = append(recs, r)
		if i%100 == 99 && len(p.mixed) > 0 {
			recs, p.mixed = append(recs, p.mixed[0]), p.mixed[1:]
		}
	}
	if err := p.cl.ProduceSync(p.t.Context(), recs...).FirstErr(); err != nil {
		p.t.Fatal(err)
	}
}

// wire is the network of one process: cut, nothing comes or goes.
type wire struct {
	under func(ctx context.Context, network, addr string) (net.Conn, error)
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func (w *wire) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	cut := w.cut
	w.mu.Unlock()
	if cut {
		return nil, errors.New("the wire is cut")
	}
	c, err := w.under(ctx, network, addr)
	if err == nil {
		w.mu.Lock()
		w.conns = append(w.conns, c)
		w.mu.Unlock()
	}
	return c, err
}

func (w *wire) sever() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for _, c := range w.conns {
		_ = c.Close()
	}
}

// process is one process that sends.
type process struct {
	fleet *Fleet
	view  *stream.View
	wire  *wire
	stop  func() error
}

// start runs the senders of a process. connect may be nil: every route goes to the carrier of the plant.
func (p *plant) start(name string, connect func(context.Context, *fanfarev1.Route) (Line, error)) *process {
	p.t.Helper()
	x := &process{wire: &wire{under: p.dial}}
	cluster := p.cluster
	cluster.Options = []kgo.Opt{kgo.Dialer(x.wire.dial)}
	var err error
	if x.view, err = stream.NewView(stream.ViewConfig{Cluster: cluster, Keys: p.keys, Suppressions: true}); err != nil {
		p.t.Fatal(err)
	}
	options := p.rdb
	options.MaxRetries = -1
	rdb := redis.NewClient(&options)
	p.t.Cleanup(func() { _ = rdb.Close() })
	limiter, err := ratelimit.New(rdb, ratelimit.Config{Names: cluster.Names, Instance: name, Logger: cluster.Logger})
	if err != nil {
		p.t.Fatal(err)
	}
	if connect == nil {
		connect = func(context.Context, *fanfarev1.Route) (Line, error) {
			return Line{Live: p.carrier, Test: p.carrier}, nil
		}
	}
	x.fleet, err = New(Config{
		Cluster: cluster, Keys: p.keys, Replication: 1, SessionTimeout: 1500 * time.Millisecond, GuardMargin: 500 * time.Millisecond, DrainTimeout: 3 * time.Second,
	}, Deps{View: x.view, Tokens: limiter, Connect: connect})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	viewCtx, cancelView := context.WithCancel(context.Background())
	done, viewDone := make(chan error, 1), make(chan error, 1)
	go func() { viewDone <- x.view.Run(viewCtx) }()
	go func() { done <- x.fleet.Run(ctx) }()
	var once sync.Once
	x.stop = func() (err error) {
		once.Do(func() {
			cancel()
			err = <-done
			cancelView()
			err = errors.Join(err, <-viewDone)
		})
		return err
	}
	p.t.Cleanup(func() { _ = x.stop() })
	return x
}

// slowCarrier takes everything and answers after a while; it remembers how often it saw what.
type slowCarrier struct {
	mu    sync.Mutex
	seen  map[schemas.ID]int
	last  time.Time
	count atomic.Int64
	most  time.Duration // of an answer
}

func (c *slowCarrier) Caps() carrier.Caps { return carrier.Caps{MaxBatch: 100, EchoesKey: true} }

func (c *slowCarrier) Send(_ context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = time.Now()
	for i, o := range batch {
		r := carrier.Result{Outcome: carrier.Accepted, Ref: o.Key.String()}
		if !o.Deadline.IsZero() && !time.Now().Before(o.Deadline) {
			r = carrier.Result{Outcome: carrier.Retryable}
		} else {
			c.seen[o.Key]++
			c.count.Add(1)
		}
		if c.most == 0 {
			done(i, r)
			continue
		}
		time.AfterFunc(time.Duration(rand.Int64N(int64(c.most))), func() { done(i, r) })
	}
	return nil
}

func (c *slowCarrier) Drain(context.Context) error { return nil }
func (c *slowCarrier) Health() carrier.Health      { return carrier.Health{Ready: true} }

// doubles returns how many submissions came more than once.
func (c *slowCarrier) doubles() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, times := range c.seen {
		if times > 1 {
			n++
		}
	}
	return n
}

// ledgerOf follows `deliveries` and returns the states of the messages of a campaign as they become known.
type states struct {
	mu    sync.Mutex
	state map[uint32]schemas.Precedence
	kinds map[fanfarev1.Kind]int
}

func (p *plant) follow() *states {
	p.t.Helper()
	s := &states{state: map[uint32]schemas.Precedence{}, kinds: map[fanfarev1.Kind]int{}}
	tail, err := stream.NewTail(stream.TailConfig{Cluster: p.cluster.Named("follow"), Topics: []string{p.cluster.Names.Deliveries()}, Every: 50 * time.Millisecond}, func(batch []*kgo.Record) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, r := range batch {
			d := &fanfarev1.Delivery{}
			if err := proto.Unmarshal(r.Value, d); err != nil {
				p.t.Error(err)
			}
			if schemas.Header(r, schemas.HeaderSource) == nil {
				p.t.Error("an outcome without its source")
			}
			s.kinds[d.GetKind()]++
			s.state[d.GetSeq()] = schemas.Join(s.state[d.GetSeq()], schemas.PrecedenceOf(d.GetKind(), d.GetTry(), d.GetCode()))
		}
	})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tail.Run(ctx) }()
	p.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Error(err)
		}
	})
	return s
}

// counts returns how many messages are in each kind of state.
func (s *states) counts() map[fanfarev1.Kind]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[fanfarev1.Kind]int{}
	for _, p := range s.state {
		out[p.Kind()]++
	}
	return out
}

func (s *states) known() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.state)
}

func eventually(t testing.TB, within time.Duration, want string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A process that is cut off from the world and its successor: nothing is handed over twice, what is doubtful is said, and
// everybody has an outcome.
func TestCrashAndTakeover(t *testing.T) {
	t.Parallel() // it waits more than it works
	p := newPlant(t)
	p.carrier.most = 100 * time.Millisecond
	const n = 4_000
	p.campaign(1, fanfarev1.State_STATE_SENDING)
	s := p.follow()
	a := p.start("a", nil)
	p.send(0, n)
	eventually(t, 20*time.Second, "a quarter handed over", func() bool { return p.carrier.count.Load() > n/4 })
	a.wire.sever() // it lives on and may try
	p.start("b", nil)
	eventually(t, 30*time.Second, "an outcome for everybody", func() bool { return s.known() == n })
	counts := s.counts()
	t.Logf("%v", counts)
	if got := p.carrier.doubles(); got > 0 {
		t.Errorf("got %d handed over twice, want none", got)
	}
	window := windowSize(&fanfarev1.Route{Rate: 2_000, P99Ms: 100}, 1)
	if got := counts[doubtful]; got == 0 || got > window {
		t.Errorf("got %d doubtful after a crash, want 1 to %d", got, window)
	}
	if got := counts[sent] + counts[doubtful]; got != n {
		t.Errorf("got %v, want %d sent or doubtful", counts, n)
	}
	if got := int(p.carrier.count.Load()); got < counts[sent] || got > n {
		t.Errorf("the carrier saw %d, we say %d sent", got, counts[sent])
	}
}

// A rolling restart leaves nothing doubtful and gives nothing back; meanwhile Redis goes away and comes back.
func TestGracefulStopAndRedisAway(t *testing.T) {
	t.Parallel() // it waits more than it works
	p := newPlant(t)
	p.carrier.most = 100 * time.Millisecond
	const n = 4_000
	p.campaign(1, fanfarev1.State_STATE_SENDING)
	s := p.follow()
	a := p.start("a", nil)
	p.send(0, n)
	eventually(t, 20*time.Second, "a quarter handed over", func() bool { return p.carrier.count.Load() > n/4 })

	p.redis.SetError("LOADING Redis is loading the dataset in memory")
	time.Sleep(200 * time.Millisecond) // leases run out
	before := p.carrier.count.Load()
	time.Sleep(500 * time.Millisecond)
	if got := p.carrier.count.Load() - before; got != 0 {
		t.Errorf("Redis is away: got %d handed over, want none", got)
	}
	p.redis.SetError("")
	eventually(t, 5*time.Second, "handing over goes on", func() bool { return p.carrier.count.Load() > before })

	if err := a.stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	handed := p.carrier.count.Load()
	if handed == n {
		t.Fatal("everything was handed over before the stop: the test shows nothing")
	}
	p.start("b", nil)
	eventually(t, 20*time.Second, "an outcome for everybody", func() bool { return s.known() == n })
	counts := s.counts()
	if counts[sent] != n {
		t.Errorf("got %v, want all %d sent", counts, n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kinds) != 1 {
		t.Errorf("got outcomes %v, want nothing but sent", s.kinds)
	}
	if got := p.carrier.doubles(); got > 0 {
		t.Errorf("got %d handed over twice, want none", got)
	}
}

// Pause reaches the carrier within 250 ms of the moment it is durable, and everybody who waits is given back; a poison record
// does not block its partition; an opt-out is heeded.
func TestPausePoisonOptOut(t *testing.T) {
	p := newPlant(t)
	p.carrier.most = 50 * time.Millisecond
	const n = 3_000
	p.campaign(1, fanfarev1.State_STATE_SENDING)
	hash := p.keys.NumberHash("tn_a", "+393330000007")
	p.publish(schemas.Event{
		Topic: p.cluster.Names.Suppressions(), Key: schemas.SuppressionKey("tn_a", hash), Tenant: "tn_a", Type: schemas.TypeSuppression,
		Value: &fanfarev1.Suppression{Tenant: "tn_a", NumberHash: hash[:]},
	})
	s := p.follow()
	a := p.start("a", nil)
	bad := messageRecord(t, p.keys, testMessage(10001, n, 1))
	bad.Topic, bad.Value = p.cluster.Names.Messages("sim", schemas.LaneBulk), []byte{0xff}
	if err := p.cl.ProduceSync(t.Context(), bad).FirstErr(); err != nil {
		t.Fatal(err)
	}
	p.send(0, n)
	eventually(t, 20*time.Second, "a thousand handed over", func() bool { return p.carrier.count.Load() > 1_000 })
	paused := p.campaign(2, fanfarev1.State_STATE_PAUSED)
	eventually(t, 20*time.Second, "an outcome for everybody", func() bool { return s.known() == n+1 })
	p.carrier.mu.Lock()
	late := p.carrier.last.Sub(paused)
	p.carrier.mu.Unlock()
	t.Logf("last hand-over %s after the pause was durable", late)
	if late > 250*time.Millisecond {
		t.Errorf("got a hand-over %s after the pause, want at most 250 ms", late)
	}
	counts := s.counts()
	if counts[left] != 1 || counts[neverSent] != 1 || counts[gaveBack] == 0 || counts[sent]+counts[gaveBack] != n-1 {
		t.Errorf("got %v, want one skipped, one not sent, and the rest sent or given back", counts)
	}
	s.mu.Lock()
	if got := s.state[7]; got.Code() != fanfarev1.Code_CODE_OPTED_OUT {
		t.Errorf("who has opted out: got %s, want OPTED_OUT", got.Code())
	}
	if got := s.state[n]; got.Code() != fanfarev1.Code_CODE_RENDER_ERROR {
		t.Errorf("poison: got %s, want RENDER_ERROR", got.Code())
	}
	s.mu.Unlock()
	ends, err := p.adm.ListEndOffsets(t.Context(), p.cluster.Names.DeadLetters(p.cluster.Names.Messages("sim", schemas.LaneBulk)))
	if err != nil {
		t.Fatal(err)
	}
	dead := int64(0)
	ends.Each(func(o kadm.ListedOffset) { dead += o.Offset })
	if dead != 1 {
		t.Errorf("got %d dead letters, want 1", dead)
	}
	if err := a.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// session is a carrier that brings its receipts itself.
type session struct {
	slowCarrier
	drained atomic.Bool
	acked   atomic.Int64
}

func (c *session) Drain(context.Context) error { c.drained.Store(true); return nil }

func (c *session) Receipts(ctx context.Context, emit func([]carrier.Receipt) error) error {
	if c.acked.Load() == 0 {
		if err := emit([]carrier.Receipt{{Ref: "r1", Status: fanfarev1.ReceiptStatus_RECEIPT_STATUS_DELIVERED}, {Ref: "r2"}}); err == nil {
			c.acked.Store(2)
		}
	}
	<-ctx.Done()
	return nil
}

// Routes come, change and go while the process runs; a line that cannot be opened is tried again; receipts are durable before
// they are acknowledged.
func TestFleetFollowsRoutes(t *testing.T) {
	t.Parallel() // it waits more than it works
	p := newPlant(t)
	var mu sync.Mutex
	var opened []string
	first, second := &session{slowCarrier: slowCarrier{seen: map[schemas.ID]int{}}}, &session{slowCarrier: slowCarrier{seen: map[schemas.ID]int{}}}
	fails := 1
	a := p.start("a", func(_ context.Context, r *fanfarev1.Route) (Line, error) {
		mu.Lock()
		defer mu.Unlock()
		opened = append(opened, r.GetName()+"/"+r.GetConnector())
		switch {
		case r.GetName() == "other":
			return Line{}, ErrNotServed
		case fails > 0:
			fails--
			return Line{}, errors.New("bind refused")
		case r.GetConnector() == "smpp":
			return Line{Live: second}, nil
		}
		return Line{Live: first}, nil
	})
	served := func(c *session) func() bool {
		return func() bool {
			a.fleet.mu.Lock()
			defer a.fleet.mu.Unlock()
			x := a.fleet.running["sim"]
			return x != nil && x.core != nil && x.core.live == c
		}
	}
	eventually(t, 10*time.Second, "the route is served at the second attempt", served(first))
	eventually(t, 10*time.Second, "its receipts are taken", func() bool { return first.acked.Load() == 2 })
	ends, err := p.adm.ListEndOffsets(t.Context(), p.cluster.Names.Receipts())
	if err != nil {
		t.Fatal(err)
	}
	var durable int64
	ends.Each(func(o kadm.ListedOffset) { durable += o.Offset })
	if durable != 2 {
		t.Errorf("receipts acknowledged: got %d in Kafka, want 2", durable)
	}

	p.route(&fanfarev1.Route{Name: "other", Connector: "nobody", Rate: 1, Enabled: true})
	p.route(&fanfarev1.Route{Name: "sim", Connector: "smpp", Rate: 2_000, P99Ms: 100, Enabled: true})
	eventually(t, 10*time.Second, "the route is served by its new connector", served(second))
	if !first.drained.Load() {
		t.Error("the old connector: got not drained")
	}
	p.publishTombstone(p.cluster.Names.Control(), schemas.RouteKey("sim"))
	eventually(t, 10*time.Second, "a route that went is not served", second.drained.Load)
	time.Sleep(1500 * time.Millisecond)
	mu.Lock()
	others := 0
	for _, o := range opened {
		if o == "other/nobody" {
			others++
		}
	}
	mu.Unlock()
	if others != 1 {
		t.Errorf("a route that is not served here: got %d attempts, want 1", others)
	}
	for _, st := range a.fleet.Status() {
		if st.Route != "other" || !errors.Is(st.Err, ErrNotServed) {
			t.Errorf("got status %+v, want only the route that is not served", st)
		}
	}
	if err := a.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func (p *plant) publishTombstone(topic, key string) {
	p.t.Helper()
	if err := p.cl.ProduceSync(p.t.Context(), &kgo.Record{Topic: topic, Key: []byte(key)}).FirstErr(); err != nil {
		p.t.Fatal(err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	ok := Config{Cluster: stream.Cluster{Brokers: []string{"b:1"}, Logger: slog.New(slog.DiscardHandler)}, Keys: testKeys(t), Replication: 1}
	deps := Deps{View: newBoard(), Tokens: &tokens{}, Connect: func(context.Context, *fanfarev1.Route) (Line, error) { return Line{}, nil }}
	if _, err := New(ok, deps); err != nil {
		t.Errorf("complete: got %v", err)
	}
	for name, spoil := range map[string]func(*Config, *Deps){
		"brokers":     func(c *Config, _ *Deps) { c.Cluster.Brokers = nil },
		"keys":        func(c *Config, _ *Deps) { c.Keys = nil },
		"replication": func(c *Config, _ *Deps) { c.Replication = 2 },
		"view":        func(_ *Config, d *Deps) { d.View = nil },
		"tokens":      func(_ *Config, d *Deps) { d.Tokens = nil },
		"connect":     func(_ *Config, d *Deps) { d.Connect = nil },
	} {
		c, d := ok, deps
		spoil(&c, &d)
		if _, err := New(c, d); err == nil {
			t.Errorf("without %s: got no error", name)
		}
	}
}
