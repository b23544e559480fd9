package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"fanfare/sinks/analytics"
	"fanfare/sinks/analytics/analyticstest"
	"fanfare/sinks/analytics/sqlite"
)

func place(cache int) func(t *testing.T) func() analytics.Store {
	return func(t *testing.T) func() analytics.Store {
		path := filepath.Join(t.TempDir(), "analytics.db")
		return func() analytics.Store {
			s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, CacheBytes: cache})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	}
}

func TestConformance(t *testing.T) { analyticstest.Run(t, place(0)) }

// The answers are the same if the cache has room for one campaign only.
func TestConformanceWithoutMemory(t *testing.T) { analyticstest.RunHistory(t, place(1), 5) }

// A failed transaction changes neither the file nor the cache, so the same batch can be appended again.
func TestFailedTransaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "analytics.db")
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	saboteur, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer saboteur.Close()

	rng := rand.New(rand.NewPCG(4, 4))
	c := analyticstest.NewCampaign("tn_a", 10_001, time.Now())
	m := analyticstest.NewModel()
	batches := analyticstest.Batches(rng, analyticstest.History(rng, c, 100), 2, 20)
	// Each table in turn refuses inserts.
	tables := []string{"parts", "runs", "timeline", "sets", "campaigns", "customer_refs", "positions"}
	failed := map[string]bool{}
	for i, b := range batches {
		table := tables[i%len(tables)]
		if _, err := saboteur.Exec("CREATE TRIGGER saboteur BEFORE INSERT ON " + table + " BEGIN SELECT RAISE(ABORT, 'refused'); END"); err != nil {
			t.Fatal(err)
		}
		err := s.Append(t.Context(), b)
		if _, err := saboteur.Exec("DROP TRIGGER saboteur"); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			failed[table] = true
		}
		if errors.Is(err, analytics.ErrData) {
			t.Fatalf("append: got %v, want an error that may pass", err)
		}
		if err != nil && i%5 == 0 {
			analyticstest.Compare(t, s, m, c.Tenant, c.ID)
		}
		if err != nil && i%3 == 0 {
			// Reopen the store, as a new process would.
			s.Close()
			if s, err = sqlite.Open(t.Context(), sqlite.Config{Path: path}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		m.Append(b)
	}
	analyticstest.Compare(t, s, m, c.Tenant, c.ID)
	for _, table := range tables {
		if !failed[table] && table != "campaigns" { // only the first batch inserts a campaign
			t.Errorf("nothing was appended while %s refused rows", table)
		}
	}
}

// A closed store answers with an error.
func TestClosed(t *testing.T) {
	if _, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "a folder?", "#1.db")}); err == nil {
		t.Fatal("open in a folder that is not there: got no error")
	}
	path := filepath.Join(t.TempDir(), "odd name?#%20.db")
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file is not where it was asked for: %v", err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if _, err := s.Stats(t.Context(), "tn_a", "camp_10001"); !errors.Is(err, analytics.ErrClosed) {
		t.Errorf("stats: got %v, want %v", err, analytics.ErrClosed)
	}
	if err := s.Append(t.Context(), analytics.Batch{}); !errors.Is(err, analytics.ErrClosed) {
		t.Errorf("append: got %v, want %v", err, analytics.ErrClosed)
	}
}

// The cache stays within its limit, however many campaigns there are.
func TestManyCampaignsInLittleMemory(t *testing.T) {
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "analytics.db"), CacheBytes: 20_000})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	traffic := analyticstest.NewTraffic(200, 40)
	traffic.Lag = 100
	m := analyticstest.NewModel()
	for batches := traffic.Next(500); batches != nil; batches = traffic.Next(500) {
		if err := s.Append(t.Context(), batches...); err != nil {
			t.Fatal(err)
		}
		for _, b := range batches {
			m.Append(b)
		}
	}
	for i := 0; i < len(traffic.Campaigns); i += 23 {
		analyticstest.Compare(t, s, m, "tn_bench", traffic.Campaigns[i].ID)
	}
	if got := sqlite.CacheBytes(s); got > 20_000 {
		t.Errorf("got %d bytes in memory, want at most 20000", got)
	}
}

// A block that receives events for hours has few runs, also after failed transactions.
func TestRunsAreMerged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "analytics.db")
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	traffic := analyticstest.NewTraffic(1, 700)
	traffic.Lag, traffic.Partitions = 50, 1
	n := 0
	for batches := traffic.Next(1); batches != nil; batches = traffic.Next(1) {
		if n++; n%10 == 0 {
			if _, err := db.Exec("CREATE TRIGGER saboteur BEFORE INSERT ON parts BEGIN SELECT RAISE(ABORT, 'refused'); END"); err != nil {
				t.Fatal(err)
			}
			if err := s.Append(t.Context(), batches...); err == nil {
				t.Fatal("append while a table refuses rows: got no error")
			}
			if _, err := db.Exec("DROP TRIGGER saboteur"); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Append(t.Context(), batches...); err != nil {
			t.Fatal(err)
		}
	}
	var runs, events int
	if err := db.QueryRow("SELECT count(*), sum(events) FROM runs").Scan(&runs, &events); err != nil {
		t.Fatal(err)
	}
	// 750 appends leave 5 runs of level 2, 2 of level 1 and 6 of level 0.
	if want := 750/144 + 750%144/12 + 750%12; runs != want || events != 1400 {
		t.Errorf("got %d runs with %d events, want %d with 1400", runs, events, want)
	}
}

// A caller may cancel its context at any moment, also while a transaction begins. Later transactions work as before.
func TestCallersGiveUp(t *testing.T) {
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "analytics.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mark := func(ctx context.Context) error {
		return s.Mark(ctx, analyticstest.Topic, []analytics.Mark{{Partition: 1, End: 1, AsOf: time.Now()}})
	}
	began := time.Now()
	if err := mark(t.Context()); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(began)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 2000 {
		ctx, cancel := context.WithCancel(t.Context())
		timer := time.AfterFunc(time.Duration(rng.Int64N(int64(whole))), cancel)
		if err := mark(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("call %d: %v", i, err)
		}
		timer.Stop()
		cancel()
	}
	if err := mark(t.Context()); err != nil {
		t.Fatal(err)
	}
}
