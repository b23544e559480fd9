package scheduler

import (
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/hours"
)

// campaign is what the dealer knows of one campaign.
type campaign struct {
	number     uint64
	tenant, id string
	record     *fanfarev1.Campaign // nil until it is known: an event may overtake it
	guessed    bool                // record is what we asked the store for; the store's own of that version may replace it
	closed     bool                // settled: nothing is known any more of its recipients
	hours      hours.Hours
	hoursOff   bool // the record's hours are not valid: nothing is dealt
	owner      *tenant
	own        level
	flows      []flow // by leg - 1
	blobs      []audience.Index

	total       uint32
	tries       []*try // by try - 1
	never       roaring.Bitmap
	unconfirmed roaring.Bitmap
	bounces     bool // some recipient bounced
	flight      int64
	handover    int64 // time of the newest hand-over, or doubt of one

	deals    uint64
	next     uint32 // every seq below it is known at try 1
	nextDue  int64  // earliest of all dues, 0: none
	expiry   int64  // earliest of all expiring, 0: none
	notes    []note
	ending   roaring.Bitmap // an end is decided and not yet given out
	changed  bool           // since verdict was made
	verdict  verdict
	move     moveTry
	wanting  wish
	lastSeen int64 // wall time of the newest event, of one without a record

	// What is kept in `cursors`.
	epoch   uint64
	parts   uint32
	recent  []*fanfarev1.Deal
	heavy   int  // bytes of recent
	touched bool // since the sets were written
}

// flow is where a leg's messages go.
type flow struct {
	route  *route
	sender *level
}

// note asks to think again about a recipient: what it was and when.
type note struct {
	seq       uint32
	try       uint8
	kind      fanfarev1.Kind
	code      fanfarev1.Code
	at, again int64
}

// try returns the sets of the n-th try, from 1.
func (c *campaign) try(n int) *try {
	for len(c.tries) < n {
		c.tries = append(c.tries, &try{})
	}
	return c.tries[n-1]
}

// have returns the sets of the n-th try, nil when there are none.
func (c *campaign) have(n int) *try {
	if n < 1 || n > len(c.tries) {
		return nil
	}
	return c.tries[n-1]
}

// latest returns the last try of seq, 0 when it was never dealt.
func (c *campaign) latest(seq uint32) int {
	for n := len(c.tries); n > 0; n-- {
		if c.tries[n-1].known(seq) {
			return n
		}
	}
	return 0
}

// final reports whether seq has a final receipt.
func (c *campaign) final(seq uint32) bool {
	for _, t := range c.tries {
		if t.positive.Contains(seq) || t.negative.Contains(seq) {
			return true
		}
	}
	return false
}

// bounce returns the last try at which seq bounced and its code.
func (c *campaign) bounce(seq uint32) (n int, code fanfarev1.Code) {
	for n := len(c.tries); n > 0; n-- {
		if code, ok := c.tries[n-1].bouncedCode(seq); ok {
			return n, code
		}
	}
	return 0, 0
}

// leg returns the leg that seq was dealt to at a try; 1 when we do not remember.
func (c *campaign) leg(n int, seq uint32) uint8 {
	if t := c.have(n); t != nil {
		if d := t.wasDealt(seq); d != nil && d.leg > 0 {
			return d.leg
		}
	}
	return 1
}

// handovers counts the hand-overs of seq on a leg up to a try.
func (c *campaign) handovers(seq uint32, leg uint8, upTo int) (n int) {
	for i, t := range c.tries[:upTo] {
		if t.left(seq) && c.leg(i+1, seq) == leg {
			n++
		}
	}
	return n
}

// blob returns the index of the blob that holds seq.
func (c *campaign) blob(seq uint32) (audience.Index, bool) {
	lo, hi := 0, len(c.blobs)
	for lo < hi {
		mid := (lo + hi) / 2
		if c.blobs[mid].First+c.blobs[mid].Count <= seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(c.blobs) || c.blobs[lo].First > seq {
		return audience.Index{}, false
	}
	return c.blobs[lo], true
}

// undealt moves next on and returns how many recipients at most were never dealt.
func (c *campaign) undealt() uint32 {
	if c.record.GetHidden() || c.next >= c.total {
		return 0
	}
	c.next = c.untried(c.next, c.total)
	return c.total - c.next
}

// untried returns the first seq in [from, to) that nothing is known of at try 1.
func (c *campaign) untried(from, to uint32) uint32 {
	t := c.have(1)
	if t == nil {
		return from
	}
	for from < to {
		at := from
		for _, d := range t.dealt {
			from = nextAbsent(&d.seqs, from, to)
		}
		from = nextAbsent(&t.answered, from, to)
		if from == at {
			return at
		}
	}
	return to
}

// untriedEnd returns the end of the run of untried seqs that begins at from.
func (c *campaign) untriedEnd(from, to uint32) uint32 {
	t := c.have(1)
	if t == nil {
		return to
	}
	for _, d := range t.dealt {
		to = nextPresent(&d.seqs, from, to)
	}
	return nextPresent(&t.answered, from, to)
}

func (c *campaign) setHours(h *fanfarev1.CallingHours) {
	got, err := hours.FromRecord(h)
	c.hours, c.hoursOff = got, err != nil
	c.nextDue = 1 // what waits for the hours may be due at once
}

func (c *campaign) isOpen(now int64) bool {
	return !c.hoursOff && (c.hours.Always() || c.hours.Open(time.UnixMilli(now)))
}

// resolve finds the routes of deals that were restored before the record was known.
func (c *campaign) resolve() {
	for _, t := range c.tries {
		for _, d := range t.dealt {
			if d.route == nil && d.leg > 0 && int(d.leg) <= len(c.flows) {
				d.route = c.flows[d.leg-1].route
			}
		}
	}
}

// wakeAll makes all that waits ripe, for it is to be ended.
func (c *campaign) wakeAll() {
	for _, t := range c.tries {
		for key, s := range t.due {
			t.ripeOf(key.leg, key.retry).add(s, key.at)
		}
		t.due = nil
	}
	c.nextDue = 0
}

// ripen moves what is due by now. Due sets whose time depends on the calling hours are measured by the live ones.
func (c *campaign) ripen(now int64) {
	if c.nextDue == 0 || c.nextDue > now {
		return
	}
	c.nextDue = 0
	for _, t := range c.tries {
		for key, s := range t.due {
			at := key.at
			if key.hours && !c.hours.Always() {
				at = ms(c.hours.NextOpen(time.UnixMilli(key.at)))
			}
			if at <= now {
				t.ripeOf(key.leg, key.retry).add(s, at)
				delete(t.due, key)
			} else if c.nextDue == 0 || at < c.nextDue {
				c.nextDue = at
			}
		}
	}
}

// keepAgain removes from s, who waits after the n-th try, those whom nothing may follow any more or something already does.
func (c *campaign) keepAgain(n int, s *roaring.Bitmap) {
	t := c.tries[n-1]
	if later := c.have(n + 1); later != nil {
		for _, d := range later.dealt {
			s.AndNot(&d.seqs)
		}
		s.AndNot(&later.answered)
	}
	s.AndNot(&c.never)
	for _, t := range c.tries {
		s.AndNot(&t.positive)
		s.AndNot(&t.negative)
	}
	if s.IsEmpty() {
		return
	}
	// Proof: a bounce, or a return that nothing contradicts.
	proof := roaring.AndNot(&t.returned, &t.buffered)
	for _, p := range t.sent {
		proof.AndNot(&p.seqs)
	}
	for _, b := range t.bounced {
		proof.Or(b.seqs)
	}
	s.And(proof)
}

// forget frees what is known of the recipients.
func (c *campaign) forget() {
	c.tries, c.notes, c.blobs, c.recent, c.heavy = nil, nil, nil, nil, 0
	c.never, c.unconfirmed, c.ending = roaring.Bitmap{}, roaring.Bitmap{}, roaring.Bitmap{}
	c.flight, c.nextDue, c.expiry = 0, 0, 0
	c.touched = false
}

// receiptWindow is how long after the last hand-over receipts are awaited: the campaign's, else the longest of its routes'.
func (c *campaign) receiptWindow() int64 {
	if w := c.record.GetReceiptWindowMs(); w > 0 {
		return w
	}
	var longest int64
	for _, f := range c.flows {
		longest = max(longest, f.route.window)
	}
	if longest == 0 {
		longest = (72 * time.Hour).Milliseconds()
	}
	return longest
}

// maxValidity bounds how long after a deal a message may be handed over.
const maxValidity = 48 * time.Hour

func (c *campaign) validity() int64 {
	if v := c.record.GetValidityMs(); v > 0 {
		return min(v, maxValidity.Milliseconds())
	}
	return maxValidity.Milliseconds()
}

// captured is the money that the campaign has cost so far.
func (c *campaign) captured() (micros uint64) {
	for _, t := range c.tries {
		micros += t.captured()
	}
	return micros
}

func (c *campaign) key() string { return schemas.CampaignKey(c.tenant, c.id) }

func cloneRecord(r *fanfarev1.Campaign) *fanfarev1.Campaign { return proto.CloneOf(r) }
