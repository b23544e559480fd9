package api_test

import (
	"strings"
	"testing"
	"time"
)

// R113, X13: prices by channel, country, volume and date; CSV in and out; estimate and final price add up by channel
// and country.
func TestPriceList(t *testing.T) {
	w := newEnv(t)
	admin := w.admin()
	// Two Italians and three French.
	list := w.list("l", 2, 0)
	w.call("POST", "/api/contacts/list/"+list+"/import", "phone\n+33612345678\n+33612345679\n+33612345680\n", header{"Content-Type", "text/csv"}).want(200)
	id := w.call("POST", "/api/campaigns", `{"name":"C","channel":"sms","message":"Hello","contactList":"l","maxRetries":0}`).want(201).id()
	price := func() *answer { return w.call("GET", "/api/campaigns/"+id+"/price", "").want(200) }
	subset(t, "one price", price().body, `{"estimatedCost":0.25,"breakdownByCountry":[{"channel":"sms","country":"FR","price":0.05,"count":3,"cost":0.15},{"channel":"sms","country":"IT","price":0.05,"count":2,"cost":0.10}]}`)
	w.call("POST", "/api/prices", `{"channel":"sms","country":"FR","price":0.07}`).want(403)
	france := w.callAs(admin, "POST", "/api/prices", `{"channel":"sms","country":"fr","price":0.07}`).want(201)
	subset(t, "row", france.body, `{"channel":"sms","country":"FR","from":0,"validFrom":null,"price":0.07}`)
	w.callAs(admin, "POST", "/api/prices", `{"channel":"sms","country":"FR","price":0.08}`).want(409)
	w.callAs(admin, "POST", "/api/prices", `{"channel":"sms","from":5,"price":0.04}`).want(201)
	w.callAs(admin, "POST", "/api/prices", `{"channel":"sms","from":6,"price":0.01}`).want(201)
	w.callAs(admin, "POST", "/api/prices", `{"channel":"sms","country":"IT","validFrom":"2025-05-01","price":0.03}`).want(201)
	w.clock.forward(3 * time.Second)
	subset(t, "by country and volume", price().body, `{"estimatedCost":0.29,"maxCost":0.29,"breakdown":{"sms":{"count":5,"cost":0.29}},"breakdownByCountry":[{"channel":"sms","country":"FR","price":0.07,"count":3,"cost":0.21},{"channel":"sms","country":"IT","price":0.04,"count":2,"cost":0.08}]}`)
	// C11: a goal is spread over the countries of the audience, and has its own volume.
	subset(t, "goal", w.call("POST", "/api/campaigns/"+id+"/calculateGoal", `{"goalContactCount":10}`).want(200).body, `{"totalContacts":10,"estimatedCost":0.46,"breakdownByCountry":[{"channel":"sms","country":"FR","price":0.07,"count":6,"cost":0.42},{"channel":"sms","country":"IT","price":0.01,"count":4,"cost":0.04}]}`)
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	leg := w.record(id).GetLegs()[0]
	if leg.GetPriceMicros() != 40_000 || len(leg.GetPrices()) != 1 || leg.GetPrices()[0].GetCountry() != "FR" || leg.GetPrices()[0].GetMicros() != 70_000 {
		t.Errorf("got leg %v, want 0.04 and 0.07 to France", leg)
	}
	// C13, X13: what is confirmed keeps its prices.
	w.callAs(admin, "PUT", "/api/prices/"+france.id(), `{"price":1}`).want(200)
	w.clock.forward(3 * time.Second)
	subset(t, "after confirm", price().body, `{"estimatedCost":0.29,"breakdownByCountry":[{"channel":"sms","country":"FR","price":0.07,"count":3,"cost":0.21},{"channel":"sms","country":"IT","price":0.04,"count":2,"cost":0.08}]}`)
	// A single message has the price of its country.
	sent := w.call("POST", "/api/message-server/sms/send", `{"phoneNumber":["+33612345678","+393331234567"],"message":"m"}`).want(200)
	subset(t, "sent", sent.body, `{"simulation":false}`)

	csv := w.call("GET", "/api/prices/export", "").want(200)
	if ct := csv.header.Get("Content-Type"); !strings.HasPrefix(ct, "text/csv") {
		t.Errorf("got content type %q", ct)
	}
	want := "channel,country,from,validFrom,price\nsms,,0,,0.05\nsms,,5,,0.04\nsms,,6,,0.01\nsms,FR,0,,1\nsms,IT,0,2025-05-01T00:00:00Z,0.03\nrcs,,0,,0.08\nwhatsapp,,0,,0.15\nvoice,,0,,0.08\n"
	if got := string(csv.body); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	text := header{"Content-Type", "text/csv"}
	subset(t, "the same again", w.callAs(admin, "POST", "/api/prices/import", want, text).want(200).body, `{"rows":8,"added":0,"changed":0,"deleted":0}`)
	subset(t, "replaced", w.callAs(admin, "POST", "/api/prices/import?replace=true", "channel,country,price\nsms,FR,0.09\nsms,,0.06\nrcs,DE,0.2\n", text).want(200).body, `{"rows":3,"added":1,"changed":1,"deleted":3}`)
	if p := w.callAs(admin, "POST", "/api/prices/import", "channel,price\nsms,1\nsms,free\n", text).problem(422, "invalid_value", "price"); !strings.Contains(p["detail"].(string), "Line 3") {
		t.Errorf("got %q, want the line", p["detail"])
	}
	w.call("POST", "/api/prices/import", want, text).want(403)
	for body, field := range map[string]string{
		`{"country":"IT","price":1}`:                     "channel",
		`{"channel":"sms","country":"IT"}`:               "price",
		`{"channel":"sms","country":"Italy","price":1}`:  "country",
		`{"channel":"sms","price":-1}`:                   "price",
		`{"channel":"sms","price":1,"validFrom":"soon"}`: "validFrom",
		`{"channel":"sms","price":1,"from":99999999999}`: "from",
	} {
		if got := w.callAs(admin, "POST", "/api/prices", body).want(422); got.get("field") != field {
			t.Errorf("%s: got %s, want field %s", body, got.body, field)
		}
	}
}
