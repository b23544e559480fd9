package smpp

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/smpp/pdu"
)

// Deps are what a connector works with.
type Deps struct {
	// Account is the name of the account in receipts and logs: the route's name. Empty: the system id.
	Account string
	// Logger may be nil.
	Logger *slog.Logger
	// Dial opens connections; nil: TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
}

// Connector keeps sessions with one account at one message centre.
type Connector struct {
	cfg     *resolved
	account string
	log     *slog.Logger
	dial    func(ctx context.Context, addr string) (net.Conn, error)
	work    sync.Pool

	stop    context.CancelFunc // ends the sessions
	running sync.WaitGroup     // the goroutines of the sessions
	over    chan struct{}      // closed when nothing more can arrive

	mu         sync.Mutex
	turn       *sync.Cond // signals that a condition of Drain has changed
	closed     bool       // Drain was called
	sessions   map[*session]struct{}
	submitters []*session // sessions that are bound and take hand-overs
	waiters    []*waiter
	pace       pace
	used       int // hand-overs without an answer
	active     int // running calls of Send
	calling    int // running calls of done
	throttled  float64
	lastErr    error
	receipts   box
	messages   box
	late       uint64 // answers that came after the wait for them had ended
	lateRefs   keysByRef
}

var (
	_ carrier.Connector     = (*Connector)(nil)
	_ carrier.ReceiptSource = (*Connector)(nil)
	_ carrier.InboundSource = (*Connector)(nil)
)

// Dial connects and binds one session, and returns the connector. If the message centre refuses the bind, the error is
// a [*BindError]. The connector binds all other sessions in the background. The caller must call Drain.
func Dial(ctx context.Context, cfg Config, deps Deps) (*Connector, error) {
	s, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	c := &Connector{
		cfg: s, account: cmp.Or(deps.Account, s.SystemID), log: deps.Logger, dial: deps.Dial,
		over: make(chan struct{}), sessions: map[*session]struct{}{}, pace: pace{rate: float64(s.Throughput)},
		receipts: box{more: make(chan struct{}, 1), holds: true}, messages: box{more: make(chan struct{}, 1)},
	}
	c.turn = sync.NewCond(&c.mu)
	c.work.New = func() any { return &batchWork{encoder: newEncoder(s)} }
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.log = c.log.With("account", c.account)
	if c.dial == nil {
		c.dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}
	}
	first := pdu.BindTransceiver
	if s.Split {
		first = pdu.BindTransmitter
	}
	bound, err := c.open(ctx, first)
	if err != nil {
		return nil, &dialError{addr: s.addr, err: err}
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	c.attach(bound)
	c.running.Go(func() { c.keep(run, first, bound) })
	for range s.Binds - 1 {
		c.running.Go(func() { c.keep(run, first, nil) })
	}
	for range s.Binds {
		if s.Split {
			c.running.Go(func() { c.keep(run, pdu.BindReceiver, nil) })
		}
	}
	return c, nil
}

// dialError adds the address of the message centre to an error.
type dialError struct {
	addr string
	err  error
}

func (e *dialError) Error() string { return "smpp: message centre " + e.addr + ": " + e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// Caps implements [carrier.Connector].
func (c *Connector) Caps() carrier.Caps { return c.cfg.caps() }

func (s *resolved) caps() carrier.Caps {
	caps := carrier.Caps{
		MaxBatch: MaxBatch, EchoesKey: s.ReferenceEchoed, Receipts: carrier.ReceiptsSession, Pacing: carrier.PacingSegments,
		AnswerTimeout: time.Duration(s.AnswerTimeout),
	}
	if s.registered == 0 {
		caps.Receipts = carrier.ReceiptsNone
	}
	return caps
}

// Health implements [carrier.Connector].
func (c *Connector) Health() carrier.Health {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := carrier.Health{
		Ready: !c.closed && len(c.submitters) > 0, Sessions: len(c.sessions), InFlight: c.used, Throttled: c.throttled, LastError: c.lastErr,
	}
	for _, s := range c.submitters {
		h.Window += s.width()
	}
	return h
}

// noteThrottled counts the answer to a hand-over in an average, with a weight of one hundredth. The caller holds the
// lock.
func (c *Connector) noteThrottled(throttled bool) {
	c.throttled *= 0.99
	if throttled {
		c.throttled += 0.01
	}
	c.lastErr = nil
}

// attach puts a session into use.
func (c *Connector) attach(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastErr = nil
	c.sessions[s] = struct{}{}
	if s.submits() {
		c.submitters = append(c.submitters, s)
		c.grantWaiting()
	}
}

// detach takes a session out of use. The caller holds the lock.
func (c *Connector) detach(s *session, err error) {
	if !errors.Is(err, errDrained) {
		c.lastErr = err
	}
	delete(c.sessions, s)
	for i, x := range c.submitters {
		if x == s {
			c.submitters = append(c.submitters[:i:i], c.submitters[i+1:]...)
			break
		}
	}
}

// Drain implements [carrier.Connector]. It unbinds, so no receipts come afterwards.
func (c *Connector) Drain(ctx context.Context) error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	for _, w := range c.waiters {
		w.granted <- grant{err: carrier.ErrDrained}
	}
	c.waiters = nil
	c.mu.Unlock()
	if !first {
		<-c.over
		return nil
	}
	c.await(ctx, func() bool { return c.used == 0 && c.active == 0 })
	c.mu.Lock()
	idle := c.used == 0
	all := make([]*session, 0, len(c.sessions))
	for s := range c.sessions {
		all = append(all, s)
	}
	c.mu.Unlock()
	if idle {
		c.unbind(all)
	}
	for _, s := range all {
		s.fail(errDrained, writtenUnknown)
	}
	c.stop()
	c.running.Wait()
	c.await(context.WithoutCancel(ctx), func() bool { return c.used == 0 && c.active == 0 && c.calling == 0 })
	close(c.over)
	return nil
}

// await waits until done, or until ctx ends.
func (c *Connector) await(ctx context.Context, done func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.turn.Broadcast()
	})()
	for !done() && ctx.Err() == nil {
		c.turn.Wait()
	}
}

// farewell is how long the connector waits for the answer to unbind.
const farewell = 500 * time.Millisecond

// unbind sends unbind on sessions without unanswered hand-overs.
func (c *Connector) unbind(all []*session) {
	c.mu.Lock()
	for _, s := range all {
		s.send(pdu.Header{Command: pdu.Unbind, Sequence: s.next()})
	}
	c.mu.Unlock()
	timer := time.NewTimer(farewell)
	defer timer.Stop()
	for _, s := range all {
		select {
		case <-s.ended:
		case <-timer.C:
			return
		}
	}
}
