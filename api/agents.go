package api

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// Agent is an RCS agent: the sender of a brand's RCS messages (R18).
type Agent struct {
	ID          string  `json:"id" doc:"Names it in paths and in campaigns." example:"agent_10001"`
	Name        string  `json:"name" doc:"Unique among the tenant's agents."`
	ProviderID  string  `json:"providerId" doc:"Id of the agent at the provider." example:"acme_retail_x7z_agent"`
	Brand       string  `json:"brand" doc:"Shown to recipients."`
	Description string  `json:"description" doc:"What the brand says about itself; empty when nothing was given."`
	LogoURL     string  `json:"logoUrl" doc:"https address of the brand's logo; empty when none was given."`
	Region      string  `json:"region" enum:"europe,us,asia" doc:"Where the provider serves the agent."`
	TrafficType string  `json:"trafficType" enum:"promotion,transaction,authentication,servicerequest" doc:"The use for which the provider has approved the agent."`
	Route       *string `json:"route" doc:"Route of the agent's messages; null: the tenant's route for RCS."`
	Status      string  `json:"status" enum:"draft,launched,suspended" doc:"Only a launched agent sends."`
	CreatedBy   string  `json:"createdBy"`
	CreatedAt   string  `json:"createdAt" format:"date-time"`
	UpdatedAt   string  `json:"updatedAt" format:"date-time"`
	DeletedAt   *string `json:"deletedAt" format:"date-time"`
	Version     uint64  `json:"version"`
}

// AgentInput creates or changes an agent.
type AgentInput struct {
	Name        problem.Optional[string] `json:"name,omitzero" doc:"Unique among the tenant's agents."`
	ProviderID  problem.Optional[string] `json:"providerId,omitzero" doc:"Id of the agent at the provider: up to 128 letters, digits and _ . @ -. Null: none."`
	Brand       problem.Optional[string] `json:"brand,omitzero" doc:"Default: the name."`
	Description problem.Optional[string] `json:"description,omitzero" doc:"What the brand says about itself. Null: empty."`
	LogoURL     problem.Optional[string] `json:"logoUrl,omitzero" doc:"https address of the brand's logo. Null: none."`
	Region      problem.Optional[string] `json:"region,omitzero" doc:"europe, us or asia; europe by default."`
	TrafficType problem.Optional[string] `json:"trafficType,omitzero" doc:"promotion, transaction, authentication or servicerequest; promotion by default."`
	Route       problem.Optional[string] `json:"route,omitzero" doc:"Route of the agent's messages; it must carry rcs. Null or empty: the tenant's route for RCS."`
	Status      problem.Optional[string] `json:"status,omitzero" doc:"draft, launched or suspended; launched by default."`
}

type agentDoc struct {
	ProviderID, Brand, Description, LogoURL, Region, TrafficType, Route string
}

func (s *server) agents() *resource[AgentInput, agentDoc, Agent] {
	return &resource[AgentInput, agentDoc, Agent]{
		kind: store.KindAgent, path: "/api/agents", one: "agent", many: "agents", tag: templateTag, write: store.ScopeCampaigns,
		apply: s.applyAgent,
		view: func(row *store.Resource, d *agentDoc) *Agent {
			return &Agent{
				ID: row.ID(), Name: row.Name, ProviderID: d.ProviderID, Brand: d.Brand, Description: d.Description, LogoURL: d.LogoURL, Region: d.Region,
				TrafficType: d.TrafficType, Route: orNull(d.Route), Status: row.Status, CreatedBy: row.CreatedBy, CreatedAt: stamp(row.Created),
				UpdatedAt: stamp(row.Updated), DeletedAt: stampOrNull(row.Deleted), Version: row.Version,
			}
		},
	}
}

// providerAgent matches the ids that RCS for Business allows for an agent.
var providerAgent = regexp.MustCompile(`^[A-Za-z0-9_.@-]{1,128}$`)

func (s *server) applyAgent(ctx context.Context, _ *principal, in *AgentInput, row *store.Resource, d *agentDoc) error {
	if row.Version == 0 {
		row.Status = "launched"
		*d = agentDoc{Region: "europe", TrafficType: "promotion"}
	}
	set(&in.Name, &row.Name, nil)
	row.Name = strings.TrimSpace(row.Name)
	set(&in.ProviderID, &d.ProviderID, nil)
	set(&in.Brand, &d.Brand, nil)
	set(&in.Description, &d.Description, nil)
	set(&in.LogoURL, &d.LogoURL, nil)
	set(&in.Region, &d.Region, nil)
	set(&in.TrafficType, &d.TrafficType, nil)
	set(&in.Status, &row.Status, nil)
	if d.Brand == "" {
		d.Brand = row.Name
	}
	var ps problem.List
	if d.ProviderID != "" && !providerAgent.MatchString(d.ProviderID) {
		ps.Add(problem.CodeInvalid, "providerId", "%q is not the id of an agent at a provider.", problem.Truncate(d.ProviderID, 60))
	}
	if d.LogoURL != "" && !strings.HasPrefix(d.LogoURL, "https://") {
		ps.Add(problem.CodeInvalid, "logoUrl", "The logo needs an https address.")
	}
	allowedWord(&ps, "region", d.Region, "europe", "us", "asia")
	allowedWord(&ps, "trafficType", d.TrafficType, "promotion", "transaction", "authentication", "servicerequest")
	allowedWord(&ps, "status", row.Status, "draft", "launched", "suspended")
	if err := ps.Err(); err != nil {
		return err
	}
	return s.routeFor(ctx, &in.Route, &d.Route, "rcs")
}

// allowedWord adds a problem when a value is not one of those allowed.
func allowedWord(ps *problem.List, field, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		ps.Add(problem.CodeInvalid, field, "%q is not a %s: want %s.", problem.Truncate(value, 40), field, strings.Join(allowed, " or "))
	}
}

// routeFor checks that the named route exists and carries the channel.
func (s *server) routeFor(ctx context.Context, in *problem.Optional[string], to *string, channel string) error {
	if !in.Set {
		return nil
	}
	*to = in.Value
	if in.Value == "" {
		return nil
	}
	routes, err := s.routes.all(ctx)
	if err != nil {
		return s.storeProblem(err)
	}
	var names []string
	for i := range routes {
		if !slices.ContainsFunc(routes[i].Channels, func(c schemas.Channel) bool { return schemas.ChannelName(c) == channel }) {
			continue
		}
		if routes[i].Name == in.Value {
			return nil
		}
		names = append(names, routes[i].Name)
	}
	p := problem.Field(problem.CodeInvalid, "route", "There is no route %q that carries %s.", problem.Truncate(in.Value, 60), channel)
	if len(names) > 0 {
		p = p.WithFix("Routes that do: %s.", strings.Join(names, ", "))
	}
	return p
}
