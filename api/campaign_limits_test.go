package api_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
)

// C13: a confirm may be bound to a price; rates and texts move it.
func TestPriceGuard(t *testing.T) {
	w := newEnv(t)
	id := w.campaign(4, "")
	path := "/api/campaigns/" + id
	price := w.call("GET", path+"/price", "").want(200).object()
	version := price["priceVersion"].(string)
	if again := w.call("GET", path+"/price", "").object()["priceVersion"]; again != version {
		t.Errorf("priceVersion: got %v, want the same %v as before", again, version)
	}
	w.call("PUT", path+"/confirm", `{"expectedCost":0.19}`).problem(409, "price_changed", "")
	w.call("PUT", path+"/confirm", `{"priceVersion":"pv_other"}`).problem(409, "price_changed", "")
	w.check(w.store.SetPrice(t.Context(), w.tenant.ID, schemas.ChannelSMS, 60_000))
	w.call("PUT", path+"/confirm", fmt.Sprintf(`{"expectedCost":0.20,"priceVersion":%q}`, version)).problem(409, "price_changed", "")
	w.clock.forward(3 * time.Second)
	now := w.call("GET", path+"/price", "").want(200).object()
	if now["priceVersion"] == version || now["estimatedCost"].(float64) != 0.24 {
		t.Errorf("after another rate: got %v, want another version and 0.24", now)
	}
	w.call("PUT", path+"/confirm", fmt.Sprintf(`{"expectedCost":0.24,"priceVersion":%q}`, now["priceVersion"])).want(200)
	subset(t, "after confirm", w.call("GET", path+"/price", "").want(200).body, `{"estimatedCost":0.24,"totalContacts":4}`)
	subset(t, "hypothetical after confirm", w.call("POST", path+"/calculateGoal", `{"goalContactCount":100}`).want(200).body, `{"estimatedCost":6.00,"basis":"goal"}`)
	w.call("POST", path+"/calculateGoal", `{"goalContactCount":-1}`).problem(422, "invalid_value", "goalContactCount")
	w.call("POST", path+"/calculateGoal", `{"goalContactCount":1000001}`).problem(422, "too_many_contacts", "goalContactCount")
	w.call("POST", path+"/calculateGoal", `{"goalContactCount":"many"}`).problem(422, "invalid_value", "goalContactCount")
}

// C14: a text with fields is priced by what it becomes for real contacts.
func TestPriceOfMergeFields(t *testing.T) {
	w := newEnv(t)
	list := w.call("POST", "/api/contacts/list", `{"name":"names"}`).want(201).id()
	number, _ := store.ListNumber(list)
	for i, name := range []string{"Al", strings.Repeat("Bartholomew ", 15)} {
		c, err := w.store.CreateContact(t.Context(), store.Contact{Tenant: w.tenant.ID, Phone: phoneOf(i), FirstName: name})
		w.check(err)
		_, err = w.store.AddToList(t.Context(), w.tenant.ID, number, []uint64{c.Number})
		w.check(err)
	}
	id := w.call("POST", "/api/campaigns", `{"name":"N","channel":"sms","message":"Dear {{first_name}}, welcome","contactList":"names"}`).want(201).id()
	subset(t, "one of 1 and one of 2 segments", w.call("GET", "/api/campaigns/"+id+"/price", "").want(200).body, `{"totalContacts":2,"estimatedCost":0.15,"segments":2,"maxCost":0.90}`)
}

// R108, P4: money is reserved at confirm, the most that it can cost, and given back.
func TestMoney(t *testing.T) {
	w := newEnv(t)
	w.check(w.store.SetCredit(t.Context(), w.tenant.ID, 1_000_000, false))
	id := w.campaign(6, `,"scheduledTime":"2025-04-15T09:00:00Z"`) // 6 × 0.05 × 3 hand-overs = 0.90
	dear := w.campaign(21, "")                                     // 1.05 with one hand-over each
	p := w.call("PUT", "/api/campaigns/"+dear+"/confirm", "").problem(402, "insufficient_credit", "")
	if !strings.Contains(p["detail"].(string), "1.05") || !strings.Contains(p["detail"].(string), "1.00") {
		t.Errorf("402: got %q, want what it may cost and what there is", p["detail"])
	}
	subset(t, "maxCost", w.call("GET", "/api/campaigns/"+id+"/price", "").body, `{"estimatedCost":0.30,"maxCost":0.90}`)
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	if b, err := w.store.Balance(t.Context(), w.tenant.ID); err != nil || b.Reserved != 900_000 || b.Available != 100_000 {
		t.Errorf("after confirm: got %+v %v, want 0.90 reserved of 1.00", b, err)
	}
	w.call("DELETE", "/api/campaigns/"+id, "").want(200)
	if b, err := w.store.Balance(t.Context(), w.tenant.ID); err != nil || b.Reserved != 0 || b.Available != 1_000_000 {
		t.Errorf("after cancel: got %+v %v, want all of it back", b, err)
	}
}

// R154, C22: at most ten active campaigns, also when many are confirmed at once.
func TestActiveLimit(t *testing.T) {
	w := newEnv(t)
	list := w.list("l", 1, 0)
	var ids []string
	for range 14 {
		ids = append(ids, w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"N","channel":"sms","message":"m","contactList":%q}`, list)).want(201).id())
	}
	var wg sync.WaitGroup
	statuses := make([]int, len(ids))
	for i, id := range ids {
		wg.Go(func() { statuses[i] = w.call("PUT", "/api/campaigns/"+id+"/confirm", "").status })
	}
	wg.Wait()
	ok := 0
	for _, s := range statuses {
		if s == 200 {
			ok++
		} else if s != 409 {
			t.Errorf("confirm: got %d, want 200 or 409", s)
		}
	}
	if ok != 10 {
		t.Errorf("14 at once: got %d confirmed, want 10", ok)
	}
	if i := slices.Index(statuses, 409); i >= 0 {
		w.call("PUT", "/api/campaigns/"+ids[i]+"/confirm", "").problem(409, "too_many_active_campaigns", "")
	}
}

// R153: at most so many contacts.
func TestContactLimit(t *testing.T) {
	w := newEnv(t, func(w *env) {
		_, err := w.store.UpdateTenant(t.Context(), w.tenant.ID, 0, func(tn *store.Tenant) error { tn.MaxContacts = 2; return nil })
		w.check(err)
	})
	id := w.campaign(3, "")
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").problem(422, "too_many_contacts", "contactList")
}

// R45: the flag of the tenant.
func TestCampaignsFlag(t *testing.T) {
	w := newEnv(t)
	id := w.campaign(1, "")
	_, err := w.store.UpdateTenant(t.Context(), w.tenant.ID, 0, func(tn *store.Tenant) error { tn.CampaignsEnabled = false; return nil })
	w.check(err)
	w.clock.forward(3 * time.Second)
	w.call("POST", "/api/campaigns", `{"name":"N","channel":"sms","draft":true}`).problem(403, "campaigns_disabled", "")
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").problem(403, "campaigns_disabled", "")
	w.call("POST", "/api/campaigns/"+id+"/duplicate", "").problem(403, "campaigns_disabled", "")
	w.call("GET", "/api/campaigns/"+id, "").want(200)
}
