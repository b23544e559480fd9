package clickhouse

import (
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"fanfare/deploy/testinfra"
	"fanfare/schemas"
	tables "fanfare/schemas/clickhouse"
	"fanfare/sinks/analytics"
	"fanfare/sinks/analytics/analyticstest"
)

func openBench(b *testing.B) *Store {
	b.Helper()
	dsn := testinfra.Need(b, testinfra.ClickHouse)[testinfra.ClickHouse]
	database := "bench_" + strings.ToLower(rand.Text()[:12])
	s, err := Open(b.Context(), Config{DSN: dsn, Database: database})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.conn.Exec(context.Background(), "DROP DATABASE "+database+" SYNC"); err != nil {
			b.Error(err)
		}
		s.Close()
	})
	return s
}

// bare creates a table with the columns of events, without its indexes and without views.
func bare(b *testing.B, s *Store) string {
	b.Helper()
	schema, err := fs.ReadFile(tables.Files, "00001_init.sql")
	if err != nil {
		b.Fatal(err)
	}
	create := regexp.MustCompile(`(?s)CREATE TABLE IF NOT EXISTS events\n.*?;`).FindString(string(schema))
	create = regexp.MustCompile(`,\s*INDEX [^\n]*\n\s*INDEX [^\n]*`).ReplaceAllString(create, "")
	create = strings.Replace(create, "IF NOT EXISTS events", "bare", 1)
	if strings.Contains(create, "INDEX") || !strings.Contains(create, "MergeTree") {
		b.Fatalf("cannot make a bare table of\n%s", create)
	}
	if err := s.conn.Exec(b.Context(), strings.TrimSuffix(create, ";")); err != nil {
		b.Fatal(err)
	}
	return "bare"
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkG7 compares the sink, with all views and indexes, with a bare insert of the same batches of 50,000 rows into
// the same columns. The two alternate; the ratio is that of their medians.
func BenchmarkG7(b *testing.B) {
	for _, campaigns := range []int{5, 1000} {
		b.Run(fmt.Sprintf("campaigns=%d", campaigns), func(b *testing.B) {
			s := openBench(b)
			table := bare(b, s)
			plain := newInserter(mustOptions(b, s))
			defer func() { _ = plain.close() }()
			traffic := analyticstest.NewTraffic(campaigns, 3_000_000/campaigns)
			traffic.Partitions = 1
			next := func() analytics.Batch {
				batches := traffic.Next(25_000)
				if batches == nil {
					b.Fatal("the benchmark runs longer than its traffic")
				}
				return batches[0]
			}
			for range 2 { // until receipts arrive as well
				if err := s.Append(b.Context(), next()); err != nil {
					b.Fatal(err)
				}
			}
			var with, without []float64
			var used time.Duration
			rows := 0
			for b.Loop() {
				batch := next()
				c, began := cpuTime(b), time.Now()
				if err := s.Append(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
				with = append(with, float64(len(batch.Events))/time.Since(began).Seconds())
				used, rows = used+cpuTime(b)-c, rows+len(batch.Events)

				began = time.Now()
				plain.block.reset()
				for i := range batch.Events {
					plain.block.append(&batch.Events[i], batch.Partition)
				}
				if err := plain.do(b.Context(), table, batch.Token(), plain.block.input()); err != nil {
					b.Fatal(err)
				}
				without = append(without, float64(len(batch.Events))/time.Since(began).Seconds())
			}
			b.ReportMetric(median(with), "sink-rows/s")
			b.ReportMetric(median(without), "bare-rows/s")
			b.ReportMetric(median(with)/median(without), "ratio")
			b.ReportMetric(float64(used.Nanoseconds())/float64(rows), "client-cpu-ns/row")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func mustOptions(b *testing.B, s *Store) *chgo.Options {
	b.Helper()
	opts, err := chgo.ParseDSN(os.Getenv("FANFARE_TEST_CLICKHOUSE"))
	if err != nil {
		b.Fatal(err)
	}
	opts.Auth.Database = s.insert.addresses[0].database
	opts.DialTimeout, opts.ReadTimeout = 5*time.Second, 30*time.Second
	return opts
}

func median(xs []float64) float64 {
	sorted := slices.Sorted(slices.Values(xs))
	return sorted[len(sorted)/2]
}

// BenchmarkG8 measures the statistics of campaigns of two sizes while the sink inserts at full speed.
func BenchmarkG8(b *testing.B) {
	s := openBench(b)
	small, large := analyticstest.NewCampaign("tn_g8", 90_001, time.Now()), analyticstest.NewCampaign("tn_g8", 90_002, time.Now())
	offset := int64(0)
	for c, n := range map[*analytics.Campaign]int{small: 10_000, large: 1_000_000} {
		traffic := analyticstest.NewTraffic(1, n)
		traffic.Partitions = 1
		traffic.Campaigns[0] = c
		for batches := traffic.Next(25_000); batches != nil; batches = traffic.Next(25_000) {
			batch := batches[0]
			batch.Topic[0], batch.First = 99, offset
			offset += 1_000_000
			batch.End = offset
			if err := s.Append(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	rows := 0
	traffic := analyticstest.NewTraffic(20, 1_000_000)
	ask := func(name string, f func() error) {
		b.Run(name, func(b *testing.B) {
			var took []float64
			for b.Loop() {
				began := time.Now()
				if err := f(); err != nil {
					b.Fatal(err)
				}
				took = append(took, float64(time.Since(began).Microseconds())/1000)
			}
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2], "p50-ms")
			b.ReportMetric(took[len(took)*99/100], "p99-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
	all := func(prefix string) {
		for name, c := range map[string]*analytics.Campaign{"10k": small, "1M": large} {
			ask(prefix+"/Stats/"+name, func() error {
				stats, err := s.Stats(b.Context(), c.Tenant, c.ID)
				if err == nil && stats.Figures(0).Sent == 0 {
					err = fmt.Errorf("nothing in %+v", stats)
				}
				return err
			})
		}
		ask(prefix+"/StatsMany", func() error {
			_, err := s.StatsMany(b.Context(), large.Tenant, []string{small.ID, large.ID})
			return err
		})
		ask(prefix+"/MembersPage", func() error {
			_, err := s.Members(b.Context(), large.Tenant, large.ID, []uint32{500_000, 500_001, 500_002, 500_010, 500_049})
			return err
		})
		ask(prefix+"/Select", func() error {
			_, err := s.Select(b.Context(), large.Tenant, large.ID, []schemas.Precedence{0x30010000 | 301, 0x30010000 | 325, 0x30010000 | 300})
			return err
		})
	}
	all("quiet")
	go func() {
		for ctx.Err() == nil {
			batches := traffic.Next(12_500)
			if batches == nil {
				break
			}
			for _, batch := range batches {
				if err := s.Append(ctx, batch); err != nil && ctx.Err() == nil {
					done <- err
					return
				}
				rows += len(batch.Events)
			}
		}
		done <- nil
	}()
	began := time.Now()
	all("ingesting")
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	b.Logf("while %.0f rows/s came in", float64(rows)/time.Since(began).Seconds())
}
