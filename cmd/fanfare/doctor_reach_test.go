package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kfake"
)

// listenTo serves each connection to a loopback port with talk, and returns the address.
func listenTo(t testing.TB, talk func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				talk(conn)
			}()
		}
	}()
	return l.Addr().String()
}

// Listeners that are not what is looked for.
func garbage(c net.Conn) {
	_, _ = io.ReadFull(c, make([]byte, 1))
	_, _ = c.Write([]byte("\x7f\x03what is this?\xff\xfe\x00\x01"))
}

func silence(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

func hangUp(net.Conn) {}

// postgresGreets answers the two first packets of a client as Postgres does: no TLS, no password.
func postgresGreets(c net.Conn) {
	b := make([]byte, 1024)
	n, err := c.Read(b)
	if err != nil || n < 8 {
		return
	}
	if string(b[:8]) == sslRequest {
		_, _ = c.Write([]byte("N"))
		_, _ = c.Read(b)
	}
	_, _ = c.Write([]byte("E\x00\x00\x00\x1cSFATAL\x00C28P01\x00Mno such\x00\x00"))
}

// clickHouseGreets answers a hello with an exception, as ClickHouse does when it does not know the user.
func clickHouseGreets(c net.Conn) {
	b := make([]byte, 1024)
	if n, err := c.Read(b); err != nil || n < 9 || b[0] != 0 || b[1] < 4 || b[1] > 60 || b[2] < 'A' {
		return
	}
	text := "\x0dDB::Exception\x10wrong password..\x00\x00"
	_, _ = c.Write([]byte("\x02\x04\x02\x00\x00" + text))
}

// kafkaGreets answers ApiVersions, and hangs up on what is larger than a greeting. The fake cluster would make room for as much
// as the first four bytes say, which of other tongues is a gigabyte.
func kafkaGreets(c net.Conn) {
	head := make([]byte, 12)
	if _, err := io.ReadFull(c, head); err != nil || string(head[:3]) != "\x00\x00\x00" || head[5] != 18 {
		return
	}
	_, _ = c.Write(append([]byte("\x00\x00\x00\x0a"), append(head[8:12], 0, 0, 0, 0, 0, 0)...))
}

func closedPort(t testing.TB) string { return freeAddr(t) }

func fakeKafka(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func testConfig(t testing.TB, change func(*Config)) Config {
	t.Helper()
	cfg := Config{
		Data: t.TempDir(), HTTP: "127.0.0.1:0", Prefix: "test.", Replication: 1, SimRate: 100, SimProfile: "fast", ReceiptWindow: time.Hour,
		LogLevel: "info", KafkaSASL: "plain",
	}
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// What answers at an address is named, whatever it is, and so is what to do; within seconds.
func TestDoctorNamesWhatAnswers(t *testing.T) {
	t.Parallel()
	redis := miniredis.RunT(t)
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	there := map[string]string{
		"nobody":     closedPort(t),
		"unknown":    "nosuchhost.invalid:1",
		"silence":    listenTo(t, silence),
		"garbage":    listenTo(t, garbage),
		"hangs up":   listenTo(t, hangUp),
		"Redis":      redis.Addr(),
		"Kafka":      listenTo(t, kafkaGreets),
		"Postgres":   listenTo(t, postgresGreets),
		"ClickHouse": listenTo(t, clickHouseGreets),
		"HTTP":       strings.TrimPrefix(web.URL, "http://"),
		"TLS":        strings.TrimPrefix(secure.URL, "https://"),
	}
	kafka := fakeKafka(t).ListenAddrs()[0]
	flags := map[string]struct {
		name string
		open func(addr string) *trouble
	}{
		"--kafka": {"Kafka", func(addr string) *trouble {
			cl, _, trouble := openKafka(t.Context(), testConfig(t, func(c *Config) { c.Kafka = []string{addr} }))
			if trouble == nil {
				cl.Close()
			}
			return trouble
		}},
		"--redis": {"Redis", func(addr string) *trouble {
			rdb, trouble := openRedis(t.Context(), testConfig(t, func(c *Config) { c.Redis = addr }))
			if trouble == nil {
				_ = rdb.Close()
			}
			return trouble
		}},
		"--store": {"Postgres", func(addr string) *trouble {
			conn, trouble := openPostgres(t.Context(), testConfig(t, func(c *Config) { c.Store = "postgres://me:secret@" + addr + "/db" }))
			if trouble == nil {
				_ = conn.Close(t.Context())
			}
			return trouble
		}},
		"--clickhouse": {"ClickHouse", func(addr string) *trouble {
			conn, trouble := openClickHouse(t.Context(), testConfig(t, func(c *Config) { c.ClickHouse = "clickhouse://me:secret@" + addr + "/db" }))
			if trouble == nil {
				_ = conn.Close()
			}
			return trouble
		}},
	}
	var wg sync.WaitGroup
	for flag, service := range flags {
		for who, addr := range there {
			wg.Go(func() { // all at once: some take their time to be sure
				began := time.Now()
				if flag == "--kafka" && who == "Kafka" {
					addr = kafka
				}
				got := service.open(addr)
				if took := time.Since(began); took > 20*time.Second { // six or so, when nobody else is at work
					t.Errorf("%s finds %s: got an answer after %s, want it within 20 s", flag, who, took)
				}
				if who == service.name && (flag == "--kafka" || flag == "--redis") {
					if got != nil {
						t.Errorf("%s finds %s: got %q, want it to be well", flag, who, got)
					}
					return
				}
				if got == nil {
					t.Errorf("%s finds %s: got no trouble, want one", flag, who)
					return
				}
				want := map[string]string{
					"nobody": "nothing listens at " + addr, "unknown": "is not known", "silence": "does not answer as " + service.name,
					"garbage": "does not answer as " + service.name, "hangs up": "does not answer as " + service.name, "HTTP": "speaks HTTP", "TLS": "speaks TLS",
				}[who]
				switch {
				case who == service.name: // these two let nobody in
					want = "refuses"
				case want == "":
					want = addr + " is " + who + ", not " + service.name
				}
				if !strings.Contains(got.found, want) || !strings.Contains(got.Error(), addr) {
					t.Errorf("%s finds %s: got %q, want %q in it and the address", flag, who, got.found, want)
				}
				if strings.ContainsAny(got.Error(), "\n\r") || got.fix == "" || strings.Contains(got.Error(), "secret") {
					t.Errorf("%s finds %s: got %q, want one line with something to do and no password", flag, who, got.Error())
				}
				if !strings.Contains(got.fix, flag) && who != "TLS" {
					t.Errorf("%s finds %s: got fix %q, want the flag in it", flag, who, got.fix)
				}
			})
		}
	}
	wg.Wait()
}

// runDoctor runs the command and returns its findings and exit code.
func runDoctor(t testing.TB, args ...string) ([]finding, int) {
	t.Helper()
	var out, stderr strings.Builder
	code := Main(t.Context(), append([]string{"doctor", "--json"}, args...), nil, &out, &stderr)
	var all []finding
	if err := json.Unmarshal([]byte(out.String()), &all); err != nil {
		t.Fatalf("doctor printed %q and %q: %v", out.String(), stderr.String(), err)
	}
	for _, f := range all {
		if strings.Contains(f.Found+f.Fix, "\n") || f.Found == "" || f.Level == levelBad && f.Fix == "" {
			t.Errorf("got %+v, want one line, and one of what to do", f)
		}
	}
	return all, code
}

// of returns the findings of one level.
func of(all []finding, l level) (out []finding) {
	for _, f := range all {
		if f.Level == l {
			out = append(out, f)
		}
	}
	return out
}

// wantBad fails unless a finding says found and its fix says fix.
func wantBad(t testing.TB, all []finding, found, fix string) {
	t.Helper()
	if !slices.ContainsFunc(of(all, levelBad), func(f finding) bool { return strings.Contains(f.Found, found) && strings.Contains(f.Fix, fix) }) {
		t.Errorf("got %+v, want one that says %q, to be mended by %q", all, found, fix)
	}
}

// Embedded there is nothing to mend, before the first start and after it, and the doctor leaves nothing behind.
func TestDoctorEmbedded(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "not", "yet")
	all, code := runDoctor(t, "--data", dir, "--http", "127.0.0.1:0")
	if bad := of(all, levelBad); code != exitOK || len(bad) > 0 {
		t.Errorf("got code %d and %+v, want 0 and nothing bad", code, bad)
	}
	if _, err := os.Stat(filepath.Dir(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Error("the doctor made the directory")
	}
	var out strings.Builder
	if code := Main(t.Context(), []string{"tenants", "create", "x", "--data", dir}, nil, &out, io.Discard); code != exitOK {
		t.Fatal("no tenant")
	}
	out.Reset()
	if code := Main(t.Context(), []string{"doctor", "--data", dir, "--http", "127.0.0.1:0"}, nil, &out, io.Discard); code != exitOK || !strings.Contains(out.String(), "All is well.") || !strings.Contains(out.String(), "as they must be") {
		t.Errorf("got code %d and %q", code, out.String())
	}
}

func TestDoctorData(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{file: "is no directory", filepath.Join(file, "below"): "is no directory", "/proc/fanfare": "cannot be written to"} {
		all, code := runDoctor(t, "--data", dir, "--http", "127.0.0.1:0")
		wantBad(t, all, want, "--data")
		if code != exitError {
			t.Errorf("%s: got exit code %d, want %d", dir, code, exitError)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "store.db"), []byte("this is no database at all, and long enough to be looked at"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, _ := runDoctor(t, "--data", dir, "--http", "127.0.0.1:0")
	wantBad(t, all, "cannot be read", "--data")
}

// A port that somebody else has is bad; one where fanfare serves is asked how that is.
func TestDoctorHTTP(t *testing.T) {
	t.Parallel()
	other := listenTo(t, garbage)
	all, code := runDoctor(t, "--data", t.TempDir(), "--http", other)
	wantBad(t, all, other+" is taken", "--http")
	if code != exitError {
		t.Errorf("got exit code %d, want %d", code, exitError)
	}
	status := "ready"
	us := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"status": status, "checks": map[string]string{"process": "ok", "redis": "gone fishing"}})
	}))
	t.Cleanup(us.Close)
	addr := strings.TrimPrefix(us.URL, "http://")
	for s, want := range map[string]level{"ready": levelOK, "degraded": levelNote, "unready": levelBad} {
		status = s
		all := examineHTTP(context.Background(), Config{HTTP: addr})
		if len(all) != 1 || all[0].Level != want || want != levelOK && !strings.Contains(all[0].Found, "redis: gone fishing") {
			t.Errorf("%s: got %+v, want level %s and what is missing", s, all, want)
		}
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
		t.Errorf("got %+v, want nothing of what is allowed", got)
	}
	if got := clockFinding("x", -5*time.Second); len(got) != 1 || !strings.Contains(got[0].Found, "5s behind") {
		t.Errorf("got %+v, want 5s behind", got)
	}
}

func TestWithoutPassword(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"127.0.0.1:6379": "127.0.0.1:6379", "redis://:geheim@h:1/0": "redis://:xxxxx@h:1/0", "clickhouse://h:9000/d?password=geheim&x=1": "clickhouse://h:9000/d?password=xxxxx&x=1",
		"://u:geheim@h": "(an address that cannot be read)",
	} {
		if got := withoutPassword(addr); got != want {
			t.Errorf("%s: got %q, want %q", addr, got, want)
		}
	}
}
