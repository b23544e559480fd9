package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing/iotest"
	"time"
	"unicode/utf16"

	"fanfare/api/importfile"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/audience"
)

// figures are the counts of a report: total, imported, updated, unchanged, duplicates, invalid.
func figures(r store.ImportReport) [6]uint64 {
	return [6]uint64{r.Total, r.Imported, r.Updated, r.Unchanged, r.Duplicates, r.Invalid}
}

// load imports a text into a list.
func (e *env) load(t store.Tenant, l store.List, format importfile.Format, text string) store.ImportReport {
	e.Helper()
	r, err := e.s.Import(e.Context(), t.ID, l.Number, store.ImportOptions{Format: format}, strings.NewReader(text), nil)
	e.must(err)
	saved, err := e.s.ImportReport(e.Context(), t.ID, r.ID)
	e.must(err)
	if figures(saved) != figures(r) || saved.State != store.ImportDone || len(saved.Rejected) != len(r.Rejected) || saved.RowsRead != r.Total {
		e.Errorf("got report %+v as saved, want %+v", saved, r)
	}
	return r
}

func utf16Text(s string, little bool) string {
	var b bytes.Buffer
	for _, u := range append([]uint16{0xfeff}, utf16.Encode([]rune(s))...) {
		if little {
			b.Write([]byte{byte(u), byte(u >> 8)})
		} else {
			b.Write([]byte{byte(u >> 8), byte(u)})
		}
	}
	return b.String()
}

var importTests = []test{
	{"every way to write the same file", func(e *env) {
		t := e.tenant("acme")
		plain := "phone,first_name,last_name,email,city\n+393330000001,Anna,Rossi,a@x.it,Roma\n3330000002,Élan,\"O\"\"Neil, jr\",,\"two\nlines\"\n"
		other := func(old, now string) string { return strings.ReplaceAll(plain, old, now) }
		semicolons := "phone;first_name;last_name;email;city\n+393330000001;Anna;Rossi;a@x.it;Roma\n3330000002;Élan;\"O\"\"Neil, jr\";;\"two\nlines\"\n"
		asJSON := `[{"phone":"+393330000001","first_name":"Anna","last_name":"Rossi","email":"a@x.it","city":"Roma"},
			{"phoneNumber":3330000002,"firstName":"Élan","surname":"O\"Neil, jr","email":null,"attributes":{"city":"two\nlines"}}]`
		for i, c := range []struct {
			name, text string
			format     importfile.Format
		}{
			{"plain", plain, importfile.CSV},
			{"byte order mark", "\xef\xbb\xbf" + plain, importfile.CSV},
			{"semicolons", semicolons, importfile.CSV},
			{"tabs", strings.ReplaceAll(semicolons, ";", "\t"), importfile.CSV},
			{"bars", strings.ReplaceAll(semicolons, ";", "|"), importfile.CSV},
			{"Excel's line", "sep=;\r\n" + semicolons, importfile.CSV},
			{"carriage returns", other("\n+", "\r\n+"), importfile.CSV},
			{"no newline at the end", strings.TrimSuffix(plain, "\n"), importfile.CSV},
			{"blank lines", "\n" + other("\n+", "\n\n,,,,\n+"), importfile.CSV},
			{"UTF-16 little", utf16Text(plain, true), importfile.CSV},
			{"UTF-16 big", utf16Text(semicolons, false), importfile.CSV},
			{"other names", other("phone,first_name,last_name,email,city", "Mobile Number, First Name ,SURNAME,E-Mail,City"), importfile.CSV},
			{"00", other("+39333", "0039 333 "), importfile.CSV},
			{"spreadsheet text", other("+39333", "'+39333"), importfile.CSV},
			{"JSON", asJSON, importfile.JSON},
			{"JSON lines", "\xef\xbb\xbf " + strings.Trim(strings.ReplaceAll(asJSON, "},", "}\n"), "[]"), importfile.JSON},
		} {
			l := e.list(t, fmt.Sprint("l", i))
			r := e.load(t, l, c.format, c.text)
			if r.Total != 2 || r.Invalid != 0 {
				e.Errorf("%s: got %v, rejected %v, want 2 rows", c.name, &r, r.Rejected)
				continue
			}
			got := e.contacts(t, l)
			if len(got) != 2 || got[0].Version != 1 || got[1].Version != 1 {
				e.Errorf("%s: got %+v, want two contacts that never changed since the first file", c.name, got)
				continue
			}
			if a, b := got[0], got[1]; a.Phone != "+393330000001" || a.FirstName != "Anna" || a.LastName != "Rossi" || a.Email != "a@x.it" ||
				a.Attributes["city"] != "Roma" || b.Phone != "+393330000002" || b.FirstName != "Élan" || b.LastName != `O"Neil, jr` ||
				b.Attributes["city"] != "two\nlines" || len(b.Attributes) != 1 {
				e.Errorf("%s: got %+v", c.name, got)
			}
		}
	}},
	{"the same file again changes nothing", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		// The second row of a number has a different value for one field, and a value for another field.
		file := "phone,first_name,city,team\n+393330000001,Anna,,\n+393330000002,Bob,Roma,\n3330000001,Anne,Milano,red\n+393330000002,Bill,Napoli,blue\n+44 20 7946 0000,Fix,,\n+12005550123,Bad,,\nnobody,,,\n"
		r := e.load(t, l, importfile.CSV, file)
		equal(e, "first time", figures(r), [6]uint64{7, 4, 0, 0, 2, 1})
		equal(e, "unreachable", r.Unreachable, 2)
		before := e.contacts(t, l)
		list, err := e.s.List(e.Context(), t.ID, l.Number)
		e.must(err)
		e.clock.add(time.Hour)
		r = e.load(t, l, importfile.CSV, file)
		equal(e, "second time", figures(r), [6]uint64{7, 0, 0, 4, 2, 1})
		for i, c := range e.contacts(t, l) {
			if !sameContact(c, before[i]) {
				e.Errorf("got %+v, want %+v", c, before[i])
			}
		}
		after, err := e.s.List(e.Context(), t.ID, l.Number)
		e.must(err)
		equal(e, "list", after, list)
		if c := before[0]; c.FirstName != "Anna" || c.Attributes["city"] != "Milano" || c.Attributes["team"] != "red" {
			e.Errorf("got %+v, want the first row with what the third adds", c)
		}
		if c := before[1]; c.FirstName != "Bob" || c.Attributes["city"] != "Roma" || c.Attributes["team"] != "blue" {
			e.Errorf("got %+v, want the second row with what the fourth adds", c)
		}
		if c := before[2]; !c.Valid || c.Class != audience.FixedLine {
			e.Errorf("got %+v, want a fixed line", c)
		}
		if c := before[3]; c.Valid || c.Phone != "+12005550123" {
			e.Errorf("got %+v, want a number that is not valid", c)
		}
	}},
	{"an update changes what it says", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		e.load(t, l, importfile.CSV, "phone,first_name,city,team\n+393330000001,Anna,Roma,red\n+393330000002,Bob,,\n")
		r := e.load(t, l, importfile.CSV, "phone,first_name,city\n+393330000001,,Milano\n+393330000002,Bob,\n+393330000003,Cy,\n")
		equal(e, "figures", figures(r), [6]uint64{3, 1, 1, 1, 0, 0})
		c := e.contacts(t, l)[0]
		if c.FirstName != "Anna" || c.Attributes["city"] != "Milano" || c.Attributes["team"] != "red" || c.Version != 2 {
			e.Errorf("got %+v, want Anna of Milano, red, version 2", c)
		}
		// The contacts are known to the tenant, but new in this list.
		other := e.list(t, "other")
		r = e.load(t, other, importfile.CSV, "phone\n+393330000001\n")
		equal(e, "in another list", figures(r), [6]uint64{1, 1, 0, 0, 0, 0})
		// A deleted contact is imported again.
		e.must(e.s.DeleteContact(e.Context(), t.ID, c.Number, 0))
		r = e.load(t, l, importfile.CSV, "phone,team\n+393330000001,blue\n")
		equal(e, "after a deletion", figures(r), [6]uint64{1, 1, 0, 0, 0, 0})
		back, err := e.s.ContactByPhone(e.Context(), t.ID, mobile(1))
		e.must(err)
		if !back.Deleted.IsZero() || back.FirstName != "" || back.Attributes["team"] != "blue" || len(back.Attributes) != 1 {
			e.Errorf("got %+v, want it back with nothing of before", back)
		}
	}},
	{"refused rows say why, and the rest goes on", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		file := "phone,name,timezone\n" + // 1
			"+393330000001,ok,\n" +
			"3.9E+11,excel,\n" + // 3
			"\"3,93333E+11\",excel,\n" +
			",empty,\n" +
			"hello,word,\n" +
			"+393330000002,a,b,c\n" + // 7
			"\"+39333\"x,quote,\n" +
			"+393330000003,\xff,\n" +
			"+393330000004," + strings.Repeat("x", 1100) + ",\n" + // 10
			"+393330000005,zone,Rome\n" +
			"+39333000000612345,long,\n" +
			"+393330000007,\"never closed,\n" + // 13
			"+393330000008,ok,\n"
		r := e.load(t, l, importfile.CSV, file)
		equal(e, "figures", figures(r), [6]uint64{13, 2, 0, 0, 0, 11})
		want := []struct {
			line   uint64
			column string
			reason string
		}{
			{3, "phone", "spreadsheet"},
			{4, "phone", "spreadsheet"},
			{5, "phone", "empty"},
			{6, "phone", "not a phone number"},
			{7, "", "more cells"},
			{8, "", "closing quote"},
			{9, "name", "UTF-8"},
			{10, "", "at most 1024"},
			{11, "timezone", "IANA"},
			{12, "phone", "digits"},
			{13, "", "never closed"},
		}
		if len(r.Rejected) != len(want) {
			e.Fatalf("got %v, want %d", r.Rejected, len(want))
		}
		for i, w := range want {
			got := r.Rejected[i]
			if got.Line != w.line || got.Column != w.column || !strings.Contains(got.Reason, w.reason) {
				e.Errorf("got %+v, want line %d, column %q, %s", got, w.line, w.column, w.reason)
			}
		}
		equal(e, "value", r.Rejected[0].Value, "3.9E+11")
		equal(e, "members", e.members(t, l), mobile(1)+" "+mobile(8))
	}},
	{"refused rows of JSON", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		r := e.load(t, l, importfile.JSON, `[{"phone":"+393330000001"}, 5, {"phone":["x"]}, {"phone":{"a":1}}, {}, {"phone":"x"}, {"phone":"+393330000003","phone":"+393330000004"}, {"phone":"+393330000003","first_name":"Zo`+"\xeb"+`"}, `+
			`{"phone":"+393330000003","first_name":"\ud83d"}, {"phone":"+393330000003","attributes":{"a":"1","a":"2"}}, {"phone":"+393330000003","city":"a\u0000"}, `+
			`{"phone":"+393330000002","ok":true,"none":null,"n":1.50}]`)
		equal(e, "figures", figures(r), [6]uint64{12, 2, 0, 0, 0, 10})
		for i, want := range []string{"not an object", "holds a list", "holds an object", "empty", "not a phone number", "occurs twice", "not UTF-8", "not text", "occurs twice", "NUL"} {
			if got := r.Rejected[i]; got.Line != uint64(i+2) || !strings.Contains(got.Reason, want) {
				e.Errorf("got %+v, want object %d, %s", got, i+2, want)
			}
		}
		if c := e.contacts(t, l)[1]; c.Attributes["ok"] != "true" || c.Attributes["n"] != "1.50" {
			e.Errorf("got %v, want true and 1.50 as written", c.Attributes)
		}
	}},
	{"the first thousand refused rows are named", func(e *env) {
		t := e.tenant("acme")
		r := e.load(t, e.list(t, "l"), importfile.CSV, "phone\n"+strings.Repeat("nobody\n", 1500))
		equal(e, "invalid and named", [2]int{int(r.Invalid), len(r.Rejected)}, [2]int{1500, store.MaxRejected})
	}},
	{"files that are none", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		for _, c := range []struct {
			format importfile.Format
			text   string
			want   string
		}{
			{importfile.CSV, "", "empty"},
			{importfile.CSV, "name,city\nx,y\n", "phone"},
			// Without these errors the import would lose data silently.
			{importfile.CSV, "phone,city,City\n+393330000001,x,y\n", `two columns of the header are "city"`},
			{importfile.CSV, "phone,first_name,First Name\n+393330000001,x,y\n", `two columns of the header are "first_name"`},
			{importfile.CSV, "phone,phone\n+393330000001,+393330000002\n", `two columns of the header are "phone"`},
			{importfile.CSV, "phone,citt\xe0\n+393330000001,x\n", "UTF-8"},
			{importfile.CSV, strings.TrimPrefix(utf16Text("phone,city\n+393330000001,x\n", true), "\xff\xfe"), "UTF-8"},
			{importfile.CSV, "PK\x03\x04\x14\x00", "workbook"},
			{importfile.JSON, "", "empty"},
			{importfile.JSON, `"x"`, "array"},
			{"xml", "x", "csv, json, xlsx or vcard"},
		} {
			_, err := e.s.Import(e.Context(), t.ID, l.Number, store.ImportOptions{Format: c.format}, strings.NewReader(c.text), nil)
			e.wantErr(err, store.ErrInvalid)
			if err != nil && !strings.Contains(err.Error(), c.want) {
				e.Errorf("%q: got error %q, want it to name %s", c.text, err, c.want)
			}
		}
		_, err := e.s.Import(e.Context(), t.ID, 99, store.ImportOptions{Format: importfile.CSV}, strings.NewReader(""), nil)
		e.wantErr(err, schemas.ErrNotFound)
		_, err = e.s.Import(e.Context(), t.ID, l.Number, store.ImportOptions{Format: importfile.CSV, Region: "XX"}, strings.NewReader(""), nil)
		e.wantErr(err, store.ErrInvalid)
	}},
	{"columns can be named, and the region", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		r, err := e.s.Import(e.Context(), t.ID, l.Number, store.ImportOptions{
			Format: importfile.CSV, Region: "gb", Columns: map[string]string{"Contact": "phone", "phone": "office", "secret": "-", "Who": "first_name"},
		}, strings.NewReader("Contact,phone,secret,Who\n07400 123456,020 7946 0000,xyz,Anna\n"), nil)
		e.must(err)
		equal(e, "figures", figures(r), [6]uint64{1, 1, 0, 0, 0, 0})
		c := e.contacts(t, l)[0]
		if c.Phone != "+447400123456" || c.FirstName != "Anna" || len(c.Attributes) != 1 || c.Attributes["office"] != "020 7946 0000" {
			e.Errorf("got %+v", c)
		}
		// If two columns could be the first name, the import takes the exact one, and the other becomes an attribute. A
		// column that the client names is found in upper and lower case.
		e.load(t, l, importfile.CSV, "phone,Nome,first_name\n+393330000001,Ugo,Hugh\n")
		if c := e.contacts(t, l)[1]; c.FirstName != "Hugh" || c.Attributes["nome"] != "Ugo" {
			e.Errorf("got %+v, want Hugh, and nome beside it", c)
		}
		for want, names := range map[string]map[string]string{
			`no column of the header is called "Cel"`:    {"Cel": "phone"},
			`two columns of the header are "first_name"`: {"Who": "first_name", "secret": "first_name"},
			`two columns of the header are "office"`:     {"Who": "office", "secret": "office"},
			"lower-case letters":                         {"Who": "Some Body"},
		} {
			_, err := e.s.Import(e.Context(), t.ID, l.Number, store.ImportOptions{Format: importfile.CSV, Columns: names}, strings.NewReader("phone,secret,Who\n+393330000001,x,y\n"), nil)
			e.wantErr(err, store.ErrInvalid)
			if err != nil && !strings.Contains(err.Error(), want) {
				e.Errorf("%v: got error %q, want it to say %s", names, err, want)
			}
		}
	}},
	{"a broken stream keeps what was read", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		broken := errors.New("connection reset")
		for i, c := range []struct {
			format importfile.Format
			text   string
		}{
			{importfile.CSV, "phone\n+393330000001\n+393330000002\n+3933300"},
			{importfile.JSON, `[{"phone":"+393330000001"},{"phone":"+393330000002"},{"pho`},
		} {
			r, err := e.s.Import(e.Context(), t.ID, l.Number, store.ImportOptions{Format: c.format},
				io.MultiReader(strings.NewReader(c.text), iotest.ErrReader(broken)), nil)
			e.wantErr(err, store.ErrStream)
			e.wantErr(err, broken)
			equal(e, "rows read and kept", [2]uint64{r.RowsRead, r.Imported + r.Unchanged}, [2]uint64{2, 2})
			saved, err := e.s.ImportReport(e.Context(), t.ID, r.ID)
			e.must(err)
			if saved.State != store.ImportFailed || saved.RowsRead != 2 || !strings.Contains(saved.Error, "after 2 rows") {
				e.Errorf("%d: got %+v, want failed after 2 rows", i, saved)
			}
		}
		r, err := e.s.Import(e.Context(), t.ID, l.Number, store.ImportOptions{Format: importfile.JSON}, strings.NewReader(`[{"phone":"+393330000003"},oops]`), nil)
		e.wantErr(err, store.ErrStream)
		equal(e, "before the syntax error", r.Imported, 1)
		if err != nil && !strings.Contains(err.Error(), "after 1 rows: at byte 26") {
			e.Errorf("got error %q, want it to say where", err)
		}
		r, err = e.s.Import(e.Context(), t.ID, l.Number, store.ImportOptions{Format: importfile.JSON}, strings.NewReader(`[{"phone":"+393330000004"}`), nil)
		e.wantErr(err, store.ErrStream)
		equal(e, "before the missing end", r.Imported, 1)
	}},
	{"figures are seen while it runs, and others write", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		other := e.open() // a second process
		in, feed := io.Pipe()
		var once sync.Once
		id := make(chan string, 1)
		done := make(chan error, 1)
		go func() {
			_, err := e.s.Import(e.Context(), t.ID, l.Number, store.ImportOptions{Format: importfile.CSV}, in, func(r store.ImportReport) {
				once.Do(func() { id <- r.ID })
			})
			done <- err
		}()
		write := func(text string) {
			if _, err := io.WriteString(feed, text); err != nil {
				e.Error(err)
			}
		}
		running := <-id
		write("phone\n")
		deadline := time.Now().Add(10 * time.Second)
		for i := 0; ; i++ {
			write(mobile(i) + "\n" + strings.Repeat("\n", 200<<10)) // enough bytes that the reader passes the row on
			r, err := other.ImportReport(e.Context(), t.ID, running)
			e.must(err)
			if r.State == store.ImportRunning && r.RowsRead > 0 && r.Imported > 0 {
				break
			}
			if time.Now().After(deadline) {
				e.Fatalf("got %+v after 10 s, want rows to be seen", r)
			}
		}
		_, err := other.TopUp(e.Context(), t.ID, 1, "in between")
		e.must(err)
		e.must(feed.Close())
		e.must(<-done)
	}},
	{"two imports at once into lists of one tenant", func(e *env) {
		t := e.tenant("acme")
		a, b := e.list(t, "a"), e.list(t, "b")
		other := e.open()
		const n = 800
		file := func(seed uint64) string {
			var text strings.Builder
			text.WriteString("phone,city\n")
			for _, i := range rand.New(rand.NewPCG(seed, 1)).Perm(n) {
				fmt.Fprintf(&text, "%s,Roma\n", mobile(i))
			}
			return text.String()
		}
		var wg sync.WaitGroup
		for i, c := range []struct {
			s *store.Store
			l store.List
		}{{e.s, a}, {other, b}} {
			wg.Go(func() {
				r, err := c.s.Import(e.Context(), t.ID, c.l.Number, store.ImportOptions{Format: importfile.CSV}, strings.NewReader(file(uint64(i))), nil)
				if err != nil || r.Imported != n {
					e.Errorf("got %v, %v, want %d imported", &r, err, n)
				}
			})
		}
		wg.Wait()
		_, total, err := e.s.Contacts(e.Context(), t.ID, store.ContactFilter{})
		e.must(err)
		equal(e, "contacts", total, n)
	}},
	{"an import whose process is gone has failed", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		in, feed := io.Pipe()
		id := make(chan string, 1)
		done := make(chan error, 1)
		go func() {
			_, err := e.s.Import(e.Context(), t.ID, l.Number, store.ImportOptions{Format: importfile.CSV}, in, func(r store.ImportReport) {
				if r.RowsRead == 0 {
					id <- r.ID
				}
			})
			done <- err
		}()
		state := func(id string) store.ImportState {
			e.must(e.s.Collect(e.Context()))
			r, err := e.s.ImportReport(e.Context(), t.ID, id)
			e.must(err)
			return r.State
		}
		silent := <-id
		equal(e, "at once", state(silent), store.ImportRunning)
		e.clock.add(11 * time.Minute)
		equal(e, "after silence", state(silent), store.ImportFailed)
		// The import was only slow: it now continues.
		_, err := io.WriteString(feed, "phone\n"+mobile(1)+"\n")
		e.must(errors.Join(err, feed.Close(), <-done))
		equal(e, "when it is done", state(silent), store.ImportDone)
	}},
	{"a cancelled import keeps what it has", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		ctx, cancel := contextWithCancel(e)
		n := 0
		text := "phone\n" + mobile(1) + "\n" + strings.Repeat("\n", 200_000) // needs more than one read
		r, err := e.s.Import(ctx, t.ID, l.Number, store.ImportOptions{Format: importfile.CSV}, readerFunc(func(b []byte) (int, error) {
			if n >= len(text) {
				cancel()
				return 0, ctx.Err()
			}
			m := copy(b, text[n:])
			n += m
			return m, nil
		}), nil)
		if err == nil {
			e.Error("got no error, want one")
		}
		saved, err := e.s.ImportReport(e.Context(), t.ID, r.ID)
		e.must(err)
		equal(e, "state", saved.State, store.ImportFailed)
		e.list(t, "the connection that was cancelled still writes")
	}},
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
