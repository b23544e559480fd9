package api

import (
	"context"
	"net/http"
	"slices"

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
			if in.Country == "" || in.Country == r.Country {
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
	in := &compliance.Campaign{Countries: countries, Now: s.Now(), Zones: s.Store.UsualZones}
	if h := c.CallingHours; h != nil {
		// Hours that cannot be read are refused elsewhere; here the campaign then sends at any hour.
		if open, err := hours.New(int(h.Start), int(h.End), h.Zone); err == nil {
			in.Hours, in.Recipients = &open, h.Recipients
		}
	}
	switch {
	case c.SendImmediately:
		in.From = in.Now
	case c.Schedule != nil:
		in.From = c.Schedule.At
	}
	if !in.From.IsZero() {
		in.Until = in.From
		if end, ok := finishAtRate(c, rate, in.From, countries.total(), s.sharesOfCountries(&who.tenant, countries)); ok {
			in.Until = end
		}
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

// mayComply returns the problem of a campaign that does not keep the rules of countries, if the tenant refuses those;
// nil when it may go on. It counts campaigns that go on with warnings.
func (s *server) mayComply(who *principal, doc *policyDoc, c *store.Campaign, rate float64, refs *found, countries mix) error {
	if doc.Compliance == "" || c.Test {
		return nil
	}
	return s.judge(doc, s.findings(who, c, rate, refs, countries))
}

// staysCompliant is mayComply for a confirmed campaign with another time or other calling hours: of the rules, only those
// of this kind are checked.
func (s *server) staysCompliant(ctx context.Context, who *principal, c *store.Campaign, kind compliance.Kind) error {
	_, doc, err := s.policyRow(ctx, who.tenant.ID)
	if err != nil || doc.Compliance == "" || c.Test {
		return err
	}
	list := s.findings(who, c, s.rate(ctx, who, c), nil, mixOf(c.Countries))
	return s.judge(doc, slices.DeleteFunc(list, func(f compliance.Finding) bool { return f.Rule.Kind != kind }))
}

// judge returns the problem that findings are for a tenant that refuses them.
func (s *server) judge(doc *policyDoc, list []compliance.Finding) error {
	if len(list) == 0 {
		return nil
	}
	if doc.Compliance != complianceRefuse {
		s.metrics.compliance.WithLabelValues("warned").Inc()
		return nil
	}
	s.metrics.compliance.WithLabelValues("refused").Inc()
	var ps problem.List
	for _, f := range list {
		ps = append(ps, problem.Field(problem.CodeCompliance, f.Field, "%s (%s)", f.Detail, f.Rule.Source).WithFix("%s", f.Fix))
	}
	return ps.Err()
}
