package store_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"fanfare/api/importfile"
	"fanfare/api/store"
)

// newSQLite is a fresh store on SQLite.
func newSQLite(t testing.TB) *store.Store {
	t.Helper()
	cfg := store.Config{DSN: filepath.Join(t.TempDir(), "store.db")}
	if err := store.Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// contactsCSV are n rows of Italian mobile numbers with names and two attributes, in random order.
func contactsCSV(n int) []byte {
	var b bytes.Buffer
	b.WriteString("phone,first_name,last_name,email,city,customer\n")
	rnd := rand.New(rand.NewPCG(1, 2))
	for i, at := range rnd.Perm(n) {
		fmt.Fprintf(&b, "+39333%07d,Anna,Rossi,anna%d@example.com,Roma,%d\n", at, i, i)
	}
	return b.Bytes()
}

// BenchmarkImport is an import of 100,000 new contacts, end to end.
func BenchmarkImport(b *testing.B) {
	const n = 100_000
	file := contactsCSV(n)
	s := newSQLite(b)
	i := 0
	var cpu time.Duration
	for b.Loop() {
		b.StopTimer()
		i++
		t, err := s.CreateTenant(context.Background(), store.TenantSpec{Name: fmt.Sprint("bench ", i)})
		if err != nil {
			b.Fatal(err)
		}
		l, err := s.CreateList(context.Background(), t.ID, "all", false)
		if err != nil {
			b.Fatal(err)
		}
		began := cpuTime(b)
		b.StartTimer()
		r, err := s.Import(context.Background(), t.ID, l.Number, store.ImportOptions{Format: importfile.CSV}, bytes.NewReader(file), nil)
		if err != nil || r.Imported != n {
			b.Fatalf("got %v, %v, want %d imported", &r, err, n)
		}
		cpu += cpuTime(b) - began
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(n)/float64(b.N), "µs/row")
	b.ReportMetric(cpu.Seconds()*1e6/float64(n)/float64(b.N), "cpu-µs/row")
}

// cpuTime is the processor time of this process so far: what is left of a figure when the machine is shared.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

var jobRows = flag.Int("import.rows", 1_000_000, "rows of BenchmarkImportJob")

// BenchmarkImportJob is an upload of a million new contacts and its import by a job. It reports the rows for each second
// of processor time (the goal is 30,000) and the most memory that the process takes (the goal is 200 MB).
func BenchmarkImportJob(b *testing.B) {
	s := newSQLite(b)
	for b.Loop() {
		b.StopTimer()
		t, err := s.CreateTenant(b.Context(), store.TenantSpec{Name: fmt.Sprint("job ", b.N)})
		if err != nil {
			b.Fatal(err)
		}
		l, err := s.CreateList(b.Context(), t.ID, "all", false)
		if err != nil {
			b.Fatal(err)
		}
		resetPeak(b)
		began := cpuTime(b)
		u, err := s.SaveUpload(b.Context(), t.ID, store.Upload{Source: "people.csv"}, streamCSV(*jobRows, manyCountries, 0))
		if err != nil {
			b.Fatal(err)
		}
		uploaded := cpuTime(b)
		b.StartTimer()
		r, err := s.StartImport(b.Context(), t.ID, l.Number, u.ID, store.ImportOptions{})
		if err != nil {
			b.Fatal(err)
		}
		ctx, stop := context.WithCancel(b.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.RunImports(ctx) }()
		for r.State == store.ImportQueued || r.State == store.ImportRunning {
			time.Sleep(10 * time.Millisecond)
			if r, err = s.ImportReport(ctx, t.ID, r.ID); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		stop()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			b.Fatal(err)
		}
		if r.State != store.ImportDone || r.RowsRead != uint64(*jobRows) {
			b.Fatalf("got %+v, want %d rows read", &r, *jobRows)
		}
		now := cpuTime(b)
		b.ReportMetric(float64(*jobRows)/(now-uploaded).Seconds(), "rows/cpu-s")
		b.ReportMetric(float64(*jobRows)/(now-began).Seconds(), "rows/cpu-s-with-upload")
		b.ReportMetric(peakMemory(b)/1e6, "MB-peak")
		b.StartTimer()
	}
}

// resetPeak makes Linux forget the most memory that this process has taken.
func resetPeak(b *testing.B) {
	b.Helper()
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		b.Skipf("the peak of the memory is measured on Linux only: %v", err)
	}
}

// peakMemory returns the most bytes that this process has taken since resetPeak.
func peakMemory(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	var kB float64
	if _, err := fmt.Sscan(after, &kB); err != nil {
		b.Fatal(err)
	}
	return kB * 1024
}
