package importfile

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"fanfare/schemas/text"
)

// jsonRows reads an array of flat objects, or flat objects one after the other.
type jsonRows struct {
	dec   *json.Decoder
	guard *jsonGuard
	raw   json.RawMessage
	array bool
	count uint64
	names map[string]string
	// columns by key. At most maxKeys are kept; columns of further keys are made again for each object.
	columns map[string]*Column
	met     []*Column // the values of columns, in the order in which they were met
}

// Format is [JSON].
func (j *jsonRows) Format() Format { return JSON }

// Columns are those of the keys that were met, in their order.
func (j *jsonRows) Columns() []*Column { return j.met }

// Raw is the object.
func (j *jsonRows) Raw() []string { return []string{strings.ToValidUTF8(string(j.raw), "\ufffd")} }

// Close has nothing to remove.
func (j *jsonRows) Close() error { return nil }

// maxKeys bounds the memory that a file with new keys in every object can take.
const maxKeys = 1000

func newJSON(in io.Reader, o Options) (*jsonRows, error) {
	buffered := bufio.NewReader(in)
	guard := &jsonGuard{in: buffered}
	j := &jsonRows{dec: json.NewDecoder(guard), guard: guard, names: o.Columns, columns: map[string]*Column{}}
	for {
		first, err := buffered.Peek(1)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil, &FileError{"file", "", "is empty: want a JSON array of objects"}
			}
			return nil, err
		}
		switch first[0] {
		case ' ', '\t', '\n', '\r':
			_, _ = buffered.Discard(1)
			continue
		case '[':
			j.array = true
			_, err := j.dec.Token()
			return j, err
		case '{':
			return j, nil
		}
		return nil, &FileError{"file", "", "is not a JSON array of objects"}
	}
}

// jsonGuard fails a stream in which one value is longer than a row may be. Without it the decoder would read the whole
// value into memory.
type jsonGuard struct {
	in         io.Reader
	read, done int64 // bytes read, and bytes of them that were decoded
}

var errLongObject = fmt.Errorf("an object is longer than %d KB", maxRow>>10)

func (g *jsonGuard) Read(b []byte) (int, error) {
	if g.read-g.done > 4*maxRow { // with room for what the decoder reads ahead
		return 0, errLongObject
	}
	n, err := g.in.Read(b[:min(len(b), maxRow)])
	g.read += int64(n)
	return n, err
}

// Next reads the next object.
func (j *jsonRows) Next(row *Row) error {
	row.Cells = row.Cells[:0]
	if j.array && !j.dec.More() {
		if _, err := j.dec.Token(); err != nil { // the end of the array
			return unexpectedEnd(err)
		}
		j.array = false
		if _, err := j.dec.Token(); !errors.Is(err, io.EOF) {
			return errors.New("something follows the array")
		}
		return io.EOF
	}
	j.raw = j.raw[:0]
	if err := j.dec.Decode(&j.raw); err != nil {
		if errors.Is(err, io.EOF) && !j.array {
			return io.EOF
		}
		return unexpectedEnd(err)
	}
	j.guard.done = j.dec.InputOffset()
	j.count++
	row.Line = j.count
	if j.raw[0] != '{' {
		return &RowError{Reason: "is not an object"}
	}
	if !utf8.Valid(j.raw) {
		return &RowError{Reason: "is not UTF-8"}
	}
	if err := j.cells(row, jsontext.NewDecoder(bytes.NewBuffer(j.raw)), ""); err != nil {
		return err
	}
	j.settle(row)
	// Sorted, so that the order of the keys in the object makes no difference.
	slices.SortFunc(row.Cells, func(a, b Cell) int { return strings.Compare(a.Column.Header, b.Column.Header) })
	return nil
}

// settle turns phone cells that are not used as the phone into attributes (see Column.believed).
func (j *jsonRows) settle(row *Row) {
	least := -2
	for _, c := range row.Cells {
		if c.Column.Kind == Phone && (least == -2 || c.Column.Rank < least) {
			least = c.Column.Rank
		}
	}
	for i := range row.Cells {
		if c := row.Cells[i].Column; c.Kind == Phone && !c.believed(least) {
			row.Cells[i].Column = &Column{Kind: Attribute, Name: attributeName(c.Name), Header: c.Header}
		}
	}
}

// unexpectedEnd turns io.EOF inside a value into io.ErrUnexpectedEOF, and adds the byte to a syntax error.
func unexpectedEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	if bad, ok := errors.AsType[*json.SyntaxError](err); ok && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("at byte %d: %w", bad.Offset, err)
	}
	return err
}

// cells adds the cells of an object. Attributes may stand in a nested object called attributes. The decoder refuses a
// key that occurs twice, because one of its values would be lost, and strings that are not valid UTF-8.
func (j *jsonRows) cells(row *Row, d *jsontext.Decoder, within string) error {
	if _, err := d.ReadToken(); err != nil { // {
		return rowSyntax(err, within)
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return rowSyntax(err, within)
		}
		key := name.String()
		switch d.PeekKind() {
		case '{':
			if within == "" && text.FieldName(key) == "attributes" {
				if err := j.cells(row, d, key); err != nil {
					return err
				}
				continue
			}
			return &RowError{Column: key, Reason: "holds an object: want text, a number, true or false"}
		case '[':
			return &RowError{Column: key, Reason: "holds a list: want text, a number, true or false"}
		case 'n':
			if err := d.SkipValue(); err != nil {
				return rowSyntax(err, key)
			}
			continue
		}
		value, err := d.ReadToken()
		if err != nil {
			return rowSyntax(err, key)
		}
		v := string(trim([]byte(value.String())))
		if v == "" {
			continue
		}
		if strings.IndexByte(v, 0) >= 0 {
			return &RowError{Column: key, Reason: "holds a NUL"}
		}
		c, err := j.column(key, within)
		if err != nil {
			return err
		}
		if c.Kind != Skip {
			row.Cells = append(row.Cells, Cell{c, v})
		}
	}
	_, err := d.ReadToken() // }
	return err
}

// rowSyntax returns the error of one object that cannot be read, when the JSON around it can.
func rowSyntax(err error, column string) error {
	if bad, ok := errors.AsType[*jsontext.SyntacticError](err); ok && errors.Is(err, jsontext.ErrDuplicateName) {
		return &RowError{Column: bad.JSONPointer.LastToken(), Reason: "occurs twice"}
	}
	return &RowError{Column: column, Reason: "is not text: a character is cut in two"}
}

func (j *jsonRows) column(key, within string) (*Column, error) {
	full := key
	if within != "" {
		full = within + "." + key
	}
	if c := j.columns[full]; c != nil {
		return c, nil
	}
	c, err := columnOf(key, j.names)
	if err != nil {
		return nil, &RowError{Column: key, Reason: err.Error()}
	}
	if within != "" && c.Kind != Skip {
		c = &Column{Kind: Attribute, Name: text.FieldName(key), Header: key}
		if kinds[c.Name] != 0 {
			return nil, &RowError{Column: full, Reason: "is a field of its own: put it beside attributes, not into them"}
		}
	}
	if c.Name == "" && c.Kind != Skip {
		return nil, &RowError{Column: full, Reason: "cannot be the name of an attribute: it has no letter and no digit"}
	}
	if len(j.columns) < maxKeys {
		j.columns[full] = c
		j.met = append(j.met, c)
	}
	return c, nil
}
