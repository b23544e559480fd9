package plan

import (
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Bounds of one round of deals, so that its transaction stays small.
const (
	dealsAtOnce   = 512 // on all routes
	dealsPerRoute = 64
	cancelsAtOnce = 32
)

// Deal is a chunk to be written: recipients of one blob at one try.
type Deal struct {
	Campaign *Campaign
	record   *fanfarev1.Campaign // of the version that the deal was made from
	Number   uint64
	Try, Leg uint8
	blob     uint32
	// Recipients [first, end), or only those in seqs if it is not nil.
	first, end uint32
	seqs       *roaring.Bitmap
	domains    []*fanfarev1.DomainBlock
	route      string // of the messages; "": the route of the leg
	weights    uint32 // index of the campaign's weights by which the recipients have their variant
	notAfter   int64
	DealtMs    int64
	// Cancel: the expander makes no messages and writes this outcome instead.
	Cancel  bool
	outcome schemas.Kind
	code    schemas.Code
}

// Size is how many recipients the deal has.
func (d *Deal) Size() int64 {
	if d.seqs != nil {
		return int64(d.seqs.GetCardinality())
	}
	return int64(d.end - d.first)
}

// Any reports whether f returns true for one of the recipients.
func (d *Deal) Any(f func(seq uint32) bool) bool {
	if d.seqs != nil {
		found := false
		d.seqs.Iterate(func(seq uint32) bool {
			found = f(seq)
			return !found
		})
		return found
	}
	for seq := d.first; seq < d.end; seq++ {
		if f(seq) {
			return true
		}
	}
	return false
}

// Chunk returns the record of topic `chunks`.
func (d *Deal) Chunk() *fanfarev1.Chunk {
	c := d.Campaign
	ch := &fanfarev1.Chunk{
		Tenant: c.tenant, CampaignId: c.id, CampaignNumber: c.number, CampaignVersion: d.record.GetVersion(), Deal: d.Number,
		Purpose: schemas.PurposeDeal, Try: uint32(d.Try), Leg: uint32(d.Leg), FreezeId: d.record.GetFreezeId(), Blob: d.blob,
		FirstSeq: d.first, EndSeq: d.end, NotAfterMs: d.notAfter, Weights: d.weights, Domains: d.domains, Route: d.route,
	}
	if d.Cancel {
		ch.Purpose, ch.Outcome, ch.Code = schemas.PurposeCancel, d.outcome, d.code
	}
	if d.seqs != nil {
		ch.Seqs = encodeSet(d.seqs)
	}
	return ch
}

// Deals returns what is to be dealt now and counts it as dealt. A caller that fails to write a deal must discard the
// planner and read the topics again.
func (pl *Planner) Deals(now time.Time) []Deal {
	at := ms(now)
	pl.wakeDue(at)
	var out []Deal
	for _, c := range pl.awake {
		if c.record == nil || !pl.tracks(c) {
			continue
		}
		pl.evaluate(c)
		c.moveDueToReady(at)
		pl.updateRing(c)
		if stopping(c.record) && len(out) < cancelsAtOnce {
			out = pl.cancels(c, at, out)
		}
		if dealing(c.record) && len(out) < cancelsAtOnce {
			out = pl.endNever(c, at, out)
		}
	}
	out = pl.serveRoutes(at, out)
	pl.rest(at)
	return out
}

// serveRoutes deals on the routes in turn. A route with many recipients to deal cannot starve the others: the routes
// that a round did not reach come first in the next round.
func (pl *Planner) serveRoutes(now int64, out []Deal) []Deal {
	n := len(pl.ordered)
	for i := range n {
		if len(out) >= dealsAtOnce {
			pl.routeTurn = (pl.routeTurn + i) % n
			return out
		}
		r := pl.ordered[(pl.routeTurn+i)%n]
		if !r.enabled || now < r.stopUntil {
			continue
		}
		r.refill(now)
		out = pl.serve(r, now, out, min(len(out)+dealsPerRoute, dealsAtOnce))
	}
	if n > 0 {
		pl.routeTurn = (pl.routeTurn + 1) % n
	}
	return out
}

// quantum is how many recipients a turn at a route may deal: a quarter of what may be in flight there, and a chunk at
// most.
func (r *route) quantum() int64 { return chunkOf(r.limit()) }

func chunkOf(target int64) int64 { return min(audience.BlobSize, max(1, target/4)) }

// limit is how much may be in flight on the bulk lane now: a hundredth of the target while the breaker is half open.
func (r *route) limit() int64 {
	if r.probing != 0 {
		return max(1, r.target(r)/100)
	}
	return r.target(r)
}

func (r *route) hasRoom() bool { return r.flight < r.limit() }

// refill adds the retries that a route may take: a tenth of its rate, at most one second's worth at once.
func (r *route) refill(now int64) {
	flow := max(float64(r.rate)/10, 0.1)
	most := max(flow, 1)
	if r.retriesAt == 0 {
		r.retries = most
	} else {
		r.retries = min(most, r.retries+flow*float64(max(now-r.retriesAt, 0))/1000)
	}
	r.retriesAt = now
}

// serve deals on one route until the route is full, no campaign has recipients to deal, or out has reached the number
// of deals in most.
func (pl *Planner) serve(r *route, now int64, out []Deal, most int) []Deal {
	for idle := 0; idle < len(r.shares) && r.hasRoom() && len(out) < most; {
		s := r.shares[r.turn]
		if !s.begun {
			quantum := r.quantum() * s.tenant.weight
			s.begun, s.deficit = true, min(s.deficit+quantum, quantum)
		}
		before := len(out)
		for s.deficit > 0 && r.hasRoom() && len(out) < most {
			d, ok := pl.serveShare(r, s, now)
			if !ok {
				s.deficit = 0 // nothing to deal: unused credit is dropped
				break
			}
			s.deficit -= d.Size()
			out = append(out, d)
		}
		if s.deficit > 0 {
			break // the turn continues when there is room
		}
		if idle++; len(out) > before {
			idle = 0
		}
		s.begun = false
		r.turn = (r.turn + 1) % len(r.shares)
	}
	return out
}

// serveShare makes the next deal of a tenant's campaigns.
func (pl *Planner) serveShare(r *route, s *tenantTurn, now int64) (Deal, bool) {
	if !s.tenant.enabled || !s.tenant.room(r) {
		return Deal{}, false
	}
	for range len(s.places) + 1 { // the first may have used up its turn
		p := s.places[s.turn]
		if !p.begun {
			quantum := r.quantum() * int64(max(p.campaign.record.GetWeight(), 1))
			p.begun, p.deficit = true, min(p.deficit+quantum, quantum)
		}
		if p.deficit > 0 {
			if d, ok := pl.next(r, p.campaign, now); ok {
				p.deficit -= d.Size()
				return d, true
			}
			p.deficit = 0
		}
		p.begun = false
		s.turn = (s.turn + 1) % len(s.places)
	}
	return Deal{}, false
}

// next makes the next deal of a campaign on a route: first recipients that were returned, then retries, then recipients
// that were never dealt.
func (pl *Planner) next(r *route, c *Campaign, now int64) (Deal, bool) {
	if c.blobs == nil || !c.isOpen(now) || !c.own.room(r) {
		return Deal{}, false
	}
	for _, retry := range []bool{false, true} {
		if retry && r.retries < 1 {
			continue
		}
		for i, t := range c.tries {
			for _, set := range t.ready {
				if set.retry != retry || set.seqs.IsEmpty() || int(set.leg) > len(c.flows) || c.flows[set.leg-1].way() != r {
					continue
				}
				if d, ok := pl.again(r, c, i+1, set, now); ok {
					return d, true
				}
			}
		}
	}
	if c.flows[0].way() != r || c.undealt() == 0 {
		return Deal{}, false
	}
	first, end, ok := c.firstUndealt(now)
	if !ok {
		return Deal{}, false // the next batch waits for its time, or the next zone for its hours
	}
	n, ok := c.chunk(r, 1, now)
	if !ok {
		return Deal{}, false
	}
	b, ok := c.blob(first)
	if !ok {
		return Deal{}, false // the index does not cover the audience
	}
	d := Deal{Try: 1, Leg: 1, blob: b.Blob, first: first, weights: c.newestWeights()}
	most := min(b.First+b.Count, end, first+uint32(n))
	if c.onDomains() {
		block := c.domains.block(b.Blob, first)
		if block == nil {
			pl.needDomains(c, b, n, now)
			return Deal{}, false
		}
		most, d.domains = min(most, block.GetEndSeq()), []*fanfarev1.DomainBlock{block}
	}
	d.end = c.untriedEnd(first, most)
	c.dealtByWeights(d.weights, d.members())
	pl.finishDeal(c, &d, r, now)
	return d, true
}

// chunk is how many recipients the next deal on a leg may have; false: one of its levels is full.
func (c *Campaign) chunk(r *route, leg uint8, now int64) (int64, bool) {
	sender := c.flows[leg-1].sender
	if !sender.room(r) {
		return 0, false
	}
	size := min(chunkOf(r.limit()), c.owner.chunk(r), sender.chunk(r), c.own.chunk(r))
	if free, limited := c.freeCalls(leg, now); limited {
		size = min(size, free)
	}
	return size, size > 0
}

// again makes a deal of recipients whose next try after the n-th is due.
func (pl *Planner) again(r *route, c *Campaign, n int, from *readySet, now int64) (Deal, bool) {
	size, ok := c.chunk(r, from.leg, now)
	if !ok {
		return Deal{}, false
	}
	if from.retry {
		size = min(size, int64(r.retries))
	}
	b, seqs := c.gatherOpen(n, &from.seqs, int(size), now)
	if seqs == nil {
		return Deal{}, false
	}
	d := Deal{Try: uint8(n + 1), Leg: from.leg, blob: b.Blob, weights: c.weightsOf(seqs.Minimum())}
	if c.onDomains() {
		if d.domains, ok = c.domains.of(b.Blob, seqs); !ok {
			from.seqs.Or(seqs)
			pl.needDomainsAgain(c, b, seqs, now)
			return Deal{}, false
		}
	}
	d.setSeqs(seqs)
	if from.retry {
		r.retries -= float64(seqs.GetCardinality())
	}
	pl.finishDeal(c, &d, r, now)
	return d, true
}

// gather removes from a set up to size recipients that are in one blob and in [first, end). It returns those of them
// that may still be dealt again after the n-th try.
func (c *Campaign) gather(n int, from *roaring.Bitmap, first, end uint32, size int) (audience.Index, *roaring.Bitmap) {
	for {
		seq := nextPresent(from, first, end)
		if seq >= end {
			return audience.Index{}, nil
		}
		b, ok := c.blob(seq)
		if !ok {
			return b, nil
		}
		seqs := c.sameWeights(roaring.BitmapOf(take(from, seq, min(b.First+b.Count, end), size)...))
		from.AndNot(seqs)
		if c.dropHandled(n, seqs); !seqs.IsEmpty() {
			return b, seqs
		}
	}
}

// setSeqs sets the recipients, as a range if they are contiguous.
func (d *Deal) setSeqs(seqs *roaring.Bitmap) {
	d.first, d.end = seqs.Minimum(), seqs.Maximum()+1
	if seqs.GetCardinality() != uint64(d.end-d.first) {
		d.seqs = seqs
	}
}

// members returns the recipients.
func (d *Deal) members() *roaring.Bitmap {
	if d.seqs != nil {
		return d.seqs
	}
	b := roaring.New()
	b.AddRange(uint64(d.first), uint64(d.end))
	return b
}

// finishDeal numbers a deal, counts it in flight and adds it to the campaign's cursor.
func (pl *Planner) finishDeal(c *Campaign, d *Deal, r *route, now int64) {
	c.deals++
	c.progress++
	d.Campaign, d.record, d.Number, d.DealtMs = c, c.record, c.deals, now
	d.notAfter = now + c.validity()
	leg := d.Leg
	if d.Cancel {
		d.notAfter, leg = now+lostAfter.Milliseconds(), 0
	} else if r != c.flows[d.Leg-1].route {
		d.route = r.name
	}
	pl.markDealt(c, int(d.Try), leg, r, false, d.members(), d.notAfter)
	c.nameInCursor(d)
}

// cancels deals the undealt and the waiting recipients of a stopped campaign as chunks that make no messages. No limit
// applies to these chunks.
func (pl *Planner) cancels(c *Campaign, now int64, out []Deal) []Deal {
	return pl.without(c, 0, schemas.MaxSeq+1, schemas.KindSkipped, schemas.CodeCancelled, now, out)
}

// without deals the undealt and the waiting recipients of [first, end) as chunks that make no messages: for each
// recipient the expander writes an outcome of the given kind and code.
func (pl *Planner) without(c *Campaign, first, end uint32, kind schemas.Kind, code schemas.Code, now int64, out []Deal) []Deal {
	most := min(end, c.total)
	for at := first; len(out) < cancelsAtOnce && c.blobs != nil && c.undealt() > 0; {
		if at = c.untried(max(at, c.next), most); at >= most {
			break
		}
		b, ok := c.blob(at)
		if !ok {
			break
		}
		d := Deal{Try: 1, Leg: 1, blob: b.Blob, first: at, Cancel: true, outcome: kind, code: code}
		d.end = c.untriedEnd(at, min(b.First+b.Count, most))
		pl.finishDeal(c, &d, nil, now)
		out = append(out, d)
	}
	for i, t := range c.tries {
		for _, from := range t.ready {
			for c.blobs != nil && len(out) < cancelsAtOnce {
				b, seqs := c.gather(i+1, &from.seqs, first, end, audience.BlobSize)
				if seqs == nil {
					break
				}
				seqs.AndNot(pl.endBounced(c, seqs))
				if seqs.IsEmpty() {
					continue
				}
				d := Deal{Try: uint8(i + 2), Leg: from.leg, blob: b.Blob, Cancel: true, outcome: kind, code: code}
				d.setSeqs(seqs)
				pl.finishDeal(c, &d, nil, now)
				out = append(out, d)
			}
		}
	}
	return out
}

// endBounced ends and returns those of seqs that bounced at some try: a bounce outranks the outcome of a cancel.
func (pl *Planner) endBounced(c *Campaign, seqs *roaring.Bitmap) *roaring.Bitmap {
	bounced := roaring.New()
	for _, t := range c.tries {
		for _, b := range t.bounced {
			bounced.Or(roaring.And(b.seqs, seqs))
		}
	}
	bounced.Iterate(func(seq uint32) bool {
		n, code := c.bounce(seq)
		pl.finish(c, seq, n, schemas.KindUndelivered, code)
		return true
	})
	return bounced
}
