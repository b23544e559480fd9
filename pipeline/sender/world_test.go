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

// board is a control view that a test writes.
type board struct {
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

func newBoard() *board {
	return &board{
		campaigns: map[string]*fanfarev1.Campaign{}, tenants: map[string]*fanfarev1.Tenant{"tn_a": {Id: "tn_a", Enabled: true}},
		senders: map[string]*fanfarev1.Sender{}, optedOut: map[string]bool{}, changed: make(chan struct{}),
		routes: map[string]*fanfarev1.Route{"sim": {Name: "sim", Connector: "sim", Rate: 1_000, P99Ms: 600, Enabled: true}},
	}
}

// set changes something and tells everybody.
func (b *board) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
	close(b.changed)
	b.changed = make(chan struct{})
}

func read[T any](b *board, f func() T) T {
	b.mu.Lock()
	defer b.mu.Unlock()
	return f()
}

func (b *board) Campaign(id string) *fanfarev1.Campaign {
	return read(b, func() *fanfarev1.Campaign { return b.campaigns[id] })
}

func (b *board) Tenant(id string) *fanfarev1.Tenant {
	return read(b, func() *fanfarev1.Tenant { return b.tenants[id] })
}

func (b *board) Sender(tenant, id string) *fanfarev1.Sender {
	return read(b, func() *fanfarev1.Sender { return b.senders[tenant+"/"+id] })
}

func (b *board) Route(name string) *fanfarev1.Route {
	return read(b, func() *fanfarev1.Route { return b.routes[name] })
}

func (b *board) Routes() []*fanfarev1.Route {
	return read(b, func() []*fanfarev1.Route { return slices.Collect(maps.Values(b.routes)) })
}

func (b *board) OptedOut(tenant, to string) bool {
	return read(b, func() bool { return b.optedOut[tenant+to] })
}
func (b *board) Age() time.Duration { return read(b, func() time.Duration { return b.age }) }
func (b *board) SuppressionsAge() time.Duration {
	return read(b, func() time.Duration { return b.optOutAge })
}

func (b *board) Changed() <-chan struct{} {
	return read(b, func() <-chan struct{} { return b.changed })
}

// campaign puts a campaign on the board in its next version.
func (b *board) campaign(n uint64, state fanfarev1.State, change ...func(*fanfarev1.Campaign)) {
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

// tokens is a limiter that a test writes: it grants what it is told to, and holds while it is away.
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

// script is a carrier that a test writes.
type script struct {
	caps carrier.Caps
	// reply answers one message; false: no answer yet.
	reply func(o carrier.Outbound) (carrier.Result, bool)
	// before is called at the beginning of each Send and may wait or fail.
	before func(ctx context.Context, batch []carrier.Outbound) error

	mu      sync.Mutex
	batches [][]carrier.Outbound
	at      []time.Time
	pending []func(carrier.Result)
}

func (s *script) Caps() carrier.Caps { return s.caps }

func (s *script) Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	if s.before != nil {
		if err := s.before(ctx, batch); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.batches = append(s.batches, slices.Clone(batch))
	s.at = append(s.at, time.Now())
	s.mu.Unlock()
	for i, o := range batch {
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
	return nil
}

func (s *script) Drain(context.Context) error { return nil }
func (s *script) Health() carrier.Health      { return carrier.Health{Ready: true} }

// seen returns all that was handed over.
func (s *script) seen() (all []carrier.Outbound) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.batches {
		all = append(all, b...)
	}
	return all
}

// answer gives the answers that are outstanding.
func (s *script) answer(r carrier.Result) {
	s.mu.Lock()
	pending := s.pending
	s.pending = nil
	s.mu.Unlock()
	for _, f := range pending {
		f(r)
	}
}

// slip is an item that remembers what was done to it.
type slip struct {
	w        *world
	n        int
	mu       sync.Mutex
	refuse   bool // Begin
	deadline time.Time
	begun    bool
	outcomes []*fanfarev1.Delivery
	late     []*fanfarev1.Delivery
	settled  *kgo.Record
	at       time.Time
}

func (s *slip) Begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun {
		s.w.t.Errorf("message %d is begun twice", s.n)
	}
	s.begun = !s.refuse
	return s.begun
}

func (s *slip) Deadline() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.deadline.IsZero() {
		return s.deadline
	}
	return time.Now().Add(8 * time.Second)
}

func (s *slip) Settle(r *kgo.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled, s.at = r, time.Now()
	s.outcomes = append(s.outcomes, s.w.delivery(r))
	if len(s.outcomes) > 1 {
		s.w.t.Errorf("message %d is settled twice: %v", s.n, s.outcomes)
	}
}

func (s *slip) Late(r *kgo.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = append(s.late, s.w.delivery(r))
}

// outcome returns the message's outcome, nil without.
func (s *slip) outcome() *fanfarev1.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.outcomes) == 0 {
		return nil
	}
	return s.outcomes[0]
}

// ledger is the window's way to publish.
type ledger struct {
	mu   sync.Mutex
	gate chan struct{} // not nil: Produce waits for it
	recs []*kgo.Record
}

func (l *ledger) Produce(ctx context.Context, recs ...*kgo.Record) error {
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

func (l *ledger) all() []*kgo.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.recs)
}

// world is one lane with everything around it written by the test, in a bubble of its own time.
type world struct {
	t       *testing.T
	keys    *schemas.Keys
	view    *board
	tokens  *tokens
	carrier *script
	ledger  *ledger
	line    Line
	meet    Rendezvous
	lane    *lane
	slips   []*slip
	stop    context.CancelFunc
}

// inWorld runs f in a bubble. lane is started by f with w.start, after it has set up what it wants.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t: t, keys: testKeys(t), view: newBoard(), tokens: &tokens{life: 50 * time.Millisecond},
			carrier: &script{caps: carrier.Caps{MaxBatch: 1_000, EchoesKey: true}}, ledger: &ledger{},
		}
		w.view.campaign(10001, fanfarev1.State_STATE_SENDING)
		f(w)
		if w.stop != nil {
			w.stop()
			synctest.Wait()
		}
	})
}

func (w *world) start(name schemas.Lane) {
	w.t.Helper()
	if w.line.Live == nil {
		w.line.Live = w.carrier
	}
	cfg := Config{Cluster: stream.Cluster{Names: testNames(w.t), Logger: slog.New(slog.DiscardHandler)}, Keys: w.keys, Now: time.Now, BreakerPause: DefaultBreakerPause}
	c, err := newCore(&cfg, &Deps{View: w.view, Tokens: w.tokens, Rendezvous: w.meet}, newMetrics(nil), w.view.Route("sim"), w.line)
	if err != nil {
		w.t.Fatal(err)
	}
	w.lane = newLane(c, name)
	w.lane.window = w.ledger
	ctx, cancel := context.WithCancel(w.t.Context())
	w.stop = cancel
	go func() { _ = w.lane.run(ctx) }()
	go func() { _ = c.slowDown(ctx) }()
}

// release gives messages to the lane, as a window does.
func (w *world) release(messages ...*fanfarev1.Message) []*slip {
	w.t.Helper()
	var batch []*entry
	for _, m := range messages {
		s := &slip{w: w, n: len(w.slips)}
		w.slips = append(w.slips, s)
		batch = append(batch, &entry{item: s, rec: messageRecord(w.t, w.keys, m), released: time.Now()})
	}
	w.lane.release(batch)
	return w.slips[len(w.slips)-len(messages):]
}

// messages returns n messages of campaign 10001.
func messages(n int) (out []*fanfarev1.Message) {
	for i := range n {
		out = append(out, testMessage(10001, uint32(i), 1))
	}
	return out
}

func (w *world) delivery(r *kgo.Record) *fanfarev1.Delivery {
	w.t.Helper()
	d := &fanfarev1.Delivery{}
	if r.Topic != "t.deliveries" {
		return d
	}
	if err := proto.Unmarshal(r.Value, d); err != nil {
		w.t.Fatal(err)
	}
	return d
}

// after lets so much time go by and everything settle.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// want checks the outcomes of slips: all of one kind and code; kind 0 is none.
func (w *world) want(what string, slips []*slip, kind fanfarev1.Kind, code fanfarev1.Code) {
	w.t.Helper()
	for _, s := range slips {
		d := s.outcome()
		if d.GetKind() != kind || d.GetCode() != code {
			w.t.Errorf("%s: message %d: got %s/%s, want %s/%s", what, s.n, d.GetKind(), d.GetCode(), kind, code)
			return
		}
	}
}

func (w *world) wantSeen(what string, n int) {
	w.t.Helper()
	if got := len(w.carrier.seen()); got != n {
		w.t.Errorf("%s: got %d handed over, want %d", what, got, n)
	}
}

// Short names of what tests want most.
const (
	none      = fanfarev1.Kind_KIND_UNSPECIFIED
	sent      = fanfarev1.Kind_KIND_SENT
	doubtful  = fanfarev1.Kind_KIND_AMBIGUOUS
	gaveBack  = fanfarev1.Kind_KIND_RETURNED
	neverSent = fanfarev1.Kind_KIND_NOT_SENT
	left      = fanfarev1.Kind_KIND_SKIPPED

	noCode   = fanfarev1.Code_CODE_UNSPECIFIED
	awaiting = fanfarev1.Code_CODE_AWAITING_DLR
)
