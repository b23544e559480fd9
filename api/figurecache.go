package api

import (
	"context"
	"sync"
	"time"

	"fanfare/api/problem"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// analyticsTimeout is how long a query may take before the cached answer is returned instead.
const analyticsTimeout = 3 * time.Second

// maxFigures is the most cached answers.
const maxFigures = 10_000

// figureCache queries the analytics store and caches the answers. While the store does not answer, it returns the
// cached answers, whose as_of shows how old they are (P5).
type figureCache struct {
	store analytics.Store

	mu    sync.Mutex
	last  map[string]analytics.Stats // by tenant/campaign
	costs map[string]Money
	rows  map[string]rowCost
}

// rowCost is the cached cost of a campaign in a list, with the number of messages sent when it was read.
type rowCost struct {
	micros Money
	sent   uint64
	until  time.Time
}

func newFigureCache(st analytics.Store) *figureCache {
	return &figureCache{store: st, last: map[string]analytics.Stats{}, costs: map[string]Money{}, rows: map[string]rowCost{}}
}

// asOf returns the time up to which every event is counted; the zero time when the store does not answer.
func (f *figureCache) asOf(ctx context.Context) time.Time {
	ctx, cancel := context.WithTimeout(ctx, analyticsTimeout)
	defer cancel()
	at, err := f.store.AsOf(ctx)
	if err != nil {
		return time.Time{}
	}
	return at
}

// many returns the statistics of many campaigns. When the statistics do not answer, it returns those that it has kept;
// the campaigns of which it has none are missing.
func (f *figureCache) many(ctx context.Context, tenant string, campaigns []string) (map[string]analytics.Stats, time.Time, error) {
	if len(campaigns) == 0 {
		return nil, time.Time{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, analyticsTimeout)
	defer cancel()
	asOf, err := f.store.AsOf(ctx)
	var got map[string]analytics.Stats
	if err == nil {
		got, err = f.store.StatsMany(ctx, tenant, campaigns)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		all := make(map[string]analytics.Stats, len(campaigns))
		for _, id := range campaigns { // a campaign without events has no answer, and nothing happened
			all[id] = got[id]
		}
		for id, st := range got {
			keep(f.last, schemas.CampaignKey(tenant, id), st)
		}
		return all, asOf, nil
	}
	got, asOf = map[string]analytics.Stats{}, time.Time{}
	for _, id := range campaigns {
		if old, ok := f.last[schemas.CampaignKey(tenant, id)]; ok {
			got[id] = old
			if asOf.IsZero() || old.AsOf.Before(asOf) {
				asOf = old.AsOf
			}
		}
	}
	if len(got) == 0 {
		return nil, time.Time{}, problem.Unavailable(5*time.Second, err, "The statistics cannot be read now.")
	}
	return got, asOf, nil
}

// cost returns the cost of a campaign so far, computed by the same rule as the bill.
func (f *figureCache) cost(ctx context.Context, tenant, campaign string) (Money, error) {
	costs, err := f.costsOf(ctx, tenant, campaign)
	return costs[campaign], err
}

// costsOf returns the cost of several campaigns. Campaigns without cost are missing, which reads as zero.
func (f *figureCache) costsOf(ctx context.Context, tenant string, campaigns ...string) (map[string]Money, error) {
	ctx, cancel := context.WithTimeout(ctx, analyticsTimeout)
	defer cancel()
	lines, err := f.store.Cost(ctx, tenant, campaigns...)
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[string]Money, len(campaigns))
	for _, id := range campaigns {
		key := schemas.CampaignKey(tenant, id)
		if err != nil {
			old, ok := f.costs[key]
			if !ok {
				return nil, problem.Unavailable(5*time.Second, err, "The cost cannot be read now.")
			}
			out[id] = old
			continue
		}
		var sum Money
		for _, l := range lines[id] {
			sum += Money(l.Micros)
		}
		keep(f.costs, key, sum)
		out[id] = sum
	}
	return out, nil
}

func keep[V any](m map[string]V, key string, v V) {
	if len(m) >= maxFigures {
		clear(m)
	}
	m[key] = v
}

// costOfRow returns the cost of a campaign in a list. It queries only when more messages were sent, and at most once a
// second for a campaign.
func (f *figureCache) costOfRow(ctx context.Context, tenant, campaign string, sent uint64, now time.Time) (Money, error) {
	key := schemas.CampaignKey(tenant, campaign)
	f.mu.Lock()
	known, ok := f.rows[key]
	f.mu.Unlock()
	if sent == 0 || ok && (known.sent == sent || now.Before(known.until)) {
		return known.micros, nil
	}
	micros, err := f.cost(ctx, tenant, campaign)
	if err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	keep(f.rows, key, rowCost{micros, sent, now.Add(time.Second)})
	return micros, nil
}
