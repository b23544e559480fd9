package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// Moderator checks the content of a campaign before it is confirmed (R81).
type Moderator interface {
	// Moderate returns why the content must not be sent, "" when it may be sent.
	Moderate(ctx context.Context, tenant string, spec *store.Spec) (reason string, err error)
}

// Approver decides who may confirm which campaign (R48, four eyes).
type Approver interface {
	// Approve returns why this key must not confirm this campaign, "" when it may.
	Approve(ctx context.Context, key *store.Key, c *store.Campaign) (reason string, err error)
}

// ConfirmInput guards a confirm against a changed price (C13). The body may be left out.
type ConfirmInput struct {
	ExpectedCost *Money  `json:"expectedCost,omitzero" doc:"Confirm only if the cost is this."`
	PriceVersion *string `json:"priceVersion,omitzero" doc:"Confirm only if the price has this version."`
}

// Confirmation is the answer of confirm (R98): E's four fields. A repeated confirm answers the same.
type Confirmation struct {
	ID            string  `json:"id" doc:"The campaign." example:"camp_12345"`
	Status        string  `json:"status" doc:"Always confirmed." example:"confirmed"`
	ScheduledTime *string `json:"scheduledTime" format:"date-time" doc:"When it starts, in UTC; null when it starts at once or waits for a manual start."`
	Message       string  `json:"message" doc:"What happens next, in a sentence."`
}

func (s *server) confirm(ctx context.Context, in *confirmIn) (*confirmOut, error) {
	at, err := s.loadCampaign(ctx, in.ID, in.IfMatch, "")
	if err != nil {
		return nil, err
	}
	who, c, version := at.who, at.campaign, at.version
	if err := testKeyMay(who, c); err != nil {
		return nil, err
	}
	if wasConfirmed(c) {
		return &confirmOut{etag(c.Version), confirmation(c)}, nil
	}
	if c.State == schemas.StateRejected || schemas.Terminal(c.State) {
		return nil, notPossible(c, schemas.TriggerConfirm)
	}
	if version != 0 && version != c.Version {
		return nil, problem.New(problem.CodeVersionMismatch, "If-Match is version %d; version %d is stored.", version, c.Version)
	}
	var guard ConfirmInput
	if in.Body != nil {
		guard = in.Body.Value
	}
	done, err := s.confirmOnce(ctx, who, c, guard)
	// If another request confirmed it first, the client has what it asked for.
	if errors.Is(err, schemas.ErrConflict) || errors.Is(err, schemas.ErrTransition) {
		if again, err2 := s.campaign(ctx, who, in.ID); err2 == nil && wasConfirmed(again) {
			return &confirmOut{etag(again.Version), confirmation(again)}, nil
		}
		if version == 0 && errors.Is(err, schemas.ErrConflict) {
			return nil, problem.New(problem.CodeConflict, "The campaign changed while it was confirmed.").Because(err)
		}
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	s.traceConfirm(ctx, done)
	return &confirmOut{etag(done.Version), confirmation(done)}, nil
}

// wasConfirmed reports whether the campaign is confirmed: it is active or completed.
func wasConfirmed(c *store.Campaign) bool {
	return !c.Confirmed.IsZero() && (schemas.Active(c.State) || c.State == schemas.StateCompleted)
}

func confirmation(c *store.Campaign) *Confirmation {
	out := &Confirmation{ID: c.ID(), Status: schemas.Word(schemas.StateScheduled, schemas.VocabularyE)}
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

// confirmOnce checks content and approval, then calls the store, which checks and writes the rest in one transaction:
// the audience, the limit of active campaigns, the money, the state.
func (s *server) confirmOnce(ctx context.Context, who *principal, c *store.Campaign, guard ConfirmInput) (*store.Campaign, error) {
	if !who.tenant.CampaignsEnabled {
		return nil, problem.New(problem.CodeCampaignsDisabled, "The tenant does not have campaigns_enabled.")
	}
	c, err := s.configure(ctx, c)
	if err != nil {
		return nil, err
	}
	if _, err := s.mergeFields(ctx, who.tenant.ID, &c.Spec, false); err != nil {
		return nil, err
	}
	if err := s.mayConfirm(ctx, who, c); err != nil {
		return nil, err
	}
	refs, err := s.lookUp(ctx, who, &c.Spec, false)
	if err != nil {
		return nil, err
	}
	if err := refs.problems.Err(); err != nil {
		return nil, err
	}
	if err := s.maySend(ctx, who, c, refs.legs); err != nil {
		return nil, err
	}
	c.LinkBase = refs.linkBase
	segs, err := s.segments(ctx, who, c)
	if err != nil {
		return nil, err
	}
	out, err := s.storeConfirm(ctx, who, c, guard, segs)
	if errors.Is(err, errTestChanged) { // one retry is enough: lists rarely become test lists
		c.Test = !c.Test
		out, err = s.storeConfirm(ctx, who, c, guard, segs)
	}
	if err != nil {
		return nil, s.listGone(err)
	}
	return &out, nil
}

// errTestChanged means that, since the campaign was last written, one of its lists has become a test list or is no
// longer one.
var errTestChanged = errors.New("a list of the campaign has become a test list, or is no longer one")

// storeConfirm confirms the campaign in the store, which decides from the current lists whether the campaign is a test.
func (s *server) storeConfirm(ctx context.Context, who *principal, was *store.Campaign, guard ConfirmInput, segs []segmentsOf) (store.Campaign, error) {
	resolved, refs, err := s.resolveLegs(ctx, who, was)
	if err != nil {
		return store.Campaign{}, err
	}
	var weights [][]uint32
	if len(was.Variants) > 0 {
		weights = [][]uint32{variantWeights(&was.Spec)}
	}
	_, policy, err := s.policyRow(ctx, was.Tenant)
	if err != nil {
		return store.Campaign{}, err
	}
	share, err := s.deliveredShare(ctx, was.Tenant)
	if err != nil {
		return store.Campaign{}, err
	}
	check := &ruleCheck{s: s, who: who, policy: policy, rate: s.rate(ctx, who, was)}
	out, err := s.Store.Confirm(ctx, was.Tenant, was.ID(), was.Version, s.cause(ctx), func(d store.Confirmation, c *store.Campaign) (uint64, error) {
		if c.Test != was.Test {
			return 0, errTestChanged
		}
		if err := testKeyMay(who, c); err != nil {
			return 0, err
		}
		if p := refs.outside(d.Audience.Countries); p != nil {
			return 0, p
		}
		if err := check.confirm(c, refs, mixOf(d.Audience.Countries)); err != nil {
			return 0, err
		}
		c.LinkBase, c.LinkTable = refs.linkBase, linkTable(s.LinkURL, resolved, c.UTM)
		if c.LinkTable != nil {
			c.LinkTable.ShortDomains, c.LinkTable.OptOutDomains = refs.shortDomains, refs.optOutDomains
		}
		contacts := mixOf(d.Audience.Countries)
		priced := slices.Clone(resolved)
		for i, leg := range legs(c, d.Prices, contacts.total(), s.Now()) { // with the prices of the transaction
			priced[i].Price, priced[i].Prices = leg.Price, leg.Prices
		}
		b := priceOf(c, &d.Tenant, priced, contacts, segs)
		b.version = priceVersion(c, priced, d.Audience)
		if guard.ExpectedCost != nil && *guard.ExpectedCost != Money(b.cost) || guard.PriceVersion != nil && *guard.PriceVersion != b.version {
			p := problem.New(problem.CodePriceChanged, "The campaign now costs %s %s (%s).", Money(b.cost), d.Tenant.Currency, b.version)
			p.AllowedActions = actionsIn(c.State)
			return 0, p
		}
		c.Quote = store.Quote{Version: b.version, Cost: b.cost, Contacts: d.Audience.Eligible}
		c.Legs, c.Weights, c.State, c.Scheduled = priced, weights, schemas.StateReady, time.Time{}
		most := uint64(0)
		if c.Test { // a test costs nothing
			for i := range c.Legs {
				c.Legs[i].Price, c.Legs[i].Prices = 0, nil
			}
		} else {
			available := d.Balance.Available
			if d.Balance.Unlimited {
				available = math.MaxUint64
			}
			most = affordable(c, &d.Tenant, c.Legs, contacts, segs, available)
		}
		switch {
		case c.SendImmediately:
			c.State = schemas.StatePreparing
		case c.Schedule != nil:
			c.State, c.Scheduled = schemas.StateScheduled, c.Schedule.At
		}
		c.Forecast = s.forecast(ctx, who, c, contacts, share)
		return most, nil
	})
	check.count(err)
	return out, err
}

// mayConfirm checks schedule, approval and moderation.
func (s *server) mayConfirm(ctx context.Context, who *principal, c *store.Campaign) error {
	var ps problem.List
	if c.Schedule != nil {
		checkNotPast(&ps, c.Schedule.At, s.Now(), c.SendImmediately)
	}
	if err := ps.Err(); err != nil {
		return err
	}
	if s.Approver != nil {
		reason, err := s.Approver.Approve(ctx, &who.key, c)
		if err != nil {
			return problem.Unavailable(5*time.Second, err, "Approval could not be checked.")
		}
		if reason != "" {
			return problem.New(problem.CodeApprovalRequired, "%s", reason)
		}
	}
	if s.Moderator == nil {
		return nil
	}
	reason, err := s.Moderator.Moderate(ctx, who.tenant.ID, &c.Spec)
	if err != nil {
		return problem.Unavailable(5*time.Second, err, "The content could not be checked.")
	}
	if reason == "" {
		return nil
	}
	return s.reject(ctx, c, reason)
}

// reject stores the moderator's reason and returns the problem that states it.
func (s *server) reject(ctx context.Context, c *store.Campaign, reason string) error {
	cause := s.cause(ctx)
	cause.Actor, cause.Reason = schemas.ActorGuard, reason
	_, err := s.Store.UpdateCampaign(ctx, c.Tenant, c.ID(), c.Version, cause, func(c *store.Campaign) (schemas.Trigger, error) {
		c.State = schemas.StateRejected
		return schemas.TriggerReject, nil
	})
	if err != nil {
		return s.storeProblem(err)
	}
	return problem.New(problem.CodeContentRejected, "%s", reason)
}

// variantWeights returns the weights of the variants as the client gave them.
func variantWeights(spec *store.Spec) []uint32 {
	out := make([]uint32, len(spec.Variants))
	for i, v := range spec.Variants {
		out[i] = v.Weight
	}
	return out
}

// resolveLegs returns the legs of a campaign with their content and routes, and checks that each route exists, is
// enabled and carries the channel. When a leg names no route and the tenant's default route does not carry its channel,
// it uses the best route of the channel. A leg that names no route may go over others while its route is down; a sender
// that belongs to a route names it. A test always uses simulated routes (X14).
func (s *server) resolveLegs(ctx context.Context, who *principal, c *store.Campaign) ([]store.Leg, *found, error) {
	refs, err := s.lookUp(ctx, who, &c.Spec, false)
	if err != nil {
		return nil, nil, err
	}
	if err := refs.problems.Err(); err != nil {
		return nil, nil, err
	}
	out := legs(c, nil, 0, s.Now())
	if len(refs.legs) != len(out) {
		return nil, nil, fmt.Errorf("campaign %s has %d legs with content of %d", c.ID(), len(refs.legs), len(out))
	}
	for i := range out {
		leg, ref := &out[i], &refs.legs[i]
		leg.Content, leg.MaxConcurrent = ref.Content, ref.MaxConcurrent
		leg.Route, leg.Sender = cmp.Or(ref.Route, who.tenant.DefaultRoute), ref.Sender
		if c.Test {
			r, err := s.routes.simulated(ctx, leg.Channel)
			if err != nil {
				return nil, nil, err
			}
			leg.Route = r.Name
		}
		r, err := s.routes.route(ctx, leg.Route)
		if ref.Route == "" && !c.Test {
			r, err = s.routeInstead(ctx, r, err, leg.Channel, c.Number)
			if err == nil {
				leg.Route = r.Name
			}
		}
		switch {
		case errors.Is(err, schemas.ErrNotFound):
			return nil, nil, problem.Field(problem.CodeInvalid, "route", "There is no route %q.", leg.Route)
		case err != nil:
			return nil, nil, s.storeProblem(err)
		case !r.Enabled && slices.Contains(r.Channels, leg.Channel):
			return nil, nil, problem.Field(problem.CodeInvalid, "route", "Route %q is paused.", r.Name).WithFix("Ask the operator to resume it, or name another route.")
		case !carries(r, leg.Channel):
			return nil, nil, problem.Field(problem.CodeInvalid, pick(i == 0, "channel", "sendingMode"), "Route %q does not carry %s.", r.Name, schemas.ChannelName(leg.Channel))
		}
		if ref.Route == "" {
			others, err := s.routes.others(ctx, r, leg.Channel)
			if err != nil {
				return nil, nil, s.storeProblem(err)
			}
			for _, other := range others {
				leg.OtherRoutes = append(leg.OtherRoutes, other.Name)
			}
		}
		if fault := badSender(leg.Sender, leg.Channel); fault != "" {
			return nil, nil, problem.Field(problem.CodeInvalid, "sender", "%s", fault)
		}
	}
	return out, refs, nil
}

// routeInstead returns the route of a leg that names none. It is the tenant's default route, found with err, unless this
// does not carry the channel: then it is the best route of the channel. A default route that is paused is replaced only
// by a route that may carry for it ([routeCache.others]).
func (s *server) routeInstead(ctx context.Context, r *store.Route, err error, channel schemas.Channel, pick uint64) (*store.Route, error) {
	switch {
	case err == nil && slices.Contains(r.Channels, channel) && r.Enabled:
		return r, nil
	case err == nil && slices.Contains(r.Channels, channel):
		return s.routes.carrying(ctx, r, channel)
	case err != nil && !errors.Is(err, schemas.ErrNotFound):
		return nil, err
	}
	if best, bestErr := s.routes.best(ctx, channel, pick); bestErr == nil {
		return best, nil
	}
	return r, err
}
