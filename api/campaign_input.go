package api

import (
	"time"
	"unicode/utf8"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// CampaignInput is the body of create and update: E's fields (R91) and our own. On create, E's four fields are required
// unless draft is true. On update only the fields in the body change, and null resets a field to its default.
type CampaignInput struct {
	Name                 problem.Optional[string]            `json:"name,omitzero" doc:"1 to 200 characters." example:"Spring Promotion 2025"`
	Channel              problem.Optional[string]            `json:"channel,omitzero" doc:"sms, rcs, whatsapp or voice. To create a campaign, send channel or sendingMode." example:"sms"`
	Message              problem.Optional[string]            `json:"message,omitzero" doc:"Text for SMS and voice, with {{field}} merge fields; id or name of a template for RCS and WhatsApp. Required to create a campaign that is no draft, unless variants or audio are given."`
	ContactList          problem.Optional[StringList]        `json:"contactList,omitzero" doc:"Id or unique name of a contact list, or an array of them. Required to create a campaign that is no draft."`
	SendImmediately      problem.Optional[bool]              `json:"sendImmediately,omitzero" doc:"Start as soon as it is confirmed; takes precedence over scheduledTime."`
	ScheduledTime        problem.Optional[When]              `json:"scheduledTime,omitzero" doc:"When to start: RFC 3339 with an offset, or a local time with its IANA time zone; default zone: the tenant's. Null: it waits for a manual start, unless sendImmediately is true."`
	Fallback             problem.Optional[bool]              `json:"fallback,omitzero" doc:"Try SMS when the channel cannot reach the recipient: short for sendingMode RCS_SMS or WHATSAPP_SMS."`
	SendingMode          problem.Optional[string]            `json:"sendingMode,omitzero" doc:"The chain of channels: SMS, RCS, WHATSAPP, RCS_SMS, WHATSAPP_SMS, WHATSAPP_RCS or WHATSAPP_RCS_SMS."`
	FallbackMessage      problem.Optional[string]            `json:"fallbackMessage,omitzero" doc:"Text of the SMS at the end of the chain."`
	FallbackLegs         problem.Optional[[]FallbackInput]   `json:"fallbackLegs,omitzero" doc:"What the later channels of sendingMode send, and from which sender. A channel without an entry and without a text is left out."`
	Sender               problem.Optional[string]            `json:"sender,omitzero" doc:"SMS: sender id or number; default: the tenant's. RCS: id or name of an agent. WhatsApp and voice: id or name of a channel. Default: the template's agent, or the tenant's only one."`
	Agent                problem.Optional[string]            `json:"agent,omitzero" doc:"The sender of an RCS campaign under its own name."`
	MessagingChannel     problem.Optional[string]            `json:"messagingChannel,omitzero" doc:"The sender of a WhatsApp campaign under its own name."`
	CallerID             problem.Optional[string]            `json:"callerId,omitzero" doc:"The sender of a voice campaign under its own name."`
	Parameters           problem.Optional[map[string]string] `json:"parameters,omitzero" doc:"Values of the template's parameters by number or name: texts with {{field}} merge fields. A named parameter that is left out gets the contact's field with its name."`
	Language             problem.Optional[string]            `json:"language,omitzero" doc:"RCS and WhatsApp: must be the language of the template. Voice: language of the spoken text."`
	Variants             problem.Optional[[]VariantInput]    `json:"variants,omitzero" doc:"SMS: 2 to 10 texts instead of message. Each recipient gets one of them, by weight, and the same one at every retry."`
	Transliterate        problem.Optional[bool]              `json:"transliterate,omitzero" doc:"SMS: replace letters that GSM-7 lacks when the whole text then fits into GSM-7, which makes it shorter."`
	ShortenLinks         problem.Optional[bool]              `json:"shortenLinks,omitzero" doc:"SMS: replace every http and https address of the text by a link, as if it were written {{link:https://…}}. A link is a short address, different for each recipient, whose clicks are counted."`
	UTM                  problem.Optional[map[string]string] `json:"utm,omitzero" doc:"Parameters that links get when their address lacks them: source, medium, campaign, term and content become utm_source and so on."`
	Domains              problem.Optional[[]string]          `json:"domains,omitzero" doc:"Ids or hosts of the domains that links may be on, at most 100. Of a kind (short or opt_out) that none of them has, and when none are named: all domains that the tenant may use." example:"[\"go.example.com\"]"`
	TrafficType          problem.Optional[string]            `json:"trafficType,omitzero" doc:"outbound, or inbound_outbound for a conversation; outbound by default."`
	Queue                problem.Optional[string]            `json:"queue,omitzero" doc:"Voice: the queue that takes a call once a person answers."`
	MaxConcurrent        problem.Optional[int]               `json:"maxConcurrent,omitzero" doc:"Voice: calls at the same time, 1 to 10,000; 1 by default."`
	AMDEnabled           problem.Optional[bool]              `json:"amdEnabled,omitzero" doc:"Voice: detect answering machines."`
	AMDAction            problem.Optional[string]            `json:"amdAction,omitzero" doc:"Voice: hangup or voicemail when a machine answers; hangup by default."`
	Audio                problem.Optional[string]            `json:"audio,omitzero" doc:"Voice: https address of the audio to play, instead of the spoken message."`
	RingSeconds          problem.Optional[int]               `json:"ringSeconds,omitzero" doc:"Voice: how long the phone rings at most, 5 to 120."`
	Route                problem.Optional[string]            `json:"route,omitzero" doc:"Route to the carrier; default: the tenant's."`
	Tags                 problem.Optional[[]string]          `json:"tags,omitzero" doc:"At most 20, of 1 to 50 characters."`
	Notes                problem.Optional[string]            `json:"notes,omitzero" doc:"For people; at most 4,000 characters."`
	Timezone             problem.Optional[string]            `json:"timezone,omitzero" doc:"IANA zone of callingHours when callingHoursTimezone is not given."`
	CallingHoursStart    problem.Optional[string]            `json:"callingHoursStart,omitzero" doc:"HH:MM; nothing is sent before." example:"09:00"`
	CallingHoursEnd      problem.Optional[string]            `json:"callingHoursEnd,omitzero" doc:"HH:MM; nothing is sent from then on." example:"20:00"`
	CallingHoursTimezone problem.Optional[string]            `json:"callingHoursTimezone,omitzero" doc:"IANA zone of the calling hours; default: the tenant's." example:"Europe/Rome"`
	RecipientTimezone    problem.Optional[bool]              `json:"recipientTimezone,omitzero" doc:"Read the calling hours on each recipient's clock: of the contact's own time zone, else of the zones of its number. In several zones the hours that they share count; who has none in common is not sent to (QUIET_HOURS_EXPIRED)."`
	MaxSegments          problem.Optional[int]               `json:"maxSegments,omitzero" doc:"Most SMS segments of one rendered text; at most the tenant's limit."`
	MissingField         problem.Optional[string]            `json:"missingField,omitzero" doc:"What a merge field without a value becomes: empty, default (missingDefault) or fail (the recipient is not sent to)."`
	MissingDefault       problem.Optional[string]            `json:"missingDefault,omitzero" doc:"Text that replaces a missing value when missingField is default."`
	Rate                 problem.Optional[int]               `json:"rate,omitzero" doc:"Most messages per second of this campaign; 0: no own limit."`
	Weight               problem.Optional[int]               `json:"weight,omitzero" doc:"Share relative to the tenant's other campaigns, 1 to 100."`
	MaxRetries           problem.Optional[int]               `json:"maxRetries,omitzero" doc:"Hand-overs after the first one of each channel, for failures worth a retry: 0 to 9; by default 2 for sms, 1 for rcs and whatsapp, 0 for voice."`
	RetryDelay           problem.Optional[int]               `json:"retryDelay,omitzero" doc:"Seconds before a retry, 1 to 86,400; by default 60, then 300, then 1,500."`
	RequireOptIn         problem.Optional[bool]              `json:"requireOptIn,omitzero" doc:"Send only to contacts that have opted in; the others are skipped as NOT_OPTED_IN."`
	FrequencyCap         problem.Optional[FrequencyCap]      `json:"frequencyCap,omitzero" doc:"Skip recipients that are in so many campaigns within so many days already, as FREQUENCY_CAP. Applies in addition to the cap of the tenant's policy."`
	TestRun              problem.Optional[bool]              `json:"testRun,omitzero" doc:"Send only to the simulator; not counted in statistics over all campaigns."`
	Draft                problem.Optional[bool]              `json:"draft,omitzero" doc:"Keep it as a draft, which may be incomplete."`
	Batches              problem.Optional[[]BatchInput]      `json:"batches,omitzero" doc:"Send the audience in 2 to 20 parts, each with its own start time, instead of scheduledTime. The last part has the rest of the audience."`
	// A client cannot write the status (C28); the field is here so that the error can say so.
	Status problem.Optional[any] `json:"status,omitzero" hidden:"true"`
	State  problem.Optional[any] `json:"state,omitzero" hidden:"true"`

	pool []store.Domain // what Domains may name; see [server.loadPool]
}

// listFinder turns references to contact lists, ids or names, into their numbers.
type listFinder func(refs []string) ([]uint64, *problem.Problem)

// apply writes the input into the spec and returns what is wrong with it. It checks single fields and fields that
// depend on each other; [missing] checks whether the spec is complete.
func (in *CampaignInput) apply(spec *store.Spec, tenant *store.Tenant, now time.Time, lists listFinder) problem.List {
	var ps problem.List
	if p := in.readOnly(); p != nil {
		ps = append(ps, p)
	}
	set(&in.Name, &spec.Name, func(v string) { checkName(&ps, v) })
	in.applyChannels(spec, &ps)
	in.applyLinks(spec, &ps)
	if p := in.applyDomains(spec); p != nil {
		ps = append(ps, p)
	}
	in.applyContent(spec, tenant, &ps)
	in.applyLists(spec, lists, &ps)
	set(&in.SendImmediately, &spec.SendImmediately, nil)
	if in.ScheduledTime.Set {
		spec.Schedule = nil
		if !in.ScheduledTime.Null {
			at := in.ScheduledTime.Value.in(tenant.Timezone)
			spec.Schedule = &at
			checkNotPast(&ps, at.At, now, spec.SendImmediately)
		}
	}
	in.applyBatches(spec, tenant, now, &ps)
	set(&in.Sender, &spec.Sender, func(v string) { checkSender(&ps, "sender", v, spec.Channel()) })
	in.applyKind(spec, tenant, &ps)
	set(&in.Route, &spec.Route, func(v string) {
		if v != "" && schemas.ValidRoute(v) != nil {
			ps.Add(problem.CodeInvalid, "route", "%q is not the name of a route.", problem.Truncate(v, 40))
		}
	})
	in.applyOptions(spec, tenant, &ps)
	in.applyRetries(spec, &ps)
	in.applyHours(spec, tenant, &ps)
	return ps
}

// readOnly returns a problem when the body sets the status, which only actions change (C28).
func (in *CampaignInput) readOnly() *problem.Problem {
	if !in.Status.Set && !in.State.Set {
		return nil
	}
	return problem.Field(problem.CodeReadOnly, pick(in.Status.Set, "status", "state"), "The status cannot be written: only actions change it.").
		WithFix("Use /confirm, /pause, /resume, /abort or DELETE.")
}

// set copies a field of the body to dst, if the body has it. Null copies the zero value, without calling check.
func set[T any](o *problem.Optional[T], dst *T, check func(T)) {
	if !o.Set {
		return
	}
	*dst = o.Value
	if check != nil && !o.Null {
		check(o.Value)
	}
}

// pick returns a if ok, else b.
func pick[T any](ok bool, a, b T) T {
	if ok {
		return a
	}
	return b
}

func (in *CampaignInput) applyLists(spec *store.Spec, find listFinder, ps *problem.List) {
	if !in.ContactList.Set {
		return
	}
	spec.Lists, spec.ListRefs = nil, nil
	refs := in.ContactList.Value.Values
	if in.ContactList.Null || len(refs) == 0 {
		return
	}
	numbers, p := find(refs)
	if p != nil {
		*ps = append(*ps, p)
		return
	}
	spec.Lists, spec.ListRefs = numbers, refs
}

// applyOptions reads the fields that every channel has in common and that have a default.
func (in *CampaignInput) applyOptions(spec *store.Spec, tenant *store.Tenant, ps *problem.List) {
	if in.Tags.Set {
		tags, p := cleanTags(in.Tags.Value)
		if p != nil {
			*ps = append(*ps, p)
		}
		spec.Tags = tags
	}
	set(&in.Notes, &spec.Notes, func(v string) { checkNotes(ps, v) })
	if in.MaxSegments.Set {
		spec.MaxSegments = 0
		if v := in.MaxSegments.Value; !in.MaxSegments.Null {
			if v < 1 || v > int(tenant.MaxSegments) {
				ps.Add(problem.CodeInvalid, "maxSegments", "%d is not between 1 and the tenant's %d.", v, tenant.MaxSegments)
			} else {
				spec.MaxSegments = uint32(v)
			}
		}
	}
	if in.MissingField.Set {
		policy, ok := missingPolicies[in.MissingField.Value]
		if !ok && !in.MissingField.Null {
			ps.Add(problem.CodeInvalid, "missingField", "%q is not a policy: want empty, default or fail.", problem.Truncate(in.MissingField.Value, 40))
		}
		spec.Missing = policy
	}
	set(&in.MissingDefault, &spec.MissingDefault, func(v string) {
		if utf8.RuneCountInString(v) > maxMissing {
			ps.Add(problem.CodeTooLong, "missingDefault", "At most %d characters.", maxMissing)
		}
	})
	set(&in.RequireOptIn, &spec.RequireOptIn, nil)
	applyFrequency(&in.FrequencyCap, &spec.FrequencyCap, ps)
	if in.Rate.Set {
		checkRate(ps, in.Rate.Value)
		spec.Rate = uint32(max(in.Rate.Value, 0))
	}
	if in.Weight.Set {
		if !in.Weight.Null {
			checkWeight(ps, in.Weight.Value)
		}
		spec.Weight = uint32(max(in.Weight.Value, 0))
	}
}

// applyRetries reads the retry policy (R24, R25, C24).
func (in *CampaignInput) applyRetries(spec *store.Spec, ps *problem.List) {
	if in.MaxRetries.Set {
		spec.MaxRetries = nil
		if v := in.MaxRetries.Value; !in.MaxRetries.Null {
			if v < 0 || v > maxRetries {
				ps.Add(problem.CodeInvalid, "maxRetries", "%d is not between 0 and %d.", v, maxRetries)
			} else {
				spec.MaxRetries = new(uint32(v))
			}
		}
	}
	if in.RetryDelay.Set {
		spec.RetryDelay = 0
		if v := in.RetryDelay.Value; !in.RetryDelay.Null {
			if v < 1 || v > maxRetryDelay {
				ps.Add(problem.CodeInvalid, "retryDelay", "%d is not between 1 and %d seconds.", v, maxRetryDelay)
			} else {
				spec.RetryDelay = time.Duration(v) * time.Second
			}
		}
	}
}
