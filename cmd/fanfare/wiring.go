package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/api/store"
	"fanfare/cmd/fanfare/tracing"
	"fanfare/deploy/embedded"
	routehealth "fanfare/pipeline/health"
	"fanfare/pipeline/stream"
	"fanfare/pipeline/view"
	"fanfare/schemas"
	"fanfare/schemas/credentials"
	"fanfare/schemas/trace"
	"fanfare/sinks/analytics"
	"fanfare/sinks/carrier/sim"
)

// wiring holds what the roles of a process run on. It is opened in order and closed in reverse order.
type wiring struct {
	cfg     Config
	command string // the command that runs the roles: serve or demo
	began   time.Time
	log     *slog.Logger
	reg     *prometheus.Registry
	names   schemas.Names

	data      *embedded.DataDir  // locked by this process; nil if it keeps no data there
	services  *embedded.Services // nil if Kafka and Redis both have addresses
	store     *store.Store
	keys      *schemas.Keys
	cluster   stream.Cluster
	brokers   []string    // the brokers that could be reached when the process started
	ops       *kgo.Client // /readyz asks it whether Kafka answers
	redis     redis.UniversalClient
	analytics analytics.Store
	edge      net.Listener // nil without the role edge
	view      *view.View
	board     *routehealth.Board // health of the routes; nil without the roles that read it
	traces    *trace.Tracer      // nil: nothing is traced
	stopping  chan struct{}
	// runJobs runs exports and segments; set with the role api.
	runJobs runner
	// runConfirmations confirms opt-outs to recipients; set with the role api.
	runConfirmations runner
	// sealing seals and opens the credentials of routes; nil if this process has no key for them.
	sealing *credentials.Keys
	// simulated is the simulated carrier of this process while its senders run.
	simulated atomic.Pointer[sim.Carrier]

	// remains says, line by line, what a stop has left for the next start.
	remains []string

	closers []func()
}

func newWiring(cfg Config, log *slog.Logger) *wiring {
	names, _ := schemas.NewNames(cfg.Prefix) // Validate has checked the prefix
	w := &wiring{cfg: cfg, command: "serve", began: time.Now(), log: log, names: names, reg: prometheus.NewRegistry(), stopping: make(chan struct{})}
	w.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())
	return w
}

func (w *wiring) onClose(f func()) { w.closers = append(w.closers, f) }

// close closes everything that was opened, the newest first.
func (w *wiring) close() {
	for _, f := range slices.Backward(w.closers) {
		f()
	}
	w.closers = nil
}

// open opens what the roles of this process need, in order. First it locks the data directory: before that it writes,
// migrates and publishes nothing, so that a second process on the same data changes nothing.
func (w *wiring) open(ctx context.Context) error {
	if w.cfg.keptInData() {
		if err := w.lockData(ctx, w.command); err != nil {
			return err
		}
	}
	if err := w.reach(ctx, w.needed()...); err != nil {
		return err
	}
	if err := w.openSealing(); err != nil {
		return err
	}
	if w.cfg.needsStore() {
		if err := w.openStore(ctx); err != nil {
			return err
		}
		if err := w.ensureRoute(ctx); err != nil {
			return err
		}
		if err := w.loadRoutes(ctx); err != nil {
			return err
		}
	} else {
		keys, err := parseIDKey(w.cfg.IDKey)
		if err != nil {
			return err
		}
		w.keys = keys
	}
	if err := w.openTraces(ctx); err != nil {
		return err
	}
	if err := w.openServices(); err != nil {
		return err
	}
	if _, err := w.ensureTopics(ctx); err != nil {
		return err
	}
	var err error
	if w.ops, err = w.cluster.Named("ops").Client(); err != nil {
		return err
	}
	w.onClose(w.ops.Close)
	if w.cfg.needs(needAnalytics) {
		if err := w.openAnalytics(ctx); err != nil {
			return err
		}
	}
	if w.cfg.has("scheduler") || w.cfg.has("api") {
		if w.board, err = routehealth.NewBoard(w.cluster, nil); err != nil {
			return err
		}
	}
	w.view, err = view.New(view.Config{Cluster: w.cluster, Keys: w.keys, Suppressions: w.cfg.has("sender") || w.cfg.has("api")})
	return err
}

// openTraces begins to send spans to the collector, if there is one.
func (w *wiring) openTraces(ctx context.Context) error {
	if w.cfg.OTLPEndpoint == "" {
		return nil
	}
	exporter, err := tracing.New(tracing.Config{
		Endpoint: w.cfg.OTLPEndpoint, OneIn: w.cfg.TraceOneIn, Keys: w.keys, Version: version(), Roles: w.cfg.rolesToRun(),
		Logger: w.log, Registry: w.reg,
	})
	if err != nil {
		return fmt.Errorf("--otlp-endpoint %q: %w", w.cfg.OTLPEndpoint, err)
	}
	w.traces = exporter.Tracer()
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		exporter.Run(running)
	}()
	w.onClose(func() {
		stop()
		<-done
	})
	return nil
}

// needed returns the services that the roles of this process use.
func (w *wiring) needed() []need {
	needs := []need{needKafka}
	for _, n := range []need{needRedis, needStore, needAnalytics} {
		if w.cfg.needs(n) || n == needStore && w.cfg.needsStore() {
			needs = append(needs, n)
		}
	}
	return needs
}

// parseIDKey reads the setting --id-key.
func parseIDKey(text string) (*schemas.Keys, error) {
	keys, err := schemas.ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("--id-key: %w", err)
	}
	return keys, nil
}
