package ratelimit

import (
	"context"
	_ "embed" // the scripts
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"fanfare/schemas"
)

// Level is one of the nested limits.
type Level uint8

// Levels, the outermost first.
const (
	LevelNone Level = iota
	LevelRoute
	LevelTenant
	LevelSender
	LevelCampaign
)

var levelNames = [...]string{"none", "route", "tenant", "sender", "campaign"}

// String returns the level in lower case.
func (l Level) String() string { return levelNames[l] }

// Set names the buckets that a message passes. It is comparable: what is leased is kept per Set.
type Set struct {
	Route, Tenant, Sender, Campaign string
	Lane                            schemas.Lane
}

// Rates are the limits of a [Set] in tokens per second. Route must be at least 1; 0 elsewhere: no limit of that level.
type Rates struct {
	Route, Tenant, Sender, Campaign uint32
	// Burst of the route in tokens; 0: 100 ms of Route. It is held between 20 and 100 ms of the rate.
	Burst uint32
}

// Request asks for tokens of one set.
type Request struct {
	Set   Set
	Rates Rates
	// Want is how many messages (or segments) wait.
	Want int
}

// Grant answers a [Request].
type Grant struct {
	// Tokens granted, 0..Want. They may be used from Ready on and before Until; later they are void.
	Tokens       int
	Ready, Until time.Time
	// Short is the level that had not enough for Want, LevelNone when none ran short.
	Short Level
	// Wait is how long until the short level has one token more.
	Wait time.Duration
	// Retry is how long to wait before asking again. It is at least Wait, long enough to be worth a call, and has
	// jitter. 0: ask at once.
	Retry time.Duration
}

// Config of a [Limiter].
type Config struct {
	Names schemas.Names
	// Instance tells this process from the others; unique among those that are alive.
	Instance string
	Logger   *slog.Logger
	Registry prometheus.Registerer // nil: no metrics
	// Now and Rand (0 <= r < 1) are time.Now and rand.Float64 unless a test says otherwise.
	Now  func() time.Time
	Rand func() float64
}

const (
	// maxBurst of a bucket in time: a carrier that measures a second must not see more than 10 % over the limit.
	maxBurst = 100 * time.Millisecond
	// minBurst covers the pause of an offset commit (5–6 ms on a real broker) and the scheduling of a busy machine.
	minBurst = 20 * time.Millisecond
	// ahead is how far a token is reserved. A message that would wait longer for a level below the route is better
	// dealt again.
	ahead = time.Second
	// beat is how often a process says that it takes tokens; the script forgets it after three.
	beat = time.Second
	// txnPause is the least wait of the transactional lane between calls: a message there must leave within
	// milliseconds.
	txnPause = 4 * time.Millisecond
	// leastFactor is the lowest factor of a throttled route: some messages must go on, because only an answer shows
	// that the carrier has recovered.
	leastFactor = 0.02
)

//go:embed take.lua
var takeScript string

//go:embed throttle.lua
var throttleScript string

// Limiter takes tokens from the buckets in Redis. It is safe for concurrent use.
type Limiter struct {
	cfg            Config
	rdb            redis.UniversalClient
	take, throttle *redis.Script
	metrics        *metrics
	state          *State

	mu     sync.Mutex
	leases map[Set]*lease
	routes map[string]*routeState
}

// lease has the tokens that one set has left over, and how many it used lately.
type lease struct {
	tokens int
	until  time.Time
	// used are the tokens used in the slice that began at since, before those used in the slice before it. A quick
	// stream of small requests leases as many in one call.
	used, before int
	since        time.Time
}

type routeState struct {
	beat    time.Time
	senders int
	// throttled is when the carrier throttled last, as far as this process knows; factor is the factor that followed.
	throttled time.Time
	factor    float64
	// dry is the time until which the route has no tokens, by lane.
	dry map[schemas.Lane]time.Time
}

// New returns a Limiter. It keeps no goroutine.
func New(rdb redis.UniversalClient, cfg Config) (*Limiter, error) {
	if rdb == nil || cfg.Logger == nil || cfg.Instance == "" {
		return nil, errors.New("rate limiter: a redis client, a logger and an instance are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Float64
	}
	return &Limiter{
		cfg: cfg, rdb: rdb, take: redis.NewScript(takeScript), throttle: redis.NewScript(throttleScript),
		metrics: newMetrics(cfg.Registry), state: NewState(cfg.Logger), leases: map[Set]*lease{}, routes: map[string]*routeState{},
	}, nil
}

// pace says how the burst of one route is divided between leases and the bucket.
type pace struct {
	hold  time.Duration // how old a lease may be when it is used
	slice time.Duration // how much of the rate one lease takes
}

func paceOf(r Rates) pace {
	burst := maxBurst
	if r.Burst > 0 {
		burst = time.Duration(float64(r.Burst) / float64(r.Route) * float64(time.Second))
		burst = max(minBurst, min(maxBurst, burst))
	}
	return pace{hold: burst / 2, slice: burst * 2 / 5}
}

// capacity of a bucket in Redis: the burst less what may be out on lease.
func (p pace) capacity(rate uint32) float64 {
	return max(1, float64(rate)*p.hold.Seconds())
}

// Take asks for the tokens of several sets of one lane of one route in one round trip and stores the answers in grants,
// which has the length of reqs. Requests are served in order. While Redis does not do what it is asked, for whatever
// reason, Take asks again with growing waits of up to 1 s; the log says so once for each [Condition]. The only errors
// are that ctx has ended and that the client was closed.
func (l *Limiter) Take(ctx context.Context, reqs []Request, grants []Grant) error {
	if len(reqs) != len(grants) {
		return fmt.Errorf("take tokens: %d requests, %d grants", len(reqs), len(grants))
	}
	open := make([]int, 0, len(reqs))
	now := l.cfg.Now()
	l.mu.Lock()
	for i := range reqs {
		if !l.local(now, reqs[i], &grants[i]) {
			open = append(open, i)
		}
	}
	l.mu.Unlock()
	for pause := 25 * time.Millisecond; len(open) > 0; pause = min(2*pause, time.Second) {
		var err error
		if open, err = l.call(ctx, reqs, grants, open); err == nil {
			continue
		}
		if errors.Is(err, redis.ErrClosed) {
			return fmt.Errorf("take tokens: %w", err)
		}
		if ctx.Err() == nil {
			l.failed(ctx, err)
		}
		if err := sleep(ctx, pause/2+time.Duration(l.cfg.Rand()*float64(pause/2))); err != nil {
			return fmt.Errorf("take tokens: %w", err)
		}
	}
	return nil
}

// Leased is [Limiter.Take] without a call to Redis: it answers from what is leased, or says that the route is dry when
// that is known. False: at least one request needs a call, and nothing was taken.
func (l *Limiter) Leased(reqs []Request, grants []Grant) bool {
	if len(reqs) != len(grants) {
		return false
	}
	now := l.cfg.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range reqs {
		if l.local(now, reqs[i], &grants[i]) {
			continue
		}
		for j := range i { // back where it came from
			if le := l.leases[reqs[j].Set]; le != nil {
				le.tokens += grants[j].Tokens
			}
		}
		return false
	}
	return true
}

// local answers from what is leased, or when the route is known to be dry. l.mu is held.
func (l *Limiter) local(now time.Time, r Request, g *Grant) bool {
	*g = Grant{}
	if r.Want <= 0 {
		return true
	}
	if r.Rates.Route == 0 {
		*g = Grant{Short: LevelRoute, Wait: ahead, Retry: ahead}
		return true
	}
	if le := l.leases[r.Set]; le != nil && le.tokens > 0 && now.Before(le.until) {
		n := min(le.tokens, r.Want)
		le.tokens -= n
		le.count(now, n, paceOf(r.Rates).slice)
		*g = Grant{Tokens: n, Ready: now, Until: le.until}
		return true
	}
	if st := l.routes[r.Set.Route]; st != nil {
		if dry := st.dry[r.Set.Lane].Sub(now); dry > 0 {
			*g = Grant{Short: LevelRoute, Wait: dry, Retry: dry}
			return true
		}
	}
	return false
}

// count notes n tokens used.
func (le *lease) count(now time.Time, n int, slice time.Duration) {
	if gone := now.Sub(le.since); gone >= slice {
		le.before = le.used
		if gone >= 2*slice {
			le.before = 0
		}
		le.used, le.since = 0, now
	}
	le.used += n
}

// call makes one round trip for the requests in open and returns those still without an answer, with the error that
// kept it away.
func (l *Limiter) call(ctx context.Context, reqs []Request, grants []Grant, open []int) ([]int, error) {
	type sent struct {
		cmd  *redis.Cmd
		keys []string
		args []any
	}
	cmds := make([]sent, len(open))
	started := l.cfg.Now()
	pipe := l.rdb.Pipeline()
	for i, n := range open {
		keys, args := l.script(started, reqs[n], len(open))
		cmds[i] = sent{l.take.EvalSha(ctx, pipe, keys, args...), keys, args}
	}
	_, err := pipe.Exec(ctx)
	if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
		err = nil // seen below, per command
	}
	l.metrics.calls.Add(float64(len(open)))
	now := l.cfg.Now()
	var left []int
	for i, n := range open {
		answer, cmdErr := cmds[i].cmd.Int64Slice()
		if cmdErr != nil && redis.HasErrorPrefix(cmdErr, "NOSCRIPT") {
			l.metrics.calls.Inc()
			answer, cmdErr = l.take.Eval(ctx, l.rdb, cmds[i].keys, cmds[i].args...).Int64Slice()
			now = l.cfg.Now()
		}
		if cmdErr == nil && len(answer) != 5 {
			cmdErr = fmt.Errorf("script answered %d numbers, want 5", len(answer))
		}
		if cmdErr != nil {
			left, err = append(left, n), cmdErr
			continue
		}
		l.mu.Lock()
		l.answer(now, reqs[n], &grants[n], answer)
		l.mu.Unlock()
	}
	if len(left) == 0 {
		l.works(ctx)
		return nil, nil
	}
	return left, err
}

// script returns the keys and arguments of one request; share is how many sets ask at once.
func (l *Limiter) script(now time.Time, r Request, share int) (keys []string, args []any) {
	p := paceOf(r.Rates)
	l.mu.Lock()
	defer l.mu.Unlock()
	want := r.Want
	if le := l.leases[r.Set]; le != nil && now.Sub(le.since) < 2*p.slice {
		want = max(want, le.before, le.used)
	}
	instance := ""
	st := l.route(r.Set.Route)
	if st.beat.IsZero() || now.Sub(st.beat) >= beat || now.Before(st.beat) {
		st.beat, instance = now, l.cfg.Instance
	}
	base := l.cfg.Names.Prefix() + "rate:{" + r.Set.Route + "}"
	lane := "b"
	if r.Set.Lane == schemas.LaneTxn {
		lane = "t"
	}
	keys = append(make([]string, 0, 5), base)
	args = append(make([]any, 0, 13), lane, want, (p.slice / time.Duration(share)).Microseconds(), instance, ahead.Microseconds(),
		r.Rates.Route, formatFloat(p.capacity(r.Rates.Route)))
	level := func(rate uint32, key string) {
		if rate > 0 {
			keys = append(keys, base+key)
			args = append(args, rate, formatFloat(p.capacity(rate)))
		}
	}
	level(r.Rates.Tenant, ":tenant:"+r.Set.Tenant)
	level(r.Rates.Sender, ":sender:"+r.Set.Tenant+"/"+r.Set.Sender)
	level(r.Rates.Campaign, ":campaign:"+r.Set.Tenant+"/"+r.Set.Campaign)
	return append(keys, base+":live"), args
}

func formatFloat(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// answer turns what the script said into a grant. l.mu is held.
func (l *Limiter) answer(now time.Time, r Request, g *Grant, a []int64) {
	p := paceOf(r.Rates)
	granted, ready, wait := int(a[0]), time.Duration(a[1])*time.Microsecond, time.Duration(a[3])*time.Microsecond
	st := l.route(r.Set.Route)
	st.senders = int(a[4])
	l.metrics.tokens.WithLabelValues(string(r.Set.Lane)).Add(float64(granted))

	le := l.leases[r.Set]
	if le == nil {
		l.forget(now)
		le = &lease{since: now}
		l.leases[r.Set] = le
	}
	*g = Grant{Tokens: min(granted, r.Want), Ready: now.Add(ready), Until: now.Add(ready + p.hold)}
	le.tokens, le.until = granted-g.Tokens, g.Until
	le.count(now, g.Tokens, p.slice)

	if a[2] == 0 || g.Tokens == r.Want {
		return
	}
	g.Short, g.Wait = r.Rates.level(int(a[2])), wait
	pause := p.slice / 4
	if r.Set.Lane == schemas.LaneTxn {
		pause = txnPause
	}
	g.Retry = max(wait, pause) + time.Duration(l.cfg.Rand()*float64(pause))
	l.metrics.denied.WithLabelValues(g.Short.String()).Inc()
	if g.Short == LevelRoute {
		st.dry[r.Set.Lane] = now.Add(g.Retry)
	}
}

// Of returns the limit of a level, 0 of none.
func (r Rates) Of(level Level) uint32 {
	switch level {
	case LevelRoute:
		return r.Route
	case LevelTenant:
		return r.Tenant
	case LevelSender:
		return r.Sender
	case LevelCampaign:
		return r.Campaign
	default:
		return 0
	}
}

// level names the n-th bucket of a call, 1 and up.
func (r Rates) level(n int) Level {
	for level := LevelRoute; level <= LevelCampaign; level++ {
		if r.Of(level) == 0 {
			continue
		}
		if n--; n == 0 {
			return level
		}
	}
	return LevelNone
}

// maxLeases bounds the memory of sets: beyond it, those that were not used for a second are forgotten.
const maxLeases = 10_000

func (l *Limiter) forget(now time.Time) {
	if len(l.leases) < maxLeases {
		return
	}
	for set, le := range l.leases {
		if now.Sub(le.since) > time.Second {
			delete(l.leases, set)
		}
	}
}

func (l *Limiter) route(name string) *routeState {
	st := l.routes[name]
	if st == nil {
		st = &routeState{senders: 1, dry: map[schemas.Lane]time.Time{}}
		l.routes[name] = st
	}
	return st
}

// Put gives back tokens of a grant that were not used; the next request for the same set before until gets them.
func (l *Limiter) Put(set Set, tokens int, until time.Time) {
	if tokens <= 0 || !l.cfg.Now().Before(until) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	le := l.leases[set]
	if le == nil {
		return
	}
	if le.tokens == 0 || until.Before(le.until) {
		le.until = until
	}
	le.tokens += tokens
}

// Senders returns how many processes took tokens of a route lately, this one included; at least 1.
func (l *Limiter) Senders(route string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if st := l.routes[route]; st != nil {
		return max(1, st.senders)
	}
	return 1
}

// Throttled tells all processes that the carrier of a route asked to slow down: the rate is halved, at most once a
// second, and climbs back by 5 % of the full rate a second. What is leased in this process is void. It returns the
// factor that now holds. All complaints of one second are one, and only the first makes a call.
func (l *Limiter) Throttled(ctx context.Context, route string) (factor float64, err error) {
	now := l.cfg.Now()
	l.mu.Lock()
	st := l.route(route)
	if since := now.Sub(st.throttled); st.factor > 0 && since >= 0 && since < time.Second {
		defer l.mu.Unlock()
		return st.factor, nil
	}
	before := st.throttled
	st.throttled, st.factor = now, max(st.factor, leastFactor)
	for set, le := range l.leases {
		if set.Route == route {
			le.tokens = 0
		}
	}
	l.mu.Unlock()
	n, err := l.throttle.Run(ctx, l.rdb, []string{l.cfg.Names.Prefix() + "rate:{" + route + "}"}, leastFactor).Int64()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		st.throttled = before
		return 0, fmt.Errorf("throttle route %s: %w", route, err)
	}
	st.factor = float64(n) / 1000
	l.metrics.throttled.Inc()
	return st.factor, nil
}

// Available reports whether Redis answered the last call.
func (l *Limiter) Available() bool { return l.state.Ready() }

func (l *Limiter) failed(ctx context.Context, err error) {
	if l.state.Failed(ctx, err) {
		l.metrics.away.Set(1)
	}
}

func (l *Limiter) works(ctx context.Context) {
	if l.state.OK(ctx) {
		l.metrics.away.Set(0)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
