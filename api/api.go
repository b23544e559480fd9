package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/api/store"
	"fanfare/api/store/phone"
	"fanfare/api/ui"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// Deps are what the API works with.
type Deps struct {
	Store     *store.Store
	Analytics analytics.Store
	// Kafka takes single sends: a client with ProducerLinger(0), or every send waits out the linger.
	Kafka *kgo.Client
	Names schemas.Names
	Keys  *schemas.Keys
	// ControlAge is how long ago campaigns and routes were last known to be read to their ends; nil when this process has no
	// view of them. Above five seconds senders stand still, and /readyz says degraded.
	ControlAge func() time.Duration
	// OptedOut says from memory whether a number has opted out; nil asks the store, which costs a query per destination.
	OptedOut func(tenant, e164 string) bool
	// OptOutsAge is how long ago that memory was last known to be complete; above two seconds the store is asked. Nil: always.
	OptOutsAge func() time.Duration
	// Ready are asked by /readyz, each with a second to answer.
	Ready []Check
	// Metrics serves /metrics; nil leaves it out.
	Metrics http.Handler
	// Logins open sessions of the live page; nil leaves the page out.
	Logins *ui.Logins
	// Done ends live streams, which no graceful stop would see the end of: closed when the server is told to stop.
	Done <-chan struct{}
	// Moderator looks at the content of a campaign at confirm, Approver at who confirms; nil lets everything pass.
	Moderator Moderator
	Approver  Approver
	// Limits of every key, unless LimitsOf says otherwise; a zero field of either takes the default.
	Limits Limits
	// LimitsOf gives a key limits of its own, such as a bulk client's; nil gives none.
	LimitsOf func(key *store.Key) Limits
	// BodyTimeout is how long the body of a request may take to arrive, default 10 s.
	BodyTimeout time.Duration
	// ImportStall is how long an import, whose body may be long, waits for the next byte, default a minute.
	ImportStall time.Duration
	// AckTimeout is how long a single send waits for Kafka, default 10 s.
	AckTimeout time.Duration
	// PublishTimeout is how long an opt-out waits for its record to be acknowledged, default 5 s.
	PublishTimeout time.Duration
	Logger         *slog.Logger
	Registry       prometheus.Registerer
	Now            func() time.Time
}

// Check is one thing that must work for the process to be of use.
type Check struct {
	Name string
	Do   func(ctx context.Context) error
	// Degrades: without it the process is degraded, and still of use.
	Degrades bool
}

func (d *Deps) validate() error {
	var missing []error
	need := func(ok bool, name string) {
		if !ok {
			missing = append(missing, fmt.Errorf("api: %s is missing", name))
		}
	}
	need(d.Store != nil, "Store")
	need(d.Analytics != nil, "Analytics")
	need(d.Kafka != nil, "Kafka")
	need(d.Keys != nil, "Keys")
	need(d.Logger != nil, "Logger")
	need(d.Registry != nil, "Registry")
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.BodyTimeout <= 0 {
		d.BodyTimeout = 10 * time.Second
	}
	if d.ImportStall <= 0 {
		d.ImportStall = time.Minute
	}
	if d.AckTimeout <= 0 {
		d.AckTimeout = 10 * time.Second
	}
	if d.PublishTimeout <= 0 {
		d.PublishTimeout = 5 * time.Second
	}
	return errors.Join(missing...)
}

// server is the state behind the handlers.
type server struct {
	Deps
	metrics *metrics
	auth    *authenticator
	phones  *phone.Parser
	seqs    *seqLeases
	budgets *budgets
	recent  *recentRefs
	figures *figureCache
	routes  *routeCache
	api     huma.API
}

// New returns the handler of everything under /.
func New(d Deps) (http.Handler, error) {
	if err := d.validate(); err != nil {
		return nil, err
	}
	s := &server{Deps: d}
	var err error
	if s.metrics, err = newMetrics(d.Registry); err != nil {
		return nil, err
	}
	s.auth = newAuthenticator(d.Store, d.Limits, d.LimitsOf, d.Now)
	if s.phones, err = phone.NewParser(); err != nil {
		return nil, err
	}
	s.seqs = newSeqLeases(d.Store.LeaseSeqs)
	s.budgets = newBudgets()
	s.recent = newRecentRefs(d.Now)
	s.figures = newFigureCache(d.Analytics)
	s.routes = newRouteCache(d.Store, d.Now)

	r := chi.NewRouter()
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, r, problem(CodeNoSuchPath, "There is nothing at %s.", truncate(r.URL.Path, 200)))
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Allow", strings.Join(allowed(r, req.URL), ", "))
		writeProblem(w, req, problem(CodeMethodNotAllowed, "%s is not possible here.", truncate(req.Method, 20)))
	})
	s.api = humachi.New(r, humaConfig())
	s.api.UseMiddleware(s.authorize, s.idempotent)
	s.registerAll()
	document, err := openAPI(s.api.OpenAPI())
	if err != nil {
		return nil, err
	}
	r.Get("/api/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(document)
	})
	s.mountHealth(r)
	if d.Logins != nil {
		page, err := ui.New(ui.Config{Logins: d.Logins, Source: &pageSource{server: s, names: map[uint64]string{}, costs: map[string]pageCost{}}, Done: d.Done})
		if err != nil {
			return nil, err
		}
		page.Mount(r)
	}
	return s.outer(r), nil
}

// allowed are the methods of a path (RFC 9110, 15.5.6).
func allowed(r chi.Router, at *url.URL) (out []string) {
	path := cmp.Or(at.RawPath, at.Path) // as chi matches it
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if r.Match(chi.NewRouteContext(), cond(method == http.MethodHead, http.MethodGet, method), path) {
			out = append(out, method)
		}
	}
	return out
}

// registerAll is the table of contents of the API.
func (s *server) registerAll() {
	s.registerCampaigns()
	s.registerActions()
	s.registerPricing()
	s.registerStats()
	s.registerLists()
	s.registerContacts()
	s.registerImports()
	s.registerSuppressions()
	s.registerSend()
	s.registerMessages()
}

// OpenAPI returns the document that the code describes itself with, as schemas/openapi/openapi.json keeps it.
func OpenAPI() ([]byte, error) {
	s := &server{}
	s.api = humachi.New(chi.NewRouter(), humaConfig())
	s.registerAll()
	return openAPI(s.api.OpenAPI())
}

// operation is what the resources say about one of their operations.
type operation struct {
	id, method, path, summary string
	scope                     store.Scope
	status                    int // of success, default 200
	errors                    []int
	maxBody                   int64 // default 1 MiB
	// streamed bodies are read by the handler; no deadline and no limit but its own.
	streamed bool
	// reserves: the handler itself answers what an unfinished Idempotency-Key had reserved.
	reserves bool
	describe string
	tag      string
}

const (
	metaOperation = "operation"
	defaultMax    = 1 << 20
)

// register adds an operation. What the handler returns as an error becomes a [Problem].
func register[I, O any](s *server, o operation, h func(ctx context.Context, in *I) (*O, error)) {
	status := o.status
	if status == 0 {
		status = http.StatusOK
	}
	maxBody := o.maxBody
	if maxBody == 0 {
		maxBody = defaultMax
	}
	o.maxBody = maxBody
	errs := append([]int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusServiceUnavailable}, o.errors...)
	if o.method != http.MethodGet { // of the body, and of the Idempotency-Key
		errs = append(errs, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	if o.method == http.MethodPost {
		errs = append(errs, http.StatusConflict, http.StatusUnprocessableEntity)
	}
	slices.Sort(errs)
	errs = slices.Compact(errs)
	op := huma.Operation{
		OperationID: o.id, Method: o.method, Path: o.path, Summary: o.summary, Description: o.describe, Tags: []string{o.tag},
		DefaultStatus: status, Errors: errs, MaxBodyBytes: maxBody, SkipValidateBody: true,
		Security: []map[string][]string{{"apiKey": {}}, {"basic": {}}},
		Metadata: map[string]any{metaOperation: &o}, BodyReadTimeout: s.BodyTimeout,
	}
	if o.streamed {
		op.BodyReadTimeout = -1
	}
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil {
			return nil, s.explain(ctx, err)
		}
		return out, nil
	})
}

// explain turns an error into a problem with the request's id, and logs what only we should see.
func (s *server) explain(ctx context.Context, err error) *Problem {
	p := *asProblem(err)
	req := requestOf(ctx)
	p.RequestID = req.id
	if p.Status >= http.StatusInternalServerError && p.err != nil && !errors.Is(p.err, context.Canceled) {
		s.Logger.ErrorContext(ctx, "request failed", "request_id", req.id, "operation", req.operation, "code", string(p.Code), "error", p.err.Error())
	}
	return &p
}
