package doctor

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"fanfare/api/store"
	"fanfare/deploy/testinfra"
	migrations "fanfare/schemas/sql"
)

func TestMigrations(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := store.Migrate(t.Context(), store.Config{DSN: filepath.Join(dir, "store.db")}); err != nil {
		t.Fatal(err)
	}
	last, err := newest(migrations.Files)
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, func(c *Config) { c.Data = dir })
	if all := examineStore(t.Context(), cfg); len(all) != 1 || all[0].Level != OK || !strings.Contains(all[0].Found, fmt.Sprintf("at version %d", last)) {
		t.Errorf("got %+v, want it ok at version %d", all, last)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "DELETE FROM goose_db_version WHERE version_id = ?", last); err != nil {
		t.Fatal(err)
	}
	wantBad(t, examineStore(t.Context(), cfg), fmt.Sprintf("this program wants %d", last), "fanfare migrate")
	if _, err := db.ExecContext(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, TRUE)"); err != nil {
		t.Fatal(err)
	}
	wantBad(t, examineStore(t.Context(), cfg), fmt.Sprintf("tables are at version 9999, this program knows %d", last), "newer fanfare")
}

func shortID() string { return strings.ToLower(rand.Text()[:8]) }

// The test grants a user of Postgres that may only log in one right after the other; each time the doctor names the
// next missing right.
func TestIntegrationDoctorPostgresRights(t *testing.T) {
	addr := testinfra.Need(t, testinfra.Postgres)[testinfra.Postgres]
	ctx := t.Context()
	admin, err := pgx.Connect(ctx, addr)
	if err != nil {
		t.Fatal(err)
	}
	id := shortID()
	user, schema := "user_"+id, "doc"+id
	do := func(statement string) {
		t.Helper()
		if _, err := admin.Exec(ctx, statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(ctx)
		for _, statement := range []string{"DROP SCHEMA IF EXISTS doc" + id + " CASCADE", "DROP OWNED BY " + user, "DROP ROLE " + user} {
			_, _ = admin.Exec(ctx, statement)
		}
		_ = admin.Close(ctx)
	})
	do("CREATE ROLE " + user + " LOGIN PASSWORD 'pw'")
	as, err := withUser(addr, user, "pw")
	if err != nil {
		t.Fatal(err)
	}
	examineIt := func() []Finding {
		return examineStore(ctx, testConfig(t, func(c *Config) { c.Postgres, c.Schema = as, schema }))
	}
	wantBad(t, examineIt(), "may not create it", "AUTHORIZATION "+user)
	do("CREATE SCHEMA doc" + id)
	wantBad(t, examineIt(), "may not use schema doc"+id, "OWNER TO "+user)
	do("GRANT USAGE ON SCHEMA doc" + id + " TO " + user)
	wantBad(t, examineIt(), "may not create tables in schema doc"+id, "OWNER TO "+user)
	do("CREATE TABLE doc" + id + ".tenants (id TEXT)")
	wantBad(t, examineIt(), "may not read and write tenants", "GRANT ALL ON ALL TABLES IN SCHEMA doc"+id)
	do("DROP TABLE doc" + id + ".tenants")
	do("ALTER SCHEMA doc" + id + " OWNER TO " + user)
	if bad := of(examineIt(), Bad); len(bad) > 0 {
		t.Errorf("got %+v, want nothing bad", bad)
	}
	do("ALTER ROLE " + user + " SET default_transaction_read_only = on")
	wantBad(t, examineIt(), "transactions are read-only", "ALTER ROLE "+user)
	if got := examineStore(ctx, testConfig(t, func(c *Config) { c.Postgres = strings.Replace(as, "/postgres?", "/nodb"+id+"?", 1) })); len(got) != 1 {
		t.Errorf("got %+v, want one finding", got)
	} else {
		wantBad(t, got, "there is no database \"nodb"+id, "createdb")
	}
}

func withUser(addr, user, password string) (string, error) {
	cfg, err := pgx.ParseConfig(addr)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("postgres://%s:%s@%s:%d/%s?sslmode=disable", user, password, cfg.Host, cfg.Port, cfg.Database), nil
}
