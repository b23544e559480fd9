package ui

import (
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"
)

// moneyPage shows the account of a tenant and its ledger.
type moneyPage struct {
	Account struct {
		Currency      string   `json:"currency"`
		Balance       *float64 `json:"balance"`
		Reserved      float64  `json:"reserved"`
		Spent         float64  `json:"spent"`
		DefaultRoute  string   `json:"defaultRoute"`
		DefaultSender string   `json:"defaultSender"`
		Limits        struct {
			ActiveCampaigns uint64 `json:"activeCampaigns"`
			Contacts        uint64 `json:"contacts"`
		} `json:"limits"`
	}
	Rows []movement
	Next *string
	Path string
}

// movement is one entry of the ledger.
type movement struct {
	ID         uint64  `json:"id"`
	Time       string  `json:"time"`
	From       string  `json:"from"`
	To         string  `json:"to"`
	Amount     float64 `json:"amount"`
	CampaignID *string `json:"campaignId"`
	Note       string  `json:"note"`
}

const movementRows = "50"

func (u *UI) moneyScreen(r chi.Router) {
	r.Get("/money", func(w http.ResponseWriter, r *http.Request) {
		p := personOf(r.Context())
		v := &moneyPage{Path: r.URL.RequestURI()}
		var found struct {
			Data []movement `json:"data"`
			Next *string    `json:"next"`
		}
		err := u.get(r.Context(), p, "/api/account", nil, &v.Account)
		if err == nil {
			err = u.get(r.Context(), p, "/api/account/ledger", url.Values{"limit": {movementRows}, "cursor": {r.URL.Query().Get("cursor")}}, &found)
		}
		if err != nil {
			u.fail(w, r, err)
			return
		}
		v.Rows, v.Next = found.Data, found.Next
		u.render(w, r, http.StatusOK, "money", v)
	})
	r.Get("/money/ledger.csv", func(w http.ResponseWriter, r *http.Request) {
		a, err := u.send(r.Context(), personOf(r.Context()), http.MethodGet, "/api/account/ledger/export", nil, http.NoBody)
		if err != nil {
			u.fail(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "text/csv; charset=utf-8")
		w.Header().Set("Content-Disposition", `attachment; filename="ledger.csv"`)
		_, _ = w.Write(a.body.Bytes())
	})
}
