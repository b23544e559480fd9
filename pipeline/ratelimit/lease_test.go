package ratelimit

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"
)

// Leases stay in the process: what was given back or leased ahead is used before Redis is asked, and is void after its
// time.
func TestLeaseIsKeptAndExpires(t *testing.T) {
	w := newEnv(t, 1, 13)
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
	w := newEnv(t, 1, 18)
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
	w := newEnv(t, 1, 14)
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
	w := newEnv(t, 1, 15)
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
	w := newEnv(t, 1, 16)
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
