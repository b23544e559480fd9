package expander

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/klauspost/compress/s2"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// env is what an expander sees: a view, a store and keys.
type env struct {
	keys *schemas.Keys

	mu        sync.Mutex
	campaigns map[string]*fanfarev1.Campaign
	changed   chan struct{}
	age       time.Duration
	indexes   map[string][]audience.Index
	blobs     map[blobKey][]byte
	away      error // the error that the store returns instead of an answer
	reads     int
}

func (w *env) Campaign(id string) *fanfarev1.Campaign {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.campaigns[id]
}

func (w *env) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

func (w *env) Age() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.age
}

func (w *env) put(c *fanfarev1.Campaign) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.campaigns[c.GetId()] = c
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *env) Blobs(_ context.Context, freeze string) ([]audience.Index, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if rows, ok := w.indexes[freeze]; ok || w.away != nil {
		return rows, w.away
	}
	return nil, schemas.ErrNotFound
}

func (w *env) Blob(_ context.Context, freeze string, blob uint32) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reads++
	if w.away != nil {
		return nil, w.away
	}
	if b, ok := w.blobs[blobKey{freeze, blob}]; ok {
		return b, nil
	}
	return nil, fmt.Errorf("blob: %w", schemas.ErrNotFound)
}

// freeze stores entries as blobs of at most size.
func (w *env) freeze(id string, entries []audience.Entry, size int) {
	var writer audience.Writer
	for i := 0; i < len(entries); i += size {
		n := min(size, len(entries)-i)
		for k := range entries[i : i+n] {
			writer.Add(&entries[i+k])
		}
		blob := uint32(len(w.indexes[id]) + 1)
		w.blobs[blobKey{id, blob}] = writer.Flush()
		w.indexes[id] = append(w.indexes[id], audience.Index{Blob: blob, First: uint32(i), Count: uint32(n), Zone: entries[i].Zone})
	}
}

// cut truncates a blob's entries: a reader gets the remaining entries and then an early end.
func (w *env) cut(t testing.TB, blob uint32) {
	t.Helper()
	whole := w.blobs[blobKey{frozen, blob}]
	plain, err := s2.Decode(nil, whole[1:])
	if err != nil {
		t.Fatal(err)
	}
	w.blobs[blobKey{frozen, blob}] = append([]byte{whole[0]}, s2.Encode(nil, plain[:len(plain)-3])...)
}

var errAway = errors.New("the store is away")

// dealt is when the chunks of the tests were dealt. It is recent: Kafka deletes records older than the topic's
// retention.
var dealt = time.Now().Truncate(time.Millisecond)

const (
	tenant   = "tn_a"
	number   = 10001
	campaign = "camp_10001"
	frozen   = "fz_1"
)

func newEnv(t testing.TB, entries []audience.Entry) *env {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	w := &env{
		keys: keys, campaigns: map[string]*fanfarev1.Campaign{}, changed: make(chan struct{}),
		indexes: map[string][]audience.Index{}, blobs: map[blobKey][]byte{},
	}
	w.freeze(frozen, entries, 4)
	w.put(&fanfarev1.Campaign{
		Tenant: tenant, Id: campaign, Number: number, Version: 7, State: schemas.StateSending, FreezeId: frozen, Total: uint32(len(entries)),
		Legs: []*fanfarev1.Leg{
			{Channel: schemas.ChannelSMS, Route: "sim", Sender: "FANFARE", PriceMicros: 50_000, MaxHandovers: 3},
			{Channel: schemas.ChannelRCS, Route: "rbm", Sender: "agent", PriceMicros: 80_000, MaxHandovers: 2},
		},
		Content:     &fanfarev1.Content{Body: "Ciao {{first_name}}!", Missing: schemas.MissingPolicyFail},
		MaxSegments: 2, Currency: "EUR",
	})
	return w
}

// change puts a changed copy of the campaign into the view.
func (w *env) change(f func(*fanfarev1.Campaign)) {
	c, _ := proto.Clone(w.Campaign(campaign)).(*fanfarev1.Campaign)
	f(c)
	w.put(c)
}

func (w *env) handler(t testing.TB) *handler {
	t.Helper()
	names, err := schemas.NewNames(schemas.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	h, err := newHandler(Config{
		Cluster:  stream.Cluster{Names: names, Logger: slog.New(slog.DiscardHandler)},
		Patience: 20 * time.Millisecond, Now: func() time.Time { return dealt.Add(time.Minute) },
	}, Deps{Keys: w.keys, Campaigns: w, Audience: w})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func person(i int) audience.Entry {
	return audience.Entry{
		ContactID: uint64(100 + i), To: fmt.Sprintf("+39340%07d", i), Zone: "Europe/Rome", Country: "IT", Class: audience.Mobile,
		Attrs: []audience.Attr{{Name: "first_name", Value: fmt.Sprintf("Ada%d", i)}},
	}
}

func people(n int) []audience.Entry {
	out := make([]audience.Entry, n)
	for i := range out {
		out[i] = person(i)
	}
	return out
}

// chunk is the first deal of the first blob's four recipients.
func chunk(change ...func(*fanfarev1.Chunk)) *fanfarev1.Chunk {
	c := &fanfarev1.Chunk{
		Tenant: tenant, CampaignId: campaign, CampaignNumber: number, CampaignVersion: 7, Deal: 1, Purpose: schemas.PurposeDeal,
		Try: 1, Leg: 1, FreezeId: frozen, Blob: 1, FirstSeq: 0, EndSeq: 4, NotAfterMs: dealt.Add(time.Hour).UnixMilli(),
	}
	for _, f := range change {
		f(c)
	}
	return c
}

func record(t testing.TB, c *fanfarev1.Chunk) *kgo.Record {
	t.Helper()
	r, err := schemas.Event{
		Topic: "fanfare.chunks", Key: fmt.Sprintf("%s#%d", schemas.CampaignKey(c.GetTenant(), c.GetCampaignId()), c.GetDeal()),
		Tenant: c.GetTenant(), Type: schemas.TypeChunk, Source: "scheduler", ID: "x", Time: dealt, Value: c,
	}.Record()
	if err != nil {
		t.Fatal(err)
	}
	r.Timestamp = dealt
	return r
}

func seqs(n ...uint32) func(*fanfarev1.Chunk) {
	return func(c *fanfarev1.Chunk) {
		c.FirstSeq, c.EndSeq = 0, 0
		c.Seqs, _ = roaring.BitmapOf(n...).ToBytes()
	}
}

// result is what a batch became, decoded.
type result struct {
	messages []*fanfarev1.Message
	outcomes []*fanfarev1.Delivery
	dead     []error
	records  []*kgo.Record
}

func handle(t testing.TB, h *handler, batch ...*kgo.Record) result {
	t.Helper()
	res, err := h.Handle(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, res)
}

func decode(t testing.TB, res stream.Result) result {
	t.Helper()
	out := result{records: res.Publish}
	for _, d := range res.Dead {
		out.dead = append(out.dead, d.Cause)
	}
	for _, r := range res.Publish {
		var err error
		switch typ := schemas.EventType(schemas.Header(r, "ce_type")); typ {
		case schemas.TypeMessage:
			m := &fanfarev1.Message{}
			err = proto.Unmarshal(r.Value, m)
			out.messages = append(out.messages, m)
		case schemas.TypeDelivery:
			d := &fanfarev1.Delivery{}
			err = proto.Unmarshal(r.Value, d)
			out.outcomes = append(out.outcomes, d)
		default:
			t.Fatalf("got a record of type %q", typ)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// states returns what each recipient became, in order of seq: "message", or the kind and sub-status of its outcome.
func (r result) states() map[uint32]string {
	out := map[uint32]string{}
	add := func(seq uint32, s string) {
		if was, ok := out[seq]; ok {
			s = was + " and " + s
		}
		out[seq] = s
	}
	for _, m := range r.messages {
		add(m.GetSeq(), "message")
	}
	for _, d := range r.outcomes {
		info, _ := schemas.LookupKind(d.GetKind())
		add(d.GetSeq(), info.Name+"/"+schemas.CodeName(d.GetCode()))
	}
	return out
}
