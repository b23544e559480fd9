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

// consentFile downloads the proof of consent of a contact's number (R43, X10).
func (u *UI) consentFile(w http.ResponseWriter, r *http.Request) {
	p := personOf(r.Context())
	var contact resourceRow
	if err := u.get(r.Context(), p, "/api/contacts/"+url.PathEscape(chi.URLParam(r, "id")), nil, &contact); err != nil {
		u.fail(w, r, err)
		return
	}
	query := url.Values{"phoneNumber": {contact.Text("phoneNumber")}}
	a, err := u.send(r.Context(), p, http.MethodGet, "/api/consent/export?"+query.Encode(), nil, http.NoBody)
	if err != nil {
		u.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="consent.csv"`)
	_, _ = w.Write(a.body.Bytes())
}
