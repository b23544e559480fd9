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
	// DSN is postgres://… (or postgresql://…), else the path of a SQLite file. Several processes may have it open at
	// once.
	DSN string
	// Schema that holds the tables in Postgres, default public. SQLite has none.
	Schema string
	// Keys hash the numbers of opt-outs; without them the store cannot record opt-outs.
	Keys *schemas.Keys
	// Silence is how long a statement may wait for an answer of Postgres before its connection fails; default 30 s.
	Silence time.Duration
	// Phones parses phone numbers; default: a new parser. Give several stores the same one, because its memory grows
	// with the countries it meets.
	Phones *phone.Parser
	Logger *slog.Logger     // default: none
	Now    func() time.Time // default time.Now
}

// Store is the database of the control plane. It is safe for concurrent use.
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
	changed chan struct{} // closed at the next change that must be published
	marked  chan struct{} // closed at the next MarkPublished
	ordered chan struct{} // wakes RunImports: an import was ordered
	jobs    chan struct{} // wakes RunJobs: a job was ordered
	lead    leader
}

// readConns is how many queries of one process run at once on SQLite. More would only compete for the same few cores.
const readConns = 8

// busy is how long a SQLite writer waits for the writer of another process. Batches of an import end within a tenth of
// a second, so after this time the other process hangs.
const busy = 10 * time.Second

// ErrSchema means that the version of the tables does not fit this program.
var ErrSchema = errors.New("tables of the store do not fit this program")

// Open opens a store whose tables exist: see [Migrate]. Close it when done.
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

// Close closes every connection.
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
		return fmt.Errorf("%w: the tables have version %d, the program needs %d: run `fanfare migrate`", ErrSchema, have, want)
	case have > want:
		return fmt.Errorf("%w: the tables have version %d, the program knows only %d: it is older than the store", ErrSchema, have, want)
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
	held bool // pgx has set its own deadline
}

// SetDeadline sets the deadline that pgx asks for.
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
	// Created here with mode 0600: SQLite would create the file readable by everyone, and it holds phone numbers.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	// While another process switches a new file to WAL mode, SQLite returns busy at once, whatever the time-out is.
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
		"synchronous(NORMAL)", // commits survive a crash of the process; a power cut may lose the last ones (P1)
		"foreign_keys(1)",
		"temp_store(2)", // in memory: the few sorts that queries need are small
	}}
	dsn := func(pragmas ...string) string {
		v := url.Values{"_pragma": append(slices.Clip(common["_pragma"]), pragmas...)}
		return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + v.Encode()
	}
	var err error
	// A log of 64 MB holds the index by number of some million contacts. A page of the index that changes many times is
	// then copied into the database file only once; with the default of 4 MB, importing a million contacts spent a
	// fifth of its time on copying. After a long reader has ended, the log is truncated to this size.
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

// Migrate creates the tables or brings them to the version of this program. It does not downgrade: when the tables are
// newer than the program, [Open] fails. Processes that migrate at the same time take turns.
func Migrate(ctx context.Context, cfg Config) error {
	return migrateTo(ctx, cfg, migrations.Files, goose.MaxVersion)
}

func migrateTo(ctx context.Context, cfg Config, files fs.FS, version int64) error {
	cfg.Silence = time.Hour // building an index of a large table may take long
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
		if cfg.Schema != "" { // connectPostgres checked its pattern, so it needs no quotes
			if _, err := on.ExecContext(ctx, "CREATE SCHEMA IF NOT EXISTS "+cfg.Schema); err != nil {
				return err
			}
		}
	} else { // goose uses the one writer connection
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

// inPostgres is the file system of the migrations, translated to the SQL of Postgres.
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

// migrationFile is a migration with translated content.
type migrationFile struct {
	fs.File
	*strings.Reader
}

// Read reads the translated content.
func (f *migrationFile) Read(b []byte) (int, error) { return f.Reader.Read(b) }
