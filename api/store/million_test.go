package store_test

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"fanfare/api/store"
)

var million = flag.Int("store.rows", 60_000, "rows of the import and freeze whose memory is watched")

// streamCSV writes n rows of numbers of many countries without holding them.
func streamCSV(n int) io.Reader {
	r, w := io.Pipe()
	go func() {
		b := bufio.NewWriterSize(w, 64<<10)
		fmt.Fprintln(b, "phone;first_name;last_name;email;city")
		rnd := rand.New(rand.NewPCG(7, 7))
		prefixes := []string{"+39333", "+39347", "+44740", "+49151", "+336", "+346", "+1212", "+55119", "+3517", "+9198"}
		for i := range n {
			fmt.Fprintf(b, "%s%d;Anna;Rossi;anna%d@example.com;Roma\n", prefixes[rnd.IntN(len(prefixes))], 1_000_000+rnd.IntN(90_000_000), i)
		}
		_ = b.Flush()
		_ = w.Close()
	}()
	return r
}

// heap is the live heap, in bytes.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestMillion(t *testing.T) {
	s := newSQLite(t)
	tenant, err := s.CreateTenant(t.Context(), store.TenantSpec{Name: "million"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.CreateList(t.Context(), tenant.ID, "all", false)
	if err != nil {
		t.Fatal(err)
	}
	before := heap()
	var most uint64
	began := time.Now()
	n := 0
	r, err := s.Import(t.Context(), tenant.ID, l.Number, store.ImportOptions{Format: store.FormatCSV}, streamCSV(*million), func(store.ImportReport) {
		if n++; n%10 == 0 {
			most = max(most, heap())
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	t.Logf("%v in %v: %.0f rows/s, heap +%d MB", &r, took, float64(*million)/took.Seconds(), (most-before)>>20)
}
