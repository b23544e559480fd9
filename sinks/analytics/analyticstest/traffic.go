package analyticstest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// Traffic generates the events of campaigns that are sent at full speed, for benchmarks: recipients in order, each with
// a hand-over and later a receipt (94 % delivered, 6 % undelivered with a few codes), in 40 countries.
type Traffic struct {
	Campaigns []*analytics.Campaign
	// Size is the number of recipients of each campaign.
	Size int
	// Lag is how many messages are handed over between a message and its receipt.
	Lag int
	// Partitions of the topic.
	Partitions int

	rng     *rand.Rand
	next    int // number of the next message, counted over all campaigns
	offsets []int64
	recent  []analytics.Event
}

// Messages returns the number of messages of all campaigns.
func (t *Traffic) Messages() int { return len(t.Campaigns) * t.Size }

// Next returns the hand-overs of the next n messages and the receipts that are due, about 2n events, as one batch per
// partition. It returns nil at the end.
func (t *Traffic) Next(n int) []analytics.Batch {
	if t.rng == nil {
		t.rng = rand.New(rand.NewPCG(1, 2))
		t.offsets = make([]int64, t.Partitions)
	}
	out := make([]analytics.Batch, t.Partitions)
	for p := range out {
		out[p] = analytics.Batch{Topic: Topic, Partition: int32(p), First: t.offsets[p], End: t.offsets[p]}
	}
	done := t.next >= t.Messages()+t.Lag
	for range n {
		if t.next < t.Messages() {
			e := t.handover(t.next)
			t.put(out, e)
			t.recent = append(t.recent, e)
		}
		if i := t.next - t.Lag; i >= 0 && i < t.Messages() {
			t.put(out, t.receipt(t.recent[0]))
			t.recent = t.recent[1:]
		}
		t.next++
	}
	if done {
		return nil
	}
	return out
}

func (t *Traffic) put(out []analytics.Batch, e analytics.Event) {
	// The partition depends on the message, as the topic's key does.
	p := int(binary.BigEndian.Uint16(e.MessageID[10:])) % t.Partitions
	e.Offset = t.offsets[p]
	t.offsets[p]++
	out[p].Events = append(out[p].Events, e)
	out[p].End = t.offsets[p]
}

var trafficCountries = func() (out [40]string) {
	for i := range out {
		out[i] = string([]byte{byte('A' + i%26), byte('A' + i/2)})
	}
	return out
}()

func (t *Traffic) handover(i int) analytics.Event {
	// The campaigns alternate in chunks, as they are dealt.
	const chunk = 250
	c := t.Campaigns[i/chunk%len(t.Campaigns)]
	seq := uint32(i/chunk/len(t.Campaigns)*chunk + i%chunk)
	number, _ := schemas.CampaignNumber(c.ID)
	e := analytics.Event{
		Campaign: c, Seq: seq, Kind: schemas.KindSent, Try: 1, Leg: 1, TimeMS: start.UnixMilli() + int64(i/100),
		Channel: schemas.ChannelSMS, Route: "sim", Sender: "FANFARE", Country: trafficCountries[seq/2500%40], Variant: 0,
		Segments: 1, PriceMicros: 50_000, Currency: "EUR", ContactID: uint64(7_000_000 + i),
		To: fmt.Sprintf("+39%010d", t.rng.Uint64N(1e10)), ProviderID: fmt.Sprintf("sim-%016x", t.rng.Uint64()),
	}
	binary.BigEndian.PutUint64(e.MessageID[:], number<<16|uint64(seq>>8))
	e.MessageID[8] = byte(seq)
	tag := t.rng.Uint64()
	binary.BigEndian.PutUint16(e.MessageID[10:], uint16(tag))
	binary.BigEndian.PutUint32(e.MessageID[12:], uint32(tag>>16))
	return e
}

func (t *Traffic) receipt(of analytics.Event) analytics.Event {
	e := analytics.Event{
		Campaign: of.Campaign, Seq: of.Seq, Kind: schemas.KindDelivered, Code: schemas.CodeDelivered, RawCode: "000", Try: 1, Leg: 1,
		TimeMS: of.TimeMS + int64(t.Lag/100) + t.rng.Int64N(300), Route: of.Route, Channel: of.Channel, To: of.To, ProviderID: of.ProviderID, MessageID: of.MessageID,
	}
	if t.rng.IntN(100) < 6 {
		e.Kind = schemas.KindUndelivered
		e.Code = []schemas.Code{schemas.CodeAbsentSubscriber, schemas.CodeUnknownSubscriber, schemas.CodeExpired}[t.rng.IntN(3)]
		e.RawCode = "003"
	}
	return e
}

// NewTraffic returns the traffic of campaigns of one tenant with the given size each.
func NewTraffic(campaigns, size int) *Traffic {
	t := &Traffic{Size: size, Lag: 30_000, Partitions: 6}
	for i := range campaigns {
		t.Campaigns = append(t.Campaigns, NewCampaign("tn_bench", uint64(10_001+i), time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)))
	}
	return t
}
