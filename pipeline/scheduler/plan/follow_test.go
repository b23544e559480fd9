package plan

import (
	"fmt"
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// TestDoubtIsNeverDealt: an ambiguous recipient is dealt again only when the sender returns it, or when the carrier
// sends a negative receipt.
func TestDoubtIsNeverDealt(t *testing.T) {
	tb := newScript(t, 1000)
	tb.addCampaign(10001, testTenant, 3, 500, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 3)
	for seq := range uint32(3) {
		tb.says(10001, seq, 1, ambiguousKind, schemas.CodeCrash, time.Time{})
	}
	tb.after(time.Hour)
	tb.wantDealt(tb.deals(), 0)
	tb.says(10001, 1, 1, returnedKind, schemas.CodeThrottled, time.Time{})
	tb.says(10001, 2, 1, bouncedKind, schemas.CodeAbsentSubscriber, time.Time{})
	tb.after(time.Minute)
	tb.wantDealt(tb.deals(), 2)
}

// TestContradiction: a recipient that is both returned and handed over at one try is not dealt again.
func TestContradiction(t *testing.T) {
	tb := newScript(t, 1000)
	c := tb.addCampaign(10001, testTenant, 2, 500, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 2)
	tb.set(c, func(r *fanfarev1.Campaign) { r.State = schemas.StatePaused })
	tb.says(10001, 0, 1, returnedKind, schemas.CodePaused, time.Time{})
	tb.says(10001, 1, 1, returnedKind, schemas.CodePaused, time.Time{})
	tb.wantDealt(tb.deals(), 0)
	tb.says(10001, 0, 1, sentKind, noCode, time.Time{})
	tb.set(c, func(r *fanfarev1.Campaign) { r.State = schemas.StateSending })
	if got := tb.deals(); len(got) != 1 || got[0].first != 1 || got[0].end != 2 {
		t.Errorf("dealt %+v, want seq 1 alone", got)
	}
}

// TestSenderClockAhead: a sender whose clock is ahead sees calling hours end before the scheduler does. The recipients
// that it returns wait until the hours open next. They are not dealt and returned again and again until the scheduler's
// clock reaches the end of the hours, too.
func TestSenderClockAhead(t *testing.T) {
	tb := newScript(t, 1000)
	c := tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.set(c, func(r *fanfarev1.Campaign) {
		r.CallingHours = &fanfarev1.CallingHours{StartMinute: 9 * 60, EndMinute: 20 * 60, Timezone: "Europe/Rome"}
	})
	tb.start()
	tb.wantDealt(tb.deals(), 1)
	end := time.Date(2030, 3, 4, 19, 0, 0, 0, time.UTC)
	tb.now = end.Add(2 * time.Second)
	tb.says(10001, 0, 1, returnedKind, schemas.CodeWindow, time.Time{})
	tb.now = end.Add(-3 * time.Second)
	tb.wantDealt(tb.deals(), 0)
	tb.now = end.Add(13 * time.Hour)
	tb.wantDealt(tb.deals(), 1)
}

// TestReview: the predecessor read events and wrote its sets before it decided what follows from the events. The
// successor decides it.
func TestReview(t *testing.T) {
	tb := newScript(t, 1000)
	c := tb.addCampaign(10001, testTenant, 4, 500, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 4)
	for seq, code := range []schemas.Code{schemas.CodeBarred, schemas.CodeAbsentSubscriber} {
		tb.says(10001, uint32(seq), 1, bouncedKind, code, time.Time{})
	}
	tb.says(10001, 2, 1, returnedKind, schemas.CodeRate, time.Time{})
	tb.says(10001, 3, 1, bouncedKind, schemas.CodeMemoryFull, time.Time{})
	tb.says(10001, 3, 2, schemas.KindNotSent, schemas.CodeSpamContent, time.Time{})
	camp := tb.planner.campaigns[10001]
	parts, _ := camp.Snapshot()
	next := New()
	if err := next.Restore(camp.Cursor(), parts, tb.now); err != nil {
		t.Fatal(err)
	}
	tb.planner = next
	next.setRoute(tb.routes[0])
	next.setTenant(&fanfarev1.Tenant{Id: testTenant, Enabled: true})
	next.CampaignChanged(c.record)
	tb.start()
	ends := map[uint32]schemas.Code{}
	for _, e := range tb.ends() {
		ends[e.Seq] = e.Code
	}
	if len(ends) != 2 || ends[0] != schemas.CodeBarred || ends[3] != schemas.CodeMemoryFull {
		t.Errorf("ended %v, want 0 as BARRED and 3 as MEMORY_FULL", ends)
	}
	tb.after(time.Minute)
	if got := tb.deals(); recipients(got) != 2 || got[0].Try != 2 {
		t.Errorf("dealt %+v, want 1 and 2 again", got)
	}
}

// TestAfterSettled: the planner handled the events that were written before the campaign settled. When it reads them
// again, it ends no recipient again.
func TestAfterSettled(t *testing.T) {
	tb := newScript(t, 1000)
	c := tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.start()
	tb.set(c, func(r *fanfarev1.Campaign) {
		r.State, r.Settled, r.SettledMs = schemas.StateCompleted, true, ms(tb.now)
	})
	tb.after(-time.Minute)
	tb.says(10001, 0, 1, bouncedKind, schemas.CodeAbsentSubscriber, time.Time{})
	if got := tb.ends(); len(got) > 0 {
		t.Errorf("ended %v", got)
	}
}

func TestCaptured(t *testing.T) {
	for name, c := range map[string]struct {
		says []schemas.Kind
		code schemas.Code
		want uint64
		more []schemas.Code // of bounces after that
	}{
		"delivered":                     {[]schemas.Kind{sentKind, deliveredKind}, noCode, 50_000, nil},
		"sent":                          {[]schemas.Kind{sentKind}, noCode, 50_000, nil},
		"in doubt":                      {[]schemas.Kind{ambiguousKind}, noCode, 0, nil},
		"in doubt, then delivered":      {[]schemas.Kind{ambiguousKind, deliveredKind}, noCode, 50_000, nil},
		"in doubt, then sent":           {[]schemas.Kind{ambiguousKind, sentKind}, noCode, 50_000, nil},
		"given back":                    {[]schemas.Kind{returnedKind}, noCode, 0, nil},
		"undelivered":                   {[]schemas.Kind{sentKind, schemas.KindUndelivered}, schemas.CodeBarred, 50_000, nil},
		"the provider's error":          {[]schemas.Kind{sentKind, schemas.KindUndelivered}, schemas.CodeProviderError, 0, nil},
		"an error, and delivered still": {[]schemas.Kind{sentKind, bouncedKind, deliveredKind}, schemas.CodeProviderError, 50_000, nil},
		"an error, then a greater code": {[]schemas.Kind{sentKind, bouncedKind}, schemas.CodeProviderError, 50_000, []schemas.Code{schemas.CodeUnknownSubscriber}},
		"an error, then a lower code":   {[]schemas.Kind{sentKind, bouncedKind}, schemas.CodeProviderError, 0, []schemas.Code{schemas.CodeAbsentSubscriber}},
	} {
		t.Run(name, func(t *testing.T) {
			tb := newScript(t, 1000)
			tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
			tb.start()
			tb.deals()
			for _, kind := range c.says {
				tb.says(10001, 0, 1, kind, c.code, time.Time{})
			}
			for _, code := range c.more {
				tb.says(10001, 0, 1, bouncedKind, code, time.Time{})
			}
			if got := tb.planner.campaigns[10001].captured(); got != c.want {
				t.Errorf("captured %d, want %d", got, c.want)
			}
		})
	}
}

func TestNextLeg(t *testing.T) {
	for name, c := range map[string]struct {
		kind    schemas.Kind
		code    schemas.Code
		follows bool
		leg     uint8
		end     schemas.Code
	}{
		"cannot reach":                     {returnedKind, schemas.CodeUnsupported, true, 2, 0},
		"refused, and the code falls back": {returnedKind, schemas.CodeTemplateNotFound, true, 2, 0},
		"refused by the handset":           {bouncedKind, schemas.CodeHandsetError, true, 2, 0},
		"expired, one hand-over allowed":   {bouncedKind, schemas.CodeExpired, true, 2, 0},
		"blacklisted: no channel helps":    {bouncedKind, schemas.CodeOperatorBlacklist, false, 0, schemas.CodeOperatorBlacklist},
		"silence":                          {sentKind, noCode, false, 0, 0},
		"doubt":                            {ambiguousKind, schemas.CodeTimeout, false, 0, 0},
		"the carrier is busy: same leg":    {returnedKind, schemas.CodeThrottled, true, 1, 0},
		"not sent is final":                {schemas.KindNotSent, schemas.CodeSpamContent, false, 0, 0},
		"undelivered is final":             {schemas.KindUndelivered, schemas.CodeHandsetError, false, 0, 0},
		"delivered is final, fortunately":  {deliveredKind, noCode, false, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			tb := newScript(t, 1000)
			tb.addRoute("rcs", 1000)
			tb.addCampaign(10001, testTenant, 1, 500, rcsLeg("rcs"), smsLeg(3))
			tb.start()
			first := tb.deals()
			if len(first) != 1 || first[0].Leg != 1 {
				t.Fatalf("dealt %+v, want leg 1", first)
			}
			tb.says(10001, 0, 1, c.kind, c.code, time.Time{})
			tb.after(50 * time.Minute)
			ends := tb.ends()
			if c.end != 0 {
				if len(ends) != 1 || ends[0].Code != c.end {
					t.Fatalf("ended %v, want %s", ends, c.end)
				}
				return
			}
			next := tb.deals()
			if !c.follows {
				tb.wantDealt(next, 0)
				return
			}
			if len(next) != 1 || next[0].Leg != c.leg || next[0].Try != 2 {
				t.Fatalf("dealt %+v, want leg %d at try 2", next, c.leg)
			}
		})
	}
}

// TestRefusalAtEndOfChain: a refusal that would fall back ends the recipient with its code when the chain has no
// further leg.
func TestRefusalAtEndOfChain(t *testing.T) {
	tb := newScript(t, 1000)
	tb.addCampaign(10001, testTenant, 1, 500, rcsLeg("sim"))
	tb.start()
	tb.deals()
	tb.says(10001, 0, 1, returnedKind, schemas.CodeTemplateNotFound, time.Time{})
	tb.wantEnd(0, 1, schemas.KindNotSent, schemas.CodeTemplateNotFound)
}

// TestStaleFreezeError: an error about the audience of an older version does not fail the campaign that was confirmed
// since with other lists.
func TestStaleFreezeError(t *testing.T) {
	tb := newScript(t, 1000)
	c := tb.addCampaign(10001, testTenant, 10, 500, smsLeg(3))
	tb.set(c, func(r *fanfarev1.Campaign) { r.FreezeId, r.Total = "", 0 })
	first := tb.planner.AudienceRequests(tb.now)
	if len(first) != 1 {
		t.Fatalf("%d requests, want one", len(first))
	}
	// Before the answer arrives, a person unschedules the campaign, gives it another list and confirms it again.
	tb.set(c, func(r *fanfarev1.Campaign) { r.Lists = []string{"another"} })
	if err := tb.planner.AudienceAnswered(first[0], nil, fmt.Errorf("list: %w", schemas.ErrNotFound), tb.now); err == nil {
		t.Error("the error is not reported")
	}
	if got := tb.planner.Moves(tb.now); len(got) != 0 {
		t.Fatalf("moves %+v, want none: the newer version has not been asked for", got)
	}
	tb.after(time.Second)
	second := tb.planner.AudienceRequests(tb.now)
	if len(second) != 1 || second[0].Version != c.record.GetVersion() {
		t.Fatalf("requests %+v, want one for version %d", second, c.record.GetVersion())
	}
	_ = tb.planner.AudienceAnswered(second[0], nil, fmt.Errorf("list: %w", schemas.ErrNotFound), tb.now)
	if got := tb.planner.Moves(tb.now); len(got) != 1 || got[0].To != schemas.StateFailed {
		t.Fatalf("moves %+v, want it to fail", got)
	}
}

// TestPauseAfterCompleted: retries after a late bounce go on while the campaign is completed (pipeline.md 3.5). Pause
// stops them, and resume continues them.
func TestPauseAfterCompleted(t *testing.T) {
	tb := newScript(t, 1000)
	c := tb.addCampaign(10001, testTenant, 1, 500, smsLeg(3))
	tb.start()
	tb.wantDealt(tb.deals(), 1)
	tb.says(10001, 0, 1, sentKind, noCode, time.Time{})
	tb.flying = nil
	tb.start()
	tb.wantState(10001, schemas.StateCompleted)
	tb.says(10001, 0, 1, bouncedKind, schemas.CodeAbsentSubscriber, time.Time{})
	if !schemas.CanTransition(schemas.StateCompleted, schemas.StatePaused, schemas.TriggerPause) {
		t.Fatal("pause is not legal after completed")
	}
	tb.set(c, func(r *fanfarev1.Campaign) { r.State = schemas.StatePaused })
	tb.after(2 * time.Minute)
	tb.wantDealt(tb.deals(), 0)
	tb.start()
	tb.wantState(10001, schemas.StatePaused)
	tb.set(c, func(r *fanfarev1.Campaign) { r.State = schemas.StateSending })
	tb.wantDealt(tb.deals(), 1)
	tb.says(10001, 0, 2, deliveredKind, noCode, time.Time{})
	tb.start()
	if !c.record.GetSettled() {
		t.Errorf("%s, want completed and settled", c.record.GetState())
	}
}

func TestMoveIsAskedOnce(t *testing.T) {
	tb := newScript(t, 100)
	tb.addCampaign(10001, testTenant, 10, 500, smsLeg(3))
	for _, w := range tb.planner.AudienceRequests(tb.now) {
		if err := tb.planner.AudienceAnswered(w, tb.camps[w.Number].blobs, nil, tb.now); err != nil {
			t.Fatal(err)
		}
	}
	if got := tb.planner.Moves(tb.now); len(got) != 1 || got[0].Trigger != schemas.TriggerDeal {
		t.Fatalf("moves %+v, want deal", got)
	}
	if got := tb.planner.Moves(tb.now); len(got) != 0 {
		t.Fatalf("moves %+v again", got)
	}
	if got := tb.planner.Moves(tb.now.Add(moveAgain)); len(got) != 1 {
		t.Fatalf("moves %+v a second later, want the same again", got)
	}
}

// TestEventBeforeRecord: an event may overtake the campaign it is about.
func TestEventBeforeRecord(t *testing.T) {
	tb := newScript(t, 100)
	hidden := &fanfarev1.Campaign{
		Tenant: testTenant, Id: schemas.CampaignID(10009), Number: 10009, Version: 3, State: schemas.StateSending, Hidden: true, Total: 1000,
		CreatedMs: ms(tb.now), ReceiptWindowMs: 1000,
	}
	e := Event{Campaign: 10009, Seq: 7, Try: 1, Leg: 1, Kind: sentKind, TimeMs: ms(tb.now), Tenant: []byte(testTenant), CampaignID: []byte(hidden.GetId())}
	tb.planner.Observe(&e)
	e.NotAfterMs = ms(tb.now.Add(time.Hour))
	tb.planner.ObserveSubmission(&e, "sim")
	e.Seq = 8
	tb.planner.ObserveSubmission(&e, "sim")
	tb.planner.CampaignChanged(hidden)
	if got := tb.planner.route("sim").txn; got != 1 {
		t.Errorf("%d single sends in flight, want 1", got)
	}
	if got := tb.planner.campaigns[10009].counts(); got.total != 2 || got.awaiting != 1 || got.pending != 1 {
		t.Errorf("census %+v, want one awaiting and one pending", got)
	}
}

// TestEventBeforeAudience: a successor's view may be older than its predecessor's was. The planner keeps events about
// recipients that it does not know yet, because they are not read again.
func TestEventBeforeAudience(t *testing.T) {
	tb := newScript(t, 100)
	tb.addCampaign(10001, testTenant, 10, 10, smsLeg(1))
	newest := tb.planner.campaigns[10001].record
	tb.planner = New()
	tb.addRoute("sim", 100)
	tb.addTenant(testTenant, 0, 1)
	if err := tb.planner.Restore(&fanfarev1.Cursor{
		Tenant: testTenant, CampaignId: newest.GetId(), CampaignNumber: 10001, Deals: 1,
		Recent: []*fanfarev1.Deal{{Deal: 1, Try: 1, Leg: 1, EndSeq: 4, NotAfterMs: ms(tb.now.Add(time.Hour))}},
	}, nil, tb.now); err != nil {
		t.Fatal(err)
	}
	older := cloneRecord(newest)
	older.Version, older.FreezeId, older.Total = newest.GetVersion()-1, "", 0
	tb.planner.CampaignChanged(older)
	for seq := range uint32(4) {
		tb.planner.Observe(&Event{Campaign: 10001, Seq: seq, Try: 1, Leg: 1, Kind: sentKind, TimeMs: ms(tb.now), PriceMicros: 50_000})
	}
	tb.planner.CampaignChanged(newest)
	if got := tb.planner.campaigns[10001].counts(); got.awaiting != 4 || got.inFlight != 0 || got.undealt != 6 {
		t.Errorf("census %+v, want 4 awaiting, none in flight, 6 undealt", got)
	}
}

// TestHiddenCampaign: single sends can be lost and ended like other recipients, and their campaign settles once its day
// is over and no single send is held.
func TestHiddenCampaign(t *testing.T) {
	tb := newScript(t, 100)
	c := &fakeCampaign{record: &fanfarev1.Campaign{
		Tenant: testTenant, Id: schemas.CampaignID(10009), Number: 10009, Version: 3, State: schemas.StateSending, Hidden: true, Total: 1000,
		CreatedMs: ms(tb.now), ReceiptWindowMs: 1000,
	}}
	tb.camps[10009] = c
	tb.planner.CampaignChanged(c.record)
	for seq := range uint32(3) {
		tb.planner.ObserveSubmission(&Event{Campaign: 10009, Seq: seq, Try: 1, Leg: 1, NotAfterMs: ms(tb.now.Add(time.Hour))}, "sim")
	}
	tb.says(10009, 0, 1, bouncedKind, schemas.CodeAbsentSubscriber, time.Time{})
	tb.wantEnd(0, 1, schemas.KindUndelivered, schemas.CodeAbsentSubscriber) // never tried again once handed over
	tb.says(10009, 1, 1, returnedKind, schemas.CodeWindow, time.Time{})
	tb.wantDealt(tb.deals(), 0) // topic held has it: the planner deals it from there
	tb.after(2 * time.Hour)
	tb.wantEnd(2, 1, ambiguousKind, schemas.CodeLost)
	tb.after(24 * time.Hour)
	tb.start()
	tb.wantState(10009, schemas.StateSending) // seq 1 waits
	tb.planner.ObserveSubmission(&Event{Campaign: 10009, Seq: 1, Try: 2, Leg: 1, NotAfterMs: ms(tb.now.Add(time.Hour))}, "sim")
	tb.says(10009, 1, 2, deliveredKind, noCode, time.Time{})
	tb.planner.held.put(&Held{Key: "k", Campaign: 10009})
	tb.start()
	tb.wantState(10009, schemas.StateSending) // one is held
	tb.planner.held.remove("k")
	tb.planner.lanesUnread = true
	tb.start()
	tb.wantState(10009, schemas.StateSending) // a single send may still be on a lane
	tb.planner.lanesUnread = false
	tb.start()
	tb.wantState(10009, schemas.StateCompleted)
	tb.after(time.Second)
	tb.start()
	if !c.record.GetSettled() {
		t.Error("not settled")
	}
}
