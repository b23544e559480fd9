package recent

import (
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"fanfare/schemas"
)

// TestIndex: of two messages from one sender to one number, Find returns the later one, in whatever order they were
// put. An entry expires 30 days after the last message. No key or value contains the number.
func TestIndex(t *testing.T) {
	mini := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: mini.Addr()})
	t.Cleanup(func() { _ = rdb.Close() })
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	x, err := New(rdb, keys, "test.")
	if err != nil {
		t.Fatal(err)
	}
	const phone = "+393401234567"
	at := func(tenant, sender string, campaign uint64, ms int64) Sent {
		return Sent{Tenant: tenant, Sender: sender, Route: "sim", Channel: schemas.ChannelSMS, To: phone, Message: keys.Message(campaign, 1), Time: time.UnixMilli(ms)}
	}
	now := time.Now().UnixMilli()
	older, newer, other, theirs := at("tn_a", "48000", 1, now-2000), at("tn_a", "48000", 2, now-1999), at("tn_a", "48001", 3, now-5000), at("tn_b", "48000", 4, now)
	past := at("tn_c", "48000", 5, now-Life.Milliseconds()-1) // its life is over when it is noted
	for _, order := range [][]Sent{{older, newer, past, other, theirs}, {theirs, other, newer, older, past}, {newer, newer, older, other, theirs}} {
		mini.FlushAll() // it forgets the script too
		if err := x.Put(t.Context(), order); err != nil {
			t.Fatal(err)
		}
		got, err := x.Find(t.Context(), schemas.ChannelSMS, phone)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Sent{theirs, newer, other}, got); diff != "" {
			t.Errorf("found (-want +got):\n%s", diff)
		}
	}
	if got, err := x.Find(t.Context(), schemas.ChannelRCS, phone); err != nil || len(got) != 0 {
		t.Errorf("by another channel: got %v, %v, want nothing", got, err)
	}
	if dump := mini.Dump(); len(dump) == 0 || strings.Contains(dump, phone[1:]) {
		t.Errorf("Redis has the number:\n%s", dump)
	}
	mini.FastForward(Life + time.Second)
	if got, err := x.Find(t.Context(), schemas.ChannelSMS, phone); err != nil || len(got) != 0 {
		t.Errorf("after its life: got %v, %v, want nothing", got, err)
	}
	mini.Close()
	if err := x.Put(t.Context(), []Sent{newer}); err == nil {
		t.Error("without Redis: got no error")
	}
}
