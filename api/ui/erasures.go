package ui

import (
	"net/http"
	"strconv"

	"github.com/go-chi/chi/v5"
)

// erasureRow is the removal of a person, running or ended.
type erasureRow struct {
	ID         string         `json:"id"`
	Status     string         `json:"status"`
	Error      *string        `json:"error"`
	NumberHash string         `json:"numberHash"`
	Removed    map[string]int `json:"removed"`
	Stays      []string       `json:"stays"`
	OrderedBy  string         `json:"orderedByName"`
	OrderedAt  string         `json:"orderedAt"`
	FinishedAt *string        `json:"finishedAt"`
}

// Running reports whether the job has not ended.
func (e *erasureRow) Running() bool { return jobRuns(e.Status) }

// Tone returns the colour of the status.
func (e *erasureRow) Tone() string { return jobTone(e.Status) }

// Sum returns how much was removed so far, over all places.
func (e *erasureRow) Sum() (sum int) {
	for _, n := range e.Removed {
		sum += n
	}
	return sum
}

// erasedPlaces are the fields of removed, in the order in which the page lists them.
var erasedPlaces = []string{"contacts", "optOuts", "audiences", "recipients", "exports", "uploads", "rejects", "answers", "webhooks"}

// Places returns the fields of removed in order.
func (*erasureRow) Places() []string { return erasedPlaces }

// erasuresPage is the form that orders an erasure, and a page of them. The number is in the answer to its own form
// only: neither the session nor a path ever has it.
type erasuresPage struct {
	jobPage[erasureRow]
	Screen *resourceScreen // for the tabs
	Person *Person
	Number string
	Errors map[string]string
}

func (u *UI) erasureScreens(r chi.Router) {
	r.Get("/erasures", func(w http.ResponseWriter, r *http.Request) { u.showErasures(w, r, http.StatusOK, "", nil) })
	r.Post("/erasures", u.erase)
	r.Get("/erasures/{id}", erasureJobs.one(u))
	r.Get("/live/erasures/{id}", erasureJobs.live(u))
}

func (u *UI) showErasures(w http.ResponseWriter, r *http.Request, status int, number string, errs map[string]string) {
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	v, err := erasureJobs.page(r.Context(), u, personOf(r.Context()), max(page, 0))
	if err != nil {
		u.fail(w, r, err)
		return
	}
	u.render(w, r, status, "erasures", &erasuresPage{
		jobPage: *v, Screen: &resourceScreen{Key: "erasures", Section: "contacts"}, Person: personOf(r.Context()), Number: number, Errors: errs,
	})
}

// erase orders an erasure. It cannot be undone, so the form has a box to tick.
func (u *UI) erase(w http.ResponseWriter, r *http.Request) {
	if !parseForm(w, r) {
		return
	}
	number := r.PostForm.Get("phoneNumber")
	if r.PostForm.Get("sure") == "" {
		u.showErasures(w, r, http.StatusUnprocessableEntity, number, map[string]string{"sure": mustSay("erasure.tick")})
		return
	}
	var made erasureRow
	if err := u.call(r.Context(), personOf(r.Context()), http.MethodPost, erasureJobs.api, map[string]string{"phoneNumber": number}, &made); err != nil {
		problem, ok := asProblem(err)
		if !ok {
			u.fail(w, r, err)
			return
		}
		u.showErasures(w, r, problem.Status, number, problem.Fields())
		return
	}
	http.Redirect(w, r, erasureJobs.of(made.ID), http.StatusSeeOther)
}
