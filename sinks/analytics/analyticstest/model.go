package analyticstest

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// Model answers the queries of a store from a plain list of events, one recipient at a time. It is as simple as
// possible, and slow.
type Model struct {
	campaigns map[place]map[uint32][]analytics.Event
	months    map[place]time.Time
	timeline  map[place]map[tick]uint64
	deals     map[place][]analytics.Deal
	seen      map[source]bool
}

type (
	place struct{ tenant, campaign string }
	tick  struct {
		second int64
		kind   schemas.Kind
		route  string
	}
	source struct {
		topic     analytics.TopicID
		partition int32
		offset    int64
	}
	// identity has the fields that are equal in duplicates of an event.
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
		deals:     map[place][]analytics.Deal{},
		seen:      map[source]bool{},
	}
}

func identityOf(e *analytics.Event) identity {
	return identity{e.Try, e.Leg, e.Precedence(), e.TimeMS, e.LinkID}
}

// Append adds a batch. A repeated batch changes nothing.
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
			m.timeline[at][tick{e.TimeMS / 1000, e.Kind, e.Route}]++
		}
		known := m.campaigns[at][e.Seq]
		if slices.ContainsFunc(known, func(k analytics.Event) bool { return identityOf(&k) == identityOf(&e) }) {
			continue
		}
		e.Offset = 0
		m.campaigns[at][e.Seq] = append(known, e)
	}
}

// AppendDeals adds the deals of a batch. A repeated deal changes nothing.
func (m *Model) AppendDeals(b analytics.Batch) {
	for _, d := range b.Deals {
		at := place{d.Campaign.Tenant, d.Campaign.ID}
		if !slices.ContainsFunc(m.deals[at], func(k analytics.Deal) bool { return k.Number == d.Number && k.TimeMS == d.TimeMS }) {
			d.Offset = 0
			m.deals[at] = append(m.deals[at], d)
		}
	}
}

// Deals returns the deals of a recipient.
func (m *Model) Deals(tenant, campaign string, seq uint32) []analytics.Deal {
	var out []analytics.Deal
	for _, d := range m.deals[place{tenant, campaign}] {
		if d.Members.Contains(seq) {
			d.Members = nil
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b analytics.Deal) int {
		return cmp.Or(cmp.Compare(a.TimeMS, b.TimeMS), cmp.Compare(a.Number, b.Number))
	})
	return out
}

// InFlight counts the recipients that were dealt at a try and have no event of that try.
func (m *Model) InFlight(tenant, campaign string) uint64 {
	at := place{tenant, campaign}
	flying := map[uint32]bool{}
	for _, d := range m.deals[at] {
		if d.Cancel {
			continue
		}
		for _, seq := range d.Members.ToArray() {
			answered := slices.ContainsFunc(m.campaigns[at][seq], func(e analytics.Event) bool {
				return e.Try == d.Try && e.Precedence() < schemas.PrecedenceFacts
			})
			if !answered {
				flying[seq] = true
			}
		}
	}
	return uint64(len(flying))
}

// state returns a recipient's state, the greatest precedence that is not a fact.
func state(events []analytics.Event) (p schemas.Precedence) {
	for i := range events {
		p = schemas.Join(p, events[i].Precedence())
	}
	return p
}

func has(events []analytics.Event, p schemas.Precedence) bool {
	return slices.ContainsFunc(events, func(e analytics.Event) bool { return e.Precedence() == p })
}

// counts counts the recipients for which only returns true.
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

// Counts counts a campaign by state.
func (m *Model) Counts(tenant, campaign string) []analytics.Count {
	return m.counts(tenant, campaign, func([]analytics.Event) bool { return true })
}

// CountsBy counts a campaign separately for each value of a dimension.
func (m *Model) CountsBy(tenant, campaign string, by analytics.Dimension) map[string][]analytics.Count {
	out := map[string][]analytics.Count{}
	for _, events := range m.campaigns[place{tenant, campaign}] {
		for _, e := range events {
			if e.DescribesMessage() {
				out[by.Value(&e)] = nil
			}
		}
	}
	for value := range out {
		out[value] = m.counts(tenant, campaign, func(events []analytics.Event) bool {
			return slices.ContainsFunc(events, func(e analytics.Event) bool { return e.DescribesMessage() && by.Value(&e) == value })
		})
	}
	return out
}

// Select returns the recipients that are in one of the states or have one of the facts.
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

// Member returns what is known about one recipient; ok is false if nothing is.
func (m *Model) Member(tenant, campaign string, seq uint32) (out analytics.Member, ok bool) {
	events := slices.Clone(m.campaigns[place{tenant, campaign}][seq])
	if len(events) == 0 {
		return out, false
	}
	// Greatest precedence first.
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
		case e.Kind == schemas.KindReplied:
			out.Replied = true
		case e.Kind == schemas.KindOptedOut:
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
		if e.Kind == schemas.KindSent && (out.SentAt.IsZero() || e.Time().Before(out.SentAt)) {
			out.SentAt = e.Time()
		}
		if p.Class() == schemas.ClassPositive && (out.DeliveredAt.IsZero() || e.Time().Before(out.DeliveredAt)) {
			out.DeliveredAt = e.Time()
		}
	}
	out.Attempts = len(tries)
	out.OrderTimes()
	return out, true
}

// Seqs returns the recipients that have events, in order.
func (m *Model) Seqs(tenant, campaign string) []uint32 {
	return slices.Sorted(maps.Keys(m.campaigns[place{tenant, campaign}]))
}

// History returns the events of a recipient.
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
	return m.where(tenant, since, func(e analytics.Event) bool { return e.CustomerRef == ref })
}

// ByNumber finds messages by their number.
func (m *Model) ByNumber(tenant string, numbers []string, since time.Time) []analytics.Referred {
	return m.where(tenant, since, func(e analytics.Event) bool { return slices.Contains(numbers, e.To) })
}

func (m *Model) where(tenant string, since time.Time, has func(analytics.Event) bool) []analytics.Referred {
	var out []analytics.Referred
	for at, recipients := range m.campaigns {
		if at.tenant != tenant || m.months[at].Before(analytics.MonthOf(since)) {
			continue
		}
		for seq, events := range recipients {
			if slices.ContainsFunc(events, has) {
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

// Cost sums the price of the billed hand-overs of a campaign. It judges each try of each recipient by its events.
func (m *Model) Cost(tenant, campaign string) []analytics.CostLine {
	lines := map[analytics.CostLine]analytics.CostLine{}
	for _, events := range m.campaigns[place{tenant, campaign}] {
		for _, message := range billed(events) {
			name := analytics.CostLine{
				Variant: message.Variant, Channel: message.Channel, Country: message.Country, Route: message.Route, Leg: message.Leg, Currency: message.Currency,
			}
			line, ok := lines[name]
			if !ok {
				line = name
			}
			segments := max(uint64(message.Segments), 1)
			line.Messages++
			line.Segments += segments
			line.Micros += segments * uint64(message.PriceMicros)
			lines[name] = line
		}
	}
	return slices.SortedFunc(maps.Values(lines), analytics.CostLine.Compare)
}

// billed returns one event for each billed try of a recipient: one that describes its message.
func billed(events []analytics.Event) []analytics.Event {
	messages, receipts := map[uint8]analytics.Event{}, map[uint8]schemas.Precedence{}
	doubtful := map[uint8]bool{}
	for _, e := range events {
		switch e.Kind {
		case schemas.KindSent:
			messages[e.Try] = e
			doubtful[e.Try] = false
		case schemas.KindAmbiguous:
			if _, ok := messages[e.Try]; !ok && e.DescribesMessage() {
				messages[e.Try], doubtful[e.Try] = e, true
			}
		case schemas.KindBuffered, schemas.KindBounced, schemas.KindUndelivered, schemas.KindDelivered, schemas.KindRead:
			receipts[e.Try] = max(receipts[e.Try], e.Precedence())
		default:
		}
	}
	var out []analytics.Event
	for try, message := range messages {
		p := receipts[try]
		info, known := schemas.LookupCode(p.Code())
		free := (p.Kind() == schemas.KindBounced || p.Kind() == schemas.KindUndelivered) && known && !info.Billed
		if !free && (!doubtful[try] || p != 0) {
			out = append(out, message)
		}
	}
	return out
}

// Timeline counts a campaign's events by period and kind.
func (m *Model) Timeline(tenant, campaign string, span analytics.Span) []analytics.Point {
	step := span.Seconds()
	sums := map[tick]uint64{}
	for k, n := range m.timeline[place{tenant, campaign}] {
		if !span.From.IsZero() && k.second < span.From.Unix() || !span.To.IsZero() && k.second >= span.To.Unix() {
			continue
		}
		if !span.ByRoute {
			k.route = ""
		}
		sums[tick{k.second / step * step, k.kind, k.route}] += n
	}
	var out []analytics.Point
	for k, n := range sums {
		out = append(out, analytics.Point{Time: time.Unix(k.second, 0).UTC(), Kind: k.kind, Route: k.route, N: n})
	}
	slices.SortFunc(out, func(a, b analytics.Point) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Route, b.Route))
	})
	return out
}

// Links counts the recipients who clicked each link of a campaign.
func (m *Model) Links(tenant, campaign string) []analytics.Link {
	sums := map[string]analytics.Link{}
	for _, events := range m.campaigns[place{tenant, campaign}] {
		people, bots := map[string]bool{}, map[string]bool{}
		for i := range events {
			switch p := events[i].Precedence(); {
			case p == analytics.FactClicked:
				people[events[i].LinkID] = true
			case events[i].Kind == schemas.KindClicked:
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
