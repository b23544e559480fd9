package scheduler

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/scheduler/plan"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

func TestRunToSettled(t *testing.T) {
	p := newKafkaEnv(t)
	p.sender.says = func(s submission) []schemas.Kind {
		switch {
		case s.seq%50 == 1 && s.try < 3:
			return []schemas.Kind{returnedKind}
		case s.seq%50 == 2:
			return []schemas.Kind{ambiguousKind}
		case s.seq%50 == 3:
			return []schemas.Kind{sentKind} // and no receipt ever
		case s.seq%50 == 4:
			return []schemas.Kind{sentKind, bouncedKind}
		}
		return []schemas.Kind{sentKind, deliveredKind}
	}
	p.run()
	p.control.confirm(10001, 2000, nil)
	p.eventually("completed", func() bool { return p.control.campaign(10001).GetState() == schemas.StateCompleted })
	p.eventually("settled", p.settled(10001))
	p.check(10001, map[schemas.Bucket]int{
		schemas.BucketAmbiguous: 40, schemas.BucketAwaiting: 40, schemas.BucketUndelivered: 40, schemas.BucketDelivered: 1880,
	})
	// 40 recipients were handed over three times, 1,920 once; 40 are ambiguous, and their money is released.
	if got, want := p.control.captured[10001], uint64(50_000*(40*3+1920)); got != want {
		t.Errorf("captured %d, want %d", got, want)
	}
}

func TestPauseResumeAbort(t *testing.T) {
	p := newKafkaEnv(t)
	p.run()
	p.control.confirm(10001, 20_000, nil)
	p.eventually("sending", func() bool { return p.sender.submissions() > 1000 })
	p.control.act(func(r *fanfarev1.Campaign) { r.State = schemas.StatePaused })
	before := p.still()
	if before >= 20_000 {
		t.Errorf("all were dealt though it was paused")
	}
	p.control.act(func(r *fanfarev1.Campaign) { r.State = schemas.StateSending })
	p.eventually("sending again", func() bool { return p.sender.submissions() > before })
	p.eventually("half way", func() bool { return p.sender.submissions() > before+2000 })
	p.control.act(func(r *fanfarev1.Campaign) { r.State = schemas.StateAborted })
	p.eventually("settled", p.settled(10001))
	p.check(10001, map[schemas.Bucket]int{schemas.BucketSkipped: -1, schemas.BucketDelivered: -1})
	p.sender.mu.Lock()
	defer p.sender.mu.Unlock()
	if p.sender.skipped < 5000 {
		t.Errorf("%d were skipped, want most of the campaign", p.sender.skipped)
	}
}

// TestCallingHoursShell: outside its hours a campaign does not even start.
func TestCallingHoursShell(t *testing.T) {
	p := newKafkaEnv(t)
	p.run()
	now := time.Now().UTC()
	opens := uint32((now.Hour()*60 + now.Minute() + 120) % 1440)
	p.control.confirm(10001, 100, func(r *fanfarev1.Campaign) {
		r.CallingHours = &fanfarev1.CallingHours{StartMinute: opens, EndMinute: (opens + 60) % 1440, Timezone: "UTC"}
	})
	// If the sleep is too short, the test may miss a wrong deal; it never fails a correct scheduler.
	time.Sleep(700 * time.Millisecond)
	if n := p.sender.submissions(); n > 0 || p.control.campaign(10001).GetState() != schemas.StatePreparing {
		t.Fatalf("%d dealt, %s; want none, preparing", n, p.control.campaign(10001).GetState())
	}
	p.control.act(func(r *fanfarev1.Campaign) { r.CallingHours = nil })
	p.eventually("settled", p.settled(10001))
	p.check(10001, map[schemas.Bucket]int{schemas.BucketDelivered: 100})
}

// TestStandbyTakesOver cuts off the leader's network in the middle, mends it later, and kills the second leader too: no
// recipient is dealt twice or forgotten.
func TestStandbyTakesOver(t *testing.T) {
	p := newKafkaEnv(t)
	p.sender.says = func(s submission) []schemas.Kind {
		if s.seq%20 == 1 && s.try < 4 {
			return []schemas.Kind{returnedKind}
		}
		if s.seq%20 == 2 && s.try < 3 {
			return []schemas.Kind{sentKind, bouncedKind}
		}
		return []schemas.Kind{sentKind, deliveredKind}
	}
	const total = 8000
	first := p.run(p.hasty)
	p.control.confirm(10001, total, nil)
	p.eventually("sending", func() bool { return p.sender.submissions() > 1000 })
	second := p.run(p.hasty)
	first.cut.set(true)
	at := p.sender.submissions()
	p.eventually("taken over", func() bool { return p.sender.submissions() > at+carrierRate })
	first.cut.set(false) // a zombie comes back
	at = p.sender.submissions()
	p.eventually("still sending", func() bool { return p.sender.submissions() > at+1000 })
	second.cut.set(true)
	p.eventually("settled", p.settled(10001))
	p.check(10001, map[schemas.Bucket]int{schemas.BucketDelivered: total})
}

// TestFenceFirst: a new leader takes the transactional id before it reads, although it writes nothing yet. From then on
// its predecessor can commit nothing that the new leader would miss.
func TestFenceFirst(t *testing.T) {
	p := newKafkaEnv(t)
	first := p.run()
	p.control.confirm(10001, 4000, nil)
	p.eventually("sending", func() bool { return p.sender.submissions() > 500 })
	second, _ := p.scheduler(func(c *Config) { c.MayDeal = func() error { return errors.New("not now") } })
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return second.lead(ctx) })
	p.eventually("fenced", func() bool { return value(t, first.metrics.restarts) > 0 })
	cancel()
	if err := g.Wait(); err != nil {
		t.Log(err) // the first leader has taken the id back
	}
	p.eventually("settled", p.settled(10001))
	p.check(10001, map[schemas.Bucket]int{schemas.BucketDelivered: 4000})
}

// TestRestart stops a scheduler in an orderly way and starts another with the same topics.
func TestRestart(t *testing.T) {
	p := newKafkaEnv(t)
	const total = 4000
	pr := p.run()
	p.control.confirm(10001, total, nil)
	for n := 1000; n < total; n += 1500 {
		p.eventually("sending", func() bool { return p.sender.submissions() >= n })
		began := time.Now()
		if err := pr.stop(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("stopped in %s, want no more than a few seconds", took)
		}
		pr = p.run()
	}
	p.eventually("settled", p.settled(10001))
	p.check(10001, map[schemas.Bucket]int{schemas.BucketDelivered: total})
	// This is time for some snapshots. If the sleep is too short, the test may miss a second mark; the stop writes the
	// sets in any case.
	time.Sleep(time.Second)
	if err := pr.stop(); err != nil {
		t.Fatal(err)
	}
	marks := 0
	p.readAll(p.cluster.Names.Cursors(), func(r *kgo.Record) {
		var c fanfarev1.Cursor
		if string(r.Key) == schemas.CampaignKey(testTenant, "camp_10001") && proto.Unmarshal(r.Value, &c) == nil && c.GetSettled() {
			marks++
		}
	})
	if marks != 1 {
		t.Errorf("the cursor was marked settled %d times, want once", marks)
	}
	// A settled campaign leaves only its marked cursor.
	sc, err := (&Scheduler{cfg: Config{Cluster: p.cluster}, names: p.cluster.Names}).readCursors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for key, c := range sc.cursors {
		if !c.GetSettled() || len(sc.sets[key]) > 0 {
			t.Errorf("cursor of %s: settled %v, %d parts of sets; want settled and none", key, c.GetSettled(), len(sc.sets[key]))
		}
	}
}

// TestStopsWithoutKafka: a leader that is stopped while Kafka is unreachable still ends. The simulation found that the
// transaction which writes its sets waited for ever.
func TestStopsWithoutKafka(t *testing.T) {
	p := newKafkaEnv(t)
	pr := p.run()
	p.control.confirm(10001, 4000, nil)
	p.eventually("sending", func() bool { return p.sender.submissions() > 500 })
	pr.cut.set(true)
	stopped := make(chan error, 1)
	go func() { stopped <- pr.stop() }()
	select {
	case err := <-stopped:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatalf("not stopped after %s", patience)
	}
}

func TestStoreAway(t *testing.T) {
	p := newKafkaEnv(t)
	p.run()
	p.control.confirm(10001, 4000, nil)
	p.eventually("sending", func() bool { return p.sender.submissions() > 500 })
	p.control.setAway(true)
	p.control.confirm(10002, 100, nil)
	p.eventually("all sent without the store", func() bool { return p.sender.submissions() == 4000 })
	// If the sleep is too short, the test may only miss a wrong move.
	time.Sleep(500 * time.Millisecond)
	if s := p.control.campaign(10001).GetState(); s != schemas.StateSending {
		t.Fatalf("%s while the store is away", s)
	}
	p.control.setAway(false)
	for _, n := range []uint64{10001, 10002} {
		p.eventually("settled", p.settled(n))
	}
	p.check(10001, map[schemas.Bucket]int{schemas.BucketDelivered: 4000})
	p.check(10002, map[schemas.Bucket]int{schemas.BucketDelivered: 100})
}

// TestWithheld: the scheduler deals nothing while the view is stale, or while the MayDeal hook returns an error.
func TestWithheld(t *testing.T) {
	p := newKafkaEnv(t)
	p.run()
	full := errors.New("the disk is nearly full")
	p.hook.Store(&full)
	p.control.confirm(10001, 8000, nil)
	p.eventually("sending", func() bool { return p.control.campaign(10001).GetState() == schemas.StateSending })
	// If the sleep is too short, the test may only miss a wrong deal.
	time.Sleep(300 * time.Millisecond)
	if n := p.sender.submissions(); n > 0 {
		t.Fatalf("%d dealt though the hook says no", n)
	}
	p.hook.Store(nil)
	p.eventually("dealing", func() bool { return p.sender.submissions() > 500 })
	p.control.mu.Lock()
	p.control.stale = true
	p.control.mu.Unlock()
	if p.still() >= 8000 {
		t.Error("all were dealt by a stale view")
	}
	p.control.mu.Lock()
	p.control.stale = false
	p.control.mu.Unlock()
	p.eventually("settled", p.settled(10001))
	p.check(10001, map[schemas.Bucket]int{schemas.BucketDelivered: 8000})
}

// TestAudienceGone: a campaign whose audience cannot be frozen fails.
func TestAudienceGone(t *testing.T) {
	p := newKafkaEnv(t)
	p.run(func(c *Config) { c.Audience = noAudience{p.control} })
	p.control.confirm(10001, 100, nil)
	p.eventually("failed", func() bool { return p.control.campaign(10001).GetState() == schemas.StateFailed })
	if got := p.control.campaign(10001).GetReason(); got != "list_gone" {
		t.Errorf("reason %q, want list_gone", got)
	}
}

type noAudience struct{ *fakeControlPlane }

func (noAudience) Freeze(context.Context, string, string, uint64) error {
	return fmt.Errorf("freeze: %w", &schemas.FreezeError{Reason: "list_gone", Err: errors.New("deleted")})
}

// TestLargeAudiences: while audiences of a million are frozen, a small campaign is frozen and sent.
func TestLargeAudiences(t *testing.T) {
	p := newKafkaEnv(t)
	large := &largeAudiences{fakeControlPlane: p.control, release: make(chan struct{})}
	p.run(func(c *Config) { c.Audience = large })
	for number := range uint64(4) {
		p.control.confirm(10001+number, 1_000_000, nil)
	}
	p.eventually("two large ones are being frozen", func() bool { return large.begun.Load() == 2 })
	p.control.confirm(10009, 100, nil)
	p.eventually("the small one is sent", p.settled(10009))
	if n := large.begun.Load(); n != 2 {
		t.Errorf("%d large audiences are being frozen at a time, want 2", n)
	}
	close(large.release)
	p.eventually("all are frozen", func() bool { return large.begun.Load() >= 4 })
}

// largeAudiences freezes large audiences only once release is closed; it fails them then.
type largeAudiences struct {
	*fakeControlPlane
	begun   atomic.Int32
	release chan struct{}
}

func (a *largeAudiences) Freeze(ctx context.Context, tenant, campaign string, version uint64) error {
	if size, err := a.AudienceSize(ctx, tenant, campaign); err != nil || size < 1_000_000 {
		return a.fakeControlPlane.Freeze(ctx, tenant, campaign, version)
	}
	a.begun.Add(1)
	select {
	case <-a.release:
	case <-ctx.Done():
	}
	return fmt.Errorf("freeze: %w", &schemas.FreezeError{Reason: "list_gone", Err: errors.New("deleted")})
}

// TestHeld: a scheduled single send is dealt once, when it is due. One that the sender returned is dealt with its next
// try.
func TestHeld(t *testing.T) {
	p := newKafkaEnv(t)
	day := time.Now().Add(-36 * time.Hour) // whose day is over
	p.control.confirm(10009, 0, func(r *fanfarev1.Campaign) {
		r.Hidden, r.State, r.Total, r.Legs, r.CreatedMs = true, schemas.StateSending, 1000, nil, ms(day)
	})
	names := p.cluster.Names
	cl := p.client()
	hold := func(seq, n uint32, due time.Time) {
		id := p.keys.Message(10009, seq)
		r, err := schemas.Event{Topic: names.Held(), Key: schemas.DeliveryKey(testTenant, id), Tenant: testTenant, Type: schemas.TypeHeld, Source: "api", ID: id.String(), Time: time.Now(), Value: &fanfarev1.Held{
			DueMs: ms(due),
			Message: &fanfarev1.Message{
				Tenant: testTenant, CampaignId: "camp_10009", CampaignNumber: 10009, Seq: seq, Try: n, Leg: 1, Route: "sim", To: "+393401234567",
				Body: &fanfarev1.Message_Text{Text: &fanfarev1.Text{Body: "hello"}}, NotAfterMs: ms(time.Now().Add(time.Hour)),
			},
		}}.Record()
		if err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	due := time.Now().Add(1500 * time.Millisecond)
	hold(1, 0, due)         // scheduled
	hold(2, 1, time.Time{}) // returned by the sender: due at once
	p.sender.write(t.Context(), submission{10009, 2, 1, 1}, returnedKind, schemas.CodeWindow)
	pr := p.run()
	var got []*kgo.Record
	lane := func(want int) func() bool {
		return func() bool {
			got = nil
			p.readAll(names.Messages("sim", schemas.LaneTxn), func(r *kgo.Record) { got = append(got, r) })
			return len(got) >= want
		}
	}
	p.eventually("dealt the one that is due", lane(1))
	var e plan.Event
	if err := plan.DecodeMessage(got[0].Value, &e); err != nil || e.Seq != 2 || e.Try != 2 {
		t.Fatalf("dealt %+v (%v), want seq 2 at try 2", e, err)
	}
	if id := string(schemas.Header(got[0], schemas.HeaderSubmission)); id != p.keys.Submission(10009, 2, 2).String() {
		t.Errorf("submission header %q", id)
	}
	p.eventually("dealt the scheduled one", lane(2))
	if time.Now().Before(due) {
		t.Error("dealt before it was due")
	}
	// A successor finds nothing to deal.
	if err := pr.stop(); err != nil {
		t.Fatal(err)
	}
	p.run()
	p.sender.write(t.Context(), submission{10009, 2, 2, 1}, deliveredKind, noCode)
	p.sender.write(t.Context(), submission{10009, 1, 1, 1}, deliveredKind, noCode)
	p.eventually("settled", p.settled(10009))
	if lane(3)(); len(got) != 2 {
		t.Errorf("%d messages on the lane, want 2", len(got))
	}
	held := map[string]bool{}
	p.readAll(names.Held(), func(r *kgo.Record) {
		if held[string(r.Key)] = true; r.Value == nil {
			delete(held, string(r.Key))
		}
	})
	if len(held) > 0 {
		t.Errorf("%d are still held", len(held))
	}
}
