package window

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"fanfare/pipeline/stream"
)

// windowMetrics are the metrics of one window.
type windowMetrics struct {
	inFlight, inDoubt, queued, backlog, headAge, suspended        prometheus.Gauge
	uncertain, handedOver, seenDrops, guardTrips, refused, resets prometheus.Counter
	lostCommits, commits                                          prometheus.Counter
	commitSeconds                                                 prometheus.Observer
}

func newWindowMetrics(reg prometheus.Registerer, topic string) *windowMetrics {
	by := prometheus.Labels{"topic": topic}
	gauge := func(name, help string) prometheus.Gauge {
		return stream.Register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"topic"})).With(by)
	}
	counter := func(name, help string) prometheus.Counter {
		return stream.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"topic"})).With(by)
	}
	return &windowMetrics{
		inFlight:    gauge("fanfare_window_in_flight", "Records released without an acknowledged outcome."),
		inDoubt:     gauge("fanfare_window_in_doubt", "Records that may have been handed over and of which the sender finds out."),
		queued:      gauge("fanfare_window_queued", "Records polled that wait for room in the window."),
		backlog:     gauge("fanfare_window_backlog", "Records of the log that are not polled yet, control records included."),
		headAge:     gauge("fanfare_window_head_age_seconds", "Age of the oldest record without an acknowledged outcome, 0 when there is none. One in doubt has an outcome: ambiguous."),
		suspended:   gauge("fanfare_window_suspended_partitions", "Partitions that are suspended until a person repairs them."),
		uncertain:   counter("fanfare_window_uncertain_total", "Records that an earlier owner may have handed over."),
		handedOver:  counter("fanfare_window_handed_over_doubtful_total", "Records that were not answered when their partition was given up."),
		seenDrops:   counter("fanfare_window_seen_drops_total", "Duplicates: records whose submission was seen before."),
		guardTrips:  counter("fanfare_window_guard_trips_total", "Times that the guard expired."),
		refused:     counter("fanfare_window_refused_commits_total", "Refused commits, counted per partition."),
		resets:      counter("fanfare_window_resets_total", "Times that a partition was reset to its committed offset."),
		lostCommits: counter("fanfare_window_lost_commits_total", "Takeovers of partitions whose commits the broker had lost."),
		commits:     counter("fanfare_window_commits_total", "Commits that were sent."),
		commitSeconds: stream.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "fanfare_window_commit_seconds", Help: "How long a commit took.", Buckets: prometheus.ExponentialBuckets(0.0005, 3, 10),
		}, []string{"topic"})).With(by),
	}
}

// observe sets the gauges. w.mu is held.
func (m *windowMetrics) observe(w *Window, now time.Time) {
	queued, suspended, doubted, backlog := 0, 0, 0, int64(0)
	var oldest time.Time
	for _, p := range w.order {
		queued += p.undeclared()
		n, at := p.doubted()
		doubted += n
		if !at.IsZero() && (oldest.IsZero() || at.Before(oldest)) {
			oldest = at
		}
		backlog += max(0, p.high-p.next)
		if p.why == stopSuspended {
			suspended++
		}
	}
	m.inFlight.Set(float64(max(0, w.unsettled.Load()-int64(doubted))))
	m.inDoubt.Set(float64(doubted))
	m.queued.Set(float64(queued))
	m.backlog.Set(float64(backlog))
	m.suspended.Set(float64(suspended))
	if oldest.IsZero() {
		m.headAge.Set(0)
	} else {
		m.headAge.Set(max(0, now.Sub(oldest).Seconds()))
	}
}
