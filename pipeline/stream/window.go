package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
)

// WindowConfig of a [Window].
type WindowConfig struct {
	Cluster Cluster
	// Topic is read by Group, one window over each partition that this process is given.
	Topic, Group string
	// Outcomes is the topic of delivery events. Their `source` headers are the second witness of how far an earlier owner came.
	Outcomes string
	// Size is the most that may be uncertain after a crash of this process, over all its partitions, 1 to 2,000. It is asked
	// again and again, so that it may follow the rate of the route.
	Size func() int
	// SessionTimeout of the group; default 10 s. Submitting ends 2 s before it would be over.
	SessionTimeout time.Duration
	// DrainTimeout is how long a revoke and a stop wait for what is in flight; default 10 s.
	DrainTimeout time.Duration
	// Identity of a record, for recognising one that was seen before. A record for which it fails is released unseen.
	Identity func(*kgo.Record) (schemas.ID, error)
	// Suspended is told about a partition that is held until somebody looks at it. Without it [Window.Run] ends with the error.
	Suspended func(*SuspendedError)
	// Now is the wall clock of the guard; default time.Now.
	Now func() time.Time
}

// Reason of a suspension.
type Reason string

// Reasons why a partition is held.
const (
	ReasonMetadata   Reason = "foreign_metadata"    // the commit's metadata is neither ours nor empty
	ReasonNoOffset   Reason = "no_committed_offset" // nobody knows how far the predecessor came
	ReasonOutOfRange Reason = "offset_out_of_range" // the committed offset is not in the log
	ReasonDataLoss   Reason = "data_loss"           // the log was cut below what was read
)

// SuspendedError says that nothing more is done to a partition until somebody looks at it: going on by guess would send again.
type SuspendedError struct {
	Topic     string
	Partition int32
	Reason    Reason
	Detail    string
	Fix       string
}

func (e *SuspendedError) Error() string {
	return fmt.Sprintf("%s/%d is suspended, %s: %s; %s", e.Topic, e.Partition, e.Reason, e.Detail, e.Fix)
}

// Releaser takes what a window releases.
type Releaser interface {
	// Release is given items in the order of each partition, once an acknowledged commit covers them. It must not block. It
	// may keep the slice.
	Release(items []*Item)
}

// Window hands the records of a topic to a [Releaser], each to be handed over outside at most once.
type Window struct{ cfg WindowConfig }

// NewWindow returns a window that [Window.Run] runs.
func NewWindow(cfg WindowConfig, r Releaser) (*Window, error) { return nil, errors.ErrUnsupported }

// Run works until ctx ends; then it waits for what is in flight, hands its partitions over and returns nil.
func (w *Window) Run(ctx context.Context) error { return errors.ErrUnsupported }

// Produce publishes records and returns when Kafka has acknowledged them all.
func (w *Window) Produce(ctx context.Context, recs ...*kgo.Record) error {
	return errors.ErrUnsupported
}

// Item is one record that was released.
type Item struct {
	Record *kgo.Record
	// Uncertain: an earlier owner may have handed it over. Settle it with an ambiguous outcome and do nothing else.
	Uncertain bool
}

// Begin reports whether the item may be handed over now: it is ours, nothing stops us and the guard has not expired. It is
// called right before the hand-over. False: forget the item, the window looks after it.
func (i *Item) Begin() bool { return false }

// Deadline is the guard's: nothing may be written to the carrier after it.
func (i *Item) Deadline() time.Time { return time.Time{} }

// Settle gives the outcome, once for each item. The window adds header `source` and produces it; the item is done when Kafka
// has acknowledged it. Without Begin it is for outcomes that are no hand-over: returned, skipped, ambiguous.
func (i *Item) Settle(outcome *kgo.Record) {}

// Late gives another outcome after Settle, such as an answer that came after the time-out. Nothing waits for it.
func (i *Item) Late(outcome *kgo.Record) {}
