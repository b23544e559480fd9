package storetest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
)

// webhook creates an active endpoint of a tenant.
func (e *env) webhook(t store.Tenant, name string) store.Resource {
	e.Helper()
	doc, err := json.Marshal(schemas.WebhookSettings{URL: "https://example.com/" + name})
	e.must(err)
	r, err := e.s.CreateResource(e.Context(), store.Resource{Tenant: t.ID, Kind: store.KindWebhook, Name: name, Status: store.WebhookActive, Doc: doc})
	e.must(err)
	return r
}

func hookItem(r store.Resource, event, order string) schemas.WebhookItem {
	return schemas.WebhookItem{
		Tenant: r.Tenant, Endpoint: r.Number, EventID: "evt_" + event, Type: "message.sent", Order: order, Data: []byte(`"x":1}`), Time: start,
	}
}

// due returns the events that are due for an endpoint, in order.
func (e *env) due(r store.Resource) (items []schemas.WebhookItem, names string) {
	e.Helper()
	items, err := e.s.DueWebhooks(e.Context(), r.Number, 100)
	e.must(err)
	var ids []string
	for i := range items {
		ids = append(ids, strings.TrimPrefix(items[i].EventID, "evt_"))
	}
	return items, strings.Join(ids, " ")
}

func (e *env) settle(r store.Resource, h schemas.WebhookHealth, items ...schemas.WebhookItem) {
	e.Helper()
	e.must(e.s.SettleWebhooks(e.Context(), []schemas.WebhookOutcome{{Endpoint: r.Number, Items: items, Health: h}}))
}

var webhookTests = []test{
	{"an event is queued once, and the events of a message come one after another (X6)", func(e *env) {
		t := e.tenant("acme")
		a, b := e.webhook(t, "a"), e.webhook(t, "b")
		items := []schemas.WebhookItem{hookItem(a, "1", "msg_1"), hookItem(a, "2", "msg_1"), hookItem(a, "3", "msg_2"), hookItem(b, "1", "msg_1")}
		for range 2 { // the stage queues them again after a crash
			e.must(e.s.QueueWebhooks(e.Context(), items, []schemas.WebhookReference{{Tenant: t.ID, Message: "msg_1", Reference: "order 7"}}))
		}
		got, names := e.due(a)
		equal(e, "due", names, "1 3")
		equal(e, "reference", got[0].Reference+"|"+got[1].Reference, "order 7|")
		failed := got[0]
		failed.Tries, failed.Due, failed.Error, failed.Status = 1, start.Add(time.Minute), "the endpoint answered 500", 500
		done := got[1]
		done.State, done.Tries, done.Tried, done.Status = schemas.WebhookDone, 1, start, 204
		e.settle(a, schemas.WebhookHealth{Failures: 2, Failing: start}, failed, done)
		_, names = e.due(a)
		equal(e, "due while the first of its message waits", names, "")
		e.clock.add(time.Minute)
		got, names = e.due(a)
		equal(e, "due a minute later", names, "1")
		got[0].State = schemas.WebhookGivenUp
		e.settle(a, schemas.WebhookHealth{}, got[0])
		_, names = e.due(a)
		equal(e, "due after the first was given up", names, "2")
		_, names = e.due(b)
		equal(e, "due for the other endpoint", names, "1")
		list, err := e.s.WebhookItems(e.Context(), t.ID, a.Number, store.WebhookFilter{})
		e.must(err)
		equal(e, "listed", fmt.Sprint(len(list), list[0].EventID, list[0].State, list[0].Status, string(list[0].Data)), fmt.Sprint(3, "evt_3", schemas.WebhookDone, 204, ""))
		state := schemas.WebhookGivenUp
		list, err = e.s.WebhookItems(e.Context(), t.ID, a.Number, store.WebhookFilter{State: &state})
		e.must(err)
		equal(e, "listed as failed", fmt.Sprint(len(list), " ", list[0].EventID, " ", list[0].Error), "1 evt_1 the endpoint answered 500")
	}},
	{"more events than one statement writes stay in order", func(e *env) {
		t := e.tenant("acme")
		a := e.webhook(t, "a")
		var items []schemas.WebhookItem
		var want []string
		for i := range 75 {
			items = append(items, hookItem(a, fmt.Sprint(i), fmt.Sprint("msg_", i)))
			want = append(want, fmt.Sprint(i))
		}
		e.must(e.s.QueueWebhooks(e.Context(), items[:3], nil))
		e.must(e.s.QueueWebhooks(e.Context(), items, nil))
		_, names := e.due(a)
		equal(e, "due", names, strings.Join(want, " "))
	}},
	{"one process delivers to an endpoint, and another takes over when its lease ends", func(e *env) {
		t := e.tenant("acme")
		a, b := e.webhook(t, "a"), e.webhook(t, "b")
		owned := func(owner string) string {
			hs, err := e.s.OwnedWebhooks(e.Context(), owner)
			e.must(err)
			var out []string
			for _, h := range hs {
				out = append(out, fmt.Sprint(h.Endpoint-a.Number, !h.Due.IsZero()))
			}
			return strings.Join(out, ", ")
		}
		claim := func(owner string, most int) { e.must(e.s.ClaimWebhooks(e.Context(), owner, 10*time.Second, most)) }
		e.must(e.s.QueueWebhooks(e.Context(), []schemas.WebhookItem{hookItem(b, "1", "msg_1")}, nil))
		claim("one", 1)
		claim("two", 10)
		equal(e, "first", owned("one"), "0 false")
		equal(e, "second", owned("two"), "1 true")
		e.clock.add(6 * time.Second)
		claim("two", 10)
		e.clock.add(6 * time.Second) // the first process has not renewed its lease in time
		equal(e, "first, silent", owned("one"), "")
		claim("two", 10)
		equal(e, "second takes over", owned("two"), "0 false, 1 true")
		claim("one", 10)
		equal(e, "first, back", owned("one"), "")
		e.must(e.s.ReleaseWebhooks(e.Context(), "two"))
		claim("one", 10)
		equal(e, "after a graceful stop", owned("one"), "0 false, 1 true")
	}},
	{"the stage sees changes, and only active endpoints", func(e *env) {
		t := e.tenant("acme")
		changes := func() int64 {
			n, err := e.s.WebhookChanges(e.Context())
			e.must(err)
			return n
		}
		active := func() string {
			hooks, err := e.s.Webhooks(e.Context())
			e.must(err)
			var out []string
			for i := range hooks {
				out = append(out, hooks[i].URL)
			}
			return strings.Join(out, " ")
		}
		n := changes()
		a := e.webhook(t, "a")
		e.webhook(t, "b")
		if now := changes(); now == n {
			e.Error("a new endpoint is no change")
		}
		equal(e, "active", active(), "https://example.com/a https://example.com/b")
		n = changes()
		e.must(e.s.DisableWebhook(e.Context(), t.ID, a.Number, "it fails"))
		if now := changes(); now == n {
			e.Error("disabling is no change")
		}
		equal(e, "active after one was disabled", active(), "https://example.com/b")
		r, err := e.s.FindResource(e.Context(), t.ID, store.KindWebhook, "a")
		e.must(err)
		var set schemas.WebhookSettings
		e.must(json.Unmarshal(r.Doc, &set))
		equal(e, "disabled", fmt.Sprint(r.Status, " ", set.Reason, " ", set.Disabled.Equal(start)), "disabled it fails true")
		e.settle(a, schemas.WebhookHealth{Failures: 9, Failing: start, NotBefore: start.Add(time.Hour)})
		_, err = e.s.ChangeResource(e.Context(), t.ID, store.KindWebhook, a.Number, 0, func(r *store.Resource) error { r.Status = store.WebhookActive; return nil })
		e.must(err)
		h, _, err := e.s.WebhookHealth(e.Context(), t.ID, a.Number)
		e.must(err)
		equal(e, "health of an endpoint that starts again", fmt.Sprint(h.Failures, h.Failing.IsZero(), h.NotBefore.IsZero()), "0 true true")
	}},
	{"what failed since a time is queued again, and the stage is told to read the log (X6)", func(e *env) {
		t := e.tenant("acme")
		a := e.webhook(t, "a")
		old, young, done := hookItem(a, "old", "1"), hookItem(a, "young", "2"), hookItem(a, "done", "3")
		old.Time = start.Add(-time.Hour)
		e.must(e.s.QueueWebhooks(e.Context(), []schemas.WebhookItem{old, young, done}, nil))
		items, _ := e.due(a)
		for i := range items {
			items[i].State, items[i].Tries = schemas.WebhookGivenUp, 10
		}
		items[2].State = schemas.WebhookDone
		e.settle(a, schemas.WebhookHealth{NotBefore: start.Add(time.Hour)}, items...)
		n, err := e.s.RecoverWebhook(e.Context(), t.ID, a.Number, start)
		e.must(err)
		equal(e, "queued again", n, 1)
		got, names := e.due(a)
		equal(e, "due", names, "young")
		equal(e, "tries", got[0].Tries, 0)
		// A later time does not replace the earlier one.
		_, err = e.s.RecoverWebhook(e.Context(), t.ID, a.Number, start.Add(time.Second))
		e.must(err)
		h, pending, err := e.s.WebhookHealth(e.Context(), t.ID, a.Number)
		e.must(err)
		equal(e, "to be read again", fmt.Sprint(h.Recover.Equal(start), h.NotBefore.IsZero(), pending), "true true 1")
		e.must(e.s.RecoveredWebhook(e.Context(), a.Number, start.Add(time.Second))) // this time belongs to another request
		e.must(e.s.RecoveredWebhook(e.Context(), a.Number, start))
		h, _, err = e.s.WebhookHealth(e.Context(), t.ID, a.Number)
		e.must(err)
		equal(e, "after it was read", h.Recover.IsZero(), true)
	}},
	{"events go a week after they ended, with their endpoint, or when the webhook stage does not fetch them", func(e *env) {
		t := e.tenant("acme")
		a, gone := e.webhook(t, "a"), e.webhook(t, "gone")
		e.must(e.s.QueueWebhooks(e.Context(), []schemas.WebhookItem{hookItem(a, "1", "1"), hookItem(a, "2", "2"), hookItem(gone, "1", "1")},
			[]schemas.WebhookReference{{Tenant: t.ID, Message: "1", Reference: "r"}}))
		items, _ := e.due(a)
		items[0].State = schemas.WebhookDone
		e.settle(a, schemas.WebhookHealth{}, items[0])
		_, err := e.s.ChangeResource(e.Context(), t.ID, store.KindWebhook, gone.Number, 0, func(r *store.Resource) error { r.Deleted = start; return nil })
		e.must(err)
		left := func() string {
			e.must(e.s.Collect(e.Context()))
			var items, refs, health int
			e.must(e.sql.QueryRowContext(e.Context(), "SELECT (SELECT COUNT(*) FROM webhook_items), (SELECT COUNT(*) FROM webhook_references), (SELECT COUNT(*) FROM webhook_health)").Scan(&items, &refs, &health))
			return fmt.Sprint(items, refs, health)
		}
		equal(e, "items, references, endpoints at once", left(), "2 1 1")
		e.clock.add(8 * 24 * time.Hour)
		equal(e, "after a week", left(), "1 1 1")
		e.clock.add(28 * 24 * time.Hour)
		equal(e, "after the life of the log", left(), "0 0 1")
	}},
	{"the moves of a campaign are its changes of state", func(e *env) {
		t := e.limited("acme", 1_000_000)
		c := e.campaign(t, "c", e.list(t, "l", mobile(1)))
		moves, err := e.s.CampaignMoves(e.Context(), t.ID, c.ID())
		e.must(err)
		if len(moves) == 0 || moves[len(moves)-1].To != c.State {
			e.Fatalf("got moves %v of a campaign that is %v", moves, c.State)
		}
		for _, m := range moves {
			if m.From == m.To || m.ID == "" || m.Time.IsZero() {
				e.Errorf("got %+v, want a move with an id and a time", m)
			}
		}
		moves, err = e.s.CampaignMoves(e.Context(), t.ID, "camp_999")
		e.must(err)
		equal(e, "moves of no campaign", len(moves), 0)
	}},
}
