package ui

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"
)

// exportRow is an export, running or ended.
type exportRow struct {
	ID             string   `json:"id"`
	Kind           string   `json:"kind"`
	Status         string   `json:"status"`
	Error          *string  `json:"error"`
	Format         string   `json:"format"`
	Columns        []string `json:"columns"`
	CampaignID     *string  `json:"campaignId"`
	Progress       *float64 `json:"progress"`
	Rows           uint64   `json:"rows"`
	Total          *uint64  `json:"total"`
	DownloadURL    *string  `json:"downloadUrl"`
	DownloadEndsAt *string  `json:"downloadEndsAt"`
	CreatedAt      string   `json:"createdAt"`
	FinishedAt     *string  `json:"finishedAt"`
	ExpiresAt      *string  `json:"expiresAt"`
}

// Running reports whether the job has not ended.
func (e *exportRow) Running() bool { return jobRuns(e.Status) }

// Part returns the progress in thousandths.
func (e *exportRow) Part() int {
	if e.Progress == nil {
		return 0
	}
	return int(*e.Progress * 1000)
}

// Tone returns the colour of the status.
func (e *exportRow) Tone() string { return jobTone(e.Status) }

// segmentRow is a segment, running or ended.
type segmentRow struct {
	ID         string  `json:"id"`
	CampaignID string  `json:"campaignId"`
	Name       string  `json:"name"`
	ListID     string  `json:"listId"`
	Status     string  `json:"status"`
	Error      *string `json:"error"`
	Progress   float64 `json:"progress"`
	Selected   uint64  `json:"selected"`
	Done       uint64  `json:"done"`
}

// Running reports whether the job has not ended.
func (s *segmentRow) Running() bool { return jobRuns(s.Status) }

// Part returns the progress in thousandths.
func (s *segmentRow) Part() int { return int(s.Progress * 1000) }

// Tone returns the colour of the status.
func (s *segmentRow) Tone() string { return jobTone(s.Status) }

// chooser is the form that orders an export or a segment: it asks which rows to take.
type chooser struct {
	Kind     string
	Segment  bool
	Campaign campaignDetail // of members and segments
	Columns  []string
	States   []string
	Values   url.Values
	Errors   map[string]string
}

// Action returns the path that the form posts to.
func (c *chooser) Action() string {
	if c.Segment {
		return "/campaigns/" + url.PathEscape(c.Campaign.ID) + "/segment"
	}
	return "/exports"
}

// Back returns the path of the page from which the form was opened.
func (c *chooser) Back() string {
	switch {
	case c.Campaign.ID != "":
		return "/campaigns/" + url.PathEscape(c.Campaign.ID) + "/members"
	case c.Values.Get("list") != "":
		return "/lists/" + url.PathEscape(c.Values.Get("list"))
	}
	return "/exports"
}

// Recipients reports whether a selection chooses among the rows.
func (c *chooser) Recipients() bool { return c.Segment || c.Campaign.ID != "" }

func (u *UI) exportScreens(r chi.Router) {
	r.Get("/exports", exportJobs.list(u))
	r.Post("/exports", u.exportStart)
	r.Get("/exports/new", u.exportAsk)
	r.Get("/exports/{id}", exportJobs.one(u))
	r.Get("/live/exports/{id}", exportJobs.live(u))
	r.Post("/exports/{id}/end", u.exportEnd)
	r.Get("/campaigns/{id}/segment", u.segmentAsk)
	r.Post("/campaigns/{id}/segment", u.segmentStart)
	r.Get("/segments/{id}", segmentJobs.one(u))
	r.Get("/live/segments/{id}", segmentJobs.live(u))
	r.Post("/segments/{id}/cancel", u.segmentCancel)
}

// loadChooser reads the data for the form that orders an export or a segment.
func (u *UI) loadChooser(r *http.Request, kind, campaign string, segment bool, values url.Values) (*chooser, error) {
	p := personOf(r.Context())
	v := &chooser{Kind: kind, Segment: segment, States: memberStates, Values: values}
	if campaign != "" {
		if err := u.get(r.Context(), p, apiCampaign(campaign), nil, &v.Campaign); err != nil {
			return nil, err
		}
	}
	if segment {
		return v, nil
	}
	var kinds struct {
		Data []struct {
			Kind    string   `json:"kind"`
			Columns []string `json:"columns"`
		} `json:"data"`
	}
	if err := u.get(r.Context(), p, "/api/exports/kinds", nil, &kinds); err != nil {
		return nil, err
	}
	for _, k := range kinds.Data {
		if k.Kind == kind {
			v.Columns = k.Columns
			return v, nil
		}
	}
	return nil, &Problem{Status: http.StatusNotFound, Title: mustSay("error.title"), Detail: mustSay("export.no_kind")}
}

func (u *UI) exportAsk(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	v, err := u.loadChooser(r, q.Get("kind"), q.Get("campaign"), false, q)
	if err != nil {
		u.fail(w, r, err)
		return
	}
	v.Values["column"] = v.Columns
	u.dialog(w, r, "export", v)
}

func (u *UI) segmentAsk(w http.ResponseWriter, r *http.Request) {
	v, err := u.loadChooser(r, "", chi.URLParam(r, "id"), true, r.URL.Query())
	if err != nil {
		u.fail(w, r, err)
		return
	}
	u.dialog(w, r, "export", v)
}

// selectionOf returns the selection that a form describes; nil if the form has no condition.
func selectionOf(form url.Values) map[string]any {
	out := map[string]any{}
	if states := slices.DeleteFunc(slices.Clone(form["status"]), func(s string) bool { return s == "" }); len(states) > 0 {
		out["status"] = states
	}
	for _, field := range []string{"subStatus", "country"} {
		if v := strings.TrimSpace(form.Get(field)); v != "" {
			out[field] = v
		}
	}
	if form.Get("clicked") != "" {
		out["clicked"] = true
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// ask shows the form again after the API has refused the order.
func (u *UI) ask(w http.ResponseWriter, r *http.Request, campaign string, segment bool, cause error) {
	problem, ok := asProblem(cause)
	if !ok {
		u.fail(w, r, cause)
		return
	}
	v, err := u.loadChooser(r, r.PostForm.Get("kind"), campaign, segment, r.PostForm)
	if err != nil {
		u.fail(w, r, err)
		return
	}
	v.Errors = problem.Fields()
	u.render(w, r, problem.Status, "export", v)
}

func (u *UI) exportStart(w http.ResponseWriter, r *http.Request) {
	if !parseForm(w, r) {
		return
	}
	form := r.PostForm
	in := map[string]any{"format": form.Get("format"), "columns": slices.Concat([]string{}, form["column"])}
	for field, name := range map[string]string{"campaignId": "campaign", "contactList": "list", "search": "search"} {
		if v := form.Get(name); v != "" {
			in[field] = v
		}
	}
	if sel := selectionOf(form); sel != nil {
		in["selection"] = sel
	}
	var made exportRow
	if err := u.call(r.Context(), personOf(r.Context()), http.MethodPost, "/api/exports/"+url.PathEscape(form.Get("kind")), in, &made); err != nil {
		u.ask(w, r, form.Get("campaign"), false, err)
		return
	}
	http.Redirect(w, r, "/exports/"+url.PathEscape(made.ID), http.StatusSeeOther)
}

func (u *UI) segmentStart(w http.ResponseWriter, r *http.Request) {
	if !parseForm(w, r) {
		return
	}
	id := chi.URLParam(r, "id")
	in := map[string]any{"name": r.PostForm.Get("name")}
	if sel := selectionOf(r.PostForm); sel != nil {
		in["selection"] = sel
	}
	var made segmentRow
	if err := u.call(r.Context(), personOf(r.Context()), http.MethodPost, apiCampaign(id)+"/segments", in, &made); err != nil {
		u.ask(w, r, id, true, err)
		return
	}
	http.Redirect(w, r, "/segments/"+url.PathEscape(made.ID), http.StatusSeeOther)
}

// exportEnd cancels an export, or removes one that has ended.
func (u *UI) exportEnd(w http.ResponseWriter, r *http.Request) {
	id := chi.URLParam(r, "id")
	var row exportRow
	if err := u.call(r.Context(), personOf(r.Context()), http.MethodDelete, exportJobs.apiOf(id), nil, &row); err != nil {
		u.refused(w, r, "/exports/"+url.PathEscape(id), err)
		return
	}
	u.done(w, r, "/exports", mustSay("done.export_ended"))
}

func (u *UI) segmentCancel(w http.ResponseWriter, r *http.Request) {
	to := "/segments/" + url.PathEscape(chi.URLParam(r, "id"))
	var row segmentRow
	if err := u.call(r.Context(), personOf(r.Context()), http.MethodPost, segmentJobs.apiOf(chi.URLParam(r, "id"))+"/cancel", nil, &row); err != nil {
		u.refused(w, r, to, err)
		return
	}
	u.done(w, r, to, mustSay("done.segment_cancelled"))
}
