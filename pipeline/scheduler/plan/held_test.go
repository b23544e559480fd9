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
	ambiguous, returned, sent := schemas.KindAmbiguous, schemas.KindReturned, schemas.KindSent
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
		{"not sent", []schemas.Kind{schemas.KindNotSent}, 0, 0, 0},
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
