package schemas

import (
	"errors"
	"time"
)

// Errors of the control plane's store that its callers check.
var (
	// ErrConflict: the row has another version than the caller has read. Read it again and decide again.
	ErrConflict = errors.New("changed meanwhile")
	// ErrNotFound: no such row for this tenant.
	ErrNotFound = errors.New("not found")
	// ErrTransition: the campaign state machine has no such change of state.
	ErrTransition = errors.New("not possible in this state")
)

// FreezeError means that a confirmed campaign can never get an audience, so it fails with Reason. It is an
// [ErrNotFound].
type FreezeError struct {
	Reason string // such as `list_gone`
	Err    error
}

func (e *FreezeError) Error() string { return e.Reason + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *FreezeError) Unwrap() error { return e.Err }

// Is makes it an [ErrNotFound].
func (e *FreezeError) Is(target error) bool { return target == ErrNotFound }

// Change is a change of a campaign by the pipeline. It is a compare-and-set on Version. The row, its event and its
// entry in the outbox are written in one transaction.
type Change struct {
	Tenant, Campaign string
	Version          uint64
	To               State
	Trigger          Trigger
	Actor            Actor
	// Reason of a suspension or failure, such as `route_down`.
	Reason string
	At     time.Time
	// Settled marks the campaign settled: Captured is billed and the rest of what was reserved is released. The state
	// stays.
	Settled  bool
	Captured uint64 // micro-units
	// CapturedSoFar is the cost so far of a campaign that is not settled: a running total, not a difference.
	CapturedSoFar uint64
	// MaxLeft is the most that the campaign can still cost beyond CapturedSoFar, nil when it is not known. The
	// reservation above it is released.
	MaxLeft *uint64
	// Unsent are, with Settled, the recipients for whom no message was made. The store gives back the room that domains
	// had reserved for them.
	Unsent []SeqRange
}

// PublishedRow says which version the newest record of a row of the control plane must have in its topic.
type PublishedRow struct {
	Type    EventType
	Key     string // of the record
	Version uint64
	// Tombstone: the topic must have no value for the key. The tombstone itself may have been compacted away.
	Tombstone bool
}

// OutboxRow is a row of the control plane whose newest version is not published yet.
type OutboxRow struct {
	// Type determines the table and the topic: campaign, control or suppression.
	Type    EventType
	Key     string // of the record
	Tenant  string // "" of a route
	Version uint64
	// Value is the encoded record, nil for a tombstone.
	Value []byte
	Time  time.Time
}
