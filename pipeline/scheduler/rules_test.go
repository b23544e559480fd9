package scheduler

import (
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const (
	sentKind      = fanfarev1.Kind_KIND_SENT
	returnedKind  = fanfarev1.Kind_KIND_RETURNED
	bouncedKind   = fanfarev1.Kind_KIND_BOUNCED
	ambiguousKind = fanfarev1.Kind_KIND_AMBIGUOUS
	deliveredKind = fanfarev1.Kind_KIND_DELIVERED
	noCode        = fanfarev1.Code_CODE_UNSPECIFIED
)

// table is a world whose outcomes a test says one by one.
type table struct {
	*world
	t *testing.T
}

func newTable(t *testing.T, rate uint32) *table {
	tb := &table{newWorld(1), t}
	tb.addRoute("sim", rate)
	tb.addTenant(testTenant, 0, 1)
	return tb
}

// start runs the store's part until a campaign is sending.
func (tb *table) start() {
	for range 50 {
		tb.serveStore()
	}
}

// deals returns what is dealt now, by campaign number.
func (tb *table) deals() []deal {
	tb.t.Helper()
	out := tb.core.Deals(tb.now)
	for _, d := range out {
		tb.dealt(d)
	}
	tb.noFaults()
	return out
}

func (tb *table) noFaults() {
	tb.t.Helper()
	for _, f := range tb.faults {
		tb.t.Fatal(f)
	}
}

func (tb *table) after(d time.Duration) { tb.now = tb.now.Add(d) }

// says lets an event about a recipient be written and read.
func (tb *table) says(number uint64, seq, n uint32, kind fanfarev1.Kind, code fanfarev1.Code, again time.Time) {
	e := event{campaign: number, seq: seq, try: n, leg: 1, kind: kind, code: code, at: ms(tb.now), price: 50_000}
	if !again.IsZero() {
		e.again = ms(again)
	}
	tb.write(e)
	tb.drain()
}

// allSay lets every recipient of some deals say the same.
func (tb *table) allSay(deals []deal, kind fanfarev1.Kind, code fanfarev1.Code) {
	for _, d := range deals {
		d.members().Iterate(func(seq uint32) bool {
			tb.says(d.campaign.number, seq, uint32(d.try), kind, code, time.Time{})
			return true
		})
	}
}

// ends returns what is ended now, and lets it be read.
func (tb *table) ends() []ending {
	out := tb.core.Ends(tb.now, 1<<20)
	for _, e := range out {
		tb.write(event{campaign: e.campaign.number, seq: e.seq, try: uint32(e.try), leg: uint32(e.leg), kind: e.kind, code: e.code, at: ms(tb.now)})
	}
	tb.drain()
	return out
}

func recipients(deals []deal) (n int) {
	for _, d := range deals {
		n += int(d.size())
	}
	return n
}

func (tb *table) wantDealt(deals []deal, want int) {
	tb.t.Helper()
	if got := recipients(deals); got != want {
		tb.t.Fatalf("dealt %d, want %d", got, want)
	}
}

func (tb *table) wantState(number uint64, want fanfarev1.State) {
	tb.t.Helper()
	if got := tb.camps[number].record.GetState(); got != want {
		tb.t.Fatalf("campaign is %s, want %s", got, want)
	}
}

// wantEnd holds that exactly one recipient is ended now, in that way.
func (tb *table) wantEnd(seq uint32, n int, kind fanfarev1.Kind, code fanfarev1.Code) {
	tb.t.Helper()
	got := tb.ends()
	if len(got) != 1 || got[0].seq != seq || int(got[0].try) != n || got[0].kind != kind || got[0].code != code {
		tb.t.Fatalf("ends %v, want seq %d try %d %s %s", got, seq, n, kind, code)
	}
}

func TestInFlightBounds(t *testing.T) {
	tb := newTable(t, 2000) // 1 s and 300 ms of it: 2,600; a chunk is a quarter
	tb.addCampaign(10001, testTenant, 20_000, 1000, smsLeg(3))
	tb.start()
	first := tb.deals()
	tb.wantDealt(first, 650+350+650+350+650) // cut at the blobs' ends, full at 2,600
	tb.wantDealt(tb.deals(), 0)
	tb.allSay(first[:1], sentKind, noCode)
	tb.wantDealt(tb.deals(), 350+650) // 2,000 are in flight
}

func TestLevels(t *testing.T) {
	for name, c := range map[string]struct {
		limit func(*table, *fakeCampaign)
		want  int
	}{
		"tenant":   {func(tb *table, _ *fakeCampaign) { tb.addTenant(testTenant, 10, 1) }, 15},
		"campaign": {func(tb *table, c *fakeCampaign) { tb.set(c, func(r *fanfarev1.Campaign) { r.Rate = 10 }) }, 15},
		"sender": {func(tb *table, _ *fakeCampaign) {
			tb.core.SenderChanged(&fanfarev1.Sender{Tenant: testTenant, Id: "S", Rate: 10})
		}, 15}, // 13 may be in flight, by threes
		"tenant disabled": {func(tb *table, _ *fakeCampaign) { tb.core.tenant(testTenant).enabled = false }, 0},
		"route disabled":  {func(tb *table, _ *fakeCampaign) { tb.core.route("sim").enabled = false }, 0},
		"hours not valid": {func(tb *table, c *fakeCampaign) {
			tb.set(c, func(r *fanfarev1.Campaign) {
				r.CallingHours = &fanfarev1.CallingHours{StartMinute: 1, Timezone: "Nowhere"}
			})
		}, 0},
		"paused": {func(tb *table, c *fakeCampaign) {
			tb.set(c, func(r *fanfarev1.Campaign) { r.State = fanfarev1.State_STATE_PAUSED })
		}, 0},
		"suspended": {func(tb *table, c *fakeCampaign) {
			tb.set(c, func(r *fanfarev1.Campaign) { r.State = fanfarev1.State_STATE_SUSPENDED })
		}, 0},
		"nothing forbids": {func(*table, *fakeCampaign) {}, 2600},
		"an older version": {func(tb *table, c *fakeCampaign) {
			r := cloneRecord(c.record)
			r.Version--
			r.State = fanfarev1.State_STATE_PAUSED
			tb.core.CampaignChanged(r)
		}, 2600},
		"the breaker opens": {func(tb *table, _ *fakeCampaign) { tb.core.route("sim").stopUntil = ms(tb.now) + 1 }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			tb := newTable(t, 2000)
			camp := tb.addCampaign(10001, testTenant, 20_000, 5000, smsLeg(3))
			tb.start()
			tb.wantState(10001, fanfarev1.State_STATE_SENDING)
			c.limit(tb, camp)
			tb.wantDealt(tb.deals(), c.want)
		})
	}
}

// TestFairShares runs a full route for a while and counts who was served.
func TestFairShares(t *testing.T) {
	for name, c := range map[string]struct {
		weights [2]uint32 // of the tenants
		rates   [2]uint32
		want    [2]float64 // share of the route
	}{
		"alike":            {[2]uint32{1, 1}, [2]uint32{}, [2]float64{0.5, 0.5}},
		"weights":          {[2]uint32{1, 3}, [2]uint32{}, [2]float64{0.25, 0.75}},
		"one is throttled": {[2]uint32{1, 1}, [2]uint32{100, 0}, [2]float64{0.1, 0.9}},
	} {
		t.Run(name, func(t *testing.T) {
			tb := newTable(t, 1000)
			tb.addTenant(testTenant, c.rates[0], c.weights[0])
			tb.addTenant("tn_b", c.rates[1], c.weights[1])
			// Many campaigns do not make a tenant's share larger.
			for i := range uint64(3) {
				tb.addCampaign(10001+i, testTenant, 20_000, 5000, smsLeg(3))
			}
			tb.addCampaign(10010, "tn_b", 60_000, 5000, smsLeg(3))
			tb.start()
			const seconds = 20
			tokens := map[string]float64{}
			answered := map[string]int{}
			for range seconds * 20 {
				tb.deals()
				// The carrier takes what comes, in order, and no tenant above its rate.
				tokens["sim"] += 50
				for tenant, rate := range map[string]uint32{testTenant: c.rates[0], "tn_b": c.rates[1]} {
					if tokens[tenant] += float64(rate) / 20; rate == 0 {
						tokens[tenant] = 1e9
					}
				}
				rest := tb.flying[:0]
				for _, s := range tb.flying {
					tenant := tb.camps[s.campaign].record.GetTenant()
					if tokens["sim"] < 1 || tokens[tenant] < 1 {
						rest = append(rest, s)
						continue
					}
					tokens["sim"]--
					tokens[tenant]--
					answered[tenant]++
					tb.write(event{campaign: s.campaign, seq: s.seq, try: 1, leg: 1, kind: sentKind, at: ms(tb.now)})
				}
				tb.flying = rest
				tb.drain()
				tb.after(50 * time.Millisecond)
			}
			total := answered[testTenant] + answered["tn_b"]
			if use := float64(total) / (1000 * seconds); use < 0.98 {
				t.Errorf("route use %.3f, want at least 0.98", use)
			}
			for i, tenant := range []string{testTenant, "tn_b"} {
				if got := float64(answered[tenant]) / float64(total); got < c.want[i]-0.05 || got > c.want[i]+0.05 {
					t.Errorf("%s had %.3f of the route, want %.2f", tenant, got, c.want[i])
				}
			}
		})
	}
}

// TestSmallBehindLarge: a small campaign is dealt in the next round, however much the large one has left.
func TestSmallBehindLarge(t *testing.T) {
	tb := newTable(t, 1000)
	tb.addCampaign(10001, testTenant, 200_000, 5000, smsLeg(3))
	tb.start()
	running := tb.deals()
	tb.addCampaign(10002, testTenant, 100, 5000, smsLeg(3))
	tb.start()
	tb.allSay(running[:2], sentKind, noCode)
	for _, d := range tb.deals() {
		if d.campaign.number == 10002 {
			return
		}
	}
	t.Error("the small campaign was not dealt")
}

func TestPauseAndResume(t *testing.T) {
	tb := newTable(t, 100)
	c := tb.addCampaign(10001, testTenant, 1000, 500, smsLeg(3))
	tb.start()
	first := tb.deals()
	tb.wantDealt(first, 160) // five chunks of 32
	tb.set(c, func(r *fanfarev1.Campaign) { r.State = fanfarev1.State_STATE_PAUSED })
	tb.allSay(first[:2], returnedKind, fanfarev1.Code_CODE_PAUSED)
	tb.allSay(first[2:3], sentKind, noCode)
	tb.wantDealt(tb.deals(), 0)
	tb.set(c, func(r *fanfarev1.Campaign) { r.State = fanfarev1.State_STATE_SENDING })
	again := tb.deals()
	if len(again) < 2 || again[0].try != 2 || again[0].first != 0 || again[1].end != 64 || recipients(again[:2]) != 64 {
		t.Fatalf("dealt %+v, want the 64 that were given back, at once, before anybody new", again)
	}
	for _, d := range again[2:] {
		if d.try != 1 {
			t.Errorf("dealt [%d, %d) at try %d: nobody gave them back", d.first, d.end, d.try)
		}
	}
}

func TestAbort(t *testing.T) {
	tb := newTable(t, 100)
	c := tb.addCampaign(10001, testTenant, 20_000, 5000, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 160) // the route is full
	tb.says(10001, 0, 1, returnedKind, fanfarev1.Code_CODE_RATE, tb.now.Add(time.Minute))
	tb.says(10001, 1, 1, sentKind, noCode, time.Time{})
	tb.says(10001, 1, 1, bouncedKind, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, time.Time{})
	tb.wantDealt(tb.deals(), 0)
	tb.set(c, func(r *fanfarev1.Campaign) { r.State = fanfarev1.State_STATE_ABORTED })
	cancelled := append(tb.deals(), tb.deals()...)
	tb.wantDealt(cancelled, 20_000-160+1) // all that were not dealt and the one that waits, though the route is full
	for _, d := range cancelled {
		if !d.cancel || d.outcome != fanfarev1.Kind_KIND_SKIPPED || d.code != fanfarev1.Code_CODE_CANCELLED {
			t.Fatalf("dealt %+v, want a cancel", d)
		}
	}
	tb.drain()
	tb.wantEnd(1, 1, fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER)
	for _, s := range tb.flying {
		if s.seq > 1 {
			tb.says(10001, s.seq, 1, fanfarev1.Kind_KIND_SKIPPED, fanfarev1.Code_CODE_CANCELLED, time.Time{})
		}
	}
	tb.start()
	if got, ok := tb.settled[10001]; !ok || got != 50_000 {
		t.Errorf("captured %d, settled %v; want 50000 for the one that was handed over", got, ok)
	}
}

// TestAbortBeforeFreeze: with no audience there is nobody to cancel.
func TestAbortBeforeFreeze(t *testing.T) {
	tb := newTable(t, 100)
	c := tb.addCampaign(10001, testTenant, 0, 5000, smsLeg(3))
	tb.set(c, func(r *fanfarev1.Campaign) { r.FreezeId, r.State = "", fanfarev1.State_STATE_ABORTED })
	tb.start()
	if _, ok := tb.settled[10001]; !ok {
		t.Error("not settled")
	}
}

func TestNobodyToSendTo(t *testing.T) {
	tb := newTable(t, 100)
	tb.addCampaign(10001, testTenant, 0, 5000, smsLeg(3))
	tb.start()
	tb.wantState(10001, fanfarev1.State_STATE_COMPLETED)
	if _, ok := tb.settled[10001]; !ok {
		t.Error("not settled")
	}
}

func TestCallingHours(t *testing.T) {
	tb := newTable(t, 100)
	c := tb.addCampaign(10001, testTenant, 1000, 500, smsLeg(3))
	day := &fanfarev1.CallingHours{StartMinute: 9 * 60, EndMinute: 20 * 60, Timezone: "Europe/Rome"}
	tb.set(c, func(r *fanfarev1.Campaign) { r.CallingHours = day })
	tb.start() // 11:00 in Rome
	first := tb.deals()
	tb.wantDealt(first, 160)
	tb.now = time.Date(2030, 3, 4, 19, 0, 0, 0, time.UTC) // 20:00 in Rome: closed
	tb.allSay(first, returnedKind, fanfarev1.Code_CODE_WINDOW)
	tb.wantDealt(tb.deals(), 0)
	tb.now = time.Date(2030, 3, 5, 7, 59, 59, 0, time.UTC)
	tb.wantDealt(tb.deals(), 0)
	tb.now = time.Date(2030, 3, 5, 8, 0, 0, 0, time.UTC) // 9:00
	again := tb.deals()
	if again[0].try != 2 || recipients(again) != 160 {
		t.Fatalf("dealt %d at try %d, want the 160 that came back", recipients(again), again[0].try)
	}
	// Hours that are widened while they wait count at once.
	tb.now = time.Date(2030, 3, 5, 19, 0, 0, 0, time.UTC)
	tb.allSay(again, returnedKind, fanfarev1.Code_CODE_WINDOW)
	tb.wantDealt(tb.deals(), 0)
	tb.set(c, func(r *fanfarev1.Campaign) {
		r.CallingHours = &fanfarev1.CallingHours{StartMinute: 9 * 60, EndMinute: 22 * 60, Timezone: "Europe/Rome"}
	})
	tb.after(time.Minute)
	if again := tb.deals(); len(again) == 0 || again[0].try != 3 {
		t.Errorf("dealt %+v, want those who wait: the hours are open now", again)
	}
}

// TestNoStartWhileClosed: a campaign stays preparing, and can be cancelled, until its first chunk can be dealt.
func TestNoStartWhileClosed(t *testing.T) {
	tb := newTable(t, 100)
	c := tb.addCampaign(10001, testTenant, 1000, 500, smsLeg(3))
	tb.set(c, func(r *fanfarev1.Campaign) {
		r.CallingHours = &fanfarev1.CallingHours{StartMinute: 14 * 60, EndMinute: 20 * 60, Timezone: "Europe/Rome"}
	})
	tb.start()
	tb.wantState(10001, fanfarev1.State_STATE_PREPARING)
	tb.wantDealt(tb.deals(), 0)
	tb.after(3 * time.Hour)
	tb.start()
	tb.wantState(10001, fanfarev1.State_STATE_SENDING)
}

func TestSchedule(t *testing.T) {
	for name, c := range map[string]struct {
		late time.Duration
		want fanfarev1.State
	}{
		"not yet":           {-time.Second, fanfarev1.State_STATE_SCHEDULED},
		"now":               {0, fanfarev1.State_STATE_SENDING},
		"an hour late":      {time.Hour, fanfarev1.State_STATE_SENDING},
		"more than an hour": {time.Hour + time.Second, fanfarev1.State_STATE_SUSPENDED},
	} {
		t.Run(name, func(t *testing.T) {
			tb := newTable(t, 100)
			camp := tb.addCampaign(10001, testTenant, 10, 500, smsLeg(3))
			tb.set(camp, func(r *fanfarev1.Campaign) {
				r.State, r.ScheduledMs = fanfarev1.State_STATE_SCHEDULED, ms(tb.now.Add(-c.late))
			})
			tb.start()
			tb.noFaults()
			tb.wantState(10001, c.want)
			if c.want == fanfarev1.State_STATE_SUSPENDED {
				if got := tb.core.campaigns[10001].record.GetReason(); got != ReasonMissedSchedule {
					t.Errorf("reason %q, want %q", got, ReasonMissedSchedule)
				}
			}
		})
	}
}

func TestBreaker(t *testing.T) {
	tb := newTable(t, 1000)
	tb.addCampaign(10001, testTenant, 20_000, 5000, smsLeg(3))
	tb.start()
	first := tb.deals()
	back := tb.now.Add(30 * time.Second)
	for seq := range uint32(5) {
		tb.says(10001, seq, 1, returnedKind, fanfarev1.Code_CODE_BREAKER, back)
	}
	for _, d := range first {
		d.members().Iterate(func(seq uint32) bool {
			if seq >= 5 {
				tb.says(10001, seq, 1, returnedKind, fanfarev1.Code_CODE_BREAKER, back)
			}
			return true
		})
	}
	tb.after(29 * time.Second)
	tb.wantDealt(tb.deals(), 0)
	tb.after(2 * time.Second)
	probe := tb.deals()
	if got := recipients(probe); got == 0 || got > 15 {
		t.Fatalf("dealt %d while nobody knows if the carrier is back, want a hundredth of 1300", got)
	}
	tb.says(10001, probe[0].first, uint32(probe[0].try), sentKind, noCode, time.Time{})
	if got := recipients(tb.deals()); got < 1000 {
		t.Errorf("dealt %d after the carrier took one, want about 1300", got)
	}
}

// TestRetries walks one recipient through its hand-overs: each retry within its backoff, three hand-overs, then the end.
func TestRetries(t *testing.T) {
	tb := newTable(t, 1000)
	c := tb.addCampaign(10001, testTenant, 1, 500, &fanfarev1.Leg{Channel: fanfarev1.Channel_CHANNEL_SMS, Route: "sim"}) // the defaults of R163: 1, 5, 25 min
	tb.start()
	tb.wantDealt(tb.deals(), 1)
	for n, wait := range []time.Duration{time.Minute, 5 * time.Minute} {
		tb.says(10001, 0, uint32(n+1), sentKind, noCode, time.Time{})
		tb.says(10001, 0, uint32(n+1), bouncedKind, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, time.Time{})
		tb.wantDealt(tb.deals(), 0)
		tb.start()
		tb.wantState(10001, fanfarev1.State_STATE_SENDING) // one waits
		tb.after(wait + time.Second)
		tb.wantDealt(tb.deals(), 1)
	}
	tb.says(10001, 0, 3, bouncedKind, fanfarev1.Code_CODE_HANDSET_OFF, time.Time{}) // without its sent: also a hand-over
	tb.wantEnd(0, 3, fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_HANDSET_OFF)
	tb.after(time.Hour)
	tb.wantDealt(tb.deals(), 0)
	tb.start()
	tb.wantState(10001, fanfarev1.State_STATE_COMPLETED)
	if !c.record.GetSettled() {
		t.Error("not settled")
	}
}

func TestReturnsAreNoHandovers(t *testing.T) {
	tb := newTable(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, smsLeg(2))
	tb.start()
	tb.wantDealt(tb.deals(), 1)
	n := uint32(1)
	for ; n <= 8; n++ {
		tb.says(10001, 0, n, returnedKind, fanfarev1.Code_CODE_RATE, tb.now.Add(time.Second))
		tb.wantDealt(tb.deals(), 0)
		tb.after(10 * time.Second)
		tb.wantDealt(tb.deals(), 1)
	}
	tb.says(10001, 0, n, bouncedKind, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, time.Time{}) // the first hand-over
	if got := tb.ends(); len(got) > 0 {
		t.Fatalf("ended %v, want another hand-over", got)
	}
	tb.after(time.Minute)
	tb.wantDealt(tb.deals(), 1)
}

func TestRetryOnce(t *testing.T) {
	tb := newTable(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.start()
	tb.deals()
	tb.says(10001, 0, 1, bouncedKind, fanfarev1.Code_CODE_EXPIRED, time.Time{})
	tb.after(time.Minute)
	tb.wantDealt(tb.deals(), 1)
	tb.says(10001, 0, 2, bouncedKind, fanfarev1.Code_CODE_EXPIRED, time.Time{})
	tb.wantEnd(0, 2, fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_EXPIRED)
}

// TestDoubtIsNeverDealt: an ambiguous recipient is dealt again only when its holder gives it back, or the carrier says no.
func TestDoubtIsNeverDealt(t *testing.T) {
	tb := newTable(t, 1000)
	tb.addCampaign(10001, testTenant, 3, 500, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 3)
	for seq := range uint32(3) {
		tb.says(10001, seq, 1, ambiguousKind, fanfarev1.Code_CODE_CRASH, time.Time{})
	}
	tb.after(time.Hour)
	tb.wantDealt(tb.deals(), 0)
	tb.says(10001, 1, 1, returnedKind, fanfarev1.Code_CODE_THROTTLED, time.Time{})
	tb.says(10001, 2, 1, bouncedKind, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, time.Time{})
	tb.after(time.Minute)
	tb.wantDealt(tb.deals(), 2)
}

// TestContradiction: who was given back and handed over at one try, if anybody ever says so, is not dealt again.
func TestContradiction(t *testing.T) {
	tb := newTable(t, 1000)
	c := tb.addCampaign(10001, testTenant, 2, 500, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 2)
	tb.set(c, func(r *fanfarev1.Campaign) { r.State = fanfarev1.State_STATE_PAUSED })
	tb.says(10001, 0, 1, returnedKind, fanfarev1.Code_CODE_PAUSED, time.Time{})
	tb.says(10001, 1, 1, returnedKind, fanfarev1.Code_CODE_PAUSED, time.Time{})
	tb.wantDealt(tb.deals(), 0)
	tb.says(10001, 0, 1, sentKind, noCode, time.Time{})
	tb.set(c, func(r *fanfarev1.Campaign) { r.State = fanfarev1.State_STATE_SENDING })
	if got := tb.deals(); len(got) != 1 || got[0].first != 1 || got[0].end != 2 {
		t.Errorf("dealt %+v, want seq 1 alone", got)
	}
}

// TestSenderClockAhead: a sender whose clock is ahead closes earlier than we do. What it gives back waits for the next opening,
// and does not come and go until our clock has reached the end too.
func TestSenderClockAhead(t *testing.T) {
	tb := newTable(t, 1000)
	c := tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.set(c, func(r *fanfarev1.Campaign) {
		r.CallingHours = &fanfarev1.CallingHours{StartMinute: 9 * 60, EndMinute: 20 * 60, Timezone: "Europe/Rome"}
	})
	tb.start()
	tb.wantDealt(tb.deals(), 1)
	end := time.Date(2030, 3, 4, 19, 0, 0, 0, time.UTC)
	tb.now = end.Add(2 * time.Second)
	tb.says(10001, 0, 1, returnedKind, fanfarev1.Code_CODE_WINDOW, time.Time{})
	tb.now = end.Add(-3 * time.Second)
	tb.wantDealt(tb.deals(), 0)
	tb.now = end.Add(13 * time.Hour)
	tb.wantDealt(tb.deals(), 1)
}

// TestStaleEnd: an end that was decided and not written is dropped when another try has gone out meanwhile.
func TestStaleEnd(t *testing.T) {
	tb := newTable(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 1)
	tb.says(10001, 0, 1, bouncedKind, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, time.Time{})
	tb.wantDealt(tb.deals(), 0)
	tb.after(time.Minute)
	tb.says(10001, 0, 1, bouncedKind, fanfarev1.Code_CODE_OPERATOR_BLACKLIST, time.Time{}) // nothing may follow that
	tb.wantDealt(tb.deals(), 1)                                                            // but it is due already
	if got := tb.ends(); len(got) > 0 {
		t.Fatalf("ended %v while try 2 is in flight", got)
	}
	tb.says(10001, 0, 2, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_SPAM_CONTENT, time.Time{})
	tb.wantEnd(0, 1, fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_OPERATOR_BLACKLIST)
}

// TestReview: what the predecessor had read and not acted upon when its sets were written is decided by the successor.
func TestReview(t *testing.T) {
	tb := newTable(t, 1000)
	c := tb.addCampaign(10001, testTenant, 4, 500, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 4)
	for seq, code := range []fanfarev1.Code{fanfarev1.Code_CODE_BARRED, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER} {
		tb.says(10001, uint32(seq), 1, bouncedKind, code, time.Time{})
	}
	tb.says(10001, 2, 1, returnedKind, fanfarev1.Code_CODE_RATE, time.Time{})
	tb.says(10001, 3, 1, bouncedKind, fanfarev1.Code_CODE_MEMORY_FULL, time.Time{})
	tb.says(10001, 3, 2, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_SPAM_CONTENT, time.Time{})
	camp := tb.core.campaigns[10001]
	parts, _ := camp.snapshot()
	next := newCore()
	if err := next.restore(camp.cursor(), parts); err != nil {
		t.Fatal(err)
	}
	tb.core = next
	next.RouteChanged(tb.routes[0])
	next.TenantChanged(&fanfarev1.Tenant{Id: testTenant, Enabled: true})
	next.CampaignChanged(c.record)
	tb.start()
	ends := map[uint32]fanfarev1.Code{}
	for _, e := range tb.ends() {
		ends[e.seq] = e.code
	}
	if len(ends) != 2 || ends[0] != fanfarev1.Code_CODE_BARRED || ends[3] != fanfarev1.Code_CODE_MEMORY_FULL {
		t.Errorf("ended %v, want 0 as BARRED and 3 as MEMORY_FULL", ends)
	}
	tb.after(time.Minute)
	if got := tb.deals(); recipients(got) != 2 || got[0].try != 2 {
		t.Errorf("dealt %+v, want 1 and 2 again", got)
	}
}

// TestAfterSettled: what was written before the campaign was settled has been dealt with, and is not ended again when it is read again.
func TestAfterSettled(t *testing.T) {
	tb := newTable(t, 1000)
	c := tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.start()
	tb.set(c, func(r *fanfarev1.Campaign) {
		r.State, r.Settled, r.SettledMs = fanfarev1.State_STATE_COMPLETED, true, ms(tb.now)
	})
	tb.after(-time.Minute)
	tb.says(10001, 0, 1, bouncedKind, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, time.Time{})
	if got := tb.ends(); len(got) > 0 {
		t.Errorf("ended %v", got)
	}
}

func TestCaptured(t *testing.T) {
	for name, c := range map[string]struct {
		says []fanfarev1.Kind
		code fanfarev1.Code
		want uint64
	}{
		"delivered":                     {[]fanfarev1.Kind{sentKind, deliveredKind}, noCode, 50_000},
		"sent":                          {[]fanfarev1.Kind{sentKind}, noCode, 50_000},
		"in doubt":                      {[]fanfarev1.Kind{ambiguousKind}, noCode, 0},
		"in doubt, then delivered":      {[]fanfarev1.Kind{ambiguousKind, deliveredKind}, noCode, 50_000},
		"in doubt, then sent":           {[]fanfarev1.Kind{ambiguousKind, sentKind}, noCode, 50_000},
		"given back":                    {[]fanfarev1.Kind{returnedKind}, noCode, 0},
		"undelivered":                   {[]fanfarev1.Kind{sentKind, fanfarev1.Kind_KIND_UNDELIVERED}, fanfarev1.Code_CODE_BARRED, 50_000},
		"the provider's error":          {[]fanfarev1.Kind{sentKind, fanfarev1.Kind_KIND_UNDELIVERED}, fanfarev1.Code_CODE_PROVIDER_ERROR, 0},
		"an error, and delivered still": {[]fanfarev1.Kind{sentKind, bouncedKind, deliveredKind}, fanfarev1.Code_CODE_PROVIDER_ERROR, 50_000},
	} {
		t.Run(name, func(t *testing.T) {
			tb := newTable(t, 1000)
			tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
			tb.start()
			tb.deals()
			for _, kind := range c.says {
				tb.says(10001, 0, 1, kind, c.code, time.Time{})
			}
			if got := tb.core.campaigns[10001].captured(); got != c.want {
				t.Errorf("captured %d, want %d", got, c.want)
			}
		})
	}
}

func TestRetryShare(t *testing.T) {
	tb := newTable(t, 1000) // 100 retries a second, 100 at once
	tb.addCampaign(10001, testTenant, 20_000, 5000, smsLeg(3))
	tb.start()
	for range 10 {
		tb.allSay(tb.deals(), bouncedKind, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER)
	}
	tb.after(time.Minute) // thousands are due
	var retries int
	for range 20 {
		for _, d := range tb.deals() {
			if d.try > 1 {
				retries += int(d.size())
			}
			tb.allSay([]deal{d}, sentKind, noCode)
		}
		tb.after(100 * time.Millisecond)
	}
	if retries < 250 || retries > 300 {
		t.Errorf("%d retries in 2 s, want 100 and 100 a second: a tenth of the route", retries)
	}
}

func TestLost(t *testing.T) {
	tb := newTable(t, 1000)
	c := tb.addCampaign(10001, testTenant, 2, 500, smsLeg(3)) // valid for an hour
	tb.start()
	tb.wantDealt(tb.deals(), 2)
	tb.says(10001, 0, 1, deliveredKind, noCode, time.Time{})
	tb.after(time.Hour + 9*time.Minute)
	if got := tb.ends(); len(got) > 0 {
		t.Fatalf("ended %v before its time", got)
	}
	tb.after(2 * time.Minute)
	tb.wantEnd(1, 1, ambiguousKind, fanfarev1.Code_CODE_LOST)
	tb.wantDealt(tb.deals(), 0)
	tb.start()
	tb.wantState(10001, fanfarev1.State_STATE_COMPLETED)
	if c.record.GetSettled() {
		t.Error("settled while a receipt may still clear the doubt")
	}
	tb.after(time.Hour)
	tb.start()
	if !c.record.GetSettled() {
		t.Error("not settled after the receipt window")
	}
}

func TestReceiptWindow(t *testing.T) {
	tb := newTable(t, 1000) // receipts are awaited for an hour
	c := tb.addCampaign(10001, testTenant, 3, 500, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 3)
	tb.says(10001, 0, 1, deliveredKind, noCode, time.Time{})
	tb.after(10 * time.Minute)
	tb.says(10001, 1, 1, sentKind, noCode, time.Time{}) // the last hand-over
	tb.says(10001, 2, 1, ambiguousKind, fanfarev1.Code_CODE_TIMEOUT, time.Time{})
	tb.start()
	tb.wantState(10001, fanfarev1.State_STATE_COMPLETED)
	tb.after(59 * time.Minute)
	if got := tb.ends(); len(got) > 0 || c.record.GetSettled() {
		t.Fatalf("ended %v, settled %v before the window was over", got, c.record.GetSettled())
	}
	tb.after(time.Minute)
	tb.wantEnd(1, 1, fanfarev1.Kind_KIND_UNCONFIRMED, fanfarev1.Code_CODE_NO_DLR)
	tb.start()
	if !c.record.GetSettled() {
		t.Fatal("not settled")
	}
	if got, _ := tb.model(c); got.ambiguous != 1 || got.awaiting != 1 {
		t.Errorf("census %+v, want one ambiguous for ever and one awaiting", got)
	}
	// What comes later is a correction; nothing stays open.
	tb.says(10001, 2, 1, bouncedKind, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, time.Time{})
	tb.wantEnd(2, 1, fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER)
}

func TestNextLeg(t *testing.T) {
	for name, c := range map[string]struct {
		kind    fanfarev1.Kind
		code    fanfarev1.Code
		follows bool
		leg     uint8
		end     fanfarev1.Code
	}{
		"cannot reach":                    {returnedKind, fanfarev1.Code_CODE_UNSUPPORTED, true, 2, 0},
		"refused by the handset":          {bouncedKind, fanfarev1.Code_CODE_HANDSET_ERROR, true, 2, 0},
		"expired, one hand-over allowed":  {bouncedKind, fanfarev1.Code_CODE_EXPIRED, true, 2, 0},
		"blacklisted: no channel helps":   {bouncedKind, fanfarev1.Code_CODE_OPERATOR_BLACKLIST, false, 0, fanfarev1.Code_CODE_OPERATOR_BLACKLIST},
		"silence":                         {sentKind, noCode, false, 0, 0},
		"doubt":                           {ambiguousKind, fanfarev1.Code_CODE_TIMEOUT, false, 0, 0},
		"the carrier is busy: same leg":   {returnedKind, fanfarev1.Code_CODE_THROTTLED, true, 1, 0},
		"not sent is final":               {fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_SPAM_CONTENT, false, 0, 0},
		"undelivered is final":            {fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_HANDSET_ERROR, false, 0, 0},
		"delivered is final, fortunately": {deliveredKind, noCode, false, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			tb := newTable(t, 1000)
			tb.addRoute("rcs", 1000)
			tb.addCampaign(10001, testTenant, 1, 500, rcsLeg("rcs"), smsLeg(3))
			tb.start()
			first := tb.deals()
			if len(first) != 1 || first[0].leg != 1 {
				t.Fatalf("dealt %+v, want leg 1", first)
			}
			tb.says(10001, 0, 1, c.kind, c.code, time.Time{})
			tb.after(50 * time.Minute)
			ends := tb.ends()
			if c.end != 0 {
				if len(ends) != 1 || ends[0].code != c.end {
					t.Fatalf("ended %v, want %s", ends, c.end)
				}
				return
			}
			next := tb.deals()
			if !c.follows {
				tb.wantDealt(next, 0)
				return
			}
			if len(next) != 1 || next[0].leg != c.leg || next[0].try != 2 {
				t.Fatalf("dealt %+v, want leg %d at try 2", next, c.leg)
			}
		})
	}
}

func TestChainEnds(t *testing.T) {
	tb := newTable(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, rcsLeg("sim"))
	tb.start()
	tb.deals()
	tb.says(10001, 0, 1, returnedKind, fanfarev1.Code_CODE_UNSUPPORTED, time.Time{})
	tb.wantEnd(0, 1, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_RCS_NOT_CAPABLE)
}

// TestFollowingTryEnds: a bounce whose following try never left ends as what the carrier had said.
func TestFollowingTryEnds(t *testing.T) {
	tb := newTable(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.start()
	tb.deals()
	tb.says(10001, 0, 1, bouncedKind, fanfarev1.Code_CODE_MEMORY_FULL, time.Time{})
	tb.after(2 * time.Minute)
	tb.wantDealt(tb.deals(), 1)
	tb.says(10001, 0, 2, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_VALIDITY_EXPIRED, time.Time{})
	tb.wantEnd(0, 1, fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_MEMORY_FULL)
}

func TestTriesSpent(t *testing.T) {
	tb := newTable(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.start()
	begin := tb.now
	for n := uint32(1); n < lastTry; n++ {
		for recipients(tb.deals()) == 0 {
			tb.after(max(time.Second, time.Duration(pacing(int(n)))*time.Millisecond/4))
		}
		tb.says(10001, 0, n, returnedKind, fanfarev1.Code_CODE_RATE, time.Time{})
	}
	if took := tb.now.Sub(begin); took < maxValidity {
		t.Errorf("%d tries were spent in %s, want no less than %s: a long trouble must not use them up", lastTry, took, maxValidity)
	}
	tb.after(time.Hour)
	tb.wantDealt(tb.deals(), 1)
	tb.says(10001, 0, lastTry, returnedKind, fanfarev1.Code_CODE_RATE, time.Time{})
	tb.wantEnd(0, lastTry, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_TRIES_SPENT)
	tb.wantDealt(tb.deals(), 0)
}

// TestCancelIsCarriedOut: when nobody answers a cancel, the scheduler does.
func TestCancelIsCarriedOut(t *testing.T) {
	tb := newTable(t, 1)
	c := tb.addCampaign(10001, testTenant, 3, 500, smsLeg(3))
	tb.start()
	tb.deals()
	tb.allSay(tb.deals(), sentKind, noCode)
	tb.set(c, func(r *fanfarev1.Campaign) { r.State = fanfarev1.State_STATE_ABORTED })
	if got := tb.core.Deals(tb.now); recipients(got) == 0 { // and the chunk comes to nothing
		t.Fatal("nothing was cancelled")
	}
	tb.after(21 * time.Minute)
	for _, e := range tb.ends() {
		if e.kind != fanfarev1.Kind_KIND_SKIPPED || e.code != fanfarev1.Code_CODE_CANCELLED {
			t.Errorf("ended %+v, want skipped/CANCELLED", e)
		}
	}
	if got, _ := tb.model(c); got.never == 0 {
		t.Errorf("census %+v, want skipped ones", got)
	}
}

func TestMoveIsAskedOnce(t *testing.T) {
	tb := newTable(t, 100)
	tb.addCampaign(10001, testTenant, 10, 500, smsLeg(3))
	for _, w := range tb.core.Wants(tb.now) {
		if err := tb.core.Wanted(w, tb.camps[w.number].blobs, nil, tb.now); err != nil {
			t.Fatal(err)
		}
	}
	if got := tb.core.Moves(tb.now); len(got) != 1 || got[0].Trigger != schemas.TriggerDeal {
		t.Fatalf("moves %+v, want deal", got)
	}
	if got := tb.core.Moves(tb.now); len(got) != 0 {
		t.Fatalf("moves %+v again", got)
	}
	if got := tb.core.Moves(tb.now.Add(moveAgain)); len(got) != 1 {
		t.Fatalf("moves %+v a second later, want the same again", got)
	}
}

// TestEventBeforeRecord: an event may overtake the campaign it is about.
func TestEventBeforeRecord(t *testing.T) {
	tb := newTable(t, 100)
	hidden := &fanfarev1.Campaign{
		Tenant: testTenant, Id: schemas.CampaignID(10009), Number: 10009, Version: 3, State: fanfarev1.State_STATE_SENDING, Hidden: true, Total: 1000,
		CreatedMs: ms(tb.now), ReceiptWindowMs: 1000,
	}
	e := event{campaign: 10009, seq: 7, try: 1, leg: 1, kind: sentKind, at: ms(tb.now), tenant: []byte(testTenant), id: []byte(hidden.GetId())}
	tb.core.observe(&e)
	e.notAfter = ms(tb.now.Add(time.Hour))
	tb.core.submitted(&e, "sim")
	e.seq = 8
	tb.core.submitted(&e, "sim")
	tb.core.CampaignChanged(hidden)
	if got := tb.core.route("sim").txn; got != 1 {
		t.Errorf("%d single sends in flight, want 1", got)
	}
	if got := tb.core.campaigns[10009].census(); got.total != 2 || got.awaiting != 1 || got.pending != 1 {
		t.Errorf("census %+v, want one awaiting and one pending", got)
	}
}

// TestHiddenCampaign: single sends are lost, end and settle like others, once their day is over and nothing is held.
func TestHiddenCampaign(t *testing.T) {
	tb := newTable(t, 100)
	c := &fakeCampaign{record: &fanfarev1.Campaign{
		Tenant: testTenant, Id: schemas.CampaignID(10009), Number: 10009, Version: 3, State: fanfarev1.State_STATE_SENDING, Hidden: true, Total: 1000,
		CreatedMs: ms(tb.now), ReceiptWindowMs: 1000,
	}}
	tb.camps[10009] = c
	tb.core.CampaignChanged(c.record)
	for seq := range uint32(3) {
		tb.core.submitted(&event{campaign: 10009, seq: seq, try: 1, leg: 1, notAfter: ms(tb.now.Add(time.Hour))}, "sim")
	}
	tb.says(10009, 0, 1, bouncedKind, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, time.Time{})
	tb.wantEnd(0, 1, fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER) // never tried again once handed over
	tb.says(10009, 1, 1, returnedKind, fanfarev1.Code_CODE_WINDOW, time.Time{})
	tb.wantDealt(tb.deals(), 0) // it is among the held
	tb.after(2 * time.Hour)
	tb.wantEnd(2, 1, ambiguousKind, fanfarev1.Code_CODE_LOST)
	tb.after(24 * time.Hour)
	tb.start()
	tb.wantState(10009, fanfarev1.State_STATE_SENDING) // seq 1 waits
	tb.core.submitted(&event{campaign: 10009, seq: 1, try: 2, leg: 1, notAfter: ms(tb.now.Add(time.Hour))}, "sim")
	tb.says(10009, 1, 2, deliveredKind, noCode, time.Time{})
	tb.core.holding.put(&held{key: "k", campaign: 10009})
	tb.start()
	tb.wantState(10009, fanfarev1.State_STATE_SENDING) // one is held
	tb.core.holding.remove("k")
	tb.start()
	tb.wantState(10009, fanfarev1.State_STATE_COMPLETED)
	tb.after(time.Second)
	tb.start()
	if !c.record.GetSettled() {
		t.Error("not settled")
	}
}
