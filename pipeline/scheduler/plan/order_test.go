package plan

import (
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// ambiguousCampaign has ten recipients: 0 to 3 are ambiguous, and 3 bounced at an earlier try; the rest are delivered.
func ambiguousCampaign(t *testing.T) (*script, *fakeCampaign) {
	t.Helper()
	tb := newScript(t, 1000)
	c := tb.addCampaign(10001, testTenant, 10, 500, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 10)
	for seq := range uint32(10) {
		switch {
		case seq < 3:
			tb.says(10001, seq, 1, ambiguousKind, schemas.CodeCrash, time.Time{})
		case seq == 3:
			tb.says(10001, seq, 1, ambiguousKind, schemas.CodeCrash, time.Time{})
			tb.says(10001, seq, 1, deliveredKind, noCode, time.Time{}) // its receipt resolved it
		default:
			tb.says(10001, seq, 1, deliveredKind, noCode, time.Time{})
		}
	}
	tb.flying = nil
	tb.start()
	tb.wantState(10001, schemas.StateCompleted)
	return tb, c
}

func order(id uint64, action schemas.AmbiguousAction) func(*fanfarev1.Campaign) {
	return func(r *fanfarev1.Campaign) { r.AmbiguousOrder = &fanfarev1.AmbiguousOrder{Id: id, Action: action} }
}

// TestResendAmbiguous: after a person's recorded order the planner deals ambiguous recipients again, once, also when
// the campaign is completed. It deals no other recipient again.
func TestResendAmbiguous(t *testing.T) {
	tb, c := ambiguousCampaign(t)
	tb.set(c, order(7, schemas.AmbiguousActionResend))
	ends := tb.ends()
	if len(ends) != 3 {
		t.Fatalf("%d events, want returned/RESEND of three", len(ends))
	}
	for _, e := range ends {
		if e.Kind != schemas.KindReturned || e.Code != schemas.CodeResend || e.Try != 1 || e.Seq > 2 {
			t.Errorf("event %+v, want returned/RESEND of 0 to 2 at try 1", e)
		}
	}
	if !tb.planner.campaigns[10001].OrderUnsaved() {
		t.Error("the cursor that says that the order is carried out is not written with its events")
	}
	deals := tb.deals()
	if recipients(deals) != 3 || deals[0].Try != 2 || deals[0].first != 0 || deals[0].end != 3 {
		t.Fatalf("dealt %+v, want 0 to 2 at try 2", deals)
	}
	// The order does not cover recipients that become ambiguous later, also after a takeover.
	tb.says(10001, 0, 2, ambiguousKind, schemas.CodeTimeout, time.Time{})
	tb.says(10001, 1, 2, deliveredKind, noCode, time.Time{})
	tb.says(10001, 2, 2, deliveredKind, noCode, time.Time{})
	tb.flying = nil
	tb.saveCursors(true)
	if err := tb.takeOver(); err != nil {
		t.Fatal(err)
	}
	tb.start()
	if got := tb.ends(); len(got) != 0 {
		t.Errorf("events %+v, want none: the order is carried out", got)
	}
	tb.wantDealt(tb.deals(), 0)
	tb.set(c, order(8, schemas.AmbiguousActionResend))
	if got := tb.ends(); len(got) != 1 || got[0].Seq != 0 || got[0].Try != 2 {
		t.Fatalf("events %+v, want seq 0 at try 2", got)
	}
	tb.wantDealt(tb.deals(), 1)
	tb.says(10001, 0, 3, deliveredKind, noCode, time.Time{})
	tb.flying = nil
	tb.start()
	if !c.record.GetSettled() {
		t.Error("not settled though everybody has a receipt")
	}
	if got, money := tb.model(c); got.ambiguous != 0 || got.delivered != 10 || tb.settled[10001] != money {
		t.Errorf("counts %+v, captured %d; want 10 delivered and %d", got, tb.settled[10001], money)
	}
}

// TestGiveUpAmbiguous: recipients that a person gave up are final and cost nothing. A receipt that still arrives
// outranks the order.
func TestGiveUpAmbiguous(t *testing.T) {
	tb, c := ambiguousCampaign(t)
	tb.set(c, order(7, schemas.AmbiguousActionGiveUp))
	if got := tb.ends(); len(got) != 3 || got[0].Kind != schemas.KindNotSent || got[0].Code != schemas.CodeGivenUp {
		t.Fatalf("events %+v, want not_sent/GIVEN_UP of three", got)
	}
	tb.wantDealt(tb.deals(), 0)
	tb.says(10001, 2, 1, deliveredKind, noCode, time.Time{})
	tb.start()
	if !c.record.GetSettled() {
		t.Error("not settled though no recipient is ambiguous any more")
	}
	if got, money := tb.model(c); got.never != 2 || got.delivered != 8 || tb.settled[10001] != money {
		t.Errorf("counts %+v, captured %d; want 2 given up, 8 delivered and %d", got, tb.settled[10001], money)
	}
}

// TestNoResendAfterAbort: no message of an aborted campaign is handed over, even if a person orders to resend.
func TestNoResendAfterAbort(t *testing.T) {
	tb, c := ambiguousCampaign(t)
	tb.set(c, func(r *fanfarev1.Campaign) { r.Stopped = true })
	tb.set(c, order(7, schemas.AmbiguousActionResend))
	if got := tb.ends(); len(got) != 0 {
		t.Errorf("events %+v, want none", got)
	}
	tb.wantDealt(tb.deals(), 0)
}
