package plan

import (
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// evaluate decides the next step of every recipient that has a note, and clears the notes.
func (pl *Planner) evaluate(c *Campaign) {
	notes := c.notes
	c.notes = nil
	for i := range notes {
		pl.follow(c, &notes[i])
	}
	c.notes = notes[:0]
}

// follow decides the next step of a recipient from its sets. The result is another deal (now or at a time), an end, or
// nothing, because a try is in flight or the recipient is final. The note only says which event to look at: it may be
// old, and applying it twice is harmless.
func (pl *Planner) follow(c *Campaign, n *note) {
	seq := n.seq
	last := c.latest(seq)
	if last == 0 || c.final(seq) {
		return
	}
	t := c.tries[last-1]
	if !t.answered.Contains(seq) {
		return // no event about the last try was read: it is in flight
	}
	bounced, code := c.bounce(seq)
	if c.never.Contains(seq) {
		if bounced > 0 { // the try after the bounce was not handed over, so the bounce is the final result
			pl.end(c, seq, bounced, schemas.KindUndelivered, code)
		}
		return
	}
	if int(n.try) != last {
		return // this note is about an earlier try; the event of the last try has its own note
	}
	switch {
	case n.kind == schemas.KindBounced && bounced == last:
		pl.followBounce(c, t, n, last, code)
	case n.kind == schemas.KindReturned && t.returned.Contains(seq) && !t.wasSubmitted(seq):
		pl.followReturn(c, t, n, last)
	}
}

// followBounce decides after a negative receipt for the last try: a retry on the same leg, the next leg, or the end as
// undelivered. code is the code of the receipt.
func (pl *Planner) followBounce(c *Campaign, t *tryState, n *note, last int, code schemas.Code) {
	if c.record.GetHidden() || stopping(c.record) || last >= lastTry || c.unconfirmed.Contains(n.seq) {
		pl.end(c, n.seq, last, schemas.KindUndelivered, code)
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
	pl.end(c, n.seq, last, schemas.KindUndelivered, code)
}

// followReturn decides after the sender has returned the last try unsent. The code gives the reason, which decides
// where and when the recipient is dealt again: on the same leg, on the next leg, or not at all.
func (pl *Planner) followReturn(c *Campaign, t *tryState, n *note, last int) {
	switch {
	case c.record.GetHidden():
		return // the sender has written the single send to topic held, from which it is dealt again
	case stopping(c.record):
		c.wait(t, dueKey{leg: 1}, n) // the next deal of a stopping campaign is a cancel
		return
	case last >= lastTry:
		pl.end(c, n.seq, last, schemas.KindNotSent, schemas.CodeTriesSpent)
		return
	}
	leg := c.leg(last, n.seq)
	pause := returnDelay(last)
	key := dueKey{leg: leg}
	switch info, _ := schemas.LookupCode(n.code); {
	case n.code == schemas.CodeUnsupported && int(leg) >= len(c.record.GetLegs()):
		pl.end(c, n.seq, last, schemas.KindNotSent, unreachable(c.record, leg))
		return
	case n.code == schemas.CodeUnsupported:
		key.leg++
	case info.Fallback && info.Retry == schemas.RetryNo: // the carrier refused this channel for good
		if int(leg) >= len(c.record.GetLegs()) {
			pl.end(c, n.seq, last, schemas.KindNotSent, n.code)
			return
		}
		key.leg++
	case n.code == schemas.CodePaused || n.code == schemas.CodeSuspended || n.code == schemas.CodeResend:
		if pause > 0 {
			key.at = rounded(n.at, n.at+pause)
		}
	case n.code == schemas.CodeWindow:
		key.hours, key.at = true, roundUp(n.at+pause, 10*time.Second)
	case n.code == schemas.CodeRate || n.code == schemas.CodeBreaker || n.code == schemas.CodeControlBehind:
		if due := max(n.again, n.at+pause); due > n.at {
			key.at = rounded(n.at, due)
		}
	default: // a temporary refusal of the carrier
		key.retry = true
		wait := max(pause, time.Second.Milliseconds()<<min(last, 6))
		key.at = rounded(n.at, max(n.again, n.at+jitter(c.number, n.seq, last, wait)))
	}
	c.wait(t, key, n)
}

// unreachable returns the sub-status of a recipient that no channel of the chain can reach. leg is the last leg that
// was tried.
func unreachable(r *fanfarev1.Campaign, leg uint8) schemas.Code {
	var last *fanfarev1.Leg
	if leg >= 1 && int(leg) <= len(r.GetLegs()) {
		last = r.GetLegs()[leg-1]
	}
	return schemas.UnreachableCode(last.GetChannel())
}

// wait schedules another deal of a recipient: at key.at, or as soon as possible if key.at is 0.
func (c *Campaign) wait(t *tryState, key dueKey, n *note) {
	if key.at == 0 {
		t.readyFor(key.leg, key.retry).add(roaring.BitmapOf(n.seq), n.at)
		return
	}
	t.dueOf(key).Add(n.seq)
	if c.nextDue == 0 || key.at < c.nextDue {
		c.nextDue = key.at
	}
}

// review adds a note for every recipient with a return or a bounce whose next step is not decided, and evaluates the
// notes. It runs after a takeover, because the previous leader may have read events without deciding what follows.
func (c *Campaign) review(pl *Planner) {
	for i, t := range c.tries {
		open := t.returned.Clone()
		for _, b := range t.bounced {
			open.Or(b.seqs)
		}
		c.dropHandled(i+1, open)
		for _, s := range t.due {
			open.AndNot(s)
		}
		for _, r := range t.ready {
			open.AndNot(&r.seqs)
		}
		open.Iterate(func(seq uint32) bool {
			n := note{seq: seq, try: uint8(i + 1), kind: schemas.KindReturned, code: schemas.CodePaused}
			if code, ok := t.bounced.code(seq); ok {
				n.kind, n.code = schemas.KindBounced, code
			}
			c.notes = append(c.notes, n)
			return true
		})
		for _, b := range t.bounced {
			c.bounces = true
			roaring.And(b.seqs, &c.never).Iterate(func(seq uint32) bool {
				c.notes = append(c.notes, note{seq: seq, try: uint8(i + 1), kind: schemas.KindNotSent})
				return true
			})
		}
	}
	if len(c.notes) > 0 {
		pl.evaluate(c)
	}
}
