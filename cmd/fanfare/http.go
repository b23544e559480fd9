package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

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
	// Whoever calls the API can do without some: a confirm is in the store and waits for Kafka, sends wait for Redis, statistics say
	// as_of. What needs Kafka at once, a single send, says so itself.
	service := func(name string, degrades bool, do func(context.Context) error) {
		checks = append(checks, api.Check{Name: name, Degrades: degrades && h.w.cfg.has("api"), Do: func(ctx context.Context) error {
			if err := do(ctx); err != nil {
				return errors.New(oneLine(err.Error()))
			}
			return nil
		}})
	}
	service("kafka", true, h.w.askKafka)
	if h.w.store != nil {
		service("store", false, h.w.store.Ping)
	}
	if h.w.redis != nil {
		service("redis", true, func(ctx context.Context) error { return h.w.redis.Ping(ctx).Err() })
	}
	if s, ok := h.w.analytics.(interface{ Ping(context.Context) error }); ok {
		service("clickhouse", true, s.Ping)
	}
	return checks
}

// askKafka asks a broker who leads the control plane, which is nothing it could answer from memory of ours.
func (w *wiring) askKafka(ctx context.Context) error {
	req := kmsg.NewPtrMetadataRequest()
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = new(w.names.Control())
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, w.ops)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return fmt.Errorf("topic %s: %w", w.names.Control(), err)
		}
	}
	return nil
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
	if w.page {
		w.logins = ui.NewLogins(nil)
	}
	deps.Store, deps.Analytics, deps.Kafka, deps.Names, deps.Keys = w.store, w.analytics, kafka, w.names, w.keys
	deps.Logins, deps.Done, deps.Logger, deps.Registry = w.logins, w.stopping, w.log, w.reg
	deps.OptedOut, deps.OptOutsAge = w.view.OptedOut, w.view.SuppressionsAge
	return api.New(deps)
}

// loginLink opens the page for a tenant, once.
func (w *wiring) loginLink(base, tenant string) string { return base + w.logins.NewLogin(tenant) }
