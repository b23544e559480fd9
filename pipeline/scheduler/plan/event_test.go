package plan

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

func fullDelivery(seq uint32) *fanfarev1.Delivery {
	return &fanfarev1.Delivery{
		Tenant: testTenant, CampaignId: "camp_10001", CampaignNumber: 10001, Seq: seq, Try: 1, Leg: 1, Kind: sentKind,
		Code: schemas.CodeAwaitingDLR, TimeMs: 1898848800000, Channel: schemas.ChannelSMS, Route: "sim", Sender: "FANFARE",
		To: "+393401234567", Country: "IT", Segments: 2, PriceMicros: 50_000, Currency: "EUR", ProviderId: "0123456789abcdef",
		ContactId: 123456, MessageId: make([]byte, 16), SubmissionId: make([]byte, 16),
	}
}

// TestDecode: the hand-written decoder reads the same values as the generated code.
func TestDecode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := fullDelivery(rapid.Uint32().Draw(t, "seq"))
		d.CampaignNumber = rapid.Uint64().Draw(t, "number")
		d.Try, d.Leg = rapid.Uint32Range(0, 300).Draw(t, "try"), rapid.Uint32Range(0, 9).Draw(t, "leg")
		d.Kind, d.Code = schemas.Kind(rapid.Int32Range(0, 130).Draw(t, "kind")), schemas.Code(rapid.Int32Range(0, 600).Draw(t, "code"))
		d.TimeMs, d.AgainAtMs = rapid.Int64().Draw(t, "time"), rapid.Int64().Draw(t, "again")
		d.Segments, d.PriceMicros = rapid.Uint32Range(0, 9).Draw(t, "segments"), rapid.Uint64Range(0, 1<<40).Draw(t, "price")
		var got Event
		if err := DecodeDelivery(marshal(d), &got); err != nil {
			t.Fatal(err)
		}
		want := Event{
			Campaign: d.GetCampaignNumber(), Seq: d.GetSeq(), Try: d.GetTry(), Leg: max(d.GetLeg(), 1), Kind: d.GetKind(), Code: d.GetCode(), TimeMs: d.GetTimeMs(),
			AgainMs: d.GetAgainAtMs(), PriceMicros: d.GetPriceMicros() * uint64(max(d.GetSegments(), 1)), Tenant: []byte(d.GetTenant()), CampaignID: []byte(d.GetCampaignId()),
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(Event{})); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestDecodeMessage(t *testing.T) {
	m := &fanfarev1.Message{
		Tenant: testTenant, CampaignId: "camp_10009", CampaignNumber: 10009, CampaignVersion: 7, Seq: 3, Try: 2, Leg: 1, Route: "sim", To: "+393401234567",
		Body: &fanfarev1.Message_Text{Text: &fanfarev1.Text{Body: "hello"}}, NotAfterMs: 1898848800000,
	}
	var got Event
	if err := DecodeMessage(marshal(m), &got); err != nil {
		t.Fatal(err)
	}
	want := Event{Campaign: 10009, Seq: 3, Try: 2, Leg: 1, NotAfterMs: 1898848800000, Tenant: []byte(testTenant), CampaignID: []byte("camp_10009")}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Event{})); diff != "" {
		t.Fatal(diff)
	}
}

// FuzzDecode: the hand-written decoder reads arbitrary bytes as the generated code does, or returns an error.
func FuzzDecode(f *testing.F) {
	f.Add(marshal(fullDelivery(7)))
	f.Add([]byte{0xff})
	f.Add([]byte{0x08, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Event
		err := DecodeDelivery(b, &e)
		var d fanfarev1.Delivery
		if proto.Unmarshal(b, &d) == nil && err == nil && (e.Seq != d.GetSeq() || e.Campaign != d.GetCampaignNumber() || e.Kind != d.GetKind()) {
			t.Errorf("read %+v, want %v", e, &d)
		}
		if err := DecodeMessage(b, &e); err == nil && e.Leg == 0 {
			t.Error("a message without a leg")
		}
	})
}

func TestNextAbsent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := roaring.New()
		for range rapid.IntRange(0, 4).Draw(t, "ranges") {
			from := rapid.Uint32Range(0, 200_000).Draw(t, "from")
			b.AddRange(uint64(from), uint64(from+rapid.Uint32Range(1, 140_000).Draw(t, "n")))
		}
		from, to := rapid.Uint32Range(0, 250_000).Draw(t, "at"), rapid.Uint32Range(0, 250_000).Draw(t, "to")
		absent, present := max(to, from), to // for an empty range, absent is the greater and present is to
		for at := from; at < to; at++ {
			if b.Contains(at) && present == to {
				present = at
			}
			if !b.Contains(at) && absent == to {
				absent = at
			}
		}
		if got := nextAbsent(b, from, to); got != absent {
			t.Errorf("next absent of [%d, %d): %d, want %d", from, to, got, absent)
		}
		if got := nextPresent(b, from, to); got != present {
			t.Errorf("next present of [%d, %d): %d, want %d", from, to, got, present)
		}
	})
}

// million is a campaign whose recipients are all dealt.
func million(tb testing.TB) *Planner {
	tb.Helper()
	w := newEnv(1)
	w.addRoute("sim", 1<<30)
	w.addTenant(testTenant, 0, 1)
	w.addCampaign(10001, testTenant, 1_000_000, 5000, smsLeg(3))
	w.serveStore()
	n := 0
	for range 10 {
		n += recipients(w.planner.Deals(w.now))
	}
	if n != 1_000_000 {
		tb.Fatalf("dealt %d", n)
	}
	return w.planner
}

// records are the encoded deliveries of a million messages as a partition holds them: sent, then delivered, in rough
// order.
func records() [][]byte {
	rng := rand.New(rand.NewPCG(1, 1))
	var out [][]byte
	for from := uint32(0); from < 1_000_000; from += 1000 {
		for _, kind := range []schemas.Kind{sentKind, schemas.KindBuffered, deliveredKind} {
			for _, i := range rng.Perm(1000) {
				d := fullDelivery(from + uint32(i))
				d.Kind = kind
				out = append(out, marshal(d))
			}
		}
	}
	return out
}

// BenchmarkObserve measures the whole path of an event: decode it and add it to the sets. A message has two or three
// events.
func BenchmarkObserve(b *testing.B) {
	in := records()
	k := million(b)
	var e Event
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i == len(in) {
			b.StopTimer()
			k, i = million(b), 0
			b.StartTimer()
		}
		if err := DecodeDelivery(in[i], &e); err != nil {
			b.Fatal(err)
		}
		k.Observe(&e)
		i++
	}
	b.ReportMetric(1e9/(float64(b.Elapsed().Nanoseconds())/float64(b.N)), "events/s")
}

func BenchmarkDecode(b *testing.B) {
	in := marshal(fullDelivery(123456))
	var e Event
	b.ReportAllocs()
	for b.Loop() {
		if err := DecodeDelivery(in, &e); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDeals deals a million recipients in chunks.
func BenchmarkDeals(b *testing.B) {
	for b.Loop() {
		million(b)
	}
	b.ReportMetric(1e6*float64(b.N)/b.Elapsed().Seconds(), "recipients/s")
}

// BenchmarkIdleDeals measures a round with a thousand campaigns, none of which has room.
func BenchmarkIdleDeals(b *testing.B) {
	w := newEnv(1)
	w.addRoute("sim", 1000)
	for i := range uint64(1000) {
		tenant := schemas.CampaignID(i / 10)
		w.addTenant(tenant, 0, 1)
		w.addCampaign(10001+i, tenant, 1000, 5000, smsLeg(3))
	}
	w.serveStore()
	w.planner.Deals(w.now)
	b.ReportAllocs()
	for b.Loop() {
		if len(w.planner.Deals(w.now)) > 0 || len(w.planner.Ends(w.now, 100)) > 0 || len(w.planner.Moves(w.now)) > 0 {
			b.Fatal("dealt")
		}
	}
}

// BenchmarkSnapshot writes the sets of a million recipients.
func BenchmarkSnapshot(b *testing.B) {
	k := million(b)
	var e Event
	for _, r := range records() {
		if DecodeDelivery(r, &e) == nil {
			k.Observe(&e)
		}
	}
	c := k.campaigns[10001]
	var size int
	for b.Loop() {
		parts, _ := c.Snapshot()
		size = 0
		for _, p := range parts {
			size += len(marshal(p))
		}
	}
	b.ReportMetric(float64(size), "bytes")
}

// BenchmarkIdleStep measures a whole round of decisions with 10,000 open campaigns of 100 tenants on 10 routes that
// have nothing to do: scheduled, paused, in flight, and awaiting receipts. A round is made every 10 ms, so 1 % of a
// core is 100 µs.
func BenchmarkIdleStep(b *testing.B) {
	w := newEnv(1)
	const long = 10_000 * time.Hour // a round takes 10 ms, and millions of rounds are measured
	for i := range 10 {
		w.addRoute(fmt.Sprint("r", i), 1<<20)
		w.routes[i].ReceiptWindowMs = long.Milliseconds()
		w.planner.setRoute(w.routes[i])
	}
	for i := range uint64(10_000) {
		tenant := fmt.Sprint("tn_", i%100)
		w.addTenant(tenant, 0, 1)
		leg := smsLeg(3)
		leg.Route = fmt.Sprint("r", i%10)
		c := w.addCampaign(10001+i, tenant, 100, 5000, leg)
		w.set(c, func(r *fanfarev1.Campaign) {
			r.ValidityMs = long.Milliseconds()
			switch i % 4 {
			case 0:
				r.State, r.ScheduledMs = schemas.StateScheduled, ms(w.now.Add(long))
			case 1:
				r.State = schemas.StatePaused
			}
		})
	}
	round := func() (work int) {
		moves, requests := w.planner.Moves(w.now), w.planner.AudienceRequests(w.now)
		todo, _ := w.planner.UnsavedCampaigns()
		for _, c := range todo {
			c.Snapshot()
		}
		ends, deals := w.planner.Ends(w.now, 1000), w.planner.Deals(w.now)
		for _, d := range deals {
			if n := d.Campaign.number; n%4 == 0 { // 10001+i: every fourth is sent and awaits its receipts
				d.members().Iterate(func(seq uint32) bool {
					w.planner.Observe(&Event{Campaign: n, Seq: seq, Try: 1, Leg: 1, Kind: sentKind, TimeMs: ms(w.now)})
					return true
				})
			}
		}
		return len(moves) + len(requests) + len(ends) + len(deals)
	}
	w.serveStore()
	for range 100 {
		w.serveStore()
		round()
		w.now = w.now.Add(10 * time.Millisecond)
	}
	if n := round(); n > 0 {
		b.Fatalf("%d things to do", n)
	}
	b.ReportAllocs()
	for b.Loop() {
		w.now = w.now.Add(10 * time.Millisecond)
		if n := round(); n > 0 {
			b.Fatalf("%d things to do", n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/100, "%core")
}
