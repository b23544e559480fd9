package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

type (
	actionIn struct {
		ID      string `path:"id" example:"camp_12345"`
		IfMatch string `header:"If-Match"`
		Vocab   string `query:"vocab"`
	}
	confirmIn struct {
		ID      string `path:"id" example:"camp_12345"`
		IfMatch string `header:"If-Match"`
		Body    *Body[ConfirmInput]
	}
	confirmOut struct {
		ETag string `header:"ETag"`
		Body *Confirmation
	}
	liveIn struct {
		ID      string `path:"id" example:"camp_12345"`
		IfMatch string `header:"If-Match"`
		Vocab   string `query:"vocab"`
		Body    Body[LiveInput]
	}
	eventsIn struct {
		ID string `path:"id" example:"camp_12345"`
	}
	eventsOut struct{ Body *Page[CampaignEvent] }
)

// CampaignEvent is one line of a campaign's history.
type CampaignEvent struct {
	From      *string `json:"from"`
	To        string  `json:"to"`
	Trigger   *string `json:"trigger" doc:"Null of a change that moved nothing."`
	Actor     string  `json:"actor"`
	By        string  `json:"by"`
	Reason    *string `json:"reason"`
	RequestID *string `json:"requestId"`
	Version   uint64  `json:"version"`
	Time      string  `json:"time" format:"date-time"`
}

func (s *server) registerActions() {
	register(s, operation{
		id: "confirmCampaign", method: http.MethodPut, path: "/api/campaigns/{id}/confirm", summary: "Confirm: send now or at the scheduled time",
		scope: store.ScopeConfirm, errors: []int{400, 402, 404, 409, 412, 422}, tag: campaignTag,
		describe: "Reserves the money and takes the audience. Repeated, it answers the same and does nothing.",
	}, s.confirm)
	for _, a := range []struct {
		name, summary string
		scope         store.Scope
		do            func(context.Context, *actionIn) (*campaignOut, error)
	}{
		{"pause", "Pause: what is handed over completes, nothing else is sent", store.ScopeCampaigns, s.pause},
		{"resume", "Resume a paused or suspended campaign", store.ScopeCampaigns, s.resume},
		{"abort", "Abort: what was not sent is never sent", store.ScopeCampaigns, s.abort},
		{"unschedule", "Take back a confirm that has not started", store.ScopeCampaigns, s.unschedule},
		{"start", "Start a campaign that waits for a manual start", store.ScopeConfirm, s.start},
	} {
		for _, method := range []string{http.MethodPost, http.MethodPut} {
			id := a.name + "Campaign" + cond(method == http.MethodPut, "Put", "")
			register(s, operation{
				id: id, method: method, path: "/api/campaigns/{id}/" + a.name, summary: a.summary, scope: a.scope,
				errors: []int{404, 409, 412}, tag: campaignTag,
			}, a.do)
		}
	}
	register(s, operation{
		id: "duplicateCampaign", method: http.MethodPost, path: "/api/campaigns/{id}/duplicate", summary: "Copy as a new draft", status: http.StatusCreated,
		scope: store.ScopeCampaigns, errors: []int{404}, tag: campaignTag,
	}, s.duplicate)
	register(s, operation{
		id: "patchLiveCampaign", method: http.MethodPatch, path: "/api/campaigns/{id}/live", summary: "Change an active campaign",
		scope: store.ScopeCampaigns, errors: []int{400, 404, 409, 412, 422}, tag: campaignTag,
		describe: "Rate, weight, calling hours, tags and notes. Hours that open earlier or close later need the scope `confirm`.",
	}, s.patchLive)
	register(s, operation{
		id: "listCampaignEvents", method: http.MethodGet, path: "/api/campaigns/{id}/events", summary: "Everything that happened to a campaign",
		scope: store.ScopeRead, errors: []int{404}, tag: campaignTag,
	}, s.campaignEvents)
}

// errDone ends a change that turns out to be made already.
var errDone = errors.New("nothing to change")

// change moves a campaign, or changes it in its state: mutate sees the newest row, changes it, and names the trigger. It may
// run more than once, within a transaction, and does nothing else. Without a version it is done again when somebody else was
// quicker.
func (s *server) change(ctx context.Context, c *store.Campaign, version uint64, mutate func(*store.Campaign) (schemas.Trigger, error)) (*store.Campaign, error) {
	const tries = 5 // as many as were ever quicker than one of us in a row; then the client may decide
	for try := 1; ; try++ {
		out, err := s.Store.UpdateCampaign(ctx, c.Tenant, c.ID(), version, s.cause(ctx), mutate)
		switch {
		case err == nil:
			return &out, nil
		case errors.Is(err, errDone):
			again, err := s.Store.Campaign(ctx, c.Tenant, c.ID())
			return &again, s.storeProblem(err)
		case version == 0 && errors.Is(err, schemas.ErrConflict):
			if try < tries {
				continue
			}
			return nil, problem(CodeConflict, "The campaign changed while the request ran.").because(err)
		}
		return nil, s.storeProblem(err)
	}
}

// do is an action that only moves the state.
func (s *server) do(ctx context.Context, in *actionIn, trigger schemas.Trigger, to func(*store.Campaign) (fanfarev1.State, error)) (*campaignOut, error) {
	at, err := s.at(ctx, in.ID, in.IfMatch, in.Vocab)
	if err != nil {
		return nil, err
	}
	c, err := s.change(ctx, at.campaign, at.version, func(c *store.Campaign) (schemas.Trigger, error) {
		next, err := to(c)
		if err != nil {
			return "", err
		}
		if !schemas.CanTransition(c.State, next, trigger) {
			return "", wrongState(c.State, trigger)
		}
		c.State = next
		return trigger, nil
	})
	if err != nil {
		return nil, err
	}
	return at.answer(c), nil
}

func always(st fanfarev1.State) func(*store.Campaign) (fanfarev1.State, error) {
	return func(*store.Campaign) (fanfarev1.State, error) { return st, nil }
}

func (s *server) pause(ctx context.Context, in *actionIn) (*campaignOut, error) {
	return s.do(ctx, in, schemas.TriggerPause, always(fanfarev1.State_STATE_PAUSED))
}

// resume goes on where the campaign stopped. The cause of a suspension is looked at first: resuming into it would only suspend again.
func (s *server) resume(ctx context.Context, in *actionIn) (*campaignOut, error) {
	who := requestOf(ctx).who
	c, err := s.campaign(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	if c.State == fanfarev1.State_STATE_SUSPENDED {
		if err := s.causeGone(ctx, who, c); err != nil {
			return nil, err
		}
	}
	return s.do(ctx, in, schemas.TriggerResume, func(c *store.Campaign) (fanfarev1.State, error) {
		return cond(c.Started.IsZero(), fanfarev1.State_STATE_PREPARING, fanfarev1.State_STATE_SENDING), nil
	})
}

// causeGone reports, of the causes that can be looked at from here, the one that stands.
func (s *server) causeGone(ctx context.Context, who *principal, c *store.Campaign) error {
	stands := func(format string, args ...any) error {
		p := problem(CodeWrongState, format, args...).fixed("Remove the cause, then resume.")
		p.AllowedActions = allowedActions(c.State)
		return p
	}
	if !who.tenant.Enabled {
		return stands("The cause of the suspension stands: the tenant is disabled.")
	}
	for _, leg := range c.Legs {
		if r, err := s.routes.route(ctx, leg.Route); err == nil && !r.Enabled {
			return stands("The cause of the suspension (%s) stands: route %q is disabled.", c.Reason, leg.Route)
		}
	}
	if c.Reason == "no_credit" {
		balance, err := s.Store.Balance(ctx, who.tenant.ID)
		if err != nil {
			return s.storeProblem(err)
		}
		if !balance.Unlimited && balance.Available == 0 {
			return stands("The cause of the suspension stands: there is no credit.")
		}
	}
	return nil
}

// abort ends a campaign. Completed but not settled it stays completed, and no further tries follow.
func (s *server) abort(ctx context.Context, in *actionIn) (*campaignOut, error) {
	return s.do(ctx, in, schemas.TriggerAbort, func(c *store.Campaign) (fanfarev1.State, error) {
		if c.State == fanfarev1.State_STATE_COMPLETED {
			if !c.Settled.IsZero() {
				p := wrongState(c.State, schemas.TriggerAbort)
				p.Detail, p.AllowedActions = "abort is not possible: the campaign is completed and settled", actionsOf(c)
				return 0, p
			}
			return fanfarev1.State_STATE_COMPLETED, nil
		}
		return fanfarev1.State_STATE_ABORTED, nil
	})
}

func (s *server) unschedule(ctx context.Context, in *actionIn) (*campaignOut, error) {
	return s.do(ctx, in, schemas.TriggerUnschedule, always(fanfarev1.State_STATE_CONFIGURED))
}

func (s *server) start(ctx context.Context, in *actionIn) (*campaignOut, error) {
	return s.do(ctx, in, schemas.TriggerStart, func(c *store.Campaign) (fanfarev1.State, error) {
		if c.State != fanfarev1.State_STATE_READY { // of a scheduled one the scheduler pulls it
			return 0, wrongState(c.State, schemas.TriggerStart)
		}
		return fanfarev1.State_STATE_PREPARING, nil
	})
}

// duplicate makes a draft of the same content (R85).
func (s *server) duplicate(ctx context.Context, in *actionIn) (*campaignOut, error) {
	who := requestOf(ctx).who
	vocab, p := vocabulary(in.Vocab)
	if p != nil {
		return nil, p
	}
	if !who.tenant.CampaignsEnabled {
		return nil, problem(CodeCampaignsDisabled, "The tenant does not have campaigns_enabled.")
	}
	c, err := s.campaign(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	clone := store.Campaign{Tenant: c.Tenant, Spec: c.Spec, State: fanfarev1.State_STATE_DRAFT}
	clone.TestRun = c.TestRun || who.key.Test
	clone.ReplayOf, clone.ListEnds, clone.Counted = 0, nil, time.Time{}
	clone.Name = truncateRunes(strings.TrimSuffix(c.Name, " (copy)"), maxName-len(" (copy)")) + " (copy)"
	if clone.Schedule != nil && clone.Schedule.At.Before(s.Now()) {
		clone.Schedule = nil
	}
	made, err := s.Store.CreateCampaign(ctx, clone, s.cause(ctx))
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &campaignOut{"/api/campaigns/" + made.ID(), etag(made.Version), view(&made, &who.tenant, vocab)}, nil
}

func truncateRunes(s string, n int) string {
	r := []rune(s)
	return string(r[:min(n, len(r))])
}

func (s *server) campaignEvents(ctx context.Context, in *eventsIn) (*eventsOut, error) {
	who := requestOf(ctx).who
	c, err := s.campaign(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	rows, err := s.Store.CampaignEvents(ctx, who.tenant.ID, c.ID())
	if err != nil {
		return nil, s.storeProblem(err)
	}
	out := &Page[CampaignEvent]{Data: []CampaignEvent{}, Limit: len(rows), Total: len(rows)}
	for i := range rows {
		e := &rows[i]
		v := CampaignEvent{
			To: schemas.StateName(e.To), Trigger: orNull(string(e.Trigger)), Actor: string(e.Actor), By: e.By, Reason: orNull(e.Reason),
			RequestID: orNull(e.RequestID), Version: e.Version, Time: stamp(e.Time),
		}
		if e.From != fanfarev1.State_STATE_UNSPECIFIED {
			v.From = orNull(schemas.StateName(e.From))
		}
		out.Data = append(out.Data, v)
	}
	return &eventsOut{out}, nil
}
