package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"fanfare/api/compliance"
	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/hours"
)

// What a tenant wants done about campaigns that do not keep the rules of a country.
const (
	complianceOff    = "off"
	complianceWarn   = "warn"
	complianceRefuse = "refuse"
)

// ComplianceFinding is a rule of a country that a campaign does not keep.
type ComplianceFinding struct {
	Country    string `json:"country" doc:"ISO 3166-1 alpha-2." example:"FR"`
	Rule       string `json:"rule" enum:"hours,closed,opt_out,senders" doc:"hours: the local time within which messages may arrive. closed: days on which they may not. opt_out: the text says how to opt out. senders: kinds of senders that reach the country."`
	Recipients uint64 `json:"recipients" doc:"Recipients in the country."`
	Field      string `json:"field" doc:"Field of the campaign that would have to change."`
	Detail     string `json:"detail" doc:"What is not kept."`
	Fix        string `json:"fix" doc:"What to do about it."`
	Source     string `json:"source" doc:"Where the rule comes from."`
	Refused    bool   `json:"refused" doc:"True: confirm is refused because of it. False: it is a warning."`
}

// ComplianceRule is a rule of a country.
type ComplianceRule struct {
	Country string `json:"country" doc:"ISO 3166-1 alpha-2." example:"FR"`
	Rule    string `json:"rule" enum:"hours,closed,opt_out,senders" doc:"What the rule is about."`
	Value   string `json:"value" doc:"hours: local time, HH:MM-HH:MM. closed: days such as sun. opt_out: words of which a text has one. senders: kinds of senders. | stands between several." example:"08:00-22:00"`
	Source  string `json:"source" doc:"Where the rule comes from."`
}

type (
	complianceIn struct {
		Country string `query:"country" maxLength:"2" doc:"ISO 3166-1 alpha-2: only the rules of this country." example:"FR"`
	}
	complianceOut struct{ Body *ComplianceRules }
)

// ComplianceRules are rules of countries.
type ComplianceRules struct {
	Data []*ComplianceRule `json:"data" nullable:"false" doc:"By country."`
}

func (s *server) registerCompliance() {
	register(s, operation{
		id: "listComplianceRules", method: http.MethodGet, path: "/api/compliance-rules", summary: "List the rules of countries that confirm checks", scope: store.ScopeRead,
		tag:      operatorTag,
		describe: "Rules for promotional messages, with their sources. They are no legal advice. What becomes of a campaign that does not keep them is said by compliance of the policy.",
	}, func(_ context.Context, in *complianceIn) (*complianceOut, error) {
		out := &ComplianceRules{Data: []*ComplianceRule{}}
		for _, r := range s.rules.All() {
			if in.Country == "" || strings.EqualFold(in.Country, r.Country) {
				out.Data = append(out.Data, &ComplianceRule{r.Country, string(r.Kind), r.Value, r.Source})
			}
		}
		return &complianceOut{out}, nil
	})
}

// complianceMode returns what the tenant wants done.
func (d *policyDoc) complianceMode() string {
	if d.Compliance == "" {
		return complianceOff
	}
	return d.Compliance
}

func (in *PolicyInput) applyCompliance(d *policyDoc, ps *problem.List) {
	if !in.Compliance.Set {
		return
	}
	d.Compliance = in.Compliance.Value
	if in.Compliance.Null {
		d.Compliance = complianceOff
	}
	allowedWord(ps, "compliance", d.Compliance, complianceOff, complianceWarn, complianceRefuse)
	if d.Compliance == complianceOff {
		d.Compliance = ""
	}
}

// findings returns the rules that a campaign to these recipients does not keep. refs has what its legs send; nil leaves
// out the rules about texts and senders. rate is that of [server.rate]. It runs within a transaction too, and reads nothing.
func (s *server) findings(who *principal, c *store.Campaign, rate float64, refs *found, countries mix) []compliance.Finding {
	in := &compliance.Campaign{Countries: countries, Now: s.Now(), Zones: s.Store.UsualZones, Batches: len(c.Batches) > 0}
	if h := c.CallingHours; h != nil {
		// Hours that cannot be read are refused elsewhere; here the campaign then sends at any hour.
		if open, err := hours.New(int(h.Start), int(h.End), h.Zone); err == nil {
			in.Hours, in.Recipients = &open, h.Recipients
		}
	}
	from := time.Time{}
	switch {
	case c.SendImmediately:
		from = in.Now
	case c.Schedule != nil:
		from = c.Schedule.At
	}
	if !from.IsZero() {
		in.Spans, _, _ = spansAtRate(c, rate, from, countries.total(), s.sharesOfCountries(&who.tenant, countries))
	}
	if refs != nil {
		for i := range refs.legs {
			in.Legs = append(in.Legs, compliance.Leg{Channel: refs.legs[i].Channel, Sender: refs.senderTypes[i], Texts: textsOfLeg(&refs.legs[i])})
		}
	}
	return s.rules.Check(in)
}

// textsOfLeg returns the texts that recipients of a leg of SMS may get.
func textsOfLeg(leg *store.Leg) (out []string) {
	c := &fanfarev1.Content{}
	if leg.Channel != schemas.ChannelSMS || proto.Unmarshal(leg.Content, c) != nil { // written by proto.Marshal
		return nil
	}
	for _, v := range c.GetVariants() {
		out = append(out, v.GetBody())
	}
	if len(out) == 0 {
		out = append(out, c.GetBody())
	}
	return out
}

// complianceOf returns the findings of a campaign that is priced. A test is not checked: its messages reach the
// simulator only.
func (s *server) complianceOf(ctx context.Context, who *principal, c *store.Campaign, countries mix) ([]ComplianceFinding, error) {
	_, doc, err := s.policyRow(ctx, who.tenant.ID)
	if err != nil || doc.Compliance == "" || c.Test {
		return nil, err
	}
	refs, err := s.lookUp(ctx, who, &c.Spec, true)
	if err != nil {
		return nil, err
	}
	var out []ComplianceFinding
	for _, f := range s.findings(who, c, s.rate(ctx, who, c), refs, countries) {
		out = append(out, ComplianceFinding{
			Country: f.Rule.Country, Rule: string(f.Rule.Kind), Recipients: f.Recipients, Field: f.Field, Detail: f.Detail, Fix: f.Fix, Source: f.Rule.Source,
			Refused: doc.Compliance == complianceRefuse,
		})
	}
	return out, nil
}

// ruleCheck judges a campaign by the rules of countries while it is changed. It reads nothing, so that it may judge within
// the transaction of the change; that may run several times, so it counts afterwards.
type ruleCheck struct {
	s      *server
	who    *principal
	policy *policyDoc
	rate   float64
	result string // of the last judgement: warned or refused; "": it keeps the rules, or is not checked
}

// ruleCheck returns a check of a confirmed campaign.
func (s *server) ruleCheck(ctx context.Context, at *addressed) (*ruleCheck, error) {
	_, doc, err := s.policyRow(ctx, at.who.tenant.ID)
	if err != nil {
		return nil, err
	}
	k := &ruleCheck{s: s, who: at.who, policy: doc}
	if doc.Compliance != "" {
		k.rate = s.rate(ctx, at.who, at.campaign)
	}
	return k, nil
}

// confirm returns the problem of a campaign that does not keep the rules, if the tenant refuses those; nil when it may
// be confirmed.
func (k *ruleCheck) confirm(c *store.Campaign, refs *found, countries mix) error {
	k.result = ""
	if k.policy.Compliance == "" || c.Test {
		return nil
	}
	return k.judge(k.s.findings(k.who, c, k.rate, refs, countries))
}

// stays is confirm for a confirmed campaign with another time or other calling hours: of the rules, only those of this
// kind are checked. field, which may be "", is what the request can change, and fix says how, with the rule's value.
func (k *ruleCheck) stays(c *store.Campaign, kind compliance.Kind, field, fix string) error {
	k.result = ""
	if k.policy.Compliance == "" || c.Test {
		return nil
	}
	list := k.s.findings(k.who, c, k.rate, nil, mixOf(c.Countries))
	list = slices.DeleteFunc(list, func(f compliance.Finding) bool { return f.Rule.Kind != kind })
	for i := range list {
		list[i].Field, list[i].Fix = field, strings.ReplaceAll(fix, "{value}", list[i].Rule.Value)
	}
	return k.judge(list)
}

// judge returns the problem that findings are for a tenant that refuses them.
func (k *ruleCheck) judge(list []compliance.Finding) error {
	if len(list) == 0 {
		return nil
	}
	if k.policy.Compliance != complianceRefuse {
		k.result = "warned"
		return nil
	}
	k.result = "refused"
	var ps problem.List
	for _, f := range list {
		ps = append(ps, problem.Field(problem.CodeCompliance, f.Field, "%s (%s)", f.Detail, f.Rule.Source).WithFix("%s", f.Fix))
	}
	return ps.Err()
}

// count counts the judgement, once the change is made or refused. A warned change that failed otherwise did not go on.
func (k *ruleCheck) count(err error) {
	if k.result == "refused" || k.result == "warned" && err == nil {
		k.s.metrics.compliance.WithLabelValues(k.result).Inc()
	}
}
