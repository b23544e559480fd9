package ratelimit

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	calls     prometheus.Counter
	tokens    *prometheus.CounterVec
	denied    *prometheus.CounterVec
	throttled prometheus.Counter
	away      prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: "fanfare_ratelimit_" + name, Help: help}
	}
	return &metrics{
		calls:     register(reg, prometheus.NewCounter(counter("calls_total", "Script calls to Redis."))),
		tokens:    register(reg, prometheus.NewCounterVec(counter("tokens_total", "Tokens leased."), []string{"lane"})),
		denied:    register(reg, prometheus.NewCounterVec(counter("denied_total", "Requests that a level could not serve in full."), []string{"level"})),
		throttled: register(reg, prometheus.NewCounter(counter("throttled_total", "Times a carrier asked to slow down."))),
		away: register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fanfare_ratelimit_redis_away", Help: "1 while Redis does not answer and senders hold.",
		})),
	}
}

// register registers c, or returns what is registered under its name already: two limiters of one process count
// together.
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
