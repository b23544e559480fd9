package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
)

// X11: calling hours on each recipient's clock. What is set is said back, kept, and dropped with the hours; the
// forecast follows the zones, of the countries before the freeze and of the recipients after it (R94, X19).
func TestRecipientTimezone(t *testing.T) {
	w := newEnv(t)
	w.list("l", 1, 0)
	create := func(list, more string) *answer {
		return w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"N","channel":"sms","message":"m","contactList":%q,%s}`, list, more))
	}
	hours := `"callingHoursStart":"09:00","callingHoursEnd":"20:00","callingHoursTimezone":"Europe/Rome"`
	create("l", `"recipientTimezone":true`).problem(422, "required", "callingHoursStart")
	create("l", `"recipientTimezone":"yes",`+hours).problem(422, "invalid_value", "recipientTimezone")
	subset(t, "without", create("l", hours).want(201).body, `{"recipientTimezone":false}`)
	made := create("l", `"recipientTimezone":true,`+hours).want(201)
	subset(t, "made", made.body, `{"recipientTimezone":true,"callingHoursStart":"09:00","callingHoursEnd":"20:00","callingHoursTimezone":"Europe/Rome"}`)
	path := "/api/campaigns/" + made.id()
	subset(t, "other hours keep it", w.call("PUT", path, `{"callingHoursStart":"10:00","callingHoursEnd":"19:00"}`).want(200).body, `{"recipientTimezone":true,"callingHoursStart":"10:00"}`)
	subset(t, "set off", w.call("PUT", path, `{"recipientTimezone":false}`).want(200).body, `{"recipientTimezone":false,"callingHoursStart":"10:00"}`)
	subset(t, "set on", w.call("PUT", path, `{"recipientTimezone":true}`).want(200).body, `{"recipientTimezone":true,"callingHoursStart":"10:00"}`)
	w.call("PUT", path, `{"callingHoursStart":null,"callingHoursEnd":null,"recipientTimezone":true}`).problem(422, "required", "callingHoursStart")
	subset(t, "no hours", w.call("PUT", path, `{"callingHoursStart":null,"callingHoursEnd":null}`).want(200).body, `{"recipientTimezone":false,"callingHoursStart":null}`)
	subset(t, "a copy", w.call("POST", "/api/campaigns/"+create("l", `"recipientTimezone":true,`+hours).want(201).id()+"/duplicate", "").want(201).body, `{"recipientTimezone":true}`)

	// One in Rome, one in Tokyo, one in New York, and one in South Dakota, which has two clocks, at 12:00 in Rome.
	until := func(at time.Time) { w.clock.forward(at.Sub(w.clock.now())) }
	until(time.Date(2025, 4, 15, 10, 0, 0, 0, time.UTC))
	people := w.list("people", 0, 0)
	number, _ := store.ListNumber(people)
	for _, phone := range []string{"+393331234567", "+818012345678", "+12125550123", "+16055551234"} {
		c, err := w.store.CreateContact(t.Context(), store.Contact{Tenant: w.tenant.ID, Phone: phone})
		w.check(err)
		_, err = w.store.AddToList(t.Context(), w.tenant.ID, number, []uint64{c.Number})
		w.check(err)
	}
	id := create("people", `"sendImmediately":true,"recipientTimezone":true,`+hours).want(201).id()
	goal := w.call("POST", "/api/campaigns/"+id+"/calculateGoal", "").want(200)
	// Tokyo, where it is 19:00, is reached today; New York opens at 13:00 UTC.
	if secs := goal.object()["estimatedDurationSeconds"].(float64); secs < 3*3600 || secs > 3*3600+60 {
		t.Errorf("forecast: got %v s, want three hours: New York opens then (%s)", secs, goal.body)
	}
	// 21:00 in Tokyo: the last one gets it tomorrow, at midnight UTC
	until(time.Date(2025, 4, 15, 12, 0, 0, 0, time.UTC))
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	w.freeze(id, 4)
	eta := func() string {
		return w.call("GET", "/api/campaigns/"+id+"/stats", "").want(200).get("estimatedCompletionTime")
	}
	if got, want := eta(), "2025-04-16T00:00:00Z"; got != want {
		t.Errorf("forecast while all wait: got %s, want %s", got, want)
	}
	row, err := w.store.Campaign(t.Context(), w.tenant.ID, id)
	w.check(err)
	index, err := w.store.Blobs(t.Context(), row.FreezeID)
	w.check(err)
	var zones []string
	for _, b := range index {
		zones = append(zones, b.Zone)
		if b.Zone == "Asia/Tokyo" {
			w.happened(w.tenant.ID, id, b.First, b.First+b.Count, schemas.KindSent, schemas.CodeAwaitingDLR)
		}
	}
	if got, want := strings.Join(zones, " "), "America/Denver,America/North_Dakota/Center America/New_York Asia/Tokyo Europe/Rome"; got != want {
		t.Errorf("got the zones %s, want %s", got, want)
	}
	w.clock.forward(10 * time.Second) // figures are kept for a moment
	if got, want := eta(), "2025-04-15T15:00:00Z"; got != want {
		t.Errorf("forecast when Tokyo is done: got %s, want %s, when Denver opens", got, want)
	}

	// Whose zones share no minute of the hours is warned of.
	phone := "+351912345678" // on the mainland or on the Azores
	c, err := w.store.CreateContact(t.Context(), store.Contact{Tenant: w.tenant.ID, Phone: phone})
	w.check(err)
	number, _ = store.ListNumber(w.list("portugal", 0, 0))
	_, err = w.store.AddToList(t.Context(), w.tenant.ID, number, []uint64{c.Number})
	w.check(err)
	never := create("portugal", `"recipientTimezone":true,"callingHoursStart":"09:00","callingHoursEnd":"09:30"`).want(201).id()
	for _, ask := range []*answer{w.call("GET", "/api/campaigns/"+never+"/price", ""), w.call("POST", "/api/campaigns/"+never+"/calculateGoal", "")} {
		if got := fmt.Sprint(ask.want(200).object()["warning"]); !strings.Contains(got, "1 recipients may be in time zones that share none of the calling hours") {
			t.Errorf("got the warning %s, want one about Portugal", got)
		}
	}
}
