package analyticstest

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// start is the time at which all histories begin: shortly before the end of a month, so that some events are in the
// month after the campaign's.
var start = time.Date(2026, 3, 31, 22, 40, 0, 0, time.UTC)

// Topics of the generated events and of the generated deals.
var (
	Topic     = analytics.TopicID{1, 2, 3, 4}
	DealTopic = analytics.TopicID{5, 6}
)

// recipients returns seqs for a campaign: consecutive ones, the boundaries of blocks and parts, and random ones.
func recipients(rng *rand.Rand, n int) []uint32 {
	seen := map[uint32]bool{}
	var out []uint32
	add := func(seq uint32) {
		if !seen[seq] {
			seen[seq] = true
			out = append(out, seq)
		}
	}
	for _, seq := range []uint32{0, 1, 4999, 5000, 65535, 65536, 999_999, schemas.MaxSeq} {
		add(seq)
	}
	first := rng.Uint32N(20_000)
	for len(out) < n {
		if rng.IntN(4) == 0 {
			add(rng.Uint32N(1_000_000))
		} else {
			add(first + rng.Uint32N(uint32(2*n)))
		}
	}
	return out
}

// oddNumber is an invalid phone number, and oddRef a client's reference. They have characters that a store must not
// interpret.
const oddNumber = "0039 333/12-'ab\\'"

func oddRef(seq uint32) string { return fmt.Sprintf("order %d ✓ 'it''s' \\t \t{x}\n", seq) }

// person holds the fields of a recipient that never change.
type person struct {
	to, country, ref string
	contact          uint64
	variant          uint8
	message          schemas.ID
}

func makePerson(rng *rand.Rand, campaign *analytics.Campaign, seq uint32) person {
	countries := []string{"IT", "DE", "FR", "BR", "IN"}
	p := person{
		country: countries[rng.IntN(len(countries))],
		contact: rng.Uint64() >> uint(rng.IntN(60)),
		variant: uint8(rng.IntN(3)),
		to:      fmt.Sprintf("+3933%08d", seq),
	}
	switch rng.IntN(20) {
	case 0, 1, 2, 3:
		p.to = "+393330000000" // several recipients have this number
	case 4:
		p.to = oddNumber
	}
	switch rng.IntN(8) {
	case 0:
		p.ref = "shared-ref"
	case 1:
		p.ref = oddRef(seq)
	}
	number, err := schemas.CampaignNumber(campaign.ID)
	if err == nil {
		// The id is valid except for its signature, which stores do not check.
		id := schemas.ID{}
		for i := range 6 {
			id[i] = byte(number >> (40 - 8*i))
		}
		id[6], id[7], id[8] = byte(seq>>16), byte(seq>>8), byte(seq)
		for i := 10; i < 16; i++ {
			id[i] = byte(rng.Uint32())
		}
		p.message = id
	}
	return p
}

// codesOf lists codes for each kind. One of them is not in the table of codes.
var codesOf = map[schemas.Kind][]schemas.Code{
	schemas.KindAmbiguous:   {schemas.CodeTimeout, schemas.CodeCrash, schemas.CodeLost},
	schemas.KindReturned:    {schemas.CodePaused, schemas.CodeWindow, schemas.CodeThrottled},
	schemas.KindNotSent:     {schemas.CodeInvalidNumber, schemas.CodeTooLong, 0},
	schemas.KindSkipped:     {schemas.CodeOptedOut, schemas.CodeCancelled},
	schemas.KindSent:        {0},
	schemas.KindBuffered:    {schemas.CodeEnroute},
	schemas.KindBounced:     {schemas.CodeHandsetOff, schemas.CodeAbsentSubscriber, schemas.CodeProviderError},
	schemas.KindUnconfirmed: {schemas.CodeNoDLR},
	schemas.KindUndelivered: {schemas.CodeBarred, schemas.CodeProviderError, 9999},
	schemas.KindDelivered:   {schemas.CodeDelivered, 0},
	schemas.KindRead:        {schemas.CodeRead},
	schemas.KindClicked:     {0, schemas.CodeBot, schemas.CodePreview, schemas.CodeUnsure},
	schemas.KindReplied:     {0},
	schemas.KindOptedOut:    {0},
}

// History generates the events of n recipients of a campaign, in no order: all kinds, several tries and legs, receipts
// without the fields that only the message has, facts of recipients that were never sent to, and contradictory events.
// All events of one try describe the same message, as the expander makes one message per try.
func History(rng *rand.Rand, campaign *analytics.Campaign, n int) []analytics.Event {
	var out []analytics.Event
	for _, seq := range recipients(rng, n) {
		who := makePerson(rng, campaign, seq)
		// The events of one recipient have different times, so that it is defined which of two events with the same
		// precedence is the later one.
		clock := start.Add(time.Duration(rng.IntN(3_600_000)) * time.Millisecond)
		messages := map[uint8]message{}
		for range 1 + rng.IntN(7) {
			clock = clock.Add(time.Duration(1+rng.IntN(900_000)) * time.Millisecond)
			out = append(out, happen(rng, campaign, seq, who, messages, clock))
		}
	}
	return out
}

// message holds the fields that the events of one try share.
type message struct {
	leg, segments uint8
	channel       schemas.Channel
	route, sender string
	price         uint32
}

func makeMessage(rng *rand.Rand) message {
	return message{
		leg: uint8(1 + rng.IntN(2)), channel: schemas.Channel(1 + rng.IntN(2)), route: []string{"sim", "smpp-1", "direct"}[rng.IntN(3)],
		sender: []string{"FANFARE", "ACME", "+39333999"}[rng.IntN(3)], segments: uint8(rng.IntN(4)), price: []uint32{50_000, 35_500, 4_000_000_000}[rng.IntN(3)],
	}
}

func happen(rng *rand.Rand, campaign *analytics.Campaign, seq uint32, who person, messages map[uint8]message, at time.Time) analytics.Event {
	kind := schemas.Kinds[rng.IntN(len(schemas.Kinds))].Kind
	codes := codesOf[kind]
	e := analytics.Event{
		Campaign: campaign, Seq: seq, Kind: kind, Code: codes[rng.IntN(len(codes))], TimeMS: at.UnixMilli(), MessageID: who.message,
		Try: uint8(1 + rng.IntN(3)),
	}
	if rng.IntN(50) == 0 {
		e.Try = schemas.MaxTry
	}
	m, ok := messages[e.Try]
	if !ok {
		m = makeMessage(rng)
		messages[e.Try] = m
	}
	e.Leg = m.leg
	switch info, _ := schemas.LookupKind(kind); {
	case info.Class == schemas.ClassFact:
		if kind == schemas.KindClicked {
			e.LinkID = []string{"a", "b", "lnk_9"}[rng.IntN(3)]
		}
		return e
	case info.Class >= schemas.ClassNegative, kind == schemas.KindBuffered, kind == schemas.KindBounced:
		// An event from a receipt.
		e.Route, e.ProviderID, e.RawCode = "sim", fmt.Sprintf("p-%d-%d", seq, e.Try), []string{"DELIVRD", "000", "err:012", ""}[rng.IntN(4)]
		if rng.IntN(2) == 0 {
			e.To = who.to
		}
		return e
	}
	if kind != schemas.KindSent && rng.IntN(5) == 0 {
		return e // the scheduler writes it, and does not have the message
	}
	e.To, e.Country, e.CustomerRef, e.ContactID, e.Variant = who.to, who.country, who.ref, who.contact, who.variant
	e.Channel, e.Route, e.Sender, e.Segments, e.PriceMicros, e.Currency = m.channel, m.route, m.sender, m.segments, m.price, "EUR"
	if kind == schemas.KindSent && rng.IntN(2) == 0 {
		e.ProviderID = fmt.Sprintf("p-%d-%d", seq, e.Try)
	}
	return e
}

// Deals generates the deals of a campaign, in no order. They deal recipients of the events and other recipients, at
// several tries, some twice.
func Deals(rng *rand.Rand, campaign *analytics.Campaign, events []analytics.Event) []analytics.Deal {
	var out []analytics.Deal
	for range 3 + rng.IntN(8) {
		d := analytics.Deal{
			Campaign: campaign, Number: uint64(1 + rng.IntN(6)), TimeMS: start.UnixMilli() + rng.Int64N(3_600_000),
			Try: uint8(1 + rng.IntN(3)), Leg: uint8(1 + rng.IntN(2)), Cancel: rng.IntN(5) == 0, Members: roaring.New(),
		}
		if rng.IntN(2) == 0 {
			first := rng.Uint64N(70_000)
			d.Members.AddRange(first, first+1+rng.Uint64N(40))
		}
		for range 1 + rng.IntN(30) {
			d.Members.Add(events[rng.IntN(len(events))].Seq)
		}
		out = append(out, d)
		if rng.IntN(3) == 0 {
			out = append(out, d)
		}
	}
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// DealBatches puts each deal into a batch of its own, and repeats some of the batches later.
func DealBatches(rng *rand.Rand, deals []analytics.Deal, partition int32) []analytics.Batch {
	var out []analytics.Batch
	for i, d := range deals {
		d.Offset = int64(i)
		out = append(out, analytics.Batch{Topic: DealTopic, Partition: partition, First: d.Offset, End: d.Offset + 1, Deals: []analytics.Deal{d}})
		if rng.IntN(3) == 0 {
			out = append(out, out[rng.IntN(len(out))])
		}
	}
	return out
}

// interleave merges two lists of batches at random and keeps the order of each.
func interleave(rng *rand.Rand, a, b []analytics.Batch) []analytics.Batch {
	out := make([]analytics.Batch, 0, len(a)+len(b))
	for len(a)+len(b) > 0 {
		if rng.IntN(len(a)+len(b)) < len(a) {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return out
}

// Batches shuffles events, duplicates some, distributes them over partitions at offsets with gaps, and cuts each
// partition into batches. It interleaves the batches of the partitions and repeats some of them later.
func Batches(rng *rand.Rand, events []analytics.Event, partitions, most int) []analytics.Batch {
	all := make([]analytics.Event, 0, len(events)*5/4)
	for _, e := range events {
		all = append(all, e)
		for rng.IntN(5) == 0 {
			all = append(all, e)
		}
	}
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })

	queues := make([][]analytics.Batch, partitions)
	offsets := make([]int64, partitions)
	for len(all) > 0 {
		p := rng.IntN(partitions)
		n := min(len(all), 1+rng.IntN(most))
		b := analytics.Batch{Topic: Topic, Partition: int32(p), First: offsets[p], Events: all[:n:n]}
		all = all[n:]
		for i := range b.Events {
			offsets[p] += int64(rng.IntN(2))
			b.Events[i].Offset = offsets[p]
			offsets[p]++
		}
		offsets[p] += int64(rng.IntN(3))
		b.End = offsets[p]
		queues[p] = append(queues[p], b)
	}
	var out []analytics.Batch
	for {
		var left []int
		for p := range queues {
			if len(queues[p]) > 0 {
				left = append(left, p)
			}
		}
		if len(left) == 0 {
			return out
		}
		p := left[rng.IntN(len(left))]
		out = append(out, queues[p][0])
		queues[p] = queues[p][1:]
		if rng.IntN(4) == 0 {
			out = append(out, out[rng.IntN(len(out))])
		}
	}
}
