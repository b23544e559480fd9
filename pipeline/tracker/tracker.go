package tracker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"fanfare/pipeline/stream"
	"fanfare/pipeline/stream/rendezvous"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Campaigns is the view of the control plane.
type Campaigns interface {
	// CampaignByNumber returns the newest state known, nil when there is none.
	CampaignByNumber(n uint64) *fanfarev1.Campaign
	// Route returns a route, nil when it is unknown; Routes returns all.
	Route(name string) *fanfarev1.Route
	Routes() []*fanfarev1.Route
	// Age is how long ago everything published was known to be read.
	Age() time.Duration
}

var _ Campaigns = (*stream.View)(nil)

// Config of a [Tracker].
type Config struct {
	Cluster stream.Cluster
	// MaxRecords of a batch; default 2,000.
	MaxRecords int
	// Validity is how long a message may be on its way at most; default 48 h. A receipt is parked for this and
	// [schemas.RendezvousTTL], and so far back a lost rendezvous is filled again.
	Validity time.Duration
	// Watch is how often it is looked whether Redis has lost the rendezvous; default 10 s. A receipt that needs it looks too.
	Watch time.Duration
	// SessionTimeout of the group; 0: the stage's default.
	SessionTimeout time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Validate fills in the defaults and says what is wrong.
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
		return errors.New("tracker: max records, validity and watch are not below 0")
	}
	return nil
}

// Deps are what a tracker works with.
type Deps struct {
	Keys       *schemas.Keys
	Campaigns  Campaigns
	Rendezvous *rendezvous.Table
	// Meets reports whether the carrier of a route names submissions by its own ids, or sends receipts of parts: only those
	// routes are put into a rendezvous that was lost. Nil: all are.
	Meets func(*fanfarev1.Route) bool
}

// Tracker is the stage.
type Tracker struct {
	stage  *stream.Stage
	keeper *keeper
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
	return &Tracker{stage, newKeeper(h, deps.Meets)}, nil
}

// Run works until ctx ends, then finishes the batch in hand.
func (t *Tracker) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return t.stage.Run(ctx) })
	group.Go(func() error { return t.keeper.run(ctx) })
	return group.Wait()
}
