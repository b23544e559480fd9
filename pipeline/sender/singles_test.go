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

// A single send that must wait is durable in topic held before any reader can see its return. Its item is begun, so
// that the next owner of the partition does not find it untouched.
func TestSingleIsHeldBeforeItIsReturned(t *testing.T) {
	inEnv(t, func(e *env) {
		hidden := func(c *fanfarev1.Campaign) { c.Hidden = true }
		e.view.campaign(10001, schemas.StateSending, hidden)
		e.view.set(func() { e.view.tenants["tn_a"] = &fanfarev1.Tenant{Id: "tn_a"} })
		e.published.gate = make(chan struct{})
		e.start(schemas.LaneTxn)
		items := e.release(messages(2)...)
		after(time.Second)
		e.want("held not acknowledged", items, none, noCode)
		if !items[0].begun {
			t.Error("got not begun while it is written to held")
		}
		close(e.published.gate)
		after(10 * time.Millisecond)
		e.want("held acknowledged", items, returnedKind, schemas.CodeSuspended)
		recs := e.published.all()
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
		if want := schemas.DeliveryKey("tn_a", e.keys.Message(10001, 0)); string(recs[0].Key) != want {
			t.Errorf("got key %s, want %s", recs[0].Key, want)
		}

		// A single send whose partition was taken away is not held: the next owner handles it.
		e.published.gate = nil
		s := &fakeItem{env: e, refuse: true}
		e.lane.release([]*entry{{item: s, rec: messageRecord(t, e.keys, testMessage(10001, 9, 1)), released: time.Now()}})
		after(20 * time.Millisecond)
		e.want("not ours", []*fakeItem{s}, none, noCode)
		if got := len(e.published.all()); got != 2 {
			t.Errorf("not ours: got %d records, want 2", got)
		}

		// The carrier refuses it temporarily: it was handed over and not accepted, so it is held.
		e.view.set(func() { e.view.tenants["tn_a"] = &fanfarev1.Tenant{Id: "tn_a", Enabled: true} })
		e.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) {
			return carrier.Result{Outcome: carrier.Throttled, RetryAfter: time.Minute}, true
		}
		items = e.release(messages(1)...)
		after(20 * time.Millisecond)
		e.want("throttled", items, returnedKind, schemas.CodeThrottled)
		if got := len(e.published.all()); got != 3 {
			t.Errorf("throttled: got %d records, want 3", got)
		}
	})
}

// A single send whose late answer says that the carrier did not take it is held as well.
func TestSingleIsHeldAfterALateRefusal(t *testing.T) {
	inEnv(t, func(e *env) {
		e.view.campaign(10001, schemas.StateSending, func(c *fanfarev1.Campaign) { c.Hidden = true })
		e.carrier.reply = func(carrier.Outbound) (carrier.Result, bool) { return carrier.Result{}, false }
		e.start(schemas.LaneTxn)
		items := e.release(messages(1)...)
		after(3 * time.Second)
		e.want("no answer", items, ambiguousKind, schemas.CodeTimeout)
		e.carrier.answer(carrier.Result{Outcome: carrier.Retryable})
		synctest.Wait()
		if got := e.published.all(); len(got) != 1 || got[0].Topic != "t.held" {
			t.Errorf("got %d records, want one in t.held", len(got))
		}
		if late := items[0].late; len(late) != 1 || late[0].GetKind() != returnedKind {
			t.Errorf("got %v written late, want returned", late)
		}
	})
}

// While the campaign of a message is not known, the lane of its topic (txn or bulk) decides whether it is a single
// send.
func TestSingleOfAnUnknownCampaignIsHeld(t *testing.T) {
	for lane, want := range map[schemas.Lane]int{schemas.LaneTxn: 1, schemas.LaneBulk: 0} {
		inEnv(t, func(e *env) {
			e.start(lane)
			items := e.release(testMessage(10009, 0, 1))
			after(2100 * time.Millisecond)
			e.want("unknown campaign", items, returnedKind, schemas.CodeControlBehind)
			if got := len(e.published.all()); got != want {
				t.Errorf("lane %s: got %d held, want %d", lane, got, want)
			}
		})
	}
}

// The scheduler deals a campaign's message again from its audience, so it is not held.
func TestCampaignMessageIsNotHeld(t *testing.T) {
	inEnv(t, func(e *env) {
		e.view.campaign(10001, schemas.StatePaused)
		e.start(schemas.LaneBulk)
		items := e.release(messages(1)...)
		after(20 * time.Millisecond)
		e.want("paused", items, returnedKind, schemas.CodePaused)
		if got := len(e.published.all()); got != 0 {
			t.Errorf("got %d records beside the outcome, want none", got)
		}
	})
}
