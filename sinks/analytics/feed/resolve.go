package feed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
)

// Campaigns is the process's view of the control plane; *view.View implements it.
type Campaigns interface {
	// Campaign returns nil if the view does not have the campaign.
	Campaign(id string) *fanfarev1.Campaign
	// Age is how long ago the view was last known to be complete.
	Age() time.Duration
	// Changed returns a channel that is closed when the view changes.
	Changed() <-chan struct{}
}

// errCampaign means that an event's campaign does not exist.
var errCampaign = errors.New("campaign does not exist")

// errTenant means that an event names another tenant than its campaign.
var errTenant = errors.New("tenant is not that of the campaign")

// resolver finds tenant and month of a campaign. It remembers its answers, because neither changes once messages are
// sent.
type resolver struct {
	view   Campaigns
	lookup func(ctx context.Context, id string) (*fanfarev1.Campaign, error)
	now    func() time.Time

	known   map[uint64]*analytics.Campaign
	unknown map[uint64]time.Time // time at which the campaign did not exist
	last    *analytics.Campaign
	lastNo  uint64

	askAgain time.Time // when to ask the store again after it did not answer
}

// maxResolved is how many campaigns the resolver remembers.
const maxResolved = 20_000

func newResolver(cfg Config) *resolver {
	return &resolver{view: cfg.Campaigns, lookup: cfg.Lookup, now: cfg.Now, known: map[uint64]*analytics.Campaign{}, unknown: map[uint64]time.Time{}}
}

// resolve returns the campaign of an event that was fetched at the given time. It waits while the view may still
// receive the campaign. An error other than errCampaign and errTenant is temporary.
func (r *resolver) resolve(ctx context.Context, env envelope, fetched time.Time) (*analytics.Campaign, error) {
	c := r.last
	if c == nil || r.lastNo != env.number {
		if c = r.known[env.number]; c == nil {
			var err error
			if c, err = r.find(ctx, env, fetched); err != nil {
				return nil, err
			}
		}
		r.last, r.lastNo = c, env.number
	}
	if c.ID != env.campaign || c.Tenant != env.tenant {
		// Such an event counts neither for the tenant that it names nor for the campaign's tenant (P7).
		return nil, fmt.Errorf("%w: event of %s names tenant %q", errTenant, c.ID, env.tenant)
	}
	return c, nil
}

func (r *resolver) find(ctx context.Context, env envelope, fetched time.Time) (*analytics.Campaign, error) {
	id := schemas.CampaignID(env.number)
	if at, ok := r.unknown[env.number]; ok && at.After(fetched) {
		return nil, fmt.Errorf("%w: %s", errCampaign, id)
	}
	row := r.view.Campaign(id)
	if row == nil && r.lookup != nil {
		// A campaign leaves its topic a week after it settled. Late receipts and rebuilds need it after that, so ask
		// the store before waiting for the view.
		var err error
		if row, err = r.ask(ctx, id); err != nil && !errors.Is(err, schemas.ErrNotFound) {
			return nil, fmt.Errorf("look up %s: %w", id, err)
		}
	}
	if row == nil {
		var err error
		if row, err = r.await(ctx, id); err != nil {
			return nil, err
		}
	}
	if len(r.known)+len(r.unknown) >= maxResolved {
		clear(r.known)
		clear(r.unknown)
	}
	month, ok := monthOf(row)
	if !ok {
		r.unknown[env.number] = r.now()
		return nil, fmt.Errorf("%w: %s", errCampaign, id)
	}
	c := &analytics.Campaign{Tenant: row.GetTenant(), ID: id, Month: month}
	r.known[env.number] = c
	delete(r.unknown, env.number)
	return c, nil
}

// lookupPatience is how long one question to the store may take: all partitions wait for the answer. If the store does
// not answer, the resolver does not ask it again for lookupPause.
const (
	lookupPatience = time.Second
	lookupPause    = 2 * time.Second
)

// errStoreAway means that the store did not answer a moment ago.
var errStoreAway = errors.New("store did not answer; it is asked again shortly")

// ask reads a campaign from the store.
func (r *resolver) ask(ctx context.Context, id string) (*fanfarev1.Campaign, error) {
	if r.now().Before(r.askAgain) {
		return nil, errStoreAway
	}
	ctx, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	row, err := r.lookup(ctx, id)
	if err != nil && !errors.Is(err, schemas.ErrNotFound) {
		r.askAgain = r.now().Add(lookupPause)
	}
	return row, err
}

// monthOf returns the month in which a campaign was confirmed, or created if it is of a kind that is never confirmed.
func monthOf(row *fanfarev1.Campaign) (time.Time, bool) {
	at := row.GetConfirmedMs()
	if at == 0 {
		at = row.GetCreatedMs()
	}
	if row.GetTenant() == "" || at == 0 {
		return time.Time{}, false
	}
	return analytics.MonthOf(time.UnixMilli(at)), true
}

// await returns the campaign from the view, or nil if the view is newer than the question and does not have it.
func (r *resolver) await(ctx context.Context, id string) (*fanfarev1.Campaign, error) {
	asked := r.now()
	for {
		changed := r.view.Changed()
		if row := r.view.Campaign(id); row != nil {
			return row, nil
		}
		if r.now().Add(-r.view.Age()).After(asked) {
			return nil, nil
		}
		// The view's age can become smaller without a change of the view. Polling at this interval adds little to the
		// delay of the view.
		timer := time.NewTimer(50 * time.Millisecond)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-changed:
			timer.Stop()
		case <-timer.C:
		}
	}
}
