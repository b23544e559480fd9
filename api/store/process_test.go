package store_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fanfare/api/importfile"
	"fanfare/api/store"
)

// TestMain runs the child of TestKill when it is told to.
func TestMain(m *testing.M) {
	if dsn := os.Getenv("STORE_TEST_CHILD"); dsn != "" {
		child(dsn)
	}
	os.Exit(m.Run())
}

// child takes the lead and imports, for ever, saying each row that was committed.
func child(dsn string) {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{DSN: dsn})
	fail(err)
	_, ok, err := s.Lead(ctx)
	fail(err)
	if !ok {
		fail(errors.New("no lead"))
	}
	fmt.Println("lead")
	tenants, err := s.Tenants(ctx)
	fail(err)
	l, err := s.FindList(ctx, tenants[0].ID, "all")
	fail(err)
	_, err = s.Import(ctx, tenants[0].ID, l.Number, store.ImportOptions{Format: importfile.CSV}, streamCSV(10_000_000, manyCountries, 0), func(r store.ImportReport) {
		fmt.Println("members", r.Imported+r.Updated+r.Unchanged)
	})
	fail(err)
}

// A process is killed while it leads and imports: what it said was committed is there, the lead is free, the tables
// hold together, and other processes worked all the while.
func TestKill(t *testing.T) {
	dsn := filepath.Join(t.TempDir(), "store.db")
	cfg := store.Config{DSN: dsn}
	if err := store.Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	tenant, err := s.CreateTenant(t.Context(), store.TenantSpec{Name: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateList(t.Context(), tenant.ID, "all", false); err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "STORE_TEST_CHILD="+dsn)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		var said uint64
		for said < uint64(1+2000*round) && lines.Scan() {
			switch text := lines.Text(); {
			case text == "lead":
				if _, ok, err := s.Lead(t.Context()); ok || err != nil {
					t.Errorf("got the lead while a child has it: %v, %v", ok, err)
				}
			case strings.HasPrefix(text, "members "):
				if _, err := fmt.Sscan(strings.TrimPrefix(text, "members "), &said); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if _, _, err := s.CreateKey(t.Context(), tenant.ID, "", nil, false); err != nil {
					t.Errorf("a key beside the import: %v", err)
				}
				if took := time.Since(began); took > 30*time.Second {
					t.Errorf("a key beside the import took %v", took)
				}
			default:
				t.Fatalf("child says %q", text)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		if said == 0 {
			t.Fatal("the child imported nothing")
		}
		release, ok, err := s.Lead(t.Context())
		if err != nil || !ok {
			t.Fatalf("got lead %v, %v after the kill, want it", ok, err)
		}
		release()
		checkTables(t, dsn, said)
		if _, err := s.CreateList(t.Context(), tenant.ID, fmt.Sprint("after ", round), false); err != nil {
			t.Errorf("writing after the kill: %v", err)
		}
	}
}

// checkTables checks what SQLite and the store's own counters say about the tables.
func checkTables(t *testing.T, dsn string, atLeast uint64) {
	t.Helper()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var integrity string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&integrity); err != nil || integrity != "ok" {
		t.Errorf("got integrity %q, %v", integrity, err)
	}
	var counted, members, orphans uint64
	if err := db.QueryRow(`SELECT l.members, (SELECT COUNT(*) FROM list_members m WHERE m.list = l.number),
  (SELECT COUNT(*) FROM list_members m WHERE NOT EXISTS (SELECT 1 FROM contacts c WHERE c.number = m.contact))
FROM contact_lists l WHERE l.name = 'all'`).Scan(&counted, &members, &orphans); err != nil {
		t.Fatal(err)
	}
	if counted != members || orphans != 0 || members < atLeast {
		t.Errorf("list counts %d, has %d members, %d of them without a contact; want the same, 0, and at least %d", counted, members, orphans, atLeast)
	}
}
