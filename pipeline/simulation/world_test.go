package simulation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/sender"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics/sqlite"
	"fanfare/sinks/carrier/sim"
)

const (
	tenant = "tn_a"
	route  = "sim"
	// firstRoute carries the first leg of campaigns with a chain of channels.
	firstRoute = "rcs"
)

// world is everything that one run has: the services that the processes use, and the truth about what happened.
type world struct {
	t         testing.TB
	plan      plan
	plant     plant
	began     time.Time
	keys      *schemas.Keys
	network   kfake.VirtualNetwork
	broker    *kfake.Cluster
	cluster   stream.Cluster
	client    *kgo.Client
	log       *slog.Logger
	redis     *miniredis.Miniredis
	carrier   *sim.Carrier
	truthPath string
	analytics store
	plane     *plane
	observed  *observed

	mu         sync.Mutex
	trace      []string
	violations []string
	processes  []*process // running processes
	ended      []*process
	redisDown  bool
	redisConns []net.Conn
	down       carrierFault
	pauses     [][2]time.Time // freezes of whole processes
	flushes    []time.Time    // when Redis lost its data
	jumped     bool           // some clock was wrong for a while
	rate       int            // the greatest limit that the route has had
	acked      []bool         // of each single send: Kafka has acknowledged it
	closers    []func()
	tasks      []task // only for the goroutine that runs the plan
	more       int    // how many processes were added
}

// plant is a bug that a test plants on purpose. Each function replaces or wraps a part of the sender or of the feed.
type plant struct {
	line       func(handedOver) handedOver
	view       func(sender.View) sender.View
	tokens     func(sender.Tokens) sender.Tokens
	statistics func(store) store
}

// carrierFault is how the carrier misbehaves for a while.
type carrierFault uint8

const (
	refusing   carrierFault = iota + 1 // 5xx: certainly not accepted
	throttling                         // 429
	resetting                          // accepted, but the connection breaks before the answer
)

// TestMain silences the Redis client, which logs every refused connection. A run makes much garbage and keeps little, so
// the garbage collector may come less often.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	redis.SetLogger(silent{})
	os.Exit(m.Run())
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

func newWorld(t testing.TB, pl plan, pt plant) *world {
	t.Helper()
	w := &world{t: t, plan: pl, plant: pt, rate: pl.rate, began: time.Now(), log: slog.New(slog.DiscardHandler)}
	if os.Getenv("FANFARE_TEST_LOG") != "" {
		w.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	w.keys, err = schemas.NewKeys([]byte("keys of the simulation"))
	must(err)
	w.broker, err = kfake.NewCluster(kfake.ListenFn(w.network.Listen), kfake.Ports([]int{9092, 9093, 9094}[:pl.brokers]...), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	must(err)
	w.broker.ControlKey(int16(kmsg.OffsetForLeaderEpoch), w.endOfEpoch)
	w.onClose(w.broker.Close)
	names, err := schemas.NewNames("s.")
	must(err)
	w.cluster = stream.Cluster{Brokers: w.broker.ListenAddrs(), Names: names, Logger: w.log}
	quiet := w.cluster
	quiet.Options = []kgo.Opt{kgo.Dialer(w.network.DialContext)}
	w.client, err = quiet.Named("world").Client(kgo.ProducerLinger(0))
	must(err)
	w.onClose(w.client.Close)
	topics := slices.Concat(names.Fixed(), names.Route(route))
	if pl.chains() {
		topics = append(topics, names.Route(firstRoute)...)
	}
	for i := range topics {
		if topics[i].Name == names.Chunks() {
			topics[i].Partitions = 4
		}
	}
	must(stream.EnsureTopics(context.Background(), kadm.NewClient(w.client), 1, topics))

	w.redis = miniredis.NewMiniRedis()
	w.onClose(w.redis.Close)
	dir := t.TempDir()
	w.truthPath = filepath.Join(dir, "truth.ndjson")
	w.carrier, err = sim.Open(sim.Config{Keys: w.keys, Profile: pl.profile, Seed: pl.seed, Truth: w.truthPath})
	must(err)
	w.background(w.carrier.Run)
	w.onClose(func() { _ = w.carrier.Close() })
	w.analytics, err = sqlite.Open(context.Background(), sqlite.Config{Path: filepath.Join(dir, "analytics.db")})
	must(err)
	w.onClose(func() { _ = w.analytics.Close() })
	w.plane = newPlane(w.keys)
	w.plane.control(schemas.TenantKey(tenant), tenant, func(c *fanfarev1.Control) {
		c.Row = &fanfarev1.Control_Tenant{Tenant: &fanfarev1.Tenant{Id: tenant, Enabled: true}}
	})
	w.plane.control(schemas.RouteKey(route), "", func(c *fanfarev1.Control) {
		c.Row = &fanfarev1.Control_Route{Route: &fanfarev1.Route{Name: route, Connector: "sim", Rate: uint32(pl.rate), P99Ms: 300, Enabled: true}}
	})
	if pl.chains() {
		w.plane.control(schemas.RouteKey(firstRoute), "", func(c *fanfarev1.Control) {
			c.Row = &fanfarev1.Control_Route{Route: &fanfarev1.Route{Name: firstRoute, Connector: "sim", Rate: uint32(pl.rate), P99Ms: 300, Enabled: true}}
		})
	}
	w.observed = newObserved()
	w.background(func(ctx context.Context) error { return w.observe(ctx, quiet.Named("observer")) })
	w.background(func(ctx context.Context) error { // miniredis does not expire keys by itself
		for stream.Sleep(ctx, time.Second) {
			w.redis.FastForward(time.Second)
		}
		return nil
	})
	return w
}

// endOfEpoch answers that the log of an epoch ends at the greatest offset, because no record is ever lost. After a move
// of a leader, kfake itself answers that the log of the old epoch has no end, which clients take for lost records.
func (w *world) endOfEpoch(kreq kmsg.Request) (kmsg.Response, error, bool) {
	w.broker.KeepControl()
	req, ok := kreq.(*kmsg.OffsetForLeaderEpochRequest)
	if !ok {
		return nil, nil, false
	}
	resp, _ := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
	for _, t := range req.Topics {
		st := kmsg.NewOffsetForLeaderEpochResponseTopic()
		st.Topic = t.Topic
		for _, p := range t.Partitions {
			sp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			sp.Partition, sp.LeaderEpoch, sp.EndOffset = p.Partition, p.LeaderEpoch, math.MaxInt64
			st.Partitions = append(st.Partitions, sp)
		}
		resp.Topics = append(resp.Topics, st)
	}
	return resp, nil, true
}

// background runs f until the world ends.
func (w *world) background(f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); err != nil && ctx.Err() == nil {
			w.violate("simulation", "%v", err)
		}
	}()
	w.onClose(func() { cancel(); <-done })
}

func (w *world) onClose(f func()) { w.closers = append(w.closers, f) }

// close ends everything, the newest part first.
func (w *world) close() {
	for _, p := range append(w.processes, w.ended...) {
		p.kill()
	}
	for _, p := range append(w.processes, w.ended...) {
		select {
		case <-p.done:
		case <-time.After(time.Hour):
			w.t.Fatalf("%s does not end an hour after it was killed; still running: %v", p.name, p.stillRuns())
		}
	}
	for _, f := range slices.Backward(w.closers) {
		f()
	}
}

// since returns the fake time since the run began, as text.
func (w *world) since(at time.Time) string { return fmt.Sprintf("%9.3fs", at.Sub(w.began).Seconds()) }

// tracef adds a line to the trace.
func (w *world) tracef(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(w.trace, w.since(time.Now())+" "+fmt.Sprintf(format, args...))
}

// violate notes that a promise was broken.
func (w *world) violate(promise, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := promise + ": " + fmt.Sprintf(format, args...)
	w.trace = append(w.trace, w.since(time.Now())+" VIOLATED "+text)
	w.violations = append(w.violations, text)
}

// notePause notes that a process was frozen.
func (w *world) notePause(from, to time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pauses = append(w.pauses, [2]time.Time{from, to})
}

// stoodStill reports whether a process was frozen at a time, or up to a second before.
func (w *world) stoodStill(at time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.pauses {
		if !at.Before(p[0]) && at.Before(p[1].Add(time.Second)) {
			return true
		}
	}
	return false
}

// noteJump notes that the clock of some process is wrong.
func (w *world) noteJump() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.jumped = true
}

// setRate notes a change of the route's limit. checkRate uses the greatest limit.
func (w *world) setRate(rate int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rate = max(w.rate, rate)
}

func (w *world) noteFlush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flushes = append(w.flushes, time.Now())
}

func (w *world) setCarrierDown(f carrierFault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = f
}

func (w *world) carrierDown() carrierFault {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.down
}

var errRedis = errors.New("simulation: Redis is away")

func (w *world) dialRedis() (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.redisDown {
		return nil, errRedis
	}
	c, err := w.redis.Dial()
	if err != nil {
		return nil, err
	}
	c = buffered(c)
	w.redisConns = append(w.redisConns, c)
	return c, nil
}

// bufferedConn is a pipe that buffers what is written, as a socket does. Without the buffer, a client that writes many
// commands before it reads an answer would block for ever.
type bufferedConn struct {
	net.Conn
	queue chan []byte
	done  chan struct{}
	close func() error
}

func buffered(under net.Conn) net.Conn {
	c := &bufferedConn{Conn: under, queue: make(chan []byte, 1024), done: make(chan struct{})}
	c.close = sync.OnceValue(func() error {
		close(c.done)
		return under.Close()
	})
	go func() {
		for {
			select {
			case <-c.done:
				return
			case b := <-c.queue:
				if _, err := under.Write(b); err != nil {
					_ = c.close()
					return
				}
			}
		}
	}()
	return c
}

func (c *bufferedConn) Write(b []byte) (int, error) {
	select {
	case <-c.done:
		return 0, net.ErrClosed
	case c.queue <- bytes.Clone(b):
		return len(b), nil
	}
}

func (c *bufferedConn) Close() error { return c.close() }

func (c *bufferedConn) SetDeadline(at time.Time) error { return c.SetReadDeadline(at) }

func (c *bufferedConn) SetWriteDeadline(time.Time) error { return nil }

// setRedisDown stops Redis, or starts it again.
func (w *world) setRedisDown(down bool) {
	w.mu.Lock()
	w.redisDown = down
	var conns []net.Conn
	if down {
		conns, w.redisConns = w.redisConns, nil
	}
	w.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

// observed is what the topics contain.
type observed struct {
	mu         sync.Mutex
	deliveries []*fanfarev1.Delivery
	dead       []string // dead letters
}

func newObserved() *observed { return &observed{} }

// observe follows the topics and notes when it first sees a record.
func (w *world) observe(ctx context.Context, cluster stream.Cluster) error {
	names := cluster.Names
	topics := []string{names.Campaigns(), names.Suppressions(), names.Deliveries()}
	all := slices.Concat(names.Fixed(), names.Route(route))
	if w.plan.chains() {
		all = append(all, names.Route(firstRoute)...)
	}
	for _, t := range all {
		if strings.HasSuffix(t.Name, ".dlq") {
			topics = append(topics, t.Name)
		}
	}
	tail, err := stream.NewTail(stream.TailConfig{Cluster: cluster, Topics: topics, Every: time.Second}, func(batch []*kgo.Record) {
		for _, r := range batch {
			w.observed.take(w, r)
		}
	})
	if err != nil {
		return err
	}
	return tail.Run(ctx)
}

func (o *observed) take(w *world, r *kgo.Record) {
	names := w.cluster.Names
	switch r.Topic {
	case names.Campaigns():
		c := &fanfarev1.Campaign{}
		if err := proto.Unmarshal(r.Value, c); err != nil {
			w.violate("simulation", "campaign: %v", err)
			return
		}
		w.plane.sawCampaign(c, time.Now())
		w.tracef("published: %s version %d %s", c.GetId(), c.GetVersion(), schemas.StateName(c.GetState()))
	case names.Suppressions():
		w.plane.sawOptOut(string(r.Key), time.Now())
	case names.Deliveries():
		d := &fanfarev1.Delivery{}
		if err := proto.Unmarshal(r.Value, d); err != nil {
			w.violate("simulation", "delivery: %v", err)
			return
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.deliveries = append(o.deliveries, d)
	default:
		o.mu.Lock()
		defer o.mu.Unlock()
		o.dead = append(o.dead, fmt.Sprintf("%s: %s", r.Topic, schemas.Header(r, schemas.HeaderCause)))
	}
}

func (o *observed) all() []*fanfarev1.Delivery {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clip(o.deliveries)
}
