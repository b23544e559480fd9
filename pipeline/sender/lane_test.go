package sender

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/ratelimit"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

func TestHandsOverAndReports(t *testing.T) {
	inEnv(t, func(e *env) {
		e.carrier.caps.MaxBatch = 40
		e.start(schemas.LaneBulk)
		items := e.release(messages(100)...)
		after(10 * time.Millisecond)
		e.want("accepted", items, sent, awaiting)
		e.wantSeen("accepted", 100)
		for i, o := range e.carrier.seen() {
			if want := e.keys.Submission(10001, uint32(i), 1); o.Key != want {
				t.Fatalf("message %d at the carrier: got %s, want %s: the order of the partition", i, o.Key, want)
			}
			if o.Deadline.IsZero() || !items[i].begun {
				t.Fatalf("message %d: got no deadline, or not begun", i)
			}
			if d := items[i].outcome(); d.GetProviderId() != "ref-"+o.Key.String() || d.GetSegments() != 2 || d.GetPriceMicros() != 50_000 {
				t.Fatalf("message %d: got %v, want provider id, segments and price", i, d)
			}
		}
		for _, b := range e.carrier.batches {
			if len(b) > 40 {
				t.Errorf("got a batch of %d, want at most 40", len(b))
			}
		}
		if e.tokens.taken-e.tokens.back != 100 {
			t.Errorf("got %d tokens used, want 100", e.tokens.taken-e.tokens.back)
		}
	})
}

// If a doubt cannot be ended, a message that may have been handed over before is reported and not handed over, in any
// state of its campaign and even if the control view and Redis are unreachable.
func TestUncertainIsOnlyReported(t *testing.T) {
	inEnv(t, func(e *env) {
		e.view.age, e.tokens.away = time.Hour, make(chan struct{})
		e.view.campaign(10001, schemas.StateAborted)
		e.start(schemas.LaneBulk)
		s := &fakeItem{env: e}
		e.lane.release([]*entry{{item: s, rec: messageRecord(t, e.keys, testMessage(10001, 1, 1)), uncertain: true, released: time.Now()}})
		after(10 * time.Millisecond)
		e.want("uncertain", []*fakeItem{s}, ambiguousKind, schemas.CodeCrash)
		e.wantSeen("uncertain", 0)
		if s.begun {
			t.Error("uncertain: got begun")
		}
	})
}

// When a message has its tokens, every check runs once more: each change here comes between the first check and the
// tokens.
func TestEveryCheckRunsAgainAfterTheTokens(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(e *env, s *fakeItem)
		kind   schemas.Kind
		code   schemas.Code
	}{
		"paused":    {func(e *env, _ *fakeItem) { e.view.campaign(10001, schemas.StatePaused) }, returnedKind, schemas.CodePaused},
		"suspended": {func(e *env, _ *fakeItem) { e.view.campaign(10001, schemas.StateSuspended) }, returnedKind, schemas.CodeSuspended},
		"aborted":   {func(e *env, _ *fakeItem) { e.view.campaign(10001, schemas.StateAborted) }, skippedKind, schemas.CodeCancelled},
		"tenant": {func(e *env, _ *fakeItem) {
			e.view.set(func() { e.view.tenants["tn_a"] = &fanfarev1.Tenant{Id: "tn_a"} })
		}, returnedKind, schemas.CodeSuspended},
		// An opt-out is no change of the control plane, so it wakes no goroutine.
		"opted out": {func(e *env, _ *fakeItem) {
			e.view.mu.Lock()
			defer e.view.mu.Unlock()
			e.view.optedOut["tn_a+393331234567"] = true
		}, skippedKind, schemas.CodeOptedOut},
		"hours": {func(e *env, _ *fakeItem) {
			e.view.mu.Lock()
			defer e.view.mu.Unlock() // the passing of time wakes no goroutine either
			e.view.campaigns["camp_10001"].CallingHours = &fanfarev1.CallingHours{StartMinute: 300, EndMinute: 301, Timezone: "UTC"}
		}, returnedKind, schemas.CodeWindow},
		"guard": {func(_ *env, s *fakeItem) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.deadline = time.Now()
		}, none, noCode},
		"ownership": {func(_ *env, s *fakeItem) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.refuse = true
		}, none, noCode},
		"view": {func(e *env, _ *fakeItem) {
			e.view.mu.Lock()
			defer e.view.mu.Unlock()
			e.view.age = 6 * time.Second
		}, none, noCode},
		"opt-outs too old": {func(e *env, _ *fakeItem) {
			e.view.mu.Lock()
			defer e.view.mu.Unlock()
			e.view.optOutAge = 1600 * time.Millisecond
		}, none, noCode},
		"nothing": {func(*env, *fakeItem) {}, sent, awaiting},
	} {
		t.Run(name, func(t *testing.T) {
			inEnv(t, func(e *env) {
				// The token is reserved 8 ms ahead: that is shorter than any interval at which the lane judges waiting
				// messages.
				e.tokens.grant = func(r ratelimit.Request) ratelimit.Grant {
					ready := time.Now().Add(8 * time.Millisecond)
					return ratelimit.Grant{Tokens: r.Want, Ready: ready, Until: ready.Add(50 * time.Millisecond)}
				}
				e.start(schemas.LaneBulk)
				s := e.release(messages(1)...)
				after(2 * time.Millisecond)
				if e.tokens.taken != 1 {
					t.Fatalf("got %d tokens held, want 1", e.tokens.taken)
				}
				tc.change(e, s[0])
				after(100 * time.Millisecond)
				e.want(name, s, tc.kind, tc.code)
				if tc.kind != sent {
					e.wantSeen(name, 0)
				}
				if tc.kind == returnedKind && e.tokens.back != 1 {
					t.Errorf("%s: got %d tokens back, want 1", name, e.tokens.back)
				}
				// These pass, and nothing is forgotten
				if name == "guard" || name == "view" || name == "opt-outs too old" {
					s[0].mu.Lock()
					s[0].deadline = time.Time{}
					s[0].mu.Unlock()
					e.view.mu.Lock()
					e.view.age, e.view.optOutAge = 0, 0
					e.view.mu.Unlock()
					after(100 * time.Millisecond)
					e.want(name+" and back", s, sent, awaiting)
				}
			})
		})
	}
}

// fullWindow makes the carrier's window full until the returned function is called. A connector with a window may wait
// in Send; a connector without a connection may wait after Send has returned.
func fullWindow(e *env, inSend bool) (open func()) {
	opened := make(chan struct{})
	if inSend {
		e.carrier.before = func(ctx context.Context, _ []carrier.Outbound) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-opened:
				return nil
			}
		}
	} else {
		e.carrier.writeAfter = opened
	}
	return sync.OnceFunc(func() { close(opened) })
}

// G6, P4: a message that waits at the connector because the carrier's window is full is not written once its campaign
// is paused or aborted, its tenant disabled or its recipient opted out: its last moment is 250 ms after the change,
// whenever the window opens. It was not handed over, so its outcome is that of the change.
func TestWhatWaitsAtTheConnectorIsWithdrawn(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(e *env)
		kind   schemas.Kind
		code   schemas.Code
	}{
		"paused":          {func(e *env) { e.view.campaign(10001, schemas.StatePaused) }, returnedKind, schemas.CodePaused},
		"aborted":         {func(e *env) { e.view.campaign(10001, schemas.StateAborted) }, skippedKind, schemas.CodeCancelled},
		"tenant disabled": {func(e *env) { e.view.set(func() { e.view.tenants["tn_a"] = &fanfarev1.Tenant{Id: "tn_a"} }) }, returnedKind, schemas.CodeSuspended},
		"route disabled": {func(e *env) {
			e.view.set(func() {
				e.view.routes["sim"] = &fanfarev1.Route{Name: "sim", Connector: "sim", Rate: 1_000, P99Ms: 600}
			})
		}, returnedKind, schemas.CodeBreaker},
		"opted out": {func(e *env) { // an opt-out is no change of the control plane, so it does not wake the lane
			e.view.mu.Lock()
			defer e.view.mu.Unlock()
			e.view.optedOut["tn_a+393331234567"] = true
		}, skippedKind, schemas.CodeOptedOut},
	} {
		for _, inSend := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/in Send %v", name, inSend), func(t *testing.T) {
				inEnv(t, func(e *env) {
					open := fullWindow(e, inSend)
					e.start(schemas.LaneBulk)
					items := e.release(messages(100)...)
					after(20 * time.Millisecond)
					if !items[0].begun {
						t.Fatal("got nothing at the connector, want a batch that waits for the window")
					}
					tc.change(e)
					after(250 * time.Millisecond)
					if inSend { // otherwise the connector waits only for its connection
						e.want("within 250 ms", items, tc.kind, tc.code)
					}
					open()
					after(time.Second)
					e.want("after the window has opened", items, tc.kind, tc.code)
					e.wantSeen("after the window has opened", 0)
				})
			})
		}
	}
}

// A message that waits for the carrier's window longer than half a second is withdrawn and judged again. It was not
// handed over, so it costs no try and does not count for the breaker. When the window opens, every message is handed
// over once.
func TestAFullWindowCostsNoTries(t *testing.T) {
	for _, inSend := range []bool{true, false} {
		t.Run(fmt.Sprintf("in Send %v", inSend), func(t *testing.T) {
			inEnv(t, func(e *env) {
				e.carrier.caps.MaxBatch = 10
				open := fullWindow(e, inSend)
				e.start(schemas.LaneBulk)
				items := e.release(messages(100)...)
				if inSend {
					after(10 * time.Second) // as many calls as would open the breaker
				} else {
					after(time.Second) // without an answer for a longer time their outcome would count as unknown
				}
				e.want("while the window is full", items, none, noCode)
				open()
				after(2 * time.Second)
				e.want("when it has opened", items, sent, awaiting)
				e.wantSeen("when it has opened", 100)
			})
		})
	}
}

// Pause: the last hand-over is at most 250 ms after the change arrives, and waiting messages are returned at once.
func TestPauseIsQuick(t *testing.T) {
	inEnv(t, func(e *env) {
		e.tokens.grant = func(ratelimit.Request) ratelimit.Grant { // 100 a second
			now := time.Now()
			return ratelimit.Grant{Tokens: 1, Ready: now.Add(10 * time.Millisecond), Until: now.Add(60 * time.Millisecond)}
		}
		e.start(schemas.LaneBulk)
		items := e.release(messages(500)...)
		after(time.Second)
		before := len(e.carrier.seen())
		if before < 90 || before > 110 {
			t.Fatalf("got %d in a second, want 100", before)
		}
		paused := time.Now()
		e.view.campaign(10001, schemas.StatePaused)
		after(time.Second)
		e.carrier.mu.Lock()
		last := e.carrier.at[len(e.carrier.at)-1]
		e.carrier.mu.Unlock()
		if last.Sub(paused) > 0 {
			t.Errorf("got a hand-over %s after the pause arrived, want none", last.Sub(paused))
		}
		e.want("waiting when paused", items[before:], returnedKind, schemas.CodePaused)
		for _, s := range items[before:] {
			if s.at.Sub(paused) > 50*time.Millisecond {
				t.Fatalf("message %d: given back %s after the pause, want at once", s.n, s.at.Sub(paused))
			}
		}
	})
}

func TestHoldsWhileTheViewIsTooOld(t *testing.T) {
	inEnv(t, func(e *env) {
		e.view.age = stale
		e.start(schemas.LaneBulk)
		items := e.release(messages(10)...)
		after(10 * time.Minute)
		e.want("view too old for minutes", items, none, noCode)
		e.view.mu.Lock()
		e.view.age, e.view.optOutAge = 0, 1500*time.Millisecond
		e.view.mu.Unlock()
		after(time.Minute)
		e.want("opt-outs 1.5 s old", items, none, noCode)
		e.view.mu.Lock()
		e.view.optOutAge = time.Second
		e.view.mu.Unlock()
		after(50 * time.Millisecond)
		e.want("all fresh", items, sent, awaiting)
	})
}

const stale = 5 * time.Second

// While Redis is unreachable, all messages wait and none is returned; answers and time-outs of messages at the carrier
// are still handled. When Redis is back, the lane continues.
func TestHoldsWhileRedisIsAway(t *testing.T) {
	inEnv(t, func(e *env) {
		e.carrier.reply = func(o carrier.Outbound) (carrier.Result, bool) {
			return carrier.Result{Outcome: carrier.Accepted}, o.Key.Seq() != 0
		}
		e.start(schemas.LaneBulk)
		first := e.release(messages(1)...)
		after(10 * time.Millisecond)
		away := make(chan struct{})
		e.tokens.mu.Lock()
		e.tokens.away = away
		e.tokens.mu.Unlock()
		items := e.release(messages(50)[1:]...)
		after(10 * time.Minute)
		e.want("Redis away", items, none, noCode)
		e.wantSeen("Redis away", 1)
		e.want("at the carrier, without an answer", first, ambiguousKind, schemas.CodeTimeout)
		e.tokens.mu.Lock()
		e.tokens.away = nil
		e.tokens.mu.Unlock()
		close(away)
		after(50 * time.Millisecond)
		e.want("Redis back", items, sent, awaiting)
	})
}

// A pause takes effect while Redis is unreachable.
func TestPausedWhileRedisIsAway(t *testing.T) {
	inEnv(t, func(e *env) {
		e.tokens.away = make(chan struct{})
		e.start(schemas.LaneBulk)
		items := e.release(messages(5)...)
		after(time.Second)
		e.view.campaign(10001, schemas.StatePaused)
		after(50 * time.Millisecond)
		e.want("paused", items, returnedKind, schemas.CodePaused)
		close(e.tokens.away)
		after(time.Second)
		e.wantSeen("paused", 0)
		if e.tokens.back != e.tokens.taken {
			t.Errorf("got %d of %d tokens back, want all", e.tokens.back, e.tokens.taken)
		}
	})
}

func TestRouteSwitchedOff(t *testing.T) {
	inEnv(t, func(e *env) {
		e.view.routes["sim"].Enabled = false
		e.start(schemas.LaneBulk)
		items := e.release(messages(3)...)
		after(20 * time.Millisecond)
		e.want("switched off", items, returnedKind, schemas.CodeBreaker)
		e.wantSeen("switched off", 0)
	})
}

func TestPoison(t *testing.T) {
	inEnv(t, func(e *env) {
		e.start(schemas.LaneBulk)
		bad := messageRecord(t, e.keys, testMessage(10001, 4, 1))
		bad.Value = []byte{0xff}
		named, nameless := &fakeItem{env: e}, &fakeItem{env: e}
		e.lane.release([]*entry{
			{item: named, rec: bad, released: time.Now()},
			{item: nameless, rec: &kgo.Record{Topic: "t.messages.sim.bulk", Value: []byte{0xff}}, released: time.Now()},
		})
		doubtful := &fakeItem{env: e}
		e.lane.release([]*entry{{item: doubtful, rec: &kgo.Record{Topic: "t.messages.sim.bulk", Value: []byte{0xff}}, uncertain: true, released: time.Now()}})
		good := e.release(messages(1)...)
		after(20 * time.Millisecond)
		if doubtful.settled == nil || doubtful.settled.Topic != "t.messages.sim.bulk.dlq" {
			t.Error("uncertain poison without a name: got not settled by its dead letter")
		}
		e.want("poison with a header", []*fakeItem{named}, notSentKind, schemas.CodeRenderError)
		if d := named.outcome(); d.GetSeq() != 4 || d.GetTry() != 1 || d.GetCampaignId() != "camp_10001" || d.GetTenant() != "tn_a" {
			t.Errorf("got outcome %v, want that of the message that the header names", d)
		}
		recs := e.published.all()
		if len(recs) != 1 || recs[0].Topic != "t.messages.sim.bulk.dlq" || schemas.Header(recs[0], schemas.HeaderCause) == nil {
			t.Fatalf("got %d records, want the dead letter with its cause", len(recs))
		}
		if nameless.settled == nil || nameless.settled.Topic != "t.messages.sim.bulk.dlq" {
			t.Error("poison without a name: got not settled by its dead letter; it blocks the partition")
		}
		e.want("the message behind it", good, sent, awaiting)
	})
}

// A test message reaches the simulator's connector and no other.
func TestTestMessages(t *testing.T) {
	simulator := &fakeCarrier{caps: carrier.Caps{MaxBatch: 10, EchoesKey: true}}
	tested := func(i uint32) *fanfarev1.Message {
		m := testMessage(10001, i, 1)
		m.Test = true
		return m
	}
	inEnv(t, func(e *env) {
		e.line = Line{Live: e.carrier, Test: simulator}
		e.start(schemas.LaneBulk)
		items := e.release(tested(0), testMessage(10001, 1, 1), tested(2))
		after(20 * time.Millisecond)
		e.want("both", items, sent, awaiting)
		if len(simulator.seen()) != 2 || len(e.carrier.seen()) != 1 || e.carrier.seen()[0].Key.Seq() != 1 {
			t.Errorf("got %d at the simulator, %d at the carrier, want 2 and 1", len(simulator.seen()), len(e.carrier.seen()))
		}
	})
	inEnv(t, func(e *env) {
		e.start(schemas.LaneBulk)
		items := e.release(tested(0))
		after(20 * time.Millisecond)
		e.want("no simulator", items, notSentKind, schemas.CodeNotSentOther)
		e.wantSeen("no simulator", 0)
	})
}

// A message that was made from a newer campaign version than the view has waits for that version, and is returned if it
// does not arrive.
func TestWaitsForItsVersion(t *testing.T) {
	inEnv(t, func(e *env) {
		e.start(schemas.LaneBulk)
		early := testMessage(10001, 0, 1)
		early.CampaignVersion = 2
		lost := testMessage(10001, 1, 1)
		lost.CampaignVersion = 3
		items := e.release(early, lost)
		after(time.Second)
		e.want("not here yet", items, none, noCode)
		e.view.campaign(10001, schemas.StateSending)
		after(10 * time.Millisecond)
		e.want("arrived", items[:1], sent, awaiting)
		after(1100 * time.Millisecond)
		e.want("never came", items[1:], returnedKind, schemas.CodeControlBehind)
	})
}

// A lane that gets messages for ever keeps no state of finished messages.
func TestNothingStays(t *testing.T) {
	inEnv(t, func(e *env) {
		e.start(schemas.LaneBulk)
		for i := range 50 {
			e.view.set(func() {
				e.view.tenants["tn_a"] = &fanfarev1.Tenant{Id: "tn_a", Enabled: true, Rate: uint32(1_000 * (i % 2))}
			})
			e.release(messages(20)...)
			after(10 * time.Millisecond)
		}
		after(2 * time.Second)
		l := e.lane
		if len(l.waiting)+len(l.queues)+len(l.ready)+len(l.flights.list)+len(l.inbox)+len(l.back) > 0 {
			t.Errorf("got waiting %d, queues %d, ready %d, flights %d, inbox %d, back %d; want nothing", len(l.waiting), len(l.queues), len(l.ready), len(l.flights.list), len(l.inbox), len(l.back))
		}
	})
}
