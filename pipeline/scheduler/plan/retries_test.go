package plan

import (
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// TestRetries walks one recipient through its hand-overs: each retry within its backoff, three hand-overs, then the
// end.
func TestRetries(t *testing.T) {
	tb := newScript(t, 1000)
	// The defaults of R163: 1, 5, 25 min
	c := tb.addCampaign(10001, testTenant, 1, 500, &fanfarev1.Leg{Channel: schemas.ChannelSMS, Route: "sim"})
	tb.start()
	tb.wantDealt(tb.deals(), 1)
	for n, wait := range []time.Duration{time.Minute, 5 * time.Minute} {
		tb.says(10001, 0, uint32(n+1), sentKind, noCode, time.Time{})
		tb.says(10001, 0, uint32(n+1), bouncedKind, schemas.CodeAbsentSubscriber, time.Time{})
		tb.wantDealt(tb.deals(), 0)
		tb.start()
		tb.wantState(10001, schemas.StateSending) // one waits
		tb.after(wait + time.Second)
		tb.wantDealt(tb.deals(), 1)
	}
	// a bounce without a `sent` event proves a hand-over, too
	tb.says(10001, 0, 3, bouncedKind, schemas.CodeHandsetOff, time.Time{})
	tb.wantEnd(0, 3, schemas.KindUndelivered, schemas.CodeHandsetOff)
	tb.after(time.Hour)
	tb.wantDealt(tb.deals(), 0)
	tb.start()
	tb.wantState(10001, schemas.StateCompleted)
	if !c.record.GetSettled() {
		t.Error("not settled")
	}
}

func TestReturnsAreNoHandovers(t *testing.T) {
	tb := newScript(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, smsLeg(2))
	tb.start()
	tb.wantDealt(tb.deals(), 1)
	n := uint32(1)
	for ; n <= 8; n++ {
		tb.says(10001, 0, n, returnedKind, schemas.CodeRate, tb.now.Add(time.Second))
		tb.wantDealt(tb.deals(), 0)
		tb.after(10 * time.Second)
		tb.wantDealt(tb.deals(), 1)
	}
	tb.says(10001, 0, n, bouncedKind, schemas.CodeAbsentSubscriber, time.Time{}) // the first hand-over
	if got := tb.ends(); len(got) > 0 {
		t.Fatalf("ended %v, want another hand-over", got)
	}
	tb.after(time.Minute)
	tb.wantDealt(tb.deals(), 1)
}

func TestRetryOnce(t *testing.T) {
	tb := newScript(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.start()
	tb.deals()
	tb.says(10001, 0, 1, bouncedKind, schemas.CodeExpired, time.Time{})
	tb.after(time.Minute)
	tb.wantDealt(tb.deals(), 1)
	tb.says(10001, 0, 2, bouncedKind, schemas.CodeExpired, time.Time{})
	tb.wantEnd(0, 2, schemas.KindUndelivered, schemas.CodeExpired)
}

func TestRetryShare(t *testing.T) {
	tb := newScript(t, 1000) // the route takes 100 retries a second, and 100 at once
	tb.addCampaign(10001, testTenant, 20_000, 5000, smsLeg(3))
	tb.start()
	for range 10 {
		tb.allSay(tb.deals(), bouncedKind, schemas.CodeAbsentSubscriber)
	}
	tb.after(time.Minute) // thousands are due
	var retries int
	for range 20 {
		for _, d := range tb.deals() {
			if d.Try > 1 {
				retries += int(d.Size())
			}
			tb.allSay([]Deal{d}, sentKind, noCode)
		}
		tb.after(100 * time.Millisecond)
	}
	if retries < 250 || retries > 300 {
		t.Errorf("%d retries in 2 s, want 100 and 100 a second: a tenth of the route", retries)
	}
}
