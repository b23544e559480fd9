package storetest

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
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
		t := e.tenant("acme") // unlimited
		e.confirm(e.campaign(t, "c", e.list(t, "l", mobile(1))), 1000)
		e.wantErr(e.s.SetCredit(e.Context(), t.ID, 7, false), store.ErrReserved)
		balance(e, t, store.Balance{Unlimited: true, Reserved: 1000})
		e.must(e.s.SetCredit(e.Context(), t.ID, 0, true))
	}},
	{"price of a channel", func(e *env) {
		t := e.tenant("acme")
		e.must(e.s.SetPrice(e.Context(), t.ID, sms, 42))
		p, err := e.s.Prices(e.Context(), t.ID)
		e.must(err)
		equal(e, "price", p[sms], 42)
		e.wantErr(e.s.SetPrice(e.Context(), t.ID, 0, 1), store.ErrInvalid)
		e.must(e.s.SetPrice(e.Context(), t.ID, fanfarev1.Channel_CHANNEL_RCS, schemas.MaxPriceMicros))
		e.wantErr(e.s.SetPrice(e.Context(), t.ID, sms, schemas.MaxPriceMicros+1), store.ErrInvalid) // no event could say it
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
		captureTo(100) // a running total, not an addition
		captureTo(90)  // an older figure
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
	{"single sends reserve as they go", func(e *env) {
		t := e.limited("acme", 100)
		lease, err := e.s.LeaseSeqs(e.Context(), t.ID, start, 10)
		e.must(err)
		e.must(e.s.Reserve(e.Context(), t.ID, lease.CampaignID(), 80))
		balance(e, t, store.Balance{Available: 20, Reserved: 80})
		err = e.s.Reserve(e.Context(), t.ID, lease.CampaignID(), 21)
		e.wantErr(err, store.ErrNoCredit)
		var credit *store.CreditError
		if !errors.As(err, &credit) || credit.Need != 21 || credit.Have != 20 {
			e.Errorf("got %v, want need 21, have 20", err)
		}
		checkLedger(e, t)
	}},
	{"single sends at once reserve one after the other", func(e *env) {
		t := e.limited("acme", 1000)
		lease, err := e.s.LeaseSeqs(e.Context(), t.ID, start, 100)
		e.must(err)
		errs := make([]error, 20)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = e.s.Reserve(e.Context(), t.ID, lease.CampaignID(), 10) })
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

// checkLedger adds up all entries and compares with the balances, of a tenant whose credit is limited.
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
