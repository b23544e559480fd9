package api

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/text"
)

// Fields that only some kinds of campaigns have: variants of SMS, parameters of templates, and settings of calls.

const (
	maxVariants   = 10
	maxConcurrent = 10_000
	maxRing       = 120  // seconds
	maxSpoken     = 1000 // characters
	maxParameters = 100
	maxQueue      = 64
)

// VariantInput is one of several texts of an SMS campaign (R38).
type VariantInput struct {
	Name    string `json:"name" doc:"1 to 50 characters, unique within the campaign." example:"A"`
	Message string `json:"message" doc:"Text, as message."`
	Weight  *int   `json:"weight,omitzero" doc:"0 to 1,000; a variant's share of the recipients is its weight divided by the sum of all weights. Default 1."`
}

// FallbackInput says what a later leg of the chain sends, and from which sender (X3, R163).
type FallbackInput struct {
	Channel    string            `json:"channel" doc:"A later channel of sendingMode." example:"sms"`
	Message    string            `json:"message,omitempty" doc:"Text for SMS; id or name of a template for RCS."`
	Parameters map[string]string `json:"parameters,omitempty" doc:"See parameters of the campaign."`
	Language   string            `json:"language,omitempty" doc:"See language of the campaign."`
	Sender     string            `json:"sender,omitempty" doc:"See sender of the campaign."`
	Route      string            `json:"route,omitempty" doc:"Route to the carrier of this channel; default: that of its agent or WhatsApp number, else the tenant's."`
}

// part is one leg of a campaign as the client gave it, with the names of its fields for errors.
type part struct {
	channel                      schemas.Channel
	message                      string // for SMS and voice the text, else the reference of a template
	params                       map[string]string
	language, sender, route      string
	fMessage, fParams, fLanguage string
	fSender, fRoute              string
}

// empty reports whether a leg has nothing to send. Later legs that are empty are left out.
func (p *part) empty() bool { return p.message == "" }

// partsOf returns the legs of a campaign in the order of its chain.
func partsOf(spec *store.Spec) []part {
	out := make([]part, 0, len(spec.Chain))
	defer func() {
		for i := range out {
			if out[i].channel == schemas.ChannelSMS {
				out[i].message = sentText(spec, out[i].message)
			}
		}
	}()
	for i, channel := range spec.Chain {
		if i == 0 {
			p := part{
				channel: channel, message: spec.TemplateID, params: spec.Parameters, language: spec.Language, sender: spec.Sender, route: spec.Route,
				fMessage: "message", fParams: "parameters", fLanguage: "language", fSender: "sender", fRoute: "route",
			}
			if textChannel(spec) {
				p.message = spec.Body
			}
			out = append(out, p)
			continue
		}
		p := part{channel: channel, fMessage: "fallbackMessage", fSender: "fallbackLegs", fRoute: "fallbackLegs", fParams: "fallbackLegs", fLanguage: "fallbackLegs"}
		for j := range spec.Fallbacks {
			if f := &spec.Fallbacks[j]; f.Channel == channel {
				at := fmt.Sprintf("fallbackLegs[%d].", j)
				p.message, p.params, p.language, p.sender, p.route = f.Message, f.Parameters, f.Language, f.Sender, f.Route
				p.fMessage, p.fParams, p.fLanguage, p.fSender, p.fRoute = at+"message", at+"parameters", at+"language", at+"sender", at+"route"
			}
		}
		if channel == schemas.ChannelSMS && p.message == "" {
			p.message, p.fMessage = spec.Body, "fallbackMessage"
		}
		out = append(out, p)
	}
	return out
}

// writtenText is a text of a campaign and the field that it came from.
type writtenText struct{ field, text string }

// textsOf returns every text of the campaign that may have merge fields.
func textsOf(spec *store.Spec) []writtenText {
	var out []writtenText
	for i, v := range spec.Variants {
		out = append(out, writtenText{fmt.Sprintf("variants[%d].message", i), v.Body})
	}
	for _, p := range partsOf(spec) {
		if p.message != "" && (p.channel == schemas.ChannelSMS || p.channel == schemas.ChannelVoice) {
			out = append(out, writtenText{p.fMessage, p.message})
		}
		for _, name := range sortedKeys(p.params) {
			out = append(out, writtenText{p.fParams + "." + name, p.params[name]})
		}
	}
	return out
}

// applyKind reads the fields that only some channels have. Call it when the channel and the content are known.
func (in *CampaignInput) applyKind(spec *store.Spec, tenant *store.Tenant, ps *problem.List) {
	in.applySenderNames(spec, ps)
	in.applyVariants(spec, tenant, ps)
	if in.Transliterate.Set {
		if spec.Transliterate = in.Transliterate.Value; spec.Transliterate && !slices.Contains(spec.Chain, schemas.ChannelSMS) {
			ps.Add(problem.CodeInvalid, "transliterate", "Only the text of an SMS is transliterated.")
		}
	}
	if in.Parameters.Set {
		spec.Parameters = nil
		if !in.Parameters.Null && len(in.Parameters.Value) > 0 {
			spec.Parameters = in.Parameters.Value
			in.onlyOf(ps, spec, "parameters", schemas.ChannelRCS, schemas.ChannelWhatsApp)
			checkParameters(ps, "parameters", spec.Parameters)
		}
	}
	if in.Language.Set {
		if spec.Language = in.Language.Value; spec.Language != "" {
			in.onlyOf(ps, spec, "language", schemas.ChannelRCS, schemas.ChannelWhatsApp, schemas.ChannelVoice)
			if !languageTag.MatchString(spec.Language) {
				ps.Add(problem.CodeInvalid, "language", "%q is not a language: want a tag such as it or en_US.", problem.Truncate(spec.Language, 40))
			}
		}
	}
	set(&in.TrafficType, &spec.Traffic, func(v string) { allowedWord(ps, "trafficType", v, "outbound", "inbound_outbound") })
	in.applyFallbacks(spec, tenant, ps)
	in.applyVoice(spec, ps)
}

// onlyOf adds a problem about a field unless the campaign's channel is one of channels.
func (in *CampaignInput) onlyOf(ps *problem.List, spec *store.Spec, field string, channels ...schemas.Channel) {
	if ch := spec.Channel(); ch != schemas.ChannelUnspecified && !slices.Contains(channels, ch) {
		names := make([]string, len(channels))
		for i, c := range channels {
			names[i] = schemas.ChannelName(c)
		}
		ps.Add(problem.CodeInvalid, field, "A campaign of %s has no %s: only %s has.", schemas.ChannelName(ch), field, strings.Join(names, " and "))
	}
}

// applySenderNames reads the other names of the field sender: agent, messagingChannel and callerId.
func (in *CampaignInput) applySenderNames(spec *store.Spec, ps *problem.List) {
	for _, alias := range []struct {
		field   string
		in      *problem.Optional[string]
		channel schemas.Channel
	}{
		{"agent", &in.Agent, schemas.ChannelRCS}, {"messagingChannel", &in.MessagingChannel, schemas.ChannelWhatsApp}, {"callerId", &in.CallerID, schemas.ChannelVoice},
	} {
		if !alias.in.Set {
			continue
		}
		if alias.in.Value != "" {
			in.onlyOf(ps, spec, alias.field, alias.channel)
		}
		if in.Sender.Set && in.Sender.Value != alias.in.Value {
			ps.Add(problem.CodeInvalid, alias.field, "sender and %s are the same field: send one of them.", alias.field)
		}
		spec.Sender = alias.in.Value
	}
}

func (in *CampaignInput) applyVariants(spec *store.Spec, tenant *store.Tenant, ps *problem.List) {
	if !in.Variants.Set {
		if in.Message.Set && !in.Message.Null { // one message replaces the variants
			spec.Variants = nil
		}
		return
	}
	spec.Variants = nil
	if in.Variants.Null || len(in.Variants.Value) == 0 {
		return
	}
	in.onlyOf(ps, spec, "variants", schemas.ChannelSMS)
	given := in.Variants.Value
	if len(given) < 2 || len(given) > maxVariants {
		ps.Add(problem.CodeInvalid, "variants", "There are %d variants: want 2 to %d.", len(given), maxVariants)
		return
	}
	if in.Message.Set && !in.Message.Null {
		ps.Add(problem.CodeInvalid, "message", "A campaign has one message or variants, not both.")
	}
	spec.Body = ""
	sum := 0
	for i, v := range given {
		at := fmt.Sprintf("variants[%d].", i)
		name := strings.TrimSpace(v.Name)
		if n := utf8.RuneCountInString(name); n < 1 || n > maxTag || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' }) {
			ps.Add(problem.CodeInvalid, at+"name", "A variant has a name of 1 to %d characters.", maxTag)
		}
		if slices.ContainsFunc(spec.Variants, func(o store.Variant) bool { return strings.EqualFold(o.Name, name) }) {
			ps.Add(problem.CodeInvalid, at+"name", "Two variants are named %q.", problem.Truncate(name, maxTag))
		}
		body := text.Compose(v.Message)
		if text.Blank(body) {
			ps.Add(problem.CodeRequired, at+"message", "The text of the variant is empty.")
		} else {
			checkSMS(ps, at+"message", body, spec, tenant)
		}
		weight := 1
		if v.Weight != nil {
			weight = *v.Weight
		}
		checkVariantWeight(ps, at+"weight", weight)
		sum += max(weight, 0)
		spec.Variants = append(spec.Variants, store.Variant{Name: name, Body: body, Weight: uint32(max(weight, 0))})
	}
	if sum == 0 {
		ps.Add(problem.CodeInvalid, "variants", "The weights of all variants are 0: no recipient would get a text.")
	}
}

func checkVariantWeight(ps *problem.List, field string, v int) {
	if v < 0 || v > 1000 {
		ps.Add(problem.CodeInvalid, field, "%d is not between 0 and 1,000.", v)
	}
}

// checkParameters checks the values of a template's parameters: texts that may have merge fields.
func checkParameters(ps *problem.List, field string, params map[string]string) {
	if len(params) > maxParameters {
		ps.Add(problem.CodeInvalid, field, "%d parameters; at most %d.", len(params), maxParameters)
		return
	}
	for _, name := range sortedKeys(params) {
		at := field + "." + problem.Truncate(name, 40)
		v := params[name]
		switch tpl, err := text.Parse(v); {
		case err != nil:
			ps.Add(problem.CodeInvalid, at, "%s.", err)
		case text.Blank(v) || tpl.Blank():
			ps.Add(problem.CodeInvalid, at, "The value is blank: providers refuse an empty parameter.")
		case utf8.RuneCountInString(v) > maxTemplateID:
			ps.Add(problem.CodeTooLong, at, "The value has %d characters; at most %d are taken.", utf8.RuneCountInString(v), maxTemplateID)
		}
	}
}

// applyFallbacks reads what the later legs send.
func (in *CampaignInput) applyFallbacks(spec *store.Spec, tenant *store.Tenant, ps *problem.List) {
	if in.FallbackLegs.Set {
		spec.Fallbacks = nil
		for i := range in.FallbackLegs.Value {
			f := &in.FallbackLegs.Value[i]
			at := fmt.Sprintf("fallbackLegs[%d].", i)
			channel, ok := schemas.ParseChannel(f.Channel)
			switch {
			case !ok || schemas.ChannelName(channel) != f.Channel:
				ps.Add(problem.CodeInvalid, at+"channel", "%q is not a channel: want rcs or sms.", problem.Truncate(f.Channel, 40))
				continue
			case slices.ContainsFunc(spec.Fallbacks, func(o store.Fallback) bool { return o.Channel == channel }):
				ps.Add(problem.CodeInvalid, at+"channel", "Two fallback legs have the channel %s.", f.Channel)
				continue
			case len(spec.Chain) > 0 && !slices.Contains(spec.Chain[1:], channel):
				ps.Add(problem.CodeInvalid, at+"channel", "%s is not a later channel of sendingMode %s.", f.Channel, sendingMode(spec.Chain))
				continue
			}
			next := store.Fallback{Channel: channel, Message: f.Message, Parameters: f.Parameters, Language: f.Language, Sender: f.Sender, Route: f.Route}
			if channel == schemas.ChannelSMS {
				next.Message = text.Compose(f.Message)
				checkSMS(ps, at+"message", next.Message, spec, tenant)
				if in.FallbackMessage.Set && !in.FallbackMessage.Null && f.Message != "" && f.Message != in.FallbackMessage.Value {
					ps.Add(problem.CodeInvalid, at+"message", "fallbackMessage and the message of the sms leg are the same field: send one of them.")
				}
				checkSender(ps, at+"sender", f.Sender, channel)
			}
			checkParameters(ps, at+"parameters", f.Parameters)
			if f.Route != "" && schemas.ValidRoute(f.Route) != nil {
				ps.Add(problem.CodeInvalid, at+"route", "%q is not the name of a route.", problem.Truncate(f.Route, 40))
			}
			spec.Fallbacks = append(spec.Fallbacks, next)
		}
	}
	spec.Fallbacks = slices.DeleteFunc(slices.Clone(spec.Fallbacks), func(f store.Fallback) bool {
		return len(spec.Chain) == 0 || !slices.Contains(spec.Chain[1:], f.Channel) // the chain has changed
	})
}

// applyVoice reads the settings of a call (R21 to R27).
func (in *CampaignInput) applyVoice(spec *store.Spec, ps *problem.List) {
	if spec.Channel() != schemas.ChannelVoice {
		spec.Voice = nil
		for field, given := range map[string]bool{
			"queue": in.Queue.Set && !in.Queue.Null, "maxConcurrent": in.MaxConcurrent.Set && !in.MaxConcurrent.Null, "amdEnabled": in.AMDEnabled.Value,
			"amdAction": in.AMDAction.Value != "", "audio": in.Audio.Value != "", "ringSeconds": in.RingSeconds.Set && !in.RingSeconds.Null,
		} {
			if given && spec.Channel() != schemas.ChannelUnspecified {
				in.onlyOf(ps, spec, field, schemas.ChannelVoice)
			}
		}
		return
	}
	v := store.Voice{MaxConcurrent: 1}
	if spec.Voice != nil {
		v = *spec.Voice
	}
	set(&in.Queue, &v.Queue, func(q string) {
		if len(q) > maxQueue || strings.ContainsFunc(q, func(r rune) bool { return r <= ' ' || r > '~' }) {
			ps.Add(problem.CodeInvalid, "queue", "A queue has at most %d printable ASCII characters and no blanks.", maxQueue)
		}
	})
	if in.MaxConcurrent.Set {
		if v.MaxConcurrent = 1; !in.MaxConcurrent.Null {
			if n := in.MaxConcurrent.Value; n < 1 || n > maxConcurrent {
				ps.Add(problem.CodeInvalid, "maxConcurrent", "%d is not between 1 and %d.", n, maxConcurrent)
			} else {
				v.MaxConcurrent = uint32(n)
			}
		}
	}
	set(&in.AMDEnabled, &v.AMD, nil)
	set(&in.AMDAction, &v.AMDAction, func(a string) { allowedWord(ps, "amdAction", a, "hangup", "voicemail") })
	if v.AMDAction != "" && !v.AMD && !in.AMDAction.Null && in.AMDAction.Set {
		ps.Add(problem.CodeInvalid, "amdAction", "amdAction says what to do when a machine answers: amdEnabled must be true.")
	}
	if v.AMD && v.AMDAction == "" {
		v.AMDAction = "hangup"
	}
	if !v.AMD {
		v.AMDAction = ""
	}
	set(&in.Audio, &v.Audio, func(a string) {
		if !strings.HasPrefix(a, "https://") || len(a) > 2000 || strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r > '~' }) {
			ps.Add(problem.CodeInvalid, "audio", "The audio needs an https address of at most 2,000 characters.")
		}
	})
	if in.RingSeconds.Set {
		if v.RingSeconds = 0; !in.RingSeconds.Null {
			if n := in.RingSeconds.Value; n < 5 || n > maxRing {
				ps.Add(problem.CodeInvalid, "ringSeconds", "%d is not between 5 and %d.", n, maxRing)
			} else {
				v.RingSeconds = uint32(n)
			}
		}
	}
	if v.Audio != "" && spec.Body != "" {
		ps.Add(problem.CodeInvalid, pick(in.Audio.Set, "audio", "message"), "A call plays audio or speaks message, not both.")
	}
	spec.Voice = &v
}

// checkSpoken checks the text of a call.
func checkSpoken(ps *problem.List, field, v string) {
	if n := utf8.RuneCountInString(v); n > maxSpoken {
		ps.Add(problem.CodeTooLong, field, "The text has %d characters; a call speaks at most %d.", n, maxSpoken)
		return
	}
	tpl, err := text.Parse(v)
	switch {
	case err != nil:
		ps.Add(problem.CodeInvalid, field, "%s.", err)
	case v != "" && tpl.Blank():
		ps.Add(problem.CodeInvalid, field, "The text is blank: the call would say nothing.")
	}
}
