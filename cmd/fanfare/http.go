package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"fanfare/api"
	"fanfare/api/domaincheck"
	"fanfare/api/sharedlimit"
	"fanfare/cmd/fanfare/httpserver"
	"fanfare/cmd/fanfare/services"
)

// health holds the checks of /readyz.
type health struct {
	w     *wiring
	ready atomic.Bool
}

var errNotReady = errors.New("starting, or stopping")

// checks returns the checks of /readyz. Each has a second to answer.
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
			return errors.New("the topics campaigns and control have not been read to their ends yet")
		}
	}}}
	// A process with the API is only degraded while Kafka, Redis or ClickHouse is away: a confirm is in the store and
	// waits for Kafka, sends wait for Redis, statistics name their age. A single send needs Kafka at once and says so
	// itself.
	service := func(name string, degrades bool, do func(context.Context) error) {
		checks = append(checks, api.Check{Name: name, Degrades: degrades && h.w.cfg.has("api"), Do: func(ctx context.Context) error {
			if err := do(ctx); err != nil {
				return errors.New(services.OneLine(err.Error()))
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

// askKafka asks a broker for the leader of the topic control. The answer cannot come from a cache of this process.
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

// kindOf returns the kind of a request, which decides how many of them are answered at once.
func kindOf(r *http.Request) httpserver.Kind {
	switch {
	case r.URL.Path == "/healthz" || r.URL.Path == "/readyz" || r.URL.Path == "/metrics":
		return httpserver.Probe
	case r.Method == http.MethodPost && (strings.HasSuffix(r.URL.Path, "/import") || r.URL.Path == "/api/contacts/upload"):
		return httpserver.Upload
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return httpserver.Read
	default:
		return httpserver.Write
	}
}

// handler answers HTTP: the API if the process has that role, and always /healthz, /readyz and /metrics.
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
	deps.Store, deps.Analytics, deps.Kafka, deps.Names, deps.Keys = w.store, w.analytics, kafka, w.names, w.keys
	deps.Connectors, deps.Traces = w.apiConnectors(), w.traces
	deps.Console, deps.Done, deps.Logger, deps.Registry = true, w.stopping, w.log, w.reg
	deps.Doctor, deps.Alerts, deps.Sources = w.examine, w.alerts, auditSources{w}
	deps.WebhookAllow = w.cfg.webhookAllow()
	deps.LinkURL = w.linkURL()
	if w.cfg.DomainChecks > 0 {
		deps.DomainChecks = api.DomainChecks{Checker: domaincheck.New(domaincheck.Config{Blocklists: w.cfg.DomainBlocklists, Allow: w.cfg.webhookAllow()}), Every: w.cfg.DomainChecks}
	}
	deps.SecureCookies = strings.HasPrefix(w.cfg.PublicURL, "https://")
	deps.Proxies = w.cfg.proxies()
	if w.cfg.OIDCIssuer != "" {
		deps.OIDC = &api.OIDC{Issuer: w.cfg.OIDCIssuer, ClientID: w.cfg.OIDCClientID, ClientSecret: w.cfg.OIDCClientSecret, PublicURL: w.cfg.PublicURL}
	}
	deps.RouteHealth = w.board.RouteHealth
	deps.OptedOut, deps.OptOutsAge = w.view.OptedOut, w.view.SuppressionsAge
	if w.redis != nil && w.cfg.Redis != "" { // an embedded Redis serves only this process
		if deps.SharedLimiter, err = sharedlimit.New(w.redis, w.cfg.Prefix); err != nil {
			return nil, err
		}
	}
	server, err := api.New(deps)
	if err != nil {
		return nil, err
	}
	w.runJobs, w.runConfirmations = server.RunJobs, server.RunConfirmations
	return server, nil
}
