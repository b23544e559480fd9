package api

import (
	"net/http"

	"github.com/go-chi/chi/v5"
)

// NewOps returns a handler for /healthz, /readyz and /metrics, for a process without the API. Of d it uses only Ready,
// ControlAge and Metrics.
func NewOps(d Deps) http.Handler {
	r := chi.NewRouter()
	(&server{Deps: d}).mountHealth(r)
	return r
}
