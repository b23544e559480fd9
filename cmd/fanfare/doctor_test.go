package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fanfare/cmd/fanfare/doctor"
	"fanfare/deploy/testinfra"
)

// testConfig returns settings for a process in a test, in which everything is embedded, and changes them.
func testConfig(t testing.TB, change func(*Config)) Config {
	t.Helper()
	cfg := Config{
		Data: t.TempDir(), HTTP: "127.0.0.1:0", Prefix: "test.", Replication: 1, SimRate: 100, SimProfile: "fast", ReceiptWindow: time.Hour,
		LogLevel: "info", KafkaSASL: "plain", StartTimeout: 30 * time.Second,
	}
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func shortID() string { return strings.ToLower(rand.Text()[:8]) }

// runDoctor runs the command and returns its findings and exit code.
func runDoctor(t testing.TB, args ...string) ([]doctor.Finding, int) {
	t.Helper()
	var out, stderr strings.Builder
	code := Main(t.Context(), append([]string{"doctor", "--json"}, args...), nil, &out, &stderr)
	var all []doctor.Finding
	if err := json.Unmarshal([]byte(out.String()), &all); err != nil {
		t.Fatalf("doctor printed %q and %q: %v", out.String(), stderr.String(), err)
	}
	for _, f := range all {
		if strings.Contains(f.Found+f.Fix, "\n") || f.Found == "" || f.Level == doctor.Bad && f.Fix == "" {
			t.Errorf("got %+v, want one line, and what to do in another", f)
		}
	}
	return all, code
}

// level returns the findings of one level.
func level(all []doctor.Finding, l doctor.Level) (out []doctor.Finding) {
	for _, f := range all {
		if f.Level == l {
			out = append(out, f)
		}
	}
	return out
}

// With everything embedded nothing is bad, before the first start and after it, and the doctor leaves nothing behind.
func TestDoctorEmbedded(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "not", "yet")
	all, code := runDoctor(t, "--data", dir, "--http", "127.0.0.1:0")
	if bad := level(all, doctor.Bad); code != exitOK || len(bad) > 0 {
		t.Errorf("got code %d and %+v, want 0 and nothing bad", code, bad)
	}
	if _, err := os.Stat(filepath.Dir(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Error("the doctor created the directory")
	}
	var out strings.Builder
	if code := Main(t.Context(), []string{"tenants", "create", "x", "--data", dir}, nil, &out, io.Discard); code != exitOK {
		t.Fatal("creating a tenant failed")
	}
	out.Reset()
	if code := Main(t.Context(), []string{"doctor", "--data", dir, "--http", "127.0.0.1:0"}, nil, &out, io.Discard); code != exitOK || !strings.Contains(out.String(), "No problems found.") || !strings.Contains(out.String(), "as they must be") {
		t.Errorf("got code %d and %q", code, out.String())
	}
}

func TestDoctorData(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{file: "is not a directory", filepath.Join(file, "below"): "is not a directory", "/proc/fanfare": "cannot be written to"} {
		all, code := runDoctor(t, "--data", dir, "--http", "127.0.0.1:0")
		if !slices.ContainsFunc(level(all, doctor.Bad), func(f doctor.Finding) bool {
			return strings.Contains(f.Found, want) && strings.Contains(f.Fix, "--data")
		}) {
			t.Errorf("%s: got %+v, want a bad finding with %q", dir, all, want)
		}
		if code != exitError {
			t.Errorf("%s: got exit code %d, want %d", dir, code, exitError)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "store.db"), []byte("this is no database at all, and long enough to be looked at"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, _ := runDoctor(t, "--data", dir, "--http", "127.0.0.1:0")
	if !slices.ContainsFunc(level(all, doctor.Bad), func(f doctor.Finding) bool { return strings.Contains(f.Found, "cannot be read") }) {
		t.Errorf("got %+v, want a bad finding: the store cannot be read", all)
	}
}

// servicesOf returns the flags that name the services of the test machine, and a prefix that only this test uses.
func servicesOf(t testing.TB) (flags []string, prefix string) {
	t.Helper()
	addr := testinfra.Need(t, testinfra.All...)
	prefix = "doc" + shortID() + "."
	return []string{
		"--kafka", addr[testinfra.Kafka], "--redis", addr[testinfra.Redis], "--clickhouse", addr[testinfra.ClickHouse], "--store", addr[testinfra.Postgres],
		"--prefix", prefix, "--data", t.TempDir(), "--http", "127.0.0.1:0",
	}, prefix
}

// On real services nothing is bad before the first start. Once tables and topics exist, there are not even notes.
func TestIntegrationDoctor(t *testing.T) {
	flags, _ := servicesOf(t)
	all, code := runDoctor(t, flags...)
	if code != exitOK || len(level(all, doctor.Note)) != 3 {
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
	if code != exitOK || len(level(all, doctor.OK)) != len(all) {
		t.Errorf("got code %d and %+v, want 0 and all ok", code, all)
	}
}
