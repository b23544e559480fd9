package api_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/api"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
	analyticssqlite "fanfare/sinks/analytics/sqlite"
)

// auditLog is a log and a carrier's record that a test writes.
type auditLog struct {
	analytics.Store
	read      func() time.Time
	newest    time.Time
	dealt     *roaring.Bitmap
	meanwhile func() // what happens while the log is being read
	carrier   *api.CarrierRecord
}

func (l *auditLog) Log(ctx context.Context, tenant, campaign string) (*api.LogRecord, error) {
	sets, err := l.Sets(ctx, tenant, campaign)
	if err != nil {
		return nil, err
	}
	costs, err := l.Cost(ctx, tenant, campaign)
	if err != nil {
		return nil, err
	}
	if l.meanwhile != nil {
		l.meanwhile()
	}
	return &api.LogRecord{Sets: sets, Cost: costs[campaign], Dealt: l.dealt, Events: 30, Deals: 1, Read: l.read(), Newest: l.newest}, nil
}

func (l *auditLog) Carrier(context.Context, string) (*api.CarrierRecord, error) {
	return l.carrier, nil
}

// statsAsLog is a log that has what the statistics have.
type statsAsLog struct{ *env }

func (l statsAsLog) Log(ctx context.Context, tenant, campaign string) (*api.LogRecord, error) {
	dealt := roaring.New()
	dealt.AddRange(0, 4_300)
	return (&auditLog{Store: l.stats.Store, read: l.clock.now, dealt: dealt}).Log(ctx, tenant, campaign)
}

func (statsAsLog) Carrier(context.Context, string) (*api.CarrierRecord, error) { return nil, nil }

// audited is a campaign of 40 recipients: 30 were handed over, of those 10 delivered, 5 undelivered, one ambiguous; in
// the statistics, in the log and at the carrier alike.
type audited struct {
	*env
	log *auditLog
	id  string
}

func newAudited(t *testing.T) *audited {
	t.Helper()
	a := &audited{log: &auditLog{dealt: roaring.New()}}
	a.env = newEnv(t, func(w *env) {
		fresh, err := analyticssqlite.Open(t.Context(), analyticssqlite.Config{Path: filepath.Join(t.TempDir(), "log.db")})
		w.check(err)
		t.Cleanup(func() { _ = fresh.Close() })
		a.log.Store, a.log.read = fresh, w.clock.now
		w.deps.Sources, w.deps.AuditSettle = a.log, time.Millisecond
	})
	a.id = a.audienceOf(40)
	a.log.dealt.AddRange(0, 40)
	for _, e := range []struct {
		from, to uint32
		kind     schemas.Kind
		code     schemas.Code
	}{
		{0, 30, schemas.KindSent, schemas.CodeAwaitingDLR},
		{0, 10, schemas.KindDelivered, schemas.CodeDelivered},
		{10, 15, schemas.KindUndelivered, schemas.CodeAbsentSubscriber},
		{30, 31, schemas.KindAmbiguous, schemas.CodeCrash},
	} {
		a.happened(a.tenant.ID, a.id, e.from, e.to, e.kind, e.code)
		a.logged(e.from, e.to, e.kind, e.code)
	}
	taken := roaring.New()
	taken.AddRange(0, 31) // also the one in doubt
	delivered := roaring.New()
	delivered.AddRange(0, 10)
	a.log.carrier = &api.CarrierRecord{Accepted: taken, Delivered: delivered, Owed: roaring.New()}
	a.asOf(time.Hour)
	a.runJobs(a.server)
	return a
}

func (a *audited) logged(from, to uint32, kind schemas.Kind, code schemas.Code) {
	a.Helper()
	a.check(a.log.Append(a.Context(), analytics.Batch{Events: a.events(a.tenant.ID, a.id, from, to, kind, code)}))
}

// asOf says that the statistics have everything up to some time from now.
func (a *audited) asOf(from time.Duration) {
	a.Helper()
	a.check(a.stats.Mark(a.Context(), analytics.TopicID{1}, []analytics.Mark{{Partition: 0, AsOf: a.clock.now().Add(from)}}))
}

func (a *audited) audit() (got api.Audit) {
	a.Helper()
	a.clock.forward(time.Millisecond) // the newest audit is the one that was ordered last
	a.call("POST", "/api/campaigns/"+a.id+"/audit", "").want(202)
	a.call("GET", "/api/campaigns/"+a.id+"/audit?wait=30", "").want(200).into(&got)
	if got.Status != "done" {
		a.Fatalf("audit: got %+v, want it done", got)
	}
	return got
}

// figure returns a figure as text: its values, then whether its difference is explained.
func figure(t *testing.T, a *api.Audit, name string) string {
	t.Helper()
	for _, f := range a.Figures {
		if f.Name == name {
			out := ""
			for _, v := range f.Values {
				out += fmt.Sprintf("%s %v, ", v.Source, v.Value)
			}
			why := ""
			if f.Explanation != nil {
				why = ": " + *f.Explanation
			}
			return fmt.Sprintf("%sdiffer by %v, explained %v%s", out, f.Difference, f.Explained, why)
		}
	}
	t.Fatalf("there is no figure %s in %+v", name, a.Figures)
	return ""
}

func wantFigure(t *testing.T, a *api.Audit, name, want string) {
	t.Helper()
	if got := figure(t, a, name); got != want {
		t.Errorf("%s: got %s\nwant %s", name, got, want)
	}
}

// X16: the counts of a campaign from log, statistics, ledger, the campaign's row and the carrier's record; what differs
// is explained.
func TestAuditOfAHealthyCampaign(t *testing.T) {
	a := newAudited(t)
	got := a.audit()
	if got.OK == nil || !*got.OK || got.Unexplained != 0 || got.FinishedAt == nil || len(got.Notes) != 1 {
		t.Errorf("got %+v, want nothing unexplained", got)
	}
	for name, want := range map[string]string{
		"totalMessages": "log 40, statistics 40, campaign 40, differ by 0, explained true",
		"sent":          "log 30, statistics 30, differ by 0, explained true",
		"delivered":     "log 10, statistics 10, differ by 0, explained true",
		"ambiguous":     "log 1, statistics 1, differ by 0, explained true",
		"pending":       "log 9, statistics 9, differ by 0, explained true",
		"sameState":     "log 31, statistics 31, differ by 0, explained true",
		"dealt":         "log 40, campaign 40, differ by 0, explained true",
		"cost":          "log 1.5, statistics 1.5, differ by 0, explained true",
		"captured":      "ledger 0, campaign 0, differ by 0, explained true",
		"takenByCarrier": "log 30, carrier 31, differ by 1, explained true: The answer for 1 recipients was lost; they are ambiguous until a receipt, " +
			"the carrier or a person resolves it.",
		"deliveredByCarrier": "log 10, carrier 10, differ by 0, explained true",
		"billed": "log 1.5, ledger 0, differ by 1.5, explained true: The campaign is not settled. Until then the ledger captures, once a minute, " +
			"only what no later receipt can make free of charge; the rest is reserved.",
	} {
		wantFigure(t, &got, name, want)
	}
	// A campaign that goes to real carriers has no record to compare with.
	a.log.carrier = nil
	if got = a.audit(); !*got.OK || len(got.Notes) != 2 || len(got.Figures) != 19 {
		t.Errorf("without a carrier's record: got %d figures and notes %q", len(got.Figures), got.Notes)
	}
	// Before the confirm there is nothing to count; another tenant's campaign is none.
	a.call("GET", "/api/campaigns/"+a.call("POST", "/api/campaigns", `{"draft":true,"name":"D","channel":"sms"}`).want(201).id()+"/audit", "").problem(409, "wrong_state", "")
	_, other := a.newTenant("Other")
	a.callAs(other, "GET", "/api/campaigns/"+a.id+"/audit", "").problem(404, "not_found", "")
	a.callAs(other, "POST", "/api/campaigns/"+a.id+"/audit", "").problem(404, "not_found", "")
}

// An event that the statistics lost, one that they have twice over, two that are exchanged, money that is not in the
// log: each is found.
func TestAuditFindsWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*audited)
		want  map[string]string
	}{
		{"an event lost by the statistics", func(a *audited) { a.logged(15, 16, schemas.KindDelivered, schemas.CodeDelivered) }, map[string]string{
			"delivered": "log 11, statistics 10, differ by 1, explained false: 1 recipients have another state in the statistics than the log says, and nothing happened to them while the audit ran.",
			"awaiting":  "log 14, statistics 15, differ by 1, explained false: 1 recipients have another state in the statistics than the log says, and nothing happened to them while the audit ran.",
			"sent":      "log 30, statistics 30, differ by 0, explained true",
		}},
		{"an event that is not in the log", func(a *audited) { a.happened(a.tenant.ID, a.id, 38, 39, schemas.KindSkipped, schemas.CodeOptedOut) }, map[string]string{
			"skipped": "log 0, statistics 1, differ by 1, explained false: 1 recipients have another state in the statistics than the log says, and nothing happened to them while the audit ran.",
		}},
		{"two recipients exchanged", func(a *audited) {
			a.logged(15, 16, schemas.KindDelivered, schemas.CodeDelivered)
			a.happened(a.tenant.ID, a.id, 16, 17, schemas.KindDelivered, schemas.CodeDelivered)
			a.log.carrier.Delivered.Add(15)
		}, map[string]string{
			"delivered": "log 11, statistics 11, differ by 0, explained true",
			"sameState": "log 31, statistics 29, differ by 2, explained false: 2 recipients have another state in the statistics than the log says, and nothing happened to them while the audit ran.",
		}},
		{"a hand-over that the carrier never saw", func(a *audited) { a.log.carrier.Accepted.Remove(20) }, map[string]string{
			"takenByCarrier": "log 30, carrier 30, differ by 2, explained false: The carrier took messages to 0 recipients that the log does not count as taken, and has none to 1 that the log counts.",
		}},
		{"a message at the carrier that Fanfare did not send", func(a *audited) { a.log.carrier.Accepted.AddRange(31, 33); a.log.dealt.RemoveRange(31, 40) }, map[string]string{
			"takenByCarrier": "log 30, carrier 33, differ by 3, explained false: The carrier took messages to 2 recipients that the log does not count as taken, and has none to 0 that the log counts.",
		}},
		{"a receipt that was acknowledged and is not in the log, of a settled campaign", func(a *audited) {
			a.log.carrier.Delivered.Add(20)
			a.settle(1_500_000)
		}, map[string]string{
			"deliveredByCarrier": "log 10, carrier 11, differ by 1, explained false: The carrier acknowledged receipts of 1 recipients that the log does not have, and has none of 0 that the log has.",
			"billed":             "log 1.5, ledger 1.5, differ by 0, explained true",
		}},
		{"a bill that is not what was handed over", func(a *audited) { a.settle(1_600_000) }, map[string]string{
			"billed":   "log 1.5, ledger 1.6, differ by 0.1, explained false: The campaign is settled, and no event came after that.",
			"captured": "ledger 1.6, campaign 1.6, differ by 0, explained true",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAudited(t)
			c.spoil(a)
			got := a.audit()
			for name, want := range c.want {
				wantFigure(t, &got, name, want)
			}
			if *got.OK || got.Unexplained == 0 {
				t.Errorf("got ok %v and %d unexplained, want it found", *got.OK, got.Unexplained)
			}
		})
	}
}

// settle completes and settles the campaign at a cost in micro-units.
func (a *audited) settle(micros uint64) {
	a.Helper()
	for _, change := range []schemas.Change{
		{To: schemas.StateCompleted, Trigger: schemas.TriggerComplete, Actor: schemas.ActorScheduler},
		{To: schemas.StateCompleted, Actor: schemas.ActorScheduler, Settled: true, Captured: micros},
	} {
		c, err := a.store.Campaign(a.Context(), a.tenant.ID, a.id)
		a.check(err)
		change.Tenant, change.Campaign, change.Version, change.At = a.tenant.ID, a.id, c.Version, a.clock.now()
		_, err = a.store.Apply(a.Context(), change)
		a.check(err)
	}
}

// While messages are sent, the audit distinguishes changes between two readings from errors.
func TestAuditWhileTrafficGoesOn(t *testing.T) {
	a := newAudited(t)
	a.log.carrier = nil
	a.log.meanwhile = func() { a.happened(a.tenant.ID, a.id, 15, 18, schemas.KindDelivered, schemas.CodeDelivered) }
	got := a.audit()
	wantFigure(t, &got, "delivered", "log 10, statistics 13, differ by 3, explained true: Events of 3 recipients came between the reading of the log and that of the statistics.")
	if !*got.OK {
		t.Errorf("got %+v, want everything explained", got)
	}
	// The same with a lost event among them: only that one is not explained.
	a.logged(15, 18, schemas.KindDelivered, schemas.CodeDelivered)
	a.logged(29, 30, schemas.KindDelivered, schemas.CodeDelivered)
	a.log.meanwhile = func() { a.happened(a.tenant.ID, a.id, 18, 20, schemas.KindDelivered, schemas.CodeDelivered) }
	if got = a.audit(); *got.OK {
		t.Errorf("got %+v, want the lost event found", got)
	}
	wantFigure(t, &got, "delivered", "log 14, statistics 15, differ by 1, explained false: 1 recipients have another state in the statistics than the log says, and nothing happened to them while the audit ran.")
	// Statistics that are behind explain it.
	a.clock.forward(2 * time.Hour)
	a.log.meanwhile = nil
	a.logged(18, 20, schemas.KindDelivered, schemas.CodeDelivered)
	if got = a.audit(); !*got.OK {
		t.Errorf("got %+v, want the age of the statistics as the reason", got)
	}
}

// Reading an audit orders none (X16); an order while one runs is not a second one, and takes no place of another job.
func TestAuditIsOrderedByPost(t *testing.T) {
	w := newEnv(t)
	id := w.sending(3)
	for range 3 {
		w.call("GET", "/api/campaigns/"+id+"/audit?wait=0", "").problem(404, "not_found", "")
	}
	jobs := func() int {
		_, n, err := w.store.Jobs(t.Context(), w.tenant.ID, store.JobFilter{Kind: store.JobAudit, Page: store.Page{Limit: 10}})
		w.check(err)
		return n
	}
	if n := jobs(); n != 0 {
		t.Errorf("after reading: got %d audits, want none", n)
	}
	var first, second, read api.Audit
	w.call("POST", "/api/campaigns/"+id+"/audit", "").want(202).into(&first)
	w.clock.forward(time.Second)
	w.call("POST", "/api/campaigns/"+id+"/audit", "").want(202).into(&second)
	w.call("GET", "/api/campaigns/"+id+"/audit?wait=0", "").want(200).into(&read)
	if n := jobs(); n != 1 || first.StartedAt != second.StartedAt || read.StartedAt != first.StartedAt || read.Status != "queued" {
		t.Errorf("got %d audits: %+v, %+v, read %+v, want the one that waits", n, first, second, read)
	}
}
