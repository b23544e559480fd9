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
	"fanfare/schemas/hours"
)

// Moderator looks at what a campaign says before it is confirmed (R81).
type Moderator interface {
	// Moderate returns why the content may not be sent, "" when it may.
	Moderate(ctx context.Context, tenant string, spec *store.Spec) (reason string, err error)
}

// Approver says who may confirm what (R48, four eyes).
type Approver interface {
	// Approve returns why this key may not confirm this campaign, "" when it may.
	Approve(ctx context.Context, key *store.Key, c *store.Campaign) (reason string, err error)
}

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

// ConfirmInput guards a confirm against a price that has moved (C13). It may be left out.
type ConfirmInput struct {
	ExpectedCost *Money  `json:"expectedCost,omitzero" doc:"Confirm only at this cost."`
	PriceVersion *string `json:"priceVersion,omitzero" doc:"Confirm only at the price that had this version."`
}

// Confirmation is the answer of confirm (R98): E's four fields. It says the same however often it is asked.
type Confirmation struct {
	ID            string  `json:"id" example:"camp_12345"`
	Status        string  `json:"status" example:"confirmed"`
	ScheduledTime *string `json:"scheduledTime" format:"date-time"`
	Message       string  `json:"message"`
}

// LiveInput is what may be changed while a campaign is active (C4).
type LiveInput struct {
	Rate                 Optional[int]      `json:"rate,omitzero" doc:"Most messages per second; 0: no limit of its own."`
	Weight               Optional[int]      `json:"weight,omitzero" doc:"Share against the tenant's other campaigns, 1 to 100."`
	CallingHoursStart    Optional[string]   `json:"callingHoursStart,omitzero"`
	CallingHoursEnd      Optional[string]   `json:"callingHoursEnd,omitzero"`
	CallingHoursTimezone Optional[string]   `json:"callingHoursTimezone,omitzero"`
	Tags                 Optional[[]string] `json:"tags,omitzero"`
	Notes                Optional[string]   `json:"notes,omitzero"`
}

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

func (s *server) confirm(ctx context.Context, in *confirmIn) (*confirmOut, error) {
	who := requestOf(ctx).who
	version, p := ifMatch(in.IfMatch)
	if p != nil {
		return nil, p
	}
	c, err := s.campaign(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	if wasConfirmed(c) {
		return &confirmOut{etag(c.Version), confirmation(c)}, nil
	}
	if c.State == fanfarev1.State_STATE_REJECTED || schemas.Terminal(c.State) {
		return nil, wrongState(c.State, schemas.TriggerConfirm)
	}
	if version != 0 && version != c.Version {
		return nil, problem(CodeVersionMismatch, "If-Match is version %d; version %d is stored.", version, c.Version)
	}
	var guard ConfirmInput
	if in.Body != nil {
		guard = in.Body.Value
	}
	done, err := s.confirmOnce(ctx, who, c, guard)
	// Somebody else may have confirmed it in the meantime: that is what was asked for.
	if errors.Is(err, schemas.ErrConflict) || errors.Is(err, schemas.ErrTransition) {
		if again, err2 := s.campaign(ctx, who, in.ID); err2 == nil && wasConfirmed(again) {
			return &confirmOut{etag(again.Version), confirmation(again)}, nil
		}
		if version == 0 && errors.Is(err, schemas.ErrConflict) {
			return nil, problem(CodeConflict, "The campaign changed while it was confirmed.").because(err)
		}
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &confirmOut{etag(done.Version), confirmation(done)}, nil
}

// wasConfirmed reports whether a confirm of the campaign stands: it is active, or has run to its end.
func wasConfirmed(c *store.Campaign) bool {
	return !c.Confirmed.IsZero() && (schemas.Active(c.State) || c.State == fanfarev1.State_STATE_COMPLETED)
}

func confirmation(c *store.Campaign) *Confirmation {
	out := &Confirmation{ID: c.ID(), Status: schemas.Word(fanfarev1.State_STATE_SCHEDULED, schemas.VocabularyE)}
	switch {
	case c.SendImmediately:
		out.Message = textConfirmedNow
	case c.Schedule != nil:
		out.ScheduledTime, out.Message = stampOrNull(c.Schedule.At), textConfirmedScheduled
	default:
		out.Message = textConfirmedReady
	}
	return out
}

// confirmOnce checks what can be checked beforehand, and hands the rest, which needs one transaction, to the store: the
// audience, the limit of active campaigns, the money, the move.
func (s *server) confirmOnce(ctx context.Context, who *principal, c *store.Campaign, guard ConfirmInput) (*store.Campaign, error) {
	if !who.tenant.CampaignsEnabled {
		return nil, problem(CodeCampaignsDisabled, "The tenant does not have campaigns_enabled.")
	}
	c, err := s.configure(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := s.mayConfirm(ctx, who, c); err != nil {
		return nil, err
	}
	if who.key.Test && !c.Test { // whoever looks at it later must see that nobody was reached
		if c, err = s.change(ctx, c, c.Version, func(c *store.Campaign) (schemas.Trigger, error) { c.Test = true; return "", nil }); err != nil {
			return nil, err
		}
	}
	way, err := s.ways(ctx, who, c)
	if err != nil {
		return nil, err
	}
	seg, err := s.segments(ctx, who, c)
	if err != nil {
		return nil, err
	}
	out, err := s.Store.Confirm(ctx, c.Tenant, c.ID(), c.Version, s.cause(ctx), func(d store.Confirmation, c *store.Campaign) (uint64, error) {
		b := priceOf(c, &d.Tenant, d.Prices, uint64(d.Audience.Eligible), seg)
		b.version = priceVersion(c, d.Prices, d.Audience)
		if guard.ExpectedCost != nil && *guard.ExpectedCost != Money(b.cost) || guard.PriceVersion != nil && *guard.PriceVersion != b.version {
			p := problem(CodePriceChanged, "The campaign now costs %s %s (%s).", Money(b.cost), d.Tenant.Currency, b.version)
			p.AllowedActions = allowedActions(c.State)
			return 0, p
		}
		c.Quote = store.Quote{Version: b.version, Cost: b.cost, Contacts: d.Audience.Eligible}
		c.Legs, c.State, c.Scheduled = way, fanfarev1.State_STATE_READY, time.Time{}
		for i := range c.Legs {
			c.Legs[i].Price = d.Prices[c.Legs[i].Channel]
		}
		if c.Test { // costs nothing
			for i := range c.Legs {
				c.Legs[i].Price = 0
			}
			b.most = 0
		}
		switch {
		case c.SendImmediately:
			c.State = fanfarev1.State_STATE_PREPARING
		case c.Schedule != nil:
			c.State, c.Scheduled = fanfarev1.State_STATE_SCHEDULED, c.Schedule.At
		}
		return b.most, nil
	})
	if err != nil {
		return nil, s.listGone(err)
	}
	return &out, nil
}

// mayConfirm is what a person, or the clock, may have against it.
func (s *server) mayConfirm(ctx context.Context, who *principal, c *store.Campaign) error {
	var ps problems
	if c.Schedule != nil {
		ps.notPast(c.Schedule.At, s.Now(), c.SendImmediately)
	}
	if err := ps.err(); err != nil {
		return err
	}
	if s.Approver != nil {
		reason, err := s.Approver.Approve(ctx, &who.key, c)
		if err != nil {
			return unavailable(5*time.Second, err, "Approval could not be checked.")
		}
		if reason != "" {
			return problem(CodeApprovalRequired, "%s", reason)
		}
	}
	if s.Moderator == nil {
		return nil
	}
	reason, err := s.Moderator.Moderate(ctx, who.tenant.ID, &c.Spec)
	if err != nil {
		return unavailable(5*time.Second, err, "The content could not be checked.")
	}
	if reason == "" {
		return nil
	}
	return s.reject(ctx, c, reason)
}

// reject keeps why the content was refused, and says so.
func (s *server) reject(ctx context.Context, c *store.Campaign, reason string) error {
	cause := s.cause(ctx)
	cause.Actor, cause.Reason = schemas.ActorGuard, reason
	_, err := s.Store.UpdateCampaign(ctx, c.Tenant, c.ID(), c.Version, cause, func(c *store.Campaign) (schemas.Trigger, error) {
		c.State = fanfarev1.State_STATE_REJECTED
		return schemas.TriggerReject, nil
	})
	if err != nil {
		return s.storeProblem(err)
	}
	return problem(CodeContentRejected, "%s", reason)
}

// ways are the legs of a campaign, each checked: its route exists, is enabled and carries the channel. A test goes by a
// simulated route, whatever the tenant's is (X14).
func (s *server) ways(ctx context.Context, who *principal, c *store.Campaign) ([]store.Leg, error) {
	out := legs(c, &who.tenant, who.prices)
	for i := range out {
		leg := &out[i]
		if c.Test || who.key.Test {
			r, err := s.routes.simulated(ctx, leg.Channel)
			if err != nil {
				return nil, err
			}
			leg.Route = r.Name
		}
		r, err := s.routes.route(ctx, leg.Route)
		switch {
		case errors.Is(err, schemas.ErrNotFound):
			return nil, fieldProblem(CodeInvalid, "route", "There is no route %q.", leg.Route)
		case err != nil:
			return nil, s.storeProblem(err)
		case !carries(r, leg.Channel):
			return nil, fieldProblem(CodeInvalid, cond(i == 0, "channel", "sendingMode"), "Route %q does not carry %s.", r.Name, schemas.ChannelName(leg.Channel))
		}
		if fault := badSender(leg.Sender, leg.Channel); fault != "" || leg.Sender == "" {
			return nil, fieldProblem(CodeInvalid, "sender", "%s", cond(fault != "", fault, "The campaign and its tenant have no sender."))
		}
	}
	return out, nil
}

// do is an action that only moves the state.
func (s *server) do(ctx context.Context, in *actionIn, trigger schemas.Trigger, to func(*store.Campaign) (fanfarev1.State, error)) (*campaignOut, error) {
	who := requestOf(ctx).who
	vocab, p := vocabulary(in.Vocab)
	if p != nil {
		return nil, p
	}
	version, p := ifMatch(in.IfMatch)
	if p != nil {
		return nil, p
	}
	c, err := s.campaign(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	c, err = s.change(ctx, c, version, func(c *store.Campaign) (schemas.Trigger, error) {
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
	return &campaignOut{ETag: etag(c.Version), Body: view(c, &who.tenant, vocab)}, nil
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
				return 0, wrongState(c.State, schemas.TriggerAbort)
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
	clone := store.Campaign{Tenant: c.Tenant, Spec: c.Spec, State: fanfarev1.State_STATE_DRAFT, Test: c.Test || who.key.Test}
	clone.ReplayOf = 0
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

func (s *server) patchLive(ctx context.Context, in *liveIn) (*campaignOut, error) {
	who := requestOf(ctx).who
	vocab, p := vocabulary(in.Vocab)
	if p != nil {
		return nil, p
	}
	version, p := ifMatch(in.IfMatch)
	if p != nil {
		return nil, p
	}
	c, err := s.campaign(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	body := &in.Body.Value
	c, err = s.change(ctx, c, version, func(c *store.Campaign) (schemas.Trigger, error) {
		return "", body.apply(c, who)
	})
	if err != nil {
		return nil, err
	}
	return &campaignOut{ETag: etag(c.Version), Body: view(c, &who.tenant, vocab)}, nil
}

// apply changes what may be changed while a campaign runs. What a sender looks at needs a campaign that sends; tags and notes
// are for people and may be changed at any time.
func (in *LiveInput) apply(c *store.Campaign, who *principal) error {
	var ps problems
	if in.Tags.Set {
		tags, p := cleanTags(in.Tags.Value)
		if p != nil {
			ps = append(ps, p)
		}
		c.Tags = tags
	}
	set(&in.Notes, &c.Notes, func(v string) { ps.notes(v) })
	steers := in.Rate.Set || in.Weight.Set || in.CallingHoursStart.Set || in.CallingHoursEnd.Set || in.CallingHoursTimezone.Set
	if steers && !schemas.Active(c.State) {
		p := wrongState(c.State, "a change of rate, weight or calling hours")
		if schemas.Editable(c.State) {
			p = p.fixed("PUT /api/campaigns/%s changes a campaign that is not confirmed.", c.ID())
		}
		return p
	}
	if in.Rate.Set {
		ps.rate(in.Rate.Value)
		c.Rate = uint32(max(in.Rate.Value, 0))
	}
	if in.Weight.Set {
		if v := in.Weight.Value; !in.Weight.Null && (v < 1 || v > 100) {
			ps.add(CodeInvalid, "weight", "%d is not between 1 and 100.", v)
		}
		c.Weight = uint32(max(in.Weight.Value, 0))
	}
	next, found := hoursPatch{start: in.CallingHoursStart, end: in.CallingHoursEnd, zone: in.CallingHoursTimezone}.apply(c.CallingHours, who.tenant.Timezone)
	ps = append(ps, found...)
	if err := ps.err(); err != nil {
		return err
	}
	if widens(c.CallingHours, next) && !who.key.Has(store.ScopeConfirm) {
		return problem(CodeScopeMissing, "Calling hours that open earlier or close later need the scope %q.", string(store.ScopeConfirm))
	}
	c.CallingHours = next
	return nil
}

// widens reports whether there is a minute of some day that next allows and before did not. Zones are compared on a day of
// either half of the year.
func widens(before, next *store.Hours) bool {
	if before == nil {
		return false
	}
	if next == nil {
		return before.Start != before.End
	}
	was, err := hours.New(int(before.Start), int(before.End), before.Zone)
	is, err2 := hours.New(int(next.Start), int(next.End), next.Zone)
	if err != nil || err2 != nil {
		return true
	}
	for _, month := range []time.Month{time.January, time.July} {
		day := time.Date(2026, month, 15, 0, 0, 0, 0, time.UTC)
		for m := range 24 * 60 {
			at := day.Add(time.Duration(m) * time.Minute)
			if is.Open(at) && !was.Open(at) {
				return true
			}
		}
	}
	return false
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
