package sender

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

// askedCarrier is a fakeCarrier that answers questions about submissions.
type askedCarrier struct {
	*fakeCarrier
	mu    sync.Mutex
	say   func(carrier.Key) (carrier.Result, error)
	asked int
}

func (c *askedCarrier) Query(_ context.Context, keys []carrier.Key) ([]carrier.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	out := make([]carrier.Result, len(keys))
	for i, k := range keys {
		var err error
		if out[i], err = c.say(k); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// uncertain releases messages that the last owner of the partition may have handed over age ago.
func (e *env) uncertain(age time.Duration, messages ...*fanfarev1.Message) (items []*fakeItem) {
	e.t.Helper()
	var batch []*entry
	for _, m := range messages {
		s := &fakeItem{env: e, n: len(e.items)}
		e.items, items = append(e.items, s), append(items, s)
		r := messageRecord(e.t, e.keys, m)
		r.Timestamp = time.Now().Add(-age)
		batch = append(batch, &entry{item: s, rec: r, uncertain: true, released: time.Now()})
	}
	e.lane.release(batch)
	return items
}

// wantDoubts checks that each item was reported as ambiguous once.
func (e *env) wantDoubts(what string, items []*fakeItem, code schemas.Code) {
	e.t.Helper()
	for _, s := range items {
		s.mu.Lock()
		if len(s.doubts) != 1 || s.doubts[0].GetKind() != ambiguousKind || s.doubts[0].GetCode() != code {
			e.t.Errorf("%s: message %d: got doubts %v, want one ambiguous/%s", what, s.n, s.doubts, code)
		}
		s.mu.Unlock()
	}
}

// inDoubtEnv runs f with a carrier that ignores a key that it already had.
func inDoubtEnv(t *testing.T, how carrier.Doubt, f func(e *env)) {
	t.Helper()
	inEnv(t, func(e *env) {
		e.carrier.caps.Doubt, e.carrier.caps.KeyWindow = how, time.Hour
		e.start(schemas.LaneBulk)
		f(e)
	})
}

// X15: if the carrier ignores a submission that it already had, the sender repeats a hand-over in doubt under the same
// id until an answer proves that the carrier took or refused the message. Answers that may come before the carrier
// looks at the id prove nothing.
func TestDoubtEndsByHandingOverAgain(t *testing.T) {
	taken := carrier.Result{Outcome: carrier.Accepted, Ref: "first"}
	for name, tc := range map[string]struct {
		answers []carrier.Result
		kind    schemas.Kind
		code    schemas.Code
	}{
		"taken":                    {[]carrier.Result{taken}, sent, awaiting},
		"refused":                  {[]carrier.Result{{Outcome: carrier.Rejected, Sub: schemas.CodeInvalidNumber}}, notSentKind, schemas.CodeInvalidNumber},
		"no such channel":          {[]carrier.Result{{Outcome: carrier.Unsupported}}, notSentKind, schemas.CodeNotSentOther},
		"throttled, then taken":    {[]carrier.Result{{Outcome: carrier.Throttled}, taken}, sent, awaiting},
		"busy, then taken":         {[]carrier.Result{{Outcome: carrier.Retryable}, taken}, sent, awaiting},
		"unknown, then taken":      {[]carrier.Result{{Outcome: carrier.Unknown}, taken}, sent, awaiting},
		"not written, then taken":  {[]carrier.Result{{Outcome: carrier.Retryable, Code: carrier.CodeDeadline}, taken}, sent, awaiting},
		"silence, then taken":      {[]carrier.Result{{}, taken}, sent, awaiting},
		"throttled, then refused":  {[]carrier.Result{{Outcome: carrier.Throttled}, {Outcome: carrier.Rejected}}, notSentKind, schemas.CodeNotSentOther},
		"busy four times and then": {[]carrier.Result{{Outcome: carrier.Retryable}, {Outcome: carrier.Retryable}, {Outcome: carrier.Throttled}, {Outcome: carrier.Unknown}, taken}, sent, awaiting},
	} {
		for _, how := range []carrier.Doubt{carrier.DoubtKeyHeader, carrier.DoubtNaturalID} {
			t.Run(name+" by "+how.String(), func(t *testing.T) {
				inEnv(t, func(e *env) {
					e.carrier.caps.Doubt, e.carrier.caps.KeyWindow = how, time.Hour
					n := 0
					e.carrier.reply = func(o carrier.Outbound) (carrier.Result, bool) {
						if want := e.keys.Submission(10001, 0, 1); o.Key != want {
							t.Errorf("got key %s, want that of the first hand-over, %s", o.Key, want)
						}
						n++
						r := tc.answers[min(n, len(tc.answers))-1]
						return r, r.Outcome != 0
					}
					e.start(schemas.LaneBulk)
					items := e.uncertain(time.Minute, messages(1)...)
					after(30 * time.Second)
					e.wantDoubts(name, items, schemas.CodeCrash)
					e.want(name, items, tc.kind, tc.code)
					if n != len(tc.answers) {
						t.Errorf("got %d hand-overs, want %d", n, len(tc.answers))
					}
				})
			})
		}
	}
}

// The first hand-over may never have happened, so the sender judges a repetition like a first hand-over. It repeats
// nothing while the campaign is paused, nothing for a recipient that has opted out, and nothing once the carrier may
// have forgotten the id.
func TestDoubtIsNotRepeated(t *testing.T) {
	const n = 3
	for name, tc := range map[string]struct {
		prepare func(e *env)
		age     time.Duration
		open    bool // the doubt stays open, until undo
		undo    func(e *env)
	}{
		"paused": {
			prepare: func(e *env) { e.view.campaign(10001, schemas.StatePaused) }, open: true,
			undo: func(e *env) { e.view.campaign(10001, schemas.StateSending) },
		},
		"view too old": {
			prepare: func(e *env) { e.view.set(func() { e.view.age = time.Minute }) }, open: true,
			undo: func(e *env) { e.view.set(func() { e.view.age = 0 }) },
		},
		"route switched off": {
			prepare: func(e *env) { e.view.set(func() { e.view.routes["sim"] = &fanfarev1.Route{Name: "sim", Rate: 1_000} }) }, open: true,
			undo: func(e *env) {
				e.view.set(func() { e.view.routes["sim"] = &fanfarev1.Route{Name: "sim", Rate: 1_000, Enabled: true} })
			},
		},
		"no tokens":     {prepare: func(e *env) { e.tokens.away = make(chan struct{}) }, open: true, undo: func(e *env) { close(e.tokens.away) }},
		"opted out":     {prepare: func(e *env) { e.view.set(func() { e.view.optedOut["tn_a+393331234567"] = true }) }},
		"aborted":       {prepare: func(e *env) { e.view.campaign(10001, schemas.StateAborted) }},
		"key forgotten": {prepare: func(*env) {}, age: 55 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inEnv(t, func(e *env) {
				e.carrier.caps.Doubt, e.carrier.caps.KeyWindow = carrier.DoubtKeyHeader, time.Hour
				tc.prepare(e)
				e.start(schemas.LaneBulk)
				items := e.uncertain(tc.age, messages(n)...)
				after(20 * time.Second)
				e.wantSeen(name, 0)
				if !tc.open {
					e.want(name, items, ambiguousKind, schemas.CodeCrash)
					return
				}
				e.wantDoubts(name, items, schemas.CodeCrash)
				e.want(name, items, none, noCode)
				tc.undo(e)
				after(3 * time.Second)
				e.want(name+" no more", items, sent, awaiting)
				e.wantSeen(name+" no more", n)
			})
		})
	}
}

// A carrier that never answers does not hold up the partition for ever, and the lane gives up a doubt that would stop
// the partition.
func TestDoubtIsGivenUp(t *testing.T) {
	inDoubtEnv(t, carrier.DoubtNaturalID, func(e *env) {
		e.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) { return carrier.Result{Outcome: carrier.Throttled}, true }
		items := e.uncertain(0, messages(2)...)
		after(5 * time.Second)
		e.want("carrier busy", items, none, noCode)
		items[1].mu.Lock()
		items[1].crowded = true
		items[1].mu.Unlock()
		after(doubtPauseMax + time.Second)
		e.want("crowded", items[1:], ambiguousKind, schemas.CodeCrash)
		e.want("not crowded", items[:1], none, noCode)
		after(doubtLimit)
		e.want("after the limit", items, ambiguousKind, schemas.CodeCrash)
	})
}

// When a partition moves, its new owner resolves the doubts of its messages.
func TestDoubtGoesWithItsPartition(t *testing.T) {
	inDoubtEnv(t, carrier.DoubtKeyHeader, func(e *env) {
		e.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) { return carrier.Result{Outcome: carrier.Throttled}, true }
		items := e.uncertain(0, messages(1)...)
		after(time.Second)
		items[0].mu.Lock()
		items[0].gone = true
		items[0].mu.Unlock()
		before := len(e.carrier.seen())
		after(time.Minute)
		e.wantSeen("gone", before)
		e.want("gone", items, none, noCode)
		if e.lane.doubts.unended != 0 {
			t.Errorf("got %d doubts, want none", e.lane.doubts.unended)
		}
	})
}

// A hand-over without an answer is in doubt as after a crash, and the doubt ends in the same ways. A late answer ends
// it, too.
func TestSilenceIsADoubt(t *testing.T) {
	inDoubtEnv(t, carrier.DoubtKeyHeader, func(e *env) {
		silent := map[carrier.Key]bool{}
		e.carrier.reply = func(o carrier.Outbound) (carrier.Result, bool) {
			first := !silent[o.Key]
			silent[o.Key] = true
			return carrier.Result{Outcome: carrier.Accepted, Ref: "first"}, !first
		}
		items := e.release(messages(2)...)
		after(1900 * time.Millisecond)
		e.wantSeen("before 2 s", 2)
		after(2 * time.Second)
		e.wantDoubts("after 2 s", items, schemas.CodeTimeout)
		e.want("after 2 s", items, sent, awaiting)
		e.wantSeen("after 2 s", 4)
		// A late answer to the first hand-over: it proves nothing by now
		e.carrier.answer(carrier.Result{Outcome: carrier.Retryable})
		after(time.Second)
		e.want("late", items, sent, awaiting)

		e.view.campaign(10001, schemas.StatePaused) // nothing is handed over again meanwhile
		e.view.campaign(10002, schemas.StateSending)
		silent = map[carrier.Key]bool{}
		other := testMessage(10002, 0, 1)
		items = e.release(other)
		after(1500 * time.Millisecond)
		e.view.campaign(10002, schemas.StatePaused)
		after(time.Second)
		e.wantDoubts("silent", items, schemas.CodeTimeout)
		e.want("silent", items, none, noCode)
		e.carrier.answer(carrier.Result{Outcome: carrier.Accepted, Ref: "late"})
		after(time.Second)
		e.want("late answer", items, sent, awaiting)
		if e.lane.doubts.unended != 0 {
			t.Errorf("got %d doubts, want none", e.lane.doubts.unended)
		}
	})
}

// The sender asks a carrier that answers questions. The answer "not here" counts only once no hand-over can be on its
// way any more; then the message is handed over, or returned, like any other.
func TestDoubtEndsByAsking(t *testing.T) {
	for name, tc := range map[string]struct {
		say  func(since time.Duration) (carrier.Result, error)
		then schemas.State
		kind schemas.Kind
		code schemas.Code
		seen int
	}{
		"has it": {
			say: func(time.Duration) (carrier.Result, error) {
				return carrier.Result{Outcome: carrier.Accepted, Ref: "first"}, nil
			},
			then: schemas.StatePaused, kind: sent, code: awaiting,
		},
		"refused it": {
			say:  func(time.Duration) (carrier.Result, error) { return carrier.Result{Outcome: carrier.Rejected}, nil },
			then: schemas.StateSending, kind: notSentKind, code: schemas.CodeNotSentOther,
		},
		"gets it a second later": {
			say: func(since time.Duration) (carrier.Result, error) {
				if since < time.Second {
					return carrier.Result{Outcome: carrier.Retryable}, nil
				}
				return carrier.Result{Outcome: carrier.Accepted, Ref: "first"}, nil
			},
			then: schemas.StateSending, kind: sent, code: awaiting,
		},
		"does not have it": {
			say:  func(time.Duration) (carrier.Result, error) { return carrier.Result{Outcome: carrier.Retryable}, nil },
			then: schemas.StateSending, kind: sent, code: awaiting, seen: 2,
		},
		"does not have it, paused": {
			say:  func(time.Duration) (carrier.Result, error) { return carrier.Result{Outcome: carrier.Retryable}, nil },
			then: schemas.StatePaused, kind: returnedKind, code: schemas.CodePaused,
		},
		"cannot say yet, and is away": {
			say: func(since time.Duration) (carrier.Result, error) {
				switch {
				case since < 3*time.Second:
					return carrier.Result{Outcome: carrier.Unknown}, nil
				case since < 6*time.Second:
					return carrier.Result{}, errors.New("connection refused")
				}
				return carrier.Result{Outcome: carrier.Accepted, Ref: "first"}, nil
			},
			then: schemas.StateSending, kind: sent, code: awaiting,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inEnv(t, func(e *env) {
				e.carrier.caps.Doubt, e.carrier.caps.QuerySettles = carrier.DoubtQuery, 2*time.Second
				e.view.campaign(10001, tc.then)
				began := time.Now()
				asked := &askedCarrier{fakeCarrier: e.carrier, say: func(carrier.Key) (carrier.Result, error) { return tc.say(time.Since(began)) }}
				e.line = Line{Live: asked}
				e.start(schemas.LaneBulk)
				items := e.uncertain(time.Minute, messages(2)...)
				after(1500 * time.Millisecond)
				e.wantSeen("before its answer is final", 0)
				after(30 * time.Second)
				e.wantDoubts(name, items, schemas.CodeCrash)
				e.want(name, items, tc.kind, tc.code)
				e.wantSeen(name, tc.seen)
				if asked.asked > 20 {
					t.Errorf("got %d questions", asked.asked)
				}
			})
		})
	}
}

// The sender asks about many doubts in questions of bounded size, one at a time.
func TestQuestionsAreBounded(t *testing.T) {
	inEnv(t, func(e *env) {
		e.carrier.caps.Doubt = carrier.DoubtQuery
		asked := &askedCarrier{fakeCarrier: e.carrier, say: func(k carrier.Key) (carrier.Result, error) {
			return carrier.Result{Outcome: carrier.Accepted, Ref: fmt.Sprint(k)}, nil
		}}
		e.line = Line{Live: asked}
		e.start(schemas.LaneBulk)
		items := e.uncertain(0, messages(950)...)
		after(time.Second)
		e.want("asked", items, sent, awaiting)
		if asked.asked != 10 {
			t.Errorf("got %d questions, want 10 of at most %d", asked.asked, maxQuestion)
		}
	})
}
