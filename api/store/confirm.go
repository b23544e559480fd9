package store

import (
	"context"
	"fmt"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Confirmation is what a confirmation is decided on: one state of the tenant, its prices and the audience.
type Confirmation struct {
	Tenant   Tenant
	Prices   Prices
	Audience AudienceCount
}

// Confirm confirms a campaign if it is of version want, 0 for any. decide looks at what would be sent to whom, sets State to
// ready, scheduled or preparing, and Legs, Scheduled and Quote, and returns the most that the campaign can cost; it may run
// more than once. In the same transaction: the tenant's limit of active campaigns (C22, [LimitError]) and of contacts, the
// money ([CreditError]), the row, its event. Nothing is written when one of them says no.
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
	// Counted before the transaction: a million contacts take half a second, in which nobody else could write. Who joins the lists
	// or has an opt-out lifted from here on is not in the audience. A number that is corrected until the freeze may still come in.
	counted := s.now()
	count, err := s.countAudience(ctx, tenant, seen.Lists, seen.Channel())
	if err != nil {
		return Campaign{}, err
	}
	var out Campaign
	err = s.write(ctx, func(tx *tx) error {
		// Confirmations of one tenant take turns, or two would both be the tenth active campaign.
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
		if before.Test, err = tx.isTest(ctx, &before); err != nil { // a list may have become one of testers since
			return err
		}
		out = before
		reserve, err := decide(Confirmation{Tenant: t, Prices: price, Audience: count}, &out)
		if err != nil {
			return err
		}
		decided := out
		out = before
		out.State, out.Legs, out.Scheduled, out.Quote = decided.State, decided.Legs, decided.Scheduled, decided.Quote
		if err := allowed(before.State, out.State, schemas.TriggerConfirm, cause.Actor); err != nil {
			return err
		}
		if err := tx.checkLimits(ctx, t, count); err != nil {
			return err
		}
		out.Reason, out.Confirmed, out.ConfirmedBy = "", tx.at, cause.By
		out.ListEnds, out.Counted = count.ends, counted
		if out.MaxSegments == 0 || out.MaxSegments > t.MaxSegments { // what the pipeline knows of the tenant's limit (C14)
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

// activeStates are the states of C22 as a bit set.
func activeStates() (set int64) {
	for number := range fanfarev1.State_name {
		if schemas.Active(fanfarev1.State(number)) {
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

// Apply makes a move of the pipeline, if the campaign is of the version that it saw: else [schemas.ErrConflict]. It returns the
// version that it led to. Settling what is settled changes nothing.
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
		moves := change.Trigger != "" || change.To != fanfarev1.State_STATE_UNSPECIFIED && change.To != before.State
		if moves {
			c.State = change.To
			if err := allowed(before.State, c.State, change.Trigger, change.Actor); err != nil {
				return err
			}
			if err := tx.follow(ctx, &before, &c, change.Trigger, change.Reason, at); err != nil {
				return err
			}
		}
		if err := s.settle(ctx, tx, &c, change, at); err != nil {
			return err
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
			return nil // a capture under way: the ledger has it
		}
		return tx.event(ctx, &c, before.State, change.Trigger, cause)
	})
	if err != nil {
		return 0, fmt.Errorf("apply to %s: %w", change.Campaign, err)
	}
	return version, nil
}

// settle captures what a change says, and at the end releases the rest.
func (s *Store) settle(ctx context.Context, tx *tx, c *Campaign, change schemas.Change, at time.Time) error {
	total := change.CapturedSoFar
	if change.Settled {
		switch c.State {
		case fanfarev1.State_STATE_COMPLETED, fanfarev1.State_STATE_ABORTED:
		case fanfarev1.State_STATE_CANCELLED: // when a first chunk was on its way just then
		default:
			return &StateError{State: c.State, To: c.State, Trigger: "settle"}
		}
		total = max(total, change.Captured)
	}
	unbilled, err := tx.capture(ctx, c, total)
	if err != nil {
		return err
	}
	if unbilled > 0 {
		s.log.ErrorContext(ctx, "sent more than was reserved and the balance does not cover it: not billed",
			"campaign", c.ID(), "micros", unbilled)
	}
	if !change.Settled {
		return nil
	}
	c.Settled, c.Ended = at, at
	return tx.releaseAll(ctx, c)
}

// hiddenDays is how a day with more single sends than a campaign has seqs goes on: 2026-01-02, 2026-01-02#2, …
func hiddenDay(day string, n int) string {
	if n == 1 {
		return day
	}
	return fmt.Sprintf("%s#%d", day, n)
}

// hidden returns a campaign of single sends with room for n more seqs, making one when there is none.
func (t *tx) hidden(ctx context.Context, tenant Tenant, day string, n uint32) (Campaign, error) {
	for i := 1; ; i++ {
		row, err := t.GetHidden(ctx, tenant.ID, hiddenDay(day, i))
		if err = found(err, "hidden campaign", day); err == nil {
			if c := campaignOf(row); c.Total+n <= schemas.MaxSeq+1 && c.State == fanfarev1.State_STATE_SENDING {
				return c, nil
			}
			continue
		}
		if !isNotFound(err) {
			return Campaign{}, err
		}
		return t.newHidden(ctx, tenant, hiddenDay(day, i))
	}
}

func (t *tx) newHidden(ctx context.Context, tenant Tenant, day string) (Campaign, error) {
	price, err := prices(ctx, t.Queries, tenant.ID)
	if err != nil {
		return Campaign{}, err
	}
	const sms = fanfarev1.Channel_CHANNEL_SMS
	c := Campaign{
		Tenant: tenant.ID, State: fanfarev1.State_STATE_SENDING, Hidden: true, Region: tenant.Region, Currency: tenant.Currency,
		Spec: Spec{Name: "single sends " + day, Chain: []fanfarev1.Channel{sms}, MaxSegments: tenant.MaxSegments},
		Legs: []Leg{{Channel: sms, Route: tenant.DefaultRoute, Sender: tenant.DefaultSender, Price: price[sms], MaxHandovers: 1}},
		// Its life begins where another's gets after confirm.
		Confirmed: t.at, Started: t.at, CreatedBy: "singles",
	}
	if err := t.insert(ctx, &c, day); err != nil {
		return Campaign{}, err
	}
	return c, t.event(ctx, &c, fanfarev1.State_STATE_UNSPECIFIED, schemas.TriggerCreate, Cause{Actor: schemas.ActorUser, By: "singles"})
}

// dayFormat of the UTC day of single sends.
const dayFormat = "2006-01-02"

// LeaseSeqs gives the caller n seqs of the hidden campaign that holds the single sends of a tenant on a UTC day. The campaign
// is published with the new total before a message of the block may be sent: see [Lease].
func (s *Store) LeaseSeqs(ctx context.Context, tenant string, day time.Time, n uint32) (Lease, error) {
	if n < 1 || n > schemas.MaxSeq {
		return Lease{}, &FieldError{"n", fmt.Sprint(n), fmt.Sprintf("want 1 to %d", schemas.MaxSeq)}
	}
	var lease Lease
	err := s.write(ctx, func(tx *tx) error {
		row, err := tx.GetTenant(ctx, tenant)
		if err != nil {
			return found(err, "tenant", tenant)
		}
		// Takes turns as confirmations do, so that two do not both make today's campaign.
		if _, err := tx.LockBalance(ctx, tenant); err != nil {
			return err
		}
		c, err := tx.hidden(ctx, tenantOf(row), day.UTC().Format(dayFormat), n)
		if err != nil {
			return err
		}
		lease = Lease{Campaign: c.Number, First: c.Total, Count: n, Version: c.Version + 1}
		c.Total += n
		return tx.save(ctx, &c, c.Version)
	})
	if err != nil {
		return Lease{}, fmt.Errorf("lease seqs: %w", err)
	}
	return lease, nil
}
