package api_test

import (
	"fmt"
	"testing"
)

// X9: a frequency cap of the tenant or of a campaign, and caps of countries; the price says who is left out, and the
// freeze leaves them out.
func TestCaps(t *testing.T) {
	w := newEnv(t)
	admin := w.admin()
	put := func(body string) *answer { return w.callAs(admin, "PUT", "/api/policy", body) }
	subset(t, "no caps", w.call("GET", "/api/policy", "").want(200).body, `{"frequencyCap":null,"countryCaps":[]}`)
	put(`{"frequencyCap":{"max":0,"days":7}}`).problem(422, "invalid_value", "frequencyCap")
	put(`{"frequencyCap":{"max":1,"days":31}}`).problem(422, "invalid_value", "frequencyCap")
	put(`{"countryCaps":[{"country":"Italy","max":1,"per":"day"}]}`).problem(422, "invalid_value", "countryCaps[0].country")
	put(`{"countryCaps":[{"country":"IT","max":1,"per":"week"}]}`).problem(422, "invalid_value", "countryCaps[0].per")
	put(`{"countryCaps":[{"country":"IT","max":1,"per":"day"},{"country":"it","max":2,"per":"day"}]}`).problem(422, "invalid_value", "countryCaps[1].country")
	subset(t, "set", put(`{"frequencyCap":{"max":2,"days":7},"countryCaps":[{"country":"it","max":4,"per":"month"}]}`).want(200).body, `{"frequencyCap":{"max":2,"days":7}}`)

	list := w.list("l", 3, 0)
	campaign := func(more string) string {
		return "/api/campaigns/" + w.call("POST", "/api/campaigns", fmt.Sprintf(
			`{"name":"c","channel":"sms","message":"Hello","contactList":%q%s}`, list, more)).want(201).id()
	}
	price := func(path, want string) {
		t.Helper()
		subset(t, "price", w.call("GET", path+"/price", "").want(200).body, want)
	}
	w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"c","channel":"sms","message":"m","contactList":%q,"frequencyCap":{"max":1,"days":0}}`, list)).problem(422, "invalid_value", "frequencyCap")
	once := campaign(`,"sendImmediately":true,"frequencyCap":{"max":1,"days":1}`)
	subset(t, "campaign", w.call("GET", once, "").want(200).body, `{"frequencyCap":{"max":1,"days":1}}`)
	price(once, `{"totalContacts":3,"exclusions":{"capped":0,"overQuota":0}}`)

	first := campaign(`,"sendImmediately":true`)
	w.call("PUT", first+"/confirm", "").want(200)
	id := first[len("/api/campaigns/"):]
	c, err := w.store.Campaign(t.Context(), w.tenant.ID, id)
	w.check(err)
	w.check(w.store.Freeze(t.Context(), w.tenant.ID, id, c.Version))

	price(once, `{"totalContacts":0,"exclusions":{"capped":3,"overQuota":0}}`)
	// Four a month in all of the country
	price(campaign(`,"sendImmediately":true`), `{"totalContacts":1,"exclusions":{"capped":0,"overQuota":2}}`)
	put(`{"countryCaps":[]}`).want(200)
	price(campaign(`,"sendImmediately":true`), `{"totalContacts":3,"exclusions":{"capped":0,"overQuota":0}}`)
	put(`{"frequencyCap":{"max":1,"days":7}}`).want(200)
	price(campaign(`,"sendImmediately":true`), `{"totalContacts":0,"exclusions":{"capped":3}}`)
	// Begins when they may again
	price(campaign(`,"scheduledTime":"2025-04-20T09:00:00Z"`), `{"totalContacts":3,"exclusions":{"capped":0}}`)
	subset(t, "not set any more", put(`{"frequencyCap":null}`).want(200).body, `{"frequencyCap":null}`)
}
