package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// maxRow is the longest row of a file, in bytes: attributes have 1 KB, so one that is longer has lost a quote. Nothing longer
// is ever held in memory.
const maxRow = 64 << 10

// rows is where an import gets its rows from. next returns io.EOF in the end; a [rowError] is about one row, after which the
// next may be read; any other error ends the import.
type rows interface {
	next(*rawRow) error
}

// rawRow is a row as it was read. Its cells are valid until the next one.
type rawRow struct {
	line  uint64 // where it begins; of JSON, the how-manieth it is
	cells []cell
}

type cell struct {
	column *column
	value  string
}

// rowError is why a row was refused.
type rowError struct {
	column, value, reason string
}

func (e *rowError) Error() string { return e.reason }

// csvRows reads rows of cells. encoding/csv would not do: a quote that is never closed makes it read the rest of the file into
// memory, and lose it all.
type csvRows struct {
	in    io.Reader
	buf   []byte
	from  int // unread is buf[from:to]
	to    int
	eof   error // what in said last, io.EOF or worse
	line  uint64
	comma byte
	// fields of the record under way: ends in text, which is unquoted.
	text    []byte
	ends    []int
	columns []*column
}

// newCSV reads the header and finds out encoding and separator.
func newCSV(in io.Reader, names map[string]string) (*csvRows, error) {
	c := &csvRows{in: in, buf: make([]byte, 2*maxRow), line: 1}
	c.head()
	c.skipMark()
	header := c.head()
	if bytes.HasPrefix(header, []byte("PK\x03\x04")) {
		return nil, &FieldError{"file", "", "is a workbook or an archive: save it as CSV UTF-8"}
	}
	if end := bytes.IndexAny(header, "\r\n"); end >= 0 {
		header = header[:end]
	}
	if sep, ok := bytes.CutPrefix(header, []byte("sep=")); ok && len(sep) == 1 { // Excel's own way of saying it
		c.comma = sep[0]
		if err := c.record(); err != nil {
			return nil, c.headerError(err)
		}
	} else {
		c.comma = separator(header)
	}
	for {
		if err := c.record(); err != nil {
			return nil, c.headerError(err)
		}
		if !c.blank() {
			break
		}
	}
	if !utf8.Valid(c.text) || bytes.IndexByte(c.text, 0) >= 0 {
		return nil, &FieldError{"file", "", "is not text in UTF-8: save it as CSV UTF-8"}
	}
	headers := make([]string, len(c.ends))
	for i := range headers {
		headers[i] = string(c.field(i))
	}
	var err error
	c.columns, err = columnsOf(headers, names)
	return c, err
}

// head reads until the first line that is not blank is there, however few bytes come at a time, and returns what begins with it.
func (c *csvRows) head() []byte {
	for {
		unread := bytes.TrimLeft(c.buf[c.from:c.to], "\r\n")
		if bytes.ContainsAny(unread, "\r\n") || c.to-c.from >= maxRow || c.eof != nil {
			return unread
		}
		c.fill()
	}
}

func (c *csvRows) headerError(err error) error {
	var bad *rowError
	switch {
	case errors.Is(err, io.EOF):
		return &FieldError{"file", "", "is empty: want a header row"}
	case errors.As(err, &bad):
		return &FieldError{"file", "", "the header row cannot be read: " + bad.reason}
	}
	return err
}

// skipMark skips the mark of UTF-8, and turns UTF-16 into UTF-8 if its mark is there.
func (c *csvRows) skipMark() {
	head := c.buf[c.from:c.to]
	switch {
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		c.from += 3
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")):
		both := io.MultiReader(bytes.NewReader(bytes.Clone(head)), &again{c.in, c.eof})
		c.in = transform.NewReader(both, unicode.UTF16(unicode.LittleEndian, unicode.ExpectBOM).NewDecoder())
		c.from, c.to, c.eof = 0, 0, nil
	}
}

// again goes on with a reader that may have said its last word.
type again struct {
	in  io.Reader
	err error
}

func (a *again) Read(b []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	return a.in.Read(b)
}

// separator is the one that the header has most of, outside quotes.
func separator(header []byte) byte {
	var count [256]int
	quoted := false
	for _, b := range header {
		if b == '"' {
			quoted = !quoted
		} else if !quoted {
			count[b]++
		}
	}
	best := byte(',')
	for _, b := range []byte(";\t|") {
		if count[b] > count[best] {
			best = b
		}
	}
	return best
}

// fill reads more, moving what is unread to the front first.
func (c *csvRows) fill() {
	if c.eof != nil {
		return
	}
	if c.from > 0 {
		c.to = copy(c.buf, c.buf[c.from:c.to])
		c.from = 0
	}
	for range 100 { // a reader may return nothing for a while
		if c.to == len(c.buf) {
			return
		}
		n, err := c.in.Read(c.buf[c.to:])
		c.to += n
		c.eof = err
		if n > 0 || err != nil {
			return
		}
	}
	c.eof = io.ErrNoProgress
}

func (c *csvRows) field(i int) []byte {
	from := 0
	if i > 0 {
		from = c.ends[i-1]
	}
	return c.text[from:c.ends[i]]
}

func (c *csvRows) blank() bool {
	for i := range c.ends {
		if len(bytes.TrimSpace(c.field(i))) > 0 {
			return false
		}
	}
	return true
}

// What parse says about the bytes it was given.
type parsedRecord uint8

const (
	recordWhole parsedRecord = iota
	recordCut                // it may go on
	recordText               // text after a closing quote
)

// parse reads one record into text and ends, and returns how many bytes and lines it took.
func (c *csvRows) parse(b []byte, last bool) (took int, lines uint64, what parsedRecord) {
	c.text, c.ends = c.text[:0], c.ends[:0]
	i := 0
	for {
		if i < len(b) && b[i] == '"' {
			i++
			for {
				end := bytes.IndexByte(b[i:], '"')
				if end < 0 {
					return 0, 0, recordCut
				}
				lines += uint64(bytes.Count(b[i:i+end], []byte("\n")))
				c.text = append(c.text, b[i:i+end]...)
				if i += end + 1; i < len(b) && b[i] == '"' {
					c.text = append(c.text, '"')
					i++
					continue
				}
				break
			}
			if i == len(b) && !last {
				return 0, 0, recordCut
			}
			if i < len(b) && b[i] != c.comma && b[i] != '\n' && b[i] != '\r' {
				return 0, 0, recordText
			}
		} else {
			from := i
			for i < len(b) && b[i] != c.comma && b[i] != '\n' && b[i] != '\r' {
				i++
			}
			c.text = append(c.text, b[from:i]...)
		}
		c.ends = append(c.ends, len(c.text))
		switch {
		case i == len(b):
			if !last {
				return 0, 0, recordCut
			}
			return i, lines, recordWhole
		case b[i] == c.comma:
			i++
		case b[i] == '\n':
			return i + 1, lines + 1, recordWhole
		default: // a carriage return, alone or before a newline
			if i+1 == len(b) && !last {
				return 0, 0, recordCut
			}
			if i+1 < len(b) && b[i+1] == '\n' {
				i++
			}
			return i + 1, lines + 1, recordWhole
		}
	}
}

// record reads the next record. After a record that cannot be read it goes on with the next line.
func (c *csvRows) record() error {
	for {
		unread := c.buf[c.from:c.to]
		if len(unread) == 0 && c.eof != nil {
			return c.eof
		}
		took, lines, what := c.parse(unread[:min(len(unread), maxRow)], errors.Is(c.eof, io.EOF) && len(unread) <= maxRow)
		switch {
		case what == recordWhole && len(unread) > 0:
			c.from += took
			c.line += lines
			return nil
		case what == recordText:
			c.skipLine()
			return &rowError{reason: "text follows a closing quote"}
		case len(unread) >= maxRow:
			c.skipLine()
			return &rowError{reason: fmt.Sprintf("is longer than %d KB, or a quote is never closed", maxRow>>10)}
		case c.eof != nil:
			if !errors.Is(c.eof, io.EOF) { // the rest of the row is what was lost
				c.from = c.to
				return c.eof
			}
			c.skipLine()
			return &rowError{reason: "a quote is never closed"}
		}
		c.fill()
	}
}

// skipLine goes to the beginning of the next line, however far that is.
func (c *csvRows) skipLine() {
	for {
		if end := bytes.IndexAny(c.buf[c.from:c.to], "\r\n"); end >= 0 {
			c.from += end + 1
			c.line++
			if c.buf[c.from-1] == '\r' {
				if c.from == c.to && c.eof == nil {
					c.fill()
				}
				if c.from < c.to && c.buf[c.from] == '\n' {
					c.from++
				}
			}
			return
		}
		c.from = c.to
		if c.eof != nil {
			return
		}
		c.fill()
	}
}

func (c *csvRows) next(row *rawRow) error {
	row.cells = row.cells[:0]
	for {
		row.line = c.line
		if err := c.record(); err != nil {
			return err
		}
		if !c.blank() {
			break
		}
	}
	for i := range c.ends {
		value := bytes.TrimSpace(c.field(i))
		if len(value) == 0 {
			continue
		}
		if i >= len(c.columns) {
			return &rowError{value: string(value), reason: fmt.Sprintf("has more cells than the header, which has %d", len(c.columns))}
		}
		if c.columns[i].kind == columnSkip {
			continue
		}
		if !utf8.Valid(value) {
			return &rowError{column: c.columns[i].header, reason: "is not UTF-8: save the file as CSV UTF-8"}
		}
		if bytes.IndexByte(value, 0) >= 0 {
			return &rowError{column: c.columns[i].header, reason: "holds a NUL"}
		}
		row.cells = append(row.cells, cell{c.columns[i], string(value)})
	}
	return nil
}
