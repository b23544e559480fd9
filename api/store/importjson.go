package store

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
)

// jsonRows reads an array of flat objects, or such objects one after the other.
type jsonRows struct {
	dec   *json.Decoder
	guard *jsonGuard
	raw   json.RawMessage
	array bool
	count uint64
	names map[string]string
	// columns by key: files have few, and a file with ever new ones only pays for it.
	columns map[string]*column
}

// maxKeys bounds the keys that are remembered.
const maxKeys = 1000

func newJSON(in io.Reader, names map[string]string) (*jsonRows, error) {
	buffered := bufio.NewReader(in)
	if mark, err := buffered.Peek(3); err == nil && bytes.Equal(mark, []byte("\xef\xbb\xbf")) {
		_, _ = buffered.Discard(3)
	}
	guard := &jsonGuard{in: buffered}
	j := &jsonRows{dec: json.NewDecoder(guard), guard: guard, names: names, columns: map[string]*column{}}
	for {
		first, err := buffered.Peek(1)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil, &FieldError{"file", "", "is empty: want a JSON array of objects"}
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
		return nil, &FieldError{"file", "", "is no JSON array of objects"}
	}
}

// jsonGuard ends a stream in which one value is longer than a row may be: the decoder would read it whole.
type jsonGuard struct {
	in         io.Reader
	read, done int64
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

func (j *jsonRows) next(row *rawRow) error {
	row.cells = row.cells[:0]
	if j.array && !j.dec.More() {
		if _, err := j.dec.Token(); err != nil { // the end of the array, or of what came of it
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
	row.line = j.count
	if j.raw[0] != '{' {
		return &rowError{reason: "is no object"}
	}
	if !utf8.Valid(j.raw) {
		return &rowError{reason: "is not UTF-8"}
	}
	if err := j.cells(row, jsontext.NewDecoder(bytes.NewBuffer(j.raw)), ""); err != nil {
		return err
	}
	// In one order, for the same object to become the same contact.
	slices.SortFunc(row.cells, func(a, b cell) int { return strings.Compare(a.column.header, b.column.header) })
	return nil
}

// unexpectedEnd: the end of the data in the middle of it is no end. What is no JSON says where it is none.
func unexpectedEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	if bad, ok := errors.AsType[*json.SyntaxError](err); ok && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("at byte %d: %w", bad.Offset, err)
	}
	return err
}

// cells adds the cells of an object; attributes may stand in one of their own. A key that comes twice, in which one value
// would be lost, and what is no text are errors of the decoder.
func (j *jsonRows) cells(row *rawRow, d *jsontext.Decoder, within string) error {
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
			if within == "" && FieldName(key) == "attributes" {
				if err := j.cells(row, d, key); err != nil {
					return err
				}
				continue
			}
			return &rowError{column: key, reason: "holds an object: want text, a number, true or false"}
		case '[':
			return &rowError{column: key, reason: "holds a list: want text, a number, true or false"}
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
		text := strings.TrimSpace(value.String())
		if text == "" {
			continue
		}
		if strings.IndexByte(text, 0) >= 0 {
			return &rowError{column: key, reason: "holds a NUL"}
		}
		c, err := j.column(key, within)
		if err != nil {
			return err
		}
		if c.kind != columnSkip {
			row.cells = append(row.cells, cell{c, text})
		}
	}
	_, err := d.ReadToken() // }
	return err
}

// rowSyntax is why an object cannot be read, though the JSON around it can.
func rowSyntax(err error, column string) error {
	if bad, ok := errors.AsType[*jsontext.SyntacticError](err); ok && errors.Is(err, jsontext.ErrDuplicateName) {
		return &rowError{column: bad.JSONPointer.LastToken(), reason: "stands twice"}
	}
	return &rowError{column: column, reason: "is not text: a character is cut in two"}
}

func (j *jsonRows) column(key, within string) (*column, error) {
	full := key
	if within != "" {
		full = within + "." + key
	}
	if c := j.columns[full]; c != nil {
		return c, nil
	}
	c, err := columnOf(key, j.names)
	if err != nil {
		return nil, &rowError{column: key, reason: err.Error()}
	}
	if within != "" && c.kind != columnSkip {
		c = &column{kind: columnAttribute, name: FieldName(key), header: key}
	}
	if len(j.columns) < maxKeys {
		j.columns[full] = c
	}
	return c, nil
}
