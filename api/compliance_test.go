package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"fanfare/api"
	"fanfare/api/compliance"
	"fanfare/pipeline/inbound/keyword"
	"fanfare/schemas"
)

// R43, R48: what becomes of a campaign that does not keep the rules of a country is the tenant's choice. The price lists
// what is not kept, with its source, and confirm refuses it only when the tenant refuses.
func TestCompliance(t *testing.T) {
	w := newEnv(t)
	mode := func(mode string) {
		t.Helper()
		subset(t, "policy", w.callAs(w.admin(), "PUT", "/api/policy", `{"compliance":"`+mode+`"}`).want(200).body, `{"compliance":"`+mode+`"}`)
	}
	subset(t, "unless it was set", w.call("GET", "/api/policy", "").want(200).body, `{"compliance":"off"}`)
	list := w.call("POST", "/api/contacts/list", `{"name":"Paris"}`).want(201).id()
	for n := range 2 {
		w.call("POST", "/api/contacts", fmt.Sprintf(`{"phoneNumber":"+3361234560%d","listIds":[%q]}`, n, list)).want(201)
	}
	campaign := func(more string) string {
		t.Helper()
		return "/api/campaigns/" + w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"c","channel":"sms","contactList":%q%s}`, list, more)).want(201).id()
	}
	found := func(path string) string {
		t.Helper()
		var price, goal struct{ Compliance []api.ComplianceFinding }
		w.call("GET", path+"/price", "").want(200).into(&price)
		w.call("POST", path+"/calculateGoal", "").want(200).into(&goal)
		var out []string
		for _, f := range price.Compliance {
			if f.Recipients != 2 || f.Source == "" || f.Fix == "" || !strings.HasPrefix(f.Detail, "FR: ") {
				t.Errorf("got finding %+v", f)
			}
			out = append(out, fmt.Sprint(f.Country, " ", f.Rule, " ", f.Field, " ", f.Refused))
		}
		if got, want := fmt.Sprint(goal.Compliance), fmt.Sprint(price.Compliance); got != want {
			t.Errorf("goal: got %s, want %s", got, want)
		}
		return strings.Join(out, "; ")
	}
	const sunday = `"scheduledTime":"2025-04-20T09:00:00Z"`
	bad := campaign(`,"message":"Sale!",` + sunday)
	const three = "FR hours callingHoursStart %[1]t; FR closed scheduledTime %[1]t; FR opt_out message %[1]t"
	if got := found(bad); got != "" {
		t.Errorf("off: got %q", got)
	}
	mode("warn")
	if got, want := found(bad), fmt.Sprintf(three, false); got != want {
		t.Errorf("warn: got %q, want %q", got, want)
	}
	mode("refuse")
	if got, want := found(bad), fmt.Sprintf(three, true); got != want {
		t.Errorf("refuse: got %q, want %q", got, want)
	}
	p := w.call("PUT", bad+"/confirm", "").problem(422, "rule_of_country", "callingHoursStart")
	if errs := p["errors"].([]any); len(errs) != 3 || !strings.Contains(p["detail"].(string), "Brevo") || !strings.Contains(p["fix"].(string), "08:00 to 22:00") {
		t.Errorf("got problem %v, want three fields, the source and the hours", p)
	}
	subset(t, "still a draft that can be edited", w.call("GET", bad, "").want(200).body, `{"state":"cost_calculated"}`)

	w.call("PUT", bad, `{"message":"Sale! STOP to 36034","callingHoursStart":"09:00","callingHoursEnd":"20:00","recipientTimezone":true,"scheduledTime":"2025-04-21T09:00:00Z"}`).want(200)
	if got := found(bad); got != "" {
		t.Errorf("mended: got %q", got)
	}
	w.call("PUT", bad+"/confirm", "").want(200)
	// After the confirm, its time and its hours stay within the rules.
	w.call("POST", bad+"/reschedule", `{`+sunday+`}`).problem(422, "rule_of_country", "scheduledTime")
	w.call("POST", bad+"/reschedule", `{"scheduledTime":"2025-04-22T09:00:00Z"}`).want(200)
	p = w.call("PATCH", bad+"/live", `{"callingHoursEnd":"23:00"}`).problem(422, "rule_of_country", "callingHoursStart")
	if fix := p["fix"].(string); !strings.Contains(fix, "08:00-22:00") || strings.Contains(fix, "recipientTimezone") {
		t.Errorf("live: got fix %q, want the hours and only fields of the request", fix)
	}
	w.call("PATCH", bad+"/live", `{"callingHoursEnd":"21:00"}`).want(200)
	for _, body := range []string{`{"callingHoursEnd":"23:00"}`, `{"rate":5}`} {
		w.call("PATCH", bad+"/live", body, header{"If-Match", `"1"`}).problem(412, "version_mismatch", "")
	}
	w.call("POST", bad+"/reschedule", `{`+sunday+`}`, header{"If-Match", `"1"`}).problem(412, "version_mismatch", "")

	mode("warn")
	w.call("PUT", campaign(`,"message":"Sale!",`+sunday)+"/confirm", "").want(200)
	w.callAs(w.admin(), "PUT", "/api/policy", `{"compliance":null}`).want(200)
	subset(t, "off again", w.call("GET", "/api/policy", "").want(200).body, `{"compliance":"off"}`)
	w.callAs(w.admin(), "PUT", "/api/policy", `{"compliance":"maybe"}`).problem(422, "invalid_value", "compliance")

	var rules api.ComplianceRules
	w.call("GET", "/api/compliance-rules?country=fr", "").want(200).into(&rules)
	if len(rules.Data) != 3 || rules.Data[0].Value != "08:00-22:00" || rules.Data[0].Source == "" {
		t.Errorf("rules of FR: got %+v", rules.Data)
	}
	w.call("GET", "/api/compliance-rules", "").want(200).into(&rules)
	if len(rules.Data) < 50 {
		t.Errorf("got %d rules", len(rules.Data))
	}
}

// complianceEnv is an environment that refuses what does not keep the rules, with a list of so many numbers, and a
// function that makes a campaign to it.
func complianceEnv(t *testing.T, mode string, numbers ...string) (w *env, campaign func(more string) string) {
	t.Helper()
	registry := newRegistry()
	w = newEnv(t, func(w *env) {
		w.deps.Registry, w.deps.Metrics = registry, promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	})
	w.callAs(w.admin(), "PUT", "/api/policy", `{"compliance":"`+mode+`"}`).want(200)
	list := w.call("POST", "/api/contacts/list", `{"name":"l"}`).want(201).id()
	for _, number := range numbers {
		w.call("POST", "/api/contacts", fmt.Sprintf(`{"phoneNumber":%q,"listIds":[%q]}`, number, list)).want(201)
	}
	return w, func(more string) string {
		t.Helper()
		return "/api/campaigns/" + w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"c","channel":"sms","message":"Sale! STOP to 36034","contactList":%q%s}`, list, more)).want(201).id()
	}
}

// R43: fixed hours are checked in every zone of a country: those of New York are too early in Los Angeles.
func TestComplianceOfZones(t *testing.T) {
	w, campaign := complianceEnv(t, "refuse", "+12125550123")
	c := campaign(`,"scheduledTime":"2025-04-21T18:00:00Z","callingHoursStart":"09:00","callingHoursEnd":"20:00","callingHoursTimezone":"America/New_York"`)
	p := w.call("PUT", c+"/confirm", "").problem(422, "rule_of_country", "callingHoursStart")
	if got := fmt.Sprint(p["errors"]); !strings.Contains(got, "US: messages may arrive from 08:00 to 21:00 only") {
		t.Errorf("got %s, want the hours of the US", got)
	}
	w.call("PUT", c, `{"recipientTimezone":true}`).want(200)
	if got := string(w.call("GET", c+"/price", "").want(200).body); strings.Contains(got, "US: messages may arrive") {
		t.Errorf("on the recipients' clocks: got %s", got)
	}
}

// R43, X9: each batch is checked for itself: batches on Saturday and Monday send nothing on the Sunday between them.
func TestComplianceOfBatches(t *testing.T) {
	w, campaign := complianceEnv(t, "refuse", "+33612345600", "+33612345601")
	const hours = `,"callingHoursStart":"09:00","callingHoursEnd":"20:00","recipientTimezone":true`
	batches := func(second string) string {
		return hours + `,"batches":[{"at":"2025-04-19T09:00:00Z","share":50},{"at":"` + second + `"}]`
	}
	good := campaign(batches("2025-04-21T09:00:00Z"))
	w.call("PUT", good+"/confirm", "").want(200)
	p := w.call("PUT", campaign(batches("2025-04-20T09:00:00Z"))+"/confirm", "").problem(422, "rule_of_country", "batches")
	if !strings.Contains(p["detail"].(string), "2025-04-20") {
		t.Errorf("got %v, want the Sunday", p)
	}
	// All batches move by a day.
	w.call("POST", good+"/reschedule", `{"scheduledTime":"2025-04-18T09:00:00Z"}`).problem(422, "rule_of_country", "scheduledTime")
	subset(t, "not moved", w.call("GET", good, "").want(200).body, `{"scheduledTime":"2025-04-19T09:00:00Z"}`)
	w.call("POST", good+"/reschedule", `{"scheduledTime":"2025-04-21T09:00:00Z"}`).want(200)
}

// R43: a campaign that waits for a manual start does not start on a closed day. What becomes of a campaign is counted
// once.
func TestComplianceOfStart(t *testing.T) {
	w, campaign := complianceEnv(t, "refuse", "+33612345600")
	w.relay()
	c := campaign(`,"callingHoursStart":"09:00","callingHoursEnd":"20:00","recipientTimezone":true`)
	w.call("PUT", c+"/confirm", "").want(200)
	subset(t, "confirmed", w.call("GET", c, "").want(200).body, `{"state":"ready"}`)
	w.clock.forward(5*24*time.Hour + time.Hour) // Sunday, 6 April 2025, 10:00 UTC
	p := w.call("POST", c+"/start", "").problem(422, "rule_of_country", "")
	if !strings.Contains(p["detail"].(string), "2025-04-06") || !strings.Contains(p["fix"].(string), "/reschedule") {
		t.Errorf("got %v, want the Sunday, and what to do", p)
	}
	w.call("POST", c+"/start", "", header{"If-Match", `"1"`}).problem(412, "version_mismatch", "")
	subset(t, "waits", w.call("GET", c, "").want(200).body, `{"state":"ready"}`)
	w.callAs(w.admin(), "PUT", "/api/policy", `{"compliance":"warn"}`).want(200)
	subset(t, "warn", w.call("PUT", c+"/start", "").want(200).body, `{"state":"preparing"}`)
	w.call("POST", c+"/start", "").problem(409, "wrong_state", "")
	metrics := string(w.callAs("", "GET", "/metrics", "").want(200).body)
	for _, result := range []string{"refused", "warned"} {
		if want := `fanfare_api_compliance_total{result="` + result + `"} 1`; !strings.Contains(metrics, want) {
			t.Errorf("metrics: got none of %s", want)
		}
	}
}

// R43: hours of an active campaign that become narrower are never refused, even when they do not keep a rule yet.
func TestComplianceOfNarrowerHours(t *testing.T) {
	w, campaign := complianceEnv(t, "off", "+33612345600")
	c := campaign(`,"scheduledTime":"2025-04-21T09:00:00Z","callingHoursStart":"05:00","callingHoursEnd":"23:00","recipientTimezone":true`)
	w.call("PUT", c+"/confirm", "").want(200)
	w.callAs(w.admin(), "PUT", "/api/policy", `{"compliance":"refuse"}`).want(200)
	w.call("PATCH", c+"/live", `{"callingHoursStart":"06:00"}`).want(200)
	w.call("PATCH", c+"/live", `{"callingHoursStart":"05:30"}`).problem(422, "rule_of_country", "callingHoursStart")
	w.call("PATCH", c+"/live", `{"callingHoursStart":"09:00","callingHoursEnd":"22:00"}`).want(200)
}

// R43, X10: a word that a rule accepts as a way to opt out opts out when a recipient answers it.
func TestComplianceWords(t *testing.T) {
	rules, err := compliance.Open()
	if err != nil {
		t.Fatal(err)
	}
	words, err := keyword.Open()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules.All() {
		if r.Kind != compliance.OptOut {
			continue
		}
		for word := range strings.SplitSeq(r.Value, "|") {
			if got, _ := words.Read(word, ""); got != schemas.ReplyMeaningOptOut {
				t.Errorf("%s: %q is read as %v, want an opt-out", r.Country, word, got)
			}
		}
	}
}

// R43, X14: a test is not checked, because its messages reach the simulator only.
func TestComplianceOfATest(t *testing.T) {
	w := newEnv(t)
	w.callAs(w.admin(), "PUT", "/api/policy", `{"compliance":"refuse"}`).want(200)
	list := w.call("POST", "/api/contacts/list", `{"name":"t","isTest":true}`).want(201).id()
	w.call("POST", "/api/contacts", fmt.Sprintf(`{"phoneNumber":"+33612345600","listIds":[%q]}`, list)).want(201)
	id := w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"c","channel":"sms","message":"Sale!","sendImmediately":true,"contactList":%q}`, list)).want(201).id()
	if got := string(w.call("GET", "/api/campaigns/"+id+"/price", "").want(200).body); strings.Contains(got, "compliance") {
		t.Errorf("got %s, want no findings", got)
	}
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
}

// R43, X10: the proof of a number's consent has its opt-in and every opt-out in their order, with when, by what and the
// text, as JSON and as CSV.
func TestConsentProof(t *testing.T) {
	w := newEnv(t)
	w.relay()
	const number = "+393331234567"
	at := "/api/consent?phoneNumber=%2B393331234567"
	subset(t, "unknown", w.call("GET", at, "").want(200).body, `{"phoneNumber":"`+number+`","optedIn":false,"optedOut":[],"changes":[]}`)
	contact := w.call("POST", "/api/contacts", `{"phoneNumber":"`+number+`","optIn":{"time":"2024-05-06T07:08:09Z","source":"web form"}}`).want(201).id()
	w.call("POST", "/api/suppressions", `{"phoneNumber":"`+number+`","channel":"sms","reason":"=asked by phone"}`).want(201)
	w.call("DELETE", "/api/suppressions?phoneNumber=3331234567", "").want(200)
	w.call("POST", "/api/suppressions", `{"phoneNumber":"`+number+`","channel":"voice"}`).want(201)
	var proof api.Consent
	w.call("GET", at, "").want(200).into(&proof)
	var got []string
	for _, c := range proof.Changes {
		got = append(got, fmt.Sprint(c.Event, " ", c.Channel, " ", c.OptedOut, " ", c.Source))
	}
	want := "opt_in all [] web form; opt_out sms [sms] api; opt_out_lifted all [] api; opt_out voice [voice] api"
	if strings.Join(got, "; ") != want || !proof.OptedIn || fmt.Sprint(proof.OptedOut) != "[voice]" || *proof.Changes[0].ContactID != contact || proof.Changes[1].By == nil || *proof.Changes[1].Text != "=asked by phone" {
		t.Errorf("got %s of %+v, want %s", strings.Join(got, "; "), proof, want)
	}
	file := w.call("GET", "/api/consent/export?phoneNumber=3331234567", "").want(200)
	lines := strings.Split(strings.TrimSpace(string(file.body)), "\n")
	if len(lines) != 5 || !strings.HasPrefix(lines[1], number+",2024-05-06T07:08:09Z,opt_in,all,,web form,,") || !strings.Contains(lines[2], ",opt_out,sms,sms,api,") || !strings.Contains(lines[2], ",'=asked by phone") {
		t.Errorf("got file %q", file.body)
	}
	// The opt-in stands where it happened.
	w.clock.forward(time.Second)
	w.call("PUT", "/api/contacts/"+contact, `{"optIn":{}}`).want(200)
	w.call("GET", at, "").want(200).into(&proof)
	if last := proof.Changes[len(proof.Changes)-1]; last.Event != "opt_in" || fmt.Sprint(last.OptedOut) != "[voice]" || last.Source != "api" {
		t.Errorf("got %+v last, want the opt-in", last)
	}
	// P7: another tenant knows nothing of it.
	_, other := w.newTenant("other")
	subset(t, "another tenant", w.callAs(other, "GET", at, "").want(200).body, `{"optedIn":false,"changes":[]}`)
	w.call("GET", "/api/consent?phoneNumber=x", "").problem(422, "invalid_number", "phoneNumber")
	w.call("GET", "/api/consent/export?phoneNumber=x", "").problem(422, "invalid_number", "phoneNumber")
}
