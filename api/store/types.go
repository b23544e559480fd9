package store

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"fanfare/api/importfile"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	"fanfare/schemas/pricing"
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

// Route is a way to a carrier: an account of a connector, with its limits. Routes belong to the installation, not to a tenant.
type Route struct {
	Name          string // see [schemas.ValidRoute]
	Channels      []schemas.Channel
	Connector     string // such as `sim`
	Rate          uint32 // messages per second, at least 1
	Burst         uint32 // 0: 100 ms of the rate
	P99           time.Duration
	ReceiptWindow time.Duration
	Enabled       bool
	// Configuration of the connector, a JSON object; empty: none. It has no credentials.
	Configuration string
	// Credentials are sealed, see package schemas/credentials; nil: none. CredentialNames are the paths of what is in them.
	Credentials     []byte
	CredentialNames []string
	// Priority, 0 to 100, and among equals Cost in micro-units a message choose a route of a channel, the smaller first. Share, 1 to 100,
	// divides campaigns among routes that are equal in both.
	Priority, Share  uint32
	Cost             uint64
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

// Prices are a tenant's price list, in micro-units of its currency.
type Prices = pricing.List

// Balance is a tenant's money, in micro-units of its currency.
type Balance struct {
	Unlimited bool
	Available uint64 // 0 when unlimited
	Reserved  uint64
	Captured  uint64
	// Owed is what was taken back of the credit although it was reserved: a top-up pays it first.
	Owed uint64
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

// Contact is a person of a tenant.
type Contact struct {
	Tenant    string
	Number    uint64 // see [ContactID]
	Phone     string // E.164 with +
	Key       string // of the person: see [schemas.NumberKey]; one contact of a tenant has it
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
	Valid bool
	// OptIn is when the person agreed to be written to, and OptInSource how that is known; the zero time: they did not.
	OptIn       time.Time
	OptInSource string
	Version     uint64
	Created     time.Time
	Updated     time.Time
	Deleted     time.Time
	// Position of a contact in a page, by which [ContactFilter].After continues it.
	Position uint64
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
	// After continues a list after the contact of this position, instead of at a page: it skips and repeats no contact while others
	// come and go.
	After uint64
}

// ImportOptions of one import.
type ImportOptions struct {
	Format importfile.Format
	// Charset of the file: see [importfile.Options].
	Charset string
	// Region of numbers without a country code; default the tenant's.
	Region string
	// Columns maps headers to fields: see [importfile.Options].
	Columns map[string]string
	// Source is the name of the file, shown in reports.
	Source string
}

// ImportState of an import.
type ImportState string

// States of an import.
const (
	// ImportQueued: of an uploaded file, no process has begun it.
	ImportQueued  ImportState = "queued"
	ImportRunning ImportState = "running"
	ImportDone    ImportState = "done"
	// ImportFailed: the file cannot be read on; what was read before is kept.
	ImportFailed ImportState = "failed"
	// ImportCancelled: somebody ended it; what was read before is kept.
	ImportCancelled ImportState = "cancelled"
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
	// OptedOut of Imported, Updated and Unchanged: stored, but had opted out when the import began; will not be sent to.
	OptedOut uint64
	// Rejected are the first [MaxRejected] of Invalid; [Store.ImportRejects] returns all.
	Rejected []Rejected
	// Bytes of an uploaded file, and how many of them were read. 0 of a file that came with the request.
	Bytes, BytesRead uint64
	Started          time.Time
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
	Chain      []schemas.Channel
	Body       string `json:",omitempty"` // text of the SMS of the chain, or of a call
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
	Validity      time.Duration         `json:",omitempty"`
	ReceiptWindow time.Duration         `json:",omitempty"` // 0: the route's
	Missing       schemas.MissingPolicy `json:",omitempty"`
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
	// Ambiguous is the newest order about ambiguous recipients.
	Ambiguous *AmbiguousOrder `json:",omitempty"`
	// What the kind of campaign adds. Parameters are those of the template of the first leg, by name or number: texts with merge fields.
	Parameters map[string]string `json:",omitempty"`
	Language   string            `json:",omitempty"`
	// Variants of the text of an SMS campaign; Body is empty then.
	Variants      []Variant `json:",omitempty"`
	Transliterate bool      `json:",omitempty"`
	Voice         *Voice    `json:",omitempty"`
	// Fallbacks are the later legs of the chain as far as they were given.
	Fallbacks []Fallback `json:",omitempty"`
	// Named says what the references of each leg stand for, in the order of the chain, as it was when they were last looked up.
	Named []Named `json:",omitempty"`
	// Editors are the last of those who wrote the campaign, at most 20: none of them is the second person who confirms it.
	Editors []string `json:",omitempty"`
	// Traffic is outbound or inbound_outbound; "" is outbound (R35).
	Traffic string `json:",omitempty"`
	// RequireOptIn sends to contacts that have opted in only (R43).
	RequireOptIn bool `json:",omitempty"`
	// Batches are parts of the audience, each sent from its time on (X9); Schedule is that of the first.
	Batches []Batch `json:",omitempty"`
	// FrequencyCap of the campaign, beside the tenant's (X9).
	FrequencyCap *FrequencyCap `json:",omitempty"`
	// Countries of those who would be sent to when the campaign was confirmed.
	Countries map[string]uint32 `json:",omitempty"`
	// Weights of the variants from confirm on, the newest last.
	Weights [][]uint32 `json:",omitempty"`
	// ShortenLinks makes a link of every address of a text. UTM are parameters that links get, without utm_.
	ShortenLinks bool              `json:",omitempty"`
	UTM          map[string]string `json:",omitempty"`
	// LinkBase is what stands before the tokens of links, as it was when the campaign was last written; "" without links.
	LinkBase string `json:",omitempty"`
	// LinkTable is where links lead, from confirm on; nil: the texts have none.
	LinkTable *LinkTable `json:",omitempty"`
}

// LinkTable is where the links of a campaign lead (R39). It does not change once the campaign is confirmed.
type LinkTable struct {
	Base  string
	Links []Link `json:",omitempty"`
	// ValidAfterEnd is how long after the campaign's end its links lead anywhere.
	ValidAfterEnd time.Duration
}

// Link is one link of a campaign: see [fanfarev1.Link].
type Link struct {
	Number  uint32
	ID      string
	URL     string
	Target  string `json:",omitempty"`
	Variant uint32 `json:",omitempty"`
}

// Batch is a part of an audience: Share percent of it, or Count recipients. The last batch has whoever is left.
type Batch struct {
	At           time.Time
	Share, Count uint32 `json:",omitempty"`
}

// BatchEnds are the ends of the batches in an audience of total recipients, in order of seq.
func (s *Spec) BatchEnds(total uint32) []uint32 {
	out := make([]uint32, len(s.Batches))
	end := uint64(0)
	for i, b := range s.Batches {
		if end += uint64(b.Count) + (uint64(b.Share)*uint64(total)+99)/100; end > uint64(total) || i == len(out)-1 {
			end = uint64(total)
		}
		out[i] = uint32(end)
	}
	return out
}

// Variant is one of several texts that are compared with each other (R38).
type Variant struct {
	Name, Body string
	Weight     uint32
}

// Voice is how a telephone call goes (R21 to R27). Without Audio the campaign's Body is spoken.
type Voice struct {
	Queue         string `json:",omitempty"`
	MaxConcurrent uint32
	AMD           bool   `json:",omitempty"`
	AMDAction     string `json:",omitempty"` // hangup or voicemail
	Audio         string `json:",omitempty"` // https address
	RingSeconds   uint32 `json:",omitempty"`
}

// Fallback is a later leg of a chain. Empty fields have defaults: the SMS sends Body, and sender and route are the tenant's.
type Fallback struct {
	Channel    schemas.Channel
	Message    string            `json:",omitempty"` // text, or reference of a template
	Parameters map[string]string `json:",omitempty"`
	Language   string            `json:",omitempty"`
	Sender     string            `json:",omitempty"`
	Route      string            `json:",omitempty"`
}

// Named is what the references of a leg stand for.
type Named struct {
	Sender       string `json:",omitempty"` // name of the agent or channel
	Template     string `json:",omitempty"` // its name
	TemplateID   string `json:",omitempty"`
	TemplateType string `json:",omitempty"`
}

// Channel is the first channel of the chain.
func (s *Spec) Channel() schemas.Channel {
	if len(s.Chain) == 0 {
		return schemas.ChannelUnspecified
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
	Channel      schemas.Channel
	Route        string
	Sender       string
	Price        uint64 // micro-units, see [Prices]
	MaxHandovers uint32
	Backoff      []time.Duration
	// Prices of single countries; Price is that of all others.
	Prices map[string]uint64 `json:",omitempty"`
	// Content is what the leg sends: a [fanfarev1.Content] as in the campaign's record. Empty: the campaign's text.
	Content []byte `json:",omitempty"`
	// MaxConcurrent calls at the same time; 0: no limit of the campaign's own.
	MaxConcurrent uint32 `json:",omitempty"`
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
	State   schemas.State
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
	States         []schemas.State
	Channels       []schemas.Channel
	Tag            string
	Oldest         bool // oldest first
	IncludeDeleted bool // those that were removed too
	// After continues a list: the number of the last campaign seen. Unlike a page it skips and repeats no campaign while others come
	// and go. 0: from the first.
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
	From, To schemas.State
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
	NotOptedIn uint32 // of a campaign that requires it
	Capped     uint32 // had enough messages
	OverQuota  uint32 // of countries that had enough
	// Countries counts the eligible by country.
	Countries map[string]uint32

	ends []int64 // of the lists
}

// Suppression is an opt-out of a tenant.
type Suppression struct {
	Tenant string
	Phone  string // E.164 with +
	// Source: api, import, keyword, link or carrier.
	Source string
	// Reason in words, "" when none was given. By is who said so, of entries of the log.
	Reason string
	By     string
	Lifted bool
	// Channels are what the number has opted out of; of an entry of the log, after the change, whose channel is Scope.
	Channels ChannelSet
	Scope    schemas.Channel
	Version  uint64
	Updated  time.Time
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
	// ClaimUnknown: the first request has changed something, and ended without an answer long ago.
	ClaimUnknown
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
