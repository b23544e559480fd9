package store

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"fanfare/api/store/db"
)

// Contacts returns a page of contacts and how many there are in all. Without a search, the page comes from an index and
// the count from kept counts, so the last page of a million contacts takes as long as the first.
func (s *Store) Contacts(ctx context.Context, tenant string, f ContactFilter) ([]Contact, int, error) {
	q := &contactQuery{tenant: tenant, f: &f, key: "c.number", from: "contacts c"}
	q.and("c.tenant = ?", tenant)
	if f.List != 0 {
		q.key, q.from = "m.position", "list_members m"
		q.where, q.args = nil, nil
		q.and("m.tenant = ? AND m.list = ?", tenant, int64(f.List))
	} else if !f.IncludeDeleted {
		q.and("c.deleted_ms = 0")
	}
	if search := fold(f.Search); search != "" {
		if f.List != 0 {
			q.from += " JOIN contacts c ON c.number = m.contact AND c.tenant = m.tenant"
		}
		q.and("(INSTR(c.phone, ?) > 0 OR INSTR(c.search, ?) > 0)", search, search)
	}
	total, err := s.countOf(ctx, q)
	if err != nil {
		return nil, 0, fmt.Errorf("count contacts: %w", err)
	}
	out, err := s.contactPage(ctx, q, total)
	if err != nil {
		return nil, 0, fmt.Errorf("contacts: %w", err)
	}
	return out, int(total), nil
}

// contactQuery is a query for a page of contacts in the order of key: all of a tenant by number, or those of a list by
// position.
type contactQuery struct {
	tenant    string
	f         *ContactFilter
	key, from string
	where     []string
	args      []any
}

func (q *contactQuery) and(condition string, args ...any) {
	q.where = append(q.where, condition)
	q.args = append(q.args, args...)
}

func (q *contactQuery) tail() string {
	return " FROM " + q.from + " WHERE " + strings.Join(q.where, " AND ")
}

func (s *Store) countOf(ctx context.Context, q *contactQuery) (n int64, err error) {
	if q.f.List != 0 {
		l, err := s.List(ctx, q.tenant, q.f.List)
		if err != nil {
			return 0, err
		}
		if fold(q.f.Search) == "" {
			return int64(l.Members), nil
		}
	} else if fold(q.f.Search) == "" {
		return s.contactCount(ctx, q.tenant, q.f.IncludeDeleted)
	}
	err = s.d.read.QueryRowContext(ctx, "SELECT COUNT(*)"+q.tail(), q.args...).Scan(&n)
	return n, err
}

// contactPage finds the keys and numbers of a page in an index, and reads the rows of those.
func (s *Store) contactPage(ctx context.Context, q *contactQuery, total int64) ([]Contact, error) {
	limit, offset := q.f.bounds()
	reverse := false
	if q.f.After != 0 {
		q.and(q.key+" > ?", int64(min(q.f.After, math.MaxInt64)))
		offset = 0
	} else if left := total - offset; left <= 0 {
		return []Contact{}, nil
	} else if reverse = offset > total/2; reverse { // nearer from the other end
		limit = min(limit, left)
		offset = left - limit
	}
	number := "c.number"
	if q.f.List != 0 {
		number = "m.contact"
	}
	rows, err := s.d.read.QueryContext(ctx, "SELECT "+q.key+", "+number+q.tail()+" ORDER BY "+q.key+order(reverse)+" LIMIT ? OFFSET ?",
		append(q.args, limit, offset)...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var keys, numbers []int64
	for rows.Next() {
		var key, number int64
		if err := rows.Scan(&key, &number); err != nil {
			return nil, err
		}
		keys, numbers = append(keys, key), append(numbers, number)
	}
	if err := rows.Err(); err != nil || len(keys) == 0 {
		return []Contact{}, err
	}
	if reverse {
		slices.Reverse(keys)
		slices.Reverse(numbers)
	}
	found, err := s.q.AnyContactsByNumber(ctx, q.tenant, padded(numbers))
	if err != nil {
		return nil, err
	}
	byNumber := make(map[int64]*db.Contact, len(found))
	for i := range found {
		byNumber[found[i].Number] = &found[i]
	}
	out := make([]Contact, 0, len(numbers))
	for i, n := range numbers {
		if r := byNumber[n]; r != nil {
			c := contactOf(*r)
			c.Position = uint64(keys[i])
			out = append(out, c)
		}
	}
	return out, nil
}

// ContactsByNumber returns the contacts of a tenant with these numbers, in that order; those that are deleted, or do
// not exist, are left out. At most 1,000.
func (s *Store) ContactsByNumber(ctx context.Context, tenant string, numbers []uint64) ([]Contact, error) {
	if len(numbers) == 0 {
		return nil, nil
	}
	ids := make([]int64, len(numbers))
	for i, n := range numbers {
		ids[i] = int64(n) //nolint:gosec // the store gave them out
	}
	found, err := s.q.AnyContactsByNumber(ctx, tenant, padded(ids))
	if err != nil {
		return nil, fmt.Errorf("contacts by number: %w", err)
	}
	byNumber := make(map[int64]*db.Contact, len(found))
	for i := range found {
		if found[i].DeletedMs == 0 {
			byNumber[found[i].Number] = &found[i]
		}
	}
	out := make([]Contact, 0, len(ids))
	for _, n := range ids {
		if r := byNumber[n]; r != nil {
			out = append(out, contactOf(*r))
		}
	}
	return out, nil
}
