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
	rank   int    // among the columns that could be the phone, or a name: the least is
}

// mapped is the rank of a column that the client says is that field.
const mapped = -1

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
			c.kind, c.rank = columnPhone, mapped
		case FieldFirstName:
			c.kind, c.rank = columnFirstName, mapped
		case FieldLastName:
			c.kind, c.rank = columnLastName, mapped
		case FieldEmail:
			c.kind, c.rank = columnEmail, mapped
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

// columnsOf says what the columns of a header are. Of several that could be the phone, a name or the e-mail, the likeliest is;
// the others are attributes. Two columns of one name are refused: the cells of one would be lost.
func columnsOf(headers []string, names map[string]string) ([]*column, error) {
	out := make([]*column, len(headers))
	best := map[columnKind]*column{}
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
		if c.kind == columnAttribute || c.kind == columnSkip {
			continue
		}
		switch other := best[c.kind]; {
		case other == nil:
			best[c.kind] = c
		case other.name == c.name, other.rank == mapped && c.rank == mapped:
			return nil, twoColumns(names[header], c.name)
		case other.rank <= c.rank:
			c.kind = columnAttribute
		default:
			best[c.kind], other.kind = c, columnAttribute
		}
	}
	for header := range names {
		if !slices.ContainsFunc(out, func(c *column) bool { return c.header == header }) {
			return nil, &FieldError{"Columns", header, fmt.Sprintf("no column of the header is called %q: got %s", cut(header, 24), quoted(headers))}
		}
	}
	if best[columnPhone] == nil {
		return nil, &FieldError{"file", "", fmt.Sprintf("no column of the header is the phone: want one called phone, got %s", quoted(headers))}
	}
	return out, distinct(out)
}

// twoColumns is the error of two columns for one field: of the name that both were given, or have.
func twoColumns(given, name string) error {
	return &FieldError{"file", "", fmt.Sprintf("two columns of the header are %q: rename one of them, or leave it out", cut(orElse(given, name), 24))}
}

// distinct refuses two columns that would fill the same field.
func distinct(columns []*column) error {
	seen := map[string]bool{}
	for _, c := range columns {
		name := c.name
		switch c.kind {
		case columnSkip:
			continue
		case columnPhone:
			name = FieldPhone
		case columnFirstName:
			name = FieldFirstName
		case columnLastName:
			name = FieldLastName
		case columnEmail:
			name = FieldEmail
		case columnAttribute:
			// What is called e-mail, and another column is the e-mail, cannot be an attribute of that name.
			if name == FieldPhone || name == FieldFirstName || name == FieldLastName || name == FieldEmail {
				c.name += "_2"
				name = c.name
			}
		}
		if seen[name] {
			return twoColumns("", name)
		}
		seen[name] = true
	}
	return nil
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
