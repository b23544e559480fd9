package tracker

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/dlrindex"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const (
	tenant = "tn_a"
	number = 10001
	to     = "+393400000001"

	statusBuffered  = schemas.ReceiptStatusBuffered
	statusDelivered = schemas.ReceiptStatusDelivered
	statusRead      = schemas.ReceiptStatusRead
	statusFailed    = schemas.ReceiptStatusFailed
	statusUnknown   = schemas.ReceiptStatusUnknown
)

var (
	confirmed = time.UnixMilli(1_780_000_000_000)
	came      = confirmed.Add(time.Hour)
)

// env is what a tracker works with in a test: keys, a Redis, and itself as the control view.
type env struct {
	keys   *schemas.Keys
	names  schemas.Names
	redis  *miniredis.Miniredis
	index  *dlrindex.Index
	offset int64

	mu        sync.Mutex
	campaigns map[uint64]*fanfarev1.Campaign
	routes    map[string]*fanfarev1.Route
	age       time.Duration
}

func (e *env) CampaignByNumber(n uint64) *fanfarev1.Campaign {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.campaigns[n]
}

func (e *env) Route(name string) *fanfarev1.Route {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.routes[name]
}

func (e *env) Routes() []*fanfarev1.Route {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Values(e.routes))
}

func (e *env) Age() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.age
}

func newEnv(t testing.TB) *env {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	names, err := schemas.NewNames(schemas.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	server := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = rdb.Close() })
	index, err := dlrindex.New(rdb, names)
	if err != nil {
		t.Fatal(err)
	}
	e := &env{
		keys: keys, names: names, redis: server, index: index,
		campaigns: map[uint64]*fanfarev1.Campaign{number: {
			Tenant: tenant, Id: schemas.CampaignID(number), Number: number, Version: 3, State: schemas.StateSending, Total: 100,
			ConfirmedMs: confirmed.UnixMilli(), CreatedMs: confirmed.Add(-time.Hour).UnixMilli(),
			Legs: []*fanfarev1.Leg{
				{Channel: schemas.ChannelRCS, Route: "rbm", Sender: "agent", MaxHandovers: 1},
				{Channel: schemas.ChannelSMS, Route: "sim", Sender: "FANFARE", MaxHandovers: 3},
			},
		}},
		routes: map[string]*fanfarev1.Route{"sim": {Name: "sim", Connector: "smpp"}, "rbm": {Name: "rbm", Connector: "rcs"}},
	}
	e.ready(t)
	return e
}

// ready marks the index as complete.
func (e *env) ready(t testing.TB) {
	t.Helper()
	if ok, err := e.index.Lock(t.Context(), "test", time.Minute); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if ok, err := e.index.Filled(t.Context(), "test"); !ok || err != nil {
		t.Fatal(ok, err)
	}
}

// change puts a changed copy of the campaign into the view.
func (e *env) change(f func(*fanfarev1.Campaign)) {
	c, _ := proto.Clone(e.CampaignByNumber(number)).(*fanfarev1.Campaign)
	f(c)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.campaigns[number] = c
}

func (e *env) config() Config {
	return Config{
		Cluster: stream.Cluster{Names: e.names, Logger: slog.New(slog.DiscardHandler)},
		Now:     func() time.Time { return came.Add(time.Minute) },
	}
}

func (e *env) handler(t testing.TB) *handler {
	t.Helper()
	h, err := newHandler(e.config(), Deps{Keys: e.keys, Campaigns: e, Index: e.index})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// put acts as the sender does after the carrier has answered with this id: it puts the entry into the index. It returns
// the parked receipts.
func (e *env) put(t testing.TB, providerID string, seq uint32, try uint8) []*fanfarev1.Receipt {
	t.Helper()
	entries := []dlrindex.Entry{{Route: "sim", ProviderID: providerID, To: to, Submission: e.keys.Submission(number, seq, try), Life: 100 * time.Hour}}
	parked, err := e.index.Put(t.Context(), entries)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.index.Clear(t.Context(), entries); err != nil {
		t.Fatal(err)
	}
	return parked[0]
}

// echoed returns a receipt with our submission id, of seq at its first try.
func (e *env) echoed(seq uint32, status schemas.ReceiptStatus, change ...func(*fanfarev1.Receipt)) *fanfarev1.Receipt {
	id := e.keys.Submission(number, seq, 1)
	r := bare("", status)
	r.SubmissionId = id[:]
	for _, f := range change {
		f(r)
	}
	return r
}

// bare returns a receipt with the carrier's id alone.
func bare(providerID string, status schemas.ReceiptStatus) *fanfarev1.Receipt {
	return &fanfarev1.Receipt{
		Route: "sim", ProviderId: providerID, To: to, Status: status, TimeMs: came.Add(-time.Second).UnixMilli(), ReceivedMs: came.UnixMilli(),
	}
}

// record encodes a receipt for its topic, at the next offset.
func (e *env) record(t testing.TB, r *fanfarev1.Receipt) *kgo.Record {
	t.Helper()
	rec, err := schemas.ReceiptEvent(e.names.Receipts(), source, r).Record()
	if err != nil {
		t.Fatal(err)
	}
	rec.Timestamp = came
	rec.Offset = e.offset
	e.offset++
	return rec
}

// result holds the decoded results of a batch.
type result struct {
	events  []*fanfarev1.Delivery
	records []*kgo.Record
	dead    []error
}

func handle(t testing.TB, h *handler, batch ...*kgo.Record) result {
	t.Helper()
	res, err := h.Handle(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	out := result{records: res.Publish}
	for _, d := range res.Dead {
		out.dead = append(out.dead, d.Cause)
	}
	for _, r := range res.Publish {
		d := &fanfarev1.Delivery{}
		if err := proto.Unmarshal(r.Value, d); err != nil {
			t.Fatal(err)
		}
		out.events = append(out.events, d)
	}
	return out
}

// say returns the kind and the sub-status of the only event, or why there is no event.
func (r result) say() string {
	switch {
	case len(r.events) == 1 && len(r.dead) == 0:
		info, _ := schemas.LookupKind(r.events[0].GetKind())
		return info.Name + "/" + schemas.CodeName(r.events[0].GetCode())
	case len(r.events) == 0 && len(r.dead) == 1:
		return "dead: " + r.dead[0].Error()
	case len(r.events) == 0 && len(r.dead) == 0:
		return "nothing"
	default:
		return "too much"
	}
}

// states returns the state of each recipient after events.
func states(events []*fanfarev1.Delivery) map[uint32]schemas.Precedence {
	out := map[uint32]schemas.Precedence{}
	for _, d := range events {
		out[d.GetSeq()] = schemas.Join(out[d.GetSeq()], schemas.PrecedenceOf(d.GetKind(), d.GetTry(), d.GetCode()))
	}
	return maps.Clone(out)
}
