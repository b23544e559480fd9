package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
)

// Stats counts one campaign.
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

// Grid counts many campaigns.
func (s *Store) Grid(ctx context.Context, tenant string, campaigns []string) (map[string]analytics.Stats, error) {
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

// StatsBy counts one campaign apart for each value of a dimension.
func (s *Store) StatsBy(ctx context.Context, tenant, campaign string, by analytics.Dimension) (map[string]analytics.Stats, error) {
	at := instant(s.asOf.Load())
	c, err := s.campaign(ctx, tenant, campaign)
	if c == nil || err != nil {
		return nil, err
	}
	who := map[string]map[uint32]*roaring.Bitmap{}
	for key, set := range c.sets {
		if key.family != familySend {
			continue
		}
		value := key.value(by)
		if who[value] == nil {
			who[value] = map[uint32]*roaring.Bitmap{}
		}
		for _, p := range set.parts {
			if known := who[value][p.number]; known != nil {
				who[value][p.number] = roaring.Or(known, p.members)
			} else {
				who[value][p.number] = p.members
			}
		}
	}
	algebras := c.algebras()
	out := make(map[string]analytics.Stats, len(who))
	for value, parts := range who {
		var counts [][]analytics.Count
		for number, members := range parts {
			counts = append(counts, algebras[number].Within(members).Count())
		}
		out[value] = analytics.Stats{Counts: analytics.MergeCounts(counts...), AsOf: at}
	}
	return out, nil
}

func (k *setKey) value(by analytics.Dimension) string {
	switch by {
	case analytics.ByVariant:
		return strconv.Itoa(int(k.variant))
	case analytics.ByChannel:
		return schemas.ChannelName(k.channel)
	case analytics.ByCountry:
		return k.country
	default:
		return k.route
	}
}

// Select returns who is in one of the states or has one of the facts.
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

// Cost sums what was handed over.
func (s *Store) Cost(ctx context.Context, tenant, campaign string) ([]analytics.CostLine, error) {
	c, err := s.campaign(ctx, tenant, campaign)
	if c == nil || err != nil {
		return nil, err
	}
	type line struct {
		channel           fanfarev1.Channel
		country, currency string
	}
	type handover struct {
		line
		try, leg, segments uint8
		price              uint32
	}
	// Variants and routes do not make another hand-over of it.
	who := map[handover]map[uint32]*roaring.Bitmap{}
	for key, set := range c.sets {
		if key.family != familySend || !key.sent {
			continue
		}
		h := handover{line{key.channel, key.country, key.currency}, key.try, key.leg, key.segments, key.price}
		if who[h] == nil {
			who[h] = map[uint32]*roaring.Bitmap{}
		}
		for _, p := range set.parts {
			if known := who[h][p.number]; known != nil {
				who[h][p.number] = roaring.Or(known, p.members)
			} else {
				who[h][p.number] = p.members
			}
		}
	}
	sums := map[line]*analytics.CostLine{}
	for h, parts := range who {
		sum := sums[h.line]
		if sum == nil {
			sum = &analytics.CostLine{Channel: h.channel, Country: h.country, Currency: h.currency}
			sums[h.line] = sum
		}
		for _, members := range parts {
			n := members.GetCardinality()
			sum.Messages += n
			sum.Segments += n * uint64(h.segments)
			sum.Micros += n * uint64(h.segments) * uint64(h.price)
		}
	}
	out := make([]analytics.CostLine, 0, len(sums))
	for _, sum := range sums {
		out = append(out, *sum)
	}
	slices.SortFunc(out, func(a, b analytics.CostLine) int {
		return cmp.Or(cmp.Compare(schemas.ChannelName(a.Channel), schemas.ChannelName(b.Channel)), cmp.Compare(a.Country, b.Country), cmp.Compare(a.Currency, b.Currency))
	})
	return out, nil
}

// Links counts who clicked each link.
func (s *Store) Links(ctx context.Context, tenant, campaign string) ([]analytics.Link, error) {
	c, err := s.campaign(ctx, tenant, campaign)
	if c == nil || err != nil {
		return nil, err
	}
	links := map[string]*analytics.Link{}
	for key, set := range c.sets {
		if key.family != familyStatus || key.prec != analytics.FactClicked && key.prec != analytics.FactBotClicked {
			continue
		}
		l := links[key.link]
		if l == nil {
			l = &analytics.Link{ID: key.link}
			links[key.link] = l
		}
		for _, p := range set.parts {
			if key.prec == analytics.FactClicked {
				l.Clickers += p.members.GetCardinality()
			} else {
				l.Bots += p.members.GetCardinality()
			}
		}
	}
	out := make([]analytics.Link, 0, len(links))
	for _, id := range slices.Sorted(maps.Keys(links)) {
		out = append(out, *links[id])
	}
	return out, nil
}

// Timeline counts events by minute and kind.
func (s *Store) Timeline(ctx context.Context, tenant, campaign string) (out []analytics.Point, err error) {
	err = s.inView(ctx, tenant, campaign, func(v *sql.Tx, c *campaignSets) error {
		rows, err := v.QueryContext(ctx, "SELECT minute, kind, n FROM timeline WHERE campaign = ? ORDER BY minute, kind", c.id)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var minute int64
			var p analytics.Point
			if err := rows.Scan(&minute, &p.Kind, &p.N); err != nil {
				return err
			}
			p.Minute = time.UnixMilli(minute).UTC()
			out = append(out, p)
		}
		return rows.Err()
	})
	return out, err
}
