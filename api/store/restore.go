package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"fanfare/api/store/db"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// ReasonRestored is the reason of a campaign that was aborted because the store was restored from a backup that is
// older than the campaign's audience.
const ReasonRestored = "restored_without_audience"

// LogCampaign is the state of a campaign according to the topics.
type LogCampaign struct {
	// Record is its newest record in topic campaigns; nil: there is none.
	Record *fanfarev1.Campaign
	// Settled is true when the campaign's cursor says so; Captured is the cost it had then.
	Settled  bool
	Captured uint64
}

// RestoredCampaign is a campaign whose state in the topics is ahead of the store.
type RestoredCampaign struct {
	Tenant, ID string
	From, To   schemas.State
	Settled    bool
	Reason     string
}

// RestorePlan is what [Store.Restore] does.
type RestorePlan struct {
	// Campaigns are moved to the state that they have in the topics.
	Campaigns []RestoredCampaign
	// Unknown are the keys of campaigns that are in the topics and not in the store.
	Unknown []string
}

// restoreStatements make a store that was restored from a backup fit the topics. They skip numbers that were given
// after the backup; raise versions above those in the topics, because readers ignore older versions; mark everything as
// unpublished; and let single sends begin new campaigns, because the restored ones would give seqs a second time.
var restoreStatements = []string{
	`UPDATE counters SET next = next + 1000000`,
	`UPDATE tenants SET version = version + 1000000, published_version = 0`,
	`UPDATE routes SET version = version + 1000000, published_version = 0`,
	`UPDATE senders SET version = version + 1000000, published_version = 0`,
	`UPDATE domains SET version = version + 1000000, published_version = 0`,
	`UPDATE suppressions SET version = version + 1000000, published_version = 0`,
	`UPDATE campaigns SET version = version + 1000000, published_version = 0, tombstone = CASE WHEN tombstone = 2 THEN 1 ELSE tombstone END`,
	`UPDATE campaigns SET hidden_day = hidden_day || '~' || number WHERE hidden_day <> '' AND hidden_day NOT LIKE '%~%'`,
}

// PlanRestore returns what [Store.Restore] would do, and changes nothing. log maps the keys of campaign records to
// campaigns.
func (s *Store) PlanRestore(ctx context.Context, log map[string]LogCampaign) (RestorePlan, error) {
	return s.restore(ctx, log, false)
}

// Restore makes a store that was restored from a backup agree with the topics, which take precedence: it moves
// campaigns to the state they have in the topics, skips numbers that were given after the backup, and marks everything
// as unpublished. No other process may use the store or the topics meanwhile. It may be repeated.
func (s *Store) Restore(ctx context.Context, log map[string]LogCampaign) (RestorePlan, error) {
	return s.restore(ctx, log, true)
}

func (s *Store) restore(ctx context.Context, log map[string]LogCampaign, do bool) (plan RestorePlan, err error) {
	err = s.write(ctx, func(tx *tx) error {
		plan = RestorePlan{}
		for _, key := range sortedKeys(log) {
			tenant, id, _ := strings.Cut(key, "/")
			row, err := campaignRow(ctx, tx.Queries, tenant, id)
			if isNotFound(err) {
				if log[key].Record != nil {
					plan.Unknown = append(plan.Unknown, key)
				}
				continue
			}
			if err != nil {
				return err
			}
			moved, err := s.restoreCampaign(ctx, tx, row, log[key], do)
			if err != nil {
				return fmt.Errorf("restore %s: %w", key, err)
			}
			if moved != nil {
				plan.Campaigns = append(plan.Campaigns, *moved)
			}
		}
		if !do {
			return nil
		}
		for _, q := range restoreStatements {
			if _, err := tx.raw.ExecContext(ctx, q); err != nil {
				return fmt.Errorf("restore: %w", err)
			}
		}
		return nil
	})
	return plan, err
}

// restoreCampaign moves a campaign to the state that it has in the topics. It returns nil when the campaign needs no
// change.
func (s *Store) restoreCampaign(ctx context.Context, tx *tx, row db.Campaign, log LogCampaign, do bool) (*RestoredCampaign, error) {
	before, c := campaignOf(row), campaignOf(row)
	r := log.Record
	settled := log.Settled || r.GetSettled()
	newer := r.GetVersion() > before.Version
	switch {
	case !before.Settled.IsZero() || !settled && !newer:
		return nil, nil
	case settled:
		c.State = schemas.StateCompleted
		if ended := r.GetState(); ended == schemas.StateAborted || ended == schemas.StateCancelled {
			c.State = ended
		}
	case started(r.GetState()) && r.GetFreezeId() != "" && r.GetFreezeId() != before.FreezeID:
		// The audience was frozen after the backup and is lost, so the campaign cannot be sent any more.
		c.State, c.Reason = schemas.StateAborted, ReasonRestored
	case started(r.GetState()) || schemas.Terminal(r.GetState()):
		c.State, c.Reason = r.GetState(), r.GetReason()
	default:
		return nil, nil // the campaign has not started: its owner can confirm it again
	}
	moved := &RestoredCampaign{Tenant: c.Tenant, ID: c.ID(), From: before.State, To: c.State, Settled: settled, Reason: c.Reason}
	if !do {
		return moved, nil
	}
	if r != nil {
		c.FreezeID, c.Total = r.GetFreezeId(), r.GetTotal()
		c.Confirmed, c.Started, c.Completed = fromMS(r.GetConfirmedMs()), fromMS(r.GetStartedMs()), fromMS(r.GetCompletedMs())
		if len(c.Legs) == 0 {
			c.Legs = legsOf(r)
		}
	}
	switch {
	case settled:
		if _, err := tx.capture(ctx, &c, log.Captured); err != nil {
			return nil, err
		}
		c.Settled, c.Ended = tx.at, tx.at
		if c.Completed.IsZero() && c.State == schemas.StateCompleted {
			c.Completed = tx.at
		}
		if err := tx.releaseAll(ctx, &c); err != nil {
			return nil, err
		}
	case schemas.Terminal(c.State) && c.State != schemas.StateCompleted && c.State != schemas.StateAborted:
		c.Ended = tx.at
		if err := tx.releaseAll(ctx, &c); err != nil {
			return nil, err
		}
	}
	if err := tx.save(ctx, &c, before.Version); err != nil {
		return nil, err
	}
	cause := Cause{Actor: schemas.ActorOperator, By: "fanfare restore", Reason: "the topics take precedence over the restored store"}
	return moved, tx.event(ctx, &c, before.State, "restore", cause)
}

// started reports whether the scheduler may have dealt recipients of a campaign in that state.
func started(s schemas.State) bool {
	switch s {
	case schemas.StatePreparing, schemas.StateSending, schemas.StatePaused, schemas.StateSuspended, schemas.StateCompleted, schemas.StateAborted:
		return true
	default:
		return false
	}
}

// legsOf returns the legs of a record.
func legsOf(r *fanfarev1.Campaign) []Leg {
	var out []Leg
	for _, l := range r.GetLegs() {
		leg := Leg{Channel: l.GetChannel(), Route: l.GetRoute(), Sender: l.GetSender(), Price: l.GetPriceMicros(), MaxHandovers: l.GetMaxHandovers(), OtherRoutes: l.GetOtherRoutes()}
		for _, b := range l.GetBackoffMs() {
			leg.Backoff = append(leg.Backoff, time.Duration(b)*time.Millisecond)
		}
		out = append(out, leg)
	}
	return out
}

func sortedKeys(log map[string]LogCampaign) []string {
	out := make([]string, 0, len(log))
	for key := range log {
		out = append(out, key)
	}
	slices.Sort(out)
	return out
}
