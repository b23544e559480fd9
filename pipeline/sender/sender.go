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
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

// Limits are the rows of the control plane that bound sending.
type Limits interface {
	Route(name string) *fanfarev1.Route
	Routes() []*fanfarev1.Route
	Sender(tenant, id string) *fanfarev1.Sender
}

// Freshness says how old the control plane is that this process knows.
type Freshness interface {
	Age() time.Duration
	SuppressionsAge() time.Duration
	// Changed is closed at the next change; take it before reading.
	Changed() <-chan struct{}
}

// View is the control plane as this process knows it; [stream.View] is one, with suppressions.
type View interface {
	Directory
	Limits
	Freshness
}

var _ View = (*stream.View)(nil)

// Tokens gives out tokens; [ratelimit.Limiter] does.
type Tokens interface {
	// Leased is Take without a call to Redis: false, and nothing taken, when it needs one.
	Leased(reqs []ratelimit.Request, grants []ratelimit.Grant) bool
	Take(ctx context.Context, reqs []ratelimit.Request, grants []ratelimit.Grant) error
	Put(set ratelimit.Set, tokens int, until time.Time)
	Throttled(ctx context.Context, route string) (factor float64, err error)
	Senders(route string) int
}

var _ Tokens = (*ratelimit.Limiter)(nil)

// Line is the way to the carrier of one route.
type Line struct {
	// Live takes what goes to people.
	Live carrier.Connector
	// Test takes messages marked as a test: the simulator's connector. On a simulator's route it is Live; nil refuses them.
	Test carrier.Connector
}

// Config of the senders of a process.
type Config struct {
	Cluster stream.Cluster
	Keys    *schemas.Keys
	// Replication of the topics of a route that does not have them yet, 1 or 3.
	Replication int16
	// SessionTimeout, GuardMargin and DrainTimeout are those of [stream.WindowConfig].
	SessionTimeout, GuardMargin, DrainTimeout time.Duration
	// BreakerPause is how long a route stands still whose carrier does not answer; default [DefaultBreakerPause].
	BreakerPause time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Deps are what the senders work with.
type Deps struct {
	View   View
	Tokens Tokens
	// Rendezvous of provider ids; needed for carriers that do not echo our id.
	Rendezvous Rendezvous
	// Connect opens the line of a route. An error is tried again; [ErrNotServed] is not, until the route changes.
	Connect func(ctx context.Context, route *fanfarev1.Route) (Line, error)
	// Suspended is told about partitions that are held until somebody looks at them. May be nil: it is logged in any case.
	Suspended func(*stream.SuspendedError)
}

// ErrNotServed is returned by Connect for a route that this process has no connector for.
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
		return errors.New("sender: a view, tokens and a way to connect are needed")
	}
	return nil
}

// core is what the two lanes of a route share.
type core struct {
	name       string
	names      schemas.Names
	keys       *schemas.Keys
	view       View
	limiter    Tokens
	live, test carrier.Connector
	caps       carrier.Caps
	rendezvous Rendezvous // nil when the carrier echoes our id
	breaker    *breaker
	metrics    *metrics
	scribe     *scribe
	logger     *slog.Logger
	now        func() time.Time
	slower     chan struct{} // the carrier asked to slow down
	known      atomic.Pointer[fanfarev1.Route]
}

func newCore(cfg *Config, deps *Deps, m *metrics, r *fanfarev1.Route, line Line) (*core, error) {
	if line.Live == nil {
		return nil, fmt.Errorf("route %s: no connector", r.GetName())
	}
	c := &core{
		name: r.GetName(), names: cfg.Cluster.Names, keys: cfg.Keys, view: deps.View, limiter: deps.Tokens, live: line.Live, test: line.Test,
		caps: line.Live.Caps(), metrics: m, scribe: newScribe(cfg.Cluster.Names, cfg.Keys), logger: cfg.Cluster.Logger.With(slog.String("route", r.GetName())), now: cfg.Now, slower: make(chan struct{}, 1),
	}
	c.known.Store(r)
	if !c.caps.EchoesKey {
		if deps.Rendezvous == nil {
			return nil, fmt.Errorf("route %s: its carrier does not echo our id, so a rendezvous is needed", c.name)
		}
		c.rendezvous = deps.Rendezvous
	}
	gauge := m.breaker.WithLabelValues(c.name)
	gauge.Set(0)
	c.breaker = newBreaker(c.name, cfg.BreakerPause, cfg.Now, func(open bool) {
		if open {
			gauge.Set(1)
			c.logger.Warn("the carrier does not answer: the route stands still")
		} else {
			gauge.Set(0)
			c.logger.Info("the carrier answers again")
		}
	})
	return c, nil
}

// route returns the row of the route, as it was known last when it is gone.
func (c *core) route() *fanfarev1.Route {
	if r := c.view.Route(c.name); r != nil {
		if c.known.Load() != r {
			c.known.Store(r)
		}
		return r
	}
	return c.known.Load()
}

// throttled notes that the carrier asked to slow down. It does not block: the answer that says so comes from the connector.
func (c *core) throttled() {
	select {
	case c.slower <- struct{}{}:
	default:
	}
}

func (c *core) slowDown(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.slower:
			factor, err := c.limiter.Throttled(ctx, c.name)
			if ctx.Err() != nil {
				return nil //nolint:nilerr // it was told to end
			}
			if err != nil {
				c.logger.WarnContext(ctx, "the carrier throttles and the limit could not be lowered", slog.Any("error", err))
				continue
			}
			c.logger.DebugContext(ctx, "the carrier throttles", slog.Float64("factor", factor))
		}
	}
}

// size is the window of one lane of this process.
func (c *core) size() int { return windowSize(c.route(), c.limiter.Senders(c.name)) }

// hangUp is how long a connector may take to end.
const hangUp = 3 * time.Second

// run works until ctx ends: windows hand over their partitions, answers are awaited, the connector is drained, in this order.
func (c *core) run(ctx context.Context, cfg *Config, deps *Deps) (err error) {
	defer func() { err = errors.Join(err, c.drain(ctx)) }()
	cl, err := cfg.Cluster.Named("sender-" + c.name + "-receipts").Client(kgo.ProducerLinger(0))
	if err != nil {
		return fmt.Errorf("route %s: %w", c.name, err)
	}
	defer cl.Close()

	lanes, intents := make([]*lane, len(schemas.Lanes)), make([]*stream.Window, len(schemas.Lanes))
	for i, name := range schemas.Lanes {
		lanes[i] = newLane(c, name)
		if intents[i], err = stream.NewWindow(c.windowConfig(cfg, deps, name), lanes[i]); err != nil {
			return fmt.Errorf("route %s: %w", c.name, err)
		}
		lanes[i].window = intents[i]
	}

	// The lanes outlive the windows: while these drain, answers come in.
	outer, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	work, workCtx := errgroup.WithContext(outer)
	windows, windowCtx := errgroup.WithContext(ctx)
	for i, l := range lanes {
		windows.Go(func() error { return intents[i].Run(windowCtx) })
		work.Go(func() error { return l.run(workCtx) })
	}
	work.Go(func() error { return c.slowDown(workCtx) })
	sources := map[carrier.Connector]bool{}
	for _, conn := range []carrier.Connector{c.live, c.test} {
		if src, ok := conn.(carrier.ReceiptSource); ok && !sources[conn] {
			sources[conn] = true
			work.Go(func() error { return c.receipts(workCtx, src, cl) })
		}
	}
	// A lane that fails ends the windows, which nobody would empty.
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
		windowErr = nil // the lane says why
	}
	drainErr := c.drain(ctx)
	stopWork()
	if err := errors.Join(windowErr, drainErr, work.Wait()); err != nil {
		return fmt.Errorf("route %s: %w", c.name, err)
	}
	return nil
}

// errLane ends the windows when a lane has ended.
var errLane = errors.New("a lane has ended")

// drain ends the connectors. Calling it again is harmless.
func (c *core) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hangUp)
	defer cancel()
	err := c.live.Drain(ctx)
	if c.test != nil && c.test != c.live {
		err = errors.Join(err, c.test.Drain(ctx))
	}
	return err
}

func (c *core) windowConfig(cfg *Config, deps *Deps, lane schemas.Lane) stream.WindowConfig {
	suspended := c.metrics.suspended.WithLabelValues(c.name, string(lane))
	suspended.Set(0)
	return stream.WindowConfig{
		Cluster: cfg.Cluster.Named("sender-" + c.name + "-" + string(lane)), Topic: c.names.Messages(c.name, lane),
		Group: c.names.SenderGroup(c.name, lane), Outcomes: c.names.Deliveries(), Size: c.size,
		SessionTimeout: cfg.SessionTimeout, GuardMargin: cfg.GuardMargin, DrainTimeout: cfg.DrainTimeout, Identity: Identity, Now: cfg.Now,
		Suspended: func(e *stream.SuspendedError) {
			suspended.Inc()
			c.logger.Error("a partition is suspended", slog.Any("error", e))
			if deps.Suspended != nil {
				deps.Suspended(e)
			}
		},
	}
}

// clean makes a text of a stranger's fit for a record.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// errTenant is the cause of a message that names a campaign of another tenant.
var errTenant = errors.New("the campaign is another tenant's")
