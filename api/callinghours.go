package api

import (
	"cmp"
	"time"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas/hours"
)

// applyHours reads the calling hours, which three or four fields make up (R30 to R32).
func (in *CampaignInput) applyHours(spec *store.Spec, tenant *store.Tenant, ps *problem.List) {
	patch := hoursPatch{in.CallingHoursStart, in.CallingHoursEnd, in.CallingHoursTimezone, in.Timezone, in.RecipientTimezone}
	next, found := patch.apply(spec.CallingHours, tenant.Timezone)
	if *ps = append(*ps, found...); len(found) == 0 {
		spec.CallingHours = next
	}
	if in.Timezone.Set {
		spec.Timezone = in.Timezone.Value
	}
}

// hoursPatch is a partial change of calling hours.
type hoursPatch struct {
	start, end, zone, fallbackZone problem.Optional[string]
	recipients                     problem.Optional[bool]
}

func (h hoursPatch) apply(now *store.Hours, tenantZone string) (*store.Hours, problem.List) {
	var ps problem.List
	if h.fallbackZone.Set && !h.fallbackZone.Null {
		if _, err := hours.Zone(h.fallbackZone.Value); err != nil {
			ps.Add(problem.CodeInvalid, "timezone", "%s.", err)
		}
	}
	if !h.start.Set && !h.end.Set && !h.zone.Set && (!h.recipients.Set || now == nil && !h.recipients.Value) {
		return now, ps
	}
	none := h.start.Null && h.end.Null || now == nil && !h.start.Set && !h.end.Set && !h.zone.Set
	if none && h.recipients.Value {
		ps.Add(problem.CodeRequired, "callingHoursStart", "recipientTimezone needs calling hours: it is them that are read on each recipient's clock.")
	}
	if none {
		return nil, ps
	}
	next := store.Hours{Zone: cmp.Or(h.fallbackZone.Value, tenantZone)}
	if now != nil {
		next = *now
	}
	clock := func(o problem.Optional[string], field string, dst *uint32) {
		if !o.Set {
			if now == nil {
				ps.Add(problem.CodeRequired, field, "Calling hours need both a start and an end.")
			}
			return
		}
		minute, err := hours.ParseClock(o.Value)
		if o.Null {
			ps.Add(problem.CodeRequired, field, "Calling hours need both a start and an end.")
		} else if err != nil {
			ps.Add(problem.CodeInvalid, field, "%s.", err)
		}
		*dst = uint32(minute)
	}
	clock(h.start, "callingHoursStart", &next.Start)
	clock(h.end, "callingHoursEnd", &next.End)
	if h.recipients.Set {
		next.Recipients = h.recipients.Value
	}
	if h.zone.Set {
		next.Zone = cmp.Or(h.zone.Value, h.fallbackZone.Value, tenantZone)
	}
	if _, err := hours.Zone(next.Zone); err != nil {
		ps.Add(problem.CodeInvalid, "callingHoursTimezone", "%s.", err)
	}
	return &next, ps
}

// widens reports whether next allows a minute of a day that before did not. The days compared are one in January and
// one in July, because zones may have summer time. Where the hours are on each recipient's own clock, only the clock
// times count.
func widens(before, next *store.Hours) bool {
	if before == nil {
		return false
	}
	if next == nil {
		return before.Start != before.End
	}
	if before.Recipients != next.Recipients {
		return true
	}
	zones := [2]string{before.Zone, next.Zone}
	if next.Recipients {
		zones = [2]string{"UTC", "UTC"}
	}
	was, err := hours.New(int(before.Start), int(before.End), zones[0])
	is, err2 := hours.New(int(next.Start), int(next.End), zones[1])
	if err != nil || err2 != nil {
		return true
	}
	for _, month := range []time.Month{time.January, time.July} {
		day := time.Date(2026, month, 15, 0, 0, 0, 0, time.UTC)
		for m := range 24 * 60 {
			at := day.Add(time.Duration(m) * time.Minute)
			if is.Open(at) && !was.Open(at) {
				return true
			}
		}
	}
	return false
}
