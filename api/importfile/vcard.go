package importfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/htmlindex"

	"fanfare/schemas/text"
)

const vCardBegin = "BEGIN:VCARD"

// vCardRows reads vCards of the versions 2.1 (which most Android phones export), 3.0 (Google, Outlook, iPhone) and 4.0
// (RFC 6350). The existing libraries read only what conforms to 4.0: they drop the number of a 2.1 line such as
// TEL;CELL:+39… and do not decode quoted-printable, and the time they take to join the lines of a photograph grows with
// its square.
//
// Each number of a card becomes a cell; numbers marked as mobile come first. Properties that are useful as merge fields
// (organisation, title, nickname, birthday, city, country) become attributes. All others, above all photographs, are
// ignored.
type vCardRows struct {
	in      *bufio.Reader
	count   uint64
	line    []byte // the current line, unfolded, at most maxRow bytes of it
	long    bool   // the current line was longer than maxRow and was cut
	raw     []string
	met     []*Column
	known   map[string]*Column
	options Options
}

// vCardAttributes maps the properties that become attributes to the names of the attributes.
var vCardAttributes = map[string]string{
	"ORG": "organization", "TITLE": "title", "NICKNAME": "nickname", "BDAY": "birthday", "TZ": "timezone", "CATEGORIES": "categories",
}

func newVCard(in io.Reader, o Options) (*vCardRows, error) {
	v := &vCardRows{in: bufio.NewReaderSize(in, maxRow), known: map[string]*Column{}, options: o}
	head, err := v.in.Peek(len(vCardBegin) + sniffed/2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if guess(head) != VCard {
		return nil, &FileError{"file", "", "is not a vCard: want " + vCardBegin}
	}
	return v, nil
}

// Format is [VCard].
func (v *vCardRows) Format() Format { return VCard }

// Columns are those of the properties that were met.
func (v *vCardRows) Columns() []*Column { return v.met }

// Raw is the card without photographs and the like.
func (v *vCardRows) Raw() []string {
	return []string{strings.ToValidUTF8(strings.Join(v.raw, "\n"), "\ufffd")}
}

// Close has nothing to remove.
func (v *vCardRows) Close() error { return nil }

// Next reads the next card.
func (v *vCardRows) Next(row *Row) error {
	row.Cells, v.raw = row.Cells[:0], v.raw[:0]
	for { // skip lines up to the beginning of a card
		if err := v.readLine(); err != nil {
			return err
		}
		if strings.EqualFold(strings.TrimSpace(string(v.line)), vCardBegin) {
			break
		}
	}
	v.count++
	row.Line = v.count
	var bad *RowError
	for {
		err := v.readLine()
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF // the card has no END line: the file is truncated
		}
		if err != nil {
			return err
		}
		name, params, value, ok := cutProperty(v.line)
		switch {
		case !ok:
			continue
		case name == "END":
			if bad != nil {
				return bad
			}
			return nil
		case v.long:
			continue // a photograph
		case name == "BEGIN": // a nested card (2.1) is of another person
			if err := v.skipCard(); err != nil {
				return err
			}
			continue
		}
		if len(v.raw) < 100 {
			v.raw = append(v.raw, string(v.line))
		}
		value, err = decodeValue(value, params)
		if err != nil && bad == nil {
			bad = &RowError{Column: name, Reason: err.Error()}
			continue
		}
		v.property(row, name, params, value)
	}
}

// skipCard skips the rest of a nested card.
func (v *vCardRows) skipCard() error {
	for depth := 1; depth > 0; {
		if err := v.readLine(); err != nil {
			return err
		}
		switch name, _, _, _ := cutProperty(v.line); name {
		case "BEGIN":
			depth++
		case "END":
			depth--
		}
	}
	return nil
}

// readLine reads a line together with its continuation lines. A continuation line begins with a blank, or follows a
// line in quoted-printable that ends with =. At most maxRow bytes are kept.
func (v *vCardRows) readLine() error {
	v.line, v.long = v.line[:0], false
	if err := v.physicalLine(); err != nil {
		return err
	}
	for {
		soft := bytes.HasSuffix(v.line, []byte("=")) && quotedPrintable(v.line)
		next, err := v.in.Peek(1)
		switch {
		case soft && err == nil:
			v.line = v.line[:len(v.line)-1]
		case err != nil || next[0] != ' ' && next[0] != '\t':
			return nil //nolint:nilerr // the next call reports the end of the file
		default:
			_, _ = v.in.Discard(1)
		}
		if err := v.physicalLine(); err != nil {
			return err
		}
	}
}

// physicalLine appends one line of the file to the current line.
func (v *vCardRows) physicalLine() error {
	for {
		part, err := v.in.ReadSlice('\n')
		if room := maxRow - len(v.line); len(part) > room {
			v.long = true
			v.line = append(v.line, part[:room]...)
		} else {
			v.line = append(v.line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(v.line) == 0:
			return io.EOF
		case err != nil && !errors.Is(err, io.EOF):
			return err
		}
		v.line = bytes.TrimRight(v.line, "\r\n")
		return nil
	}
}

// params are the parameters of a property, in capitals: TYPE values alone, others as NAME=value.
type params []string

func (p params) has(value string) bool { return slices.Contains(p, value) }

// get returns the value of a parameter.
func (p params) get(name string) string {
	for _, v := range p {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// cutProperty cuts a line into the name of the property, without its group, its parameters and its value.
func cutProperty(line []byte) (name string, p params, value string, ok bool) {
	quoted, colon := false, -1
	for i, c := range line {
		if c == '"' {
			quoted = !quoted
		} else if c == ':' && !quoted {
			colon = i
			break
		}
	}
	if colon < 0 {
		return "", nil, "", false
	}
	head, rest, _ := strings.Cut(string(line[:colon]), ";")
	if group := strings.LastIndexByte(head, '.'); group >= 0 {
		head = head[group+1:]
	}
	for part := range strings.SplitSeq(strings.ToUpper(strings.ReplaceAll(rest, `"`, "")), ";") {
		if types, ok := strings.CutPrefix(part, "TYPE="); ok {
			for t := range strings.SplitSeq(types, ",") {
				p = append(p, strings.TrimSpace(t))
			}
			continue
		}
		p = append(p, strings.TrimSpace(part))
	}
	return strings.ToUpper(strings.TrimSpace(head)), p, string(line[colon+1:]), true
}

// quotedPrintable reports whether a line declares that its value is in quoted-printable.
func quotedPrintable(line []byte) bool {
	_, p, _, ok := cutProperty(line)
	return ok && p.quotedPrintable()
}

func (p params) quotedPrintable() bool {
	return p.has("QUOTED-PRINTABLE") || p.get("ENCODING") == "QUOTED-PRINTABLE"
}

// decodeValue undoes the encoding and the charset of a value (2.1).
func decodeValue(value string, p params) (string, error) {
	if p.quotedPrintable() {
		plain, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(value)))
		if err != nil {
			return "", errors.New("is declared as quoted-printable, but is not")
		}
		value = string(plain)
		if charset := p.get("CHARSET"); charset != "" && !strings.EqualFold(charset, "utf-8") {
			from, err := htmlindex.Get(charset)
			if err != nil {
				return "", fmt.Errorf("is in the charset %q, which is not known", text.Shorten(charset, 24))
			}
			if value, err = from.NewDecoder().String(value); err != nil {
				return "", fmt.Errorf("is declared as charset %q, but is not valid in it", text.Shorten(charset, 24))
			}
		}
	}
	if !utf8.ValidString(value) || strings.IndexByte(value, 0) >= 0 {
		return "", errors.New("is not UTF-8")
	}
	return value, nil
}

// property adds the cells of one property.
func (v *vCardRows) property(row *Row, name string, p params, value string) {
	switch name {
	case "TEL":
		rank, isPhone := telRank(p)
		if isPhone {
			number := strings.TrimPrefix(strings.TrimPrefix(plainText(value), "tel:"), "TEL:")
			v.add(row, &Column{Kind: Phone, Name: "tel", Header: "TEL", Rank: rank}, number)
		}
	case "N":
		parts := components(value)
		v.add(row, &Column{Kind: LastName, Name: text.FieldLastName, Header: "N (last name)"}, parts[0])
		if len(parts) > 1 {
			v.add(row, &Column{Kind: FirstName, Name: text.FieldFirstName, Header: "N (first name)"}, parts[1])
		}
	case "FN":
		v.add(row, &Column{Kind: Attribute, Name: "full_name", Header: "FN"}, plainText(value))
	case "EMAIL":
		v.add(row, &Column{Kind: Email, Name: text.FieldEmail, Header: "EMAIL"}, plainText(value))
	case "ADR":
		parts := components(value)
		for i, attribute := range map[int]string{3: "city", 5: "postal_code", 6: "country"} {
			if i < len(parts) {
				v.add(row, &Column{Kind: Attribute, Name: attribute, Header: "ADR (" + attribute + ")"}, parts[i])
			}
		}
	default:
		if attribute := vCardAttributes[name]; attribute != "" {
			if name == "ORG" {
				value = components(value)[0]
			}
			v.add(row, &Column{Kind: Attribute, Name: attribute, Header: name}, plainText(value))
		}
	}
}

// add adds a cell. When a property other than the phone occurs several times, the first value is kept.
func (v *vCardRows) add(row *Row, c *Column, value string) {
	value = string(trim([]byte(value)))
	if value == "" || c.Name == "timezone" && !strings.Contains(value, "/") { // an offset is not a time zone name
		return
	}
	for _, cell := range row.Cells {
		if c.Kind != Phone && cell.Column.Header == c.Header {
			return
		}
	}
	key := fmt.Sprintf("%s %d", c.Header, c.Rank)
	known := v.known[key]
	if known == nil {
		known = c
		if field, given := v.options.Columns[c.Header]; given {
			if named, err := columnOf(c.Header, map[string]string{c.Header: field}); err == nil {
				known = named
			}
		}
		v.known[key] = known
		v.met = append(v.met, known)
	}
	if known.Kind != Skip {
		row.Cells = append(row.Cells, Cell{known, value})
	}
}

// telRank returns the rank of a number by its types: mobile numbers first, preferred ones before the others of their
// type. ok is false when the number is not a telephone (such as a fax).
func telRank(p params) (rank int, ok bool) {
	mobile := p.has("CELL") || p.has("IPHONE") || p.has("MOBILE")
	switch {
	case mobile:
		rank = 0
	case p.has("FAX") || p.has("PAGER") || p.has("MODEM") || p.has("BBS"):
		return 0, false
	case p.has("TEXT"):
		rank = 10
	case p.has("HOME"):
		rank = 30
	case p.has("WORK"):
		rank = 40
	default:
		rank = 20
	}
	if !p.has("PREF") && p.get("PREF") != "1" {
		rank += 5
	}
	return rank, true
}

// components cuts a structured value at its semicolons.
func components(value string) []string {
	var out []string
	from := 0
	for i := 0; i < len(value); i++ {
		switch value[i] {
		case '\\':
			i++
		case ';':
			out = append(out, plainText(value[from:i]))
			from = i + 1
		}
	}
	return append(out, plainText(value[from:]))
}

var escapes = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\N`, "\n", `\,`, ",", `\;`, ";", `\:`, ":")

// plainText undoes the escapes of a value.
func plainText(value string) string { return escapes.Replace(value) }
