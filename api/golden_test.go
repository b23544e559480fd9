package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"fanfare/schemas"

	"github.com/google/go-cmp/cmp"
)

// Bodies exactly as E documents them: a client that was written for E works.
const (
	docCreate = `{
"name": "Spring Promotion 2025",
"channel": "sms",
"message": "Spring sale is here! 30% off everything. Shop now: https://example.com/spring",
"contactList": "list_12345",
"sendImmediately": false,
"scheduledTime": "2025-04-15T09:00:00Z"
}`
	docUpdate = `{
"name": "Spring Promotion 2025 - Updated",
"message": "New offer text",
"scheduledTime": "2025-04-16T10:00:00Z"
}`
	docGoal      = `{"goalContactCount": 5000}`
	docPromotion = `{
"name": "Spring Sale",
"channel": "sms",
"message": "40% off everything! Code: SPRING2025",
"contactList": "active_customers",
"scheduledTime": "2025-04-15T10:00:00Z"
}`
	docPhaseOne = `{
"name": "Important Update - SMS Phase",
"channel": "sms",
"message": "Account update required. Tap here: https://example.com/update",
"contactList": "all_users",
"sendImmediately": true
}`
	docPhaseTwo = `{
"name": "Important Update - WhatsApp Phase",
"channel": "whatsapp",
"message": "template_id_approved_by_meta",
"contactList": "engaged_users",
"scheduledTime": "2025-04-16T14:00:00Z"
}`
	docSend = `{
"phoneNumber": "+393901234567",
"message": "Order confirmed. Tracking: https://example.com/track/12345"
}`
)

// subset fails unless got has every member of want, with the same value; more members are ours to add.
func subset(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	var g, w map[string]any
	if err := json.Unmarshal(got, &g); err != nil {
		t.Fatalf("%s: got %s: %v", what, got, err)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	for name, v := range w {
		if have, ok := g[name]; !ok {
			t.Errorf("%s: got no member %q, want %v", what, name, v)
		} else if !isSuperset(have, v) {
			t.Errorf("%s: member %q: got %v, want %v", what, name, have, v)
		}
	}
}

// isSuperset allows objects to have more members than wanted.
func isSuperset(have, want any) bool {
	w, ok := want.(map[string]any)
	h, ok2 := have.(map[string]any)
	if !ok || !ok2 {
		return cmp.Equal(have, want)
	}
	for k, v := range w {
		if !isSuperset(h[k], v) {
			return false
		}
	}
	return true
}

// R91 to R102, R104, R105: the whole documented life of a campaign, with E's bodies and E's answers.
func TestDocumentedClient(t *testing.T) {
	w := newEnv(t)
	list := w.list("spring", 20, 0)
	body := strings.Replace(docCreate, "list_12345", list, 1)
	created := w.call("POST", "/api/campaigns", body).want(http.StatusCreated)
	id := created.id()
	if !strings.HasPrefix(id, "camp_") || created.header.Get("Location") != "/api/campaigns/"+id || created.header.Get("ETag") == "" {
		t.Errorf("create: got id %q, Location %q, ETag %q", id, created.header.Get("Location"), created.header.Get("ETag"))
	}
	subset(t, "create", created.body, strings.Replace(body, "}", `,"status":"configured","state":"configured","fallback":false,"startTime":null}`, 1))

	updated := w.call("PUT", "/api/campaigns/"+id, docUpdate).want(http.StatusOK)
	subset(t, "update", updated.body, strings.Replace(docUpdate, "}", fmt.Sprintf(`,"status":"configured","contactList":%q,"channel":"sms"}`, list), 1))

	goal := w.call("POST", "/api/campaigns/"+id+"/calculateGoal", docGoal).want(http.StatusOK)
	subset(t, "calculateGoal", goal.body, `{"totalContacts":5000,"estimatedCost":250.00,"costPerMessage":0.05,"currency":"EUR","estimatedDuration":"3 seconds","basis":"goal"}`)
	if !strings.Contains(string(goal.body), `"estimatedCost":250.00,"costPerMessage":0.05,"currency":"EUR"`) {
		t.Errorf("calculateGoal: got %s, want money with two decimals as E writes it", goal.body)
	}
	subset(t, "priced", w.call("GET", "/api/campaigns/"+id, "").body, `{"status":"cost_calculated"}`)

	price := w.call("GET", "/api/campaigns/"+id+"/price", "").want(http.StatusOK)
	subset(t, "price", price.body, fmt.Sprintf(`{"campaignId":%q,"totalContacts":20,"estimatedCost":1.00,"breakdown":{"sms":{"count":20,"cost":1.00},"rcs":{"count":0,"cost":0},"whatsapp":{"count":0,"cost":0}}}`, id))

	confirmed := w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(http.StatusOK)
	wantConfirm := fmt.Sprintf(`{"id":%q,"status":"confirmed","scheduledTime":"2025-04-16T10:00:00Z","message":"Campaign confirmed. Sending starts at scheduled time."}`, id)
	if diff := cmp.Diff(wantConfirm, string(confirmed.body)); diff != "" {
		t.Errorf("confirm (-want +got):\n%s", diff)
	}
	again := w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(http.StatusOK)
	if string(again.body) != string(confirmed.body) {
		t.Errorf("confirm again: got %s, want the same body %s", again.body, confirmed.body)
	}
	w.call("PUT", "/api/campaigns/"+id, docUpdate).problem(http.StatusConflict, "wrong_state", "")

	stats := w.call("GET", "/api/campaigns/"+id+"/stats", "").want(http.StatusOK)
	subset(t, "stats", stats.body, fmt.Sprintf(`{"campaignId":%q,"name":"Spring Promotion 2025 - Updated","status":"confirmed","totalMessages":0,"sent":0,"delivered":0,"failed":0,"pending":0,"deliveryRate":0,"failureRate":0,"startTime":null}`, id))

	cancelled := w.call("DELETE", "/api/campaigns/"+id, "").want(http.StatusOK)
	subset(t, "cancel", cancelled.body, `{"status":"cancelled","state":"cancelled"}`)
	if cancelled.object()["deletedAt"] == nil {
		t.Error("cancel: got no deletedAt")
	}
}

// E's other use cases: a list by its name, at once, by WhatsApp.
func TestDocumentedUseCases(t *testing.T) {
	w := newEnv(t)
	w.list("active_customers", 3, 0)
	w.list("all_users", 3, 10)
	w.list("engaged_users", 3, 20)
	w.way("Acme on WhatsApp", "whatsapp", "+393331234567")
	w.template("template_id_approved_by_meta", "whatsapp", "Account update required.")
	for _, body := range []string{docPromotion, docPhaseOne, docPhaseTwo} {
		created := w.call("POST", "/api/campaigns", body).want(http.StatusCreated)
		subset(t, "create", created.body, body)
		confirmed := w.call("PUT", "/api/campaigns/"+created.id()+"/confirm", "").want(http.StatusOK)
		if strings.Contains(body, "sendImmediately") {
			subset(t, "confirm", confirmed.body, `{"status":"confirmed","scheduledTime":null,"message":"Campaign confirmed. Sending starts now."}`)
		}
	}
}

// E's curl examples say -d and no content type, which curl sends as a form (R103, R104).
func TestDocumentedCurl(t *testing.T) {
	w := newEnv(t)
	for _, contentType := range []string{"application/x-www-form-urlencoded", "application/json; charset=utf-8", ""} {
		sent := w.call("POST", "/api/message-server/sms/send", docSend, header{"Content-Type", contentType}).want(http.StatusOK)
		subset(t, "send", sent.body, `{"simulation":false}`)
	}
	w.call("POST", "/api/message-server/sms/send", docSend, header{"Content-Type", "application/xml"}).problem(http.StatusUnsupportedMediaType, "unsupported_media_type", "")
	// With no body at all curl -X PUT sends nothing: confirm must not want any.
	id := w.campaign(1, "")
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, w.url+"/api/campaigns/"+id+"/confirm", nil)
	req.Header.Set("X-Api-Key", w.key)
	resp, err := http.DefaultClient.Do(req)
	w.check(err)
	defer func() { _ = resp.Body.Close() }()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		t.Errorf("confirm without a body: got %d %s, want 200", resp.StatusCode, b)
	}
}

// C7: the figures of E's sample, through the API: 2890 and 310 of 3200 sent, of 5000.
func TestGoldenFigures(t *testing.T) {
	w := newEnv(t)
	id := w.campaign(1, `,"sendImmediately":true`)
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	w.freeze(id, 5000)
	w.happened(w.tenant.ID, id, 0, 2890, schemas.KindDelivered, schemas.CodeDelivered)
	w.happened(w.tenant.ID, id, 2890, 3200, schemas.KindUndelivered, schemas.CodeAbsentSubscriber)
	stats := w.call("GET", "/api/campaigns/"+id+"/stats", "").want(200)
	subset(t, "stats", stats.body, `{"totalMessages":5000,"sent":3200,"delivered":2890,"failed":310,"pending":1800,"deliveryRate":0.9031,"failureRate":0.0969,"deliveryRateOfTotal":0.578,"failureRateOfTotal":0.062}`)
	var s struct {
		TotalMessages, Pending, Ambiguous, Sent, NotSent, Skipped, Delivered, Undelivered, Awaiting uint64
		Statuses                                                                                    []struct {
			Status      string
			Count       uint64
			SubStatuses []struct {
				Code, Description string
				Count             uint64
			}
		}
	}
	stats.into(&s)
	if got := s.Pending + s.Ambiguous + s.Sent + s.NotSent + s.Skipped; got != s.TotalMessages {
		t.Errorf("parts: got %d, want the total %d", got, s.TotalMessages)
	}
	if len(s.Statuses) != 2 || s.Statuses[0].SubStatuses[0].Code != "ABSENT_SUBSCRIBER" || s.Statuses[0].SubStatuses[0].Count != 310 || s.Statuses[0].SubStatuses[0].Description == "" {
		t.Errorf("tree: got %+v, want undelivered/ABSENT_SUBSCRIBER 310 and delivered", s.Statuses)
	}
	// R114, R101: what was handed over so far, and when the rest will be.
	w.clock.forward(time.Minute)
	w.happened(w.tenant.ID, id, 3200, 3210, schemas.KindSent, schemas.CodeAwaitingDLR)
	subset(t, "cost", w.call("GET", "/api/campaigns/"+id+"/stats", "").body, `{"cost":0.50,"awaiting":10,"sent":3210}`)
}
