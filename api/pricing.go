package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/bits"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/hours"
	"fanfare/schemas/text"
)

// sampleSize is how many contacts a text with merge fields is rendered for to know how long it gets.
const sampleSize = 1000

// bill is what a campaign would cost, before it is said in the words of one of the endpoints.
type bill struct {
	channel  fanfarev1.Channel
	price    uint64 // of one segment
	contacts uint64
	cost     uint64 // of all contacts
	perOne   uint64 // of one contact, on average, rounded up
	most     uint64 // what confirm reserves: every leg, every hand-over, the longest text
	size     text.Size
	chars    int
	segments int // of one message at most, as far as the sample shows
	audience store.AudienceCount
	basis    string // goal or audience
	version  string
}

// segmentsOf is how many segments a text takes for a sample of its recipients: the sum, of how many, and the longest.
type segmentsOf struct {
	sum, of uint64
	longest int
}

// estimateSegments renders the text for the sample. A text without fields is the same for everybody.
func estimateSegments(body string, policy fanfarev1.MissingPolicy, fallback string, maxSegments uint32, sample []store.Contact) segmentsOf {
	tpl, err := text.Parse(body)
	if err != nil || len(tpl.Fields()) == 0 || len(sample) == 0 {
		n := text.Measure(body).Segments
		if err == nil && len(tpl.Fields()) > 0 { // nobody to measure with: the text as written, which is an estimate and no more
			n = min(n, int(maxSegments))
		}
		return segmentsOf{uint64(n), 1, n}
	}
	var out segmentsOf
	var buf []byte
	for i := range sample {
		c := &sample[i]
		buf, err = tpl.Append(buf[:0], func(name string) (string, bool) { return contactField(c, name) }, policy, fallback)
		if err != nil {
			continue // not sent to, costs nothing
		}
		n := text.Measure(string(buf)).Segments
		if n > int(maxSegments) {
			continue // TOO_LONG: not sent, costs nothing
		}
		out.sum += uint64(n)
		out.longest = max(out.longest, n)
	}
	out.of = uint64(len(sample))
	return out
}

// contactField is the value of a merge field, as the expander finds it.
func contactField(c *store.Contact, name string) (string, bool) {
	switch name {
	case "phone":
		return c.Phone, true
	case "first_name":
		return c.FirstName, c.FirstName != ""
	case "last_name":
		return c.LastName, c.LastName != ""
	case "email":
		return c.Email, c.Email != ""
	}
	v, ok := c.Attributes[name]
	return v, ok
}

// mulDivUp is a×b÷c rounded up, without overflow in between; saturated, for a sum that large is no price.
func mulDivUp(a, b, c uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	if c == 0 || hi >= c {
		return ^uint64(0) >> 1
	}
	q, r := bits.Div64(hi, lo, c)
	if r > 0 {
		q++
	}
	return q
}

// priceOf makes the bill of so many contacts.
func priceOf(c *store.Campaign, tenant *store.Tenant, prices store.Prices, contacts uint64, seg segmentsOf) bill {
	b := bill{channel: c.Channel(), price: prices[c.Channel()], contacts: contacts}
	if textChannel(&c.Spec) {
		b.size, b.chars, b.segments = text.Measure(c.Body), utf8.RuneCountInString(c.Body), seg.longest
		b.cost = mulDivUp(b.price*contacts, seg.sum, max(seg.of, 1))
	} else {
		b.segments = 1
		b.cost = b.price * contacts
	}
	if contacts > 0 {
		b.perOne = mulDivUp(b.cost, 1, contacts)
	} else {
		b.perOne = mulDivUp(b.price, max(seg.sum, 1), max(seg.of, 1))
	}
	b.most = mostOf(c, tenant, prices, contacts, seg)
	return b
}

// mostOf is the most that the campaign can cost (P4): on every leg every hand-over, each as long as a text may get.
func mostOf(c *store.Campaign, tenant *store.Tenant, prices store.Prices, contacts uint64, seg segmentsOf) uint64 {
	var most uint64
	for _, leg := range legs(c, tenant, prices) {
		per := uint64(1)
		if leg.Channel == fanfarev1.Channel_CHANNEL_SMS {
			per = uint64(maxSegments(c, tenant))
			if tpl, err := text.Parse(c.Body); err == nil && len(tpl.Fields()) == 0 {
				per = uint64(seg.longest)
			}
			if c.Body == "" {
				per = 1
			}
		}
		most += leg.Price * per * uint64(leg.MaxHandovers) * contacts
	}
	return most
}

// Hand-overs and waits of a leg, unless the campaign says otherwise.
const (
	handoversSMS   = 3
	handoversOther = 2
)

var defaultBackoff = []time.Duration{time.Minute, 5 * time.Minute, 25 * time.Minute}

// legs is the chain with its ways and prices. A leg that has nothing to say is left out: an SMS at the end without a text.
func legs(c *store.Campaign, tenant *store.Tenant, prices store.Prices) []store.Leg {
	var out []store.Leg
	for _, channel := range c.Chain {
		if channel == fanfarev1.Channel_CHANNEL_SMS && c.Body == "" && len(c.Chain) > 1 {
			continue
		}
		leg := store.Leg{Channel: channel, Route: route(c, tenant), Sender: sender(c, tenant), Price: prices[channel], MaxHandovers: handoversOther, Backoff: defaultBackoff}
		if channel == fanfarev1.Channel_CHANNEL_SMS {
			leg.MaxHandovers = handoversSMS
		}
		if c.MaxRetries != nil {
			leg.MaxHandovers = *c.MaxRetries + 1
		}
		if c.RetryDelay > 0 {
			leg.Backoff = []time.Duration{c.RetryDelay}
		}
		out = append(out, leg)
	}
	return out
}

// priceVersion stands for everything that a price depends on: rates, audience, text.
func priceVersion(c *store.Campaign, prices store.Prices, audience store.AudienceCount) string {
	h := sha256.New()
	doc, _ := json.Marshal(struct {
		Chain    []fanfarev1.Channel
		Prices   []uint64
		Body     string
		Template string
		Missing  fanfarev1.MissingPolicy
		Default  string
		Max      uint32
		Lists    []uint64
		Total    uint32
		Eligible uint32
	}{
		c.Chain, pricesOf(c.Chain, prices), c.Body, c.TemplateID, c.Missing, c.MissingDefault, c.MaxSegments, c.Lists, audience.Total, audience.Eligible,
	})
	h.Write(doc)
	return "pv_" + hex.EncodeToString(h.Sum(nil)[:8])
}

func pricesOf(chain []fanfarev1.Channel, prices store.Prices) []uint64 {
	out := make([]uint64, len(chain))
	for i, c := range chain {
		out[i] = prices[c]
	}
	return out
}

// quote counts the audience and makes the bill; goal overrides how many there are (C11).
func (s *server) quote(ctx context.Context, who *principal, c *store.Campaign, goal *uint64) (bill, error) {
	audience, err := s.Store.CountAudience(ctx, who.tenant.ID, c.Lists, c.Channel())
	if err != nil {
		return bill{}, s.listGone(err)
	}
	seg, err := s.segments(ctx, who, c)
	if err != nil {
		return bill{}, err
	}
	contacts, basis := uint64(audience.Eligible), "audience"
	if goal != nil {
		contacts, basis = *goal, "goal"
	}
	b := priceOf(c, &who.tenant, who.prices, contacts, seg)
	b.audience, b.basis, b.version = audience, basis, priceVersion(c, who.prices, audience)
	return b, nil
}

// listGone is an error about the audience of a campaign that exists: what is not found is a list of it.
func (s *server) listGone(err error) error {
	if errors.Is(err, schemas.ErrNotFound) {
		return fieldProblem(CodeInvalid, "contactList", "A contact list of the campaign has been deleted.").because(err)
	}
	return s.storeProblem(err)
}

// segments measures the text on the first contacts of the first list.
func (s *server) segments(ctx context.Context, who *principal, c *store.Campaign) (segmentsOf, error) {
	if c.Body == "" {
		return segmentsOf{1, 1, 1}, nil
	}
	var sample []store.Contact
	if tpl, err := text.Parse(c.Body); err == nil && len(tpl.Fields()) > 0 && len(c.Lists) > 0 {
		sample, _, err = s.Store.Contacts(ctx, who.tenant.ID, store.ContactFilter{Page: store.Page{Limit: sampleSize}, List: c.Lists[0]})
		if err != nil {
			return segmentsOf{}, s.listGone(err)
		}
	}
	return estimateSegments(c.Body, c.Missing, c.MissingDefault, maxSegments(c, &who.tenant), sample), nil
}

// GoalInput asks for a price.
type GoalInput struct {
	GoalContactCount *int64 `json:"goalContactCount,omitzero" doc:"Price so many contacts instead of the audience." example:"5000" minimum:"0"`
}

// Exclusions are contacts of the lists that would not be sent to.
type Exclusions struct {
	Invalid    uint32 `json:"invalid"`
	Duplicates uint32 `json:"duplicates"`
	OptedOut   uint32 `json:"optedOut"`
}

// Goal is the answer of calculateGoal: E's fields (R94), then ours.
type Goal struct {
	TotalContacts            uint64     `json:"totalContacts" example:"5000"`
	EstimatedCost            Money      `json:"estimatedCost"`
	CostPerMessage           Money      `json:"costPerMessage"`
	Currency                 string     `json:"currency" example:"EUR"`
	EstimatedDuration        *string    `json:"estimatedDuration" example:"15 minutes" doc:"From the route's rate and the calling hours; null when it would take more than a year."`
	EstimatedDurationSeconds *int64     `json:"estimatedDurationSeconds"`
	Basis                    string     `json:"basis" doc:"goal: the number given; audience: who would be sent to now."`
	Exclusions               Exclusions `json:"exclusions"`
	MaxCost                  Money      `json:"maxCost" doc:"The most it can cost, retries and the longest texts included: what confirm reserves."`
	PriceVersion             string     `json:"priceVersion"`
	Encoding                 *string    `json:"encoding"`
	Characters               *int       `json:"characters"`
	Segments                 int        `json:"segments"`
}

// BreakdownLine is the part of a price that one channel has.
type BreakdownLine struct {
	Count uint64 `json:"count"`
	Cost  Money  `json:"cost"`
}

// Breakdown splits a price by channel: E's three and voice. Its counts add up to totalContacts, its costs to estimatedCost (C9).
type Breakdown struct {
	SMS      BreakdownLine `json:"sms"`
	RCS      BreakdownLine `json:"rcs"`
	WhatsApp BreakdownLine `json:"whatsapp"`
	Voice    BreakdownLine `json:"voice"`
}

// Price is the answer of price: E's fields (R96), then ours.
type Price struct {
	CampaignID     string     `json:"campaignId"`
	TotalContacts  uint64     `json:"totalContacts"`
	EstimatedCost  Money      `json:"estimatedCost"`
	Breakdown      Breakdown  `json:"breakdown"`
	CostPerMessage Money      `json:"costPerMessage"`
	Currency       string     `json:"currency"`
	MaxCost        Money      `json:"maxCost"`
	PriceVersion   string     `json:"priceVersion"`
	Basis          string     `json:"basis"`
	Exclusions     Exclusions `json:"exclusions"`
	Encoding       *string    `json:"encoding"`
	Characters     *int       `json:"characters"`
	Segments       int        `json:"segments"`
}

func (b *bill) breakdown() Breakdown {
	var out Breakdown
	line := BreakdownLine{b.contacts, Money(b.cost)}
	switch b.channel {
	case fanfarev1.Channel_CHANNEL_SMS:
		out.SMS = line
	case fanfarev1.Channel_CHANNEL_RCS:
		out.RCS = line
	case fanfarev1.Channel_CHANNEL_WHATSAPP:
		out.WhatsApp = line
	case fanfarev1.Channel_CHANNEL_VOICE:
		out.Voice = line
	default:
	}
	return out
}

func (b *bill) exclusions() Exclusions {
	return Exclusions{b.audience.Invalid, b.audience.Duplicates, b.audience.OptedOut}
}

func (b *bill) measured() (encoding *string, characters *int) {
	if b.size.Segments == 0 {
		return nil, nil
	}
	return orNull(encodingName(b.size.Encoding)), &b.chars
}

type (
	goalIn struct {
		ID   string `path:"id" example:"camp_12345"`
		Body *Body[GoalInput]
	}
	goalOut struct{ Body *Goal }
	priceIn struct {
		ID string `path:"id" example:"camp_12345"`
	}
	priceOut struct {
		ETag string `header:"ETag"`
		Body *Price
	}
)

func (s *server) registerPricing() {
	register(s, operation{
		id: "calculateGoal", method: http.MethodPost, path: "/api/campaigns/{id}/calculateGoal", summary: "Estimate cost and duration",
		scope: store.ScopeCampaigns, errors: []int{400, 404, 409, 422}, tag: "Campaigns",
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
			return nil, fieldProblem(CodeInvalid, "goalContactCount", "%d is negative.", n)
		}
		who := requestOf(ctx).who
		if n > int64(who.tenant.MaxContacts) {
			return nil, fieldProblem(CodeTooManyContacts, "goalContactCount", "%d contacts; a campaign has at most %d.", n, who.tenant.MaxContacts)
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
		Exclusions: b.exclusions(), MaxCost: Money(b.most), PriceVersion: b.version, Segments: b.segments,
	}
	out.Encoding, out.Characters = b.measured()
	start := s.Now()
	if c.Schedule != nil && !c.SendImmediately && c.Schedule.At.After(start) {
		start = c.Schedule.At
	}
	if end, ok := s.finish(ctx, who, c, start, b.contacts); ok {
		d := end.Sub(start)
		secs := int64((d + time.Second - 1) / time.Second)
		out.EstimatedDuration, out.EstimatedDurationSeconds = orNull(durationText(d)), &secs
	}
	return &goalOut{out}, nil
}

func (s *server) getPrice(ctx context.Context, in *priceIn) (*priceOut, error) {
	c, b, err := s.priced(ctx, in.ID, nil)
	if err != nil {
		return nil, err
	}
	out := &Price{
		CampaignID: c.ID(), TotalContacts: b.contacts, EstimatedCost: Money(b.cost), Breakdown: b.breakdown(), CostPerMessage: Money(b.perOne),
		Currency: requestOf(ctx).who.tenant.Currency, MaxCost: Money(b.most), PriceVersion: b.version, Basis: b.basis,
		Exclusions: b.exclusions(), Segments: b.segments,
	}
	out.Encoding, out.Characters = b.measured()
	return &priceOut{etag(c.Version), out}, nil
}

// priced makes the bill of a campaign and, while it may still be edited, keeps it: configured becomes cost_calculated. A key
// that may only read leaves no trace.
func (s *server) priced(ctx context.Context, id string, goal *uint64) (*store.Campaign, bill, error) {
	who := requestOf(ctx).who
	c, err := s.campaign(ctx, who, id)
	if err != nil {
		return nil, bill{}, err
	}
	if !schemas.Editable(c.State) {
		return s.pricedBefore(ctx, who, c, goal)
	}
	if c.State == fanfarev1.State_STATE_REJECTED {
		return nil, bill{}, wrongState(c.State, schemas.TriggerPrice)
	}
	keep := who.key.Has(store.ScopeCampaigns)
	if keep {
		c, err = s.configure(ctx, c)
	} else {
		err = missing(&c.Spec).err()
	}
	if err != nil {
		return nil, bill{}, err
	}
	b, err := s.quote(ctx, who, c, goal)
	if err != nil {
		return nil, bill{}, err
	}
	want := store.Quote{Version: b.version, Cost: b.cost, Contacts: uint32(min(b.contacts, uint64(^uint32(0))))}
	if !keep || c.State == fanfarev1.State_STATE_COST_CALCULATED && c.Quote == want {
		return c, b, nil
	}
	c, err = s.change(ctx, c, c.Version, func(c *store.Campaign) (schemas.Trigger, error) {
		c.Quote, c.State = want, fanfarev1.State_STATE_COST_CALCULATED
		return schemas.TriggerPrice, nil
	})
	if errors.Is(err, schemas.ErrConflict) { // edited meanwhile: this price is nobody's any more
		return nil, bill{}, problem(CodeConflict, "The campaign changed while it was priced.").because(err)
	}
	return c, b, err
}

// pricedBefore says the price of a campaign that was confirmed: what it was confirmed at, or a hypothetical number at the same rates.
func (s *server) pricedBefore(ctx context.Context, who *principal, c *store.Campaign, goal *uint64) (*store.Campaign, bill, error) {
	if len(c.Legs) == 0 {
		return nil, bill{}, wrongState(c.State, schemas.TriggerPrice)
	}
	prices := store.Prices{}
	for _, leg := range c.Legs {
		prices[leg.Channel] = leg.Price
	}
	seg, err := s.segments(ctx, who, c)
	if err != nil {
		return nil, bill{}, err
	}
	contacts := uint64(c.Quote.Contacts)
	if goal != nil {
		contacts = *goal
	}
	b := priceOf(c, &who.tenant, prices, contacts, seg)
	b.basis, b.version = cond(goal != nil, "goal", "audience"), c.Quote.Version
	if goal == nil {
		b.cost = c.Quote.Cost
		if contacts > 0 {
			b.perOne = mulDivUp(b.cost, 1, contacts)
		}
	}
	return c, b, nil
}

// finish says when so many messages of a campaign are out, started at start: at the least of the limits on its way.
func (s *server) finish(ctx context.Context, who *principal, c *store.Campaign, start time.Time, count uint64) (time.Time, bool) {
	rate := s.rate(ctx, who, c)
	h := hours.Hours{}
	if c.CallingHours != nil {
		var err error
		if h, err = hours.New(int(c.CallingHours.Start), int(c.CallingHours.End), c.CallingHours.Zone); err != nil {
			return time.Time{}, false
		}
	}
	return finishOf(start, count, rate, h)
}

// rate is the least of the limits of route, tenant, sender and campaign, 0 when the route is not known.
func (s *server) rate(ctx context.Context, who *principal, c *store.Campaign) uint32 {
	r, err := s.routes.route(ctx, route(c, &who.tenant))
	if err != nil {
		return 0
	}
	limits := []uint32{r.Rate}
	for _, l := range []uint32{who.tenant.Rate, c.Rate, s.routes.senderRate(ctx, who.tenant.ID, sender(c, &who.tenant))} {
		if l > 0 {
			limits = append(limits, l)
		}
	}
	return slices.Min(limits)
}
