package api

import (
	"context"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-json-experiment/json"
)

// staleAfter is how old the control view may be before senders stand still, and the API says degraded.
const staleAfter = 5 * time.Second

// readiness is the answer of /readyz.
type readiness struct {
	Status string            `json:"status"` // ready, degraded, unready
	Checks map[string]string `json:"checks"`
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

// readyz asks every check at once. One that fails makes the process unready; a stale control view only degrades it: what is
// written is kept, and sent when the view is fresh again.
func (s *server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	out := readiness{"ready", map[string]string{}}
	type answer struct {
		name string
		err  error
	}
	answers := make(chan answer, len(s.Ready))
	for _, c := range s.Ready {
		go func() { answers <- answer{c.Name, c.Do(ctx)} }()
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
			out.Checks[a.name] = "ok"
			if a.err != nil {
				out.Status, out.Checks[a.name] = "unready", a.err.Error()
			}
		case <-ctx.Done():
			out.Status = "unready"
		}
	}
	for _, c := range s.Ready {
		if out.Checks[c.Name] == "" {
			out.Checks[c.Name] = "no answer within a second"
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if out.Status == "unready" {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.MarshalWrite(w, &out, json.Deterministic(true))
}
