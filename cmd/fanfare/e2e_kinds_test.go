package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"fanfare/sinks/carrier/sim"
)

// One campaign of each kind, and one with a chain of three channels, through the whole product: by its own record the
// carrier got the content of each kind and leg, rendered for the recipient (R7, R16 to R19, R21 to R27, R38, X3, R163).
func TestEndToEndKinds(t *testing.T) {
	w := newEmbeddedEnv(t, 200, "--receipt-window", "20s", "--log-level", "warn")
	api := w.api()
	admin := &client{base: api.base, key: runBinary(t, "keys", "create", "--tenant", "Acme Retail", "--data", w.dir, "--scope", "read,campaigns,confirm,contacts,send,admin")}
	var unreachable string
	for _, m := range sim.Magic {
		if m.NN == 39 { // no channel reaches it: every leg of a chain is tried
			unreachable = m.Number()
		}
	}
	const reachable = "+393990000000"
	post := func(path string, body any) (id string) {
		t.Helper()
		var made struct {
			ID string `json:"id"`
		}
		admin.must(t, http.MethodPost, path, body, &made, "")
		return made.ID
	}
	type o = map[string]any
	people := post("/api/contacts/list", o{"name": "people"})
	lost := post("/api/contacts/list", o{"name": "lost"})
	api.must(t, http.MethodPost, "/api/contacts/list/"+people+"/import", strings.NewReader("phone,first_name,order\n"+reachable+",Anna,A-17\n"), nil, "text/csv")
	api.must(t, http.MethodPost, "/api/contacts/list/"+lost+"/import", strings.NewReader("phone,first_name,order\n"+unreachable+",Bea,B-18\n"), nil, "text/csv")
	post("/api/agents", o{"name": "Acme Agent", "providerId": "acme_agent"})
	post("/api/channels", o{"name": "Acme on WhatsApp", "channel": "whatsapp", "address": "+393331234567"})
	post("/api/channels", o{"name": "Acme phone", "channel": "voice", "address": "+390612345678"})
	for _, tpl := range []o{
		{"name": "order_shipped", "channel": "whatsapp", "language": "it", "body": "Ciao {{1}}, ordine {{2}}"},
		{"name": "Spring card", "channel": "rcs", "type": "rich_card", "body": "Hi {{first_name}}", "header": o{"type": "image", "url": "https://example.com/a.png"}},
	} {
		post("/api/templates/"+post("/api/templates", tpl)+"/approve", nil)
	}

	card := func(name string) string {
		return `{"richCard":{"standaloneCard":{"cardContent":{"description":"Hi ` + name + `","media":{"contentInfo":{"fileUrl":"https://example.com/a.png"},"height":"MEDIUM"}},"cardOrientation":"VERTICAL"}}}`
	}
	wants := map[string][]string{reachable: {"Ciao Anna", card("Anna"), "order_shipped/it|Anna|Nr. A-17", "support/voicemail/Good morning Anna", `"Hello" Anna`}, unreachable: {"order_shipped/it|Bea|Nr. B-18", card("Bea"), "By SMS: Bea"}}
	params := o{"1": "{{first_name}}", "2": "Nr. {{order}}"}
	var campaigns []string
	for _, body := range []o{
		{"channel": "sms", "message": "Ciao {{first_name}}"},
		{"channel": "rcs", "message": "Spring card"},
		{"channel": "whatsapp", "message": "order_shipped", "parameters": params},
		{"channel": "voice", "message": "Good morning {{first_name}}", "queue": "support", "amdEnabled": true, "amdAction": "voicemail"},
		{"channel": "sms", "transliterate": true, "variants": []o{{"name": "A", "message": "never", "weight": 0}, {"name": "B", "message": "“Hello” {{first_name}}", "weight": 1}}},
		{
			"sendingMode": "WHATSAPP_RCS_SMS", "message": "order_shipped", "parameters": params, "contactList": lost,
			"fallbackLegs": []o{{"channel": "rcs", "message": "Spring card"}, {"channel": "sms", "message": "By SMS: {{first_name}}"}},
		},
	} {
		body["name"], body["sendImmediately"] = "kind", true
		if body["contactList"] == nil {
			body["contactList"] = people
		}
		id := post("/api/campaigns", body)
		api.must(t, http.MethodPut, "/api/campaigns/"+id+"/confirm", nil, nil, "")
		campaigns = append(campaigns, id)
	}
	for deadline := time.Now().Add(3 * time.Minute); len(campaigns) > 0; time.Sleep(100 * time.Millisecond) {
		var c struct{ State, Reason string }
		api.must(t, http.MethodGet, "/api/campaigns/"+campaigns[0], nil, &c, "")
		switch {
		case c.State == "completed":
			campaigns = campaigns[1:]
		case c.State == "suspended" || time.Now().After(deadline):
			t.Fatalf("%s: got %s %s, want completed", campaigns[0], c.State, c.Reason)
		}
	}
	w.stop(t)
	subs, _ := (&truthFile{path: w.truth()}).all(t)
	got := map[string][]string{}
	for _, s := range subs {
		got[s.To] = append(got[s.To], s.Body)
	}
	slices.Sort(got[reachable]) // the campaigns run concurrently
	slices.Sort(wants[reachable])
	for to, want := range wants {
		if !slices.Equal(got[to], want) {
			t.Errorf("%s: the carrier was handed\n%s\nwant\n%s", to, strings.Join(got[to], "\n"), strings.Join(want, "\n"))
		}
	}
}
