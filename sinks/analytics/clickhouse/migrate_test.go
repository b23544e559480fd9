package clickhouse

import (
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"fanfare/deploy/testinfra"
	"fanfare/schemas"
	tables "fanfare/schemas/clickhouse"
	"fanfare/sinks/analytics"
	"fanfare/sinks/analytics/analyticstest"
)

// Migrating from every earlier version, with a row in it, loses nothing, and a batch can be appended afterwards.
func TestMigrateFromEveryVersion(t *testing.T) {
	server := testinfra.Need(t, testinfra.ClickHouse)[testinfra.ClickHouse]
	const newest = 4
	for version := int64(1); version <= newest; version++ {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			opts, err := chgo.ParseDSN(server)
			if err != nil {
				t.Fatal(err)
			}
			database := "test_" + strings.ToLower(rand.Text()[:12])
			conn, err := chgo.Open(opts)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := conn.Exec(context.Background(), "DROP DATABASE "+database+" SYNC"); err != nil {
					t.Error(err)
				}
				_ = conn.Close()
			})
			if err := conn.Exec(t.Context(), "CREATE DATABASE "+database+" ENGINE = Atomic"); err != nil {
				t.Fatal(err)
			}
			inside := *opts
			inside.Auth.Database = database
			db := chgo.OpenDB(&inside)
			if err := migrate(t.Context(), db, version); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			c := analyticstest.NewCampaign("tn_old", 10_001, time.Now())
			if err := conn.Exec(t.Context(), fmt.Sprintf(`INSERT INTO %s.events (tenant_id, campaign_id, campaign_month, seq, kind, prec, event_time)
				VALUES ('%s', '%s', '%s', 0, 'sent', 0x20010000, now64(3))`, database, c.Tenant, c.ID, c.Month.Format(time.DateOnly))); err != nil {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), Config{DSN: server, Database: database})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			if err := s.Append(t.Context(), analytics.Batch{Topic: analyticstest.Topic, End: 1, Events: []analytics.Event{
				{Campaign: c, Seq: 1, Kind: schemas.KindSent, Try: 1},
			}}); err != nil {
				t.Fatal(err)
			}
			stats, err := s.Stats(t.Context(), c.Tenant, c.ID)
			if err != nil || stats.Figures(2).Sent != 2 {
				t.Errorf("got %+v, %v, want the old row and the new one", stats, err)
			}
			files, err := fs.Glob(tables.Files, "*.sql")
			if err != nil || len(files) != newest {
				t.Errorf("migrations: got %v, %v; this test knows %d", files, err, newest)
			}
		})
	}
}
