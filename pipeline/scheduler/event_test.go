package scheduler

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

func fullDelivery(seq uint32) *fanfarev1.Delivery {
	return &fanfarev1.Delivery{
		Tenant: testTenant, CampaignId: "camp_10001", CampaignNumber: 10001, Seq: seq, Try: 1, Leg: 1, Kind: sentKind,
		Code: fanfarev1.Code_CODE_AWAITING_DLR, TimeMs: 1898848800000, Channel: fanfarev1.Channel_CHANNEL_SMS, Route: "sim", Sender: "FANFARE",
		To: "+393401234567", Country: "IT", Segments: 2, PriceMicros: 50_000, Currency: "EUR", ProviderId: "0123456789abcdef",
		ContactId: 123456, MessageId: make([]byte, 16), SubmissionId: make([]byte, 16),
	}
}

// TestDecode: what is read by hand is what the generated code reads.
func TestDecode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := fullDelivery(rapid.Uint32().Draw(t, "seq"))
		d.CampaignNumber = rapid.Uint64().Draw(t, "number")
		d.Try, d.Leg = rapid.Uint32Range(0, 300).Draw(t, "try"), rapid.Uint32Range(0, 9).Draw(t, "leg")
		d.Kind, d.Code = fanfarev1.Kind(rapid.Int32Range(0, 130).Draw(t, "kind")), fanfarev1.Code(rapid.Int32Range(0, 600).Draw(t, "code"))
		d.TimeMs, d.AgainAtMs = rapid.Int64().Draw(t, "time"), rapid.Int64().Draw(t, "again")
		d.Segments, d.PriceMicros = rapid.Uint32Range(0, 9).Draw(t, "segments"), rapid.Uint64Range(0, 1<<40).Draw(t, "price")
		var got event
		if err := decodeDelivery(marshal(d), &got); err != nil {
			t.Fatal(err)
		}
		want := event{
			campaign: d.GetCampaignNumber(), seq: d.GetSeq(), try: d.GetTry(), leg: max(d.GetLeg(), 1), kind: d.GetKind(), code: d.GetCode(), at: d.GetTimeMs(),
			again: d.GetAgainAtMs(), price: d.GetPriceMicros() * uint64(max(d.GetSegments(), 1)), tenant: []byte(d.GetTenant()), id: []byte(d.GetCampaignId()),
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(event{})); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestDecodeMessage(t *testing.T) {
	m := &fanfarev1.Message{
		Tenant: testTenant, CampaignId: "camp_10009", CampaignNumber: 10009, CampaignVersion: 7, Seq: 3, Try: 2, Leg: 1, Route: "sim", To: "+393401234567",
		Body: &fanfarev1.Message_Text{Text: &fanfarev1.Text{Body: "hello"}}, NotAfterMs: 1898848800000,
	}
	var got event
	if err := decodeMessage(marshal(m), &got); err != nil {
		t.Fatal(err)
	}
	want := event{campaign: 10009, seq: 3, try: 2, leg: 1, notAfter: 1898848800000, tenant: []byte(testTenant), id: []byte("camp_10009")}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(event{})); diff != "" {
		t.Fatal(diff)
	}
}

// FuzzDecode: bytes of strangers are read like the generated code reads them, or not at all.
func FuzzDecode(f *testing.F) {
	f.Add(marshal(fullDelivery(7)))
	f.Add([]byte{0xff})
	f.Add([]byte{0x08, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e event
		err := decodeDelivery(b, &e)
		var d fanfarev1.Delivery
		if proto.Unmarshal(b, &d) == nil && err == nil && (e.seq != d.GetSeq() || e.campaign != d.GetCampaignNumber() || e.kind != d.GetKind()) {
			t.Errorf("read %+v, want %v", e, &d)
		}
		if err := decodeMessage(b, &e); err == nil && e.leg == 0 {
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
		absent, present := max(to, from), to // of an empty range both are where it begins or ends
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
func million(tb testing.TB) *core {
	tb.Helper()
	w := newWorld(1)
	w.addRoute("sim", 1<<30)
	w.addTenant(testTenant, 0, 1)
	w.addCampaign(10001, testTenant, 1_000_000, 5000, smsLeg(3))
	w.serveStore()
	n := 0
	for range 10 {
		n += recipients(w.core.Deals(w.now))
	}
	if n != 1_000_000 {
		tb.Fatalf("dealt %d", n)
	}
	return w.core
}

// records are the encoded deliveries of a million messages as a partition holds them: sent, then delivered, in rough order.
func records() [][]byte {
	rng := rand.New(rand.NewPCG(1, 1))
	var out [][]byte
	for from := uint32(0); from < 1_000_000; from += 1000 {
		for _, kind := range []fanfarev1.Kind{sentKind, fanfarev1.Kind_KIND_BUFFERED, deliveredKind} {
			for _, i := range rng.Perm(1000) {
				d := fullDelivery(from + uint32(i))
				d.Kind = kind
				out = append(out, marshal(d))
			}
		}
	}
	return out
}

// BenchmarkObserve is the whole path of an event: decode, and into the sets. A message has two or three.
func BenchmarkObserve(b *testing.B) {
	in := records()
	k := million(b)
	var e event
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i == len(in) {
			b.StopTimer()
			k, i = million(b), 0
			b.StartTimer()
		}
		if err := decodeDelivery(in[i], &e); err != nil {
			b.Fatal(err)
		}
		k.observe(&e)
		i++
	}
	b.ReportMetric(1e9/(float64(b.Elapsed().Nanoseconds())/float64(b.N)), "events/s")
}

func BenchmarkDecode(b *testing.B) {
	in := marshal(fullDelivery(123456))
	var e event
	b.ReportAllocs()
	for b.Loop() {
		if err := decodeDelivery(in, &e); err != nil {
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

// BenchmarkIdleDeals is a round with a thousand campaigns of which none has room.
func BenchmarkIdleDeals(b *testing.B) {
	w := newWorld(1)
	w.addRoute("sim", 1000)
	for i := range uint64(1000) {
		tenant := schemas.CampaignID(i / 10)
		w.addTenant(tenant, 0, 1)
		w.addCampaign(10001+i, tenant, 1000, 5000, smsLeg(3))
	}
	w.serveStore()
	w.core.Deals(w.now)
	b.ReportAllocs()
	for b.Loop() {
		if len(w.core.Deals(w.now)) > 0 || len(w.core.Ends(w.now, 100)) > 0 || len(w.core.Moves(w.now)) > 0 {
			b.Fatal("dealt")
		}
	}
}

// BenchmarkSnapshot writes the sets of a million recipients.
func BenchmarkSnapshot(b *testing.B) {
	k := million(b)
	var e event
	for _, r := range records() {
		if decodeDelivery(r, &e) == nil {
			k.observe(&e)
		}
	}
	c := k.campaigns[10001]
	var size int
	for b.Loop() {
		parts, _ := c.snapshot()
		size = 0
		for _, p := range parts {
			size += len(marshal(p))
		}
	}
	b.ReportMetric(float64(size), "bytes")
}

// BenchmarkTakeOver is how fast a successor reads the deliveries of a million messages that no sets cover, by way of the broker.
func BenchmarkTakeOver(b *testing.B) {
	p := newPlantTB(b)
	p.plane.confirm(10001, 1_000_000, func(r *fanfarev1.Campaign) {
		r.State, r.FreezeId, r.Total = fanfarev1.State_STATE_PAUSED, "freeze10001", 1_000_000
	})
	in := records()
	cl := p.client(kgo.MaxBufferedRecords(100_000), kgo.ProducerLinger(5*time.Millisecond))
	for i, v := range in {
		cl.Produce(b.Context(), &kgo.Record{Topic: p.cluster.Names.Deliveries(), Key: []byte(fmt.Sprint(i)), Value: v}, nil)
	}
	if err := cl.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, _ := p.scheduler()
		ctx, cancel := context.WithCancel(b.Context())
		var g errgroup.Group
		g.Go(func() error { return s.lead(ctx) })
		p.eventually("leading", func() bool { return value(b, s.metrics.leading) == 1 })
		b.StopTimer()
		cancel()
		_ = g.Wait()
		p.readAll(p.cluster.Names.Cursors(), func(r *kgo.Record) { // the next one finds nothing either
			cl.Produce(b.Context(), &kgo.Record{Topic: r.Topic, Key: r.Key}, nil)
		})
		if err := cl.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(len(in)*b.N)/b.Elapsed().Seconds(), "events/s")
}
