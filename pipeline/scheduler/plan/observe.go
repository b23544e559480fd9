package plan

import (
	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
)

// maxOrphans bounds the campaigns that are known from delivery events only.
const maxOrphans = 4096

// Observe applies a delivery event. Applying it again changes nothing, and events may come in any order. What follows a
// return or a bounce is decided later, in evaluate.
func (pl *Planner) Observe(e *Event) {
	if e.Try == 0 || e.Try > schemas.MaxTry || e.Seq > schemas.MaxSeq {
		return // a click, a reply or an opt-out has no try; any other event here is invalid
	}
	info, ok := schemas.LookupKind(e.Kind)
	if !ok || info.Class == schemas.ClassFact {
		return
	}
	c := pl.campaignOf(e)
	if c == nil {
		return
	}
	if c.broken {
		return // when its records are repaired, the scheduler reads the events again
	}
	if c.closed {
		pl.endAfterSettled(c, e)
		return
	}
	c.lastSeen = max(c.lastSeen, e.LoggedMs)
	// While the record has no audience, it is older than the deal that caused the event, and its total is not known.
	if c.record.GetFreezeId() != "" && !c.record.GetHidden() && e.Seq >= c.total {
		pl.unknownEvents++
		return
	}
	n := int(e.Try)
	t := c.try(n)
	pl.touch(c)
	first := t.answered.CheckedAdd(e.Seq)
	if first {
		c.progress++
		if d := t.wasDealt(e.Seq); d != nil {
			pl.addInFlight(c, d, -1)
		}
	}
	pl.judge(c, t, e, first)
	switch e.Kind {
	case schemas.KindSent:
		t.sent.add(e.PriceMicros, e.Seq)
		c.handover = max(c.handover, e.TimeMs)
		if len(c.flows) > 0 {
			pl.breakerAnswered(c, t, e)
		}
	case schemas.KindAmbiguous:
		t.doubtful.add(e.PriceMicros, e.Seq)
		if e.Code != schemas.CodeLost { // LOST is written by the scheduler itself and proves no hand-over
			c.handover = max(c.handover, e.TimeMs)
		}
	case schemas.KindReturned:
		t.returned.Add(e.Seq)
		if e.Code == schemas.CodeBreaker {
			pl.breakerOpened(c, t, e)
		}
		pl.note(c, e)
	case schemas.KindNotSent, schemas.KindSkipped:
		c.never.Add(e.Seq)
		if c.bounces {
			pl.note(c, e)
		}
	case schemas.KindBuffered:
		t.buffered.Add(e.Seq)
	case schemas.KindBounced:
		t.bounced.of(e.Code).Add(e.Seq)
		c.bounces = true
		pl.note(c, e)
	case schemas.KindUnconfirmed:
		c.unconfirmed.Add(e.Seq)
	case schemas.KindUndelivered:
		t.negative.of(e.Code).Add(e.Seq)
	case schemas.KindDelivered, schemas.KindRead:
		t.positive.Add(e.Seq)
	default: // facts were filtered out above
	}
}

// campaignOf returns the campaign of an event. An unknown campaign is added without a record.
func (pl *Planner) campaignOf(e *Event) *Campaign {
	if pl.last != nil && pl.last.number == e.Campaign {
		return pl.last
	}
	c := pl.campaigns[e.Campaign]
	if c == nil {
		orphans := 0
		for _, o := range pl.open {
			if o.record == nil {
				orphans++
			}
		}
		if orphans >= maxOrphans || e.Campaign > schemas.MaxCampaignNumber || len(e.Tenant) == 0 || string(e.CampaignID) != schemas.CampaignID(e.Campaign) {
			pl.unknownEvents++
			return nil
		}
		c = pl.add(e.Campaign, string(e.Tenant), string(e.CampaignID))
	}
	if !c.closed {
		pl.last = c
	}
	return c
}

// note records that the next step of a recipient must be decided.
func (pl *Planner) note(c *Campaign, e *Event) {
	c.notes = append(c.notes, note{seq: e.Seq, try: uint8(e.Try), kind: e.Kind, code: e.Code, at: e.TimeMs, again: e.AgainMs})
	if len(c.notes) >= pl.evalCap && c.record != nil {
		pl.evaluate(c)
	}
}

// addInFlight adds delta to what is in flight at every level of a deal.
func (pl *Planner) addInFlight(c *Campaign, d *dealtSet, delta int64) {
	c.flight += delta
	switch {
	case d.leg == 0 || d.route == nil:
	case d.txn:
		d.route.txn += delta
	default:
		d.route.flight += delta
		if c.owner != nil {
			c.owner.flight += delta
			c.own.flight += delta
		}
		if int(d.leg) <= len(c.flows) {
			c.flows[d.leg-1].sender.flight += delta
		}
	}
}

// adjustInFlight adds everything in flight of a campaign to its levels, or with sign -1 subtracts it.
func (pl *Planner) adjustInFlight(c *Campaign, sign int64) {
	for _, t := range c.tries {
		for _, d := range t.dealt {
			if n := int64(d.seqs.GetCardinality() - d.seqs.AndCardinality(&t.answered)); n > 0 {
				pl.addInFlight(c, d, sign*n)
			}
		}
	}
}

// markDealt counts seqs as dealt: they are in flight, except those that were answered already.
func (pl *Planner) markDealt(c *Campaign, n int, leg uint8, r *route, txn bool, seqs *roaring.Bitmap, notAfter int64) {
	t := c.try(n)
	d := t.dealtTo(leg, r, txn)
	fresh := roaring.AndNot(seqs, &d.seqs)
	d.seqs.Or(seqs)
	fresh.AndNot(&t.answered)
	if flying := fresh.GetCardinality(); flying > 0 {
		pl.addInFlight(c, d, int64(flying))
		t.expiringAt(notAfter).Or(fresh)
		if lost := roundUp(notAfter, minute) + lostAfter.Milliseconds(); c.expiry == 0 || lost < c.expiry {
			c.expiry = lost
		}
	}
	pl.touch(c)
}

// touch notes that the sets of a campaign change.
func (pl *Planner) touch(c *Campaign) {
	c.changed, c.unsaved, c.moneyChanged = true, true, true
	for _, s := range c.calls {
		s.stale = true
	}
	if !c.listedUnsaved {
		c.listedUnsaved = true
		pl.unsaved = append(pl.unsaved, c)
	}
	pl.wake(c)
}

// ObserveSubmission applies a record of a route's transactional lane, which is a deal of a single send.
func (pl *Planner) ObserveSubmission(e *Event, routeName string) {
	if e.Try == 0 || e.Try > schemas.MaxTry || e.Seq > schemas.MaxSeq {
		return
	}
	c := pl.campaignOf(e)
	if c == nil || c.closed || c.broken || c.record != nil && !c.record.GetHidden() {
		return
	}
	c.lastSeen = max(c.lastSeen, e.LoggedMs)
	pl.markDealt(c, int(e.Try), uint8(min(e.Leg, maxLegs-1)), pl.route(routeName), true, roaring.BitmapOf(e.Seq), e.NotAfterMs)
}

// breakerOpened stops dealing on a route until the time that a BREAKER return names.
func (pl *Planner) breakerOpened(c *Campaign, t *tryState, e *Event) {
	if d := t.wasDealt(e.Seq); d != nil && d.route != nil {
		d.route.stopUntil = max(d.route.stopUntil, e.AgainMs)
		d.route.probing = max(d.route.probing, e.TimeMs)
	} else if int(e.Leg) <= len(c.flows) {
		r := c.flows[e.Leg-1].route
		r.stopUntil = max(r.stopUntil, e.AgainMs)
		r.probing = max(r.probing, e.TimeMs)
	}
}

// breakerAnswered closes the breaker of a route whose carrier accepted a message again.
func (pl *Planner) breakerAnswered(c *Campaign, t *tryState, e *Event) {
	f := &c.flows[min(int(e.Leg), len(c.flows))-1]
	if r := f.route; r.probing == 0 && len(f.others) == 0 {
		return // the usual case
	}
	if d := t.wasDealt(e.Seq); d != nil && d.route != nil && d.route.probing != 0 && e.TimeMs > d.route.probing {
		d.route.probing = 0
	}
}

// endAfterSettled ends a recipient of a settled campaign after a bounce or a return: no try follows either of them.
// Events that were written before the campaign settled were handled at that time.
func (pl *Planner) endAfterSettled(c *Campaign, e *Event) {
	if e.LoggedMs < max(c.record.GetSettledMs(), c.settledMs) {
		return
	}
	end := End{Campaign: c, Seq: e.Seq, Try: uint8(e.Try), Leg: uint8(min(e.Leg, maxLegs-1))}
	switch e.Kind {
	case schemas.KindBounced:
		end.Kind, end.Code = schemas.KindUndelivered, e.Code
	case schemas.KindReturned:
		end.Kind, end.Code = schemas.KindNotSent, schemas.CodeValidityExpired
	default:
		return
	}
	pl.pendingEnds = append(pl.pendingEnds, end)
}
