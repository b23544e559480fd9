package ui

import (
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"
)

// historyPage is everything that was sent to a contact, and its opt-outs.
type historyPage struct {
	Person  *Person
	Contact resourceRow
	History struct {
		Since    string           `json:"since"`
		Messages []contactMessage `json:"messages"`
		More     bool             `json:"more"`
		OptOuts  []struct {
			Time     string   `json:"time"`
			Lifted   bool     `json:"lifted"`
			Scope    string   `json:"scope"`
			Channels []string `json:"channels"`
			Source   string   `json:"source"`
			Reason   *string  `json:"reason"`
			By       *string  `json:"by"`
		} `json:"optOuts"`
	}
}

// contactMessage is one message to the contact.
type contactMessage struct {
	member
	CampaignID   *string `json:"campaignId"`
	CampaignName *string `json:"campaignName"`
	SubStatus    *string `json:"subStatus"`
}

func (u *UI) historyPage(w http.ResponseWriter, r *http.Request) {
	p, at := personOf(r.Context()), "/api/contacts/"+url.PathEscape(chi.URLParam(r, "id"))
	v := &historyPage{Person: p}
	err := u.get(r.Context(), p, at, nil, &v.Contact)
	if err == nil {
		err = u.get(r.Context(), p, at+"/history", nil, &v.History)
	}
	if err != nil {
		u.fail(w, r, err)
		return
	}
	u.render(w, r, http.StatusOK, "contacthistory", v)
}
