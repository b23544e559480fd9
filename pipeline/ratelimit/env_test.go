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

	"fanfare/schemas"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// env is a Redis with a clock of our own and several processes that take from it. Nothing in it waits: it jumps from
// event to event.
type env struct {
	tb       testing.TB
	mr       *miniredis.Miniredis
	rdb      *redis.Client
	now      time.Time     // of the processes
	offset   time.Duration // of the clock of Redis
	rand     *rand.Rand
	limiters []*Limiter
}

func newEnv(tb testing.TB, processes int, seed uint64) *env {
	tb.Helper()
	w := &env{tb: tb, mr: miniredis.RunT(tb), now: epoch, rand: rand.New(rand.NewPCG(seed, 1))}
	w.rdb = redis.NewClient(&redis.Options{Addr: w.mr.Addr(), MaxRetries: -1})
	tb.Cleanup(func() { _ = w.rdb.Close() })
	w.reset(processes)
	return w
}

// reset forgets everything, for the next of many runs on one server.
func (w *env) reset(processes int) {
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

func (w *env) at(t time.Time) {
	w.now = t
	w.mr.SetTime(t.Add(w.offset))
}

func (w *env) take(l *Limiter, r Request) Grant {
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
func (w *env) run(d time.Duration, clients []*client, step func()) (calls int) {
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

func (w *env) calls() (n int) {
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
