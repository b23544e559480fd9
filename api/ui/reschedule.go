package ui

import (
	"net/http"
	"net/url"
	"time"

	"github.com/go-chi/chi/v5"
)

// reschedulePage asks for a new time of a campaign that has not started (X9), in the tenant's time zone.
type reschedulePage struct {
	Campaign campaignDetail
	Zone     string
	Time     string // the current time in the form of an input of type datetime-local; "" when there is none
}

func (u *UI) rescheduleScreen(r chi.Router) {
	r.Get("/campaigns/{id}/reschedule", u.reschedulePage)
	r.Post("/campaigns/{id}/reschedule", u.reschedule)
}

func (u *UI) reschedulePage(w http.ResponseWriter, r *http.Request) {
	p := personOf(r.Context())
	v := &reschedulePage{Zone: p.Tenant.Timezone}
	if err := u.get(r.Context(), p, apiCampaign(chi.URLParam(r, "id")), nil, &v.Campaign); err != nil {
		u.fail(w, r, err)
		return
	}
	if at := v.Campaign.ScheduledTime; at != nil {
		if zone, err := time.LoadLocation(v.Zone); err == nil {
			v.Time = instant(*at).In(zone).Format("2006-01-02T15:04")
		}
	}
	u.dialog(w, r, "reschedule", v)
}

func (u *UI) reschedule(w http.ResponseWriter, r *http.Request) {
	p, id := personOf(r.Context()), chi.URLParam(r, "id")
	to := "/campaigns/" + url.PathEscape(id)
	in := map[string]any{"scheduledTime": map[string]any{"local": r.PostFormValue("time"), "timezone": p.Tenant.Timezone}}
	var c campaign
	if err := u.call(r.Context(), p, http.MethodPost, apiCampaign(id)+"/reschedule", in, &c); err != nil {
		u.refused(w, r, to, err)
		return
	}
	u.done(w, r, to, mustSay("done.rescheduled", c.Name, clock(c.ScheduledTime, p.Tenant.Timezone)))
}
