package store

import (
	"errors"
	"fmt"
	"strings"

	"fanfare/schemas"
	"fanfare/schemas/text"
)

// Errors beside those of package schemas ([schemas.ErrConflict], [schemas.ErrNotFound], [schemas.ErrTransition]).
var (
	// ErrNameTaken means that the tenant already has one with that name; see [NameError].
	ErrNameTaken = errors.New("name is taken")
	// ErrLimit means that a limit of the tenant is reached; see [LimitError].
	ErrLimit = errors.New("limit reached")
	// ErrNoCredit means that the balance is too small; see [CreditError].
	ErrNoCredit = errors.New("not enough credit")
	// ErrReserved means that money is reserved for campaigns that have not settled. They must settle first.
	ErrReserved = errors.New("money is reserved")
	// ErrFeatureOff means that the tenant does not have the feature; see [FeatureError].
	ErrFeatureOff = errors.New("feature is off")
	// ErrInvalid means that a value cannot be stored; see [FieldError].
	ErrInvalid = errors.New("invalid value")
	// ErrNoKey means that an API key does not exist, is revoked, or belongs to a disabled tenant. Clients cannot
	// distinguish these.
	ErrNoKey = errors.New("API key is not known")
	// ErrListGone means that a list of the audience was deleted.
	ErrListGone = errors.New("contact list was deleted")
	// ErrStream means that the stream to import ended early or failed. The report says how many rows were read.
	ErrStream = errors.New("import stopped")
	// ErrNoLead means that this process does not lead any more. It must call [Store.Lead] again before it continues.
	ErrNoLead = errors.New("lead was lost")
	// ErrUnknown means that the connection to the database failed during a commit, and that the database did not answer
	// in time whether it has committed.
	ErrUnknown = errors.New("change may have been saved")
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
	LimitJobs     Limit = "max_open_jobs"
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

// NumberError is an [ErrInvalid] about a phone number; Err is what package phone says.
type NumberError struct{ Err error }

func (e *NumberError) Error() string { return "phone number: " + e.Err.Error() }

// Unwrap returns [ErrInvalid] and Err.
func (e *NumberError) Unwrap() []error { return []error{ErrInvalid, e.Err} }

// StateError is a [schemas.ErrTransition]: see [schemas.Allowed] for what is possible in State.
type StateError struct {
	State, To schemas.State
	Trigger   schemas.Trigger
}

func (e *StateError) Error() string {
	return fmt.Sprintf("%s a campaign that is %s: %v", e.Trigger, schemas.StateName(e.State), schemas.ErrTransition)
}

// Unwrap returns [schemas.ErrTransition].
func (e *StateError) Unwrap() error { return schemas.ErrTransition }

// UsingCampaign is a campaign that uses something.
type UsingCampaign struct {
	ID, Name string
	State    schemas.State
}

// ListUsedError is a [schemas.ErrConflict]: campaigns that have not ended use a list. The newest are first.
type ListUsedError struct {
	List      uint64
	Campaigns []UsingCampaign
}

func (e *ListUsedError) Error() string {
	return fmt.Sprintf("%s is used by %d campaigns: %v", ListID(e.List), len(e.Campaigns), schemas.ErrConflict)
}

// Sentence names the campaigns, the first ten of them.
func (e *ListUsedError) Sentence() string {
	const most = 10
	var b strings.Builder
	for i, c := range e.Campaigns[:min(len(e.Campaigns), most)] {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %q (%s)", c.ID, text.Shorten(c.Name, 60), schemas.StateName(c.State))
	}
	if over := len(e.Campaigns) - most; over > 0 {
		fmt.Fprintf(&b, " and %d more", over)
	}
	if len(e.Campaigns) == 1 {
		return "Campaign " + b.String() + " uses it and has not ended."
	}
	return "Campaigns " + b.String() + " use it and have not ended."
}

// Unwrap returns [schemas.ErrConflict].
func (e *ListUsedError) Unwrap() error { return schemas.ErrConflict }

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
