package plan

import (
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
)

// Money is captured in steps while a campaign runs. The money that it can no longer spend is released as soon as the
// campaign is completed, not only when it settles days later.

// moneyEvery is the least time between two steps of a campaign: each is a transaction of the store and a new version.
const moneyEvery = time.Minute

// money is what was last reported to the store.
type money struct {
	at       int64 // when, 0: never looked at
	captured uint64
	left     uint64
	hasLeft  bool
}

// moneyStep returns the next step, false if there is nothing new to report.
func (c *Campaign) moneyStep(now int64) (schemas.Change, bool) {
	r := c.record
	if !c.moneyChanged || !spends(r.GetState()) || r.GetSettled() {
		return schemas.Change{}, false
	}
	if c.money.at == 0 {
		c.money.at = now
	}
	if now < c.money.at+moneyEvery.Milliseconds() {
		return schemas.Change{}, false
	}
	c.moneyChanged = false
	ch := schemas.Change{To: r.GetState(), Actor: schemas.ActorScheduler, Reason: r.GetReason()}
	c.addMoney(&ch)
	changed := ch.CapturedSoFar > c.money.captured || ch.MaxLeft != nil && (!c.money.hasLeft || *ch.MaxLeft < c.money.left)
	c.money.at = now
	if !changed {
		return schemas.Change{}, false
	}
	c.money.captured = ch.CapturedSoFar
	if ch.MaxLeft != nil {
		c.money.left, c.money.hasLeft = *ch.MaxLeft, true
	}
	return ch, true
}

// spends reports whether a campaign in that state may have costs.
func spends(s schemas.State) bool {
	switch s {
	case schemas.StateSending, schemas.StatePaused, schemas.StateSuspended, schemas.StateCompleted, schemas.StateAborted:
		return true
	default:
		return false
	}
}

// addMoney adds to a change the certain cost of the campaign and, once the campaign has ended, the most that it can
// still cost.
func (c *Campaign) addMoney(ch *schemas.Change) {
	ch.CapturedSoFar = c.certainCost()
	if c.ended() && c.summary().done || ch.Trigger == schemas.TriggerComplete {
		if left, ok := c.mostLeft(ch.CapturedSoFar); ok {
			ch.MaxLeft = &left
		}
	}
}

// certainCost is the cost of the hand-overs with a positive receipt: no later receipt makes them free. The cost of all
// other hand-overs is captured when the campaign settles: a receipt with a code that is not billed may still arrive,
// and the ledger does not refund what it has captured.
func (c *Campaign) certainCost() (micros uint64) {
	for _, t := range c.tries {
		for _, p := range t.sent {
			micros += p.micros * p.seqs.AndCardinality(&t.positive)
		}
		for _, p := range t.doubtful {
			certain := roaring.And(&p.seqs, &t.positive)
			if sent := t.sent.find(p.micros); sent != nil {
				certain.AndNot(&sent.seqs)
			}
			micros += p.micros * certain.GetCardinality()
		}
	}
	return micros
}

// mostLeft is the most that a campaign whose recipients all have an outcome can still cost beyond certain: every
// hand-over so far that is not certain turns out billed, and every recipient without a final receipt is tried again on
// all legs, as often as they allow. ok is false if it is not known how many segments a text may have.
func (c *Campaign) mostLeft(certain uint64) (micros uint64, ok bool) {
	for _, t := range c.tries {
		for _, p := range t.sent {
			micros += p.micros * p.seqs.GetCardinality()
		}
		for _, p := range t.doubtful {
			micros += p.micros * p.seqs.GetCardinality()
		}
	}
	open := c.awaiting()
	open.Or(c.doubted())
	n := open.GetCardinality()
	if n > 0 && !stopping(c.record) {
		for _, leg := range c.record.GetLegs() {
			segments := uint64(1)
			if leg.GetChannel() == schemas.ChannelSMS {
				if segments = uint64(c.record.GetMaxSegments()); segments == 0 {
					return 0, false
				}
			}
			micros += n * uint64(maxHandovers(leg)) * leg.GetPriceMicros() * segments
		}
	}
	return micros - min(certain, micros), true
}
