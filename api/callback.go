package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/api/problem"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Errors of [Connectors.Verify].
var (
	// ErrNoCallbacks is returned for a route that does not exist, or whose carrier sends no callbacks.
	ErrNoCallbacks = errors.New("this route takes no callbacks")
	// ErrUnverified is returned when the connector cannot verify that the carrier sent the callback.
	ErrUnverified = errors.New("the callback could not be verified as the carrier's")
)

// maxCallback is the maximum size of a callback's body, in bytes. Carriers put up to 100 receipts of less than 1 kB
// each into one callback.
const maxCallback = 512 << 10

// mountCallbacks adds the path that carriers call. It takes no API key: the connector of the route verifies each
// callback, from its unchanged body. The answer is 200 once Kafka has acknowledged the callback; after any other answer
// the carrier calls again.
func (s *server) mountCallbacks(r chi.Router) {
	take := func(w http.ResponseWriter, r *http.Request) {
		result, handshake, p := s.takeCallback(r)
		s.metrics.callbacks.WithLabelValues(result).Inc()
		if p != nil {
			if cause := p.Unwrap(); cause != nil {
				s.Logger.WarnContext(r.Context(), "callback refused", "result", result, "request_id", requestOf(r.Context()).id, "err", cause.Error())
			}
			writeProblem(w, r, p)
			return
		}
		if handshake != "" {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("X-Content-Type-Options", "nosniff") // the answer repeats text from the request
			_, _ = io.WriteString(w, handshake)
			return
		}
		// No content type and no text: some providers would send the text of the answer to the recipient.
		w.WriteHeader(http.StatusOK)
	}
	r.Get(CallbackPath+"{route}", take)
	r.Post(CallbackPath+"{route}", take)
}

// takeCallback verifies a callback and writes it to Kafka, or returns the answer to a handshake. result is the label
// for the metrics.
func (s *server) takeCallback(r *http.Request) (result, handshake string, _ *problem.Problem) {
	requestOf(r.Context()).operation = "callback"
	route := chi.URLParam(r, "route")
	if schemas.ValidRoute(route) != nil || s.Connectors.Verify == nil {
		return "unknown_route", "", problem.New(problem.CodeNotFound, "No callbacks are taken here.")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxCallback+1))
	switch {
	case err != nil:
		return "unreadable", "", problem.From(err).Because(err)
	case len(body) > maxCallback:
		return "too_large", "", problem.New(problem.CodeBodyTooLarge, "The callback is larger than %d bytes.", maxCallback)
	}
	c := &fanfarev1.Callback{Route: route, Method: r.Method, Url: calledURL(r), Body: body, ReceivedMs: s.Now().UnixMilli()}
	called, err := s.Connectors.Verify(r, c)
	switch {
	case errors.Is(err, ErrNoCallbacks):
		return "unknown_route", "", problem.New(problem.CodeNotFound, "No callbacks are taken here.").Because(err)
	case errors.Is(err, ErrUnverified):
		return "unverified", "", problem.New(problem.CodeUnauthenticated, "The callback could not be verified.").Because(err)
	case err != nil:
		return "unavailable", "", problem.Unavailable(storeRetry, err, "The callback cannot be verified now.")
	case called.Handshake != "":
		return "handshake", called.Handshake, nil
	}
	if err := s.heedTemplates(r.Context(), called.Templates); err != nil { // on an error the carrier calls again
		return "unavailable", "", problem.Unavailable(storeRetry, err, "The status of a template cannot be stored now; call again.")
	}
	c.Headers = kept(r.Header)
	record, err := schemas.CallbackEvent(s.Names.Callbacks(), "api", c).Record()
	if err != nil {
		return "unreadable", "", problem.New(problem.CodeMalformed, "The callback cannot be stored.").Because(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), s.AckTimeout)
	defer cancel()
	if err := s.deliver(ctx, []*kgo.Record{record})[0]; err != nil {
		return "unavailable", "", problem.Unavailable(5*time.Second, err, "The callback cannot be stored now; call again.")
	}
	return "taken", "", nil
}

// calledURL returns the address that the carrier called, because some carriers sign it. Scheme and host come from the
// headers that a proxy in front of the API sets.
func calledURL(r *http.Request) string {
	u := *r.URL
	u.Scheme, u.Host = "http", r.Host
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		u.Scheme = "https"
	}
	if host := r.Header.Get("X-Forwarded-Host"); host != "" {
		u.Host = host
	}
	return u.String()
}

// kept returns the headers that are stored with a callback. Headers with credentials were used for the verification and
// are not stored.
func kept(h http.Header) (out []*fanfarev1.CallbackHeader) {
	for name, values := range h {
		switch name {
		case "Authorization", "Cookie", "X-Api-Key", "Proxy-Authorization":
			continue
		}
		for _, v := range values {
			out = append(out, &fanfarev1.CallbackHeader{Name: name, Value: strings.ToValidUTF8(v, "\uFFFD")})
		}
	}
	slices.SortFunc(out, func(a, b *fanfarev1.CallbackHeader) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out
}
