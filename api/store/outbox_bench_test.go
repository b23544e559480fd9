package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"fanfare/api/store"
	"fanfare/schemas"
)

// BenchmarkUnpublishedIdle is the relay's poll of a store with 100,000 campaigns of which none has changed: at most 1
// ms.
func BenchmarkUnpublishedIdle(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) {
		cfg := store.Config{DSN: filepath.Join(b.TempDir(), "store.db")}
		if err := store.Migrate(b.Context(), cfg); err != nil {
			b.Fatal(err)
		}
		db, err := sql.Open("sqlite", cfg.DSN)
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		benchmarkIdle(b, cfg, db, "SELECT name FROM pragma_table_info('campaigns')")
	})
	b.Run("postgres", func(b *testing.B) {
		cfg := store.Config{DSN: postgresAddress(b), Schema: fmt.Sprintf("test_%d", rand.Uint64())}
		if err := store.Migrate(b.Context(), cfg); err != nil {
			b.Fatal(err)
		}
		pg, err := pgx.ParseConfig(cfg.DSN)
		if err != nil {
			b.Fatal(err)
		}
		pg.RuntimeParams["search_path"] = cfg.Schema
		db := stdlib.OpenDB(*pg)
		defer func() {
			_, _ = db.Exec("DROP SCHEMA " + cfg.Schema + " CASCADE")
			_ = db.Close()
		}()
		benchmarkIdle(b, cfg, db, "SELECT column_name FROM information_schema.columns WHERE table_name = 'campaigns' AND table_schema = '"+cfg.Schema+"'")
	})
}

func benchmarkIdle(b *testing.B, cfg store.Config, db *sql.DB, columnNames string) {
	s, err := store.Open(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	copies(b, s, db, columnNames, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		rows, err := s.Unpublished(context.Background(), 500)
		if err != nil || len(rows) != 0 {
			b.Fatalf("got %v, %v; want none", rows, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "µs/poll")
}

// copies fills a store with n campaigns whose rows are published: a third each are running, over, and over for so long
// that their tombstones were published.
func copies(b *testing.B, s *store.Store, db *sql.DB, columnNames string, n int) {
	b.Helper()
	t, err := s.CreateTenant(b.Context(), store.TenantSpec{Name: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	origin := store.Campaign{Tenant: t.ID, State: schemas.StateDraft, Spec: store.Spec{Name: "origin", Chain: []schemas.Channel{schemas.ChannelSMS}}}
	c, err := s.CreateCampaign(b.Context(), origin, store.Cause{Actor: schemas.ActorUser, By: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	found, err := db.Query(columnNames)
	if err != nil {
		b.Fatal(err)
	}
	defer found.Close()
	var columns, values []string
	for found.Next() {
		var name string
		if err := found.Scan(&name); err != nil {
			b.Fatal(err)
		}
		columns = append(columns, name)
		switch name {
		case "number":
			name = "c.number + n.i"
		case "published_version":
			name = "c.version"
		case "tombstone":
			name = "CASE WHEN n.i % 3 = 2 THEN 2 ELSE 0 END"
		case "ended_ms":
			name = fmt.Sprintf("CASE n.i %% 3 WHEN 0 THEN 0 WHEN 1 THEN %d ELSE 1 END", time.Now().UnixMilli())
		default:
			name = "c." + name
		}
		values = append(values, name)
	}
	if err := found.Err(); err != nil || !slices.Contains(columns, "number") {
		b.Fatalf("got columns %v, %v", columns, err)
	}
	for _, query := range []string{
		fmt.Sprintf("INSERT INTO campaigns (%s) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT %s FROM campaigns c, n WHERE c.number = %d",
			strings.Join(columns, ", "), n, strings.Join(values, ", "), c.Number),
		"UPDATE campaigns SET published_version = version", "UPDATE tenants SET published_version = version", "UPDATE routes SET published_version = version",
		"UPDATE senders SET published_version = version", "ANALYZE",
	} {
		if _, err := db.Exec(query); err != nil {
			b.Fatal(err)
		}
	}
}
