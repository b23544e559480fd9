package api_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"fanfare/api/store"
)

// R91, C6: a POST is complete or says that it is a draft.
func TestCreateNeedsFourFields(t *testing.T) {
	w := newEnv(t)
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
	w.agent("Acme")
	w.template("tpl", "rcs", "Hi")
	w.call("POST", "/api/campaigns", `{"name":"N","channel":"rcs","draft":true,"sender":"Acme","message":"tpl"}`).want(201)
}

// R155, R156, C14: lengths as E has them, in characters as written; more for a tenant who may send longer texts.
func TestMessageLength(t *testing.T) {
	w := newEnv(t)
	w.list("l", 1, 0)
	create := func(channel, message string) *answer {
		b, _ := json.Marshal(map[string]any{"name": "N", "channel": channel, "message": message, "contactList": "l"})
		return w.call("POST", "/api/campaigns", string(b))
	}
	for _, char := range []string{"a", "€", "é", "ж", "😀"} {
		create("sms", strings.Repeat(char, 160)).want(201)
		create("sms", strings.Repeat(char, 161)).problem(422, "too_long", "message")
	}
	w.agent("Acme")
	w.way("WA", "whatsapp", "+393331234567")
	for _, channel := range []string{"rcs", "whatsapp"} {
		// No template has such a name
		create(channel, strings.Repeat("t", 1000)).problem(422, "invalid_value", "message")
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
	w := newEnv(t)
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
	// Pricing or confirming a complete draft configures it.
	draft := w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"N","channel":"sms","message":"M","contactList":%q,"draft":true}`, w.list("d", 1, 500))).want(201).id()
	subset(t, "calculateGoal of a draft", w.call("POST", "/api/campaigns/"+draft+"/calculateGoal", "").want(200).body, `{"basis":"audience","totalContacts":1}`)
	subset(t, "configured by it", w.call("GET", "/api/campaigns/"+draft, "").body, `{"status":"cost_calculated"}`)
}

// X12: ETag and If-Match on every change.
func TestIfMatch(t *testing.T) {
	w := newEnv(t)
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

// C2, C19, R58 to R64: DELETE cancels before anything is submitted and stays listed; what runs is aborted; what ended is
// hidden.
func TestDelete(t *testing.T) {
	w := newEnv(t)
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

// C17, R98, R99: immediate, scheduled, or waiting to be started by hand; a time in the past is no time.
func TestWhenItStarts(t *testing.T) {
	w := newEnv(t)
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
	w := newEnv(t)
	w.list("l", 1, 0)
	w.agent("Acme")
	w.way("WA", "whatsapp", "+393331234567")
	w.template("r", "rcs", "Hi")
	w.template("m", "whatsapp", "Hi")
	create := func(more string) *answer {
		message := "m"
		if strings.Contains(more, "rcs") {
			message = "r"
		}
		return w.call("POST", "/api/campaigns", `{"name":"N","message":"`+message+`","contactList":"l",`+more+`}`)
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
	chain := create(`"sendingMode":"WHATSAPP_SMS"`).want(201).id()
	subset(t, "null takes it back", w.call("PUT", "/api/campaigns/"+chain, `{"sendingMode":null}`).want(200).body, `{"sendingMode":"WHATSAPP","fallback":false}`)
	if got := create(`"channel":"rcs","fallback":true`).object()["warning"]; got == nil {
		t.Error("fallback without a text: got no warning, want one")
	}
	create(`"channel":"sms","sendingMode":"RCS_SMS"`).problem(422, "invalid_value", "sendingMode")
	create(`"channel":"rcs","sendingMode":"RCS_SMS","fallback":false`).problem(422, "invalid_value", "fallback")
	create(`"channel":"pigeon"`).problem(422, "invalid_value", "channel")
	create(`"channel":"voice","fallback":true`).problem(422, "invalid_value", "fallback")
	create(`"channel":"sms","sendingMode":"SMS_RCS"`).problem(422, "invalid_value", "sendingMode")
	create(`"channel":"sms","fallbackMessage":"x"`).problem(422, "invalid_value", "fallbackMessage")
}

// C27, R9: a list by id, by name, or several; lists that are not there are named.
func TestContactLists(t *testing.T) {
	w := newEnv(t)
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
	// A list that is deleted before confirm leaves no recipients.
	id := create(`"first"`).id()
	w.call("DELETE", "/api/contacts/list/first?force=true", "").want(200)
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").problem(422, "invalid_value", "contactList")
}

// X2, R130, R133: paging and filters.
func TestListFilters(t *testing.T) {
	w := newEnv(t)
	w.list("l", 1, 0)
	w.agent("Acme")
	w.template("tpl", "rcs", "Hi")
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
		"?startDate=2025-04-02T12:00:00+02:00":     {scheduled}, // an unescaped + arrives as a blank
		"?startDate=2025-04-02T12:00%2B0200":       {scheduled},
		"?limit=2":                                 {scheduled, ready},
		"?limit=2&page=1":                          {rcs, draft},
		"?limit=1&page=7":                          {},
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
		"?startDate=yesterday": "startDate", "?endDate=1": "endDate", "?direction=up": "direction", "?isDraft=maybe": "isDraft", "?cursor=7": "cursor", "?sendingMode=FAX": "sendingMode",
	} {
		w.call("GET", "/api/campaigns"+query, "").problem(422, "invalid_value", field)
	}
}

// C1: one machine, five vocabularies.
func TestVocabularies(t *testing.T) {
	w := newEnv(t)
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

// X4: an alphanumeric sender has at most 11 letters and digits.
func TestSenderIDs(t *testing.T) {
	w := newEnv(t)
	list := w.list("l", 1, 0)
	for sender, want := range map[string]int{
		"SHOP": 201, "Shop 24": 201, "H&M": 201, "shop.it": 201, "+393331234567": 201, "40404": 201, "ABCDEFGHIJK": 201,
		"ABCDEFGHIJKL": 422, "SHOP!": 422, "<b>": 422, "Zoë": 422, " SHOP": 422, "+1234567890123456": 422, "a\\tb": 422,
	} {
		if want == 201 {
			w.sender(fmt.Sprintf(`"name":"%s"`, sender))
		} else {
			w.call("POST", "/api/senders", fmt.Sprintf(`{"name":"%s"}`, strings.TrimPrefix(sender, " ")+strings.Repeat("!", len(sender)-len(strings.TrimPrefix(sender, " "))))).want(422)
		}
		if got := w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"S","channel":"sms","message":"m","contactList":%q,"sender":"%s"}`, list, sender)); got.status != want {
			t.Errorf("%q: got %d %s, want %d", sender, got.status, got.body, want)
		}
		want := map[int]int{201: 200, 422: 422}[want]
		if got := w.call("POST", sendPath, fmt.Sprintf(`{"phoneNumber":"+393331234567","message":"m","senderName":"%s"}`, sender)); got.status != want {
			t.Errorf("send as %q: got %d %s, want %d", sender, got.status, got.body, want)
		}
	}
}

// R50, C29: a refusal of an action names the same actions as the campaign's allowedActions, for a draft with and without
// what a confirm needs.
func TestRefusalNamesAllowedActions(t *testing.T) {
	w := newEnv(t)
	w.list("l", 1, 0)
	for _, body := range []string{
		`{"name":"D","channel":"sms","draft":true}`,
		`{"name":"D","channel":"sms","draft":true,"message":"Hi","contactList":"l"}`,
		`{"name":"D","channel":"sms","message":"Hi","contactList":"l"}`,
	} {
		made := w.call("POST", "/api/campaigns", body).want(201)
		want := made.object()["allowedActions"]
		if got := w.call("POST", "/api/campaigns/"+made.id()+"/pause", "").problem(409, "wrong_state", "")["allowedActions"]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", body, got, want)
		}
	}
}

// An unknown contact list is refused with the names that are most similar, of the same tenant only.
func TestNearestList(t *testing.T) {
	w := newEnv(t)
	w.list("Spring sale", 1, 0)
	_, key := w.newTenant("Other")
	w.callAs(key, "POST", "/api/contacts/list", `{"name":"Sprinx sale"}`).want(201)
	p := w.call("POST", "/api/campaigns", `{"name":"C","channel":"sms","message":"Hi","contactList":"sprinf sale"}`).problem(422, "invalid_value", "contactList")
	if got := p["fix"]; got != "Did you mean Spring sale?" {
		t.Errorf("got fix %q, want the nearest name", got)
	}
	p = w.call("POST", "/api/campaigns", `{"name":"C","channel":"sms","message":"Hi","contactList":"nothing like it"}`).problem(422, "invalid_value", "contactList")
	if got := fmt.Sprint(p["fix"]); !strings.Contains(got, "POST /api/contacts/list") {
		t.Errorf("got fix %q, want how to create one", got)
	}
}
