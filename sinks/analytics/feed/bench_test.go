package feed

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/sinks/analytics/analyticstest"
)

// BenchmarkFeed reads a topic of 400,000 events into SQLite: fetching, decoding and appending, with the broker in the
// same process. One iteration is the whole topic.
func BenchmarkFeed(b *testing.B) {
	w := newEnv(b)
	traffic := analyticstest.NewTraffic(5, 40_000)
	for _, c := range traffic.Campaigns {
		w.view.put(c)
	}
	events := 0
	for batches := traffic.Next(10_000); batches != nil; batches = traffic.Next(10_000) {
		for _, batch := range batches {
			for _, e := range batch.Events {
				w.cl.Produce(context.Background(), w.record(e), func(_ *kgo.Record, err error) {
					if err != nil {
						b.Error(err)
					}
				})
				events++
			}
		}
		if err := w.cl.Flush(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	cpu := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	var took, used time.Duration
	n := 0
	for b.Loop() {
		s := newStore(b)
		began, c := time.Now(), cpu()
		got, err := Rebuild(b.Context(), Config{Cluster: w.Cluster, Store: s, Campaigns: w.view})
		if err != nil || got.Events != events {
			b.Fatalf("got %+v, %v, want %d events", got, err, events)
		}
		took, used = took+time.Since(began), used+cpu()-c
		n += events
	}
	b.ReportMetric(float64(n)/took.Seconds(), "events/s")
	b.ReportMetric(float64(used.Nanoseconds())/float64(n), "cpu-ns/event")
	b.ReportMetric(0, "ns/op")
}
