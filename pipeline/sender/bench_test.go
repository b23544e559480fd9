package sender

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/ratelimit"
	"fanfare/pipeline/stream"
	"fanfare/pipeline/view"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/wire"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/carriertest"
)

// cpu returns the processor time that the process has used, its broker's included.
func cpu(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// unprotected is the baseline for the sender: a consumer that hands a batch of a window's size to the carrier, produces
// its outcomes, waits for them and commits. It decodes and encodes as the sender does.
func unprotected(p *processEnv, size, n int) time.Duration {
	names := p.cluster.Names
	cl, err := p.cluster.Named("unprotected").Client(kgo.ConsumerGroup(names.Group("unprotected")), kgo.ConsumeTopics(names.Messages("sim", schemas.LaneBulk)),
		kgo.DisableAutoCommit(), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.ProducerLinger(0))
	if err != nil {
		p.t.Fatal(err)
	}
	defer cl.Close()
	noop, writer := &carriertest.Noop{Batch: size}, newOutcomeEncoder(names, p.keys)
	var began time.Time
	for done := 0; done < n; {
		recs := cl.PollRecords(p.t.Context(), size).Records()
		if len(recs) == 0 {
			continue
		}
		if began.IsZero() {
			began = time.Now()
		}
		batch := make([]carrier.Outbound, 0, len(recs))
		msgs := make([]*fanfarev1.Message, 0, len(recs))
		ids := make([]schemas.ID, 0, len(recs))
		bufs := make([]wire.MessageBuf, len(recs))
		for i, r := range recs {
			id, err := identify(p.keys, r)
			if err != nil {
				p.t.Fatal(err)
			}
			m, err := decode(id, "sim", r, &bufs[i])
			if err != nil {
				p.t.Fatal(err)
			}
			msgs, ids, batch = append(msgs, m), append(ids, id), append(batch, outbound(m, id, time.Time{}))
		}
		var wg sync.WaitGroup
		wg.Add(len(recs))
		out := make([]kgo.Record, len(recs))
		if err := noop.Send(p.t.Context(), batch, func(i int, r carrier.Result) {
			now := time.Now()
			v := classify(r, msgs[i], nil, now)
			writer.outcome(&out[i], nil, recs[i], msgs[i], ids[i], &v, now)
			cl.Produce(p.t.Context(), &out[i], func(_ *kgo.Record, err error) {
				if err != nil {
					p.t.Error(err)
				}
				wg.Done()
			})
		}); err != nil {
			p.t.Fatal(err)
		}
		wg.Wait()
		if err := cl.CommitRecords(p.t.Context(), recs...); err != nil {
			p.t.Fatal(err)
		}
		done += len(recs)
	}
	return time.Since(began)
}

// timedNoop counts the carrier's answers: the last one ends the run.
type timedNoop struct {
	carriertest.Noop
	first sync.Once
	began time.Time
}

func (c *timedNoop) Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	c.first.Do(func() { c.began = time.Now() })
	return c.Noop.Send(ctx, batch, done)
}

// protected is the sender as it runs: control view, window, guard, callContexts from Redis.
func protected(p *processEnv, n int) time.Duration {
	noop := &timedNoop{}
	view, err := view.New(view.Config{Cluster: p.cluster, Keys: p.keys, Suppressions: true})
	if err != nil {
		p.t.Fatal(err)
	}
	rdb := redis.NewClient(&p.rdb)
	defer func() { _ = rdb.Close() }()
	limiter, err := ratelimit.New(rdb, ratelimit.Config{Names: p.cluster.Names, Instance: "bench", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		p.t.Fatal(err)
	}
	viewCtx, endView := context.WithCancel(p.t.Context())
	viewDone := make(chan error, 1)
	go func() { viewDone <- view.Run(viewCtx) }()
	<-view.Ready()
	supervisor, err := New(Config{Cluster: p.cluster, Keys: p.keys, Replication: 1}, Deps{
		View: view, Tokens: limiter, Connect: func(context.Context, *fanfarev1.Route) (Line, error) { return Line{Live: noop, Test: noop}, nil },
	})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	done := make(chan error, 1)
	go func() { done <- supervisor.Run(ctx) }()
	for noop.Accepted() < int64(n) {
		time.Sleep(time.Millisecond)
	}
	took := time.Since(noop.began)
	cancel()
	if err := <-done; err != nil {
		p.t.Fatal(err)
	}
	endView()
	if err := <-viewDone; err != nil {
		p.t.Fatal(err)
	}
	return took
}

// G2: the sender with its window, control view and callContexts, compared with the same work without protection at an
// equal window. The carrier accepts everything at once. The result is the median of alternating rounds.
func BenchmarkG2(b *testing.B) {
	const n, rounds = 200_000, 5
	var ratios, none, with, noneCPU, withCPU []float64
	for b.Loop() {
		for range rounds {
			p := newProcessEnv(b)
			p.route(&fanfarev1.Route{Name: "sim", Connector: "sim", Rate: 3_000_000, P99Ms: 100, Enabled: true})
			p.campaign(1, schemas.StateSending)
			for from := 0; from < n; from += 20_000 {
				p.send(from, from+20_000)
			}
			start := cpu(b)
			t1 := unprotected(p, maxWindow, n)
			mid := cpu(b)
			t2 := protected(p, n)
			ratios = append(ratios, t1.Seconds()/t2.Seconds())
			none, with = append(none, n/t1.Seconds()), append(with, n/t2.Seconds())
			noneCPU = append(noneCPU, float64((mid-start).Microseconds())/n)
			withCPU = append(withCPU, float64((cpu(b)-mid).Microseconds())/n)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(none), "unprotected/s")
	b.ReportMetric(median(with), "sender/s")
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(median(noneCPU), "unprotected-cpu-us/msg")
	b.ReportMetric(median(withCPU), "sender-cpu-us/msg")
}

// BenchmarkLane measures the cost of one message in the lane alone: decode it, judge it twice, hand it over and encode
// its outcome, without Kafka and Redis.
func BenchmarkLane(b *testing.B) {
	for _, optOuts := range []bool{false, true} {
		b.Run(fmt.Sprintf("opt-outs=%v", optOuts), func(b *testing.B) {
			keys := testKeys(b)
			view := newFakeView()
			view.routes["sim"].Rate = 10_000_000
			view.campaign(10001, schemas.StateSending)
			noop := &carriertest.Noop{}
			cfg := Config{Cluster: stream.Cluster{Names: testNames(b), Logger: slog.New(slog.DiscardHandler)}, Keys: keys, Now: time.Now, BreakerPause: time.Second}
			var v View = view
			if optOuts {
				v = hashing{view, keys}
			}
			c, err := newRouteSender(&cfg, &Deps{View: v, Tokens: &tokens{life: time.Second}}, newMetrics(nil), view.Route("sim"), Line{Live: noop, Test: noop})
			if err != nil {
				b.Fatal(err)
			}
			l := newLane(c, schemas.LaneBulk)
			l.window = &fakePublisher{}
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			go func() { done <- l.run(ctx) }()
			const n = 2_000
			recs := make([]*kgo.Record, n)
			for i := range recs {
				recs[i] = messageRecord(b, keys, testMessage(10001, uint32(i), 1))
			}
			var wg sync.WaitGroup
			b.ReportAllocs()
			start := cpu(b)
			rounds := 0
			for b.Loop() {
				rounds++
				batch, slab := make([]*entry, n), make([]entry, n)
				wg.Add(n)
				for i := range batch {
					slab[i] = entry{item: counted{&wg}, rec: recs[i], released: time.Now()}
					batch[i] = &slab[i]
				}
				l.release(batch)
				wg.Wait()
			}
			b.ReportMetric(float64((cpu(b)-start).Nanoseconds())/float64(rounds*n), "cpu-ns/msg")
			cancel()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}

// counted is an item that this process always owns.
type counted struct{ wg *sync.WaitGroup }

func (counted) Begin() bool            { return true }
func (counted) Return() bool           { return true }
func (counted) Deadline() time.Time    { return time.Time{}.AddDate(9000, 0, 0) }
func (c counted) Settle(*kgo.Record)   { c.wg.Done() }
func (c counted) Late(*kgo.Record)     {}
func (counted) Doubt(*kgo.Record) bool { return false }
func (counted) Doubted() bool          { return false }
func (counted) BeginAgain() bool       { return false }
func (counted) Clear() bool            { return false }
func (counted) Crowded() bool          { return false }

// hashing computes the hash for the opt-out check as the control view does for a tenant with opt-outs.
type hashing struct {
	*fakeView
	keys *schemas.Keys
}

func (h hashing) OptedOut(tenant, to string, _ schemas.Channel) bool {
	return h.keys.NumberHash(tenant, to) == [8]byte{}
}
