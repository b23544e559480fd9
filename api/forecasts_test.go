package api_test

import (
	"testing"
	"time"

	"fanfare/api"
	"fanfare/api/store"
	"fanfare/schemas"
)

// settleAt completes a campaign and settles it later at a cost.
func (w *env) settleAt(id string, micros uint64) {
	w.Helper()
	w.complete(id)
	w.clock.forward(time.Hour)
	w.move(id, func(ch *schemas.Change) { ch.To, ch.Settled, ch.Captured = schemas.StateCompleted, true, micros })
}

// X19: at settled the estimates of cost, duration and delivery are set against what happened, per campaign and over
// all.
func TestForecasts(t *testing.T) {
	w := newEnv(t)
	_, err := w.store.UpdateRoute(t.Context(), "sim", 0, func(r *store.Route) error { r.Rate = 2; return nil })
	w.check(err)
	id := w.audienceOf(40) // 20 s at 2/s, 2.00
	var got api.Forecast
	w.call("GET", "/api/campaigns/"+id+"/forecast", "").want(200).into(&got)
	if got.Settled || *got.Cost.Estimate != 2 || got.Cost.Error != nil || *got.Duration.Estimate != 20 || got.Duration.Actual != nil || got.Delivered.Estimate != nil {
		t.Errorf("while it is sent: got %+v, want estimates without scores, and none of the delivery without a campaign before", got)
	}
	w.happened(w.tenant.ID, id, 0, 40, schemas.KindSent, schemas.CodeAwaitingDLR)
	w.happened(w.tenant.ID, id, 0, 30, schemas.KindDelivered, schemas.CodeDelivered)
	w.clock.forward(25 * time.Second)
	w.settleAt(id, 1_500_000)
	w.call("GET", "/api/campaigns/"+id+"/forecast", "").want(200).into(&got)
	if !got.Settled || *got.Cost.Actual != 1.5 || *got.Cost.Error != -0.25 || *got.Duration.Actual != 25 || *got.Duration.Error != 0.25 || *got.Delivered.Actual != 30 || got.Delivered.Error != nil {
		t.Errorf("settled: got %+v, want cost -25 %% and duration +25 %%", got)
	}
	// The next one expects to be delivered as the first was: its figures are kept a while after its end.
	w.clock.forward(2 * time.Hour)
	w.asOf(w.clock.now())
	w.call("GET", "/api/campaigns/stats", "").want(200)
	second := w.audienceOf(40)
	w.happened(w.tenant.ID, second, 0, 40, schemas.KindDelivered, schemas.CodeDelivered)
	w.clock.forward(20 * time.Second)
	w.settleAt(second, 2_000_000)
	var all api.Forecasts
	w.call("GET", "/api/forecasts?limit=1", "").want(200).into(&all)
	if all.Total != 2 || len(all.Data) != 1 || all.Data[0].CampaignID != second {
		t.Fatalf("list: got %+v, want the newer of two", all)
	}
	if f := all.Data[0]; *f.Delivered.Estimate != 30 || *f.Delivered.Actual != 40 || *f.Delivered.Error != 0.3333 || *f.Cost.Error != 0 || *f.Duration.Error != 0 {
		t.Errorf("the second: got %+v, want 30 expected of 40 by the first", f)
	}
	if all.Cost != (api.ForecastSummary{Campaigns: 2, Bias: -0.125, MeanError: 0.125}) || all.Duration != (api.ForecastSummary{Campaigns: 2, Bias: 0.125, MeanError: 0.125}) ||
		all.Delivered != (api.ForecastSummary{Campaigns: 1, Bias: 0.3333, MeanError: 0.3333}) {
		t.Errorf("over all: got %+v, %+v, %+v", all.Cost, all.Duration, all.Delivered)
	}
	w.call("GET", "/api/campaigns/"+w.campaign(1, "")+"/forecast", "").problem(409, "wrong_state", "")
	_, other := w.newTenant("Other")
	w.callAs(other, "GET", "/api/campaigns/"+id+"/forecast", "").problem(404, "not_found", "")
	w.callAs(other, "GET", "/api/forecasts", "").want(200).into(&all)
	if all.Total != 0 {
		t.Errorf("another tenant: got %+v, want none", all)
	}
}
