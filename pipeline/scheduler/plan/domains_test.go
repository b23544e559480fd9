package plan

import (
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// fakeDomains reserves blocks as the store does: a block never changes, and the number of recipients that have room is
// limited.
type fakeDomains struct {
	room   uint32
	blocks map[[2]uint64][]*fanfarev1.DomainBlock // by campaign and blob
}

func (f *fakeDomains) allot(r schemas.DomainRequest, end uint32) []*fanfarev1.DomainBlock {
	key := [2]uint64{r.Number, uint64(r.Blob)}
	first := r.First
	if have := f.blocks[key]; len(have) > 0 {
		first = have[len(have)-1].GetEndSeq()
	}
	if n := min(r.Want, f.room, end-first); n > 0 {
		f.room -= n
		f.blocks[key] = append(f.blocks[key], &fanfarev1.DomainBlock{
			FirstSeq: first, EndSeq: first + n, Recipients: n, Short: []*fanfarev1.DomainBlock_Share{{Host: "go.example", Count: n}},
		})
	}
	return append([]*fanfarev1.DomainBlock(nil), f.blocks[key]...)
}

// TestDomains (R39, R40, R77): no recipient is dealt without a domain, and none gets another domain at a retry. When
// the domains have no more room, messages in flight end, and the campaign is suspended. With more room it continues to
// its end. Successors take over throughout the test.
func TestDomains(t *testing.T) {
	w := newEnv(5)
	w.addRoute("sim", 40)
	w.addTenant(testTenant, 0, 1)
	w.odds = odds{sent: 60, returned: 20, ambiguous: 5, bounced: 40, delivered: 60}
	f := &fakeDomains{room: 300, blocks: map[[2]uint64][]*fanfarev1.DomainBlock{}}
	c := w.addCampaign(1, testTenant, 500, 150, smsLeg(5))
	w.set(c, func(r *fanfarev1.Campaign) { r.Links = &fanfarev1.LinkTable{ShortDomains: true} })
	dealt := map[uint32]*fanfarev1.DomainBlock{}
	w.domains = func(r schemas.DomainRequest) []*fanfarev1.DomainBlock {
		b := c.blobs[r.Blob]
		return f.allot(r, b.First+b.Count)
	}
	w.seeDeal = func(d *Deal) {
		ch := d.Chunk()
		d.members().Iterate(func(seq uint32) bool {
			var of *fanfarev1.DomainBlock
			for _, b := range ch.GetDomains() {
				if seq >= b.GetFirstSeq() && seq < b.GetEndSeq() {
					of = b
				}
			}
			switch {
			case of == nil:
				t.Errorf("seq %d is dealt at try %d without a domain", seq, d.Try)
			case dealt[seq] != nil && dealt[seq] != of:
				t.Errorf("seq %d has another domain at try %d", seq, d.Try)
			}
			dealt[seq] = of
			return true
		})
	}
	suspendedAt := -1
	for i := range 900 {
		w.now = w.now.Add(time.Second)
		w.step(200)
		if c.record.GetState() == schemas.StateSuspended {
			if suspendedAt < 0 {
				suspendedAt = i
				if c.record.GetReason() != schemas.ReasonNoDomains || len(dealt) != 300 || w.planner.Campaign(1).own.flight != 0 {
					t.Fatalf("suspended as %s with %d dealt and %d in flight, want no_domains, 300 and 0", c.record.GetReason(), len(dealt), w.planner.Campaign(1).own.flight)
				}
			}
			if i == suspendedAt+20 { // a person adds a domain and resumes it
				f.room = 10_000
				w.set(c, func(r *fanfarev1.Campaign) { r.State, r.Reason = schemas.StateSending, "" })
			}
		}
		if i%13 == 12 {
			if err := w.takeOver(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if suspendedAt < 0 || len(dealt) != 500 {
		t.Errorf("suspended at step %d, dealt %d recipients; want a suspension, and 500 in the end", suspendedAt, len(dealt))
	}
	if !w.completed[1] {
		t.Errorf("the campaign is %s, want it completed", c.record.GetState())
	}
	for _, f := range w.faults {
		t.Error(f)
	}
}

// When a campaign is aborted, the planner names the recipients for whom no message was made, so that the store gives
// back the room on domains that it had reserved for them.
func TestDomainsUnsent(t *testing.T) {
	w := newEnv(6)
	w.addRoute("sim", 20)
	w.addTenant(testTenant, 0, 1)
	w.odds = odds{sent: 100, delivered: 100}
	f := &fakeDomains{room: 1000, blocks: map[[2]uint64][]*fanfarev1.DomainBlock{}}
	c := w.addCampaign(1, testTenant, 400, 150, smsLeg(1))
	w.set(c, func(r *fanfarev1.Campaign) { r.Links = &fanfarev1.LinkTable{OptOutDomains: true} })
	w.domains = func(r schemas.DomainRequest) []*fanfarev1.DomainBlock {
		b := c.blobs[r.Blob]
		return f.allot(r, b.First+b.Count)
	}
	sent := map[uint32]bool{}
	w.seeDeal = func(d *Deal) {
		d.members().Iterate(func(seq uint32) bool { sent[seq] = sent[seq] || !d.Cancel; return true })
	}
	var unsent []schemas.SeqRange
	w.seeMove = func(ch *schemas.Change) {
		if ch.Settled {
			unsent = ch.Unsent
		}
	}
	for i := range 400 {
		w.now = w.now.Add(time.Second)
		if i == 8 {
			w.set(c, func(r *fanfarev1.Campaign) { r.State = schemas.StateAborted })
		}
		w.step(200)
	}
	left := map[uint32]bool{}
	for _, r := range unsent {
		for seq := r.First; seq < r.End; seq++ {
			left[seq] = true
		}
	}
	made := 0
	for seq := range uint32(400) {
		if sent[seq] {
			made++
		}
		if sent[seq] == left[seq] {
			t.Fatalf("seq %d: a message was made: %v, given back: %v", seq, sent[seq], left[seq])
		}
	}
	if made == 0 || made == 400 {
		t.Errorf("got %d messages, want some and not all", made)
	}
}

// The store is restored from a copy that lacks blocks of recipients who were dealt. Their next tries get blocks again,
// and the campaign continues to its end.
func TestDomainsOfAnOlderStore(t *testing.T) {
	w := newEnv(7)
	w.addRoute("sim", 40)
	w.addTenant(testTenant, 0, 1)
	w.odds = odds{sent: 60, returned: 20, ambiguous: 5, bounced: 40, delivered: 60}
	f := &fakeDomains{room: 10_000, blocks: map[[2]uint64][]*fanfarev1.DomainBlock{}}
	c := w.addCampaign(1, testTenant, 300, 300, smsLeg(5))
	w.set(c, func(r *fanfarev1.Campaign) { r.Links = &fanfarev1.LinkTable{ShortDomains: true} })
	w.domains = func(r schemas.DomainRequest) []*fanfarev1.DomainBlock {
		b := c.blobs[r.Blob]
		return f.allot(r, b.First+b.Count)
	}
	dealt := map[uint32]bool{}
	w.seeDeal = func(d *Deal) {
		d.members().Iterate(func(seq uint32) bool { dealt[seq] = true; return true })
	}
	restored := false
	for range 900 {
		w.now = w.now.Add(time.Second)
		w.step(200)
		if len(dealt) == 300 && !restored { // everyone was dealt; some wait for their next try
			restored = true
			clear(f.blocks)
			if err := w.takeOver(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !restored || len(f.blocks) == 0 {
		t.Errorf("restored %t, then %d blobs have blocks; want a restore, and blocks for the next tries", restored, len(f.blocks))
	}
	if !w.completed[1] {
		t.Errorf("the campaign is %s, want it completed", c.record.GetState())
	}
	for _, f := range w.faults {
		t.Error(f)
	}
}
