package store

import (
	"context"
	"fmt"

	"fanfare/schemas"
)

// ReasonNoCredit is the reason of a campaign that is suspended because the tenant's credit no longer covers it.
const ReasonNoCredit = "no_credit"

// Confirm reserves the most that a campaign can cost, so a campaign does not run out of money by itself. Credit is
// short only when an operator withdraws more than the free balance, or when a campaign cost more than its reservation.
// Then campaigns are suspended, and a top-up resumes them.

// Withdraw takes credit back. The free balance is taken at once; the rest, which campaigns have reserved, becomes the
// tenant's debt. While a tenant has a debt, its campaigns are suspended with reason [ReasonNoCredit]. Unlimited credit
// cannot be withdrawn.
func (s *Store) Withdraw(ctx context.Context, tenant string, micros uint64, note string, cause Cause) (Balance, error) {
	if micros == 0 || micros > maxMicros {
		return Balance{}, &FieldError{"Micros", fmt.Sprint(micros), "want more than 0"}
	}
	var out Balance
	err := s.writeMoves(ctx, func(tx *tx) error {
		if _, err := tx.LockBalance(ctx, tenant); err != nil {
			return err
		}
		r, err := tx.GetBalance(ctx, tenant)
		if err != nil {
			return found(err, "tenant", tenant)
		}
		have := balanceOf(r)
		if have.Unlimited {
			return &FieldError{"Micros", fmt.Sprint(micros), "the credit is unlimited"}
		}
		if most := have.Available + have.Reserved - min(have.Owed, have.Available+have.Reserved); micros > most {
			return &CreditError{Need: micros, Have: most}
		}
		free := min(micros, have.Available)
		if free > 0 {
			if err := tx.move(ctx, tenant, 0, AccountAvailable, AccountOutside, free, note); err != nil {
				return err
			}
		}
		if owed := micros - free; owed > 0 {
			if err := tx.AddOwed(ctx, int64(owed), tenant); err != nil {
				return err
			}
			cause.Actor, cause.Reason = schemas.ActorGuard, ReasonNoCredit
			if err := tx.suspendAll(ctx, tenant, cause); err != nil {
				return err
			}
		}
		r, err = tx.GetBalance(ctx, tenant)
		out = balanceOf(r)
		return err
	})
	if err != nil {
		return Balance{}, fmt.Errorf("take credit back: %w", err)
	}
	return out, nil
}

// writeMoves is [Store.write] for transactions that change the state of campaigns. When another transaction changes one
// of them at the same time, it runs fn again.
func (s *Store) writeMoves(ctx context.Context, fn func(*tx) error) error {
	var err error
	for range 20 {
		if err = s.write(ctx, fn); !isConflict(err) {
			return err
		}
	}
	return err
}

// payOwed pays a tenant's debt from its free balance.
func (t *tx) payOwed(ctx context.Context, tenant string) error {
	r, err := t.GetBalance(ctx, tenant)
	if err != nil {
		return found(err, "tenant", tenant)
	}
	pays := min(uint64(r.Owed), balanceOf(r).Available)
	if pays == 0 {
		return nil
	}
	if err := t.move(ctx, tenant, 0, AccountAvailable, AccountOutside, pays, "owed"); err != nil {
		return err
	}
	return t.AddOwed(ctx, -int64(pays), tenant)
}

// suspendAll suspends the campaigns of a tenant that are being sent, except tests, which cost nothing.
func (t *tx) suspendAll(ctx context.Context, tenant string, cause Cause) error {
	return t.moveAll(ctx, tenant, cause, schemas.TriggerSuspend, func(c *Campaign) (schemas.State, bool) {
		return schemas.StateSuspended, !c.Test
	}, schemas.StatePreparing, schemas.StateSending)
}

// resumePaid resumes the campaigns of a tenant that were suspended for lack of credit, if the tenant has no debt left.
func (t *tx) resumePaid(ctx context.Context, tenant string) error {
	r, err := t.GetBalance(ctx, tenant)
	if err != nil || r.Owed > 0 {
		return err
	}
	cause := Cause{Actor: schemas.ActorGuard, By: "credit", Reason: "credit covers the campaign again"}
	return t.moveAll(ctx, tenant, cause, schemas.TriggerResume, func(c *Campaign) (schemas.State, bool) {
		if c.Started.IsZero() {
			return schemas.StatePreparing, c.Reason == ReasonNoCredit
		}
		return schemas.StateSending, c.Reason == ReasonNoCredit
	}, schemas.StateSuspended)
}

// moveAll changes the state of a tenant's campaigns that are in the states in. to returns the new state; false skips
// the campaign.
func (t *tx) moveAll(ctx context.Context, tenant string, cause Cause, trigger schemas.Trigger, to func(*Campaign) (schemas.State, bool), in ...schemas.State) error {
	var states int64
	for _, s := range in {
		states |= 1 << s
	}
	rows, err := t.CampaignsIn(ctx, tenant, states)
	if err != nil {
		return err
	}
	for i := range rows {
		before := campaignOf(rows[i])
		c := before
		state, moves := to(&c)
		if !moves {
			continue
		}
		c.State = state
		if err := allowed(before.State, c.State, trigger, cause.Actor); err != nil {
			return err
		}
		if err := t.follow(ctx, &before, &c, trigger, cause.Reason, t.at); err != nil {
			return err
		}
		if err := t.save(ctx, &c, before.Version); err != nil {
			return err
		}
		if err := t.event(ctx, &c, before.State, trigger, cause); err != nil {
			return err
		}
	}
	return nil
}

// covered returns an error if a campaign may not continue because its tenant has a debt.
func (t *tx) covered(ctx context.Context, c *Campaign) error {
	if c.Test {
		return nil
	}
	r, err := t.GetBalance(ctx, c.Tenant)
	if err != nil {
		return found(err, "tenant", c.Tenant)
	}
	if r.Owed > 0 {
		return &CreditError{Need: uint64(r.Owed), Have: balanceOf(r).Available}
	}
	return nil
}
