package store

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"fanfare/api/store/db"
	"fanfare/schemas"
)

// campaignQuery is a query over campaigns_list, the index that has every column that lists filter by. Its text has only
// the conditions of its filter, so that both databases plan each combination separately. There are few combinations, so
// their statements stay prepared.
type campaignQuery struct {
	from, number string
	where        []string
	args         []any
}

// and adds a condition. Each ? in it takes the next argument.
func (q *campaignQuery) and(condition string, args ...any) {
	q.where = append(q.where, condition)
	q.args = append(q.args, args...)
}

func (q *campaignQuery) tail() string {
	return " FROM " + q.from + " WHERE " + strings.Join(q.where, " AND ")
}

// campaignFilter turns a filter into conditions on the index, without the cursor.
func campaignFilter(tenant string, f *CampaignFilter) *campaignQuery {
	q := &campaignQuery{from: "campaigns p", number: "p.number"}
	q.and("p.tenant = ?", tenant)
	q.and("NOT p.hidden")
	if !f.IncludeDeleted {
		q.and("NOT p.removed")
	}
	if len(f.States) > 0 {
		q.and("p.state IN (" + numbers(f.States) + ")")
	}
	if len(f.Channels) > 0 {
		q.and("p.channel IN (" + numbers(f.Channels) + ")")
	}
	if search := fold(f.Search); search != "" {
		q.and("INSTR(p.search, ?) > 0", search)
	}
	// campaign_tags does not have removed campaigns, so this filters the rows of campaigns
	if tag := tagText([]string{f.Tag}); f.Tag != "" && f.IncludeDeleted {
		q.and("INSTR(p.tags, ?) > 0", tag)
	} else if f.Tag != "" {
		q.from = "campaign_tags t JOIN campaigns p ON p.tenant = t.tenant AND p.number = t.number"
		q.and("t.tenant = ? AND t.tag = ?", tenant, fold(f.Tag))
		q.number = "t.number"
	}
	if !f.From.IsZero() || !f.To.IsZero() {
		from, to := span(f.From, f.To)
		q.and("p.created_ms >= ? AND p.created_ms < ?", from, to)
	}
	return q
}

// numbers writes enum values into the text of a query. There are few, so there are few different texts to prepare.
func numbers[E ~int32](values []E) string {
	values = slices.Sorted(slices.Values(values))
	var b strings.Builder
	for i, v := range values {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprint(&b, int32(v))
	}
	return b.String()
}

// Campaigns returns a page of campaigns, and how many match the filter in all.
func (s *Store) Campaigns(ctx context.Context, tenant string, f CampaignFilter) ([]Campaign, int, error) {
	q := campaignFilter(tenant, &f)
	page, total, err := s.campaignPage(ctx, tenant, q, &f)
	if err != nil {
		return nil, 0, fmt.Errorf("list campaigns: %w", err)
	}
	rows, err := s.campaignsOf(ctx, tenant, page)
	if err != nil {
		return nil, 0, fmt.Errorf("read campaigns: %w", err)
	}
	return rows, total, nil
}

// campaignPage finds the numbers of a page in the index, and how many campaigns match in all.
func (s *Store) campaignPage(ctx context.Context, tenant string, q *campaignQuery, f *CampaignFilter) (page []int64, total int, err error) {
	if fold(f.Search) != "" && f.After == 0 {
		return s.searchPage(ctx, q, f)
	}
	if total, err = s.countCampaigns(ctx, tenant, q, f); err != nil {
		return nil, 0, err
	}
	limit, offset := f.bounds()
	descending := !f.Oldest
	reverse := false
	switch {
	case f.After == 0:
		if left := int64(total) - offset; left <= 0 {
			return nil, total, nil
		} else if reverse = offset > int64(total)/2; reverse { // the page is nearer to the other end
			limit = min(limit, left)
			offset = left - limit
			descending = !descending
		}
	case f.Oldest:
		q.and(q.number+" > ?", int64(min(f.After, math.MaxInt64)))
		offset = 0
	default:
		q.and(q.number+" < ?", int64(min(f.After, math.MaxInt64)))
		offset = 0
	}
	query := "SELECT " + q.number + q.tail() + " ORDER BY " + q.number + order(descending) + " LIMIT ? OFFSET ?"
	page, err = s.campaignNumbers(ctx, query, append(q.args, limit, offset)...)
	if reverse {
		slices.Reverse(page)
	}
	return page, total, err
}

func order(descending bool) string {
	if descending {
		return " DESC"
	}
	return ""
}

// searchPage reads the numbers of all matches. Searching all names is the slowest part, so one search serves both the
// page and the total.
func (s *Store) searchPage(ctx context.Context, q *campaignQuery, f *CampaignFilter) (page []int64, total int, err error) {
	found, err := s.campaignNumbers(ctx, "SELECT "+q.number+q.tail()+" ORDER BY "+q.number+order(!f.Oldest), q.args...)
	limit, offset := f.bounds()
	n := int64(len(found))
	return found[min(offset, n):min(offset+limit, n)], len(found), err
}

func (s *Store) campaignNumbers(ctx context.Context, query string, args ...any) (out []int64, err error) {
	rows, err := s.d.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, rows.Err()
}

func (s *Store) countCampaigns(ctx context.Context, tenant string, q *campaignQuery, f *CampaignFilter) (int, error) {
	simple := len(f.States) == 0 && len(f.Channels) == 0 && fold(f.Search) == "" && f.From.IsZero() && f.To.IsZero()
	if simple && f.Tag != "" && !f.IncludeDeleted {
		n, err := s.q.CountTag(ctx, tenant, fold(f.Tag))
		return int(n), err
	}
	if fold(f.Search) == "" && f.Tag == "" && f.From.IsZero() && f.To.IsZero() {
		return s.countByKey(ctx, tenant, f)
	}
	var n int
	err := s.d.read.QueryRowContext(ctx, "SELECT COUNT(*)"+q.tail(), q.args...).Scan(&n)
	return n, err
}

// countByKey adds up the kept counts.
func (s *Store) countByKey(ctx context.Context, tenant string, f *CampaignFilter) (n int, err error) {
	rows, err := s.q.ListCampaignCounts(ctx, tenant)
	if err != nil {
		return 0, err
	}
	for _, r := range rows {
		if (f.IncludeDeleted || !r.Removed) && (len(f.States) == 0 || slices.Contains(f.States, schemas.State(r.State))) &&
			(len(f.Channels) == 0 || slices.Contains(f.Channels, schemas.Channel(r.Channel))) {
			n += int(r.N)
		}
	}
	return n, nil
}

// campaignsOf reads the campaigns of those numbers, in their order.
func (s *Store) campaignsOf(ctx context.Context, tenant string, order []int64) ([]Campaign, error) {
	if len(order) == 0 {
		return []Campaign{}, nil
	}
	rows, err := s.q.CampaignsByNumber(ctx, tenant, padded(order))
	if err != nil {
		return nil, err
	}
	byNumber := make(map[int64]*db.Campaign, len(rows))
	for i := range rows {
		byNumber[rows[i].Number] = &rows[i]
	}
	out := make([]Campaign, 0, len(order))
	for _, n := range order {
		if r := byNumber[n]; r != nil {
			out = append(out, campaignOf(*r))
		}
	}
	return out, nil
}

// padded repeats the last number until there are 10, 100 or 1,000. Without it, a statement for each length would be
// prepared and kept.
func padded(numbers []int64) []int64 {
	size := 10
	for size < len(numbers) {
		size *= 10
	}
	out := slices.Clone(numbers)
	for len(out) < size {
		out = append(out, numbers[len(numbers)-1])
	}
	return out
}
