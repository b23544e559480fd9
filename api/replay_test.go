package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/audience"
)

// complete ends the sending of a campaign.
func (w *env) complete(id string) {
	w.Helper()
	w.move(id, func(ch *schemas.Change) { ch.To, ch.Trigger = schemas.StateCompleted, schemas.TriggerComplete })
}

// frozenPeople confirms a campaign, freezes it, and returns the numbers of those in its audience who are sent to.
func (w *env) frozenPeople(id string) (out []string) {
	w.Helper()
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	c, err := w.store.Campaign(w.Context(), w.tenant.ID, id)
	w.check(err)
	w.check(w.store.Freeze(w.Context(), w.tenant.ID, id, c.Version))
	c, err = w.store.Campaign(w.Context(), w.tenant.ID, id)
	w.check(err)
	index, err := w.store.Blobs(w.Context(), c.FreezeID)
	w.check(err)
	for _, x := range index {
		blob, err := w.store.Blob(w.Context(), c.FreezeID, x.Blob)
		w.check(err)
		r, err := audience.NewReader(blob)
		w.check(err)
		for e := new(audience.Entry); r.Next(e); {
			if e.Flag == audience.OK {
				out = append(out, e.To)
			}
		}
	}
	return out
}

type replayOptions struct {
	Allowed                   bool
	AllowedFrom, AllowedUntil *string
	Reason                    *string
	Name, Sender, Route       string
	Statuses                  []struct {
		Status, Description string
		Count               int
		SubStatuses         []struct {
			Code, Description string
			Count             int
		}
	}
}

func (w *env) replayOptions(id string) (out replayOptions) {
	w.Helper()
	w.call("GET", "/api/campaigns/"+id+"/replay", "").want(200).into(&out)
	return out
}

// R140, R141, C21: a replay is possible from a day to one calendar month after the first submission, on the clock of
// the tenant.
func TestReplayWindow(t *testing.T) {
	w := newEnv(t)
	rome, err := time.LoadLocation("Europe/Rome")
	w.check(err)
	_, err = w.store.UpdateTenant(t.Context(), w.tenant.ID, 0, func(tn *store.Tenant) error { tn.Timezone = "Europe/Rome"; return nil })
	w.check(err)
	day := func(text string) time.Time {
		t.Helper()
		at, err := time.ParseInLocation("2006-01-02 15:04", text, rome)
		w.check(err)
		return at
	}
	for _, c := range []struct{ started, until string }{
		{"2026-01-15 10:30", "2026-02-15 10:30"},
		{"2027-01-31 10:30", "2027-02-28 10:30"},
		{"2028-01-31 12:00", "2028-02-29 12:00"},
		{"2029-03-01 09:00", "2029-04-01 09:00"}, // the clock is put forward in between
		{"2030-10-31 23:30", "2030-11-30 23:30"},
		{"2031-12-31 00:30", "2032-01-31 00:30"},
	} {
		w.clock.at.Store(day(c.started).UnixMilli())
		id := w.sending(2)
		w.happened(w.tenant.ID, id, 0, 2, schemas.KindSent, schemas.CodeAwaitingDLR)
		w.clock.forward(time.Minute)
		if got := w.replayOptions(id); got.Allowed || !strings.Contains(*got.Reason, "is sending") {
			t.Errorf("%s: while it is sent: got %+v, want not allowed", c.started, got)
		}
		w.complete(id)
		from, until := day(c.started).Add(24*time.Hour), day(c.until)
		for _, at := range []struct {
			time.Time
			allowed bool
		}{{from.Add(-time.Millisecond), false}, {from, true}, {until.Add(-time.Millisecond), true}, {until, false}} {
			w.clock.at.Store(at.UnixMilli())
			got := w.replayOptions(id)
			if got.Allowed != at.allowed || (got.Reason == nil) != at.allowed {
				t.Errorf("started %s, at %s: got allowed %v, want %v", c.started, at.In(rome), got.Allowed, at.allowed)
			}
			if want := until.UTC().Format("2006-01-02T15:04:05Z"); *got.AllowedUntil != want {
				t.Errorf("started %s: got until %s, want %s", c.started, *got.AllowedUntil, want)
			}
			made := w.call("POST", "/api/campaigns/"+id+"/replay", `{"statuses":["Sent"]}`)
			if !at.allowed {
				made.problem(409, "not_replayable", "")
			} else {
				made.want(201)
			}
		}
	}
}

// C21: the policy of the tenant sets the window; what leaves no time in it is refused.
func TestReplayWindowOfThePolicy(t *testing.T) {
	w := newEnv(t)
	began := w.clock.now()
	id := w.sending(2)
	w.complete(id)
	subset(t, "usual policy", w.call("GET", "/api/policy", "").want(200).body, `{"replayWindow":{"afterHours":24,"days":null}}`)
	w.callAs(w.admin(), "PUT", "/api/policy", `{"replayWindow":{"afterHours":0,"days":null}}`).want(200)
	if got := w.replayOptions(id); !got.Allowed || *got.AllowedUntil != "2025-05-01T09:00:00Z" {
		t.Errorf("at once: got %+v, want it allowed until a calendar month after", got)
	}
	w.callAs(w.admin(), "PUT", "/api/policy", `{"replayWindow":{"afterHours":2,"days":5}}`).want(200)
	for _, at := range []struct {
		after   time.Duration
		allowed bool
	}{{2*time.Hour - time.Millisecond, false}, {2 * time.Hour, true}, {5*24*time.Hour - time.Millisecond, true}, {5 * 24 * time.Hour, false}} {
		w.clock.at.Store(began.Add(at.after).UnixMilli())
		got := w.replayOptions(id)
		if got.Allowed != at.allowed || *got.AllowedFrom != began.Add(2*time.Hour).Format("2006-01-02T15:04:05Z") {
			t.Errorf("after %s: got allowed %v from %s, want %v, from two hours on", at.after, got.Allowed, *got.AllowedFrom, at.allowed)
		}
	}
	for _, bad := range []string{`{"afterHours":120,"days":5}`, `{"afterHours":1,"days":32}`, `{"afterHours":1,"days":0}`, `{"afterHours":721}`, `{"afterHours":672,"days":null}`} {
		w.callAs(w.admin(), "PUT", "/api/policy", `{"replayWindow":`+bad+`}`).want(422)
	}
	w.callAs(w.admin(), "PUT", "/api/policy", `{"replayWindow":null}`).want(200)
	subset(t, "usual again", w.call("GET", "/api/policy", "").want(200).body, `{"replayWindow":{"afterHours":24,"days":null}}`)
}

// R142 to R145, R152, C20: the tree of statuses and sub-statuses with counts and descriptions.
func TestReplayTree(t *testing.T) {
	w := newEnv(t)
	id := w.sentAndAnswered()
	got := w.replayOptions(id)
	if got.Name != "C" || got.Sender == "" || got.Route != "sim" {
		t.Errorf("got name %q, sender %q, route %q, want those of the original", got.Name, got.Sender, got.Route)
	}
	counts := map[string]int{}
	for _, status := range got.Statuses {
		counts[status.Status] = status.Count
		sum := 0
		for _, sub := range status.SubStatuses {
			sum += sub.Count
			if sub.Description == "" {
				t.Errorf("%s has no description", sub.Code)
			}
		}
		if sum != status.Count || status.Description == "" {
			t.Errorf("%s: got %d, and sub-statuses of %d: %q", status.Status, status.Count, sum, status.Description)
		}
	}
	if diff := cmp.Diff(map[string]int{"Delivered": 10, "UnDelivered": 5, "NotSent": 3, "Sent": 16}, counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

// R139, R142 to R151: a replay is a new campaign with the message of the original, to those people of its audience who
// were selected, and who have not opted out since. It can be made again and again, and replayed itself. "Reply" in B is
// the same (C25).
func TestReplay(t *testing.T) {
	w := newEnv(t)
	id := w.sentAndAnswered()
	w.complete(id)
	w.clock.forward(25 * time.Hour)
	w.check(w.store.Suppress(t.Context(), w.tenant.ID, "api", *w.members(id, "limit=40").Data[11].Phone))
	origin := w.members(id, "limit=40").Data
	people := func(seqs ...int) (out []string) {
		for _, seq := range seqs {
			out = append(out, *origin[seq].Phone)
		}
		return out
	}
	replay := func(body string) *answer {
		t.Helper()
		return w.call("POST", "/api/campaigns/"+id+"/replay", body)
	}
	// R3, R37: it is named after the present time in the tenant's zone, and keeps the route.
	made := replay(`{"statuses":["UnDelivered"],"subStatuses":["INVALID_NUMBER"]}`).want(201)
	subset(t, "replay", made.body, fmt.Sprintf(`{"name":"2025-04-02 12:01","message":"Hello","channel":"sms","state":"configured","replayOf":%q,"contactList":null,"route":"sim"}`, id))
	var info struct {
		Replay struct {
			ReplayOf, ReplayOfName string
			Selected               int
			EstimatedCost          float64
		}
	}
	made.into(&info)
	if info.Replay.ReplayOf != id || info.Replay.ReplayOfName != "C" || info.Replay.Selected != 7 || info.Replay.EstimatedCost != 0.35 {
		t.Errorf("got %+v, want 7 people of %s at 0.35", info.Replay, id)
	}
	first := made.id()
	// R115: the exact price leaves out who has opted out since.
	subset(t, "price", w.call("GET", "/api/campaigns/"+first+"/price", "").want(200).body, `{"totalContacts":6,"estimatedCost":0.30,"exclusions":{"invalid":0,"duplicates":0,"optedOut":1}}`)
	if diff := cmp.Diff(people(10, 12, 13, 14, 30, 31), w.frozenPeople(first)); diff != "" {
		t.Errorf("audience (-want +got):\n%s", diff)
	}

	// The message, the name and the time may be changed, sender, route and recipients may not (R147 to R149).
	second := replay(`{"selection":{"status":"delivered","clicked":false},"name":"Reminder","message":"Again","scheduledTime":"2025-04-15T09:00:00Z"}`).want(201)
	subset(t, "second", second.body, `{"name":"Reminder","message":"Again","scheduledTime":"2025-04-15T09:00:00Z"}`)
	path := "/api/campaigns/" + second.id()
	w.call("PUT", path, `{"message":"Changed"}`).want(200)
	list := w.list("others", 1, 1)
	for field, value := range map[string]string{"sender": `"OTHER"`, "route": `"other"`, "contactList": fmt.Sprintf("%q", list), "channel": `"rcs"`} {
		w.call("PUT", path, fmt.Sprintf(`{%q:%s}`, field, value)).problem(409, "fixed_by_replay", field)
	}
	w.call("PUT", path, `{"route":"sim"}`).want(200) // the same
	template := w.call("POST", "/api/templates", `{"name":"promo","channel":"sms","body":"Buy now"}`).want(201).id()
	// Not approved
	replay(fmt.Sprintf(`{"statuses":["Delivered"],"templateId":%q}`, template)).problem(422, "invalid_value", "templateId")
	for _, verb := range []string{"submit", "approve"} {
		w.callAs(w.newKey(w.tenant.ID, store.Scopes, false), "POST", "/api/templates/"+template+"/"+verb, "").want(200)
	}
	subset(t, "imported", replay(fmt.Sprintf(`{"statuses":["Delivered"],"templateId":%q}`, template)).want(201).body, `{"message":"Buy now"}`)

	for body, field := range map[string]string{
		`{}`: "statuses", `{"statuses":["Gone"]}`: "statuses[0]", `{"subStatuses":["X"]}`: "subStatuses[0]", `{"subStatuses":["BARRED"]}`: "selection",
		`{"selection":{"status":"x"}}`: "selection.status", `{"selection":{},"statuses":["Sent"]}`: "selection", `{"statuses":["Sent"],"message":"a","templateId":"b"}`: "templateId",
	} {
		if got := replay(body).want(422).object()["field"]; got != field {
			t.Errorf("%s: got field %v, want %s", body, got, field)
		}
	}

	// R151: a replay of the replay, and the lineage.
	w.call("POST", "/api/campaigns/"+first+"/start", "").want(200)
	w.move(first, func(ch *schemas.Change) { ch.To, ch.Trigger = schemas.StateSending, schemas.TriggerDeal })
	w.happened(w.tenant.ID, first, 0, 2, schemas.KindDelivered, schemas.CodeDelivered)
	w.complete(first)
	w.clock.forward(25 * time.Hour)
	third := w.call("POST", "/api/campaigns/"+first+"/replay", `{"statuses":["Delivered"],"sendImmediately":true}`).want(201).id()
	if diff := cmp.Diff(people(10), w.frozenPeople(third)); diff != "" { // 11 has opted out
		t.Errorf("audience of the replay's replay (-want +got):\n%s", diff)
	}
	lineage := func(id string) (up, down []string) {
		t.Helper()
		var out struct {
			ReplayOf, Replays []struct{ CampaignID, ReplayOf string }
		}
		w.call("GET", "/api/campaigns/"+id+"/replays", "").want(200).into(&out)
		for _, r := range out.ReplayOf {
			up = append(up, r.ReplayOf)
		}
		for _, r := range out.Replays {
			down = append(down, r.CampaignID)
		}
		return up, down
	}
	if up, _ := lineage(third); !cmp.Equal(up, []string{first, id}) {
		t.Errorf("%s replays %v, want %s and %s", third, up, first, id)
	}
	if _, down := lineage(id); len(down) != 4 || down[3] != third {
		t.Errorf("replays of %s: got %v, want three and the replay of one", id, down)
	}
	_, other := w.newTenant("Other")
	for _, method := range []string{"GET", "POST"} {
		// P7
		w.callAs(other, method, "/api/campaigns/"+id+"/replay", map[string]string{"POST": `{"statuses":["Sent"]}`}[method]).problem(404, "not_found", "")
	}
	// R148: the tenant's default route is another one by now, and the replay keeps that of its original.
	_, err := w.store.UpdateTenant(t.Context(), w.tenant.ID, 0, func(tn *store.Tenant) error { tn.DefaultSender = "NEWNAME"; return nil })
	w.check(err)
	kept := replay(`{"statuses":["Delivered"]}`).want(201).object()["sender"]
	if kept == "NEWNAME" {
		t.Errorf("got the tenant's new sender, want that of the original")
	}
}
