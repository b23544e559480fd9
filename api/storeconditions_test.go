package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"fanfare/api/problem"
)

// While the store is away a request is answered 503 with a Retry-After, whatever the reason, and nothing of the reason
// reaches the client. The next request asks the store again: nothing has to be restarted.
func TestStoreConditionsAre503(t *testing.T) {
	s := &server{}
	for name, err := range map[string]error{
		"too many connections": &pgconn.PgError{Code: "53300", Message: "sorry, too many clients already"},
		"starting up":          &pgconn.PgError{Code: "57P03", Message: "the database system is starting up"},
		"shutting down":        &pgconn.PgError{Code: "57P01", Message: "terminating connection due to administrator command"},
		"read-only failover":   &pgconn.PgError{Code: "25006", Message: "cannot execute UPDATE in a read-only transaction"},
		"out of memory":        &pgconn.PgError{Code: "53200", Message: "out of memory"},
		"disk full":            &pgconn.PgError{Code: "53100", Message: "could not extend file"},
		"connection refused":   fmt.Errorf("connect: %w", syscall.ECONNREFUSED),
		"connection reset":     fmt.Errorf("read: %w", syscall.ECONNRESET),
		"connection closed":    io.ErrUnexpectedEOF,
		"an unknown reason":    errors.New("database is locked"),
	} {
		p, ok := errors.AsType[*problem.Problem](s.storeProblem(fmt.Errorf("campaigns: %w", err)))
		if !ok || p.Status != http.StatusServiceUnavailable || p.GetHeaders().Get("Retry-After") == "" || p.RetryAfter < 1 {
			t.Errorf("%s: got %+v, want 503 with Retry-After", name, p)
			continue
		}
		if text := p.Detail + p.Fix; len(text) == 0 || strings.Contains(text, err.Error()) {
			t.Errorf("%s: got %q", name, text)
		}
	}
}
