package api

import (
	"slices"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// actionNames are the names under which the API offers the triggers of the state machine.
var actionNames = map[schemas.Trigger]string{
	schemas.TriggerPrice: "price", schemas.TriggerEdit: "edit", schemas.TriggerConfirm: "confirm", schemas.TriggerUnschedule: "unschedule",
	schemas.TriggerStart: "start", schemas.TriggerCancel: "delete", schemas.TriggerPause: "pause", schemas.TriggerResume: "resume",
	schemas.TriggerAbort: "abort", schemas.TriggerReschedule: "reschedule", schemas.TriggerResend: "ambiguous", schemas.TriggerGiveUp: "ambiguous",
}

// actionsIn returns the actions that a user may take in a state.
func actionsIn(state schemas.State) []string {
	out := []string{}
	for _, t := range schemas.Allowed(state) {
		if name := actionNames[t]; name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	if schemas.Terminal(state) {
		out = append(out, "remove")
	}
	return append(out, "duplicate")
}

// actionsOf returns the actions that a user may take with this campaign. Besides the state it considers that a settled
// campaign cannot be paused or aborted and takes no decision about ambiguous recipients, and that a complete draft can
// be priced and confirmed (C29).
func actionsOf(c *store.Campaign) []string {
	out := actionsIn(c.State)
	if c.State == schemas.StateDraft && len(missing(&c.Spec)) == 0 {
		out = append(out, actionNames[schemas.TriggerConfirm], actionNames[schemas.TriggerPrice])
	}
	if !c.Settled.IsZero() {
		out = slices.DeleteFunc(out, func(a string) bool {
			return a == actionNames[schemas.TriggerAbort] || a == actionNames[schemas.TriggerPause] || a == actionNames[schemas.TriggerResend]
		})
	}
	return out
}

// wrongState returns a 409 that names the actions that are possible instead.
func wrongState(state schemas.State, trigger schemas.Trigger) *problem.Problem {
	p := problem.New(problem.CodeWrongState, "%s is not possible: the campaign is %s", trigger, schemas.StateName(state))
	p.AllowedActions = actionsIn(state)
	return p
}

// notPossible is wrongState for a campaign that is at hand: it names the actions that are possible with this campaign,
// as its allowedActions do.
func notPossible(c *store.Campaign, trigger schemas.Trigger) *problem.Problem {
	p := wrongState(c.State, trigger)
	p.AllowedActions = actionsOf(c)
	return p
}
