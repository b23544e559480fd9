package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // registers the driver

	"fanfare/api/phone"
	"fanfare/api/store/db"
	"fanfare/schemas"
	migrations "fanfare/schemas/sql"
)

// Config of a store.
type Config struct {
	// DSN is postgres://… (or postgresql://…), else the path of a SQLite file. Several processes may have it open at once.
	DSN string
	// Schema that holds the tables in Postgres, default public. SQLite has none.
	Schema string
	// Keys hash the numbers of opt-outs; without them nothing can be suppressed.
	Keys *schemas.Keys
	// Silence is how long Postgres may leave a statement without an answer before its connection is given up; default 30 s.
	Silence time.Duration
	// Phones reads numbers; default one of its own. Whoever opens several stores shares one: it grows with the countries it meets.
	Phones *phone.Parser
	Logger *slog.Logger     // default: none
	Now    func() time.Time // default time.Now
}

// Store is the control plane's memory. It may be used by many goroutines.
type Store struct {
	d      *database
	q      *db.Queries // of the readers
	keys   *schemas.Keys
	log    *slog.Logger
	now    func() time.Time
	phones *phone.Parser
	path   string // of the SQLite file
	schema string

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of what is to be published
	marked  chan struct{} // closed at the next MarkPublished
	ordered chan struct{} // of RunImports: an import was ordered
	jobs    chan struct{} // of RunJobs: a job was ordered
	lead    leader
}

// readConns is how many queries of one process run at once on SQLite; more only fight for the same two or four cores.
const readConns = 8

// busy is how long a SQLite writer waits for one of another process. Batches of an import end within a tenth of a second, so
// whoever waits longer than this waits for something that hangs.
const busy = 10 * time.Second

// ErrSchema says that the tables are of another version than this program.
var ErrSchema = errors.New("store has other tables than this program")

// Open opens a store whose tables are there: see [Migrate]. Close it in the end.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s := &Store{
		keys: cfg.Keys, phones: cfg.Phones, log: cfg.Logger, now: cfg.Now, schema: cfg.Schema,
		changed: make(chan struct{}), marked: make(chan struct{}), ordered: make(chan struct{}, jobsAtOnce), jobs: make(chan struct{}, jobsAtOnce),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	var err error
	if s.phones == nil {
		if s.phones, err = phone.NewParser(); err != nil {
			return nil, err
		}
	}
	if s.d, err = connect(ctx, cfg); err != nil {
		return nil, err
	}
	s.q = db.New(s.d.read)
	if !s.d.postgres {
		s.path = cfg.DSN
	}
	if err := s.checkSchema(ctx); err != nil {
		return nil, errors.Join(err, s.d.close())
	}
	return s, nil
}

// Close ends what is under way and closes every connection.
func (s *Store) Close() error { return s.d.close() }

// Ping returns nil when the database answers.
func (s *Store) Ping(ctx context.Context) error {
	if _, err := s.q.GetBalance(ctx, ""); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("store does not answer: %w", err)
	}
	return nil
}

// checkSchema compares the newest migration applied with the newest one known.
func (s *Store) checkSchema(ctx context.Context) error {
	want, err := newestMigration()
	if err != nil {
		return err
	}
	var have int64
	row := s.d.read.QueryRowContext(ctx, "SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version")
	switch err := row.Scan(&have); {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("%w: no migration was ever applied (%w): run `fanfare migrate`", ErrSchema, err)
	case have < want:
		return fmt.Errorf("%w: they are at version %d, want %d: run `fanfare migrate`", ErrSchema, have, want)
	case have > want:
		return fmt.Errorf("%w: they are at version %d, this program knows %d: it is older than the store", ErrSchema, have, want)
	}
	return nil
}

func isPostgres(dsn string) bool {
	return strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://")
}

func connect(ctx context.Context, cfg Config) (*database, error) {
	if cfg.DSN == "" {
		return nil, errors.New("store: want the path of a SQLite file or a postgres:// address")
	}
	if isPostgres(cfg.DSN) {
		return connectPostgres(ctx, cfg)
	}
	return connectSQLite(ctx, cfg.DSN)
}

var schemaPattern = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

func connectPostgres(ctx context.Context, cfg Config) (*database, error) {
	pg, err := pgx.ParseConfig(cfg.DSN)
	if err != nil {
		return nil, errors.New("store: the Postgres address cannot be read") // the error of pgx may hold the password
	}
	if cfg.Schema != "" {
		if !schemaPattern.MatchString(cfg.Schema) {
			return nil, fmt.Errorf("store: schema %q: want a-z, 0-9 and _, at most 63, a letter first", cfg.Schema)
		}
		pg.RuntimeParams["search_path"] = cfg.Schema
	}
	pg.RuntimeParams["application_name"] = "fanfare"
	silence := cmp.Or(cfg.Silence, 30*time.Second)
	dialer := pg.DialFunc
	pg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dialer(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &impatientConn{Conn: conn, silence: silence}, nil
	}
	onError := pg.OnPgError
	pg.OnPgError = func(conn *pgconn.PgConn, err *pgconn.PgError) bool {
		// A primary that was demoted keeps its connections. A new one may reach the new primary.
		return onError(conn, err) && err.Code != "25006"
	}
	pool := stdlib.OpenDB(*pg)
	pool.SetMaxOpenConns(16)
	pool.SetMaxIdleConns(8)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	if err := pool.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("store: Postgres at %s:%d: %w", pg.Host, pg.Port, err), pool.Close())
	}
	d := &database{postgres: true, readers: pool}
	d.read = rewriter{pool, &d.known}
	return d, nil
}

// impatientConn is a connection that fails when an answer does not come. pgx sets a deadline only when a context ends.
type impatientConn struct {
	net.Conn
	silence time.Duration

	mu   sync.Mutex
	held bool // pgx has set a deadline
}

// SetDeadline sets a deadline of pgx.
func (c *impatientConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = !t.IsZero()
	return c.Conn.SetDeadline(t)
}

// Read reads an answer. pgx calls it only while it waits for one.
func (c *impatientConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	if !c.held {
		if err := c.SetReadDeadline(time.Now().Add(c.silence)); err != nil {
			c.mu.Unlock()
			return 0, err
		}
	}
	c.mu.Unlock()
	return c.Conn.Read(b)
}

func connectSQLite(ctx context.Context, path string) (*database, error) {
	// Made by us and not by SQLite, for it would be readable by everyone: it holds people's numbers.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	// While another process switches a new file to its log, SQLite says busy at once, whatever its time-out.
	for deadline := time.Now().Add(busy); ; {
		d := &database{turn: make(chan struct{}, 1)}
		err := d.openSQLite(ctx, path)
		if err == nil {
			return d, nil
		}
		err = errors.Join(fmt.Errorf("store %s: %w", path, err), d.close())
		if !isBusy(err) || time.Now().After(deadline) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *database) openSQLite(ctx context.Context, path string) error {
	common := url.Values{"_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busy.Milliseconds()),
		"journal_mode(WAL)",
		"synchronous(NORMAL)", // a commit survives the process; the last ones may not survive the machine (P1)
		"foreign_keys(1)",
		"temp_store(2)", // the few sorts that are left are small
	}}
	dsn := func(pragmas ...string) string {
		v := url.Values{"_pragma": append(slices.Clip(common["_pragma"]), pragmas...)}
		return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + v.Encode()
	}
	var err error
	// 64 MB hold the index by number of some million contacts, and a page of it that is written again and again on its way into
	// the database file only once: at the default of 4 MB, importing a million contacts spent a fifth of its time on that. The
	// log is cut back to this size after a long reader has gone.
	if d.writers, err = sql.Open("sqlite", dsn("cache_size(-65536)", "wal_autocheckpoint(16384)", "journal_size_limit(67108864)")); err != nil {
		return err
	}
	d.writers.SetMaxOpenConns(1)
	if d.writer, err = d.writers.Conn(ctx); err != nil {
		return err
	}
	d.write = &prepared{on: d.writer, stmts: map[string]*sql.Stmt{}}
	if d.readers, err = sql.Open("sqlite", dsn("cache_size(-4096)", "query_only(1)")); err != nil {
		return err
	}
	d.readers.SetMaxOpenConns(readConns)
	d.readers.SetMaxIdleConns(readConns)
	d.read = &prepared{on: d.readers, stmts: map[string]*sql.Stmt{}}
	return d.readers.PingContext(ctx)
}

// Migrate brings the tables to the version of this program, making them when there are none; a program that is older than the
// tables is refused by [Open]. Processes that migrate at the same time take turns.
func Migrate(ctx context.Context, cfg Config) error {
	return migrateTo(ctx, cfg, migrations.Files, goose.MaxVersion)
}

func migrateTo(ctx context.Context, cfg Config, files fs.FS, version int64) error {
	cfg.Silence = time.Hour // an index of a large table takes its time
	d, err := connect(ctx, cfg)
	if err != nil {
		return err
	}
	err = func() error {
		release, err := d.lock(ctx, cfg, "migrate")
		if err != nil {
			return err
		}
		return errors.Join(d.migrate(ctx, cfg, files, version), release())
	}()
	if err = errors.Join(err, d.close()); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

func (d *database) migrate(ctx context.Context, cfg Config, files fs.FS, version int64) error {
	dialect, on := goose.DialectSQLite3, d.writers
	if d.postgres {
		dialect, on, files = goose.DialectPostgres, d.readers, inPostgres{files}
		if cfg.Schema != "" { // its pattern was checked
			if _, err := on.ExecContext(ctx, "CREATE SCHEMA IF NOT EXISTS "+cfg.Schema); err != nil {
				return err
			}
		}
	} else { // goose takes the one writing connection
		err := d.writer.Close()
		if d.writer = nil; err != nil {
			return err
		}
	}
	log := slog.New(slog.DiscardHandler)
	p, err := goose.NewProvider(dialect, on, files, goose.WithDisableGlobalRegistry(true), goose.WithSlog(log))
	if err != nil {
		return err
	}
	_, err = p.UpTo(ctx, version)
	return err
}

func newestMigration() (int64, error) {
	var newest int64
	entries, err := migrations.Files.ReadDir(".")
	if err != nil {
		return 0, fmt.Errorf("migrations: %w", err)
	}
	for _, e := range entries {
		v, err := goose.NumericComponent(e.Name())
		if err != nil {
			return 0, fmt.Errorf("migration %s: %w", e.Name(), err)
		}
		newest = max(newest, v)
	}
	return newest, nil
}

// inPostgres are the migrations in the words of Postgres.
type inPostgres struct{ fs.FS }

// Open opens a migration.
func (p inPostgres) Open(name string) (fs.File, error) {
	f, err := p.FS.Open(name)
	if err != nil || !strings.HasSuffix(name, ".sql") {
		return f, err
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &migrationFile{File: f, Reader: strings.NewReader(toPostgres(string(text)))}, nil
}

// migrationFile is a file with another content.
type migrationFile struct {
	fs.File
	*strings.Reader
}

// Read reads the other content.
func (f *migrationFile) Read(b []byte) (int, error) { return f.Reader.Read(b) }
