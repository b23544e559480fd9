package ui

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/go-chi/chi/v5"
)

// replayPage asks to which recipients a campaign is sent again (R139 to R152).
type replayPage struct {
	ID           string  `json:"campaignId"`
	Name         string  `json:"name"`
	Allowed      bool    `json:"allowed"`
	AllowedFrom  *string `json:"allowedFrom"`
	AllowedUntil *string `json:"allowedUntil"`
	Reason       *string `json:"reason"`
	Statuses     []struct {
		Status      string `json:"status"`
		Count       uint64 `json:"count"`
		Description string `json:"description"`
		SubStatuses []struct {
			Code        string `json:"code"`
			Count       uint64 `json:"count"`
			Description string `json:"description"`
		} `json:"subStatuses"`
	} `json:"statuses"`
	SuggestedName  string  `json:"suggestedName"`
	CostPerMessage float64 `json:"costPerMessage"`
	Currency       string  `json:"currency"`
	// What the person had ticked, when the API has refused it.
	Chosen   []string          `json:"-"`
	Codes    []string          `json:"-"`
	Errors   map[string]string `json:"-"`
	Timezone string            `json:"-"`
}

func (u *UI) replayScreen(r chi.Router) {
	r.Get("/campaigns/{id}/replay", u.replayPage)
	r.Post("/campaigns/{id}/replay", u.replay)
}

func (u *UI) loadReplay(r *http.Request) (*replayPage, error) {
	p := personOf(r.Context())
	v := &replayPage{Timezone: p.Tenant.Timezone}
	return v, u.get(r.Context(), p, apiCampaign(chi.URLParam(r, "id"))+"/replay", nil, v)
}

func (u *UI) replayPage(w http.ResponseWriter, r *http.Request) {
	v, err := u.loadReplay(r)
	if err != nil {
		u.fail(w, r, err)
		return
	}
	for _, s := range v.Statuses { // pre-selected: the statuses for which people most often send a reminder
		if s.Status == "UnDelivered" && s.Count > 0 {
			v.Chosen = []string{s.Status}
		}
	}
	u.dialog(w, r, "replay", v)
}

// replay creates the new campaign and continues in the wizard, where its text can be changed before it is confirmed.
func (u *UI) replay(w http.ResponseWriter, r *http.Request) {
	if !parseForm(w, r) {
		return
	}
	id := chi.URLParam(r, "id")
	in := map[string]any{"statuses": slices.Concat([]string{}, r.PostForm["status"]), "subStatuses": slices.Concat([]string{}, r.PostForm["subStatus"])}
	if name := r.PostForm.Get("name"); name != "" {
		in["name"] = name
	}
	var made campaign
	if err := u.call(r.Context(), personOf(r.Context()), http.MethodPost, apiCampaign(id)+"/replay", in, &made); err != nil {
		problem, ok := asProblem(err)
		if !ok {
			u.fail(w, r, err)
			return
		}
		v, err := u.loadReplay(r)
		if err != nil {
			u.fail(w, r, err)
			return
		}
		v.Chosen, v.Codes, v.SuggestedName, v.Errors = r.PostForm["status"], r.PostForm["subStatus"], r.PostForm.Get("name"), problem.Fields()
		u.render(w, r, problem.Status, "replay", v)
		return
	}
	u.done(w, r, "/campaigns/"+url.PathEscape(made.ID)+"/edit?step=content", mustSay("done.replay", made.Name))
}
