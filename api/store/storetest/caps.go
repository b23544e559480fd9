package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/audience"
)

// policy sets the caps of a tenant.
func (e *env) policy(t store.Tenant, caps store.PolicyCaps) {
	e.Helper()
	doc, err := json.Marshal(caps)
	e.must(err)
	row, err := e.s.FindResource(e.Context(), t.ID, store.KindPolicy, store.PolicyName)
	if err == nil {
		_, err = e.s.ChangeResource(e.Context(), t.ID, store.KindPolicy, row.Number, 0, func(r *store.Resource) error { r.Doc = doc; return nil })
	} else {
		_, err = e.s.CreateResource(e.Context(), store.Resource{Tenant: t.ID, Kind: store.KindPolicy, Name: store.PolicyName, Status: "active", Doc: doc})
	}
	e.must(err)
}

// audienceOf confirms and freezes a campaign, checks that the count made before equals the frozen audience, and returns
// the flags.
func (e *env) audienceOf(c store.Campaign) (store.Campaign, string) {
	e.Helper()
	count, err := e.s.CountCampaign(e.Context(), &c)
	e.must(err)
	c, f := e.freeze(e.confirm(c, 0))
	var got store.AudienceCount
	var flags strings.Builder
	for _, entry := range f.entries {
		fmt.Fprint(&flags, entry.Flag)
		switch entry.Flag {
		case audience.OK:
			got.Eligible++
		case audience.Capped:
			got.Capped++
		case audience.OverQuota:
			got.OverQuota++
		default:
		}
	}
	equal(e, "eligible, capped, over quota of "+c.Name, [3]uint32{count.Eligible, count.Capped, count.OverQuota}, [3]uint32{got.Eligible, got.Capped, got.OverQuota})
	return c, flags.String()
}

// X9: caps per recipient and per country.
var capTests = []test{
	{"frequency cap of a tenant", func(e *env) {
		t := e.tenant("acme")
		e.policy(t, store.PolicyCaps{Frequency: &store.FrequencyCap{Max: 2, Days: 7}})
		both, one := e.list(t, "both", mobile(1), mobile(2)), e.list(t, "one", mobile(1))
		next := func(name string, lists ...store.List) (store.Campaign, string) {
			e.Helper()
			return e.audienceOf(e.campaign(t, name, lists...))
		}
		_, flags := next("1", one)
		equal(e, "first", flags, "0")
		second, flags := next("2", both)
		equal(e, "second", flags, "00")
		_, flags = next("3", both)
		equal(e, "third: mobile 1 has had two", flags, fmt.Sprintf("%d0", audience.Capped))
		e.clock.add(6 * 24 * time.Hour)
		_, flags = next("4", both)
		equal(e, "both have had two within the week", flags, fmt.Sprintf("%d%d", audience.Capped, audience.Capped))
		// A cancelled campaign has sent to no recipient.
		_, err := e.s.UpdateCampaign(e.Context(), t.ID, second.ID(), 0, user, move(cancelled, schemas.TriggerCancel))
		e.must(err)
		fifth, flags := next("5", both)
		equal(e, "each has one left", flags, "00")
		_, err = e.s.UpdateCampaign(e.Context(), t.ID, fifth.ID(), 0, user, move(cancelled, schemas.TriggerCancel))
		e.must(err)
		e.clock.add(7 * 24 * time.Hour)
		_, flags = next("6", both)
		equal(e, "a week later", flags, "00")
		// A test campaign sends to no recipient, so it does not count. Another tenant has its own count.
		other := e.tenant("other")
		_, flags = e.audienceOf(e.campaign(other, "theirs", e.list(other, "l", mobile(1))))
		equal(e, "the other tenant's", flags, "0")
	}},
	{"frequency cap of a campaign", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(1), mobile(2))
		e.audienceOf(e.campaign(t, "1", e.list(t, "one", mobile(2))))
		c := e.campaign(t, "2", l)
		c, err := e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, func(c *store.Campaign) (schemas.Trigger, error) {
			c.FrequencyCap = &store.FrequencyCap{Max: 1, Days: 1}
			return schemas.TriggerEdit, nil
		})
		e.must(err)
		_, flags := e.audienceOf(c)
		equal(e, "who had one today", flags, fmt.Sprintf("0%d", audience.Capped))
		_, flags = e.audienceOf(e.campaign(t, "3", l))
		equal(e, "without a cap", flags, "00")
	}},
	{"a cap holds among campaigns that are frozen at once", func(e *env) {
		t := e.tenant("acme")
		_, err := e.s.UpdateTenant(e.Context(), t.ID, 0, func(t *store.Tenant) error { t.MaxActive = 100; return nil })
		e.must(err)
		e.policy(t, store.PolicyCaps{Frequency: &store.FrequencyCap{Max: 3, Days: 1}})
		l := e.list(t, "l", mobile(1))
		stores := []*store.Store{e.s, e.open()}
		var wg sync.WaitGroup
		confirmed := make([]store.Campaign, 8)
		for i := range confirmed {
			confirmed[i] = e.confirm(e.campaign(t, fmt.Sprint("c", i), l), 0)
		}
		for i, c := range confirmed {
			wg.Go(func() {
				for range 20 { // the scheduler tries again after a conflict
					if err := stores[i%2].Freeze(e.Context(), t.ID, c.ID(), c.Version); err == nil {
						return
					} else if !errors.Is(err, schemas.ErrConflict) {
						e.Errorf("freeze: %v", err)
						return
					}
				}
				e.Errorf("%s was never frozen", c.ID())
			})
		}
		wg.Wait()
		sent := 0
		for _, c := range confirmed {
			for _, entry := range e.thaw(e.read(c)).entries {
				if entry.Flag == audience.OK {
					sent++
				}
			}
		}
		equal(e, "campaigns that send to the person", sent, 3)
	}},
	{"caps of countries for a day and a month", func(e *env) {
		t := e.tenant("acme") // time zone Europe/Rome; the clock starts on 2 January at noon
		e.policy(t, store.PolicyCaps{Countries: []store.CountryCap{{Country: "IT", Max: 3}, {Country: "IT", Max: 5, Monthly: true}, {Country: "FR", Max: 0}}})
		french := "+33612345678"
		l := e.list(t, "l", mobile(1), mobile(2), french)
		two := e.list(t, "two", mobile(3), mobile(4))
		const over = audience.OverQuota
		_, flags := e.audienceOf(e.campaign(t, "1", l))
		equal(e, "first", flags, sorted(flags, 2, 1))
		_, flags = e.audienceOf(e.campaign(t, "2", two))
		equal(e, "the third of the day is the last", flags, fmt.Sprintf("0%d", over))
		e.clock.add(24 * time.Hour)
		_, flags = e.audienceOf(e.campaign(t, "3", l))
		equal(e, "two more in the month", flags, sorted(flags, 2, 1))
		_, flags = e.audienceOf(e.campaign(t, "4", two))
		equal(e, "none left in the month", flags, fmt.Sprintf("%d%d", over, over))
		e.clock.add(30 * 24 * time.Hour)
		_, flags = e.audienceOf(e.campaign(t, "5", two, l))
		equal(e, "in February", flags, sorted(flags, 3, 2))
	}},
}

// sorted returns flags if ok recipients are sent to and over recipients are over quota. Otherwise it returns a text
// that says what differs. The order is not checked: a freeze sorts recipients by time zone.
func sorted(flags string, ok, over int) string {
	for _, c := range flags {
		switch audience.Flag(c - '0') {
		case audience.OK:
			ok--
		case audience.OverQuota:
			over--
		default:
			return "only sent to and over quota"
		}
	}
	if ok != 0 || over != 0 {
		return fmt.Sprintf("%d more sent to and %d more over quota", ok, over)
	}
	return flags
}
