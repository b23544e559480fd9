package analyticstest

import (
	"fmt"
	"math/rand/v2"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
)

// start of all histories: shortly before the end of a month, so that events fall into another month than their campaign.
var start = time.Date(2026, 3, 31, 22, 40, 0, 0, time.UTC)

// Topic is the topic that made-up batches come from.
var Topic = analytics.TopicID{1, 2, 3, 4}

// recipients of a made-up campaign: neighbours, edges of everything that is cut into pieces, and some anywhere.
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

// oddNumber is what an invalid number may look like, and oddRef a client's reference: whatever they are, they are only data.
const oddNumber = "0039 333/12-'ab\\'"

func oddRef(seq uint32) string { return fmt.Sprintf("order %d ✓ 'it''s' \\t \t{x}\n", seq) }

// person is what does not change about a recipient.
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
		p.to = "+393330000000" // a number that many share
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
		// The fields of an id without its signature, which no store looks at.
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

// codesOf gives codes that occur with a kind, one of them unknown to the table.
var codesOf = map[fanfarev1.Kind][]fanfarev1.Code{
	fanfarev1.Kind_KIND_AMBIGUOUS:   {fanfarev1.Code_CODE_TIMEOUT, fanfarev1.Code_CODE_CRASH, fanfarev1.Code_CODE_LOST},
	fanfarev1.Kind_KIND_RETURNED:    {fanfarev1.Code_CODE_PAUSED, fanfarev1.Code_CODE_WINDOW, fanfarev1.Code_CODE_THROTTLED},
	fanfarev1.Kind_KIND_NOT_SENT:    {fanfarev1.Code_CODE_INVALID_NUMBER, fanfarev1.Code_CODE_TOO_LONG, 0},
	fanfarev1.Kind_KIND_SKIPPED:     {fanfarev1.Code_CODE_OPTED_OUT, fanfarev1.Code_CODE_CANCELLED},
	fanfarev1.Kind_KIND_SENT:        {0},
	fanfarev1.Kind_KIND_BUFFERED:    {fanfarev1.Code_CODE_ENROUTE},
	fanfarev1.Kind_KIND_BOUNCED:     {fanfarev1.Code_CODE_HANDSET_OFF, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER},
	fanfarev1.Kind_KIND_UNCONFIRMED: {fanfarev1.Code_CODE_NO_DLR},
	fanfarev1.Kind_KIND_UNDELIVERED: {fanfarev1.Code_CODE_BARRED, fanfarev1.Code_CODE_UNKNOWN_SUBSCRIBER, 9999},
	fanfarev1.Kind_KIND_DELIVERED:   {fanfarev1.Code_CODE_DELIVERED, 0},
	fanfarev1.Kind_KIND_READ:        {fanfarev1.Code_CODE_READ},
	fanfarev1.Kind_KIND_CLICKED:     {0, fanfarev1.Code_CODE_BOT},
	fanfarev1.Kind_KIND_REPLIED:     {0},
	fanfarev1.Kind_KIND_OPTED_OUT:   {0},
}

// History makes up everything that happens to n recipients of a campaign, in no order: all kinds, several tries and legs, events
// from receipts that lack what only the message knows, facts of people who were never sent to, and contradictions.
func History(rng *rand.Rand, campaign *analytics.Campaign, n int) []analytics.Event {
	var out []analytics.Event
	for _, seq := range recipients(rng, n) {
		who := makePerson(rng, campaign, seq)
		// Times differ between the events of one recipient: which of two with the same precedence stands is then not open.
		clock := start.Add(time.Duration(rng.IntN(3_600_000)) * time.Millisecond)
		for range 1 + rng.IntN(7) {
			clock = clock.Add(time.Duration(1+rng.IntN(900_000)) * time.Millisecond)
			out = append(out, happen(rng, campaign, seq, who, clock))
		}
	}
	return out
}

func happen(rng *rand.Rand, campaign *analytics.Campaign, seq uint32, who person, at time.Time) analytics.Event {
	kind := schemas.Kinds[rng.IntN(len(schemas.Kinds))].Kind
	codes := codesOf[kind]
	e := analytics.Event{
		Campaign: campaign, Seq: seq, Kind: kind, Code: codes[rng.IntN(len(codes))], TimeMS: at.UnixMilli(), MessageID: who.message,
		Try: uint8(1 + rng.IntN(3)), Leg: uint8(1 + rng.IntN(2)),
	}
	if rng.IntN(50) == 0 {
		e.Try = schemas.MaxTry
	}
	switch info, _ := schemas.LookupKind(kind); {
	case info.Class == schemas.ClassFact:
		if kind == fanfarev1.Kind_KIND_CLICKED {
			e.LinkID = []string{"a", "b", "lnk_9"}[rng.IntN(3)]
		}
		return e
	case info.Class >= schemas.ClassNegative, kind == fanfarev1.Kind_KIND_BUFFERED, kind == fanfarev1.Kind_KIND_BOUNCED:
		// From a receipt.
		e.Route, e.ProviderID, e.RawCode = "sim", fmt.Sprintf("p-%d-%d", seq, e.Try), []string{"DELIVRD", "000", "err:012", ""}[rng.IntN(4)]
		if rng.IntN(2) == 0 {
			e.To = who.to
		}
		return e
	}
	e.To, e.Country, e.CustomerRef, e.ContactID, e.Variant = who.to, who.country, who.ref, who.contact, who.variant
	e.Channel = fanfarev1.Channel(1 + rng.IntN(2))
	e.Route = []string{"sim", "smpp-1", "direct"}[rng.IntN(3)]
	e.Sender = []string{"FANFARE", "ACME", "+39333999"}[rng.IntN(3)]
	e.Segments = uint8(1 + rng.IntN(3))
	e.PriceMicros = []uint32{50_000, 35_500, 4_000_000_000}[rng.IntN(3)]
	e.Currency = "EUR"
	if kind == fanfarev1.Kind_KIND_SENT && rng.IntN(2) == 0 {
		e.ProviderID = fmt.Sprintf("p-%d-%d", seq, e.Try)
	}
	return e
}

// Batches shuffles events, doubles some of them, spreads them over partitions at offsets with gaps, cuts each partition into
// batches, and mixes the partitions' batches, some of which come again later.
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
