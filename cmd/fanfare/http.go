package main

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"fanfare/api"
	"fanfare/api/ui"
)

// health is what /readyz asks about.
type health struct {
	w     *wiring
	ready atomic.Bool
}

var errNotReady = errors.New("starting, or stopping")

// checks are asked by /readyz, each with a second to answer.
func (h *health) checks() []api.Check {
	checks := []api.Check{{Name: "process", Do: func(context.Context) error {
		if !h.ready.Load() {
			return errNotReady
		}
		return nil
	}}, {Name: "control_view_read", Do: func(context.Context) error {
		select {
		case <-h.w.view.Ready():
			return nil
		default:
			return errors.New("campaigns and routes are not read to their ends yet")
		}
	}}}
	if h.w.store != nil {
		checks = append(checks, api.Check{Name: "store", Do: h.w.store.Ping})
	}
	return checks
}

// handler is what this process answers over HTTP: the API if it has the role, and always /healthz, /readyz and /metrics.
func (w *wiring) handler(h *health) (http.Handler, error) {
	metrics := promhttp.HandlerFor(w.reg, promhttp.HandlerOpts{})
	deps := api.Deps{ControlAge: w.view.Age, Ready: h.checks(), Metrics: metrics}
	if !w.cfg.has("api") {
		return api.NewOps(deps), nil
	}
	kafka, err := w.noLinger("api")
	if err != nil {
		return nil, err
	}
	w.logins = ui.NewLogins(nil)
	deps.Store, deps.Analytics, deps.Kafka, deps.Names, deps.Keys = w.store, w.analytics, kafka, w.names, w.keys
	deps.Logins, deps.Logger, deps.Registry = w.logins, w.log, w.reg
	return api.New(deps)
}

// loginLink opens the page for a tenant, once.
func (w *wiring) loginLink(base, tenant string) string { return base + w.logins.NewLogin(tenant) }
