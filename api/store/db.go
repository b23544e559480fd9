package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"fanfare/api/store/db"
)

// All differences between the two databases are in this file, in open.go and in lead.go:
//
//   - syntax: Postgres writes $1 for ?1, BIGINT for INTEGER, BYTEA for BLOB, and declares numbered keys differently
//     ([toPostgres]);
//   - writing: SQLite has one writer connection per process, whose transactions begin IMMEDIATE, so that no other
//     process changes what they have read; Postgres has a pool, and updates lock the rows they change;
//   - prepared statements: SQLite takes longer to parse a statement than to run it, so this package keeps them; pgx
//     keeps its own.

// database runs the SQL of this package on either.
type database struct {
	postgres bool
	// readers answer queries. On Postgres they write too.
	readers *sql.DB
	// read is readers behind a translation to the database's SQL.
	read  db.DBTX
	known sync.Map // of rewriter

	// The other fields are for SQLite: the one connection that writes, the lock on it, and its prepared statements.
	writers *sql.DB
	writer  *sql.Conn
	turn    chan struct{}
	write   db.DBTX
	// rewrites numbers the rewrites of the file: the last that began, and, under turn, the last that was completed.
	rewrites struct {
		begun atomic.Uint64
		done  uint64
	}
}

// close closes every connection.
func (d *database) close() error {
	var errs []error
	if d.writer != nil {
		errs = append(errs, d.writer.Close())
	}
	if d.writers != nil {
		errs = append(errs, d.writers.Close())
	}
	if d.readers != nil {
		errs = append(errs, d.readers.Close())
	}
	return errors.Join(errs...)
}

// transact runs fn in one transaction. On Postgres fn may run several times: it must have no effect except its writes,
// and must set its results again each time. The error is [ErrUnknown] when the transaction may or may not have been
// committed.
func (d *database) transact(ctx context.Context, fn func(db.DBTX) error) error {
	if !d.postgres {
		return d.transactSQLite(ctx, fn)
	}
	var err error
	// Deadlocks and serialization failures that last longer have a cause that another attempt does not remove
	for range 5 {
		if err = d.transactPostgres(ctx, &sql.TxOptions{}, fn); !retryable(err) {
			return err
		}
	}
	return err
}

func (d *database) transactPostgres(ctx context.Context, opts *sql.TxOptions, fn func(db.DBTX) error) error {
	tx, err := d.readers.BeginTx(ctx, opts)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // no effect after the commit; rolls back when fn fails or panics
	if err := fn(rewriter{tx, &d.known}); err != nil {
		return errors.Join(err, ignoreDone(tx.Rollback()))
	}
	if opts.ReadOnly {
		return tx.Commit()
	}
	// With the id of the transaction, fateOf can later ask Postgres whether it was committed.
	var id int64
	if err := tx.QueryRowContext(ctx, "SELECT txid_current()").Scan(&id); err != nil {
		return errors.Join(fmt.Errorf("commit: %w", err), ignoreDone(tx.Rollback()))
	}
	if err := tx.Commit(); err != nil {
		return d.fateOf(ctx, id, fmt.Errorf("commit: %w", err))
	}
	return nil
}

// fatePatience is how long fateOf asks about a transaction whose commit was not answered.
const fatePatience = 5 * time.Second

// fateOf finds out whether a transaction was committed whose commit failed because the connection broke or the server
// stopped before it answered. It returns nil if the transaction was committed, the error of the commit if it was rolled
// back, and ErrUnknown if Postgres does not answer.
func (d *database) fateOf(ctx context.Context, id int64, err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && !mayHaveCommitted(pg.Code) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fatePatience)
	defer cancel()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		var fate sql.NullString
		if d.readers.QueryRowContext(ctx, "SELECT txid_status($1)", id).Scan(&fate) == nil {
			switch fate.String {
			case "committed":
				return nil
			case "aborted":
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnknown, err)
		case <-time.After(wait):
		}
	}
}

// mayHaveCommitted reports whether a commit that failed with this SQLSTATE may have succeeded: the server shut down or
// crashed (57P), or a pooler lost its connection (08).
func mayHaveCommitted(code string) bool {
	return strings.HasPrefix(code, "57P") || strings.HasPrefix(code, "08")
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

func (d *database) transactSQLite(ctx context.Context, fn func(db.DBTX) error) (err error) {
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// Transactions begin and end without the caller's context. If a caller gave up during BEGIN or COMMIT, the driver
	// would return the context's error although SQLite had executed the statement: the transaction would stay open and
	// refuse all later ones, or be committed and reported as failed.
	whole := context.WithoutCancel(ctx)
	if _, err := d.write.ExecContext(whole, "BEGIN IMMEDIATE"); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	done := false
	defer func() {
		if err == nil && done { // done is false when fn panicked
			if _, err = d.write.ExecContext(whole, "COMMIT"); err == nil {
				return
			}
			err = fmt.Errorf("commit: %w", err)
		}
		_, _ = d.write.ExecContext(whole, "ROLLBACK") // SQLite may have rolled back by itself already
	}()
	err = fn(d.write)
	done = true
	return err
}

// snapshot runs fn on one snapshot of the database: fn does not see what others write meanwhile.
func (d *database) snapshot(ctx context.Context, fn func(db.DBTX) error) error {
	if d.postgres {
		return d.transactPostgres(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}, fn)
	}
	tx, err := d.readers.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	return errors.Join(fn(tx), ignoreDone(tx.Rollback()))
}

// prepared keeps the prepared statements of a SQLite connection or pool until it is closed. The texts of queries are
// constants, except for lists of values, which have a handful of lengths. So the number of statements is bounded.
type prepared struct {
	on interface {
		PrepareContext(context.Context, string) (*sql.Stmt, error)
		QueryRowContext(context.Context, string, ...any) *sql.Row
	}
	mu    sync.Mutex
	stmts map[string]*sql.Stmt
}

func (p *prepared) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	p.mu.Lock()
	s := p.stmts[query]
	p.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s, err := p.on.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if other := p.stmts[query]; other != nil {
		defer func() { _ = s.Close() }() // another goroutine prepared the same statement meanwhile
		return other, nil
	}
	p.stmts[query] = s
	return s, nil
}

// ExecContext runs a statement that stays prepared.
func (p *prepared) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	s, err := p.stmt(ctx, query) //nolint:sqlclosecheck // kept for the next time
	if err != nil {
		return nil, err
	}
	return s.ExecContext(ctx, args...)
}

// QueryContext asks for rows with a statement that stays prepared.
func (p *prepared) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	s, err := p.stmt(ctx, query) //nolint:sqlclosecheck // kept for the next time
	if err != nil {
		return nil, err
	}
	return s.QueryContext(ctx, args...)
}

// QueryRowContext asks for one row with a statement that stays prepared.
func (p *prepared) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	s, err := p.stmt(ctx, query) //nolint:sqlclosecheck // kept for the next time
	if err != nil {
		return p.on.QueryRowContext(ctx, query, args...) // the row returns the error
	}
	return s.QueryRowContext(ctx, args...)
}

// PrepareContext prepares a statement for the caller.
func (p *prepared) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	return p.on.PrepareContext(ctx, query)
}

// rewriter translates queries to the SQL of Postgres and caches the translations. See [prepared] for why the cache is
// bounded.
type rewriter struct {
	db.DBTX
	known *sync.Map
}

func (r rewriter) words(query string) string {
	if known, ok := r.known.Load(query); ok {
		return known.(string)
	}
	text := toPostgres(query)
	r.known.Store(query, text)
	return text
}

// ExecContext runs a statement.
func (r rewriter) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return r.DBTX.ExecContext(ctx, r.words(query), args...)
}

// QueryContext asks for rows.
func (r rewriter) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return r.DBTX.QueryContext(ctx, r.words(query), args...)
}

// QueryRowContext asks for one row.
func (r rewriter) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return r.DBTX.QueryRowContext(ctx, r.words(query), args...)
}

// PrepareContext prepares a statement for the caller.
func (r rewriter) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	return r.DBTX.PrepareContext(ctx, r.words(query))
}

// toPostgres translates SQL from SQLite to Postgres. As in SQLite, a bare ? has the number after the greatest one
// before it. Quoted texts and comments stay as they are.
func toPostgres(query string) string {
	var b strings.Builder
	b.Grow(len(query) + 16)
	greatest := 0
	for i := 0; i < len(query); {
		c := query[i]
		switch {
		case c == '\'' || c == '"':
			end := i + 1
			for end < len(query) && query[end] != c {
				end++
			}
			end = min(end+1, len(query))
			b.WriteString(query[i:end])
			i = end
		case strings.HasPrefix(query[i:], "--"):
			end := strings.IndexByte(query[i:], '\n')
			if end < 0 {
				end = len(query) - i
			}
			b.WriteString(query[i : i+end])
			i += end
		case c == '?':
			i++
			n := 0
			for i < len(query) && query[i] >= '0' && query[i] <= '9' {
				n = n*10 + int(query[i]-'0')
				i++
			}
			if n == 0 {
				n = greatest + 1
			}
			greatest = max(greatest, n)
			fmt.Fprintf(&b, "$%d", n)
		case isWord(c):
			end := i
			for end < len(query) && isWord(query[end]) {
				end++
			}
			i = writeWord(&b, query, i, end)
		default:
			b.WriteByte(c)
			i++
		}
	}
	return b.String()
}

// writeWord writes the Postgres word for query[from:to] and returns the offset to continue at.
func writeWord(b *strings.Builder, query string, from, to int) int {
	const selfNumbered, withoutRowid = "INTEGER PRIMARY KEY AUTOINCREMENT", "WITHOUT ROWID"
	switch word := query[from:to]; word {
	case "INTEGER":
		if strings.HasPrefix(query[from:], selfNumbered) {
			b.WriteString("BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY")
			return from + len(selfNumbered)
		}
		b.WriteString("BIGINT")
	case "BLOB":
		b.WriteString("BYTEA")
	case "INSTR": // STRPOS and INSTR both look for the second argument in the first
		b.WriteString("STRPOS")
	case "WITHOUT":
		if strings.HasPrefix(query[from:], withoutRowid) {
			return from + len(withoutRowid)
		}
		b.WriteString(word)
	default:
		b.WriteString(word)
	}
	return to
}

func isWord(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// retryable reports whether Postgres asks to try the transaction again (class 40: deadlock, serialization failure).
func retryable(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && strings.HasPrefix(pg.Code, "40")
}

// isTaken reports whether err is the violation of a unique key.
func isTaken(err error) bool {
	if lite, ok := errors.AsType[*sqlite.Error](err); ok {
		return lite.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || lite.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
	}
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505"
}

// isBusy reports whether err says that another process has locked the SQLite file.
func isBusy(err error) bool {
	lite, ok := errors.AsType[*sqlite.Error](err)
	return ok && lite.Code()&0xff == sqlite3.SQLITE_BUSY
}

// isCheck reports whether err is the violation of a CHECK constraint.
func isCheck(err error) bool {
	if lite, ok := errors.AsType[*sqlite.Error](err); ok {
		return lite.Code() == sqlite3.SQLITE_CONSTRAINT_CHECK
	}
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23514"
}
