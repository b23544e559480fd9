package api_test

import (
	"fmt"
	"strings"
	"testing"

	"fanfare/api"
)

// The account says what its keys may spend and do.
func TestAccount(t *testing.T) {
	w := newEnv(t)
	subset(t, "unlimited", w.call("GET", "/api/account", "").want(200).body,
		`{"name":"Acme","currency":"EUR","timezone":"Europe/Rome","region":"IT","balance":null,"reserved":0,"spent":0,"campaignsEnabled":true,"testKey":false,"limits":{"activeCampaigns":10,"contacts":1000000,"segments":3}}`)
	w.check(w.store.SetCredit(t.Context(), w.tenant.ID, 12_345_678, false))
	id := w.campaign(3, `,"sendImmediately":true,"maxRetries":0`)
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	subset(t, "limited", w.call("GET", "/api/account", "").want(200).body, `{"balance":12.195678,"reserved":0.15}`)
	subset(t, "test key", w.callAs(w.newKey(w.tenant.ID, nil, true), "GET", "/api/account", "").want(200).body, `{"testKey":true}`)
}

// The ledger is double entry: what its accounts say is what the balance says, whichever way it is read.
func TestLedger(t *testing.T) {
	w := newEnv(t)
	w.check(w.store.SetCredit(t.Context(), w.tenant.ID, 1_000_000, false))
	for range 4 {
		_, err := w.store.TopUp(t.Context(), w.tenant.ID, 500_000, "top-up, by hand")
		w.check(err)
	}
	id := w.campaign(2, `,"sendImmediately":true,"maxRetries":0`)
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	sums := map[string]int64{}
	rows := 0
	for at := "/api/account/ledger?limit=2"; ; {
		var page struct {
			Data []struct {
				From, To     string
				AmountMicros uint64
				CampaignID   *string
			} `json:"data"`
			Total int     `json:"total"`
			Next  *string `json:"next"`
		}
		w.call("GET", at, "").want(200).into(&page)
		for _, e := range page.Data {
			sums[e.From] -= int64(e.AmountMicros)
			sums[e.To] += int64(e.AmountMicros)
			if rows == 0 && (e.From != "available" || e.To != "reserved" || e.AmountMicros != 100_000 || e.CampaignID == nil || *e.CampaignID != id) {
				t.Errorf("newest: got %+v, want the reservation", e)
			}
			rows++
		}
		if page.Next == nil {
			if rows != page.Total {
				t.Errorf("got %d rows, want %d", rows, page.Total)
			}
			break
		}
		at = "/api/account/ledger?limit=2&cursor=" + *page.Next
	}
	if sums["available"] != 2_900_000 || sums["reserved"] != 100_000 || sums["outside"] != -3_000_000 {
		t.Errorf("accounts: got %v, want 2.9, 0.1 and -3", sums)
	}
	subset(t, "of a campaign", w.call("GET", "/api/account/ledger?campaignId="+id, "").want(200).body, `{"total":1}`)
	w.call("GET", "/api/account/ledger?campaignId=camp_1", "").problem(404, "not_found", "")
	w.call("GET", "/api/account/ledger?cursor=x", "").problem(422, "invalid_value", "cursor")
	csv := string(w.call("GET", "/api/account/ledger/export", "").want(200).body)
	if lines := strings.Split(strings.TrimSpace(csv), "\n"); len(lines) != rows+1 || lines[0] != "id,time,from,to,amountMicros,campaignId,note" || !strings.Contains(lines[2], `"top-up, by hand"`) {
		t.Errorf("CSV: got %s, want a header and %d rows", csv, rows)
	}
	w.call("GET", "/api/account/ledger/export?campaignId=camp_1", "").problem(404, "not_found", "")
}

// A campaign that cannot be paid says what is missing.
func TestMissingCredit(t *testing.T) {
	w := newEnv(t)
	w.check(w.store.SetCredit(t.Context(), w.tenant.ID, 100_000, false))
	id := w.campaign(3, `,"sendImmediately":true,"maxRetries":0`)
	p := w.call("PUT", "/api/campaigns/"+id+"/confirm", "").problem(402, "insufficient_credit", "")
	if want := "0.05 is missing"; !strings.Contains(p["detail"].(string), want) {
		t.Errorf("got %q, want that %s", p["detail"], want)
	}
}

// Tags are counted, renamed and taken off.
func TestTags(t *testing.T) {
	w := newEnv(t)
	w.list("l", 1, 0)
	ids := make([]string, 3)
	for i, tags := range []string{`["Spring","sale"]`, `["spring"]`, `["sale"]`} {
		ids[i] = w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"N","channel":"sms","message":"m","contactList":"l","tags":%s}`, tags)).want(201).id()
	}
	all := func() string { return string(w.call("GET", "/api/tags", "").want(200).body) }
	if got := all(); !strings.Contains(got, `{"tag":"sale","campaigns":2},{"tag":"spring","campaigns":2}`) {
		t.Errorf("got %s, want two of each", got)
	}
	subset(t, "rename", w.call("PUT", "/api/tags/SPRING", `{"tag":"Sale"}`).want(200).body, `{"changed":2}`)
	if got := all(); !strings.Contains(got, `[{"tag":"sale","campaigns":3}]`) {
		t.Errorf("renamed: got %s, want one tag of three", got)
	}
	subset(t, "once", w.call("GET", "/api/campaigns/"+ids[0], "").body, `{"tags":["Sale"]}`)
	subset(t, "delete", w.call("DELETE", "/api/tags/sale", "").want(200).body, `{"changed":3}`)
	w.call("DELETE", "/api/tags/sale", "").problem(404, "not_found", "")
	w.call("PUT", "/api/tags/x", `{"tag":"a|b"}`).problem(422, "invalid_value", "tag")
}

// A list that campaigns use which have not ended is not deleted by accident; what was confirmed keeps its audience.
func TestDeleteUsedList(t *testing.T) {
	w := newEnv(t)
	list := w.list("l", 3, 0)
	other := w.list("other", 1, 0)
	create := func(lists string) string {
		return w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"Spring \"sale\"","channel":"sms","message":"m","sendImmediately":true,"contactList":%s}`, lists)).want(201).id()
	}
	draft, confirmed := create(`["other","l"]`), create(`"l"`)
	w.call("PUT", "/api/campaigns/"+confirmed+"/confirm", "").want(200)
	p := w.call("DELETE", "/api/contacts/list/l", "").problem(409, "list_in_use", "")
	for _, want := range []string{draft, confirmed, `Spring`} {
		if !strings.Contains(p["detail"].(string), want) {
			t.Errorf("got %q, want it to name %s", p["detail"], want)
		}
	}
	w.call("GET", "/api/contacts/list/"+list, "").want(200)
	w.call("DELETE", "/api/contacts/list?id=l", "").problem(409, "list_in_use", "")
	w.call("DELETE", "/api/contacts/list?id=l&force=true", "").want(200)
	c, err := w.store.Campaign(t.Context(), w.tenant.ID, confirmed)
	w.check(err)
	w.check(w.store.Freeze(t.Context(), w.tenant.ID, confirmed, c.Version))
	if c, err = w.store.Campaign(t.Context(), w.tenant.ID, confirmed); err != nil || c.Total != 3 {
		t.Errorf("audience of what was confirmed: got %d, %v, want 3", c.Total, err)
	}
	w.call("DELETE", "/api/contacts/list/"+other, "").problem(409, "list_in_use", "")
	w.call("DELETE", "/api/campaigns/"+draft, "").want(200)
	w.call("DELETE", "/api/contacts/list/"+other, "").want(200)
}

// X10: an opt-out has a source and a reason, its history is only added to, and files of opt-outs come in and go out.
func TestOptOutFiles(t *testing.T) {
	w := newEnv(t)
	w.relay()
	subset(t, "reason", w.call("POST", "/api/suppressions", `{"phoneNumber":"+393331234567","reason":" asked by phone "}`).want(201).body,
		`{"source":"api","reason":"asked by phone","suppressed":true}`)
	w.call("POST", "/api/suppressions", `{"phoneNumber":"+393331234567","reason":"`+strings.Repeat("x", 201)+`"}`).problem(422, "too_long", "reason")
	const file = "Cellulare;reason\n333 1234567;again\n3331234568;complained\nnonsense;x\n+393331234568;twice\n"
	var got api.SuppressionImport
	w.call("POST", "/api/suppressions/import", file, csv).want(200).into(&got)
	if got.Rows != 4 || got.Added != 1 || got.Known != 2 || got.Invalid != 1 || len(got.Rejected) != 1 || got.Rejected[0].Line != 4 || !got.InEffect {
		t.Errorf("import: got %+v, want 1 new of 4", got)
	}
	w.call("POST", "/api/suppressions/import", file, csv).want(200).into(&got)
	if got.Added != 0 {
		t.Errorf("again: got %+v, want nothing new", got)
	}
	w.call("DELETE", "/api/suppressions", `{"phoneNumber":"+393331234567","reason":"START"}`).want(200)
	history := string(w.call("GET", "/api/suppressions/history?phoneNumber=%2B393331234567", "").want(200).body)
	keys, err := w.store.Keys(t.Context(), w.tenant.ID)
	w.check(err)
	for _, want := range []string{`"total":2`, `{"suppressed":true,"channel":"all","channels":["all"],"source":"api","reason":"asked by phone","by":"` + keys[0].ID + `"`, `{"suppressed":false,"channel":"all","channels":[],"source":"api","reason":"START"`} {
		if !strings.Contains(history, want) {
			t.Errorf("history: got %s, want %s", history, want)
		}
	}
	export := string(w.call("GET", "/api/suppressions/export", "").want(200).body)
	if want := "phone,channels,source,reason,since\n+393331234568,all,import,complained,2025-04-01T09:00:00Z\n"; export != want {
		t.Errorf("export: got %q, want %q", export, want)
	}
	w.call("POST", "/api/suppressions/import", "name\nAnna\n", csv).problem(422, "invalid_value", "file")
	w.call("POST", "/api/suppressions/import?region=XX", file, csv).problem(422, "invalid_value", "region")
	w.call("GET", "/api/suppressions/history", "").want(422)
	// X14: a test key changes no opt-out.
	w.callAs(w.newKey(w.tenant.ID, nil, true), "POST", "/api/suppressions/import", file, csv).problem(403, "test_key", "")
}
