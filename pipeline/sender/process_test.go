package sender

import (
	"cmp"
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
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/ratelimit"
	"fanfare/pipeline/stream"
	"fanfare/pipeline/view"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

// processEnv is Kafka (kfake, or a real one when its address is given), Redis (miniredis) and a carrier, for senders
// that run as in production.
type processEnv struct {
	t       testing.TB
	cluster stream.Cluster
	cl      *kgo.Client
	adm     *kadm.Client
	kafka   *kfake.Cluster // nil: a real one
	redis   *miniredis.Miniredis
	rdb     redis.Options
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	keys    *schemas.Keys
	carrier *slowCarrier
	version uint64
	session time.Duration // timeout of the groups' sessions; 0: 1.5 s, so that a takeover is quick
	mixed   []*kgo.Record // send writes one of these after each hundred of its own records
}

func newProcessEnv(t testing.TB) *processEnv {
	t.Helper()
	server := miniredis.RunT(t)
	p := &processEnv{t: t, redis: server, rdb: redis.Options{Addr: server.Addr()}, dial: (&net.Dialer{}).DialContext}
	if addr := os.Getenv("FANFARE_TEST_KAFKA"); addr != "" {
		p.cluster.Brokers = strings.Split(addr, ",")
	} else {
		p.fake(kfake.DataDir(t.TempDir()))
	}
	p.build()
	return p
}

// newVirtualProcessEnv is a processEnv for a bubble of its own time: nothing in it touches a socket or a disk.
func newVirtualProcessEnv(t testing.TB) *processEnv {
	t.Helper()
	server := miniredis.NewMiniRedis()
	t.Cleanup(server.Close)
	var network kfake.VirtualNetwork
	p := &processEnv{t: t, redis: server, dial: network.DialContext}
	p.rdb = redis.Options{Addr: "127.0.0.1:1", Dialer: func(context.Context, string, string) (net.Conn, error) { return server.Dial() }}
	p.fake(kfake.ListenFn(network.Listen))
	p.build()
	return p
}

func (p *processEnv) fake(opts ...kfake.Opt) {
	p.t.Helper()
	fake, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(100*time.Millisecond))...)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(fake.Close)
	p.kafka, p.cluster.Brokers = fake, fake.ListenAddrs()
}

func (p *processEnv) build() {
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

func (p *processEnv) publish(events ...schemas.Event) {
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

func (p *processEnv) route(r *fanfarev1.Route) {
	p.t.Helper()
	p.version++
	p.publish(schemas.Event{
		Topic: p.cluster.Names.Control(), Key: schemas.RouteKey(r.GetName()), Type: schemas.TypeControl,
		Value: &fanfarev1.Control{Version: p.version, Row: &fanfarev1.Control_Route{Route: r}},
	})
}

// campaign publishes campaign 10001; it returns the time at which Kafka had acknowledged it.
func (p *processEnv) campaign(version uint64, state schemas.State) time.Time {
	p.t.Helper()
	c := &fanfarev1.Campaign{Tenant: "tn_a", Id: "camp_10001", Number: 10001, Version: version, State: state}
	p.publish(schemas.Event{Topic: p.cluster.Names.Campaigns(), Key: schemas.CampaignKey("tn_a", c.GetId()), Tenant: "tn_a", Type: schemas.TypeCampaign, Value: c})
	return time.Now()
}

// send writes messages seq from..to of the campaign to the bulk lane.
func (p *processEnv) send(from, to int) {
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

// cutNetwork is the network of one process: once it is cut, it carries no bytes in either direction.
type cutNetwork struct {
	under func(ctx context.Context, network, addr string) (net.Conn, error)
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func (w *cutNetwork) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	cut := w.cut
	w.mu.Unlock()
	if cut {
		return nil, errors.New("the network is cut")
	}
	c, err := w.under(ctx, network, addr)
	if err == nil {
		w.mu.Lock()
		w.conns = append(w.conns, c)
		w.mu.Unlock()
	}
	return c, err
}

func (w *cutNetwork) cutOff() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for _, c := range w.conns {
		_ = c.Close()
	}
}

// process is one process that sends.
type process struct {
	supervisor *RouteSupervisor
	view       *view.View
	net        *cutNetwork
	reg        *prometheus.Registry
	stop       func() error
}

// sum returns the sum of a counter or gauge over all its labels.
func sum(t testing.TB, reg *prometheus.Registry, name string) (total float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return total
}

// start runs the senders of a process. connect may be nil: every route goes to the carrier of the processEnv.
func (p *processEnv) start(name string, connect func(context.Context, *fanfarev1.Route) (Line, error)) *process {
	p.t.Helper()
	x := &process{net: &cutNetwork{under: p.dial}, reg: prometheus.NewRegistry()}
	cluster := p.cluster
	cluster.Options, cluster.Registry = []kgo.Opt{kgo.Dialer(x.net.dial)}, x.reg
	var err error
	if x.view, err = view.New(view.Config{Cluster: cluster, Keys: p.keys, Suppressions: true}); err != nil {
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
	x.supervisor, err = New(Config{
		Cluster: cluster, Keys: p.keys, Replication: 1, SessionTimeout: cmp.Or(p.session, 1500*time.Millisecond), GuardMargin: 500 * time.Millisecond, DrainTimeout: 3 * time.Second,
	}, Deps{View: x.view, Tokens: limiter, Connect: connect})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	viewCtx, cancelView := context.WithCancel(context.Background())
	done, viewDone := make(chan error, 1), make(chan error, 1)
	go func() { viewDone <- x.view.Run(viewCtx) }()
	go func() { done <- x.supervisor.Run(ctx) }()
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

// slowCarrier takes everything and answers after a while; it counts how often it saw each submission.
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
			r = carrier.Result{Outcome: carrier.Retryable, Code: carrier.CodeDeadline}
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

// states are the states of a campaign's messages by the events in `deliveries`.
type states struct {
	mu    sync.Mutex
	state map[uint32]schemas.Precedence
	kinds map[schemas.Kind]int
}

func (p *processEnv) follow() *states {
	p.t.Helper()
	s := &states{state: map[uint32]schemas.Precedence{}, kinds: map[schemas.Kind]int{}}
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
func (s *states) counts() map[schemas.Kind]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[schemas.Kind]int{}
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

func (p *processEnv) publishTombstone(topic, key string) {
	p.t.Helper()
	if err := p.cl.ProduceSync(p.t.Context(), &kgo.Record{Topic: topic, Key: []byte(key)}).FirstErr(); err != nil {
		p.t.Fatal(err)
	}
}
