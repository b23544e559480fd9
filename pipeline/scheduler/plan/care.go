package plan

import (
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Automatic care. The planner suspends campaigns whose route is down, whose carrier refuses the account, or whose
// messages fail too often. If another route can carry them, it does not suspend them (failover.go). It resumes campaigns
// that wait for a route when the route is up again. The health of routes is an input; the planner decides what to do
// about it.

const (
	// authAfter is how long a carrier must refuse the account before campaigns are suspended. It must be short, because
	// carriers lock accounts after many attempts with a wrong password. It must be long enough to change credentials at
	// the carrier and in Fanfare at about the same time.
	authAfter = 10 * time.Second
	// If a route was down and no message uses it, the planner starts a trial: it resumes the campaigns of the route.
	// The first trial starts after downAfter, but not before trialLeast and not after trialFirst. After each failed
	// trial the planner waits twice as long, up to trialMost.
	trialLeast = 5 * time.Second
	trialFirst = time.Minute
	trialMost  = 30 * time.Minute
	// calmAfter is how long a route must be up before failed trials no longer count.
	calmAfter = 10 * time.Minute
)

// care is what the planner decides about a route from its health.
type care struct {
	downAfter               time.Duration
	failPercent, failSample uint32
	autoResume              bool
	alone                   bool // no failover from or to the route

	trouble string // why campaigns that need the route are suspended; "" if they are not
	usable  bool   // campaigns that wait for the route may be resumed
	trial   time.Duration
	trialAt time.Time // when the next trial begins
	up      bool
	upSince time.Time
	// reported: a sender has reported the health of the route.
	reported bool
	away     away // see failover.go
}

func (c *care) set(r *fanfarev1.RouteCare) {
	if r == nil { // the record of an older version has no care
		r = schemas.DefaultCare()
	}
	c.downAfter, c.failPercent, c.failSample = time.Duration(r.GetDownAfterMs())*time.Millisecond, r.GetFailurePercent(), r.GetFailureSample()
	c.autoResume, c.alone = r.GetAutoResume(), r.GetNoFailover()
}

// SetHealth reads the health of each route. Call it about once a second.
func (pl *Planner) SetHealth(health func(route string) schemas.RouteHealth, now time.Time) {
	for _, r := range pl.ordered {
		trouble, usable, carried, reported := r.care.trouble, r.care.usable, r.canCarry(), r.care.reported
		h := health(r.name)
		r.care.observe(&h, now)
		if r.care.trouble != trouble || r.care.usable != usable {
			pl.wakeAll()
		}
		if r.canCarry() != carried || r.care.reported != reported {
			pl.wakeAll()
			pl.rejoinRings()
		}
	}
}

// observe applies the present health of the route. While no sender reports, the last decision stays, and no campaign is
// resumed.
func (c *care) observe(h *schemas.RouteHealth, now time.Time) {
	wasUp := c.up
	c.up, c.usable = h.State == schemas.LineStateUp, false
	if h.State == schemas.LineStateUnspecified {
		return
	}
	c.reported = true
	if c.up {
		if !wasUp {
			c.upSince = now
		}
		if now.Sub(c.upSince) >= calmAfter {
			c.trial, c.away.trial = 0, 0
		}
		c.trouble, c.usable, c.away.on = "", true, false
		return
	}
	c.away.observe(h, now)
	reason, down := "", now.Sub(h.Since)
	switch {
	case h.AccountRefused && down >= authAfter:
		reason = schemas.ReasonProviderAuth
	case c.downAfter > 0 && down >= c.downAfter:
		reason = schemas.ReasonRouteDown
	}
	switch {
	case h.State == schemas.LineStateTrial && c.trouble == "":
		c.usable = true // no message has used the route since, or a trial runs
	case h.State == schemas.LineStateTrial && !now.Before(c.trialAt):
		c.trouble, c.usable = "", true // start a trial; if the carrier still does not answer, the route is down again at once
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

// userResumed clears the trouble of a campaign's routes when a user has resumed the campaign. Until the routes are
// reported as down again, the planner suspends no campaign because of them.
func (pl *Planner) userResumed(c *Campaign) {
	for i := range c.flows {
		if r := c.flows[i].way(); r.care.trouble != "" {
			r.care.trouble, r.care.usable = "", true
			pl.wakeAll()
			pl.rejoinRings()
		}
	}
}

// careMove returns the transition that a campaign needs because of the health of its routes: suspend or resume. A leg
// that another route can carry is in no trouble.
func (c *Campaign) careMove() (schemas.Change, bool) {
	switch r := c.record; r.GetState() {
	case schemas.StatePreparing, schemas.StateSending:
		reason := c.failing
		for i := range c.flows {
			if trouble := c.flows[i].trouble(); trouble != "" && c.needs(uint8(i+1)) {
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
		for i := range c.flows {
			if !c.needs(uint8(i + 1)) {
				continue
			}
			f := &c.flows[i]
			if r := f.way(); !r.enabled || !r.care.usable || !f.route.care.autoResume {
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

// reasonRouteUp is the reason in a campaign's history when care resumes it.
const reasonRouteUp = "the route can be used again"

// needs reports whether recipients wait to be dealt on a leg.
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

// sample counts outcomes of a campaign. When it has enough of them, add judges them and starts a new sample.
type sample struct{ outcomes, failed uint32 }

// add counts an outcome. It returns true if the sample is full and too many of its outcomes are failures.
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

// judge adds an event to a sample of the campaign, unless an event of the same kind was counted for this try; first
// says that this is the first answer of the try. The carrier's answers and its receipts have separate samples, because
// receipts may take hours, and because a carrier that accepts all messages and delivers none is as bad as one that
// refuses them. Outcomes that the expander or the scheduler decides do not count, because they say nothing about the
// route.
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

// ours reports whether Fanfare itself decided not to send to a recipient, before the carrier had the message.
func ours(code schemas.Code) bool {
	switch code {
	case schemas.CodeRenderError, schemas.CodeValidityExpired, schemas.CodeTriesSpent, schemas.CodeGivenUp, schemas.CodeTooLong,
		schemas.CodeQuietHoursExpired, schemas.CodeInvalidNumber:
		return true
	default:
		return false
	}
}

// beginSamples starts new samples after a campaign was resumed.
func (c *Campaign) beginSamples() { c.answers, c.receipts, c.failing = sample{}, sample{}, "" }
