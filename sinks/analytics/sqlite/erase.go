package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/sinks/analytics"
)

// Erase removes a person from the events and rewrites the file, because free pages still have the old data. Writers
// wait meanwhile, about a second for each 200 MB. Erase does not rewrite the file if nothing was removed since the last
// rewrite, so erasures that wait for each other share one. The first erasure of a process always rewrites the file,
// because an earlier process may have ended before it did.
func (s *Store) Erase(ctx context.Context, tenant string, numbers []string, recipients map[string]*roaring.Bitmap) (map[string]*roaring.Bitmap, error) {
	out, err := s.eraseEvents(ctx, tenant, numbers, recipients)
	if err != nil {
		return nil, err
	}
	return out, s.rewrite(ctx)
}

// eraseEvents removes a person from the events, and returns the recipients that it removed, by campaign.
func (s *Store) eraseEvents(ctx context.Context, tenant string, numbers []string, recipients map[string]*roaring.Bitmap) (map[string]*roaring.Bitmap, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	out := map[string]*roaring.Bitmap{}
	campaigns, err := campaignsOf(ctx, s.conn, tenant, time.Time{})
	if err != nil {
		return nil, fmt.Errorf("erase: %w", err)
	}
	for _, id := range campaigns {
		erased, err := s.eraseCampaign(ctx, campaignKey{tenant, id}, numbers, recipients[id])
		if err != nil {
			s.rewritten = false
			return nil, fmt.Errorf("erase from %s: %w", id, err)
		}
		if !erased.IsEmpty() {
			out[id], s.rewritten = erased, false
		}
	}
	return out, nil
}

// rewrite rewrites the file and empties the log, unless nothing was removed since that was last done.
func (s *Store) rewrite(ctx context.Context) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.closed.Load() {
		return analytics.ErrClosed
	}
	if s.rewritten {
		return nil
	}
	if _, err := s.conn.ExecContext(ctx, "VACUUM"); err != nil {
		return fmt.Errorf("erase: %w", err)
	}
	if err := s.cutLog(ctx); err != nil {
		return err
	}
	s.rewritten = true
	return nil
}

// cutPatience is how long an erasure waits for readers that still need the log.
const cutPatience = 10 * time.Second

// cutLog copies the log into the file and empties it. It must wait for readers of old states.
func (s *Store) cutLog(ctx context.Context) error {
	for deadline := time.Now().Add(cutPatience); ; {
		var busy, pages, copied int
		if err := s.conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &copied); err != nil {
			return fmt.Errorf("empty the log: %w", err)
		}
		if busy == 0 || time.Now().After(deadline) {
			return nil // if readers still need the log, it is overwritten later
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// campaignsOf returns the campaigns of a tenant that were confirmed in the month of since or later.
func campaignsOf(ctx context.Context, q querier, tenant string, since time.Time) (out []string, err error) {
	rows, err := q.QueryContext(ctx, "SELECT campaign FROM campaigns WHERE tenant = ? AND month >= ? ORDER BY id", tenant, analytics.MonthOf(since).Format(dateLayout))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, rows.Err()
}

// eraseCampaign erases recipients of one campaign: those that have an event with one of the numbers, and the given
// ones.
func (s *Store) eraseCampaign(ctx context.Context, key campaignKey, numbers []string, given *roaring.Bitmap) (*roaring.Bitmap, error) {
	t, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer t.rollback()
	c, err := find(ctx, s.conn, key)
	if c == nil || err != nil {
		return roaring.New(), err
	}
	seqs, err := numbered(ctx, s.conn, c, numbers)
	if err != nil {
		return nil, err
	}
	if given != nil {
		seqs.Or(given)
	}
	blocks := roaring.New()
	for it := seqs.Iterator(); it.HasNext(); {
		blocks.Add(it.Next() / blockSize)
	}
	for it := blocks.Iterator(); it.HasNext(); {
		if err := s.eraseBlock(t, c, it.Next(), seqs); err != nil {
			return nil, err
		}
	}
	for it := seqs.Iterator(); it.HasNext(); {
		if err := t.exec("DELETE FROM customer_refs WHERE campaign = ? AND seq = ?", c.id, it.Next()); err != nil {
			return nil, err
		}
	}
	return seqs, t.commit()
}

// numbered returns the recipients that have an event with one of the numbers.
func numbered(ctx context.Context, q querier, c *campaignSets, numbers []string) (*roaring.Bitmap, error) {
	packed := make([]uint64, 0, len(numbers))
	for _, to := range numbers {
		if n, ok := packNumber(to); ok {
			packed = append(packed, n)
		}
	}
	out := roaring.New()
	rows, err := q.QueryContext(ctx, "SELECT who FROM runs WHERE campaign = ?", c.id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var who sql.RawBytes
		if err := rows.Scan(&who); err != nil {
			return nil, err
		}
		w, err := readWho(who)
		if err != nil {
			return nil, err
		}
		for w.left > 0 {
			seq, sh, n, text, err := w.next()
			if err != nil {
				return nil, err
			}
			if sh.holds&holdsTo != 0 && (n != 0 && slices.Contains(packed, n) || n == 0 && slices.Contains(numbers, text)) {
				out.Add(seq)
			}
		}
	}
	return out, rows.Err()
}

// eraseBlock rewrites the runs of a block that have events of the recipients. A run keeps its number of events.
func (s *Store) eraseBlock(t *tx, c *campaignSets, block uint32, seqs *roaring.Bitmap) error {
	type run struct {
		id     int64
		events []analytics.Event
		found  bool
	}
	var runs []run
	err := func() error {
		rows, err := s.conn.QueryContext(t.ctx, "SELECT id, who, rest FROM runs WHERE campaign = ? AND block = ? ORDER BY id", c.id, block)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r run
			var who, rest sql.RawBytes
			if err := rows.Scan(&r.id, &who, &rest); err != nil {
				return err
			}
			err := readRun(who, rest, c.public(), c.number, func(uint32) bool { return true }, func(e *analytics.Event) {
				if seqs.Contains(e.Seq) {
					r.found = true
					e.To, e.ContactID, e.ProviderID, e.CustomerRef = "", 0, "", ""
				}
				r.events = append(r.events, *e)
			})
			if err != nil {
				return err
			}
			if r.found {
				runs = append(runs, r)
			}
		}
		return rows.Err()
	}()
	if err != nil {
		return err
	}
	writer := &s.appender.writer
	for _, r := range runs {
		writer.reset()
		numbers := map[shape]int{}
		for i := range r.events {
			sh := shapeOf(&r.events[i], c.number)
			number, ok := numbers[sh]
			if !ok {
				number = writer.shape(&sh)
				numbers[sh] = number
			}
			writer.add(&r.events[i], number, sh.holds)
		}
		who, rest := writer.finish()
		if err := t.exec("UPDATE runs SET who = ?, rest = ? WHERE id = ?", who, rest, r.id); err != nil {
			return err
		}
	}
	return nil
}
