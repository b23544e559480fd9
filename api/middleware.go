package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"

	"fanfare/api/store"
)

// request is what is known about a request while it is answered. There is one per request, in its context.
type request struct {
	http.ResponseWriter
	id        string
	operation string // operation id, "" before the route is known
	trace     string // traceparent of the caller (W3C Trace Context), "" when there is none
	status    int
	who       *principal   // set by authorize
	claim     *store.Claim // of an Idempotency-Key, set by idempotent
	reserved  bool         // something was set aside under the claim: it is not forgotten
}

type requestKey struct{}

// requestOf returns the request of a context; one without is answered with an empty one.
func requestOf(ctx context.Context) *request {
	if r, ok := ctx.Value(requestKey{}).(*request); ok {
		return r
	}
	return &request{}
}

// WriteHeader remembers the status.
func (r *request) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *request) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach deadlines and flushing.
func (r *request) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// metrics of the API. Operations are as many as the routes there are; nothing else is a label.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	sends    *prometheus.CounterVec
	panics   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fanfare_api_requests_total", Help: "Requests answered, by operation and status."}, []string{"operation", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "fanfare_api_request_seconds", Help: "Time from the request's headers to the end of the answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60},
		}, []string{"operation"}),
		sends:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fanfare_api_single_sends_total", Help: "Destinations of single sends, by what became of them."}, []string{"result"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "fanfare_api_panics_total", Help: "Requests that ended in a panic: each is a bug."}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.sends, m.panics} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of the API: %w", err)
		}
	}
	return m, nil
}

// outer surrounds every request: its id, its measurement, and the net under a panic.
func (s *server) outer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := s.Now()
		req := &request{ResponseWriter: w, id: requestID(r), trace: traceparent(r)}
		w.Header()["X-Request-Id"] = []string{req.id}
		r = r.WithContext(context.WithValue(r.Context(), requestKey{}, req))
		if r.Method == http.MethodHead { // as GET; the server leaves the body out of the answer
			r.Method = http.MethodGet
		}
		body := s.bodyOf(req, r)
		defer func() {
			if v := recover(); v != nil {
				s.panicked(req, r, v)
			}
			op := req.operation
			if op == "" {
				op = "other"
			}
			s.metrics.requests.WithLabelValues(op, strconv.Itoa(req.status)).Inc()
			s.metrics.seconds.WithLabelValues(op).Observe(s.Now().Sub(start).Seconds())
		}()
		if p := badTarget(r); p != nil {
			writeProblem(req, r, p)
		} else {
			next.ServeHTTP(req, r)
		}
		body.leave()
	})
}

// badTarget refuses a path or a query that cannot be read, and text that no store keeps. A query that net/url cannot parse
// would lose parameters without a word.
func badTarget(r *http.Request) *Problem {
	fits := func(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }
	if !fits(r.URL.Path) {
		return problem(CodeMalformed, "The path is not text in UTF-8, or holds a NUL.")
	}
	if r.URL.RawQuery == "" {
		return nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return problem(CodeMalformed, "The query cannot be read: %s.", truncate(err.Error(), 100))
	}
	for name, values := range query {
		if !fits(name) {
			return problem(CodeMalformed, "The name of a parameter of the query is not text in UTF-8, or holds a NUL.")
		}
		if !fits(strings.Join(values, "")) {
			return fieldProblem(CodeMalformed, truncate(name, 60), "%s is not text in UTF-8, or holds a NUL.", truncate(name, 60))
		}
	}
	return nil
}

// pendingBody is the body of a request that may be answered before all of it was read.
type pendingBody struct {
	r    *http.Request
	w    *request
	body io.ReadCloser
	time time.Duration
}

// bodyOf gives the body its time, whatever reads it: without it a client that stops in the middle would hold the request for
// ever. An import, which is streamed, sets its own for each part. net/http takes the deadline back at the body's end.
func (s *server) bodyOf(w *request, r *http.Request) pendingBody {
	body := r.Body
	if body != nil && body != http.NoBody {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.BodyTimeout))
		r.Body = io.NopCloser(body) // huma closes what it has given up
	}
	return pendingBody{r, w, body, s.BodyTimeout}
}

const (
	// readByServer is what net/http reads of a body by itself before it closes the connection.
	readByServer = 256 << 10
	// maxLeft bounds what is read for the sake of the answer alone.
	maxLeft = 64 << 20
)

// leave reads what a refused request still sends. A client that writes its whole body before it reads an answer, as many do,
// would find the connection reset, and never learn why.
func (b pendingBody) leave() {
	if b.body == nil || b.body == http.NoBody || b.w.status < http.StatusBadRequest || b.r.Header.Get("Expect") != "" ||
		b.r.ContentLength >= 0 && b.r.ContentLength <= readByServer {
		return
	}
	rc := http.NewResponseController(b.w)
	if rc.Flush() != nil || rc.SetReadDeadline(time.Now().Add(b.time)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, b.body, maxLeft)
}

// panicked answers a request whose handler panicked.
func (s *server) panicked(req *request, r *http.Request, v any) {
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		return
	}
	s.metrics.panics.Inc()
	s.Logger.ErrorContext(r.Context(), "panic in a handler", "request_id", req.id, "operation", req.operation,
		"panic", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
	if req.status == 0 {
		writeProblem(req, r, problem(CodeInternal, "An unexpected error occurred."))
	}
}

// requestID takes the client's id when it can be logged as it is, else makes one.
func requestID(r *http.Request) string {
	if id := r.Header.Get("X-Request-Id"); id != "" && len(id) <= 64 && plain(id) {
		return id
	}
	return "req_" + strconv.FormatUint(rand.Uint64(), 36)
}

// traceparent is the caller's, when it is one: what is not is nobody's trace.
func traceparent(r *http.Request) string {
	v := r.Header.Get("Traceparent")
	if len(v) != 55 || v[2] != '-' || v[35] != '-' || v[52] != '-' || !plain(v) {
		return ""
	}
	return v
}

// plain reports whether s is made of letters, digits, dot, dash, underscore and colon only.
func plain(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_', c == ':':
		default:
			return false
		}
	}
	return true
}

// writeProblem answers with a problem outside of huma.
func writeProblem(w http.ResponseWriter, r *http.Request, p *Problem) {
	q := *p
	q.RequestID = requestOf(r.Context()).id
	maps.Copy(w.Header(), q.GetHeaders())
	w.Header().Set("Content-Type", problemJSON)
	w.WriteHeader(q.Status)
	_ = json.MarshalWrite(w, &q)
}

// authorize lets a request in: a known key, within its limits, with the scope of the operation.
func (s *server) authorize(ctx huma.Context, next func(huma.Context)) {
	o, _ := ctx.Operation().Metadata[metaOperation].(*operation)
	r, w := humachi.Unwrap(ctx)
	req := requestOf(r.Context())
	req.operation = o.id
	who, err := s.auth.principal(r)
	if err != nil {
		writeProblem(w, r, s.explain(r.Context(), err))
		return
	}
	req.who = who
	g := who.quota.take(s.Now())
	g.header(w.Header())
	if !g.ok {
		p := problem(CodeRateLimited, "This key may make %d requests a minute and %d a second.", who.quota.limits.PerMinute, who.quota.limits.PerSecond)
		p.RetryAfter = int((g.wait + time.Second - 1) / time.Second)
		writeProblem(w, r, p)
		return
	}
	if !who.key.Has(o.scope) {
		p := problem(CodeScopeMissing, "The key lacks the scope %q.", string(o.scope))
		writeProblem(w, r, p)
		return
	}
	if r.Body != nil && r.Body != http.NoBody && !o.streamed {
		if !jsonMediaType(r.Header.Get("Content-Type")) {
			writeProblem(w, r, problem(CodeMediaType, "The body is %s.", truncate(r.Header.Get("Content-Type"), 100)))
			return
		}
		r.Header["Content-Type"] = []string{"application/json"}
		if r.ContentLength > o.maxBody {
			writeProblem(w, r, problem(CodeBodyTooLarge, "The body has %d bytes; at most %d are read.", r.ContentLength, o.maxBody))
			return
		}
	}
	next(ctx)
}
