package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// X9: a campaign that waits gets another time and stays confirmed; elsewhere the answer names what is possible instead.
func TestReschedule(t *testing.T) {
	w := newEnv(t)
	id := w.campaign(2, `,"scheduledTime":"2025-04-15T09:00:00Z"`)
	path := "/api/campaigns/" + id
	body := `{"scheduledTime":{"year":2025,"month":4,"day":20,"hour":9,"minute":30}}`
	p := w.call("POST", path+"/reschedule", body).problem(409, "wrong_state", "")
	if got := p["allowedActions"].([]any); slices.Contains(got, any("reschedule")) || !slices.Contains(got, any("confirm")) {
		t.Errorf("configured: got actions %v", got)
	}
	w.call("PUT", path+"/confirm", "").want(200)
	moved := w.call("POST", path+"/reschedule", body).want(200)
	subset(t, "moved", moved.body, `{"state":"scheduled","scheduledTime":"2025-04-20T07:30:00Z","scheduledTimeLocal":"2025-04-20T09:30","scheduledTimezone":"Europe/Rome"}`)
	if got := w.record(id); got.GetScheduledMs() != time.Date(2025, 4, 20, 7, 30, 0, 0, time.UTC).UnixMilli() || got.GetConfirmedMs() == 0 {
		t.Errorf("got scheduled %d, confirmed %d", got.GetScheduledMs(), got.GetConfirmedMs())
	}
	w.call("POST", path+"/reschedule", `{}`).problem(422, "required", "scheduledTime")
	w.call("POST", path+"/reschedule", `{"scheduledTime":"2025-03-01T09:00:00Z"}`).problem(422, "time_in_past", "scheduledTime")
	// C16: one that waits for a manual start gets a time; R79: and what is not listed is not possible.
	ready := w.campaign(1, "")
	w.call("PUT", "/api/campaigns/"+ready+"/confirm", "").want(200)
	subset(t, "ready", w.call("POST", "/api/campaigns/"+ready+"/reschedule", body).want(200).body, `{"state":"scheduled"}`)
	w.call("POST", "/api/campaigns/"+ready+"/unschedule", "").want(200)
	if c, err := w.store.Campaign(t.Context(), w.tenant.ID, ready); err != nil || c.Reserved != 0 {
		t.Errorf("unscheduled: got %d reserved, %v, want 0", c.Reserved, err)
	}
}

// X15: ambiguous is named wherever a decision about ambiguous recipients is legal.
func TestAmbiguousIsAllowed(t *testing.T) {
	w := newEnv(t)
	id := w.campaign(2, `,"sendImmediately":true`)
	has := func() bool {
		var c struct{ AllowedActions []string }
		w.call("GET", "/api/campaigns/"+id, "").want(200).into(&c)
		if n := len(c.AllowedActions); n != len(slices.Compact(slices.Sorted(slices.Values(c.AllowedActions)))) {
			t.Errorf("got an action twice: %v", c.AllowedActions)
		}
		return slices.Contains(c.AllowedActions, "ambiguous")
	}
	if has() {
		t.Error("configured: got ambiguous among the actions")
	}
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	w.freeze(id, 2)
	if !has() {
		t.Error("sending: got no ambiguous among the actions")
	}
}

// R48: where the tenant wants a second person, the author of the campaign can't confirm it.
func TestSecondPerson(t *testing.T) {
	w := newEnv(t)
	w.call("PUT", "/api/policy", `{"secondPerson":true}`).want(403)
	w.callAs(w.admin(), "PUT", "/api/policy", `{"secondPerson":true}`).want(200)
	id := w.campaign(1, "")
	path := "/api/campaigns/" + id + "/confirm"
	w.call("PUT", path, "").problem(409, "approval_required", "")
	second, third := w.newKey(w.tenant.ID, nil, false), w.newKey(w.tenant.ID, nil, false)
	w.callAs(second, "PUT", "/api/campaigns/"+id, `{"notes":"I wrote a part too"}`).want(200)
	w.callAs(second, "PUT", path, "").problem(409, "approval_required", "")
	w.callAs(third, "GET", "/api/campaigns/"+id+"/price", "").want(200) // looking at the price is no writing
	w.callAs(third, "PUT", path, "").want(200)
}

// R81: words, patterns and domains are the tenant's own; a campaign that has them is rejected, with the reason, and can
// be edited.
func TestModeration(t *testing.T) {
	w := newEnv(t)
	w.list("l", 1, 0)
	w.agent("Acme")
	w.template("card", "rcs", "Win a prize: {{offer}}")
	set := w.callAs(w.admin(), "PUT", "/api/policy", `{"words":["Gratis jetzt","casinò"],"patterns":["(?i)pass(word|code)"],"domains":["bad.example"]}`).want(200)
	subset(t, "policy", w.call("GET", "/api/policy", "").want(200).body, `{"words":["Gratis jetzt","casinò"],"secondPerson":false,"maintenanceWindows":[]}`)
	w.callAs(w.admin(), "PUT", "/api/policy", `{"words":[]}`, header{"If-Match", `"99"`}).want(412)
	if set.header.Get("ETag") == "" {
		t.Error("got no ETag")
	}
	for _, c := range []struct{ content, reason string }{
		{`"channel":"sms","message":"Jetzt GRATIS,  jetzt!"`, "Gratis jetzt"},
		{`"channel":"sms","message":"Vinci al CASINO"`, "casinò"},
		{`"channel":"sms","message":"Your Passcode"`, "pass"},
		{`"channel":"sms","message":"See http://www.BAD.example/x"`, "bad.example"},
		{`"channel":"rcs","message":"card","parameters":{"offer":"a passcode"}`, "pass"},
		{`"channel":"sms","variants":[{"name":"A","message":"fine"},{"name":"B","message":"casino"}]`, "casinò"},
		{`"channel":"sms","message":"Gratisjetzt notbad.example casinos"`, ""},
	} {
		id := w.call("POST", "/api/campaigns", `{"name":"C","contactList":"l",`+c.content+`}`).want(201).id()
		got := w.call("PUT", "/api/campaigns/"+id+"/confirm", "")
		if c.reason == "" {
			got.want(200)
			continue
		}
		if p := got.problem(422, "content_rejected", ""); !strings.Contains(p["detail"].(string), c.reason) {
			t.Errorf("%s: got %q, want the reason %q", c.content, p["detail"], c.reason)
		}
		var stored struct{ State, Reason string }
		if w.call("GET", "/api/campaigns/"+id, "").into(&stored); stored.State != "rejected" || !strings.Contains(stored.Reason, c.reason) {
			t.Errorf("%s: got %+v, want it rejected with the reason", c.content, stored)
		}
		// R53
		subset(t, "edited", w.call("PUT", "/api/campaigns/"+id, `{"notes":"x"}`).want(200).body, `{"state":"draft"}`)
	}
	for body, field := range map[string]string{
		`{"words":["!"]}`: "words[0]", `{"patterns":["("]}`: "patterns[0]", `{"domains":["not a domain"]}`: "domains[0]",
		`{"maintenanceWindows":[{"route":"sim","start":"2","end":"04:00"}]}`:          "maintenanceWindows[0].start",
		`{"maintenanceWindows":[{"route":"No Route","start":"02:00","end":"04:00"}]}`: "maintenanceWindows[0].route",
	} {
		if got := w.callAs(w.admin(), "PUT", "/api/policy", body).want(422); got.get("field") != field {
			t.Errorf("%s: got %s, want field %s", body, got.body, field)
		}
	}
}

// R157, X14: a test send shows the message to up to 10 numbers; it is priced, and outside the campaign.
func TestTestSend(t *testing.T) {
	w := newEnv(t)
	w.list("l", 1, 0)
	w.way("WA", "whatsapp", "+393331234567")
	w.agent("Acme")
	w.way("Phone", "voice", "+390612345678")
	w.template("order", "whatsapp", "Ciao {{1}}")
	w.template("card", "rcs", `Hi {{first_name}}`)
	send := func(id, body string) *answer { return w.call("POST", "/api/campaigns/"+id+"/test", body) }
	create := func(more string) string {
		return w.call("POST", "/api/campaigns", `{"name":"C","contactList":"l","missingField":"default","missingDefault":"\"you\"",`+more+`}`).want(201).id()
	}
	contact, stranger := phoneOf(0), "+393331239999"
	sms := create(`"channel":"sms","message":"Hi {{first_name}}"`)
	got := send(sms, fmt.Sprintf(`{"to":[%q,%q]}`, contact, stranger)).want(200)
	subset(t, "answer", got.body, `{"cost":0.10,"currency":"EUR"}`)
	send(create(`"channel":"whatsapp","message":"order","parameters":{"1":"{{first_name}}"}`), fmt.Sprintf(`{"to":[%q]}`, contact)).want(200)
	send(create(`"channel":"rcs","message":"card"`), fmt.Sprintf(`{"to":[%q]}`, stranger)).want(200)
	send(create(`"channel":"voice","message":"Good morning {{first_name}}","queue":"q"`), fmt.Sprintf(`{"to":[%q]}`, contact)).want(200)
	send(create(`"channel":"sms","variants":[{"name":"A","message":"first"},{"name":"B","message":"second"}]`), fmt.Sprintf(`{"to":[%q],"variant":"B"}`, contact)).want(200)
	var bodies []string
	for _, r := range w.records(w.names.Messages("sim", schemas.LaneTxn)) {
		m := &fanfarev1.Message{}
		w.check(proto.Unmarshal(r.Value, m))
		body := m.GetText().GetBody() + strings.Join(m.GetTemplate().GetParams(), "|") + string(m.GetTemplate().GetComponents()) + string(m.GetRich().GetJson()) + m.GetCall().GetText()
		bodies = append(bodies, fmt.Sprintf("%s %d %s", schemas.ChannelName(m.GetChannel()), m.GetPriceMicros(), body))
		if m.GetTest() || m.GetCampaignId() == sms {
			t.Errorf("got message %v, want a real one outside the campaign", m)
		}
	}
	slices.Sort(bodies)
	want := []string{
		`rcs 80000 {"text":"Hi \"you\""}`, `sms 50000 Hi "you"`, `sms 50000 Hi Name0`, `sms 50000 second`, `voice 80000 Good morning Name0`,
		`whatsapp 150000 Name0[{"parameters":[{"text":"Name0","type":"text"}],"type":"body"}]`,
	}
	if !slices.Equal(bodies, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(bodies, "\n"), strings.Join(want, "\n"))
	}
	subset(t, "the campaign", w.call("GET", "/api/campaigns/"+sms, "").body, `{"state":"configured","totalMessages":null}`)
	subset(t, "its statistics", w.call("GET", "/api/campaigns/"+sms+"/stats", "").body, `{"totalMessages":0,"sent":0}`)
	send(sms, `{"to":[]}`).problem(422, "invalid_value", "to")
	send(sms, `{"to":[`+strings.Repeat(`"+393331239999",`, 10)+`"+393331239999"]}`).problem(422, "invalid_value", "to")
	send(sms, `{"to":["nobody"]}`).problem(422, "invalid_number", "to[0]")
	send(sms, `{"to":["+393331239999"],"variant":"X"}`).problem(422, "invalid_value", "variant")
	// X10: who has opted out gets no test either.
	w.relay()
	w.call("POST", "/api/suppressions", fmt.Sprintf(`{"phoneNumber":%q}`, stranger)).want(201)
	send(sms, fmt.Sprintf(`{"to":[%q]}`, stranger)).problem(422, "opted_out", "to[0]")
	// Money that is not there is not spent.
	w.check(w.store.SetCredit(t.Context(), w.tenant.ID, 10_000, false))
	w.clock.forward(3 * time.Second)
	send(sms, fmt.Sprintf(`{"to":[%q]}`, contact)).want(402)
	// X14: with a test key it reaches the simulator only, and costs nothing.
	key := w.newKey(w.tenant.ID, store.Scopes, true)
	subset(t, "test key", w.callAs(key, "POST", "/api/campaigns/"+sms+"/test", fmt.Sprintf(`{"to":[%q]}`, contact)).want(200).body, `{"cost":0}`)
}

// R28, C15, R160: the forms of a time, and what is warned of or refused.
func TestTimes(t *testing.T) {
	w := newEnv(t)
	w.list("l", 1, 0)
	create := func(more string) *answer {
		return w.call("POST", "/api/campaigns", `{"name":"C","channel":"sms","message":"m","contactList":"l",`+more+`}`)
	}
	for when, want := range map[string]string{
		`{"year":2025,"month":4,"day":15,"hour":9,"minute":5}`:                         "2025-04-15T07:05:00Z",
		`{"year":2025,"month":4,"day":15,"hour":9,"minute":5,"timezone":"Asia/Tokyo"}`: "2025-04-15T00:05:00Z",
		// The gap: the first instant after it
		`{"year":2026,"month":3,"day":29,"hour":2,"minute":30}`: "2026-03-29T01:00:00Z",
		// Twice: the first
		`{"year":2025,"month":10,"day":26,"hour":2,"minute":30}`: "2025-10-26T00:30:00Z",
		// The tenant's zone
		`{"local":"2025-04-15T09:00"}`: "2025-04-15T07:00:00Z",
	} {
		subset(t, when, create(`"scheduledTime":`+when).want(201).body, `{"scheduledTime":"`+want+`"}`)
	}
	for _, when := range []string{
		`{"year":2025,"month":2,"day":30,"hour":9,"minute":5}`, `{"year":2025,"month":4,"day":15,"hour":24,"minute":0}`, `{"year":2025,"month":4,"day":15}`,
		`{"year":2025,"month":4,"day":15,"hour":9,"minute":5,"local":"2025-04-15T09:00"}`, `{}`, `"2025-04-15T09:00:00"`,
	} {
		if got := create(`"scheduledTime":` + when).want(422); got.get("field") != "scheduledTime" {
			t.Errorf("%s: got %s, want the field scheduledTime", when, got.body)
		}
	}
	create(`"recipientTimezone":true`).problem(422, "required", "callingHoursStart")
	create(`"recipientTimezone":false`).want(201)
	create(`"batches":[{"at":"2025-04-15T09:00:00Z","share":50}]`).problem(422, "invalid_value", "batches")
	// R160: off by default, warned of when it is set.
	night := `"scheduledTime":{"local":"2025-04-15T03:00"}`
	if got := create(night).want(201).object()["warning"]; got != nil {
		t.Errorf("got warning %v, want none", got)
	}
	w.callAs(w.admin(), "PUT", "/api/policy", `{"maintenanceWindows":[{"route":"sim","start":"02:00","end":"04:00"}]}`).want(200)
	if got := fmt.Sprint(create(night).want(201).object()["warning"]); !strings.Contains(got, "under maintenance from 02:00 to 04:00 (Europe/Rome)") {
		t.Errorf("got warning %v, want the window", got)
	}
	if got := create(`"scheduledTime":{"local":"2025-04-15T04:00"}`).want(201).object()["warning"]; got != nil {
		t.Errorf("got warning %v at the window's end, want none", got)
	}
	// R94: hours that are too short for the audience are warned of, with the end.
	id := create(`"rate":1,"callingHoursStart":"09:00","callingHoursEnd":"10:00"`).want(201).id()
	goal := w.call("POST", "/api/campaigns/"+id+"/calculateGoal", `{"goalContactCount":10000}`).want(200)
	if got := fmt.Sprint(goal.object()["warning"]); !strings.Contains(got, "calling hours are too short") {
		t.Errorf("got warning %v, want that the hours are too short", got)
	}
}
