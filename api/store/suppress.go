package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"fanfare/api/store/db"
)

func suppressionOf(r db.Suppression) Suppression {
	return Suppression{
		Tenant: r.Tenant, Phone: r.Phone, Source: r.Source, Lifted: r.Lifted, Version: uint64(r.Version), Updated: fromMS(r.UpdatedMs),
	}
}

// errNoKeys: a program that was given no keys cannot hash numbers.
var errNoKeys = errors.New("opt-outs need the keys of this installation")

// Suppress opts numbers out. Who has opted out already stays as they are. It is not answered to anybody before
// [Store.WaitPublished] has returned: only then will no sender hand over another message. phones are E.164 with +.
func (s *Store) Suppress(ctx context.Context, tenant, source string, phones ...string) error {
	return s.putSuppressions(ctx, tenant, source, phones, false)
}

// Lift takes opt-outs back. A number that has not opted out stays as it is.
func (s *Store) Lift(ctx context.Context, tenant, source string, phones ...string) error {
	return s.putSuppressions(ctx, tenant, source, phones, true)
}

func (s *Store) putSuppressions(ctx context.Context, tenant, source string, phones []string, lifted bool) error {
	if s.keys == nil {
		return errNoKeys
	}
	err := s.write(ctx, func(tx *tx) error {
		if _, err := tx.GetTenant(ctx, tenant); err != nil {
			return found(err, "tenant", tenant)
		}
		for _, phone := range phones {
			if lifted {
				// Nothing to lift is nothing to write: a row of its own would only be published as a tombstone of nothing.
				if _, err := tx.GetSuppression(ctx, tenant, phone); errors.Is(err, sql.ErrNoRows) {
					continue
				} else if err != nil {
					return err
				}
			}
			hash := s.keys.NumberHash(tenant, phone)
			version, err := tx.PutSuppression(ctx, db.PutSuppressionParams{
				Tenant: tenant, Phone: phone, Hash: hex.EncodeToString(hash[:]), Source: source, Lifted: lifted, Now: tx.now,
			})
			if errors.Is(err, sql.ErrNoRows) {
				continue // nothing changed
			}
			if err != nil {
				return err
			}
			tx.publish = true
			if err := tx.InsertSuppressionLog(ctx, db.InsertSuppressionLogParams{
				Tenant: tenant, Phone: phone, Source: source, Lifted: lifted, Version: version, TimeMs: tx.now,
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("opt-out: %w", err)
	}
	return nil
}

// waitPoll is how often a wait asks the database whether another process has published; the own one wakes it.
const waitPoll = 20 * time.Millisecond

// WaitPublished returns when what is known about these numbers now has been published, or when ctx ends. A number that was
// never suppressed has nothing to wait for.
func (s *Store) WaitPublished(ctx context.Context, tenant string, phones ...string) error {
	want := map[string]int64{}
	for _, phone := range phones {
		row, err := s.q.GetSuppression(ctx, tenant, phone)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for an opt-out: %w", err)
		}
		if row.PublishedVersion < row.Version {
			want[phone] = row.Version
		}
	}
	for len(want) > 0 {
		s.mu.Lock()
		marked := s.marked
		s.mu.Unlock()
		for phone, version := range want {
			row, err := s.q.GetSuppression(ctx, tenant, phone)
			if err != nil {
				return fmt.Errorf("wait for an opt-out: %w", err)
			}
			if row.PublishedVersion >= version {
				delete(want, phone)
			}
		}
		if len(want) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for an opt-out to be published: %w", ctx.Err())
		case <-marked:
		case <-time.After(waitPoll):
		}
	}
	return nil
}

// Suppressed reports whether a number has opted out.
func (s *Store) Suppressed(ctx context.Context, tenant, phone string) (bool, error) {
	row, err := s.q.GetSuppression(ctx, tenant, phone)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("opt-out: %w", err)
	}
	return !row.Lifted, nil
}

// Suppressions returns a page of the numbers that have opted out, and how many they are.
func (s *Store) Suppressions(ctx context.Context, tenant string, page Page) ([]Suppression, int, error) {
	total, err := s.q.CountSuppressions(ctx, tenant)
	if err != nil {
		return nil, 0, fmt.Errorf("count opt-outs: %w", err)
	}
	limit, offset := page.bounds()
	rows, err := s.q.ListSuppressions(ctx, tenant, limit, offset)
	out, err := all(rows, err, suppressionOf)
	if err != nil {
		return nil, 0, fmt.Errorf("opt-outs: %w", err)
	}
	return out, int(total), nil
}

// SuppressionLog returns every change of a number's opt-out, oldest first: the proof of it (X10).
func (s *Store) SuppressionLog(ctx context.Context, tenant, phone string) ([]Suppression, error) {
	rows, err := s.q.ListSuppressionLog(ctx, tenant, phone)
	return all(rows, err, func(r db.SuppressionLog) Suppression {
		return Suppression{
			Tenant: r.Tenant, Phone: r.Phone, Source: r.Source, Lifted: r.Lifted, Version: uint64(r.Version), Updated: fromMS(r.TimeMs),
		}
	})
}
