package plan

import (
	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
)

// carryOut carries out a person's order about the recipients that are ambiguous now. Each gets an event, so the log has
// the decision: returned/RESEND is the proof on which it is dealt again, not_sent/GIVEN_UP ends it. Nothing is billed
// for a recipient that was given up, unless a receipt still proves that the carrier had the message.
//
// An order is carried out at most once: the cursor that says so is written with the first of its events. A leader that
// dies in the middle leaves the rest ambiguous, and a person may order again.
func (pl *Planner) carryOut(c *Campaign) {
	order := c.record.GetAmbiguousOrder()
	if order.GetId() <= c.orderDone || c.record.GetSettled() {
		return
	}
	c.orderDone, c.orderUnsaved = order.GetId(), true
	pl.touch(c)
	kind, code := schemas.KindNotSent, schemas.CodeGivenUp
	if order.GetAction() == schemas.AmbiguousActionResend {
		if stopping(c.record) {
			return
		}
		kind, code = schemas.KindReturned, schemas.CodeResend
	} else if order.GetAction() != schemas.AmbiguousActionGiveUp {
		return // of a newer version
	}
	ambiguous := c.ambiguous()
	for n := len(c.tries); n > 0; n-- {
		of := roaring.New()
		c.tries[n-1].doubtful.orInto(of)
		of.And(ambiguous)
		ambiguous.AndNot(of)
		of.Iterate(func(seq uint32) bool {
			pl.finish(c, seq, n, kind, code)
			return true
		})
	}
}

// ambiguous returns the recipients that the statistics call ambiguous: the doubt about their last try is not resolved.
func (c *Campaign) ambiguous() *roaring.Bitmap {
	doubt := c.doubted()
	doubt.AndNot(c.awaiting())
	for i, t := range c.tries { // a later try means that the doubt was resolved
		if later := c.have(i + 2); later != nil {
			resolved := roaring.New()
			t.doubtful.orInto(resolved)
			known := later.answered.Clone()
			for _, d := range later.dealt {
				known.Or(&d.seqs)
			}
			resolved.And(known)
			for _, p := range later.doubtful {
				resolved.AndNot(&p.seqs)
			}
			doubt.AndNot(resolved)
		}
	}
	return doubt
}

// OrderUnsaved reports whether an order about ambiguous recipients was carried out and the caller must write the
// campaign's cursor, which says so, with the events of the order.
func (c *Campaign) OrderUnsaved() bool { return c.orderUnsaved }
