package api

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fanfare/api/store"
)

// A store that says nothing holds a send up for three seconds, and those that wait behind it no longer.
func TestLeaseOfASilentStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := true
		leases := newSeqLeases(func(ctx context.Context, _ string, _ time.Time, n uint32) (store.Lease, error) {
			if silent {
				<-ctx.Done()
				return store.Lease{}, ctx.Err()
			}
			return store.Lease{Campaign: 10_001, First: 1, Count: n}, nil
		})
		began := time.Now()
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if _, err := leases.take(t.Context(), "tn_a", began, 1); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v, want a time-out", err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took > leasePatience {
			t.Errorf("the last one waited %s, want %s at most", took, leasePatience)
		}
		silent = false
		if got, err := leases.take(t.Context(), "tn_a", began, 2); err != nil || len(got) != 2 {
			t.Errorf("once the store is back: got %v, %v, want two numbers", got, err)
		}
	})
}
