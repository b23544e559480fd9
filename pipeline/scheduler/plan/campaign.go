package plan

import (
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/hours"
)

// Campaign is what the planner knows of one campaign.
type Campaign struct {
	number     uint64
	tenant, id string
	record     *fanfarev1.Campaign // nil until the control plane's record arrives: a delivery event may arrive earlier
	// record is our guess after a move; the published record of the same version replaces it
	assumed  bool
	closed   bool // settled: the state of its recipients is dropped
	hours    hours.Hours
	hoursOff bool        // the record's calling hours are invalid: nothing is dealt
	groups   []zoneGroup // of a campaign whose recipients have calling hours of their own; see zones.go
	owner    *tenant
	own      level
	flows    []flow // by leg - 1
	blobs    []audience.Index

	total       uint32
	tries       []*tryState    // by try - 1
	never       roaring.Bitmap // recipients with a not_sent or skipped event: their last try was never handed over
	unconfirmed roaring.Bitmap // recipients whose receipt did not come in time
	bounces     bool           // a recipient has bounced
	flight      int64
	handover    int64 // time of the newest hand-over, certain or ambiguous

	deals       uint64
	next        uint32 // every seq below it was dealt or answered at try 1
	nextDue     int64  // earliest of all dues, 0: none
	expiry      int64  // earliest of all expiring, 0: none
	notes       []note
	ending      roaring.Bitmap // an end is decided and not yet returned by Ends
	changed     bool           // something changed since lastSummary
	lastSummary summary
	move        moveTry
	request     storeRequest
	lastSeen    int64 // of a campaign without a record: when its newest event was written

	progress   uint64 // counts deals and first answers
	stallMark  uint64 // progress at stallSince
	stallSince int64  // since when the campaign has made no progress

	// What topic `cursors` holds.
	epoch       uint64
	parts       uint32
	recent      []*fanfarev1.Deal
	recentBytes int  // size of recent in bytes
	unsaved     bool // something changed since the sets were last written

	// audienceLost: the store has no blobs of the frozen audience, because it was put back from an older copy.
	audienceLost bool

	byWeights []*roaring.Bitmap // the recipients whose first deal used the campaign's weights of index 1 and up

	orderDone    uint64 // the last order about ambiguous recipients that was carried out
	orderUnsaved bool   // its cursor does not say so yet
	money        money  // what was last reported to the store
	moneyChanged bool   // something changed since

	answers, receipts sample // see care.go
	failing           string // the reason for which it is to be suspended, because of its own outcomes
	domains           domainState

	calls map[uint8]*callSlots // by leg, of legs that say how many calls may go on at the same time

	listedUnsaved bool // it is in the planner's list of unsaved campaigns

	awake    bool  // it is in the planner's awake list
	queuedAt int64 // the time of its entry among the sleeping ones, 0: it has none
	inRing   bool  // it is in the rings of its routes

	// settledInLog: its cursor says that it settled; a store that was restored from an older copy does not know.
	// settledMs and finalCost are what the cursor says.
	settledInLog bool
	settledMs    int64
	finalCost    uint64

	// broken: the scheduler cannot read a record of it in `cursors` or `chunks`; see [Planner.SetAside].
	broken bool
	// Fields and sets that a newer version wrote and this version does not know. The scheduler writes them again
	// unchanged.
	unknownCursor, unknownParts []byte
	unknownSets                 []*fanfarev1.CursorSets_Set
	annotations                 []annotation
}

// annotation is unknown fields of a set that a newer version wrote. They stay with the recipients of that set.
type annotation struct {
	role   schemas.Role
	try    uint32
	fields []byte
	seqs   *roaring.Bitmap
}

// flow is the route and the sender id of a leg. others carry the leg while the route cannot; see failover.go.
type flow struct {
	route  *route
	others []*route
	sender *level
}

// note is an event after which the next step of a recipient must be decided: a return, a bounce, or the end of a
// recipient that bounced before. at is the time of the event; the recipient is not dealt again before the time again
// (0: no limit), which the sender or the carrier's code set. Both are in milliseconds.
type note struct {
	seq       uint32
	try       uint8
	kind      schemas.Kind
	code      schemas.Code
	at, again int64
}

// try returns the sets of the n-th try, from 1.
func (c *Campaign) try(n int) *tryState {
	for len(c.tries) < n {
		c.tries = append(c.tries, &tryState{})
	}
	return c.tries[n-1]
}

// have returns the sets of the n-th try, nil if there are none.
func (c *Campaign) have(n int) *tryState {
	if n < 1 || n > len(c.tries) {
		return nil
	}
	return c.tries[n-1]
}

// latest returns the last try of seq, 0 if it was never dealt.
func (c *Campaign) latest(seq uint32) int {
	for n := len(c.tries); n > 0; n-- {
		if c.tries[n-1].known(seq) {
			return n
		}
	}
	return 0
}

// final reports whether seq has a final receipt.
func (c *Campaign) final(seq uint32) bool {
	for _, t := range c.tries {
		if t.positive.Contains(seq) || t.negative.contains(seq) {
			return true
		}
	}
	return false
}

// bounce returns the last try at which seq bounced and its code; 0 if it never did.
func (c *Campaign) bounce(seq uint32) (n int, code schemas.Code) {
	for n := len(c.tries); n > 0; n-- {
		if code, ok := c.tries[n-1].bounced.code(seq); ok {
			return n, code
		}
	}
	return 0, 0
}

// leg returns the leg that seq was dealt to at a try; 1 if that is not known.
func (c *Campaign) leg(n int, seq uint32) uint8 {
	if t := c.have(n); t != nil {
		if d := t.wasDealt(seq); d != nil && d.leg > 0 {
			return d.leg
		}
	}
	return 1
}

// handovers counts the hand-overs of seq on a leg, up to a try.
func (c *Campaign) handovers(seq uint32, leg uint8, upTo int) (n int) {
	for i, t := range c.tries[:upTo] {
		if t.wasSubmitted(seq) && c.leg(i+1, seq) == leg {
			n++
		}
	}
	return n
}

// blob returns the index of the blob that holds seq.
func (c *Campaign) blob(seq uint32) (audience.Index, bool) {
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

// undealt advances next and returns an upper bound of how many recipients were never dealt.
func (c *Campaign) undealt() uint32 {
	if c.record.GetHidden() || c.next >= c.total {
		return 0
	}
	c.next = c.untried(c.next, c.total)
	return c.total - c.next
}

// released is the end of the recipients that may be dealt for the first time by now: those of the batches whose time
// has come.
func (c *Campaign) released(now int64) uint32 {
	batches := c.record.GetBatches()
	if len(batches) == 0 {
		return c.total
	}
	end := uint32(0)
	for _, b := range batches {
		if b.GetAtMs() <= now {
			end = max(end, min(b.GetEndSeq(), c.total))
		}
	}
	return end
}

// untried returns the first seq in [from, to) that was neither dealt nor answered at try 1.
func (c *Campaign) untried(from, to uint32) uint32 {
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

// untriedEnd returns the end of the run of untried seqs that starts at from.
func (c *Campaign) untriedEnd(from, to uint32) uint32 {
	t := c.have(1)
	if t == nil {
		return to
	}
	for _, d := range t.dealt {
		to = nextPresent(&d.seqs, from, to)
	}
	return nextPresent(&t.answered, from, to)
}

func (c *Campaign) setHours(h *fanfarev1.CallingHours) {
	got, err := hours.FromRecord(h)
	c.hours, c.hoursOff = got, err != nil
	c.nextDue = 1 // recipients that wait for the hours may be due now
	c.regroup()
}

// isOpen reports whether the calling hours are open, of some of the recipients at least.
func (c *Campaign) isOpen(now int64) bool {
	if len(c.groups) > 0 {
		return c.someOpen(now)
	}
	return !c.hoursOff && (c.hours.Always() || c.hours.Open(time.UnixMilli(now)))
}

// resolve sets the routes of deals that were restored before the record arrived.
func (c *Campaign) resolve() {
	for _, t := range c.tries {
		for _, d := range t.dealt {
			if d.route == nil && d.leg > 0 && int(d.leg) <= len(c.flows) {
				d.route = c.flows[d.leg-1].route
			}
		}
	}
}

// makeAllReady makes every waiting recipient ready, so that the next round can cancel it.
func (c *Campaign) makeAllReady() {
	for _, t := range c.tries {
		for key, s := range t.due {
			t.readyFor(key.leg, key.retry).add(s, key.at)
		}
		t.due = nil
	}
	c.nextDue = 0
}

// moveDueToReady moves the recipients whose time has come. A set that waits for the calling hours uses the current
// hours. If recipients have hours of their own, the deal checks those hours.
func (c *Campaign) moveDueToReady(now int64) {
	if c.nextDue == 0 || c.nextDue > now {
		return
	}
	c.nextDue = 0
	for _, t := range c.tries {
		for key, s := range t.due {
			at := key.at
			if key.hours && !c.hours.Always() && len(c.groups) == 0 {
				at = ms(c.hours.NextOpen(time.UnixMilli(key.at)))
			}
			if at <= now {
				t.readyFor(key.leg, key.retry).add(s, at)
				delete(t.due, key)
			} else if c.nextDue == 0 || at < c.nextDue {
				c.nextDue = at
			}
		}
	}
}

// dropHandled removes from s, a set of recipients to be dealt again after the n-th try, those that are final, were
// handed over after all, or were already dealt again.
func (c *Campaign) dropHandled(n int, s *roaring.Bitmap) {
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
		t.negative.subtractFrom(s)
	}
	if s.IsEmpty() {
		return
	}
	// Proof that the n-th try did not arrive: a bounce, or a return that no other event contradicts.
	proof := roaring.AndNot(&t.returned, &t.buffered)
	for _, p := range t.sent {
		proof.AndNot(&p.seqs)
	}
	for _, b := range t.bounced {
		proof.Or(b.seqs)
	}
	s.And(proof)
}

// forget frees the memory of the recipients.
func (c *Campaign) forget() {
	c.tries, c.notes, c.blobs, c.groups, c.recent, c.recentBytes = nil, nil, nil, nil, nil, 0
	c.unknownSets, c.annotations, c.byWeights, c.calls = nil, nil, nil, nil
	c.domains = domainState{}
	c.never, c.unconfirmed, c.ending = roaring.Bitmap{}, roaring.Bitmap{}, roaring.Bitmap{}
	c.flight, c.nextDue, c.expiry = 0, 0, 0
	c.unsaved = false
}

// receiptWindow is how long receipts are awaited after the last hand-over: the campaign's own, else the longest of its
// routes.
func (c *Campaign) receiptWindow() int64 {
	if w := c.record.GetReceiptWindowMs(); w > 0 {
		return w
	}
	var longest int64
	for i := range c.flows {
		for _, r := range c.flows[i].routes() {
			longest = max(longest, r.window)
		}
	}
	if longest == 0 {
		longest = (72 * time.Hour).Milliseconds()
	}
	return longest
}

// maxValidity bounds how long after a deal a message may be handed over.
const maxValidity = 48 * time.Hour

func (c *Campaign) validity() int64 {
	if v := c.record.GetValidityMs(); v > 0 {
		return min(v, maxValidity.Milliseconds())
	}
	return maxValidity.Milliseconds()
}

// captured is what the campaign has cost so far.
func (c *Campaign) captured() (micros uint64) {
	for _, t := range c.tries {
		micros += t.captured()
	}
	return micros
}

// Number is the campaign's number.
func (c *Campaign) Number() uint64 { return c.number }

// Tenant is the id of its tenant.
func (c *Campaign) Tenant() string { return c.tenant }

// ID is its public id.
func (c *Campaign) ID() string { return c.id }

// Key is the key of its records in topic `cursors`.
func (c *Campaign) Key() string { return schemas.CampaignKey(c.tenant, c.id) }

// Record is its newest record, nil if none has arrived. It must not be changed.
func (c *Campaign) Record() *fanfarev1.Campaign { return c.record }

// Closed reports whether it is settled.
func (c *Campaign) Closed() bool { return c.closed }

// HasCursor reports whether topic `cursors` may hold records of it.
func (c *Campaign) HasCursor() bool { return c.deals > 0 || c.epoch > 0 }

func cloneRecord(r *fanfarev1.Campaign) *fanfarev1.Campaign { return proto.CloneOf(r) }
