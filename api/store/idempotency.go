package store

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"fanfare/api/store/db"
)

// keyLife is how long an idempotency key is remembered.
const keyLife = 24 * time.Hour

// keyAbandoned is how old a claim without a reservation must be before its owner counts as dead. It is longer than any
// request takes. A key with a reservation is not taken over, because the reserved messages may have been sent.
const keyAbandoned = 2 * time.Minute

const maxKey = 255

// Begin claims an idempotency key of a tenant and route for a body (X12). Exactly one caller gets [ClaimNew].
func (s *Store) Begin(ctx context.Context, tenant, route, key string, bodyHash []byte) (Claim, error) {
	if key == "" || len(key) > maxKey {
		return Claim{}, &FieldError{"Idempotency-Key", "", fmt.Sprintf("want 1 to %d bytes", maxKey)}
	}
	claim := Claim{Tenant: tenant, Route: route, Key: key}
	err := s.write(ctx, func(tx *tx) error {
		claim.State, claim.token = ClaimNew, 1
		n, err := tx.BeginKey(ctx, db.BeginKeyParams{Tenant: tenant, Route: route, Key: key, BodyHash: bodyHash, Now: tx.now})
		if err != nil || n == 1 {
			return err
		}
		row, err := tx.GetIdempotency(ctx, tenant, route, key)
		if err != nil {
			return err
		}
		return claim.take(ctx, tx, row, bodyHash)
	})
	if err != nil {
		return Claim{}, fmt.Errorf("idempotency key: %w", err)
	}
	return claim, nil
}

// take decides about a key that was used before.
func (c *Claim) take(ctx context.Context, tx *tx, row db.Idempotency, bodyHash []byte) error {
	c.token = row.Token
	same, hasChanged := bytes.Equal(row.BodyHash, bodyHash), bytes.Equal(row.Reserved, changed)
	switch age := tx.now - row.UpdatedMs; {
	case tx.now-row.CreatedMs > keyLife.Milliseconds() && (row.Done || row.Reserved == nil || hasChanged):
		// With reserved ids, the messages may have been sent
		n, err := tx.RenewKey(ctx, db.RenewKeyParams{
			BodyHash: bodyHash, Now: tx.now, Tenant: c.Tenant, Route: c.Route, Key: c.Key, Token: row.Token,
		})
		return c.taken(n, err)
	case !same:
		c.State = ClaimMismatch
	case row.Done:
		c.State, c.Status, c.Response, c.Reserved = ClaimReplay, int(row.Status), row.Response, row.Reserved
	case row.Reserved == nil && age > keyAbandoned.Milliseconds():
		n, err := tx.TakeKey(ctx, db.TakeKeyParams{Now: tx.now, Tenant: c.Tenant, Route: c.Route, Key: c.Key, Token: row.Token})
		return c.taken(n, err)
	case hasChanged && age > keyAbandoned.Milliseconds():
		c.State = ClaimUnknown
	default:
		c.State, c.Reserved = ClaimInFlight, row.Reserved
	}
	return nil
}

// changed is stored as the reservation of a key whose request has changed something: see [WithClaim].
var changed = []byte("\x00changed")

type claimKey struct{}

// WithClaim returns a context under which every saved change is noted at the key, in the same transaction. So when a
// request ends without an answer, because the process or the database died, a second request with its key runs only if
// the first has changed nothing.
func WithClaim(ctx context.Context, c Claim) context.Context {
	return context.WithValue(ctx, claimKey{}, c)
}

// noteChange notes at the key of ctx that the transaction changes something. It fails when another request has taken
// the key over.
func (t *tx) noteChange(ctx context.Context) error {
	c, ok := ctx.Value(claimKey{}).(Claim)
	if !ok {
		return nil
	}
	result, err := t.raw.ExecContext(ctx, `UPDATE idempotency SET reserved = ?1, updated_ms = ?2
WHERE tenant = ?3 AND route = ?4 AND key = ?5 AND token = ?6 AND NOT done`, changed, t.now, c.Tenant, c.Route, c.Key, c.token)
	if err != nil {
		return fmt.Errorf("note change at the idempotency key: %w", err)
	}
	n, err := result.RowsAffected()
	return one(n, err, "idempotency key", uint64(c.token))
}

func (c *Claim) taken(rows int64, err error) error {
	if rows == 1 {
		c.State = ClaimNew
		c.token++
	} else {
		c.State = ClaimInFlight // another request claimed the key first
	}
	return err
}

// ReserveIDs stores at a claimed key the ids of the messages that are about to be produced. A request that uses the
// same key after a crash gets these ids and produces nothing.
func (s *Store) ReserveIDs(ctx context.Context, c Claim, ids []byte) error {
	return s.onClaim(ctx, c, "reserve", func(tx *tx) (int64, error) {
		return tx.ReserveKey(ctx, db.ReserveKeyParams{
			Reserved: ids, UpdatedMs: tx.now, Tenant: c.Tenant, Route: c.Route, Key: c.Key, Token: c.token,
		})
	})
}

// Finish stores the answer that every later use of the key gets.
func (s *Store) Finish(ctx context.Context, c Claim, status int, response []byte) error {
	return s.onClaim(ctx, c, "finish", func(tx *tx) (int64, error) {
		return tx.FinishKey(ctx, db.FinishKeyParams{
			Status: int64(status), Response: response, UpdatedMs: tx.now, Tenant: c.Tenant, Route: c.Route, Key: c.Key, Token: c.token,
		})
	})
}

// Forget frees a claimed key whose request failed without effect, so that the client can repeat the request with the
// same key.
func (s *Store) Forget(ctx context.Context, c Claim) error {
	return s.onClaim(ctx, c, "forget", func(tx *tx) (int64, error) {
		return tx.ForgetKey(ctx, db.ForgetKeyParams{Tenant: c.Tenant, Route: c.Route, Key: c.Key, Token: c.token})
	})
}

func (s *Store) onClaim(ctx context.Context, c Claim, what string, do func(*tx) (int64, error)) error {
	err := s.write(ctx, func(tx *tx) error {
		n, err := do(tx)
		return one(n, err, "idempotency key", uint64(c.token))
	})
	if err != nil {
		return fmt.Errorf("%s idempotency key: %w", what, err)
	}
	return nil
}
