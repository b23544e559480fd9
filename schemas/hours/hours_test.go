package hours_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"fanfare/schemas/hours"
)

func at(t *testing.T, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// R30 to R32, and the traps of requirements §5: end exclusive, crossing midnight, start = end, both changes of the
// clock.
func TestHours(t *testing.T) {
	for _, c := range []struct {
		name, start, end, zone, at, next string
	}{
		{"within", "09:00", "18:00", "Europe/Rome", "2026-01-15T09:00:00Z", "2026-01-15T09:00:00Z"},
		{"start is open", "09:00", "18:00", "Europe/Rome", "2026-01-15T08:00:00Z", "2026-01-15T08:00:00Z"},
		{"end is closed", "09:00", "18:00", "Europe/Rome", "2026-01-15T17:00:00Z", "2026-01-16T08:00:00Z"},
		{"before", "09:00", "18:00", "Europe/Rome", "2026-01-15T05:30:00Z", "2026-01-15T08:00:00Z"},
		{"crossing midnight, late", "22:00", "06:00", "Europe/Rome", "2026-01-15T22:30:00Z", "2026-01-15T22:30:00Z"},
		{"crossing midnight, closed", "22:00", "06:00", "Europe/Rome", "2026-01-15T05:00:00Z", "2026-01-15T21:00:00Z"},
		{"whole day", "10:00", "10:00", "Europe/Rome", "2026-01-15T03:00:00Z", "2026-01-15T03:00:00Z"},
		{"until 24:00", "09:00", "24:00", "UTC", "2026-01-15T23:59:00Z", "2026-01-15T23:59:00Z"},
		{"summer", "09:00", "18:00", "Europe/Rome", "2026-07-15T07:00:00Z", "2026-07-15T07:00:00Z"},
		{"gap: 02:30 is skipped, 03:00 it is", "02:30", "05:00", "Europe/Rome", "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"},
		{"overlap: the first 02:30", "02:30", "05:00", "Europe/Rome", "2026-10-24T23:00:00Z", "2026-10-25T00:30:00Z"},
		{"window inside the gap: the next day", "02:10", "02:50", "Europe/Rome", "2026-03-29T00:30:00Z", "2026-03-30T00:10:00Z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			start, err := hours.ParseClock(c.start)
			if err != nil {
				t.Fatal(err)
			}
			end, err := hours.ParseClock(c.end)
			if err != nil {
				t.Fatal(err)
			}
			h, err := hours.New(start, end, c.zone)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := h.NextOpen(at(t, c.at)), at(t, c.next); !got.Equal(want) {
				t.Errorf("NextOpen(%s): got %s, want %s", c.at, got.UTC().Format(time.RFC3339), c.next)
			}
		})
	}
}

func TestNextOpenIsOpenAndTheFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom([]string{"Europe/Rome", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"}).Draw(t, "zone")
		h, err := hours.New(rapid.IntRange(0, 1439).Draw(t, "start"), rapid.IntRange(0, 1439).Draw(t, "end"), zone)
		if err != nil {
			t.Fatal(err)
		}
		from := time.Unix(rapid.Int64Range(1767225600, 1830297600).Draw(t, "at"), 0).Truncate(time.Minute)
		next := h.NextOpen(from)
		if !h.Open(next) || next.Before(from) {
			t.Fatalf("NextOpen(%s) = %s: closed, or before", from, next)
		}
		for m := from; m.Before(next); m = m.Add(time.Minute) {
			if h.Open(m) {
				t.Fatalf("NextOpen(%s) = %s, but %s is open", from, next, m)
			}
		}
	})
}

func TestBadInput(t *testing.T) {
	for _, s := range []string{"", "9:00", "24:01", "25:00", "12:60", "noon", "12:00:00"} {
		if _, err := hours.ParseClock(s); err == nil {
			t.Errorf("ParseClock(%q): no error", s)
		}
	}
	for _, s := range []string{"", "Local", "Rome", "Mars/Olympus"} {
		if _, err := hours.Zone(s); err == nil {
			t.Errorf("Zone(%q): no error", s)
		}
	}
}

// X11: hours on several clocks are open while they are open on each of them.
func TestOnSeveralClocks(t *testing.T) {
	for _, c := range []struct {
		name, zones string
		start, end  int
		at, next    string // next "": never
	}{
		{"the west opens last", "America/Los_Angeles,America/New_York", 540, 1200, "2026-01-15T14:00:00Z", "2026-01-15T17:00:00Z"},
		{"the east closes first", "America/Los_Angeles,America/New_York", 540, 1200, "2026-01-16T01:00:00Z", "2026-01-16T17:00:00Z"},
		// at 23:00 in Tokyo it is too early in Rome, so the hours open at 22:00 in Rome
		{"over midnight", "Asia/Tokyo,Europe/Rome", 1320, 720, "2026-01-15T14:00:00Z", "2026-01-15T21:00:00Z"},
		{"the gap of one of them", "Europe/London,Europe/Rome", 150, 300, "2026-03-29T00:00:00Z", "2026-03-29T01:30:00Z"},
		{"the overlap of one of them", "Asia/Dubai,Europe/Rome", 150, 300, "2026-10-24T20:00:00Z", "2026-10-25T00:30:00Z"},
		{"no minute in common", "America/New_York,Pacific/Auckland", 540, 600, "2026-01-15T14:00:00Z", ""},
		{"no zone at all leaves the campaign's", "", 540, 1200, "2026-01-15T03:00:00Z", "2026-01-15T09:00:00Z"},
		{"names that are none are left out", "Mars/Olympus,Asia/Tokyo", 540, 1200, "2026-01-15T12:00:00Z", "2026-01-16T00:00:00Z"},
		{"the whole day", "America/New_York,Pacific/Auckland", 0, 0, "2026-01-15T03:00:00Z", "2026-01-15T03:00:00Z"},
	} {
		h, err := hours.New(c.start, c.end, "UTC")
		if err != nil {
			t.Fatal(err)
		}
		got, want := h.On(c.zones).NextOpen(at(t, c.at)), time.Time{}
		if c.next != "" {
			want = at(t, c.next)
		}
		if !got.Equal(want) {
			t.Errorf("%s: got %s, want %s", c.name, got.UTC(), want.UTC())
		}
	}
	if got, want := hours.Join([]string{"Europe/Rome", "Mars/Olympus", "Asia/Tokyo", "Europe/Rome"}), "Asia/Tokyo,Europe/Rome"; got != want {
		t.Errorf("Join: got %q, want %q", got, want)
	}
}

func TestSeveralClocksAgreeWithEach(t *testing.T) {
	names := []string{"Europe/Rome", "America/New_York", "America/Los_Angeles", "Asia/Kolkata", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"}
	rapid.Check(t, func(t *rapid.T) {
		zones := rapid.SliceOfN(rapid.SampledFrom(names), 1, 4).Draw(t, "zones")
		start, end := rapid.IntRange(0, 1439).Draw(t, "start"), rapid.IntRange(0, 1439).Draw(t, "end")
		h, err := hours.New(start, end, "UTC")
		if err != nil {
			t.Fatal(err)
		}
		shared := h.On(hours.Join(zones))
		open := func(at time.Time) bool {
			for _, zone := range zones {
				one, err := hours.New(start, end, zone)
				if err != nil {
					t.Fatal(err)
				}
				if !one.Open(at) {
					return false
				}
			}
			return true
		}
		from := time.Unix(rapid.Int64Range(1767225600, 1830297600).Draw(t, "at"), 0).Truncate(time.Minute)
		next := shared.NextOpen(from)
		until := next
		if next.IsZero() {
			until = from.Add(7 * 24 * time.Hour)
		} else if !open(next) {
			t.Fatalf("NextOpen(%s) = %s, and it is closed", from, next)
		}
		for m := from; m.Before(until); m = m.Add(7 * time.Minute) {
			if open(m) || shared.Open(m) {
				t.Fatalf("NextOpen(%s) = %s, but %s is open", from, next, m)
			}
		}
		if left := shared.Left(from); open(from) != (left > 0) || left > 24*time.Hour {
			t.Fatalf("Left(%s) = %s", from, left)
		}
	})
}
