package api_test

import (
	"fmt"
	"strings"
	"testing"

	"fanfare/api"
)

// R43: a campaign that requires opt-ins is priced for, and sent to, those who have opted in, and says who is left out.
func TestRequireOptIn(t *testing.T) {
	w := newEnv(t)
	list := w.call("POST", "/api/contacts/list", `{"name":"l"}`).want(201).id()
	contact := func(n int, optIn string) string {
		return w.call("POST", "/api/contacts", fmt.Sprintf(`{"phoneNumber":"+39333000000%d","listIds":[%q]%s}`, n, list, optIn)).want(201).id()
	}
	first := contact(1, `,"optIn":{}`)
	subset(t, "now, by this API", w.call("GET", "/api/contacts/"+first, "").want(200).body, `{"optIn":{"time":"2025-04-01T09:00:00Z","source":"api"}}`)
	second := contact(2, `,"optIn":{"time":"2024-05-06T07:08:09+02:00","source":"web form"}`)
	subset(t, "then, by a form", w.call("GET", "/api/contacts/"+second, "").want(200).body, `{"optIn":{"time":"2024-05-06T05:08:09Z","source":"web form"}}`)
	third := contact(3, "")
	subset(t, "never", w.call("GET", "/api/contacts/"+third, "").want(200).body, `{"optIn":null}`)
	w.call("PUT", "/api/contacts/"+third, `{"optIn":{"time":"2026-01-01T00:00:00Z"}}`).problem(422, "invalid_value", "optIn.time")
	w.call("PUT", "/api/contacts/"+third, `{"optIn":{"time":"yesterday"}}`).problem(422, "invalid_value", "optIn.time")
	w.call("PUT", "/api/contacts/"+third, fmt.Sprintf(`{"optIn":{"source":%q}}`, strings.Repeat("x", 201))).problem(422, "too_long", "optIn.source")

	c := w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"c","channel":"sms","message":"Hello","contactList":%q,"requireOptIn":true}`, list)).want(201)
	subset(t, "campaign", c.body, `{"requireOptIn":true}`)
	path := "/api/campaigns/" + c.id()
	price := w.call("GET", path+"/price", "").want(200)
	subset(t, "price", price.body, `{"totalContacts":2,"exclusions":{"invalid":0,"duplicates":0,"optedOut":0,"notOptedIn":1}}`)
	version := price.object()["priceVersion"].(string)

	w.call("PUT", "/api/contacts/"+first, `{"optIn":null}`).want(200)
	subset(t, "after it was taken back", w.call("GET", path+"/price", "").want(200).body, `{"totalContacts":1,"exclusions":{"notOptedIn":2}}`)
	w.call("PUT", path+"/confirm", fmt.Sprintf(`{"priceVersion":%q}`, version)).problem(409, "price_changed", "")
	w.call("PUT", path, `{"requireOptIn":false}`).want(200)
	subset(t, "of all", w.call("GET", path+"/price", "").want(200).body, `{"totalContacts":3,"exclusions":{"notOptedIn":0}}`)
	w.call("PUT", path, `{"requireOptIn":"yes"}`).want(422)
}

// X10: an opt-out is of all channels or of one, and is lifted likewise.
func TestOptOutsOfOneChannel(t *testing.T) {
	w := newEnv(t)
	w.relay()
	const number = `"phoneNumber":"+393331234567"`
	put := func(channel, want string) {
		t.Helper()
		subset(t, "opt-out of "+channel, w.call("POST", "/api/suppressions", `{`+number+`,"channel":"`+channel+`","reason":"asked"}`).want(201).body, want)
	}
	lift := func(channel, want string) {
		t.Helper()
		subset(t, "lifted of "+channel, w.call("DELETE", "/api/suppressions?phoneNumber=3331234567&channel="+channel, "").want(200).body, want)
	}
	send := func() *answer { return w.call("POST", sendPath, `{`+number+`,"message":"m"}`) }
	put("voice", `{"suppressed":true,"channels":["voice"],"reason":"asked"}`)
	send().want(200)
	put("SMS", `{"suppressed":true,"channels":["sms","voice"]}`)
	send().problem(422, "opted_out", "phoneNumber")
	list := w.call("POST", "/api/contacts/list", `{"name":"l"}`).want(201).id()
	w.call("POST", "/api/contacts", fmt.Sprintf(`{%s,"listIds":[%q]}`, number, list)).want(201)
	c := w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"c","channel":"sms","message":"Hello","contactList":%q}`, list)).want(201).id()
	subset(t, "price", w.call("GET", "/api/campaigns/"+c+"/price", "").want(200).body, `{"totalContacts":0,"exclusions":{"optedOut":1}}`)
	lift("sms", `{"suppressed":true,"channels":["voice"]}`)
	subset(t, "price after START", w.call("GET", "/api/campaigns/"+c+"/price", "").want(200).body, `{"totalContacts":1,"exclusions":{"optedOut":0}}`)
	send().want(200)
	put("all", `{"suppressed":true,"channels":["all"]}`)
	put("rcs", `{"suppressed":true,"channels":["all"]}`) // has opted out of it already
	send().problem(422, "opted_out", "phoneNumber")
	lift("sms", `{"suppressed":true,"channels":["rcs","whatsapp","voice"]}`)
	send().want(200)
	if list := string(w.call("GET", "/api/suppressions", "").want(200).body); !strings.Contains(list, `"total":1`) || !strings.Contains(list, `"channels":["rcs","whatsapp","voice"]`) {
		t.Errorf("list: got %s", list)
	}
	if file := string(w.call("GET", "/api/suppressions/export", "").want(200).body); !strings.Contains(file, "+393331234567,rcs whatsapp voice,api,") {
		t.Errorf("export: got %q", file)
	}
	lift("all", `{"suppressed":false,"channels":[]}`)
	var history api.Page[api.SuppressionChange]
	w.call("GET", "/api/suppressions/history?phoneNumber=%2B393331234567", "").want(200).into(&history)
	var proof []string
	for _, h := range history.Data {
		proof = append(proof, fmt.Sprint(h.Suppressed, " ", h.Channel, " ", h.Channels))
	}
	want := "true voice [voice]; true sms [sms voice]; false sms [voice]; true all [all]; false sms [rcs whatsapp voice]; false all []"
	if got := strings.Join(proof, "; "); got != want {
		t.Errorf("history: got %s, want %s", got, want)
	}
	w.call("POST", "/api/suppressions", `{`+number+`,"channel":"fax"}`).problem(422, "invalid_value", "channel")
	w.call("DELETE", "/api/suppressions?phoneNumber=3331234567&channel=fax", "").problem(422, "invalid_value", "channel")

	var file api.SuppressionImport
	w.call("POST", "/api/suppressions/import", "phone,channel\n+393331234567,whatsapp\n+393331234568,\n+393331234569,fax\n", csv).want(200).into(&file)
	if file.Rows != 3 || file.Added != 2 || file.Invalid != 1 || file.Rejected[0].Line != 4 || file.Rejected[0].Column != "channel" {
		t.Errorf("import: got %+v, want two of three", file)
	}
	if one := string(w.call("GET", "/api/suppressions?phoneNumber=3331234567", "").want(200).body); !strings.Contains(one, `"channels":["whatsapp"]`) {
		t.Errorf("imported: got %s", one)
	}
}
