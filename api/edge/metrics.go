package edge

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec
	clicks   *prometheus.CounterVec
	seconds  prometheus.Histogram
	dropped  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, s *spool) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fanfare_edge_requests_total",
			Help: "Requests of the public, by result: redirect, opt_out_page, opted_out, opt_out_failed, unknown, expired, host (the link is of another host), limited, method, starting, robots, health.",
		}, []string{"result"}),
		clicks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fanfare_edge_clicks_total", Help: "Clicks, by who opened the link: person, preview, scanner, unknown.",
		}, []string{"class"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fanfare_edge_redirect_seconds", Help: "Time to answer with a redirect, including the publication of the click.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 12),
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fanfare_edge_lost_total", Help: "Clicks and opt-outs that could be neither published nor kept.",
		}),
	}
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "fanfare_edge_waiting", Help: "Clicks and opt-outs in the file that keeps what cannot be published.",
	}, func() float64 { return float64(s.waiting()) })
	reg.MustRegister(m.requests, m.clicks, m.seconds, m.dropped, waiting)
	return m
}
