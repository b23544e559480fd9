package api

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/bits"
	"slices"
	"time"
	"unicode/utf8"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/text"
)

// sampleSize is the number of contacts for which a text with merge fields is rendered, to estimate its segments.
const sampleSize = 1000

// bill is the computed price of a campaign. The endpoints make their answers from it.
type bill struct {
	channel  schemas.Channel
	lines    []billLine // their contacts and costs add up to contacts and cost
	contacts uint64
	cost     uint64 // of all contacts
	perOne   uint64 // of one contact, on average, rounded up
	most     uint64 // the most the campaign can cost, which confirm reserves
	size     text.Size
	chars    int
	segments int // of the longest message in the sample
	audience store.AudienceCount
	basis    string // goal or audience
	version  string
	warnings []string
	findings []ComplianceFinding
}

// billLine is the part of the bill for one country, for the first channel.
type billLine struct {
	country string
	price   uint64 // of one segment, message or minute
	count   uint64
	cost    uint64
}

// segmentsOf counts the segments that a text takes for a sample of its recipients: their sum, the size of the sample,
// and the longest.
type segmentsOf struct {
	sum, of uint64
	longest int
	varies  bool // the text has merge fields: the text of another recipient may be longer
}

// estimateSegments renders the text for each contact of the sample and counts its segments. A text without merge fields
// is measured once.
func estimateSegments(spec *store.Spec, body string, maxSegments uint32, sample []store.Contact) segmentsOf {
	tpl, err := text.Parse(body)
	varies := err == nil && len(tpl.Fields()) > 0
	if !varies || len(sample) == 0 {
		n := text.Measure(transliterated(spec, body)).Segments
		if varies { // the sample is empty: the text as written is the best estimate
			n = min(n, int(maxSegments))
		}
		return segmentsOf{uint64(n), 1, n, varies}
	}
	out := segmentsOf{varies: true}
	var buf []byte
	limit := text.MaxBytes(int(maxSegments))
	for i := range sample {
		c := &sample[i]
		buf, err = tpl.Append(buf[:0], limit, func(name string) (string, bool) { return contactField(c, name) }, spec.Missing, spec.MissingDefault)
		if err != nil || text.BlankBytes(buf) {
			continue // RENDER_ERROR or TOO_LONG: not sent, costs nothing
		}
		n := text.Measure(transliterated(spec, string(buf))).Segments
		if n > int(maxSegments) {
			continue // TOO_LONG: not sent, costs nothing
		}
		out.sum += uint64(n)
		out.longest = max(out.longest, n)
	}
	out.of = uint64(len(sample))
	return out
}

// contactField returns the value of a merge field, by the same rules as the expander.
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

// mulDivUp returns a×b÷c rounded up. The product may exceed 64 bits; a quotient that does is saturated.
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

// mix has the number of contacts by country.
type mix map[string]uint64

func (m mix) total() (n uint64) {
	for _, count := range m {
		n += count
	}
	return n
}

// countries counts the contacts by country.
func (b *bill) countries() mix {
	out := mix{}
	for _, l := range b.lines {
		out[l.country] += l.count
	}
	return out
}

// mixOf returns the eligible contacts of an audience by country.
func mixOf(countries map[string]uint32) mix {
	out := mix{}
	for country, n := range countries {
		out[country] = uint64(n)
	}
	return out
}

// spread distributes total contacts in the proportions of m. When m is empty, they are all counted as of an unknown
// country.
func (m mix) spread(total uint64) mix {
	names := sortedKeys(m)
	weights := make([]uint64, len(names))
	for i, name := range names {
		weights[i] = m[name]
	}
	if m.total() == 0 {
		return mix{"": total}
	}
	out := mix{}
	for i, n := range apportion(total, weights) {
		out[names[i]] = n
	}
	return out
}

// apportion divides a total in the proportions of the weights, whose sum must not be 0. It rounds each part down and
// gives the rest, one by one, to the parts with the largest remainders.
func apportion(total uint64, weights []uint64) []uint64 {
	var sum uint64
	for _, w := range weights {
		sum += w
	}
	out, rest := make([]uint64, len(weights)), make([]uint64, len(weights))
	order := make([]int, len(weights))
	left := total
	for i, w := range weights {
		hi, lo := bits.Mul64(total, w)
		out[i], rest[i] = bits.Div64(hi, lo, sum) // w ≤ sum: the quotient fits
		left -= out[i]
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(rest[b], rest[a]) })
	for _, i := range order[:left] {
		out[i]++
	}
	return out
}

// priceFor returns the price of a leg for a country.
func priceFor(leg *store.Leg, country string) uint64 {
	if p, ok := leg.Prices[country]; ok {
		return p
	}
	return leg.Price
}

// priceOf computes the bill for contacts by country. The expected cost counts the first leg only; the maximum counts
// all legs.
func priceOf(c *store.Campaign, tenant *store.Tenant, legs []store.Leg, contacts mix, segs []segmentsOf) bill {
	b := bill{channel: c.Channel(), contacts: contacts.total()}
	first, seg := &store.Leg{}, segmentsOf{1, 1, 1, false}
	if len(legs) > 0 && len(segs) > 0 {
		first, seg = &legs[0], segs[0]
	}
	b.segments = seg.longest
	if c.Channel() == schemas.ChannelSMS && c.Body != "" {
		b.size, b.chars = text.Measure(transliterated(&c.Spec, sizedText(c, c.Body))), utf8.RuneCountInString(c.Body)
	}
	for _, country := range sortedKeys(contacts) {
		line := billLine{country: country, price: priceFor(first, country), count: contacts[country]}
		line.cost = mulDivUp(line.price*line.count, seg.sum, max(seg.of, 1))
		b.cost += line.cost
		b.lines = append(b.lines, line)
	}
	if b.contacts > 0 {
		b.perOne = mulDivUp(b.cost, 1, b.contacts)
	} else {
		b.perOne = mulDivUp(first.Price, max(seg.sum, 1), max(seg.of, 1))
	}
	b.most = mostOf(c, tenant, legs, contacts, segs)
	return b
}

// mostOf returns the most that the campaign can cost (P4): every hand-over on every leg, each with the longest possible
// text. Failed hand-overs count because the carrier bills them too: three hand-overs each to 5,000 recipients at 0.05
// cost up to 750.00.
func mostOf(c *store.Campaign, tenant *store.Tenant, legs []store.Leg, contacts mix, segs []segmentsOf) uint64 {
	var most uint64
	for i := range legs {
		leg := &legs[i]
		per := uint64(1)
		if leg.Channel == schemas.ChannelSMS {
			per = uint64(segs[i].longest)
			if segs[i].varies {
				per = uint64(maxSegments(c, tenant))
			}
		}
		for country, n := range contacts {
			most += priceFor(leg, country) * per * uint64(leg.MaxHandovers) * n
		}
	}
	return most
}

// affordable reduces the hand-overs of the legs until available covers the maximum cost, and returns that maximum. It
// leaves at least one hand-over on each leg. So a credit that covers one hand-over per leg is enough to confirm, and
// the campaign gets as many retries as the credit covers.
func affordable(c *store.Campaign, tenant *store.Tenant, legs []store.Leg, contacts mix, segs []segmentsOf, available uint64) uint64 {
	most := mostOf(c, tenant, legs, contacts, segs)
	for most > available {
		// The leg with the most hand-overs; of two equal legs the later one, because the client prefers the first leg
		last := -1
		for i := range legs {
			if n := legs[i].MaxHandovers; n > 1 && (last < 0 || n >= legs[last].MaxHandovers) {
				last = i
			}
		}
		if last < 0 {
			break
		}
		legs[last].MaxHandovers--
		most = mostOf(c, tenant, legs, contacts, segs)
	}
	return most
}

// legs returns the chain with prices and retries. A later leg without content is left out.
// volume is how many recipients the campaign has, by which prices may differ, and at is when it is priced.
func legs(c *store.Campaign, prices store.Prices, volume uint64, at time.Time) []store.Leg {
	var out []store.Leg
	for i, p := range partsOf(&c.Spec) {
		if p.empty() && i > 0 {
			continue
		}
		leg := store.Leg{
			Channel:      p.channel,
			MaxHandovers: schemas.DefaultHandovers(p.channel), Backoff: schemas.DefaultBackoff(p.channel),
		}
		if c.MaxRetries != nil {
			leg.MaxHandovers = *c.MaxRetries + 1
		}
		if c.RetryDelay > 0 {
			leg.Backoff = []time.Duration{c.RetryDelay}
		}
		leg.Price, leg.Prices = prices.ByCountry(p.channel, volume, at)
		out = append(out, leg)
	}
	return out
}

// priceVersion returns a hash of everything that a price depends on: price list, audience, texts.
func priceVersion(c *store.Campaign, legs []store.Leg, audience store.AudienceCount) string {
	h := sha256.New()
	prices := make([]any, 0, 2*len(legs))
	for i := range legs {
		prices = append(prices, legs[i].Price, legs[i].Prices)
	}
	doc, _ := json.Marshal(struct {
		Chain         []schemas.Channel
		Prices        []any
		Texts         []string
		Template      string
		Missing       schemas.MissingPolicy
		Default       string
		Max           uint32
		Transliterate bool
		Weights       []uint32
		Lists         []uint64
		Total         uint32
		Countries     map[string]uint32
		Shorten       bool
		LinkBase      string
	}{
		c.Chain, prices, allTexts(&c.Spec), c.TemplateID, c.Missing, c.MissingDefault, c.MaxSegments, c.Transliterate, variantWeights(&c.Spec), c.Lists,
		audience.Total, audience.Countries, c.ShortenLinks, c.LinkBase,
	})
	h.Write(doc)
	return "pv_" + hex.EncodeToString(h.Sum(nil)[:8])
}

func allTexts(spec *store.Spec) []string {
	var out []string
	for _, w := range textsOf(spec) {
		out = append(out, w.text)
	}
	return out
}

// quote counts the audience and computes the bill. A goal replaces the number of contacts (C11).
func (s *server) quote(ctx context.Context, who *principal, c *store.Campaign, goal *uint64) (bill, error) {
	audience, err := s.Store.CountCampaign(ctx, c)
	if err != nil {
		return bill{}, s.listGone(err)
	}
	segs, err := s.segments(ctx, who, c)
	if err != nil {
		return bill{}, err
	}
	contacts, basis := mixOf(audience.Countries), "audience"
	if goal != nil {
		contacts, basis = contacts.spread(*goal), "goal"
	}
	priced := legs(c, who.prices, contacts.total(), s.Now())
	b := priceOf(c, &who.tenant, priced, contacts, segs)
	b.audience, b.basis, b.version = audience, basis, priceVersion(c, priced, audience)
	return b, nil
}

// listGone converts an error about the audience of an existing campaign: "not found" means that one of its lists was
// deleted.
func (s *server) listGone(err error) error {
	if gone, ok := errors.AsType[*schemas.FreezeError](err); ok && gone.Reason == store.ReasonAudienceGone {
		return problem.New(problem.CodeNotReplayable, "The audience of the campaign that this one replays has been removed.").Because(err)
	}
	if errors.Is(err, schemas.ErrNotFound) {
		return problem.Field(problem.CodeInvalid, "contactList", "A contact list of the campaign has been deleted.").Because(err)
	}
	return s.storeProblem(err)
}

// segments renders the texts for the first contacts of the first list and counts segments, of each leg that has
// content.
func (s *server) segments(ctx context.Context, who *principal, c *store.Campaign) ([]segmentsOf, error) {
	var sample []store.Contact
	var err error
	merges := slices.ContainsFunc(textsOf(&c.Spec), func(w writtenText) bool {
		tpl, err := text.Parse(w.text)
		return err == nil && len(tpl.Fields()) > 0
	})
	switch {
	case merges && c.ReplayOf != 0:
		sample, err = s.Store.ReplaySample(ctx, c, sampleSize)
	case merges && len(c.Lists) > 0:
		sample, _, err = s.Store.Contacts(ctx, who.tenant.ID, store.ContactFilter{Page: store.Page{Limit: sampleSize}, List: c.Lists[0]})
	}
	if err != nil {
		return nil, s.listGone(err)
	}
	most := maxSegments(c, &who.tenant)
	var out []segmentsOf
	for i, p := range partsOf(&c.Spec) {
		switch {
		case p.empty() && i > 0:
		case p.channel != schemas.ChannelSMS:
			out = append(out, segmentsOf{1, 1, 1, false})
		case i == 0 && len(c.Variants) > 0:
			out = append(out, estimateVariants(c, most, sample))
		default:
			out = append(out, estimateSegments(&c.Spec, sizedText(c, p.message), most, sample))
		}
	}
	return out, nil
}

// estimateVariants estimates the segments of several texts according to their weights.
func estimateVariants(c *store.Campaign, most uint32, sample []store.Contact) segmentsOf {
	size := uint64(max(len(sample), 1))
	out := segmentsOf{}
	for i := range c.Variants {
		v := &c.Variants[i]
		one := estimateSegments(&c.Spec, sizedText(c, v.Body), most, sample)
		out.sum += uint64(v.Weight) * one.sum * (size / one.of)
		out.of += uint64(v.Weight) * size
		// Weights can change while the campaign runs, so any variant may be sent to everyone
		out.longest, out.varies = max(out.longest, one.longest), out.varies || one.varies
	}
	return out
}
