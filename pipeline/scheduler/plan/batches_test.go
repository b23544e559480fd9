package plan

import (
	"testing"
	"time"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// X9: a campaign that is sent in batches: no recipient is handed over before the time of its batch, in the end all are
// handed over, and a successor keeps the same times.
func TestBatches(t *testing.T) {
	w := newEnv(12)
	w.addRoute("sim", 500)
	w.addTenant(testTenant, 0, 1)
	w.odds = odds{sent: 100, delivered: 100}
	c := w.addCampaign(1, testTenant, 1000, 300, smsLeg(1))
	begin := w.now
	ends := []uint32{100, 650, 1000}
	times := []time.Duration{0, 2 * time.Minute, 5 * time.Minute}
	w.set(c, func(r *fanfarev1.Campaign) {
		for i, end := range ends {
			r.Batches = append(r.Batches, &fanfarev1.Batch{AtMs: ms(begin.Add(times[i])), EndSeq: end})
		}
	})
	reached := map[uint32]bool{}
	for i := range 420 {
		w.now = w.now.Add(time.Second)
		w.step(1000)
		released := uint32(0)
		for b, at := range times {
			if !w.now.Before(begin.Add(at)) {
				released = ends[b]
			}
		}
		for s := range w.submitted {
			if s.seq >= released {
				t.Fatalf("%s after the start: recipient %d was sent to, and %d are released", w.now.Sub(begin), s.seq, released)
			}
		}
		if n := uint32(len(w.submitted)); n == released {
			reached[n] = true
		}
		if i%50 == 49 {
			if err := w.takeOver(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, end := range ends {
		if !reached[end] {
			t.Errorf("the batch up to %d was never sent whole", end)
		}
	}
	for _, f := range w.faults {
		t.Error(f)
	}
}
