package storetest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"time"

	"fanfare/api/importfile"
	"fanfare/api/store"
)

// checkFields compares the kept counts of lists with counts made from their contacts.
func (e *env) checkFields(t store.Tenant, lists ...store.List) {
	e.Helper()
	for _, l := range lists {
		got, err := e.s.ListFields(e.Context(), t.ID, []uint64{l.Number})
		e.must(err)
		want := map[string]uint64{}
		contacts := e.contacts(t, l)
		for _, c := range contacts {
			for name, value := range map[string]string{"first_name": c.FirstName, "last_name": c.LastName, "email": c.Email} {
				if value != "" {
					want[name]++
				}
			}
			for name, value := range c.Attributes {
				if value != "" {
					want[name]++
				}
			}
		}
		maps.DeleteFunc(got.Names, func(_ string, n uint64) bool { return n == 0 })
		if !maps.Equal(got.Names, want) || got.Members != uint64(len(contacts)) || !got.Complete {
			e.Errorf("%s: got %+v, want %v of %d", l.Name, got, want, len(contacts))
		}
	}
}

var listFieldTests = []test{
	{"counts follow every change", func(e *env) {
		t := e.tenant("acme")
		seed := uint64(time.Now().UnixNano())
		rnd := rand.New(rand.NewPCG(seed, 1))
		e.Logf("seed %d", seed)
		lists := []store.List{e.list(t, "a"), e.list(t, "b"), e.list(t, "c")}
		value := func() string { return []string{"", "x", "y"}[rnd.IntN(3)] }
		number := func() string { return mobile(rnd.IntN(12)) }
		contact := func() (store.Contact, bool) {
			c, err := e.s.ContactByPhone(e.Context(), t.ID, number())
			return c, err == nil && c.Deleted.IsZero()
		}
		for range 60 {
			l := lists[rnd.IntN(len(lists))]
			switch rnd.IntN(6) {
			case 0, 1: // an import with repeated numbers in the file
				var file strings.Builder
				fmt.Fprintf(&file, "phone,first_name,city,team%d\n", rnd.IntN(2))
				for range rnd.IntN(8) {
					fmt.Fprintf(&file, "%s,%s,%s,%s\n", number(), value(), value(), value())
				}
				_, err := e.s.Import(e.Context(), t.ID, l.Number, store.ImportOptions{Format: importfile.CSV}, strings.NewReader(file.String()), nil)
				e.must(err)
			case 2:
				if c, ok := contact(); ok {
					_, err := e.s.UpdateContact(e.Context(), t.ID, c.Number, 0, func(c *store.Contact) error {
						c.LastName, c.Attributes = value(), map[string]string{"city": value(), "new": value()}
						return nil
					})
					e.must(err)
				}
			case 3:
				if c, ok := contact(); ok {
					_, err := e.s.AddToList(e.Context(), t.ID, l.Number, []uint64{c.Number})
					e.must(err)
				}
			case 4:
				if c, ok := contact(); ok {
					_, err := e.s.RemoveFromList(e.Context(), t.ID, l.Number, []uint64{c.Number})
					e.must(err)
				}
			case 5:
				if c, ok := contact(); ok && rnd.IntN(2) == 0 {
					e.must(e.s.DeleteContact(e.Context(), t.ID, c.Number, 0))
				}
			}
		}
		e.checkFields(t, lists...)
		both, err := e.s.ListFields(e.Context(), t.ID, []uint64{lists[0].Number, lists[1].Number})
		e.must(err)
		equal(e, "members of two lists", both.Members, uint64(len(e.contacts(t, lists[0]))+len(e.contacts(t, lists[1]))))
	}},
	{"lists of before are counted once", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		e.load(t, l, importfile.CSV, "phone,city\n"+mobile(1)+",Roma\n"+mobile(2)+",\n")
		e.exec("DELETE FROM list_fields")
		e.exec(fmt.Sprintf("INSERT INTO list_fields (tenant, list, name, members) VALUES ('%s', %d, '', 1)", t.ID, l.Number))
		got, err := e.s.ListFields(e.Context(), t.ID, []uint64{l.Number})
		e.must(err)
		equal(e, "complete before", got.Complete, false)
		e.must(e.s.Collect(e.Context()))
		e.checkFields(t, l)
	}},
	{"a file of ever new names is not counted for ever", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		var file strings.Builder
		for i := range 300 {
			fmt.Fprintf(&file, `{"phone":%q`, mobile(i))
			for k := range 8 {
				fmt.Fprintf(&file, `,"n%d":"x"`, i*8+k)
			}
			file.WriteString("}\n")
		}
		e.load(t, l, importfile.JSON, file.String())
		got, err := e.s.ListFields(e.Context(), t.ID, []uint64{l.Number})
		e.must(err)
		if got.Complete || len(got.Names) > 2000 {
			e.Errorf("got %d names, complete %v, want at most 2000 and not complete", len(got.Names), got.Complete)
		}
	}},
	{"counts of a deleted list go", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		e.load(t, l, importfile.CSV, "phone,city\n"+mobile(1)+",Roma\n")
		e.must(e.s.DeleteList(e.Context(), t.ID, l.Number, 0))
		e.clock.add(25 * time.Hour)
		e.must(e.s.Collect(e.Context()))
		var n int
		e.must(e.sql.QueryRowContext(e.Context(), "SELECT COUNT(*) FROM list_fields").Scan(&n))
		equal(e, "rows", n, 0)
	}},
}
