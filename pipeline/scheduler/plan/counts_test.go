package plan

import (
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// counts says in which bucket a campaign's recipients are, by the same algebra as the statistics. Each is in exactly
// one.
type counts struct {
	total                            uint64
	pending, ambiguous, never        uint64 // never: not sent or skipped
	awaiting, undelivered, delivered uint64
	undealt, inFlight, waiting       uint64 // parts of pending, of ambiguous and of awaiting
}

// counts counts the recipients of a campaign.
func (c *Campaign) counts() counts {
	all := roaring.New()
	if c.record.GetHidden() {
		for _, t := range c.tries {
			for _, d := range t.dealt {
				all.Or(&d.seqs)
			}
			all.Or(&t.answered)
		}
	} else {
		all.AddRange(0, uint64(c.total))
	}
	out := counts{total: all.GetCardinality()}
	// The greatest precedence first: each set removes its members from the rest.
	take := func(s *roaring.Bitmap) uint64 {
		n := all.AndCardinality(s)
		all.AndNot(s)
		return n
	}
	for _, t := range c.tries {
		out.delivered += take(&t.positive)
	}
	for _, t := range c.tries {
		for _, n := range t.negative {
			out.undelivered += take(n.seqs)
		}
	}
	left := c.unconfirmed.Clone()
	for _, t := range c.tries {
		t.sent.orInto(left)
		t.receiptsInto(left)
	}
	out.awaiting = take(left)
	out.never = take(&c.never)
	// A later try outranks an earlier one; a return outranks an ambiguous outcome of the same try
	for _, t := range slices.Backward(c.tries) {
		out.pending += take(&t.returned)
		doubt := roaring.New()
		t.doubtful.orInto(doubt)
		out.ambiguous += take(doubt)
	}
	out.pending += all.GetCardinality()
	out.undealt = uint64(c.undealt())
	out.inFlight = uint64(c.flight)
	for i, t := range c.tries {
		again := t.returned.Clone()
		for _, b := range t.bounced {
			again.Or(b.seqs)
		}
		c.dropHandled(i+1, again)
		out.waiting += again.GetCardinality()
	}
	return out
}
