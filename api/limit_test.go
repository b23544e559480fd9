package api

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// X8: 50 a second and 1,000 a minute, whichever is used up first.
func TestQuota(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	q := &quota{limits: Limits{50, 1000}}
	granted := func(n int) (got int, last grant) {
		for range n {
			if last = q.take(now); last.ok {
				got++
			}
		}
		return got, last
	}
	if got, last := granted(60); got != 50 || last.wait <= 0 || last.wait > 20*time.Millisecond {
		t.Errorf("60 at once: got %d and wait %v, want 50 and at most 20ms", got, last.wait)
	}
	total := 50
	for range 400 { // 40 s at 10 times what is allowed
		now = now.Add(100 * time.Millisecond)
		got, _ := granted(50)
		total += got
	}
	if total < 1000 || total > 1000+40*1000/60+1 {
		t.Errorf("40 s at full speed: got %d, want a minute's 1,000 and what 40 s give back", total)
	}
	if _, last := granted(1); last.ok || last.remaining != 0 || last.limit != 1000 {
		t.Errorf("minute used up: got %+v, want refused with 0 of 1000", last)
	}
	now = now.Add(time.Minute)
	if got, last := granted(1); got != 1 || last.remaining != 999 {
		t.Errorf("a minute later: got %d with %d left, want 1 with 999 left", got, last.remaining)
	}
}

// No window of a second holds more than two seconds' worth, and a clock that goes back grants nothing extra.
func TestQuotaNeverAbove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{PerSecond: rapid.IntRange(1, 20).Draw(t, "second"), PerMinute: rapid.IntRange(20, 200).Draw(t, "minute")}
		q := &quota{limits: limits}
		start := time.Unix(1_000_000, 0)
		now, high := start, start
		granted := 0
		for range rapid.IntRange(1, 400).Draw(t, "requests") {
			now = now.Add(time.Duration(rapid.IntRange(-50, 200).Draw(t, "ms")) * time.Millisecond)
			if now.After(high) {
				high = now
			}
			if g := q.take(now); g.ok {
				granted++
			} else if g.wait <= 0 {
				t.Fatalf("refused without a wait: %+v", g)
			}
		}
		span := high.Sub(start) + 50*time.Millisecond*400
		if most := limits.PerSecond + int(span*time.Duration(limits.PerSecond)/time.Second) + 1; granted > most {
			t.Fatalf("got %d in %v, want at most %d", granted, span, most)
		}
		if most := limits.PerMinute + int(high.Sub(start)*time.Duration(limits.PerMinute)/time.Minute) + 1; granted > most+20 {
			t.Fatalf("got %d in %v, want at most %d a minute", granted, high.Sub(start), most)
		}
	})
}
