package importfile

import (
	"fmt"
	"io"
)

// Format of a file.
type Format string

// Formats.
const (
	CSV   Format = "csv"   // a header row; comma, semicolon, tab or bar between cells
	JSON  Format = "json"  // an array of flat objects, or flat objects one after the other (NDJSON)
	XLSX  Format = "xlsx"  // the first sheet of an Excel workbook that has rows; a header row
	VCard Format = "vcard" // vCard 2.1, 3.0 and 4.0, one after the other
)

// Options say how to read a file.
type Options struct {
	// Format is the format that the client declared. A workbook is recognised whatever was declared. With "", the first
	// bytes of the file decide.
	Format Format
	// Charset is the charset that the client declared (an IANA name); "" is UTF-8. A byte order mark overrides it.
	Charset string
	// Columns maps headers to fields (phone, first_name, last_name, email, or the name of an attribute) and overrides
	// the meaning that a header has by default. The field "-" leaves the column out.
	Columns map[string]string
	// Preview accepts a file without a phone column, because the user will choose it from the preview.
	Preview bool
	// MaxBytes is the most bytes of the file once it is unpacked; 0: [MaxBytes].
	MaxBytes int64
}

// MaxBytes is the default limit of a file, in bytes after unpacking: room for a million long rows.
const MaxBytes = 2 << 30

// Reader reads the rows of a file. Close it when done: a workbook has files on disk.
type Reader interface {
	// Next reads the next row into row. It returns io.EOF after the last one, a [RowError] for a row that cannot be
	// read, after which Next may be called again, and any other error when the file cannot be read on.
	Next(row *Row) error
	// Format is what the file turned out to be.
	Format() Format
	// Columns returns the columns of the file in order. In formats without a header row, these are the columns met so
	// far.
	Columns() []*Column
	// Raw returns the row that the last Next read, as it stands in the file: a cell for each column, or one text; nil
	// when it is not known. It is valid until the next call of Next.
	Raw() []string
	// Close removes temporary files.
	Close() error
}

// Row is one row of a file. Next reuses its cells.
type Row struct {
	Line  uint64 // of the file, 1 for the first; in JSON and vCard, the position of the object or card, 1 for the first
	Cells []Cell
}

// Cell is a value that is not empty.
type Cell struct {
	Column *Column
	Value  string
}

// RowError says why a row is refused.
type RowError struct {
	Column, Value string // "" when the whole row is meant
	Reason        string
}

func (e *RowError) Error() string { return e.Reason }

// FileError says why a file, or an option, is refused.
type FileError struct {
	Field  string // file, Format, Charset or Columns
	Value  string
	Reason string
}

func (e *FileError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("%s: %s", e.Field, e.Reason)
	}
	return fmt.Sprintf("%s %q: %s", e.Field, e.Value, e.Reason)
}

// Open reads the beginning of a file and returns a reader of its rows.
func Open(in io.Reader, o Options) (Reader, error) {
	text, format, err := unpack(in, o)
	if err != nil {
		return nil, err
	}
	switch format {
	case CSV:
		return newCSV(text, o)
	case JSON:
		return newJSON(text, o)
	case XLSX:
		return newXLSX(text, o)
	case VCard:
		return newVCard(text, o)
	}
	return nil, &FileError{"Format", string(o.Format), "want csv, json, xlsx or vcard"}
}

// maxRow is the longest row that is read, in bytes. An attribute has at most 1 KB, so in a longer row a quote is
// probably not closed.
const maxRow = 64 << 10
