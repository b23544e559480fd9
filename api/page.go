package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"fanfare/api/store"
	"fanfare/api/ui"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
)

// pageSource answers the live page from what answers the API, so that the two agree.
type pageSource struct {
	*server

	mu    sync.Mutex
	names map[uint64]string // of lists
	costs map[string]pageCost
}

// pageCost is what a campaign cost at a time.
type pageCost struct {
	micros Money
	sent   uint64
	until  time.Time
}

// who is whoever sits before the page: the tenant, with every right but admin's.
func (p *pageSource) who(ctx context.Context, tenant string) (*principal, error) {
	t, err := p.Store.Tenant(ctx, tenant)
	if err != nil {
		return nil, errors.New("the store cannot be read at present")
	}
	return &principal{key: store.Key{ID: "ui", Tenant: tenant, Scopes: store.Scopes[:len(store.Scopes)-1]}, tenant: t}, nil
}

// Grid returns a page of campaigns with their figures.
func (p *pageSource) Grid(ctx context.Context, tenant string, q ui.Query) (ui.Grid, error) {
	who, err := p.who(ctx, tenant)
	if err != nil {
		return ui.Grid{}, err
	}
	in := listIn{Page: q.Page, Limit: ui.PageSize, Search: q.Search, Type: q.Type}
	f, none, problem := in.filter(schemas.VocabularyE)
	if problem != nil {
		return ui.Grid{}, errors.New(problem.Detail)
	}
	if q.Status != "" { // a state of ours: a word of E's stands for several
		state, ok := schemas.ParseState(q.Status)
		if !ok {
			return ui.Grid{}, fmt.Errorf("%q is not a state", truncate(q.Status, 40))
		}
		f.States = []fanfarev1.State{state}
	}
	g := ui.Grid{Tenant: who.tenant.Name, Timezone: who.tenant.Timezone, Currency: who.tenant.Currency, Page: q.Page, Rows: []ui.Row{}}
	if none {
		return g, nil
	}
	rows, total, err := p.Store.Campaigns(ctx, tenant, f)
	if err != nil {
		return ui.Grid{}, errors.New("the store cannot be read at present")
	}
	g.Total = total
	ids := make([]string, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID()
	}
	counts, asOf, err := p.figures.grid(ctx, tenant, ids)
	if err != nil {
		return ui.Grid{}, errors.New("the statistics cannot be read at present")
	}
	if !asOf.IsZero() {
		g.AsOf = stamp(asOf.Truncate(time.Second))
	}
	for i := range rows {
		c := &rows[i]
		figures := counts[c.ID()].Figures(c.Total)
		row := p.row(ctx, who, c, &figures)
		if schemas.Active(c.State) && c.State != fanfarev1.State_STATE_SCHEDULED && c.State != fanfarev1.State_STATE_READY {
			g.Active++
		}
		addCounts(&g.Totals, row.Counts)
		g.Rows = append(g.Rows, row)
	}
	return g, nil
}

func addCounts(sum *ui.Counts, c ui.Counts) {
	sum.Total += c.Total
	sum.Sent += c.Sent
	sum.Delivered += c.Delivered
	sum.Undelivered += c.Undelivered
	sum.Awaiting += c.Awaiting
	sum.Pending += c.Pending
	sum.Ambiguous += c.Ambiguous
	sum.NotSent += c.NotSent
	sum.Skipped += c.Skipped
}

func (p *pageSource) row(ctx context.Context, who *principal, c *store.Campaign, f *analytics.Figures) ui.Row {
	r := ui.Row{
		ID: c.ID(), Name: c.Name, Created: stamp(c.Created), Tags: orEmpty(c.Tags), Type: channelOf(c), State: schemas.StateName(c.State),
		Reason: c.Reason, Settled: !c.Settled.IsZero(), List: p.lists(ctx, c), Sender: sender(c, &who.tenant),
		Counts: ui.Counts{
			Total: f.Total, Sent: f.Sent, Delivered: f.Delivered, Undelivered: f.Undelivered, Awaiting: f.Awaiting, Pending: f.Pending,
			Ambiguous: f.Ambiguous, NotSent: f.NotSent, Skipped: f.Skipped,
		},
		Target: f.Total, Cost: p.cost(ctx, c, f.Sent), Actions: []string{},
	}
	if c.FreezeID == "" && f.Total == 0 {
		r.Target = uint64(c.Quote.Contacts)
	}
	if s := c.Schedule; s != nil && !c.SendImmediately {
		r.Scheduled = stamp(s.At)
	}
	if end := p.eta(ctx, who, c, f.Pending); end != nil && c.State != fanfarev1.State_STATE_COMPLETED {
		r.Finish = *end
	}
	for _, a := range allowedActions(c.State) {
		if a == "pause" || a == "resume" {
			r.Actions = append(r.Actions, a)
		}
	}
	return r
}

// lists names the lists of a campaign.
func (p *pageSource) lists(ctx context.Context, c *store.Campaign) string {
	var names []string
	for _, n := range c.Lists {
		p.mu.Lock()
		name, ok := p.names[n]
		p.mu.Unlock()
		if !ok {
			name = store.ListID(n)
			if l, err := p.Store.List(ctx, c.Tenant, n); err == nil {
				name = l.Name
			}
			p.mu.Lock()
			if len(p.names) >= maxCached {
				clear(p.names)
			}
			p.names[n] = name
			p.mu.Unlock()
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// cost asks again only when more was sent, and at most once a second for each campaign.
func (p *pageSource) cost(ctx context.Context, c *store.Campaign, sent uint64) string {
	now := p.Now()
	p.mu.Lock()
	known, ok := p.costs[c.ID()]
	p.mu.Unlock()
	if !ok && sent > 0 || known.sent != sent && now.After(known.until) {
		micros, err := p.figures.cost(ctx, c.Tenant, c.ID())
		if err == nil {
			known = pageCost{micros, sent, now.Add(time.Second)}
			p.mu.Lock()
			keep(p.costs, c.ID(), known)
			p.mu.Unlock()
		}
	}
	if known.micros == 0 {
		return "0.00"
	}
	return known.micros.String()
}

// Act pauses or resumes, as the API does.
func (p *pageSource) Act(ctx context.Context, tenant, campaign, action string) error {
	who, err := p.who(ctx, tenant)
	if err != nil {
		return err
	}
	req := *requestOf(ctx)
	req.who = who
	ctx = context.WithValue(ctx, requestKey{}, &req)
	do := map[string]func(context.Context, *actionIn) (*campaignOut, error){"pause": p.pause, "resume": p.resume}[action]
	if do == nil {
		return errors.New(http.StatusText(http.StatusNotFound))
	}
	if _, err := do(ctx, &actionIn{ID: campaign}); err != nil {
		problem := asProblem(err)
		return errors.New(problem.Detail + " " + problem.Fix)
	}
	return nil
}
