package api_test

import (
	"fmt"
	"strings"
	"testing"

	"fanfare/api"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// opened records that the links of recipients were opened, by whom code says.
func (w *env) opened(campaign, link string, from, to uint32, code schemas.Code) {
	w.Helper()
	events := w.events(w.tenant.ID, campaign, from, to, schemas.KindClicked, code)
	for i := range events {
		events[i].Try, events[i].LinkID, events[i].Segments, events[i].PriceMicros = 0, link, 0, 0
	}
	w.check(w.stats.Append(w.Context(), analytics.Batch{Events: events}))
}

// TestCampaignLinks (R86, R136, R138): clicks are counted by link, country and variant, each recipient once, and by who
// opened the link. The click rate counts people among the delivered, as the statistics do.
func TestCampaignLinks(t *testing.T) {
	w := newEnv(t, func(w *env) { w.deps.LinkURL = "https://go.example.com/" })
	list := w.list("l", 10, 0)
	make := func(message string) string {
		t.Helper()
		return w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"c","channel":"sms","contactList":%q,"sendImmediately":true,%s}`, list, message)).want(201).id()
	}
	id := make(`"variants":[{"name":"A","message":"{{link:https://shop.example/a}}","weight":1},{"name":"B","message":"{{link:https://shop.example/a}} {{link:https://shop.example/b}}","weight":1}],"utm":{"source":"sms"}`)
	w.call("GET", "/api/campaigns/camp_none/links", "").want(404)
	subset(t, "before confirm", w.call("GET", "/api/campaigns/"+id+"/links", "").want(200).body, `{"links":[],"clicked":0,"opens":0,"byCountry":[]}`)
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	w.freeze(id, 10)
	w.clicksAre(id, "lnk_1 [1 2] people 0 unsure 0 previews 0 scanners 0 rate 0 [] []; lnk_2 [2] people 0 unsure 0 previews 0 scanners 0 rate 0 [] []")
	sent := w.events(w.tenant.ID, id, 0, 10, schemas.KindSent, schemas.CodeAwaitingDLR)
	for i := range sent {
		sent[i].Country, sent[i].Variant = pickOf(i < 6, "IT", "FR"), uint8(1+i%2)
	}
	w.check(w.stats.Append(t.Context(), analytics.Batch{Events: sent}))
	w.happened(w.tenant.ID, id, 0, 8, schemas.KindDelivered, schemas.CodeDelivered)
	w.opened(id, "lnk_1", 0, 4, schemas.CodeUnspecified)
	w.clock.forward(60_000_000_000)
	w.opened(id, "lnk_1", 3, 5, schemas.CodeUnspecified) // recipient 3 once more
	w.opened(id, "lnk_1", 0, 6, schemas.CodePreview)
	w.opened(id, "lnk_2", 0, 10, schemas.CodeBot)
	w.opened(id, "lnk_2", 8, 9, schemas.CodeUnspecified) // not delivered, as far as is known
	w.opened(id, "lnk_2", 9, 10, schemas.CodeUnsure)
	w.clicksAre(id, "lnk_1 [1 2] people 5 unsure 0 previews 6 scanners 0 rate 0.625 [{IT 5}] [{1 3} {2 2}]; lnk_2 [2] people 1 unsure 1 previews 0 scanners 10 rate 0 [{FR 1}] [{1 1}]")
	subset(t, "clicks", w.call("GET", "/api/campaigns/"+id+"/links", "").want(200).body, `{"clicked":6,"unsure":1,"previewed":6,"scanned":10,"clickRate":0.625,"opens":24,
		"byCountry":[{"value":"IT","clicked":5},{"value":"FR","clicked":1}],"byVariant":[{"value":"1","clicked":4},{"value":"2","clicked":2}]}`)
	subset(t, "statistics", w.call("GET", "/api/campaigns/"+id+"/stats", "").want(200).body, `{"clicked":6,"clickRate":0.625}`)
}

// clicksAre checks the links of a campaign.
func (w *env) clicksAre(id, want string) {
	w.Helper()
	var got struct{ Links []api.LinkPart }
	w.call("GET", "/api/campaigns/"+id+"/links", "").want(200).into(&got)
	var lines []string
	for i := range got.Links {
		l := &got.Links[i]
		lines = append(lines, fmt.Sprintf("%s %v people %d unsure %d previews %d scanners %d rate %v %v %v", l.ID, l.Variants, l.Clicked, l.Unsure, l.Previewed, l.Scanned, l.ClickRate, l.ByCountry, l.ByVariant))
	}
	if got := strings.Join(lines, "; "); got != want {
		w.Errorf("links: got %s, want %s", got, want)
	}
}

func pickOf(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}
