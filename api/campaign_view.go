package api

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/hours"
	"fanfare/schemas/text"
)

// Campaign is the resource as the API shows it. status speaks E's words, state ours. What is not known yet is null.
type Campaign struct {
	ID              string      `json:"id" example:"camp_12345"`
	Name            string      `json:"name"`
	Channel         *string     `json:"channel" nullable:"true"`
	Message         *string     `json:"message" nullable:"true"`
	ContactList     *StringList `json:"contactList"`
	ContactListIDs  []string    `json:"contactListIds" nullable:"false"`
	SendImmediately bool        `json:"sendImmediately"`
	ScheduledTime   *string     `json:"scheduledTime" format:"date-time"`
	ScheduledLocal  *string     `json:"scheduledTimeLocal" doc:"The wall clock as it was entered, when it was entered so."`
	ScheduledZone   *string     `json:"scheduledTimezone"`
	Fallback        bool        `json:"fallback"`
	FallbackMessage *string     `json:"fallbackMessage"`
	SendingMode     *string     `json:"sendingMode"`
	Sender          string      `json:"sender"`
	Route           string      `json:"route"`
	Tags            []string    `json:"tags" nullable:"false"`
	Notes           string      `json:"notes"`

	CallingHoursStart    *string `json:"callingHoursStart"`
	CallingHoursEnd      *string `json:"callingHoursEnd"`
	CallingHoursTimezone *string `json:"callingHoursTimezone"`
	Timezone             string  `json:"timezone"`
	MaxSegments          uint32  `json:"maxSegments"`
	MissingField         string  `json:"missingField"`
	MissingDefault       string  `json:"missingDefault"`
	MaxRetries           *uint32 `json:"maxRetries"`
	RetryDelay           *int    `json:"retryDelay"`
	Rate                 uint32  `json:"rate"`
	Weight               uint32  `json:"weight"`
	TestRun              bool    `json:"testRun"`

	Encoding   *string `json:"encoding" doc:"GSM-7 or UCS-2: of the text as written; null for a template."`
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
	TotalContacts *uint32 `json:"totalContacts" doc:"Contacts that the price was made for; null before it is priced."`
	EstimatedCost *Money  `json:"estimatedCost"`
	PriceVersion  *string `json:"priceVersion"`
	Currency      string  `json:"currency"`

	CreatedBy   string  `json:"createdBy"`
	CreatedAt   string  `json:"createdAt" format:"date-time"`
	UpdatedAt   string  `json:"updatedAt" format:"date-time"`
	ConfirmedBy *string `json:"confirmedBy"`
	ConfirmedAt *string `json:"confirmedAt" format:"date-time"`
	StartTime   *string `json:"startTime" format:"date-time"`
	CompletedAt *string `json:"completedAt" format:"date-time"`
	SettledAt   *string `json:"settledAt" format:"date-time"`
	DeletedAt   *string `json:"deletedAt" format:"date-time"`

	Version uint64   `json:"version"`
	Warning []string `json:"warning,omitempty"`
}

// vocabulary reads ?vocab=.
func vocabulary(name string) (schemas.Vocabulary, *Problem) {
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
	return 0, fieldProblem(CodeInvalid, "vocab", "%q is not a vocabulary: want a, b, c, d or e.", truncate(name, 20))
}

func view(c *store.Campaign, tenant *store.Tenant, vocab schemas.Vocabulary) *Campaign {
	v := &Campaign{
		ID: c.ID(), Name: c.Name, Channel: orNull(channelOf(c)), ContactListIDs: []string{}, SendImmediately: c.SendImmediately,
		Fallback: c.Fallback, SendingMode: orNull(sendingMode(c.Chain)), Sender: sender(c, tenant), Route: route(c, tenant),
		Tags: orEmpty(c.Tags), Notes: c.Notes, Timezone: tenant.Timezone, MaxSegments: maxSegments(c, tenant),
		MissingField: missingPolicyName(c.Missing), MissingDefault: c.MissingDefault, MaxRetries: c.MaxRetries, RetryDelay: seconds(c.RetryDelay), Rate: c.Rate, Weight: max(c.Weight, 1), TestRun: c.Test,
		Status: schemas.Word(c.State, vocab), State: schemas.StateName(c.State), Paused: c.State == fanfarev1.State_STATE_PAUSED,
		Reason: orNull(c.Reason), Settled: !c.Settled.IsZero(), AllowedActions: actionsOf(c), Currency: tenant.Currency,
		CreatedBy: c.CreatedBy, CreatedAt: stamp(c.Created), UpdatedAt: stamp(c.Updated), ConfirmedBy: orNull(c.ConfirmedBy),
		ConfirmedAt: stampOrNull(c.Confirmed), StartTime: stampOrNull(c.Started), CompletedAt: stampOrNull(c.Completed),
		SettledAt: stampOrNull(c.Settled), DeletedAt: stampOrNull(c.Deleted), Version: c.Version, Warning: warnings(&c.Spec),
	}
	if c.Timezone != "" {
		v.Timezone = c.Timezone
	}
	if c.State == fanfarev1.State_STATE_SUSPENDED {
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
		if c.Body != "" {
			m := text.Measure(c.Body)
			n := utf8.RuneCountInString(c.Body)
			v.Encoding, v.Characters, v.Segments = orNull(encodingName(m.Encoding)), &n, &m.Segments
		}
	} else {
		v.Message, v.FallbackMessage = orNull(c.TemplateID), orNull(c.Body)
	}
	if s := c.Schedule; s != nil {
		v.ScheduledTime, v.ScheduledLocal, v.ScheduledZone = stampOrNull(s.At), orNull(s.Wall), orNull(s.Zone)
	}
	if h := c.CallingHours; h != nil {
		v.CallingHoursStart, v.CallingHoursEnd = orNull(hours.FormatClock(int(h.Start))), orNull(hours.FormatClock(int(h.End)))
		v.CallingHoursTimezone = orNull(h.Zone)
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

// sender is the campaign's own, else the tenant's for text channels.
func sender(c *store.Campaign, tenant *store.Tenant) string {
	if c.Sender != "" {
		return c.Sender
	}
	return tenant.DefaultSender
}

func route(c *store.Campaign, tenant *store.Tenant) string {
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

func encodingName(e fanfarev1.Encoding) string {
	if e == fanfarev1.Encoding_ENCODING_UCS2 {
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

// etag is the version of a row as HTTP has it.
func etag(version uint64) string { return `"` + strconv.FormatUint(version, 10) + `"` }

// ifMatch reads If-Match: 0 when there is none or any version will do.
func ifMatch(header string) (uint64, *Problem) {
	header = strings.TrimSpace(header)
	if header == "" || header == "*" {
		return 0, nil
	}
	n, err := strconv.ParseUint(strings.Trim(strings.TrimPrefix(header, "W/"), `"`), 10, 64)
	if err != nil || n == 0 {
		p := problem(CodeVersionMismatch, "If-Match %q is no ETag of this API.", truncate(header, 60))
		p.Field = "If-Match"
		return 0, p
	}
	return n, nil
}

// seconds is nil of none.
func seconds(d time.Duration) *int {
	if d == 0 {
		return nil
	}
	return new(int(d.Seconds()))
}
