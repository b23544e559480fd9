package sender

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

// A single message that must wait is durable among the held ones before anybody reads that it was returned, and begun, so that
// a successor does not find it untouched.
func TestSingleIsHeldBeforeItIsReturned(t *testing.T) {
	inWorld(t, func(w *world) {
		hidden := func(c *fanfarev1.Campaign) { c.Hidden = true }
		w.view.campaign(10001, fanfarev1.State_STATE_SENDING, hidden)
		w.view.set(func() { w.view.tenants["tn_a"] = &fanfarev1.Tenant{Id: "tn_a"} })
		w.ledger.gate = make(chan struct{})
		w.start(schemas.LaneTxn)
		slips := w.release(messages(2)...)
		after(time.Second)
		w.want("held not acknowledged", slips, none, noCode)
		if !slips[0].begun {
			t.Error("got not begun while it is written to held")
		}
		close(w.ledger.gate)
		after(10 * time.Millisecond)
		w.want("held acknowledged", slips, gaveBack, fanfarev1.Code_CODE_SUSPENDED)
		recs := w.ledger.all()
		if len(recs) != 2 || recs[0].Topic != "t.held" {
			t.Fatalf("got %d records, want two in t.held", len(recs))
		}
		h := &fanfarev1.Held{}
		if err := proto.Unmarshal(recs[0].Value, h); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(h.GetMessage(), messages(1)[0]) || h.GetDueMs() <= time.Now().UnixMilli() {
			t.Errorf("got held %v, want the message as it came and a time to come", h)
		}
		if want := schemas.DeliveryKey("tn_a", w.keys.Message(10001, 0)); string(recs[0].Key) != want {
			t.Errorf("got key %s, want %s", recs[0].Key, want)
		}

		// One whose partition has gone is not held: its new owner looks after it.
		w.ledger.gate = nil
		s := &slip{w: w, refuse: true}
		w.lane.release([]*entry{{item: s, rec: messageRecord(t, w.keys, testMessage(10001, 9, 1)), released: time.Now()}})
		after(20 * time.Millisecond)
		w.want("not ours", []*slip{s}, none, noCode)
		if got := len(w.ledger.all()); got != 2 {
			t.Errorf("not ours: got %d records, want 2", got)
		}

		// The carrier's own refusal, which passes: handed over, not taken, held.
		w.view.set(func() { w.view.tenants["tn_a"] = &fanfarev1.Tenant{Id: "tn_a", Enabled: true} })
		w.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) {
			return carrier.Result{Outcome: carrier.Throttled, RetryAfter: time.Minute}, true
		}
		slips = w.release(messages(1)...)
		after(20 * time.Millisecond)
		w.want("throttled", slips, gaveBack, fanfarev1.Code_CODE_THROTTLED)
		if got := len(w.ledger.all()); got != 3 {
			t.Errorf("throttled: got %d records, want 3", got)
		}
	})
}

// A single whose answer came late, and says that it was not taken, is held as well.
func TestSingleIsHeldAfterALateRefusal(t *testing.T) {
	inWorld(t, func(w *world) {
		w.view.campaign(10001, fanfarev1.State_STATE_SENDING, func(c *fanfarev1.Campaign) { c.Hidden = true })
		w.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) { return carrier.Result{}, false }
		w.start(schemas.LaneTxn)
		slips := w.release(messages(1)...)
		after(3 * time.Second)
		w.want("no answer", slips, doubtful, fanfarev1.Code_CODE_TIMEOUT)
		w.carrier.answer(carrier.Result{Outcome: carrier.Retryable})
		synctest.Wait()
		if got := w.ledger.all(); len(got) != 1 || got[0].Topic != "t.held" {
			t.Errorf("got %d records, want one in t.held", len(got))
		}
		if late := slips[0].late; len(late) != 1 || late[0].GetKind() != gaveBack {
			t.Errorf("got %v written late, want returned", late)
		}
	})
}

// The lane says that a message is a single one while its campaign is not known.
func TestSingleOfAnUnknownCampaignIsHeld(t *testing.T) {
	for lane, want := range map[schemas.Lane]int{schemas.LaneTxn: 1, schemas.LaneBulk: 0} {
		inWorld(t, func(w *world) {
			w.start(lane)
			slips := w.release(testMessage(10009, 0, 1))
			after(2100 * time.Millisecond)
			w.want("unknown campaign", slips, gaveBack, fanfarev1.Code_CODE_CONTROL_BEHIND)
			if got := len(w.ledger.all()); got != want {
				t.Errorf("lane %s: got %d held, want %d", lane, got, want)
			}
		})
	}
}

// A campaign's message is dealt again from its audience and is not held.
func TestCampaignMessageIsNotHeld(t *testing.T) {
	inWorld(t, func(w *world) {
		w.view.campaign(10001, fanfarev1.State_STATE_PAUSED)
		w.start(schemas.LaneBulk)
		slips := w.release(messages(1)...)
		after(20 * time.Millisecond)
		w.want("paused", slips, gaveBack, fanfarev1.Code_CODE_PAUSED)
		if got := len(w.ledger.all()); got != 0 {
			t.Errorf("got %d records beside the outcome, want none", got)
		}
	})
}
