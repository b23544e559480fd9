package store

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"fanfare/deploy/testinfra"
	migrations "fanfare/schemas/sql"
)

// fixtures are rows as a store of that version wrote them. What is added here is never changed: that is what upgrades are
// tested with.
var fixtures = map[int64][]string{
	1: {
		`INSERT INTO tenants VALUES ('tn_old', 'old', TRUE, TRUE, 'IT', 'Europe/Rome', 'EUR', 'sim', 'FANFARE', 10, 1000000, 3, 0, 1, 4, 3, 1, 2)`,
		`INSERT INTO balances VALUES ('tn_old', 500, 30, 20, 2)`,
	},
	2: {
		`INSERT INTO contact_lists VALUES (10001, 'tn_old', 'l', 'l', FALSE, 1, 1, 2, 1, 1, 0)`,
		`INSERT INTO contacts VALUES (1, 'tn_old', '+393330000001', 'Anna', '', '', '{"city":"Roma"}', 'IT', 'Europe/Rome', 1, TRUE, 1, 1, 1, 0)`,
		`INSERT INTO list_members VALUES ('tn_old', 10001, 0, 1)`,
	},
	3: {
		`INSERT INTO campaigns VALUES (10002, 'tn_old', 3, 3, 0, 6, '', FALSE, '', TRUE, 't', 't', '', 1, 'IT', 'EUR',
		  '{"Name":"t","Chain":[1],"Lists":[10001]}', '[]', '', 0, 0, '', 0, 0, 0, 'key', 'key', 1, 1, 1, 0, 0, 0, 0, 0, 0, FALSE)`,
		`INSERT INTO campaigns VALUES (10001, 'tn_old', 3, 3, 0, 6, '', FALSE, '', FALSE, 'c', 'c', '', 1, 'IT', 'EUR',
		  '{"Name":"c","Chain":[1],"Lists":[10001]}', '[{"Channel":1,"Route":"sim"}]', '', 0, 0, '', 0, 30, 20, 'key', 'key', 1, 1, 1, 0, 0, 0, 0, 0, 0, FALSE)`,
	},
}

func TestMigrateFromEveryVersion(t *testing.T) {
	migrateFromEveryVersion(t, func(t *testing.T) Config { return Config{DSN: filepath.Join(t.TempDir(), "store.db")} })
}

func TestIntegrationMigratePostgres(t *testing.T) {
	address := testinfra.Need(t, testinfra.Postgres)[testinfra.Postgres]
	migrateFromEveryVersion(t, func(t *testing.T) Config {
		cfg := Config{DSN: address, Schema: fmt.Sprintf("migrate_%d", rand.Uint64())}
		t.Cleanup(func() {
			db, err := sql.Open("pgx", address)
			if err == nil {
				_, err = db.Exec("DROP SCHEMA " + cfg.Schema + " CASCADE")
			}
			if err := errors.Join(err, db.Close()); err != nil {
				t.Error(err)
			}
		})
		return cfg
	})
}

// From every version that ever was, with its rows in it, to this one.
func migrateFromEveryVersion(t *testing.T, fresh func(*testing.T) Config) {
	t.Helper()
	newest, err := newestMigration()
	if err != nil {
		t.Fatal(err)
	}
	for version := int64(1); version <= newest; version++ {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			cfg := fresh(t)
			for v := int64(1); v <= version; v++ {
				if err := migrateTo(t.Context(), cfg, migrations.Files, v); err != nil {
					t.Fatal(err)
				}
				d, err := connect(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				exec := d.readers.ExecContext
				if d.writer != nil { // SQLite has one
					exec = d.writer.ExecContext
				}
				for _, statement := range fixtures[v] {
					if _, err := exec(t.Context(), statement); err != nil {
						t.Fatalf("version %d: %v", v, err)
					}
				}
				if err := d.close(); err != nil {
					t.Fatal(err)
				}
			}
			if version < newest {
				if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrSchema) {
					t.Errorf("got error %v before migrating, want ErrSchema", err)
				}
			}
			if err := Migrate(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			checkFixtures(t, s, version)
		})
	}
}

func checkFixtures(t *testing.T, s *Store, version int64) {
	t.Helper()
	tenant, err := s.TenantByName(t.Context(), "old")
	if err != nil || tenant.ID != "tn_old" || tenant.Version != 4 || tenant.MaxActive != 10 {
		t.Errorf("got tenant %+v, %v", tenant, err)
	}
	if b, err := s.Balance(t.Context(), "tn_old"); err != nil || b != (Balance{Available: 500, Reserved: 30, Captured: 20}) {
		t.Errorf("got balance %+v, %v", b, err)
	}
	if version >= 2 {
		rows, n, err := s.Contacts(t.Context(), "tn_old", ContactFilter{List: 10001})
		if err != nil || n != 1 || rows[0].Phone != "+393330000001" || rows[0].Attributes["city"] != "Roma" {
			t.Errorf("got contacts %+v, %v", rows, err)
		}
	}
	if version >= 2 {
		rows, n, err := s.Contacts(t.Context(), "tn_old", ContactFilter{Search: "anna"})
		if err != nil || n != 1 || rows[0].FirstName != "Anna" {
			t.Errorf("got %+v, %v of a search for anna", rows, err)
		}
	}
	if version >= 3 {
		if c, err := s.Campaign(t.Context(), "tn_old", "camp_10002"); err != nil || !c.Test || !c.TestRun || c.Name != "t" {
			t.Errorf("got campaign %+v, %v, want a test", c, err)
		}
		c, err := s.Campaign(t.Context(), "tn_old", "camp_10001")
		if err != nil || c.Name != "c" || len(c.Lists) != 1 || len(c.Legs) != 1 || c.Reserved != 30 {
			t.Errorf("got campaign %+v, %v", c, err)
		}
	}
	if _, err := s.CreateTenant(t.Context(), TenantSpec{Name: "new"}); err != nil {
		t.Error(err)
	}
}

func TestOpenRefusesOtherTables(t *testing.T) {
	cfg := Config{DSN: filepath.Join(t.TempDir(), "store.db")}
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), "fanfare migrate") {
		t.Errorf("got error %v of an empty file, want one that says what to run", err)
	}
	if err := Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := Migrate(t.Context(), cfg); err != nil {
		t.Errorf("got error %v the second time, want none", err)
	}
	d, err := connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.writer.ExecContext(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, TRUE)"); err != nil {
		t.Fatal(err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), "older than the store") {
		t.Errorf("got error %v of newer tables, want one that says so", err)
	}
	for _, dsn := range []string{"", "postgres://nobody@127.0.0.1:1/none?connect_timeout=1", filepath.Join(t.TempDir(), "no", "such", "folder.db")} {
		if _, err := Open(t.Context(), Config{DSN: dsn}); err == nil {
			t.Errorf("%q: got no error, want one", dsn)
		}
	}
	if _, err := Open(t.Context(), Config{DSN: "postgres://u:secret@h:port/x"}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got error %v, want one without the password", err)
	}
	if _, err := Open(t.Context(), Config{DSN: "postgres://u@h/x", Schema: `x"; DROP`}); err == nil {
		t.Error("got no error for a schema that is no name")
	}
}

func TestMigrateTakesTurns(t *testing.T) {
	cfg := Config{DSN: filepath.Join(t.TempDir(), "store.db")}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if err := Migrate(t.Context(), cfg); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Ping(t.Context()), s.Close()); err != nil {
		t.Error(err)
	}
	if err := s.Ping(t.Context()); err == nil {
		t.Error("got no error from a closed store")
	}
}
