package schemas_test

import (
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// TestRouteHealthOf: the route is up if a process has proof that the carrier accepts messages. A process that has not
// tried to send is no proof.
func TestRouteHealthOf(t *testing.T) {
	now := time.Date(2030, 3, 4, 10, 0, 0, 0, time.UTC)
	at := func(ago time.Duration) int64 { return now.Add(-ago).UnixMilli() }
	type report = fanfarev1.RouteHealth
	down := &report{State: schemas.LineStateDown, TimeMs: at(time.Second), SinceMs: at(time.Minute), Breaker: schemas.BreakerOpen, Error: "no answer"}
	unbound := &report{State: schemas.LineStateDown, TimeMs: at(time.Second), SinceMs: at(time.Minute), Breaker: schemas.BreakerClosed, AccountRefused: true}
	trial := &report{State: schemas.LineStateTrial, TimeMs: at(0), SinceMs: at(time.Minute), Breaker: schemas.BreakerHalfOpen}
	up := func(answered time.Duration, sessions uint32) *report {
		return &report{State: schemas.LineStateUp, TimeMs: at(time.Second), AnsweredMs: at(answered), Sessions: sessions, Breaker: schemas.BreakerClosed, Accepted: 3, Refused: 1}
	}
	for name, c := range map[string]struct {
		reports []*report
		want    schemas.LineState
	}{
		"nobody reports":                       {nil, schemas.LineStateUnspecified},
		"only an old report":                   {[]*report{{State: schemas.LineStateUp, TimeMs: at(21 * time.Second)}}, schemas.LineStateUnspecified},
		"only receipts are counted":            {[]*report{{TimeMs: at(time.Second), Delivered: 5}}, schemas.LineStateUnspecified},
		"down":                                 {[]*report{down}, schemas.LineStateDown},
		"another has not tried since":          {[]*report{down, up(time.Hour, 1)}, schemas.LineStateDown},
		"another was answered since":           {[]*report{down, up(time.Second, 0)}, schemas.LineStateUp},
		"another is bound":                     {[]*report{unbound, up(time.Hour, 1)}, schemas.LineStateUp},
		"another that has no sessions is idle": {[]*report{unbound, up(time.Hour, 0)}, schemas.LineStateDown},
		"a trial":                              {[]*report{down, trial}, schemas.LineStateTrial},
	} {
		t.Run(name, func(t *testing.T) {
			h := schemas.RouteHealthOf(c.reports, now)
			if h.State != c.want {
				t.Errorf("got %v, want %v", h.State, c.want)
			}
			if notUp := h.State == schemas.LineStateDown || h.State == schemas.LineStateTrial; notUp == h.Since.IsZero() {
				t.Errorf("state %v since %v: want a time exactly while it is not up", h.State, h.Since)
			}
		})
	}
	h := schemas.RouteHealthOf([]*report{up(0, 1), {TimeMs: at(time.Second), Delivered: 1, Undelivered: 1}}, now)
	if share, ok := h.Failed(); !ok || share != 0.5 {
		t.Errorf("failed: got %v %v, want half of the receipts, which is worse than a quarter of the answers", share, ok)
	}
}
