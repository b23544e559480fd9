package store

import (
	"fmt"
	"slices"
	"strings"
)

// columnKind says what a column is.
type columnKind uint8

const (
	columnAttribute columnKind = iota
	columnPhone
	columnFirstName
	columnLastName
	columnEmail
	columnSkip
)

// column of a file.
type column struct {
	kind   columnKind
	name   string // of an attribute
	header string // as the file spells it
	rank   int    // among the columns that could be the phone: the least is
}

// aliases of the columns, as FieldName spells them without underscores; the phone's in the order in which they are believed.
var aliases = map[columnKind][]string{
	columnPhone: {
		"phone", "phonenumber", "e164", "msisdn", "mobile", "mobilephone", "mobilenumber", "cell", "cellphone", "cellnumber", "telephone",
		"telephonenumber", "tel", "telefono", "cellulare", "telefon", "handy", "destination", "recipient", "numero", "number", "to",
	},
	columnFirstName: {"firstname", "givenname", "forename", "nome", "prenom", "vorname", "nombre"},
	columnLastName:  {"lastname", "surname", "familyname", "cognome", "nachname", "apellido", "apellidos"},
	columnEmail:     {"email", "emailaddress", "mail"},
}

// columnOf says what a column of that header is; names have the last word.
func columnOf(header string, names map[string]string) (*column, error) {
	c := &column{header: header, name: FieldName(header)}
	if field, ok := names[header]; ok {
		switch field {
		case "-":
			c.kind = columnSkip
		case FieldPhone:
			c.kind, c.rank = columnPhone, -1
		case FieldFirstName:
			c.kind = columnFirstName
		case FieldLastName:
			c.kind = columnLastName
		case FieldEmail:
			c.kind = columnEmail
		default:
			if c.name = FieldName(field); c.name != field || field == "" {
				return nil, &FieldError{"Columns", field, "want a name of lower-case letters, digits and underscores"}
			}
		}
		return c, nil
	}
	plain := strings.ReplaceAll(c.name, "_", "")
	for kind, words := range aliases {
		if rank := slices.Index(words, plain); rank >= 0 {
			c.kind, c.rank = kind, rank
		}
	}
	return c, nil
}

// columnsOf says what the columns of a header are. Of several that could be the phone one is; the others are attributes.
func columnsOf(headers []string, names map[string]string) ([]*column, error) {
	out := make([]*column, len(headers))
	phone := -1
	for i, header := range headers {
		header = strings.TrimSpace(header)
		c, err := columnOf(header, names)
		if err != nil {
			return nil, err
		}
		if c.name == "" {
			c.name = fmt.Sprintf("column_%d", i+1)
		}
		out[i] = c
		if c.kind == columnPhone {
			if phone >= 0 && out[phone].rank <= c.rank {
				c.kind = columnAttribute
				continue
			}
			if phone >= 0 {
				out[phone].kind = columnAttribute
			}
			phone = i
		}
	}
	if phone < 0 {
		return nil, &FieldError{"file", "", fmt.Sprintf("no column of the header is the phone: want one called phone, got %s", quoted(headers))}
	}
	for _, c := range out {
		// What is called phone and is not the phone cannot be an attribute of that name.
		if c.kind == columnAttribute && (c.name == FieldPhone || c.name == FieldFirstName || c.name == FieldLastName || c.name == FieldEmail) {
			c.name += "_2"
		}
	}
	return out, nil
}

// quoted are the first headers, cut short: whoever sent the wrong file sees which.
func quoted(headers []string) string {
	const most = 8
	var b strings.Builder
	for i, h := range headers[:min(len(headers), most)] {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", cut(h, 24))
	}
	if len(headers) > most {
		b.WriteString(", …")
	}
	return b.String()
}

// cut returns the first characters of a text.
func cut(s string, characters int) string {
	n := 0
	for i := range s {
		if n == characters {
			return s[:i] + "…"
		}
		n++
	}
	return s
}
