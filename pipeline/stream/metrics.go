package stream

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// register registers c, or returns the collector of the same description that somebody else in the process has registered.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	if again, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if have, ok := again.ExistingCollector.(C); ok {
			return have
		}
	}
	return c
}

// stageMetrics are those of one stage.
type stageMetrics struct {
	batch   prometheus.Observer
	handle  prometheus.Observer
	retries prometheus.Counter
	aborts  prometheus.Counter
	dead    *prometheus.CounterVec // by topic
	lag     *prometheus.GaugeVec   // by topic
	topics  []string
}

func newStageMetrics(reg prometheus.Registerer, stage string, topics []string) *stageMetrics {
	by := prometheus.Labels{"stage": stage}
	counter := func(name, help string) prometheus.Counter {
		return register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"stage"})).With(by)
	}
	histogram := func(name, help string, buckets []float64) prometheus.Observer {
		return register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{"stage"})).With(by)
	}
	return &stageMetrics{
		topics:  topics,
		batch:   histogram("fanfare_stage_batch_records", "Records of a batch.", prometheus.ExponentialBuckets(1, 4, 8)),
		handle:  histogram("fanfare_stage_handle_seconds", "How long a batch was handled.", prometheus.ExponentialBuckets(0.0005, 4, 9)),
		retries: counter("fanfare_stage_retries_total", "Batches that failed and were tried again."),
		aborts:  counter("fanfare_stage_transaction_aborts_total", "Transactions that were aborted and redone."),
		dead: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fanfare_stage_dead_letters_total", Help: "Records that could not be handled.",
		}, []string{"stage", "topic"})).MustCurryWith(by),
		lag: register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "fanfare_stage_head_lag_seconds", Help: "Age of the oldest record of the batch in hand, 0 when there is none.",
		}, []string{"stage", "topic"})).MustCurryWith(by),
	}
}

// polled takes note of a batch, or that there was none.
func (m *stageMetrics) polled(batch []*kgo.Record) {
	if len(batch) == 0 {
		for _, topic := range m.topics {
			m.lag.WithLabelValues(topic).Set(0)
		}
		return
	}
	oldest := map[string]time.Time{}
	for _, r := range batch {
		if have, ok := oldest[r.Topic]; !ok || r.Timestamp.Before(have) {
			oldest[r.Topic] = r.Timestamp
		}
	}
	for topic, at := range oldest {
		m.lag.WithLabelValues(topic).Set(max(0, time.Since(at).Seconds()))
	}
}

func (m *stageMetrics) handled(records int, took time.Duration) {
	m.batch.Observe(float64(records))
	m.handle.Observe(took.Seconds())
}

func (m *stageMetrics) done(res Result) {
	for _, d := range res.Dead {
		m.dead.WithLabelValues(d.Record.Topic).Inc()
	}
}

// windowMetrics are those of one window.
type windowMetrics struct {
	inFlight, queued, backlog, headAge, suspended                 prometheus.Gauge
	uncertain, handedOver, seenDrops, guardTrips, refused, resets prometheus.Counter
	lostCommits, commits                                          prometheus.Counter
	commitSeconds                                                 prometheus.Observer
}

func newWindowMetrics(reg prometheus.Registerer, topic string) *windowMetrics {
	by := prometheus.Labels{"topic": topic}
	gauge := func(name, help string) prometheus.Gauge {
		return register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"topic"})).With(by)
	}
	counter := func(name, help string) prometheus.Counter {
		return register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"topic"})).With(by)
	}
	return &windowMetrics{
		inFlight:    gauge("fanfare_window_in_flight", "Records that were released and have no acknowledged outcome."),
		queued:      gauge("fanfare_window_queued", "Records that were polled and wait for room in the window."),
		backlog:     gauge("fanfare_window_backlog", "Records of the log that were not polled yet, control records included."),
		headAge:     gauge("fanfare_window_head_age_seconds", "Age of the oldest record without an acknowledged outcome, 0 when there is none."),
		suspended:   gauge("fanfare_window_suspended_partitions", "Partitions that are held until somebody looks at them."),
		uncertain:   counter("fanfare_window_uncertain_total", "Records that an earlier owner may have handed over."),
		handedOver:  counter("fanfare_window_handed_over_doubtful_total", "Records that were not answered when their partition was handed over."),
		seenDrops:   counter("fanfare_window_seen_drops_total", "Records whose submission was seen before."),
		guardTrips:  counter("fanfare_window_guard_trips_total", "Times that the guard began to hold submissions back."),
		refused:     counter("fanfare_window_refused_commits_total", "Commits of a partition that were refused."),
		resets:      counter("fanfare_window_resets_total", "Times that a partition was begun anew from what was committed."),
		lostCommits: counter("fanfare_window_lost_commits_total", "Partitions of which the broker had lost commits."),
		commits:     counter("fanfare_window_commits_total", "Commits that were sent."),
		commitSeconds: register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "fanfare_window_commit_seconds", Help: "How long a commit took.", Buckets: prometheus.ExponentialBuckets(0.0005, 3, 10),
		}, []string{"topic"})).With(by),
	}
}

// observe sets the gauges. The lock of the window is held.
func (m *windowMetrics) observe(w *Window, now time.Time) {
	queued, suspended, backlog := 0, 0, int64(0)
	var oldest time.Time
	for _, p := range w.order {
		queued += p.undeclared()
		backlog += max(0, p.high-p.next)
		if p.why == stopSuspended {
			suspended++
		}
		if len(p.items) > 0 {
			if at := p.items[0].Record.Timestamp; oldest.IsZero() || at.Before(oldest) {
				oldest = at
			}
		}
	}
	m.inFlight.Set(float64(w.unsettled.Load()))
	m.queued.Set(float64(queued))
	m.backlog.Set(float64(backlog))
	m.suspended.Set(float64(suspended))
	if oldest.IsZero() {
		m.headAge.Set(0)
	} else {
		m.headAge.Set(max(0, now.Sub(oldest).Seconds()))
	}
}
