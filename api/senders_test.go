package api_test

import (
	"strings"
	"testing"
)

// R36: senders are approved before they send, and their rules are checked when they are made and when they are used.
func TestSenders(t *testing.T) {
	w := newEnv(t)
	w.list("l", 2, 0)
	got := w.call("POST", "/api/senders", `{"name":"ACME","countries":["it","FR","it"],"rate":5}`).want(201)
	subset(t, "made", got.body, `{"name":"ACME","type":"alphanumeric","countries":["FR","IT"],"twoWay":false,"status":"pending","rate":5}`)
	id := got.id()
	create := func(more string) *answer {
		return w.call("POST", "/api/campaigns", `{"name":"C","channel":"sms","message":"m","contactList":"l"`+more+`}`)
	}
	create(`,"sender":"ACME"`).problem(422, "invalid_value", "sender")
	w.call("POST", "/api/senders/"+id+"/approve", "").want(403)
	w.callAs(w.admin(), "POST", "/api/senders/"+id+"/approve", "").want(200)
	if p := create(`,"sender":"ACNE"`).problem(422, "invalid_value", "sender"); !strings.Contains(p["fix"].(string), "ACME") {
		t.Errorf("got fix %q, want the nearest name", p["fix"])
	}
	made := create(`,"sender":"ACME"`).want(201).id()
	subset(t, "by id", create(`,"sender":"`+id+`"`).want(201).body, `{"sender":"`+id+`"}`)
	w.call("PUT", "/api/campaigns/"+made+"/confirm", "").want(200)
	if s := w.record(made).GetLegs()[0].GetSender(); s != "ACME" {
		t.Errorf("got sender %q, want ACME", s)
	}
	if row, err := w.store.Sender(t.Context(), w.tenant.ID, "ACME"); err != nil || row.Rate != 5 {
		t.Errorf("got %+v %v, want the rate 5 for the pipeline", row, err)
	}
	// Other countries take the approval back, and an operator's change does not.
	subset(t, "changed", w.call("PUT", "/api/senders/"+id, `{"countries":["FR"]}`).want(200).body, `{"status":"pending"}`)
	w.callAs(w.admin(), "POST", "/api/senders/"+id+"/approve", "").want(200)
	// Recipients elsewhere stop the confirm, with their number.
	italian := create(`,"sender":"ACME"`).want(201).id()
	if p := w.call("PUT", "/api/campaigns/"+italian+"/confirm", "").problem(422, "invalid_value", "sender"); !strings.Contains(p["detail"].(string), "2 recipients are in other countries: IT") {
		t.Errorf("got %q", p["detail"])
	}
	w.callAs(w.admin(), "POST", "/api/senders/"+id+"/disable", `{"reason":"complaints"}`).want(200)
	if p := w.call("PUT", "/api/campaigns/"+italian+"/confirm", "").problem(422, "invalid_value", "sender"); !strings.Contains(p["detail"].(string), "complaints") {
		t.Errorf("got %q, want the reason", p["detail"])
	}
	// R35: a conversation needs a sender that takes replies.
	if p := create(`,"trafficType":"inbound_outbound"`).problem(422, "invalid_value", "trafficType"); !strings.Contains(p["fix"].(string), "{{opt_out}}") {
		t.Errorf("got %q, want the link that a campaign from a name can offer", p["fix"])
	}
	w.sender(`"name":"+393339998888","twoWay":true`)
	create(`,"trafficType":"inbound_outbound","sender":"+393339998888"`).want(201)
	for body, field := range map[string]string{
		`{"name":"ABCDEFGHIJKL"}`:                "name",
		`{}`:                                     "name",
		`{"name":"12"}`:                          "name",
		`{"name":"ACME2","type":"number"}`:       "type",
		`{"name":"ACME2","twoWay":true}`:         "twoWay",
		`{"name":"ACME2","countries":["Italy"]}`: "countries",
		`{"name":"ACME2","rate":2000000}`:        "rate",
		`{"name":"ACME2","status":"approved"}`:   "status",
	} {
		if got := w.call("POST", "/api/senders", body).want(422); got.get("field") != field {
			t.Errorf("%s: got %s, want field %s", body, got.body, field)
		}
	}
	w.call("PUT", "/api/senders/"+id, `{"name":"OTHER"}`).problem(422, "read_only", "name")
	w.call("DELETE", "/api/senders/"+id, "").want(200)
	if _, err := w.store.Sender(t.Context(), w.tenant.ID, "ACME"); err == nil {
		t.Error("the pipeline still knows a sender that was deleted")
	}
	// A new tenant has its default sender.
	subset(t, "default", w.call("GET", "/api/senders/FANFARE", "").want(200).body, `{"status":"approved"}`)
}
