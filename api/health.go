package api

import (
	"context"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-json-experiment/json"
)

// staleAfter is the age of the control view at which senders stop, and the API answers degraded.
const staleAfter = 5 * time.Second

// readiness is the answer of /readyz.
type readiness struct {
	Status string            `json:"status"` // ready, degraded, unready
	Checks map[string]string `json:"checks"`
}

// failed records that a check failed.
func (r *readiness) failed(c Check, why string) {
	r.Checks[c.Name] = why
	if !c.Degrades {
		r.Status = "unready"
	} else if r.Status == "ready" {
		r.Status = "degraded"
	}
}

func (s *server) mountHealth(r chi.Router) {
	r.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n"))
	})
	r.Get("/readyz", s.readyz)
	if s.Metrics != nil {
		r.Handle("/metrics", s.Metrics)
	}
}

// readyz runs all checks at once. A failed check makes the process unready, or degraded when its Degrades is set. A
// stale control view makes it degraded: requests are stored, and messages are sent when the view is fresh again.
func (s *server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	out := readiness{"ready", map[string]string{}}
	type answer struct {
		Check
		err error
	}
	answers := make(chan answer, len(s.Ready))
	for _, c := range s.Ready {
		go func() { answers <- answer{c, c.Do(ctx)} }()
	}
	if s.ControlAge != nil {
		out.Checks["control_view"] = "ok"
		if age := s.ControlAge(); age > staleAfter {
			out.Status, out.Checks["control_view"] = "degraded", "stale for "+age.Round(time.Second).String()
		}
	}
	for range s.Ready {
		select {
		case a := <-answers:
			out.Checks[a.Name] = "ok"
			if a.err != nil {
				out.failed(a.Check, a.err.Error())
			}
		case <-ctx.Done():
		}
	}
	for _, c := range s.Ready {
		if out.Checks[c.Name] == "" {
			out.failed(c, "no answer within a second")
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if out.Status == "unready" {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.MarshalWrite(w, &out, json.Deterministic(true))
}
