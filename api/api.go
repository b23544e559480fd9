package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/api/clientaddr"
	"fanfare/api/compliance"
	"fanfare/api/phone"
	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/api/ui"
	"fanfare/schemas"
	"fanfare/schemas/trace"
	"fanfare/sinks/analytics"
)

// Deps are the services and settings of the API.
type Deps struct {
	Store     *store.Store
	Analytics analytics.Store
	// Sources are what an audit reads beside the store and the statistics. Nil: this process makes no audits.
	Sources Sources
	// AuditSettle bounds how long an audit waits for the statistics to have what the log had when it was read, default
	// 10 s.
	AuditSettle time.Duration
	// Kafka produces single sends. Give the client ProducerLinger(0): every send waits for the linger.
	Kafka *kgo.Client
	Names schemas.Names
	Keys  *schemas.Keys
	// ControlAge returns how long ago the control view was last known to have reached the ends of its topics; nil when
	// this process has no view. Above five seconds senders stop, and /readyz answers degraded.
	ControlAge func() time.Duration
	// OptedOut reports from memory whether a number has opted out of a channel. Nil: the store is queried for every
	// destination.
	OptedOut func(tenant, e164 string, channel schemas.Channel) bool
	// OptOutsAge returns how long ago the memory behind OptedOut was last known to be complete. Above two seconds the
	// store is queried instead. Nil: the memory is always complete.
	OptOutsAge func() time.Duration
	// RouteHealth returns how a route does. Nil: this process does not know.
	RouteHealth func(route string) schemas.RouteHealth
	// Doctor examines the services that the process depends on; nil: there is nothing to examine.
	Doctor func(context.Context) []Finding
	// Alerts evaluates the alerts on the metrics of the process; nil: there are none.
	Alerts func(context.Context) []Alert
	// Ready are the checks of /readyz. Each has a second to answer.
	Ready []Check
	// Metrics serves /metrics. Nil: there is no such path.
	Metrics http.Handler
	// Traces makes spans of sends and confirms; nil: none.
	Traces *trace.Tracer
	// Console serves the console at /. SecureCookies is true when browsers reach it by HTTPS.
	Console, SecureCookies bool
	// OIDC is a provider by which people may log in to the console; nil: none.
	OIDC *OIDC
	// Done is closed when the server begins to stop. It ends live streams, which would otherwise never end.
	Done <-chan struct{}
	// Moderator checks the content of a campaign at confirm. Approver checks whether the key may confirm it. Nil: no
	// check.
	Moderator Moderator
	Approver  Approver
	// Connectors are the kinds of carriers that routes may name.
	Connectors Connectors
	// Limits are the limits of a key when LimitsOf is nil or returns zero fields for it. A zero field means the
	// default.
	Limits Limits
	// LimitsOf returns the limits of one key, for example of a bulk client. Nil: all keys have Limits.
	LimitsOf func(key *store.Key) Limits
	// SharedLimiter counts the requests of keys over all API processes. Nil: each process counts for itself.
	SharedLimiter SharedLimiter
	// BodyTimeout is the longest that the body of a request may take to arrive, default 10 s.
	BodyTimeout time.Duration
	// ImportStall is the longest that an import waits for the next byte of its body, default a minute.
	ImportStall time.Duration
	// AckTimeout is the longest that a single send waits for Kafka, default 10 s.
	AckTimeout time.Duration
	// Proxies are the addresses of our own proxies before the console; attempts to log in are limited by the address
	// behind them.
	Proxies clientaddr.Proxies
	// PublishTimeout is the longest that an opt-out waits until its record is acknowledged, default 5 s.
	PublishTimeout time.Duration
	// StatsMaxAge is how old the statistics of a campaign may be before they are read again, default 250 ms; negative:
	// they are read for every request. StatsPatience is how long a request waits for that read before it answers with
	// the last statistics, default 25 ms.
	StatsMaxAge, StatsPatience time.Duration
	// LinkURL is the public address of the edge, which precedes the token in a link, such as `https://go.example.com/`.
	// Empty: campaigns have no links.
	LinkURL string
	// DomainChecks says how the domains of links are checked.
	DomainChecks DomainChecks
	// WebhookAllow are private or local address ranges that webhooks may post to. All others are refused.
	WebhookAllow []netip.Prefix
	Logger       *slog.Logger
	Registry     prometheus.Registerer
	Now          func() time.Time
}

// Check is one check of /readyz.
type Check struct {
	Name string
	Do   func(ctx context.Context) error
	// Degrades: when the check fails, the process reports degraded instead of unready.
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
	if d.AuditSettle <= 0 {
		d.AuditSettle = 10 * time.Second
	}
	if d.StatsMaxAge == 0 {
		d.StatsMaxAge = defaultStatsMaxAge
	}
	if d.StatsPatience == 0 {
		d.StatsPatience = defaultStatsPatience
	}
	return errors.Join(missing...)
}

// server has the state that the handlers share.
type server struct {
	Deps
	metrics   *metrics
	auth      *authenticator
	phones    *phone.Parser
	seqs      *seqLeases
	credit    *creditSlices
	limiter   *keyLimiter
	budgets   *budgets
	recent    *recentRefs
	figures   *figureCache
	reports   *reports
	sets      *setCache
	routes    *routeCache
	listNames *listNames
	whoNames  *whoNames
	rules     *compliance.Rules
	// domainsChanged wakes two jobs: the one that checks domains, and the one that resumes campaigns without a usable
	// domain.
	domainsChanged [2]chan struct{}
	api            huma.API
}

// Server handles all paths of the API.
type Server struct {
	http.Handler
	s *server
}

// Close returns unspent credit of single sends to the store. Call it after the last request was answered.
func (s *Server) Close(ctx context.Context) error { return s.s.credit.close(ctx) }

// New returns a server.
func New(d Deps) (*Server, error) {
	if err := d.validate(); err != nil {
		return nil, err
	}
	s := &server{Deps: d, domainsChanged: [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)}}
	var err error
	if s.metrics, err = newMetrics(d.Registry); err != nil {
		return nil, err
	}
	s.auth = newAuthenticator(d.Store, d.Limits, d.LimitsOf, d.Now)
	if s.phones, err = phone.NewParser(); err != nil {
		return nil, err
	}
	if s.rules, err = compliance.Open(); err != nil {
		return nil, err
	}
	s.seqs = newSeqLeases(d.Store.LeaseSeqs)
	s.credit = newCreditSlices(d.Store, d.Now, d.Logger)
	s.limiter = &keyLimiter{shared: d.SharedLimiter, now: d.Now, log: d.Logger}
	s.budgets = newBudgets()
	s.recent = newRecentRefs(d.Now)
	s.figures = newFigureCache(d.Analytics)
	s.reports = newReports(d.Analytics, s.StatsMaxAge, s.StatsPatience)
	s.sets = newSetCache(d.Analytics, s.StatsMaxAge)
	s.routes = newRouteCache(d.Store, &s.Connectors, d.Now, s.healthOf)
	s.listNames = newListNames(d.Now)
	s.whoNames = newWhoNames(d.Store, d.Now)

	r := chi.NewRouter()
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, r, problem.New(problem.CodeNoSuchPath, "There is nothing at %s.", problem.Truncate(r.URL.Path, 200)))
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Allow", strings.Join(allowed(r, req.URL), ", "))
		writeProblem(w, req, problem.New(problem.CodeMethodNotAllowed, "%s is not possible here.", problem.Truncate(req.Method, 20)))
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
	mountDocs(r)
	s.mountHealth(r)
	s.mountCallbacks(r)
	handler := s.outer(r)
	if d.Console {
		console, err := ui.New(ui.Config{API: handler, As: asActor, Store: d.Store, Secure: d.SecureCookies, OIDC: d.OIDC, Proxies: d.Proxies, Done: d.Done, Logger: d.Logger, Now: d.Now})
		if err != nil {
			return nil, err
		}
		console.Mount(r)
	}
	return &Server{handler, s}, nil
}

// allowed returns the methods of a path, for the header Allow (RFC 9110, 15.5.6).
func allowed(r chi.Router, at *url.URL) (out []string) {
	path := cmp.Or(at.RawPath, at.Path) // as chi matches it
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if r.Match(chi.NewRouteContext(), pick(method == http.MethodHead, http.MethodGet, method), path) {
			out = append(out, method)
		}
	}
	return out
}

// registerAll registers every operation of the API.
func (s *server) registerAll() {
	s.registerCampaigns()
	s.registerActions()
	s.registerPricing()
	s.registerStats()
	s.registerForecasts()
	s.registerTimeline()
	s.registerLinkStats()
	s.registerLiveStats()
	s.registerSelections()
	s.registerMembers()
	s.registerReplays()
	s.registerAudits()
	s.registerLists()
	s.registerContacts()
	s.registerImports()
	s.registerImportJobs()
	s.registerSuppressions()
	s.registerSuppressionFiles()
	s.registerConsent()
	s.registerConversations()
	s.registerExports()
	s.registerSegments()
	s.registerErasures()
	s.registerAccount()
	s.registerTags()
	s.registerSend()
	s.registerMessages()
	s.registerTemplates()
	registerResource(s, s.agents())
	registerResource(s, s.channels())
	s.registerWebhooks()
	s.registerSenders()
	s.registerDomains()
	s.registerPrices()
	s.registerPolicy()
	s.registerCompliance()
	s.registerOperator()
	s.registerRoutes()
	s.registerDoctor()
	s.registerAlerts()
}

// OpenAPI returns the OpenAPI document that huma generates from the registered operations; schemas/openapi/openapi.json
// is a copy of it.
func OpenAPI() ([]byte, error) {
	s := &server{}
	s.api = humachi.New(chi.NewRouter(), humaConfig())
	s.registerAll()
	return openAPI(s.api.OpenAPI())
}

// operation describes one operation of a resource.
type operation struct {
	id, method, path, summary string
	scope                     store.Scope
	status                    int // of success, default 200
	errors                    []int
	maxBody                   int64 // default 1 MiB
	// streamed: the handler reads the body itself, with its own deadline and limit.
	streamed bool
	// reserves: the handler answers a repeated Idempotency-Key whose first request has not finished.
	reserves bool
	// testKeys says what a test key may do here (X14). Reads are always allowed; every other operation refuses test
	// keys unless its handler restricts them to test campaigns and test lists.
	testKeys testKeys
	// open: the operation needs no API key; its handler checks authorization itself.
	open     bool
	describe string
	tag      string
}

type testKeys bool

const testKeysConfined testKeys = true

const (
	metaOperation = "operation"
	defaultMax    = 1 << 20
)

// register adds an operation. Errors of the handler become a [problem.Problem].
func register[I, O any](s *server, o operation, h func(ctx context.Context, in *I) (*O, error)) {
	huma.Register(s.api, s.describe(&o), func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil {
			return nil, s.explain(ctx, err)
		}
		return out, nil
	})
}

// describe converts an operation to huma's type.
func (s *server) describe(o *operation) huma.Operation {
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
	if o.method != http.MethodGet { // errors of a body
		errs = append(errs, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	if o.method == http.MethodPost { // errors of an Idempotency-Key
		errs = append(errs, http.StatusConflict, http.StatusUnprocessableEntity)
	}
	slices.Sort(errs)
	errs = slices.Compact(errs)
	op := huma.Operation{
		OperationID: o.id, Method: o.method, Path: o.path, Summary: o.summary, Description: describeOperation(o.id, o.describe), Tags: []string{o.tag},
		DefaultStatus: status, Errors: errs, MaxBodyBytes: maxBody, SkipValidateBody: true,
		Security: []map[string][]string{{"apiKey": {}}, {"basic": {}}},
		Metadata: map[string]any{metaOperation: o}, BodyReadTimeout: s.BodyTimeout,
	}
	if o.open {
		op.Security = []map[string][]string{{}}
	}
	if o.streamed {
		op.BodyReadTimeout = -1
	}
	return op
}

// explain turns an error into a problem with the id of the request, and logs the cause of a 5xx, which the client does
// not see.
func (s *server) explain(ctx context.Context, err error) *problem.Problem {
	p := *problem.From(err)
	req := requestOf(ctx)
	p.RequestID = req.id
	req.unknown = req.unknown || errors.Is(err, store.ErrUnknown)
	if cause := p.Unwrap(); p.Status >= http.StatusInternalServerError && cause != nil && !errors.Is(cause, context.Canceled) {
		s.Logger.ErrorContext(ctx, "request failed", "request_id", req.id, "operation", req.operation, "code", string(p.Code), "err", cause.Error())
	}
	return &p
}
