package plan

import (
	"fmt"
	"testing"
	"time"

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
