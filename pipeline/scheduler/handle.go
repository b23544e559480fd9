package scheduler

import (
	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// maxOrphans bounds how many campaigns may be known from events alone.
const maxOrphans = 4096

// observe takes in a delivery event. Taking it in again changes nothing, and the order of events does not matter to what is
// known; what follows from a return or a bounce is thought about afterwards, in evaluate.
func (k *core) observe(e *event) {
	if e.try == 0 || e.try > schemas.MaxTry || e.seq > schemas.MaxSeq {
		return // a click, a reply, an opt-out, or nonsense: no try of anybody
	}
	info, ok := schemas.LookupKind(e.kind)
	if !ok || info.Class == schemas.ClassFact {
		return
	}
	c := k.of(e)
	if c == nil {
		return
	}
	if c.closed {
		k.afterwards(c, e)
		return
	}
	c.lastSeen = max(c.lastSeen, e.logged)
	// A record without an audience is older than the deal that the event came of: who is of it is not known yet.
	if c.record.GetFreezeId() != "" && !c.record.GetHidden() && e.seq >= c.total {
		k.strays++
		return
	}
	n := int(e.try)
	t := c.try(n)
	c.changed, c.touched = true, true
	if t.answered.CheckedAdd(e.seq) {
		if d := t.wasDealt(e.seq); d != nil {
			k.count(c, d, -1)
		}
	}
	switch e.kind {
	case fanfarev1.Kind_KIND_SENT:
		t.sent.add(e.price, e.seq)
		c.handover = max(c.handover, e.at)
		if len(c.flows) > 0 {
			k.answeredBy(c, t, e)
		}
	case fanfarev1.Kind_KIND_AMBIGUOUS:
		t.doubtful.add(e.price, e.seq)
		if e.code != fanfarev1.Code_CODE_LOST { // which is our own giving up, no hand-over
			c.handover = max(c.handover, e.at)
		}
	case fanfarev1.Kind_KIND_RETURNED:
		t.returned.Add(e.seq)
		if e.code == fanfarev1.Code_CODE_BREAKER {
			k.broken(c, t, e)
		}
		k.note(c, e)
	case fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Kind_KIND_SKIPPED:
		c.never.Add(e.seq)
		if c.bounces {
			k.note(c, e)
		}
	case fanfarev1.Kind_KIND_BUFFERED:
		t.buffered.Add(e.seq)
	case fanfarev1.Kind_KIND_BOUNCED:
		t.addBounced(e.code, e.seq)
		c.bounces = true
		if !billed(e.code) {
			t.unbilled.Add(e.seq)
		}
		k.note(c, e)
	case fanfarev1.Kind_KIND_UNCONFIRMED:
		c.unconfirmed.Add(e.seq)
	case fanfarev1.Kind_KIND_UNDELIVERED:
		t.negative.Add(e.seq)
		if !billed(e.code) {
			t.unbilled.Add(e.seq)
		}
	case fanfarev1.Kind_KIND_DELIVERED, fanfarev1.Kind_KIND_READ:
		t.positive.Add(e.seq)
	default: // facts were left out above
	}
}

// of returns the campaign of an event, one without a record when it is new to us.
func (k *core) of(e *event) *campaign {
	if k.last != nil && k.last.number == e.campaign {
		return k.last
	}
	c := k.campaigns[e.campaign]
	if c == nil {
		orphans := 0
		for _, o := range k.open {
			if o.record == nil {
				orphans++
			}
		}
		if orphans >= maxOrphans || e.campaign > schemas.MaxCampaignNumber || len(e.tenant) == 0 || string(e.id) != schemas.CampaignID(e.campaign) {
			k.strays++
			return nil
		}
		c = k.add(e.campaign, string(e.tenant), string(e.id))
	}
	if !c.closed {
		k.last = c
	}
	return c
}

// note remembers to evaluate a recipient.
func (k *core) note(c *campaign, e *event) {
	c.notes = append(c.notes, note{seq: e.seq, try: uint8(e.try), kind: e.kind, code: e.code, at: e.at, again: e.again})
	if len(c.notes) >= k.evalCap && c.record != nil {
		k.evaluate(c)
	}
}

// count moves the number of what is in flight at every level of a deal.
func (k *core) count(c *campaign, d *dealt, delta int64) {
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

// fly adds all that is in flight of a campaign to its levels, or takes it off.
func (k *core) fly(c *campaign, sign int64) {
	for _, t := range c.tries {
		for _, d := range t.dealt {
			if n := int64(d.seqs.GetCardinality() - d.seqs.AndCardinality(&t.answered)); n > 0 {
				k.count(c, d, sign*n)
			}
		}
	}
}

// mark remembers a deal: seqs are now in flight, except those that were answered already.
func (k *core) mark(c *campaign, n int, leg uint8, r *route, txn bool, seqs *roaring.Bitmap, notAfter int64) {
	t := c.try(n)
	d := t.dealtTo(leg, r, txn)
	fresh := roaring.AndNot(seqs, &d.seqs)
	d.seqs.Or(seqs)
	fresh.AndNot(&t.answered)
	if flying := fresh.GetCardinality(); flying > 0 {
		k.count(c, d, int64(flying))
		t.expiringAt(notAfter).Or(fresh)
		if lost := roundUp(notAfter, minute) + lostAfter.Milliseconds(); c.expiry == 0 || lost < c.expiry {
			c.expiry = lost
		}
	}
	c.changed, c.touched = true, true
}

// submitted takes in a record of a route's transactional lane: it is a deal of a single send.
func (k *core) submitted(e *event, routeName string) {
	if e.try == 0 || e.try > schemas.MaxTry || e.seq > schemas.MaxSeq {
		return
	}
	c := k.of(e)
	if c == nil || c.closed || c.record != nil && !c.record.GetHidden() {
		return
	}
	c.lastSeen = max(c.lastSeen, e.logged)
	k.mark(c, int(e.try), uint8(min(e.leg, maxLegs-1)), k.route(routeName), true, roaring.BitmapOf(e.seq), e.notAfter)
}

// broken takes in that a route's breaker is open.
func (k *core) broken(c *campaign, t *try, e *event) {
	if d := t.wasDealt(e.seq); d != nil && d.route != nil {
		d.route.stopUntil = max(d.route.stopUntil, e.again)
		d.route.probing = max(d.route.probing, e.at)
	} else if int(e.leg) <= len(c.flows) {
		r := c.flows[e.leg-1].route
		r.stopUntil = max(r.stopUntil, e.again)
		r.probing = max(r.probing, e.at)
	}
}

// answeredBy takes in that the carrier of a route takes messages again.
func (k *core) answeredBy(c *campaign, t *try, e *event) {
	leg := min(int(e.leg), len(c.flows))
	if r := c.flows[leg-1].route; r.probing != 0 && e.at > r.probing {
		if d := t.wasDealt(e.seq); d != nil && d.route == r {
			r.probing = 0
		}
	}
}

// afterwards ends what is said of a settled campaign's recipient and would stay open for ever: nothing follows it. What was
// written before the campaign was settled has been dealt with.
func (k *core) afterwards(c *campaign, e *event) {
	if e.logged < c.record.GetSettledMs() {
		return
	}
	end := ending{campaign: c, seq: e.seq, try: uint8(e.try), leg: uint8(min(e.leg, maxLegs-1))}
	switch e.kind {
	case fanfarev1.Kind_KIND_BOUNCED:
		end.kind, end.code = fanfarev1.Kind_KIND_UNDELIVERED, e.code
	case fanfarev1.Kind_KIND_RETURNED:
		end.kind, end.code = fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_VALIDITY_EXPIRED
	default:
		return
	}
	k.ends = append(k.ends, end)
}
