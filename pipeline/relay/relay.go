package relay

import (
	"context"
	"errors"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

// Outbox is what the relay needs of the control plane's store.
type Outbox interface {
	// Lead makes this process the one that publishes, until release; ok is false while another one is.
	Lead(ctx context.Context) (release func(), ok bool, err error)
	// Unpublished returns rows that are newer than what was published, oldest change first.
	Unpublished(ctx context.Context, limit int) ([]schemas.OutboxRow, error)
	// MarkPublished records that these versions are on their topics.
	MarkPublished(ctx context.Context, rows []schemas.OutboxRow) error
	// Republish makes a row unpublished again.
	Republish(ctx context.Context, typ schemas.EventType, key string) error
	// Changed wakes the relay: closed or sent to when something may be unpublished.
	Changed() <-chan struct{}
}

// Config of a [Relay].
type Config struct {
	Cluster stream.Cluster
}

// Relay publishes what the store has changed.
type Relay struct{}

// New returns a relay that [Relay.Run] runs.
func New(cfg Config, outbox Outbox) (*Relay, error) { return nil, errors.ErrUnsupported }

// Run publishes whenever this process leads, until ctx ends.
func (r *Relay) Run(ctx context.Context) error { return errors.ErrUnsupported }
