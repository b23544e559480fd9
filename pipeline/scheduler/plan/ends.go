package plan

import (
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
)

// lostAfter is how long after its not_after a deal without an outcome is given up. After not_after no sender may hand
// it over, and the sender that holds it has had enough time to report.
const lostAfter = 10 * time.Minute

const minute = time.Minute

// endsAtOnce bounds how many lost or unconfirmed recipients one round ends.
const endsAtOnce = 5000

// End is a recipient that is not dealt again, and the event that says so.
type End struct {
	Campaign *Campaign
	Seq      uint32
	Try, Leg uint8
	Kind     schemas.Kind
	Code     schemas.Code
	// Route is the route of the try; empty: that of the leg.
	Route string
}

// end ends a recipient. If it bounced at an earlier try, it ends as undelivered with the code of that bounce.
func (pl *Planner) end(c *Campaign, seq uint32, n int, kind schemas.Kind, code schemas.Code) {
	if kind != schemas.KindUndelivered {
		if at, was := c.bounce(seq); at > 0 {
			n, kind, code = at, schemas.KindUndelivered, was
		}
	}
	pl.finish(c, seq, n, kind, code)
}

// finish queues the last event about a recipient, unless one is queued already.
func (pl *Planner) finish(c *Campaign, seq uint32, n int, kind schemas.Kind, code schemas.Code) {
	if c.ending.CheckedAdd(seq) {
		pl.pendingEnds = append(pl.pendingEnds, End{Campaign: c, Seq: seq, Try: uint8(n), Leg: c.leg(n, seq), Kind: kind, Code: code, Route: c.routeOf(n, seq)})
	}
}

// Ends returns up to most ends and counts them as written. A caller that fails to write them must discard the planner
// and read the topics again.
func (pl *Planner) Ends(now time.Time, most int) []End {
	pl.noteDisabled(ms(now))
	pl.wakeDue(ms(now))
	for _, c := range pl.awake {
		if c.record == nil || !pl.tracks(c) {
			continue
		}
		pl.evaluate(c)
		pl.carryOut(c)
		if c.audienceLost && stopping(c.record) {
			pl.endWithoutAudience(c)
		}
		if len(pl.pendingEnds) < most {
			pl.giveUpLost(c, ms(now))
			pl.giveUpReceipts(c, ms(now))
			if pl.stranded {
				pl.endStranded(c, ms(now))
			}
		}
	}
	return pl.TakeEnds(most)
}

// EndsPending reports whether an end is decided that no call has returned yet. Sets may be written only when none is:
// decided ends are not part of them.
func (pl *Planner) EndsPending() bool {
	for _, c := range pl.awake { // a campaign with notes is awake
		if c.record != nil && pl.tracks(c) {
			pl.evaluate(c)
		}
	}
	return len(pl.pendingEnds) > 0
}

// TakeEnds returns up to most of the ends that are decided already.
func (pl *Planner) TakeEnds(most int) []End {
	n := min(most, len(pl.pendingEnds))
	if n == 0 {
		return nil
	}
	out := make([]End, 0, n)
	for _, e := range pl.pendingEnds[:n] {
		c := e.Campaign
		if c.closed {
			out = append(out, e)
			continue
		}
		c.ending.Remove(e.Seq)
		if c.stale(e) {
			continue
		}
		pl.Observe(&Event{Campaign: c.number, Seq: e.Seq, Try: uint32(e.Try), Leg: uint32(e.Leg), Kind: e.Kind, Code: e.Code, TimeMs: c.handover})
		out = append(out, e)
	}
	if pl.pendingEnds = pl.pendingEnds[n:]; len(pl.pendingEnds) == 0 {
		pl.pendingEnds = nil
	}
	return out
}

// stale reports whether events that arrived since an end was decided make it wrong.
func (c *Campaign) stale(e End) bool {
	if c.final(e.Seq) {
		return true
	}
	switch e.Kind {
	case schemas.KindAmbiguous, schemas.KindSkipped: // the end was decided because that try had no outcome
		return c.try(int(e.Try)).answered.Contains(e.Seq)
	case schemas.KindUnconfirmed:
		return false
	default: // if another try was dealt meanwhile, its outcome decides
		return !c.try(max(c.latest(e.Seq), 1)).answered.Contains(e.Seq)
	}
}

// endStranded ends recipients that wait to be dealt on a leg all of whose routes have been disabled for longer than a
// message of the campaign is valid, so that they do not wait for ever.
func (pl *Planner) endStranded(c *Campaign, now int64) {
	left := endsAtOnce
	for i, t := range c.tries {
		for _, s := range t.ready {
			if s.seqs.IsEmpty() || int(s.leg) > len(c.flows) {
				continue
			}
			if !c.flows[s.leg-1].disabledFor(c.validity(), now) {
				continue
			}
			waiting := roaring.BitmapOf(take(&s.seqs, 0, schemas.MaxSeq+1, left)...)
			s.seqs.AndNot(waiting)
			left -= int(waiting.GetCardinality())
			if c.dropHandled(i+1, waiting); stopping(c.record) {
				s.seqs.Or(waiting) // cancelled instead
				continue
			}
			waiting.Iterate(func(seq uint32) bool {
				pl.end(c, seq, i+1, schemas.KindNotSent, schemas.CodeValidityExpired)
				return true
			})
		}
	}
}

// noteDisabled records since when routes are disabled.
func (pl *Planner) noteDisabled(now int64) {
	pl.stranded = false
	for _, r := range pl.ordered {
		switch {
		case r.enabled:
			r.disabledMs = 0
		case r.disabledMs == 0:
			r.disabledMs = now
		}
		pl.stranded = pl.stranded || !r.enabled
	}
}

// endWithoutAudience ends the recipients of a stopped campaign that would be cancelled by chunks, if the audience were
// not lost.
func (pl *Planner) endWithoutAudience(c *Campaign) {
	left := endsAtOnce
	for seq := c.next; left > 0 && c.undealt() > 0 && seq < c.total; seq++ {
		if seq = c.untried(seq, c.total); seq < c.total && !c.ending.Contains(seq) {
			pl.finish(c, seq, 1, schemas.KindSkipped, schemas.CodeCancelled)
			left--
		}
	}
	for i, t := range c.tries {
		for _, s := range t.ready {
			for _, seq := range take(&s.seqs, 0, schemas.MaxSeq+1, max(left, 0)) {
				s.seqs.Remove(seq)
				one := roaring.BitmapOf(seq)
				if c.dropHandled(i+1, one); !one.IsEmpty() {
					pl.end(c, seq, i+1, schemas.KindNotSent, schemas.CodeCancelled)
					left--
				}
			}
		}
	}
}

// giveUpLost ends recipients whose deal never got an outcome: as ambiguous, or as skipped if the deal was a cancel.
func (pl *Planner) giveUpLost(c *Campaign, now int64) {
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
						pl.finish(c, seq, i+1, schemas.KindSkipped, schemas.CodeCancelled)
						continue
					}
					pl.finish(c, seq, i+1, schemas.KindAmbiguous, schemas.CodeLost)
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

// giveUpReceipts ends the wait for receipts when the receipt window is over.
func (pl *Planner) giveUpReceipts(c *Campaign, now int64) {
	if !c.windowOver(now) || !c.ended() {
		return
	}
	v := c.summary()
	if !v.done || v.awaiting == 0 {
		return
	}
	left := endsAtOnce
	waiting := c.awaiting()
	waiting.AndNot(&c.ending)
	for i := len(c.tries); i > 0 && left > 0; i-- {
		for _, seq := range take(waiting, 0, schemas.MaxSeq+1, endsAtOnce) {
			if left > 0 && c.tries[i-1].wasSubmitted(seq) {
				pl.finish(c, seq, i, schemas.KindUnconfirmed, schemas.CodeNoDLR)
				waiting.Remove(seq)
				left--
			}
		}
	}
}
