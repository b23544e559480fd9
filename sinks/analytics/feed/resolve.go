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

// Campaigns is the control plane as this process knows it; *stream.View is one.
type Campaigns interface {
	// Campaign returns nil when the campaign is not known.
	Campaign(id string) *fanfarev1.Campaign
	// Age is the time since everything that was published is known to have been read.
	Age() time.Duration
	// Changed returns a channel that is closed at the next change.
	Changed() <-chan struct{}
}

// errCampaign: nobody knows the campaign of an event.
var errCampaign = errors.New("no such campaign")

// errTenant: an event names another tenant than its campaign's.
var errTenant = errors.New("not the campaign's tenant")

// resolver says whose a campaign is. What it has said once it says again: a campaign changes neither tenant nor month once
// something is sent.
type resolver struct {
	view   Campaigns
	lookup func(ctx context.Context, id string) (*fanfarev1.Campaign, error)
	now    func() time.Time

	known   map[uint64]*analytics.Campaign
	unknown map[uint64]time.Time // not there at that time
	last    *analytics.Campaign
	lastNo  uint64

	askAgain time.Time // the store, which gave no answer
}

// maxResolved bounds what is remembered.
const maxResolved = 20_000

func newResolver(cfg Config) *resolver {
	return &resolver{view: cfg.Campaigns, lookup: cfg.Lookup, now: cfg.Now, known: map[uint64]*analytics.Campaign{}, unknown: map[uint64]time.Time{}}
}

// resolve returns the campaign of an event that was fetched at the given time. It waits while the answer may still be on its
// way here; an error that is neither errCampaign nor errTenant is temporary.
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
		// Whoever wrote it, it is not counted anywhere: neither with the tenant it names nor with the campaign's.
		return nil, fmt.Errorf("%w: an event of %s names tenant %q", errTenant, c.ID, env.tenant)
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
		// Campaigns leave the topic a week after they settled; receipts may come later still, and a rebuild asks for all of them,
		// so the store is asked before the view is waited for.
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

// How long the store may take to answer, and how long it is left alone after it did not: all partitions wait for the answer.
const (
	lookupPatience = time.Second
	lookupPause    = 2 * time.Second
)

// errStoreAway: the store gave no answer a moment ago.
var errStoreAway = errors.New("the store gave no answer and is not asked again yet")

// ask looks a campaign up in the store.
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

// monthOf returns the month of a campaign: that of its confirmation, or of its creation where nobody confirms.
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

// await returns the campaign from the view, nil once the view is known to be newer than the question and does not have it.
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
		// Age shrinks without a change; it is looked at often enough to be no delay beside that of the view.
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
