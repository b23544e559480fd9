package ui

import (
	"context"
	"net/http"
	"net/url"
	"slices"

	"github.com/go-chi/chi/v5"
)

// domainsScreen describes the screen of the domains of a tenant, or of those that the operator shares with all tenants.
func domainsScreen(key, api, section, scope string) *resourceScreen {
	read := "read"
	if scope == "admin" {
		read = scope
	}
	return &resourceScreen{
		Key: key, API: api, Section: section, Read: read, Write: scope, Drop: "resource.delete",
		Columns: []column{
			{"host", ""},
			{"kind", "domain-kind"},
			{"status", "status"},
			{"health", "domain-health"},
			{"weight", "count"},
			{"dailyLimit", "limit"},
			{"usedToday", "count"},
			{"totalLimit", "limit"},
			{"usedTotal", "count"},
			{"checkedAt", "time"},
		},
		Fields: []field{
			{Name: "host", Required: true, New: true},
			{Name: "kind", As: "select", Options: domainKinds, New: true},
			{Name: "status", As: "select", Options: []string{"active", "paused"}},
			{Name: "weight", As: "number", Default: "1"},
			{Name: "dailyLimit", As: "number", Default: "0"},
			{Name: "totalLimit", As: "number", Default: "0"},
		},
	}
}

// domainKinds are the kinds of domains.
var domainKinds = []string{"short", "opt_out"}

// panelDomains is the tab Domains of a campaign (R137).
type panelDomains struct {
	Data  []campaignDomain `json:"data"`
	Kinds []string         `json:"kinds"`
	Spent []string         `json:"spent"`
	// Pool has the other domains of the tenant, which the form offers.
	Pool []campaignDomain `json:"-"`
	// Form is what was typed into the form that adds a domain.
	Form domainForm `json:"-"`
}

// campaignDomain has the fields of a domain that the tab shows.
type campaignDomain struct {
	Host         string  `json:"host"`
	Kind         string  `json:"kind"`
	Shared       bool    `json:"shared"`
	Status       string  `json:"status"`
	Health       string  `json:"health"`
	HealthReason *string `json:"healthReason"`
	Weight       int     `json:"weight"`
	DailyLimit   uint64  `json:"dailyLimit"`
	TotalLimit   uint64  `json:"totalLimit"`
	Room         *uint64 `json:"room"`
	Usable       bool    `json:"usable"`
	Named        bool    `json:"named"`
	Used         uint64  `json:"used"`
}

// Full reports whether the domain is not usable because its limits have no room.
func (d *campaignDomain) Full() bool { return d.Room != nil && *d.Room == 0 }

// domainForm has the fields of the form that adds a domain.
type domainForm struct{ Host, Kind, Daily, Total string }

// Open reports whether domains can still be added to the campaign.
func (c *campaignDetail) Open() bool {
	return c.DeletedAt == nil && (c.Active() || slices.Contains([]string{"draft", "configured", "cost_calculated"}, c.State))
}

func (u *UI) loadDomains(ctx context.Context, p *Person, v *panel) error {
	v.Domains = &panelDomains{}
	if err := u.get(ctx, p, apiCampaign(v.ID)+"/domains", nil, v.Domains); err != nil {
		return err
	}
	if !v.Open() || !p.Can("campaigns") {
		return nil
	}
	var pool struct {
		Data []campaignDomain `json:"data"`
	}
	err := u.get(ctx, p, "/api/domains/pool", nil, &pool)
	v.Domains.Pool = slices.DeleteFunc(pool.Data, func(d campaignDomain) bool {
		return slices.ContainsFunc(v.Domains.Data, func(of campaignDomain) bool { return of.Host == d.Host })
	})
	return err
}

// addDomain adds a domain to a campaign, also while it is sent. A host that is new to the tenant becomes a domain of
// the tenant.
func (u *UI) addDomain(w http.ResponseWriter, r *http.Request) {
	id, p := chi.URLParam(r, "id"), personOf(r.Context())
	if !parseForm(w, r) {
		return
	}
	f := domainForm{Host: r.PostForm.Get("host"), Kind: r.PostForm.Get("kind"), Daily: r.PostForm.Get("dailyLimit"), Total: r.PostForm.Get("totalLimit")}
	in := map[string]any{"host": f.Host, "kind": f.Kind}
	for name, typed := range map[string]string{"dailyLimit": f.Daily, "totalLimit": f.Total} {
		if v := number(typed); v != nil {
			in[name] = v
		}
	}
	err := u.call(r.Context(), p, http.MethodPost, apiCampaign(id)+"/domains", in, nil)
	if err == nil {
		u.done(w, r, "/campaigns/"+url.PathEscape(id)+"?tab=domains", mustSay("done.domain", f.Host))
		return
	}
	problem, ok := asProblem(err)
	if !ok {
		u.fail(w, r, err)
		return
	}
	v, err := u.loadPanel(r.Context(), p, id, "domains")
	if err != nil {
		u.fail(w, r, err)
		return
	}
	v.Domains.Form, v.Errors = f, problem.Fields()
	u.showPanel(w, r, problem.Status, v)
}
