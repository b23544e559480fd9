package sender

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"fanfare/pipeline/ratelimit"
	"fanfare/pipeline/stream"
	"fanfare/pipeline/window"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/wire"
)

// item is one record that the window has released; [window.Item] implements it.
type item interface {
	Begin() bool
	Return() bool
	Deadline() time.Time
	Settle(outcome *kgo.Record)
	Late(outcome *kgo.Record)
	// These are for doubts that can be ended; see doubt.go.
	Doubt(outcome *kgo.Record) bool
	Doubted() bool
	BeginAgain() bool
	Clear() bool
	Crowded() bool
}

var _ item = (*window.Item)(nil)

// publisher publishes records that Kafka must acknowledge before an outcome is written; [window.Window] implements it.
type publisher interface {
	Produce(ctx context.Context, recs ...*kgo.Record) error
}

// entry is one message from its release by the window to its outcome.
type entry struct {
	item     item
	rec      *kgo.Record
	id       schemas.ID
	released time.Time
	// uncertain: an earlier owner may have handed it over.
	uncertain bool
	doubt     *doubt             // not nil: it may have been handed over, and the lane finds out
	msg       *fanfarev1.Message // nil when the record is poison
	cause     error              // why it is poison
}

func (e *entry) candidate() candidate {
	return candidate{msg: e.msg, uncertain: e.uncertain, guard: e.item.Deadline(), released: e.released}
}

// lane takes the messages of one lane of a route from the window to the carrier. Its goroutines: loop decides;
// askForTokens, handOverBatches, askCarrier, the writer and the indexer make the calls that may block (Redis, the
// carrier, Kafka).
type lane struct {
	*routeSender
	lane    schemas.Lane
	window  publisher
	metrics *laneMetrics

	mu    sync.Mutex // guards the fields by which other goroutines pass messages to loop
	inbox [][]*entry // released by the window
	back  []*entry   // tokens or deadline ran out before the hand-over; they wait again
	open  []news     // about hand-overs in doubt
	wake  chan struct{}

	// Used by loop alone.
	arrived []*entry // not decoded yet
	waiting []*entry // judge said wait
	queues  map[ratelimit.Set]*queue
	last    *queue       // the queue of the previous message
	ready   []*paidBatch // batches that hold their tokens, in the order of their times
	asking  bool         // a token request is on its way
	dirty   bool         // the control plane has changed since the waiting messages were last judged
	judged  time.Time    // when that was
	stale   bool         // the control plane has changed since the messages at the connector were last judged
	checked time.Time    // when that was
	peeked  time.Time    // when the waiting ones were judged last
	gauged  time.Time    // when the gauges were set last

	blocked atomic.Int64 // messages that wait for tokens of a level below the route

	doubts doubts // hand-overs in doubt; used by loop alone

	forgedLogged time.Time // when a forged record was logged last

	requests chan tokenRequest
	answers  chan tokenRequest
	batches  chan *paidBatch
	asked    chan question

	flights flights
	gate    sendGate
	writer  *writer
	indexer *idIndexer // nil when the carrier echoes our id
}

const (
	// peekEvery is how often messages that wait for the control view, the guard or their not_before are judged again.
	peekEvery = 20 * time.Millisecond
	// judgeEvery is how often messages that wait for tokens are judged again when nothing has changed; judgePause is
	// the least time between two such rounds while the control plane changes often. Every message is judged again right
	// before its hand-over in any case: these rounds find the messages that must be returned.
	judgeEvery = 250 * time.Millisecond
	judgePause = 5 * time.Millisecond
)

func newLane(c *routeSender, name schemas.Lane) *lane {
	l := &lane{
		routeSender: c, lane: name, metrics: c.metrics.lane(c.name, name), wake: make(chan struct{}, 1), queues: map[ratelimit.Set]*queue{},
		requests: make(chan tokenRequest, 1), answers: make(chan tokenRequest, 1), batches: make(chan *paidBatch),
		asked: make(chan question, 1),
	}
	l.writer = newWriter(l)
	if c.rendezvous != nil {
		l.indexer = newIDIndexer(l)
	}
	return l
}

// Release implements [window.Releaser].
func (l *lane) Release(items []*window.Item) {
	now := l.now()
	slab := make([]entry, len(items))
	batch := make([]*entry, len(items))
	for i, it := range items {
		slab[i] = entry{item: it, rec: it.Record, id: it.ID, uncertain: it.Uncertain(), released: now}
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

// giveBack puts messages that were not handed over back into the queues, in front of those that wait.
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
	default: // a wake-up is pending already
	}
}

// run works until ctx ends. The caller ends it after the window: while the window drains, the carrier still answers.
func (l *lane) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.loop(ctx) })
	g.Go(func() error { return l.askForTokens(ctx) })
	g.Go(func() error { return l.handOverBatches(ctx) })
	g.Go(func() error { return l.askCarrier(ctx) })
	g.Go(func() error { return l.writer.run(ctx) })
	if l.indexer != nil {
		g.Go(func() error { return l.indexer.run(ctx) })
	}
	return g.Wait()
}

func (l *lane) loop(ctx context.Context) error {
	timer := time.NewTimer(peekEvery)
	defer timer.Stop()
	for {
		changed := l.view.Changed() // take it before reading, or a change may be missed
		now := l.now()
		o := l.policyContext(now)
		l.admit(&o)
		l.withdraw(&o)
		next := l.flights.reap(now)
		next = earlier(next, l.resolve(&o))
		l.request(now)
		l.countBlocked(now)
		l.gauge(now)

		var batches chan *paidBatch
		var first *paidBatch
		if len(l.ready) > 0 {
			if first = l.ready[0]; now.Before(first.ready) {
				next = earlier(next, first.ready)
			} else {
				batches = l.batches
			}
		}
		timer.Reset(l.nextLook(next, batches != nil).Sub(now))
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
			l.dirty, l.stale = true, true
		case a := <-l.answers:
			l.granted(a)
		case batches <- first:
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

// idle is how long a lane sleeps when no message waits.
const idle = time.Second

// nextLook returns when the loop must next run without a wake-up. next is the earliest such time that the caller knows
// already.
func (l *lane) nextLook(next time.Time, due bool) time.Time {
	at := earlier(next, l.peeked.Add(idle))
	if len(l.waiting) > 0 {
		at = earlier(at, l.peeked.Add(peekEvery))
	}
	if l.dirty {
		at = earlier(at, l.judged.Add(judgePause))
	}
	if l.flights.any() {
		pause := withdrawEvery
		if l.stale {
			pause = judgePause
		}
		at = earlier(at, l.checked.Add(pause))
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

// admitAtOnce is how many new messages are decoded before loop looks at the hand-over again, so that both go on at the
// same time.
const admitAtOnce = 256

// admit judges the new messages, those that were put back, and from time to time those that wait.
func (l *lane) admit(o *policyContext) {
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
	bufs := make([]wire.MessageBuf, len(batch))
	for i, e := range batch {
		l.read(e, &bufs[i])
		l.judge(o, e)
	}
}

// read decodes a message. A record whose id is missing or forged is poison without an id: it becomes a dead letter, and
// no outcome is written, because the outcome would name a message that may have nothing to do with the record.
func (l *lane) read(e *entry, buf *wire.MessageBuf) {
	if e.id.IsZero() { // the window has verified the others
		if e.id, e.cause = identify(l.keys, e.rec); e.cause != nil {
			if errors.Is(e.cause, errForged) {
				l.forged(e)
			}
			return
		}
	}
	e.msg, e.cause = decode(e.id, l.name, e.rec, buf)
}

// forgedEvery is the least time between two log lines about forged records: their writer must not be able to flood the
// log.
const forgedEvery = 10 * time.Second

func (l *lane) forged(e *entry) {
	l.metrics.forged.Inc()
	if now := l.now(); now.Sub(l.forgedLogged) >= forgedEvery {
		l.forgedLogged = now
		l.logger.Error("forged message refused: its submission id is not signed by our keys; find out who writes to the topic", stream.Position(e.rec)...)
	}
}

// judgeAll judges every message that waits, in the order of release.
func (l *lane) judgeAll(o *policyContext, back []*entry) {
	l.dirty, l.judged, l.peeked = false, o.now, o.now
	all := append(back, l.waiting...)
	impatient := o.now.Add(-patience(l.route()))
	for set, q := range l.queues {
		for _, e := range q.entries {
			if e.doubt == nil && q.short > ratelimit.LevelRoute && e.released.Before(impatient) {
				l.settle(e, returned(schemas.CodeRate, later(o.now, q.notBefore)), false)
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

// judge puts a message among those that wait or into a queue for tokens, or writes its outcome.
func (l *lane) judge(o *policyContext, e *entry) {
	if e.doubt != nil {
		l.judgeDoubt(o, e)
		return
	}
	switch v := l.verdict(o, e); v.action {
	case wait:
		l.waiting = append(l.waiting, e)
	case answer:
		if v.kind == schemas.KindAmbiguous {
			l.doubtOrSettle(e, v, e.rec.Timestamp)
			return
		}
		l.settle(e, v, false)
	default:
		q := l.queue(e.msg)
		q.entries = append(q.entries, e)
	}
}

// verdict is [judge], followed by the checks of the route.
func (l *lane) verdict(o *policyContext, e *entry) verdict {
	s := e.candidate()
	v := judge(o, &s)
	if v.action == submit {
		if route := l.passable(e, o.now); route.action != submit {
			return route
		}
	}
	return v
}

// passable checks the route as a whole: whether it is open, and whether this message may use it.
func (l *lane) passable(e *entry, now time.Time) verdict {
	if !l.route().GetEnabled() {
		return returned(schemas.CodeBreaker, now.Add(closedAgain))
	}
	if open, again := l.breaker.open(now); open {
		return returned(schemas.CodeBreaker, again)
	}
	if e.msg.GetTest() && l.test == nil { // a test must not reach a person
		return notSent(schemas.CodeNotSentOther, "test_on_live_route")
	}
	return verdict{action: submit}
}

// closedAgain is the wait before messages of a disabled route may be dealt again.
const closedAgain = time.Minute

// settle writes the outcome of a message. begun: its item was begun, so a hand-over was at least tried.
func (l *lane) settle(e *entry, v verdict, begun bool) {
	if v.poison || e.id.IsZero() {
		l.writer.add(task{entry: e, verdict: v})
		return
	}
	if v.kind == schemas.KindReturned && l.single(e.msg) {
		// The record in `held` must be durable before the scheduler reads the return. Begin keeps the next owner of the
		// partition from handing the message over, too: without it that owner would find the message untouched.
		if !begun && !e.item.Begin() {
			l.metrics.forgotten.Inc()
			return
		}
		l.writer.add(task{entry: e, verdict: v})
		return
	}
	e.item.Settle(l.record(e, &v))
}

// single reports whether a message is a single send: no chunk can produce it again, so a return must keep it in `held`.
func (l *lane) single(m *fanfarev1.Message) bool {
	if c := l.view.Campaign(m.GetCampaignId()); c != nil {
		return c.GetHidden()
	}
	return l.lane == schemas.LaneTxn
}

// record returns the record of an outcome, and counts the outcome.
func (l *lane) record(e *entry, v *verdict) *kgo.Record {
	out := &kgo.Record{}
	l.recordInto(out, make([]kgo.RecordHeader, 0, outcomeHeaders), e, v, l.now())
	return out
}

// recordInto is like record, but uses memory that the caller provides.
func (l *lane) recordInto(out *kgo.Record, h []kgo.RecordHeader, e *entry, v *verdict, now time.Time) {
	m := e.msg
	if m == nil {
		m = placeholder(l.name, e.rec, e.id)
	}
	l.outcomes.outcome(out, h, e.rec, m, e.id, v, now)
	l.metrics.outcome(v.kind, v.code)
}

// policyContext returns what [judge] needs to know beside the message.
func (l *lane) policyContext(now time.Time) policyContext {
	fresh := now.Add(min(maxViewAge-l.view.Age(), maxOptOutAge-l.view.SuppressionsAge()))
	return policyContext{now: now, fresh: fresh, dir: l.view}
}

// countBlocked counts the messages that a limit of their tenant, sender or campaign holds back. The window declares
// past them; those that only wait for the route must not count, or everything would be declared while the route is
// slow.
func (l *lane) countBlocked(now time.Time) {
	n := 0
	for _, q := range l.queues {
		if q.short > ratelimit.LevelRoute || q.narrow() && now.Before(q.notBefore) {
			n += len(q.entries)
		}
	}
	for _, b := range l.ready { // tokens that are reserved ahead of time
		if b.narrow && now.Before(b.ready) {
			n += len(b.entries)
		}
	}
	l.blocked.Store(int64(n))
}

// gaugeEvery is how often the gauges are set.
const gaugeEvery = 100 * time.Millisecond

// gauge sets the gauges of the messages that wait.
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
