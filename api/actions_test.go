package api_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fanfare/api"
	"fanfare/api/store"
	"fanfare/schemas"
)

// states drives a campaign into each state of the machine.
func (w *env) states() map[schemas.State]string {
	w.Helper()
	w.lists++
	list := w.list(fmt.Sprintf("states %d", w.lists), 2, 40_000)
	make := func(more string) string {
		return w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"S","channel":"sms","message":"Hello","contactList":%q%s}`, list, more)).want(201).id()
	}
	confirmed := func(more string) string {
		id := make(more)
		w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
		return id
	}
	apply := func(id string, to schemas.State, trigger schemas.Trigger, actor schemas.Actor, settled bool) string {
		c, err := w.store.Campaign(w.Context(), w.tenant.ID, id)
		w.check(err)
		_, err = w.store.Apply(w.Context(), schemas.Change{Tenant: w.tenant.ID, Campaign: id, Version: c.Version, To: to, Trigger: trigger, Actor: actor, Reason: "route_down", At: w.clock.now(), Settled: settled})
		w.check(err)
		return id
	}
	const now, at = `,"sendImmediately":true`, `,"scheduledTime":"2025-05-01T00:00:00Z"`
	sending := func() string { id := confirmed(now); w.freeze(id, 2); return id }
	paused := confirmed(now)
	w.call("POST", "/api/campaigns/"+paused+"/pause", "").want(200)
	aborted := confirmed(now)
	w.call("POST", "/api/campaigns/"+aborted+"/abort", "").want(200)
	cancelled := make("")
	w.call("DELETE", "/api/campaigns/"+cancelled, "").want(200)
	priced := make("")
	w.call("GET", "/api/campaigns/"+priced+"/price", "").want(200)
	rejected := make("")
	_, err := w.store.UpdateCampaign(w.Context(), w.tenant.ID, rejected, 0, store.Cause{Actor: schemas.ActorGuard}, func(c *store.Campaign) (schemas.Trigger, error) {
		c.State = schemas.StateRejected
		return schemas.TriggerReject, nil
	})
	w.check(err)
	return map[schemas.State]string{
		schemas.StateDraft: make(`,"draft":true`), schemas.StateConfigured: make(""), schemas.StateCostCalculated: priced,
		schemas.StateReady: confirmed(""), schemas.StateScheduled: confirmed(at), schemas.StatePreparing: confirmed(now),
		schemas.StateSending: sending(), schemas.StatePaused: paused,
		schemas.StateSuspended: apply(sending(), schemas.StateSuspended, schemas.TriggerSuspend, schemas.ActorGuard, false),
		schemas.StateCompleted: apply(sending(), schemas.StateCompleted, schemas.TriggerComplete, schemas.ActorScheduler, false),
		schemas.StateCancelled: cancelled, schemas.StateAborted: aborted, schemas.StateRejected: rejected,
		schemas.StateFailed: apply(confirmed(now), schemas.StateFailed, schemas.TriggerFail, schemas.ActorScheduler, false),
	}
}

// Requirements §3 through the API: every action in every state does what the table says, or 409 with what is possible.
func TestEveryActionInEveryState(t *testing.T) {
	allowed := map[string]schemas.Trigger{
		"pause": schemas.TriggerPause, "resume": schemas.TriggerResume, "abort": schemas.TriggerAbort, "unschedule": schemas.TriggerUnschedule,
		"confirm": schemas.TriggerConfirm, "delete": schemas.TriggerCancel, "edit": schemas.TriggerEdit, "price": schemas.TriggerPrice, "start": schemas.TriggerStart,
	}
	w := newEnv(t, func(w *env) {
		_, err := w.store.UpdateTenant(t.Context(), w.tenant.ID, 0, func(tn *store.Tenant) error { tn.MaxActive = 1000; return nil })
		w.check(err)
	})
	for action, trigger := range allowed {
		t.Run(action, func(t *testing.T) {
			for state, id := range w.states() {
				method, path, body := "POST", "/api/campaigns/"+id+"/"+action, ""
				switch action {
				case "confirm":
					method = "PUT"
				case "delete":
					method, path = "DELETE", "/api/campaigns/"+id
				case "edit":
					method, path, body = "PUT", "/api/campaigns/"+id, `{"name":"E"}`
				case "price":
					method = "GET"
				}
				want := 409
				if slices.Contains(schemas.Allowed(state), trigger) {
					want = 200
				}
				switch {
				case action == "pause" && state == schemas.StatePaused || action == "abort" && state == schemas.StateAborted:
					// Repeated: published again
					want = 200
				case action == "confirm" && (schemas.Active(state) || state == schemas.StateCompleted):
					// Repeated: the same answer
					want = 200
				case state == schemas.StateDraft && (action == "confirm" || action == "price"): // configured by it
					want = 200
				case action == "price" && (schemas.Active(state) || state == schemas.StateCompleted || state == schemas.StateAborted || state == schemas.StateFailed):
					// What it was confirmed at
					want = 200
				}
				got := w.call(method, path, body)
				if got.status != want {
					t.Errorf("%s a campaign that is %s: got %d %s, want %d", action, schemas.StateName(state), got.status, got.body, want)
					continue
				}
				if want == 409 {
					actions, ok := got.object()["allowedActions"].([]any)
					if !ok {
						t.Errorf("%s of %s: got %s, want allowedActions", action, schemas.StateName(state), got.body)
					}
					for _, a := range actions {
						if a == action {
							t.Errorf("%s of %s: refused, and offered as allowed", action, schemas.StateName(state))
						}
					}
				}
			}
		})
	}
}

// gate is a moderator and an approver with fixed answers.
type gate struct {
	moderate, approve string
	err               error
}

func (g *gate) Moderate(context.Context, string, *store.Spec) (string, error) {
	return g.moderate, g.err
}

func (g *gate) Approve(context.Context, *store.Key, *store.Campaign) (string, error) {
	return g.approve, g.err
}

// R81, R48: content is looked at and approval asked at confirm; a rejected campaign is a draft again once it is edited.
func TestModerationAndApproval(t *testing.T) {
	g := &gate{}
	w := newEnv(t, func(w *env) { w.deps.Moderator, w.deps.Approver = g, g })
	id := w.campaign(1, "")
	path := "/api/campaigns/" + id
	g.approve = "A second person must confirm."
	w.call("PUT", path+"/confirm", "").problem(409, "approval_required", "")
	g.approve, g.err = "", errAway
	w.call("PUT", path+"/confirm", "").problem(503, "unavailable", "")
	g.err, g.moderate = nil, "abusive"
	w.call("PUT", path+"/confirm", "").problem(422, "content_rejected", "")
	subset(t, "rejected", w.call("GET", path, "").body, `{"status":"rejected","reason":"abusive"}`)
	w.call("PUT", path+"/confirm", "").problem(409, "wrong_state", "")
	g.moderate = ""
	subset(t, "edited", w.call("PUT", path, `{"message":"Kind words"}`).want(200).body, `{"status":"draft","reason":null}`)
	w.call("PUT", path+"/confirm", "").want(200)
}

// C4, R57: what may be changed while a campaign runs, and what may not.
func TestLivePatch(t *testing.T) {
	w := newEnv(t)
	id := w.campaign(1, `,"sendImmediately":true,"callingHoursStart":"09:00","callingHoursEnd":"18:00"`)
	path := "/api/campaigns/" + id
	w.call("PATCH", path+"/live", `{"rate":5}`).problem(409, "wrong_state", "")
	w.call("PATCH", path+"/live", `{"notes":"before"}`).want(200)
	w.call("PUT", path+"/confirm", "").want(200)
	w.freeze(id, 1)
	subset(t, "live", w.call("PATCH", path+"/live", `{"rate":5,"weight":10,"tags":["x"],"notes":"n"}`).want(200).body, `{"rate":5,"weight":10,"tags":["x"],"notes":"n","state":"sending"}`)
	for _, field := range []string{"message", "channel", "contactList", "sender", "name"} {
		w.call("PATCH", path+"/live", fmt.Sprintf(`{%q:"x"}`, field)).problem(422, "unknown_field", field)
	}
	w.call("PATCH", path+"/live", `{"rate":-1}`).problem(422, "invalid_value", "rate")
	w.call("PATCH", path+"/live", `{"callingHoursStart":"25:00"}`).problem(422, "invalid_value", "callingHoursStart")
	// Narrowing is anybody's, widening an approver's.
	editor := w.newKey(w.tenant.ID, []store.Scope{store.ScopeRead, store.ScopeCampaigns}, false)
	w.callAs(editor, "PATCH", path+"/live", `{"callingHoursStart":"10:00"}`).want(200)
	w.callAs(editor, "PATCH", path+"/live", `{"callingHoursEnd":"19:00"}`).problem(403, "scope_missing", "")
	w.callAs(editor, "PATCH", path+"/live", `{"callingHoursStart":null,"callingHoursEnd":null}`).problem(403, "scope_missing", "")
	w.callAs(editor, "PATCH", path+"/live", `{"callingHoursTimezone":"America/New_York"}`).problem(403, "scope_missing", "")
	subset(t, "widened", w.call("PATCH", path+"/live", `{"callingHoursEnd":"19:00"}`).want(200).body, `{"callingHoursStart":"10:00","callingHoursEnd":"19:00"}`)
	c, err := w.store.Campaign(t.Context(), w.tenant.ID, id)
	w.check(err)
	if c.Rate != 5 || c.CallingHours.End != 19*60 {
		t.Errorf("stored: got rate %d hours %+v, want what was patched", c.Rate, c.CallingHours)
	}
}

// R30 to R32: calling hours.
func TestCallingHours(t *testing.T) {
	w := newEnv(t)
	w.list("l", 1, 0)
	create := func(more string) *answer {
		return w.call("POST", "/api/campaigns", `{"name":"N","channel":"sms","message":"m","contactList":"l",`+more+`}`)
	}
	subset(t, "crossing midnight", create(`"callingHoursStart":"22:00","callingHoursEnd":"02:00","callingHoursTimezone":"Asia/Tokyo"`).want(201).body, `{"callingHoursStart":"22:00","callingHoursEnd":"02:00","callingHoursTimezone":"Asia/Tokyo"}`)
	subset(t, "campaign's zone", create(`"callingHoursStart":"09:00","callingHoursEnd":"24:00","timezone":"Asia/Tokyo"`).want(201).body, `{"callingHoursEnd":"00:00","callingHoursTimezone":"Asia/Tokyo","timezone":"Asia/Tokyo"}`)
	create(`"callingHoursStart":"09:00"`).problem(422, "required", "callingHoursEnd")
	create(`"callingHoursEnd":"09:00"`).problem(422, "required", "callingHoursStart")
	create(`"callingHoursStart":"9:00","callingHoursEnd":"10:00"`).problem(422, "invalid_value", "callingHoursStart")
	create(`"callingHoursStart":"09:00","callingHoursEnd":"10:00","callingHoursTimezone":"Rome"`).problem(422, "invalid_value", "callingHoursTimezone")
	create(`"timezone":"Rome"`).problem(422, "invalid_value", "timezone")
	// C10: the duration follows them: 12 minutes at 2,000/s from 11:00 in Rome, when only one minute an hour... is
	// open: none today.
	id := create(`"rate":10,"callingHoursStart":"11:00","callingHoursEnd":"11:10","callingHoursTimezone":"Europe/Rome"`).want(201).id()
	subset(t, "two days of ten minutes", w.call("POST", "/api/campaigns/"+id+"/calculateGoal", `{"goalContactCount":12000}`).want(200).body, `{"estimatedDuration":"1 day 1 hour","estimatedDurationSeconds":87000}`)
}

// R85: a copy is a draft of the same content.
func TestDuplicate(t *testing.T) {
	w := newEnv(t)
	id := w.campaign(1, `,"sendImmediately":true,"tags":["a"],"notes":"n"`)
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	copied := w.call("POST", "/api/campaigns/"+id+"/duplicate", "").want(201)
	subset(t, "copy", copied.body, `{"name":"C (copy)","status":"draft","message":"Hello","tags":["a"],"confirmedAt":null,"totalMessages":null}`)
	if copied.id() == id {
		t.Error("copy: got the same id")
	}
}

// R76, P4: pausing a paused campaign changes nothing and publishes it again, since Kafka may have lost its record;
// aborting an aborted one likewise.
func TestRepeatedPauseAndAbortArePublishedAgain(t *testing.T) {
	w := newEnv(t)
	id := w.campaign(1, `,"sendImmediately":true`)
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	key := schemas.CampaignKey(w.tenant.ID, id)
	for _, action := range []string{"pause", "abort"} {
		path := "/api/campaigns/" + id + "/" + action
		first := w.call("POST", path, "").want(200)
		rows, err := w.store.Unpublished(t.Context(), 1000)
		w.check(err)
		w.check(w.store.MarkPublished(t.Context(), rows))
		again := w.call("POST", path, "").want(200)
		if got, want := again.object()["version"], first.object()["version"]; got != want {
			t.Errorf("%s again: got version %v, want %v, unchanged", action, got, want)
		}
		rows, err = w.store.Unpublished(t.Context(), 1000)
		w.check(err)
		if len(rows) != 1 || rows[0].Key != key || rows[0].Value == nil {
			t.Errorf("%s again: got %+v to publish, want the campaign", action, rows)
		}
		w.call("POST", path, "", header{"If-Match", `"1"`}).problem(412, "version_mismatch", "")
	}
}

// R41, campaign_events: who did what, in order.
func TestEvents(t *testing.T) {
	w := newEnv(t)
	id := w.campaign(1, `,"sendImmediately":true`)
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "", header{"X-Request-Id", "my-request.1"}).want(200)
	w.call("POST", "/api/campaigns/"+id+"/pause", "").want(200)
	var page struct{ Data []api.CampaignEvent }
	w.call("GET", "/api/campaigns/"+id+"/events", "").want(200).into(&page)
	var got []string
	for _, e := range page.Data {
		trigger := ""
		if e.Trigger != nil {
			trigger = *e.Trigger
		}
		got = append(got, trigger+">"+e.To)
		if !strings.HasPrefix(e.By, "key_") || e.Time == "" {
			t.Errorf("event: got by %q at %q, want a key and a time", e.By, e.Time)
		}
	}
	if want := []string{"create>configured", "confirm>preparing", "pause>paused"}; !slices.Equal(got, want) {
		t.Errorf("events: got %v, want %v", got, want)
	}
	if r := page.Data[1].RequestID; r == nil || *r != "my-request.1" {
		t.Errorf("confirm: got request id %v, want the client's", r)
	}
}

// R77, R79: a suspended campaign resumes once its cause is gone.
func TestResumeLooksAtTheCause(t *testing.T) {
	w := newEnv(t)
	id := w.states()[schemas.StateSuspended]
	subset(t, "suspended", w.call("GET", "/api/campaigns/"+id, "").body, `{"status":"sending","state":"suspended","suspendedReason":"route_down"}`)
	_, err := w.store.UpdateRoute(t.Context(), "sim", 0, func(r *store.Route) error { r.Enabled = false; return nil })
	w.check(err)
	w.clock.forward(3 * time.Second)
	w.call("POST", "/api/campaigns/"+id+"/resume", "").problem(409, "wrong_state", "")
	_, err = w.store.UpdateRoute(t.Context(), "sim", 0, func(r *store.Route) error { r.Enabled = true; return nil })
	w.check(err)
	w.clock.forward(3 * time.Second)
	subset(t, "resumed", w.call("POST", "/api/campaigns/"+id+"/resume", "").want(200).body, `{"state":"sending","suspendedReason":null}`)
}

// X14: whether a campaign is a test is what its lists and its client say when it is confirmed, and its route and price
// follow.
func TestListsOfTestersAtConfirm(t *testing.T) {
	w := newEnv(t)
	list := w.list("l", 3, 0)
	number, _ := store.ListNumber(list)
	testers := func(yes bool) {
		_, err := w.store.UpdateList(t.Context(), w.tenant.ID, number, 0, func(l *store.List) error { l.Test = yes; return nil })
		w.check(err)
	}
	testKey := w.newKey(w.tenant.ID, nil, true)
	for name, tc := range map[string]struct {
		before, after bool
		key           string
		test          bool
	}{
		"testers no more":        {true, false, w.key, false},
		"testers by now":         {false, true, w.key, true},
		"testers still":          {true, true, w.key, true},
		"testers, by a test key": {true, true, testKey, true},
	} {
		testers(tc.before)
		id := w.call("POST", "/api/campaigns", `{"name":"N","channel":"sms","message":"m","contactList":"l"}`).want(201).id()
		testers(tc.after)
		w.callAs(tc.key, "PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
		c, err := w.store.Campaign(t.Context(), w.tenant.ID, id)
		w.check(err)
		if c.Test != tc.test || (c.Reserved == 0) != tc.test || (c.Legs[0].Price == 0) != tc.test {
			t.Errorf("%s: got test %v, %d reserved at %d each, want test %v", name, c.Test, c.Reserved, c.Legs[0].Price, tc.test)
		}
	}
	// A test key confirms what is a test at that moment, not what was one when it was made.
	testers(true)
	id := w.call("POST", "/api/campaigns", `{"name":"N","channel":"sms","message":"m","contactList":"l"}`).want(201).id()
	testers(false)
	w.callAs(testKey, "PUT", "/api/campaigns/"+id+"/confirm", "").problem(403, "test_key", "")
	// And a test to which it gives another list stays a test.
	testers(true)
	w.list("real", 1, 50)
	w.callAs(testKey, "PUT", "/api/campaigns/"+id, `{"contactList":"real"}`).want(200)
	if c, err := w.store.Campaign(t.Context(), w.tenant.ID, id); err != nil || !c.Test {
		t.Errorf("after an edit by a test key: got test %v, %v; want a test", c.Test, err)
	}
}

// X14: a test key's campaign goes by a simulated route, whatever the tenant's is.
func TestTestKey(t *testing.T) {
	w := newEnv(t, func(w *env) {
		_, _, err := w.store.EnsureRoute(t.Context(), store.Route{Name: "real", Connector: "smpp", Rate: 10, Enabled: true, Channels: []schemas.Channel{schemas.ChannelSMS}, ReceiptWindow: time.Hour, P99: time.Second})
		w.check(err)
		_, err = w.store.UpdateTenant(t.Context(), w.tenant.ID, 0, func(tn *store.Tenant) error { tn.DefaultRoute = "real"; return nil })
		w.check(err)
	})
	confirmed := func(key, more string) store.Campaign {
		id := w.campaignAs(key, 1, more)
		w.callAs(key, "PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
		c, err := w.store.Campaign(t.Context(), w.tenant.ID, id)
		w.check(err)
		return c
	}
	for what, c := range map[string]store.Campaign{"test key": confirmed(w.newKey(w.tenant.ID, nil, true), ""), "test run": confirmed(w.key, `,"testRun":true`)} {
		if c.Legs[0].Route != "sim" || !c.Test || c.Reserved != 0 || c.Legs[0].Price != 0 || c.Quote.Cost != 50_000 {
			t.Errorf("%s: got %+v test %v reserved %d, want the simulated route, a test, and nothing to pay", what, c.Legs[0], c.Test, c.Reserved)
		}
	}
	if c := confirmed(w.key, ""); c.Legs[0].Route != "real" || c.Test || c.Reserved == 0 {
		t.Errorf("live key: got route %q test %v reserved %d, want real, no test, and money set aside", c.Legs[0].Route, c.Test, c.Reserved)
	}
}

// C28: the status is never written, whatever the campaign's state.
func TestStatusIsNeverWritten(t *testing.T) {
	w := newEnv(t)
	for state, id := range w.states() {
		for _, field := range []string{"status", "state"} {
			a := w.call("PUT", "/api/campaigns/"+id, fmt.Sprintf(`{%q:"sending"}`, field))
			a.what += " of one that is " + schemas.StateName(state)
			a.problem(422, "read_only", field)
		}
	}
}

// Requirements §3: abort is legal until settled, and offered as long; of a draft in which nothing is missing so are
// price and confirm (C29).
func TestOfferedActions(t *testing.T) {
	w := newEnv(t)
	offered := func(id string) []string {
		var c struct{ AllowedActions []string }
		w.call("GET", "/api/campaigns/"+id, "").want(200).into(&c)
		slices.Sort(c.AllowedActions)
		return c.AllowedActions
	}
	completed := w.states()[schemas.StateCompleted]
	if got, want := offered(completed), []string{"abort", "ambiguous", "duplicate", "pause", "remove"}; !slices.Equal(got, want) {
		t.Errorf("completed: got %q, want %q", got, want)
	}
	c, err := w.store.Campaign(t.Context(), w.tenant.ID, completed)
	w.check(err)
	_, err = w.store.Apply(t.Context(), schemas.Change{Tenant: w.tenant.ID, Campaign: completed, Version: c.Version, To: c.State, Actor: schemas.ActorScheduler, At: w.clock.now(), Settled: true})
	w.check(err)
	want := []string{"duplicate", "remove"}
	if got := offered(completed); !slices.Equal(got, want) {
		t.Errorf("settled: got %q, want %q", got, want)
	}
	for _, a := range []*answer{w.call("POST", "/api/campaigns/"+completed+"/abort", ""), w.call("DELETE", "/api/campaigns/"+completed, "")} {
		if got := fmt.Sprint(a.want(409).object()["allowedActions"]); strings.Contains(got, "abort") {
			t.Errorf("%s of a settled campaign: got %s offered", a.what, got)
		}
	}
	if got, want := offered(w.campaign(1, `,"draft":true`)), []string{"confirm", "delete", "duplicate", "edit", "price"}; !slices.Equal(got, want) {
		t.Errorf("whole draft: got %q, want %q", got, want)
	}
	part := w.call("POST", "/api/campaigns", `{"name":"D","channel":"sms","draft":true}`).want(201).id()
	if got, want := offered(part), []string{"delete", "duplicate", "edit"}; !slices.Equal(got, want) {
		t.Errorf("draft: got %q, want %q", got, want)
	}
}
