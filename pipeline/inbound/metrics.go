package inbound

import (
	"github.com/prometheus/client_golang/prometheus"

	"fanfare/pipeline/stream"
)

type metrics struct{ records *prometheus.CounterVec }

func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{stream.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fanfare_inbound_records_total", Help: "What recipients did about what they are sent, by result: opted_out (by link), stop, start, review, message, dead.",
	}, []string{"result"}))}
}
