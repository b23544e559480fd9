package webhook

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"fanfare/pipeline/stream"
)

type metrics struct {
	queued, givenUp, disabled, storeErrors prometheus.Counter
	requests                               *prometheus.CounterVec
	wait, took                             prometheus.Histogram
	failing, owned                         prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return stream.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "fanfare_webhook_" + name, Help: help}))
	}
	gauge := func(name, help string) prometheus.Gauge {
		return stream.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: "fanfare_webhook_" + name, Help: help}))
	}
	return &metrics{
		queued:      counter("events_total", "Events queued for endpoints; one that two endpoints want counts twice."),
		givenUp:     counter("given_up_total", "Events that were tried for three days in vain."),
		disabled:    counter("disabled_total", "Endpoints disabled because they are gone or have failed for five days."),
		storeErrors: counter("store_errors_total", "Times that the queue in the store could not be read or written."),
		requests: stream.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fanfare_webhook_requests_total", Help: "Requests to endpoints by result: taken, refused (another status than 2xx), unreachable (no answer).",
		}, []string{"result"})),
		wait: stream.Register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fanfare_webhook_wait_seconds", Help: "From when an event was due for the first time until its first answer.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2, 5, 10, 30, 60, 300, 1800},
		})),
		took: stream.Register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fanfare_webhook_answer_seconds", Help: "Time of a request to an endpoint.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		})),
		failing: gauge("failing_endpoints", "Endpoints of this process whose last three requests failed."),
		owned:   gauge("endpoints", "Endpoints that this process delivers to."),
	}
}

func (m *metrics) answered(a answer) {
	result := "taken"
	switch {
	case a.status == 0:
		result = "unreachable"
	case a.status >= http.StatusMultipleChoices || a.err != "":
		result = "refused"
	}
	m.requests.WithLabelValues(result).Inc()
	m.took.Observe(a.took.Seconds())
}
