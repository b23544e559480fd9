package ratelimit

import (
	"context"
	"slices"
	"testing"
	"time"
)

// The transactional lane gets what it needs of a route that bulk could fill; bulk keeps a fifth when it could take all.
func TestLanes(t *testing.T) {
	w := newEnv(t, 2, 8)
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
	w := newEnv(t, 1, 9)
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
	w := newEnv(t, 1, 10)
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
	w := newEnv(t, 2, 11)
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
	w := newEnv(t, 3, 12)
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
