package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"fanfare/api/store/db"
	"fanfare/schemas/audience"
)

// Kept counts of the members of lists, grouped by what decides whether they are sent to, and of contacts. A transaction
// that writes members, contacts or opt-outs of a tenant calls [tx.lockMembers] first. Otherwise an opt-out and a member
// that joins at the same time would not see each other, and neither would count the member as opted out.

// lockMembers makes transactions of one tenant that write members, contacts or opt-outs take turns.
func (t *tx) lockMembers(ctx context.Context, tenant string) error {
	_, err := t.LockBalance(ctx, tenant)
	return err
}

// listCount is a row of list_counts, as a query counts it.
type listCount = db.CountContactRow

// countRows converts rows of the other queries, which have the same columns.
func countRows[R any](rows []R, err error, turn func(R) listCount) ([]listCount, error) {
	return all(rows, err, turn)
}

// joined counts the members that were just added to a list at [from, to).
func (t *tx) joined(ctx context.Context, tenant string, list, from, to int64) error {
	rows, err := t.CountPositions(ctx, db.CountPositionsParams{Tenant: tenant, List: list, FromPosition: from, ToPosition: to})
	counts, err := countRows(rows, err, func(r db.CountPositionsRow) listCount { return listCount(r) })
	if err != nil {
		return fmt.Errorf("count members: %w", err)
	}
	return t.moveCounts(ctx, tenant, counts, 1)
}

// leaving counts members that are about to be taken out of a list.
func (t *tx) leaving(ctx context.Context, tenant string, list int64, contacts []int64) error {
	rows, err := t.CountSome(ctx, tenant, list, contacts)
	counts, err := countRows(rows, err, func(r db.CountSomeRow) listCount { return listCount(r) })
	if err != nil {
		return fmt.Errorf("count members: %w", err)
	}
	return t.moveCounts(ctx, tenant, counts, -1)
}

// recount runs change, which writes a contact or its opt-out, and corrects the counts of all lists of the contact.
func (t *tx) recount(ctx context.Context, tenant string, contact int64, change func() error) error {
	before, err := t.CountContact(ctx, tenant, contact)
	if err != nil {
		return fmt.Errorf("count contact: %w", err)
	}
	if err := change(); err != nil {
		return err
	}
	after, err := t.CountContact(ctx, tenant, contact)
	if err != nil || slices.Equal(before, after) {
		return err
	}
	if err := t.moveCounts(ctx, tenant, before, -1); err != nil {
		return err
	}
	return t.moveCounts(ctx, tenant, after, 1)
}

func (t *tx) moveCounts(ctx context.Context, tenant string, counts []listCount, sign int64) error {
	for _, c := range counts {
		rows, err := t.MoveListCount(ctx, db.MoveListCountParams{
			N: sign * c.N, Tenant: tenant, List: c.List, Country: c.Country, Class: c.Class, Valid: c.Valid, OptedOut: c.OptedOut, OptedIn: c.OptedIn,
		})
		if err == nil && rows == 0 {
			err = t.AddListCount(ctx, db.AddListCountParams{
				Tenant: tenant, List: c.List, Country: c.Country, Class: c.Class, Valid: c.Valid, OptedOut: c.OptedOut, OptedIn: c.OptedIn, N: sign * c.N,
			})
		}
		if err != nil {
			return fmt.Errorf("count members of %s: %w", ListID(uint64(c.List)), err)
		}
	}
	return nil
}

// addKept adds the members of a list to the count, from the kept counts.
func (a *AudienceCount) addKept(ctx context.Context, q *db.Queries, tenant string, list uint64, held *rules) error {
	rows, err := q.ListCounts(ctx, tenant, int64(list))
	if err != nil {
		return err
	}
	for _, r := range rows {
		a.count(held, held.flag(&member{valid: r.Valid, class: audience.Class(r.Class), optedOut: ChannelSet(r.OptedOut), optedIn: r.OptedIn}), r.Country, uint32(r.N))
	}
	return nil
}

// countContacts changes how many contacts a tenant has, and how many of them are deleted.
func (t *tx) countContacts(ctx context.Context, tenant string, n, deleted int64) error {
	if n == 0 && deleted == 0 {
		return nil
	}
	rows, err := t.MoveContactCount(ctx, n, deleted, tenant)
	if err == nil && rows == 0 {
		if err = t.AddContactCount(ctx, tenant); err == nil {
			_, err = t.MoveContactCount(ctx, n, deleted, tenant)
		}
	}
	if err != nil {
		return fmt.Errorf("count contacts: %w", err)
	}
	return nil
}

// contactCount returns how many contacts a tenant has, with or without the deleted ones.
func (s *Store) contactCount(ctx context.Context, tenant string, withDeleted bool) (int64, error) {
	r, err := s.q.GetContactCount(ctx, tenant)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if withDeleted {
		return r.N, err
	}
	return r.N - r.Deleted, err
}

// inPieces calls fn for pieces of the numbers that are short enough for a padded query.
func inPieces(numbers []int64, fn func([]int64) error) error {
	for part := range slices.Chunk(numbers, 1000) {
		if err := fn(padded(part)); err != nil {
			return err
		}
	}
	return nil
}
