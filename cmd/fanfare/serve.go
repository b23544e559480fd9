package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"fanfare/api"
	"fanfare/cmd/fanfare/httpserver"
	"fanfare/cmd/fanfare/services"
	"fanfare/pipeline/stream"
)

func (p *program) serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run roles: all of them, or those named by --roles",
		Long: `Run the roles of Fanfare in this process until it is interrupted.

Without addresses everything is embedded under --data, and a second start on the same
directory continues where the first one stopped. With --kafka, --redis, --clickhouse
and --store the same roles run on real services, in as many processes as needed.`,
		Args: exactArgs(),
	}
	serveFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return p.wired(cmd, func(w *wiring) error { return w.serve(cmd.Context(), nil) })
	}
	return cmd
}

// wired runs a command with the settings of its flags, and closes at the end everything that was opened.
func (p *program) wired(cmd *cobra.Command, run func(*wiring) error) error {
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
	return run(w)
}

// serve opens everything, runs the roles, and stops them in order once ctx ends. It calls started, if not nil, when the
// process is ready.
func (w *wiring) serve(ctx context.Context, started func(context.Context) error) error {
	w.log.InfoContext(ctx, "starting", "version", version(), "command", w.command, "roles", w.cfg.rolesToRun())
	listener, err := services.Listen(ctx, w.cfg.HTTP) // first: a busy port is the most common mistake
	if err != nil {
		return err
	}
	defer listener.Close()
	if w.cfg.has(roleEdge) {
		if w.edge, err = services.ListenFor(ctx, "--edge", w.cfg.Edge); err != nil {
			return err
		}
		defer w.edge.Close()
	}
	if err := w.open(ctx); err != nil {
		return err
	}
	return w.run(ctx, listener, started)
}

// requestLimit is how long a stop waits for requests that are being answered. Longer ones, such as an import whose body
// is still arriving, are cut off: the client repeats them, and no work that was done is done twice.
const requestLimit = 3 * time.Second

// closeServer accepts no new request, answers the open ones within [requestLimit], and cuts off the rest. Then the API
// returns to the store what it has reserved there.
func closeServer(ctx context.Context, server *httpserver.Server, handler http.Handler) {
	stop, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	server.Shutdown(stop)
	if s, ok := handler.(*api.Server); ok {
		ctx, cancel := context.WithTimeout(ctx, requestLimit)
		defer cancel()
		_ = s.Close(ctx) // Close logs what it cannot return
	}
}

// stopLimit is how long a graceful stop may take. A role that has not stopped by then is named in the log and
// abandoned.
const stopLimit = 14 * time.Second

// run runs the roles until ctx ends or one of them fails, then stops them group by group: first those that accept work,
// last those that record its outcome.
func (w *wiring) run(ctx context.Context, listener net.Listener, started func(context.Context) error) error {
	health := &health{w: w}
	handler, err := w.handler(health) //nolint:contextcheck // requests bring their own
	if err != nil {
		return err
	}
	server, err := httpserver.New(httpserver.Config{Handler: handler, Kind: kindOf, Logger: w.log, Registry: w.reg})
	if err != nil {
		return err
	}

	// If any part fails, the process ends: a process that runs half of its roles looks healthy and is not.
	failed := make(chan error, 1)
	fail := func(err error) {
		select {
		case failed <- err:
		default: // only the first failure is reported
		}
	}
	go func() {
		if err := server.Serve(context.WithoutCancel(ctx), listener); err != nil {
			fail(err)
		}
	}()
	groups, err := w.start(context.WithoutCancel(ctx), fail)
	if err != nil {
		closeServer(ctx, server, handler)
		return err
	}
	health.ready.Store(true)
	if w.edge != nil {
		w.log.InfoContext(ctx, "edge", "listens", w.edge.Addr().String(), "links", w.linkURL())
	}
	w.log.InfoContext(ctx, "ready", "http", listener.Addr().String(), "roles", w.cfg.rolesToRun(), "embedded_kafka", w.cfg.embeddedBroker())

	cause := w.untilStop(ctx, failed, started)
	if cause != nil {
		w.log.ErrorContext(ctx, "stopping", "err", cause)
	} else {
		w.log.InfoContext(ctx, "stopping: finishing what is in hand; a second signal ends the process at once")
	}
	health.ready.Store(false)
	began := w.takeStock()
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	close(w.stopping)
	closeServer(stopCtx, server, handler)
	for _, g := range groups {
		if err := g.stop(stopCtx); err != nil {
			w.log.ErrorContext(ctx, "not stopped in time", "part", g.name, "err", err)
			cause = errors.Join(cause, err)
		}
	}
	w.remains = w.whatRemains(began)
	for _, line := range w.remains {
		w.log.InfoContext(ctx, "stopped", "remains", line)
	}
	return cause
}

// untilStop returns when ctx ends, or with the error of the first part that fails.
func (w *wiring) untilStop(ctx context.Context, failed <-chan error, started func(context.Context) error) error {
	var embeddedFailed <-chan error
	if w.services != nil {
		embeddedFailed = w.services.Failed()
	}
	startedDone := make(chan error, 1)
	if started != nil {
		go func() { startedDone <- started(ctx) }()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case err := <-embeddedFailed:
			return err
		case err := <-startedDone:
			if err != nil {
				return err
			}
		}
	}
}

// collectEvery is how often each process that has the store removes expired data from it.
const collectEvery = time.Minute

// collect removes expired data from the store, at the start and then at intervals, until ctx ends.
func (w *wiring) collect(ctx context.Context) error {
	for {
		collecting, cancel := context.WithTimeout(ctx, collectEvery)
		err := w.store.Collect(collecting)
		cancel()
		if err != nil && ctx.Err() == nil {
			w.log.WarnContext(ctx, "removing expired data failed, will retry", "err", err)
		}
		if !stream.Sleep(ctx, collectEvery/2+rand.N(collectEvery)) {
			return nil
		}
	}
}
