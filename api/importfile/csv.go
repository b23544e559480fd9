package importfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"fanfare/schemas/text"
)

// csvRows reads CSV. It does not use encoding/csv: when a quote is never closed, that reads the rest of the file into
// memory and returns one error for all of it.
type csvRows struct {
	in    io.Reader
	buf   []byte
	from  int // buf[from:to] is unread
	to    int
	eof   error // the error that in returned, io.EOF at the end of the file
	line  uint64
	comma byte
	// text holds the unquoted cells of the current record one after the other; ends are the offsets where each one
	// ends.
	text    []byte
	ends    []int
	columns []*Column
	raw     []string
	whole   bool // the current record was read to its end
}

// Format is [CSV].
func (c *csvRows) Format() Format { return CSV }

// Columns are those of the header row.
func (c *csvRows) Columns() []*Column { return c.columns }

// Raw are the cells of the record.
func (c *csvRows) Raw() []string {
	if !c.whole {
		return nil
	}
	c.raw = c.raw[:0]
	for i := range c.ends {
		c.raw = append(c.raw, strings.ToValidUTF8(string(c.field(i)), "\ufffd"))
	}
	return c.raw
}

// Close has nothing to remove.
func (c *csvRows) Close() error { return nil }

// newCSV reads the header row and detects the separator.
func newCSV(in io.Reader, o Options) (*csvRows, error) {
	c := &csvRows{in: in, buf: make([]byte, 2*maxRow), line: 1}
	head := c.head()
	if sep, ok := separatorLine(head); ok { // the line "sep=;" by which Excel is told the separator
		c.comma = sep
		c.skipLine()
	} else {
		c.comma = separator(head, o.Columns)
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
		return nil, &FileError{"file", "", "is not text in UTF-8: save it as CSV UTF-8, or say which charset it is in"}
	}
	headers := make([]string, len(c.ends))
	for i := range headers {
		headers[i] = string(c.field(i))
	}
	var err error
	c.columns, err = columnsOf(headers, o)
	return c, err
}

// head skips blank lines, reads until two lines are complete, and returns the unread bytes.
func (c *csvRows) head() []byte {
	for {
		for c.from < c.to && (c.buf[c.from] == '\r' || c.buf[c.from] == '\n') {
			c.skipLine()
		}
		unread := c.buf[c.from:c.to]
		line := bytes.IndexAny(unread, "\r\n")
		if line >= 0 && bytes.ContainsAny(bytes.TrimLeft(unread[line:], "\r\n"), "\r\n") || len(unread) >= maxRow || c.eof != nil {
			return unread
		}
		c.fill()
	}
}

func (c *csvRows) headerError(err error) error {
	var bad *RowError
	switch {
	case errors.Is(err, io.EOF):
		return &FileError{"file", "", "is empty: want a header row"}
	case errors.As(err, &bad):
		return &FileError{"file", "", "the header row cannot be read: " + bad.Reason}
	}
	return err
}

// separatorLine returns the separator of a first line such as sep=; or "SEP=;".
func separatorLine(head []byte) (byte, bool) {
	line := head
	if end := bytes.IndexAny(head, "\r\n"); end >= 0 {
		line = head[:end]
	}
	line = bytes.Trim(line, " \"")
	if len(line) == 5 && bytes.EqualFold(line[:4], []byte("sep=")) {
		return line[4], true
	}
	return 0, false
}

// separator returns the character that separates the cells of a file. Counting is not enough: the header of a file
// separated by semicolons may contain commas. A separator wins if it makes one of the columns a phone; then if the
// second line has it as often as the first; then the one that makes the most columns.
func separator(head []byte, names map[string]string) byte {
	best, bestScore := byte(','), -1
	for _, comma := range []byte(",;\t|") {
		first, rest := cells(head, comma)
		second, _ := cells(rest, comma)
		score := min(len(first), 1000)
		if len(first) < 2 {
			score = 0
		}
		for _, header := range first {
			name := text.FieldName(header)
			column, _ := text.Column(name)
			if _, given := names[strings.TrimSpace(header)]; given || column == text.FieldPhone {
				score |= 1 << 20
			}
		}
		if len(first) > 1 && len(first) == len(second) {
			score |= 1 << 19
		}
		if score > bestScore {
			best, bestScore = comma, score
		}
	}
	return best
}

// cells cuts the first line of a text roughly into cells, and returns what follows it.
func cells(b []byte, comma byte) (out []string, rest []byte) {
	quoted, from := false, 0
	for i, c := range b {
		switch {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == comma || c == '\n' || c == '\r':
			out = append(out, strings.Trim(string(b[from:i]), "\" "))
			if from = i + 1; c != comma {
				return out, bytes.TrimLeft(b[from:], "\r\n")
			}
		}
	}
	if from < len(b) {
		out = append(out, strings.Trim(string(b[from:]), "\" "))
	}
	return out, nil
}

// fill moves the unread bytes to the front of the buffer and reads more.
func (c *csvRows) fill() {
	if c.eof != nil {
		return
	}
	if c.from > 0 {
		c.to = copy(c.buf, c.buf[c.from:c.to])
		c.from = 0
	}
	for range 100 { // a reader may return 0 bytes and no error
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

// parsedRecord is the result of parse.
type parsedRecord uint8

const (
	recordWhole parsedRecord = iota
	recordCut                // the record is not complete yet
	recordText               // text follows a closing quote
)

// parse reads one record from b into text and ends. It returns how many bytes and line ends it consumed. last is true
// when the file ends with b.
func (c *csvRows) parse(b []byte, last bool) (took int, lines uint64, what parsedRecord) {
	c.text, c.ends = c.text[:0], c.ends[:0]
	i := 0
	for {
		// A quote after blanks opens a quoted cell; in encoding/csv it would be part of the text. So the line `+39…,
		// "Rossi, Anna"` has two cells.
		if at := c.skipBlanks(b, i); at < len(b) && b[at] == '"' {
			i = at + 1
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
			i = c.skipBlanks(b, i)
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

// skipBlanks returns the first place from i on that is not a blank or a tab, or is the separator.
func (c *csvRows) skipBlanks(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t') && b[i] != c.comma {
		i++
	}
	return i
}

// record reads the next record. After a record that cannot be read, the next call continues at the next line.
func (c *csvRows) record() error {
	c.whole = false
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
			c.whole = true
			return nil
		case what == recordText:
			c.skipLine()
			return &RowError{Reason: "text follows a closing quote"}
		case len(unread) >= maxRow:
			c.skipLine()
			return &RowError{Reason: fmt.Sprintf("is longer than %d KB, or a quote is never closed", maxRow>>10)}
		case c.eof != nil:
			if !errors.Is(c.eof, io.EOF) { // the stream broke in the middle of the row
				c.from = c.to
				return c.eof
			}
			c.skipLine()
			return &RowError{Reason: "a quote is never closed"}
		}
		c.fill()
	}
}

// skipLine discards bytes up to the beginning of the next line.
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

// Next reads the next row.
func (c *csvRows) Next(row *Row) error {
	row.Cells = row.Cells[:0]
	for {
		row.Line = c.line
		if err := c.record(); err != nil {
			return err
		}
		if !c.blank() {
			break
		}
	}
	for i := range c.ends {
		value := trim(c.field(i))
		if len(value) == 0 {
			continue
		}
		if i >= len(c.columns) {
			return &RowError{Value: string(value), Reason: fmt.Sprintf("has more cells than the header, which has %d", len(c.columns))}
		}
		if c.columns[i].Kind == Skip {
			continue
		}
		if !utf8.Valid(value) {
			return &RowError{Column: c.columns[i].Header, Reason: "is not UTF-8: save the file as CSV UTF-8, or say which charset it is in"}
		}
		if bytes.IndexByte(value, 0) >= 0 {
			return &RowError{Column: c.columns[i].Header, Reason: "holds a NUL"}
		}
		row.Cells = append(row.Cells, Cell{c.columns[i], string(value)})
	}
	return nil
}

// trim removes blanks of every kind and invisible characters from both ends of a value.
func trim(value []byte) []byte {
	return bytes.TrimFunc(value, func(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) })
}
