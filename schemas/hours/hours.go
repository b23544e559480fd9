// Package hours parses times, and implements calling hours: the time of day, in one time zone or in several at once,
// during which messages may be handed over.
package hours

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // so that a machine without zone files has the same zones

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Hours are calling hours [Start, End) in minutes after local midnight. Start == End is the whole day; with Start > End
// they cross midnight. Hours on several clocks are open while they are open on each of them. The zero value is always
// open.
type Hours struct {
	Start, End int
	zones      []*time.Location
}

// New returns calling hours from start to end, both 0 to 1439 minutes after midnight, in an IANA zone.
func New(start, end int, zone string) (Hours, error) {
	if start < 0 || start > 1439 || end < 0 || end > 1439 {
		return Hours{}, fmt.Errorf("calling hours %d to %d: want minutes of a day, 0 to 1439", start, end)
	}
	loc, err := Zone(zone)
	if err != nil {
		return Hours{}, err
	}
	return Hours{start, end, []*time.Location{loc}}, nil
}

// On returns the same hours on other clocks: of the zones of a list as [Join] makes it. A recipient of several zones is
// in one of them, and it is unknown in which, so the hours are those that all of the zones share. On ignores names that
// are not a zone; a list without any zone does not change the hours.
func (h Hours) On(list string) Hours {
	if zones := zonesOf(list); len(zones) > 0 {
		h.zones = zones
	}
	return h
}

// zoneSeparator stands between the zones of a list. No IANA name has it.
const zoneSeparator = ","

// Join returns the zones that a recipient may be in as one text: sorted, each once, and without names that are not IANA
// names.
func Join(zones []string) string {
	if len(zones) == 1 {
		return zones[0]
	}
	names := slices.DeleteFunc(slices.Clone(zones), func(name string) bool { _, err := Zone(name); return err != nil })
	slices.Sort(names)
	return strings.Join(slices.Compact(names), zoneSeparator)
}

var lists sync.Map // list to []*time.Location

// zonesOf reads a list of zones.
func zonesOf(list string) []*time.Location {
	if list == "" {
		return nil
	}
	if found, ok := lists.Load(list); ok {
		return found.([]*time.Location)
	}
	var zones []*time.Location
	for name := range strings.SplitSeq(list, zoneSeparator) {
		if loc, err := Zone(name); err == nil {
			zones = append(zones, loc)
		}
	}
	if len(zones) > 0 {
		lists.Store(list, zones)
	}
	return zones
}

// FromRecord reads the calling hours of a campaign, on the clock that the campaign names; nil is always open.
func FromRecord(h *fanfarev1.CallingHours) (Hours, error) {
	if h == nil {
		return Hours{}, nil
	}
	return New(int(h.GetStartMinute()), int(h.GetEndMinute()), h.GetTimezone())
}

// ForRecipient reads the calling hours of a campaign for a recipient whose zones are a list as [Join] makes it: on the
// recipient's clocks where the campaign asks for them, else on the campaign's.
func ForRecipient(h *fanfarev1.CallingHours, zones string) (Hours, error) {
	out, err := FromRecord(h)
	if err != nil || !h.GetRecipientZone() {
		return out, err
	}
	return out.On(zones), nil
}

var zones sync.Map // name to *time.Location, because LoadLocation parses the zone each time

// Zone returns the location of an IANA name. "" and "Local" are errors, because they would mean the machine's own zone.
func Zone(name string) (*time.Location, error) {
	if loc, ok := zones.Load(name); ok {
		return loc.(*time.Location), nil
	}
	if name == "" || name == "Local" {
		return nil, fmt.Errorf("time zone %q: want an IANA name such as Europe/Rome", name)
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("time zone %q: want an IANA name such as Europe/Rome", name)
	}
	zones.Store(name, loc)
	return loc, nil
}

// ParseClock reads HH:MM (R30, R31) into minutes after midnight; 24:00 is midnight.
func ParseClock(s string) (int, error) {
	if s == "24:00" {
		return 0, nil
	}
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != 5 {
		return 0, fmt.Errorf("time of day %q: want HH:MM between 00:00 and 24:00", s)
	}
	return t.Hour()*60 + t.Minute(), nil
}

// FormatClock is the reverse of ParseClock.
func FormatClock(minute int) string { return fmt.Sprintf("%02d:%02d", minute/60, minute%60) }

// Always reports whether the hours never close.
func (h Hours) Always() bool { return h.Start == h.End }

// Open reports whether t is within the hours, on every clock.
func (h Hours) Open(t time.Time) bool {
	if h.Always() {
		return true
	}
	for _, zone := range h.zones {
		if !h.openIn(zone, t) {
			return false
		}
	}
	return true
}

func (h Hours) openIn(zone *time.Location, t time.Time) bool {
	local := t.In(zone)
	m := local.Hour()*60 + local.Minute()
	if h.Start < h.End {
		return h.Start <= m && m < h.End
	}
	return m >= h.Start || m < h.End
}

// Left returns how long the hours stay open from t on, if no clock changes meanwhile; 0 when they are closed.
func (h Hours) Left(t time.Time) time.Duration {
	if !h.Open(t) {
		return 0
	}
	const day = 24 * 60
	left := day
	if h.Always() {
		return 24 * time.Hour
	}
	for _, zone := range h.zones {
		local := t.In(zone)
		m := (h.End - local.Hour()*60 - local.Minute() + day) % day
		if m == 0 {
			m = day
		}
		left = min(left, m)
	}
	return time.Duration(left)*time.Minute - t.Sub(t.Truncate(time.Minute))
}

// never is the time after which hours on several clocks that have shared no minute count as closed for good. A change
// of a clock may give them a common minute again, up to half a year later; a campaign does not wait that long.
const never = 8 * 24 * time.Hour

// NextOpen returns t when it is within the hours, else the next instant that is. When the clock skips the start (02:30
// in the night in which summer time begins), that is the first instant after the gap; when it shows the start twice,
// the first of the two. Hours on several clocks may share no minute: the zero time when they share none within 8 days.
func (h Hours) NextOpen(t time.Time) time.Time {
	if h.Always() || len(h.zones) == 0 {
		return t
	}
	// The next instant that is open on one clock is a bound for the next that is open on all of them.
	at, agree := t, 0
	for i := 0; agree < len(h.zones); i = (i + 1) % len(h.zones) {
		next := h.nextIn(h.zones[i], at)
		if agree++; next.After(at) {
			at, agree = next, 1
		}
		if at.Sub(t) > never {
			return time.Time{}
		}
	}
	return at
}

func (h Hours) nextIn(zone *time.Location, t time.Time) time.Time {
	if h.openIn(zone, t) {
		return t
	}
	local := t.In(zone)
	for day := range 3 { // today, tomorrow, and one day more, because the hours of a night may fall into a gap
		midnight := time.Date(local.Year(), local.Month(), local.Day()+day, 0, h.Start, 0, 0, zone)
		// time.Date may return either side of a change of the clock: try the minutes around it.
		for at := midnight.Add(-2 * time.Hour); !at.After(midnight.Add(2 * time.Hour)); at = at.Add(time.Minute) {
			if at.After(t) && h.openIn(zone, at) {
				return h.orChange(zone, t, at)
			}
		}
	}
	return t.Add(24 * time.Hour) // never reached: local time never jumps by two days
}

// orChange returns the first change of the clock between t and next that opens the hours again, else next. A clock that
// goes back from 01:00 to 00:00 opens hours until 00:30 a second time.
func (h Hours) orChange(zone *time.Location, t, next time.Time) time.Time {
	for _, change := t.In(zone).ZoneBounds(); !change.IsZero() && change.Before(next); _, change = change.ZoneBounds() {
		if h.openIn(zone, change) {
			return change
		}
	}
	return next
}
