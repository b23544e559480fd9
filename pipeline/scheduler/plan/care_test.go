package plan

import (
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// careScript returns a script with a campaign of 5,000 recipients on a route with the given care settings.
func careScript(t *testing.T, of *fanfarev1.RouteCare) *script {
	tb := newScript(t, 1000)
	tb.routes[0].Care = of
	tb.planner.SetRoutes(tb.routes)
	tb.addCampaign(10001, testTenant, 5000, 500, smsLeg(1))
	tb.start()
	if len(tb.deals()) == 0 {
		t.Fatal("nothing was dealt")
	}
	return tb
}

func (tb *script) wantReason(state schemas.State, reason string) {
	tb.t.Helper()
	tb.start()
	r := tb.camps[10001].record
	if r.GetState() != state || r.GetReason() != reason {
		tb.t.Errorf("at %s: the campaign is %v %q, want %v %q", tb.now.Format(time.TimeOnly), r.GetState(), r.GetReason(), state, reason)
	}
}

// feel applies the current health of route sim.
func (tb *script) feel(h schemas.RouteHealth) {
	tb.planner.SetHealth(func(string) schemas.RouteHealth { return h }, tb.now)
}

// TestRouteDown: a route is down, then one trial fails, then another trial works.
func TestRouteDown(t *testing.T) {
	tb := careScript(t, &fanfarev1.RouteCare{DownAfterMs: 60_000, AutoResume: true})
	down := schemas.RouteHealth{State: schemas.LineStateDown, Since: tb.now}
	trial := schemas.RouteHealth{State: schemas.LineStateTrial, Since: tb.now}
	tb.after(59 * time.Second)
	tb.feel(down)
	tb.wantReason(schemas.StateSending, "")
	tb.after(time.Second)
	tb.feel(schemas.RouteHealth{}) // no sender reports
	tb.wantReason(schemas.StateSending, "")
	tb.feel(down)
	tb.wantReason(schemas.StateSuspended, "route_down")

	tb.after(59 * time.Second)
	tb.feel(trial)
	tb.wantReason(schemas.StateSuspended, "route_down")
	tb.after(time.Second)
	tb.feel(trial)
	tb.wantReason(schemas.StateSending, "") // the campaign finds out
	tb.feel(trial)
	tb.wantReason(schemas.StateSending, "")
	tb.feel(down)
	tb.wantReason(schemas.StateSuspended, "route_down") // at once

	tb.after(119 * time.Second)
	tb.feel(trial)
	tb.wantReason(schemas.StateSuspended, "route_down") // the second wait is twice as long
	// A user need not wait: the resumed campaign continues until the route is reported as down again.
	tb.set(tb.camps[10001], func(c *fanfarev1.Campaign) { c.State, c.Reason = schemas.StateSending, "" })
	tb.feel(trial)
	tb.wantReason(schemas.StateSending, "")
	tb.feel(down)
	tb.wantReason(schemas.StateSuspended, "route_down")
	tb.feel(schemas.RouteHealth{})
	tb.wantReason(schemas.StateSuspended, "route_down")
	tb.feel(schemas.RouteHealth{State: schemas.LineStateUp})
	tb.wantReason(schemas.StateSending, "")
}

func TestProviderAuthIsQuick(t *testing.T) {
	tb := careScript(t, &fanfarev1.RouteCare{DownAfterMs: 60_000})
	refused := schemas.RouteHealth{State: schemas.LineStateDown, Since: tb.now, AccountRefused: true}
	tb.after(9 * time.Second)
	tb.feel(refused)
	tb.wantReason(schemas.StateSending, "")
	tb.after(time.Second)
	tb.feel(refused)
	tb.wantReason(schemas.StateSuspended, "provider_auth")
	tb.feel(schemas.RouteHealth{State: schemas.LineStateUp})
	tb.wantReason(schemas.StateSuspended, "provider_auth") // autoResume is off
}

// TestIdleRouteIsNoTrouble: yesterday's last message opened the breaker, and no message was tried on the route since.
func TestIdleRouteIsNoTrouble(t *testing.T) {
	tb := careScript(t, &fanfarev1.RouteCare{DownAfterMs: 60_000, AutoResume: true})
	tb.feel(schemas.RouteHealth{State: schemas.LineStateTrial, Since: tb.now.Add(-10 * time.Hour)})
	tb.wantReason(schemas.StateSending, "")
}

func TestFailureRate(t *testing.T) {
	tb := careScript(t, &fanfarev1.RouteCare{FailurePercent: 50, FailureSample: 10, AutoResume: true})
	for seq := range uint32(10) {
		kind := sentKind
		if seq >= 6 {
			kind = schemas.KindNotSent
		}
		tb.says(10001, seq, 1, kind, noCode, time.Time{})
		tb.says(10001, seq, 1, kind, noCode, time.Time{}) // again, which counts once
	}
	tb.wantReason(schemas.StateSending, "") // 4 of 10
	for seq := range uint32(9) {
		tb.says(10001, 10+seq, 1, schemas.KindNotSent, schemas.CodeRenderError, time.Time{}) // our own
	}
	tb.wantReason(schemas.StateSending, "")
	for seq := range uint32(10) {
		if seq < 5 {
			tb.says(10001, seq, 1, schemas.KindDelivered, noCode, time.Time{})
		} else {
			tb.says(10001, 20+seq, 1, schemas.KindUndelivered, schemas.CodeBarred, time.Time{})
		}
	}
	tb.wantReason(schemas.StateSuspended, "failure_rate") // 5 of 10 receipts
	tb.feel(schemas.RouteHealth{State: schemas.LineStateUp})
	tb.wantReason(schemas.StateSuspended, "failure_rate") // a person must resume it
}
