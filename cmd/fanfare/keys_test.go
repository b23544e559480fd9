package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"fanfare/api/store"
)

// The command line creates keys, lists them without their secrets, and revokes them, while no server runs.
func TestKeysCommands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run := func(code int, args ...string) (stdout, stderr string) {
		t.Helper()
		var out, errs strings.Builder
		if got := Main(t.Context(), append(args, "--data", dir), nil, &out, &errs); got != code {
			t.Fatalf("fanfare %s: got exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out.String(), errs.String())
		}
		return strings.TrimSpace(out.String()), errs.String()
	}
	run(exitOK, "tenants", "create", "Acme", "--region", "IT")
	run(exitOK, "tenants", "create", "Other", "--region", "IT")
	live, _ := run(exitOK, "keys", "create", "--tenant", "Acme", "--name", "website")
	test, _ := run(exitOK, "keys", "create", "--tenant", "Acme", "--test", "--scope", "read,send")

	list := func() [][]string {
		t.Helper()
		out, _ := run(exitOK, "keys", "list", "--tenant", "Acme")
		if strings.Contains(out, live) || strings.Contains(out, test) {
			t.Fatalf("the list shows a secret:\n%s", out)
		}
		var rows [][]string
		for line := range strings.Lines(out) {
			rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
		}
		if len(rows) != 2 || len(rows[0]) != 8 || len(rows[1]) != 8 {
			t.Fatalf("got\n%s\nwant two keys of eight columns", out)
		}
		return rows
	}
	rows := list()
	if got := strings.Join(rows[0][1:5], "|"); got != "…"+live[len(live)-4:]+"|website|live|read, campaigns, confirm, contacts, send" {
		t.Errorf("got %q", got)
	}
	if got := strings.Join(rows[1][1:5], "|"); got != "…"+test[len(test)-4:]+"||test|read, send" {
		t.Errorf("got %q", got)
	}
	if rows[0][6] != "-" || rows[0][7] != "-" || rows[0][5] == "-" {
		t.Errorf("got created, used, revoked %q, want a time and two dashes", rows[0][5:])
	}

	out, _ := run(exitOK, "keys", "revoke", rows[0][0])
	if want := rows[0][0] + ` of "Acme" is revoked`; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	run(exitOK, "keys", "revoke", rows[0][0]) // again: no error
	if rows = list(); rows[0][7] == "-" || rows[1][7] != "-" {
		t.Errorf("got revoked %q and %q, want a time and a dash", rows[0][7], rows[1][7])
	}
	s, err := store.Open(t.Context(), store.Config{DSN: filepath.Join(dir, "store.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, _, err := s.Authenticate(t.Context(), live); !errors.Is(err, store.ErrNoKey) {
		t.Errorf("revoked: got %v, want %v", err, store.ErrNoKey)
	}
	if _, _, err := s.Authenticate(t.Context(), test); err != nil {
		t.Errorf("the other one: got %v, want it to work", err)
	}

	// Errors say what to do, and do not repeat a secret that was given instead of an id.
	if _, said := run(exitError, "keys", "revoke", live); strings.Contains(said, live) || !strings.Contains(said, "keys list --tenant") {
		t.Errorf("got %q, want no secret and what to do", said)
	}
	for _, args := range [][]string{{"keys", "list"}, {"keys", "create"}} {
		if _, said := run(exitUsage, args...); !strings.Contains(said, args[1]+": name the tenant with --tenant NAME") {
			t.Errorf("%v: got %q", args, said)
		}
	}
	if _, said := run(exitUsage, "keys", "create", "--tenant", "Acme", "--scope", "all"); !strings.Contains(said, `no scope "all"`) {
		t.Errorf("got %q", said)
	}
	run(exitUsage, "keys", "revoke")
	if _, said := run(exitError, "keys", "list", "--tenant", "Acm"); !strings.Contains(said, `"Acme", "Other"`) {
		t.Errorf("got %q, want the tenants that there are", said)
	}
}
