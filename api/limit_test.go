package api

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// sharedCounter is a shared limiter that may be away.
type sharedCounter struct {
	away  bool
	asked int
}

func (c *sharedCounter) Take(context.Context, string, Limits) (Grant, error) {
	c.asked++
	if c.away {
		return Grant{}, errors.New("no route to Redis")
	}
	return Grant{OK: true, Limit: 1000, Remaining: 7}, nil
}

// While the shared limiter is away each process counts by itself, asks it once a second, and logs one line when it goes
// and one when it comes back.
func TestSharedLimiterAway(t *testing.T) {
	now := time.Unix(1000, 0)
	var logs bytes.Buffer
	shared := &sharedCounter{}
	l := &keyLimiter{shared: shared, now: func() time.Time { return now }, log: slog.New(slog.NewTextHandler(&logs, nil))}
	who := &principal{quota: &quota{limits: Limits{5, 1000}}}
	if g := l.take(t.Context(), who); !g.OK || g.Remaining != 7 {
		t.Errorf("got %+v, want the shared answer", g)
	}
	shared.away, shared.asked = true, 0
	admitted := 0
	for range 20 {
		if l.take(t.Context(), who).OK {
			admitted++
		}
	}
	if admitted != 5 || shared.asked != 1 {
		t.Errorf("away: got %d admitted and %d asked, want 5 by the own count, and one question", admitted, shared.asked)
	}
	now = now.Add(1100 * time.Millisecond)
	shared.away = false
	if g := l.take(t.Context(), who); g.Remaining != 7 {
		t.Errorf("back: got %+v, want the shared answer", g)
	}
	if n := strings.Count(logs.String(), "\n"); n != 2 {
		t.Errorf("got %d log lines, want one for each change: %s", n, &logs)
	}
}

// X8: 50 a second and 1,000 a minute, whichever is used up first.
func TestQuota(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	q := &quota{limits: Limits{50, 1000}}
	granted := func(n int) (got int, last Grant) {
		for range n {
			if last = q.take(now); last.OK {
				got++
			}
		}
		return got, last
	}
	if got, last := granted(60); got != 50 || last.Wait <= 0 || last.Wait > 20*time.Millisecond {
		t.Errorf("60 at once: got %d and wait %v, want 50 and at most 20ms", got, last.Wait)
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
	if _, last := granted(1); last.OK || last.Remaining != 0 || last.Limit != 1000 {
		t.Errorf("minute used up: got %+v, want refused with 0 of 1000", last)
	}
	now = now.Add(time.Minute)
	if got, last := granted(1); got != 1 || last.Remaining != 999 {
		t.Errorf("a minute later: got %d with %d left, want 1 with 999 left", got, last.Remaining)
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
			if g := q.take(now); g.OK {
				granted++
			} else if g.Wait <= 0 {
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
