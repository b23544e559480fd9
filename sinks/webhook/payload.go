package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// The shapes of the posted JSON. They are a public contract (schemas/asyncapi, schemas/README.md): fields are added,
// never changed.

// messageData is data of message.sent, message.delivered, message.failed, message.expired and message.read.
// customerMessageId is put in front when it is posted.
type messageData struct {
	MessageID   string  `json:"messageId"`
	Event       string  `json:"event"`
	Status      string  `json:"status"`
	CampaignID  *string `json:"campaignId"`
	Channel     *string `json:"channel"`
	Destination *string `json:"destination"`
	Sender      *string `json:"sender"`
	Country     *string `json:"country"`
	SubStatus   *string `json:"subStatus"`
	Description *string `json:"description"`
	RawCode     *string `json:"rawCode"`
	Try         uint32  `json:"try"`
	Leg         uint32  `json:"leg"`
	Segments    uint32  `json:"segments"`
	Test        bool    `json:"test"`
}

// factData is data of message.clicked and message.opted_out. customerMessageId is put in front when it is posted.
type factData struct {
	MessageID   string  `json:"messageId"`
	Event       string  `json:"event"`
	CampaignID  *string `json:"campaignId"`
	Destination *string `json:"destination"`
	LinkID      *string `json:"linkId"`  // of a click
	Way         *string `json:"way"`     // of an opt-out
	Channel     *string `json:"channel"` // of an opt-out: the channel that it is for; null: all channels
	Test        bool    `json:"test"`
}

// campaignData is data of campaign.<state>.
type campaignData struct {
	Event      string  `json:"event"`
	CampaignID string  `json:"campaignId"`
	Name       string  `json:"name"`
	State      string  `json:"state"`
	From       *string `json:"from"`
	Status     string  `json:"status"`
	Reason     *string `json:"reason"`
	Test       bool    `json:"test"`
}

// replyData is data of reply.received.
type replyData struct {
	Event          string  `json:"event"`
	ConversationID string  `json:"conversationId"`
	MessageID      *string `json:"messageId"`
	CampaignID     *string `json:"campaignId"`
	Channel        string  `json:"channel"`
	From           string  `json:"from"`
	Sender         string  `json:"sender"`
	Text           string  `json:"text"`
	Meaning        string  `json:"meaning"`
	Test           bool    `json:"test"`
}

// replyMeanings are the words for what Fanfare did because of a reply.
var replyMeanings = map[schemas.ReplyMeaning]string{
	schemas.ReplyMeaningUnspecified: "none", schemas.ReplyMeaningOptOut: "opt_out", schemas.ReplyMeaningOptIn: "opt_in", schemas.ReplyMeaningReview: "review",
}

// replyType is the type of an INBOUND event.
const replyType = "reply.received"

// endpointData is data of endpoint.disabled.
type endpointData struct {
	Event        string  `json:"event"`
	EndpointID   string  `json:"endpointId"`
	URL          string  `json:"url"`
	Reason       string  `json:"reason"`
	FailingSince *string `json:"failingSince"`
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// messageTypes are the types of the statuses of DELIVERY events.
var messageTypes = map[schemas.WebhookStatus]string{
	schemas.WebhookSent: "message.sent", schemas.WebhookDelivered: "message.delivered", schemas.WebhookError: "message.failed", schemas.WebhookExpired: "message.expired",
}

// factTypes are the types of events without a status.
var factTypes = map[schemas.WebhookEvent]string{schemas.WebhookClick: "message.clicked", schemas.WebhookOptOut: "message.opted_out"}

// messagePrefix begins the types of events about messages.
const messagePrefix = "message."

// dataOf returns the data that is posted for a delivery event, and its type.
func dataOf(d *fanfarev1.Delivery, c *fanfarev1.Campaign, facts schemas.WebhookFacts, message string) (any, string) {
	campaign := (*string)(nil)
	if facts.Campaign != 0 {
		campaign = orNull(c.GetId())
	}
	if typ, ok := factTypes[facts.Event]; ok {
		data := factData{MessageID: message, Event: string(facts.Event), CampaignID: campaign, Destination: orNull(d.GetTo()), LinkID: orNull(d.GetLinkId()), Test: d.GetTest()}
		if facts.Event == schemas.WebhookOptOut {
			data.Way = orNull(d.GetRawCode())
			if d.GetChannel() != schemas.ChannelUnspecified {
				data.Channel = orNull(schemas.ChannelName(d.GetChannel()))
			}
		}
		return data, typ
	}
	info, _ := schemas.LookupCode(d.GetCode())
	data := messageData{
		MessageID: message, Event: string(facts.Event), Status: string(facts.Status), CampaignID: campaign, Destination: orNull(d.GetTo()), Sender: orNull(d.GetSender()),
		Country: orNull(d.GetCountry()), SubStatus: orNull(schemas.CodeName(d.GetCode())), Description: orNull(info.Description), RawCode: orNull(d.GetRawCode()),
		Try: d.GetTry(), Leg: d.GetLeg(), Segments: d.GetSegments(), Test: d.GetTest(),
	}
	if len(facts.Channels) == 1 {
		data.Channel = orNull(schemas.ChannelName(facts.Channels[0]))
	}
	if facts.Event == schemas.WebhookRead {
		return data, "message.read"
	}
	return data, messageTypes[facts.Status]
}

func messageItem(r *kgo.Record, d *fanfarev1.Delivery, c *fanfarev1.Campaign, facts schemas.WebhookFacts, message string) (*schemas.WebhookItem, error) {
	data, typ := dataOf(d, c, facts, message)
	it := &schemas.WebhookItem{Tenant: c.GetTenant(), Type: typ, Order: message, Time: time.UnixMilli(d.GetTimeMs()).UTC()}
	// The id of the record is the same however often the event is written.
	id := string(schemas.Header(r, "ce_id"))
	if id == "" {
		id = fmt.Sprintf("%x/%d/%d/%d", d.GetMessageId(), d.GetTry(), d.GetKind(), d.GetCode())
	}
	it.EventID = schemas.WebhookEventID("delivery", id)
	var err error
	it.Data, err = json.Marshal(data)
	return it, err
}

func campaignItem(c *fanfarev1.Campaign, m *schemas.CampaignMove) (*schemas.WebhookItem, error) {
	data := campaignData{
		Event: string(schemas.WebhookCampaign), CampaignID: c.GetId(), Name: c.GetName(), State: schemas.StateName(m.To),
		Status: schemas.Word(m.To, schemas.VocabularyE), Reason: orNull(m.Reason), Test: c.GetTest(),
	}
	if m.From != schemas.StateUnspecified {
		data.From = orNull(schemas.StateName(m.From))
	}
	raw, err := json.Marshal(data)
	return &schemas.WebhookItem{
		Tenant: c.GetTenant(), EventID: schemas.WebhookEventID("campaign", c.GetId(), m.ID), Type: "campaign." + data.State, Order: c.GetId(), Time: m.Time, Data: raw,
	}, err
}

func replyItem(in *fanfarev1.Reply) (*schemas.WebhookItem, error) {
	data := replyData{
		Event: string(schemas.WebhookInbound), ConversationID: in.GetConversationId(), CampaignID: orNull(in.GetCampaignId()), Channel: schemas.ChannelName(in.GetChannel()),
		From: in.GetFrom(), Sender: in.GetSender(), Text: in.GetText(), Meaning: replyMeanings[in.GetMeaning()], Test: in.GetTest(),
	}
	if id, err := schemas.IDFromBytes(in.GetMessageId()); err == nil {
		data.MessageID = orNull(id.String())
	}
	raw, err := json.Marshal(data)
	return &schemas.WebhookItem{
		Tenant: in.GetTenant(), EventID: schemas.WebhookEventID("reply", in.GetId()), Type: replyType, Order: in.GetConversationId(), Time: time.UnixMilli(in.GetReceivedMs()).UTC(), Data: raw,
	}, err
}

func endpointItem(gone *schemas.Webhook, failing, now time.Time, reason string) (*schemas.WebhookItem, error) {
	id := "webhook_" + number(gone.Number)
	data := endpointData{Event: string(schemas.WebhookEndpoint), EndpointID: id, URL: gone.URL, Reason: reason}
	since := now
	if !failing.IsZero() {
		data.FailingSince, since = orNull(stamp(failing)), failing
	}
	raw, err := json.Marshal(data)
	return &schemas.WebhookItem{
		Tenant: gone.Tenant, EventID: schemas.WebhookEventID("endpoint", id, stamp(since)), Type: "endpoint.disabled", Order: id, Time: now, Data: raw,
	}, err
}

// appendEvent appends an event as it is posted: id, type, timestamp and data (Standard Webhooks), data with the
// client's reference.
func appendEvent(b []byte, it *schemas.WebhookItem) []byte {
	b = append(b, `{"id":`...)
	b = appendString(b, it.EventID)
	b = append(b, `,"type":`...)
	b = appendString(b, it.Type)
	b = append(b, `,"timestamp":`...)
	b = appendString(b, stamp(it.Time))
	b = append(b, `,"data":`...)
	data := it.Data
	if strings.HasPrefix(it.Type, messagePrefix) {
		ref := it.Reference
		if ref == "" {
			ref = it.Order // the message id, as in the API
		}
		b = append(b, `{"customerMessageId":`...)
		b = appendString(b, ref)
		b = append(b, ',')
		data = bytes.TrimPrefix(data, []byte("{"))
	}
	b = append(b, data...)
	return append(b, '}')
}

func appendString(b []byte, s string) []byte {
	q, _ := json.Marshal(s) // a string always can
	return append(b, q...)
}

// request returns id and body of a request with these events.
func request(items []schemas.WebhookItem, batch bool, now time.Time) (id string, body []byte) {
	if !batch {
		return items[0].EventID, appendEvent(nil, &items[0])
	}
	ids := []string{"batch"}
	for i := range items {
		ids = append(ids, items[i].EventID)
	}
	id = strings.Replace(schemas.WebhookEventID(ids...), "evt_", "batch_", 1)
	b := append([]byte(`{"id":`), appendString(nil, id)...)
	b = append(b, `,"type":"batch","timestamp":`...)
	b = appendString(b, stamp(now))
	b = append(b, `,"data":[`...)
	for i := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendEvent(b, &items[i])
	}
	return id, append(b, `]}`...)
}
