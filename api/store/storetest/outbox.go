package storetest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// unpublished returns the rows that the relay has to publish, by key.
func (e *env) unpublished() map[string]schemas.OutboxRow {
	e.Helper()
	rows, err := e.s.Unpublished(e.Context(), 1000)
	e.must(err)
	out := map[string]schemas.OutboxRow{}
	for _, r := range rows {
		if _, twice := out[r.Key]; twice {
			e.Errorf("key %s comes twice", r.Key)
		}
		out[r.Key] = r
	}
	return out
}

// published returns a campaign's record as it will be in the topic.
func (e *env) published(c store.Campaign) *fanfarev1.Campaign {
	e.Helper()
	row, ok := e.unpublished()[schemas.CampaignKey(c.Tenant, c.ID())]
	if !ok {
		e.Fatalf("campaign %s has nothing to publish", c.ID())
	}
	return decode(e, row, &fanfarev1.Campaign{})
}

// publish marks all rows as published.
func (e *env) publish() {
	e.Helper()
	e.must(e.s.MarkPublished(e.Context(), slices.Collect(maps.Values(e.unpublished()))))
	if left := e.unpublished(); len(left) != 0 {
		e.Errorf("got %v left after publishing all, want none", slices.Collect(maps.Keys(left)))
	}
}

// publishedRows returns all published rows by key. It reads them in pages.
func (e *env) publishedRows(limit int) map[string]schemas.PublishedRow {
	e.Helper()
	out := map[string]schemas.PublishedRow{}
	for after := ""; ; {
		rows, next, err := e.s.Published(e.Context(), after, limit)
		e.must(err)
		for _, r := range rows {
			if _, twice := out[r.Key]; twice {
				e.Errorf("key %s comes twice", r.Key)
			}
			out[r.Key] = r
		}
		if next == "" {
			return out
		}
		if len(rows) > limit || next == after {
			e.Fatalf("got %d rows and then %q after %q, want at most %d and to go on", len(rows), next, after, limit)
		}
		after = next
	}
}

func decode[M proto.Message](e *env, row schemas.OutboxRow, into M) M {
	e.Helper()
	e.must(proto.Unmarshal(row.Value, into))
	return into
}

// same fails unless two records have equal fields.
func same(e *env, got, want proto.Message) {
	e.Helper()
	if !proto.Equal(got, want) {
		e.Errorf("got record\n%s\nwant\n%s", prototext.Format(got), prototext.Format(want))
	}
}

var outboxTests = []test{
	{"records say all that the row says", func(e *env) {
		t := e.tenant("acme")
		_, err := e.s.UpdateTenant(e.Context(), t.ID, 0, func(t *store.Tenant) error { t.Rate, t.Weight = 9, 3; return nil })
		e.must(err)
		_, err = e.s.PutSender(e.Context(), store.Sender{Tenant: t.ID, ID: "SHOP", Rate: 4})
		e.must(err)
		_, _, err = e.s.EnsureRoute(e.Context(), store.Route{
			Name: "sim", Channels: []schemas.Channel{sms}, Connector: "sim", Rate: 2000, Burst: 5, P99: time.Second, ReceiptWindow: time.Hour, Enabled: true,
			Care: store.Care{DownAfter: time.Minute, FailurePercent: 7, FailureSample: 11, AutoResume: true, NoFailover: true},
		})
		e.must(err)
		l := e.list(t, "l", mobile(1))
		c, err := e.s.CreateCampaign(e.Context(), store.Campaign{Tenant: t.ID, State: configured, Spec: store.Spec{
			TestRun: true, Name: "c", Chain: []schemas.Channel{sms}, Body: "Hi", TemplateID: "tpl", Lists: []uint64{l.Number}, Tags: []string{"x"},
			CallingHours: &store.Hours{Start: 540, End: 1200, Zone: "Europe/Rome"}, MaxSegments: 2, Rate: 7, Weight: 3, Validity: time.Hour,
			ReceiptWindow: 2 * time.Hour, Missing: schemas.MissingPolicyDefault, MissingDefault: "you", ReplayOf: 10001,
		}}, user)
		e.must(err)
		c = e.confirm(c, 0)
		c, _ = e.freeze(c)
		rows := e.unpublished()
		same(e, decode(e, rows["tenant/"+t.ID], &fanfarev1.Control{}), &fanfarev1.Control{Version: 2, Row: &fanfarev1.Control_Tenant{Tenant: &fanfarev1.Tenant{
			Id: t.ID, Rate: 9, Weight: 3, Enabled: true, Timezone: "Europe/Rome", Region: "IT",
		}}})
		same(e, decode(e, rows["sender/"+t.ID+"/SHOP"], &fanfarev1.Control{}), &fanfarev1.Control{Version: 1, Row: &fanfarev1.Control_Sender{
			Sender: &fanfarev1.Sender{Tenant: t.ID, Id: "SHOP", Rate: 4},
		}})
		same(e, decode(e, rows["route/sim"], &fanfarev1.Control{}), &fanfarev1.Control{Version: 1, Row: &fanfarev1.Control_Route{Route: &fanfarev1.Route{
			Name: "sim", Channels: []schemas.Channel{sms}, Connector: "sim", Rate: 2000, Burst: 5, P99Ms: 1000, ReceiptWindowMs: 3_600_000, Enabled: true,
			Care: &fanfarev1.RouteCare{DownAfterMs: 60_000, FailurePercent: 7, FailureSample: 11, AutoResume: true, NoFailover: true},
		}}})
		row := rows[schemas.CampaignKey(t.ID, c.ID())]
		if row.Type != schemas.TypeCampaign || row.Tenant != t.ID || row.Version != c.Version || row.Time.IsZero() {
			e.Errorf("got row %+v", row)
		}
		same(e, decode(e, row, &fanfarev1.Campaign{}), &fanfarev1.Campaign{
			Tenant: t.ID, Id: c.ID(), Number: c.Number, Version: 3, State: preparing, Name: "c", Tags: []string{"x"},
			Legs:         []*fanfarev1.Leg{{Channel: sms, Route: "sim", Sender: "FANFARE", PriceMicros: 50_000, MaxHandovers: 3, BackoffMs: []int64{60_000}}},
			Content:      &fanfarev1.Content{Body: "Hi", TemplateId: "tpl", Missing: schemas.MissingPolicyDefault, MissingDefault: "you"},
			CallingHours: &fanfarev1.CallingHours{StartMinute: 540, EndMinute: 1200, Timezone: "Europe/Rome"}, MaxSegments: 2, ValidityMs: 3_600_000,
			ReceiptWindowMs: 7_200_000, Rate: 7, Weight: 3, FreezeId: c.FreezeID, Total: 1, Test: true, Region: "IT", Currency: "EUR",
			Lists: []string{l.ID()}, ReplayOf: "camp_10001", CreatedMs: start.UnixMilli(), ConfirmedMs: start.UnixMilli(),
		})
	}},
	{"published is what has not moved", func(e *env) {
		t := e.tenant("acme")
		c := e.campaign(t, "c", e.list(t, "l", mobile(1)))
		seen := e.unpublished()
		moved := e.confirm(c, 0)
		e.must(e.s.MarkPublished(e.Context(), slices.Collect(maps.Values(seen))))
		left := e.unpublished()
		key := schemas.CampaignKey(t.ID, c.ID())
		if len(left) != 1 || left[key].Version != moved.Version {
			e.Errorf("got %v left, want the campaign at version %d", left, moved.Version)
		}
		e.publish()
		for _, r := range []struct {
			typ schemas.EventType
			key string
		}{{schemas.TypeCampaign, key}, {schemas.TypeControl, "tenant/" + t.ID}, {schemas.TypeControl, "sender/" + t.ID + "/FANFARE"}} {
			e.must(e.s.Republish(e.Context(), r.typ, r.key))
			if _, ok := e.unpublished()[r.key]; !ok {
				e.Errorf("%s is not unpublished again", r.key)
			}
		}
		e.publish()
		e.wantErr(e.s.Republish(e.Context(), schemas.TypeCampaign, t.ID+"/camp_5"), schemas.ErrNotFound)
		if err := e.s.Republish(e.Context(), schemas.TypeCursor, "x"); err == nil {
			e.Error("got no error for a key that is none of the store's")
		}
	}},
	{"published rows are found in pages, to be compared with the topics", func(e *env) {
		a, b := e.tenant("acme"), e.tenant("bolt")
		_, _, err := e.s.EnsureRoute(e.Context(), store.Route{
			Name: "sim", Channels: []schemas.Channel{sms}, Connector: "sim", Rate: 2000, Burst: 5, P99: time.Second, ReceiptWindow: time.Hour, Enabled: true,
		})
		e.must(err)
		c := e.campaign(a, "c", e.list(a, "l", mobile(1)))
		gone := e.campaign(b, "gone")
		e.must(e.s.Suppress(e.Context(), a.ID, "api", mobile(1), mobile(2), mobile(3)))
		e.must(e.s.Suppress(e.Context(), b.ID, "api", mobile(1)))
		e.must(e.s.Lift(e.Context(), a.ID, "api", mobile(2)))
		e.must(e.s.DeleteSender(e.Context(), a.ID, "FANFARE"))
		equal(e, "published rows before any is", len(e.publishedRows(100)), 0)
		want := map[string]schemas.PublishedRow{}
		for key, r := range e.unpublished() {
			want[key] = schemas.PublishedRow{Type: r.Type, Key: key, Version: r.Version, Tombstone: r.Value == nil}
		}
		e.publish()
		for _, limit := range []int{1, 2, 3, 100} {
			if diff := cmp.Diff(want, e.publishedRows(limit)); diff != "" {
				e.Errorf("in pages of %d (-want +got):\n%s", limit, diff)
			}
		}
		suppressed := schemas.SuppressionKey(a.ID, e.keys.NumberHash(a.ID, mobile(1)))
		lifted := schemas.SuppressionKey(a.ID, e.keys.NumberHash(a.ID, mobile(2)))
		e.must(e.s.Republish(e.Context(), schemas.TypeSuppression, suppressed, lifted, a.ID+"/0000000000000000"))
		_, err = e.s.UpdateCampaign(e.Context(), b.ID, gone.ID(), 0, user, move(cancelled, schemas.TriggerCancel))
		e.must(err)
		rows := e.publishedRows(2)
		for _, key := range []string{suppressed, lifted, schemas.CampaignKey(b.ID, gone.ID())} {
			if r, ok := rows[key]; ok {
				e.Errorf("got %+v, want it left out while its newest version is unpublished", r)
			}
		}
		e.publish()
		e.clock.add(8 * 24 * time.Hour) // the record of the cancelled campaign is removed from the topic
		e.publish()
		rows = e.publishedRows(2)
		equal(e, "tombstone of the campaign that was cancelled", rows[schemas.CampaignKey(b.ID, gone.ID())].Tombstone, true)
		equal(e, "tombstone of the other", rows[schemas.CampaignKey(a.ID, c.ID())].Tombstone, false)
		if _, _, err := e.s.Published(e.Context(), "nowhere", 1); err == nil {
			e.Error("got no error for a place that is none")
		}
	}},
	{"changes wake the process that makes them", func(e *env) {
		woken := func(what string, do func()) {
			e.Helper()
			ch := e.s.Changed()
			do()
			select {
			case <-ch:
			default:
				e.Errorf("%s: did not wake", what)
			}
		}
		var t store.Tenant
		woken("tenant", func() { t = e.tenant("acme") })
		var c store.Campaign
		l := e.list(t, "l", mobile(1))
		woken("campaign", func() { c = e.campaign(t, "c", l) })
		woken("confirm", func() { c = e.confirm(c, 0) })
		woken("freeze", func() { c, _ = e.freeze(c) })
		woken("apply", func() { c = e.apply(c, sending, schemas.TriggerDeal) })
		woken("suppress", func() { e.must(e.s.Suppress(e.Context(), t.ID, "api", mobile(1))) })
		woken("singles", func() { _, err := e.s.LeaseSeqs(e.Context(), t.ID, start, 1); e.must(err) })
		ch := e.s.Changed()
		_, err := e.s.TopUp(e.Context(), t.ID, 1, "")
		e.must(err)
		select {
		case <-ch:
			e.Error("woke for something that is not published")
		default:
		}
	}},
	{"a flood of one kind does not hold up another", func(e *env) {
		t := e.tenant("acme")
		e.publish()
		var phones []string
		for i := range 50 {
			phones = append(phones, mobile(i))
		}
		e.must(e.s.Suppress(e.Context(), t.ID, "api", phones...))
		for range 20 {
			e.campaign(t, "c")
		}
		e.must(e.s.Republish(e.Context(), schemas.TypeControl, "tenant/"+t.ID))
		rows, err := e.s.Unpublished(e.Context(), 20)
		e.must(err)
		count := map[schemas.EventType]int{}
		for _, r := range rows {
			count[r.Type]++
		}
		if len(rows) != 20 || count[schemas.TypeControl] != 1 || count[schemas.TypeCampaign] < 9 || count[schemas.TypeSuppression] < 9 {
			e.Errorf("got %v of 20, want one of control and half of each other", count)
		}
		if rows[0].Type != schemas.TypeControl {
			e.Errorf("got %s first, want control", rows[0].Type)
		}
		for range 10 {
			rows, err := e.s.Unpublished(e.Context(), 20)
			e.must(err)
			e.must(e.s.MarkPublished(e.Context(), rows))
		}
		equal(e, "left", len(e.unpublished()), 0)
	}},
	{"a campaign leaves its topic a week after its end", func(e *env) {
		t := e.tenant("acme")
		c := e.apply(e.confirm(e.campaign(t, "c", e.list(t, "l", mobile(1))), 0), sending, schemas.TriggerDeal)
		c = e.apply(c, completed, schemas.TriggerComplete)
		_, err := e.s.Apply(e.Context(), schemas.Change{
			Tenant: t.ID, Campaign: c.ID(), Version: c.Version, Actor: schemas.ActorScheduler, Settled: true, At: e.clock.now(),
		})
		e.must(err)
		key := schemas.CampaignKey(t.ID, c.ID())
		equal(e, "settled in its record", decode(e, e.unpublished()[key], &fanfarev1.Campaign{}).GetSettled(), true)
		e.publish()
		e.clock.add(7*24*time.Hour - time.Second)
		equal(e, "rows before the week is over", len(e.unpublished()), 0)
		e.clock.add(2 * time.Second)
		rows := e.unpublished()
		if row, ok := rows[key]; !ok || row.Value != nil || row.Type != schemas.TypeCampaign || row.Tenant != t.ID {
			e.Errorf("got %+v, want a tombstone of %s", rows, key)
		}
		e.publish()
		// A removed campaign is not published again when its row changes. A tombstone that was lost is written again.
		_, err = e.s.RemoveCampaign(e.Context(), t.ID, c.ID(), 0, user)
		e.must(err)
		equal(e, "rows after it was removed", len(e.unpublished()), 0)
		e.must(e.s.Republish(e.Context(), schemas.TypeCampaign, key))
		if row, ok := e.unpublished()[key]; !ok || row.Value != nil {
			e.Errorf("got %+v, want the tombstone again", row)
		}
	}},
	{"a deleted sender leaves its topic", func(e *env) {
		t := e.tenant("acme")
		e.publish()
		e.must(e.s.DeleteSender(e.Context(), t.ID, "FANFARE"))
		key := schemas.SenderKey(t.ID, "FANFARE")
		if row, ok := e.unpublished()[key]; !ok || row.Value != nil || row.Version != 2 {
			e.Errorf("got %+v, want a tombstone of version 2", row)
		}
		e.publish()
	}},
	{"one process leads", func(e *env) {
		other := e.open()
		release, ok, err := e.s.Lead(e.Context())
		e.must(err)
		equal(e, "first", ok, true)
		for _, s := range []*store.Store{e.s, other} {
			if _, ok, err := s.Lead(e.Context()); ok || err != nil {
				e.Errorf("got the lead twice: %v, %v", ok, err)
			}
		}
		release()
		release2, ok, err := other.Lead(e.Context())
		e.must(err)
		equal(e, "after it was given back", ok, true)
		e.must(func() error { _, err := other.Unpublished(e.Context(), 10); return err }())
		release2()
		_, ok, err = e.s.Lead(e.Context())
		e.must(err)
		equal(e, "and back again", ok, true)
	}},
	{"every table names its tenant (P7)", func(e *env) {
		// These tables have no tenant: the tables of the installation, and blobs, which are read only by the id of a
		// freeze.
		without := []string{"counters", "installation", "routes", "tenants", "users", "sessions", "login_links", "freeze_blobs", "freeze_filters", "freeze_index", "upload_parts", "import_rejects", "job_parts", "goose_db_version", "sqlite_sequence"}
		rows, err := e.sql.QueryContext(e.Context(), e.tablesQuery())
		e.must(err)
		defer func() { _ = rows.Close() }()
		tables := 0
		for rows.Next() {
			var table string
			e.must(rows.Scan(&table))
			tables++
			probe, err := e.sql.QueryContext(e.Context(), fmt.Sprintf("SELECT * FROM %s WHERE 1 = 0", table))
			e.must(err)
			columns, err := probe.Columns()
			e.must(errors.Join(err, probe.Close()))
			if slices.Contains(columns, "tenant") == slices.Contains(without, table) {
				e.Errorf("table %s has columns %v", table, columns)
			}
		}
		e.must(rows.Err())
		if tables < 15 {
			e.Errorf("got %d tables, want all", tables)
		}
	}},
}

func (e *env) tablesQuery() string {
	if strings.HasPrefix(fmt.Sprintf("%T", e.sql.Driver()), "*stdlib.") {
		return "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
	}
	return "SELECT name FROM sqlite_master WHERE type = 'table'"
}
