package ratelimit

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	calls     prometheus.Counter
	tokens    *prometheus.CounterVec
	denied    *prometheus.CounterVec
	throttled prometheus.Counter
	away      prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		calls:     prometheus.NewCounter(prometheus.CounterOpts{Name: "fanfare_ratelimit_calls_total", Help: "Script calls to Redis."}),
		tokens:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fanfare_ratelimit_tokens_total", Help: "Tokens leased."}, []string{"lane"}),
		denied:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fanfare_ratelimit_denied_total", Help: "Requests that a level could not serve in full."}, []string{"level"}),
		throttled: prometheus.NewCounter(prometheus.CounterOpts{Name: "fanfare_ratelimit_throttled_total", Help: "Times a carrier asked to slow down."}),
		away:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "fanfare_ratelimit_redis_away", Help: "1 while Redis does not answer and senders hold."}),
	}
	if reg != nil {
		reg.MustRegister(m.calls, m.tokens, m.denied, m.throttled, m.away)
	}
	return m
}
