package plan

import (
	"time"

	"github.com/RoaringBitmap/roaring/v2"
)

// callLease is how long after its hand-over a call without a receipt counts as over. It is longer than nearly every
// call, and short enough that a campaign whose receipts were lost continues.
const callLease = 30 * time.Minute

// callSlots are the calls of one leg that go on at the same time. A call holds its slot from the deal until an event
// says that it was not handed over, or until its last receipt. Without a receipt it holds the slot for [callLease]
// after the hand-over. A call that a person gave up holds no slot. A successor counts the leases from the campaign's
// newest hand-over, which its state has: they end at the latest [callLease] after that.
type callSlots struct {
	stale bool // the sets have changed since live was counted
	live  int64
	// began lists calls by the time at which this planner saw their hand-over, oldest first; overdue are the calls
	// whose lease is over.
	began   []callsBegan
	overdue roaring.Bitmap
}

type callsBegan struct {
	at   int64
	seqs *roaring.Bitmap
}

// freeCalls returns how many more calls of a leg may start now; limited is false if the leg has no such limit.
func (c *Campaign) freeCalls(leg uint8, now int64) (free int64, limited bool) {
	legs := c.record.GetLegs()
	if leg < 1 || int(leg) > len(legs) || legs[leg-1].GetMaxConcurrent() == 0 {
		return 0, false
	}
	s := c.calls[leg]
	if s == nil {
		if c.calls == nil {
			c.calls = map[uint8]*callSlots{}
		}
		s = &callSlots{stale: true}
		c.calls[leg] = s
	}
	if s.stale || len(s.began) > 0 && now >= s.began[0].at+callLease.Milliseconds() {
		c.countCalls(s, leg, now)
	}
	return int64(legs[leg-1].GetMaxConcurrent()) - s.live, true
}

func (c *Campaign) countCalls(s *callSlots, leg uint8, now int64) {
	live, handedOver := roaring.New(), roaring.New()
	for _, t := range c.tries {
		reached := roaring.New() // the carrier has it, or may have it
		t.sent.orInto(reached)
		t.doubtful.orInto(reached)
		t.receiptsInto(reached)
		over := roaring.AndNot(&t.answered, reached)
		over.Or(&t.returned)
		over.Or(&t.positive)
		for _, coded := range []codedSets{t.negative, t.bounced} {
			for _, b := range coded {
				over.Or(b.seqs)
			}
		}
		for _, d := range t.dealt {
			if d.leg != leg || d.txn {
				continue
			}
			calls := roaring.AndNot(&d.seqs, over)
			live.Or(calls)
			calls.And(reached)
			handedOver.Or(calls)
		}
	}
	live.AndNot(&c.unconfirmed)
	live.AndNot(&c.never)
	handedOver.And(live)
	// A call whose lease ended without a receipt is no longer live. A new hand-over begins a lease.
	s.overdue.And(handedOver)
	left := s.began[:0]
	for _, b := range s.began {
		b.seqs.And(handedOver)
		switch {
		case b.seqs.IsEmpty():
			continue
		case now >= b.at+callLease.Milliseconds():
			s.overdue.Or(b.seqs)
		default:
			left = append(left, b)
		}
		handedOver.AndNot(b.seqs)
	}
	s.began = left
	if handedOver.AndNot(&s.overdue); !handedOver.IsEmpty() {
		s.began = append(s.began, callsBegan{min(now, c.handover), handedOver})
	}
	live.AndNot(&s.overdue)
	s.live, s.stale = int64(live.GetCardinality()), false
}
