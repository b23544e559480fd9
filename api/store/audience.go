package store

import (
	"context"
	"fmt"
	"math"
	"strings"

	"fanfare/api/store/db"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Members of a list who are sent to from it, in order, with what the freeze wants to know. Who is in one of the lists before
// is there already: the same contact, for a tenant has one per number. The tenant is asked for on both sides (P7). What was confirmed
// is meant: nobody who joined a list at its end or later, and nobody whose opt-out was lifted since.
const membersFrom = `
FROM list_members m
JOIN contacts c ON c.number = m.contact AND c.tenant = m.tenant
LEFT JOIN suppressions s ON s.tenant = m.tenant AND s.phone = c.phone AND (NOT s.lifted OR s.updated_ms > ?4)
WHERE m.tenant = ?1 AND m.list = ?2 AND m.position < ?3 AND c.deleted_ms = 0`

const memberColumns = `SELECT c.number, c.phone, c.first_name, c.last_name, c.email, c.attributes, c.country, c.zone, c.class, c.valid,
  s.phone IS NOT NULL, `

// earlier is a condition that is true of a member of one of n lists, given with their ends as parameters 5 and up.
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

// membersQuery reads the members of a list after n others.
func membersQuery(n int) string {
	return memberColumns + earlier(n) + membersFrom + "\nORDER BY m.position"
}

// countQuery counts them by what decides their flag.
func countQuery(n int) string {
	return "SELECT country, class, valid, opted_out, repeated, COUNT(*) FROM (SELECT c.country, c.class, c.valid, s.phone IS NOT NULL AS opted_out, " +
		earlier(n) + " AS repeated" + membersFrom + ") AS members GROUP BY country, class, valid, opted_out, repeated"
}

// confirmed says what of its lists a campaign was confirmed with: who had joined each, and until when opt-outs were lifted. Zero
// for all there is.
type confirmed struct {
	ends []int64 // the position of the first who joined later
	ms   int64
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

// flagOf says whether a recipient may be sent to. A fixed line takes calls and no texts (C30).
func flagOf(repeated, optedOut, valid bool, class audience.Class, channel fanfarev1.Channel) audience.Flag {
	switch {
	case repeated:
		return audience.Duplicate
	case !valid || class == audience.FixedLine && channel != fanfarev1.Channel_CHANNEL_VOICE:
		return audience.Invalid
	case optedOut:
		return audience.OptedOut
	default:
		return audience.OK
	}
}

// CountAudience returns what a freeze of these lists would find now, for the first channel of a chain.
func (s *Store) CountAudience(ctx context.Context, tenant string, lists []uint64, channel fanfarev1.Channel) (AudienceCount, error) {
	return s.countAudience(ctx, tenant, lists, channel)
}

func (s *Store) countAudience(ctx context.Context, tenant string, lists []uint64, channel fanfarev1.Channel) (AudienceCount, error) {
	out := AudienceCount{Countries: map[string]uint32{}}
	err := s.d.snapshot(ctx, func(raw db.DBTX) error {
		q := db.New(raw)
		for i, list := range lists {
			row, err := q.GetList(ctx, tenant, int64(list))
			if err != nil {
				return found(err, "contact list", ListID(list))
			}
			if row.DeletedMs > 0 {
				return notFound("contact list", ListID(list))
			}
			out.ends = append(out.ends, row.NextPosition)
			if err := out.add(ctx, raw, tenant, lists, i, channel); err != nil {
				return fmt.Errorf("count %s: %w", ListID(list), err)
			}
		}
		return nil
	})
	return out, err
}

// add counts the i-th list.
func (a *AudienceCount) add(ctx context.Context, raw db.DBTX, tenant string, lists []uint64, i int, channel fanfarev1.Channel) error {
	rows, err := raw.QueryContext(ctx, countQuery(i), memberArgs(tenant, lists, i, &confirmed{})...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var country string
		var class audience.Class
		var valid, optedOut, repeated bool
		var n uint32
		if err := rows.Scan(&country, &class, &valid, &optedOut, &repeated, &n); err != nil {
			return err
		}
		a.Total += n
		switch flagOf(repeated, optedOut, valid, class, channel) {
		case audience.OK:
			a.Eligible += n
			a.Countries[country] += n
		case audience.Invalid:
			a.Invalid += n
		case audience.Duplicate:
			a.Duplicates += n
		case audience.OptedOut:
			a.OptedOut += n
		case audience.Capped:
		}
	}
	return rows.Err()
}
