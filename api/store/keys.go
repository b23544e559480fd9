package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"fanfare/api/store/db"
)

// Prefixes of secrets. They let secret scanners find a key that was committed to a repository.
const (
	liveSecret = "ff_live_"
	testSecret = "ff_test_"
)

// secretLetters is the length of a secret: 52 letters of 5 bits are 260 random bits. So many cannot be guessed or
// tabulated, so one round of SHA-256 protects a stored secret as well as a slow hash would, and costs half a
// microsecond for each request instead of 100 ms.
const secretLetters = 52

func hashSecret(secret string) []byte {
	h := sha256.Sum256([]byte(secret))
	return h[:]
}

func keyOf(r db.ApiKey) Key {
	k := Key{
		ID: r.ID, Tenant: r.Tenant, Name: r.Name, Hint: r.Hint, Test: r.Test, Version: uint64(r.Version),
		Created: fromMS(r.CreatedMs), Used: fromMS(r.UsedMs), Revoked: fromMS(r.RevokedMs),
	}
	for scope := range strings.FieldsSeq(r.Scopes) {
		k.Scopes = append(k.Scopes, Scope(scope))
	}
	return k
}

// CreateKey makes an API key with the scopes given, or all but admin when there are none, and returns its secret, which
// cannot be read again later.
func (s *Store) CreateKey(ctx context.Context, tenant, name string, scopes []Scope, test bool) (key Key, secret string, err error) {
	if len(scopes) == 0 {
		scopes = Scopes[:len(Scopes)-1]
	}
	texts := make([]string, 0, len(scopes))
	for _, scope := range Scopes { // in one order, each once
		if slices.Contains(scopes, scope) {
			texts = append(texts, string(scope))
		}
	}
	for _, scope := range scopes {
		if !slices.Contains(Scopes, scope) {
			return Key{}, "", &FieldError{"Scopes", string(scope), "want read, campaigns, confirm, contacts, send or admin"}
		}
	}
	if len(name) > 200 {
		return Key{}, "", &FieldError{"Name", "", "want at most 200 bytes"}
	}
	prefix := liveSecret
	if test {
		prefix = testSecret
	}
	secret = prefix + randomText(secretLetters)
	row := db.InsertKeyParams{
		ID: "key_" + randomText(16), Tenant: tenant, Name: name, Hint: secret[len(secret)-4:], Hash: hashSecret(secret),
		Scopes: strings.Join(texts, " "), Test: test,
	}
	err = s.write(ctx, func(tx *tx) error {
		if _, err := tx.GetTenant(ctx, tenant); err != nil {
			return found(err, "tenant", tenant)
		}
		row.CreatedMs = tx.now
		return tx.InsertKey(ctx, row)
	})
	if err != nil {
		return Key{}, "", fmt.Errorf("create key: %w", err)
	}
	return keyOf(db.ApiKey{
		ID: row.ID, Tenant: row.Tenant, Name: row.Name, Hint: row.Hint, Scopes: row.Scopes, Test: row.Test, Version: 1, CreatedMs: row.CreatedMs,
	}), secret, nil
}

// usedEvery is the precision of Key.Used: a key in steady use costs one write a minute.
const usedEvery = time.Minute

// Authenticate returns the key of a secret and its tenant, or [ErrNoKey].
func (s *Store) Authenticate(ctx context.Context, secret string) (Key, Tenant, error) {
	if !strings.HasPrefix(secret, liveSecret) && !strings.HasPrefix(secret, testSecret) {
		return Key{}, Tenant{}, ErrNoKey
	}
	// The secret is looked up by its hash: the duration of the look-up reveals something about hashes, and nothing
	// about secrets.
	row, err := s.q.KeyByHash(ctx, hashSecret(secret))
	if errors.Is(err, sql.ErrNoRows) || err == nil && row.RevokedMs > 0 {
		return Key{}, Tenant{}, ErrNoKey
	}
	if err != nil {
		return Key{}, Tenant{}, fmt.Errorf("look up key: %w", err)
	}
	t, err := s.Tenant(ctx, row.Tenant)
	if err != nil {
		return Key{}, Tenant{}, err
	}
	if !t.Enabled {
		return Key{}, Tenant{}, ErrNoKey
	}
	if now := s.now().UnixMilli(); now-row.UsedMs >= usedEvery.Milliseconds() {
		if err := s.write(ctx, func(tx *tx) error { return tx.KeyUsed(ctx, tx.now, row.ID) }); err != nil {
			// The request may go on
			s.log.WarnContext(ctx, "write of the last use of a key failed", "key", row.ID, "err", err)
		}
		row.UsedMs = now
	}
	return keyOf(row), t, nil
}

// Keys returns the keys of a tenant, oldest first, revoked ones too.
func (s *Store) Keys(ctx context.Context, tenant string) ([]Key, error) {
	rows, err := s.q.ListKeys(ctx, tenant)
	return all(rows, err, keyOf)
}

// RevokeKey revokes a key permanently. Revoking a revoked key changes nothing. want is the version
// that the caller has seen; 0: any.
func (s *Store) RevokeKey(ctx context.Context, tenant, id string, want uint64) error {
	return s.write(ctx, func(tx *tx) error {
		if want != 0 {
			rows, err := tx.ListKeys(ctx, tenant)
			if err != nil {
				return err
			}
			for i := range rows {
				if have := uint64(rows[i].Version); rows[i].ID == id && have != want {
					return &VersionError{"key", want, have}
				}
			}
		}
		n, err := tx.RevokeKey(ctx, tx.now, tenant, id)
		if err != nil || n == 1 {
			return err
		}
		if known, err := tx.KeyExists(ctx, tenant, id); err != nil || known == 1 {
			return err
		}
		return notFound("key", id)
	})
}
