package api

import (
	"testing"
	"time"
)

// A tenant alone is admitted at what the route sends, and a batch larger than its budget when nothing of it waits.
func TestBudget(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newBudgets()
	if wait := b.take("r", "a", 2000, 100, 0, now); wait != 0 {
		t.Errorf("a batch of 20 s with nothing waiting: got a wait of %v, want none", wait)
	}
	if wait := b.take("r", "a", 1, 100, 0, now); wait != 19*time.Second+10*time.Millisecond {
		t.Errorf("behind it: got a wait of %v, want until a second's worth waits", wait)
	}
	if wait := b.take("r", "b", 1, 100, 0, now); wait != 0 {
		t.Errorf("another tenant: got a wait of %v, want none", wait)
	}
	if wait := b.take("other", "a", 1, 100, 0, now); wait != 0 {
		t.Errorf("on another route: got a wait of %v, want none", wait)
	}
	sent := 0
	for range 600 {
		now = now.Add(100 * time.Millisecond)
		if b.take("r", "c", 50, 100, 0, now) == 0 {
			sent += 50
		}
	}
	if sent < 40*100 || sent > 60*100+150 { // for 20 s it shares the route
		t.Errorf("60 s at five times the rate: got %d, want about 5,000", sent)
	}
}

// While some tenants send as much as they are let, another one's single sends are all admitted, and the route has
// never more than about a second of all of them waiting.
func TestBudgetsShareARoute(t *testing.T) {
	const rate = 1000
	for _, flooding := range []int{1, 3, 10} {
		b := newBudgets()
		now := time.Unix(1000, 0)
		waiting, most := 0.0, 0.0 // in the lane, which the route empties
		sent := make([]int, flooding)
		refused := 0
		for step := range 20_000 { // of a millisecond
			now = now.Add(time.Millisecond)
			waiting = max(0, waiting-rate/1000)
			for i := range flooding {
				for range 3 {
					if b.take("r", string(rune('a'+i)), 10, rate, 0, now) == 0 {
						sent[i] += 10
						waiting += 10
					}
				}
			}
			if step%50 == 0 {
				if b.take("r", "quiet", 1, rate, 0, now) > 0 {
					refused++
				} else {
					waiting++
				}
			}
			if step > 5000 { // the shares have settled
				most = max(most, waiting)
			}
		}
		if refused > 0 {
			t.Errorf("%d flooding: the quiet tenant was refused %d times", flooding, refused)
		}
		if most > 1.5*rate {
			t.Errorf("%d flooding: got %.0f waiting, want about a second's worth, %d", flooding, most, rate)
		}
		all, lo, hi := 0, sent[0], sent[0]
		for _, n := range sent {
			all, lo, hi = all+n, min(lo, n), max(hi, n)
		}
		if all < 19*rate || float64(hi) > 1.2*float64(lo) {
			t.Errorf("%d flooding: got %v, %d in 20 s, want nearly all of %d, in equal shares", flooding, sent, all, 20*rate)
		}
	}
}

// A tenant with a limit of its own is not admitted faster than that.
func TestBudgetOfATenantWithALimit(t *testing.T) {
	b := newBudgets()
	now := time.Unix(1000, 0)
	sent := 0
	for range 1000 {
		now = now.Add(10 * time.Millisecond)
		if b.take("r", "a", 1, 1000, 20, now) == 0 {
			sent++
		}
	}
	if sent < 200 || sent > 225 {
		t.Errorf("10 s at a limit of 20/s: got %d, want 200 and a second's worth", sent)
	}
}
