package text_test

import (
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"fanfare/schemas/text"
)

func TestFieldName(t *testing.T) {
	for in, want := range map[string]string{
		"First Name": "first_name", " E-Mail ": "e_mail", "città": "città", "__x__": "x", "a--b": "a_b", "": "", "№": "", "Größe 2": "größe_2",
		"citta\u0300": "città", "CITTA\u0300": "città", "\ufeffNome": "nome", "\u200eNome\u200f": "nome", "first\u200bname": "firstname",
		"नाम": "नाम", "ชื่อ": "ชื่อ", "الاسم": "الاسم", "ИМЯ": "имя", "ΟΔΌΣ": "οδόσ", "οδός": "οδόσ", "İsim": "isim", "お名前": "お名前",
		"order-id": "order_id", "Order ID": "order_id", "ORDER_ID": "order_id", "Prezzo (€)": "prezzo", "a\u0301\u0301": "á\u0301", "\u0301a": "a",
	} {
		if got := text.FieldName(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// For any header, FieldName does not change a name that it returned, and the name is in composed form.
func FuzzFieldName(f *testing.F) {
	for _, s := range []string{"First Name", "citta\u0300", "İ", "ΟΔΌΣ", "a\u0301\u0316", "\xff", "ﬁ", "ǅ", "\u0345a", "ᾼ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name := text.FieldName(s)
		if again := text.FieldName(name); again != name {
			t.Fatalf("%q: got %q, and of that %q", s, name, again)
		}
		if !utf8.ValidString(name) || !norm.NFC.IsNormalString(name) {
			t.Fatalf("%q: got %q, want composed text", s, name)
		}
	})
}

func TestColumn(t *testing.T) {
	for name, want := range map[string]string{
		"nome": "first_name", "firstname": "first_name", "first_name": "first_name", "prénom": "first_name", "имя": "first_name", "名": "first_name",
		"cognome": "last_name", "姓": "last_name", "e_mail": "email", "e_mail_1_value": "email", "phone": "phone", "mobile": "phone",
		"phone_1_value": "phone", "mobile_phone": "phone", "τηλέφωνο": "phone", "電話番号": "phone", "city": "", "": "", "fax": "",
		"phone_1_label": "", "phone_1_type": "",
	} {
		if got, _ := text.Column(text.FieldName(name)); got != want {
			t.Errorf("%s: got column %q, want %q", name, got, want)
		}
	}
	_, mobile := text.Column("mobile")
	if _, phone := text.Column("phone"); mobile >= phone {
		t.Errorf("got mobile at rank %d and phone at %d, want the mobile first", mobile, phone)
	}
}

// Placeholders follow the same naming rule as the columns of an import.
func TestFieldsOfAFile(t *testing.T) {
	// The attributes as an import of the headers Nome, Order ID, città (decomposed) and नाम stores them.
	contact := values(map[string]string{"first_name": "Anna", "order_id": "17", "città": "Roma", "नाम": "अन्ना", "nome_di_battesimo": "Annamaria"})
	for in, want := range map[string]string{
		"{{Nome}}": "Anna", "{{nome}}": "Anna", "{{firstname}}": "Anna", "{{FIRST_NAME}}": "Anna", "{{First Name}}": "Anna", "{{ first-name }}": "Anna",
		"{{order-id}}": "17", "{{Order ID}}": "17", "{{order.id}}": "17", "{{ORDER_ID}}": "17", "{{citta\u0300}}": "Roma", "{{CITTÀ}}": "Roma",
		"{{नाम}}": "अन्ना", "{{Nome di battesimo}}": "Annamaria", "{{unknown}}": "", "{{orderid}}": "",
	} {
		tmpl, err := text.Parse(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got, err := tmpl.Append(nil, noLimit, contact, policyEmpty, ""); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", in, got, err, want)
		}
	}
	// An attribute with exactly that name takes precedence over the column of which the name is an alias.
	tmpl, err := text.Parse("{{nome}}")
	if err != nil {
		t.Fatal(err)
	}
	got, err := tmpl.Append(nil, noLimit, values(map[string]string{"first_name": "Hugh", "nome": "Ugo"}), policyFail, "")
	if err != nil || string(got) != "Ugo" {
		t.Errorf("got %q, %v, want the attribute", got, err)
	}
}

// Decomposed characters are composed before the text is measured, also across the border of text and value.
func TestAppendComposes(t *testing.T) {
	tmpl, err := text.Parse("Caffe\u0300 a{{accent}} {{name}}")
	if err != nil {
		t.Fatal(err)
	}
	got, err := tmpl.Append([]byte("e"), noLimit, values(map[string]string{"accent": "\u0300", "name": "Zoe\u0300"}), policyFail, "")
	if err != nil || string(got) != "eCaffè à Zoè" {
		t.Errorf("got %q, %v, want it composed", got, err)
	}
	if size := text.MeasureBytes(got[1:]); size.Segments != 1 || size.Units != len("Caffe a Zoe") {
		t.Errorf("got %+v, want one segment of GSM-7", size)
	}
}
