package ui

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/go-chi/chi/v5"
)

// testSendPage asks for the numbers to send a campaign's message to as a test (R157).
type testSendPage struct {
	Campaign campaignDetail
}

// testSent is the API's answer to a test send.
type testSent struct {
	Results []struct {
		Destination string   `json:"destination"`
		Reasons     []string `json:"reasons"`
		Detail      string   `json:"detail"`
	} `json:"results"`
	Cost     float64 `json:"cost"`
	Currency string  `json:"currency"`
}

func (u *UI) testSendScreen(r chi.Router) {
	r.Get("/campaigns/{id}/test", u.testSendPage)
	r.Post("/campaigns/{id}/test", u.testSend)
}

func (u *UI) testSendPage(w http.ResponseWriter, r *http.Request) {
	v := &testSendPage{}
	if err := u.get(r.Context(), personOf(r.Context()), apiCampaign(chi.URLParam(r, "id")), nil, &v.Campaign); err != nil {
		u.fail(w, r, err)
		return
	}
	u.dialog(w, r, "testsend", v)
}

func (u *UI) testSend(w http.ResponseWriter, r *http.Request) {
	p, id := personOf(r.Context()), chi.URLParam(r, "id")
	to := "/campaigns/" + url.PathEscape(id)
	in := map[string]any{"to": strings.FieldsFunc(r.PostFormValue("to"), func(c rune) bool { return strings.ContainsRune(",;\r\n\t", c) })}
	if variant := r.PostFormValue("variant"); variant != "" {
		in["variant"] = variant
	}
	var out testSent
	if err := u.call(r.Context(), p, http.MethodPost, apiCampaign(id)+"/test", in, &out); err != nil {
		u.refused(w, r, to, err)
		return
	}
	var refused []string
	for _, one := range out.Results {
		if len(one.Reasons) > 0 {
			refused = append(refused, one.Destination+" ("+strings.Join(one.Reasons, ", ")+")")
		}
	}
	text := mustSay("done.tested", count(len(out.Results)-len(refused)), money(out.Cost, out.Currency))
	if len(refused) > 0 {
		text += " " + mustSay("done.tested_refused", strings.Join(refused, ", "))
	}
	u.done(w, r, to, text)
}
