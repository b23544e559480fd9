package ui

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-chi/chi/v5"
)

// listPage is a contact list and the people in it.
type listPage struct {
	List   resourceRow
	Rows   []resourceRow
	Query  url.Values
	Pager  pager
	Person *Person
}

// suppressionsPage lists the numbers that have opted out.
type suppressionsPage struct {
	Rows   []resourceRow
	Pager  pager
	Person *Person
	Screen *resourceScreen // for the tabs
	Number string
	Errors map[string]string
}

func (u *UI) contactScreens(r chi.Router) {
	r.Get("/contacts/{id}/history", u.historyPage)
	r.Get("/contacts/{id}/consent.csv", u.consentFile)
	r.Get("/lists/{id}", u.listPage)
	r.Get("/suppressions", u.suppressionsPage)
	r.Post("/suppressions", u.suppress)
	r.Post("/suppressions/lift", u.lift)
}

func apiList(id string) string { return "/api/contacts/list/" + url.PathEscape(id) }

func (u *UI) listPage(w http.ResponseWriter, r *http.Request) {
	p, id, q := personOf(r.Context()), chi.URLParam(r, "id"), r.URL.Query()
	v := &listPage{Query: q, Person: p}
	page, _ := strconv.Atoi(q.Get("page"))
	page = max(page, 0)
	var found struct {
		Data  []resourceRow `json:"data"`
		Total int           `json:"total"`
	}
	err := u.get(r.Context(), p, apiList(id), nil, &v.List)
	if err == nil {
		ask := url.Values{"search": {q.Get("search")}, "page": {strconv.Itoa(page)}, "limit": {strconv.Itoa(resourceRows)}}
		err = u.get(r.Context(), p, apiList(id)+"/contacts", ask, &found)
	}
	if err != nil {
		u.fail(w, r, err)
		return
	}
	v.Rows, v.Pager = found.Data, newPager(r.URL.RequestURI(), page, resourceRows, found.Total, "pager.contacts")
	u.render(w, r, http.StatusOK, "list", v)
}

func (u *UI) suppressionsPage(w http.ResponseWriter, r *http.Request) {
	u.showSuppressions(w, r, http.StatusOK, "", nil)
}

func (u *UI) showSuppressions(w http.ResponseWriter, r *http.Request, status int, number string, errs map[string]string) {
	p := personOf(r.Context())
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	page = max(page, 0)
	var found struct {
		Data  []resourceRow `json:"data"`
		Total int           `json:"total"`
	}
	if err := u.get(r.Context(), p, "/api/suppressions", url.Values{"page": {strconv.Itoa(page)}, "limit": {strconv.Itoa(resourceRows)}}, &found); err != nil {
		u.fail(w, r, err)
		return
	}
	u.render(w, r, status, "suppressions", &suppressionsPage{
		Rows: found.Data, Pager: newPager("/suppressions", page, resourceRows, found.Total, "pager.suppressions"), Person: p, Screen: &resourceScreen{Key: "suppressions", Section: "contacts"}, Number: number, Errors: errs,
	})
}

func (u *UI) suppress(w http.ResponseWriter, r *http.Request) {
	number := r.PostFormValue("phoneNumber")
	if err := u.call(r.Context(), personOf(r.Context()), http.MethodPost, "/api/suppressions", map[string]string{"phoneNumber": number}, nil); err != nil {
		problem, ok := asProblem(err)
		if !ok {
			u.fail(w, r, err)
			return
		}
		u.showSuppressions(w, r, problem.Status, number, problem.Fields())
		return
	}
	u.done(w, r, "/suppressions", mustSay("done.suppressed", number))
}

func (u *UI) lift(w http.ResponseWriter, r *http.Request) {
	number := r.PostFormValue("phoneNumber")
	if err := u.call(r.Context(), personOf(r.Context()), http.MethodDelete, "/api/suppressions", map[string]string{"phoneNumber": number}, nil); err != nil {
		u.refused(w, r, "/suppressions", err)
		return
	}
	u.done(w, r, "/suppressions", mustSay("done.lifted", number))
}
