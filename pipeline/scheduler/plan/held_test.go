package plan

import (
	"fmt"
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// TestHeldBounds: single sends that are due at the same time are dealt no faster than the route takes them, and none is
// dealt twice.
func TestHeldBounds(t *testing.T) {
	pl := New()
	pl.setRoute(&fanfarev1.Route{Name: "sim", Rate: 10, Enabled: true})
	pl.setTenant(&fanfarev1.Tenant{Id: testTenant, Enabled: true})
	for seq := range uint32(30) {
		pl.Hold(&Held{Key: fmt.Sprint(seq), Tenant: testTenant, Campaign: 10009, Seq: seq, Route: "sim"})
	}
	now, laneRead := time.Now(), false
	deal := func(want int) {
		t.Helper()
		got := 0
		for _, d := range pl.DealHeld(now, 500, func(string) bool { return laneRead }) {
			if d.DealtTry > 0 {
				got++
			}
		}
		if got != want {
			t.Errorf("dealt %d, want %d", got, want)
		}
		now = now.Add(time.Second)
	}
	deal(0) // the lane has not been read
	laneRead = true
	deal(10)
	deal(0)
	for seq := range uint32(30) {
		if c := pl.campaigns[10009]; c.have(1).known(seq) {
			pl.Observe(&Event{Campaign: 10009, Seq: seq, Try: 1, Kind: deliveredKind})
			// Its tombstone was lost
			pl.Hold(&Held{Key: fmt.Sprint(seq), Tenant: testTenant, Campaign: 10009, Seq: seq, Route: "sim"})
		}
	}
	deal(10)
	pl.tenant(testTenant).enabled = false
	deal(0)
	if got := pl.HeldMessages(); got != 10 {
		t.Errorf("%d are held, want the 10 that were not dealt", got)
	}
}

// TestHeldWithoutItsReturn: a sender that crashes between the record in topic held and the return leaves its try in
// doubt, and the next owner of the partition may hand the try over. So the next try is dealt only once the try was
// returned, and never if it was handed over (P3).
func TestHeldWithoutItsReturn(t *testing.T) {
	ambiguous, returned, sent, notSent := schemas.KindAmbiguous, schemas.KindReturned, schemas.KindSent, schemas.KindNotSent
	now := time.Now()
	for _, c := range []struct {
		name   string
		events []schemas.Kind
		after  time.Duration
		dealt  uint32
		held   int // how many are held then
	}{
		{"no outcome yet", nil, 0, 0, 1},
		{"returned", []schemas.Kind{returned}, 0, 2, 0},
		{"in doubt", []schemas.Kind{ambiguous}, 0, 0, 1},
		{"in doubt, and long over", []schemas.Kind{ambiguous}, time.Hour + lostAfter, 0, 0},
		{"in doubt, then returned", []schemas.Kind{ambiguous, returned}, 0, 2, 0},
		{"in doubt, then handed over", []schemas.Kind{ambiguous, sent}, 0, 0, 0},
		{"in doubt, then delivered", []schemas.Kind{ambiguous, schemas.KindDelivered}, 0, 0, 0},
		{"in doubt, then undelivered", []schemas.Kind{ambiguous, schemas.KindUndelivered}, 0, 0, 0},
		{"handed over", []schemas.Kind{sent}, 0, 0, 0},
		{"not sent", []schemas.Kind{notSent}, 0, 0, 0},
		{"in doubt, then handed over, and returned by a former owner", []schemas.Kind{ambiguous, sent, returned}, 0, 0, 0},
		{"returned by a former owner, then handed over", []schemas.Kind{returned, sent}, 0, 0, 0},
		{"in doubt, then not sent, and returned by a former owner", []schemas.Kind{ambiguous, notSent, returned}, 0, 0, 0},
		{"returned, then a receipt", []schemas.Kind{returned, schemas.KindBuffered}, 0, 0, 0},
	} {
		pl := New()
		pl.setRoute(&fanfarev1.Route{Name: "sim", Rate: 10, Enabled: true})
		pl.setTenant(&fanfarev1.Tenant{Id: testTenant, Enabled: true})
		pl.Hold(&Held{Key: "k", Tenant: testTenant, Campaign: 10009, Seq: 7, Try: 1, Route: "sim", NotAfterMs: ms(now.Add(time.Hour))})
		for _, k := range c.events {
			pl.Observe(&Event{Campaign: 10009, Seq: 7, Try: 1, Kind: k, Tenant: []byte(testTenant), CampaignID: []byte(schemas.CampaignID(10009))})
		}
		var dealt uint32
		for _, d := range pl.DealHeld(now.Add(c.after), 500, func(string) bool { return true }) {
			dealt += d.DealtTry
		}
		if dealt != c.dealt || pl.HeldMessages() != c.held {
			t.Errorf("%s: try %d is dealt and %d are held, want %d and %d", c.name, dealt, pl.HeldMessages(), c.dealt, c.held)
		}
	}
}

// TestHeldWithoutOutcome: a held single send whose last try never got an outcome ends as ambiguous (P2), once, and only
// then its record goes.
func TestHeldWithoutOutcome(t *testing.T) {
	for _, dealt := range []bool{false, true} { // whether the scheduler knows the try
		now := time.Now()
		pl := New()
		pl.setRoute(&fanfarev1.Route{Name: "sim", Rate: 10, Enabled: true})
		pl.setTenant(&fanfarev1.Tenant{Id: testTenant, Enabled: true})
		notAfter := now.Add(time.Hour)
		if dealt {
			pl.ObserveSubmission(&Event{
				Campaign: 10009, Seq: 7, Try: 1, Leg: 1, Tenant: []byte(testTenant), CampaignID: []byte(schemas.CampaignID(10009)), NotAfterMs: ms(notAfter),
			}, "sim")
		}
		pl.Hold(&Held{Key: "k", Tenant: testTenant, Campaign: 10009, Seq: 7, Try: 1, Route: "sim", NotAfterMs: ms(notAfter)})
		deal := func(at time.Time, want int) {
			t.Helper()
			var gone int
			for _, d := range pl.DealHeld(at, 500, func(string) bool { return true }) {
				if gone++; d.DealtTry != 0 {
					t.Errorf("dealt %v: try %d is dealt", dealt, d.DealtTry)
				}
			}
			if gone != want {
				t.Errorf("dealt %v: %d records are dropped, want %d", dealt, gone, want)
			}
		}
		end := notAfter.Add(lostAfter + minute)
		deal(notAfter, 0)
		if ends := pl.Ends(notAfter, 10); len(ends) != 0 {
			t.Errorf("dealt %v: got %+v before the wait is over", dealt, ends)
		}
		deal(end, 0)
		deal(end.Add(heldAgain), 0) // the event is not written yet
		ends := pl.Ends(end, 10)
		if len(ends) != 1 || ends[0].Seq != 7 || ends[0].Try != 1 || ends[0].Kind != schemas.KindAmbiguous || ends[0].Code != schemas.CodeLost {
			t.Errorf("dealt %v: got %+v, want that try 1 is ambiguous", dealt, ends)
		}
		deal(end.Add(2*heldAgain), 1)
		if ends := pl.Ends(end.Add(minute), 10); len(ends) != 0 || pl.HeldMessages() != 0 {
			t.Errorf("dealt %v: got %+v once more, and %d are held", dealt, ends, pl.HeldMessages())
		}
	}
}

// TestRehold: a tombstone without a deal is torn only if the single send was to be dealt.
func TestRehold(t *testing.T) {
	ambiguous, returned, sent, notSent := schemas.KindAmbiguous, schemas.KindReturned, schemas.KindSent, schemas.KindNotSent
	for _, c := range []struct {
		name   string
		try    uint32
		events []schemas.Kind
		want   bool
	}{
		{"never dealt", 0, nil, true},
		{"returned", 1, []schemas.Kind{returned}, true},
		{"in doubt, then returned", 1, []schemas.Kind{ambiguous, returned}, true},
		{"given up", 1, []schemas.Kind{ambiguous}, false},
		{"handed over", 1, []schemas.Kind{sent}, false},
		{"handed over, and returned by a former owner", 1, []schemas.Kind{sent, returned}, false},
		{"after the last try", lastTry, []schemas.Kind{returned, notSent}, false},
	} {
		pl := New()
		e := Event{Campaign: 10009, Seq: 8, Try: 1, Kind: sent, Tenant: []byte(testTenant), CampaignID: []byte(schemas.CampaignID(10009))}
		pl.Observe(&e) // so that the campaign is known
		for _, k := range c.events {
			e.Seq, e.Try, e.Kind = 7, c.try, k
			pl.Observe(&e)
		}
		h := &Held{Key: "k", Tenant: testTenant, Campaign: 10009, Seq: 7, Try: c.try, Route: "sim"}
		if got := pl.Rehold(h); got != c.want || pl.HeldMessages() != map[bool]int{true: 1}[c.want] {
			t.Errorf("%s: got %v and %d are held, want %v", c.name, got, pl.HeldMessages(), c.want)
		}
	}
}
