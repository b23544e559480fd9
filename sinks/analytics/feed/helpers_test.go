package feed

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
	"fanfare/sinks/analytics/analyticstest"
	"fanfare/sinks/analytics/clickhouse"
	"fanfare/sinks/analytics/sqlite"
)

// world is a Kafka with the topics, campaigns that everybody knows, and a writer of delivery events.
type world struct {
	stream.Cluster
	adm  *kadm.Client
	cl   *kgo.Client
	view *fakeView
	keys *schemas.Keys
	rng  *mrand.Rand
}

// newWorld starts kfake, or uses the Kafka that FANFARE_TEST_KAFKA names, under a prefix of its own.
func newWorld(t testing.TB) *world {
	t.Helper()
	names, err := schemas.NewNames("t" + strings.ToLower(rand.Text()[:10]) + ".")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{view: newFakeView(), keys: testKeys(t), rng: mrand.New(mrand.NewPCG(1, 1))}
	w.Cluster = stream.Cluster{Names: names, Logger: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()}
	if testing.Verbose() && os.Getenv("FANFARE_TEST_LOG") != "" {
		w.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if addr := os.Getenv("FANFARE_TEST_KAFKA"); addr != "" {
		w.Brokers = strings.Split(addr, ",")
	} else {
		fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()), kfake.GroupMinSessionTimeout(100*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(fake.Close)
		w.Brokers = fake.ListenAddrs()
	}
	if w.cl, err = w.Named("test").Client(kgo.ProducerLinger(0)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.cl.Close)
	w.adm = kadm.NewClient(w.cl)
	var topics []schemas.Topic
	for _, topic := range names.Fixed() {
		if strings.HasPrefix(topic.Name, names.Deliveries()) {
			topics = append(topics, topic)
		}
	}
	if err := stream.EnsureTopics(t.Context(), w.adm, 1, topics); err != nil {
		t.Fatal(err)
	}
	return w
}

// fakeView is a control plane that is as old as the test says.
type fakeView struct {
	mu        sync.Mutex
	campaigns map[string]*fanfarev1.Campaign
	read      time.Time // when it was last known to be complete; zero: always
	changed   chan struct{}
}

func newFakeView() *fakeView {
	return &fakeView{campaigns: map[string]*fanfarev1.Campaign{}, changed: make(chan struct{})}
}

func (v *fakeView) Campaign(id string) *fanfarev1.Campaign {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.campaigns[id]
}

func (v *fakeView) Age() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.read.IsZero() {
		return 0
	}
	return time.Since(v.read)
}

func (v *fakeView) Changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

func (v *fakeView) put(c *analytics.Campaign) {
	number, _ := schemas.CampaignNumber(c.ID)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.campaigns[c.ID] = &fanfarev1.Campaign{Tenant: c.Tenant, Id: c.ID, Number: number, ConfirmedMs: c.Month.AddDate(0, 0, 9).UnixMilli()}
	close(v.changed)
	v.changed = make(chan struct{})
}

// record makes a record of an event.
func (w *world) record(e analytics.Event) *kgo.Record {
	number, _ := schemas.CampaignNumber(e.Campaign.ID)
	message, submission := w.keys.Message(number, e.Seq), w.keys.Submission(number, e.Seq, max(e.Try, 1))
	d := &fanfarev1.Delivery{
		Tenant: e.Campaign.Tenant, CampaignId: e.Campaign.ID, CampaignNumber: number, Seq: e.Seq, Try: uint32(e.Try), Leg: uint32(e.Leg), Kind: e.Kind, Code: e.Code,
		RawCode: e.RawCode, TimeMs: e.TimeMS, Channel: e.Channel, Route: e.Route, Sender: e.Sender, To: e.To, Country: e.Country, Variant: uint32(e.Variant),
		Segments: uint32(e.Segments), PriceMicros: uint64(e.PriceMicros), Currency: e.Currency, ProviderId: e.ProviderID, LinkId: e.LinkID, CustomerRef: e.CustomerRef,
		ContactId: e.ContactID, MessageId: message[:], SubmissionId: submission[:],
	}
	r, err := schemas.DeliveryEvent(w.Names.Deliveries(), "test", d, "").Record()
	if err != nil {
		panic(err)
	}
	return r
}

// history makes up campaigns that the view knows and everything that happens in them, shuffled, with duplicates.
func (w *world) history(recipients int) (campaigns []*analytics.Campaign, records []*kgo.Record) {
	for i, tenant := range []string{"tn_a", "tn_a", "tn_b"} {
		c := analyticstest.NewCampaign(tenant, uint64(10_001+i), time.Now().AddDate(0, -i, 0))
		w.view.put(c)
		campaigns = append(campaigns, c)
		for _, e := range analyticstest.History(w.rng, c, recipients) {
			for n := 1 + w.rng.IntN(8)/7; n > 0; n-- {
				records = append(records, w.record(e))
			}
		}
	}
	w.rng.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	return campaigns, records
}

// produce writes records, waiting for each to be acknowledged.
func (w *world) produce(t testing.TB, records ...*kgo.Record) {
	t.Helper()
	if err := w.cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// produceMixed writes records a few at a time: alone, in transactions, and, beside them, some in transactions that are aborted.
func (w *world) produceMixed(t testing.TB, records []*kgo.Record) {
	t.Helper()
	txn, err := w.Named("test-txn").Client(kgo.TransactionalID(w.Names.Prefix()+"test"), kgo.ProducerLinger(0))
	if err != nil {
		t.Fatal(err)
	}
	defer txn.Close()
	rng := mrand.New(mrand.NewPCG(2, 2))
	for len(records) > 0 {
		n := min(len(records), 1+rng.IntN(200))
		part := records[:n]
		records = records[n:]
		kind := rng.IntN(3)
		if kind == 0 {
			w.produce(t, part...)
			continue
		}
		for _, try := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit}[kind-1:] {
			if err := txn.BeginTransaction(); err != nil {
				t.Error(err)
				return
			}
			for _, r := range part {
				again := *r
				txn.Produce(context.Background(), &again, nil)
			}
			if err := txn.Flush(context.Background()); err != nil {
				t.Error(err)
				return
			}
			if err := txn.EndTransaction(context.Background(), try); err != nil {
				t.Error(err)
				return
			}
		}
	}
}

// model reads the topic to its end, by the protobuf library, and answers from a list.
func (w *world) model(t testing.TB) *analyticstest.Model {
	t.Helper()
	m := analyticstest.NewModel()
	for _, r := range w.read(t, w.Names.Deliveries()) {
		var d fanfarev1.Delivery
		if err := proto.Unmarshal(r.Value, &d); err != nil {
			continue
		}
		row := w.view.Campaign(d.CampaignId)
		if row == nil || row.Tenant != d.Tenant || len(d.MessageId) != 16 {
			continue
		}
		e := wantEvent(&d)
		e.Offset = r.Offset
		e.Campaign = &analytics.Campaign{Tenant: row.Tenant, ID: row.Id, Month: analytics.MonthOf(time.UnixMilli(row.ConfirmedMs))}
		m.Append(analytics.Batch{Topic: analyticstest.Topic, Partition: r.Partition, First: r.Offset, End: r.Offset + 1, Events: []analytics.Event{e}})
	}
	return m
}

// read returns all committed records of a topic.
func (w *world) read(t testing.TB, topic string) (out []*kgo.Record) {
	t.Helper()
	ends, err := w.adm.ListCommittedOffsets(t.Context(), topic)
	if err != nil || ends.Error() != nil {
		t.Fatal(err, ends.Error())
	}
	cl, err := w.Named("reader").Client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read %s: nothing more comes, want up to %v", topic, left)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				out = append(out, r)
			}
			if end, ok := left[r.Partition]; ok && r.Offset+1 >= end {
				delete(left, r.Partition)
			}
		})
	}
	return out
}

func newStore(t testing.TB) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "analytics.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// tokenStore knows batches by their tokens alone, as ClickHouse does, and finds whoever uses a token for other rows.
type tokenStore struct {
	analytics.Store // hides that the one below keeps positions
	mu              sync.Mutex
	tokens          map[string][sha256.Size]byte
	again           int // batches that came again
	violations      []string
	fail            func() (before, after error)
}

func newTokenStore(t testing.TB) *tokenStore {
	return &tokenStore{Store: struct{ analytics.Store }{newStore(t)}, tokens: map[string][sha256.Size]byte{}}
}

func (s *tokenStore) Append(ctx context.Context, batches ...analytics.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range batches {
		var before, after error
		if s.fail != nil {
			before, after = s.fail()
		}
		if before != nil {
			return before
		}
		h := sha256.New()
		for i := range b.Events {
			e := b.Events[i]
			fmt.Fprintf(h, "%s %s", e.Campaign.Tenant, e.Campaign.ID)
			e.Campaign = nil
			fmt.Fprintf(h, "%+v\n", e)
		}
		sum := [sha256.Size]byte(h.Sum(nil))
		token := b.Token()
		if known, ok := s.tokens[token]; ok {
			s.again++
			if known != sum {
				s.violations = append(s.violations, token)
			}
		} else {
			b.Topic = analytics.TopicID{}
			if err := s.Store.Append(ctx, b); err != nil {
				return err
			}
			s.tokens[token] = sum
		}
		if after != nil {
			return after
		}
	}
	return nil
}

// tiles checks that the batches cover every partition from its beginning to its end, once.
func (s *tokenStore) tiles(t *testing.T, w *world) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[int64]map[int64]int64{} // partition, first, end
	for token := range s.tokens {
		var partition, first, last int64
		if _, err := fmt.Sscanf(token[2*len(analytics.TopicID{}):], "-%d-%d-%d", &partition, &first, &last); err != nil {
			t.Fatalf("token %s: %v", token, err)
		}
		if next[partition] == nil {
			next[partition] = map[int64]int64{}
		}
		next[partition][first] = last + 1
	}
	ends, err := w.adm.ListCommittedOffsets(t.Context(), w.Names.Deliveries())
	if err != nil {
		t.Fatal(err)
	}
	ends.Each(func(o kadm.ListedOffset) {
		at, n := int64(0), 0
		for ; at < o.Offset; n++ {
			end, ok := next[int64(o.Partition)][at]
			if !ok {
				t.Errorf("partition %d: no batch begins at %d", o.Partition, at)
				return
			}
			at = end
		}
		if n != len(next[int64(o.Partition)]) || at != o.Offset {
			t.Errorf("partition %d: got %d batches, the last of those that follow one another ending at %d, want %d to %d", o.Partition, len(next[int64(o.Partition)]), at, n, o.Offset)
		}
	})
}

// running is a feed at work, as if it were a process of its own.
type running struct {
	*Feed
	cut  func()
	stop context.CancelFunc
	done chan error
}

// start runs a feed whose connections can be cut.
func (w *world) start(t testing.TB, store analytics.Store, change func(*Config), interrupted func(*running) func(string) error) *running {
	t.Helper()
	cut := &cutter{conns: map[net.Conn]bool{}}
	cfg := Config{Cluster: w.Cluster, Store: store, Campaigns: w.view, Interval: 20 * time.Millisecond, SessionTimeout: time.Second, DrainTimeout: time.Second}
	cfg.Cluster.Options = []kgo.Opt{kgo.Dialer(cut.dial)}
	if change != nil {
		change(&cfg)
	}
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{Feed: f, cut: cut.cut, stop: stop, done: make(chan error, 1)}
	if interrupted != nil {
		f.interrupted = interrupted(r)
	}
	go func() { r.done <- f.Run(ctx) }()
	t.Cleanup(func() { _ = r.end(t) })
	return r
}

// end stops the feed and returns what Run returned.
func (r *running) end(t testing.TB) error {
	t.Helper()
	r.stop()
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the feed does not end")
		return nil
	}
}

// cutter is a network that can be cut, as by the end of the process: nobody says goodbye.
type cutter struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
	gone  bool
}

var errCut = errors.New("killed")

func (c *cutter) dial(ctx context.Context, network, host string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, host)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		conn.Close()
		return nil, errCut
	}
	c.conns[conn] = true
	return conn, nil
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	for conn := range c.conns {
		conn.Close()
	}
}

// caughtUp waits until the store is complete as of now.
func caughtUp(t testing.TB, s analytics.Store) {
	t.Helper()
	now := time.Now()
	deadline := now.Add(3 * time.Minute) // a busy machine throws members out of the group, and kfake takes a minute to settle then
	for {
		at, err := s.AsOf(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if at.After(now) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the store is complete as of %v, want %v", at, now)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func compareAll(t *testing.T, s analytics.Store, m *analyticstest.Model, campaigns []*analytics.Campaign) {
	t.Helper()
	for _, c := range campaigns {
		analyticstest.Compare(t, s, m, c.Tenant, c.ID)
	}
}

// counted is the value of a counter.
func counted(c prometheus.Counter) float64 {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		return -1
	}
	return m.GetCounter().GetValue()
}

// newClickHouse opens a store in a database of its own, dropped at the end; and, when it is reached over a line, another that is not.
func newClickHouse(t testing.TB, over *line) (store, beside analytics.Store) {
	t.Helper()
	dsn := os.Getenv("FANFARE_TEST_CLICKHOUSE")
	database := "test_" + strings.ToLower(rand.Text()[:12])
	open := func(dsn string) analytics.Store {
		s, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: dsn, Database: database})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	t.Cleanup(func() {
		opts, err := chgo.ParseDSN(dsn)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := chgo.Open(opts)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.Exec(context.Background(), "DROP DATABASE IF EXISTS "+database+" SYNC"); err != nil {
			t.Error(err)
		}
	})
	store = open(dsn)
	if over != nil {
		opts, err := chgo.ParseDSN(dsn)
		if err != nil {
			t.Fatal(err)
		}
		over.mu.Lock()
		over.to = opts.Addr[0]
		over.mu.Unlock()
		beside, store = store, open(strings.Replace(dsn, opts.Addr[0], over.addr, 1))
	}
	return store, beside
}

// line is a TCP connection that can be cut.
type line struct {
	addr, to string
	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
}

func newLine(t testing.TB) *line {
	t.Helper()
	l := &line{conns: map[net.Conn]bool{}}
	var err error
	if l.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	l.addr = l.listener.Addr().String()
	go l.serve(l.listener)
	t.Cleanup(func() { l.cut(true) })
	return l
}

func (l *line) serve(listener net.Listener) {
	for {
		in, err := listener.Accept()
		if err != nil {
			return
		}
		l.mu.Lock()
		to := l.to
		l.mu.Unlock()
		out, err := net.Dial("tcp", to)
		if err != nil {
			in.Close()
			continue
		}
		l.mu.Lock()
		l.conns[in], l.conns[out] = true, true
		l.mu.Unlock()
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			go func() {
				_, _ = io.Copy(pair[0], pair[1])
				pair[0].Close()
				pair[1].Close()
			}()
		}
	}
}

// cut ends what is connected; with gone nobody can connect either.
func (l *line) cut(gone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if gone {
		l.listener.Close()
	}
	for conn := range l.conns {
		conn.Close()
	}
	clear(l.conns)
}

// mend lets connections through again, at the same address.
func (l *line) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		listener, err := net.Listen("tcp", l.addr)
		if err == nil {
			l.listener = listener
			go l.serve(listener)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
