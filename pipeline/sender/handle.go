package sender

import (
	"cmp"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/hours"
	"fanfare/sinks/carrier"
)

// This file has the sender's decisions, without a client, a clock or a goroutine: [judge] decides what to do with a
// message before it is handed over, [classify] decides what the carrier's answer means.

// Directory is the part of the control plane that [judge] reads. Its rows are shared and must not be changed.
type Directory interface {
	Campaign(id string) *fanfarev1.Campaign
	Tenant(id string) *fanfarev1.Tenant
	OptedOut(tenant, e164 string, channel schemas.Channel) bool
}

// Limits of how far the control view may be behind, and of how long a message waits for it.
const (
	// maxViewAge is the greatest age of the control view: an older view may not show that a campaign was stopped.
	maxViewAge = 5 * time.Second
	// maxOptOutAge is the greatest age of the opt-outs. An opt-out must take effect 2 s after the API has answered it;
	// wayLimit of that time is reserved for the way to the carrier.
	maxOptOutAge = 2*time.Second - wayLimit
	// wayLimit is how long after it was judged a message may still be written to the carrier. A message that waits
	// longer, for the carrier's window or a connection, goes back and is judged again: its campaign may have been
	// stopped, or its recipient may have opted out.
	wayLimit = 500 * time.Millisecond
	// behindLimit is how long a message waits until the view has the campaign version that it was made from.
	behindLimit = 2 * time.Second
	// earlyLimit is how long before its not_before a message may wait in the sender.
	earlyLimit = time.Second
	// hoursUnknown is the wait before a message is tried again whose campaign has unreadable calling hours.
	hoursUnknown = time.Minute
	// controlAgain is the wait before a message whose campaign did not arrive in the view may be dealt again.
	controlAgain = time.Second
)

// The wait after a refusal of the carrier before a message may be dealt again, unless the carrier names a time.
const (
	throttledAgain = time.Second
	retryableAgain = 2 * time.Second
)

type action uint8

const (
	submit action = iota // hand it over
	answer               // write an outcome; nothing is handed over
	wait                 // not decidable yet; judge it again later
)

// verdict is what to do with a message and, when that is an answer, the outcome to write.
type verdict struct {
	action action
	kind   schemas.Kind
	code   schemas.Code
	raw    string    // the carrier's own code, or the name of our rule
	again  time.Time // for a return: deal again not before this time
	ref    string    // the provider's id
	parts  []string  // the ids of the parts of a long text, if each part has its own
	poison bool      // the record also becomes a dead letter
	until  time.Time // for a submission: from this time on judge would decide differently, because time has passed
}

func returned(code schemas.Code, again time.Time) verdict {
	return verdict{action: answer, kind: schemas.KindReturned, code: code, again: again}
}

func notSent(code schemas.Code, raw string) verdict {
	return verdict{action: answer, kind: schemas.KindNotSent, code: code, raw: raw}
}

func skipped(code schemas.Code) verdict {
	return verdict{action: answer, kind: schemas.KindSkipped, code: code}
}

func ambiguous(code schemas.Code, raw string) verdict {
	return verdict{action: answer, kind: schemas.KindAmbiguous, code: code, raw: raw}
}

// candidate is a message to judge.
type candidate struct {
	msg       *fanfarev1.Message // nil when the record is poison
	uncertain bool               // an earlier owner of the partition may have handed it over
	guard     time.Time          // nothing may be handed over after it
	released  time.Time          // when the window released it
}

// policyContext is the input of judge that all messages of one moment share.
type policyContext struct {
	now   time.Time
	fresh time.Time // the control view is recent enough until then
	dir   Directory
}

// judge decides whether a message may be handed over. The order of its checks matters: a message that an earlier owner
// may have handed over is reported first; then it checks whether this process may act at all (guard, age of the view),
// whether the campaign and the tenant may send, whether the recipient may be written to (opt-out), and whether now is
// the time (calling hours, validity). Tokens are taken after all of them, and then all checks run once more, because
// waiting for tokens takes time.
func judge(o *policyContext, s *candidate) verdict {
	switch {
	case s.uncertain:
		return ambiguous(schemas.CodeCrash, "")
	case s.msg == nil:
		v := notSent(schemas.CodeRenderError, "poison")
		v.poison = true
		return v
	case !o.now.Before(s.guard):
		return verdict{action: wait}
	case !o.now.Before(o.fresh):
		return verdict{action: wait}
	}
	m := s.msg
	c := o.dir.Campaign(m.GetCampaignId())
	if c == nil || c.GetVersion() < m.GetCampaignVersion() {
		if o.now.Sub(s.released) < behindLimit {
			return verdict{action: wait}
		}
		return returned(schemas.CodeControlBehind, o.now.Add(controlAgain))
	}
	if c.GetTenant() != m.GetTenant() { // no tenant may use another tenant's campaign
		v := notSent(schemas.CodeRenderError, "tenant")
		v.poison = true
		return v
	}
	if v := judgeState(c); v.action != submit {
		return v
	}
	t := o.dir.Tenant(m.GetTenant())
	if t == nil {
		if o.now.Sub(s.released) < behindLimit {
			return verdict{action: wait}
		}
		return returned(schemas.CodeControlBehind, o.now.Add(controlAgain))
	}
	if !t.GetEnabled() {
		return returned(schemas.CodeSuspended, time.Time{})
	}
	if !m.GetConfirmsOptOut() && o.dir.OptedOut(m.GetTenant(), m.GetTo(), m.GetChannel()) {
		return skipped(schemas.CodeOptedOut)
	}
	until := earlier(s.guard, o.fresh)
	if h := c.GetCallingHours(); h != nil {
		open, err := hours.ForRecipient(h, m.GetZone())
		if err != nil {
			return returned(schemas.CodeWindow, o.now.Add(hoursUnknown))
		}
		if !open.Open(o.now) {
			return returned(schemas.CodeWindow, open.NextOpen(o.now))
		}
		if !open.Open(o.now.Add(wayLimit)) { // hours close on a full minute
			until = o.now.Truncate(time.Minute).Add(time.Minute)
		}
	}
	if v := judgeValidity(o.now, m); v.action != submit {
		return v
	}
	if end := m.GetNotAfterMs(); end > 0 {
		until = earlier(until, time.UnixMilli(end))
	}
	return verdict{action: submit, until: until}
}

// judgeState checks the live state of a campaign. A campaign in a state that is not listed has no messages; if one
// comes anyway, it is given back.
func judgeState(c *fanfarev1.Campaign) verdict {
	switch c.GetState() {
	case schemas.StatePreparing, schemas.StateSending:
		return verdict{action: submit}
	case schemas.StateCompleted:
		if c.GetStopped() {
			return skipped(schemas.CodeCancelled)
		}
		return verdict{action: submit} // a completed campaign still has tries after a late bounce
	case schemas.StatePaused:
		return returned(schemas.CodePaused, time.Time{})
	case schemas.StateAborted, schemas.StateCancelled, schemas.StateRejected, schemas.StateFailed:
		return skipped(schemas.CodeCancelled)
	default:
		return returned(schemas.CodeSuspended, time.Time{})
	}
}

func judgeValidity(now time.Time, m *fanfarev1.Message) verdict {
	ms := now.UnixMilli()
	if end := m.GetNotAfterMs(); end > 0 && ms >= end {
		return notSent(schemas.CodeValidityExpired, "")
	}
	if begin := m.GetNotBeforeMs(); ms < begin {
		if begin-ms <= earlyLimit.Milliseconds() {
			return verdict{action: wait}
		}
		return returned(schemas.CodeWindow, time.UnixMilli(begin))
	}
	return verdict{action: submit}
}

// classify turns the carrier's answer into an outcome. c is the message's campaign, nil when the view does not have it.
func classify(r carrier.Result, m *fanfarev1.Message, c *fanfarev1.Campaign, now time.Time) verdict {
	switch r.Outcome {
	case carrier.Accepted:
		return verdict{action: answer, kind: schemas.KindSent, code: schemas.CodeAwaitingDLR, raw: r.Code, ref: r.Ref, parts: validParts(r.PartRefs)}
	case carrier.Rejected:
		code := cmp.Or(r.Sub, schemas.CodeNotSentOther)
		if info, ok := schemas.LookupCode(code); ok && info.Fallback && c != nil && int(m.GetLeg()) < len(c.GetLegs()) {
			v := returned(code, now) // not_sent would be final: the scheduler deals the next leg
			v.raw = r.Code
			return v
		}
		return notSent(code, r.Code)
	case carrier.Throttled:
		v := returned(schemas.CodeThrottled, now.Add(cmp.Or(max(r.RetryAfter, 0), throttledAgain)))
		v.raw = r.Code
		return v
	case carrier.Retryable:
		v := returned(cmp.Or(r.Sub, schemas.CodeProviderError), now.Add(cmp.Or(max(r.RetryAfter, 0), retryableAgain)))
		v.raw = r.Code
		return v
	case carrier.Unsupported:
		if c != nil && int(m.GetLeg()) < len(c.GetLegs()) {
			v := returned(schemas.CodeUnsupported, now)
			v.raw = r.Code
			return v
		}
		return notSent(cmp.Or(r.Sub, schemas.UnreachableCode(m.GetChannel())), r.Code)
	default: // Unknown, and outcomes that this version does not know
		return ambiguous(schemas.CodeTimeout, r.Code)
	}
}

// validParts returns refs as valid UTF-8, which a record needs.
func validParts(refs []string) []string {
	for i := range refs {
		refs[i] = validUTF8(refs[i])
	}
	return refs
}

const (
	// defaultP99 is the answer time of a route whose row names none.
	defaultP99 = 500 * time.Millisecond
	// maxWindow is the most messages of one lane that may be in flight.
	maxWindow = 2_000
)

func p99(r *fanfarev1.Route) time.Duration {
	if ms := r.GetP99Ms(); ms > 0 {
		return time.Duration(ms) * time.Millisecond
	}
	return defaultP99
}

// windowSize is how many messages one of several senders may have in flight: what the route sends while the carrier
// answers, and a quarter of a second more for commits and tokens. It is never less than 20 ms of the rate, the time of
// a slow commit.
func windowSize(r *fanfarev1.Route, senders int) int {
	rate := float64(r.GetRate()) / float64(max(1, senders))
	w := rate * max(20*time.Millisecond, 250*time.Millisecond+p99(r)).Seconds()
	return int(min(maxWindow, max(1, w)))
}

// answerLimit is how long the sender awaits an answer before it calls the hand-over ambiguous.
func answerLimit(r *fanfarev1.Route) time.Duration { return max(2*time.Second, 3*p99(r)) }

// patience is how long a message waits for tokens of a level below the route. The scheduler deals at most a second and
// the carrier's answer time ahead of each limit, so a message waits longer only when the limit was lowered after its
// deal.
func patience(r *fanfarev1.Route) time.Duration { return 2*time.Second + p99(r) }

// rateWait is the longest wait for one token of a level below the route: a message that would wait longer is given
// back.
const rateWait = time.Second

// outbound returns the message in the form that connectors take.
func outbound(m *fanfarev1.Message, id schemas.ID, deadline time.Time) carrier.Outbound {
	o := carrier.Outbound{
		Key: id, Channel: m.GetChannel(), To: m.GetTo(), From: m.GetSender(), Deadline: deadline,
		Cost: carrier.Micros(m.GetPriceMicros() * uint64(m.GetSegments())),
	}
	if ms := m.GetNotAfterMs(); ms > 0 {
		o.NotAfter = time.UnixMilli(ms)
	}
	switch b := m.GetBody().(type) {
	case *fanfarev1.Message_Text:
		o.Body.Text = carrier.Text{Body: b.Text.GetBody(), Encoding: b.Text.GetEncoding(), Segments: int(max(1, m.GetSegments()))}
	case *fanfarev1.Message_Template:
		o.Body.Template = &carrier.Template{Name: b.Template.GetName(), Language: b.Template.GetLanguage(), Params: b.Template.GetParams(), Components: b.Template.GetComponents()}
	case *fanfarev1.Message_Rich:
		o.Body.Rich = &carrier.Rich{JSON: b.Rich.GetJson()}
	case *fanfarev1.Message_Call:
		o.Body.Call = &carrier.Call{
			Queue: b.Call.GetQueue(), MachineAction: b.Call.GetMachineAction(), Media: b.Call.GetMedia(),
			Text: b.Call.GetText(), Language: b.Call.GetLanguage(), Ring: time.Duration(b.Call.GetRingSeconds()) * time.Second,
		}
	}
	return o
}

// units is how many tokens of the route a message costs.
func units(m *fanfarev1.Message, p carrier.Pacing) int {
	if p == carrier.PacingSegments {
		return int(max(1, m.GetSegments()))
	}
	return 1
}
