package clickhouse

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	"fanfare/schemas/billing"
	"fanfare/sinks/analytics"
)

// Stats counts the recipients of one campaign by state.
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

// StatsMany counts the recipients of several campaigns.
func (s *Store) StatsMany(ctx context.Context, tenant string, campaigns []string) (map[string]analytics.Stats, error) {
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

// add adds a count to the statistics under a key. Facts have no clickers.
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

// StatsBy counts one campaign separately for each value of the dimensions.
func (s *Store) StatsBy(ctx context.Context, tenant, campaign string, by ...analytics.Dimension) (map[analytics.Dimension]map[string]analytics.Stats, error) {
	out := map[analytics.Dimension]map[string]analytics.Stats{}
	if len(by) == 0 {
		return out, nil
	}
	at, err := s.AsOf(ctx)
	if err != nil {
		return nil, err
	}
	dims := make([]int, len(by)) // an array of bytes would be sent as a string
	for i, d := range by {
		dims[i] = int(d)
	}
	err = s.rows(ctx, "statistics by dimension", queryStatsBy, of(tenant, campaign, chgo.Named("dims", dims)), func(rows driver.Rows) error {
		var dim uint8
		var value string
		var p uint32
		var c analytics.Count
		if err := rows.Scan(&dim, &value, &p, &c.N, &c.Clickers); err != nil {
			return err
		}
		d := analytics.Dimension(dim)
		if out[d] == nil {
			out[d] = map[string]analytics.Stats{}
		}
		add(out[d], value, at, p, c)
		return nil
	})
	return out, err
}

// Select returns the recipients that are in one of the states or have one of the facts.
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

// Sets returns the sets of one campaign.
func (s *Store) Sets(ctx context.Context, tenant, campaign string) (*analytics.Sets, error) {
	out := &analytics.Sets{}
	err := s.rows(ctx, "sets of statuses", queryStatusSets, of(tenant, campaign), func(rows driver.Rows) error {
		set := analytics.StatusSet{Members: roaring.New()}
		var p uint32
		var state string
		if err := rows.Scan(&p, &set.Try, &set.LinkID, &state); err != nil {
			return err
		}
		set.Precedence = schemas.Precedence(p)
		out.Statuses = append(out.Statuses, set)
		return readState(state, set.Members)
	})
	if err != nil {
		return nil, err
	}
	err = s.rows(ctx, "sets of messages", queryMessageSets, of(tenant, campaign), func(rows driver.Rows) error {
		set := analytics.MessageSet{Members: roaring.New()}
		var kind int8
		var channel, state string
		if err := rows.Scan(&kind, &set.Variant, &channel, &set.Country, &set.Route, &set.Try, &set.Leg, &set.Segments, &set.PriceMicros, &set.Currency, &state); err != nil {
			return err
		}
		set.Kind, set.Channel = schemas.Kind(kind), parseChannel(channel)
		out.Messages = append(out.Messages, set)
		return readState(state, set.Members)
	})
	return out, err
}

// Happened returns the recipients with an event of a kind within a time.
func (s *Store) Happened(ctx context.Context, tenant, campaign string, kind schemas.Kind, from, to int64) (*roaring.Bitmap, error) {
	out := roaring.New()
	args := of(tenant, campaign, chgo.Named("kind", int32(kind)), chgo.Named("from", from), chgo.Named("to", to))
	err := s.rows(ctx, "recipients by time", queryHappened, args, func(rows driver.Rows) error {
		var state string
		if err := rows.Scan(&state); err != nil {
			return err
		}
		return readState(state, out)
	})
	return out, err
}

var errState = errors.New("bytes are not a groupBitmap state")

// readState decodes a groupBitmap state into an empty bitmap. A state is either the byte 0, a count, and that many
// unordered UInt32; or the byte 1, the length as a varint, and a portable Roaring bitmap.
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
		return fmt.Errorf("%w: first byte is %d", errState, state[0])
	}
	return nil
}

// Cost sums the price of the hand-overs that are billed.
func (s *Store) Cost(ctx context.Context, tenant string, campaigns ...string) (map[string][]analytics.CostLine, error) {
	out := make(map[string][]analytics.CostLine, len(campaigns))
	if len(campaigns) == 0 {
		return out, nil
	}
	free := []uint32{}
	for _, code := range billing.FreeCodes() {
		free = append(free, uint32(code))
	}
	args := []any{chgo.Named("tenant", tenant), chgo.Named("campaigns", campaigns), chgo.Named("free", free)}
	err := s.rows(ctx, "cost", queryCost, args, func(rows driver.Rows) error {
		var l analytics.CostLine
		var id, channel string
		if err := rows.Scan(&id, &l.Variant, &channel, &l.Country, &l.Route, &l.Leg, &l.Currency, &l.Messages, &l.Segments, &l.Micros); err != nil {
			return err
		}
		l.Channel = parseChannel(channel)
		out[id] = append(out[id], l)
		return nil
	})
	for _, lines := range out {
		slices.SortFunc(lines, analytics.CostLine.Compare)
	}
	return out, err
}

// InFlight returns how many recipients are dealt at a try and have no event of that try.
func (s *Store) InFlight(ctx context.Context, tenant string, campaigns ...string) (map[string]uint64, error) {
	out := map[string]uint64{}
	if len(campaigns) == 0 {
		return out, nil
	}
	args := []any{chgo.Named("tenant", tenant), chgo.Named("campaigns", campaigns)}
	err := s.rows(ctx, "recipients in flight", queryInFlight, args, func(rows driver.Rows) error {
		var id string
		var n uint64
		err := rows.Scan(&id, &n)
		out[id] = n
		return err
	})
	return out, err
}

// Deals returns the deals of one recipient.
func (s *Store) Deals(ctx context.Context, tenant, campaign string, seq uint32) (out []analytics.Deal, err error) {
	c := &analytics.Campaign{Tenant: tenant, ID: campaign}
	err = s.rows(ctx, "deals", queryDeals, of(tenant, campaign, chgo.Named("seq", seq)), func(rows driver.Rows) error {
		d := analytics.Deal{Campaign: c}
		var at time.Time
		var cancel uint8
		err := rows.Scan(&c.Month, &d.Number, &at, &d.Try, &d.Leg, &cancel)
		c.Month, d.TimeMS, d.Cancel = c.Month.UTC(), at.UnixMilli(), cancel != 0
		out = append(out, d)
		return err
	})
	return out, err
}

// Timeline counts events by period and kind.
func (s *Store) Timeline(ctx context.Context, tenant, campaign string, span analytics.Span) (out []analytics.Point, err error) {
	from, to := int64(0), int64(math.MaxInt64)
	if !span.From.IsZero() {
		from = span.From.Unix()
	}
	if !span.To.IsZero() {
		to = span.To.Unix()
	}
	args := of(tenant, campaign, chgo.Named("step", span.Seconds()), chgo.Named("by_route", span.ByRoute), chgo.Named("from", from), chgo.Named("to", to))
	err = s.rows(ctx, "timeline", queryTimeline, args, func(rows driver.Rows) error {
		var p analytics.Point
		var kind int8
		if err := rows.Scan(&p.Time, &kind, &p.Route, &p.N); err != nil {
			return err
		}
		p.Time, p.Kind = p.Time.UTC(), schemas.Kind(kind)
		out = append(out, p)
		return nil
	})
	return out, err
}

// Links counts the recipients who clicked each link.
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

// The tables store a channel's name, or the digits of a number without a name.

func channelName(n int32) string {
	if n == 0 {
		return ""
	}
	return schemas.ChannelName(schemas.Channel(n))
}

func parseChannel(name string) schemas.Channel {
	if c, ok := schemas.ParseChannel(name); ok {
		return c
	}
	var n int32
	if _, err := fmt.Sscanf(name, "%d", &n); err != nil {
		return schemas.ChannelUnspecified
	}
	return schemas.Channel(n)
}

func codeName(n int32) string { return strings.Clone(schemas.CodeName(schemas.Code(n))) }
