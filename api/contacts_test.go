package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"fanfare/api"
	"fanfare/api/store"
	"fanfare/schemas"
)

var csv = header{"Content-Type", "text/csv"}

// X1: lists.
func TestLists(t *testing.T) {
	w := newEnv(t)
	made := w.call("POST", "/api/contacts/list", `{"name":"  customers  "}`).want(201)
	id := made.id()
	subset(t, "create", made.body, fmt.Sprintf(`{"id":%q,"name":"customers","contacts":0,"isTest":false}`, id))
	w.call("POST", "/api/contacts/list", `{"name":"customers"}`).problem(409, "name_taken", "name")
	w.call("POST", "/api/contacts/list", `{"name":" "}`).problem(422, "required", "name")
	w.call("POST", "/api/contacts/list", `{}`).problem(422, "required", "name")
	w.call("POST", "/api/contacts/list", `{"name":"list_5"}`).problem(422, "invalid_value", "name")
	w.call("POST", "/api/contacts/list", `{"name":"tests","isTest":true}`).want(201)
	subset(t, "all", w.call("GET", "/api/contacts/list", "").body, `{"total":2,"page":0,"limit":10}`)
	subset(t, "search", w.call("GET", "/api/contacts/list?search=CUST", "").body, `{"total":1}`)
	for _, ref := range []string{id, "customers"} {
		subset(t, ref, w.call("GET", "/api/contacts/list/"+ref, "").want(200).body, fmt.Sprintf(`{"id":%q}`, id))
	}
	a := w.call("POST", "/api/contacts", `{"phoneNumber":"333 123 4567","firstName":"Anna"}`).want(201).id()
	b := w.call("POST", "/api/contacts", `{"phoneNumber":"+393331234568"}`).want(201).id()
	members := fmt.Sprintf(`{"listId":"customers","contactIds":[%q,%q]}`, a, b)
	subset(t, "add", w.call("POST", "/api/contacts/list/contacts", members).want(200).body, fmt.Sprintf(`{"listId":%q,"changed":2}`, id))
	subset(t, "add again", w.call("POST", "/api/contacts/list/contacts", members).want(200).body, `{"changed":0}`)
	subset(t, "members", w.call("GET", "/api/contacts/list/customers/contacts?limit=1", "").want(200).body, `{"total":2,"limit":1}`)
	subset(t, "take one out", w.call("DELETE", "/api/contacts/list/contacts", fmt.Sprintf(`{"listId":%q,"contactIds":[%q]}`, id, a)).want(200).body, `{"changed":1}`)
	subset(t, "one left", w.call("GET", "/api/contacts/list/customers/contacts", "").body, `{"total":1}`)
	w.call("POST", "/api/contacts/list/contacts", `{"listId":"customers","contactIds":[]}`).problem(422, "invalid_value", "contactIds")
	w.call("POST", "/api/contacts/list/contacts", `{"listId":"customers","contactIds":["x"]}`).problem(422, "invalid_value", "contactIds")
	w.call("POST", "/api/contacts/list/contacts", fmt.Sprintf(`{"listId":"nobody","contactIds":[%q]}`, a)).problem(404, "not_found", "")
	w.call("DELETE", "/api/contacts/list?id=customers", "").want(200)
	w.call("GET", "/api/contacts/list/"+id, "").problem(404, "not_found", "")
	w.call("DELETE", "/api/contacts/list/"+id, "").problem(404, "not_found", "")
	w.call("GET", "/api/contacts/"+b, "").want(200) // its contacts stay
	subset(t, "change by query", w.call("PUT", "/api/contacts?id="+b, `{"firstName":"Bruno"}`).want(200).body, `{"firstName":"Bruno"}`)
	w.call("PUT", "/api/contacts", `{"firstName":"Bruno"}`).problem(422, "required", "id")
	w.call("PUT", "/api/contacts?id="+b, `{"firstName":"Bruno"}`, header{"If-Match", `"1"`}).problem(412, "version_mismatch", "")
	w.call("DELETE", "/api/contacts?id="+b, "").want(200)
	w.call("DELETE", "/api/contacts?id="+b, "").problem(404, "not_found", "")
	subset(t, "deleted too", w.call("GET", "/api/contacts/list?includeDeleted=true", "").body, `{"total":2}`)
}

// X1: contacts.
func TestContacts(t *testing.T) {
	w := newEnv(t)
	w.list("l", 0, 0)
	made := w.call("POST", "/api/contacts", `{"phoneNumber":"333 123 4567","firstName":"Anna","lastName":"Rossi","email":"a@example.com","attributes":{"city":"Rome"},"listIds":["l"]}`).want(201)
	id := made.id()
	subset(t, "create", made.body, `{"phoneNumber":"+393331234567","firstName":"Anna","attributes":{"city":"Rome"},"country":"IT","numberType":"mobile","valid":true}`)
	subset(t, "in the list", w.call("GET", "/api/contacts/list/l/contacts", "").body, `{"total":1}`)
	w.call("POST", "/api/contacts", `{"phoneNumber":"+393331234567"}`).problem(409, "name_taken", "phoneNumber")
	w.call("POST", "/api/contacts", `{}`).problem(422, "required", "phoneNumber")
	w.call("POST", "/api/contacts", `{"phoneNumber":"+39"}`).problem(422, "invalid_number", "phoneNumber")
	w.call("POST", "/api/contacts", `{"phoneNumber":"+393331234569","attributes":{"Bad Name":"x"}}`).problem(422, "invalid_value", "attributes")
	w.call("POST", "/api/contacts", `{"phoneNumber":"+393331234569","attributes":{"a":1}}`).problem(422, "invalid_value", "attributes.a")
	w.call("POST", "/api/contacts", `{"phoneNumber":"+393331234569","listIds":["nobody"]}`).problem(422, "invalid_value", "listIds")
	updated := w.call("PUT", "/api/contacts/"+id, `{"firstName":"Anne","email":null}`, header{"If-Match", made.header.Get("ETag")}).want(200)
	subset(t, "update", updated.body, `{"firstName":"Anne","lastName":"Rossi","email":"","phoneNumber":"+393331234567"}`)
	w.call("PUT", "/api/contacts/"+id, `{"firstName":"B"}`, header{"If-Match", made.header.Get("ETag")}).problem(412, "version_mismatch", "")
	w.call("PUT", "/api/contacts/"+id, `{"listIds":["l"]}`).problem(422, "invalid_value", "listIds")
	w.call("PUT", "/api/contacts/"+id, `{"phoneNumber":null}`).problem(422, "required", "phoneNumber")
	subset(t, "search", w.call("GET", "/api/contacts?search=rossi", "").body, `{"total":1}`)
	w.call("DELETE", "/api/contacts/"+id, "").want(200)
	subset(t, "gone", w.call("GET", "/api/contacts", "").body, `{"total":0}`)
	subset(t, "not for ever", w.call("GET", "/api/contacts?includeDeleted=true", "").body, `{"total":1}`)
	w.call("GET", "/api/contacts/contact_99", "").problem(404, "not_found", "")
	w.call("GET", "/api/contacts/nonsense", "").problem(404, "not_found", "")
	w.call("PUT", "/api/contacts/"+id, `{"firstName":"B"}`).problem(404, "not_found", "")
}

// Import of CSV and JSON: counted, reported, and the same file again changes nothing.
func TestImport(t *testing.T) {
	w := newEnv(t)
	w.call("POST", "/api/contacts/list", `{"name":"l"}`).want(201)
	const file = "\ufeffphone;first_name;city\n+39 333 1234567;Anna;Rome\n3331234568;Bert;Milan\n+393331234567;Again;Rome\nnonsense;X;Y\n3.9E+11;Z;Y\n"
	var got api.Import
	w.call("POST", "/api/contacts/list/l/import", file, csv).want(200).into(&got)
	if got.Total != 5 || got.Imported != 2 || got.Duplicates != 1 || got.Invalid != 2 || got.Total != got.Imported+got.Updated+got.Unchanged+got.Duplicates+got.Invalid || got.RowsRead != 5 || got.Status != "done" {
		t.Errorf("import: got %+v, want 5 = 2 + 1 + 2", got)
	}
	if len(got.Rejected) != 2 || got.Rejected[0].Line != 5 || got.Rejected[0].Column != "phone" || got.Rejected[0].Value != "nonsense" || got.Rejected[0].Reason == "" {
		t.Errorf("rejected: got %+v, want line, column, value and reason", got.Rejected)
	}
	w.call("POST", "/api/contacts/list/l/import", file, csv).want(200).into(&got)
	if got.Imported != 0 || got.Updated != 0 || got.Unchanged != 2 {
		t.Errorf("again: got %+v, want nothing changed", got)
	}
	subset(t, "attribute", w.call("GET", "/api/contacts?search=anna", "").body, `{"total":1}`)
	w.call("POST", "/api/contacts/list/l/import", `[{"phone":"+393331234567","first_name":"Anne"},{"phone":"+393331234599","city":"Turin"}]`).want(200).into(&got)
	if got.Imported != 1 || got.Updated != 1 {
		t.Errorf("JSON: got %+v, want 1 new and 1 updated", got)
	}
	subset(t, "mapped columns, another region", w.call("POST", "/api/contacts/list/l/import?region=de&columns=Handy=phone,Vorname=first_name&filename=kunden.csv", "Handy,Vorname\n0151 23456789,Kurt\n", csv).want(200).body, `{"imported":1}`)
	subset(t, "get", w.call("GET", "/api/contacts/list/l/imports/"+got.ID, "").want(200).body, `{"status":"done","imported":1,"updated":1}`)
	subset(t, "all of the list", w.call("GET", "/api/contacts/list/l/imports", "").want(200).body, `{"total":4}`)
	subset(t, "members", w.call("GET", "/api/contacts/list/l/contacts", "").body, `{"total":4}`)

	w.call("POST", "/api/contacts/list/nobody/import", file, csv).problem(404, "not_found", "")
	w.call("POST", "/api/contacts/list/l/import", file, header{"Content-Type", "application/pdf"}).problem(415, "unsupported_media_type", "")
	w.call("POST", "/api/contacts/list/l/import", "name,city\nA,B\n", csv).problem(422, "invalid_value", "file")
	w.call("POST", "/api/contacts/list/l/import?region=XX", file, csv).want(422)
	w.call("POST", "/api/contacts/list/l/import?columns=nonsense", file, csv).problem(422, "invalid_value", "columns")
	w.call("POST", "/api/contacts/list/l/import", `{"phone"`).want(400)
	w.call("GET", "/api/contacts/list/l/imports/imp_none", "").problem(404, "not_found", "")
	w.list("other", 0, 0)
	w.call("GET", "/api/contacts/list/other/imports/"+got.ID, "").problem(404, "not_found", "")
}

// While an import runs, its report shows the rows read so far.
func TestImportProgress(t *testing.T) {
	w := newEnv(t, func(w *env) { w.deps.Now = time.Now })
	w.call("POST", "/api/contacts/list", `{"name":"l"}`).want(201)
	r, feed := io.Pipe()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/api/contacts/list/l/import", r)
	req.Header.Set("X-Api-Key", w.key)
	req.Header.Set("Content-Type", "text/csv")
	type result struct {
		status int
		body   []byte
	}
	done := make(chan result, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			done <- result{}
			return
		}
		defer func() { _ = resp.Body.Close() }()
		b, _ := io.ReadAll(resp.Body)
		done <- result{resp.StatusCode, b}
	}()
	_, _ = io.WriteString(feed, "phone,first_name\n")
	row, seen := 0, uint64(0)
	for began := time.Now(); seen == 0 && time.Since(began) < 10*time.Second; {
		for range 500 {
			_, _ = fmt.Fprintf(feed, "%s,A\n", phoneOf(row))
			row++
		}
		var page struct{ Data []api.Import }
		w.call("GET", "/api/contacts/list/l/imports", "").want(200).into(&page)
		if len(page.Data) == 1 && page.Data[0].Status == "running" {
			seen = page.Data[0].RowsRead
		}
	}
	_ = feed.Close()
	got := <-done
	var final api.Import
	if err := json.Unmarshal(got.body, &final); err != nil || got.status != 200 {
		t.Fatalf("import: got %d %s", got.status, got.body)
	}
	if seen == 0 || final.RowsRead != uint64(row) || final.Imported != uint64(row) {
		t.Errorf("got %d rows read while it ran and %+v in the end, want some and %d", seen, final, row)
	}
}

// X10, P4: an opt-out is answered once its record is acknowledged; before that it is kept, and 503.
func TestSuppressions(t *testing.T) {
	w := newEnv(t, func(w *env) { w.deps.PublishTimeout = 150 * time.Millisecond })
	const body = `{"phoneNumber":"333 123 4567"}`
	late := w.call("POST", "/api/suppressions", body)
	late.problem(503, "unavailable", "")
	if late.header.Get("Retry-After") == "" {
		t.Error("503: got no Retry-After")
	}
	if out, err := w.store.Suppressed(t.Context(), w.tenant.ID, "+393331234567", schemas.ChannelSMS); err != nil || !out {
		t.Errorf("after the 503: got suppressed %v %v, want it kept", out, err)
	}
	w.call("POST", sendPath, `{"phoneNumber":"+393331234567","message":"m"}`).problem(422, "opted_out", "phoneNumber")
	w.deps.PublishTimeout, w.deps.Registry = 0, newRegistry() // from here on it is answered
	w.serve()
	w.relay()
	subset(t, "again", w.call("POST", "/api/suppressions", body).want(201).body, `{"phoneNumber":"+393331234567","suppressed":true,"source":"api","updatedAt":"2025-04-01T09:00:00Z"}`)
	subset(t, "list", w.call("GET", "/api/suppressions", "").want(200).body, `{"total":1}`)
	subset(t, "one", w.call("GET", "/api/suppressions?phoneNumber=%2B393331234567", "").want(200).body, `{"total":1}`)
	subset(t, "none", w.call("GET", "/api/suppressions?phoneNumber=%2B393331234568", "").want(200).body, `{"total":0}`)
	subset(t, "lift", w.call("DELETE", "/api/suppressions", body).want(200).body, `{"phoneNumber":"+393331234567","suppressed":false}`)
	w.call("POST", sendPath, `{"phoneNumber":"+393331234567","message":"m"}`).want(200)
	subset(t, "by query", w.call("DELETE", "/api/suppressions?phoneNumber=3331234567", "").want(200).body, `{"suppressed":false}`)
	w.call("POST", "/api/suppressions", `{"phoneNumber":"abc"}`).problem(422, "invalid_number", "phoneNumber")
	w.call("POST", "/api/suppressions", `{}`).problem(422, "required", "phoneNumber")
	w.call("DELETE", "/api/suppressions", "").problem(422, "required", "phoneNumber")
	w.call("GET", "/api/suppressions?phoneNumber=abc", "").problem(422, "invalid_number", "phoneNumber")
	// With a view in memory the API does not ask the store, and an opt-out is answered once the view has it.
	viewed := time.Now().Add(300 * time.Millisecond)
	w.deps.OptedOut = func(_, e164 string, _ schemas.Channel) bool {
		return e164 == "+393331234571" && time.Now().After(viewed)
	}
	w.deps.Registry = newRegistry()
	w.serve()
	w.call("POST", "/api/suppressions", `{"phoneNumber":"+393331234571"}`).want(201)
	w.call("POST", sendPath, `{"phoneNumber":"+393331234571","message":"m"}`).problem(422, "opted_out", "phoneNumber")
	w.deps.OptedOut = func(tenant, e164 string, _ schemas.Channel) bool {
		return tenant == w.tenant.ID && e164 == "+393331234570"
	}
	w.deps.Registry = newRegistry()
	w.serve()
	w.call("POST", sendPath, `{"phoneNumber":"+393331234570","message":"m"}`).problem(422, "opted_out", "phoneNumber")
}

// X12: the key works on every POST.
func TestIdempotentPosts(t *testing.T) {
	w := newEnv(t)
	w.relay()
	list := w.list("l", 1, 0)
	campaign := w.campaign(1, "")
	contact := w.call("POST", "/api/contacts", `{"phoneNumber":"+393339999999"}`).want(201).id()
	for path, body := range map[string]string{
		"/api/campaigns": `{"name":"N","channel":"sms","draft":true}`,
		"/api/campaigns/" + campaign + "/duplicate":     "",
		"/api/campaigns/" + campaign + "/calculateGoal": `{"goalContactCount":7}`,
		"/api/contacts/list":                            `{"name":"n"}`,
		"/api/contacts":                                 `{"phoneNumber":"+393338888888"}`,
		"/api/contacts/list/contacts":                   fmt.Sprintf(`{"listId":%q,"contactIds":[%q]}`, list, contact),
		"/api/suppressions":                             `{"phoneNumber":"+393337777777"}`,
		"/api/contacts/list/" + list + "/import":        `[{"phone":"+393336666666"}]`,
		sendPath:                                        docSend,
	} {
		key := header{"Idempotency-Key", "the same for all"} // a key is one path's
		first := w.call("POST", path, body, key)
		if first.status/100 != 2 {
			t.Fatalf("%s: got %d %s", path, first.status, first.body)
		}
		w.clock.forward(time.Hour)
		again := w.call("POST", path, body, key)
		if again.status != first.status || string(again.body) != string(first.body) || again.header.Get("ETag") != first.header.Get("ETag") || again.header.Get("Location") != first.header.Get("Location") {
			t.Errorf("%s again: got %d %s, want %d %s", path, again.status, again.body, first.status, first.body)
		}
	}
	subset(t, "one more campaign and one copy", w.call("GET", "/api/campaigns", "").body, `{"total":3}`)
}

// The two ways of asking for a list never meet: a path word is not taken for an id.
func TestPathsDoNotCollide(t *testing.T) {
	w := newEnv(t)
	w.call("GET", "/api/campaigns/stats", "").want(200)
	w.call("GET", "/api/contacts/list", "").want(200)
	w.call("GET", "/api/messages/status?customerMessageIds=x", "").want(200)
	subset(t, "a list called contacts", w.call("POST", "/api/contacts/list", `{"name":"contacts"}`).want(201).body, `{"name":"contacts"}`)
	w.call("GET", "/api/contacts/list/"+strings.Repeat("x", 300), "").problem(404, "not_found", "")
}

// P7: a route that is gone is said, not sent to.
func TestRouteOfCampaign(t *testing.T) {
	w := newEnv(t)
	id := w.campaign(1, "")
	w.call("PUT", "/api/campaigns/"+id, `{"route":"nowhere"}`).problem(422, "invalid_value", "route")
	w.call("PUT", "/api/campaigns/"+id, `{"route":"Not A Route"}`).problem(422, "invalid_value", "route")
	w.call("PUT", "/api/campaigns/"+id, `{"route":null}`).want(200)
	_, err := w.store.UpdateRoute(t.Context(), "sim", 0, func(r *store.Route) error {
		r.Channels = []schemas.Channel{schemas.ChannelRCS}
		return nil
	})
	w.check(err)
	w.clock.forward(3 * time.Second)
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").problem(422, "invalid_value", "channel")
	w.call("POST", sendPath, docSend).problem(503, "unavailable", "")
}

// X12: an Idempotency-Key is bound to the file that came with it, of which the headers say no more than its length.
func TestImportIdempotency(t *testing.T) {
	w := newEnv(t)
	w.call("POST", "/api/contacts/list", `{"name":"l"}`).want(201)
	const path = "/api/contacts/list/l/import"
	key := header{"Idempotency-Key", "file-1"}
	first := w.call("POST", path, "phone\n+393330000001\n", csv, key).want(200)
	again := w.call("POST", path, "phone\n+393330000001\n", csv, key).want(200)
	if !strings.Contains(string(again.body), first.object()["id"].(string)) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("again: got %s, want the answer of the first: %s", again.body, first.body)
	}
	// As long, and another
	w.call("POST", path, "phone\n+393330000002\n", csv, key).problem(422, "idempotency_mismatch", "")
	w.call("POST", path, "phone\n+393330000002\n", csv, header{"Idempotency-Key", "file-2"}).want(200)
	subset(t, "both", w.call("GET", "/api/contacts/list/l/contacts", "").body, `{"total":2}`)
	// What was refused did nothing, and may come again.
	w.call("POST", path, "name\nx\n", csv, header{"Idempotency-Key", "file-3"}).problem(422, "invalid_value", "file")
	w.call("POST", path, "phone\n+393330000003\n", csv, header{"Idempotency-Key", "file-3"}).want(200)
}

// Files that are none, and rows that would lose something, are named: by field, or by line and column.
func TestImportRefusals(t *testing.T) {
	w := newEnv(t)
	w.call("POST", "/api/contacts/list", `{"name":"l"}`).want(201)
	const path = "/api/contacts/list/l/import"
	for _, c := range []struct{ query, body, field, says string }{
		{"", "phone,city,City\n+393330000001,a,b\n", "file", "two columns of the header are \"city\""},
		{"", "PK\x03\x04", "file", "The file is a damaged workbook"},
		{"?region=XX", "phone\n1\n", "region", "region: want an ISO"},
		{"?columns=Cel=phone", "phone\n1\n", "columns", `called "Cel"`},
		{"?columns=phone=Some Thing", "phone\n1\n", "columns", "lower-case"},
	} {
		p := w.call("POST", path+strings.ReplaceAll(c.query, " ", "%20"), c.body, csv).problem(422, "invalid_value", c.field)
		if got := p["detail"].(string); !strings.Contains(got, c.says) {
			t.Errorf("%q: got %q, want it to say %s", c.body, got, c.says)
		}
	}
	p := w.call("POST", path, `[{"phone":"+393330000001"},{"phone":}]`).problem(400, "malformed_request", "")
	if got := p["detail"].(string); got != "The import stopped after 1 rows: at byte 35: invalid character '}' looking for beginning of value." {
		t.Errorf("broken JSON: got %q, want rows and byte, once", got)
	}
	var got api.Import
	w.call("POST", path, `[{"phone":"+393330000002","phone":"+393330000003"},{"phone":"+393330000004","first_name":"Zo`+"\xeb"+`"}]`).want(200).into(&got)
	if got.Invalid != 2 || got.Rejected[0].Reason != "occurs twice" || got.Rejected[0].Column != "phone" || got.Rejected[1].Reason != "is not UTF-8" {
		t.Errorf("JSON: got %+v, want both refused by name", got)
	}
}

// An upload arrives in pieces, and the first may be shorter than the header.
func TestImportInPieces(t *testing.T) {
	w := newEnv(t)
	w.call("POST", "/api/contacts/list", `{"name":"l"}`).want(201)
	r, feed := io.Pipe()
	go func() {
		for _, piece := range []string{"\xef", "\xbb\xbfpho", "ne;first_name", "\n+393330000001;An", "na\n"} {
			_, _ = io.WriteString(feed, piece)
			time.Sleep(10 * time.Millisecond) // in a packet of its own
		}
		_ = feed.Close()
	}()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/api/contacts/list/l/import", r)
	w.check(err)
	req.Header.Set("X-Api-Key", w.key)
	req.Header.Set("Content-Type", "text/csv")
	resp, err := http.DefaultClient.Do(req)
	w.check(err)
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	w.check(err)
	subset(t, "in pieces", b, `{"total":1,"imported":1}`)
	subset(t, "name", w.call("GET", "/api/contacts?search=Anna", "").body, `{"total":1}`)
}

// C30: a fixed line is kept and not sent to; the contact says so.
func TestFixedLine(t *testing.T) {
	w := newEnv(t)
	subset(t, "contact", w.call("POST", "/api/contacts", `{"phoneNumber":"+390212345678"}`).want(201).body, `{"numberType":"fixed_line","valid":false}`)
	w.call("POST", sendPath, `{"phoneNumber":"+390212345678","message":"m"}`).problem(422, "invalid_number", "phoneNumber")
}

// X12: If-Match on every change, deletions too.
func TestDeleteIfMatch(t *testing.T) {
	w := newEnv(t)
	contact := w.call("POST", "/api/contacts", `{"phoneNumber":"+393331234567"}`).want(201)
	list := w.call("POST", "/api/contacts/list", `{"name":"l"}`).want(201)
	w.call("POST", "/api/contacts/list/contacts", fmt.Sprintf(`{"listId":"l","contactIds":[%q]}`, contact.id())).want(200)
	w.call("PUT", "/api/contacts/"+contact.id(), `{"firstName":"A"}`).want(200)
	for path, old := range map[string]*answer{"/api/contacts/" + contact.id(): contact, "/api/contacts/list/" + list.id(): list, "/api/contacts/list?id=l": list} {
		w.call("DELETE", path, "", header{"If-Match", old.header.Get("ETag")}).problem(412, "version_mismatch", "")
		w.call("DELETE", path, "", header{"If-Match", "nonsense"}).problem(412, "version_mismatch", "If-Match")
		w.call("GET", "/api/contacts/"+contact.id(), "").want(200)
	}
	for _, path := range []string{"/api/contacts/list/" + list.id(), "/api/contacts/" + contact.id()} {
		a := w.call("DELETE", path, "", header{"If-Match", w.call("GET", path, "").header.Get("ETag")}).want(200)
		if a.object()["deletedAt"] == nil {
			t.Errorf("%s: got %s, want it deleted", path, a.body)
		}
	}
}

// X1: PUT changes the name of a list, and whether it is for tests. It keeps what is left out, and refuses a name that
// another list has, a name that is not one, and an older version. A test key cannot make a list one of real campaigns.
func TestUpdateList(t *testing.T) {
	w := newEnv(t)
	id := w.call("POST", "/api/contacts/list", `{"name":"old"}`).want(201).id()
	w.call("POST", "/api/contacts/list", `{"name":"taken"}`).want(201)
	at := "/api/contacts/list/" + id
	got := w.call("PUT", at, `{"name":" new "}`, header{"If-Match", w.call("GET", at, "").want(200).header.Get("ETag")}).want(200)
	subset(t, "renamed", got.body, `{"name":"new","isTest":false}`)
	subset(t, "the same list", w.call("GET", "/api/contacts/list/new", "").want(200).body, fmt.Sprintf(`{"id":%q,"name":"new"}`, id))
	w.call("PUT", at, `{"name":"x"}`, header{"If-Match", `"1"`}).want(412)
	w.call("PUT", at, `{"name":"taken"}`).want(409)
	w.call("PUT", at, `{"name":" "}`).want(422)
	w.call("PUT", at, `{"name":"list_12"}`).want(422)
	w.call("PUT", "/api/contacts/list/nowhere", `{}`).want(404)
	subset(t, "for tests", w.call("PUT", at, `{"isTest":true}`).want(200).body, `{"name":"new","isTest":true}`)
	key := w.newKey(w.tenant.ID, nil, true)
	w.callAs(key, "PUT", at, `{"isTest":false}`).want(403)
	subset(t, "still for tests", w.callAs(key, "PUT", at, `{"name":"newer"}`).want(200).body, `{"name":"newer","isTest":true}`)
}
