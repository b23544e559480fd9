package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"fanfare/api/compliance"
	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

type (
	actionIn struct {
		ID      string `path:"id" doc:"Id of the campaign." example:"camp_12345"`
		IfMatch string `header:"If-Match"`
		Vocab   string `query:"vocab"`
	}
	confirmIn struct {
		ID      string `path:"id" doc:"Id of the campaign." example:"camp_12345"`
		IfMatch string `header:"If-Match"`
		Body    *problem.Body[ConfirmInput]
	}
	confirmOut struct {
		ETag string `header:"ETag"`
		Body *Confirmation
	}
	liveIn struct {
		ID      string `path:"id" doc:"Id of the campaign." example:"camp_12345"`
		IfMatch string `header:"If-Match"`
		Vocab   string `query:"vocab"`
		Body    problem.Body[LiveInput]
	}
	eventsIn struct {
		ID string `path:"id" doc:"Id of the campaign." example:"camp_12345"`
	}
	eventsOut struct{ Body *Page[CampaignEvent] }
)

// CampaignEvent is one entry of a campaign's history.
type CampaignEvent struct {
	From      *string `json:"from" doc:"State before; null for the creation."`
	To        string  `json:"to" doc:"State afterwards."`
	Trigger   *string `json:"trigger" doc:"What changed the state; null for a change that left the state as it was."`
	Actor     string  `json:"actor" doc:"Role in which it was done: user, approver, guard (a check of the system), scheduler or operator."`
	By        string  `json:"by" doc:"Id of the key or person, or the name of the stage that made the change."`
	ByName    string  `json:"byName" doc:"Name of the person or of the key; the same as by when it is neither."`
	Reason    *string `json:"reason" doc:"Why, such as no_credit or a text that a person wrote; null when none was given."`
	RequestID *string `json:"requestId" doc:"Id of the request that caused it; null for what the system did by itself."`
	Version   uint64  `json:"version" doc:"Version of the campaign afterwards."`
	Time      string  `json:"time" format:"date-time" doc:"When it happened, in UTC."`
}

func (s *server) registerActions() {
	s.registerAmbiguous()
	s.registerTestSend()
	s.registerReschedule()
	register(s, operation{
		id: "confirmCampaign", method: http.MethodPut, path: "/api/campaigns/{id}/confirm", summary: "Confirm: send now or at the scheduled time",
		scope: store.ScopeConfirm, errors: []int{400, 402, 404, 409, 412, 422}, testKeys: testKeysConfined, tag: campaignTag,
		describe: "Reserves the money and fixes the audience. Repeating it on a confirmed campaign returns the same answer and changes nothing.",
	}, s.confirm)
	for _, a := range []struct {
		name, summary string
		scope         store.Scope
		do            func(context.Context, *actionIn) (*campaignOut, error)
	}{
		{"pause", "Pause: nothing more is handed over to the carrier; what was handed over completes. Repeating it publishes it again", store.ScopeCampaigns, s.pause},
		{"resume", "Resume a paused or suspended campaign", store.ScopeCampaigns, s.resume},
		{"abort", "Abort: what was not sent will never be sent. Repeating it publishes it again", store.ScopeCampaigns, s.abort},
		{"unschedule", "Take back the confirmation of a campaign that has not started", store.ScopeCampaigns, s.unschedule},
		{"start", "Start a campaign that waits for a manual start", store.ScopeConfirm, s.start},
	} {
		for _, method := range []string{http.MethodPost, http.MethodPut} {
			id := a.name + "Campaign" + pick(method == http.MethodPut, "Put", "")
			errs := []int{404, 409, 412}
			if a.name == "start" {
				errs = append(errs, 422) // rules of countries
			}
			register(s, operation{
				id: id, method: method, path: "/api/campaigns/{id}/" + a.name, summary: a.summary, scope: a.scope,
				errors: errs, testKeys: testKeysConfined, tag: campaignTag,
			}, a.do)
		}
	}
	register(s, operation{
		id: "duplicateCampaign", method: http.MethodPost, path: "/api/campaigns/{id}/duplicate", summary: "Copy as a new draft", status: http.StatusCreated,
		scope: store.ScopeCampaigns, errors: []int{404}, testKeys: testKeysConfined, tag: campaignTag,
	}, s.duplicate)
	register(s, operation{
		id: "patchLiveCampaign", method: http.MethodPatch, path: "/api/campaigns/{id}/live", summary: "Change an active campaign",
		scope: store.ScopeCampaigns, errors: []int{400, 404, 409, 412, 422}, testKeys: testKeysConfined, tag: campaignTag,
		describe: "Rate, weight, calling hours, tags and notes. Calling hours that open earlier or close later need the scope `confirm`.",
	}, s.patchLive)
	register(s, operation{
		id: "listCampaignEvents", method: http.MethodGet, path: "/api/campaigns/{id}/events", summary: "History of a campaign",
		scope: store.ScopeRead, errors: []int{404}, tag: campaignTag,
	}, s.campaignEvents)
}

// errDone ends a change that was already made.
var errDone = errors.New("nothing to change")

// change changes a campaign. mutate gets the newest row, changes it, and returns the trigger of the change of state, ""
// when the state stays. It runs inside the transaction and may run several times, so it must have no other effect. A
// change without a version is retried when another request changed the campaign first.
func (s *server) change(ctx context.Context, c *store.Campaign, version uint64, mutate func(*store.Campaign) (schemas.Trigger, error)) (*store.Campaign, error) {
	const tries = 5 // more conflicts in a row were never seen; after that the client gets a 409
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
			return nil, problem.New(problem.CodeConflict, "The campaign changed while the request ran.").Because(err)
		}
		return nil, s.storeProblem(err)
	}
}

// do runs an action that only changes the state.
func (s *server) do(ctx context.Context, in *actionIn, trigger schemas.Trigger, to func(*store.Campaign) (schemas.State, error)) (*campaignOut, error) {
	at, err := s.loadCampaign(ctx, in.ID, in.IfMatch, in.Vocab)
	if err != nil {
		return nil, err
	}
	return s.doAt(ctx, at, trigger, to)
}

// doAt is do for a campaign that is loaded.
func (s *server) doAt(ctx context.Context, at *addressed, trigger schemas.Trigger, to func(*store.Campaign) (schemas.State, error)) (*campaignOut, error) {
	c, err := s.change(ctx, at.campaign, at.version, func(c *store.Campaign) (schemas.Trigger, error) {
		if err := testKeyMay(at.who, c); err != nil {
			return "", err
		}
		next, err := to(c)
		if err != nil {
			return "", err
		}
		if !schemas.CanTransition(c.State, next, trigger) {
			return "", notPossible(c, trigger)
		}
		c.State = next
		return trigger, nil
	})
	if err != nil {
		return nil, err
	}
	return s.answer(ctx, at, c), nil
}

func always(st schemas.State) func(*store.Campaign) (schemas.State, error) {
	return func(*store.Campaign) (schemas.State, error) { return st, nil }
}

func (s *server) pause(ctx context.Context, in *actionIn) (*campaignOut, error) {
	return s.doAgain(ctx, in, schemas.TriggerPause, schemas.StatePaused, always(schemas.StatePaused))
}

// doAgain is do for an action that stops sending. When the campaign is already in the target state, it changes nothing
// and publishes the campaign again, in case Kafka has lost its record.
func (s *server) doAgain(
	ctx context.Context, in *actionIn, trigger schemas.Trigger, is schemas.State, to func(*store.Campaign) (schemas.State, error),
) (*campaignOut, error) {
	repeated := false
	out, err := s.do(ctx, in, trigger, func(c *store.Campaign) (schemas.State, error) {
		if repeated = c.State == is; repeated {
			return 0, errDone
		}
		return to(c)
	})
	if err == nil && repeated {
		err = s.storeProblem(s.Store.Republish(ctx, schemas.TypeCampaign, schemas.CampaignKey(requestOf(ctx).who.tenant.ID, in.ID)))
	}
	return out, err
}

// resume continues a campaign where it stopped. A suspended campaign is resumed only when the cause of the suspension
// is gone: otherwise the scheduler would suspend it again at once.
func (s *server) resume(ctx context.Context, in *actionIn) (*campaignOut, error) {
	who := requestOf(ctx).who
	c, err := s.campaign(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	if c.State == schemas.StateSuspended {
		if err := s.causeGone(ctx, who, c); err != nil {
			return nil, err
		}
	}
	return s.do(ctx, in, schemas.TriggerResume, func(c *store.Campaign) (schemas.State, error) {
		return pick(c.Started.IsZero(), schemas.StatePreparing, schemas.StateSending), nil
	})
}

// causeGone returns a problem when the cause of a suspension still exists, as far as the API can check it.
func (s *server) causeGone(ctx context.Context, who *principal, c *store.Campaign) error {
	stands := func(format string, args ...any) error {
		p := problem.New(problem.CodeWrongState, format, args...).WithFix("Remove the cause, then resume.")
		p.AllowedActions = actionsIn(c.State)
		return p
	}
	if !who.tenant.Enabled {
		return stands("The cause of the suspension still exists: the tenant is disabled.")
	}
	// usable reports whether a leg's route, or one that carries the leg in its place, passes a test.
	usable := func(leg *store.Leg, is func(route string) bool) bool {
		return is(leg.Route) || slices.ContainsFunc(leg.OtherRoutes, is)
	}
	for i := range c.Legs {
		if !usable(&c.Legs[i], func(name string) bool { r, err := s.routes.route(ctx, name); return err != nil || r.Enabled }) {
			return stands("The cause of the suspension (%s) still exists: route %q is disabled.", c.Reason, c.Legs[i].Route)
		}
	}
	if c.Reason == schemas.ReasonRouteDown || c.Reason == schemas.ReasonProviderAuth {
		for i := range c.Legs {
			leg := &c.Legs[i]
			if h := s.healthOf(leg.Route); !usable(leg, func(name string) bool { return s.healthOf(name).State != schemas.LineStateDown }) {
				return stands("The cause of the suspension (%s) still exists: route %q has been down since %s. The campaign is resumed by itself when the route is up again, unless the operator has switched that off.",
					c.Reason, leg.Route, stamp(h.Since))
			}
		}
	}
	if c.Reason == reasonTemplatePaused {
		used, err := templatesOf(c)
		if err != nil {
			return err
		}
		usable, err := s.templatesUsable(ctx, c.Tenant, used)
		if err != nil {
			return s.storeProblem(err)
		}
		if !usable {
			return stands("The cause of the suspension still exists: its template is not approved.")
		}
	}
	if c.Reason == schemas.ReasonNoDomains {
		pool, err := s.Store.Domains(ctx, c.Tenant)
		if err != nil {
			return s.storeProblem(err)
		}
		if spent := store.SpentDomains(c, pool); len(spent) > 0 {
			return stands("The cause of the suspension still exists. %s", spentSentence(c, spent))
		}
	}
	if c.Reason == store.ReasonNoCredit {
		balance, err := s.Store.Balance(ctx, who.tenant.ID)
		if err != nil {
			return s.storeProblem(err)
		}
		if !balance.Unlimited && (balance.Owed > 0 || balance.Available == 0) {
			return stands("The cause of the suspension still exists: there is no credit, and %s %s is owed. A top-up resumes the campaign by itself.", Money(balance.Owed), who.tenant.Currency)
		}
	}
	return nil
}

// abort ends a campaign. A completed one that is not settled stays completed, and is not tried again.
func (s *server) abort(ctx context.Context, in *actionIn) (*campaignOut, error) {
	return s.doAgain(ctx, in, schemas.TriggerAbort, schemas.StateAborted, func(c *store.Campaign) (schemas.State, error) {
		if c.State == schemas.StateCompleted {
			if !c.Settled.IsZero() {
				p := notPossible(c, schemas.TriggerAbort)
				p.Detail = "abort is not possible: the campaign is completed and settled"
				return 0, p
			}
			return schemas.StateCompleted, nil
		}
		return schemas.StateAborted, nil
	})
}

func (s *server) unschedule(ctx context.Context, in *actionIn) (*campaignOut, error) {
	return s.do(ctx, in, schemas.TriggerUnschedule, always(schemas.StateConfigured))
}

func (s *server) start(ctx context.Context, in *actionIn) (*campaignOut, error) {
	at, err := s.loadCampaign(ctx, in.ID, in.IfMatch, in.Vocab)
	if err != nil {
		return nil, err
	}
	check, err := s.ruleCheck(ctx, at)
	if err != nil {
		return nil, err
	}
	out, err := s.doAt(ctx, at, schemas.TriggerStart, func(c *store.Campaign) (schemas.State, error) {
		if c.State != schemas.StateReady { // the scheduler starts scheduled campaigns
			return 0, notPossible(c, schemas.TriggerStart)
		}
		now := *c
		now.SendImmediately = true
		return schemas.StatePreparing, check.stays(&now, compliance.Closed, "", fmt.Sprintf("Start it on another day, or give it a time with POST /api/campaigns/%s/reschedule.", c.ID()))
	})
	check.count(err)
	return out, err
}

// duplicate makes a draft with the same content (R85).
func (s *server) duplicate(ctx context.Context, in *actionIn) (*campaignOut, error) {
	who := requestOf(ctx).who
	vocab, p := vocabulary(in.Vocab)
	if p != nil {
		return nil, p
	}
	if !who.tenant.CampaignsEnabled {
		return nil, problem.New(problem.CodeCampaignsDisabled, "The tenant does not have campaigns_enabled.")
	}
	c, err := s.campaign(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	clone := store.Campaign{Tenant: c.Tenant, Spec: c.Spec, State: schemas.StateDraft}
	clone.TestRun = c.TestRun || who.key.Test
	clone.ReplayOf, clone.ListEnds, clone.Counted, clone.Ambiguous, clone.Weights, clone.Countries, clone.LinkTable, clone.Editors = 0, nil, time.Time{}, nil, nil, nil, nil, []string{who.by()}
	clone.Name = truncateRunes(strings.TrimSuffix(c.Name, " (copy)"), maxName-len(" (copy)")) + " (copy)"
	if clone.Schedule != nil && clone.Schedule.At.Before(s.Now()) {
		clone.Schedule, clone.Batches = nil, nil
	}
	made, err := s.Store.CreateCampaign(ctx, clone, s.cause(ctx))
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &campaignOut{"/api/campaigns/" + made.ID(), etag(made.Version), s.show(ctx, &made, &who.tenant, vocab)}, nil
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
			To: schemas.StateName(e.To), Trigger: orNull(string(e.Trigger)), Actor: string(e.Actor), By: e.By, ByName: s.whoNames.of(ctx, who.tenant.ID, e.By), Reason: orNull(e.Reason),
			RequestID: orNull(e.RequestID), Version: e.Version, Time: stamp(e.Time),
		}
		if e.From != schemas.StateUnspecified {
			v.From = orNull(schemas.StateName(e.From))
		}
		out.Data = append(out.Data, v)
	}
	return &eventsOut{out}, nil
}
