package sqlite_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/analytics"
	"fanfare/sinks/analytics/analyticstest"
	"fanfare/sinks/analytics/sqlite"
)

// cpu returns the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func open(b *testing.B) (*sqlite.Store, string) {
	b.Helper()
	path := filepath.Join(b.TempDir(), "analytics.db")
	s, err := sqlite.Open(b.Context(), sqlite.Config{Path: path})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s, path
}

// BenchmarkAppend appends flushes of 25,000 messages, that is 50,000 events in six batches. One iteration is one event.
func BenchmarkAppend(b *testing.B) {
	for _, campaigns := range []int{1, 5, 1000} {
		b.Run(fmt.Sprintf("campaigns=%d", campaigns), func(b *testing.B) {
			s, path := open(b)
			traffic := analyticstest.NewTraffic(campaigns, 4_000_000/campaigns)
			events := 0
			var used, took time.Duration
			for events < b.N {
				batches := traffic.Next(25_000)
				if batches == nil {
					b.Fatal("the benchmark runs longer than its traffic")
				}
				for i := range batches {
					events += len(batches[i].Events)
				}
				c, t := cpu(b), time.Now()
				if err := s.Append(b.Context(), batches...); err != nil {
					b.Fatal(err)
				}
				used, took = used+cpu(b)-c, took+time.Since(t)
			}
			b.ReportMetric(float64(events)/took.Seconds(), "events/s")
			b.ReportMetric(float64(used.Nanoseconds())/float64(events), "cpu-ns/event")
			if f, err := os.Stat(path); err == nil {
				b.ReportMetric(float64(f.Size())/float64(events), "disk-B/event")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// fill appends a campaign of n recipients, all sent and answered.
func fill(b *testing.B, s *sqlite.Store, n int) *analytics.Campaign {
	b.Helper()
	traffic := analyticstest.NewTraffic(1, n)
	for {
		batches := traffic.Next(25_000)
		if batches == nil {
			return traffic.Campaigns[0]
		}
		if err := s.Append(context.Background(), batches...); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		s, path := open(b)
		c := fill(b, s, n)
		b.Run(fmt.Sprintf("Stats/recipients=%d", n), func(b *testing.B) {
			for b.Loop() {
				stats, err := s.Stats(b.Context(), c.Tenant, c.ID)
				if err != nil || stats.Figures(uint32(n)).Sent != uint64(n) {
					b.Fatalf("got %+v, %v, want all %d sent", stats, err, n)
				}
			}
		})
		b.Run(fmt.Sprintf("StatsCold/recipients=%d", n), func(b *testing.B) {
			cold, err := sqlite.Open(b.Context(), sqlite.Config{Path: path, CacheBytes: 1})
			if err != nil {
				b.Fatal(err)
			}
			defer cold.Close()
			other := analyticstest.NewTraffic(2, 10)
			if err := cold.Append(b.Context(), analytics.Batch{Events: other.Next(20)[0].Events}); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				// Loading another campaign evicts the first one.
				for _, id := range []string{c.ID, other.Campaigns[1].ID} {
					if _, err := cold.Stats(b.Context(), c.Tenant, id); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
		b.Run(fmt.Sprintf("SelectFailed/recipients=%d", n), func(b *testing.B) {
			stats, err := s.Stats(b.Context(), c.Tenant, c.ID)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := s.Select(b.Context(), c.Tenant, c.ID, stats.Select(schemas.BucketUndelivered)); err != nil {
					b.Fatal(err)
				}
			}
		})
		page := make([]uint32, 50)
		for i := range page {
			page[i] = uint32(n/2 + i)
		}
		b.Run(fmt.Sprintf("MembersPage/recipients=%d", n), func(b *testing.B) {
			for b.Loop() {
				members, err := s.Members(b.Context(), c.Tenant, c.ID, page)
				if err != nil || len(members) != len(page) {
					b.Fatalf("got %d members, %v, want %d", len(members), err, len(page))
				}
			}
		})
		b.Run(fmt.Sprintf("FindRecipient/recipients=%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := s.FindRecipient(b.Context(), c.Tenant, c.ID, "+390000000000"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
