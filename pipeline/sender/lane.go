package sender

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"fanfare/pipeline/ratelimit"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// item is a [stream.Item]: what a window released.
type item interface {
	Begin() bool
	Deadline() time.Time
	Settle(outcome *kgo.Record)
	Late(outcome *kgo.Record)
}

var _ item = (*stream.Item)(nil)

// publisher is the window's way to publish what must be acknowledged before an outcome.
type publisher interface {
	Produce(ctx context.Context, recs ...*kgo.Record) error
}

// entry is one message between its release and its outcome.
type entry struct {
	item     item
	rec      *kgo.Record
	id       schemas.ID
	released time.Time
	// uncertain: only to be reported.
	uncertain bool
	msg       *fanfarev1.Message // nil: poison, for the reason in cause
	cause     error
}

func (e *entry) subject() subject {
	return subject{msg: e.msg, uncertain: e.uncertain, guard: e.item.Deadline(), released: e.released}
}

// lane brings the messages of one lane of a route from their window to the carrier. One goroutine decides (loop); one asks for
// tokens, one hands over, one publishes what must be acknowledged before an outcome: each of those may have to wait.
type lane struct {
	*core
	lane    schemas.Lane
	window  publisher
	metrics *laneMetrics

	mu    sync.Mutex // of what other goroutines bring
	inbox [][]*entry
	back  []*entry // begun nothing, wait again
	wake  chan struct{}

	// Of loop alone.
	arrived []*entry // not looked at yet
	waiting []*entry // for what judge waits for
	queues  map[ratelimit.Set]*queue
	last    *queue // of the message before
	ready   []*run // hold tokens, in the order of their time
	asking  bool
	dirty   bool      // the control plane has changed since everything was judged last
	judged  time.Time // when that was
	peeked  time.Time // when those that wait were judged last
	gauged  time.Time

	asks    chan ask
	answers chan ask
	runs    chan *run

	flights flights
	writer  *writer
	ferry   *ferry // nil when the carrier echoes our id
}

const (
	// peekEvery is how often what waits for the control view, a guard or its not_before is judged again.
	peekEvery = 20 * time.Millisecond
	// judgeEvery is how often everything that waits for tokens is judged again when nothing has changed, and judgePause the least
	// time between two rounds of a burst of changes. A message is judged before it is handed over in any case: this is for
	// those that are to be given back.
	judgeEvery = 250 * time.Millisecond
	judgePause = 5 * time.Millisecond
)

func newLane(c *core, name schemas.Lane) *lane {
	l := &lane{
		core: c, lane: name, metrics: c.metrics.lane(c.name, name), wake: make(chan struct{}, 1), queues: map[ratelimit.Set]*queue{},
		asks: make(chan ask, 1), answers: make(chan ask, 1), runs: make(chan *run),
	}
	l.writer = newWriter(l)
	if c.rendezvous != nil {
		l.ferry = newFerry(l)
	}
	return l
}

// Release implements [stream.Releaser].
func (l *lane) Release(items []*stream.Item) {
	now := l.now()
	slab := make([]entry, len(items))
	batch := make([]*entry, len(items))
	for i, it := range items {
		slab[i] = entry{item: it, rec: it.Record, uncertain: it.Uncertain, released: now}
		batch[i] = &slab[i]
	}
	l.release(batch)
}

func (l *lane) release(batch []*entry) {
	l.mu.Lock()
	l.inbox = append(l.inbox, batch)
	l.mu.Unlock()
	l.signal()
}

// giveBack returns what was not begun to those that wait, in front of them.
func (l *lane) giveBack(entries []*entry) {
	if len(entries) == 0 {
		return
	}
	l.mu.Lock()
	l.back = append(l.back, entries...)
	l.mu.Unlock()
	l.signal()
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default: // it has not woken from the last one yet
	}
}

// run works until ctx ends, which is after the window has ended: while the window drains, answers still come in.
func (l *lane) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.loop(ctx) })
	g.Go(func() error { return l.askForTokens(ctx) })
	g.Go(func() error { return l.handOverRuns(ctx) })
	g.Go(func() error { return l.writer.run(ctx) })
	if l.ferry != nil {
		g.Go(func() error { return l.ferry.run(ctx) })
	}
	return g.Wait()
}

func (l *lane) loop(ctx context.Context) error {
	timer := time.NewTimer(peekEvery)
	defer timer.Stop()
	for {
		changed := l.view.Changed() // before reading, or a change is missed
		now := l.now()
		o := l.outlook(now)
		l.admit(&o)
		next := l.flights.reap(now)
		l.request(now)
		l.gauge(now)

		var runs chan *run
		var first *run
		if len(l.ready) > 0 {
			if first = l.ready[0]; now.Before(first.ready) {
				next = earlier(next, first.ready)
			} else {
				runs = l.runs
			}
		}
		timer.Reset(l.nextLook(next, runs != nil).Sub(now))
		var more <-chan struct{}
		if len(l.arrived) > 0 {
			more = always
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		case <-l.wake:
		case <-timer.C:
		case <-changed:
			l.dirty = true
		case a := <-l.answers:
			l.granted(a)
		case runs <- first:
			l.ready = l.ready[1:]
		}
	}
}

// always is a channel that is always ready.
var always = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// idle is how long a lane sleeps when nothing waits.
const idle = time.Second

// nextLook returns when the loop has something to do by itself, next being what it knows already.
func (l *lane) nextLook(next time.Time, due bool) time.Time {
	at := earlier(next, l.peeked.Add(idle))
	if len(l.waiting) > 0 {
		at = earlier(at, l.peeked.Add(peekEvery))
	}
	if l.dirty {
		at = earlier(at, l.judged.Add(judgePause))
	}
	for _, q := range l.queues {
		if len(q.entries) > 0 {
			at = earlier(at, l.judged.Add(judgeEvery))
			if !l.asking && !due {
				at = earlier(at, q.notBefore)
			}
		}
	}
	return at
}

// earlier returns the earlier of two times; the zero time is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) && !b.IsZero() {
		return b
	}
	return a
}

// admitAtOnce is how many new messages are looked at before those in front of them are handed over: the two go on at the same
// time then.
const admitAtOnce = 256

// admit judges what is new, what came back, and at times what waits.
func (l *lane) admit(o *outlook) {
	l.mu.Lock()
	inbox, back := l.inbox, l.back
	l.inbox, l.back = nil, nil
	l.mu.Unlock()
	if len(back) > 0 || l.dirty && o.now.Sub(l.judged) >= judgePause || o.now.Sub(l.judged) >= judgeEvery {
		l.judgeAll(o, back)
	} else if o.now.Sub(l.peeked) >= peekEvery {
		waiting := l.waiting
		l.waiting, l.peeked = nil, o.now
		for _, e := range waiting {
			l.judge(o, e)
		}
	}
	for _, batch := range inbox {
		l.arrived = append(l.arrived, batch...)
	}
	batch := l.arrived[:min(len(l.arrived), admitAtOnce)]
	if l.arrived = l.arrived[len(batch):]; len(l.arrived) == 0 {
		l.arrived = nil
	}
	sheets := make([]sheet, len(batch))
	for i, e := range batch {
		e.msg, e.id, e.cause = decode(l.keys, l.name, e.rec, &sheets[i])
		l.judge(o, e)
	}
}

// judgeAll judges everything that waits, for whatever, in the order of release.
func (l *lane) judgeAll(o *outlook, back []*entry) {
	l.dirty, l.judged, l.peeked = false, o.now, o.now
	all := append(back, l.waiting...)
	impatient := o.now.Add(-patience(l.route()))
	for set, q := range l.queues {
		for _, e := range q.entries {
			if q.short > ratelimit.LevelRoute && e.released.Before(impatient) {
				l.settle(e, returned(fanfarev1.Code_CODE_RATE, later(o.now, q.notBefore)), false)
				continue
			}
			all = append(all, e)
		}
		q.entries = nil
		if q.debt == 0 && !o.now.Before(q.notBefore) {
			delete(l.queues, set)
		}
	}
	l.waiting, l.last = nil, nil
	slices.SortStableFunc(all, func(a, b *entry) int { return a.released.Compare(b.released) })
	for _, e := range all {
		l.judge(o, e)
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// judge puts a message where it belongs: among those that wait, in a queue for tokens, or out with its outcome.
func (l *lane) judge(o *outlook, e *entry) {
	switch v := l.verdict(o, e); v.action {
	case wait:
		l.waiting = append(l.waiting, e)
	case answer:
		l.settle(e, v, false)
	default:
		q := l.queue(e.msg)
		q.entries = append(q.entries, e)
	}
}

// verdict is [judge], and what concerns the route.
func (l *lane) verdict(o *outlook, e *entry) verdict {
	s := e.subject()
	v := judge(o, &s)
	if v.action == submit {
		v = l.passable(e, o.now)
	}
	return v
}

// passable asks what concerns the route as a whole: is it open, and may this message go this way.
func (l *lane) passable(e *entry, now time.Time) verdict {
	if !l.route().GetEnabled() {
		return returned(fanfarev1.Code_CODE_BREAKER, now.Add(closedAgain))
	}
	if open, again := l.breaker.open(now); open {
		return returned(fanfarev1.Code_CODE_BREAKER, again)
	}
	if e.msg.GetTest() && l.test == nil { // a test must not reach a person
		return notSent(fanfarev1.Code_CODE_NOT_SENT_OTHER, "test_on_live_route")
	}
	return verdict{action: submit}
}

// closedAgain is when messages of a route that is switched off are dealt again at the earliest.
const closedAgain = time.Minute

// settle gives a message its outcome. begun: it was handed over, or tried to be.
func (l *lane) settle(e *entry, v verdict, begun bool) {
	if v.poison || e.id.IsZero() {
		l.writer.add(task{entry: e, verdict: v})
		return
	}
	if v.kind == fanfarev1.Kind_KIND_RETURNED && l.single(e.msg) {
		// What it is held by must be durable before anybody reads that it was returned. From here on it must not be handed over
		// by a successor of this process, which might find it untouched: so it counts as begun.
		if !begun && !e.item.Begin() {
			l.metrics.forgotten.Inc()
			return
		}
		l.writer.add(task{entry: e, verdict: v})
		return
	}
	e.item.Settle(l.record(e, &v))
}

// single reports whether a message is a single send, which no chunk can make again.
func (l *lane) single(m *fanfarev1.Message) bool {
	if c := l.view.Campaign(m.GetCampaignId()); c != nil {
		return c.GetHidden()
	}
	return l.lane == schemas.LaneTxn
}

// record returns the record of an outcome and counts it.
func (l *lane) record(e *entry, v *verdict) *kgo.Record {
	out := &kgo.Record{}
	l.recordInto(out, make([]kgo.RecordHeader, 0, outcomeHeaders), e, v, l.now())
	return out
}

// recordInto is record, in memory of the caller's.
func (l *lane) recordInto(out *kgo.Record, h []kgo.RecordHeader, e *entry, v *verdict, now time.Time) {
	m := e.msg
	if m == nil {
		m = ghost(l.name, e.rec, e.id)
	}
	l.scribe.outcome(out, h, e.rec, m, e.id, v, now)
	l.metrics.outcome(v.kind, v.code)
}

// outlook is what holds now.
func (l *lane) outlook(now time.Time) outlook {
	fresh := now.Add(min(maxViewAge-l.view.Age(), maxOptOutAge-l.view.SuppressionsAge()))
	return outlook{now: now, fresh: fresh, dir: l.view}
}

// gaugeEvery is how often what waits is counted.
const gaugeEvery = 100 * time.Millisecond

// gauge shows what waits.
func (l *lane) gauge(now time.Time) {
	if now.Sub(l.gauged) < gaugeEvery {
		return
	}
	l.gauged = now
	queued, oldest := len(l.waiting), now
	for _, e := range l.waiting {
		oldest = earlier(oldest, e.released)
	}
	for _, q := range l.queues {
		queued += len(q.entries)
		if len(q.entries) > 0 {
			oldest = earlier(oldest, q.entries[0].released)
		}
	}
	l.metrics.waiting.Set(float64(queued))
	l.metrics.oldest.Set(now.Sub(oldest).Seconds())
	l.metrics.backlog.Set(float64(queued) / float64(max(1, l.route().GetRate())))
}
