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

// Tenant is a customer of this installation, with its limits. In every type of this file the zero time means "never".
type Tenant struct {
	ID   string // tn_<random>
	Name string // unique
	// Enabled: when false, the scheduler deals nothing of the tenant and its API keys are refused.
	Enabled bool
	// CampaignsEnabled is the flag of R45, set by the system administrator.
	CampaignsEnabled bool
	Region           string // ISO 3166-1 alpha-2; numbers without a country code are read as numbers of this country
	Timezone         string // IANA
	Currency         string // ISO 4217
	DefaultRoute     string
	DefaultSender    string
	MaxActive        uint32 // campaigns at once (R154)
	MaxContacts      uint32 // per campaign (R153)
	MaxSegments      uint32 // per rendered text (C14)
	Rate             uint32 // messages per second over all campaigns, 0: no own limit
	Weight           uint32 // share relative to other tenants, 1..100
	Version          uint64
	Created, Updated time.Time
}

// TenantSpec has the fields that can be chosen for a new tenant. Every zero value means the default.
type TenantSpec struct {
	Name     string
	Region   string // default IT
	Timezone string // default: the main zone of the region, else UTC
	Currency string // default EUR
	Route    string // default sim
	// Credit in micro-units; nil is unlimited.
	Credit *uint64
}

// Scope is a permission of an API key.
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

// Key is an API key without its secret, which is shown only once, when the key is created.
type Key struct {
	ID      string // key_<random>
	Tenant  string
	Name    string
	Hint    string // the last four characters of the secret, for people
	Scopes  []Scope
	Test    bool // its messages go only to the simulator (X14)
	Version uint64
	Created time.Time
	Used    time.Time // last use, to the minute
	Revoked time.Time
}

// Has reports whether the key has a scope.
func (k *Key) Has(scope Scope) bool { return slices.Contains(k.Scopes, scope) }

// Route is one account at a carrier: a connector with its configuration and limits. Routes belong to the installation,
// not to a tenant.
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
	// Credentials are encrypted, see package schemas/credentials; nil: none. CredentialNames are the paths of the
	// values in them.
	Credentials     []byte
	CredentialNames []string
	// Priority (0 to 100) decides which route of a channel is chosen; the smallest is first. Among routes of equal
	// priority, the smallest Cost (micro-units per message) is first. Share (1 to 100) divides campaigns among routes
	// that are equal in both.
	Priority, Share  uint32
	Cost             uint64
	Care             Care
	Version          uint64
	Created, Updated time.Time
}

// Care says when campaigns that send by a route are suspended, and whether they are resumed when the cause is gone.
type Care struct {
	// DownAfter is how long the route must have been down (`route_down`), up to a day; 0: campaigns are not suspended
	// for it.
	DownAfter time.Duration
	// FailurePercent (0 to 100) of FailureSample (10 to 1,000,000) outcomes in a row of a campaign that failed
	// (`failure_rate`); 0: campaigns are not suspended for it.
	FailurePercent, FailureSample uint32
	// AutoResume: campaigns that were suspended for `route_down` or `provider_auth` are resumed when the route is up
	// again.
	AutoResume bool
	// NoFailover: the route carries no campaigns of other routes, and no other route carries its campaigns. It is so
	// unless an operator says otherwise, because sender ids are often registered with one carrier only.
	NoFailover bool
}

// DefaultCare is that of a route for which nothing else was set.
var DefaultCare = func() Care {
	c := schemas.DefaultCare()
	return Care{
		DownAfter: time.Duration(c.GetDownAfterMs()) * time.Millisecond, FailurePercent: c.GetFailurePercent(), FailureSample: c.GetFailureSample(), AutoResume: c.GetAutoResume(),
		NoFailover: c.GetNoFailover(),
	}
}()

// Sender is a sender id of a tenant.
type Sender struct {
	Tenant, ID       string
	Rate             uint32 // messages per second, 0: no own limit
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
	// Owed is the tenant's debt: credit that was withdrawn although campaigns had reserved it. A top-up pays it first.
	Owed uint64
}

// LedgerEntry is one movement of money. Every entry takes an amount from one account and adds it to another, so the sum
// over all accounts of a tenant is always 0.
type LedgerEntry struct {
	ID       uint64
	Tenant   string
	Campaign uint64 // number; 0 for a top-up
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
	Test    bool   // its campaigns are tests: not counted in statistics over all campaigns, in caps and in bills
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

// Contact is a person whom a tenant can send to.
type Contact struct {
	Tenant string
	Number uint64 // see [ContactID]
	Phone  string // E.164 with +
	// The same for all forms of the number, see [schemas.NumberKey]; unique among the tenant's contacts
	Key       string
	FirstName string
	LastName  string
	Email     string
	// Attributes are the merge fields other than names and e-mail. Names, e-mail, and keys and values of the attributes
	// have at most [audience.MaxAttributes] bytes together.
	Attributes map[string]string
	Country    string // ISO 3166-1 alpha-2, "" when unknown
	Zone       string // IANA: from attribute `timezone`, else from the number, else the tenant's
	Class      audience.Class
	// Valid: the number is assigned by the numbering plan of its country and can receive messages. A contact with an
	// invalid number is stored; in a campaign it becomes not_sent/INVALID_NUMBER (C30).
	Valid bool
	// OptIn is when the person opted in, and OptInSource where the consent comes from. The zero time: no consent.
	OptIn       time.Time
	OptInSource string
	Version     uint64
	Created     time.Time
	Updated     time.Time
	Deleted     time.Time
	// Position is the cursor of the contact in a list of contacts, for [ContactFilter].After.
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
	// After continues behind the contact with this position, instead of at a page. Contacts that are added or removed
	// meanwhile then cause no gap and no repetition.
	After uint64
}

// ImportOptions are the options of one import.
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
	// ImportQueued: no process has begun to import the uploaded file.
	ImportQueued  ImportState = "queued"
	ImportRunning ImportState = "running"
	ImportDone    ImportState = "done"
	// ImportFailed: the rest of the file cannot be read; the rows read before are kept.
	ImportFailed ImportState = "failed"
	// ImportCancelled: a client cancelled it; the rows read before are kept.
	ImportCancelled ImportState = "cancelled"
)

// ImportReport has the figures of an import, finished or not. Always Total = Imported + Updated + Unchanged +
// Duplicates + Invalid, and Total = RowsRead when it is done.
type ImportReport struct {
	ID       string // imp_<random>
	Tenant   string
	List     uint64
	Source   string
	State    ImportState
	Error    string // why it failed
	RowsRead uint64
	Total    uint64 // rows of data that are imported or refused so far
	Imported uint64 // contacts added to the list
	Updated  uint64 // contacts already in the list whose fields changed
	// Unchanged: contacts already in the list with the same fields.
	Unchanged  uint64
	Duplicates uint64 // rows with the number of an earlier row of the file, merged with it
	Invalid    uint64 // refused: no E.164 form, or a row that cannot be read
	// Unreachable is how many of Imported, Updated and Unchanged have an invalid number or a fixed line. They are
	// stored, and messages to them are not sent.
	Unreachable uint64
	// OptedOut is how many of Imported, Updated and Unchanged had opted out when the import began. They are stored, and
	// messages to them are not sent.
	OptedOut uint64
	// Rejected are the first [MaxRejected] refused rows; [Store.ImportRejects] returns all.
	Rejected []Rejected
	// Bytes is the size of an uploaded file, and BytesRead how many of them were read. Both are 0 when the file came
	// with the request.
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
	Line   uint64 // 1 is the first line of the file; in JSON, the first object
	Column string
	Value  string // at most 64 characters
	Reason string
}

// Spec has the fields of a campaign that the user sets (requirements §1a). It is stored as one JSON document, so a new
// field needs no migration.
type Spec struct {
	Name string
	// Chain of channels (X3): one, or several with fallback. Channel is its first.
	Chain      []schemas.Channel
	Body       string `json:",omitempty"` // text of the SMS of the chain, or of a call
	TemplateID string `json:",omitempty"`
	// Lists are numbers of contact lists, in order. A contact that is in several counts in the first.
	Lists  []uint64 `json:",omitempty"`
	Sender string   `json:",omitempty"`
	Route  string   `json:",omitempty"`
	Notes  string   `json:",omitempty"`
	Tags   []string `json:",omitempty"`
	// SendImmediately takes precedence over Schedule (C17).
	SendImmediately bool      `json:",omitempty"`
	Schedule        *Schedule `json:",omitempty"`
	CallingHours    *Hours    `json:",omitempty"`
	MaxSegments     uint32    `json:",omitempty"` // 0: the tenant's
	Rate            uint32    `json:",omitempty"` // messages per second, 0: no own limit
	Weight          uint32    `json:",omitempty"` // 1..100, relative to the tenant's other campaigns; 0 counts as 1
	// Validity is how long after a deal a message may still be handed over, at most 48 h.
	Validity      time.Duration         `json:",omitempty"`
	ReceiptWindow time.Duration         `json:",omitempty"` // 0: the route's
	Missing       schemas.MissingPolicy `json:",omitempty"`
	// MissingDefault replaces a missing merge field when Missing is MISSING_POLICY_DEFAULT.
	MissingDefault string `json:",omitempty"`
	// MaxRetries is the number of hand-overs after the first, for each leg; nil: the channel's default.
	MaxRetries *uint32 `json:",omitempty"`
	// RetryDelay is the wait before each retry; 0: the default waits, which grow.
	RetryDelay time.Duration `json:",omitempty"`
	// ReplayOf is the number of the campaign that this one repeats.
	ReplayOf uint64 `json:",omitempty"`
	// Values as the client wrote them, which the API returns: names or ids of Lists, whether it asked for a fallback,
	// its zone.
	ListRefs []string `json:",omitempty"`
	Fallback bool     `json:",omitempty"`
	Timezone string   `json:",omitempty"`
	// TestRun: the client asked for a test, or its API key is a test key. A campaign is a test also when one of its
	// lists is a test list.
	TestRun bool `json:",omitempty"`
	// ListEnds are the ends of Lists when the campaign was confirmed. Contacts that joined later are not in its
	// audience.
	ListEnds []int64 `json:",omitempty"`
	// Counted is when ListEnds were read. An opt-out that was lifted later still counts for this campaign.
	Counted time.Time `json:",omitzero"`
	// Ambiguous is the newest order about ambiguous recipients.
	Ambiguous *AmbiguousOrder `json:",omitempty"`
	// Fields of single kinds of campaigns. Parameters are the parameters of the first leg's template, by name or
	// number; the values are texts with merge fields.
	Parameters map[string]string `json:",omitempty"`
	Language   string            `json:",omitempty"`
	// Variants of the text of an SMS campaign; Body is empty then.
	Variants      []Variant `json:",omitempty"`
	Transliterate bool      `json:",omitempty"`
	Voice         *Voice    `json:",omitempty"`
	// Fallbacks describe the later legs of the chain, as far as the client gave them.
	Fallbacks []Fallback `json:",omitempty"`
	// Named has, for each leg in the order of the chain, the objects that its references stood for when they were last
	// looked up.
	Named []Named `json:",omitempty"`
	// Editors are the last people who changed the campaign, at most 20. None of them may be the second person who
	// confirms it.
	Editors []string `json:",omitempty"`
	// Traffic is outbound or inbound_outbound; "" is outbound (R35).
	Traffic string `json:",omitempty"`
	// RequireOptIn sends only to contacts that have opted in (R43).
	RequireOptIn bool `json:",omitempty"`
	// Batches are parts of the audience, each with its own start time (X9); Schedule is the start of the first.
	Batches []Batch `json:",omitempty"`
	// FrequencyCap is the campaign's own cap, in addition to the tenant's (X9).
	FrequencyCap *FrequencyCap `json:",omitempty"`
	// Countries counts by country the recipients that could be sent to when the campaign was confirmed.
	Countries map[string]uint32 `json:",omitempty"`
	// Forecast is what the confirm expected.
	Forecast *Forecast `json:",omitempty"`
	// Weights of the variants from confirm on, the newest last.
	Weights [][]uint32 `json:",omitempty"`
	// ShortenLinks replaces every web address in a text by a short link. UTM are the utm_ parameters that links get;
	// the keys lack the prefix utm_.
	ShortenLinks bool              `json:",omitempty"`
	UTM          map[string]string `json:",omitempty"`
	// LinkBase is the longest address before the token of a link, as it was when the campaign was last written; ""
	// without links. Texts are measured with it, so a domain with a longer address is not used.
	LinkBase string `json:",omitempty"`
	// LinkTable has the targets of the links, from confirm on; nil: the texts have no links.
	LinkTable *LinkTable `json:",omitempty"`
	// Domains are the numbers of the domains that links may be on; of a kind that none of them has, and when there are
	// none: all domains that the tenant may use.
	Domains []uint64 `json:",omitempty"`
}

// LinkTable has the targets of the links of a campaign (R39). It does not change once the campaign is confirmed.
type LinkTable struct {
	Base  string
	Links []Link `json:",omitempty"`
	// ValidAfterEnd is how long the links work after the campaign's end.
	ValidAfterEnd time.Duration
	// ShortDomains and OptOutDomains: links, or the opt-out link, are on domains, not on Base.
	ShortDomains  bool `json:",omitempty"`
	OptOutDomains bool `json:",omitempty"`
}

// Link is one link of a campaign: see [fanfarev1.Link].
type Link struct {
	Number  uint32
	ID      string
	URL     string
	Target  string `json:",omitempty"`
	Variant uint32 `json:",omitempty"`
}

// Batch is a part of an audience: Share percent of it, or Count recipients. The last batch has the rest of the
// audience.
type Batch struct {
	At           time.Time
	Share, Count uint32 `json:",omitempty"`
}

// BatchEnds returns the ends of the batches, as seqs, in an audience of total recipients.
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

// Voice has the settings of a telephone call (R21 to R27). Without Audio, the call speaks the campaign's Body.
type Voice struct {
	Queue         string `json:",omitempty"`
	MaxConcurrent uint32
	AMD           bool   `json:",omitempty"`
	AMDAction     string `json:",omitempty"` // hangup or voicemail
	Audio         string `json:",omitempty"` // https address
	RingSeconds   uint32 `json:",omitempty"`
}

// Fallback is a later leg of a chain. Empty fields have defaults: the SMS sends Body, and sender and route are the
// tenant's.
type Fallback struct {
	Channel    schemas.Channel
	Message    string            `json:",omitempty"` // text, or reference of a template
	Parameters map[string]string `json:",omitempty"`
	Language   string            `json:",omitempty"`
	Sender     string            `json:",omitempty"`
	Route      string            `json:",omitempty"`
}

// Named has the objects that the references of a leg stand for.
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

// Schedule is a start time as it was entered (C15): the instant, and the local time that it was computed from.
type Schedule struct {
	At   time.Time
	Zone string `json:",omitempty"` // IANA, "" when given as an instant
	Wall string `json:",omitempty"` // 2006-01-02T15:04 on the clock of Zone
}

// Hours are calling hours (R30–R32), in minutes after local midnight.
type Hours struct {
	Start, End uint32
	Zone       string
	// Recipients: the clocks of each recipient's own zones count, and Zone only for those of none (X11).
	Recipients bool `json:",omitempty"`
}

func (h *Hours) ofRecipients() bool { return h != nil && h.Recipients }

// Leg is one channel of the chain as it was confirmed, with its route, sender and price.
type Leg struct {
	Channel      schemas.Channel
	Route        string
	Sender       string
	Price        uint64 // micro-units, see [Prices]
	MaxHandovers uint32
	Backoff      []time.Duration
	// Prices are the prices of single countries; Price is the price of all others.
	Prices map[string]uint64 `json:",omitempty"`
	// Content is what the leg sends: an encoded [fanfarev1.Content], as in the campaign's record. Empty: the campaign's
	// text.
	Content []byte `json:",omitempty"`
	// MaxConcurrent is the most calls at the same time; 0: the campaign has no limit.
	MaxConcurrent uint32 `json:",omitempty"`
	// OtherRoutes carry the leg while Route is down or disabled, the best first.
	OtherRoutes []string `json:",omitempty"`
}

// Quote is the last price of a campaign.
type Quote struct {
	// Version identifies everything that the price depends on: price list, audience, body. Empty: not priced.
	Version  string
	Cost     uint64 // micro-units
	Contacts uint32 // recipients that would be sent to
}

// Forecast is what the confirm of a campaign expected of it, beside its cost ([Quote]).
type Forecast struct {
	// From is when sending was to begin; zero if a user starts the campaign.
	From time.Time `json:",omitzero"`
	// Seconds from then until the last message was to be handed over; nil: no forecast was possible.
	Seconds *int64 `json:",omitempty"`
	// Delivered is how many messages were to be delivered, by the tenant's campaigns before; nil: there were none.
	Delivered *uint64 `json:",omitempty"`
}

// Campaign is the current state of a campaign.
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
	// Legs are set from confirm on.
	Legs []Leg

	FreezeID string
	Total    uint32 // recipients, once frozen; in a hidden campaign, the seqs allotted so far

	Reserved, Captured uint64 // micro-units

	CreatedBy   string
	ConfirmedBy string
	Created     time.Time
	Updated     time.Time
	Confirmed   time.Time
	Scheduled   time.Time // not before this time; zero: at once, but in state ready: at a manual start
	Started     time.Time
	Completed   time.Time
	Settled     time.Time // no receipt is awaited any more
	// Ended is when it settled, was cancelled or failed: nothing follows.
	Ended   time.Time
	Deleted time.Time
	// Removed: lists of campaigns leave it out, unless deleted ones are asked for.
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
	IncludeDeleted bool // also removed campaigns
	// After is the number of the last campaign of the page before. Unlike with page numbers, campaigns that are added
	// or removed meanwhile cause no gap and no repetition. 0: from the first.
	After uint64
}

// Cause says who or what changes a row. It is written into the event of the change.
type Cause struct {
	Actor     schemas.Actor
	By        string // key id, or the name of a stage
	RequestID string
	Reason    string
}

// CampaignEvent is one entry of a campaign's history. Entries are added and never changed.
type CampaignEvent struct {
	ID       uint64
	Tenant   string
	Campaign uint64
	Version  uint64 // of the campaign after the change
	From, To schemas.State
	Trigger  schemas.Trigger // "" of a change without a move, such as a live patch or a capture
	Cause
	Time time.Time
}

// AudienceCount has the counts of the audience that a freeze would write now.
type AudienceCount struct {
	Total      uint32 // all recipients, with those that are not sent to
	Eligible   uint32 // those that would be sent to
	Invalid    uint32
	Duplicates uint32 // across lists
	OptedOut   uint32
	NotOptedIn uint32 // without consent, in a campaign that requires it
	Capped     uint32 // at their frequency cap
	OverQuota  uint32 // above the cap of their country
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
	// Reason in words, "" when none was given. By is who reported it; only entries of the log have it.
	Reason string
	By     string
	Lifted bool
	// Channels are the channels that the number has opted out of. In an entry of the log, they are the channels after
	// the change, and Scope is the channel that changed.
	Channels ChannelSet
	Scope    schemas.Channel
	Version  uint64
	Updated  time.Time
}

// ClaimState is the state in which a request finds its idempotency key.
type ClaimState uint8

// States of a claim.
const (
	// ClaimNew: the key was not used before. Do the work, then call Finish, or Forget when it failed and the client may
	// try again.
	ClaimNew ClaimState = iota
	// ClaimReplay: the request was done before; answer with Status and Response.
	ClaimReplay
	// ClaimInFlight: another request with the key runs, or its process died. Reserved, if not nil, are the ids that it
	// had reserved.
	ClaimInFlight
	// ClaimMismatch: the key was used before with another body.
	ClaimMismatch
	// ClaimUnknown: the first request has changed something, and ended without an answer long ago.
	ClaimUnknown
)

// Claim is the result of claiming an idempotency key (X12).
type Claim struct {
	Tenant, Route, Key string
	State              ClaimState
	Status             int
	Response           []byte
	Reserved           []byte
	// token changes when another request takes over an abandoned key, so that the old owner can no longer write.
	token int64
}

// Lease is a block of seqs of a hidden campaign.
type Lease struct {
	Campaign uint64 // number
	// Of the campaign that allots the block: send no message of the block before that version is published
	Version uint64
	First   uint32
	Count   uint32
}

// CampaignID returns the public id of the hidden campaign.
func (l Lease) CampaignID() string { return schemas.CampaignID(l.Campaign) }

// String returns the figures in one line.
func (r *ImportReport) String() string {
	return fmt.Sprintf("%d rows: %d imported, %d updated, %d unchanged, %d duplicates, %d refused",
		r.Total, r.Imported, r.Updated, r.Unchanged, r.Duplicates, r.Invalid)
}
