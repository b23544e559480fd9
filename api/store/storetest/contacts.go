package storetest

import (
	"maps"
	"slices"
	"strings"
	"time"

	"fanfare/api/importfile"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/audience"
)

var contactTests = []test{
	{"a contact is completed from its number", func(e *env) {
		t := e.tenant("acme")
		c, err := e.s.CreateContact(e.Context(), store.Contact{
			Tenant: t.ID, Phone: "333 1234567", FirstName: "Anna", Email: "a@example.com", Attributes: map[string]string{"city": "Roma"},
		})
		e.must(err)
		got, err := e.s.Contact(e.Context(), t.ID, c.Number)
		e.must(err)
		want := store.Contact{
			Tenant: t.ID, Number: c.Number, Phone: "+393331234567", FirstName: "Anna", Email: "a@example.com", Country: "IT", Zone: "Europe/Rome",
			Class: audience.Mobile, Valid: true, Version: 1, Created: start, Updated: start,
		}
		if !maps.Equal(got.Attributes, map[string]string{"city": "Roma"}) {
			e.Errorf("got attributes %v", got.Attributes)
		}
		got.Attributes = nil
		if !sameContact(got, want) {
			e.Errorf("got %+v, want %+v", got, want)
		}
		_, err = e.s.CreateContact(e.Context(), store.Contact{Tenant: t.ID, Phone: "0039333 1234567"})
		e.wantErr(err, store.ErrNameTaken)
		for _, bad := range []store.Contact{
			{Phone: "abc"},
			{Phone: mobile(2), FirstName: strings.Repeat("x", 1100)},
			{Phone: mobile(2), Attributes: map[string]string{"Big Name": "x"}},
			{Phone: mobile(2), Attributes: map[string]string{"phone": "x"}},
			{Phone: mobile(2), LastName: "\xff"},
			{Phone: mobile(2), Attributes: map[string]string{"timezone": "Rome"}},
		} {
			bad.Tenant = t.ID
			_, err = e.s.CreateContact(e.Context(), bad)
			e.wantErr(err, store.ErrInvalid)
		}
	}},
	{"an attribute says the zone", func(e *env) {
		t := e.tenant("acme")
		c, err := e.s.CreateContact(e.Context(), store.Contact{
			Tenant: t.ID, Phone: mobile(1), Attributes: map[string]string{"timezone": "America/Lima"},
		})
		e.must(err)
		equal(e, "zone", c.Zone, "America/Lima")
		toll, err := e.s.CreateContact(e.Context(), store.Contact{Tenant: t.ID, Phone: "+882 12345678"})
		e.must(err)
		equal(e, "zone of a number of no country", toll.Zone, "Europe/Rome")
	}},
	{"update, delete, return", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(1), mobile(2))
		c, err := e.s.ContactByPhone(e.Context(), t.ID, mobile(1))
		e.must(err)
		up, err := e.s.UpdateContact(e.Context(), t.ID, c.Number, 1, func(c *store.Contact) error { c.Phone = "+44 7400 123456"; return nil })
		e.must(err)
		equal(e, "country and zone", up.Country+" "+up.Zone, "GB Europe/London")
		_, err = e.s.UpdateContact(e.Context(), t.ID, c.Number, 1, func(*store.Contact) error { return nil })
		e.wantErr(err, schemas.ErrConflict)
		_, err = e.s.UpdateContact(e.Context(), t.ID, c.Number, 0, func(c *store.Contact) error { c.Phone = mobile(2); return nil })
		e.wantErr(err, store.ErrNameTaken)

		e.must(e.s.DeleteContact(e.Context(), t.ID, c.Number, 0))
		e.wantErr(e.s.DeleteContact(e.Context(), t.ID, c.Number, 0), schemas.ErrNotFound)
		equal(e, "members", e.members(t, l), mobile(2))
		gone, err := e.s.Contact(e.Context(), t.ID, c.Number)
		e.must(err)
		equal(e, "deleted", gone.Deleted, start)
		contacts, n, err := e.s.Contacts(e.Context(), t.ID, store.ContactFilter{})
		e.must(err)
		equal(e, "contacts that are left", [2]int{len(contacts), n}, [2]int{1, 1})
		_, n, err = e.s.Contacts(e.Context(), t.ID, store.ContactFilter{IncludeDeleted: true})
		e.must(err)
		equal(e, "contacts with deleted ones", n, 2)

		back, err := e.s.CreateContact(e.Context(), store.Contact{Tenant: t.ID, Phone: "+447400123456"})
		e.must(err)
		equal(e, "number of the one that came back", back.Number, c.Number)
		if back.Version <= gone.Version {
			e.Errorf("got version %d after the return, want more than %d", back.Version, gone.Version)
		}
		equal(e, "members after the return", e.members(t, l), mobile(2))
	}},
	{"lists keep the order in which members came", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(3), mobile(1))
		e.fill(t, l, mobile(2), mobile(3))
		equal(e, "members", e.members(t, l), mobile(3)+" "+mobile(1)+" "+mobile(2))
		c, err := e.s.ContactByPhone(e.Context(), t.ID, mobile(3))
		e.must(err)
		n, err := e.s.RemoveFromList(e.Context(), t.ID, l.Number, []uint64{c.Number, c.Number})
		e.must(err)
		equal(e, "removed", n, 1)
		e.fill(t, l, mobile(3))
		equal(e, "members after one went to the end", e.members(t, l), mobile(1)+" "+mobile(2)+" "+mobile(3))
		_, err = e.s.AddToList(e.Context(), t.ID, l.Number, []uint64{999})
		e.wantErr(err, schemas.ErrNotFound)
		page, total, err := e.s.Contacts(e.Context(), t.ID, store.ContactFilter{List: l.Number, Page: store.Page{Number: 1, Limit: 2}})
		e.must(err)
		if len(page) != 1 || total != 3 || page[0].Phone != mobile(3) {
			e.Errorf("got second page %v of %d, want %s of 3", page, total, mobile(3))
		}
	}},
	{"names of lists", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "active_customers")
		_, err := e.s.CreateList(e.Context(), t.ID, " active_customers ", false)
		e.wantErr(err, store.ErrNameTaken)
		for _, bad := range []string{"", "  ", "list_12", strings.Repeat("x", 300)} {
			_, err = e.s.CreateList(e.Context(), t.ID, bad, false)
			e.wantErr(err, store.ErrInvalid)
		}
		for _, key := range []string{l.ID(), "active_customers"} {
			got, err := e.s.FindList(e.Context(), t.ID, key)
			e.must(err)
			equal(e, "list "+key, got.Number, l.Number)
		}
		other := e.list(t, "other")
		_, err = e.s.UpdateList(e.Context(), t.ID, other.Number, 0, func(l *store.List) error { l.Name = "active_customers"; return nil })
		e.wantErr(err, store.ErrNameTaken)
		up, err := e.s.UpdateList(e.Context(), t.ID, other.Number, 1, func(l *store.List) error { l.Name, l.Test = "tests", true; return nil })
		e.must(err)
		if up.Name != "tests" || !up.Test || up.Version != 2 {
			e.Errorf("got %+v, want tests, for tests, version 2", up)
		}
		_, err = e.s.UpdateList(e.Context(), t.ID, other.Number, 1, func(*store.List) error { return nil })
		e.wantErr(err, schemas.ErrConflict)
	}},
	{"a deleted list frees its name", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l", mobile(1))
		e.must(e.s.DeleteList(e.Context(), t.ID, l.Number, 0))
		e.wantErr(e.s.DeleteList(e.Context(), t.ID, l.Number, 0), schemas.ErrNotFound)
		for _, key := range []string{l.ID(), "l"} {
			_, err := e.s.FindList(e.Context(), t.ID, key)
			e.wantErr(err, schemas.ErrNotFound)
		}
		_, err := e.s.AddToList(e.Context(), t.ID, l.Number, nil)
		e.wantErr(err, schemas.ErrNotFound)
		again := e.list(t, "l")
		lists, total, err := e.s.Lists(e.Context(), t.ID, store.ListFilter{})
		e.must(err)
		if len(lists) != 1 || total != 1 || lists[0].Number != again.Number {
			e.Errorf("got %v of %d, want the new one", lists, total)
		}
		_, total, err = e.s.Lists(e.Context(), t.ID, store.ListFilter{IncludeDeleted: true, Search: "L"})
		e.must(err)
		equal(e, "lists with deleted ones", total, 2)
		// Collect removes the members a day later, not at once: a campaign that was confirmed before may still have to
		// freeze the list.
		e.must(e.s.Collect(e.Context()))
		equal(e, "members after a minute", e.members(t, l), mobile(1))
		e.clock.add(25 * time.Hour)
		e.must(e.s.Collect(e.Context()))
		equal(e, "members after a day", e.members(t, l), "")
	}},
	{"search", func(e *env) {
		t := e.tenant("acme")
		for i, name := range []string{"Anna", "Bruno", "100%_x"} {
			_, err := e.s.CreateContact(e.Context(), store.Contact{Tenant: t.ID, Phone: mobile(i), FirstName: name, Email: strings.ToLower(name[:1]) + "@x"})
			e.must(err)
		}
		for search, want := range map[string]int{"anna": 1, "NN": 1, "333000000": 3, "%": 1, "_": 1, "b@x": 1, "zzz": 0, "": 3} {
			got, n, err := e.s.Contacts(e.Context(), t.ID, store.ContactFilter{Search: search})
			e.must(err)
			equal(e, "found "+search, [2]int{len(got), n}, [2]int{want, want})
		}
	}},
	{"search in any alphabet", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		changed, err := e.s.CreateContact(e.Context(), store.Contact{Tenant: t.ID, Phone: mobile(7), FirstName: "Мария"})
		e.must(err)
		_, err = e.s.UpdateContact(e.Context(), t.ID, changed.Number, 0, func(c *store.Contact) error { c.FirstName, c.LastName = "Ольга", "ЖУК"; return nil })
		e.must(err)
		for _, row := range []string{"Élodie,Ñandú,E@x", "ÉLODIE,Ñandú,E@x"} { // the second row changes the contact
			_, err = e.s.Import(e.Context(), t.ID, l.Number, store.ImportOptions{Format: importfile.CSV}, strings.NewReader("phone,first_name,last_name,email\n"+mobile(8)+","+row), nil)
			e.must(err)
		}
		for search, want := range map[string]string{"мария": "", "ольга жук": mobile(7), "ОЛЬГА": mobile(7), "élodie": mobile(8), "ÉLODIE ñ": mobile(8), "e@X": mobile(8)} {
			for _, list := range []uint64{0, l.Number} {
				if list != 0 && want == mobile(7) {
					want = ""
				}
				got, n, err := e.s.Contacts(e.Context(), t.ID, store.ContactFilter{Search: search, List: list})
				e.must(err)
				if (want == "") != (n == 0) || len(got) != n || n == 1 && got[0].Phone != want {
					e.Errorf("search for %s in list %d: got %v of %d, want %q", search, list, got, n, want)
				}
			}
		}
	}},
}

func sameContact(a, b store.Contact) bool {
	equalMaps := maps.Equal(a.Attributes, b.Attributes)
	a.Attributes, b.Attributes = nil, nil
	return equalMaps && a.Tenant == b.Tenant && a.Number == b.Number && a.Phone == b.Phone && a.FirstName == b.FirstName &&
		a.LastName == b.LastName && a.Email == b.Email && a.Country == b.Country && a.Zone == b.Zone && a.Class == b.Class &&
		a.Valid == b.Valid && a.Version == b.Version && a.Created.Equal(b.Created) && a.Updated.Equal(b.Updated) && a.Deleted.Equal(b.Deleted)
}

// members returns the numbers of a list, in order. It also checks that the list's own count agrees.
func (e *env) members(t store.Tenant, l store.List) string {
	e.Helper()
	contacts := e.contacts(t, l)
	now, err := e.s.List(e.Context(), t.ID, l.Number)
	e.must(err)
	if now.Members != uint64(len(contacts)) {
		e.Errorf("list counts %d members, want %d", now.Members, len(contacts))
	}
	return strings.Join(slices.Collect(func(yield func(string) bool) {
		for _, c := range contacts {
			if !yield(c.Phone) {
				return
			}
		}
	}), " ")
}

func (e *env) contacts(t store.Tenant, l store.List) []store.Contact {
	e.Helper()
	contacts, _, err := e.s.Contacts(e.Context(), t.ID, store.ContactFilter{List: l.Number, Page: store.Page{Limit: 1000}})
	e.must(err)
	return contacts
}
