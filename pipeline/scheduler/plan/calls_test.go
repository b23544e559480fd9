package plan

import (
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

func callLeg(most uint32) *fanfarev1.Leg {
	return &fanfarev1.Leg{
		Channel: schemas.ChannelVoice, Route: "sim", Sender: "S", PriceMicros: 20_000, MaxHandovers: 2, BackoffMs: []int64{20_000}, MaxConcurrent: most,
	}
}

// callsNow counts from the log the calls that go on: they were dealt, the sender did not return them, and they are not
// over.
func (w *env) callsNow(number uint64) int {
	over := map[[2]uint32]bool{}
	for p := range partitions {
		for _, e := range w.log[p] {
			if e.Campaign == number && e.Kind != schemas.KindSent && e.Kind != schemas.KindAmbiguous && e.Kind != schemas.KindBuffered {
				over[[2]uint32{e.Seq, e.Try}] = true
			}
		}
	}
	n := 0
	for s := range w.submitted {
		if s.campaign == number && !over[[2]uint32{s.seq, uint32(s.try)}] {
			n++
		}
	}
	return n
}

// R23: never more than maxConcurrent calls of a campaign at the same time, also at retries and when the scheduler is
// replaced; and in the end every recipient is called.
func TestCallsAtTheSameTime(t *testing.T) {
	for _, most := range []uint32{1, 7} {
		w := newEnv(uint64(most))
		w.addRoute("sim", 500)
		w.addTenant(testTenant, 0, 1)
		w.odds = odds{sent: 80, notSent: 5, returned: 15, delivered: 70, bounced: 20, undelivered: 10}
		c := w.addCampaign(1, testTenant, 60, 25, callLeg(most))
		peak := 0
		for i := 0; i < 20_000 && !w.completed[1]; i++ {
			w.now = w.now.Add(time.Second)
			w.step(1)
			calls := w.callsNow(1)
			if peak = max(peak, calls); calls > int(most) {
				t.Fatalf("%d calls at the same time, at most %d may be", calls, most)
			}
			if i%40 == 39 {
				w.saveCursors(i%80 == 79)
				if err := w.takeOver(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !w.completed[1] {
			t.Errorf("with %d at the same time the campaign has not completed; %d of %d were dealt", most, w.dealtTo[testTenant], c.record.GetTotal())
		}
		if 2*peak <= int(most) {
			t.Errorf("got at most %d calls at the same time, want more than half of the %d that may be", peak, most)
		}
		for _, f := range w.faults {
			t.Error(f)
		}
	}
}

// A call whose receipt never comes holds its slot for the lease and no longer, even if a successor takes over
// meanwhile.
func TestCallsWithoutReceiptEnd(t *testing.T) {
	w := newEnv(3)
	w.addRoute("sim", 500)
	w.addTenant(testTenant, 0, 1)
	w.odds = odds{sent: 100, silent: 100}
	w.addCampaign(1, testTenant, 6, 25, callLeg(2))
	dealt := func(d time.Duration) int {
		for end := w.now.Add(d); w.now.Before(end); {
			w.now = w.now.Add(10 * time.Second)
			w.step(20)
		}
		return w.dealtTo[testTenant]
	}
	if n := dealt(25 * time.Minute); n != 2 {
		t.Fatalf("after 25 minutes %d were dealt, want 2: their calls may still go on", n)
	}
	if n := dealt(10 * time.Minute); n != 4 {
		t.Errorf("after 35 minutes %d were dealt, want 4: the leases of the first two are over", n)
	}
	w.saveCursors(true)
	if err := w.takeOver(); err != nil {
		t.Fatal(err)
	}
	// The successor knows when the newest call was handed over, about five minutes ago.
	if n := dealt(20 * time.Minute); n != 4 {
		t.Errorf("a successor dealt to %d within 20 minutes, want none more than 4: the leases of two go on", n-4)
	}
	if n := dealt(8 * time.Minute); n != 6 {
		t.Errorf("28 minutes after the takeover %d were dealt, want all 6", n)
	}
	for _, f := range w.faults {
		t.Error(f)
	}
}
