package scheduler

import (
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// census is where the recipients of a campaign are, by the same algebra as the statistics: every one in exactly one place.
type census struct {
	total                            uint64
	pending, ambiguous, never        uint64 // never: not sent or skipped
	awaiting, undelivered, delivered uint64
	undealt, inFlight, waiting       uint64 // parts of pending, of ambiguous and of awaiting
}

// count makes the census of a campaign.
func (c *campaign) census() census {
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
	out := census{total: all.GetCardinality()}
	// The greatest precedence first; each set takes its members out of those left over.
	take := func(s *roaring.Bitmap) uint64 {
		n := all.AndCardinality(s)
		all.AndNot(s)
		return n
	}
	for _, t := range c.tries {
		out.delivered += take(&t.positive)
	}
	for _, t := range c.tries {
		out.undelivered += take(&t.negative)
	}
	left := c.unconfirmed.Clone()
	for _, t := range c.tries {
		t.sent.orInto(left)
		t.receiptsInto(left)
	}
	out.awaiting = take(left)
	out.never = take(&c.never)
	for _, t := range slices.Backward(c.tries) { // a later try outranks both, a return the doubt of the same try
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
		c.keepAgain(i+1, again)
		out.waiting += again.GetCardinality()
	}
	return out
}

// load is how much stands at the routes, for metrics.
type load struct {
	route              string
	bulk, txn          int64 // in flight
	undealt, due, ripe uint64
	seconds            float64 // undealt and due, at the route's rate
	oldest             int64   // since when the longest overdue waits, 0: nobody is overdue
}

// Loads returns the load of every route.
func (k *core) Loads() []load {
	of := map[*route]*load{}
	out := make([]load, len(k.ordered))
	for i, r := range k.ordered {
		out[i] = load{route: r.name, bulk: r.flight, txn: r.txn}
		of[r] = &out[i]
	}
	for _, c := range k.open {
		if c.record == nil || c.record.GetHidden() || len(c.flows) == 0 {
			continue
		}
		if c.record.GetState() == fanfarev1.State_STATE_SENDING {
			of[c.flows[0].route].undealt += uint64(c.undealt())
		}
		for _, t := range c.tries {
			for key, s := range t.due {
				if l := c.loadOf(of, key.leg); l != nil {
					l.due += s.GetCardinality()
				}
			}
			for _, s := range t.ripe {
				if l := c.loadOf(of, s.leg); l != nil {
					l.ripe += s.seqs.GetCardinality()
					if s.since > 0 && !s.seqs.IsEmpty() && (l.oldest == 0 || s.since < l.oldest) {
						l.oldest = s.since
					}
				}
			}
		}
	}
	for i, r := range k.ordered {
		out[i].seconds = float64(out[i].undealt+out[i].ripe) / float64(max(r.rate, 1))
	}
	return out
}

func (c *campaign) loadOf(of map[*route]*load, leg uint8) *load {
	if leg == 0 || int(leg) > len(c.flows) {
		return nil
	}
	return of[c.flows[leg-1].route]
}
