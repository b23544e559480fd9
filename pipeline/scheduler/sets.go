package scheduler

import (
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// lastTry is the greatest try that may be dealt: beyond it a recipient ends as TRIES_SPENT. The id of a submission has room
// for 255, and the cancel of a recipient needs one more.
const lastTry = 250

// maxLegs bounds the legs of a chain; the longest there is has three.
const maxLegs = 8

// try is what is known of the n-th deals of a campaign's recipients: sets that only grow, so that events may come in any order
// and any number of times.
type try struct {
	dealt    []*dealt
	answered roaring.Bitmap // by any outcome at all
	sent     priced
	doubtful priced // ambiguous
	buffered roaring.Bitmap
	returned roaring.Bitmap
	bounced  []coded
	unbilled roaring.Bitmap // a negative receipt that costs nothing
	negative roaring.Bitmap
	positive roaring.Bitmap

	// What is to be dealt again after this try, and when: first in due, and once its time has come in ripe.
	due  map[dueKey]*roaring.Bitmap
	ripe []*ripe
	// Who is lost when not answered some time after not_after, by minute.
	expiring map[int64]*roaring.Bitmap
}

// dealt is who was dealt at one try, to one leg. Leg 0 is no leg: nothing is made, an outcome is written instead.
type dealt struct {
	leg   uint8
	txn   bool // a single send, on the transactional lane of route
	route *route
	seqs  roaring.Bitmap
}

// dueKey says how recipients are to be dealt again.
type dueKey struct {
	leg   uint8
	retry bool // counts as a retry of the route
	hours bool // due when the calling hours open after at
	at    int64
}

// ripe is who may be dealt again now.
type ripe struct {
	leg   uint8
	retry bool
	since int64 // when the first of them was due
	seqs  roaring.Bitmap
}

// add adds those who were due at a time.
func (r *ripe) add(s *roaring.Bitmap, at int64) {
	if r.seqs.IsEmpty() || at < r.since {
		r.since = at
	}
	r.seqs.Or(s)
}

// priced is a set by price. There are few prices in a campaign: as many as its texts have numbers of segments, per leg.
type priced []*price

type price struct {
	micros uint64
	seqs   roaring.Bitmap
}

func (p *priced) add(micros uint64, seq uint32) { p.of(micros).seqs.Add(seq) }

func (p *priced) of(micros uint64) *price {
	for _, s := range *p {
		if s.micros == micros {
			return s
		}
	}
	s := &price{micros: micros}
	*p = append(*p, s)
	return s
}

func (p priced) contains(seq uint32) bool {
	for _, s := range p {
		if s.seqs.Contains(seq) {
			return true
		}
	}
	return false
}

// orInto adds the whole set to b.
func (p priced) orInto(b *roaring.Bitmap) {
	for _, s := range p {
		b.Or(&s.seqs)
	}
}

type coded struct {
	code fanfarev1.Code
	seqs *roaring.Bitmap
}

func (t *try) addBounced(code fanfarev1.Code, seq uint32) { t.bouncedOf(code).Add(seq) }

func (t *try) bouncedOf(code fanfarev1.Code) *roaring.Bitmap {
	for _, s := range t.bounced {
		if s.code == code {
			return s.seqs
		}
	}
	s := coded{code, roaring.New()}
	t.bounced = append(t.bounced, s)
	return s.seqs
}

// bouncedCode returns the code that seq bounced with at this try; of two the greater stands, as everywhere.
func (t *try) bouncedCode(seq uint32) (code fanfarev1.Code, ok bool) {
	for _, s := range t.bounced {
		if s.seqs.Contains(seq) {
			code, ok = max(code, s.code), true
		}
	}
	return code, ok
}

// wasDealt returns the deal of seq at this try.
func (t *try) wasDealt(seq uint32) *dealt {
	for _, d := range t.dealt {
		if d.seqs.Contains(seq) {
			return d
		}
	}
	return nil
}

// known reports whether seq was dealt at this try: as far as we remember, or because somebody answered it.
func (t *try) known(seq uint32) bool { return t.wasDealt(seq) != nil || t.answered.Contains(seq) }

// left reports whether seq was handed over at this try: the carrier took it, or spoke of it.
func (t *try) left(seq uint32) bool {
	if t.sent.contains(seq) || t.positive.Contains(seq) || t.negative.Contains(seq) || t.buffered.Contains(seq) {
		return true
	}
	_, ok := t.bouncedCode(seq)
	return ok
}

// receiptsInto adds who the carrier sent a receipt for.
func (t *try) receiptsInto(b *roaring.Bitmap) {
	b.Or(&t.positive)
	b.Or(&t.negative)
	b.Or(&t.buffered)
	for _, s := range t.bounced {
		b.Or(s.seqs)
	}
}

// captured is what this try costs: price times who was handed over, or doubtful and then spoken of by the carrier, without
// those whose receipt says that it costs nothing. A positive receipt of the same try outweighs such a one.
func (t *try) captured() (micros uint64) {
	free := roaring.AndNot(&t.unbilled, &t.positive)
	heard := roaring.New()
	t.receiptsInto(heard)
	cost := func(took *roaring.Bitmap, micros uint64) uint64 {
		return micros * (took.GetCardinality() - took.AndCardinality(free))
	}
	for _, p := range t.sent {
		took := &p.seqs
		if d := t.doubtful.find(p.micros); d != nil {
			took = roaring.Or(took, roaring.And(&d.seqs, heard))
		}
		micros += cost(took, p.micros)
	}
	for _, p := range t.doubtful {
		if t.sent.find(p.micros) == nil {
			micros += cost(roaring.And(&p.seqs, heard), p.micros)
		}
	}
	return micros
}

func (p priced) find(micros uint64) *price {
	for _, s := range p {
		if s.micros == micros {
			return s
		}
	}
	return nil
}

func (t *try) dealtTo(leg uint8, r *route, txn bool) *dealt {
	for _, d := range t.dealt {
		if d.leg == leg && d.route == r && d.txn == txn {
			return d
		}
	}
	d := &dealt{leg: leg, route: r, txn: txn}
	t.dealt = append(t.dealt, d)
	return d
}

func (t *try) dueOf(key dueKey) *roaring.Bitmap {
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

func (t *try) ripeOf(leg uint8, retry bool) *ripe {
	for _, r := range t.ripe {
		if r.leg == leg && r.retry == retry {
			return r
		}
	}
	r := &ripe{leg: leg, retry: retry}
	t.ripe = append(t.ripe, r)
	return r
}

func (t *try) expiringAt(ms int64) *roaring.Bitmap {
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

// nextAbsent returns the first number in [from, to) that is not in b, to when there is none. (NextAbsentValue and UnsetIterator
// of roaring 2.30 err at the borders of containers and words; counting does not.)
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

// nextPresent returns the first number in [from, to) that is in b, to when there is none.
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

// billed reports whether a negative receipt of that code costs its price. A code we do not know does.
func billed(code fanfarev1.Code) bool {
	info, ok := schemas.LookupCode(code)
	return !ok || info.Billed
}
