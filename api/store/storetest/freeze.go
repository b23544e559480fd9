package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"fanfare/api/importfile"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// frozen is an audience as the scheduler and the expander read it.
type frozen struct {
	index   []audience.Index
	entries []audience.Entry // by seq
}

// thaw reads an audience and checks its shape: the blobs leave no gap, each blob has one time zone, blobs of one zone
// follow each other, and no blob is too large.
func (e *env) thaw(c store.Campaign) frozen {
	e.Helper()
	var f frozen
	var err error
	f.index, err = e.s.Blobs(e.Context(), c.FreezeID)
	e.must(err)
	zones := map[string]bool{}
	for i, ix := range f.index {
		if ix.Blob != uint32(i) || ix.First != uint32(len(f.entries)) || ix.Count < 1 || ix.Count > audience.BlobSize {
			e.Errorf("got index row %+v after %d entries", ix, len(f.entries))
		}
		if zones[ix.Zone] && f.index[i-1].Zone != ix.Zone {
			e.Errorf("zone %s comes twice", ix.Zone)
		}
		zones[ix.Zone] = true
		data, err := e.s.Blob(e.Context(), c.FreezeID, ix.Blob)
		e.must(err)
		r, err := audience.NewReader(data)
		e.must(err)
		if r.Len() != int(ix.Count) {
			e.Errorf("blob %d has %d entries, want %d", i, r.Len(), ix.Count)
		}
		var entry audience.Entry
		for r.Next(&entry) {
			if entry.Zone != ix.Zone {
				e.Errorf("blob %d of %s holds %s", i, ix.Zone, entry.Zone)
			}
			kept := entry
			kept.Attrs = append([]audience.Attr(nil), entry.Attrs...)
			f.entries = append(f.entries, kept)
		}
		e.must(r.Err())
	}
	if c.Total != uint32(len(f.entries)) {
		e.Errorf("got total %d, want %d entries", c.Total, len(f.entries))
	}
	return f
}

// freeze freezes a campaign and reads it.
func (e *env) freeze(c store.Campaign) (store.Campaign, frozen) {
	e.Helper()
	e.must(e.s.Freeze(e.Context(), c.Tenant, c.ID(), c.Version))
	c = e.read(c)
	return c, e.thaw(c)
}

func (f frozen) flags() string {
	var b strings.Builder
	for _, e := range f.entries {
		fmt.Fprintf(&b, "%s:%d ", e.To, e.Flag)
	}
	return strings.TrimSpace(b.String())
}

// parts counts the blobs of a freeze, in any state.
func (e *env) parts(id string) (n int) {
	e.Helper()
	e.must(e.sql.QueryRowContext(e.Context(), fmt.Sprintf("SELECT COUNT(*) FROM freeze_blobs WHERE freeze_id = '%s'", id)).Scan(&n))
	var filters int
	e.must(e.sql.QueryRowContext(e.Context(), fmt.Sprintf("SELECT COUNT(*) FROM freeze_filters WHERE freeze_id = '%s'", id)).Scan(&filters))
	if filters > n {
		e.Errorf("got %d filters of %d blobs", filters, n)
	}
	return n
}

const (
	badNumber = "+12005550123"
	fixedLine = "+390645201234"
)

var freezeTests = []test{
	{"who is in it, in which order, and who is sent to (C27, C30)", func(e *env) {
		t := e.tenant("acme")
		a := e.list(t, "a", mobile(2), mobile(1), badNumber, fixedLine)
		b := e.list(t, "b", mobile(3), mobile(1), mobile(2), badNumber, mobile(4))
		e.must(e.s.Suppress(e.Context(), t.ID, "api", mobile(3), mobile(1)))
		e.must(e.s.Lift(e.Context(), t.ID, "api", mobile(1)))
		e.must(e.s.Suppress(e.Context(), e.tenant("other").ID, "api", mobile(2))) // another tenant's opt-out
		count, err := e.s.CountAudience(e.Context(), t.ID, []uint64{a.Number, b.Number}, sms)
		e.must(err)
		made := e.confirm(e.campaign(t, "c", a, b), 0)
		size, err := e.s.AudienceSize(e.Context(), t.ID, made.ID())
		e.must(err)
		equal(e, "size of the audience", size, 9)
		c, f := e.freeze(made)
		want := fmt.Sprintf("%s:0 %s:0 %s:1 %s:1 %s:3 %s:2 %s:2 %s:2 %s:0",
			mobile(2), mobile(1), badNumber, fixedLine, mobile(3), mobile(1), mobile(2), badNumber, mobile(4))
		equal(e, "entries and flags", f.flags(), want)
		equal(e, "version", c.Version, 3)
		if count.Total != 9 || count.Eligible != 3 || count.Invalid != 2 || count.Duplicates != 3 || count.OptedOut != 1 {
			e.Errorf("got count %+v, want what the freeze found", count)
		}
		// With the lists in reverse order, a recipient on both lists counts for the other list. A voice call reaches a
		// fixed line.
		d := e.campaign(t, "d", b, a)
		d, err = e.s.UpdateCampaign(e.Context(), t.ID, d.ID(), 0, user, func(c *store.Campaign) (schemas.Trigger, error) {
			c.Chain = []schemas.Channel{schemas.ChannelVoice}
			return schemas.TriggerEdit, nil
		})
		e.must(err)
		_, f = e.freeze(e.confirm(d, 0))
		want = fmt.Sprintf("%s:3 %s:0 %s:0 %s:1 %s:0 %s:2 %s:2 %s:2 %s:0",
			mobile(3), mobile(1), mobile(2), badNumber, mobile(4), mobile(2), mobile(1), badNumber, fixedLine)
		equal(e, "entries of the voice campaign", f.flags(), want)
	}},
	{"a campaign that requires opt-ins sends to those who have opted in (R43)", func(e *env) {
		t := e.tenant("acme")
		a, b := e.list(t, "a"), e.list(t, "b", mobile(5))
		e.load(t, a, importfile.CSV, "phone,opt_in,opt_in_source\n"+
			mobile(1)+",yes,fair\n"+mobile(2)+",2024-05-06,web form\n"+mobile(3)+",no,\n"+mobile(4)+",,\n"+badNumber+",yes,\n"+mobile(6)+",yes,\n")
		e.must(e.s.Suppress(e.Context(), t.ID, "api", mobile(6)))
		agreed := func(phone string) string {
			c, err := e.s.ContactByPhone(e.Context(), t.ID, phone)
			e.must(err)
			if c.OptIn.IsZero() {
				return "no " + c.OptInSource
			}
			return c.OptIn.Format(time.DateOnly) + " " + c.OptInSource
		}
		equal(e, "yes", agreed(mobile(1)), start.Format(time.DateOnly)+" fair")
		equal(e, "a day", agreed(mobile(2)), "2024-05-06 web form")
		equal(e, "no", agreed(mobile(3)), "no ")
		c := e.campaign(t, "c", a, b)
		c, err := e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, func(c *store.Campaign) (schemas.Trigger, error) {
			c.RequireOptIn = true
			return schemas.TriggerEdit, nil
		})
		e.must(err)
		check := func(want store.AudienceCount) {
			e.Helper()
			count, err := e.s.CountCampaign(e.Context(), &c)
			e.must(err)
			if got := [...]uint32{count.Total, count.Eligible, count.Invalid, count.OptedOut, count.NotOptedIn}; got != [...]uint32{want.Total, want.Eligible, want.Invalid, want.OptedOut, want.NotOptedIn} {
				e.Errorf("got total, eligible, invalid, opted out, not opted in %v, want those of %+v", got, want)
			}
			checkMembers(e)
		}
		check(store.AudienceCount{Total: 7, Eligible: 2, Invalid: 1, OptedOut: 1, NotOptedIn: 3})
		// A row with "no" withdraws the opt-in. An empty cell changes nothing. A "yes" without a date or a source keeps
		// the older proof.
		e.load(t, a, importfile.CSV, "phone,opt_in\n"+mobile(1)+",no\n"+mobile(2)+",yes\n"+mobile(3)+",yes\n")
		equal(e, "taken back", agreed(mobile(1)), "no ")
		equal(e, "said again", agreed(mobile(2)), "2024-05-06 web form")
		e.load(t, a, importfile.CSV, "phone,opt_in\n"+mobile(2)+",\n")
		equal(e, "not said", agreed(mobile(2)), "2024-05-06 web form")
		check(store.AudienceCount{Total: 7, Eligible: 2, Invalid: 1, OptedOut: 1, NotOptedIn: 3})
		_, f := e.freeze(e.confirm(c, 0))
		equal(e, "entries and flags", f.flags(), fmt.Sprintf("%s:%d %s:0 %s:0 %s:%d %s:%d %s:%d %s:%d", mobile(1), audience.NotOptedIn, mobile(2), mobile(3),
			mobile(4), audience.NotOptedIn, badNumber, audience.Invalid, mobile(6), audience.OptedOut, mobile(5), audience.NotOptedIn))
	}},
	{"an opt-out of one channel keeps others open (X10)", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(1), mobile(2), mobile(3))
		put := func(lift bool, channel schemas.Channel, phones ...string) {
			e.Helper()
			change := e.s.OptOuts
			if lift {
				change = e.s.LiftOptOuts
			}
			for _, phone := range phones {
				_, err := change(e.Context(), t.ID, store.OptOutCause{Source: "api"}, store.OptOut{Phone: phone, Channel: channel})
				e.must(err)
			}
			checkMembers(e)
		}
		const whatsapp, every = schemas.ChannelWhatsApp, schemas.ChannelUnspecified
		put(false, sms, mobile(1))
		put(false, whatsapp, mobile(2))
		put(false, every, mobile(3))
		flagsOf := func(name string, channel schemas.Channel) string {
			e.Helper()
			made := e.campaign(t, name, l)
			c, err := e.s.UpdateCampaign(e.Context(), t.ID, made.ID(), 0, user, func(c *store.Campaign) (schemas.Trigger, error) {
				c.Chain = []schemas.Channel{channel}
				return schemas.TriggerEdit, nil
			})
			e.must(err)
			count, err := e.s.CountCampaign(e.Context(), &c)
			e.must(err)
			_, f := e.freeze(e.confirm(c, 0))
			ok := 0
			for _, entry := range f.entries {
				if entry.Flag == audience.OK {
					ok++
				}
			}
			equal(e, "eligible of "+name, int(count.Eligible), ok)
			return f.flags()
		}
		const out = audience.OptedOut
		equal(e, "sms", flagsOf("sms", sms), fmt.Sprintf("%s:%d %s:0 %s:%d", mobile(1), out, mobile(2), mobile(3), out))
		equal(e, "whatsapp", flagsOf("whatsapp", whatsapp), fmt.Sprintf("%s:0 %s:%d %s:%d", mobile(1), mobile(2), out, mobile(3), out))
		put(true, sms, mobile(3)) // opted out of all channels except SMS
		equal(e, "sms again", flagsOf("sms again", sms), fmt.Sprintf("%s:%d %s:0 %s:0", mobile(1), out, mobile(2), mobile(3)))
		equal(e, "whatsapp again", flagsOf("whatsapp again", whatsapp), fmt.Sprintf("%s:0 %s:%d %s:%d", mobile(1), mobile(2), out, mobile(3), out))
		e.publish()
		put(true, every, mobile(2))
		hash := e.keys.NumberHash(t.ID, mobile(2))
		if row, ok := e.unpublished()[schemas.SuppressionKey(t.ID, hash)]; !ok || row.Value != nil {
			e.Errorf("got %+v, want a tombstone when nothing is left of an opt-out", row)
		}
	}},
	{"everything about a contact is in its entry", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		file := "phone,first_name,last_name,email,city,odd\n+393330000001,Anna,Rossi,a@x.it,Roma,\"say \"\"hi\"\" \\ <b>\"\n+393330000002,,,,,\n"
		e.load(t, l, importfile.CSV, file)
		_, f := e.freeze(e.confirm(e.campaign(t, "c", l), 0))
		got := f.entries[0]
		for name, want := range map[string]string{
			"first_name": "Anna", "last_name": "Rossi", "email": "a@x.it", "city": "Roma", "odd": `say "hi" \ <b>`,
		} {
			if v, _ := got.Value(name); v != want {
				e.Errorf("got %s %q, want %q", name, v, want)
			}
		}
		if got.Country != "IT" || got.Zone != "Europe/Rome" || got.Class != audience.Mobile || got.ContactID == 0 || len(got.Attrs) != 5 {
			e.Errorf("got %+v", got)
		}
		equal(e, "attributes of one without", len(f.entries[1].Attrs), 0)
		contact, err := e.s.Contact(e.Context(), t.ID, got.ContactID)
		e.must(err)
		equal(e, "contact", contact.Phone, got.To)
	}},
	{"many blobs, many zones", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		var file strings.Builder
		file.WriteString("phone,timezone\n")
		const n = audience.BlobSize + 400
		for i := range n {
			zone := ""
			if i%50 == 0 {
				zone = []string{"Europe/London", "America/New_York", "Asia/Tokyo"}[i/50%3]
			}
			fmt.Fprintf(&file, "%s,%s\n", mobile(i), zone)
		}
		e.load(t, l, importfile.CSV, file.String())
		c, f := e.freeze(e.confirm(e.campaign(t, "c", l), 0))
		equal(e, "total", c.Total, n)
		equal(e, "blobs", len(f.index), 5) // two blobs of Rome, one of each other zone
		last := map[string]string{}
		for _, entry := range f.entries { // within a zone, recipients keep the order of the list
			if entry.To <= last[entry.Zone] {
				e.Errorf("%s comes after %s", entry.To, last[entry.Zone])
			}
			last[entry.Zone] = entry.To
		}
	}},
	{"R124: a search finds the blobs that have a number, a name or an address, and not the others", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		zones := []string{"Europe/London", "America/New_York", "Asia/Tokyo", "Africa/Cairo", "Europe/Rome"}
		var file strings.Builder
		file.WriteString("phone,first_name,last_name,email,timezone\n")
		for i := range 50 {
			fmt.Fprintf(&file, "%s,ANNA%d,Òlaf%d,Mail%d@Example.com,%s\n", mobile(i), i, i, i, zones[i%5])
		}
		e.load(t, l, importfile.CSV, file.String())
		c, f := e.freeze(e.confirm(e.campaign(t, "c", l), 0))
		equal(e, "blobs", len(f.index), 5)
		blobOf := map[string]uint32{}
		for _, x := range f.index {
			for i := range x.Count {
				blobOf[f.entries[x.First+i].To] = x.Blob
			}
		}
		without := func(texts ...string) int {
			found, err := e.s.BlobsWithout(e.Context(), c.FreezeID, texts...)
			e.must(err)
			return len(found)
		}
		others := 0
		for i := range 50 {
			for _, text := range []string{mobile(i), strings.TrimPrefix(mobile(i), "+"), fmt.Sprintf("anna%d òlaf%d", i, i), fmt.Sprintf("mail%d@example.com", i)} {
				found, err := e.s.BlobsWithout(e.Context(), c.FreezeID, text, "nobody at all")
				e.must(err)
				if found[blobOf[mobile(i)]] {
					e.Errorf("the blob of %s is left out of the search for %q", mobile(i), text)
				}
				others += len(found)
			}
		}
		if others < 50*4*3 {
			e.Errorf("got %d other blobs left out in 200 searches, want at least 600 of 800", others)
		}
		equal(e, "blobs without what nobody has", without("+4915112345678"), 5)
		equal(e, "blobs without what everybody has", without("example"), 0)
		_, _, err := e.s.EraseRows(e.Context(), t.ID, mobile(7), plainAnswers)
		e.must(err)
		equal(e, "blobs without an erased address", without("mail7@example.com"), 5)
		e.exec("DELETE FROM freeze_filters") // as of an audience that was frozen before there were any
		equal(e, "blobs left out without filters", without("+4915112345678"), 0)
	}},
	{"by the zones of each recipient (X11)", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		e.load(t, l, importfile.CSV, strings.Join([]string{
			"phone,timezone",
			"+12125550123,",                // New York
			"+16055551234,",                // the numbers of South Dakota are in two time zones
			"+13105550123,America/Phoenix", // a number of California; the contact's own zone is Arizona
			"+393330000001,",
			"+818012345678,",
			"+351912345678,", // a Portuguese mobile number
			"+393330000002,",
		}, "\n")+"\n")
		zones := func(recipients bool) map[string]string {
			c := e.campaign(t, fmt.Sprint("c", recipients), l)
			c, err := e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, func(c *store.Campaign) (schemas.Trigger, error) {
				c.CallingHours = &store.Hours{Start: 540, End: 1200, Zone: "Europe/Rome", Recipients: recipients}
				return schemas.TriggerEdit, nil
			})
			e.must(err)
			c, f := e.freeze(e.confirm(c, 0))
			record := decode(e, e.unpublished()[schemas.CampaignKey(t.ID, c.ID())], &fanfarev1.Campaign{})
			equal(e, "the record asks for the recipients' clocks", record.GetCallingHours().GetRecipientZone(), recipients)
			out := map[string]string{}
			for _, entry := range f.entries {
				out[entry.To] = entry.Zone
			}
			return out
		}
		own := zones(true)
		for number, want := range map[string]string{
			"+12125550123": "America/New_York", "+16055551234": "America/Denver,America/North_Dakota/Center", "+13105550123": "America/Phoenix",
			"+393330000001": "Europe/Rome", "+393330000002": "Europe/Rome", "+818012345678": "Asia/Tokyo",
		} {
			equal(e, "zones of "+number, own[number], want)
		}
		equal(e, "zones of a Portuguese mobile", own["+351912345678"], "Atlantic/Azores,Europe/Lisbon")
		main := zones(false) // without RecipientZone, one zone each
		equal(e, "main zone", main["+351912345678"], "Europe/Lisbon")
	}},
	{"again changes nothing", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(1))
		c := e.confirm(e.campaign(t, "c", l), 0)
		frozen, _ := e.freeze(c)
		e.fill(t, l, mobile(2))
		e.must(e.s.Freeze(e.Context(), t.ID, c.ID(), c.Version))
		e.must(e.s.Freeze(e.Context(), t.ID, c.ID(), frozen.Version))
		again := e.read(c)
		equal(e, "freeze and version", fmt.Sprint(again.FreezeID, again.Version), fmt.Sprint(frozen.FreezeID, frozen.Version))
		equal(e, "total", again.Total, 1)
	}},
	{"two at once, one wins", func(e *env) {
		t := e.tenant("acme")
		var phones []string
		for i := range 300 {
			phones = append(phones, mobile(i))
		}
		c := e.confirm(e.campaign(t, "c", e.list(t, "l", phones...)), 0)
		other := e.open()
		var wg sync.WaitGroup
		for i := range 6 {
			s := e.s
			if i%2 == 1 {
				s = other
			}
			wg.Go(func() {
				if err := s.Freeze(e.Context(), t.ID, c.ID(), c.Version); err != nil {
					e.Errorf("got error %v, want none: one of them has frozen it", err)
				}
			})
		}
		wg.Wait()
		got := e.read(c)
		equal(e, "version", got.Version, c.Version+1)
		e.thaw(got)
	}},
	{"who may not be frozen", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(1))
		c := e.campaign(t, "c", l)
		e.wantErr(e.s.Freeze(e.Context(), t.ID, c.ID(), c.Version), schemas.ErrTransition)
		c = e.confirm(c, 0)
		e.wantErr(e.s.Freeze(e.Context(), t.ID, c.ID(), c.Version-1), schemas.ErrConflict)
		e.wantErr(e.s.Freeze(e.Context(), t.ID, "camp_99", 1), schemas.ErrNotFound)
		_, err := e.s.Blobs(e.Context(), "")
		e.wantErr(err, schemas.ErrNotFound)
		_, err = e.s.Blob(e.Context(), "none", 0)
		e.wantErr(err, schemas.ErrNotFound)
	}},
	{"no recipient to send to", func(e *env) {
		t := e.tenant("acme")
		c, f := e.freeze(e.confirm(e.campaign(t, "c", e.list(t, "l")), 0))
		if c.FreezeID == "" || len(f.entries) != 0 {
			e.Errorf("got freeze %q of %d, want an empty one", c.FreezeID, len(f.entries))
		}
	}},
	{"a list deleted after the confirmation is still what was confirmed", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(1))
		c := e.confirm(e.campaign(t, "c", l), 0)
		d := e.confirm(e.campaign(t, "d", l), 0)
		e.clock.add(time.Second)
		e.must(e.s.DeleteList(e.Context(), t.ID, l.Number, 0))
		_, f := e.freeze(c)
		equal(e, "entries", f.flags(), mobile(1)+":0")
		// A campaign that freezes after more than a day finds the list gone: Collect has removed its members.
		e.clock.add(25 * time.Hour)
		e.must(e.s.Collect(e.Context()))
		err := e.s.Freeze(e.Context(), t.ID, d.ID(), d.Version)
		e.wantErr(err, store.ErrListGone)
		var forever *schemas.FreezeError
		if !errors.As(err, &forever) || forever.Reason != "list_gone" || !errors.Is(err, schemas.ErrNotFound) {
			e.Errorf("got error %v, want one that fails the campaign for list_gone", err)
		}
	}},
	{"what was counted, priced and reserved is what is frozen (C30, P4)", func(e *env) {
		t := e.tenant("acme")
		a, b := e.list(t, "a", mobile(1), mobile(5)), e.list(t, "b", mobile(2), mobile(3))
		e.must(e.s.Suppress(e.Context(), t.ID, "api", mobile(5)))
		c := e.campaign(t, "c", a)
		c, err := e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, func(c *store.Campaign) (schemas.Trigger, error) {
			c.Lists = []uint64{a.Number, b.Number}
			return schemas.TriggerEdit, nil
		})
		e.must(err)
		c = e.confirm(c, 0)
		e.clock.add(time.Second)
		e.fill(t, a, mobile(3), mobile(6)) // at the confirmation, 3 was only in b
		e.fill(t, b, mobile(1), mobile(4))
		e.must(e.s.Lift(e.Context(), t.ID, "api", mobile(5)))
		_, f := e.freeze(c)
		equal(e, "entries", f.flags(), fmt.Sprintf("%s:0 %s:%d %s:0 %s:0", mobile(1), mobile(5), audience.OptedOut, mobile(2), mobile(3)))
		// A campaign that is confirmed now gets the present contacts.
		d := e.confirm(e.campaign(t, "d", a), 0)
		_, f = e.freeze(d)
		equal(e, "entries of another campaign", f.flags(), fmt.Sprintf("%s:0 %s:0 %s:0 %s:0", mobile(1), mobile(5), mobile(3), mobile(6)))
	}},
	{"more contacts than allowed by then", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(1), mobile(2), mobile(3))
		c := e.confirm(e.campaign(t, "c", l), 0)
		_, err := e.s.UpdateTenant(e.Context(), t.ID, 0, func(t *store.Tenant) error { t.MaxContacts = 2; return nil })
		e.must(err)
		err = e.s.Freeze(e.Context(), t.ID, c.ID(), c.Version)
		var limit *store.LimitError
		var forever *schemas.FreezeError
		if !errors.As(err, &limit) || limit.Limit != store.LimitContacts || !errors.As(err, &forever) || forever.Reason != "max_contacts" {
			e.Errorf("got error %v, want the limit of contacts, which fails the campaign", err)
		}
	}},
	{"what a crash leaves is collected, what is used is not", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(1), "+447400123456", "+12125550123")
		c := e.confirm(e.campaign(t, "c", l), 0)
		// These rows are what a process leaves when it is killed after its first blob.
		const id = "killed"
		e.exec(fmt.Sprintf("INSERT INTO freezes (id, tenant, campaign, state, seen_ms) VALUES ('%s', '%s', %d, 0, %d)",
			id, t.ID, c.Number, e.clock.now().UnixMilli()))
		e.exec(fmt.Sprintf("INSERT INTO freeze_blobs (freeze_id, part, data) VALUES ('%s', 0, 'x')", id))
		e.must(e.s.Collect(e.Context()))
		equal(e, "parts of a freeze that may be under way", e.parts(id), 1)
		e.clock.add(2 * time.Minute)
		c, _ = e.freeze(c)
		e.must(e.s.Collect(e.Context()))
		equal(e, "parts of the abandoned one", e.parts(id), 0)
		e.thaw(c)
		// After the campaign is unscheduled, no process reads the audience.
		old := c.FreezeID
		d, err := confirm(e, e.s, e.campaign(t, "d", l), scheduled, 0)
		e.must(err)
		d, _ = e.freeze(d)
		_, err = e.s.UpdateCampaign(e.Context(), t.ID, d.ID(), 0, user, move(configured, schemas.TriggerUnschedule))
		e.must(err)
		e.clock.add(2 * time.Minute)
		e.must(e.s.Collect(e.Context()))
		equal(e, "parts of the dropped one", e.parts(d.FreezeID), 0)
		_, err = e.s.Blobs(e.Context(), d.FreezeID)
		e.wantErr(err, schemas.ErrNotFound)
		equal(e, "parts of the one in use", e.parts(old), 3)
		// The audience is removed once the campaign can no longer be replayed.
		_, err = e.s.UpdateCampaign(e.Context(), t.ID, c.ID(), 0, user, move(cancelled, schemas.TriggerCancel))
		e.must(err)
		e.clock.add(39 * 24 * time.Hour)
		e.must(e.s.Collect(e.Context()))
		equal(e, "parts within the replay window", e.parts(old), 3)
		e.clock.add(2 * 24 * time.Hour)
		e.must(e.s.Collect(e.Context()))
		equal(e, "parts after it", e.parts(old), 0)
	}},
	{"a freezer that was given up does not publish", func(e *env) {
		t := e.tenant("acme")
		c := e.confirm(e.campaign(t, "c", e.list(t, "l", mobile(1))), 0)
		ctx, cancel := context.WithCancel(e.Context())
		cancel()
		if err := e.s.Freeze(ctx, t.ID, c.ID(), c.Version); !errors.Is(err, context.Canceled) {
			e.Errorf("got error %v, want it cancelled", err)
		}
		equal(e, "freeze", e.read(c).FreezeID, "")
	}},
}
