package api

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/credentials"
)

const routeTag = "Routes"

// Route is an account at a carrier, with its limits.
type Route struct {
	Name          string         `json:"name" example:"acme-smpp" doc:"Part of the names of topics; it cannot be changed."`
	Connector     string         `json:"connector" example:"smpp" doc:"The kind of carrier."`
	Simulated     bool           `json:"simulated" doc:"True: the route is a simulator, from which nothing reaches a person."`
	Channels      []string       `json:"channels" enum:"sms,rcs,whatsapp,voice" doc:"Channels that it carries."`
	Configuration map[string]any `json:"configuration" doc:"Settings of the connector, without credentials. They may include the meaning of the carrier's codes, and which codes are worth another try."`
	Credentials   []string       `json:"credentials" doc:"Which credentials are set, such as password. Their values are never returned."`
	Unreadable    bool           `json:"credentialsUnreadable" doc:"True: they were encrypted with a key that this server does not have; send them again."`
	Rate          uint32         `json:"rate" doc:"Messages a second over all processes."`
	Burst         uint32         `json:"burst" doc:"Messages at once; 0: a tenth of the rate."`
	P99           uint32         `json:"p99Ms" doc:"99th percentile of the carrier's response time in milliseconds; determines how many messages may be in flight. 0: not known."`
	ReceiptWindow uint32         `json:"receiptWindow" doc:"How many seconds to wait for receipts after the last hand-over."`
	Status        string         `json:"status" enum:"active,paused" doc:"A paused route hands nothing over; its messages are sent later."`
	Priority      uint32         `json:"priority" doc:"When no route is named, the route with the smallest priority that carries the channel is used."`
	Cost          Money          `json:"cost" doc:"The carrier's price of a message. Among routes with the same priority, the cheapest is used."`
	Share         uint32         `json:"share" doc:"Among routes with the same priority and cost, campaigns are divided by share."`
	Care          RouteCare      `json:"care" doc:"When campaigns that send by the route are suspended, and whether they are resumed."`
	Health        RouteHealth    `json:"health" doc:"How the route does now, over all processes."`
	CallbackPath  *string        `json:"callbackPath" doc:"Where the carrier posts receipts; null: it sends receipts over the connector's own connection."`
	CreatedAt     string         `json:"createdAt" format:"date-time" doc:"When it was created."`
	UpdatedAt     string         `json:"updatedAt" format:"date-time" doc:"When it was last changed."`
	Version       uint64         `json:"version" doc:"Rises with every change. As the ETag it is the value of If-Match."`
}

// RouteInput creates or changes a route.
type RouteInput struct {
	Name          problem.Optional[string]         `json:"name,omitzero" doc:"1 to 40 of a-z 0-9 _ - with a letter first."`
	Connector     problem.Optional[string]         `json:"connector,omitzero" doc:"sim, smpp, httpsms, rcs, whatsapp or voice."`
	Channels      problem.Optional[[]string]       `json:"channels,omitzero" doc:"Default: all channels that the connector carries."`
	Configuration problem.Optional[map[string]any] `json:"configuration,omitzero" doc:"Settings in the form that the connector documents. Replaces the configuration before."`
	Credentials   problem.Optional[map[string]any] `json:"credentials,omitzero" doc:"Stored encrypted and never returned. Replace all credentials before; null removes them. They are merged into the configuration when the connector is opened: {\"password\": …} for smpp and voice, {\"values\": {…}} for httpsms."`
	Rate          problem.Optional[uint32]         `json:"rate,omitzero" doc:"Messages a second, 1 to 1,000,000."`
	Burst         problem.Optional[uint32]         `json:"burst,omitzero" doc:"Messages at once, up to 1,000,000; 0 (the default): a tenth of the rate."`
	P99           problem.Optional[uint32]         `json:"p99Ms,omitzero" doc:"Milliseconds; 500 by default."`
	ReceiptWindow problem.Optional[uint32]         `json:"receiptWindow,omitzero" doc:"Seconds, up to 30 days; 72 hours by default."`
	Priority      problem.Optional[uint32]         `json:"priority,omitzero" doc:"0 to 100; 0 by default."`
	Cost          problem.Optional[Money]          `json:"cost,omitzero" doc:"The carrier's price of a message, not negative; default: 0. It only decides between routes."`
	Share         problem.Optional[uint32]         `json:"share,omitzero" doc:"1 to 100; 1 by default."`
	Care          problem.Optional[RouteCareInput] `json:"care,omitzero" doc:"When campaigns that send by the route are suspended, and whether they are resumed. Fields that are left out stay as they are."`
}

// RouteCare says when campaigns of a route are suspended, and whether they are resumed.
type RouteCare struct {
	DownAfter      uint32 `json:"downAfter" example:"60" doc:"Seconds that the route must have been down until its campaigns are suspended with the reason route_down; 0: they are not suspended for it. A carrier that refuses the account for ten seconds suspends them in any case, with the reason provider_auth."`
	FailurePercent uint32 `json:"failurePercent" example:"80" doc:"A campaign is suspended with the reason failure_rate when this percentage of failureSample answers or receipts in a row are failures; 0: it is not suspended for it. A person must resume it."`
	FailureSample  uint32 `json:"failureSample" example:"500" doc:"How many outcomes are judged together."`
	AutoResume     bool   `json:"autoResume" doc:"True: campaigns that were suspended with route_down or provider_auth are resumed when the route can be used again."`
	Failover       bool   `json:"failover" doc:"True, for SMS: while the route is down or paused, other routes whose failover is on, to the same kind of carrier, carry its campaigns that name no route, and the route does the same for them. Recipients that were never handed over move; those in flight or in doubt do not. When the route is up again, its campaigns go over it again."`
}

// RouteCareInput changes the care of a route.
type RouteCareInput struct {
	DownAfter      problem.Optional[uint32] `json:"downAfter,omitzero" doc:"Seconds, up to 86,400; 60 by default; 0: never."`
	FailurePercent problem.Optional[uint32] `json:"failurePercent,omitzero" doc:"0 to 100; 80 by default; 0: never."`
	FailureSample  problem.Optional[uint32] `json:"failureSample,omitzero" doc:"10 to 1,000,000; 500 by default."`
	AutoResume     problem.Optional[bool]   `json:"autoResume,omitzero" doc:"false by default. Set it on routes whose carriers know the same sender ids."`
	Failover       problem.Optional[bool]   `json:"failover,omitzero" doc:"true by default."`
}

// RouteHealth is how a route does.
type RouteHealth struct {
	State          string   `json:"state" enum:"up,down,trial,unknown" doc:"up: messages can be handed over. down: they cannot. trial: they could not, and the next message finds out whether they can again. unknown: no sender has reported for 20 seconds."`
	Since          *string  `json:"since" format:"date-time" doc:"Since when the route is not up; null while it is up or not known."`
	AccountRefused bool     `json:"accountRefused" doc:"True: the carrier refuses the account, for a wrong password or an expired token."`
	Error          string   `json:"error" doc:"The newest failure; empty: none."`
	Breaker        string   `json:"breaker" enum:"closed,open,half_open,unknown" doc:"open: the carrier does not answer, and nothing is handed over for some seconds. half_open: one batch may find out whether it answers again."`
	Processes      int      `json:"processes" doc:"Sender processes that serve the route."`
	Sessions       int      `json:"sessions" doc:"Sessions with the carrier that are bound or connected, in all processes."`
	InFlight       int      `json:"inFlight" doc:"Messages handed over that the carrier has not answered."`
	Throttled      float64  `json:"throttled" doc:"Share of the last answers, 0 to 1, in which the carrier asked to slow down."`
	Failed         *float64 `json:"failed" doc:"Share of the last five minutes' outcomes, 0 to 1, that are failures: of the answers to hand-overs or of the receipts, whichever is greater. null: there were none."`
	Accepted       uint64   `json:"accepted" doc:"Messages that the carrier took in the last five minutes."`
	Refused        uint64   `json:"refused" doc:"Messages that the carrier refused for good in the last five minutes."`
	Delivered      uint64   `json:"delivered" doc:"Receipts of the last five minutes that say delivered."`
	Undelivered    uint64   `json:"undelivered" doc:"Receipts of the last five minutes that say not delivered."`
	ReportedAt     *string  `json:"reportedAt" format:"date-time" doc:"When the newest report was made; null: there is none."`
}

// RouteTest is the result of the test of a route.
type RouteTest struct {
	OK      bool   `json:"ok" doc:"True: the carrier accepted the connection."`
	Detail  string `json:"detail" doc:"The error of the carrier or the network, when the test failed."`
	TookMs  int64  `json:"tookMs" doc:"Duration of the test in milliseconds; it ends after 8 seconds."`
	Message string `json:"message" doc:"What the test did."`
}

type (
	routesOut struct{ Body *Page[*Route] }
	routeIn   struct {
		ID string `path:"id" doc:"The name of the route."`
	}
	routeCreateIn struct{ Body problem.Body[RouteInput] }
	routeChangeIn struct {
		ID      string `path:"id" doc:"The name of the route."`
		IfMatch string `header:"If-Match" doc:"ETag of the version to change; 412 when another version is stored. Left out: any version."`
		Body    problem.Body[RouteInput]
	}
	routeMoveIn struct {
		ID      string `path:"id" doc:"The name of the route."`
		IfMatch string `header:"If-Match" doc:"ETag of the version to change; 412 when another version is stored. Left out: any version."`
	}
	routeOut struct {
		Location string `header:"Location"`
		ETag     string `header:"ETag"`
		Body     *Route
	}
	routeTestOut struct{ Body *RouteTest }
)

func (s *server) registerRoutes() {
	const scope = store.ScopeAdmin
	register(s, operation{
		id: "listRoutes", method: http.MethodGet, path: "/api/routes", summary: "List routes, by name", scope: scope, errors: []int{422}, tag: routeTag,
	}, func(ctx context.Context, in *shortIn) (*routesOut, error) {
		rows, err := s.Store.Routes(ctx)
		if err != nil {
			return nil, s.storeProblem(err)
		}
		page, err := pageOf("routes", in, rows, func(r *store.Route) []string { return []string{r.Name, r.Connector} },
			func(r *store.Route) (*Route, error) { return s.viewRoute(r), nil })
		return &routesOut{page}, err
	})
	register(s, operation{
		id: "createRoute", method: http.MethodPost, path: "/api/routes", summary: "Create a route", status: http.StatusCreated, scope: scope,
		errors: []int{400, 409, 422}, tag: routeTag, describe: "The senders open the route within seconds; no process needs a restart.",
	}, s.createRoute)
	register(s, operation{
		id: "getRoute", method: http.MethodGet, path: "/api/routes/{id}", summary: "Get a route", scope: scope, errors: []int{404}, tag: routeTag,
	}, func(ctx context.Context, in *routeIn) (*routeOut, error) {
		r, err := s.findRoute(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return s.answerRoute(r), nil
	})
	register(s, operation{
		id: "updateRoute", method: http.MethodPut, path: "/api/routes/{id}", summary: "Change a route", scope: scope,
		errors: []int{400, 404, 409, 412, 422}, tag: routeTag,
		describe: "Fields that are left out stay as they are. When the connector, its configuration or its credentials change, the senders finish the messages in flight and open the route again.",
	}, s.updateRoute)
	register(s, operation{
		id: "deleteRoute", method: http.MethodDelete, path: "/api/routes/{id}", summary: "Delete a route", scope: scope,
		errors: []int{404, 409, 412}, tag: routeTag, describe: "The route must be paused, must not be the default route of a tenant, and must not be used by a campaign that is not settled.",
	}, s.deleteRoute)
	register(s, operation{
		id: "testRoute", method: http.MethodPost, path: "/api/routes/{id}/test", summary: "Test a route", scope: scope, errors: []int{404}, tag: routeTag,
		describe: "Connects to the carrier as a sender does, and disconnects. For SMPP this includes the bind; for an HTTP provider only the connection is tested. No message is sent.",
	}, s.testRoute)
	for _, move := range []struct {
		verb, summary string
		enabled       bool
	}{{"pause", "Pause a route", false}, {"resume", "Resume a route", true}} {
		register(s, operation{
			id: move.verb + "Route", method: http.MethodPost, path: "/api/routes/{id}/" + move.verb, summary: move.summary, scope: scope,
			errors: []int{404, 409, 412}, tag: routeTag,
		}, func(ctx context.Context, in *routeMoveIn) (*routeOut, error) {
			return s.changeRoute(ctx, in.ID, in.IfMatch, func(r *store.Route) error {
				r.Enabled = move.enabled
				return nil
			})
		})
	}
}

func (s *server) findRoute(ctx context.Context, name string) (*store.Route, error) {
	r, err := s.Store.Route(ctx, name)
	if errors.Is(err, schemas.ErrNotFound) {
		return nil, problem.New(problem.CodeNotFound, "There is no route %q.", problem.Truncate(name, 60)).WithFix("GET /api/routes lists them.")
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &r, nil
}

func (s *server) viewRoute(r *store.Route) *Route {
	v := &Route{
		Name: r.Name, Connector: r.Connector, Simulated: s.Connectors.simulates(r.Connector), Channels: []string{}, Configuration: map[string]any{},
		Credentials: append([]string{}, r.CredentialNames...), Rate: r.Rate, Burst: r.Burst, P99: uint32(r.P99.Milliseconds()),
		ReceiptWindow: uint32(r.ReceiptWindow / time.Second), Status: pick(r.Enabled, "active", "paused"), Priority: r.Priority, Cost: Money(r.Cost),
		Share: r.Share, Care: RouteCare{
			DownAfter: uint32(r.Care.DownAfter / time.Second), FailurePercent: r.Care.FailurePercent, FailureSample: r.Care.FailureSample, AutoResume: r.Care.AutoResume,
			Failover: !r.Care.NoFailover,
		}, Health: s.viewHealth(r.Name), CreatedAt: stamp(r.Created), UpdatedAt: stamp(r.Updated), Version: r.Version,
	}
	for _, c := range r.Channels {
		v.Channels = append(v.Channels, schemas.ChannelName(c))
	}
	if r.Configuration != "" {
		_ = json.Unmarshal([]byte(r.Configuration), &v.Configuration) // this package wrote it
	}
	if len(r.Credentials) > 0 {
		_, err := s.Connectors.open(r)
		v.Unreadable = err != nil
	}
	if k := s.Connectors.named(r.Connector); k != nil && k.Callbacks {
		v.CallbackPath = new(CallbackPath + r.Name)
	}
	return v
}

// viewHealth returns how a route does.
func (s *server) viewHealth(route string) RouteHealth {
	h := s.healthOf(route)
	v := RouteHealth{
		State: "unknown", AccountRefused: h.AccountRefused, Error: h.Error, Breaker: "unknown", Processes: h.Processes, Sessions: h.Sessions, InFlight: h.InFlight,
		Throttled: h.Throttled, Accepted: h.Accepted, Refused: h.Refused, Delivered: h.Delivered, Undelivered: h.Undelivered, ReportedAt: stampOrNull(h.Reported),
		Since: stampOrNull(h.Since),
	}
	if h.State != schemas.LineStateUnspecified {
		v.State = strings.ToLower(strings.TrimPrefix(h.State.String(), "LINE_STATE_"))
	}
	if h.Breaker != schemas.BreakerUnspecified {
		v.Breaker = strings.ToLower(strings.TrimPrefix(h.Breaker.String(), "BREAKER_"))
	}
	if share, ok := h.Failed(); ok {
		v.Failed = &share
	}
	return v
}

// healthOf returns how a route does; its state is unspecified when no sender reports.
func (s *server) healthOf(route string) schemas.RouteHealth {
	if s.RouteHealth == nil {
		return schemas.RouteHealth{}
	}
	return s.RouteHealth(route)
}

func (s *server) answerRoute(r *store.Route) *routeOut {
	return &routeOut{ETag: etag(r.Version), Body: s.viewRoute(r)}
}

// open returns the decrypted credentials of a route.
func (c *Connectors) open(r *store.Route) ([]byte, error) {
	if len(r.Credentials) == 0 {
		return nil, nil
	}
	if c.Sealing == nil {
		return nil, credentials.ErrOtherKey
	}
	return c.Sealing.Open(r.Name, r.Credentials)
}

// settings returns the settings with which the connector of a route is opened: configuration and credentials.
func (c *Connectors) settings(r *store.Route) ([]byte, error) {
	secret, err := c.open(r)
	if err != nil {
		return nil, err
	}
	return credentials.Settings([]byte(r.Configuration), secret)
}

func (s *server) createRoute(ctx context.Context, in *routeCreateIn) (*routeOut, error) {
	r, err := s.Connectors.newRoute(&in.Body.Value)
	if err != nil {
		return nil, err
	}
	made, err := s.Store.CreateRoute(ctx, *r)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	s.routes.forget()
	out := s.answerRoute(&made)
	out.Location = "/api/routes/" + made.Name
	return out, nil
}

// newRoute returns the route that an input describes.
func (c *Connectors) newRoute(in *RouteInput) (*store.Route, error) {
	if in.Name.Value == "" {
		return nil, problem.Field(problem.CodeRequired, "name", "The route has no name.")
	}
	r := &store.Route{Name: in.Name.Value, Rate: 0, P99: defaultP99, ReceiptWindow: defaultReceiptWindow, Enabled: true, Share: 1, Care: store.DefaultCare}
	if in.Connector.Value == "" {
		return nil, problem.Field(problem.CodeRequired, "connector", "The route names no connector.").WithFix("Connectors: %s.", strings.Join(c.names(), ", "))
	}
	if !in.Rate.Set {
		return nil, problem.Field(problem.CodeRequired, "rate", "The route has no rate.").WithFix("Send the messages per second that the carrier allows.")
	}
	return r, c.apply(in, r)
}

// Defaults of a route.
const (
	defaultP99           = 500 * time.Millisecond
	defaultReceiptWindow = 72 * time.Hour
	mostReceiptWindow    = 30 * 24 * time.Hour
	mostRate             = 1_000_000
)

// apply copies the fields that were given to a route, and checks the whole route.
func (c *Connectors) apply(in *RouteInput, r *store.Route) error {
	var ps problem.List
	if in.Name.Set && in.Name.Value != r.Name {
		ps.Add(problem.CodeReadOnly, "name", "The name of a route cannot be changed.")
	}
	set(&in.Connector, &r.Connector, nil)
	kind := c.named(r.Connector)
	if kind == nil {
		return problem.Field(problem.CodeInvalid, "connector", "There is no connector %q.", problem.Truncate(r.Connector, 40)).WithFix("Connectors: %s.", strings.Join(c.names(), ", "))
	}
	c.applyLimits(&ps, in, r)
	c.applyChannels(&ps, in, kind, r)
	if err := c.applySettings(&ps, in, kind, r); err != nil {
		return err
	}
	return ps.Err()
}

func (c *Connectors) applyLimits(ps *problem.List, in *RouteInput, r *store.Route) {
	between := func(field string, v, least, most uint32) {
		if v < least || v > most {
			ps.Add(problem.CodeInvalid, field, "%s is %d; want %d to %d.", field, v, least, most)
		}
	}
	set(&in.Rate, &r.Rate, nil)
	set(&in.Burst, &r.Burst, nil)
	set(&in.Priority, &r.Priority, nil)
	set(&in.Share, &r.Share, nil)
	between("rate", r.Rate, 1, mostRate)
	between("burst", r.Burst, 0, mostRate)
	between("priority", r.Priority, 0, 100)
	between("share", r.Share, 1, 100)
	if in.Care.Set {
		care := &in.Care.Value
		down := uint32(r.Care.DownAfter / time.Second)
		set(&care.DownAfter, &down, nil)
		set(&care.FailurePercent, &r.Care.FailurePercent, nil)
		set(&care.FailureSample, &r.Care.FailureSample, nil)
		set(&care.AutoResume, &r.Care.AutoResume, nil)
		if care.Failover.Set {
			r.Care.NoFailover = !care.Failover.Value
		}
		between("care.downAfter", down, 0, 86_400)
		between("care.failurePercent", r.Care.FailurePercent, 0, 100)
		between("care.failureSample", r.Care.FailureSample, 10, 1_000_000)
		r.Care.DownAfter = time.Duration(down) * time.Second
	}
	if in.P99.Set {
		r.P99 = time.Duration(in.P99.Value) * time.Millisecond
		between("p99Ms", in.P99.Value, 0, 60_000)
	}
	if in.ReceiptWindow.Set {
		r.ReceiptWindow = time.Duration(in.ReceiptWindow.Value) * time.Second
		between("receiptWindow", in.ReceiptWindow.Value, 1, uint32(mostReceiptWindow/time.Second))
	}
	if in.Cost.Set {
		if in.Cost.Value < 0 {
			ps.Add(problem.CodeInvalid, "cost", "The cost is negative.")
		} else {
			r.Cost = uint64(in.Cost.Value)
		}
	}
}

func (c *Connectors) applyChannels(ps *problem.List, in *RouteInput, kind *Connector, r *store.Route) {
	if !in.Channels.Set {
		if len(r.Channels) == 0 {
			r.Channels = slices.Clone(kind.Channels)
		}
	} else {
		r.Channels = nil
		for i, name := range in.Channels.Value {
			channel, ok := schemas.ParseChannel(name)
			if !ok {
				ps.Add(problem.CodeInvalid, fmt.Sprintf("channels[%d]", i), "%q is not a channel: want sms, rcs, whatsapp or voice.", problem.Truncate(name, 40))
			} else if !slices.Contains(r.Channels, channel) {
				r.Channels = append(r.Channels, channel)
			}
		}
		if len(in.Channels.Value) == 0 {
			ps.Add(problem.CodeRequired, "channels", "A route carries at least one channel.")
		}
	}
	for _, channel := range r.Channels {
		if !slices.Contains(kind.Channels, channel) {
			ps.Add(problem.CodeInvalid, "channels", "The connector %s does not carry %s.", kind.Name, schemas.ChannelName(channel))
		}
	}
}

// applySettings sets configuration and credentials, and lets the connector check them together.
func (c *Connectors) applySettings(ps *problem.List, in *RouteInput, kind *Connector, r *store.Route) error {
	if in.Configuration.Set {
		r.Configuration = ""
		if len(in.Configuration.Value) > 0 {
			raw, err := json.Marshal(in.Configuration.Value, json.Deterministic(true))
			if err != nil {
				return fmt.Errorf("write a configuration: %w", err)
			}
			r.Configuration = string(raw)
		}
	}
	names, err := credentials.Names([]byte(r.Configuration))
	if err != nil {
		return problem.Field(problem.CodeInvalid, "configuration", "%s.", err)
	}
	for _, name := range names {
		if kind.secret(name) {
			ps.Add(problem.CodeInvalid, "configuration."+name, "%s is a credential: send it in credentials, where it is encrypted and never returned.", name)
		}
	}
	if err := ps.Err(); err != nil {
		return err
	}
	secret, err := c.open(r)
	if in.Credentials.Set {
		if secret, err = c.seal(in.Credentials.Value, secret, kind, r); err != nil {
			return err
		}
	} else if err != nil {
		return problem.Field(problem.CodeInvalid, "credentials", "The credentials of the route cannot be read: %s.", err).WithFix("Send them again.")
	}
	settings, err := credentials.Settings([]byte(r.Configuration), secret)
	if err == nil && kind.Check != nil {
		err = kind.Check(settings)
	}
	if err != nil {
		return problem.Field(problem.CodeInvalid, "configuration", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return nil
}

// seal encrypts new credentials into a route, and returns them as JSON. When they equal the stored ones, it keeps the
// stored ciphertext, so that the route does not change.
func (c *Connectors) seal(in map[string]any, before []byte, kind *Connector, r *store.Route) ([]byte, error) {
	if len(in) == 0 {
		r.Credentials, r.CredentialNames = nil, nil
		return nil, nil
	}
	raw, err := json.Marshal(in, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("write credentials: %w", err)
	}
	names, err := credentials.Names(raw)
	if err != nil {
		return nil, problem.Field(problem.CodeInvalid, "credentials", "%s.", err)
	}
	for _, name := range names {
		if !kind.secret(name) {
			return nil, problem.Field(problem.CodeInvalid, "credentials."+problem.Truncate(name, 60), "%s is not a credential of %s.", problem.Truncate(name, 60), kind.Name).
				WithFix("%s", cmp.Or(credentialsInWords(kind.Secrets), "This connector has no credentials."))
		}
	}
	if c.Sealing == nil {
		return nil, problem.New(problem.CodeConflict, "This server has no key to encrypt credentials.").
			WithFix("Start every process with FANFARE_CREDENTIALS_KEY, 64 hexadecimal digits (openssl rand -hex 32).")
	}
	r.CredentialNames = names
	if !bytes.Equal(raw, before) {
		r.Credentials = c.Sealing.Seal(r.Name, raw)
	}
	return raw, nil
}

func credentialsInWords(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "Credentials: " + strings.Join(names, ", ") + "."
}

// changeRoute changes a route if it has the version in If-Match.
func (s *server) changeRoute(ctx context.Context, name, match string, do func(*store.Route) error) (*routeOut, error) {
	version, p := ifMatch(match)
	if p != nil {
		return nil, p
	}
	if _, err := s.findRoute(ctx, name); err != nil {
		return nil, err
	}
	r, err := s.Store.UpdateRoute(ctx, name, version, do)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	s.routes.forget()
	return s.answerRoute(&r), nil
}

func (s *server) updateRoute(ctx context.Context, in *routeChangeIn) (*routeOut, error) {
	return s.changeRoute(ctx, in.ID, in.IfMatch, func(r *store.Route) error { return s.Connectors.apply(&in.Body.Value, r) })
}

func (s *server) deleteRoute(ctx context.Context, in *routeMoveIn) (*routeOut, error) {
	version, p := ifMatch(in.IfMatch)
	if p != nil {
		return nil, p
	}
	r, err := s.findRoute(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if r.Enabled {
		return nil, problem.New(problem.CodeConflict, "The route is active.").WithFix("Pause it first: POST /api/routes/%s/pause.", r.Name)
	}
	use, err := s.Store.DeleteRoute(ctx, r.Name, version)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	if use != (store.RouteUse{}) {
		return nil, problem.New(problem.CodeConflict, "%d tenants have the route as their default, and %d campaigns may still send by it.", use.Tenants, use.Campaigns).
			WithFix("Give the tenants another route, and wait until the campaigns are settled.")
	}
	s.routes.forget()
	return s.answerRoute(r), nil
}

func (s *server) testRoute(ctx context.Context, in *routeIn) (*routeTestOut, error) {
	r, err := s.findRoute(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	out := &RouteTest{Message: "Connected to the carrier as a sender does. No message was sent."}
	if s.Connectors.Test == nil {
		return nil, problem.New(problem.CodeConflict, "This server does not test routes.")
	}
	settings, err := s.Connectors.settings(r)
	began := time.Now()
	if err == nil {
		trying, cancel := context.WithTimeout(ctx, testTime)
		err = s.Connectors.Test(trying, r.Name, r.Connector, settings)
		cancel()
	}
	out.TookMs = time.Since(began).Milliseconds()
	if out.OK = err == nil; !out.OK {
		out.Detail = problem.Truncate(err.Error(), 500)
	}
	return &routeTestOut{out}, nil
}

// testTime is the most time that the test of a route may take.
const testTime = 8 * time.Second

// LoadRoutes creates or changes the routes of a JSON document: {"routes": [RouteInput, …]}. Routes that are not in the
// document do not change. It returns the names of the routes that it created or changed.
func LoadRoutes(ctx context.Context, st *store.Store, c Connectors, document []byte) ([]string, error) {
	var file struct {
		Routes []RouteInput `json:"routes"`
	}
	if p := problem.Decode(document, &file); p != nil {
		return nil, inWords(p)
	}
	var changed []string
	for i := range file.Routes {
		in := &file.Routes[i]
		done, err := loadRoute(ctx, st, &c, in)
		if err != nil {
			return changed, fmt.Errorf("route %q: %w", in.Name.Value, inWords(err))
		}
		if done {
			changed = append(changed, in.Name.Value)
		}
	}
	return changed, nil
}

func loadRoute(ctx context.Context, st *store.Store, c *Connectors, in *RouteInput) (changed bool, err error) {
	have, err := st.Route(ctx, in.Name.Value)
	if errors.Is(err, schemas.ErrNotFound) {
		r, err := c.newRoute(in)
		if err != nil {
			return false, err
		}
		_, changed, err = st.EnsureRoute(ctx, *r)
		return changed, err
	}
	if err != nil {
		return false, err
	}
	next, err := st.UpdateRoute(ctx, have.Name, 0, func(r *store.Route) error { return c.apply(in, r) })
	return next.Version != have.Version, err
}

// inWords returns the problem of an error as one line of text.
func inWords(err error) error {
	p, ok := errors.AsType[*problem.Problem](err)
	if !ok {
		return err
	}
	text := p.Detail
	if p.Field != "" {
		text = p.Field + ": " + text
	}
	if p.Fix != "" {
		text += " " + p.Fix
	}
	return errors.New(text)
}
