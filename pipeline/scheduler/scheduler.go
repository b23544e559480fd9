package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// View is the control plane as this process knows it; [stream.View] meets it.
type View interface {
	Ready() <-chan struct{}
	Age() time.Duration
	Changed() <-chan struct{}
	Campaigns() []*fanfarev1.Campaign
	Routes() []*fanfarev1.Route
	Tenant(id string) *fanfarev1.Tenant
	Sender(tenant, id string) *fanfarev1.Sender
}

var _ View = (*stream.View)(nil)

// Audience freezes audiences and knows what is in them.
type Audience interface {
	// Freeze takes the audience of a confirmed campaign, numbers it and publishes its freeze id and total, if the campaign still
	// has that version. It is idempotent. An error that is [schemas.ErrNotFound] says that there will never be an audience: the
	// campaign fails, for the reason of a [schemas.FreezeError].
	Freeze(ctx context.Context, tenant, campaign string, version uint64) error
	// Blobs returns which seqs each blob of a frozen audience holds, in order.
	Blobs(ctx context.Context, freezeID string) ([]audience.Index, error)
}

// Store makes moves of campaigns, each a compare-and-set: [schemas.ErrConflict] and [schemas.ErrTransition] say that the
// campaign is not what it was.
type Store interface {
	Apply(ctx context.Context, change schemas.Change) (version uint64, err error)
}

// Config of a [Scheduler].
type Config struct {
	Cluster  stream.Cluster
	Keys     *schemas.Keys
	View     View
	Audience Audience
	Store    Store
	// MayDeal says why nothing may be dealt now, such as a disk that is nearly full; nil: always.
	MayDeal func() error
	// Now is the clock; default time.Now.
	Now func() time.Time
	// SessionTimeout is how long a dead leader keeps its place; default 10 s.
	SessionTimeout time.Duration
	// SetsEvery is how often at most the sets are written; default 5 s. A successor reads the deliveries since.
	SetsEvery time.Duration
	// Pace is how long after a round of deals the next one may be made; default 10 ms. About a second is in flight, so it need
	// not be short; a transaction costs a real broker as much.
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
	case c.Cluster.Logger == nil:
		return errors.New("scheduler: no logger")
	}
	return nil
}

// viewStale is how old the view may be before nothing is decided any more.
const viewStale = 5 * time.Second

// Scheduler leads or stands by.
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

// Run stands by, leads while the group says so, and leaves when ctx ends: then it deals nothing more, writes its sets, and lets
// go of the lead.
func (s *Scheduler) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.cfg.View.Ready():
	}
	m := &mandate{gained: make(chan struct{}, 1), topic: s.names.Cursors()}
	cl, err := s.cfg.Cluster.Named("scheduler").Client(
		kgo.ConsumerGroup(s.names.Group("scheduler")),
		kgo.ConsumeTopics(s.names.Cursors()),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(s.cfg.SessionTimeout),
		kgo.HeartbeatInterval(min(3*time.Second, s.cfg.SessionTimeout/3)),
		kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(m.assigned),
		kgo.OnPartitionsRevoked(m.revoked),
		kgo.OnPartitionsLost(m.revoked),
	)
	if err != nil {
		return fmt.Errorf("scheduler: %w", err)
	}
	defer cl.Close()
	cl.PauseFetchTopics(s.names.Cursors()) // the group is for the lead alone
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.gained:
		}
		s.term(ctx, m)
	}
}

// retryLead is how long after a term that ended in trouble the next one begins, at most.
const retryLead = time.Second

// term leads until the lead is lost or ctx ends. A term that ends in trouble is followed by another one that begins anew.
func (s *Scheduler) term(ctx context.Context, m *mandate) {
	for {
		tctx, over := m.begin(ctx)
		if over == nil {
			return
		}
		err := s.lead(tctx)
		over()
		s.metrics.leading.Set(0)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.metrics.restarts.Inc()
			s.log.WarnContext(ctx, "lead begins anew from the topics", "err", err)
		}
		timer := time.NewTimer(retryLead/4 + rand.N(retryLead*3/4))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// mandate is the group's word on who leads.
type mandate struct {
	topic  string
	gained chan struct{}

	mu     sync.Mutex
	owned  bool
	cancel context.CancelFunc // of the term, nil: there is none
	done   chan struct{}      // closed when the term has ended
}

func (m *mandate) assigned(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	if len(partitions[m.topic]) == 0 {
		return
	}
	m.mu.Lock()
	m.owned = true
	m.mu.Unlock()
	select {
	case m.gained <- struct{}{}:
	default:
	}
}

// revoked ends the term and waits for its end, so that the group does not give the lead away while something is being written.
// A term that does not end in time is fenced by its successor.
func (m *mandate) revoked(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	if len(partitions[m.topic]) == 0 {
		return
	}
	m.mu.Lock()
	m.owned = false
	cancel, done := m.cancel, m.done
	m.mu.Unlock()
	if cancel == nil {
		return
	}
	cancel()
	timer := time.NewTimer(stopWithin + time.Second)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// begin begins a term while the lead is ours; nil: it is not.
func (m *mandate) begin(ctx context.Context) (context.Context, func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.owned || ctx.Err() != nil {
		return nil, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	m.cancel, m.done = cancel, done
	return ctx, func() {
		cancel()
		m.mu.Lock()
		m.cancel = nil
		m.mu.Unlock()
		close(done)
	}
}
