package ui

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"
)

// deliveriesPage has the events of a webhook, the answers of its endpoint, and its health (R107, X6).
type deliveriesPage struct {
	Person *Person
	Hook   resourceRow
	Health struct {
		Pending         int     `json:"pending"`
		Failures        int     `json:"failures"`
		FailingSince    *string `json:"failingSince"`
		LastSuccess     *string `json:"lastSuccessAt"`
		NextTry         *string `json:"notBefore"`
		RecoveringSince *string `json:"recoveringSince"`
	}
	Rows  []delivery
	State string
	Next  string // of the link to the following page
	Since string // proposed for a recovery
	Zone  string
}

// delivery is one event of a webhook.
type delivery struct {
	ID         string  `json:"id"`
	EventID    string  `json:"eventId"`
	Type       string  `json:"type"`
	Subject    string  `json:"subject"`
	Time       string  `json:"time"`
	State      string  `json:"state"`
	Tries      int     `json:"tries"`
	NextTryAt  *string `json:"nextTryAt"`
	TriedAt    *string `json:"triedAt"`
	StatusCode *int    `json:"statusCode"`
	Answer     *string `json:"answer"`
	Error      *string `json:"error"`
	DurationMS int64   `json:"durationMs"`
}

// deliveryStates are the states of an event of a webhook.
var deliveryStates = []string{"pending", "delivered", "failed"}

// States are the states by which the list can be filtered.
func (*deliveriesPage) States() []string { return deliveryStates }

const deliveryRows = 50

func (u *UI) webhookScreens(r chi.Router) {
	r.Get("/webhooks/{id}/deliveries", u.deliveriesPage)
	r.Post("/webhooks/{id}/recover", u.recoverWebhook)
}

func apiWebhook(id string) string { return "/api/webhooks/" + url.PathEscape(id) }

func (u *UI) deliveriesPage(w http.ResponseWriter, r *http.Request) {
	p, q, at := personOf(r.Context()), r.URL.Query(), apiWebhook(chi.URLParam(r, "id"))
	v := &deliveriesPage{Person: p, State: q.Get("state"), Zone: p.Tenant.Timezone}
	var found struct {
		Data []delivery `json:"data"`
	}
	err := u.get(r.Context(), p, at, nil, &v.Hook)
	if err == nil {
		err = u.get(r.Context(), p, at+"/health", nil, &v.Health)
	}
	if err == nil {
		ask := url.Values{"limit": {strconv.Itoa(deliveryRows)}}
		for _, name := range []string{"state", "after"} {
			if q.Get(name) != "" {
				ask.Set(name, q.Get(name))
			}
		}
		err = u.get(r.Context(), p, at+"/deliveries", ask, &found)
	}
	if err != nil {
		u.fail(w, r, err)
		return
	}
	if v.Rows = found.Data; len(v.Rows) == deliveryRows {
		if v.Next, err = withParam(r.URL.RequestURI(), "after", v.Rows[deliveryRows-1].ID); err != nil {
			u.fail(w, r, err)
			return
		}
	}
	if zone, err := time.LoadLocation(v.Zone); err == nil {
		v.Since = u.Now().Add(-24 * time.Hour).In(zone).Format(localMinute)
	}
	u.render(w, r, http.StatusOK, "deliveries", v)
}

// recoverWebhook orders that the events since a local time in the tenant's zone are posted again.
func (u *UI) recoverWebhook(w http.ResponseWriter, r *http.Request) {
	p, id := personOf(r.Context()), chi.URLParam(r, "id")
	to := "/webhooks/" + url.PathEscape(id) + "/deliveries"
	since := r.PostFormValue("since")
	if zone, err := time.LoadLocation(p.Tenant.Timezone); err == nil {
		if at, err := time.ParseInLocation(localMinute, since, zone); err == nil {
			// any other text is sent unchanged, and the API's error says which form it expects
			since = at.Format(time.RFC3339)
		}
	}
	var done struct {
		Queued int `json:"queuedAgain"`
	}
	if err := u.call(r.Context(), p, http.MethodPost, apiWebhook(id)+"/recover", map[string]string{"since": since}, &done); err != nil {
		u.refused(w, r, to, err)
		return
	}
	u.done(w, r, to, mustSay("done.recovering", clock(since, p.Tenant.Timezone), count(done.Queued)))
}
