package scheduler

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"fanfare/pipeline/scheduler/plan"
)

// metrics of the scheduler. Only the leader sets those with the label route.
type metrics struct {
	leading       prometheus.Gauge
	takeover      prometheus.Gauge
	restarts      prometheus.Counter
	aborted       prometheus.Counter
	commit        prometheus.Histogram
	deals         *prometheus.CounterVec // by purpose
	dealt         *prometheus.CounterVec // recipients by purpose
	ends          *prometheus.CounterVec // by kind
	events        prometheus.Counter
	unknownEvents prometheus.Gauge
	dead          prometheus.Counter
	redealt       prometheus.Counter
	adopted       prometheus.Counter
	withheld      *prometheus.GaugeVec // by cause
	moves         *prometheus.CounterVec
	suspended     *prometheus.CounterVec // by reason
	campaigns     prometheus.Gauge
	broken        prometheus.Gauge
	stalled       prometheus.Gauge
	held          prometheus.Gauge
	inFlight      *prometheus.GaugeVec // by route and lane
	backlog       *prometheus.GaugeVec // by route
	due           *prometheus.GaugeVec // by route
	overdue       *prometheus.GaugeVec // by route
	away          *prometheus.GaugeVec // by route
	setsBytes     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "fanfare_scheduler_" + name, Help: help}))
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fanfare_scheduler_" + name, Help: help}, labels))
	}
	gauge := func(name, help string) prometheus.Gauge {
		return register(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: "fanfare_scheduler_" + name, Help: help}))
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "fanfare_scheduler_" + name, Help: help}, labels))
	}
	return &metrics{
		leading:  gauge("leading", "1 while this process leads."),
		takeover: gauge("takeover_seconds", "How long the last takeover took, from the start of the leadership to the first deals."),
		restarts: counter("restarts_total", "Leaderships that ended with an error and were started again from the topics."),
		aborted:  counter("aborted_transactions_total", "Transactions that were not committed."),
		commit: register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fanfare_scheduler_commit_seconds", Help: "How long a transaction took.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		})),
		deals:         counters("deals_total", "Chunks dealt, by purpose: deal, again, cancel, single.", "purpose"),
		dealt:         counters("dealt_recipients_total", "Recipients dealt, by purpose.", "purpose"),
		ends:          counters("ends_total", "Last events of recipients written by the scheduler, by kind.", "kind"),
		events:        counter("events_total", "Delivery events read."),
		unknownEvents: gauge("stray_events", "Delivery events of no known deal since this process leads."),
		dead:          counter("dead_letters_total", "Records that could not be read."),
		redealt:       counter("redealt_total", "Deals that a cursor listed and topic chunks lacked, made again."),
		adopted:       counter("adopted_chunks_total", "Chunks found that no cursor listed."),
		withheld:      gauges("withheld", "1 while nothing is dealt for this cause: view, hook.", "cause"),
		moves:         counters("moves_total", "Moves of campaigns requested from the store, by result: made, conflict, failed.", "result"),
		suspended:     counters("suspensions_total", "Campaigns suspended by the scheduler, by reason: route_down, provider_auth, failure_rate, broken_record.", "reason"),
		stalled:       gauge("stalled_campaigns", "Campaigns whose recipients wait, though nothing holds them up, and that made no progress for five minutes."),
		broken:        gauge("broken_campaigns", "Campaigns set aside because one of their records in cursors or chunks cannot be read."),
		campaigns:     gauge("open_campaigns", "Campaigns in memory that are not settled."),
		held:          gauge("held_messages", "Single sends that wait for their time."),
		inFlight:      gauges("in_flight", "Dealt and not answered.", "route", "lane"),
		backlog:       gauges("backlog_seconds", "How long the recipients that could be dealt now take at the rate of the route.", "route"),
		due:           gauges("due", "Recipients that wait to be dealt again.", "route"),
		overdue:       gauges("oldest_due_seconds", "How long the recipient that is overdue longest has waited.", "route"),
		away:          gauges("route_away", "1 while the route cannot carry its recipients, so that others carry those of campaigns that have any.", "route"),
		setsBytes:     counter("sets_bytes_total", "Bytes of sets written."),
	}
}

// register registers c. If another scheduler of this process has registered it, both share it.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if have, ok := already.ExistingCollector.(C); ok {
			return have
		}
	}
	return c
}

// observe sets the gauges from the state of the planner.
func (m *metrics) observe(pl *plan.Planner, now time.Time) {
	m.campaigns.Set(float64(pl.OpenCampaigns()))
	m.broken.Set(float64(pl.BrokenCampaigns()))
	m.held.Set(float64(pl.HeldMessages()))
	m.unknownEvents.Set(float64(pl.UnknownEvents()))
	for _, l := range pl.Loads() {
		m.inFlight.WithLabelValues(l.Route, "bulk").Set(float64(l.Bulk))
		m.inFlight.WithLabelValues(l.Route, "txn").Set(float64(l.Txn))
		m.backlog.WithLabelValues(l.Route).Set(l.Seconds)
		m.due.WithLabelValues(l.Route).Set(float64(l.Due + l.Ready))
		age := 0.0
		if l.OldestMs > 0 {
			age = max(0, now.Sub(time.UnixMilli(l.OldestMs)).Seconds())
		}
		m.overdue.WithLabelValues(l.Route).Set(age)
	}
	pl.Away(func(route string, away bool) { set(m.away.WithLabelValues(route), away) })
}
