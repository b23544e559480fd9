package postgrestest

import (
	"context"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// InFrontOf serves a real Postgres, with sessions in a schema of it, and returns the address for package store.
func InFrontOf(tb testing.TB, address, schema string) (s *Server, dsn string) {
	tb.Helper()
	u, err := url.Parse(address)
	if err != nil {
		tb.Fatal(err)
	}
	q := u.Query()
	q.Set("search_path", schema)
	u.RawQuery = q.Encode()
	address = u.String()
	s = newServer(tb, func() (upstream, error) {
		conn, err := pgconn.Connect(context.Background(), address)
		if err != nil {
			return nil, err
		}
		hijacked, err := conn.Hijack()
		if err != nil {
			return nil, err
		}
		return &real{conn: hijacked, status: 'I', texts: map[string]string{}}, nil
	})
	return s, "postgres://fanfare@" + s.listener.Addr().String() + "/fanfare?sslmode=disable"
}

// real is a session on a real Postgres.
type real struct {
	conn   *pgconn.HijackedConn
	status byte
	texts  map[string]string // of prepared statements
}

func (r *real) close() { _ = r.conn.Conn.Close() }

func (r *real) text(msg pgproto3.FrontendMessage) string {
	switch m := msg.(type) {
	case *pgproto3.Query:
		return m.String
	case *pgproto3.Parse:
		r.texts[m.Name] = m.Query
	case *pgproto3.Bind:
		return r.texts[m.PreparedStatement]
	}
	return ""
}

func (r *real) handle(msg pgproto3.FrontendMessage, send func(pgproto3.BackendMessage)) error {
	r.conn.Frontend.Send(msg)
	switch msg.(type) {
	case *pgproto3.Query, *pgproto3.Sync:
	default:
		return nil
	}
	if err := r.conn.Frontend.Flush(); err != nil {
		return err
	}
	for {
		answer, err := r.conn.Frontend.Receive()
		if err != nil {
			return err
		}
		send(answer)
		if ready, ok := answer.(*pgproto3.ReadyForQuery); ok {
			r.status = ready.TxStatus
			return nil
		}
	}
}

func (r *real) abort() (byte, error) {
	if r.status != 'T' {
		return r.status, nil
	}
	err := r.handle(&pgproto3.Query{String: "the test aborts the transaction"}, func(pgproto3.BackendMessage) {})
	return r.status, err
}
