package ui

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"
)

// panel shows one campaign (R137), as a drawer beside the grid or as a separate page.
type panel struct {
	campaignDetail
	Tab    string
	Tabs   []string
	Drawer bool
	Live   string
	Person *Person
	// One of these is set, for the open tab.
	Figures *panelStats
	Events  []campaignEvent
	Audit   *panelAudit
	Domains *panelDomains
	// Forecast of a confirmed campaign, beside its details.
	Forecast *panelForecast
	Form     liveForm
	Errors   map[string]string
}

// campaignDetail has the fields of a campaign that the panel uses.
type campaignDetail struct {
	campaign
	Message              *string         `json:"message"`
	SendingMode          *string         `json:"sendingMode"`
	SendImmediately      bool            `json:"sendImmediately"`
	TemplateName         *string         `json:"templateName"`
	SenderName           *string         `json:"senderName"`
	Texts                []wizardVariant `json:"variants"`
	Route                string          `json:"route"`
	Notes                string          `json:"notes"`
	Rate                 int             `json:"rate"`
	Weight               int             `json:"weight"`
	CallingHoursStart    *string         `json:"callingHoursStart"`
	CallingHoursEnd      *string         `json:"callingHoursEnd"`
	CallingHoursTimezone *string         `json:"callingHoursTimezone"`
	RecipientTimezone    bool            `json:"recipientTimezone"`
	Timezone             string          `json:"timezone"`
	Encoding             *string         `json:"encoding"`
	Characters           *int            `json:"characters"`
	Segments             *int            `json:"segments"`
	TotalContacts        *uint32         `json:"totalContacts"`
	EstimatedCost        *float64        `json:"estimatedCost"`
	Currency             string          `json:"currency"`
	CreatedBy            string          `json:"createdBy"`
	ConfirmedBy          *string         `json:"confirmedBy"`
	ConfirmedAt          *string         `json:"confirmedAt"`
	StartTime            *string         `json:"startTime"`
	CompletedAt          *string         `json:"completedAt"`
	SettledAt            *string         `json:"settledAt"`
	Settled              bool            `json:"settled"`
	Version              uint64          `json:"version"`
	Batches              []batch         `json:"batches"`
}

// batch is a part of the audience that is sent from a time on.
type batch struct {
	At    string `json:"at"`
	Share *int   `json:"share"`
	Count *int   `json:"count"`
}

// Size is how many recipients the batch has, as one text.
func (b batch) Size() string {
	switch {
	case b.Share != nil:
		return mustSay("detail.batch_share", *b.Share)
	case b.Count != nil:
		return mustSay("detail.batch_count", count(*b.Count))
	}
	return mustSay("detail.batch_rest")
}

// Hours returns the calling hours as one text, "" when there are none.
func (c *campaignDetail) Hours() string {
	if c.CallingHoursStart == nil || c.CallingHoursEnd == nil {
		return ""
	}
	zone := c.Timezone
	if c.CallingHoursTimezone != nil {
		zone = *c.CallingHoursTimezone
	}
	return *c.CallingHoursStart + " – " + *c.CallingHoursEnd + " " + zone
}

// Active reports whether fields may be changed while the campaign runs (R57, C4).
func (c *campaignDetail) Active() bool {
	return slices.Contains([]string{"ready", "scheduled", "preparing", "sending", "paused", "suspended"}, c.State)
}

// panelStats are the statistics of the panel.
type panelStats struct {
	figures
	NotSent     uint64        `json:"notSent"`
	Skipped     uint64        `json:"skipped"`
	Ambiguous   uint64        `json:"ambiguous"`
	Undelivered uint64        `json:"undelivered"`
	FailureRate float64       `json:"failureRate"`
	Read        uint64        `json:"read"`
	InFlight    uint64        `json:"inFlight"`
	Throughput  float64       `json:"throughput"`
	Note        *string       `json:"ambiguousNote"`
	Finish      *string       `json:"estimatedCompletionTime"`
	Statuses    []statusGroup `json:"statuses"`
	Hints       []hintRow     `json:"hints"`
	ByChannel   []statsPart   `json:"byChannel"`
	ByVariant   []statsPart   `json:"byVariant"`
	ByCountry   []statsPart   `json:"byCountry"`
	ByRoute     []statsPart   `json:"byRoute"`
	ByLeg       []statsPart   `json:"byLeg"`
	BySubStatus []reason      `json:"bySubStatus"`
	AsOf        *string       `json:"as_of"`
}

// statsPart has the figures of the recipients of one channel, variant, country, route or leg.
type statsPart struct {
	Value string `json:"value"`
	figures
}

// reason is a sub-status with its meaning.
type reason struct {
	Value       string `json:"value"`
	Status      string `json:"status"`
	Count       uint64 `json:"count"`
	Description string `json:"description"`
}

// hintRow is a hint about a campaign.
type hintRow struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Fix     string `json:"fix"`
	Count   uint64 `json:"count"`
}

type statusGroup struct {
	Status      string `json:"status"`
	Count       uint64 `json:"count"`
	SubStatuses []struct {
		Code        string `json:"code"`
		Count       uint64 `json:"count"`
		Description string `json:"description"`
	} `json:"subStatuses"`
}

type campaignEvent struct {
	From    *string `json:"from"`
	To      *string `json:"to"`
	Trigger string  `json:"trigger"`
	Actor   string  `json:"actor"`
	By      string  `json:"by"`
	Reason  string  `json:"reason"`
	Time    string  `json:"time"`
}

// panelForecast has the forecast of the campaign and its results.
type panelForecast struct {
	Settled   bool          `json:"settled"`
	Cost      forecastScore `json:"cost"`
	Duration  forecastScore `json:"durationSeconds"`
	Delivered forecastScore `json:"delivered"`
}

type forecastScore struct {
	Estimate *float64 `json:"estimate"`
	Actual   *float64 `json:"actual"`
	Error    *float64 `json:"error"`
}

// loadForecast reads the forecast of a campaign; one that was never confirmed has none.
func (u *UI) loadForecast(ctx context.Context, p *Person, v *panel) error {
	f := &panelForecast{}
	err := u.get(ctx, p, apiCampaign(v.ID)+"/forecast", nil, f)
	if problem, ok := asProblem(err); ok && problem.Status == http.StatusConflict {
		return nil
	}
	if err == nil {
		v.Forecast = f
	}
	return err
}

// panelAudit is the campaign counted from each source.
type panelAudit struct {
	Status      string  `json:"status"`
	Error       *string `json:"error"`
	OK          *bool   `json:"ok"`
	Unexplained int     `json:"unexplained"`
	Figures     []struct {
		Name   string `json:"name"`
		Unit   string `json:"unit"`
		Values []struct {
			Source string  `json:"source"`
			Value  float64 `json:"value"`
		} `json:"values"`
		Difference  float64 `json:"difference"`
		Explained   bool    `json:"explained"`
		Explanation *string `json:"explanation"`
	} `json:"figures"`
	Notes      []string `json:"notes"`
	FinishedAt *string  `json:"finishedAt"`
	// Unconfirmed: there is nothing to count yet. None: it was not counted in the last days.
	Unconfirmed, None bool `json:"-"`
}

// Runs reports whether the audit has not ended.
func (a *panelAudit) Runs() bool { return jobRuns(a.Status) }

// auditPatience is how many seconds the screen waits for an audit before it shows that the audit is running.
const auditPatience = "3"

// loadAudit reads the newest audit of the campaign.
func (u *UI) loadAudit(ctx context.Context, p *Person, v *panel) error {
	v.Audit = &panelAudit{}
	err := u.get(ctx, p, apiCampaign(v.ID)+"/audit", url.Values{"wait": {auditPatience}}, v.Audit)
	if problem, ok := asProblem(err); ok {
		v.Audit.Unconfirmed, v.Audit.None = problem.Status == http.StatusConflict, problem.Status == http.StatusNotFound
		if v.Audit.Unconfirmed || v.Audit.None {
			return nil
		}
	}
	return err
}

// orderAudit orders an audit. It shows the result if the audit ends in time, and otherwise that the audit is running.
func (u *UI) orderAudit(w http.ResponseWriter, r *http.Request) {
	id := chi.URLParam(r, "id")
	to := "/campaigns/" + url.PathEscape(id) + "?tab=audit"
	if err := u.call(r.Context(), personOf(r.Context()), http.MethodPost, apiCampaign(id)+"/audit", nil, nil); err != nil {
		u.refused(w, r, to, err)
		return
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// liveForm has the fields that can be changed while a campaign is active.
type liveForm struct {
	Rate, Weight, Start, End, Zone, Tags, Notes string
}

// panelTabs are the tabs of a campaign. The tab members is a separate page.
var panelTabs = []string{"stats", "details", "members", "domains", "events", "audit"}

func (u *UI) panelScreen(r chi.Router) {
	r.Get("/campaigns/{id}", u.panelPage)
	r.Get("/live/campaigns/{id}", u.panelLive)
	r.Post("/campaigns/{id}", u.saveLive)
	r.Post("/campaigns/{id}/audit", u.orderAudit)
	r.Post("/campaigns/{id}/domains", u.addDomain)
}

func apiCampaign(id string) string { return "/api/campaigns/" + url.PathEscape(id) }

func (u *UI) loadPanel(ctx context.Context, p *Person, id, tab string) (*panel, error) {
	if !slices.Contains(panelTabs, tab) {
		tab = panelTabs[0]
	}
	v := &panel{Tab: tab, Tabs: panelTabs, Live: "/live/campaigns/" + url.PathEscape(id) + "?tab=" + tab, Person: p}
	if err := u.get(ctx, p, apiCampaign(id), nil, &v.campaignDetail); err != nil {
		return nil, err
	}
	switch tab {
	case "stats":
		v.Figures = &panelStats{}
		return v, u.get(ctx, p, apiCampaign(id)+"/stats", nil, v.Figures)
	case "details":
		return v, u.loadForecast(ctx, p, v)
	case "domains":
		return v, u.loadDomains(ctx, p, v)
	case "audit":
		return v, u.loadAudit(ctx, p, v)
	case "events":
		var found struct {
			Data []campaignEvent `json:"data"`
		}
		if err := u.get(ctx, p, apiCampaign(id)+"/events", url.Values{"limit": {"200"}}, &found); err != nil {
			return nil, err
		}
		slices.Reverse(found.Data)
		v.Events = found.Data
	}
	return v, nil
}

func (u *UI) panelPage(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("tab") == "members" {
		http.Redirect(w, r, "/campaigns/"+url.PathEscape(chi.URLParam(r, "id"))+"/members", http.StatusSeeOther)
		return
	}
	v, err := u.loadPanel(r.Context(), personOf(r.Context()), chi.URLParam(r, "id"), r.URL.Query().Get("tab"))
	if err != nil {
		u.fail(w, r, err)
		return
	}
	v.Form = formOf(&v.campaignDetail)
	u.showPanel(w, r, http.StatusOK, v)
}

// toDrawer reports whether the request is for the drawer beside the grid.
func toDrawer(r *http.Request) bool { return strings.HasSuffix(r.Header.Get("HX-Target"), "#drawer") }

// showPanel answers with the drawer if the request is for it, else with a page.
func (u *UI) showPanel(w http.ResponseWriter, r *http.Request, status int, v *panel) {
	if v.Drawer = toDrawer(r); v.Drawer {
		u.part(w, r, status, "campaign", "panel", v)
		return
	}
	u.render(w, r, status, "campaign", v)
}

func (u *UI) panelLive(w http.ResponseWriter, r *http.Request) {
	p, id, tab := personOf(r.Context()), chi.URLParam(r, "id"), r.URL.Query().Get("tab")
	u.live(w, r, "campaign "+id+" "+tab, func(ctx context.Context) (parts, error) {
		if tab == "audit" { // one audit is enough: only the state of the campaign is live there
			tab = "members"
		}
		v, err := u.loadPanel(ctx, p, id, tab)
		if err != nil {
			return nil, err
		}
		out := parts{}
		if out["panel-state"], err = u.fragment("campaign", "panel-state", v); err != nil {
			return nil, err
		}
		if v.Figures != nil {
			out["panel-stats"], err = u.fragment("campaign", "panel-stats", v)
		}
		if v.Domains != nil {
			out["panel-domains"], err = u.fragment("campaign", "panel-domains", v)
		}
		return out, err
	})
}

func formOf(c *campaignDetail) liveForm {
	f := liveForm{Tags: strings.Join(c.Tags, ", "), Notes: c.Notes, Weight: count(c.Weight)}
	if c.Rate > 0 {
		f.Rate = count(c.Rate)
	}
	for to, from := range map[*string]*string{&f.Start: c.CallingHoursStart, &f.End: c.CallingHoursEnd, &f.Zone: c.CallingHoursTimezone} {
		if from != nil {
			*to = *from
		}
	}
	return f
}

// saveLive changes tags and notes of a campaign, and, while it is active, rate, weight and calling hours.
func (u *UI) saveLive(w http.ResponseWriter, r *http.Request) {
	id, p := chi.URLParam(r, "id"), personOf(r.Context())
	r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	f := liveForm{
		Rate: r.PostFormValue("rate"), Weight: r.PostFormValue("weight"), Start: r.PostFormValue("callingHoursStart"),
		End: r.PostFormValue("callingHoursEnd"), Zone: r.PostFormValue("callingHoursTimezone"), Tags: r.PostFormValue("tags"), Notes: r.PostFormValue("notes"),
	}
	v, err := u.loadPanel(r.Context(), p, id, "details")
	if err != nil {
		u.fail(w, r, err)
		return
	}
	in := map[string]any{"tags": splitList(f.Tags), "notes": f.Notes}
	if v.Active() {
		in["callingHoursStart"], in["callingHoursEnd"], in["callingHoursTimezone"] = orNil(f.Start), orNil(f.End), orNil(f.Zone)
		in["rate"], in["weight"] = number(f.Rate), number(f.Weight)
	}
	if err := u.callTagged(r.Context(), p, http.MethodPatch, apiCampaign(id)+"/live", r.PostFormValue("version"), in, nil); err != nil {
		problem, ok := asProblem(err)
		if !ok {
			u.fail(w, r, err)
			return
		}
		v.Form, v.Errors = f, problem.Fields()
		u.showPanel(w, r, problem.Status, v)
		return
	}
	u.done(w, r, "/campaigns/"+url.PathEscape(id)+"?tab=details", mustSay("done.saved", v.Name))
}
