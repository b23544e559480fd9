package api_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"fanfare/api"
	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
)

const sendPath = "/api/message-server/sms/send"

// messages reads what is on the transactional lane.
func (w *env) messages() []*fanfarev1.Message {
	w.Helper()
	var out []*fanfarev1.Message
	for _, r := range w.records(w.names.Messages("sim", schemas.LaneTxn)) {
		m := &fanfarev1.Message{}
		w.check(proto.Unmarshal(r.Value, m))
		out = append(out, m)
	}
	return out
}

// R103, X4: one message is one record on the transactional lane, whole, before the answer.
func TestSend(t *testing.T) {
	w := newEnv(t)
	var sent api.SendResult
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	w.call("POST", sendPath, docSend, header{"Traceparent", trace}).want(200).into(&sent)
	records := w.records(w.names.Messages("sim", schemas.LaneTxn))
	if len(records) != 1 || len(sent.Results) != 1 || !sent.Results[0].Accepted {
		t.Fatalf("got %d records and %+v, want one of each, accepted", len(records), sent)
	}
	m := w.messages()[0]
	id, err := schemas.ParseID(sent.MessageID)
	w.check(err)
	sub := w.keys.Submission(m.GetCampaignNumber(), m.GetSeq(), 1)
	if w.keys.Verify(id) != nil || id.CampaignNumber() != m.GetCampaignNumber() || id.Seq() != m.GetSeq() || sent.CustomerMessageID != sent.MessageID {
		t.Errorf("ids: got %s of message %d/%d, customer %s", sent.MessageID, m.GetCampaignNumber(), m.GetSeq(), sent.CustomerMessageID)
	}
	r := records[0]
	if got, want := string(r.Key), w.tenant.ID+"/+393901234567"; got != want {
		t.Errorf("key: got %q, want %q", got, want)
	}
	for name, want := range map[string]string{
		"ce_id": sub.String(), "ce_type": string(schemas.TypeMessage), "ce_source": "api", "tenant": w.tenant.ID, schemas.HeaderSubmission: sub.String(),
		schemas.HeaderTraceparent: trace,
	} {
		if got := string(schemas.Header(r, name)); got != want {
			t.Errorf("header %s: got %q, want %q", name, got, want)
		}
	}
	hidden, err := w.store.Campaign(t.Context(), w.tenant.ID, m.GetCampaignId())
	w.check(err)
	want := &fanfarev1.Message{
		Tenant: w.tenant.ID, CampaignId: hidden.ID(), CampaignNumber: hidden.Number, CampaignVersion: hidden.Version, Seq: m.GetSeq(), Try: 1, Leg: 1,
		Channel: schemas.ChannelSMS, Route: "sim", Sender: "FANFARE", To: "+393901234567", Country: "IT", Segments: 1, PriceMicros: 50_000, Currency: "EUR",
		Body:       &fanfarev1.Message_Text{Text: &fanfarev1.Text{Body: "Order confirmed. Tracking: https://example.com/track/12345", Encoding: schemas.EncodingGSM7}},
		NotAfterMs: start.Add(24 * time.Hour).UnixMilli(), Zone: "Europe/Rome",
	}
	if !proto.Equal(m, want) {
		t.Errorf("message: got %v, want %v", m, want)
	}
	if !hidden.Hidden || hidden.Total != 1000 {
		t.Errorf("campaign of single sends: got hidden %v total %d, want true 1000", hidden.Hidden, hidden.Total)
	}
	w.call("GET", "/api/campaigns/"+hidden.ID(), "").problem(404, "not_found", "")
	subset(t, "hidden", w.call("GET", "/api/campaigns", "").body, `{"total":0}`)
}

// X4, C26: both ways to say it.
func TestSendSpellings(t *testing.T) {
	w := newEnv(t)
	for _, body := range []string{
		`{"phoneNumber":"3331234567","message":"m"}`, `{"destination":"+393331234567","body":"m","senderName":"ACME"}`,
		`{"destinations":["+39 333 123 4567"],"message":"m","sender":"+393330000000"}`, `{"phoneNumber":["+393331234567"],"body":"m","messageId":"ref 1"}`,
		`{"destination":"+393331234567","message":"Hello {{name}}","variables":{"name":"Anna"}}`, `{"destination":"+393331234567","message":"Hello {{name}}","placeholders":{"name":"Anna"}}`,
		`{"destination":"+393331234567","message":"{{kept as written","enableNotification":true}`,
	} {
		w.call("POST", sendPath, body).want(200)
	}
	var texts []string
	for _, m := range w.messages() {
		if m.GetTo() != "+393331234567" {
			t.Errorf("to: got %s, want +393331234567", m.GetTo())
		}
		texts = append(texts, m.GetText().GetBody())
	}
	if got := strings.Join(texts, "|"); strings.Count(got, "Hello Anna") != 2 || !strings.Contains(got, "{{kept as written") {
		t.Errorf("texts: got %q", got)
	}
	for body, field := range map[string]string{
		`{"message":"m"}`: "phoneNumber", `{"phoneNumber":"+393331234567"}`: "message", `{"phoneNumber":"+393331234567","message":""}`: "message",
		`{"phoneNumber":"+393331234567","destination":"+393331234567","message":"m"}`: "destination", `{"phoneNumber":"+393331234567","message":"m","body":"m"}`: "body",
		`{"phoneNumber":[],"message":"m"}`: "phoneNumber", `{"phoneNumber":"+393331234567","message":"m","sender":"A sender too long"}`: "sender",
		`{"phoneNumber":"+393331234567","message":"m","messageId":""}`: "messageId", `{"phoneNumber":"+393331234567","message":"{{a}}","variables":{"b":"c"}}`: "variables",
		`{"phoneNumber":"+393331234567","message":"{{a","variables":{"b":"c"}}`:                "message",
		`{"phoneNumber":"+393331234567","message":"m","variables":{},"placeholders":{}}`:       "placeholders",
		`{"phoneNumber":"+393331234567","message":"m","templateId":"t"}`:                       "templateId",
		`{"phoneNumber":"+393331234567","message":"m","scheduledDate":"2025-03-01T00:00:00Z"}`: "scheduledDate",
		`{"phoneNumber":"+393331234567","message":"m","scheduledDate":"2025-06-01T00:00:00Z"}`: "scheduledDate",
		`{"phoneNumber":"+393331234567","message":"` + strings.Repeat("x", 460) + `"}`:         "message",
		`{"phoneNumber":{"a":1},"message":"m"}`:                                                "phoneNumber",
		`{"phoneNumber":["+393331234567",7],"message":"m"}`:                                    "phoneNumber[1]",
	} {
		if got := w.call("POST", sendPath, body).want(422).object()["field"]; got != field {
			t.Errorf("%s: got field %v, want %s", body, got, field)
		}
	}
	if got := len(w.messages()); got != 7 {
		t.Errorf("after refusals: got %d messages, want the 7 from before", got)
	}
}

// X4: up to 1,000 destinations, each with its own fate, all in one request; ids are unique across blocks of seqs.
func TestSendMany(t *testing.T) {
	w := newEnv(t)
	w.relay()
	w.call("POST", "/api/suppressions", fmt.Sprintf(`{"phoneNumber":%q}`, phoneOf(3))).want(201)
	body := fmt.Sprintf(`{"destinations":[%q,"nonsense",%q,%q,%q,"+390"],"message":"Ciao 😀","messageId":"order-7"}`, phoneOf(1), phoneOf(2), phoneOf(1), phoneOf(3))
	var sent api.SendResult
	w.call("POST", sendPath, body).want(200).into(&sent)
	want := []string{"", "INVALID_NUMBER", "", "DUPLICATE_RECIPIENT", "OPTED_OUT", "INVALID_NUMBER"}
	for i, d := range sent.Results {
		if got := strings.Join(d.Reasons, ","); got != want[i] || d.Accepted != (want[i] == "") || (d.MessageID != nil) != d.Accepted || !d.Unicode || d.Parts != 1 {
			t.Errorf("destination %d: got %+v, want reason %q", i, d, want[i])
		}
	}
	if sent.CustomerMessageID != "order-7" || sent.MessageID != *sent.Results[0].MessageID {
		t.Errorf("got %s and %s, want the reference and the first id", sent.CustomerMessageID, sent.MessageID)
	}
	w.call("POST", sendPath, `{"destinations":["nonsense","+390"],"message":"m"}`).problem(422, "invalid_number", "destinations[0]")
	w.call("POST", sendPath, fmt.Sprintf(`{"phoneNumber":%q,"message":"m"}`, phoneOf(3))).problem(422, "opted_out", "phoneNumber")
	if p := w.call("POST", sendPath, fmt.Sprintf(`{"destinations":[%q,%q],"message":"m"}`, phoneOf(3), phoneOf(3))).problem(422, "opted_out", "destinations[0]"); strings.Contains(fmt.Sprint(p), "destinations[1]") {
		t.Errorf("got %v, want nothing said of the repetition", p)
	}

	seen := map[string]bool{}
	for i := range 5 { // 2,500 of blocks of 1,000
		numbers := make([]string, 500)
		for j := range numbers {
			numbers[j] = phoneOf(10_000 + i*500 + j)
		}
		b, _ := json.Marshal(map[string]any{"destinations": numbers, "message": "m"})
		var many api.SendResult
		w.call("POST", sendPath, string(b)).want(200).into(&many)
		w.clock.forward(time.Second) // at 2,000/s they are sent
		for _, d := range many.Results {
			if d.MessageID == nil || seen[*d.MessageID] {
				t.Fatalf("got id %v, want an id of its own", d.MessageID)
			}
			seen[*d.MessageID] = true
		}
	}
	if got := len(w.messages()); got != 2502 {
		t.Errorf("records: got %d, want 2502", got)
	}
	b, _ := json.Marshal(map[string]any{"destinations": make([]string, 1001), "message": "m"})
	w.call("POST", sendPath, string(b)).problem(422, "invalid_value", "destinations")
	// Another day is another campaign.
	first := w.messages()[0].GetCampaignId()
	w.clock.forward(24 * time.Hour)
	w.call("POST", sendPath, docSend).want(200)
	later := false
	for _, m := range w.messages() {
		later = later || m.GetCampaignId() != first
	}
	if !later {
		t.Error("next day: got the same campaign of single sends, want another")
	}
}

// X4: a message for later waits in held.
func TestSendScheduled(t *testing.T) {
	w := newEnv(t)
	var sent api.SendResult
	w.call("POST", sendPath, `{"phoneNumber":"+393331234567","message":"m","scheduledDate":"2025-04-03T09:00:00Z"}`).want(200).into(&sent)
	records := w.records(w.names.Held())
	if len(records) != 1 || len(w.messages()) != 0 {
		t.Fatalf("got %d held and %d messages, want 1 and 0", len(records), len(w.messages()))
	}
	held := &fanfarev1.Held{}
	w.check(proto.Unmarshal(records[0].Value, held))
	due := start.Add(48 * time.Hour)
	if held.GetMessage().GetTry() != 0 {
		t.Errorf("held: got try %d, want 0: it was never dealt", held.GetMessage().GetTry())
	}
	if held.GetDueMs() != due.UnixMilli() || held.GetMessage().GetNotBeforeMs() != due.UnixMilli() || held.GetMessage().GetNotAfterMs() != due.Add(24*time.Hour).UnixMilli() {
		t.Errorf("held: got %v, want due at %v", held, due)
	}
	if got, want := string(records[0].Key), w.tenant.ID+"/"+sent.MessageID; got != want {
		t.Errorf("key: got %q, want %q", got, want)
	}
}

// X14: simulation and test keys reach the simulator only; without it they reach no one.
func TestSendSimulation(t *testing.T) {
	w := newEnv(t)
	subset(t, "simulation", w.call("POST", sendPath, `{"phoneNumber":"+393331234567","message":"m","simulation":true}`).want(200).body, `{"simulation":true}`)
	subset(t, "test key", w.callAs(w.newKey(w.tenant.ID, nil, true), "POST", sendPath, docSend).want(200).body, `{"simulation":true}`)
	for _, m := range w.messages() {
		if !m.GetTest() || m.GetPriceMicros() != 0 {
			t.Errorf("message: got test %v price %d, want true and nothing to pay", m.GetTest(), m.GetPriceMicros())
		}
	}
	_, err := w.store.UpdateRoute(t.Context(), "sim", 0, func(r *store.Route) error { r.Connector = "smpp"; return nil })
	w.check(err)
	w.clock.forward(3 * time.Second)
	w.call("POST", sendPath, `{"phoneNumber":"+393331234567","message":"m","simulation":true}`).want(422)
	subset(t, "live", w.call("POST", sendPath, docSend).want(200).body, `{"simulation":false}`)
}

// X12: a key's first answer is given again; another body is refused; nothing is produced twice, however many ask at
// once.
func TestSendIdempotency(t *testing.T) {
	w := newEnv(t)
	key := header{"Idempotency-Key", "order-1"}
	first := w.call("POST", sendPath, docSend, key).want(200)
	again := w.call("POST", sendPath, docSend, key).want(200)
	if string(first.body) != string(again.body) || again.header.Get("Idempotent-Replayed") != "true" || again.header.Get("Content-Type") != first.header.Get("Content-Type") {
		t.Errorf("again: got %s %v, want the first answer %s", again.body, again.header, first.body)
	}
	w.call("POST", sendPath, `{"phoneNumber":"+393331234567","message":"other"}`, key).problem(422, "idempotency_mismatch", "")
	_, other := w.newTenant("Other")
	if got := w.callAs(other, "POST", sendPath, docSend, key).want(200); string(got.body) == string(first.body) {
		t.Error("another tenant's key: got this tenant's answer")
	}
	if got := len(w.messages()); got != 2 {
		t.Fatalf("messages: got %d, want one of each tenant", got)
	}
	// Thirty requests with one key at once: one sends, and the others get the same ids or an answer that says to wait.
	race := header{"Idempotency-Key", "race"}
	var wg sync.WaitGroup
	ids := make([]string, 30)
	for i := range ids {
		wg.Go(func() {
			a := w.call("POST", sendPath, docSend, race)
			switch a.status {
			case 200:
				var sent api.SendResult
				if json.Unmarshal(a.body, &sent) == nil {
					ids[i] = sent.MessageID
				}
			case 409:
			default:
				t.Errorf("race: got %d %s, want 200 or 409", a.status, a.body)
			}
		})
	}
	wg.Wait()
	want := ""
	for _, id := range ids {
		if id != "" && want == "" {
			want = id
		}
		if id != "" && id != want {
			t.Errorf("race: got ids %s and %s, want one", id, want)
		}
	}
	if got := len(w.messages()); got != 3 || want == "" {
		t.Errorf("after the race: got %d messages and id %q, want 3 and one", got, want)
	}
	// What was refused did nothing: the key may be used again.
	fixed := header{"Idempotency-Key", "fixed"}
	w.call("POST", sendPath, `{"phoneNumber":"nonsense","message":"m"}`, fixed).want(422)
	w.call("POST", sendPath, docSend, fixed).want(200)
	w.call("POST", sendPath, docSend, header{"Idempotency-Key", strings.Repeat("k", 256)}).problem(400, "malformed_request", "Idempotency-Key")
}

// P1, P3, pipeline 3.12: Kafka away: 503; the key keeps its ids, and a request that repeats the key gets them and sends
// nothing.
func TestSendWhileKafkaIsAway(t *testing.T) {
	w := newEnv(t)
	w.call("POST", sendPath, docSend).want(200) // the client knows its partitions
	w.deps.AckTimeout, w.deps.Registry = 300*time.Millisecond, newRegistry()
	w.serve()
	w.kafka.Close()
	key := header{"Idempotency-Key", "k"}
	a := w.call("POST", sendPath, docSend, key)
	p := a.problem(503, "unavailable", "")
	if a.header.Get("Retry-After") == "" || p["retryAfter"] == nil || !strings.Contains(p["fix"].(string), "Idempotency-Key") {
		t.Errorf("503: got %v %v, want Retry-After and what to do", a.header, p)
	}
	var first, second api.SendResult
	w.call("POST", sendPath, docSend, key).want(200).into(&first)
	w.call("POST", sendPath, docSend, key).want(200).into(&second)
	if first.MessageID == "" || first.MessageID != second.MessageID || first.Results[0].Status == nil || *first.Results[0].Status != "pending" {
		t.Errorf("repeated: got %+v and %+v, want one id and its status", first, second)
	}
	w.call("POST", sendPath, docSend).problem(503, "unavailable", "")
}

// A claim whose owner died before it reserved anything is not answered with ids that no message has.
func TestSendAbandonedKey(t *testing.T) {
	w := newEnv(t)
	const body = docSend
	sum := sha(body)
	_, err := w.store.Begin(t.Context(), w.tenant.ID, "POST "+sendPath, "dead", sum)
	w.check(err)
	w.call("POST", sendPath, body, header{"Idempotency-Key", "dead"}).problem(409, "idempotency_in_flight", "")
	w.clock.forward(3 * time.Minute)
	w.call("POST", sendPath, body, header{"Idempotency-Key", "dead"}).want(200)
	if got := len(w.messages()); got != 1 {
		t.Errorf("messages: got %d, want 1", got)
	}
}

// R108, P4: with limited credit each single send reserves its price first.
func TestSendMoney(t *testing.T) {
	w := newEnv(t)
	w.check(w.store.SetCredit(t.Context(), w.tenant.ID, 120_000, false)) // two messages and a bit
	for range 2 {
		w.call("POST", sendPath, docSend).want(200)
	}
	w.call("POST", sendPath, docSend).problem(402, "insufficient_credit", "")
	if got := len(w.messages()); got != 2 {
		t.Errorf("messages: got %d, want 2", got)
	}
	b, err := w.store.Balance(t.Context(), w.tenant.ID)
	if err != nil || b.Reserved != 100_000 {
		t.Errorf("balance: got %+v %v, want 0.10 reserved", b, err)
	}
}

// X12: what is kept of a batch of 1,000 under its Idempotency-Key is at most 20 kB, and answers again byte for byte.
func TestKeptAnswerIsSmall(t *testing.T) {
	w := newEnv(t)
	numbers := make([]string, 1000)
	for i := range numbers {
		numbers[i] = phoneOf(i)
	}
	b, _ := json.Marshal(map[string]any{"destinations": numbers, "message": "Your code is 123456"})
	first := w.call("POST", sendPath, string(b), header{"Idempotency-Key", "batch"}).want(200)
	db, err := sql.Open("sqlite", w.dsn+"?_pragma=busy_timeout(10000)")
	w.check(err)
	defer func() { _ = db.Close() }()
	var kept int
	w.check(db.QueryRowContext(t.Context(), "SELECT LENGTH(response) + COALESCE(LENGTH(reserved), 0) + LENGTH(body_hash) FROM idempotency").Scan(&kept))
	if kept > 20_000 || len(first.body) < 100_000 {
		t.Errorf("got %d bytes kept of an answer of %d, want at most 20,000", kept, len(first.body))
	}
	again := w.call("POST", sendPath, string(b), header{"Idempotency-Key", "batch"}).want(200)
	if !bytes.Equal(again.body, first.body) || again.header.Get("Idempotent-Replayed") == "" {
		t.Errorf("repeated: got another answer")
	}
}

// A tenant may not fill the lane: a second's worth of its share of the route, then 429.
func TestSendBudget(t *testing.T) {
	w := newEnv(t, func(w *env) {
		_, err := w.store.UpdateRoute(t.Context(), "sim", 0, func(r *store.Route) error { r.Rate = 50; return nil })
		w.check(err)
	})
	numbers := make([]string, 150)
	for i := range numbers {
		numbers[i] = phoneOf(i)
	}
	b, _ := json.Marshal(map[string]any{"destinations": numbers, "message": "m"})
	w.call("POST", sendPath, string(b)).want(200)
	a := w.call("POST", sendPath, string(b))
	p := a.problem(429, "rate_limited", "")
	if p["retryAfter"].(float64) != 3 || a.header.Get("Retry-After") != "3" {
		t.Errorf("429: got %v, want to wait 3 s, until the 150 before are sent", p)
	}
	_, other := w.newTenant("Other")
	w.callAs(other, "POST", sendPath, string(b)).want(200) // has its own
	w.clock.forward(5 * time.Second)
	w.call("POST", sendPath, string(b)).want(200)
}

// X5: the status of a message, from the moment that it is accepted, by either reference; everything about it by its id.
func TestMessageStatus(t *testing.T) {
	w := newEnv(t)
	var sent api.SendResult
	w.call("POST", sendPath, `{"destinations":["+393331234567","+393331234568"],"message":"m","messageId":"order-9"}`).want(200).into(&sent)
	id := sent.MessageID
	for _, ref := range []string{id, "order-9"} {
		subset(t, ref, w.call("GET", "/api/messages/status/"+ref, "").want(200).body, `{"status":"pending","state":"pending","sentAt":null,"attempts":0,"campaignId":null}`)
	}
	subset(t, "history", w.call("GET", "/api/messages/"+id, "").want(200).body, `{"status":"pending","events":[]}`)

	parsed, err := schemas.ParseID(id)
	w.check(err)
	campaign := schemas.CampaignID(parsed.CampaignNumber())
	happen := func(kind schemas.Kind, code schemas.Code, raw string) {
		w.clock.forward(time.Second)
		w.check(w.stats.Append(t.Context(), analytics.Batch{Events: []analytics.Event{{
			Campaign: &analytics.Campaign{Tenant: w.tenant.ID, ID: campaign, Month: analytics.MonthOf(w.clock.now())}, TimeMS: w.clock.now().UnixMilli(),
			Seq: parsed.Seq(), Kind: kind, Code: code, RawCode: raw, Channel: schemas.ChannelSMS, Try: 1, Leg: 1, Segments: 1, PriceMicros: 50_000,
			MessageID: parsed, Route: "sim", Sender: "FANFARE", Country: "IT", Currency: "EUR", To: "+393331234567", ProviderID: "p-1", CustomerRef: "order-9",
		}}}))
	}
	happen(schemas.KindSent, schemas.CodeAwaitingDLR, "")
	subset(t, "sent", w.call("GET", "/api/messages/status/"+id, "").body, `{"status":"sent","state":"awaiting","destination":"+393331234567","customerMessageId":"order-9","attempts":1,"sentAt":"2025-04-01T09:00:01Z"}`)
	happen(schemas.KindUndelivered, schemas.CodeAbsentSubscriber, "27")
	var a api.StatusAnswer
	w.call("GET", "/api/messages/status/order-9", "").want(200).into(&a)
	if a.Status != "failed" || *a.SubStatus != "ABSENT_SUBSCRIBER" || *a.RawCode != "27" || *a.Description == "" || len(a.Results) != 2 {
		t.Errorf("by reference: got %+v, want failed/ABSENT_SUBSCRIBER and both messages", a)
	}
	var h api.MessageHistory
	w.call("GET", "/api/messages/"+id, "").want(200).into(&h)
	if len(h.Events) != 2 || h.Events[0].Kind != "sent" || h.Events[1].Kind != "undelivered" || *h.Events[1].ProviderID != "p-1" {
		t.Errorf("history: got %+v, want sent and undelivered", h.Events)
	}
	var many api.StatusesAnswer
	w.call("GET", "/api/messages/status?customerMessageIds=order-9,nobody,"+id, "").want(200).into(&many)
	if len(many.Data) != 2 || len(many.NotFound) != 1 || many.NotFound[0] != "nobody" {
		t.Errorf("several: got %d found and %v, want 2 and \"nobody\"", len(many.Data), many.NotFound)
	}
	forged := parsed
	forged[15] ^= 1
	subset(t, "by the submission's id", w.call("GET", "/api/messages/"+w.keys.Submission(parsed.CampaignNumber(), parsed.Seq(), 1).String(), "").want(200).body, fmt.Sprintf(`{"messageId":%q}`, id))
	for _, path := range []string{"/api/messages/" + forged.String(), "/api/messages/status/nobody", "/api/messages/nobody", "/api/messages/" + w.keys.Message(parsed.CampaignNumber(), 5000).String(), "/api/messages/msg_00000000000000000000000000"} {
		w.call("GET", path, "").problem(404, "not_found", "")
	}
	w.call("GET", "/api/messages/status?customerMessageIds="+strings.Repeat("a,", 100)+"b", "").problem(422, "invalid_value", "customerMessageIds")
	w.call("GET", "/api/messages/status", "").problem(422, "required", "customerMessageIds")
	// P7: another tenant knows none of it.
	_, other := w.newTenant("Other")
	for _, path := range []string{"/api/messages/status/order-9", "/api/messages/status/" + id, "/api/messages/" + id} {
		w.callAs(other, "GET", path, "").problem(404, "not_found", "")
	}
	w.stats.away.Store(true)
	w.call("GET", "/api/messages/status/"+id, "").problem(503, "unavailable", "")
}

// A client that hangs up does not undo what was begun.
func TestSendClientGone(t *testing.T) {
	w := newEnv(t)
	w.call("POST", sendPath, docSend).want(200)
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, w.url+sendPath, strings.NewReader(docSend))
	req.Header.Set("X-Api-Key", w.key)
	req.Header.Set("Idempotency-Key", "gone")
	var wg sync.WaitGroup
	wg.Go(func() {
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	})
	time.Sleep(time.Millisecond) // any time is right: the client may go before, during or after the work
	cancel()
	wg.Wait()
	// The request was never begun, or it is done to its end.
	var status int
	w.eventually("the repeated request is answered with 200", &status, func() bool {
		status = w.call("POST", sendPath, docSend, header{"Idempotency-Key", "gone"}).status
		return status == 200
	})
	if got := len(w.messages()); got != 2 {
		t.Errorf("messages: got %d, want 2", got)
	}
}

// X4: a body written for E's real API is taken whole; what it says that means nothing here is said so.
func TestSendAllFields(t *testing.T) {
	w := newEnv(t)
	a := w.call("POST", sendPath, `{"destination":"+393331234567","body":"Hi {{name}}","sender":"SHOP","variables":{"name":"Zoe"},"messageId":"order-1","campaignId":"camp_9","simulation":true,"enableNotification":false}`).want(200)
	subset(t, "all fields", a.body, `{"customerMessageId":"order-1","simulation":true}`)
	if got := fmt.Sprint(a.object()["warning"]); !strings.Contains(got, "campaignId") {
		t.Errorf("got warning %s, want campaignId named", got)
	}
	w.call("POST", sendPath, `{"phoneNumber":"+393331234567","templateId":"t"}`).problem(422, "required", "message")
	w.call("POST", sendPath, `{"phoneNumber":"+393331234567","message":"m","templateId":"t"}`).problem(422, "invalid_value", "templateId")
	p := w.call("POST", sendPath, `{"phoneNumber":"+393331234567","message":"m","scheduledDate":"2020-01-01T00:00:00Z"}`).problem(422, "time_in_past", "scheduledDate")
	if fix := p["fix"].(string); strings.Contains(fix, "sendImmediately") {
		t.Errorf("got fix %q, which names a field that is not there", fix)
	}
}

// X5: of a reference that more messages carry than one answer has, the answer says so.
func TestStatusOfManyMessages(t *testing.T) {
	w := newEnv(t)
	for n, more := range map[int]bool{3: false, 150: true} {
		to := make([]string, n)
		for i := range to {
			to[i] = strconv.Quote(phoneOf(i))
		}
		w.call("POST", sendPath, fmt.Sprintf(`{"destinations":[%s],"message":"m","messageId":"bulk-%d"}`, strings.Join(to, ","), n)).want(200)
		got := w.call("GET", fmt.Sprintf("/api/messages/status/bulk-%d", n), "").want(200).object()
		if results := got["results"].([]any); len(results) != min(n, 100) || got["more"] != more {
			t.Errorf("%d messages: got %d results, more %v, want %v", n, len(results), got["more"], more)
		}
	}
}
