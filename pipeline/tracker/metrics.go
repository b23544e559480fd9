package tracker

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	receipts *prometheus.CounterVec
	delay    prometheus.Histogram
	waits    *prometheus.CounterVec
	rebuilds *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{}
	var err error
	if m.receipts, err = register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fanfare_tracker_receipts_total",
		Help: "Receipts by what became of them: the kind of an event, part (others are awaited), unmatched (parked), unknown (the carrier does not know), forged, dead.",
	}, []string{"result"})); err != nil {
		return nil, err
	}
	if m.delay, err = register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "fanfare_tracker_receipt_delay_seconds", Help: "From a receipt coming in to its event.",
		Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60, 600},
	})); err != nil {
		return nil, err
	}
	if m.waits, err = register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fanfare_tracker_waits_total", Help: "Batches put off by what they waited for: redis, rendezvous, campaign.",
	}, []string{"for"})); err != nil {
		return nil, err
	}
	m.rebuilds, err = register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fanfare_tracker_rendezvous_rebuilds_total", Help: "Times that the rendezvous was filled again, by result: done, failed.",
	}, []string{"result"}))
	return m, err
}

// register registers c; a tracker that came before in this process counts with it.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) (C, error) {
	if reg == nil {
		return c, nil
	}
	err := reg.Register(c)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if same, ok := already.ExistingCollector.(C); ok {
			return same, nil
		}
	}
	if err != nil {
		return c, fmt.Errorf("metrics of the tracker: %w", err)
	}
	return c, nil
}
