package api

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"fanfare/api/store"
	"fanfare/schemas/hours"
)

// finish forecasts when count messages of a campaign will be handed over if it begins at start. ok is false when no
// forecast is possible.
func (s *server) finish(ctx context.Context, who *principal, c *store.Campaign, start time.Time, count uint64) (time.Time, bool) {
	rate := s.rate(ctx, who, c)
	h := hours.Hours{}
	if c.CallingHours != nil {
		var err error
		if h, err = hours.New(int(c.CallingHours.Start), int(c.CallingHours.End), c.CallingHours.Zone); err != nil {
			return time.Time{}, false
		}
	}
	if len(c.Batches) == 0 || count > math.MaxUint32 {
		return finishOf(start, count, rate, h)
	}
	at, done := start, uint32(0)
	for i, end := range c.BatchEnds(uint32(count)) {
		if at.Before(c.Batches[i].At) {
			at = c.Batches[i].At
		}
		var ok bool
		if at, ok = finishOf(at, uint64(end-done), rate, h); !ok {
			return time.Time{}, false
		}
		done = end
	}
	return at, true
}

// rate is the lowest of the limits of route, tenant, sender and campaign; 0 when the route does not exist.
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

// finishOf returns when count messages are handed over at rate per second within calling hours, beginning at start. ok
// is false when this takes more than a year, because such a forecast would be wrong.
func finishOf(start time.Time, count uint64, rate uint32, h hours.Hours) (finish time.Time, ok bool) {
	if rate == 0 {
		return time.Time{}, false
	}
	left := time.Duration((float64(count) / float64(rate)) * float64(time.Second))
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
		step := min(left, at.Truncate(time.Minute).Add(time.Minute).Sub(at)) // calling hours begin and end on the minute
		at = at.Add(step)
		left -= step
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
