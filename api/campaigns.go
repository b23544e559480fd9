package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

type (
	createIn struct {
		Vocab string `query:"vocab" doc:"Words of status: e (default), a, b, c or d."`
		Body  Body[CampaignInput]
	}
	campaignOut struct {
		Location string `header:"Location"`
		ETag     string `header:"ETag"`
		Body     *Campaign
	}
	campaignIn struct {
		ID    string `path:"id" example:"camp_12345"`
		Vocab string `query:"vocab"`
	}
	updateIn struct {
		ID      string `path:"id" example:"camp_12345"`
		IfMatch string `header:"If-Match" doc:"ETag of the version that is to be changed; another one stored answers 412."`
		Vocab   string `query:"vocab"`
		Body    Body[CampaignInput]
	}
	deleteIn struct {
		ID      string `path:"id" example:"camp_12345"`
		IfMatch string `header:"If-Match"`
		Remove  bool   `query:"remove" doc:"Hide a campaign that has ended from the list; includeDeleted shows it."`
		Vocab   string `query:"vocab"`
	}
	listIn struct {
		Page           int    `query:"page" minimum:"0" doc:"0-based."`
		Limit          int    `query:"limit" minimum:"1" maximum:"1000" default:"10"`
		Search         string `query:"search" doc:"Within the name."`
		StartDate      string `query:"startDate" doc:"Created at or after: a date, or RFC 3339."`
		EndDate        string `query:"endDate" doc:"Created before the end of the date, or before the RFC 3339 time."`
		Direction      string `query:"direction" enum:"ASC,DESC,asc,desc" doc:"By creation; default DESC."`
		IsDraft        string `query:"isDraft" enum:"true,false"`
		IsProgrammed   string `query:"isProgrammed" enum:"true,false" doc:"Waits for its scheduled time."`
		ReadyToSend    string `query:"readyToSend" enum:"true,false" doc:"Confirmed, waits for a manual start."`
		SendingMode    string `query:"sendingMode" doc:"Campaigns whose chain begins with the same channel."`
		Status         string `query:"status" doc:"A status in the words of vocab, or a state; several separated by commas."`
		Type           string `query:"type" doc:"A channel; several separated by commas."`
		Tag            string `query:"tag"`
		IncludeDeleted bool   `query:"includeDeleted"`
		Before         string `query:"before" doc:"Id of the last campaign seen: the page after it, stable while campaigns are added."`
		Vocab          string `query:"vocab"`
	}
	listOut struct{ Body *Page[*Campaign] }
)

// Page is a part of a list.
type Page[T any] struct {
	Data  []T `json:"data" nullable:"false"`
	Page  int `json:"page"`
	Limit int `json:"limit"`
	Total int `json:"total"`
}

const campaignTag = "Campaigns"

func (s *server) registerCampaigns() {
	register(s, operation{
		id: "createCampaign", method: http.MethodPost, path: "/api/campaigns", summary: "Create a campaign", status: http.StatusCreated,
		scope: store.ScopeCampaigns, errors: []int{400, 409, 422}, tag: campaignTag,
		describe: "A complete body makes a configured campaign. `\"draft\": true` saves an incomplete one.",
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
		scope: store.ScopeCampaigns, errors: []int{400, 404, 409, 412, 422}, tag: campaignTag,
		describe: "Changes the fields that are sent and leaves the others. What was priced is to be priced again.",
	}, s.updateCampaign)
	register(s, operation{
		id: "deleteCampaign", method: http.MethodDelete, path: "/api/campaigns/{id}", summary: "Cancel a campaign before it sends, or hide one that has ended",
		scope: store.ScopeCampaigns, errors: []int{404, 409, 412}, tag: campaignTag,
	}, s.deleteCampaign)
}

// campaign finds a campaign of the tenant. Hidden ones, which hold single sends, are nobody's to see here.
func (s *server) campaign(ctx context.Context, who *principal, id string) (*store.Campaign, error) {
	c, err := s.Store.Campaign(ctx, who.tenant.ID, id)
	if errors.Is(err, schemas.ErrNotFound) || err == nil && c.Hidden {
		return nil, problem(CodeNotFound, "There is no campaign %q.", truncate(id, 40))
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
		return nil, problem(CodeCampaignsDisabled, "The tenant does not have campaigns_enabled.")
	}
	c := store.Campaign{Tenant: who.tenant.ID}
	ps := in.Body.Value.apply(&c.Spec, &who.tenant, s.Now(), s.listFinder(ctx, who))
	draft := in.Body.Value.Draft.Value
	ps = append(ps, lacking(&c.Spec, draft, ps)...)
	if err := ps.err(); err != nil {
		return nil, err
	}
	c.State = cond(draft, fanfarev1.State_STATE_DRAFT, fanfarev1.State_STATE_CONFIGURED)
	c.TestRun = who.key.Test || in.Body.Value.TestRun.Value
	made, err := s.Store.CreateCampaign(ctx, c, s.cause(ctx))
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &campaignOut{"/api/campaigns/" + made.ID(), etag(made.Version), view(&made, &who.tenant, vocab)}, nil
}

// lacking says what is missing, but for fields whose value was wrong already.
func lacking(spec *store.Spec, draft bool, found problems) problems {
	need := cond(draft, missingForDraft, missing)(spec)
	return slices.DeleteFunc(need, func(p *Problem) bool {
		return slices.ContainsFunc(found, func(f *Problem) bool { return f.Field == p.Field })
	})
}

// listFinder resolves ids and names of contact lists.
func (s *server) listFinder(ctx context.Context, who *principal) func([]string) ([]uint64, *Problem) {
	return func(refs []string) ([]uint64, *Problem) {
		if len(refs) > maxLists {
			return nil, fieldProblem(CodeInvalid, "contactList", "%d lists; at most %d.", len(refs), maxLists)
		}
		var out []uint64
		for _, ref := range refs {
			l, err := s.Store.FindList(ctx, who.tenant.ID, ref)
			switch {
			case errors.Is(err, schemas.ErrNotFound):
				return nil, fieldProblem(CodeInvalid, "contactList", "There is no contact list %q.", truncate(ref, 60)).
					fixed("Make one with POST /api/contacts/list, or use the id or name of one that exists.")
			case err != nil:
				return nil, asProblem(s.storeProblem(err))
			}
			if !slices.Contains(out, l.Number) {
				out = append(out, l.Number)
			}
		}
		return out, nil
	}
}

const maxLists = 50

// addressed is the campaign that a request names, the version it must have, and the words of the answer.
type addressed struct {
	who      *principal
	campaign *store.Campaign
	version  uint64 // 0: any
	vocab    schemas.Vocabulary
}

// at reads what every request for one campaign has; match and vocab may be empty.
func (s *server) at(ctx context.Context, id, match, vocab string) (*addressed, error) {
	at := &addressed{who: requestOf(ctx).who}
	var p *Problem
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

// answer shows the campaign as it is now.
func (at *addressed) answer(c *store.Campaign) *campaignOut {
	return &campaignOut{ETag: etag(c.Version), Body: view(c, &at.who.tenant, at.vocab)}
}

func (s *server) getCampaign(ctx context.Context, in *campaignIn) (*campaignOut, error) {
	at, err := s.at(ctx, in.ID, "", in.Vocab)
	if err != nil {
		return nil, err
	}
	return at.answer(at.campaign), nil
}

func (s *server) updateCampaign(ctx context.Context, in *updateIn) (*campaignOut, error) {
	at, err := s.at(ctx, in.ID, in.IfMatch, in.Vocab)
	if err != nil {
		return nil, err
	}
	body := &in.Body.Value
	if p := body.readOnly(); p != nil { // C28, whatever the state
		return nil, p
	}
	find := s.foundLists(ctx, at.who, body) // looked up before: what follows may run within a transaction, and more than once
	c, err := s.change(ctx, at.campaign, at.version, func(c *store.Campaign) (schemas.Trigger, error) {
		if !schemas.Editable(c.State) {
			return "", wrongState(c.State, schemas.TriggerEdit)
		}
		ps := body.apply(&c.Spec, &at.who.tenant, s.Now(), find)
		stay := body.Draft.Value || c.State == fanfarev1.State_STATE_DRAFT || c.State == fanfarev1.State_STATE_REJECTED
		ps = append(ps, lacking(&c.Spec, stay, ps)...)
		if err := ps.err(); err != nil {
			return "", err
		}
		if body.TestRun.Set {
			c.TestRun = at.who.key.Test || body.TestRun.Value
		}
		var trigger schemas.Trigger
		c.State, trigger = afterEdit(c, body.Draft.Value)
		return trigger, nil
	})
	if err != nil {
		return nil, err
	}
	return at.answer(c), nil
}

// afterEdit is the state that an edit leads to, and its trigger: a rejected campaign is a draft again; any other is configured
// once it is complete, unless it is to stay a draft.
func afterEdit(c *store.Campaign, draft bool) (fanfarev1.State, schemas.Trigger) {
	switch incomplete := draft || len(missing(&c.Spec)) > 0; {
	case c.State == fanfarev1.State_STATE_REJECTED, c.State == fanfarev1.State_STATE_DRAFT && incomplete:
		return fanfarev1.State_STATE_DRAFT, schemas.TriggerEdit
	case incomplete:
		return fanfarev1.State_STATE_DRAFT, schemas.TriggerIncomplete
	case c.State == fanfarev1.State_STATE_DRAFT:
		return fanfarev1.State_STATE_CONFIGURED, schemas.TriggerConfigure
	}
	return fanfarev1.State_STATE_CONFIGURED, schemas.TriggerEdit
}

// foundLists resolves the lists of a body once.
func (s *server) foundLists(ctx context.Context, who *principal, body *CampaignInput) func([]string) ([]uint64, *Problem) {
	var numbers []uint64
	var p *Problem
	if refs := body.ContactList.Value.Values; len(refs) > 0 {
		numbers, p = s.listFinder(ctx, who)(refs)
	}
	return func([]string) ([]uint64, *Problem) { return numbers, p }
}

// configure makes a draft that is complete a configured campaign: calculateGoal, price and confirm do so by themselves.
func (s *server) configure(ctx context.Context, c *store.Campaign) (*store.Campaign, error) {
	if c.State != fanfarev1.State_STATE_DRAFT {
		return c, nil
	}
	if err := missing(&c.Spec).err(); err != nil {
		return nil, err
	}
	return s.change(ctx, c, 0, func(c *store.Campaign) (schemas.Trigger, error) {
		if c.State == fanfarev1.State_STATE_CONFIGURED || c.State == fanfarev1.State_STATE_COST_CALCULATED {
			return "", errDone // somebody else did it
		}
		if err := missing(&c.Spec).err(); err != nil {
			return "", err
		}
		c.State = fanfarev1.State_STATE_CONFIGURED
		return schemas.TriggerConfigure, nil
	})
}

func (s *server) deleteCampaign(ctx context.Context, in *deleteIn) (*campaignOut, error) {
	at, err := s.at(ctx, in.ID, in.IfMatch, in.Vocab)
	if err != nil {
		return nil, err
	}
	if in.Remove && schemas.Terminal(at.campaign.State) {
		gone, err := s.Store.RemoveCampaign(ctx, at.who.tenant.ID, at.campaign.ID(), at.version, s.cause(ctx))
		if err != nil {
			return nil, s.storeProblem(err)
		}
		return at.answer(&gone), nil
	}
	c, err := s.change(ctx, at.campaign, at.version, func(c *store.Campaign) (schemas.Trigger, error) {
		switch {
		case schemas.Terminal(c.State):
			p := problem(CodeCampaignEnded, "The campaign is %s already.", schemas.StateName(c.State))
			p.AllowedActions = actionsOf(c)
			return "", p
		case !schemas.CanTransition(c.State, fanfarev1.State_STATE_CANCELLED, schemas.TriggerCancel):
			p := problem(CodeCampaignActive, "The campaign is %s; what is running is aborted, not deleted.", schemas.StateName(c.State)).
				fixed("POST /api/campaigns/%s/abort", c.ID())
			p.AllowedActions = allowedActions(c.State)
			return "", p
		}
		c.State = fanfarev1.State_STATE_CANCELLED
		return schemas.TriggerCancel, nil
	})
	if err != nil {
		return nil, err
	}
	return at.answer(c), nil
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
		out.Data = append(out.Data, view(&rows[i], &who.tenant, vocab))
	}
	out.Total = total
	return &listOut{out}, nil
}

// filter reads the query (X2, R130, R133); none says that no campaign can match it.
func (in *listIn) filter(vocab schemas.Vocabulary) (f store.CampaignFilter, none bool, p *Problem) {
	f = store.CampaignFilter{
		Page: store.Page{Number: in.Page, Limit: in.Limit}, Search: in.Search, Tag: in.Tag,
		Oldest: strings.EqualFold(in.Direction, "asc"), IncludeDeleted: in.IncludeDeleted,
	}
	if f.From, p = day(in.StartDate, "startDate", false); p != nil {
		return f, false, p
	}
	if f.To, p = day(in.EndDate, "endDate", true); p != nil {
		return f, false, p
	}
	if in.Before != "" {
		n, err := schemas.CampaignNumber(in.Before)
		if err != nil {
			return f, false, fieldProblem(CodeInvalid, "before", "%q is not the id of a campaign.", truncate(in.Before, 40))
		}
		f.After = n
	}
	states := allStates()
	if in.Status != "" {
		if states, p = statesOf(in.Status, vocab); p != nil {
			return f, false, p
		}
	}
	for _, flag := range []struct {
		value string
		state fanfarev1.State
	}{
		{in.IsDraft, fanfarev1.State_STATE_DRAFT}, {in.IsProgrammed, fanfarev1.State_STATE_SCHEDULED}, {in.ReadyToSend, fanfarev1.State_STATE_READY},
	} {
		if flag.value != "" {
			states = slices.DeleteFunc(states, func(st fanfarev1.State) bool { return (st == flag.state) != (flag.value == "true") })
		}
	}
	if len(states) == 0 {
		return f, true, nil
	}
	if len(states) < len(allStates()) {
		f.States = states
	}
	if in.Type != "" {
		for name := range strings.SplitSeq(in.Type, ",") {
			channel, ok := schemas.ParseChannel(strings.TrimSpace(name))
			if !ok {
				return f, false, fieldProblem(CodeInvalid, "type", "%q is not a channel: want sms, rcs, whatsapp or voice.", truncate(name, 40))
			}
			f.Channels = append(f.Channels, channel)
		}
	}
	if in.SendingMode != "" {
		chain, ok := chains[in.SendingMode]
		if !ok {
			return f, false, fieldProblem(CodeInvalid, "sendingMode", "%q is not a chain of channels.", truncate(in.SendingMode, 40))
		}
		if len(f.Channels) > 0 && !slices.Contains(f.Channels, chain[0]) {
			return f, true, nil
		}
		f.Channels = chain[:1]
	}
	return f, false, nil
}

func allStates() []fanfarev1.State {
	out := make([]fanfarev1.State, 0, len(fanfarev1.State_name)-1)
	for n := range len(fanfarev1.State_name) {
		if n > 0 {
			out = append(out, fanfarev1.State(n))
		}
	}
	return out
}

// statesOf reads status words: ours, or those of the vocabulary, of which one may mean several states.
func statesOf(list string, vocab schemas.Vocabulary) ([]fanfarev1.State, *Problem) {
	var out []fanfarev1.State
	for word := range strings.SplitSeq(list, ",") {
		word = strings.TrimSpace(word)
		found := false
		for _, st := range allStates() {
			if strings.EqualFold(word, schemas.Word(st, vocab)) || strings.EqualFold(word, schemas.StateName(st)) {
				found = true
				if !slices.Contains(out, st) {
					out = append(out, st)
				}
			}
		}
		if !found {
			return nil, fieldProblem(CodeInvalid, "status", "%q is not a status.", truncate(word, 40))
		}
	}
	return out, nil
}

// day reads a date or a time; a date as an end means its end.
func day(s, field string, end bool) (time.Time, *Problem) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return time.Time{}, fieldProblem(CodeInvalid, field, "%q is not a date: want 2025-04-15, or RFC 3339 with an offset.", truncate(s, 40))
	}
	if end {
		t = t.AddDate(0, 0, 1)
	}
	return t, nil
}

// cause says who asks, for the event that a change leaves behind.
func (s *server) cause(ctx context.Context) store.Cause {
	req := requestOf(ctx)
	c := store.Cause{Actor: schemas.ActorUser, RequestID: req.id}
	if req.who != nil {
		c.By = req.who.by()
	}
	return c
}
