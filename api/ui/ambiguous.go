package ui

import (
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"
)

// ambiguousPage asks what to do with ambiguous recipients: the carrier may or may not have their message.
type ambiguousPage struct {
	Campaign campaignDetail
	Count    uint64
	Note     *string
}

func (u *UI) ambiguousScreen(r chi.Router) {
	r.Get("/campaigns/{id}/ambiguous", u.ambiguousPage)
	r.Post("/campaigns/{id}/ambiguous", u.decideAmbiguous)
}

func (u *UI) ambiguousPage(w http.ResponseWriter, r *http.Request) {
	p, id := personOf(r.Context()), chi.URLParam(r, "id")
	v := &ambiguousPage{}
	var f panelStats
	err := u.get(r.Context(), p, apiCampaign(id), nil, &v.Campaign)
	if err == nil {
		err = u.get(r.Context(), p, apiCampaign(id)+"/stats", nil, &f)
	}
	if err != nil {
		u.fail(w, r, err)
		return
	}
	v.Count, v.Note = f.Ambiguous, f.Note
	u.dialog(w, r, "ambiguous", v)
}

func (u *UI) decideAmbiguous(w http.ResponseWriter, r *http.Request) {
	id, action := chi.URLParam(r, "id"), r.PostFormValue("decision")
	to := "/campaigns/" + url.PathEscape(id) + "?tab=stats"
	var c campaign
	in := map[string]string{"action": action}
	if err := u.call(r.Context(), personOf(r.Context()), http.MethodPost, apiCampaign(id)+"/ambiguous", in, &c); err != nil {
		u.refused(w, r, to, err)
		return
	}
	u.done(w, r, to, mustSay("done.ambiguous."+action, c.Name))
}
