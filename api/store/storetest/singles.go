package storetest

import (
	"strings"
	"sync"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

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
		if done := begin(); done.State != store.ClaimReplay || done.Status != 201 || string(done.Response) != `{"id":1}` || done.Reserved != nil {
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
	{"a request that died after a change is not run again, and one that was followed changes nothing more (X12)", func(e *env) {
		t := e.tenant("acme")
		begin := func(key string) store.Claim {
			e.Helper()
			c, err := e.s.Begin(e.Context(), t.ID, "POST /x", key, []byte("body"))
			e.must(err)
			return c
		}
		c := begin("changes")
		_, err := e.s.CreateList(store.WithClaim(e.Context(), c), t.ID, "one", false)
		e.must(err)
		equal(e, "while it may be running", begin("changes").State, store.ClaimInFlight)
		dead := begin("dies")
		e.clock.add(3 * time.Minute)
		equal(e, "after a change", begin("changes").State, store.ClaimUnknown)
		equal(e, "without a change", begin("dies").State, store.ClaimNew)
		_, err = e.s.CreateList(store.WithClaim(e.Context(), dead), t.ID, "two", false)
		e.wantErr(err, schemas.ErrConflict)
		if _, n, err := e.s.Lists(e.Context(), t.ID, store.ListFilter{}); err != nil || n != 1 {
			e.Errorf("got %d lists, %v, want the one of the request that was not followed", n, err)
		}
		e.must(e.s.Forget(e.Context(), c)) // the process was still alive, and its request failed
		equal(e, "after it failed", begin("changes").State, store.ClaimNew)
		_, err = e.s.CreateList(store.WithClaim(e.Context(), begin("forgotten")), t.ID, "three", false)
		e.must(err)
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
		if c := begin("sent"); c.State != store.ClaimInFlight {
			e.Errorf("got %+v, want in flight for ever: it may have been sent", c)
		}
		e.clock.add(25 * time.Hour) // a key is kept for a day, or for as long as the outcome is unknown
		equal(e, "a day later", begin("sent").State, store.ClaimInFlight)
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
	{"blocks follow each other, for all processes", func(e *env) {
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
		_, err = e.s.LeaseCredit(e.Context(), t.ID, lease.CampaignID(), 60, 60)
		e.must(err)
		c, err := e.s.Campaign(e.Context(), t.ID, lease.CampaignID())
		e.must(err)
		c = e.apply(c, completed, schemas.TriggerComplete)
		_, err = e.s.Apply(e.Context(), schemas.Change{Tenant: t.ID, Campaign: c.ID(), Version: c.Version, Actor: schemas.ActorScheduler, Settled: true, Captured: 40})
		e.must(err)
		balance(e, t, store.Balance{Available: 60, Captured: 40})
		// The store releases what the crashed process held. If that process returns its lease later, nothing changes.
		e.must(e.s.ReturnCredit(e.Context(), t.ID, lease.CampaignID(), 20))
		balance(e, t, store.Balance{Available: 60, Captured: 40})
		_, err = e.s.LeaseCredit(e.Context(), t.ID, lease.CampaignID(), 1, 1)
		e.wantErr(err, schemas.ErrTransition)
		// The store does not lease seqs of this campaign again.
		again, err := e.s.LeaseSeqs(e.Context(), t.ID, start, 1)
		e.must(err)
		if again.Campaign == lease.Campaign {
			e.Error("got a seq of a campaign that has settled")
		}
	}},
}
