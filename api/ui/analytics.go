package ui

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/go-chi/chi/v5"
)

// analyticsPage shows all figures of one campaign (R87).
type analyticsPage struct {
	campaignDetail
	Figures panelStats
	Chart   *chart
	// Clicks and Opens are set if the campaign has links.
	Clicks *campaignClicks
	Opens  *chart
	Live   string
	Person *Person
}

// Breakdowns returns the tables of the page. Tables with only one row tell nothing and are left out.
func (v *analyticsPage) Breakdowns() (out []breakdown) {
	for _, b := range []breakdown{
		{"country", v.Figures.ByCountry},
		{"variant", v.Figures.ByVariant},
		{"channel", v.Figures.ByChannel},
		{"route", v.Figures.ByRoute},
		{"leg", v.Figures.ByLeg},
	} {
		if len(b.Rows) > 1 {
			out = append(out, b)
		}
	}
	return out
}

// campaignClicks has the clicks of a campaign (R86, R136, R138).
type campaignClicks struct {
	clicks
	Opens uint64 `json:"opens"`
	Links []struct {
		ID       string   `json:"id"`
		URL      string   `json:"url"`
		Variants []uint32 `json:"variants"`
		clicks
	} `json:"links"`
}

// clicks counts recipients by who opened their links.
type clicks struct {
	Clicked   uint64      `json:"clicked"`
	Unsure    uint64      `json:"unsure"`
	Previewed uint64      `json:"previewed"`
	Scanned   uint64      `json:"scanned"`
	ClickRate float64     `json:"clickRate"`
	ByCountry []clickPart `json:"byCountry"`
	ByVariant []clickPart `json:"byVariant"`
}

// clickPart counts recipients who clicked, of one country or variant.
type clickPart struct {
	Value   string `json:"value"`
	Clicked uint64 `json:"clicked"`
}

// loadClicks reads the clicks of a campaign that has links.
func (u *UI) loadClicks(ctx context.Context, p *Person, v *analyticsPage) error {
	found := &campaignClicks{}
	err := u.get(ctx, p, apiCampaign(v.ID)+"/links", nil, found)
	if err == nil && len(found.Links) > 0 {
		v.Clicks = found
	}
	return err
}

// linksWorkOn is how long links work after a campaign has settled.
const linksWorkOn = 7 * 24 * time.Hour

type breakdown struct {
	By   string
	Rows []statsPart
}

func (u *UI) analyticsScreen(r chi.Router) {
	r.Get("/campaigns/{id}/analytics", u.analyticsPage)
	r.Get("/live/campaigns/{id}/analytics", u.analyticsLive)
}

func (u *UI) loadAnalytics(ctx context.Context, p *Person, id string) (*analyticsPage, error) {
	v := &analyticsPage{Person: p, Live: "/live/campaigns/" + url.PathEscape(id) + "/analytics"}
	if err := u.get(ctx, p, apiCampaign(id), nil, &v.campaignDetail); err != nil {
		return nil, err
	}
	if err := u.get(ctx, p, apiCampaign(id)+"/stats", nil, &v.Figures); err != nil {
		return nil, err
	}
	if err := u.loadClicks(ctx, p, v); err != nil {
		return nil, err
	}
	start := instant(v.StartTime)
	if start.IsZero() {
		return v, nil
	}
	now := u.Now()
	end := now
	if at := instant(v.SettledAt); !at.IsZero() && at.Before(end) {
		end = at
	}
	by, step := timelineStep(end.Sub(start))
	points, err := u.timeline(ctx, p, id, by, start, end)
	if err != nil {
		return nil, err
	}
	v.Chart = timelineChart("timeline", mustSay("analytics.timeline_by."+by), start, end, step, points)
	if v.Clicks != nil {
		if later := end.Add(linksWorkOn); end.Before(now) { // people open links after the campaign has settled
			if end = now; later.Before(now) {
				end = later
			}
			by, step = timelineStep(end.Sub(start))
			if points, err = u.timeline(ctx, p, id, by, start, end); err != nil {
				return nil, err
			}
		}
		v.Opens = opensChart("opens", mustSay("analytics.opens_by."+by), start, end, step, points)
	}
	return v, nil
}

func (u *UI) timeline(ctx context.Context, p *Person, id, by string, from, to time.Time) (found timeline, err error) {
	ask := url.Values{"by": {by}, "split": {"route"}, "from": {from.UTC().Format(time.RFC3339)}, "to": {to.Add(time.Second).UTC().Format(time.RFC3339)}}
	err = u.get(ctx, p, apiCampaign(id)+"/stats/timeline", ask, &found)
	return found, err
}

func (u *UI) analyticsPage(w http.ResponseWriter, r *http.Request) {
	v, err := u.loadAnalytics(r.Context(), personOf(r.Context()), chi.URLParam(r, "id"))
	if err != nil {
		u.fail(w, r, err)
		return
	}
	u.render(w, r, http.StatusOK, "analytics", v)
}

func (u *UI) analyticsLive(w http.ResponseWriter, r *http.Request) {
	p, id := personOf(r.Context()), chi.URLParam(r, "id")
	u.live(w, r, "analytics "+id, func(ctx context.Context) (parts, error) {
		v, err := u.loadAnalytics(ctx, p, id)
		if err != nil {
			return nil, err
		}
		out := parts{}
		if out["figures"], err = u.fragment("analytics", "figures", v); err != nil {
			return nil, err
		}
		if v.Chart != nil {
			out["timeline-data"], err = u.fragment("analytics", "chart-data", v.Chart)
		}
		if err == nil && v.Opens != nil {
			out["opens-data"], err = u.fragment("analytics", "chart-data", v.Opens)
		}
		return out, err
	})
}
