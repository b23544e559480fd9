package scheduler

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// plant is a Kafka with topics of its own, the control plane in memory, and a loop that stands for expander, sender and carrier.
type plant struct {
	t       testing.TB
	cluster stream.Cluster
	fake    *kfake.Cluster // nil on any other broker
	keys    *schemas.Keys
	plane   *plane
	carrier *carrier
	hook    atomic.Pointer[error]
}

const plantRate = 2000

func newPlant(t *testing.T) *plant {
	t.Helper()
	t.Parallel() // they mostly wait
	return newPlantTB(t)
}

func newPlantTB(t testing.TB) *plant {
	t.Helper()
	if addr := os.Getenv("FANFARE_TEST_KAFKA"); addr != "" {
		return newPlantOn(t, strings.Split(addr, ","), nil)
	}
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	return newPlantOn(t, fake.ListenAddrs(), fake)
}

// newPlantOn makes a plant on a broker.
func newPlantOn(t testing.TB, brokers []string, fake *kfake.Cluster) *plant {
	t.Helper()
	names, err := schemas.NewNames("t" + strings.ToLower(rand.Text()[:10]) + ".")
	if err != nil {
		t.Fatal(err)
	}
	p := &plant{t: t, cluster: stream.Cluster{Names: names, Logger: slog.New(slog.NewTextHandler(testWriter{}, &slog.HandlerOptions{Level: slog.LevelInfo}))}}
	p.cluster.Brokers, p.fake = brokers, fake
	if p.keys, err = schemas.NewKeys([]byte("0123456789abcdef")); err != nil {
		t.Fatal(err)
	}
	cl := p.client()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := stream.EnsureTopics(ctx, kadm.NewClient(cl), 1, append(names.Fixed(), names.Route("sim")...)); err != nil {
		t.Fatal(err)
	}
	p.plane = newPlane()
	p.carrier = newCarrier(p)
	return p
}

type testWriter struct{}

func (w testWriter) Write(b []byte) (int, error) {
	if os.Getenv("FANFARE_TEST_LOG") != "" {
		fmt.Print(string(b))
	}
	return len(b), nil
}

func (p *plant) client(opts ...kgo.Opt) *kgo.Client {
	p.t.Helper()
	cl, err := p.cluster.Named("test").Client(append([]kgo.Opt{kgo.ProducerLinger(0)}, opts...)...)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(cl.Close)
	return cl
}

// process is a running scheduler whose network can be cut.
type process struct {
	*Scheduler
	stop func() error
	cut  *cutter
}

// cutter is a network that can be cut and mended.
type cutter struct {
	mu    sync.Mutex
	down  bool
	conns map[net.Conn]bool
}

func (c *cutter) dial(ctx context.Context, network, host string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return nil, errors.New("the network is cut")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, host)
	if err == nil {
		c.conns[conn] = true
	}
	return conn, err
}

func (c *cutter) set(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
	if down {
		for conn := range c.conns {
			_ = conn.Close()
		}
		clear(c.conns)
	}
}

// scheduler makes a scheduler whose network can be cut.
func (p *plant) scheduler(change ...func(*Config)) (*Scheduler, *cutter) {
	p.t.Helper()
	cut := &cutter{conns: map[net.Conn]bool{}}
	cluster := p.cluster
	cluster.Options = []kgo.Opt{kgo.Dialer(cut.dial)}
	cfg := Config{
		Cluster: cluster, Keys: p.keys, View: p.plane, Audience: p.plane, Store: p.plane, SessionTimeout: 10 * time.Second, SetsEvery: 300 * time.Millisecond,
		MayDeal: func() error {
			if err := p.hook.Load(); err != nil {
				return *err
			}
			return nil
		},
	}
	for _, c := range change {
		c(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	return s, cut
}

// hasty is a session that ends soon, where a test waits for that; as soon as the broker allows.
func (p *plant) hasty(c *Config) {
	c.SessionTimeout = 6 * time.Second
	if p.fake != nil {
		c.SessionTimeout = time.Second
	}
}

// run starts a scheduler.
func (p *plant) run(change ...func(*Config)) *process {
	p.t.Helper()
	s, cut := p.scheduler(change...)
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return s.Run(ctx) })
	stopped := false
	pr := &process{Scheduler: s, cut: cut}
	pr.stop = func() error {
		cancel()
		stopped = true
		return g.Wait()
	}
	p.t.Cleanup(func() {
		if !stopped {
			cut.set(true)
			cancel()
		}
	})
	return pr
}

// patience is how long anything may take on a machine that has much else to do.
const patience = 90 * time.Second

// eventually waits for a condition.
func (p *plant) eventually(what string, ok func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			p.t.Fatalf("after %s: not %s; %s", patience, what, p.carrier)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// still waits until nothing is dealt any more for a while, and returns how many were.
func (p *plant) still() int {
	p.t.Helper()
	n, since := p.carrier.submissions(), time.Now()
	p.eventually("still", func() bool {
		if now := p.carrier.submissions(); now != n {
			n, since = now, time.Now()
		}
		return time.Since(since) > 500*time.Millisecond
	})
	return n
}

func (p *plant) settled(number uint64) func() bool {
	return func() bool { return p.plane.campaign(number).GetSettled() }
}

// value reads a counter or a gauge.
func value(t testing.TB, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}

// check holds what must hold after every test: no (seq, try) was dealt twice, and everyone has the state that the log of
// deliveries gives, with nobody pending.
func (p *plant) check(number uint64, want map[schemas.Bucket]int) {
	p.t.Helper()
	p.carrier.mu.Lock()
	for _, f := range p.carrier.faults {
		p.t.Error(f)
	}
	p.carrier.mu.Unlock()
	state := map[uint32]schemas.Precedence{}
	proof := map[submission]bool{}
	p.readAll(p.cluster.Names.Deliveries(), func(r *kgo.Record) {
		var d fanfarev1.Delivery
		if err := proto.Unmarshal(r.Value, &d); err != nil {
			p.t.Error(err)
		}
		if d.GetCampaignNumber() == number {
			state[d.GetSeq()] = schemas.Join(state[d.GetSeq()], schemas.PrecedenceOf(d.GetKind(), d.GetTry(), d.GetCode()))
			if d.GetKind() == returnedKind || d.GetKind() == bouncedKind {
				proof[submission{number, d.GetSeq(), uint8(d.GetTry()), 0}] = true
			}
		}
	})
	p.carrier.mu.Lock()
	for s := range p.carrier.taken {
		if s.campaign == number && s.try > 1 && !proof[submission{number, s.seq, s.try - 1, 0}] {
			p.t.Errorf("seq %d was dealt at try %d without proof that the one before did not arrive", s.seq, s.try)
		}
	}
	p.carrier.mu.Unlock()
	got := map[schemas.Bucket]int{}
	for _, s := range state {
		got[s.Bucket()]++
	}
	if total := int(p.plane.campaign(number).GetTotal()); len(state) != total {
		p.t.Errorf("%d of %d recipients have a state", len(state), total)
	}
	for bucket, n := range want {
		if n >= 0 && got[bucket] != n {
			p.t.Errorf("%s: %d, want %d (all: %v)", bucket, got[bucket], n, got)
		}
		delete(got, bucket)
	}
	for bucket, n := range got {
		p.t.Errorf("%d recipients are %s, want none", n, bucket)
	}
}

// readAll reads a topic to its end.
func (p *plant) readAll(topic string, apply func(*kgo.Record)) {
	p.t.Helper()
	s := &Scheduler{cfg: Config{Cluster: p.cluster}}
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	if err := s.readToEnd(ctx, "test.read", []string{topic}, nil, apply); err != nil {
		p.t.Fatal(err)
	}
}
