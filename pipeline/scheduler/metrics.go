package scheduler

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the scheduler. Those by route are kept by the leader only.
type metrics struct {
	leading   prometheus.Gauge
	takeover  prometheus.Gauge
	restarts  prometheus.Counter
	aborted   prometheus.Counter
	commit    prometheus.Histogram
	deals     *prometheus.CounterVec // by purpose
	dealt     *prometheus.CounterVec // recipients by purpose
	ends      *prometheus.CounterVec // by kind
	events    prometheus.Counter
	strays    prometheus.Gauge
	dead      prometheus.Counter
	redealt   prometheus.Counter
	adopted   prometheus.Counter
	withheld  *prometheus.GaugeVec // by cause
	moves     *prometheus.CounterVec
	campaigns prometheus.Gauge
	held      prometheus.Gauge
	inFlight  *prometheus.GaugeVec // by route and lane
	backlog   *prometheus.GaugeVec // by route
	due       *prometheus.GaugeVec // by route
	overdue   *prometheus.GaugeVec // by route
	setsBytes prometheus.Counter
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
		leading:  gauge("leading", "1 while this process is the dealer."),
		takeover: gauge("takeover_seconds", "How long the last taking over took, from the lead to the first deals."),
		restarts: counter("restarts_total", "Terms that ended in trouble and began anew from the topics."),
		aborted:  counter("aborted_transactions_total", "Transactions that were not committed."),
		commit: register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fanfare_scheduler_commit_seconds", Help: "How long a transaction took.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		})),
		deals:     counters("deals_total", "Chunks dealt, by purpose: deal, again, cancel, single.", "purpose"),
		dealt:     counters("dealt_recipients_total", "Recipients dealt, by purpose.", "purpose"),
		ends:      counters("ends_total", "Recipients ended here, by kind.", "kind"),
		events:    counter("events_total", "Delivery events read."),
		strays:    gauge("stray_events", "Delivery events of nobody's try since the lead began."),
		dead:      counter("dead_letters_total", "Records that could not be read."),
		redealt:   counter("redealt_total", "Deals that a cursor named and the topic had not, made again."),
		adopted:   counter("adopted_chunks_total", "Chunks found that no cursor named."),
		withheld:  gauges("withheld", "1 while nothing is dealt because of it: view, hook.", "cause"),
		moves:     counters("moves_total", "Moves of campaigns asked of the store, by result: made, conflict, failed.", "result"),
		campaigns: gauge("open_campaigns", "Campaigns in memory that are not settled."),
		held:      gauge("held_messages", "Single sends that wait for their time."),
		inFlight:  gauges("in_flight", "Dealt and not answered.", "route", "lane"),
		backlog:   gauges("backlog_seconds", "What could be dealt and was not yet, at the rate of the route.", "route"),
		due:       gauges("due", "Recipients who wait to be dealt again.", "route"),
		overdue:   gauges("oldest_due_seconds", "How long the longest overdue waits.", "route"),
		setsBytes: counter("sets_bytes_total", "Bytes of sets written."),
	}
}

// register registers c, or returns the one that another scheduler of this process has registered: they count together.
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

// observe takes the state of the core.
func (m *metrics) observe(k *core, now time.Time) {
	m.campaigns.Set(float64(len(k.open)))
	m.held.Set(float64(len(k.holding.byKey)))
	m.strays.Set(float64(k.strays))
	for _, l := range k.Loads() {
		m.inFlight.WithLabelValues(l.route, "bulk").Set(float64(l.bulk))
		m.inFlight.WithLabelValues(l.route, "txn").Set(float64(l.txn))
		m.backlog.WithLabelValues(l.route).Set(l.seconds)
		m.due.WithLabelValues(l.route).Set(float64(l.due + l.ripe))
		age := 0.0
		if l.oldest > 0 {
			age = max(0, now.Sub(time.UnixMilli(l.oldest)).Seconds())
		}
		m.overdue.WithLabelValues(l.route).Set(age)
	}
}
