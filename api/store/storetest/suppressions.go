package storetest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

var suppressionTests = []test{
	{"the topic holds a hash, the freeze the number", func(e *env) {
		t := e.tenant("acme")
		e.publish()
		e.must(e.s.Suppress(e.Context(), t.ID, "keyword", mobile(1)))
		hash := e.keys.NumberHash(t.ID, mobile(1))
		key := schemas.SuppressionKey(t.ID, hash)
		row := e.unpublished()[key]
		same(e, decode(e, row, &fanfarev1.Suppression{}), &fanfarev1.Suppression{
			Tenant: t.ID, NumberHash: hash[:], TimeMs: start.UnixMilli(), Source: "keyword",
		})
		if strings.Contains(string(row.Value), "333") || strings.Contains(row.Key, "333") {
			e.Errorf("the number is in the record: %q", row.Value)
		}
		scoped, err := e.s.OptOuts(e.Context(), t.ID, store.OptOutCause{Source: "api"}, store.OptOut{Phone: mobile(2), Channel: sms}, store.OptOut{Phone: mobile(1), Channel: sms})
		e.must(err)
		equal(e, "changes of opt-outs", scoped, 1) // one change: the other number has opted out of all channels
		hash2 := e.keys.NumberHash(t.ID, mobile(2))
		same(e, decode(e, e.unpublished()[schemas.SuppressionKey(t.ID, hash2)], &fanfarev1.Suppression{}), &fanfarev1.Suppression{
			Tenant: t.ID, NumberHash: hash2[:], TimeMs: start.UnixMilli(), Source: "api", Channels: []schemas.Channel{sms},
		})
		e.must(e.s.Lift(e.Context(), t.ID, "api", mobile(2)))
		e.publish()
		e.must(e.s.Suppress(e.Context(), t.ID, "api", mobile(1)))
		if rows := e.unpublished(); len(rows) != 1 || rows[key].Version != 1 { // the topic may have lost the record (P4)
			e.Errorf("got %+v after the same opt-out again, want it published again at version 1", rows)
		}
		e.publish()
		e.must(e.s.Lift(e.Context(), t.ID, "api", mobile(1), mobile(9)))
		if rows := e.unpublished(); len(rows) != 1 || rows[key].Value != nil || rows[key].Version != 2 {
			e.Errorf("got %+v, want one tombstone of version 2", rows)
		}
		e.must(e.s.Republish(e.Context(), schemas.TypeSuppression, key))
		e.publish()
		e.must(e.s.Suppress(e.Context(), t.ID, "api", mobile(1)))
		equal(e, "version after it came back", e.unpublished()[key].Version, 3)
		log, err := e.s.SuppressionLog(e.Context(), t.ID, mobile(1))
		e.must(err)
		var got []string
		for _, l := range log {
			got = append(got, fmt.Sprintf("%s %v %d", l.Source, l.Lifted, l.Version))
		}
		equal(e, "proof", strings.Join(got, ", "), "keyword false 1, api true 2, api false 3")
	}},
	{"what a person did counts once", func(e *env) {
		t := e.tenant("acme")
		fact := func(id, text string) error {
			return e.s.RecordOptOut(e.Context(), &schemas.OptOutFact{
				ID: id, Tenant: t.ID, Phone: mobile(1), Source: "link", By: "msg_1", Text: text, Time: start.Add(-time.Hour),
			})
		}
		e.must(fact("a", strings.Repeat("é", 2000)))
		e.must(fact("a", "again"))
		e.must(e.s.Lift(e.Context(), t.ID, "api", mobile(1)))
		e.must(fact("a", "again, after it was lifted"))
		got, err := e.s.Suppressed(e.Context(), t.ID, mobile(1), sms)
		e.must(err)
		equal(e, "opted out by what was read again", got, false)
		e.must(fact("b", "a new one"))
		e.must(fact("c", "one that changes nothing"))
		e.must(e.s.Lift(e.Context(), t.ID, "api", mobile(1)))
		e.must(fact("c", "again, after it was lifted"))
		log, err := e.s.SuppressionLog(e.Context(), t.ID, mobile(1))
		e.must(err)
		var proof []string
		for _, l := range log {
			proof = append(proof, fmt.Sprintf("%s %s %v %d", l.Source, l.By, l.Lifted, l.Version))
		}
		equal(e, "proof", strings.Join(proof, ", "), "link msg_1 false 1, api  true 2, link msg_1 false 3, link msg_1 false 3, api  true 4")
		equal(e, "time of the fact", log[0].Updated.UnixMilli(), start.Add(-time.Hour).UnixMilli())
		equal(e, "characters kept", len([]rune(log[0].Reason)), 1000)
		other := e.tenant("other") // another tenant may have a fact with the same id
		e.must(e.s.RecordOptOut(e.Context(), &schemas.OptOutFact{ID: "a", Tenant: other.ID, Phone: mobile(1), Source: "link", Time: start}))
		got, err = e.s.Suppressed(e.Context(), other.ID, mobile(1), sms)
		e.must(err)
		equal(e, "opted out of the other tenant", got, true)
		e.wantErr(e.s.RecordOptOut(e.Context(), &schemas.OptOutFact{ID: "a", Tenant: "tn_none", Phone: mobile(1)}), schemas.ErrNotFound)
		if err := e.s.RecordOptOut(e.Context(), &schemas.OptOutFact{ID: "d", Tenant: t.ID, Source: "link", Time: start}); err == nil {
			e.Error("a fact without a number: got no error")
		}
		log, err = e.s.SuppressionLog(e.Context(), t.ID, "")
		e.must(err)
		equal(e, "changes of no number", len(log), 0)
	}},
	{"who has opted out", func(e *env) {
		t := e.tenant("acme")
		e.must(e.s.Suppress(e.Context(), t.ID, "api", mobile(1), mobile(2), mobile(3)))
		e.must(e.s.Lift(e.Context(), t.ID, "api", mobile(2)))
		for i, want := range []bool{false, true, false, true} {
			got, err := e.s.Suppressed(e.Context(), t.ID, mobile(i), sms)
			e.must(err)
			equal(e, mobile(i), got, want)
		}
		page, total, err := e.s.Suppressions(e.Context(), t.ID, store.Page{Number: 1, Limit: 1}, "")
		e.must(err)
		if total != 2 || len(page) != 1 || page[0].Phone != mobile(3) {
			e.Errorf("got %v of %d, want %s of 2", page, total, mobile(3))
		}
		e.wantErr(e.s.Suppress(e.Context(), "tn_none", "api", mobile(1)), schemas.ErrNotFound)
	}},
	{"wait until it is published", func(e *env) {
		t := e.tenant("acme")
		other := e.open() // the relay runs in a second process
		e.must(e.s.Suppress(e.Context(), t.ID, "api", mobile(1), mobile(2)))
		short, cancel := context.WithTimeout(e.Context(), 60*time.Millisecond)
		defer cancel()
		e.wantErr(e.s.WaitPublished(short, t.ID, mobile(1)), context.DeadlineExceeded)
		e.must(e.s.WaitPublished(e.Context(), t.ID, mobile(9))) // the store has no opt-out of this number
		for _, relay := range []*store.Store{e.s, other} {
			done := make(chan error, 1)
			go func() { done <- e.s.WaitPublished(e.Context(), t.ID, mobile(1), mobile(2)) }()
			rows, err := relay.Unpublished(e.Context(), 100)
			e.must(err)
			select {
			case err := <-done:
				e.Fatalf("returned %v before anything was published", err)
			case <-time.After(30 * time.Millisecond):
			}
			e.must(relay.MarkPublished(e.Context(), rows))
			select {
			case err := <-done:
				e.must(err)
			case <-time.After(5 * time.Second):
				e.Fatal("does not return after the relay has published")
			}
			e.must(e.s.Lift(e.Context(), t.ID, "api", mobile(1), mobile(2)))
		}
	}},
}
