package carriertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// Peer says how the carrier's side behaves in one check.
type Peer struct {
	// Window is how many hand-overs may wait for their answers; the connector must be opened with it. At least 1.
	Window int
	// Latency is how long each answer takes.
	Latency time.Duration
	// Silent: the peer accepts everything and never answers.
	Silent bool
	// Receipts: each accepted message is delivered, and its receipt comes soon after. Otherwise no receipts come.
	Receipts bool
}

// Subject is a connector opened at a peer.
type Subject struct {
	Connector carrier.Connector
	// Seen returns how often the peer has accepted each submission, according to the peer. Repetitions that it has
	// ignored do not count.
	Seen func() (map[carrier.Key]int, error)
	// Again opens another connector with the same peer and account, as another process would.
	Again func() (carrier.Connector, error)
}

// check is one rule of the contract.
type check struct {
	name string
	rule func(ctx context.Context, open func(Peer) (Subject, error)) error
}

var checks = []check{
	{"one answer for each hand-over", oneAnswer},
	{"an empty batch", emptyBatch},
	{"batches within the limit", batchLimit},
	{"nothing is written after the deadline", deadline},
	{"the deadline holds after waiting for the window", deadlineAfterWaiting},
	{"a withdrawn message is not written", withdrawn},
	{"the end of the context ends the wait", contextEndsWait},
	{"the end of the context takes nothing back", contextTakesNothingBack},
	{"leftovers at drain are unknown", leftovers},
	{"nothing after drain", nothingAfterDrain},
	{"drain waits for the calls that run", drainWaits},
	{"health", health},
	{"a repeated key makes no second message", repeatedKey},
	{"a repeated key whose first was not answered makes no second message", repeatedUnanswered},
	{"the carrier knows what it has", query},
	{"receipts come until they are taken", receiptsUntilTaken},
	{"receipts go to the next consumer", receiptsToTheNext},
}

// limit is the longest time of one check. A connector that keeps the contract needs about a second.
const limit = 20 * time.Second

// Run tests the connector that open opens against the contract. Each check calls open; open registers its cleanup with
// t.
func Run(t *testing.T, open func(t *testing.T, peer Peer) Subject) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			err := c.rule(ctx, func(p Peer) (Subject, error) { return open(t, p), nil })
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// keys are the keys of this package's submissions.
var keys = sync.OnceValues(func() (*schemas.Keys, error) {
	return schemas.NewKeys([]byte("a key of the carriers' conformance suite"))
})

// Batch returns n messages with consecutive numbers from first on, each to another phone number.
func Batch(first, n int) ([]carrier.Outbound, error) {
	k, err := keys()
	if err != nil {
		return nil, err
	}
	batch := make([]carrier.Outbound, n)
	for i := range batch {
		seq := first + i
		batch[i] = carrier.Outbound{
			Key: k.Submission(10001, uint32(seq), 1), Channel: schemas.ChannelSMS,
			To: fmt.Sprintf("+39347%07d", seq), From: "FANFARE",
			Body: carrier.Body{Text: carrier.Text{Body: "hello", Encoding: schemas.EncodingGSM7, Segments: 1}},
		}
	}
	return batch, nil
}

// batchLog records the answers to one batch.
type batchLog struct {
	keys []carrier.Key

	mu      sync.Mutex
	results []carrier.Result
	calls   []int
	left    int
	ended   chan struct{} // closed when every index has an answer
	wrong   error
}

// send sends the batch and records the answers. It returns the error of Send.
func send(ctx context.Context, c carrier.Connector, batch []carrier.Outbound) (*batchLog, error) {
	l := &batchLog{
		results: make([]carrier.Result, len(batch)), calls: make([]int, len(batch)), left: len(batch), ended: make(chan struct{}),
	}
	for i := range batch {
		l.keys = append(l.keys, batch[i].Key)
	}
	err := c.Send(ctx, batch, func(i int, r carrier.Result) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if i < 0 || i >= len(l.calls) {
			l.wrong = fmt.Errorf("done was called for index %d of a batch of %d", i, len(l.calls))
			return
		}
		if l.calls[i]++; l.calls[i] > 1 {
			return
		}
		l.results[i] = r
		if l.left--; l.left == 0 {
			close(l.ended)
		}
	})
	return l, err
}

// wait waits until every index has an answer.
func (l *batchLog) wait(ctx context.Context) error {
	select {
	case <-l.ended:
		return l.check()
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		return fmt.Errorf("%d of %d hand-overs got no answer: %w", l.left, len(l.calls), ctx.Err())
	}
}

// check returns an error unless each index has at most one answer so far, with a known outcome.
func (l *batchLog) check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wrong != nil {
		return l.wrong
	}
	for i, n := range l.calls {
		if n > 1 {
			return fmt.Errorf("index %d: done was called %d times, want 1", i, n)
		}
		if r := l.results[i]; n == 1 && (r.Outcome < carrier.Accepted || r.Outcome > carrier.Unsupported) {
			return fmt.Errorf("index %d: got outcome %d, which is none", i, r.Outcome)
		}
	}
	return nil
}

// all returns an error unless every index has the wanted outcome.
func (l *batchLog) all(want carrier.Outcome) error {
	if err := l.check(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, r := range l.results {
		if l.calls[i] == 0 {
			return fmt.Errorf("index %d: got no answer, want %v", i, want)
		}
		if r.Outcome != want {
			return fmt.Errorf("index %d: got %v (code %q), want %v", i, r.Outcome, r.Code, want)
		}
		if want == carrier.Accepted && r.Ref == "" {
			return fmt.Errorf("index %d: accepted without a provider's id", i)
		}
	}
	return nil
}

// notWritten returns an error unless every index was answered as not written: Retryable with CodeDeadline.
func (l *batchLog) notWritten() error {
	if err := l.all(carrier.Retryable); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, r := range l.results {
		if r.Code != carrier.CodeDeadline {
			return fmt.Errorf("index %d: got code %q, want %q: the carrier was not asked", i, r.Code, carrier.CodeDeadline)
		}
	}
	return nil
}

func (l *batchLog) answered() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.calls {
		n += c
	}
	return n
}

// seen returns an error unless the peer has accepted each submission as often as want says.
func seen(s Subject, keys []carrier.Key, want func(i, n int) error) error {
	counts, err := s.Seen()
	if err != nil {
		return fmt.Errorf("what the peer has seen: %w", err)
	}
	return compare(counts, keys, want)
}

func compare(counts map[carrier.Key]int, keys []carrier.Key, want func(i, n int) error) error {
	for i, k := range keys {
		if err := want(i, counts[k]); err != nil {
			return err
		}
	}
	return nil
}

func exactly(want int) func(i, n int) error {
	return func(i, n int) error {
		if n != want {
			return fmt.Errorf("index %d: the peer has it %d times, want %d", i, n, want)
		}
		return nil
	}
}

// honest compares each result with the messages of the peer: it has an accepted message once, a message that was
// certainly not accepted never, and any other message at most once.
func honest(s Subject, logs ...*batchLog) error {
	counts, err := s.Seen()
	if err != nil {
		return fmt.Errorf("what the peer has seen: %w", err)
	}
	for _, l := range logs {
		if err := l.honest(counts); err != nil {
			return err
		}
	}
	return nil
}

func (l *batchLog) honest(counts map[carrier.Key]int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return compare(counts, l.keys, func(i, n int) error {
		switch o := l.results[i].Outcome; {
		case o == carrier.Accepted && n != 1:
			return fmt.Errorf("index %d: accepted, and the peer has it %d times, want 1", i, n)
		case o == carrier.Retryable && n != 0:
			return fmt.Errorf("index %d: said to be certainly not taken, and the peer has it", i)
		case n > 1:
			return fmt.Errorf("index %d: the peer has it %d times, want at most 1", i, n)
		}
		return nil
	})
}

// refused returns an error unless Send returned an error and gave no result.
func refused(l *batchLog, err, want error) error {
	if err == nil {
		return fmt.Errorf("got no error, want %w", want)
	}
	if want != nil && !errors.Is(err, want) {
		return fmt.Errorf("got error %w, want %w", err, want)
	}
	if n := l.answered(); n != 0 {
		return fmt.Errorf("Send returned an error (%w), and done was called %d times, want 0", err, n)
	}
	return nil
}

// untouched returns an error unless Send returned an error and the peer has no message of the batch.
func untouched(s Subject, l *batchLog, err, want error) error {
	if err := refused(l, err, want); err != nil {
		return err
	}
	return seen(s, l.keys, exactly(0))
}
