package plan

import (
	"slices"
	"time"

	"fanfare/schemas"
)

// Failover. A leg has its own route and, in the order fixed at confirm, others that can carry it. While its own route
// is disabled or has been down for [awayAfter], the recipients that wait go over the first of the others that can carry
// them. As soon as its own route is up again, they go over it.
//
// Only recipients that wait to be dealt change the route: those that were never dealt, and those that [Campaign.dropHandled]
// lets through, of whose last try it is proved that it did not arrive. A recipient in flight or in doubt stays with the
// route of its try. The chunk and the cursor name the route of a deal, so a successor deals nobody over another route
// again.

// awayAfter is how long a route must be down until others carry its recipients. It is longer than most reconnects.
const awayAfter = 5 * time.Second

// away says whether other routes carry what a route was to carry.
type away struct {
	on bool
	// If no message uses the route, it cannot find out by itself that the carrier works again. So after trialAt its
	// recipients go over it again; if it is down still, the next trial comes after twice the time.
	trial   time.Duration
	trialAt time.Time
}

// observe applies the health of a route that is not up.
func (a *away) observe(h *schemas.RouteHealth, now time.Time) {
	switch {
	case h.State == schemas.LineStateDown && !a.on && now.Sub(h.Since) >= awayAfter:
		a.on = true
		a.trial = min(max(2*a.trial, trialFirst), trialMost)
		a.trialAt = now.Add(a.trial)
	case h.State == schemas.LineStateTrial && a.on && !now.Before(a.trialAt):
		a.on = false
	}
}

// canCarry reports whether recipients may be dealt on a route.
func (r *route) canCarry() bool {
	return r.enabled && !r.care.away.on && r.care.trouble == ""
}

// way returns the route on which the recipients of a leg are dealt now.
func (f *flow) way() *route {
	if len(f.others) == 0 || !f.route.known || f.route.canCarry() || f.route.care.alone {
		return f.route
	}
	for _, r := range f.others {
		if r.canCarry() && !r.care.alone && r.care.reported { // a route of which no sender reports may have no sender
			return r
		}
	}
	return f.route
}

// routes returns all routes of a leg.
func (f *flow) routes() []*route { return append([]*route{f.route}, f.others...) }

// disabledFor reports whether all routes of a leg have been disabled for so many milliseconds.
func (f *flow) disabledFor(long, now int64) bool {
	return !slices.ContainsFunc(f.routes(), func(r *route) bool { return r.enabled || r.disabledMs == 0 || now < r.disabledMs+long })
}

// trouble returns why the campaigns of a leg must be suspended, "" if they need not. If the leg's own route is disabled
// and no other can carry it, the trouble of an enabled other counts.
func (f *flow) trouble() string {
	r := f.way()
	if r.enabled {
		return r.care.trouble
	}
	for _, r := range f.others {
		if r.enabled && !r.care.alone && !f.route.care.alone {
			return r.care.trouble
		}
	}
	return ""
}

// hasOthers reports whether a leg of the campaign can change its route.
func (c *Campaign) hasOthers() bool {
	for i := range c.flows {
		if len(c.flows[i].others) > 0 {
			return true
		}
	}
	return false
}

// ownRoute reports whether the route of a deal is that of its leg. It returns false while the legs are not known.
func (c *Campaign) ownRoute(d *dealtSet) bool {
	return d.leg > 0 && int(d.leg) <= len(c.flows) && c.flows[d.leg-1].route == d.route
}

// routeOf returns the route of the n-th try of seq; "": it is not known.
func (c *Campaign) routeOf(n int, seq uint32) string {
	if t := c.have(n); t != nil {
		if d := t.wasDealt(seq); d != nil && d.route != nil {
			return d.route.name
		}
	}
	return ""
}

// Away returns for each route whether other routes carry its recipients.
func (pl *Planner) Away(each func(route string, away bool)) {
	for _, r := range pl.ordered {
		each(r.name, r.known && !r.canCarry())
	}
}
