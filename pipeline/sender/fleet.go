package sender

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

// Fleet runs the senders of all routes that this process serves, and follows the routes as they come, change and go.
type Fleet struct {
	cfg     Config
	deps    Deps
	metrics *metrics

	mu      sync.Mutex
	running map[string]*post
}

// post is a route that is served, or was tried to be.
type post struct {
	route *fanfarev1.Route // as it was when the line was opened
	stop  context.CancelFunc
	done  chan struct{}

	// Guarded by Fleet.mu.
	core  *core
	err   error
	again time.Time
	tries int
	ended bool
}

// New returns the senders; nothing runs yet.
func New(cfg Config, deps Deps) (*Fleet, error) {
	if err := errors.Join(cfg.Validate(), deps.validate()); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.BreakerPause <= 0 {
		cfg.BreakerPause = DefaultBreakerPause
	}
	return &Fleet{cfg: cfg, deps: deps, metrics: newMetrics(cfg.Cluster.Registry), running: map[string]*post{}}, nil
}

// Run serves routes until ctx ends, then waits until all have handed over what they held.
func (f *Fleet) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	// Each route is stopped by itself, so that one that goes ends alone; all end with ctx.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changed := f.deps.View.Changed()
		timer.Reset(f.reconcile(ctx, &wg))
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-timer.C:
		}
	}
}

// Pauses of a route that could not be started, or ended by itself.
const (
	firstPause = time.Second
	lastPause  = 30 * time.Second
	lookPause  = time.Second
)

// reconcile starts and stops what the view says, and returns when to look again.
func (f *Fleet) reconcile(ctx context.Context, wg *sync.WaitGroup) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.cfg.Now()
	want := map[string]*fanfarev1.Route{}
	for _, r := range f.deps.View.Routes() {
		if schemas.ValidRoute(r.GetName()) == nil && r.GetConnector() != "" {
			want[r.GetName()] = r
		}
	}
	for name, p := range f.running {
		switch r := want[name]; {
		case p.ended && r == nil:
			delete(f.running, name)
		case p.ended && r.GetConnector() != p.route.GetConnector():
			p.again, p.tries = now, 0
		case !p.ended && (r == nil || r.GetConnector() != p.route.GetConnector()):
			p.stop() // the next look starts it again
		}
	}
	for name, r := range want {
		p := f.running[name]
		if p == nil {
			p = &post{}
			f.running[name] = p
		} else if !p.ended || now.Before(p.again) || errors.Is(p.err, ErrNotServed) && r.GetConnector() == p.route.GetConnector() {
			continue
		}
		runCtx, stop := context.WithCancel(ctx)
		*p = post{route: r, stop: stop, done: make(chan struct{}), tries: p.tries}
		wg.Go(func() {
			defer stop()
			err := f.serve(runCtx, p)
			f.ended(runCtx, p, err)
		})
	}
	return lookPause
}

// serve opens the line of a route and works until ctx ends.
func (f *Fleet) serve(ctx context.Context, p *post) error {
	if err := f.prepare(ctx, p.route.GetName()); err != nil {
		return err
	}
	line, err := f.deps.Connect(ctx, p.route)
	if err != nil {
		return fmt.Errorf("connect route %s: %w", p.route.GetName(), err)
	}
	c, err := newCore(&f.cfg, &f.deps, f.metrics, p.route, line)
	if err != nil {
		return err
	}
	f.mu.Lock()
	p.core = c
	f.mu.Unlock()
	c.logger.InfoContext(ctx, "route is served", slog.String("connector", p.route.GetConnector()))
	return c.run(ctx, &f.cfg, &f.deps)
}

// prepare makes the topics of a route that is new, and gives its groups a beginning.
func (f *Fleet) prepare(ctx context.Context, route string) error {
	cl, err := f.cfg.Cluster.Named("sender-" + route + "-admin").Client()
	if err != nil {
		return fmt.Errorf("route %s: %w", route, err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	names := f.cfg.Cluster.Names
	if err := stream.EnsureTopics(ctx, adm, f.cfg.Replication, names.Route(route)); err != nil {
		return fmt.Errorf("route %s: %w", route, err)
	}
	for _, lane := range schemas.Lanes {
		if err := stream.EnsureOffsets(ctx, adm, names.SenderGroup(route, lane), names.Messages(route, lane)); err != nil {
			return fmt.Errorf("route %s: %w", route, err)
		}
	}
	return nil
}

func (f *Fleet) ended(ctx context.Context, p *post, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer close(p.done)
	p.ended, p.core, p.err = true, nil, err
	if ctx.Err() != nil && err == nil {
		p.tries, p.again = 0, f.cfg.Now()
		return
	}
	if err == nil {
		p.err = errors.New("ended by itself")
	}
	pause := min(lastPause, firstPause<<min(p.tries, 10))
	p.tries++
	p.again = f.cfg.Now().Add(pause)
	f.cfg.Cluster.Logger.ErrorContext(ctx, "a route is not served", slog.String("route", p.route.GetName()), slog.Any("error", p.err), slog.Duration("again_in", pause))
}

// Status is how one route does in this process.
type Status struct {
	Route string
	// Err is why it is not served; nil while it is.
	Err error
	// Open: the carrier does not answer, and nothing is handed over.
	Open bool
	// Line is the connector's own account of itself.
	Line carrier.Health
}

// Status returns how the routes do, for readiness and people.
func (f *Fleet) Status() []Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]Status, 0, len(f.running))
	for name, p := range f.running {
		s := Status{Route: name, Err: p.err}
		if p.core != nil {
			s.Open, _ = p.core.breaker.open(f.cfg.Now())
			s.Line = p.core.live.Health()
		}
		out = append(out, s)
	}
	return out
}
