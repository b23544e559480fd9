package store_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fanfare/api/store"
)

// TestOutboxPollReadsNoTable: the relay's poll reads partial indexes and never a whole table, so it costs the same with
// 100,000 campaigns as with none. BenchmarkUnpublishedIdle measures it, on Postgres too.
func TestOutboxPollReadsNoTable(t *testing.T) {
	cfg := store.Config{DSN: filepath.Join(t.TempDir(), "store.db")}
	if err := store.Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", cfg.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	outbox, err := os.ReadFile("queries/outbox.sql")
	if err != nil {
		t.Fatal(err)
	}
	campaigns, err := os.ReadFile("queries/campaigns.sql")
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"AnyUnpublished": string(outbox), "UnpublishedCampaigns": string(campaigns), "RepublishedTombstones": string(campaigns), "DueTombstones": string(campaigns)} {
		_, query, ok := strings.Cut(file, "-- name: "+name+" ")
		if !ok {
			t.Fatalf("no query %s", name)
		}
		_, query, _ = strings.Cut(query, "\n")
		query, _, _ = strings.Cut(query, ";")
		query = strings.NewReplacer("@before", "1", "@max", "1", "LIMIT ?", "LIMIT 1").Replace(query)
		rows, err := db.Query("EXPLAIN QUERY PLAN " + query)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer rows.Close()
		steps := 0
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(detail, "SCAN") || strings.HasPrefix(detail, "SEARCH") {
				steps++
				if !strings.Contains(detail, "_outbox") && !strings.Contains(detail, "campaigns_tombstones") && !strings.Contains(detail, "campaigns_ended") && detail != "SCAN CONSTANT ROW" {
					t.Errorf("%s: %s, want a partial index", name, detail)
				}
			}
		}
		if err := rows.Err(); err != nil || steps == 0 {
			t.Errorf("%s: got %d steps, %v", name, steps, err)
		}
	}
}
