package storetest

import (
	"errors"
	"fmt"
	"sync"

	"fanfare/api/store"
	"fanfare/schemas"
)

var confirmTests = []test{
	{"decides on what it sees, writes it all or nothing", func(e *env) {
		t := e.limited("acme", 1000)
		l := e.list(t, "l", mobile(1), mobile(2), "+12005550123", "+390645201234")
		e.must(e.s.Suppress(e.Context(), t.ID, "api", mobile(2)))
		c := e.campaign(t, "c", l)
		got, err := e.s.Confirm(e.Context(), t.ID, c.ID(), c.Version, user, func(conf store.Confirmation, c *store.Campaign) (uint64, error) {
			a := conf.Audience
			if a.Total != 4 || a.Eligible != 1 || a.Invalid != 2 || a.OptedOut != 1 || a.Duplicates != 0 || a.Countries["IT"] != 1 || len(a.Countries) != 1 {
				e.Errorf("got audience %+v", a)
			}
			equal(e, "tenant and price", fmt.Sprint(conf.Tenant.ID, priceOf(conf.Prices, sms)), fmt.Sprint(t.ID, 50_000))
			c.State, c.Scheduled, c.Name, c.Total = scheduled, start.AddDate(0, 0, 1), "not its to change", 9
			c.Legs = []store.Leg{{Channel: sms, Route: "sim", Price: priceOf(conf.Prices, sms), MaxHandovers: 1}}
			c.Quote = store.Quote{Version: "v", Cost: 10, Contacts: 1}
			return 10, nil
		})
		e.must(err)
		equal(e, "the tenant's segments", got.MaxSegments, 3)
		if got.State != scheduled || got.Name != "c" || got.Total != 0 || got.Version != 2 || !got.Confirmed.Equal(start) || got.ConfirmedBy != "key_test" ||
			!got.Scheduled.Equal(start.AddDate(0, 0, 1)) || got.Reserved != 10 || len(got.Legs) != 1 || got.Quote.Version != "v" {
			e.Errorf("got %+v", got)
		}
		checkEvents(e, got, 2)
		_, err = confirm(e, e.s, got, preparing, 0)
		e.wantErr(err, schemas.ErrTransition)
		got, err = e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), got.Version, user, func(c *store.Campaign) (schemas.Trigger, error) {
			c.Scheduled = start.AddDate(0, 0, 2)
			return "", nil
		})
		e.must(err)
		equal(e, "rescheduled", got.Scheduled, start.AddDate(0, 0, 2))

		d := e.campaign(t, "d", l)
		_, err = confirm(e, e.s, d, preparing, 991)
		e.wantErr(err, store.ErrNoCredit)
		boom := errors.New("boom")
		_, err = e.s.Confirm(e.Context(), t.ID, d.ID(), 0, user, func(_ store.Confirmation, c *store.Campaign) (uint64, error) { c.State = preparing; return 5, boom })
		e.wantErr(err, boom)
		_, err = confirm(e, e.s, d, sending, 0)
		e.wantErr(err, schemas.ErrTransition)
		balance(e, t, store.Balance{Available: 990, Reserved: 10})
		equal(e, "campaign after refusals", e.read(d).Version, d.Version)
		checkEvents(e, d, 1)
	}},
	{"an edit in between is a conflict", func(e *env) {
		t := e.tenant("acme")
		c := e.campaign(t, "c", e.list(t, "l", mobile(1)))
		_, err := e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, func(c *store.Campaign) (schemas.Trigger, error) {
			c.Body = "other"
			return schemas.TriggerEdit, nil
		})
		e.must(err)
		_, err = confirm(e, e.s, c, preparing, 0)
		e.wantErr(err, schemas.ErrConflict)
	}},
	{"edits and confirmations at once", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(1))
		other := e.open()
		for range 20 {
			c := e.campaign(t, "c", l)
			var wg sync.WaitGroup
			wg.Go(func() {
				for range 5 {
					_, err := other.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, func(c *store.Campaign) (schemas.Trigger, error) {
						c.Body += "!"
						return schemas.TriggerEdit, nil
					})
					if err != nil && !errors.Is(err, schemas.ErrTransition) && !errors.Is(err, schemas.ErrConflict) {
						e.Error(err)
					}
				}
			})
			got, err := confirm(e, e.s, c, preparing, 0)
			wg.Wait()
			switch {
			case err == nil && (got.Version != c.Version+1 || got.Body != c.Body):
				e.Errorf("got version %d with body %q confirmed, want %d, which was asked for", got.Version, got.Body, c.Version+1)
			case err == nil:
				_, err := e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, move(cancelled, schemas.TriggerCancel))
				e.must(err)
			case !errors.Is(err, schemas.ErrConflict):
				e.Errorf("got error %v, want a conflict", err)
			}
		}
	}},
	{"ten at once, however many ask (C22)", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(1))
		other := e.open()
		var wg sync.WaitGroup
		var mu sync.Mutex
		confirmed, refused := []store.Campaign{}, 0
		for i := range 64 {
			c := e.campaign(t, fmt.Sprint("c", i), l)
			s := e.s
			if i%2 == 1 {
				s = other
			}
			wg.Go(func() {
				got, err := confirm(e, s, c, []schemas.State{ready, scheduled, preparing}[i%3], 1)
				mu.Lock()
				defer mu.Unlock()
				var limit *store.LimitError
				switch {
				case err == nil:
					confirmed = append(confirmed, got)
				case errors.As(err, &limit) && limit.Limit == store.LimitActive && limit.Max == 10:
					refused++
				default:
					e.Errorf("got error %v, want the limit of active campaigns", err)
				}
			})
		}
		wg.Wait()
		equal(e, "confirmed and refused", [2]int{len(confirmed), refused}, [2]int{10, 54})
		balance(e, t, store.Balance{Unlimited: true, Reserved: 10})
		// When one campaign ends, another one may be confirmed.
		_, err := e.s.UpdateCampaign(e.Context(), t.ID, confirmed[0].ID(), 0, user, move(cancelled, schemas.TriggerCancel))
		e.must(err)
		e.confirm(e.campaign(t, "next", l), 0)
		_, err = confirm(e, e.s, e.campaign(t, "one too many", l), preparing, 0)
		e.wantErr(err, store.ErrLimit)
	}},
	{"one balance, however many draw on it", func(e *env) {
		t := e.limited("acme", 100)
		l := e.list(t, "l", mobile(1))
		other := e.open()
		var wg sync.WaitGroup
		var mu sync.Mutex
		confirmed := 0
		for i := range 9 {
			c := e.campaign(t, fmt.Sprint("c", i), l)
			s := e.s
			if i%2 == 1 {
				s = other
			}
			wg.Go(func() {
				_, err := confirm(e, s, c, preparing, 30)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					confirmed++
				} else if !errors.Is(err, store.ErrNoCredit) {
					e.Errorf("got error %v, want no credit", err)
				}
			})
		}
		wg.Wait()
		equal(e, "confirmed", confirmed, 3)
		balance(e, t, store.Balance{Available: 10, Reserved: 90})
		checkLedger(e, t)
	}},
	{"more contacts than allowed (R153)", func(e *env) {
		t := e.tenant("acme")
		_, err := e.s.UpdateTenant(e.Context(), t.ID, 0, func(t *store.Tenant) error { t.MaxContacts = 2; return nil })
		e.must(err)
		_, err = confirm(e, e.s, e.campaign(t, "c", e.list(t, "l", mobile(1), mobile(2), mobile(3))), preparing, 0)
		var limit *store.LimitError
		if !errors.As(err, &limit) || limit.Limit != store.LimitContacts || limit.Want != 3 || limit.Max != 2 {
			e.Errorf("got error %v, want 3 of 2 contacts", err)
		}
	}},
	{"a list that is gone", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(1))
		c := e.campaign(t, "c", l)
		e.must(e.s.DeleteList(e.Context(), t.ID, l.Number, 0))
		_, err := confirm(e, e.s, c, preparing, 0)
		e.wantErr(err, schemas.ErrNotFound)
	}},
	{"cancelling and unscheduling give the money back", func(e *env) {
		t := e.limited("acme", 100)
		l := e.list(t, "l", mobile(1))
		c, err := confirm(e, e.s, e.campaign(t, "c", l), scheduled, 60)
		e.must(err)
		e.must(e.s.Freeze(e.Context(), t.ID, c.ID(), c.Version))
		c, err = e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, move(configured, schemas.TriggerUnschedule))
		e.must(err)
		if c.FreezeID != "" || c.Total != 0 || c.Legs != nil || !c.Confirmed.IsZero() || c.Reserved != 0 {
			e.Errorf("got %+v, want nothing left of the confirmation", c)
		}
		balance(e, t, store.Balance{Available: 100})
		c = e.confirm(c, 70)
		_, err = e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, move(cancelled, schemas.TriggerCancel))
		e.must(err)
		balance(e, t, store.Balance{Available: 100})
		d := e.confirm(e.campaign(t, "d", l), 70)
		d = e.apply(d, failed, schemas.TriggerFail)
		balance(e, t, store.Balance{Available: 100})
		f := e.apply(e.confirm(e.campaign(t, "f", l), 70), sending, schemas.TriggerDeal)
		_, err = e.s.UpdateCampaign(e.Context(), t.ID, f.ID(), 0, user, move(aborted, schemas.TriggerAbort))
		e.must(err)
		balance(e, t, store.Balance{Available: 30, Reserved: 70}) // the money stays reserved until the campaign settles
		checkLedger(e, t)
		equal(e, "a failed campaign ended", d.Ended.IsZero(), false)
	}},
	{"two appliers, one wins", func(e *env) {
		t := e.tenant("acme")
		c := e.confirm(e.campaign(t, "c", e.list(t, "l", mobile(1))), 0)
		other := e.open()
		var wg sync.WaitGroup
		var mu sync.Mutex
		won, lost := 0, 0
		for i := range 8 {
			s := e.s
			if i%2 == 1 {
				s = other
			}
			wg.Go(func() {
				v, err := s.Apply(e.Context(), schemas.Change{
					Tenant: t.ID, Campaign: c.ID(), Version: c.Version, To: sending, Trigger: schemas.TriggerDeal, Actor: schemas.ActorScheduler,
				})
				mu.Lock()
				defer mu.Unlock()
				if err == nil && v == c.Version+1 {
					won++
				} else if errors.Is(err, schemas.ErrConflict) {
					lost++
				}
			})
		}
		wg.Wait()
		equal(e, "won and lost", [2]int{won, lost}, [2]int{1, 7})
	}},
}
