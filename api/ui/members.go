package ui

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-chi/chi/v5"
)

// member is one recipient of a campaign.
type member struct {
	Seq         uint32  `json:"seq"`
	MessageID   string  `json:"messageId"`
	Name        *string `json:"name"`
	Phone       *string `json:"phone"`
	Email       *string `json:"email"`
	Country     *string `json:"country"`
	State       string  `json:"state"`
	Attempts    int     `json:"attempts"`
	SentAt      *string `json:"sentAt"`
	DeliveredAt *string `json:"deliveredAt"`
	Disposition *string `json:"disposition"`
	Description *string `json:"description"`
	RawCode     *string `json:"rawCode"`
	Variant     int     `json:"variant"`
	Channel     *string `json:"channel"`
	Route       *string `json:"route"`
	Sender      *string `json:"sender"`
	Segments    int     `json:"segments"`
	Cost        float64 `json:"cost"`
	Clicked     bool    `json:"clicked"`
	Events      []struct {
		Kind        string  `json:"kind"`
		SubStatus   string  `json:"subStatus"`
		Description string  `json:"description"`
		RawCode     *string `json:"rawCode"`
		Try         int     `json:"try"`
		Route       *string `json:"route"`
		Time        string  `json:"time"`
	} `json:"events"`
}

// Tone is the colour of the member's state.
func (m *member) Tone() string {
	switch m.State {
	case "delivered":
		return "green"
	case "awaiting":
		return "blue"
	case "ambiguous":
		return "amber"
	case "undelivered", "notSent":
		return "red"
	}
	return "dim"
}

// membersQuery has the filters of the list of members, from its URL.
type membersQuery struct{ Search, Status, SubStatus, Country, Channel, Variant, Cursor string }

func (q membersQuery) values() url.Values {
	return url.Values{
		"search": {q.Search}, "status": {q.Status}, "subStatus": {q.SubStatus}, "country": {q.Country}, "channel": {q.Channel},
		"variant": {q.Variant}, "cursor": {q.Cursor},
	}
}

// Any reports whether anything is filtered.
func (q membersQuery) Any() bool {
	return q.Search+q.Status+q.SubStatus+q.Country+q.Channel+q.Variant != ""
}

// membersPage is a page of the recipients of a campaign (R124 to R129).
type membersPage struct {
	campaignDetail
	Person *Person
	Tabs   []string
	Tab    string
	Query  membersQuery
	Rows   []member
	Total  *uint64
	Next   *string
	AsOf   *string
	States []string
	Path   string
}

// memberPage shows one recipient with its history and the reasons (X17).
type memberPage struct {
	Campaign campaignDetail
	Member   member
	Why      struct {
		Conclusion string `json:"conclusion"`
		Decisions  []struct {
			Time     *string `json:"time"`
			By       string  `json:"by"`
			Sentence string  `json:"sentence"`
		} `json:"decisions"`
	}
}

var memberStates = []string{"pending", "awaiting", "delivered", "undelivered", "notSent", "skipped", "ambiguous"}

const memberRows = 50

func (u *UI) memberScreens(r chi.Router) {
	r.Get("/campaigns/{id}/members", u.membersPage)
	r.Get("/campaigns/{id}/members/{seq}", u.memberPage)
}

func (u *UI) membersPage(w http.ResponseWriter, r *http.Request) {
	p, id, q := personOf(r.Context()), chi.URLParam(r, "id"), r.URL.Query()
	v := &membersPage{Person: p, Tabs: panelTabs, Tab: "members", States: memberStates, Path: r.URL.RequestURI()}
	v.Query = membersQuery{q.Get("search"), q.Get("status"), q.Get("subStatus"), q.Get("country"), q.Get("channel"), q.Get("variant"), q.Get("cursor")}
	var found struct {
		Data  []member `json:"data"`
		Total *uint64  `json:"total"`
		Next  *string  `json:"next"`
		AsOf  *string  `json:"as_of"`
	}
	err := u.get(r.Context(), p, apiCampaign(id), nil, &v.campaignDetail)
	if err == nil {
		ask := v.Query.values()
		ask.Set("limit", strconv.Itoa(memberRows))
		err = u.get(r.Context(), p, apiCampaign(id)+"/members", ask, &found)
	}
	if err != nil {
		u.fail(w, r, err)
		return
	}
	v.Rows, v.Total, v.Next, v.AsOf = found.Data, found.Total, found.Next, found.AsOf
	u.render(w, r, http.StatusOK, "members", v)
}

func (u *UI) memberPage(w http.ResponseWriter, r *http.Request) {
	p, id := personOf(r.Context()), chi.URLParam(r, "id")
	v := &memberPage{}
	err := u.get(r.Context(), p, apiCampaign(id), nil, &v.Campaign)
	if err == nil {
		err = u.get(r.Context(), p, apiCampaign(id)+"/members/"+url.PathEscape(chi.URLParam(r, "seq")), nil, &v.Member)
	}
	if err == nil {
		err = u.get(r.Context(), p, "/api/messages/"+url.PathEscape(v.Member.MessageID)+"/why", nil, &v.Why)
	}
	if err != nil {
		u.fail(w, r, err)
		return
	}
	if toDrawer(r) {
		u.part(w, r, http.StatusOK, "member", "drawer", v)
		return
	}
	u.render(w, r, http.StatusOK, "member", v)
}
