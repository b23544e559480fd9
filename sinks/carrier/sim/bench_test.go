package sim

import (
	"context"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

func benchBatch(keys interface {
	Submission(uint64, uint32, uint8) carrier.Key
}, first, n int,
) []carrier.Outbound {
	batch := make([]carrier.Outbound, n)
	for i := range batch {
		batch[i] = carrier.Outbound{
			Key: keys.Submission(10001, uint32(first+i)&0xffffff, 1), Channel: schemas.ChannelSMS,
			To: fmt.Sprintf("+39347%07d", (first+i)%10_000_000), From: "FANFARE",
			Body: carrier.Body{Text: carrier.Text{Body: "Dear Anna, your order of Tuesday is ready. Come and see us before eight o'clock tonight.", Segments: 1}},
		}
	}
	return batch
}

// BenchmarkSubmit measures a submission to the carrier in process, with its line in the truth file and its receipt.
// Goal: 300,000 a second on one core.
func BenchmarkSubmit(b *testing.B) {
	for _, c := range []struct {
		name  string
		truth bool
		batch int
	}{{"truth/500", true, 500}, {"truth/50", true, 50}, {"no truth/500", false, 500}} {
		b.Run(c.name, func(b *testing.B) {
			cfg := Config{Keys: testKeys(b), Profile: Fast(), Seed: 1}
			if c.truth {
				cfg.Truth = filepath.Join(b.TempDir(), "carrier-sim.ndjson")
			}
			sim := start(b, cfg)
			n := sim.Connector(Options{})
			var receipts atomic.Int64
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			go func() {
				_ = n.Receipts(ctx, func(r []carrier.Receipt) error { receipts.Add(int64(len(r))); return nil })
			}()
			batch := benchBatch(cfg.Keys, 0, c.batch)
			done := func(_ int, r carrier.Result) {
				if r.Outcome != carrier.Accepted {
					b.Errorf("got %v, want accepted", r.Outcome)
				}
			}
			b.ReportAllocs()
			total, cpu := 0, cpuTime(b)
			for b.Loop() {
				if err := n.Send(ctx, batch, done); err != nil {
					b.Fatal(err)
				}
				total += len(batch)
			}
			for int(receipts.Load()) < total {
				time.Sleep(time.Millisecond)
			}
			report(b, total, cpuTime(b)-cpu)
		})
	}
}

// BenchmarkHTTP is the same through the server and its client.
func BenchmarkHTTP(b *testing.B) {
	cfg := Config{Keys: testKeys(b), Profile: Fast(), Seed: 1, Truth: filepath.Join(b.TempDir(), "carrier-sim.ndjson")}
	sim := start(b, cfg)
	srv := httptest.NewServer(NewHandler(sim))
	defer srv.Close()
	n, err := Dial(b.Context(), srv.URL, Options{})
	if err != nil {
		b.Fatal(err)
	}
	var receipts, answers atomic.Int64
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	go func() {
		_ = n.Receipts(ctx, func(r []carrier.Receipt) error { receipts.Add(int64(len(r))); return nil })
	}()
	batch := benchBatch(cfg.Keys, 0, 500)
	b.ReportAllocs()
	total, cpu := 0, cpuTime(b)
	for b.Loop() {
		if err := n.Send(ctx, batch, func(int, carrier.Result) { answers.Add(1) }); err != nil {
			b.Fatal(err)
		}
		total += len(batch)
	}
	for int(receipts.Load()) < total || int(answers.Load()) < total {
		time.Sleep(time.Millisecond)
	}
	report(b, total, cpuTime(b)-cpu)
}

// cpuTime returns the CPU time that this process has used. Unlike wall time, it hardly depends on other work of the
// machine.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func report(b *testing.B, total int, cpu time.Duration) {
	b.Helper()
	b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "submissions/s")
	b.ReportMetric(float64(cpu.Nanoseconds())/1000/float64(total), "cpu-µs/submission")
}
