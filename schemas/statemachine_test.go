package schemas_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"fanfare/schemas"
)

// Random histories of a campaign by the table of transitions: no campaign sends before somebody confirmed it, nothing
// is sent after a final state, an error about a wrong state names only what a user can do there, and from every state
// that a history reaches, an end can be reached.
func TestStateMachineHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state, confirmed, ended := schemas.StateUnspecified, false, false
		for range rapid.IntRange(1, 40).Draw(t, "length") {
			var from []schemas.Transition
			for _, tr := range schemas.Transitions {
				if tr.From == state {
					from = append(from, tr)
				}
			}
			for _, trigger := range schemas.Allowed(state) {
				if !slices.ContainsFunc(from, func(tr schemas.Transition) bool {
					return tr.Trigger == trigger && schemas.CanTransition(state, tr.To, trigger) && slices.Contains(tr.Actors, schemas.ActorUser)
				}) {
					t.Fatalf("in %v, %v is offered to users, who cannot do it", state, trigger)
				}
			}
			if len(from) == 0 {
				if !schemas.Terminal(state) {
					t.Fatalf("nothing leads out of %v, which is not final", state)
				}
				return
			}
			tr := rapid.SampledFrom(from).Draw(t, "transition")
			confirmed = confirmed || tr.Trigger == schemas.TriggerConfirm
			if schemas.Editable(tr.To) { // edited or taken back: it must be confirmed again
				confirmed = false
			}
			if tr.To == schemas.StateSending && !confirmed {
				t.Fatalf("%v sends, and nobody confirmed it", tr)
			}
			if ended && tr.To == schemas.StateSending && tr.Trigger == schemas.TriggerDeal {
				t.Fatalf("%v begins to send after the end", tr)
			}
			ended = (ended || schemas.Terminal(tr.To)) && !schemas.Editable(tr.To)
			if tr.From == schemas.StateCompleted && tr.Trigger == schemas.TriggerPause { // its retries go on until it is settled
				ended = false
			}
			state = tr.To
			if !endsFrom(state) {
				t.Fatalf("no end can be reached from %v", state)
			}
		}
	})
}

// endsFrom reports whether a final state can be reached.
func endsFrom(state schemas.State) bool {
	seen := map[schemas.State]bool{state: true}
	for next := []schemas.State{state}; len(next) > 0; next = next[1:] {
		if schemas.Terminal(next[0]) {
			return true
		}
		for _, tr := range schemas.Transitions {
			if tr.From == next[0] && !seen[tr.To] {
				seen[tr.To] = true
				next = append(next, tr.To)
			}
		}
	}
	return false
}
