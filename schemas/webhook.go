package schemas

import (
	"crypto/sha256"
	"encoding/base32"
	"slices"
	"strings"
	"time"
)

// WebhookEvent is a category of events that are posted to webhooks.
type WebhookEvent string

// Events of webhooks.
const (
	WebhookDelivery WebhookEvent = "DELIVERY" // a message was sent, delivered, failed or expired
	WebhookRead     WebhookEvent = "READ"     // the recipient has opened the message, if the channel reports it
	WebhookCampaign WebhookEvent = "CAMPAIGN" // a campaign changed its state
	WebhookEndpoint WebhookEvent = "ENDPOINT" // another endpoint of the tenant was disabled
	WebhookTest     WebhookEvent = "TEST"     // ordered with POST …/test; filters do not apply
	WebhookInbound  WebhookEvent = "INBOUND"  // a recipient wrote a message
	WebhookClick    WebhookEvent = "CLICK"    // a person opened a link
	WebhookOptOut   WebhookEvent = "OPT_OUT"  // the recipient has opted out in answer to a message
)

// WebhookEvents are the events that a filter may name.
var WebhookEvents = []WebhookEvent{WebhookDelivery, WebhookRead, WebhookClick, WebhookOptOut, WebhookInbound, WebhookCampaign, WebhookEndpoint}

// WebhookTestType is the type of a test event. It is tried once.
const WebhookTestType = "webhook.test"

// WebhookStatus is the status of a message in the words of webhooks (X6).
type WebhookStatus string

// Statuses of DELIVERY and READ events.
const (
	WebhookSent      WebhookStatus = "SENT"      // the carrier has accepted the message
	WebhookDelivered WebhookStatus = "DELIVERED" // the message was delivered
	WebhookError     WebhookStatus = "ERROR"     // the message will not be delivered; subStatus says why
	WebhookExpired   WebhookStatus = "EXPIRED"   // its validity ended before it could be sent or delivered
)

// WebhookStatuses are all statuses.
var WebhookStatuses = []WebhookStatus{WebhookSent, WebhookDelivered, WebhookError, WebhookExpired}

// WebhookStatusOf returns event and status of a delivery event; a click and an opt-out have no status. ok is false for
// an event that decides nothing, because another try may follow or the outcome is not known, and for a link that was
// not opened by a person: webhooks do not get it.
func WebhookStatusOf(kind Kind, code Code) (event WebhookEvent, status WebhookStatus, ok bool) {
	switch kind {
	case KindSent:
		return WebhookDelivery, WebhookSent, true
	case KindDelivered:
		return WebhookDelivery, WebhookDelivered, true
	case KindRead:
		return WebhookRead, WebhookDelivered, true
	case KindClicked:
		return WebhookClick, "", code == CodeUnspecified
	case KindOptedOut:
		return WebhookOptOut, "", true
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

// Webhook has the fields of an endpoint that the webhook stage needs.
type Webhook struct {
	Tenant string
	Number uint64
	// Created: the endpoint gets no events from before this time.
	Created time.Time
	WebhookSettings
}

// WebhookSettings are the settings of a tenant for an endpoint. They are the JSON document of the resource.
type WebhookSettings struct {
	URL string `json:"url"`
	// Filters; empty: all.
	Events    []WebhookEvent  `json:"events"`
	Statuses  []WebhookStatus `json:"statuses"`
	Campaigns []uint64        `json:"campaigns"`
	Channels  []string        `json:"channels"`
	// Batch is the most events in one request; 0 and 1: one request for each event.
	Batch int `json:"batch"`
	// All Secrets sign each request; the newest is first. They are stored in clear text, because signing needs them.
	Secrets []WebhookSecret `json:"secrets"`
	// Reason and Disabled are why and when the stage disabled the endpoint.
	Reason   string    `json:"reason"`
	Disabled time.Time `json:"disabled"`
}

// WebhookSecret is a secret that signs until a time; the newest has no end.
type WebhookSecret struct {
	Value string    `json:"value"` // whsec_ and base64
	Until time.Time `json:"until"`
}

// WebhookFacts are the fields of an event that filters check.
type WebhookFacts struct {
	Event    WebhookEvent
	Status   WebhookStatus // only for DELIVERY and READ
	Campaign uint64        // 0 for a single send
	Channels []Channel
}

// Wants reports whether an event passes the filters.
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

// WebhookEventID returns the id of an event for receivers, from the parts that identify the event among those of its
// kind. It is the same each time the event is read, and has no dot, as Standard Webhooks requires.
func WebhookEventID(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return "evt_" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:15]))
}

// WebhookItemState is the state of an event at an endpoint.
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
	// Order is the id of a message or campaign. Events with the same Order are posted in order.
	Order string
	// Data is a JSON object; empty once it was delivered.
	Data []byte
	// Reference is the client's own reference of the message; "" when the client gave none, or when the stage has not
	// read it yet.
	Reference string
	Time      time.Time // of the event
	// Due is when a pending event is tried next. Zero when an event is queued: at once.
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

// WebhookHealth is the state of an endpoint, besides its settings.
type WebhookHealth struct {
	Endpoint uint64
	// NotBefore: nothing is posted before this time, because the endpoint fails or has sent Retry-After.
	NotBefore time.Time
	Failures  int       // in a row
	Failing   time.Time // since when; zero: the last try went well
	Succeeded time.Time // the last time; zero: never
	Recover   time.Time // events since this time must be queued again; zero: none
	// Due is when the next pending event is due; zero: there is none.
	Due time.Time
}

// WebhookOutcome is the result of one try to post events to an endpoint.
type WebhookOutcome struct {
	Endpoint uint64
	// Items are the events with their state after the try.
	Items []WebhookItem
	// Health is the endpoint's health after the try.
	Health WebhookHealth
}

// CampaignMove is a change of a campaign's state.
type CampaignMove struct {
	// ID is the same each time the same change is read.
	ID       string
	From, To State
	Reason   string // of a suspension, a rejection or a failure
	Time     time.Time
}
