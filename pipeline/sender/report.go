package sender

import (
	"errors"
	"time"

	"github.com/sony/gobreaker/v2"

	"fanfare/pipeline/health"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

// Health returns the health of the routes for which this process has a connector, and updates their metrics.
func (s *RouteSupervisor) Health(now time.Time) []*fanfarev1.RouteHealth {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*fanfarev1.RouteHealth, 0, len(s.running))
	for name, p := range s.running {
		if p.sender == nil && (p.err == nil || errors.Is(p.err, ErrNotServed)) {
			continue // the line is not open yet, or this process does not serve it
		}
		h := p.health(now)
		h.Route = name
		if c := p.sender; c != nil {
			s.rates.Add(name, health.Counts{health.Accepted: c.accepted.Swap(0), health.Refused: c.refused.Swap(0)}, now)
		}
		counts := s.rates.Of(name, now)
		h.Accepted, h.Refused = counts[health.Accepted], counts[health.Refused]
		s.metrics.line(h)
		out = append(out, h)
	}
	return out
}

// health returns the health of one line. A line is down while it is not connected or its breaker is open. While the
// breaker is half open, the next batch decides whether it closes; without messages that may take long.
func (p *routeState) health(now time.Time) *fanfarev1.RouteHealth {
	h := &fanfarev1.RouteHealth{State: schemas.LineStateUp, Breaker: schemas.BreakerClosed}
	err := p.err
	if c := p.sender; c != nil {
		line := c.live.Health()
		err = line.LastError
		h.Sessions, h.InFlight, h.ThrottledPpm = uint32(line.Sessions), uint32(line.InFlight), uint32(line.Throttled*1e6)
		if at := c.breaker.good.Load(); at > 0 {
			h.AnsweredMs = time.Unix(0, at).UnixMilli()
		}
		switch c.breaker.two.State() {
		case gobreaker.StateOpen:
			h.State, h.Breaker = schemas.LineStateDown, schemas.BreakerOpen
		case gobreaker.StateHalfOpen:
			h.State, h.Breaker = schemas.LineStateTrial, schemas.BreakerHalfOpen
		default:
		}
		if !line.Ready {
			h.State = schemas.LineStateDown
		}
	} else {
		h.State = schemas.LineStateDown
	}
	if h.State == schemas.LineStateUp {
		p.downSince = time.Time{}
		return h
	}
	if p.downSince.IsZero() {
		p.downSince = now
		if p.sender != nil {
			if at := p.sender.breaker.since.Load(); at > 0 {
				p.downSince = time.Unix(0, at)
			}
		}
	}
	h.SinceMs = p.downSince.UnixMilli()
	h.AccountRefused = carrier.AccountRefused(err)
	if err != nil {
		h.Error = shorten(validUTF8(err.Error()))
	}
	return h
}

// mostError bounds the text of an error in a report, in runes.
const mostError = 300

func shorten(text string) string {
	if r := []rune(text); len(r) > mostError {
		return string(r[:mostError])
	}
	return text
}

// line sets the metrics of a route.
func (m *metrics) line(h *fanfarev1.RouteHealth) {
	is := func(on bool) float64 {
		if on {
			return 1
		}
		return 0
	}
	m.lineUp.WithLabelValues(h.GetRoute()).Set(is(h.GetState() == schemas.LineStateUp))
	m.lineAuth.WithLabelValues(h.GetRoute()).Set(is(h.GetAccountRefused()))
	m.lineSessions.WithLabelValues(h.GetRoute()).Set(float64(h.GetSessions()))
	m.lineThrottled.WithLabelValues(h.GetRoute()).Set(float64(h.GetThrottledPpm()) / 1e6)
}

// count counts an answer of the carrier that is final for the hand-over. It runs for every message.
func (c *routeSender) count(kind schemas.Kind) {
	switch kind {
	case schemas.KindSent:
		c.accepted.Add(1)
	case schemas.KindNotSent:
		c.refused.Add(1)
	default:
	}
}
