package api_test

import (
	"strings"
	"testing"

	"fanfare/schemas"
)

// TestDecideAmbiguous: a person decides about ambiguous recipients until the campaign settles; the order is in the
// record that the scheduler reads, and in the history with who gave it.
func TestDecideAmbiguous(t *testing.T) {
	w := newEnv(t)
	states := w.states()
	for state, want := range map[schemas.State][2]int{ // resend, give_up
		schemas.StateDraft: {409, 409}, schemas.StateScheduled: {409, 409}, schemas.StateSending: {200, 200}, schemas.StatePaused: {200, 200},
		schemas.StateSuspended: {200, 200}, schemas.StateCompleted: {200, 200}, schemas.StateAborted: {409, 200}, schemas.StateFailed: {409, 409},
	} {
		path := "/api/campaigns/" + states[state] + "/ambiguous"
		for i, action := range []string{"resend", "give_up"} {
			if got := w.call("POST", path, `{"action":"`+action+`"}`); got.status != want[i] {
				t.Errorf("%s of a campaign that is %s: got %d %s, want %d", action, schemas.StateName(state), got.status, got.body, want[i])
			}
		}
	}
	id := states[schemas.StateCompleted]
	path := "/api/campaigns/" + id
	w.call("POST", path+"/ambiguous", `{"action":"forget"}`).problem(422, "invalid_value", "action")
	w.call("POST", path+"/ambiguous", `{}`).problem(422, "invalid_value", "action")

	before, err := w.store.Campaign(t.Context(), w.tenant.ID, id)
	w.check(err)
	w.call("POST", path+"/ambiguous", `{"action":"resend"}`).want(200)
	after, err := w.store.Campaign(t.Context(), w.tenant.ID, id)
	w.check(err)
	if o := after.Ambiguous; o == nil || o.Action != schemas.AmbiguousActionResend || o.ID <= before.Ambiguous.ID || after.State != schemas.StateCompleted {
		t.Errorf("order %+v of a campaign that is %s, want a resend that is newer than %+v", o, after.State, before.Ambiguous)
	}
	answer := w.call("GET", path+"/events", "").want(200)
	if !strings.Contains(string(answer.body), `"resend_ambiguous"`) || !strings.Contains(string(answer.body), `"user"`) {
		t.Errorf("history %s, want the order and its actor", answer.body)
	}
	_, err = w.store.Apply(t.Context(), schemas.Change{
		Tenant: w.tenant.ID, Campaign: id, Version: after.Version, To: after.State, Actor: schemas.ActorScheduler, At: w.clock.now(), Settled: true,
	})
	w.check(err)
	for _, action := range []string{"resend", "give_up"} {
		w.call("POST", path+"/ambiguous", `{"action":"`+action+`"}`).want(409)
	}
}
