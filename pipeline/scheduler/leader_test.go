package scheduler

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"fanfare/pipeline/scheduler/plan"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// newLeader returns a leader without a broker, whose clock is at now, and its log.
func newLeader(t *testing.T, now *time.Time) (*leader, *bytes.Buffer) {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	pl := newFakeControlPlane()
	s, err := New(Config{
		Cluster: stream.Cluster{Logger: slog.New(slog.NewTextHandler(&logged, nil))}, Keys: keys, View: pl, Audience: pl, Store: pl, Domains: pl,
		Now: func() time.Time { return *now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return &leader{Scheduler: s, planner: plan.New(), tombstones: map[uint64]*tombstone{}, began: *now}, &logged
}

// TestRestoredBeforeRecord: a campaign that was dealt, and whose record has not arrived yet, is not forgotten. If the
// leader forgot it, it would deal the campaign from its first recipient again when the record arrives.
func TestRestoredBeforeRecord(t *testing.T) {
	now := time.Now()
	l, _ := newLeader(t, &now)
	const key = testTenant + "/camp_10001"
	l.restore(&savedCursors{cursors: map[string]*fanfarev1.Cursor{key: {
		Tenant: testTenant, CampaignId: "camp_10001", CampaignNumber: 10001, Deals: 1,
		Recent: []*fanfarev1.Deal{{Deal: 1, Try: 1, Leg: 1, EndSeq: 4, NotAfterMs: ms(now.Add(time.Hour))}},
	}}})
	now = now.Add(time.Hour)
	l.forgetUnknown(now)
	if c := l.planner.Campaign(10001); c == nil || c.Cursor().GetDeals() != 1 {
		t.Fatalf("got %+v after an hour, want the campaign and its deal", c)
	}
	now = now.Add(25 * time.Hour)
	l.forgetUnknown(now)
	if c := l.planner.Campaign(10001); c != nil {
		t.Errorf("a campaign without a record is remembered after %s", now.Sub(l.began))
	}
	if l.tombstones[10001] == nil {
		t.Error("the cursor of a forgotten campaign stays for ever")
	}
}

// TestMissingDealsFirst: the leader writes the deals that the self-check missed before it writes the sets, because no
// cursor lists those deals after the sets are written.
func TestMissingDealsFirst(t *testing.T) {
	now := time.Now()
	l, _ := newLeader(t, &now)
	if err := l.planner.Restore(&fanfarev1.Cursor{
		Tenant: testTenant, CampaignId: "camp_10001", CampaignNumber: 10001, Deals: 1,
		Recent: []*fanfarev1.Deal{{Deal: 1, Try: 1, Leg: 1, EndSeq: 4, NotAfterMs: ms(now.Add(time.Hour))}},
	}, nil, now); err != nil {
		t.Fatal(err)
	}
	l.missingDeals = []plan.Deal{{}}
	if l.snapshotDue(now) {
		t.Error("the sets are written though a deal is to be made again")
	}
	l.missingDeals = nil
	if !l.snapshotDue(now) {
		t.Error("the sets are not written")
	}
}

// TestStoreFailureLog: a store failure that lasts is not logged every second, and hides no other failure.
func TestStoreFailureLog(t *testing.T) {
	now := time.Now()
	l, logged := newLeader(t, &now)
	const minutes = 10
	for second := range minutes * 60 {
		l.logStoreFailure(errors.New("camp_10001 is gone"))
		if second == 30 {
			now = now.Add(time.Second)
			l.logStoreFailure(errors.New("camp_10002 is gone"))
		}
		now = now.Add(time.Second)
	}
	for what, want := range map[string]int{"camp_10001": 2, "camp_10002": 1} {
		if got := bytes.Count(logged.Bytes(), []byte(what)); got > want+1 || got < want {
			t.Errorf("%s was logged %d times in %d minutes, want about %d", what, got, minutes, want)
		}
	}
	for n := range 3 * maxFailures {
		now = now.Add(time.Second)
		l.logStoreFailure(fmt.Errorf("trouble %d", n))
	}
	if len(l.storeFailures) > maxFailures {
		t.Errorf("%d maxFailures are remembered, want %d at most", len(l.storeFailures), maxFailures)
	}
}
