package analyticstest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
)

// Traffic makes the events of campaigns as they come when they are sent at full speed, for benchmarks: recipients in order, each
// with a hand-over and, a while later, a receipt (94 % delivered, 6 % not, by a few codes), numbers of 40 countries.
type Traffic struct {
	Campaigns []*analytics.Campaign
	// Size is the number of recipients of each campaign.
	Size int
	// Lag is how many messages after the hand-over the receipt comes.
	Lag int
	// Partitions of the topic.
	Partitions int

	rng     *rand.Rand
	next    int // message to be handed over, counted over all campaigns
	offsets []int64
	recent  []analytics.Event
}

// Messages is how many messages there are in all.
func (t *Traffic) Messages() int { return len(t.Campaigns) * t.Size }

// Next returns the next n messages' hand-overs and the receipts due with them, about 2n events, in one batch for each partition; nil at the end.
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
	// By message, as the topic's key does it.
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
	// Campaigns take turns in chunks, as they are dealt.
	const chunk = 250
	c := t.Campaigns[i/chunk%len(t.Campaigns)]
	seq := uint32(i/chunk/len(t.Campaigns)*chunk + i%chunk)
	number, _ := schemas.CampaignNumber(c.ID)
	e := analytics.Event{
		Campaign: c, Seq: seq, Kind: fanfarev1.Kind_KIND_SENT, Try: 1, Leg: 1, TimeMS: start.UnixMilli() + int64(i/100),
		Channel: fanfarev1.Channel_CHANNEL_SMS, Route: "sim", Sender: "FANFARE", Country: trafficCountries[seq/2500%40], Variant: 0,
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
		Campaign: of.Campaign, Seq: of.Seq, Kind: fanfarev1.Kind_KIND_DELIVERED, Code: fanfarev1.Code_CODE_DELIVERED, RawCode: "000", Try: 1, Leg: 1,
		TimeMS: of.TimeMS + int64(t.Lag/100) + t.rng.Int64N(300), Route: of.Route, Channel: of.Channel, To: of.To, ProviderID: of.ProviderID, MessageID: of.MessageID,
	}
	if t.rng.IntN(100) < 6 {
		e.Kind = fanfarev1.Kind_KIND_UNDELIVERED
		e.Code = []fanfarev1.Code{fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, fanfarev1.Code_CODE_UNKNOWN_SUBSCRIBER, fanfarev1.Code_CODE_EXPIRED}[t.rng.IntN(3)]
		e.RawCode = "003"
	}
	return e
}

// NewTraffic returns the traffic of a number of campaigns of a tenant, of the given size each.
func NewTraffic(campaigns, size int) *Traffic {
	t := &Traffic{Size: size, Lag: 30_000, Partitions: 6}
	for i := range campaigns {
		t.Campaigns = append(t.Campaigns, NewCampaign("tn_bench", uint64(10_001+i), time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)))
	}
	return t
}
