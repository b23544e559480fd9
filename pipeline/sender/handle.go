package sender

import (
	"cmp"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/hours"
	"fanfare/sinks/carrier"
)

// This file is what the sender decides, without a client, a clock or a goroutine: [judge] says what is to be done with a message
// before it may be handed over, [classify] what the carrier's answer means.

// Directory is the control plane: campaigns and tenants as this process knows them. What it returns is shared and not changed.
type Directory interface {
	Campaign(id string) *fanfarev1.Campaign
	Tenant(id string) *fanfarev1.Tenant
	OptedOut(tenant, e164 string) bool
}

// Bounds of what the control view may be behind, and of how long a message waits for it.
const (
	// maxViewAge: with an older view nobody knows whether a campaign was stopped meanwhile.
	maxViewAge = 5 * time.Second
	// maxOptOutAge: an opt-out is heeded 2 s after it was answered; wayLimit of that is the way to the carrier.
	maxOptOutAge = 2*time.Second - wayLimit
	// wayLimit is how long after all questions were asked a message may still be written to the carrier. What waits longer, for
	// the carrier's window or for a connection, goes back and is asked again: it may be stopped or opted out by then.
	wayLimit = 500 * time.Millisecond
	// behindLimit is how long a message waits for the version of its campaign that it was made of.
	behindLimit = 2 * time.Second
	// earlyLimit is how long before its not_before a message may wait here.
	earlyLimit = time.Second
	// hourUnknown is when a campaign whose calling hours do not read is looked at again.
	hoursUnknown = time.Minute
	// controlAgain is when a message whose campaign did not arrive is dealt again.
	controlAgain = time.Second
)

// Times after which something that the carrier did not take is tried again, unless the carrier names its own.
const (
	throttledAgain = time.Second
	retryableAgain = 2 * time.Second
)

type action uint8

const (
	submit action = iota // hand it over
	answer               // write an outcome; nothing is handed over
	wait                 // nothing can be said yet; ask again
)

// verdict is what is to be done with a message, and, of an answer, what is written.
type verdict struct {
	action action
	kind   fanfarev1.Kind
	code   fanfarev1.Code
	raw    string    // the carrier's own code, or which rule
	again  time.Time // of a return: not before
	ref    string    // the provider's id
	// poison: the record goes to the dead letters, too.
	poison bool
}

func returned(code fanfarev1.Code, again time.Time) verdict {
	return verdict{action: answer, kind: fanfarev1.Kind_KIND_RETURNED, code: code, again: again}
}

func notSent(code fanfarev1.Code, raw string) verdict {
	return verdict{action: answer, kind: fanfarev1.Kind_KIND_NOT_SENT, code: code, raw: raw}
}

func skipped(code fanfarev1.Code) verdict {
	return verdict{action: answer, kind: fanfarev1.Kind_KIND_SKIPPED, code: code}
}

func ambiguous(code fanfarev1.Code, raw string) verdict {
	return verdict{action: answer, kind: fanfarev1.Kind_KIND_AMBIGUOUS, code: code, raw: raw}
}

// subject is what is known of a message when it is judged.
type subject struct {
	msg       *fanfarev1.Message // nil: the record does not decode
	uncertain bool
	guard     time.Time // nothing is handed over after it
	released  time.Time
}

// outlook is what holds for all messages judged at one time.
type outlook struct {
	now time.Time
	// fresh is until when the control view is recent enough.
	fresh time.Time
	dir   Directory
}

// judge asks the questions that stand before a hand-over, in the one order that is right: what was perhaps handed over already
// is only reported; then comes whether we may act at all (guard), whether anybody may (campaign, tenant), whether this
// recipient may be written to (opt-out), and whether now (hours, validity). The tokens come after all of them, and after the
// tokens the same questions are asked once more, for waiting takes time.
func judge(o *outlook, s *subject) verdict {
	switch {
	case s.uncertain:
		return ambiguous(fanfarev1.Code_CODE_CRASH, "")
	case s.msg == nil:
		v := notSent(fanfarev1.Code_CODE_RENDER_ERROR, "poison")
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
		return returned(fanfarev1.Code_CODE_CONTROL_BEHIND, o.now.Add(controlAgain))
	}
	if c.GetTenant() != m.GetTenant() { // nobody's row is another one's
		v := notSent(fanfarev1.Code_CODE_RENDER_ERROR, "tenant")
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
		return returned(fanfarev1.Code_CODE_CONTROL_BEHIND, o.now.Add(controlAgain))
	}
	if !t.GetEnabled() {
		return returned(fanfarev1.Code_CODE_SUSPENDED, time.Time{})
	}
	if o.dir.OptedOut(m.GetTenant(), m.GetTo()) {
		return skipped(fanfarev1.Code_CODE_OPTED_OUT)
	}
	if h := c.GetCallingHours(); h != nil {
		open, err := hours.FromRecord(h)
		if err != nil {
			return returned(fanfarev1.Code_CODE_WINDOW, o.now.Add(hoursUnknown))
		}
		if !open.Open(o.now) {
			return returned(fanfarev1.Code_CODE_WINDOW, open.NextOpen(o.now))
		}
	}
	return judgeValidity(o.now, m)
}

// judgeState reads the live state of a campaign. What is not listed cannot have messages, and is given back.
func judgeState(c *fanfarev1.Campaign) verdict {
	switch c.GetState() {
	case fanfarev1.State_STATE_PREPARING, fanfarev1.State_STATE_SENDING:
		return verdict{action: submit}
	case fanfarev1.State_STATE_COMPLETED:
		if c.GetStopped() {
			return skipped(fanfarev1.Code_CODE_CANCELLED)
		}
		return verdict{action: submit} // tries after a late bounce go on under it
	case fanfarev1.State_STATE_PAUSED:
		return returned(fanfarev1.Code_CODE_PAUSED, time.Time{})
	case fanfarev1.State_STATE_ABORTED, fanfarev1.State_STATE_CANCELLED, fanfarev1.State_STATE_REJECTED, fanfarev1.State_STATE_FAILED:
		return skipped(fanfarev1.Code_CODE_CANCELLED)
	default:
		return returned(fanfarev1.Code_CODE_SUSPENDED, time.Time{})
	}
}

func judgeValidity(now time.Time, m *fanfarev1.Message) verdict {
	ms := now.UnixMilli()
	if end := m.GetNotAfterMs(); end > 0 && ms >= end {
		return notSent(fanfarev1.Code_CODE_VALIDITY_EXPIRED, "")
	}
	if begin := m.GetNotBeforeMs(); ms < begin {
		if begin-ms <= earlyLimit.Milliseconds() {
			return verdict{action: wait}
		}
		return returned(fanfarev1.Code_CODE_WINDOW, time.UnixMilli(begin))
	}
	return verdict{action: submit}
}

// classify says what an answer of the carrier means. c is the campaign, nil when it is gone from the view.
func classify(r carrier.Result, m *fanfarev1.Message, c *fanfarev1.Campaign, now time.Time) verdict {
	switch r.Outcome {
	case carrier.Accepted:
		return verdict{action: answer, kind: fanfarev1.Kind_KIND_SENT, code: fanfarev1.Code_CODE_AWAITING_DLR, raw: r.Code, ref: r.Ref}
	case carrier.Rejected:
		return notSent(cmp.Or(r.Sub, fanfarev1.Code_CODE_NOT_SENT_OTHER), r.Code)
	case carrier.Throttled:
		v := returned(fanfarev1.Code_CODE_THROTTLED, now.Add(cmp.Or(max(r.RetryAfter, 0), throttledAgain)))
		v.raw = r.Code
		return v
	case carrier.Retryable:
		v := returned(cmp.Or(r.Sub, fanfarev1.Code_CODE_PROVIDER_ERROR), now.Add(cmp.Or(max(r.RetryAfter, 0), retryableAgain)))
		v.raw = r.Code
		return v
	case carrier.Unsupported:
		if c != nil && int(m.GetLeg()) < len(c.GetLegs()) {
			v := returned(fanfarev1.Code_CODE_UNSUPPORTED, now)
			v.raw = r.Code
			return v
		}
		return notSent(cmp.Or(r.Sub, unreachable(m.GetChannel())), r.Code)
	default: // Unknown, and an answer that this version does not know
		return ambiguous(fanfarev1.Code_CODE_TIMEOUT, r.Code)
	}
}

func unreachable(c fanfarev1.Channel) fanfarev1.Code {
	switch c {
	case fanfarev1.Channel_CHANNEL_RCS:
		return fanfarev1.Code_CODE_RCS_NOT_CAPABLE
	case fanfarev1.Channel_CHANNEL_WHATSAPP:
		return fanfarev1.Code_CODE_NOT_WHATSAPP_USER
	default:
		return fanfarev1.Code_CODE_NOT_SENT_OTHER
	}
}

const (
	// defaultP99 of a route whose record names none.
	defaultP99 = 500 * time.Millisecond
	// maxWindow is the most that may be uncertain after a crash of one lane.
	maxWindow = 2_000
)

func p99(r *fanfarev1.Route) time.Duration {
	if ms := r.GetP99Ms(); ms > 0 {
		return time.Duration(ms) * time.Millisecond
	}
	return defaultP99
}

// windowSize is how many messages one of several senders may have in flight: as many as the route takes while the carrier
// answers, and a quarter of a second more for the commits and the tokens. It is never less than 20 ms of the rate, what a
// commit takes on a slow day.
func windowSize(r *fanfarev1.Route, senders int) int {
	rate := float64(r.GetRate()) / float64(max(1, senders))
	w := rate * max(20*time.Millisecond, 250*time.Millisecond+p99(r)).Seconds()
	return int(min(maxWindow, max(1, w)))
}

// answerLimit is how long an answer is awaited before the hand-over is called ambiguous.
func answerLimit(r *fanfarev1.Route) time.Duration { return max(2*time.Second, 3*p99(r)) }

// patience is how long a message waits for tokens of a level below the route. The scheduler deals a second and the carrier's
// answer time ahead of each limit, so only who was dealt under a higher limit waits longer.
func patience(r *fanfarev1.Route) time.Duration { return 2*time.Second + p99(r) }

// rateWait is the longest wait for one token of a level below the route: who waits longer is dealt again instead.
const rateWait = time.Second

// outbound is the message as the carrier takes it.
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
		o.Body.Template = &carrier.Template{Name: b.Template.GetName(), Language: b.Template.GetLanguage(), Params: b.Template.GetParams()}
	case *fanfarev1.Message_Rich:
		o.Body.Rich = &carrier.Rich{JSON: b.Rich.GetJson()}
	case *fanfarev1.Message_Call:
		o.Body.Call = &carrier.Call{Queue: b.Call.GetQueue(), MachineAction: b.Call.GetMachineAction(), Media: b.Call.GetMedia()}
	}
	return o
}

// units is what a message costs of the route's limit.
func units(m *fanfarev1.Message, p carrier.Pacing) int {
	if p == carrier.PacingSegments {
		return int(max(1, m.GetSegments()))
	}
	return 1
}
