package sender

import (
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"fanfare/pipeline/ratelimit"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// metrics of all routes of a process.
type metrics struct {
	waiting, oldest, backlog, inFlight                                             *prometheus.GaugeVec
	submitted, timeouts, late, forgotten, expired, poison, held, unmatched, rejoin *prometheus.CounterVec
	shortOf, outcomes                                                              *prometheus.CounterVec
	answer                                                                         *prometheus.HistogramVec
	breaker                                                                        *prometheus.GaugeVec
	suspended                                                                      *prometheus.GaugeVec
	receipts                                                                       *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "fanfare_sender_" + name, Help: help}, labels))
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fanfare_sender_" + name + "_total", Help: help}, labels))
	}
	return &metrics{
		waiting:   gauge("waiting", "Messages released and not handed over.", "route", "lane"),
		oldest:    gauge("oldest_seconds", "How long ago the oldest of them was released.", "route", "lane"),
		backlog:   gauge("backlog_seconds", "How long the route takes for them at its limit.", "route", "lane"),
		inFlight:  gauge("in_flight", "Messages at the carrier without an answer.", "route", "lane"),
		submitted: counter("submitted", "Messages handed over.", "route", "lane"),
		timeouts:  counter("timeouts", "Hand-overs without an answer in time.", "route", "lane"),
		late:      counter("late_answers", "Answers that came after the time-out.", "route", "lane"),
		forgotten: counter("forgotten", "Messages that were not ours any more when they were to be handed over.", "route", "lane"),
		expired:   counter("tokens_expired", "Tokens that were too old when the carrier had room.", "route", "lane"),
		poison:    counter("poison", "Records that went to the dead letters.", "route", "lane"),
		held:      counter("held", "Single messages that must wait.", "route", "lane"),
		unmatched: counter("provider_ids_dropped", "Provider ids that Redis was away for too long to take.", "route", "lane"),
		rejoin:    counter("receipts_rejoined", "Receipts that came before the answer to their hand-over.", "route", "lane"),
		shortOf:   counter("tokens_denied", "Round trips in which a level had not enough tokens.", "route", "lane", "level"),
		outcomes:  counter("outcomes", "Outcomes written.", "route", "lane", "kind", "code"),
		answer: register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "fanfare_sender_answer_seconds", Help: "Time from the hand-over to the carrier's answer, one of 16 of a batch.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2, 5, 10},
		}, []string{"route", "lane"})),
		breaker:   gauge("breaker_open", "1 while the carrier does not answer and nothing is handed over.", "route"),
		suspended: gauge("suspended_partitions", "Partitions that are held until somebody looks at them.", "route", "lane"),
		receipts:  counter("receipts", "Receipts taken from the carrier's session.", "route"),
	}
}

// register registers c, or returns what is registered under its name already: two fleets of one process count together.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	var known prometheus.AlreadyRegisteredError
	if err := reg.Register(c); errors.As(err, &known) {
		if have, ok := known.ExistingCollector.(C); ok {
			return have
		}
	}
	return c
}

// laneMetrics are those of one lane, found once.
type laneMetrics struct {
	waiting, oldest, backlog, inFlight                                               prometheus.Gauge
	submitted, timeouts, late, forgotten, expired, poison, held, unmatched, rejoined prometheus.Counter
	answer                                                                           prometheus.Observer
	shortOf                                                                          [ratelimit.LevelCampaign + 1]prometheus.Counter

	all         *metrics
	route, lane string
	outcomes    sync.Map // kind << 16 | code -> prometheus.Counter
}

func (m *metrics) lane(route string, lane schemas.Lane) *laneMetrics {
	r, l := route, string(lane)
	out := &laneMetrics{
		waiting: m.waiting.WithLabelValues(r, l), oldest: m.oldest.WithLabelValues(r, l), backlog: m.backlog.WithLabelValues(r, l),
		inFlight: m.inFlight.WithLabelValues(r, l), submitted: m.submitted.WithLabelValues(r, l), timeouts: m.timeouts.WithLabelValues(r, l),
		late: m.late.WithLabelValues(r, l), forgotten: m.forgotten.WithLabelValues(r, l), expired: m.expired.WithLabelValues(r, l),
		poison: m.poison.WithLabelValues(r, l), held: m.held.WithLabelValues(r, l), unmatched: m.unmatched.WithLabelValues(r, l),
		rejoined: m.rejoin.WithLabelValues(r, l), answer: m.answer.WithLabelValues(r, l), all: m, route: r, lane: l,
	}
	for level := range out.shortOf {
		out.shortOf[level] = m.shortOf.WithLabelValues(r, l, ratelimit.Level(level).String())
	}
	return out
}

func (m *laneMetrics) denied(level ratelimit.Level) prometheus.Counter { return m.shortOf[level] }

// outcome counts one. The labels are looked up once for each pair: this runs for every message.
func (m *laneMetrics) outcome(kind fanfarev1.Kind, code fanfarev1.Code) {
	key := uint32(kind)<<16 | uint32(code)
	if c, ok := m.outcomes.Load(key); ok {
		if c, ok := c.(prometheus.Counter); ok {
			c.Inc()
		}
		return
	}
	name := "unknown"
	if info, ok := schemas.LookupKind(kind); ok {
		name = info.Name
	}
	c := m.all.outcomes.WithLabelValues(m.route, m.lane, name, schemas.CodeName(code))
	m.outcomes.Store(key, c)
	c.Inc()
}
