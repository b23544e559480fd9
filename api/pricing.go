package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// GoalInput is the body of calculateGoal.
type GoalInput struct {
	GoalContactCount *int64 `json:"goalContactCount,omitzero" doc:"Price this many contacts instead of the audience." example:"5000" minimum:"0"`
}

// Exclusions counts the contacts of the lists that would not be sent to.
type Exclusions struct {
	Invalid    uint32 `json:"invalid" doc:"Contacts whose number cannot receive messages."`
	Duplicates uint32 `json:"duplicates" doc:"Contacts with the same number as an earlier contact of the lists."`
	OptedOut   uint32 `json:"optedOut" doc:"Contacts whose number has opted out."`
	NotOptedIn uint32 `json:"notOptedIn" doc:"Contacts without consent, in a campaign with requireOptIn."`
	Capped     uint32 `json:"capped" doc:"Contacts at their frequency cap."`
	OverQuota  uint32 `json:"overQuota" doc:"Contacts above the cap of their country for the day or the month."`
}

// Goal is the answer of calculateGoal: E's fields (R94), then ours.
type Goal struct {
	TotalContacts            uint64              `json:"totalContacts" example:"5000" doc:"Recipients that are priced: the contacts of the lists without the exclusions, or the goal."`
	EstimatedCost            Money               `json:"estimatedCost" doc:"Expected cost of one message to each of totalContacts."`
	CostPerMessage           Money               `json:"costPerMessage" doc:"estimatedCost / totalContacts, rounded up."`
	Currency                 string              `json:"currency" example:"EUR" doc:"ISO 4217 code."`
	EstimatedDuration        *string             `json:"estimatedDuration" example:"15 minutes" doc:"From the route's rate and the calling hours; null when it would take more than a year."`
	EstimatedDurationSeconds *int64              `json:"estimatedDurationSeconds" doc:"The same in seconds, rounded up; null when it would take more than a year."`
	Basis                    string              `json:"basis" doc:"goal: the number given; audience: the contacts that would be sent to now."`
	Exclusions               Exclusions          `json:"exclusions" doc:"Contacts of the lists that would not be sent to, by reason; all 0 for a confirmed campaign."`
	ByCountry                []CountryLine       `json:"breakdownByCountry" nullable:"false" doc:"The cost by country; for a goal, in the proportions of the audience."`
	MaxCost                  Money               `json:"maxCost" doc:"The most it can cost, with every retry and the longest texts. Confirm reserves it, or less when the credit covers fewer retries."`
	PriceVersion             string              `json:"priceVersion" doc:"Name of these figures. Confirm with it is refused when the price has changed since."`
	Encoding                 *string             `json:"encoding" doc:"GSM-7 or UCS-2; null: the message is not an SMS text."`
	Characters               *int                `json:"characters" doc:"Characters of the text as written; null: the message is not an SMS text."`
	Segments                 int                 `json:"segments" doc:"SMS segments of the longest text in a sample of the recipients; 1 for other channels."`
	Warning                  []string            `json:"warning,omitempty" doc:"Values that are accepted but may not have the intended effect."`
	Compliance               []ComplianceFinding `json:"compliance,omitempty" doc:"Rules of countries that it does not keep, if compliance of the policy is warn or refuse."`
}

// BreakdownLine is the part of a price for one channel.
type BreakdownLine struct {
	Count uint64 `json:"count" doc:"Recipients whose first message goes over this channel."`
	Cost  Money  `json:"cost" doc:"Expected cost of these messages."`
}

// Breakdown splits a price by channel: E's three and voice. Its counts add up to totalContacts, its costs to
// estimatedCost (C9).
type Breakdown struct {
	SMS      BreakdownLine `json:"sms" doc:"What begins with SMS; all 0 when the campaign begins with another channel."`
	RCS      BreakdownLine `json:"rcs" doc:"What begins with RCS; all 0 when the campaign begins with another channel."`
	WhatsApp BreakdownLine `json:"whatsapp" doc:"What begins with WhatsApp; all 0 when the campaign begins with another channel."`
	Voice    BreakdownLine `json:"voice" doc:"What begins with a call; all 0 when the campaign begins with another channel."`
}

// CountryLine is the part of a price for one country.
type CountryLine struct {
	Channel string  `json:"channel" doc:"The first channel of the campaign: sms, rcs, whatsapp or voice."`
	Country *string `json:"country" doc:"ISO 3166-1 alpha-2; null: not known."`
	Price   Money   `json:"price" doc:"Price of one segment, message or minute."`
	Count   uint64  `json:"count" doc:"Recipients with a number of the country."`
	Cost    Money   `json:"cost" doc:"Expected cost of the messages to them."`
}

// byCountry splits a price by country, as breakdown does by channel (C9).
func (b *bill) byCountry() []CountryLine {
	out := make([]CountryLine, 0, len(b.lines))
	for _, l := range b.lines {
		if l.count > 0 {
			out = append(out, CountryLine{schemas.ChannelName(b.channel), orNull(l.country), Money(l.price), l.count, Money(l.cost)})
		}
	}
	return out
}

// Price is the answer of price: E's fields (R96), then ours.
type Price struct {
	CampaignID     string              `json:"campaignId" doc:"Id of the campaign."`
	TotalContacts  uint64              `json:"totalContacts" doc:"Recipients that are priced: the contacts of the lists without the exclusions, or the goal."`
	EstimatedCost  Money               `json:"estimatedCost" doc:"Expected cost of one message to each of totalContacts."`
	Breakdown      Breakdown           `json:"breakdown" doc:"estimatedCost by channel."`
	ByCountry      []CountryLine       `json:"breakdownByCountry" nullable:"false" doc:"The same by country; counts and costs also add up to the totals."`
	CostPerMessage Money               `json:"costPerMessage" doc:"estimatedCost / totalContacts, rounded up."`
	Currency       string              `json:"currency" doc:"ISO 4217 code."`
	MaxCost        Money               `json:"maxCost" doc:"The most it can cost, with every retry and the longest texts. Confirm reserves it, or less when the credit covers fewer retries."`
	PriceVersion   string              `json:"priceVersion" doc:"Name of these figures. Confirm with it is refused when the price has changed since."`
	Basis          string              `json:"basis" doc:"Always audience: the contacts that would be sent to now, or that were when it was confirmed."`
	Exclusions     Exclusions          `json:"exclusions" doc:"Contacts of the lists that would not be sent to, by reason; all 0 for a confirmed campaign."`
	Encoding       *string             `json:"encoding" doc:"GSM-7 or UCS-2; null: the message is not an SMS text."`
	Characters     *int                `json:"characters" doc:"Characters of the text as written; null: the message is not an SMS text."`
	Segments       int                 `json:"segments" doc:"SMS segments of the longest text in a sample of the recipients; 1 for other channels."`
	Warning        []string            `json:"warning,omitempty" doc:"Values that are accepted but may not have the intended effect."`
	Compliance     []ComplianceFinding `json:"compliance,omitempty" doc:"Rules of countries that it does not keep, if compliance of the policy is warn or refuse."`
}

// settleOn sets the cost of the bill and divides it among the lines.
func (b *bill) settleOn(cost uint64) {
	weights := make([]uint64, len(b.lines))
	for i, l := range b.lines {
		weights[i] = l.cost
	}
	if b.cost == 0 && len(b.lines) > 0 {
		weights[0] = 1
	}
	if len(weights) > 0 {
		for i, part := range apportion(cost, weights) {
			b.lines[i].cost = part
		}
	}
	if b.cost = cost; b.contacts > 0 {
		b.perOne = mulDivUp(cost, 1, b.contacts)
	}
}

func (b *bill) breakdown() Breakdown {
	var out Breakdown
	line := BreakdownLine{b.contacts, Money(b.cost)}
	switch b.channel {
	case schemas.ChannelSMS:
		out.SMS = line
	case schemas.ChannelRCS:
		out.RCS = line
	case schemas.ChannelWhatsApp:
		out.WhatsApp = line
	case schemas.ChannelVoice:
		out.Voice = line
	default:
	}
	return out
}

func (b *bill) exclusions() Exclusions {
	return Exclusions{b.audience.Invalid, b.audience.Duplicates, b.audience.OptedOut, b.audience.NotOptedIn, b.audience.Capped, b.audience.OverQuota}
}

func (b *bill) measured() (encoding *string, characters *int) {
	if b.size.Segments == 0 {
		return nil, nil
	}
	return orNull(encodingName(b.size.Encoding)), &b.chars
}

type (
	goalIn struct {
		ID   string `path:"id" example:"camp_12345" doc:"Id of the campaign."`
		Body *problem.Body[GoalInput]
	}
	goalOut struct{ Body *Goal }
	priceIn struct {
		ID string `path:"id" example:"camp_12345" doc:"Id of the campaign."`
	}
	priceOut struct {
		ETag string `header:"ETag"`
		Body *Price
	}
)

func (s *server) registerPricing() {
	register(s, operation{
		id: "calculateGoal", method: http.MethodPost, path: "/api/campaigns/{id}/calculateGoal", summary: "Estimate cost and duration",
		scope: store.ScopeCampaigns, errors: []int{400, 404, 409, 422}, testKeys: testKeysConfined, tag: "Campaigns",
	}, s.calculateGoal)
	register(s, operation{
		id: "getPrice", method: http.MethodGet, path: "/api/campaigns/{id}/price", summary: "Final price before confirming",
		scope: store.ScopeRead, errors: []int{404, 409, 422}, tag: "Campaigns",
	}, s.getPrice)
}

func (s *server) calculateGoal(ctx context.Context, in *goalIn) (*goalOut, error) {
	var goal *uint64
	if in.Body != nil && in.Body.Value.GoalContactCount != nil {
		n := *in.Body.Value.GoalContactCount
		if n < 0 {
			return nil, problem.Field(problem.CodeInvalid, "goalContactCount", "%d is negative.", n)
		}
		who := requestOf(ctx).who
		if n > int64(who.tenant.MaxContacts) {
			return nil, problem.Field(problem.CodeTooManyContacts, "goalContactCount", "%d contacts; a campaign has at most %d.", n, who.tenant.MaxContacts)
		}
		v := uint64(n)
		goal = &v
	}
	c, b, err := s.priced(ctx, in.ID, goal)
	if err != nil {
		return nil, err
	}
	who := requestOf(ctx).who
	out := &Goal{
		TotalContacts: b.contacts, EstimatedCost: Money(b.cost), CostPerMessage: Money(b.perOne), Currency: who.tenant.Currency, Basis: b.basis,
		Exclusions: b.exclusions(), ByCountry: b.byCountry(), MaxCost: Money(b.most), PriceVersion: b.version, Segments: b.segments, Warning: b.warnings, Compliance: b.findings,
	}
	out.Encoding, out.Characters = b.measured()
	start := s.Now()
	if c.Schedule != nil && !c.SendImmediately && c.Schedule.At.After(start) {
		start = c.Schedule.At
	}
	if end, ok := s.finish(ctx, who, c, start, b.contacts, s.sharesOfCountries(&who.tenant, b.countries())); ok {
		d := end.Sub(start)
		secs := int64((d + time.Second - 1) / time.Second)
		out.EstimatedDuration, out.EstimatedDurationSeconds = orNull(durationText(d)), &secs
		if c.CallingHours != nil && d > 24*time.Hour {
			out.Warning = append(out.Warning, fmt.Sprintf(warningShortHours, stamp(end)))
		}
	}
	return &goalOut{out}, nil
}

func (s *server) getPrice(ctx context.Context, in *priceIn) (*priceOut, error) {
	c, b, err := s.priced(ctx, in.ID, nil)
	if err != nil {
		return nil, err
	}
	out := &Price{
		CampaignID: c.ID(), TotalContacts: b.contacts, EstimatedCost: Money(b.cost), Breakdown: b.breakdown(), ByCountry: b.byCountry(), CostPerMessage: Money(b.perOne),
		Currency: requestOf(ctx).who.tenant.Currency, MaxCost: Money(b.most), PriceVersion: b.version, Basis: b.basis,
		Exclusions: b.exclusions(), Segments: b.segments, Warning: b.warnings, Compliance: b.findings,
	}
	out.Encoding, out.Characters = b.measured()
	return &priceOut{etag(c.Version), out}, nil
}

// priced computes the bill of a campaign. While the campaign can be edited, it also stores the price, which moves a
// configured campaign to cost_calculated. For a key that may not change the campaign, it stores nothing.
func (s *server) priced(ctx context.Context, id string, goal *uint64) (*store.Campaign, bill, error) {
	who := requestOf(ctx).who
	c, err := s.campaign(ctx, who, id)
	if err != nil {
		return nil, bill{}, err
	}
	if !schemas.Editable(c.State) {
		return s.pricedBefore(ctx, who, c, goal)
	}
	if c.State == schemas.StateRejected {
		return nil, bill{}, notPossible(c, schemas.TriggerPrice)
	}
	stores := who.key.Has(store.ScopeCampaigns) && testKeyMay(who, c) == nil
	if stores {
		c, err = s.configure(ctx, c)
	} else {
		err = missing(&c.Spec).Err()
	}
	if err != nil {
		return nil, bill{}, err
	}
	fields, err := s.mergeFields(ctx, who.tenant.ID, &c.Spec, false)
	if err != nil {
		return nil, bill{}, err
	}
	b, err := s.quote(ctx, who, c, goal)
	if err != nil {
		return nil, bill{}, err
	}
	b.warnings = append(warnings(c), fields...)
	if n := neverOpen(c, s.sharesOfCountries(&who.tenant, b.countries()), s.Now()); n > 0 {
		b.warnings = append(b.warnings, fmt.Sprintf(warningNeverOpen, n))
	}
	if b.findings, err = s.complianceOf(ctx, who, c, b.countries()); err != nil {
		return nil, bill{}, err
	}
	want := store.Quote{Version: b.version, Cost: b.cost, Contacts: uint32(min(b.contacts, uint64(^uint32(0))))}
	if !stores || c.State == schemas.StateCostCalculated && c.Quote == want {
		return c, b, nil
	}
	c, err = s.change(ctx, c, c.Version, func(c *store.Campaign) (schemas.Trigger, error) {
		c.Quote, c.State = want, schemas.StateCostCalculated
		return schemas.TriggerPrice, nil
	})
	if errors.Is(err, schemas.ErrConflict) { // the campaign was edited meanwhile: the price is of an old version
		return nil, bill{}, problem.New(problem.CodeConflict, "The campaign changed while it was priced.").Because(err)
	}
	return c, b, err
}

// pricedBefore returns the price of a confirmed campaign: the price it was confirmed at, or the price of a goal at the
// same rates.
func (s *server) pricedBefore(ctx context.Context, who *principal, c *store.Campaign, goal *uint64) (*store.Campaign, bill, error) {
	if len(c.Legs) == 0 {
		return nil, bill{}, notPossible(c, schemas.TriggerPrice)
	}
	segs, err := s.segments(ctx, who, c)
	if err != nil {
		return nil, bill{}, err
	}
	contacts := mixOf(c.Countries)
	if len(contacts) == 0 && c.Quote.Contacts > 0 { // the campaign was confirmed before a version that stored countries
		contacts[""] = uint64(c.Quote.Contacts)
	}
	if goal != nil {
		contacts = contacts.spread(*goal)
	}
	b := priceOf(c, &who.tenant, c.Legs, contacts, segs)
	b.basis, b.version = pick(goal != nil, "goal", "audience"), c.Quote.Version
	if goal == nil {
		b.settleOn(c.Quote.Cost)
	}
	return c, b, nil
}
