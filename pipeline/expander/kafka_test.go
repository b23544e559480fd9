package expander

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/deploy/embedded"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// kafka starts a broker with the topics of the routes, or creates the topics on the broker that FANFARE_TEST_KAFKA
// names.
func kafka(t testing.TB, routes ...string) stream.Cluster {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	names, err := schemas.NewNames("t" + strings.ToLower(rand.Text()[:10]) + ".")
	if err != nil {
		t.Fatal(err)
	}
	cluster := stream.Cluster{Names: names, Logger: log}
	if addr := os.Getenv("FANFARE_TEST_KAFKA"); addr != "" {
		cluster.Brokers = strings.Split(addr, ",")
	} else {
		s, err := embedded.Start(embedded.Config{Dir: t.TempDir(), Logger: log, Kafka: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		cluster.Brokers = []string{s.Kafka}
	}
	topics := names.Fixed()
	for _, r := range routes {
		topics = append(topics, names.Route(r)...)
	}
	cl := client(t, cluster)
	if err := stream.EnsureTopics(t.Context(), kadm.NewClient(cl), 1, topics); err != nil {
		t.Fatal(err)
	}
	return cluster
}

func client(t testing.TB, c stream.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := c.Client(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// run runs expanders until the test ends or stop is called.
func run(t testing.TB, cfg Config, w *env) (stop func()) {
	t.Helper()
	e, err := New(cfg, Deps{Keys: w.keys, Campaigns: w, Audience: w})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// deals are the chunks of a whole audience.
func deals(t testing.TB, w *env, size uint32) []*kgo.Record {
	t.Helper()
	var out []*kgo.Record
	for _, row := range w.indexes[frozen] {
		for first := row.First; first < row.First+row.Count; first += size {
			out = append(out, record(t, chunk(func(c *fanfarev1.Chunk) {
				c.Deal, c.Blob, c.FirstSeq, c.EndSeq = uint64(len(out)+1), row.Blob, first, min(first+size, row.First+row.Count)
			})))
		}
	}
	return out
}

// settled waits until the group has committed all records of topic chunks. Each request costs the broker time, which a
// benchmark must not count.
func settled(t testing.TB, adm *kadm.Client, names schemas.Names, notBefore time.Duration) {
	t.Helper()
	time.Sleep(notBefore)
	deadline := time.Now().Add(time.Minute)
	for {
		ends, err := adm.ListEndOffsets(t.Context(), names.Chunks())
		if err != nil {
			t.Fatal(err)
		}
		done, err := adm.FetchOffsets(t.Context(), names.Group(source))
		if err != nil {
			t.Fatal(err)
		}
		var left int64
		ends.Each(func(o kadm.ListedOffset) {
			at := int64(0)
			if c, ok := done.Lookup(o.Topic, o.Partition); ok {
				at = c.At
			}
			left += o.Offset - at
		})
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d chunks are not expanded", left)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// joined waits until the group has this many members and no rebalance is under way.
func joined(t testing.TB, adm *kadm.Client, names schemas.Names, members int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		groups, err := adm.DescribeGroups(t.Context(), names.Group(source))
		if err != nil {
			t.Fatal(err)
		}
		g := groups[names.Group(source)]
		owned := 0
		for _, m := range g.Members {
			if a, ok := m.Assigned.AsConsumer(); ok {
				for _, topic := range a.Topics {
					owned += len(topic.Partitions)
				}
			}
		}
		if g.State == "Stable" && len(g.Members) == members && owned == 24 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the group is %s with %d members and %d partitions", g.State, len(g.Members), owned)
		}
	}
}

// committed reads topics as a reader of committed records sees them, until it has seen n records or no record arrives
// for a while.
func committed(t testing.TB, c stream.Cluster, n int, topics ...string) []*kgo.Record {
	t.Helper()
	cl := client(t, c, kgo.ConsumeTopics(topics...), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	var out []*kgo.Record
	for {
		wait := 10 * time.Second
		if len(out) >= n {
			wait = 300 * time.Millisecond // this is how long to wait for records that should not exist
		}
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		f := cl.PollFetches(ctx)
		cancel()
		if f.Err0() != nil {
			return out
		}
		out = append(out, f.Records()...)
	}
}

// TestExactlyOnce: expanders start and stop, and one loses its network in the middle; together they write exactly one
// record for each recipient.
func TestExactlyOnce(t *testing.T) {
	entries := people(600)
	for i := range entries {
		if i%10 == 3 {
			entries[i].Flag = audience.OptedOut
		}
	}
	w := newEnv(t, nil)
	w.indexes[frozen] = nil
	w.freeze(frozen, entries, 50)
	w.change(func(c *fanfarev1.Campaign) { c.Total = 600 })
	cluster := kafka(t, "sim")
	producer := client(t, cluster)
	bad := record(t, chunk(func(c *fanfarev1.Chunk) { c.Blob, c.FirstSeq, c.EndSeq = 99, 600, 601 }))
	batch := append(deals(t, w, 10), bad, &kgo.Record{Value: []byte("no chunk")})
	for _, r := range batch {
		r.Topic = cluster.Names.Chunks()
	}
	if err := producer.ProduceSync(t.Context(), batch[:30]...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Cluster: cluster, SessionTimeout: 2 * time.Second}
	first := run(t, cfg, w)
	run(t, cfg, w)
	w.mu.Lock()
	w.away = errAway // in the middle the store is unreachable for a while
	w.mu.Unlock()
	// How long the store is unreachable does not matter: the test checks only the records at the end
	time.Sleep(200 * time.Millisecond)
	w.mu.Lock()
	w.away = nil
	w.mu.Unlock()
	if err := producer.ProduceSync(t.Context(), batch[30:]...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	first()
	settled(t, kadm.NewClient(producer), cluster.Names, 0)

	names := cluster.Names
	got := result{}
	for _, r := range committed(t, cluster, 600, names.Messages("sim", schemas.LaneBulk), names.Deliveries()) {
		one := decode(t, stream.Result{Publish: []*kgo.Record{r}})
		got.messages, got.outcomes = append(got.messages, one.messages...), append(got.outcomes, one.outcomes...)
	}
	want := map[uint32]string{}
	for i := range entries {
		want[uint32(i)] = "message"
		if i%10 == 3 {
			want[uint32(i)] = "skipped/OPTED_OUT"
		}
	}
	if d := cmp.Diff(want, got.states()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	var causes []string
	for _, r := range committed(t, cluster, 2, names.DeadLetters(names.Chunks())) {
		causes = append(causes, string(schemas.Header(r, schemas.HeaderCause)))
	}
	if all := strings.Join(causes, "\n"); len(causes) != 2 || !strings.Contains(all, "no blob 99") || !strings.Contains(all, "decode chunk") {
		t.Errorf("got dead letters\n%s\nwant one of the blob and one of the decoding", all)
	}
}

// BenchmarkG1 compares the stage with a bare producer of the same records: in transactions of 5,000, which is the
// fastest transactional way, and with a plain idempotent producer. All three take turns, so that other load on the
// machine affects each alike.
func BenchmarkG1(b *testing.B) {
	const blobs = 40
	w := newEnv(b, nil)
	w.indexes[frozen] = nil
	entries := make([]audience.Entry, 0, blobs*audience.BlobSize)
	for i := range blobs * audience.BlobSize {
		entries = append(entries, realisticEntry(i))
	}
	w.freeze(frozen, entries, audience.BlobSize)
	w.change(func(c *fanfarev1.Campaign) { c.Total, c.Content.Body = uint32(len(entries)), realisticBody })
	cluster := kafka(b, "sim", "plain", "txn")
	producer := client(b, cluster)
	adm := kadm.NewClient(producer)

	// The cache keeps no blob, because in a real campaign each chunk reads another blob.
	run(b, Config{Cluster: cluster, Memory: 1}, w)
	joined(b, adm, cluster.Names, 2)
	warm := record(b, chunk(func(c *fanfarev1.Chunk) { c.EndSeq = 10 }))
	warm.Topic = cluster.Names.Chunks()
	if err := producer.ProduceSync(b.Context(), warm).FirstErr(); err != nil {
		b.Fatal(err)
	}
	settled(b, adm, cluster.Names, 0)

	plain := client(b, cluster, kgo.ProducerLinger(0))
	txn := client(b, cluster, kgo.ProducerLinger(0), kgo.TransactionalID(cluster.Names.TransactionalID("bench", "1")))
	h := w.handler(b)
	h.cfg.Memory = 1
	chunks := deals(b, w, audience.BlobSize)
	ready := func(topic string) [][]*kgo.Record {
		out := make([][]*kgo.Record, 0, len(chunks))
		for _, c := range chunks {
			res, err := h.Handle(b.Context(), []*kgo.Record{c})
			if err != nil {
				b.Fatal(err)
			}
			for _, r := range res.Publish {
				r.Topic = topic
			}
			out = append(out, res.Publish)
		}
		return out
	}
	produce := func(cl *kgo.Client, recs []*kgo.Record) {
		for _, r := range recs {
			cl.Produce(b.Context(), r, func(_ *kgo.Record, err error) {
				if err != nil {
					b.Error(err)
				}
			})
		}
	}
	var bare, best, stage spent
	var soonest time.Duration // the shortest time that the stage has taken so far
	for b.Loop() {
		recs := ready(cluster.Names.Messages("plain", schemas.LaneBulk))
		bare.measure(func() {
			for _, r := range recs {
				produce(plain, r)
			}
			if err := plain.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
		recs = ready(cluster.Names.Messages("txn", schemas.LaneBulk))
		best.measure(func() {
			for _, r := range recs {
				if err := txn.BeginTransaction(); err != nil {
					b.Fatal(err)
				}
				produce(txn, r)
				if err := txn.Flush(b.Context()); err != nil {
					b.Fatal(err)
				}
				if err := txn.EndTransaction(b.Context(), kgo.TryCommit); err != nil {
					b.Fatal(err)
				}
			}
		})
		again := make([]*kgo.Record, len(chunks))
		for i, c := range chunks {
			again[i] = &kgo.Record{Topic: cluster.Names.Chunks(), Key: fmt.Appendf(nil, "%s#%d", c.Key, i), Value: c.Value, Headers: c.Headers}
		}
		stage.measure(func() {
			if err := producer.ProduceSync(b.Context(), again...).FirstErr(); err != nil {
				b.Fatal(err)
			}
			settled(b, adm, cluster.Names, soonest*8/10)
		})
		if last := stage.last; soonest == 0 || last < soonest {
			soonest = last
		}
	}
	n := float64(len(entries) * stage.rounds)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(n/stage.wall.Seconds(), "msgs/s")
	b.ReportMetric(best.wall.Seconds()/stage.wall.Seconds(), "x-best")
	b.ReportMetric(bare.wall.Seconds()/stage.wall.Seconds(), "x-idempotent")
	b.ReportMetric(stage.cpu.Seconds()*1e6/n, "cpu-us/msg")
	b.ReportMetric(best.cpu.Seconds()*1e6/n, "best-cpu-us/msg")
	b.ReportMetric(bare.cpu.Seconds()*1e6/n, "idempotent-cpu-us/msg")
	b.Logf("idempotent %.0f/s, transactions of 5,000 %.0f/s, expander %.0f/s", n/bare.wall.Seconds(), n/best.wall.Seconds(), n/stage.wall.Seconds())
}

// spent is the wall-clock time and the processor time of a run, including the broker's.
type spent struct {
	wall, cpu, last time.Duration
	rounds          int
}

func (s *spent) measure(do func()) {
	began, cpu := time.Now(), cpuTime()
	do()
	s.last = time.Since(began)
	s.wall += s.last
	s.cpu += cpuTime() - cpu
	s.rounds++
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
