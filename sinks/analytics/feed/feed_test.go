package feed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/deploy/testinfra"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
	"fanfare/sinks/analytics/analyticstest"
)

func TestConfig(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a feed of nothing: got no error")
	}
}

// stores runs a test with both kinds of stores: one that keeps positions and one that recognises tokens, and with
// ClickHouse if the tests have one.
func stores(t *testing.T, run func(t *testing.T, open func(t testing.TB) analytics.Store)) {
	t.Run("positions", func(t *testing.T) {
		t.Parallel()
		run(t, func(t testing.TB) analytics.Store { return newStore(t) })
	})
	t.Run("tokens", func(t *testing.T) {
		t.Parallel()
		run(t, func(t testing.TB) analytics.Store {
			s := newTokenStore(t)
			t.Cleanup(func() {
				if len(s.violations) > 0 {
					t.Errorf("tokens used for other rows: %v", s.violations)
				}
			})
			return s
		})
	})
	if os.Getenv("FANFARE_TEST_CLICKHOUSE") != "" {
		t.Run("clickhouse", func(t *testing.T) {
			t.Parallel()
			run(t, func(t testing.TB) analytics.Store {
				s, _ := newClickHouse(t, nil)
				return s
			})
		})
	}
}

// Committed events are counted once and aborted ones are not. The store's as_of advances although the topic ends with
// control records. A rebuild from the log gives the same answers (X18, P6).
func TestFillsAndRebuilds(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, open func(t testing.TB) analytics.Store) {
		w := newEnv(t)
		campaigns, records := w.history(60)
		records = append(records, w.deals(campaigns)...)
		w.rng.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		s := open(t)
		r := w.start(t, s, nil, nil)
		w.produceMixed(t, records)
		caughtUp(t, s)
		compareAll(t, s, w.model(t), campaigns)
		if at := r.AsOf(); time.Since(at) > 5*time.Second {
			t.Errorf("the feed is complete as of %v, want about now", at)
		}
		if err := r.end(t); err != nil {
			t.Errorf("run: %v", err)
		}

		again := open(t)
		got, err := Rebuild(t.Context(), Config{Cluster: w.Cluster, Store: again, Campaigns: w.view, MaxRows: 100})
		if err != nil {
			t.Fatal(err)
		}
		m := w.model(t)
		compareAll(t, again, m, campaigns)
		if want := len(w.read(t, w.Names.Deliveries())); got.Events != want || got.Refused != 0 {
			t.Errorf("rebuilt %+v, want %d events", got, want)
		}
		if want := len(w.read(t, w.Names.Chunks())); got.Deals != want {
			t.Errorf("rebuilt %+v, want %d deals", got, want)
		}
	})
}

// The figures are exact although the feed is killed between any two steps and the store fails before and after its
// work.
func TestExactThroughKills(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, open func(t testing.TB) analytics.Store) {
		w := newEnv(t)
		campaigns, records := w.history(150)
		records = append(records, w.deals(campaigns)...)
		w.rng.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		s := open(t)
		var failing atomic.Bool
		if ts, ok := s.(*tokenStore); ok {
			failing.Store(true)
			n := 0
			ts.fail = func() (before, after error) {
				if n++; failing.Load() && n%7 == 0 {
					return errors.New("gone before it began"), nil
				}
				if failing.Load() && n%11 == 0 {
					return nil, errors.New("gone before it answered")
				}
				return nil, nil
			}
		}
		var producing sync.WaitGroup
		producing.Go(func() { w.produceMixed(t, records) })
		kills := map[string]int{}
		for i := range 13 {
			step := []string{"declared", "appended", "marked"}[i%3]
			after := i % 2
			var killed atomic.Bool
			r := w.start(t, s, func(c *Config) { c.MaxRows = 60 }, func(r *running) func(string) error {
				return func(at string) error {
					if at == step {
						after--
					}
					if after < 0 && !killed.Swap(true) {
						if i%4 == 0 {
							r.cut() // the group is not told, because otherwise the feed would leave it
						}
						return errCut
					}
					return nil
				}
			})
			select {
			case err := <-r.done:
				if !errors.Is(err, errCut) {
					t.Fatalf("run: got %v, want it killed", err)
				}
				r.done <- err
				kills[step]++
			case <-time.After(15 * time.Second):
				// Everything is stored; there is nothing left to interrupt.
				r.cut()
				_ = r.end(t)
			}
		}
		producing.Wait()
		failing.Store(false)
		w.start(t, s, nil, nil)
		caughtUp(t, s)
		compareAll(t, s, w.model(t), campaigns)
		t.Logf("killed %v", kills)
		if kills["declared"] == 0 || kills["appended"] == 0 {
			t.Errorf("killed %v, want kills between all steps", kills)
		}
		if ts, ok := s.(*tokenStore); ok {
			ts.tiles(t, w)
			if ts.again == 0 {
				t.Error("no batch came again: nothing was tested")
			}
		}
	})
}

// The figures are exact although members join, leave and are killed while events arrive.
func TestExactThroughRebalances(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, open func(t testing.TB) analytics.Store) {
		w := newEnv(t)
		campaigns, records := w.history(150)
		records = append(records, w.deals(campaigns)...)
		w.rng.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		s := open(t)
		var producing sync.WaitGroup
		producing.Go(func() { w.produceMixed(t, records) })
		small := func(c *Config) { c.MaxRows = 40 }
		feeds := []*running{w.start(t, s, small, nil)}
		for i := range 6 {
			joined := w.start(t, s, small, nil)
			feeds = append(feeds, joined)
			// A member that vanishes while it joins blocks kfake's group for a minute.
			for began := time.Now(); len(joined.events.owned()) == 0 && time.Since(began) < 20*time.Second; {
				time.Sleep(20 * time.Millisecond)
			}
			time.Sleep(100 * time.Millisecond)
			old := feeds[0]
			feeds = feeds[1:]
			if i%3 == 2 {
				old.cut()
				// A session time-out. If members disappear faster, kfake's group needs a minute to settle
				time.Sleep(time.Second)
			}
			if err := old.end(t); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("run: %v", err)
			}
		}
		producing.Wait()
		caughtUp(t, s)
		compareAll(t, s, w.model(t), campaigns)
		if ts, ok := s.(*tokenStore); ok {
			ts.tiles(t, w)
		}
	})
}

// While the store is away nothing is lost, nothing counts twice, and as_of does not advance (P5).
func TestStoreAway(t *testing.T) {
	t.Parallel()
	w := newEnv(t)
	campaigns, records := w.history(40)
	s := newTokenStore(t)
	var away atomic.Bool
	s.fail = func() (before, after error) {
		if away.Load() {
			return errors.New("connection refused"), nil
		}
		return nil, nil
	}
	r := w.start(t, s, func(c *Config) { c.MaxRows = 50 }, nil)
	w.produce(t, records[:100]...)
	caughtUp(t, s)
	away.Store(true)
	w.produce(t, records[100:]...)
	before := time.Now()
	for counted(r.events.metrics.retries.WithLabelValues(stepAppend)) < 3 {
		time.Sleep(5 * time.Millisecond)
		if time.Since(before) > time.Minute {
			t.Fatal("the feed does not try")
		}
	}
	// A second process joins meanwhile: a rebalance must not wait for the store.
	second := w.start(t, s, nil, nil)
	for joined := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if len(second.events.owned()) > 0 {
			break
		}
		if time.Since(joined) > time.Minute {
			t.Fatal("no member can join while the store is away")
		}
	}
	if at, err := s.AsOf(t.Context()); err != nil || at.After(before) {
		t.Errorf("got as of %v, %v, want before the store went away at %v", at, err, before)
	}
	away.Store(false)
	caughtUp(t, s)
	compareAll(t, s, w.model(t), campaigns)
	if len(s.violations) > 0 {
		t.Errorf("tokens used for other rows: %v", s.violations)
	}
}

// A record that is not a delivery event, whose campaign does not exist, or that names another tenant goes to the dead
// letters and blocks nothing (P7).
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	w := newEnv(t)
	campaigns, records := w.history(20)
	good := records[0]
	foreign := w.record(analytics.Event{Campaign: &analytics.Campaign{Tenant: "tn_b", ID: campaigns[0].ID}, Seq: 7, Kind: schemas.KindDelivered, Try: 1})
	stranger := analyticstest.NewCampaign("tn_a", 99_999, time.Now())
	lookedUp := analyticstest.NewCampaign("tn_a", 77_777, time.Now())
	var bad []*kgo.Record
	for i := range 30 {
		bad = append(bad,
			&kgo.Record{Topic: good.Topic, Key: fmt.Append(nil, "garbage", i), Value: []byte("\xff\xff garbage")},
			&kgo.Record{Topic: good.Topic, Key: fmt.Append(nil, "empty", i)},
			w.record(analytics.Event{Campaign: stranger, Seq: uint32(i), Kind: schemas.KindSent, Try: 1}),
		)
	}
	bad = append(bad, foreign)
	s := newStore(t)
	r := w.start(t, s, func(c *Config) {
		c.Lookup = func(_ context.Context, id string) (*fanfarev1.Campaign, error) {
			if id != lookedUp.ID {
				return nil, fmt.Errorf("look: %w", schemas.ErrNotFound)
			}
			return &fanfarev1.Campaign{Tenant: lookedUp.Tenant, Id: id, CreatedMs: lookedUp.Month.UnixMilli()}, nil
		}
	}, nil)
	began := time.Now()
	w.produce(t, bad...)
	w.produce(t, w.record(analytics.Event{Campaign: lookedUp, Seq: 3, Kind: schemas.KindSent, Try: 1}))
	w.produce(t, records...)
	caughtUp(t, s)
	// It would take longer if the feed waited separately for each unknown campaign
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the bad records held the others up for %v", took)
	}
	compareAll(t, s, w.model(t), campaigns)
	stats, err := s.Stats(t.Context(), lookedUp.Tenant, lookedUp.ID)
	if err != nil || stats.Figures(1).Sent != 1 {
		t.Errorf("a campaign that only the store remembers: got %+v, %v, want one sent", stats, err)
	}
	for _, tenant := range []string{"tn_a", "tn_b"} {
		if stats, err := s.Stats(t.Context(), tenant, stranger.ID); err != nil || len(stats.Counts) != 0 {
			t.Errorf("a campaign that does not exist: got %+v, %v, want nothing", stats, err)
		}
	}
	if stats, err := s.Stats(t.Context(), "tn_b", campaigns[0].ID); err != nil || len(stats.Counts) != 0 {
		t.Errorf("another's campaign under our name: got %+v, %v, want nothing", stats, err)
	}
	if err := r.end(t); err != nil {
		t.Fatal(err)
	}
	causes := map[string]int{}
	for _, d := range w.read(t, w.Names.DeadLetters(w.Names.Deliveries())) {
		cause := string(schemas.Header(d, schemas.HeaderCause))
		switch {
		case strings.Contains(cause, errRecord.Error()):
			causes[causeRecord]++
		case strings.Contains(cause, errCampaign.Error()):
			causes[causeCampaign]++
		case strings.Contains(cause, errTenant.Error()):
			causes[causeTenant]++
		default:
			t.Errorf("cause %q", cause)
		}
		if string(schemas.Header(d, schemas.HeaderStage)) != Stage || schemas.Header(d, schemas.HeaderSource) == nil {
			t.Errorf("dead letter without stage or source: %v", d.Headers)
		}
	}
	want := map[string]int{causeRecord: 60, causeCampaign: 30, causeTenant: 1}
	for cause, n := range want {
		if causes[cause] != n || int(counted(r.events.metrics.dead.WithLabelValues(cause))) != n {
			t.Errorf("dead letters for %s: got %d, metric %v, want %d", cause, causes[cause], counted(r.events.metrics.dead.WithLabelValues(cause)), n)
		}
	}
}

// An event may arrive before its campaign does. It waits until the view is known to be newer than the record, and no
// longer.
func TestWaitsForTheView(t *testing.T) {
	t.Parallel()
	w := newEnv(t)
	c := analyticstest.NewCampaign("tn_a", 10_001, time.Now())
	w.view.read = time.Now() // from now on the view is behind
	s := newStore(t)
	r := w.start(t, s, nil, nil)
	w.produce(t, w.record(analytics.Event{Campaign: c, Seq: 1, Kind: schemas.KindSent, Try: 1}))
	// The test cannot fail because this sleep is too short: it could only miss a wrong dead letter.
	time.Sleep(300 * time.Millisecond)
	if n := counted(r.events.metrics.dead.WithLabelValues(causeCampaign)); n != 0 {
		t.Fatalf("got %v dead letters while the view is behind, want none", n)
	}
	w.view.put(c)
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		stats, err := s.Stats(t.Context(), c.Tenant, c.ID)
		if err != nil {
			t.Fatal(err)
		}
		if stats.Figures(1).Sent == 1 {
			break
		}
		if time.Since(began) > 30*time.Second {
			t.Fatalf("got %+v, want the event counted", stats)
		}
	}
}

// If a campaign cannot be resolved while the store is away, only its own partition waits (P5), however many events it
// has.
func TestStuckPartitionStopsNobodyElse(t *testing.T) {
	t.Parallel()
	w := newEnv(t)
	known, lost := analyticstest.NewCampaign("tn_a", 10_001, time.Now()), analyticstest.NewCampaign("tn_a", 10_002, time.Now())
	w.view.put(known)
	var away atomic.Bool
	away.Store(true)
	s := newStore(t)
	w.start(t, s, func(cfg *Config) {
		cfg.MaxRows = polled
		cfg.Lookup = func(context.Context, string) (*fanfarev1.Campaign, error) {
			if away.Load() {
				return nil, errors.New("connection refused")
			}
			return &fanfarev1.Campaign{Id: lost.ID, Tenant: lost.Tenant, ConfirmedMs: time.Now().UnixMilli()}, nil
		}
	}, nil)
	cl, err := w.Named("test-by-hand").Client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	produce := func(records ...*kgo.Record) {
		if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	sent := func(c *analytics.Campaign, seq uint32, partition int32) *kgo.Record {
		r := w.record(analytics.Event{Campaign: c, Seq: seq, Kind: schemas.KindSent, Try: 1})
		r.Partition = partition
		return r
	}
	await := func(c *analytics.Campaign, want uint64) {
		t.Helper()
		for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
			stats, err := s.Stats(t.Context(), c.Tenant, c.ID)
			if err != nil {
				t.Fatal(err)
			}
			if got := stats.Figures(1).Sent; got == want {
				return
			} else if time.Since(began) > 20*time.Second {
				t.Fatalf("%s: got %d sent, want %d", c.ID, got, want)
			}
		}
	}
	const many = 3 * polled
	batch := make([]*kgo.Record, many)
	for i := range batch {
		batch[i] = sent(lost, uint32(i), 0)
	}
	produce(batch...)
	time.Sleep(500 * time.Millisecond) // long enough to read twice what fits into memory
	for seq := range uint32(100) {
		produce(sent(known, seq, 1+int32(seq)%5))
	}
	await(known, 100)
	away.Store(false)
	await(lost, many)
}

// picky is a store that always refuses some rows.
type picky struct {
	*tokenStore
	refuses func(*analytics.Event) bool
}

func (s *picky) Append(ctx context.Context, batches ...analytics.Batch) error {
	for _, b := range batches {
		for i := range b.Events {
			if s.refuses(&b.Events[i]) {
				return fmt.Errorf("%w: one of these", analytics.ErrData)
			}
		}
	}
	return s.tokenStore.Append(ctx, batches...)
}

// Rows that the store always refuses become dead letters. The other rows of their batch are stored, also when the batch
// is repeated.
func TestRefusedRows(t *testing.T) {
	t.Parallel()
	w := newEnv(t)
	c := analyticstest.NewCampaign("tn_a", 10_001, time.Now())
	w.view.put(c)
	s := &picky{newTokenStore(t), func(e *analytics.Event) bool { return e.Seq%50 == 13 }}
	var records []*kgo.Record
	for i := range 400 {
		records = append(records, w.record(analytics.Event{Campaign: c, Seq: uint32(i), Kind: schemas.KindSent, Try: 1, TimeMS: int64(i)}))
	}
	w.produce(t, records...)
	killed := false
	first := w.start(t, s, nil, func(r *running) func(string) error {
		return func(step string) error {
			if step != "appended" || killed {
				return nil
			}
			killed = true
			r.cut()
			return errCut
		}
	})
	if err := <-first.done; !errors.Is(err, errCut) {
		t.Fatalf("run: got %v, want it killed", err)
	} else {
		first.done <- err
	}
	w.start(t, s, nil, nil)
	caughtUp(t, s)
	stats, err := s.Stats(t.Context(), c.Tenant, c.ID)
	if err != nil || stats.Figures(400).Sent != 392 {
		t.Errorf("got %+v, %v, want 392 sent", stats, err)
	}
	points, err := s.Timeline(t.Context(), c.Tenant, c.ID, analytics.Span{})
	if err != nil || len(points) != 1 || points[0].N != 392 {
		t.Errorf("timeline: got %+v, %v, want 392 events", points, err)
	}
	sources := map[string]bool{}
	for _, d := range w.read(t, w.Names.DeadLetters(w.Names.Deliveries())) {
		sources[string(schemas.Header(d, schemas.HeaderSource))] = true
	}
	if len(sources) != 8 {
		t.Errorf("got dead letters of %d records, want 8", len(sources))
	}
	if len(s.violations) > 0 {
		t.Errorf("tokens used for other rows: %v", s.violations)
	}
}

// After a graceful stop the next feed reads nothing twice.
func TestStopSettles(t *testing.T) {
	t.Parallel()
	w := newEnv(t)
	campaigns, records := w.history(20)
	s := newTokenStore(t)
	r := w.start(t, s, func(c *Config) { c.Interval = time.Hour; c.MaxRows = 1 << 20 }, nil)
	w.produce(t, records...)
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		var waiting dto.Metric
		if err := r.events.metrics.waiting.Write(&waiting); err != nil {
			t.Fatal(err)
		}
		n := int(waiting.GetGauge().GetValue())
		if n == len(records) {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("got %d records in memory, want %d", n, len(records))
		}
	}
	if err := r.end(t); err != nil {
		t.Fatal(err)
	}
	compareAll(t, s, w.model(t), campaigns)
	offsets, err := w.adm.FetchOffsets(t.Context(), w.Names.Group(Stage))
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	offsets.Each(func(o kadm.OffsetResponse) {
		total += o.At
		if parseIntent(o.Metadata) != 0 {
			t.Errorf("partition %d: metadata %q, want no batch declared", o.Partition, o.Metadata)
		}
	})
	if total != int64(len(records)) {
		t.Errorf("committed %d, want %d", total, len(records))
	}
}

// ClickHouse goes away and comes back repeatedly, also during inserts, while events arrive. The feed stores every event
// once. The timeline shows it, too, because it counts every inserted row (P5).
func TestClickHouseAway(t *testing.T) {
	testinfra.Need(t, testinfra.ClickHouse)
	t.Parallel()
	w := newEnv(t)
	campaigns, records := w.history(150)
	line := newLine(t)
	s, beside := newClickHouse(t, line)
	r := w.start(t, s, func(c *Config) { c.MaxRows = 80; c.Interval = 30 * time.Millisecond }, nil)
	var producing sync.WaitGroup
	producing.Go(func() { w.produceMixed(t, records) })
	if away, err := time.ParseDuration(os.Getenv("FANFARE_TEST_AWAY")); err == nil { // make soak
		time.Sleep(100 * time.Millisecond)
		line.cut(true)
		time.Sleep(away)
		line.mend()
	}
	failed := func() bool { return counted(r.events.metrics.retries.WithLabelValues(stepAppend)) > 0 }
	for i, began := 0, time.Now(); i < 12 || !failed() && time.Since(began) < 30*time.Second; i++ {
		time.Sleep(time.Duration(w.rng.IntN(120)) * time.Millisecond)
		line.cut(i%3 == 0)
		if i%3 == 0 {
			// Away: no server answers at its address.
			time.Sleep(300 * time.Millisecond)
			line.mend()
		}
	}
	producing.Wait()
	caughtUp(t, beside)
	compareAll(t, beside, w.model(t), campaigns)
	if !failed() {
		t.Error("no insert failed: nothing was tested")
	}
}
