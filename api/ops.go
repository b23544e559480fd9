package api

import (
	"net/http"

	"github.com/go-chi/chi/v5"
)

// NewOps returns /healthz, /readyz and /metrics alone, for a process without the API. Of d it reads Ready, ControlAge and Metrics.
func NewOps(d Deps) http.Handler {
	r := chi.NewRouter()
	(&server{Deps: d}).mountHealth(r)
	return r
}
