package expander

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	chunks     *prometheus.CounterVec
	recipients *prometheus.CounterVec
	waits      *prometheus.CounterVec
	blobs      *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		chunks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fanfare_expander_chunks_total", Help: "Chunks by what became of them: messages, outcomes, dead.",
		}, []string{"result"}),
		recipients: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fanfare_expander_recipients_total", Help: "Recipients by what they became: message, or the sub-status of their outcome.",
		}, []string{"result"}),
		waits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fanfare_expander_waits_total", Help: "Batches put off by what they waited for: view, store.",
		}, []string{"for"}),
		blobs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fanfare_expander_blob_reads_total", Help: "Reads of audience blobs by where they were found: memory, store.",
		}, []string{"from"}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []**prometheus.CounterVec{&m.chunks, &m.recipients, &m.waits, &m.blobs} {
		err := reg.Register(*c)
		// Two expanders of one process share these metrics
		if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
			if same, ok := already.ExistingCollector.(*prometheus.CounterVec); ok {
				*c, err = same, nil
			}
		}
		if err != nil {
			return nil, fmt.Errorf("metrics of the expander: %w", err)
		}
	}
	return m, nil
}
