package services

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kfake"

	"fanfare/cmd/fanfare/services/servicestest"
)

// postgresGreets answers the first two packets of a client as Postgres does, and refuses the password.
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

// kafkaGreets answers ApiVersions and closes the connection on everything else. The fake cluster would allocate as many
// bytes as the first four bytes of a request say, which is a gigabyte in the greetings of other protocols.
func kafkaGreets(c net.Conn) {
	head := make([]byte, 12)
	if _, err := io.ReadFull(c, head); err != nil || string(head[:3]) != "\x00\x00\x00" || head[5] != 18 {
		return
	}
	_, _ = c.Write(append([]byte("\x00\x00\x00\x0a"), append(head[8:12], 0, 0, 0, 0, 0, 0)...))
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

// If another server answers at the address of a service, the problem names its protocol within seconds and says what to
// do.
func TestProblemNamesWhatAnswers(t *testing.T) {
	t.Parallel()
	redis := miniredis.RunT(t)
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	there := map[string]string{
		"nothing":    servicestest.FreeAddr(t),
		"unknown":    "nosuchhost.invalid:1",
		"silent":     servicestest.Listen(t, servicestest.Silent),
		"garbage":    servicestest.Listen(t, servicestest.Garbage),
		"closes":     servicestest.Listen(t, servicestest.Close),
		"Redis":      redis.Addr(),
		"Kafka":      servicestest.Listen(t, kafkaGreets),
		"Postgres":   servicestest.Listen(t, postgresGreets),
		"ClickHouse": servicestest.Listen(t, clickHouseGreets),
		"HTTP":       strings.TrimPrefix(web.URL, "http://"),
		"TLS":        strings.TrimPrefix(secure.URL, "https://"),
	}
	kafka := fakeKafka(t).ListenAddrs()[0]
	flags := map[string]struct {
		name string
		open func(addr string) *Problem
	}{
		"--kafka": {"Kafka", func(addr string) *Problem {
			cl, _, p := OpenKafka(t.Context(), Kafka{Brokers: []string{addr}})
			if p == nil {
				cl.Close()
			}
			return p
		}},
		"--redis": {"Redis", func(addr string) *Problem {
			rdb, p := OpenRedis(t.Context(), addr)
			if p == nil {
				_ = rdb.Close()
			}
			return p
		}},
		"--store": {"Postgres", func(addr string) *Problem {
			conn, p := OpenPostgres(t.Context(), "postgres://me:secret@"+addr+"/db")
			if p == nil {
				_ = conn.Close(t.Context())
			}
			return p
		}},
		"--clickhouse": {"ClickHouse", func(addr string) *Problem {
			conn, p := OpenClickHouse(t.Context(), "clickhouse://me:secret@"+addr+"/db")
			if p == nil {
				_ = conn.Close()
			}
			return p
		}},
	}
	var wg sync.WaitGroup
	for flag, service := range flags {
		for what, addr := range there {
			wg.Go(func() { // all at once, because some probes take seconds
				began := time.Now()
				if flag == "--kafka" && what == "Kafka" {
					addr = kafka
				}
				got := service.open(addr)
				if took := time.Since(began); took > 20*time.Second { // about six on a machine that does nothing else
					t.Errorf("%s finds %s: got an answer after %s, want it within 20 s", flag, what, took)
				}
				if what == service.name && (flag == "--kafka" || flag == "--redis") {
					if got != nil {
						t.Errorf("%s finds %s: got %q, want no problem", flag, what, got)
					}
					return
				}
				if got == nil {
					t.Errorf("%s finds %s: got no problem, want one", flag, what)
					return
				}
				want := map[string]string{
					"nothing": "nothing listens at " + addr, "unknown": "is not known", "silent": "does not answer as " + service.name,
					"garbage": "does not answer as " + service.name, "closes": "does not answer as " + service.name, "HTTP": "speaks HTTP", "TLS": "speaks TLS",
				}[what]
				switch {
				case what == service.name: // these two fakes refuse every login
					want = "refuses"
				case want == "":
					want = addr + " is " + what + ", not " + service.name
				}
				if !strings.Contains(got.Found, want) || !strings.Contains(got.Error(), addr) {
					t.Errorf("%s finds %s: got %q, want %q in it and the address", flag, what, got.Found, want)
				}
				if strings.ContainsAny(got.Error(), "\n\r") || got.Fix == "" || strings.Contains(got.Error(), "secret") {
					t.Errorf("%s finds %s: got %q, want one line with something to do and no password", flag, what, got.Error())
				}
				if !strings.Contains(got.Fix, flag) && what != "TLS" {
					t.Errorf("%s finds %s: got fix %q, want the flag in it", flag, what, got.Fix)
				}
			})
		}
	}
	wg.Wait()
}

func TestWithoutPassword(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"127.0.0.1:6379": "127.0.0.1:6379", "redis://:geheim@h:1/0": "redis://:xxxxx@h:1/0", "clickhouse://h:9000/d?password=geheim&x=1": "clickhouse://h:9000/d?password=xxxxx&x=1",
		"://u:geheim@h": "(an address that cannot be read)",
	} {
		if got := WithoutPassword(addr); got != want {
			t.Errorf("%s: got %q, want %q", addr, got, want)
		}
	}
}

// lines is a log that several goroutines write.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// The log of go-redis goes to our log, not to standard error.
func TestLogRedis(t *testing.T) {
	var out lines
	LogRedis(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer LogRedis(slog.New(slog.DiscardHandler))
	rdb := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "m", SentinelAddrs: []string{servicestest.FreeAddr(t)}, MaxRetries: -1})
	defer rdb.Close()
	if err := rdb.Ping(t.Context()).Err(); err == nil {
		t.Fatal("a sentinel that does not run: got no error")
	}
	if !strings.Contains(out.String(), "level=DEBUG") || !strings.Contains(out.String(), "sentinel") {
		t.Errorf("got the log %q, want what go-redis says of the sentinel, at debug", out.String())
	}
}
