package feed

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the feed. None has an id as label.
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

// Steps that are tried again, as the label of a metric.
const (
	stepAppend  = "append"
	stepDeclare = "declare"
	stepSettle  = "settle"
	stepMark    = "mark"
	stepDead    = "dead_letter"
	stepEnds    = "ends"
)

// Causes of dead letters, as the label of a metric.
const (
	causeRecord   = "record"
	causeCampaign = "campaign"
	causeTenant   = "tenant"
	causeStore    = "store"
)

// register registers c, or returns the collector of the same description that is registered already.
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

func newMetrics(reg prometheus.Registerer, f *Feed) *metrics {
	if reg != nil {
		lag := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "fanfare_analytics_lag_seconds", Help: "How far the statistics are behind the topic: now less the time up to which they are complete. -1 before that is known.",
		}, func() float64 {
			at := f.AsOf()
			if at.IsZero() {
				return -1
			}
			return max(0, f.cfg.Now().Sub(at).Seconds())
		})
		// The newest feed of a process is the one that counts.
		var again prometheus.AlreadyRegisteredError
		if err := reg.Register(lag); errors.As(err, &again) && reg.Unregister(again.ExistingCollector) {
			register(reg, lag)
		}
	}
	return &metrics{
		events: register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "fanfare_analytics_events_total", Help: "Delivery events stored."})),
		rows: register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fanfare_analytics_batch_rows", Help: "Events of a batch: of one partition, appended at once.", Buckets: prometheus.ExponentialBuckets(1, 4, 9),
		})),
		seconds: register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fanfare_analytics_append_seconds", Help: "How long the store took for the batches of one flush.", Buckets: prometheus.ExponentialBuckets(0.001, 3, 10),
		})),
		retries: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fanfare_analytics_retries_total", Help: "Steps that failed and were tried again."}, []string{"step"})),
		dead:    register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fanfare_analytics_dead_letters_total", Help: "Records that are no delivery event that can be stored."}, []string{"cause"})),
		replays: register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "fanfare_analytics_replays_total", Help: "Batches that the owner before had declared and not settled."})),
		waiting: register(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: "fanfare_analytics_rows_waiting", Help: "Records that were read and are not stored yet."})),
		gaps:    register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "fanfare_analytics_gaps_total", Help: "Partitions in which records were gone before they were read, or stored records gone from the log."})),
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
