package plan

import (
	"container/heap"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
)

// Held is a single send that waits for its time.
type Held struct {
	Key, Tenant string
	DueMs       int64
	Campaign    uint64
	Seq         uint32
	Try         uint32 // its last try, 0: it was never dealt
	Route       string
	NotAfterMs  int64
	Value       []byte // its record in topic `held`
	index       int    // in the heap
}

// heldQueue holds single sends by key and by time.
type heldQueue struct {
	byKey map[string]*Held
	count map[uint64]int // by campaign
	queue heldHeap
}

func newHeldQueue() heldQueue {
	return heldQueue{byKey: map[string]*Held{}, count: map[uint64]int{}}
}

// put adds a message; one with the same key is replaced.
func (h *heldQueue) put(m *Held) {
	h.remove(m.Key)
	h.byKey[m.Key] = m
	h.count[m.Campaign]++
	heap.Push(&h.queue, m)
}

func (h *heldQueue) remove(key string) {
	m := h.byKey[key]
	if m == nil {
		return
	}
	delete(h.byKey, key)
	if h.count[m.Campaign]--; h.count[m.Campaign] == 0 {
		delete(h.count, m.Campaign)
	}
	heap.Remove(&h.queue, m.index)
}

// due removes and returns up to most messages whose time has come.
func (h *heldQueue) due(now int64, most int) []*Held {
	var out []*Held
	for len(h.queue) > 0 && h.queue[0].DueMs <= now && len(out) < most {
		m := h.queue[0]
		h.remove(m.Key)
		out = append(out, m)
	}
	return out
}

type heldHeap []*Held

func (q heldHeap) Len() int           { return len(q) }
func (q heldHeap) Less(i, j int) bool { return q[i].DueMs < q[j].DueMs }
func (q heldHeap) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements heap.Interface.
func (q *heldHeap) Push(x any) {
	m, _ := x.(*Held)
	m.index = len(*q)
	*q = append(*q, m)
}

// Pop implements heap.Interface.
func (q *heldHeap) Pop() any {
	old := *q
	m := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return m
}

// Hold adds a single send that waits for its time; one with the same key is replaced.
func (pl *Planner) Hold(h *Held) { pl.held.put(h) }

// Unhold removes a single send from the held ones and returns it, nil if there was none.
func (pl *Planner) Unhold(key string) *Held {
	h := pl.held.byKey[key]
	pl.held.remove(key)
	return h
}

// HeldMessages is how many single sends wait for their time.
func (pl *Planner) HeldMessages() int { return len(pl.held.byKey) }

// Rehold holds a single send again if its deal is missing: its tombstone in topic `held` was written, the deal was not.
// A tombstone without a deal is right if the sender has not returned the last try. It reports whether it holds it.
func (pl *Planner) Rehold(h *Held) bool {
	c := pl.campaigns[h.Campaign]
	if c == nil || c.closed || c.broken || !c.gaveBack(h) {
		return false
	}
	if t := c.have(int(h.Try) + 1); t != nil && t.known(h.Seq) {
		return false
	}
	pl.held.put(h)
	return true
}

// HeldDeal is a single send that is taken out of the held ones. Try 0: it is not dealt.
type HeldDeal struct {
	*Held
	DealtTry uint32
}

// heldAgain is when a single send that could not be dealt is looked at again.
const heldAgain = 250 * time.Millisecond

// DealHeld returns the single sends whose time has come, at most the number in most, and counts them as dealt. laneRead
// reports whether the transactional lane of a route has been read to its end: until then the scheduler does not know
// all single sends that were dealt on it.
func (pl *Planner) DealHeld(now time.Time, most int, laneRead func(route string) bool) []HeldDeal {
	var out []HeldDeal
	for _, h := range pl.held.due(ms(now), most) {
		n, ok := pl.nextTry(h, laneRead, ms(now))
		if !ok {
			h.DueMs = ms(now.Add(heldAgain))
			pl.held.put(h)
			continue
		}
		out = append(out, HeldDeal{h, n})
	}
	return out
}

// gaveBack reports whether a held message may be dealt again: the sender has returned its last try, and nobody has handed
// it over. The sender writes the record in topic held before the return: if it crashes between the two, the next owner of
// the partition finds the try in doubt, and may hand it over once more. A former owner may write its return after that.
// Another try would then be a second message (P3).
func (c *Campaign) gaveBack(h *Held) bool {
	if h.Try == 0 {
		return true
	}
	t := c.have(int(h.Try))
	return t != nil && t.returned.Contains(h.Seq) && !t.wasSubmitted(h.Seq) && !c.never.Contains(h.Seq) && !c.final(h.Seq)
}

// concluded reports whether a held message that is not to be dealt again has an outcome other than ambiguous.
func (c *Campaign) concluded(h *Held) bool {
	t := c.have(int(h.Try))
	return t != nil && t.answered.Contains(h.Seq) &&
		(!t.doubtful.contains(h.Seq) || t.wasSubmitted(h.Seq) || c.never.Contains(h.Seq) || c.final(h.Seq))
}

// giveUpHeld reports whether the record of a held message whose last try was not returned is of no more use. A try
// without any outcome ends as ambiguous first, as in giveUpLost; the record stays until that event is written.
func (pl *Planner) giveUpHeld(c *Campaign, h *Held, now int64) bool {
	switch t := c.have(int(h.Try)); {
	case c.concluded(h):
		return true
	case now < h.NotAfterMs+lostAfter.Milliseconds():
		return false
	case t != nil && t.answered.Contains(h.Seq), c.never.Contains(h.Seq), c.final(h.Seq), h.Try > schemas.MaxTry:
		return true
	}
	pl.finish(c, h.Seq, int(h.Try), schemas.KindAmbiguous, schemas.CodeLost)
	return false
}

// nextTry returns the try at which a held message is to be dealt, or 0 if it is not dealt any more; false: it cannot be
// decided now.
func (pl *Planner) nextTry(h *Held, laneRead func(string) bool, now int64) (n uint32, ok bool) {
	if !laneRead(h.Route) {
		return 0, false
	}
	r, t := pl.route(h.Route), pl.tenant(h.Tenant)
	if !r.enabled || !t.enabled || r.txn >= r.target(r) {
		return 0, false
	}
	e := Event{Campaign: h.Campaign, Seq: h.Seq, Try: h.Try + 1, Leg: 1, Tenant: []byte(h.Tenant), CampaignID: []byte(schemas.CampaignID(h.Campaign))}
	c := pl.campaignOf(&e)
	switch {
	case c == nil || c.broken:
		return 0, false
	case c.closed:
		pl.pendingEnds = append(pl.pendingEnds, End{
			Campaign: c, Seq: h.Seq, Try: uint8(max(h.Try, 1)), Leg: 1, Kind: schemas.KindNotSent, Code: schemas.CodeValidityExpired,
		})
		return 0, true
	case !c.gaveBack(h):
		return 0, pl.giveUpHeld(c, h, now)
	case h.Try >= lastTry:
		pl.finish(c, h.Seq, int(h.Try), schemas.KindNotSent, schemas.CodeTriesSpent)
		return 0, true
	}
	if t := c.have(int(e.Try)); t != nil && t.known(h.Seq) {
		return 0, true // dealt before: only the tombstone was lost
	}
	pl.markDealt(c, int(e.Try), 1, r, true, roaring.BitmapOf(h.Seq), h.NotAfterMs)
	return e.Try, true
}
