package store

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Tenant is a customer of this installation and the bounds it works in. The zero time means "never" in every type here.
type Tenant struct {
	ID   string // tn_<random>
	Name string // unique
	// Enabled false: nothing is dealt and keys open nothing.
	Enabled bool
	// CampaignsEnabled is the flag of R45, set by the system administrator.
	CampaignsEnabled bool
	Region           string // ISO 3166-1 alpha-2: of numbers without a country code
	Timezone         string // IANA
	Currency         string // ISO 4217
	DefaultRoute     string
	DefaultSender    string
	MaxActive        uint32 // campaigns at once (R154)
	MaxContacts      uint32 // per campaign (R153)
	MaxSegments      uint32 // per rendered text (C14)
	Rate             uint32 // messages per second over all campaigns, 0: no limit of its own
	Weight           uint32 // share against other tenants, 1..100
	Version          uint64
	Created, Updated time.Time
}

// TenantSpec is what a new tenant may choose; every zero value takes the default.
type TenantSpec struct {
	Name     string
	Region   string // default IT
	Timezone string // default: the most populous zone of the region that is known, else UTC
	Currency string // default EUR
	Route    string // default sim
	// Credit in micro-units; nil is unlimited.
	Credit *uint64
}

// Scope is a right of a key.
type Scope string

// Scopes of a key.
const (
	ScopeRead      Scope = "read"
	ScopeCampaigns Scope = "campaigns"
	ScopeConfirm   Scope = "confirm"
	ScopeContacts  Scope = "contacts"
	ScopeSend      Scope = "send"
	ScopeAdmin     Scope = "admin"
)

// Scopes are all scopes; a new key has all but the last.
var Scopes = []Scope{ScopeRead, ScopeCampaigns, ScopeConfirm, ScopeContacts, ScopeSend, ScopeAdmin}

// Key is an API key, without its secret: that is shown once, when the key is made.
type Key struct {
	ID      string // key_<random>
	Tenant  string
	Name    string
	Hint    string // the last four characters of the secret, for people
	Scopes  []Scope
	Test    bool // reaches the simulator only (X14)
	Version uint64
	Created time.Time
	Used    time.Time // to the minute
	Revoked time.Time
}

// Has reports whether the key has a scope.
func (k *Key) Has(scope Scope) bool { return slices.Contains(k.Scopes, scope) }

// Route is a way to a carrier. Routes belong to the installation, not to a tenant.
type Route struct {
	Name             string // see [schemas.ValidRoute]
	Channels         []fanfarev1.Channel
	Connector        string // such as `sim`
	Rate             uint32 // messages per second, at least 1
	Burst            uint32 // 0: 100 ms of the rate
	P99              time.Duration
	ReceiptWindow    time.Duration
	Enabled          bool
	Version          uint64
	Created, Updated time.Time
}

// Sender is a sender id of a tenant.
type Sender struct {
	Tenant, ID       string
	Rate             uint32 // messages per second, 0: no limit of its own
	Version          uint64
	Created, Updated time.Time
}

// Prices of a tenant in micro-units per channel: of an SMS segment, an RCS or WhatsApp message, a voice minute.
type Prices map[fanfarev1.Channel]uint64

// Balance is a tenant's money, in micro-units of its currency.
type Balance struct {
	Unlimited bool
	Available uint64 // 0 when unlimited
	Reserved  uint64
	Captured  uint64
}

// LedgerEntry is one movement of money. Every entry takes from one account what it gives to another, so the sum over all
// accounts of a tenant is always 0.
type LedgerEntry struct {
	ID       uint64
	Tenant   string
	Campaign uint64 // number, 0 of a top-up
	From, To Account
	Micros   uint64
	Note     string
	Time     time.Time
}

// Account is one side of a ledger entry.
type Account string

// Accounts of a tenant.
const (
	AccountOutside   Account = "outside" // where top-ups come from
	AccountAvailable Account = "available"
	AccountReserved  Account = "reserved"
	AccountCaptured  Account = "captured"
)

// List is a contact list.
type List struct {
	Tenant  string
	Number  uint64
	Name    string // unique among the tenant's lists that are not deleted
	Test    bool   // its campaigns stay out of statistics over all campaigns, caps and bills
	Members uint64
	Version uint64
	Created time.Time
	Updated time.Time
	Deleted time.Time
}

const (
	listPrefix    = "list_"
	contactPrefix = "contact_"
)

// ID is the public id of the list, such as list_10001.
func (l *List) ID() string { return ListID(l.Number) }

// ListID returns the public id of a list.
func ListID(number uint64) string { return listPrefix + strconv.FormatUint(number, 10) }

// ListNumber reads the public id of a list.
func ListNumber(id string) (uint64, bool) { return parseID(id, listPrefix) }

// ContactID returns the public id of a contact, such as contact_17.
func ContactID(number uint64) string { return contactPrefix + strconv.FormatUint(number, 10) }

// ContactNumber reads the public id of a contact.
func ContactNumber(id string) (uint64, bool) { return parseID(id, contactPrefix) }

func parseID(id, prefix string) (uint64, bool) {
	digits, ok := strings.CutPrefix(id, prefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	return n, err == nil && digits == strconv.FormatUint(n, 10)
}

// Contact is a person of a tenant: one per number.
type Contact struct {
	Tenant    string
	Number    uint64 // see [ContactID]
	Phone     string // E.164 with +
	FirstName string
	LastName  string
	Email     string
	// Attributes are merge fields beside the names. All of them, names, e-mail, keys and values, are at most
	// [audience.MaxAttributes] bytes.
	Attributes map[string]string
	Country    string // ISO 3166-1 alpha-2, "" when unknown
	Zone       string // IANA: from attribute `timezone`, else from the number, else the tenant's
	Class      audience.Class
	// Valid: assigned by its country's plan and able to take messages. A number that is not is stored, and becomes
	// not_sent/INVALID_NUMBER (C30).
	Valid   bool
	Version uint64
	Created time.Time
	Updated time.Time
	Deleted time.Time
}

// ID is the public id of the contact.
func (c *Contact) ID() string { return ContactID(c.Number) }

// Page asks for a part of a list: Limit rows (1..1000, default 10) after Number*Limit rows.
type Page struct {
	Number int
	Limit  int
}

// ContactFilter chooses contacts of a tenant.
type ContactFilter struct {
	Page
	List           uint64 // number, 0: all contacts; in the order of the list, else by id
	Search         string // within phone, names and e-mail
	IncludeDeleted bool
}

// Format of an import.
type Format string

// Formats of an import.
const (
	FormatCSV  Format = "csv"  // a header row; comma, semicolon, tab or bar between cells; UTF-8, or UTF-16 with its mark
	FormatJSON Format = "json" // an array of flat objects, or such objects one after the other
)

// ImportOptions of one import.
type ImportOptions struct {
	Format Format
	// Region of numbers without a country code; default the tenant's.
	Region string
	// Columns names the field (phone, first_name, last_name, email, or an attribute) of a column, over what its header says.
	// The field "-" leaves a column out.
	Columns map[string]string
	// Source names the file for people.
	Source string
}

// ImportState of an import.
type ImportState string

// States of an import.
const (
	ImportRunning ImportState = "running"
	ImportDone    ImportState = "done"
	// ImportFailed: the stream broke; what was read before is kept.
	ImportFailed ImportState = "failed"
)

// ImportReport says what an import did, or has done so far.
// Always Total = Imported + Updated + Unchanged + Duplicates + Invalid, and Total = RowsRead when it is done.
type ImportReport struct {
	ID       string // imp_<random>
	Tenant   string
	List     uint64
	Source   string
	State    ImportState
	Error    string // of a failed one
	RowsRead uint64
	Total    uint64 // rows of data that are accounted for
	Imported uint64 // new in the list
	Updated  uint64 // in the list already, with other fields
	// Unchanged: in the list already, as the row has it.
	Unchanged  uint64
	Duplicates uint64 // repeats within the file, merged with the first
	Invalid    uint64 // refused: no E.164 form, or a row that cannot be read
	// Unreachable of Imported, Updated and Unchanged: stored, but not valid or a fixed line; will not be sent to.
	Unreachable uint64
	// Rejected are the first [MaxRejected] of Invalid.
	Rejected []Rejected
	Started  time.Time
	// Seen is when these figures were last written.
	Seen     time.Time
	Finished time.Time
}

// MaxRejected is how many refused rows a report names.
const MaxRejected = 1000

// Rejected is a row that an import refused.
type Rejected struct {
	Line   uint64 // 1 is the first line of the file; of JSON, 1 is the first object
	Column string
	Value  string // at most 64 characters
	Reason string
}

// Spec is what the user says about a campaign (requirements §1a). It is stored as one document: a field more needs no migration.
type Spec struct {
	Name string
	// Chain of channels (X3): one, or several with fallback. Channel is its first.
	Chain      []fanfarev1.Channel
	Body       string `json:",omitempty"` // text for SMS
	TemplateID string `json:",omitempty"`
	// Lists by number, in order: the first that holds a number keeps it.
	Lists  []uint64 `json:",omitempty"`
	Sender string   `json:",omitempty"`
	Route  string   `json:",omitempty"`
	Notes  string   `json:",omitempty"`
	Tags   []string `json:",omitempty"`
	// SendImmediately wins over Schedule (C17).
	SendImmediately bool      `json:",omitempty"`
	Schedule        *Schedule `json:",omitempty"`
	CallingHours    *Hours    `json:",omitempty"`
	MaxSegments     uint32    `json:",omitempty"` // 0: the tenant's
	Rate            uint32    `json:",omitempty"` // messages per second, 0: no limit of its own
	Weight          uint32    `json:",omitempty"` // 1..100 against the tenant's other campaigns; 0 counts as 1
	// Validity is how long after a deal a message may still be handed over, at most 48 h.
	Validity      time.Duration           `json:",omitempty"`
	ReceiptWindow time.Duration           `json:",omitempty"` // 0: the route's
	Missing       fanfarev1.MissingPolicy `json:",omitempty"`
	// MissingDefault stands for a missing merge field when Missing is MISSING_POLICY_DEFAULT.
	MissingDefault string `json:",omitempty"`
	// MaxRetries are hand-overs after the first of each leg; nil: the channel's default.
	MaxRetries *uint32 `json:",omitempty"`
	// RetryDelay before each retry; 0: the default, growing one.
	RetryDelay time.Duration `json:",omitempty"`
	// ReplayOf is the number of the campaign that this one repeats.
	ReplayOf uint64 `json:",omitempty"`
	// As the client wrote them, to be said back: its names or ids of Lists, whether it asked for a fallback, its zone.
	ListRefs []string `json:",omitempty"`
	Fallback bool     `json:",omitempty"`
	Timezone string   `json:",omitempty"`
	// TestRun: the client, or the kind of its key, wants nobody to be reached. A list of testers makes a test of any campaign.
	TestRun bool `json:",omitempty"`
	// ListEnds are where Lists ended when the campaign was confirmed: who joined later is not in its audience.
	ListEnds []int64 `json:",omitempty"`
	// Counted is when they were: an opt-out that was lifted later stands for this campaign.
	Counted time.Time `json:",omitzero"`
}

// Channel is the first channel of the chain.
func (s *Spec) Channel() fanfarev1.Channel {
	if len(s.Chain) == 0 {
		return fanfarev1.Channel_CHANNEL_UNSPECIFIED
	}
	return s.Chain[0]
}

// Schedule is a start as it was entered (C15): the instant, and the clock it was read from.
type Schedule struct {
	At   time.Time
	Zone string `json:",omitempty"` // IANA, "" when given as an instant
	Wall string `json:",omitempty"` // 2006-01-02T15:04 on the clock of Zone
}

// Hours are calling hours (R30–R32), in minutes after local midnight.
type Hours struct {
	Start, End uint32
	Zone       string
}

// Leg is one channel of the chain as it was confirmed: with its way and its price.
type Leg struct {
	Channel      fanfarev1.Channel
	Route        string
	Sender       string
	Price        uint64 // micro-units, see [Prices]
	MaxHandovers uint32
	Backoff      []time.Duration
}

// Quote is what a campaign was last priced at.
type Quote struct {
	// Version stands for everything the price depends on: rates, audience, body. Empty: not priced.
	Version  string
	Cost     uint64 // micro-units
	Contacts uint32 // who would be sent to
}

// Campaign is a campaign as it stands.
type Campaign struct {
	Tenant  string
	Number  uint64
	Version uint64
	State   fanfarev1.State
	Reason  string // of a suspension, a rejection, a failure
	// Hidden campaigns hold the single sends of a UTC day; lists leave them out.
	Hidden bool
	Test   bool // of a test key or a test list

	Spec
	Region   string // the tenant's, as it was at creation
	Currency string
	Quote    Quote
	// Legs, from confirm on.
	Legs []Leg

	FreezeID string
	Total    uint32 // recipients once frozen; of a hidden campaign the seqs allotted

	Reserved, Captured uint64 // micro-units

	CreatedBy   string
	ConfirmedBy string
	Created     time.Time
	Updated     time.Time
	Confirmed   time.Time
	Scheduled   time.Time // start not before; zero in state ready: waits for a manual start, else: at once
	Started     time.Time
	Completed   time.Time
	Settled     time.Time // no receipt is awaited any more
	// Ended: nothing follows any more: settled, cancelled or failed.
	Ended   time.Time
	Deleted time.Time
	// Removed: gone from lists too, unless they are asked for with what was deleted.
	Removed bool
}

// ID is the public id of the campaign.
func (c *Campaign) ID() string { return schemas.CampaignID(c.Number) }

// CampaignFilter chooses campaigns of a tenant (X2). Newest first.
type CampaignFilter struct {
	Page
	Search         string    // within the name
	From, To       time.Time // of creation, [From, To)
	States         []fanfarev1.State
	Channels       []fanfarev1.Channel
	Tag            string
	Oldest         bool // oldest first
	IncludeDeleted bool // those that were removed too
	// After continues a list: the number of the last campaign seen; stable under inserts. 0: from the first.
	After uint64
}

// Cause is who or what changes a row, and goes into its event.
type Cause struct {
	Actor     schemas.Actor
	By        string // key id, or the name of a stage
	RequestID string
	Reason    string
}

// CampaignEvent is one line of a campaign's history. It is only ever added.
type CampaignEvent struct {
	ID       uint64
	Tenant   string
	Campaign uint64
	Version  uint64 // of the row it led to
	From, To fanfarev1.State
	Trigger  schemas.Trigger // "" of a change without a move, such as a live patch or a capture
	Cause
	Time time.Time
}

// AudienceCount is what a freeze would find now.
type AudienceCount struct {
	Total      uint32 // every seq there would be
	Eligible   uint32 // those that would be sent to
	Invalid    uint32
	Duplicates uint32 // across lists
	OptedOut   uint32
	// Countries counts the eligible by country.
	Countries map[string]uint32

	ends []int64 // of the lists
}

// Suppression is an opt-out of a tenant.
type Suppression struct {
	Tenant string
	Phone  string // E.164 with +
	// Source: api, keyword, link or carrier.
	Source  string
	Lifted  bool
	Version uint64
	Updated time.Time
}

// ClaimState says what became of an idempotency key.
type ClaimState uint8

// States of a claim.
const (
	// ClaimNew: nobody used the key before. Do the work, then Finish, or Forget when it failed and may be tried again.
	ClaimNew ClaimState = iota
	// ClaimReplay: done before; Status and Response are to be answered again.
	ClaimReplay
	// ClaimInFlight: somebody is at it, or died at it. Reserved, if not nil, is what they had reserved.
	ClaimInFlight
	// ClaimMismatch: used before with another body.
	ClaimMismatch
)

// Claim is the answer about an idempotency key (X12).
type Claim struct {
	Tenant, Route, Key string
	State              ClaimState
	Status             int
	Response           []byte
	Reserved           []byte
	// token tells the owner from one who took over an abandoned key.
	token int64
}

// Lease is a block of seqs of a hidden campaign.
type Lease struct {
	Campaign uint64 // number
	Version  uint64 // of the campaign that allots the block: a message of it must not outrun that record
	First    uint32
	Count    uint32
}

// CampaignID is the public id of the hidden campaign.
func (l Lease) CampaignID() string { return schemas.CampaignID(l.Campaign) }

// String says the figures in one line.
func (r *ImportReport) String() string {
	return fmt.Sprintf("%d rows: %d imported, %d updated, %d unchanged, %d duplicates, %d refused",
		r.Total, r.Imported, r.Updated, r.Unchanged, r.Duplicates, r.Invalid)
}
