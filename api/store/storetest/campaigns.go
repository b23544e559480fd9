package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"fanfare/api/store"
	"fanfare/schemas"
)

var campaignTests = []test{
	{"everything said is kept", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(1))
		spec := store.Spec{
			Name: "Saldi ½ £ €", Chain: []schemas.Channel{schemas.ChannelRCS, sms}, Body: "Hi {{first_name}}", TemplateID: "tpl",
			Lists: []uint64{l.Number}, Sender: "SHOP", Route: "sim", Notes: "internal", Tags: []string{"Summer", "vip"}, SendImmediately: true,
			Schedule:     &store.Schedule{At: start.Add(time.Hour), Zone: "Europe/Rome", Wall: "2026-01-02T14:00"},
			CallingHours: &store.Hours{Start: 540, End: 1200, Zone: "Europe/Rome"}, MaxSegments: 2, Rate: 7, Weight: 3, Validity: time.Hour,
			ReceiptWindow: 2 * time.Hour, Missing: schemas.MissingPolicyDefault, MissingDefault: "friend", ReplayOf: 10001,
		}
		c, err := e.s.CreateCampaign(e.Context(), store.Campaign{Tenant: t.ID, State: configured, Spec: spec}, user)
		e.must(err)
		want := store.Campaign{
			Tenant: t.ID, Number: 10001, Version: 1, State: configured, Spec: spec, Region: "IT", Currency: "EUR",
			CreatedBy: "key_test", Created: start, Updated: start,
		}
		if diff := cmp.Diff(want, c); diff != "" {
			e.Errorf("created (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want, e.read(c)); diff != "" {
			e.Errorf("read (-want +got):\n%s", diff)
		}
		equal(e, "id", c.ID(), "camp_10001")
		equal(e, "the next number", e.campaign(t, "next", l).Number, 10002)
	}},
	{"what no channel could want is refused", func(e *env) {
		t := e.tenant("acme")
		l, gone := e.list(t, "l"), e.list(t, "gone")
		e.must(e.s.DeleteList(e.Context(), t.ID, gone.Number, 0))
		for _, c := range []struct {
			what   string
			change func(*store.Campaign)
			want   error
		}{
			{"no name", func(c *store.Campaign) { c.Name = " " }, store.ErrInvalid},
			{"no channel", func(c *store.Campaign) { c.Chain = nil }, store.ErrInvalid},
			{"long body", func(c *store.Campaign) { c.Body = strings.Repeat("x", 65<<10) }, store.ErrInvalid},
			{"odd tag", func(c *store.Campaign) { c.Tags = []string{"a|b"} }, store.ErrInvalid},
			{"odd hours", func(c *store.Campaign) { c.CallingHours = &store.Hours{Start: 9, End: 1440, Zone: "UTC"} }, store.ErrInvalid},
			{"odd zone", func(c *store.Campaign) { c.CallingHours = &store.Hours{Start: 9, End: 10, Zone: "Rome"} }, store.ErrInvalid},
			{"a list twice", func(c *store.Campaign) { c.Lists = append(c.Lists, c.Lists[0]) }, store.ErrInvalid},
			{"no such list", func(c *store.Campaign) { c.Lists = []uint64{77} }, schemas.ErrNotFound},
			{"deleted list", func(c *store.Campaign) { c.Lists = []uint64{gone.Number} }, schemas.ErrNotFound},
			{"a state of later", func(c *store.Campaign) { c.State = sending }, schemas.ErrTransition},
		} {
			campaign := store.Campaign{
				Tenant: t.ID, State: draft, Spec: store.Spec{Name: "x", Chain: []schemas.Channel{sms}, Lists: []uint64{l.Number}},
			}
			c.change(&campaign)
			if _, err := e.s.CreateCampaign(e.Context(), campaign, user); !errors.Is(err, c.want) {
				e.Errorf("%s: got error %v, want %v", c.what, err, c.want)
			}
		}
	}},
	{"a tenant without the feature (R45)", func(e *env) {
		t := e.tenant("acme")
		c := e.campaign(t, "c", e.list(t, "l", mobile(1)))
		_, err := e.s.UpdateTenant(e.Context(), t.ID, 0, func(t *store.Tenant) error { t.CampaignsEnabled = false; return nil })
		e.must(err)
		_, err = e.s.CreateCampaign(e.Context(), store.Campaign{Tenant: t.ID, State: draft, Spec: store.Spec{Name: "x", Chain: []schemas.Channel{sms}}}, user)
		e.wantErr(err, store.ErrFeatureOff)
		_, err = confirm(e, e.s, c, preparing, 0)
		e.wantErr(err, store.ErrFeatureOff)
	}},
	{"a test list makes a test", func(e *env) {
		t := e.tenant("acme")
		l, err := e.s.CreateList(e.Context(), t.ID, "us", true)
		e.must(err)
		c := e.campaign(t, "c", l)
		equal(e, "test", c.Test, true)
		edit := func(c store.Campaign, change func(*store.Campaign)) store.Campaign {
			out, err := e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, func(c *store.Campaign) (schemas.Trigger, error) { change(c); return schemas.TriggerEdit, nil })
			e.must(err)
			return out
		}
		c = edit(c, func(c *store.Campaign) { c.TestRun = false; c.Test = false })
		equal(e, "test, whatever the client says", c.Test, true)
		real := e.list(t, "real", mobile(1))
		c = edit(c, func(c *store.Campaign) { c.Lists = []uint64{real.Number} })
		equal(e, "test, of another list", c.Test, false)
		c = edit(c, func(c *store.Campaign) { c.TestRun = true })
		equal(e, "test, as the client says", c.Test, true)
		c = edit(c, func(c *store.Campaign) { c.TestRun = false })
		equal(e, "test, no more", c.Test, false)
		_, err = e.s.UpdateList(e.Context(), t.ID, real.Number, 0, func(l *store.List) error { l.Test = true; return nil })
		e.must(err)
		c, err = confirm(e, e.s, c, preparing, 0)
		e.must(err)
		equal(e, "confirmed with a list that is of testers by now", c.Test, true)
		c, err = e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, func(c *store.Campaign) (schemas.Trigger, error) { c.Rate = 5; return "", nil })
		e.must(err)
		equal(e, "test, after a change while it runs", c.Test, true)
	}},
	{"names have as many letters as they may, in any alphabet (R2)", func(e *env) {
		t := e.tenant("acme")
		name := strings.Repeat("é", 200)
		l, err := e.s.CreateList(e.Context(), t.ID, name, false)
		e.must(err)
		equal(e, "name of a campaign", e.campaign(t, name, l).Name, name)
		_, err = e.s.CreateList(e.Context(), t.ID, name+"é", false)
		e.wantErr(err, store.ErrInvalid)
		_, err = e.s.CreateCampaign(e.Context(), store.Campaign{Tenant: t.ID, State: draft, Spec: store.Spec{Name: name + "é", Chain: []schemas.Channel{sms}}}, user)
		e.wantErr(err, store.ErrInvalid)
	}},
	{"update is a compare-and-set", func(e *env) {
		t := e.tenant("acme")
		c := e.campaign(t, "c", e.list(t, "l"))
		edit := func(name string) func(*store.Campaign) (schemas.Trigger, error) {
			return func(c *store.Campaign) (schemas.Trigger, error) {
				// An edit may change the name. The store must ignore changes of all other fields.
				c.Name, c.Number, c.Total, c.FreezeID, c.Reserved = name, 5, 5, "x", 5
				return schemas.TriggerEdit, nil
			}
		}
		up, err := e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 1, user, edit("d"))
		e.must(err)
		want := c
		want.Name, want.Version = "d", 2
		if diff := cmp.Diff(want, up); diff != "" {
			e.Errorf("updated (-want +got):\n%s", diff)
		}
		_, err = e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 1, user, edit("e"))
		e.wantErr(err, schemas.ErrConflict)
		boom := errors.New("boom")
		_, err = e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, func(c *store.Campaign) (schemas.Trigger, error) { c.Name = "x"; return "", boom })
		e.wantErr(err, boom)
		equal(e, "name", e.read(c).Name, "d")
	}},
	{"random walks stay within the state machine, and leave their traces", func(e *env) {
		seed := uint64(time.Now().UnixNano())
		e.Logf("seed %d", seed)
		rnd := rand.New(rand.NewPCG(seed, 1))
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(1))
		actors := []schemas.Actor{schemas.ActorUser, schemas.ActorGuard, schemas.ActorScheduler, schemas.ActorOperator, schemas.ActorApprover}
		for range 6 {
			c := e.campaign(t, "c", l)
			moved := 1
			for range 60 {
				tr := schemas.Transitions[rnd.IntN(len(schemas.Transitions))]
				actor := actors[rnd.IntN(len(actors))]
				if rnd.IntN(3) > 0 {
					actor = tr.Actors[0]
				}
				if tr.Trigger == schemas.TriggerConfirm {
					continue // confirm has a method of its own
				}
				may := slices.ContainsFunc(schemas.Transitions, func(x schemas.Transition) bool {
					return x.From == c.State && x.To == tr.To && x.Trigger == tr.Trigger &&
						(slices.Contains(x.Actors, actor) || actor == schemas.ActorOperator && slices.Contains(x.Actors, schemas.ActorUser))
				})
				var err error
				if rnd.IntN(2) == 0 {
					_, err = e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), c.Version, store.Cause{Actor: actor}, move(tr.To, tr.Trigger))
				} else {
					_, err = e.s.Apply(e.Context(), schemas.Change{
						Tenant: t.ID, Campaign: c.ID(), Version: c.Version, To: tr.To, Trigger: tr.Trigger, Actor: actor,
					})
				}
				if may != (err == nil) || !may && !errors.Is(err, schemas.ErrTransition) {
					e.Errorf("%s %s from %s to %s: got %v, want it to be possible: %v", actor, tr.Trigger, c.State, tr.To, err, may)
				}
				if may {
					moved++
				}
				c = e.read(c)
			}
			if confirmed, err := confirm(e, e.s, c, preparing, 0); err == nil {
				c = confirmed
				moved++
			}
			checkEvents(e, c, moved)
		}
	}},
	{"list", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		var ids []uint64
		for i := range 5 {
			c := store.Campaign{Tenant: t.ID, State: draft, Spec: store.Spec{
				Name: fmt.Sprintf("Camp %d%%", i), Chain: []schemas.Channel{sms}, Tags: []string{"All", fmt.Sprint("n", i)}, Lists: []uint64{l.Number},
			}}
			if i == 4 {
				c.State, c.Chain = configured, []schemas.Channel{schemas.ChannelRCS}
			}
			c, err := e.s.CreateCampaign(e.Context(), c, user)
			e.must(err)
			ids = append([]uint64{c.Number}, ids...)
			e.clock.add(time.Hour)
		}
		_, err := e.s.UpdateCampaign(e.Context(), t.ID, schemas.CampaignID(ids[4]), 0, user, move(cancelled, schemas.TriggerCancel))
		e.must(err)
		_, err = e.s.LeaseSeqs(e.Context(), t.ID, start, 1) // the first lease of seqs creates a hidden campaign
		e.must(err)
		all := ids
		for _, c := range []struct {
			what  string
			f     store.CampaignFilter
			want  []uint64
			total int
		}{
			{"all", store.CampaignFilter{}, all, 5},
			{"oldest", store.CampaignFilter{Oldest: true, Page: store.Page{Limit: 2}}, []uint64{ids[4], ids[3]}, 5},
			{"first page", store.CampaignFilter{Page: store.Page{Limit: 2}}, all[:2], 5},
			{"last page", store.CampaignFilter{Page: store.Page{Number: 2, Limit: 2}}, all[4:], 5},
			{"after", store.CampaignFilter{After: ids[1]}, all[2:], 5},
			{"after, oldest first", store.CampaignFilter{Oldest: true, After: ids[3]}, []uint64{ids[2], ids[1], ids[0]}, 5},
			{"search", store.CampaignFilter{Search: " camp 2"}, []uint64{ids[2]}, 1},
			{"search for a wildcard", store.CampaignFilter{Search: "3%"}, []uint64{ids[1]}, 1},
			{"tag", store.CampaignFilter{Tag: "ALL"}, all, 5},
			{"a part of a tag", store.CampaignFilter{Tag: "al"}, nil, 0},
			{"one tag", store.CampaignFilter{Tag: "n3"}, []uint64{ids[1]}, 1},
			{"state", store.CampaignFilter{States: []schemas.State{draft, sending}}, all[1:4], 3},
			{"channel", store.CampaignFilter{Channels: []schemas.Channel{schemas.ChannelRCS}}, all[:1], 1},
			{"from", store.CampaignFilter{From: start.Add(3 * time.Hour)}, all[:2], 2},
			{"to", store.CampaignFilter{To: start.Add(time.Hour)}, all[4:], 1},
			{"together", store.CampaignFilter{States: []schemas.State{cancelled}, Tag: "n0", To: start.Add(time.Hour)}, all[4:], 1},
		} {
			got, total, err := e.s.Campaigns(e.Context(), t.ID, c.f)
			e.must(err)
			var numbers []uint64
			for _, g := range got {
				numbers = append(numbers, g.Number)
			}
			if !slices.Equal(numbers, c.want) || total != c.total {
				e.Errorf("%s: got %v of %d, want %v of %d", c.what, numbers, total, c.want, c.total)
			}
		}
	}},
	{"deleted stays listed, removed does not (C2)", func(e *env) {
		t := e.tenant("acme")
		c := e.campaign(t, "c", e.list(t, "l"))
		_, err := e.s.RemoveCampaign(e.Context(), t.ID, c.ID(), 0, user)
		e.wantErr(err, schemas.ErrTransition)
		c, err = e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, move(cancelled, schemas.TriggerCancel))
		e.must(err)
		if !c.Deleted.Equal(start) || !c.Ended.Equal(start) {
			e.Errorf("got deleted %v, ended %v, want both %v", c.Deleted, c.Ended, start)
		}
		count := func(deleted bool) int {
			_, n, err := e.s.Campaigns(e.Context(), t.ID, store.CampaignFilter{IncludeDeleted: deleted})
			e.must(err)
			return n
		}
		equal(e, "listed when cancelled", count(false), 1)
		_, err = e.s.RemoveCampaign(e.Context(), t.ID, c.ID(), c.Version-1, user)
		e.wantErr(err, schemas.ErrConflict)
		c, err = e.s.RemoveCampaign(e.Context(), t.ID, c.ID(), c.Version, user)
		e.must(err)
		equal(e, "listed when removed", count(false), 0)
		equal(e, "listed with deleted ones", count(true), 1)
		again, err := e.s.RemoveCampaign(e.Context(), t.ID, c.ID(), 0, user)
		e.must(err)
		equal(e, "version after removing again", again.Version, c.Version)
		equal(e, "removed campaign as read", e.read(c).Removed, true)
	}},
	{"what follows from a move", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(1))
		c := e.confirm(e.campaign(t, "c", l), 0)
		e.clock.add(time.Minute)
		c = e.apply(c, sending, schemas.TriggerDeal)
		equal(e, "started", c.Started, start.Add(time.Minute))
		_, err := e.s.Apply(e.Context(), schemas.Change{
			Tenant: t.ID, Campaign: c.ID(), Version: c.Version, To: schemas.StateSuspended, Trigger: schemas.TriggerSuspend,
			Actor: schemas.ActorGuard, Reason: "route_down",
		})
		e.must(err)
		c = e.read(c)
		equal(e, "reason", c.Reason, "route_down")
		c, err = e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, move(sending, schemas.TriggerResume))
		e.must(err)
		equal(e, "reason after resuming", c.Reason, "")
		e.clock.add(time.Minute)
		c = e.apply(c, completed, schemas.TriggerComplete)
		equal(e, "stopped, as published before anybody aborts", e.published(c).GetStopped(), false)
		equal(e, "started and completed", [2]time.Time{c.Started, c.Completed}, [2]time.Time{start.Add(time.Minute), start.Add(2 * time.Minute)})
		c, err = e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, move(completed, schemas.TriggerAbort))
		e.must(err)
		equal(e, "reason after aborting what is completed", c.Reason, store.ReasonAborted)
		// The reason is for people to read. The pipeline makes no further tries because of the field stopped.
		equal(e, "stopped, as published", e.published(c).GetStopped(), true)

		d := e.confirm(e.campaign(t, "d", l), 0)
		_, err = e.s.Apply(e.Context(), schemas.Change{
			Tenant: t.ID, Campaign: d.ID(), Version: d.Version, To: failed, Trigger: schemas.TriggerFail, Actor: schemas.ActorScheduler, Reason: "list_gone",
		})
		e.must(err)
		d = e.read(d)
		if d.Reason != "list_gone" || d.Ended.IsZero() {
			e.Errorf("got %+v, want failed for list_gone, ended", d)
		}
		_, err = e.s.Apply(e.Context(), schemas.Change{Tenant: t.ID, Campaign: d.ID(), Version: d.Version, Actor: schemas.ActorScheduler, Settled: true})
		e.wantErr(err, schemas.ErrTransition)
	}},
	{"a live patch of a campaign whose list is gone", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(1))
		c := e.confirm(e.campaign(t, "c", l), 0)
		e.must(e.s.DeleteList(e.Context(), t.ID, l.Number, 0))
		c, err := e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, func(c *store.Campaign) (schemas.Trigger, error) { c.Rate = 9; return "", nil })
		e.must(err)
		if c.Rate != 9 || len(c.Lists) != 1 {
			e.Errorf("got rate %d, lists %v, want 9 and the list", c.Rate, c.Lists)
		}
	}},
}

// checkEvents checks that the history of a campaign has no gap: each entry begins in the state in which the entry
// before it ended.
func checkEvents(e *env, c store.Campaign, want int) {
	e.Helper()
	events, err := e.s.CampaignEvents(e.Context(), c.Tenant, c.ID())
	e.must(err)
	if len(events) != want {
		e.Errorf("got %d events, want %d", len(events), want)
	}
	state, version := schemas.StateUnspecified, uint64(0)
	for _, ev := range events {
		if ev.From != state || ev.Version <= version || ev.Time.IsZero() {
			e.Errorf("got event %+v after state %v, version %d", ev, state, version)
		}
		state, version = ev.To, ev.Version
	}
	if state != c.State || version != c.Version {
		e.Errorf("events end at %v, version %d; want %v, %d", state, version, c.State, c.Version)
	}
	if first := events[0]; first.Cause != user || first.Trigger != schemas.TriggerCreate {
		e.Errorf("got first event %+v, want its cause %+v", first, user)
	}
}
