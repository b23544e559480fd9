package stream

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Register registers c, or returns the collector of the same description that is registered already: two stages of the
// same kind in one process share their metrics. With a nil reg nothing is registered.
func Register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
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

// stageMetrics are the metrics of one stage.
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
		return Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"stage"})).With(by)
	}
	histogram := func(name, help string, buckets []float64) prometheus.Observer {
		return Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{"stage"})).With(by)
	}
	return &stageMetrics{
		topics:  topics,
		batch:   histogram("fanfare_stage_batch_records", "Records of a batch.", prometheus.ExponentialBuckets(1, 4, 8)),
		handle:  histogram("fanfare_stage_handle_seconds", "How long a batch was handled.", prometheus.ExponentialBuckets(0.0005, 4, 9)),
		retries: counter("fanfare_stage_retries_total", "Batches that failed and were tried again."),
		aborts:  counter("fanfare_stage_transaction_aborts_total", "Transactions that were aborted and redone."),
		dead: Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fanfare_stage_dead_letters_total", Help: "Records that could not be handled.",
		}, []string{"stage", "topic"})).MustCurryWith(by),
		lag: Register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "fanfare_stage_head_lag_seconds", Help: "Age of the oldest record of the current batch, 0 when there is none.",
		}, []string{"stage", "topic"})).MustCurryWith(by),
	}
}

// polled records the age of a batch, or 0 if the poll was empty.
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
