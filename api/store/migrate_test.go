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
	"fanfare/schemas"
	"fanfare/schemas/audience"
	migrations "fanfare/schemas/sql"
)

// fixtures are rows as a store of that version wrote them. What is added here is never changed: that is what upgrades
// are tested with.
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
	// Numbers in two forms, as two contacts and two opt-outs of one person.
	5: {
		`INSERT INTO contact_lists VALUES (10003, 'tn_old', 'forms', 'forms', FALSE, 5, 5, 2, 1, 1, 0)`,
		`INSERT INTO contacts VALUES
		  (51, 'tn_old', '+5215512345678', 'Old', '', '', '', 'MX', 'America/Mexico_City', 0, FALSE, 1, 1, 1, 0, 'old'),
		  (52, 'tn_old', '+525512345678', 'New', '', '', '', 'MX', 'America/Mexico_City', 1, TRUE, 1, 1, 1, 0, 'new'),
		  (53, 'tn_old', '+551187654321', 'Nine', '', '', '', 'BR', 'America/Sao_Paulo', 0, FALSE, 1, 1, 1, 0, 'nine'),
		  (54, 'tn_old', '+22507123456', 'Gone', '', '', '', 'CI', 'Africa/Abidjan', 0, FALSE, 1, 1, 1, 9, 'gone'),
		  (55, 'tn_old', '+2250707123456', 'There', '', '', '', 'CI', 'Africa/Abidjan', 1, TRUE, 1, 1, 1, 0, 'there'),
		  (56, 'tn_old', '+5491123456789', 'Che', '', '', '', 'AR', 'America/Argentina/Buenos_Aires', 1, TRUE, 1, 1, 1, 0, 'che')`,
		`INSERT INTO list_members VALUES ('tn_old', 10003, 0, 51), ('tn_old', 10003, 1, 52), ('tn_old', 10003, 2, 53), ('tn_old', 10003, 3, 56), ('tn_old', 10003, 4, 55)`,
		`INSERT INTO suppressions VALUES
		  ('tn_old', '+5215512345678', '00000000000000aa', 'api', FALSE, 2, 2, 7),
		  ('tn_old', '+525512345678', '00000000000000bb', 'api', TRUE, 5, 5, 8),
		  ('tn_old', '+5491123456789', '00000000000000cc', 'api', FALSE, 1, 1, 9),
		  ('tn_old', '+393330000001', '00000000000000dd', 'api', FALSE, 1, 1, 9)`,
		`INSERT INTO suppression_log (tenant, phone, source, lifted, version, time_ms) VALUES ('tn_old', '+5215512345678', 'api', FALSE, 2, 7)`,
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
			if cfg.Keys, err = schemas.NewKeys([]byte("0123456789abcdef")); err != nil {
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
	if version >= 5 {
		checkForms(t, s)
	}
	if _, err := s.CreateTenant(t.Context(), TenantSpec{Name: "new"}); err != nil {
		t.Error(err)
	}
}

// The contacts and opt-outs of one person have become one, under the key that new rows get.
func checkForms(t *testing.T, s *Store) {
	t.Helper()
	rows, n, err := s.Contacts(t.Context(), "tn_old", ContactFilter{List: 10003})
	if err != nil || n != 4 || len(rows) != 4 {
		t.Fatalf("got %+v of %d, %v, want four contacts", rows, n, err)
	}
	for i, want := range []string{"51 +525512345678", "53 +5511987654321", "56 +5491123456789", "55 +2250707123456"} {
		c := &rows[i]
		if got := fmt.Sprintf("%d %s", c.Number, c.Phone); got != want || c.Key != schemas.NumberKey(c.Phone) || !c.Valid || c.Class != audience.Mobile {
			t.Errorf("got contact %+v, want %s, valid", c, want)
		}
	}
	if l, err := s.List(t.Context(), "tn_old", 10003); err != nil || l.Members != 4 {
		t.Errorf("got list %+v, %v, want 4 members", l, err)
	}
	for _, phone := range []string{"+5215512345678", "+525512345678", "+5491123456789", "+541123456789", "+393330000001"} {
		if out, err := s.Suppressed(t.Context(), "tn_old", phone, schemas.ChannelSMS); err != nil || !out {
			t.Errorf("%s: got opted out %v, %v, want true", phone, out, err)
		}
	}
	if log, err := s.SuppressionLog(t.Context(), "tn_old", "+525512345678"); err != nil || len(log) != 1 {
		t.Errorf("got log %+v, %v, want the line of the old form", log, err)
	}
	unpublished, err := s.unpublishedSuppressions(t.Context(), 100)
	if err != nil || len(unpublished) != 2 {
		t.Fatalf("got %+v, %v, want the two opt-outs whose key is new", unpublished, err)
	}
	versions := map[string]uint64{}
	for _, r := range unpublished {
		versions[r.Key] = r.Version
	}
	for phone, want := range map[string]uint64{"+525512345678": 6, "+5491123456789": 2} {
		if got := versions[schemas.SuppressionKey("tn_old", s.keys.NumberHash("tn_old", phone))]; got != want {
			t.Errorf("%s: got version %d, want %d, above all that were merged", phone, got, want)
		}
	}
}

// The migration computes keys in SQL. They are the keys that new rows get.
func TestMigratedKeys(t *testing.T) {
	cfg := Config{DSN: filepath.Join(t.TempDir(), "store.db")}
	if err := migrateTo(t.Context(), cfg, migrations.Files, 5); err != nil {
		t.Fatal(err)
	}
	d, err := connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, head := range []string{"+39", "+52", "+521", "+5201", "+52044", "+52045", "+54", "+549", "+55", "+551", "+225", "+2250", "+229", "+2299", "+84", "+841", "+8416", "+8412", "+8418", "+8419"} {
		for i := range 300 {
			for width := 6; width <= 10; width++ {
				n++
				phone := head + fmt.Sprintf("%0*d", width, (i*7_919_999+i)%1_000_000_000)[:width]
				if _, err := d.writer.ExecContext(t.Context(), `INSERT INTO contacts VALUES (?1, 'tn_'||?1, ?2, '', '', '', '', '', '', 1, TRUE, 1, 1, 1, 0, '')`, n, phone); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := errors.Join(d.close(), Migrate(t.Context(), cfg)); err != nil {
		t.Fatal(err)
	}
	if d, err = connect(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.close() }()
	rows, err := d.readers.QueryContext(t.Context(), "SELECT phone, number_key FROM contacts")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	changed := 0
	for rows.Next() {
		var phone, key string
		if err := rows.Scan(&phone, &key); err != nil {
			t.Fatal(err)
		}
		if want := schemas.NumberKey(phone); key != want {
			t.Fatalf("%s: got key %s, want %s", phone, key, want)
		}
		if key != phone {
			changed++
		}
	}
	if rows.Err() != nil || changed < 1000 {
		t.Errorf("got %v and %d numbers with another key, want more than 1000", rows.Err(), changed)
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
