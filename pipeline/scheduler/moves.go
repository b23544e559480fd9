package scheduler

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
	// ReasonMissedSchedule: the campaign's time came and went while nobody could start it.
	ReasonMissedSchedule = "missed_schedule"
	// ReasonAudienceGone: what the campaign was to be sent to is not there any more.
	ReasonAudienceGone = "audience_gone"
)

const (
	// missedAfter is how late a scheduled campaign still starts by itself.
	missedAfter = time.Hour
	// dayGrace is how long after the end of its UTC day a hidden campaign may still get single sends.
	dayGrace = 10 * time.Minute
	// moveAgain is when a move that failed, or that nothing came of, is asked for again.
	moveAgain = time.Second
)

// moveTry is a move that was asked for.
type moveTry struct {
	version uint64 // of the record it was decided on
	again   int64  // ask again then
}

// wish is something asked of the store.
type wish struct {
	asked bool
	again int64
	gone  string // why the audience can never be frozen, "" when it can
}

// Moves returns what the store is to do with campaigns now. A move is asked for once per version of the record, and again
// when a second has passed and nothing came of it.
func (k *core) Moves(now time.Time) []schemas.Change {
	var out []schemas.Change
	for _, c := range k.open {
		if c.record == nil || c.move.version == c.record.GetVersion() && ms(now) < c.move.again {
			continue
		}
		k.evaluate(c)
		if ch, ok := k.moveOf(c, now); ok {
			ch.Tenant, ch.Campaign, ch.Version, ch.At = c.tenant, c.id, c.record.GetVersion(), now
			c.move = moveTry{version: ch.Version, again: ms(now.Add(moveAgain))}
			out = append(out, ch)
		}
	}
	return out
}

func (k *core) moveOf(c *campaign, now time.Time) (schemas.Change, bool) {
	r := c.record
	to := func(s fanfarev1.State, t schemas.Trigger) (schemas.Change, bool) {
		return schemas.Change{To: s, Trigger: t, Actor: schemas.ActorScheduler}, true
	}
	switch {
	case r.GetHidden():
		if r.GetState() == fanfarev1.State_STATE_SENDING && dayOver(r, now) && !k.laneUnread && k.holding.count[c.number] == 0 && c.judge().done {
			return to(fanfarev1.State_STATE_COMPLETED, schemas.TriggerComplete)
		}
	case r.GetState() == fanfarev1.State_STATE_SCHEDULED:
		switch late := now.Sub(time.UnixMilli(r.GetScheduledMs())); {
		case late < 0:
		case late > missedAfter:
			return schemas.Change{
				To: fanfarev1.State_STATE_SUSPENDED, Trigger: schemas.TriggerMissed, Actor: schemas.ActorGuard, Reason: ReasonMissedSchedule,
			}, true
		default:
			return to(fanfarev1.State_STATE_PREPARING, schemas.TriggerStart)
		}
	case r.GetState() == fanfarev1.State_STATE_PREPARING:
		switch {
		case c.wanting.gone != "":
			ch, _ := to(fanfarev1.State_STATE_FAILED, schemas.TriggerFail)
			ch.Reason = c.wanting.gone
			return ch, true
		case r.GetFreezeId() == "":
		case c.total == 0:
			return to(fanfarev1.State_STATE_COMPLETED, schemas.TriggerComplete)
		case k.canStart(c, now):
			return to(fanfarev1.State_STATE_SENDING, schemas.TriggerDeal)
		}
	case r.GetState() == fanfarev1.State_STATE_SENDING:
		if c.judge().done {
			return to(fanfarev1.State_STATE_COMPLETED, schemas.TriggerComplete)
		}
	}
	if settling(r) && (len(c.tries) > 0 || r.GetState() != fanfarev1.State_STATE_CANCELLED) {
		if v := c.judge(); v.done && v.awaiting == 0 && (v.doubtful == 0 || c.windowOver(ms(now))) {
			return schemas.Change{To: r.GetState(), Actor: schemas.ActorScheduler, Reason: r.GetReason(), Settled: true, Captured: c.captured()}, true
		}
	}
	return schemas.Change{}, false
}

// settling reports whether a campaign is over but for its receipts.
func settling(r *fanfarev1.Campaign) bool {
	switch r.GetState() {
	case fanfarev1.State_STATE_COMPLETED, fanfarev1.State_STATE_ABORTED, fanfarev1.State_STATE_CANCELLED:
		return !r.GetSettled()
	default:
		return false
	}
}

// canStart reports whether the first chunk of a campaign could be dealt right now: only then it moves on to sending, so that
// until then it can still be cancelled.
func (k *core) canStart(c *campaign, now time.Time) bool {
	if c.blobs == nil || !c.isOpen(ms(now)) || len(c.flows) == 0 || !c.owner.enabled {
		return false
	}
	r := c.flows[0].route
	return r.enabled && ms(now) >= r.stopUntil
}

// dayOver reports whether nothing new comes to a hidden campaign: the UTC day it was made for has passed.
func dayOver(r *fanfarev1.Campaign, now time.Time) bool {
	day := time.UnixMilli(r.GetCreatedMs()).UTC().Truncate(24 * time.Hour)
	return now.After(day.Add(24*time.Hour + dayGrace))
}

// MoveFailed takes in that the store did not make a move: it is decided anew on the next record, or later on the same.
func (k *core) MoveFailed(ch schemas.Change, now time.Time) {
	if c := k.find(ch.Campaign); c != nil {
		c.move.again = ms(now.Add(moveAgain))
	}
}

// wants says what the store is to be asked for.
type wants struct {
	tenant, campaign string
	number           uint64
	version          uint64
	freezeID         string // "": freeze; else: its index of blobs
}

// Wants returns what is needed of the store: an audience to be frozen, or the index of a frozen one. Each is asked for once,
// until [core.Wanted] has the answer.
func (k *core) Wants(now time.Time) []wants {
	var out []wants
	for _, c := range k.open {
		r := c.record
		if r == nil || r.GetHidden() || c.wanting.asked || ms(now) < c.wanting.again || c.blobs != nil {
			continue
		}
		if r.GetFreezeId() == "" && !freezes(r) || r.GetFreezeId() != "" && c.total == 0 {
			continue
		}
		c.wanting.asked = true
		out = append(out, wants{tenant: c.tenant, campaign: c.id, number: c.number, version: r.GetVersion(), freezeID: r.GetFreezeId()})
	}
	return out
}

// freezes reports whether the audience of a campaign is taken in that state: from confirm on.
func freezes(r *fanfarev1.Campaign) bool {
	switch r.GetState() {
	case fanfarev1.State_STATE_READY, fanfarev1.State_STATE_SCHEDULED, fanfarev1.State_STATE_PREPARING:
		return true
	default:
		return false
	}
}

// Wanted takes in the store's answer to a wish: of a freeze only whether it failed, for its result comes as a record.
func (k *core) Wanted(w wants, blobs []audience.Index, err error, now time.Time) error {
	c := k.campaigns[w.number]
	if c == nil || c.closed || c.record.GetFreezeId() != w.freezeID {
		return nil // the question has changed meanwhile, and is asked anew
	}
	c.wanting.asked, c.wanting.again = false, ms(now.Add(moveAgain))
	if err != nil {
		if w.freezeID == "" && errors.Is(err, schemas.ErrNotFound) {
			c.wanting.gone = ReasonAudienceGone
			if why, ok := errors.AsType[*schemas.FreezeError](err); ok {
				c.wanting.gone = why.Reason
			}
		}
		return fmt.Errorf("audience of %s: %w", c.id, err)
	}
	if w.freezeID == "" {
		return nil
	}
	if err := contiguous(blobs, c.total); err != nil {
		return fmt.Errorf("audience %s of %s: %w", w.freezeID, c.id, err)
	}
	c.blobs = blobs
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
