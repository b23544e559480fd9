package scheduler

import (
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// lostAfter is how long after its not_after a deal without an outcome is given up: nobody may hand it over any more, and
// whoever had it has had the time to say so.
const lostAfter = 10 * time.Minute

const minute = time.Minute

// endsAtOnce bounds how many recipients one round looks for that are lost or without a receipt.
const endsAtOnce = 5000

// ending is a recipient whom nothing follows, and the event that says so.
type ending struct {
	campaign *campaign
	seq      uint32
	try, leg uint8
	kind     fanfarev1.Kind
	code     fanfarev1.Code
}

// evaluate decides what follows for every recipient that something was noted of.
func (k *core) evaluate(c *campaign) {
	notes := c.notes
	c.notes = nil
	for i := range notes {
		k.follow(c, &notes[i])
	}
	c.notes = notes[:0]
}

// follow decides what follows an event about a recipient: a deal at some time, an end, or nothing.
func (k *core) follow(c *campaign, n *note) {
	seq := n.seq
	last := c.latest(seq)
	if last == 0 || c.final(seq) {
		return
	}
	t := c.tries[last-1]
	if !t.answered.Contains(seq) {
		return // the next try is on its way
	}
	bounced, code := c.bounce(seq)
	if c.never.Contains(seq) {
		if bounced > 0 { // the following try ended without leaving: what the carrier said before stands
			k.end(c, seq, bounced, fanfarev1.Kind_KIND_UNDELIVERED, code)
		}
		return
	}
	if int(n.try) != last {
		return // its last try has its own note
	}
	switch {
	case n.kind == fanfarev1.Kind_KIND_BOUNCED && bounced == last:
		k.followBounce(c, t, n, last, code)
	case n.kind == fanfarev1.Kind_KIND_RETURNED && t.returned.Contains(seq) && !t.left(seq):
		k.followReturn(c, t, n, last)
	}
}

func (k *core) followBounce(c *campaign, t *try, n *note, last int, code fanfarev1.Code) {
	if c.record.GetHidden() || stopping(c.record) || last >= lastTry || c.unconfirmed.Contains(n.seq) {
		k.end(c, n.seq, last, fanfarev1.Kind_KIND_UNDELIVERED, code)
		return
	}
	leg := c.leg(last, n.seq)
	legs := c.record.GetLegs()
	made := c.handovers(n.seq, leg, last)
	if int(leg) <= len(legs) && c.worthRetry(n.seq, leg, made, last, code) {
		wait := backoff(legs[leg-1], made, code)
		due := max(n.again, n.at+jitter(c.number, n.seq, last, wait))
		c.wait(t, dueKey{leg: leg, retry: true, at: rounded(n.at, due)}, n)
		return
	}
	if info, ok := schemas.LookupCode(code); ok && info.Fallback && int(leg) < len(legs) {
		c.wait(t, dueKey{leg: leg + 1, at: n.again}, n)
		return
	}
	k.end(c, n.seq, last, fanfarev1.Kind_KIND_UNDELIVERED, code)
}

// worthRetry reports whether a bounce allows another hand-over on the same leg.
func (c *campaign) worthRetry(seq uint32, leg uint8, made, last int, code fanfarev1.Code) bool {
	if made >= maxHandovers(c.record.GetLegs()[leg-1]) {
		return false
	}
	info, ok := schemas.LookupCode(code)
	if !ok {
		return false
	}
	if info.Retry != schemas.RetryOnce {
		return info.Retry != schemas.RetryNo
	}
	var same int
	for i, t := range c.tries[:last] {
		if got, ok := t.bouncedCode(seq); ok && got == code && c.leg(i+1, seq) == leg {
			same++
		}
	}
	return same <= 1
}

func (k *core) followReturn(c *campaign, t *try, n *note, last int) {
	switch {
	case c.record.GetHidden():
		return // the sender has put it among the held ones
	case stopping(c.record):
		c.wait(t, dueKey{leg: 1}, n) // to be cancelled
		return
	case last >= lastTry:
		k.end(c, n.seq, last, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_TRIES_SPENT)
		return
	}
	leg := c.leg(last, n.seq)
	pause := pacing(last)
	key := dueKey{leg: leg}
	switch n.code {
	case fanfarev1.Code_CODE_UNSUPPORTED:
		if int(leg) >= len(c.record.GetLegs()) {
			k.end(c, n.seq, last, fanfarev1.Kind_KIND_NOT_SENT, unreachable(c.record, leg))
			return
		}
		key.leg++
	case fanfarev1.Code_CODE_PAUSED, fanfarev1.Code_CODE_SUSPENDED:
		if pause > 0 {
			key.at = rounded(n.at, n.at+pause)
		}
	case fanfarev1.Code_CODE_WINDOW:
		key.hours, key.at = true, roundUp(n.at+pause, 10*time.Second)
	case fanfarev1.Code_CODE_RATE, fanfarev1.Code_CODE_BREAKER, fanfarev1.Code_CODE_CONTROL_BEHIND:
		if due := max(n.again, n.at+pause); due > n.at {
			key.at = rounded(n.at, due)
		}
	default: // the carrier refused, for a reason that passes
		key.retry = true
		wait := max(pause, time.Second.Milliseconds()<<min(last, 6))
		key.at = rounded(n.at, max(n.again, n.at+jitter(c.number, n.seq, last, wait)))
	}
	c.wait(t, key, n)
}

// unreachable is the sub-status of a recipient whom no channel of the chain reaches.
func unreachable(r *fanfarev1.Campaign, leg uint8) fanfarev1.Code {
	if int(leg) <= len(r.GetLegs()) {
		switch r.GetLegs()[leg-1].GetChannel() {
		case fanfarev1.Channel_CHANNEL_RCS:
			return fanfarev1.Code_CODE_RCS_NOT_CAPABLE
		case fanfarev1.Channel_CHANNEL_WHATSAPP:
			return fanfarev1.Code_CODE_NOT_WHATSAPP_USER
		default:
		}
	}
	return fanfarev1.Code_CODE_NOT_SENT_OTHER
}

// wait puts a recipient among those who are dealt again: at a time, or with none as soon as may be.
func (c *campaign) wait(t *try, key dueKey, n *note) {
	if key.at == 0 {
		t.ripeOf(key.leg, key.retry).add(roaring.BitmapOf(n.seq), n.at)
		return
	}
	t.dueOf(key).Add(n.seq)
	if c.nextDue == 0 || key.at < c.nextDue {
		c.nextDue = key.at
	}
}

// end decides that nothing follows. One who bounced at an earlier try ends as undelivered: the carrier had spoken.
func (k *core) end(c *campaign, seq uint32, n int, kind fanfarev1.Kind, code fanfarev1.Code) {
	if kind != fanfarev1.Kind_KIND_UNDELIVERED {
		if at, was := c.bounce(seq); at > 0 {
			n, kind, code = at, fanfarev1.Kind_KIND_UNDELIVERED, was
		}
	}
	k.finish(c, seq, n, kind, code)
}

// finish queues an event about a recipient, unless one is queued.
func (k *core) finish(c *campaign, seq uint32, n int, kind fanfarev1.Kind, code fanfarev1.Code) {
	if c.ending.CheckedAdd(seq) {
		k.ends = append(k.ends, ending{campaign: c, seq: seq, try: uint8(n), leg: c.leg(n, seq), kind: kind, code: code})
	}
}

// Ends returns up to most ends, and takes them for written: whoever fails to write them must begin anew from the log.
func (k *core) Ends(now time.Time, most int) []ending {
	for _, c := range k.open {
		if c.record == nil {
			continue
		}
		k.evaluate(c)
		if len(k.ends) < most {
			k.lost(c, ms(now))
			k.silent(c, ms(now))
		}
	}
	return k.takeEnds(most)
}

// atRest reports whether everything that was read has been thought about and every end was given out: only then the sets may
// be written, for who is to be ended, and with what, stands in none of them.
func (k *core) atRest() bool {
	for _, c := range k.open {
		if c.record != nil {
			k.evaluate(c)
		}
	}
	return len(k.ends) == 0
}

// takeEnds gives out ends that are decided.
func (k *core) takeEnds(most int) []ending {
	n := min(most, len(k.ends))
	if n == 0 {
		return nil
	}
	out := make([]ending, 0, n)
	for _, e := range k.ends[:n] {
		c := e.campaign
		if c.closed {
			out = append(out, e)
			continue
		}
		c.ending.Remove(e.seq)
		if c.stale(e) {
			continue
		}
		k.observe(&event{campaign: c.number, seq: e.seq, try: uint32(e.try), leg: uint32(e.leg), kind: e.kind, code: e.code, at: c.handover})
		out = append(out, e)
	}
	if k.ends = k.ends[n:]; len(k.ends) == 0 {
		k.ends = nil
	}
	return out
}

// stale reports whether an end was overtaken by events since it was decided.
func (c *campaign) stale(e ending) bool {
	if c.final(e.seq) {
		return true
	}
	switch e.kind {
	case fanfarev1.Kind_KIND_AMBIGUOUS, fanfarev1.Kind_KIND_SKIPPED: // for want of an outcome of that try
		return c.try(int(e.try)).answered.Contains(e.seq)
	case fanfarev1.Kind_KIND_UNCONFIRMED:
		return false
	default: // another try went out meanwhile: its outcome decides
		return !c.try(max(c.latest(e.seq), 1)).answered.Contains(e.seq)
	}
}

// lost gives up deals whose time is long over. A cancel that nobody carried out is carried out here.
func (k *core) lost(c *campaign, now int64) {
	if c.expiry == 0 || c.expiry > now {
		return
	}
	c.expiry = 0
	found := 0
	for i, t := range c.tries {
		for at, s := range t.expiring {
			due := at + lostAfter.Milliseconds()
			if due <= now {
				s.AndNot(&t.answered)
				for _, seq := range take(s, 0, schemas.MaxSeq+1, endsAtOnce-found) {
					found++
					if d := t.wasDealt(seq); d != nil && d.leg == 0 {
						k.finish(c, seq, i+1, fanfarev1.Kind_KIND_SKIPPED, fanfarev1.Code_CODE_CANCELLED)
						continue
					}
					k.finish(c, seq, i+1, fanfarev1.Kind_KIND_AMBIGUOUS, fanfarev1.Code_CODE_LOST)
				}
				if s.IsEmpty() {
					delete(t.expiring, at)
					continue
				}
			}
			if c.expiry == 0 || due < c.expiry {
				c.expiry = due
			}
		}
	}
}

// silent ends the wait for receipts once the receipt window is over.
func (k *core) silent(c *campaign, now int64) {
	if !c.windowOver(now) || !c.ended() {
		return
	}
	v := c.judge()
	if !v.done || v.awaiting == 0 {
		return
	}
	left := endsAtOnce
	waiting := c.awaiting()
	waiting.AndNot(&c.ending)
	for i := len(c.tries); i > 0 && left > 0; i-- {
		for _, seq := range take(waiting, 0, schemas.MaxSeq+1, endsAtOnce) {
			if left > 0 && c.tries[i-1].left(seq) {
				k.finish(c, seq, i, fanfarev1.Kind_KIND_UNCONFIRMED, fanfarev1.Code_CODE_NO_DLR)
				waiting.Remove(seq)
				left--
			}
		}
	}
}

// ended reports whether a campaign deals to nobody new any more.
func (c *campaign) ended() bool {
	return c.record.GetState() == fanfarev1.State_STATE_COMPLETED || stopping(c.record)
}

// windowOver reports whether no receipt is awaited any more, counted from the last hand-over.
func (c *campaign) windowOver(now int64) bool {
	from := c.handover
	if from == 0 {
		from = max(c.record.GetCompletedMs(), c.record.GetConfirmedMs())
	}
	return now >= from+c.receiptWindow()
}

// verdict is what a campaign's sets say as a whole.
type verdict struct {
	done     bool   // everyone has an outcome for the last try, and nobody waits to be dealt or ended
	awaiting uint64 // left, and nothing final
	doubtful uint64 // nobody knows
}

// judge returns the verdict, made anew only when something has changed.
func (c *campaign) judge() verdict {
	if !c.changed {
		return c.verdict
	}
	if c.undealt() > 0 || c.flight > 0 || len(c.notes) > 0 || !c.ending.IsEmpty() {
		return verdict{} // and look again next time
	}
	c.changed = false
	c.verdict = verdict{}
	for i, t := range c.tries {
		again := t.returned.Clone()
		for _, b := range t.bounced {
			again.Or(b.seqs)
		}
		if again.IsEmpty() {
			continue
		}
		if c.keepAgain(i+1, again); !again.IsEmpty() {
			return c.verdict
		}
	}
	for _, t := range c.tries { // nobody is in flight or waits
		t.expiring, t.due, t.ripe = nil, nil, nil
	}
	c.expiry, c.nextDue = 0, 0
	left, doubt := c.awaiting(), c.doubted()
	doubt.AndNot(left)
	c.verdict = verdict{done: true, awaiting: left.GetCardinality(), doubtful: doubt.GetCardinality()}
	return c.verdict
}

// awaiting returns who was handed over and has nothing final, and was not given up as unconfirmed.
func (c *campaign) awaiting() *roaring.Bitmap {
	left := roaring.New()
	for _, t := range c.tries {
		t.sent.orInto(left)
		t.receiptsInto(left)
	}
	for _, t := range c.tries {
		left.AndNot(&t.positive)
		left.AndNot(&t.negative)
	}
	left.AndNot(&c.unconfirmed)
	return left
}

// doubted returns who was ambiguous at some try without being given back, and has nothing final. Those who left are in it too.
func (c *campaign) doubted() *roaring.Bitmap {
	doubt := roaring.New()
	for _, t := range c.tries {
		for _, p := range t.doubtful {
			doubt.Or(roaring.AndNot(&p.seqs, &t.returned))
		}
	}
	for _, t := range c.tries {
		doubt.AndNot(&t.positive)
		doubt.AndNot(&t.negative)
	}
	doubt.AndNot(&c.never)
	doubt.AndNot(&c.unconfirmed)
	return doubt
}

// review notes everyone whose fate must be decided and was not: after taking over, those the predecessor had read of and done
// nothing about.
func (c *campaign) review(k *core) {
	for i, t := range c.tries {
		open := t.returned.Clone()
		for _, b := range t.bounced {
			open.Or(b.seqs)
		}
		c.keepAgain(i+1, open)
		for _, s := range t.due {
			open.AndNot(s)
		}
		for _, r := range t.ripe {
			open.AndNot(&r.seqs)
		}
		open.Iterate(func(seq uint32) bool {
			n := note{seq: seq, try: uint8(i + 1), kind: fanfarev1.Kind_KIND_RETURNED, code: fanfarev1.Code_CODE_PAUSED}
			if code, ok := t.bouncedCode(seq); ok {
				n.kind, n.code = fanfarev1.Kind_KIND_BOUNCED, code
			}
			c.notes = append(c.notes, n)
			return true
		})
		for _, b := range t.bounced {
			c.bounces = true
			roaring.And(b.seqs, &c.never).Iterate(func(seq uint32) bool {
				c.notes = append(c.notes, note{seq: seq, try: uint8(i + 1), kind: fanfarev1.Kind_KIND_NOT_SENT})
				return true
			})
		}
	}
	if len(c.notes) > 0 {
		k.evaluate(c)
	}
}

// defaults of a leg that says nothing: three hand-overs by SMS, two by RCS and WhatsApp, one call.
func maxHandovers(l *fanfarev1.Leg) int {
	if n := l.GetMaxHandovers(); n > 0 {
		return int(n)
	}
	switch l.GetChannel() {
	case fanfarev1.Channel_CHANNEL_SMS:
		return 3
	case fanfarev1.Channel_CHANNEL_VOICE:
		return 1
	default:
		return 2
	}
}

var defaultBackoff = []int64{(1 * time.Minute).Milliseconds(), (5 * time.Minute).Milliseconds(), (25 * time.Minute).Milliseconds()}

// backoff is the longest wait before the retry that follows the made-th hand-over.
func backoff(l *fanfarev1.Leg, made int, code fanfarev1.Code) int64 {
	steps := l.GetBackoffMs()
	if len(steps) == 0 {
		steps = defaultBackoff
	}
	if info, ok := schemas.LookupCode(code); ok && info.Retry == schemas.RetryLong {
		return steps[len(steps)-1]
	}
	return steps[min(max(made, 1), len(steps))-1]
}

// jitter spreads what failed together over the whole wait. It is a function of the recipient and the try: whoever decides
// again decides the same.
func jitter(campaign uint64, seq uint32, n int, wait int64) int64 {
	if wait <= 0 {
		return 0
	}
	x := campaign<<32 ^ uint64(seq)<<8 ^ uint64(n)
	x += 0x9e3779b97f4a7c15 // splitmix64
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return int64(x%uint64(wait)) + 1
}

// pacing is the least wait after a return of the n-th try. Returns cost nothing, so the first few follow at once; but tries are
// few, and a recipient who comes back again and again must not use them all up while the cause lasts: 250 of them take two days.
func pacing(n int) int64 {
	switch {
	case n <= 5:
		return 0
	case n <= 20:
		return (5 * time.Second).Milliseconds()
	case n <= 50:
		return time.Minute.Milliseconds()
	default:
		return (15 * time.Minute).Milliseconds()
	}
}

// rounded makes times that lie close together equal, so that few sets hold many recipients: to 100 ms when near, to 1 s else.
func rounded(from, due int64) int64 {
	if due-from <= 10_000 {
		return roundUp(due, 100*time.Millisecond)
	}
	return roundUp(due, time.Second)
}
