package stream

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TailConfig of a [Tail].
type TailConfig struct {
	Cluster Cluster
	Topics  []string
	// From says where to begin in a topic's partitions; what it does not name is read from its beginning.
	From map[string]map[int32]int64
	// Every is how often the ends of the topics are asked for; default 1 s.
	Every time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Tail follows topics without a group, committed records only.
type Tail struct{ cfg TailConfig }

// NewTail returns a tail that gives what it reads to apply, in order per partition, one call at a time.
func NewTail(cfg TailConfig, apply func(batch []*kgo.Record)) (*Tail, error) {
	return nil, errors.ErrUnsupported
}

// Run follows the topics until ctx ends.
func (t *Tail) Run(ctx context.Context) error { return errors.ErrUnsupported }

// Ready is closed once everything has been read to its end and applied.
func (t *Tail) Ready() <-chan struct{} { return nil }

// Age is how long ago the topics were last known to be read to their ends.
func (t *Tail) Age() time.Duration { return 0 }
