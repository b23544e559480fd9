package api

import (
	"fmt"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"fanfare/api/store"
	"fanfare/schemas/hours"
)

// When is a time as a client gives it (C15): an instant in RFC 3339 with an offset, or a wall clock and its zone as
// {"local": "2025-04-15T09:00", "timezone": "Europe/Rome"}. A time that names neither offset nor zone means nothing and is refused.
type When struct{ store.Schedule }

const wallFormat = "2006-01-02T15:04"

// UnmarshalJSONFrom reads either form.
func (w *When) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	switch d.PeekKind() {
	case '"':
		var s string
		if err := json.UnmarshalDecode(d, &s); err != nil {
			return err
		}
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			p := fieldProblem(CodeInvalid, "", "%q is not a time.", truncate(s, 40))
			if _, naive := parseWall(s); naive {
				p = fieldProblem(CodeInvalid, "", "%q says neither offset nor time zone.", s)
			}
			return p.fixed(`Send RFC 3339 with an offset, such as "2025-04-15T09:00:00Z", or {"local": "2025-04-15T09:00", "timezone": "Europe/Rome"}.`)
		}
		w.Schedule = store.Schedule{At: t.UTC()}
		return nil
	case '{':
		var in struct {
			Local    string `json:"local"`
			Timezone string `json:"timezone"`
		}
		if err := json.UnmarshalDecode(d, &in); err != nil {
			return err
		}
		loc, err := hours.Zone(in.Timezone)
		if err != nil {
			return fieldProblem(CodeInvalid, "", "%s.", err)
		}
		wall, ok := parseWall(in.Local)
		if !ok {
			return fieldProblem(CodeInvalid, "", "%q is not a time of a clock: want 2025-04-15T09:00.", truncate(in.Local, 40))
		}
		w.Schedule = store.Schedule{At: onClock(wall, loc).UTC(), Zone: in.Timezone, Wall: wall.Format(wallFormat)}
		return nil
	}
	return fieldProblem(CodeInvalid, "", "is %s; a time is wanted.", article(kindName(d.PeekKind())))
}

// MarshalJSONTo writes the instant, in UTC.
func (w When) MarshalJSONTo(e *jsontext.Encoder) error {
	return e.WriteToken(jsontext.String(stamp(w.At)))
}

// Schema documents both forms.
func (When) Schema(huma.Registry) *huma.Schema {
	str := &huma.Schema{Type: huma.TypeString}
	return &huma.Schema{
		OneOf: []*huma.Schema{
			{Type: huma.TypeString, Format: "date-time"},
			{Type: huma.TypeObject, Properties: map[string]*huma.Schema{"local": str, "timezone": str}, Required: []string{"local", "timezone"}},
		},
		Description: "RFC 3339 with an offset, or a wall clock and its IANA time zone.", Examples: []any{"2025-04-15T09:00:00Z"},
	}
}

// parseWall reads a time without offset, to the minute or the second.
func parseWall(s string) (time.Time, bool) {
	for _, layout := range []string{wallFormat, "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// onClock returns the instant at which the clock of loc shows wall: the first of two when it is put back, and the first
// instant after the gap when it is put forward over it.
func onClock(wall time.Time, loc *time.Location) time.Time {
	shown := func(t time.Time) time.Time {
		l := t.In(loc)
		return time.Date(l.Year(), l.Month(), l.Day(), l.Hour(), l.Minute(), l.Second(), 0, time.UTC)
	}
	// No zone is more than 14 h from UTC, and none ever put its clock by more than a day.
	at := wall.Add(-16 * time.Hour).Truncate(time.Minute).Add(time.Duration(wall.Second()) * time.Second)
	for shown(at).Before(wall) {
		at = at.Add(time.Minute) // two thousand times at most; greater steps could leap over a gap
	}
	return at
}

// stamp writes a time as the API does: UTC, to the second unless there is more to it, never a zone of the server.
func stamp(t time.Time) string {
	t = t.UTC()
	if t.Nanosecond() < int(time.Millisecond) {
		return t.Format("2006-01-02T15:04:05Z")
	}
	return t.Format("2006-01-02T15:04:05.000Z")
}

// stampOrNull is null for a time that is not known yet.
func stampOrNull(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := stamp(t)
	return &s
}

// finishOf says when count messages are all handed over at rate per second, from start on, within calling hours. It returns
// ok false when that takes more than a year: then no time is better than a wrong one.
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
		step := min(left, at.Truncate(time.Minute).Add(time.Minute).Sub(at)) // hours open and close on the minute
		at = at.Add(step)
		left -= step
	}
	return at, true
}

// durationText says a duration as E does ("15 minutes"): in its one or two greatest units, rounded up.
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
