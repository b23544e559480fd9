package sender

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/ratelimit"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

func TestHandsOverAndReports(t *testing.T) {
	inWorld(t, func(w *world) {
		w.carrier.caps.MaxBatch = 40
		w.start(schemas.LaneBulk)
		slips := w.release(messages(100)...)
		after(10 * time.Millisecond)
		w.want("accepted", slips, sent, awaiting)
		w.wantSeen("accepted", 100)
		for i, o := range w.carrier.seen() {
			if want := w.keys.Submission(10001, uint32(i), 1); o.Key != want {
				t.Fatalf("message %d at the carrier: got %s, want %s: the order of the partition", i, o.Key, want)
			}
			if o.Deadline.IsZero() || !slips[i].begun {
				t.Fatalf("message %d: got no deadline, or not begun", i)
			}
			if d := slips[i].outcome(); d.GetProviderId() != "ref-"+o.Key.String() || d.GetSegments() != 2 || d.GetPriceMicros() != 50_000 {
				t.Fatalf("message %d: got %v, want provider id, segments and price", i, d)
			}
		}
		for _, b := range w.carrier.batches {
			if len(b) > 40 {
				t.Errorf("got a batch of %d, want at most 40", len(b))
			}
		}
		if w.tokens.taken-w.tokens.back != 100 {
			t.Errorf("got %d tokens used, want 100", w.tokens.taken-w.tokens.back)
		}
	})
}

// What may have been handed over before is reported and goes nowhere near the carrier, whatever state its campaign is in and
// even if the control view and Redis are away.
func TestUncertainIsOnlyReported(t *testing.T) {
	inWorld(t, func(w *world) {
		w.view.age, w.tokens.away = time.Hour, make(chan struct{})
		w.view.campaign(10001, fanfarev1.State_STATE_ABORTED)
		w.start(schemas.LaneBulk)
		s := &slip{w: w}
		w.lane.release([]*entry{{item: s, rec: messageRecord(t, w.keys, testMessage(10001, 1, 1)), uncertain: true, released: time.Now()}})
		after(10 * time.Millisecond)
		w.want("uncertain", []*slip{s}, doubtful, fanfarev1.Code_CODE_CRASH)
		w.wantSeen("uncertain", 0)
		if s.begun {
			t.Error("uncertain: got begun")
		}
	})
}

// After the tokens are held, everything is asked once more: each change here comes between the first judgement and the tokens.
func TestEverythingIsAskedAgainAfterTheTokens(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(w *world, s *slip)
		kind   fanfarev1.Kind
		code   fanfarev1.Code
	}{
		"paused":    {func(w *world, _ *slip) { w.view.campaign(10001, fanfarev1.State_STATE_PAUSED) }, gaveBack, fanfarev1.Code_CODE_PAUSED},
		"suspended": {func(w *world, _ *slip) { w.view.campaign(10001, fanfarev1.State_STATE_SUSPENDED) }, gaveBack, fanfarev1.Code_CODE_SUSPENDED},
		"aborted":   {func(w *world, _ *slip) { w.view.campaign(10001, fanfarev1.State_STATE_ABORTED) }, left, fanfarev1.Code_CODE_CANCELLED},
		"tenant":    {func(w *world, _ *slip) { w.view.set(func() { w.view.tenants["tn_a"] = &fanfarev1.Tenant{Id: "tn_a"} }) }, gaveBack, fanfarev1.Code_CODE_SUSPENDED},
		// An opt-out is no change of the control plane, and nobody is woken by it.
		"opted out": {func(w *world, _ *slip) {
			w.view.mu.Lock()
			defer w.view.mu.Unlock()
			w.view.optedOut["tn_a+393331234567"] = true
		}, left, fanfarev1.Code_CODE_OPTED_OUT},
		"hours": {func(w *world, _ *slip) {
			w.view.mu.Lock()
			defer w.view.mu.Unlock() // time passes: nobody is woken either
			w.view.campaigns["camp_10001"].CallingHours = &fanfarev1.CallingHours{StartMinute: 300, EndMinute: 301, Timezone: "UTC"}
		}, gaveBack, fanfarev1.Code_CODE_WINDOW},
		"guard": {func(_ *world, s *slip) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.deadline = time.Now()
		}, none, noCode},
		"ownership": {func(_ *world, s *slip) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.refuse = true
		}, none, noCode},
		"view": {func(w *world, _ *slip) {
			w.view.mu.Lock()
			defer w.view.mu.Unlock()
			w.view.age = 6 * time.Second
		}, none, noCode},
		"opt-outs too old": {func(w *world, _ *slip) {
			w.view.mu.Lock()
			defer w.view.mu.Unlock()
			w.view.optOutAge = 1600 * time.Millisecond
		}, none, noCode},
		"nothing": {func(*world, *slip) {}, sent, awaiting},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				// The token is reserved 8 ms ahead: less than anything that waits is looked at again by itself.
				w.tokens.grant = func(r ratelimit.Request) ratelimit.Grant {
					ready := time.Now().Add(8 * time.Millisecond)
					return ratelimit.Grant{Tokens: r.Want, Ready: ready, Until: ready.Add(50 * time.Millisecond)}
				}
				w.start(schemas.LaneBulk)
				s := w.release(messages(1)...)
				after(2 * time.Millisecond)
				if w.tokens.taken != 1 {
					t.Fatalf("got %d tokens held, want 1", w.tokens.taken)
				}
				tc.change(w, s[0])
				after(100 * time.Millisecond)
				w.want(name, s, tc.kind, tc.code)
				if tc.kind != sent {
					w.wantSeen(name, 0)
				}
				if tc.kind == gaveBack && w.tokens.back != 1 {
					t.Errorf("%s: got %d tokens back, want 1", name, w.tokens.back)
				}
				if name == "guard" || name == "view" || name == "opt-outs too old" { // these pass, and nothing is forgotten
					s[0].mu.Lock()
					s[0].deadline = time.Time{}
					s[0].mu.Unlock()
					w.view.mu.Lock()
					w.view.age, w.view.optOutAge = 0, 0
					w.view.mu.Unlock()
					after(100 * time.Millisecond)
					w.want(name+" and back", s, sent, awaiting)
				}
			})
		})
	}
}

// P4: what waits for the carrier's window is not written once the answers to the last questions are older than half a second: who
// opted out meanwhile, or was aborted, gets nothing. The carrier was asked nothing, so the breaker is told nothing.
func TestWhatWaitsAtTheCarrierIsAskedAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		wait   time.Duration
		change func(w *world)
		kind   fanfarev1.Kind
		code   fanfarev1.Code
		then   fanfarev1.Kind // when it is released once more
	}{
		"opted out": {time.Second, func(w *world) {
			w.view.mu.Lock()
			defer w.view.mu.Unlock()
			w.view.optedOut["tn_a+393331234567"] = true
		}, gaveBack, fanfarev1.Code_CODE_PROVIDER_ERROR, left},
		"aborted":           {time.Second, func(w *world) { w.view.campaign(10001, fanfarev1.State_STATE_ABORTED) }, gaveBack, fanfarev1.Code_CODE_PROVIDER_ERROR, left},
		"nothing, but late": {time.Second, func(*world) {}, gaveBack, fanfarev1.Code_CODE_PROVIDER_ERROR, sent},
		"nothing, in time":  {400 * time.Millisecond, func(*world) {}, sent, awaiting, sent},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.carrier.before = func(ctx context.Context, _ []carrier.Outbound) error { sleep(ctx, tc.wait); return nil }
				w.carrier.reply = func(o carrier.Outbound) (carrier.Result, bool) {
					if !time.Now().Before(o.Deadline) {
						return carrier.Result{Outcome: carrier.Retryable, Code: carrier.CodeDeadline}, true
					}
					return carrier.Result{Outcome: carrier.Accepted}, true
				}
				w.start(schemas.LaneBulk)
				for range 2 * breakerConsecutive { // as many as would open it
					s := w.release(messages(1)...)
					after(100 * time.Millisecond)
					tc.change(w)
					after(tc.wait)
					if w.want(name, s, tc.kind, tc.code); tc.then != tc.kind && tc.then != sent {
						break
					}
				}
				w.carrier.before = nil
				s := w.release(messages(1)...)
				after(100 * time.Millisecond)
				if got := s[0].outcome().GetKind(); got != tc.then {
					t.Errorf("released once more: got %v, want %v", got, tc.then)
				}
			})
		})
	}
}

// Pause: the last hand-over is at most 250 ms after the change arrives, and what waits is given back at once.
func TestPauseIsQuick(t *testing.T) {
	inWorld(t, func(w *world) {
		w.tokens.grant = func(ratelimit.Request) ratelimit.Grant { // 100 a second
			now := time.Now()
			return ratelimit.Grant{Tokens: 1, Ready: now.Add(10 * time.Millisecond), Until: now.Add(60 * time.Millisecond)}
		}
		w.start(schemas.LaneBulk)
		slips := w.release(messages(500)...)
		after(time.Second)
		before := len(w.carrier.seen())
		if before < 90 || before > 110 {
			t.Fatalf("got %d in a second, want 100", before)
		}
		paused := time.Now()
		w.view.campaign(10001, fanfarev1.State_STATE_PAUSED)
		after(time.Second)
		w.carrier.mu.Lock()
		last := w.carrier.at[len(w.carrier.at)-1]
		w.carrier.mu.Unlock()
		if last.Sub(paused) > 0 {
			t.Errorf("got a hand-over %s after the pause arrived, want none", last.Sub(paused))
		}
		w.want("waiting when paused", slips[before:], gaveBack, fanfarev1.Code_CODE_PAUSED)
		for _, s := range slips[before:] {
			if s.at.Sub(paused) > 50*time.Millisecond {
				t.Fatalf("message %d: given back %s after the pause, want at once", s.n, s.at.Sub(paused))
			}
		}
	})
}

func TestHoldsWhileTheViewIsTooOld(t *testing.T) {
	inWorld(t, func(w *world) {
		w.view.age = stale
		w.start(schemas.LaneBulk)
		slips := w.release(messages(10)...)
		after(10 * time.Minute)
		w.want("view too old for minutes", slips, none, noCode)
		w.view.mu.Lock()
		w.view.age, w.view.optOutAge = 0, 1500*time.Millisecond
		w.view.mu.Unlock()
		after(time.Minute)
		w.want("opt-outs 1.5 s old", slips, none, noCode)
		w.view.mu.Lock()
		w.view.optOutAge = time.Second
		w.view.mu.Unlock()
		after(50 * time.Millisecond)
		w.want("all fresh", slips, sent, awaiting)
	})
}

const stale = 5 * time.Second

// Redis away: everything holds, nothing is given back; answers and time-outs of what is at the carrier go on. Then it goes on.
func TestHoldsWhileRedisIsAway(t *testing.T) {
	inWorld(t, func(w *world) {
		w.carrier.reply = func(o carrier.Outbound) (carrier.Result, bool) {
			return carrier.Result{Outcome: carrier.Accepted}, o.Key.Seq() != 0
		}
		w.start(schemas.LaneBulk)
		first := w.release(messages(1)...)
		after(10 * time.Millisecond)
		away := make(chan struct{})
		w.tokens.mu.Lock()
		w.tokens.away = away
		w.tokens.mu.Unlock()
		slips := w.release(messages(50)[1:]...)
		after(10 * time.Minute)
		w.want("Redis away", slips, none, noCode)
		w.wantSeen("Redis away", 1)
		w.want("at the carrier, without an answer", first, doubtful, fanfarev1.Code_CODE_TIMEOUT)
		w.tokens.mu.Lock()
		w.tokens.away = nil
		w.tokens.mu.Unlock()
		close(away)
		after(50 * time.Millisecond)
		w.want("Redis back", slips, sent, awaiting)
	})
}

// A pause is heeded while Redis is away.
func TestPausedWhileRedisIsAway(t *testing.T) {
	inWorld(t, func(w *world) {
		w.tokens.away = make(chan struct{})
		w.start(schemas.LaneBulk)
		slips := w.release(messages(5)...)
		after(time.Second)
		w.view.campaign(10001, fanfarev1.State_STATE_PAUSED)
		after(50 * time.Millisecond)
		w.want("paused", slips, gaveBack, fanfarev1.Code_CODE_PAUSED)
		close(w.tokens.away)
		after(time.Second)
		w.wantSeen("paused", 0)
		if w.tokens.back != w.tokens.taken {
			t.Errorf("got %d of %d tokens back, want all", w.tokens.back, w.tokens.taken)
		}
	})
}

func TestRouteSwitchedOff(t *testing.T) {
	inWorld(t, func(w *world) {
		w.view.routes["sim"].Enabled = false
		w.start(schemas.LaneBulk)
		slips := w.release(messages(3)...)
		after(20 * time.Millisecond)
		w.want("switched off", slips, gaveBack, fanfarev1.Code_CODE_BREAKER)
		w.wantSeen("switched off", 0)
	})
}

func TestPoison(t *testing.T) {
	inWorld(t, func(w *world) {
		w.start(schemas.LaneBulk)
		bad := messageRecord(t, w.keys, testMessage(10001, 4, 1))
		bad.Value = []byte{0xff}
		named, nameless := &slip{w: w}, &slip{w: w}
		w.lane.release([]*entry{
			{item: named, rec: bad, released: time.Now()},
			{item: nameless, rec: &kgo.Record{Topic: "t.messages.sim.bulk", Value: []byte{0xff}}, released: time.Now()},
		})
		doubtfulToo := &slip{w: w}
		w.lane.release([]*entry{{item: doubtfulToo, rec: &kgo.Record{Topic: "t.messages.sim.bulk", Value: []byte{0xff}}, uncertain: true, released: time.Now()}})
		good := w.release(messages(1)...)
		after(20 * time.Millisecond)
		if doubtfulToo.settled == nil || doubtfulToo.settled.Topic != "t.messages.sim.bulk.dlq" {
			t.Error("uncertain poison without a name: got not settled by its dead letter")
		}
		w.want("poison with a header", []*slip{named}, neverSent, fanfarev1.Code_CODE_RENDER_ERROR)
		if d := named.outcome(); d.GetSeq() != 4 || d.GetTry() != 1 || d.GetCampaignId() != "camp_10001" || d.GetTenant() != "tn_a" {
			t.Errorf("got outcome %v, want that of the message that the header names", d)
		}
		recs := w.ledger.all()
		if len(recs) != 1 || recs[0].Topic != "t.messages.sim.bulk.dlq" || schemas.Header(recs[0], schemas.HeaderCause) == nil {
			t.Fatalf("got %d records, want the dead letter with its cause", len(recs))
		}
		if nameless.settled == nil || nameless.settled.Topic != "t.messages.sim.bulk.dlq" {
			t.Error("poison without a name: got not settled by its dead letter; it blocks the partition")
		}
		w.want("the message behind it", good, sent, awaiting)
	})
}

// A test message reaches the simulator's connector and no other.
func TestTestMessages(t *testing.T) {
	simulator := &script{caps: carrier.Caps{MaxBatch: 10, EchoesKey: true}}
	tested := func(i uint32) *fanfarev1.Message {
		m := testMessage(10001, i, 1)
		m.Test = true
		return m
	}
	inWorld(t, func(w *world) {
		w.line = Line{Live: w.carrier, Test: simulator}
		w.start(schemas.LaneBulk)
		slips := w.release(tested(0), testMessage(10001, 1, 1), tested(2))
		after(20 * time.Millisecond)
		w.want("both", slips, sent, awaiting)
		if len(simulator.seen()) != 2 || len(w.carrier.seen()) != 1 || w.carrier.seen()[0].Key.Seq() != 1 {
			t.Errorf("got %d at the simulator, %d at the carrier, want 2 and 1", len(simulator.seen()), len(w.carrier.seen()))
		}
	})
	inWorld(t, func(w *world) {
		w.start(schemas.LaneBulk)
		slips := w.release(tested(0))
		after(20 * time.Millisecond)
		w.want("no simulator", slips, neverSent, fanfarev1.Code_CODE_NOT_SENT_OTHER)
		w.wantSeen("no simulator", 0)
	})
}

// A message that is newer than the view of its campaign waits for it, and is given back when it does not come.
func TestWaitsForItsVersion(t *testing.T) {
	inWorld(t, func(w *world) {
		w.start(schemas.LaneBulk)
		early := testMessage(10001, 0, 1)
		early.CampaignVersion = 2
		lost := testMessage(10001, 1, 1)
		lost.CampaignVersion = 3
		slips := w.release(early, lost)
		after(time.Second)
		w.want("not here yet", slips, none, noCode)
		w.view.campaign(10001, fanfarev1.State_STATE_SENDING)
		after(10 * time.Millisecond)
		w.want("arrived", slips[:1], sent, awaiting)
		after(1100 * time.Millisecond)
		w.want("never came", slips[1:], gaveBack, fanfarev1.Code_CODE_CONTROL_BEHIND)
	})
}

// A lane that is fed for ever keeps nothing of what is done.
func TestNothingStays(t *testing.T) {
	inWorld(t, func(w *world) {
		w.start(schemas.LaneBulk)
		for i := range 50 {
			w.view.set(func() {
				w.view.tenants["tn_a"] = &fanfarev1.Tenant{Id: "tn_a", Enabled: true, Rate: uint32(1_000 * (i % 2))}
			})
			w.release(messages(20)...)
			after(10 * time.Millisecond)
		}
		after(2 * time.Second)
		l := w.lane
		if len(l.waiting)+len(l.queues)+len(l.ready)+len(l.flights.list)+len(l.inbox)+len(l.back) > 0 {
			t.Errorf("got waiting %d, queues %d, ready %d, flights %d, inbox %d, back %d; want nothing", len(l.waiting), len(l.queues), len(l.ready), len(l.flights.list), len(l.inbox), len(l.back))
		}
	})
}
