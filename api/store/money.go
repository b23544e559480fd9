package store

import (
	"context"
	"database/sql"
	"fmt"

	"fanfare/api/store/db"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// maxMicros keeps sums far from where they would overflow: nine million million of a currency.
const maxMicros = 9e18

// Prices returns what a tenant pays per channel.
func (s *Store) Prices(ctx context.Context, tenant string) (Prices, error) {
	return prices(ctx, s.q, tenant)
}

func prices(ctx context.Context, q *db.Queries, tenant string) (Prices, error) {
	rows, err := q.ListPrices(ctx, tenant)
	if err != nil {
		return nil, fmt.Errorf("prices: %w", err)
	}
	if len(rows) == 0 {
		return nil, notFound("tenant", tenant)
	}
	out := Prices{}
	for _, r := range rows {
		out[fanfarev1.Channel(r.Channel)] = uint64(r.Micros)
	}
	return out, nil
}

// SetPrice sets the price of a channel. What is confirmed already keeps the price it was confirmed at.
func (s *Store) SetPrice(ctx context.Context, tenant string, channel fanfarev1.Channel, micros uint64) error {
	if _, ok := fanfarev1.Channel_name[int32(channel)]; !ok || channel == 0 {
		return &FieldError{"Channel", channel.String(), "want sms, rcs, whatsapp or voice"}
	}
	if micros > schemas.MaxPriceMicros {
		return &FieldError{"Micros", fmt.Sprint(micros), fmt.Sprintf("want at most %d, millionths of the currency for a segment", uint64(schemas.MaxPriceMicros))}
	}
	return s.write(ctx, func(tx *tx) error {
		if _, err := tx.GetTenant(ctx, tenant); err != nil {
			return found(err, "tenant", tenant)
		}
		return tx.SetPrice(ctx, db.SetPriceParams{Tenant: tenant, Channel: int64(channel), Micros: int64(micros), UpdatedMs: tx.now})
	})
}

// Balance returns a tenant's money.
func (s *Store) Balance(ctx context.Context, tenant string) (Balance, error) {
	r, err := s.q.GetBalance(ctx, tenant)
	return balanceOf(r), found(err, "tenant", tenant)
}

func balanceOf(r db.Balance) Balance {
	return Balance{
		Unlimited: !r.Available.Valid, Available: uint64(r.Available.Int64), Reserved: uint64(r.Reserved), Captured: uint64(r.Captured),
	}
}

// TopUp adds to a tenant's balance. To a tenant of unlimited credit it only makes an entry.
func (s *Store) TopUp(ctx context.Context, tenant string, micros uint64, note string) (Balance, error) {
	if micros == 0 || micros > maxMicros {
		return Balance{}, &FieldError{"Micros", fmt.Sprint(micros), "want more than 0"}
	}
	var out Balance
	err := s.write(ctx, func(tx *tx) error {
		if err := tx.move(ctx, tenant, 0, AccountOutside, AccountAvailable, micros, note); err != nil {
			return err
		}
		r, err := tx.GetBalance(ctx, tenant)
		out = balanceOf(r)
		return err
	})
	return out, err
}

// SetCredit makes a tenant's credit unlimited, or limits it to what is given from now on. While something is reserved that was not
// paid from a limited credit it is [ErrReserved]: what is left of it would come back as credit that nobody gave.
func (s *Store) SetCredit(ctx context.Context, tenant string, micros uint64, unlimited bool) error {
	if micros > maxMicros {
		return &FieldError{"Micros", fmt.Sprint(micros), "too large"}
	}
	return s.write(ctx, func(tx *tx) error {
		if _, err := tx.LockBalance(ctx, tenant); err != nil {
			return found(err, "tenant", tenant)
		}
		r, err := tx.GetBalance(ctx, tenant)
		if err != nil {
			return found(err, "tenant", tenant)
		}
		if have := balanceOf(r); have.Unlimited && !unlimited && have.Reserved > 0 {
			return ErrReserved
		}
		// The entries go on adding up: what was there leaves, what is set comes in.
		if have := balanceOf(r); have.Available > 0 {
			if err := tx.move(ctx, tenant, 0, AccountAvailable, AccountOutside, have.Available, "credit set anew"); err != nil {
				return err
			}
		}
		if _, err := tx.SetAvailable(ctx, sql.NullInt64{Valid: !unlimited}, tenant); err != nil || unlimited || micros == 0 {
			return err
		}
		return tx.move(ctx, tenant, 0, AccountOutside, AccountAvailable, micros, "credit set anew")
	})
}

// Ledger returns movements of a tenant's money, oldest first; of one campaign, or of all with "".
func (s *Store) Ledger(ctx context.Context, tenant, campaign string, page Page) ([]LedgerEntry, error) {
	limit, offset := page.bounds()
	arg := db.ListLedgerParams{Tenant: tenant, Max: limit, Skip: offset}
	if campaign != "" {
		row, err := campaignRow(ctx, s.q, tenant, campaign)
		if err != nil {
			return nil, err
		}
		arg.Campaign = row.Number
	}
	rows, err := s.q.ListLedger(ctx, arg)
	return all(rows, err, func(r db.Ledger) LedgerEntry {
		return LedgerEntry{
			ID: uint64(r.ID), Tenant: r.Tenant, Campaign: uint64(r.Campaign), From: Account(r.FromAccount), To: Account(r.ToAccount),
			Micros: uint64(r.Micros), Note: r.Note, Time: fromMS(r.TimeMs),
		}
	})
}

// Reserve sets more money aside for a campaign: for the single sends of a tenant whose credit is limited. It is
// [ErrNoCredit] when the balance does not cover it.
func (s *Store) Reserve(ctx context.Context, tenant, campaign string, micros uint64) error {
	if micros == 0 {
		return nil
	}
	return s.write(ctx, func(tx *tx) error {
		// First of all: sends of one tenant take turns, and each finds the row as the one before left it.
		if _, err := tx.LockBalance(ctx, tenant); err != nil {
			return err
		}
		row, err := campaignRow(ctx, tx.Queries, tenant, campaign)
		if err != nil {
			return err
		}
		c := campaignOf(row)
		if schemas.Terminal(c.State) {
			return &StateError{State: c.State, To: c.State, Trigger: schemas.TriggerDeal}
		}
		if err := tx.reserve(ctx, &c, micros); err != nil {
			return err
		}
		return tx.save(ctx, &c, uint64(row.Version))
	})
}

// move is one entry of the ledger, and both balances it changes. What leaves available must be there, unless credit is unlimited.
func (t *tx) move(ctx context.Context, tenant string, campaign uint64, from, to Account, micros uint64, note string) error {
	if micros > maxMicros {
		return &CreditError{Need: micros}
	}
	arg := db.MoveBalanceParams{Tenant: tenant}
	for account, by := range map[Account]int64{from: -int64(micros), to: int64(micros)} {
		switch account {
		case AccountAvailable:
			arg.Available = by
		case AccountReserved:
			arg.Reserved = by
		case AccountCaptured:
			arg.Captured = by
		case AccountOutside:
		}
	}
	n, err := t.MoveBalance(ctx, arg)
	if isCheck(err) {
		return fmt.Errorf("%d micros from %s to %s: %w", micros, from, to, ErrNoCredit)
	}
	if err != nil {
		return fmt.Errorf("move %d micros from %s to %s: %w", micros, from, to, err)
	}
	if n != 1 {
		return notFound("tenant", tenant)
	}
	return t.InsertLedger(ctx, db.InsertLedgerParams{
		Tenant: tenant, Campaign: int64(campaign), FromAccount: string(from), ToAccount: string(to), Micros: int64(micros), Note: note, TimeMs: t.now,
	})
}

// reserve sets money aside for a campaign and notes it in c, which the caller saves.
func (t *tx) reserve(ctx context.Context, c *Campaign, micros uint64) error {
	if micros == 0 {
		return nil
	}
	// Locks the row first: two who read the same balance would both think that it is enough, and on Postgres a failed check
	// ends the transaction before it can be said what is missing.
	if _, err := t.LockBalance(ctx, c.Tenant); err != nil {
		return err
	}
	r, err := t.GetBalance(ctx, c.Tenant)
	if err != nil {
		return found(err, "tenant", c.Tenant)
	}
	if have := balanceOf(r); !have.Unlimited && have.Available < micros {
		return &CreditError{Need: micros, Have: have.Available}
	}
	if err := t.move(ctx, c.Tenant, c.Number, AccountAvailable, AccountReserved, micros, "reserve"); err != nil {
		return err
	}
	c.Reserved += micros
	return nil
}

// capture bills a campaign up to a running total. More than was reserved is taken from the balance as far as that goes; what
// it does not cover is not billed, for the balance must not fall below zero, and is returned.
func (t *tx) capture(ctx context.Context, c *Campaign, total uint64) (unbilled uint64, err error) {
	if total <= c.Captured {
		return 0, nil // an older figure, or the same again
	}
	due := total - c.Captured
	if missing := due - min(due, c.Reserved); missing > 0 {
		if _, err := t.LockBalance(ctx, c.Tenant); err != nil {
			return 0, err
		}
		r, err := t.GetBalance(ctx, c.Tenant)
		if err != nil {
			return 0, found(err, "tenant", c.Tenant)
		}
		if have := balanceOf(r); !have.Unlimited && have.Available < missing {
			unbilled = missing - have.Available
			missing = have.Available
		}
		if err := t.reserve(ctx, c, missing); err != nil {
			return 0, err
		}
	}
	due = min(due, c.Reserved)
	if due == 0 {
		return unbilled, nil
	}
	if err := t.move(ctx, c.Tenant, c.Number, AccountReserved, AccountCaptured, due, "capture"); err != nil {
		return 0, err
	}
	c.Reserved -= due
	c.Captured += due
	return unbilled, nil
}

// releaseAll gives back what is still reserved for a campaign.
func (t *tx) releaseAll(ctx context.Context, c *Campaign) error {
	if c.Reserved == 0 {
		return nil
	}
	if err := t.move(ctx, c.Tenant, c.Number, AccountReserved, AccountAvailable, c.Reserved, "release"); err != nil {
		return err
	}
	c.Reserved = 0
	return nil
}
