package plan

import (
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	"fanfare/schemas/billing"
)

// lastTry is the greatest try that may be dealt; a recipient that is returned from it ends as TRIES_SPENT. The id of a
// submission has room for 255, and cancelling a recipient needs one more try.
const lastTry = 250

// maxLegs bounds the legs of a chain; the longest in use has three.
const maxLegs = 8

// tryState is what is known of the n-th try of a campaign's recipients: sets that only grow, so events may come in any
// order and any number of times.
type tryState struct {
	dealt    []*dealtSet
	answered roaring.Bitmap // any event about this try was read
	sent     pricedSets
	doubtful pricedSets // ambiguous
	buffered roaring.Bitmap
	returned roaring.Bitmap
	bounced  codedSets
	negative codedSets // undelivered
	positive roaring.Bitmap

	// Recipients to be dealt again after this try: in due until they are due, then in ready.
	due   map[dueKey]*roaring.Bitmap
	ready []*readySet
	// Recipients that are lost if no outcome arrives, by the minute of not_after.
	expiring map[int64]*roaring.Bitmap
}

// dealtSet is the recipients dealt at one try to one leg. Leg 0: a cancel, for which no message is made.
type dealtSet struct {
	leg   uint8
	txn   bool // a single send, on the transactional lane of route
	route *route
	seqs  roaring.Bitmap
}

// dueKey says how and when recipients are dealt again.
type dueKey struct {
	leg   uint8
	retry bool // counts as a retry of the route
	hours bool // due when the calling hours open after at, not at at
	at    int64
}

// readySet is the recipients that may be dealt again now.
type readySet struct {
	leg   uint8
	retry bool
	since int64 // when the first of them became due
	seqs  roaring.Bitmap
}

// add adds recipients that became due at a time.
func (r *readySet) add(s *roaring.Bitmap, at int64) {
	if r.seqs.IsEmpty() || at < r.since {
		r.since = at
	}
	r.seqs.Or(s)
}

// pricedSets are sets by price. A campaign has few prices: one per leg and number of segments.
type pricedSets []*pricedSet

type pricedSet struct {
	micros uint64
	seqs   roaring.Bitmap
}

func (p *pricedSets) add(micros uint64, seq uint32) { p.of(micros).seqs.Add(seq) }

func (p *pricedSets) of(micros uint64) *pricedSet {
	for _, s := range *p {
		if s.micros == micros {
			return s
		}
	}
	s := &pricedSet{micros: micros}
	*p = append(*p, s)
	return s
}

func (p pricedSets) contains(seq uint32) bool {
	for _, s := range p {
		if s.seqs.Contains(seq) {
			return true
		}
	}
	return false
}

// orInto adds all sets to b.
func (p pricedSets) orInto(b *roaring.Bitmap) {
	for _, s := range p {
		b.Or(&s.seqs)
	}
}

// codedSets holds one set of recipients per code.
type codedSets []codedSet

type codedSet struct {
	code schemas.Code
	seqs *roaring.Bitmap
}

// of returns the set of a code, and adds an empty one if there is none. The caller may add to the set.
func (c *codedSets) of(code schemas.Code) *roaring.Bitmap {
	for _, s := range *c {
		if s.code == code {
			return s.seqs
		}
	}
	s := codedSet{code, roaring.New()}
	*c = append(*c, s)
	return s.seqs
}

// code returns the code of seq; if it has several, the greatest, by the same rule as everywhere.
func (c codedSets) code(seq uint32) (code schemas.Code, ok bool) {
	for _, s := range c {
		if s.seqs.Contains(seq) {
			code, ok = max(code, s.code), true
		}
	}
	return code, ok
}

// contains reports whether seq is in a set of any code.
func (c codedSets) contains(seq uint32) bool {
	_, ok := c.code(seq)
	return ok
}

// subtractFrom removes the recipients of all codes from b.
func (c codedSets) subtractFrom(b *roaring.Bitmap) {
	for _, s := range c {
		b.AndNot(s.seqs)
	}
}

// wasDealt returns the deal of seq at this try.
func (t *tryState) wasDealt(seq uint32) *dealtSet {
	for _, d := range t.dealt {
		if d.seqs.Contains(seq) {
			return d
		}
	}
	return nil
}

// known reports whether seq was dealt at this try: by a deal we know, or because an outcome was read.
func (t *tryState) known(seq uint32) bool { return t.wasDealt(seq) != nil || t.answered.Contains(seq) }

// wasSubmitted reports whether seq was handed over at this try: the carrier accepted it, or a receipt exists.
func (t *tryState) wasSubmitted(seq uint32) bool {
	return t.sent.contains(seq) || t.positive.Contains(seq) || t.negative.contains(seq) || t.buffered.Contains(seq) || t.bounced.contains(seq)
}

// receiptsInto adds the recipients that the carrier sent a receipt for.
func (t *tryState) receiptsInto(b *roaring.Bitmap) {
	b.Or(&t.positive)
	b.Or(&t.buffered)
	for _, coded := range []codedSets{t.negative, t.bounced} {
		for _, s := range coded {
			b.Or(s.seqs)
		}
	}
}

// captured is what this try costs, by the rule of package billing.
func (t *tryState) captured() (micros uint64) {
	receipts := billing.Receipts{
		schemas.PrecedenceOf(schemas.KindBuffered, 0, 0):  &t.buffered,
		schemas.PrecedenceOf(schemas.KindDelivered, 0, 0): &t.positive,
	}
	for _, s := range t.bounced {
		receipts[schemas.PrecedenceOf(schemas.KindBounced, 0, s.code)] = s.seqs
	}
	for _, s := range t.negative {
		receipts[schemas.PrecedenceOf(schemas.KindUndelivered, 0, s.code)] = s.seqs
	}
	verdict := receipts.Verdict()
	cost := func(micros uint64) uint64 {
		var sent, doubtful *roaring.Bitmap
		if p := t.sent.find(micros); p != nil {
			sent = &p.seqs
		}
		if p := t.doubtful.find(micros); p != nil {
			doubtful = &p.seqs
		}
		return micros * verdict.Billed(sent, doubtful).GetCardinality()
	}
	for _, p := range t.sent {
		micros += cost(p.micros)
	}
	for _, p := range t.doubtful {
		if t.sent.find(p.micros) == nil {
			micros += cost(p.micros)
		}
	}
	return micros
}

func (p pricedSets) find(micros uint64) *pricedSet {
	for _, s := range p {
		if s.micros == micros {
			return s
		}
	}
	return nil
}

func (t *tryState) dealtTo(leg uint8, r *route, txn bool) *dealtSet {
	for _, d := range t.dealt {
		if d.leg == leg && d.route == r && d.txn == txn {
			return d
		}
	}
	d := &dealtSet{leg: leg, route: r, txn: txn}
	t.dealt = append(t.dealt, d)
	return d
}

func (t *tryState) dueOf(key dueKey) *roaring.Bitmap {
	s := t.due[key]
	if s == nil {
		if t.due == nil {
			t.due = map[dueKey]*roaring.Bitmap{}
		}
		s = roaring.New()
		t.due[key] = s
	}
	return s
}

func (t *tryState) readyFor(leg uint8, retry bool) *readySet {
	for _, r := range t.ready {
		if r.leg == leg && r.retry == retry {
			return r
		}
	}
	r := &readySet{leg: leg, retry: retry}
	t.ready = append(t.ready, r)
	return r
}

func (t *tryState) expiringAt(ms int64) *roaring.Bitmap {
	minute := roundUp(ms, time.Minute)
	s := t.expiring[minute]
	if s == nil {
		if t.expiring == nil {
			t.expiring = map[int64]*roaring.Bitmap{}
		}
		s = roaring.New()
		t.expiring[minute] = s
	}
	return s
}

func roundUp(ms int64, to time.Duration) int64 {
	step := to.Milliseconds()
	return (ms + step - 1) / step * step
}

// nextAbsent returns the first number in [from, to) that is not in b, or to. (NextAbsentValue and UnsetIterator of
// roaring 2.30 are wrong at the borders of containers and words; counting is not.)
func nextAbsent(b *roaring.Bitmap, from, to uint32) uint32 {
	if from >= to || !b.Contains(from) {
		return from
	}
	lo, hi := from+1, to // all of [from, lo) is in b
	for lo < hi {
		mid := lo + (hi-lo)/2
		if b.CardinalityInRange(uint64(from), uint64(mid)+1) == uint64(mid-from)+1 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// nextPresent returns the first number in [from, to) that is in b, or to.
func nextPresent(b *roaring.Bitmap, from, to uint32) uint32 {
	if from >= to {
		return to
	}
	v := b.NextValue(from)
	if v < 0 || v >= int64(to) {
		return to
	}
	return uint32(v)
}

// take returns up to n members of b within [from, to).
func take(b *roaring.Bitmap, from, to uint32, n int) []uint32 {
	it := b.Iterator()
	it.AdvanceIfNeeded(from)
	var out []uint32
	for len(out) < n && it.HasNext() {
		v := it.Next()
		if v >= to {
			break
		}
		out = append(out, v)
	}
	return out
}
