package webhook

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Stage is the name of the role, in groups, client ids and dead letters.
const Stage = "webhook"

// Endpoints is the part of the store that has the tenants' endpoints.
type Endpoints interface {
	// WebhookChanges returns a number that differs after each change of an endpoint.
	WebhookChanges(ctx context.Context) (int64, error)
	// Webhooks returns the active endpoints.
	Webhooks(ctx context.Context) ([]schemas.Webhook, error)
	// DisableWebhook disables an endpoint, with a reason for its tenant.
	DisableWebhook(ctx context.Context, tenant string, number uint64, reason string) error
}

// Queue stores events until they are posted.
type Queue interface {
	// QueueWebhooks queues events, each once for an endpoint, and keeps references of messages.
	QueueWebhooks(ctx context.Context, items []schemas.WebhookItem, refs []schemas.WebhookReference) error
	// CampaignMoves returns the changes of state of a campaign, oldest first.
	CampaignMoves(ctx context.Context, tenant, id string) ([]schemas.CampaignMove, error)
	// CampaignRecord returns a campaign that the view does not have; [schemas.ErrNotFound] when there is none.
	CampaignRecord(ctx context.Context, id string) (*fanfarev1.Campaign, error)
}

// Due is the reading side of the queue.
type Due interface {
	// ClaimWebhooks leases endpoints that no process delivers to, until owner has at most the given number, and
	// prolongs the leases of owner.
	ClaimWebhooks(ctx context.Context, owner string, lease time.Duration, most int) error
	ReleaseWebhooks(ctx context.Context, owner string) error
	// OwnedWebhooks returns the endpoints of owner and when each has its next due event.
	OwnedWebhooks(ctx context.Context, owner string) ([]schemas.WebhookHealth, error)
	// DueWebhooks returns the due events: for each Order only the first pending one.
	DueWebhooks(ctx context.Context, endpoint uint64, most int) ([]schemas.WebhookItem, error)
	SettleWebhooks(ctx context.Context, outcomes []schemas.WebhookOutcome) error
	// RecoveredWebhook records that the events since a time are queued again.
	RecoveredWebhook(ctx context.Context, endpoint uint64, since time.Time) error
}

// Store is what the stage needs of the store.
type Store interface {
	Endpoints
	Queue
	Due
}

// View is the part of the control view that the stage uses.
type View interface {
	// Campaign returns nil when the view has none.
	Campaign(id string) *fanfarev1.Campaign
	Route(name string) *fanfarev1.Route
}

// Config of the stage. The zero value of each number takes its default.
type Config struct {
	Cluster stream.Cluster
	// Allow are address ranges that endpoints may be in although they are private, local or special.
	Allow []netip.Prefix
	// Timeout of a request, from dialling to the end of the answer; default 5 s.
	Timeout time.Duration
	// Requests at a time to one endpoint; default 10.
	Requests int
	// Page is how many events of an endpoint are taken at once; default 100.
	Page int
	// Most is how many endpoints one process delivers to; default 1,000.
	Most int
	// Lease is how long after the death of its process an endpoint waits for another process; default 12 s.
	Lease time.Duration
	// Poll is how often the stage looks in the queue for events of other processes; default 250 ms.
	Poll time.Duration
	// SessionTimeout of the group; 0: the stage's default.
	SessionTimeout time.Duration
	// Now is the clock; default time.Now. Jitter returns a number in [0, 1); default random.
	Now    func() time.Time
	Jitter func() float64
}

// Validate fills in the defaults and reports what is wrong.
func (c *Config) Validate() error {
	c.Timeout = cmp.Or(c.Timeout, 5*time.Second)
	c.Requests = cmp.Or(c.Requests, 10)
	c.Page = cmp.Or(c.Page, 100)
	c.Most = cmp.Or(c.Most, 1000)
	c.Lease = cmp.Or(c.Lease, 12*time.Second)
	c.Poll = cmp.Or(c.Poll, 250*time.Millisecond)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Jitter == nil {
		c.Jitter = random
	}
	if c.Timeout < 0 || c.Requests < 0 || c.Page < 0 || c.Most < 0 || c.Lease < 0 || c.Poll < 0 {
		return errors.New("webhook: timeout, requests, page, most, lease and poll must not be negative")
	}
	for _, p := range c.Allow {
		if !p.IsValid() {
			return fmt.Errorf("webhook: %v is no range of addresses", p)
		}
	}
	return c.Cluster.Validate()
}

// Webhook is the stage.
type Webhook struct {
	stage     *stream.Stage
	deliverer *deliverer
}

// New returns a stage that [Webhook.Run] runs.
func New(cfg Config, store Store, view View) (*Webhook, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if store == nil || view == nil {
		return nil, errors.New("webhook: a store and a view are needed")
	}
	names := cfg.Cluster.Names
	m := newMetrics(cfg.Cluster.Registry)
	known := &endpoints{store: store}
	h := newHandler(cfg, store, view, known, m)
	stage, err := stream.NewStage(stream.StageConfig{
		Cluster: cfg.Cluster, Name: Stage, Group: names.Group(Stage), Topics: []string{names.Deliveries(), names.Campaigns(), names.Replies()},
		SessionTimeout: cfg.SessionTimeout,
	}, h)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	d := &deliverer{
		cfg: cfg, store: store, known: known, handler: h, post: newPoster(cfg), metrics: m, log: cfg.Cluster.Logger.With("stage", Stage),
		owner: rand.Text(), records: make(chan *recording), running: map[uint64]bool{},
	}
	return &Webhook{stage, d}, nil
}

// Run works until ctx ends, then finishes the open requests.
func (w *Webhook) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.stage.Run(ctx) })
	group.Go(func() error { return w.deliverer.run(ctx) })
	return group.Wait()
}
