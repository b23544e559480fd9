package plan

import (
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const (
	sentKind      = schemas.KindSent
	returnedKind  = schemas.KindReturned
	bouncedKind   = schemas.KindBounced
	ambiguousKind = schemas.KindAmbiguous
	deliveredKind = schemas.KindDelivered
	noCode        = schemas.CodeUnspecified
)

// script is an env in which a test writes each outcome itself.
type script struct {
	*env
	t *testing.T
}

func newScript(t *testing.T, rate uint32) *script {
	tb := &script{newEnv(1), t}
	tb.addRoute("sim", rate)
	tb.addTenant(testTenant, 0, 1)
	return tb
}

// start makes the store calls until the campaigns are sending.
func (tb *script) start() {
	for range 50 {
		tb.serveStore()
	}
}

// deals returns what is dealt now, by campaign number.
func (tb *script) deals() []Deal {
	tb.t.Helper()
	out := tb.planner.Deals(tb.now)
	for _, d := range out {
		tb.dealt(d)
	}
	tb.noFaults()
	return out
}

func (tb *script) noFaults() {
	tb.t.Helper()
	for _, f := range tb.faults {
		tb.t.Fatal(f)
	}
}

func (tb *script) after(d time.Duration) { tb.now = tb.now.Add(d) }

// says writes an event about a recipient and lets the planner read it.
func (tb *script) says(number uint64, seq, n uint32, kind schemas.Kind, code schemas.Code, again time.Time) {
	e := Event{Campaign: number, Seq: seq, Try: n, Leg: 1, Kind: kind, Code: code, TimeMs: ms(tb.now), PriceMicros: 50_000}
	if !again.IsZero() {
		e.AgainMs = ms(again)
	}
	tb.write(e)
	tb.drain()
}

// allSay writes the same event for every recipient of some deals.
func (tb *script) allSay(deals []Deal, kind schemas.Kind, code schemas.Code) {
	for _, d := range deals {
		d.members().Iterate(func(seq uint32) bool {
			tb.says(d.Campaign.number, seq, uint32(d.Try), kind, code, time.Time{})
			return true
		})
	}
}

// ends returns the ends that the planner decides now, and lets the planner read their events.
func (tb *script) ends() []End {
	out := tb.planner.Ends(tb.now, 1<<20)
	for _, e := range out {
		tb.write(Event{Campaign: e.Campaign.number, Seq: e.Seq, Try: uint32(e.Try), Leg: uint32(e.Leg), Kind: e.Kind, Code: e.Code, TimeMs: ms(tb.now)})
	}
	tb.drain()
	return out
}

func recipients(deals []Deal) (n int) {
	for _, d := range deals {
		n += int(d.Size())
	}
	return n
}

func (tb *script) wantDealt(deals []Deal, want int) {
	tb.t.Helper()
	if got := recipients(deals); got != want {
		tb.t.Fatalf("dealt %d, want %d", got, want)
	}
}

func (tb *script) wantState(number uint64, want schemas.State) {
	tb.t.Helper()
	if got := tb.camps[number].record.GetState(); got != want {
		tb.t.Fatalf("campaign is %s, want %s", got, want)
	}
}

// wantEnd checks that the planner ends exactly one recipient now, with this kind and code.
func (tb *script) wantEnd(seq uint32, n int, kind schemas.Kind, code schemas.Code) {
	tb.t.Helper()
	got := tb.ends()
	if len(got) != 1 || got[0].Seq != seq || int(got[0].Try) != n || got[0].Kind != kind || got[0].Code != code {
		tb.t.Fatalf("ends %v, want seq %d try %d %s %s", got, seq, n, kind, code)
	}
}

func TestInFlightBounds(t *testing.T) {
	tb := newScript(t, 2000) // the target is the rate of 1 s + 300 ms: 2,600; a chunk is a quarter of it
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
		limit func(*script, *fakeCampaign)
		want  int
	}{
		"tenant":   {func(tb *script, _ *fakeCampaign) { tb.addTenant(testTenant, 10, 1) }, 10},
		"campaign": {func(tb *script, c *fakeCampaign) { tb.set(c, func(r *fanfarev1.Campaign) { r.Rate = 10 }) }, 10},
		"sender": {func(tb *script, _ *fakeCampaign) {
			tb.planner.sender(testTenant, "S").rate = 10
		}, 10}, // a whole second; 13 may be in flight
		"tenant disabled": {func(tb *script, _ *fakeCampaign) { tb.planner.tenant(testTenant).enabled = false }, 0},
		"route disabled":  {func(tb *script, _ *fakeCampaign) { tb.planner.route("sim").enabled = false }, 0},
		"hours not valid": {func(tb *script, c *fakeCampaign) {
			tb.set(c, func(r *fanfarev1.Campaign) {
				r.CallingHours = &fanfarev1.CallingHours{StartMinute: 1, Timezone: "Nowhere"}
			})
		}, 0},
		"paused": {func(tb *script, c *fakeCampaign) {
			tb.set(c, func(r *fanfarev1.Campaign) { r.State = schemas.StatePaused })
		}, 0},
		"suspended": {func(tb *script, c *fakeCampaign) {
			tb.set(c, func(r *fanfarev1.Campaign) { r.State = schemas.StateSuspended })
		}, 0},
		"nothing forbids": {func(*script, *fakeCampaign) {}, 2600},
		"an older version": {func(tb *script, c *fakeCampaign) {
			r := cloneRecord(c.record)
			r.Version--
			r.State = schemas.StatePaused
			tb.planner.CampaignChanged(r)
		}, 2600},
		"the breaker opens": {func(tb *script, _ *fakeCampaign) { tb.planner.route("sim").stopUntil = ms(tb.now) + 1 }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			tb := newScript(t, 2000)
			camp := tb.addCampaign(10001, testTenant, 20_000, 5000, smsLeg(3))
			tb.start()
			tb.wantState(10001, schemas.StateSending)
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
			tb := newScript(t, 1000)
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
				// The carrier accepts submissions in order, and those of a tenant no faster than the tenant's rate.
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
					tb.write(Event{Campaign: s.campaign, Seq: s.seq, Try: 1, Leg: 1, Kind: sentKind, TimeMs: ms(tb.now)})
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

// TestSmallBehindLarge: a small campaign is dealt in the next round, however many recipients of the large one are left.
func TestSmallBehindLarge(t *testing.T) {
	tb := newScript(t, 1000)
	tb.addCampaign(10001, testTenant, 200_000, 5000, smsLeg(3))
	tb.start()
	running := tb.deals()
	tb.addCampaign(10002, testTenant, 100, 5000, smsLeg(3))
	tb.start()
	tb.allSay(running[:2], sentKind, noCode)
	for _, d := range tb.deals() {
		if d.Campaign.number == 10002 {
			return
		}
	}
	t.Error("the small campaign was not dealt")
}

func TestPauseAndResume(t *testing.T) {
	tb := newScript(t, 100)
	c := tb.addCampaign(10001, testTenant, 1000, 500, smsLeg(3))
	tb.start()
	first := tb.deals()
	tb.wantDealt(first, 160) // five chunks of 32
	tb.set(c, func(r *fanfarev1.Campaign) { r.State = schemas.StatePaused })
	tb.allSay(first[:2], returnedKind, schemas.CodePaused)
	tb.allSay(first[2:3], sentKind, noCode)
	tb.wantDealt(tb.deals(), 0)
	tb.set(c, func(r *fanfarev1.Campaign) { r.State = schemas.StateSending })
	again := tb.deals()
	if len(again) < 2 || again[0].Try != 2 || again[0].first != 0 || again[1].end != 64 || recipients(again[:2]) != 64 {
		t.Fatalf("dealt %+v, want the 64 that were given back, at once, before anybody new", again)
	}
	for _, d := range again[2:] {
		if d.Try != 1 {
			t.Errorf("dealt [%d, %d) at try %d, but no sender returned them", d.first, d.end, d.Try)
		}
	}
}

func TestAbort(t *testing.T) {
	tb := newScript(t, 100)
	c := tb.addCampaign(10001, testTenant, 20_000, 5000, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 160) // the route is full
	tb.says(10001, 0, 1, returnedKind, schemas.CodeRate, tb.now.Add(time.Minute))
	tb.says(10001, 1, 1, sentKind, noCode, time.Time{})
	tb.says(10001, 1, 1, bouncedKind, schemas.CodeAbsentSubscriber, time.Time{})
	tb.wantDealt(tb.deals(), 0)
	tb.set(c, func(r *fanfarev1.Campaign) { r.State = schemas.StateAborted })
	cancelled := append(tb.deals(), tb.deals()...)
	tb.wantDealt(cancelled, 20_000-160+1) // all undealt recipients and the one that waits, although the route is full
	for _, d := range cancelled {
		if !d.Cancel || d.outcome != schemas.KindSkipped || d.code != schemas.CodeCancelled {
			t.Fatalf("dealt %+v, want a cancel", d)
		}
	}
	tb.drain()
	tb.wantEnd(1, 1, schemas.KindUndelivered, schemas.CodeAbsentSubscriber)
	for _, s := range tb.flying {
		if s.seq > 1 {
			tb.says(10001, s.seq, 1, schemas.KindSkipped, schemas.CodeCancelled, time.Time{})
		}
	}
	tb.start()
	if got, ok := tb.settled[10001]; !ok || got != 50_000 {
		t.Errorf("captured %d, settled %v; want 50000 for the one that was handed over", got, ok)
	}
}

// TestAbortBeforeFreeze: a campaign without a frozen audience has no recipients to cancel.
func TestAbortBeforeFreeze(t *testing.T) {
	tb := newScript(t, 100)
	c := tb.addCampaign(10001, testTenant, 0, 5000, smsLeg(3))
	tb.set(c, func(r *fanfarev1.Campaign) { r.FreezeId, r.State = "", schemas.StateAborted })
	tb.start()
	if _, ok := tb.settled[10001]; !ok {
		t.Error("not settled")
	}
}

func TestNobodyToSendTo(t *testing.T) {
	tb := newScript(t, 100)
	tb.addCampaign(10001, testTenant, 0, 5000, smsLeg(3))
	tb.start()
	tb.wantState(10001, schemas.StateCompleted)
	if _, ok := tb.settled[10001]; !ok {
		t.Error("not settled")
	}
}

func TestCallingHours(t *testing.T) {
	tb := newScript(t, 100)
	c := tb.addCampaign(10001, testTenant, 1000, 500, smsLeg(3))
	day := &fanfarev1.CallingHours{StartMinute: 9 * 60, EndMinute: 20 * 60, Timezone: "Europe/Rome"}
	tb.set(c, func(r *fanfarev1.Campaign) { r.CallingHours = day })
	tb.start() // 11:00 in Rome
	first := tb.deals()
	tb.wantDealt(first, 160)
	tb.now = time.Date(2030, 3, 4, 19, 0, 0, 0, time.UTC) // 20:00 in Rome: closed
	tb.allSay(first, returnedKind, schemas.CodeWindow)
	tb.wantDealt(tb.deals(), 0)
	tb.now = time.Date(2030, 3, 5, 7, 59, 59, 0, time.UTC)
	tb.wantDealt(tb.deals(), 0)
	tb.now = time.Date(2030, 3, 5, 8, 0, 0, 0, time.UTC) // 9:00
	again := tb.deals()
	if again[0].Try != 2 || recipients(again) != 160 {
		t.Fatalf("dealt %d at try %d, want the 160 that came back", recipients(again), again[0].Try)
	}
	// Calling hours that are widened while recipients wait apply at once.
	tb.now = time.Date(2030, 3, 5, 19, 0, 0, 0, time.UTC)
	tb.allSay(again, returnedKind, schemas.CodeWindow)
	tb.wantDealt(tb.deals(), 0)
	tb.set(c, func(r *fanfarev1.Campaign) {
		r.CallingHours = &fanfarev1.CallingHours{StartMinute: 9 * 60, EndMinute: 22 * 60, Timezone: "Europe/Rome"}
	})
	tb.after(time.Minute)
	if again := tb.deals(); len(again) == 0 || again[0].Try != 3 {
		t.Errorf("dealt %+v, want those who wait: the hours are open now", again)
	}
}

// TestNoStartWhileClosed: a campaign stays preparing, and can be cancelled, until its first chunk can be dealt.
func TestNoStartWhileClosed(t *testing.T) {
	tb := newScript(t, 100)
	c := tb.addCampaign(10001, testTenant, 1000, 500, smsLeg(3))
	tb.set(c, func(r *fanfarev1.Campaign) {
		r.CallingHours = &fanfarev1.CallingHours{StartMinute: 14 * 60, EndMinute: 20 * 60, Timezone: "Europe/Rome"}
	})
	tb.start()
	tb.wantState(10001, schemas.StatePreparing)
	tb.wantDealt(tb.deals(), 0)
	tb.after(3 * time.Hour)
	tb.start()
	tb.wantState(10001, schemas.StateSending)
}

func TestSchedule(t *testing.T) {
	for name, c := range map[string]struct {
		late time.Duration
		want schemas.State
	}{
		"not yet":           {-time.Second, schemas.StateScheduled},
		"now":               {0, schemas.StateSending},
		"an hour late":      {time.Hour, schemas.StateSending},
		"more than an hour": {time.Hour + time.Second, schemas.StateSuspended},
	} {
		t.Run(name, func(t *testing.T) {
			tb := newScript(t, 100)
			camp := tb.addCampaign(10001, testTenant, 10, 500, smsLeg(3))
			tb.set(camp, func(r *fanfarev1.Campaign) {
				r.State, r.ScheduledMs = schemas.StateScheduled, ms(tb.now.Add(-c.late))
			})
			tb.start()
			tb.noFaults()
			tb.wantState(10001, c.want)
			if c.want == schemas.StateSuspended {
				if got := tb.planner.campaigns[10001].record.GetReason(); got != ReasonMissedSchedule {
					t.Errorf("reason %q, want %q", got, ReasonMissedSchedule)
				}
			}
		})
	}
}

// TestReroutedUnseen: a campaign that was unscheduled, moved to another route and confirmed again between two rounds
// uses the new route, and does not wait for the old one.
func TestReroutedUnseen(t *testing.T) {
	tb := newScript(t, 100)
	tb.addRoute("other", 100)
	camp := tb.addCampaign(10001, testTenant, 10, 500, smsLeg(3))
	tb.set(camp, func(r *fanfarev1.Campaign) {
		r.State, r.ScheduledMs = schemas.StateScheduled, ms(tb.now.Add(time.Minute))
	})
	tb.start()
	tb.planner.setRoute(&fanfarev1.Route{Name: "sim", Rate: 100, P99Ms: 300})
	tb.set(camp, func(r *fanfarev1.Campaign) {
		r.Version += 2
		r.ScheduledMs = ms(tb.now)
		r.Legs = []*fanfarev1.Leg{rcsLeg("other")}
	})
	tb.start()
	tb.wantState(10001, schemas.StateSending)
	deals := tb.deals()
	tb.wantDealt(deals, 10)
	if got := deals[0].Campaign.flows[0].route; got.name != "other" || got.flight != 10 {
		t.Errorf("dealt by route %s with %d in flight, want other with 10", got.name, got.flight)
	}
}

// TestSenderGone: a deleted sender id no longer limits anything.
func TestSenderGone(t *testing.T) {
	pl := New()
	limit := pl.sender(testTenant, "S")
	record := &fanfarev1.Sender{Tenant: testTenant, Id: "S", Rate: 5}
	for _, want := range []int64{5, 0} {
		if pl.RefreshSenders(func(string, string) *fanfarev1.Sender { return record }); limit.rate != want {
			t.Errorf("got %d a second, want %d", limit.rate, want)
		}
		record = nil
	}
}

func TestBreaker(t *testing.T) {
	tb := newScript(t, 1000)
	tb.addCampaign(10001, testTenant, 20_000, 5000, smsLeg(3))
	tb.start()
	first := tb.deals()
	back := tb.now.Add(30 * time.Second)
	for seq := range uint32(5) {
		tb.says(10001, seq, 1, returnedKind, schemas.CodeBreaker, back)
	}
	for _, d := range first {
		d.members().Iterate(func(seq uint32) bool {
			if seq >= 5 {
				tb.says(10001, seq, 1, returnedKind, schemas.CodeBreaker, back)
			}
			return true
		})
	}
	tb.after(29 * time.Second)
	tb.wantDealt(tb.deals(), 0)
	tb.after(2 * time.Second)
	probe := tb.deals()
	if got := recipients(probe); got == 0 || got > 15 {
		t.Fatalf("dealt %d while it is unknown if the carrier is back, want a hundredth of 1300", got)
	}
	tb.says(10001, probe[0].first, uint32(probe[0].Try), sentKind, noCode, time.Time{})
	if got := recipients(tb.deals()); got < 1000 {
		t.Errorf("dealt %d after the carrier took one, want about 1300", got)
	}
}
