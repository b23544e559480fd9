package plan

import (
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// TestStaleEnd: the planner drops an end that it decided and did not yet write if another try was handed over
// meanwhile.
func TestStaleEnd(t *testing.T) {
	tb := newScript(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 1)
	tb.says(10001, 0, 1, bouncedKind, schemas.CodeAbsentSubscriber, time.Time{})
	tb.wantDealt(tb.deals(), 0)
	tb.after(time.Minute)
	tb.says(10001, 0, 1, bouncedKind, schemas.CodeOperatorBlacklist, time.Time{}) // nothing may follow that
	tb.wantDealt(tb.deals(), 1)                                                   // but it is due already
	if got := tb.ends(); len(got) > 0 {
		t.Fatalf("ended %v while try 2 is in flight", got)
	}
	tb.says(10001, 0, 2, schemas.KindNotSent, schemas.CodeSpamContent, time.Time{})
	tb.wantEnd(0, 1, schemas.KindUndelivered, schemas.CodeOperatorBlacklist)
}

// C18: a campaign is completed when every recipient has an outcome, and settled when no receipt is awaited any more.
func TestLost(t *testing.T) {
	tb := newScript(t, 1000)
	c := tb.addCampaign(10001, testTenant, 2, 500, smsLeg(3)) // valid for an hour
	tb.start()
	tb.wantDealt(tb.deals(), 2)
	tb.says(10001, 0, 1, deliveredKind, noCode, time.Time{})
	tb.after(time.Hour + 9*time.Minute)
	if got := tb.ends(); len(got) > 0 {
		t.Fatalf("ended %v before its time", got)
	}
	tb.after(2 * time.Minute)
	tb.wantEnd(1, 1, ambiguousKind, schemas.CodeLost)
	tb.wantDealt(tb.deals(), 0)
	tb.start()
	tb.wantState(10001, schemas.StateCompleted)
	if c.record.GetSettled() {
		t.Error("settled while a receipt may still clear the doubt")
	}
	tb.after(time.Hour)
	tb.start()
	if !c.record.GetSettled() {
		t.Error("not settled after the receipt window")
	}
}

func TestReceiptWindow(t *testing.T) {
	tb := newScript(t, 1000) // receipts are awaited for an hour
	c := tb.addCampaign(10001, testTenant, 3, 500, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 3)
	tb.says(10001, 0, 1, deliveredKind, noCode, time.Time{})
	tb.after(10 * time.Minute)
	tb.says(10001, 1, 1, sentKind, noCode, time.Time{}) // the last hand-over
	tb.says(10001, 2, 1, ambiguousKind, schemas.CodeTimeout, time.Time{})
	tb.start()
	tb.wantState(10001, schemas.StateCompleted)
	tb.after(59 * time.Minute)
	if got := tb.ends(); len(got) > 0 || c.record.GetSettled() {
		t.Fatalf("ended %v, settled %v before the window was over", got, c.record.GetSettled())
	}
	tb.after(time.Minute)
	tb.wantEnd(1, 1, schemas.KindUnconfirmed, schemas.CodeNoDLR)
	tb.start()
	if !c.record.GetSettled() {
		t.Fatal("not settled")
	}
	if got, _ := tb.model(c); got.ambiguous != 1 || got.awaiting != 1 {
		t.Errorf("census %+v, want one ambiguous for ever and one awaiting", got)
	}
	// A later receipt is only a correction: no recipient waits for another try.
	tb.says(10001, 2, 1, bouncedKind, schemas.CodeAbsentSubscriber, time.Time{})
	tb.wantEnd(2, 1, schemas.KindUndelivered, schemas.CodeAbsentSubscriber)
}

// TestRouteSwitchedOff: recipients that wait for a retry on a route that is switched off end when their validity is
// over, and the campaign settles.
func TestRouteSwitchedOff(t *testing.T) {
	tb := newScript(t, 1000)
	c := tb.addCampaign(10001, testTenant, 3, 500, smsLeg(3)) // valid for an hour
	tb.start()
	tb.wantDealt(tb.deals(), 3)
	tb.says(10001, 0, 1, deliveredKind, noCode, time.Time{})
	tb.says(10001, 1, 1, bouncedKind, schemas.CodeAbsentSubscriber, time.Time{})
	tb.says(10001, 2, 1, returnedKind, schemas.CodeRate, time.Time{})
	tb.planner.SetRoutes(nil)
	tb.wantDealt(tb.deals(), 0)
	tb.ends()
	tb.after(59 * time.Minute)
	tb.wantDealt(tb.deals(), 0)
	if got := tb.ends(); len(got) != 0 {
		t.Fatalf("ended %v before the validity was over", got)
	}
	tb.after(2 * time.Minute)
	ends := map[uint32]End{}
	for _, e := range tb.ends() {
		ends[e.Seq] = e
	}
	if e := ends[1]; e.Kind != schemas.KindUndelivered || e.Code != schemas.CodeAbsentSubscriber {
		t.Errorf("the bounced one ended as %s/%s, want undelivered/ABSENT_SUBSCRIBER", e.Kind, e.Code)
	}
	if e := ends[2]; e.Kind != schemas.KindNotSent || e.Code != schemas.CodeValidityExpired {
		t.Errorf("the returned one ended as %s/%s, want not_sent/VALIDITY_EXPIRED", e.Kind, e.Code)
	}
	tb.start()
	if !c.record.GetSettled() {
		t.Errorf("%s, not settled: %+v", c.record.GetState(), tb.planner.campaigns[10001].counts())
	}
}

// TestFollowingTryEnds: when the try after a bounce is never handed over, the recipient ends as undelivered with the
// bounce's code.
func TestFollowingTryEnds(t *testing.T) {
	tb := newScript(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.start()
	tb.deals()
	tb.says(10001, 0, 1, bouncedKind, schemas.CodeMemoryFull, time.Time{})
	tb.after(2 * time.Minute)
	tb.wantDealt(tb.deals(), 1)
	tb.says(10001, 0, 2, schemas.KindNotSent, schemas.CodeValidityExpired, time.Time{})
	tb.wantEnd(0, 1, schemas.KindUndelivered, schemas.CodeMemoryFull)
}

func TestTriesSpent(t *testing.T) {
	tb := newScript(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.start()
	begin := tb.now
	for n := uint32(1); n < lastTry; n++ {
		for recipients(tb.deals()) == 0 {
			tb.after(max(time.Second, time.Duration(returnDelay(int(n)))*time.Millisecond/4))
		}
		tb.says(10001, 0, n, returnedKind, schemas.CodeRate, time.Time{})
	}
	if took := tb.now.Sub(begin); took < maxValidity {
		t.Errorf("%d tries were spent in %s, want no less than %s: a long trouble must not use them up", lastTry, took, maxValidity)
	}
	tb.after(time.Hour)
	tb.wantDealt(tb.deals(), 1)
	tb.says(10001, 0, lastTry, returnedKind, schemas.CodeRate, time.Time{})
	tb.wantEnd(0, lastTry, schemas.KindNotSent, schemas.CodeTriesSpent)
	tb.wantDealt(tb.deals(), 0)
}

// TestCancelIsCarriedOut: when no stage reports a cancel as carried out, the scheduler writes its outcome.
func TestCancelIsCarriedOut(t *testing.T) {
	tb := newScript(t, 1)
	c := tb.addCampaign(10001, testTenant, 3, 500, smsLeg(3))
	tb.start()
	tb.deals()
	tb.allSay(tb.deals(), sentKind, noCode)
	tb.set(c, func(r *fanfarev1.Campaign) { r.State = schemas.StateAborted })
	if got := tb.planner.Deals(tb.now); recipients(got) == 0 { // no stage writes an outcome for the chunk
		t.Fatal("nothing was cancelled")
	}
	tb.after(21 * time.Minute)
	for _, e := range tb.ends() {
		if e.Kind != schemas.KindSkipped || e.Code != schemas.CodeCancelled {
			t.Errorf("ended %+v, want skipped/CANCELLED", e)
		}
	}
	if got, _ := tb.model(c); got.never == 0 {
		t.Errorf("census %+v, want skipped ones", got)
	}
}

func TestChainEnds(t *testing.T) {
	tb := newScript(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, rcsLeg("sim"))
	tb.start()
	tb.deals()
	tb.says(10001, 0, 1, returnedKind, schemas.CodeUnsupported, time.Time{})
	tb.wantEnd(0, 1, schemas.KindNotSent, schemas.CodeRCSNotCapable)
}
