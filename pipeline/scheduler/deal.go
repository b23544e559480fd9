package scheduler

import (
	"cmp"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Bounds of one round of deals, so that one transaction is never large.
const (
	dealsAtOnce   = 64
	cancelsAtOnce = 32
)

// deal is a chunk that is to be written: recipients of one blob at one try.
type deal struct {
	campaign *campaign
	record   *fanfarev1.Campaign // as it was dealt
	number   uint64
	try, leg uint8
	blob     uint32
	// Recipients [first, end), or seqs when they are not all of that range.
	first, end uint32
	seqs       *roaring.Bitmap
	notAfter   int64
	dealt      int64
	// Of a cancel: nothing is made, this outcome is written.
	cancel  bool
	outcome fanfarev1.Kind
	code    fanfarev1.Code
}

func (d *deal) size() int64 {
	if d.seqs != nil {
		return int64(d.seqs.GetCardinality())
	}
	return int64(d.end - d.first)
}

// share is a tenant's place at a route, turn one campaign's place within it. Both are served in turn with a deficit: a place
// whose turn comes may deal its quantum, owes what it dealt beyond, and keeps no credit that it had no use for.
type share struct {
	tenant  *tenant
	deficit int64
	begun   bool
	places  []*place
	turn    int
}

type place struct {
	campaign *campaign
	deficit  int64
	begun    bool
}

// Deals returns what is to be dealt now, and takes it for written: whoever fails to write it must begin anew from the log.
func (k *core) Deals(now time.Time) []deal {
	at := ms(now)
	for _, c := range k.open {
		if c.record != nil {
			k.evaluate(c)
			c.ripen(at)
		}
	}
	k.makeRings()
	var out []deal
	for _, c := range k.open {
		if c.record != nil && stopping(c.record) && len(out) < cancelsAtOnce {
			out = k.cancels(c, at, out)
		}
	}
	for _, r := range k.ordered {
		if !r.enabled || at < r.stopUntil {
			continue
		}
		r.refill(at)
		out = k.serve(r, at, out)
	}
	return out
}

// makeRings lists for every route the tenants and campaigns that may deal to it, and keeps whose turn it is.
func (k *core) makeRings() {
	if !k.rings {
		return
	}
	k.rings = false
	for _, r := range k.ordered {
		var shares []*share
		of := map[*tenant]*share{}
		for _, c := range k.open {
			if c.record == nil || !dealing(c.record) || !slices.ContainsFunc(c.flows, func(f flow) bool { return f.route == r }) {
				continue
			}
			s := of[c.owner]
			if s == nil {
				s = &share{tenant: c.owner}
				of[c.owner] = s
				shares = append(shares, s)
			}
			s.places = append(s.places, &place{campaign: c})
		}
		slices.SortFunc(shares, func(a, b *share) int { return cmp.Compare(a.tenant.id, b.tenant.id) })
		for _, was := range r.shares {
			if s := of[was.tenant]; s != nil {
				s.inherit(was)
			}
		}
		next := 0
		if len(r.shares) > 0 {
			was := r.shares[r.turn].tenant.id
			next, _ = slices.BinarySearchFunc(shares, was, func(s *share, id string) int { return cmp.Compare(s.tenant.id, id) })
		}
		if r.shares, r.turn = shares, next; next >= len(shares) {
			r.turn = 0
		}
	}
}

// inherit takes over what the same tenant and its campaigns had left.
func (s *share) inherit(was *share) {
	s.deficit, s.begun = was.deficit, was.begun
	at := was.places[was.turn].campaign.number
	for j, p := range s.places {
		if o := slices.IndexFunc(was.places, func(o *place) bool { return o.campaign == p.campaign }); o >= 0 {
			p.deficit, p.begun = was.places[o].deficit, was.places[o].begun
		}
		if p.campaign.number <= at {
			s.turn = j
		}
	}
}

// quantum is what a turn at a route may deal: a quarter of what may be in flight there, and a chunk at most.
func (r *route) quantum() int64 { return chunkOf(r.limit()) }

func chunkOf(target int64) int64 { return min(audience.BlobSize, max(1, target/4)) }

// limit is how much may be in flight on the bulk lane now. While the breaker is being tried out it is a hundredth.
func (r *route) limit() int64 {
	if r.probing != 0 {
		return max(1, r.target(r)/100)
	}
	return r.target(r)
}

func (r *route) hasRoom() bool { return r.flight < r.limit() }

// refill lets in the retries that a route may take: a tenth of its rate, with one second's worth at once.
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

// serve deals at one route until it is full, nobody has anything to deal, or there are enough deals for one round.
func (k *core) serve(r *route, now int64, out []deal) []deal {
	for idle := 0; idle < len(r.shares) && r.hasRoom() && len(out) < dealsAtOnce; {
		s := r.shares[r.turn]
		if !s.begun {
			quantum := r.quantum() * s.tenant.weight
			s.begun, s.deficit = true, min(s.deficit+quantum, quantum)
		}
		before := len(out)
		for s.deficit > 0 && r.hasRoom() && len(out) < dealsAtOnce {
			d, ok := k.serveShare(r, s, now)
			if !ok {
				s.deficit = 0 // nothing to deal: no credit is kept
				break
			}
			s.deficit -= d.size()
			out = append(out, d)
		}
		if s.deficit > 0 {
			break // its turn goes on when there is room
		}
		if idle++; len(out) > before {
			idle = 0
		}
		s.begun = false
		r.turn = (r.turn + 1) % len(r.shares)
	}
	return out
}

// serveShare makes the next deal among a tenant's campaigns.
func (k *core) serveShare(r *route, s *share, now int64) (deal, bool) {
	if !s.tenant.enabled || !s.tenant.room(r) {
		return deal{}, false
	}
	for range len(s.places) + 1 { // the first may have spent its turn already
		p := s.places[s.turn]
		if !p.begun {
			quantum := r.quantum() * int64(max(p.campaign.record.GetWeight(), 1))
			p.begun, p.deficit = true, min(p.deficit+quantum, quantum)
		}
		if p.deficit > 0 {
			if d, ok := k.next(r, p.campaign, now); ok {
				p.deficit -= d.size()
				return d, true
			}
			p.deficit = 0
		}
		p.begun = false
		s.turn = (s.turn + 1) % len(s.places)
	}
	return deal{}, false
}

// next makes the next deal of a campaign at a route: who was given back, who may be tried again, then who was never tried.
func (k *core) next(r *route, c *campaign, now int64) (deal, bool) {
	if c.blobs == nil || !c.isOpen(now) || !c.own.room(r) {
		return deal{}, false
	}
	for _, retry := range []bool{false, true} {
		if retry && r.retries < 1 {
			continue
		}
		for i, t := range c.tries {
			for _, ripe := range t.ripe {
				if ripe.retry != retry || ripe.seqs.IsEmpty() || int(ripe.leg) > len(c.flows) || c.flows[ripe.leg-1].route != r {
					continue
				}
				if d, ok := k.again(r, c, i+1, ripe, now); ok {
					return d, true
				}
			}
		}
	}
	if c.flows[0].route != r || c.undealt() == 0 {
		return deal{}, false
	}
	n, ok := c.chunk(r, 1)
	if !ok {
		return deal{}, false
	}
	b, ok := c.blob(c.next)
	if !ok {
		return deal{}, false // the index does not cover the audience: nothing can be made of it
	}
	d := deal{try: 1, leg: 1, blob: b.Blob, first: c.next}
	d.end = c.untriedEnd(c.next, min(b.First+b.Count, c.total, c.next+uint32(n)))
	k.give(c, &d, r, now)
	return d, true
}

// chunk is how many messages the next deal on a leg may have, false when one of its levels is full.
func (c *campaign) chunk(r *route, leg uint8) (int64, bool) {
	sender := c.flows[leg-1].sender
	if !sender.room(r) {
		return 0, false
	}
	return min(chunkOf(r.limit()), chunkOf(c.owner.target(r)), chunkOf(sender.target(r)), chunkOf(c.own.target(r))), true
}

// again makes a deal of those who wait after the n-th try and whose time has come.
func (k *core) again(r *route, c *campaign, n int, from *ripe, now int64) (deal, bool) {
	size, ok := c.chunk(r, from.leg)
	if !ok {
		return deal{}, false
	}
	if from.retry {
		size = min(size, int64(r.retries))
	}
	b, seqs := c.gather(n, &from.seqs, int(size))
	if seqs == nil {
		return deal{}, false
	}
	d := deal{try: uint8(n + 1), leg: from.leg, blob: b.Blob}
	d.setSeqs(seqs)
	if from.retry {
		r.retries -= float64(seqs.GetCardinality())
	}
	k.give(c, &d, r, now)
	return d, true
}

// gather takes up to size recipients of one blob out of from, without those who wait no longer.
func (c *campaign) gather(n int, from *roaring.Bitmap, size int) (audience.Index, *roaring.Bitmap) {
	for !from.IsEmpty() {
		b, ok := c.blob(from.Minimum())
		if !ok {
			return b, nil
		}
		seqs := roaring.BitmapOf(take(from, b.First, b.First+b.Count, size)...)
		from.AndNot(seqs)
		if c.keepAgain(n, seqs); !seqs.IsEmpty() {
			return b, seqs
		}
	}
	return audience.Index{}, nil
}

// setSeqs names the recipients, by their range if they are one.
func (d *deal) setSeqs(seqs *roaring.Bitmap) {
	d.first, d.end = seqs.Minimum(), seqs.Maximum()+1
	if seqs.GetCardinality() != uint64(d.end-d.first) {
		d.seqs = seqs
	}
}

// members returns the recipients.
func (d *deal) members() *roaring.Bitmap {
	if d.seqs != nil {
		return d.seqs
	}
	b := roaring.New()
	b.AddRange(uint64(d.first), uint64(d.end))
	return b
}

// give completes a deal and remembers it.
func (k *core) give(c *campaign, d *deal, r *route, now int64) {
	c.deals++
	d.campaign, d.record, d.number, d.dealt = c, c.record, c.deals, now
	d.notAfter = now + c.validity()
	leg := d.leg
	if d.cancel {
		d.notAfter, leg = now+lostAfter.Milliseconds(), 0
	}
	k.mark(c, int(d.try), leg, r, false, d.members(), d.notAfter)
	c.remember(d)
}

// cancels deals the undealt and the waiting of a stopped campaign as chunks that make nothing. They pass no limit.
func (k *core) cancels(c *campaign, now int64, out []deal) []deal {
	for len(out) < cancelsAtOnce && c.blobs != nil && c.undealt() > 0 {
		b, ok := c.blob(c.next)
		if !ok {
			break
		}
		d := deal{try: 1, leg: 1, blob: b.Blob, first: c.next, cancel: true}
		d.outcome, d.code = fanfarev1.Kind_KIND_SKIPPED, fanfarev1.Code_CODE_CANCELLED
		d.end = c.untriedEnd(c.next, min(b.First+b.Count, c.total))
		k.give(c, &d, nil, now)
		out = append(out, d)
	}
	for i, t := range c.tries {
		for _, from := range t.ripe {
			for c.blobs != nil && !from.seqs.IsEmpty() && len(out) < cancelsAtOnce {
				b, seqs := c.gather(i+1, &from.seqs, audience.BlobSize)
				if seqs == nil {
					break
				}
				seqs.AndNot(k.endBounced(c, seqs))
				if seqs.IsEmpty() {
					continue
				}
				d := deal{try: uint8(i + 2), leg: from.leg, blob: b.Blob, cancel: true}
				d.outcome, d.code = fanfarev1.Kind_KIND_SKIPPED, fanfarev1.Code_CODE_CANCELLED
				d.setSeqs(seqs)
				k.give(c, &d, nil, now)
				out = append(out, d)
			}
		}
	}
	return out
}

// endBounced ends those of seqs who bounced at some try: a cancel would not outweigh that. It returns them.
func (k *core) endBounced(c *campaign, seqs *roaring.Bitmap) *roaring.Bitmap {
	bounced := roaring.New()
	for _, t := range c.tries {
		for _, b := range t.bounced {
			bounced.Or(roaring.And(b.seqs, seqs))
		}
	}
	bounced.Iterate(func(seq uint32) bool {
		n, code := c.bounce(seq)
		k.finish(c, seq, n, fanfarev1.Kind_KIND_UNDELIVERED, code)
		return true
	})
	return bounced
}
