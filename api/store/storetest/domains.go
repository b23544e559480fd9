package storetest

import (
	"fmt"
	"math"
	"sync"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// domain creates a domain of links; with tenant "" it belongs to the installation.
func (e *env) domain(tenant, host, doc string) store.Resource {
	e.Helper()
	r, err := e.s.CreateResource(e.Context(), store.Resource{Tenant: tenant, Kind: store.KindDomain, Name: host, Status: store.DomainActive, Doc: []byte(doc)})
	e.must(err)
	return r
}

func (e *env) poolOf(tenant string) map[string]store.Domain {
	e.Helper()
	pool, err := e.s.Domains(e.Context(), tenant)
	e.must(err)
	out := map[string]store.Domain{}
	for _, d := range pool {
		out[d.Host] = d
	}
	return out
}

// linked returns a campaign in state sending, to a list, with links on domains.
func (e *env) linked(t store.Tenant, name string, l store.List, named ...uint64) store.Campaign {
	e.Helper()
	c := store.Campaign{Tenant: t.ID, State: configured, Spec: store.Spec{
		Name: name, Chain: []schemas.Channel{sms}, Body: "{{link:https://shop.example}}", Lists: []uint64{l.Number}, Domains: named,
	}}
	c, err := e.s.CreateCampaign(e.Context(), c, user)
	e.must(err)
	c, err = e.s.Confirm(e.Context(), c.Tenant, c.ID(), c.Version, user, func(conf store.Confirmation, c *store.Campaign) (uint64, error) {
		c.State, c.LinkBase = preparing, "https://twelve.letters/"
		c.LinkTable = &store.LinkTable{ShortDomains: true, Links: []store.Link{{Number: 1, ID: "lnk_1", URL: "https://shop.example"}}}
		c.Legs = []store.Leg{{Channel: sms, Route: conf.Tenant.DefaultRoute, Sender: "S", MaxHandovers: 3}}
		return 0, nil
	})
	e.must(err)
	c, _ = e.freeze(c)
	return e.apply(c, sending, schemas.TriggerDeal)
}

func (e *env) allot(s *store.Store, c store.Campaign, want uint32) []*fanfarev1.DomainBlock {
	e.Helper()
	index, err := e.s.Blobs(e.Context(), c.FreezeID)
	e.must(err)
	blocks, err := s.AllotDomains(e.Context(), schemas.DomainRequest{
		Tenant: c.Tenant, Campaign: c.ID(), Number: c.Number, FreezeID: c.FreezeID, Blob: index[0].Blob, First: index[0].First, Want: want,
	})
	e.must(err)
	return blocks
}

// reserved counts the recipients of each host with the same function as the expander.
func reserved(e *env, blocks []*fanfarev1.DomainBlock) map[string]int {
	e.Helper()
	out := map[string]int{}
	next := uint32(0)
	for _, b := range blocks {
		if b.GetFirstSeq() != next || b.GetEndSeq() < b.GetFirstSeq() {
			e.Errorf("a block has [%d, %d), want it to begin at %d", b.GetFirstSeq(), b.GetEndSeq(), next)
		}
		next = b.GetEndSeq()
		for rank := range b.GetRecipients() {
			out[schemas.PickDomain(b.GetShort(), rank, b.GetRecipients()).GetHost()]++
		}
	}
	return out
}

func phonesOf(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("+39333%07d", i))
	}
	return out
}

var domainTests = []test{
	{"a host is one domain's, and the pool of a tenant is its own and the shared ones (R39)", func(e *env) {
		a, b := e.tenant("a"), e.tenant("b")
		mine := e.domain(a.ID, "a.example", `{"Kind":"short","Weight":1,"Total":5}`)
		e.domain("", "all.example", `{"Kind":"opt_out","Weight":2,"Daily":7}`)
		_, err := e.s.CreateResource(e.Context(), store.Resource{Tenant: b.ID, Kind: store.KindDomain, Name: "a.example", Status: store.DomainActive, Doc: []byte(`{"Kind":"short","Weight":1}`)})
		e.wantErr(err, store.ErrNameTaken)
		equal(e, "pool of a", len(e.poolOf(a.ID)), 2)
		equal(e, "pool of b", len(e.poolOf(b.ID)), 1)
		d := e.poolOf(b.ID)["all.example"]
		equal(e, "shared", fmt.Sprint(d.Tenant, d.Kind, d.Weight, d.Room(), d.Health, d.Usable()), fmt.Sprint("", schemas.DomainOptOut, 2, 7, store.DomainUnchecked, true))
		d.Health, d.Reason = store.DomainBlocked, "listed"
		e.must(e.s.DomainChecked(e.Context(), &d))
		equal(e, "blocked is usable", func() bool { d := e.poolOf(b.ID)["all.example"]; return d.Usable() }(), false)
		if row, ok := e.unpublished()[schemas.DomainKey("a.example")]; !ok || row.Value == nil {
			e.Errorf("got no record of the domain for the edge")
		}
		e.publish()
		_, err = e.s.ChangeResource(e.Context(), a.ID, store.KindDomain, mine.Number, 0, func(r *store.Resource) error { r.Deleted = start; return nil })
		e.must(err)
		if row, ok := e.unpublished()[schemas.DomainKey("a.example")]; !ok || row.Value != nil || row.Version != 2 {
			e.Errorf("got %+v, want a tombstone of version 2", row)
		}
		e.domain(b.ID, "a.example", `{"Kind":"short","Weight":1}`)
		if row := e.unpublished()[schemas.DomainKey("a.example")]; row.Value == nil || row.Version != 3 {
			e.Errorf("got %+v, want a record of version 3", row)
		}
	}},
	{"limits are exact over many that ask, and a recipient keeps its domain (R40)", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", phonesOf(120)...)
		e.domain(t.ID, "one.example", `{"Kind":"short","Weight":1,"Total":100}`)
		e.domain("", "two.example", `{"Kind":"short","Weight":1,"Daily":110}`)
		e.domain(t.ID, "much.too.long.example", `{"Kind":"short","Weight":1}`) // longer than the domain with which the texts were measured
		e.domain(t.ID, "no.example", `{"Kind":"opt_out","Weight":1}`)
		var cs []store.Campaign
		for i := range 3 {
			cs = append(cs, e.linked(t, fmt.Sprint(i), l))
		}
		other := e.open()
		var group sync.WaitGroup
		for i := range 12 {
			group.Go(func() {
				s := e.s
				if i%2 == 0 {
					s = other
				}
				for range 8 {
					e.allot(s, cs[i%3], 7)
				}
			})
		}
		group.Wait()
		total := map[string]int{}
		first := map[uint64]string{}
		for _, c := range cs {
			blocks := e.allot(e.s, c, 50)
			for host, n := range reserved(e, blocks) {
				total[host] += n
			}
			first[c.Number] = fmt.Sprint(blocks)
		}
		equal(e, "reserved", fmt.Sprint(total), fmt.Sprint(map[string]int{"one.example": 100, "two.example": 110}))
		pool := e.poolOf(t.ID)
		one, two := pool["one.example"], pool["two.example"]
		equal(e, "counted", fmt.Sprint(one.Used, one.Room(), two.Today, two.Room()), "100 0 110 0")
		spent := false
		for _, c := range cs {
			if again := e.allot(other, c, 50); fmt.Sprint(again) != first[c.Number] {
				e.Errorf("%s: got other domains the second time", c.ID())
			}
			spent = spent || fmt.Sprint(store.SpentDomains(&c, []store.Domain{one, two})) == "[short]"
		}
		equal(e, "spent", spent, true)
		e.clock.add(24 * time.Hour) // the daily limit starts again; the total limit does not
		for _, c := range cs {
			for host, n := range reserved(e, e.allot(e.s, c, 5000)) {
				total[host] -= n
			}
		}
		two = e.poolOf(t.ID)["two.example"]
		equal(e, "the next day", fmt.Sprint(total["one.example"], total["two.example"], two.Today), "0 -110 110")
	}},
	{"named domains, weights, and recipients that may not be sent to (R39, R40)", func(e *env) {
		t := e.tenant("acme")
		phones := phonesOf(200)
		l := e.list(t, "l", phones...)
		e.must(e.s.Suppress(e.Context(), t.ID, "api", phones[3], phones[50], phones[199]))
		light := e.domain(t.ID, "light.example", `{"Kind":"short","Weight":1}`)
		heavy := e.domain(t.ID, "heavy.example", `{"Kind":"short","Weight":3}`)
		e.domain(t.ID, "other.example", `{"Kind":"short","Weight":100}`)
		c := e.linked(t, "c", l, light.Number, heavy.Number)
		got := reserved(e, e.allot(e.s, c, 5000))
		n := got["light.example"] + got["heavy.example"]
		if n != 197 || got["other.example"] != 0 || math.Abs(float64(got["heavy.example"])-float64(n)*3/4) > 8 {
			e.Errorf("got %v, want 197 recipients by weight 1 to 3 on the named domains", got)
		}
		use, err := e.s.DomainUse(e.Context(), t.ID, c.Number)
		e.must(err)
		equal(e, "use", fmt.Sprint(use[light.Number], use[heavy.Number]), fmt.Sprint(got["light.example"], got["heavy.example"]))
		uses, err := e.s.DomainUses(e.Context(), light.Number, start)
		e.must(err)
		equal(e, "uses", uses, 1)
		// A campaign that names a domain and has not started keeps the domain from being deleted, because it would
		// otherwise use all domains.
		waiting := e.domain(t.ID, "waiting.example", `{"Kind":"short","Weight":1}`)
		e.linked(t, "d", l, waiting.Number)
		uses, err = e.s.DomainUses(e.Context(), waiting.Number, start)
		e.must(err)
		equal(e, "uses of one that is only named", uses, 1)
	}},
	{"what was reserved for recipients without a message is given back once (R40)", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", phonesOf(60)...)
		e.domain(t.ID, "one.example", `{"Kind":"short","Weight":1,"Total":1000,"Daily":1000}`)
		e.domain(t.ID, "two.example", `{"Kind":"short","Weight":1,"Total":1000}`)
		c := e.linked(t, "c", l)
		e.allot(e.s, c, 20)
		blocks := e.allot(e.s, c, 20)
		if len(blocks) != 2 {
			e.Fatalf("got %d blocks, want 2", len(blocks))
		}
		raw, err := e.s.Blob(e.Context(), c.FreezeID, 0)
		e.must(err)
		r, err := audience.NewReader(raw)
		e.must(err)
		equal(e, "recipients", r.Len(), 60)
		want := map[string]uint64{}
		for i, b := range blocks {
			for rank := range b.GetRecipients() {
				if i == 0 || rank < 5 { // only five recipients of the second block were dealt
					want[schemas.PickDomain(b.GetShort(), rank, b.GetRecipients()).GetHost()]++
				}
			}
		}
		c, err = e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, func(c *store.Campaign) (schemas.Trigger, error) {
			c.State = aborted
			return schemas.TriggerAbort, nil
		})
		e.must(err)
		for range 2 {
			_, err = e.s.Apply(e.Context(), schemas.Change{
				Tenant: t.ID, Campaign: c.ID(), Version: c.Version, To: aborted, Actor: schemas.ActorScheduler, Settled: true, Unsent: []schemas.SeqRange{{First: 25, End: 60}},
			})
			e.must(err)
		}
		pool := e.poolOf(t.ID)
		one, two := pool["one.example"], pool["two.example"]
		equal(e, "left", fmt.Sprint(one.Used, one.Today, two.Used), fmt.Sprint(want["one.example"], want["one.example"], want["two.example"]))
		equal(e, "in all", one.Used+two.Used, 25)
	}},
	{"campaigns that wait for a domain are found (R77)", func(e *env) {
		t := e.tenant("acme")
		c := e.linked(t, "c", e.list(t, "l", phonesOf(3)...))
		equal(e, "blocks without a domain", len(e.allot(e.s, c, 10)), 0)
		_, err := e.s.Apply(e.Context(), schemas.Change{
			Tenant: t.ID, Campaign: c.ID(), Version: c.Version, To: schemas.StateSuspended, Trigger: schemas.TriggerSuspend, Actor: schemas.ActorGuard, Reason: schemas.ReasonNoDomains,
		})
		e.must(err)
		waiting, err := e.s.CampaignsWithoutDomains(e.Context())
		e.must(err)
		equal(e, "waiting", len(waiting), 1)
		equal(e, "which", waiting[0].ID()+" "+waiting[0].Reason, c.ID()+" no_domains")
		equal(e, "while it is suspended", len(e.allot(e.s, c, 10)), 0)
	}},
}
