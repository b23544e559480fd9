package tracker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"fanfare/pipeline/dlrindex"
	"fanfare/pipeline/health"
	"fanfare/pipeline/stream"
	"fanfare/pipeline/view"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/trace"
)

// Campaigns is the part of the control-plane view that the tracker uses.
type Campaigns interface {
	// CampaignByNumber returns the newest known version of a campaign, nil when the view has none.
	CampaignByNumber(n uint64) *fanfarev1.Campaign
	// Route returns a route, nil when it is unknown; Routes returns all.
	Route(name string) *fanfarev1.Route
	Routes() []*fanfarev1.Route
	// Age is how long ago the view was known to be complete.
	Age() time.Duration
}

var _ Campaigns = (*view.View)(nil)

// Config of a [Tracker].
type Config struct {
	Cluster stream.Cluster
	// MaxRecords of a batch; default 2,000.
	MaxRecords int
	// Validity is the longest validity of a message; default 48 h. A receipt is parked for Validity plus
	// [schemas.DLRIndexTTL], and a lost index is rebuilt from the topics of that span.
	Validity time.Duration
	// Watch is how often the tracker asks whether Redis has lost the index; default 10 s. A receipt that needs the
	// index asks too.
	Watch time.Duration
	// SessionTimeout of the group; 0: the stage's default.
	SessionTimeout time.Duration
	// Traces makes spans of receipts; nil: none.
	Traces *trace.Tracer
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Validate fills in the defaults and reports what is wrong.
func (c *Config) Validate() error {
	if c.MaxRecords == 0 {
		c.MaxRecords = 2000
	}
	if c.Validity == 0 {
		c.Validity = 48 * time.Hour
	}
	if c.Watch == 0 {
		c.Watch = 10 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.MaxRecords < 0 || c.Validity < 0 || c.Watch < 0 {
		return errors.New("tracker: max records, validity and watch must not be negative")
	}
	return nil
}

// Deps are the services that a tracker uses.
type Deps struct {
	Keys      *schemas.Keys
	Campaigns Campaigns
	Index     *dlrindex.Index
	// Indexed reports whether a route's receipts are matched through the index: its carrier does not echo our id, or
	// sends a receipt for each part. Nil: all routes are.
	Indexed func(*fanfarev1.Route) bool
}

// Tracker is the stage.
type Tracker struct {
	stage     *stream.Stage
	rebuilder *rebuilder
	handler   *handler
}

// New returns a tracker that [Tracker.Run] runs.
func New(cfg Config, deps Deps) (*Tracker, error) {
	h, err := newHandler(cfg, deps)
	if err != nil {
		return nil, err
	}
	names := cfg.Cluster.Names
	stage, err := stream.NewStage(stream.StageConfig{
		Cluster: cfg.Cluster, Name: source, Group: names.Group(source), Topics: []string{names.Receipts()},
		MaxRecords: h.cfg.MaxRecords, SessionTimeout: cfg.SessionTimeout,
	}, h)
	if err != nil {
		return nil, fmt.Errorf("tracker: %w", err)
	}
	return &Tracker{stage, newRebuilder(h), h}, nil
}

// Health returns the receipts of the last five minutes by route.
func (t *Tracker) Health(now time.Time) []*fanfarev1.RouteHealth {
	rates := &t.handler.rates
	var out []*fanfarev1.RouteHealth
	for _, route := range rates.Routes() {
		n := rates.Of(route, now)
		out = append(out, &fanfarev1.RouteHealth{Route: route, Delivered: n[health.Delivered], Undelivered: n[health.Undelivered]})
	}
	return out
}

// Run works until ctx ends, then finishes the current batch.
func (t *Tracker) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return t.stage.Run(ctx) })
	group.Go(func() error { return t.rebuilder.run(ctx) })
	return group.Wait()
}
