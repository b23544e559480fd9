package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"fanfare/api/domaincheck"
	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// Domains of links (R39, R40, R137): a tenant's own domains, and the domains that the operator shares with all tenants.
// api/store/domains.go says how recipients get their domains, and how limits hold.

const domainTag = "Domains"

// Limits of a domain.
const (
	// maxHost is the longest host: a host takes room in the text.
	maxHost = 100
	// maxMessages is the highest limit of messages.
	maxMessages = 1_000_000_000
)

// Domain is a host whose links are in messages.
type Domain struct {
	ID             string  `json:"id" example:"domain_10001" doc:"Given by the installation; it never changes."`
	Host           string  `json:"host" doc:"The host of the links." example:"go.example.com"`
	Kind           string  `json:"kind" enum:"short,opt_out" doc:"short: for links in texts. opt_out: for the opt-out link."`
	Shared         bool    `json:"shared" doc:"True: it belongs to the installation, and all tenants may use it."`
	Status         string  `json:"status" enum:"active,paused" doc:"A paused domain gets no further recipients; its links still work."`
	Weight         uint32  `json:"weight" minimum:"1" maximum:"100" doc:"Its share of the recipients, relative to the other domains."`
	DailyLimit     uint64  `json:"dailyLimit" doc:"Most messages per day, which begins at 00:00 UTC; 0: no limit."`
	TotalLimit     uint64  `json:"totalLimit" doc:"Most messages in all; 0: no limit."`
	UsedToday      uint64  `json:"usedToday" doc:"Messages that count against dailyLimit: each recipient of a campaign is counted once, when it gets the domain."`
	UsedTotal      uint64  `json:"usedTotal" doc:"Messages that count against totalLimit."`
	Room           *uint64 `json:"room" doc:"Messages that the limits have room for now; null: there is no limit."`
	Usable         bool    `json:"usable" doc:"True: campaigns put links on it now. It is active and healthy, and its limits have room."`
	Health         string  `json:"health" enum:"unchecked,ok,unresolved,certificate,blocked" doc:"What the last check found. unresolved: the name does not resolve, or nothing answers there. certificate: no valid certificate. blocked: on a list of blocked names. Only ok and unchecked domains get recipients."`
	HealthReason   *string `json:"healthReason" doc:"What is wrong and what to do; null when nothing is."`
	CheckedAt      *string `json:"checkedAt" format:"date-time" doc:"When it was last checked; null: not yet."`
	CertificateEnd *string `json:"certificateEnd" format:"date-time" doc:"When its certificate expires; null: not known."`
	CreatedBy      string  `json:"createdBy" doc:"Id of the person or API key that created it."`
	CreatedAt      string  `json:"createdAt" format:"date-time" doc:"When it was created."`
	UpdatedAt      string  `json:"updatedAt" format:"date-time" doc:"When it was last changed."`
	DeletedAt      *string `json:"deletedAt" format:"date-time" doc:"When it was deleted; null: not deleted."`
	Version        uint64  `json:"version" doc:"Rises with every change. As the ETag it is the value of If-Match."`
}

// DomainInput creates or changes a domain.
type DomainInput struct {
	Host       problem.Optional[string] `json:"host,omitzero" doc:"A host without https://, port or path, at most 100 characters, in its xn-- form if it is in another script. It cannot be changed later." example:"go.example.com"`
	Kind       problem.Optional[string] `json:"kind,omitzero" doc:"short (the default) or opt_out. It cannot be changed later."`
	Status     problem.Optional[string] `json:"status,omitzero" doc:"active (the default) or paused."`
	Weight     problem.Optional[uint32] `json:"weight,omitzero" doc:"1 to 100; 1 by default."`
	DailyLimit problem.Optional[uint64] `json:"dailyLimit,omitzero" doc:"Most messages per UTC day, up to 1,000,000,000; 0 (the default) or null: no limit."`
	TotalLimit problem.Optional[uint64] `json:"totalLimit,omitzero" doc:"Most messages in all, up to 1,000,000,000; 0 (the default) or null: no limit."`
}

// domains returns the resource of a tenant's own domains.
func (s *server) domains() *resource[DomainInput, store.DomainDoc, Domain] {
	return &resource[DomainInput, store.DomainDoc, Domain]{
		kind: store.KindDomain, path: "/api/domains", one: "domain", many: "domains", tag: domainTag, write: store.ScopeCampaigns,
		apply: func(_ context.Context, _ *principal, in *DomainInput, row *store.Resource, d *store.DomainDoc) error {
			return in.apply(row, d)
		},
		view: viewDomain,
		fill: s.fillDomains,
		used: s.domainUsed,
		written: func(ctx context.Context, _ *store.Resource) error {
			s.wakeDomains()
			return s.resumeForDomains(ctx)
		},
	}
}

// sharedDomains returns the resource of the domains of the installation.
func (s *server) sharedDomains() *resource[DomainInput, store.DomainDoc, Domain] {
	r := s.domains()
	r.path, r.alias, r.many, r.installation, r.write = "/api/shared-domains", "SharedDomain", "the domains that all tenants share", true, store.ScopeAdmin
	return r
}

func (s *server) registerDomains() {
	registerResource(s, s.domains())
	registerResource(s, s.sharedDomains())
	register(s, operation{
		id: "listDomainPool", method: http.MethodGet, path: "/api/domains/pool", summary: "The domains that campaigns may use: the tenant's own and the shared ones", scope: store.ScopeRead, tag: domainTag,
		describe: "By host, with what is left of their limits. A campaign that names no domain of a kind uses all of these of the kind.",
	}, func(ctx context.Context, _ *struct{}) (*domainPoolOut, error) {
		pool, err := s.Store.Domains(ctx, requestOf(ctx).who.tenant.ID)
		if err != nil {
			return nil, s.storeProblem(err)
		}
		out := &DomainPool{Data: []PoolDomain{}}
		for i := range pool {
			out.Data = append(out.Data, viewPoolDomain(&pool[i]))
		}
		return &domainPoolOut{out}, nil
	})
	s.registerCampaignDomains()
}

type domainPoolOut struct{ Body *DomainPool }

// DomainPool lists the domains that a tenant may use.
type DomainPool struct {
	Data []PoolDomain `json:"data" nullable:"false" doc:"The domains, by host."`
}

// PoolDomain is a domain as a campaign sees it.
type PoolDomain struct {
	ID           string  `json:"id" example:"domain_10001" doc:"Id of the domain."`
	Host         string  `json:"host" doc:"The host of the links." example:"go.example.com"`
	Kind         string  `json:"kind" enum:"short,opt_out" doc:"short: for links in texts. opt_out: for the opt-out link."`
	Shared       bool    `json:"shared" doc:"True: it belongs to the installation, and all tenants may use it."`
	Status       string  `json:"status" enum:"active,paused" doc:"A paused domain gets no further recipients; its links still work."`
	Health       string  `json:"health" enum:"unchecked,ok,unresolved,certificate,blocked" doc:"What the last check found. Only ok and unchecked domains get recipients."`
	HealthReason *string `json:"healthReason" doc:"What is wrong and what to do; null when nothing is."`
	Weight       uint32  `json:"weight" doc:"Its share of the recipients, relative to the other domains."`
	DailyLimit   uint64  `json:"dailyLimit" doc:"Most messages per day, which begins at 00:00 UTC; 0: no limit."`
	TotalLimit   uint64  `json:"totalLimit" doc:"Most messages in all; 0: no limit."`
	Room         *uint64 `json:"room" doc:"Messages that the limits have room for now; null: there is no limit."`
	Usable       bool    `json:"usable" doc:"True: campaigns put links on it now. It is active and healthy, and its limits have room."`
}

func viewPoolDomain(d *store.Domain) PoolDomain {
	return PoolDomain{
		ID: d.ID(), Host: d.Host, Kind: d.Kind, Shared: d.Tenant == "", Status: d.Status, Health: d.Health, HealthReason: orNull(d.Reason), Weight: d.Weight,
		DailyLimit: d.Daily, TotalLimit: d.Total, Room: roomOf(d), Usable: d.Usable() && d.Room() > 0,
	}
}

// roomOf returns how many messages a domain may still carry; nil if it has no limits.
func roomOf(d *store.Domain) *uint64 {
	if d.Daily == 0 && d.Total == 0 {
		return nil
	}
	return new(d.Room())
}

func viewDomain(row *store.Resource, d *store.DomainDoc) *Domain {
	return &Domain{
		ID: row.ID(), Host: row.Name, Kind: d.Kind, Shared: row.Tenant == "", Status: row.Status, Weight: d.Weight, DailyLimit: d.Daily, TotalLimit: d.Total, Health: store.DomainUnchecked,
		CreatedBy: row.CreatedBy, CreatedAt: stamp(row.Created), UpdatedAt: stamp(row.Updated), DeletedAt: stampOrNull(row.Deleted), Version: row.Version,
	}
}

// fillDomains adds the counts and the results of the last check to domains.
func (s *server) fillDomains(ctx context.Context, views ...*Domain) error {
	if len(views) == 0 {
		return nil
	}
	pool, err := s.Store.Domains(ctx, requestOf(ctx).who.tenant.ID)
	if err != nil {
		return err
	}
	for _, v := range views {
		i := slices.IndexFunc(pool, func(d store.Domain) bool { return d.ID() == v.ID })
		if i < 0 {
			continue // the domain was deleted
		}
		d := &pool[i]
		v.UsedToday, v.UsedTotal, v.Room, v.Usable = d.Today, d.Used, roomOf(d), d.Usable() && d.Room() > 0
		v.Health, v.HealthReason, v.CheckedAt, v.CertificateEnd = d.Health, orNull(d.Reason), stampOrNull(d.Checked), stampOrNull(d.Certificate)
	}
	return nil
}

// domainUsed returns why a domain must not be deleted: some messages have links on it that recipients may still open.
func (s *server) domainUsed(ctx context.Context, _ *principal, row *store.Resource) (string, error) {
	n, err := s.Store.DomainUses(ctx, row.Number, s.Now().Add(-linksValid))
	if err != nil || n == 0 {
		return "", err
	}
	return fmt.Sprintf("Messages of %d campaigns have links on %s that may still be opened: a domain can be deleted %d days after the end of the last one. Pause it meanwhile.", n, row.Name, int(linksValid.Hours()/24)), nil
}

// apply copies the input to the row.
func (in *DomainInput) apply(row *store.Resource, d *store.DomainDoc) error {
	var ps problem.List
	if row.Version == 0 {
		host, p := domainHost(in.Host.Value)
		if p != nil {
			ps = append(ps, p)
		}
		row.Name, row.Status, d.Weight, d.Kind = host, store.DomainActive, 1, schemas.DomainShort
		set(&in.Kind, &d.Kind, func(v string) { allowedWord(&ps, "kind", v, schemas.DomainShort, schemas.DomainOptOut) })
		d.Kind = cmp.Or(d.Kind, schemas.DomainShort)
	} else {
		if in.Host.Set && !strings.EqualFold(in.Host.Value, row.Name) {
			ps.Add(problem.CodeReadOnly, "host", "The host of a domain cannot be changed: create another one.")
		}
		if in.Kind.Set && in.Kind.Value != d.Kind {
			ps.Add(problem.CodeReadOnly, "kind", "The kind of a domain cannot be changed: create another one.")
		}
	}
	if in.Status.Set {
		row.Status = cmp.Or(in.Status.Value, store.DomainActive)
		allowedWord(&ps, "status", row.Status, store.DomainActive, store.DomainPaused)
	}
	if in.Weight.Set {
		d.Weight = 1
		if !in.Weight.Null {
			d.Weight = in.Weight.Value
			checkWeight(&ps, int(d.Weight))
		}
	}
	limit := func(field string) func(uint64) {
		return func(v uint64) {
			if v > maxMessages {
				ps.Add(problem.CodeInvalid, field, "%d is more than %d: want 0 for no limit, or less.", v, maxMessages)
			}
		}
	}
	set(&in.DailyLimit, &d.Daily, limit("dailyLimit"))
	set(&in.TotalLimit, &d.Total, limit("totalLimit"))
	return ps.Err()
}

// domainHost returns a host in lower case, or what is wrong with it.
func domainHost(given string) (string, *problem.Problem) {
	host := strings.TrimSuffix(strings.ToLower(strings.TrimSpace(given)), ".")
	wrong := func(format string, args ...any) (string, *problem.Problem) {
		return "", problem.Field(problem.CodeInvalid, "host", format, args...).WithFix("Send a host alone, such as go.example.com.")
	}
	_, noIP := netip.ParseAddr(host)
	switch {
	case host == "":
		return "", problem.Field(problem.CodeRequired, "host", "The host is missing.").WithFix("Send a host, such as go.example.com.")
	case strings.ContainsAny(host, ":/?#@ "):
		return wrong("%q has more than a host: no https://, port or path.", problem.Truncate(given, 60))
	case len(host) > maxHost:
		return wrong("The host has %d characters; at most %d are possible, because each message contains it.", len(host), maxHost)
	case noIP == nil:
		return wrong("%s is an address, not a name: certificates are made for names.", host)
	case !strings.Contains(host, "."):
		return wrong("%q has no dot.", host)
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return wrong("%q is not the name of a host: want parts of 1 to 63 letters a to z, digits and hyphens. A name in another script has an xn-- form.", problem.Truncate(given, 60))
		}
	}
	return host, nil
}

// errNotWaiting is returned by a mutation if the campaign has changed its state meanwhile.
var errNotWaiting = errors.New("the campaign does not wait for a domain")

// resumeForDomains resumes the campaigns that were suspended for lack of a usable domain and have one now.
func (s *server) resumeForDomains(ctx context.Context) error {
	waiting, err := s.Store.CampaignsWithoutDomains(ctx)
	if err != nil {
		return err
	}
	still := 0
	defer func() { s.metrics.withoutDomains.Set(float64(still)) }()
	for i := range waiting {
		c := &waiting[i]
		pool, err := s.Store.Domains(ctx, c.Tenant)
		if err != nil {
			return err
		}
		if len(store.SpentDomains(c, pool)) > 0 {
			still++
			continue
		}
		cause := store.Cause{Actor: schemas.ActorGuard, By: "domains", RequestID: requestOf(ctx).id, Reason: "a domain has room again"}
		_, err = s.Store.UpdateCampaign(ctx, c.Tenant, c.ID(), 0, cause, func(c *store.Campaign) (schemas.Trigger, error) {
			if c.State != schemas.StateSuspended || c.Reason != schemas.ReasonNoDomains {
				return "", errNotWaiting
			}
			c.State, c.Reason = pick(c.Started.IsZero(), schemas.StatePreparing, schemas.StateSending), ""
			return schemas.TriggerResume, nil
		})
		switch {
		case errors.Is(err, errNotWaiting), errors.Is(err, store.ErrNoCredit), errors.Is(err, schemas.ErrConflict):
			// The campaign has been changed meanwhile, or the tenant has no credit and must top up first. The next
			// round tries again.
		case err != nil:
			return fmt.Errorf("campaign %s: %w", c.ID(), err)
		default:
			s.Logger.InfoContext(ctx, "campaign resumed: a domain has room again", "campaign", c.ID(), "tenant", c.Tenant)
		}
	}
	return nil
}

// DomainChecks says how domains are checked.
type DomainChecks struct {
	// Checker checks the domains. Without one, all domains stay unchecked.
	Checker *domaincheck.Checker
	// Every is the interval between two checks of a domain; default 10 minutes.
	Every time.Duration
}

// resumeEvery is how often the API looks for campaigns that wait for a domain: a new day may have reset a daily limit,
// or another process may have added a domain.
const resumeEvery = 15 * time.Second

// domainsAtOnce is how many domains are checked at the same time.
const domainsAtOnce = 8

// watchDomains checks domains, and resumes campaigns that wait for one, until ctx ends. The two jobs run independently,
// because checking many domains that do not answer takes long.
func (s *server) watchDomains(ctx context.Context) error {
	var both sync.WaitGroup
	both.Go(func() { s.watch(ctx, s.domainsChanged[0], "domains not checked", s.checkDomains) })
	both.Go(func() { s.watch(ctx, s.domainsChanged[1], "campaigns without domains not resumed", s.resumeForDomains) })
	both.Wait()
	return nil
}

// watch calls do at once, every resumeEvery and when it is woken, until ctx ends.
func (s *server) watch(ctx context.Context, woken <-chan struct{}, failed string, do func(ctx context.Context) error) {
	tick := time.NewTicker(resumeEvery)
	defer tick.Stop()
	for {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			s.Logger.WarnContext(ctx, failed, "err", err) //nolint:sloglint // one of two constants of watchDomains
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-woken:
		}
	}
}

// wakeDomains makes [server.watchDomains] start a round now.
func (s *server) wakeDomains() {
	for _, c := range s.domainsChanged {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// checkDomains checks the domains whose check is due.
func (s *server) checkDomains(ctx context.Context) error {
	all, err := s.Store.AllDomains(ctx)
	if err != nil {
		return err
	}
	counts := map[string]float64{store.DomainUnchecked: 0, store.DomainOK: 0, store.DomainUnresolved: 0, store.DomainCertificate: 0, store.DomainBlocked: 0}
	due := all[:0:0]
	every := cmp.Or(s.DomainChecks.Every, 10*time.Minute)
	for _, d := range all {
		counts[d.Health]++
		if s.DomainChecks.Checker != nil && !d.Checked.After(s.Now().Add(-every)) {
			due = append(due, d)
		}
	}
	for health, n := range counts {
		s.metrics.domains.WithLabelValues(health).Set(n)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(domainsAtOnce)
	for _, d := range due {
		group.Go(func() error { return s.checkDomain(ctx, d) })
	}
	return group.Wait()
}

// checkDomain checks one domain and writes the result.
func (s *server) checkDomain(ctx context.Context, d store.Domain) error {
	found, err := s.DomainChecks.Checker.Check(ctx, d.Host)
	if err != nil {
		return err
	}
	if found.Health == "" {
		s.Logger.WarnContext(ctx, "domain not checked: the resolver does not answer", "domain", d.ID(), "host", d.Host)
		found.Health, found.Reason, found.Certificate = d.Health, d.Reason, d.Certificate
	}
	if found.Health != d.Health {
		s.Logger.InfoContext(ctx, "health of a domain changed", "domain", d.ID(), "host", d.Host, "health", found.Health, "before", d.Health)
	}
	d.Health, d.Reason, d.Certificate = found.Health, found.Reason, found.Certificate
	return s.Store.DomainChecked(ctx, &d)
}
