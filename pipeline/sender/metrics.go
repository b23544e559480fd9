package sender

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"fanfare/pipeline/ratelimit"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

// metrics of all routes of a process.
type metrics struct {
	waiting, oldest, backlog, inFlight                                                                 *prometheus.GaugeVec
	submitted, timeouts, late, forgotten, expired, notWritten, poison, forged, held, unmatched, rejoin *prometheus.CounterVec
	repeated, doubtsEnded                                                                              *prometheus.CounterVec
	shortOf, outcomes                                                                                  *prometheus.CounterVec
	answer                                                                                             *prometheus.HistogramVec
	breaker                                                                                            *prometheus.GaugeVec
	suspended                                                                                          *prometheus.GaugeVec
	receipts, inbound                                                                                  *prometheus.CounterVec
	lineUp, lineAuth, lineSessions, lineThrottled                                                      *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return stream.Register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "fanfare_sender_" + name, Help: help}, labels))
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return stream.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fanfare_sender_" + name + "_total", Help: help}, labels))
	}
	return &metrics{
		waiting:     gauge("waiting", "Messages that the window has released and that are not handed over yet.", "route", "lane"),
		oldest:      gauge("oldest_seconds", "How long ago the oldest waiting message was released.", "route", "lane"),
		backlog:     gauge("backlog_seconds", "How long the route takes to send the waiting messages at its limit.", "route", "lane"),
		inFlight:    gauge("in_flight", "Messages handed over and not answered by the carrier.", "route", "lane"),
		submitted:   counter("submitted", "Messages handed over.", "route", "lane"),
		timeouts:    counter("timeouts", "Hand-overs that the carrier did not answer in time.", "route", "lane"),
		late:        counter("late_answers", "Answers that came after the time-out.", "route", "lane"),
		forgotten:   counter("forgotten", "Messages whose partition was gone, or whose guard had expired, right before the hand-over.", "route", "lane"),
		expired:     counter("tokens_expired", "Tokens that expired while the carrier's window was full.", "route", "lane"),
		notWritten:  counter("not_written", "Messages that the connector did not write because their deadline had passed or they were withdrawn.", "route", "lane"),
		poison:      counter("poison", "Records that became dead letters.", "route", "lane"),
		forged:      counter("forged", "Records whose submission id none of our keys has signed. They become dead letters.", "route", "lane"),
		held:        counter("held", "Single sends that were put into topic held.", "route", "lane"),
		unmatched:   counter("provider_ids_dropped", "Provider ids that were not indexed because Redis was away for too long.", "route", "lane"),
		rejoin:      counter("receipts_rejoined", "Receipts that came before the answer to their hand-over.", "route", "lane"),
		repeated:    counter("repeated", "Messages handed over again under the same id, because whether the carrier had them was in doubt.", "route", "lane"),
		doubtsEnded: counter("doubts_ended", "Hand-overs in doubt that were found out about: taken, refused, not_taken (and then handed over), given_up.", "route", "lane", "end"),
		shortOf:     counter("tokens_denied", "Token requests in which a level had too few tokens.", "route", "lane", "level"),
		outcomes:    counter("outcomes", "Outcomes written.", "route", "lane", "kind", "code"),
		answer: stream.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "fanfare_sender_answer_seconds", Help: "Time from the hand-over to the carrier's answer, for one of 16 messages.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2, 5, 10},
		}, []string{"route", "lane"})),
		breaker:   gauge("breaker_open", "1 while the breaker is open: the carrier does not answer and nothing is handed over.", "route"),
		suspended: gauge("suspended_partitions", "Partitions that are suspended until a person repairs them.", "route", "lane"),
		receipts:  counter("receipts", "Receipts taken from the carrier's session.", "route"),
		inbound:   counter("inbound", "Messages of recipients taken from the carrier's session.", "route"),

		lineUp:        gauge("route_up", "1 while messages can be handed over on the route: it is connected and its breaker is closed.", "route"),
		lineAuth:      gauge("route_account_refused", "1 while the carrier refuses the account of the route.", "route"),
		lineSessions:  gauge("route_sessions", "Sessions with the carrier that are bound or connected.", "route"),
		lineThrottled: gauge("route_throttled_ratio", "Share of the last answers, 0 to 1, in which the carrier asked to slow down.", "route"),
	}
}

// laneMetrics are the metrics of one lane, looked up once.
type laneMetrics struct {
	waiting, oldest, backlog, inFlight                                                                   prometheus.Gauge
	submitted, timeouts, late, forgotten, expired, notWritten, poison, forged, held, unmatched, rejoined prometheus.Counter
	repeated, doubtsTaken, doubtsRefused, doubtsNotTaken, doubtsGivenUp                                  prometheus.Counter
	answer                                                                                               prometheus.Observer
	shortOf                                                                                              [ratelimit.LevelCampaign + 1]prometheus.Counter

	all         *metrics
	route, lane string
	outcomes    sync.Map // kind << 16 | code -> prometheus.Counter
}

func (m *metrics) lane(route string, lane schemas.Lane) *laneMetrics {
	r, l := route, string(lane)
	out := &laneMetrics{
		waiting: m.waiting.WithLabelValues(r, l), oldest: m.oldest.WithLabelValues(r, l), backlog: m.backlog.WithLabelValues(r, l),
		inFlight: m.inFlight.WithLabelValues(r, l), submitted: m.submitted.WithLabelValues(r, l), timeouts: m.timeouts.WithLabelValues(r, l),
		late: m.late.WithLabelValues(r, l), forgotten: m.forgotten.WithLabelValues(r, l), expired: m.expired.WithLabelValues(r, l),
		notWritten: m.notWritten.WithLabelValues(r, l), poison: m.poison.WithLabelValues(r, l), forged: m.forged.WithLabelValues(r, l), held: m.held.WithLabelValues(r, l), unmatched: m.unmatched.WithLabelValues(r, l),
		repeated: m.repeated.WithLabelValues(r, l), doubtsTaken: m.doubtsEnded.WithLabelValues(r, l, "taken"), doubtsRefused: m.doubtsEnded.WithLabelValues(r, l, "refused"),
		doubtsNotTaken: m.doubtsEnded.WithLabelValues(r, l, "not_taken"), doubtsGivenUp: m.doubtsEnded.WithLabelValues(r, l, "given_up"),
		rejoined: m.rejoin.WithLabelValues(r, l), answer: m.answer.WithLabelValues(r, l), all: m, route: r, lane: l,
	}
	for level := range out.shortOf {
		out.shortOf[level] = m.shortOf.WithLabelValues(r, l, ratelimit.Level(level).String())
	}
	return out
}

func (m *laneMetrics) denied(level ratelimit.Level) prometheus.Counter { return m.shortOf[level] }

// outcome counts an outcome. It looks labels up once for each kind and code, because it runs for every message.
func (m *laneMetrics) outcome(kind schemas.Kind, code schemas.Code) {
	key := uint32(kind)<<16 | uint32(code)
	if c, ok := m.outcomes.Load(key); ok {
		if c, ok := c.(prometheus.Counter); ok {
			c.Inc()
		}
		return
	}
	name := "unknown"
	if info, ok := schemas.LookupKind(kind); ok {
		name = info.Name
	}
	c := m.all.outcomes.WithLabelValues(m.route, m.lane, name, schemas.CodeName(code))
	m.outcomes.Store(key, c)
	c.Inc()
}
