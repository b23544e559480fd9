package api

import (
	"context"
	"math"
	"net/http"
	"time"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// Forecast is what was expected of a campaign at its confirm, and what happened (X19).
type Forecast struct {
	CampaignID  string        `json:"campaignId" doc:"Campaign that was forecast."`
	Name        string        `json:"name" doc:"Name of the campaign."`
	State       string        `json:"state" doc:"State of the campaign now."`
	Settled     bool          `json:"settled" doc:"Until then the actual figures are those so far, and are not scored."`
	ConfirmedAt string        `json:"confirmedAt" format:"date-time" doc:"When the campaign was confirmed and the forecast made, in UTC."`
	Currency    string        `json:"currency"`
	Cost        ForecastScore `json:"cost" doc:"In the tenant's currency."`
	Duration    ForecastScore `json:"durationSeconds" doc:"From when sending was to begin until the last message was handed over."`
	Delivered   ForecastScore `json:"delivered" doc:"Messages. The estimate is the share that was delivered of the tenant's campaigns of the 90 days before."`
}

// ForecastScore is an estimate beside what happened.
type ForecastScore struct {
	Estimate *float64 `json:"estimate" doc:"Null: no forecast was possible."`
	Actual   *float64 `json:"actual" doc:"Null: it has not happened yet, or the statistics do not answer for it."`
	Error    *float64 `json:"error" doc:"(actual − estimate) / estimate, with 4 decimals: 0.25 is a quarter more than was expected. Null until it is settled, and of an estimate of 0."`
}

// ForecastSummary is how good the forecasts were.
type ForecastSummary struct {
	Campaigns int     `json:"campaigns" doc:"Settled campaigns with a score."`
	Bias      float64 `json:"bias" doc:"Mean of the errors: above 0 the forecasts were too low."`
	MeanError float64 `json:"meanError" doc:"Mean of the sizes of the errors."`
}

// Forecasts are the forecasts of the campaigns that have settled, and how good they were.
type Forecasts struct {
	Data      []*Forecast     `json:"data" nullable:"false" doc:"The campaigns of this page, newest first."`
	Page      int             `json:"page" doc:"Number of this page, from 0."`
	Limit     int             `json:"limit" doc:"Most campaigns of a page."`
	Total     int             `json:"total" doc:"Settled campaigns, of the newest 1,000 that were confirmed."`
	Cost      ForecastSummary `json:"cost" doc:"Over all of total, not this page alone."`
	Duration  ForecastSummary `json:"durationSeconds" doc:"How good the forecasts of the duration were, over all of total."`
	Delivered ForecastSummary `json:"delivered" doc:"How good the forecasts of delivered messages were, over all of total."`
}

type (
	forecastIn struct {
		ID string `path:"id" doc:"Id of the campaign." example:"camp_12345"`
	}
	forecastOut struct{ Body *Forecast }
	forecastsIn struct {
		Page  int `query:"page" minimum:"0"`
		Limit int `query:"limit" minimum:"1" maximum:"1000" default:"10"`
	}
	forecastsOut struct{ Body *Forecasts }
)

func (s *server) registerForecasts() {
	register(s, operation{
		id: "getCampaignForecast", method: http.MethodGet, path: "/api/campaigns/{id}/forecast", summary: "What was expected of a campaign, and what happened",
		scope: store.ScopeRead, errors: []int{404, 409}, tag: campaignTag,
		describe: "Compares cost, duration and deliveries as they were forecast at confirm with what happened. What is not known yet is null.",
	}, s.campaignForecast)
	register(s, operation{
		id: "listForecasts", method: http.MethodGet, path: "/api/forecasts", summary: "How good the forecasts of settled campaigns were",
		scope: store.ScopeRead, errors: []int{422}, tag: campaignTag,
		describe: "The newest first, without tests. cost, durationSeconds and delivered score them over all.",
	}, s.listForecasts)
}

// forecastSpan is how far back a forecast of the delivery looks.
const forecastSpan = 90 * 24 * time.Hour

// deliveredShare is the share of the messages of a tenant's campaigns of late that was delivered; NaN when there were
// none.
func (s *server) deliveredShare(ctx context.Context, tenant string) (float64, error) {
	now := s.Now()
	sum, err := s.Store.SumFigures(ctx, tenant, now.Add(-forecastSpan), now)
	if err != nil {
		return 0, s.storeProblem(err)
	}
	reached := sum.Total - sum.Skipped
	if sum.Total <= sum.Skipped {
		return math.NaN(), nil
	}
	return float64(sum.Delivered) / float64(reached), nil
}

// forecast is what is expected of a campaign that is being confirmed, whose cost is its quote and whose recipients are
// of these countries.
func (s *server) forecast(ctx context.Context, who *principal, c *store.Campaign, countries mix, share float64) *store.Forecast {
	out := &store.Forecast{}
	start := s.Now()
	switch c.State {
	case schemas.StatePreparing:
		out.From = start
	case schemas.StateScheduled:
		out.From = c.Scheduled
		if start.Before(c.Scheduled) {
			start = c.Scheduled
		}
	default:
	}
	if end, ok := s.finish(ctx, who, c, start, uint64(c.Quote.Contacts), s.sharesOfCountries(&who.tenant, countries)); ok {
		out.Seconds = new(int64(end.Sub(start).Round(time.Second) / time.Second))
	}
	if !math.IsNaN(share) {
		out.Delivered = new(uint64(math.Round(share * float64(c.Quote.Contacts))))
	}
	return out
}

func (s *server) campaignForecast(ctx context.Context, in *forecastIn) (*forecastOut, error) {
	who := requestOf(ctx).who
	c, err := s.campaign(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	if c.Confirmed.IsZero() || c.Forecast == nil {
		return nil, problem.New(problem.CodeWrongState, "There is no forecast of %s: one is made at confirm.", c.ID()).
			WithFix("POST /api/campaigns/{id}/calculateGoal estimates cost and duration of a draft.")
	}
	stats, _, err := s.figures.many(ctx, c.Tenant, []string{c.ID()})
	if err != nil {
		return nil, err
	}
	return &forecastOut{viewForecast(c, deliveredOf(stats, c), who.tenant.Currency)}, nil
}

// deliveredOf returns how many messages of a campaign were delivered, nil when the statistics did not answer for it:
// that is not a campaign of which nothing was delivered.
func deliveredOf(stats map[string]analytics.Stats, c *store.Campaign) *float64 {
	known, ok := stats[c.ID()]
	if !ok {
		return nil
	}
	return new(float64(known.Figures(c.Total).Delivered))
}

// viewForecast sets the forecast of a campaign beside what happened.
func viewForecast(c *store.Campaign, delivered *float64, currency string) *Forecast {
	settled := !c.Settled.IsZero()
	v := &Forecast{
		CampaignID: c.ID(), Name: c.Name, State: schemas.StateName(c.State), Settled: settled, ConfirmedAt: stamp(c.Confirmed), Currency: currency,
		Cost:      score(new(float64(c.Quote.Cost)/1e6), new(float64(c.Captured)/1e6), settled),
		Delivered: score(whole(c.Forecast.Delivered), delivered, settled),
	}
	if c.Test { // costs nothing, whatever its price
		v.Cost = score(new(0.0), new(0.0), settled)
	}
	from := c.Forecast.From
	if from.IsZero() {
		from = c.Started
	}
	var took *float64
	if !c.Completed.IsZero() && !from.IsZero() {
		took = new(math.Round(c.Completed.Sub(from).Seconds()))
	}
	v.Duration = score(whole(c.Forecast.Seconds), took, settled)
	return v
}

func whole[T int64 | uint64](n *T) *float64 {
	if n == nil {
		return nil
	}
	return new(float64(*n))
}

// score compares an estimate with what happened.
func score(estimate, actual *float64, settled bool) ForecastScore {
	out := ForecastScore{Estimate: estimate, Actual: actual}
	if settled && estimate != nil && actual != nil && *estimate != 0 {
		out.Error = new(math.Round((*actual-*estimate) / *estimate * 1e4) / 1e4)
	}
	return out
}

// maxForecasts is how many of the newest campaigns are scored.
const maxForecasts = 1_000

func (s *server) listForecasts(ctx context.Context, in *forecastsIn) (*forecastsOut, error) {
	who := requestOf(ctx).who
	rows, _, err := s.Store.Campaigns(ctx, who.tenant.ID, store.CampaignFilter{
		Page: store.Page{Limit: maxForecasts}, States: []schemas.State{schemas.StateCompleted, schemas.StateAborted},
	})
	if err != nil {
		return nil, s.storeProblem(err)
	}
	var settled []*store.Campaign
	var ids []string
	for i := range rows {
		if c := &rows[i]; !c.Settled.IsZero() && !c.Test && c.Forecast != nil {
			settled, ids = append(settled, c), append(ids, c.ID())
		}
	}
	stats, _, err := s.figures.many(ctx, who.tenant.ID, ids)
	if err != nil {
		return nil, err
	}
	out := &Forecasts{Data: []*Forecast{}, Page: in.Page, Limit: in.Limit, Total: len(settled)}
	var cost, duration, delivered []ForecastScore
	for i, c := range settled {
		v := viewForecast(c, deliveredOf(stats, c), who.tenant.Currency)
		cost, duration, delivered = append(cost, v.Cost), append(duration, v.Duration), append(delivered, v.Delivered)
		if i/in.Limit == in.Page {
			out.Data = append(out.Data, v)
		}
	}
	out.Cost, out.Duration, out.Delivered = summary(cost), summary(duration), summary(delivered)
	return &forecastsOut{out}, nil
}

func summary(scores []ForecastScore) (out ForecastSummary) {
	for _, s := range scores {
		if s.Error != nil {
			out.Campaigns++
			out.Bias += *s.Error
			out.MeanError += math.Abs(*s.Error)
		}
	}
	if n := float64(out.Campaigns); n > 0 {
		out.Bias, out.MeanError = math.Round(out.Bias/n*1e4)/1e4, math.Round(out.MeanError/n*1e4)/1e4
	}
	return out
}
