package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"fanfare/api/store/db"
	"fanfare/schemas"
)

// KeptFigures are the figures of one campaign that has ended, or the sum of many. Cost is in micro-units.
type KeptFigures struct {
	Cost, Total, Pending, Ambiguous, NotSent, Skipped, Awaiting, Unconfirmed, Undelivered, Delivered, Read, Clickers, DeliveredClickers uint64
}

// figureColumns are the columns of campaign_figures and figure_days, in the order of [KeptFigures.fields].
var figureColumns = []string{
	"cost", "total", "pending", "ambiguous", "not_sent", "skipped", "awaiting", "unconfirmed", "undelivered", "delivered", "seen", "clickers",
	"delivered_clickers",
}

func (f *KeptFigures) fields() []*uint64 {
	return []*uint64{
		&f.Cost, &f.Total, &f.Pending, &f.Ambiguous, &f.NotSent, &f.Skipped, &f.Awaiting, &f.Unconfirmed, &f.Undelivered, &f.Delivered,
		&f.Read, &f.Clickers, &f.DeliveredClickers,
	}
}

// add adds other to f, or subtracts it when sign is -1. The unsigned values may wrap around in between; the sum of a
// day is right again in the end.
func (f *KeptFigures) add(other *KeptFigures, sign int64) {
	fields := other.fields()
	for i, v := range f.fields() {
		*v += *fields[i] * uint64(sign)
	}
}

// Queries over the columns of figures.
var (
	getFigures = "SELECT " + strings.Join(figureColumns, ", ") + " FROM campaign_figures WHERE tenant = ? AND created_ms = ? AND number = ?"
	putFigures = "INSERT INTO campaign_figures (tenant, created_ms, number, " + strings.Join(figureColumns, ", ") + ") VALUES (?, ?, ?, " +
		repeat("?", len(figureColumns)) + ")"
	dropFigures = "DELETE FROM campaign_figures WHERE tenant = ? AND created_ms = ? AND number = ?"
	addFigures  = "INSERT INTO figure_days (tenant, day, " + strings.Join(figureColumns, ", ") + ") VALUES (?, ?, " + repeat("?", len(figureColumns)) +
		")\nON CONFLICT (tenant, day) DO UPDATE SET " + each(figureColumns, "%[1]s = figure_days.%[1]s + excluded.%[1]s")
	sumDays = "SELECT " + each(figureColumns, "CAST(COALESCE(SUM(%[1]s), 0) AS INTEGER)") + " FROM figure_days WHERE tenant = ? AND day >= ? AND day < ?"
	sumRows = "SELECT " + each(figureColumns, "CAST(COALESCE(SUM(%[1]s), 0) AS INTEGER)") +
		" FROM campaign_figures WHERE tenant = ? AND created_ms >= ? AND created_ms < ?"
)

// each formats every column and joins the results with commas.
func each(columns []string, format string) string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = fmt.Sprintf(format, c)
	}
	return strings.Join(out, ", ")
}

// readFigures reads the one row of a query.
func readFigures(ctx context.Context, on db.DBTX, query string, args ...any) (f KeptFigures, err error) {
	values, into := make([]int64, len(figureColumns)), make([]any, len(figureColumns))
	for i := range values {
		into[i] = &values[i]
	}
	if err := on.QueryRowContext(ctx, query, args...).Scan(into...); err != nil {
		return f, err
	}
	for i, v := range f.fields() {
		*v = uint64(values[i])
	}
	return f, nil
}

func (f *KeptFigures) args(first ...any) []any {
	for _, v := range f.fields() {
		first = append(first, int64(*v))
	}
	return first
}

const dayMS = 24 * 60 * 60 * 1000

// putFigures stores the figures of a campaign and updates the sum of its day; nil removes them.
func (t *tx) putFigures(ctx context.Context, tenant string, number uint64, createdMS int64, figures *KeptFigures) error {
	was, err := readFigures(ctx, t.raw, getFigures, tenant, createdMS, int64(number))
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	var change KeptFigures
	change.add(&was, -1)
	if _, err := t.raw.ExecContext(ctx, dropFigures, tenant, createdMS, int64(number)); err != nil {
		return err
	}
	if figures != nil {
		change.add(figures, 1)
		if _, err := t.raw.ExecContext(ctx, putFigures, figures.args(tenant, createdMS, int64(number))...); err != nil {
			return err
		}
	}
	_, err = t.raw.ExecContext(ctx, addFigures, change.args(tenant, createdMS/dayMS)...)
	return err
}

// Unkept returns the confirmed campaigns whose figures are not stored yet (they run, or have just ended), at most limit
// of them, with numbers greater than above. It sets only the fields that statistics need: Number, State, Total,
// Captured and the times of its end.
func (s *Store) Unkept(ctx context.Context, tenant string, above uint64, limit int) ([]Campaign, error) {
	rows, err := s.q.UnkeptFigures(ctx, tenant, int64(above), int64(limit))
	return all(rows, err, func(r db.UnkeptFiguresRow) Campaign {
		return Campaign{
			Tenant: tenant, Number: uint64(r.Number), State: schemas.State(r.State), Total: uint32(r.Total), Captured: uint64(r.Captured),
			Completed: fromMS(r.CompletedMs), Settled: fromMS(r.SettledMs), Ended: fromMS(r.EndedMs), Created: fromMS(r.CreatedMs),
		}
	})
}

// KeepFigures stores the figures of campaigns that have ended, or corrects them, because a receipt may come after a
// campaign has settled.
func (s *Store) KeepFigures(ctx context.Context, tenant string, figures map[uint64]KeptFigures) error {
	return s.write(ctx, func(tx *tx) error {
		// Transactions of one tenant take turns: each must read the sums of the days that the one before wrote.
		if _, err := tx.LockBalance(ctx, tenant); err != nil {
			return err
		}
		for number, f := range figures {
			row, err := tx.CampaignKey(ctx, tenant, int64(number))
			if err != nil {
				return found(err, "campaign", schemas.CampaignID(number))
			}
			if n, err := tx.MarkFiguresKept(ctx, tenant, int64(number)); err != nil || n == 0 {
				if err != nil {
					return err
				}
				continue // removed meanwhile
			}
			if err := tx.putFigures(ctx, tenant, number, row.CreatedMs, &f); err != nil {
				return err
			}
		}
		return nil
	})
}

// CorrectFigures replaces the stored figures of a campaign by newer ones, if it has stored figures and they differ. The
// cost is the money captured for the campaign.
func (s *Store) CorrectFigures(ctx context.Context, c *Campaign, figures KeptFigures) error {
	kept, err := readFigures(ctx, s.d.read, getFigures, c.Tenant, ms(c.Created), int64(c.Number))
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kept figures of %s: %w", c.ID(), err)
	}
	if figures.Cost = c.Captured; kept == figures {
		return nil
	}
	return s.KeepFigures(ctx, c.Tenant, map[uint64]KeptFigures{c.Number: figures})
}

// Sending is a confirmed campaign with the fields that comparisons of campaigns need. Figures are nil until they are
// stored.
type Sending struct {
	Campaign // Number, State, Total, Captured and the times
	Tags     []string
	Figures  *KeptFigures
}

// eachSending reads the confirmed campaigns of a tenant with their kept figures. Tests and removed campaigns are left
// out.
var eachSending = "SELECT c.number, c.state, c.channel, c.tags, c.total, c.captured, c.started_ms, c.completed_ms, c.settled_ms, f.number IS NOT NULL, " +
	each(figureColumns, "COALESCE(f.%[1]s, 0)") + ` FROM campaigns c
LEFT JOIN campaign_figures f ON f.tenant = c.tenant AND f.created_ms = c.created_ms AND f.number = c.number
WHERE c.tenant = ? AND c.created_ms >= ? AND c.created_ms < ? AND c.confirmed_ms > 0 AND NOT c.hidden AND NOT c.test AND NOT c.removed`

// EachSending calls yield for each confirmed campaign of the tenant that was created in [from, to), in no order. Zero
// times are no bounds.
func (s *Store) EachSending(ctx context.Context, tenant string, from, to time.Time, yield func(channel schemas.Channel, c *Sending)) error {
	lo, hi := span(from, to)
	return s.d.snapshot(ctx, func(raw db.DBTX) error {
		rows, err := raw.QueryContext(ctx, eachSending, tenant, lo, hi)
		if err != nil {
			return fmt.Errorf("read campaigns with their figures: %w", err)
		}
		defer func() { _ = rows.Close() }()
		values := make([]int64, len(figureColumns))
		for rows.Next() {
			var number, state, channel, total, captured, started, completed, settled int64
			var tags string
			var kept bool
			into := []any{&number, &state, &channel, &tags, &total, &captured, &started, &completed, &settled, &kept}
			for i := range values {
				into = append(into, &values[i])
			}
			if err := rows.Scan(into...); err != nil {
				return fmt.Errorf("read campaigns with their figures: %w", err)
			}
			c := Sending{Tags: splitTags(tags), Campaign: Campaign{
				Tenant: tenant, Number: uint64(number), State: schemas.State(state), Total: uint32(total), Captured: uint64(captured),
				Started: fromMS(started), Completed: fromMS(completed), Settled: fromMS(settled),
			}}
			if kept {
				c.Figures = &KeptFigures{}
				for i, v := range c.Figures.fields() {
					*v = uint64(values[i])
				}
			}
			yield(schemas.Channel(channel), &c)
		}
		return rows.Err()
	})
}

// SumFigures adds up the stored figures of the campaigns created in [from, to). It reads the sums of whole days, and
// single campaigns for the parts of days at both ends. Zero times are no bounds.
func (s *Store) SumFigures(ctx context.Context, tenant string, from, to time.Time) (sum KeptFigures, err error) {
	lo, hi := span(from, to)
	first, end := (lo+dayMS-1)/dayMS, hi/dayMS
	parts := []struct {
		query  string
		lo, hi int64
	}{{sumDays, first, end}, {sumRows, lo, min(first*dayMS, hi)}, {sumRows, max(end*dayMS, lo), hi}}
	if first > end { // from and to are within one day
		parts = parts[:0]
		parts = append(parts, struct {
			query  string
			lo, hi int64
		}{sumRows, lo, hi})
	}
	err = s.d.snapshot(ctx, func(raw db.DBTX) error {
		sum = KeptFigures{}
		for _, p := range parts {
			if p.lo >= p.hi {
				continue
			}
			part, err := readFigures(ctx, raw, p.query, tenant, p.lo, p.hi)
			if err != nil {
				return fmt.Errorf("sum figures: %w", err)
			}
			sum.add(&part, 1)
		}
		return nil
	})
	return sum, err
}
