package api_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"fanfare/api/store"
	"fanfare/api/store/postgrestest"
	"fanfare/deploy/testinfra"
	"fanfare/schemas"
)

// postgresConditions are what Postgres does, or the way to it, while something passes by itself (A6).
var postgresConditions = []struct {
	name  string
	fault postgrestest.Fault
	// heals: the store does it again by itself, or finds out that it was done, so that the client sees nothing.
	heals bool
}{
	{"starting up", postgrestest.Fault{At: postgrestest.Connect, Code: "57P03"}, false},
	{"too many connections", postgrestest.Fault{At: postgrestest.Connect, Code: "53300"}, false},
	{"a pooler without a server", postgrestest.Fault{At: postgrestest.Connect, Code: "08006"}, false},
	{"connections end at once", postgrestest.Fault{At: postgrestest.Connect}, false},
	{"no answer to a new connection", postgrestest.Fault{At: postgrestest.Connect, Silent: true}, false},

	{"shut down, at the beginning", postgrestest.Fault{At: postgrestest.Begin, Code: "57P01"}, false},
	{"shut down, at a write", postgrestest.Fault{At: postgrestest.Write, Code: "57P01"}, false},
	{"crash of another session, at a write", postgrestest.Fault{At: postgrestest.Write, Code: "57P02"}, false},
	{"a pooler loses its server, at a write", postgrestest.Fault{At: postgrestest.Write, Code: "08006"}, false},
	{"disk full", postgrestest.Fault{At: postgrestest.Write, Code: "53100"}, false},
	{"out of memory", postgrestest.Fault{At: postgrestest.Write, Code: "53200"}, false},
	{"input or output error", postgrestest.Fault{At: postgrestest.Write, Code: "58030"}, false},
	{"lock not available", postgrestest.Fault{At: postgrestest.Write, Code: "55P03"}, false},
	{"read-only after a failover", postgrestest.Fault{At: postgrestest.Write, Code: "25006"}, false},
	{"read-only on the old connections", postgrestest.Fault{At: postgrestest.Write, Code: "25006", Old: true}, false},
	{"reset at a write", postgrestest.Fault{At: postgrestest.Write}, false},
	{"silence at a write", postgrestest.Fault{At: postgrestest.Write, Silent: true}, false},
	{"disk full at a commit", postgrestest.Fault{At: postgrestest.Commit, Code: "53100"}, false},
	{"shut down at a commit", postgrestest.Fault{At: postgrestest.Commit, Code: "57P01"}, false},
	{"reset at a commit", postgrestest.Fault{At: postgrestest.Commit}, false},
	{"silence at a commit", postgrestest.Fault{At: postgrestest.Commit, Silent: true}, false},

	{"serialization failure", postgrestest.Fault{At: postgrestest.Write, Code: "40001"}, true},
	{"deadlock", postgrestest.Fault{At: postgrestest.Write, Code: "40P01"}, true},
	{"serialization failure at a commit", postgrestest.Fault{At: postgrestest.Commit, Code: "40001"}, true},
	{"shut down after a commit", postgrestest.Fault{At: postgrestest.Committed, Code: "57P01"}, true},
	{"a pooler loses its server after a commit", postgrestest.Fault{At: postgrestest.Committed, Code: "08006"}, true},
	{"reset after a commit", postgrestest.Fault{At: postgrestest.Committed}, true},
	{"silence after a commit", postgrestest.Fault{At: postgrestest.Committed, Silent: true}, true},
}

// silence is how long the stores of these tests wait for an answer.
const silence = time.Second

// faultyPostgres is the API on a Postgres that fails when it is told to.
type faultyPostgres struct {
	*env
	server *postgrestest.Server
	store  *store.Store
	tables *sql.DB // beside the server
	list   string
}

// newFaultyPostgres serves the API over a SQLite file in the words of Postgres, or, if real has an address, over that
// Postgres.
func newFaultyPostgres(t *testing.T, real string) *faultyPostgres {
	t.Helper()
	f := &faultyPostgres{}
	f.env = newEnvOf(t, func(w *env) {
		cfg := store.Config{Keys: w.keys, Now: w.clock.now, Silence: silence}
		var err error
		if real == "" {
			f.server, cfg.DSN = postgrestest.OverSQLite(t, w.dsn)
			f.tables, err = sql.Open("sqlite", w.dsn+"?_pragma=busy_timeout(10000)")
			w.check(err)
		} else {
			schema := "test_" + strings.ToLower(rand.Text()[:12])
			w.check(store.Migrate(t.Context(), store.Config{DSN: real, Schema: schema}))
			pg, err := pgx.ParseConfig(real)
			w.check(err)
			pg.RuntimeParams["search_path"] = schema
			f.tables = stdlib.OpenDB(*pg)
			t.Cleanup(func() { _, _ = f.tables.ExecContext(context.Background(), "DROP SCHEMA "+schema+" CASCADE") })
			f.server, cfg.DSN = postgrestest.InFrontOf(t, real, schema)
		}
		f.store, err = store.Open(t.Context(), cfg)
		w.check(err)
		w.store, w.deps.Store = f.store, f.store
		if real != "" {
			_, _, err = w.store.EnsureRoute(t.Context(), store.Route{
				Name: "sim", Connector: "sim", Rate: 2000, Enabled: true, P99: 50 * time.Millisecond, ReceiptWindow: time.Hour, Channels: []schemas.Channel{schemas.ChannelSMS},
			})
			w.check(err)
			w.tenant, w.key = w.newTenant("Acme")
		}
	})
	t.Cleanup(func() { _, _ = f.store.Close(), f.tables.Close() })
	t.Cleanup(f.server.Mend)
	f.list = f.env.list("people", 3, 500_000)
	f.call("GET", "/api/campaigns", "").want(200) // the key is known
	return f
}

// campaigns returns how many campaigns of a name the tables have.
func (f *faultyPostgres) campaigns(name string) (n int) {
	f.Helper()
	f.check(f.tables.QueryRowContext(f.Context(), "SELECT COUNT(*) FROM campaigns WHERE name = '"+name+"'").Scan(&n))
	return n
}

// refused checks an answer that sends the client away for a while.
func (f *faultyPostgres) refused(a *answer, code string) {
	f.Helper()
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		f.Errorf("%s: got %d %s with Retry-After %q, want 503 and when to come again", a.what, a.status, a.body, a.header.Get("Retry-After"))
	}
	if code != "" && strings.Contains(string(a.body), code) {
		f.Errorf("%s: got %s, want nothing of what Postgres said", a.what, a.body)
	}
}

// create creates a campaign, and repeats the request with the same Idempotency-Key while the answers say to retry. It
// returns the answers. The fault ends after it has happened once.
func (f *faultyPostgres) create(name string) (answers []*answer) {
	f.Helper()
	body := fmt.Sprintf(`{"name":%q,"channel":"sms","message":"Hello","contactList":%q}`, name, f.list)
	for range 6 {
		a := f.call("POST", "/api/campaigns", body, header{"Idempotency-Key", name})
		answers = append(answers, a)
		if f.server.Hits() > 0 || len(answers) == 3 { // clients that were cut off notice before they connect again
			f.server.Mend()
		}
		switch {
		case a.status == http.StatusConflict && strings.Contains(string(a.body), "has changed something"):
			return answers
		case a.status == http.StatusConflict:
			f.clock.forward(3 * time.Minute) // the first request counts as dead
		case a.status != http.StatusServiceUnavailable:
			return answers
		}
	}
	return answers
}

func (f *faultyPostgres) created(name string, answers []*answer) {
	f.Helper()
	last := answers[len(answers)-1]
	if last.status != http.StatusCreated && last.status != http.StatusConflict {
		f.Errorf("%s: got %d %s in the end, want it created", name, last.status, last.body)
	}
	if n := f.campaigns(name); n != 1 {
		f.Errorf("%s: got %d campaigns after %d answers, want one: %s", name, n, len(answers), last.body)
	}
}

func testPostgresConditions(t *testing.T, real string) {
	for _, c := range postgresConditions {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFaultyPostgres(t, real)
			// The condition lasts: the client is sent away, and nothing of the request is done, or all of it.
			f.server.Fail(c.fault)
			answers := f.create("lasting")
			if f.server.Hits() == 0 {
				t.Fatal("the fault never struck")
			}
			if first := answers[0]; !c.heals || first.status != http.StatusCreated {
				f.refused(first, c.fault.Code)
			}
			f.created("lasting", answers)
			// It strikes once, at each place in turn.
			for after := 0; ; after++ {
				once := c.fault
				once.After, once.Times = after, 1
				f.server.Fail(once)
				name := fmt.Sprintf("once after %d", after)
				answers := f.create(name)
				if c.heals && answers[0].status != http.StatusCreated {
					t.Errorf("%s: got %d %s, want the store to try again or to find out by itself", name, answers[0].status, answers[0].body)
				}
				f.created(name, answers)
				if f.server.Hits() == 0 {
					if after == 0 && once.At != postgrestest.Connect {
						t.Error("it never struck")
					}
					break
				}
			}
		})
	}
}

// A6: each condition of Postgres that passes by itself, met in flight, becomes another try of the store or 503 with
// Retry-After; after it, the client's repeated request is done exactly once, wherever the first one was hit.
func TestPostgresConditionsInFlight(t *testing.T) {
	t.Parallel()
	testPostgresConditions(t, "")
}

func TestIntegrationPostgresConditionsInFlight(t *testing.T) {
	testPostgresConditions(t, testinfra.Need(t, testinfra.Postgres)[testinfra.Postgres])
}

// A6: while Postgres cannot be read, reading is answered 503 with Retry-After, and never 401 or 404.
func TestPostgresConditionsOfReads(t *testing.T) {
	t.Parallel()
	f := newFaultyPostgres(t, "")
	id := f.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"read","channel":"sms","message":"Hello","contactList":%q}`, f.list)).want(201).id()
	other := f.newKey(f.tenant.ID, nil, false) // its first use asks the store
	for _, fault := range []postgrestest.Fault{
		{At: postgrestest.Read, Code: "57P01"},
		{At: postgrestest.Read, Code: "53200"},
		{At: postgrestest.Read, Code: "08006"},
		{At: postgrestest.Read, Code: "58030"},
		{At: postgrestest.Read},
		{At: postgrestest.Read, Silent: true},
		{At: postgrestest.Connect, Code: "57P03"},
		{At: postgrestest.Connect, Code: "53300"},
	} {
		for _, path := range []string{"/api/campaigns", "/api/campaigns/" + id, "/api/contacts"} {
			f.server.Fail(fault)
			f.refused(f.call("GET", path, ""), fault.Code)
			if path == "/api/campaigns" {
				f.refused(f.callAs(other, "GET", path, ""), fault.Code)
			}
			f.server.Mend()
			f.call("GET", path, "").want(200)
		}
	}
	f.callAs(other, "GET", "/api/campaigns", "").want(200)
}
