package store

import (
	"context"
	"fmt"
	"math"
	"strings"

	"fanfare/api/store/db"
	"fanfare/schemas"
	"fanfare/schemas/audience"
)

// membersFrom selects the members of a list, with their opt-outs, as the list was when the campaign was confirmed: it
// leaves out contacts that joined later, and still counts an opt-out that was lifted later. A tenant has one contact
// per number, so a contact that is also in an earlier list of the campaign is a duplicate. Both sides of the join name
// the tenant (P7).
const membersFrom = `
FROM list_members m
JOIN contacts c ON c.number = m.contact AND c.tenant = m.tenant
LEFT JOIN suppressions s ON s.tenant = m.tenant AND s.number_key = c.number_key
WHERE m.tenant = ?1 AND m.list = ?2 AND m.position < ?3 AND c.deleted_ms = 0`

// optedOutColumn selects the channels that a member has opted out of ([ChannelSet]). It includes those whose opt-out
// was lifted after the time in parameter 4.
const optedOutColumn = `CASE WHEN s.updated_ms > ?4 THEN s.channels | s.channels_before ELSE COALESCE(s.channels, 0) END`

const memberColumns = `SELECT c.number, c.phone, c.first_name, c.last_name, c.email, c.attributes, c.country, c.zone, c.class, c.valid,
  ` + optedOutColumn + `, c.opt_in_ms > 0, `

// earlier returns a condition that is true for members of one of n lists. The lists and their ends (see confirmed) are
// parameters 5 and up.
func earlier(n int) string {
	if n == 0 {
		return "FALSE"
	}
	var in, ends strings.Builder
	for i := range n {
		fmt.Fprintf(&in, ", ?%d", 2*i+5)
		fmt.Fprintf(&ends, " WHEN ?%d THEN CAST(?%d AS BIGINT)", 2*i+5, 2*i+6)
	}
	return "EXISTS (SELECT 1 FROM list_members e WHERE e.tenant = m.tenant AND e.contact = m.contact AND e.list IN (" + in.String()[2:] +
		") AND e.position < CASE e.list" + ends.String() + " END)"
}

// membersQuery returns the query for the members of the list that follows n other lists of the campaign.
func membersQuery(n int) string {
	return memberColumns + earlier(n) + membersFrom + "\nORDER BY m.position"
}

// countQuery returns the query that counts the members of the list that follows n other lists, grouped by everything
// that decides their flags.
func countQuery(n int) string {
	return "SELECT country, class, valid, opted_out, opted_in, repeated, COUNT(*) FROM (SELECT c.country, c.class, c.valid, " + optedOutColumn +
		" AS opted_out, c.opt_in_ms > 0 AS opted_in, " + earlier(n) + " AS repeated" + membersFrom + ") AS members GROUP BY country, class, valid, opted_out, opted_in, repeated"
}

// confirmed is the state that a campaign's lists had at confirm. The zero value is their present state.
type confirmed struct {
	ends []int64 // of each list, the position of the first member that joined later
	ms   int64   // when they were counted: opt-outs that were lifted later still count
}

func (c *confirmed) end(i int) int64 {
	if i < len(c.ends) {
		return c.ends[i]
	}
	return math.MaxInt64
}

func memberArgs(tenant string, lists []uint64, i int, c *confirmed) []any {
	since := c.ms
	if since == 0 {
		since = math.MaxInt64
	}
	args := []any{tenant, int64(lists[i]), c.end(i), since}
	for j, list := range lists[:i] {
		args = append(args, int64(list), c.end(j))
	}
	return args
}

// CountAudience counts what a freeze of these lists would find now, for the first channel of a chain.
func (s *Store) CountAudience(ctx context.Context, tenant string, lists []uint64, channel schemas.Channel) (AudienceCount, error) {
	return s.countAudience(ctx, &Campaign{Tenant: tenant, Spec: Spec{Chain: []schemas.Channel{channel}, Lists: lists}})
}

func (s *Store) countAudience(ctx context.Context, c *Campaign) (AudienceCount, error) {
	out := AudienceCount{Countries: map[string]uint32{}}
	err := s.d.snapshot(ctx, func(raw db.DBTX) error {
		q := db.New(raw)
		held, err := s.rulesOf(ctx, q, c)
		if err != nil {
			return err
		}
		for i, list := range c.Lists {
			row, err := q.GetList(ctx, c.Tenant, int64(list))
			if err != nil {
				return found(err, "contact list", ListID(list))
			}
			if row.DeletedMs > 0 {
				return notFound("contact list", ListID(list))
			}
			out.ends = append(out.ends, row.NextPosition)
			switch {
			case held.capped != nil && !held.capped.IsEmpty():
				// A frequency cap holds some contacts back, so the kept counts do not do
				err = out.addOneByOne(ctx, raw, c, i, held)
			case i == 0: // the first list has no duplicates of an earlier one: the kept counts are exact
				err = out.addKept(ctx, q, c.Tenant, list, held)
			default:
				err = out.add(ctx, raw, c, i, held)
			}
			if err != nil {
				return fmt.Errorf("count %s: %w", ListID(list), err)
			}
		}
		return nil
	})
	return out, err
}

// add counts the members of the i-th list.
func (a *AudienceCount) add(ctx context.Context, raw db.DBTX, c *Campaign, i int, held *rules) error {
	rows, err := raw.QueryContext(ctx, countQuery(i), memberArgs(c.Tenant, c.Lists, i, &confirmed{})...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var country string
		var m member
		var n uint32
		if err := rows.Scan(&country, &m.class, &m.valid, &m.optedOut, &m.optedIn, &m.repeated, &n); err != nil {
			return err
		}
		a.count(held, held.flag(&m), country, n)
	}
	return rows.Err()
}

// addOneByOne counts the members of the i-th list by reading each. A million members take about as long as their
// freeze.
func (a *AudienceCount) addOneByOne(ctx context.Context, raw db.DBTX, c *Campaign, i int, held *rules) error {
	query := "SELECT c.number, c.country, c.class, c.valid, " + optedOutColumn + ", c.opt_in_ms > 0, " + earlier(i) + membersFrom + "\nORDER BY m.position"
	rows, err := raw.QueryContext(ctx, query, memberArgs(c.Tenant, c.Lists, i, &confirmed{})...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	var country string
	var id, class, optedOut int64
	for rows.Next() {
		var m member
		if err := rows.Scan(&id, &country, &class, &m.valid, &optedOut, &m.optedIn, &m.repeated); err != nil {
			return err
		}
		m.contact, m.class, m.optedOut = uint64(id), audience.Class(class), ChannelSet(optedOut)
		a.count(held, held.flag(&m), country, 1)
	}
	return rows.Err()
}

// count adds n contacts of a country.
func (a *AudienceCount) count(held *rules, flag audience.Flag, country string, n uint32) {
	a.Total += n
	switch flag {
	case audience.OK:
		ok := held.take(country, n)
		a.OverQuota += n - ok
		if ok > 0 {
			a.Eligible += ok
			a.Countries[country] += ok
		}
	case audience.Invalid:
		a.Invalid += n
	case audience.Duplicate:
		a.Duplicates += n
	case audience.OptedOut:
		a.OptedOut += n
	case audience.NotOptedIn:
		a.NotOptedIn += n
	case audience.Capped:
		a.Capped += n
	case audience.OverQuota:
		a.OverQuota += n
	}
}
