package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"fanfare/deploy/testinfra"
	migrations "fanfare/schemas/sql"
)

func TestDoctorMigrations(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if code := Main(t.Context(), []string{"tenants", "list", "--data", dir}, nil, io.Discard, io.Discard); code != exitOK {
		t.Fatal("no store was made")
	}
	last, err := newest(migrations.Files)
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, func(c *Config) { c.Data = dir })
	if all := examineStore(t.Context(), cfg); len(all) != 1 || all[0].Level != levelOK || !strings.Contains(all[0].Found, fmt.Sprintf("at version %d", last)) {
		t.Errorf("got %+v, want it well at version %d", all, last)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "DELETE FROM goose_db_version WHERE version_id = ?", last); err != nil {
		t.Fatal(err)
	}
	wantBad(t, examineStore(t.Context(), cfg), fmt.Sprintf("tables are at version %d, this program wants %d", last-1, last), "fanfare migrate")
	if _, err := db.ExecContext(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, TRUE)"); err != nil {
		t.Fatal(err)
	}
	wantBad(t, examineStore(t.Context(), cfg), fmt.Sprintf("tables are at version 9999, this program knows %d", last), "newer fanfare")
}

func shortID() string { return strings.ToLower(rand.Text()[:8]) }

// servicesOf are the flags that name the services of the test machine, and a prefix of our own.
func servicesOf(t testing.TB) (flags []string, prefix string) {
	t.Helper()
	addr := testinfra.Need(t, testinfra.All...)
	prefix = "doc" + shortID() + "."
	return []string{
		"--kafka", addr[testinfra.Kafka], "--redis", addr[testinfra.Redis], "--clickhouse", addr[testinfra.ClickHouse], "--store", addr[testinfra.Postgres],
		"--prefix", prefix, "--data", t.TempDir(), "--http", "127.0.0.1:0",
	}, prefix
}

// On real services: nothing is bad before the first start; when tables and topics are there, everything is well.
func TestIntegrationDoctor(t *testing.T) {
	flags, _ := servicesOf(t)
	all, code := runDoctor(t, flags...)
	if code != exitOK || len(of(all, levelNote)) != 3 {
		t.Errorf("got code %d and %+v, want 0 and three notes: no tables, twice, and no topics", code, all)
	}
	for _, command := range []string{"migrate", "topics"} {
		var stderr strings.Builder
		connection := flags[:len(flags)-2] // without --http
		if code := Main(t.Context(), append([]string{command}, connection...), nil, io.Discard, &stderr); code != exitOK {
			t.Fatalf("%s: %s", command, stderr.String())
		}
	}
	all, code = runDoctor(t, flags...)
	if code != exitOK || len(of(all, levelOK)) != len(all) {
		t.Errorf("got code %d and %+v, want 0 and all well", code, all)
	}
}

// A user of Postgres who may log in and nothing else, then one who may do more, step by step.
func TestIntegrationDoctorPostgresRights(t *testing.T) {
	addr := testinfra.Need(t, testinfra.Postgres)[testinfra.Postgres]
	ctx := t.Context()
	admin, err := pgx.Connect(ctx, addr)
	if err != nil {
		t.Fatal(err)
	}
	id := shortID()
	user, prefix := "user_"+id, "doc"+id+"."
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
	examineIt := func() []finding {
		return examineStore(ctx, testConfig(t, func(c *Config) { c.Store, c.Prefix = as, prefix }))
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
	if bad := of(examineIt(), levelBad); len(bad) > 0 {
		t.Errorf("got %+v, want nothing bad", bad)
	}
	do("ALTER ROLE " + user + " SET default_transaction_read_only = on")
	wantBad(t, examineIt(), "transactions are read-only", "ALTER ROLE "+user)
	if got := examineStore(ctx, testConfig(t, func(c *Config) { c.Store = strings.Replace(as, "/postgres?", "/nodb"+id+"?", 1) })); len(got) != 1 {
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
