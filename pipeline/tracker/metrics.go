package tracker

import (
	"github.com/prometheus/client_golang/prometheus"

	"fanfare/pipeline/stream"
)

type metrics struct {
	receipts *prometheus.CounterVec
	delay    prometheus.Histogram
	waits    *prometheus.CounterVec
	rebuilds *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{
		receipts: stream.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fanfare_tracker_receipts_total",
			Help: "Receipts by result: the kind of their event, part (other parts are awaited), unmatched (parked), unknown (the carrier does not know), forged, dead.",
		}, []string{"result"})),
		delay: stream.Register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fanfare_tracker_receipt_delay_seconds", Help: "From a receipt coming in to its event.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60, 600},
		})),
		waits: stream.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fanfare_tracker_waits_total", Help: "Batches that were put off, by what they wait for: redis, rendezvous (the index of provider ids), campaign.",
		}, []string{"for"})),
		rebuilds: stream.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fanfare_tracker_rendezvous_rebuilds_total", Help: "Rebuilds of the index of provider ids, by result: done, failed.",
		}, []string{"result"})),
	}
}
