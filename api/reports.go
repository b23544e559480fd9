package api

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"fanfare/api/problem"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// report has all statistics of one campaign, read at one time.
type report struct {
	stats    analytics.Stats
	cost     []analytics.CostLine
	inFlight uint64
	// recent is how many messages were handed over in the recentSpan before stats.AsOf.
	recent uint64
	by     map[analytics.Dimension]map[string]analytics.Stats
}

// recentSpan is the period over which the current throughput is measured.
const recentSpan = 10 * time.Second

// micros returns the cost of the campaign.
func (r *report) micros() (sum Money) {
	for _, l := range r.cost {
		sum += Money(l.Micros)
	}
	return sum
}

// readReport queries the store. It reads the counts first, so that everything else is at least as new.
func readReport(ctx context.Context, st analytics.Store, tenant, campaign string) (*report, error) {
	var r report
	var err error
	if r.stats, err = st.Stats(ctx, tenant, campaign); err != nil {
		return nil, err
	}
	costs, err := st.Cost(ctx, tenant, campaign)
	if err != nil {
		return nil, err
	}
	r.cost = costs[campaign]
	flying, err := st.InFlight(ctx, tenant, campaign)
	if err != nil {
		return nil, err
	}
	r.inFlight = flying[campaign]
	if !r.stats.AsOf.IsZero() {
		span := analytics.Span{From: r.stats.AsOf.Add(-recentSpan), To: r.stats.AsOf, Step: time.Minute}
		points, err := st.Timeline(ctx, tenant, campaign, span)
		if err != nil {
			return nil, err
		}
		for _, p := range points {
			if p.Kind == schemas.KindSent {
				r.recent += p.N
			}
		}
	}
	r.by, err = st.StatsBy(ctx, tenant, campaign, analytics.Dimensions...)
	return &r, err
}

// Defaults of [Deps]. Together with the feed's interval they keep an event visible within a second.
const (
	defaultStatsMaxAge   = 250 * time.Millisecond
	defaultStatsPatience = 25 * time.Millisecond
)

// refreshShare limits the share of time that is spent reading the reports of one campaign, however many clients poll
// it: a report is used for refreshShare times as long as it took to read, but no longer than reportMaxAge.
const (
	refreshShare = 10
	reportMaxAge = time.Second
)

// reports returns the newest report of a campaign. However many clients ask, a campaign is read only once at a time.
// When the read takes longer than patience, it returns the last report, whose AsOf shows how old it is. So statistics
// answer at once while the database is busy, and also while it is down (P5).
type reports struct {
	store            analytics.Store
	maxAge, patience time.Duration
	reading          singleflight.Group

	mu    sync.Mutex
	known map[string]knownReport
}

type knownReport struct {
	*report
	until time.Time // until when the report is new enough
}

// newReports returns reports of a store. A negative maxAge reads the store for each request and waits for it.
func newReports(st analytics.Store, maxAge, patience time.Duration) *reports {
	return &reports{store: st, maxAge: maxAge, patience: patience, known: map[string]knownReport{}}
}

// of returns the report of a campaign.
func (r *reports) of(ctx context.Context, tenant, campaign string) (*report, error) {
	key := schemas.CampaignKey(tenant, campaign)
	r.mu.Lock()
	known := r.known[key]
	r.mu.Unlock()
	if known.report != nil && time.Now().Before(known.until) {
		return known.report, nil
	}
	reading := r.reading.DoChan(key, func() (any, error) {
		// Other requests wait for the same read, so it does not end with this request.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), analyticsTimeout)
		defer cancel()
		return r.read(ctx, tenant, campaign)
	})
	var impatient <-chan time.Time
	if known.report != nil && r.maxAge >= 0 {
		timer := time.NewTimer(r.patience)
		defer timer.Stop()
		impatient = timer.C
	}
	select {
	case <-impatient:
		return known.report, nil
	case <-ctx.Done():
		return nil, problem.Unavailable(5*time.Second, ctx.Err(), "The statistics cannot be read now.")
	case got := <-reading:
		if got.Err == nil {
			found, _ := got.Val.(*report)
			return found, nil
		}
		if known.report != nil {
			return known.report, nil
		}
		if _, bug := errors.AsType[*panicError](got.Err); bug {
			return nil, got.Err
		}
		return nil, problem.Unavailable(5*time.Second, got.Err, "The statistics cannot be read now.")
	}
}

// read reads a report and caches it. It runs in its own goroutine, outside the handler that recovers panics of
// requests, so it recovers itself.
func (r *reports) read(ctx context.Context, tenant, campaign string) (got *report, err error) {
	defer func() {
		if p := recover(); p != nil {
			got, err = nil, &panicError{p, debug.Stack()}
		}
	}()
	began := time.Now()
	if got, err = readReport(ctx, r.store, tenant, campaign); err != nil {
		return nil, err
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	keep(r.known, schemas.CampaignKey(tenant, campaign), knownReport{got, now.Add(r.age(now.Sub(began)))})
	return got, nil
}

// panicError carries a panic of a goroutine to the request that waits for it.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.value, e.stack) }

// age returns how long a report is new enough, from how long it took to read.
func (r *reports) age(took time.Duration) time.Duration {
	if r.maxAge < 0 {
		return 0
	}
	return max(r.maxAge, min(refreshShare*took, reportMaxAge))
}
