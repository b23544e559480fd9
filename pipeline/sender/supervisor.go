package sender

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"fanfare/pipeline/health"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

// RouteSupervisor runs one sender for each route of the control view, and starts and stops them as routes are added,
// changed and removed.
type RouteSupervisor struct {
	cfg     Config
	deps    Deps
	metrics *metrics
	rates   health.Rates

	mu      sync.Mutex
	running map[string]*routeState
}

// routeState is one route: its sender while that runs, or the error that keeps it from running.
type routeState struct {
	route *fanfarev1.Route // the row when the sender was started
	stop  context.CancelFunc
	done  chan struct{}

	// Guarded by RouteSupervisor.mu.
	sender  *routeSender
	err     error
	retryAt time.Time
	tries   int
	ended   bool
	// downSince is since when the line cannot hand over; zero: it can.
	downSince time.Time
}

// New returns a supervisor; [RouteSupervisor.Run] starts the senders.
func New(cfg Config, deps Deps) (*RouteSupervisor, error) {
	if err := errors.Join(cfg.Validate(), deps.validate()); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.BreakerPause <= 0 {
		cfg.BreakerPause = DefaultBreakerPause
	}
	return &RouteSupervisor{cfg: cfg, deps: deps, metrics: newMetrics(cfg.Cluster.Registry), running: map[string]*routeState{}}, nil
}

// Run serves routes until ctx ends, and returns when every sender has given up its partitions.
func (s *RouteSupervisor) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	// Every sender has its own cancel, so that one route can be removed; all of them end with ctx.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changed := s.deps.View.Changed()
		timer.Reset(s.reconcile(ctx, &wg))
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-timer.C:
		}
	}
}

// The wait before a failed route is started again, and the time between two looks at the routes.
const (
	firstPause = time.Second
	lastPause  = 30 * time.Second
	lookPause  = time.Second
)

// reconcile starts and stops senders so that they match the view's routes, and returns how long to wait before the next
// call.
func (s *RouteSupervisor) reconcile(ctx context.Context, wg *sync.WaitGroup) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	want := map[string]*fanfarev1.Route{}
	for _, r := range s.deps.View.Routes() {
		if schemas.ValidRoute(r.GetName()) == nil && r.GetConnector() != "" {
			want[r.GetName()] = r
		}
	}
	for name, p := range s.running {
		switch r := want[name]; {
		case p.ended && r == nil:
			delete(s.running, name)
		case p.ended && !sameLine(r, p.route):
			p.retryAt, p.tries = now, 0
		case !p.ended && (r == nil || !sameLine(r, p.route)):
			p.stop() // once it has ended, a later look starts it again if the route still exists
		}
	}
	for name, r := range want {
		p := s.running[name]
		if p == nil {
			p = &routeState{}
			s.running[name] = p
		} else if !p.ended || now.Before(p.retryAt) || errors.Is(p.err, ErrNotServed) && sameLine(r, p.route) {
			continue
		}
		runCtx, stop := context.WithCancel(ctx)
		*p = routeState{route: r, stop: stop, done: make(chan struct{}), tries: p.tries, downSince: p.downSince}
		wg.Go(func() {
			defer stop()
			err := s.serve(runCtx, p)
			s.ended(runCtx, p, err)
		})
	}
	return lookPause
}

// sameLine reports whether two rows of a route open the same line, so that the sender need not reconnect.
func sameLine(a, b *fanfarev1.Route) bool {
	return a.GetConnector() == b.GetConnector() && bytes.Equal(a.GetConfiguration(), b.GetConfiguration()) &&
		bytes.Equal(a.GetSealedCredentials(), b.GetSealedCredentials())
}

// serve opens the line of a route and runs its sender until ctx ends.
func (s *RouteSupervisor) serve(ctx context.Context, p *routeState) error {
	if err := s.prepare(ctx, p.route.GetName()); err != nil {
		return err
	}
	line, err := s.deps.Connect(ctx, p.route)
	if err != nil {
		return fmt.Errorf("connect route %s: %w", p.route.GetName(), err)
	}
	c, err := newRouteSender(&s.cfg, &s.deps, s.metrics, p.route, line)
	if err != nil {
		return err
	}
	s.mu.Lock()
	p.sender = c
	s.mu.Unlock()
	c.logger.InfoContext(ctx, "sender started", slog.String("connector", p.route.GetConnector()))
	return c.run(ctx, &s.cfg, &s.deps)
}

// prepare creates the topics of a new route and commits the first offsets of its groups. It waits for Kafka until ctx
// ends.
func (s *RouteSupervisor) prepare(ctx context.Context, route string) error {
	names := s.cfg.Cluster.Names
	err := s.cfg.Cluster.Named("sender-"+route+"-admin").Prepare(ctx, s.cfg.Replication, names.Route(route), stream.SenderStarts(names, route))
	if err != nil {
		return fmt.Errorf("route %s: %w", route, err)
	}
	return nil
}

func (s *RouteSupervisor) ended(ctx context.Context, p *routeState, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(p.done)
	p.ended, p.sender, p.err = true, nil, err
	if ctx.Err() != nil && err == nil {
		p.tries, p.retryAt = 0, s.cfg.Now()
		return
	}
	if err == nil {
		p.err = errors.New("the sender ended without an error")
	}
	pause := min(lastPause, firstPause<<min(p.tries, 10))
	p.tries++
	p.retryAt = s.cfg.Now().Add(pause)
	s.cfg.Cluster.Logger.ErrorContext(ctx, "sender failed; it is started again", slog.String("route", p.route.GetName()), slog.Any("err", p.err), slog.Int64("retry_in_ms", pause.Milliseconds()))
}

// Status is the state of one route in this process.
type Status struct {
	Route string
	// Err is why the route is not served; nil while it is.
	Err error
	// Open is true while the breaker is open: the carrier does not answer and nothing is handed over.
	Open bool
	// Line is what the connector reports of itself.
	Line carrier.Health
}

// Status returns the state of every route, for readiness and for people.
func (s *RouteSupervisor) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Status, 0, len(s.running))
	for name, p := range s.running {
		status := Status{Route: name, Err: p.err}
		if p.sender != nil {
			status.Open, _ = p.sender.breaker.open(s.cfg.Now())
			status.Line = p.sender.live.Health()
		}
		out = append(out, status)
	}
	return out
}
