package ratelimit

import (
	"container/heap"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	dto "github.com/prometheus/client_model/go"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"fanfare/schemas"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a Redis with a clock of our own and several processes that take from it. Nothing in it waits: it jumps from event to event.
type world struct {
	tb       testing.TB
	mr       *miniredis.Miniredis
	rdb      *redis.Client
	now      time.Time     // of the processes
	offset   time.Duration // of the clock of Redis
	rand     *rand.Rand
	limiters []*Limiter
}

func newWorld(tb testing.TB, processes int, seed uint64) *world {
	tb.Helper()
	w := &world{tb: tb, mr: miniredis.RunT(tb), now: epoch, rand: rand.New(rand.NewPCG(seed, 1))}
	w.rdb = redis.NewClient(&redis.Options{Addr: w.mr.Addr(), MaxRetries: -1})
	tb.Cleanup(func() { _ = w.rdb.Close() })
	w.reset(processes)
	return w
}

// reset forgets everything, for the next of many runs on one server.
func (w *world) reset(processes int) {
	w.mr.FlushAll()
	w.now, w.offset, w.limiters = epoch, 0, nil
	w.mr.SetTime(w.now)
	for i := range processes {
		l, err := New(w.rdb, Config{
			Names: names(w.tb), Instance: fmt.Sprintf("p%d", i), Logger: slog.New(slog.DiscardHandler),
			Now: func() time.Time { return w.now }, Rand: w.rand.Float64,
		})
		if err != nil {
			w.tb.Fatal(err)
		}
		w.limiters = append(w.limiters, l)
	}
}

func names(tb testing.TB) schemas.Names {
	tb.Helper()
	n, err := schemas.NewNames("t.")
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func (w *world) at(t time.Time) {
	w.now = t
	w.mr.SetTime(t.Add(w.offset))
}

func (w *world) take(l *Limiter, r Request) Grant {
	w.tb.Helper()
	var g [1]Grant
	if err := l.Take(context.Background(), []Request{r}, g[:]); err != nil {
		w.tb.Fatal(err)
	}
	return g[0]
}

// client takes tokens for one set in one process for ever.
type client struct {
	l    *Limiter
	req  Request
	next time.Time
	// lazy uses tokens at a random time of their life instead of at once.
	lazy bool
	used []use
}

type use struct {
	at time.Time
	n  int
}

func total(uses []use) (n int) {
	for _, u := range uses {
		n += u.n
	}
	return n
}

type agenda []*client

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].next.Before(a[j].next) }
func (a agenda) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)        { *a = append(*a, x.(*client)) }
func (a *agenda) Pop() any          { x := (*a)[len(*a)-1]; *a = (*a)[:len(*a)-1]; return x }

// run lets the clients take for d and returns how many calls Redis saw; each step may be looked at.
func (w *world) run(d time.Duration, clients []*client, step func()) (calls int) {
	before := w.calls()
	end := w.now.Add(d)
	var todo agenda
	for _, c := range clients {
		c.next = w.now.Add(time.Duration(w.rand.Int64N(int64(5 * time.Millisecond))))
		heap.Push(&todo, c)
	}
	for todo[0].next.Before(end) {
		c := todo[0]
		w.at(c.next)
		g := w.take(c.l, c.req)
		if g.Tokens > 0 {
			at := g.Ready
			if c.lazy {
				at = at.Add(time.Duration(w.rand.Int64N(int64(g.Until.Sub(g.Ready)))))
			}
			c.used = append(c.used, use{at, g.Tokens})
		}
		// 200 µs is a round trip; a reservation is slept for once.
		c.next = w.now.Add(max(200*time.Microsecond, g.Retry, g.Ready.Sub(w.now)))
		heap.Fix(&todo, 0)
		if step != nil {
			step()
		}
		if c.req.Want == 0 {
			c.next = end
			heap.Fix(&todo, 0)
		}
	}
	w.at(end)
	return w.calls() - before
}

func (w *world) calls() (n int) {
	for _, l := range w.limiters {
		var m dto.Metric
		if err := l.metrics.calls.Write(&m); err != nil {
			w.tb.Fatal(err)
		}
		n += int(m.GetCounter().GetValue())
	}
	return n
}

// excess returns the most by which the uses of any span were above rate × span.
func excess(rate float64, uses []use) float64 {
	slices.SortFunc(uses, func(a, b use) int { return a.at.Compare(b.at) })
	var sum, least, most float64
	for i, u := range uses {
		line := rate * u.at.Sub(uses[0].at).Seconds()
		if before := sum - line; i == 0 || before < least {
			least = before
		}
		sum += float64(u.n)
		most = max(most, sum-line-least)
	}
	return most
}

// peak returns the most uses of any second.
func peak(uses []use) (most int) {
	slices.SortFunc(uses, func(a, b use) int { return a.at.Compare(b.at) })
	from, sum := 0, 0
	for _, u := range uses {
		sum += u.n
		for u.at.Sub(uses[from].at) >= time.Second {
			sum -= uses[from].n
			from++
		}
		most = max(most, sum)
	}
	return most
}

func jain(counts []int) float64 {
	var sum, squares float64
	for _, n := range counts {
		sum += float64(n)
		squares += float64(n) * float64(n)
	}
	return sum * sum / (float64(len(counts)) * squares)
}

func bulk(rate uint32, want int) Request {
	return Request{Set: Set{Route: "sim", Tenant: "tn_a", Sender: "ACME", Campaign: "camp_1", Lane: schemas.LaneBulk}, Rates: Rates{Route: rate}, Want: want}
}

func txn(rate uint32, want int) Request {
	r := bulk(rate, want)
	r.Set.Lane = schemas.LaneTxn
	return r
}

// G4: achieved ÷ target, the peak of any second, Redis calls per message at 20,000/s.
func TestLimiterIsAccurate(t *testing.T) {
	w := newWorld(t, 4, 1)
	for _, rate := range []uint32{1, 10, 99, 100, 1_000, 20_000} {
		for _, processes := range []int{1, 4} {
			w.reset(processes)
			var clients []*client
			for i := range processes {
				clients = append(clients, &client{l: w.limiters[i], req: bulk(rate, 100_000), lazy: true})
			}
			w.run(max(time.Second, 5*time.Second/time.Duration(rate)), clients, nil) // the full bucket, and everyone is known
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
	w := newWorld(t, 1, 2)
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
	w := newWorld(t, 1, 4)
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
	w := newWorld(t, 1, 17)
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
	w := newWorld(t, 1, 5)
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
	w := newWorld(t, 1, 6)
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

// Redis set back by an hour: at most one refill is lost, and nobody waits for an hour.
func TestClockSetBack(t *testing.T) {
	w := newWorld(t, 1, 7)
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

// The transactional lane gets what it needs of a route that bulk could fill; bulk keeps a fifth when it could take all.
func TestLanes(t *testing.T) {
	w := newWorld(t, 2, 8)
	for _, rate := range []uint32{20, 1_000} {
		for _, tc := range []struct {
			name     string
			txnWants float64 // of the rate
			txn      [2]float64
			bulk     [2]float64
		}{
			{"txn idle", 0, [2]float64{0, 0}, [2]float64{0.97, 1.01}},
			{"txn saturates", 1, [2]float64{0.76, 0.83}, [2]float64{0.17, 0.23}},
		} {
			w.reset(2)
			clients := []*client{{l: w.limiters[0], req: bulk(rate, 50_000)}, {l: w.limiters[1], req: bulk(rate, 50_000)}}
			var lane []*client
			if tc.txnWants > 0 {
				lane = []*client{{l: w.limiters[0], req: txn(rate, 50_000)}, {l: w.limiters[1], req: txn(rate, 50_000)}}
			}
			all := append(slices.Clone(clients), lane...)
			w.run(time.Second, all, nil)
			for _, c := range all {
				c.used = nil
			}
			seconds := 2.0
			if rate < 100 {
				seconds = 15
			}
			w.run(time.Duration(seconds*float64(time.Second)), all, nil)
			share := func(cs []*client) (f float64) {
				for _, c := range cs {
					f += float64(total(c.used)) / seconds / float64(rate)
				}
				return f
			}
			b, x := share(clients), share(lane)
			t.Logf("%d/s, %s: bulk %.3f, txn %.3f", rate, tc.name, b, x)
			if b < tc.bulk[0] || b > tc.bulk[1] {
				t.Errorf("%d/s, %s: got %.3f of the route for bulk, want %.2f..%.2f", rate, tc.name, b, tc.bulk[0], tc.bulk[1])
			}
			if x < tc.txn[0] || x > tc.txn[1] {
				t.Errorf("%d/s, %s: got %.3f of the route for txn, want %.2f..%.2f", rate, tc.name, x, tc.txn[0], tc.txn[1])
			}
		}
	}
}

// A single message now and then waits milliseconds behind a bulk lane that fills the route, and costs it no capacity.
func TestTransactionalGoesFirst(t *testing.T) {
	w := newWorld(t, 1, 9)
	for _, rate := range []uint32{20, 1_000} {
		w.reset(1)
		b := &client{l: w.limiters[0], req: bulk(rate, 50_000)}
		w.run(2*time.Second, []*client{b}, nil)
		b.used = nil
		var waits []time.Duration
		singles := 0
		start := w.now
		for w.now.Before(start.Add(15 * time.Second)) {
			asked := w.now
			for {
				g := w.take(w.limiters[0], txn(rate, 1))
				if g.Tokens == 1 {
					waits = append(waits, g.Ready.Sub(asked))
					singles++
					break
				}
				w.run(g.Retry, []*client{b}, nil)
			}
			w.run(time.Duration(200+w.rand.IntN(100))*time.Millisecond, []*client{b}, nil)
		}
		slices.Sort(waits)
		p99 := waits[len(waits)*99/100]
		limit := 20 * time.Millisecond
		if rate < 100 {
			limit = 3 * time.Second / time.Duration(rate) // two bulk tokens may be before it
		}
		if p99 > limit {
			t.Errorf("%d/s: got a wait of %s at the 99th percentile, want at most %s", rate, p99, limit)
		}
		use := float64(total(b.used)+singles) / w.now.Sub(start).Seconds() / float64(rate)
		t.Logf("%d/s: %d singles, p99 %s, route use %.3f", rate, singles, p99, use)
		if use < 0.97 {
			t.Errorf("%d/s: got %.3f of the route used, want 0.97", rate, use)
		}
	}
}

func TestReservationIsSleptForOnce(t *testing.T) {
	w := newWorld(t, 1, 10)
	r := bulk(1_000, 16)
	r.Rates.Tenant = 10
	if g := w.take(w.limiters[0], r); g.Tokens != 1 || g.Ready.After(w.now) {
		t.Fatalf("full bucket: got %+v, want a token now", g)
	}
	g := w.take(w.limiters[0], r)
	if g.Tokens != 1 || g.Ready.Sub(w.now) != 100*time.Millisecond {
		t.Fatalf("empty bucket at 10/s: got %d tokens in %s, want one in 100 ms", g.Tokens, g.Ready.Sub(w.now))
	}
	for range 20 { // nine more fit into a second, then the level is named
		if g = w.take(w.limiters[0], r); g.Tokens == 0 {
			break
		}
	}
	if g.Short != LevelTenant || g.Wait != 1100*time.Millisecond {
		t.Errorf("a second ahead: got short %s, wait %s, want tenant, 1.1s", g.Short, g.Wait)
	}
}

func TestThrottledHalvesForAllAndClimbsBack(t *testing.T) {
	w := newWorld(t, 2, 11)
	clients := []*client{{l: w.limiters[0], req: bulk(1_000, 1_000)}, {l: w.limiters[1], req: bulk(1_000, 1_000)}}
	w.run(2*time.Second, clients, nil)
	perSecond := func() int {
		for _, c := range clients {
			c.used = nil
		}
		w.run(time.Second, clients, nil)
		return total(clients[0].used) + total(clients[1].used)
	}
	for range 50 { // one burst of complaints, from both
		for _, l := range w.limiters {
			if _, err := l.Throttled(context.Background(), "sim"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := perSecond(); got < 480 || got > 600 {
		t.Errorf("first second after: got %d, want half of 1,000 and a twentieth more by its end", got)
	}
	f, err := w.limiters[1].Throttled(context.Background(), "sim")
	if err != nil || f < 0.26 || f > 0.29 {
		t.Errorf("a second complaint a second later: got factor %.3f (%v), want half of 0.55", f, err)
	}
	for range 16 {
		perSecond()
	}
	if got := perSecond(); got < 960 || got > 1_060 {
		t.Errorf("after 17 s: got %d, want 1,000 again", got)
	}
}

func TestSendersAreCounted(t *testing.T) {
	w := newWorld(t, 3, 12)
	var clients []*client
	for _, l := range w.limiters {
		clients = append(clients, &client{l: l, req: bulk(1_000, 1_000)})
	}
	w.run(2*time.Second, clients, nil)
	if got := w.limiters[0].Senders("sim"); got != 3 {
		t.Errorf("three take: got %d, want 3", got)
	}
	w.run(5*time.Second, clients[:1], nil)
	if got := w.limiters[0].Senders("sim"); got != 1 {
		t.Errorf("two are gone for 5 s: got %d, want 1", got)
	}
	if got := w.limiters[0].Senders("other"); got != 1 {
		t.Errorf("a route never used: got %d, want 1", got)
	}
}

// Leases stay in the process: what was given back or leased ahead is used before Redis is asked, and is void after its time.
func TestLeaseIsKeptAndExpires(t *testing.T) {
	w := newWorld(t, 1, 13)
	l := w.limiters[0]
	g := w.take(l, bulk(1_000, 20))
	if g.Tokens != 20 {
		t.Fatalf("got %d tokens, want 20", g.Tokens)
	}
	calls := w.calls()
	l.Put(bulk(1_000, 0).Set, 5, g.Until)
	if g := w.take(l, bulk(1_000, 3)); g.Tokens != 3 || w.calls() != calls {
		t.Errorf("of 5 given back: got %d and %d calls, want 3 and none", g.Tokens, w.calls()-calls)
	}
	if g := w.take(l, txn(1_000, 1)); w.calls() == calls || g.Tokens != 1 {
		t.Errorf("another lane: got %d tokens from the first one's lease, want its own call", g.Tokens)
	}
	w.at(g.Until)
	calls = w.calls()
	if g := w.take(l, bulk(1_000, 1)); g.Tokens != 1 || w.calls() == calls {
		t.Errorf("after its time: got %d tokens and %d calls, want a new lease", g.Tokens, w.calls()-calls)
	}
	before := l.leases[bulk(1_000, 0).Set].tokens
	l.Put(bulk(1_000, 0).Set, 5, g.Until)
	if got := l.leases[bulk(1_000, 0).Set].tokens; got != before {
		t.Errorf("void tokens given back: got %d kept, want %d", got, before)
	}
}

// Leased takes all or nothing, and never calls.
func TestLeased(t *testing.T) {
	w := newWorld(t, 1, 18)
	l := w.limiters[0]
	other := bulk(1_000, 1)
	other.Set.Campaign = "camp_2"
	reqs, g := []Request{bulk(1_000, 3), other}, make([]Grant, 2)
	if l.Leased(reqs[:1], g[:1]) {
		t.Error("nothing is leased: got an answer")
	}
	until := w.take(l, bulk(1_000, 10)).Until
	l.Put(reqs[0].Set, 5, until)
	calls := w.calls()
	if l.Leased(reqs, g) {
		t.Error("one of two is leased: got an answer")
	}
	if !l.Leased(reqs[:1], g[:1]) || g[0].Tokens != 3 {
		t.Errorf("5 leased: got %+v, want 3", g[0])
	}
	if got := l.leases[reqs[0].Set].tokens; got != 2 {
		t.Errorf("got %d left over, want 2", got)
	}
	if w.calls() != calls {
		t.Errorf("got %d calls, want none", w.calls()-calls)
	}
	w.at(until)
	if l.Leased(reqs[:1], g[:1]) {
		t.Error("the lease is over: got an answer")
	}
}

// NOSCRIPT: a Redis that restarted, or was told SCRIPT FLUSH, is given the script again.
func TestScriptIsLoadedAgain(t *testing.T) {
	w := newWorld(t, 1, 14)
	w.take(w.limiters[0], bulk(1_000, 1))
	if err := w.rdb.ScriptFlush(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	w.at(w.now.Add(time.Second))
	if g := w.take(w.limiters[0], bulk(1_000, 1)); g.Tokens != 1 {
		t.Errorf("got %d tokens, want 1", g.Tokens)
	}
}

// While Redis is away Take blocks: no local share, no error. It goes on when Redis is back, and ends with its context.
func TestRedisAwayHolds(t *testing.T) {
	w := newWorld(t, 1, 15)
	l := w.limiters[0]
	l.cfg.Rand = rand.Float64 // two goroutines
	w.take(l, bulk(1_000, 1))
	w.at(w.now.Add(time.Second)) // no lease is left
	w.mr.SetError("LOADING Redis is loading the dataset in memory")
	answer := make(chan Grant, 1)
	go func() {
		var g [1]Grant
		_ = l.Take(context.Background(), []Request{bulk(1_000, 10)}, g[:])
		answer <- g[0]
	}()
	select {
	case g := <-answer:
		t.Fatalf("Redis is away: got %+v, want no answer", g)
	case <-time.After(200 * time.Millisecond):
	}
	if l.Available() {
		t.Error("Redis is away: got available")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := l.Take(ctx, []Request{txn(1_000, 1)}, make([]Grant, 1)); err == nil {
		t.Error("context ended: got no error")
	}
	w.mr.SetError("")
	select {
	case g := <-answer:
		if g.Tokens != 10 {
			t.Errorf("Redis is back: got %d tokens, want 10", g.Tokens)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Redis is back: got no answer")
	}
	if !l.Available() {
		t.Error("Redis is back: got not available")
	}
}

func TestRequestsOfOneCall(t *testing.T) {
	w := newWorld(t, 1, 16)
	reqs := []Request{bulk(1_000, 100), bulk(1_000, 100), bulk(1_000, 0)}
	reqs[1].Set.Campaign = "camp_2"
	g := make([]Grant, len(reqs))
	if err := w.limiters[0].Take(context.Background(), reqs, g); err != nil {
		t.Fatal(err)
	}
	if g[0].Tokens == 0 || g[1].Tokens == 0 {
		t.Errorf("got %d and %d tokens, want both sets to get their part of a slice", g[0].Tokens, g[1].Tokens)
	}
	if g[2].Tokens != 0 || g[2].Short != LevelNone {
		t.Errorf("nothing wanted: got %+v, want nothing", g[2])
	}
	if err := w.limiters[0].Take(context.Background(), reqs, g[:1]); err == nil {
		t.Error("too few grants: got no error")
	}
}
