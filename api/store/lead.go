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

// leader is what this process holds while it leads.
type leader struct {
	conn *sql.Conn // Postgres: the lock is this session's
	file io.Closer // SQLite: the lock is this file's
}

// Lead tries to become the one process that publishes. ok is false when another one is; ask again later. The lock is the
// session's on Postgres and the operating system's on a file beside a SQLite database: it ends with the process, however that
// ends, and never while the process lives, however slow it is. release gives it back.
func (s *Store) Lead(ctx context.Context) (release func(), ok bool, err error) {
	s.mu.Lock()
	held := s.lead.conn != nil || s.lead.file != nil
	s.mu.Unlock()
	if held {
		return nil, false, nil
	}
	var l leader // asked for without the lock: whoever writes needs that
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

// lock waits for a lock of a name, of all processes on this database.
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

// tryLock takes an advisory lock on a connection of its own, nil when another session has it.
func (d *database) tryLock(ctx context.Context, schema, name string) (*sql.Conn, error) {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "fanfare/%s/%s", schema, name) // a hash takes everything
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

// closeSession gives the locks of a session back and ends it: they must not live on in the pool. The server ends a session
// some time after its connection, so the locks go first.
func closeSession(ctx context.Context, conn *sql.Conn) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, _ = conn.ExecContext(ctx, "SELECT pg_advisory_unlock_all()") // a session that is gone holds none
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })      // tells the pool to throw the connection away
}
