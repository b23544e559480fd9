package clickhouse

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
)

// Stats counts one campaign.
func (s *Store) Stats(ctx context.Context, tenant, campaign string) (analytics.Stats, error) {
	at, err := s.AsOf(ctx)
	if err != nil {
		return analytics.Stats{}, err
	}
	all, err := s.stats(ctx, tenant, []string{campaign}, at)
	if out, ok := all[campaign]; ok || err != nil {
		return out, err
	}
	return analytics.Stats{AsOf: at}, nil
}

// Grid counts many campaigns.
func (s *Store) Grid(ctx context.Context, tenant string, campaigns []string) (map[string]analytics.Stats, error) {
	if len(campaigns) == 0 {
		return map[string]analytics.Stats{}, nil
	}
	at, err := s.AsOf(ctx)
	if err != nil {
		return nil, err
	}
	return s.stats(ctx, tenant, campaigns, at)
}

func (s *Store) stats(ctx context.Context, tenant string, campaigns []string, at time.Time) (map[string]analytics.Stats, error) {
	out := make(map[string]analytics.Stats, len(campaigns))
	args := []any{chgo.Named("tenant", tenant), chgo.Named("campaigns", campaigns)}
	err := s.rows(ctx, "statistics", queryStats, args, func(rows driver.Rows) error {
		var id string
		var p uint32
		var c analytics.Count
		if err := rows.Scan(&id, &p, &c.N, &c.Clickers); err != nil {
			return err
		}
		add(out, id, at, p, c)
		return nil
	})
	return out, err
}

// add adds a count to the statistics under a key; facts have no clickers.
func add(to map[string]analytics.Stats, key string, at time.Time, p uint32, c analytics.Count) {
	c.Precedence = schemas.Precedence(p)
	if c.Precedence >= schemas.PrecedenceFacts {
		c.Clickers = 0
	}
	have := to[key]
	have.AsOf = at
	if c.N > 0 {
		have.Counts = append(have.Counts, c)
	}
	to[key] = have
}

// dimensions are the expressions over send_sets.
var dimensions = map[analytics.Dimension]string{
	analytics.ByVariant: "toString(variant)",
	analytics.ByChannel: "toString(channel)",
	analytics.ByCountry: "toString(country)",
	analytics.ByRoute:   "toString(route)",
}

// StatsBy counts one campaign apart for each value of a dimension.
func (s *Store) StatsBy(ctx context.Context, tenant, campaign string, by analytics.Dimension) (map[string]analytics.Stats, error) {
	expression, ok := dimensions[by]
	if !ok {
		return nil, fmt.Errorf("no dimension %d", by)
	}
	at, err := s.AsOf(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]analytics.Stats{}
	err = s.rows(ctx, "statistics by dimension", fmt.Sprintf(queryStatsBy, expression), of(tenant, campaign), func(rows driver.Rows) error {
		var value string
		var p uint32
		var c analytics.Count
		if err := rows.Scan(&value, &p, &c.N, &c.Clickers); err != nil {
			return err
		}
		add(out, value, at, p, c)
		return nil
	})
	return out, err
}

// Select returns who is in one of the states or has one of the facts.
func (s *Store) Select(ctx context.Context, tenant, campaign string, precedences []schemas.Precedence) (*roaring.Bitmap, error) {
	precs := make([]uint32, len(precedences))
	for i, p := range precedences {
		precs[i] = uint32(p)
	}
	out := roaring.New()
	err := s.rows(ctx, "selection", querySelect, of(tenant, campaign, chgo.Named("precs", precs)), func(rows driver.Rows) error {
		var state string
		if err := rows.Scan(&state); err != nil {
			return err
		}
		return readState(state, out)
	})
	return out, err
}

var errState = errors.New("not the bytes of a set")

// readState reads the bytes of ClickHouse's groupBitmap state into an empty bitmap: 0, a count and that many numbers of four
// bytes, in no order; or 1, the length as a varint, and a portable Roaring bitmap.
func readState(state string, to *roaring.Bitmap) error {
	if len(state) < 2 {
		return errState
	}
	body := []byte(state[1:])
	switch state[0] {
	case 0:
		n := int(body[0])
		if len(body) != 1+4*n {
			return fmt.Errorf("%w: %d bytes for %d numbers", errState, len(body), n)
		}
		for i := range n {
			to.Add(binary.LittleEndian.Uint32(body[1+4*i:]))
		}
	case 1:
		n, used := binary.Uvarint(body)
		if used <= 0 || n != uint64(len(body)-used) {
			return fmt.Errorf("%w: %d bytes, want %d", errState, len(body)-used, n)
		}
		if err := to.UnmarshalBinary(body[used:]); err != nil {
			return fmt.Errorf("%w: %w", errState, err)
		}
	default:
		return fmt.Errorf("%w: of kind %d", errState, state[0])
	}
	return nil
}

// Cost sums what was handed over.
func (s *Store) Cost(ctx context.Context, tenant, campaign string) (out []analytics.CostLine, err error) {
	err = s.rows(ctx, "cost", queryCost, of(tenant, campaign), func(rows driver.Rows) error {
		var l analytics.CostLine
		var channel string
		if err := rows.Scan(&channel, &l.Country, &l.Currency, &l.Messages, &l.Segments, &l.Micros); err != nil {
			return err
		}
		l.Channel = parseChannel(channel)
		out = append(out, l)
		return nil
	})
	return out, err
}

// Timeline counts events by minute and kind.
func (s *Store) Timeline(ctx context.Context, tenant, campaign string) (out []analytics.Point, err error) {
	err = s.rows(ctx, "timeline", queryTimeline, of(tenant, campaign), func(rows driver.Rows) error {
		var p analytics.Point
		var kind int8
		if err := rows.Scan(&p.Minute, &kind, &p.N); err != nil {
			return err
		}
		p.Minute, p.Kind = p.Minute.UTC(), fanfarev1.Kind(kind)
		out = append(out, p)
		return nil
	})
	return out, err
}

// Links counts who clicked each link.
func (s *Store) Links(ctx context.Context, tenant, campaign string) (out []analytics.Link, err error) {
	err = s.rows(ctx, "links", queryLinks, of(tenant, campaign), func(rows driver.Rows) error {
		var l analytics.Link
		if err := rows.Scan(&l.ID, &l.Clickers, &l.Bots); err != nil {
			return err
		}
		out = append(out, l)
		return nil
	})
	return out, err
}

// Channels stand by name; a number that has none by its digits.

func channelName(n int32) string {
	if n == 0 {
		return ""
	}
	return schemas.ChannelName(fanfarev1.Channel(n))
}

func parseChannel(name string) fanfarev1.Channel {
	if c, ok := schemas.ParseChannel(name); ok {
		return c
	}
	var n int32
	if _, err := fmt.Sscanf(name, "%d", &n); err != nil {
		return fanfarev1.Channel_CHANNEL_UNSPECIFIED
	}
	return fanfarev1.Channel(n)
}

func codeName(n int32) string { return strings.Clone(schemas.CodeName(fanfarev1.Code(n))) }
