package relay_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/api/store"
	"fanfare/api/store/postgrestest"
	"fanfare/pipeline/relay"
	"fanfare/schemas"
)

// A6: the relay waits until each temporary condition of Postgres has passed, then publishes the rows that have changed
// meanwhile. It publishes a row again until it knows that the row is marked.
func TestRelayWaitsOutConditionsOfPostgres(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]postgrestest.Fault{
		"starting up":                 {At: postgrestest.Connect, Code: "57P03"},
		"too many connections":        {At: postgrestest.Connect, Code: "53300"},
		"a pooler without a server":   {At: postgrestest.Connect, Code: "08006"},
		"connections end at once":     {At: postgrestest.Connect},
		"shut down":                   {At: postgrestest.Read, Code: "57P01"},
		"crash":                       {At: postgrestest.Read, Code: "57P02"},
		"out of memory":               {At: postgrestest.Read, Code: "53200"},
		"reset":                       {At: postgrestest.Read},
		"silence":                     {At: postgrestest.Read, Silent: true},
		"disk full":                   {At: postgrestest.Write, Code: "53100"},
		"read-only":                   {At: postgrestest.Write, Code: "25006"},
		"read-only, old connections":  {At: postgrestest.Write, Code: "25006", Old: true},
		"serialization failure":       {At: postgrestest.Write, Code: "40001"},
		"deadlock":                    {At: postgrestest.Write, Code: "40P01"},
		"reset at a commit":           {At: postgrestest.Commit},
		"reset after a commit":        {At: postgrestest.Committed},
		"silence after a commit":      {At: postgrestest.Committed, Silent: true},
		"shut down after each commit": {At: postgrestest.Committed, Code: "57P01"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newEnv(t)
			path := filepath.Join(t.TempDir(), "store.db")
			open := func(dsn string) *store.Store {
				// On a busy machine the fake server may stay silent for longer than that.
				var s *store.Store
				var err error
				for until := time.Now().Add(90 * time.Second); ; {
					if s, err = store.Open(t.Context(), store.Config{DSN: dsn, Silence: 300 * time.Millisecond}); err == nil {
						break
					}
					if time.Now().After(until) {
						t.Fatal(err)
					}
				}
				t.Cleanup(func() { _ = s.Close() })
				return s
			}
			if err := store.Migrate(t.Context(), store.Config{DSN: path}); err != nil {
				t.Fatal(err)
			}
			server, dsn := postgrestest.OverSQLite(t, path)
			outbox, beside := open(dsn), open(path)
			w.runOver(t, outbox)
			first := w.tenant(t, beside, "first")
			w.published(t, beside, first)

			server.Fail(fault)
			second := w.tenant(t, beside, "second")
			some := 2 // tries; a relay that gives up after the first never reaches this number
			if fault.At == postgrestest.Committed || fault.Old {
				some = 1 // the store detects that the statement was done, or connects again
			}
			for deadline := time.Now().Add(time.Minute); server.Hits() < some; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("the fault struck %d times, want %d: the relay has given up", server.Hits(), some)
				}
			}
			if !fault.Old { // otherwise new connections work
				server.Mend()
			}
			w.published(t, beside, second)
			w.published(t, beside, w.tenant(t, beside, "third"))
		})
	}
}

// runOver runs a relay over a store until the test ends.
func (w *env) runOver(t *testing.T, outbox relay.Outbox) {
	t.Helper()
	r, err := relay.New(relay.Config{Cluster: w.cluster, AckTimeout: 2 * time.Second, Poll: 10 * time.Millisecond}, outbox)
	if err != nil {
		t.Fatal(err)
	}
	runs(t, r)
}

func (w *env) tenant(t *testing.T, s *store.Store, name string) (key string) {
	t.Helper()
	tenant, err := s.CreateTenant(t.Context(), store.TenantSpec{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return "tenant/" + tenant.ID
}

// published waits until a row is on the topic and no row is unpublished.
func (w *env) published(t *testing.T, s *store.Store, key string) {
	t.Helper()
	cl, err := w.cluster.Client(kgo.ConsumeTopics(w.cluster.Names.Control()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	found := false
	for deadline := time.Now().Add(time.Minute); ; {
		rows, err := s.Unpublished(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		if found && len(rows) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: on the topic %v, left to publish: %s", key, found, keysOf(rows))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) { found = found || string(r.Key) == key })
		cancel()
	}
}

func keysOf(rows []schemas.OutboxRow) (keys []string) {
	for _, row := range rows {
		keys = append(keys, row.Key)
	}
	return keys
}
