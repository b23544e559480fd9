package plan

import (
	"testing"
	"time"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// R38, R57: the weights of the variants change while the campaign runs, and successors take over. At every retry a
// recipient keeps the weights of its first deal, and so its variant.
func TestWeightsStick(t *testing.T) {
	w := newEnv(11)
	w.addRoute("sim", 40)
	w.addTenant(testTenant, 0, 1)
	w.odds = odds{sent: 60, returned: 40, bounced: 60, delivered: 40}
	c := w.addCampaign(1, testTenant, 1000, 300, smsLeg(5))
	weights := func(a, b uint32) {
		w.set(c, func(r *fanfarev1.Campaign) { r.Weights = append(r.Weights, &fanfarev1.Weights{Of: []uint32{a, b}}) })
	}
	weights(1, 1)
	retries := map[uint32]int{}
	for i := range 400 {
		w.now = w.now.Add(time.Second)
		w.step(200)
		switch {
		case i == 6 || i == 14 || i == 24:
			weights(uint32(i), 1)
		case i%17 == 16:
			if err := w.takeOver(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for s := range w.submitted {
		if s.try > 1 {
			retries[w.weights[[2]uint64{s.campaign, uint64(s.seq)}]]++
		}
	}
	if len(retries) < 3 {
		t.Errorf("got retries of those dealt by weights %v, want of three of them at least", retries)
	}
	for _, f := range w.faults {
		t.Error(f)
	}
}
