package scheduler

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// deliveries are the encoded events of a million messages as a partition holds them: sent, buffered, delivered, in
// rough order.
func deliveries(tb testing.TB) [][]byte {
	tb.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	var out [][]byte
	for from := uint32(0); from < 1_000_000; from += 1000 {
		for _, kind := range []schemas.Kind{sentKind, schemas.KindBuffered, deliveredKind} {
			for _, i := range rng.Perm(1000) {
				b, err := proto.Marshal(&fanfarev1.Delivery{
					Tenant: testTenant, CampaignId: "camp_10001", CampaignNumber: 10001, Seq: from + uint32(i), Try: 1, Leg: 1, Kind: kind,
					Code: schemas.CodeAwaitingDLR, TimeMs: 1898848800000, Channel: schemas.ChannelSMS, Route: "sim", Sender: "FANFARE",
					To: "+393401234567", Country: "IT", Segments: 2, PriceMicros: 50_000, Currency: "EUR", ProviderId: "0123456789abcdef",
					ContactId: 123456, MessageId: make([]byte, 16), SubmissionId: make([]byte, 16),
				})
				if err != nil {
					tb.Fatal(err)
				}
				out = append(out, b)
			}
		}
	}
	return out
}

// BenchmarkTakeOver measures how fast a successor reads from the broker the deliveries of a million messages that no
// sets cover.
func BenchmarkTakeOver(b *testing.B) {
	p := newKafkaEnvTB(b)
	p.control.confirm(10001, 1_000_000, func(r *fanfarev1.Campaign) {
		r.State, r.FreezeId, r.Total = schemas.StatePaused, "freeze10001", 1_000_000
	})
	in := deliveries(b)
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
		p.readAll(p.cluster.Names.Cursors(), func(r *kgo.Record) { // the next leader must find no sets either
			cl.Produce(b.Context(), &kgo.Record{Topic: r.Topic, Key: r.Key}, nil)
		})
		if err := cl.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(len(in)*b.N)/b.Elapsed().Seconds(), "events/s")
}
