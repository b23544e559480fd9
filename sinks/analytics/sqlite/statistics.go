package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	"fanfare/schemas/billing"
	"fanfare/sinks/analytics"
)

// Stats counts the recipients of one campaign by state.
func (s *Store) Stats(ctx context.Context, tenant, campaign string) (analytics.Stats, error) {
	out := analytics.Stats{AsOf: instant(s.asOf.Load())}
	c, err := s.campaign(ctx, tenant, campaign)
	if c == nil || err != nil {
		return out, err
	}
	out.Counts = c.counts()
	return out, nil
}

func (c *campaignSets) counts() []analytics.Count {
	var counts [][]analytics.Count
	for _, a := range c.algebras() {
		counts = append(counts, a.Count())
	}
	return analytics.MergeCounts(counts...)
}

// StatsMany counts the recipients of several campaigns.
func (s *Store) StatsMany(ctx context.Context, tenant string, campaigns []string) (map[string]analytics.Stats, error) {
	out := make(map[string]analytics.Stats, len(campaigns))
	for _, id := range campaigns {
		stats, err := s.Stats(ctx, tenant, id)
		if err != nil {
			return nil, err
		}
		if len(stats.Counts) > 0 {
			out[id] = stats
		}
	}
	return out, nil
}

// StatsBy counts one campaign separately for each value of the dimensions.
func (s *Store) StatsBy(ctx context.Context, tenant, campaign string, by ...analytics.Dimension) (map[analytics.Dimension]map[string]analytics.Stats, error) {
	at := instant(s.asOf.Load())
	c, err := s.campaign(ctx, tenant, campaign)
	if c == nil || err != nil {
		return nil, err
	}
	disjoint := map[uint32]analytics.Algebra{}
	for number, a := range c.algebras() {
		disjoint[number] = a.Disjoint()
	}
	out := make(map[analytics.Dimension]map[string]analytics.Stats, len(by))
	for _, dimension := range by {
		values := map[string]analytics.Stats{}
		for value, parts := range c.members(dimension) {
			var counts [][]analytics.Count
			for number, members := range parts {
				counts = append(counts, disjoint[number].CountWithin(members))
			}
			values[value] = analytics.Stats{Counts: analytics.MergeCounts(counts...), AsOf: at}
		}
		if len(values) > 0 {
			out[dimension] = values
		}
	}
	return out, nil
}

// members returns the recipients of each value of a dimension, by part.
func (c *campaignSets) members(by analytics.Dimension) map[string]map[uint32]*roaring.Bitmap {
	out := map[string]map[uint32]*roaring.Bitmap{}
	for key, set := range c.sets {
		if key.family != familyMessage {
			continue
		}
		value := key.value(by)
		if out[value] == nil {
			out[value] = map[uint32]*roaring.Bitmap{}
		}
		for _, p := range set.parts {
			if known := out[value][p.number]; known != nil {
				out[value][p.number] = roaring.Or(known, p.members)
			} else {
				out[value][p.number] = p.members
			}
		}
	}
	return out
}

func (k *setKey) value(by analytics.Dimension) string {
	return by.Value(&analytics.Event{Variant: k.variant, Channel: k.channel, Country: k.country, Route: k.route, Leg: k.leg})
}

// Select returns the recipients that are in one of the states or have one of the facts.
func (s *Store) Select(ctx context.Context, tenant, campaign string, precedences []schemas.Precedence) (*roaring.Bitmap, error) {
	out := roaring.New()
	c, err := s.campaign(ctx, tenant, campaign)
	if c == nil || err != nil {
		return out, err
	}
	algebras := c.algebras()
	for _, number := range slices.Sorted(maps.Keys(algebras)) {
		out.Or(algebras[number].Select(precedences))
	}
	return out, nil
}

// Sets returns the sets of one campaign.
func (s *Store) Sets(ctx context.Context, tenant, campaign string) (*analytics.Sets, error) {
	out := &analytics.Sets{}
	c, err := s.campaign(ctx, tenant, campaign)
	if c == nil || err != nil {
		return out, err
	}
	for key, set := range c.sets {
		switch key.family {
		case familyStatus:
			out.Statuses = append(out.Statuses, analytics.StatusSet{Precedence: key.prec, Try: key.try, LinkID: key.link, Members: set.members()})
		case familyMessage:
			out.Messages = append(out.Messages, analytics.MessageSet{
				Kind: key.kind, Variant: key.variant, Channel: key.channel, Country: key.country, Route: key.route, Try: key.try, Leg: key.leg,
				Segments: key.segments, PriceMicros: key.price, Currency: key.currency, Members: set.members(),
			})
		}
	}
	return out, nil
}

// members returns the members of all parts.
func (s *set) members() *roaring.Bitmap {
	if len(s.parts) == 1 {
		return s.parts[0].members
	}
	out := roaring.New()
	for _, p := range s.parts {
		out.Or(p.members)
	}
	return out
}

// Happened returns the recipients with an event of a kind within a time.
func (s *Store) Happened(ctx context.Context, tenant, campaign string, kind schemas.Kind, from, to int64) (*roaring.Bitmap, error) {
	out := roaring.New()
	everybody := func(uint32) bool { return true }
	err := s.inView(ctx, tenant, campaign, func(v *sql.Tx, c *campaignSets) error {
		rows, err := v.QueryContext(ctx, "SELECT who, rest FROM runs WHERE campaign = ?", c.id)
		if err != nil {
			return err
		}
		defer rows.Close()
		public := c.public()
		for rows.Next() {
			var who, rest sql.RawBytes
			if err := rows.Scan(&who, &rest); err != nil {
				return err
			}
			err := readRun(who, rest, public, c.number, everybody, func(e *analytics.Event) {
				if e.Kind == kind && e.TimeMS >= from && e.TimeMS < to && !analytics.NoPerson(e.Precedence()) {
					out.Add(e.Seq)
				}
			})
			if err != nil {
				return err
			}
		}
		return rows.Err()
	})
	return out, err
}

// Cost sums the price of the hand-overs that are billed.
func (s *Store) Cost(ctx context.Context, tenant string, campaigns ...string) (map[string][]analytics.CostLine, error) {
	out := make(map[string][]analytics.CostLine, len(campaigns))
	for _, id := range campaigns {
		c, err := s.campaign(ctx, tenant, id)
		if err != nil {
			return nil, err
		}
		if c == nil {
			continue
		}
		if lines := c.cost(); len(lines) > 0 {
			out[id] = lines
		}
	}
	return out, nil
}

// tryPart names a try within a part of the audience.
type tryPart struct {
	try    uint8
	number uint32
}

// verdicts judges the receipts of each try in each part of the audience.
func (c *campaignSets) verdicts() map[tryPart]billing.Verdict {
	receipts := map[tryPart]billing.Receipts{}
	for key, set := range c.sets {
		if key.family != familyStatus || !billing.IsReceipt(key.prec) {
			continue
		}
		for _, p := range set.parts {
			at := tryPart{key.try, p.number}
			if receipts[at] == nil {
				receipts[at] = billing.Receipts{}
			}
			receipts[at][key.prec] = p.members
		}
	}
	out := make(map[tryPart]billing.Verdict, len(receipts))
	for at, r := range receipts {
		out[at] = r.Verdict()
	}
	return out
}

func (c *campaignSets) cost() []analytics.CostLine {
	// The sets of recipients that were handed over and of those in doubt, for each message.
	type pair struct{ sent, doubt *roaring.Bitmap }
	messages := map[setKey]map[uint32]pair{}
	for key, set := range c.sets {
		if key.family != familyMessage || key.kind != schemas.KindSent && key.kind != schemas.KindAmbiguous {
			continue
		}
		message := key
		message.kind = schemas.KindUnspecified
		if messages[message] == nil {
			messages[message] = map[uint32]pair{}
		}
		for _, p := range set.parts {
			both := messages[message][p.number]
			if key.kind == schemas.KindSent {
				both.sent = p.members
			} else {
				both.doubt = p.members
			}
			messages[message][p.number] = both
		}
	}
	verdicts := c.verdicts()
	none := billing.Receipts{}.Verdict()
	lines := map[analytics.CostLine]*analytics.CostLine{}
	for key, parts := range messages {
		for number, both := range parts {
			verdict, ok := verdicts[tryPart{key.try, number}]
			if !ok {
				verdict = none
			}
			n := verdict.Billed(both.sent, both.doubt).GetCardinality()
			if n == 0 {
				continue
			}
			name := analytics.CostLine{Variant: key.variant, Channel: key.channel, Country: key.country, Route: key.route, Leg: key.leg, Currency: key.currency}
			line := lines[name]
			if line == nil {
				line = &name
				lines[name] = line
			}
			line.Messages += n
			line.Segments += n * max(uint64(key.segments), 1)
			line.Micros += n * billing.Amount(uint64(key.segments), uint64(key.price))
		}
	}
	out := make([]analytics.CostLine, 0, len(lines))
	for _, line := range lines {
		out = append(out, *line)
	}
	slices.SortFunc(out, analytics.CostLine.Compare)
	return out
}

// Links counts the recipients who clicked each link.
func (s *Store) Links(ctx context.Context, tenant, campaign string) ([]analytics.Link, error) {
	c, err := s.campaign(ctx, tenant, campaign)
	if c == nil || err != nil {
		return nil, err
	}
	links := map[string]*analytics.Link{}
	bots := map[string]*roaring.Bitmap{} // a recipient may be in several classes
	for key, set := range c.sets {
		if key.family != familyStatus || key.prec != analytics.FactClicked && !analytics.NoPerson(key.prec) {
			continue
		}
		l := links[key.link]
		if l == nil {
			l = &analytics.Link{ID: key.link}
			links[key.link], bots[key.link] = l, roaring.New()
		}
		for _, p := range set.parts {
			if key.prec == analytics.FactClicked {
				l.Clickers += p.members.GetCardinality()
			} else {
				bots[key.link].Or(p.members)
			}
		}
	}
	out := make([]analytics.Link, 0, len(links))
	for _, id := range slices.Sorted(maps.Keys(links)) {
		links[id].Bots = bots[id].GetCardinality()
		out = append(out, *links[id])
	}
	return out, nil
}

// InFlight returns how many recipients were dealt at a try and have no event of that try.
func (s *Store) InFlight(ctx context.Context, tenant string, campaigns ...string) (map[string]uint64, error) {
	out := map[string]uint64{}
	for _, id := range campaigns {
		c, err := s.campaign(ctx, tenant, id)
		if err != nil {
			return nil, err
		}
		if c == nil {
			continue
		}
		if n := c.inFlight(); n > 0 {
			out[id] = n
		}
	}
	return out, nil
}

func (c *campaignSets) inFlight() uint64 {
	dealt, answered := map[tryPart]*roaring.Bitmap{}, map[tryPart]*roaring.Bitmap{}
	for key, set := range c.sets {
		var to map[tryPart]*roaring.Bitmap
		switch {
		case key.family == familyDealt:
			to = dealt
		case key.family == familyStatus && key.prec < schemas.PrecedenceFacts:
			to = answered
		default:
			continue
		}
		for _, p := range set.parts {
			at := tryPart{key.try, p.number}
			if to[at] == nil {
				to[at] = roaring.New()
			}
			to[at].Or(p.members)
		}
	}
	// A recipient is in flight only at its last try. If logs contradict each other, several tries may be in flight:
	// count the recipient once.
	flying := map[uint32]*roaring.Bitmap{}
	for at, members := range dealt {
		if known := answered[at]; known != nil {
			members.AndNot(known)
		}
		if flying[at.number] == nil {
			flying[at.number] = members
		} else {
			flying[at.number].Or(members)
		}
	}
	var n uint64
	for _, members := range flying {
		n += members.GetCardinality()
	}
	return n
}

// Deals returns the deals of one recipient.
func (s *Store) Deals(ctx context.Context, tenant, campaign string, seq uint32) (out []analytics.Deal, err error) {
	err = s.inView(ctx, tenant, campaign, func(v *sql.Tx, c *campaignSets) error {
		rows, err := v.QueryContext(ctx, "SELECT deal, dealt_ms, try, leg, cancel, members FROM deals WHERE campaign = ? ORDER BY dealt_ms, deal", c.id)
		if err != nil {
			return err
		}
		defer rows.Close()
		public := c.public()
		for rows.Next() {
			d := analytics.Deal{Campaign: public}
			var blob sql.RawBytes
			if err := rows.Scan(&d.Number, &d.TimeMS, &d.Try, &d.Leg, &d.Cancel, &blob); err != nil {
				return err
			}
			members := roaring.New()
			if err := members.UnmarshalBinary(blob); err != nil {
				return fmt.Errorf("deal %d: %w", d.Number, err)
			}
			if members.Contains(seq) {
				out = append(out, d)
			}
		}
		return rows.Err()
	})
	return out, err
}

// Timeline counts events by period and kind.
func (s *Store) Timeline(ctx context.Context, tenant, campaign string, span analytics.Span) (out []analytics.Point, err error) {
	step := span.Seconds()
	from, to := int64(0), int64(math.MaxInt64)
	if !span.From.IsZero() {
		from = span.From.Unix()
	}
	if !span.To.IsZero() {
		to = span.To.Unix()
	}
	err = s.inView(ctx, tenant, campaign, func(v *sql.Tx, c *campaignSets) error {
		rows, err := v.QueryContext(ctx, `SELECT second - second % ? AS period, kind, iif(?, route, '') AS of, sum(n) FROM timeline
			WHERE campaign = ? AND second >= ? AND second < ? GROUP BY period, kind, of ORDER BY period, kind, of`, step, span.ByRoute, c.id, from, to)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var second int64
			var p analytics.Point
			if err := rows.Scan(&second, &p.Kind, &p.Route, &p.N); err != nil {
				return err
			}
			p.Time = time.Unix(second, 0).UTC()
			out = append(out, p)
		}
		return rows.Err()
	})
	return out, err
}
