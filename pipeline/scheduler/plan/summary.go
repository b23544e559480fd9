package plan

import (
	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
)

// ended reports whether a campaign deals to no new recipient.
func (c *Campaign) ended() bool {
	return c.record.GetState() == schemas.StateCompleted || stopping(c.record)
}

// windowOver reports whether the receipt window, which begins at the last hand-over, is over.
func (c *Campaign) windowOver(now int64) bool { return now >= c.windowEnd() }

func (c *Campaign) windowEnd() int64 {
	from := c.handover
	if from == 0 {
		from = max(c.record.GetCompletedMs(), c.record.GetConfirmedMs())
	}
	return from + c.receiptWindow()
}

// summary is what a campaign's sets say as a whole.
type summary struct {
	done     bool   // every recipient has an outcome for its last try, and none waits to be dealt or ended
	awaiting uint64 // handed over, without a final receipt
	doubtful uint64 // ambiguous
}

// summary computes the summary again only if something has changed.
func (c *Campaign) summary() summary {
	if !c.changed {
		return c.lastSummary
	}
	if c.undealt() > 0 || c.flight > 0 || len(c.notes) > 0 || !c.ending.IsEmpty() {
		return summary{} // not final: computed again at the next call
	}
	c.changed = false
	c.lastSummary = summary{}
	for i, t := range c.tries {
		again := t.returned.Clone()
		for _, b := range t.bounced {
			again.Or(b.seqs)
		}
		if again.IsEmpty() {
			continue
		}
		if c.dropHandled(i+1, again); !again.IsEmpty() {
			return c.lastSummary
		}
	}
	for _, t := range c.tries { // no recipient is in flight or waits
		t.expiring, t.due, t.ready = nil, nil, nil
	}
	c.expiry, c.nextDue = 0, 0
	left, doubt := c.awaiting(), c.doubted()
	doubt.AndNot(left)
	c.lastSummary = summary{done: true, awaiting: left.GetCardinality(), doubtful: doubt.GetCardinality()}
	return c.lastSummary
}

// awaiting returns the recipients that were handed over, have no final receipt and were not given up as unconfirmed.
func (c *Campaign) awaiting() *roaring.Bitmap {
	left := roaring.New()
	for _, t := range c.tries {
		t.sent.orInto(left)
		t.receiptsInto(left)
	}
	for _, t := range c.tries {
		left.AndNot(&t.positive)
		t.negative.subtractFrom(left)
	}
	left.AndNot(&c.unconfirmed)
	return left
}

// doubted returns the recipients that are ambiguous at some try and have no final receipt. Those handed over at another
// try are in it, too.
func (c *Campaign) doubted() *roaring.Bitmap {
	doubt := roaring.New()
	for _, t := range c.tries {
		for _, p := range t.doubtful {
			doubt.Or(roaring.AndNot(&p.seqs, &t.returned))
		}
	}
	for _, t := range c.tries {
		doubt.AndNot(&t.positive)
		t.negative.subtractFrom(doubt)
	}
	doubt.AndNot(&c.never)
	doubt.AndNot(&c.unconfirmed)
	return doubt
}
