package sender

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

// handOverRuns hands over what holds its tokens, one run at a time.
func (l *lane) handOverRuns(ctx context.Context) error {
	var patience leases
	defer patience.end()
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-l.runs:
			l.handOver(ctx, r, &patience)
		}
	}
}

// handOver asks all questions once more, for the wait for the tokens took time, and gives what passes to the carrier, in batches
// of what it takes. What lost its tokens, because the carrier's window was full for longer than they live, goes back.
func (l *lane) handOver(ctx context.Context, r *run, contexts *leases) {
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
		case errors.Is(err, errProbing): // one batch is on its way to see whether the carrier is back
			l.limiter.Put(r.set, len(r.entries), r.until)
			l.pauseThenGiveBack(ctx, r.entries)
			return
		case err != nil: // open: judged below
			report = func(error) {}
		case l.breaker.probing():
			most = 1
		}
		n := min(most, len(r.entries))
		sent := l.handOverBatch(contexts.within(ctx, now, answerLimit(l.route())), now, r.entries[:n], report)
		r.entries = r.entries[n:]
		if unused := n - sent; unused > 0 {
			l.limiter.Put(r.set, unused, r.until)
		}
	}
}

// probePause is how long the others wait while one batch is on its way to a carrier that did not answer.
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

// handOverBatch hands over what of a batch still may be, and returns how many that were.
func (l *lane) handOverBatch(ctx context.Context, now time.Time, entries []*entry, report func(error)) int {
	o := l.outlook(now)
	live, test := newFlight(l, l.live, len(entries), now), (*flight)(nil)
	var back []*entry
	for _, e := range entries {
		switch v := l.verdict(&o, e); v.action {
		case answer:
			l.settle(e, v, false)
		case wait:
			back = append(back, e)
		default:
			deadline := e.item.Deadline()
			if asked := now.Add(wayLimit); asked.Before(deadline) {
				deadline = asked
			}
			if !e.item.Begin() {
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
			f.add(e, deadline)
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

// flight is one batch at the carrier.
type flight struct {
	lane      *lane
	connector carrier.Connector
	entries   []*entry
	batch     []carrier.Outbound
	states    []atomic.Uint32
	outcomes  []kgo.Record // room for those of most messages, which are answered in time
	headers   []kgo.RecordHeader
	sent      time.Time
	deadline  time.Time // of the answers
	open      atomic.Int32
	failures  atomic.Int32
	late      atomic.Int32 // that the connector kept back
	report    func(error)
}

func newFlight(l *lane, c carrier.Connector, n int, now time.Time) *flight {
	return &flight{
		lane: l, connector: c, entries: make([]*entry, 0, n), batch: make([]carrier.Outbound, 0, n), states: make([]atomic.Uint32, n),
		outcomes: make([]kgo.Record, n), headers: make([]kgo.RecordHeader, n*outcomeHeaders), sent: now, deadline: now.Add(answerLimit(l.route())),
	}
}

func (f *flight) add(e *entry, deadline time.Time) {
	f.entries = append(f.entries, e)
	f.batch = append(f.batch, outbound(e.msg, e.id, deadline))
}

// errCarrier is what the breaker is told of a batch that the carrier did not answer.
var errCarrier = errors.New("carrier does not answer")

// send gives the batch to the connector.
func (f *flight) send(ctx context.Context, report func(error)) {
	l := f.lane
	if len(f.entries) == 0 {
		report(errNothing) // a probe is not used up
		return
	}
	f.report = report
	f.open.Store(int32(len(f.entries)))
	l.metrics.submitted.Add(float64(len(f.entries)))
	l.metrics.inFlight.Add(float64(len(f.entries)))
	l.flights.add(f)
	batch := f.batch
	f.batch = nil // the connector's
	err := f.connector.Send(ctx, batch, f.done)
	if err == nil {
		return
	}
	// Nothing was handed over, and done is not called.
	r := carrier.Result{Outcome: carrier.Retryable, Code: "send"}
	if errors.Is(err, carrier.ErrBatch) {
		r.Code = "batch"
	}
	for i := range f.entries {
		f.done(i, r)
	}
}

// done takes one answer, from any goroutine.
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
		return // answered twice: the contract says never, and the first one counts
	}
	if i%sampled == 0 {
		l.metrics.answer.Observe(now.Sub(f.sent).Seconds())
	}
	switch r.Outcome {
	case carrier.Throttled:
		l.throttled()
	case carrier.Accepted, carrier.Rejected, carrier.Unsupported:
	default:
		if r.Outcome == carrier.Retryable && r.Code == carrier.CodeDeadline {
			f.late.Add(1)
		} else {
			f.failures.Add(1)
		}
	}
	v := classify(r, e.msg, l.view.Campaign(e.msg.GetCampaignId()), now)
	if late {
		l.metrics.late.Inc()
		l.settleLate(e, v)
		return
	}
	l.metrics.inFlight.Dec()
	switch {
	case v.kind == fanfarev1.Kind_KIND_RETURNED:
		l.settle(e, v, true)
	case v.kind == fanfarev1.Kind_KIND_SENT && v.ref != "" && l.ferry != nil:
		l.ferry.add(task{entry: e, verdict: v})
	default:
		from := i * outcomeHeaders
		l.recordInto(&f.outcomes[i], f.headers[from:from:from+outcomeHeaders], e, &v, now)
		e.item.Settle(&f.outcomes[i])
	}
	f.close(1)
}

// sampled is the share of answers whose time is observed: one of so many of a batch.
const sampled = 16

// close counts answers, and tells the breaker when all are there.
func (f *flight) close(n int32) {
	if f.open.Add(-n) != 0 {
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

// settleLate writes the answer that came after the time-out. An answer that is no better than the time-out says nothing new.
func (l *lane) settleLate(e *entry, v verdict) {
	switch {
	case v.kind == fanfarev1.Kind_KIND_AMBIGUOUS:
	case v.kind == fanfarev1.Kind_KIND_RETURNED && l.single(e.msg):
		l.writer.add(task{entry: e, verdict: v, late: true})
	case v.kind == fanfarev1.Kind_KIND_SENT && v.ref != "" && l.ferry != nil:
		l.ferry.add(task{entry: e, verdict: v, late: true})
	default:
		e.item.Late(l.record(e, &v))
	}
}

// flights are those without all their answers, in the order of their deadlines.
type flights struct {
	mu   sync.Mutex
	list []*flight
}

func (fs *flights) add(f *flight) {
	fs.mu.Lock()
	fs.list = append(fs.list, f)
	fs.mu.Unlock()
}

// reap calls what was not answered in time ambiguous, so that the window moves on, and returns when the next time is over.
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
		f.failures.Add(1)
		l.settle(e, ambiguous(fanfarev1.Code_CODE_TIMEOUT, ""), true)
		f.close(1)
	}
}

// leases are contexts for calls that end by themselves, shared by the calls of half a second: one for each call would cost
// more than the call.
type leases struct {
	list []lease
}

type lease struct {
	ctx    context.Context //nolint:containedctx // handed out, not kept: it is what this type is about
	cancel context.CancelFunc
	end    time.Time
}

// within returns a context that ends no sooner than after d and at most half a second later.
func (ls *leases) within(ctx context.Context, now time.Time, d time.Duration) context.Context {
	if n := len(ls.list); n > 0 && ls.list[n-1].end.Sub(now) >= d {
		return ls.list[n-1].ctx
	}
	kept := ls.list[:0]
	for _, l := range ls.list {
		if now.Before(l.end) {
			kept = append(kept, l)
		} else {
			l.cancel()
		}
	}
	d += 500 * time.Millisecond
	c, cancel := context.WithTimeout(ctx, d)
	ls.list = append(kept, lease{c, cancel, now.Add(d)})
	return c
}

func (ls *leases) end() {
	for _, l := range ls.list {
		l.cancel()
	}
}
