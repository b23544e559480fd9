package services

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"fanfare/cmd/fanfare/services/servicestest"
)

// logged collects the messages of a log, and calls onWait at each line about a service that is not ready.
type logged struct {
	slog.Handler
	mu     sync.Mutex
	lines  []string
	onWait func()
}

func (l *logged) Enabled(context.Context, slog.Level) bool { return true }
func (l *logged) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logged) WithGroup(string) slog.Handler            { return l }
func (l *logged) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	l.lines = append(l.lines, r.Message)
	l.mu.Unlock()
	if strings.Contains(r.Message, "not ready") && l.onWait != nil {
		l.onWait()
	}
	return nil
}

// changing is a server whose behaviour changes from bad to good.
type changing struct {
	good      atomic.Bool
	bad, well func(net.Conn)
}

func (s *changing) serve(c net.Conn) {
	if s.good.Load() {
		s.well(c)
		return
	}
	s.bad(c)
}

// forward joins a connection with one to addr.
func forward(addr string) func(net.Conn) {
	return func(c net.Conn) {
		out, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		defer out.Close()
		go func() {
			b := make([]byte, 64<<10)
			for {
				n, err := c.Read(b)
				if err != nil {
					_ = out.Close()
					return
				}
				if _, err := out.Write(b[:n]); err != nil {
					return
				}
			}
		}()
		b := make([]byte, 64<<10)
		for {
			n, err := out.Read(b)
			if err != nil {
				return
			}
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
	}
}

// openers connect to each service at an address.
var openers = map[string]func(ctx context.Context, addr string) *Problem{
	"--kafka": func(ctx context.Context, addr string) *Problem {
		cl, _, p := OpenKafka(ctx, Kafka{Brokers: []string{addr}})
		if p == nil {
			cl.Close()
		}
		return p
	},
	"--redis": func(ctx context.Context, addr string) *Problem {
		rdb, p := OpenRedis(ctx, addr)
		if p == nil {
			_ = rdb.Close()
		}
		return p
	},
	"--store": func(ctx context.Context, addr string) *Problem {
		conn, p := OpenPostgres(ctx, "postgres://me:secret@"+addr+"/db?sslmode=disable")
		if p == nil {
			_ = conn.Close(ctx)
		}
		return p
	},
	"--clickhouse": func(ctx context.Context, addr string) *Problem {
		conn, p := OpenClickHouse(ctx, "clickhouse://me:secret@"+addr+"/db")
		if p == nil {
			_ = conn.Close()
		}
		return p
	},
}

func redisAnswers(command, answer string) func(net.Conn) {
	return servicestest.Redis(map[string]string{command: answer})
}

// A start waits for every condition that passes by itself, with one log line when the wait begins and one when it is
// over. A7, A6.
func TestStartWaitsForConditionsThatPass(t *testing.T) {
	t.Parallel()
	kafka := forward(fakeKafka(t).ListenAddrs()[0])
	noBrokers := fakeKafka(t)
	noBrokers.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
		noBrokers.KeepControl()
		return req.ResponseKind(), nil, true
	})
	elsewhere := fakeKafka(t)
	elsewhere.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
		elsewhere.KeepControl()
		resp := req.ResponseKind().(*kmsg.MetadataResponse)
		b := kmsg.NewMetadataResponseBroker()
		b.Host, b.Port = "127.0.0.1", 1
		resp.Brokers = append(resp.Brokers, b)
		return resp, nil, true
	})
	redis := forward(miniredis.RunT(t).Addr())
	postgres, clickhouse := servicestest.Postgres{}.Serve, servicestest.ClickHouse{}.Serve
	for _, c := range []struct {
		flag, name string
		bad, well  func(net.Conn)
		found      string
	}{
		{"--kafka", "a proxy without a backend", servicestest.Close, kafka, "does not answer as Kafka does"},
		{"--kafka", "no answer yet", servicestest.Silent, kafka, "does not answer as Kafka does"},
		{"--kafka", "no broker is registered", forward(noBrokers.ListenAddrs()[0]), kafka, "knows no brokers yet"},
		{"--kafka", "the advertised broker is not there", forward(elsewhere.ListenAddrs()[0]), kafka, "advertises the address 127.0.0.1:1"},

		{"--redis", "a proxy without a backend", servicestest.Close, redis, "does not answer as Redis does"},
		{"--redis", "no answer yet", servicestest.Silent, redis, "does not answer as Redis does"},
		{"--redis", "loading", redisAnswers("PING", "-LOADING Redis is loading the dataset in memory"), redis, "still reading its data"},
		{"--redis", "its primary is down", redisAnswers("PING", "-MASTERDOWN Link with MASTER is down"), redis, "MASTERDOWN"},
		{"--redis", "cluster down", redisAnswers("PING", "-CLUSTERDOWN Hash slot not served"), redis, "CLUSTERDOWN"},
		{"--redis", "busy with a script", redisAnswers("PING", "-BUSY Redis is busy running a script"), redis, "BUSY"},
		{"--redis", "too many clients", redisAnswers("PING", "-ERR max number of clients reached"), redis, "max number of clients"},
		{"--redis", "failover", redisAnswers("INFO REPLICATION", servicestest.Bulk("role:slave\r\nmaster_host:redis-1\r\nmaster_port:6379\r\n")), redis, "is a replica of redis-1:6379"},

		{"--store", "a proxy without a backend", servicestest.Close, postgres, "does not answer as Postgres does"},
		{"--store", "no answer yet", servicestest.Silent, postgres, "does not answer as Postgres does"},
		{"--store", "starting up", servicestest.Postgres{Refuse: "57P03"}.Serve, postgres, "starting up or shutting down"},
		{"--store", "shutting down", servicestest.Postgres{Refuse: "57P01"}.Serve, postgres, "refused by the test"},
		{"--store", "too many connections", servicestest.Postgres{Refuse: "53300"}.Serve, postgres, "no connection left"},
		{"--store", "no memory", servicestest.Postgres{Refuse: "53200"}.Serve, postgres, "refused by the test"},
		{"--store", "a pooler without a server", servicestest.Postgres{Refuse: "08006"}.Serve, postgres, "refused by the test"},
		{"--store", "failover", servicestest.Postgres{Standby: true}.Serve, postgres, "is a standby and read-only"},

		{"--clickhouse", "a proxy without a backend", servicestest.Close, clickhouse, "does not answer as ClickHouse does"},
		{"--clickhouse", "too many queries", servicestest.ClickHouse{Refuse: 202}.Serve, clickhouse, "refused by the test"},
		{"--clickhouse", "a query timed out", servicestest.ClickHouse{Refuse: 159}.Serve, clickhouse, "refused by the test"},
		{"--clickhouse", "no Keeper", servicestest.ClickHouse{Refuse: 999}.Serve, clickhouse, "refused by the test"},
		{"--clickhouse", "shutting down", servicestest.ClickHouse{Refuse: 236}.Serve, clickhouse, "refused by the test"},
		{"--clickhouse", "no memory", servicestest.ClickHouse{Refuse: 241}.Serve, clickhouse, "refused by the test"},
		{"--clickhouse", "read-only tables", servicestest.ClickHouse{Refuse: 242}.Serve, clickhouse, "refused by the test"},
	} {
		t.Run(c.flag+"/"+c.name, func(t *testing.T) {
			t.Parallel()
			server := &changing{bad: c.bad, well: c.well}
			addr := servicestest.Listen(t, server.serve)
			waits(t, c.flag, addr, c.found, func() { server.good.Store(true) })
		})
	}
	for flag, well := range map[string]func(net.Conn){"--kafka": kafka, "--redis": redis, "--store": postgres, "--clickhouse": clickhouse} {
		t.Run(flag+"/nothing listens", func(t *testing.T) {
			t.Parallel()
			addr := servicestest.FreeAddr(t)
			waits(t, flag, addr, "nothing listens at "+addr, func() { servicestest.ListenAt(t, addr, well) })
		})
	}
}

// waits waits for the service at addr and wants the problem found; mend is called at the first line of the log, and
// must end it.
func waits(t *testing.T, flag, addr, found string, mend func()) {
	t.Helper()
	log := &logged{onWait: sync.OnceFunc(mend)}
	first := ""
	err := Waiter{Log: slog.New(log), Timeout: time.Minute, Began: time.Now()}.For(t.Context(), flag, func(ctx context.Context) *Problem {
		p := openers[flag](ctx, addr)
		if p != nil && first == "" {
			first = p.Error()
		}
		return p
	})
	if err != nil {
		t.Fatalf("got %v, want the service waited for", err)
	}
	if !strings.Contains(first, found) {
		t.Errorf("got %q, want %q in it", first, found)
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	// The change may appear as one more problem
	if len(log.lines) < 2 || len(log.lines) > 3 || log.lines[len(log.lines)-1] != "service is ready" {
		t.Errorf("got the lines %q, want one about the wait and one about its end", log.lines)
	}
}

// A problem that waiting cannot mend ends the start at once, with an error that says what to do.
func TestStartEndsForWhatStays(t *testing.T) {
	t.Parallel()
	old := forward(fakeKafka(t, kfake.MaxVersions(kversion.V2_4_0())).ListenAddrs()[0])
	locked := miniredis.RunT(t)
	locked.RequireAuth("right")
	http := func(c net.Conn) {
		b := make([]byte, 1024)
		if n, err := c.Read(b); err == nil && strings.HasPrefix(string(b[:n]), "GET ") {
			_, _ = c.Write([]byte("HTTP/1.0 404 Not Found\r\n\r\n"))
		}
	}
	for _, c := range []struct {
		flag, name string
		server     func(net.Conn)
		found, fix string
	}{
		{"--kafka", "too old", old, "lacks", "Kafka 2.8 or newer"},
		{"--kafka", "another service", redisAnswers("PING", "+PONG"), "is Redis, not Kafka", "--kafka"},
		{"--kafka", "HTTP", http, "speaks HTTP", "--kafka"},

		{"--redis", "no password", forward(locked.Addr()), "wants a password", "--redis redis://:PASSWORD@"},
		{"--redis", "wrong password", redisAnswers("PING", "-WRONGPASS invalid username-password pair"), "refuses the user or the password", "--redis"},
		{"--redis", "no rights", redisAnswers("PING", "-NOPERM this user has no permissions"), "lacks the rights", "ACL SETUSER"},
		{"--redis", "protected mode", redisAnswers("PING", "-DENIED Redis is running in protected mode"), "protected mode", "requirepass"},
		{"--redis", "too old", redisAnswers("INFO SERVER", servicestest.Bulk("redis_version:4.0.9\r\n")), "Redis version 4.0.9", "Redis 5 or newer"},
		{"--redis", "another service", servicestest.Postgres{}.Serve, "is Postgres, not Redis", "--redis"},

		{"--store", "wrong password", servicestest.Postgres{Refuse: "28P01"}.Serve, `refuses the password of user "me"`, "--store"},
		{"--store", "no such user", servicestest.Postgres{Refuse: "28000"}.Serve, "does not let us in", "createuser me"},
		{"--store", "no database", servicestest.Postgres{Refuse: "3D000"}.Serve, `there is no database "db"`, "createdb"},
		{"--store", "no rights", servicestest.Postgres{Refuse: "42501"}.Serve, "refuses us", "log of Postgres"},
		{"--store", "too old", servicestest.Postgres{Version: "9.6.24"}.Serve, "Postgres version 9.6.24", "Postgres 10 or newer"},
		{"--store", "another service", redisAnswers("PING", "+PONG"), "is Redis, not Postgres", "--store"},

		{"--clickhouse", "wrong password", servicestest.ClickHouse{Refuse: 516}.Serve, `refuses user "me" or the password`, "--clickhouse"},
		{"--clickhouse", "no such user", servicestest.ClickHouse{Refuse: 192}.Serve, `refuses user "me" or the password`, "--clickhouse"},
		{"--clickhouse", "no rights", servicestest.ClickHouse{Refuse: 497}.Serve, "refuses us", "log of ClickHouse"},
		{"--clickhouse", "too old", servicestest.ClickHouse{Major: 24, Minor: 3}.Serve, "ClickHouse version 24.3", "ClickHouse 24.8 or newer"},
		{"--clickhouse", "another service", servicestest.Postgres{}.Serve, "is Postgres, not ClickHouse", "--clickhouse"},
	} {
		t.Run(c.flag+"/"+c.name, func(t *testing.T) {
			t.Parallel()
			addr := servicestest.Listen(t, c.server)
			log, tries := &logged{}, 0
			err := Waiter{Log: slog.New(log), Timeout: time.Hour, Began: time.Now()}.For(t.Context(), c.flag, func(ctx context.Context) *Problem {
				tries++
				return openers[c.flag](ctx, addr)
			})
			if err == nil || !strings.Contains(err.Error(), c.found) || !strings.Contains(err.Error(), c.fix) || !strings.HasPrefix(err.Error(), c.flag+": ") {
				t.Errorf("got %v, want %q, and %q to be done", err, c.found, c.fix)
			}
			if tries != 1 || len(log.lines) > 0 {
				t.Errorf("got %d tries and the lines %q, want it given up at once", tries, log.lines)
			}
		})
	}
}

// If the broker answers a login by closing the connection, the start waits briefly, not for the whole time-out: a
// broker that stops does the same.
func TestStartWaitsBrieflyForALogin(t *testing.T) {
	t.Parallel()
	c := fakeKafka(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "fan", "fare"))
	for name, k := range map[string]Kafka{
		"no login":       {},
		"wrong password": {SASL: "plain", User: "fan", Password: "wrong"},
	} {
		k.Brokers = c.ListenAddrs()
		_, _, p := OpenKafka(t.Context(), k)
		if p == nil || p.Wait == WaitLong || !strings.Contains(p.Fix, "--kafka-user") {
			t.Errorf("%s: got %+v, want a problem that is not waited for long", name, p)
		}
	}
	err := Waiter{Log: slog.New(slog.DiscardHandler), Timeout: 50 * time.Millisecond, Began: time.Now()}.For(t.Context(), "--kafka", func(context.Context) *Problem {
		return doubtful("it closes the connection", "log in")
	})
	if err == nil || strings.Contains(err.Error(), "waited") {
		t.Errorf("got %v, want the problem itself", err)
	}
}

// After the time-out the start ends with the problem, and says how long it waited.
func TestStartTimesOut(t *testing.T) {
	t.Parallel()
	log := &logged{}
	addr := servicestest.FreeAddr(t)
	err := Waiter{Log: slog.New(log), Timeout: 300 * time.Millisecond, Began: time.Now()}.For(t.Context(), "--redis", func(ctx context.Context) *Problem {
		return openers["--redis"](ctx, addr)
	})
	if err == nil || !strings.Contains(err.Error(), "nothing listens at "+addr) || !strings.Contains(err.Error(), "--start-timeout") {
		t.Errorf("got %v, want what is wrong and the flag", err)
	}
	if len(log.lines) != 1 {
		t.Errorf("got the lines %q, want one however often it tried", log.lines)
	}
}

// A start waits for a name that the name service does not know yet.
func TestStartWaitsForAName(t *testing.T) {
	var known atomic.Bool
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(dnsAnswer(b[:n], known.Load()), from)
		}
	}()
	usual := net.DefaultResolver
	defer func() { net.DefaultResolver = usual }()
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
	_, port, _ := net.SplitHostPort(miniredis.RunT(t).Addr())
	waits(t, "--redis", "redis.fanfare.test.:"+port, "the name in redis.fanfare.test.:"+port+" is not known", func() { known.Store(true) })
}

// dnsAnswer answers a question of one name: it does not exist, or it is 127.0.0.1.
func dnsAnswer(question []byte, known bool) []byte {
	end := 12
	for question[end] != 0 { // labels
		end += int(question[end]) + 1
	}
	end += 5 // the root label, type and class
	kind := binary.BigEndian.Uint16(question[end-4:])
	answer := append([]byte{}, question[:end]...)
	answer[2], answer[3] = 0x81, 0x80 // a response, recursion available
	copy(answer[4:12], []byte{0, 1, 0, 0, 0, 0, 0, 0})
	const typeA = 1
	switch {
	case !known:
		answer[3] |= 3 // no such name
	case kind == typeA:
		answer[7] = 1
		answer = append(answer, 0xc0, 12, 0, typeA, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1)
	}
	return answer
}
