package ui

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-chi/chi/v5"
)

// jobScreen describes the pages of one kind of background job: exports, imports, segments or erasures. R is its row in
// the API's JSON. A page lists the jobs, and a page for each job shows its progress live.
type jobScreen[R any] struct {
	name     string // singular, such as export; it is a part of keys and ids
	path     string // of the list, such as /exports; the page of a job is below it
	template string
	api      string // path of the list in the API
}

var (
	exportJobs  = jobScreen[exportRow]{"export", "/exports", "exports", "/api/exports"}
	importJobs  = jobScreen[importRow]{"import", "/imports", "imports", "/api/imports"}
	segmentJobs = jobScreen[segmentRow]{"segment", "/segments", "segment", "/api/segments"}
	erasureJobs = jobScreen[erasureRow]{"erasure", "/erasures", "erasures", "/api/erasures"}
)

// jobPage is the data of the template: a page of jobs, or one job.
type jobPage[R any] struct {
	Rows  []R
	Pager pager
	One   *R
	Live  string // path of the stream of updates of One
}

// of returns the path of a job's page.
func (s *jobScreen[R]) of(id string) string { return s.path + "/" + url.PathEscape(id) }

// apiOf returns the path of a job in the API.
func (s *jobScreen[R]) apiOf(id string) string { return s.api + "/" + url.PathEscape(id) }

// list shows a page of jobs, newest first.
func (s *jobScreen[R]) list(u *UI) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		page, _ := strconv.Atoi(r.URL.Query().Get("page"))
		v, err := s.page(r.Context(), u, personOf(r.Context()), max(page, 0))
		if err != nil {
			u.fail(w, r, err)
			return
		}
		u.render(w, r, http.StatusOK, s.template, v)
	}
}

// page reads a page of jobs; page is its number from 0.
func (s *jobScreen[R]) page(ctx context.Context, u *UI, p *Person, page int) (*jobPage[R], error) {
	var found struct {
		Data  []R `json:"data"`
		Total int `json:"total"`
	}
	ask := url.Values{"page": {strconv.Itoa(page)}, "limit": {strconv.Itoa(resourceRows)}}
	if err := u.get(ctx, p, s.api, ask, &found); err != nil {
		return nil, err
	}
	return &jobPage[R]{Rows: found.Data, Pager: newPager(s.path, page, resourceRows, found.Total, "pager."+s.name+"s")}, nil
}

func (s *jobScreen[R]) load(ctx context.Context, u *UI, p *Person, id string) (*jobPage[R], error) {
	v := &jobPage[R]{One: new(R), Live: "/live" + s.of(id)}
	return v, u.get(ctx, p, s.apiOf(id), nil, v.One)
}

// one shows one job.
func (s *jobScreen[R]) one(u *UI) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := s.load(r.Context(), u, personOf(r.Context()), chi.URLParam(r, "id"))
		if err != nil {
			u.fail(w, r, err)
			return
		}
		u.render(w, r, http.StatusOK, s.template, v)
	}
}

// live streams the progress of one job.
func (s *jobScreen[R]) live(u *UI) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p, id := personOf(r.Context()), chi.URLParam(r, "id")
		u.live(w, r, s.name+" "+id, func(ctx context.Context) (parts, error) {
			v, err := s.load(ctx, u, p, id)
			if err != nil {
				return nil, err
			}
			part := s.name + "-one"
			html, err := u.fragment(s.template, part, v.One)
			return parts{part: html}, err
		})
	}
}

func jobRuns(status string) bool { return status == "queued" || status == "running" }

func jobTone(status string) string {
	switch status {
	case "done":
		return "green"
	case "failed":
		return "red"
	case "cancelled":
		return "struck"
	}
	return "blue"
}
