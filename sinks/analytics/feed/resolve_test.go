package feed

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// staleView is a view that has no campaigns and never becomes newer.
type staleView struct{}

func (staleView) Campaign(string) *fanfarev1.Campaign { return nil }
func (staleView) Age() time.Duration                  { return time.Hour }
func (staleView) Changed() <-chan struct{}            { return nil }

// The resolver finds a campaign that has left its topic in the store, without waiting for the view. A rebuild needs
// thousands of such campaigns.
func TestLookupComesBeforeTheWait(t *testing.T) {
	const number = 10_001
	asked := 0
	r := newResolver(Config{Campaigns: staleView{}, Now: time.Now, Lookup: func(_ context.Context, id string) (*fanfarev1.Campaign, error) {
		asked++
		return &fanfarev1.Campaign{Id: id, Tenant: "tn_a", ConfirmedMs: 1}, nil
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for range 3 {
		c, err := r.resolve(ctx, envelope{number: number, campaign: schemas.CampaignID(number), tenant: "tn_a"}, time.Now())
		if err != nil || c.Tenant != "tn_a" {
			t.Fatalf("got %+v, %v, want the campaign of the store", c, err)
		}
	}
	if asked != 1 {
		t.Errorf("the store was asked %d times, want once", asked)
	}
}

// If the store is away, the resolver waits once and for a short time. It does not wait for the view as well, and does
// not ask the store again for each event.
func TestStoreAwayIsNotAskedForEachEvent(t *testing.T) {
	for name, lookup := range map[string]func(context.Context) error{
		"it refuses": func(context.Context) error { return errors.New("connection refused") },
		"it hangs":   func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const number = 10_001
				asked, away := 0, true
				r := newResolver(Config{Campaigns: staleView{}, Now: time.Now, Lookup: func(ctx context.Context, id string) (*fanfarev1.Campaign, error) {
					asked++
					if away {
						return nil, lookup(ctx)
					}
					return &fanfarev1.Campaign{Id: id, Tenant: "tn_a", ConfirmedMs: 1}, nil
				}})
				event := envelope{number: number, campaign: schemas.CampaignID(number), tenant: "tn_a"}
				began := time.Now()
				for range 1000 {
					if _, err := r.resolve(t.Context(), event, began); err == nil || errors.Is(err, errCampaign) {
						t.Fatalf("got %v, want an error that passes", err)
					}
				}
				if took := time.Since(began); asked != 1 || took > lookupPatience {
					t.Errorf("asked %d times in %s, want once, in %s at most", asked, took, lookupPatience)
				}
				away = false
				time.Sleep(lookupPause)
				if c, err := r.resolve(t.Context(), event, began); err != nil || c.Tenant != "tn_a" {
					t.Errorf("got %+v, %v once the store is back, want the campaign", c, err)
				}
			})
		})
	}
}
