package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Confirmation is the data that a confirmation is decided on, read in one transaction.
type Confirmation struct {
	Tenant   Tenant
	Balance  Balance
	Prices   Prices
	Audience AudienceCount
}

// Confirm confirms a campaign if its version is want, 0 for any. decide sets State to ready, scheduled or preparing,
// and sets Legs, Weights, Scheduled, Quote and Forecast. It returns the most that the campaign can cost, in
// micro-units. It may run several times. The same transaction checks the tenant's limits of active campaigns (C22,
// [LimitError]) and of contacts, reserves the money ([CreditError]), and writes the row and its event. When a check
// fails nothing is written.
func (s *Store) Confirm(ctx context.Context, tenant, id string, want uint64, cause Cause, decide func(Confirmation, *Campaign) (reserve uint64, err error)) (Campaign, error) {
	seen, err := s.Campaign(ctx, tenant, id)
	if err != nil {
		return Campaign{}, err
	}
	if seen.Hidden {
		return Campaign{}, notFound("campaign", id)
	}
	if want != 0 && want != seen.Version {
		return Campaign{}, &VersionError{"campaign", want, seen.Version}
	}
	// The audience is counted before the transaction: counted inside, it would block all other writers for as long.
	// Contacts that join the lists later, and opt-outs that are lifted later, do not change the audience. A number that
	// is corrected before the freeze may change it.
	counted := s.now()
	count, err := s.CountCampaign(ctx, &seen)
	if err != nil {
		return Campaign{}, err
	}
	var out Campaign
	err = s.write(ctx, func(tx *tx) error {
		// Confirmations of one tenant take turns: otherwise two campaigns could both become the tenth active one.
		if _, err := tx.LockBalance(ctx, tenant); err != nil {
			return err
		}
		t, err := tx.enabled(ctx, tenant)
		if err != nil {
			return err
		}
		row, err := campaignRow(ctx, tx.Queries, tenant, id)
		if err != nil {
			return err
		}
		if uint64(row.Version) != seen.Version {
			return &VersionError{"campaign", seen.Version, uint64(row.Version)}
		}
		price, err := prices(ctx, tx.Queries, tenant)
		if err != nil {
			return err
		}
		before := campaignOf(row)
		// A list may have become a test list since the count
		if before.Test, err = tx.isTest(ctx, &before); err != nil {
			return err
		}
		out = before
		balance, err := tx.GetBalance(ctx, tenant)
		if err != nil {
			return err
		}
		reserve, err := decide(Confirmation{Tenant: t, Balance: balanceOf(balance), Prices: price, Audience: count}, &out)
		if err != nil {
			return err
		}
		decided := out
		out = before
		out.State, out.Legs, out.Scheduled, out.Quote, out.Weights = decided.State, decided.Legs, decided.Scheduled, decided.Quote, decided.Weights
		out.LinkBase, out.LinkTable, out.Forecast = decided.LinkBase, decided.LinkTable, decided.Forecast
		if err := allowed(before.State, out.State, schemas.TriggerConfirm, cause.Actor); err != nil {
			return err
		}
		if err := tx.checkLimits(ctx, t, count); err != nil {
			return err
		}
		out.Reason, out.Confirmed, out.ConfirmedBy = "", tx.at, cause.By
		out.ListEnds, out.Counted, out.Countries = count.ends, counted, count.Countries
		// The pipeline reads the tenant's limit from the campaign (C14)
		if out.MaxSegments == 0 || out.MaxSegments > t.MaxSegments {
			out.MaxSegments = t.MaxSegments
		}
		if err := tx.reserve(ctx, &out, reserve); err != nil {
			return err
		}
		if err := tx.save(ctx, &out, before.Version); err != nil {
			return err
		}
		return tx.event(ctx, &out, before.State, schemas.TriggerConfirm, cause)
	})
	if err != nil {
		return Campaign{}, fmt.Errorf("confirm %s: %w", id, err)
	}
	return out, nil
}

// activeStates returns the active states (C22) as a bit set.
func activeStates() (set int64) {
	for number := range fanfarev1.State_name {
		if schemas.Active(schemas.State(number)) {
			set |= 1 << number
		}
	}
	return set
}

func (t *tx) checkLimits(ctx context.Context, tenant Tenant, count AudienceCount) error {
	if count.Total > tenant.MaxContacts {
		return &LimitError{LimitContacts, uint64(tenant.MaxContacts), uint64(count.Total)}
	}
	active, err := t.CountActive(ctx, tenant.ID, activeStates())
	if err != nil {
		return err
	}
	if active >= int64(tenant.MaxActive) {
		return &LimitError{LimitActive, uint64(tenant.MaxActive), uint64(active) + 1}
	}
	return nil
}

// Apply writes a change by the pipeline and returns the new version. The error is [schemas.ErrConflict] when the
// campaign no longer has the version that the change was decided on. Settling a settled campaign changes nothing.
func (s *Store) Apply(ctx context.Context, change schemas.Change) (version uint64, err error) {
	err = s.write(ctx, func(tx *tx) error {
		row, err := campaignRow(ctx, tx.Queries, change.Tenant, change.Campaign)
		if err != nil {
			return err
		}
		before, c := campaignOf(row), campaignOf(row)
		version = before.Version
		if change.Settled && !before.Settled.IsZero() {
			return nil
		}
		if change.Version != before.Version {
			return &VersionError{"campaign", change.Version, before.Version}
		}
		at := tx.at
		if !change.At.IsZero() {
			at = change.At.UTC()
		}
		moves := change.Trigger != "" || change.To != schemas.StateUnspecified && change.To != before.State
		if change.Trigger == schemas.TriggerDeal {
			if _, short := errors.AsType[*CreditError](tx.covered(ctx, &before)); short {
				change.To, change.Trigger, change.Actor, change.Reason = schemas.StateSuspended, schemas.TriggerSuspend, schemas.ActorGuard, ReasonNoCredit
			}
		}
		if moves {
			c.State = change.To
			if err := allowed(before.State, c.State, change.Trigger, change.Actor); err != nil {
				return err
			}
			if err := tx.follow(ctx, &before, &c, change.Trigger, change.Reason, at); err != nil {
				return err
			}
		}
		short, err := s.settle(ctx, tx, &c, change, at)
		if err != nil {
			return err
		}
		if short && !moves && (c.State == schemas.StatePreparing || c.State == schemas.StateSending) {
			// The campaign cost more than its reservation and the tenant's free balance. The first report of its cost
			// after a top-up captures the rest.
			moves, change.Trigger, change.Actor, change.Reason = true, schemas.TriggerSuspend, schemas.ActorGuard, ReasonNoCredit
			c.State = schemas.StateSuspended
			if err := allowed(before.State, c.State, change.Trigger, change.Actor); err != nil {
				return err
			}
			if err := tx.follow(ctx, &before, &c, change.Trigger, change.Reason, at); err != nil {
				return err
			}
		}
		if err := tx.save(ctx, &c, before.Version); err != nil {
			return err
		}
		version = c.Version
		cause := Cause{Actor: change.Actor, By: string(change.Actor), Reason: change.Reason}
		if change.Settled && !moves {
			cause.Reason = "settled"
		}
		if !moves && !change.Settled {
			return nil // only money was captured: the ledger has it, the campaign's row does not change
		}
		return tx.event(ctx, &c, before.State, change.Trigger, cause)
	})
	if err != nil {
		return 0, fmt.Errorf("apply to %s: %w", change.Campaign, err)
	}
	return version, nil
}

// settle captures the cost that a change reports and releases the money that cannot be spent any more; when the
// campaign ends, it releases all that is left. short is true when reservation and balance did not cover the cost.
func (s *Store) settle(ctx context.Context, tx *tx, c *Campaign, change schemas.Change, at time.Time) (short bool, err error) {
	total := change.CapturedSoFar
	if change.Settled {
		switch c.State {
		case schemas.StateCompleted, schemas.StateAborted:
		case schemas.StateCancelled: // cancelled while its first chunk was being dealt
		default:
			return false, &StateError{State: c.State, To: c.State, Trigger: "settle"}
		}
		total = max(total, change.Captured)
	}
	unbilled, err := tx.capture(ctx, c, total)
	if err != nil {
		return false, err
	}
	if unbilled > 0 {
		s.log.ErrorContext(ctx, "cost exceeds reservation and balance, not billed", "campaign", c.ID(), "micros", unbilled)
	}
	if !change.Settled {
		// The reservation of a hidden campaign covers credit that API processes hold
		if change.MaxLeft != nil && !c.Hidden && c.Reserved > *change.MaxLeft {
			return unbilled > 0, tx.release(ctx, c, c.Reserved-*change.MaxLeft)
		}
		return unbilled > 0, nil
	}
	if err := tx.freeDomains(ctx, c, change.Unsent); err != nil {
		return false, err
	}
	c.Settled, c.Ended = at, at
	return unbilled > 0, tx.releaseAll(ctx, c)
}
