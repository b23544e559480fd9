package analyticstest

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
)

// Model answers every question of a store from a plain list of events, one recipient at a time. It is as simple as it can be,
// and as slow.
type Model struct {
	campaigns map[place]map[uint32][]analytics.Event
	months    map[place]time.Time
	timeline  map[place]map[tick]uint64
	seen      map[source]bool
}

type (
	place struct{ tenant, campaign string }
	tick  struct {
		minute int64
		kind   fanfarev1.Kind
	}
	source struct {
		topic     analytics.TopicID
		partition int32
		offset    int64
	}
	// identity is what makes two events the same.
	identity struct {
		try, leg uint8
		p        schemas.Precedence
		at       int64
		link     string
	}
)

// NewModel returns an empty model.
func NewModel() *Model {
	return &Model{
		campaigns: map[place]map[uint32][]analytics.Event{},
		months:    map[place]time.Time{},
		timeline:  map[place]map[tick]uint64{},
		seen:      map[source]bool{},
	}
}

func identityOf(e *analytics.Event) identity {
	return identity{e.Try, e.Leg, e.Precedence(), e.TimeMS, e.LinkID}
}

// Append adds a batch; a batch that came before changes nothing.
func (m *Model) Append(b analytics.Batch) {
	for i := range b.Events {
		e := b.Events[i]
		at := place{e.Campaign.Tenant, e.Campaign.ID}
		if m.campaigns[at] == nil {
			m.campaigns[at], m.timeline[at] = map[uint32][]analytics.Event{}, map[tick]uint64{}
		}
		m.months[at] = e.Campaign.Month
		if src := (source{b.Topic, b.Partition, e.Offset}); b.Topic.IsZero() || !m.seen[src] {
			m.seen[src] = true
			m.timeline[at][tick{e.TimeMS - e.TimeMS%60_000, e.Kind}]++
		}
		known := m.campaigns[at][e.Seq]
		if slices.ContainsFunc(known, func(k analytics.Event) bool { return identityOf(&k) == identityOf(&e) }) {
			continue
		}
		e.Offset = 0
		m.campaigns[at][e.Seq] = append(known, e)
	}
}

// state of a recipient: the greatest precedence that is no fact.
func state(events []analytics.Event) (p schemas.Precedence) {
	for i := range events {
		p = schemas.Join(p, events[i].Precedence())
	}
	return p
}

func has(events []analytics.Event, p schemas.Precedence) bool {
	return slices.ContainsFunc(events, func(e analytics.Event) bool { return e.Precedence() == p })
}

// counts of the recipients for whom only returns true.
func (m *Model) counts(tenant, campaign string, only func([]analytics.Event) bool) []analytics.Count {
	sums := map[schemas.Precedence]analytics.Count{}
	for _, events := range m.campaigns[place{tenant, campaign}] {
		if !only(events) {
			continue
		}
		if p := state(events); p != 0 {
			c := sums[p]
			c.N++
			if has(events, analytics.FactClicked) {
				c.Clickers++
			}
			sums[p] = c
		}
		facts := map[schemas.Precedence]bool{}
		for i := range events {
			if p := events[i].Precedence(); p >= schemas.PrecedenceFacts {
				facts[p] = true
			}
		}
		for p := range facts {
			c := sums[p]
			c.N++
			sums[p] = c
		}
	}
	var out []analytics.Count
	for _, p := range slices.Sorted(maps.Keys(sums)) {
		out = append(out, analytics.Count{Precedence: p, N: sums[p].N, Clickers: sums[p].Clickers})
	}
	return out
}

// Counts of a campaign.
func (m *Model) Counts(tenant, campaign string) []analytics.Count {
	return m.counts(tenant, campaign, func([]analytics.Event) bool { return true })
}

// CountsBy of a campaign.
func (m *Model) CountsBy(tenant, campaign string, by analytics.Dimension) map[string][]analytics.Count {
	dispatched := func(e analytics.Event) bool {
		return e.Kind == fanfarev1.Kind_KIND_SENT || e.Kind == fanfarev1.Kind_KIND_NOT_SENT
	}
	out := map[string][]analytics.Count{}
	for _, events := range m.campaigns[place{tenant, campaign}] {
		for _, e := range events {
			if dispatched(e) {
				out[by.Value(&e)] = nil
			}
		}
	}
	for value := range out {
		out[value] = m.counts(tenant, campaign, func(events []analytics.Event) bool {
			return slices.ContainsFunc(events, func(e analytics.Event) bool { return dispatched(e) && by.Value(&e) == value })
		})
	}
	return out
}

// Select returns who is in one of the states, or has one of the facts.
func (m *Model) Select(tenant, campaign string, precedences []schemas.Precedence) *roaring.Bitmap {
	out := roaring.New()
	for seq, events := range m.campaigns[place{tenant, campaign}] {
		if p := state(events); p != 0 && slices.Contains(precedences, p) {
			out.Add(seq)
		}
		for _, p := range precedences {
			if p >= schemas.PrecedenceFacts && has(events, p) {
				out.Add(seq)
			}
		}
	}
	return out
}

// Member describes one recipient; ok is false when nothing is known.
func (m *Model) Member(tenant, campaign string, seq uint32) (out analytics.Member, ok bool) {
	events := slices.Clone(m.campaigns[place{tenant, campaign}][seq])
	if len(events) == 0 {
		return out, false
	}
	// The greatest first.
	slices.SortFunc(events, func(a, b analytics.Event) int {
		return cmp.Or(cmp.Compare(b.Precedence(), a.Precedence()), cmp.Compare(b.TimeMS, a.TimeMS))
	})
	out.Seq, out.State = seq, state(events)
	tries := map[uint8]bool{}
	for i := range events {
		e := &events[i]
		out.MessageID = e.MessageID
		out.To, out.Country, out.CustomerRef = max(out.To, e.To), max(out.Country, e.Country), max(out.CustomerRef, e.CustomerRef)
		out.Variant, out.ContactID = max(out.Variant, e.Variant), max(out.ContactID, e.ContactID)
		p := e.Precedence()
		switch {
		case p == analytics.FactClicked:
			out.Clicked = true
		case e.Kind == fanfarev1.Kind_KIND_REPLIED:
			out.Replied = true
		case e.Kind == fanfarev1.Kind_KIND_OPTED_OUT:
			out.OptedOut = true
		}
		if p >= schemas.PrecedenceFacts {
			continue
		}
		if out.Time.IsZero() {
			out.RawCode, out.Time, out.Try, out.Leg = e.RawCode, e.Time(), e.Try, e.Leg
		}
		out.Channel = cmp.Or(out.Channel, e.Channel)
		out.Route = cmp.Or(out.Route, e.Route)
		out.Sender = cmp.Or(out.Sender, e.Sender)
		out.ProviderID = cmp.Or(out.ProviderID, e.ProviderID)
		if p.Class() >= schemas.ClassLeft {
			tries[e.Try] = true
		}
		if e.Kind == fanfarev1.Kind_KIND_SENT && (out.SentAt.IsZero() || e.Time().Before(out.SentAt)) {
			out.SentAt = e.Time()
		}
		if p.Class() == schemas.ClassPositive && (out.DeliveredAt.IsZero() || e.Time().Before(out.DeliveredAt)) {
			out.DeliveredAt = e.Time()
		}
	}
	out.Attempts = len(tries)
	return out, true
}

// Seqs are the recipients of whom anything is known, in order.
func (m *Model) Seqs(tenant, campaign string) []uint32 {
	return slices.Sorted(maps.Keys(m.campaigns[place{tenant, campaign}]))
}

// History of a recipient.
func (m *Model) History(tenant, campaign string, seq uint32) []analytics.Event {
	events := slices.Clone(m.campaigns[place{tenant, campaign}][seq])
	slices.SortFunc(events, func(a, b analytics.Event) int {
		return cmp.Or(cmp.Compare(a.TimeMS, b.TimeMS), cmp.Compare(a.Precedence(), b.Precedence()),
			cmp.Compare(a.Try, b.Try), cmp.Compare(a.Leg, b.Leg), cmp.Compare(a.LinkID, b.LinkID))
	})
	return events
}

// FindRecipient returns the first 100 seqs with that number.
func (m *Model) FindRecipient(tenant, campaign, to string) []uint32 {
	var out []uint32
	for _, seq := range m.Seqs(tenant, campaign) {
		if slices.ContainsFunc(m.campaigns[place{tenant, campaign}][seq], func(e analytics.Event) bool { return e.To == to }) && len(out) < 100 {
			out = append(out, seq)
		}
	}
	return out
}

// ByCustomerRef finds messages by the client's reference.
func (m *Model) ByCustomerRef(tenant, ref string, since time.Time) []analytics.Referred {
	var out []analytics.Referred
	for at, recipients := range m.campaigns {
		if at.tenant != tenant || m.months[at].Before(analytics.MonthOf(since)) {
			continue
		}
		for seq, events := range recipients {
			if slices.ContainsFunc(events, func(e analytics.Event) bool { return e.CustomerRef == ref }) {
				member, _ := m.Member(tenant, at.campaign, seq)
				out = append(out, analytics.Referred{Campaign: at.campaign, Member: member})
			}
		}
	}
	slices.SortFunc(out, func(a, b analytics.Referred) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.Campaign, b.Campaign), cmp.Compare(a.Seq, b.Seq))
	})
	return out[:min(len(out), 100)]
}

// Cost of a campaign: every hand-over once.
func (m *Model) Cost(tenant, campaign string) []analytics.CostLine {
	type line struct {
		channel           fanfarev1.Channel
		country, currency string
	}
	type handover struct {
		seq      uint32
		try, leg uint8
		segments uint8
		price    uint32
		line     line
	}
	once := map[handover]bool{}
	sums := map[line]analytics.CostLine{}
	for seq, events := range m.campaigns[place{tenant, campaign}] {
		for _, e := range events {
			h := handover{seq, e.Try, e.Leg, e.Segments, e.PriceMicros, line{e.Channel, e.Country, e.Currency}}
			if e.Kind != fanfarev1.Kind_KIND_SENT || once[h] {
				continue
			}
			once[h] = true
			s := sums[h.line]
			s.Messages++
			s.Segments += uint64(e.Segments)
			s.Micros += uint64(e.Segments) * uint64(e.PriceMicros)
			sums[h.line] = s
		}
	}
	var out []analytics.CostLine
	for l, s := range sums {
		out = append(out, analytics.CostLine{Channel: l.channel, Country: l.country, Currency: l.currency, Messages: s.Messages, Segments: s.Segments, Micros: s.Micros})
	}
	slices.SortFunc(out, func(a, b analytics.CostLine) int {
		return cmp.Or(cmp.Compare(schemas.ChannelName(a.Channel), schemas.ChannelName(b.Channel)), cmp.Compare(a.Country, b.Country), cmp.Compare(a.Currency, b.Currency))
	})
	return out
}

// Timeline of a campaign.
func (m *Model) Timeline(tenant, campaign string) []analytics.Point {
	var out []analytics.Point
	for k, n := range m.timeline[place{tenant, campaign}] {
		out = append(out, analytics.Point{Minute: time.UnixMilli(k.minute).UTC(), Kind: k.kind, N: n})
	}
	slices.SortFunc(out, func(a, b analytics.Point) int {
		return cmp.Or(a.Minute.Compare(b.Minute), cmp.Compare(a.Kind, b.Kind))
	})
	return out
}

// Links of a campaign.
func (m *Model) Links(tenant, campaign string) []analytics.Link {
	sums := map[string]analytics.Link{}
	for _, events := range m.campaigns[place{tenant, campaign}] {
		people, bots := map[string]bool{}, map[string]bool{}
		for i := range events {
			switch events[i].Precedence() {
			case analytics.FactClicked:
				people[events[i].LinkID] = true
			case analytics.FactBotClicked:
				bots[events[i].LinkID] = true
			default:
			}
		}
		for id := range people {
			l := sums[id]
			l.Clickers++
			sums[id] = l
		}
		for id := range bots {
			l := sums[id]
			l.Bots++
			sums[id] = l
		}
	}
	var out []analytics.Link
	for _, id := range slices.Sorted(maps.Keys(sums)) {
		out = append(out, analytics.Link{ID: id, Clickers: sums[id].Clickers, Bots: sums[id].Bots})
	}
	return out
}
