package sender

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/stream/rendezvous"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

// No answer in time: ambiguous, and the window may move on. The late answer is written too.
func TestNoAnswerInTime(t *testing.T) {
	for _, tc := range []struct {
		late carrier.Result
		want []fanfarev1.Kind
	}{
		{carrier.Result{Outcome: carrier.Accepted, Ref: "x"}, []fanfarev1.Kind{sent}},
		{carrier.Result{Outcome: carrier.Rejected}, []fanfarev1.Kind{neverSent}},
		{carrier.Result{Outcome: carrier.Retryable}, []fanfarev1.Kind{gaveBack}},
		{carrier.Result{Outcome: carrier.Unknown}, nil},
	} {
		inWorld(t, func(w *world) {
			w.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) { return carrier.Result{}, false }
			w.start(schemas.LaneBulk)
			slips := w.release(messages(3)...)
			after(1900 * time.Millisecond)
			w.want("before 2 s", slips, none, noCode)
			after(150 * time.Millisecond)
			w.want("after 2 s", slips, doubtful, fanfarev1.Code_CODE_TIMEOUT)
			after(5 * time.Second)
			w.carrier.answer(tc.late)
			synctest.Wait()
			for _, s := range slips {
				var got []fanfarev1.Kind
				for _, d := range s.late {
					got = append(got, d.GetKind())
				}
				if !slices.Equal(got, tc.want) {
					t.Errorf("late %s: got %v written, want %v", tc.late.Outcome, got, tc.want)
				}
				if len(got) > 0 && schemas.PrecedenceOf(got[0], 1, s.late[0].GetCode()) <= schemas.PrecedenceOf(doubtful, 1, fanfarev1.Code_CODE_TIMEOUT) {
					t.Errorf("late %s does not outrank the doubt", tc.late.Outcome)
				}
			}
		})
	}
}

func TestAnswerLimitFollowsTheRoute(t *testing.T) {
	inWorld(t, func(w *world) {
		w.view.routes["sim"].P99Ms = 2_000
		w.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) { return carrier.Result{}, false }
		w.start(schemas.LaneBulk)
		slips := w.release(messages(1)...)
		after(5900 * time.Millisecond)
		w.want("before 3 × p99", slips, none, noCode)
		after(200 * time.Millisecond)
		w.want("after 3 × p99", slips, doubtful, fanfarev1.Code_CODE_TIMEOUT)
	})
}

func TestCarrierThrottles(t *testing.T) {
	inWorld(t, func(w *world) {
		w.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) {
			return carrier.Result{Outcome: carrier.Throttled, RetryAfter: 3 * time.Second}, true
		}
		w.start(schemas.LaneBulk)
		slips := w.release(messages(100)...)
		at := time.Now()
		after(20 * time.Millisecond)
		w.want("throttled", slips, gaveBack, fanfarev1.Code_CODE_THROTTLED)
		if got := slips[0].outcome().GetAgainAtMs() - at.UnixMilli(); got < 3_000 || got > 3_100 {
			t.Errorf("got again in %d ms, want 3,000", got)
		}
		if w.tokens.throttled == 0 {
			t.Error("the limiter was not told")
		}
	})
}

// Five batches in a row without an answer open the breaker: everything is given back with a time. After the pause one message
// tries; when it is answered, everything goes on.
func TestBreaker(t *testing.T) {
	inWorld(t, func(w *world) {
		dead := true
		w.carrier.caps.MaxBatch = 10
		w.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) {
			if dead {
				return carrier.Result{Outcome: carrier.Retryable, Code: "connect"}, true
			}
			return carrier.Result{Outcome: carrier.Accepted}, true
		}
		w.start(schemas.LaneBulk)
		slips := w.release(messages(100)...)
		opened := time.Now()
		after(20 * time.Millisecond)
		w.wantSeen("five batches", 50)
		w.want("of the batches", slips[:50], gaveBack, fanfarev1.Code_CODE_PROVIDER_ERROR)
		w.want("behind them", slips[50:], gaveBack, fanfarev1.Code_CODE_BREAKER)
		for _, s := range slips[50:] {
			if in := s.outcome().GetAgainAtMs() - opened.UnixMilli(); in < 5_000 || in > 5_600 {
				t.Errorf("breaker open: got again in %d ms, want 5,000 to 5,600", in)
			}
		}
		after(time.Second)
		w.want("while open", w.release(messages(1)...), gaveBack, none2code(w))
		after(5 * time.Second)
		slips = w.release(messages(30)...)
		after(20 * time.Millisecond)
		w.wantSeen("one tries", 51)
		w.want("the one", slips[:1], gaveBack, fanfarev1.Code_CODE_PROVIDER_ERROR)
		w.want("the others", slips[1:], gaveBack, fanfarev1.Code_CODE_BREAKER)
		after(6 * time.Second)
		dead = false
		slips = w.release(messages(30)...)
		after(200 * time.Millisecond)
		w.want("answered again", slips, sent, awaiting)
	})
}

// none2code waits for the outcome of what was released just now.
func none2code(*world) fanfarev1.Code {
	after(20 * time.Millisecond)
	return fanfarev1.Code_CODE_BREAKER
}

// While one message tries, the others wait; they are not given back.
func TestOthersWaitForTheOneThatTries(t *testing.T) {
	inWorld(t, func(w *world) {
		w.carrier.caps.MaxBatch = 1
		slow := false
		w.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) {
			return carrier.Result{Outcome: carrier.Unknown}, !slow
		}
		w.start(schemas.LaneBulk)
		w.release(messages(5)...)
		after(6 * time.Second)
		slow = true
		slips := w.release(messages(5)...)
		after(time.Second)
		w.wantSeen("one tries", 6)
		w.want("meanwhile", slips, none, noCode)
		slow = false
		w.carrier.reply = nil
		w.carrier.answer(carrier.Result{Outcome: carrier.Accepted})
		after(200 * time.Millisecond)
		w.want("then", slips, sent, awaiting)
	})
}

// A connector that could not send has handed nothing over.
func TestSendFails(t *testing.T) {
	inWorld(t, func(w *world) {
		w.carrier.before = func(context.Context, []carrier.Outbound) error { return errors.New("no route to host") }
		w.start(schemas.LaneBulk)
		slips := w.release(messages(3)...)
		after(20 * time.Millisecond)
		w.want("not sent", slips, gaveBack, fanfarev1.Code_CODE_PROVIDER_ERROR)
	})
}

// table is a rendezvous that a test writes.
type table struct {
	mu     sync.Mutex
	world  *world
	fail   bool
	hang   bool
	puts   []rendezvous.Entry
	early  int // puts before their outcome
	clears int
	parked map[string][]*fanfarev1.Receipt
}

func (p *table) Put(ctx context.Context, entries []rendezvous.Entry) ([][]*fanfarev1.Receipt, error) {
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
		if p.world.slips[e.Submission.Seq()].outcome() == nil {
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

func (p *table) Clear(_ context.Context, entries []rendezvous.Entry) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clears += len(entries)
	if len(p.world.ledger.all()) == 0 {
		p.world.t.Error("parked receipts are cleared before they are published")
	}
	return nil
}

func (p *table) setFail(fail bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = fail
}

func TestRendezvous(t *testing.T) {
	inWorld(t, func(w *world) {
		p := &table{world: w, parked: map[string][]*fanfarev1.Receipt{}}
		w.meet, w.carrier.caps.EchoesKey = p, false
		w.start(schemas.LaneBulk)
		early := "ref-" + w.keys.Submission(10001, 1, 1).String()
		p.parked[early] = []*fanfarev1.Receipt{{Route: "sim", ProviderId: early, Status: fanfarev1.ReceiptStatus_RECEIPT_STATUS_DELIVERED}}
		slips := w.release(messages(3)...)
		after(20 * time.Millisecond)
		w.want("sent", slips, sent, awaiting)
		if len(p.puts) != 3 || p.early != 3 {
			t.Errorf("got %d put, %d of them before their outcome, want 3 and 3", len(p.puts), p.early)
		}
		if e := p.puts[0]; e.Route != "sim" || e.To != "+393331234567" || e.Submission != w.keys.Submission(10001, 0, 1) || e.Life < schemas.RendezvousTTL {
			t.Errorf("got entry %+v", e)
		}
		recs := w.ledger.all()
		if len(recs) != 1 || recs[0].Topic != "t.receipts" || p.clears != 1 {
			t.Fatalf("got %d records and %d cleared, want the parked receipt published and then cleared", len(recs), p.clears)
		}
		r := &fanfarev1.Receipt{}
		if err := proto.Unmarshal(recs[0].Value, r); err != nil {
			t.Fatal(err)
		}
		if want := w.keys.Submission(10001, 1, 1); string(r.GetSubmissionId()) != string(want[:]) {
			t.Errorf("got receipt %v, want it with its submission", r)
		}

		// Redis away: what is known is written, what is owed is put later.
		p.setFail(true)
		slips = w.release(testMessage(10001, 3, 1))
		after(time.Second)
		w.want("Redis away", slips, sent, awaiting)
		p.setFail(false)
		after(5 * time.Second)
		if len(p.puts) != 4 {
			t.Errorf("Redis back: got %d put, want 4", len(p.puts))
		}

		// Redis that says nothing at all is waited for half a second.
		p.mu.Lock()
		p.hang = true
		p.mu.Unlock()
		slips = w.release(testMessage(10001, 4, 1))
		after(ferryPatience + 100*time.Millisecond)
		w.want("Redis hangs", slips, sent, awaiting)
		p.mu.Lock()
		p.hang = false
		p.mu.Unlock()
		after(5 * time.Second)
		if len(p.puts) != 5 {
			t.Errorf("Redis answers again: got %d put, want 5", len(p.puts))
		}
	})
}
