package sender

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"fanfare/pipeline/ratelimit"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

// The sender returns a message with RATE only when a level below the route has no token within a second. The return has
// the wait.
func TestRate(t *testing.T) {
	deny := func(level ratelimit.Level, wait time.Duration) func(ratelimit.Request) ratelimit.Grant {
		return func(ratelimit.Request) ratelimit.Grant { return ratelimit.Grant{Short: level, Wait: wait, Retry: wait} }
	}
	for _, tc := range []struct {
		level ratelimit.Level
		wait  time.Duration
		want  schemas.Kind
	}{
		{ratelimit.LevelTenant, 1100 * time.Millisecond, returnedKind},
		{ratelimit.LevelSender, 1100 * time.Millisecond, returnedKind},
		{ratelimit.LevelCampaign, 3 * time.Second, returnedKind},
		{ratelimit.LevelCampaign, time.Second, none},
		{ratelimit.LevelRoute, time.Minute, none},
	} {
		inEnv(t, func(e *env) {
			e.view.set(func() {
				e.view.tenants["tn_a"] = &fanfarev1.Tenant{Id: "tn_a", Enabled: true, Rate: 2}
				e.view.senders["tn_a/ACME"] = &fanfarev1.Sender{Tenant: "tn_a", Id: "ACME", Rate: 2}
			})
			e.view.campaign(10001, schemas.StateSending, func(c *fanfarev1.Campaign) { c.Rate = 2 })
			e.tokens.grant = deny(tc.level, tc.wait)
			e.start(schemas.LaneBulk)
			items := e.release(messages(3)...)
			asked := time.Now()
			after(500 * time.Millisecond)
			name := fmt.Sprintf("%s short for %s", tc.level, tc.wait)
			if tc.want == none {
				e.want(name, items, none, noCode)
				return
			}
			e.want(name, items, returnedKind, schemas.CodeRate)
			for i, s := range items { // 2/s: half a second apart
				want := asked.Add(tc.wait + time.Duration(i)*500*time.Millisecond).UnixMilli()
				if got := s.outcome().GetAgainAtMs(); got < want || got > want+50 {
					t.Errorf("%s: message %d: got again at %d, want %d", name, i, got, want)
				}
			}
			want := ratelimit.Set{Route: "sim", Tenant: "tn_a", Sender: "ACME", Campaign: "camp_10001", Lane: schemas.LaneBulk}
			if got := e.tokens.requests[0].Set; got != want {
				t.Errorf("got asked for %+v, want %+v", got, want)
			}
		})
	}
}

// A lowered limit does not keep messages in the window for ever.
func TestPatience(t *testing.T) {
	inEnv(t, func(e *env) {
		e.view.set(func() { e.view.tenants["tn_a"] = &fanfarev1.Tenant{Id: "tn_a", Enabled: true, Rate: 2} })
		e.tokens.grant = func(ratelimit.Request) ratelimit.Grant {
			return ratelimit.Grant{Short: ratelimit.LevelTenant, Wait: 500 * time.Millisecond, Retry: 500 * time.Millisecond}
		}
		e.start(schemas.LaneBulk)
		items := e.release(messages(3)...)
		after(2500 * time.Millisecond)
		e.want("within 2 s and p99", items, none, noCode)
		after(700 * time.Millisecond)
		e.want("later", items, returnedKind, schemas.CodeRate)
	})
}

// Campaigns without their own limits wait in one queue. A campaign with a limit has its own queue and does not hold up
// the others.
func TestQueues(t *testing.T) {
	inEnv(t, func(e *env) {
		e.view.campaign(10002, schemas.StateSending)
		e.view.campaign(10003, schemas.StateSending, func(c *fanfarev1.Campaign) { c.Rate = 1 })
		e.tokens.grant = func(r ratelimit.Request) ratelimit.Grant {
			now := time.Now()
			if r.Set.Campaign != "" {
				return ratelimit.Grant{Short: ratelimit.LevelCampaign, Wait: 900 * time.Millisecond, Retry: 900 * time.Millisecond}
			}
			return ratelimit.Grant{Tokens: r.Want, Ready: now, Until: now.Add(time.Second)}
		}
		e.start(schemas.LaneBulk)
		items := e.release(testMessage(10003, 0, 1), testMessage(10001, 0, 1), testMessage(10002, 0, 1), testMessage(10003, 1, 1))
		after(10 * time.Millisecond)
		e.want("of the limited campaign", []*fakeItem{items[0], items[3]}, none, noCode)
		e.want("of the others", items[1:3], sent, awaiting)
		var sets []string
		for _, r := range e.tokens.requests {
			sets = append(sets, fmt.Sprintf("%s/%s:%d", r.Set.Tenant, r.Set.Campaign, r.Want))
		}
		slices.Sort(sets)
		if want := []string{"/:2", "tn_a/camp_10003:2"}; !slices.Equal(slices.Compact(sets), want) {
			t.Errorf("got asked for %q, want %q", sets, want)
		}
	})
}

// When a limit is removed, the campaign's messages join the others in the order in which they were released.
func TestQueuesMergeInOrder(t *testing.T) {
	inEnv(t, func(e *env) {
		e.view.campaign(10002, schemas.StateSending, func(c *fanfarev1.Campaign) { c.Rate = 5 })
		away := make(chan struct{})
		e.tokens.away = away
		e.start(schemas.LaneBulk)
		for i := range 10 {
			e.release(testMessage(10001+uint64(i%2), uint32(i), 1))
			after(10 * time.Millisecond)
		}
		e.view.campaign(10002, schemas.StateSending, func(c *fanfarev1.Campaign) { c.Rate = 0 })
		after(50 * time.Millisecond)
		close(away)
		after(50 * time.Millisecond)
		e.wantSeen("merged", 10)
		for i, o := range e.carrier.seen() {
			if int(o.Key.Seq()) != i {
				t.Fatalf("got message %d at place %d, want the order of release", o.Key.Seq(), i)
			}
		}
	})
}

// If the carrier counts segments, a message of two segments costs two tokens, even if the tokens come one by one.
func TestSegmentsCost(t *testing.T) {
	inEnv(t, func(e *env) {
		e.carrier.caps.Pacing = carrier.PacingSegments
		e.tokens.grant = func(ratelimit.Request) ratelimit.Grant {
			now := time.Now()
			return ratelimit.Grant{Tokens: 1, Ready: now.Add(10 * time.Millisecond), Until: now.Add(60 * time.Millisecond)}
		}
		e.start(schemas.LaneBulk)
		e.release(messages(100)...)
		after(time.Second)
		if got := len(e.carrier.seen()); got < 48 || got > 52 {
			t.Errorf("100 segments a second: got %d messages of two, want 50", got)
		}
	})
}

// Tokens that expired while the carrier's window was full are void: the messages take new ones.
func TestOldTokensAreVoid(t *testing.T) {
	inEnv(t, func(e *env) {
		e.carrier.caps.MaxBatch = 10
		full := true
		e.carrier.before = func(context.Context, []carrier.Outbound) error {
			if full {
				time.Sleep(400 * time.Millisecond)
			}
			full = false
			return nil
		}
		e.start(schemas.LaneBulk)
		items := e.release(messages(30)...)
		after(100 * time.Millisecond)
		items = append(items, e.release(messages(40)[30:]...)...)
		after(time.Second)
		e.want("in the end", items, sent, awaiting)
		e.wantSeen("in the end", 40)
		for i, o := range e.carrier.seen() { // the oldest message holds up the partition, so it leaves first
			if o.Key.Seq() != uint32(i) {
				t.Fatalf("got message %d at place %d, want the order of release", o.Key.Seq(), i)
			}
		}
		if e.tokens.taken-e.tokens.back != 70 {
			t.Errorf("got %d tokens used or void, want 40 and the 20 and 10 that grew old", e.tokens.taken-e.tokens.back)
		}
	})
}

// While the carrier's window is full no tokens are taken: they would be used all at once when it opens, above the
// limit.
func TestTakesNoTokensInAdvance(t *testing.T) {
	inEnv(t, func(e *env) {
		e.carrier.before = func(ctx context.Context, _ []carrier.Outbound) error {
			stream.Sleep(ctx, time.Second)
			return ctx.Err()
		}
		e.tokens.grant = func(ratelimit.Request) ratelimit.Grant {
			now := time.Now()
			return ratelimit.Grant{Tokens: 10, Ready: now, Until: now.Add(time.Minute)}
		}
		e.start(schemas.LaneBulk)
		e.release(messages(500)...)
		after(450 * time.Millisecond) // before the blocked batch is called back
		if e.tokens.taken > 20 {
			t.Errorf("got %d tokens in hand, want those of the batch that waits and of the next", e.tokens.taken)
		}
	})
}

// Tokens for messages that no longer wait go back to the limiter.
func TestTokensLeftOverGoBack(t *testing.T) {
	inEnv(t, func(e *env) {
		e.view.campaign(10002, schemas.StateSending)
		away := make(chan struct{})
		e.tokens.away = away
		e.start(schemas.LaneBulk)
		items := e.release(append(messages(2), testMessage(10002, 0, 1), testMessage(10002, 1, 1), testMessage(10002, 2, 1))...)
		after(100 * time.Millisecond)
		e.view.campaign(10002, schemas.StatePaused)
		after(100 * time.Millisecond)
		close(away)
		after(100 * time.Millisecond)
		e.want("running", items[:2], sent, awaiting)
		e.want("paused", items[2:], returnedKind, schemas.CodePaused)
		if e.tokens.taken != 5 || e.tokens.back != 3 {
			t.Errorf("got %d tokens taken and %d back, want 5 and 3", e.tokens.taken, e.tokens.back)
		}
	})
}
