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
	ID               string            `json:"id" example:"camp_12345"`
	Name             string            `json:"name"`
	Channel          *string           `json:"channel" nullable:"true"`
	Message          *string           `json:"message" nullable:"true"`
	ContactList      *StringList       `json:"contactList"`
	ContactListIDs   []string          `json:"contactListIds" nullable:"false"`
	ContactListNames []string          `json:"contactListNames,omitempty" doc:"Current names of the contact lists; only in a list with include=stats."`
	ReplayOf         *string           `json:"replayOf" doc:"The campaign whose recipients this one sends to again; null if it is not a replay."`
	SendImmediately  bool              `json:"sendImmediately"`
	ScheduledTime    *string           `json:"scheduledTime" format:"date-time"`
	ScheduledLocal   *string           `json:"scheduledTimeLocal" doc:"The local time as it was entered, if it was entered as local time."`
	ScheduledZone    *string           `json:"scheduledTimezone"`
	Fallback         bool              `json:"fallback"`
	FallbackMessage  *string           `json:"fallbackMessage"`
	SendingMode      *string           `json:"sendingMode"`
	FallbackLegs     []FallbackInput   `json:"fallbackLegs" nullable:"false"`
	Sender           string            `json:"sender"`
	SenderName       *string           `json:"senderName" doc:"RCS: name of the agent; WhatsApp and voice: name of the channel."`
	TemplateID       *string           `json:"templateId"`
	TemplateName     *string           `json:"templateName"`
	TemplateType     *string           `json:"templateType"`
	Parameters       map[string]string `json:"parameters,omitempty"`
	Language         *string           `json:"language"`
	Variants         []VariantInput    `json:"variants,omitempty" doc:"With their current weights."`
	Transliterate    bool              `json:"transliterate"`
	ShortenLinks     bool              `json:"shortenLinks"`
	UTM              map[string]string `json:"utm,omitempty"`
	Links            []CampaignLink    `json:"links,omitempty" doc:"The links of the texts; set from confirm on."`
	TrafficType      string            `json:"trafficType" enum:"outbound,inbound_outbound"`
	Agent            *string           `json:"agent" doc:"The sender of an RCS campaign."`
	MessagingChannel *string           `json:"messagingChannel" doc:"The sender of a WhatsApp campaign."`
	CallerID         *string           `json:"callerId" doc:"The sender of a voice campaign."`
	Queue            *string           `json:"queue"`
	MaxConcurrent    *uint32           `json:"maxConcurrent"`
	AMDEnabled       bool              `json:"amdEnabled"`
	AMDAction        *string           `json:"amdAction"`
	Audio            *string           `json:"audio"`
	RingSeconds      *uint32           `json:"ringSeconds"`
	Route            string            `json:"route"`
	Simulated        bool              `json:"simulated" doc:"True when the route of the campaign or of one of its legs is a simulator, from which nothing reaches a person."`
	Tags             []string          `json:"tags" nullable:"false"`
	Notes            string            `json:"notes"`

	CallingHoursStart    *string       `json:"callingHoursStart"`
	CallingHoursEnd      *string       `json:"callingHoursEnd"`
	CallingHoursTimezone *string       `json:"callingHoursTimezone"`
	RecipientTimezone    bool          `json:"recipientTimezone" doc:"The calling hours are read on each recipient's clock; callingHoursTimezone is that of recipients of no zone."`
	Timezone             string        `json:"timezone"`
	MaxSegments          uint32        `json:"maxSegments"`
	MissingField         string        `json:"missingField"`
	MissingDefault       string        `json:"missingDefault"`
	MaxRetries           *uint32       `json:"maxRetries"`
	RetryDelay           *int          `json:"retryDelay"`
	Rate                 uint32        `json:"rate"`
	Weight               uint32        `json:"weight"`
	RequireOptIn         bool          `json:"requireOptIn" doc:"Send only to contacts that have opted in."`
	Batches              []Batch       `json:"batches" nullable:"false" doc:"Parts of the audience, each with its own start time; empty: all at once."`
	FrequencyCap         *FrequencyCap `json:"frequencyCap" doc:"The campaign's own cap, in addition to the cap of the tenant's policy."`
	TestRun              bool          `json:"testRun"`

	Encoding   *string `json:"encoding" doc:"GSM-7 or UCS-2, for the text as written; null for a template."`
	Characters *int    `json:"characters"`
	Segments   *int    `json:"segments"`

	Status          string   `json:"status"`
	State           string   `json:"state"`
	Paused          bool     `json:"paused"`
	SuspendedReason *string  `json:"suspendedReason"`
	Reason          *string  `json:"reason" doc:"Why it is suspended, rejected or failed."`
	Settled         bool     `json:"settled"`
	AllowedActions  []string `json:"allowedActions" nullable:"false"`

	TotalMessages *uint32 `json:"totalMessages" doc:"Recipients of the frozen audience; null before it is frozen."`
	TotalContacts *uint32 `json:"totalContacts" doc:"Contacts that the price was computed for; null before it is priced."`
	EstimatedCost *Money  `json:"estimatedCost"`
	PriceVersion  *string `json:"priceVersion"`
	Currency      string  `json:"currency"`

	CreatedBy   string  `json:"createdBy" doc:"Name of the person, or of the key."`
	CreatedByID string  `json:"createdById"`
	CreatedAt   string  `json:"createdAt" format:"date-time"`
	UpdatedAt   string  `json:"updatedAt" format:"date-time"`
	ConfirmedBy *string `json:"confirmedBy"`
	ConfirmedAt *string `json:"confirmedAt" format:"date-time"`
	StartTime   *string `json:"startTime" format:"date-time"`
	CompletedAt *string `json:"completedAt" format:"date-time"`
	SettledAt   *string `json:"settledAt" format:"date-time"`
	DeletedAt   *string `json:"deletedAt" format:"date-time"`

	Version uint64    `json:"version"`
	Stats   *RowStats `json:"stats,omitempty" doc:"Only in a list with include=stats."`
	Warning []string  `json:"warning,omitempty"`
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
		ID: c.ID(), Name: c.Name, Channel: orNull(channelOf(c)), ContactListIDs: []string{}, SendImmediately: c.SendImmediately,
		Fallback: c.Fallback, SendingMode: orNull(sendingMode(c.Chain)), Sender: sender(c, tenant), Route: route(c, tenant),
		Tags: orEmpty(c.Tags), Notes: c.Notes, Timezone: tenant.Timezone, MaxSegments: maxSegments(c, tenant),
		MissingField: missingPolicyName(c.Missing), MissingDefault: c.MissingDefault, MaxRetries: c.MaxRetries, RetryDelay: seconds(c.RetryDelay), Rate: c.Rate, Weight: max(c.Weight, 1), TestRun: c.Test, RequireOptIn: c.RequireOptIn, FrequencyCap: viewFrequency(c.FrequencyCap), Batches: viewBatches(c),
		Status: schemas.Word(c.State, vocab), State: schemas.StateName(c.State), Paused: c.State == schemas.StatePaused,
		Reason: orNull(c.Reason), Settled: !c.Settled.IsZero(), AllowedActions: actionsOf(c), Currency: tenant.Currency,
		CreatedBy: c.CreatedBy, CreatedByID: c.CreatedBy, CreatedAt: stamp(c.Created), UpdatedAt: stamp(c.Updated), ConfirmedBy: orNull(c.ConfirmedBy),
		ConfirmedAt: stampOrNull(c.Confirmed), StartTime: stampOrNull(c.Started), CompletedAt: stampOrNull(c.Completed),
		SettledAt: stampOrNull(c.Settled), DeletedAt: stampOrNull(c.Deleted), Version: c.Version, Warning: warnings(c),
	}
	if c.ReplayOf != 0 {
		v.ReplayOf = orNull(schemas.CampaignID(c.ReplayOf))
	}
	if c.Timezone != "" {
		v.Timezone = c.Timezone
	}
	if c.State == schemas.StateSuspended {
		v.SuspendedReason = orNull(c.Reason)
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
