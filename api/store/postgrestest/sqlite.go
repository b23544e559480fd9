package postgrestest

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// OverSQLite serves the tables of a SQLite file and returns the address for package store.
func OverSQLite(tb testing.TB, path string) (s *Server, dsn string) {
	tb.Helper()
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)&_pragma=synchronous(0)")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	shared := &sharedState{locks: map[int64]*lite{}, fates: map[int64]string{}}
	s = newServer(tb, func() (upstream, error) {
		conn, err := db.Conn(context.Background())
		if err != nil {
			return nil, err
		}
		return &lite{conn: conn, shared: shared}, nil
	})
	// In the other modes pgx asks for the types of parameters, which SQLite does not tell, or writes them into the
	// text.
	return s, fmt.Sprintf("postgres://fanfare@%s/fanfare?sslmode=disable&default_query_exec_mode=exec", s.listener.Addr())
}

// sharedState is what sessions know of each other.
type sharedState struct {
	mu    sync.Mutex
	locks map[int64]*lite  // advisory
	fates map[int64]string // of transactions, by their ids
}

// lite is a session on SQLite.
type lite struct {
	conn   *sql.Conn
	shared *sharedState
	inside bool  // a transaction
	failed bool  // it can only be rolled back
	id     int64 // of the transaction, if a client has asked
	// The statement that was parsed last, its parameters, and the answer to it once it has run.
	parsed string
	bound  []any
	rest   []pgproto3.BackendMessage
}

func (l *lite) close() {
	if l.inside {
		l.end("ROLLBACK", "aborted")
	}
	l.unlock()
	_ = l.conn.Close()
}

func (l *lite) unlock() {
	l.shared.mu.Lock()
	defer l.shared.mu.Unlock()
	for key, holder := range l.shared.locks {
		if holder == l {
			delete(l.shared.locks, key)
		}
	}
}

// end ends the transaction.
func (l *lite) end(word, fate string) {
	if _, err := l.conn.ExecContext(context.Background(), word); err != nil {
		fate = "aborted"
	}
	l.shared.mu.Lock()
	defer l.shared.mu.Unlock()
	if l.id != 0 {
		l.shared.fates[l.id] = fate
	}
	l.inside, l.failed, l.id = false, false, 0
}

func (l *lite) status() byte {
	switch {
	case l.failed:
		return 'E'
	case l.inside:
		return 'T'
	}
	return 'I'
}

func (l *lite) abort() (byte, error) {
	l.failed = l.inside
	return l.status(), nil
}

func (l *lite) text(msg pgproto3.FrontendMessage) string {
	switch m := msg.(type) {
	case *pgproto3.Query:
		return m.String
	case *pgproto3.Bind:
		return l.parsed
	}
	return ""
}

func (l *lite) handle(msg pgproto3.FrontendMessage, send func(pgproto3.BackendMessage)) error {
	switch m := msg.(type) {
	case *pgproto3.Query:
		l.query(bare(m.String), nil, send)
		send(&pgproto3.ReadyForQuery{TxStatus: l.status()})
	case *pgproto3.Parse:
		l.parsed = bare(m.Query)
		send(&pgproto3.ParseComplete{})
	case *pgproto3.Bind:
		l.bound = l.bound[:0]
		for i, raw := range m.Parameters {
			format := int16(pgproto3.TextFormat)
			switch codes := m.ParameterFormatCodes; len(codes) {
			case 0:
			case 1:
				format = codes[0]
			default:
				format = codes[i]
			}
			l.bound = append(l.bound, parameter(raw, format == pgproto3.BinaryFormat))
		}
		send(&pgproto3.BindComplete{})
	case *pgproto3.Describe:
		// Of the bound statement, which runs here: the types of its columns are those of its values
		l.rest = nil
		l.query(l.parsed, l.bound, func(answer pgproto3.BackendMessage) { l.rest = append(l.rest, answer) })
		if described, ok := l.rest[0].(*pgproto3.RowDescription); ok {
			send(described)
			l.rest = l.rest[1:]
			break
		}
		send(&pgproto3.NoData{})
	case *pgproto3.Execute:
		for _, answer := range l.rest {
			send(answer)
		}
	case *pgproto3.Sync:
		send(&pgproto3.ReadyForQuery{TxStatus: l.status()})
	default:
		return fmt.Errorf("message %T", msg)
	}
	return nil
}

// parameter reads the value of a parameter. pgx says no types and sends nearly all as text: a text that looks like a
// number, a truth value or bytes is taken for that. Columns of SQLite that hold texts turn a number back.
func parameter(raw []byte, packed bool) any {
	switch {
	case raw == nil:
		return nil
	case packed:
		return bytes.Clone(raw)
	case string(raw) == "t" || string(raw) == "f":
		return string(raw) == "t"
	case bytes.HasPrefix(raw, []byte(`\x`)):
		if b, err := hex.DecodeString(string(raw[2:])); err == nil {
			return b
		}
	}
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil && strconv.FormatInt(n, 10) == string(raw) {
		return n
	}
	return string(raw)
}

var argumentPattern = regexp.MustCompile(`\$(\d+)`)

// query runs one statement and sends the answer to it.
func (l *lite) query(text string, args []any, send func(pgproto3.BackendMessage)) {
	word := firstWord(strings.ToLower(text))
	switch {
	case text == "" || text == ";":
		send(&pgproto3.EmptyQueryResponse{})
		return
	case word == "commit" && l.failed, word == "rollback":
		l.end("ROLLBACK", "aborted")
		send(&pgproto3.CommandComplete{CommandTag: []byte("ROLLBACK")})
		return
	case word == "commit":
		l.end("COMMIT", "committed")
		send(&pgproto3.CommandComplete{CommandTag: []byte("COMMIT")})
		return
	case l.failed:
		l.fail("25P02", "current transaction is aborted, commands ignored until end of transaction block", send)
		return
	case word == "begin":
		begin := "BEGIN IMMEDIATE"
		if strings.Contains(strings.ToLower(text), "read only") {
			begin = "BEGIN"
		}
		if _, err := l.conn.ExecContext(context.Background(), begin); err != nil {
			l.failWith(err, send)
			return
		}
		l.inside = true
		send(&pgproto3.CommandComplete{CommandTag: []byte("BEGIN")})
		return
	}
	if answer, ok := l.function(text, args); ok {
		l.rows([]string{"answer"}, [][]any{{answer}}, send)
		send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
		return
	}
	text = argumentPattern.ReplaceAllString(strings.ReplaceAll(text, "STRPOS(", "INSTR("), "?$1")
	if err := l.run(word, text, args, send); err != nil {
		l.failWith(err, send)
	}
}

// function answers the functions of Postgres that SQLite has not.
func (l *lite) function(text string, args []any) (answer any, ok bool) {
	argument := int64(0)
	if len(args) == 1 {
		argument, _ = args[0].(int64)
	}
	l.shared.mu.Lock()
	defer l.shared.mu.Unlock()
	switch {
	case strings.Contains(text, "pg_try_advisory_lock("):
		holder := l.shared.locks[argument]
		if holder == nil {
			l.shared.locks[argument] = l
		}
		return holder == nil || holder == l, true
	case strings.Contains(text, "pg_advisory_unlock_all("):
		for key, holder := range l.shared.locks {
			if holder == l {
				delete(l.shared.locks, key)
			}
		}
		return nil, true
	case strings.Contains(text, "txid_current("):
		if l.id == 0 {
			l.id = int64(len(l.shared.fates)) + 1
			l.shared.fates[l.id] = "in progress"
		}
		return l.id, true
	case strings.Contains(text, "txid_status("):
		return l.shared.fates[argument], true
	}
	return nil, false
}

// run runs a statement on SQLite.
func (l *lite) run(word, text string, args []any, send func(pgproto3.BackendMessage)) error {
	ctx := context.Background()
	tag := strings.ToUpper(word)
	if word == "insert" {
		tag = "INSERT 0"
	}
	if word != "select" && word != "with" && !strings.Contains(text, "RETURNING") {
		result, err := l.conn.ExecContext(ctx, text, args...)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return err
		}
		send(&pgproto3.CommandComplete{CommandTag: fmt.Appendf(nil, "%s %d", tag, n)})
		return nil
	}
	names, values, err := l.read(ctx, text, args)
	if err != nil {
		return err
	}
	l.rows(names, values, send)
	if word == "with" {
		tag = "SELECT"
	}
	send(&pgproto3.CommandComplete{CommandTag: fmt.Appendf(nil, "%s %d", tag, len(values))})
	return nil
}

func (l *lite) read(ctx context.Context, text string, args []any) (names []string, values [][]any, err error) {
	rows, err := l.conn.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if names, err = rows.Columns(); err != nil {
		return nil, nil, err
	}
	for rows.Next() {
		row, at := make([]any, len(names)), make([]any, len(names))
		for i := range row {
			at[i] = &row[i]
		}
		if err := rows.Scan(at...); err != nil {
			return nil, nil, err
		}
		values = append(values, row)
	}
	return names, values, rows.Err()
}

// The types of the columns of answers, by their numbers in pg_type.
const (
	oidBool, oidBytea, oidInt8, oidText, oidFloat8 = 16, 17, 20, 25, 701
)

// rows sends rows as text. A column has the type of its first value that is not null.
func (l *lite) rows(names []string, values [][]any, send func(pgproto3.BackendMessage)) {
	described := pgproto3.RowDescription{}
	for i, name := range names {
		oid := uint32(oidText)
		for _, row := range values {
			if row[i] == nil {
				continue
			}
			switch row[i].(type) {
			case bool:
				oid = oidBool
			case []byte:
				oid = oidBytea
			case int64:
				oid = oidInt8
			case float64:
				oid = oidFloat8
			}
			break
		}
		described.Fields = append(described.Fields, pgproto3.FieldDescription{Name: []byte(name), DataTypeOID: oid, DataTypeSize: -1, TypeModifier: -1})
	}
	send(&described)
	for _, row := range values {
		data := pgproto3.DataRow{}
		for _, value := range row {
			var b []byte
			switch v := value.(type) {
			case nil:
			case bool:
				b = []byte{"ft"[map[bool]int{true: 1}[v]]}
			case []byte:
				b = []byte(`\x` + hex.EncodeToString(v))
			default:
				b = fmt.Append([]byte{}, v) // an empty text is not null
			}
			data.Values = append(data.Values, b)
		}
		send(&data)
	}
}

// failWith sends an error of SQLite under the code that Postgres has for it.
func (l *lite) failWith(err error, send func(pgproto3.BackendMessage)) {
	code := "XX000"
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() {
		case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
			code = "23505"
		case sqlite3.SQLITE_CONSTRAINT_CHECK:
			code = "23514"
		}
	}
	l.fail(code, err.Error(), send)
}

func (l *lite) fail(code, message string, send func(pgproto3.BackendMessage)) {
	l.failed = l.inside
	send(&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: code, Message: message})
}
