package store

import (
	"context"
	"fmt"
	"time"
)

// How long what is no longer needed stays.
const (
	// freezeSilent: a freeze that wrote no blob for so long has no writer any more. A blob takes milliseconds.
	freezeSilent = time.Minute
	// freezeLife of the audience of an ended campaign: a campaign may be replayed for a month (R141), and the replay runs for days.
	freezeLife = 40 * 24 * time.Hour
	// importSilent: an import that has written no figures for so long has no process any more. One that only waits for its
	// stream says so itself when it goes on.
	importSilent = 10 * time.Minute
	// goneListLife: long after any campaign confirmed with a list has frozen it.
	goneListLife = 24 * time.Hour
)

// Collect removes what nobody can want any more: freezes that were abandoned or dropped, audiences past the last replay of
// their campaign, members of lists deleted a day ago, uploads nobody imported within a day, idempotency keys, browser
// sessions and login links that have run out, events of webhooks, exports a week after they ended. Imports whose process is gone it calls failed, except those of uploaded files, which
// another process runs on. Call it every minute or so, from one process or several.
func (s *Store) Collect(ctx context.Context) error {
	now := s.now()
	freezes, err := s.q.GarbageFreezes(ctx, now.Add(-freezeSilent).UnixMilli(), now.Add(-freezeLife).UnixMilli())
	if err != nil {
		return fmt.Errorf("find garbage: %w", err)
	}
	for _, f := range freezes {
		if err := s.dropFreeze(ctx, f.ID, f.State); err != nil {
			return fmt.Errorf("drop freeze %s: %w", f.ID, err)
		}
	}
	lists, err := s.q.GoneLists(ctx, now.Add(-goneListLife).UnixMilli())
	if err != nil {
		return fmt.Errorf("find deleted lists: %w", err)
	}
	for _, l := range lists {
		if err := s.dropMembers(ctx, l.Tenant, l.Number); err != nil {
			return fmt.Errorf("drop members of %s: %w", ListID(uint64(l.Number)), err)
		}
	}
	if err := s.countFields(ctx); err != nil {
		return err
	}
	if err := s.collectWebhooks(ctx); err != nil {
		return err
	}
	if err := s.collectUploads(ctx); err != nil {
		return err
	}
	if err := s.collectJobs(ctx); err != nil {
		return err
	}
	if err := s.write(ctx, func(tx *tx) error {
		if _, err := tx.DropKeys(ctx, now.Add(-2*keyLife).UnixMilli()); err != nil {
			return err
		}
		if _, err := tx.raw.ExecContext(ctx, "DELETE FROM idempotency WHERE created_ms < ?1 AND reserved = ?2", now.Add(-2*keyLife).UnixMilli(), changed); err != nil {
			return err
		}
		if _, err := tx.DropSessions(ctx, now.UnixMilli()); err != nil {
			return err
		}
		if _, err := tx.DropLinks(ctx, now.UnixMilli()); err != nil {
			return err
		}
		return tx.EndImports(ctx, "the process that ran it ended; what it had read is kept", tx.now, now.Add(-importSilent).UnixMilli())
	}); err != nil {
		return fmt.Errorf("drop idempotency keys, end imports: %w", err)
	}
	return nil
}

// dropMembers empties a list in pieces.
func (s *Store) dropMembers(ctx context.Context, tenant string, list int64) error {
	for more := true; more; {
		err := s.write(ctx, func(tx *tx) error {
			const atOnce = 5000
			n, err := tx.DropMembers(ctx, tenant, list, atOnce)
			if more = n == atOnce; err != nil || more {
				return err
			}
			if err := tx.DropListFields(ctx, tenant, list); err != nil {
				return err
			}
			if err := tx.DropListCounts(ctx, tenant, list); err != nil {
				return err
			}
			return tx.EmptyList(ctx, tenant, list)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
