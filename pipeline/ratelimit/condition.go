package ratelimit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// Condition is why Redis does not do what it is asked.
type Condition struct {
	// Name of the condition, the same for each attempt: errors differ by ports and times.
	Name string
	// Mend is what a person must do. Empty: the condition goes away by itself.
	Mend string
}

// conditions are the answers of Redis by which it does nothing, by the beginning of their text, as
// [redis.HasErrorPrefix] has it: without ERR.
var conditions = []struct {
	prefix string
	Condition
}{
	{"LOADING", Condition{Name: "it is still reading its data"}},
	{"READONLY", Condition{Name: "it is a replica and read-only, as in a failover"}},
	{"MASTERDOWN", Condition{Name: "it is a replica without its primary"}},
	{"CLUSTERDOWN", Condition{Name: "the cluster is down"}},
	{"TRYAGAIN", Condition{Name: "slots of the cluster are being moved"}},
	{"MOVED", Condition{Name: "slots of the cluster are being moved"}},
	{"ASK", Condition{Name: "slots of the cluster are being moved"}},
	{"NOREPLICAS", Condition{Name: "it has fewer replicas than it wants for a write"}},
	{"BUSY", Condition{Name: "it is busy with a script"}},
	{"UNBLOCKED", Condition{Name: "it changes its role, as in a failover"}},
	{"max number of clients", Condition{Name: "it has as many clients as it allows"}},
	{"NOAUTH", Condition{Name: "it wants a password", Mend: "give it in --redis redis://:PASSWORD@HOST:PORT and restart"}},
	{"WRONGPASS", Condition{Name: "it refuses the user or the password", Mend: "correct them in --redis redis://USER:PASSWORD@HOST:PORT and restart"}},
	{"Client sent AUTH", Condition{Name: "it refuses the user or the password", Mend: "it has no password: leave the one in --redis out and restart"}},
	{"AUTH", Condition{Name: "it refuses the user or the password", Mend: "correct them in --redis redis://USER:PASSWORD@HOST:PORT and restart"}},
	{"NOPERM", Condition{Name: "the user lacks rights", Mend: "ACL SETUSER <user> +@all ~*"}},
	{"DENIED", Condition{Name: "it is in protected mode", Mend: "give it a password (requirepass), or the addresses to listen on (bind)"}},
	{"OOM", Condition{Name: "its memory is full", Mend: "raise maxmemory"}},
	{"MISCONF", Condition{Name: "it cannot write to its disk", Mend: "see its log; it takes no writes until its disk takes them"}},
}

// errReadOnly is what Redis 7 and newer answer when a script would write on a replica.
var errReadOnly = proto("READONLY You can't write against a read only replica.")

// proto is an answer of Redis as an error.
type proto string

func (e proto) Error() string { return string(e) }

// RedisError marks it as an answer of Redis; see [redis.Error].
func (proto) RedisError() {}

// ConditionOf returns the condition that caused err.
func ConditionOf(err error) Condition {
	for _, c := range conditions {
		if redis.HasErrorPrefix(err, c.prefix) {
			return c.Condition
		}
	}
	var dns *net.DNSError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &dns):
		return Condition{Name: "its name does not resolve"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return Condition{Name: "connection refused"}
	case errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted):
		return Condition{Name: "all connections of this process are in use"}
	case isTLS(err):
		return Condition{Name: "TLS failed", Mend: "check rediss:// or redis:// in --redis, and the certificate"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return Condition{Name: "no answer in time"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrClosedPipe), errors.Is(err, net.ErrClosed):
		return Condition{Name: "it closed the connection"}
	case redis.HasErrorPrefix(err, "Error running script") && strings.Contains(err.Error(), "-READONLY"):
		// Before Redis 7
		return ConditionOf(errReadOnly)
	case redis.HasErrorPrefix(err, ""):
		return Condition{Name: "it answers with an error"}
	}
	return Condition{Name: "not reachable"}
}

func isTLS(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		host         x509.HostnameError
		authority    x509.UnknownAuthorityError
		header       tls.RecordHeaderError
		alert        tls.AlertError
	)
	return errors.As(err, &verification) || errors.As(err, &host) || errors.As(err, &authority) || errors.As(err, &header) || errors.As(err, &alert)
}

// State logs whether Redis does what it is asked: one line when it stops, one when the condition changes, one when it
// works again, however often it is asked meanwhile. It is safe for concurrent use.
type State struct {
	log *slog.Logger

	mu    sync.Mutex
	now   Condition
	since time.Time
}

// NewState returns a state that works.
func NewState(log *slog.Logger) *State { return &State{log: log} }

// Failed takes note of an error. It reports whether Redis did what it was asked before.
func (s *State) Failed(ctx context.Context, err error) (first bool) {
	c := ConditionOf(err)
	s.mu.Lock()
	before := s.now
	if before.Name == "" {
		s.since = time.Now()
	}
	s.now = c
	s.mu.Unlock()
	if before == c {
		return false
	}
	level, args := slog.LevelWarn, []any{"reason", c.Name, "err", err}
	if c.Mend != "" {
		level, args = slog.LevelError, append(args, "mend", c.Mend)
	}
	s.log.Log(ctx, level, "redis is not ready; retrying", args...)
	return before.Name == ""
}

// OK takes note that Redis does what it is asked. It reports whether it did not before.
func (s *State) OK(ctx context.Context) (again bool) {
	s.mu.Lock()
	was, waited := s.now.Name != "", time.Since(s.since)
	s.now = Condition{}
	s.mu.Unlock()
	if was {
		s.log.InfoContext(ctx, "redis is ready again", "waited_ms", waited.Milliseconds())
	}
	return was
}

// Ready reports whether Redis did what it was asked last.
func (s *State) Ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now.Name == ""
}
