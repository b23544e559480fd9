package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// tenantHeader names the tenant that an operator acts for, by id or name; without it an operator acts for the tenant of
// the key.
const tenantHeader = "X-Tenant"

const operatorTag = "Operator"

// Tenant is a customer of the installation.
type Tenant struct {
	ID               string `json:"id" example:"tn_2s5v7k4m9q1x3z6b" doc:"Given by the installation; it never changes."`
	Name             string `json:"name" doc:"Unique in the installation."`
	Enabled          bool   `json:"enabled" doc:"False: nothing is sent, and its API keys are refused."`
	CampaignsEnabled bool   `json:"campaignsEnabled" doc:"R45: campaigns need it."`
	Region           string `json:"region" doc:"Country as which numbers without a country code are read." example:"IT"`
	Timezone         string `json:"timezone" example:"Europe/Rome" doc:"IANA name. Times without a zone are read in it."`
	Currency         string `json:"currency" example:"EUR" doc:"ISO 4217 code of all its money."`
	DefaultRoute     string `json:"defaultRoute" doc:"Route of single messages, and of campaigns for which no other route is found."`
	DefaultSender    string `json:"defaultSender" doc:"SMS sender of messages and campaigns that name none; empty: they must name one."`
	MaxActive        uint32 `json:"maxActiveCampaigns" doc:"Most campaigns that are active at once; confirming one more is refused."`
	MaxContacts      uint32 `json:"maxContacts" doc:"Per campaign."`
	MaxSegments      uint32 `json:"maxSegments" doc:"Per rendered text."`
	Rate             uint32 `json:"rate" doc:"Messages a second over all campaigns; 0: no own limit."`
	Weight           uint32 `json:"weight" doc:"Share relative to other tenants, 1 to 100."`
	Balance          *Money `json:"balance" doc:"Money that can still be spent; null: unlimited."`
	Reserved         Money  `json:"reserved" doc:"Money set aside for unfinished campaigns."`
	Spent            Money  `json:"spent" doc:"Money that its messages have cost so far."`
	Owed             Money  `json:"owed" doc:"Debt: credit that was withdrawn although unfinished campaigns had reserved it. Campaigns are suspended until a top-up pays it."`
	CreatedAt        string `json:"createdAt" format:"date-time" doc:"When it was created."`
	UpdatedAt        string `json:"updatedAt" format:"date-time" doc:"When it was last changed."`
	Version          uint64 `json:"version" doc:"Rises with every change. As the ETag it is the value of If-Match."`
}

// TenantInput creates or changes a tenant.
type TenantInput struct {
	Name             problem.Optional[string] `json:"name,omitzero" doc:"Unique in the installation."`
	Enabled          problem.Optional[bool]   `json:"enabled,omitzero" doc:"false: nothing is sent, and the tenant's API keys are refused. A new tenant is enabled."`
	CampaignsEnabled problem.Optional[bool]   `json:"campaignsEnabled,omitzero" doc:"Campaigns need it. true for a new tenant."`
	Region           problem.Optional[string] `json:"region,omitzero" doc:"ISO 3166-1 alpha-2; numbers without a country code are read as numbers of this country. Default: IT."`
	Timezone         problem.Optional[string] `json:"timezone,omitzero" doc:"IANA name; default: the main zone of the region."`
	Currency         problem.Optional[string] `json:"currency,omitzero" doc:"It can't be changed later."`
	DefaultRoute     problem.Optional[string] `json:"defaultRoute,omitzero" doc:"Name of a route, which is used where no other is found; default: sim."`
	DefaultSender    problem.Optional[string] `json:"defaultSender,omitzero" doc:"SMS sender of messages and campaigns that name none; default: FANFARE. Null or empty: they must name one."`
	MaxActive        problem.Optional[uint32] `json:"maxActiveCampaigns,omitzero" doc:"Most campaigns that are active at once; default: 10."`
	MaxContacts      problem.Optional[uint32] `json:"maxContacts,omitzero" doc:"Most contacts of a campaign, up to 16,777,215; default: 1,000,000."`
	MaxSegments      problem.Optional[uint32] `json:"maxSegments,omitzero" doc:"Most SMS segments of a rendered text, 1 to 255; default: 3."`
	Rate             problem.Optional[uint32] `json:"rate,omitzero" doc:"Messages a second over all campaigns; 0 (the default) or null: no own limit."`
	Weight           problem.Optional[uint32] `json:"weight,omitzero" doc:"Share relative to other tenants, 1 to 100; default: 1."`
	Credit           problem.Optional[Money]  `json:"credit,omitzero" doc:"Only for a new tenant; left out or null: unlimited."`
}

// Credit is the money of a tenant.
type Credit struct {
	TenantID  string `json:"tenantId" doc:"Id of the tenant."`
	Name      string `json:"name" doc:"Name of the tenant."`
	Currency  string `json:"currency" doc:"ISO 4217 code; every amount is in it." example:"EUR"`
	Unlimited bool   `json:"unlimited" doc:"true: pay as you go, without a balance."`
	Balance   *Money `json:"balance" doc:"Money that can still be spent; null: unlimited."`
	Reserved  Money  `json:"reserved" doc:"Money set aside for unfinished campaigns."`
	Spent     Money  `json:"spent" doc:"Money that its messages have cost so far."`
	Owed      Money  `json:"owed" doc:"Debt: credit that was withdrawn although unfinished campaigns had reserved it. Campaigns are suspended until a top-up pays it."`
}

// CreditInput adds credit to a tenant, withdraws credit, or makes it unlimited.
type CreditInput struct {
	Amount    problem.Optional[Money]  `json:"amount,omitzero" doc:"Added to the balance; negative: withdrawn from it."`
	Unlimited problem.Optional[bool]   `json:"unlimited,omitzero" doc:"true: pay as you go, without a balance."`
	Note      problem.Optional[string] `json:"note,omitzero" doc:"Shown in the ledger."`
}

type (
	tenantsOut struct{ Body *Page[*Tenant] }
	tenantIn   struct {
		ID string `path:"id" doc:"Id or name."`
	}
	tenantCreateIn struct{ Body problem.Body[TenantInput] }
	tenantChangeIn struct {
		ID      string `path:"id" doc:"Id or name."`
		IfMatch string `header:"If-Match" doc:"ETag of the version to change; 412 when another version is stored. Left out: any version."`
		Body    problem.Body[TenantInput]
	}
	tenantEnableIn struct {
		ID      string `path:"id" doc:"Id or name."`
		IfMatch string `header:"If-Match" doc:"ETag of the version to change; 412 when another version is stored. Left out: any version."`
	}
	creditIn struct {
		ID   string `path:"id" doc:"Id or name."`
		Body problem.Body[CreditInput]
	}
	creditOut struct{ Body *Credit }
	tenantOut struct {
		Location string `header:"Location"`
		ETag     string `header:"ETag"`
		Body     *Tenant
	}
)

func (s *server) registerOperator() {
	register(s, operation{
		id: "listTenants", method: http.MethodGet, path: "/api/tenants", summary: "List tenants, oldest first", scope: store.ScopeAdmin, errors: []int{422}, tag: operatorTag,
	}, func(ctx context.Context, in *shortIn) (*tenantsOut, error) {
		rows, err := s.Store.Tenants(ctx)
		if err != nil {
			return nil, s.storeProblem(err)
		}
		page, err := pageOf("tenants", in, rows, func(t *store.Tenant) []string { return []string{t.ID, t.Name} },
			func(t *store.Tenant) (*Tenant, error) { return s.viewTenant(ctx, t) })
		return &tenantsOut{page}, err
	})
	register(s, operation{
		id: "createTenant", method: http.MethodPost, path: "/api/tenants", summary: "Create a tenant", status: http.StatusCreated,
		scope: store.ScopeAdmin, errors: []int{400, 409, 422}, tag: operatorTag,
		describe: "The tenant can send immediately: it has campaigns enabled, a sender id, a route and prices.",
	}, s.createTenant)
	register(s, operation{
		id: "getTenant", method: http.MethodGet, path: "/api/tenants/{id}", summary: "Get a tenant", scope: store.ScopeAdmin, errors: []int{404}, tag: operatorTag,
	}, func(ctx context.Context, in *tenantIn) (*tenantOut, error) {
		t, err := s.findTenant(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return s.answerTenant(ctx, t)
	})
	register(s, operation{
		id: "updateTenant", method: http.MethodPut, path: "/api/tenants/{id}", summary: "Change a tenant", scope: store.ScopeAdmin,
		errors: []int{400, 404, 409, 412, 422}, tag: operatorTag, describe: "Fields that are left out stay as they are.",
	}, s.updateTenant)
	for _, to := range []struct {
		verb, summary, describe string
		enabled                 bool
	}{
		{"disable", "Disable a tenant", "Nothing of it is sent, and its API keys are refused, until it is enabled again. Nothing is lost.", false},
		{"enable", "Enable a tenant", "Its campaigns go on where they were.", true},
	} {
		register(s, operation{
			id: to.verb + "Tenant", method: http.MethodPost, path: "/api/tenants/{id}/" + to.verb, summary: to.summary, scope: store.ScopeAdmin,
			errors: []int{404, 409, 412, 422}, tag: operatorTag, describe: to.describe,
		}, func(ctx context.Context, in *tenantEnableIn) (*tenantOut, error) {
			body := TenantInput{Enabled: problem.Optional[bool]{Set: true, Value: to.enabled}}
			return s.updateTenant(ctx, &tenantChangeIn{ID: in.ID, IfMatch: in.IfMatch, Body: problem.Body[TenantInput]{Value: body}})
		})
	}
	register(s, operation{
		id: "getCredit", method: http.MethodGet, path: "/api/tenants/{id}/credit", summary: "Get a tenant's credit", scope: store.ScopeAdmin, errors: []int{404}, tag: operatorTag,
	}, func(ctx context.Context, in *tenantIn) (*creditOut, error) {
		t, err := s.findTenant(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		v, err := s.viewTenant(ctx, t)
		if err != nil {
			return nil, err
		}
		return &creditOut{&Credit{v.ID, v.Name, v.Currency, v.Balance == nil, v.Balance, v.Reserved, v.Spent, v.Owed}}, nil
	})
	register(s, operation{
		id: "addCredit", method: http.MethodPost, path: "/api/tenants/{id}/credit", summary: "Add or withdraw a tenant's credit", scope: store.ScopeAdmin,
		errors: []int{400, 402, 404, 409, 422}, tag: operatorTag,
		describe: "A top-up first pays the tenant's debt; campaigns that were suspended for lack of credit (no_credit) are then resumed automatically. A negative amount withdraws " +
			"credit, at most the balance and the reserved money. Withdrawn money that unfinished campaigns had reserved becomes a debt, and these campaigns are suspended.",
	}, s.addCredit)
	s.registerKeys()
	s.registerUsers()
}

// findTenant finds a tenant by id or name.
func (s *server) findTenant(ctx context.Context, ref string) (*store.Tenant, error) {
	t, err := s.Store.Tenant(ctx, ref)
	if errors.Is(err, schemas.ErrNotFound) {
		t, err = s.Store.TenantByName(ctx, ref)
	}
	if errors.Is(err, schemas.ErrNotFound) {
		return nil, problem.New(problem.CodeNotFound, "There is no tenant %q.", problem.Truncate(ref, 60))
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &t, nil
}

func (s *server) viewTenant(ctx context.Context, t *store.Tenant) (*Tenant, error) {
	b, err := s.Store.Balance(ctx, t.ID)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	v := &Tenant{
		ID: t.ID, Name: t.Name, Enabled: t.Enabled, CampaignsEnabled: t.CampaignsEnabled, Region: t.Region, Timezone: t.Timezone, Currency: t.Currency,
		DefaultRoute: t.DefaultRoute, DefaultSender: t.DefaultSender, MaxActive: t.MaxActive, MaxContacts: t.MaxContacts, MaxSegments: t.MaxSegments,
		Rate: t.Rate, Weight: t.Weight, Reserved: Money(b.Reserved), Spent: Money(b.Captured), Owed: Money(b.Owed), CreatedAt: stamp(t.Created), UpdatedAt: stamp(t.Updated), Version: t.Version,
	}
	if !b.Unlimited {
		v.Balance = new(Money(b.Available))
	}
	return v, nil
}

func (s *server) answerTenant(ctx context.Context, t *store.Tenant) (*tenantOut, error) {
	v, err := s.viewTenant(ctx, t)
	if err != nil {
		return nil, err
	}
	return &tenantOut{ETag: etag(t.Version), Body: v}, nil
}

func (s *server) createTenant(ctx context.Context, in *tenantCreateIn) (*tenantOut, error) {
	body := &in.Body.Value
	if strings.TrimSpace(body.Name.Value) == "" {
		return nil, problem.Field(problem.CodeRequired, "name", "The name is empty.")
	}
	spec := store.TenantSpec{
		Name: body.Name.Value, Region: body.Region.Value, Timezone: body.Timezone.Value, Currency: body.Currency.Value, Route: body.DefaultRoute.Value,
	}
	if body.Credit.Set && !body.Credit.Null {
		if body.Credit.Value < 0 {
			return nil, problem.Field(problem.CodeInvalid, "credit", "The credit is negative.")
		}
		spec.Credit = new(uint64(body.Credit.Value))
	}
	if err := s.routeExists(ctx, body.DefaultRoute.Value); err != nil {
		return nil, err
	}
	t, err := s.Store.CreateTenant(ctx, spec)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	if t, err = s.Store.UpdateTenant(ctx, t.ID, t.Version, body.apply); err != nil {
		return nil, s.storeProblem(err)
	}
	out, err := s.answerTenant(ctx, &t)
	if err == nil {
		out.Location = "/api/tenants/" + t.ID
	}
	return out, err
}

// apply copies the fields that were given to a tenant; the store checks them.
func (in *TenantInput) apply(t *store.Tenant) error {
	set(&in.Name, &t.Name, nil)
	t.Name = strings.TrimSpace(t.Name)
	set(&in.Enabled, &t.Enabled, nil)
	set(&in.CampaignsEnabled, &t.CampaignsEnabled, nil)
	set(&in.Timezone, &t.Timezone, nil)
	if in.Region.Set {
		t.Region = strings.ToUpper(in.Region.Value)
	}
	set(&in.DefaultRoute, &t.DefaultRoute, nil)
	set(&in.MaxActive, &t.MaxActive, nil)
	set(&in.MaxContacts, &t.MaxContacts, nil)
	set(&in.MaxSegments, &t.MaxSegments, nil)
	set(&in.Rate, &t.Rate, nil)
	set(&in.Weight, &t.Weight, nil)
	if in.DefaultSender.Set {
		if fault := badSender(in.DefaultSender.Value, schemas.ChannelSMS); fault != "" {
			return problem.Field(problem.CodeInvalid, "defaultSender", "%s", fault)
		}
		t.DefaultSender = in.DefaultSender.Value
	}
	return nil
}

func (s *server) updateTenant(ctx context.Context, in *tenantChangeIn) (*tenantOut, error) {
	version, p := ifMatch(in.IfMatch)
	if p != nil {
		return nil, p
	}
	t, err := s.findTenant(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	body := &in.Body.Value
	if body.Credit.Set {
		return nil, problem.Field(problem.CodeReadOnly, "credit", "Money is added with POST /api/tenants/{id}/credit.")
	}
	if body.Currency.Set && !strings.EqualFold(body.Currency.Value, t.Currency) {
		return nil, problem.Field(problem.CodeReadOnly, "currency", "The currency of a tenant can't be changed: its ledger is kept in it.")
	}
	if err := s.routeExists(ctx, body.DefaultRoute.Value); err != nil {
		return nil, err
	}
	if body.Enabled.Set && !body.Enabled.Value && t.ID == requestOf(ctx).who.key.Tenant {
		return nil, problem.Field(problem.CodeInvalid, "enabled", "This key belongs to %s. The keys of a disabled tenant are refused, so it could not enable the tenant again.", t.Name).
			WithFix("Use a key of another tenant that has the scope admin.")
	}
	next, err := s.Store.UpdateTenant(ctx, t.ID, version, body.apply)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return s.answerTenant(ctx, &next)
}

// routeExists checks that a route exists; "" is allowed and names none.
func (s *server) routeExists(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	routes, err := s.Store.Routes(ctx)
	if err != nil {
		return s.storeProblem(err)
	}
	names := make([]string, len(routes))
	for i := range routes {
		names[i] = routes[i].Name
	}
	if slices.Contains(names, name) {
		return nil
	}
	return problem.Field(problem.CodeInvalid, "defaultRoute", "There is no route %q.", problem.Truncate(name, 60)).WithFix("Routes: %s.", strings.Join(names, ", "))
}

func (s *server) addCredit(ctx context.Context, in *creditIn) (*tenantOut, error) {
	body := &in.Body.Value
	t, err := s.findTenant(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	var ps problem.List
	checkText(&ps, "note", body.Note.Value, maxNote)
	if err := ps.Err(); err != nil {
		return nil, err
	}
	switch {
	case body.Unlimited.Value:
		err = s.Store.SetCredit(ctx, t.ID, 0, true)
	case !body.Amount.Set || body.Amount.Value == 0:
		return nil, problem.Field(problem.CodeInvalid, "amount", "The amount must not be 0.")
	case body.Amount.Value < 0:
		_, err = s.Store.Withdraw(ctx, t.ID, uint64(-body.Amount.Value), cmp.Or(body.Note.Value, "withdrawn"), s.cause(ctx))
	default:
		var b store.Balance
		if b, err = s.Store.Balance(ctx, t.ID); err == nil && b.Unlimited {
			err = s.Store.SetCredit(ctx, t.ID, uint64(body.Amount.Value), false)
		} else if err == nil {
			_, err = s.Store.TopUp(ctx, t.ID, uint64(body.Amount.Value), body.Note.Value)
		}
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return s.answerTenant(ctx, t)
}

// actFor returns the principal of an operator who acts for another tenant: it has that tenant, and the operator's own
// key and permissions.
func (a *authenticator) actFor(ctx context.Context, who *principal, ref string) (*principal, error) {
	if !who.key.Has(store.ScopeAdmin) {
		return nil, problem.New(problem.CodeScopeMissing, "Only a key with the scope %q can act for another tenant.", string(store.ScopeAdmin))
	}
	t, err := a.store.Tenant(ctx, ref)
	if errors.Is(err, schemas.ErrNotFound) {
		t, err = a.store.TenantByName(ctx, ref)
	}
	if errors.Is(err, schemas.ErrNotFound) {
		return nil, problem.Field(problem.CodeNotFound, tenantHeader, "There is no tenant %q.", problem.Truncate(ref, 60))
	}
	if err != nil {
		return nil, problem.Unavailable(2*time.Second, err, "The tenant could not be read.")
	}
	p, err := a.fill(ctx, who.key, t)
	if err != nil {
		return nil, problem.Unavailable(2*time.Second, err, "The tenant could not be read.")
	}
	p.quota = who.quota
	return p, nil
}
