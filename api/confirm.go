package api

import (
	"context"
	"errors"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
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

func (s *server) confirm(ctx context.Context, in *confirmIn) (*confirmOut, error) {
	at, err := s.at(ctx, in.ID, in.IfMatch, "")
	if err != nil {
		return nil, err
	}
	who, c, version := at.who, at.campaign, at.version
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
	if who.key.Test && !c.TestRun { // whoever looks at it later must see that nobody was reached
		if c, err = s.change(ctx, c, c.Version, func(c *store.Campaign) (schemas.Trigger, error) { c.TestRun = true; return "", nil }); err != nil {
			return nil, err
		}
	}
	seg, err := s.segments(ctx, who, c)
	if err != nil {
		return nil, err
	}
	out, err := s.decided(ctx, who, c, guard, seg)
	if errors.Is(err, errTestChanged) { // once: nobody turns lists into lists of testers and back while we look
		c.Test = !c.Test
		out, err = s.decided(ctx, who, c, guard, seg)
	}
	if err != nil {
		return nil, s.listGone(err)
	}
	return &out, nil
}

// errTestChanged: a list of the campaign has become one of testers since it was last changed, or is none any more.
var errTestChanged = errors.New("a list of the campaign is of testers, or is none any more")

// decided hands the campaign to the store, whose answer to whether it is a test is the one that counts.
func (s *server) decided(ctx context.Context, who *principal, was *store.Campaign, guard ConfirmInput, seg segmentsOf) (store.Campaign, error) {
	way, err := s.ways(ctx, who, was)
	if err != nil {
		return store.Campaign{}, err
	}
	return s.Store.Confirm(ctx, was.Tenant, was.ID(), was.Version, s.cause(ctx), func(d store.Confirmation, c *store.Campaign) (uint64, error) {
		if c.Test != was.Test {
			return 0, errTestChanged
		}
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
