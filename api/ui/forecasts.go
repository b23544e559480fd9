package ui

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-chi/chi/v5"
)

// forecastsPage compares the forecasts of settled campaigns with their results (X19).
type forecastsPage struct {
	Rows []struct {
		CampaignID  string        `json:"campaignId"`
		Name        string        `json:"name"`
		ConfirmedAt string        `json:"confirmedAt"`
		Currency    string        `json:"currency"`
		Cost        forecastScore `json:"cost"`
		Duration    forecastScore `json:"durationSeconds"`
		Delivered   forecastScore `json:"delivered"`
	} `json:"data"`
	Total     int           `json:"total"`
	Cost      forecastTrust `json:"cost"`
	Duration  forecastTrust `json:"durationSeconds"`
	Delivered forecastTrust `json:"delivered"`
	Pager     pager         `json:"-"`
}

// forecastTrust is how good the forecasts of a figure were.
type forecastTrust struct {
	Campaigns int     `json:"campaigns"`
	Bias      float64 `json:"bias"`
	MeanError float64 `json:"meanError"`
}

func (u *UI) forecastScreen(r chi.Router) {
	r.Get("/forecasts", func(w http.ResponseWriter, r *http.Request) {
		page, _ := strconv.Atoi(r.URL.Query().Get("page"))
		page = max(page, 0)
		v := &forecastsPage{}
		ask := url.Values{"page": {strconv.Itoa(page)}, "limit": {strconv.Itoa(resourceRows)}}
		if err := u.get(r.Context(), personOf(r.Context()), "/api/forecasts", ask, v); err != nil {
			u.fail(w, r, err)
			return
		}
		v.Pager = newPager("/forecasts", page, resourceRows, v.Total, "pager.forecasts")
		u.render(w, r, http.StatusOK, "forecasts", v)
	})
}
