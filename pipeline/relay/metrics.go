package relay

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	leading     prometheus.Gauge
	published   *prometheus.CounterVec
	again       prometheus.Counter
	failures    *prometheus.CounterVec
	republished *prometheus.CounterVec
	compared    prometheus.Gauge
	delay       prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		leading:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "fanfare_relay_leading", Help: "1 while this process publishes the control plane."}),
		published: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fanfare_relay_published_total", Help: "Rows published, by type."}, []string{"type"}),
		again:     prometheus.NewCounter(prometheus.CounterOpts{Name: "fanfare_relay_backwards_total", Help: "Records found to be older than one before them; published again."}),
		failures:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fanfare_relay_failures_total", Help: "Failures by what failed: store, kafka."}, []string{"of"}),
		republished: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fanfare_relay_republished_total", Help: "Rows whose newest record was missing on its topic and is published again, by type.",
		}, []string{"type"}),
		compared: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fanfare_relay_compared_timestamp_seconds", Help: "When the store was last compared with its topics to the end; 0 before.",
		}),
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fanfare_relay_delay_seconds", Help: "From a change in the store to its acknowledgement by Kafka.", Buckets: []float64{.002, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30},
		}),
	}
	if reg != nil {
		reg.MustRegister(m.leading, m.published, m.again, m.failures, m.republished, m.compared, m.delay)
	}
	return m
}
