package clickhouse

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/pressly/goose/v3"

	tables "fanfare/schemas/clickhouse"
	"fanfare/sinks/analytics"
)

// Config of a store.
type Config struct {
	// DSN names the server: clickhouse://user:password@host:9000/database?secure=true. Several hosts are separated by
	// commas.
	DSN string
	// Database overrides the database of the DSN. Open creates it if it does not exist.
	Database string
}

// Store keeps analytics in one ClickHouse database.
type Store struct {
	conn driver.Conn

	// inserting guards insert: batches are inserted one after another over one connection.
	inserting sync.Mutex
	insert    *inserter
	closed    atomic.Bool

	asOfMu sync.Mutex
	asOf   time.Time
	asked  time.Time
}

var _ analytics.Store = (*Store)(nil)

var databasePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// Open connects, creates the database and brings its tables up to date.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	opts, err := chgo.ParseDSN(cfg.DSN)
	if err != nil {
		return nil, fmt.Errorf("clickhouse: read the DSN: %w", err)
	}
	if cfg.Database != "" {
		opts.Auth.Database = cfg.Database
	}
	if opts.Auth.Database == "" {
		opts.Auth.Database = "default"
	}
	if !databasePattern.MatchString(opts.Auth.Database) {
		return nil, fmt.Errorf("clickhouse: database %q: want 1 to 64 of A-Z a-z 0-9 and _, no digit first", opts.Auth.Database)
	}
	if opts.DialTimeout == 0 {
		opts.DialTimeout = 5 * time.Second
	}
	if opts.ReadTimeout == 0 {
		opts.ReadTimeout = 30 * time.Second
	}
	if opts.MaxOpenConns == 0 {
		opts.MaxOpenConns, opts.MaxIdleConns = 10, 5
	}
	opts.ClientInfo.Products = append(opts.ClientInfo.Products, struct{ Name, Version string }{"fanfare", "1"})
	if err := bootstrap(ctx, opts); err != nil {
		return nil, err
	}
	conn, err := chgo.Open(opts)
	if err != nil {
		return nil, fmt.Errorf("clickhouse: %w", err)
	}
	return &Store{conn: conn, insert: newInserter(opts)}, nil
}

// bootstrap creates the database, over a connection that selects none, and migrates it.
func bootstrap(ctx context.Context, opts *chgo.Options) (err error) {
	nowhere := *opts
	nowhere.Auth.Database = ""
	first, err := chgo.Open(&nowhere)
	if err != nil {
		return fmt.Errorf("clickhouse: %w", err)
	}
	// The name matches databasePattern, so it is safe to put it into the statement: a name cannot be a parameter.
	err = first.Exec(ctx, "CREATE DATABASE IF NOT EXISTS `"+opts.Auth.Database+"` ENGINE = Atomic")
	if err = errors.Join(err, first.Close()); err != nil {
		return fmt.Errorf("clickhouse: create database %s: %w", opts.Auth.Database, err)
	}
	plain := *opts
	plain.MaxOpenConns, plain.MaxIdleConns = 0, 0 // database/sql pools the connections itself
	db := chgo.OpenDB(&plain)
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := migrate(ctx, db, goose.MaxVersion); err != nil {
		return fmt.Errorf("clickhouse: migrate database %s: %w", opts.Auth.Database, err)
	}
	return nil
}

// migrate migrates a database to a version.
func migrate(ctx context.Context, db *sql.DB, version int64) error {
	provider, err := goose.NewProvider(goose.DialectClickHouse, db, tables.Files)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	_, err = provider.UpTo(ctx, version)
	return err
}

// Close closes all connections.
func (s *Store) Close() error {
	s.inserting.Lock()
	defer s.inserting.Unlock()
	if s.closed.Swap(true) {
		return nil
	}
	return errors.Join(s.insert.close(), s.conn.Close())
}

// Ping returns an error if the server does not answer.
func (s *Store) Ping(ctx context.Context) error {
	if s.closed.Load() {
		return analytics.ErrClosed
	}
	return s.conn.Ping(ctx)
}

// Append inserts batches one after another.
func (s *Store) Append(ctx context.Context, batches ...analytics.Batch) error {
	s.inserting.Lock()
	defer s.inserting.Unlock()
	if s.closed.Load() {
		return analytics.ErrClosed
	}
	for i := range batches {
		err := s.insert.events(ctx, &batches[i])
		if err == nil {
			err = s.insert.deals(ctx, &batches[i])
		}
		if err != nil {
			return fmt.Errorf("insert partition %d [%d, %d): %w", batches[i].Partition, batches[i].First, batches[i].End, err)
		}
	}
	return nil
}

// Mark stores how far a topic has been read.
func (s *Store) Mark(ctx context.Context, topic analytics.TopicID, marks []analytics.Mark) error {
	if len(marks) == 0 {
		return nil
	}
	s.inserting.Lock()
	defer s.inserting.Unlock()
	if s.closed.Load() {
		return analytics.ErrClosed
	}
	if err := s.insert.marks(ctx, topic, marks); err != nil {
		return fmt.Errorf("insert marks: %w", err)
	}
	s.asOfMu.Lock()
	s.asked = time.Time{} // the next AsOf asks the server
	s.asOfMu.Unlock()
	return nil
}

// asOfAge is how long AsOf is cached. Every answer contains it, and its query costs as much as the query of the
// statistics.
const asOfAge = 100 * time.Millisecond

// AsOf returns the time up to which the answers contain everything in the topic.
func (s *Store) AsOf(ctx context.Context) (time.Time, error) {
	s.asOfMu.Lock()
	at, fresh := s.asOf, time.Since(s.asked) < asOfAge
	s.asOfMu.Unlock()
	if fresh {
		return at, nil
	}
	asked := time.Now()
	// Before ClickHouse merges rows there is one row per mark; the greatest of each partition counts.
	const query = `SELECT min(as_of) FROM (SELECT max(as_of) AS as_of FROM (SELECT partition, as_of FROM sink_marks
		WHERE topic = (SELECT argMax(topic, as_of) FROM sink_marks)) GROUP BY partition)`
	if err := s.row(ctx, query).Scan(&at); err != nil {
		return time.Time{}, fmt.Errorf("read marks: %w", err)
	}
	if at.UnixMilli() <= 0 {
		at = time.Time{}
	} else {
		at = at.UTC()
	}
	s.asOfMu.Lock()
	s.asOf, s.asked = at, asked
	s.asOfMu.Unlock()
	return at, nil
}

// row queries one row.
func (s *Store) row(ctx context.Context, query string, args ...any) driver.Row {
	return s.conn.QueryRow(ctx, query, args...)
}

// rows queries rows and calls scan for each.
func (s *Store) rows(ctx context.Context, what, query string, args []any, scan func(driver.Rows) error) (err error) {
	if s.closed.Load() {
		return analytics.ErrClosed
	}
	rows, err := s.conn.Query(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	defer func() {
		if cerr := rows.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("read %s: %w", what, cerr)
		}
	}()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return fmt.Errorf("read %s: %w", what, err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return nil
}

// of returns the parameters that identify a campaign within its tenant.
func of(tenant, campaign string, more ...any) []any {
	return append([]any{chgo.Named("tenant", tenant), chgo.Named("campaign", campaign)}, more...)
}
