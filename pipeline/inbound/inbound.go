package inbound

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"fanfare/pipeline/inbound/keyword"
	"fanfare/pipeline/inbound/recent"
	"fanfare/pipeline/stream"
	"fanfare/pipeline/view"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const (
	source    = "inbound"
	noterName = "recent"
)

// Campaigns is the control-plane view.
type Campaigns interface {
	// CampaignByNumber returns the newest known version of a campaign, nil when the view has none.
	CampaignByNumber(n uint64) *fanfarev1.Campaign
}

var _ Campaigns = (*view.View)(nil)

// Audience reads frozen audiences. An error that is [schemas.ErrNotFound] is permanent; any other means that the store
// is unreachable.
type Audience interface {
	Blobs(ctx context.Context, freezeID string) ([]audience.Index, error)
	Blob(ctx context.Context, freezeID string, blob uint32) ([]byte, error)
}

// Store keeps opt-outs. Its errors have the same meaning as those of [Audience].
type Store interface {
	// CampaignRecord returns a campaign that the view lacks. The view drops a campaign a week after it has settled.
	CampaignRecord(ctx context.Context, id string) (*fanfarev1.Campaign, error)
	// RecordOptOut records a fact unless it is recorded already.
	RecordOptOut(ctx context.Context, o *schemas.OptOutFact) error
	// RecordMessage records a message and its effects unless it is recorded already, and returns its conversation.
	RecordMessage(ctx context.Context, m *schemas.MessageFact) (conversation string, err error)
	// OwnersOf returns the tenants that have a sender.
	OwnersOf(ctx context.Context, channel schemas.Channel, address string) ([]string, error)
}

// Recent is the index of the last messages to each number. An error means that Redis did not answer.
type Recent interface {
	Put(ctx context.Context, list []recent.Sent) error
	Find(ctx context.Context, channel schemas.Channel, phone string) ([]recent.Sent, error)
}

var _ Recent = (*recent.Index)(nil)

// Config of the stage.
type Config struct {
	Cluster stream.Cluster
	// MaxRecords of a batch; default 200, because each record is a transaction of the store.
	MaxRecords int
	// SessionTimeout of the group; 0 for the default of [stream.Stage].
	SessionTimeout time.Duration
}

// Deps are what the stage uses.
type Deps struct {
	Keys      *schemas.Keys
	Campaigns Campaigns
	Audience  Audience
	Store     Store
	Recent    Recent
}

// Inbound is the stage. It has two parts, each with its own group: one notes which messages were sent, the other
// handles what recipients do.
type Inbound struct{ noter, taker *stream.Stage }

// Run works until ctx ends, and then finishes the batches in hand.
func (s *Inbound) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.noter.Run(ctx) })
	group.Go(func() error { return s.taker.Run(ctx) })
	return group.Wait()
}

// New returns the stage.
func New(cfg Config, deps Deps) (*Inbound, error) {
	if deps.Keys == nil || deps.Campaigns == nil || deps.Audience == nil || deps.Store == nil || deps.Recent == nil || cfg.MaxRecords < 0 {
		return nil, errors.New("inbound: keys, campaigns, an audience, a store and an index of recent messages are needed, and max records must not be negative")
	}
	words, err := keyword.Open()
	if err != nil {
		return nil, fmt.Errorf("inbound: %w", err)
	}
	if cfg.MaxRecords == 0 {
		cfg.MaxRecords = 200
	}
	names := cfg.Cluster.Names
	noted, err := stream.NewStage(stream.StageConfig{
		Cluster: cfg.Cluster, Name: noterName, Group: names.Group(noterName), Topics: []string{names.Deliveries()}, SessionTimeout: cfg.SessionTimeout,
	}, &noter{deps.Recent})
	if err != nil {
		return nil, fmt.Errorf("inbound: %w", err)
	}
	taken, err := stream.NewStage(stream.StageConfig{
		Cluster: cfg.Cluster, Name: source, Group: names.Group(source), Topics: []string{names.Inbound()},
		MaxRecords: cfg.MaxRecords, SessionTimeout: cfg.SessionTimeout,
	}, &handler{names, deps, words, newMetrics(cfg.Cluster.Registry)})
	if err != nil {
		return nil, fmt.Errorf("inbound: %w", err)
	}
	return &Inbound{noted, taken}, nil
}
