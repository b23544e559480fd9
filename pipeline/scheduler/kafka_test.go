package scheduler

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// plant is a Kafka with topics of its own, the control plane in memory, and a loop that stands for expander, sender and carrier.
type plant struct {
	t       testing.TB
	cluster stream.Cluster
	fake    *kfake.Cluster // nil on any other broker
	keys    *schemas.Keys
	plane   *plane
	carrier *carrier
	hook    atomic.Pointer[error]
}

const plantRate = 2000

func newPlant(t *testing.T) *plant {
	t.Helper()
	t.Parallel() // they mostly wait
	return newPlantTB(t)
}

func newPlantTB(t testing.TB) *plant {
	t.Helper()
	if addr := os.Getenv("FANFARE_TEST_KAFKA"); addr != "" {
		return newPlantOn(t, strings.Split(addr, ","), nil)
	}
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	return newPlantOn(t, fake.ListenAddrs(), fake)
}

// newPlantOn makes a plant on a broker.
func newPlantOn(t testing.TB, brokers []string, fake *kfake.Cluster) *plant {
	t.Helper()
	names, err := schemas.NewNames("t" + strings.ToLower(rand.Text()[:10]) + ".")
	if err != nil {
		t.Fatal(err)
	}
	p := &plant{t: t, cluster: stream.Cluster{Names: names, Logger: slog.New(slog.NewTextHandler(testWriter{}, &slog.HandlerOptions{Level: slog.LevelInfo}))}}
	p.cluster.Brokers, p.fake = brokers, fake
	if p.keys, err = schemas.NewKeys([]byte("0123456789abcdef")); err != nil {
		t.Fatal(err)
	}
	cl := p.client()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := stream.EnsureTopics(ctx, kadm.NewClient(cl), 1, append(names.Fixed(), names.Route("sim")...)); err != nil {
		t.Fatal(err)
	}
	p.plane = newPlane()
	p.carrier = newCarrier(p)
	return p
}

type testWriter struct{}

func (w testWriter) Write(b []byte) (int, error) {
	if os.Getenv("FANFARE_TEST_LOG") != "" {
		fmt.Print(string(b))
	}
	return len(b), nil
}

func (p *plant) client(opts ...kgo.Opt) *kgo.Client {
	p.t.Helper()
	cl, err := p.cluster.Named("test").Client(append([]kgo.Opt{kgo.ProducerLinger(0)}, opts...)...)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(cl.Close)
	return cl
}

// process is a running scheduler whose network can be cut.
type process struct {
	*Scheduler
	stop func() error
	cut  *cutter
}

// cutter is a network that can be cut and mended.
type cutter struct {
	mu    sync.Mutex
	down  bool
	conns map[net.Conn]bool
}

func (c *cutter) dial(ctx context.Context, network, host string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return nil, errors.New("the network is cut")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, host)
	if err == nil {
		c.conns[conn] = true
	}
	return conn, err
}

func (c *cutter) set(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
	if down {
		for conn := range c.conns {
			_ = conn.Close()
		}
		clear(c.conns)
	}
}

// scheduler makes a scheduler whose network can be cut.
func (p *plant) scheduler(change ...func(*Config)) (*Scheduler, *cutter) {
	p.t.Helper()
	cut := &cutter{conns: map[net.Conn]bool{}}
	cluster := p.cluster
	cluster.Options = []kgo.Opt{kgo.Dialer(cut.dial)}
	cfg := Config{
		Cluster: cluster, Keys: p.keys, View: p.plane, Audience: p.plane, Store: p.plane, SessionTimeout: 6 * time.Second, SetsEvery: 300 * time.Millisecond,
		MayDeal: func() error {
			if err := p.hook.Load(); err != nil {
				return *err
			}
			return nil
		},
	}
	if p.fake != nil {
		cfg.SessionTimeout = 600 * time.Millisecond
	}
	for _, c := range change {
		c(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	return s, cut
}

// run starts a scheduler.
func (p *plant) run(change ...func(*Config)) *process {
	p.t.Helper()
	s, cut := p.scheduler(change...)
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return s.Run(ctx) })
	stopped := false
	pr := &process{Scheduler: s, cut: cut}
	pr.stop = func() error {
		cancel()
		stopped = true
		return g.Wait()
	}
	p.t.Cleanup(func() {
		if !stopped {
			cut.set(true)
			cancel()
		}
	})
	return pr
}

// patience is how long anything may take on a machine that has much else to do.
const patience = 90 * time.Second

// eventually waits for a condition.
func (p *plant) eventually(what string, ok func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			p.t.Fatalf("after %s: not %s; %s", patience, what, p.carrier)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// still waits until nothing is dealt any more for a while, and returns how many were.
func (p *plant) still() int {
	p.t.Helper()
	n, since := p.carrier.submissions(), time.Now()
	p.eventually("still", func() bool {
		if now := p.carrier.submissions(); now != n {
			n, since = now, time.Now()
		}
		return time.Since(since) > 500*time.Millisecond
	})
	return n
}

func (p *plant) settled(number uint64) func() bool {
	return func() bool { return p.plane.campaign(number).GetSettled() }
}

// value reads a counter or a gauge.
func value(t testing.TB, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}

// plane is the control plane: view, store and audiences in memory.
type plane struct {
	mu        sync.Mutex
	campaigns map[uint64]*fanfarev1.Campaign
	routes    []*fanfarev1.Route
	changed   chan struct{}
	ready     chan struct{}
	size      map[uint64]uint32
	captured  map[uint64]uint64
	away      bool
	stale     bool
	applied   []schemas.Change
}

func newPlane() *plane {
	pl := &plane{
		campaigns: map[uint64]*fanfarev1.Campaign{}, changed: make(chan struct{}), ready: make(chan struct{}), size: map[uint64]uint32{}, captured: map[uint64]uint64{},
		routes: []*fanfarev1.Route{{Name: "sim", Rate: plantRate, P99Ms: 100, Enabled: true}},
	}
	close(pl.ready)
	return pl
}

func (pl *plane) Ready() <-chan struct{} { return pl.ready }

func (pl *plane) Age() time.Duration {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if pl.stale {
		return 6 * time.Second
	}
	return 0
}

func (pl *plane) Changed() <-chan struct{} {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	return pl.changed
}

func (pl *plane) Campaigns() (out []*fanfarev1.Campaign) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	for _, c := range pl.campaigns {
		out = append(out, c)
	}
	return out
}

func (pl *plane) Routes() []*fanfarev1.Route {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	return pl.routes
}

func (pl *plane) Tenant(id string) *fanfarev1.Tenant { return &fanfarev1.Tenant{Id: id, Enabled: true} }

func (pl *plane) Sender(string, string) *fanfarev1.Sender { return nil }

func (pl *plane) campaign(number uint64) *fanfarev1.Campaign {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	return pl.campaigns[number]
}

// put publishes a campaign; the lock is held.
func (pl *plane) put(r *fanfarev1.Campaign) {
	pl.campaigns[r.GetNumber()] = r
	close(pl.changed)
	pl.changed = make(chan struct{})
}

// confirm makes a campaign that is sent at once, and settles a second after its last hand-over.
func (pl *plane) confirm(number uint64, total uint32, change func(*fanfarev1.Campaign)) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	r := &fanfarev1.Campaign{
		Tenant: testTenant, Id: schemas.CampaignID(number), Number: number, Version: 1, State: fanfarev1.State_STATE_PREPARING,
		Legs:       []*fanfarev1.Leg{{Channel: fanfarev1.Channel_CHANNEL_SMS, Route: "sim", Sender: "S", PriceMicros: 50_000, MaxHandovers: 3, BackoffMs: []int64{100}}},
		ValidityMs: time.Hour.Milliseconds(), ReceiptWindowMs: 1000, ConfirmedMs: ms(time.Now()), CreatedMs: ms(time.Now()),
	}
	if change != nil {
		change(r)
	}
	pl.size[number] = total
	pl.put(r)
}

// act moves campaign 10001 as a user does.
func (pl *plane) act(change func(*fanfarev1.Campaign)) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	r := cloneRecord(pl.campaigns[10001])
	r.Version++
	change(r)
	pl.put(r)
}

var errAway = errors.New("the store is away")

func (pl *plane) Freeze(_ context.Context, _, campaign string, version uint64) error {
	number, _ := schemas.CampaignNumber(campaign)
	pl.mu.Lock()
	defer pl.mu.Unlock()
	r := pl.campaigns[number]
	switch {
	case pl.away:
		return errAway
	case r.GetFreezeId() != "":
		return nil
	case r.GetVersion() != version:
		return schemas.ErrConflict
	}
	r = cloneRecord(r)
	r.Version++
	r.FreezeId, r.Total = fmt.Sprint("freeze", number), pl.size[number]
	pl.put(r)
	return nil
}

const plantBlob = 500

func (pl *plane) Blobs(_ context.Context, freezeID string) (out []audience.Index, err error) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if pl.away {
		return nil, errAway
	}
	for number, total := range pl.size {
		if freezeID == fmt.Sprint("freeze", number) {
			for at := uint32(0); at < total; at += plantBlob {
				out = append(out, audience.Index{Blob: uint32(len(out)), First: at, Count: min(plantBlob, total-at), Zone: "UTC"})
			}
		}
	}
	return out, nil
}

func (pl *plane) Apply(_ context.Context, ch schemas.Change) (uint64, error) {
	number, _ := schemas.CampaignNumber(ch.Campaign)
	pl.mu.Lock()
	defer pl.mu.Unlock()
	r := pl.campaigns[number]
	switch {
	case pl.away:
		return 0, errAway
	case r.GetVersion() != ch.Version:
		return 0, schemas.ErrConflict
	case !ch.Settled && !schemas.CanTransition(r.GetState(), ch.To, ch.Trigger):
		return 0, schemas.ErrTransition
	}
	r = cloneRecord(r)
	r.Version++
	r.State, r.Reason = ch.To, ch.Reason
	if ch.Settled {
		r.Settled, r.SettledMs = true, ms(ch.At)
		pl.captured[number] = ch.Captured
	} else if ch.To == fanfarev1.State_STATE_COMPLETED {
		r.CompletedMs = ms(ch.At)
	}
	pl.applied = append(pl.applied, ch)
	pl.put(r)
	return r.GetVersion(), nil
}

func (pl *plane) setAway(away bool) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	pl.away = away
}

// carrier consumes chunks and writes outcomes at the route's rate. It is where is seen what really happened.
type carrier struct {
	p    *plant
	cl   *kgo.Client
	says func(submission) []fanfarev1.Kind // what becomes of a submission, in order; nil: sent, delivered

	mu      sync.Mutex
	taken   map[submission]int
	answers int
	acked   int
	refused error // the last one
	skipped int
	faults  []string
	mute    bool // answers nothing
}

func newCarrier(p *plant) *carrier {
	c := &carrier{p: p, taken: map[submission]int{}}
	c.cl = p.client(
		kgo.ConsumeTopics(p.cluster.Names.Chunks()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(50*time.Millisecond),
	)
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	queue := make(chan *fanfarev1.Chunk, 10_000)
	g.Go(func() error { return c.consume(ctx, queue) })
	g.Go(func() error { return c.answer(ctx, queue) })
	p.t.Cleanup(func() {
		cancel()
		_ = g.Wait()
	})
	return c
}

func (c *carrier) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%d submissions, %d answered, %d acknowledged (last refusal: %v), %d skipped", len(c.taken), c.answers, c.acked, c.refused, c.skipped)
}

func (c *carrier) submissions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.taken)
}

func (c *carrier) setMute(mute bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mute = mute
}

func (c *carrier) consume(ctx context.Context, queue chan<- *fanfarev1.Chunk) error {
	for ctx.Err() == nil {
		c.cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			ch := &fanfarev1.Chunk{}
			if err := proto.Unmarshal(r.Value, ch); err != nil {
				c.fault("chunk: %v", err)
				return
			}
			if want := schemas.CampaignKey(ch.GetTenant(), ch.GetCampaignId()) + "#" + fmt.Sprint(ch.GetDeal()); string(r.Key) != want {
				c.fault("chunk has key %s, want %s", r.Key, want)
			}
			queue <- ch
		})
	}
	return nil
}

func (c *carrier) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

// answer takes plantRate submissions a second.
func (c *carrier) answer(ctx context.Context, queue <-chan *fanfarev1.Chunk) error {
	const beat = 10 * time.Millisecond
	tick := time.NewTicker(beat)
	defer tick.Stop()
	var pending []submission
	cancels := map[uint64]*fanfarev1.Chunk{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case ch := <-queue:
			seqs, err := seqsOf(ch.GetFirstSeq(), ch.GetEndSeq(), ch.GetSeqs())
			if err != nil {
				c.fault("chunk: %v", err)
				continue
			}
			seqs.Iterate(func(seq uint32) bool {
				s := submission{ch.GetCampaignNumber(), seq, uint8(ch.GetTry()), uint8(ch.GetLeg())}
				c.mu.Lock()
				if c.taken[s]++; c.taken[s] > 1 {
					c.faults = append(c.faults, fmt.Sprintf("campaign %d seq %d try %d was dealt twice", s.campaign, s.seq, s.try))
				}
				c.mu.Unlock()
				if ch.GetPurpose() == fanfarev1.Chunk_PURPOSE_CANCEL {
					cancels[s.campaign] = ch
					c.write(ctx, s, ch.GetOutcome(), ch.GetCode())
				} else {
					pending = append(pending, s)
				}
				return true
			})
		case <-tick.C:
			c.mu.Lock()
			mute := c.mute
			c.mu.Unlock()
			if mute {
				continue
			}
			n := min(len(pending), int(plantRate*beat/time.Second))
			for _, s := range pending[:n] {
				c.outcome(ctx, s)
			}
			pending = pending[n:]
		}
	}
}

func (c *carrier) outcome(ctx context.Context, s submission) {
	r := c.p.plane.campaign(s.campaign)
	switch {
	case r.GetState() == fanfarev1.State_STATE_PAUSED:
		c.write(ctx, s, returnedKind, fanfarev1.Code_CODE_PAUSED)
	case stopping(r):
		c.write(ctx, s, fanfarev1.Kind_KIND_SKIPPED, fanfarev1.Code_CODE_CANCELLED)
	default:
		kinds := []fanfarev1.Kind{sentKind, deliveredKind}
		if c.says != nil {
			kinds = c.says(s)
		}
		for _, kind := range kinds {
			code := fanfarev1.Code_CODE_DELIVERED
			switch kind {
			case sentKind:
				code = fanfarev1.Code_CODE_AWAITING_DLR
			case bouncedKind:
				code = fanfarev1.Code_CODE_ABSENT_SUBSCRIBER
			case returnedKind:
				code = fanfarev1.Code_CODE_RATE
			case ambiguousKind:
				code = fanfarev1.Code_CODE_TIMEOUT
			default:
			}
			c.write(ctx, s, kind, code)
		}
	}
}

func (c *carrier) write(ctx context.Context, s submission, kind fanfarev1.Kind, code fanfarev1.Code) {
	c.mu.Lock()
	c.answers++
	if kind == fanfarev1.Kind_KIND_SKIPPED {
		c.skipped++
	}
	c.mu.Unlock()
	message, sub := c.p.keys.Message(s.campaign, s.seq), c.p.keys.Submission(s.campaign, s.seq, s.try)
	r, err := schemas.DeliveryEvent(c.p.cluster.Names.Deliveries(), "sender", &fanfarev1.Delivery{
		Tenant: testTenant, CampaignId: schemas.CampaignID(s.campaign), CampaignNumber: s.campaign, Seq: s.seq, Try: uint32(s.try), Leg: uint32(s.leg),
		Kind: kind, Code: code, TimeMs: ms(time.Now()), Segments: 1, PriceMicros: 50_000, MessageId: message[:], SubmissionId: sub[:],
	}, "").Record()
	if err != nil {
		c.fault("event: %v", err)
		return
	}
	c.produce(ctx, r)
}

// produce writes an outcome until it is acknowledged.
func (c *carrier) produce(ctx context.Context, r *kgo.Record) {
	again := *r
	c.cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case err == nil:
			c.acked++
		case ctx.Err() == nil:
			c.refused = err
			go c.produce(ctx, &again) // a promise must not produce
		}
	})
}

// check holds what must hold after every test: no (seq, try) was dealt twice, and everyone has the state that the log of
// deliveries gives, with nobody pending.
func (p *plant) check(number uint64, want map[schemas.Bucket]int) {
	p.t.Helper()
	p.carrier.mu.Lock()
	for _, f := range p.carrier.faults {
		p.t.Error(f)
	}
	p.carrier.mu.Unlock()
	state := map[uint32]schemas.Precedence{}
	proof := map[submission]bool{}
	p.readAll(p.cluster.Names.Deliveries(), func(r *kgo.Record) {
		var d fanfarev1.Delivery
		if err := proto.Unmarshal(r.Value, &d); err != nil {
			p.t.Error(err)
		}
		if d.GetCampaignNumber() == number {
			state[d.GetSeq()] = schemas.Join(state[d.GetSeq()], schemas.PrecedenceOf(d.GetKind(), d.GetTry(), d.GetCode()))
			if d.GetKind() == returnedKind || d.GetKind() == bouncedKind {
				proof[submission{number, d.GetSeq(), uint8(d.GetTry()), 0}] = true
			}
		}
	})
	p.carrier.mu.Lock()
	for s := range p.carrier.taken {
		if s.campaign == number && s.try > 1 && !proof[submission{number, s.seq, s.try - 1, 0}] {
			p.t.Errorf("seq %d was dealt at try %d without proof that the one before did not arrive", s.seq, s.try)
		}
	}
	p.carrier.mu.Unlock()
	got := map[schemas.Bucket]int{}
	for _, s := range state {
		got[s.Bucket()]++
	}
	if total := int(p.plane.campaign(number).GetTotal()); len(state) != total {
		p.t.Errorf("%d of %d recipients have a state", len(state), total)
	}
	for bucket, n := range want {
		if n >= 0 && got[bucket] != n {
			p.t.Errorf("%s: %d, want %d (all: %v)", bucket, got[bucket], n, got)
		}
		delete(got, bucket)
	}
	for bucket, n := range got {
		p.t.Errorf("%d recipients are %s, want none", n, bucket)
	}
}

// readAll reads a topic to its end.
func (p *plant) readAll(topic string, apply func(*kgo.Record)) {
	p.t.Helper()
	s := &Scheduler{cfg: Config{Cluster: p.cluster}}
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	if err := s.readToEnd(ctx, "test.read", []string{topic}, nil, apply); err != nil {
		p.t.Fatal(err)
	}
}
