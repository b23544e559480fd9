package sender

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/dlrindex"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

// Without an answer in time a message becomes ambiguous, and the window may move on. The sender writes the late answer,
// too.
func TestNoAnswerInTime(t *testing.T) {
	for _, tc := range []struct {
		late carrier.Result
		want []schemas.Kind
	}{
		{carrier.Result{Outcome: carrier.Accepted, Ref: "x"}, []schemas.Kind{sent}},
		{carrier.Result{Outcome: carrier.Rejected}, []schemas.Kind{notSentKind}},
		{carrier.Result{Outcome: carrier.Retryable}, []schemas.Kind{returnedKind}},
		{carrier.Result{Outcome: carrier.Unknown}, nil},
	} {
		inEnv(t, func(e *env) {
			e.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) { return carrier.Result{}, false }
			e.start(schemas.LaneBulk)
			items := e.release(messages(3)...)
			after(1900 * time.Millisecond)
			e.want("before 2 s", items, none, noCode)
			after(150 * time.Millisecond)
			e.want("after 2 s", items, ambiguousKind, schemas.CodeTimeout)
			after(5 * time.Second)
			e.carrier.answer(tc.late)
			synctest.Wait()
			for _, s := range items {
				var got []schemas.Kind
				for _, d := range s.late {
					got = append(got, d.GetKind())
				}
				if !slices.Equal(got, tc.want) {
					t.Errorf("late %s: got %v written, want %v", tc.late.Outcome, got, tc.want)
				}
				if len(got) > 0 && schemas.PrecedenceOf(got[0], 1, s.late[0].GetCode()) <= schemas.PrecedenceOf(ambiguousKind, 1, schemas.CodeTimeout) {
					t.Errorf("late %s does not outrank the doubt", tc.late.Outcome)
				}
			}
		})
	}
}

func TestAnswerLimitFollowsTheRoute(t *testing.T) {
	inEnv(t, func(e *env) {
		e.view.routes["sim"].P99Ms = 2_000
		e.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) { return carrier.Result{}, false }
		e.start(schemas.LaneBulk)
		items := e.release(messages(1)...)
		after(5900 * time.Millisecond)
		e.want("before 3 × p99", items, none, noCode)
		after(200 * time.Millisecond)
		e.want("after 3 × p99", items, ambiguousKind, schemas.CodeTimeout)
	})
}

func TestCarrierThrottles(t *testing.T) {
	inEnv(t, func(e *env) {
		e.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) {
			return carrier.Result{Outcome: carrier.Throttled, RetryAfter: 3 * time.Second}, true
		}
		e.start(schemas.LaneBulk)
		items := e.release(messages(100)...)
		at := time.Now()
		after(20 * time.Millisecond)
		e.want("throttled", items, returnedKind, schemas.CodeThrottled)
		if got := items[0].outcome().GetAgainAtMs() - at.UnixMilli(); got < 3_000 || got > 3_100 {
			t.Errorf("got again in %d ms, want 3,000", got)
		}
		if e.tokens.throttled == 0 {
			t.Error("the limiter was not told")
		}
	})
}

// Five batches in a row without an answer open the breaker: the sender returns all messages with a time. After the
// pause one message tries the carrier; when the carrier answers it, all messages are handed over again.
func TestBreaker(t *testing.T) {
	inEnv(t, func(e *env) {
		dead := true
		e.carrier.caps.MaxBatch = 10
		e.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) {
			if dead {
				return carrier.Result{Outcome: carrier.Retryable, Code: "connect"}, true
			}
			return carrier.Result{Outcome: carrier.Accepted}, true
		}
		e.start(schemas.LaneBulk)
		items := e.release(messages(100)...)
		opened := time.Now()
		after(20 * time.Millisecond)
		e.wantSeen("five batches", 50)
		e.want("of the batches", items[:50], returnedKind, schemas.CodeProviderError)
		e.want("behind them", items[50:], returnedKind, schemas.CodeBreaker)
		for _, s := range items[50:] {
			if in := s.outcome().GetAgainAtMs() - opened.UnixMilli(); in < 5_000 || in > 5_600 {
				t.Errorf("breaker open: got again in %d ms, want 5,000 to 5,600", in)
			}
		}
		after(time.Second)
		e.want("while open", e.release(messages(1)...), returnedKind, afterwards(e))
		after(5 * time.Second)
		items = e.release(messages(30)...)
		after(20 * time.Millisecond)
		e.wantSeen("one tries", 51)
		e.want("the one", items[:1], returnedKind, schemas.CodeProviderError)
		e.want("the others", items[1:], returnedKind, schemas.CodeBreaker)
		after(6 * time.Second)
		dead = false
		items = e.release(messages(30)...)
		after(200 * time.Millisecond)
		e.want("answered again", items, sent, awaiting)
	})
}

// afterwards waits until the messages that were released before have their outcome, and returns the expected code.
func afterwards(*env) schemas.Code {
	after(20 * time.Millisecond)
	return schemas.CodeBreaker
}

// While one message tries the carrier, the others wait and are not returned.
func TestOthersWaitForTheOneThatTries(t *testing.T) {
	inEnv(t, func(e *env) {
		e.carrier.caps.MaxBatch = 1
		slow := false
		e.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) {
			return carrier.Result{Outcome: carrier.Unknown}, !slow
		}
		e.start(schemas.LaneBulk)
		e.release(messages(5)...)
		after(6 * time.Second)
		slow = true
		items := e.release(messages(5)...)
		after(time.Second)
		e.wantSeen("one tries", 6)
		e.want("meanwhile", items, none, noCode)
		slow = false
		e.carrier.reply = nil
		e.carrier.answer(carrier.Result{Outcome: carrier.Accepted})
		after(200 * time.Millisecond)
		e.want("then", items, sent, awaiting)
	})
}

// When Send returns an error, the connector has handed nothing over.
func TestSendFails(t *testing.T) {
	inEnv(t, func(e *env) {
		e.carrier.before = func(context.Context, []carrier.Outbound) error { return errors.New("no route to host") }
		e.start(schemas.LaneBulk)
		items := e.release(messages(3)...)
		after(20 * time.Millisecond)
		e.want("not sent", items, returnedKind, schemas.CodeProviderError)
	})
}

// fakeIndex is a Rendezvous in memory for tests.
type fakeIndex struct {
	mu     sync.Mutex
	env    *env
	fail   bool
	hang   bool
	puts   []dlrindex.Entry
	early  int // puts before their outcome
	clears int
	parked map[string][]*fanfarev1.Receipt
}

func (p *fakeIndex) Put(ctx context.Context, entries []dlrindex.Entry) ([][]*fanfarev1.Receipt, error) {
	p.mu.Lock()
	hang := p.hang
	p.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail {
		return nil, errors.New("LOADING")
	}
	out := make([][]*fanfarev1.Receipt, len(entries))
	for i, e := range entries {
		if p.env.items[e.Submission.Seq()].outcome() == nil {
			p.early++
		}
		p.puts = append(p.puts, e)
		for _, r := range p.parked[e.ProviderID] {
			r.SubmissionId = e.Submission[:]
			out[i] = append(out[i], r)
		}
	}
	return out, nil
}

func (p *fakeIndex) Clear(_ context.Context, entries []dlrindex.Entry) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clears += len(entries)
	if len(p.env.published.all()) == 0 {
		p.env.t.Error("parked receipts are cleared before they are published")
	}
	return nil
}

func (p *fakeIndex) setFail(fail bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = fail
}

func TestRendezvous(t *testing.T) {
	inEnv(t, func(e *env) {
		p := &fakeIndex{env: e, parked: map[string][]*fanfarev1.Receipt{}}
		e.meet, e.carrier.caps.EchoesKey = p, false
		e.start(schemas.LaneBulk)
		early := "ref-" + e.keys.Submission(10001, 1, 1).String()
		p.parked[early] = []*fanfarev1.Receipt{{Route: "sim", ProviderId: early, Status: schemas.ReceiptStatusDelivered}}
		items := e.release(messages(3)...)
		after(20 * time.Millisecond)
		e.want("sent", items, sent, awaiting)
		if len(p.puts) != 3 || p.early != 3 {
			t.Errorf("got %d put, %d of them before their outcome, want 3 and 3", len(p.puts), p.early)
		}
		if got := p.puts[0]; got.Route != "sim" || got.To != "+393331234567" || got.Submission != e.keys.Submission(10001, 0, 1) || got.Life < schemas.DLRIndexTTL {
			t.Errorf("got entry %+v", got)
		}
		recs := e.published.all()
		if len(recs) != 1 || recs[0].Topic != "t.receipts" || p.clears != 1 {
			t.Fatalf("got %d records and %d cleared, want the parked receipt published and then cleared", len(recs), p.clears)
		}
		r := &fanfarev1.Receipt{}
		if err := proto.Unmarshal(recs[0].Value, r); err != nil {
			t.Fatal(err)
		}
		if want := e.keys.Submission(10001, 1, 1); string(r.GetSubmissionId()) != string(want[:]) {
			t.Errorf("got receipt %v, want it with its submission", r)
		}

		// A long text whose parts have their own ids gets an entry for each part.
		e.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) {
			return carrier.Result{Outcome: carrier.Accepted, Ref: "a", Parts: 3, PartRefs: []string{"a", "", "c"}}, true
		}
		items = e.release(testMessage(10001, 3, 1))
		after(20 * time.Millisecond)
		e.want("in parts", items, sent, awaiting)
		if got := p.puts[3:]; len(got) != 2 || got[0].ProviderID != "a" || got[0].Part != 1 || got[1].ProviderID != "c" || got[1].Part != 3 || got[1].Parts != 3 {
			t.Errorf("in parts: got entries %+v, want parts 1 and 3 of 3", got)
		}
		if got := items[0].outcome().GetPartProviderIds(); len(got) != 3 {
			t.Errorf("in parts: got %q, want the ids of all parts", got)
		}
		p.puts, e.carrier.reply = p.puts[:3], nil

		// While Redis is unreachable, the sender writes known outcomes and indexes their ids later.
		p.setFail(true)
		items = e.release(testMessage(10001, 4, 1))
		after(time.Second)
		e.want("Redis away", items, sent, awaiting)
		p.setFail(false)
		after(5 * time.Second)
		if len(p.puts) != 4 {
			t.Errorf("Redis back: got %d put, want 4", len(p.puts))
		}

		// If Redis does not answer at all, the sender waits for half a second.
		p.mu.Lock()
		p.hang = true
		p.mu.Unlock()
		items = e.release(testMessage(10001, 5, 1))
		after(indexTimeout + 100*time.Millisecond)
		e.want("Redis hangs", items, sent, awaiting)
		p.mu.Lock()
		p.hang = false
		p.mu.Unlock()
		after(5 * time.Second)
		if len(p.puts) != 5 {
			t.Errorf("Redis answers again: got %d put, want 5", len(p.puts))
		}

		// After a takeover, the new owner indexes the ids that the last owner may not have indexed, except those of old
		// outcomes and of messages that were not sent.
		e.lane.indexer.reread(items[0].settled)
		e.lane.indexer.reread(&kgo.Record{Value: []byte("not a delivery")})
		after(time.Second)
		if len(p.puts) != 6 || p.puts[5].Submission != e.keys.Submission(10001, 5, 1) || p.puts[5].ProviderID != p.puts[4].ProviderID {
			t.Errorf("after a takeover: got %d put, want 6, the last one that of the message before", len(p.puts))
		}
		// While Redis is away, entries of earlier owners must not displace entries of this process.
		p.setFail(true)
		e.release(testMessage(10001, 6, 1))
		after(time.Second)
		for range maxOwed + 1 {
			e.lane.indexer.reread(items[0].settled)
		}
		after(5 * time.Second)
		p.setFail(false)
		after(10 * time.Second)
		own := e.keys.Submission(10001, 6, 1)
		if n := len(p.puts) - 6; n != maxOwed+2 || !slices.ContainsFunc(p.puts, func(x dlrindex.Entry) bool { return x.Submission == own }) {
			t.Errorf("Redis away at a takeover: got %d put, want %d with that of this process", n, maxOwed+2)
		}
		put := len(p.puts)
		after(rereadFor)
		e.lane.indexer.reread(items[0].settled)
		after(time.Second)
		if len(p.puts) != put {
			t.Errorf("too old: got %d put, want none", len(p.puts)-put)
		}
	})
}
