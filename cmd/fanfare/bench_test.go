package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkG10 measures a campaign to a million people (or FANFARE_BENCH_PEOPLE) from confirm to completed, with
// everything in one process and a carrier without a limit. It compares the rate with that of the expander alone,
// measured in the same run on the same machine. Memory is the high-water mark of the process.
func BenchmarkG10(b *testing.B) {
	people := 1_000_000
	if v, err := strconv.Atoi(os.Getenv("FANFARE_BENCH_PEOPLE")); err == nil && v > 0 {
		people = v
	}
	var took, cpu time.Duration
	var imported float64
	memory, rounds := 0, 0
	for b.Loop() {
		dir, addr := b.TempDir(), freeAddr(b)
		runBinary(b, "tenants", "create", "Acme Retail", "--region", "IT", "--data", dir)
		api := &client{base: "http://" + addr, key: runBinary(b, "keys", "create", "--tenant", "Acme Retail", "--data", dir)}
		p := startProcess(b, "g10", fanfareBinary(b), "serve", "--data", dir, "--http", addr, "--log-level", "warn", "--sim-rate", "1000000", "--sim-profile", "fast")
		api.waitReady(b)
		var list, campaign struct {
			ID string `json:"id"`
		}
		api.must(b, http.MethodPost, "/api/contacts/list", map[string]any{"name": "everybody"}, &list, "")
		began := time.Now()
		api.must(b, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", italians(people), nil, "text/csv")
		imported = float64(people) / time.Since(began).Seconds()
		api.must(b, http.MethodPost, "/api/campaigns", map[string]any{
			"name": "G10", "channel": "sms", "message": "Ciao {{first_name}}, saldi da oggi!", "contactList": list.ID, "sendImmediately": true,
		}, &campaign, "")
		before := processTime(b, p)
		began = time.Now()
		api.must(b, http.MethodPut, "/api/campaigns/"+campaign.ID+"/confirm", nil, nil, "")
		var stats statsAnswer
		for stats.State != "completed" || stats.Pending > 0 {
			time.Sleep(100 * time.Millisecond)
			api.must(b, http.MethodGet, "/api/campaigns/"+campaign.ID+"/stats", nil, &stats, "")
			if time.Since(began) > 20*time.Minute {
				b.Fatalf("not completed: %+v", stats)
			}
		}
		took += time.Since(began)
		cpu += processTime(b, p) - before
		memory = max(memory, highWater(b, p))
		rounds++
		if got := stats.Sent + stats.NotSent + stats.Ambiguous; got != people {
			b.Errorf("%d of %d are accounted for: %+v", got, people, stats)
		}
		p.kill()
	}
	n := float64(people * rounds)
	rate := n / took.Seconds()
	limit := expanderLimit(b)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(rate, "msgs/s")
	b.ReportMetric(limit, "expander-msgs/s")
	b.ReportMetric(rate/limit, "ratio")
	b.ReportMetric(float64(cpu.Microseconds())/n, "cpu-us/msg")
	b.ReportMetric(float64(memory)/(1<<20), "peak-rss-MB")
	b.ReportMetric(imported, "imported-rows/s")
}

// italians returns a CSV of n people with Italian mobile numbers.
func italians(n int) io.Reader {
	r, w := io.Pipe()
	go func() {
		out := bufio.NewWriter(w)
		fmt.Fprintln(out, "phone,first_name")
		for i := range n {
			fmt.Fprintf(out, "+39347%07d,Name%d\n", i, i%1000)
		}
		_ = w.CloseWithError(out.Flush())
	}()
	return r
}

// expanderLimit runs the expander's own benchmark.
func expanderLimit(b *testing.B) float64 {
	b.Helper()
	out, err := exec.Command("go", "test", "-run", "^$", "-bench", "^BenchmarkG1$", "-benchtime", "2s", "fanfare/pipeline/expander").CombinedOutput()
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	m := regexp.MustCompile(`\s([0-9.e+]+) msgs/s`).FindSubmatch(out)
	if m == nil {
		b.Fatalf("no figure in\n%s", out)
	}
	limit, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return limit
}

// highWater returns the peak memory of a process in bytes, 0 if /proc does not have it.
func highWater(b *testing.B, p *process) int {
	b.Helper()
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "status"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.Atoi(strings.Fields(kb)[0])
			if err != nil {
				b.Fatal(err)
			}
			return n << 10
		}
	}
	return 0
}

// processTime returns the CPU time that a process has used, 0 if /proc does not have it.
func processTime(b *testing.B, p *process) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "stat"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	ticks := 0
	for _, f := range fields[11:13] { // utime and stime, in hundredths of a second on every Linux
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
