package schemas

import (
	"crypto/sha256"
	"encoding/base32"
	"slices"
	"strings"
	"time"
)

// WebhookEvent is a word for a family of events that are posted to webhooks.
type WebhookEvent string

// Events of webhooks. INBOUND, CLICK and OPT_OUT are accepted once this version can receive replies and clicks.
const (
	WebhookDelivery WebhookEvent = "DELIVERY" // a message was sent, delivered, failed or expired
	WebhookRead     WebhookEvent = "READ"     // the recipient has opened it, where the channel tells
	WebhookCampaign WebhookEvent = "CAMPAIGN" // a campaign changed its state
	WebhookEndpoint WebhookEvent = "ENDPOINT" // another endpoint of the tenant was disabled
	WebhookTest     WebhookEvent = "TEST"     // asked for with POST …/test; every endpoint gets it
	WebhookInbound  WebhookEvent = "INBOUND"
	WebhookClick    WebhookEvent = "CLICK"
	WebhookOptOut   WebhookEvent = "OPT_OUT"
)

// WebhookEvents are those that a filter may name; LaterWebhookEvents are known words for what does not occur yet.
var (
	WebhookEvents      = []WebhookEvent{WebhookDelivery, WebhookRead, WebhookCampaign, WebhookEndpoint}
	LaterWebhookEvents = []WebhookEvent{WebhookInbound, WebhookClick, WebhookOptOut}
)

// WebhookTestType is the type of a test event. It is tried once.
const WebhookTestType = "webhook.test"

// WebhookStatus is what became of a message, in the words of webhooks (X6).
type WebhookStatus string

// Statuses of DELIVERY and READ events.
const (
	WebhookSent      WebhookStatus = "SENT"      // the carrier has taken it
	WebhookDelivered WebhookStatus = "DELIVERED" // it has arrived
	WebhookError     WebhookStatus = "ERROR"     // it will not arrive; subStatus says why
	WebhookExpired   WebhookStatus = "EXPIRED"   // its time was over before it could be sent or delivered
)

// WebhookStatuses are all statuses.
var WebhookStatuses = []WebhookStatus{WebhookSent, WebhookDelivered, WebhookError, WebhookExpired}

// WebhookStatusOf returns event and status of a delivery event; ok is false for an event that decides nothing, because
// another try may follow or the outcome is not known: webhooks do not get it.
func WebhookStatusOf(kind Kind, code Code) (event WebhookEvent, status WebhookStatus, ok bool) {
	switch kind {
	case KindSent:
		return WebhookDelivery, WebhookSent, true
	case KindDelivered:
		return WebhookDelivery, WebhookDelivered, true
	case KindRead:
		return WebhookRead, WebhookDelivered, true
	case KindNotSent, KindSkipped, KindUndelivered:
		switch code {
		case CodeExpired, CodeValidityExpired, CodeQuietHoursExpired:
			return WebhookDelivery, WebhookExpired, true
		default:
			return WebhookDelivery, WebhookError, true
		}
	default:
		return "", "", false
	}
}

// Webhook is an endpoint as the webhook stage needs it.
type Webhook struct {
	Tenant string
	Number uint64
	// Created: it is told of nothing that happened before.
	Created time.Time
	WebhookSettings
}

// WebhookSettings are what a tenant has set. They are the JSON document of the resource.
type WebhookSettings struct {
	URL string `json:"url"`
	// Filters; empty: all.
	Events    []WebhookEvent  `json:"events"`
	Statuses  []WebhookStatus `json:"statuses"`
	Campaigns []uint64        `json:"campaigns"`
	Channels  []string        `json:"channels"`
	// Batch is the most events in one request; 0 and 1: each event is a request of its own.
	Batch int `json:"batch"`
	// Secrets sign, all of them; the newest comes first. Signing needs them readable.
	Secrets []WebhookSecret `json:"secrets"`
	// Reason and Disabled say why and when the stage disabled the endpoint.
	Reason   string    `json:"reason"`
	Disabled time.Time `json:"disabled"`
}

// WebhookSecret signs until a time; the newest has none.
type WebhookSecret struct {
	Value string    `json:"value"` // whsec_ and base64
	Until time.Time `json:"until"`
}

// WebhookFacts are what filters look at.
type WebhookFacts struct {
	Event    WebhookEvent
	Status   WebhookStatus // of DELIVERY and READ
	Campaign uint64        // 0 of a single send
	Channels []Channel
}

// Wants reports whether the filters let an event through.
func (s *WebhookSettings) Wants(f WebhookFacts) bool {
	if f.Event == WebhookTest {
		return true
	}
	if len(s.Events) > 0 && !slices.Contains(s.Events, f.Event) {
		return false
	}
	if f.Event == WebhookEndpoint {
		return true
	}
	if f.Status != "" && len(s.Statuses) > 0 && !slices.Contains(s.Statuses, f.Status) {
		return false
	}
	if len(s.Campaigns) > 0 && !slices.Contains(s.Campaigns, f.Campaign) {
		return false
	}
	return len(s.Channels) == 0 || slices.ContainsFunc(f.Channels, func(c Channel) bool { return slices.Contains(s.Channels, ChannelName(c)) })
}

// WebhookEventID turns what identifies an event among those of its kind into the id that receivers see. It is the same however often
// the event is read, and has no dot in it, as Standard Webhooks demands.
func WebhookEventID(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return "evt_" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:15]))
}

// WebhookItemState says where an event stands at an endpoint.
type WebhookItemState int64

// States of an event at an endpoint.
const (
	WebhookPending WebhookItemState = 0
	WebhookDone    WebhookItemState = 1
	WebhookGivenUp WebhookItemState = 2
)

// String returns pending, delivered or failed.
func (s WebhookItemState) String() string {
	return [...]string{"pending", "delivered", "failed"}[s]
}

// WebhookItem is one event for one endpoint.
type WebhookItem struct {
	ID       uint64 // in the order in which events were queued
	Tenant   string
	Endpoint uint64
	EventID  string
	Type     string
	// Order is what the order is kept for: the id of a message or of a campaign.
	Order string
	// Data is a JSON object; empty once it was delivered.
	Data []byte
	// Reference is the client's own of the message; "" when it gave none, or when the stage has not seen it yet.
	Reference string
	Time      time.Time // of the event
	// Due is when the event is tried next, of a pending one; zero in one that is queued: at once.
	Due time.Time

	State  WebhookItemState
	Tries  int
	Tried  time.Time     // the last time
	Status int           // HTTP status of the last answer, 0: there was none
	Answer string        // first bytes of the last answer
	Error  string        // why the last try failed
	Took   time.Duration // the last try
}

// WebhookReference is the client's reference of a message.
type WebhookReference struct {
	Tenant, Message, Reference string
}

// WebhookHealth is what the stage knows of an endpoint beside its settings.
type WebhookHealth struct {
	Endpoint uint64
	// NotBefore: nothing is posted before, because the endpoint fails or asked for patience.
	NotBefore time.Time
	Failures  int       // in a row
	Failing   time.Time // since when; zero: the last try went well
	Succeeded time.Time // the last time; zero: never
	Recover   time.Time // events since then are to be queued again; zero: none are
	// Due is when the next pending event is due; zero: there is none.
	Due time.Time
}

// WebhookOutcome is what came of one try to deliver events to an endpoint.
type WebhookOutcome struct {
	Endpoint uint64
	// Items with what the try made of them.
	Items []WebhookItem
	// Health after the try.
	Health WebhookHealth
}

// CampaignMove is a change of a campaign's state.
type CampaignMove struct {
	// ID is the same for the same change.
	ID       string
	From, To State
	Reason   string // of a suspension, a rejection or a failure
	Time     time.Time
}
