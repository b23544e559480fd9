package api_test

import (
	"strings"
	"testing"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// known makes a contact, gives its number to a recipient of a campaign and to a single send, and opts it out of voice.
func (w *env) known(campaign string, seq uint32) string {
	w.Helper()
	const phone = "+393331230099"
	id := w.call("POST", "/api/contacts", `{"phoneNumber":"`+phone+`","firstName":"Carla"}`).want(201).id()
	number, err := schemas.CampaignNumber(campaign)
	w.check(err)
	w.check(w.stats.Append(w.Context(), analytics.Batch{Events: []analytics.Event{{
		Campaign: &analytics.Campaign{Tenant: w.tenant.ID, ID: campaign, Month: analytics.MonthOf(w.clock.now())}, TimeMS: w.clock.now().UnixMilli(), Seq: seq,
		Kind: schemas.KindSent, Code: schemas.CodeAwaitingDLR, Channel: schemas.ChannelSMS, Try: 2, Leg: 1, Segments: 1, Country: "IT", Route: "sim",
		Sender: "FANFARE", To: phone, ProviderID: "p-9", MessageID: w.keys.Message(number, seq),
	}}}))
	optOut := store.OptOut{Phone: phone, Channel: schemas.ChannelVoice, Reason: "asked on the phone"}
	_, err = w.store.OptOuts(w.Context(), w.tenant.ID, store.OptOutCause{Source: "api", By: "key_1"}, optOut)
	w.check(err)
	_, err = w.store.LiftOptOuts(w.Context(), w.tenant.ID, store.OptOutCause{Source: "api"}, optOut)
	w.check(err)
	return id
}

// X10, R124: a contact's history has every message to its number, with its campaign, and every change of its opt-outs;
// another tenant sees none of it (P7).
func TestContactHistory(t *testing.T) {
	w := newEnv(t)
	campaign := w.audienceOf(5)
	id := w.known(campaign, 3)
	var got struct {
		PhoneNumber string
		More        bool
		Messages    []struct {
			MessageID, CampaignID, CampaignName, State, SubStatus, Channel, SentAt string
			Seq                                                                    uint32
		}
		OptOuts []struct {
			Lifted        bool
			Scope, Source string
			Channels      []string
			Reason        *string
		}
	}
	w.call("GET", "/api/contacts/"+id+"/history", "").want(200).into(&got)
	number, err := schemas.CampaignNumber(campaign)
	w.check(err)
	if len(got.Messages) != 1 || got.More || got.PhoneNumber != "+393331230099" {
		t.Fatalf("got %+v, want one message", got)
	}
	if m := got.Messages[0]; m.CampaignID != campaign || m.CampaignName == "" || m.Seq != 3 || m.State != "awaiting" || m.SubStatus != "AWAITING_DLR" || m.Channel != "sms" || m.MessageID != w.keys.Message(number, 3).String() {
		t.Errorf("got message %+v", m)
	}
	if len(got.OptOuts) != 2 || !got.OptOuts[0].Lifted || got.OptOuts[1].Lifted || got.OptOuts[1].Scope != "voice" || *got.OptOuts[1].Reason != "asked on the phone" || len(got.OptOuts[0].Channels) != 0 {
		t.Errorf("got opt-outs %+v, want an opt-out of voice and its end, newest first", got.OptOuts)
	}
	later := w.clock.now().AddDate(0, 1, 0).Format(time.RFC3339)
	if n := w.call("GET", "/api/contacts/"+id+"/history?since="+later, "").want(200).get("messages"); n != "[]" {
		t.Errorf("since next month: got %s, want none", n)
	}
	w.call("GET", "/api/contacts/"+id+"/history?since=yesterday", "").problem(422, "invalid_value", "since")
	w.call("GET", "/api/contacts/contact_999999/history", "").problem(404, "not_found", "")
	_, other := w.newTenant("Other")
	w.callAs(other, "GET", "/api/contacts/"+id+"/history", "").problem(404, "not_found", "")
	none := w.callAs(other, "POST", "/api/contacts", `{"phoneNumber":"+393331230099"}`).want(201).id()
	if body := string(w.callAs(other, "GET", "/api/contacts/"+none+"/history", "").want(200).body); strings.Contains(body, campaign) || strings.Contains(body, "voice") {
		t.Errorf("another tenant's contact of the same number: got %s", body)
	}
	w.callAs(w.newKey(w.tenant.ID, []store.Scope{store.ScopeContacts}, false), "GET", "/api/contacts/"+id+"/history", "").want(403)
}
