package store

import (
	"context"

	"fanfare/schemas"
)

// AmbiguousOrder is a person's decision about the ambiguous recipients of a campaign.
type AmbiguousOrder struct {
	// ID grows with each order of the campaign. The scheduler carries out each order once.
	ID     uint64
	Action schemas.AmbiguousAction
	AtMs   int64
}

// OrderAmbiguous records a person's order to send again to the ambiguous recipients of a campaign, or to give them up.
// It adds an event to the campaign's history with the person as actor, and the order reaches the scheduler in the
// campaign's record. Orders are accepted until the campaign settles; after an abort, the order to send again is
// refused. want is the version of the campaign, 0 for any.
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
