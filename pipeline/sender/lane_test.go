package sender

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/ratelimit"
	"fanfare/pipeline/stream/rendezvous"
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

// RATE is only said when a level below the route has no token within a second; it carries its wait.
func TestRate(t *testing.T) {
	deny := func(level ratelimit.Level, wait time.Duration) func(ratelimit.Request) ratelimit.Grant {
		return func(ratelimit.Request) ratelimit.Grant { return ratelimit.Grant{Short: level, Wait: wait, Retry: wait} }
	}
	for _, tc := range []struct {
		level ratelimit.Level
		wait  time.Duration
		want  fanfarev1.Kind
	}{
		{ratelimit.LevelTenant, 1100 * time.Millisecond, gaveBack},
		{ratelimit.LevelSender, 1100 * time.Millisecond, gaveBack},
		{ratelimit.LevelCampaign, 3 * time.Second, gaveBack},
		{ratelimit.LevelCampaign, time.Second, none},
		{ratelimit.LevelRoute, time.Minute, none},
	} {
		inWorld(t, func(w *world) {
			w.view.set(func() {
				w.view.tenants["tn_a"] = &fanfarev1.Tenant{Id: "tn_a", Enabled: true, Rate: 2}
				w.view.senders["tn_a/ACME"] = &fanfarev1.Sender{Tenant: "tn_a", Id: "ACME", Rate: 2}
			})
			w.view.campaign(10001, fanfarev1.State_STATE_SENDING, func(c *fanfarev1.Campaign) { c.Rate = 2 })
			w.tokens.grant = deny(tc.level, tc.wait)
			w.start(schemas.LaneBulk)
			slips := w.release(messages(3)...)
			asked := time.Now()
			after(500 * time.Millisecond)
			name := fmt.Sprintf("%s short for %s", tc.level, tc.wait)
			if tc.want == none {
				w.want(name, slips, none, noCode)
				return
			}
			w.want(name, slips, gaveBack, fanfarev1.Code_CODE_RATE)
			for i, s := range slips { // 2/s: half a second apart
				want := asked.Add(tc.wait + time.Duration(i)*500*time.Millisecond).UnixMilli()
				if got := s.outcome().GetAgainAtMs(); got < want || got > want+50 {
					t.Errorf("%s: message %d: got again at %d, want %d", name, i, got, want)
				}
			}
			want := ratelimit.Set{Route: "sim", Tenant: "tn_a", Sender: "ACME", Campaign: "camp_10001", Lane: schemas.LaneBulk}
			if got := w.tokens.requests[0].Set; got != want {
				t.Errorf("got asked for %+v, want %+v", got, want)
			}
		})
	}
}

// A limit that was lowered does not keep messages in the window for ever.
func TestPatience(t *testing.T) {
	inWorld(t, func(w *world) {
		w.view.set(func() { w.view.tenants["tn_a"] = &fanfarev1.Tenant{Id: "tn_a", Enabled: true, Rate: 2} })
		w.tokens.grant = func(ratelimit.Request) ratelimit.Grant {
			return ratelimit.Grant{Short: ratelimit.LevelTenant, Wait: 500 * time.Millisecond, Retry: 500 * time.Millisecond}
		}
		w.start(schemas.LaneBulk)
		slips := w.release(messages(3)...)
		after(2500 * time.Millisecond)
		w.want("within 2 s and p99", slips, none, noCode)
		after(700 * time.Millisecond)
		w.want("later", slips, gaveBack, fanfarev1.Code_CODE_RATE)
	})
}

// Campaigns without limits of their own wait in one line; one with a limit has its own and does not hold up the rest.
func TestQueues(t *testing.T) {
	inWorld(t, func(w *world) {
		w.view.campaign(10002, fanfarev1.State_STATE_SENDING)
		w.view.campaign(10003, fanfarev1.State_STATE_SENDING, func(c *fanfarev1.Campaign) { c.Rate = 1 })
		w.tokens.grant = func(r ratelimit.Request) ratelimit.Grant {
			now := time.Now()
			if r.Set.Campaign != "" {
				return ratelimit.Grant{Short: ratelimit.LevelCampaign, Wait: 900 * time.Millisecond, Retry: 900 * time.Millisecond}
			}
			return ratelimit.Grant{Tokens: r.Want, Ready: now, Until: now.Add(time.Second)}
		}
		w.start(schemas.LaneBulk)
		slips := w.release(testMessage(10003, 0, 1), testMessage(10001, 0, 1), testMessage(10002, 0, 1), testMessage(10003, 1, 1))
		after(10 * time.Millisecond)
		w.want("of the limited campaign", []*slip{slips[0], slips[3]}, none, noCode)
		w.want("of the others", slips[1:3], sent, awaiting)
		var sets []string
		for _, r := range w.tokens.requests {
			sets = append(sets, fmt.Sprintf("%s/%s:%d", r.Set.Tenant, r.Set.Campaign, r.Want))
		}
		slices.Sort(sets)
		if want := []string{"/:2", "tn_a/camp_10003:2"}; !slices.Equal(slices.Compact(sets), want) {
			t.Errorf("got asked for %q, want %q", sets, want)
		}
	})
}

// When a limit goes, its campaign's messages join the others in the order in which they came.
func TestQueuesMergeInOrder(t *testing.T) {
	inWorld(t, func(w *world) {
		w.view.campaign(10002, fanfarev1.State_STATE_SENDING, func(c *fanfarev1.Campaign) { c.Rate = 5 })
		away := make(chan struct{})
		w.tokens.away = away
		w.start(schemas.LaneBulk)
		for i := range 10 {
			w.release(testMessage(10001+uint64(i%2), uint32(i), 1))
			after(10 * time.Millisecond)
		}
		w.view.campaign(10002, fanfarev1.State_STATE_SENDING, func(c *fanfarev1.Campaign) { c.Rate = 0 })
		after(50 * time.Millisecond)
		close(away)
		after(50 * time.Millisecond)
		w.wantSeen("merged", 10)
		for i, o := range w.carrier.seen() {
			if int(o.Key.Seq()) != i {
				t.Fatalf("got message %d at place %d, want the order of release", o.Key.Seq(), i)
			}
		}
	})
}

// Where the carrier counts segments, a message of two costs two tokens, be it that they come one by one.
func TestSegmentsCost(t *testing.T) {
	inWorld(t, func(w *world) {
		w.carrier.caps.Pacing = carrier.PacingSegments
		w.tokens.grant = func(ratelimit.Request) ratelimit.Grant {
			now := time.Now()
			return ratelimit.Grant{Tokens: 1, Ready: now.Add(10 * time.Millisecond), Until: now.Add(60 * time.Millisecond)}
		}
		w.start(schemas.LaneBulk)
		w.release(messages(100)...)
		after(time.Second)
		if got := len(w.carrier.seen()); got < 48 || got > 52 {
			t.Errorf("100 segments a second: got %d messages of two, want 50", got)
		}
	})
}

// No answer in time: ambiguous, and the window may move on. The late answer is written too.
func TestNoAnswerInTime(t *testing.T) {
	for _, tc := range []struct {
		late carrier.Result
		want []fanfarev1.Kind
	}{
		{carrier.Result{Outcome: carrier.Accepted, Ref: "x"}, []fanfarev1.Kind{sent}},
		{carrier.Result{Outcome: carrier.Rejected}, []fanfarev1.Kind{neverSent}},
		{carrier.Result{Outcome: carrier.Retryable}, []fanfarev1.Kind{gaveBack}},
		{carrier.Result{Outcome: carrier.Unknown}, nil},
	} {
		inWorld(t, func(w *world) {
			w.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) { return carrier.Result{}, false }
			w.start(schemas.LaneBulk)
			slips := w.release(messages(3)...)
			after(1900 * time.Millisecond)
			w.want("before 2 s", slips, none, noCode)
			after(150 * time.Millisecond)
			w.want("after 2 s", slips, doubtful, fanfarev1.Code_CODE_TIMEOUT)
			after(5 * time.Second)
			w.carrier.answer(tc.late)
			synctest.Wait()
			for _, s := range slips {
				var got []fanfarev1.Kind
				for _, d := range s.late {
					got = append(got, d.GetKind())
				}
				if !slices.Equal(got, tc.want) {
					t.Errorf("late %s: got %v written, want %v", tc.late.Outcome, got, tc.want)
				}
				if len(got) > 0 && schemas.PrecedenceOf(got[0], 1, s.late[0].GetCode()) <= schemas.PrecedenceOf(doubtful, 1, fanfarev1.Code_CODE_TIMEOUT) {
					t.Errorf("late %s does not outrank the doubt", tc.late.Outcome)
				}
			}
		})
	}
}

func TestAnswerLimitFollowsTheRoute(t *testing.T) {
	inWorld(t, func(w *world) {
		w.view.routes["sim"].P99Ms = 2_000
		w.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) { return carrier.Result{}, false }
		w.start(schemas.LaneBulk)
		slips := w.release(messages(1)...)
		after(5900 * time.Millisecond)
		w.want("before 3 × p99", slips, none, noCode)
		after(200 * time.Millisecond)
		w.want("after 3 × p99", slips, doubtful, fanfarev1.Code_CODE_TIMEOUT)
	})
}

func TestCarrierThrottles(t *testing.T) {
	inWorld(t, func(w *world) {
		w.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) {
			return carrier.Result{Outcome: carrier.Throttled, RetryAfter: 3 * time.Second}, true
		}
		w.start(schemas.LaneBulk)
		slips := w.release(messages(100)...)
		at := time.Now()
		after(20 * time.Millisecond)
		w.want("throttled", slips, gaveBack, fanfarev1.Code_CODE_THROTTLED)
		if got := slips[0].outcome().GetAgainAtMs() - at.UnixMilli(); got < 3_000 || got > 3_100 {
			t.Errorf("got again in %d ms, want 3,000", got)
		}
		if w.tokens.throttled == 0 {
			t.Error("the limiter was not told")
		}
	})
}

// Five batches in a row without an answer open the breaker: everything is given back with a time. After the pause one message
// tries; when it is answered, everything goes on.
func TestBreaker(t *testing.T) {
	inWorld(t, func(w *world) {
		dead := true
		w.carrier.caps.MaxBatch = 10
		w.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) {
			if dead {
				return carrier.Result{Outcome: carrier.Retryable, Code: "connect"}, true
			}
			return carrier.Result{Outcome: carrier.Accepted}, true
		}
		w.start(schemas.LaneBulk)
		slips := w.release(messages(100)...)
		opened := time.Now()
		after(20 * time.Millisecond)
		w.wantSeen("five batches", 50)
		w.want("of the batches", slips[:50], gaveBack, fanfarev1.Code_CODE_PROVIDER_ERROR)
		w.want("behind them", slips[50:], gaveBack, fanfarev1.Code_CODE_BREAKER)
		for _, s := range slips[50:] {
			if in := s.outcome().GetAgainAtMs() - opened.UnixMilli(); in < 5_000 || in > 5_600 {
				t.Errorf("breaker open: got again in %d ms, want 5,000 to 5,600", in)
			}
		}
		after(time.Second)
		w.want("while open", w.release(messages(1)...), gaveBack, none2code(w))
		after(5 * time.Second)
		slips = w.release(messages(30)...)
		after(20 * time.Millisecond)
		w.wantSeen("one tries", 51)
		w.want("the one", slips[:1], gaveBack, fanfarev1.Code_CODE_PROVIDER_ERROR)
		w.want("the others", slips[1:], gaveBack, fanfarev1.Code_CODE_BREAKER)
		after(6 * time.Second)
		dead = false
		slips = w.release(messages(30)...)
		after(200 * time.Millisecond)
		w.want("answered again", slips, sent, awaiting)
	})
}

// none2code waits for the outcome of what was released just now.
func none2code(*world) fanfarev1.Code {
	after(20 * time.Millisecond)
	return fanfarev1.Code_CODE_BREAKER
}

// While one message tries, the others wait; they are not given back.
func TestOthersWaitForTheOneThatTries(t *testing.T) {
	inWorld(t, func(w *world) {
		w.carrier.caps.MaxBatch = 1
		slow := false
		w.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) {
			return carrier.Result{Outcome: carrier.Unknown}, !slow
		}
		w.start(schemas.LaneBulk)
		w.release(messages(5)...)
		after(6 * time.Second)
		slow = true
		slips := w.release(messages(5)...)
		after(time.Second)
		w.wantSeen("one tries", 6)
		w.want("meanwhile", slips, none, noCode)
		slow = false
		w.carrier.reply = nil
		w.carrier.answer(carrier.Result{Outcome: carrier.Accepted})
		after(200 * time.Millisecond)
		w.want("then", slips, sent, awaiting)
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

// A single message that must wait is durable among the held ones before anybody reads that it was returned, and begun, so that
// a successor does not find it untouched.
func TestSingleIsHeldBeforeItIsReturned(t *testing.T) {
	inWorld(t, func(w *world) {
		hidden := func(c *fanfarev1.Campaign) { c.Hidden = true }
		w.view.campaign(10001, fanfarev1.State_STATE_SENDING, hidden)
		w.view.set(func() { w.view.tenants["tn_a"] = &fanfarev1.Tenant{Id: "tn_a"} })
		w.ledger.gate = make(chan struct{})
		w.start(schemas.LaneTxn)
		slips := w.release(messages(2)...)
		after(time.Second)
		w.want("held not acknowledged", slips, none, noCode)
		if !slips[0].begun {
			t.Error("got not begun while it is written to held")
		}
		close(w.ledger.gate)
		after(10 * time.Millisecond)
		w.want("held acknowledged", slips, gaveBack, fanfarev1.Code_CODE_SUSPENDED)
		recs := w.ledger.all()
		if len(recs) != 2 || recs[0].Topic != "t.held" {
			t.Fatalf("got %d records, want two in t.held", len(recs))
		}
		h := &fanfarev1.Held{}
		if err := proto.Unmarshal(recs[0].Value, h); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(h.GetMessage(), messages(1)[0]) || h.GetDueMs() <= time.Now().UnixMilli() {
			t.Errorf("got held %v, want the message as it came and a time to come", h)
		}
		if want := schemas.DeliveryKey("tn_a", w.keys.Message(10001, 0)); string(recs[0].Key) != want {
			t.Errorf("got key %s, want %s", recs[0].Key, want)
		}

		// One whose partition has gone is not held: its new owner looks after it.
		w.ledger.gate = nil
		s := &slip{w: w, refuse: true}
		w.lane.release([]*entry{{item: s, rec: messageRecord(t, w.keys, testMessage(10001, 9, 1)), released: time.Now()}})
		after(20 * time.Millisecond)
		w.want("not ours", []*slip{s}, none, noCode)
		if got := len(w.ledger.all()); got != 2 {
			t.Errorf("not ours: got %d records, want 2", got)
		}

		// The carrier's own refusal for now: handed over, not taken, held.
		w.view.set(func() { w.view.tenants["tn_a"] = &fanfarev1.Tenant{Id: "tn_a", Enabled: true} })
		w.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) {
			return carrier.Result{Outcome: carrier.Throttled, RetryAfter: time.Minute}, true
		}
		slips = w.release(messages(1)...)
		after(20 * time.Millisecond)
		w.want("throttled", slips, gaveBack, fanfarev1.Code_CODE_THROTTLED)
		if got := len(w.ledger.all()); got != 3 {
			t.Errorf("throttled: got %d records, want 3", got)
		}
	})
}

// A single whose answer came late, and says that it was not taken, is held as well.
func TestSingleIsHeldAfterALateRefusal(t *testing.T) {
	inWorld(t, func(w *world) {
		w.view.campaign(10001, fanfarev1.State_STATE_SENDING, func(c *fanfarev1.Campaign) { c.Hidden = true })
		w.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) { return carrier.Result{}, false }
		w.start(schemas.LaneTxn)
		slips := w.release(messages(1)...)
		after(3 * time.Second)
		w.want("no answer", slips, doubtful, fanfarev1.Code_CODE_TIMEOUT)
		w.carrier.answer(carrier.Result{Outcome: carrier.Retryable})
		synctest.Wait()
		if got := w.ledger.all(); len(got) != 1 || got[0].Topic != "t.held" {
			t.Errorf("got %d records, want one in t.held", len(got))
		}
		if late := slips[0].late; len(late) != 1 || late[0].GetKind() != gaveBack {
			t.Errorf("got %v written late, want returned", late)
		}
	})
}

// The lane says that a message is a single one while its campaign is not known.
func TestSingleOfAnUnknownCampaignIsHeld(t *testing.T) {
	for lane, want := range map[schemas.Lane]int{schemas.LaneTxn: 1, schemas.LaneBulk: 0} {
		inWorld(t, func(w *world) {
			w.start(lane)
			slips := w.release(testMessage(10009, 0, 1))
			after(2100 * time.Millisecond)
			w.want("unknown campaign", slips, gaveBack, fanfarev1.Code_CODE_CONTROL_BEHIND)
			if got := len(w.ledger.all()); got != want {
				t.Errorf("lane %s: got %d held, want %d", lane, got, want)
			}
		})
	}
}

// A campaign's message is dealt again from its audience and is not held.
func TestCampaignMessageIsNotHeld(t *testing.T) {
	inWorld(t, func(w *world) {
		w.view.campaign(10001, fanfarev1.State_STATE_PAUSED)
		w.start(schemas.LaneBulk)
		slips := w.release(messages(1)...)
		after(20 * time.Millisecond)
		w.want("paused", slips, gaveBack, fanfarev1.Code_CODE_PAUSED)
		if got := len(w.ledger.all()); got != 0 {
			t.Errorf("got %d records beside the outcome, want none", got)
		}
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

// Tokens that grew old while the carrier's window was full are void: the messages take new ones.
func TestOldTokensAreVoid(t *testing.T) {
	inWorld(t, func(w *world) {
		w.carrier.caps.MaxBatch = 10
		full := true
		w.carrier.before = func(context.Context, []carrier.Outbound) error {
			if full {
				time.Sleep(500 * time.Millisecond)
			}
			full = false
			return nil
		}
		w.start(schemas.LaneBulk)
		slips := w.release(messages(30)...)
		after(100 * time.Millisecond)
		slips = append(slips, w.release(messages(40)[30:]...)...)
		after(time.Second)
		w.want("in the end", slips, sent, awaiting)
		w.wantSeen("in the end", 40)
		for i, o := range w.carrier.seen() { // what came first holds up the partition, and goes first
			if o.Key.Seq() != uint32(i) {
				t.Fatalf("got message %d at place %d, want the order of release", o.Key.Seq(), i)
			}
		}
		if w.tokens.taken-w.tokens.back != 70 {
			t.Errorf("got %d tokens used or void, want 40 and the 20 and 10 that grew old", w.tokens.taken-w.tokens.back)
		}
	})
}

// While the carrier's window is full no tokens are taken: they would be used all at once when it opens, above the limit.
func TestTakesNoTokensInAdvance(t *testing.T) {
	inWorld(t, func(w *world) {
		w.carrier.before = func(ctx context.Context, _ []carrier.Outbound) error {
			sleep(ctx, time.Second)
			return nil
		}
		w.tokens.grant = func(ratelimit.Request) ratelimit.Grant {
			now := time.Now()
			return ratelimit.Grant{Tokens: 10, Ready: now, Until: now.Add(time.Minute)}
		}
		w.start(schemas.LaneBulk)
		w.release(messages(500)...)
		after(900 * time.Millisecond)
		if w.tokens.taken > 20 {
			t.Errorf("got %d tokens in hand, want those of the batch that waits and of the next", w.tokens.taken)
		}
	})
}

// Tokens for messages that are not there any more go back.
func TestTokensLeftOverGoBack(t *testing.T) {
	inWorld(t, func(w *world) {
		w.view.campaign(10002, fanfarev1.State_STATE_SENDING)
		away := make(chan struct{})
		w.tokens.away = away
		w.start(schemas.LaneBulk)
		slips := w.release(append(messages(2), testMessage(10002, 0, 1), testMessage(10002, 1, 1), testMessage(10002, 2, 1))...)
		after(100 * time.Millisecond)
		w.view.campaign(10002, fanfarev1.State_STATE_PAUSED)
		after(100 * time.Millisecond)
		close(away)
		after(100 * time.Millisecond)
		w.want("running", slips[:2], sent, awaiting)
		w.want("paused", slips[2:], gaveBack, fanfarev1.Code_CODE_PAUSED)
		if w.tokens.taken != 5 || w.tokens.back != 3 {
			t.Errorf("got %d tokens taken and %d back, want 5 and 3", w.tokens.taken, w.tokens.back)
		}
	})
}

// A connector that could not send has handed nothing over.
func TestSendFails(t *testing.T) {
	inWorld(t, func(w *world) {
		w.carrier.before = func(context.Context, []carrier.Outbound) error { return errors.New("no route to host") }
		w.start(schemas.LaneBulk)
		slips := w.release(messages(3)...)
		after(20 * time.Millisecond)
		w.want("not sent", slips, gaveBack, fanfarev1.Code_CODE_PROVIDER_ERROR)
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

// table is a rendezvous that a test writes.
type table struct {
	mu     sync.Mutex
	world  *world
	fail   bool
	puts   []rendezvous.Entry
	early  int // puts before their outcome
	clears int
	parked map[string][]*fanfarev1.Receipt
}

func (p *table) Put(_ context.Context, entries []rendezvous.Entry) ([][]*fanfarev1.Receipt, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail {
		return nil, errors.New("LOADING")
	}
	out := make([][]*fanfarev1.Receipt, len(entries))
	for i, e := range entries {
		if p.world.slips[e.Submission.Seq()].outcome() == nil {
			p.early++
		}
		p.puts = append(p.puts, e)
		for _, r := range p.parked[e.ProviderID] {
			r.SubmissionId = e.Submission[:]
			out[i] = append(out[i], r)
		}
	}
	return out, nil
}

func (p *table) Clear(_ context.Context, entries []rendezvous.Entry) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clears += len(entries)
	if len(p.world.ledger.all()) == 0 {
		p.world.t.Error("parked receipts are cleared before they are published")
	}
	return nil
}

func (p *table) setFail(fail bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = fail
}

func TestRendezvous(t *testing.T) {
	inWorld(t, func(w *world) {
		p := &table{world: w, parked: map[string][]*fanfarev1.Receipt{}}
		w.meet, w.carrier.caps.EchoesKey = p, false
		w.start(schemas.LaneBulk)
		early := "ref-" + w.keys.Submission(10001, 1, 1).String()
		p.parked[early] = []*fanfarev1.Receipt{{Route: "sim", ProviderId: early, Status: fanfarev1.ReceiptStatus_RECEIPT_STATUS_DELIVERED}}
		slips := w.release(messages(3)...)
		after(20 * time.Millisecond)
		w.want("sent", slips, sent, awaiting)
		if len(p.puts) != 3 || p.early != 3 {
			t.Errorf("got %d put, %d of them before their outcome, want 3 and 3", len(p.puts), p.early)
		}
		if e := p.puts[0]; e.Route != "sim" || e.To != "+393331234567" || e.Submission != w.keys.Submission(10001, 0, 1) || e.Life < schemas.RendezvousTTL {
			t.Errorf("got entry %+v", e)
		}
		recs := w.ledger.all()
		if len(recs) != 1 || recs[0].Topic != "t.receipts" || p.clears != 1 {
			t.Fatalf("got %d records and %d cleared, want the parked receipt published and then cleared", len(recs), p.clears)
		}
		r := &fanfarev1.Receipt{}
		if err := proto.Unmarshal(recs[0].Value, r); err != nil {
			t.Fatal(err)
		}
		if want := w.keys.Submission(10001, 1, 1); string(r.GetSubmissionId()) != string(want[:]) {
			t.Errorf("got receipt %v, want it with its submission", r)
		}

		// Redis away: what is known is written, what is owed is put later.
		p.setFail(true)
		slips = w.release(testMessage(10001, 3, 1))
		after(time.Second)
		w.want("Redis away", slips, sent, awaiting)
		p.setFail(false)
		after(5 * time.Second)
		if len(p.puts) != 4 {
			t.Errorf("Redis back: got %d put, want 4", len(p.puts))
		}
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
