package api

import (
	"cmp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/hours"
	"fanfare/schemas/text"
)

// Campaign is a campaign in an answer of the API. status is in E's words, state in ours. A field that is not known yet
// is null.
type Campaign struct {
	ID               string            `json:"id" doc:"Names it in paths and in other objects." example:"camp_12345"`
	Name             string            `json:"name" doc:"As given; it need not be unique."`
	Channel          *string           `json:"channel" nullable:"true" doc:"The first channel of the chain; null for a draft that has none."`
	Message          *string           `json:"message" nullable:"true" doc:"Text of SMS and voice; for RCS and WhatsApp the template, by id or name as it was given. Null when there is none yet."`
	ContactList      *StringList       `json:"contactList" doc:"The contact lists as the request named them, by id or name; null when there are none."`
	ContactListIDs   []string          `json:"contactListIds" nullable:"false" doc:"Ids of the contact lists."`
	ContactListNames []string          `json:"contactListNames,omitempty" doc:"Current names of the contact lists; only in a list with include=stats."`
	ReplayOf         *string           `json:"replayOf" doc:"The campaign whose recipients this one sends to again; null if it is not a replay."`
	SendImmediately  bool              `json:"sendImmediately" doc:"True: it starts as soon as it is confirmed."`
	ScheduledTime    *string           `json:"scheduledTime" format:"date-time" doc:"When it starts, in UTC; null without a time."`
	ScheduledLocal   *string           `json:"scheduledTimeLocal" doc:"The local time as it was entered, if it was entered as local time."`
	ScheduledZone    *string           `json:"scheduledTimezone" doc:"IANA zone of scheduledTimeLocal; null when the time was given with an offset."`
	Fallback         bool              `json:"fallback" doc:"True: another channel is tried when the first one does not reach the recipient."`
	FallbackMessage  *string           `json:"fallbackMessage" doc:"Text of the SMS at the end of the chain; null when there is none."`
	SendingMode      *string           `json:"sendingMode" doc:"The chain of channels, in the order in which they are tried; null for a draft without a channel."`
	FallbackLegs     []FallbackInput   `json:"fallbackLegs" nullable:"false" doc:"What the later channels of the chain send, in their order."`
	Sender           string            `json:"sender" doc:"SMS: sender id or number, the tenant's default when none was given. Other channels: the agent or channel, by id or name as it was given; empty when none was."`
	SenderName       *string           `json:"senderName" doc:"RCS: name of the agent; WhatsApp and voice: name of the channel."`
	TemplateID       *string           `json:"templateId" doc:"Id of the template of the first channel; null when it sends a text."`
	TemplateName     *string           `json:"templateName" doc:"Name of that template; null when there is none."`
	TemplateType     *string           `json:"templateType" doc:"Kind of message of that template: text, rich_card, carousel, media or call; null when there is none."`
	Parameters       map[string]string `json:"parameters,omitempty" doc:"Values of the template's parameters by number or name; left out when there are none."`
	Language         *string           `json:"language" doc:"Language of the template or of the spoken text; null when none was given."`
	Variants         []VariantInput    `json:"variants,omitempty" doc:"With their current weights."`
	Transliterate    bool              `json:"transliterate" doc:"SMS: letters that GSM-7 lacks are replaced when the whole text then fits into GSM-7."`
	ShortenLinks     bool              `json:"shortenLinks" doc:"SMS: every http and https address of the text becomes a short link, different for each recipient."`
	UTM              map[string]string `json:"utm,omitempty" doc:"Parameters that links get when their address lacks them, by name without utm_; left out when there are none."`
	Links            []CampaignLink    `json:"links,omitempty" doc:"The links of the texts; set from confirm on."`
	Domains          []string          `json:"domains" nullable:"false" doc:"Ids of the domains that links may be on; empty: all domains that the tenant may use."`
	TrafficType      string            `json:"trafficType" enum:"outbound,inbound_outbound" doc:"inbound_outbound: recipients can answer."`
	Agent            *string           `json:"agent" doc:"The sender of an RCS campaign."`
	MessagingChannel *string           `json:"messagingChannel" doc:"The sender of a WhatsApp campaign."`
	CallerID         *string           `json:"callerId" doc:"The sender of a voice campaign."`
	Queue            *string           `json:"queue" doc:"Voice: the queue that takes a call once a person answers; null when none was given."`
	MaxConcurrent    *uint32           `json:"maxConcurrent" doc:"Voice: calls at the same time; null for the other channels."`
	AMDEnabled       bool              `json:"amdEnabled" doc:"Voice: answering machines are detected."`
	AMDAction        *string           `json:"amdAction" doc:"Voice: what happens when a machine answers; null for the other channels and when machines are not detected."`
	Audio            *string           `json:"audio" doc:"Voice: https address of the audio that is played; null when the message is spoken, and for the other channels."`
	RingSeconds      *uint32           `json:"ringSeconds" doc:"Voice: how many seconds the phone rings at most; null: as the route is configured, and for the other channels."`
	Route            string            `json:"route" doc:"Route of the first channel; before confirm the one that was asked for, else the tenant's."`
	OtherRoutes      []string          `json:"otherRoutes" doc:"Routes that carry the first channel while its route is down or paused, the best first; fixed at confirm. Empty when the campaign names its route, or when the route has failover off."`
	Simulated        bool              `json:"simulated" doc:"True when the route of the campaign or of one of its legs is a simulator, from which nothing reaches a person."`
	Tags             []string          `json:"tags" nullable:"false" doc:"Labels to find and compare campaigns by."`
	Notes            string            `json:"notes" doc:"What people wrote about it. It is sent to no recipient."`

	CallingHoursStart    *string       `json:"callingHoursStart" doc:"HH:MM; nothing is sent before. Null: at any hour."`
	CallingHoursEnd      *string       `json:"callingHoursEnd" doc:"HH:MM; nothing is sent from then on. Null: at any hour."`
	CallingHoursTimezone *string       `json:"callingHoursTimezone" doc:"IANA zone in which the calling hours are read; null without calling hours."`
	RecipientTimezone    bool          `json:"recipientTimezone" doc:"The calling hours are read on each recipient's clock; callingHoursTimezone is that of recipients of no zone."`
	Timezone             string        `json:"timezone" doc:"IANA zone of the campaign; the tenant's when none was given."`
	MaxSegments          uint32        `json:"maxSegments" doc:"Most SMS segments of one rendered text."`
	MissingField         string        `json:"missingField" doc:"What a merge field without a value becomes. empty: nothing; default: missingDefault; fail: the recipient is not sent to."`
	MissingDefault       string        `json:"missingDefault" doc:"Text that replaces a missing value when missingField is default; empty when none was given."`
	MaxRetries           *uint32       `json:"maxRetries" doc:"Hand-overs after the first one of each channel; null: the default of each channel."`
	RetryDelay           *int          `json:"retryDelay" doc:"Seconds before a retry; null: 60, then 300, then 1,500."`
	Rate                 uint32        `json:"rate" doc:"Most messages per second of this campaign; 0: no own limit."`
	Weight               uint32        `json:"weight" doc:"Share relative to the tenant's other campaigns, 1 to 100."`
	RequireOptIn         bool          `json:"requireOptIn" doc:"Send only to contacts that have opted in."`
	Batches              []Batch       `json:"batches" nullable:"false" doc:"Parts of the audience, each with its own start time; empty: all at once."`
	FrequencyCap         *FrequencyCap `json:"frequencyCap" doc:"The campaign's own cap, in addition to the cap of the tenant's policy."`
	TestRun              bool          `json:"testRun" doc:"True: it sends only to the simulator, or to a test list, and is not counted in statistics over all campaigns."`

	Encoding   *string `json:"encoding" doc:"GSM-7 or UCS-2, for the text as written; null for a template."`
	Characters *int    `json:"characters" doc:"Characters of the SMS text as written, before merge fields are filled in; null for a template and for voice."`
	Segments   *int    `json:"segments" doc:"SMS segments of the text as written; null for a template and for voice."`

	Status          string   `json:"status" doc:"State in the words of vocab. By default: draft, configured, cost_calculated, confirmed, sending, completed, cancelled, rejected or failed."`
	State           string   `json:"state" doc:"State in the words of this API, whatever vocab is."`
	Paused          bool     `json:"paused" doc:"True when a person has paused it."`
	SuspendedReason *string  `json:"suspendedReason" doc:"Why the system stopped it: route_down, provider_auth, failure_rate, template_paused, no_credit, missed_schedule, broken_record; null unless it is suspended."`
	SuspendedText   *string  `json:"suspendedText" doc:"suspendedReason in words, and what resumes the campaign; null unless it is suspended for a reason that this version knows."`
	Reason          *string  `json:"reason" doc:"Why it is suspended, rejected or failed."`
	Settled         bool     `json:"settled" doc:"True once every outcome is final and the money that is left was released."`
	AllowedActions  []string `json:"allowedActions" nullable:"false" doc:"What can be done with it now."`

	TotalMessages *uint32 `json:"totalMessages" doc:"Recipients of the frozen audience; null before it is frozen."`
	TotalContacts *uint32 `json:"totalContacts" doc:"Contacts that the price was computed for; null before it is priced."`
	EstimatedCost *Money  `json:"estimatedCost" nullable:"true" doc:"The most it can cost, as last computed; null before it is priced."`
	PriceVersion  *string `json:"priceVersion" doc:"Names the computed price, for confirm; null before it is priced."`
	Currency      string  `json:"currency"`

	CreatedBy   string  `json:"createdBy" doc:"Name of the person, or of the key."`
	CreatedByID string  `json:"createdById" doc:"Id of the person or of the key that created it."`
	CreatedAt   string  `json:"createdAt" format:"date-time" doc:"When it was created, in UTC."`
	UpdatedAt   string  `json:"updatedAt" format:"date-time"`
	ConfirmedBy *string `json:"confirmedBy" doc:"Name of the person or of the key that confirmed it; null before."`
	ConfirmedAt *string `json:"confirmedAt" format:"date-time" doc:"When it was confirmed, in UTC; null before."`
	StartTime   *string `json:"startTime" format:"date-time" doc:"When its first messages were dealt out to be sent, in UTC; null before."`
	CompletedAt *string `json:"completedAt" format:"date-time" doc:"When its last message was handed over or given up, in UTC; null before."`
	SettledAt   *string `json:"settledAt" format:"date-time" doc:"When it was settled, in UTC; null before."`
	DeletedAt   *string `json:"deletedAt" format:"date-time" doc:"When it was hidden from lists, in UTC; null: it is not hidden."`

	Version uint64    `json:"version"`
	Stats   *RowStats `json:"stats,omitempty" doc:"Only in a list with include=stats."`
	Warning []string  `json:"warning,omitempty" doc:"What was accepted and may not have the effect that it seems to have; left out when there is nothing."`
}

// vocabulary reads the parameter vocab.
func vocabulary(name string) (schemas.Vocabulary, *problem.Problem) {
	switch strings.ToLower(name) {
	case "", "e":
		return schemas.VocabularyE, nil
	case "a", "b":
		return schemas.VocabularyA, nil
	case "c":
		return schemas.VocabularyC, nil
	case "d":
		return schemas.VocabularyD, nil
	}
	return 0, problem.Field(problem.CodeInvalid, "vocab", "%q is not a vocabulary: want a, b, c, d or e.", problem.Truncate(name, 20))
}

func view(c *store.Campaign, tenant *store.Tenant, vocab schemas.Vocabulary) *Campaign {
	v := &Campaign{
		ID: c.ID(), Name: c.Name, Channel: orNull(channelOf(c)), ContactListIDs: []string{}, OtherRoutes: []string{}, SendImmediately: c.SendImmediately,
		Fallback: c.Fallback, SendingMode: orNull(sendingMode(c.Chain)), Sender: sender(c, tenant), Route: route(c, tenant),
		Tags: orEmpty(c.Tags), Notes: c.Notes, Timezone: tenant.Timezone, MaxSegments: maxSegments(c, tenant),
		MissingField: missingPolicyName(c.Missing), MissingDefault: c.MissingDefault, MaxRetries: c.MaxRetries, RetryDelay: seconds(c.RetryDelay), Rate: c.Rate, Weight: max(c.Weight, 1), TestRun: c.Test, RequireOptIn: c.RequireOptIn, FrequencyCap: viewFrequency(c.FrequencyCap), Batches: viewBatches(c),
		Status: schemas.Word(c.State, vocab), State: schemas.StateName(c.State), Paused: c.State == schemas.StatePaused,
		Reason: orNull(c.Reason), Settled: !c.Settled.IsZero(), AllowedActions: actionsOf(c), Currency: tenant.Currency,
		CreatedBy: c.CreatedBy, CreatedByID: c.CreatedBy, CreatedAt: stamp(c.Created), UpdatedAt: stamp(c.Updated), ConfirmedBy: orNull(c.ConfirmedBy),
		ConfirmedAt: stampOrNull(c.Confirmed), StartTime: stampOrNull(c.Started), CompletedAt: stampOrNull(c.Completed),
		SettledAt: stampOrNull(c.Settled), DeletedAt: stampOrNull(c.Deleted), Version: c.Version, Warning: warnings(c),
	}
	if len(c.Legs) > 0 {
		v.OtherRoutes = orEmpty(c.Legs[0].OtherRoutes)
	}
	if c.ReplayOf != 0 {
		v.ReplayOf = orNull(schemas.CampaignID(c.ReplayOf))
	}
	if c.Timezone != "" {
		v.Timezone = c.Timezone
	}
	if c.State == schemas.StateSuspended {
		v.SuspendedReason, v.SuspendedText = orNull(c.Reason), orNull(suspensions[c.Reason])
	}
	for _, n := range c.Lists {
		v.ContactListIDs = append(v.ContactListIDs, store.ListID(n))
	}
	if refs := c.ListRefs; len(refs) > 0 {
		v.ContactList = &StringList{Values: refs}
	} else if len(c.Lists) > 0 {
		v.ContactList = &StringList{Values: v.ContactListIDs}
	}
	if textChannel(&c.Spec) {
		v.Message = orNull(c.Body)
		if c.Body != "" && c.Channel() == schemas.ChannelSMS {
			body := transliterated(&c.Spec, sizedText(c, c.Body))
			m := text.Measure(body)
			n := utf8.RuneCountInString(c.Body)
			v.Encoding, v.Characters, v.Segments = orNull(encodingName(m.Encoding)), &n, &m.Segments
		}
	} else {
		v.Message, v.FallbackMessage = orNull(c.TemplateID), orNull(c.Body)
	}
	viewKind(v, c)
	if s := c.Schedule; s != nil {
		v.ScheduledTime, v.ScheduledLocal, v.ScheduledZone = stampOrNull(s.At), orNull(s.Wall), orNull(s.Zone)
	}
	if h := c.CallingHours; h != nil {
		v.CallingHoursStart, v.CallingHoursEnd = orNull(hours.FormatClock(int(h.Start))), orNull(hours.FormatClock(int(h.End)))
		v.CallingHoursTimezone, v.RecipientTimezone = orNull(h.Zone), h.Recipients
	}
	if c.FreezeID != "" {
		v.TotalMessages = &c.Total
	}
	if c.Quote.Version != "" {
		cost := Money(c.Quote.Cost)
		v.TotalContacts, v.EstimatedCost, v.PriceVersion = &c.Quote.Contacts, &cost, &c.Quote.Version
	}
	return v
}

func channelOf(c *store.Campaign) string {
	if len(c.Chain) == 0 {
		return ""
	}
	return schemas.ChannelName(c.Chain[0])
}

// viewKind sets the fields that only some kinds of campaigns have.
func viewKind(v *Campaign, c *store.Campaign) {
	v.Parameters, v.Language, v.Transliterate, v.TrafficType = c.Parameters, orNull(c.Language), c.Transliterate, cmp.Or(c.Traffic, "outbound")
	v.FallbackLegs = []FallbackInput{}
	v.ShortenLinks, v.UTM, v.Links = c.ShortenLinks, c.UTM, viewLinks(c)
	v.Domains = []string{}
	for _, n := range c.Domains {
		v.Domains = append(v.Domains, (&store.Resource{Kind: store.KindDomain, Number: n}).ID())
	}
	for _, f := range c.Fallbacks {
		v.FallbackLegs = append(v.FallbackLegs, FallbackInput{schemas.ChannelName(f.Channel), f.Message, f.Parameters, f.Language, f.Sender, f.Route})
	}
	weights := variantWeights(&c.Spec)
	if n := len(c.Weights); n > 0 && len(c.Weights[n-1]) == len(weights) {
		weights = c.Weights[n-1]
	}
	for i, variant := range c.Variants {
		v.Variants = append(v.Variants, VariantInput{variant.Name, variant.Body, new(int(weights[i]))})
	}
	if len(c.Named) > 0 {
		n := &c.Named[0]
		v.SenderName, v.TemplateID, v.TemplateName, v.TemplateType = orNull(n.Sender), orNull(n.TemplateID), orNull(n.Template), orNull(n.TemplateType)
	}
	switch c.Channel() {
	case schemas.ChannelRCS:
		v.Agent = orNull(v.Sender)
	case schemas.ChannelWhatsApp:
		v.MessagingChannel = orNull(v.Sender)
	case schemas.ChannelVoice:
		v.CallerID = orNull(v.Sender)
		if c.MaxRetries == nil { // R24, R25: the answer shows the defaults
			v.MaxRetries = new(schemas.DefaultHandovers(schemas.ChannelVoice) - 1)
		}
		if c.RetryDelay == 0 {
			v.RetryDelay = seconds(schemas.DefaultBackoff(schemas.ChannelVoice)[0])
		}
	default:
	}
	if voice := c.Voice; voice != nil {
		v.Queue, v.MaxConcurrent, v.AMDEnabled, v.AMDAction, v.Audio = orNull(voice.Queue), &voice.MaxConcurrent, voice.AMD, orNull(voice.AMDAction), orNull(voice.Audio)
		if voice.RingSeconds > 0 {
			v.RingSeconds = &voice.RingSeconds
		}
	}
}

// transliterated returns a text as it is sent.
func transliterated(spec *store.Spec, s string) string {
	if spec.Transliterate {
		return text.Transliterate(s)
	}
	return s
}

// sender returns the campaign's sender; for SMS, the tenant's default if the campaign has none.
func sender(c *store.Campaign, tenant *store.Tenant) string {
	if c.Sender != "" || c.Channel() != schemas.ChannelSMS {
		return c.Sender
	}
	return tenant.DefaultSender
}

// route returns the route of the first leg; before confirm, the route that the client asked for.
func route(c *store.Campaign, tenant *store.Tenant) string {
	if len(c.Legs) > 0 {
		return c.Legs[0].Route
	}
	if c.Route != "" {
		return c.Route
	}
	return tenant.DefaultRoute
}

func maxSegments(c *store.Campaign, tenant *store.Tenant) uint32 {
	if c.MaxSegments > 0 {
		return min(c.MaxSegments, tenant.MaxSegments)
	}
	return tenant.MaxSegments
}

func encodingName(e schemas.Encoding) string {
	if e == schemas.EncodingUCS2 {
		return "UCS-2"
	}
	return "GSM-7"
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// etag returns the version of a row as an HTTP ETag.
func etag(version uint64) string { return `"` + strconv.FormatUint(version, 10) + `"` }

// ifMatch reads If-Match. It returns 0 when there is none or it is *.
func ifMatch(header string) (uint64, *problem.Problem) {
	header = strings.TrimSpace(header)
	if header == "" || header == "*" {
		return 0, nil
	}
	n, err := strconv.ParseUint(strings.Trim(strings.TrimPrefix(header, "W/"), `"`), 10, 64)
	if err != nil || n == 0 {
		p := problem.New(problem.CodeVersionMismatch, "If-Match %q is not an ETag of this API.", problem.Truncate(header, 60))
		p.Field = "If-Match"
		return 0, p
	}
	return n, nil
}

// seconds returns nil for zero.
func seconds(d time.Duration) *int {
	if d == 0 {
		return nil
	}
	return new(int(d.Seconds()))
}
