package store

import (
	"context"
	"fmt"
	"time"

	"fanfare/api/store/db"
	"fanfare/schemas"
)

// hiddenDay returns the name of the n-th hidden campaign of a day: 2026-01-02, 2026-01-02#2 and so on. A day has
// several when it has more single sends than one campaign has seqs.
func hiddenDay(day string, n int) string {
	if n == 1 {
		return day
	}
	return fmt.Sprintf("%s#%d", day, n)
}

// hidden returns a campaign of single sends with room for n more seqs. It creates one when there is none.
func (t *tx) hidden(ctx context.Context, tenant Tenant, day string, n uint32) (Campaign, error) {
	for i := 1; ; i++ {
		row, err := t.GetHidden(ctx, tenant.ID, hiddenDay(day, i))
		if err = found(err, "hidden campaign", day); err == nil {
			if c := campaignOf(row); c.Total+n <= schemas.MaxSeq+1 && c.State == schemas.StateSending {
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
	list, err := prices(ctx, t.Queries, tenant.ID)
	if err != nil {
		return Campaign{}, err
	}
	const sms = schemas.ChannelSMS
	price, _ := list.Price(sms, "", 1, t.at) // of the campaign; each message is billed at the price of its country
	c := Campaign{
		Tenant: tenant.ID, State: schemas.StateSending, Hidden: true, Region: tenant.Region, Currency: tenant.Currency,
		Spec: Spec{Name: "single sends " + day, Chain: []schemas.Channel{sms}, MaxSegments: tenant.MaxSegments},
		Legs: []Leg{{Channel: sms, Route: tenant.DefaultRoute, Sender: tenant.DefaultSender, Price: price, MaxHandovers: 1}},
		// It is created in the state that other campaigns reach after confirm.
		Confirmed: t.at, Started: t.at, CreatedBy: "singles",
	}
	if err := t.insert(ctx, &c, day); err != nil {
		return Campaign{}, err
	}
	return c, t.event(ctx, &c, schemas.StateUnspecified, schemas.TriggerCreate, Cause{Actor: schemas.ActorUser, By: "singles"})
}

// dayFormat of the UTC day of single sends.
const dayFormat = "2006-01-02"

// LeaseSeqs gives the caller n seqs of the hidden campaign that holds the single sends of a tenant on a UTC day. The
// caller must not send a message of the block before the campaign's record with the new total is published: see
// [Lease].
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
		// The lock makes leases of one tenant take turns; otherwise two could both create the campaign of the day.
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

// sliceShare limits a slice of credit to an eighth of the available credit, so that several API processes can each hold
// a slice.
const sliceShare = 8

// LeaseCredit reserves money for the single sends of a hidden campaign. A process takes one slice for many messages, so
// that not every send writes the campaign. The slice is at most want, and at most an eighth of the available credit,
// but at least need; when the credit does not cover need, the error is a [CreditError]. The process returns the money
// that it does not spend with [Store.ReturnCredit]. After a crash, the money is released when the campaign settles.
func (s *Store) LeaseCredit(ctx context.Context, tenant, campaign string, need, want uint64) (micros uint64, err error) {
	if need == 0 {
		return 0, nil
	}
	err = s.write(ctx, func(tx *tx) error {
		c, row, err := tx.openHidden(ctx, tenant, campaign)
		if err != nil {
			return err
		}
		r, err := tx.GetBalance(ctx, tenant)
		if err != nil {
			return found(err, "tenant", tenant)
		}
		micros = max(need, want)
		if have := balanceOf(r); !have.Unlimited {
			micros = max(need, min(want, have.Available/sliceShare))
		}
		if err := tx.reserve(ctx, &c, micros); err != nil {
			return err
		}
		return tx.save(ctx, &c, uint64(row.Version))
	})
	return micros, err
}

// ReturnCredit releases credit that a process has leased for a hidden campaign and has not spent. It releases at most
// the campaign's reservation, because a campaign that has settled meanwhile has released everything.
func (s *Store) ReturnCredit(ctx context.Context, tenant, campaign string, micros uint64) error {
	return s.write(ctx, func(tx *tx) error {
		if _, err := tx.LockBalance(ctx, tenant); err != nil {
			return err
		}
		row, err := campaignRow(ctx, tx.Queries, tenant, campaign)
		if err != nil {
			return err
		}
		c := campaignOf(row)
		if err := tx.release(ctx, &c, min(micros, c.Reserved)); err != nil {
			return err
		}
		if c.Reserved == uint64(row.Reserved) {
			return nil
		}
		return tx.save(ctx, &c, uint64(row.Version))
	})
}

// openHidden locks the tenant's balance and reads a campaign that can still take messages. It locks first, so that
// leases of one tenant take turns and each reads the row that the one before wrote.
func (t *tx) openHidden(ctx context.Context, tenant, campaign string) (Campaign, db.Campaign, error) {
	if _, err := t.LockBalance(ctx, tenant); err != nil {
		return Campaign{}, db.Campaign{}, err
	}
	row, err := campaignRow(ctx, t.Queries, tenant, campaign)
	if err != nil {
		return Campaign{}, db.Campaign{}, err
	}
	c := campaignOf(row)
	if schemas.Terminal(c.State) {
		return Campaign{}, db.Campaign{}, &StateError{State: c.State, To: c.State, Trigger: schemas.TriggerDeal}
	}
	return c, row, nil
}
