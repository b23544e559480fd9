package store

import (
	"context"
	"fmt"
	"time"
)

// How long data that is no longer needed is kept.
const (
	// freezeSilent is after how long without a new blob a freeze is taken for abandoned. A blob takes milliseconds.
	freezeSilent = time.Minute
	// freezeLife is how long the audience of an ended campaign is kept: it may be replayed for a month (R141), and the
	// replay runs for days.
	freezeLife = 40 * 24 * time.Hour
	// importSilent is after how long without new figures the process of an import is taken for dead. An import that
	// only waited for its stream corrects this when it goes on.
	importSilent = 10 * time.Minute
	// goneListLife is how long the members of a deleted list are kept. By then every campaign that was confirmed with
	// the list has frozen it.
	goneListLife = 24 * time.Hour
)

// Collect removes data that is no longer needed: abandoned and dropped freezes, audiences past the last replay of their
// campaign, members of lists deleted a day ago, uploads that were not imported within a day, expired idempotency keys,
// browser sessions and login links, old events of webhooks, and exports a week after they ended. It marks an import as
// failed when the process that ran it is dead, except imports of uploaded files, which another process continues. Call
// it about every minute, from one process or several.
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
		return tx.EndImports(ctx, "the process that ran it ended; the rows it had read are kept", tx.now, now.Add(-importSilent).UnixMilli())
	}); err != nil {
		return fmt.Errorf("drop idempotency keys, end imports: %w", err)
	}
	return nil
}

// dropMembers removes the members of a list in several transactions.
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
