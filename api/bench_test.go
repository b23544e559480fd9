package api_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"fanfare/api/store"
	"fanfare/schemas"
)

// G9: what an acknowledged single send, and a batch of 500, cost beside a handler that does nothing, measured by turns
// in one run over loopback: client, server, broker and store share the machine.
func BenchmarkG9(b *testing.B) {
	w := newBenchWorld(b)
	noop := chi.NewRouter()
	noop.Post("/noop", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"messageId":"msg_00000000000000000000000000"}`))
	})
	bare := httptest.NewServer(noop)
	defer bare.Close()
	single := `{"phoneNumber":"+393331234567","message":"Your code is 123456. It is good for ten minutes."}`
	numbers := make([]string, 500)
	for i := range numbers {
		numbers[i] = fmt.Sprintf("%q", phoneOf(i))
	}
	batch := fmt.Sprintf(`{"destinations":[%s],"message":"Your code is 123456. It is good for ten minutes."}`, strings.Join(numbers, ","))
	send := w.url + "/api/message-server/sms/send"
	var nothing, singles, batches, cpuNothing, cpuSingle, cpuBatch []float64
	for b.Loop() {
		measure(b, &nothing, &cpuNothing, 1, func() float64 { return rate(b, bare.URL+"/noop", "", single, 32, time.Second) })
		measure(b, &singles, &cpuSingle, 1, func() float64 { return rate(b, send, w.key, single, 32, time.Second) })
		measure(b, &batches, &cpuBatch, 500, func() float64 { return rate(b, send, w.key, batch, 8, time.Second) })
	}
	base, cpu := median(nothing), median(cpuNothing)
	b.ReportMetric(base, "noop/s")
	b.ReportMetric(median(singles), "single/s")
	b.ReportMetric(median(batches), "batch-msgs/s")
	b.ReportMetric(median(singles)/base, "single÷noop")
	b.ReportMetric(median(batches)/base, "batch÷noop")
	// By CPU the ratios hold on a machine that has other work too.
	b.ReportMetric(cpu, "noop-cpu-µs")
	b.ReportMetric(median(cpuSingle), "single-cpu-µs")
	b.ReportMetric(median(cpuBatch), "batch-cpu-µs/msg")
	b.ReportMetric(cpu/median(cpuSingle), "single÷noop-by-cpu")
	b.ReportMetric(cpu/median(cpuBatch), "batch÷noop-by-cpu")
	b.ReportMetric(0, "ns/op")
}

// measure takes one round: messages per second, and the process's CPU microseconds for each.
func measure(b *testing.B, rates, cpus *[]float64, each float64, run func() float64) {
	b.Helper()
	began, before := time.Now(), cpuTime(b)
	perSecond := each * run()
	*rates = append(*rates, perSecond)
	*cpus = append(*cpus, float64((cpuTime(b)-before).Microseconds())/(perSecond*time.Since(began).Seconds()))
}

// cpuTime is what this process has used: client, server, broker and store.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func newBenchWorld(b *testing.B) *env {
	b.Helper()
	return newEnvOf(b, func(w *env) {
		w.deps.Now = time.Now
		known := map[[8]byte]bool{} // as the view of the opt-outs looks them up: by the hash of the number
		w.deps.OptedOut = func(tenant, e164 string, _ schemas.Channel) bool { return known[w.keys.NumberHash(tenant, e164)] }
		// No budget
		_, err := w.store.UpdateRoute(b.Context(), "sim", 0, func(r *store.Route) error { r.Rate = 1 << 30; return nil })
		w.check(err)
	})
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

// rate posts a body over so many connections for a while, and returns how many were answered with 200 per second.
func rate(b *testing.B, url, key, body string, connections int, d time.Duration) float64 {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections, DialContext: (&net.Dialer{}).DialContext}}
	defer client.CloseIdleConnections()
	var done, bad atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range connections {
		wg.Go(func() {
			for time.Since(start) < d {
				req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
				if err != nil {
					bad.Add(1)
					return
				}
				req.Header.Set("Content-Type", "application/json")
				req.Header.Set("X-Api-Key", key)
				resp, err := client.Do(req)
				if err != nil {
					bad.Add(1)
					return
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
					bad.Add(1)
				}
				_ = resp.Body.Close()
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if n := bad.Load(); n > 0 {
		b.Fatalf("%s: %d requests failed", url, n)
	}
	return float64(done.Load()) / time.Since(start).Seconds()
}
