package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fanfare/schemas"
)

// G4: achieved ÷ target, the peak of any second, Redis calls per message at 20,000/s.
func TestLimiterIsAccurate(t *testing.T) {
	w := newEnv(t, 4, 1)
	for _, rate := range []uint32{1, 10, 99, 100, 1_000, 20_000} {
		for _, processes := range []int{1, 4} {
			w.reset(processes)
			var clients []*client
			for i := range processes {
				clients = append(clients, &client{l: w.limiters[i], req: bulk(rate, 100_000), lazy: true})
			}
			// The full bucket, and everyone is known
			w.run(max(time.Second, 5*time.Second/time.Duration(rate)), clients, nil)
			for _, c := range clients {
				c.used = nil
			}
			seconds := 2.0
			if rate < 50 {
				seconds = 80 / float64(rate) // 20 tokens each
			}
			calls := w.run(time.Duration(seconds*float64(time.Second)), clients, nil)
			var all []use
			var each []int
			for _, c := range clients {
				all, each = append(all, c.used...), append(each, total(c.used))
			}
			got := float64(total(all)) / (float64(rate) * seconds)
			burst := max(1, float64(rate)/10)
			top := float64(peak(all)) / float64(rate)
			perToken := float64(calls) / float64(total(all))
			t.Logf("%6d/s of %d processes: achieved %.3f, peak second %.3f, fairness %.4f, calls per token %.4f", rate, processes, got, top, jain(each), perToken)
			if got < 0.97 || got > 1.01 {
				t.Errorf("%d/s of %d processes: got %.3f of the target, want 0.97..1.01", rate, processes, got)
			}
			if want := 1 + burst/float64(rate) + 0.02; top > want {
				t.Errorf("%d/s of %d processes: got a peak second of %.3f, want at most %.3f", rate, processes, top, want)
			}
			if jain(each) < 0.98 {
				t.Errorf("%d/s of %d processes: got fairness %.4f (%v), want 0.98", rate, processes, jain(each), each)
			}
			if rate == 20_000 && perToken > 0.1 {
				t.Errorf("20,000/s of %d processes: got %.4f calls per token, want at most 0.1", processes, perToken)
			}
			if rate < 100 && perToken > 1.2 {
				t.Errorf("%d/s of %d processes: got %.2f calls per token, want each waiter to sleep once", rate, processes, perToken)
			}
		}
	}
}

// Never above rate × t + burst in any span, at any level, whatever the processes, lanes, sets and jitter are.
func TestNeverAboveTheRate(t *testing.T) {
	w := newEnv(t, 1, 2)
	rapid.Check(t, func(rt *rapid.T) {
		w.rand = rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 3))
		w.reset(rapid.IntRange(1, 4).Draw(rt, "processes"))
		rate := rapid.Uint32Range(1, 30_000).Draw(rt, "rate")
		burst := rapid.Uint32Range(0, rate/5).Draw(rt, "burst")
		tenants := rapid.IntRange(1, 3).Draw(rt, "tenants")
		limit := make([]uint32, tenants)
		for i := range limit {
			limit[i] = rapid.Uint32Range(0, rate).Draw(rt, "tenant rate")
		}
		byTenant := make([][]*client, tenants)
		var clients []*client
		slow := 0 // sets that may hold a reservation
		for _, l := range w.limiters {
			for i := range tenants {
				r := bulk(rate, rapid.IntRange(1, 5_000).Draw(rt, "want"))
				if rapid.Bool().Draw(rt, "txn") {
					r.Set.Lane = schemas.LaneTxn
				}
				r.Set.Tenant, r.Rates.Tenant, r.Rates.Burst = fmt.Sprint("tn_", i), limit[i], burst
				if rate < 100 || limit[i] > 0 && limit[i] < 100 {
					slow++
				}
				c := &client{l: l, req: r, lazy: true}
				clients, byTenant[i] = append(clients, c), append(byTenant[i], c)
			}
		}
		left := 40 // steps: what breaks the bound breaks it soon
		w.run(1500*time.Millisecond, clients, func() {
			if left--; left == 0 {
				for _, c := range clients {
					c.req.Want = 0
				}
			}
			if w.rand.IntN(200) == 0 { // the clock of Redis is set back
				w.offset -= time.Duration(w.rand.Int64N(int64(3 * time.Second)))
			}
			if w.rand.IntN(500) == 0 {
				if _, err := w.limiters[0].Throttled(context.Background(), "sim"); err != nil {
					rt.Fatal(err)
				}
			}
		})
		check := func(name string, rate uint32, burst float64, clients []*client) {
			var all []use
			for _, c := range clients {
				all = append(all, c.used...)
			}
			// One token may always go, and one reserved on a slower level is taken here before it is used.
			if got, want := excess(float64(rate), all), max(1, burst)+1+float64(slow); got > want {
				rt.Errorf("%s at %d/s: got %.1f above the line, want at most %.1f", name, rate, got, want)
			}
		}
		allowed := float64(rate) / 10
		if burst > 0 {
			allowed = min(allowed, max(float64(burst), float64(rate)/50))
		}
		check("route", rate, allowed, clients)
		for i := range tenants {
			if limit[i] > 0 {
				check("tenant", limit[i], float64(limit[i])/10, byTenant[i])
			}
		}
	})
}

func TestEachLevelBinds(t *testing.T) {
	w := newEnv(t, 1, 4)
	for _, tc := range []struct {
		level Level
		rates Rates
	}{
		{LevelRoute, Rates{Route: 400, Tenant: 1000, Sender: 1000, Campaign: 1000}},
		{LevelTenant, Rates{Route: 1000, Tenant: 400, Sender: 1000, Campaign: 1000}},
		{LevelSender, Rates{Route: 1000, Tenant: 1000, Sender: 400, Campaign: 1000}},
		{LevelCampaign, Rates{Route: 1000, Tenant: 1000, Sender: 1000, Campaign: 400}},
		{LevelSender, Rates{Route: 1000, Sender: 400}},
		{LevelCampaign, Rates{Route: 1000, Campaign: 400}},
	} {
		w.reset(1)
		r := bulk(0, 10_000)
		r.Rates = tc.rates
		c := &client{l: w.limiters[0], req: r}
		w.run(2*time.Second, []*client{c}, nil)
		if got := float64(total(c.used)) / 2; got < 390 || got > 425 {
			t.Errorf("%+v: got %.0f/s, want 400", tc.rates, got)
		}
		for { // what is left over
			g := w.take(w.limiters[0], r)
			if g.Tokens == 0 || g.Short != LevelNone {
				if g.Short != tc.level {
					t.Errorf("%+v: got short level %s, want %s", tc.rates, g.Short, tc.level)
				}
				if g.Wait <= 0 || g.Wait > 10*time.Millisecond || g.Retry < g.Wait {
					t.Errorf("%+v: got wait %s and retry %s, want the time of a token or two and no sooner", tc.rates, g.Wait, g.Retry)
				}
				break
			}
		}
	}
}

// Rates beyond any carrier's, and tokens a hair above or below nothing, survive being written and read.
func TestNumbersAreKeptExactly(t *testing.T) {
	w := newEnv(t, 1, 17)
	c := &client{l: w.limiters[0], req: bulk(50_000_000, 100_000_000)}
	w.run(time.Second, []*client{c}, nil)
	if got := float64(total(c.used)); got < 0.97*50_000_000 || got > 1.12*50_000_000 {
		t.Errorf("got %.0f tokens in a second, want 50,000,000", got)
	}
	for _, kept := range []string{"0.000010000", "-0.000010000", "0.999999999999"} {
		w.reset(1)
		w.mr.HSet("t.rate:{sim}", "k", kept, "t", fmt.Sprint(w.now.UnixMicro()))
		g := w.take(w.limiters[0], bulk(1_000, 1))
		if want := map[bool]int{true: 1}[kept[0] == '0' && kept[2] == '9']; g.Tokens != want {
			t.Errorf("bucket of %s: got %d tokens, want %d", kept, g.Tokens, want)
		}
		w.at(w.now.Add(10 * time.Microsecond))
		if g := w.take(w.limiters[0], txn(1_000, 1)); g.Tokens != 0 {
			t.Errorf("bucket of %s and 0.01: got %d tokens, want 0", kept, g.Tokens)
		}
	}
}

// Two campaigns of one tenant share its limit; two tenants with the same campaign id share nothing but the route.
func TestBucketsAreTheTenants(t *testing.T) {
	w := newEnv(t, 1, 5)
	set := func(tenant, campaign string) *client {
		r := bulk(10_000, 1_000)
		r.Set.Tenant, r.Set.Campaign, r.Rates.Tenant, r.Rates.Campaign = tenant, campaign, 500, 400
		return &client{l: w.limiters[0], req: r}
	}
	a1, a2, b1 := set("tn_a", "camp_1"), set("tn_a", "camp_2"), set("tn_b", "camp_1")
	w.run(4*time.Second, []*client{a1, a2, b1}, nil)
	if got := (total(a1.used) + total(a2.used)) / 4; got < 490 || got > 515 {
		t.Errorf("two campaigns of a tenant: got %d/s, want 500", got)
	}
	if got := total(b1.used) / 4; got < 392 || got > 412 {
		t.Errorf("another tenant's campaign: got %d/s, want 400", got)
	}
}

func TestKeysHaveTheRouteAsTag(t *testing.T) {
	w := newEnv(t, 1, 6)
	r := bulk(1_000, 1)
	r.Rates.Tenant, r.Rates.Sender, r.Rates.Campaign = 10, 10, 10
	w.take(w.limiters[0], r)
	want := []string{"t.rate:{sim}", "t.rate:{sim}:campaign:tn_a/camp_1", "t.rate:{sim}:live", "t.rate:{sim}:sender:tn_a/ACME", "t.rate:{sim}:tenant:tn_a"}
	if got := w.mr.Keys(); !slices.Equal(got, want) {
		t.Errorf("got keys %q, want %q", got, want)
	}
	for _, k := range w.mr.Keys() {
		if w.mr.TTL(k) <= 0 {
			t.Errorf("key %s: got no expiry, want one", k)
		}
	}
}

// Redis set back by an hour: at most one refill is lost, and no request waits for an hour.
func TestClockSetBack(t *testing.T) {
	w := newEnv(t, 1, 7)
	c := &client{l: w.limiters[0], req: bulk(1_000, 1_000)}
	w.run(time.Second, []*client{c}, nil)
	if _, err := w.limiters[0].Throttled(context.Background(), "sim"); err != nil {
		t.Fatal(err)
	}
	w.offset = -time.Hour
	c.used = nil
	w.run(11*time.Second, []*client{c}, nil)
	last := 0
	for _, u := range c.used {
		if u.at.After(w.now.Add(-time.Second)) {
			last += u.n
		}
	}
	if last < 950 || last > 1_060 {
		t.Errorf("11 s after the clock went back: got %d in a second, want 1,000 (and the factor back at 1)", last)
	}
	if got := total(c.used); got < 7_500 {
		t.Errorf("got %d tokens in 11 s, want the bucket to go on at once", got)
	}
}
