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
	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Campaigns is the view of the control plane.
type Campaigns interface {
	// Campaign returns the newest state known, nil when there is none.
	Campaign(id string) *fanfarev1.Campaign
	// Changed is closed at the next change.
	Changed() <-chan struct{}
	// Age is how long ago everything published was known to be read.
	Age() time.Duration
}

var _ Campaigns = (*stream.View)(nil)

// Audience is where frozen audiences lie. An error that is [schemas.ErrNotFound] is for ever; any other is a store that is away.
type Audience interface {
	Blobs(ctx context.Context, freezeID string) ([]audience.Index, error)
	Blob(ctx context.Context, freezeID string, blob uint32) ([]byte, error)
}

// Config of an [Expander].
type Config struct {
	Cluster stream.Cluster
	// Chunks of a transaction at most; default 4. What makes small chunks cheap is that they share one; full ones need not, and
	// each may take 4 MB.
	Chunks int
	// Workers expand at the same time, each with a transaction of its own; default 2. One renders while the other's records are
	// on their way to the broker.
	Workers int
	// Patience is how long a batch waits for the view before it is put back; default 2 s.
	Patience time.Duration
	// Memory of each worker for decoded blobs, in bytes; default 8 MiB. Small chunks follow each other in one blob.
	Memory int
	// SessionTimeout of the group; 0: the stage's default.
	SessionTimeout time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Validate fills in the defaults and says what is wrong.
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
		c.Memory = 8 << 20
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Chunks < 0 || c.Workers < 0 || c.Patience < 0 || c.Memory < 0 {
		return errors.New("expander: chunks, workers, patience and memory are not below 0")
	}
	return nil
}

// Deps are what an expander works with.
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

// Run works until ctx ends, then finishes or aborts the batches in hand.
func (e *Expander) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, w := range e.workers {
		group.Go(func() error { return w.Run(ctx) })
	}
	return group.Wait()
}
