package api

import (
	"slices"
	"strings"
	"unicode/utf8"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/text"
)

// Rules of the channels: chains, content and senders.

const (
	maxSMS        = 160  // characters of a text as written (R156)
	maxTemplateID = 1000 // characters of an RCS or WhatsApp message (R156)
	maxSender     = 64
)

// chains are the values of sendingMode (X3).
var chains = map[string][]schemas.Channel{
	"SMS":              {schemas.ChannelSMS},
	"RCS":              {schemas.ChannelRCS},
	"WHATSAPP":         {schemas.ChannelWhatsApp},
	"RCS_SMS":          {schemas.ChannelRCS, schemas.ChannelSMS},
	"WHATSAPP_SMS":     {schemas.ChannelWhatsApp, schemas.ChannelSMS},
	"WHATSAPP_RCS":     {schemas.ChannelWhatsApp, schemas.ChannelRCS},
	"WHATSAPP_RCS_SMS": {schemas.ChannelWhatsApp, schemas.ChannelRCS, schemas.ChannelSMS},
	"VOICE":            {schemas.ChannelVoice},
}

// sendingMode names a chain.
func sendingMode(chain []schemas.Channel) string {
	parts := make([]string, len(chain))
	for i, c := range chain {
		parts[i] = strings.ToUpper(schemas.ChannelName(c))
	}
	return strings.Join(parts, "_")
}

// textChannel reports whether the first channel of the chain sends a text. The other channels send a template.
func textChannel(spec *store.Spec) bool {
	return spec.Channel() == schemas.ChannelSMS || spec.Channel() == schemas.ChannelVoice
}

// applyChannels reads channel, sendingMode and fallback, which all describe the chain of channels.
func (in *CampaignInput) applyChannels(spec *store.Spec, ps *problem.List) {
	before := spec.Channel()
	if in.Channel.Set && !in.applyChannel(spec, ps) {
		return
	}
	if in.SendingMode.Set && !in.SendingMode.Null {
		chain, ok := chains[in.SendingMode.Value]
		switch {
		case !ok:
			ps.Add(problem.CodeInvalid, "sendingMode", "%q is not a chain of channels: want one of SMS, RCS, WHATSAPP, RCS_SMS, WHATSAPP_SMS, WHATSAPP_RCS, WHATSAPP_RCS_SMS, VOICE.", problem.Truncate(in.SendingMode.Value, 40))
		case len(spec.Chain) > 0 && chain[0] != spec.Chain[0] && in.Channel.Set:
			ps.Add(problem.CodeInvalid, "sendingMode", "sendingMode %s does not begin with channel %s.", in.SendingMode.Value, schemas.ChannelName(spec.Chain[0]))
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
			ps.Add(problem.CodeInvalid, "fallback", "fallback is false, but sendingMode %s has a fallback.", in.SendingMode.Value)
		case !in.Fallback.Value:
			spec.Chain = spec.Chain[:min(1, len(spec.Chain))]
		}
	}
	if spec.Fallback && spec.Channel() == schemas.ChannelVoice {
		ps.Add(problem.CodeInvalid, "fallback", "A call has no fallback.")
	}
	if spec.Fallback && len(spec.Chain) == 1 && !textChannel(spec) {
		spec.Chain = append(slices.Clone(spec.Chain), schemas.ChannelSMS)
	}
	if after := spec.Channel(); before != schemas.ChannelUnspecified && after != before {
		// The old content and its sender belong to the old channel: a text is not a template id.
		spec.Parameters, spec.Variants, spec.Voice, spec.Language, spec.Named, spec.Sender = nil, nil, nil, "", nil, ""
		if !in.Message.Set {
			spec.Body, spec.TemplateID = "", ""
		}
	}
}

// applyChannel reads the field channel, and reports whether its value is a channel.
func (in *CampaignInput) applyChannel(spec *store.Spec, ps *problem.List) bool {
	channel, ok := schemas.ParseChannel(in.Channel.Value)
	switch {
	case in.Channel.Null || in.Channel.Value == "":
		spec.Chain = nil
	case !ok || in.Channel.Value != schemas.ChannelName(channel):
		ps.Add(problem.CodeInvalid, "channel", "%q is not a channel: want sms, rcs, whatsapp or voice.", problem.Truncate(in.Channel.Value, 40))
		return false
	case channel != spec.Channel():
		spec.Chain = []schemas.Channel{channel}
	}
	return true
}

// applyContent reads message and fallbackMessage: the text of an SMS, or a template and the text of the fallback SMS.
func (in *CampaignInput) applyContent(spec *store.Spec, tenant *store.Tenant, ps *problem.List) {
	if in.Message.Set {
		spec.Body, spec.TemplateID = "", ""
		in.applyMessage(spec, tenant, ps)
	}
	if !in.FallbackMessage.Set {
		return
	}
	if !textChannel(spec) {
		spec.Body = text.Compose(in.FallbackMessage.Value)
		checkSMS(ps, "fallbackMessage", spec.Body, spec, tenant)
	} else if !in.FallbackMessage.Null {
		ps.Add(problem.CodeInvalid, "fallbackMessage", "A campaign of %s has only one text: message.", schemas.ChannelName(spec.Channel()))
	}
}

func (in *CampaignInput) applyMessage(spec *store.Spec, tenant *store.Tenant, ps *problem.List) {
	v := in.Message.Value
	switch {
	case in.Message.Null:
	case v == "": // R155. [missing] reports an absent message; an empty one is wrong even in a draft.
		ps.Add(problem.CodeInvalid, "message", "The message is empty: want at least 1 character.")
	case !utf8.ValidString(v):
		ps.Add(problem.CodeInvalid, "message", "The message is not UTF-8.")
	case text.Blank(v):
		ps.Add(problem.CodeInvalid, "message", "The message is blank: a phone would show nothing.")
	case len(spec.Chain) > 0 && !textChannel(spec):
		if n := utf8.RuneCountInString(v); n > maxTemplateID {
			ps.Add(problem.CodeTooLong, "message", "The message has %d characters; %s takes at most %d.", n, schemas.ChannelName(spec.Channel()), maxTemplateID)
		}
		spec.TemplateID = v
	case spec.Channel() == schemas.ChannelVoice:
		spec.Body = text.Compose(v)
		checkSpoken(ps, "message", spec.Body)
	default:
		spec.Body = text.Compose(v)
		checkSMS(ps, "message", spec.Body, spec, tenant)
	}
}

// smsLimit returns how many characters the text of an SMS may have as written (C14): E's 160, and more for a tenant
// whose maxSegments is above the default of 3.
func smsLimit(tenant *store.Tenant) int {
	if tenant.MaxSegments > 3 {
		return text.GSMConcat * int(tenant.MaxSegments)
	}
	return maxSMS
}

func checkSMS(ps *problem.List, field, v string, spec *store.Spec, tenant *store.Tenant) {
	if n, limit := utf8.RuneCountInString(text.FillLinks(sentText(spec, v), anyLink)), smsLimit(tenant); n > limit {
		ps.Add(problem.CodeTooLong, field, "The text has %d characters; sms takes at most %d.", n, limit)
		return
	}
	tpl, err := text.Parse(v)
	switch {
	case err != nil:
		ps.Add(problem.CodeInvalid, field, "%s.", err)
	case v != "" && tpl.Blank():
		ps.Add(problem.CodeInvalid, field, "The text is blank: a phone would show nothing.")
	}
}

func checkSender(ps *problem.List, field, v string, channel schemas.Channel) {
	if _, id := store.ResourceNumber(store.KindSender, v); v == "" || id {
		return
	}
	if fault := badSender(v, channel); fault != "" {
		ps.Add(problem.CodeInvalid, field, "%s", fault)
	}
}

// badSender returns what is wrong with a sender, "" when nothing is. The sender of an SMS has at most 11 letters,
// digits and the punctuation that carriers accept between them, or is a number of at most 15 digits (X4). On other
// channels it is the id of an agent or channel.
func badSender(v string, channel schemas.Channel) string {
	if len(v) > maxSender || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "The sender must have at most 64 characters, all printable ASCII."
	}
	if channel != schemas.ChannelSMS {
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
		return "An alphanumeric sender may have letters and digits, with blanks and . - _ & between them."
	}
	return ""
}
