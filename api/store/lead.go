package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"time"
)

// leader is the lock that this process holds while it leads.
type leader struct {
	conn *sql.Conn // Postgres: the session that holds the lock
	file io.Closer // SQLite: the locked file
}

// Lead tries to make this process the only one that publishes. ok is false when another process leads; try again later.
// The lock is an advisory lock of a session on Postgres, and a lock of the operating system on a file beside a SQLite
// database. It ends with the process or its session, however they end, and is not lost because the process is slow.
// release gives the lock back.
func (s *Store) Lead(ctx context.Context) (release func(), ok bool, err error) {
	s.mu.Lock()
	held := s.lead.conn != nil || s.lead.file != nil
	s.mu.Unlock()
	if held {
		return nil, false, nil
	}
	var l leader // acquired without holding s.mu, which writers need
	if s.d.postgres {
		l.conn, err = s.d.tryLock(ctx, s.schema, "relay")
	} else {
		l.file, err = lockFile(s.path + ".relay.lock")
	}
	if err != nil {
		return nil, false, fmt.Errorf("take the lead: %w", err)
	}
	if l.conn == nil && l.file == nil {
		return nil, false, nil
	}
	s.mu.Lock()
	s.lead = l
	s.mu.Unlock()
	kept := context.WithoutCancel(ctx)
	return func() { s.release(kept) }, true, nil
}

func (s *Store) release(ctx context.Context) {
	s.mu.Lock()
	l := s.lead
	s.lead = leader{}
	s.mu.Unlock()
	if l.file != nil {
		if err := l.file.Close(); err != nil {
			s.log.WarnContext(ctx, "giving back the lead failed", "err", err)
		}
	}
	if l.conn != nil {
		closeSession(ctx, l.conn)
	}
}

// lock waits for a named lock that all processes on this database share.
func (d *database) lock(ctx context.Context, cfg Config, name string) (release func() error, err error) {
	for {
		if d.postgres {
			conn, err := d.tryLock(ctx, cfg.Schema, name)
			if err != nil {
				return nil, err
			}
			if conn != nil {
				return func() error { closeSession(context.WithoutCancel(ctx), conn); return nil }, nil
			}
		} else {
			f, err := lockFile(cfg.DSN + "." + name + ".lock")
			if err != nil {
				return nil, err
			}
			if f != nil {
				return f.Close, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: %w", name, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// tryLock takes an advisory lock on its own connection. It returns nil when another session has the lock.
func (d *database) tryLock(ctx context.Context, schema, name string) (*sql.Conn, error) {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "fanfare/%s/%s", schema, name) // writing to a hash never fails
	conn, err := d.readers.Conn(ctx)
	if err != nil {
		return nil, err
	}
	var ok bool
	if err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", int64(h.Sum64())).Scan(&ok); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if !ok {
		return nil, conn.Close()
	}
	return conn, nil
}

// closeSession releases the locks of a session and closes its connection, so that no lock stays in the pool. It
// releases them first because the server may notice the closed connection only later.
func closeSession(ctx context.Context, conn *sql.Conn) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, _ = conn.ExecContext(ctx, "SELECT pg_advisory_unlock_all()") // a session that has ended holds none
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })      // tells the pool to throw the connection away
}
