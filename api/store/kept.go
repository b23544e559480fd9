package store

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"fanfare/api/store/db"
	"fanfare/schemas"
)

// Counts that are kept about the campaigns of a tenant, so that no request counts 100,000 rows: how many campaigns
// there are in each state, how much they have reserved and spent, which campaigns have which tag, and the figures of
// ended campaigns. insert and save update the counts and the tags in the transaction that writes the campaign.

// countKey is the key under which campaign_counts counts a campaign.
type countKey struct {
	tenant         string
	state, channel int64
	test, removed  bool
}

// countChange is a change of one row of campaign_counts.
type countChange struct {
	key                   countKey
	n, reserved, captured int64
}

func countKeyOf(c *Campaign) countKey {
	return countKey{c.Tenant, int64(c.State), int64(c.Channel()), c.Test, c.Removed}
}

// keep updates the counts and the tags after a campaign was written. old is the row before the write, nil for a new
// campaign.
func (t *tx) keep(ctx context.Context, old *db.CampaignKeyRow, c *Campaign) error {
	if c.Hidden {
		return nil
	}
	now := countChange{countKeyOf(c), 1, int64(c.Reserved), int64(c.Captured)}
	tags := tagText(c.Tags)
	if c.Removed {
		tags = ""
	}
	if old == nil {
		if err := t.keepTags(ctx, c, "", tags); err != nil {
			return err
		}
		return t.countCampaigns(ctx, now)
	}
	if !old.Removed && old.Tags != tags {
		if err := t.keepTags(ctx, c, old.Tags, tags); err != nil {
			return err
		}
	}
	if c.Removed && !old.Removed && old.FiguresKept {
		if err := t.putFigures(ctx, c.Tenant, c.Number, old.CreatedMs, nil); err != nil {
			return err
		}
	}
	was := countChange{countKey{c.Tenant, old.State, old.Channel, old.Test, old.Removed}, -1, -old.Reserved, -old.Captured}
	if was.key == now.key {
		return t.countCampaigns(ctx, countChange{now.key, 0, now.reserved + was.reserved, now.captured + was.captured})
	}
	return t.countCampaigns(ctx, was, now)
}

// countCampaigns changes rows of campaign_counts. All transactions change them in one order, so that no two wait for
// each other.
func (t *tx) countCampaigns(ctx context.Context, changes ...countChange) error {
	slices.SortFunc(changes, func(a, b countChange) int {
		return strings.Compare(fmt.Sprint(a.key), fmt.Sprint(b.key))
	})
	for _, c := range changes {
		if c.n == 0 && c.reserved == 0 && c.captured == 0 {
			continue
		}
		k := c.key
		rows, err := t.MoveCampaignCount(ctx, db.MoveCampaignCountParams{
			N: c.n, Reserved: c.reserved, Captured: c.captured, Tenant: k.tenant, State: k.state, Channel: k.channel, Test: k.test, Removed: k.removed,
		})
		if err == nil && rows == 0 {
			err = t.AddCampaignCount(ctx, db.AddCampaignCountParams{
				Tenant: k.tenant, State: k.state, Channel: k.channel, Test: k.test, Removed: k.removed, N: c.n, Reserved: c.reserved, Captured: c.captured,
			})
		}
		if err != nil {
			return fmt.Errorf("count campaigns: %w", err)
		}
	}
	return nil
}

func (t *tx) keepTags(ctx context.Context, c *Campaign, was, now string) error {
	before, after := splitTags(was), splitTags(now)
	for _, tag := range before {
		if !slices.Contains(after, tag) {
			if err := t.DropCampaignTag(ctx, c.Tenant, tag, int64(c.Number)); err != nil {
				return err
			}
		}
	}
	for _, tag := range after {
		if !slices.Contains(before, tag) {
			if err := t.AddCampaignTag(ctx, c.Tenant, tag, int64(c.Number)); err != nil {
				return err
			}
		}
	}
	return nil
}

// splitTags is the reverse of tagText.
func splitTags(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.Trim(text, "|"), "|")
}

// StateCount counts the campaigns of a state.
type StateCount struct {
	State   schemas.State
	Channel schemas.Channel // unspecified in counts of a time
	Test    bool
	Removed bool
	N       int
}

// CountCampaigns returns how many campaigns there are. Without bounds (both times zero) it returns the kept counts by
// state, channel, test and removed. Otherwise it counts the campaigns created in [from, to) by state, without tests and
// removed ones; a zero to is no bound.
func (s *Store) CountCampaigns(ctx context.Context, tenant string, from, to time.Time) ([]StateCount, error) {
	if from.IsZero() && to.IsZero() {
		rows, err := s.q.ListCampaignCounts(ctx, tenant)
		return all(rows, err, func(r db.CampaignCount) StateCount {
			return StateCount{schemas.State(r.State), schemas.Channel(r.Channel), r.Test, r.Removed, int(r.N)}
		})
	}
	lo, hi := span(from, to)
	rows, err := s.q.CountStates(ctx, tenant, lo, hi)
	return all(rows, err, func(r db.CountStatesRow) StateCount {
		return StateCount{State: schemas.State(r.State), N: int(r.N)}
	})
}

// span returns [from, to) in the form in which times are stored. Zero times are no bounds.
func span(from, to time.Time) (lo, hi int64) {
	lo, hi = ms(from), ms(to)
	if hi == 0 {
		hi = math.MaxInt64
	}
	return lo, hi
}
