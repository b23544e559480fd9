package hours

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// ErrNaive marks the error of [ParseInstant] for a time that names neither an offset nor a zone: that error wraps it.
var ErrNaive = errors.New("neither offset nor time zone")

// maxOffset is the largest offset of any zone, on Kiritimati; time.Parse accepts +24:00.
const maxOffset = 14 * time.Hour

// instant matches a time as programs write it: RFC 3339, and the other forms of ISO 8601 that standard libraries print.
//
//	Java        2025-04-15T09:00+02:00 (no seconds), 2025-04-15T09:00+02:00[Europe/Rome], 2025-04-15T07:00:00Z
//	PHP         2025-04-15T09:00:00+02:00, 2025-04-15T09:00:00+0200
//	Python      2025-04-15T09:00:00.123456+02:00, 2025-04-15 09:00:00+02:00, …+0200
//	JavaScript  2025-04-15T07:00:00.000Z
//	Postgres    2025-04-15 09:00:00+02
//	basic form  20250415T090000+0200
//
// Letters may be small (RFC 3339, 5.6).
var instant = regexp.MustCompile(`^(\d{4})-?(\d\d)-?(\d\d)(?:[Tt]| )(\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d{1,18}))?)? ?(?:([Zz])|([+-])(\d\d)(?::?(\d\d))?)?(?:\[([A-Za-z0-9_+/-]+)\])?$`)

// ParseInstant reads a time as programs write it (C15). The offset determines the instant; if the text also names a
// zone, as Java does, the two must agree. zone is "" when none is named. A time with neither offset nor zone is
// ambiguous: the error wraps [ErrNaive].
func ParseInstant(s string) (at time.Time, zone string, err error) {
	m := instant.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return time.Time{}, "", fmt.Errorf("%q is not a time", s)
	}
	wall, err := wallOf(m)
	if err != nil {
		return time.Time{}, "", fmt.Errorf("%q is not a time: %w", s, err)
	}
	var loc *time.Location
	if zone = m[12]; zone != "" {
		if loc, err = Zone(zone); err != nil {
			return time.Time{}, "", err
		}
	}
	if m[8] == "" && m[9] == "" {
		if loc == nil {
			return time.Time{}, "", fmt.Errorf("%q has %w", s, ErrNaive)
		}
		return time.Time{}, "", fmt.Errorf("%q has a zone but no offset", s)
	}
	offset := time.Duration(0)
	if m[9] != "" {
		hours, minutes := number(m[10]), number(m[11])
		offset = time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
		if minutes > 59 || offset > maxOffset {
			return time.Time{}, "", fmt.Errorf("%q is not a time: no zone is %s%02d:%02d from UTC", s, m[9], hours, minutes)
		}
		if m[9] == "-" {
			offset = -offset
		}
	}
	at = wall.Add(-offset)
	if loc != nil {
		if _, there := at.In(loc).Zone(); time.Duration(there)*time.Second != offset {
			return time.Time{}, "", fmt.Errorf("%q is not a time: %s has another offset then", s, zone)
		}
	}
	return at, zone, nil
}

// ParseWall parses a local time in the same forms, without offset and zone. It returns the time in UTC.
func ParseWall(s string) (time.Time, error) {
	m := instant.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil || m[8] != "" || m[9] != "" || m[12] != "" {
		return time.Time{}, fmt.Errorf("%q is not a local time: want 2025-04-15T09:00", s)
	}
	wall, err := wallOf(m)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is not a local time: %w", s, err)
	}
	return wall, nil
}

// wallOf returns date and time of a match as if they were UTC. time.Date would take 31 April for 1 May.
func wallOf(m []string) (time.Time, error) {
	month, day, hour, minute, second := number(m[2]), number(m[3]), number(m[4]), number(m[5]), number(m[6])
	nanos := number((m[7] + "000000000")[:9])
	t := time.Date(number(m[1]), time.Month(month), day, hour, minute, second, nanos, time.UTC)
	switch {
	case hour > 23 || minute > 59 || second > 59:
		return t, errors.New("there is no such time of day")
	case t.Day() != day || int(t.Month()) != month || month < 1:
		return t, errors.New("there is no such date")
	}
	return t, nil
}

// number reads digits, "" as 0.
func number(digits string) (n int) {
	for _, c := range []byte(digits) {
		n = n*10 + int(c-'0')
	}
	return n
}
