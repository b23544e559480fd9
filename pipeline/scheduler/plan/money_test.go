package plan

import (
	"testing"
	"time"

	"fanfare/schemas"
)

// TestMoneyInSteps: while the campaign runs, its certain cost is captured at most once a minute. When it is completed,
// the money that it can no longer spend is released, days before it settles.
func TestMoneyInSteps(t *testing.T) {
	tb := newScript(t, 10_000)
	c := tb.addCampaign(10001, testTenant, 1000, 500, smsLeg(3))
	var steps []schemas.Change
	round := func() {
		for _, r := range tb.planner.AudienceRequests(tb.now) {
			if err := tb.planner.AudienceAnswered(r, c.blobs, nil, tb.now); err != nil {
				t.Fatal(err)
			}
		}
		for _, ch := range tb.planner.Moves(tb.now) {
			steps = append(steps, ch)
			r := cloneRecord(c.record)
			r.Version++
			r.State = ch.To
			c.record = r
			tb.planner.Moved(ch, r.GetVersion())
		}
	}
	round()
	round()
	tb.wantDealt(tb.deals(), 1000)
	for seq := range uint32(600) {
		tb.says(10001, seq, 1, sentKind, noCode, time.Time{})
		tb.says(10001, seq, 1, deliveredKind, noCode, time.Time{})
	}
	steps = nil
	for range 3 * 60 {
		round()
		tb.planner.Deals(tb.now)
		tb.after(time.Second)
	}
	if len(steps) != 1 || steps[0].CapturedSoFar != 600*50_000 || steps[0].MaxLeft != nil || steps[0].Trigger != "" {
		t.Fatalf("steps %+v, want one that captures the 600 that are certain", steps)
	}
	for seq := uint32(600); seq < 1000; seq++ {
		tb.says(10001, seq, 1, sentKind, noCode, time.Time{})
		if seq < 990 {
			tb.says(10001, seq, 1, deliveredKind, noCode, time.Time{})
		}
	}
	steps = nil
	tb.flying = nil
	round()
	if len(steps) != 1 || steps[0].Trigger != schemas.TriggerComplete || steps[0].CapturedSoFar != 990*50_000 || steps[0].MaxLeft == nil {
		t.Fatalf("steps %+v, want it completed with what is certain and what is left", steps)
	}
	// Ten recipients await their receipt. Each may cost its hand-over so far and three more hand-overs of two segments.
	if want := uint64(10*50_000 + 10*3*2*50_000); *steps[0].MaxLeft != want {
		t.Errorf("%d left, want %d", *steps[0].MaxLeft, want)
	}
	for seq := uint32(990); seq < 1000; seq++ {
		tb.says(10001, seq, 1, schemas.KindUndelivered, schemas.CodeProviderError, time.Time{}) // not billed
	}
	steps = nil
	round()
	if len(steps) != 1 || !steps[0].Settled || steps[0].Captured != 990*50_000 {
		t.Fatalf("steps %+v, want it settled with 990 captured", steps)
	}
}
