package store

import (
	"context"
	"fmt"

	"fanfare/schemas"
)

// ReasonNoCredit is the reason of a campaign that the tenant's credit does not cover any more.
const ReasonNoCredit = "no_credit"

// What a campaign can cost is reserved whole when it is confirmed, so it never runs out of money by itself. Credit is short only when an
// operator takes back more than is free, or when a campaign cost more than what was reserved for it. Then campaigns are suspended, and
// a top-up lets them go on.

// Withdraw takes credit back: what is free at once, and what campaigns have reserved is owed. While a tenant owes, its campaigns are
// suspended, with reason [ReasonNoCredit]. Unlimited credit can't be taken back.
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

// writeMoves is [Store.write] for what moves campaigns that others may move at the same time: it is tried again on what they became.
func (s *Store) writeMoves(ctx context.Context, fn func(*tx) error) error {
	var err error
	for range 20 {
		if err = s.write(ctx, fn); !isConflict(err) {
			return err
		}
	}
	return err
}

// payOwed pays what a tenant owes from what is free.
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

// suspendAll suspends the campaigns of a tenant that are being sent, but for tests, which cost nothing.
func (t *tx) suspendAll(ctx context.Context, tenant string, cause Cause) error {
	return t.moveAll(ctx, tenant, cause, schemas.TriggerSuspend, func(c *Campaign) (schemas.State, bool) {
		return schemas.StateSuspended, !c.Test
	}, schemas.StatePreparing, schemas.StateSending)
}

// resumePaid lets the campaigns of a tenant go on that were suspended for want of credit, if it owes nothing any more.
func (t *tx) resumePaid(ctx context.Context, tenant string) error {
	r, err := t.GetBalance(ctx, tenant)
	if err != nil || r.Owed > 0 {
		return err
	}
	cause := Cause{Actor: schemas.ActorGuard, By: "credit", Reason: "the credit covers it again"}
	return t.moveAll(ctx, tenant, cause, schemas.TriggerResume, func(c *Campaign) (schemas.State, bool) {
		if c.Started.IsZero() {
			return schemas.StatePreparing, c.Reason == ReasonNoCredit
		}
		return schemas.StateSending, c.Reason == ReasonNoCredit
	}, schemas.StateSuspended)
}

// moveAll moves the campaigns of a tenant in some states to the states that to names.
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

// covered returns an error if a campaign may not go on since its tenant owes money.
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
