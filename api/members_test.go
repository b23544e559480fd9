package api_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// audienceOf makes a campaign of n people, with names and e-mail addresses, that is being sent.
func (w *env) audienceOf(n int) string {
	w.Helper()
	w.lists++
	list := w.call("POST", "/api/contacts/list", fmt.Sprintf(`{"name":"people %d"}`, w.lists)).want(201).id()
	var csv strings.Builder
	csv.WriteString("phone,first_name,last_name,email\n")
	for i := range n {
		fmt.Fprintf(&csv, "%s,Name%d,Rossi %c,name%d@Example.com\n", phoneOf(500_000+10_000*w.lists+i), i, 'A'+i%26, i)
	}
	w.call("POST", "/api/contacts/list/"+list+"/import", csv.String(), header{"Content-Type", "text/csv"}).want(200)
	id := w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"C","channel":"sms","message":"Hello","contactList":%q,"sendImmediately":true}`, list)).want(201).id()
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	w.freeze(id, uint32(n))
	return id
}

type memberRow struct {
	Seq                                      uint32
	MessageID                                string
	Name, Phone, Email, Disposition, Channel *string
	Error, RawCode                           *string
	Status, State                            string
	Attempts, Segments, Variant              int
	Cost                                     float64
	Clicked                                  bool
	SentAt, DeliveredAt                      *string
}

type memberPage struct {
	Data  []memberRow
	Total *int
	Next  *string
}

func (w *env) members(campaign, query string) (out memberPage) {
	w.Helper()
	w.call("GET", "/api/campaigns/"+campaign+"/members?"+query, "").want(200).into(&out)
	return out
}

func seqsOf(rows []memberRow) (out []uint32) {
	for i := range rows {
		out = append(out, rows[i].Seq)
	}
	return out
}

// sentAndAnswered: of 40 people 0 to 29 were sent to, 0 to 9 delivered, 10 to 14 failed, 30 to 31 not sent, 32 skipped,
// 33 ambiguous.
func (w *env) sentAndAnswered() string {
	w.Helper()
	id := w.audienceOf(40)
	w.happened(w.tenant.ID, id, 0, 30, schemas.KindSent, schemas.CodeAwaitingDLR)
	w.clock.forward(time.Minute)
	w.happened(w.tenant.ID, id, 0, 10, schemas.KindDelivered, schemas.CodeDelivered)
	w.happened(w.tenant.ID, id, 10, 15, schemas.KindUndelivered, schemas.CodeAbsentSubscriber)
	w.happened(w.tenant.ID, id, 30, 32, schemas.KindNotSent, schemas.CodeInvalidNumber)
	w.happened(w.tenant.ID, id, 32, 33, schemas.KindSkipped, schemas.CodeOptedOut)
	w.happened(w.tenant.ID, id, 33, 34, schemas.KindAmbiguous, schemas.CodeCrash)
	return id
}

// R124 to R129, C20: name, number, e-mail address, status, attempts, times, disposition and error of each recipient.
func TestMembers(t *testing.T) {
	w := newEnv(t)
	id := w.sentAndAnswered()
	page := w.members(id, "limit=40")
	if *page.Total != 40 || page.Next != nil || len(page.Data) != 40 {
		t.Fatalf("got total %d, next %v, %d rows, want 40 on one page", *page.Total, page.Next, len(page.Data))
	}
	m := page.Data[12]
	if *m.Name != "Name12 Rossi M" || *m.Email != "name12@Example.com" || !strings.HasPrefix(*m.Phone, "+39333") {
		t.Errorf("got %s, %s, %s, want the person of the audience", *m.Name, *m.Phone, *m.Email)
	}
	if m.Status != "failed" || m.State != "undelivered" || *m.Disposition != "ABSENT_SUBSCRIBER" || m.Error == nil || m.Attempts != 1 || m.SentAt == nil || m.DeliveredAt != nil {
		t.Errorf("a failed one: got %+v", m)
	}
	if m.Segments != 1 || m.Cost != 0.05 || m.Clicked {
		t.Errorf("a failed one: got %d segments, cost %v, clicked %v, want 1, 0.05, false", m.Segments, m.Cost, m.Clicked)
	}
	if m := page.Data[3]; m.Status != "delivered" || m.DeliveredAt == nil || m.Error != nil || *m.Channel != "sms" {
		t.Errorf("a delivered one: got %+v", m)
	}
	if m := page.Data[39]; m.Status != "pending" || m.Name == nil || m.Disposition != nil || m.Attempts != 0 || m.Cost != 0 {
		t.Errorf("one who was not sent to: got %+v", m)
	}
	if m := page.Data[33]; m.Status != "sent" || m.State != "ambiguous" {
		t.Errorf("an ambiguous one: got %+v", m)
	}
	for query, want := range map[string][]uint32{
		"status=failed":                             {10, 11, 12, 13, 14, 30, 31, 32},
		"status=undelivered,skipped":                {10, 11, 12, 13, 14, 32},
		"status=sent&limit=3":                       {15, 16, 17},
		"subStatus=INVALID_NUMBER":                  {30, 31},
		"clicked=true":                              nil,
		"channel=rcs":                               nil,
		"variant=0&status=ambiguous":                {33},
		"search=rossi+m&limit=10":                   {12, 38},
		"search=NAME3%40example":                    {3},
		"search=name1&status=delivered":             {1},
		"search=" + url.QueryEscape((*m.Phone)[3:]): {12},
		"search=" + url.QueryEscape("0039 "+(*m.Phone)[3:6]+" "+(*m.Phone)[6:]): {12},
		"search=nobody": nil,
		"selection=" + url.QueryEscape(`{"or":[{"subStatus":"OPTED_OUT"},{"status":"notSent"}]}`):                       {30, 31, 32},
		"status=failed&selection=" + url.QueryEscape(`{"not":{"time":{"event":"sent","from":"2025-04-01T00:00:00Z"}}}`): {30, 31, 32},
	} {
		if diff := cmp.Diff(want, seqsOf(w.members(id, query).Data)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
	for query, field := range map[string]string{
		"status=Sent": "status", "subStatus=X": "subStatus", "variant=a": "variant", "country=Italy": "country", "cursor=x": "cursor",
		"selection=" + url.QueryEscape(`{"and":[{"stat":1}]}`): "selection.and[0].stat", "selection=x": "selection",
	} {
		w.call("GET", "/api/campaigns/"+id+"/members?"+query, "").problem(422, "invalid_value", field)
	}
	_, other := w.newTenant("Other")
	w.callAs(other, "GET", "/api/campaigns/"+id+"/members", "").problem(404, "not_found", "") // P7
	draft := w.campaign(1, "")
	if page := w.members(draft, ""); len(page.Data) != 0 || *page.Total != 0 {
		t.Errorf("a campaign without an audience: got %+v", page)
	}
}

// Pages skip and repeat no recipient while states change, with a filter and with a search.
func TestMembersCursor(t *testing.T) {
	w := newEnv(t)
	id := w.audienceOf(57)
	for _, query := range []string{"limit=10&status=pending", "limit=10", "limit=10&search=rossi", "limit=1", "limit=57", "limit=56"} {
		var seen []uint32
		next := ""
		for range 60 {
			page := w.members(id, query+next)
			seen = append(seen, seqsOf(page.Data)...)
			if page.Next == nil {
				break
			}
			next = "&cursor=" + *page.Next
			// Those seen already are delivered meanwhile.
			w.happened(w.tenant.ID, id, 0, seen[len(seen)-1]+1, schemas.KindDelivered, schemas.CodeDelivered)
		}
		if len(seen) != 57 || !slices.IsSorted(seen) || len(slices.Compact(slices.Clone(seen))) != len(seen) {
			t.Errorf("%s: got %v, want 57 people once each", query, seen)
		}
	}
}

// X17, C24: one recipient with its whole history: one message, its tries and legs, and each decision about it with its evidence.
func TestMemberHistoryAndWhy(t *testing.T) {
	w := newEnv(t)
	id := w.audienceOf(3)
	w.clock.forward(time.Second)
	w.dealt(id, 1, 1, 0, 3)
	w.clock.forward(time.Second)
	w.happened(w.tenant.ID, id, 1, 2, schemas.KindReturned, schemas.CodeWindow)
	w.clock.forward(time.Hour)
	w.dealt(id, 2, 2, 1, 2)
	w.clock.forward(time.Second)
	number, err := schemas.CampaignNumber(id)
	w.check(err)
	c := &analytics.Campaign{Tenant: w.tenant.ID, ID: id, Month: analytics.MonthOf(w.clock.now())}
	event := func(kind schemas.Kind, code schemas.Code, raw string) {
		t.Helper()
		w.clock.forward(time.Second)
		w.check(w.stats.Append(t.Context(), analytics.Batch{Events: []analytics.Event{{
			Campaign: c, TimeMS: w.clock.now().UnixMilli(), Seq: 1, Kind: kind, Code: code, RawCode: raw, Channel: schemas.ChannelSMS, Try: 2, Leg: 1, Segments: 2,
			PriceMicros: 50_000, Route: "sim", Sender: "FANFARE", ProviderID: "p-1", MessageID: w.keys.Message(number, 1),
		}}}))
	}
	event(schemas.KindSent, schemas.CodeAwaitingDLR, "")
	event(schemas.KindUndelivered, schemas.CodeAbsentSubscriber, "err:027")

	var detail struct {
		memberRow
		Events []struct{ Kind, RawCode string }
		Deals  []struct{ Number, Try int }
	}
	w.call("GET", "/api/campaigns/"+id+"/members/1", "").want(200).into(&detail)
	if detail.Status != "failed" || *detail.RawCode != "err:027" || detail.Cost != 0.1 || detail.Segments != 2 || !strings.Contains(*detail.Error, "err:027") {
		t.Errorf("got %+v, want a failed member with the carrier's code", detail.memberRow)
	}
	if len(detail.Events) != 3 || detail.Events[2].RawCode != "err:027" || len(detail.Deals) != 2 || detail.Deals[1].Try != 2 {
		t.Errorf("got events %+v and deals %+v, want 3 and 2", detail.Events, detail.Deals)
	}
	w.call("GET", "/api/campaigns/"+id+"/members/3", "").problem(404, "not_found", "")

	var why struct {
		Status, Conclusion string
		Decisions          []struct {
			Time                   *string
			By, Decision, Sentence string
			Evidence               map[string]any
		}
	}
	w.call("GET", "/api/messages/"+detail.MessageID+"/why", "").want(200).into(&why)
	var got []string
	for _, d := range why.Decisions {
		got = append(got, d.By+": "+d.Decision)
		if d.Sentence == "" || d.Time == nil {
			t.Errorf("%s: got sentence %q at %v, want both", d.Decision, d.Sentence, d.Time)
		}
	}
	want := []string{
		"person: campaign configured", "person: campaign preparing", "freeze: frozen", "scheduler: campaign sending", "scheduler: dealt", "sender: held back",
		"scheduler: dealt", "sender: handed over", "carrier: not delivered",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("decisions (-want +got):\n%s", diff)
	}
	if e := why.Decisions[2].Evidence; e["list"] == nil || e["contactId"] == nil {
		t.Errorf("frozen: got evidence %v, want list and contact", e)
	}
	if e := why.Decisions[7].Evidence; e["route"] != "sim" || e["try"] != 2.0 || e["price"] != 0.1 || e["submissionId"] != w.keys.Submission(number, 1, 2).String() {
		t.Errorf("handed over: got evidence %v", e)
	}
	if e := why.Decisions[8].Evidence; e["rawCode"] != "err:027" || e["subStatus"] != "ABSENT_SUBSCRIBER" {
		t.Errorf("receipt: got evidence %v", e)
	}
	if why.Status != "failed" || !strings.Contains(why.Conclusion, "not delivered") {
		t.Errorf("got status %s, conclusion %q", why.Status, why.Conclusion)
	}
	w.call("GET", "/api/messages/"+w.keys.Submission(number, 1, 2).String()+"/why", "").want(200)
	w.call("GET", "/api/messages/"+w.keys.Message(number, 0).String()+"/why", "").want(200).into(&why)
	if !strings.Contains(why.Conclusion, "on its way") {
		t.Errorf("one who was dealt: got %q", why.Conclusion)
	}
	_, other := w.newTenant("Other")
	w.callAs(other, "GET", "/api/messages/"+detail.MessageID+"/why", "").problem(404, "not_found", "")
}

// R144, R115: the preview counts whom a selection selects and what sending to them costs.
func TestSelectionPreview(t *testing.T) {
	w := newEnv(t)
	id := w.sentAndAnswered()
	path := "/api/campaigns/" + id + "/selection"
	subset(t, "failed", w.call("POST", path, `{"selection":{"status":["undelivered","notSent"]}}`).want(200).body, `{"count":7,"total":40,"estimatedCost":0.35,"currency":"EUR"}`)
	subset(t, "everybody", w.call("POST", path, `{"selection":{}}`).want(200).body, `{"count":40}`)
	subset(t, "not", w.call("POST", path, `{"selection":{"not":{"clicked":true},"status":"delivered"}}`).want(200).body, `{"count":10,"selection":{"not":{"clicked":true},"status":"delivered"}}`)
	w.call("POST", path, `{"selection":{"or":[{"status":"sent"},{"channel":"fax"}]}}`).problem(422, "invalid_value", "selection.or[1].channel")
	w.call("POST", path, `{"selection":{"status":"sent","status":"sent"}}`).want(400)
	w.call("POST", path, `{}`).problem(422, "required", "selection")
	w.callAs(w.newKey(w.tenant.ID, []store.Scope{store.ScopeRead}, false), "POST", path, `{"selection":{}}`).want(200)
}
