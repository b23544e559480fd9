package webhook

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/knadh/koanf/parsers/yaml"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// shape has the parts of a JSON schema that the test reads.
type shape struct {
	Required   []string
	Properties map[string]*shape
	Enum       []any
	Const      any
}

// X6: every posted field is described in schemas/asyncapi/webhooks.yaml, and every value of our enums is in its lists.
func TestPublicContract(t *testing.T) {
	raw, err := os.ReadFile("../../schemas/asyncapi/webhooks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Components struct {
			Schemas  map[string]*shape
			Messages map[string]struct {
				Examples []struct{ Payload map[string]any }
			}
		}
	}
	parsed, err := yaml.Parser().Unmarshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(parsed)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	e := newEnv(t)
	e.view.campaigns = campaigns(e)
	m := &memory{}
	handled(t, e, fixed{{Tenant: e.tenant.ID, Number: 1}}, m, e.event(names(t), single, 0, schemas.KindDelivered, func(d *fanfarev1.Delivery) {
		d.Code, d.CustomerRef, d.Sender, d.Country, d.Segments = schemas.CodeDelivered, "order 7", "", "", 0
	}))
	message := m.items[0]
	message.Reference = "order 7"
	m.items = nil
	handled(t, e, fixed{{Tenant: e.tenant.ID, Number: 1}}, m, e.event(names(t), number10001, 0, schemas.KindOptedOut, optedOutByLink),
		e.event(names(t), number10001, 0, schemas.KindClicked, clicked))
	optedOut, click := m.items[0], m.items[1]
	move, err := campaignItem(&fanfarev1.Campaign{Id: "camp_10001", Name: "Spring"}, &schemas.CampaignMove{ID: "1", From: schemas.StateSending, To: schemas.StateSuspended, Reason: "no_credit", Time: start})
	if err != nil {
		t.Fatal(err)
	}
	gone, err := endpointItem(&schemas.Webhook{Number: 1}, start, start, "It answered 410 Gone.")
	if err != nil {
		t.Fatal(err)
	}
	m.items = nil
	answered := e.keys.Message(number10001, 0)
	reply, err := schemas.ReplyEvent(names(t).Replies(), "inbound", &fanfarev1.Reply{
		Tenant: e.tenant.ID, Id: "in_1", ConversationId: "conv_4k2mq7vtc6m5xw7r", Channel: schemas.ChannelSMS, Sender: "+393399900011", From: "+393331234567", Text: "When do you open?",
		ReceivedMs: start.UnixMilli(), CampaignId: "camp_10001", MessageId: answered[:],
	}).Record()
	if err != nil {
		t.Fatal(err)
	}
	handled(t, e, fixed{{Tenant: e.tenant.ID, Number: 1}}, m, reply)
	written := m.items[0]
	for name, it := range map[string]*schemas.WebhookItem{
		"replyEvent": &written, "messageEvent": &message, "factEvent": &optedOut, "factEvent ": &click, "campaignEvent": move, "endpointEvent": gone,
	} {
		name = strings.TrimSpace(name)
		var got map[string]any
		if err := json.Unmarshal(appendEvent(nil, it), &got); err != nil {
			t.Fatal(err)
		}
		data, _ := got["data"].(map[string]any)
		same(t, name, doc.Components.Schemas[name], got)
		same(t, name+".data", doc.Components.Schemas[name].Properties["data"], data)
	}
	// The examples equal what the code makes, except for the ids of this test.
	for name, it := range map[string]*schemas.WebhookItem{"message": &message, "fact": &optedOut, "reply": &written, "campaign": move} {
		var got map[string]any
		if err := json.Unmarshal(appendEvent(nil, it), &got); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(doc.Components.Messages[name].Examples[0].Payload)
		if err != nil {
			t.Fatal(err)
		}
		var want map[string]any
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		for _, ids := range []map[string]any{got, want, got["data"].(map[string]any), want["data"].(map[string]any)} {
			delete(ids, "id")
			delete(ids, "messageId")
			if id, _ := ids["customerMessageId"].(string); strings.HasPrefix(id, "msg_") {
				delete(ids, "customerMessageId")
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("example of %s (-document +code):\n%s", name, d)
		}
	}
	data := doc.Components.Schemas["messageEvent"].Properties["data"].Properties
	for _, s := range schemas.WebhookStatuses {
		listed(t, "status", data["status"], string(s))
		listed(t, "type", doc.Components.Schemas["messageEvent"].Properties["type"], messageTypes[s])
	}
	for n := range fanfarev1.State_name {
		if n != 0 {
			listed(t, "state", doc.Components.Schemas["campaignEvent"].Properties["data"].Properties["state"], schemas.StateName(schemas.State(n)))
		}
	}
	for n := range fanfarev1.Channel_name {
		if n != 0 {
			listed(t, "channel", data["channel"], schemas.ChannelName(schemas.Channel(n)))
		}
	}
}

// optedOutByLink is an opt-out of all channels, as the inbound stage writes it.
func optedOutByLink(d *fanfarev1.Delivery) {
	d.Try, d.Leg, d.Channel, d.Route, d.Sender, d.Country, d.Segments, d.SubmissionId, d.RawCode = 0, 0, 0, "", "", "", 0, nil, "link"
}

// clicked is a click of a person, as the edge writes it.
func clicked(d *fanfarev1.Delivery) {
	optedOutByLink(d)
	d.RawCode, d.LinkId, d.To = "person", "lnk_1", ""
}

func same(t *testing.T, name string, want *shape, got map[string]any) {
	t.Helper()
	var have, documented []string
	for k := range got {
		have = append(have, k)
	}
	for k := range want.Properties {
		documented = append(documented, k)
	}
	required := slices.Clone(want.Required)
	slices.Sort(have)
	slices.Sort(documented)
	slices.Sort(required)
	if d := cmp.Diff(documented, have); d != "" {
		t.Errorf("%s (-document +code):\n%s", name, d)
	}
	if d := cmp.Diff(required, have); d != "" {
		t.Errorf("%s: required (-document +code):\n%s", name, d)
	}
	for k, p := range want.Properties {
		if p.Const != nil && p.Const != got[k] || len(p.Enum) > 0 && !slices.Contains(p.Enum, got[k]) {
			t.Errorf("%s.%s: got %v, which the document does not allow", name, k, got[k])
		}
	}
}

func listed(t *testing.T, name string, in *shape, word string) {
	t.Helper()
	if !slices.ContainsFunc(in.Enum, func(v any) bool { s, _ := v.(string); return strings.EqualFold(s, word) }) {
		t.Errorf("the document lacks %s %q", name, word)
	}
}
