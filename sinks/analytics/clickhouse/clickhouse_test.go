package clickhouse_test

import (
	"crypto/rand"
	"os"
	"strings"
	"testing"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"fanfare/sinks/analytics"
	"fanfare/sinks/analytics/analyticstest"
	"fanfare/sinks/analytics/clickhouse"
)

// dsn returns the address of the ClickHouse of the tests, and a database of this test's own, dropped when it ends.
func dsn(t testing.TB) (dsn, database string) {
	t.Helper()
	dsn = os.Getenv("FANFARE_TEST_CLICKHOUSE")
	if dsn == "" {
		t.Skip("no ClickHouse: FANFARE_TEST_CLICKHOUSE names none")
	}
	database = "test_" + strings.ToLower(rand.Text()[:12])
	t.Cleanup(func() { exec(t, dsn, "DROP DATABASE IF EXISTS "+database+" SYNC") })
	return dsn, database
}

// exec runs a statement beside the store.
func exec(t testing.TB, dsn, statement string) {
	t.Helper()
	opts, err := chgo.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := chgo.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Exec(t.Context(), statement); err != nil && t.Context().Err() == nil {
		t.Errorf("%s: %v", statement, err)
	}
}

func place(t *testing.T) func() analytics.Store {
	server, database := dsn(t)
	return func() analytics.Store {
		s, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: server, Database: database})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func TestConformance(t *testing.T) {
	if os.Getenv("FANFARE_TEST_CLICKHOUSE") == "" {
		t.Skip("no ClickHouse: FANFARE_TEST_CLICKHOUSE names none")
	}
	analyticstest.Run(t, place)
}
