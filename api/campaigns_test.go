package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fanfare/api"
	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// R91, C6: a POST is complete or says that it is a draft.
func TestCreateNeedsFourFields(t *testing.T) {
	w := newWorld(t)
	list := w.list("l", 1, 0)
	whole := map[string]any{"name": "N", "channel": "sms", "message": "M", "contactList": list}
	for field := range whole {
		part := map[string]any{}
		for k, v := range whole {
			if k != field {
				part[k] = v
			}
		}
		b, _ := json.Marshal(part)
		w.call("POST", "/api/campaigns", string(b)).problem(422, "required", field)
	}
	p := w.call("POST", "/api/campaigns", `{}`).problem(422, "required", "name")
	if got := len(p["errors"].([]any)); got != 4 {
		t.Errorf("empty object: got %d errors, want all four fields", got)
	}
	subset(t, "draft", w.call("POST", "/api/campaigns", `{"name":"N","channel":"sms","draft":true}`).want(201).body, `{"status":"draft","message":null,"contactList":null}`)
	w.call("POST", "/api/campaigns", `{"name":"N","draft":true}`).problem(422, "required", "channel")
	// R50: a draft of RCS has agent and template.
	w.call("POST", "/api/campaigns", `{"name":"N","channel":"rcs","draft":true}`).problem(422, "required", "sender")
	w.call("POST", "/api/campaigns", `{"name":"N","channel":"rcs","draft":true,"sender":"agent_1","message":"tpl"}`).want(201)
}

// R155, R156, C14: lengths as E has them, in characters as written; more for a tenant who may send longer texts.
func TestMessageLength(t *testing.T) {
	w := newWorld(t)
	w.list("l", 1, 0)
	create := func(channel, message string) *answer {
		b, _ := json.Marshal(map[string]any{"name": "N", "channel": channel, "message": message, "contactList": "l"})
		return w.call("POST", "/api/campaigns", string(b))
	}
	for _, char := range []string{"a", "€", "é", "ж", "😀"} {
		create("sms", strings.Repeat(char, 160)).want(201)
		create("sms", strings.Repeat(char, 161)).problem(422, "too_long", "message")
	}
	for _, channel := range []string{"rcs", "whatsapp"} {
		create(channel, strings.Repeat("t", 1000)).want(201)
		create(channel, strings.Repeat("t", 1001)).problem(422, "too_long", "message")
	}
	create("sms", "").problem(422, "invalid_value", "message")
	create("sms", "Hello {{first name").problem(422, "invalid_value", "message")
	subset(t, "measured", create("sms", strings.Repeat("€", 81)).want(201).body, `{"encoding":"GSM-7","characters":81,"segments":2}`)
	subset(t, "measured", create("sms", "Здравствуйте").want(201).body, `{"encoding":"UCS-2","characters":12,"segments":1}`)
	if _, err := w.store.UpdateTenant(t.Context(), w.tenant.ID, 0, func(tn *store.Tenant) error { tn.MaxSegments = 4; return nil }); err != nil {
		t.Fatal(err)
	}
	w.clock.forward(3 * time.Second) // what is known of a tenant is two seconds old at most
	create("sms", strings.Repeat("a", 612)).want(201)
	create("sms", strings.Repeat("a", 613)).problem(422, "too_long", "message")
}

// C3, R92: PUT changes what it names, before confirm; null takes a field back; what was priced is void.
func TestUpdate(t *testing.T) {
	w := newWorld(t)
	id := w.campaign(3, `,"notes":"first","tags":["a"],"callingHoursStart":"09:00","callingHoursEnd":"18:00"`)
	path := "/api/campaigns/" + id
	subset(t, "hours", w.call("GET", path, "").body, `{"callingHoursStart":"09:00","callingHoursEnd":"18:00","callingHoursTimezone":"Europe/Rome","notes":"first","tags":["a"]}`)
	subset(t, "partial", w.call("PUT", path, `{"name":"New"}`).want(200).body, `{"name":"New","message":"Hello","notes":"first","status":"configured"}`)
	subset(t, "null", w.call("PUT", path, `{"notes":null,"tags":null,"callingHoursStart":null,"callingHoursEnd":null}`).want(200).body, `{"notes":"","tags":[],"callingHoursStart":null}`)
	w.call("PUT", path, `{"message":null}`).problem(422, "required", "message")
	subset(t, "price", w.call("GET", path+"/price", "").want(200).body, `{"totalContacts":3}`)
	subset(t, "priced", w.call("GET", path, "").body, `{"status":"cost_calculated","totalContacts":3,"estimatedCost":0.15}`)
	subset(t, "edit voids the price", w.call("PUT", path, `{"message":"Other"}`).want(200).body, `{"status":"configured","estimatedCost":null,"priceVersion":null}`)
	subset(t, "back to a draft", w.call("PUT", path, `{"draft":true,"message":null}`).want(200).body, `{"status":"draft","message":null}`)
	subset(t, "a draft stays one", w.call("PUT", path, `{"notes":"x"}`).want(200).body, `{"status":"draft"}`)
	w.call("GET", path+"/price", "").problem(422, "required", "message")
	w.call("PUT", path+"/confirm", "").problem(422, "required", "message")
	subset(t, "complete again", w.call("PUT", path, `{"message":"Hi"}`).want(200).body, `{"status":"configured"}`)
	// C28: status is never written.
	w.call("PUT", path, `{"status":"confirmed"}`).problem(422, "read_only", "status")
	w.call("POST", "/api/campaigns", `{"name":"N","channel":"sms","message":"M","contactList":"l","status":"draft"}`).want(422)
	// A draft that is complete is configured by whoever prices or confirms it.
	draft := w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"N","channel":"sms","message":"M","contactList":%q,"draft":true}`, w.list("d", 1, 500))).want(201).id()
	subset(t, "calculateGoal of a draft", w.call("POST", "/api/campaigns/"+draft+"/calculateGoal", "").want(200).body, `{"basis":"audience","totalContacts":1}`)
	subset(t, "configured by it", w.call("GET", "/api/campaigns/"+draft, "").body, `{"status":"cost_calculated"}`)
}

// X12: ETag and If-Match on every change.
func TestIfMatch(t *testing.T) {
	w := newWorld(t)
	id := w.campaign(1, `,"sendImmediately":true`)
	path := "/api/campaigns/" + id
	old := w.call("GET", path, "").header.Get("ETag")
	now := w.call("PUT", path, `{"name":"B"}`, header{"If-Match", old}).want(200).header.Get("ETag")
	if old == now || now == "" {
		t.Errorf("ETag: got %q then %q, want another one", old, now)
	}
	stale := header{"If-Match", old}
	w.call("PUT", path, `{"name":"C"}`, stale).problem(412, "version_mismatch", "")
	w.call("PUT", path, `{"name":"C"}`, header{"If-Match", "nonsense"}).problem(412, "version_mismatch", "If-Match")
	w.call("PUT", path+"/confirm", "", stale).problem(412, "version_mismatch", "")
	w.call("DELETE", path, "", stale).problem(412, "version_mismatch", "")
	w.call("PUT", path+"/confirm", "", header{"If-Match", now}).want(200)
	for _, action := range []string{"pause", "abort"} {
		w.call("POST", path+"/"+action, "", stale).problem(412, "version_mismatch", "")
	}
	w.call("PATCH", path+"/live", `{"notes":"x"}`, stale).problem(412, "version_mismatch", "")
	w.call("PATCH", path+"/live", `{"notes":"x"}`, header{"If-Match", "*"}).want(200)
}

// C2, R58 to R64: DELETE cancels before anything is submitted and stays listed; what runs is aborted; what ended is hidden.
func TestDelete(t *testing.T) {
	w := newWorld(t)
	id := w.campaign(2, "")
	gone := w.call("DELETE", "/api/campaigns/"+id, "").want(200).object()
	if gone["status"] != "cancelled" || gone["deletedAt"] == nil {
		t.Errorf("delete: got status %v deletedAt %v, want cancelled and a time", gone["status"], gone["deletedAt"])
	}
	ids := func(query string) (out []string) {
		var page struct{ Data []struct{ ID string } }
		w.call("GET", "/api/campaigns"+query, "").want(200).into(&page)
		for _, c := range page.Data {
			out = append(out, c.ID)
		}
		return out
	}
	if got := ids(""); !slices.Equal(got, []string{id}) {
		t.Errorf("after delete: got %v, want it still listed", got)
	}
	w.call("GET", "/api/campaigns/"+id, "").want(200)
	w.call("DELETE", "/api/campaigns/"+id, "").problem(409, "campaign_ended", "")
	w.call("DELETE", "/api/campaigns/"+id+"?remove=true", "").want(200)
	if got := ids(""); len(got) != 0 {
		t.Errorf("after remove: got %v, want nothing", got)
	}
	if got := ids("?includeDeleted=true"); !slices.Equal(got, []string{id}) {
		t.Errorf("with includeDeleted: got %v, want it", got)
	}
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").problem(409, "wrong_state", "")

	running := w.campaign(2, `,"sendImmediately":true`)
	w.call("PUT", "/api/campaigns/"+running+"/confirm", "").want(200)
	w.freeze(running, 2)
	p := w.call("DELETE", "/api/campaigns/"+running, "").problem(409, "campaign_active", "")
	if !strings.Contains(p["fix"].(string), "/api/campaigns/"+running+"/abort") || !slices.Contains(p["allowedActions"].([]any), any("abort")) {
		t.Errorf("delete of a running one: got fix %q actions %v, want /abort named", p["fix"], p["allowedActions"])
	}
	w.call("DELETE", "/api/campaigns/"+running+"?remove=true", "").problem(409, "campaign_active", "")
	subset(t, "abort", w.call("PUT", "/api/campaigns/"+running+"/abort", "").want(200).body, `{"status":"cancelled","state":"aborted"}`)
}

// states drives a campaign into each state of the machine.
func (w *world) states() map[fanfarev1.State]string {
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
	apply := func(id string, to fanfarev1.State, trigger schemas.Trigger, actor schemas.Actor, settled bool) string {
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
		c.State = fanfarev1.State_STATE_REJECTED
		return schemas.TriggerReject, nil
	})
	w.check(err)
	return map[fanfarev1.State]string{
		fanfarev1.State_STATE_DRAFT: make(`,"draft":true`), fanfarev1.State_STATE_CONFIGURED: make(""), fanfarev1.State_STATE_COST_CALCULATED: priced,
		fanfarev1.State_STATE_READY: confirmed(""), fanfarev1.State_STATE_SCHEDULED: confirmed(at), fanfarev1.State_STATE_PREPARING: confirmed(now),
		fanfarev1.State_STATE_SENDING: sending(), fanfarev1.State_STATE_PAUSED: paused,
		fanfarev1.State_STATE_SUSPENDED: apply(sending(), fanfarev1.State_STATE_SUSPENDED, schemas.TriggerSuspend, schemas.ActorGuard, false),
		fanfarev1.State_STATE_COMPLETED: apply(sending(), fanfarev1.State_STATE_COMPLETED, schemas.TriggerComplete, schemas.ActorScheduler, false),
		fanfarev1.State_STATE_CANCELLED: cancelled, fanfarev1.State_STATE_ABORTED: aborted, fanfarev1.State_STATE_REJECTED: rejected,
		fanfarev1.State_STATE_FAILED: apply(confirmed(now), fanfarev1.State_STATE_FAILED, schemas.TriggerFail, schemas.ActorScheduler, false),
	}
}

// Requirements §3 through the API: every action in every state does what the table says, or 409 with what is possible.
func TestEveryActionInEveryState(t *testing.T) {
	allowed := map[string]schemas.Trigger{
		"pause": schemas.TriggerPause, "resume": schemas.TriggerResume, "abort": schemas.TriggerAbort, "unschedule": schemas.TriggerUnschedule,
		"confirm": schemas.TriggerConfirm, "delete": schemas.TriggerCancel, "edit": schemas.TriggerEdit, "price": schemas.TriggerPrice, "start": schemas.TriggerStart,
	}
	w := newWorld(t, func(w *world) {
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
				case action == "confirm" && (schemas.Active(state) || state == fanfarev1.State_STATE_COMPLETED): // repeated: the same answer
					want = 200
				case state == fanfarev1.State_STATE_DRAFT && (action == "confirm" || action == "price"): // configured by it
					want = 200
				case action == "price" && (schemas.Active(state) || state == fanfarev1.State_STATE_COMPLETED || state == fanfarev1.State_STATE_ABORTED || state == fanfarev1.State_STATE_FAILED): // what it was confirmed at
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

// C17, R98, R99: immediate, scheduled, or waiting to be started by hand; a time in the past is no time.
func TestWhenItStarts(t *testing.T) {
	w := newWorld(t)
	both := w.campaign(1, `,"sendImmediately":true,"scheduledTime":"2025-04-15T09:00:00Z"`)
	if got := w.call("GET", "/api/campaigns/"+both, "").object()["warning"]; got == nil {
		t.Error("both: got no warning, want one (C17)")
	}
	subset(t, "both", w.call("PUT", "/api/campaigns/"+both+"/confirm", "").want(200).body, `{"scheduledTime":null,"message":"Campaign confirmed. Sending starts now."}`)
	subset(t, "both", w.call("GET", "/api/campaigns/"+both, "").body, `{"state":"preparing","status":"confirmed","scheduledTime":"2025-04-15T09:00:00Z"}`)

	neither := w.campaign(1, "")
	subset(t, "neither", w.call("PUT", "/api/campaigns/"+neither+"/confirm", "").want(200).body, `{"status":"confirmed","scheduledTime":null}`)
	subset(t, "neither", w.call("GET", "/api/campaigns/"+neither, "").body, `{"state":"ready","status":"confirmed"}`)
	subset(t, "start", w.call("POST", "/api/campaigns/"+neither+"/start", "").want(200).body, `{"state":"preparing"}`)

	for body, status := range map[string]int{
		`"2025-04-01T08:56:00Z"`: 201, `"2025-04-01T08:54:00Z"`: 422, `{"local":"2025-04-01T10:56","timezone":"Europe/Rome"}`: 201, `"2025-04-15T09:00:00"`: 422,
	} {
		list := w.list("list of "+body, 1, 0)
		w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"N","channel":"sms","message":"M","contactList":%q,"scheduledTime":%s}`, list, body)).want(status)
	}
	// The time may pass between create and confirm.
	late := w.campaign(1, `,"scheduledTime":"2025-04-01T10:00:00Z"`)
	w.clock.forward(2 * time.Hour)
	w.call("PUT", "/api/campaigns/"+late+"/confirm", "").problem(422, "time_in_past", "scheduledTime")
	scheduled := w.campaign(1, `,"scheduledTime":"2025-04-02T10:00:00Z"`)
	w.call("PUT", "/api/campaigns/"+scheduled+"/confirm", "").want(200)
	w.clock.forward(48 * time.Hour) // a repetition is the same confirm, whatever the time
	w.call("PUT", "/api/campaigns/"+scheduled+"/confirm", "").want(200)
	subset(t, "unschedule", w.call("PUT", "/api/campaigns/"+scheduled+"/unschedule", "").want(200).body, `{"state":"configured","confirmedAt":null}`)
}

// X3, R13: the chain of channels in its three spellings.
func TestSendingMode(t *testing.T) {
	w := newWorld(t)
	w.list("l", 1, 0)
	create := func(more string) *answer {
		return w.call("POST", "/api/campaigns", `{"name":"N","message":"m","contactList":"l",`+more+`}`)
	}
	for more, want := range map[string]string{
		`"channel":"sms"`:                                         `{"sendingMode":"SMS","fallback":false}`,
		`"channel":"sms","fallback":true`:                         `{"sendingMode":"SMS","fallback":true}`,
		`"channel":"rcs","fallback":true`:                         `{"sendingMode":"RCS_SMS","fallback":true,"channel":"rcs"}`,
		`"channel":"whatsapp","sendingMode":"WHATSAPP_RCS_SMS"`:   `{"sendingMode":"WHATSAPP_RCS_SMS","fallback":true}`,
		`"sendingMode":"WHATSAPP_SMS","fallbackMessage":"by sms"`: `{"channel":"whatsapp","fallbackMessage":"by sms","message":"m"}`,
	} {
		subset(t, more, create(more).want(201).body, want)
	}
	if got := create(`"channel":"rcs","fallback":true`).object()["warning"]; got == nil {
		t.Error("fallback without a text: got no warning, want one")
	}
	create(`"channel":"sms","sendingMode":"RCS_SMS"`).problem(422, "invalid_value", "sendingMode")
	create(`"channel":"rcs","sendingMode":"RCS_SMS","fallback":false`).problem(422, "invalid_value", "fallback")
	create(`"channel":"pigeon"`).problem(422, "invalid_value", "channel")
	create(`"channel":"voice"`).problem(422, "invalid_value", "channel")
	create(`"channel":"sms","sendingMode":"SMS_RCS"`).problem(422, "invalid_value", "sendingMode")
	create(`"channel":"sms","fallbackMessage":"x"`).problem(422, "invalid_value", "fallbackMessage")
}

// C27, R9: a list by id, by name, or several; lists that are not there are named.
func TestContactLists(t *testing.T) {
	w := newWorld(t)
	a, b := w.list("first", 2, 0), w.list("second", 3, 1) // overlap: one number in both
	create := func(list string) *answer {
		return w.call("POST", "/api/campaigns", `{"name":"N","channel":"sms","message":"m","contactList":`+list+`}`)
	}
	subset(t, "id", create(`"`+a+`"`).want(201).body, fmt.Sprintf(`{"contactList":%q,"contactListIds":[%q]}`, a, a))
	subset(t, "name", create(`"second"`).want(201).body, fmt.Sprintf(`{"contactList":"second","contactListIds":[%q]}`, b))
	both := create(`["first","` + b + `"]`).want(201)
	subset(t, "both", both.body, fmt.Sprintf(`{"contactListIds":[%q,%q]}`, a, b))
	subset(t, "deduplicated", w.call("GET", "/api/campaigns/"+both.id()+"/price", "").want(200).body, `{"totalContacts":4,"estimatedCost":0.20,"exclusions":{"duplicates":1,"invalid":0,"optedOut":0}}`)
	create(`"nobody"`).problem(422, "invalid_value", "contactList")
	create(`["first","list_999"]`).problem(422, "invalid_value", "contactList")
	create(`17`).problem(422, "invalid_value", "contactList")
	create(`[]`).problem(422, "required", "contactList")
	// A list that goes before confirm leaves nobody to send to.
	id := create(`"first"`).id()
	w.call("DELETE", "/api/contacts/list/first", "").want(200)
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").problem(422, "invalid_value", "contactList")
}

// X2, R130, R133: paging and filters.
func TestListFilters(t *testing.T) {
	w := newWorld(t)
	w.list("l", 1, 0)
	var ids []string
	create := func(body string) string {
		id := w.call("POST", "/api/campaigns", body).want(201).id()
		ids = append(ids, id)
		return id
	}
	draft := create(`{"name":"Draft one","channel":"sms","draft":true,"tags":["Promo"]}`)
	w.clock.forward(24 * time.Hour)
	rcs := create(`{"name":"Über Angebot","channel":"rcs","message":"tpl","contactList":"l"}`)
	ready := create(`{"name":"Ready one","channel":"sms","message":"m","contactList":"l"}`)
	w.call("PUT", "/api/campaigns/"+ready+"/confirm", "").want(200)
	w.clock.forward(24 * time.Hour)
	scheduled := create(`{"name":"Scheduled 100% one","channel":"sms","message":"m","contactList":"l","scheduledTime":"2025-05-01T00:00:00Z","tags":["promo","b"]}`)
	w.call("PUT", "/api/campaigns/"+scheduled+"/confirm", "").want(200)
	for query, want := range map[string][]string{
		"":                                         {scheduled, ready, rcs, draft},
		"?direction=ASC":                           {draft, rcs, ready, scheduled},
		"?search=one":                              {scheduled, ready, draft},
		"?search=" + url.QueryEscape("über"):       {rcs},
		"?search=" + url.QueryEscape("100%"):       {scheduled},
		"?search=" + url.QueryEscape("%"):          {scheduled},
		"?isDraft=true":                            {draft},
		"?isDraft=false":                           {scheduled, ready, rcs},
		"?isProgrammed=true":                       {scheduled},
		"?readyToSend=true":                        {ready},
		"?isDraft=true&isProgrammed=true":          {},
		"?status=confirmed":                        {scheduled, ready},
		"?status=Scheduled&vocab=d":                {scheduled},
		"?status=Ready,Draft&vocab=d":              {ready, rcs, draft}, // D shows configured as Draft
		"?status=scheduled":                        {scheduled},
		"?type=rcs":                                {rcs},
		"?type=rcs,whatsapp":                       {rcs},
		"?sendingMode=RCS":                         {rcs},
		"?sendingMode=RCS&type=sms":                {},
		"?tag=promo":                               {scheduled, draft},
		"?startDate=2025-04-02":                    {scheduled, ready, rcs},
		"?endDate=2025-04-01":                      {draft},
		"?startDate=2025-04-02T10:00:00Z":          {scheduled},
		"?limit=2":                                 {scheduled, ready},
		"?limit=2&page=1":                          {rcs, draft},
		"?limit=1&page=7":                          {},
		"?before=" + ready:                         {rcs, draft},
		"?startDate=2025-04-02&endDate=2025-04-02": {ready, rcs},
	} {
		var page struct {
			Data               []struct{ ID string }
			Page, Limit, Total int
		}
		w.call("GET", "/api/campaigns"+query, "").want(200).into(&page)
		got := []string{}
		for _, c := range page.Data {
			got = append(got, c.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v (of %v)", query, got, want, ids)
		}
	}
	subset(t, "empty page", w.call("GET", "/api/campaigns?search=nothing", "").body, `{"data":[],"page":0,"limit":10,"total":0}`)
	subset(t, "total", w.call("GET", "/api/campaigns?limit=2", "").body, `{"total":4,"limit":2}`)
	for query, field := range map[string]string{
		"?limit=0": "limit", "?limit=1001": "limit", "?limit=ten": "limit", "?page=-1": "page", "?status=gone": "status", "?type=pigeon": "type", "?vocab=z": "vocab",
		"?startDate=yesterday": "startDate", "?endDate=1": "endDate", "?direction=up": "direction", "?isDraft=maybe": "isDraft", "?before=7": "before", "?sendingMode=FAX": "sendingMode",
	} {
		w.call("GET", "/api/campaigns"+query, "").problem(422, "invalid_value", field)
	}
}

// C1: one machine, five vocabularies.
func TestVocabularies(t *testing.T) {
	w := newWorld(t)
	id := w.campaign(1, `,"sendImmediately":true`)
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	w.freeze(id, 1)
	w.call("POST", "/api/campaigns/"+id+"/pause", "").want(200)
	for vocab, want := range map[string]string{"": "sending", "e": "sending", "a": "Submitted", "b": "Submitted", "c": "Paused", "d": "Paused"} {
		for _, path := range []string{"", "/stats"} {
			subset(t, vocab, w.call("GET", "/api/campaigns/"+id+path+"?vocab="+vocab, "").body, fmt.Sprintf(`{"status":%q,"state":"paused","paused":true}`, want))
		}
	}
}

// C13: a confirm may be bound to a price; rates and texts move it.
func TestPriceGuard(t *testing.T) {
	w := newWorld(t)
	id := w.campaign(4, "")
	path := "/api/campaigns/" + id
	price := w.call("GET", path+"/price", "").want(200).object()
	version := price["priceVersion"].(string)
	if again := w.call("GET", path+"/price", "").object()["priceVersion"]; again != version {
		t.Errorf("priceVersion: got %v, want the same %v as before", again, version)
	}
	w.call("PUT", path+"/confirm", `{"expectedCost":0.19}`).problem(409, "price_changed", "")
	w.call("PUT", path+"/confirm", `{"priceVersion":"pv_other"}`).problem(409, "price_changed", "")
	w.check(w.store.SetPrice(t.Context(), w.tenant.ID, fanfarev1.Channel_CHANNEL_SMS, 60_000))
	w.call("PUT", path+"/confirm", fmt.Sprintf(`{"expectedCost":0.20,"priceVersion":%q}`, version)).problem(409, "price_changed", "")
	w.clock.forward(3 * time.Second)
	now := w.call("GET", path+"/price", "").want(200).object()
	if now["priceVersion"] == version || now["estimatedCost"].(float64) != 0.24 {
		t.Errorf("after another rate: got %v, want another version and 0.24", now)
	}
	w.call("PUT", path+"/confirm", fmt.Sprintf(`{"expectedCost":0.24,"priceVersion":%q}`, now["priceVersion"])).want(200)
	subset(t, "after confirm", w.call("GET", path+"/price", "").want(200).body, `{"estimatedCost":0.24,"totalContacts":4}`)
	subset(t, "hypothetical after confirm", w.call("POST", path+"/calculateGoal", `{"goalContactCount":100}`).want(200).body, `{"estimatedCost":6.00,"basis":"goal"}`)
	w.call("POST", path+"/calculateGoal", `{"goalContactCount":-1}`).problem(422, "invalid_value", "goalContactCount")
	w.call("POST", path+"/calculateGoal", `{"goalContactCount":1000001}`).problem(422, "too_many_contacts", "goalContactCount")
	w.call("POST", path+"/calculateGoal", `{"goalContactCount":"many"}`).problem(422, "invalid_value", "goalContactCount")
}

// C14: a text with fields is priced by what it becomes for real contacts.
func TestPriceOfMergeFields(t *testing.T) {
	w := newWorld(t)
	list := w.call("POST", "/api/contacts/list", `{"name":"names"}`).want(201).id()
	number, _ := store.ListNumber(list)
	for i, name := range []string{"Al", strings.Repeat("Bartholomew ", 15)} {
		c, err := w.store.CreateContact(t.Context(), store.Contact{Tenant: w.tenant.ID, Phone: phoneOf(i), FirstName: name})
		w.check(err)
		_, err = w.store.AddToList(t.Context(), w.tenant.ID, number, []uint64{c.Number})
		w.check(err)
	}
	id := w.call("POST", "/api/campaigns", `{"name":"N","channel":"sms","message":"Dear {{first_name}}, welcome","contactList":"names"}`).want(201).id()
	subset(t, "one of 1 and one of 2 segments", w.call("GET", "/api/campaigns/"+id+"/price", "").want(200).body, `{"totalContacts":2,"estimatedCost":0.15,"segments":2,"maxCost":0.90}`)
}

// R108, P4: money is reserved at confirm, the most that it can cost, and given back.
func TestMoney(t *testing.T) {
	w := newWorld(t)
	w.check(w.store.SetCredit(t.Context(), w.tenant.ID, 1_000_000, false))
	id := w.campaign(6, `,"scheduledTime":"2025-04-15T09:00:00Z"`) // 6 × 0.05 × 3 hand-overs = 0.90
	dear := w.campaign(7, "")                                      // 1.05
	p := w.call("PUT", "/api/campaigns/"+dear+"/confirm", "").problem(402, "insufficient_credit", "")
	if !strings.Contains(p["detail"].(string), "1.05") || !strings.Contains(p["detail"].(string), "1.00") {
		t.Errorf("402: got %q, want what it may cost and what there is", p["detail"])
	}
	subset(t, "maxCost", w.call("GET", "/api/campaigns/"+id+"/price", "").body, `{"estimatedCost":0.30,"maxCost":0.90}`)
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	if b, err := w.store.Balance(t.Context(), w.tenant.ID); err != nil || b.Reserved != 900_000 || b.Available != 100_000 {
		t.Errorf("after confirm: got %+v %v, want 0.90 reserved of 1.00", b, err)
	}
	w.call("DELETE", "/api/campaigns/"+id, "").want(200)
	if b, err := w.store.Balance(t.Context(), w.tenant.ID); err != nil || b.Reserved != 0 || b.Available != 1_000_000 {
		t.Errorf("after cancel: got %+v %v, want all of it back", b, err)
	}
}

// R154, C22: at most ten active campaigns, also when many are confirmed at once.
func TestActiveLimit(t *testing.T) {
	w := newWorld(t)
	list := w.list("l", 1, 0)
	var ids []string
	for range 14 {
		ids = append(ids, w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"N","channel":"sms","message":"m","contactList":%q}`, list)).want(201).id())
	}
	var wg sync.WaitGroup
	statuses := make([]int, len(ids))
	for i, id := range ids {
		wg.Go(func() { statuses[i] = w.call("PUT", "/api/campaigns/"+id+"/confirm", "").status })
	}
	wg.Wait()
	ok := 0
	for _, s := range statuses {
		if s == 200 {
			ok++
		} else if s != 409 {
			t.Errorf("confirm: got %d, want 200 or 409", s)
		}
	}
	if ok != 10 {
		t.Errorf("14 at once: got %d confirmed, want 10", ok)
	}
	if i := slices.Index(statuses, 409); i >= 0 {
		w.call("PUT", "/api/campaigns/"+ids[i]+"/confirm", "").problem(409, "too_many_active_campaigns", "")
	}
}

// R153: at most so many contacts.
func TestContactLimit(t *testing.T) {
	w := newWorld(t, func(w *world) {
		_, err := w.store.UpdateTenant(t.Context(), w.tenant.ID, 0, func(tn *store.Tenant) error { tn.MaxContacts = 2; return nil })
		w.check(err)
	})
	id := w.campaign(3, "")
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").problem(422, "too_many_contacts", "contactList")
}

// R45: the flag of the tenant.
func TestCampaignsFlag(t *testing.T) {
	w := newWorld(t)
	id := w.campaign(1, "")
	_, err := w.store.UpdateTenant(t.Context(), w.tenant.ID, 0, func(tn *store.Tenant) error { tn.CampaignsEnabled = false; return nil })
	w.check(err)
	w.clock.forward(3 * time.Second)
	w.call("POST", "/api/campaigns", `{"name":"N","channel":"sms","draft":true}`).problem(403, "campaigns_disabled", "")
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").problem(403, "campaigns_disabled", "")
	w.call("POST", "/api/campaigns/"+id+"/duplicate", "").problem(403, "campaigns_disabled", "")
	w.call("GET", "/api/campaigns/"+id, "").want(200)
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
	w := newWorld(t, func(w *world) { w.deps.Moderator, w.deps.Approver = g, g })
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
	w := newWorld(t)
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
	w := newWorld(t)
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
	// C10: the duration follows them: 12 minutes at 2,000/s from 11:00 in Rome, when only one minute an hour... is open: none today.
	id := create(`"rate":10,"callingHoursStart":"11:00","callingHoursEnd":"11:10","callingHoursTimezone":"Europe/Rome"`).want(201).id()
	subset(t, "two days of ten minutes", w.call("POST", "/api/campaigns/"+id+"/calculateGoal", `{"goalContactCount":12000}`).want(200).body, `{"estimatedDuration":"1 day 1 hour","estimatedDurationSeconds":87000}`)
}

// R85: a copy is a draft of the same content.
func TestDuplicate(t *testing.T) {
	w := newWorld(t)
	id := w.campaign(1, `,"sendImmediately":true,"tags":["a"],"notes":"n"`)
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	copied := w.call("POST", "/api/campaigns/"+id+"/duplicate", "").want(201)
	subset(t, "copy", copied.body, `{"name":"C (copy)","status":"draft","message":"Hello","tags":["a"],"confirmedAt":null,"totalMessages":null}`)
	if copied.id() == id {
		t.Error("copy: got the same id")
	}
}

// R41, campaign_events: who did what, in order.
func TestEvents(t *testing.T) {
	w := newWorld(t)
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
	w := newWorld(t)
	id := w.states()[fanfarev1.State_STATE_SUSPENDED]
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

// X14: a test key's campaign goes by a simulated route, whatever the tenant's is.
func TestTestKey(t *testing.T) {
	w := newWorld(t, func(w *world) {
		_, _, err := w.store.EnsureRoute(t.Context(), store.Route{Name: "real", Connector: "smpp", Rate: 10, Enabled: true, Channels: []fanfarev1.Channel{fanfarev1.Channel_CHANNEL_SMS}, ReceiptWindow: time.Hour, P99: time.Second})
		w.check(err)
		_, err = w.store.UpdateTenant(t.Context(), w.tenant.ID, 0, func(tn *store.Tenant) error { tn.DefaultRoute = "real"; return nil })
		w.check(err)
	})
	confirmed := func(key, more string) store.Campaign {
		id := w.campaign(1, more)
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
	w := newWorld(t)
	for state, id := range w.states() {
		for _, field := range []string{"status", "state"} {
			a := w.call("PUT", "/api/campaigns/"+id, fmt.Sprintf(`{%q:"sending"}`, field))
			a.what += " of one that is " + schemas.StateName(state)
			a.problem(422, "read_only", field)
		}
	}
}

// Requirements §3: abort is legal until settled, and offered as long; of a draft in which nothing is missing so are price and
// confirm (C29).
func TestOfferedActions(t *testing.T) {
	w := newWorld(t)
	offered := func(id string) []string {
		var c struct{ AllowedActions []string }
		w.call("GET", "/api/campaigns/"+id, "").want(200).into(&c)
		slices.Sort(c.AllowedActions)
		return c.AllowedActions
	}
	completed := w.states()[fanfarev1.State_STATE_COMPLETED]
	if got, want := offered(completed), []string{"abort", "duplicate", "remove"}; !slices.Equal(got, want) {
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

// X4: an alphanumeric sender has at most 11 letters and digits.
func TestSenderIDs(t *testing.T) {
	w := newWorld(t)
	list := w.list("l", 1, 0)
	for sender, want := range map[string]int{
		"SHOP": 201, "Shop 24": 201, "H&M": 201, "shop.it": 201, "+393331234567": 201, "40404": 201, "ABCDEFGHIJK": 201,
		"ABCDEFGHIJKL": 422, "SHOP!": 422, "<b>": 422, "Zoë": 422, " SHOP": 422, "+1234567890123456": 422, "a\\tb": 422,
	} {
		if got := w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"S","channel":"sms","message":"m","contactList":%q,"sender":"%s"}`, list, sender)); got.status != want {
			t.Errorf("%q: got %d %s, want %d", sender, got.status, got.body, want)
		}
		want := map[int]int{201: 200, 422: 422}[want]
		if got := w.call("POST", sendPath, fmt.Sprintf(`{"phoneNumber":"+393331234567","message":"m","senderName":"%s"}`, sender)); got.status != want {
			t.Errorf("send as %q: got %d %s, want %d", sender, got.status, got.body, want)
		}
	}
}
