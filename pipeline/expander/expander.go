package expander

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"fanfare/pipeline/stream"
	"fanfare/pipeline/view"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/trace"
)

// Campaigns is the view of the control plane.
type Campaigns interface {
	// Campaign returns the newest known record of a campaign, nil when it is unknown.
	Campaign(id string) *fanfarev1.Campaign
	// Changed is closed at the next change.
	Changed() <-chan struct{}
	// Age is how long ago the view was last known to be complete.
	Age() time.Duration
}

var _ Campaigns = (*view.View)(nil)

// Audience reads frozen audiences. An error that is [schemas.ErrNotFound] is permanent; any other means that the store
// is unreachable.
type Audience interface {
	Blobs(ctx context.Context, freezeID string) ([]audience.Index, error)
	Blob(ctx context.Context, freezeID string, blob uint32) ([]byte, error)
}

// Config of an [Expander].
type Config struct {
	Cluster stream.Cluster
	// Chunks is the most chunks of one transaction; default 4. Small chunks are cheap because they share a transaction;
	// full ones take up to 4 MB each.
	Chunks int
	// Workers is how many chunks are expanded concurrently, each in its own transaction; default 2: one renders while
	// the other's records are in flight to the broker.
	Workers int
	// Patience is how long a batch waits for the view before it is put back; default 2 s.
	Patience time.Duration
	// Memory is how many bytes each worker keeps of blobs that it has used in part; default 32 MiB, enough for about
	// fifty slow campaigns. The chunks of a blob have one key, so they come to one worker; a blob whose last recipient
	// was expanded is dropped.
	Memory int
	// SessionTimeout of the group; 0: the stage's default.
	SessionTimeout time.Duration
	// Traces makes spans of expansions; nil: none.
	Traces *trace.Tracer
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Validate fills in the defaults and returns what is wrong.
func (c *Config) Validate() error {
	if c.Chunks == 0 {
		c.Chunks = 4
	}
	if c.Workers == 0 {
		c.Workers = 2
	}
	if c.Patience == 0 {
		c.Patience = 2 * time.Second
	}
	if c.Memory == 0 {
		c.Memory = 32 << 20
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Chunks < 0 || c.Workers < 0 || c.Patience < 0 || c.Memory < 0 {
		return errors.New("expander: chunks, workers, patience and memory must not be negative")
	}
	return nil
}

// Deps are the services that an expander uses.
type Deps struct {
	Keys      *schemas.Keys
	Campaigns Campaigns
	Audience  Audience
}

// Expander is the stage.
type Expander struct{ workers []*stream.Stage }

// New returns an expander that [Expander.Run] runs.
func New(cfg Config, deps Deps) (*Expander, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	e := &Expander{}
	names := cfg.Cluster.Names
	cluster := cfg.Cluster
	cluster.Options = append(slices.Clone(cluster.Options), kgo.WithHooks(home{}))
	for range cfg.Workers {
		h, err := newHandler(cfg, deps)
		if err != nil {
			return nil, err
		}
		stage, err := stream.NewStage(stream.StageConfig{
			Cluster: cluster, Name: source, Group: names.Group(source), Topics: []string{names.Chunks()},
			ExactlyOnce: true, MaxRecords: cfg.Chunks, SessionTimeout: cfg.SessionTimeout,
		}, h)
		if err != nil {
			return nil, fmt.Errorf("expander: %w", err)
		}
		e.workers = append(e.workers, stage)
	}
	return e, nil
}

// Run works until ctx ends, then finishes or aborts the current batches.
func (e *Expander) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, w := range e.workers {
		group.Go(func() error { return w.Run(ctx) })
	}
	return group.Wait()
}
