package tracker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/deploy/embedded"
	"fanfare/pipeline/dlrindex"
	"fanfare/pipeline/stream"
	"fanfare/pipeline/stream/streamtest"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// system is an env with a broker.
type system struct {
	*env
	cfg      Config
	producer *kgo.Client
}

func newSystem(t testing.TB) *system {
	t.Helper()
	e := newEnv(t)
	cfg := e.config()
	cfg.Now = time.Now
	cfg.Watch = 50 * time.Millisecond
	cfg.SessionTimeout = 2 * time.Second
	services, err := embedded.Start(embedded.Config{Dir: t.TempDir(), Logger: cfg.Cluster.Logger, Kafka: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(services.Stop)
	cfg.Cluster.Brokers = []string{services.Kafka}
	producer, err := cfg.Cluster.Client(kgo.ProducerLinger(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(producer.Close)
	if err := stream.EnsureTopics(t.Context(), kadm.NewClient(producer), 1, e.names.Fixed()); err != nil {
		t.Fatal(err)
	}
	return &system{e, cfg, producer}
}

// run runs a tracker until the test ends or stop is called.
func (s *system) run(t testing.TB) (stop func()) {
	t.Helper()
	tracker, err := New(s.cfg, Deps{Keys: s.keys, Campaigns: s, Index: s.index, Indexed: func(r *fanfarev1.Route) bool { return r.GetName() == "sim" }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- tracker.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (s *system) publish(t testing.TB, receipts ...*fanfarev1.Receipt) {
	t.Helper()
	var recs []*kgo.Record
	for _, r := range receipts {
		rec, err := schemas.ReceiptEvent(s.names.Receipts(), source, r).Record()
		if err != nil {
			t.Fatal(err)
		}
		recs = append(recs, rec)
	}
	if err := s.producer.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// answer does what the sender does when the carrier has answered: it writes the event, puts the entry and publishes the
// parked receipts.
func (s *system) answer(t testing.TB, providerID string, seq uint32) {
	t.Helper()
	s.sent(t, providerID, seq)
	if parked := s.put(t, providerID, seq, 1); len(parked) > 0 {
		s.publish(t, parked...)
	}
}

// sent writes the event of a hand-over.
func (s *system) sent(t testing.TB, providerID string, seq uint32) {
	t.Helper()
	message, submission := s.keys.Message(number, seq), s.keys.Submission(number, seq, 1)
	r, err := schemas.DeliveryEvent(s.names.Deliveries(), "sender", &fanfarev1.Delivery{
		Tenant: tenant, CampaignId: "camp_10001", CampaignNumber: number, Seq: seq, Try: 1, Leg: 2, Kind: schemas.KindSent,
		Code: schemas.CodeAwaitingDLR, TimeMs: time.Now().UnixMilli(), Route: "sim", To: to, ProviderId: providerID,
		MessageId: message[:], SubmissionId: submission[:],
	}, "").Record()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.producer.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// await reads deliveries until every seq has the wanted state.
func (s *system) await(t testing.TB, want map[uint32]schemas.Kind) {
	t.Helper()
	cl, err := s.cfg.Cluster.Client(kgo.ConsumeTopics(s.names.Deliveries()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	got := map[uint32]schemas.Kind{}
	var events []*fanfarev1.Delivery
	for deadline := time.Now().Add(30 * time.Second); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		fetches := cl.PollFetches(ctx)
		cancel()
		for _, r := range fetches.Records() {
			d := &fanfarev1.Delivery{}
			if err := proto.Unmarshal(r.Value, d); err != nil {
				t.Fatal(err)
			}
			events = append(events, d)
		}
		for seq, p := range states(events) {
			got[seq] = p.Kind()
		}
		d := cmp.Diff(want, got)
		if d == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 30 s (-want +got):\n%s", d)
		}
	}
}

// TestTrackers: two trackers on a broker and a Redis, with a carrier that does not echo our id: receipts before and
// after the answer, repeated, in parts and forged. One tracker stops in the middle.
func TestTrackers(t *testing.T) {
	s := newSystem(t)
	s.redis.FlushAll() // a new Redis
	first := s.run(t)
	s.run(t)
	rng := rand.New(rand.NewPCG(1, 2))
	want := map[uint32]schemas.Kind{}
	const n = 120
	for seq := range uint32(n) {
		id := fmt.Sprint(5000 + seq)
		receipts := []*fanfarev1.Receipt{bare(id, statusBuffered), bare(id, statusDelivered), bare(id, statusDelivered)}
		want[seq] = schemas.KindDelivered
		switch seq % 4 {
		case 1:
			receipts = []*fanfarev1.Receipt{bare(id, statusFailed)}
			receipts[0].RawCode = "005"
			want[seq] = schemas.KindUndelivered
		case 2:
			for i := range uint32(3) {
				r := bare(fmt.Sprintf("%s-%d", id, i), statusDelivered)
				r.AltProviderIds, r.Part, r.Parts = []string{id}, i+1, 3
				receipts[i] = r
			}
		case 3: // with our id
			receipts = []*fanfarev1.Receipt{s.echoed(seq, statusRead), s.echoed(seq, statusDelivered)}
			want[seq] = schemas.KindRead
		}
		rng.Shuffle(len(receipts), func(i, j int) { receipts[i], receipts[j] = receipts[j], receipts[i] })
		early := rng.IntN(len(receipts) + 1)
		s.publish(t, receipts[:early]...)
		s.answer(t, id, seq)
		s.publish(t, receipts[early:]...)
		if seq == n/2 {
			first()
		}
	}
	forged := s.echoed(1, statusDelivered)
	forged.SubmissionId[15] ^= 1
	s.publish(t, forged)
	s.await(t, want)

	dead, err := s.cfg.Cluster.Client(kgo.ConsumeTopics(s.names.DeadLetters(s.names.Receipts())), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	recs := dead.PollFetches(ctx).Records()
	if len(recs) == 0 || !strings.Contains(string(schemas.Header(recs[0], schemas.HeaderCause)), "forged") {
		t.Errorf("got dead letters %v, want the forged receipt", recs)
	}
}

// TestLostRedis: entries, parked receipts and parts are rebuilt from the topics, and receipts whose submission became
// known while Redis was lost become events.
func TestLostRedis(t *testing.T) {
	s := newSystem(t)
	s.cfg.Watch = time.Hour // the receipt that needs the index wakes the rebuilder
	s.run(t)
	part := func(seq, n uint32) *fanfarev1.Receipt {
		r := bare(fmt.Sprintf("part-%d-%d", seq, n), statusDelivered)
		r.AltProviderIds, r.Part, r.Parts = []string{fmt.Sprintf("p-%d", seq)}, n, 2
		return r
	}
	s.answer(t, "p-1", 1)                      // its receipt comes after
	s.publish(t, bare("p-2", statusDelivered)) // its answer comes after
	s.answer(t, "p-3", 3)                      // in two parts: one receipt comes before the loss
	s.publish(t, part(3, 1))
	// the carrier's answer arrives while Redis is empty, so the sender finds no parked receipt
	s.publish(t, bare("p-4", statusDelivered))
	echoedPart := func(n uint32) *fanfarev1.Receipt {
		return s.echoed(6, statusDelivered, func(r *fanfarev1.Receipt) { r.Part, r.Parts = n, 2 })
	}
	s.publish(t, echoedPart(1)) // in two parts: one receipt comes before the loss
	s.answer(t, "p-5", 5)
	s.publish(t, bare("p-5", statusDelivered)) // the receipt has its event, so it is not published again
	s.await(t, map[uint32]schemas.Kind{1: schemas.KindSent, 3: schemas.KindSent, 5: schemas.KindDelivered})
	streamtest.Eventually(t, "8 keys: the marker, the entries of 1, 3 and 5, the parked receipts of 2 and 4, the parts of 3 and 6", func() bool {
		return len(s.redis.Keys()) == 8
	})

	s.redis.FlushAll()
	s.sent(t, "p-4", 4)
	s.put(t, "p-4", 4, 1)
	s.publish(t, bare("p-1", statusFailed))
	streamtest.Eventually(t, "the index is rebuilt", func() bool {
		ready, err := s.index.Ready(t.Context())
		return err == nil && ready
	})
	s.answer(t, "p-2", 2)
	s.publish(t, part(3, 2), echoedPart(2))
	s.await(t, map[uint32]schemas.Kind{
		1: schemas.KindUndelivered, 2: schemas.KindDelivered, 3: schemas.KindDelivered,
		4: schemas.KindDelivered, 5: schemas.KindDelivered, 6: schemas.KindDelivered,
	})
	if n := s.again(t, "p-5"); n != 0 {
		t.Errorf("a receipt with an event was published again %d times, want 0", n)
	}
	if n := s.again(t, "p-4"); n == 0 {
		t.Error("the receipt that was parked when its answer found nothing was not published again")
	}
}

// again counts the receipts of a provider id that were published with their submission.
func (s *system) again(t testing.TB, providerID string) int {
	t.Helper()
	n := 0
	f := &rebuild{rebuilder: &rebuilder{handler: s.handler(t), owner: "test"}, since: time.Now().Add(-time.Hour), producer: s.producer, locked: time.Now()}
	f.cfg.Cluster = s.cfg.Cluster
	err := f.follow(t.Context(), s.names.Receipts(), func(_ context.Context, batch []*kgo.Record) error {
		for _, r := range batch {
			receipt := &fanfarev1.Receipt{}
			if err := proto.Unmarshal(r.Value, receipt); err != nil {
				return err
			}
			if receipt.GetProviderId() == providerID && len(receipt.GetSubmissionId()) > 0 {
				n++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRebuildFailsWhenRedisIsLostAgain: an incomplete index that is marked as complete would lose receipts without any
// error.
func TestRebuildFailsWhenRedisIsLostAgain(t *testing.T) {
	s := newSystem(t)
	s.redis.FlushAll()
	s.sent(t, "p-1", 1)
	h, err := newHandler(s.cfg, Deps{Keys: s.keys, Campaigns: s, Index: s.index})
	if err != nil {
		t.Fatal(err)
	}
	k := newRebuilder(h)
	if ok, err := s.index.Lock(t.Context(), k.owner, time.Minute); !ok || err != nil {
		t.Fatal(ok, err)
	}
	f := &rebuild{rebuilder: k, since: time.Now().Add(-time.Hour)}
	s.redis.FlushAll()
	if err := f.run(t.Context()); err == nil {
		t.Error("a rebuild without its lock succeeded")
	}
	if err := k.ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	ids, err := s.index.Find(t.Context(), []dlrindex.Sighting{h.sighting(bare("p-1", statusDelivered), []byte("x"))})
	if err != nil || ids[0].Submission != s.keys.Submission(number, 1, 1) {
		t.Errorf("after the next rebuild: got %v %v, want the submission", ids, err)
	}
}

// TestNothingToRebuild: if every carrier echoes our ids, the rebuilder reads no topic. While the view does not know the
// routes yet, it does not mark the index as complete.
func TestNothingToRebuild(t *testing.T) {
	w := newEnv(t)
	w.redis.FlushAll()
	h := w.handler(t) // its cluster has no brokers: reading a topic fails
	k := newRebuilder(h)
	ready := func(want bool) {
		t.Helper()
		if got, err := w.index.Ready(t.Context()); err != nil || got != want {
			t.Errorf("ready: got %v %v, want %v", got, err, want)
		}
	}
	w.age = time.Hour
	if err := k.ensure(t.Context()); err == nil {
		t.Error("an old view: got no error")
	}
	ready(false)
	w.age = 0
	if err := k.ensure(t.Context()); err == nil {
		t.Error("carriers that do not echo, and no broker: got no error")
	}
	ready(false)
	h.indexed = func(*fanfarev1.Route) bool { return false }
	w.redis.FastForward(time.Second) // the lock was released, so the test need not wait until it expires
	if err := k.ensure(t.Context()); err != nil {
		t.Error(err)
	}
	ready(true)
}
