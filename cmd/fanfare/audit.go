package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/api"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
	"fanfare/sinks/analytics/feed"
	"fanfare/sinks/analytics/sqlite"
	"fanfare/sinks/carrier/sim"
)

// auditSources count a campaign from the topics and from the record of the simulated carrier.
type auditSources struct{ w *wiring }

var _ api.Sources = auditSources{}

// Log implements [api.Sources]. It fills a temporary database without phone numbers, and removes it.
func (a auditSources) Log(ctx context.Context, tenant, campaign string) (_ *api.LogRecord, err error) {
	dir, err := os.MkdirTemp("", "fanfare-audit-")
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	fresh, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(dir, "log.db")})
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	defer func() { err = errors.Join(err, fresh.Close()) }()
	one := &oneCampaign{Store: fresh, id: campaign, dealt: roaring.New()}
	counted, err := feed.Rebuild(ctx, feed.Config{Cluster: a.w.cluster, Store: one, Campaigns: a.w.view, Lookup: a.w.store.CampaignRecord})
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	out := &api.LogRecord{Read: time.Now(), Dealt: one.dealt}
	out.Events, out.Deals, out.Refused, out.Newest = one.events, one.deals, uint64(counted.Refused), one.newest //nolint:gosec // a count
	if out.Sets, err = fresh.Sets(ctx, tenant, campaign); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	costs, err := fresh.Cost(ctx, tenant, campaign)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	flying, err := fresh.InFlight(ctx, tenant, campaign)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	out.Cost, out.InFlight = costs[campaign], flying[campaign]
	return out, nil
}

// oneCampaign stores the events and deals of one campaign, without personal data, and drops the others.
type oneCampaign struct {
	*sqlite.Store
	id string

	mu            sync.Mutex
	events, deals uint64
	dealt         *roaring.Bitmap
	newest        time.Time
}

// Append implements [analytics.Store].
func (o *oneCampaign) Append(ctx context.Context, batches ...analytics.Batch) error {
	kept := make([]analytics.Batch, len(batches))
	for i, b := range batches {
		kept[i] = analytics.Batch{Topic: b.Topic, Partition: b.Partition, First: b.First, End: b.End}
		for j := range b.Events {
			if e := b.Events[j]; e.Campaign != nil && e.Campaign.ID == o.id {
				e.To, e.ContactID, e.ProviderID, e.CustomerRef = "", 0, "", ""
				kept[i].Events = append(kept[i].Events, e)
			}
		}
		for _, d := range b.Deals {
			if d.Campaign != nil && d.Campaign.ID == o.id {
				kept[i].Deals = append(kept[i].Deals, d)
			}
		}
	}
	if err := o.Store.Append(ctx, kept...); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, b := range kept {
		o.events += uint64(len(b.Events))
		o.deals += uint64(len(b.Deals))
		for i := range b.Deals {
			o.dealt.Or(b.Deals[i].Members)
		}
		for i := range b.Events {
			if at := b.Events[i].Time(); at.After(o.newest) {
				o.newest = at
			}
		}
	}
	return nil
}

// Carrier implements [api.Sources].
func (a auditSources) Carrier(ctx context.Context, campaign string) (*api.CarrierRecord, error) {
	if a.w.cfg.CarrierSim != "" || !a.w.cfg.has("sender") {
		return nil, nil
	}
	number, err := schemas.CampaignNumber(campaign)
	if err != nil {
		return nil, err
	}
	out := &api.CarrierRecord{Accepted: roaring.New(), Delivered: roaring.New()}
	out.Owed, err = sim.OwedTo(filepath.Join(a.w.cfg.Data, simTruth), number, func(e *sim.Entry) error {
		if e.Outcome == sim.Accepted {
			out.Accepted.Add(e.Message.Seq())
			if e.Final().Class() == schemas.ClassPositive {
				out.Delivered.Add(e.Message.Seq())
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("the carrier's record: %w", err)
	}
	return out, nil
}
