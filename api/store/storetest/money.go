package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/pricing"
)

var moneyTests = []test{
	{"top-ups and credit", func(e *env) {
		t := e.limited("acme", 100)
		b, err := e.s.TopUp(e.Context(), t.ID, 50, "card")
		e.must(err)
		equal(e, "balance", b, store.Balance{Available: 150})
		e.must(e.s.SetCredit(e.Context(), t.ID, 0, true))
		b, err = e.s.Balance(e.Context(), t.ID)
		e.must(err)
		equal(e, "unlimited", b, store.Balance{Unlimited: true})
		e.must(e.s.SetCredit(e.Context(), t.ID, 7, false))
		b, err = e.s.Balance(e.Context(), t.ID)
		e.must(err)
		equal(e, "limited again", b, store.Balance{Available: 7})
		checkLedger(e, t)
	}},
	{"what was reserved without limit does not come back as credit", func(e *env) {
		t := e.tenant("acme") // a tenant without a credit limit
		e.confirm(e.campaign(t, "c", e.list(t, "l", mobile(1))), 1000)
		e.wantErr(e.s.SetCredit(e.Context(), t.ID, 7, false), store.ErrReserved)
		balance(e, t, store.Balance{Unlimited: true, Reserved: 1000})
		e.must(e.s.SetCredit(e.Context(), t.ID, 0, true))
	}},
	// R113, X13: a price list has rows for single countries. It is saved completely or not at all.
	{"price list", func(e *env) {
		t, other := e.tenant("acme"), e.tenant("other")
		france := pricing.Rule{Channel: sms, Country: "FR", Micros: 70_000}
		many := pricing.Rule{Channel: sms, From: 1000, Micros: 40_000}
		put := func(replace bool, rules ...pricing.Rule) string {
			added, changed, deleted, err := e.s.PutPrices(e.Context(), t.ID, rules, replace, "key")
			e.must(err)
			return fmt.Sprint(added, changed, deleted)
		}
		equal(e, "first", put(false, france, many), "2 0 0")
		equal(e, "the same again", put(false, france, many), "0 0 0")
		france.Micros = 75_000
		equal(e, "changed", put(false, france), "0 1 0")
		list, err := e.s.PriceList(e.Context(), t.ID)
		e.must(err)
		price := func(country string, volume uint64) uint64 {
			micros, _ := list.Price(sms, country, volume, time.Now())
			return micros
		}
		equal(e, "prices", fmt.Sprint(price("FR", 1), price("FR", 5000), price("IT", 5000), price("IT", 999)), "75000 75000 40000 50000")
		equal(e, "replaced", put(true, many), "0 0 1")
		_, _, _, err = e.s.PutPrices(e.Context(), t.ID, []pricing.Rule{france, {Channel: sms, Country: "DE", Micros: schemas.MaxPriceMicros + 1}}, false, "key")
		e.wantErr(err, store.ErrInvalid)
		list, err = e.s.PriceList(e.Context(), t.ID)
		e.must(err)
		equal(e, "rows after a refusal", len(list), 4+1) // four channels and one row
		theirs, err := e.s.PriceList(e.Context(), other.ID)
		e.must(err)
		equal(e, "the other tenant's rows", len(theirs), 4)
	}},
	{"price of a channel", func(e *env) {
		t := e.tenant("acme")
		e.must(e.s.SetPrice(e.Context(), t.ID, sms, 42))
		p, err := e.s.Prices(e.Context(), t.ID)
		e.must(err)
		equal(e, "price", priceOf(p, sms), 42)
		e.wantErr(e.s.SetPrice(e.Context(), t.ID, 0, 1), store.ErrInvalid)
		e.must(e.s.SetPrice(e.Context(), t.ID, schemas.ChannelRCS, schemas.MaxPriceMicros))
		// A delivery event has no room for a higher price.
		e.wantErr(e.s.SetPrice(e.Context(), t.ID, sms, schemas.MaxPriceMicros+1), store.ErrInvalid)
		e.wantErr(e.s.SetPrice(e.Context(), "tn_none", sms, 1), schemas.ErrNotFound)
	}},
	{"reserve, capture, release", func(e *env) {
		t := e.limited("acme", 1000)
		c := e.confirm(e.campaign(t, "c", e.list(t, "l", mobile(1))), 600)
		balance(e, t, store.Balance{Available: 400, Reserved: 600})
		c = e.apply(c, sending, schemas.TriggerDeal)
		captureTo := func(micros uint64) {
			e.Helper()
			_, err := e.s.Apply(e.Context(), schemas.Change{
				Tenant: t.ID, Campaign: c.ID(), Version: c.Version, Actor: schemas.ActorScheduler, CapturedSoFar: micros,
			})
			e.must(err)
			c = e.read(c)
		}
		captureTo(100)
		balance(e, t, store.Balance{Available: 400, Reserved: 500, Captured: 100})
		captureTo(100) // the figure is a running total, so the same one changes nothing
		captureTo(90)  // an older figure changes nothing
		balance(e, t, store.Balance{Available: 400, Reserved: 500, Captured: 100})
		c = e.apply(c, completed, schemas.TriggerComplete)
		settle := schemas.Change{Tenant: t.ID, Campaign: c.ID(), Version: c.Version, Actor: schemas.ActorScheduler, Settled: true, Captured: 250, At: e.clock.now()}
		v, err := e.s.Apply(e.Context(), settle)
		e.must(err)
		balance(e, t, store.Balance{Available: 750, Captured: 250})
		again, err := e.s.Apply(e.Context(), settle)
		e.must(err)
		equal(e, "version after settling twice", again, v)
		c = e.read(c)
		equal(e, "reserved and captured", [2]uint64{c.Reserved, c.Captured}, [2]uint64{0, 250})
		checkLedger(e, t)
	}},
	{"not below zero, whatever was sent", func(e *env) {
		t := e.limited("acme", 100)
		c := e.apply(e.confirm(e.campaign(t, "c", e.list(t, "l", mobile(1))), 60), sending, schemas.TriggerDeal)
		c = e.apply(c, completed, schemas.TriggerComplete)
		_, err := e.s.Apply(e.Context(), schemas.Change{
			Tenant: t.ID, Campaign: c.ID(), Version: c.Version, Actor: schemas.ActorScheduler, Settled: true, Captured: 500,
		})
		e.must(err)
		balance(e, t, store.Balance{Captured: 100})
		checkLedger(e, t)
	}},
	// A confirm reserves the whole price, so a campaign's own costs never suspend it for lack of credit. If the balance
	// is too small, the confirm fails before anything is sent.
	{"eight workers on a balance worth 47,000 segments capture exactly 47,000", func(e *env) {
		const price, segments, workers = 50_000, 47_000, 8
		t := e.limited("acme", price*segments)
		_, err := e.s.UpdateTenant(e.Context(), t.ID, 0, func(t *store.Tenant) error { t.MaxActive = 1000; return nil })
		e.must(err)
		l := e.list(t, "l", mobile(1))
		stores := []*store.Store{e.s, e.open()}
		var mu sync.Mutex
		var captured, refused uint64
		var wg sync.WaitGroup
		for w := range workers {
			var mine []store.Campaign
			for i := range 6 {
				mine = append(mine, e.campaign(t, fmt.Sprint("c", w, " ", i), l))
			}
			s := stores[w%2]
			wg.Go(func() {
				for i, c := range mine {
					n := uint64(1 + (w*7+i)%5*500) // 1 to 2,001 segments; the sum is more than the balance has
					c, err := confirm(e, s, c, preparing, n*price)
					if errors.Is(err, store.ErrNoCredit) {
						mu.Lock()
						refused++
						mu.Unlock()
						continue
					}
					if err != nil {
						e.Errorf("confirm: %v", err)
						return
					}
					for _, move := range []struct {
						to      schemas.State
						trigger schemas.Trigger
						soFar   uint64
					}{{sending, schemas.TriggerDeal, 0}, {sending, "", n / 2 * price}, {completed, schemas.TriggerComplete, n * price}} {
						v, err := s.Apply(e.Context(), schemas.Change{
							Tenant: t.ID, Campaign: c.ID(), Version: c.Version, To: move.to, Trigger: move.trigger, Actor: schemas.ActorScheduler, CapturedSoFar: move.soFar,
						})
						if err != nil {
							e.Errorf("apply %s: %v", move.trigger, err)
							return
						}
						c.Version = v
					}
					mu.Lock()
					captured += n
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		// The rest is smaller than each refused campaign needed. A campaign that costs exactly the rest can be
		// confirmed.
		b, err := e.s.Balance(e.Context(), t.ID)
		e.must(err)
		equal(e, "captured", b.Captured, captured*price)
		equal(e, "free and captured", b.Available+b.Captured, uint64(price*segments))
		if refused == 0 {
			e.Error("no campaign was refused: the race proves nothing")
		}
		last := e.apply(e.confirm(e.campaign(t, "the rest", l), b.Available), sending, schemas.TriggerDeal)
		_, err = confirm(e, e.s, e.campaign(t, "one segment more", l), preparing, price)
		e.wantErr(err, store.ErrNoCredit)
		_, err = e.s.Apply(e.Context(), schemas.Change{Tenant: t.ID, Campaign: last.ID(), Version: last.Version, Actor: schemas.ActorScheduler, CapturedSoFar: b.Available})
		e.must(err)
		balance(e, t, store.Balance{Captured: price * segments})
		checkLedger(e, t)
	}},
	{"credit that is taken back suspends what it does not cover, and a top-up resumes it (no_credit)", func(e *env) {
		t := e.limited("acme", 1000)
		l := e.list(t, "l", mobile(1))
		a := e.apply(e.confirm(e.campaign(t, "a", l), 600), sending, schemas.TriggerDeal)
		b := e.confirm(e.campaign(t, "b", l), 300)
		operator := store.Cause{Actor: schemas.ActorUser, By: "key_op"}
		take := func(micros uint64, want store.Balance) {
			e.Helper()
			got, err := e.s.Withdraw(e.Context(), t.ID, micros, "contract", operator)
			e.must(err)
			equal(e, "balance", got, want)
			checkLedger(e, t)
		}
		is := func(c store.Campaign, state schemas.State, reason string) {
			e.Helper()
			got := e.read(c)
			equal(e, c.Name, fmt.Sprint(got.State, got.Reason), fmt.Sprint(state, reason))
		}
		take(40, store.Balance{Available: 60, Reserved: 900})
		is(a, sending, "") // the free balance was enough
		take(100, store.Balance{Reserved: 900, Owed: 40})
		is(a, schemas.StateSuspended, store.ReasonNoCredit)
		is(b, schemas.StateSuspended, store.ReasonNoCredit)
		_, err := e.s.Withdraw(e.Context(), t.ID, 861, "", operator) // more than the balance has
		e.wantErr(err, store.ErrNoCredit)
		_, err = e.s.UpdateCampaign(e.Context(), t.ID, a.ID(), 0, user, move(sending, schemas.TriggerResume))
		e.wantErr(err, store.ErrNoCredit)
		_, err = confirm(e, e.s, e.campaign(t, "c", l), preparing, 1)
		e.wantErr(err, store.ErrNoCredit)
		// The first payment is too small to resume the campaigns. The second one resumes both, each in the state it
		// had.
		got, err := e.s.TopUp(e.Context(), t.ID, 30, "card")
		e.must(err)
		equal(e, "after a part", got, store.Balance{Reserved: 900, Owed: 10})
		is(a, schemas.StateSuspended, store.ReasonNoCredit)
		got, err = e.s.TopUp(e.Context(), t.ID, 15, "card")
		e.must(err)
		equal(e, "after the rest", got, store.Balance{Available: 5, Reserved: 900})
		is(a, sending, "")
		is(b, preparing, "")
		events, err := e.s.CampaignEvents(e.Context(), t.ID, a.ID())
		e.must(err)
		last := events[len(events)-1]
		equal(e, "who resumed it", fmt.Sprint(last.Trigger, last.Actor), fmt.Sprint(schemas.TriggerResume, schemas.ActorGuard))
		// A campaign that ends releases its reserved money, which pays the debt.
		take(305, store.Balance{Reserved: 900, Owed: 300})
		b = e.read(b)
		_, err = e.s.UpdateCampaign(e.Context(), t.ID, b.ID(), 0, user, move(schemas.StateAborted, schemas.TriggerAbort))
		e.must(err)
		b = e.read(b)
		_, err = e.s.Apply(e.Context(), schemas.Change{Tenant: t.ID, Campaign: b.ID(), Version: b.Version, Actor: schemas.ActorScheduler, Settled: true})
		e.must(err)
		balance(e, t, store.Balance{Reserved: 600})
		checkLedger(e, t)
	}},
	{"a campaign that costs more than its reservation and the balance is suspended (no_credit)", func(e *env) {
		t := e.limited("acme", 100)
		c := e.apply(e.confirm(e.campaign(t, "calls", e.list(t, "l", mobile(1))), 100), sending, schemas.TriggerDeal)
		report := func(soFar uint64) {
			e.Helper()
			c = e.read(c)
			_, err := e.s.Apply(e.Context(), schemas.Change{Tenant: t.ID, Campaign: c.ID(), Version: c.Version, Actor: schemas.ActorScheduler, CapturedSoFar: soFar})
			e.must(err)
			c = e.read(c)
		}
		report(130)
		equal(e, "state", fmt.Sprint(c.State, c.Reason), fmt.Sprint(schemas.StateSuspended, store.ReasonNoCredit))
		balance(e, t, store.Balance{Captured: 100})
		_, err := e.s.TopUp(e.Context(), t.ID, 50, "card")
		e.must(err)
		report(130)
		equal(e, "state after a top-up", fmt.Sprint(c.State, c.Reason), fmt.Sprint(sending, ""))
		balance(e, t, store.Balance{Available: 20, Captured: 130})
		checkLedger(e, t)
	}},
	{"random histories add up", func(e *env) {
		seed := uint64(time.Now().UnixNano())
		e.Logf("seed %d", seed)
		rnd := rand.New(rand.NewPCG(seed, 1))
		t := e.limited("acme", 1000)
		_, err := e.s.UpdateTenant(e.Context(), t.ID, 0, func(t *store.Tenant) error { t.MaxActive = 1000; return nil })
		e.must(err)
		l := e.list(t, "l", mobile(1))
		var open []store.Campaign
		for range 60 {
			switch n := rnd.IntN(5); {
			case n < 2 || len(open) == 0:
				c, err := confirm(e, e.s, e.campaign(t, "c", l), preparing, uint64(rnd.IntN(400)))
				if err == nil {
					open = append(open, c)
				} else if !errors.Is(err, store.ErrNoCredit) {
					e.Fatal(err)
				}
			case n == 2:
				_, err := e.s.TopUp(e.Context(), t.ID, uint64(1+rnd.IntN(100)), "")
				e.must(err)
			default:
				i := rnd.IntN(len(open))
				c := open[i]
				open = append(open[:i], open[i+1:]...)
				if n == 3 {
					_, err := e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, move(cancelled, schemas.TriggerCancel))
					e.must(err)
					continue
				}
				c = e.apply(e.apply(c, sending, schemas.TriggerDeal), completed, schemas.TriggerComplete)
				_, err := e.s.Apply(e.Context(), schemas.Change{
					Tenant: t.ID, Campaign: c.ID(), Version: c.Version, Actor: schemas.ActorScheduler, Settled: true, Captured: uint64(rnd.IntN(500)),
				})
				e.must(err)
			}
			checkLedger(e, t)
		}
	}},
	{"single sends reserve in slices", func(e *env) {
		t := e.limited("acme", 100)
		lease, err := e.s.LeaseSeqs(e.Context(), t.ID, start, 10)
		e.must(err)
		take := func(need, want, got uint64) {
			e.Helper()
			micros, err := e.s.LeaseCredit(e.Context(), t.ID, lease.CampaignID(), need, want)
			e.must(err)
			if micros != got {
				e.Errorf("need %d, want %d: got %d, want %d", need, want, micros, got)
			}
		}
		take(2, 10, 10) // at most an eighth of the free 100
		take(2, 50, 11) // an eighth of 90
		take(59, 70, 59)
		balance(e, t, store.Balance{Available: 20, Reserved: 80})
		_, err = e.s.LeaseCredit(e.Context(), t.ID, lease.CampaignID(), 21, 21)
		e.wantErr(err, store.ErrNoCredit)
		var credit *store.CreditError
		if !errors.As(err, &credit) || credit.Need != 21 || credit.Have != 20 {
			e.Errorf("got %v, want need 21, have 20", err)
		}
		e.must(e.s.ReturnCredit(e.Context(), t.ID, lease.CampaignID(), 50))
		balance(e, t, store.Balance{Available: 70, Reserved: 30})
		e.must(e.s.ReturnCredit(e.Context(), t.ID, lease.CampaignID(), 500)) // the store returns at most what is reserved
		balance(e, t, store.Balance{Available: 100})
		checkLedger(e, t)
	}},
	{"what cannot be spent any more is released as the campaign runs", func(e *env) {
		t := e.limited("acme", 1000)
		c, err := confirm(e, e.s, e.campaign(t, "c", e.list(t, "l", "+393331234567")), preparing, 750)
		e.must(err)
		c = e.apply(c, sending, schemas.TriggerDeal)
		change := func(soFar uint64, left *uint64) {
			e.Helper()
			v, err := e.s.Apply(e.Context(), schemas.Change{
				Tenant: t.ID, Campaign: c.ID(), Version: c.Version, Actor: schemas.ActorScheduler, CapturedSoFar: soFar, MaxLeft: left,
			})
			e.must(err)
			c.Version = v
		}
		change(100, nil)
		balance(e, t, store.Balance{Available: 250, Reserved: 650, Captured: 100})
		change(240, new(uint64(20)))
		balance(e, t, store.Balance{Available: 740, Reserved: 20, Captured: 240})
		change(240, new(uint64(500))) // a greater figure does not reserve more
		balance(e, t, store.Balance{Available: 740, Reserved: 20, Captured: 240})
		checkLedger(e, t)
	}},
	{"single sends at once reserve one after the other", func(e *env) {
		t := e.limited("acme", 1000)
		lease, err := e.s.LeaseSeqs(e.Context(), t.ID, start, 100)
		e.must(err)
		errs := make([]error, 20)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { _, errs[i] = e.s.LeaseCredit(e.Context(), t.ID, lease.CampaignID(), 10, 10) })
		}
		wg.Wait()
		e.must(errors.Join(errs...))
		balance(e, t, store.Balance{Available: 800, Reserved: 200})
		checkLedger(e, t)
	}},
}

func balance(e *env, t store.Tenant, want store.Balance) {
	e.Helper()
	got, err := e.s.Balance(e.Context(), t.ID)
	e.must(err)
	equal(e, "balance", got, want)
}

// checkLedger adds up all entries of a tenant with a credit limit and compares the sums with the balance.
func checkLedger(e *env, t store.Tenant) {
	e.Helper()
	sums := map[store.Account]int64{}
	for page := 0; ; page++ {
		entries, err := e.s.Ledger(e.Context(), t.ID, "", store.Page{Number: page, Limit: 1000})
		e.must(err)
		for _, entry := range entries {
			sums[entry.From] -= int64(entry.Micros)
			sums[entry.To] += int64(entry.Micros)
		}
		if len(entries) < 1000 {
			break
		}
	}
	b, err := e.s.Balance(e.Context(), t.ID)
	e.must(err)
	got := [3]int64{sums[store.AccountAvailable], sums[store.AccountReserved], sums[store.AccountCaptured]}
	want := [3]int64{int64(b.Available), int64(b.Reserved), int64(b.Captured)}
	if got != want {
		e.Errorf("sums of the ledger: got %v, want the balances %v", got, want)
	}
	if sums[store.AccountOutside]+got[0]+got[1]+got[2] != 0 {
		e.Errorf("accounts do not add up to 0: %v", sums)
	}
}
