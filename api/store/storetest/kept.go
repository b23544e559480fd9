package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"fanfare/api/importfile"
	"fanfare/api/store"
	"fanfare/schemas"
)

// Each of these tests compares the counts that the store keeps with counts of the rows.
var keptTests = []test{
	{"counts and tags after a random history", func(e *env) {
		t := e.limited("acme", 1_000_000)
		_, err := e.s.UpdateTenant(e.Context(), t.ID, 0, func(t *store.Tenant) error { t.MaxActive = 1000; return nil })
		e.must(err)
		l, testers := e.list(t, "l", mobile(1)), e.list(t, "testers")
		_, err = e.s.UpdateList(e.Context(), t.ID, testers.Number, 0, func(l *store.List) error { l.Test = true; return nil })
		e.must(err)
		_, err = e.s.LeaseSeqs(e.Context(), t.ID, start, 10) // a hidden campaign is not counted
		e.must(err)
		rnd := rand.New(rand.NewPCG(1, 2))
		var made []store.Campaign
		for range 150 {
			if len(made) == 0 || rnd.IntN(4) == 0 {
				made = append(made, e.campaign(t, fmt.Sprintf("c %d", len(made)), l))
				continue
			}
			i := rnd.IntN(len(made))
			c := e.read(made[i])
			var err error
			switch rnd.IntN(6) {
			case 0:
				tags := []string{"a", "B", "ç", "d e"}[:rnd.IntN(5)]
				_, err = e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, func(c *store.Campaign) (schemas.Trigger, error) { c.Tags = tags; return "", nil })
			case 1:
				_, err = e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, func(c *store.Campaign) (schemas.Trigger, error) {
					c.Lists = []uint64{testers.Number}
					c.Chain = []schemas.Channel{schemas.ChannelRCS}
					return schemas.TriggerEdit, nil
				})
			case 2:
				_, err = confirm(e, e.s, c, preparing, uint64(rnd.IntN(100)))
			case 3:
				_, err = e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, move(cancelled, schemas.TriggerCancel))
			case 4:
				_, err = e.s.RemoveCampaign(e.Context(), t.ID, c.ID(), 0, user)
			case 5:
				_, err = e.s.Apply(e.Context(), schemas.Change{
					Tenant: t.ID, Campaign: c.ID(), Version: c.Version, To: sending, Trigger: schemas.TriggerDeal, Actor: schemas.ActorScheduler, CapturedSoFar: uint64(rnd.IntN(50)),
				})
			}
			if err != nil && !errors.Is(err, schemas.ErrTransition) {
				e.Fatal(err)
			}
		}
		checkKept(e)
	}},
	{"members and contacts after a random history", func(e *env) {
		t, other := e.tenant("acme"), e.tenant("other")
		lists := []store.List{e.list(t, "a"), e.list(t, "b"), e.list(t, "c")}
		e.list(other, "theirs", mobile(1), mobile(2))
		rnd := rand.New(rand.NewPCG(3, 4))
		// A fixed line, a number of another country, and a number that receives no SMS.
		phones := []string{"+390612345678", "+447400123456", "+39899123456"}
		for i := range 20 {
			phones = append(phones, mobile(i))
		}
		for range 200 {
			l, phone := lists[rnd.IntN(len(lists))], phones[rnd.IntN(len(phones))]
			c, err := e.s.ContactByPhone(e.Context(), t.ID, phone)
			there := err == nil && c.Deleted.IsZero()
			err = nil
			switch rnd.IntN(8) {
			case 0, 1:
				e.load(t, l, importfile.CSV, "phone\n"+phone+"\n"+phones[rnd.IntN(len(phones))]+"\n")
			case 2:
				if _, err = e.s.CreateContact(e.Context(), store.Contact{Tenant: t.ID, Phone: phone}); errors.Is(err, store.ErrNameTaken) {
					err = nil
				}
			case 3:
				if there {
					_, err = e.s.AddToList(e.Context(), t.ID, l.Number, []uint64{c.Number, c.Number})
				}
			case 4:
				if there {
					_, err = e.s.RemoveFromList(e.Context(), t.ID, l.Number, []uint64{c.Number, 9_999_999})
				}
			case 5:
				if there {
					err = e.s.DeleteContact(e.Context(), t.ID, c.Number, 0)
				}
			case 6:
				if there {
					next := phones[rnd.IntN(len(phones))]
					_, err = e.s.UpdateContact(e.Context(), t.ID, c.Number, 0, func(c *store.Contact) error { c.Phone = next; return nil })
					if errors.Is(err, store.ErrNameTaken) {
						err = nil
					}
				}
			case 7:
				if rnd.IntN(2) == 0 {
					err = e.s.Suppress(e.Context(), t.ID, "api", phone, phones[rnd.IntN(len(phones))])
				} else {
					err = e.s.Lift(e.Context(), t.ID, "api", phone)
				}
			}
			if err != nil {
				e.Fatal(err)
			}
		}
		checkMembers(e)
		for _, l := range lists {
			got, err := e.s.CountAudience(e.Context(), t.ID, []uint64{l.Number}, sms)
			e.must(err)
			both, err := e.s.CountAudience(e.Context(), t.ID, []uint64{lists[0].Number, l.Number}, sms)
			e.must(err)
			if got.Total < 2 || got.Total != got.Eligible+got.Invalid+got.OptedOut || both.Total < got.Total {
				e.Errorf("%s: got %+v, and with another list %+v", l.ID(), got, both)
			}
		}
		e.must(e.s.DeleteList(e.Context(), t.ID, lists[2].Number, 0))
		e.clock.add(48 * time.Hour)
		e.must(e.s.Collect(e.Context()))
		checkMembers(e)
	}},
	{"members that join while numbers opt out are all counted", func(e *env) {
		t := e.tenant("acme")
		l, second := e.list(t, "l"), e.open()
		var numbers []uint64
		for i := range 40 {
			c, err := e.s.CreateContact(e.Context(), store.Contact{Tenant: t.ID, Phone: mobile(i)})
			e.must(err)
			numbers = append(numbers, c.Number)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for _, n := range numbers {
				if _, err := e.s.AddToList(e.Context(), t.ID, l.Number, []uint64{n}); err != nil {
					e.Error(err)
				}
			}
		})
		wg.Go(func() {
			for i := range 40 {
				if err := second.Suppress(e.Context(), t.ID, "api", mobile(i)); err != nil {
					e.Error(err)
				}
			}
		})
		wg.Wait()
		checkMembers(e)
	}},
	{"campaigns at once are all counted", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(1))
		other := e.open()
		var wg sync.WaitGroup
		for i := range 8 {
			s := []*store.Store{e.s, other}[i%2]
			wg.Go(func() {
				for range 5 {
					c := store.Campaign{Tenant: t.ID, State: configured, Spec: store.Spec{Name: "c", Chain: []schemas.Channel{sms}, Body: "Hello", Lists: []uint64{l.Number}}}
					c, err := s.CreateCampaign(context.WithoutCancel(e.Context()), c, user)
					if err == nil {
						_, err = s.UpdateCampaign(context.WithoutCancel(e.Context()), t.ID, c.ID(), 0, user, move(cancelled, schemas.TriggerCancel))
					}
					if err != nil {
						e.Error(err)
					}
				}
			})
		}
		wg.Wait()
		checkKept(e)
	}},
	{"figures of campaigns that have ended", func(e *env) {
		t := e.limited("acme", 1000)
		l := e.list(t, "l", mobile(1))
		var numbers []uint64
		for i := range 3 {
			c := e.confirm(e.campaign(t, fmt.Sprint(i), l), 0)
			c = e.apply(e.apply(c, sending, schemas.TriggerDeal), completed, schemas.TriggerComplete)
			_, err := e.s.Apply(e.Context(), schemas.Change{Tenant: t.ID, Campaign: c.ID(), Version: c.Version, Actor: schemas.ActorScheduler, Settled: true})
			e.must(err)
			numbers = append(numbers, c.Number)
			e.clock.add(time.Hour)
		}
		e.campaign(t, "a draft has none", l)
		unkept := func(want ...uint64) {
			e.Helper()
			rows, err := e.s.Unkept(e.Context(), t.ID, 0, 10)
			e.must(err)
			var got []uint64
			for _, r := range rows {
				got = append(got, r.Number)
			}
			if !slices.Equal(got, want) {
				e.Errorf("unkept: got %v, want %v", got, want)
			}
		}
		sum := func(from time.Time, want store.KeptFigures) {
			e.Helper()
			got, err := e.s.SumFigures(e.Context(), t.ID, from, time.Time{})
			e.must(err)
			equal(e, "sum", got, want)
		}
		unkept(numbers...)
		e.must(e.s.KeepFigures(e.Context(), t.ID, map[uint64]store.KeptFigures{numbers[0]: {Total: 10, Delivered: 7, Undelivered: 3}, numbers[1]: {Total: 5, Awaiting: 5}}))
		unkept(numbers[2])
		sum(time.Time{}, store.KeptFigures{Total: 15, Delivered: 7, Undelivered: 3, Awaiting: 5})
		sum(start.Add(30*time.Minute), store.KeptFigures{Total: 5, Awaiting: 5})
		// A late receipt changes the figures of a campaign.
		e.must(e.s.KeepFigures(e.Context(), t.ID, map[uint64]store.KeptFigures{numbers[1]: {Total: 5, Delivered: 5}}))
		sending := map[uint64]*store.KeptFigures{}
		e.must(e.s.EachSending(e.Context(), t.ID, time.Time{}, time.Time{}, func(channel schemas.Channel, c *store.Sending) {
			if channel != schemas.ChannelSMS {
				e.Errorf("campaign %d: channel %v, want sms", c.Number, channel)
			}
			sending[c.Number] = c.Figures
		}))
		if f := sending[numbers[1]]; f == nil || f.Delivered != 5 || sending[numbers[2]] != nil {
			e.Errorf("confirmed campaigns with their figures: got %v, want those kept and nothing of the one that is not", sending)
		}
		sum(time.Time{}, store.KeptFigures{Total: 15, Delivered: 12, Undelivered: 3})
		_, err := e.s.RemoveCampaign(e.Context(), t.ID, schemas.CampaignID(numbers[0]), 0, user)
		e.must(err)
		sum(time.Time{}, store.KeptFigures{Total: 5, Delivered: 5})
		// These figures were read before the campaign was removed.
		e.must(e.s.KeepFigures(e.Context(), t.ID, map[uint64]store.KeptFigures{numbers[0]: {Total: 10}}))
		sum(time.Time{}, store.KeptFigures{Total: 5, Delivered: 5})
		// The store keeps sums of whole days. It adds up the campaigns of a part of a day at either end.
		e.must(e.s.KeepFigures(e.Context(), t.ID, map[uint64]store.KeptFigures{numbers[2]: {Total: 7}}))
		for _, c := range []struct {
			from, to time.Duration // relative to start, which is noon
			want     uint64
		}{{-12 * time.Hour, 12 * time.Hour, 12}, {-36 * time.Hour, 90 * time.Minute, 5}, {30 * time.Minute, 36 * time.Hour, 12}, {90 * time.Minute, 3 * time.Hour, 7}, {12 * time.Hour, 36 * time.Hour, 0}} {
			got, err := e.s.SumFigures(e.Context(), t.ID, start.Add(c.from), start.Add(c.to))
			e.must(err)
			if got.Total != c.want {
				e.Errorf("%v to %v: got %d, want %d", c.from, c.to, got.Total, c.want)
			}
		}
	}},
}

// checkKept compares the kept counts of campaigns with counts of the rows.
func checkKept(e *env) {
	e.Helper()
	counted := e.rows(`SELECT tenant, state, channel, test, removed, COUNT(*), CAST(SUM(reserved) AS BIGINT), CAST(SUM(captured) AS BIGINT)
		FROM campaigns WHERE NOT hidden GROUP BY tenant, state, channel, test, removed ORDER BY tenant, state, channel, test, removed`)
	kept := e.rows("SELECT * FROM campaign_counts WHERE n > 0 ORDER BY tenant, state, channel, test, removed")
	equal(e, "counts", strings.Join(kept, "\n"), strings.Join(counted, "\n"))
	var tags []string
	for _, row := range e.rows("SELECT tenant, tags, number FROM campaigns WHERE tags <> '' AND NOT removed ORDER BY number") {
		f := strings.SplitN(row, " ", 2)
		text, number := f[1][:strings.LastIndexByte(f[1], ' ')], f[1][strings.LastIndexByte(f[1], ' ')+1:]
		for tag := range strings.SplitSeq(strings.Trim(text, "|"), "|") {
			tags = append(tags, f[0]+" "+tag+" "+number)
		}
	}
	slices.Sort(tags)
	got := e.rows("SELECT tenant, tag, number FROM campaign_tags")
	slices.Sort(got)
	equal(e, "tags", strings.Join(got, "\n"), strings.Join(tags, "\n"))
}

// checkMembers compares the kept counts of members and contacts with counts of the rows.
func checkMembers(e *env) {
	e.Helper()
	counted := e.rows(`SELECT m.tenant, m.list, c.country, c.class, c.valid, COALESCE(s.channels, 0), c.opt_in_ms > 0, COUNT(*)
		FROM list_members m JOIN contacts c ON c.number = m.contact AND c.tenant = m.tenant
		LEFT JOIN suppressions s ON s.tenant = m.tenant AND s.number_key = c.number_key
		GROUP BY m.tenant, m.list, c.country, c.class, c.valid, COALESCE(s.channels, 0), c.opt_in_ms > 0`)
	kept := e.rows("SELECT tenant, list, country, class, valid, opted_out, opted_in, n FROM list_counts WHERE n > 0")
	slices.Sort(counted)
	slices.Sort(kept)
	equal(e, "counts of members", strings.Join(kept, "\n"), strings.Join(counted, "\n"))
	counted = e.rows("SELECT tenant, COUNT(*), CAST(SUM(CASE WHEN deleted_ms > 0 THEN 1 ELSE 0 END) AS BIGINT) FROM contacts GROUP BY tenant")
	kept = e.rows("SELECT tenant, n, deleted FROM contact_counts WHERE n > 0")
	slices.Sort(counted)
	slices.Sort(kept)
	equal(e, "counts of contacts", strings.Join(kept, "\n"), strings.Join(counted, "\n"))
	members := e.rows("SELECT tenant, number, members FROM contact_lists WHERE members > 0")
	actual := e.rows("SELECT tenant, list, COUNT(*) FROM list_members GROUP BY tenant, list")
	slices.Sort(members)
	slices.Sort(actual)
	equal(e, "members", strings.Join(members, "\n"), strings.Join(actual, "\n"))
}

// rows returns the result of a query, each row as one string.
func (e *env) rows(query string) (out []string) {
	e.Helper()
	rows, err := e.sql.QueryContext(e.Context(), query)
	e.must(err)
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	e.must(err)
	for rows.Next() {
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(any)
		}
		e.must(rows.Scan(values...))
		var line []string
		for _, v := range values {
			s := fmt.Sprint(*v.(*any))
			switch s { // SQLite returns a BOOLEAN as a number
			case "true":
				s = "1"
			case "false":
				s = "0"
			}
			line = append(line, s)
		}
		out = append(out, strings.Join(line, " "))
	}
	e.must(rows.Err())
	return out
}
