package carriertest

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"sync"
	"testing"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// model is a connector and its peer. It is correct unless a test plants a bug.
type model struct {
	peer  Peer
	bug   string
	doubt carrier.Doubt

	mu      sync.Mutex
	turn    *sync.Cond
	used    int
	drained bool
	refs    int
	seen    map[carrier.Key]int
	taken   map[carrier.Key]string // the provider's ids
	open    []*pending
	calling int
	owed    []carrier.Receipt
}

type pending struct {
	done     func(int, carrier.Result)
	i        int
	r        carrier.Result
	answered bool
}

func newModel(p Peer, bug string, doubt carrier.Doubt) *model {
	m := &model{peer: p, bug: bug, doubt: doubt, seen: map[carrier.Key]int{}, taken: map[carrier.Key]string{}}
	m.turn = sync.NewCond(&m.mu)
	return m
}

func (m *model) Caps() carrier.Caps {
	caps := carrier.Caps{MaxBatch: min(32, m.peer.Window), EchoesKey: true, Doubt: m.doubt}
	if m.doubt == carrier.DoubtKeyHeader && m.bug != "remembers keys for no time" {
		caps.KeyWindow = time.Hour
	}
	return caps
}

func (m *model) Query(_ context.Context, keys []carrier.Key) ([]carrier.Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]carrier.Result, len(keys))
	for i, k := range keys {
		ref, ok := m.taken[k]
		switch {
		case ok && m.bug == "denies what it has" && i == 0:
			out[i] = carrier.Result{Outcome: carrier.Retryable}
		case ok && m.bug == "forgets its ids":
			out[i] = carrier.Result{Outcome: carrier.Accepted}
		case ok || m.bug == "claims what it has not":
			out[i] = carrier.Result{Outcome: carrier.Accepted, Ref: ref}
		default:
			out[i] = carrier.Result{Outcome: carrier.Retryable}
		}
		if m.bug == "takes what it is asked about" {
			m.seen[k]++
		}
	}
	return out, nil
}

func (m *model) Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	if len(batch) > m.Caps().MaxBatch && m.bug != "takes any batch" {
		return carrier.ErrBatch
	}
	early := make([]bool, len(batch))
	for i := range batch {
		early[i] = m.late(&batch[i])
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	stop := context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.turn.Broadcast()
	})
	defer stop()
	for m.used+len(batch) > m.peer.Window && !m.drained && (ctx.Err() == nil || m.bug == "waits for ever") {
		m.turn.Wait()
	}
	if m.drained && m.bug != "sends after drain" {
		if m.bug == "answers and fails" {
			go done(0, carrier.Result{Outcome: carrier.Retryable})
		}
		return carrier.ErrDrained
	}
	if ctx.Err() != nil {
		if m.bug == "sends past its context" {
			m.seen[batch[0].Key]++
		}
		return ctx.Err()
	}
	for i := range batch {
		o := &batch[i]
		isLate := m.late(o)
		switch m.bug {
		case "tests the deadline too early":
			isLate = early[i]
		case "knows no deadline":
			isLate = false
		}
		p := &pending{done: done, i: i}
		if isLate {
			p.r = carrier.Result{Outcome: carrier.Retryable, Code: carrier.CodeDeadline}
			if m.bug == "blames the carrier" {
				p.r.Code = "timeout"
			}
			if m.bug == "writes what is late" {
				m.seen[o.Key]++
			}
		} else {
			m.refs++
			ref := strconv.Itoa(m.refs)
			had, again := m.taken[o.Key]
			if again = again && (m.doubt == carrier.DoubtKeyHeader || m.doubt == carrier.DoubtNaturalID); again {
				ref = had
			}
			if m.bug == "answers a repeated key as a new message" {
				ref = strconv.Itoa(m.refs)
			}
			if !again || m.bug == "takes a repeated key again" {
				m.seen[o.Key]++
			}
			m.taken[o.Key] = ref
			if m.bug == "hands over twice" {
				m.seen[o.Key]++
			}
			p.r = carrier.Result{Outcome: carrier.Accepted, Ref: ref}
			if m.bug == "no provider's id" {
				p.r.Ref = ""
			}
			if m.peer.Receipts {
				m.owed = append(m.owed, carrier.Receipt{
					Ref: p.r.Ref, Key: o.Key, Status: schemas.ReceiptStatusDelivered, At: time.Now(), Raw: []byte("delivered"),
				})
			}
		}
		m.used++
		m.open = append(m.open, p)
		if m.peer.Silent && !isLate || m.bug == "forgets one" && i == 0 {
			continue
		}
		time.AfterFunc(m.peer.Latency, func() {
			if m.bug == "its context takes back" && ctx.Err() != nil {
				p.r = carrier.Result{Outcome: carrier.Unknown}
			}
			m.answer(p, m.bug == "answers twice")
			if m.bug == "answers after drain" {
				time.AfterFunc(50*time.Millisecond, func() { m.answer(p, true) })
			}
		})
	}
	return nil
}

func (m *model) late(o *carrier.Outbound) bool {
	if m.bug == "ignores the withdrawal" {
		return !o.Deadline.IsZero() && !time.Now().Before(o.Deadline)
	}
	return o.Expired(time.Now())
}

func (m *model) answer(p *pending, again bool) {
	m.mu.Lock()
	if p.answered && !again {
		m.mu.Unlock()
		return
	}
	if !p.answered && m.bug != "leaks its window" {
		m.used--
	}
	p.answered = true
	m.calling++
	m.mu.Unlock()
	p.done(p.i, p.r)
	if again {
		p.done(p.i, p.r)
	}
	m.mu.Lock()
	m.calling--
	m.turn.Broadcast()
	m.mu.Unlock()
}

func (m *model) unanswered() (n int) {
	for _, p := range m.open {
		if !p.answered {
			n++
		}
	}
	return n
}

func (m *model) Drain(ctx context.Context) error {
	m.mu.Lock()
	m.drained = true
	m.turn.Broadcast()
	defer context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.turn.Broadcast()
	})()
	for m.unanswered() > 0 && ctx.Err() == nil {
		m.turn.Wait()
	}
	open := m.open
	m.mu.Unlock()
	if m.bug != "drops what is left" {
		for _, p := range open {
			m.mu.Lock()
			if !p.answered {
				p.r = carrier.Result{Outcome: carrier.Unknown}
				if m.bug == "calls what is left retryable" {
					p.r.Outcome = carrier.Retryable
				}
			}
			m.mu.Unlock()
			m.answer(p, false)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.calling > 0 && m.bug != "leaves calls running" {
		m.turn.Wait()
	}
	return nil
}

func (m *model) Health() carrier.Health {
	m.mu.Lock()
	defer m.mu.Unlock()
	return carrier.Health{Ready: !m.drained || m.bug == "always ready", InFlight: m.used, Window: m.peer.Window}
}

func (m *model) Receipts(ctx context.Context, emit func([]carrier.Receipt) error) error {
	for ctx.Err() == nil {
		m.mu.Lock()
		n := min(len(m.owed), 7)
		list := append([]carrier.Receipt(nil), m.owed[:n]...)
		if m.bug == "acknowledges first" {
			m.owed = m.owed[n:]
		}
		m.mu.Unlock()
		if n > 0 {
			if m.bug == "receipts of no message" {
				list[0].Ref = "unknown"
			}
			if m.bug == "receipts without a key" {
				list[0].Key = carrier.Key{}
			}
			err := emit(list)
			if m.bug == "emits twice at a time" && err == nil {
				go func() { _ = emit(list) }()
				err = emit(list)
			}
			m.mu.Lock()
			if err == nil && m.bug != "acknowledges never" && m.bug != "acknowledges first" {
				m.owed = m.owed[n:]
			}
			m.mu.Unlock()
		}
		pause(ctx, time.Millisecond)
	}
	if m.bug == "ends in an error" {
		return ctx.Err()
	}
	return nil
}

func (m *model) subject() Subject {
	return Subject{
		Connector: m,
		Again:     func() (carrier.Connector, error) { return m, nil },
		Seen: func() (map[carrier.Key]int, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			return maps.Clone(m.seen), nil
		},
	}
}

// TestSuitePassesWhatIsRight: the suite passes a connector that keeps the contract.
func TestSuitePassesWhatIsRight(t *testing.T) {
	for _, doubt := range []carrier.Doubt{carrier.DoubtNone, carrier.DoubtKeyHeader, carrier.DoubtNaturalID, carrier.DoubtQuery} {
		t.Run(doubt.String(), func(t *testing.T) {
			t.Parallel()
			Run(t, func(_ *testing.T, p Peer) Subject { return newModel(p, "", doubt).subject() })
		})
	}
}

// TestSuiteCatches: the suite catches each planted bug, with the check for it.
func TestSuiteCatches(t *testing.T) {
	const key, ask = carrier.DoubtKeyHeader, carrier.DoubtQuery
	for _, c := range []struct {
		bug, check string
		doubt      carrier.Doubt
	}{
		{"answers twice", "one answer for each hand-over", 0},
		{"forgets one", "one answer for each hand-over", 0},
		{"hands over twice", "one answer for each hand-over", 0},
		{"no provider's id", "one answer for each hand-over", 0},
		{"leaks its window", "one answer for each hand-over", 0},
		{"takes any batch", "batches within the limit", 0},
		{"knows no deadline", "nothing is written after the deadline", 0},
		{"writes what is late", "nothing is written after the deadline", 0},
		{"tests the deadline too early", "the deadline holds after waiting for the window", 0},
		{"blames the carrier", "the deadline holds after waiting for the window", 0},
		{"ignores the withdrawal", "a withdrawn message is not written", 0},
		{"waits for ever", "the end of the context ends the wait", 0},
		{"sends past its context", "the end of the context ends the wait", 0},
		{"its context takes back", "the end of the context takes nothing back", 0},
		{"drops what is left", "leftovers at drain are unknown", 0},
		{"calls what is left retryable", "leftovers at drain are unknown", 0},
		{"answers after drain", "nothing after drain", 0},
		{"sends after drain", "nothing after drain", 0},
		{"answers and fails", "nothing after drain", 0},
		{"leaves calls running", "drain waits for the calls that run", 0},
		{"always ready", "health", 0},
		{"acknowledges first", "receipts come until they are taken", 0},
		{"acknowledges never", "receipts come until they are taken", 0},
		{"receipts of no message", "receipts come until they are taken", 0},
		{"receipts without a key", "receipts come until they are taken", 0},
		{"ends in an error", "receipts come until they are taken", 0},
		{"acknowledges first", "receipts go to the next consumer", 0},
		{"remembers keys for no time", "a repeated key makes no second message", key},
		{"takes a repeated key again", "a repeated key makes no second message", key},
		{"answers a repeated key as a new message", "a repeated key makes no second message", key},
		{"takes a repeated key again", "a repeated key whose first was not answered makes no second message", key},
		{"denies what it has", "the carrier knows what it has", ask},
		{"claims what it has not", "the carrier knows what it has", ask},
		{"forgets its ids", "the carrier knows what it has", ask},
		{"takes what it is asked about", "the carrier knows what it has", ask},
	} {
		t.Run(c.bug+"/"+c.check, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			for _, k := range checks {
				if k.name != c.check {
					continue
				}
				err := runCheck(ctx, k, func(p Peer) (Subject, error) { return newModel(p, c.bug, c.doubt).subject(), nil })
				if err == nil {
					t.Fatal("got no error: the suite does not see the bug")
				}
				t.Log(err)
				return
			}
			t.Fatalf("there is no check %q", c.check)
		})
	}
}

// runCheck ends a check that hangs: a limit catches a connector that hangs.
func runCheck(ctx context.Context, c check, open func(Peer) (Subject, error)) error {
	ended := make(chan error, 1)
	go func() { ended <- c.rule(ctx, open) }()
	select {
	case err := <-ended:
		return err
	case <-time.After(2 * time.Second):
		return errors.New("it hangs")
	}
}

// TestNoop: Noop keeps the part of the contract that concerns a connector that never waits.
func TestNoop(t *testing.T) {
	n := &Noop{Batch: 3}
	batch, err := Batch(0, 4)
	if err != nil {
		t.Fatal(err)
	}
	l, err := send(t.Context(), n, batch)
	if !errors.Is(err, carrier.ErrBatch) || l.answered() != 0 {
		t.Errorf("four of three: got error %v and %d answers, want ErrBatch and none", err, l.answered())
	}
	l, err = send(t.Context(), n, batch[:3])
	if err := errors.Join(err, l.all(carrier.Accepted)); err != nil {
		t.Error(err)
	}
	if got := n.Accepted(); got != 3 {
		t.Errorf("got %d accepted, want 3", got)
	}
	if err := n.Drain(t.Context()); err != nil {
		t.Errorf("drain: %v", err)
	}
	if l, err = send(t.Context(), n, batch[:1]); !errors.Is(err, carrier.ErrDrained) || l.answered() != 0 {
		t.Errorf("drained: got error %v and %d answers, want ErrDrained and none", err, l.answered())
	}
}
