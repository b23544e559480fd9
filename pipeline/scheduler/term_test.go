package scheduler

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// newTerm returns a leader without a broker, whose clock is at now, and what it logs.
func newTerm(t *testing.T, now *time.Time) (*leader, *bytes.Buffer) {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	pl := newPlane()
	s, err := New(Config{
		Cluster: stream.Cluster{Logger: slog.New(slog.NewTextHandler(&said, nil))}, Keys: keys, View: pl, Audience: pl, Store: pl,
		Now: func() time.Time { return *now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return &leader{Scheduler: s, core: newCore(), graves: map[uint64]*grave{}, began: *now}, &said
}

// TestRestoredBeforeRecord: a campaign that was dealt, and whose record has not arrived here yet, is not forgotten: it would be
// dealt from its beginning when the record comes.
func TestRestoredBeforeRecord(t *testing.T) {
	now := time.Now()
	l, _ := newTerm(t, &now)
	const key = testTenant + "/camp_10001"
	if _, err := l.restore(&savedCursors{cursors: map[string]*fanfarev1.Cursor{key: {
		Tenant: testTenant, CampaignId: "camp_10001", CampaignNumber: 10001, Deals: 1,
		Recent: []*fanfarev1.Deal{{Deal: 1, Try: 1, Leg: 1, EndSeq: 4, NotAfterMs: ms(now.Add(time.Hour))}},
	}}}); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	l.tidy(now)
	if c := l.core.campaigns[10001]; c == nil || c.deals != 1 {
		t.Fatalf("got %+v after an hour, want the campaign and its deal", c)
	}
	now = now.Add(orphanKept)
	l.tidy(now)
	if c := l.core.campaigns[10001]; c != nil {
		t.Errorf("a campaign that nobody knows is remembered after %s", now.Sub(l.began))
	}
}

// TestMissingDealsFirst: the sets are not written before the deals that the self-check missed: from then on no cursor names them.
func TestMissingDealsFirst(t *testing.T) {
	now := time.Now()
	l, _ := newTerm(t, &now)
	l.core.add(10001, testTenant, "camp_10001").touched = true
	l.redeals = []deal{{}}
	if l.roundDue(now) {
		t.Error("the sets are written though a deal is to be made again")
	}
	l.redeals = nil
	if !l.roundDue(now) {
		t.Error("the sets are not written")
	}
}

// TestComplaints: what is wrong with the store for long is not said every second, and hides nothing else.
func TestComplaints(t *testing.T) {
	now := time.Now()
	l, said := newTerm(t, &now)
	const minutes = 10
	for second := range minutes * 60 {
		l.complain(errors.New("camp_10001 is gone"))
		if second == 30 {
			now = now.Add(time.Second)
			l.complain(errors.New("camp_10002 is gone"))
		}
		now = now.Add(time.Second)
	}
	for what, want := range map[string]int{"camp_10001": 2, "camp_10002": 1} {
		if got := bytes.Count(said.Bytes(), []byte(what)); got > want+1 || got < want {
			t.Errorf("%s was said %d times in %d minutes, want about %d", what, got, minutes, want)
		}
	}
	for n := range 3 * troubles {
		now = now.Add(time.Second)
		l.complain(fmt.Errorf("trouble %d", n))
	}
	if len(l.saidOfStore) > troubles {
		t.Errorf("%d troubles are remembered, want %d at most", len(l.saidOfStore), troubles)
	}
}
