package scheduler

import (
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// TestRetries walks one recipient through its hand-overs: each retry within its backoff, three hand-overs, then the end.
func TestRetries(t *testing.T) {
	tb := newTable(t, 1000)
	c := tb.addCampaign(10001, testTenant, 1, 500, &fanfarev1.Leg{Channel: fanfarev1.Channel_CHANNEL_SMS, Route: "sim"}) // the defaults of R163: 1, 5, 25 min
	tb.start()
	tb.wantDealt(tb.deals(), 1)
	for n, wait := range []time.Duration{time.Minute, 5 * time.Minute} {
		tb.says(10001, 0, uint32(n+1), sentKind, noCode, time.Time{})
		tb.says(10001, 0, uint32(n+1), bouncedKind, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, time.Time{})
		tb.wantDealt(tb.deals(), 0)
		tb.start()
		tb.wantState(10001, fanfarev1.State_STATE_SENDING) // one waits
		tb.after(wait + time.Second)
		tb.wantDealt(tb.deals(), 1)
	}
	tb.says(10001, 0, 3, bouncedKind, fanfarev1.Code_CODE_HANDSET_OFF, time.Time{}) // without its sent: also a hand-over
	tb.wantEnd(0, 3, fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_HANDSET_OFF)
	tb.after(time.Hour)
	tb.wantDealt(tb.deals(), 0)
	tb.start()
	tb.wantState(10001, fanfarev1.State_STATE_COMPLETED)
	if !c.record.GetSettled() {
		t.Error("not settled")
	}
}

func TestReturnsAreNoHandovers(t *testing.T) {
	tb := newTable(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, smsLeg(2))
	tb.start()
	tb.wantDealt(tb.deals(), 1)
	n := uint32(1)
	for ; n <= 8; n++ {
		tb.says(10001, 0, n, returnedKind, fanfarev1.Code_CODE_RATE, tb.now.Add(time.Second))
		tb.wantDealt(tb.deals(), 0)
		tb.after(10 * time.Second)
		tb.wantDealt(tb.deals(), 1)
	}
	tb.says(10001, 0, n, bouncedKind, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, time.Time{}) // the first hand-over
	if got := tb.ends(); len(got) > 0 {
		t.Fatalf("ended %v, want another hand-over", got)
	}
	tb.after(time.Minute)
	tb.wantDealt(tb.deals(), 1)
}

func TestRetryOnce(t *testing.T) {
	tb := newTable(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.start()
	tb.deals()
	tb.says(10001, 0, 1, bouncedKind, fanfarev1.Code_CODE_EXPIRED, time.Time{})
	tb.after(time.Minute)
	tb.wantDealt(tb.deals(), 1)
	tb.says(10001, 0, 2, bouncedKind, fanfarev1.Code_CODE_EXPIRED, time.Time{})
	tb.wantEnd(0, 2, fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_EXPIRED)
}

// TestDoubtIsNeverDealt: an ambiguous recipient is dealt again only when its holder gives it back, or the carrier says no.
func TestDoubtIsNeverDealt(t *testing.T) {
	tb := newTable(t, 1000)
	tb.addCampaign(10001, testTenant, 3, 500, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 3)
	for seq := range uint32(3) {
		tb.says(10001, seq, 1, ambiguousKind, fanfarev1.Code_CODE_CRASH, time.Time{})
	}
	tb.after(time.Hour)
	tb.wantDealt(tb.deals(), 0)
	tb.says(10001, 1, 1, returnedKind, fanfarev1.Code_CODE_THROTTLED, time.Time{})
	tb.says(10001, 2, 1, bouncedKind, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, time.Time{})
	tb.after(time.Minute)
	tb.wantDealt(tb.deals(), 2)
}

// TestContradiction: who was given back and handed over at one try, if anybody ever says so, is not dealt again.
func TestContradiction(t *testing.T) {
	tb := newTable(t, 1000)
	c := tb.addCampaign(10001, testTenant, 2, 500, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 2)
	tb.set(c, func(r *fanfarev1.Campaign) { r.State = fanfarev1.State_STATE_PAUSED })
	tb.says(10001, 0, 1, returnedKind, fanfarev1.Code_CODE_PAUSED, time.Time{})
	tb.says(10001, 1, 1, returnedKind, fanfarev1.Code_CODE_PAUSED, time.Time{})
	tb.wantDealt(tb.deals(), 0)
	tb.says(10001, 0, 1, sentKind, noCode, time.Time{})
	tb.set(c, func(r *fanfarev1.Campaign) { r.State = fanfarev1.State_STATE_SENDING })
	if got := tb.deals(); len(got) != 1 || got[0].first != 1 || got[0].end != 2 {
		t.Errorf("dealt %+v, want seq 1 alone", got)
	}
}

// TestSenderClockAhead: a sender whose clock is ahead closes earlier than we do. What it gives back waits for the next opening,
// and does not come and go until our clock has reached the end too.
func TestSenderClockAhead(t *testing.T) {
	tb := newTable(t, 1000)
	c := tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.set(c, func(r *fanfarev1.Campaign) {
		r.CallingHours = &fanfarev1.CallingHours{StartMinute: 9 * 60, EndMinute: 20 * 60, Timezone: "Europe/Rome"}
	})
	tb.start()
	tb.wantDealt(tb.deals(), 1)
	end := time.Date(2030, 3, 4, 19, 0, 0, 0, time.UTC)
	tb.now = end.Add(2 * time.Second)
	tb.says(10001, 0, 1, returnedKind, fanfarev1.Code_CODE_WINDOW, time.Time{})
	tb.now = end.Add(-3 * time.Second)
	tb.wantDealt(tb.deals(), 0)
	tb.now = end.Add(13 * time.Hour)
	tb.wantDealt(tb.deals(), 1)
}

// TestStaleEnd: an end that was decided and not written is dropped when another try has gone out meanwhile.
func TestStaleEnd(t *testing.T) {
	tb := newTable(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 1)
	tb.says(10001, 0, 1, bouncedKind, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, time.Time{})
	tb.wantDealt(tb.deals(), 0)
	tb.after(time.Minute)
	tb.says(10001, 0, 1, bouncedKind, fanfarev1.Code_CODE_OPERATOR_BLACKLIST, time.Time{}) // nothing may follow that
	tb.wantDealt(tb.deals(), 1)                                                            // but it is due already
	if got := tb.ends(); len(got) > 0 {
		t.Fatalf("ended %v while try 2 is in flight", got)
	}
	tb.says(10001, 0, 2, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_SPAM_CONTENT, time.Time{})
	tb.wantEnd(0, 1, fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_OPERATOR_BLACKLIST)
}

// TestReview: what the predecessor had read and not acted upon when its sets were written is decided by the successor.
func TestReview(t *testing.T) {
	tb := newTable(t, 1000)
	c := tb.addCampaign(10001, testTenant, 4, 500, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 4)
	for seq, code := range []fanfarev1.Code{fanfarev1.Code_CODE_BARRED, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER} {
		tb.says(10001, uint32(seq), 1, bouncedKind, code, time.Time{})
	}
	tb.says(10001, 2, 1, returnedKind, fanfarev1.Code_CODE_RATE, time.Time{})
	tb.says(10001, 3, 1, bouncedKind, fanfarev1.Code_CODE_MEMORY_FULL, time.Time{})
	tb.says(10001, 3, 2, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_SPAM_CONTENT, time.Time{})
	camp := tb.core.campaigns[10001]
	parts, _ := camp.snapshot()
	next := newCore()
	if err := next.restore(camp.cursor(), parts); err != nil {
		t.Fatal(err)
	}
	tb.core = next
	next.RouteChanged(tb.routes[0])
	next.TenantChanged(&fanfarev1.Tenant{Id: testTenant, Enabled: true})
	next.CampaignChanged(c.record)
	tb.start()
	ends := map[uint32]fanfarev1.Code{}
	for _, e := range tb.ends() {
		ends[e.seq] = e.code
	}
	if len(ends) != 2 || ends[0] != fanfarev1.Code_CODE_BARRED || ends[3] != fanfarev1.Code_CODE_MEMORY_FULL {
		t.Errorf("ended %v, want 0 as BARRED and 3 as MEMORY_FULL", ends)
	}
	tb.after(time.Minute)
	if got := tb.deals(); recipients(got) != 2 || got[0].try != 2 {
		t.Errorf("dealt %+v, want 1 and 2 again", got)
	}
}

// TestAfterSettled: what was written before the campaign was settled has been dealt with, and is not ended again when it is read again.
func TestAfterSettled(t *testing.T) {
	tb := newTable(t, 1000)
	c := tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.start()
	tb.set(c, func(r *fanfarev1.Campaign) {
		r.State, r.Settled, r.SettledMs = fanfarev1.State_STATE_COMPLETED, true, ms(tb.now)
	})
	tb.after(-time.Minute)
	tb.says(10001, 0, 1, bouncedKind, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, time.Time{})
	if got := tb.ends(); len(got) > 0 {
		t.Errorf("ended %v", got)
	}
}

func TestCaptured(t *testing.T) {
	for name, c := range map[string]struct {
		says []fanfarev1.Kind
		code fanfarev1.Code
		want uint64
	}{
		"delivered":                     {[]fanfarev1.Kind{sentKind, deliveredKind}, noCode, 50_000},
		"sent":                          {[]fanfarev1.Kind{sentKind}, noCode, 50_000},
		"in doubt":                      {[]fanfarev1.Kind{ambiguousKind}, noCode, 0},
		"in doubt, then delivered":      {[]fanfarev1.Kind{ambiguousKind, deliveredKind}, noCode, 50_000},
		"in doubt, then sent":           {[]fanfarev1.Kind{ambiguousKind, sentKind}, noCode, 50_000},
		"given back":                    {[]fanfarev1.Kind{returnedKind}, noCode, 0},
		"undelivered":                   {[]fanfarev1.Kind{sentKind, fanfarev1.Kind_KIND_UNDELIVERED}, fanfarev1.Code_CODE_BARRED, 50_000},
		"the provider's error":          {[]fanfarev1.Kind{sentKind, fanfarev1.Kind_KIND_UNDELIVERED}, fanfarev1.Code_CODE_PROVIDER_ERROR, 0},
		"an error, and delivered still": {[]fanfarev1.Kind{sentKind, bouncedKind, deliveredKind}, fanfarev1.Code_CODE_PROVIDER_ERROR, 50_000},
	} {
		t.Run(name, func(t *testing.T) {
			tb := newTable(t, 1000)
			tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
			tb.start()
			tb.deals()
			for _, kind := range c.says {
				tb.says(10001, 0, 1, kind, c.code, time.Time{})
			}
			if got := tb.core.campaigns[10001].captured(); got != c.want {
				t.Errorf("captured %d, want %d", got, c.want)
			}
		})
	}
}

func TestRetryShare(t *testing.T) {
	tb := newTable(t, 1000) // 100 retries a second, 100 at once
	tb.addCampaign(10001, testTenant, 20_000, 5000, smsLeg(3))
	tb.start()
	for range 10 {
		tb.allSay(tb.deals(), bouncedKind, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER)
	}
	tb.after(time.Minute) // thousands are due
	var retries int
	for range 20 {
		for _, d := range tb.deals() {
			if d.try > 1 {
				retries += int(d.size())
			}
			tb.allSay([]deal{d}, sentKind, noCode)
		}
		tb.after(100 * time.Millisecond)
	}
	if retries < 250 || retries > 300 {
		t.Errorf("%d retries in 2 s, want 100 and 100 a second: a tenth of the route", retries)
	}
}

func TestLost(t *testing.T) {
	tb := newTable(t, 1000)
	c := tb.addCampaign(10001, testTenant, 2, 500, smsLeg(3)) // valid for an hour
	tb.start()
	tb.wantDealt(tb.deals(), 2)
	tb.says(10001, 0, 1, deliveredKind, noCode, time.Time{})
	tb.after(time.Hour + 9*time.Minute)
	if got := tb.ends(); len(got) > 0 {
		t.Fatalf("ended %v before its time", got)
	}
	tb.after(2 * time.Minute)
	tb.wantEnd(1, 1, ambiguousKind, fanfarev1.Code_CODE_LOST)
	tb.wantDealt(tb.deals(), 0)
	tb.start()
	tb.wantState(10001, fanfarev1.State_STATE_COMPLETED)
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
	tb := newTable(t, 1000) // receipts are awaited for an hour
	c := tb.addCampaign(10001, testTenant, 3, 500, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 3)
	tb.says(10001, 0, 1, deliveredKind, noCode, time.Time{})
	tb.after(10 * time.Minute)
	tb.says(10001, 1, 1, sentKind, noCode, time.Time{}) // the last hand-over
	tb.says(10001, 2, 1, ambiguousKind, fanfarev1.Code_CODE_TIMEOUT, time.Time{})
	tb.start()
	tb.wantState(10001, fanfarev1.State_STATE_COMPLETED)
	tb.after(59 * time.Minute)
	if got := tb.ends(); len(got) > 0 || c.record.GetSettled() {
		t.Fatalf("ended %v, settled %v before the window was over", got, c.record.GetSettled())
	}
	tb.after(time.Minute)
	tb.wantEnd(1, 1, fanfarev1.Kind_KIND_UNCONFIRMED, fanfarev1.Code_CODE_NO_DLR)
	tb.start()
	if !c.record.GetSettled() {
		t.Fatal("not settled")
	}
	if got, _ := tb.model(c); got.ambiguous != 1 || got.awaiting != 1 {
		t.Errorf("census %+v, want one ambiguous for ever and one awaiting", got)
	}
	// What comes later is a correction; nothing stays open.
	tb.says(10001, 2, 1, bouncedKind, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, time.Time{})
	tb.wantEnd(2, 1, fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER)
}

func TestNextLeg(t *testing.T) {
	for name, c := range map[string]struct {
		kind    fanfarev1.Kind
		code    fanfarev1.Code
		follows bool
		leg     uint8
		end     fanfarev1.Code
	}{
		"cannot reach":                    {returnedKind, fanfarev1.Code_CODE_UNSUPPORTED, true, 2, 0},
		"refused by the handset":          {bouncedKind, fanfarev1.Code_CODE_HANDSET_ERROR, true, 2, 0},
		"expired, one hand-over allowed":  {bouncedKind, fanfarev1.Code_CODE_EXPIRED, true, 2, 0},
		"blacklisted: no channel helps":   {bouncedKind, fanfarev1.Code_CODE_OPERATOR_BLACKLIST, false, 0, fanfarev1.Code_CODE_OPERATOR_BLACKLIST},
		"silence":                         {sentKind, noCode, false, 0, 0},
		"doubt":                           {ambiguousKind, fanfarev1.Code_CODE_TIMEOUT, false, 0, 0},
		"the carrier is busy: same leg":   {returnedKind, fanfarev1.Code_CODE_THROTTLED, true, 1, 0},
		"not sent is final":               {fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_SPAM_CONTENT, false, 0, 0},
		"undelivered is final":            {fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_HANDSET_ERROR, false, 0, 0},
		"delivered is final, fortunately": {deliveredKind, noCode, false, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			tb := newTable(t, 1000)
			tb.addRoute("rcs", 1000)
			tb.addCampaign(10001, testTenant, 1, 500, rcsLeg("rcs"), smsLeg(3))
			tb.start()
			first := tb.deals()
			if len(first) != 1 || first[0].leg != 1 {
				t.Fatalf("dealt %+v, want leg 1", first)
			}
			tb.says(10001, 0, 1, c.kind, c.code, time.Time{})
			tb.after(50 * time.Minute)
			ends := tb.ends()
			if c.end != 0 {
				if len(ends) != 1 || ends[0].code != c.end {
					t.Fatalf("ended %v, want %s", ends, c.end)
				}
				return
			}
			next := tb.deals()
			if !c.follows {
				tb.wantDealt(next, 0)
				return
			}
			if len(next) != 1 || next[0].leg != c.leg || next[0].try != 2 {
				t.Fatalf("dealt %+v, want leg %d at try 2", next, c.leg)
			}
		})
	}
}

func TestChainEnds(t *testing.T) {
	tb := newTable(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, rcsLeg("sim"))
	tb.start()
	tb.deals()
	tb.says(10001, 0, 1, returnedKind, fanfarev1.Code_CODE_UNSUPPORTED, time.Time{})
	tb.wantEnd(0, 1, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_RCS_NOT_CAPABLE)
}

// TestFollowingTryEnds: a bounce whose following try never left ends as what the carrier had said.
func TestFollowingTryEnds(t *testing.T) {
	tb := newTable(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.start()
	tb.deals()
	tb.says(10001, 0, 1, bouncedKind, fanfarev1.Code_CODE_MEMORY_FULL, time.Time{})
	tb.after(2 * time.Minute)
	tb.wantDealt(tb.deals(), 1)
	tb.says(10001, 0, 2, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_VALIDITY_EXPIRED, time.Time{})
	tb.wantEnd(0, 1, fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_MEMORY_FULL)
}

func TestTriesSpent(t *testing.T) {
	tb := newTable(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.start()
	begin := tb.now
	for n := uint32(1); n < lastTry; n++ {
		for recipients(tb.deals()) == 0 {
			tb.after(max(time.Second, time.Duration(pacing(int(n)))*time.Millisecond/4))
		}
		tb.says(10001, 0, n, returnedKind, fanfarev1.Code_CODE_RATE, time.Time{})
	}
	if took := tb.now.Sub(begin); took < maxValidity {
		t.Errorf("%d tries were spent in %s, want no less than %s: a long trouble must not use them up", lastTry, took, maxValidity)
	}
	tb.after(time.Hour)
	tb.wantDealt(tb.deals(), 1)
	tb.says(10001, 0, lastTry, returnedKind, fanfarev1.Code_CODE_RATE, time.Time{})
	tb.wantEnd(0, lastTry, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_TRIES_SPENT)
	tb.wantDealt(tb.deals(), 0)
}

// TestCancelIsCarriedOut: when nobody answers a cancel, the scheduler does.
func TestCancelIsCarriedOut(t *testing.T) {
	tb := newTable(t, 1)
	c := tb.addCampaign(10001, testTenant, 3, 500, smsLeg(3))
	tb.start()
	tb.deals()
	tb.allSay(tb.deals(), sentKind, noCode)
	tb.set(c, func(r *fanfarev1.Campaign) { r.State = fanfarev1.State_STATE_ABORTED })
	if got := tb.core.Deals(tb.now); recipients(got) == 0 { // and the chunk comes to nothing
		t.Fatal("nothing was cancelled")
	}
	tb.after(21 * time.Minute)
	for _, e := range tb.ends() {
		if e.kind != fanfarev1.Kind_KIND_SKIPPED || e.code != fanfarev1.Code_CODE_CANCELLED {
			t.Errorf("ended %+v, want skipped/CANCELLED", e)
		}
	}
	if got, _ := tb.model(c); got.never == 0 {
		t.Errorf("census %+v, want skipped ones", got)
	}
}

func TestMoveIsAskedOnce(t *testing.T) {
	tb := newTable(t, 100)
	tb.addCampaign(10001, testTenant, 10, 500, smsLeg(3))
	for _, w := range tb.core.Wants(tb.now) {
		if err := tb.core.Wanted(w, tb.camps[w.number].blobs, nil, tb.now); err != nil {
			t.Fatal(err)
		}
	}
	if got := tb.core.Moves(tb.now); len(got) != 1 || got[0].Trigger != schemas.TriggerDeal {
		t.Fatalf("moves %+v, want deal", got)
	}
	if got := tb.core.Moves(tb.now); len(got) != 0 {
		t.Fatalf("moves %+v again", got)
	}
	if got := tb.core.Moves(tb.now.Add(moveAgain)); len(got) != 1 {
		t.Fatalf("moves %+v a second later, want the same again", got)
	}
}

// TestEventBeforeRecord: an event may overtake the campaign it is about.
func TestEventBeforeRecord(t *testing.T) {
	tb := newTable(t, 100)
	hidden := &fanfarev1.Campaign{
		Tenant: testTenant, Id: schemas.CampaignID(10009), Number: 10009, Version: 3, State: fanfarev1.State_STATE_SENDING, Hidden: true, Total: 1000,
		CreatedMs: ms(tb.now), ReceiptWindowMs: 1000,
	}
	e := event{campaign: 10009, seq: 7, try: 1, leg: 1, kind: sentKind, at: ms(tb.now), tenant: []byte(testTenant), id: []byte(hidden.GetId())}
	tb.core.observe(&e)
	e.notAfter = ms(tb.now.Add(time.Hour))
	tb.core.submitted(&e, "sim")
	e.seq = 8
	tb.core.submitted(&e, "sim")
	tb.core.CampaignChanged(hidden)
	if got := tb.core.route("sim").txn; got != 1 {
		t.Errorf("%d single sends in flight, want 1", got)
	}
	if got := tb.core.campaigns[10009].census(); got.total != 2 || got.awaiting != 1 || got.pending != 1 {
		t.Errorf("census %+v, want one awaiting and one pending", got)
	}
}

// TestEventBeforeAudience: a successor's view may be older than its predecessor's was. What is said of recipients whom it does not
// know yet is not lost, for it is not read again.
func TestEventBeforeAudience(t *testing.T) {
	tb := newTable(t, 100)
	tb.addCampaign(10001, testTenant, 10, 10, smsLeg(1))
	newest := tb.core.campaigns[10001].record
	tb.core = newCore()
	tb.addRoute("sim", 100)
	tb.addTenant(testTenant, 0, 1)
	if err := tb.core.restore(&fanfarev1.Cursor{
		Tenant: testTenant, CampaignId: newest.GetId(), CampaignNumber: 10001, Deals: 1,
		Recent: []*fanfarev1.Deal{{Deal: 1, Try: 1, Leg: 1, EndSeq: 4, NotAfterMs: ms(tb.now.Add(time.Hour))}},
	}, nil); err != nil {
		t.Fatal(err)
	}
	older := cloneRecord(newest)
	older.Version, older.FreezeId, older.Total = newest.GetVersion()-1, "", 0
	tb.core.CampaignChanged(older)
	for seq := range uint32(4) {
		tb.core.observe(&event{campaign: 10001, seq: seq, try: 1, leg: 1, kind: sentKind, at: ms(tb.now), price: 50_000})
	}
	tb.core.CampaignChanged(newest)
	if got := tb.core.campaigns[10001].census(); got.awaiting != 4 || got.inFlight != 0 || got.undealt != 6 {
		t.Errorf("census %+v, want 4 awaiting, none in flight, 6 undealt", got)
	}
}

// TestHiddenCampaign: single sends are lost, end and settle like others, once their day is over and nothing is held.
func TestHiddenCampaign(t *testing.T) {
	tb := newTable(t, 100)
	c := &fakeCampaign{record: &fanfarev1.Campaign{
		Tenant: testTenant, Id: schemas.CampaignID(10009), Number: 10009, Version: 3, State: fanfarev1.State_STATE_SENDING, Hidden: true, Total: 1000,
		CreatedMs: ms(tb.now), ReceiptWindowMs: 1000,
	}}
	tb.camps[10009] = c
	tb.core.CampaignChanged(c.record)
	for seq := range uint32(3) {
		tb.core.submitted(&event{campaign: 10009, seq: seq, try: 1, leg: 1, notAfter: ms(tb.now.Add(time.Hour))}, "sim")
	}
	tb.says(10009, 0, 1, bouncedKind, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, time.Time{})
	tb.wantEnd(0, 1, fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER) // never tried again once handed over
	tb.says(10009, 1, 1, returnedKind, fanfarev1.Code_CODE_WINDOW, time.Time{})
	tb.wantDealt(tb.deals(), 0) // it is among the held
	tb.after(2 * time.Hour)
	tb.wantEnd(2, 1, ambiguousKind, fanfarev1.Code_CODE_LOST)
	tb.after(24 * time.Hour)
	tb.start()
	tb.wantState(10009, fanfarev1.State_STATE_SENDING) // seq 1 waits
	tb.core.submitted(&event{campaign: 10009, seq: 1, try: 2, leg: 1, notAfter: ms(tb.now.Add(time.Hour))}, "sim")
	tb.says(10009, 1, 2, deliveredKind, noCode, time.Time{})
	tb.core.holding.put(&held{key: "k", campaign: 10009})
	tb.start()
	tb.wantState(10009, fanfarev1.State_STATE_SENDING) // one is held
	tb.core.holding.remove("k")
	tb.core.laneUnread = true
	tb.start()
	tb.wantState(10009, fanfarev1.State_STATE_SENDING) // one may stand on a lane
	tb.core.laneUnread = false
	tb.start()
	tb.wantState(10009, fanfarev1.State_STATE_COMPLETED)
	tb.after(time.Second)
	tb.start()
	if !c.record.GetSettled() {
		t.Error("not settled")
	}
}
