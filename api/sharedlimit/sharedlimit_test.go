package sharedlimit_test

import (
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"fanfare/api"
	"fanfare/api/sharedlimit"
)

// X8: two processes admit together what the limits of a key allow, of the second and of the minute.
func TestLimiter(t *testing.T) {
	server := miniredis.RunT(t)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	server.SetTime(now)
	var processes []*sharedlimit.Limiter
	for range 2 {
		client := redis.NewClient(&redis.Options{Addr: server.Addr()})
		t.Cleanup(func() { _ = client.Close() })
		l, err := sharedlimit.New(client, "test.")
		if err != nil {
			t.Fatal(err)
		}
		processes = append(processes, l)
	}
	limits := api.Limits{PerSecond: 10, PerMinute: 25}
	ask := func(key string, n int) (admitted int, last api.Grant) {
		for i := range n {
			g, err := processes[i%2].Take(t.Context(), key, limits)
			if err != nil {
				t.Fatal(err)
			}
			if last = g; g.OK {
				admitted++
			}
		}
		return admitted, last
	}
	if n, last := ask("a", 30); n < 9 || n > 10 || last.Wait <= 0 || last.Wait > time.Second || last.Limit != 25 {
		t.Errorf("the first second: got %d, then %+v; want 10, or 9: the script counts in fractions of a second", n, last)
	}
	if n, _ := ask("b", 3); n != 3 {
		t.Errorf("another key: got %d, want 3", n)
	}
	total := 0
	for range 10 {
		now = now.Add(time.Second)
		server.SetTime(now)
		n, _ := ask("a", 30)
		total += n
	}
	if total < 15 || total > 25+5-9 { // in ten seconds a sixth of a minute's comes back
		t.Errorf("the ten seconds after: got %d, want the rest of 25 and what comes back meanwhile", total)
	}
}

func TestAway(t *testing.T) {
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	l, err := sharedlimit.New(client, "test.")
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	if g, err := l.Take(t.Context(), "a", api.Limits{PerSecond: 1, PerMinute: 1}); err == nil {
		t.Errorf("without Redis: got %+v, want an error", g)
	}
	if _, err := sharedlimit.New(nil, ""); err == nil {
		t.Error("without a client: got no error")
	}
}
