package storetest

import (
	"maps"
	"slices"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

var restoreTests = []test{
	{"the log outranks a store that was put back from an older copy", func(e *env) {
		t := e.limited("acme", 10_000)
		list := e.list(t, "l", "+393331234567", "+393331234568")
		record := func(c store.Campaign, ahead uint64, state schemas.State, freeze string) *fanfarev1.Campaign {
			return &fanfarev1.Campaign{
				Tenant: t.ID, Id: c.ID(), Number: c.Number, Version: c.Version + ahead, State: state, FreezeId: freeze, Total: 2, Currency: "EUR",
				ConfirmedMs: 1, StartedMs: 2, Legs: []*fanfarev1.Leg{{Channel: sms, Route: "sim", PriceMicros: 50, MaxHandovers: 3}},
			}
		}
		start := func(name string) store.Campaign {
			e.Helper()
			return e.apply(e.confirm(e.campaign(t, name, list), 750), sending, schemas.TriggerDeal)
		}
		settled, aPaused, same, older := start("settled"), start("paused"), start("same"), start("older")
		lost := e.campaign(t, "confirmed since the copy", list)
		edited := e.campaign(t, "edited since the copy", list)
		log := map[string]store.LogCampaign{}
		add := func(c store.Campaign, l store.LogCampaign) { log[schemas.CampaignKey(c.Tenant, c.ID())] = l }
		add(settled, store.LogCampaign{Record: record(settled, 4, completed, ""), Settled: true, Captured: 600})
		add(aPaused, store.LogCampaign{Record: record(aPaused, 1, paused, "")})
		add(same, store.LogCampaign{Record: record(same, 0, sending, "")})
		add(older, store.LogCampaign{})
		add(lost, store.LogCampaign{Record: record(lost, 3, sending, "a freeze that the copy lacks")})
		add(edited, store.LogCampaign{Record: record(edited, 2, schemas.StateScheduled, "")})
		log[t.ID+"/camp_99999"] = store.LogCampaign{Record: &fanfarev1.Campaign{Tenant: t.ID, Id: "camp_99999", Number: 99999}}

		check := func(plan store.RestorePlan) {
			e.Helper()
			got := map[string]schemas.State{}
			for _, c := range plan.Campaigns {
				got[c.ID] = c.To
			}
			if want := map[string]schemas.State{settled.ID(): completed, aPaused.ID(): paused, lost.ID(): aborted}; !maps.Equal(got, want) {
				e.Errorf("moves %v, want %v", got, want)
			}
			if want := []string{t.ID + "/camp_99999"}; !slices.Equal(plan.Unknown, want) {
				e.Errorf("unknown %v, want %v", plan.Unknown, want)
			}
		}
		plan, err := e.s.PlanRestore(e.Context(), log)
		e.must(err)
		check(plan)
		equal(e, "a plan changes nothing", e.read(settled).Version, settled.Version)
		plan, err = e.s.Restore(e.Context(), log)
		e.must(err)
		check(plan)

		got := e.read(settled)
		if got.State != completed || got.Settled.IsZero() || got.Captured != 600 || got.Reserved != 0 {
			e.Errorf("settled: %s, settled %s, captured %d, reserved %d; want completed, settled, 600, 0", got.State, got.Settled, got.Captured, got.Reserved)
		}
		if got := e.read(lost); got.State != aborted || got.Reason != store.ReasonRestored || got.FreezeID == "" || got.Total != 2 || len(got.Legs) != 1 {
			e.Errorf("confirmed since the copy: %+v, want it aborted with the log's audience and legs", got)
		}
		for _, c := range []store.Campaign{settled, aPaused, same, older, lost, edited} {
			if got := e.read(c); got.Version <= c.Version+900_000 {
				e.Errorf("%s has version %d, want it above all in the topics", c.Name, got.Version)
			}
		}
		equal(e, "edited", e.read(edited).State, configured)
		if c := e.campaign(t, "new", list); c.Number < settled.Number+1_000_000 {
			e.Errorf("a new campaign has number %d, which may have been given since the copy", c.Number)
		}
		balance(e, t, store.Balance{Available: 10_000 - 600 - 3*750, Reserved: 3 * 750, Captured: 600})
		checkLedger(e, t)
		_, err = e.s.Restore(e.Context(), log) // a second run must change nothing
		e.must(err)
		equal(e, "captured, the second time", e.read(settled).Captured, uint64(600))
	}},
}
