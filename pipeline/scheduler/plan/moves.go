package plan

import (
	"errors"
	"fmt"
	"time"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Reasons of a suspension or a failure.
const (
	// ReasonMissedSchedule: the campaign's start time passed while no scheduler could start it.
	ReasonMissedSchedule = "missed_schedule"
	// ReasonAudienceGone: the lists that the campaign was to be sent to no longer exist.
	ReasonAudienceGone = "audience_gone"
	// ReasonBrokenRecord: a record of the campaign in topic `cursors` or `chunks` cannot be read, so the scheduler does
	// not know which recipients were dealt.
	ReasonBrokenRecord = "broken_record"
)

const (
	// missedAfter is how late a scheduled campaign may still start by itself.
	missedAfter = time.Hour
	// dayGrace is how long after the end of its UTC day a hidden campaign may still get single sends.
	dayGrace = 10 * time.Minute
	// moveAgain is how long after a request a move that failed or had no effect is requested again.
	moveAgain = time.Second
)

// moveTry is a move that was requested from the store.
type moveTry struct {
	version uint64 // of the record that the move was decided on
	again   int64  // request it again then
}

// storeRequest is the state of a campaign's request for its audience.
type storeRequest struct {
	asked bool
	again int64 // not before, after an answer
	// gone is the reason for which the audience of the record's version goneAt can never be frozen; "": it can. A newer
	// version may have other lists.
	gone   string
	goneAt uint64
}

// Moves returns the moves that the store is to make now. A move is requested once per version of the record, and again
// after [moveAgain] if it had no effect.
func (pl *Planner) Moves(now time.Time) []schemas.Change {
	var out []schemas.Change
	pl.wakeDue(ms(now))
	for _, c := range pl.awake {
		if c.record == nil || !pl.tracks(c) || c.move.version == c.record.GetVersion() && ms(now) < c.move.again {
			continue
		}
		pl.evaluate(c)
		ch, ok := pl.moveOf(c, now)
		switch {
		case ok && ch.Trigger == schemas.TriggerComplete:
			c.addMoney(&ch)
			c.money = money{at: ms(now), captured: ch.CapturedSoFar, left: deref(ch.MaxLeft), hasLeft: ch.MaxLeft != nil}
		case !ok:
			ch, ok = c.moneyStep(ms(now))
		}
		if ok {
			ch.Tenant, ch.Campaign, ch.Version, ch.At = c.tenant, c.id, c.record.GetVersion(), now
			c.move = moveTry{version: ch.Version, again: ms(now.Add(moveAgain))}
			out = append(out, ch)
		}
	}
	for _, c := range pl.unsettled {
		r := c.record
		if c.move.version == r.GetVersion() && ms(now) < c.move.again {
			continue
		}
		if ch, ok := c.towardsSettled(); ok {
			c.move = moveTry{version: r.GetVersion(), again: ms(now.Add(moveAgain))}
			ch.Tenant, ch.Campaign, ch.Version, ch.At = c.tenant, c.id, r.GetVersion(), now
			out = append(out, ch)
		}
	}
	for _, c := range pl.broken {
		r := c.record
		if r == nil || c.closed || r.GetHidden() || c.move.version == r.GetVersion() && ms(now) < c.move.again {
			continue // a hidden campaign needs no cursor: its single sends are still dealt
		}
		if r.GetState() == schemas.StatePreparing || r.GetState() == schemas.StateSending {
			c.move = moveTry{version: r.GetVersion(), again: ms(now.Add(moveAgain))}
			out = append(out, schemas.Change{
				Tenant: c.tenant, Campaign: c.id, Version: r.GetVersion(), At: now, To: schemas.StateSuspended, Trigger: schemas.TriggerSuspend,
				Actor: schemas.ActorGuard, Reason: ReasonBrokenRecord,
			})
		}
	}
	return out
}

// towardsSettled is the next move of a campaign that its cursor calls settled and the store does not.
func (c *Campaign) towardsSettled() (schemas.Change, bool) {
	switch r := c.record; r.GetState() {
	case schemas.StateScheduled:
		return schemas.Change{To: schemas.StatePreparing, Trigger: schemas.TriggerStart, Actor: schemas.ActorScheduler}, true
	case schemas.StatePaused, schemas.StateSuspended:
		return schemas.Change{To: schemas.StateSending, Trigger: schemas.TriggerResume, Actor: schemas.ActorGuard}, true
	case schemas.StatePreparing, schemas.StateSending:
		return schemas.Change{To: schemas.StateCompleted, Trigger: schemas.TriggerComplete, Actor: schemas.ActorScheduler}, true
	case schemas.StateCompleted, schemas.StateAborted, schemas.StateCancelled:
		return schemas.Change{To: r.GetState(), Actor: schemas.ActorScheduler, Reason: r.GetReason(), Settled: true, Captured: c.finalCost}, true
	default:
		// A person must confirm it again or cancel it: the scheduler deals none of its recipients
		return schemas.Change{}, false
	}
}

func deref(n *uint64) uint64 {
	if n == nil {
		return 0
	}
	return *n
}

func (pl *Planner) moveOf(c *Campaign, now time.Time) (schemas.Change, bool) {
	r := c.record
	to := func(s schemas.State, t schemas.Trigger) (schemas.Change, bool) {
		return schemas.Change{To: s, Trigger: t, Actor: schemas.ActorScheduler}, true
	}
	if !r.GetHidden() {
		if ch, ok := c.careMove(); ok {
			return ch, true
		}
	}
	switch {
	case r.GetHidden():
		if r.GetState() == schemas.StateSending && dayOver(r, now) && !pl.lanesUnread && pl.held.count[c.number] == 0 && c.summary().done {
			return to(schemas.StateCompleted, schemas.TriggerComplete)
		}
	case r.GetState() == schemas.StateScheduled:
		switch late := now.Sub(time.UnixMilli(r.GetScheduledMs())); {
		case late < 0:
		case late > missedAfter:
			return schemas.Change{
				To: schemas.StateSuspended, Trigger: schemas.TriggerMissed, Actor: schemas.ActorGuard, Reason: ReasonMissedSchedule,
			}, true
		default:
			return to(schemas.StatePreparing, schemas.TriggerStart)
		}
	case r.GetState() == schemas.StatePreparing:
		switch {
		case c.request.gone != "" && c.request.goneAt == r.GetVersion():
			ch, _ := to(schemas.StateFailed, schemas.TriggerFail)
			ch.Reason = c.request.gone
			return ch, true
		case r.GetFreezeId() == "":
		case c.total == 0:
			return to(schemas.StateCompleted, schemas.TriggerComplete)
		case pl.canStart(c, now):
			return to(schemas.StateSending, schemas.TriggerDeal)
		}
	case r.GetState() == schemas.StateSending:
		if c.summary().done {
			return to(schemas.StateCompleted, schemas.TriggerComplete)
		}
		if c.domains.spent && c.own.flight == 0 {
			return schemas.Change{To: schemas.StateSuspended, Trigger: schemas.TriggerSuspend, Actor: schemas.ActorGuard, Reason: schemas.ReasonNoDomains}, true
		}
	}
	if settling(r) && (len(c.tries) > 0 || r.GetState() != schemas.StateCancelled) {
		if v := c.summary(); v.done && v.awaiting == 0 && (v.doubtful == 0 || c.windowOver(ms(now))) {
			return schemas.Change{To: r.GetState(), Actor: schemas.ActorScheduler, Reason: r.GetReason(), Settled: true, Captured: c.captured(), Unsent: c.unsent()}, true
		}
	}
	return schemas.Change{}, false
}

// settling reports whether a campaign only awaits receipts.
func settling(r *fanfarev1.Campaign) bool {
	switch r.GetState() {
	case schemas.StateCompleted, schemas.StateAborted, schemas.StateCancelled:
		return !r.GetSettled()
	default:
		return false
	}
}

// canStart reports whether the first chunk of a campaign could be dealt now, or whether the hours of all its recipients
// never open, which ends them. The campaign moves to sending only then, and a person can cancel it until then.
func (pl *Planner) canStart(c *Campaign, now time.Time) bool {
	if c.blobs == nil || !c.isOpen(ms(now)) && !c.allNever(ms(now)) || len(c.flows) == 0 || !c.owner.enabled {
		return false
	}
	r := c.flows[0].way()
	return r.enabled && ms(now) >= r.stopUntil
}

// dayOver reports whether a hidden campaign gets no more single sends: the UTC day that it was made for is over.
func dayOver(r *fanfarev1.Campaign, now time.Time) bool {
	return now.After(dayEnd(r))
}

func dayEnd(r *fanfarev1.Campaign) time.Time {
	return time.UnixMilli(r.GetCreatedMs()).UTC().Truncate(24 * time.Hour).Add(24*time.Hour + dayGrace)
}

// MoveFailed notes that the store did not make a move. The planner decides the move again when the next record arrives,
// or later from the same record.
func (pl *Planner) MoveFailed(ch schemas.Change, now time.Time) {
	if c := pl.find(ch.Campaign); c != nil {
		c.move.again = ms(now.Add(moveAgain))
		if ch.Trigger == "" && !ch.Settled {
			c.money, c.moneyChanged = money{at: c.money.at}, true // reported again
		}
		pl.wake(c)
	}
}

// AudienceRequest asks the store for an audience: to freeze it, or for the index of its blobs.
type AudienceRequest struct {
	Tenant, Campaign string
	Number           uint64
	Version          uint64
	FreezeID         string // "": freeze; else: its index of blobs
}

// AudienceRequests returns the requests to the store: to freeze an audience, or for the index of a frozen one. Each
// request is returned once; it may be returned again after [Planner.AudienceAnswered] has applied its answer.
func (pl *Planner) AudienceRequests(now time.Time) []AudienceRequest {
	var out []AudienceRequest
	pl.wakeDue(ms(now))
	for _, c := range pl.awake {
		r := c.record
		if !pl.tracks(c) || !c.needsAudience() || ms(now) < c.request.again {
			continue
		}
		c.request.asked = true
		out = append(out, AudienceRequest{Tenant: c.tenant, Campaign: c.id, Number: c.number, Version: r.GetVersion(), FreezeID: r.GetFreezeId()})
	}
	return out
}

// needsAudience reports whether the audience of a campaign, or its index, is to be requested.
func (c *Campaign) needsAudience() bool {
	r := c.record
	if r == nil || r.GetHidden() || c.request.asked || c.blobs != nil {
		return false
	}
	if r.GetFreezeId() == "" {
		return freezes(r)
	}
	return c.total > 0
}

// freezes reports whether a campaign's audience is to be frozen in that state: from confirm on.
func freezes(r *fanfarev1.Campaign) bool {
	switch r.GetState() {
	case schemas.StateReady, schemas.StateScheduled, schemas.StatePreparing:
		return true
	default:
		return false
	}
}

// AudienceAnswered applies the store's answer. Of the answer to a freeze it uses only the error: the result arrives as
// a record. It returns the error with the campaign's name, unless the campaign has changed meanwhile.
func (pl *Planner) AudienceAnswered(w AudienceRequest, blobs []audience.Index, err error, now time.Time) error {
	c := pl.campaigns[w.Number]
	if c == nil || c.closed || c.record.GetFreezeId() != w.FreezeID {
		return nil // the campaign has changed meanwhile; its request is made again
	}
	c.request.asked, c.request.again = false, ms(now.Add(moveAgain))
	pl.wake(c)
	if err != nil {
		if w.FreezeID == "" && errors.Is(err, schemas.ErrNotFound) {
			c.request.gone, c.request.goneAt = ReasonAudienceGone, w.Version
			if why, ok := errors.AsType[*schemas.FreezeError](err); ok {
				c.request.gone = why.Reason
			}
		}
		return fmt.Errorf("audience of %s: %w", c.id, err)
	}
	if w.FreezeID == "" {
		return nil
	}
	if len(blobs) == 0 {
		c.audienceLost = true
	}
	if err := contiguous(blobs, c.total); err != nil {
		return fmt.Errorf("audience %s of %s: %w", w.FreezeID, c.id, err)
	}
	c.blobs, c.audienceLost = blobs, false
	c.regroup()
	return nil
}

// contiguous returns an error unless the blobs hold every seq below total once, in order.
func contiguous(blobs []audience.Index, total uint32) error {
	var next uint32
	for _, b := range blobs {
		if b.First != next || b.Count == 0 || b.Count > audience.BlobSize {
			return fmt.Errorf("blob %d holds %d recipients from %d on: want 1 to %d from %d on", b.Blob, b.Count, b.First, audience.BlobSize, next)
		}
		next += b.Count
	}
	if next != total {
		return fmt.Errorf("blobs hold %d recipients, the campaign has %d", next, total)
	}
	return nil
}
