package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fanfare/deploy/embedded"
)

// contents returns every file and folder below dir with its mode, and the hash of its content.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		if d.Type().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %x", sha256.Sum256(b))
		}
		all[path] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A second process on the same data names the process that uses the data, and changes nothing: not the route, whose
// limit it would write, nor a table, nor a topic. It also fails before it connects to any service.
func TestSecondServeChangesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var out strings.Builder
	if code := Main(t.Context(), []string{"tenants", "create", "Acme", "--data", dir}, nil, &out, &out); code != exitOK {
		t.Fatal(out.String())
	}
	w := newWiring(testConfig(t, func(c *Config) { c.Data, c.SimRate = dir, 100 }), slog.New(slog.DiscardHandler))
	if err := w.open(t.Context()); err != nil { // makes the route, the topics and the statistics
		t.Fatal(err)
	}
	w.close()
	data, err := embedded.Lock(dir, "serve") // as a running process does
	if err != nil {
		t.Fatal(err)
	}
	defer data.Unlock()
	before := contents(t, dir)
	want := fmt.Sprintf("--data: %s is in use by pid %d (fanfare serve)", dir, os.Getpid())
	for name, args := range map[string][]string{
		"embedded":        {"serve", "--sim-rate", "999", "--receipt-window", "1h"},
		"store away":      {"serve", "--sim-rate", "999", "--store", "postgres://u@127.0.0.1:1/d"},
		"kafka away":      {"serve", "--sim-rate", "999", "--kafka", "127.0.0.1:1"},
		"the demo":        {"demo", "--edge", "127.0.0.1:0"},
		"fanfare migrate": {"migrate"},
	} {
		var said strings.Builder
		args = append(args, "--data", dir)
		if args[0] != "migrate" {
			args = append(args, "--http", "127.0.0.1:0")
		}
		if code := Main(t.Context(), args, nil, &said, &said); code != exitError || !strings.Contains(said.String(), want) {
			t.Errorf("%s: got code %d and %q, want %d and %q", name, code, said.String(), exitError, want)
		}
		after := contents(t, dir)
		for _, path := range slices.Sorted(maps.Keys(after)) {
			if before[path] != after[path] {
				t.Errorf("%s: %s has changed", name, path)
			}
		}
		if len(before) != len(after) {
			t.Errorf("%s: got %d files, want %d as before", name, len(after), len(before))
		}
	}
}

// Commands work while a process uses the data. A process that starts while a command holds the lock waits for the
// command.
func TestCommandsShareData(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run := func(args ...string) (string, int) {
		var out strings.Builder
		code := Main(t.Context(), append(args, "--data", dir), nil, &out, &out)
		return out.String(), code
	}
	if said, code := run("tenants", "create", "Acme"); code != exitOK {
		t.Fatal(said)
	}
	data, err := embedded.Lock(dir, "serve")
	if err != nil {
		t.Fatal(err)
	}
	if said, code := run("tenants", "list"); code != exitOK || !strings.Contains(said, "Acme") {
		t.Errorf("while a process runs: got code %d and %q, want the tenants", code, said)
	}
	data.Unlock()

	command, err := embedded.Lock(dir, "keys create")
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(300*time.Millisecond, command.Unlock)
	w := newWiring(testConfig(t, func(c *Config) { c.Data = dir }), slog.New(slog.DiscardHandler))
	defer w.close()
	if err := w.lockData(t.Context(), "serve"); err != nil {
		t.Errorf("while a command holds the lock: got %v, want it waited for", err)
	}
}

// Every file in the data directory is private to its owner, and so is every folder: including files and folders that
// existed before with other modes, and for any umask of the process.
func TestDataIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(filepath.Join(dir, "kafka"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(dir, "kafka")} {
		if err := os.Chmod(path, 0o777); err != nil { //nolint:gosec // as a careless operator
			t.Fatal(err)
		}
	}
	old := filepath.Join(dir, "analytics.db")
	if err := os.WriteFile(old, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(old, 0o666); err != nil { //nolint:gosec // as an earlier version did
		t.Fatal(err)
	}
	addr := freeAddr(t)
	p := startProcess(t, "fanfare", "/bin/sh", "-c", `umask 000; exec "$@"`, "sh", fanfareBinary(t), "serve", "--data", dir, "--http", addr, "--log-level", "warn")
	api := &client{base: "http://" + addr}
	api.waitReady(t)
	runBinary(t, "tenants", "create", "Acme", "--data", dir)
	api.key = runBinary(t, "keys", "create", "--tenant", "Acme", "--data", dir)
	runningCampaign(t, api, 50) // writes topics, statistics and the record of the simulated carrier
	seen := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the running process deleted it
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // deleted
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %04o, want %04o", path, info.Mode().Perm(), want)
		}
		seen[filepath.Base(path)] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"store.db", "analytics.db", "carrier-sim.ndjson", "credentials.json", "consumer.json", "kafka", "partitions"} {
		if !seen[name] {
			t.Errorf("%s is missing: the test did not see what it must see", name)
		}
	}
	if _, code := p.stop(); code != 0 {
		t.Errorf("got exit code %d, want 0", code)
	}
}

// fanfare topics lists the topics of an embedded installation and says how a consumer logs in, without printing the
// password.
func TestTopicsSaysHowToLogIn(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, func(c *Config) { c.Prefix, c.HTTP = "fanfare.", freeAddr(t) })
	topics := func() string {
		var out strings.Builder
		if code := Main(t.Context(), []string{"topics", "--data", cfg.Data}, nil, &out, &out); code != exitOK {
			t.Fatal(out.String())
		}
		return out.String()
	}
	if said := topics(); !strings.Contains(said, "While fanfare serve runs, "+filepath.Join(cfg.Data, "consumer.json")) || !strings.Contains(said, "fanfare.deliveries") {
		t.Errorf("before the first start: got %s", said)
	}
	w := newWiring(cfg, slog.New(slog.DiscardHandler))
	defer w.close()
	if err := w.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	login, err := embedded.ReadLogin(cfg.Data)
	if err != nil {
		t.Fatal(err)
	}
	said := topics()
	for _, want := range []string{"fanfare.messages.sim.bulk", "A consumer may read fanfare.campaigns, fanfare.suppressions, fanfare.replies and fanfare.deliveries.", w.services.Kafka, `user "consumer"`, "account.py --connection"} {
		if !strings.Contains(said, want) {
			t.Errorf("got %s, want %q in it", said, want)
		}
	}
	for _, secret := range []string{login.Kafka.Password, login.Consumer.Password, login.Redis} {
		if strings.Contains(said, secret) {
			t.Error("a password is printed")
		}
	}
}
