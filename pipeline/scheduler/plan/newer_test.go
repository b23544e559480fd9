package plan

import (
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// newer is a field that this version does not know.
func newer(field protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, field, protowire.BytesType), value)
}

// TestNewerVersion: this version keeps the fields and sets in cursors that a newer version wrote and that it does not
// know, so that an operator can roll back and forward again.
func TestNewerVersion(t *testing.T) {
	cur := &fanfarev1.Cursor{Tenant: testTenant, CampaignId: schemas.CampaignID(10001), CampaignNumber: 10001, Deals: 1, SetsEpoch: 7, SetsParts: 1}
	cur.ProtoReflect().SetUnknown(newer(900, "of the cursor"))
	dealt := &fanfarev1.CursorSets_Set{Role: schemas.RoleDealt, Try: 1, Leg: 1, Seqs: encodeSet(roaring.BitmapOf(1, 2, 3))}
	inZone := &fanfarev1.CursorSets_Set{Role: schemas.RoleDealt, Try: 1, Leg: 1, Seqs: encodeSet(roaring.BitmapOf(4, 5))}
	inZone.ProtoReflect().SetUnknown(newer(901, "Asia/Tokyo"))
	role := &fanfarev1.CursorSets_Set{Role: 99, Try: 300, Leg: 77, Seqs: []byte("in a form of its own")}
	part := &fanfarev1.CursorSets{Tenant: testTenant, CampaignId: cur.GetCampaignId(), Epoch: 7, Parts: 1, Sets: []*fanfarev1.CursorSets_Set{dealt, inZone, role}}
	part.ProtoReflect().SetUnknown(newer(902, "of the part"))

	for round := range 2 { // in the second round this version reads and writes again what it wrote itself
		pl := New()
		if err := pl.Restore(cur, []*fanfarev1.CursorSets{part}, time.Unix(0, 0)); err != nil {
			t.Fatal(err)
		}
		c := pl.Campaign(10001)
		if got := c.have(1).dealt[0].seqs.GetCardinality(); got != 5 {
			t.Fatalf("%d are dealt, want 5", got)
		}
		c.try(1).answered.Add(1)
		parts, _ := c.Snapshot()
		if len(parts) != 1 {
			t.Fatalf("%d parts, want 1", len(parts))
		}
		cur, part = proto.CloneOf(c.Cursor()), proto.CloneOf(parts[0])
		if diff := cmp.Diff(newer(900, "of the cursor"), []byte(cur.ProtoReflect().GetUnknown())); diff != "" {
			t.Errorf("round %d: fields of the cursor (-want +got):\n%s", round, diff)
		}
		if diff := cmp.Diff(newer(902, "of the part"), []byte(part.ProtoReflect().GetUnknown())); diff != "" {
			t.Errorf("round %d: fields of the part (-want +got):\n%s", round, diff)
		}
		var roles, zoned int
		for _, s := range part.GetSets() {
			switch {
			case s.GetRole() == 99:
				roles++
				if !proto.Equal(s, role) {
					t.Errorf("round %d: got %v, want %v", round, s, role)
				}
			case len(s.ProtoReflect().GetUnknown()) > 0:
				zoned++
				got := roaring.New()
				if err := got.UnmarshalBinary(s.GetSeqs()); err != nil || !got.Equals(roaring.BitmapOf(4, 5)) {
					t.Errorf("round %d: %v carry the field (%v), want 4 and 5", round, got, err)
				}
			}
		}
		if roles != 1 || zoned != 1 {
			t.Errorf("round %d: %d sets of the unknown role and %d with an unknown field, want one of each", round, roles, zoned)
		}
	}
}

// TestSetAside: a campaign that is set aside is suspended, and the planner deals, ends and writes nothing of it. It
// deals all others.
func TestSetAside(t *testing.T) {
	tb := newScript(t, 1000)
	c := tb.addCampaign(10001, testTenant, 100, 500, smsLeg(3))
	tb.addCampaign(10002, testTenant, 100, 500, smsLeg(3))
	tb.planner.SetAside(10001, testTenant, schemas.CampaignID(10001))
	tb.start()
	tb.wantState(10001, schemas.StateSuspended)
	tb.wantState(10002, schemas.StateSending)
	for range 2 {
		for _, d := range tb.deals() {
			if d.Campaign.Number() != 10002 {
				t.Errorf("dealt %+v of the campaign that is set aside", d)
			}
		}
		tb.set(c, func(r *fanfarev1.Campaign) { r.State = schemas.StateSending }) // resumed before it is repaired
		tb.start()
		tb.wantState(10001, schemas.StateSuspended)
	}
	tb.says(10001, 1, 1, sentKind, noCode, time.Time{})
	todo, _ := tb.planner.UnsavedCampaigns()
	for _, u := range todo {
		if u.Number() == 10001 {
			t.Error("its cursor is written over")
		}
	}
}
