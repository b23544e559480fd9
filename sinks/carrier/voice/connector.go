package voice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/inflight"
	"fanfare/sinks/carrier/once"
)

// Deps are what a connector works with.
type Deps struct {
	// Account is the name of the account in receipts: the route's name.
	Account string
	// Logger may be nil.
	Logger *slog.Logger
}

// Connector makes the calls of one account. The first call of Send or Receipts connects it; Drain ends it.
type Connector struct {
	cfg  *account
	name string
	log  *slog.Logger
	book *inflight.Book
	// dials makes calls; control makes all other requests, so that they never wait for the answer to a hand-over.
	dials, control *once.Client
	socket         *http.Client

	life   context.Context //nolint:containedctx // of all that works for the connector; Drain ends it
	end    context.CancelFunc
	start  sync.Once
	over   chan struct{} // closed when all goroutines of the connector have ended
	more   chan struct{} // has room for one value, which says that the box has a new receipt
	acting sync.WaitGroup

	mu       sync.Mutex
	turn     *sync.Cond // signals: a call ended, the connection changed, receipts were taken, or Drain was called
	closed   bool
	ready    bool  // connected, and all existing calls are known
	failed   error // why it is not connected; nil if no attempt has failed yet
	calls    map[string]*call
	reserved int // places of hand-overs that have not become calls yet
	ended    map[string]time.Time
	box      []said
	taken    bool // a call of Receipts is running
	connects int  // how often the connector has connected
}

var (
	_ carrier.Connector     = (*Connector)(nil)
	_ carrier.ReceiptSource = (*Connector)(nil)
)

// maxBook limits the hand-overs that wait for an answer. It is high, because MaxConcurrent limits the calls.
const maxBook = 1 << 20

// maxChannels limits the answer to GET /channels, which has no pages: 64,000 channels of about 1 KB.
const maxChannels = 64 << 20

// New returns a connector. It connects at the first call of Send or Receipts.
func New(cfg Config, deps Deps) (*Connector, error) {
	a, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	c := &Connector{
		cfg: a, name: deps.Account, log: deps.Logger, book: inflight.New(maxBook),
		dials:   once.New(once.Config{Window: a.MaxConcurrent, Timeout: a.timeout, Roots: a.roots}),
		control: once.New(once.Config{Window: controlWindow, Timeout: a.timeout, Roots: a.roots, MaxAnswer: maxChannels}),
		socket:  socketClient(a.roots),
		over:    make(chan struct{}), more: make(chan struct{}, 1), calls: map[string]*call{}, ended: map[string]time.Time{},
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.turn = sync.NewCond(&c.mu)
	c.life, c.end = context.WithCancel(context.Background())
	return c, nil
}

// begin starts the connection once. Drain waits for its goroutine.
func (c *Connector) begin() {
	c.start.Do(func() {
		go func() {
			defer close(c.over)
			c.run(c.life)
			c.acting.Wait()
		}()
	})
}

// Caps implements [carrier.Connector].
func (c *Connector) Caps() carrier.Caps {
	return carrier.Caps{
		MaxBatch: 1, Doubt: carrier.DoubtNone, EchoesKey: true, Receipts: carrier.ReceiptsSession, Pacing: carrier.PacingConcurrent,
		AnswerTimeout: c.cfg.timeout,
	}
}

// Errors of acquire.
var (
	errLate = errors.New("the message has expired")
	errDown = errors.New("there is no connection")
)

// Send implements [carrier.Connector]. It waits until one of the MaxConcurrent places is free.
func (c *Connector) Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	switch {
	case len(batch) == 0:
		return nil
	case len(batch) > 1:
		return carrier.ErrBatch
	}
	c.begin()
	o := &batch[0]
	p, refused := c.cfg.plan(o)
	var err error
	if refused == nil {
		err = c.acquire(ctx, o.Deadline)
	}
	if err != nil && !errors.Is(err, errLate) && !errors.Is(err, errDown) {
		return err // the connector was drained, or ctx has ended
	}
	holds := refused == nil && err == nil
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f, beginErr := c.book.Begin(ctx, 1, done, cancel)
	if beginErr != nil {
		cancel()
		if holds {
			c.release()
		}
		return beginErr
	}
	go func() {
		defer c.book.Leave()
		defer cancel()
		switch {
		case refused != nil:
			f.Answer(0, *refused)
		case errors.Is(err, errLate):
			f.Answer(0, carrier.Result{Outcome: carrier.Retryable, Code: carrier.CodeDeadline})
		case err != nil:
			f.Answer(0, carrier.Result{Outcome: carrier.Retryable, Code: "not connected", RetryAfter: time.Second})
		default:
			f.Answer(0, c.submit(work, o, p))
		}
	}()
	return nil
}

// acquire waits for a place for one call.
func (c *Connector) acquire(ctx context.Context, deadline time.Time) error {
	wait := ctx
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		wait, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	defer context.AfterFunc(wait, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.turn.Broadcast()
	})()
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return carrier.ErrDrained
		case ctx.Err() != nil:
			return ctx.Err()
		case wait.Err() != nil:
			return errLate
		case c.ready && len(c.calls)+c.reserved < c.cfg.MaxConcurrent && len(c.box) < mostWaiting:
			c.reserved++
			return nil
		case !c.ready && c.failed != nil:
			return errDown
		}
		c.turn.Wait()
	}
}

// release frees a place that has not become a call.
func (c *Connector) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reserved--
	c.turn.Broadcast()
}

// enter turns a place into a call. It returns nil if the call exists already.
func (c *Connector) enter(key carrier.Key, p plan) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reserved--
	c.turn.Broadcast()
	id := c.cfg.channelID(key)
	if c.calls[id] != nil {
		return nil
	}
	k := &call{id: id, key: key, plan: p, known: true, posting: true, session: c.connects}
	c.calls[id] = k
	return k
}

// submit makes one call.
func (c *Connector) submit(ctx context.Context, o *carrier.Outbound, p plan) carrier.Result {
	if o.Expired(time.Now()) {
		c.release()
		return carrier.Result{Outcome: carrier.Retryable, Code: carrier.CodeDeadline}
	}
	k := c.enter(o.Key, p)
	if k == nil {
		return carrier.Result{Outcome: carrier.Accepted, Ref: c.cfg.channelID(o.Key)}
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.timeout)
	defer cancel()
	query := url.Values{
		"endpoint": {c.cfg.endpoint(o.To)}, "app": {c.cfg.App}, "appArgs": {"call"}, "channelId": {k.id},
		"timeout": {strconv.Itoa(int(c.cfg.ringFor(o, time.Now()).Seconds()))},
	}
	if from := cmp.Or(o.From, c.cfg.CallerID); from != "" {
		query.Set("callerId", from)
	}
	body, err := p.variables(c.cfg.App)
	if err != nil {
		c.drop(k)
		return carrier.Result{Outcome: carrier.Rejected, Sub: schemas.CodeRenderError, Code: "variables"}
	}
	expired := func() bool { return o.Expired(time.Now()) || !c.mayDial() }
	a, err := c.request(ctx, c.dials, http.MethodPost, "channels", query, body, expired)
	if err != nil {
		r := c.book.Unanswered(ctx, err)
		if r.Outcome == carrier.Unknown {
			return c.doubt(k, r)
		}
		c.drop(k)
		return r
	}
	r := c.cfg.result(a)
	if r.Outcome == carrier.Retryable && a.Status/100 == 5 && !c.isNot(ctx, k.id) {
		r = carrier.Result{Outcome: carrier.Unknown, Code: r.Code}
	}
	switch r.Outcome {
	case carrier.Accepted:
		c.book.Failed(nil)
		r.Ref, r.Code = k.id, ""
		c.posted(k)
	case carrier.Unknown:
		c.book.Failed(a.Failure())
		return c.doubt(k, r)
	default:
		c.book.Failed(a.Failure())
		c.drop(k)
	}
	return r
}

// mayDial reports whether the connector may make calls: since the place was acquired, the connection was not lost, and
// no other process has taken the application over.
func (c *Connector) mayDial() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready
}

// isNot reports whether Asterisk answers that the channel does not exist.
func (c *Connector) isNot(ctx context.Context, id string) bool {
	a, err := c.ask(ctx, http.MethodGet, "channels/"+id, nil, nil)
	return err == nil && a.Status == http.StatusNotFound
}

// posted notes that Asterisk has accepted a call.
func (c *Connector) posted(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waited(k)
}

// doubt notes that Asterisk may have a call, and returns the result of the hand-over. If an event has shown the call
// meanwhile, the result is that the carrier accepted it.
func (c *Connector) doubt(k *call, r carrier.Result) carrier.Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waited(k)
	if k.seen {
		return carrier.Result{Outcome: carrier.Accepted, Ref: k.id}
	}
	k.doubted = true
	return r
}

// waited notes that the answer to a hand-over has come, or will not come. The caller holds the lock.
func (c *Connector) waited(k *call) {
	k.posting, k.since = false, time.Now()
	if k.session != c.connects && c.ready && c.calls[k.id] == k {
		c.again(k) // events of the call may have been missed
	}
}

// drop removes a call that was not made.
func (c *Connector) drop(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls[k.id] == k {
		delete(c.calls, k.id)
	}
	c.turn.Broadcast()
}

// result returns the meaning of an answer.
func (a *account) result(got *once.Answer) carrier.Result {
	if got.Status/100 == 2 {
		return carrier.Result{Outcome: carrier.Accepted}
	}
	said, status := a.codes.HTTP(got.Status, ""), strconv.Itoa(got.Status)
	return carrier.Result{
		Outcome: said.Outcome, Sub: said.Sub, Code: status, RetryAfter: cmp.Or(got.RetryAfter(), a.codes.Wait("http:"+status)),
	}
}

// controlWindow is how many requests other than those that make calls may be under way at a time.
const controlWindow = 32

// ask makes a request about an existing call.
func (c *Connector) ask(ctx context.Context, method, path string, query url.Values, body []byte) (*once.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.timeout)
	defer cancel()
	return c.request(ctx, c.control, method, path, query, body, never)
}

func never() bool { return false }

func (c *Connector) request(
	ctx context.Context, by *once.Client, method, path string, query url.Values, body []byte, expired func() bool,
) (*once.Answer, error) {
	address := c.cfg.base + "/" + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	req, err := once.Request(ctx, method, address, body)
	if err != nil {
		return nil, errors.New("the request cannot be made")
	}
	req.SetBasicAuth(c.cfg.Username, string(c.cfg.Password))
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	} else {
		req.Body = http.NoBody // without it, a POST announces a body
	}
	return by.Do(req, expired)
}

// endpoint returns what Asterisk dials for a number.
func (a *account) endpoint(to string) string {
	return strings.NewReplacer("{number}", to, "{digits}", strings.TrimPrefix(to, "+")).Replace(a.Endpoint)
}

// ringFor returns how long the phone rings: at most until the message expires, and at least a second.
func (a *account) ringFor(o *carrier.Outbound, now time.Time) time.Duration {
	ring := a.ring
	if o.Body.Call != nil && o.Body.Call.Ring > 0 {
		ring = o.Body.Call.Ring
	}
	if !o.NotAfter.IsZero() {
		ring = min(ring, o.NotAfter.Sub(now))
	}
	return max(ring, time.Second)
}

// Drain implements [carrier.Connector]. Existing calls continue, and the next process that opens the account follows
// them.
func (c *Connector) Drain(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	c.turn.Broadcast()
	c.mu.Unlock()
	c.book.Drain(ctx)
	c.lastReceipts(ctx)
	c.mu.Lock()
	c.end() // under the lock, so that nothing starts after it
	c.mu.Unlock()
	c.start.Do(func() { close(c.over) }) // the connector was never connected
	<-c.over
	c.dials.CloseIdle()
	c.control.CloseIdle()
	return nil
}

// lastReceipts waits until the receipts are durable, if a call of Receipts is running.
func (c *Connector) lastReceipts(ctx context.Context) {
	defer context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.turn.Broadcast()
	})()
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.box) > 0 && c.taken && ctx.Err() == nil {
		c.turn.Wait()
	}
}

// Health implements [carrier.Connector].
func (c *Connector) Health() carrier.Health {
	h := c.book.Health()
	c.mu.Lock()
	defer c.mu.Unlock()
	h.Ready = !c.closed && (c.ready || c.failed == nil)
	if h.Window = c.cfg.MaxConcurrent; c.ready {
		h.Sessions = 1
	}
	h.LastError = cmp.Or(c.failed, h.LastError)
	return h
}

// Reach asks for the applications, which shows that Asterisk accepts the user. It does not take the events away from
// another process.
func (c *Connector) Reach(ctx context.Context) error {
	a, err := c.ask(ctx, http.MethodGet, "applications", nil, nil)
	if err != nil {
		return fmt.Errorf("voice: Asterisk does not answer: %w", err)
	}
	if a.Status/100 != 2 {
		return errors.New("voice: Asterisk answers " + strconv.Itoa(a.Status) + " " + http.StatusText(a.Status))
	}
	return nil
}
