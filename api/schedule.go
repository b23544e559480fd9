package api

import (
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas/hours"
)

// When is a time in a body (C15, R28): an instant in RFC 3339 with an offset, or a local time as {"local":
// "2025-04-15T09:00", "timezone": "Europe/Rome"} or {"year": 2025, "month": 4, "day": 15, "hour": 9, "minute": 0}. A
// local time without a timezone is in the tenant's zone. A text without an offset is ambiguous and refused.
type When struct {
	store.Schedule
	floating time.Time // a local time without a zone
}

// in returns the time. zone is the zone of a local time that names none.
func (w *When) in(zone string) store.Schedule {
	if w.floating.IsZero() {
		return w.Schedule
	}
	loc, err := hours.Zone(zone)
	if err != nil {
		loc, zone = time.UTC, "UTC" // never: the tenant's zone was checked when it was set
	}
	return store.Schedule{At: onClock(w.floating, loc).UTC(), Zone: zone, Wall: w.floating.Format(wallFormat)}
}

const wallFormat = "2006-01-02T15:04"

// UnmarshalJSONFrom reads either form.
func (w *When) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	switch d.PeekKind() {
	case '"':
		var s string
		if err := json.UnmarshalDecode(d, &s); err != nil {
			return err
		}
		t, zone, err := hours.ParseInstant(s)
		if err != nil {
			return problem.Field(problem.CodeInvalid, "", "%s.", problem.Truncate(err.Error(), 120)).
				WithFix(`Send RFC 3339 with an offset, such as "2025-04-15T09:00:00Z", or {"local": "2025-04-15T09:00", "timezone": "Europe/Rome"}.`)
		}
		w.Schedule = store.Schedule{At: t.UTC()}
		if loc, err := hours.Zone(zone); err == nil {
			w.Zone, w.Wall = zone, t.In(loc).Format(wallFormat)
		}
		return nil
	case '{':
		var in struct {
			Local    string `json:"local"`
			Timezone string `json:"timezone"`
			Year     *int   `json:"year"`
			Month    *int   `json:"month"`
			Day      *int   `json:"day"`
			Hour     *int   `json:"hour"`
			Minute   *int   `json:"minute"`
		}
		if err := json.UnmarshalDecode(d, &in); err != nil {
			return err
		}
		var wall time.Time
		parts := []*int{in.Year, in.Month, in.Day, in.Hour, in.Minute}
		switch given := slices.ContainsFunc(parts, func(p *int) bool { return p != nil }); {
		case given && in.Local != "":
			return problem.Field(problem.CodeInvalid, "", "has local and year: send one of them.")
		case given:
			if slices.Contains(parts, nil) {
				return problem.Field(problem.CodeInvalid, "", "needs year, month, day, hour and minute.")
			}
			wall = time.Date(*in.Year, time.Month(*in.Month), *in.Day, *in.Hour, *in.Minute, 0, 0, time.UTC)
			if wall.Year() != *in.Year || int(wall.Month()) != *in.Month || wall.Day() != *in.Day || wall.Hour() != *in.Hour || wall.Minute() != *in.Minute {
				return problem.Field(problem.CodeInvalid, "", "is not a date: %d-%02d-%02d %02d:%02d.", *in.Year, *in.Month, *in.Day, *in.Hour, *in.Minute)
			}
		default:
			var err error
			if wall, err = hours.ParseWall(in.Local); err != nil {
				return problem.Field(problem.CodeInvalid, "", "%s.", problem.Truncate(err.Error(), 120))
			}
		}
		if in.Timezone == "" {
			w.Schedule, w.floating = store.Schedule{At: wall}, wall
			return nil
		}
		loc, err := hours.Zone(in.Timezone)
		if err != nil {
			return problem.Field(problem.CodeInvalid, "", "%s.", err)
		}
		w.Schedule = store.Schedule{At: onClock(wall, loc).UTC(), Zone: in.Timezone, Wall: wall.Format(wallFormat)}
		return nil
	}
	return problem.Field(problem.CodeInvalid, "", "is %s; want a time.", problem.KindName(d.PeekKind()))
}

// MarshalJSONTo writes the instant, in UTC.
func (w When) MarshalJSONTo(e *jsontext.Encoder) error {
	return e.WriteToken(jsontext.String(stamp(w.At)))
}

// Schema documents both forms.
func (When) Schema(huma.Registry) *huma.Schema {
	of := func(kind, description string) *huma.Schema { return &huma.Schema{Type: kind, Description: description} }
	zone := of(huma.TypeString, "IANA name of the time zone, such as Europe/Rome; default: the tenant's.")
	return &huma.Schema{
		OneOf: []*huma.Schema{
			{Type: huma.TypeString, Format: "date-time"},
			{Type: huma.TypeObject, Properties: map[string]*huma.Schema{
				"local": of(huma.TypeString, "Date and time on the clock of the zone, such as 2025-04-15T09:00."), "timezone": zone,
			}, Required: []string{"local"}},
			{Type: huma.TypeObject, Properties: map[string]*huma.Schema{
				"year": of(huma.TypeInteger, "With four digits."), "month": of(huma.TypeInteger, "1 to 12."),
				"day": of(huma.TypeInteger, "Day of the month, from 1."), "hour": of(huma.TypeInteger, "0 to 23."), "minute": of(huma.TypeInteger, "0 to 59."),
				"timezone": zone,
			}, Required: []string{"year", "month", "day", "hour", "minute"}},
		},
		Description: "RFC 3339 with an offset, or a local time with its IANA time zone; default zone: the tenant's.", Examples: []any{"2025-04-15T09:00:00Z"},
	}
}

// onClock returns the instant of a local time in loc. When clocks go back and the local time occurs twice, it returns
// the first instant; when clocks go forward and it does not occur, the first instant after the gap.
func onClock(wall time.Time, loc *time.Location) time.Time {
	shown := func(t time.Time) time.Time {
		l := t.In(loc)
		return time.Date(l.Year(), l.Month(), l.Day(), l.Hour(), l.Minute(), l.Second(), 0, time.UTC)
	}
	// Zones are at most 14 h from UTC, and clocks never went forward or back by more than a day.
	at := wall.Add(-16 * time.Hour).Truncate(time.Minute).Add(time.Duration(wall.Second()) * time.Second)
	for shown(at).Before(wall) {
		at = at.Add(time.Minute) // at most 2,000 steps; larger ones could jump over a gap
	}
	return at
}

// stamp writes a time in UTC, to the second, or to the millisecond when it has a fraction.
func stamp(t time.Time) string {
	t = t.UTC()
	if t.Nanosecond() < int(time.Millisecond) {
		return t.Format("2006-01-02T15:04:05Z")
	}
	return t.Format("2006-01-02T15:04:05.000Z")
}

// stampOrNull returns nil for the zero time.
func stampOrNull(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := stamp(t)
	return &s
}
