package main

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fanfare/sinks/carrier/sim"
)

// Phones answer a campaign, through the whole product (R35, R90, X10): every message of a phone is in a conversation, a
// STOP opts out with the text as proof and is confirmed once, a text that asks to opt out in other words waits for a
// person's decision, and a person's answer in the console reaches the carrier.
func TestEndToEndReplies(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 15 seconds; left out by -short")
	}
	const people, sender = 150, "+393399900011"
	w := newEmbeddedEnv(t, 400, "--edge", freeAddr(t), "--proxies", "127.0.0.0/8", "--sim-handsets", "--sim-replies", "45", "--receipt-window", "1h", "--log-level", "warn")
	api := w.api()
	w.stop(t)
	operator := *api
	operator.key = runBinary(t, "keys", "create", "--tenant", "Acme Retail", "--data", w.dir, "--scope", "read,campaigns,admin")
	w.proc.start()
	api.waitReady(t)
	operator.must(t, http.MethodPost, "/api/senders", map[string]any{"name": sender, "twoWay": true}, nil, "")
	operator.must(t, http.MethodPost, "/api/senders/"+url.PathEscape(sender)+"/approve", nil, nil, "")
	var csv bytes.Buffer
	csv.WriteString("phone\n")
	for n := range people {
		fmt.Fprintf(&csv, "+39340%07d\n", n)
	}
	var list, made struct{ ID string }
	api.must(t, http.MethodPost, "/api/contacts/list", map[string]any{"name": "people"}, &list, "")
	api.must(t, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", bytes.NewReader(csv.Bytes()), nil, "text/csv")
	api.must(t, http.MethodPost, "/api/campaigns", map[string]any{
		"name": "talk", "channel": "sms", "message": "Sale! Questions? Just answer.", "sender": sender, "trafficType": "inbound_outbound", "contactList": list.ID, "sendImmediately": true,
	}, &made, "")
	api.must(t, http.MethodPut, "/api/campaigns/"+made.ID+"/confirm", nil, nil, "")

	record := filepath.Join(w.dir, handsetsRecord)
	stopped, wrote, asks := map[string]bool{}, map[string]bool{}, map[string]bool{}
	deeds := func() int {
		t.Helper()
		list, err := sim.ReadHandsets(record)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range list {
			if d.Did == sim.DidStop || d.Did == sim.DidAnswer {
				wrote[d.To] = true
			}
			if d.Did == sim.DidStop {
				stopped[d.To] = true
			}
			if strings.Contains(d.Text, "please stop") {
				asks[d.To] = true
			}
		}
		return len(list)
	}
	type conversation struct {
		ID, PhoneNumber, Sender, Channel, State string
		CampaignID                              *string
		Unread                                  int
	}
	var conversations struct {
		Total int
		Data  []conversation
	}
	var reviews struct {
		Total int
		Data  []struct {
			ID                uint64
			PhoneNumber, Text string
		}
	}
	var out struct{ Total int }
	var stats struct {
		statsAnswer
		OptedOut int
	}
	eventually := func(what string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(90 * time.Second); !done(); time.Sleep(150 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: got %d conversations of %d phones, %d opt-outs of %d, %d reviews of %d, %+v", what, conversations.Total, len(wrote), out.Total, len(stopped), reviews.Total, len(asks), stats)
			}
		}
	}
	eventually("what the phones did is known", func() bool {
		n := deeds()
		api.must(t, http.MethodGet, "/api/conversations?limit=1000", nil, &conversations, "")
		api.must(t, http.MethodGet, "/api/suppressions?limit=1", nil, &out, "")
		api.must(t, http.MethodGet, "/api/opt-out-reviews?limit=1000", nil, &reviews, "")
		api.must(t, http.MethodGet, "/api/campaigns/"+made.ID+"/stats", nil, &stats, "")
		return stats.State == "completed" && stats.Awaiting == 0 && len(stopped) > 5 && len(wrote) > len(stopped) && conversations.Total == len(wrote) && out.Total == len(stopped) &&
			reviews.Total >= len(asks) && stats.OptedOut >= 1 && deeds() == n
	})
	var open conversation
	for _, c := range conversations.Data {
		if !wrote[c.PhoneNumber] || c.Sender != sender || c.Channel != "sms" || c.State != "open" || c.Unread < 1 || c.CampaignID == nil && !stopped[c.PhoneNumber] {
			t.Errorf("got the conversation %+v", c)
		}
		if !stopped[c.PhoneNumber] && !asks[c.PhoneNumber] {
			open = c
		}
	}
	for _, to := range slices.Sorted(maps.Keys(stopped))[:5] {
		var history struct {
			Data []struct{ Source, By, Reason string }
		}
		api.must(t, http.MethodGet, "/api/suppressions/history?phoneNumber="+url.QueryEscape(to), nil, &history, "")
		if len(history.Data) == 0 || history.Data[0].Source != "keyword" || !strings.HasPrefix(history.Data[0].By, "msg_") || history.Data[0].Reason == "" {
			t.Errorf("%s: got the proof %+v", to, history.Data)
		}
	}
	if len(reviews.Data) > 0 && !stopped[reviews.Data[0].PhoneNumber] {
		before := out.Total
		api.must(t, http.MethodPost, fmt.Sprintf("/api/opt-out-reviews/%d", reviews.Data[0].ID), map[string]any{"decision": "opt_out"}, nil, "")
		eventually("the decision is an opt-out", func() bool {
			api.must(t, http.MethodGet, "/api/suppressions?limit=1", nil, &out, "")
			return out.Total > before
		})
	}
	// The answer of a person: its price first, then the message.
	path := "/api/conversations/" + open.ID
	var reply struct {
		MessageID *string
		Segments  int
	}
	api.must(t, http.MethodPost, path+"/messages", map[string]any{"message": "We open at nine.", "preview": true}, &reply, "")
	if reply.MessageID != nil || reply.Segments != 1 {
		t.Errorf("the preview: got %+v, want 1 segment and no message", reply)
	}
	api.must(t, http.MethodPost, path+"/messages", map[string]any{"message": "We open at nine."}, &reply, "")
	var thread struct {
		Data []struct {
			ID              uint64
			Direction, Text string
		}
	}
	api.must(t, http.MethodGet, path+"/messages", nil, &thread, "")
	if len(thread.Data) < 2 || thread.Data[0].Direction != "out" || thread.Data[0].Text != "We open at nine." || thread.Data[1].Direction != "in" {
		t.Errorf("got the thread %+v", thread.Data)
	}
	var changed conversation
	api.must(t, http.MethodPut, path, map[string]any{"state": "closed", "assignedTo": "Ann", "readUpTo": thread.Data[0].ID}, &changed, "")
	if changed.State != "closed" || changed.Unread != 0 {
		t.Errorf("got %+v, want it closed and read", changed)
	}
	handed := map[string]int{}
	replied := 0
	eventually("the confirmations and the answer are with the carrier", func() bool {
		clear(handed)
		replied = 0
		subs, _ := (&truthFile{path: w.truth()}).all(t)
		for _, s := range subs {
			if strings.Contains(s.Body, sender) { // only the confirmations name the sender
				handed[s.To]++
			}
			if s.Body == "We open at nine." && s.To == open.PhoneNumber {
				replied++
			}
		}
		missing := 0
		for to := range stopped {
			if handed[to] == 0 {
				missing++
			}
		}
		return missing == 0 && replied == 1
	})
	for to, n := range handed {
		if n > 1 {
			t.Errorf("%s got %d confirmations, want one", to, n)
		}
	}
	w.stop(t)
}
