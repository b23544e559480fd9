package feed

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
	"fanfare/sinks/analytics/analyticstest"
)

// env is a Kafka with the topics, a view with campaigns, and a producer of delivery events.
type env struct {
	stream.Cluster
	adm  *kadm.Client
	cl   *kgo.Client
	view *fakeView
	keys *schemas.Keys
	rng  *mrand.Rand
}

// newEnv starts kfake, or uses the Kafka of FANFARE_TEST_KAFKA with a topic prefix of its own.
func newEnv(t testing.TB) *env {
	t.Helper()
	names, err := schemas.NewNames("t" + strings.ToLower(rand.Text()[:10]) + ".")
	if err != nil {
		t.Fatal(err)
	}
	w := &env{view: newFakeView(), keys: testKeys(t), rng: mrand.New(mrand.NewPCG(1, 1))}
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
		if strings.HasPrefix(topic.Name, names.Deliveries()) || strings.HasPrefix(topic.Name, names.Chunks()) {
			topics = append(topics, topic)
		}
	}
	if err := stream.EnsureTopics(t.Context(), w.adm, 1, topics); err != nil {
		t.Fatal(err)
	}
	return w
}

// fakeView is a view of the control plane whose age the test sets.
type fakeView struct {
	mu        sync.Mutex
	campaigns map[string]*fanfarev1.Campaign
	read      time.Time // when the view was last complete; zero: it always is
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

// record returns the Kafka record of an event.
func (w *env) record(e analytics.Event) *kgo.Record {
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

// history generates campaigns, which the view has, and their events, shuffled and with duplicates.
func (w *env) history(recipients int) (campaigns []*analytics.Campaign, records []*kgo.Record) {
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

// deals generates records of topic chunks: deals of the campaigns' recipients, some of them as ranges. Their timestamps
// are recent: a broker deletes records older than the topic's retention while the test runs, and the model would then
// lack them.
func (w *env) deals(campaigns []*analytics.Campaign) (records []*kgo.Record) {
	began := time.Now().Add(-time.Minute)
	for _, c := range campaigns {
		number, _ := schemas.CampaignNumber(c.ID)
		for i := range 40 {
			chunk := &fanfarev1.Chunk{
				Tenant: c.Tenant, CampaignId: c.ID, CampaignNumber: number, Deal: uint64(i + 1), Try: uint32(1 + i%3), Leg: 1, Purpose: schemas.PurposeDeal,
				FirstSeq: uint32(10 * i), EndSeq: uint32(10*i + 15),
			}
			if i%4 == 0 {
				members := roaring.New()
				for range 20 {
					members.Add(w.rng.Uint32N(1_000_000))
				}
				chunk.Seqs, _ = members.ToBytes()
			}
			if i%7 == 0 {
				chunk.Purpose = schemas.PurposeCancel
			}
			value, err := proto.Marshal(chunk)
			if err != nil {
				panic(err)
			}
			records = append(records, &kgo.Record{
				Topic: w.Names.Chunks(), Key: fmt.Appendf(nil, "%s/%s#%d", c.Tenant, c.ID, i+1), Value: value, Timestamp: began.Add(time.Duration(i) * time.Millisecond),
			})
		}
	}
	return records
}

// produce writes records and waits for the acknowledgement of each.
func (w *env) produce(t testing.TB, records ...*kgo.Record) {
	t.Helper()
	if err := w.cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// produceMixed writes records a few at a time, without and within transactions, and further records in transactions
// that it aborts.
func (w *env) produceMixed(t testing.TB, records []*kgo.Record) {
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

// model reads the topic to its end with the protobuf library and fills a model.
func (w *env) model(t testing.TB) *analyticstest.Model {
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
	for _, r := range w.read(t, w.Names.Chunks()) {
		var c fanfarev1.Chunk
		if err := proto.Unmarshal(r.Value, &c); err != nil {
			t.Fatal(err)
		}
		members := roaring.New()
		if len(c.Seqs) > 0 {
			if err := members.UnmarshalBinary(c.Seqs); err != nil {
				t.Fatal(err)
			}
		} else {
			members.AddRange(uint64(c.FirstSeq), uint64(c.EndSeq))
		}
		m.AppendDeals(analytics.Batch{Deals: []analytics.Deal{{
			Campaign: &analytics.Campaign{Tenant: c.Tenant, ID: c.CampaignId}, Number: c.Deal, TimeMS: r.Timestamp.UnixMilli(), Try: uint8(c.Try), Leg: uint8(c.Leg),
			Cancel: c.Purpose == schemas.PurposeCancel, Members: members,
		}}})
	}
	return m
}

// read returns all committed records of a topic.
func (w *env) read(t testing.TB, topic string) (out []*kgo.Record) {
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
