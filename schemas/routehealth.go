package schemas

import (
	"time"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Reasons of a suspension that the health of a route causes.
const (
	// ReasonRouteDown: nothing can be handed over on the route.
	ReasonRouteDown = "route_down"
	// ReasonProviderAuth: the carrier refuses the account of the route.
	ReasonProviderAuth = "provider_auth"
	// ReasonFailureRate: too many of the campaign's messages fail.
	ReasonFailureRate = "failure_rate"
)

const (
	// HealthEvery is how often a process reports the health of a route, if nothing changes.
	HealthEvery = 5 * time.Second
	// HealthValid is how long a report is valid.
	HealthValid = 20 * time.Second
)

// RouteHealth is the health of a route, from the reports of all processes.
type RouteHealth struct {
	// State is unspecified when no process that hands messages over has reported within [HealthValid].
	State LineState
	// Since is when the route stopped being up; zero while it is up or not known.
	Since time.Time
	// AccountRefused: the route is not up because the carrier refuses the account.
	AccountRefused bool
	// Error is the newest failure in words; empty: none.
	Error   string
	Breaker Breaker
	// Processes hand messages over, with that many Sessions and InFlight messages together.
	Processes, Sessions, InFlight int
	// Throttled is the share of the last answers, 0..1, in which the carrier asked to slow down: the greatest of any
	// process.
	Throttled float64
	// Reported is when the newest report was written; zero: none.
	Reported time.Time
	// Counts of the last five minutes: answers to hand-overs, and receipts.
	Accepted, Refused, Delivered, Undelivered uint64
}

// Failed is the share of the outcomes of the last five minutes that are failures, 0..1: of the answers to hand-overs or
// of the receipts, whichever is greater. ok is false without any outcome.
func (h *RouteHealth) Failed() (share float64, ok bool) {
	of := func(bad, good uint64) {
		if bad+good > 0 {
			share, ok = max(share, float64(bad)/float64(bad+good)), true
		}
	}
	of(h.Refused, h.Accepted)
	of(h.Undelivered, h.Delivered)
	return share, ok
}

// RouteHealthOf combines the reports of the processes about one route. The route is up when one process can hand over.
// A process can hand over when it is up and, if another process is not, when it has proof that the carrier serves it:
// an answer since the other one failed, or a session.
func RouteHealthOf(reports []*fanfarev1.RouteHealth, now time.Time) RouteHealth {
	var h RouteHealth
	var lines []*fanfarev1.RouteHealth
	for _, r := range reports {
		at := time.UnixMilli(r.GetTimeMs())
		if now.Sub(at) > HealthValid {
			continue
		}
		if at.After(h.Reported) {
			h.Reported = at.UTC()
		}
		h.Accepted, h.Refused = h.Accepted+r.GetAccepted(), h.Refused+r.GetRefused()
		h.Delivered, h.Undelivered = h.Delivered+r.GetDelivered(), h.Undelivered+r.GetUndelivered()
		if r.GetState() == LineStateUnspecified {
			continue
		}
		lines = append(lines, r)
		h.Processes++
		h.Sessions, h.InFlight = h.Sessions+int(r.GetSessions()), h.InFlight+int(r.GetInFlight())
		h.Throttled = max(h.Throttled, float64(r.GetThrottledPpm())/1e6)
		h.Breaker = max(h.Breaker, r.GetBreaker()) // half open outranks open, because it is the more recent state
	}
	for _, r := range lines {
		if r.GetState() == LineStateUp {
			if h.State == LineStateUnspecified {
				h.State = LineStateUp
			}
			continue
		}
		if since := time.UnixMilli(r.GetSinceMs()).UTC(); since.After(h.Since) {
			h.Since = since
		}
		if h.State == LineStateUnspecified || h.State == LineStateUp || r.GetState() == LineStateTrial {
			h.State = r.GetState()
		}
		h.AccountRefused = h.AccountRefused || r.GetAccountRefused()
		h.Error = r.GetError()
	}
	if h.State != LineStateDown && h.State != LineStateTrial {
		return h
	}
	for _, up := range lines {
		if up.GetState() == LineStateUp && proves(up, lines) {
			h.State, h.Since, h.AccountRefused = LineStateUp, time.Time{}, false
			return h
		}
	}
	return h
}

// proves reports whether one process has proof that the carrier still serves it although the others are not up.
func proves(up *fanfarev1.RouteHealth, all []*fanfarev1.RouteHealth) bool {
	for _, r := range all {
		if r.GetState() == LineStateUp || up.GetAnsweredMs() > r.GetSinceMs() {
			continue
		}
		if r.GetBreaker() > BreakerClosed || up.GetSessions() == 0 {
			return false
		}
	}
	return true
}
