package store

import (
	"context"
	"database/sql"
	"fmt"
	"math"

	"fanfare/api/store/db"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/pricing"
)

// maxMicros is the largest amount, nine million million units of a currency. It keeps sums from overflowing an int64.
const maxMicros = 9e18

// Prices returns a tenant's price list: a price for each channel, and the rows for single countries and volumes.
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
	out, err := priceRules(ctx, q, tenant)
	for _, r := range rows {
		out = append(out, pricing.Rule{Channel: schemas.Channel(r.Channel), Micros: uint64(r.Micros)})
	}
	return out, err
}

// SetPrice sets the price of a channel. Confirmed campaigns keep the price that they were confirmed at.
func (s *Store) SetPrice(ctx context.Context, tenant string, channel schemas.Channel, micros uint64) error {
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
		Owed: uint64(r.Owed),
	}
}

// TopUp adds to a tenant's balance; the tenant's debt is paid from it first. When the debt is paid, campaigns that were
// suspended for lack of credit are resumed. With unlimited credit it only adds an entry to the ledger.
func (s *Store) TopUp(ctx context.Context, tenant string, micros uint64, note string) (Balance, error) {
	if micros == 0 || micros > maxMicros {
		return Balance{}, &FieldError{"Micros", fmt.Sprint(micros), "want more than 0"}
	}
	var out Balance
	err := s.writeMoves(ctx, func(tx *tx) error {
		if err := tx.move(ctx, tenant, 0, AccountOutside, AccountAvailable, micros, note); err != nil {
			return err
		}
		if err := tx.payOwed(ctx, tenant); err != nil {
			return err
		}
		if err := tx.resumePaid(ctx, tenant); err != nil {
			return err
		}
		r, err := tx.GetBalance(ctx, tenant)
		out = balanceOf(r)
		return err
	})
	return out, err
}

// SetCredit makes a tenant's credit unlimited, or limits it to an amount. Limiting an unlimited credit while money is
// reserved returns [ErrReserved], because the release of that money would add credit that was never paid.
func (s *Store) SetCredit(ctx context.Context, tenant string, micros uint64, unlimited bool) error {
	if micros > maxMicros {
		return &FieldError{"Micros", fmt.Sprint(micros), "too large"}
	}
	return s.writeMoves(ctx, func(tx *tx) error {
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
		// Two entries keep the ledger balanced: the old amount leaves, the new one comes in.
		if have := balanceOf(r); have.Available > 0 {
			if err := tx.move(ctx, tenant, 0, AccountAvailable, AccountOutside, have.Available, "credit set"); err != nil {
				return err
			}
		}
		if _, err := tx.SetAvailable(ctx, sql.NullInt64{Valid: !unlimited}, tenant); err != nil {
			return err
		}
		if unlimited {
			if err := tx.AddOwed(ctx, -r.Owed, tenant); err != nil {
				return err
			}
			return tx.resumePaid(ctx, tenant)
		}
		if micros == 0 {
			return nil
		}
		return tx.move(ctx, tenant, 0, AccountOutside, AccountAvailable, micros, "credit set")
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
	return all(rows, err, ledgerOf)
}

func ledgerOf(r db.Ledger) LedgerEntry {
	return LedgerEntry{
		ID: uint64(r.ID), Tenant: r.Tenant, Campaign: uint64(r.Campaign), From: Account(r.FromAccount), To: Account(r.ToAccount),
		Micros: uint64(r.Micros), Note: r.Note, Time: fromMS(r.TimeMs),
	}
}

// LedgerFilter chooses movements of a tenant's money. Newest first.
type LedgerFilter struct {
	Page
	Campaign string // id, "": of all
	// Before continues at the entry before the one with this id, instead of at a page. 0: from the newest.
	Before uint64
}

// NewestLedger returns a page of movements of a tenant's money, newest first, and how many there are in all.
func (s *Store) NewestLedger(ctx context.Context, tenant string, f LedgerFilter) ([]LedgerEntry, int, error) {
	limit, offset := f.bounds()
	arg := db.NewestLedgerParams{Tenant: tenant, Below: math.MaxInt64, Max: limit, Skip: offset}
	if f.Campaign != "" {
		row, err := campaignRow(ctx, s.q, tenant, f.Campaign)
		if err != nil {
			return nil, 0, err
		}
		arg.Campaign = row.Number
	}
	if f.Before != 0 {
		arg.Below, arg.Skip = int64(min(f.Before, math.MaxInt64)), 0
	}
	total, err := s.q.CountLedger(ctx, tenant, arg.Campaign)
	if err != nil {
		return nil, 0, fmt.Errorf("count the ledger: %w", err)
	}
	rows, err := s.q.NewestLedger(ctx, arg)
	out, err := all(rows, err, ledgerOf)
	if err != nil {
		return nil, 0, fmt.Errorf("ledger: %w", err)
	}
	return out, int(total), nil
}

// move writes one entry of the ledger and changes both accounts. Available never falls below zero, unless credit is
// unlimited.
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

// reserve reserves money for a campaign and adds it to c.Reserved. The caller saves c.
func (t *tx) reserve(ctx context.Context, c *Campaign, micros uint64) error {
	if micros == 0 {
		return nil
	}
	// Locks the row first: two transactions could both read a balance that is enough for one of them. The CHECK of the
	// table would refuse the second one, but on Postgres that ends the transaction before the missing amount can be
	// read.
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

// capture bills a campaign up to a running total. It takes the money from the reservation and then from the balance. It
// returns the amount that neither covers; that amount is not billed, because the balance must not fall below zero.
func (t *tx) capture(ctx context.Context, c *Campaign, total uint64) (unbilled uint64, err error) {
	if total <= c.Captured {
		return 0, nil // an older total, or the same one
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

// releaseAll releases everything that is still reserved for a campaign.
func (t *tx) releaseAll(ctx context.Context, c *Campaign) error { return t.release(ctx, c, c.Reserved) }

// release releases a part of a campaign's reservation and subtracts it from c.Reserved. The caller saves c.
func (t *tx) release(ctx context.Context, c *Campaign, micros uint64) error {
	if micros == 0 {
		return nil
	}
	if err := t.move(ctx, c.Tenant, c.Number, AccountReserved, AccountAvailable, micros, "release"); err != nil {
		return err
	}
	c.Reserved -= micros
	return t.payOwed(ctx, c.Tenant)
}
