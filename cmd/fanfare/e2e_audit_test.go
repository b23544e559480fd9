package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// auditAnswer has the fields of an audit that the tests read.
type auditAnswer struct {
	Status      string
	OK          *bool
	Unexplained int
	Figures     []struct {
		Name   string
		Values []struct {
			Source string
			Value  float64
		}
		Difference  float64
		Explained   bool
		Explanation *string
	}
}

// audit orders an audit of a campaign, and fails the test if it finds an unexplained difference.
func (c *client) audit(t *testing.T, campaign string) (a auditAnswer) {
	t.Helper()
	c.must(t, http.MethodPost, "/api/campaigns/"+campaign+"/audit", nil, &a, "")
	for deadline := time.Now().Add(3 * time.Minute); a.Status != "done"; {
		c.must(t, http.MethodGet, "/api/campaigns/"+campaign+"/audit?wait=30", nil, &a, "")
		if a.Status == "failed" || time.Now().After(deadline) {
			t.Fatalf("audit of %s: got %+v", campaign, a)
		}
	}
	if !*a.OK {
		text, _ := json.MarshalIndent(a, "", " ")
		t.Errorf("audit of %s: %d figures differ without a reason: %s", campaign, a.Unexplained, text)
	}
	return a
}

// value returns a figure as one source counts it.
func (a *auditAnswer) value(t *testing.T, figure, source string) float64 {
	t.Helper()
	for _, f := range a.Figures {
		for _, v := range f.Values {
			if f.Name == figure && v.Source == source {
				return v.Value
			}
		}
	}
	t.Errorf("the audit has no %s of %s: %+v", figure, source, a.Figures)
	return -1
}

// X16, X18: audits of a campaign while it is sent through a misbehaving carrier, over a kill -9, and after it has
// settled: the log, the statistics, the ledger and the carrier's own record agree, or the audit explains the
// difference. Statistics that are rebuilt from the log while another campaign is being sent are identical.
func TestAuditAndRebuildWhileTrafficGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute; left out by -short")
	}
	const people = 3000
	w := newEmbeddedEnv(t, 400, "--receipt-window", "15s", "--sim-profile", "chaos", "--log-level", "warn")
	api := w.api()
	var csv bytes.Buffer
	csv.WriteString("phone,first_name\n")
	for i := range people {
		fmt.Fprintf(&csv, "+39347%07d,Anna\n", i)
	}
	var list struct{ ID string }
	api.must(t, http.MethodPost, "/api/contacts/list", map[string]any{"name": "people"}, &list, "")
	api.must(t, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", &csv, nil, "text/csv")
	send := func(name string) string {
		var made struct{ ID string }
		api.must(t, http.MethodPost, "/api/campaigns", map[string]any{
			"name": name, "channel": "sms", "message": "Ciao {{first_name}}", "contactList": list.ID, "sendImmediately": true, "maxRetries": 1, "retryDelay": 1,
		}, &made, "")
		api.must(t, http.MethodPut, "/api/campaigns/"+made.ID+"/confirm", nil, nil, "")
		return made.ID
	}
	stats := func(id string) (s statsAnswer) {
		api.must(t, http.MethodGet, "/api/campaigns/"+id+"/stats", nil, &s, "")
		return s
	}
	until := func(id, what string, ok func(statsAnswer) bool) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
			if s := stats(id); ok(s) {
				return
			} else if time.Now().After(deadline) {
				t.Fatalf("%s: not %s: %+v", id, what, s)
			}
		}
	}
	first := send("First")
	audits := 0
	for s := stats(first); s.Sent < people/2; s = stats(first) {
		api.audit(t, first)
		audits++
	}
	w.kill(t, 0)
	for s := stats(first); s.State != "completed"; s = stats(first) {
		api.audit(t, first)
		audits++
	}
	until(first, "settled", func(s statsAnswer) bool { return s.Settled })
	if audits == 0 {
		t.Error("no audit ran while the campaign was sent")
	}
	second := send("Second")
	until(second, "sending", func(s statsAnswer) bool { return s.Sent > 0 })
	// Rebuild the statistics of the first campaign while the second is being sent.
	out, err := exec.Command(fanfareBinary(t), "rebuild", "--data", w.dir, "--campaign", first).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Identical: 1 campaigns.") {
		t.Errorf("rebuild while traffic goes on: got %v\n%s", err, out)
	}
	if s := stats(second); s.State == "completed" {
		t.Errorf("the second campaign was completed before the rebuild ended: %+v", s)
	}
	a := api.audit(t, first)
	if total, dealt := a.value(t, "totalMessages", "log"), a.value(t, "dealt", "log"); total != people || dealt != people {
		t.Errorf("got %v recipients, %v of them dealt, want %d", total, dealt, people)
	}
	if billed, captured := a.value(t, "billed", "log"), a.value(t, "billed", "ledger"); billed != captured || billed == 0 {
		t.Errorf("got %v in the log and %v in the ledger, want the same, and not nothing", billed, captured)
	}
	if a.value(t, "takenByCarrier", "carrier") < people/2 {
		t.Errorf("got %+v, want the carrier's own record", a)
	}
	printed := runBinary(t, "campaign", "audit", first, "--server", api.base, "--key", api.key)
	if !strings.Contains(printed, "delivered") || !strings.Contains(printed, "equal") || strings.Contains(printed, "UNEXPLAINED") {
		t.Errorf("fanfare campaign audit: got %s", printed)
	}
	t.Logf("%d audits while the first campaign was sent; at the end:\n%s", audits, printed)
	until(second, "completed", func(s statsAnswer) bool { return s.State == "completed" })
	w.stop(t)
}
