package api

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// Timeline is a chart of a campaign's events.
type Timeline struct {
	CampaignID string          `json:"campaignId" doc:"Id of the campaign."`
	By         string          `json:"by" enum:"second,minute,hour" doc:"Length of a period."`
	From       *string         `json:"from" format:"date-time" doc:"Beginning of the span; null: it has no beginning, because nothing was sent."`
	To         *string         `json:"to" format:"date-time" doc:"End of the span, which is not in it; null: now."`
	Points     []TimelinePoint `json:"points" nullable:"false" doc:"Periods with at least one event, oldest first."`
	Routes     []TimelineRoute `json:"routes" nullable:"false" doc:"The same by route, in the order of their names, with ?split=route; else empty."`
	AsOf       *string         `json:"as_of" format:"date-time" doc:"Every event up to this time is counted."`
}

// TimelineRoute has the periods of one route.
type TimelineRoute struct {
	Route  string          `json:"route" doc:"Name of the route; empty for events without one."`
	Points []TimelinePoint `json:"points" nullable:"false" doc:"Periods with at least one event of the route, oldest first."`
}

// TimelinePoint counts the events of one period. It counts events, not recipients: a recipient that was tried twice
// counts twice as sent.
type TimelinePoint struct {
	Time        string `json:"time" format:"date-time" doc:"The beginning of the period."`
	Sent        uint64 `json:"sent" doc:"A carrier accepted the message."`
	Delivered   uint64 `json:"delivered" doc:"A receipt says that the message arrived."`
	Read        uint64 `json:"read" doc:"A receipt says that the message was read."`
	Undelivered uint64 `json:"undelivered" doc:"A receipt says that the message failed finally."`
	Buffered    uint64 `json:"buffered" doc:"The carrier is still trying."`
	Bounced     uint64 `json:"bounced" doc:"Failed, and another try may follow."`
	Unconfirmed uint64 `json:"unconfirmed" doc:"No final receipt came within the receipt window."`
	NotSent     uint64 `json:"notSent" doc:"The message could not be sent."`
	Skipped     uint64 `json:"skipped" doc:"Not sent on purpose: opted out, duplicate, cancelled."`
	Returned    uint64 `json:"returned" doc:"Returned unsent by the sender; the scheduler deals the recipient again."`
	Ambiguous   uint64 `json:"ambiguous" doc:"The carrier may or may not have accepted the message."`
	Clicked     uint64 `json:"clicked" doc:"A link was opened, by a person or a scanner."`
	Replied     uint64 `json:"replied" doc:"The recipient replied."`
	OptedOut    uint64 `json:"optedOut" doc:"The recipient opted out in answer to the message."`
}

// of returns the field that counts events of a kind.
func (p *TimelinePoint) of(kind schemas.Kind) *uint64 {
	switch kind {
	case schemas.KindSent:
		return &p.Sent
	case schemas.KindDelivered:
		return &p.Delivered
	case schemas.KindRead:
		return &p.Read
	case schemas.KindUndelivered:
		return &p.Undelivered
	case schemas.KindBuffered:
		return &p.Buffered
	case schemas.KindBounced:
		return &p.Bounced
	case schemas.KindUnconfirmed:
		return &p.Unconfirmed
	case schemas.KindNotSent:
		return &p.NotSent
	case schemas.KindSkipped:
		return &p.Skipped
	case schemas.KindReturned:
		return &p.Returned
	case schemas.KindAmbiguous:
		return &p.Ambiguous
	case schemas.KindClicked:
		return &p.Clicked
	case schemas.KindReplied:
		return &p.Replied
	default:
		return &p.OptedOut
	}
}

type (
	timelineIn struct {
		ID    string `path:"id" example:"camp_12345" doc:"Id of the campaign."`
		By    string `query:"by" enum:"second,minute,hour" default:"minute" doc:"Length of a period."`
		From  string `query:"from" doc:"Not before: a date, or RFC 3339. Default: the first event; by second, an hour before the end."`
		Split string `query:"split" enum:"route" doc:"route: also count each route separately."`
		To    string `query:"to" doc:"Before: a date (to its end), or RFC 3339. Default: now."`
	}
	timelineOut struct{ Body *Timeline }
)

// steps are the lengths of periods, with the longest span for each: at most 10,000 points, which are more than any
// chart shows.
var steps = map[string]struct{ step, most time.Duration }{
	"second": {time.Second, 10_000 * time.Second},
	"minute": {time.Minute, 10_000 * time.Minute},
	"hour":   {time.Hour, 10_000 * time.Hour},
}

func (s *server) registerTimeline() {
	register(s, operation{
		id: "getCampaignTimeline", method: http.MethodGet, path: "/api/campaigns/{id}/stats/timeline", summary: "Events of a campaign over time",
		scope: store.ScopeRead, errors: []int{404, 422}, tag: campaignTag,
	}, s.timeline)
}

func (s *server) timeline(ctx context.Context, in *timelineIn) (*timelineOut, error) {
	who := requestOf(ctx).who
	step, ok := steps[in.By]
	if !ok {
		return nil, problem.Field(problem.CodeInvalid, "by", "%q is not a period: want second, minute or hour.", problem.Truncate(in.By, 20))
	}
	from, p := day(in.From, "from", false)
	if p != nil {
		return nil, p
	}
	to, p := day(in.To, "to", true)
	if p != nil {
		return nil, p
	}
	c, err := s.campaign(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	out := &Timeline{CampaignID: c.ID(), By: in.By, Points: []TimelinePoint{}, Routes: []TimelineRoute{}}
	end := to
	if end.IsZero() {
		end = s.Now()
	}
	if from.IsZero() {
		from = c.Started
		if in.By == "second" && (from.IsZero() || from.Before(end.Add(-time.Hour))) {
			from = end.Add(-time.Hour)
		}
	}
	if !from.IsZero() && end.Sub(from) > step.most {
		return nil, problem.Field(problem.CodeInvalid, "from", "From %s to %s are more than 10,000 periods of one %s.", stamp(from), stamp(end), in.By).
			WithFix("Request a shorter span or a longer period.")
	}
	out.From, out.To = stampOrNull(from), stampOrNull(to)
	ctx, cancel := context.WithTimeout(ctx, analyticsTimeout)
	defer cancel()
	at, err := s.Analytics.AsOf(ctx)
	if err == nil {
		out.AsOf = stampOrNull(at)
		var points []analytics.Point
		points, err = s.Analytics.Timeline(ctx, who.tenant.ID, c.ID(), analytics.Span{From: from, To: to, Step: step.step, ByRoute: in.Split == "route"})
		out.Points = addPoints(out.Points, points)
		if in.Split == "route" {
			out.split(points)
		}
	}
	if err != nil {
		return nil, problem.Unavailable(5*time.Second, err, "The statistics cannot be read now.")
	}
	return &timelineOut{out}, nil
}

// addPoints adds events to periods, which are in order of time.
func addPoints(out []TimelinePoint, points []analytics.Point) []TimelinePoint {
	for _, p := range points {
		at := stamp(p.Time)
		if n := len(out); n == 0 || out[n-1].Time != at {
			out = append(out, TimelinePoint{Time: at})
		}
		*out[len(out)-1].of(p.Kind) += p.N
	}
	return out
}

// split counts the events of each route.
func (t *Timeline) split(points []analytics.Point) {
	routes := map[string][]analytics.Point{}
	for _, p := range points {
		routes[p.Route] = append(routes[p.Route], p)
	}
	for _, name := range slices.Sorted(maps.Keys(routes)) {
		t.Routes = append(t.Routes, TimelineRoute{name, addPoints(nil, routes[name])})
	}
}
