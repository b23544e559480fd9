package inbound

import (
	"context"
	"errors"
	"fmt"
	"time"

	"fanfare/pipeline/stream"
	"fanfare/pipeline/view"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const source = "inbound"

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

// Store keeps opt-outs. Its errors are as those of [Audience].
type Store interface {
	// CampaignRecord returns a campaign that the view lacks: it drops them a week after they have settled.
	CampaignRecord(ctx context.Context, id string) (*fanfarev1.Campaign, error)
	// RecordOptOut records a fact unless it was recorded before.
	RecordOptOut(ctx context.Context, o *schemas.OptOutFact) error
}

// Config of the stage.
type Config struct {
	Cluster stream.Cluster
	// MaxRecords of a batch; default 200: each is a transaction of the store.
	MaxRecords int
	// SessionTimeout of the group; 0: the stage's default.
	SessionTimeout time.Duration
}

// Deps are what the stage uses.
type Deps struct {
	Keys      *schemas.Keys
	Campaigns Campaigns
	Audience  Audience
	Store     Store
}

// New returns the stage.
func New(cfg Config, deps Deps) (*stream.Stage, error) {
	if deps.Keys == nil || deps.Campaigns == nil || deps.Audience == nil || deps.Store == nil || cfg.MaxRecords < 0 {
		return nil, errors.New("inbound: keys, campaigns, an audience and a store are needed, and max records must not be negative")
	}
	if cfg.MaxRecords == 0 {
		cfg.MaxRecords = 200
	}
	names := cfg.Cluster.Names
	stage, err := stream.NewStage(stream.StageConfig{
		Cluster: cfg.Cluster, Name: source, Group: names.Group(source), Topics: []string{names.Inbound()},
		MaxRecords: cfg.MaxRecords, SessionTimeout: cfg.SessionTimeout,
	}, &handler{names, deps, newMetrics(cfg.Cluster.Registry)})
	if err != nil {
		return nil, fmt.Errorf("inbound: %w", err)
	}
	return stage, nil
}
