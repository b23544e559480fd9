package api_test

import (
	"fmt"
	"testing"

	"fanfare/schemas"
)

// An operator takes back credit that a campaign under way has reserved: it is suspended with reason no_credit, can't be
// resumed by hand, says so, and goes on by itself after a top-up.
func TestNoCredit(t *testing.T) {
	w := newEnv(t)
	admin := w.admin()
	credit := func(body string) *answer {
		return w.callAs(admin, "POST", "/api/tenants/"+w.tenant.ID+"/credit", body)
	}
	w.limitedTo(100 * smsPrice)
	list := w.list("l", 100, 0)
	path := "/api/campaigns/" + w.call("POST", "/api/campaigns", fmt.Sprintf(
		`{"name":"c","channel":"sms","message":"Hello","contactList":%q,"sendImmediately":true,"maxRetries":0}`, list)).want(201).id()
	w.call("PUT", path+"/confirm", "").want(200)
	w.move(path[len("/api/campaigns/"):], func(c *schemas.Change) { c.To, c.Trigger = schemas.StateSending, schemas.TriggerDeal })

	credit(`{"amount":-5.01}`).problem(402, "insufficient_credit", "") // more than there is
	credit(`{"amount":0}`).problem(422, "invalid_value", "amount")
	subset(t, "taken back", credit(`{"amount":-2.00,"note":"contract ended"}`).want(200).body, `{"balance":0,"reserved":5.00,"owed":2.00}`)
	subset(t, "suspended", w.call("GET", path, "").want(200).body, `{"state":"suspended","suspendedReason":"no_credit"}`)
	subset(t, "account", w.call("GET", "/api/account", "").want(200).body, `{"owed":2.00}`)
	w.call("POST", path+"/resume", "").problem(409, "wrong_state", "")
	subset(t, "a part", credit(`{"amount":0.50}`).want(200).body, `{"balance":0,"owed":1.50}`)
	subset(t, "still", w.call("GET", path, "").want(200).body, `{"state":"suspended"}`)
	subset(t, "the rest", credit(`{"amount":2.00}`).want(200).body, `{"balance":0.50,"owed":0}`)
	subset(t, "resumed", w.call("GET", path, "").want(200).body, `{"state":"sending","suspendedReason":null}`)
	subset(t, "unlimited", credit(`{"unlimited":true}`).want(200).body, `{"balance":null}`)
	credit(`{"amount":-1.00}`).want(422)
}
