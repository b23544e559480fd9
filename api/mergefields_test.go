package api_test

import (
	"fmt"
	"strings"
	"testing"

	"fanfare/api"
)

// campaignAnswer is what these tests read of a campaign.
type campaignAnswer struct {
	ID                string
	Message, Encoding *string
	Characters        *int
	Warning           []string
}

// A text with a merge field that no contact of its lists has is refused at create, change, price and confirm, with the
// fields that were probably meant; one that some contacts lack is a warning that says how many.
func TestMergeFields(t *testing.T) {
	w := newEnv(t)
	w.call("POST", "/api/contacts/list", `{"name":"l"}`).want(201)
	w.call("POST", "/api/contacts/list", `{"name":"empty"}`).want(201)
	w.call("POST", "/api/contacts/list/l/import", "Cellulare,Nome,Order ID,città\n+393331230001,Anna,17,Roma\n+393331230002,,18,\n+393331230003,Ugo,19,\n", csv).want(200)
	body := func(message, more string) string {
		return fmt.Sprintf(`{"name":"C","channel":"sms","contactList":"l","message":%q%s}`, message, more)
	}
	var c campaignAnswer
	for message, want := range map[string]string{ // the warning, "" for none
		"Ordine {{Order ID}}, {{order-id}}, {{ORDER_ID}} di {{phone}} {{cellulare}}": "",
		"Ciao {{Nome}}":     "{{Nome}}: 1 of 3 contacts have no value, and will get nothing in its place.",
		"Ciao {{nome}}":     "{{nome}}: 1 of 3 contacts have no value",
		"A {{citta\u0300}}": "{{città}}: 2 of 3 contacts have no value",
	} {
		c = campaignAnswer{}
		w.call("POST", "/api/campaigns", body(message, "")).want(201).into(&c)
		if got := strings.Join(c.Warning, " "); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%q: got warnings %q, want %q", message, got, want)
		}
	}
	for more, want := range map[string]string{
		`,"missingField":"fail"`:                             "will not be sent to.",
		`,"missingField":"default","missingDefault":"amico"`: `will get "amico" instead.`,
	} {
		c = campaignAnswer{}
		w.call("POST", "/api/campaigns", body("Ciao {{nome}}", more)).want(201).into(&c)
		if got := strings.Join(c.Warning, " "); !strings.HasSuffix(got, want) {
			t.Errorf("%s: got warnings %q, want %q", more, got, want)
		}
	}
	for message, fix := range map[string]string{
		"Ordine {{orderid}}":  "Did you mean {{order_id}}?",
		"Ciao {{frist_name}}": "Did you mean {{first_name}}?",
		"A {{cita}}":          "Did you mean {{città}}?",
		"{{promo_code_2025}}": "The contacts have {{order_id}}, {{first_name}}, {{città}}: use one of them",
	} {
		a := w.call("POST", "/api/campaigns", body(message, ""))
		a.problem(422, "unknown_merge_field", "message")
		if !strings.Contains(string(a.body), fix) {
			t.Errorf("%q: got %s, want %q", message, a.body, fix)
		}
	}
	// A draft may be ahead of its contacts; at its price and at confirm it is not one any more.
	c = campaignAnswer{}
	w.call("POST", "/api/campaigns", body("Ciao {{frist_name}}", `,"draft":true`)).want(201).into(&c)
	if len(c.Warning) != 1 || !strings.Contains(c.Warning[0], "Did you mean {{first_name}}?") {
		t.Errorf("draft: got warnings %q, want the field and what was meant", c.Warning)
	}
	path := "/api/campaigns/" + c.ID
	w.call("GET", path+"/price", "").problem(422, "unknown_merge_field", "message")
	w.call("POST", path+"/calculateGoal", "").problem(422, "unknown_merge_field", "message")
	w.call("PUT", path+"/confirm", "").problem(422, "unknown_merge_field", "message")
	c = campaignAnswer{}
	w.call("PUT", path, `{"message":"Ciao {{first_name}}"}`).want(200).into(&c)
	var price campaignAnswer
	w.call("GET", path+"/price", "").want(200).into(&price)
	if len(price.Warning) != 1 || !strings.Contains(price.Warning[0], "1 of 3 contacts") {
		t.Errorf("price: got warnings %q, want how many lack the field", price.Warning)
	}
	w.call("PUT", path, `{"message":"Ciao {{first_nam}}"}`).problem(422, "unknown_merge_field", "message")
	// The list changed since: confirm looks again.
	w.call("PUT", path, `{"contactList":"empty"}`).want(200)
	w.call("POST", "/api/contacts/list/empty/import", "phone\n+393331230001\n", csv).want(200)
	w.call("PUT", path, `{"contactList":"empty"}`).want(200) // the contact has the name from the other list
	w.call("PUT", "/api/contacts/"+w.contactID("+393331230001"), `{"firstName":""}`).want(200)
	w.call("PUT", path+"/confirm", "").problem(422, "unknown_merge_field", "message")
}

// The API refuses blank texts, and says which character makes a text longer.
func TestTexts(t *testing.T) {
	w := newEnv(t)
	w.list("l", 2, 0)
	post := func(message string) *answer {
		return w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"C","channel":"sms","contactList":"l","message":%q}`, message))
	}
	for _, blank := range []string{" ", "\u200b", "\u00a0\u3000", "\ufeff", "\u3164\u2800"} {
		post(blank).problem(422, "invalid_value", "message")
		w.call("POST", sendPath, fmt.Sprintf(`{"phoneNumber":"+393331230001","message":%q}`, blank)).problem(422, "invalid_value", "message")
	}
	w.call("POST", sendPath, `{"phoneNumber":"+393331230001","message":"{{a}}","variables":{"a":"\u200b"}}`).problem(422, "invalid_value", "message")
	w.call("POST", "/api/campaigns", `{"name":"C","channel":"rcs","contactList":"l","message":"t","sender":"a","sendingMode":"RCS_SMS","fallbackMessage":" "}`).problem(422, "invalid_value", "fallbackMessage")
	var c campaignAnswer
	c = campaignAnswer{}
	post("{{first_name}}").want(201).into(&c)
	if got := strings.Join(c.Warning, " "); !strings.Contains(got, "contacts without a value get no message") {
		t.Errorf("got warnings %q, want one that says who gets no message", got)
	}
	c = campaignAnswer{}
	post("Caffe\u0300 per Zoe\u0300").want(201).into(&c)
	if *c.Encoding != "GSM-7" || *c.Message != "Caffè per Zoè" || *c.Characters != 13 || len(c.Warning) != 0 {
		t.Errorf("got %s %q of %d characters, warnings %q; want it composed", *c.Encoding, *c.Message, *c.Characters, c.Warning)
	}
	c = campaignAnswer{}
	post(strings.Repeat("x", 80) + "ë").want(201).into(&c)
	if got := strings.Join(c.Warning, " "); !strings.Contains(got, "'ë' (U+00EB) (character 81) is not in GSM-7: the text is sent as UCS-2 and takes 2 segments; without it it would be GSM-7 and take 1 segment.") {
		t.Errorf("got warnings %q, want the character, its place and its cost", got)
	}
	var sent api.SendResult
	w.call("POST", sendPath, `{"phoneNumber":"+393331230001","message":"Ciao {{Nome}}, it’s {{order-id}}","variables":{"nome":"Zoe\u0300","Order ID":"17"}}`).want(200).into(&sent)
	if !sent.Results[0].Unicode || len(sent.Warning) != 1 || !strings.Contains(sent.Warning[0], "'’' (U+2019) (character 13)") {
		t.Errorf("got %+v, want the apostrophe named", sent)
	}
}
