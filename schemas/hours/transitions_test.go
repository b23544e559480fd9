package hours_test

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fanfare/schemas/hours"
)

// zoneNames are all names of the IANA database 2026a, with the aliases.
//
//go:embed testdata/zones.txt
var zoneNames string

// The two years whose changes of the clock are tried.
var (
	firstYear = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	lastYear  = firstYear.AddDate(2, 0, 0)
)

// transitions returns the changes of a zone's clock in the two years.
func transitions(zone *time.Location) (at []time.Time) {
	for t := firstYear; ; {
		_, end := t.In(zone).ZoneBounds()
		if end.IsZero() || !end.Before(lastYear) {
			return at
		}
		t = end
		at = append(at, end.UTC())
	}
}

// R30 to R32 in every IANA zone, around every change of its clock in two years: hours by day, over midnight, from and
// until a time that the clock skips or shows twice, and hours of one minute. The oracle knows only the time of day that
// the clock shows in each minute. Open, NextOpen and Left must agree with it.
func TestEveryTransition(t *testing.T) {
	names := strings.Fields(zoneNames)
	changes, zones := 0, 0
	type change struct {
		at            time.Time
		before, after int
	}
	seen := map[change]bool{}
	for _, name := range names {
		zone, err := hours.Zone(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		all := transitions(zone)
		if len(all) == 0 {
			all = []time.Time{firstYear.AddDate(0, 5, 0)} // a night as any other
		}
		zones++
		for _, at := range all {
			_, before := at.Add(-time.Second).In(zone).Zone()
			_, after := at.In(zone).Zone()
			if before != after {
				changes++
			}
			if one := (change{at, before, after}); !seen[one] { // most zones change as their neighbours do
				seen[one] = true
				tryAround(t, name, zone, at)
			}
		}
	}
	if zones < 590 || changes < 700 {
		t.Errorf("%d zones with %d changes: the list or the database is not whole", zones, changes)
	}
	t.Logf("%d zones, %d changes of a clock, %d of them unlike each other", zones, changes, len(seen))
}

// tryAround compares hours with the oracle in the minutes from a day before to two days after a change of the clock.
func tryAround(t *testing.T, name string, zone *time.Location, at time.Time) {
	t.Helper()
	const day = 24 * 60
	begin := at.Add(-day * time.Minute).Truncate(time.Minute)
	clock := make([]int, 3*day) // what the clock shows in each minute
	for i := range clock {
		local := begin.Add(time.Duration(i) * time.Minute).In(zone)
		clock[i] = local.Hour()*60 + local.Minute()
	}
	left, right := clock[day-1], clock[day] // the last minute before the change, and the first after it
	minute := func(m int) int { return (m + 2*day) % day }
	for _, h := range [][2]int{
		{9 * 60, 20 * 60},                      // by day
		{20 * 60, 8 * 60},                      // over midnight, over the change
		{minute(left + 1), minute(right + 60)}, // from the first minute of the gap or of the overlap
		{minute(right - 30), minute(right + 30)},
		{minute(left - 20), minute(left + 1)}, // up to the change
		{minute(right + 20), minute(left - 10)},
		{minute((left + right) / 2), minute((left+right)/2 + 1)}, // one minute, which the change skips or repeats
		{0, 1},
		{1, 0},
	} {
		if h[0] == h[1] {
			continue
		}
		if err := agree(name, h[0], h[1], begin, clock); err != nil {
			t.Errorf("hours from %s to %s in %s: %v", hours.FormatClock(h[0]), hours.FormatClock(h[1]), name, err)
		}
	}
}

// agree compares hours with the oracle: each minute near the change, and every 41st of the others; NextOpen where hours
// open or close, and every 13th minute.
func agree(name string, start, end int, begin time.Time, clock []int) error {
	const day = 24 * 60
	h, err := hours.New(start, end, name)
	if err != nil {
		return err
	}
	next, none := make([]int, len(clock)), len(clock)
	for i, upcoming := range slices.Backward(clock) {
		if m := upcoming; start < end && start <= m && m < end || start > end && (m >= start || m < end) {
			none = i
		}
		next[i] = none
	}
	for i := range clock[:2*day] {
		if near := i - day; (near < -65 || near > 125) && i%41 != 0 {
			continue
		}
		at, open := begin.Add(time.Duration(i)*time.Minute), next[i] == i
		for _, second := range []time.Duration{0, 59*time.Second + 999*time.Millisecond} {
			if got := h.Open(at.Add(second)); got != open {
				return fmt.Errorf("open at %s: %v, want %v", at.Add(second), got, open)
			}
		}
		if left := h.Left(at); (left > 0) != open {
			return fmt.Errorf("at %s, %s are left, and open is %v", at, left, open)
		}
		edge := i > 0 && open != (next[i-1] == i-1)
		if next[i] == len(clock) || !edge && i%13 != 0 { // NextOpen is slow
			continue
		}
		if got, want := h.NextOpen(at), begin.Add(time.Duration(next[i])*time.Minute); !got.Equal(want) {
			return fmt.Errorf("next open after %s: %s, want %s", at, got.UTC(), want)
		}
	}
	return nil
}
