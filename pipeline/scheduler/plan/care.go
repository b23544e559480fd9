package plan

import (
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Automatic care: campaigns whose route is down, whose carrier refuses the account, or too many of whose messages fail
// are suspended. Those that wait for a route are resumed when it is up again. How a route does is an input; what
// follows is decided here.

const (
	// authAfter is how long a carrier must refuse the account. It is short: trying on with a wrong password locks
	// accounts, and long enough for credentials that are changed on both sides at about the same time.
	authAfter = 10 * time.Second
	// A route that was down and that no message tries is tried by resuming its campaigns: first after downAfter, within
	// these bounds, and after each trial that failed after twice as long, up to trialMost.
	trialLeast = 5 * time.Second
	trialFirst = time.Minute
	trialMost  = 30 * time.Minute
	// calmAfter is how long a route must have been up until it is forgotten that trials failed.
	calmAfter = 10 * time.Minute
)

// care is what follows from how a route does.
type care struct {
	downAfter               time.Duration
	failPercent, failSample uint32
	autoResume              bool

	trouble string // why campaigns that need the route are suspended; "": they are not
	usable  bool   // campaigns that wait for the route may be resumed
	trial   time.Duration
	trialAt time.Time // when the next trial begins
	up      bool
	upSince time.Time
}

func (c *care) set(r *fanfarev1.RouteCare) {
	c.downAfter, c.failPercent, c.failSample = time.Duration(r.GetDownAfterMs())*time.Millisecond, r.GetFailurePercent(), r.GetFailureSample()
	c.autoResume = r.GetAutoResume()
}

// SetHealth asks how each route does. Call it about once a second.
func (pl *Planner) SetHealth(health func(route string) schemas.RouteHealth, now time.Time) {
	for _, r := range pl.ordered {
		trouble, usable := r.care.trouble, r.care.usable
		h := health(r.name)
		r.care.observe(&h, now)
		if r.care.trouble != trouble || r.care.usable != usable {
			pl.wakeAll()
		}
	}
}

// observe applies how the route does now. While no sender reports, what was decided stays, and no campaign is resumed.
func (c *care) observe(h *schemas.RouteHealth, now time.Time) {
	wasUp := c.up
	c.up, c.usable = h.State == schemas.LineStateUp, false
	if h.State == schemas.LineStateUnspecified {
		return
	}
	if c.up {
		if !wasUp {
			c.upSince = now
		}
		if now.Sub(c.upSince) >= calmAfter {
			c.trial = 0
		}
		c.trouble, c.usable = "", true
		return
	}
	reason, down := "", now.Sub(h.Since)
	switch {
	case h.AccountRefused && down >= authAfter:
		reason = schemas.ReasonProviderAuth
	case c.downAfter > 0 && down >= c.downAfter:
		reason = schemas.ReasonRouteDown
	}
	switch {
	case h.State == schemas.LineStateTrial && c.trouble == "":
		c.usable = true // no message has tried since, or a trial is under way
	case h.State == schemas.LineStateTrial && !now.Before(c.trialAt):
		c.trouble, c.usable = "", true // the campaigns find out; if the carrier still does not answer, the route is down at once
	case h.State == schemas.LineStateDown && c.trouble == "" && reason != "":
		c.trouble = reason
		first := trialFirst
		if c.downAfter > 0 {
			first = max(trialLeast, min(c.downAfter, trialFirst))
		}
		c.trial = min(max(2*c.trial, first), trialMost)
		c.trialAt = now.Add(c.trial)
	case reason != "":
		c.trouble = reason
	}
}

// careMove is the move that the health of its routes asks of a campaign: to suspend it, or to resume it.
func (c *Campaign) careMove() (schemas.Change, bool) {
	switch r := c.record; r.GetState() {
	case schemas.StatePreparing, schemas.StateSending:
		reason := c.failing
		for i := range c.flows {
			if trouble := c.flows[i].route.care.trouble; trouble != "" && c.needs(uint8(i+1)) && c.flows[i].route.enabled {
				reason = trouble
			}
		}
		if reason != "" {
			return schemas.Change{To: schemas.StateSuspended, Trigger: schemas.TriggerSuspend, Actor: schemas.ActorGuard, Reason: reason}, true
		}
	case schemas.StateSuspended:
		if r.GetReason() != schemas.ReasonRouteDown && r.GetReason() != schemas.ReasonProviderAuth {
			return schemas.Change{}, false
		}
		for _, f := range c.flows {
			if !f.route.enabled || !f.route.care.usable || !f.route.care.autoResume {
				return schemas.Change{}, false
			}
		}
		to := schemas.StateSending
		if r.GetStartedMs() == 0 {
			to = schemas.StatePreparing
		}
		return schemas.Change{To: to, Trigger: schemas.TriggerResume, Actor: schemas.ActorGuard, Reason: reasonRouteUp}, len(c.flows) > 0
	default:
	}
	return schemas.Change{}, false
}

// reasonRouteUp is the reason of a resumption in the history of a campaign.
const reasonRouteUp = "the route can be used again"

// needs reports whether recipients wait to be dealt to a leg.
func (c *Campaign) needs(leg uint8) bool {
	if leg == 1 && c.undealt() > 0 {
		return true
	}
	for _, t := range c.tries {
		for _, s := range t.ready {
			if s.leg == leg && !s.seqs.IsEmpty() {
				return true
			}
		}
		for key, s := range t.due {
			if key.leg == leg && !s.IsEmpty() {
				return true
			}
		}
	}
	return false
}

// sample counts outcomes of a campaign until there are enough to judge by, and then begins a new sample.
type sample struct{ outcomes, failed uint32 }

// add counts an outcome and reports whether a full sample has failed too often.
func (s *sample) add(failed bool, c *care) bool {
	if c.failPercent == 0 || c.failSample == 0 {
		*s = sample{}
		return false
	}
	s.outcomes++
	if failed {
		s.failed++
	}
	if s.outcomes < c.failSample {
		return false
	}
	bad := uint64(s.failed)*100 >= uint64(c.failPercent)*uint64(s.outcomes)
	*s = sample{}
	return bad
}

// judge counts an event, unless one like it was counted of that try; first says that it is the first of the try.
// Answers of the carrier and receipts are judged apart: receipts may take hours, and a carrier that takes everything
// and delivers nothing is no better than one that refuses. What the expander and the scheduler decide themselves says
// nothing about the route.
func (pl *Planner) judge(c *Campaign, t *tryState, e *Event, first bool) {
	if len(c.flows) == 0 || c.record.GetHidden() {
		return
	}
	care := &c.flows[min(int(e.Leg), len(c.flows))-1].route.care
	bad := false
	switch e.Kind {
	case schemas.KindSent:
		if first {
			bad = c.answers.add(false, care)
		}
	case schemas.KindNotSent:
		if first && !ours(e.Code) {
			bad = c.answers.add(true, care)
		}
	case schemas.KindDelivered, schemas.KindUndelivered, schemas.KindBounced:
		if !t.positive.Contains(e.Seq) && !t.negative.contains(e.Seq) && !t.bounced.contains(e.Seq) {
			bad = c.receipts.add(e.Kind != schemas.KindDelivered, care)
		}
	default:
	}
	if bad && c.record.GetState() == schemas.StateSending {
		c.failing = schemas.ReasonFailureRate
	}
}

// ours reports whether a recipient was not sent to for a reason of our own, before the carrier was asked.
func ours(code schemas.Code) bool {
	switch code {
	case schemas.CodeRenderError, schemas.CodeValidityExpired, schemas.CodeTriesSpent, schemas.CodeGivenUp, schemas.CodeTooLong,
		schemas.CodeQuietHoursExpired, schemas.CodeInvalidNumber:
		return true
	default:
		return false
	}
}

// beginSamples forgets the outcomes before: a campaign was resumed.
func (c *Campaign) beginSamples() { c.answers, c.receipts, c.failing = sample{}, sample{}, "" }
