package store_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
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
