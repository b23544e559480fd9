package ui

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"
)

// policyPage has the rules that a tenant's campaigns must meet at confirm (R48, R81, R160, X9), and the time from which
// they may be replayed (C21).
type policyPage struct {
	Person  *Person
	Screen  *resourceScreen // for the tabs of the section
	Version string          // the ETag
	Values  map[string]string
	Errors  map[string]string
}

// Wrong returns what is wrong with a field or with a part of it, such as countryCaps[1].max.
func (v *policyPage) Wrong(name string) []string {
	var out []string
	for _, field := range slices.Sorted(maps.Keys(v.Errors)) {
		if rest, ok := strings.CutPrefix(field, name); ok && (rest == "" || rest[0] == '[' || rest[0] == '.') {
			out = append(out, v.Errors[field])
		}
	}
	return out
}

// policyScreen is shown to those who may read the policy; an operator may change it.
func (u *UI) policyScreen(r chi.Router) {
	r.Get("/policy", u.policyPage)
	r.Post("/policy", u.savePolicy)
}

const apiPolicy = "/api/policy"

// usualReplayHours is the number of hours after its first submission from which a campaign may be replayed, unless the
// policy has another value (C21).
const usualReplayHours = 24

// loadPolicy reads the policy into the values of the form.
func (u *UI) loadPolicy(r *http.Request) (*policyPage, error) {
	p := personOf(r.Context())
	var policy struct {
		SecondPerson bool     `json:"secondPerson"`
		Words        []string `json:"words"`
		Patterns     []string `json:"patterns"`
		Domains      []string `json:"domains"`
		FrequencyCap *struct {
			Max  int `json:"max"`
			Days int `json:"days"`
		} `json:"frequencyCap"`
		CountryCaps []struct {
			Country string `json:"country"`
			Max     int    `json:"max"`
			Per     string `json:"per"`
		} `json:"countryCaps"`
		Maintenance []struct {
			Route    string `json:"route"`
			Start    string `json:"start"`
			End      string `json:"end"`
			Timezone string `json:"timezone"`
		} `json:"maintenanceWindows"`
		ReplayWindow struct {
			AfterHours int  `json:"afterHours"`
			Days       *int `json:"days"`
		} `json:"replayWindow"`
		Compliance     string `json:"compliance"`
		ConfirmOptOuts bool   `json:"confirmOptOuts"`
		Version        uint64 `json:"version"`
	}
	if err := u.get(r.Context(), p, apiPolicy, nil, &policy); err != nil {
		return nil, err
	}
	v := &policyPage{Person: p, Screen: &resourceScreen{Key: "policy", Section: "settings"}, Version: fmt.Sprintf("%q", strconv.FormatUint(policy.Version, 10)), Values: map[string]string{
		"words": strings.Join(policy.Words, "\n"), "patterns": strings.Join(policy.Patterns, "\n"), "domains": strings.Join(policy.Domains, "\n"),
		"replayAfterHours": strconv.Itoa(policy.ReplayWindow.AfterHours), "compliance": policy.Compliance,
	}}
	if days := policy.ReplayWindow.Days; days != nil {
		v.Values["replayDays"] = strconv.Itoa(*days)
	}
	if policy.ConfirmOptOuts {
		v.Values["confirmOptOuts"] = "true"
	}
	if policy.SecondPerson {
		v.Values["secondPerson"] = "true"
	}
	if f := policy.FrequencyCap; f != nil {
		v.Values["frequencyMax"], v.Values["frequencyDays"] = strconv.Itoa(f.Max), strconv.Itoa(f.Days)
	}
	var lines []string
	for _, c := range policy.CountryCaps {
		lines = append(lines, fmt.Sprintf("%s %d %s", c.Country, c.Max, c.Per))
	}
	v.Values["countryCaps"], lines = strings.Join(lines, "\n"), nil
	for _, m := range policy.Maintenance {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", m.Route, m.Start, m.End, m.Timezone)))
	}
	v.Values["maintenanceWindows"] = strings.Join(lines, "\n")
	return v, nil
}

func (u *UI) policyPage(w http.ResponseWriter, r *http.Request) {
	v, err := u.loadPolicy(r)
	if err != nil {
		u.fail(w, r, err)
		return
	}
	u.render(w, r, http.StatusOK, "policy", v)
}

// policyInput makes the body of the request from the typed values, in which each word, pattern, domain, cap or window
// is one line.
func policyInput(val map[string]string) map[string]any {
	in := map[string]any{
		"secondPerson": val["secondPerson"] != "", "words": linesOf(val["words"]), "patterns": linesOf(val["patterns"]), "domains": linesOf(val["domains"]),
		"frequencyCap": nil, "replayWindow": nil, "confirmOptOuts": val["confirmOptOuts"] != "",
	}
	if after, days := number(val["replayAfterHours"]), number(val["replayDays"]); after != nil || days != nil {
		if after == nil {
			after = usualReplayHours
		}
		in["replayWindow"] = map[string]any{"afterHours": after, "days": days}
	}
	if most, days := number(val["frequencyMax"]), number(val["frequencyDays"]); most != nil || days != nil {
		in["frequencyCap"] = map[string]any{"max": most, "days": days}
	}
	if mode := val["compliance"]; mode != "" {
		in["compliance"] = mode
	}
	caps, windows := []map[string]any{}, []map[string]any{}
	for _, line := range linesOf(val["countryCaps"]) {
		caps = append(caps, wordsAs(line, "country", "max", "per"))
	}
	for _, line := range linesOf(val["maintenanceWindows"]) {
		windows = append(windows, wordsAs(line, "route", "start", "end", "timezone"))
	}
	in["countryCaps"], in["maintenanceWindows"] = caps, windows
	return in
}

// wordsAs maps names to the words of a line. The last name gets the rest of the line; the API names what is missing or
// wrong.
func wordsAs(line string, names ...string) map[string]any {
	out := map[string]any{}
	words := strings.Fields(line)
	for i, name := range names {
		switch {
		case i >= len(words):
		case name == "max":
			out[name] = number(words[i])
		case i == len(names)-1:
			out[name] = strings.Join(words[i:], " ")
		default:
			out[name] = words[i]
		}
	}
	return out
}

// linesOf are the lines of a text that are not blank.
func linesOf(text string) []string {
	out := []string{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

func (u *UI) savePolicy(w http.ResponseWriter, r *http.Request) {
	if !parseForm(w, r) {
		return
	}
	val := typed(r)
	if err := u.callTagged(r.Context(), personOf(r.Context()), http.MethodPut, apiPolicy, val["etag"], policyInput(val), nil); err != nil {
		problem, ok := asProblem(err)
		if !ok {
			u.fail(w, r, err)
			return
		}
		v, err := u.loadPolicy(r)
		if err != nil {
			u.fail(w, r, err)
			return
		}
		v.Values, v.Errors = val, problem.Fields()
		u.render(w, r, problem.Status, "policy", v)
		return
	}
	u.done(w, r, "/policy", mustSay("done.policy"))
}
