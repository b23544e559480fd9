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

	"fanfare/pipeline/stream"
	"fanfare/pipeline/stream/rendezvous"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const (
	tenant = "tn_a"
	number = 10001
	to     = "+393400000001"

	statusBuffered  = fanfarev1.ReceiptStatus_RECEIPT_STATUS_BUFFERED
	statusDelivered = fanfarev1.ReceiptStatus_RECEIPT_STATUS_DELIVERED
	statusRead      = fanfarev1.ReceiptStatus_RECEIPT_STATUS_READ
	statusFailed    = fanfarev1.ReceiptStatus_RECEIPT_STATUS_FAILED
	statusUnknown   = fanfarev1.ReceiptStatus_RECEIPT_STATUS_UNKNOWN
)

var (
	confirmed = time.UnixMilli(1_780_000_000_000)
	came      = confirmed.Add(time.Hour)
)

// world is what a tracker sees: a view, Redis and keys.
type world struct {
	keys   *schemas.Keys
	names  schemas.Names
	redis  *miniredis.Miniredis
	table  *rendezvous.Table
	offset int64

	mu        sync.Mutex
	campaigns map[uint64]*fanfarev1.Campaign
	routes    map[string]*fanfarev1.Route
	age       time.Duration
}

func (w *world) CampaignByNumber(n uint64) *fanfarev1.Campaign {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.campaigns[n]
}

func (w *world) Route(name string) *fanfarev1.Route {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.routes[name]
}

func (w *world) Routes() []*fanfarev1.Route {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Values(w.routes))
}

func (w *world) Age() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.age
}

func newWorld(t testing.TB) *world {
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
	table, err := rendezvous.New(rdb, names)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		keys: keys, names: names, redis: server, table: table,
		campaigns: map[uint64]*fanfarev1.Campaign{number: {
			Tenant: tenant, Id: schemas.CampaignID(number), Number: number, Version: 3, State: fanfarev1.State_STATE_SENDING, Total: 100,
			ConfirmedMs: confirmed.UnixMilli(), CreatedMs: confirmed.Add(-time.Hour).UnixMilli(),
			Legs: []*fanfarev1.Leg{
				{Channel: fanfarev1.Channel_CHANNEL_RCS, Route: "rbm", Sender: "agent", MaxHandovers: 1},
				{Channel: fanfarev1.Channel_CHANNEL_SMS, Route: "sim", Sender: "FANFARE", MaxHandovers: 3},
			},
		}},
		routes: map[string]*fanfarev1.Route{"sim": {Name: "sim", Connector: "smpp"}, "rbm": {Name: "rbm", Connector: "rcs"}},
	}
	w.ready(t)
	return w
}

// ready says that Redis has lost nothing.
func (w *world) ready(t testing.TB) {
	t.Helper()
	if ok, err := w.table.Lock(t.Context(), "test", time.Minute); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if ok, err := w.table.Filled(t.Context(), "test"); !ok || err != nil {
		t.Fatal(ok, err)
	}
}

// change puts a changed copy of the campaign into the view.
func (w *world) change(f func(*fanfarev1.Campaign)) {
	c, _ := proto.Clone(w.CampaignByNumber(number)).(*fanfarev1.Campaign)
	f(c)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.campaigns[number] = c
}

func (w *world) config() Config {
	return Config{
		Cluster: stream.Cluster{Names: w.names, Logger: slog.New(slog.DiscardHandler)},
		Now:     func() time.Time { return came.Add(time.Minute) },
	}
}

func (w *world) handler(t testing.TB) *handler {
	t.Helper()
	h, err := newHandler(w.config(), Deps{Keys: w.keys, Campaigns: w, Rendezvous: w.table})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// put is the sender's side: the carrier has answered with this id.
func (w *world) put(t testing.TB, providerID string, seq uint32, try uint8) []*fanfarev1.Receipt {
	t.Helper()
	e := []rendezvous.Entry{{Route: "sim", ProviderID: providerID, To: to, Submission: w.keys.Submission(number, seq, try), Life: 100 * time.Hour}}
	parked, err := w.table.Put(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.table.Clear(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	return parked[0]
}

// echoed is a receipt that names the submission of seq at the first try.
func (w *world) echoed(seq uint32, status fanfarev1.ReceiptStatus, change ...func(*fanfarev1.Receipt)) *fanfarev1.Receipt {
	id := w.keys.Submission(number, seq, 1)
	r := bare("", status)
	r.SubmissionId = id[:]
	for _, f := range change {
		f(r)
	}
	return r
}

// bare is a receipt that names the carrier's id alone.
func bare(providerID string, status fanfarev1.ReceiptStatus) *fanfarev1.Receipt {
	return &fanfarev1.Receipt{
		Route: "sim", ProviderId: providerID, To: to, Status: status, TimeMs: came.Add(-time.Second).UnixMilli(), ReceivedMs: came.UnixMilli(),
	}
}

// record is a receipt as it lies in the topic, each at the next offset.
func (w *world) record(t testing.TB, r *fanfarev1.Receipt) *kgo.Record {
	t.Helper()
	rec, err := receiptRecord(w.names, r)
	if err != nil {
		t.Fatal(err)
	}
	rec.Timestamp = came
	rec.Offset = w.offset
	w.offset++
	return rec
}

// result is what a batch became, decoded.
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

// say returns kind and sub-status of the only event, or why there is none.
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

// states joins events: what each recipient is.
func states(events []*fanfarev1.Delivery) map[uint32]schemas.Precedence {
	out := map[uint32]schemas.Precedence{}
	for _, d := range events {
		out[d.GetSeq()] = schemas.Join(out[d.GetSeq()], schemas.PrecedenceOf(d.GetKind(), d.GetTry(), d.GetCode()))
	}
	return maps.Clone(out)
}
