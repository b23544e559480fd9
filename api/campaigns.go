package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

type (
	createIn struct {
		Vocab string `query:"vocab" doc:"Vocabulary of status: e (default), a, b, c or d."`
		Body  problem.Body[CampaignInput]
	}
	campaignOut struct {
		Location string `header:"Location"`
		ETag     string `header:"ETag"`
		Body     *Campaign
	}
	campaignIn struct {
		ID    string `path:"id" doc:"Id of the campaign." example:"camp_12345"`
		Vocab string `query:"vocab"`
	}
	updateIn struct {
		ID      string `path:"id" doc:"Id of the campaign." example:"camp_12345"`
		IfMatch string `header:"If-Match" doc:"ETag of the version to change; 412 when the campaign has another one."`
		Vocab   string `query:"vocab"`
		Body    problem.Body[CampaignInput]
	}
	deleteIn struct {
		ID      string `path:"id" doc:"Id of the campaign." example:"camp_12345"`
		IfMatch string `header:"If-Match"`
		Remove  bool   `query:"remove" doc:"Hide a campaign that has ended from lists; includeDeleted shows it again."`
		Vocab   string `query:"vocab"`
	}
	listIn struct {
		Page           int    `query:"page" minimum:"0" doc:"0-based."`
		Limit          int    `query:"limit" minimum:"1" maximum:"1000" default:"10"`
		Search         string `query:"search" doc:"Within the name."`
		StartDate      string `query:"startDate" doc:"Created at or after: a date, or RFC 3339."`
		EndDate        string `query:"endDate" doc:"Created before the end of the date, or before the RFC 3339 time."`
		Direction      string `query:"direction" enum:"ASC,DESC,asc,desc" doc:"By creation; default DESC."`
		IsDraft        string `query:"isDraft" enum:"true,false" doc:"true: only drafts; false: none of them."`
		IsProgrammed   string `query:"isProgrammed" enum:"true,false" doc:"Only campaigns that wait for their scheduled time."`
		ReadyToSend    string `query:"readyToSend" enum:"true,false" doc:"Only confirmed campaigns that wait for a manual start."`
		SendingMode    string `query:"sendingMode" doc:"Campaigns whose chain begins with the same channel."`
		Status         string `query:"status" doc:"A status in the words of vocab, or a state; several separated by commas."`
		Type           string `query:"type" doc:"A channel; several separated by commas."`
		Tag            string `query:"tag" doc:"Only campaigns that have it, in any case."`
		IncludeDeleted bool   `query:"includeDeleted"`
		Cursor         string `query:"cursor" doc:"The value of next in an earlier answer: continues behind its last row. Unlike with page, rows that are added or removed meanwhile cause no gap and no repetition."`
		Include        string `query:"include" enum:"stats" doc:"stats: adds to each campaign its figures and the names of its lists."`
		Vocab          string `query:"vocab"`
	}
	listOut struct{ Body *Page[*Campaign] }
)

// Page is a part of a list.
type Page[T any] struct {
	Data  []T     `json:"data" nullable:"false" doc:"The rows of this page."`
	Page  int     `json:"page" doc:"0-based; 0 in an answer to a request with cursor."`
	Limit int     `json:"limit" doc:"The most rows of a page."`
	Total int     `json:"total" doc:"Rows on all pages."`
	Next  *string `json:"next" doc:"Cursor of the rows after these; null on the last page."`
}

const campaignTag = "Campaigns"

func (s *server) registerCampaigns() {
	register(s, operation{
		id: "createCampaign", method: http.MethodPost, path: "/api/campaigns", summary: "Create a campaign", status: http.StatusCreated,
		scope: store.ScopeCampaigns, errors: []int{400, 409, 422}, testKeys: testKeysConfined, tag: campaignTag,
		describe: "A complete body creates a configured campaign. `\"draft\": true` saves an incomplete one.",
	}, s.createCampaign)
	register(s, operation{
		id: "listCampaigns", method: http.MethodGet, path: "/api/campaigns", summary: "List campaigns, newest first",
		scope: store.ScopeRead, errors: []int{422}, tag: campaignTag,
	}, s.listCampaigns)
	register(s, operation{
		id: "getCampaign", method: http.MethodGet, path: "/api/campaigns/{id}", summary: "Get a campaign",
		scope: store.ScopeRead, errors: []int{404}, tag: campaignTag,
	}, s.getCampaign)
	register(s, operation{
		id: "updateCampaign", method: http.MethodPut, path: "/api/campaigns/{id}", summary: "Change a campaign before it is confirmed",
		scope: store.ScopeCampaigns, errors: []int{400, 404, 409, 412, 422}, testKeys: testKeysConfined, tag: campaignTag,
		describe: "Changes the fields in the body and leaves the others. The campaign must be priced again.",
	}, s.updateCampaign)
	register(s, operation{
		id: "deleteCampaign", method: http.MethodDelete, path: "/api/campaigns/{id}", summary: "Cancel a campaign before it sends, or hide one that has ended",
		scope: store.ScopeCampaigns, errors: []int{404, 409, 412}, testKeys: testKeysConfined, tag: campaignTag,
	}, s.deleteCampaign)
}

// campaign finds a campaign of the tenant. Hidden campaigns, which hold single sends, are not found.
func (s *server) campaign(ctx context.Context, who *principal, id string) (*store.Campaign, error) {
	c, err := s.Store.Campaign(ctx, who.tenant.ID, id)
	if errors.Is(err, schemas.ErrNotFound) || err == nil && c.Hidden {
		return nil, problem.New(problem.CodeNotFound, "There is no campaign %q.", problem.Truncate(id, 40))
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &c, nil
}

func (s *server) createCampaign(ctx context.Context, in *createIn) (*campaignOut, error) {
	who := requestOf(ctx).who
	vocab, p := vocabulary(in.Vocab)
	if p != nil {
		return nil, p
	}
	if !who.tenant.CampaignsEnabled {
		return nil, problem.New(problem.CodeCampaignsDisabled, "The tenant does not have campaigns_enabled.")
	}
	c := store.Campaign{Tenant: who.tenant.ID}
	if err := s.loadPool(ctx, who, &in.Body.Value); err != nil {
		return nil, err
	}
	ps := in.Body.Value.apply(&c.Spec, &who.tenant, s.Now(), s.findLists(ctx, who))
	draft := in.Body.Value.Draft.Value
	ps = append(ps, lacking(&c.Spec, draft, ps)...)
	if err := ps.Err(); err != nil {
		return nil, err
	}
	refs, err := s.lookUp(ctx, who, &c.Spec, draft)
	if err != nil {
		return nil, err
	}
	if err := refs.problems.Err(); err != nil {
		return nil, err
	}
	c.Named, c.LinkBase = refs.named, refs.linkBase
	fields, err := s.mergeFields(ctx, who.tenant.ID, &c.Spec, draft)
	if err != nil {
		return nil, err
	}
	c.State, c.Editors = pick(draft, schemas.StateDraft, schemas.StateConfigured), []string{who.by()}
	c.TestRun = who.key.Test || in.Body.Value.TestRun.Value
	made, err := s.Store.CreateCampaign(ctx, c, s.cause(ctx))
	if err != nil {
		return nil, s.storeProblem(err)
	}
	v := s.show(ctx, &made, &who.tenant, vocab)
	late, err := s.timeWarnings(ctx, who, &made)
	if err != nil {
		return nil, err
	}
	v.Warning = append(v.Warning, late...)
	v.Warning = append(append(v.Warning, refs.warnings...), fields...)
	return &campaignOut{"/api/campaigns/" + made.ID(), etag(made.Version), v}, nil
}

// lacking returns the problems of missing fields, without fields for which another problem was found.
func lacking(spec *store.Spec, draft bool, found problem.List) problem.List {
	need := pick(draft, missingForDraft, missing)(spec)
	return slices.DeleteFunc(need, func(p *problem.Problem) bool {
		return slices.ContainsFunc(found, func(f *problem.Problem) bool { return f.Field == p.Field })
	})
}

// findLists returns a finder of the tenant's contact lists.
func (s *server) findLists(ctx context.Context, who *principal) listFinder {
	return func(refs []string) ([]uint64, *problem.Problem) {
		if len(refs) > maxLists {
			return nil, problem.Field(problem.CodeInvalid, "contactList", "%d lists; at most %d.", len(refs), maxLists)
		}
		var out []uint64
		for _, ref := range refs {
			l, err := s.Store.FindList(ctx, who.tenant.ID, ref)
			switch {
			case errors.Is(err, schemas.ErrNotFound):
				return nil, s.unknownList(ctx, who.tenant.ID, ref)
			case err != nil:
				return nil, problem.From(s.storeProblem(err))
			}
			if !slices.Contains(out, l.Number) {
				out = append(out, l.Number)
			}
		}
		return out, nil
	}
}

const maxLists = 50

// unknownList returns the problem of a campaign that names a contact list which does not exist, with the most similar
// names among the newest lists.
func (s *server) unknownList(ctx context.Context, tenant, ref string) *problem.Problem {
	lists, _, err := s.Store.Lists(ctx, tenant, store.ListFilter{Page: store.Page{Limit: maxNear}})
	if err != nil {
		return problem.From(s.storeProblem(err))
	}
	names := make([]string, len(lists))
	for i := range lists {
		names[i] = lists[i].Name
	}
	p := problem.Field(problem.CodeInvalid, "contactList", "There is no contact list %q.", problem.Truncate(ref, 60))
	if near := problem.Nearest(ref, names, 3); len(near) > 0 {
		return p.WithFix("Did you mean %s?", strings.Join(near, " or "))
	}
	return p.WithFix("Create one with POST /api/contacts/list, or use the id or name of an existing one.")
}

// maxNear is how many of the newest lists are compared with an unknown name.
const maxNear = 200

// addressed is the campaign that a request is about, the version it must have, and the vocabulary of the answer.
type addressed struct {
	who      *principal
	campaign *store.Campaign
	version  uint64 // from If-Match; 0: any
	vocab    schemas.Vocabulary
}

// loadCampaign reads id, If-Match and vocab, which all requests for one campaign have; match and vocab may be empty.
func (s *server) loadCampaign(ctx context.Context, id, match, vocab string) (*addressed, error) {
	at := &addressed{who: requestOf(ctx).who}
	var p *problem.Problem
	if at.vocab, p = vocabulary(vocab); p != nil {
		return nil, p
	}
	if at.version, p = ifMatch(match); p != nil {
		return nil, p
	}
	var err error
	at.campaign, err = s.campaign(ctx, at.who, id)
	return at, err
}

// testKeyMay refuses a test key that would change a campaign which is not a test (X14). Handlers call it with the
// newest row, inside the transaction, because an edit or a change of its lists may have turned a test into a real
// campaign.
func testKeyMay(who *principal, c *store.Campaign) error {
	if who.key.Test && !c.Test {
		return problem.New(problem.CodeTestKey, "Campaign %s is not a test, and a test key changes tests only.", c.ID())
	}
	return nil
}

// answer returns the campaign with its ETag.
func (s *server) answer(ctx context.Context, at *addressed, c *store.Campaign) *campaignOut {
	return &campaignOut{ETag: etag(c.Version), Body: s.show(ctx, c, &at.who.tenant, at.vocab)}
}

// show is [view] with the names of the people or keys that created and confirmed the campaign.
func (s *server) show(ctx context.Context, c *store.Campaign, tenant *store.Tenant, vocab schemas.Vocabulary) *Campaign {
	v := view(c, tenant, vocab)
	v.Simulated = s.simulated(ctx, c, tenant)
	v.CreatedBy, v.ConfirmedBy = s.whoNames.of(ctx, c.Tenant, c.CreatedBy), orNull(s.whoNames.of(ctx, c.Tenant, c.ConfirmedBy))
	return v
}

// simulated reports whether a leg of the campaign uses a route to a simulator. It returns false when the routes cannot
// be read.
func (s *server) simulated(ctx context.Context, c *store.Campaign, tenant *store.Tenant) bool {
	names := []string{route(c, tenant)}
	for _, leg := range c.Legs {
		names = append(names, leg.Route)
	}
	for _, name := range names {
		if r, err := s.routes.route(ctx, name); err == nil && s.Connectors.simulates(r.Connector) {
			return true
		}
	}
	return false
}

func (s *server) getCampaign(ctx context.Context, in *campaignIn) (*campaignOut, error) {
	at, err := s.loadCampaign(ctx, in.ID, "", in.Vocab)
	if err != nil {
		return nil, err
	}
	return s.answer(ctx, at, at.campaign), nil
}

func (s *server) updateCampaign(ctx context.Context, in *updateIn) (*campaignOut, error) {
	at, err := s.loadCampaign(ctx, in.ID, in.IfMatch, in.Vocab)
	if err != nil {
		return nil, err
	}
	body := &in.Body.Value
	if p := body.readOnly(); p != nil { // C28; checked in every state
		return nil, p
	}
	if err := s.loadPool(ctx, at.who, body); err != nil {
		return nil, err
	}
	find := s.preloadLists(ctx, at.who, body) // queried before the transaction, which may run several times
	fields, refs, err := s.afterwards(ctx, at, body, find)
	if err != nil {
		return nil, err
	}
	c, err := s.change(ctx, at.campaign, at.version, func(c *store.Campaign) (schemas.Trigger, error) {
		if err := testKeyMay(at.who, c); err != nil {
			return "", err
		}
		if !schemas.Editable(c.State) {
			return "", notPossible(c, schemas.TriggerEdit)
		}
		before := c.Spec
		ps := body.apply(&c.Spec, &at.who.tenant, s.Now(), find)
		if p := replayKeeps(&before, &c.Spec); p != nil {
			return "", p
		}
		stay := body.Draft.Value || c.State == schemas.StateDraft || c.State == schemas.StateRejected
		ps = append(ps, lacking(&c.Spec, stay, ps)...)
		if err := ps.Err(); err != nil {
			return "", err
		}
		if err := refs.problems.Err(); err != nil {
			return "", err
		}
		c.Named, c.LinkBase = refs.named, refs.linkBase
		// A campaign that a test key has edited stays a test, also with other lists
		if body.TestRun.Set || at.who.key.Test {
			c.TestRun = at.who.key.Test || body.TestRun.Value
		}
		c.Editors = edited(c.Editors, at.who.by())
		var trigger schemas.Trigger
		c.State, trigger = afterEdit(c, body.Draft.Value)
		return trigger, nil
	})
	if err != nil {
		return nil, err
	}
	out := s.answer(ctx, at, c)
	late, err := s.timeWarnings(ctx, at.who, c)
	if err != nil {
		return nil, err
	}
	out.Body.Warning = append(out.Body.Warning, late...)
	out.Body.Warning = append(append(out.Body.Warning, refs.warnings...), fields...)
	return out, nil
}

// edited returns the editors of a campaign with by as the last.
func edited(before []string, by string) []string {
	out := append(slices.DeleteFunc(slices.Clone(before), func(id string) bool { return id == by }), by)
	return out[max(0, len(out)-maxEditors):]
}

const maxEditors = 20

// afterEdit returns the state after an edit, and the trigger of the change: a rejected campaign becomes a draft; any
// other becomes configured when it is complete, unless the body asks for a draft.
func afterEdit(c *store.Campaign, draft bool) (schemas.State, schemas.Trigger) {
	switch incomplete := draft || len(missing(&c.Spec)) > 0; {
	case c.State == schemas.StateRejected, c.State == schemas.StateDraft && incomplete:
		return schemas.StateDraft, schemas.TriggerEdit
	case incomplete:
		return schemas.StateDraft, schemas.TriggerIncomplete
	case c.State == schemas.StateDraft:
		return schemas.StateConfigured, schemas.TriggerConfigure
	}
	return schemas.StateConfigured, schemas.TriggerEdit
}

// preloadLists looks up the lists of a body once, and returns a finder that repeats the result.
func (s *server) preloadLists(ctx context.Context, who *principal, body *CampaignInput) listFinder {
	var numbers []uint64
	var p *problem.Problem
	if refs := body.ContactList.Value.Values; len(refs) > 0 {
		numbers, p = s.findLists(ctx, who)(refs)
	}
	return func([]string) ([]uint64, *problem.Problem) { return numbers, p }
}

// configure makes a complete draft a configured campaign. calculateGoal, price and confirm call it.
func (s *server) configure(ctx context.Context, c *store.Campaign) (*store.Campaign, error) {
	if c.State != schemas.StateDraft {
		return c, nil
	}
	if err := missing(&c.Spec).Err(); err != nil {
		return nil, err
	}
	return s.change(ctx, c, 0, func(c *store.Campaign) (schemas.Trigger, error) {
		if c.State == schemas.StateConfigured || c.State == schemas.StateCostCalculated {
			return "", errDone // another request did it
		}
		if err := missing(&c.Spec).Err(); err != nil {
			return "", err
		}
		c.State = schemas.StateConfigured
		return schemas.TriggerConfigure, nil
	})
}

func (s *server) deleteCampaign(ctx context.Context, in *deleteIn) (*campaignOut, error) {
	at, err := s.loadCampaign(ctx, in.ID, in.IfMatch, in.Vocab)
	if err != nil {
		return nil, err
	}
	if err := testKeyMay(at.who, at.campaign); err != nil {
		return nil, err
	}
	if in.Remove && schemas.Terminal(at.campaign.State) {
		gone, err := s.Store.RemoveCampaign(ctx, at.who.tenant.ID, at.campaign.ID(), at.version, s.cause(ctx))
		if err != nil {
			return nil, s.storeProblem(err)
		}
		return s.answer(ctx, at, &gone), nil
	}
	c, err := s.change(ctx, at.campaign, at.version, func(c *store.Campaign) (schemas.Trigger, error) {
		if err := testKeyMay(at.who, c); err != nil {
			return "", err
		}
		switch {
		case schemas.Terminal(c.State):
			p := problem.New(problem.CodeCampaignEnded, "The campaign is %s already.", schemas.StateName(c.State))
			p.AllowedActions = actionsOf(c)
			return "", p
		case !schemas.CanTransition(c.State, schemas.StateCancelled, schemas.TriggerCancel):
			p := problem.New(problem.CodeCampaignActive, "The campaign is %s; abort a running campaign instead of deleting it.", schemas.StateName(c.State)).
				WithFix("POST /api/campaigns/%s/abort", c.ID())
			p.AllowedActions = actionsIn(c.State)
			return "", p
		}
		c.State = schemas.StateCancelled
		return schemas.TriggerCancel, nil
	})
	if err != nil {
		return nil, err
	}
	return s.answer(ctx, at, c), nil
}

func (s *server) listCampaigns(ctx context.Context, in *listIn) (*listOut, error) {
	who := requestOf(ctx).who
	vocab, p := vocabulary(in.Vocab)
	if p != nil {
		return nil, p
	}
	filter, none, p := in.filter(vocab)
	if p != nil {
		return nil, p
	}
	out := &Page[*Campaign]{Data: []*Campaign{}, Page: in.Page, Limit: in.Limit}
	if none {
		return &listOut{out}, nil
	}
	rows, total, err := s.Store.Campaigns(ctx, who.tenant.ID, filter)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	for i := range rows {
		out.Data = append(out.Data, s.show(ctx, &rows[i], &who.tenant, vocab))
	}
	if in.Include == "stats" {
		if err := s.addRowStats(ctx, who, rows, out.Data); err != nil {
			return nil, err
		}
	}
	out.Total = total
	if n := len(rows); n > 0 {
		out.Next = nextCursor(campaignCursor(in.Direction), n, in.Limit, numberCursor(rows[n-1].Number))
	}
	return &listOut{out}, nil
}

// cause returns the key and the request as the cause of a change, for the campaign's history.
func (s *server) cause(ctx context.Context) store.Cause {
	req := requestOf(ctx)
	c := store.Cause{Actor: schemas.ActorUser, RequestID: req.id}
	if req.who != nil {
		c.By = req.who.by()
	}
	return c
}
