package api

import (
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Limits are how many requests one API key may make (X8), counted by each process for itself.
type Limits struct {
	PerSecond int // default 50
	PerMinute int // default 1,000
}

// over takes what l does not say from below.
func (l Limits) over(below Limits) Limits {
	if l.PerSecond <= 0 {
		l.PerSecond = below.PerSecond
	}
	if l.PerMinute <= 0 {
		l.PerMinute = below.PerMinute
	}
	return l
}

// quota counts the requests of one key: two buckets that fill evenly, so a client that keeps to its rate never waits, and one
// that was away may send a second's, or a minute's, worth at once.
type quota struct {
	mu     sync.Mutex
	limits Limits
	second bucket
	minute bucket
}

// bucket holds the time at which it was last empty (GCRA): what it has now follows from the clock alone.
type bucket struct{ tat time.Time }

// room returns how many requests of the given size fit at now, and when the next one does if none.
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

// grant is the answer to one request.
type grant struct {
	ok        bool
	limit     int // of the minute
	remaining int // of the minute
	wait      time.Duration
}

// take asks for one request at now.
func (q *quota) take(now time.Time) grant {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, waitS := q.second.room(now, q.limits.PerSecond, time.Second)
	left, waitM := q.minute.room(now, q.limits.PerMinute, time.Minute)
	g := grant{limit: q.limits.PerMinute, remaining: left, wait: max(waitS, waitM)}
	if g.wait > 0 {
		return g
	}
	q.second.take(now, q.limits.PerSecond, time.Second)
	q.minute.take(now, q.limits.PerMinute, time.Minute)
	g.ok = true
	g.remaining--
	return g
}

// header says the limit and what is left of it. The names go out as X8 writes them, which Set would spell Ratelimit.
func (g grant) header(h http.Header) {
	h["X-RateLimit-Limit"] = []string{strconv.Itoa(g.limit)}
	h["X-RateLimit-Remaining"] = []string{strconv.Itoa(g.remaining)}
}
