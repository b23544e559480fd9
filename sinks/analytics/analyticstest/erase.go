package analyticstest

import (
	"fmt"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"

	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// testErase erases a person from the events of one tenant, by number and by given recipients. Nothing else may change.
func testErase(t *testing.T, s analytics.Store) {
	ctx := t.Context()
	const number, other = "+393471234567", "+393477654321"
	mine, second, theirs := NewCampaign("tn_a", 10_001, start), NewCampaign("tn_a", 10_002, start), NewCampaign("tn_b", 10_003, start)
	event := func(c *analytics.Campaign, seq uint32, kind schemas.Kind, to string) analytics.Event {
		e := analytics.Event{
			Campaign: c, TimeMS: start.UnixMilli() + int64(seq), Seq: seq, Kind: kind, Channel: schemas.ChannelSMS, Try: 1, Leg: 1, Segments: 1, PriceMicros: 50_000,
			Route: "sim", Sender: "ACME", Country: "IT", Currency: "EUR", To: to, ContactID: uint64(seq) + 100, ProviderID: fmt.Sprintf("provider-%d", seq),
			CustomerRef: fmt.Sprintf("order-%s-%d", c.ID, seq),
		}
		if kind == schemas.KindDelivered { // a receipt lacks the other fields
			e.To, e.ContactID, e.Channel, e.Country = "", 0, 0, ""
		}
		return e
	}
	var events []analytics.Event
	for _, c := range []*analytics.Campaign{mine, second, theirs} {
		for seq, to := range map[uint32]string{3: number, 4: other, 6_000: number} {
			events = append(events, event(c, seq, schemas.KindSent, to), event(c, seq, schemas.KindDelivered, to))
		}
	}
	mustAppend(t, s, analytics.Batch{Topic: analytics.TopicID{1}, End: int64(len(events)), Events: events})
	before := map[string]analytics.Stats{}
	for _, c := range []*analytics.Campaign{mine, second, theirs} {
		stats, err := s.Stats(ctx, c.Tenant, c.ID)
		if err != nil {
			t.Fatal(err)
		}
		before[c.ID] = stats
	}
	for again := range 2 { // the second time it finds only the given recipients
		erased, err := s.Erase(ctx, "tn_a", []string{number, "+390"}, map[string]*roaring.Bitmap{second.ID: roaring.BitmapOf(4)})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string][]uint32{}
		for id, seqs := range erased {
			got[id] = seqs.ToArray()
		}
		want := map[string][]uint32{mine.ID: {3, 6_000}, second.ID: {3, 4, 6_000}}
		if again == 1 {
			want = map[string][]uint32{second.ID: {4}}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("erased the %d. time (-want +got):\n%s", again+1, diff)
		}
	}
	for _, c := range []struct {
		*analytics.Campaign
		seq    uint32
		erased bool
	}{{mine, 3, true}, {mine, 4, false}, {mine, 6_000, true}, {second, 3, true}, {second, 4, true}, {theirs, 3, false}, {theirs, 6_000, false}} {
		members, err := s.Members(ctx, c.Tenant, c.ID, []uint32{c.seq})
		if err != nil || len(members) != 1 {
			t.Fatalf("%s/%d: got %d members, %v", c.ID, c.seq, len(members), err)
		}
		m := members[0]
		if gone := m.To == "" && m.ContactID == 0 && m.ProviderID == "" && m.CustomerRef == ""; gone != c.erased {
			t.Errorf("%s/%d: got %+v, want it erased: %v", c.ID, c.seq, m, c.erased)
		}
		if m.State.Kind() != schemas.KindDelivered || m.Route != "sim" || m.Country != "IT" || m.Attempts != 1 || m.SentAt.IsZero() {
			t.Errorf("%s/%d: got %+v, want what happened to stay", c.ID, c.seq, m)
		}
		history, err := s.History(ctx, c.Tenant, c.ID, c.seq)
		if err != nil || len(history) != 2 {
			t.Fatalf("%s/%d: got %d events, %v", c.ID, c.seq, len(history), err)
		}
		for _, e := range history {
			if c.erased && (e.To != "" || e.ContactID != 0 || e.ProviderID != "" || e.CustomerRef != "") {
				t.Errorf("%s/%d: the history has %+v", c.ID, c.seq, e)
			}
		}
		refs, err := s.ByCustomerRef(ctx, c.Tenant, fmt.Sprintf("order-%s-%d", c.ID, c.seq), start)
		if err != nil || (len(refs) == 0) != c.erased {
			t.Errorf("%s/%d by reference: got %d, %v, want it erased: %v", c.ID, c.seq, len(refs), err, c.erased)
		}
	}
	for _, c := range []*analytics.Campaign{mine, second, theirs} {
		stats, err := s.Stats(ctx, c.Tenant, c.ID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before[c.ID].Counts, stats.Counts); diff != "" {
			t.Errorf("%s: counts (-before +after):\n%s", c.ID, diff)
		}
		if found, err := s.FindRecipient(ctx, c.Tenant, c.ID, number); err != nil || (len(found) == 0) != (c.Tenant == "tn_a") {
			t.Errorf("%s: found %v by number, %v", c.ID, found, err)
		}
	}
	// The store still accepts events.
	later := event(mine, 5, schemas.KindSent, other)
	later.Offset = 100
	mustAppend(t, s, analytics.Batch{Topic: analytics.TopicID{1}, First: 100, End: 101, Events: []analytics.Event{later}})
	if members, err := s.Members(ctx, "tn_a", mine.ID, []uint32{5}); err != nil || len(members) != 1 || members[0].To != other {
		t.Errorf("after it: got %+v, %v", members, err)
	}
}
