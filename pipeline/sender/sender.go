package sender

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"fanfare/pipeline/ratelimit"
	"fanfare/pipeline/stream"
	"fanfare/pipeline/view"
	"fanfare/pipeline/window"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/trace"
	"fanfare/sinks/carrier"
)

// Limits are the rows of the control plane that limit how fast messages leave.
type Limits interface {
	Route(name string) *fanfarev1.Route
	Routes() []*fanfarev1.Route
	Sender(tenant, id string) *fanfarev1.Sender
}

// Freshness says how old this process's copy of the control plane is.
type Freshness interface {
	Age() time.Duration
	SuppressionsAge() time.Duration
	// Changed returns a channel that is closed at the next change. Take it before reading, or a change is missed.
	Changed() <-chan struct{}
}

// View is this process's copy of the control plane. [view.View] implements it, with suppressions.
type View interface {
	Directory
	Limits
	Freshness
}

var _ View = (*view.View)(nil)

// Tokens hands out rate-limit tokens. [ratelimit.Limiter] implements it.
type Tokens interface {
	// Leased is like Take, but uses only tokens that are leased already. It returns false, and takes nothing, when it
	// would have to call Redis.
	Leased(reqs []ratelimit.Request, grants []ratelimit.Grant) bool
	Take(ctx context.Context, reqs []ratelimit.Request, grants []ratelimit.Grant) error
	Put(set ratelimit.Set, tokens int, until time.Time)
	Throttled(ctx context.Context, route string) (factor float64, err error)
	Senders(route string) int
}

var _ Tokens = (*ratelimit.Limiter)(nil)

// Line is the connection of one route to its carrier.
type Line struct {
	// Live carries the messages for people.
	Live carrier.Connector
	// Test carries messages marked as a test: the simulator's connector. On a simulated route it is the same as Live.
	// When it is nil, test messages are refused.
	Test carrier.Connector
}

// Config of the senders of one process.
type Config struct {
	Cluster stream.Cluster
	Keys    *schemas.Keys
	// Replication of the topics that a new route gets, 1 or 3.
	Replication int16
	// SessionTimeout, GuardMargin and DrainTimeout are those of [window.Config].
	SessionTimeout, GuardMargin, DrainTimeout time.Duration
	// Traces makes spans of hand-overs; nil: none.
	Traces *trace.Tracer
	// BreakerPause is how long a route pauses when its carrier does not answer; default [DefaultBreakerPause].
	BreakerPause time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Deps are what the senders work with.
type Deps struct {
	View   View
	Tokens Tokens
	// Rendezvous indexes provider ids. Carriers that do not echo our id need it.
	Rendezvous Rendezvous
	// Connect opens the line of a route. The supervisor retries after an error; after [ErrNotServed] it waits until the
	// route changes.
	Connect func(ctx context.Context, route *fanfarev1.Route) (Line, error)
	// Suspended is called for each partition that is suspended until a person repairs it. It may be nil; the event is
	// logged in any case.
	Suspended func(*window.SuspendedError)
}

// ErrNotServed is what Connect returns for a route for which this process has no connector.
var ErrNotServed = errors.New("no connector for this route in this process")

// Validate returns what is missing.
func (c *Config) Validate() error {
	switch {
	case len(c.Cluster.Brokers) == 0 || c.Cluster.Logger == nil:
		return errors.New("sender: a cluster with brokers and a logger is needed")
	case c.Keys == nil:
		return errors.New("sender: keys are needed")
	case c.Replication != 1 && c.Replication != 3:
		return fmt.Errorf("sender: replication %d, want 1 or 3", c.Replication)
	}
	return nil
}

func (d *Deps) validate() error {
	if d.View == nil || d.Tokens == nil || d.Connect == nil {
		return errors.New("sender: a view, tokens and a connect function are needed")
	}
	return nil
}

// routeSender serves one route: it has what the two lanes of the route share, and runs them.
type routeSender struct {
	name       string
	names      schemas.Names
	keys       *schemas.Keys
	view       View
	limiter    Tokens
	live, test carrier.Connector
	caps       carrier.Caps // of live
	testCaps   carrier.Caps // of test
	rendezvous Rendezvous   // nil when the carrier echoes our id
	breaker    *breaker
	metrics    *metrics
	outcomes   *outcomeEncoder
	traces     *trace.Tracer
	logger     *slog.Logger
	now        func() time.Time
	slower     chan struct{}                   // capacity 1; a value means that the carrier has throttled us
	known      atomic.Pointer[fanfarev1.Route] // the newest known row of the route
	// accepted and refused are hand-overs since the last report of the route's health.
	accepted, refused atomic.Uint64
}

func newRouteSender(cfg *Config, deps *Deps, m *metrics, r *fanfarev1.Route, line Line) (*routeSender, error) {
	if line.Live == nil {
		return nil, fmt.Errorf("route %s: no connector", r.GetName())
	}
	c := &routeSender{
		name: r.GetName(), names: cfg.Cluster.Names, keys: cfg.Keys, view: deps.View, limiter: deps.Tokens, live: line.Live, test: line.Test,
		caps: line.Live.Caps(), metrics: m, outcomes: newOutcomeEncoder(cfg.Cluster.Names, cfg.Keys), traces: cfg.Traces, logger: cfg.Cluster.Logger.With(slog.String("route", r.GetName())), now: cfg.Now, slower: make(chan struct{}, 1),
	}
	c.known.Store(r)
	if c.test != nil {
		c.testCaps = c.test.Caps()
	}
	if !c.caps.EchoesKey {
		if deps.Rendezvous == nil {
			return nil, fmt.Errorf("route %s: its carrier does not echo our id, so an index of provider ids is needed", c.name)
		}
		c.rendezvous = deps.Rendezvous
	}
	gauge := m.breaker.WithLabelValues(c.name)
	gauge.Set(0)
	c.breaker = newBreaker(c.name, cfg.BreakerPause, cfg.Now, func(open bool) {
		if open {
			gauge.Set(1)
			c.logger.Warn("breaker opened: carrier does not answer")
		} else {
			gauge.Set(0)
			c.logger.Info("breaker closed: carrier answers")
		}
	})
	return c, nil
}

// route returns the route's row; if the row was deleted, the newest one before that.
func (c *routeSender) route() *fanfarev1.Route {
	if r := c.view.Route(c.name); r != nil {
		if c.known.Load() != r {
			c.known.Store(r)
		}
		return r
	}
	return c.known.Load()
}

// throttled notes that the carrier has throttled us. It does not block, because a connector's callback calls it.
func (c *routeSender) throttled() {
	select {
	case c.slower <- struct{}{}:
	default:
	}
}

// slowDown lowers the route's rate each time that the carrier throttles.
func (c *routeSender) slowDown(ctx context.Context) error {
	state := ratelimit.NewState(c.logger.With("waiting_for", "lower the rate"))
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.slower:
			factor, err := c.limiter.Throttled(ctx, c.name)
			if ctx.Err() != nil {
				return nil //nolint:nilerr // stopping
			}
			if err != nil {
				state.Failed(ctx, err)
				continue
			}
			state.OK(ctx)
			c.logger.DebugContext(ctx, "carrier throttles; rate lowered", slog.Float64("factor", factor))
		}
	}
}

// size is the size of the intent window of one lane in this process.
func (c *routeSender) size() int { return windowSize(c.route(), c.limiter.Senders(c.name)) }

// rate is the most messages per second that this process may hand over: all of the route's, because the other senders
// of the route may have nothing to send.
func (c *routeSender) rate() float64 { return float64(c.route().GetRate()) }

// hangUp is how long a connector may take to drain.
const hangUp = 3 * time.Second

// run serves the route until ctx ends. Then the windows give up their partitions, which waits for the carrier's
// answers, and the connectors are drained.
func (c *routeSender) run(ctx context.Context, cfg *Config, deps *Deps) (err error) {
	defer func() { err = errors.Join(err, c.drain(ctx)) }()
	life, endLife := context.WithCancel(context.WithoutCancel(ctx))
	cl, err := cfg.Cluster.Named("sender-"+c.name+"-receipts").Client(kgo.WithContext(life), kgo.ProducerLinger(0))
	if err != nil {
		endLife()
		return fmt.Errorf("route %s: %w", c.name, err)
	}
	end := stream.Cutter{Client: cl, Cancel: endLife}
	defer end.Close(hangUp)

	lanes, intents := make([]*lane, len(schemas.Lanes)), make([]*window.Window, len(schemas.Lanes))
	for i, name := range schemas.Lanes {
		lanes[i] = newLane(c, name)
		if intents[i], err = window.New(c.windowConfig(cfg, deps, lanes[i]), lanes[i]); err != nil {
			return fmt.Errorf("route %s: %w", c.name, err)
		}
		lanes[i].window = intents[i]
	}

	// The lanes outlive the windows: while the windows drain, the carrier still answers.
	outer, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	work, workCtx := errgroup.WithContext(outer)
	windows, windowCtx := errgroup.WithContext(ctx)
	for i, l := range lanes {
		windows.Go(func() error { return intents[i].Run(windowCtx) })
		work.Go(func() error { return l.run(workCtx) })
	}
	work.Go(func() error { return c.slowDown(workCtx) })
	sources, writers := map[carrier.Connector]bool{}, map[carrier.Connector]bool{}
	for _, conn := range []carrier.Connector{c.live, c.test} {
		if src, ok := conn.(carrier.ReceiptSource); ok && !sources[conn] {
			sources[conn] = true
			work.Go(func() error { return c.receipts(workCtx, src, cl) })
		}
		if src, ok := conn.(carrier.InboundSource); ok && !writers[conn] {
			writers[conn] = true
			work.Go(func() error { return c.inbound(workCtx, src, cl) })
		}
	}
	// When a lane fails the windows must end too: nothing else would empty them.
	windows.Go(func() error {
		select {
		case <-windowCtx.Done():
			return nil
		case <-workCtx.Done():
			return errLane
		}
	})
	windowErr := windows.Wait()
	if errors.Is(windowErr, errLane) {
		windowErr = nil // the lane's own error says why
	}
	drainErr := c.drain(ctx)
	stopWork()
	// While Kafka is away, publishing receipts does not end with its context.
	defer time.AfterFunc(hangUp, end.Cut).Stop()
	if err := errors.Join(windowErr, drainErr, work.Wait()); err != nil {
		return fmt.Errorf("route %s: %w", c.name, err)
	}
	return nil
}

// errLane ends the windows when a lane has ended.
var errLane = errors.New("a lane has ended")

// drain ends the connectors. It may be called more than once.
func (c *routeSender) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hangUp)
	defer cancel()
	err := c.live.Drain(ctx)
	if c.test != nil && c.test != c.live {
		err = errors.Join(err, c.test.Drain(ctx))
	}
	return err
}

func (c *routeSender) windowConfig(cfg *Config, deps *Deps, l *lane) window.Config {
	lane := l.lane
	suspended := c.metrics.suspended.WithLabelValues(c.name, string(lane))
	suspended.Set(0)
	var tenant func(*kgo.Record) string
	if lane == schemas.LaneTxn { // the scheduler has dealt the messages of the other lane fairly
		tenant = func(r *kgo.Record) string { return string(schemas.Header(r, schemas.HeaderTenant)) }
	}
	var reread func(*kgo.Record)
	if l.indexer != nil {
		reread = l.indexer.reread
	}
	return window.Config{
		Reread: reread, Tenant: tenant, Cluster: cfg.Cluster.Named("sender-" + c.name + "-" + string(lane)), Topic: c.names.Messages(c.name, lane),
		Group: c.names.SenderGroup(c.name, lane), Outcomes: c.names.Deliveries(), Size: c.size, Rate: c.rate, Blocked: func() int { return int(l.blocked.Load()) },
		SessionTimeout: cfg.SessionTimeout, GuardMargin: cfg.GuardMargin, DrainTimeout: cfg.DrainTimeout, Now: cfg.Now,
		OutcomeOf: outcomeOf, Identity: func(r *kgo.Record) (schemas.ID, error) { return identify(c.keys, r) },
		Suspended: func(e *window.SuspendedError) {
			suspended.Inc()
			if deps.Suspended != nil { // the window has logged it
				deps.Suspended(e)
			}
		},
	}
}

// validUTF8 makes a string from the carrier valid UTF-8, as protobuf demands.
func validUTF8(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// errTenant is the cause of the dead letter of a message whose campaign belongs to another tenant.
var errTenant = errors.New("the campaign belongs to another tenant")
