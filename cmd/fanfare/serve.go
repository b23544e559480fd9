package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

func (p *program) serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run roles: all of them, or those named by --roles",
		Long: `Run the roles of Fanfare in this process until it is interrupted.

Without addresses everything is embedded under --data, and a second start on the same
directory goes on where the first stopped. With --kafka, --redis, --clickhouse and
--store the same roles run on real services, in as many processes as needed.`,
		Args: exactArgs(),
	}
	serveFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := p.config(cmd)
		if err != nil {
			return err
		}
		log, err := p.logger(cfg)
		if err != nil {
			return err
		}
		w := newWiring(cfg, log)
		defer w.close()
		return w.serve(cmd.Context(), nil)
	}
	return cmd
}

// serve opens everything, runs the roles, and stops them in order once ctx ends. started, if not nil, is called when the process is ready.
func (w *wiring) serve(ctx context.Context, started func(context.Context) error) error {
	listener, err := listen(ctx, w.cfg.HTTP) // first of all: a busy port is the commonest mistake
	if err != nil {
		return err
	}
	defer listener.Close()
	if err := w.open(ctx); err != nil {
		return err
	}
	return w.run(ctx, listener, started)
}

// listen says which flag to change when the port is taken.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		why := "cannot be listened on"
		if errors.Is(err, syscall.EADDRINUSE) {
			why = "is taken, perhaps by another fanfare"
		}
		return nil, &listenError{*wrong(fmt.Sprintf("%s %s (%s)", addr, why, syscallReason(err)), "choose another address with --http HOST:PORT"), err}
	}
	return l, nil
}

// listenError is why there is nobody at the door.
type listenError struct {
	trouble
	cause error
}

// Error says the flag, too.
func (e *listenError) Error() string { return "--http: " + e.trouble.Error() }

func (e *listenError) Unwrap() []error { return []error{&e.trouble, e.cause} }

// syscallReason is the innermost of an error of the network.
func syscallReason(err error) string {
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		return number.Error()
	}
	return oneLine(err.Error())
}

// requestLimit is how long a stop waits for requests that are being answered. A longer one, such as an import whose body is still
// arriving, is broken off: its client repeats it, and what was done is not done again.
const requestLimit = 3 * time.Second

// closeServer takes nothing new, answers what was asked within [requestLimit], and breaks off the rest.
func closeServer(ctx context.Context, server *http.Server) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		_ = server.Close()
	}
}

// stopLimit is how long a graceful stop may take; a role that is not done by then is named and left.
const stopLimit = 14 * time.Second

// run runs the roles until ctx ends or one of them fails, then stops them group by group: first what takes work in, last what
// writes down what became of it.
func (w *wiring) run(ctx context.Context, listener net.Listener, started func(context.Context) error) error {
	health := &health{w: w}
	handler, err := w.handler(health)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) }}

	// Failure of any part ends the whole: a process that runs half of its roles looks healthy and is not.
	failed := make(chan error, 1)
	fail := func(err error) {
		select {
		case failed <- err:
		default: // the first one counts
		}
	}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			fail(fmt.Errorf("http: %w", err))
		}
	}()
	groups, err := w.start(context.WithoutCancel(ctx), fail)
	if err != nil {
		_ = server.Close()
		return err
	}
	health.ready.Store(true)
	w.log.InfoContext(ctx, "ready", "http", listener.Addr().String(), "roles", w.cfg.rolesToRun(), "embedded_kafka", w.cfg.embeddedBroker())

	var cause error
	var embeddedFailed <-chan error
	if w.services != nil {
		embeddedFailed = w.services.Failed()
	}
	startedDone := make(chan error, 1)
	if started != nil {
		go func() { startedDone <- started(ctx) }()
	}
wait:
	for {
		select {
		case <-ctx.Done():
			break wait
		case cause = <-failed:
			break wait
		case cause = <-embeddedFailed:
			break wait
		case err := <-startedDone:
			if err != nil {
				cause = err
				break wait
			}
			startedDone = nil
		}
	}
	if cause != nil {
		w.log.ErrorContext(ctx, "stopping", "err", cause)
	} else {
		w.log.InfoContext(ctx, "stopping: finishing what is in hand; interrupted again, it ends at once")
	}
	health.ready.Store(false)
	stock := w.takeStock()
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	close(w.stopping)
	closeServer(stopCtx, server)
	for _, g := range groups {
		if err := g.stop(stopCtx); err != nil {
			w.log.ErrorContext(ctx, "not stopped in time", "part", g.name, "err", err)
			cause = errors.Join(cause, err)
		}
	}
	w.remains = w.whatRemains(stock)
	for _, line := range w.remains {
		w.log.InfoContext(ctx, "stopped", "remains", line)
	}
	return cause
}

// stock is what is counted when a stop begins.
type stock struct{ inFlight, doubtful float64 }

func (w *wiring) takeStock() stock {
	return stock{w.metric("fanfare_sender_in_flight"), w.metric("fanfare_window_handed_over_doubtful_total")}
}

// metric is the sum of a metric of this process over all labels.
func (w *wiring) metric(name string) (sum float64) {
	families, err := w.reg.Gather()
	if err != nil {
		w.log.Debug("metrics cannot be read", "err", err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// whatRemains says, a line for each thing, what a stop leaves for the next start.
func (w *wiring) whatRemains(began stock) []string {
	var lines []string
	if w.cfg.has("sender") {
		doubtful := w.metric("fanfare_window_handed_over_doubtful_total") - began.doubtful
		inFlight, uncertain := "none", "none"
		if began.inFlight > 0 {
			inFlight = fmt.Sprintf("%.0f messages were at carriers when the stop began; %.0f of them have been answered", began.inFlight, max(0, began.inFlight-doubtful))
		}
		if doubtful > 0 {
			uncertain = fmt.Sprintf("%.0f messages without an answer; each is ambiguous until its receipt comes", doubtful)
		}
		lines = append(lines, "in flight: "+inFlight, "uncertain: "+uncertain)
	}
	select {
	case <-w.view.Ready():
	default:
		return append(lines, "campaigns under way: not known, the control plane was not read yet")
	}
	states := map[fanfarev1.State]int{}
	for _, c := range w.view.Campaigns() {
		if !c.GetHidden() && schemas.Active(c.GetState()) {
			states[c.GetState()]++
		}
	}
	if len(states) == 0 {
		return append(lines, "campaigns under way: none")
	}
	total := 0
	var words []string
	for _, s := range slices.Sorted(maps.Keys(states)) {
		total += states[s]
		words = append(words, fmt.Sprintf("%d %s", states[s], schemas.StateName(s)))
	}
	return append(lines, fmt.Sprintf("campaigns under way: %d (%s); the next start goes on", total, strings.Join(words, ", ")))
}

// A group is parts that stop together.
type group struct {
	name   string
	cancel context.CancelFunc
	parts  *errgroup.Group
}

// stop ends the group and waits for it.
func (g *group) stop(ctx context.Context) error {
	g.cancel()
	done := make(chan error, 1)
	go func() { done <- g.parts.Wait() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s did not stop within %s", g.name, stopLimit)
	}
}

// collectEvery is how often what nobody can want any more is removed from the store, by every process that has it.
const collectEvery = time.Minute

// collect removes it, at the start and then now and again, until ctx ends.
func (w *wiring) collect(ctx context.Context) error {
	for {
		collecting, cancel := context.WithTimeout(ctx, collectEvery)
		err := w.store.Collect(collecting)
		cancel()
		if err != nil && ctx.Err() == nil {
			w.log.WarnContext(ctx, "removing what is over failed, will try again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(collectEvery/2 + rand.N(collectEvery)):
		}
	}
}

// start runs the roles of this process, those that stop last first; the groups come back in the order in which they are to be stopped.
func (w *wiring) start(ctx context.Context, fail func(error)) ([]*group, error) {
	groups := make([]*group, len(phases))
	for i, phase := range slices.Backward(phases) {
		groupCtx, cancel := context.WithCancel(ctx)
		g := &group{name: phase, cancel: cancel, parts: &errgroup.Group{}}
		groups[i] = g
		part := func(name string, run runner) {
			g.parts.Go(func() error {
				err := run(groupCtx)
				switch {
				case groupCtx.Err() == nil && err == nil:
					fail(fmt.Errorf("%s: it has ended by itself", name))
				case groupCtx.Err() == nil:
					fail(fmt.Errorf("%s: %w", name, err))
				case err != nil && !errors.Is(err, context.Canceled):
					w.log.WarnContext(groupCtx, "not stopped as it should", "part", name, "err", err)
				}
				return nil
			})
		}
		if phase == phaseControl {
			part("view", w.view.Run)
			if w.cfg.needs(needStore) {
				part("collect", w.collect)
			}
		}
		for _, r := range roleTable {
			if r.phase != phase || r.build == nil || !w.cfg.has(r.name) {
				continue
			}
			run, err := r.build(w)
			if err != nil {
				for _, g := range groups[i:] {
					g.cancel()
				}
				return nil, fmt.Errorf("%s: %w", r.name, err)
			}
			part(r.name, run)
		}
	}
	return groups, nil
}
