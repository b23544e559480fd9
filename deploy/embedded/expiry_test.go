package embedded

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func startRedis(t testing.TB) *redis.Client {
	t.Helper()
	s, err := Start(Config{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler), Redis: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	rdb := redis.NewClient(&redis.Options{Addr: s.Redis, ReadTimeout: time.Minute})
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func TestKeysExpire(t *testing.T) {
	rdb := startRedis(t)
	ctx := t.Context()
	for key, life := range map[string]time.Duration{"short": 200 * time.Millisecond, "long": time.Hour, "ever": 0} {
		if err := rdb.Set(ctx, key, "x", life).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for rdb.Exists(ctx, "short").Val() != 0 {
		time.Sleep(10 * time.Millisecond)
		if ctx.Err() != nil {
			t.Fatal("the key does not expire")
		}
	}
	if n := rdb.Exists(ctx, "long", "ever").Val(); n != 2 {
		t.Errorf("%d of 2 keys are left that should be", n)
	}
}

// fill sets n keys that expire.
func fill(t testing.TB, rdb *redis.Client, n int) {
	t.Helper()
	pipe := rdb.Pipeline()
	for i := range n {
		pipe.Set(t.Context(), fmt.Sprintf("key-%d", i), "x", time.Hour)
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// With 5,000 keys, 500 commands allocate less than 500 lists of 5,000 keys: no command looks at every key.
func TestCommandsDoNotLookAtEveryKey(t *testing.T) {
	rdb := startRedis(t)
	const keys, commands = 5000, 500
	fill(t, rdb, keys)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range commands {
		if err := rdb.Get(t.Context(), "key-1").Err(); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if got, lists := after.TotalAlloc-before.TotalAlloc, uint64(keys*16*commands); got > lists/2 {
		t.Errorf("%d commands allocated %d bytes; lists of all keys are %d", commands, got, lists)
	}
}

func BenchmarkGet(b *testing.B) {
	for _, keys := range []int{10, 1000, 100_000} {
		b.Run(fmt.Sprint(keys), func(b *testing.B) {
			rdb := startRedis(b)
			fill(b, rdb, keys)
			for b.Loop() {
				if err := rdb.Get(b.Context(), "key-1").Err(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
