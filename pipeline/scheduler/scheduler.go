package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
	"fanfare/pipeline/view"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/trace"
)

// View is the control plane as this process knows it; [view.View] implements it.
type View interface {
	Ready() <-chan struct{}
	Age() time.Duration
	Changed() <-chan struct{}
	Campaigns() []*fanfarev1.Campaign
	Routes() []*fanfarev1.Route
	Tenant(id string) *fanfarev1.Tenant
	Sender(tenant, id string) *fanfarev1.Sender
}

var _ View = (*view.View)(nil)

// Audience freezes audiences and returns their index.
type Audience interface {
	// AudienceSize returns about how many recipients the audience of a campaign will have. It takes milliseconds.
	AudienceSize(ctx context.Context, tenant, campaign string) (uint64, error)
	// Freeze copies the audience of a confirmed campaign, numbers it and publishes its freeze id and total, if the
	// campaign still has that version. It is idempotent. An error that is [schemas.ErrNotFound] means that there will
	// never be an audience: the campaign fails, with the reason of the [schemas.FreezeError] if it is one.
	Freeze(ctx context.Context, tenant, campaign string, version uint64) error
	// Blobs returns, in order, which seqs each blob of a frozen audience holds.
	Blobs(ctx context.Context, freezeID string) ([]audience.Index, error)
}

// Store moves campaigns, each by compare-and-set: [schemas.ErrConflict] and [schemas.ErrTransition] mean that the
// campaign has changed meanwhile.
type Store interface {
	Apply(ctx context.Context, change schemas.Change) (version uint64, err error)
}

// Domains reserves domains for the links of recipients.
type Domains interface {
	// AllotDomains returns the blocks of a blob in order. It also reserves one more block for the next recipients: for
	// up to r.Want of them, or for as many as the limits of the domains allow. A block never changes.
	AllotDomains(ctx context.Context, r schemas.DomainRequest) ([]*fanfarev1.DomainBlock, error)
}

// Config of a [Scheduler].
type Config struct {
	Cluster  stream.Cluster
	Keys     *schemas.Keys
	View     View
	Audience Audience
	Store    Store
	Domains  Domains
	// Health returns the health of a route. If it is nil, the scheduler suspends no campaign because of a route's
	// health.
	Health func(route string) schemas.RouteHealth
	// Traces makes spans of deals; nil: none.
	Traces *trace.Tracer
	// MayDeal returns why nothing may be dealt now, such as a disk that is nearly full. Default: always nil.
	MayDeal func() error
	// Now is the clock; default time.Now.
	Now func() time.Time
	// SessionTimeout is how long the group waits for a dead leader; default 10 s.
	SessionTimeout time.Duration
	// SetsEvery is the least time between two snapshots of the sets; default 5 s. A successor reads the deliveries
	// since the last one.
	SetsEvery time.Duration
	// Pace is the least time between two rounds of deals; default 10 ms. About a second's worth is in flight, so it
	// need not be short; a transaction takes about as long on a real broker.
	Pace time.Duration
}

// Validate returns what is missing.
func (c *Config) Validate() error {
	switch {
	case c.Keys == nil:
		return errors.New("scheduler: no keys for ids")
	case c.View == nil:
		return errors.New("scheduler: no view of the control plane")
	case c.Audience == nil:
		return errors.New("scheduler: no audiences")
	case c.Store == nil:
		return errors.New("scheduler: no store")
	case c.Domains == nil:
		return errors.New("scheduler: no domains")
	case c.Cluster.Logger == nil:
		return errors.New("scheduler: no logger")
	}
	return nil
}

// viewStale is the age of the view above which the scheduler decides nothing.
const viewStale = 5 * time.Second

// Scheduler is the stage. One process leads, the others stand by.
type Scheduler struct {
	cfg     Config
	names   schemas.Names
	log     *slog.Logger
	metrics *metrics
}

// New returns a scheduler that [Scheduler.Run] starts.
func New(cfg Config) (*Scheduler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.MayDeal == nil {
		cfg.MayDeal = func() error { return nil }
	}
	for _, d := range []struct {
		at *time.Duration
		is time.Duration
	}{{&cfg.SessionTimeout, 10 * time.Second}, {&cfg.SetsEvery, 5 * time.Second}, {&cfg.Pace, 10 * time.Millisecond}} {
		if *d.at <= 0 {
			*d.at = d.is
		}
	}
	return &Scheduler{cfg: cfg, names: cfg.Cluster.Names, log: cfg.Cluster.Logger.With("stage", "scheduler"), metrics: newMetrics(cfg.Cluster.Registry)}, nil
}

// Run stands by until the group makes this process the leader. When ctx ends it deals nothing more, writes its sets and
// leaves the group.
func (s *Scheduler) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.cfg.View.Ready():
	}
	lock := &leaderLock{gained: make(chan struct{}, 1), topic: s.names.Cursors()}
	cl, err := s.cfg.Cluster.Named("scheduler").Client(
		kgo.ConsumerGroup(s.names.Group("scheduler")),
		kgo.ConsumeTopics(s.names.Cursors()),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(s.cfg.SessionTimeout),
		kgo.HeartbeatInterval(min(3*time.Second, s.cfg.SessionTimeout/3)),
		kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(lock.assigned),
		kgo.OnPartitionsRevoked(lock.revoked),
		kgo.OnPartitionsLost(lock.revoked),
	)
	if err != nil {
		return fmt.Errorf("scheduler: %w", err)
	}
	defer cl.Close()
	cl.PauseFetchTopics(s.names.Cursors()) // the group only elects the leader
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-lock.gained:
		}
		s.leadWhileOwned(ctx, lock)
	}
}
