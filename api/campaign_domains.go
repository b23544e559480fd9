package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// maxCampaignDomains is the most domains that a campaign names.
const maxCampaignDomains = 100

// CampaignDomain is a domain that a campaign may put links on.
type CampaignDomain struct {
	PoolDomain
	Named bool   `json:"named" doc:"True: the campaign names it. False: it is in the pool, which the campaign uses because it names no domain of the kind."`
	Used  uint64 `json:"used" doc:"Recipients of this campaign that have it."`
}

// CampaignDomains is the domains of a campaign.
type CampaignDomains struct {
	Data  []CampaignDomain `json:"data" nullable:"false" doc:"The domains, by host: those that it may use, and those that its recipients have."`
	Kinds []string         `json:"kinds" nullable:"false" enum:"short,opt_out" doc:"The kinds that its links need, from confirm on; empty: it has no links, or they are on the address of the installation."`
	Spent []string         `json:"spent" nullable:"false" enum:"short,opt_out" doc:"Those of kinds of which no domain has room. While there is one, the campaign cannot be sent on: add a domain, raise a limit, or wait until 00:00 UTC."`
}

// CampaignDomainInput adds domains to a campaign.
type CampaignDomainInput struct {
	Domains problem.Optional[[]string] `json:"domains,omitzero" doc:"Ids or hosts of domains that exist. Either domains or host."`
	DomainInput
}

type (
	campaignDomainsIn struct {
		ID string `path:"id" doc:"Id of the campaign." example:"camp_12345"`
	}
	campaignDomainsOut   struct{ Body *CampaignDomains }
	addCampaignDomainsIn struct {
		ID      string `path:"id" doc:"Id of the campaign." example:"camp_12345"`
		IfMatch string `header:"If-Match"`
		Body    problem.Body[CampaignDomainInput]
	}
)

func (s *server) registerCampaignDomains() {
	register(s, operation{
		id: "listCampaignDomains", method: http.MethodGet, path: "/api/campaigns/{id}/domains", summary: "The domains of a campaign's links", scope: store.ScopeRead, errors: []int{404}, tag: domainTag,
		describe: "With how many of its recipients have each, and what is left of the limits.",
	}, func(ctx context.Context, in *campaignDomainsIn) (*campaignDomainsOut, error) {
		c, err := s.campaign(ctx, requestOf(ctx).who, in.ID)
		if err != nil {
			return nil, err
		}
		return s.viewCampaignDomains(ctx, c)
	})
	register(s, operation{
		id: "addCampaignDomain", method: http.MethodPost, path: "/api/campaigns/{id}/domains", summary: "Add domains to a campaign, also while it is sent", scope: store.ScopeCampaigns,
		errors: []int{400, 404, 409, 412, 422}, testKeys: testKeysConfined, tag: domainTag,
		describe: "Either domains that exist, or host with its kind and limits: the domain is created for the tenant first, unless the tenant may use one of that host already. A campaign that names no domain of the kind uses all that the tenant may use, the new one too, and stays so. A campaign that is suspended as no_domains is resumed if a domain has room for it then.",
	}, s.addCampaignDomains)
}

func (s *server) viewCampaignDomains(ctx context.Context, c *store.Campaign) (*campaignDomainsOut, error) {
	pool, err := s.Store.Domains(ctx, c.Tenant)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	use, err := s.Store.DomainUse(ctx, c.Tenant, c.Number)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	out := &CampaignDomains{Data: []CampaignDomain{}, Kinds: orEmpty(store.DomainKinds(c)), Spent: orEmpty(store.SpentDomains(c, pool))}
	for i := range pool {
		d := &pool[i]
		needed := len(out.Kinds) == 0 || slices.Contains(out.Kinds, d.Kind)
		may := slices.ContainsFunc(store.CandidateDomains(c, d.Kind, pool), func(o store.Domain) bool { return o.Number == d.Number })
		if may && needed || use[d.Number] > 0 {
			out.Data = append(out.Data, CampaignDomain{PoolDomain: viewPoolDomain(d), Named: slices.Contains(c.Domains, d.Number), Used: use[d.Number]})
		}
	}
	return &campaignDomainsOut{out}, nil
}

// addCampaignDomains adds domains to a campaign that may still be sent, whatever its state.
func (s *server) addCampaignDomains(ctx context.Context, in *addCampaignDomainsIn) (*campaignDomainsOut, error) {
	at, err := s.loadCampaign(ctx, in.ID, in.IfMatch, "")
	if err != nil {
		return nil, err
	}
	c := at.campaign
	if err := testKeyMay(at.who, c); err != nil {
		return nil, err
	}
	if !schemas.Active(c.State) && !schemas.Editable(c.State) && c.State != schemas.StateReady && c.State != schemas.StateScheduled {
		return nil, notPossible(c, "adding a domain")
	}
	body := &in.Body.Value
	refs := body.Domains.Value
	if body.Host.Set {
		if len(refs) > 0 {
			return nil, problem.Field(problem.CodeInvalid, "domains", "Either domains or host can be given.")
		}
		ref, err := s.quickDomain(ctx, c, &body.DomainInput)
		if err != nil {
			return nil, err
		}
		refs = []string{ref}
	}
	if len(refs) == 0 {
		return nil, problem.Field(problem.CodeRequired, "domains", "The domains are missing.").WithFix("Send domains, an array of ids or hosts, or host to create one.")
	}
	pool, err := s.Store.Domains(ctx, c.Tenant)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	added, p := findDomains(pool, refs)
	if p != nil {
		return nil, p
	}
	for _, d := range added {
		if p := fitsTexts(c, d); p != nil {
			return nil, p
		}
	}
	next := withDomains(c, pool, added)
	if len(next) > maxCampaignDomains {
		return nil, problem.Field(problem.CodeInvalid, "domains", "The campaign would name %d domains; at most %d are possible.", len(next), maxCampaignDomains).
			WithFix("A campaign that names none uses all domains of the tenant.")
	}
	if len(next) > len(c.Domains) {
		if _, err := s.change(ctx, c, at.version, func(c *store.Campaign) (schemas.Trigger, error) {
			c.Domains = withDomains(c, pool, added)
			return "", nil
		}); err != nil {
			return nil, err
		}
	}
	if err := s.resumeForDomains(ctx); err != nil {
		return nil, s.storeProblem(err)
	}
	if c, err = s.campaign(ctx, at.who, in.ID); err != nil {
		return nil, err
	}
	return s.viewCampaignDomains(ctx, c)
}

// quickDomain returns the reference of a domain with a host, which it creates for the tenant if the tenant may use none
// of that host.
func (s *server) quickDomain(ctx context.Context, c *store.Campaign, in *DomainInput) (string, error) {
	host, p := domainHost(in.Host.Value)
	if p != nil {
		return "", p
	}
	pool, err := s.Store.Domains(ctx, c.Tenant)
	if err != nil {
		return "", s.storeProblem(err)
	}
	if slices.ContainsFunc(pool, func(d store.Domain) bool { return d.Host == host }) {
		return host, nil
	}
	if requestOf(ctx).who.key.Test {
		return "", problem.New(problem.CodeTestKey, "A test key creates no domains.").WithFix("Name domains that exist.")
	}
	if p := fitsTexts(c, &store.Domain{Host: host}); p != nil {
		return "", p
	}
	if _, err := s.domains().create(ctx, s, in); err != nil {
		return "", err
	}
	return host, nil
}

// findDomains returns the domains that ids or hosts name.
func findDomains(pool []store.Domain, refs []string) ([]*store.Domain, *problem.Problem) {
	var out []*store.Domain
	for _, ref := range refs {
		i := slices.IndexFunc(pool, func(d store.Domain) bool { return d.ID() == ref || strings.EqualFold(d.Host, ref) })
		if i < 0 {
			names := make([]string, len(pool))
			for j := range pool {
				names[j] = pool[j].Host
			}
			p := problem.Field(problem.CodeInvalid, "domains", "There is no domain %q.", problem.Truncate(ref, 60))
			if near := problem.Nearest(ref, names, 3); len(near) > 0 {
				return nil, p.WithFix("Did you mean %s?", strings.Join(near, " or "))
			}
			return nil, p.WithFix("List those that may be used with GET /api/domains/pool, or create one with POST /api/domains.")
		}
		out = append(out, &pool[i])
	}
	return out, nil
}

// fitsTexts returns a problem if the texts of a confirmed campaign were measured with shorter addresses.
func fitsTexts(c *store.Campaign, d *store.Domain) *problem.Problem {
	most := len(c.LinkBase) - len(schemas.DomainBase(""))
	if c.LinkTable == nil || len(d.Host) <= most {
		return nil
	}
	return problem.Field(problem.CodeInvalid, "domains", "%s has %d characters, and the price of this campaign was computed with links on hosts of at most %d.", d.Host, len(d.Host), most).
		WithFix("Add a domain whose host is not longer.")
}

// withDomains returns the domains that a campaign names once others are added. A kind of which it names none it takes
// from the pool, with the added ones; so they are not named.
func withDomains(c *store.Campaign, pool []store.Domain, added []*store.Domain) []uint64 {
	out := slices.Clone(c.Domains)
	for _, d := range added {
		names := slices.ContainsFunc(pool, func(o store.Domain) bool { return o.Kind == d.Kind && slices.Contains(c.Domains, o.Number) })
		if names && !slices.Contains(out, d.Number) {
			out = append(out, d.Number)
		}
	}
	return out
}

// loadPool reads the domains that the input may name, before the transaction in which it is applied.
func (s *server) loadPool(ctx context.Context, who *principal, in *CampaignInput) error {
	if !in.Domains.Set {
		return nil
	}
	var err error
	in.pool, err = s.Store.Domains(ctx, who.tenant.ID)
	return s.storeProblem(err)
}

// applyDomains reads the domains that a campaign names.
func (in *CampaignInput) applyDomains(spec *store.Spec) *problem.Problem {
	if !in.Domains.Set {
		return nil
	}
	spec.Domains = nil
	if len(in.Domains.Value) > maxCampaignDomains {
		return problem.Field(problem.CodeInvalid, "domains", "%d domains are named; at most %d are possible.", len(in.Domains.Value), maxCampaignDomains).
			WithFix("A campaign that names none uses all domains of the tenant.")
	}
	found, p := findDomains(in.pool, in.Domains.Value)
	if p != nil {
		return p
	}
	for _, d := range found {
		if !slices.Contains(spec.Domains, d.Number) {
			spec.Domains = append(spec.Domains, d.Number)
		}
	}
	return nil
}

// spentSentence says which domains are missing, and what to do.
func spentSentence(c *store.Campaign, spent []string) string {
	words := map[string]string{schemas.DomainShort: "links", schemas.DomainOptOut: "the opt-out link"}
	var of []string
	for _, kind := range spent {
		of = append(of, words[kind])
	}
	return fmt.Sprintf("No usable domain for %s has room. Add one with POST /api/campaigns/%s/domains, raise the limit of one, or wait until 00:00 UTC if a daily limit is reached: the campaign is resumed by itself.", strings.Join(of, " and for "), c.ID())
}
