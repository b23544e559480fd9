package importfile

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/xuri/excelize/v2"

	"fanfare/schemas/text"
)

// Bounds of a workbook. A million rows of six columns are 30 MB packed and 400 MB of XML.
const (
	maxWorkbook = 256 << 20 // bytes, packed
	// maxParts and maxInMemory bound what excelize holds in memory: all parts but large sheets and shared strings,
	// which it writes to disk and reads as a stream.
	maxParts    = 2_000
	maxInMemory = 48 << 20
	largePart   = 4 << 20 // excelize writes sheets of at least so many bytes to disk
)

// xlsxRows reads a sheet of an Excel workbook. The workbook and its large parts are files in a temporary directory,
// because a zip can only be read from its end.
type xlsxRows struct {
	dir     string
	book    *excelize.File
	rows    *excelize.Rows
	line    uint64
	columns []*Column
	raw     []string
}

// newXLSX opens the workbook and reads the header row.
func newXLSX(in io.Reader, o Options) (*xlsxRows, error) {
	dir, err := os.MkdirTemp("", "fanfare-import-")
	if err != nil {
		return nil, err
	}
	x := &xlsxRows{dir: dir}
	if err := x.open(in, o); err != nil {
		return nil, errors.Join(err, x.Close())
	}
	return x, nil
}

func (x *xlsxRows) open(in io.Reader, o Options) error {
	path := filepath.Join(x.dir, "workbook.xlsx")
	if err := spool(in, path); err != nil {
		return err
	}
	most := o.MaxBytes
	if most == 0 {
		most = MaxBytes
	}
	if err := checkZip(path, most); err != nil {
		return err
	}
	var err error
	x.book, err = excelize.OpenFile(path, excelize.Options{UnzipSizeLimit: most, UnzipXMLSizeLimit: largePart, TmpDir: x.dir})
	if err != nil {
		return &FileError{"file", "", "is not a workbook that can be read: " + text.Shorten(err.Error(), 100)}
	}
	return x.sheet(o)
}

// spool writes the workbook to disk.
func spool(in io.Reader, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(in, maxWorkbook+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if n > maxWorkbook {
		return &FileError{"file", "", fmt.Sprintf("is a workbook of more than %d MB: save it as CSV UTF-8", maxWorkbook>>20)}
	}
	return nil
}

// checkZip refuses a workbook that would fill memory or disk when it is unpacked. It adds the sizes that the archive
// declares; archive/zip fails a part that turns out to be larger than declared.
func checkZip(path string, most int64) error {
	z, err := zip.OpenReader(path)
	if err != nil {
		return &FileError{"file", "", "is a damaged workbook, or another archive: save it as .xlsx or CSV UTF-8"}
	}
	defer func() { _ = z.Close() }()
	var all, inMemory uint64
	sheets := false
	for _, part := range z.File {
		name := strings.ToLower(strings.ReplaceAll(part.Name, "\\", "/"))
		sheet := strings.HasPrefix(name, "xl/worksheets/sheet")
		sheets = sheets || sheet
		size := part.UncompressedSize64
		if all += size; all < size || all > uint64(most) {
			return &FileError{"file", "", fmt.Sprintf("is a workbook of more than %d MB once it is unpacked: save it as CSV UTF-8", most>>20)}
		}
		if size <= largePart || !sheet && name != "xl/sharedstrings.xml" {
			inMemory += size
		}
	}
	switch {
	case !sheets:
		return &FileError{"file", "", "is an archive without a sheet: save it as .xlsx or CSV UTF-8"}
	case len(z.File) > maxParts, inMemory > maxInMemory:
		return &FileError{"file", "", "is a workbook with too many sheets, pictures or other parts: save the sheet alone, or as CSV UTF-8"}
	}
	return nil
}

// sheet opens the sheet to read: the first sheet with a phone column, else the first that has rows.
func (x *xlsxRows) sheet(o Options) error {
	chosen := ""
	for _, name := range x.book.GetSheetList() {
		headers, err := x.header(name)
		if errors.Is(err, io.EOF) {
			continue
		}
		if err != nil {
			return err
		}
		any := o
		any.Preview = true
		columns, err := columnsOf(headers, any)
		if err == nil && slices.ContainsFunc(columns, func(c *Column) bool { return c.Kind == Phone }) {
			chosen = name
			break
		}
		if chosen == "" {
			chosen = name
		}
	}
	if chosen == "" {
		return &FileError{"file", "", "is empty: want a header row"}
	}
	headers, err := x.header(chosen)
	if err != nil {
		return err
	}
	x.columns, err = columnsOf(headers, o)
	return err
}

// header opens a sheet and reads its first row that is not blank. It returns io.EOF when there is none.
func (x *xlsxRows) header(name string) ([]string, error) {
	if x.rows != nil {
		_ = x.rows.Close()
	}
	rows, err := x.book.Rows(name)
	if err != nil {
		return nil, io.EOF // a chart has no rows
	}
	x.rows, x.line = rows, 0
	return x.record()
}

// record reads the next row that is not blank.
func (x *xlsxRows) record() ([]string, error) {
	for x.rows.Next() {
		x.line++
		cells, err := x.rows.Columns()
		if err != nil {
			return nil, fmt.Errorf("row %d of the sheet: %w", x.line, err)
		}
		size := 0
		for _, c := range cells {
			size += len(strings.TrimSpace(c))
		}
		if size > maxRow {
			return nil, &RowError{Reason: fmt.Sprintf("is longer than %d KB", maxRow>>10)}
		}
		if size > 0 {
			return cells, nil
		}
	}
	if err := x.rows.Error(); err != nil {
		return nil, fmt.Errorf("row %d of the sheet: %w", x.line+1, err)
	}
	return nil, io.EOF
}

// Next reads the next row of the sheet.
func (x *xlsxRows) Next(row *Row) error {
	row.Cells, x.raw = row.Cells[:0], nil
	cells, err := x.record()
	row.Line = x.line
	if err != nil {
		return err
	}
	x.raw = cells
	for i, value := range cells {
		value = string(trim([]byte(value)))
		if value == "" {
			continue
		}
		if i >= len(x.columns) {
			return &RowError{Value: value, Reason: fmt.Sprintf("has more cells than the header, which has %d", len(x.columns))}
		}
		if x.columns[i].Kind == Skip {
			continue
		}
		if !utf8.ValidString(value) || strings.IndexByte(value, 0) >= 0 {
			return &RowError{Column: x.columns[i].Header, Reason: "is not text"}
		}
		row.Cells = append(row.Cells, Cell{x.columns[i], value})
	}
	return nil
}

// Format is [XLSX].
func (x *xlsxRows) Format() Format { return XLSX }

// Columns are those of the header row.
func (x *xlsxRows) Columns() []*Column { return x.columns }

// Raw are the cells of the row.
func (x *xlsxRows) Raw() []string { return x.raw }

// Close removes the files of the workbook.
func (x *xlsxRows) Close() error {
	var errs []error
	if x.rows != nil {
		errs = append(errs, x.rows.Close())
	}
	if x.book != nil {
		errs = append(errs, x.book.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(x.dir))...)
}
