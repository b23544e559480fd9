package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"fanfare/api/store/db"
)

// IDKey returns the secret that signs the ids of this installation, in hexadecimal. The first call creates it; every
// process of the installation gets the same. The tables must exist: see [Migrate].
func IDKey(ctx context.Context, cfg Config) (string, error) {
	s, err := Open(ctx, cfg) // opened without an id key, which only a full store needs
	if err != nil {
		return "", err
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	var key string
	err = s.d.transact(ctx, func(tx db.DBTX) error {
		q := db.New(tx)
		if err := q.PutInstallation(ctx, "id_key", hex.EncodeToString(secret)); err != nil {
			return err
		}
		key, err = q.GetInstallation(ctx, "id_key")
		return err
	})
	if err = errors.Join(err, s.Close()); err != nil {
		return "", fmt.Errorf("key of ids: %w", err)
	}
	return key, nil
}
