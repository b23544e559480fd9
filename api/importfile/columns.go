package importfile

import (
	"fmt"
	"slices"
	"strings"

	"fanfare/schemas/text"
)

// Kind says what the cells of a column are.
type Kind uint8

// Kinds of columns.
const (
	Attribute Kind = iota
	Phone
	FirstName
	LastName
	Email
	OptIn       // when the person opted in, or whether the person did
	OptInSource // where the consent comes from
	Skip        // the column is ignored
)

// fields are the names of the kinds that are columns of a contact.
var fields = map[Kind]string{
	Phone: text.FieldPhone, FirstName: text.FieldFirstName, LastName: text.FieldLastName, Email: text.FieldEmail, OptIn: FieldOptIn, OptInSource: FieldOptInSource,
}

// Names of the columns about consent. Texts cannot use them as merge fields.
const (
	FieldOptIn       = "opt_in"
	FieldOptInSource = "opt_in_source"
)

// Column is a column of a file.
type Column struct {
	Kind   Kind
	Name   string // of the attribute, as [text.FieldName] spells it
	Header string // as the file spells it
	// Rank orders the columns of one kind: the column with the least rank is believed first.
	Rank int
}

// mapped is the rank of a column that the client mapped to a field. It precedes every other rank.
const mapped = -1

// believed reports whether a column that may hold the phone is read as one. least is the least rank of all such
// columns. The columns that the client mapped are read; if there are none, all whose headers clearly name a phone; if
// there are none, those with the likeliest header.
func (c *Column) believed(least int) bool {
	if least == mapped || least >= text.Unsure {
		return c.Rank == least
	}
	return c.Rank < text.Unsure
}

// kinds maps field names to kinds.
var kinds = map[string]Kind{
	text.FieldPhone: Phone, text.FieldFirstName: FirstName, text.FieldLastName: LastName, text.FieldEmail: Email, FieldOptIn: OptIn, FieldOptInSource: OptInSource,
}

// columnOf returns the column of a header. names is the client's mapping of headers to fields and takes precedence.
func columnOf(header string, names map[string]string) (*Column, error) {
	c := &Column{Header: header, Name: text.FieldName(header)}
	field, given := names[header]
	switch kind, own := kinds[field]; {
	case given && field == "-":
		c.Kind = Skip
	case given && own:
		c.Kind, c.Rank = kind, mapped
	case given:
		if c.Name = text.FieldName(field); c.Name != field || field == "" {
			return nil, &FileError{"Columns", field, "want a name of lower-case letters, digits and underscores"}
		}
	case c.Name == FieldOptIn || c.Name == FieldOptInSource:
		c.Kind = kinds[c.Name]
	default:
		if column, rank := text.Column(c.Name); column != "" {
			c.Kind, c.Rank = kinds[column], rank
		}
	}
	return c, nil
}

// columnsOf returns the columns of a header row. Several may hold the phone: a row has the number of the first of them,
// by rank, that can take messages. When several columns could be a name or the e-mail, the one with the least rank is
// used and the others become attributes. Two columns for one field are refused: the cells of one would be lost.
func columnsOf(headers []string, o Options) ([]*Column, error) {
	names := o.Columns
	out := make([]*Column, len(headers))
	best := map[Kind]*Column{}
	for i, header := range headers {
		header = string(trim([]byte(header)))
		c, err := columnOf(header, names)
		if err != nil {
			return nil, err
		}
		if c.Name == "" {
			c.Name = fmt.Sprintf("column_%d", i+1)
		}
		out[i] = c
		if c.Kind == Attribute || c.Kind == Skip {
			continue
		}
		switch other := best[c.Kind]; {
		case other == nil:
			best[c.Kind] = c
		case other.Name == c.Name, other.Rank == mapped && c.Rank == mapped:
			name := c.Name
			if given := names[header]; given != "" {
				name = given
			}
			return nil, twoColumns(name)
		case c.Kind == Phone:
			if c.Rank < other.Rank {
				best[Phone] = c
			}
		case other.Rank <= c.Rank:
			c.Kind = Attribute
		default:
			best[c.Kind], other.Kind = c, Attribute
		}
	}
	for header := range names {
		if !slices.ContainsFunc(out, func(c *Column) bool { return c.Header == header }) {
			return nil, &FileError{"Columns", header, fmt.Sprintf("no column of the header is called %q: got %s", text.Shorten(header, 24), quoted(headers))}
		}
	}
	if best[Phone] == nil && o.Preview {
		return out, distinct(out)
	}
	if best[Phone] == nil {
		return nil, &FileError{"file", "", fmt.Sprintf("no column of the header is the phone: want one called phone, got %s", quoted(headers))}
	}
	for _, c := range out {
		if c.Kind == Phone && !c.believed(best[Phone].Rank) {
			c.Kind = Attribute
		}
	}
	return out, distinct(out)
}

// twoColumns is the error of two columns for one field.
func twoColumns(name string) error {
	return &FileError{"file", "", fmt.Sprintf("two columns of the header are %q: rename one of them, or leave it out", text.Shorten(name, 24))}
}

// distinct refuses two columns that would fill the same field.
func distinct(columns []*Column) error {
	seen := map[string]bool{}
	for _, c := range columns {
		if c.Kind == Skip {
			continue
		}
		name, own := fields[c.Kind]
		switch {
		case c.Kind == Phone:
			name = c.Name + "\x00" // several columns may hold the phone, but not two with the same header
		case !own:
			c.Name = attributeName(c.Name)
			name = c.Name
		}
		if seen[name] {
			return twoColumns(strings.TrimSuffix(name, "\x00"))
		}
		seen[name] = true
	}
	return nil
}

// attributeName returns the name of the attribute that a column becomes when another one is the phone, a name or the
// e-mail: an attribute may not have the name of such a field.
func attributeName(name string) string {
	if kinds[name] != 0 {
		return name + "_2"
	}
	return name
}

// quoted returns the first headers, shortened, so that the error shows which file was sent.
func quoted(headers []string) string {
	const most = 8
	var b strings.Builder
	for i, h := range headers[:min(len(headers), most)] {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", text.Shorten(h, 24))
	}
	if len(headers) > most {
		b.WriteString(", …")
	}
	return b.String()
}
