package ratelimit

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// faultyRedis is a Redis whose faults a test chooses, in a bubble of its own time.
type faultyRedis struct {
	server *miniredis.Miniredis
	client *redis.Client

	mu    sync.Mutex
	dial  func(ctx context.Context) (net.Conn, error) // nil: the server
	conns []net.Conn
	dials atomic.Int64
}

func newFaultyRedis(t *testing.T, password string) *faultyRedis {
	t.Helper()
	r := &faultyRedis{server: miniredis.NewMiniRedis()}
	t.Cleanup(r.server.Close)
	r.client = redis.NewClient(&redis.Options{
		Addr: "127.0.0.1:1", Password: password, ContextTimeoutEnabled: true, DialerRetries: 1,
		Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
			r.dials.Add(1)
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.dial != nil {
				return r.dial(ctx)
			}
			conn, err := r.server.Dial()
			if err == nil {
				r.conns = append(r.conns, conn)
			}
			return conn, err
		},
	})
	t.Cleanup(func() { _ = r.client.Close() })
	return r
}

// fails makes the next connections fail, and ends those that are open.
func (r *faultyRedis) fails(dial func(ctx context.Context) (net.Conn, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dial = dial
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

// silent is a connection of which nothing is read and to which nothing is written.
func silent(context.Context) (net.Conn, error) {
	conn, peer := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, peer) }()
	return conn, nil
}

// logLines are the lines of a log.
type logLines struct {
	mu    sync.Mutex
	lines []map[string]any
}

func (l *logLines) Write(b []byte) (int, error) {
	line := map[string]any{}
	if err := json.Unmarshal(b, &line); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return len(b), nil
}

// toMend follows the reason of a line that says what a person must do.
const toMend = " (to mend)"

// reasons are the reasons of the lines since the last call; `ready` is the line that Redis works again.
func (l *logLines) reasons() (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		reason, _ := line["reason"].(string)
		if line["msg"] == "redis is ready again" {
			reason = "ready"
		}
		if line["level"] == "ERROR" && line["mend"] != nil {
			reason += toMend
		}
		out = append(out, reason)
	}
	l.lines = nil
	return out
}

// Every condition of Redis in flight is waited for, with growing waits and one line in the log for each change, for as
// long as it lasts; then the tokens are given out. What only a person can mend is named as such, and waited for as
// well: the messages wait.
func TestConditionsOfRedisAreWaitedFor(t *testing.T) {
	answers := func(text string) func(r *faultyRedis) {
		return func(r *faultyRedis) { r.server.SetError(text) }
	}
	fails := func(err error) func(r *faultyRedis) {
		return func(r *faultyRedis) { r.fails(func(context.Context) (net.Conn, error) { return nil, err }) }
	}
	redis.SetLogger(discard{})
	const closed = "it closed the connection"
	for name, tc := range map[string]struct {
		fault  func(r *faultyRedis)
		reason string
		mend   bool // a person must
	}{
		"name not resolved":     {fails(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "redis.example", IsNotFound: true}}), "its name does not resolve", false},
		"connection refused":    {fails(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), "connection refused", false},
		"connection reset":      {fails(&net.OpError{Op: "read", Err: syscall.ECONNRESET}), closed, false},
		"no route":              {fails(&net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}), "not reachable", false},
		"time-out":              {func(r *faultyRedis) { r.fails(silent) }, "no answer in time", false},
		"loading":               {answers("LOADING Redis is loading the dataset in memory"), "it is still reading its data", false},
		"failover":              {answers("READONLY You can't write against a read only replica."), "it is a replica and read-only, as in a failover", false},
		"failover, Redis 6":     {answers("ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't write against a read only replica."), "it is a replica and read-only, as in a failover", false},
		"primary down":          {answers("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."), "it is a replica without its primary", false},
		"cluster down":          {answers("CLUSTERDOWN The cluster is down"), "the cluster is down", false},
		"slots on the move":     {answers("TRYAGAIN Multiple keys request during rehashing of slot"), "slots of the cluster are being moved", false},
		"too many clients":      {answers("ERR max number of clients reached"), "it has as many clients as it allows", false},
		"busy":                  {answers("BUSY Redis is busy running a script."), "it is busy with a script", false},
		"too few replicas":      {answers("NOREPLICAS Not enough good replicas to write."), "it has fewer replicas than it wants for a write", false},
		"any other error":       {answers("ERR something new"), "it answers with an error", false},
		"no password":           {func(r *faultyRedis) { r.server.RequireAuth("changed"); r.fails(nil) }, "it wants a password", true},
		"wrong password":        {answers("WRONGPASS invalid username-password pair or user is disabled."), "it refuses the user or the password", true},
		"rights":                {answers("NOPERM this user has no permissions to run the 'evalsha' command"), "the user lacks rights", true},
		"memory full":           {answers("OOM command not allowed when used memory > 'maxmemory'."), "its memory is full", true},
		"disk full":             {answers("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk."), "it cannot write to its disk", true},
		"protected mode":        {answers("DENIED Redis is running in protected mode"), "it is in protected mode", true},
		"certificate not known": {fails(x509.UnknownAuthorityError{}), "TLS failed", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newFaultyRedis(t, "")
				var lines logLines
				l, err := New(r.client, Config{Names: names(t), Instance: "a", Logger: slog.New(slog.NewJSONHandler(&lines, nil))})
				if err != nil {
					t.Fatal(err)
				}
				var g [1]Grant
				if err := l.Take(t.Context(), []Request{bulk(1000, 1)}, g[:]); err != nil || g[0].Tokens != 1 {
					t.Fatalf("before: got %+v, %v, want a token", g[0], err)
				}
				tc.fault(r)
				before := r.dials.Load()
				done := make(chan error, 1)
				go func() { done <- l.Take(t.Context(), []Request{bulk(1000, 100)}, g[:]) }()
				const lasts = 10 * time.Minute
				time.Sleep(lasts)
				synctest.Wait()
				select {
				case err := <-done:
					t.Fatalf("got %+v, %v, want no answer while the condition lasts", g[0], err)
				default:
				}
				got := lines.reasons()
				if len(got) == 2 && got[0] == closed { // the open connection ended first
					got = got[1:]
				}
				want := tc.reason
				if tc.mend {
					want += toMend
				}
				if len(got) != 1 || got[0] != want {
					t.Errorf("got lines %q, want one: %q", got, want)
				}
				if l.Available() {
					t.Error("got available")
				}
				if got := r.dials.Load() - before; got > int64(lasts/(time.Second/2))*4 {
					t.Errorf("got %d connections tried in %s, want no more than a wait of half a second and the client's repetitions allow", got, lasts)
				}

				// Another condition: one line more.
				r.server.RequireAuth("")
				r.server.SetError("LOADING Redis is loading the dataset in memory")
				r.fails(nil)
				time.Sleep(20 * time.Second)
				got = lines.reasons()
				if len(got) == 2 && got[0] == closed {
					got = got[1:]
				}
				if want := "it is still reading its data"; tc.reason != want && (len(got) != 1 || got[0] != want) {
					t.Errorf("another condition: got lines %q, want one: %q", got, want)
				}
				r.server.SetError("")
				time.Sleep(20 * time.Second)
				synctest.Wait()
				select {
				case err := <-done:
					if err != nil || g[0].Tokens == 0 {
						t.Errorf("Redis is back: got %+v, %v, want tokens", g[0], err)
					}
				default:
					t.Error("Redis is back: got no answer")
				}
				if got := lines.reasons(); len(got) != 1 || got[0] != "ready" || !l.Available() {
					t.Errorf("Redis is back: got lines %q, available %v, want one and true", got, l.Available())
				}
			})
		})
	}
}

// discard is a logger of go-redis.
type discard struct{}

func (discard) Printf(context.Context, string, ...any) {}

// A condition names no port and no time, so it is the same for each attempt; every one that a person must mend says
// how.
func TestConditionsAreNamed(t *testing.T) {
	for _, c := range conditions {
		if got := ConditionOf(proto(c.prefix + " text")); got != c.Condition {
			t.Errorf("%s: got %+v, want %+v", c.prefix, got, c.Condition)
		}
		if strings.Contains(c.Name, "password") != (c.prefix == "NOAUTH" || c.prefix == "WRONGPASS" || strings.Contains(c.prefix, "AUTH")) {
			t.Errorf("%s: got name %q", c.prefix, c.Name)
		}
	}
	for _, err := range []error{redis.ErrPoolTimeout, context.DeadlineExceeded, io.EOF, errors.New("new")} {
		if ConditionOf(err).Name == "" {
			t.Errorf("%v has no name", err)
		}
	}
}
