package plan

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/hours"
)

// changesOfClocks returns every change of a clock in 2026 and 2027, with the zones that change then.
func changesOfClocks(t *testing.T) map[time.Time][]string {
	t.Helper()
	names, err := os.ReadFile("../../../schemas/hours/testdata/zones.txt")
	if err != nil {
		t.Fatal(err)
	}
	out := map[time.Time][]string{}
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name := range strings.FieldsSeq(string(names)) {
		zone, err := hours.Zone(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, end := begin.In(zone).ZoneBounds(); !end.IsZero() && end.Before(begin.AddDate(2, 0, 0)); _, end = end.ZoneBounds() {
			out[end.UTC()] = append(out[end.UTC()], name)
		}
	}
	return out
}

// handedOver returns how often the carrier got each recipient, by campaign and seq.
func (w *env) handedOver() map[[2]uint64]int {
	out := map[[2]uint64]int{}
	for p := range partitions {
		for _, e := range w.log[p] {
			if e.Kind == schemas.KindSent {
				out[[2]uint64{e.Campaign, uint64(e.Seq)}]++
			}
		}
	}
	return out
}

// sometimesAgain is the time when the sender asks to deal a recipient again, for one in ten; else zero.
func (w *env) sometimesAgain() time.Time {
	if w.rng.IntN(10) > 0 {
		return time.Time{}
	}
	return w.now.Add(time.Minute)
}

// X11, R30 to R32: for each change of a clock in two years, four campaigns to recipients in all zones that change then, to
// one in Kolkata, and to one who may be in either of two of them. The hours are by day, over midnight, or begin or end
// next to the change. Some recipients are returned and dealt again, and a successor takes over. No recipient is dealt
// or handed over outside the hours, and the carrier gets each exactly once.
func TestEveryTransition(t *testing.T) {
	changes := changesOfClocks(t)
	if len(changes) < 40 {
		t.Fatalf("%d changes in two years: the database is not whole", len(changes))
	}
	instants := slices.SortedFunc(func(yield func(time.Time) bool) {
		for at := range changes {
			if !yield(at) {
				return
			}
		}
	}, time.Time.Compare)
	recipients := 0
	for _, at := range instants {
		zone, err := hours.Zone(changes[at][0])
		if err != nil {
			t.Fatal(err)
		}
		local := at.In(zone)
		after := uint32(local.Hour()*60 + local.Minute())
		for _, span := range [][2]uint32{{9 * 60, 20 * 60}, {20 * 60, 8 * 60}, {after, (after + 180) % 1440}, {(after + 1440 - 180) % 1440, after}} {
			recipients += tryTransition(t, at, span[0], span[1], changes[at])
		}
	}
	t.Logf("%d changes of clocks, %d recipients", len(instants), recipients)
}

func tryTransition(t *testing.T, at time.Time, start, end uint32, zones []string) int {
	t.Helper()
	w := newEnv(uint64(at.Unix()))
	w.now = at.Add(-14 * time.Hour)
	w.addRoute("sim", 50)
	w.addTenant(testTenant, 0, 1)
	w.odds = odds{sent: 100, delivered: 100}
	groups := []zoneCount{{"Asia/Kolkata", 2}, {hours.Join([]string{zones[0], zones[len(zones)-1]}), 2}}
	for _, zone := range zones[1:] {
		groups = append(groups, zoneCount{zone, 2})
	}
	c := w.addZoned(start, end, groups...)
	w.waitsUntil = func(c *fakeCampaign, seq uint32) time.Time {
		if openFor(c, seq, w.now) {
			return w.sometimesAgain()
		}
		h, err := hours.ForRecipient(c.record.GetCallingHours(), zonesOfSeq(c, seq))
		if err != nil {
			t.Fatal(err)
		}
		return h.NextOpen(w.now)
	}
	for end := w.now.Add(72 * time.Hour); !w.completed[1] && w.now.Before(end); {
		if near := w.now.Sub(at); near > -75*time.Minute && near < 75*time.Minute {
			w.now = w.now.Add(time.Minute)
		} else {
			w.now = w.now.Add(15 * time.Minute)
		}
		w.step(50)
		if w.rng.IntN(40) == 0 {
			w.saveCursors(true)
			if err := w.takeOver(); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.drain()
	got := w.handedOver()
	for seq := range c.record.GetTotal() {
		if n := got[[2]uint64{1, uint64(seq)}]; n != 1 {
			t.Errorf("%s, hours from %s to %s: the recipient in %s was handed over %d times", at, hours.FormatClock(int(start)), hours.FormatClock(int(end)), zonesOfSeq(c, seq), n)
		}
	}
	for _, f := range w.faults {
		t.Errorf("%s: %s", at, f)
	}
	return len(got)
}

// R30 to R32, X9, X11: a year of schedules. Every few hours a campaign is scheduled, at a time of day in a zone, which
// its clock may skip or show twice. It has no hours, hours on one clock, or hours on the clocks of its recipients, and
// sometimes a second batch. The scheduler is replaced now and then. Each campaign begins in the round after its time
// and hours have come, no recipient is dealt or handed over before that, and the carrier gets each exactly once. After
// the year, all campaigns are settled.
func TestYearOfSchedules(t *testing.T) {
	const step = 15 * time.Minute
	w := newEnv(2026)
	rng := rand.New(rand.NewPCG(2026, 11))
	w.now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	year := w.now.AddDate(1, 0, 0)
	w.addRoute("sim", 500)
	w.addTenant(testTenant, 0, 1)
	w.odds = odds{sent: 100, delivered: 100}
	zones := []string{
		"Africa/Casablanca", "America/Los_Angeles", "America/New_York", "America/Sao_Paulo", "Asia/Kathmandu", "Asia/Tokyo", "Australia/Lord_Howe",
		"Europe/Lisbon", "Europe/Rome", "Pacific/Apia", "Pacific/Chatham", "Pacific/Kiritimati",
	}
	first := map[uint64]time.Time{} // when each campaign may begin
	waits := func(c *fakeCampaign, seq uint32) time.Time {
		r := c.record
		if len(r.GetBatches()) > 0 && seq >= r.GetBatches()[0].GetEndSeq() && ms(w.now) < r.GetBatches()[1].GetAtMs() {
			return time.UnixMilli(r.GetBatches()[1].GetAtMs())
		}
		h, err := hours.ForRecipient(r.GetCallingHours(), zonesOfSeq(c, seq))
		if err != nil {
			t.Fatal(err)
		}
		if next := h.NextOpen(w.now); next.After(w.now) {
			return next
		}
		return time.Time{}
	}
	w.waitsUntil = func(c *fakeCampaign, seq uint32) time.Time {
		if again := waits(c, seq); !again.IsZero() {
			return again
		}
		return w.sometimesAgain()
	}
	w.mayDeal = func(c *fakeCampaign, seq uint32) bool {
		return !w.now.Before(first[c.record.GetNumber()]) && waits(c, seq).IsZero()
	}
	schedule := func(number uint64) {
		zone, err := hours.Zone(zones[rng.IntN(len(zones))])
		if err != nil {
			t.Fatal(err)
		}
		local := w.now.In(zone)
		at := time.Date(local.Year(), local.Month(), local.Day()+1, rng.IntN(24), 15*rng.IntN(4), 0, 0, zone)
		c := w.addCampaign(number, testTenant, uint32(2+rng.IntN(8)), 3, smsLeg(1))
		spread := rng.IntN(3) // of the hours
		for i := range c.blobs {
			c.blobs[i].Zone = zone.String()
			if spread == 2 {
				c.blobs[i].Zone = zones[rng.IntN(len(zones))]
			}
		}
		slices.SortFunc(c.blobs, func(a, b audience.Index) int { return strings.Compare(a.Zone, b.Zone) })
		for i, from := 0, uint32(0); i < len(c.blobs); i++ {
			c.blobs[i].Blob, c.blobs[i].First = uint32(i), from
			from += c.blobs[i].Count
		}
		w.set(c, func(r *fanfarev1.Campaign) {
			r.State, r.ScheduledMs, r.FreezeId = schemas.StateScheduled, ms(at), r.GetFreezeId()
			if spread > 0 {
				start := uint32(30 * rng.IntN(48))
				r.CallingHours = &fanfarev1.CallingHours{
					StartMinute: start, EndMinute: (start + 240 + uint32(30*rng.IntN(30))) % 1440, Timezone: zone.String(), RecipientZone: spread == 2,
				}
			}
			if rng.IntN(4) == 0 {
				r.Batches = []*fanfarev1.Batch{{AtMs: ms(at), EndSeq: 1}, {AtMs: ms(at.Add(3 * time.Hour)), EndSeq: r.GetTotal()}}
			}
		})
		first[number] = at
	}
	waiting := map[uint64]bool{}
	number := uint64(0)
	for ; w.now.Before(year.AddDate(0, 0, 4)); w.now = w.now.Add(step) {
		if rng.IntN(24) == 0 && w.now.Before(year) {
			number++
			schedule(number)
			waiting[number] = true
		}
		w.step(30)
		w.step(30)
		for n := range waiting { // each begins in the round after its time
			c, late := w.camps[n], w.now.Sub(first[n])
			if state := c.record.GetState(); state != schemas.StateScheduled && state != schemas.StatePreparing {
				delete(waiting, n)
				continue
			}
			for seq := range c.record.GetTotal() {
				if late > 2*step && waits(c, seq).IsZero() {
					t.Fatalf("campaign %d is %s at %s, scheduled for %s", n, schemas.StateName(c.record.GetState()), w.now, first[n])
				}
			}
		}
		if rng.IntN(300) == 0 {
			w.saveCursors(true)
			if err := w.takeOver(); err != nil {
				t.Fatal(err)
			}
		}
		if len(w.faults) > 0 {
			t.Fatal(strings.Join(w.faults, "\n"))
		}
	}
	w.drain()
	got := w.handedOver()
	for n := uint64(1); n <= number; n++ {
		for seq := range w.camps[n].record.GetTotal() {
			if times := got[[2]uint64{n, uint64(seq)}]; times != 1 {
				t.Errorf("campaign %d: recipient %d was handed over %d times", n, seq, times)
			}
		}
		if _, ok := w.settled[n]; !ok {
			t.Errorf("campaign %d is %s and not settled", n, schemas.StateName(w.camps[n].record.GetState()))
		}
	}
	if number < 1000 {
		t.Errorf("%d campaigns in a year: too few", number)
	}
	for _, f := range w.faults {
		t.Error(f)
	}
	t.Logf("%d campaigns", number)
}
