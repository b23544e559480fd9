package scheduler

import (
	"testing"
	"time"

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

// TestReroutedUnseen: a campaign that was unscheduled, moved to another route and confirmed again between two looks goes by the
// new one, and does not wait for the old.
func TestReroutedUnseen(t *testing.T) {
	tb := newTable(t, 100)
	tb.addRoute("other", 100)
	camp := tb.addCampaign(10001, testTenant, 10, 500, smsLeg(3))
	tb.set(camp, func(r *fanfarev1.Campaign) {
		r.State, r.ScheduledMs = fanfarev1.State_STATE_SCHEDULED, ms(tb.now.Add(time.Minute))
	})
	tb.start()
	tb.core.RouteChanged(&fanfarev1.Route{Name: "sim", Rate: 100, P99Ms: 300})
	tb.set(camp, func(r *fanfarev1.Campaign) {
		r.Version += 2
		r.ScheduledMs = ms(tb.now)
		r.Legs = []*fanfarev1.Leg{rcsLeg("other")}
	})
	tb.start()
	tb.wantState(10001, fanfarev1.State_STATE_SENDING)
	deals := tb.deals()
	tb.wantDealt(deals, 10)
	if got := deals[0].campaign.flows[0].route; got.name != "other" || got.flight != 10 {
		t.Errorf("dealt by route %s with %d in flight, want other with 10", got.name, got.flight)
	}
}

// oneSender is a view with a sender id.
type oneSender struct {
	*plane
	sender *fanfarev1.Sender
}

func (v *oneSender) Sender(string, string) *fanfarev1.Sender { return v.sender }

// TestSenderGone: a sender id that is deleted limits nothing any more.
func TestSenderGone(t *testing.T) {
	v := &oneSender{newPlane(), &fanfarev1.Sender{Tenant: testTenant, Id: "S", Rate: 5}}
	l := &leader{core: newCore(), Scheduler: &Scheduler{cfg: Config{View: v}}}
	limit := l.core.sender(testTenant, "S")
	for _, want := range []int64{5, 0} {
		if l.look(); limit.rate != want {
			t.Errorf("got %d a second, want %d", limit.rate, want)
		}
		v.sender = nil
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
