package storetest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/api/importfile"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/audience"
)

// replay creates a replay of a frozen campaign to some recipients of its audience.
func (e *env) replay(origin store.Campaign, seqs ...uint32) store.Campaign {
	e.Helper()
	c, err := e.s.CreateReplay(e.Context(), store.Campaign{Tenant: origin.Tenant, State: configured, Spec: origin.Spec}, &origin, `{"status":"delivered"}`, roaring.BitmapOf(seqs...), user)
	e.must(err)
	size, err := e.s.AudienceSize(e.Context(), c.Tenant, c.ID())
	e.must(err)
	equal(e, "size of the audience", size, uint64(len(seqs)))
	return c
}

var replayTests = []test{
	{"sends to people of its origin, who are tested again (R139, R149)", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(0), mobile(1), mobile(2), badNumber, mobile(4), mobile(5), mobile(6))
		m := e.list(t, "m", mobile(0))
		e.must(e.s.Suppress(e.Context(), t.ID, "api", mobile(2)))
		origin, _ := e.freeze(e.confirm(e.campaign(t, "o", l, m), 0)) // seq 7 has the same number as seq 0
		e.must(e.s.Lift(e.Context(), t.ID, "api", mobile(2)))
		e.must(e.s.Suppress(e.Context(), t.ID, "api", mobile(4)))
		gone, err := e.s.ContactByPhone(e.Context(), t.ID, mobile(5))
		e.must(err)
		e.must(e.s.DeleteContact(e.Context(), t.ID, gone.Number, 0))
		e.must(e.s.DeleteList(e.Context(), t.ID, l.Number, 0)) // a replay does not need the list
		e.list(t, "n", mobile(8))

		c := e.replay(origin, 0, 2, 3, 4, 5, 6, 7)
		if c.ReplayOf != origin.Number || len(c.Lists) != 0 || c.State != configured {
			e.Errorf("got replay of %d, lists %v, state %v, want %d, none, configured", c.ReplayOf, c.Lists, c.State, origin.Number)
		}
		count, err := e.s.CountCampaign(e.Context(), &c)
		e.must(err)
		sample, err := e.s.ReplaySample(e.Context(), &c, 2)
		e.must(err)
		if len(sample) != 2 || sample[1].Phone != mobile(2) {
			e.Errorf("got sample %+v, want the first two that are sent to", sample)
		}
		e.clock.add(time.Second)
		c = e.confirm(c, 0)
		e.clock.add(time.Second)
		e.must(e.s.Lift(e.Context(), t.ID, "api", mobile(4))) // too late: the replay was confirmed while the number was opted out
		c, f := e.freeze(c)
		want := fmt.Sprintf("%s:0 %s:0 %s:1 %s:3 %s:0 %s:2", mobile(0), mobile(2), badNumber, mobile(4), mobile(6), mobile(0))
		equal(e, "entries and flags", f.flags(), want)
		if count.Total != 6 || count.Eligible != 3 || count.Invalid != 1 || count.OptedOut != 1 || count.Duplicates != 1 || count.Countries["IT"] != 3 {
			e.Errorf("got count %+v, want what the freeze found", count)
		}

		// A replay can be replayed. The store knows the origin of each.
		second, f := e.freeze(e.confirm(e.replay(c, 1, 4), 0))
		equal(e, "entries of the second", f.flags(), fmt.Sprintf("%s:0 %s:0", mobile(2), mobile(6)))
		got, err := e.s.ReplayOf(e.Context(), t.ID, second.Number)
		e.must(err)
		if got.Origin != c.Number || got.Selected != 2 || got.Selection != `{"status":"delivered"}` {
			e.Errorf("got %+v", got)
		}
		third := e.replay(origin, 0)
		replays, err := e.s.Replays(e.Context(), t.ID, origin.Number)
		e.must(err)
		if len(replays) != 2 || replays[0].Campaign != c.Number || replays[1].Campaign != third.Number {
			e.Errorf("got replays %+v, want two", replays)
		}
		_, err = e.s.ReplayOf(e.Context(), t.ID, origin.Number)
		e.wantErr(err, schemas.ErrNotFound)
	}},
	{"several blobs and zones keep their people", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		var file strings.Builder
		file.WriteString("phone,first_name,timezone\n")
		const n = audience.BlobSize + 300
		for i := range n {
			zone := ""
			if i%40 == 0 {
				zone = "Europe/London"
			}
			fmt.Fprintf(&file, "%s,N%d,%s\n", mobile(i), i, zone)
		}
		e.load(t, l, importfile.CSV, file.String())
		origin, f := e.freeze(e.confirm(e.campaign(t, "o", l), 0))
		var seqs []uint32
		want := map[string]bool{}
		for seq := uint32(0); seq < origin.Total; seq += 7 {
			seqs = append(seqs, seq)
			want[f.entries[seq].To] = true
		}
		c, g := e.freeze(e.confirm(e.replay(origin, seqs...), 0))
		equal(e, "total", int(c.Total), len(seqs))
		for _, entry := range g.entries {
			if name, _ := entry.Value("first_name"); !want[entry.To] || name == "" {
				e.Errorf("got %s (%s), who was not selected", entry.To, name)
			}
		}
	}},
	{"its people stay until it has taken them", func(e *env) {
		t := e.tenant("acme")
		origin, _ := e.freeze(e.confirm(e.campaign(t, "o", e.list(t, "l", mobile(1))), 0))
		draft := e.replay(origin, 0)
		waiting, err := confirm(e, e.s, e.replay(origin, 0), scheduled, 0)
		e.must(err)
		_, err = e.s.UpdateCampaign(e.Context(), t.ID, origin.ID(), 0, user, move(cancelled, schemas.TriggerCancel))
		e.must(err)
		e.clock.add(41 * 24 * time.Hour)
		e.must(e.s.Collect(e.Context()))
		waiting, f := e.freeze(waiting)
		equal(e, "entries", f.flags(), mobile(1)+":0")
		e.must(e.s.Collect(e.Context()))
		equal(e, "parts of the origin", e.parts(origin.FreezeID), 0)
		e.thaw(waiting)
		err = e.s.Freeze(e.Context(), t.ID, draft.ID(), draft.Version)
		e.wantErr(err, schemas.ErrTransition) // a draft has no frozen audience
		_, err = e.s.CountCampaign(e.Context(), &draft)
		if gone, ok := errors.AsType[*schemas.FreezeError](err); !ok || gone.Reason != store.ReasonAudienceGone {
			e.Errorf("got %v, want that the audience is gone", err)
		}
		_, err = e.s.CreateReplay(e.Context(), store.Campaign{Tenant: t.ID, State: configured, Spec: origin.Spec}, &origin, "{}", roaring.BitmapOf(0), user)
		e.wantErr(err, schemas.ErrNotFound)
		_, err = e.s.CreateReplay(e.Context(), store.Campaign{Tenant: t.ID, State: configured, Spec: waiting.Spec}, &waiting, "{}", roaring.BitmapOf(1), user)
		e.wantErr(err, store.ErrInvalid)
	}},
}
