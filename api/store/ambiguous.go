package store

import (
	"context"

	"fanfare/schemas"
)

// AmbiguousOrder is what a person has decided about the ambiguous recipients of a campaign.
type AmbiguousOrder struct {
	// ID grows with each order of the campaign; the scheduler carries each out once.
	ID     uint64
	Action schemas.AmbiguousAction
	AtMs   int64
}

// OrderAmbiguous records the order of a person about the recipients of a campaign that are ambiguous: to send to them again, or to
// give them up. It is a line of the campaign's history with the person as actor, and reaches the scheduler with the campaign. It is
// possible until the campaign settles; sending again is not after an abort. want is the version of the campaign, 0 for any.
func (s *Store) OrderAmbiguous(ctx context.Context, tenant, id string, want uint64, action schemas.AmbiguousAction, cause Cause) (Campaign, error) {
	trigger := schemas.TriggerResend
	switch action {
	case schemas.AmbiguousActionResend:
	case schemas.AmbiguousActionGiveUp:
		trigger = schemas.TriggerGiveUp
	default:
		return Campaign{}, &FieldError{"Action", action.String(), "want resend or give_up"}
	}
	return s.UpdateCampaign(ctx, tenant, id, want, cause, func(c *Campaign) (schemas.Trigger, error) {
		stopped := c.State == schemas.StateCompleted && c.Reason == ReasonAborted
		if !c.Settled.IsZero() || stopped && trigger == schemas.TriggerResend {
			return "", &StateError{State: c.State, To: c.State, Trigger: trigger}
		}
		c.Ambiguous = &AmbiguousOrder{ID: c.Version + 1, Action: action, AtMs: s.now().UnixMilli()}
		return trigger, nil
	})
}
