package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"fanfare/api"
	"fanfare/api/store"
	"fanfare/sinks/analytics"
)

// testKeyCase is one operation, as a test key sees it.
type testKeyCase struct {
	path, body string
	// refused: on real data it is 403 test_key, and nothing changes. Always: on test data as well.
	refused, always bool
}

// X14: a test key changes test data only. The table has every operation of the API, asked for on real data and on test
// data, with a live key and with a test key; an operation that is added without a word about test keys refuses them.
func TestKeysTimesRoutes(t *testing.T) {
	w := newEnv(t)
	w.relay()
	w.runJobs(w.server)
	testKey := w.newKey(w.tenant.ID, store.Scopes, true)
	_, err := w.store.UpdateTenant(t.Context(), w.tenant.ID, 0, func(tn *store.Tenant) error { tn.MaxActive = 1000; return nil })
	w.check(err)
	// Imports wait for erasures, and erasures for the statistics.
	w.check(w.stats.Mark(t.Context(), analytics.TopicID{1}, []analytics.Mark{{AsOf: w.clock.now().Add(time.Hour)}}))
	type data struct{ list, campaign, scheduled, contact, imported, exported, segment string }
	n := 0
	fresh := func(key string) (d data) {
		n++
		d.list = w.callAs(key, "POST", "/api/contacts/list", fmt.Sprintf(`{"name":"list of case %d"}`, n)).want(201).id()
		d.contact = w.callAs(key, "POST", "/api/contacts", fmt.Sprintf(`{"phoneNumber":%q,"listIds":[%q]}`, phoneOf(5000+n), d.list)).want(201).id()
		make := func(more string) string {
			return w.callAs(key, "POST", "/api/campaigns", fmt.Sprintf(`{"name":"C","channel":"sms","message":"Hello","contactList":%q%s}`, d.list, more)).want(201).id()
		}
		var erasures string
		w.eventually("no erasure runs", &erasures, func() bool {
			erasures = string(w.call("GET", "/api/erasures", "").want(200).body)
			return !strings.Contains(erasures, `"status":"running"`)
		})
		d.imported = w.callAs(key, "POST", "/api/contacts/list/"+d.list+"/import", "phone\n"+phoneOf(7000+n)+"\n", csv).want(200).id()
		d.exported = w.callAs(key, "POST", "/api/exports/contacts", "{}").want(202).id()
		segment, _, err := w.store.OrderSegment(t.Context(), store.Job{Tenant: w.tenant.ID, Kind: store.JobSegment, Test: key == testKey, Options: []byte("{}")},
			fmt.Sprintf("segment of case %d", n), key == testKey, nil, 1)
		w.check(err)
		d.segment = segment.ID
		d.campaign, d.scheduled = make(""), make(`,"scheduledTime":"2025-04-15T09:00:00Z"`)
		w.callAs(key, "PUT", "/api/campaigns/"+d.scheduled+"/confirm", "").want(200)
		return d
	}
	cases := func(d data) map[string]testKeyCase {
		c, s := "/api/campaigns/"+d.campaign, "/api/campaigns/"+d.scheduled
		l := "/api/contacts/list/" + d.list
		members := fmt.Sprintf(`{"listId":%q,"contactIds":[%q]}`, d.list, d.contact)
		number := `{"phoneNumber":"+393331230099"}`
		out := map[string]testKeyCase{
			"createCampaign":        {path: "/api/campaigns", body: `{"name":"New","channel":"sms","draft":true}`},
			"updateCampaign":        {path: c, body: `{"name":"Other"}`, refused: true},
			"deleteCampaign":        {path: c, refused: true},
			"confirmCampaign":       {path: c + "/confirm", refused: true},
			"duplicateCampaign":     {path: c + "/duplicate"},
			"calculateGoal":         {path: c + "/calculateGoal"},
			"previewSelection":      {path: c + "/selection", body: `{"selection":{}}`},
			"patchLiveCampaign":     {path: s + "/live", body: `{"rate":5}`, refused: true},
			"unscheduleCampaign":    {path: s + "/unschedule", refused: true},
			"unscheduleCampaignPut": {path: s + "/unschedule", refused: true},
			"pauseCampaign":         {path: s + "/pause", refused: true},
			"pauseCampaignPut":      {path: s + "/pause", refused: true},
			"resumeCampaign":        {path: s + "/resume", refused: true},
			"resumeCampaignPut":     {path: s + "/resume", refused: true},
			"replayCampaign":        {path: s + "/replay", body: `{"statuses":["Delivered"]}`, refused: true},
			"decideAmbiguous":       {path: s + "/ambiguous", body: `{"action":"give_up"}`, refused: true},
			"testSendCampaign":      {path: c + "/test", body: `{"to":["+393331230098"]}`},
			"rescheduleCampaign":    {path: s + "/reschedule", body: `{"scheduledTime":"2025-04-16T09:00:00Z"}`, refused: true},
			"abortCampaign":         {path: s + "/abort", refused: true},
			"abortCampaignPut":      {path: s + "/abort", refused: true},
			"startCampaign":         {path: s + "/start", refused: true},
			"startCampaignPut":      {path: s + "/start", refused: true},

			"createList":             {path: "/api/contacts/list", body: fmt.Sprintf(`{"name":"made %d"}`, n)},
			"updateList":             {path: l, body: fmt.Sprintf(`{"name":"renamed %d"}`, n), refused: true},
			"deleteList":             {path: l, refused: true},
			"deleteListByQuery":      {path: "/api/contacts/list?id=" + d.list, refused: true},
			"addContactsToList":      {path: "/api/contacts/list/contacts", body: members, refused: true},
			"removeContactsFromList": {path: "/api/contacts/list/contacts", body: members, refused: true},
			"importContacts":         {path: l + "/import", body: `[{"phone":"+393331234599"}]`, refused: true},
			"uploadContacts":         {path: "/api/contacts/upload", body: `[{"phone":"+393331234599"}]`},
			"importMappedFile":       {path: "/api/contacts/mapped/file", body: fmt.Sprintf(`{"uploadId":"upl_none","contactList":%q}`, d.list), refused: true},
			"cancelImport":           {path: "/api/imports/" + d.imported + "/cancel", refused: true},
			"exportDeliveryReports":  {path: "/api/exports/delivery-reports", body: fmt.Sprintf(`{"campaignId":%q}`, d.campaign)},
			"exportMembers":          {path: "/api/exports/members", body: fmt.Sprintf(`{"campaignId":%q}`, d.campaign)},
			"exportContacts":         {path: "/api/exports/contacts", body: `{}`},
			"exportLedgerFile":       {path: "/api/exports/ledger", body: `{}`},
			"exportSuppressionsFile": {path: "/api/exports/suppressions", body: `{}`},
			"deleteExport":           {path: "/api/exports/" + d.exported, refused: true},
			"createCampaignAudit":    {path: c + "/audit", refused: true},
			"createSegment":          {path: c + "/segments", body: `{"name":"S"}`, refused: true},
			"cancelSegment":          {path: "/api/segments/" + d.segment + "/cancel", refused: true},
			"createContact":          {path: "/api/contacts", body: fmt.Sprintf(`{"phoneNumber":%q,"listIds":[%q]}`, phoneOf(9000+n), d.list), refused: true},
			"updateContact":          {path: "/api/contacts/" + d.contact, body: `{"firstName":"X"}`, always: true},
			"updateContactByQuery":   {path: "/api/contacts?id=" + d.contact, body: `{"firstName":"X"}`, always: true},
			"deleteContact":          {path: "/api/contacts/" + d.contact, always: true},
			"deleteContactByQuery":   {path: "/api/contacts?id=" + d.contact, always: true},

			"replyToConversation": {path: "/api/conversations/conv_none/messages", body: `{"message":"Hi"}`, always: true},
			"updateConversation":  {path: "/api/conversations/conv_none", body: `{"state":"closed"}`, always: true},
			"decideOptOutReview":  {path: "/api/opt-out-reviews/1", body: `{"decision":"dismiss"}`, always: true},
			"createSuppression":   {path: "/api/suppressions", body: number, always: true},
			"createErasure":       {path: "/api/erasures", body: number, always: true},
			"deleteSuppression":   {path: "/api/suppressions", body: number, always: true},
			"importSuppressions":  {path: "/api/suppressions/import", body: `[{"phone":"+393331230099"}]`, always: true},
			"renameTag":           {path: "/api/tags/x", body: `{"tag":"y"}`, always: true},
			"deleteTag":           {path: "/api/tags/x", always: true},
			"sendSMS":             {path: sendPath, body: docSend},
		}
		out["addCampaignDomain"] = testKeyCase{path: c + "/domains", body: `{"domains":["x.example"]}`, refused: true}
		// Settings: a test key changes none
		for one, many := range map[string]string{"Template": "templates", "Agent": "agents", "Channel": "channels", "Sender": "senders", "Rate": "prices", "Domain": "domains", "SharedDomain": "shared-domains"} {
			out["create"+one] = testKeyCase{path: "/api/" + many, body: `{}`, always: true}
			out["update"+one] = testKeyCase{path: "/api/" + many + "/x", body: `{}`, always: true}
			out["delete"+one] = testKeyCase{path: "/api/" + many + "/x", always: true}
		}
		for _, verb := range []string{"submit", "approve", "reject", "pause", "disable"} {
			out[verb+"Template"] = testKeyCase{path: "/api/templates/x/" + verb, always: true}
		}
		for _, verb := range []string{"approve", "reject", "disable"} {
			out[verb+"Sender"] = testKeyCase{path: "/api/senders/x/" + verb, always: true}
		}
		for name, path := range map[string]string{"Webhook": "/api/webhooks", "DeliveryStatusWebhook": "/api/webhooks/delivery-status"} {
			out["create"+name] = testKeyCase{path: path, body: `{}`, always: true}
			out["update"+name] = testKeyCase{path: path + "/x", body: `{}`, always: true}
			out["delete"+name] = testKeyCase{path: path + "/x", always: true}
			for _, verb := range []string{"test", "recover", "rotate"} {
				out[verb+name] = testKeyCase{path: path + "/x/" + verb, body: `{}`, always: true}
			}
		}
		out["updatePolicy"] = testKeyCase{path: "/api/policy", body: `{}`, always: true}
		out["importPrices"] = testKeyCase{path: "/api/prices/import", body: "channel,price\n", always: true}
		for op, path := range map[string]string{
			"createTenant": "/api/tenants", "updateTenant": "/api/tenants/x", "disableTenant": "/api/tenants/x/disable", "enableTenant": "/api/tenants/x/enable", "addCredit": "/api/tenants/x/credit", "createKey": "/api/keys",
			"revokeKey": "/api/keys/x", "createUser": "/api/users", "updateUser": "/api/users/x", "linkUser": "/api/users/x/link",
			"createRoute": "/api/routes", "updateRoute": "/api/routes/x", "deleteRoute": "/api/routes/x", "testRoute": "/api/routes/x/test",
			"pauseRoute": "/api/routes/x/pause", "resumeRoute": "/api/routes/x/resume",
		} {
			out[op] = testKeyCase{path: path, body: `{}`, always: true}
		}
		return out
	}
	document, err := api.OpenAPI()
	w.check(err)
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
	}
	w.check(json.Unmarshal(document, &doc))
	seen := 0
	for _, operations := range doc.Paths {
		for method, op := range operations {
			method = strings.ToUpper(method)
			if method == "GET" { // reads are free: what GET price stores is tested below
				continue
			}
			seen++
			if _, ok := cases(data{})[op.OperationID]; !ok {
				t.Errorf("%s %s: no case says what a test key may do", method, op.OperationID)
				continue
			}
			real, made := fresh(w.key), fresh(testKey)
			before := w.snapshotOf(real.campaign, real.scheduled, real.list, real.contact)
			c := cases(real)[op.OperationID]
			got := w.callAs(testKey, method, c.path, c.body)
			if c.refused || c.always {
				got.what = "test key on real data: " + op.OperationID
				got.problem(403, "test_key", "")
			} else {
				got.want(pick2xx(got.status))
			}
			if after := w.snapshotOf(real.campaign, real.scheduled, real.list, real.contact); after != before {
				t.Errorf("test key on real data: %s: got %s, want it unchanged: %s", op.OperationID, after, before)
			}
			c = cases(made)[op.OperationID]
			got = w.callAs(testKey, method, c.path, c.body)
			if code, _ := got.object()["code"].(string); (code == "test_key") != c.always {
				t.Errorf("test key on test data: %s: got %d %s", op.OperationID, got.status, got.body)
			}
			c = cases(fresh(w.key))[op.OperationID]
			if got = w.callAs(w.key, method, c.path, c.body); got.status == 403 && got.object()["code"] != "scope_missing" {
				t.Errorf("live key: %s: got %s", op.OperationID, got.body)
			}
		}
	}
	if seen != len(cases(data{})) {
		t.Errorf("got %d operations that change something, and %d cases", seen, len(cases(data{})))
	}
	real := fresh(w.key)
	w.callAs(testKey, "GET", "/api/campaigns/"+real.campaign+"/price", "").want(200)
	if c, err := w.store.Campaign(t.Context(), w.tenant.ID, real.campaign); err != nil || c.Quote.Version != "" {
		t.Errorf("a price for a test key: got quote %+v, %v; want nothing stored", c.Quote, err)
	}
}

// pick2xx is the status itself if it is a success, else the one that is wanted.
func pick2xx(status int) int {
	if status/100 == 2 {
		return status
	}
	return 200
}

// snapshotOf is what must not change: the rows of a case with their versions.
func (w *env) snapshotOf(campaign, scheduled, list, contact string) string {
	w.Helper()
	var out []string
	for _, path := range []string{"/api/campaigns/" + campaign, "/api/campaigns/" + scheduled, "/api/contacts/list/" + list, "/api/contacts/" + contact} {
		out = append(out, string(w.call("GET", path, "").want(200).body))
	}
	return strings.Join(out, "\n")
}

// X12, X14: a test key and a live key of one tenant may use the same Idempotency-Key: neither gets the answer of the
// other.
func TestIdempotencyKeysOfTestKeys(t *testing.T) {
	w := newEnv(t)
	testKey := w.newKey(w.tenant.ID, nil, true)
	key := header{"Idempotency-Key", "order 17"}
	simulated := w.callAs(testKey, "POST", sendPath, docSend, key).want(200)
	sent := w.call("POST", sendPath, docSend, key).want(200)
	for i, a := range []*answer{simulated, sent} {
		if got := a.object()["simulation"]; got != (i == 0) || a.header.Get("Idempotent-Replayed") != "" {
			t.Errorf("answer %d: got simulation %v, replayed %q", i, got, a.header.Get("Idempotent-Replayed"))
		}
	}
	if again := w.call("POST", sendPath, docSend, key).want(200); string(again.body) != string(sent.body) {
		t.Errorf("repeated: got %s, want %s", again.body, sent.body)
	}
}
