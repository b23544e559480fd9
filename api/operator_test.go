package api_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"fanfare/api"
	"fanfare/api/store"
)

// R44, R45, X13: an operator makes tenants, sets their limits and flags, and adds money, without SQL.
func TestOperatorRunsTenants(t *testing.T) {
	w := newEnv(t)
	w.key = w.newKey(w.tenant.ID, store.Scopes, false)
	got := w.call("POST", "/api/tenants", `{"name":"Bravo","region":"fr","credit":100.50,"maxActiveCampaigns":3}`).want(201)
	id := got.id()
	if got.get("timezone") != "Europe/Paris" || got.get("balance") != "100.5" || got.get("maxActiveCampaigns") != "3" || got.get("campaignsEnabled") != "true" {
		t.Errorf("got %s", got.body)
	}
	w.call("POST", "/api/tenants", `{"name":"Bravo"}`).problem(409, "name_taken", "name")
	w.call("POST", "/api/tenants", `{"name":"Charlie","region":"XX"}`).problem(422, "invalid_value", "region")
	w.call("POST", "/api/tenants", `{"name":"Charlie","defaultRoute":"nowhere"}`).problem(422, "invalid_value", "defaultRoute")
	w.call("POST", "/api/tenants/Bravo/credit", `{"amount":10,"note":"invoice 7"}`).want(200)
	w.call("POST", "/api/tenants/Bravo/credit", `{"amount":0}`).problem(422, "invalid_value", "amount")
	w.call("POST", "/api/tenants/Bravo/credit", `{"amount":-5}`).want(200) // taken back
	if got := w.call("GET", "/api/tenants/"+id, "").want(200).get("balance"); got != "105.5" {
		t.Errorf("got balance %s, want 105.5", got)
	}
	tag := w.call("GET", "/api/tenants/Bravo", "").want(200).header.Get("ETag")
	w.call("PUT", "/api/tenants/Bravo", `{"campaignsEnabled":false}`, header{"If-Match", tag}).want(200)
	w.call("PUT", "/api/tenants/Bravo", `{"campaignsEnabled":true}`, header{"If-Match", tag}).want(412)
	w.call("PUT", "/api/tenants/Bravo", `{"currency":"USD"}`).problem(422, "read_only", "currency")
	w.call("PUT", "/api/tenants/Bravo", `{"weight":1000}`).problem(422, "invalid_value", "weight")

	if got := w.call("POST", "/api/tenants/Bravo/disable", "", header{"If-Match", tag}).problem(412, "version_mismatch", ""); got == nil {
		t.Error("got no problem")
	}
	if got := w.call("POST", "/api/tenants/Bravo/disable", "").want(200); got.get("enabled") != "false" || got.header.Get("ETag") == tag {
		t.Errorf("disabled: got %s with ETag %s", got.body, got.header.Get("ETag"))
	}
	if got := w.call("POST", "/api/tenants/"+id+"/enable", "").want(200).get("enabled"); got != "true" {
		t.Errorf("enabled again: got %s", got)
	}
	w.call("POST", "/api/tenants/nobody/disable", "").problem(404, "not_found", "")
	// An operator can't lock themselves out.
	w.call("POST", "/api/tenants/"+w.tenant.ID+"/disable", "").problem(422, "invalid_value", "enabled")
	w.call("PUT", "/api/tenants/"+w.tenant.ID, `{"enabled":false}`).problem(422, "invalid_value", "enabled")

	key := w.call("POST", "/api/keys", `{"name":"shop"}`, header{"X-Tenant", "Bravo"}).want(201)
	secret := key.get("secret")
	if len(secret) < 40 || strings.Contains(string(key.body), "admin") {
		t.Errorf("got %s, want a secret and no scope admin", key.body)
	}
	if body := w.call("GET", "/api/keys", "", header{"X-Tenant", "Bravo"}).want(200).body; strings.Contains(string(body), secret) {
		t.Error("the list of keys shows a secret")
	}
	w.callAs(secret, "POST", "/api/contacts/list", `{"name":"people"}`).want(201)
	w.call("GET", "/api/contacts/list/people", "").want(404) // of the operator's own tenant
	w.call("GET", "/api/contacts/list/people", "", header{"X-Tenant", id}).want(200)
	// P7
	w.callAs(secret, "GET", "/api/contacts/list/people", "", header{"X-Tenant", w.tenant.ID}).problem(403, "scope_missing", "")
	w.call("GET", "/api/contacts/list", "", header{"X-Tenant", "nobody"}).want(404)
	w.call("DELETE", "/api/keys/"+key.id(), "").want(404) // of another tenant
	w.call("GET", "/api/keys/"+key.id(), "").problem(404, "not_found", "")
	one, bravo := w.call("GET", "/api/keys/"+key.id(), "", header{"X-Tenant", "Bravo"}).want(200), header{"X-Tenant", "Bravo"}
	if one.get("name") != "shop" || one.get("revokedAt") != "" || strings.Contains(string(one.body), secret) || one.header.Get("ETag") != key.header.Get("ETag") {
		t.Errorf("got %s with ETag %s, want the key without its secret, with ETag %s", one.body, one.header.Get("ETag"), key.header.Get("ETag"))
	}
	w.call("DELETE", "/api/keys/"+key.id(), "", bravo, header{"If-Match", `"9"`}).problem(412, "version_mismatch", "")
	w.callAs(secret, "GET", "/api/contacts/list/people", "").want(200)
	gone := w.call("DELETE", "/api/keys/"+key.id(), "", bravo, header{"If-Match", one.header.Get("ETag")}).want(200)
	if gone.get("revokedAt") == "" || gone.header.Get("ETag") == one.header.Get("ETag") {
		t.Errorf("got %s with ETag %s, want a time of the revocation and another version", gone.body, gone.header.Get("ETag"))
	}
	w.call("GET", "/api/keys/"+key.id(), "", bravo).want(200)
	subset(t, "credit", w.call("GET", "/api/tenants/Bravo/credit", "").want(200).body, `{"name":"Bravo","currency":"EUR","unlimited":false,"balance":105.5,"reserved":0,"spent":0,"owed":0}`)
	subset(t, "unlimited credit", w.call("GET", "/api/tenants/"+w.tenant.ID+"/credit", "").want(200).body, `{"unlimited":true,"balance":null}`)
	w.callAs(w.newKey(w.tenant.ID, []store.Scope{store.ScopeRead}, false), "GET", "/api/tenants/Bravo/credit", "").problem(403, "scope_missing", "")
	// What is kept is kept whole
	w.call("POST", "/api/tenants/Bravo/credit", fmt.Sprintf(`{"amount":1,"note":%q}`, strings.Repeat("n", 201))).problem(422, "too_long", "note")
	w.call("POST", "/api/tenants", `{"name":"Charlie","currency":"{0}"}`).problem(422, "invalid_value", "currency")
	w.call("POST", "/api/tenants", `{"name":"Charlie","currency":"nan"}`).problem(422, "invalid_value", "currency")
	w.call("POST", "/api/keys", `{"scopes":["everything"]}`).problem(422, "invalid_value", "scopes")
	w.call("POST", "/api/keys", `{"scopes":[]}`).problem(422, "required", "scopes")
}

// An operator adds people; a person has a role in a tenant, and a password or a link.
func TestOperatorAddsPeople(t *testing.T) {
	w := newEnv(t)
	w.key = w.newKey(w.tenant.ID, store.Scopes, false)
	got := w.call("POST", "/api/users", `{"email":"Anna@Example.com","name":"Anna","role":"editor"}`).want(201)
	if got.get("email") != "anna@example.com" || !strings.HasPrefix(got.get("loginLink"), "/login/") || got.get("roles.0.role") != "editor" {
		t.Errorf("got %s", got.body)
	}
	w.call("POST", "/api/users", `{"email":"anna@example.com","role":"viewer"}`).problem(409, "name_taken", "email")
	w.call("POST", "/api/users", `{"email":"anna","role":"viewer"}`).problem(422, "invalid_value", "email")
	w.call("POST", "/api/users", `{"email":"b@example.com"}`).problem(422, "required", "role")
	w.call("POST", "/api/users", `{"email":"b@example.com","role":"operator"}`).problem(422, "invalid_value", "role")
	w.call("POST", "/api/users", `{"email":"b@example.com","role":"viewer","password":"short"}`).problem(422, "invalid_value", "password")
	other, _ := w.newTenant("Other")
	w.call("PUT", "/api/users/anna@example.com", `{"role":"approver"}`, header{"X-Tenant", other.ID}).want(200)
	if got := w.call("GET", "/api/users/anna@example.com", "").want(200); got.get("roles.1.role") == "" {
		t.Errorf("got %s, want two roles", got.body)
	}
	if got := w.call("GET", "/api/users", "", header{"X-Tenant", other.ID}).want(200).get("total"); got != "1" {
		t.Errorf("got %s people of the other tenant, want 1", got)
	}
	before := w.call("GET", "/api/users/anna@example.com", "").want(200)
	w.call("PUT", "/api/users/anna@example.com", `{"password":"correct horse battery"}`, header{"If-Match", before.header.Get("ETag")}).want(200)
	w.call("PUT", "/api/users/anna@example.com", `{"disabled":true}`, header{"If-Match", before.header.Get("ETag")}).want(412)
	if body := w.call("GET", "/api/users/anna@example.com", "").want(200).body; strings.Contains(string(body), "argon2") {
		t.Error("the API shows a password's hash")
	}
	w.call("POST", "/api/users/anna@example.com/link", "").want(200)
}

// The alerts, and which of them hold, are an operator's to see.
func TestAlerts(t *testing.T) {
	w := newEnvOf(t, func(w *env) {
		w.deps.Alerts = func(context.Context) []api.Alert {
			return []api.Alert{{Name: "FanfareRedisAway", Severity: "critical", Means: "All routes pause.", Do: "Start Redis.", State: "holds", Where: []string{"1"}}}
		}
	})
	w.call("GET", "/api/alerts", "").problem(403, "scope_missing", "")
	w.key = w.admin()
	if got := w.call("GET", "/api/alerts", "").want(200); got.get("data.0.state") != "holds" || got.get("data.0.where.0") != "1" || got.get("total") != "1" {
		t.Errorf("got %s", got.body)
	}
}

// What the doctor finds is an operator's to see.
func TestDoctor(t *testing.T) {
	w := newEnvOf(t, func(w *env) {
		w.deps.Doctor = func(context.Context) []api.Finding { return []api.Finding{{"redis", "bad", "no answer", "Start it."}} }
	})
	w.call("GET", "/api/doctor", "").problem(403, "scope_missing", "")
	w.key = w.newKey(w.tenant.ID, store.Scopes, false)
	if got := w.call("GET", "/api/doctor", "").want(200); got.get("data.0.level") != "bad" || got.get("data.0.fix") != "Start it." || got.get("total") != "1" {
		t.Errorf("got %s", got.body)
	}
}
