package analytics

import (
	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	"fanfare/schemas/billing"
)

// Sets has the recipients of one campaign in sets by their events. It answers questions that combine several properties
// of a recipient, such as a [Selection] or the cost of a recipient. No method modifies the bitmaps, and the caller must
// not modify them either, because a store may share them.
type Sets struct {
	Statuses []StatusSet
	Messages []MessageSet
}

// StatusSet has the recipients that ever reached a precedence at a try. Facts have try 0; a click has the link that was
// clicked.
type StatusSet struct {
	Precedence schemas.Precedence
	Try        uint8
	LinkID     string
	Members    *roaring.Bitmap
}

// MessageSet has the recipients with an event that describes a message ([Event.DescribesMessage]), by the kind of the
// event and the fields of the message.
type MessageSet struct {
	Kind        schemas.Kind
	Variant     uint8
	Channel     schemas.Channel
	Country     string
	Route       string
	Try, Leg    uint8
	Segments    uint8
	PriceMicros uint32
	Currency    string
	Members     *roaring.Bitmap
}

// Algebra returns the recipients that ever reached each precedence, at any try and over any link.
func (s *Sets) Algebra() Algebra {
	out := Algebra{}
	own := map[schemas.Precedence]bool{} // made here, so it may be modified
	for i := range s.Statuses {
		set := &s.Statuses[i]
		known := out[set.Precedence]
		switch {
		case known == nil:
			out[set.Precedence] = set.Members
		case own[set.Precedence]:
			known.Or(set.Members)
		default:
			out[set.Precedence], own[set.Precedence] = roaring.Or(known, set.Members), true
		}
	}
	return out
}

// Everybody returns the recipients of an audience of size total, and the recipients with events that are beyond it. The
// caller may modify the bitmap.
func (s *Sets) Everybody(total uint32) *roaring.Bitmap {
	out := roaring.New()
	out.AddRange(0, uint64(total))
	for i := range s.Statuses {
		out.Or(s.Statuses[i].Members)
	}
	return out
}

// Spent is what one recipient cost, by the rule of package billing, and the segments of its last message.
type Spent struct {
	// Segments is the number of segments of the message of the last try; 0 if no event describes it.
	Segments uint8
	// Micros is the sum of the billed hand-overs, in micro-units of the tenant's currency.
	Micros uint64
}

// Spent returns what each of the given recipients cost. A recipient without a message is not in the answer.
func (s *Sets) Spent(seqs *roaring.Bitmap) map[uint32]Spent {
	receipts := map[uint8]billing.Receipts{}
	for i := range s.Statuses {
		set := &s.Statuses[i]
		if !billing.IsReceipt(set.Precedence) {
			continue
		}
		if receipts[set.Try] == nil {
			receipts[set.Try] = billing.Receipts{}
		}
		receipts[set.Try][set.Precedence] = roaring.And(set.Members, seqs)
	}
	type message struct {
		try, segments uint8
		price         uint32
	}
	sent, doubt := map[message]*roaring.Bitmap{}, map[message]*roaring.Bitmap{}
	out, last := map[uint32]Spent{}, map[uint32]uint8{}
	for i := range s.Messages {
		set := &s.Messages[i]
		members := roaring.And(set.Members, seqs)
		if members.IsEmpty() {
			continue
		}
		for it := members.Iterator(); it.HasNext(); {
			if seq := it.Next(); last[seq] <= set.Try {
				spent := out[seq]
				spent.Segments, last[seq] = set.Segments, set.Try
				out[seq] = spent
			}
		}
		to := sent
		switch set.Kind {
		case schemas.KindSent:
		case schemas.KindAmbiguous:
			to = doubt
		default:
			continue
		}
		key := message{set.Try, set.Segments, set.PriceMicros}
		if to[key] == nil {
			to[key] = members
		} else {
			to[key].Or(members)
		}
	}
	verdicts := map[uint8]billing.Verdict{}
	bill := func(key message) {
		verdict, ok := verdicts[key.try]
		if !ok {
			verdict = receipts[key.try].Verdict()
			verdicts[key.try] = verdict
		}
		for it := verdict.Billed(sent[key], doubt[key]).Iterator(); it.HasNext(); {
			seq := it.Next()
			spent := out[seq]
			spent.Micros += billing.Amount(uint64(key.segments), uint64(key.price))
			out[seq] = spent
		}
	}
	for key := range sent {
		bill(key)
	}
	for key := range doubt {
		if sent[key] == nil {
			bill(key)
		}
	}
	return out
}
