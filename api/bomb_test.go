package api_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"fanfare/api/store"
)

// A template bomb costs no more memory than the request itself does: 150 kB of {{a}} with a long value would render 900
// MiB, one of just under 1 MiB 22 GB. Rendering stops at what the tenant's segments allow, in a send and in a price.
func TestTemplateBomb(t *testing.T) {
	w := newEnvOf(t) // alone: it measures the memory of the process
	value := strings.Repeat("v", 30_000)
	bomb := strings.Repeat("{{a}}", 30_000)
	peak := func(name string, most uint64, do func()) {
		t.Helper()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		do()
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > most {
			t.Errorf("%s: got %d MiB allocated, want at most %d", name, used>>20, most>>20)
		}
	}
	peak("send", 32<<20, func() {
		w.call("POST", sendPath, fmt.Sprintf(`{"phoneNumber":"+393331234567","message":%q,"variables":{"a":%q}}`, bomb, value)).
			problem(422, "too_long", "message")
	})
	// A campaign's text has at most 160 characters, and a tenant with the most segments 39,015: 7,803 fields of 1 KB
	// for 1,000 contacts.
	_, err := w.store.UpdateTenant(t.Context(), w.tenant.ID, 0, func(tn *store.Tenant) error { tn.MaxSegments = 255; return nil })
	w.check(err)
	w.clock.forward(3 * 1e9) // the key's cached tenant
	list := w.list("bombed", 3, 1)
	number, _ := store.ListNumber(list)
	rows, _, err := w.store.Contacts(t.Context(), w.tenant.ID, store.ContactFilter{List: number})
	w.check(err)
	for _, c := range rows {
		_, err := w.store.UpdateContact(t.Context(), w.tenant.ID, c.Number, 0, func(c *store.Contact) error {
			c.Attributes = map[string]string{"a": value[:900]}
			return nil
		})
		w.check(err)
	}
	id := w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"C","channel":"sms","message":%q,"contactList":%q,"maxSegments":255}`, bomb[:5*7800], list)).want(201).id()
	peak("price", 32<<20, func() { w.call("GET", "/api/campaigns/"+id+"/price", "").want(200) })
}
