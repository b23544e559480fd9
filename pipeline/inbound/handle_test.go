package inbound

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/inbound/keyword"
	"fanfare/pipeline/inbound/recent"
	"fanfare/pipeline/stream/streamtest"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const (
	number = 10001
	behind = 10002 // the view has this campaign as it was before the freeze
	tenant = "tn_a"
)

var errAway = errors.New("the store is away")

// memory is a store with one audience of two blobs. It keeps opt-outs as the real store does.
type memory struct {
	t     *testing.T
	blobs [][]byte

	mu       sync.Mutex
	away     bool
	noRedis  bool
	reads    int
	rows     map[string]*fanfarev1.Campaign
	facts    map[string]schemas.OptOutFact
	recorded []schemas.OptOutFact // in order, with repetitions
	messages []schemas.MessageFact
	sent     []recent.Sent // newest first
	owners   map[string][]string
}

const blobSize = 3

func phone(seq uint32) string {
	return "+3933300000" + string(rune('0'+seq/10)) + string(rune('0'+seq%10))
}

func newMemory(t *testing.T) *memory {
	m := &memory{t: t, rows: map[string]*fanfarev1.Campaign{}, facts: map[string]schemas.OptOutFact{}}
	for blob := range uint32(2) {
		var w audience.Writer
		for i := range uint32(blobSize) {
			w.Add(&audience.Entry{To: phone(blob*blobSize + i), Zone: "Europe/Rome", Country: "IT"})
		}
		m.blobs = append(m.blobs, w.Flush())
	}
	return m
}

func (m *memory) Blobs(_ context.Context, freeze string) ([]audience.Index, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return nil, errAway
	}
	if freeze != "fr_1" {
		return nil, schemas.ErrNotFound
	}
	return []audience.Index{{Blob: 0, First: 0, Count: blobSize}, {Blob: 1, First: blobSize, Count: blobSize}}, nil
}

func (m *memory) Blob(_ context.Context, _ string, blob uint32) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	return m.blobs[blob], nil
}

func (m *memory) CampaignRecord(_ context.Context, id string) (*fanfarev1.Campaign, error) {
	if c := m.rows[id]; c != nil {
		return c, nil
	}
	return nil, schemas.ErrNotFound
}

func (m *memory) RecordOptOut(_ context.Context, o *schemas.OptOutFact) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return errAway
	}
	m.recorded = append(m.recorded, *o)
	m.facts[o.ID] = *o
	return nil
}

func (m *memory) RecordMessage(_ context.Context, f *schemas.MessageFact) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return "", errAway
	}
	m.messages = append(m.messages, *f)
	return schemas.ConversationID(f.Tenant, f.Channel, f.Sender, f.Phone), nil
}

func (m *memory) OwnersOf(_ context.Context, channel schemas.Channel, address string) ([]string, error) {
	return m.owners[schemas.ChannelName(channel)+" "+address], nil
}

func (m *memory) Put(_ context.Context, list []recent.Sent) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent = append(append([]recent.Sent{}, list...), m.sent...)
	return nil
}

func (m *memory) Find(_ context.Context, channel schemas.Channel, phone string) (out []recent.Sent, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away || m.noRedis {
		return nil, errAway
	}
	for _, s := range m.sent {
		if s.Channel == channel && s.To == phone {
			out = append(out, s)
		}
	}
	return out, nil
}

func (m *memory) deps(keys *schemas.Keys) Deps {
	return Deps{Keys: keys, Campaigns: m, Audience: m, Store: m, Recent: m}
}

func (m *memory) handler(names schemas.Names, keys *schemas.Keys) *handler {
	m.t.Helper()
	words, err := keyword.Open()
	if err != nil {
		m.t.Fatal(err)
	}
	return &handler{names, m.deps(keys), words, newMetrics(nil)}
}

func (m *memory) CampaignByNumber(n uint64) *fanfarev1.Campaign {
	switch n {
	case number:
		return campaign(number)
	case behind:
		c := campaign(behind)
		c.FreezeId = ""
		return c
	}
	return nil
}

func campaign(n uint64) *fanfarev1.Campaign {
	return &fanfarev1.Campaign{Tenant: tenant, Id: schemas.CampaignID(n), Number: n, FreezeId: "fr_1"}
}

func testKeys(t *testing.T) *schemas.Keys {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// record returns a record as the edge writes it.
func record(t *testing.T, names schemas.Names, keys *schemas.Keys, id string, seq uint32, change ...func(*fanfarev1.Inbound)) *kgo.Record {
	t.Helper()
	in := &fanfarev1.Inbound{Id: id, Way: schemas.InboundWayLink, ReceivedMs: 1_780_000_000_123, Tenant: tenant, CampaignNumber: number, Seq: seq}
	for _, f := range change {
		f(in)
	}
	r, err := schemas.InboundEvent(names.Inbound(), "edge", in, keys.Message(in.GetCampaignNumber(), seq)).Record()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestHandle (X10): an opt-out by link opts out the number of the link's recipient, from what the recipient chose, and
// its event says so.
func TestHandle(t *testing.T) {
	names, err := schemas.NewNames("test.")
	if err != nil {
		t.Fatal(err)
	}
	m, keys := newMemory(t), testKeys(t)
	m.rows["camp_9"] = campaign(9) // the view dropped this campaign
	h := m.handler(names, keys)
	sms := func(in *fanfarev1.Inbound) { in.Scope = schemas.ChannelSMS }
	old := func(in *fanfarev1.Inbound) { in.CampaignNumber = 9 }
	good := []*kgo.Record{record(t, names, keys, "a", 0), record(t, names, keys, "b", 5, sms), record(t, names, keys, "c", 1), record(t, names, keys, "d", 4, old)}
	bad := []*kgo.Record{
		{Topic: names.Inbound(), Value: []byte{0xff}},
		record(t, names, keys, "", 1),
		record(t, names, keys, "e", 6), // the audience has six recipients
		record(t, names, keys, "f", 1, func(in *fanfarev1.Inbound) { in.Way = schemas.InboundWayUnspecified }),
		record(t, names, keys, "g", 1, func(in *fanfarev1.Inbound) { in.CampaignNumber = 77 }),
		record(t, names, keys, "h", 1, func(in *fanfarev1.Inbound) { in.Tenant = "tn_b" }), // another tenant's link (P7)
	}
	out, err := h.Handle(t.Context(), append(append([]*kgo.Record{}, bad...), good...))
	if err != nil || len(out.Dead) != len(bad) || len(out.Publish) != len(good) {
		t.Fatalf("got %d events and %d dead letters, %v, want %d and %d", len(out.Publish), len(out.Dead), err, len(good), len(bad))
	}
	if len(m.facts) != len(good) || m.reads != 2 {
		t.Errorf("got %d opt-outs with %d blobs read, want %d with 2", len(m.facts), m.reads, len(good))
	}
	message := keys.Message(number, 5)
	if got, want := m.facts["b"], (schemas.OptOutFact{
		ID: "b", Tenant: tenant, Phone: phone(5), Channel: schemas.ChannelSMS, Source: "link", By: message.String(), Time: time.UnixMilli(1_780_000_000_123),
	}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	d := &fanfarev1.Delivery{}
	if err := proto.Unmarshal(out.Publish[1].Value, d); err != nil {
		t.Fatal(err)
	}
	if d.GetKind() != schemas.KindOptedOut || d.GetSeq() != 5 || d.GetTo() != phone(5) || d.GetRawCode() != "link" || d.GetChannel() != schemas.ChannelSMS ||
		d.GetTenant() != tenant || d.GetCampaignId() != "camp_10001" || string(d.GetMessageId()) != string(message[:]) || out.Publish[1].Topic != names.Deliveries() {
		t.Errorf("got %v", d)
	}
	again, err := h.Handle(t.Context(), good)
	if err != nil || string(schemas.Header(again.Publish[0], "ce_id")) != string(schemas.Header(out.Publish[0], "ce_id")) {
		t.Errorf("read again, the event has another id: %v", err)
	}
	m.away = true
	if out, err := h.Handle(t.Context(), good); !errors.Is(err, errAway) || len(out.Publish) != 0 || len(out.Dead) != 0 {
		t.Errorf("without the store: got %d events and %d dead letters, %v, want an error", len(out.Publish), len(out.Dead), err)
	}
}

// TestHandleOldView: the view may still have a campaign as it was before it was frozen. The stage then reads the
// campaign from the store.
func TestHandleOldView(t *testing.T) {
	names, err := schemas.NewNames("test.")
	if err != nil {
		t.Fatal(err)
	}
	m, keys := newMemory(t), testKeys(t)
	m.rows[schemas.CampaignID(behind)] = campaign(behind)
	h := m.handler(names, keys)
	in := record(t, names, keys, "a", 4, func(in *fanfarev1.Inbound) { in.CampaignNumber = behind })
	out, err := h.Handle(t.Context(), []*kgo.Record{in})
	if err != nil || len(out.Publish) != 1 || m.facts["a"].Phone != phone(4) {
		t.Errorf("got %+v, %v, recorded %+v, want an opt-out of %s", out, err, m.recorded, phone(4))
	}
}

// TestHandleErased: an erased recipient has no number, so the stage records the opt-out by the hash. If an older
// version kept no hash, the record becomes a dead letter that says so. The stage never records an opt-out with neither
// number nor hash.
func TestHandleErased(t *testing.T) {
	names, err := schemas.NewNames("test.")
	if err != nil {
		t.Fatal(err)
	}
	m, keys := newMemory(t), testKeys(t)
	var w audience.Writer
	for i := range uint32(blobSize) {
		e := audience.Entry{To: phone(i), Zone: "Europe/Rome", Country: "IT"}
		if i == 1 {
			e.To, e.Flag = "", audience.OptedOut
		}
		if i == 0 {
			e.To, e.Flag, e.Attrs = "", audience.OptedOut, []audience.Attr{{Name: audience.ErasedHash, Value: "00112233445566aa"}}
		}
		w.Add(&e)
	}
	m.blobs[0] = w.Flush()
	h := m.handler(names, keys)
	out, err := h.Handle(t.Context(), []*kgo.Record{record(t, names, keys, "a", 1), record(t, names, keys, "b", 2), record(t, names, keys, "c", 0)})
	if err != nil || len(out.Publish) != 2 || len(out.Dead) != 1 || len(m.recorded) != 2 || m.facts["b"].Phone != phone(2) {
		t.Fatalf("got %+v, %v, recorded %+v, want two opt-outs and one dead letter", out, err, m.recorded)
	}
	if got := m.facts["c"]; got.Hash != "00112233445566aa" || got.Phone != "" {
		t.Errorf("got %+v, want the opt-out by hash", got)
	}
	if cause := out.Dead[0].Cause; !errors.Is(cause, errDead) || !strings.Contains(cause.Error(), "erased") {
		t.Errorf("got cause %v, want one that says that the recipient was erased", cause)
	}
}

// While Redis is away, opt-outs by links take effect; the messages of the batch wait.
func TestHandleWithoutRedis(t *testing.T) {
	names, keys := schemas.Names{}, testKeys(t)
	m := newMemory(t)
	m.noRedis = true
	h := m.handler(names, keys)
	batch := []*kgo.Record{written(t, names, "+390612345678", "STOP"), record(t, names, keys, "in_2", 4)}
	if _, err := h.Handle(t.Context(), batch); !errors.Is(err, errAway) {
		t.Fatalf("got %v, want that the batch comes again", err)
	}
	if len(m.recorded) != 1 || m.recorded[0].ID != "in_2" || m.recorded[0].Phone != phone(4) {
		t.Errorf("recorded %+v, want the opt-out by the link", m.recorded)
	}
}

// TestStage: the stage records each record of the topic once and writes its event, although the store is away at first
// and members of the group stop and start meanwhile.
func TestStage(t *testing.T) {
	b := streamtest.New(t)
	m, keys := newMemory(t), testKeys(t)
	m.away = true
	b.Ensure(t, b.Names.Fixed()...)
	const facts = 300
	for i := range facts {
		r := record(t, b.Names, keys, fmt.Sprint("fact ", i), uint32(i%6))
		r.Partition = int32(i % 6)
		b.Write(t, r)
	}
	run := func() (stop func()) {
		stage, err := New(Config{Cluster: b.Cluster, MaxRecords: 7, SessionTimeout: 2 * time.Second}, m.deps(keys))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		done := make(chan error, 1)
		go func() { done <- stage.Run(ctx) }()
		return sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	count := func() int {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.facts)
	}
	await := func(n int) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); count() < n; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("got %d recorded, want %d", count(), n)
			}
		}
	}
	first := run()
	defer first()
	// The test cannot fail because this sleep is too short: without a store, the stage cannot record anything at any
	// time.
	time.Sleep(200 * time.Millisecond)
	if n := count(); n != 0 {
		t.Fatalf("got %d recorded without a store", n)
	}
	m.mu.Lock()
	m.away = false
	m.mu.Unlock()
	await(20)
	second := run()
	defer second()
	await(100)
	first()
	await(facts)
	second()
	ids := map[string]bool{}
	for _, r := range b.Read(t, b.Names.Deliveries()) {
		ids[string(schemas.Header(r, "ce_id"))] = true
	}
	if len(ids) != facts {
		t.Errorf("got events of %d facts, want %d", len(ids), facts)
	}
}
