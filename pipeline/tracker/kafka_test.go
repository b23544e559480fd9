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
	"fanfare/pipeline/stream"
	"fanfare/pipeline/stream/rendezvous"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// system is a broker and a tracker's world beside it.
type system struct {
	*world
	cfg      Config
	producer *kgo.Client
}

func newSystem(t testing.TB) *system {
	t.Helper()
	w := newWorld(t)
	cfg := w.config()
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
	if err := stream.EnsureTopics(t.Context(), kadm.NewClient(producer), 1, w.names.Fixed()); err != nil {
		t.Fatal(err)
	}
	return &system{w, cfg, producer}
}

// run runs a tracker until the test ends or stop is called.
func (s *system) run(t testing.TB) (stop func()) {
	t.Helper()
	tracker, err := New(s.cfg, Deps{Keys: s.keys, Campaigns: s, Rendezvous: s.table, Meets: func(r *fanfarev1.Route) bool { return r.GetName() == "sim" }})
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
		rec, err := receiptRecord(s.names, r)
		if err != nil {
			t.Fatal(err)
		}
		recs = append(recs, rec)
	}
	if err := s.producer.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// answer is the sender when the carrier has answered: the event, the rendezvous, and whatever was parked.
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
		Tenant: tenant, CampaignId: "camp_10001", CampaignNumber: number, Seq: seq, Try: 1, Leg: 2, Kind: fanfarev1.Kind_KIND_SENT,
		Code: fanfarev1.Code_CODE_AWAITING_DLR, TimeMs: time.Now().UnixMilli(), Route: "sim", To: to, ProviderId: providerID,
		MessageId: message[:], SubmissionId: submission[:],
	}, "").Record()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.producer.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// await reads the tracker's events until the state of every seq is what is wanted.
func (s *system) await(t testing.TB, want map[uint32]fanfarev1.Kind) {
	t.Helper()
	cl, err := s.cfg.Cluster.Client(kgo.ConsumeTopics(s.names.Deliveries()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	got := map[uint32]fanfarev1.Kind{}
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

// TestTrackers: on a broker and a Redis, with a carrier that does not echo: receipts before and after the answer, doubled, in
// parts, forged; one tracker of two goes away in the middle.
func TestTrackers(t *testing.T) {
	s := newSystem(t)
	s.redis.FlushAll() // a Redis that nobody has used yet
	first := s.run(t)
	s.run(t)
	rng := rand.New(rand.NewPCG(1, 2))
	want := map[uint32]fanfarev1.Kind{}
	const n = 120
	for seq := range uint32(n) {
		id := fmt.Sprint(5000 + seq)
		receipts := []*fanfarev1.Receipt{bare(id, statusBuffered), bare(id, statusDelivered), bare(id, statusDelivered)}
		want[seq] = fanfarev1.Kind_KIND_DELIVERED
		switch seq % 4 {
		case 1:
			receipts = []*fanfarev1.Receipt{bare(id, statusFailed)}
			receipts[0].RawCode = "005"
			want[seq] = fanfarev1.Kind_KIND_UNDELIVERED
		case 2:
			for i := range uint32(3) {
				r := bare(fmt.Sprintf("%s-%d", id, i), statusDelivered)
				r.AltProviderIds, r.Part, r.Parts = []string{id}, i+1, 3
				receipts[i] = r
			}
		case 3: // one that echoes
			receipts = []*fanfarev1.Receipt{s.echoed(seq, statusRead), s.echoed(seq, statusDelivered)}
			want[seq] = fanfarev1.Kind_KIND_READ
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

// TestLostRedis: what was put, parked and joined is made again from the topics, and what became known while it was lost is said.
func TestLostRedis(t *testing.T) {
	s := newSystem(t)
	s.cfg.Watch = time.Hour // a receipt that needs it tells
	s.run(t)
	part := func(seq, n uint32) *fanfarev1.Receipt {
		r := bare(fmt.Sprintf("part-%d-%d", seq, n), statusDelivered)
		r.AltProviderIds, r.Part, r.Parts = []string{fmt.Sprintf("p-%d", seq)}, n, 2
		return r
	}
	s.answer(t, "p-1", 1)                      // its receipt comes after
	s.publish(t, bare("p-2", statusDelivered)) // its answer comes after
	s.answer(t, "p-3", 3)                      // in two parts, one before
	s.publish(t, part(3, 1))
	s.publish(t, bare("p-4", statusDelivered)) // its answer comes while Redis has nothing: it finds nothing parked
	echoedPart := func(n uint32) *fanfarev1.Receipt {
		return s.echoed(6, statusDelivered, func(r *fanfarev1.Receipt) { r.Part, r.Parts = n, 2 })
	}
	s.publish(t, echoedPart(1)) // in two parts, one before
	s.answer(t, "p-5", 5)
	s.publish(t, bare("p-5", statusDelivered)) // said already: not said again
	s.await(t, map[uint32]fanfarev1.Kind{1: fanfarev1.Kind_KIND_SENT, 3: fanfarev1.Kind_KIND_SENT, 5: fanfarev1.Kind_KIND_DELIVERED})
	for deadline := time.Now().Add(10 * time.Second); len(s.redis.Keys()) < 8 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	// The marker, the entries of 1, 3 and 5, what is parked for 2 and 4, the parts of 3 and 6.
	if keys := s.redis.Keys(); len(keys) != 8 {
		t.Fatalf("before it is lost: got %d keys %v, want 8", len(keys), keys)
	}

	s.redis.FlushAll()
	s.sent(t, "p-4", 4)
	s.put(t, "p-4", 4, 1)
	s.publish(t, bare("p-1", statusFailed))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if ready, err := s.table.Ready(t.Context()); err == nil && ready {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the rendezvous was not filled again")
		}
	}
	s.answer(t, "p-2", 2)
	s.publish(t, part(3, 2), echoedPart(2))
	s.await(t, map[uint32]fanfarev1.Kind{
		1: fanfarev1.Kind_KIND_UNDELIVERED, 2: fanfarev1.Kind_KIND_DELIVERED, 3: fanfarev1.Kind_KIND_DELIVERED,
		4: fanfarev1.Kind_KIND_DELIVERED, 5: fanfarev1.Kind_KIND_DELIVERED, 6: fanfarev1.Kind_KIND_DELIVERED,
	})
	if n := s.again(t, "p-5"); n != 0 {
		t.Errorf("a receipt whose event had been said was published again %d times, want 0", n)
	}
	if n := s.again(t, "p-4"); n == 0 {
		t.Error("the receipt that was parked when its answer found nothing was not published again")
	}
}

// again counts the receipts of a provider id that were published with their submission.
func (s *system) again(t testing.TB, providerID string) int {
	t.Helper()
	n := 0
	f := &filling{keeper: &keeper{handler: s.handler(t), who: "test"}, since: time.Now().Add(-time.Hour), producer: s.producer, locked: time.Now()}
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

// TestFillingIsNotTrustedWhenRedisIsLostAgain: a marker over half a table would lose receipts in silence.
func TestFillingIsNotTrustedWhenRedisIsLostAgain(t *testing.T) {
	s := newSystem(t)
	s.redis.FlushAll()
	s.sent(t, "p-1", 1)
	h, err := newHandler(s.cfg, Deps{Keys: s.keys, Campaigns: s, Rendezvous: s.table})
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(h, nil)
	if ok, err := s.table.Lock(t.Context(), k.who, time.Minute); !ok || err != nil {
		t.Fatal(ok, err)
	}
	f := &filling{keeper: k, since: time.Now().Add(-time.Hour)}
	s.redis.FlushAll()
	if err := f.run(t.Context()); err == nil {
		t.Error("a filling whose lock is gone ended well")
	}
	if err := k.ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	ids, err := s.table.Find(t.Context(), []rendezvous.Sighting{h.sighting(bare("p-1", statusDelivered), []byte("x"))})
	if err != nil || ids[0] != s.keys.Submission(number, 1, 1) {
		t.Errorf("after it was filled anew: got %v %v, want the submission", ids, err)
	}
}

// TestNothingToFill: where every carrier echoes our ids nothing is read, and nothing is said to be whole by a view that does not
// know the routes yet.
func TestNothingToFill(t *testing.T) {
	w := newWorld(t)
	w.redis.FlushAll()
	h := w.handler(t) // its cluster has no brokers: whoever reads a topic fails
	k := newKeeper(h, func(*fanfarev1.Route) bool { return false })
	ready := func(want bool) {
		t.Helper()
		if got, err := w.table.Ready(t.Context()); err != nil || got != want {
			t.Errorf("ready: got %v %v, want %v", got, err, want)
		}
	}
	w.age = time.Hour
	if err := k.ensure(t.Context()); err == nil {
		t.Error("an old view: got no error")
	}
	ready(false)
	w.age = 0
	if err := newKeeper(h, nil).ensure(t.Context()); err == nil {
		t.Error("carriers that do not echo, and no broker: got no error")
	}
	ready(false)
	w.redis.FastForward(time.Second) // the lock is let go, not left to lapse
	if err := k.ensure(t.Context()); err != nil {
		t.Error(err)
	}
	ready(true)
}
