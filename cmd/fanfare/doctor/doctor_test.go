package doctor

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"fanfare/cmd/fanfare/services/servicestest"
)

// testConfig returns a configuration in which everything is embedded, and changes it.
func testConfig(t testing.TB, change func(*Config)) Config {
	t.Helper()
	cfg := Config{
		Uses: Uses{Data: true, Redis: true, Store: true, Statistics: true, Carrier: true},
		Data: t.TempDir(), HTTP: "127.0.0.1:0", Prefix: "test.", Schema: "test", Replication: 1, DefaultRoute: "sim",
	}
	cfg.Kafka.SASL = "plain"
	if change != nil {
		change(&cfg)
	}
	return cfg
}

func fakeKafka(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// of returns the findings of one level.
func of(all []Finding, l Level) (out []Finding) {
	for _, f := range all {
		if f.Level == l {
			out = append(out, f)
		}
	}
	return out
}

// wantBad fails unless a finding says found and its fix says fix.
func wantBad(t testing.TB, all []Finding, found, fix string) {
	t.Helper()
	if !slices.ContainsFunc(of(all, Bad), func(f Finding) bool { return strings.Contains(f.Found, found) && strings.Contains(f.Fix, fix) }) {
		t.Errorf("got %+v, want one that says %q, to be mended by %q", all, found, fix)
	}
}

// A port that another program has taken is bad. If fanfare serves there, the doctor asks it whether it is ready.
func TestHTTP(t *testing.T) {
	t.Parallel()
	other := servicestest.Listen(t, servicestest.Garbage)
	wantBad(t, examineHTTP(t.Context(), Config{HTTP: other}), other+" is taken", "--http")
	status := "ready"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"status": status, "checks": map[string]string{"process": "ok", "redis": "gone fishing"}})
	}))
	t.Cleanup(server.Close)
	addr := strings.TrimPrefix(server.URL, "http://")
	for s, want := range map[string]Level{"ready": OK, "degraded": Note, "unready": Bad} {
		status = s
		all := examineHTTP(t.Context(), Config{HTTP: addr})
		if len(all) != 1 || all[0].Level != want || want != OK && !strings.Contains(all[0].Found, "redis: gone fishing") {
			t.Errorf("%s: got %+v, want level %s and what is missing", s, all, want)
		}
	}
}

// Campaigns that do not continue by themselves are a bad finding, even if every service works.
func TestDealing(t *testing.T) {
	t.Parallel()
	stalled, broken := 0, 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			fmt.Fprintf(w, "# HELP x\nfanfare_scheduler_stalled_campaigns %d\nfanfare_scheduler_broken_campaigns %d\n", stalled, broken)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "ready", "checks": map[string]string{"process": "ok"}})
	}))
	t.Cleanup(server.Close)
	cfg := Config{HTTP: strings.TrimPrefix(server.URL, "http://")}
	if all := examineHTTP(t.Context(), cfg); AnyBad(all) {
		t.Errorf("got %+v, want nothing bad", all)
	}
	stalled, broken = 2, 1
	all := examineHTTP(t.Context(), cfg)
	if len(all) != 3 || all[1].Level != Bad || !strings.Contains(all[1].Found, "2 campaign(s)") || all[2].Level != Bad || !strings.Contains(all[2].Found, "set aside") {
		t.Errorf("got %+v, want campaigns that wait and campaigns that are set aside", all)
	}
}

func TestSkew(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	later := now.Add(800 * time.Millisecond)
	for at, want := range map[time.Duration]time.Duration{
		0: 0, 500 * time.Millisecond: 0, 800 * time.Millisecond: 0, -3 * time.Second: -3 * time.Second, 3800 * time.Millisecond: 3 * time.Second,
	} {
		if got := skew(now.Add(at), now, later); got != want {
			t.Errorf("read at %s of 800 ms: got %s, want %s", at, got, want)
		}
	}
	if got := clockFinding("x", maxSkew); got != nil {
		t.Errorf("got %+v, want nothing for an allowed difference", got)
	}
	if got := clockFinding("x", -5*time.Second); len(got) != 1 || !strings.Contains(got[0].Found, "5s behind") {
		t.Errorf("got %+v, want 5s behind", got)
	}
}
