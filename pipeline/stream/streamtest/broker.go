// Package streamtest gives tests a Kafka: an in-process broker, or a real one when FANFARE_TEST_KAFKA names it. Each
// test works under a topic prefix of its own, so that tests may share one real cluster.
package streamtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

// Broker is the Kafka of one test.
type Broker struct {
	stream.Cluster
	// Fake is the in-process broker, nil on a real one.
	Fake *kfake.Cluster
	// Admin and Client write topics and records for the test. Client sends a record to the partition that the record
	// names.
	Admin  *kadm.Client
	Client *kgo.Client
	// Metrics is the registry of the cluster.
	Metrics *prometheus.Registry
	// Dial connects to the broker.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// New starts a broker that the test's end stops. With opts it is always the in-process one.
func New(t testing.TB, opts ...kfake.Opt) *Broker {
	t.Helper()
	b := &Broker{Metrics: prometheus.NewRegistry(), Dial: new(net.Dialer).DialContext}
	if addr := os.Getenv("FANFARE_TEST_KAFKA"); addr != "" && len(opts) == 0 {
		b.Brokers = strings.Split(addr, ",")
	} else {
		b.start(t, append([]kfake.Opt{kfake.DataDir(t.TempDir())}, opts...)...)
	}
	b.connect(t)
	return b
}

// NewVirtual is New for a synctest bubble: an in-process broker without sockets and disk.
func NewVirtual(t testing.TB) *Broker {
	t.Helper()
	var network kfake.VirtualNetwork
	b := &Broker{Metrics: prometheus.NewRegistry(), Dial: network.DialContext}
	b.start(t, kfake.ListenFn(network.Listen))
	b.connect(t)
	return b
}

// start starts the in-process broker.
func (b *Broker) start(t testing.TB, opts ...kfake.Opt) {
	t.Helper()
	var err error
	if b.Fake, err = kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(100 * time.Millisecond)}, opts...)...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Fake.Close)
	b.Brokers = b.Fake.ListenAddrs()
}

// connect connects the clients of the test.
func (b *Broker) connect(t testing.TB) {
	t.Helper()
	names, err := schemas.NewNames("t" + strings.ToLower(rand.Text()[:10]) + ".")
	if err != nil {
		t.Fatal(err)
	}
	b.Cluster = stream.Cluster{Brokers: b.Brokers, Names: names, Logger: Logger(t), Registry: b.Metrics, Options: []kgo.Opt{kgo.Dialer(b.Dial)}}
	if b.Client, err = b.Named("test").Client(kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Client.Close)
	b.Admin = kadm.NewClient(b.Client)
}

// FakeOnly skips a test that injects faults, which only the in-process broker can.
func FakeOnly(t testing.TB) {
	t.Helper()
	if os.Getenv("FANFARE_TEST_KAFKA") != "" {
		t.Skip("injects faults into kfake; a real broker is given")
	}
}

// Logger writes warnings and errors to the test when -v is given, and everything from Info up when FANFARE_TEST_LOG is
// set too.
func Logger(t testing.TB) *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	w := &testWriter{t: t}
	t.Cleanup(w.stop)
	level := slog.LevelWarn
	if os.Getenv("FANFARE_TEST_LOG") != "" {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

type testWriter struct {
	mu   sync.Mutex
	t    testing.TB
	done bool
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.done {
		w.t.Log(strings.TrimSuffix(string(p), "\n"))
	}
	return len(p), nil
}

func (w *testWriter) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = true
}

// Ensure creates topics.
func (b *Broker) Ensure(t testing.TB, topics ...schemas.Topic) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := stream.EnsureTopics(ctx, b.Admin, 1, topics); err != nil {
		t.Fatal(err)
	}
}

// Topic creates a topic and returns its name, which is name after the test's prefix.
func (b *Broker) Topic(t testing.TB, name string, partitions int32) string {
	t.Helper()
	name = b.Names.Prefix() + name
	b.Ensure(t, schemas.Topic{Name: name, Partitions: partitions, Retention: time.Hour})
	return name
}

// Produce writes n records to each partition; their values are `<partition>/<number>`.
func (b *Broker) Produce(t testing.TB, topic string, partitions, n int) {
	t.Helper()
	var recs []*kgo.Record
	for p := range partitions {
		for i := range n {
			recs = append(recs, &kgo.Record{Topic: topic, Partition: int32(p), Value: fmt.Appendf(nil, "%d/%d", p, i)})
		}
	}
	b.Write(t, recs...)
}

// Write produces records and returns when Kafka has acknowledged them.
func (b *Broker) Write(t testing.TB, recs ...*kgo.Record) {
	t.Helper()
	if err := b.Client.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// Read returns all committed records that a topic holds now.
func (b *Broker) Read(t testing.TB, topic string) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var (
		mu  sync.Mutex
		out []*kgo.Record
	)
	tail, err := stream.NewTail(stream.TailConfig{Cluster: b.Named("reader"), Topics: []string{topic}, Every: 20 * time.Millisecond}, func(batch []*kgo.Record) {
		mu.Lock()
		defer mu.Unlock()
		out = append(out, batch...)
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- tail.Run(ctx) }()
	select {
	case <-tail.Ready():
	case <-ctx.Done():
		t.Fatalf("read %s: %v", topic, ctx.Err())
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return out
}

// Metric returns the sum of a counter or gauge over all its labels.
func (b *Broker) Metric(t testing.TB, name string) (sum float64) {
	t.Helper()
	families, err := b.Metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
