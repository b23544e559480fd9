package stream_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"runtime"
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

// broker is the Kafka of a test: kfake on disk, or a real one when FANFARE_TEST_KAFKA names it, under a prefix of its own.
type broker struct {
	stream.Cluster
	fake *kfake.Cluster // nil on a real one
	adm  *kadm.Client
	cl   *kgo.Client
	reg  *prometheus.Registry
}

func newBroker(t testing.TB, opts ...kfake.Opt) *broker {
	t.Helper()
	b := &broker{reg: prometheus.NewRegistry()}
	names, err := schemas.NewNames("t" + strings.ToLower(rand.Text()[:10]) + ".")
	if err != nil {
		t.Fatal(err)
	}
	var brokers []string
	if addr := os.Getenv("FANFARE_TEST_KAFKA"); addr != "" && len(opts) == 0 {
		brokers = strings.Split(addr, ",")
	} else {
		opts = append([]kfake.Opt{kfake.NumBrokers(1), kfake.DataDir(t.TempDir()), kfake.GroupMinSessionTimeout(100 * time.Millisecond)}, opts...)
		if b.fake, err = kfake.NewCluster(opts...); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.fake.Close)
		brokers = b.fake.ListenAddrs()
	}
	b.Cluster = stream.Cluster{Brokers: brokers, Names: names, Logger: testLogger(t), Registry: b.reg}
	if b.cl, err = b.Named("test").Client(kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.cl.Close)
	b.adm = kadm.NewClient(b.cl)
	return b
}

// fakeOnly skips a test that injects what only kfake can.
func fakeOnly(t testing.TB) {
	t.Helper()
	if os.Getenv("FANFARE_TEST_KAFKA") != "" {
		t.Skip("injects faults into kfake; a real broker is given")
	}
}

// testLogger writes to the test when -v is given, warnings and worse only.
func testLogger(t testing.TB) *slog.Logger {
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

// topic creates a topic and returns its name.
func (b *broker) topic(t testing.TB, name string, partitions int32) string {
	t.Helper()
	name = b.Names.Prefix() + name
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := stream.EnsureTopics(ctx, b.adm, 1, []schemas.Topic{{Name: name, Partitions: partitions, Retention: time.Hour}}); err != nil {
		t.Fatal(err)
	}
	return name
}

// produce writes n records to each partition, with the number of the record as value.
func (b *broker) produce(t testing.TB, topic string, partitions, n int) {
	t.Helper()
	var recs []*kgo.Record
	for p := range partitions {
		for i := range n {
			recs = append(recs, &kgo.Record{Topic: topic, Partition: int32(p), Value: fmt.Appendf(nil, "%d/%d", p, i)})
		}
	}
	b.write(t, recs...)
}

func (b *broker) write(t testing.TB, recs ...*kgo.Record) {
	t.Helper()
	if err := b.cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// read returns everything committed that is in a topic now.
func (b *broker) read(t testing.TB, topic string) []*kgo.Record {
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

// run runs f until the test ends or the returned stop is called, which returns its error.
func run(t testing.TB, f func(context.Context) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	var (
		once sync.Once
		err  error
	)
	stop = func() error {
		once.Do(func() {
			cancel()
			select {
			case err = <-done:
			case <-time.After(30 * time.Second):
				buf := make([]byte, 1<<20)
				err = fmt.Errorf("did not stop within 30 s:\n%s", buf[:runtime.Stack(buf, true)])
			}
		})
		return err
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return stop
}

// eventually waits until ok, and fails with what is wanted.
func eventually(t testing.TB, within time.Duration, want string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, want)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// metric returns the sum of a counter or gauge over all its labels.
func (b *broker) metric(t testing.TB, name string) (sum float64) {
	t.Helper()
	families, err := b.reg.Gather()
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
