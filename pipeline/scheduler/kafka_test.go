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

// kafkaEnv is a Kafka with topics of its own, the control plane in memory, and a loop that stands for expander, sender
// and carrier.
type kafkaEnv struct {
	t       testing.TB
	cluster stream.Cluster
	fake    *kfake.Cluster // nil on any other broker
	keys    *schemas.Keys
	control *fakeControlPlane
	sender  *fakeSender
	hook    atomic.Pointer[error]
}

const carrierRate = 2000

func newKafkaEnv(t *testing.T) *kafkaEnv {
	t.Helper()
	t.Parallel() // they mostly wait
	return newKafkaEnvTB(t)
}

func newKafkaEnvTB(t testing.TB) *kafkaEnv {
	t.Helper()
	if addr := os.Getenv("FANFARE_TEST_KAFKA"); addr != "" {
		return newKafkaEnvOn(t, strings.Split(addr, ","), nil)
	}
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	return newKafkaEnvOn(t, fake.ListenAddrs(), fake)
}

// newKafkaEnvOn makes a kafkaEnv on a broker.
func newKafkaEnvOn(t testing.TB, brokers []string, fake *kfake.Cluster) *kafkaEnv {
	t.Helper()
	names, err := schemas.NewNames("t" + strings.ToLower(rand.Text()[:10]) + ".")
	if err != nil {
		t.Fatal(err)
	}
	p := &kafkaEnv{t: t, cluster: stream.Cluster{Names: names, Logger: slog.New(slog.NewTextHandler(testWriter{}, &slog.HandlerOptions{Level: slog.LevelInfo}))}}
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
	p.control = newFakeControlPlane()
	p.sender = newFakeSender(p)
	return p
}

type testWriter struct{}

func (w testWriter) Write(b []byte) (int, error) {
	if os.Getenv("FANFARE_TEST_LOG") != "" {
		fmt.Print(string(b))
	}
	return len(b), nil
}

func (p *kafkaEnv) client(opts ...kgo.Opt) *kgo.Client {
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
func (p *kafkaEnv) scheduler(change ...func(*Config)) (*Scheduler, *cutter) {
	p.t.Helper()
	cut := &cutter{conns: map[net.Conn]bool{}}
	cluster := p.cluster
	cluster.Options = []kgo.Opt{kgo.Dialer(cut.dial)}
	cfg := Config{
		Cluster: cluster, Keys: p.keys, View: p.control, Audience: p.control, Store: p.control, Domains: p.control, SessionTimeout: 10 * time.Second, SetsEvery: 300 * time.Millisecond,
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

// hasty sets the shortest session timeout that the broker allows, for tests that wait for the end of a session.
func (p *kafkaEnv) hasty(c *Config) {
	c.SessionTimeout = 6 * time.Second
	if p.fake != nil {
		c.SessionTimeout = time.Second
	}
}

// run starts a scheduler.
func (p *kafkaEnv) run(change ...func(*Config)) *process {
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

// patience is how long any wait may take on a busy machine.
const patience = 90 * time.Second

// eventually waits for a condition.
func (p *kafkaEnv) eventually(what string, ok func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			p.t.Fatalf("after %s: not %s; %s", patience, what, p.sender)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// still waits until the scheduler has dealt nothing for a while, and returns how many recipients it has dealt.
func (p *kafkaEnv) still() int {
	p.t.Helper()
	n, since := p.sender.submissions(), time.Now()
	p.eventually("still", func() bool {
		if now := p.sender.submissions(); now != n {
			n, since = now, time.Now()
		}
		return time.Since(since) > 500*time.Millisecond
	})
	return n
}

func (p *kafkaEnv) settled(number uint64) func() bool {
	return func() bool { return p.control.campaign(number).GetSettled() }
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

// check checks what must be true after every test: no (seq, try) was dealt twice, no recipient is pending, and each has
// the state that topic `deliveries` gives.
func (p *kafkaEnv) check(number uint64, want map[schemas.Bucket]int) {
	p.t.Helper()
	p.sender.mu.Lock()
	for _, f := range p.sender.faults {
		p.t.Error(f)
	}
	p.sender.mu.Unlock()
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
	p.sender.mu.Lock()
	for s := range p.sender.taken {
		if s.campaign == number && s.try > 1 && !proof[submission{number, s.seq, s.try - 1, 0}] {
			p.t.Errorf("seq %d was dealt at try %d without proof that the one before did not arrive", s.seq, s.try)
		}
	}
	p.sender.mu.Unlock()
	got := map[schemas.Bucket]int{}
	for _, s := range state {
		got[s.Bucket()]++
	}
	if total := int(p.control.campaign(number).GetTotal()); len(state) != total {
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
func (p *kafkaEnv) readAll(topic string, apply func(*kgo.Record)) {
	p.t.Helper()
	s := &Scheduler{cfg: Config{Cluster: p.cluster}}
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	if err := s.readToEnd(ctx, "test.read", []string{topic}, nil, apply); err != nil {
		p.t.Fatal(err)
	}
}
