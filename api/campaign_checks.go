package api

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/text"
)

// Limits of a campaign's fields. E documents the length of a message (R155, R156); the other limits keep rows small.
const (
	maxName       = 200
	maxNotes      = 4000
	maxTags       = 20
	maxTag        = 50
	maxMissing    = 200
	inPastBy      = 5 * time.Minute // C17
	maxRetries    = 9
	maxRetryDelay = 86_400 // seconds
)

func checkName(ps *problem.List, v string) {
	switch n := utf8.RuneCountInString(v); {
	case strings.TrimSpace(v) == "":
		ps.Add(problem.CodeRequired, "name", "The name is empty.")
	case n > maxName:
		ps.Add(problem.CodeTooLong, "name", "The name has %d characters; at most %d are kept.", n, maxName)
	case strings.ContainsFunc(v, unicode.IsControl):
		ps.Add(problem.CodeInvalid, "name", "The name has a control character.")
	}
}

// checkText checks a text that is kept as it is given: at most most characters.
func checkText(ps *problem.List, field, v string, most int) {
	if n := utf8.RuneCountInString(v); n > most {
		ps.Add(problem.CodeTooLong, field, "The text has %d characters; at most %d are kept.", n, most)
	}
}

// maxNote is the longest note of a movement of money, and maxWhy the longest reason of a decision, in characters.
const (
	maxNote = 200
	maxWhy  = 500
)

func checkNotPast(ps *problem.List, at, now time.Time, immediate bool) {
	if !immediate && at.Before(now.Add(-inPastBy)) {
		ps.Add(problem.CodeInPast, "scheduledTime", "%s is in the past: it is %s.", stamp(at), stamp(now))
	}
}

// cleanTags trims tags and drops duplicates, compared without regard to case.
func cleanTags(tags []string) ([]string, *problem.Problem) {
	if len(tags) > maxTags {
		return nil, problem.Field(problem.CodeInvalid, "tags", "%d tags; at most %d.", len(tags), maxTags)
	}
	var out []string
	for i, tag := range tags {
		tag = strings.TrimSpace(tag)
		if !validTag(tag) {
			return nil, problem.Field(problem.CodeInvalid, "tags", "Tag %d: want 1 to %d characters without | and control characters.", i+1, maxTag)
		}
		if !slices.ContainsFunc(out, func(o string) bool { return strings.EqualFold(o, tag) }) {
			out = append(out, tag)
		}
	}
	return out, nil
}

// validTag reports whether a trimmed tag can be stored. It may have no |, because the store separates tags by it.
func validTag(tag string) bool {
	n := utf8.RuneCountInString(tag)
	return n >= 1 && n <= maxTag && !strings.ContainsFunc(tag, func(r rune) bool { return unicode.IsControl(r) || r == '|' })
}

func checkNotes(ps *problem.List, v string) {
	if utf8.RuneCountInString(v) > maxNotes {
		ps.Add(problem.CodeTooLong, "notes", "At most %d characters.", maxNotes)
	}
}

func checkRate(ps *problem.List, v int) {
	if v < 0 || v > 1_000_000 {
		ps.Add(problem.CodeInvalid, "rate", "%d is not between 0 and 1,000,000 messages per second.", v)
	}
}

func checkWeight(ps *problem.List, v int) {
	if v < 1 || v > 100 {
		ps.Add(problem.CodeInvalid, "weight", "%d is not between 1 and 100.", v)
	}
}

var missingPolicies = map[string]schemas.MissingPolicy{
	"empty": schemas.MissingPolicyEmpty, "default": schemas.MissingPolicyDefault, "fail": schemas.MissingPolicyFail,
}

func missingPolicyName(p schemas.MissingPolicy) string {
	for name, policy := range missingPolicies {
		if policy == p {
			return name
		}
	}
	return "empty"
}

// missing returns the fields that a campaign needs to be configured and lacks (R67, R91).
func missing(spec *store.Spec) problem.List {
	var ps problem.List
	need := func(ok bool, field string) {
		if !ok {
			ps = append(ps, problem.Field(problem.CodeRequired, field, "%s is required.", field).WithFix(`Send %s, or "draft": true to save it incomplete.`, field))
		}
	}
	need(spec.Name != "", "name")
	need(len(spec.Chain) > 0, "channel")
	speaks := spec.Voice != nil && spec.Voice.Audio != ""
	need(textChannel(spec) && (spec.Body != "" || len(spec.Variants) > 0 || speaks) || spec.TemplateID != "", "message")
	need(len(spec.Lists) > 0 || spec.ReplayOf != 0, "contactList")
	return ps
}

// missingForDraft returns the fields that a draft needs and lacks (C6): a name and a channel, and for RCS an agent and
// a template as well (R50).
func missingForDraft(spec *store.Spec) problem.List {
	var ps problem.List
	need := func(ok bool, field, why string) {
		if !ok {
			ps.Add(problem.CodeRequired, field, "%s is required: %s.", field, why)
		}
	}
	need(spec.Name != "", "name", "a draft needs a name and a channel")
	need(len(spec.Chain) > 0, "channel", "a draft needs a name and a channel")
	if spec.Channel() == schemas.ChannelRCS {
		// The agent of the template, or the tenant's only agent
		known := len(spec.Named) > 0 && spec.Named[0].Sender != ""
		need(spec.Sender != "" || known, "sender", "a draft of RCS needs an agent and a template")
		need(spec.TemplateID != "", "message", "a draft of RCS needs an agent and a template")
	}
	return ps
}

// warnings returns warnings about values that are accepted but do not have the effect that they seem to have.
func warnings(c *store.Campaign) []string {
	spec := &c.Spec
	var out []string
	if len(c.Legs) > 0 {
		for i, leg := range legs(c, nil, 0, time.Time{}) {
			if i < len(c.Legs) && c.Legs[i].MaxHandovers < leg.MaxHandovers {
				out = append(out, warningFewerRetries)
				break
			}
		}
	}
	if c.State == schemas.StateSuspended && c.Reason == schemas.ReasonNoDomains {
		out = append(out, spentSentence(c, store.DomainKinds(c)))
	}
	if spec.SendImmediately && spec.Schedule != nil {
		out = append(out, warningImmediateWins)
	}
	for _, p := range partsOf(spec)[min(1, len(spec.Chain)):] {
		if p.empty() {
			out = append(out, fmt.Sprintf(warningNoFallback, schemas.ChannelName(p.channel), pick(p.channel == schemas.ChannelSMS, "fallbackMessage", "fallbackLegs")))
		}
	}
	for _, w := range textsOf(spec) {
		if strings.Contains(w.field, "arameters") || spec.Channel() == schemas.ChannelVoice {
			continue
		}
		tpl, err := text.Parse(w.text)
		if err != nil {
			continue
		}
		if costly, ok := tpl.Explain(); ok && (!spec.Transliterate || text.Measure(text.Transliterate(w.text)).Encoding == schemas.EncodingUCS2) {
			out = append(out, costly.String())
		}
		if tpl.OnlyFields() {
			out = append(out, warningOnlyFields)
		}
	}
	return out
}
