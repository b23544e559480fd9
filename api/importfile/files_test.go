package importfile

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/xuri/excelize/v2"
	"golang.org/x/text/encoding/charmap"
)

// read reads a file to its end: each row as "Kind name=value" of its cells, joined by |, or as "refused: reason".
func read(t *testing.T, file []byte, o Options) ([]string, error) {
	t.Helper()
	r, err := Open(bytes.NewReader(file), o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	var out []string
	var row Row
	for {
		err := r.Next(&row)
		var bad *RowError
		switch {
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return out, nil
		case errors.As(err, &bad):
			out = append(out, fmt.Sprintf("refused: %s %s", bad.Column, bad.Reason))
			continue
		case err != nil:
			return out, err
		}
		phones := slices.DeleteFunc(slices.Clone(row.Cells), func(c Cell) bool { return c.Column.Kind != Phone })
		slices.SortStableFunc(phones, func(a, b Cell) int { return a.Column.Rank - b.Column.Rank })
		var parts []string
		for _, c := range row.Cells {
			if c.Column.Kind == Phone { // in the order of their rank
				c, phones = phones[0], phones[1:]
			}
			name, own := fields[c.Column.Kind]
			if !own {
				name = c.Column.Name
			}
			parts = append(parts, name+"="+c.Value)
		}
		out = append(out, strings.Join(parts, "|"))
	}
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(b)
	_ = z.Close()
	return out.Bytes()
}

func utf16le(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return b
}

func latin1(s string) []byte {
	out, err := charmap.Windows1252.NewEncoder().String(s)
	if err != nil {
		panic(err)
	}
	return []byte(out)
}

func workbook(t *testing.T, sheets ...[][]any) []byte {
	t.Helper()
	f := excelize.NewFile()
	for i, rows := range sheets {
		name := fmt.Sprintf("Sheet%d", i+1)
		if i > 0 {
			if _, err := f.NewSheet(name); err != nil {
				t.Fatal(err)
			}
		}
		for j, row := range rows {
			if err := f.SetSheetRow(name, fmt.Sprintf("A%d", j+1), &row); err != nil {
				t.Fatal(err)
			}
		}
	}
	var b bytes.Buffer
	if err := f.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Files as programs and people write them. All have the same two people.
func TestFiles(t *testing.T) {
	plain := "phone,first_name,city\n+393330000001,Zoë,Roma\n+393330000002,Élan,\"Forlì, Cesena\"\n"
	want := []string{"phone=+393330000001|first_name=Zoë|city=Roma", "phone=+393330000002|first_name=Élan|city=Forlì, Cesena"}
	semicolons := "phone;first_name;city\n+393330000001;Zoë;Roma\n+393330000002;Élan;Forlì, Cesena\n"
	for name, c := range map[string]struct {
		file []byte
		o    Options
	}{
		"plain":                                {[]byte(plain), Options{Format: CSV}},
		"nothing said of it":                   {[]byte(plain), Options{}},
		"byte order mark":                      {[]byte("\ufeff" + plain), Options{Format: CSV}},
		"gzip":                                 {gzipped([]byte(plain)), Options{Format: CSV}},
		"UTF-16 with its mark":                 {append([]byte("\xff\xfe"), utf16le(plain)...), Options{Format: CSV}},
		"UTF-16 by its charset":                {utf16le(plain), Options{Format: CSV, Charset: "UTF-16LE"}},
		"utf-16 by its charset, and quoted":    {utf16le(plain), Options{Format: CSV, Charset: `"utf-16"`}},
		"ISO-8859-1 by its charset":            {latin1(plain), Options{Format: CSV, Charset: "ISO-8859-1"}},
		"gzip of ISO-8859-1":                   {gzipped(latin1(plain)), Options{Format: CSV, Charset: "iso-8859-1"}},
		"UTF-8 with a mark, said to be latin1": {[]byte("\ufeff" + plain), Options{Format: CSV, Charset: "iso-8859-1"}},
		"semicolons":                           {[]byte(semicolons), Options{Format: CSV}},
		"SEP=;":                                {[]byte("SEP=;\r\n" + semicolons), Options{Format: CSV}},
		`"sep=;"`:                              {[]byte("\"sep=;\"\n" + semicolons), Options{Format: CSV}},
		"a blank before a quote":               {[]byte(strings.Replace(plain, `,"Forlì`, `, "Forlì`, 1)), Options{Format: CSV}},
		"blanks around a quote":                {[]byte(strings.Replace(plain, `,"Forlì, Cesena"`, ",\t\"Forlì, Cesena\" ", 1)), Options{Format: CSV}},
		"every kind of blank":                  {[]byte(strings.NewReplacer("Zoë,", "\u2009Zoë\u00a0,", "+39", "\u202a+39", "Roma", "\u3000Roma\u200b", "1,", "1\u202c,", "2,", "2\u202c,").Replace(plain)), Options{Format: CSV}},
		"JSON":                                 {[]byte("\ufeff[{\"phone\":\"+393330000001\",\"first_name\":\"Zoë\",\"city\":\"Roma\"},\n{\"phone\":\"+393330000002\",\"first_name\":\"Élan\",\"city\":\"Forlì, Cesena\"}]"), Options{}},
		"NDJSON, gzip":                         {gzipped([]byte("{\"phone\":\"+393330000001\",\"first_name\":\"Zoë\",\"city\":\"Roma\"}\n{\"phone\":\"+393330000002\",\"first_name\":\"Élan\",\"city\":\"Forlì, Cesena\"}\n")), Options{Format: JSON}},
		"XLSX":                                 {workbook(t, [][]any{{"phone", "first_name", "city"}, {"+393330000001", "Zoë", "Roma"}, {"+393330000002", "Élan", "Forlì, Cesena"}}), Options{Format: XLSX}},
		"XLSX said to be CSV, on the second sheet": {workbook(t, [][]any{{"notes"}, {"nothing"}}, [][]any{{}, {"phone", "first_name", "city"}, {"+393330000001", "Zoë", "Roma"}, {}, {"+393330000002", "Élan", "Forlì, Cesena"}}), Options{Format: CSV}},
		"vCard": {[]byte("BEGIN:VCARD\r\nVERSION:3.0\r\nN:;Zoë;;;\r\nTEL;TYPE=CELL:+393330000001\r\nADR:;;;Roma;;;\r\nEND:VCARD\r\nBEGIN:VCARD\r\nVERSION:3.0\r\nN:;Élan\r\nTEL:+393330000002\r\nADR:;;Via x;Forlì\\, \r\n Cesena;;;\r\nEND:VCARD"), Options{}},
	} {
		got, err := read(t, c.file, c.o)
		for i, row := range got { // the order of the cells follows the format
			parts := strings.Split(row, "|")
			slices.SortFunc(parts, func(a, b string) int {
				order := []string{"phone", "first_name", "city"}
				name := func(s string) int { n, _, _ := strings.Cut(s, "="); return slices.Index(order, n) }
				return name(a) - name(b)
			})
			got[i] = strings.Join(parts, "|")
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
}

// A file that is separated by semicolons, but has more commas in its header or its texts.
func TestSeparator(t *testing.T) {
	for file, want := range map[string]string{
		"Cellulare;Nome, cognome, titolo;Città, provincia, CAP\n+393330000001;Rossi, Anna;Roma, RM, 00100\n": "phone=+393330000001|nome_cognome_titolo=Rossi, Anna|città_provincia_cap=Roma, RM, 00100",
		"phone\tnotes, and more, and more\n+393330000001\ta, b\n":                                            "phone=+393330000001|notes_and_more_and_more=a, b",
		"phone,a;b;c;d\n+393330000001,x\n":                                                                   "phone=+393330000001|a_b_c_d=x",
		"phone\n+393330000001\n":                                                                             "phone=+393330000001",
		"name|phone\nx|+393330000001\n":                                                                      "name=x|phone=+393330000001",
		"\"phone\";\"a;b\"\n\"+393330000001\";\"1;2\"\n":                                                     "phone=+393330000001|a_b=1;2",
	} {
		if got, err := read(t, []byte(file), Options{Format: CSV}); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%q: got %q, %v, want %q", file, got, err, want)
		}
	}
}

// The headers that Google Contacts, Outlook and exports of an iPhone have.
func TestAddressBooks(t *testing.T) {
	for file, want := range map[string]string{
		// Google, since 2024 and before.
		"First Name,Middle Name,Last Name,Phonetic First Name,Name Prefix,Nickname,Organization Name,Birthday,Notes,Photo,Labels,E-mail 1 - Label,E-mail 1 - Value,Phone 1 - Label,Phone 1 - Value,Phone 2 - Label,Phone 2 - Value\nAnna,,Rossi,,,,Acme,,,,* myContacts,* ,a@x.it,Work,06 4520 1234,Mobile,+39 333 0000001\n": "first_name=Anna|last_name=Rossi|organization_name=Acme|labels=* myContacts|e_mail_1_label=*|email=a@x.it|phone_1_label=Work|phone=06 4520 1234|phone_2_label=Mobile|phone=+39 333 0000001",
		"Name,Given Name,Family Name,E-mail 1 - Type,E-mail 1 - Value,Phone 1 - Type,Phone 1 - Value\nAnna Rossi,Anna,Rossi,*,a@x.it,Mobile,+393330000001 ::: +393330000002\n":                                                                                                                                                "name=Anna Rossi|first_name=Anna|last_name=Rossi|e_mail_1_type=*|email=a@x.it|phone_1_type=Mobile|phone=+393330000001 ::: +393330000002",
		// Outlook.
		"First Name,Last Name,E-mail Address,E-mail 2 Address,Primary Phone,Home Phone,Mobile Phone,Business Phone,Business Fax,Home City\nAnna,Rossi,a@x.it,b@x.it,06 1,06 2,333 0000001,06 3,06 4,Roma\n": "first_name=Anna|last_name=Rossi|email=a@x.it|e_mail_2_address=b@x.it|business_fax=06 4|home_city=Roma|phone=333 0000001|phone=06 1|phone=06 2|phone=06 3",
		// An iPhone's, as the programs that export them write it.
		"First name,Last name,Phone : mobile,Phone : home,Email : home\nAnna,Rossi,333 0000001,06 2,a@x.it\n": "first_name=Anna|last_name=Rossi|phone=333 0000001|phone=06 2|email=a@x.it",
		// In other languages.
		"Vorname;Nachname;Mobiltelefon;E-Mail-Adresse\nAnna;Rossi;0151 1;a@x.de\n": "first_name=Anna|last_name=Rossi|phone=0151 1|email=a@x.de",
		"Prénom;Nom;Téléphone portable\nAnna;Rossi;06 1\n":                         "first_name=Anna|last_name=Rossi|phone=06 1",
		"Имя;Фамилия;Мобильный телефон;E-mail\nАнна;Росси;+7 912 1;a@x.ru\n":       "first_name=Анна|last_name=Росси|phone=+7 912 1|email=a@x.ru",
		"姓,名,電話番号,メールアドレス\n鈴木,花子,090 1,a@x.jp\n":                                   "last_name=鈴木|first_name=花子|phone=090 1|email=a@x.jp",
		"phone,mobile,name\n06 4520 1234,333 0000001,x\n":                          "name=x|phone=333 0000001|phone=06 4520 1234",
		"number,phone,to\n17,333 0000001,x\n":                                      "number=17|to=x|phone=333 0000001",
		"number,name\n333 0000001,x\n":                                             "name=x|phone=333 0000001",
		",phone,Unnamed\n0,333 0000001,y\n":                                        "column_1=0|unnamed=y|phone=333 0000001",
	} {
		got, err := read(t, []byte(file), Options{Format: CSV})
		parts := func(s string) []string { p := strings.Split(s, "|"); slices.Sort(p); return p }
		if err != nil || len(got) != 1 || !slices.Equal(parts(got[0]), parts(want)) {
			t.Errorf("%q:\n got %q, %v\nwant %q", file, got, err, want)
			continue
		}
		phones := func(s string) (out []string) {
			for p := range strings.SplitSeq(s, "|") {
				if strings.HasPrefix(p, "phone=") {
					out = append(out, p)
				}
			}
			return out
		}
		if !slices.Equal(phones(got[0]), phones(want)) {
			t.Errorf("%q: got the numbers in the order %q, want %q", file, phones(got[0]), phones(want))
		}
	}
}

// vCards as Android (2.1), Google, Outlook and iPhones (3.0), and others (4.0) write them.
func TestVCards(t *testing.T) {
	photo := "PHOTO;ENCODING=b;TYPE=JPEG:" + strings.Repeat(strings.Repeat("A", 74)+"\r\n ", 3000) + "A"
	for name, c := range map[string]struct{ file, want string }{
		"Android": {
			"BEGIN:VCARD\r\nVERSION:2.1\r\nN;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:=52=C3=B3ssi;Ann=C3=A0;;;\r\nFN;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:=41=6E=6E=C3=A0=20=\r\n=52=6F=73=73=69\r\nTEL;HOME:06-4520-1234\r\nTEL;CELL;PREF:333-000-0001\r\n" + photo + "\r\nEND:VCARD\r\n",
			"last_name=Róssi|first_name=Annà|full_name=Annà Rossi|phone=333-000-0001|phone=06-4520-1234",
		},
		"Latin-1 of 2.1": {
			"BEGIN:VCARD\nVERSION:2.1\nN;CHARSET=ISO-8859-1;ENCODING=QUOTED-PRINTABLE:Rossi;Ann=E0\nTEL;CELL:+393330000001\nEND:VCARD\n",
			"last_name=Rossi|first_name=Annà|phone=+393330000001",
		},
		"iPhone": {
			"BEGIN:VCARD\nVERSION:3.0\nPRODID:-//Apple Inc.//iPhone OS 17.0//EN\nN:Rossi;Anna;;;\nFN:Anna Rossi\nORG:Acme\\, Inc.;Sales\nitem1.EMAIL;type=INTERNET;type=pref:a@x.it\nTEL;type=WORK;type=VOICE;type=pref:06 4520 1234\nTEL;type=IPHONE;type=CELL;type=VOICE:+39 333 000 0001\nTEL;type=HOME;type=FAX:06 9\nitem2.ADR;type=HOME:;;Via Roma 1\\nint. 2;Roma;RM;00100;Italia\nBDAY:1980-05-01\nEND:VCARD\n",
			"last_name=Rossi|first_name=Anna|full_name=Anna Rossi|organization=Acme, Inc.|email=a@x.it|phone=+39 333 000 0001|phone=06 4520 1234|city=Roma|postal_code=00100|country=Italia|birthday=1980-05-01",
		},
		"4.0": {
			"BEGIN:VCARD\r\nVERSION:4.0\r\nN:Rossi;Anna;;;\r\nTEL;VALUE=uri;PREF=1;TYPE=\"voice,home\":tel:+39-06-4520-1234\r\nTEL;VALUE=uri;TYPE=\"cell,text\":tel:+39-333-000-0001\r\nTZ:-0500\r\nNOTE;X-A=\"a:b;c\":x\r\nEND:VCARD",
			"last_name=Rossi|first_name=Anna|phone=+39-333-000-0001|phone=+39-06-4520-1234",
		},
		"a card within a card": {
			"BEGIN:VCARD\nN:Rossi;Anna\nAGENT:\nBEGIN:VCARD\nTEL;CELL:+393339999999\nEND:VCARD\nTEL;CELL:+393330000001\nEND:VCARD\n",
			"last_name=Rossi|first_name=Anna|phone=+393330000001",
		},
	} {
		got, err := read(t, []byte(c.file), Options{Format: VCard})
		parts := func(s string) []string { p := strings.Split(s, "|"); slices.Sort(p); return p }
		if err != nil || len(got) != 1 || !slices.Equal(parts(got[0]), parts(c.want)) {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, c.want)
			continue
		}
		if i, j := strings.Index(got[0], "phone=+39"), strings.Index(got[0], "phone=06"); name == "iPhone" && i > j {
			t.Errorf("%s: got %q, want the mobile first", name, got[0])
		}
	}
	if _, err := read(t, []byte("BEGIN:VCARD\nTEL:1\n"), Options{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got error %v of a card without an end, want that a part is missing", err)
	}
	if got, err := read(t, []byte("BEGIN:VCARD\nN;CHARSET=KLINGON;ENCODING=QUOTED-PRINTABLE:x\nTEL:1\nEND:VCARD\nBEGIN:VCARD\nTEL:+393330000001\nEND:VCARD"), Options{}); err != nil || len(got) != 2 || !strings.Contains(got[0], "KLINGON") || got[1] != "phone=+393330000001" {
		t.Errorf("got %q, %v, want the first refused and the second read", got, err)
	}
}

// A cell of a workbook that Excel takes for a number is that number, and a date is a date.
func TestWorkbook(t *testing.T) {
	f := excelize.NewFile()
	style, err := f.NewStyle(&excelize.Style{NumFmt: 14})
	if err != nil {
		t.Fatal(err)
	}
	for cell, v := range map[string]any{"A1": "Cellulare", "B1": "Nascita", "C1": "Importo", "A2": 393330000001, "B2": 29342.0, "C2": 12.5, "A3": 393330000002.0, "D3": "x"} {
		if err := f.SetCellValue("Sheet1", cell, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.SetCellStyle("Sheet1", "B2", "B2", style); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := f.Write(&b); err != nil {
		t.Fatal(err)
	}
	got, err := read(t, b.Bytes(), Options{})
	if want := []string{"phone=393330000001|nascita=05-01-80|importo=12.5", "refused:  has more cells than the header, which has 3"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), "fanfare-import-*"))
	if len(left) > 0 {
		t.Errorf("got %q left on disk, want nothing", left)
	}
}

// Files that are refused, each with an error that says what to do.
func TestRefusedFiles(t *testing.T) {
	zipped := func(parts map[string]int64) []byte {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		for name, size := range parts {
			w, _ := z.Create(name)
			_, _ = io.CopyN(w, zeros{}, size)
		}
		_ = z.Close()
		return b.Bytes()
	}
	for name, c := range map[string]struct {
		file []byte
		o    Options
		want string
	}{
		"old workbook":      {[]byte("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), Options{Format: CSV}, ".xls"},
		"no workbook":       {[]byte("{}"), Options{Format: XLSX}, "is not a workbook"},
		"no sheet":          {zipped(map[string]int64{"readme.txt": 5}), Options{}, "without a sheet"},
		"damaged":           {[]byte("PK\x03\x04damaged"), Options{}, "damaged"},
		"empty workbook":    {workbook(t), Options{}, "is empty"},
		"without a phone":   {workbook(t, [][]any{{"name"}, {"x"}}), Options{}, "no column of the header is the phone"},
		"bomb of sheets":    {zipped(map[string]int64{"xl/worksheets/sheet1.xml": 40 << 20, "xl/worksheets/sheet2.xml": 40 << 20}), Options{MaxBytes: 64 << 20}, "more than 64 MB once it is unpacked"},
		"bomb of pictures":  {zipped(map[string]int64{"xl/worksheets/sheet1.xml": 5, "xl/media/a.png": 60 << 20}), Options{}, "too many sheets, pictures"},
		"bomb of gzip":      {gzipped(bytes.Repeat([]byte("phone\n"), 1<<20)), Options{MaxBytes: 4 << 20}, "longer than 4 MB once it is unpacked"},
		"unknown charset":   {[]byte("phone\n"), Options{Format: CSV, Charset: "klingon"}, `Charset "klingon": is not known`},
		"latin1 undeclared": {latin1("phone,città\n1,x\n"), Options{Format: CSV}, "say which charset it is in"},
		"damaged gzip":      {[]byte("\x1f\x8bxx"), Options{Format: CSV}, "gzip cannot read it"},
		"no vCard":          {[]byte("phone\n1\n"), Options{Format: VCard}, "is not a vCard"},
		"unknown format":    {[]byte("phone\n1\n"), Options{Format: "xml"}, "want csv, json, xlsx or vcard"},
	} {
		_, err := read(t, c.file, c.o)
		var bad *FileError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want a FileError with %q", name, err, c.want)
		}
	}
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), "fanfare-import-*"))
	if len(left) > 0 {
		t.Errorf("got %q left on disk, want nothing", left)
	}
}

// A row whose attributes have no name, or the name of a field of ours, is refused with the attribute named; the others
// are read.
func TestNamesOfAttributes(t *testing.T) {
	got, err := read(t, []byte(`[
		{"phone":"+393330000001","":"x"},
		{"phone":"+393330000002","attributes":{"—":"x"}},
		{"phone":"+393330000003","attributes":{"phone":"1"}},
		{"phone":"+393330000004","attributes":{"city":"Rome"}}]`), Options{Format: JSON})
	if err != nil || len(got) != 4 {
		t.Fatalf("got %q and error %v, want 4 rows", got, err)
	}
	for i, want := range []string{"refused:  cannot be the name", "refused: attributes.— cannot be the name", "refused: attributes.phone is a field of its own", "city=Rome|phone=+393330000004"} {
		if !strings.HasPrefix(got[i], want) {
			t.Errorf("row %d: got %q, want %q", i+1, got[i], want)
		}
	}
}

// zeros is a file that compresses well.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A large workbook is read as a stream: the memory in use does not grow with its rows.
func TestWorkbookMemory(t *testing.T) {
	f := excelize.NewFile()
	w, err := f.NewStreamWriter("Sheet1")
	if err != nil {
		t.Fatal(err)
	}
	const rows = 60_000
	if err := w.SetRow("A1", []any{"phone", "first_name", "email"}); err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		if err := w.SetRow(fmt.Sprintf("A%d", i+2), []any{393330000000 + i, "Anna", fmt.Sprintf("anna%d@example.com and some more text", i)}); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "large.xlsx")
	if err := errors.Join(w.Flush(), f.SaveAs(path), f.Close()); err != nil {
		t.Fatal(err)
	}
	f, w = nil, nil //nolint:wastedassign // lets go of the memory before it is measured
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	r, err := Open(in, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	var row Row
	var most uint64
	n := 0
	for ; r.Next(&row) == nil; n++ {
		if n%20_000 == 0 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
	}
	if n != rows || most > 40<<20 {
		t.Errorf("got %d rows and %d MB held, want %d and at most 40", n, most>>20, rows)
	}
}
