package relay_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"fanfare/pipeline/relay"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

// outbox is a store in memory: rows with a version, and the version that was published.
type outbox struct {
	mu        sync.Mutex
	rows      map[string]schemas.OutboxRow
	published map[string]uint64
	order     []string
	changed   chan struct{}
	leading   bool
	away      error // every call fails with this error
	lost      bool  // the next MarkPublished says that the lead is lost
	again     int   // calls of Republish
	silent    int   // this many calls get no answer
}

// answer blocks until the caller gives up if the store is silent.
func (o *outbox) answer(ctx context.Context) error {
	o.mu.Lock()
	silent := o.silent > 0
	o.silent--
	o.mu.Unlock()
	if silent {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func newOutbox() *outbox {
	return &outbox{rows: map[string]schemas.OutboxRow{}, published: map[string]uint64{}, changed: make(chan struct{})}
}

// put changes a row; nil is a tombstone.
func (o *outbox) put(key string, value []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	row := o.rows[key]
	o.rows[key] = schemas.OutboxRow{Type: schemas.TypeCampaign, Key: key, Tenant: "tn_a", Version: row.Version + 1, Value: value, Time: time.Now()}
	o.order = append(o.order, key)
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *outbox) set(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
}

func (o *outbox) Lead(ctx context.Context) (func(), bool, error) {
	if err := o.answer(ctx); err != nil {
		return nil, false, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away != nil || o.leading {
		return nil, false, o.away
	}
	o.leading = true
	return func() { o.set(func() { o.leading = false }) }, true, nil
}

func (o *outbox) Unpublished(ctx context.Context, limit int) ([]schemas.OutboxRow, error) {
	if err := o.answer(ctx); err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []schemas.OutboxRow
	taken := map[string]bool{}
	for _, key := range o.order {
		if row := o.rows[key]; row.Version > o.published[key] && !taken[key] && len(out) < limit {
			out, taken[key] = append(out, row), true
		}
	}
	return out, o.away
}

func (o *outbox) MarkPublished(_ context.Context, rows []schemas.OutboxRow) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lost {
		o.lost = false
		return errors.New("lead was lost")
	}
	for _, r := range rows {
		o.published[r.Key] = max(o.published[r.Key], r.Version)
	}
	return o.away
}

func (o *outbox) Republish(_ context.Context, _ schemas.EventType, keys ...string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.again += len(keys)
	for _, key := range keys {
		o.published[key] = 0
	}
	close(o.changed)
	o.changed = make(chan struct{})
	return o.away
}

// Published returns one row at a time, so that every walk has several pages.
func (o *outbox) Published(_ context.Context, after string, _ int) ([]schemas.PublishedRow, string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(o.rows)) {
		if row := o.rows[key]; key > after && o.published[key] == row.Version {
			return []schemas.PublishedRow{{Type: row.Type, Key: key, Version: row.Version, Tombstone: row.Value == nil}}, key, o.away
		}
	}
	return nil, "", o.away
}

func (o *outbox) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

type env struct {
	cluster   stream.Cluster
	fake      *kfake.Cluster
	out       *outbox
	reconcile time.Duration
}

func newEnv(t *testing.T) *env {
	t.Helper()
	names, err := schemas.NewNames("relay.")
	if err != nil {
		t.Fatal(err)
	}
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	w := &env{stream.Cluster{Brokers: fake.ListenAddrs(), Names: names, Logger: slog.New(slog.DiscardHandler)}, fake, newOutbox(), 0}
	cl, err := w.cluster.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := stream.EnsureTopics(t.Context(), kadm.NewClient(cl), 1, names.Fixed()); err != nil {
		t.Fatal(err)
	}
	return w
}

// run runs a relay until the test ends or stop is called.
func (w *env) run(t *testing.T) (stop func()) {
	t.Helper()
	r, err := relay.New(relay.Config{Cluster: w.cluster, AckTimeout: 2 * time.Second, Reconcile: w.reconcile}, w.out)
	if err != nil {
		t.Fatal(err)
	}
	return runs(t, r)
}

// runs runs a relay until the test ends or stop is called.
func runs(t *testing.T, r *relay.Relay) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// newest waits until the last record of each key on `campaigns` has the value in want; "" is a tombstone.
func (w *env) newest(t *testing.T, want map[string]string) {
	t.Helper()
	cl, err := w.cluster.Client(kgo.ConsumeTopics(w.cluster.Names.Campaigns()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	got := map[string]string{}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for fmt.Sprint(got) != fmt.Sprint(want) {
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) { got[string(r.Key)] = string(r.Value) })
		if ctx.Err() != nil {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

func TestPublishesTheNewestOfEachRow(t *testing.T) {
	w := newEnv(t)
	w.out.put("tn_a/camp_1", []byte("one"))
	w.out.put("tn_a/camp_2", []byte("two"))
	w.run(t)
	w.newest(t, map[string]string{"tn_a/camp_1": "one", "tn_a/camp_2": "two"})
	w.out.put("tn_a/camp_1", []byte("one, changed"))
	w.out.put("tn_a/camp_2", nil)
	w.newest(t, map[string]string{"tn_a/camp_1": "one, changed", "tn_a/camp_2": ""})
}

// The relay publishes a change by its own process at once, without waiting for the next poll.
func TestAChangeWakesTheRelay(t *testing.T) {
	w := newEnv(t)
	r, err := relay.New(relay.Config{Cluster: w.cluster, Poll: time.Hour}, w.out)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	w.out.put("tn_a/camp_1", []byte("one"))
	w.newest(t, map[string]string{"tn_a/camp_1": "one"})
	w.out.put("tn_a/camp_1", []byte("two"))
	w.newest(t, map[string]string{"tn_a/camp_1": "two"})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// While Kafka refuses records, rows wait and are not marked. Afterwards the relay publishes them.
func TestKafkaAway(t *testing.T) {
	w := newEnv(t)
	refused := 0
	w.fake.ControlKey(0, func(kmsg.Request) (kmsg.Response, error, bool) {
		w.fake.KeepControl()
		if refused++; refused > 4 {
			w.fake.DropControl()
			return nil, nil, false
		}
		return nil, errors.New("the connection breaks"), true
	})
	w.out.put("tn_a/camp_1", []byte("one"))
	w.run(t)
	w.newest(t, map[string]string{"tn_a/camp_1": "one"})
	for range 200 {
		if w.out.marked("tn_a/camp_1") == 1 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("published and never marked")
}

// Kafka accepts one row and refuses the row before it. The relay marks only the accepted row, in whatever order the
// answers arrive. A row that is marked without having been published would be lost.
func TestOnlyWhatWasAcknowledgedIsMarked(t *testing.T) {
	w := newEnv(t)
	names := w.cluster.Names
	refuse := w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: names.Control(), Err: kerr.NotLeaderForPartition, Count: -1})
	w.out.set(func() {
		for _, row := range []schemas.OutboxRow{
			{Type: schemas.TypeControl, Key: "tenant/tn_a", Tenant: "tn_a", Version: 1, Value: []byte("tenant")},
			{Type: schemas.TypeCampaign, Key: "tn_a/camp_1", Tenant: "tn_a", Version: 1, Value: []byte("one")},
		} {
			w.out.rows[row.Key] = row
			w.out.order = append(w.out.order, row.Key)
		}
	})
	w.run(t)
	w.newest(t, map[string]string{"tn_a/camp_1": "one"})
	for deadline := time.Now().Add(10 * time.Second); w.out.marked("tn_a/camp_1") == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what was published is not marked")
		}
	}
	if got := w.out.marked("tenant/tn_a"); got != 0 {
		t.Errorf("marked of what Kafka did not take: got version %d, want none", got)
	}
	refuse.Remove()
	for deadline := time.Now().Add(10 * time.Second); w.out.marked("tenant/tn_a") == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the row that waited was never published")
		}
	}
}

func (o *outbox) marked(key string) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.published[key]
}

// The store is unreachable for a while: nothing is lost. A relay that has lost the lead takes it again.
func TestStoreAwayAndLeadLost(t *testing.T) {
	w := newEnv(t)
	w.out.set(func() { w.out.away = errors.New("no connection") })
	w.out.put("tn_a/camp_1", []byte("one"))
	w.run(t)
	time.Sleep(100 * time.Millisecond) // some failed calls; the verdict is what is published after the store is back
	w.out.set(func() { w.out.away, w.out.lost = nil, true })
	w.newest(t, map[string]string{"tn_a/camp_1": "one"})
	w.out.put("tn_a/camp_1", []byte("two"))
	w.newest(t, map[string]string{"tn_a/camp_1": "two"})
}

// A leader that was cut off writes an old version after a newer one. The relay publishes the newer one again.
func TestWhatGoesBackwardsIsPublishedAgain(t *testing.T) {
	w := newEnv(t)
	w.out.put("tn_a/camp_1", []byte("one"))
	w.out.put("tn_a/camp_1", []byte("two"))
	w.run(t)
	w.newest(t, map[string]string{"tn_a/camp_1": "two"})
	cl, err := w.cluster.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	old := &kgo.Record{
		Topic: w.cluster.Names.Campaigns(), Key: []byte("tn_a/camp_1"), Value: []byte("one"), Headers: []kgo.RecordHeader{{Key: "version", Value: []byte("1")}},
	}
	if err := cl.ProduceSync(t.Context(), old).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		w.out.mu.Lock()
		again := w.out.again
		w.out.mu.Unlock()
		if again > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the old version was left at the end of the topic")
		}
	}
	w.newest(t, map[string]string{"tn_a/camp_1": "two"})
}

// wire has the connections of one relay to Kafka, and can cut them: then Kafka is unreachable, or silent.
type wire struct {
	mu     sync.Mutex
	conns  []net.Conn
	cut    bool
	silent bool
}

func (w *wire) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut && !w.silent {
		return nil, errors.New("there is no way to Kafka")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	if err == nil {
		w.conns = append(w.conns, conn)
	}
	return &wired{conn, w}, err
}

func (w *wire) sever(silent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut, w.silent = true, silent
	for _, c := range w.conns {
		if !silent {
			_ = c.Close()
		}
	}
}

type wired struct {
	net.Conn
	w *wire
}

func (c *wired) Write(b []byte) (int, error) {
	c.w.mu.Lock()
	silent := c.w.cut && c.w.silent
	c.w.mu.Unlock()
	if silent {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// A leader that has lost Kafka but not the store gives up the lead to a relay that reaches Kafka (P5), also if Kafka
// does not answer at all.
func TestLeaderWithoutKafkaGivesWay(t *testing.T) {
	for name, silent := range map[string]bool{"refused": false, "silent": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newEnv(t)
			line := &wire{}
			first := *w
			first.cluster.Options = []kgo.Opt{kgo.Dialer(line.dial)}
			first.run(t)
			w.out.put("tn_a/camp_1", []byte("one"))
			w.newest(t, map[string]string{"tn_a/camp_1": "one"})
			w.run(t)
			line.sever(silent)
			w.out.put("tn_a/camp_1", []byte("two"))
			w.newest(t, map[string]string{"tn_a/camp_1": "two"})
		})
	}
}

// If the store does not answer, the relay gives up any of its calls and repeats it.
func TestStoreSilent(t *testing.T) {
	t.Parallel()
	w := newEnv(t)
	w.out.silent = 1
	w.run(t)
	w.out.put("tn_a/camp_1", []byte("one"))
	w.newest(t, map[string]string{"tn_a/camp_1": "one"})
	w.out.set(func() { w.out.silent = 1 })
	w.out.put("tn_a/camp_1", []byte("two"))
	w.newest(t, map[string]string{"tn_a/camp_1": "two"})
}

// Of two relays one leads; when it stops, the other takes over.
func TestStandbyTakesOver(t *testing.T) {
	w := newEnv(t)
	stopFirst := w.run(t)
	w.run(t)
	w.out.put("tn_a/camp_1", []byte("one"))
	w.newest(t, map[string]string{"tn_a/camp_1": "one"})
	stopFirst()
	w.out.put("tn_a/camp_1", []byte("two"))
	w.newest(t, map[string]string{"tn_a/camp_1": "two"})
}
