package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"fanfare/api/store"
	"fanfare/api/store/postgrestest"
	"fanfare/api/store/storetest"
	"fanfare/deploy/testinfra"
)

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t testing.TB, cfg store.Config) (store.Config, *sql.DB) {
		cfg.DSN = sqliteFile(t)
		db, err := sql.Open("sqlite", cfg.DSN+"?_pragma=busy_timeout(10000)")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		return cfg, db
	})
}

// migrated is a SQLite file with the tables: made once, for a hundred tests get a copy.
var migrated = sync.OnceValues(func() (content []byte, err error) {
	dir, err := os.MkdirTemp("", "fanfare-store")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "template.db")
	if err := store.Migrate(context.Background(), store.Config{DSN: path}); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// sqliteFile returns the path of a fresh SQLite file with the tables.
func sqliteFile(t testing.TB) string {
	t.Helper()
	content, err := migrated()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "store.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The Postgres of the fault tests answers as one does.
func TestPostgresOverSQLite(t *testing.T) {
	if testing.Short() {
		t.Skip("the whole suite once more")
	}
	storetest.Run(t, func(t testing.TB, cfg store.Config) (store.Config, *sql.DB) {
		path := sqliteFile(t)
		_, cfg.DSN = postgrestest.OverSQLite(t, path)
		db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(10000)")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		return cfg, db
	})
}

// postgresAddress is where a Postgres may be used for tests.
func postgresAddress(t testing.TB) string {
	t.Helper()
	return testinfra.Need(t, testinfra.Postgres)[testinfra.Postgres]
}

func TestIntegrationPostgres(t *testing.T) {
	postgresAddress(t)
	storetest.Run(t, openPostgres)
}

// openPostgres makes a schema of its own, so that tests know nothing of each other, nor of the last run.
func openPostgres(t testing.TB, cfg store.Config) (store.Config, *sql.DB) {
	t.Helper()
	address := postgresAddress(t)
	cfg.DSN, cfg.Schema = address, fmt.Sprintf("test_%d", rand.Uint64())
	if err := store.Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	pg, err := pgx.ParseConfig(address)
	if err != nil {
		t.Fatal(err)
	}
	pg.RuntimeParams["search_path"] = cfg.Schema
	db := stdlib.OpenDB(*pg)
	t.Cleanup(func() {
		_, err := db.Exec("DROP SCHEMA " + cfg.Schema + " CASCADE")
		if err != nil && !strings.Contains(err.Error(), "does not exist") {
			t.Error(err)
		}
		_ = db.Close()
	})
	return cfg, db
}

// If the server has ended the session of a leader, the leader gets an error before it publishes anything more, because
// another process may lead by then.
func TestIntegrationPostgresLostLead(t *testing.T) {
	cfg := store.Config{DSN: postgresAddress(t), Schema: fmt.Sprintf("test_%d", rand.Uint64())}
	if err := store.Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("pgx", cfg.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_, _ = db.Exec("DROP SCHEMA " + cfg.Schema + " CASCADE")
		_ = db.Close()
	}()
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	release, ok, err := s.Lead(t.Context())
	if err != nil || !ok {
		t.Fatalf("got lead %v, %v", ok, err)
	}
	if _, err := s.Unpublished(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	key := fnv.New64a()
	_, _ = fmt.Fprintf(key, "fanfare/%s/relay", cfg.Schema)
	var ended int
	if err := db.QueryRow("SELECT COUNT(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1 AND objid = $2",
		uint32(key.Sum64()>>32), uint32(key.Sum64())).Scan(&ended); err != nil || ended != 1 {
		t.Fatalf("got %d sessions ended, %v, want one", ended, err)
	}
	if _, err := s.Unpublished(t.Context(), 10); !errors.Is(err, store.ErrNoLead) {
		t.Errorf("got error %v, want that the lead is lost", err)
	}
	release()
	if _, ok, err := s.Lead(t.Context()); err != nil || !ok {
		t.Errorf("got lead %v, %v after giving the lost one back, want it", ok, err)
	}
}
