package sender

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
	"fanfare/schemas/trace"
	"fanfare/sinks/carrier"
)

// handOverBatches hands over the batches that hold their tokens, one at a time.
func (l *lane) handOverBatches(ctx context.Context) error {
	defer l.gate.close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-l.batches:
			l.handOver(ctx, r)
		}
	}
}

// handOver judges every message once more, because waiting for the tokens took time, and gives those that pass to the
// carrier in batches of the carrier's size. Messages whose tokens expired, because the carrier's window was full for
// too long, go back.
func (l *lane) handOver(ctx context.Context, r *paidBatch) {
	for len(r.entries) > 0 {
		now := l.now()
		if !now.Before(r.until) {
			l.metrics.expired.Add(float64(len(r.entries)))
			l.giveBack(r.entries)
			return
		}
		most := max(1, l.caps.MaxBatch)
		report, err := l.breaker.allow()
		switch {
		case errors.Is(err, errProbing): // another batch is testing whether the carrier answers again
			l.limiter.Put(r.set, len(r.entries), r.until)
			l.pauseThenGiveBack(ctx, r.entries)
			return
		case err != nil: // the breaker is open; handOverBatch returns the messages
			report = func(error) {}
		case l.breaker.probing():
			most = 1
		}
		n := min(most, len(r.entries))
		sent := l.handOverBatch(ctx, now, r.entries[:n], report)
		r.entries = r.entries[n:]
		if unused := n - sent; unused > 0 {
			l.limiter.Put(r.set, unused, r.until)
		}
	}
}

// probePause is how long other batches wait while one batch tests whether the carrier answers again.
const probePause = 50 * time.Millisecond

func (l *lane) pauseThenGiveBack(ctx context.Context, entries []*entry) {
	t := time.NewTimer(probePause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	l.giveBack(entries)
}

// handOverBatch hands over the messages of a batch that may still be handed over, and returns their number.
func (l *lane) handOverBatch(ctx context.Context, now time.Time, entries []*entry, report func(error)) int {
	o := l.policyContext(now)
	live, test := newFlight(l, l.live, len(entries), now), (*flight)(nil)
	var back []*entry
	for _, e := range entries {
		switch v := l.verdict(&o, e); v.action {
		case answer:
			if e.doubt != nil {
				back = append(back, e)
				continue
			}
			l.settle(e, v, false)
		case wait:
			back = append(back, e)
		default:
			if e.doubt != nil {
				if !e.item.BeginAgain() {
					l.tell(news{entry: e, kind: repeated})
					continue
				}
				v.until = earlier(v.until, e.doubt.forgets)
			} else if !e.item.Begin() {
				l.metrics.forgotten.Inc()
				continue
			}
			f := live
			if e.msg.GetTest() && l.test != l.live {
				if test == nil {
					test = newFlight(l, l.test, len(entries), now)
				}
				f = test
			}
			f.add(e, earlier(v.until, now.Add(wayLimit)))
		}
	}
	l.giveBack(back)
	sent := len(live.entries)
	live.send(ctx, report)
	if test != nil {
		sent += len(test.entries)
		test.send(ctx, func(error) {})
	}
	return sent
}

// States of a message in a flight.
const (
	unanswered uint32 = iota
	answered
	timedOut
	answeredLate
)

// flight is one batch that was handed over, until all its answers are there.
type flight struct {
	lane      *lane
	connector carrier.Connector
	entries   []*entry
	batch     []carrier.Outbound
	states    []atomic.Uint32
	withdrawn []atomic.Bool // by index: may not be written any more
	repeats   map[int]bool  // by index: the message may have been handed over before; nil: none was
	outcomes  []kgo.Record  // memory for the outcomes of messages that are answered in time, which most are
	headers   []kgo.RecordHeader
	sent      time.Time
	deadline  time.Time // for the answers
	open      atomic.Int32
	failures  atomic.Int32
	late      atomic.Int32 // not written by the connector, because their deadline had passed
	report    func(error)
}

func newFlight(l *lane, c carrier.Connector, n int, now time.Time) *flight {
	return &flight{
		lane: l, connector: c, entries: make([]*entry, 0, n), batch: make([]carrier.Outbound, 0, n), states: make([]atomic.Uint32, n),
		withdrawn: make([]atomic.Bool, n),
		outcomes:  make([]kgo.Record, n), headers: make([]kgo.RecordHeader, n*outcomeHeaders), sent: now, deadline: now.Add(answerLimit(l.route())),
	}
}

func (f *flight) add(e *entry, deadline time.Time) {
	o := outbound(e.msg, e.id, deadline)
	o.Withdrawn = &f.withdrawn[len(f.entries)]
	if e.doubt != nil {
		if f.repeats == nil {
			f.repeats = map[int]bool{}
		}
		f.repeats[len(f.entries)] = true
		f.lane.metrics.repeated.Inc()
	}
	f.entries = append(f.entries, e)
	f.batch = append(f.batch, o)
}

// errCarrier is what is reported to the breaker for a batch that the carrier did not answer.
var errCarrier = errors.New("carrier does not answer")

// send gives the batch to the connector.
func (f *flight) send(ctx context.Context, report func(error)) {
	l := f.lane
	if len(f.entries) == 0 {
		report(errNothing) // does not use up a probe
		return
	}
	f.report = report
	f.open.Store(int32(len(f.entries)))
	l.metrics.submitted.Add(float64(len(f.entries)))
	l.metrics.inFlight.Add(float64(len(f.entries)))
	if l.flights.add(f) {
		l.signal() // the loop must look after it while Send blocks
	}
	batch := f.batch
	f.batch = nil // the connector owns it now
	err := f.connector.Send(l.gate.enter(ctx, f), batch, f.done)
	l.gate.leave()
	if err == nil {
		return
	}
	// By the contract nothing was handed over and done is not called.
	r := carrier.Result{Outcome: carrier.Retryable, Code: "send"}
	switch {
	case errors.Is(err, carrier.ErrBatch):
		r.Code = "batch"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		r.Code = carrier.CodeDeadline // the wait for the carrier's window was interrupted
	}
	for i := range f.entries {
		f.done(i, r)
	}
}

// done takes one answer. The connector calls it from any goroutine.
func (f *flight) done(i int, r carrier.Result) {
	if i < 0 || i >= len(f.entries) {
		return
	}
	l, e := f.lane, f.entries[i]
	now := l.now()
	late := false
	switch {
	case f.states[i].CompareAndSwap(unanswered, answered):
	case f.states[i].CompareAndSwap(timedOut, answeredLate):
		late = true
	default:
		return // a second answer, against the contract: the first one counts
	}
	notWritten := r.Outcome == carrier.Retryable && r.Code == carrier.CodeDeadline
	if !late && !notWritten && l.traces.Samples(e.id.CampaignNumber(), e.id.Seq()) {
		v := classify(r, e.msg, l.view.Campaign(e.msg.GetCampaignId()), now)
		f.span(i, v.kind, v.code, now)
	}
	switch r.Outcome {
	case carrier.Throttled:
		l.throttled()
	case carrier.Accepted, carrier.Rejected, carrier.Unsupported:
	default:
		if notWritten {
			f.late.Add(1)
		} else {
			f.failures.Add(1)
		}
	}
	if f.repeats[i] {
		l.repeatAnswered(e, r, late)
		if !late {
			l.metrics.inFlight.Dec()
			f.close()
		}
		return
	}
	if notWritten && !late {
		// The message was not handed over, so it waits and is judged again: meanwhile its campaign may be paused, its
		// recipient may have opted out, or another process may own it.
		l.metrics.notWritten.Inc()
		l.metrics.inFlight.Dec()
		if e.item.Return() {
			l.giveBack([]*entry{e})
		} else {
			l.metrics.forgotten.Inc()
		}
		f.close()
		return
	}
	if i%sampled == 0 {
		l.metrics.answer.Observe(now.Sub(f.sent).Seconds())
	}
	v := classify(r, e.msg, l.view.Campaign(e.msg.GetCampaignId()), now)
	l.count(v.kind)
	if late {
		l.metrics.late.Inc()
		l.settleLate(e, v)
		return
	}
	l.metrics.inFlight.Dec()
	switch {
	case v.kind == schemas.KindAmbiguous && l.endsDoubts(e) != carrier.DoubtNone:
		l.tell(news{entry: e, kind: unsure, verdict: v, first: f.sent})
	case v.kind == schemas.KindReturned:
		l.settle(e, v, true)
	case v.kind == schemas.KindSent && v.ref != "" && l.indexer != nil:
		l.indexer.add(task{entry: e, verdict: v})
	default:
		from := i * outcomeHeaders
		l.recordInto(&f.outcomes[i], f.headers[from:from:from+outcomeHeaders], e, &v, now)
		e.item.Settle(&f.outcomes[i])
	}
	f.close()
}

// span makes the span of the hand-over of a message whose recipient is traced.
func (f *flight) span(i int, kind schemas.Kind, code schemas.Code, now time.Time) {
	l, e := f.lane, f.entries[i]
	m, id := e.msg, e.id
	way := l.traces.Of(l.single(m), id.CampaignNumber(), id.Seq())
	failed := ""
	if kind != schemas.KindSent {
		failed = schemas.CodeName(code)
	}
	l.traces.Record(trace.Span{
		Name: trace.NameSubmit, At: way.Submit(id, f.repeats[i]), Kind: trace.Client, Start: f.sent, End: now, Failed: failed,
		Parent: way.Parent(schemas.Header(e.rec, schemas.HeaderTraceparent), way.Root()),
		Attributes: append(trace.Outcome(kind, code), trace.Tenant(m.GetTenant()), trace.Campaign(m.GetCampaignId()), trace.Submission(id),
			trace.Message(l.keys.MessageOf(id)), trace.Route(l.name)),
	})
}

// sampled is the sampling rate of answer times: one answer in so many of each batch is measured.
const sampled = 16

// close counts one answer, and reports to the breaker when all are there.
func (f *flight) close() {
	if f.open.Add(-1) != 0 {
		return
	}
	switch tried := len(f.entries) - int(f.late.Load()); {
	case tried == 0:
		f.report(errNothing)
	case 2*int(f.failures.Load()) >= tried:
		f.report(errCarrier)
	default:
		f.report(nil)
	}
}

// settleLate writes an answer that came after the time-out. It does not write an answer that leaves the outcome
// unknown.
func (l *lane) settleLate(e *entry, v verdict) {
	if l.endsDoubts(e) != carrier.DoubtNone {
		// The message may have been handed over again since, and "not taken" says nothing about that hand-over.
		if v.kind == schemas.KindSent || v.kind == schemas.KindNotSent {
			l.conclude(e, v)
		}
		return
	}
	switch {
	case v.kind == schemas.KindAmbiguous:
	case v.kind == schemas.KindReturned && l.single(e.msg):
		l.writer.add(task{entry: e, verdict: v, late: true})
	case v.kind == schemas.KindSent && v.ref != "" && l.indexer != nil:
		l.indexer.add(task{entry: e, verdict: v, late: true})
	default:
		e.item.Late(l.record(e, &v))
	}
}

// flights are the batches that still await answers, in the order of their deadlines.
type flights struct {
	mu   sync.Mutex
	list []*flight
}

// add adds a batch and reports whether it is the only one.
func (fs *flights) add(f *flight) (only bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.list = append(fs.list, f)
	return len(fs.list) == 1
}

// any reports whether there is a batch that awaits answers.
func (fs *flights) any() bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return len(fs.list) > 0
}

// young calls each for every batch that awaits answers and was handed over after since.
func (fs *flights) young(since time.Time, each func(*flight)) {
	fs.mu.Lock()
	list := slices.Clone(fs.list)
	fs.mu.Unlock()
	for _, f := range slices.Backward(list) {
		if f.sent.Before(since) {
			return
		}
		if f.open.Load() > 0 {
			each(f)
		}
	}
}

// reap makes messages ambiguous that were not answered in time, so that the window moves on, and returns the next
// deadline.
func (fs *flights) reap(now time.Time) (next time.Time) {
	for {
		fs.mu.Lock()
		var f *flight
		for len(fs.list) > 0 && fs.list[0].open.Load() <= 0 {
			fs.list[0] = nil
			fs.list = fs.list[1:]
		}
		if len(fs.list) > 0 {
			if f = fs.list[0]; now.Before(f.deadline) {
				next, f = f.deadline, nil
			} else {
				fs.list[0] = nil
				fs.list = fs.list[1:]
			}
		}
		fs.mu.Unlock()
		if f == nil {
			return next
		}
		f.expire()
	}
}

func (f *flight) expire() {
	l := f.lane
	for i, e := range f.entries {
		if !f.states[i].CompareAndSwap(unanswered, timedOut) {
			continue
		}
		l.metrics.timeouts.Inc()
		l.metrics.inFlight.Dec()
		if l.traces.Samples(e.id.CampaignNumber(), e.id.Seq()) {
			f.span(i, schemas.KindAmbiguous, schemas.CodeTimeout, l.now())
		}
		f.failures.Add(1)
		if f.repeats[i] {
			l.tell(news{entry: e, kind: repeated})
		} else {
			l.doubtOrSettle(e, ambiguous(schemas.CodeTimeout, ""), f.sent)
		}
		f.close()
	}
}

// withdrawEvery is how often messages at the connector are judged again when the control plane has not changed. This is
// needed because an opt-out and the passing of time are no changes of the control plane.
const withdrawEvery = 50 * time.Millisecond

// withdraw judges again the messages that a connector has and may not have written yet, and takes back the permission
// to write those that are not allowed any more. Without it a message that waits for the carrier's window would leave up
// to half a second after its campaign was paused. A Send that is blocked with such a message is interrupted; the
// messages that it returns are judged again one by one.
func (l *lane) withdraw(o *policyContext) {
	if since := o.now.Sub(l.checked); since < judgePause || !l.stale && since < withdrawEvery {
		return
	}
	l.stale, l.checked = false, o.now
	limit := o.now.Add(-wayLimit) // messages handed over before it are past their deadline
	l.gate.interrupt(func(f *flight) bool { return !f.sent.After(limit) })
	l.flights.young(limit, func(f *flight) {
		interrupt := false
		for i, e := range f.entries {
			if f.states[i].Load() == unanswered && !f.withdrawn[i].Load() && l.verdict(o, e).action != submit {
				f.withdrawn[i].Store(true)
				interrupt = true
			}
		}
		if interrupt {
			l.gate.interrupt(func(current *flight) bool { return current == f })
		}
	})
}

// sendGate lets the loop interrupt the call of Send in progress. The calls share one context until one is interrupted,
// because making a context for each call would cost more than the call.
type sendGate struct {
	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // handed out to the next call, not used here
	cancel  context.CancelFunc
	current *flight // whose Send runs; nil: none
}

// enter returns the context for the call of Send for f.
func (g *sendGate) enter(ctx context.Context, f *flight) context.Context {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ctx == nil || g.ctx.Err() != nil {
		g.ctx, g.cancel = context.WithCancel(ctx)
	}
	g.current = f
	return g.ctx
}

// leave says that the call has returned.
func (g *sendGate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.current = nil
}

// interrupt ends the call of Send in progress if it is for a batch for which f returns true.
func (g *sendGate) interrupt(f func(*flight) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.current != nil && f(g.current) {
		g.cancel()
	}
}

func (g *sendGate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cancel != nil {
		g.cancel()
	}
}
