package schemas

import (
	"errors"
	"time"
)

// Errors that cross the line between the control plane's store and who calls it.
var (
	// ErrConflict: the row has another version than the caller saw. Read again and decide again.
	ErrConflict = errors.New("changed meanwhile")
	// ErrNotFound: no such row for this tenant.
	ErrNotFound = errors.New("not found")
	// ErrTransition: the campaign state machine has no such move.
	ErrTransition = errors.New("not possible in this state")
)

// FreezeError says that a confirmed campaign will never have an audience: it fails, for Reason. It is an [ErrNotFound].
type FreezeError struct {
	Reason string // such as `list_gone`
	Err    error
}

func (e *FreezeError) Error() string { return e.Reason + ": " + e.Err.Error() }

// Unwrap returns what was wrong.
func (e *FreezeError) Unwrap() error { return e.Err }

// Is makes it an [ErrNotFound].
func (e *FreezeError) Is(target error) bool { return target == ErrNotFound }

// Change is a move that the pipeline makes with a campaign. It is a compare-and-set on Version, and writes the row, its event
// and what is to be published in one transaction.
type Change struct {
	Tenant, Campaign string
	Version          uint64
	To               State
	Trigger          Trigger
	Actor            Actor
	// Reason of a suspension or a failure, such as `route_down`.
	Reason string
	At     time.Time
	// Settled marks the campaign settled: Captured is billed and the rest of what was reserved is released. The state stays.
	Settled  bool
	Captured uint64 // micro-units
	// CapturedSoFar is what has been spent before the campaign settles: a running total, never an addition.
	CapturedSoFar uint64
	// MaxLeft is the most that the campaign can still cost beyond CapturedSoFar, nil when it is not known. What is reserved above it
	// is released.
	MaxLeft *uint64
}

// PublishedRow says what the newest record of a row of the control plane must be on its topic.
type PublishedRow struct {
	Type    EventType
	Key     string // of the record
	Version uint64
	// Tombstone: the topic must have no value for the key. The tombstone itself may have been compacted away.
	Tombstone bool
}

// OutboxRow is a row of the control plane whose newest version has not been published.
type OutboxRow struct {
	// Type says which table and so which topic: campaign, control or suppression.
	Type    EventType
	Key     string // of the record
	Tenant  string // "" of a route
	Version uint64
	// Value is the encoded record, nil for a tombstone.
	Value []byte
	Time  time.Time
}
