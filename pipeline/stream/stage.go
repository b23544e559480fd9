package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Handler is the work of a stage.
type Handler interface {
	// Handle turns a batch into what is to be published. It may be called again with the same records, alone or in other
	// company, so it must be idempotent. An error is temporary: nothing of the batch is published and it is handled again,
	// for ever. A panic makes the record that caused it a dead letter. ctx ends when a stop has waited long enough.
	Handle(ctx context.Context, batch []*kgo.Record) (Result, error)
}

// HandlerFunc is a function as a [Handler].
type HandlerFunc func(ctx context.Context, batch []*kgo.Record) (Result, error)

// Handle implements [Handler].
func (f HandlerFunc) Handle(ctx context.Context, batch []*kgo.Record) (Result, error) {
	return f(ctx, batch)
}

// Result is what came of a batch.
type Result struct {
	// Publish is acknowledged by Kafka, all of it, before the batch counts as done.
	Publish []*kgo.Record
	// Dead are records that can never be handled. Whatever outcome keeps the account of the recipients is in Publish.
	Dead []Dead
}

// Dead is a poison record.
type Dead struct {
	Record *kgo.Record
	// Cause goes into a header, so it must name no number and quote no text.
	Cause error
}

// StageConfig of a [Stage].
type StageConfig struct {
	Cluster Cluster
	// Name of the stage in metrics, logs, dead letters and transactional ids, such as `expander`.
	Name string
	// Group is the consumer group, as [schemas.Names] gives it.
	Group  string
	Topics []string
	// ExactlyOnce publishes each batch and commits its offsets in one transaction. It costs little from 1,000 records a batch
	// upwards and 100 times as much at one.
	ExactlyOnce bool
	// MaxRecords of a batch; default 1,000.
	MaxRecords int
	// MaxWait lets a batch grow for so long once it has its first record; default 0: a batch is what is there.
	MaxWait time.Duration
	// Linger of the producer, default 0.
	Linger time.Duration
	// SessionTimeout after which a member that is gone is missed; default 10 s.
	SessionTimeout time.Duration
	// DrainTimeout is how long a stop waits for the batch in hand; default 10 s.
	DrainTimeout time.Duration
	// Instance makes the transactional id this process's own; default: random, as it must be on a broker whose transactions
	// may be torn by a kill.
	Instance string
}

// Stage reads topics as a member of a group and runs a [Handler] on them.
type Stage struct {
	cfg     StageConfig
	handler Handler
}

// NewStage returns a stage that [Stage.Run] runs.
func NewStage(cfg StageConfig, h Handler) (*Stage, error) {
	switch {
	case h == nil:
		return nil, errors.New("stage: no handler")
	case cfg.Name == "" || cfg.Group == "" || len(cfg.Topics) == 0:
		return nil, errors.New("stage: a name, a group and topics are needed")
	}
	if err := cfg.Cluster.validate(); err != nil {
		return nil, fmt.Errorf("stage %s: %w", cfg.Name, err)
	}
	return &Stage{cfg: cfg, handler: h}, nil
}

// Run works until ctx ends; then it finishes the batch in hand, leaves the group and returns nil.
func (s *Stage) Run(ctx context.Context) error { return errors.ErrUnsupported }
