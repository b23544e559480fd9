package plan

import (
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// FuzzRestore: whatever stands in topic cursors, the planner takes it over or says that it cannot. Then it deals, moves
// and writes its sets without a panic, and a successor can read what it has written.
func FuzzRestore(f *testing.F) {
	for seed := range uint64(6) {
		w := newEnv(seed)
		w.addRoute("sim", 50)
		w.addTenant(testTenant, 0, 1)
		w.addCampaign(10001, testTenant, 60, 25, smsLeg(2))
		d := fixed{rand.New(rand.NewPCG(seed, 4))}
		for range 20 {
			w.step(d.number(1, 10, ""))
			w.now = w.now.Add(3 * time.Second)
		}
		w.drain()
		w.saveCursors(true)
		var sets []byte
		if parts := w.saved.sets[10001]; len(parts) > 0 {
			sets = parts[0]
		}
		f.Add(w.saved.cursors[10001], sets)
	}
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, cursor, sets []byte) {
		cur, part := &fanfarev1.Cursor{}, &fanfarev1.CursorSets{}
		if proto.Unmarshal(cursor, cur) != nil || proto.Unmarshal(sets, part) != nil {
			return // the scheduler sets the campaign aside
		}
		var parts []*fanfarev1.CursorSets
		if cur.GetSetsParts() == 1 {
			parts = append(parts, part)
		}
		w := newEnv(1)
		if err := w.planner.Restore(cur, parts, w.now); err != nil {
			return
		}
		w.addRoute("sim", 50)
		w.addTenant(testTenant, 0, 1)
		number := cur.GetCampaignNumber()
		c := w.addCampaign(number, testTenant, 60, 25, smsLeg(2))
		for range 3 {
			for _, want := range w.planner.AudienceRequests(w.now) {
				_ = w.planner.AudienceAnswered(want, c.blobs, nil, w.now)
			}
			w.planner.Ends(w.now, 100)
			w.planner.Moves(w.now)
			for _, d := range w.planner.Deals(w.now) {
				_ = d.Chunk()
			}
			w.now = w.now.Add(30 * time.Second)
		}
		restored := w.planner.Campaign(number)
		if restored == nil {
			return
		}
		written, _ := restored.Snapshot()
		next := &fanfarev1.Cursor{}
		if err := proto.Unmarshal(marshal(restored.Cursor()), next); err != nil {
			t.Fatal(err)
		}
		if err := New().Restore(next, written, w.now); err != nil {
			t.Fatalf("a successor cannot read what was written: %v", err)
		}
	})
}
