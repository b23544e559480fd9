package plan

import (
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// TestLogOutranksStore: the store was put back from a copy that is older than the end of a campaign. Its cursor says
// that it settled, so the planner deals nothing of it again, does not count its chunks as in flight for ever, and moves
// the campaign in the store to its end.
func TestLogOutranksStore(t *testing.T) {
	for _, state := range []schemas.State{
		schemas.StateScheduled, schemas.StatePreparing, schemas.StateSending, schemas.StatePaused, schemas.StateSuspended, schemas.StateCompleted,
	} {
		t.Run(schemas.StateName(state), func(t *testing.T) {
			tb := newScript(t, 1000)
			cur := &fanfarev1.Cursor{
				Tenant: testTenant, CampaignId: schemas.CampaignID(10001), CampaignNumber: 10001, Deals: 20, Settled: true,
				SettledMs: ms(tb.now), CapturedMicros: 123_000_000,
			}
			tb.planner.RestoreSettled(cur)
			c := tb.addCampaign(10001, testTenant, 8000, 500, smsLeg(3))
			tb.set(c, func(r *fanfarev1.Campaign) { r.State, r.ScheduledMs = state, ms(tb.now) })
			tb.addCampaign(10002, testTenant, 100, 500, smsLeg(3))
			// A chunk of the campaign that the self-check finds is not in flight.
			unlisted, err := tb.planner.AdoptChunk(&fanfarev1.Chunk{
				Tenant: testTenant, CampaignId: cur.GetCampaignId(), CampaignNumber: 10001, Deal: 1, Try: 1, Leg: 1, EndSeq: 500, NotAfterMs: ms(tb.now.Add(time.Hour)),
			})
			if err != nil || unlisted {
				t.Errorf("chunk counted as dealt: %v, %v", unlisted, err)
			}
			for range 5 {
				tb.start()
				for _, d := range tb.deals() {
					if d.Campaign.Number() == 10001 {
						t.Fatalf("dealt %+v again", d)
					}
				}
				tb.after(2 * time.Second)
			}
			tb.noFaults()
			if captured, ok := tb.settled[10001]; !ok || captured != 123_000_000 {
				t.Errorf("settled %v with %d captured, want the 123000000 of its cursor", ok, captured)
			}
			if got := tb.planner.routes["sim"].flight; got != 100 {
				t.Errorf("%d in flight, want the 100 of the other campaign", got)
			}
			if len(tb.planner.unsettled) != 0 {
				t.Errorf("%d campaigns are still to be settled", len(tb.planner.unsettled))
			}
		})
	}
}

// TestAudienceLost: a campaign that was confirmed after the copy was made is aborted when the store is put back. Its
// audience is lost, so no chunk can cancel its recipients. The planner ends them without one, and the campaign settles.
func TestAudienceLost(t *testing.T) {
	tb := newScript(t, 100)
	c := tb.addCampaign(10001, testTenant, 300, 500, smsLeg(3))
	tb.start()
	first := tb.deals()
	tb.wantDealt(first, 160)
	tb.allSay(first, deliveredKind, noCode)
	tb.flying = nil
	tb.says(10001, 0, 1, returnedKind, schemas.CodeRate, time.Time{}) // contradicts the receipt, so no try follows
	tb.saveCursors(true)
	if err := tb.takeOver(); err != nil {
		t.Fatal(err)
	}
	c.blobs = nil
	tb.set(c, func(r *fanfarev1.Campaign) { r.State = schemas.StateAborted })
	for _, r := range tb.planner.AudienceRequests(tb.now) {
		if err := tb.planner.AudienceAnswered(r, nil, nil, tb.now); err == nil {
			t.Error("the lost audience is not reported")
		}
	}
	skipped := 0
	for range 3 {
		for _, e := range tb.ends() {
			if e.Kind != schemas.KindSkipped || e.Code != schemas.CodeCancelled {
				t.Errorf("ended %+v, want skipped/CANCELLED", e)
			}
			skipped++
		}
		tb.wantDealt(tb.deals(), 0)
	}
	if skipped != 140 {
		t.Errorf("%d were skipped, want the 140 that were not dealt", skipped)
	}
	for range 5 {
		for _, ch := range tb.planner.Moves(tb.now) {
			if ch.Settled {
				return
			}
		}
	}
	t.Errorf("not settled: %+v", tb.planner.campaigns[10001].counts())
}
