package sender

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/sim"
)

// A process loses its network but keeps running, and another takes over. No message is handed over twice, a message
// that may have been handed over is reported as ambiguous, and every message has an outcome.
func TestCrashAndTakeover(t *testing.T) {
	t.Parallel() // it waits more than it works
	p := newProcessEnv(t)
	p.carrier.most = 100 * time.Millisecond
	const n = 4_000
	p.campaign(1, schemas.StateSending)
	s := p.follow()
	a := p.start("a", nil)
	p.send(0, n)
	eventually(t, 20*time.Second, "a quarter handed over", func() bool { return p.carrier.count.Load() > n/4 })
	a.net.cutOff() // the process keeps running and may try to hand over
	p.start("b", nil)
	eventually(t, 30*time.Second, "an outcome for every message", func() bool { return s.known() == n })
	counts := s.counts()
	t.Logf("%v", counts)
	if got := p.carrier.doubles(); got > 0 {
		t.Errorf("got %d handed over twice, want none", got)
	}
	window := windowSize(&fanfarev1.Route{Rate: 2_000, P99Ms: 100}, 1)
	if got := counts[ambiguousKind]; got == 0 || got > window {
		t.Errorf("got %d ambiguous after a crash, want 1 to %d", got, window)
	}
	if got := counts[sent] + counts[ambiguousKind]; got != n {
		t.Errorf("got %v, want %d sent or ambiguous", counts, n)
	}
	if got := int(p.carrier.count.Load()); got < counts[sent] || got > n {
		t.Errorf("the carrier saw %d, we say %d sent", got, counts[sent])
	}
}

// A rolling restart makes no message ambiguous and returns none; meanwhile Redis goes away and comes back.
func TestGracefulStopAndRedisAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newVirtualProcessEnv(t)
		p.carrier.most = 100 * time.Millisecond
		const n = 4_000
		p.campaign(1, schemas.StateSending)
		s := p.follow()
		a := p.start("a", nil)
		p.send(0, n)
		eventually(t, 20*time.Second, "a quarter handed over", func() bool { return p.carrier.count.Load() > n/4 })

		p.redis.SetError("LOADING Redis is loading the dataset in memory")
		time.Sleep(200 * time.Millisecond) // leases run out
		before := p.carrier.count.Load()
		time.Sleep(10 * time.Second)
		if got := p.carrier.count.Load() - before; got != 0 {
			t.Errorf("Redis is away: got %d handed over, want none", got)
		}
		p.redis.SetError("")
		eventually(t, 10*time.Second, "handing over goes on", func() bool { return p.carrier.count.Load() > before })

		if err := a.stop(); err != nil {
			t.Fatalf("stop: %v", err)
		}
		handed := p.carrier.count.Load()
		if handed == n {
			t.Fatal("everything was handed over before the stop: the test shows nothing")
		}
		b := p.start("b", nil)
		eventually(t, 20*time.Second, "an outcome for every message", func() bool { return s.known() == n })
		counts := s.counts()
		if counts[sent] != n {
			t.Errorf("got %v, want all %d sent", counts, n)
		}
		s.mu.Lock()
		if len(s.kinds) != 1 {
			t.Errorf("got outcomes %v, want nothing but sent", s.kinds)
		}
		s.mu.Unlock()
		if got := p.carrier.doubles(); got > 0 {
			t.Errorf("got %d handed over twice, want none", got)
		}
		if err := b.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
}

// A pause takes effect at the carrier within 250 ms after it is durable, and the sender returns all waiting messages. A
// poison record does not block its partition. The sender obeys an opt-out. The time is virtual.
func TestPausePoisonOptOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newVirtualProcessEnv(t)
		p.carrier.most = 50 * time.Millisecond
		const n = 10_000
		p.campaign(1, schemas.StateSending)
		hash := p.keys.NumberHash("tn_a", "+393330000007")
		p.publish(schemas.Event{
			Topic: p.cluster.Names.Suppressions(), Key: schemas.SuppressionKey("tn_a", hash), Tenant: "tn_a", Type: schemas.TypeSuppression,
			Value: &fanfarev1.Suppression{Tenant: "tn_a", NumberHash: hash[:]},
		})
		s := p.follow()
		a := p.start("a", nil)
		bad := messageRecord(t, p.keys, testMessage(10001, n, 1))
		bad.Topic, bad.Value = p.cluster.Names.Messages("sim", schemas.LaneBulk), []byte{0xff}
		if err := p.cl.ProduceSync(t.Context(), bad).FirstErr(); err != nil {
			t.Fatal(err)
		}
		p.send(0, n)
		eventually(t, 20*time.Second, "a thousand handed over", func() bool { return p.carrier.count.Load() > 1_000 })
		paused := p.campaign(2, schemas.StatePaused)
		eventually(t, 20*time.Second, "an outcome for every message", func() bool { return s.known() == n+1 })
		p.carrier.mu.Lock()
		late := p.carrier.last.Sub(paused)
		p.carrier.mu.Unlock()
		t.Logf("last hand-over %s after the pause was durable", late)
		if late > 250*time.Millisecond {
			t.Errorf("got a hand-over %s after the pause, want at most 250 ms", late)
		}
		counts := s.counts()
		if counts[skippedKind] != 1 || counts[notSentKind] != 1 || counts[returnedKind] == 0 || counts[sent]+counts[returnedKind] != n-1 {
			t.Errorf("got %v, want one skipped, one not sent, and the rest sent or given back", counts)
		}
		s.mu.Lock()
		if got := s.state[7]; got.Code() != schemas.CodeOptedOut {
			t.Errorf("who has opted out: got %s, want OPTED_OUT", got.Code())
		}
		if got := s.state[n]; got.Code() != schemas.CodeRenderError {
			t.Errorf("poison: got %s, want RENDER_ERROR", got.Code())
		}
		s.mu.Unlock()
		ends, err := p.adm.ListEndOffsets(t.Context(), p.cluster.Names.DeadLetters(p.cluster.Names.Messages("sim", schemas.LaneBulk)))
		if err != nil {
			t.Fatal(err)
		}
		dead := int64(0)
		ends.Each(func(o kadm.ListedOffset) { dead += o.Offset })
		if dead != 1 {
			t.Errorf("got %d dead letters, want 1", dead)
		}
		if err := a.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
}

// session is a carrier that sends its receipts on its own connection.
type session struct {
	slowCarrier
	drained atomic.Bool
	acked   atomic.Int64
}

func (c *session) Drain(context.Context) error { c.drained.Store(true); return nil }

func (c *session) Receipts(ctx context.Context, emit func([]carrier.Receipt) error) error {
	if c.acked.Load() == 0 {
		if err := emit([]carrier.Receipt{{Ref: "r1", Status: schemas.ReceiptStatusDelivered}, {Ref: "r2"}}); err == nil {
			c.acked.Store(2)
		}
	}
	<-ctx.Done()
	return nil
}

// Routes are added, changed and removed while the process runs; a line that cannot be opened is tried again; receipts
// are durable before they are acknowledged.
func TestSupervisorFollowsRoutes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newVirtualProcessEnv(t)
		var mu sync.Mutex
		var opened []string
		first, second := &session{slowCarrier: slowCarrier{seen: map[schemas.ID]int{}}}, &session{slowCarrier: slowCarrier{seen: map[schemas.ID]int{}}}
		fails := 1
		a := p.start("a", func(_ context.Context, r *fanfarev1.Route) (Line, error) {
			mu.Lock()
			defer mu.Unlock()
			opened = append(opened, r.GetName()+"/"+r.GetConnector())
			switch {
			case r.GetName() == "other":
				return Line{}, ErrNotServed
			case fails > 0:
				fails--
				return Line{}, errors.New("bind refused")
			case r.GetConnector() == "smpp":
				return Line{Live: second}, nil
			}
			return Line{Live: first}, nil
		})
		served := func(c *session) func() bool {
			return func() bool {
				a.supervisor.mu.Lock()
				defer a.supervisor.mu.Unlock()
				x := a.supervisor.running["sim"]
				return x != nil && x.sender != nil && x.sender.live == c
			}
		}
		eventually(t, 10*time.Second, "the route is served at the second attempt", served(first))
		eventually(t, 10*time.Second, "its receipts are taken", func() bool { return first.acked.Load() == 2 })
		ends, err := p.adm.ListEndOffsets(t.Context(), p.cluster.Names.Receipts())
		if err != nil {
			t.Fatal(err)
		}
		var durable int64
		ends.Each(func(o kadm.ListedOffset) { durable += o.Offset })
		if durable != 2 {
			t.Errorf("receipts acknowledged: got %d in Kafka, want 2", durable)
		}

		p.route(&fanfarev1.Route{Name: "other", Connector: "nobody", Rate: 1, Enabled: true})
		p.route(&fanfarev1.Route{Name: "sim", Connector: "smpp", Rate: 2_000, P99Ms: 100, Enabled: true})
		eventually(t, 10*time.Second, "the route is served by its new connector", served(second))
		if !first.drained.Load() {
			t.Error("the old connector: got not drained")
		}
		p.publishTombstone(p.cluster.Names.Control(), schemas.RouteKey("sim"))
		eventually(t, 10*time.Second, "a route that was removed is not served", second.drained.Load)
		time.Sleep(1500 * time.Millisecond)
		mu.Lock()
		others := 0
		for _, o := range opened {
			if o == "other/nobody" {
				others++
			}
		}
		mu.Unlock()
		if others != 1 {
			t.Errorf("a route that is not served here: got %d attempts, want 1", others)
		}
		for _, st := range a.supervisor.Status() {
			if st.Route != "other" || !errors.Is(st.Err, ErrNotServed) {
				t.Errorf("got status %+v, want only the route that is not served", st)
			}
		}
		if err := a.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	ok := Config{Cluster: stream.Cluster{Brokers: []string{"b:1"}, Logger: slog.New(slog.DiscardHandler)}, Keys: testKeys(t), Replication: 1}
	deps := Deps{View: newFakeView(), Tokens: &tokens{}, Connect: func(context.Context, *fanfarev1.Route) (Line, error) { return Line{}, nil }}
	if _, err := New(ok, deps); err != nil {
		t.Errorf("complete: got %v", err)
	}
	for name, spoil := range map[string]func(*Config, *Deps){
		"brokers":     func(c *Config, _ *Deps) { c.Cluster.Brokers = nil },
		"keys":        func(c *Config, _ *Deps) { c.Keys = nil },
		"replication": func(c *Config, _ *Deps) { c.Replication = 2 },
		"view":        func(_ *Config, d *Deps) { d.View = nil },
		"tokens":      func(_ *Config, d *Deps) { d.Tokens = nil },
		"connect":     func(_ *Config, d *Deps) { d.Connect = nil },
	} {
		c, d := ok, deps
		spoil(&c, &d)
		if _, err := New(c, d); err == nil {
			t.Errorf("without %s: got no error", name)
		}
	}
}

// A process that can write to the topic but does not have the keys cannot have a message sent, and cannot have a real
// message dropped as the duplicate of a forged one that comes first. Its records become dead letters.
func TestForgedMessages(t *testing.T) {
	t.Parallel() // it waits more than it works
	p := newProcessEnv(t)
	p.campaign(1, schemas.StateSending)
	s := p.follow()
	const n = 200
	stranger, err := schemas.NewKeys([]byte("another installation's key"))
	if err != nil {
		t.Fatal(err)
	}
	topic := p.cluster.Names.Messages("sim", schemas.LaneBulk)
	for i := range 20 { // to the same recipients as the real ones, so in the same partitions and before them
		m := testMessage(10001, uint32(i), 1)
		m.To = fmt.Sprintf("+39333%07d", i)
		forged, unsigned := messageRecord(t, stranger, m), messageRecord(t, stranger, m)
		forged.Topic, unsigned.Topic = topic, topic
		unsigned.Headers = nil
		if err := p.cl.ProduceSync(t.Context(), forged, unsigned).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	p.send(0, n)
	a := p.start("a", nil)
	eventually(t, 20*time.Second, "an outcome for every real message", func() bool { return s.counts()[sent] == n })
	if err := a.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	p.carrier.mu.Lock()
	defer p.carrier.mu.Unlock()
	for id := range p.carrier.seen {
		if p.keys.Verify(id) != nil {
			t.Errorf("%s was handed over; its id is forged", id)
		}
	}
	if got := len(p.carrier.seen); got != n {
		t.Errorf("got %d handed over, want the %d real ones", got, n)
	}
	ends, err := p.adm.ListEndOffsets(t.Context(), p.cluster.Names.DeadLetters(topic))
	if err != nil {
		t.Fatal(err)
	}
	dead := int64(0)
	ends.Each(func(o kadm.ListedOffset) { dead += o.Offset })
	if dead != 40 {
		t.Errorf("got %d dead letters, want 20 forged and 20 unsigned", dead)
	}
	if got := sum(t, a.reg, "fanfare_sender_forged_total"); got != 20 {
		t.Errorf("got %g counted as forged, want 20", got)
	}
}

// G6: the last message leaves at most 250 ms after a pause or an abort is durable, also when the carrier's window is
// full: messages that wait for it are withdrawn. The test checks the carrier's own record. No message that waited is in
// doubt. The time is virtual.
func TestStopsWithAFullCarrierWindow(t *testing.T) {
	for name, tc := range map[string]struct {
		state schemas.State
		want  schemas.Kind
	}{"pause": {schemas.StatePaused, returnedKind}, "abort": {schemas.StateAborted, skippedKind}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			truth := filepath.Join(t.TempDir(), "carrier-sim.ndjson")
			synctest.Test(t, func(t *testing.T) {
				p := newVirtualProcessEnv(t)
				p.session = 10 * time.Second // the guard of a short session would stop the messages, too
				// A window of 10 whose answers take 400 ms: the carrier takes ten messages each 400 ms, of the 2,000/s
				// that the route allows. The stop comes right after it took ten, so the window opens again some 390 ms
				// later.
				c, err := sim.Open(sim.Config{Keys: p.keys, Truth: truth, Profile: sim.Profile{Answer: sim.Lognormal{P50: 400 * time.Millisecond}, Lost: 1}})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				ran := make(chan error, 1)
				go func() { ran <- c.Run(ctx) }()
				t.Cleanup(func() {
					cancel()
					if err := errors.Join(<-ran, c.Close()); err != nil {
						t.Error(err)
					}
				})

				const n = 2_000
				p.campaign(1, schemas.StateSending)
				s := p.follow()
				a := p.start("a", func(context.Context, *fanfarev1.Route) (Line, error) {
					connector := c.Connector(sim.Options{Window: 10, Batch: 10})
					return Line{Live: connector, Test: connector}, nil
				})
				p.send(0, n)
				eventually(t, 20*time.Second, "the window to be full for a while", func() bool { return c.Stats().Submissions[sim.Accepted] >= 30 })
				stopped := p.campaign(2, tc.state)
				eventually(t, 20*time.Second, "an outcome for every message", func() bool { return s.known() == n })
				if err := a.stop(); err != nil {
					t.Errorf("stop: %v", err)
				}
				tr, err := sim.ReadTruth(truth)
				if err != nil {
					t.Fatal(err)
				}
				last := tr.Entries[len(tr.Entries)-1].Time
				t.Logf("last hand-over %s after the %s was durable", last.Sub(stopped), name)
				if late := last.Sub(stopped); late > 250*time.Millisecond {
					t.Errorf("got a hand-over %s after the %s, want at most 250 ms", late, name)
				}
				if counts := s.counts(); counts[sent] != len(tr.Entries) || counts[tc.want] != n-counts[sent] {
					t.Errorf("got %v, want %d sent as at the carrier and the rest %s", counts, len(tr.Entries), tc.want)
				}
			})
		})
	}
}
