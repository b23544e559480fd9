package feed

import (
	"context"
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// staleView knows nothing and never becomes newer.
type staleView struct{}

func (staleView) Campaign(string) *fanfarev1.Campaign { return nil }
func (staleView) Age() time.Duration                  { return time.Hour }
func (staleView) Changed() <-chan struct{}            { return nil }

// A campaign that has left its topic is found in the store without waiting for the view: a rebuild meets a thousand of them.
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
