package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"

	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// move applies a change of the scheduler to a campaign.
func (w *env) move(campaign string, change func(*schemas.Change)) {
	w.Helper()
	c, err := w.store.Campaign(w.Context(), w.tenant.ID, campaign)
	w.check(err)
	ch := schemas.Change{Tenant: w.tenant.ID, Campaign: campaign, Version: c.Version, To: c.State, Actor: schemas.ActorScheduler, At: w.clock.now()}
	change(&ch)
	_, err = w.store.Apply(w.Context(), ch)
	w.check(err)
}

// asOf marks the statistics complete as of a time.
func (w *env) asOf(at time.Time) {
	w.Helper()
	w.check(w.stats.Mark(w.Context(), analytics.TopicID{1}, []analytics.Mark{{Partition: 0, End: 1, AsOf: at}}))
}

// sending makes a campaign of n recipients that is being sent.
func (w *env) sending(n uint32) string {
	w.Helper()
	id := w.campaign(1, `,"sendImmediately":true`)
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	w.freeze(id, n)
	return id
}

// R114, P4: the cost shown is the cost billed. A failure that is not billed costs nothing, a doubt costs its price once
// a receipt confirms it, reserved money is no cost, and the ledger has the final word on a settled campaign.
func TestCostShownIsBilled(t *testing.T) {
	w := newEnv(t)
	id := w.sending(10)
	cost := func(want string) {
		t.Helper()
		for _, path := range []string{"/api/campaigns/" + id + "/stats", "/api/campaigns/stats"} {
			subset(t, path, w.call("GET", path, "").want(200).body, fmt.Sprintf(`{"cost":%s}`, want))
		}
	}
	cost("0.00") // although the price of the campaign is reserved
	w.happened(w.tenant.ID, id, 0, 4, schemas.KindSent, schemas.CodeAwaitingDLR)
	w.happened(w.tenant.ID, id, 4, 6, schemas.KindAmbiguous, schemas.CodeCrash)
	cost("0.20")
	w.happened(w.tenant.ID, id, 4, 5, schemas.KindDelivered, schemas.CodeDelivered)
	cost("0.25")
	w.happened(w.tenant.ID, id, 0, 1, schemas.KindUndelivered, schemas.CodeProviderError)
	cost("0.20")
	w.move(id, func(ch *schemas.Change) { ch.To, ch.Trigger = schemas.StateCompleted, schemas.TriggerComplete })
	cost("0.20")
	w.move(id, func(ch *schemas.Change) { ch.Settled, ch.Captured = true, 50_000 })
	cost("0.05")
}

// A client that polls /stats until it reads `completed` has final figures, although the campaign's row says so before
// the statistics have read the last outcomes, and also if the clock of the statistics is ahead.
func TestCompletedWithFinalFigures(t *testing.T) {
	w := newEnv(t)
	id := w.sending(10)
	type figures struct {
		Status, State string
		Settled       bool
		Sent, Pending int
	}
	stats := func() (f figures) {
		t.Helper()
		w.call("GET", "/api/campaigns/"+id+"/stats", "").want(200).into(&f)
		return f
	}
	want := func(what string, want figures) {
		t.Helper()
		if got := stats(); got != want {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
	}
	w.happened(w.tenant.ID, id, 0, 7, schemas.KindSent, schemas.CodeAwaitingDLR)
	w.asOf(w.clock.now())
	w.clock.forward(time.Second)
	w.move(id, func(ch *schemas.Change) { ch.To, ch.Trigger = schemas.StateCompleted, schemas.TriggerComplete })
	completed := w.clock.now()
	subset(t, "the campaign itself", w.call("GET", "/api/campaigns/"+id, "").body, `{"state":"completed"}`)
	want("older than the completion", figures{"sending", "sending", false, 7, 3})
	subset(t, "totals", w.call("GET", "/api/campaigns/stats", "").body, `{"byState":{"sending":1},"byStatus":{"sending":1}}`)

	w.asOf(completed.Add(2 * time.Second))
	want("a clock that is ahead", figures{"sending", "sending", false, 7, 3})

	w.happened(w.tenant.ID, id, 7, 10, schemas.KindSent, schemas.CodeAwaitingDLR)
	want("everything read", figures{"completed", "completed", false, 10, 0})
	subset(t, "totals", w.call("GET", "/api/campaigns/stats", "").body, `{"byState":{"completed":1},"sent":10,"pending":0}`)

	w.clock.forward(time.Hour)
	w.move(id, func(ch *schemas.Change) { ch.Settled = true })
	want("settled, the statistics are older", figures{"completed", "completed", false, 10, 0})
	w.asOf(w.clock.now())
	want("settled", figures{"completed", "completed", true, 10, 0})
}

// A recipient without any event, such as one whose record became a dead letter, does not keep a campaign from being
// completed for ever.
func TestCompletedWithLostEvent(t *testing.T) {
	w := newEnv(t)
	id := w.sending(10)
	w.happened(w.tenant.ID, id, 0, 9, schemas.KindSent, schemas.CodeAwaitingDLR)
	w.move(id, func(ch *schemas.Change) { ch.To, ch.Trigger = schemas.StateCompleted, schemas.TriggerComplete })
	w.asOf(w.clock.now())
	subset(t, "at once", w.call("GET", "/api/campaigns/"+id+"/stats", "").body, `{"state":"sending","pending":1}`)
	w.asOf(w.clock.now().Add(61 * time.Second))
	subset(t, "after a minute", w.call("GET", "/api/campaigns/"+id+"/stats", "").body, `{"state":"completed","pending":1}`)
}

// dealt adds a deal of seqs [from, to) to the statistics.
func (w *env) dealt(campaign string, number uint64, try uint8, from, to uint64) {
	w.Helper()
	members := roaring.New()
	members.AddRange(from, to)
	w.check(w.stats.Append(w.Context(), analytics.Batch{Deals: []analytics.Deal{{
		Campaign: &analytics.Campaign{Tenant: w.tenant.ID, ID: campaign, Month: analytics.MonthOf(w.clock.now())},
		Number:   number, TimeMS: w.clock.now().UnixMilli(), Try: try, Leg: 1, Members: members,
	}}}))
}

// R101: inFlight is a number: dealt, and no outcome of that try yet.
func TestInFlight(t *testing.T) {
	w := newEnv(t)
	id := w.sending(1000)
	want := func(what, figures string) {
		t.Helper()
		subset(t, what, w.call("GET", "/api/campaigns/"+id+"/stats", "").want(200).body, figures)
	}
	want("nothing dealt", `{"inFlight":0,"pending":1000}`)
	w.dealt(id, 1, 1, 0, 250)
	want("dealt", `{"inFlight":250,"pending":1000}`)
	w.happened(w.tenant.ID, id, 0, 100, schemas.KindSent, schemas.CodeAwaitingDLR)
	w.happened(w.tenant.ID, id, 100, 110, schemas.KindReturned, schemas.CodePaused)
	want("answered", `{"inFlight":140,"pending":900,"awaiting":100}`)
	w.dealt(id, 2, 2, 100, 110)
	want("dealt again", `{"inFlight":150,"pending":900,"awaiting":100}`)
	w.stats.away.Store(true)
	want("the statistics are away", `{"inFlight":150,"pending":900,"awaiting":100}`)
}

// X15: /stats says in a sentence what ambiguous means and what ends it.
func TestAmbiguousNote(t *testing.T) {
	w := newEnv(t)
	id := w.sending(1000)
	subset(t, "none", w.call("GET", "/api/campaigns/"+id+"/stats", "").body, `{"ambiguous":0,"ambiguousNote":null}`)
	w.happened(w.tenant.ID, id, 0, 3, schemas.KindAmbiguous, schemas.CodeCrash)
	w.happened(w.tenant.ID, id, 3, 4, schemas.KindAmbiguous, schemas.CodeTimeout)
	subset(t, "four", w.call("GET", "/api/campaigns/"+id+"/stats", "").body, `{"ambiguous":4,"ambiguousNote":"It is unknown whether the carrier accepted the message to 4 recipients (TIMEOUT 1, CRASH 3); they are not sent to again until the carrier's receipt, a query to the carrier (if it can be queried) or your decision resolves it."}`)
}

// R101, R114, R123: the statistics of a campaign by channel, variant, country, sub-status, route and leg, with the cost
// of each.
func TestStatsByDimension(t *testing.T) {
	w := newEnv(t)
	id := w.sending(100)
	c := &analytics.Campaign{Tenant: w.tenant.ID, ID: id, Month: analytics.MonthOf(w.clock.now())}
	number, err := schemas.CampaignNumber(id)
	w.check(err)
	var events []analytics.Event
	add := func(seq uint32, kind schemas.Kind, code schemas.Code, change func(*analytics.Event)) {
		e := analytics.Event{
			Campaign: c, TimeMS: w.clock.now().UnixMilli(), Seq: seq, Kind: kind, Code: code, Try: 1, Leg: 1, Channel: schemas.ChannelSMS, Route: "sim", Country: "IT",
			Variant: 1, Segments: 2, PriceMicros: 50_000, Currency: "EUR", MessageID: w.keys.Message(number, seq),
		}
		change(&e)
		events = append(events, e)
	}
	for seq := range uint32(6) {
		add(seq, schemas.KindSent, schemas.CodeAwaitingDLR, func(e *analytics.Event) {
			if seq >= 4 {
				e.Country, e.Variant = "DE", 2
			}
		})
	}
	add(0, schemas.KindUndelivered, schemas.CodeBarred, func(e *analytics.Event) { e.Channel, e.Country = 0, "" })
	add(4, schemas.KindBounced, schemas.CodeAbsentSubscriber, func(e *analytics.Event) { e.Channel, e.Country = 0, "" })
	add(4, schemas.KindSent, schemas.CodeAwaitingDLR, func(e *analytics.Event) {
		e.Try, e.Leg, e.Channel, e.Route, e.Country, e.Variant, e.Segments, e.PriceMicros = 2, 2, schemas.ChannelRCS, "rcs-1", "DE", 2, 1, 80_000
	})
	w.check(w.stats.Append(t.Context(), analytics.Batch{Events: events}))
	w.asOf(w.clock.now().Add(time.Second))
	type part struct {
		Value                                   string
		TotalMessages, Sent, Undelivered, Count int
		Cost                                    float64
		Status                                  string
	}
	var got struct {
		ByChannel, ByVariant, ByCountry, BySubStatus, ByRoute, ByLeg []part
		Cost, Throughput                                             float64
	}
	w.call("GET", "/api/campaigns/"+id+"/stats", "").want(200).into(&got)
	for name, c := range map[string]struct{ got, want []part }{
		"byChannel": {got.ByChannel, []part{{"sms", 6, 6, 1, 0, 0.6, ""}, {"rcs", 1, 1, 0, 0, 0.08, ""}}},
		"byVariant": {got.ByVariant, []part{{"1", 4, 4, 1, 0, 0.4, ""}, {"2", 2, 2, 0, 0, 0.28, ""}}},
		"byCountry": {got.ByCountry, []part{{"IT", 4, 4, 1, 0, 0.4, ""}, {"DE", 2, 2, 0, 0, 0.28, ""}}},
		"byRoute":   {got.ByRoute, []part{{"sim", 6, 6, 1, 0, 0.6, ""}, {"rcs-1", 1, 1, 0, 0, 0.08, ""}}},
		"byLeg":     {got.ByLeg, []part{{"1", 6, 6, 1, 0, 0.6, ""}, {"2", 1, 1, 0, 0, 0.08, ""}}},
		"bySubStatus": {got.BySubStatus, []part{
			{"AWAITING_DLR", 0, 0, 0, 4, 0, "awaiting"}, {"ABSENT_SUBSCRIBER", 0, 0, 0, 1, 0, "awaiting"}, {"BARRED", 0, 0, 0, 1, 0, "undelivered"},
		}},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if got.Cost != 0.68 || got.Throughput != 0.7 {
		t.Errorf("cost %v, throughput %v; want 0.68 and 7 messages in 10 s, 0.7", got.Cost, got.Throughput)
	}
}

// A chart of a campaign by second, minute and hour.
func TestTimeline(t *testing.T) {
	w := newEnv(t)
	id := w.sending(100)
	w.happened(w.tenant.ID, id, 0, 10, schemas.KindSent, schemas.CodeAwaitingDLR)
	w.clock.forward(90 * time.Second)
	w.happened(w.tenant.ID, id, 0, 4, schemas.KindDelivered, schemas.CodeDelivered)
	w.happened(w.tenant.ID, id, 10, 12, schemas.KindSent, schemas.CodeAwaitingDLR)
	w.clock.forward(time.Second)
	path := "/api/campaigns/" + id + "/stats/timeline"
	type point struct {
		Time                               string
		Sent, Delivered, Undelivered, Read int
	}
	at := func(time string, sent, delivered int) point {
		return point{"2025-04-01T" + time + "Z", sent, delivered, 0, 0}
	}
	for query, want := range map[string][]point{
		"":                                {at("09:00:00", 10, 0), at("09:01:00", 2, 4)},
		"?by=second":                      {at("09:00:00", 10, 0), at("09:01:30", 2, 4)},
		"?by=hour":                        {at("09:00:00", 12, 4)},
		"?from=2025-04-01T09:01:00Z":      {at("09:01:00", 2, 4)},
		"?to=2025-04-01T09:01:00%2B00:00": {at("09:00:00", 10, 0)},
	} {
		var got struct {
			By     string
			Points []point
		}
		w.call("GET", path+query, "").want(200).into(&got)
		if diff := cmp.Diff(want, got.Points); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
	// R133: each route separately.
	type route struct {
		Route  string
		Points []point
	}
	var got struct {
		Points []point
		Routes []route
	}
	number, err := schemas.CampaignNumber(id)
	w.check(err)
	w.check(w.stats.Append(t.Context(), analytics.Batch{Events: []analytics.Event{{
		Campaign: &analytics.Campaign{Tenant: w.tenant.ID, ID: id, Month: analytics.MonthOf(w.clock.now())}, TimeMS: w.clock.now().UnixMilli(), Seq: 20,
		Kind: schemas.KindSent, Code: schemas.CodeAwaitingDLR, Channel: schemas.ChannelSMS, Try: 1, Leg: 1, Route: "second", MessageID: w.keys.Message(number, 20),
	}}}))
	w.clock.forward(time.Second)
	w.call("GET", path+"?by=hour&split=route", "").want(200).into(&got)
	if diff := cmp.Diff([]route{{"second", []point{at("09:00:00", 1, 0)}}, {"sim", []point{at("09:00:00", 12, 4)}}}, got.Routes); diff != "" {
		t.Errorf("by route (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]point{at("09:00:00", 13, 4)}, got.Points); diff != "" {
		t.Errorf("all routes (-want +got):\n%s", diff)
	}
	w.call("GET", path+"?split=country", "").problem(422, "invalid_value", "split")
	w.call("GET", path+"?by=day", "").problem(422, "invalid_value", "by")
	w.call("GET", path+"?by=minute&from=2020-01-01", "").problem(422, "invalid_value", "from")
	w.call("GET", "/api/campaigns/camp_99999/stats/timeline", "").problem(404, "not_found", "")
}

// R122: what a person should look at, how many, and what to do. A campaign that goes well has no hints.
func TestHints(t *testing.T) {
	w := newEnv(t)
	id := w.sending(1000)
	hints := func() (out []struct {
		Code, Message, Fix string
		Count              int
	},
	) {
		t.Helper()
		var stats struct{ Hints any }
		a := w.call("GET", "/api/campaigns/"+id+"/stats", "").want(200)
		a.into(&stats)
		b, err := json.Marshal(stats.Hints)
		w.check(err)
		w.check(json.Unmarshal(b, &out))
		return out
	}
	w.happened(w.tenant.ID, id, 0, 300, schemas.KindSent, schemas.CodeAwaitingDLR)
	w.happened(w.tenant.ID, id, 0, 195, schemas.KindDelivered, schemas.CodeDelivered)
	if got := hints(); len(got) != 0 {
		t.Errorf("a good campaign with receipts awaited: got %+v, want no hints", got)
	}
	w.happened(w.tenant.ID, id, 195, 255, schemas.KindUndelivered, schemas.CodeNetworkError)
	w.happened(w.tenant.ID, id, 255, 265, schemas.KindUndelivered, schemas.CodeUnknownSubscriber)
	w.happened(w.tenant.ID, id, 300, 302, schemas.KindAmbiguous, schemas.CodeCrash)
	got := hints()
	want := map[string]int{"low_delivery_rate": 70, "bad_numbers": 10, "route_failing": 60, "ambiguous": 2}
	if len(got) != len(want) {
		t.Errorf("got %+v, want %v", got, want)
	}
	for _, h := range got {
		if h.Count != want[h.Code] || h.Message == "" || h.Fix == "" {
			t.Errorf("hint %+v: want %d of it, a message and what to do", h, want[h.Code])
		}
	}
}

// The live statistics: one event at once, one when the figures change, and an error before the stream begins.
func TestLiveStats(t *testing.T) {
	w := newEnv(t)
	id := w.sending(10)
	w.call("GET", "/api/campaigns/camp_99999/stats/live", "").problem(404, "not_found", "")
	w.call("GET", "/api/campaigns/"+id+"/stats/live?vocab=x", "").problem(422, "invalid_value", "vocab")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"/api/campaigns/"+id+"/stats/live", nil)
	w.check(err)
	req.Header.Set("X-Api-Key", w.key)
	resp, err := http.DefaultClient.Do(req)
	w.check(err)
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Fatalf("content type %q, want text/event-stream", got)
	}
	lines := bufio.NewScanner(resp.Body)
	next := func() (data []byte) {
		t.Helper()
		event := ""
		for lines.Scan() {
			switch name, value, _ := strings.Cut(lines.Text(), ": "); name {
			case "event":
				event = value
			case "data":
				data = []byte(value)
			case "":
				if event != "stats" {
					t.Fatalf("event %q, want stats", event)
				}
				return data
			}
		}
		t.Fatalf("the stream ended: %v", lines.Err())
		return nil
	}
	subset(t, "at once", next(), `{"campaignId":"`+id+`","status":"sending","sent":0,"cost":0.00}`)
	w.happened(w.tenant.ID, id, 0, 4, schemas.KindSent, schemas.CodeAwaitingDLR)
	subset(t, "after a change", next(), `{"sent":4,"cost":0.20}`)
}

// Requests that come while the statistics are read wait a moment, then take the last answer, whose as_of says how old
// it is. However many there are, the store is read once at a time.
func TestStatsWhileTheStoreIsSlow(t *testing.T) {
	w := newEnv(t, func(w *env) { w.deps.StatsMaxAge, w.deps.StatsPatience = time.Nanosecond, time.Millisecond })
	id := w.sending(10)
	path := "/api/campaigns/" + id + "/stats"
	w.happened(w.tenant.ID, id, 0, 1, schemas.KindSent, schemas.CodeAwaitingDLR)
	subset(t, "first", w.call("GET", path, "").want(200).body, `{"sent":1}`)
	w.happened(w.tenant.ID, id, 1, 3, schemas.KindSent, schemas.CodeAwaitingDLR)
	release := make(chan struct{})
	w.stats.slow.Store(&release)
	before := w.stats.asked.Load()
	for range 20 {
		subset(t, "while it is read", w.call("GET", path, "").want(200).body, `{"sent":1}`)
	}
	if asked := w.stats.asked.Load() - before; asked != 1 {
		t.Errorf("20 requests: the store was asked %d times at once, want 1", asked)
	}
	w.stats.slow.Store(nil)
	close(release)
	deadline := time.Now().Add(time.Minute)
	for {
		var got struct{ Sent int }
		if w.call("GET", path, "").want(200).into(&got); got.Sent == 3 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("sent %d, want 3", got.Sent)
		}
	}
}

// R123: campaigns compared by tag, channel, day and hour of day, in the tenant's time zone; those that run and those
// that have ended.
func TestCompareCampaigns(t *testing.T) {
	w := newEnv(t)
	_, err := w.store.UpdateTenant(t.Context(), w.tenant.ID, 0, func(tn *store.Tenant) error { tn.Timezone = "Europe/Rome"; return nil })
	w.check(err)
	w.deps.Registry = newRegistry()
	w.serve()
	send := func(n int, tags string) string {
		t.Helper()
		id := w.campaign(1, `,"sendImmediately":true,"tags":[`+tags+`]`)
		w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
		w.freeze(id, uint32(n))
		w.happened(w.tenant.ID, id, 0, uint32(n), schemas.KindSent, schemas.CodeAwaitingDLR)
		return id
	}
	a := send(10, `"spring","vip"`) // 09:00 UTC is 11:00 in Rome
	w.happened(w.tenant.ID, a, 0, 9, schemas.KindDelivered, schemas.CodeDelivered)
	w.move(a, func(ch *schemas.Change) { ch.To, ch.Trigger = schemas.StateCompleted, schemas.TriggerComplete })
	w.move(a, func(ch *schemas.Change) { ch.Settled, ch.Captured = true, 500_000 })
	w.clock.forward(14 * time.Hour) // 23:00 UTC is the next day in Rome
	send(4, `"spring"`)
	w.asOf(w.clock.now())
	type group struct {
		Value           string
		Campaigns, Sent int
		DeliveryRate    float64
		Cost            float64
	}
	var got struct{ ByTag, ByChannel, ByDay, ByHour []group }
	check := func() {
		t.Helper()
		w.call("GET", "/api/campaigns/stats?by=tag,channel,day,hour", "").want(200).into(&got)
		for name, c := range map[string]struct{ got, want []group }{
			"byTag":     {got.ByTag, []group{{"spring", 2, 14, 0.6429, 0.7}, {"vip", 1, 10, 0.9, 0.5}}},
			"byChannel": {got.ByChannel, []group{{"sms", 2, 14, 0.6429, 0.7}}},
			"byDay":     {got.ByDay, []group{{"2025-04-01", 1, 10, 0.9, 0.5}, {"2025-04-02", 1, 4, 0, 0.2}}},
			"byHour":    {got.ByHour, []group{{"01", 1, 4, 0, 0.2}, {"11", 1, 10, 0.9, 0.5}}},
		} {
			if diff := cmp.Diff(c.want, c.got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	}
	check()
	check() // the figures of the campaign that ended are kept by now
	subset(t, "not asked for", w.call("GET", "/api/campaigns/stats", "").body, `{"byTag":[],"byDay":[]}`)
	w.call("GET", "/api/campaigns/stats?by=weekday", "").problem(422, "invalid_value", "by")
}
