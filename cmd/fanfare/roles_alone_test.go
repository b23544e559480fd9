package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/cmd/fanfare/doctor"
	"fanfare/cmd/fanfare/services/servicestest"
	"fanfare/deploy/testinfra"
	"fanfare/schemas"
)

// When the carrier ends, the senders end, too. When the senders end, the carrier ends after them.
func TestRolesAlongside(t *testing.T) {
	t.Parallel()
	errDisk := errors.New("disk is full")
	until := func(ctx context.Context) error { <-ctx.Done(); return nil }
	err := alongside(t.Context(), func(context.Context) error { return errDisk }, until)
	if !errors.Is(err, errDisk) || !errors.Is(err, errCarrierEnded) {
		t.Errorf("got %v of a carrier that failed, want its error", err)
	}
	if err := alongside(t.Context(), func(context.Context) error { return nil }, until); !errors.Is(err, errCarrierEnded) {
		t.Errorf("got %v of a carrier that ended, want errCarrierEnded", err)
	}
	senderEnded := false
	err = alongside(t.Context(), func(ctx context.Context) error {
		<-ctx.Done()
		if !senderEnded {
			t.Error("the carrier was ended before its senders")
		}
		return nil
	}, func(context.Context) error {
		time.Sleep(10 * time.Millisecond)
		senderEnded = true
		return errDisk
	})
	if !errors.Is(err, errDisk) || errors.Is(err, errCarrierEnded) {
		t.Errorf("got %v of senders that failed, want theirs alone", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := alongside(ctx, until, until); err != nil {
		t.Errorf("got %v of a graceful stop, want nothing", err)
	}
}

// The answer time of the simulated route is that of its carrier.
func TestRolesSimP99(t *testing.T) {
	t.Parallel()
	for profile, want := range map[string]time.Duration{"default": 120 * time.Millisecond, "chaos": 300 * time.Millisecond, "fast": leastP99} {
		if got := (Config{SimProfile: profile}).simP99(); got != want {
			t.Errorf("%s: got %s, want %s", profile, got, want)
		}
		if got := (Config{SimProfile: profile, CarrierSim: "http://x"}).simP99(); got != simP99 {
			t.Errorf("%s, shared: got %s, want %s", profile, got, simP99)
		}
	}
}

// A gate is a proxy before a service. While it is shut, its connections are broken and new ones are refused.
type gate struct {
	to string

	mu    sync.Mutex
	shut  bool
	conns map[net.Conn]struct{}
}

var errShut = errors.New("the gate is shut")

// dial connects through the gate.
func (g *gate) dial(ctx context.Context) (net.Conn, error) {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut {
		return nil, errShut
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", g.to)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		_ = conn.Close()
		return nil, errShut
	}
	g.conns[conn] = struct{}{}
	return conn, nil
}

func (g *gate) setShut(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	if shut {
		for c := range g.conns {
			_ = c.Close()
		}
		clear(g.conns)
	}
}

// newGate returns a gate to an address.
func newGate(to string) *gate { return &gate{to: to, conns: map[net.Conn]struct{}{}} }

// listen serves clients that connect to an address instead of calling dial.
func (g *gate) listen(t testing.TB) string {
	return servicestest.Listen(t, g.pass)
}

// pass joins a client's connection with a new one until either ends.
func (g *gate) pass(c net.Conn) {
	out, err := g.dial(context.Background())
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(out, c)
		_ = out.Close()
	}()
	_, _ = io.Copy(c, out)
}

// gatedServices are the services of the test machine, each behind a gate.
type gatedServices struct {
	cfg       Config
	kafkaOpts []kgo.Opt
	gates     map[string]*gate // by the name of the check in /readyz
}

func newGatedServices(t *testing.T) *gatedServices {
	t.Helper()
	addr := testinfra.Need(t, testinfra.All...)
	secret := make([]byte, 16)
	_, _ = rand.Read(secret)
	s := &gatedServices{gates: map[string]*gate{}}
	gated := func(name, to string) string {
		s.gates[name] = newGate(to)
		return s.gates[name].listen(t)
	}
	pg, err := pgx.ParseConfig(addr[testinfra.Postgres])
	if err != nil {
		t.Fatal(err)
	}
	store, err := url.Parse(addr[testinfra.Postgres])
	if err != nil {
		t.Fatal(err)
	}
	store.Host = gated("store", net.JoinHostPort(pg.Host, store.Port()))
	ch, err := url.Parse(addr[testinfra.ClickHouse])
	if err != nil {
		t.Fatal(err)
	}
	ch.Host = gated("clickhouse", ch.Host)
	s.gates["kafka"] = newGate(addr[testinfra.Kafka])
	// A broker advertises its own address, so its clients go through the gate by their dialer.
	s.kafkaOpts = []kgo.Opt{kgo.Dialer(func(ctx context.Context, _, _ string) (net.Conn, error) { return s.gates["kafka"].dial(ctx) })}
	s.cfg = testConfig(t, func(c *Config) {
		c.Kafka, c.Redis = []string{addr[testinfra.Kafka]}, gated("redis", addr[testinfra.Redis])
		c.Store, c.ClickHouse, c.Prefix, c.IDKey = store.String(), ch.String(), "alone"+shortID()+".", hex.EncodeToString(secret)
	})
	return s
}

// served is one fanfare in this process.
type served struct {
	name, addr string
	stop       context.CancelFunc
	ended      chan error
}

// serve runs roles until stop is called.
func (s *gatedServices) serve(t *testing.T, roles ...string) *served {
	t.Helper()
	cfg := s.cfg
	cfg.Roles, cfg.HTTP, cfg.Edge, cfg.Data = roles, freeAddr(t), freeAddr(t), t.TempDir()
	level := slog.LevelError + 4
	if os.Getenv("FANFARE_TEST_VERBOSE") != "" {
		level = slog.LevelInfo
	}
	w := newWiring(cfg, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level})).With("roles", roles))
	w.cfg.kafkaOptions = s.kafkaOpts
	ctx, stop := context.WithCancel(t.Context())
	p := &served{name: strings.Join(roles, ","), addr: cfg.HTTP, stop: stop, ended: make(chan error, 1)}
	go func() {
		err := w.serve(ctx, nil)
		w.close()
		p.ended <- err
	}()
	return p
}

// until waits until the answer of /readyz satisfies is.
func (p *served) until(t *testing.T, limit time.Duration, is func(status string, checks map[string]string) bool) {
	t.Helper()
	began := time.Now()
	var status string
	var checks map[string]string
	for time.Since(began) < limit {
		status, checks, _ = doctor.AskReady(t.Context(), p.addr)
		if status != "" && is(status, checks) {
			return
		}
		select {
		case err := <-p.ended:
			t.Fatalf("%s ended unexpectedly: %v", p.name, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Fatalf("%s: after %s /readyz says %s, %v", p.name, limit, status, checks)
}

func isReady(status string, _ map[string]string) bool { return status == "ready" }

// away returns how long a service stays away in this test. FANFARE_TEST_AWAY makes it longer (make soak).
func away() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("FANFARE_TEST_AWAY")); err == nil {
		return d
	}
	return 1500 * time.Millisecond
}

// Each role alone on real services starts. When a service is away, /readyz names it and the process continues (P5); when
// the service is back, the process becomes ready by itself. It stops cleanly.
func TestIntegrationRolesAlone(t *testing.T) {
	s := newGatedServices(t)
	first := s.serve(t, "relay", "api") // creates topics and tables
	first.until(t, 30*time.Second, isReady)
	parts := []*served{first}
	for _, name := range roleNames() {
		began := time.Now()
		p := s.serve(t, name)
		p.until(t, 30*time.Second, isReady)
		took := time.Since(began)
		t.Logf("%s alone is ready after %s", name, took.Round(time.Millisecond))
		if took > 20*time.Second {
			t.Errorf("%s alone is ready after %s, want about a second", name, took)
		}
		parts = append(parts, p)
	}
	key := s.key(t)
	s.sendOne(t, first.addr, key)
	stands := map[string][]string{
		"kafka": roleNames(), "store": {"api", "relay", "scheduler", "expander", "inbound", "analytics", "webhook"}, "redis": {"sender", "tracker"}, "clickhouse": {"api", "analytics"},
	}
	for _, service := range []string{"redis", "clickhouse", "store", "kafka"} {
		s.gates[service].setShut(true)
		shutAt := time.Now()
		for _, p := range parts {
			for _, role := range stands[service] {
				if p.name != role {
					continue
				}
				want := "unready"
				if role == "api" && service != "store" {
					want = "degraded" // the API still accepts campaigns
				}
				p.until(t, 10*time.Second, func(status string, checks map[string]string) bool {
					return status == want && checks[service] != "ok"
				})
			}
		}
		time.Sleep(time.Until(shutAt.Add(away())))
		s.gates[service].setShut(false)
		opened := time.Now()
		for _, p := range parts {
			p.until(t, 30*time.Second, isReady)
		}
		t.Logf("%s was away for %s; all are ready %s after it was back", service, opened.Sub(shutAt).Round(time.Millisecond), time.Since(opened).Round(time.Millisecond))
		s.sendOne(t, first.addr, key)
	}
	for _, p := range parts[1:] {
		p.stopWithin(t)
	}
	// A process also stops when all services are away.
	last := s.serve(t)
	last.until(t, 10*time.Second, isReady)
	for _, g := range s.gates {
		g.setShut(true)
	}
	last.stopWithin(t)
	parts[0].stopWithin(t)
}

// key creates a tenant and returns a key of it.
func (s *gatedServices) key(t *testing.T) string {
	t.Helper()
	connection := []string{
		"--data", t.TempDir(), "--kafka", s.cfg.Kafka[0], "--redis", s.cfg.Redis, "--store", s.cfg.Store, "--clickhouse", s.cfg.ClickHouse, "--prefix", s.cfg.Prefix, "--id-key", s.cfg.IDKey,
	}
	var out, stderr strings.Builder
	for _, command := range [][]string{{"tenants", "create", "Acme"}, {"keys", "create", "--tenant", "Acme"}} {
		out.Reset()
		if code := Main(t.Context(), append(command, connection...), nil, &out, &stderr); code != exitOK {
			t.Fatalf("%q: %s", command, stderr.String())
		}
	}
	return strings.TrimSpace(out.String())
}

// sendOne sends one message and waits until the statistics say that it is delivered. All roles except scheduler and
// expander take part in that.
func (s *gatedServices) sendOne(t *testing.T, addr, key string) {
	t.Helper()
	c := &client{base: "http://" + addr, key: key}
	began := time.Now()
	var sent struct {
		MessageID string `json:"messageId"`
	}
	c.must(t, "POST", "/api/message-server/sms/send", map[string]any{"phoneNumber": "+393401234567", "message": "hello"}, &sent, "")
	var is struct{ Status string }
	for time.Since(began) < 40*time.Second {
		if _, err := c.call(t.Context(), "GET", "/api/messages/status/"+sent.MessageID, nil, &is, ""); err == nil && is.Status == "delivered" {
			t.Logf("a message is delivered after %s", time.Since(began).Round(time.Millisecond))
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("after 40 s the message is %q, want it delivered", is.Status)
}

// stopWithin stops the process and waits until it has ended, which must take less than 15 s.
func (p *served) stopWithin(t *testing.T) {
	t.Helper()
	const limit = 15 * time.Second
	began := time.Now()
	p.stop()
	select {
	case err := <-p.ended:
		took := time.Since(began)
		t.Logf("%q stopped after %s", p.name, took.Round(time.Millisecond))
		if err != nil || took > limit {
			t.Errorf("%q stopped with %v after %s, want nothing within %s", p.name, err, took, limit)
		}
	case <-time.After(limit + 10*time.Second):
		t.Errorf("%q does not stop", p.name)
	}
}

// G12: after a sender is killed, another sender owns its partitions within a session time-out and a second, on a real
// broker.
func TestIntegrationRolesTakeover(t *testing.T) {
	const session = 10 * time.Second // of window.Config
	flags, prefix := servicesOf(t)
	names, err := schemas.NewNames(prefix)
	if err != nil {
		t.Fatal(err)
	}
	flags = flags[:len(flags)-2] // each has its own --http
	cl, err := kgo.NewClient(kgo.SeedBrokers(testinfra.Need(t, testinfra.Kafka)[testinfra.Kafka]))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	// held returns how many partitions the members of the group have, and how many members there are.
	held := func() (all, members int) {
		groups, err := adm.DescribeGroups(t.Context(), names.SenderGroup(simRoute, schemas.LaneBulk))
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			members = len(g.Members)
			all = len(g.AssignedPartitions()[names.Messages(simRoute, schemas.LaneBulk)])
			if g.State != "Stable" {
				all = 0
			}
		}
		return all, members
	}
	await := func(members int, limit time.Duration) time.Duration {
		t.Helper()
		began := time.Now()
		for time.Since(began) < limit {
			if all, n := held(); all == schemas.MessagePartitions && n == members {
				return time.Since(began)
			}
			time.Sleep(20 * time.Millisecond)
		}
		all, n := held()
		t.Fatalf("after %s got %d members with %d partitions, want %d with all", limit, n, all, members)
		return 0
	}
	_, _, _ = startToReady(t, append(flags, "--roles", "relay", "--log-level", "warn")...) // publishes the route
	sender := func() *process {
		_, p, _ := startToReady(t, append(flags, "--roles", "sender", "--log-level", "warn", "--data", t.TempDir())...)
		return p
	}
	killed, other := sender(), sender()
	for try := 1; ; try++ {
		await(2, 20*time.Second)
		killed.kill()
		took := await(1, session+10*time.Second)
		t.Logf("taken over after %s", took.Round(time.Millisecond))
		if took <= session+time.Second {
			return
		}
		if try == 4 { // the first attempts may be slow because the machine is busy
			t.Fatalf("taken over after %s, want %s", took, session+time.Second)
		}
		killed, other = other, sender()
	}
}
