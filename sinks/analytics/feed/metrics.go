package feed

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the feed. No label is an id.
type metrics struct {
	events  prometheus.Counter
	rows    prometheus.Observer
	seconds prometheus.Observer
	retries *prometheus.CounterVec // by step
	dead    *prometheus.CounterVec // by cause
	replays prometheus.Counter
	gaps    prometheus.Counter
	waiting prometheus.Gauge
}

// Values of the label step.
const (
	stepAppend  = "append"
	stepDeclare = "declare"
	stepSettle  = "settle"
	stepMark    = "mark"
	stepDead    = "dead_letter"
	stepEnds    = "ends"
)

// Values of the label cause.
const (
	causeRecord   = "record"
	causeCampaign = "campaign"
	causeTenant   = "tenant"
	causeStore    = "store"
)

// register registers c. If an equal collector is registered already, it returns that one.
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

func newMetrics(reg prometheus.Registerer, f *reader) *metrics {
	topic := prometheus.Labels{"topic": f.label}
	if reg != nil && f.marks {
		lag := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "fanfare_analytics_lag_seconds", Help: "Lag of the statistics behind the topic: now minus the time up to which they are complete. -1 while that is unknown.",
		}, func() float64 {
			at := f.AsOf()
			if at.IsZero() {
				return -1
			}
			return max(0, f.cfg.Now().Sub(at).Seconds())
		})
		// If a process creates a second feed, the newest one is shown.
		var again prometheus.AlreadyRegisteredError
		if err := reg.Register(lag); errors.As(err, &again) && reg.Unregister(again.ExistingCollector) {
			register(reg, lag)
		}
	}
	return &metrics{
		events: register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "fanfare_analytics_events_total", ConstLabels: topic, Help: "Rows stored: delivery events of topic deliveries, deals of topic chunks."})),
		rows: register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fanfare_analytics_batch_rows", ConstLabels: topic, Help: "Rows per batch of one partition.", Buckets: prometheus.ExponentialBuckets(1, 4, 9),
		})),
		seconds: register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fanfare_analytics_append_seconds", ConstLabels: topic, Help: "Duration of appending the batches of one flush.", Buckets: prometheus.ExponentialBuckets(0.001, 3, 10),
		})),
		retries: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fanfare_analytics_retries_total", ConstLabels: topic, Help: "Steps that failed and were retried, by step."}, []string{"step"})),
		dead:    register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fanfare_analytics_dead_letters_total", ConstLabels: topic, Help: "Records that are not of the topic's type or cannot be stored, by cause."}, []string{"cause"})),
		replays: register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "fanfare_analytics_replays_total", ConstLabels: topic, Help: "Batches that the previous owner had declared and not settled, appended again."})),
		waiting: register(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: "fanfare_analytics_rows_waiting", ConstLabels: topic, Help: "Records that are read and not stored yet."})),
		gaps:    register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "fanfare_analytics_gaps_total", ConstLabels: topic, Help: "Partitions whose records were deleted before they were stored, or whose log ends below the stored position."})),
	}
}

func (m *metrics) appended(batches int, rows []int, took time.Duration) {
	if batches == 0 {
		return
	}
	for _, n := range rows {
		m.rows.Observe(float64(n))
		m.events.Add(float64(n))
	}
	m.seconds.Observe(took.Seconds())
}
