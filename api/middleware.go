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

	"fanfare/api/problem"
	"fanfare/api/store"
)

// request is the state of one HTTP request. Its context carries it.
type request struct {
	http.ResponseWriter
	id        string
	operation string // operation id, "" before routing
	began     time.Time
	trace     string // the caller's traceparent (W3C Trace Context), "" when it sent none
	status    int
	who       *principal   // set by authorize
	claim     *store.Claim // of an Idempotency-Key, set by idempotent
	// reserved is the answer whose message ids are reserved under the claim. When it is set, the claim must not be
	// released.
	reserved *packedAnswer
	unknown  bool // the store does not know whether the request has changed something; set by explain
}

type requestKey struct{}

// requestOf returns the request of a context, and an empty one for any other context.
func requestOf(ctx context.Context) *request {
	if r, ok := ctx.Value(requestKey{}).(*request); ok {
		return r
	}
	return &request{}
}

// WriteHeader records the status.
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

// Unwrap lets http.ResponseController set deadlines and flush.
func (r *request) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// metrics of the API. Their labels are bounded: operation, status, result.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	sends    *prometheus.CounterVec
	panics   prometheus.Counter
	// callbacks counts requests of carriers by result.
	callbacks *prometheus.CounterVec
	// jobs counts exports and segments that ended in this process.
	jobs, jobRows *prometheus.CounterVec
	jobsRunning   *prometheus.GaugeVec
	// confirmations counts those of opt-outs, by result.
	confirmations *prometheus.CounterVec
	// compliance counts campaigns that do not keep the rules of a country, by what became of them.
	compliance *prometheus.CounterVec
	// domains counts the domains of links by health.
	domains *prometheus.GaugeVec
	// withoutDomains counts the campaigns that wait for one.
	withoutDomains prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fanfare_api_requests_total", Help: "Requests answered, by operation and status."}, []string{"operation", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "fanfare_api_request_seconds", Help: "Time from the request's headers to the end of the answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60},
		}, []string{"operation"}),
		sends: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fanfare_api_single_sends_total", Help: "Destinations of single sends, by result."}, []string{"result"}),
		confirmations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fanfare_api_confirmations_total", Help: "Confirmations of opt-outs, by result: sent, off (the policy of the tenant wants none), failed (the opt-out holds all the same).",
		}, []string{"result"}),
		compliance: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fanfare_api_compliance_total", Help: "Confirms, starts and changes of the time or the calling hours of campaigns that do not keep the rules of a country, by result: warned, refused.",
		}, []string{"result"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "fanfare_api_panics_total", Help: "Requests that ended in a panic. Each is a bug."}),
		callbacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fanfare_api_callbacks_total",
			Help: "Requests of carriers, by result: taken (Kafka has it), unverified, unknown_route, too_large, unreadable, unavailable.",
		}, []string{"result"}),
		jobs:        prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fanfare_api_jobs_total", Help: "Exports, segments, audits and erasures that ended in this process, by kind and state."}, []string{"kind", "state"}),
		jobRows:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fanfare_api_job_rows_total", Help: "Rows that exports and segments of this process have written, by kind."}, []string{"kind"}),
		jobsRunning: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "fanfare_api_jobs_running", Help: "Exports, segments, audits and erasures that this process runs, by kind."}, []string{"kind"}),
		domains:     prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "fanfare_api_domains", Help: "Domains of links, by health: unchecked, ok, unresolved, certificate, blocked."}, []string{"health"}),
		withoutDomains: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fanfare_api_campaigns_without_domains", Help: "Campaigns that are suspended as no_domains: no domain of links that they may use has room.",
		}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.sends, m.panics, m.callbacks, m.jobs, m.jobRows, m.jobsRunning, m.confirmations, m.compliance, m.domains, m.withoutDomains} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of the API: %w", err)
		}
	}
	return m, nil
}

// outer wraps every request: it gives it an id, measures it and recovers panics.
func (s *server) outer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := s.Now()
		req := &request{ResponseWriter: w, id: requestID(r), began: start, trace: traceparent(r)}
		w.Header()["X-Request-Id"] = []string{req.id}
		r = r.WithContext(context.WithValue(r.Context(), requestKey{}, req))
		if r.Method == http.MethodHead { // handled as GET; net/http drops the body of the answer
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

// badTarget refuses a path or a query that cannot be parsed, and texts that the store cannot hold. url.Query would
// silently drop parameters that it cannot parse.
func badTarget(r *http.Request) *problem.Problem {
	fits := func(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }
	if !fits(r.URL.Path) {
		return problem.New(problem.CodeMalformed, "The path is not text in UTF-8, or holds a NUL.")
	}
	if r.URL.RawQuery == "" {
		return nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return problem.New(problem.CodeMalformed, "The query cannot be read: %s.", problem.Truncate(err.Error(), 100))
	}
	for name, values := range query {
		if !fits(name) {
			return problem.New(problem.CodeMalformed, "The name of a parameter of the query is not text in UTF-8, or holds a NUL.")
		}
		if !fits(strings.Join(values, "")) {
			return problem.Field(problem.CodeMalformed, problem.Truncate(name, 60), "%s is not text in UTF-8, or holds a NUL.", problem.Truncate(name, 60))
		}
	}
	return nil
}

// pendingBody is the body of a request that may be answered before all of the body was read.
type pendingBody struct {
	r    *http.Request
	w    *request
	body io.ReadCloser
	time time.Duration
}

// bodyOf sets a read deadline for the body: without it a client that stops sending would hold the request for ever.
// Imports set their own deadlines. net/http removes the deadline at the end of the body.
func (s *server) bodyOf(w *request, r *http.Request) pendingBody {
	body := r.Body
	if body != nil && body != http.NoBody {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.BodyTimeout))
		r.Body = io.NopCloser(body) // huma closes a refused body, but leave must still read it
	}
	return pendingBody{r, w, body, s.BodyTimeout}
}

const (
	// readByServer is how much of an unread body net/http reads by itself before it closes the connection.
	readByServer = 256 << 10
	// maxLeft is the most bytes that leave reads.
	maxLeft = 64 << 20
)

// leave reads the rest of the body of a refused request. Many clients write the whole body before they read the answer.
// If the server closed the connection earlier, it would be reset and the client would never see the answer.
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
		writeProblem(req, r, problem.New(problem.CodeInternal, "An unexpected error occurred."))
	}
}

// requestID returns the client's request id if it is safe to log, else a new one.
func requestID(r *http.Request) string {
	if id := r.Header.Get("X-Request-Id"); id != "" && len(id) <= 64 && plain(id) {
		return id
	}
	return "req_" + strconv.FormatUint(rand.Uint64(), 36)
}

// traceparent returns the caller's traceparent if it is well-formed, else "".
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

// writeProblem answers with a problem, without huma.
func writeProblem(w http.ResponseWriter, r *http.Request, p *problem.Problem) {
	q := *p
	q.RequestID = requestOf(r.Context()).id
	maps.Copy(w.Header(), q.GetHeaders())
	w.Header().Set("Content-Type", problem.MediaType)
	w.WriteHeader(q.Status)
	_ = json.MarshalWrite(w, &q)
}

// allow counts a request against the limits of its key (X8) and sets the rate limit headers. When the limit is reached,
// it answers 429 and returns false.
func (s *server) allow(w http.ResponseWriter, r *http.Request, who *principal) bool {
	g := s.limiter.take(r.Context(), who)
	g.header(w.Header())
	if g.OK {
		return true
	}
	limits := who.quota.get()
	p := problem.New(problem.CodeRateLimited, "This key may make %d requests a minute and %d a second.", limits.PerMinute, limits.PerSecond)
	p.RetryAfter = int((g.Wait + time.Second - 1) / time.Second)
	writeProblem(w, r, p)
	return false
}

// authorize admits a request with a valid key, within the limits of the key, and with the scope of the operation.
func (s *server) authorize(ctx huma.Context, next func(huma.Context)) {
	o, _ := ctx.Operation().Metadata[metaOperation].(*operation)
	r, w := humachi.Unwrap(ctx)
	req := requestOf(r.Context())
	req.operation = o.id
	if o.open {
		next(ctx)
		return
	}
	who, err := s.auth.principal(r)
	if err != nil {
		writeProblem(w, r, s.explain(r.Context(), err))
		return
	}
	if ref := r.Header.Get(tenantHeader); ref != "" {
		if who, err = s.auth.actFor(r.Context(), who, ref); err != nil {
			writeProblem(w, r, s.explain(r.Context(), err))
			return
		}
	}
	req.who = who
	if who.quota != nil && !s.allow(w, r, who) {
		return
	}
	if !who.key.Has(o.scope) {
		p := problem.New(problem.CodeScopeMissing, "The key lacks the scope %q.", string(o.scope))
		writeProblem(w, r, p)
		return
	}
	if who.key.Test && o.method != http.MethodGet && o.testKeys != testKeysConfined {
		writeProblem(w, r, problem.New(problem.CodeTestKey, "A test key cannot do this."))
		return
	}
	if r.Body != nil && r.Body != http.NoBody {
		if p := unpackBody(r); p != nil {
			writeProblem(w, r, p)
			return
		}
	}
	if r.Body != nil && r.Body != http.NoBody && !o.streamed {
		if !problem.IsJSON(r.Header.Get("Content-Type")) {
			writeProblem(w, r, problem.New(problem.CodeMediaType, "The body has the content type %s.", problem.Truncate(r.Header.Get("Content-Type"), 100)))
			return
		}
		r.Header["Content-Type"] = []string{"application/json"}
		if r.ContentLength > o.maxBody {
			writeProblem(w, r, problem.New(problem.CodeBodyTooLarge, "The body has %d bytes; at most %d are read.", r.ContentLength, o.maxBody))
			return
		}
	}
	next(ctx)
}
