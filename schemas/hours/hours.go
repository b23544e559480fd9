// Package hours parses times, and implements calling hours: the time of day, in a time zone, during which messages may
// be handed over.
package hours

import (
	"fmt"
	"sync"
	"time"
	_ "time/tzdata" // so that a machine without zone files has the same zones

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Hours are calling hours [Start, End) in minutes after local midnight. Start == End is the whole day; with Start > End
// they cross midnight. The zero value is always open.
type Hours struct {
	Start, End int
	zone       *time.Location
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
	return Hours{start, end, loc}, nil
}

// FromRecord reads the calling hours of a campaign; nil is always open.
func FromRecord(h *fanfarev1.CallingHours) (Hours, error) {
	if h == nil {
		return Hours{}, nil
	}
	return New(int(h.GetStartMinute()), int(h.GetEndMinute()), h.GetTimezone())
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

// Open reports whether t is within the hours.
func (h Hours) Open(t time.Time) bool {
	if h.Always() {
		return true
	}
	local := t.In(h.zone)
	m := local.Hour()*60 + local.Minute()
	if h.Start < h.End {
		return h.Start <= m && m < h.End
	}
	return m >= h.Start || m < h.End
}

// NextOpen returns t if it is within the hours, else the next instant that is. If local time skips the start (02:30 in
// the night in which summer time begins), this is the first instant after the gap; if the start occurs twice, it is the
// first of the two.
func (h Hours) NextOpen(t time.Time) time.Time {
	if h.Open(t) {
		return t
	}
	local := t.In(h.zone)
	for day := range 3 { // today, tomorrow, and the day after a night whose hours fell into a gap
		midnight := time.Date(local.Year(), local.Month(), local.Day()+day, 0, h.Start, 0, 0, h.zone)
		// time.Date may return either side of a change of the clock: try the minutes around it.
		for at := midnight.Add(-2 * time.Hour); !at.After(midnight.Add(2 * time.Hour)); at = at.Add(time.Minute) {
			if at.After(t) && h.Open(at) {
				return at
			}
		}
	}
	return t.Add(24 * time.Hour) // never reached: local time never jumps by two days
}
