package plan

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// answer writes a sent event for every recipient of some deals.
func (w *env) answer(deals []Deal) {
	for _, d := range deals {
		d.members().Iterate(func(seq uint32) bool {
			w.planner.Observe(&Event{Campaign: d.Campaign.number, Seq: seq, Try: uint32(d.Try), Leg: uint32(d.Leg), Kind: sentKind, TimeMs: ms(w.now)})
			return true
		})
	}
}

// TestRoutesShareRounds: a route with a thousand tenants that always have recipients to deal takes nothing away from
// the route that comes last by name.
func TestRoutesShareRounds(t *testing.T) {
	w := newEnv(1)
	w.addRoute("a", 1<<20)
	w.addRoute("z", 1000)
	for i := range uint64(1000) {
		tenant := fmt.Sprint("tn_", i)
		w.addTenant(tenant, 1, 1)
		leg := smsLeg(3)
		leg.Route = "a"
		w.addCampaign(20_000+i, tenant, 10_000, 5000, leg)
	}
	w.addTenant("tn_z", 0, 1)
	leg := smsLeg(3)
	leg.Route = "z"
	w.addCampaign(10_001, "tn_z", 100_000, 5000, leg)
	for range 50 {
		w.serveStore()
	}
	const seconds, rounds = 3, 50
	onA, onZ := 0, 0
	var queue []Deal
	for range seconds * rounds {
		deals := w.planner.Deals(w.now)
		if len(deals) > dealsAtOnce {
			t.Fatalf("%d deals in one round, want %d at most", len(deals), dealsAtOnce)
		}
		var z []Deal
		for _, d := range deals {
			if d.Campaign.number == 10_001 {
				onZ += int(d.Size())
				z = append(z, d)
			} else {
				onA++
			}
		}
		// Route a answers at once, so that it always has room. Route z answers at the rate of its carrier.
		w.answer(slices.DeleteFunc(deals, func(d Deal) bool { return d.Campaign.number == 10_001 }))
		queue = append(queue, z...)
		for budget := 1000 / rounds; budget > 0 && len(queue) > 0; {
			d := &queue[0]
			w.planner.Observe(&Event{Campaign: 10_001, Seq: d.first, Try: 1, Leg: 1, Kind: sentKind, TimeMs: ms(w.now)})
			budget--
			if d.first++; d.first == d.end {
				queue = queue[1:]
			}
		}
		w.now = w.now.Add(time.Second / rounds)
	}
	if onZ < seconds*1000*98/100 {
		t.Errorf("%d were dealt on route z in %d s, want its 1,000 a second (%d deals went to route a)", onZ, seconds, onA)
	}
}

// TestSmallLimits: under a small limit each deal is a whole second's worth, no more is in flight than the limit takes
// in the time that a sender waits for it, and the limit is fully used.
func TestSmallLimits(t *testing.T) {
	for _, rate := range []uint32{1, 2, 10, 50, 100} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			w := newEnv(1)
			w.addRoute("sim", 1000)
			w.addTenant(testTenant, 0, 1)
			c := w.addCampaign(10_001, testTenant, 20_000, 5000, smsLeg(3))
			w.set(c, func(r *fanfarev1.Campaign) { r.Rate = rate })
			for range 10 {
				w.serveStore()
			}
			const seconds = 60
			var queue []uint32
			deals, sent, tokens := 0, 0, 0.0
			for range seconds * 50 {
				for _, d := range w.planner.Deals(w.now) {
					deals++
					d.members().Iterate(func(seq uint32) bool { queue = append(queue, seq); return true })
				}
				if most := int(rate)*1300/1000 + 1; len(queue) > most {
					t.Fatalf("%d in flight, want %d at most", len(queue), most)
				}
				tokens = min(tokens+float64(rate)/50, 1+float64(rate)/10)
				for ; tokens >= 1 && len(queue) > 0; tokens-- {
					w.planner.Observe(&Event{Campaign: 10_001, Seq: queue[0], Try: 1, Leg: 1, Kind: sentKind, TimeMs: ms(w.now)})
					queue = queue[1:]
					sent++
				}
				w.now = w.now.Add(20 * time.Millisecond)
			}
			if want := int(rate) * seconds; sent < want*97/100 {
				t.Errorf("%d sent in %d s, want %d", sent, seconds, want)
			}
			if most := seconds + 5; deals > most+most/5 {
				t.Errorf("%d deals in %d s, want about one a second", deals, seconds)
			}
		})
	}
}

// TestWakesInTime: the planner examines a sleeping campaign when its time comes, not a minute later.
func TestWakesInTime(t *testing.T) {
	tb := newScript(t, 1000)
	c := tb.addCampaign(10001, testTenant, 2, 500, smsLeg(3))
	at := tb.now.Add(10*time.Minute + 7*time.Second)
	tb.set(c, func(r *fanfarev1.Campaign) { r.State, r.ScheduledMs = schemas.StateScheduled, ms(at) })
	round := func() {
		tb.serveStore()
		tb.ends()
		tb.deals()
	}
	for tb.now.Before(at) {
		round()
		tb.after(100 * time.Millisecond)
	}
	round()
	round()
	tb.wantState(10001, schemas.StateSending)
	round()
	tb.says(10001, 0, 1, sentKind, noCode, time.Time{})
	tb.says(10001, 1, 1, bouncedKind, schemas.CodeAbsentSubscriber, time.Time{})
	due := tb.now.Add(20 * time.Second) // the longest wait of the leg
	for tb.now.Before(due.Add(time.Second)) {
		tb.serveStore()
		tb.ends()
		for _, d := range tb.deals() {
			if d.Try == 2 {
				return
			}
		}
		tb.after(100 * time.Millisecond)
	}
	t.Error("the retry was not dealt within its wait")
}
