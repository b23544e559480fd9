package sender

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// This file ends doubts. A message is in doubt when it may have been handed over: by the last owner of its partition,
// which crashed, or here, when the carrier did not answer. Its outcome `ambiguous` is written at once; then the lane
// resolves the doubt, as [carrier.Caps] say:
//
//	DoubtKeyHeader,   hand it over again under the same submission id; the carrier takes it once. Before each
//	DoubtNaturalID    repetition it is judged like any message, because the first hand-over may never have happened.
//	DoubtQuery        ask the carrier. When the carrier does not have it, it is handed over like any message.
//	DoubtNone         nothing: a receipt or a person ends the doubt.
//
// The window keeps the message open meanwhile, so that after a crash the next owner continues. None of these steps is a
// new try.

// doubt is what the lane knows of a message in doubt. The goroutine that has the entry owns it.
type doubt struct {
	outcome verdict       // the ambiguous outcome that was written
	since   time.Time     // when this process began to doubt
	forgets time.Time     // the carrier may have forgotten the key from then on; zero: never
	next    time.Time     // the lane does nothing about it before this time
	pause   time.Duration // the last wait
	end     atomic.Uint32 // the kind of the outcome that has ended it; 0: none yet. Any goroutine may set it
}

// doubts are the messages in doubt of a lane.
type doubts struct {
	open   []*entry // no repetition and no question is on its way for them
	asking bool     // a question is on its way to the carrier
	// Counts since the lane last had no message in doubt, for one log line.
	began    time.Time
	unended  int // all doubts without an end: open, being handed over again, or being asked about
	taken    int
	refused  int
	notTaken int
	givenUp  int
}

const (
	// doubtPause is the first wait before the carrier is tried again about a message in doubt; it doubles up to
	// doubtPauseMax.
	doubtPause    = 200 * time.Millisecond
	doubtPauseMax = 5 * time.Second
	// doubtWait is how often the lane judges a message in doubt again while it may not be handed over, because its
	// campaign is paused, calling hours are over or the breaker is open.
	doubtWait = time.Second
	// doubtLimit is how long the lane tries to end a doubt. The base of the partition waits for it, and a takeover
	// reads from there.
	doubtLimit = 10 * time.Minute
	// maxQuestion is the most submissions that one question names.
	maxQuestion = 100
	// questionTimeout is how long the carrier may take to answer a question.
	questionTimeout = 10 * time.Second
)

// news carries to loop what another goroutine has found out about a message in doubt.
type news struct {
	entry   *entry
	kind    newsKind
	verdict verdict   // of unsure
	first   time.Time // for unsure: when it was handed over
	result  carrier.Result
	at      time.Time // for said: when the carrier was asked
}

type newsKind uint8

const (
	unsure   newsKind = iota // the carrier's answer leaves in doubt whether it took the message
	repeated                 // the lane tried to hand it over again; the doubt has ended, or is open as before
	said                     // the carrier was asked and answered with result
	unsaid                   // the carrier was asked and did not answer
)

func (l *lane) tell(all ...news) {
	l.mu.Lock()
	l.open = append(l.open, all...)
	l.mu.Unlock()
	l.signal()
}

// connectorOf returns the connector that the message goes to, nil when there is none, and its capabilities.
func (l *lane) connectorOf(e *entry) (carrier.Connector, *carrier.Caps) {
	if e.msg.GetTest() {
		return l.test, &l.testCaps
	}
	return l.live, &l.caps
}

// endsDoubts returns how a doubt about the message can be ended.
func (l *lane) endsDoubts(e *entry) carrier.Doubt {
	if e.msg == nil {
		return carrier.DoubtNone
	}
	to, caps := l.connectorOf(e)
	if _, ok := to.(carrier.Querier); to == nil || caps.Doubt == carrier.DoubtQuery && !ok {
		return carrier.DoubtNone
	}
	return caps.Doubt
}

// keyForgotten returns when the carrier may forget the key of a message that was handed over at the time first or
// later; zero: never. It subtracts a tenth of the time because clocks differ.
func keyForgotten(caps *carrier.Caps, first time.Time) time.Time {
	if caps.Doubt != carrier.DoubtKeyHeader {
		return time.Time{}
	}
	return first.Add(caps.KeyWindow - caps.KeyWindow/10)
}

// doubtOrSettle writes an ambiguous outcome. Where the doubt can be ended, the message stays open until it is. first is
// the earliest time at which the message may have been handed over.
func (l *lane) doubtOrSettle(e *entry, v verdict, first time.Time) {
	now := l.now()
	_, caps := l.connectorOf(e)
	if how := l.endsDoubts(e); how == carrier.DoubtNone || how == carrier.DoubtKeyHeader && !now.Before(keyForgotten(caps, first)) {
		l.settle(e, v, true)
		return
	}
	if !e.item.Doubt(l.record(e, &v)) {
		l.metrics.forgotten.Inc() // this process no longer owns it, or a late answer has settled it
		return
	}
	e.uncertain = false
	e.doubt = &doubt{outcome: v, since: now, forgets: keyForgotten(caps, first), next: now}
	if l.doubts.unended == 0 {
		l.doubts = doubts{began: now}
	}
	l.doubts.unended++
	l.doubts.open = append(l.doubts.open, e)
}

// resolve applies the news about messages in doubt and does the next step for those whose time has come. It returns
// when to call it again.
func (l *lane) resolve(o *policyContext) (next time.Time) {
	l.mu.Lock()
	all := l.open
	l.open = nil
	l.mu.Unlock()
	for i := range all {
		l.hear(o, &all[i])
	}
	if len(l.doubts.open) == 0 {
		return time.Time{}
	}
	var ask []*entry
	var of carrier.Connector
	open := l.doubts.open
	l.doubts.open = nil
	for _, e := range open {
		switch {
		case o.now.Before(e.doubt.next):
			l.doubts.open = append(l.doubts.open, e)
		case !l.pursued(e, o.now):
		case l.endsDoubts(e) != carrier.DoubtQuery:
			l.judgeDoubt(o, e)
		case !l.doubts.asking && len(ask) < maxQuestion && (of == nil || of == l.target(e)):
			ask, of = append(ask, e), l.target(e)
		default: // with the next question
			l.doubts.open = append(l.doubts.open, e)
		}
	}
	if len(ask) > 0 {
		l.doubts.asking = true
		l.asked <- question{to: of, entries: ask} // never blocks: one question at a time
	}
	for _, e := range l.doubts.open {
		if e.doubt.next.After(o.now) { // the others wait for the question on its way
			next = earlier(next, e.doubt.next)
		}
	}
	return next
}

func (l *lane) target(e *entry) carrier.Connector {
	to, _ := l.connectorOf(e)
	return to
}

// pursued reports whether the lane still has to resolve a message. If not, another event or process ends the doubt.
func (l *lane) pursued(e *entry, now time.Time) bool {
	d := e.doubt
	switch {
	case d.end.Load() != 0:
		l.closeAs(schemas.Kind(d.end.Load()))
		return false
	case !e.item.Doubted(): // a late answer has settled it, or the next owner of the partition continues
		l.metrics.forgotten.Inc()
		l.close(nil)
		return false
	case !d.forgets.IsZero() && !now.Before(d.forgets), now.Sub(d.since) >= doubtLimit, e.item.Crowded():
		l.giveUp(e)
		return false
	}
	return true
}

// giveUp leaves a doubt to a receipt or a person. Its outcome is written once more, which changes nothing; it settles
// the record.
func (l *lane) giveUp(e *entry) {
	v := e.doubt.outcome
	l.close(&l.doubts.givenUp)
	l.settle(e, v, true)
}

// judgeDoubt decides whether a message is handed over again.
func (l *lane) judgeDoubt(o *policyContext, e *entry) {
	if !l.pursued(e, o.now) {
		return
	}
	switch v := l.verdict(o, e); {
	case v.action == submit:
		q := l.queue(e.msg)
		q.entries = append(q.entries, e)
	case v.action == wait, v.kind == schemas.KindReturned: // it may be later
		e.doubt.next = o.now.Add(doubtWait)
		if v.action == wait {
			e.doubt.next = o.now.Add(doubtPause)
		}
		l.doubts.open = append(l.doubts.open, e)
	default: // it may never be handed over again: aborted, opted out, too late
		l.giveUp(e)
	}
}

// reopen schedules the next step for a message, because the last step proved nothing.
func (l *lane) reopen(e *entry, now time.Time) {
	d := e.doubt
	d.pause = min(max(2*d.pause, doubtPause), doubtPauseMax)
	d.next = now.Add(d.pause)
	l.doubts.open = append(l.doubts.open, e)
}

// repeatAnswered applies the carrier's answer to a repetition; late means that the answer came after the time-out. Any
// goroutine may call it.
func (l *lane) repeatAnswered(e *entry, r carrier.Result, late bool) {
	// These outcomes hold for the first hand-over too. All others prove nothing about it. See [carrier.Connector].
	if r.Outcome == carrier.Accepted || r.Outcome == carrier.Rejected || r.Outcome == carrier.Unsupported {
		v := classify(r, e.msg, l.view.Campaign(e.msg.GetCampaignId()), l.now())
		if e.doubt.end.CompareAndSwap(0, uint32(v.kind)) {
			l.conclude(e, v)
		}
	}
	if !late {
		l.tell(news{entry: e, kind: repeated})
	}
}

// conclude writes the outcome that ends a doubt.
func (l *lane) conclude(e *entry, v verdict) {
	if v.kind == schemas.KindSent && v.ref != "" && l.indexer != nil {
		l.indexer.add(task{entry: e, verdict: v})
		return
	}
	l.settle(e, v, true)
}

// hear applies news about a message in doubt.
func (l *lane) hear(o *policyContext, n *news) {
	e := n.entry
	if n.kind == unsure {
		l.doubtOrSettle(e, n.verdict, n.first)
		return
	}
	if n.kind != repeated {
		l.doubts.asking = false
	}
	switch {
	case !l.pursued(e, o.now):
	case n.kind == said:
		l.hearSaid(o, e, n)
	default:
		l.reopen(e, o.now)
	}
}

// hearSaid applies the carrier's answer to a question about a message.
func (l *lane) hearSaid(o *policyContext, e *entry, n *news) {
	_, caps := l.connectorOf(e)
	d := e.doubt
	switch n.result.Outcome {
	case carrier.Accepted, carrier.Rejected, carrier.Unsupported:
		v := classify(n.result, e.msg, l.view.Campaign(e.msg.GetCampaignId()), o.now)
		l.closeAs(v.kind)
		l.conclude(e, v)
	// the carrier does not have it; this counts only once no hand-over can be on its way any more
	case carrier.Retryable:
		if final := d.since.Add(caps.QuerySettles); n.at.Before(final) {
			d.next = final
			l.doubts.open = append(l.doubts.open, e)
			return
		}
		if !e.item.Clear() {
			l.metrics.forgotten.Inc()
			l.close(nil)
			return
		}
		l.close(&l.doubts.notTaken)
		e.doubt, e.released = nil, o.now
		l.judge(o, e)
	default:
		l.reopen(e, o.now)
	}
}

func (l *lane) closeAs(kind schemas.Kind) {
	if kind == schemas.KindSent {
		l.close(&l.doubts.taken)
	} else {
		l.close(&l.doubts.refused)
	}
}

// close counts a doubt that has ended; n is the counter of its end, nil when another process continues to resolve it.
func (l *lane) close(n *int) {
	d := &l.doubts
	if d.unended--; n != nil {
		*n++
		switch n {
		case &d.taken:
			l.metrics.doubtsTaken.Inc()
		case &d.refused:
			l.metrics.doubtsRefused.Inc()
		case &d.notTaken:
			l.metrics.doubtsNotTaken.Inc()
		case &d.givenUp:
			l.metrics.doubtsGivenUp.Inc()
		}
	}
	if d.unended == 0 && d.taken+d.refused+d.notTaken+d.givenUp > 0 {
		l.logger.Info("doubts ended", slog.String("lane", string(l.lane)), slog.Int("taken", d.taken), slog.Int("refused", d.refused),
			slog.Int("not_taken", d.notTaken), slog.Int("given_up", d.givenUp), slog.Int64("after_ms", l.now().Sub(d.began).Milliseconds()))
	}
}

// question asks a carrier about messages in doubt.
type question struct {
	to      carrier.Connector
	entries []*entry
}

// askCarrier sends the questions of loop to the carrier.
func (l *lane) askCarrier(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case q := <-l.asked:
			l.tell(l.ask(ctx, q)...)
		}
	}
}

func (l *lane) ask(ctx context.Context, q question) []news {
	keys := make([]carrier.Key, len(q.entries))
	for i, e := range q.entries {
		keys[i] = e.id
	}
	at := l.now()
	asking, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	var results []carrier.Result
	var err error
	if querier, ok := q.to.(carrier.Querier); ok {
		results, err = querier.Query(asking, keys)
	}
	if err != nil && ctx.Err() == nil {
		l.logger.WarnContext(ctx, "asking the carrier about hand-overs in doubt failed; it is retried", slog.Int("submissions", len(keys)), slog.Any("err", err))
	}
	all := make([]news, len(q.entries))
	for i, e := range q.entries {
		all[i] = news{entry: e, kind: unsaid, at: at}
		if err == nil && i < len(results) {
			all[i].kind, all[i].result = said, results[i]
		}
	}
	return all
}
