package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver

	"fanfare/sinks/analytics"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Config of a store.
type Config struct {
	// Path of the database file. Open creates the file if it does not exist; the folder must exist.
	Path string
	// CacheBytes roughly bounds the sets kept in memory; 0 means 32 MiB, about ten campaigns of 1,000,000 recipients.
	// Loading a campaign that is not in memory takes about 10 ms.
	CacheBytes int
}

// Store keeps analytics in one SQLite file.
type Store struct {
	write *sql.DB   // has one connection, conn
	conn  *sql.Conn // used by the writer only
	read  *sql.DB

	// writing is held by the one writer. It guards the fields of this paragraph.
	writing  sync.Mutex
	nextID   int64 // of campaigns and of sets
	stmts    map[string]*sql.Stmt
	appender appender
	// rewritten says that the file was rewritten after the last erasure, so no free page has data of the person.
	rewritten bool

	// visible is write-locked from the commit of a transaction until the cache shows the same state, and read-locked
	// while a query takes its snapshot. So no answer is older than an earlier one, whether it comes from the file or
	// from the cache.
	visible sync.RWMutex
	cache   *cache

	asOf   atomic.Int64
	closed atomic.Bool
}

var (
	_ analytics.Store      = (*Store)(nil)
	_ analytics.Positioner = (*Store)(nil)
)

// Open opens the store and brings its tables up to date.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Path == "" {
		return nil, errors.New("analytics: Config.Path is empty")
	}
	// Pages of 16 KiB: runs and bitmaps have about 10 KiB, and a value that is longer than a page is read as a chain of
	// pages. The WAL may grow to 32 MiB, so that bitmaps that every batch rewrites are copied into the file only once
	// per many batches. synchronous(NORMAL): a commit survives the end of the process. After a loss of power the last
	// commits may be gone; they are then read from the topic again.
	pragmas := []string{"page_size(16384)", "journal_mode(WAL)", "synchronous(NORMAL)", "busy_timeout(10000)", "wal_autocheckpoint(2048)", "cache_size(-8192)", "temp_store(MEMORY)"}
	query := url.Values{"_pragma": pragmas}
	dsn := "file:" + (&url.URL{Path: cfg.Path}).EscapedPath() + "?" + query.Encode()
	s := &Store{stmts: map[string]*sql.Stmt{}, cache: newCache(cmp.Or(cfg.CacheBytes, 32<<20))}
	var err error
	if s.write, err = sql.Open("sqlite", dsn); err != nil {
		return nil, fmt.Errorf("open %s: %w", cfg.Path, err)
	}
	s.write.SetMaxOpenConns(1)
	if s.read, err = sql.Open("sqlite", dsn+"&_pragma=query_only(1)"); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", cfg.Path, err), s.write.Close())
	}
	s.read.SetMaxOpenConns(4)
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", cfg.Path, err), s.Close())
	}
	return s, nil
}

func (s *Store) start(ctx context.Context) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, s.write, dir)
	if err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if s.conn, err = s.write.Conn(ctx); err != nil {
		return err
	}
	if err := s.conn.QueryRowContext(ctx, "SELECT max(coalesce((SELECT max(id) FROM campaigns), 0), coalesce((SELECT max(id) FROM sets), 0))").Scan(&s.nextID); err != nil {
		return fmt.Errorf("read ids: %w", err)
	}
	at, err := readAsOf(ctx, s.conn)
	if err != nil {
		return err
	}
	s.asOf.Store(at)
	return nil
}

// Close waits for the transaction in progress and closes the file.
func (s *Store) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.closed.Swap(true) {
		return nil
	}
	var errs []error
	for _, stmt := range s.stmts {
		errs = append(errs, stmt.Close())
	}
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
	}
	return errors.Join(append(errs, s.read.Close(), s.write.Close())...)
}

// begin starts a transaction. The caller holds writing.
func (s *Store) begin(ctx context.Context) (*tx, error) {
	if s.closed.Load() {
		return nil, analytics.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// A transaction is short and is not cancelled. If the caller gave up during BEGIN, the driver would return the
	// context's error although SQLite had begun: the transaction would stay open and refuse all later ones. A
	// cancellable context would also cost a goroutine for every statement.
	ctx = context.WithoutCancel(ctx)
	if _, err := s.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	return &tx{ctx: ctx, s: s}, nil
}

// tx is a transaction of the writer. Its statements are prepared once and kept.
type tx struct {
	ctx  context.Context //nolint:containedctx // a tx does not outlive the call that began it
	s    *Store
	done bool
}

// exec executes a statement. The text must be a constant, because the prepared statement is kept for ever.
func (t *tx) exec(query string, args ...any) error {
	stmt := t.s.stmts[query]
	if stmt == nil {
		var err error
		if stmt, err = t.s.conn.PrepareContext(t.ctx, query); err != nil {
			return err
		}
		t.s.stmts[query] = stmt
	}
	_, err := stmt.ExecContext(t.ctx, args...)
	return err
}

func (t *tx) commit() error {
	if _, err := t.s.conn.ExecContext(t.ctx, "COMMIT"); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	t.done = true
	return nil
}

// rollback ends a transaction that was not committed. It drops its own error, because the caller returns the error that
// made it roll back.
func (t *tx) rollback() {
	if !t.done {
		_, _ = t.s.conn.ExecContext(t.ctx, "ROLLBACK")
	}
}

// view begins a read transaction on a snapshot of everything committed so far.
func (s *Store) view(ctx context.Context) (*sql.Tx, error) {
	if s.closed.Load() {
		return nil, analytics.ErrClosed
	}
	t, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	s.visible.RLock()
	defer s.visible.RUnlock()
	// SQLite takes its snapshot at the first read.
	var one int
	if err := t.QueryRowContext(ctx, "SELECT count(*) FROM campaigns WHERE id = 0").Scan(&one); err != nil {
		_ = t.Rollback()
		return nil, fmt.Errorf("begin: %w", err)
	}
	return t, nil
}

// Mark stores how far a topic has been read.
func (s *Store) Mark(ctx context.Context, topic analytics.TopicID, marks []analytics.Mark) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	t, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer t.rollback()
	for _, m := range marks {
		const upsert = `INSERT INTO marks (topic, partition, next, as_of) VALUES (?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET next = excluded.next, as_of = excluded.as_of WHERE excluded.as_of >= as_of`
		if err := t.exec(upsert, topic[:], m.Partition, m.End, milliseconds(m.AsOf)); err != nil {
			return fmt.Errorf("mark partition %d: %w", m.Partition, err)
		}
	}
	at, err := readAsOf(ctx, s.conn)
	if err != nil {
		return err
	}
	if err := t.commit(); err != nil {
		return fmt.Errorf("mark: %w", err)
	}
	s.asOf.Store(at)
	return nil
}

func milliseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// readAsOf returns the least time of the most recently marked topic, in milliseconds; 0 if there is none.
func readAsOf(ctx context.Context, q querier) (at int64, err error) {
	const query = `SELECT coalesce(min(as_of), 0) FROM marks WHERE topic = (SELECT topic FROM marks ORDER BY as_of DESC LIMIT 1)`
	if err := q.QueryRowContext(ctx, query).Scan(&at); err != nil {
		return 0, fmt.Errorf("read marks: %w", err)
	}
	return at, nil
}

// AsOf returns the time up to which the answers contain everything in the topic.
func (s *Store) AsOf(context.Context) (time.Time, error) {
	if s.closed.Load() {
		return time.Time{}, analytics.ErrClosed
	}
	if at := s.asOf.Load(); at != 0 {
		return time.UnixMilli(at).UTC(), nil
	}
	return time.Time{}, nil
}

// Positions returns the offset after the last stored one, by partition.
func (s *Store) Positions(ctx context.Context, topic analytics.TopicID) (map[int32]int64, error) {
	if s.closed.Load() {
		return nil, analytics.ErrClosed
	}
	rows, err := s.read.QueryContext(ctx, "SELECT partition, next FROM positions WHERE topic = ?", topic[:])
	if err != nil {
		return nil, fmt.Errorf("read positions: %w", err)
	}
	defer rows.Close()
	out := map[int32]int64{}
	for rows.Next() {
		var partition int32
		var next int64
		if err := rows.Scan(&partition, &next); err != nil {
			return nil, fmt.Errorf("read positions: %w", err)
		}
		out[partition] = next
	}
	return out, rows.Err()
}

// Rewind lowers the position of a partition.
func (s *Store) Rewind(ctx context.Context, topic analytics.TopicID, partition int32, to int64) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	t, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer t.rollback()
	if err := t.exec("UPDATE positions SET next = ? WHERE topic = ? AND partition = ? AND next > ?", to, topic[:], partition, to); err != nil {
		return fmt.Errorf("rewind: %w", err)
	}
	return t.commit()
}
