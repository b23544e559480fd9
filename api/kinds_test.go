package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// admin is a key with every scope.
func (w *env) admin() string {
	w.Helper()
	return w.newKey(w.tenant.ID, store.Scopes, false)
}

// template makes an approved template; more are further fields.
func (w *env) template(name, channel, body string, more ...string) string {
	w.Helper()
	in := fmt.Sprintf(`{"name":%q,"channel":%q,"body":%q%s}`, name, channel, body, strings.Join(append([]string{""}, more...), ","))
	id := w.call("POST", "/api/templates", in).want(201).id()
	w.callAs(w.admin(), "POST", "/api/templates/"+id+"/approve", "").want(200)
	return id
}

// agent makes a launched agent of RCS.
func (w *env) agent(name string) {
	w.Helper()
	w.call("POST", "/api/agents", fmt.Sprintf(`{"name":%q,"providerId":"acme_agent"}`, name)).want(201)
}

// way makes an active channel.
func (w *env) way(name, channel, address string) {
	w.Helper()
	w.call("POST", "/api/channels", fmt.Sprintf(`{"name":%q,"channel":%q,"address":%q}`, name, channel, address)).want(201)
}

// sender makes an approved sender of SMS; fields are its JSON members.
func (w *env) sender(fields string) {
	w.Helper()
	id := w.call("POST", "/api/senders", "{"+fields+"}").want(201).id()
	w.callAs(w.admin(), "POST", "/api/senders/"+id+"/approve", "").want(200)
}

// record is a campaign as it is published.
func (w *env) record(id string) *fanfarev1.Campaign {
	w.Helper()
	r, err := w.store.CampaignRecord(w.Context(), id)
	w.check(err)
	return r
}

// X3, R13, R163: each leg has its own content, sender and route, frozen at confirm.
func TestLegsAreFrozen(t *testing.T) {
	w := newEnv(t)
	w.list("l", 2, 0)
	w.agent("Acme Agent")
	w.sender(`"name":"ACME"`)
	w.way("Acme on WhatsApp", "whatsapp", "+393331234567")
	w.template("order_shipped", "whatsapp", "Ciao {{1}}, ordine {{2}}", `"language":"it"`, `"buttons":[{"type":"url","text":"Segui","value":"https://example.com/{{2}}"}]`)
	card := w.template("Spring card", "rcs", "Hi {{first_name}}, {{offer}}!", `"type":"rich_card"`, `"header":{"type":"image","url":"https://example.com/a.png"}`, `"buttons":[{"type":"reply","text":"Yes","value":"yes"}]`)
	id := w.call("POST", "/api/campaigns", `{"name":"C","sendingMode":"WHATSAPP_RCS_SMS","message":"order_shipped","contactList":"l","language":"it",
		"parameters":{"1":"{{first_name}}","2":"Nr. {{phone}}"},"missingField":"default","missingDefault":"friend","sendImmediately":true,"fallbackLegs":[
		{"channel":"rcs","message":"`+card+`","parameters":{"offer":"half price"}},{"channel":"sms","message":"Hello {{first_name}}","sender":"ACME"}]}`).want(201).id()
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	// What changes afterwards does not change the campaign.
	w.call("PUT", "/api/templates/order_shipped", `{"body":"Other {{1}} {{2}}"}`).want(200)
	r := w.record(id)
	if len(r.GetLegs()) != 3 {
		t.Fatalf("got %d legs, want 3", len(r.GetLegs()))
	}
	wa, rcs, sms := r.GetLegs()[0], r.GetLegs()[1], r.GetLegs()[2]
	for i, want := range []struct {
		leg            *fanfarev1.Leg
		channel        schemas.Channel
		sender         string
		content, field string
	}{
		{wa, schemas.ChannelWhatsApp, "+393331234567", "order_shipped it [{{first_name}} Nr. {{phone}}]", ""},
		{rcs, schemas.ChannelRCS, "acme_agent", "Spring card en [{{first_name}} half price]", ""},
		{sms, schemas.ChannelSMS, "ACME", "  []", "Hello {{first_name}}"},
	} {
		c := want.leg.GetContent()
		if got := fmt.Sprintf("%s %s %v", c.GetTemplateName(), c.GetLanguage(), c.GetParams()); got != want.content || c.GetBody() != want.field {
			t.Errorf("leg %d: got %q %q, want %q %q", i+1, got, c.GetBody(), want.content, want.field)
		}
		if want.leg.GetChannel() != want.channel || want.leg.GetSender() != want.sender || want.leg.GetRoute() != "sim" || want.leg.GetPriceMicros() == 0 || c.GetMissingDefault() != "friend" {
			t.Errorf("leg %d: got %v", i+1, want.leg)
		}
	}
	wantJSON := `[{"parameters":[{"text":"{{1}}","type":"text"},{"text":"{{2}}","type":"text"}],"type":"body"},{"index":"0","parameters":[{"text":"{{2}}","type":"text"}],"sub_type":"url","type":"button"}]`
	if got := string(wa.GetContent().GetJson()); got != wantJSON {
		t.Errorf("components: got %s, want %s", got, wantJSON)
	}
	wantJSON = `{"richCard":{"standaloneCard":{"cardContent":{"description":"Hi {{1}}, {{2}}!","media":{"contentInfo":{"fileUrl":"https://example.com/a.png"},"height":"MEDIUM"},"suggestions":[{"reply":{"postbackData":"yes","text":"Yes"}}]},"cardOrientation":"VERTICAL"}}}`
	if got := string(rcs.GetContent().GetJson()); got != wantJSON {
		t.Errorf("card: got %s, want %s", got, wantJSON)
	}
	// R62: what the View shows.
	subset(t, "view", w.call("GET", "/api/campaigns/"+id, "").body, `{"templateName":"order_shipped","templateType":"text","senderName":"Acme on WhatsApp","fallback":true}`)
}

// R16, R18, R159: nothing is accepted that is not there; the nearest names are said.
func TestUnknownReferences(t *testing.T) {
	w := newEnv(t)
	w.list("l", 1, 0)
	w.agent("Acme Retail")
	w.way("Acme on WhatsApp", "whatsapp", "+393331234567")
	w.way("Acme phone", "voice", "+390612345678")
	w.template("spring_sale", "rcs", "Hi {{first_name}}")
	w.template("order_shipped", "whatsapp", "Hi {{1}}")
	w.call("POST", "/api/templates", `{"name":"unapproved","channel":"rcs","body":"Hi"}`).want(201)
	w.template("cards", "rcs", "Hi", `"type":"carousel"`)
	for body, want := range map[string][2]string{
		`"channel":"rcs","message":"spring_sail"`:                                                                                                  {"message", "spring_sale"},
		`"channel":"rcs","message":"template_99"`:                                                                                                  {"message", "template"},
		`"channel":"rcs","message":"order_shipped"`:                                                                                                {"message", ""},
		`"channel":"rcs","message":"unapproved"`:                                                                                                   {"message", "submit"},
		`"channel":"rcs","message":"cards"`:                                                                                                        {"message", "rich_card"},
		`"channel":"rcs","message":"spring_sale","agent":"Acme Retial"`:                                                                            {"agent", "Acme Retail"},
		`"channel":"rcs","message":"spring_sale","parameters":{"name":"x"}`:                                                                        {"parameters.name", "{{first_name}}"},
		`"channel":"rcs","message":"spring_sale","language":"it"`:                                                                                  {"language", ""},
		`"channel":"whatsapp","message":"order_shipped"`:                                                                                           {"parameters.1", "parameters"},
		`"channel":"whatsapp","message":"order_shipped","parameters":{"1":"x","2":"y"}`:                                                            {"parameters.2", "{{1}}"},
		`"channel":"whatsapp","message":"order_shipped","parameters":{"1":"{{frist_name}}"}`:                                                       {"parameters.1", "first_name"},
		`"channel":"whatsapp","message":"order_shipped","parameters":{"1":" "}`:                                                                    {"parameters.1", ""},
		`"channel":"whatsapp","message":"order_shipped","parameters":{"1":"x"},"messagingChannel":"Acme on Whatsap"`:                               {"messagingChannel", "Acme on WhatsApp"},
		`"channel":"whatsapp","message":"order_shipped","parameters":{"1":"x"},"messagingChannel":"Acme phone"`:                                    {"messagingChannel", ""},
		`"channel":"voice","message":"Hello","callerId":"Acme phon"`:                                                                               {"callerId", "Acme phone"},
		`"channel":"sms","message":"Hello","route":"sin"`:                                                                                          {"route", "sim"},
		`"channel":"sms","message":"Hello","agent":"Acme Retail"`:                                                                                  {"agent", ""},
		`"channel":"sms","message":"Hello","parameters":{"1":"x"}`:                                                                                 {"parameters", ""},
		`"sendingMode":"WHATSAPP_RCS","message":"order_shipped","parameters":{"1":"x"},"fallbackLegs":[{"channel":"rcs","message":"spring_sail"}]`: {"fallbackLegs[0].message", "spring_sale"},
		`"sendingMode":"RCS_SMS","message":"spring_sale","fallbackLegs":[{"channel":"whatsapp","message":"x"}]`:                                    {"fallbackLegs[0].channel", ""},
	} {
		got := w.call("POST", "/api/campaigns", `{"name":"N","contactList":"l",`+body+`}`).want(422)
		if got.get("field") != want[0] || !strings.Contains(got.get("fix")+got.get("detail"), want[1]) {
			t.Errorf("%s: got %s, want field %s and %q", body, got.body, want[0], want[1])
		}
	}
	// A draft may wait for the approval; its confirm may not.
	draft := w.call("POST", "/api/campaigns", `{"name":"N","contactList":"l","channel":"rcs","message":"unapproved","agent":"Acme Retail","draft":true}`).want(201)
	if got := draft.object()["warning"]; got == nil || !strings.Contains(fmt.Sprint(got), "approved") {
		t.Errorf("draft: got warning %v, want that the template is not approved", got)
	}
	w.call("PUT", "/api/campaigns/"+draft.id()+"/confirm", "").problem(422, "invalid_value", "message")
	// R159: a template that is paused after the campaign was configured stops its confirm.
	id := w.call("POST", "/api/campaigns", `{"name":"N","contactList":"l","channel":"rcs","message":"spring_sale"}`).want(201).id()
	w.callAs(w.admin(), "POST", "/api/templates/spring_sale/pause", `{"reason":"low quality"}`).want(200)
	if got := w.call("PUT", "/api/campaigns/"+id+"/confirm", "").problem(422, "invalid_value", "message")["detail"]; !strings.Contains(got.(string), "low quality") {
		t.Errorf("got %q, want the reason of the pause", got)
	}
	// R18: without a name the only agent is meant; with two it must be said.
	w.callAs(w.admin(), "POST", "/api/templates/spring_sale/approve", "").want(200)
	w.agent("Acme Second")
	if got := w.call("POST", "/api/campaigns", `{"name":"N","contactList":"l","channel":"rcs","message":"spring_sale"}`).problem(422, "required", "agent")["fix"]; !strings.Contains(got.(string), "Acme Retail") {
		t.Errorf("got fix %q, want the agents' names", got)
	}
}

// R21 to R27, C23: a voice campaign has its fields, their defaults, and its frozen call.
func TestVoiceCampaign(t *testing.T) {
	w := newEnv(t)
	w.list("l", 1, 0)
	w.way("Acme phone", "voice", "+390612345678")
	make := func(more string) *answer {
		return w.call("POST", "/api/campaigns", `{"name":"V","channel":"voice","contactList":"l"`+more+`}`)
	}
	plain := make(`,"message":"Hello {{first_name}}"`).want(201)
	subset(t, "defaults", plain.body, `{"channel":"voice","maxConcurrent":1,"maxRetries":0,"retryDelay":60,"amdEnabled":false,"amdAction":null,"queue":null,"encoding":null}`)
	for calls, want := range map[int]int{1: 4000, 5: 800} { // a call is taken to last 40 s
		goal := w.call("POST", "/api/campaigns/"+make(fmt.Sprintf(`,"message":"Hello","maxConcurrent":%d,"callerId":"Acme phone"`, calls)).want(201).id()+"/calculateGoal", `{"goalContactCount":100}`).want(200)
		subset(t, "forecast", goal.body, fmt.Sprintf(`{"estimatedDurationSeconds":%d}`, want))
	}
	id := make(`,"audio":"https://example.com/a.mp3","queue":"support","maxConcurrent":5,"maxRetries":2,"retryDelay":120,"amdEnabled":true,"amdAction":"voicemail","ringSeconds":30,"callerId":"Acme phone","sendImmediately":true`).want(201).id()
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	leg := w.record(id).GetLegs()[0]
	v := leg.GetContent().GetVoice()
	if leg.GetSender() != "+390612345678" || leg.GetMaxConcurrent() != 5 || leg.GetMaxHandovers() != 3 || leg.GetBackoffMs()[0] != 120_000 ||
		v.GetQueue() != "support" || v.GetMachineAction() != "voicemail" || v.GetMedia() != "https://example.com/a.mp3" || v.GetRingSeconds() != 30 {
		t.Errorf("got leg %v", leg)
	}
	if got := make(`,"message":"Hi","amdEnabled":true`).want(201).object()["amdAction"]; got != "hangup" {
		t.Errorf("got amdAction %v, want hangup (R27's default)", got)
	}
	for more, field := range map[string]string{
		``: "message",
		`,"message":"Hi","audio":"https://a.b/c"`:             "audio",
		`,"audio":"http://example.com/a.mp3"`:                 "audio",
		`,"message":"Hi","maxConcurrent":0`:                   "maxConcurrent",
		`,"message":"Hi","amdAction":"hangup"`:                "amdAction",
		`,"message":"Hi","amdEnabled":true,"amdAction":"cry"`: "amdAction",
		`,"message":"Hi","queue":"a b"`:                       "queue",
		`,"message":"Hi","ringSeconds":1000`:                  "ringSeconds",
		`,"message":"Hi","variants":[]`:                       "",
		`,"message":"` + strings.Repeat("a", 1001) + `"`:      "message",
	} {
		if field == "" {
			make(more).want(201)
			continue
		}
		if got := make(more).want(422); got.get("field") != field {
			t.Errorf("%s: got %s, want field %s", more, got.body, field)
		}
	}
	w.call("POST", "/api/campaigns", `{"name":"V","channel":"sms","message":"x","contactList":"l","queue":"q"}`).problem(422, "invalid_value", "queue")
}

// R38, R57: variants have weights, which change while the campaign is active.
func TestVariants(t *testing.T) {
	w := newEnv(t)
	w.list("l", 3, 0)
	body := `{"name":"C","channel":"sms","contactList":"l","sendImmediately":true,"transliterate":true,"variants":[{"name":"A","message":"Hi “{{first_name}}”","weight":3},{"name":"B","message":"` + strings.Repeat("b", 161) + `","weight":1}]}`
	w.call("POST", "/api/campaigns", body).problem(422, "too_long", "variants[1].message")
	body = strings.Replace(body, strings.Repeat("b", 161), "Hello", 1)
	made := w.call("POST", "/api/campaigns", body).want(201)
	subset(t, "answer", made.body, `{"message":null,"transliterate":true,"variants":[{"name":"A","message":"Hi “{{first_name}}”","weight":3},{"name":"B","message":"Hello","weight":1}]}`)
	id := made.id()
	subset(t, "price", w.call("GET", "/api/campaigns/"+id+"/price", "").want(200).body, `{"estimatedCost":0.15,"segments":1}`)
	w.call("PATCH", "/api/campaigns/"+id+"/live", `{"variants":[{"name":"A","weight":1}]}`).problem(409, "wrong_state", "")
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	weights := func() (out [][]uint32) {
		for _, wt := range w.record(id).GetWeights() {
			out = append(out, wt.GetOf())
		}
		return out
	}
	if got := weights(); len(got) != 1 || !slices.Equal(got[0], []uint32{3, 1}) {
		t.Errorf("confirmed: got weights %v, want [[3 1]]", got)
	}
	c := w.record(id).GetLegs()[0].GetContent()
	if !c.GetTransliterate() || len(c.GetVariants()) != 2 || c.GetVariants()[1].GetName() != "B" {
		t.Errorf("got content %v", c)
	}
	live := w.call("PATCH", "/api/campaigns/"+id+"/live", `{"variants":[{"name":"b","weight":9}]}`).want(200)
	subset(t, "live", live.body, `{"variants":[{"name":"A","message":"Hi “{{first_name}}”","weight":3},{"name":"B","message":"Hello","weight":9}]}`)
	if got := weights(); len(got) != 2 || !slices.Equal(got[1], []uint32{3, 9}) {
		t.Errorf("changed: got weights %v, want the old and [3 9]", got)
	}
	for body, field := range map[string]string{
		`{"variants":[{"name":"C","weight":1}]}`:                         "variants[0].name",
		`{"variants":[{"name":"A","weight":-1}]}`:                        "variants[0].weight",
		`{"variants":[{"name":"A"}]}`:                                    "variants[0].weight",
		`{"variants":[{"name":"A","weight":1,"message":"New"}]}`:         "variants[0].message",
		`{"variants":[{"name":"A","weight":0},{"name":"B","weight":0}]}`: "variants",
	} {
		if got := w.call("PATCH", "/api/campaigns/"+id+"/live", body).want(422); got.get("field") != field {
			t.Errorf("%s: got %s, want field %s", body, got.body, field)
		}
	}
	for body, field := range map[string]string{
		`"variants":[{"name":"A","message":"x"}]`:                                                  "variants",
		`"message":"m","variants":[{"name":"A","message":"x"},{"name":"B","message":"y"}]`:         "message",
		`"variants":[{"name":"A","message":"x"},{"name":"a","message":"y"}]`:                       "variants[1].name",
		`"variants":[{"name":"A","message":"x"},{"name":"B","message":" "}]`:                       "variants[1].message",
		`"variants":[{"name":"A","message":"x","weight":0},{"name":"B","message":"y","weight":0}]`: "variants",
	} {
		if got := w.call("POST", "/api/campaigns", `{"name":"C","channel":"sms","contactList":"l",`+body+`}`).want(422); got.get("field") != field {
			t.Errorf("%s: got %s, want field %s", body, got.body, field)
		}
	}
	// R85: the copy has the variants and none of the changes.
	copied := w.call("POST", "/api/campaigns/"+id+"/duplicate", "").want(201)
	subset(t, "copy", copied.body, `{"variants":[{"name":"A","message":"Hi “{{first_name}}”","weight":3},{"name":"B","message":"Hello","weight":1}]}`)
}

// R33, R34, R35, R41: notes, tags, traffic type and who made it.
func TestCommonFields(t *testing.T) {
	w := newEnv(t)
	w.sender(`"name":"40404","twoWay":true`)
	w.list("l", 1, 0)
	got := w.call("POST", "/api/campaigns", `{"name":"C","channel":"sms","message":"m","contactList":"l","sender":"40404","notes":"for the team","tags":["spring"],"trafficType":"inbound_outbound"}`).want(201)
	subset(t, "fields", got.body, `{"notes":"for the team","tags":["spring"],"trafficType":"inbound_outbound","createdBy":"test"}`)
	w.call("POST", "/api/campaigns", `{"name":"C","channel":"sms","message":"m","contactList":"l","trafficType":"sideways"}`).problem(422, "invalid_value", "trafficType")
	subset(t, "default", w.call("POST", "/api/campaigns", `{"name":"C","channel":"sms","message":"m","contactList":"l"}`).body, `{"trafficType":"outbound"}`)
	// Another channel leaves nothing of the old kind behind.
	w.way("Acme phone", "voice", "+390612345678")
	id := w.call("POST", "/api/campaigns", `{"name":"C","channel":"voice","message":"m","contactList":"l","queue":"q"}`).want(201).id()
	subset(t, "changed", w.call("PUT", "/api/campaigns/"+id, `{"channel":"sms","message":"text"}`).want(200).body, `{"queue":null,"maxConcurrent":null,"callerId":null,"sender":"FANFARE"}`)
}
