package store_test

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fanfare/api/importfile"
	"fanfare/api/store"
	"fanfare/schemas"
)

// rows of TestMemory: go test ./api/store -run TestMemory -v -store.rows 1000000
var rows = flag.Int("store.rows", 24_000, "rows of the import and freeze whose memory is watched")

// manyCountries and oneCountry are the beginnings of mobile numbers.
var (
	manyCountries = []string{"+39333", "+39347", "+44740", "+49151", "+336", "+346", "+1212", "+55119", "+3519", "+9198"}
	oneCountry    = manyCountries[:1]
)

// streamCSV writes n rows without holding them, each with a note of that many bytes.
func streamCSV(n int, prefixes []string, note int) io.Reader {
	r, w := io.Pipe()
	go func() {
		b := bufio.NewWriterSize(w, 64<<10)
		_, _ = fmt.Fprintln(b, "phone;first_name;last_name;email;city;note")
		rnd := rand.New(rand.NewPCG(7, 7))
		text := strings.Repeat("n", note)
		for i := range n {
			_, err := fmt.Fprintf(b, "%s%d;Anna;Rossi;anna%d@example.com;Roma;%s\n", prefixes[rnd.IntN(len(prefixes))], 1_000_000+rnd.IntN(9_000_000), i, text)
			if err != nil {
				return // the reader has ended
			}
		}
		_ = b.Flush()
		_ = w.Close()
	}()
	return r
}

// live returns the bytes of the heap that the last run of the collector found in use. Unlike the size of the heap, it
// does not depend on how late the collector comes on a busy machine.
func live() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// peak watches the heap until the function returned is called, which says how far it rose, in bytes. The collector runs
// often meanwhile.
func peak() (stop func() uint64) {
	percent := debug.SetGCPercent(10)
	for range 3 { // what has a finalizer takes more than one
		runtime.GC()
	}
	before := live()
	var most atomic.Uint64
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				most.Store(max(most.Load(), live()))
			}
		}
	}()
	return func() uint64 {
		close(quit)
		<-done
		debug.SetGCPercent(percent)
		return most.Load() - min(before, most.Load())
	}
}

// Importing and freezing hold neither the file nor the audience. Of the freeze that shows at a hundred thousand
// contacts only, for a blob of 5,000 and its encoding take as much as a small audience: TestFreezerHolds counts
// instead.
func TestMemory(t *testing.T) {
	const note = 900
	s := newSQLite(t)
	tenant, err := s.CreateTenant(t.Context(), store.TenantSpec{Name: "million"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.CreateList(t.Context(), tenant.ID, "all", false)
	if err != nil {
		t.Fatal(err)
	}
	began, stop := time.Now(), peak()
	r, err := s.Import(t.Context(), tenant.ID, l.Number, store.ImportOptions{Format: importfile.CSV}, streamCSV(*rows, oneCountry, note), nil)
	rose := stop()
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	t.Logf("import: %v in %v, %.0f rows/s, heap rose by %.1f MB", &r, took, float64(*rows)/took.Seconds(), float64(rose)/1e6)
	// A batch of at most 8,000 rows, and some bytes for each number seen. Held as a whole, the rows take twice their
	// file.
	if most := min(uint64(*rows)*note, uint64(16<<20+8**rows)); rose > most {
		t.Errorf("import: got a heap that rose by %d bytes, want at most %d", rose, most)
	}
	c := confirmed(t, s, tenant, l)
	began, stop = time.Now(), peak()
	err = s.Freeze(t.Context(), tenant.ID, c.ID(), c.Version)
	rose = stop()
	if err != nil {
		t.Fatal(err)
	}
	took = time.Since(began)
	t.Logf("freeze: %v, %.0f contacts/s, heap rose by %.1f MB", took, float64(r.Imported)/took.Seconds(), float64(rose)/1e6)
	if c, err = s.Campaign(t.Context(), tenant.ID, c.ID()); err != nil || uint64(c.Total) != r.Imported {
		t.Errorf("got total %d, %v, want %d", c.Total, err, r.Imported)
	}
	if *rows >= 100_000 && rose > 32<<20 {
		t.Errorf("freeze: got a heap that rose by %d bytes, want at most 32 MB", rose)
	}
}

// The same with the numbers and fields of usual contacts, of many zones: for the figures.
func BenchmarkFreeze(b *testing.B) {
	const n = 100_000
	s := newSQLite(b)
	tenant, err := s.CreateTenant(b.Context(), store.TenantSpec{Name: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	l, err := s.CreateList(b.Context(), tenant.ID, "all", false)
	if err != nil {
		b.Fatal(err)
	}
	r, err := s.Import(b.Context(), tenant.ID, l.Number, store.ImportOptions{Format: importfile.CSV}, streamCSV(n, manyCountries, 0), nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		c := confirmed(b, s, tenant, l)
		b.StartTimer()
		if err := s.Freeze(b.Context(), tenant.ID, c.ID(), c.Version); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if _, err := s.UpdateCampaign(b.Context(), tenant.ID, c.ID(), 0, store.Cause{Actor: schemas.ActorUser}, func(c *store.Campaign) (schemas.Trigger, error) {
			c.State = schemas.StateCancelled
			return schemas.TriggerCancel, nil
		}); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(r.Imported)*float64(b.N)/b.Elapsed().Seconds(), "contacts/s")
}

func confirmed(t testing.TB, s *store.Store, tenant store.Tenant, l store.List) store.Campaign {
	t.Helper()
	user := store.Cause{Actor: schemas.ActorUser}
	c, err := s.CreateCampaign(t.Context(), store.Campaign{Tenant: tenant.ID, State: schemas.StateConfigured, Spec: store.Spec{
		Name: "c", Chain: []schemas.Channel{schemas.ChannelSMS}, Lists: []uint64{l.Number},
	}}, user)
	if err != nil {
		t.Fatal(err)
	}
	c, err = s.Confirm(t.Context(), tenant.ID, c.ID(), 0, user, func(_ store.Confirmation, c *store.Campaign) (uint64, error) {
		c.State = schemas.StatePreparing
		return 0, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
