package api_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"fanfare/schemas"
)

// written records a message as the inbound stage does, and returns its conversation.
func (w *env) written(id, phone, text string, meaning schemas.ReplyMeaning, confirmation string) string {
	w.Helper()
	conversation, err := w.store.RecordMessage(w.Context(), &schemas.MessageFact{
		ID: id, Tenant: w.tenant.ID, Phone: phone, Sender: "+393399900011", Channel: schemas.ChannelSMS, Route: "sim", Text: text, Time: w.clock.now(), Meaning: meaning, Confirmation: confirmation,
	})
	w.check(err)
	return conversation
}

// TestConversations (R90) tests the list, the messages, the price, an answer, assignment, closing and unread counts.
// The error for a bad request names the field.
func TestConversations(t *testing.T) {
	w := newEnv(t)
	id := w.written("in_1", "+393401234567", "When do you open?", 0, "")
	w.written("in_2", "+393401234568", "hello", 0, "")
	path := "/api/conversations/" + id
	for query, want := range map[string]int{"": 2, "?unread=true": 2, "?state=closed": 0, "?search=4567": 1, "?assignedTo=none": 2, "?assignedTo=Ann": 0, "?review=true": 0, "?limit=1": 2} {
		var page struct{ Total int }
		if w.call("GET", "/api/conversations"+query, "").want(200).into(&page); page.Total != want {
			t.Errorf("%s: got %d conversations, want %d", query, page.Total, want)
		}
	}
	w.call("GET", "/api/conversations?search=x", "").problem(422, "invalid_value", "search")
	w.call("GET", "/api/conversations?cursor=x", "").problem(422, "invalid_value", "cursor")
	w.call("GET", "/api/conversations/conv_none", "").want(404)
	w.call("GET", "/api/conversations/conv_none/messages", "").want(404)
	w.call("POST", "/api/conversations/conv_none/messages", `{"message":"x"}`).want(404)
	w.call("POST", path+"/messages", `{"message":" "}`).problem(422, "invalid_value", "message")
	w.call("PUT", path, `{"state":"gone"}`).problem(422, "invalid_value", "state")
	w.call("PUT", path, `{"assignedTo":"none"}`).problem(422, "invalid_value", "assignedTo")
	var reply struct {
		MessageID *string
		Segments  int
		Cost      float64
	}
	if w.call("POST", path+"/messages", `{"message":"At nine.","preview":true}`).want(200).into(&reply); reply.MessageID != nil || reply.Segments != 1 {
		t.Errorf("preview: got %+v", reply)
	}
	if w.call("POST", path+"/messages", `{"message":"At nine."}`).want(200).into(&reply); reply.MessageID == nil {
		t.Fatalf("reply: got %+v", reply)
	}
	// A repeated request with the same key sends nothing again.
	key := header{"Idempotency-Key", "reply-1"}
	var first, second struct{ MessageID *string }
	w.callAs(w.key, "POST", path+"/messages", `{"message":"And until six."}`, key).want(200).into(&first)
	w.callAs(w.key, "POST", path+"/messages", `{"message":"And until six."}`, key).want(200).into(&second)
	if first.MessageID == nil || second.MessageID == nil || *first.MessageID != *second.MessageID || *first.MessageID == *reply.MessageID {
		t.Errorf("repeated: got %v and %v, want the same message", first.MessageID, second.MessageID)
	}
	var thread struct {
		Data []struct {
			ID              uint64
			Direction, Text string
			MessageID       *string
		}
	}
	if w.call("GET", path+"/messages", "").want(200).into(&thread); len(thread.Data) != 3 || thread.Data[0].Direction != "out" || *thread.Data[0].MessageID != *first.MessageID || *thread.Data[1].MessageID != *reply.MessageID {
		t.Errorf("thread: got %+v", thread)
	}
	var c struct {
		State, LastMessage string
		Unread             int
		AssignedTo         *string
		Version            uint64
	}
	w.call("PUT", path, fmt.Sprintf(`{"assignedTo":"Ann","state":"closed","readUpTo":%d}`, thread.Data[0].ID)).want(200).into(&c)
	if c.State != "closed" || c.Unread != 0 || c.AssignedTo == nil || *c.AssignedTo != "Ann" || c.LastMessage != "And until six." {
		t.Errorf("changed: got %+v", c)
	}
	var n struct{ Open, Unread, Reviews int }
	if w.call("GET", "/api/conversations/summary", "").want(200).into(&n); n.Open != 1 || n.Unread != 1 {
		t.Errorf("summary: got %+v", n)
	}
	// Who has opted out gets no answer.
	w.written("in_3", "+393401234567", "STOP", schemas.ReplyMeaningOptOut, "")
	w.call("POST", path+"/messages", `{"message":"But why?"}`).want(422)
}

// TestOptOutReviews (X10): a decision opts out or not, once.
func TestOptOutReviews(t *testing.T) {
	w := newEnv(t)
	w.written("in_1", "+393401234567", "leave me alone", schemas.ReplyMeaningReview, "")
	w.written("in_2", "+393401234568", "stop it!", schemas.ReplyMeaningReview, "")
	var page struct {
		Total int
		Data  []struct{ ID uint64 }
	}
	if w.call("GET", "/api/opt-out-reviews", "").want(200).into(&page); page.Total != 2 {
		t.Fatalf("got %+v, want two", page)
	}
	first, second := fmt.Sprintf("/api/opt-out-reviews/%d", page.Data[0].ID), fmt.Sprintf("/api/opt-out-reviews/%d", page.Data[1].ID)
	w.call("POST", first, `{"decision":"perhaps"}`).problem(422, "invalid_value", "decision")
	w.call("POST", "/api/opt-out-reviews/999", `{"decision":"dismiss"}`).want(404)
	w.call("POST", second, `{"decision":"dismiss"}`).want(200)
	w.call("POST", second, `{"decision":"opt_out"}`).want(409)
	for i, want := range []bool{false, false} {
		out, err := w.store.Suppressed(w.Context(), w.tenant.ID, fmt.Sprintf("+39340123456%d", 7+i), schemas.ChannelSMS)
		if w.check(err); out != want {
			t.Errorf("number %d: got opted out %v, want %v", i, out, want)
		}
	}
}

// TestConfirmations (X10): the API confirms an opt-out once, although the number has opted out. No other answer of
// Fanfare repeats the confirmation.
func TestConfirmations(t *testing.T) {
	w := newEnv(t)
	id := w.written("in_1", "+393401234567", "STOP", schemas.ReplyMeaningOptOut, "You have opted out.")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.server.RunConfirmations(ctx) }()
	var thread struct {
		Data []struct{ Direction, Text, By string }
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if w.call("GET", "/api/conversations/"+id+"/messages", "").want(200).into(&thread); len(thread.Data) == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("got the thread %+v, want a confirmation", thread)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := thread.Data[0]; got.Direction != "out" || got.Text != "You have opted out." || got.By != "confirmation" {
		t.Errorf("got %+v", got)
	}
	left, err := w.store.TakeConfirmations(t.Context(), 10)
	if w.check(err); len(left) != 0 {
		t.Errorf("got %d confirmations left, want none", len(left))
	}
}

// X10: a tenant may switch confirmations off: then none is sent and none waits, and the opt-out holds. Once it is
// switched on again, the next opt-out is confirmed.
func TestConfirmationsOff(t *testing.T) {
	w := newEnv(t)
	registry := prometheus.NewRegistry()
	w.deps.Registry = registry
	w.serve()
	subset(t, "unless it was set", w.call("GET", "/api/policy", "").want(200).body, `{"confirmOptOuts":true}`)
	subset(t, "off", w.callAs(w.admin(), "PUT", "/api/policy", `{"confirmOptOuts":false}`).want(200).body, `{"confirmOptOuts":false}`)
	silent := w.written("in_1", "+393401234567", "STOP", schemas.ReplyMeaningOptOut, "You have opted out.")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.server.RunConfirmations(ctx) }()
	count := func(result string) bool {
		families, err := registry.Gather()
		w.check(err)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "fanfare_api_confirmations_total" && m.GetLabel()[0].GetValue() == result {
					return m.GetCounter().GetValue() == 1
				}
			}
		}
		return false
	}
	messages := func(id string) int {
		var thread struct{ Data []struct{ Text string } }
		w.call("GET", "/api/conversations/"+id+"/messages", "").want(200).into(&thread)
		return len(thread.Data)
	}
	w.eventually("dropped", silent, func() bool { return count("off") })
	if n := messages(silent); n != 1 || len(w.messages()) != 0 {
		t.Errorf("got %d messages in the thread and %d for the carrier, want what the person wrote alone", n, len(w.messages()))
	}
	if out, err := w.store.Suppressed(t.Context(), w.tenant.ID, "+393401234567", schemas.ChannelSMS); err != nil || !out {
		t.Errorf("got opted out %t, %v", out, err)
	}
	subset(t, "on again", w.callAs(w.admin(), "PUT", "/api/policy", `{"confirmOptOuts":null}`).want(200).body, `{"confirmOptOuts":true}`)
	told := w.written("in_2", "+393401234568", "STOP", schemas.ReplyMeaningOptOut, "You have opted out.")
	w.eventually("confirmed", told, func() bool { return messages(told) == 2 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := len(w.messages()); n != 1 {
		t.Errorf("got %d messages for the carrier, want 1", n)
	}
}
