package window_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
	"fanfare/pipeline/stream/streamtest"
	"fanfare/pipeline/window"
	"fanfare/schemas"
)

// identity reads header `submission` as the sender does.
func identity(r *kgo.Record) (schemas.ID, error) {
	return schemas.ParseID(string(schemas.Header(r, schemas.HeaderSubmission)))
}

// fill writes n messages over the partitions of a topic, submissions of campaign 1 in order of seq.
func fill(t testing.TB, b *streamtest.Broker, topic string, partitions int32, n int) {
	t.Helper()
	keys := testKeys(t)
	rng := rand.NewChaCha8([32]byte{1})
	cl, err := b.Named("fill").Client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(5*time.Millisecond), kgo.MaxBufferedRecords(50_000))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var failed atomic.Pointer[error]
	for seq := range n {
		value := make([]byte, 220) // compresses about as far as messages do
		_, _ = rng.Read(value[:80])
		cl.Produce(t.Context(), &kgo.Record{
			Topic: topic, Partition: int32(seq) % partitions, Value: value,
			Headers: []kgo.RecordHeader{{Key: schemas.HeaderSubmission, Value: keys.Submission(1, uint32(seq), 1).AppendTo(nil)}},
		}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(&err)
			}
		})
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
}

var outcomeValue = make([]byte, 120)

// outcomeOf makes the outcome of a record for both sides of the comparison.
func outcomeOf(topic string, r *kgo.Record) *kgo.Record {
	h := make([]kgo.RecordHeader, 1, 4)
	h[0] = kgo.RecordHeader{Key: schemas.HeaderTenant, Value: []byte("tn_a")}
	return &kgo.Record{Topic: topic, Key: schemas.Header(r, schemas.HeaderSubmission), Value: outcomeValue, Headers: h}
}

// unprotected is the baseline: a consumer that hands over batches of the same size, produces their outcomes, waits for
// them and commits.
func unprotected(t testing.TB, b *streamtest.Broker, topic, outcomes string, size, n int) time.Duration {
	t.Helper()
	cl, err := b.Named("unprotected").Client(kgo.ConsumerGroup(b.Names.Group("unprotected")), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.ProducerLinger(0))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var began time.Time
	for done := 0; done < n; {
		recs := cl.PollRecords(t.Context(), size).Records()
		if len(recs) == 0 {
			continue
		}
		if began.IsZero() {
			began = time.Now()
		}
		var wg sync.WaitGroup
		wg.Add(len(recs))
		for _, r := range recs {
			cl.Produce(t.Context(), outcomeOf(outcomes, r), func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
				wg.Done()
			})
		}
		wg.Wait()
		if err := cl.CommitRecords(t.Context(), recs...); err != nil {
			t.Fatal(err)
		}
		done += len(recs)
	}
	return time.Since(began)
}

func windowed(t testing.TB, b *streamtest.Broker, topic, outcomes string, size, n int) time.Duration {
	t.Helper()
	if err := stream.EnsureOffsets(t.Context(), b.Admin, b.Names.Group("w"), topic); err != nil {
		t.Fatal(err)
	}
	var (
		began time.Time
		left  = int64(n)
		done  = make(chan struct{})
	)
	rel := window.ReleaserFunc(func(items []*window.Item) {
		if began.IsZero() {
			began = time.Now()
		}
		for _, it := range items {
			if it.Begin() {
				it.Settle(outcomeOf(outcomes, it.Record))
			} else {
				t.Error("Begin refused")
			}
		}
		if left -= int64(len(items)); left == 0 {
			close(done)
		}
	})
	w, err := window.New(window.Config{
		Cluster: b.Cluster, Topic: topic, Group: b.Names.Group("w"), Outcomes: outcomes, Size: func() int { return size }, Identity: identity,
	}, rel)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- w.Run(ctx) }()
	<-done
	took := time.Since(began)
	cancel()
	if err := <-end; err != nil {
		t.Fatal(err)
	}
	return took
}

// cpu returns the processor time that the process has used, its broker's included.
func cpu(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// G2: the window against the same work without protection, at equal size: the median of alternating rounds in one run.
func BenchmarkWindow(b *testing.B) {
	for _, size := range []int{500, 2000} {
		b.Run(fmt.Sprintf("W=%d", size), func(b *testing.B) {
			const n, rounds = 100_000, 7
			var ratios, none, with, noneCPU, withCPU []float64
			for b.Loop() {
				for range rounds {
					br := streamtest.New(b)
					topic, out1, out2 := br.Topic(b, "messages", 6), br.Topic(b, "out1", 6), br.Topic(b, "out2", 6)
					fill(b, br, topic, 6, n)
					start := cpu(b)
					t1 := unprotected(b, br, topic, out1, size, n)
					mid := cpu(b)
					t2 := windowed(b, br, topic, out2, size, n)
					ratios = append(ratios, t1.Seconds()/t2.Seconds())
					none, with = append(none, n/t1.Seconds()), append(with, n/t2.Seconds())
					noneCPU = append(noneCPU, float64((mid-start).Microseconds())/n)
					withCPU = append(withCPU, float64((cpu(b)-mid).Microseconds())/n)
				}
			}
			median := func(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(none), "unprotected/s")
			b.ReportMetric(median(with), "window/s")
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(median(noneCPU), "unprotected-cpu-us/msg")
			b.ReportMetric(median(withCPU), "window-cpu-us/msg")
		})
	}
}
