package api_test

import (
	"fmt"
	"strings"
	"testing"

	"fanfare/api"
)

// Numbers that would reach the wrong person, or cost a fortune, are refused, and the answer says why (C30).
func TestWrongNumbers(t *testing.T) {
	w := newEnv(t)
	for number, want := range map[string]string{
		"+39 333 123005O": `phoneNumber is not a phone number: it has the letter 'O'.`,
		"393331230022.5":  `it has a fraction, after the '.'`,
		"3.93331E+11":     `a spreadsheet has rounded it`,
		"33612345678":     `with a leading + it is one of FR`,
		"+39899123456":    `phoneNumber is a premium-rate number and cannot receive messages.`,
		"+449098790000":   `is a premium-rate number`,
		"+19002345678":    `is a premium-rate number`,
		"+979123456789":   `is a premium-rate number`,
		"+80012345678":    `is a freephone number`,
		"+881612345678":   `is a satellite number`,
		"+3933612345678":  `is a voicemail number`,
		"+390645201234":   `is a fixed line`,
		"+12005550123":    `is not assigned in the numbering plan`,
	} {
		r := w.call("POST", sendPath, fmt.Sprintf(`{"phoneNumber":%q,"message":"m"}`, number))
		r.problem(422, "invalid_number", "phoneNumber")
		if !strings.Contains(string(r.body), want) {
			t.Errorf("%s: got %s, want %q", number, r.body, want)
		}
	}
	if n := len(w.messages()); n != 0 {
		t.Errorf("got %d messages, want none", n)
	}
	// Among others, the wrong one has its reason in the result, and what it may have meant.
	var got api.SendResult
	w.call("POST", sendPath, `{"phoneNumber":["393331230022.0","33612345678","+393331230022"],"message":"m"}`).want(200).into(&got)
	if r := got.Results; !r[0].Accepted || r[0].Destination != "+393331230022" || r[1].Accepted || r[1].Reasons[0] != "INVALID_NUMBER" ||
		!strings.Contains(r[1].Detail, "Send +33612345678 if you mean that number") || r[2].Reasons[0] != "DUPLICATE_RECIPIENT" {
		t.Errorf("got %+v, want the first sent to, the second with what it may mean, the third the same as the first", got.Results)
	}
	w.call("POST", "/api/contacts", `{"phoneNumber":"33612345678"}`).problem(422, "invalid_number", "phoneNumber")
	subset(t, "stored, not sent to", w.call("POST", "/api/contacts", `{"phoneNumber":"+39899123456"}`).want(201).body, `{"numberType":"premium_rate","valid":false}`)
}

// X10: one person is opted out in every form of the number, and an unescaped + of a query is a +.
func TestOptOutOfForms(t *testing.T) {
	w := newEnv(t)
	w.relay()
	w.call("POST", "/api/suppressions", `{"phoneNumber":"+52 1 55 1234 5678"}`).want(201)
	for _, query := range []string{"%2B5215512345678", "+5215512345678", "+525512345678", "%2B52%2055%201234%205678"} {
		subset(t, query, w.call("GET", "/api/suppressions?phoneNumber="+query, "").want(200).body, `{"total":1}`)
	}
	w.call("POST", sendPath, `{"phoneNumber":"+525512345678","message":"m"}`).problem(422, "opted_out", "phoneNumber")
	var got api.SendResult
	w.call("POST", sendPath, `{"phoneNumber":["+5491123456789","+541123456789","+55 11 8765 4321","+5511987654321"],"message":"m"}`).want(200).into(&got)
	if r := got.Results; !r[0].Accepted || r[1].Accepted || !r[2].Accepted || r[2].Destination != "+5511987654321" || r[3].Reasons[0] != "DUPLICATE_RECIPIENT" {
		t.Errorf("got %+v, want one message for each person", got.Results)
	}
	subset(t, "lifted by the other form", w.call("DELETE", "/api/suppressions?phoneNumber=+525512345678", "").want(200).body, `{"suppressed":false}`)
	w.call("POST", sendPath, `{"phoneNumber":"+5215512345678","message":"m"}`).want(200)
	// The first one is a contact already, in its other form.
	w.call("POST", "/api/contacts", `{"phoneNumber":"+525512345678"}`).want(201)
	w.call("POST", "/api/contacts", `{"phoneNumber":"+5215512345678"}`).problem(409, "name_taken", "phoneNumber")
	subset(t, "search", w.call("GET", "/api/contacts?search=+52551", "").want(200).body, `{"total":1}`)
}
