package api

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/api/compliance"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/hours"
	"fanfare/sinks/analytics"
)

// zoneShare is so many recipients of the same time zones, which hours.Join has made a text of.
type zoneShare struct {
	zones string
	n     uint64
}

// finish forecasts when count messages of a campaign are handed over, from start on. shares are the same recipients by
// time zone, in order of zone; they count only where recipients have calling hours of their own. ok is false when no
// forecast is possible.
func (s *server) finish(ctx context.Context, who *principal, c *store.Campaign, start time.Time, count uint64, shares []zoneShare) (time.Time, bool) {
	return finishAtRate(c, s.rate(ctx, who, c), start, count, shares)
}

// finishAtRate is finish at so many messages per second. It reads nothing, so it may run within a transaction.
func finishAtRate(c *store.Campaign, rate float64, start time.Time, count uint64, shares []zoneShare) (time.Time, bool) {
	_, end, ok := spansAtRate(c, rate, start, count, shares)
	return end, ok
}

// spansAtRate is finishAtRate with the times in which it sends: one, or one of each batch that has recipients. When no
// forecast is possible, the last of them has no end.
func spansAtRate(c *store.Campaign, rate float64, start time.Time, count uint64, shares []zoneShare) (spans []compliance.Span, end time.Time, ok bool) {
	h := hours.Hours{}
	if c.CallingHours != nil {
		var err error
		if h, err = hours.New(int(c.CallingHours.Start), int(c.CallingHours.End), c.CallingHours.Zone); err != nil {
			return []compliance.Span{{From: start}}, time.Time{}, false
		}
		if !c.CallingHours.Recipients {
			shares = nil
		}
	}
	part := func(at time.Time, from, to uint64) (time.Time, bool) {
		if len(shares) == 0 || h.Always() {
			return finishOf(at, to-from, rate, h)
		}
		return finishOfZones(at, sharesWithin(shares, from, to), rate, h)
	}
	if len(c.Batches) == 0 || count > math.MaxUint32 {
		end, ok := part(start, 0, count)
		return []compliance.Span{{From: start, Until: end}}, end, ok
	}
	at, done := start, uint32(0)
	for i, end := range c.BatchEnds(uint32(count)) {
		if at.Before(c.Batches[i].At) {
			at = c.Batches[i].At
		}
		from := at
		if at, ok = part(from, uint64(done), uint64(end)); !ok {
			return append(spans, compliance.Span{From: from}), time.Time{}, false
		}
		if end > done {
			spans = append(spans, compliance.Span{From: from, Until: at})
		}
		done = end
	}
	return spans, at, true
}

// sharesWithin is the part of shares that holds the recipients [from, to) of all.
func sharesWithin(shares []zoneShare, from, to uint64) []zoneShare {
	var out []zoneShare
	at := uint64(0)
	for _, g := range shares {
		if n := min(at+g.n, to) - min(max(at, from), to); at+g.n > from && n > 0 {
			out = append(out, zoneShare{g.zones, n})
		}
		at += g.n
	}
	return out
}

// sharesOfCountries guesses the time zones of recipients before the audience is frozen, when only their country is
// known.
func (s *server) sharesOfCountries(tenant *store.Tenant, countries mix) []zoneShare {
	of := map[string]uint64{}
	for country, n := range countries {
		of[cmp.Or(hours.Join(s.Store.UsualZones(country)), tenant.Timezone)] += n
	}
	out := make([]zoneShare, 0, len(of))
	for _, zones := range sortedKeys(of) {
		out = append(out, zoneShare{zones, of[zones]})
	}
	return out
}

// sharesOfPending counts the recipients of a frozen audience who have no outcome, by time zone.
func (s *server) sharesOfPending(ctx context.Context, c *store.Campaign, stats *analytics.Stats) ([]zoneShare, error) {
	index, err := s.Store.Blobs(ctx, c.FreezeID)
	if err != nil {
		return nil, err
	}
	var ended []schemas.Precedence
	for _, n := range stats.Counts {
		if n.Precedence < schemas.PrecedenceFacts && n.Precedence.Bucket() != schemas.BucketPending {
			ended = append(ended, n.Precedence)
		}
	}
	decided := roaring.New()
	if len(ended) > 0 {
		if decided, err = s.Analytics.Select(ctx, c.Tenant, c.ID(), ended); err != nil {
			return nil, err
		}
	}
	var out []zoneShare
	for _, b := range index {
		first, end := uint64(b.First), uint64(b.First)+uint64(b.Count)
		n := end - first - min(decided.CardinalityInRange(first, end), end-first)
		if last := len(out) - 1; last >= 0 && out[last].zones == b.Zone {
			out[last].n += n
		} else {
			out = append(out, zoneShare{b.Zone, n})
		}
	}
	return out, nil
}

// neverOpen counts the recipients whose time zones share no minute of a campaign's calling hours.
func neverOpen(c *store.Campaign, shares []zoneShare, at time.Time) (n uint64) {
	if c.CallingHours == nil || !c.CallingHours.Recipients {
		return 0
	}
	h, err := hours.New(int(c.CallingHours.Start), int(c.CallingHours.End), c.CallingHours.Zone)
	if err != nil {
		return 0
	}
	for _, g := range shares {
		if h.On(g.zones).NextOpen(at).IsZero() {
			n += g.n
		}
	}
	return n
}

// callSeconds is how long a call takes, of which nothing is known before: ringing, and a recording of half a minute. A
// forecast of a voice campaign assumes it.
const callSeconds = 40

// rate is how many messages can be handed over each second: the lowest of the limits of route, tenant, sender and
// campaign, and for a voice campaign also the rate that its limit of simultaneous calls allows (R23). It is 0 if the
// route does not exist.
func (s *server) rate(ctx context.Context, who *principal, c *store.Campaign) float64 {
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
	rate := float64(slices.Min(limits))
	if c.Voice != nil && c.Voice.MaxConcurrent > 0 {
		rate = min(rate, float64(c.Voice.MaxConcurrent)/callSeconds)
	}
	return rate
}

// finishOf returns when count messages are handed over at rate per second within calling hours, beginning at start. ok
// is false when this takes more than a year, because such a forecast would be wrong.
func finishOf(start time.Time, count uint64, rate float64, h hours.Hours) (finish time.Time, ok bool) {
	if rate == 0 {
		return time.Time{}, false
	}
	left := time.Duration((float64(count) / rate) * float64(time.Second))
	if left > 366*24*time.Hour {
		return time.Time{}, false
	}
	if h.Always() {
		return start.Add(left), true
	}
	at, end := h.NextOpen(start), start.Add(366*24*time.Hour)
	for left > 0 {
		if at.After(end) {
			return time.Time{}, false
		}
		if !h.Open(at) {
			at = h.NextOpen(at)
			continue
		}
		// Calling hours begin and end on the minute
		step := min(left, at.Truncate(time.Minute).Add(time.Minute).Sub(at))
		at = at.Add(step)
		left -= step
	}
	return at, true
}

// zonedMost is the longest forecast where recipients have calling hours of their own; zonedStep bounds a step of it,
// because a clock may change.
const (
	zonedMost = 31 * 24 * time.Hour
	zonedStep = time.Hour
)

// zoneGroup are the recipients of the same zones while a forecast is made.
type zoneGroup struct {
	hours hours.Hours
	left  float64
	opens time.Time // when it opens next, as of the last time that it was closed
}

// finishOfZones is finishOf for recipients with calling hours of their own: as the scheduler does, it takes of the
// zones that are open the one that closes first. Recipients whose hours never open are not sent to and take no time.
func finishOfZones(start time.Time, shares []zoneShare, rate float64, h hours.Hours) (finish time.Time, ok bool) {
	if rate == 0 {
		return time.Time{}, false
	}
	var groups []*zoneGroup
	total := 0.0
	for _, g := range shares {
		if on := h.On(g.zones); g.n > 0 && !on.NextOpen(start).IsZero() {
			groups = append(groups, &zoneGroup{hours: on, left: float64(g.n)})
			total += float64(g.n)
		}
	}
	if total/rate > zonedMost.Seconds() {
		return time.Time{}, false
	}
	at := start
	for len(groups) > 0 {
		if at.Sub(start) > zonedMost {
			return time.Time{}, false
		}
		var first *zoneGroup // of those that are open, the one that closes first
		var closes time.Duration
		var opens time.Time // when the next of the others opens
		for _, g := range groups {
			if g.hours.Open(at) {
				if left := g.hours.Left(at); first == nil || left < closes {
					first, closes = g, left
				}
				continue
			}
			if !g.opens.After(at) {
				g.opens = g.hours.NextOpen(at)
			}
			if !g.opens.IsZero() && (opens.IsZero() || g.opens.Before(opens)) {
				opens = g.opens
			}
		}
		if first == nil {
			if opens.IsZero() { // a clock has changed, and no two agree any more
				return time.Time{}, false
			}
			at = opens
			continue
		}
		step := min(closes, zonedStep)
		if !opens.IsZero() {
			step = min(step, opens.Sub(at))
		}
		if needs := time.Duration(first.left / rate * float64(time.Second)); needs <= step {
			at = at.Add(needs)
			groups = slices.DeleteFunc(groups, func(g *zoneGroup) bool { return g == first })
			continue
		}
		first.left -= step.Seconds() * rate
		at = at.Add(step)
	}
	return at, true
}

// durationText formats a duration as E does ("15 minutes"): in its one or two largest units, rounded up.
func durationText(d time.Duration) string {
	secs := int64((d + time.Second - 1) / time.Second)
	unit := func(n int64, name string) string {
		if n == 1 {
			return "1 " + name
		}
		return fmt.Sprintf("%d %ss", n, name)
	}
	if secs < 60 {
		return unit(max(secs, 1), "second")
	}
	minutes := (secs + 59) / 60
	if minutes < 60 {
		return unit(minutes, "minute")
	}
	parts := []string{}
	if minutes < 24*60 {
		parts = append(parts, unit(minutes/60, "hour"))
		if m := minutes % 60; m > 0 {
			parts = append(parts, unit(m, "minute"))
		}
		return strings.Join(parts, " ")
	}
	hoursUp := (minutes + 59) / 60
	parts = append(parts, unit(hoursUp/24, "day"))
	if h := hoursUp % 24; h > 0 {
		parts = append(parts, unit(h, "hour"))
	}
	return strings.Join(parts, " ")
}
