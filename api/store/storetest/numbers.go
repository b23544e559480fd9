package storetest

import (
	"fmt"
	"strings"

	"fanfare/api/importfile"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/audience"
)

// forms are pairs of forms of the same person's number. The first form is the one that is dialled today.
var forms = [][2]string{
	{"+525512345678", "+5215512345678"},
	{"+5491123456789", "+541123456789"},
	{"+5511987654321", "+551187654321"},
	{"+2250707123456", "+22507123456"},
	{"+2290197123456", "+22997123456"},
	{"+84329876543", "+841629876543"},
}

var numberTests = []test{
	{"C27: the forms of a number are one contact", func(e *env) {
		t := e.tenant("acme")
		for i, f := range forms {
			c, err := e.s.CreateContact(e.Context(), store.Contact{Tenant: t.ID, Phone: f[i%2]})
			e.must(err)
			_, err = e.s.CreateContact(e.Context(), store.Contact{Tenant: t.ID, Phone: f[1-i%2]})
			e.wantErr(err, store.ErrNameTaken)
			for _, form := range f {
				got, err := e.s.ContactByPhone(e.Context(), t.ID, form)
				e.must(err)
				equal(e, "contact of "+form, got.Number, c.Number)
			}
		}
		other, err := e.s.CreateContact(e.Context(), store.Contact{Tenant: t.ID, Phone: mobile(1)})
		e.must(err)
		_, err = e.s.UpdateContact(e.Context(), t.ID, other.Number, 0, func(c *store.Contact) error { c.Phone = "+52 1 55 1234 5678"; return nil })
		e.wantErr(err, store.ErrNameTaken)
	}},
	{"C27: the forms of a number are one row of an import, whichever comes first", func(e *env) {
		t := e.tenant("acme")
		for order := range 2 {
			l := e.list(t, fmt.Sprint("l", order))
			var file strings.Builder
			file.WriteString("phone,city\n")
			for _, f := range forms {
				fmt.Fprintf(&file, "%s,\n%s,Roma\n", f[order], f[1-order])
			}
			r := e.load(t, l, importfile.CSV, file.String())
			equal(e, "imported and duplicates", [2]uint64{r.Imported, r.Duplicates}, [2]uint64{uint64(len(forms)), uint64(len(forms))})
			for i, c := range e.contacts(t, l) {
				if c.Attributes["city"] != "Roma" {
					e.Errorf("%s: got %v, want the city of its other form", c.Phone, c.Attributes)
				}
				if order == 1 && i != 1 && c.Phone != forms[i][0] {
					e.Errorf("got %s, want %s", c.Phone, forms[i][0])
				}
			}
			r = e.load(t, l, importfile.CSV, file.String())
			equal(e, "changed by the same file again", r.Updated, 0)
		}
	}},
	{"the form that takes messages stays", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		for _, c := range []struct{ row, want string }{
			{"+541123456789", "+541123456789"}, // this form could also be a fixed line
			{"+5491123456789", "+5491123456789"},
			{"+541123456789", "+5491123456789"},
		} {
			e.load(t, l, importfile.CSV, "phone\n"+c.row+"\n")
			got := e.contacts(t, l)
			if len(got) != 1 || got[0].Phone != c.want {
				e.Errorf("after %s: got %+v, want %s alone", c.row, got, c.want)
			}
		}
	}},
	{"X10: an opt-out of one form holds for the other", func(e *env) {
		t := e.tenant("acme")
		var contacts []string
		for i, f := range forms {
			contacts = append(contacts, f[0])
			e.must(e.s.Suppress(e.Context(), t.ID, "keyword", f[1-i%2]))
		}
		c := e.confirm(e.campaign(t, "c", e.list(t, "l", contacts...)), 0)
		count, err := e.s.CountAudience(e.Context(), t.ID, c.Lists, sms)
		e.must(err)
		equal(e, "opted out and eligible", [2]uint32{count.OptedOut, count.Eligible}, [2]uint32{uint32(len(forms)), 0})
		e.must(e.s.Freeze(e.Context(), t.ID, c.ID(), c.Version))
		for _, entry := range e.thaw(e.read(c)).entries {
			equal(e, "flag of "+entry.To, entry.Flag, audience.OptedOut)
		}
		_, total, err := e.s.Suppressions(e.Context(), t.ID, store.Page{}, "")
		e.must(err)
		equal(e, "opt-outs", total, len(forms))
		rows := e.unpublished()
		for i, f := range forms {
			for _, form := range f {
				// A sender looks an opt-out up by the hash of the number, so the record must exist under the hash of
				// either form.
				if row := rows[schemas.SuppressionKey(t.ID, e.keys.NumberHash(t.ID, form))]; row.Value == nil {
					e.Errorf("%s: got no record of the opt-out", form)
				}
				out, err := e.s.Suppressed(e.Context(), t.ID, form, sms)
				e.must(err)
				equal(e, form+" has opted out", out, true)
			}
			e.must(e.s.Suppress(e.Context(), t.ID, "api", f[i%2])) // a second opt-out, by the other form
			e.must(e.s.Lift(e.Context(), t.ID, "api", f[i%2]))
			log, err := e.s.SuppressionLog(e.Context(), t.ID, f[1-i%2])
			e.must(err)
			equal(e, "changes of "+f[1-i%2], len(log), 2)
		}
	}},
	{"C30: numbers that cannot take messages are not sent to", func(e *env) {
		t := e.tenant("acme")
		numbers := []string{mobile(1), "+390645201234", "+39899123456", "+449098790000", "+19002345678", "+979123456789", "+881612345678", "+3933612345678", "+12005550123"}
		c := e.confirm(e.campaign(t, "c", e.list(t, "l", numbers...)), 0)
		count, err := e.s.CountAudience(e.Context(), t.ID, c.Lists, sms)
		e.must(err)
		equal(e, "eligible and invalid", [2]int{int(count.Eligible), int(count.Invalid)}, [2]int{1, len(numbers) - 1})
		e.must(e.s.Freeze(e.Context(), t.ID, c.ID(), c.Version))
		for _, entry := range e.thaw(e.read(c)).entries {
			if (entry.Flag == audience.OK) != (entry.To == mobile(1)) {
				e.Errorf("%s, which %s: got flag %d", entry.To, entry.Class.Phrase(), entry.Flag)
			}
		}
		l := e.list(t, "imported")
		r := e.load(t, l, importfile.CSV, "phone\n"+strings.Join(numbers, "\n")+"\n")
		equal(e, "unreachable", int(r.Unreachable), len(numbers)-1)
	}},
	{"of several numbers of a row the mobile one is taken, then another", func(e *env) {
		t := e.tenant("acme")
		for i, c := range []struct{ file, want, attributes string }{
			{"phone,mobile\n06 4520 1234,333 0000001\n", "+393330000001", ""},
			{"mobile,phone\n,333 0000002\n", "+393330000002", ""},
			{"mobile,phone\n06 4520 1234,333 0000003\n", "+393330000003", ""}, // the mobile number wins, whatever its column is called
			{"phone,mobile\n06 4520 1234,n/a\n", "+390645201234", ""},
			{"Phone 1 - Value,Phone 2 - Value\n06 4520 1234,06 9 ::: 333 0000004 ::: 333 0000005\n", "+393330000004", ""},
			{"phone,number\n06 4520 1234,333 0000006\n", "+390645201234", "333 0000006"}, // the column "number" need not be a phone number
		} {
			l := e.list(t, fmt.Sprint("l", i))
			r := e.load(t, l, importfile.CSV, c.file)
			got := e.contacts(t, l)
			if r.Invalid != 0 || len(got) != 1 || got[0].Phone != c.want || got[0].Attributes["number"] != c.attributes {
				e.Errorf("%q: got %+v, rejected %+v, want %s", c.file, got, r.Rejected, c.want)
			}
		}
		r := e.load(t, e.list(t, "none"), importfile.CSV, "phone,mobile\nabc,12x\n,\n")
		equal(e, "invalid", r.Invalid, 1)
		equal(e, "reason of the first", r.Rejected[0].Column, "mobile")
	}},
	{"rows of an import whose number means another country are refused, with what is meant", func(e *env) {
		t := e.tenant("acme")
		r := e.load(t, e.list(t, "l"), importfile.CSV, "phone\n33612345678\n393331230022.0\n+39 333 123005O\n")
		equal(e, "figures", figures(r), [6]uint64{3, 1, 0, 0, 0, 2})
		for i, want := range []string{"with a leading + it is one of FR", "the letter 'O'"} {
			if !strings.Contains(r.Rejected[i].Reason, want) {
				e.Errorf("got %+v, want %q", r.Rejected[i], want)
			}
		}
		world, err := e.s.Import(e.Context(), t.ID, r.List, store.ImportOptions{Format: importfile.CSV, Region: "001"}, strings.NewReader("phone\n33612345678\n"), nil)
		e.must(err)
		equal(e, "imported from the world", world.Imported, 1)
	}},
}
