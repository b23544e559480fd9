package store

import (
	"errors"
	"fmt"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Errors beside those of package schemas ([schemas.ErrConflict], [schemas.ErrNotFound], [schemas.ErrTransition]).
var (
	// ErrNameTaken: the tenant has one of that name; see [NameError].
	ErrNameTaken = errors.New("name is taken")
	// ErrLimit: a limit of the tenant is reached; see [LimitError].
	ErrLimit = errors.New("limit reached")
	// ErrNoCredit: the balance does not cover it; see [CreditError].
	ErrNoCredit = errors.New("not enough credit")
	// ErrReserved: money is reserved for campaigns under way; let them settle first.
	ErrReserved = errors.New("money is reserved")
	// ErrFeatureOff: the tenant does not have the feature; see [FeatureError].
	ErrFeatureOff = errors.New("feature is off")
	// ErrInvalid: a value that cannot be stored; see [FieldError].
	ErrInvalid = errors.New("invalid value")
	// ErrNoKey: no such API key, a revoked one, or one of a tenant that is disabled. All three look the same from outside.
	ErrNoKey = errors.New("API key is not known")
	// ErrListGone: a list of the audience is not there any more.
	ErrListGone = errors.New("contact list is gone")
	// ErrStream: what was to be imported broke off; the report says how far it came.
	ErrStream = errors.New("import broke off")
	// ErrNoLead: the lead was lost; take it again before going on.
	ErrNoLead = errors.New("lead was lost")
)

// NameError is an [ErrNameTaken].
type NameError struct{ Kind, Name string }

func (e *NameError) Error() string { return fmt.Sprintf("%s %q: %v", e.Kind, e.Name, ErrNameTaken) }

// Unwrap returns [ErrNameTaken].
func (e *NameError) Unwrap() error { return ErrNameTaken }

// Limit names a limit of a tenant.
type Limit string

// Limits.
const (
	LimitActive   Limit = "max_active_campaigns"
	LimitContacts Limit = "max_contacts"
)

// LimitError is an [ErrLimit].
type LimitError struct {
	Limit     Limit
	Max, Want uint64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s: want %d, allowed %d: %v", e.Limit, e.Want, e.Max, ErrLimit)
}

// Unwrap returns [ErrLimit].
func (e *LimitError) Unwrap() error { return ErrLimit }

// CreditError is an [ErrNoCredit], in micro-units.
type CreditError struct{ Need, Have uint64 }

func (e *CreditError) Error() string {
	return fmt.Sprintf("need %d micros, have %d: %v", e.Need, e.Have, ErrNoCredit)
}

// Unwrap returns [ErrNoCredit].
func (e *CreditError) Unwrap() error { return ErrNoCredit }

// FeatureError is an [ErrFeatureOff].
type FeatureError struct{ Feature string }

func (e *FeatureError) Error() string { return fmt.Sprintf("%s: %v", e.Feature, ErrFeatureOff) }

// Unwrap returns [ErrFeatureOff].
func (e *FeatureError) Unwrap() error { return ErrFeatureOff }

// FieldError is an [ErrInvalid].
type FieldError struct {
	Field  string // as the Go type spells it
	Value  string // never a whole phone number or text
	Reason string // what is wanted instead
}

func (e *FieldError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("%s: %s", e.Field, e.Reason)
	}
	return fmt.Sprintf("%s %q: %s", e.Field, e.Value, e.Reason)
}

// Unwrap returns [ErrInvalid].
func (e *FieldError) Unwrap() error { return ErrInvalid }

// StateError is a [schemas.ErrTransition]: see [schemas.Allowed] for what is possible in State.
type StateError struct {
	State, To fanfarev1.State
	Trigger   schemas.Trigger
}

func (e *StateError) Error() string {
	return fmt.Sprintf("%s a campaign that is %s: %v", e.Trigger, schemas.StateName(e.State), schemas.ErrTransition)
}

// Unwrap returns [schemas.ErrTransition].
func (e *StateError) Unwrap() error { return schemas.ErrTransition }

// VersionError is a [schemas.ErrConflict].
type VersionError struct {
	Kind       string
	Want, Have uint64
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s: want version %d, it is %d: %v", e.Kind, e.Want, e.Have, schemas.ErrConflict)
}

// Unwrap returns [schemas.ErrConflict].
func (e *VersionError) Unwrap() error { return schemas.ErrConflict }

// notFound wraps [schemas.ErrNotFound] with what was looked for.
func notFound(kind, id string) error { return fmt.Errorf("%s %q: %w", kind, id, schemas.ErrNotFound) }
