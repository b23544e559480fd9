package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/proto"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/hours"
	"fanfare/schemas/text"
)

// Policy has the rules that confirm checks for a tenant's campaigns (R48, R81, R160). An operator sets it.
type Policy struct {
	SecondPerson   bool                `json:"secondPerson" doc:"A campaign must be confirmed by a person who has not edited it."`
	Words          []string            `json:"words" nullable:"false" doc:"Content that has one of these words or phrases is rejected; case and accents do not matter."`
	Patterns       []string            `json:"patterns" nullable:"false" doc:"Regular expressions (RE2): content that matches one is rejected."`
	Domains        []string            `json:"domains" nullable:"false" doc:"Content with a link to one of these domains or their subdomains is rejected."`
	FrequencyCap   *FrequencyCap       `json:"frequencyCap" doc:"Most campaigns to one recipient within so many days; further campaigns skip the recipient as FREQUENCY_CAP. Null: no cap."`
	CountryCaps    []CountryCap        `json:"countryCaps" nullable:"false" doc:"Most recipients of a country in a day or a month; further recipients are skipped as QUOTA_COUNTRY."`
	Maintenance    []MaintenanceWindow `json:"maintenanceWindows" nullable:"false" doc:"Maintenance windows of carriers. A campaign that would send during one gets a warning."`
	ConfirmOptOuts bool                `json:"confirmOptOuts" doc:"A recipient who opts out, or back in, by a keyword such as STOP gets one message that confirms it, charged like any message. False: none; the opt-out holds all the same. Default: true."`
	Compliance     string              `json:"compliance" enum:"off,warn,refuse" doc:"What becomes of a campaign that does not keep the rules of a country for promotional messages (hours, closed days, how to opt out, kinds of senders): off: nothing is checked. warn: its price lists the rules that it does not keep. refuse: requests that would break one are refused too. Confirm checks all rules, start and reschedule the closed days, and wider calling hours of an active campaign the hours. Closed days are checked against the forecast of when it sends; a pause, a resume or a lower rate may move it afterwards. Public holidays, tests and single sends are not checked. Default: off."`
	ReplayWindow   ReplayWindow        `json:"replayWindow" doc:"When a campaign may be replayed."`
	UpdatedAt      *string             `json:"updatedAt" format:"date-time" doc:"Null: the policy was never set and has no rules."`
	Version        uint64              `json:"version" doc:"Rises with every change. As the ETag it is the value of If-Match. 0: the policy was never set."`
}

// FrequencyCap is the most campaigns that may send to one recipient within so many days (X9).
type FrequencyCap struct {
	Max  uint32 `json:"max" minimum:"1" maximum:"1000" example:"3" doc:"Campaigns that may send to the same recipient in the period."`
	Days uint32 `json:"days" minimum:"1" maximum:"30" example:"7" doc:"Length of the period."`
}

// CountryCap is the most recipients of a country (X9).
type CountryCap struct {
	Country string `json:"country" doc:"ISO 3166-1 alpha-2." example:"IT"`
	Max     uint32 `json:"max" example:"10000" doc:"Recipients in the period."`
	Per     string `json:"per" enum:"day,month" doc:"A day or a month in the tenant's time zone."`
}

// MaintenanceWindow is a time of day at which a route's carrier is maintained (R160).
type MaintenanceWindow struct {
	Route    string `json:"route" doc:"Name of the route; * for all."`
	Start    string `json:"start" doc:"HH:MM." example:"02:00"`
	End      string `json:"end" doc:"HH:MM." example:"04:00"`
	Timezone string `json:"timezone" doc:"IANA name; default: the tenant's."`
}

// ReplayWindow is when a campaign may be replayed (C21).
type ReplayWindow struct {
	AfterHours uint32  `json:"afterHours" maximum:"720" doc:"Hours after the first submission from which on." example:"24"`
	Days       *uint32 `json:"days" minimum:"1" maximum:"31" doc:"Days after the first submission until which; null: one calendar month on the clock of the tenant. An audience is kept for 40 days after its campaign has ended."`
}

// PolicyInput changes a policy. Fields that are left out do not change.
type PolicyInput struct {
	SecondPerson   problem.Optional[bool]                `json:"secondPerson,omitzero" doc:"true: a campaign must be confirmed by a person who has not edited it."`
	Words          problem.Optional[[]string]            `json:"words,omitzero" doc:"At most 1,000, of at most 100 characters."`
	Patterns       problem.Optional[[]string]            `json:"patterns,omitzero" doc:"At most 100, of at most 500 characters."`
	Domains        problem.Optional[[]string]            `json:"domains,omitzero" doc:"At most 1,000."`
	FrequencyCap   problem.Optional[FrequencyCap]        `json:"frequencyCap,omitzero" doc:"Null: no cap."`
	CountryCaps    problem.Optional[[]CountryCap]        `json:"countryCaps,omitzero" doc:"At most 250."`
	Maintenance    problem.Optional[[]MaintenanceWindow] `json:"maintenanceWindows,omitzero" doc:"At most 50."`
	ConfirmOptOuts problem.Optional[bool]                `json:"confirmOptOuts,omitzero" doc:"false: no message confirms an opt-out or its end. Null: true."`
	Compliance     problem.Optional[string]              `json:"compliance,omitzero" doc:"off, warn or refuse. Null: off."`
	ReplayWindow   problem.Optional[ReplayWindow]        `json:"replayWindow,omitzero" doc:"Null: from 24 hours to a calendar month after the first submission."`
}

// policyDoc is the document that the store keeps.
type policyDoc struct {
	SecondPerson             bool
	Words, Patterns, Domains []string
	Maintenance              []MaintenanceWindow
	Replay                   *ReplayWindow `json:",omitempty"` // nil: the usual one
	Unconfirmed              bool          `json:",omitempty"` // no message confirms an opt-out or its end
	Compliance               string        `json:",omitempty"` // warn or refuse; "": off
	store.PolicyCaps
}

const policyName = store.PolicyName

type (
	policyIn       struct{}
	policyChangeIn struct {
		IfMatch string `header:"If-Match" doc:"ETag of the version to change; 412 when another version is stored. Left out: any version."`
		Body    problem.Body[PolicyInput]
	}
	policyOut struct {
		ETag string `header:"ETag"`
		Body *Policy
	}
)

func (s *server) registerPolicy() {
	register(s, operation{
		id: "getPolicy", method: http.MethodGet, path: "/api/policy", summary: "Get the rules that confirm checks", scope: store.ScopeRead, tag: operatorTag,
	}, func(ctx context.Context, _ *policyIn) (*policyOut, error) {
		row, doc, err := s.policyRow(ctx, requestOf(ctx).who.tenant.ID)
		if err != nil {
			return nil, err
		}
		return answerPolicy(row, doc), nil
	})
	register(s, operation{
		id: "updatePolicy", method: http.MethodPut, path: "/api/policy", summary: "Change the rules that confirm checks", scope: store.ScopeAdmin,
		errors: []int{400, 409, 412, 422}, tag: operatorTag, describe: "Fields that are left out do not change.",
	}, s.updatePolicy)
}

// policyRow reads the policy of a tenant; row is nil when it was never set.
func (s *server) policyRow(ctx context.Context, tenant string) (*store.Resource, *policyDoc, error) {
	doc := &policyDoc{}
	row, err := s.Store.FindResource(ctx, tenant, store.KindPolicy, policyName)
	if errors.Is(err, schemas.ErrNotFound) {
		return nil, doc, nil
	}
	if err != nil {
		return nil, nil, s.storeProblem(err)
	}
	return &row, doc, decodeDoc(&row, doc)
}

func answerPolicy(row *store.Resource, d *policyDoc) *policyOut {
	v := &Policy{SecondPerson: d.SecondPerson, Words: orEmpty(d.Words), Patterns: orEmpty(d.Patterns), Domains: orEmpty(d.Domains), Maintenance: d.Maintenance}
	v.ReplayWindow, v.Compliance, v.ConfirmOptOuts = d.replay(), d.complianceMode(), !d.Unconfirmed
	v.FrequencyCap, v.CountryCaps = viewFrequency(d.Frequency), []CountryCap{}
	for _, c := range d.Countries {
		v.CountryCaps = append(v.CountryCaps, CountryCap{c.Country, c.Max, pick(c.Monthly, "month", "day")})
	}
	if v.Maintenance == nil {
		v.Maintenance = []MaintenanceWindow{}
	}
	out := &policyOut{Body: v}
	if row != nil {
		v.UpdatedAt, v.Version, out.ETag = stampOrNull(row.Updated), row.Version, etag(row.Version)
	}
	return out
}

func (s *server) updatePolicy(ctx context.Context, in *policyChangeIn) (*policyOut, error) {
	who := requestOf(ctx).who
	version, p := ifMatch(in.IfMatch)
	if p != nil {
		return nil, p
	}
	body := &in.Body.Value
	row, doc, err := s.policyRow(ctx, who.tenant.ID)
	if err != nil {
		return nil, err
	}
	if row == nil {
		if err := body.apply(doc, who.tenant.Timezone); err != nil {
			return nil, err
		}
		raw, err := json.Marshal(doc)
		if err != nil {
			return nil, err
		}
		made, err := s.Store.CreateResource(ctx, store.Resource{Tenant: who.tenant.ID, Kind: store.KindPolicy, Name: policyName, Status: "active", Doc: raw, CreatedBy: who.by()})
		if err != nil {
			return nil, s.storeProblem(err)
		}
		return answerPolicy(&made, doc), nil
	}
	changed, err := s.Store.ChangeResource(ctx, who.tenant.ID, store.KindPolicy, row.Number, version, func(row *store.Resource) error {
		doc = &policyDoc{}
		if err := decodeDoc(row, doc); err != nil {
			return err
		}
		if err := body.apply(doc, who.tenant.Timezone); err != nil {
			return err
		}
		var err error
		row.Doc, err = json.Marshal(doc)
		return err
	})
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return answerPolicy(&changed, doc), nil
}

func (in *PolicyInput) apply(d *policyDoc, zone string) error {
	var ps problem.List
	set(&in.SecondPerson, &d.SecondPerson, nil)
	texts := func(field string, o *problem.Optional[[]string], to *[]string, most, characters int, check func(string) error) {
		if !o.Set {
			return
		}
		*to = nil
		if len(o.Value) > most {
			ps.Add(problem.CodeInvalid, field, "%d entries; at most %d.", len(o.Value), most)
			return
		}
		for i, v := range o.Value {
			v = strings.TrimSpace(v)
			at := fmt.Sprintf("%s[%d]", field, i)
			if v == "" || len([]rune(v)) > characters {
				ps.Add(problem.CodeInvalid, at, "Want 1 to %d characters.", characters)
			} else if err := check(v); err != nil {
				ps.Add(problem.CodeInvalid, at, "%s.", err)
			} else if !slices.Contains(*to, v) {
				*to = append(*to, v)
			}
		}
	}
	texts("words", &in.Words, &d.Words, 1000, 100, func(v string) error {
		if folded(v) == "  " {
			return errors.New("a word needs a letter or a digit")
		}
		return nil
	})
	texts("patterns", &in.Patterns, &d.Patterns, 100, 500, func(v string) error {
		_, err := regexp.Compile(v)
		return err
	})
	texts("domains", &in.Domains, &d.Domains, 1000, 253, func(v string) error {
		if u, err := url.Parse("https://" + v + "/"); err != nil || u.Hostname() != v || !strings.Contains(v, ".") {
			return errors.New("want a domain such as example.com")
		}
		return nil
	})
	if in.Maintenance.Set {
		d.Maintenance = nil
		if len(in.Maintenance.Value) > 50 {
			ps.Add(problem.CodeInvalid, "maintenanceWindows", "%d windows; at most 50.", len(in.Maintenance.Value))
		}
		for i, w := range in.Maintenance.Value {
			at := fmt.Sprintf("maintenanceWindows[%d].", i)
			if w.Timezone == "" {
				w.Timezone = zone
			}
			if w.Route != "*" && schemas.ValidRoute(w.Route) != nil {
				ps.Add(problem.CodeInvalid, at+"route", "%q is not the name of a route: want one, or * for all.", problem.Truncate(w.Route, 40))
			}
			if _, err := w.hours(); err != nil {
				ps.Add(problem.CodeInvalid, at+"start", "%s.", err)
			}
			d.Maintenance = append(d.Maintenance, w)
		}
	}
	in.applyReplay(d, &ps)
	in.applyCompliance(d, &ps)
	if o := &in.ConfirmOptOuts; o.Set {
		d.Unconfirmed = !o.Null && !o.Value
	}
	in.applyCaps(d, &ps)
	return ps.Err()
}

// Bounds of a replay window: the audience of a campaign is kept for 40 days after it has ended.
const (
	usualReplayHours = 24
	mostReplayHours  = 30 * 24
	mostReplayDays   = 31
)

// replay is the window in which campaigns may be replayed.
func (d *policyDoc) replay() ReplayWindow {
	if d.Replay == nil {
		return ReplayWindow{AfterHours: usualReplayHours}
	}
	return *d.Replay
}

func (in *PolicyInput) applyReplay(d *policyDoc, ps *problem.List) {
	if !in.ReplayWindow.Set {
		return
	}
	if in.ReplayWindow.Null {
		d.Replay = nil
		return
	}
	w := in.ReplayWindow.Value
	switch {
	case w.AfterHours > mostReplayHours:
		ps.Add(problem.CodeInvalid, "replayWindow.afterHours", "%d; at most %d.", w.AfterHours, mostReplayHours)
	case w.Days != nil && (*w.Days < 1 || *w.Days > mostReplayDays):
		ps.Add(problem.CodeInvalid, "replayWindow.days", "%d; want 1 to %d, or null for a calendar month.", *w.Days, mostReplayDays)
	case w.Days != nil && w.AfterHours >= 24**w.Days || w.Days == nil && w.AfterHours >= 24*28:
		ps.Add(problem.CodeInvalid, "replayWindow.afterHours", "%d hours leave no time before the window ends.", w.AfterHours)
	}
	d.Replay = &w
}

func viewFrequency(f *store.FrequencyCap) *FrequencyCap {
	if f == nil {
		return nil
	}
	return &FrequencyCap{f.Max, f.Days}
}

// applyFrequency reads a frequency cap of a policy or a campaign.
func applyFrequency(o *problem.Optional[FrequencyCap], to **store.FrequencyCap, ps *problem.List) {
	if !o.Set {
		return
	}
	*to = nil
	if o.Null {
		return
	}
	*to = &store.FrequencyCap{Max: o.Value.Max, Days: o.Value.Days}
	if fault := (*to).Check(); fault != "" {
		ps.Add(problem.CodeInvalid, "frequencyCap", "%s.", fault)
	}
}

func (in *PolicyInput) applyCaps(d *policyDoc, ps *problem.List) {
	applyFrequency(&in.FrequencyCap, &d.Frequency, ps)
	if !in.CountryCaps.Set {
		return
	}
	d.Countries = nil
	for i, c := range in.CountryCaps.Value {
		if c.Per != "day" && c.Per != "month" {
			ps.Add(problem.CodeInvalid, fmt.Sprintf("countryCaps[%d].per", i), "%q: want day or month.", problem.Truncate(c.Per, 20))
		}
		d.Countries = append(d.Countries, store.CountryCap{Country: strings.ToUpper(c.Country), Max: c.Max, Monthly: c.Per == "month"})
	}
	caps := store.PolicyCaps{Countries: d.Countries}
	if field, fault := caps.CheckCaps(); fault != "" {
		ps.Add(problem.CodeInvalid, field, "%s.", fault)
	}
}

// hours returns the window as hours of the day.
func (w *MaintenanceWindow) hours() (hours.Hours, error) {
	start, err := hours.ParseClock(w.Start)
	if err != nil {
		return hours.Hours{}, err
	}
	end, err := hours.ParseClock(w.End)
	if err != nil {
		return hours.Hours{}, err
	}
	if start == end {
		return hours.Hours{}, errors.New("a maintenance window needs a start and a different end")
	}
	return hours.New(start, end, w.Timezone)
}

// folded returns a text in lower case without accents, with single blanks between its words and around the text.
func folded(s string) string {
	var b strings.Builder
	b.WriteByte(' ')
	for _, word := range strings.FieldsFunc(strings.ToLower(text.Transliterate(s)), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		for _, r := range word {
			b.WriteString(plainLetter(r))
		}
		b.WriteByte(' ')
	}
	if b.Len() == 1 {
		b.WriteByte(' ')
	}
	return b.String()
}

// plainLetter returns a lower-case letter of GSM-7 without its accent.
func plainLetter(r rune) string {
	if i := strings.IndexRune("èéùìòçøåæñüàäöß", r); i >= 0 {
		return []string{"e", "e", "u", "i", "o", "c", "o", "a", "ae", "n", "u", "a", "a", "o", "ss"}[len([]rune("èéùìòçøåæñüàäöß"[:i]))]
	}
	return string(r)
}

// host matches a domain within a text.
var host = regexp.MustCompile(`(?i)\b(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}\b`)

// moderate returns why contents must not be sent, "" when they may be (R81).
func (d *policyDoc) moderate(contents []string) string {
	for _, content := range contents {
		plain := folded(content)
		for _, w := range d.Words {
			if strings.Contains(plain, folded(w)) {
				return fmt.Sprintf("The content has %q, which the tenant's policy does not allow.", w)
			}
		}
		for _, p := range d.Patterns {
			if re, err := regexp.Compile(p); err == nil && re.MatchString(content) {
				return fmt.Sprintf("The content matches the pattern %q, which the tenant's policy does not allow.", p)
			}
		}
		for _, found := range host.FindAllString(content, -1) {
			for _, domain := range d.Domains {
				if found = strings.ToLower(found); found == strings.ToLower(domain) || strings.HasSuffix(found, "."+strings.ToLower(domain)) {
					return fmt.Sprintf("The content links to %s, which the tenant's policy does not allow.", found)
				}
			}
		}
	}
	return ""
}

// contentsOf returns all texts that the legs send.
func contentsOf(legs []store.Leg) []string {
	var out []string
	for i := range legs {
		c := &fanfarev1.Content{}
		if proto.Unmarshal(legs[i].Content, c) != nil {
			continue // never: lookUp encoded it
		}
		out = append(append(out, c.GetBody(), string(c.GetJson()), c.GetVoice().GetText(), c.GetVoice().GetMedia()), c.GetParams()...)
		for _, v := range c.GetVariants() {
			out = append(out, v.GetBody())
		}
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == "" })
}

// maintained returns warnings if a campaign would send in a maintenance window of its route's carrier (R160): if its
// scheduled time is in the window, or, without a scheduled time, if its calling hours overlap the window.
func (d *policyDoc) maintained(c *store.Campaign, tenant *store.Tenant, now time.Time) []string {
	var out []string
	for i := range d.Maintenance {
		w := &d.Maintenance[i]
		h, err := w.hours()
		if err != nil || w.Route != "*" && w.Route != route(c, tenant) {
			continue
		}
		at := now
		if c.Schedule != nil && !c.SendImmediately {
			at = c.Schedule.At
		} else if !c.SendImmediately {
			continue
		}
		if h.Open(at) {
			out = append(out, fmt.Sprintf("The carrier of route %s is under maintenance from %s to %s (%s): messages sent then may be late.", route(c, tenant), w.Start, w.End, w.Timezone))
		}
	}
	return out
}

// timeWarnings returns the warnings about a campaign's time.
func (s *server) timeWarnings(ctx context.Context, who *principal, c *store.Campaign) ([]string, error) {
	if c.Schedule == nil && !c.SendImmediately {
		return nil, nil
	}
	_, doc, err := s.policyRow(ctx, who.tenant.ID)
	if err != nil {
		return nil, err
	}
	return doc.maintained(c, &who.tenant, s.Now()), nil
}

// maySend checks a campaign against the tenant's policy.
func (s *server) maySend(ctx context.Context, who *principal, c *store.Campaign, legs []store.Leg) error {
	_, doc, err := s.policyRow(ctx, who.tenant.ID)
	if err != nil {
		return err
	}
	if doc.SecondPerson && (slices.Contains(c.Editors, who.by()) || len(c.Editors) == 0 && c.CreatedBy == who.by()) {
		return problem.New(problem.CodeApprovalRequired, "The tenant requires a second person: a person who edited the campaign cannot confirm it.").
			WithFix("Ask a person with the scope confirm who has not edited the campaign.")
	}
	if reason := doc.moderate(contentsOf(legs)); reason != "" {
		return s.reject(ctx, c, reason)
	}
	return nil
}

// policyReason returns why the policy forbids to send the legs, "" when it allows it.
func (s *server) policyReason(ctx context.Context, who *principal, legs []store.Leg) (string, error) {
	_, doc, err := s.policyRow(ctx, who.tenant.ID)
	if err != nil {
		return "", err
	}
	return doc.moderate(contentsOf(legs)), nil
}
