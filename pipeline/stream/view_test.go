package stream_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

func testKeys(t testing.TB) *schemas.Keys {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func (b *broker) controlTopics(t testing.TB) {
	t.Helper()
	n := b.Names
	err := stream.EnsureTopics(t.Context(), b.adm, 1, []schemas.Topic{
		{Name: n.Campaigns(), Partitions: 1, Compact: true}, {Name: n.Control(), Partitions: 1, Compact: true}, {Name: n.Suppressions(), Partitions: 3, Compact: true},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *broker) campaign(t testing.TB, number, version uint64, state fanfarev1.State) *kgo.Record {
	t.Helper()
	c := &fanfarev1.Campaign{Tenant: "tn_a", Id: schemas.CampaignID(number), Number: number, Version: version, State: state}
	return &kgo.Record{Topic: b.Names.Campaigns(), Key: []byte(schemas.CampaignKey(c.GetTenant(), c.GetId())), Value: encode(t, c)}
}

func (b *broker) control(t testing.TB, key string, c *fanfarev1.Control) *kgo.Record {
	t.Helper()
	r := &kgo.Record{Topic: b.Names.Control(), Key: []byte(key)}
	if c != nil {
		r.Value = encode(t, c)
	}
	return r
}

func (b *broker) optOut(keys *schemas.Keys, tenant, number string, lifted bool) *kgo.Record {
	h := keys.NumberHash(tenant, number)
	r := &kgo.Record{Topic: b.Names.Suppressions(), Partition: int32(h[0]) % 3, Key: []byte(schemas.SuppressionKey(tenant, h))}
	if !lifted {
		r.Value = []byte{1}
	}
	return r
}

func (b *broker) view(t testing.TB, cfg stream.ViewConfig) *stream.View {
	t.Helper()
	cfg.Cluster = b.Cluster
	v, err := stream.NewView(cfg)
	if err != nil {
		t.Fatal(err)
	}
	run(t, v.Run)
	return v
}

func ready(t testing.TB, v interface{ Ready() <-chan struct{} }) {
	t.Helper()
	select {
	case <-v.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("not ready within 20 s")
	}
}

func TestViewFollowsTheControlPlane(t *testing.T) {
	b, keys := newBroker(t), testKeys(t)
	b.controlTopics(t)
	b.write(t,
		b.campaign(t, 10001, 2, fanfarev1.State_STATE_SENDING),
		b.campaign(t, 10001, 1, fanfarev1.State_STATE_READY), // an older version that came late
		b.campaign(t, 10002, 1, fanfarev1.State_STATE_SENDING),
		b.control(t, "route/sim", &fanfarev1.Control{Version: 1, Row: &fanfarev1.Control_Route{Route: &fanfarev1.Route{Name: "sim", Rate: 10}}}),
		b.control(t, "tenant/tn_a", &fanfarev1.Control{Version: 1, Row: &fanfarev1.Control_Tenant{Tenant: &fanfarev1.Tenant{Id: "tn_a", Rate: 5}}}),
		b.control(t, "sender/tn_a/ACME", &fanfarev1.Control{Version: 4, Row: &fanfarev1.Control_Sender{Sender: &fanfarev1.Sender{Tenant: "tn_a", Id: "ACME", Rate: 5}}}),
		b.control(t, "sender/tn_a/ACME", &fanfarev1.Control{Version: 3, Row: &fanfarev1.Control_Sender{Sender: &fanfarev1.Sender{Tenant: "tn_a", Id: "ACME", Rate: 1}}}),
		b.optOut(keys, "tn_a", "+391", false), b.optOut(keys, "tn_a", "+392", false), b.optOut(keys, "tn_a", "+392", true),
	)
	v := b.view(t, stream.ViewConfig{Keys: keys, Suppressions: true})
	if got := v.Age(); got != stream.Never {
		t.Errorf("age before it is ready: got %s, want never", got)
	}
	ready(t, v)
	if got := v.Campaign("camp_10001"); got.GetVersion() != 2 || got.GetState() != fanfarev1.State_STATE_SENDING {
		t.Errorf("campaign: got %v, want version 2, sending", got)
	}
	if got := v.CampaignByNumber(10002).GetId(); got != "camp_10002" {
		t.Errorf("by number: got %q, want camp_10002", got)
	}
	for _, id := range []string{"", "camp_", "camp_010001", "camp_9", "10001", "camp_99999999999999999999"} {
		if got := v.Campaign(id); got != nil {
			t.Errorf("campaign %q: got %v, want none", id, got)
		}
	}
	if got := len(v.Campaigns()); got != 2 {
		t.Errorf("campaigns: got %d, want 2", got)
	}
	if got := v.Route("sim").GetRate(); got != 10 || len(v.Routes()) != 1 {
		t.Errorf("route: got rate %d of %d routes, want 10 of 1", got, len(v.Routes()))
	}
	if got := v.Tenant("tn_a").GetRate(); got != 5 {
		t.Errorf("tenant: got rate %d, want 5", got)
	}
	if got := v.Sender("tn_a", "ACME").GetRate(); got != 5 {
		t.Errorf("sender: got rate %d, want 5, of the newer version", got)
	}
	if !v.OptedOut("tn_a", "+391") || v.OptedOut("tn_a", "+392") || v.OptedOut("tn_b", "+391") || v.OptedOut("tn_a", "+393") {
		t.Error("opt-outs: want +391 of tn_a and nobody else")
	}
	if got := v.Age(); got > 10*time.Second {
		t.Errorf("age: got %s", got)
	}
	if got := v.SuppressionsAge(); got > 10*time.Second {
		t.Errorf("age of suppressions: got %s", got)
	}

	changed := v.Changed()
	b.write(t,
		b.campaign(t, 10001, 3, fanfarev1.State_STATE_PAUSED),
		&kgo.Record{Topic: b.Names.Campaigns(), Key: []byte("tn_a/camp_10002")},
		b.control(t, "route/sim", nil),
		b.optOut(keys, "tn_b", "+391", false),
	)
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		t.Fatal("no change was announced")
	}
	eventually(t, 10*time.Second, "the changes", func() bool {
		return v.Campaign("camp_10001").GetState() == fanfarev1.State_STATE_PAUSED && v.Campaign("camp_10002") == nil && v.Route("sim") == nil && v.OptedOut("tn_b", "+391")
	})
}

// A record that is not what its key says, or nothing at all, is left out and does not stop the rest.
func TestViewLeavesOutWhatIsBroken(t *testing.T) {
	b := newBroker(t)
	b.controlTopics(t)
	stranger := b.campaign(t, 10003, 9, fanfarev1.State_STATE_SENDING)
	stranger.Key = []byte("tn_b/camp_10003") // another tenant's key
	b.write(t,
		stranger,
		&kgo.Record{Topic: b.Names.Campaigns(), Key: []byte("tn_a/camp_10004"), Value: []byte("\xff\xff")},
		&kgo.Record{Topic: b.Names.Campaigns(), Key: []byte("nonsense"), Value: []byte("x")},
		b.control(t, "tenant/tn_b", &fanfarev1.Control{Version: 1, Row: &fanfarev1.Control_Tenant{Tenant: &fanfarev1.Tenant{Id: "tn_a"}}}),
		&kgo.Record{Topic: b.Names.Suppressions(), Key: []byte("tn_a/zz"), Value: []byte{1}},
		b.campaign(t, 10005, 1, fanfarev1.State_STATE_SENDING),
	)
	v := b.view(t, stream.ViewConfig{Keys: testKeys(t), Suppressions: true})
	ready(t, v)
	if v.Campaign("camp_10003") != nil || v.Campaign("camp_10004") != nil || v.Tenant("tn_a") != nil || v.Tenant("tn_b") != nil {
		t.Error("a broken record was taken in")
	}
	if v.Campaign("camp_10005") == nil {
		t.Error("what follows the broken records is missing")
	}
}

// A tail that cannot ask for the ends grows old, however quiet the topics are, and is fresh again when it can.
func TestTailGrowsOldWhenItCannotAsk(t *testing.T) {
	fakeOnly(t)
	b := newBroker(t)
	topic := b.topic(t, "x", 2)
	b.produce(t, topic, 1, 3) // the other partition stays empty
	tail, err := stream.NewTail(stream.TailConfig{Cluster: b.Cluster, Topics: []string{topic}, Every: 10 * time.Millisecond}, func([]*kgo.Record) {})
	if err != nil {
		t.Fatal(err)
	}
	run(t, tail.Run)
	ready(t, tail)
	h := b.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.UnknownServerError, Count: -1})
	eventually(t, 5*time.Second, "an age of 300 ms", func() bool { return tail.Age() > 300*time.Millisecond })
	h.Remove()
	eventually(t, 10*time.Second, "fresh again", func() bool { return tail.Age() < 100*time.Millisecond })
}

// The end of a topic written by transactions is a control record, and may be one that aborted: it is reached all the same.
func TestTailReachesTheEndOfTransactions(t *testing.T) {
	b := newBroker(t)
	topic := b.topic(t, "x", 1)
	cl, err := b.Named("writer").Client(kgo.TransactionalID(b.Names.TransactionalID("w", "1")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i, how := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: fmt.Append(nil, i)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), how); err != nil {
			t.Fatal(err)
		}
	}
	got := b.read(t, topic)
	if len(got) != 1 || string(got[0].Value) != "0" {
		t.Errorf("got %d records, want the committed one", len(got))
	}
}

func TestTailBeginsWhereItIsTold(t *testing.T) {
	b := newBroker(t)
	topic := b.topic(t, "x", 2)
	b.produce(t, topic, 2, 10)
	var got []int64
	tail, err := stream.NewTail(stream.TailConfig{
		Cluster: b.Cluster, Topics: []string{topic}, From: map[string]map[int32]int64{topic: {0: 8, 1: 10}}, Every: 10 * time.Millisecond,
	}, func(batch []*kgo.Record) {
		for _, r := range batch {
			got = append(got, r.Offset)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, tail.Run)
	ready(t, tail)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0] != 8 || got[1] != 9 {
		t.Errorf("got %v, want [8 9]", got)
	}
	if got := tail.Positions()[topic]; got[0] != 10 || got[1] != 10 {
		t.Errorf("positions: got %v, want 10 and 10", got)
	}
}

// What a sender pays for each message.
// A log that has expired above where a tail begins is read to its end: there is nothing in it.
func TestTailOfALogThatHasExpired(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	topic := b.topic(t, "x", 1)
	b.produce(t, topic, 1, 10)
	cut := kadm.Offsets{}
	cut.AddOffset(topic, 0, 10, -1)
	if _, err := b.adm.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	var got atomic.Int64
	tail, err := stream.NewTail(stream.TailConfig{
		Cluster: b.Cluster, Topics: []string{topic}, Every: 20 * time.Millisecond, From: map[string]map[int32]int64{topic: {0: 5}},
	}, func(batch []*kgo.Record) { got.Add(int64(len(batch))) })
	if err != nil {
		t.Fatal(err)
	}
	run(t, tail.Run)
	ready(t, tail)
	b.produce(t, topic, 1, 3)
	eventually(t, 10*time.Second, "what came after", func() bool { return got.Load() == 3 })
}

func BenchmarkView(b *testing.B) {
	br, keys := newBroker(b), testKeys(b)
	br.controlTopics(b)
	recs := make([]*kgo.Record, 0, 1000)
	for n := range uint64(1000) {
		recs = append(recs, br.campaign(b, 10001+n, 1, fanfarev1.State_STATE_SENDING))
	}
	br.write(b, recs...)
	br.write(b, br.optOut(keys, "tn_a", "+391", false))
	v := br.view(b, stream.ViewConfig{Keys: keys, Suppressions: true})
	ready(b, v)
	b.Run("campaign by number", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if v.CampaignByNumber(10500) == nil {
				b.Fatal("missing")
			}
		}
	})
	b.Run("campaign by id", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if v.Campaign("camp_10500") == nil {
				b.Fatal("missing")
			}
		}
	})
	b.Run("opt-out of a tenant that has some", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v.OptedOut("tn_a", "+393331234567")
		}
	})
	b.Run("opt-out of a tenant that has none", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v.OptedOut("tn_b", "+393331234567")
		}
	})
}
