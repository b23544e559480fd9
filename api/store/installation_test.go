package store_test

import (
	"path/filepath"
	"sync"
	"testing"

	"fanfare/api/store"
)

// Processes that start at the same moment agree on one key, and a later one finds it.
func TestIDKeyIsMadeOnce(t *testing.T) {
	cfg := store.Config{DSN: filepath.Join(t.TempDir(), "store.db")}
	if err := store.Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	keys := make([]string, 4)
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = store.IDKey(t.Context(), cfg); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k != keys[0] || len(k) != 64 {
			t.Errorf("got key of %d characters, want one key of 64 for all", len(k))
		}
	}
}
