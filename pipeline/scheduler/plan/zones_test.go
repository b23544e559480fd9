package plan

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/hours"
)

// zoneCount is a list of zones and the number of recipients that have it.
type zoneCount struct {
	zones string
	n     uint32
}

// addZoned makes a campaign with calling hours on the clocks of its recipients, in order of zone as the freeze puts
// them.
func (w *env) addZoned(start, end uint32, groups ...zoneCount) *fakeCampaign {
	slices.SortFunc(groups, func(a, b zoneCount) int { return strings.Compare(a.zones, b.zones) })
	total := uint32(0)
	for _, g := range groups {
		total += g.n
	}
	c := w.addCampaign(1, testTenant, total, total, smsLeg(2))
	c.blobs = nil
	at := uint32(0)
	for _, g := range groups {
		for left := g.n; left > 0; {
			n := min(left, 150) // several blobs a zone
			c.blobs = append(c.blobs, audience.Index{Blob: uint32(len(c.blobs)), First: at, Count: n, Zone: g.zones})
			at, left = at+n, left-n
		}
	}
	w.set(c, func(r *fanfarev1.Campaign) {
		r.CallingHours = &fanfarev1.CallingHours{StartMinute: start, EndMinute: end, Timezone: "UTC", RecipientZone: true}
	})
	w.mayDeal = func(c *fakeCampaign, seq uint32) bool { return openFor(c, seq, w.now) }
	return c
}

func zonesOfSeq(c *fakeCampaign, seq uint32) string {
	for _, b := range c.blobs {
		if seq >= b.First && seq < b.First+b.Count {
			return b.Zone
		}
	}
	return ""
}

// openFor is the rule of X11, written as simply as possible: in every zone of the recipient the time of day is within
// the calling hours.
func openFor(c *fakeCampaign, seq uint32, now time.Time) bool {
	h := c.record.GetCallingHours()
	for zone := range strings.SplitSeq(zonesOfSeq(c, seq), ",") {
		loc, err := hours.Zone(zone)
		if err != nil {
			return false
		}
		m := uint32(now.In(loc).Hour()*60 + now.In(loc).Minute())
		if h.GetStartMinute() < h.GetEndMinute() && (m < h.GetStartMinute() || m >= h.GetEndMinute()) ||
			h.GetStartMinute() > h.GetEndMinute() && m < h.GetStartMinute() && m >= h.GetEndMinute() {
			return false
		}
	}
	return true
}

// X11: recipients of +1 with many zones, of +39 and of +81 in one campaign: no recipient is dealt outside the hours of
// all zones that the number may be in, also at a retry and after a takeover; in the end all are dealt, and the campaign
// completes. The clocks of America and Europe change on the way.
func TestRecipientZones(t *testing.T) {
	for name, begin := range map[string]time.Time{
		"the clocks of America go forward": time.Date(2030, 3, 9, 1, 7, 0, 0, time.UTC),
		"the clocks of Rome go forward":    time.Date(2030, 3, 30, 14, 0, 0, 0, time.UTC),
		"the clocks of Rome go back":       time.Date(2030, 10, 26, 23, 59, 0, 0, time.UTC),
	} {
		t.Run(name, func(t *testing.T) {
			w := newEnv(4)
			w.now = begin
			w.addRoute("sim", 2)
			w.addTenant(testTenant, 0, 1)
			w.odds = odds{sent: 80, returned: 20, delivered: 80, bounced: 20}
			c := w.addZoned(9*60, 18*60,
				zoneCount{"America/Chicago,America/Los_Angeles,America/New_York", 400}, zoneCount{"America/New_York", 300},
				zoneCount{"Asia/Tokyo", 500}, zoneCount{"Europe/Rome", 900})
			for i := 0; !w.completed[1] && i < 8*24*60; i++ {
				w.now = w.now.Add(time.Minute)
				w.step(100)
				if i%700 == 699 {
					w.saveCursors(true)
					if err := w.takeOver(); err != nil {
						t.Fatal(err)
					}
				}
			}
			w.drain()
			seen := map[string]int{}
			for s := range w.submitted {
				if s.try == 1 {
					seen[zonesOfSeq(c, s.seq)]++
				}
			}
			for zones, want := range map[string]int{
				"America/Chicago,America/Los_Angeles,America/New_York": 400, "America/New_York": 300, "Asia/Tokyo": 500, "Europe/Rome": 900,
			} {
				if seen[zones] != want {
					t.Errorf("%s: %d of %d were dealt", zones, seen[zones], want)
				}
			}
			if !w.completed[1] {
				t.Error("the campaign has not completed after eight days")
			}
			for _, f := range w.faults {
				t.Error(f)
			}
		})
	}
}

// X11: when each zone gets its first message. Hours that begin in a gap of the clock open after the gap. Hours that
// begin at a time which the clock shows twice open at the first of the two.
func TestRecipientZonesOpen(t *testing.T) {
	for _, tc := range []struct {
		name       string
		begin      time.Time
		start, end uint32
		first      map[string]time.Time
	}{
		{"one after the other", time.Date(2030, 3, 5, 18, 0, 0, 0, time.UTC), 9 * 60, 18 * 60, map[string]time.Time{
			"America/New_York":                     time.Date(2030, 3, 5, 18, 1, 0, 0, time.UTC), // 13:01 there
			"America/Los_Angeles,America/New_York": time.Date(2030, 3, 5, 18, 1, 0, 0, time.UTC), // 10:01 in the west
			"Asia/Tokyo":                           time.Date(2030, 3, 6, 0, 0, 0, 0, time.UTC),
			"Europe/Rome":                          time.Date(2030, 3, 6, 8, 0, 0, 0, time.UTC),
		}},
		{"the gap of Rome", time.Date(2030, 3, 30, 22, 0, 0, 0, time.UTC), 150, 300, map[string]time.Time{ // from 02:30
			"Europe/Rome": time.Date(2030, 3, 31, 1, 0, 0, 0, time.UTC), // 03:00 follows 01:59
			"Asia/Tokyo":  time.Date(2030, 3, 31, 17, 30, 0, 0, time.UTC),
		}},
		{"the overlap of Rome", time.Date(2030, 10, 26, 22, 0, 0, 0, time.UTC), 150, 300, map[string]time.Time{
			"Europe/Rome": time.Date(2030, 10, 27, 0, 30, 0, 0, time.UTC), // the first 02:30
		}},
		{"the overlap of New York, where the west decides", time.Date(2030, 11, 3, 4, 0, 0, 0, time.UTC), 90, 360, map[string]time.Time{
			"America/New_York": time.Date(2030, 11, 3, 5, 30, 0, 0, time.UTC), // the first 01:30
			// 01:30 in the west, 03:30 in the east
			"America/Los_Angeles,America/New_York": time.Date(2030, 11, 3, 8, 30, 0, 0, time.UTC),
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newEnv(7)
			w.now = tc.begin
			w.addRoute("sim", 500)
			w.addTenant(testTenant, 0, 1)
			w.odds = odds{sent: 100, delivered: 100}
			var groups []zoneCount
			for zones := range tc.first {
				groups = append(groups, zoneCount{zones, 3})
			}
			c := w.addZoned(tc.start, tc.end, groups...)
			first := map[string]time.Time{}
			for range 36 * 60 {
				w.now = w.now.Add(time.Minute)
				w.step(100)
				for s := range w.submitted {
					if zones := zonesOfSeq(c, s.seq); first[zones].IsZero() {
						first[zones] = w.now
					}
				}
			}
			for zones, want := range tc.first {
				if !first[zones].Equal(want) {
					t.Errorf("%s: first dealt at %s, want %s", zones, first[zones].UTC(), want)
				}
			}
			for _, f := range w.faults {
				t.Error(f)
			}
		})
	}
}

// X11: recipients whose zones share no minute of the hours get no message, and hold up no other recipient. If the hours
// change in time, they get their message.
func TestRecipientZonesShareNoMinute(t *testing.T) {
	run := func(w *env, until time.Duration) {
		for end := w.now.Add(until); w.now.Before(end); {
			w.now = w.now.Add(time.Minute)
			w.step(500)
		}
	}
	apart := zoneCount{"America/New_York,Pacific/Auckland", 400}
	begin := func(t *testing.T) (*env, *fakeCampaign) {
		t.Helper()
		w := newEnv(9)
		w.addRoute("sim", 500)
		w.addTenant(testTenant, 0, 1)
		w.odds = odds{sent: 100, delivered: 100}
		return w, w.addZoned(9*60, 10*60, apart, zoneCount{"Europe/Rome", 200})
	}
	w, c := begin(t)
	run(w, 30*time.Hour)
	w.drain()
	never := 0
	for p := range partitions {
		for _, e := range w.log[p] {
			if e.Kind == schemas.KindNotSent && e.Code == schemas.CodeQuietHoursExpired && zonesOfSeq(c, e.Seq) == apart.zones {
				never++
			} else if e.Kind == schemas.KindNotSent {
				t.Errorf("seq %d of %s was not sent: %s", e.Seq, zonesOfSeq(c, e.Seq), e.Code)
			}
		}
	}
	if !w.completed[1] || never != 400 || w.dealtTo[testTenant] != 200 {
		t.Errorf("completed %v, %d ended as QUIET_HOURS_EXPIRED and %d dealt, want true, 400 and 200", w.completed[1], never, w.dealtTo[testTenant])
	}

	later, c := begin(t)
	later.set(c, func(r *fanfarev1.Campaign) { r.CallingHours.EndMinute = 23 * 60 })
	run(later, 30*time.Hour)
	later.drain()
	if !later.completed[1] || later.dealtTo[testTenant] != 600 {
		t.Errorf("with longer hours: completed %v, %d dealt, want true and 600", later.completed[1], later.dealtTo[testTenant])
	}
	for _, f := range append(w.faults, later.faults...) {
		t.Error(f)
	}
}

// A campaign does not start because of a group whose hours never open: until the hours of another group open, a person
// can still cancel the campaign.
func TestNeverOpenStartsNothing(t *testing.T) {
	w := newEnv(9)
	w.addRoute("sim", 500)
	w.addTenant(testTenant, 0, 1)
	c := w.addZoned(9*60, 10*60, zoneCount{"America/New_York,Pacific/Auckland", 400}, zoneCount{"Europe/Rome", 200})
	waited := 0
	for ; !openFor(c, 599, w.now); waited++ {
		if w.step(500); c.record.GetState() != schemas.StatePreparing {
			t.Fatalf("%s, want preparing until the hours of Rome open", schemas.StateName(c.record.GetState()))
		}
		w.now = w.now.Add(time.Minute)
	}
	if waited == 0 {
		t.Fatal("the hours were open from the beginning: this shows nothing")
	}
	for range 5 {
		w.step(500)
	}
	if c.record.GetState() != schemas.StateSending {
		t.Errorf("%s once the hours are open, want sending", schemas.StateName(c.record.GetState()))
	}
}

// Of the recipients that are dealt again, those whose hours close first come first, as with recipients that are dealt
// for the first time.
func TestRetriesOfTheGroupThatClosesFirst(t *testing.T) {
	w := newEnv(9)
	w.addRoute("sim", 500)
	w.addTenant(testTenant, 0, 1)
	w.addZoned(9*60, 20*60, zoneCount{"America/New_York", 100}, zoneCount{"Europe/Rome", 100})
	w.serveStore() // its blobs
	c := w.planner.campaigns[1]
	if len(c.groups) != 2 {
		t.Fatalf("%d groups, want 2", len(c.groups))
	}
	at := time.Date(2026, 1, 15, 18, 0, 0, 0, time.UTC) // 19:00 in Rome, 13:00 in New York
	for i := range c.groups {
		c.groups[i].until = 0
	}
	var from roaring.Bitmap
	from.AddMany([]uint32{3, 7, 103, 107})
	c.try(1).returned.Or(&from) // the sender returned them
	for i, want := range [][]uint32{{103, 107}, {3, 7}} {
		if _, seqs := c.gatherOpen(1, &from, 10, ms(at)); seqs == nil || !slices.Equal(seqs.ToArray(), want) {
			t.Errorf("deal %d: got %v, want %v", i, seqs, want)
		}
	}
	if _, seqs := c.gatherOpen(1, &from, 10, ms(at)); seqs != nil {
		t.Errorf("got %v of an empty set", seqs)
	}
}
