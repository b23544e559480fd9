package api

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Limits are how many requests one API key may make (X8): over all API processes if they share a [SharedLimiter], else
// in each process.
type Limits struct {
	PerSecond int // default 50
	PerMinute int // default 1,000
}

// over returns l with its zero fields replaced by those of below.
func (l Limits) over(below Limits) Limits {
	if l.PerSecond <= 0 {
		l.PerSecond = below.PerSecond
	}
	if l.PerMinute <= 0 {
		l.PerMinute = below.PerMinute
	}
	return l
}

// quota counts the requests of one key in two buckets, of a second and of a minute. They fill evenly: a client that
// keeps to its rate is never refused, and an idle client may make the requests of a whole second, or minute, at once.
type quota struct {
	mu     sync.Mutex
	limits Limits
	second bucket
	minute bucket
}

// bucket is a token bucket (GCRA): tat is the theoretical arrival time of the next request; the fill follows from it.
type bucket struct{ tat time.Time }

// room returns how many requests are admitted at now, with n requests per period; if none is, how long to wait for the
// next.
func (b *bucket) room(now time.Time, n int, per time.Duration) (left int, wait time.Duration) {
	step := per / time.Duration(n)
	ahead := max(b.tat.Sub(now), 0)
	if free := per - ahead; free >= step {
		return int(free / step), 0
	}
	return 0, ahead + step - per
}

func (b *bucket) take(now time.Time, n int, per time.Duration) {
	if b.tat.Before(now) {
		b.tat = now
	}
	b.tat = b.tat.Add(per / time.Duration(n))
}

// Grant is the decision about one request.
type Grant struct {
	OK        bool
	Limit     int           // requests per minute
	Remaining int           // requests left in the minute
	Wait      time.Duration // until the next request is admitted; 0 when this one is
}

// SharedLimiter counts the requests of keys over all API processes.
type SharedLimiter interface {
	Take(ctx context.Context, key string, limits Limits) (Grant, error)
}

// keyLimiter counts requests with the shared limiter, if there is one. While the shared limiter does not answer, each
// process counts by itself and admits the full limits, which is better than to admit nothing or everything.
type keyLimiter struct {
	shared SharedLimiter
	now    func() time.Time
	log    *slog.Logger

	mu    sync.Mutex
	away  bool
	again time.Time // when the shared limiter is asked again
}

// sharedRetry is how long a shared limiter that did not answer is not asked again, so that not every request waits for
// it.
const sharedRetry = time.Second

func (l *keyLimiter) take(ctx context.Context, who *principal) Grant {
	now := l.now()
	if l.shared == nil || l.resting(now) {
		return who.quota.take(now)
	}
	g, err := l.shared.Take(ctx, who.key.ID, who.quota.get())
	if err != nil {
		if ctx.Err() == nil { // a cancelled context means that the client disconnected
			l.turn(ctx, true, now, err)
		}
		return who.quota.take(now)
	}
	l.turn(ctx, false, now, nil)
	return g
}

func (l *keyLimiter) resting(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.away && now.Before(l.again)
}

// turn records whether the shared limiter answers, and logs when that changes.
func (l *keyLimiter) turn(ctx context.Context, away bool, now time.Time, err error) {
	l.mu.Lock()
	was := l.away
	l.away, l.again = away, now.Add(sharedRetry)
	l.mu.Unlock()
	switch {
	case away && !was:
		l.log.WarnContext(ctx, "shared rate limiter does not answer, this process counts by itself", "err", err.Error())
	case !away && was:
		l.log.InfoContext(ctx, "shared rate limiter answers again")
	}
}

func (q *quota) get() Limits {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.limits
}

// take decides about one request at now, and counts it if it is admitted.
func (q *quota) take(now time.Time) Grant {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, waitS := q.second.room(now, q.limits.PerSecond, time.Second)
	left, waitM := q.minute.room(now, q.limits.PerMinute, time.Minute)
	g := Grant{Limit: q.limits.PerMinute, Remaining: left, Wait: max(waitS, waitM)}
	if g.Wait > 0 {
		return g
	}
	q.second.take(now, q.limits.PerSecond, time.Second)
	q.minute.take(now, q.limits.PerMinute, time.Minute)
	g.OK = true
	g.Remaining--
	return g
}

// header sets the rate limit headers (X8). It writes to the map directly, because Set would change the spelling to
// Ratelimit.
func (g Grant) header(h http.Header) {
	h["X-RateLimit-Limit"] = []string{strconv.Itoa(g.Limit)}
	h["X-RateLimit-Remaining"] = []string{strconv.Itoa(g.Remaining)}
}
