package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// unpublished are the rows to be published, by key.
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

// publish marks everything as published.
func (e *env) publish() {
	e.Helper()
	e.must(e.s.MarkPublished(e.Context(), slices.Collect(maps.Values(e.unpublished()))))
	if left := e.unpublished(); len(left) != 0 {
		e.Errorf("got %v left after publishing all, want none", slices.Collect(maps.Keys(left)))
	}
}

func decode[M proto.Message](e *env, row schemas.OutboxRow, into M) M {
	e.Helper()
	e.must(proto.Unmarshal(row.Value, into))
	return into
}

// same compares records as people read them.
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
			Name: "sim", Channels: []fanfarev1.Channel{sms}, Connector: "sim", Rate: 2000, Burst: 5, P99: time.Second, ReceiptWindow: time.Hour, Enabled: true,
		})
		e.must(err)
		l := e.list(t, "l", mobile(1))
		c, err := e.s.CreateCampaign(e.Context(), store.Campaign{Tenant: t.ID, State: configured, Test: true, Spec: store.Spec{
			Name: "c", Chain: []fanfarev1.Channel{sms}, Body: "Hi", TemplateID: "tpl", Lists: []uint64{l.Number}, Tags: []string{"x"},
			CallingHours: &store.Hours{Start: 540, End: 1200, Zone: "Europe/Rome"}, MaxSegments: 2, Rate: 7, Weight: 3, Validity: time.Hour,
			ReceiptWindow: 2 * time.Hour, Missing: fanfarev1.MissingPolicy_MISSING_POLICY_DEFAULT, MissingDefault: "you", ReplayOf: 10001,
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
			Name: "sim", Channels: []fanfarev1.Channel{sms}, Connector: "sim", Rate: 2000, Burst: 5, P99Ms: 1000, ReceiptWindowMs: 3_600_000, Enabled: true,
		}}})
		row := rows[schemas.CampaignKey(t.ID, c.ID())]
		if row.Type != schemas.TypeCampaign || row.Tenant != t.ID || row.Version != c.Version || row.Time.IsZero() {
			e.Errorf("got row %+v", row)
		}
		same(e, decode(e, row, &fanfarev1.Campaign{}), &fanfarev1.Campaign{
			Tenant: t.ID, Id: c.ID(), Number: c.Number, Version: 3, State: preparing, Name: "c", Tags: []string{"x"},
			Legs:         []*fanfarev1.Leg{{Channel: sms, Route: "sim", Sender: "FANFARE", PriceMicros: 50_000, MaxHandovers: 3, BackoffMs: []int64{60_000}}},
			Content:      &fanfarev1.Content{Body: "Hi", TemplateId: "tpl", Missing: fanfarev1.MissingPolicy_MISSING_POLICY_DEFAULT, MissingDefault: "you"},
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
		// It does not come back, whatever happens to the row; a lost tombstone is written again.
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
		// What has none: the installation's own, and blobs, which nobody reaches but through the id of a freeze.
		without := []string{"counters", "installation", "routes", "tenants", "freeze_blobs", "freeze_index", "goose_db_version", "sqlite_sequence"}
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
	if strings.HasPrefix(e.cfg.DSN, "postgres") {
		return "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
	}
	return "SELECT name FROM sqlite_master WHERE type = 'table'"
}

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
		e.publish()
		e.must(e.s.Suppress(e.Context(), t.ID, "api", mobile(1)))
		equal(e, "rows after the same again", len(e.unpublished()), 0)
		e.must(e.s.Lift(e.Context(), t.ID, "api", mobile(1), mobile(2)))
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
	{"who has opted out", func(e *env) {
		t := e.tenant("acme")
		e.must(e.s.Suppress(e.Context(), t.ID, "api", mobile(1), mobile(2), mobile(3)))
		e.must(e.s.Lift(e.Context(), t.ID, "api", mobile(2)))
		for i, want := range []bool{false, true, false, true} {
			got, err := e.s.Suppressed(e.Context(), t.ID, mobile(i))
			e.must(err)
			equal(e, mobile(i), got, want)
		}
		page, total, err := e.s.Suppressions(e.Context(), t.ID, store.Page{Number: 1, Limit: 1})
		e.must(err)
		if total != 2 || len(page) != 1 || page[0].Phone != mobile(3) {
			e.Errorf("got %v of %d, want %s of 2", page, total, mobile(3))
		}
		e.wantErr(e.s.Suppress(e.Context(), "tn_none", "api", mobile(1)), schemas.ErrNotFound)
	}},
	{"wait until it is published", func(e *env) {
		t := e.tenant("acme")
		other := e.open() // the relay is another process
		e.must(e.s.Suppress(e.Context(), t.ID, "api", mobile(1), mobile(2)))
		short, cancel := context.WithTimeout(e.Context(), 60*time.Millisecond)
		defer cancel()
		e.wantErr(e.s.WaitPublished(short, t.ID, mobile(1)), context.DeadlineExceeded)
		e.must(e.s.WaitPublished(e.Context(), t.ID, mobile(9))) // never heard of
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

var idempotencyTests = []test{
	{"new, in flight, replayed", func(e *env) {
		t := e.tenant("acme")
		hash := []byte("body")
		begin := func() store.Claim {
			e.Helper()
			c, err := e.s.Begin(e.Context(), t.ID, "POST /x", "k", hash)
			e.must(err)
			return c
		}
		c := begin()
		equal(e, "first", c.State, store.ClaimNew)
		equal(e, "second", begin().State, store.ClaimInFlight)
		e.must(e.s.ReserveIDs(e.Context(), c, []byte("msg_1")))
		if again := begin(); again.State != store.ClaimInFlight || string(again.Reserved) != "msg_1" {
			e.Errorf("got %+v, want in flight with msg_1", again)
		}
		e.must(e.s.Finish(e.Context(), c, 201, []byte(`{"id":1}`)))
		if done := begin(); done.State != store.ClaimReplay || done.Status != 201 || string(done.Response) != `{"id":1}` || string(done.Reserved) != "msg_1" {
			e.Errorf("got %+v, want the answer again", done)
		}
		e.wantErr(e.s.Finish(e.Context(), c, 500, nil), schemas.ErrConflict)
		other, err := e.s.Begin(e.Context(), t.ID, "POST /x", "k", []byte("other"))
		e.must(err)
		equal(e, "other body", other.State, store.ClaimMismatch)
		for _, scope := range [][2]string{{"POST /y", "k"}, {"POST /x", "l"}} {
			c, err := e.s.Begin(e.Context(), t.ID, scope[0], scope[1], hash)
			e.must(err)
			equal(e, "other scope", c.State, store.ClaimNew)
			e.must(e.s.Forget(e.Context(), c))
			c, err = e.s.Begin(e.Context(), t.ID, scope[0], scope[1], []byte("fixed"))
			e.must(err)
			equal(e, "after forgetting", c.State, store.ClaimNew)
		}
		_, err = e.s.Begin(e.Context(), t.ID, "POST /x", strings.Repeat("k", 300), hash)
		e.wantErr(err, store.ErrInvalid)
		e.clock.add(25 * time.Hour)
		equal(e, "a day later", begin().State, store.ClaimNew)
		e.clock.add(50 * time.Hour)
		e.must(e.s.Collect(e.Context()))
		var n int
		e.must(e.sql.QueryRowContext(e.Context(), "SELECT COUNT(*) FROM idempotency").Scan(&n))
		equal(e, "keys after collecting", n, 0)
	}},
	{"an owner that died is followed, unless it had reserved", func(e *env) {
		t := e.tenant("acme")
		begin := func(key string) store.Claim {
			e.Helper()
			c, err := e.s.Begin(e.Context(), t.ID, "r", key, []byte("b"))
			e.must(err)
			return c
		}
		dead, sent := begin("dead"), begin("sent")
		e.must(e.s.ReserveIDs(e.Context(), sent, []byte("ids")))
		e.clock.add(3 * time.Minute)
		heir := begin("dead")
		equal(e, "abandoned", heir.State, store.ClaimNew)
		e.wantErr(e.s.Finish(e.Context(), dead, 200, nil), schemas.ErrConflict)
		e.wantErr(e.s.ReserveIDs(e.Context(), dead, []byte("x")), schemas.ErrConflict)
		e.must(e.s.Finish(e.Context(), heir, 200, nil))
		if c := begin("sent"); c.State != store.ClaimInFlight || string(c.Reserved) != "ids" {
			e.Errorf("got %+v, want in flight for ever: it may have been sent", c)
		}
	}},
	{"one of many gets it", func(e *env) {
		t := e.tenant("acme")
		other := e.open()
		var wg sync.WaitGroup
		var mu sync.Mutex
		states := map[store.ClaimState]int{}
		for i := range 16 {
			s := e.s
			if i%2 == 1 {
				s = other
			}
			wg.Go(func() {
				c, err := s.Begin(e.Context(), t.ID, "r", "k", []byte("b"))
				if err != nil {
					e.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				states[c.State]++
			})
		}
		wg.Wait()
		equal(e, "new and in flight", [2]int{states[store.ClaimNew], states[store.ClaimInFlight]}, [2]int{1, 15})
	}},
}

var singleTests = []test{
	{"blocks follow each other, whoever asks", func(e *env) {
		t := e.tenant("acme")
		other := e.open()
		var wg sync.WaitGroup
		var mu sync.Mutex
		taken := map[uint32]bool{}
		campaigns := map[uint64]bool{}
		for i := range 10 {
			s := e.s
			if i%2 == 1 {
				s = other
			}
			wg.Go(func() {
				l, err := s.LeaseSeqs(e.Context(), t.ID, start, 1000)
				if err != nil {
					e.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				campaigns[l.Campaign] = true
				if taken[l.First] || l.First%1000 != 0 || l.First >= 10_000 || l.Count != 1000 {
					e.Errorf("got block %+v", l)
				}
				taken[l.First] = true
			})
		}
		wg.Wait()
		equal(e, "blocks and campaigns", [2]int{len(taken), len(campaigns)}, [2]int{10, 1})
	}},
	{"its campaign is published, and hidden", func(e *env) {
		t := e.tenant("acme")
		lease, err := e.s.LeaseSeqs(e.Context(), t.ID, start, 500)
		e.must(err)
		row := e.unpublished()[schemas.CampaignKey(t.ID, lease.CampaignID())]
		rec := decode(e, row, &fanfarev1.Campaign{})
		if !rec.GetHidden() || rec.GetTotal() != 500 || rec.GetState() != sending || rec.GetVersion() != lease.Version || len(rec.GetLegs()) != 1 {
			e.Errorf("got %v, want a hidden campaign of 500 at version %d", rec, lease.Version)
		}
		_, n, err := e.s.Campaigns(e.Context(), t.ID, store.CampaignFilter{IncludeDeleted: true})
		e.must(err)
		equal(e, "listed", n, 0)
		_, err = e.s.UpdateCampaign(e.Context(), t.ID, lease.CampaignID(), 0, user, move(aborted, schemas.TriggerAbort))
		e.wantErr(err, schemas.ErrNotFound)
		e.must(func() error { _, err := e.s.Campaign(e.Context(), t.ID, lease.CampaignID()); return err }())
		next, err := e.s.LeaseSeqs(e.Context(), t.ID, start.AddDate(0, 0, 1), 1)
		e.must(err)
		if next.Campaign == lease.Campaign || next.First != 0 {
			e.Errorf("got %+v on the next day, want another campaign from 0", next)
		}
	}},
	{"a day that is full goes on in another campaign", func(e *env) {
		t := e.tenant("acme")
		first, err := e.s.LeaseSeqs(e.Context(), t.ID, start, schemas.MaxSeq)
		e.must(err)
		fits, err := e.s.LeaseSeqs(e.Context(), t.ID, start, 1)
		e.must(err)
		if fits.Campaign != first.Campaign || fits.First != schemas.MaxSeq {
			e.Errorf("got %+v, want the last seq of the same", fits)
		}
		second, err := e.s.LeaseSeqs(e.Context(), t.ID, start, 1)
		e.must(err)
		if second.Campaign == first.Campaign || second.First != 0 {
			e.Errorf("got %+v, want another campaign", second)
		}
		_, err = e.s.LeaseSeqs(e.Context(), t.ID, start, 0)
		e.wantErr(err, store.ErrInvalid)
	}},
	{"it settles like another", func(e *env) {
		t := e.limited("acme", 100)
		lease, err := e.s.LeaseSeqs(e.Context(), t.ID, start, 5)
		e.must(err)
		e.must(e.s.Reserve(e.Context(), t.ID, lease.CampaignID(), 60))
		c, err := e.s.Campaign(e.Context(), t.ID, lease.CampaignID())
		e.must(err)
		c = e.apply(c, completed, schemas.TriggerComplete)
		_, err = e.s.Apply(e.Context(), schemas.Change{Tenant: t.ID, Campaign: c.ID(), Version: c.Version, Actor: schemas.ActorScheduler, Settled: true, Captured: 40})
		e.must(err)
		balance(e, t, store.Balance{Available: 60, Captured: 40})
		// And is not used again.
		again, err := e.s.LeaseSeqs(e.Context(), t.ID, start, 1)
		e.must(err)
		if again.Campaign == lease.Campaign {
			e.Error("got a seq of a campaign that has settled")
		}
	}},
}
