package sender

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/ratelimit"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

// fakeView is a control view whose content the test sets.
type fakeView struct {
	mu        sync.Mutex
	campaigns map[string]*fanfarev1.Campaign
	tenants   map[string]*fanfarev1.Tenant
	senders   map[string]*fanfarev1.Sender
	routes    map[string]*fanfarev1.Route
	optedOut  map[string]bool
	age       time.Duration
	optOutAge time.Duration
	changed   chan struct{}
}

func newFakeView() *fakeView {
	return &fakeView{
		campaigns: map[string]*fanfarev1.Campaign{}, tenants: map[string]*fanfarev1.Tenant{"tn_a": {Id: "tn_a", Enabled: true}},
		senders: map[string]*fanfarev1.Sender{}, optedOut: map[string]bool{}, changed: make(chan struct{}),
		routes: map[string]*fanfarev1.Route{"sim": {Name: "sim", Connector: "sim", Rate: 1_000, P99Ms: 600, Enabled: true}},
	}
}

// set changes the view and wakes the goroutines that wait for a change.
func (b *fakeView) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
	close(b.changed)
	b.changed = make(chan struct{})
}

func read[T any](b *fakeView, f func() T) T {
	b.mu.Lock()
	defer b.mu.Unlock()
	return f()
}

func (b *fakeView) Campaign(id string) *fanfarev1.Campaign {
	return read(b, func() *fanfarev1.Campaign { return b.campaigns[id] })
}

func (b *fakeView) Tenant(id string) *fanfarev1.Tenant {
	return read(b, func() *fanfarev1.Tenant { return b.tenants[id] })
}

func (b *fakeView) Sender(tenant, id string) *fanfarev1.Sender {
	return read(b, func() *fanfarev1.Sender { return b.senders[tenant+"/"+id] })
}

func (b *fakeView) Route(name string) *fanfarev1.Route {
	return read(b, func() *fanfarev1.Route { return b.routes[name] })
}

func (b *fakeView) Routes() []*fanfarev1.Route {
	return read(b, func() []*fanfarev1.Route { return slices.Collect(maps.Values(b.routes)) })
}

func (b *fakeView) OptedOut(tenant, to string, _ schemas.Channel) bool {
	return read(b, func() bool { return b.optedOut[tenant+to] })
}
func (b *fakeView) Age() time.Duration { return read(b, func() time.Duration { return b.age }) }
func (b *fakeView) SuppressionsAge() time.Duration {
	return read(b, func() time.Duration { return b.optOutAge })
}

func (b *fakeView) Changed() <-chan struct{} {
	return read(b, func() <-chan struct{} { return b.changed })
}

// campaign puts a campaign on the fakeView in its next version.
func (b *fakeView) campaign(n uint64, state schemas.State, change ...func(*fanfarev1.Campaign)) {
	b.set(func() {
		id := schemas.CampaignID(n)
		c := &fanfarev1.Campaign{Tenant: "tn_a", Id: id, Number: n}
		if old := b.campaigns[id]; old != nil {
			c, _ = proto.Clone(old).(*fanfarev1.Campaign)
		}
		c.Version++
		c.State = state
		for _, f := range change {
			f(c)
		}
		b.campaigns[id] = c
	})
}

// tokens is a limiter that the test controls: it grants as the test says, and blocks while it is away.
type tokens struct {
	mu        sync.Mutex
	away      chan struct{} // not nil: Take waits for it to be closed
	grant     func(r ratelimit.Request) ratelimit.Grant
	life      time.Duration
	taken     int
	back      int
	throttled int
	requests  []ratelimit.Request
}

func (k *tokens) Take(ctx context.Context, reqs []ratelimit.Request, grants []ratelimit.Grant) error {
	k.mu.Lock()
	away := k.away
	k.mu.Unlock()
	if away != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-away:
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, r := range reqs {
		k.requests = append(k.requests, r)
		now := time.Now()
		if k.grant != nil {
			grants[i] = k.grant(r)
		} else {
			grants[i] = ratelimit.Grant{Tokens: r.Want, Ready: now, Until: now.Add(k.life)}
		}
		k.taken += grants[i].Tokens
	}
	return nil
}

func (k *tokens) Leased([]ratelimit.Request, []ratelimit.Grant) bool { return false }

func (k *tokens) Put(_ ratelimit.Set, n int, _ time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.back += n
}

func (k *tokens) Throttled(context.Context, string) (float64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.throttled++
	return 0.5, nil
}

func (k *tokens) Senders(string) int { return 1 }

// fakeCarrier is a carrier that the test controls.
type fakeCarrier struct {
	caps carrier.Caps
	// reply answers one message; false: no answer yet.
	reply func(o carrier.Outbound) (carrier.Result, bool)
	// before is called at the beginning of each Send and may wait or fail.
	before func(ctx context.Context, batch []carrier.Outbound) error
	// writeAfter: Send returns at once, and the batch is written when the channel is closed. nil: it is written in
	// Send.
	writeAfter <-chan struct{}

	mu      sync.Mutex
	batches [][]carrier.Outbound
	at      []time.Time
	pending []func(carrier.Result)
}

func (s *fakeCarrier) Caps() carrier.Caps { return s.caps }

func (s *fakeCarrier) Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	if s.before != nil {
		if err := s.before(ctx, batch); err != nil {
			return err
		}
	}
	if s.writeAfter == nil {
		s.write(batch, done)
		return nil
	}
	go func() {
		<-s.writeAfter
		s.write(batch, done)
	}()
	return nil
}

// write hands over the messages that have not expired, and answers them.
func (s *fakeCarrier) write(batch []carrier.Outbound, done func(int, carrier.Result)) {
	var written []carrier.Outbound
	for i := range batch {
		if !batch[i].Expired(time.Now()) {
			written = append(written, batch[i])
		}
	}
	s.mu.Lock()
	s.batches = append(s.batches, written)
	s.at = append(s.at, time.Now())
	s.mu.Unlock()
	for i, o := range batch {
		if o.Expired(time.Now()) {
			done(i, carrier.Result{Outcome: carrier.Retryable, Code: carrier.CodeDeadline})
			continue
		}
		r, now := carrier.Result{Outcome: carrier.Accepted, Ref: "ref-" + o.Key.String()}, true
		if s.reply != nil {
			r, now = s.reply(o)
		}
		if now {
			done(i, r)
			continue
		}
		s.mu.Lock()
		s.pending = append(s.pending, func(r carrier.Result) { done(i, r) })
		s.mu.Unlock()
	}
}

func (s *fakeCarrier) Drain(context.Context) error { return nil }
func (s *fakeCarrier) Health() carrier.Health      { return carrier.Health{Ready: true} }

// seen returns all that was handed over.
func (s *fakeCarrier) seen() (all []carrier.Outbound) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.batches {
		all = append(all, b...)
	}
	return all
}

// answer answers all outstanding messages with r.
func (s *fakeCarrier) answer(r carrier.Result) {
	s.mu.Lock()
	pending := s.pending
	s.pending = nil
	s.mu.Unlock()
	for _, f := range pending {
		f(r)
	}
}

// fakeItem is an item that records the calls of its methods.
type fakeItem struct {
	env      *env
	n        int
	mu       sync.Mutex
	refuse   bool // Begin
	deadline time.Time
	begun    bool
	doubted  bool
	gone     bool
	crowded  bool
	doubts   []*fanfarev1.Delivery
	outcomes []*fanfarev1.Delivery
	late     []*fanfarev1.Delivery
	settled  *kgo.Record
	at       time.Time
}

func (s *fakeItem) Begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun {
		s.env.t.Errorf("message %d is begun twice", s.n)
	}
	s.begun = !s.refuse
	return s.begun
}

func (s *fakeItem) Return() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun {
		s.env.t.Errorf("message %d is returned without having begun", s.n)
	}
	s.begun = false
	return !s.refuse
}

func (s *fakeItem) Doubt(r *kgo.Record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settled != nil {
		return false
	}
	s.doubted = true
	s.doubts = append(s.doubts, s.env.delivery(r))
	return true
}

func (s *fakeItem) Doubted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.doubted && s.settled == nil && !s.gone
}

func (s *fakeItem) BeginAgain() bool { return s.Doubted() && !s.refuse }

func (s *fakeItem) Clear() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.doubted || s.settled != nil || s.gone {
		return false
	}
	s.doubted, s.begun = false, false
	return true
}

func (s *fakeItem) Crowded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crowded
}

func (s *fakeItem) Deadline() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.deadline.IsZero() {
		return s.deadline
	}
	return time.Now().Add(8 * time.Second)
}

func (s *fakeItem) Settle(r *kgo.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled, s.at = r, time.Now()
	s.outcomes = append(s.outcomes, s.env.delivery(r))
	if len(s.outcomes) > 1 {
		s.env.t.Errorf("message %d is settled twice: %v", s.n, s.outcomes)
	}
}

func (s *fakeItem) Late(r *kgo.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = append(s.late, s.env.delivery(r))
}

// outcome returns the message's outcome, nil without.
func (s *fakeItem) outcome() *fanfarev1.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.outcomes) == 0 {
		return nil
	}
	return s.outcomes[0]
}

// fakePublisher replaces the window's Produce.
type fakePublisher struct {
	mu   sync.Mutex
	gate chan struct{} // not nil: Produce waits for it
	recs []*kgo.Record
}

func (l *fakePublisher) Produce(ctx context.Context, recs ...*kgo.Record) error {
	l.mu.Lock()
	gate := l.gate
	l.mu.Unlock()
	if gate != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-gate:
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recs = append(l.recs, recs...)
	return nil
}

func (l *fakePublisher) all() []*kgo.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.recs)
}

// env is one lane in a synctest bubble; the test controls everything around the lane.
type env struct {
	t         *testing.T
	keys      *schemas.Keys
	view      *fakeView
	tokens    *tokens
	carrier   *fakeCarrier
	published *fakePublisher
	line      Line
	meet      Rendezvous
	lane      *lane
	items     []*fakeItem
	stop      context.CancelFunc
}

// inEnv runs f in a bubble. lane is started by f with e.start, after it has set up what it wants.
func inEnv(t *testing.T, f func(e *env)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := &env{
			t: t, keys: testKeys(t), view: newFakeView(), tokens: &tokens{life: 50 * time.Millisecond},
			carrier: &fakeCarrier{caps: carrier.Caps{MaxBatch: 1_000, EchoesKey: true}}, published: &fakePublisher{},
		}
		e.view.campaign(10001, schemas.StateSending)
		f(e)
		if e.stop != nil {
			e.stop()
			synctest.Wait()
		}
	})
}

func (e *env) start(name schemas.Lane) {
	e.t.Helper()
	if e.line.Live == nil {
		e.line.Live = e.carrier
	}
	cfg := Config{Cluster: stream.Cluster{Names: testNames(e.t), Logger: slog.New(slog.DiscardHandler)}, Keys: e.keys, Now: time.Now, BreakerPause: DefaultBreakerPause}
	c, err := newRouteSender(&cfg, &Deps{View: e.view, Tokens: e.tokens, Rendezvous: e.meet}, newMetrics(nil), e.view.Route("sim"), e.line)
	if err != nil {
		e.t.Fatal(err)
	}
	e.lane = newLane(c, name)
	e.lane.window = e.published
	ctx, cancel := context.WithCancel(e.t.Context())
	e.stop = cancel
	go func() { _ = e.lane.run(ctx) }()
	go func() { _ = c.slowDown(ctx) }()
}

// release passes messages to the lane, as a window does.
func (e *env) release(messages ...*fanfarev1.Message) []*fakeItem {
	e.t.Helper()
	var batch []*entry
	for _, m := range messages {
		s := &fakeItem{env: e, n: len(e.items)}
		e.items = append(e.items, s)
		batch = append(batch, &entry{item: s, rec: messageRecord(e.t, e.keys, m), released: time.Now()})
	}
	e.lane.release(batch)
	return e.items[len(e.items)-len(messages):]
}

// messages returns n messages of campaign 10001.
func messages(n int) (out []*fanfarev1.Message) {
	for i := range n {
		out = append(out, testMessage(10001, uint32(i), 1))
	}
	return out
}

func (e *env) delivery(r *kgo.Record) *fanfarev1.Delivery {
	e.t.Helper()
	d := &fanfarev1.Delivery{}
	if r.Topic != "t.deliveries" {
		return d
	}
	if err := proto.Unmarshal(r.Value, d); err != nil {
		e.t.Fatal(err)
	}
	return d
}

// after advances the time by d and waits until all goroutines block.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// want checks the outcomes of items: all of one kind and code; kind 0 is none.
func (e *env) want(what string, items []*fakeItem, kind schemas.Kind, code schemas.Code) {
	e.t.Helper()
	for _, s := range items {
		d := s.outcome()
		if d.GetKind() != kind || d.GetCode() != code {
			e.t.Errorf("%s: message %d: got %s/%s, want %s/%s", what, s.n, d.GetKind(), d.GetCode(), kind, code)
			return
		}
	}
}

func (e *env) wantSeen(what string, n int) {
	e.t.Helper()
	if got := len(e.carrier.seen()); got != n {
		e.t.Errorf("%s: got %d handed over, want %d", what, got, n)
	}
}

// Short names for the kinds that tests use most.
const (
	none          = schemas.KindUnspecified
	sent          = schemas.KindSent
	ambiguousKind = schemas.KindAmbiguous
	returnedKind  = schemas.KindReturned
	notSentKind   = schemas.KindNotSent
	skippedKind   = schemas.KindSkipped

	noCode   = schemas.CodeUnspecified
	awaiting = schemas.CodeAwaitingDLR
)
