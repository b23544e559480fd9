package ui

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
)

// realtimePage shows the campaigns that are being sent now (R133).
type realtimePage struct {
	Search, Status, Tag string
	Rows                []realtimeRow
	// Sum has the sums over the campaigns shown.
	Sum      panelStats
	Dealt    uint64
	Routes   []statsPart
	Failures []reason
	Chart    *chart
	Live     string
	States   []string
}

type realtimeRow struct {
	campaign
	Figures panelStats
}

// Lag returns the age of the oldest figures in seconds; -1 when no campaign has figures.
func (v *realtimePage) Lag(now time.Time) float64 {
	worst := -1.0
	for i := range v.Rows {
		if at := instant(v.Rows[i].Figures.AsOf); !at.IsZero() {
			worst = max(worst, now.Sub(at).Seconds())
		}
	}
	return worst
}

// realtimeStates are the states of the campaigns that the page shows.
var realtimeStates = []string{"preparing", "sending", "paused", "suspended"}

const (
	// realtimeRows is the most campaigns that a tenant may have active (R154).
	realtimeRows = 10
	// realtimeSpan is the period that the chart shows.
	realtimeSpan = 2 * time.Minute
	// realtimeFailures is how many reasons of failure are listed.
	realtimeFailures = 8
)

func (u *UI) realtimeScreen(r chi.Router) {
	r.Get("/realtime", func(w http.ResponseWriter, r *http.Request) {
		v, err := u.loadRealtime(r.Context(), personOf(r.Context()), r.URL.Query())
		if err != nil {
			u.fail(w, r, err)
			return
		}
		u.render(w, r, http.StatusOK, "realtime", v)
	})
	r.Get("/live/realtime", func(w http.ResponseWriter, r *http.Request) {
		p, q := personOf(r.Context()), r.URL.Query()
		u.live(w, r, "realtime "+q.Encode(), func(ctx context.Context) (parts, error) {
			v, err := u.loadRealtime(ctx, p, q)
			if err != nil {
				return nil, err
			}
			out := parts{}
			for id, part := range map[string]string{"strip": "strip", "running": "running", "failures": "failures"} {
				if out[id], err = u.fragment("realtime", part, v); err != nil {
					return nil, err
				}
			}
			if out["throughput-legend"], err = u.fragment("realtime", "legend", v.Chart); err != nil {
				return nil, err
			}
			out["throughput-data"], err = u.fragment("realtime", "chart-data", v.Chart)
			return out, err
		})
	})
}

func (u *UI) loadRealtime(ctx context.Context, p *Person, q url.Values) (*realtimePage, error) {
	v := &realtimePage{Search: q.Get("search"), Status: q.Get("status"), Tag: q.Get("tag"), States: realtimeStates}
	v.Live = "/live/realtime?" + url.Values{"search": {v.Search}, "status": {v.Status}, "tag": {v.Tag}}.Encode()
	wanted := realtimeStates
	if slices.Contains(realtimeStates, v.Status) {
		wanted = []string{v.Status}
	}
	for _, state := range wanted {
		var found struct {
			Data []campaign `json:"data"`
		}
		ask := url.Values{"status": {state}, "search": {v.Search}, "tag": {v.Tag}, "limit": {strconv.Itoa(realtimeRows)}}
		if err := u.get(ctx, p, "/api/campaigns", ask, &found); err != nil {
			return nil, err
		}
		for _, c := range found.Data {
			if c.State == state { // the API's filter "paused" includes suspended campaigns, as in E's words
				v.Rows = append(v.Rows, realtimeRow{campaign: c})
			}
		}
	}
	now := u.Now()
	var timelines []timeline
	for i := range v.Rows {
		row := &v.Rows[i]
		if err := u.get(ctx, p, apiCampaign(row.ID)+"/stats", nil, &row.Figures); err != nil {
			return nil, err
		}
		points, err := u.timeline(ctx, p, row.ID, "second", now.Add(-realtimeSpan), now)
		if err != nil {
			return nil, err
		}
		timelines = append(timelines, points)
		v.add(&row.Figures)
	}
	v.finish()
	v.Chart = timelineChart("throughput", mustSay("realtime.throughput"), now.Add(-realtimeSpan), now, time.Second, timelines...)
	return v, nil
}

// add adds a campaign's figures to the sums.
func (v *realtimePage) add(f *panelStats) {
	s := &v.Sum
	s.TotalMessages += f.TotalMessages
	s.Pending += f.Pending
	s.InFlight += f.InFlight
	s.Sent += f.Sent
	s.Awaiting += f.Awaiting
	s.Delivered += f.Delivered
	s.Failed += f.Failed
	s.Skipped += f.Skipped
	s.Ambiguous += f.Ambiguous
	s.Throughput += f.Throughput
	v.Dealt += f.TotalMessages - min(f.TotalMessages, f.Pending-min(f.Pending, f.InFlight))
	for _, route := range f.ByRoute {
		i := slices.IndexFunc(v.Routes, func(have statsPart) bool { return have.Value == route.Value })
		if i < 0 {
			v.Routes = append(v.Routes, statsPart{Value: route.Value})
			i = len(v.Routes) - 1
		}
		v.Routes[i].Sent += route.Sent
		v.Routes[i].Delivered += route.Delivered
		v.Routes[i].Failed += route.Failed
		v.Routes[i].Awaiting += route.Awaiting
	}
	for _, why := range f.BySubStatus {
		if why.Status != "undelivered" && why.Status != "notSent" {
			continue
		}
		i := slices.IndexFunc(v.Failures, func(have reason) bool { return have.Value == why.Value && have.Status == why.Status })
		if i < 0 {
			v.Failures = append(v.Failures, reason{Value: why.Value, Status: why.Status, Description: why.Description})
			i = len(v.Failures) - 1
		}
		v.Failures[i].Count += why.Count
	}
}

func (v *realtimePage) finish() {
	slices.SortFunc(v.Routes, func(a, b statsPart) int { return strings.Compare(a.Value, b.Value) })
	slices.SortFunc(v.Failures, func(a, b reason) int { return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Value, b.Value)) })
	v.Failures = v.Failures[:min(len(v.Failures), realtimeFailures)]
}
