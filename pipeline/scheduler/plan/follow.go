package plan

import (
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// evaluate decides the next step of every recipient that has a note.
func (pl *Planner) evaluate(c *Campaign) {
	notes := c.notes
	c.notes = nil
	for i := range notes {
		pl.follow(c, &notes[i])
	}
	c.notes = notes[:0]
}

// follow decides what follows an event about a recipient: a deal at some time, an end, or nothing.
func (pl *Planner) follow(c *Campaign, n *note) {
	seq := n.seq
	last := c.latest(seq)
	if last == 0 || c.final(seq) {
		return
	}
	t := c.tries[last-1]
	if !t.answered.Contains(seq) {
		return // the next try is in flight
	}
	bounced, code := c.bounce(seq)
	if c.never.Contains(seq) {
		if bounced > 0 { // the following try was never handed over: the bounce before it stands
			pl.end(c, seq, bounced, schemas.KindUndelivered, code)
		}
		return
	}
	if int(n.try) != last {
		return // an event about its last try has a note of its own
	}
	switch {
	case n.kind == schemas.KindBounced && bounced == last:
		pl.followBounce(c, t, n, last, code)
	case n.kind == schemas.KindReturned && t.returned.Contains(seq) && !t.wasSubmitted(seq):
		pl.followReturn(c, t, n, last)
	}
}

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

func (pl *Planner) followReturn(c *Campaign, t *tryState, n *note, last int) {
	switch {
	case c.record.GetHidden():
		return // a single send: the sender has written it to topic held
	case stopping(c.record):
		c.wait(t, dueKey{leg: 1}, n) // to be cancelled
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

// unreachable is the sub-status of a recipient that no channel of the chain reaches; leg is the last one tried.
func unreachable(r *fanfarev1.Campaign, leg uint8) schemas.Code {
	var last *fanfarev1.Leg
	if leg >= 1 && int(leg) <= len(r.GetLegs()) {
		last = r.GetLegs()[leg-1]
	}
	return schemas.UnreachableCode(last.GetChannel())
}

// wait adds a recipient to those dealt again: at a time, or as soon as possible if the key has none.
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

// review adds a note for every recipient whose next step is not decided: after a takeover, those whose events the predecessor
// had read without deciding.
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
