package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"

	"fanfare/api/store/db"
	"fanfare/schemas"
)

// tx is one transaction that writes.
type tx struct {
	*db.Queries
	raw db.DBTX
	// at is the time of the transaction, and of every row it writes.
	at  time.Time
	now int64
	// publish is set when the transaction has written a row that must be published.
	publish bool
}

// write runs fn in one transaction, and wakes the relay of this process when fn wrote a row that must be published.
func (s *Store) write(ctx context.Context, fn func(*tx) error) error {
	var t *tx
	err := s.d.transact(ctx, func(raw db.DBTX) error {
		at := s.now().UTC().Truncate(time.Millisecond)
		t = &tx{Queries: db.New(raw), raw: raw, at: at, now: at.UnixMilli()}
		if err := fn(t); err != nil {
			return err
		}
		return t.noteChange(ctx)
	})
	if err == nil && t.publish {
		s.mu.Lock()
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
	}
	return err
}

// Changed returns a channel that is closed when this process has written a row that must be published. Call it before
// [Store.Unpublished]. It does not signal changes by other processes, so poll as well.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// found turns sql.ErrNoRows into [schemas.ErrNotFound].
func found(err error, kind, id string) error {
	if errors.Is(err, sql.ErrNoRows) {
		return notFound(kind, id)
	}
	if err != nil {
		return fmt.Errorf("%s %q: %w", kind, id, err)
	}
	return nil
}

// ms returns a time as it is stored, in Unix milliseconds; the zero time is 0.
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// fromMS is the reverse of ms.
func fromMS(v int64) time.Time {
	if v == 0 {
		return time.Time{}
	}
	return time.UnixMilli(v).UTC()
}

// millis returns a stored duration, in milliseconds, as a time.Duration.
func millis(v int64) time.Duration { return time.Duration(v) * time.Millisecond }

// randomText returns random lower-case base32 letters, 5 bits each.
func randomText(letters int) string {
	b := make([]byte, letters*5/8+1)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))[:letters]
}

// bounds returns LIMIT and OFFSET of a page.
func (p Page) bounds() (limit, offset int64) {
	limit = int64(p.Limit)
	if limit <= 0 {
		limit = 10
	}
	limit = min(limit, 1000)
	return limit, limit * int64(max(p.Number, 0))
}

// fold returns a text in the form in which searches compare it.
func fold(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

// all converts rows with turn.
func all[R, T any](rows []R, err error, turn func(R) T) ([]T, error) {
	if err != nil {
		return nil, err
	}
	out := make([]T, len(rows))
	for i, r := range rows {
		out[i] = turn(r)
	}
	return out, nil
}

func isNotFound(err error) bool { return errors.Is(err, schemas.ErrNotFound) }
