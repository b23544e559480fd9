package plan

import (
	"slices"
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// routesFail takes routes down and up again, and tells the planner.
func (w *env) routesFail() {
	if w.health == nil {
		w.health = map[string]schemas.RouteHealth{}
	}
	r := pick(w.rng, w.routes)
	switch {
	case w.rng.IntN(6) > 0:
	case w.health[r.GetName()].State == schemas.LineStateDown:
		delete(w.health, r.GetName())
	default:
		w.health[r.GetName()] = schemas.RouteHealth{State: schemas.LineStateDown, Since: w.now}
	}
	w.feelAll()
}

// feelAll tells the planner the health of all routes. A route is up unless health says otherwise.
func (w *env) feelAll() {
	w.away = map[string]bool{}
	w.planner.SetHealth(func(route string) schemas.RouteHealth {
		h, ill := w.health[route]
		if !ill {
			return schemas.RouteHealth{State: schemas.LineStateUp}
		}
		w.away[route] = h.State == schemas.LineStateDown && w.now.Sub(h.Since) >= awayAfter
		return h
	}, w.now)
}

// checkRoute checks that a deal goes over the leg's own route, or over the first of the others that is not down while
// its own is.
func (w *env) checkRoute(d *Deal) {
	if d.Cancel {
		if d.Chunk().GetRoute() != "" {
			w.fault("a cancel names route %q", d.Chunk().GetRoute())
		}
		return
	}
	leg := w.camps[d.Campaign.number].record.GetLegs()[d.Leg-1]
	want := leg.GetRoute()
	if w.away[want] {
		if i := slices.IndexFunc(leg.GetOtherRoutes(), func(name string) bool { return !w.away[name] }); i >= 0 {
			want = leg.GetOtherRoutes()[i]
		}
	}
	got := d.Chunk().GetRoute()
	if got == "" {
		got = leg.GetRoute()
	}
	if got != want {
		w.fault("deal %d of campaign %d goes over route %q, want %q", d.Number, d.Campaign.number, got, want)
	}
}

// failoverScript returns a script with a campaign of 400 recipients on route sim, which route second can carry.
func failoverScript(t *testing.T, change func(*script)) *script {
	tb := newScript(t, 100)
	tb.addRoute("second", 100)
	if change != nil {
		change(tb)
	}
	leg := smsLeg(3)
	leg.OtherRoutes = []string{"second"}
	tb.addCampaign(10001, testTenant, 400, 500, leg)
	tb.start()
	return tb
}

// goes deals, and returns how many recipients went over each route.
func (tb *script) goes() (deals []Deal, by map[string]int) {
	tb.t.Helper()
	by = map[string]int{}
	deals = tb.deals()
	for i := range deals {
		by[deals[i].Chunk().GetRoute()] += int(deals[i].Size())
	}
	return deals, by
}

// TestFailover: a route that is down gets no more recipients, those that it returned and those that were never dealt go
// over the other route, those that are in flight or in doubt stay, and the campaign goes back when the route is up.
// Only when no route is left the campaign is suspended (P2).
func TestFailover(t *testing.T) {
	tb := failoverScript(t, nil)
	tb.feelAll()
	first, by := tb.goes()
	if by[""] == 0 || by["second"] != 0 {
		t.Fatalf("at first %v were dealt, want some on the campaign's own route", by)
	}
	last := first[len(first)-1].end
	tb.says(10001, 0, 1, sentKind, noCode, time.Time{})
	tb.says(10001, 1, 1, ambiguousKind, schemas.CodeTimeout, time.Time{})
	for seq := uint32(3); seq < last; seq++ { // no outcome of 2 arrives
		tb.says(10001, seq, 1, schemas.KindReturned, schemas.CodePaused, time.Time{})
	}
	tb.health = map[string]schemas.RouteHealth{"sim": {State: schemas.LineStateDown, Since: tb.now}}
	tb.after(awayAfter)
	tb.feelAll()
	moved := map[uint32]bool{}
	for range 20 {
		deals, by := tb.goes()
		if by[""] > 0 {
			t.Fatalf("%d were dealt on the route that is down", by[""])
		}
		for i := range deals {
			deals[i].members().Iterate(func(seq uint32) bool { moved[seq] = true; return true })
		}
		tb.allSay(deals, sentKind, noCode)
		tb.after(2 * time.Second)
		tb.wantReason(schemas.StateSending, "")
	}
	if len(moved) != 397 || moved[0] || moved[1] || moved[2] {
		t.Errorf("%d went over the other route, want 397: all but the one that was sent, the doubtful one and the one in flight", len(moved))
	}
	// The route gives back the last one only now, and neither route can carry it.
	tb.health["second"] = schemas.RouteHealth{State: schemas.LineStateDown, Since: tb.now}
	tb.says(10001, 2, 1, schemas.KindReturned, schemas.CodePaused, time.Time{})
	tb.after(time.Minute)
	tb.feelAll()
	tb.wantReason(schemas.StateSuspended, "route_down")
	delete(tb.health, "second")
	tb.feelAll()
	tb.wantReason(schemas.StateSending, "")
	if _, by := tb.goes(); by["second"] != 1 {
		t.Errorf("%v, want that the last one goes over the second route", by)
	}
	tb.says(10001, 2, 2, schemas.KindReturned, schemas.CodePaused, time.Time{})
	delete(tb.health, "sim")
	tb.feelAll()
	tb.after(10 * time.Second)
	if deals, by := tb.goes(); by[""] != 1 || deals[0].Try != 3 {
		t.Errorf("%v, want that the last one goes over the campaign's own route again", by)
	}
	tb.wantReason(schemas.StateSending, "")
}

// TestFailoverTrial: nothing uses a route any more from which all recipients have moved, so a trial finds out whether
// it works again.
func TestFailoverTrial(t *testing.T) {
	tb := failoverScript(t, nil)
	down := schemas.RouteHealth{State: schemas.LineStateDown, Since: tb.now.Add(-awayAfter)}
	trial := schemas.RouteHealth{State: schemas.LineStateTrial, Since: tb.now.Add(-awayAfter)}
	feel := func(h schemas.RouteHealth) {
		tb.planner.SetHealth(func(route string) schemas.RouteHealth {
			if route == "sim" {
				return h
			}
			return schemas.RouteHealth{State: schemas.LineStateUp}
		}, tb.now)
	}
	way := func() string { return tb.planner.Campaign(10001).flows[0].way().name }
	for i, step := range []struct {
		after  time.Duration
		health schemas.RouteHealth
		want   string
	}{
		{0, schemas.RouteHealth{State: schemas.LineStateDown, Since: tb.now}, "sim"},
		{0, down, "second"},
		{trialFirst - 1, trial, "second"},
		{1, schemas.RouteHealth{}, "second"}, // nobody reports
		{0, trial, "sim"},
		{0, down, "second"},
		{2*trialFirst - 1, trial, "second"},
		{1, trial, "sim"},
		{time.Second, schemas.RouteHealth{State: schemas.LineStateUp}, "sim"},
	} {
		tb.after(step.after)
		feel(step.health)
		if got := way(); got != step.want {
			t.Errorf("step %d: the campaign goes over %q, want %q", i, got, step.want)
		}
	}
}

// TestFailoverIsOff: a route with failover off keeps its campaigns, and carries none of others. A route that the
// operator has disabled is as good as down.
func TestFailoverIsOff(t *testing.T) {
	for _, alone := range []int{0, 1} {
		tb := failoverScript(t, func(tb *script) {
			tb.routes[alone].Care = &fanfarev1.RouteCare{NoFailover: true}
			tb.planner.SetRoutes(tb.routes)
		})
		tb.health = map[string]schemas.RouteHealth{"sim": {State: schemas.LineStateDown, Since: tb.now.Add(-time.Minute)}}
		tb.away = nil
		tb.planner.SetHealth(func(route string) schemas.RouteHealth { return tb.health[route] }, tb.now)
		if _, by := tb.goes(); by["second"] > 0 {
			t.Errorf("route %d: %v, want nothing on the second route", alone, by)
		}
	}
	tb := failoverScript(t, nil)
	tb.feelAll()
	tb.routes[0].Enabled = false
	tb.planner.SetRoutes(tb.routes)
	tb.away = map[string]bool{"sim": true}
	if _, by := tb.goes(); by["second"] == 0 || by[""] > 0 {
		t.Errorf("%v, want that the second route carries the recipients of the disabled one", by)
	}
}

// TestFailoverIsRemembered: a successor knows over which route each try went: what is in flight counts there, from the
// deals that the cursor lists and from the sets.
func TestFailoverIsRemembered(t *testing.T) {
	tb := failoverScript(t, nil)
	tb.health = map[string]schemas.RouteHealth{"sim": {State: schemas.LineStateDown, Since: tb.now.Add(-awayAfter)}}
	tb.feelAll()
	deals, by := tb.goes()
	missing := map[DealID]*fanfarev1.Deal{}
	for _, d := range tb.planner.Campaign(10001).recent {
		missing[DealID{10001, d.GetDeal()}] = d
	}
	for _, sets := range []bool{false, true, true} {
		tb.saveCursors(sets)
		if err := tb.takeOver(); err != nil {
			t.Fatal(err)
		}
		if got := int(tb.planner.routes["second"].flight); got != by["second"] || got == 0 {
			t.Errorf("sets %v: %d in flight on the second route, want %d", sets, got, by["second"])
		}
		if got := tb.planner.routes["sim"].flight; got != 0 {
			t.Errorf("sets %v: %d in flight on the first route, want none", sets, got)
		}
		if got := tb.planner.Campaign(10001).routeOf(1, deals[0].first); got != "second" {
			t.Errorf("sets %v: the route of the first try is %q, want second", sets, got)
		}
	}
	again, err := tb.planner.RepeatDeals(missing)
	if err != nil || len(again) != len(deals) {
		t.Fatalf("%d deals are made again, want %d (%v)", len(again), len(deals), err)
	}
	for i := range again {
		if got := again[i].Chunk().GetRoute(); got != "second" {
			t.Errorf("a deal that is made again goes over %q, want second", got)
		}
	}
}

// R160: the own route was disabled for longer than messages are valid, and then the other route is down as well. Nobody
// is ended because of it: the campaign is suspended until the other route is up, and then goes on over it.
func TestFailoverOfADisabledRoute(t *testing.T) {
	tb := failoverScript(t, nil)
	tb.feelAll()
	tb.routes[0].Enabled = false
	tb.planner.SetRoutes(tb.routes)
	tb.away = map[string]bool{"sim": true}
	tb.planner.Ends(tb.now, 1000) // notes since when the route is disabled
	deals, by := tb.goes()
	if by["second"] == 0 || by[""] > 0 {
		t.Fatalf("%v, want that the second route carries all", by)
	}
	tb.allSay(deals, schemas.KindReturned, schemas.CodePaused)
	tb.after(50 * time.Hour)
	tb.health = map[string]schemas.RouteHealth{"second": {State: schemas.LineStateDown, Since: tb.now.Add(-2 * time.Minute)}}
	tb.feelAll()
	if ends := tb.planner.Ends(tb.now, 1000); len(ends) > 0 {
		t.Errorf("%d recipients are ended, want none", len(ends))
	}
	tb.wantReason(schemas.StateSuspended, "route_down")
	delete(tb.health, "second")
	tb.feelAll()
	tb.away = map[string]bool{"sim": true}
	tb.wantReason(schemas.StateSending, "")
	if _, by := tb.goes(); by["second"] == 0 || by[""] > 0 {
		t.Errorf("%v, want that the second route carries them again", by)
	}
}

// A route of which no sender reports carries nobody in place of another: it may have no sender.
func TestFailoverNeedsAReport(t *testing.T) {
	tb := failoverScript(t, nil)
	down := map[string]schemas.RouteHealth{"sim": {State: schemas.LineStateDown, Since: tb.now.Add(-awayAfter)}}
	tb.planner.SetHealth(func(route string) schemas.RouteHealth { return down[route] }, tb.now)
	if _, by := tb.goes(); by["second"] > 0 {
		t.Errorf("%v, want nobody on the route of which no sender reports", by)
	}
}
