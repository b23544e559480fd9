package api

import (
	"slices"
	"strings"
	"time"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/hours"
)

// filter turns the query into the filter of the store (X2, R130, R133). none is true when no campaign can match.
func (in *listIn) filter(vocab schemas.Vocabulary) (f store.CampaignFilter, none bool, p *problem.Problem) {
	f = store.CampaignFilter{
		Page: store.Page{Number: in.Page, Limit: in.Limit}, Search: in.Search, Tag: in.Tag,
		Oldest: strings.EqualFold(in.Direction, "asc"), IncludeDeleted: in.IncludeDeleted,
	}
	if f.From, p = day(in.StartDate, "startDate", false); p != nil {
		return f, false, p
	}
	if f.To, p = day(in.EndDate, "endDate", true); p != nil {
		return f, false, p
	}
	if f.After, p = readNumberCursor(campaignCursor(in.Direction), in.Cursor); p != nil {
		return f, false, p
	}
	if f.After != 0 {
		in.Page = 0
	}
	states := allStates()
	if in.Status != "" {
		if states, p = statesOf(in.Status, vocab); p != nil {
			return f, false, p
		}
	}
	for _, flag := range []struct {
		value string
		state schemas.State
	}{
		{in.IsDraft, schemas.StateDraft}, {in.IsProgrammed, schemas.StateScheduled}, {in.ReadyToSend, schemas.StateReady},
	} {
		if flag.value != "" {
			states = slices.DeleteFunc(states, func(st schemas.State) bool { return (st == flag.state) != (flag.value == "true") })
		}
	}
	if len(states) == 0 {
		return f, true, nil
	}
	if len(states) < len(allStates()) {
		f.States = states
	}
	if in.Type != "" {
		for name := range strings.SplitSeq(in.Type, ",") {
			channel, ok := schemas.ParseChannel(strings.TrimSpace(name))
			if !ok {
				return f, false, problem.Field(problem.CodeInvalid, "type", "%q is not a channel: want sms, rcs, whatsapp or voice.", problem.Truncate(name, 40))
			}
			f.Channels = append(f.Channels, channel)
		}
	}
	if in.SendingMode != "" {
		chain, ok := chains[in.SendingMode]
		if !ok {
			return f, false, problem.Field(problem.CodeInvalid, "sendingMode", "%q is not a chain of channels.", problem.Truncate(in.SendingMode, 40))
		}
		if len(f.Channels) > 0 && !slices.Contains(f.Channels, chain[0]) {
			return f, true, nil
		}
		f.Channels = chain[:1]
	}
	return f, false, nil
}

// campaignCursor returns the name under which a cursor of a direction is sealed. A cursor of the other direction is
// refused, because it would return the rows already seen.
func campaignCursor(direction string) string {
	return pick(strings.EqualFold(direction, "asc"), "campaigns up", "campaigns")
}

func allStates() []schemas.State {
	out := make([]schemas.State, 0, len(fanfarev1.State_name)-1)
	for n := range len(fanfarev1.State_name) {
		if n > 0 {
			out = append(out, schemas.State(n))
		}
	}
	return out
}

// statesOf parses status words: our names of states, or words of the vocabulary. One word of the vocabulary may mean
// several states.
func statesOf(list string, vocab schemas.Vocabulary) ([]schemas.State, *problem.Problem) {
	var out []schemas.State
	for word := range strings.SplitSeq(list, ",") {
		word = strings.TrimSpace(word)
		found := false
		for _, st := range allStates() {
			if strings.EqualFold(word, schemas.Word(st, vocab)) || strings.EqualFold(word, schemas.StateName(st)) {
				found = true
				if !slices.Contains(out, st) {
					out = append(out, st)
				}
			}
		}
		if !found {
			return nil, problem.Field(problem.CodeInvalid, "status", "%q is not a status.", problem.Truncate(word, 40))
		}
	}
	return out, nil
}

// day reads a date or an RFC 3339 time. A date that ends a range includes the whole day.
func day(s, field string, end bool) (time.Time, *problem.Problem) {
	if s == "" {
		return time.Time{}, nil
	}
	if at := strings.LastIndexByte(s, ' '); at > len(time.DateOnly) && !strings.ContainsAny(s[at+1:], "+-Zz") && strings.Contains(s[:at], ":") {
		s = s[:at] + "+" + s[at+1:] // an unescaped + in a query arrives as a blank
	}
	if t, _, err := hours.ParseInstant(s); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return time.Time{}, problem.Field(problem.CodeInvalid, field, "%q is not a date: want 2025-04-15, or RFC 3339 with an offset.", problem.Truncate(s, 40))
	}
	if end {
		t = t.AddDate(0, 0, 1)
	}
	return t, nil
}
