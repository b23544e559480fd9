package api

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/text"
)

// CampaignInput is what a client says about a campaign: E's fields (R91), and ours that E lacks. On create the four of E are
// required unless draft is true; on update only what is there changes, and null takes a field back to its default.
type CampaignInput struct {
	Name                 Optional[string]     `json:"name,omitzero" doc:"1 to 200 characters." example:"Spring Promotion 2025"`
	Channel              Optional[string]     `json:"channel,omitzero" doc:"sms, rcs or whatsapp." example:"sms"`
	Message              Optional[string]     `json:"message,omitzero" doc:"Text for SMS, with {{field}} merge fields; template id for RCS and WhatsApp."`
	ContactList          Optional[StringList] `json:"contactList,omitzero" doc:"Id or unique name of a contact list, or an array of them."`
	SendImmediately      Optional[bool]       `json:"sendImmediately,omitzero" doc:"Start as soon as it is confirmed; wins over scheduledTime."`
	ScheduledTime        Optional[When]       `json:"scheduledTime,omitzero"`
	Fallback             Optional[bool]       `json:"fallback,omitzero" doc:"Try SMS when the channel cannot reach the recipient: short for sendingMode RCS_SMS or WHATSAPP_SMS."`
	SendingMode          Optional[string]     `json:"sendingMode,omitzero" doc:"The chain of channels: SMS, RCS, WHATSAPP, RCS_SMS, WHATSAPP_SMS, WHATSAPP_RCS or WHATSAPP_RCS_SMS."`
	FallbackMessage      Optional[string]     `json:"fallbackMessage,omitzero" doc:"Text of the SMS at the end of the chain."`
	Sender               Optional[string]     `json:"sender,omitzero" doc:"Sender id, number or agent; the tenant's default otherwise."`
	Route                Optional[string]     `json:"route,omitzero" doc:"Route to the carrier; the tenant's default otherwise."`
	Tags                 Optional[[]string]   `json:"tags,omitzero" doc:"At most 20, of 1 to 50 characters."`
	Notes                Optional[string]     `json:"notes,omitzero" doc:"For people; at most 4,000 characters."`
	Timezone             Optional[string]     `json:"timezone,omitzero" doc:"IANA zone of callingHours when callingHoursTimezone is not given."`
	CallingHoursStart    Optional[string]     `json:"callingHoursStart,omitzero" doc:"HH:MM; nothing is sent before." example:"09:00"`
	CallingHoursEnd      Optional[string]     `json:"callingHoursEnd,omitzero" doc:"HH:MM; nothing is sent from then on." example:"20:00"`
	CallingHoursTimezone Optional[string]     `json:"callingHoursTimezone,omitzero" doc:"IANA zone of the calling hours; the tenant's otherwise." example:"Europe/Rome"`
	MaxSegments          Optional[int]        `json:"maxSegments,omitzero" doc:"Most SMS segments of one rendered text; at most the tenant's."`
	MissingField         Optional[string]     `json:"missingField,omitzero" doc:"What a merge field without a value becomes: empty, default (missingDefault) or fail (the recipient is not sent to)."`
	MissingDefault       Optional[string]     `json:"missingDefault,omitzero" doc:"Stands for a missing value when missingField is default."`
	Rate                 Optional[int]        `json:"rate,omitzero" doc:"Most messages per second of this campaign; 0: no limit of its own."`
	Weight               Optional[int]        `json:"weight,omitzero" doc:"Share against the tenant's other campaigns, 1 to 100."`
	MaxRetries           Optional[int]        `json:"maxRetries,omitzero" doc:"Hand-overs after the first one of each channel, for failures worth a retry: 0 to 9; by default 2 for sms and 1 elsewhere."`
	RetryDelay           Optional[int]        `json:"retryDelay,omitzero" doc:"Seconds before a retry, 1 to 86,400; by default 60, then 300, then 1,500."`
	TestRun              Optional[bool]       `json:"testRun,omitzero" doc:"Reach the simulator only; stays out of statistics over all campaigns."`
	Draft                Optional[bool]       `json:"draft,omitzero" doc:"Keep it as a draft, which may be incomplete."`
	// A status is never written (C28); the field is here to say so.
	Status Optional[any] `json:"status,omitzero" hidden:"true"`
	State  Optional[any] `json:"state,omitzero" hidden:"true"`
}

// Bounds of fields. E documents the lengths of messages (R155, R156); the others only keep a row small.
const (
	maxName       = 200
	maxNotes      = 4000
	maxTags       = 20
	maxTag        = 50
	maxSMS        = 160
	maxTemplateID = 1000
	maxSender     = 64
	maxMissing    = 200
	inPastBy      = 5 * time.Minute // C17
	maxRetries    = 9
	maxRetryDelay = 86_400 // seconds
)

// chains are the values of sendingMode (X3).
var chains = map[string][]fanfarev1.Channel{
	"SMS":              {fanfarev1.Channel_CHANNEL_SMS},
	"RCS":              {fanfarev1.Channel_CHANNEL_RCS},
	"WHATSAPP":         {fanfarev1.Channel_CHANNEL_WHATSAPP},
	"RCS_SMS":          {fanfarev1.Channel_CHANNEL_RCS, fanfarev1.Channel_CHANNEL_SMS},
	"WHATSAPP_SMS":     {fanfarev1.Channel_CHANNEL_WHATSAPP, fanfarev1.Channel_CHANNEL_SMS},
	"WHATSAPP_RCS":     {fanfarev1.Channel_CHANNEL_WHATSAPP, fanfarev1.Channel_CHANNEL_RCS},
	"WHATSAPP_RCS_SMS": {fanfarev1.Channel_CHANNEL_WHATSAPP, fanfarev1.Channel_CHANNEL_RCS, fanfarev1.Channel_CHANNEL_SMS},
}

// sendingMode names a chain.
func sendingMode(chain []fanfarev1.Channel) string {
	parts := make([]string, len(chain))
	for i, c := range chain {
		parts[i] = strings.ToUpper(schemas.ChannelName(c))
	}
	return strings.Join(parts, "_")
}

// apply writes what the input says into the spec, and gathers what is wrong with it. It looks at one field at a time and at
// fields that only mean something together; whether enough is there is [missing]'s question. lists finds contact lists.
func (in *CampaignInput) apply(spec *store.Spec, tenant *store.Tenant, now time.Time, lists func([]string) ([]uint64, *Problem)) problems {
	var ps problems
	if p := in.readOnly(); p != nil {
		ps = append(ps, p)
	}
	set(&in.Name, &spec.Name, func(v string) { ps.name(v) })
	in.applyChannels(spec, &ps)
	if in.Message.Set {
		spec.Body, spec.TemplateID = "", ""
		in.applyMessage(spec, tenant, &ps)
	}
	if in.FallbackMessage.Set && !textChannel(spec) {
		spec.Body = in.FallbackMessage.Value
		ps.smsText("fallbackMessage", spec.Body, tenant)
	}
	if in.ContentGivenTwice(spec) {
		ps.add(CodeInvalid, "fallbackMessage", "An SMS campaign has one text: message.")
	}
	if in.ContactList.Set {
		spec.Lists, spec.ListRefs = nil, nil
		if refs := in.ContactList.Value.Values; !in.ContactList.Null && len(refs) > 0 {
			numbers, p := lists(refs)
			if p != nil {
				ps = append(ps, p)
			} else {
				spec.Lists, spec.ListRefs = numbers, refs
			}
		}
	}
	set(&in.SendImmediately, &spec.SendImmediately, nil)
	if in.ScheduledTime.Set {
		spec.Schedule = nil
		if !in.ScheduledTime.Null {
			at := in.ScheduledTime.Value.Schedule
			spec.Schedule = &at
			ps.notPast(at.At, now, spec.SendImmediately)
		}
	}
	set(&in.Sender, &spec.Sender, func(v string) { ps.sender(v, spec.Channel()) })
	set(&in.Route, &spec.Route, func(v string) {
		if v != "" && schemas.ValidRoute(v) != nil {
			ps.add(CodeInvalid, "route", "%q is not the name of a route.", truncate(v, 40))
		}
	})
	in.applyAttributes(spec, tenant, &ps)
	in.applyHours(spec, tenant, &ps)
	return ps
}

// readOnly is the problem of a body that would write the status (C28).
func (in *CampaignInput) readOnly() *Problem {
	if !in.Status.Set && !in.State.Set {
		return nil
	}
	return fieldProblem(CodeReadOnly, cond(in.Status.Set, "status", "state"), "The status is never written: actions move it.").
		fixed("Use /confirm, /pause, /resume, /abort or DELETE.")
}

// set copies a field that is there into its place; null is the zero value.
func set[T any](o *Optional[T], dst *T, check func(T)) {
	if !o.Set {
		return
	}
	*dst = o.Value
	if check != nil && !o.Null {
		check(o.Value)
	}
}

func cond[T any](ok bool, a, b T) T {
	if ok {
		return a
	}
	return b
}

// ContentGivenTwice reports a text for a fallback that is the message itself.
func (in *CampaignInput) ContentGivenTwice(spec *store.Spec) bool {
	return in.FallbackMessage.Set && !in.FallbackMessage.Null && textChannel(spec)
}

func textChannel(spec *store.Spec) bool { return spec.Channel() == fanfarev1.Channel_CHANNEL_SMS }

// applyChannels reads channel, sendingMode and fallback, which say the same thing in three ways.
func (in *CampaignInput) applyChannels(spec *store.Spec, ps *problems) {
	before := spec.Channel()
	if in.Channel.Set {
		channel, ok := schemas.ParseChannel(in.Channel.Value)
		switch {
		case in.Channel.Null || in.Channel.Value == "":
			spec.Chain = nil
		case !ok || in.Channel.Value != schemas.ChannelName(channel):
			ps.add(CodeInvalid, "channel", "%q is not a channel: want sms, rcs or whatsapp.", truncate(in.Channel.Value, 40))
			return
		case channel == fanfarev1.Channel_CHANNEL_VOICE:
			ps.add(CodeInvalid, "channel", "Voice is not offered: want sms, rcs or whatsapp.")
			return
		case channel != before:
			spec.Chain = []fanfarev1.Channel{channel}
		}
	}
	if in.SendingMode.Set && !in.SendingMode.Null {
		chain, ok := chains[in.SendingMode.Value]
		switch {
		case !ok:
			ps.add(CodeInvalid, "sendingMode", "%q is not a chain of channels: want one of SMS, RCS, WHATSAPP, RCS_SMS, WHATSAPP_SMS, WHATSAPP_RCS, WHATSAPP_RCS_SMS.", truncate(in.SendingMode.Value, 40))
		case len(spec.Chain) > 0 && chain[0] != spec.Chain[0] && in.Channel.Set:
			ps.add(CodeInvalid, "sendingMode", "%s begins with another channel than %s.", in.SendingMode.Value, schemas.ChannelName(spec.Chain[0]))
		default:
			spec.Chain = slices.Clone(chain)
			spec.Fallback = len(chain) > 1
		}
	}
	if in.SendingMode.Null {
		spec.Chain, spec.Fallback = spec.Chain[:min(1, len(spec.Chain))], false
	}
	if in.Fallback.Set {
		spec.Fallback = in.Fallback.Value
		switch {
		case !in.Fallback.Value && len(spec.Chain) > 1 && in.SendingMode.Set && !in.SendingMode.Null:
			ps.add(CodeInvalid, "fallback", "fallback is false, and sendingMode %s falls back.", in.SendingMode.Value)
		case !in.Fallback.Value:
			spec.Chain = spec.Chain[:min(1, len(spec.Chain))]
		}
	}
	if spec.Fallback && len(spec.Chain) == 1 && !textChannel(spec) {
		spec.Chain = append(slices.Clone(spec.Chain), fanfarev1.Channel_CHANNEL_SMS)
	}
	if after := spec.Channel(); before != fanfarev1.Channel_CHANNEL_UNSPECIFIED && after != before && !in.Message.Set {
		spec.Body, spec.TemplateID = "", "" // a text is no template id, and the other way round
	}
}

func (in *CampaignInput) applyMessage(spec *store.Spec, tenant *store.Tenant, ps *problems) {
	v := in.Message.Value
	switch {
	case in.Message.Null || v == "":
		// R155: at least one character. Absent is missing's question; empty is wrong as it stands.
		if !in.Message.Null {
			ps.add(CodeInvalid, "message", "The message is empty: want at least 1 character.")
		}
	case !utf8.ValidString(v):
		ps.add(CodeInvalid, "message", "The message is not UTF-8.")
	case len(spec.Chain) > 0 && !textChannel(spec):
		if n := utf8.RuneCountInString(v); n > maxTemplateID {
			ps.add(CodeTooLong, "message", "The message has %d characters; %s takes at most %d.", n, schemas.ChannelName(spec.Channel()), maxTemplateID)
		}
		spec.TemplateID = v
	default:
		ps.smsText("message", v, tenant)
		spec.Body = v
	}
}

// smsLimit is how many characters a text may have as it is written (C14): E's 160, and more once the tenant allows more
// than the usual 3 segments.
func smsLimit(tenant *store.Tenant) int {
	if tenant.MaxSegments > 3 {
		return text.GSMConcat * int(tenant.MaxSegments)
	}
	return maxSMS
}

func (ps *problems) smsText(field, v string, tenant *store.Tenant) {
	if n, limit := utf8.RuneCountInString(v), smsLimit(tenant); n > limit {
		*ps = append(*ps, fieldProblem(CodeTooLong, field, "The text has %d characters; sms takes at most %d.", n, limit))
		return
	}
	if _, err := text.Parse(v); err != nil {
		ps.add(CodeInvalid, field, "%s.", err)
	}
}

func (ps *problems) name(v string) {
	switch n := utf8.RuneCountInString(v); {
	case strings.TrimSpace(v) == "":
		ps.add(CodeRequired, "name", "The name is empty.")
	case n > maxName:
		ps.add(CodeTooLong, "name", "The name has %d characters; at most %d are kept.", n, maxName)
	case strings.ContainsFunc(v, unicode.IsControl):
		ps.add(CodeInvalid, "name", "The name has a control character.")
	}
}

// sender: of an SMS at most 11 letters, digits and what carriers take between them, or a number of at most 15 digits (X4);
// elsewhere an id of the channel's own.
func (ps *problems) sender(v string, channel fanfarev1.Channel) {
	if v == "" {
		return
	}
	if fault := badSender(v, channel); fault != "" {
		ps.add(CodeInvalid, "sender", "%s", fault)
	}
}

func badSender(v string, channel fanfarev1.Channel) string {
	if len(v) > maxSender || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "The sender is not at most 64 printable ASCII characters."
	}
	if channel != fanfarev1.Channel_CHANNEL_SMS {
		return ""
	}
	digits := strings.TrimPrefix(v, "+")
	if digits != "" && strings.Trim(digits, "0123456789") == "" {
		if len(digits) > 15 {
			return "A numeric sender has at most 15 digits."
		}
		return ""
	}
	if len(v) > 11 {
		return "An alphanumeric sender has at most 11 characters."
	}
	if strings.Trim(strings.ToLower(v), "abcdefghijklmnopqrstuvwxyz0123456789 .-_&") != "" || strings.TrimSpace(v) != v {
		return "An alphanumeric sender is made of letters and digits, and of blanks and . - _ & between them."
	}
	return ""
}

func (ps *problems) notPast(at, now time.Time, immediate bool) {
	if !immediate && at.Before(now.Add(-inPastBy)) {
		ps.add(CodeInPast, "scheduledTime", "%s is in the past: it is %s.", stamp(at), stamp(now))
	}
}

// applyRetries reads the policy of retries (R24, R25, C24).
func (in *CampaignInput) applyRetries(spec *store.Spec, ps *problems) {
	if in.MaxRetries.Set {
		spec.MaxRetries = nil
		if v := in.MaxRetries.Value; !in.MaxRetries.Null {
			if v < 0 || v > maxRetries {
				ps.add(CodeInvalid, "maxRetries", "%d is not between 0 and %d.", v, maxRetries)
			} else {
				spec.MaxRetries = new(uint32(v))
			}
		}
	}
	if in.RetryDelay.Set {
		spec.RetryDelay = 0
		if v := in.RetryDelay.Value; !in.RetryDelay.Null {
			if v < 1 || v > maxRetryDelay {
				ps.add(CodeInvalid, "retryDelay", "%d is not between 1 and %d seconds.", v, maxRetryDelay)
			} else {
				spec.RetryDelay = time.Duration(v) * time.Second
			}
		}
	}
}

func (in *CampaignInput) applyAttributes(spec *store.Spec, tenant *store.Tenant, ps *problems) {
	if in.Tags.Set {
		spec.Tags = nil
		in.applyTags(spec, ps)
	}
	set(&in.Notes, &spec.Notes, func(v string) { ps.notes(v) })
	if in.MaxSegments.Set {
		spec.MaxSegments = 0
		if v := in.MaxSegments.Value; !in.MaxSegments.Null {
			if v < 1 || v > int(tenant.MaxSegments) {
				ps.add(CodeInvalid, "maxSegments", "%d is not between 1 and the tenant's %d.", v, tenant.MaxSegments)
			} else {
				spec.MaxSegments = uint32(v)
			}
		}
	}
	if in.MissingField.Set {
		policy, ok := missingPolicies[in.MissingField.Value]
		if !ok && !in.MissingField.Null {
			ps.add(CodeInvalid, "missingField", "%q is not a policy: want empty, default or fail.", truncate(in.MissingField.Value, 40))
		}
		spec.Missing = policy
	}
	set(&in.MissingDefault, &spec.MissingDefault, func(v string) {
		if utf8.RuneCountInString(v) > maxMissing {
			ps.add(CodeTooLong, "missingDefault", "At most %d characters.", maxMissing)
		}
	})
	in.applyRetries(spec, ps)
	if in.Rate.Set {
		ps.rate(in.Rate.Value)
		spec.Rate = uint32(max(in.Rate.Value, 0))
	}
	if in.Weight.Set {
		if v := in.Weight.Value; !in.Weight.Null && (v < 1 || v > 100) {
			ps.add(CodeInvalid, "weight", "%d is not between 1 and 100.", v)
		}
		spec.Weight = uint32(max(in.Weight.Value, 0))
	}
}

func (in *CampaignInput) applyTags(spec *store.Spec, ps *problems) {
	tags, p := cleanTags(in.Tags.Value)
	if p != nil {
		*ps = append(*ps, p)
		return
	}
	spec.Tags = tags
}

// cleanTags trims tags and drops repeats.
func cleanTags(tags []string) ([]string, *Problem) {
	if len(tags) > maxTags {
		return nil, fieldProblem(CodeInvalid, "tags", "%d tags; at most %d.", len(tags), maxTags)
	}
	var out []string
	for i, tag := range tags {
		tag = strings.TrimSpace(tag)
		if n := utf8.RuneCountInString(tag); n < 1 || n > maxTag || strings.ContainsFunc(tag, func(r rune) bool { return unicode.IsControl(r) || r == '|' }) {
			return nil, fieldProblem(CodeInvalid, "tags", "Tag %d: want 1 to %d characters without | and control characters.", i+1, maxTag)
		}
		if !slices.ContainsFunc(out, func(o string) bool { return strings.EqualFold(o, tag) }) {
			out = append(out, tag)
		}
	}
	return out, nil
}

func (ps *problems) notes(v string) {
	if utf8.RuneCountInString(v) > maxNotes {
		ps.add(CodeTooLong, "notes", "At most %d characters.", maxNotes)
	}
}

func (ps *problems) rate(v int) {
	if v < 0 || v > 1_000_000 {
		ps.add(CodeInvalid, "rate", "%d is not between 0 and 1,000,000 messages per second.", v)
	}
}

var missingPolicies = map[string]fanfarev1.MissingPolicy{
	"empty": fanfarev1.MissingPolicy_MISSING_POLICY_EMPTY, "default": fanfarev1.MissingPolicy_MISSING_POLICY_DEFAULT,
	"fail": fanfarev1.MissingPolicy_MISSING_POLICY_FAIL,
}

func missingPolicyName(p fanfarev1.MissingPolicy) string {
	for name, policy := range missingPolicies {
		if policy == p {
			return name
		}
	}
	return "empty"
}

// missing says what a campaign still lacks to be configured (R67, R91).
func missing(spec *store.Spec) problems {
	var ps problems
	need := func(ok bool, field string) {
		if !ok {
			ps = append(ps, fieldProblem(CodeRequired, field, "%s is required.", field).fixed(`Send %s, or "draft": true to save it incomplete.`, field))
		}
	}
	need(spec.Name != "", "name")
	need(len(spec.Chain) > 0, "channel")
	need(spec.Body != "" && textChannel(spec) || spec.TemplateID != "", "message")
	need(len(spec.Lists) > 0, "contactList")
	return ps
}

// missingForDraft says what even a draft lacks (C6): a name and a channel; of RCS also agent and template (R50).
func missingForDraft(spec *store.Spec) problems {
	var ps problems
	need := func(ok bool, field, why string) {
		if !ok {
			ps.add(CodeRequired, field, "%s is required: %s.", field, why)
		}
	}
	need(spec.Name != "", "name", "a draft has a name and a channel")
	need(len(spec.Chain) > 0, "channel", "a draft has a name and a channel")
	if spec.Channel() == fanfarev1.Channel_CHANNEL_RCS {
		need(spec.Sender != "", "sender", "a draft of RCS has an agent and a template")
		need(spec.TemplateID != "", "message", "a draft of RCS has an agent and a template")
	}
	return ps
}

// warnings of a spec: what is accepted and will not do what it seems to say.
func warnings(spec *store.Spec) []string {
	var out []string
	if spec.SendImmediately && spec.Schedule != nil {
		out = append(out, warningImmediateWins)
	}
	if len(spec.Chain) > 1 && slices.Contains(spec.Chain, fanfarev1.Channel_CHANNEL_SMS) && spec.Body == "" {
		out = append(out, warningNoFallbackText)
	}
	return out
}
