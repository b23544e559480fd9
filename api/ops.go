package api

import (
	"net/http"

	"github.com/go-chi/chi/v5"
)

// NewOps returns a handler of /healthz, /readyz and /metrics, for a process without the API. It uses Ready, ControlAge and
// Metrics of d.
func NewOps(d Deps) http.Handler {
	r := chi.NewRouter()
	(&server{Deps: d}).mountHealth(r)
	return r
}
