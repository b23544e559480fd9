package plan

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// TestMain lets rapid check fewer histories than its default of 100: enough for everyday runs.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		if err := flag.Set("rapid.checks", "50"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// TestHistories drives the planner through random histories: outcomes of every kind in any order between recipients,
// receipts early, late and twice, conflicts of the store, pauses, aborts, and successors that take over at any moment.
// The oracles of env check each step. At the end every recipient has one final state, and the captured money equals the
// cost that the log gives.
func TestHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newEnv(rapid.Uint64().Draw(t, "seed"))
		if err := w.history(drawn{t}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestOraclesCatch plants bugs: the oracles of TestHistories must catch each within a few histories.
func TestOraclesCatch(t *testing.T) {
	for name, plant := range map[string]func(*env){
		"deals forgotten by the cursor": func(w *env) { w.forgets = true },
		"a doubtful one taken for returned": func(w *env) {
			w.tamper = func(e *Event) bool { return retold(e, schemas.KindAmbiguous, schemas.KindReturned) }
		},
		"a sent one taken for bounced": func(w *env) {
			w.tamper = func(e *Event) bool { return retold(e, schemas.KindSent, schemas.KindBounced) }
		},
		"an outcome never read": func(w *env) { w.tamper = func(*Event) bool { return w.rng.IntN(50) > 0 } },
		"a receipt that costs nothing is billed": func(w *env) {
			w.tamper = func(e *Event) bool {
				if e.Code == schemas.CodeProviderError {
					e.Code = schemas.CodeAbsentSubscriber
				}
				return true
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				w := newEnv(seed)
				plant(w)
				if err := w.history(fixed{rand.New(rand.NewPCG(seed, 3))}); err != nil {
					t.Log(err)
					return
				}
			}
			t.Error("no history caught it")
		})
	}
}

func retold(e *Event, from, to schemas.Kind) bool {
	if e.Kind == from {
		e.Kind = to
	}
	return true
}

// draws is the source of a history's random choices: rapid, or a seed.
type draws interface {
	number(from, to int, label string) int
}

type fixed struct{ rng *rand.Rand }

func (f fixed) number(from, to int, _ string) int { return from + f.rng.IntN(to-from+1) }

type drawn struct{ t *rapid.T }

func (d drawn) number(from, to int, label string) int {
	return rapid.IntRange(from, to).Draw(d.t, label)
}

// history runs one history and returns the first violation of an oracle.
func (w *env) history(d draws) error {
	w.conflicts = true
	w.addRoute("sim", uint32(d.number(1, 400, "rate")))
	w.addRoute("rcs", uint32(d.number(10, 400, "rcs rate")))
	w.addRoute("second", 100)
	w.addRoute("third", 100)
	failover := d.number(0, 1, "failover") == 1
	w.addTenant(testTenant, uint32(20*d.number(0, 1, "tenant rate")), 1)
	w.addTenant("tn_b", 0, 3)
	n := d.number(1, 3, "campaigns")
	for i := range n {
		legs := []*fanfarev1.Leg{smsLeg(uint32(d.number(1, 3, "handovers")))}
		if d.number(0, 1, "chain") == 1 {
			legs = append([]*fanfarev1.Leg{rcsLeg("rcs")}, legs...)
		}
		if failover {
			for _, leg := range legs {
				leg.OtherRoutes = []string{"second", "third"}
			}
		}
		w.addCampaign(uint64(10001+i), []string{testTenant, "tn_b"}[i%2], uint32(d.number(1, 120, "total")), 25, legs...)
	}
	crash := d.number(0, 20, "crash")
	for i := range 60 {
		w.step(10)
		w.now = w.now.Add(time.Duration(w.rng.IntN(3000)) * time.Millisecond)
		if err := w.accidents(crash); err != nil {
			return err
		}
		w.userActs(w.camps[uint64(10001+w.rng.IntN(n))])
		if failover {
			w.routesFail()
		}
		if i%4 == 0 || len(w.faults) > 0 {
			if err := w.check(); err != nil {
				return err
			}
		}
	}
	// From here on no campaign is paused, all routes are up, and time advances.
	w.health = nil
	w.feelAll()
	for i := 0; i < 4000 && len(w.settled) < n; i++ {
		for _, c := range w.camps {
			if c.record.GetState() == schemas.StatePaused {
				w.set(c, func(r *fanfarev1.Campaign) { r.State = schemas.StateSending })
			}
		}
		w.step(50)
		w.now = w.now.Add(time.Duration(w.rng.IntN(1+i*20)) * time.Millisecond)
		if err := w.accidents(crash / 3); err != nil {
			return err
		}
	}
	if err := w.check(); err != nil {
		return err
	}
	for number, c := range w.camps {
		captured, ok := w.settled[number]
		if !ok {
			return fmt.Errorf("campaign %d: %s, want settled: census %+v, flying %d", number, c.record.GetState(), w.planner.campaigns[number].counts(), len(w.flying))
		}
		got, money := w.model(c)
		if got.pending != 0 {
			return fmt.Errorf("campaign %d settled with %d pending", number, got.pending)
		}
		if captured != money {
			return fmt.Errorf("campaign %d: captured %d, the log says %d", number, captured, money)
		}
	}
	return nil
}

// accidents lets a successor take over now and then, and the planner write its sets.
func (w *env) accidents(percent int) error {
	if w.rng.IntN(8) == 0 {
		w.saveCursors(true)
	}
	if w.rng.IntN(100) < percent {
		return w.takeOver()
	}
	return nil
}

// userActs sometimes pauses, resumes, aborts or stops a campaign.
func (w *env) userActs(c *fakeCampaign) {
	switch state := c.record.GetState(); {
	case state == schemas.StateSending && w.rng.IntN(20) == 0:
		w.set(c, func(r *fanfarev1.Campaign) { r.State = schemas.StatePaused })
	case state == schemas.StatePaused && w.rng.IntN(4) == 0:
		w.set(c, func(r *fanfarev1.Campaign) { r.State = schemas.StateSending })
	case (state == schemas.StateSending || state == schemas.StatePaused) && w.rng.IntN(60) == 0:
		w.set(c, func(r *fanfarev1.Campaign) { r.State = schemas.StateAborted })
	case state == schemas.StateCompleted && !c.record.GetSettled() && w.rng.IntN(20) == 0:
		w.set(c, func(r *fanfarev1.Campaign) { r.Stopped = true })
	}
}

// check returns the violation that an oracle found. When the planner has read the whole log, it also compares its
// counts with the model.
func (w *env) check() error {
	if len(w.faults) > 0 {
		return errors.New(strings.Join(w.faults, "\n"))
	}
	flights := map[*route]int64{}
	for _, c := range w.planner.open {
		got := c.counts()
		if sum := got.pending + got.ambiguous + got.never + got.awaiting + got.undelivered + got.delivered; sum != got.total {
			return fmt.Errorf("campaign %d: total %d, buckets hold %d: %+v", c.number, got.total, sum, got)
		}
		for _, t := range c.tries {
			for _, d := range t.dealt {
				if d.leg > 0 {
					flights[d.route] += int64(roaring.AndNot(&d.seqs, &t.answered).GetCardinality())
				}
			}
		}
	}
	for r, want := range flights {
		if r.flight != want {
			return fmt.Errorf("route %s: %d in flight, want %d", r.name, r.flight, want)
		}
	}
	for p := range partitions {
		if w.read[p] < len(w.log[p]) {
			return nil
		}
	}
	for _, c := range w.planner.open {
		got := c.counts()
		want, _ := w.model(w.camps[c.number])
		if diff := cmp.Diff(want, got.places(), cmp.AllowUnexported(counts{})); diff != "" {
			return fmt.Errorf("campaign %d: census differs from the log (-want +got):\n%s", c.number, diff)
		}
	}
	return nil
}

// TestOrderOfEvents: the same events give the same sets, in any order and however often each is read.
func TestOrderOfEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newEnv(rapid.Uint64().Draw(t, "seed"))
		w.odds.lost = 0
		w.addRoute("sim", 300)
		w.addTenant(testTenant, 0, 1)
		c := w.addCampaign(10001, testTenant, 100, 25, smsLeg(3))
		var deals []Deal
		for range 40 {
			w.serveStore()
			for _, d := range w.planner.Deals(w.now) {
				w.dealt(d)
				deals = append(deals, d)
			}
			w.carry(20)
			w.drain()
			w.now = w.now.Add(4 * time.Second)
		}
		var all []Event
		for p := range partitions {
			all = append(all, w.log[p]...)
		}
		sets := func(seed uint64) map[string]string {
			rng := rand.New(rand.NewPCG(seed, 2))
			events := append([]Event(nil), all...)
			for range len(all) / 2 {
				events = append(events, all[rng.IntN(len(all))])
			}
			if seed > 0 {
				rng.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
			}
			k := New()
			k.evalCap = 1 << 30
			k.setRoute(w.routes[0])
			k.setTenant(&fanfarev1.Tenant{Id: testTenant, Enabled: true})
			k.CampaignChanged(c.record)
			at := 0
			got := k.campaigns[10001]
			for i := range events {
				for at < len(deals) && rng.IntN(len(events)) < 2*len(deals) { // insert deals between the events
					d := deals[at]
					k.markDealt(got, int(d.Try), d.Leg, k.routes["sim"], false, d.members(), d.notAfter)
					at++
				}
				k.Observe(&events[i])
			}
			for ; at < len(deals); at++ {
				k.markDealt(got, int(deals[at].Try), deals[at].Leg, k.routes["sim"], false, deals[at].members(), deals[at].notAfter)
			}
			k.evaluate(got)
			if k.routes["sim"].flight != got.flight || got.flight != int64(len(w.flying)) {
				t.Errorf("in flight: route %d, campaign %d, want %d", k.routes["sim"].flight, got.flight, len(w.flying))
			}
			return got.dump()
		}
		want := sets(0)
		for seed := uint64(1); seed < 4; seed++ {
			if diff := cmp.Diff(want, sets(seed)); diff != "" {
				t.Fatalf("sets differ (-in order +shuffled):\n%s", diff)
			}
		}
	})
}

// dump returns the sets as text. Sets of recipients that are due omit those that the planner has handled already.
func (c *Campaign) dump() map[string]string {
	out := map[string]string{}
	c.sets(func(s *fanfarev1.CursorSets_Set, b *roaring.Bitmap) {
		switch s.GetRole() {
		case schemas.RoleDue:
			b = b.Clone()
			c.dropHandled(int(s.GetTry()), b)
		case schemas.RoleExpiring:
			return
		default:
		}
		if !b.IsEmpty() {
			out[s.String()] = b.String()
		}
	})
	return out
}

// TestTakeOver: a successor has the same state as its predecessor.
func TestTakeOver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newEnv(rapid.Uint64().Draw(t, "seed"))
		w.addRoute("sim", 300)
		w.addTenant(testTenant, 0, 1)
		w.addCampaign(10001, testTenant, 150, 40, rcsLeg("sim"), smsLeg(3))
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			w.step(20)
			w.now = w.now.Add(2 * time.Second)
			if w.rng.IntN(5) == 0 {
				w.saveCursors(true)
			}
		}
		w.drain()
		before := w.planner.campaigns[10001]
		w.planner.evaluate(before)
		before.moveDueToReady(ms(w.now))
		want, flight := before.dump(), w.planner.routes["sim"].flight
		if err := w.takeOver(); err != nil {
			t.Fatal(err)
		}
		after := w.planner.campaigns[10001]
		w.planner.evaluate(after)
		after.moveDueToReady(ms(w.now))
		if diff := cmp.Diff(want, after.dump()); diff != "" {
			t.Fatalf("sets differ (-before +after):\n%s", diff)
		}
		if got := w.planner.routes["sim"].flight; got != flight {
			t.Errorf("in flight at the route: %d, want %d", got, flight)
		}
		if before.deals != after.deals || before.handover != after.handover {
			t.Errorf("deals %d, hand-over %d; want %d, %d", after.deals, after.handover, before.deals, before.handover)
		}
	})
}
