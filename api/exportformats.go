package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/xuri/excelize/v2"

	"fanfare/api/store"
)

// Formats of an export.
const (
	formatCSV     = "csv"
	formatNDJSON  = "ndjson"
	formatXLSX    = "xlsx"
	formatParquet = "parquet"

	contentTypeCSV     = "text/csv; charset=utf-8; header=present"
	contentTypeNDJSON  = "application/x-ndjson"
	contentTypeParquet = "application/vnd.apache.parquet"
)

// A part of an export has one row per line, as a JSON array of cells in the order of the columns. The download converts
// the parts to the format of the file.

// rowWriter writes rows of a part.
type rowWriter struct {
	buf   []byte
	rows  int
	first bool
}

func (w *rowWriter) begin() { w.buf, w.first = append(w.buf, '['), true }
func (w *rowWriter) end()   { w.buf, w.rows = append(w.buf, ']', '\n'), w.rows+1 }

// value writes a cell. It panics on an unknown type, which is a bug.
func (w *rowWriter) value(v any) {
	if !w.first {
		w.buf = append(w.buf, ',')
	}
	w.first = false
	text := func(s string) { w.buf, _ = jsontext.AppendQuote(w.buf, s) } // bad UTF-8 becomes U+FFFD
	switch v := v.(type) {
	case string:
		text(v)
	case *string:
		if v == nil {
			w.buf = append(w.buf, "null"...)
			return
		}
		text(*v)
	case bool:
		w.buf = strconv.AppendBool(w.buf, v)
	case int:
		w.buf = strconv.AppendInt(w.buf, int64(v), 10)
	case uint32:
		w.buf = strconv.AppendUint(w.buf, uint64(v), 10)
	case uint64:
		w.buf = strconv.AppendUint(w.buf, v, 10)
	case Money:
		w.buf = v.append(w.buf)
	case map[string]string:
		b, _ := json.Marshal(v, json.Deterministic(true), jsontext.AllowInvalidUTF8(true)) // cells always marshal
		w.buf = append(w.buf, b...)
	default:
		panic(fmt.Sprintf("a cell of an export is a %T", v)) //nolint:forbidigo // a test exports every column
	}
}

// column is a column of an export of rows T.
type column[T any] struct {
	name string
	kind cellKind
	of   func(*T) any
}

// A cellKind says what the cells of a column are. Each may also be null.
type cellKind int

const (
	textCell cellKind = iota
	timeCell          // RFC 3339
	intCell
	boolCell
	moneyCell
	jsonCell // an object
)

func cellsOf[T any](columns []column[T]) map[string]cellKind {
	out := make(map[string]cellKind, len(columns))
	for i := range columns {
		out[columns[i].name] = columns[i].kind
	}
	return out
}

func names[T any](columns []column[T]) []string {
	out := make([]string, len(columns))
	for i := range columns {
		out[i] = columns[i].name
	}
	return out
}

// chosen returns the columns with these names. The names were checked before.
func chosen[T any](all []column[T], want []string) []column[T] {
	out := make([]column[T], 0, len(want))
	for _, name := range want {
		for i := range all {
			if all[i].name == name {
				out = append(out, all[i])
			}
		}
	}
	return out
}

// put writes a row.
func put[T any](w *rowWriter, columns []column[T], row *T) {
	w.begin()
	for i := range columns {
		w.value(columns[i].of(row))
	}
	w.end()
}

// A format turns rows into a file.
type format interface {
	// row writes one row; cells are valid until it returns.
	row(cells []jsontext.Value) error
	// close ends the file.
	close() error
}

// answerExport answers with the file of an export. It holds one part in memory at a time.
func (s *server) answerExport(ctx context.Context, j *store.Job) (*huma.StreamResponse, error) {
	var o exportOrder
	if err := json.Unmarshal(j.Options, &o); err != nil {
		return nil, fmt.Errorf("options of %s: %w", j.ID, err)
	}
	ctype := map[string]string{formatCSV: contentTypeCSV, formatNDJSON: contentTypeNDJSON, formatXLSX: contentTypeXLSX, formatParquet: contentTypeParquet}[o.Format]
	name := o.Kind
	if o.Campaign != "" {
		name += "-" + o.Campaign
	}
	name += "-" + j.Started.UTC().Format("20060102T150405Z") + "." + o.Format
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader("Content-Type", ctype)
		hc.SetHeader("Content-Disposition", `attachment; filename="`+name+`"`)
		hc.SetHeader("Cache-Control", "private, no-store")
		hc.SetHeader("Referrer-Policy", "no-referrer")
		w := bufio.NewWriterSize(hc.BodyWriter(), 64<<10)
		err := s.writeExport(ctx, w, j, &o)
		if err == nil {
			err = w.Flush()
		}
		if err != nil { // the client must not take a truncated file for a complete one
			s.Logger.WarnContext(ctx, "answer aborted", "request_id", requestOf(ctx).id, "err", err.Error())
			panic(http.ErrAbortHandler) //nolint:forbidigo // net/http aborts the connection on this panic
		}
	}}, nil
}

func (s *server) writeExport(ctx context.Context, w io.Writer, j *store.Job, o *exportOrder) (err error) {
	var f format
	switch o.Format {
	case formatNDJSON:
		f = newNDJSON(w, o.Columns)
	case formatXLSX:
		if f, err = newXLSX(w, o.Columns); err != nil {
			return err
		}
	case formatParquet:
		kind := exportKindOf(o.Kind)
		if kind == nil {
			return fmt.Errorf("%s cannot be exported", o.Kind)
		}
		f = newParquet(w, o.Columns, kind.cells)
	default:
		if f, err = newCSV(w, o.Columns); err != nil {
			return err
		}
	}
	var cells []jsontext.Value
	err = s.Store.JobParts(ctx, j.Tenant, j.Kind, j.ID, func(part []byte) error {
		for len(part) > 0 {
			line, rest, _ := bytes.Cut(part, []byte{'\n'})
			if cells, err = readRow(cells[:0], line); err != nil {
				return err
			}
			if err := f.row(cells); err != nil {
				return err
			}
			part = rest
		}
		return ctx.Err()
	})
	return errors.Join(err, f.close())
}

// readRow splits a line that rowWriter wrote into its cells, without copying.
func readRow(cells []jsontext.Value, line []byte) ([]jsontext.Value, error) {
	bad := fmt.Errorf("a row of an export cannot be read")
	if len(line) < 2 || line[0] != '[' || line[len(line)-1] != ']' {
		return nil, bad
	}
	line = line[1 : len(line)-1]
	depth, quoted, from := 0, false, 0
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quoted:
			switch c {
			case '\\':
				i++
			case '"':
				quoted = false
			}
		case c == '"':
			quoted = true
		case c == '{':
			depth++
		case c == '}':
			depth--
		case c == ',' && depth == 0:
			cells, from = append(cells, line[from:i]), i+1
		}
	}
	if quoted || depth != 0 {
		return nil, bad
	}
	return append(cells, line[from:]), nil
}

// cellText returns a cell as text: without quotes, and empty for null.
func cellText(v jsontext.Value) (string, error) {
	switch v.Kind() {
	case '"':
		b, err := jsontext.AppendUnquote(nil, v)
		return string(b), err
	case 'n':
		return "", nil
	}
	return string(v), nil
}

// csvFile writes a CSV file. No cell of it is a formula to a spreadsheet ([harmlessCell]).
type csvFile struct {
	to    io.Writer
	w     *csv.Writer
	texts []string
}

func newCSV(w io.Writer, columns []string) (*csvFile, error) {
	f := &csvFile{to: w, w: csv.NewWriter(w)}
	return f, f.write(columns...)
}

// write writes a row of texts.
func (f *csvFile) write(cells ...string) error {
	f.texts = f.texts[:0]
	for _, c := range cells {
		f.texts = append(f.texts, harmlessCell(c))
	}
	return f.flush()
}

func (f *csvFile) row(cells []jsontext.Value) error {
	f.texts = f.texts[:0]
	for _, v := range cells {
		text, err := cellText(v)
		if err != nil {
			return err
		}
		f.texts = append(f.texts, harmlessCell(text))
	}
	return f.flush()
}

// flush writes the row in texts. A single empty cell is written with quotes, because readers skip empty lines.
func (f *csvFile) flush() error {
	if len(f.texts) != 1 || f.texts[0] != "" {
		return f.w.Write(f.texts)
	}
	f.w.Flush()
	if err := f.w.Error(); err != nil {
		return err
	}
	_, err := io.WriteString(f.to, "\"\"\n")
	return err
}

func (f *csvFile) close() error {
	f.w.Flush()
	return f.w.Error()
}

// ndjsonFile writes one JSON object per line.
type ndjsonFile struct {
	w     io.Writer
	names [][]byte // `{"name":` and `,"name":`
	line  []byte
}

func newNDJSON(w io.Writer, columns []string) *ndjsonFile {
	f := &ndjsonFile{w: w}
	for i, c := range columns {
		name := []byte{pick[byte](i == 0, '{', ',')}
		name, _ = jsontext.AppendQuote(name, c)
		f.names = append(f.names, append(name, ':'))
	}
	return f
}

func (f *ndjsonFile) row(cells []jsontext.Value) error {
	f.line = f.line[:0]
	for i, v := range cells {
		f.line = append(append(f.line, f.names[i]...), v...)
	}
	f.line = append(f.line, '}', '\n')
	_, err := f.w.Write(f.line)
	return err
}

func (f *ndjsonFile) close() error { return nil }

// maxSheetRows is how many rows a sheet of Excel has.
const maxSheetRows = excelize.TotalRows

// xlsxFile writes an Excel file. It first writes the sheets to temporary files, because the format has their sizes
// before their content.
type xlsxFile struct {
	to      io.Writer
	book    *excelize.File
	sheet   *excelize.StreamWriter
	columns []any
	cells   []any
	at      int // number of the last row written
	sheets  int
}

func newXLSX(w io.Writer, columns []string) (*xlsxFile, error) {
	f := &xlsxFile{to: w, book: excelize.NewFile()}
	for _, c := range columns {
		f.columns = append(f.columns, c)
	}
	return f, f.newSheet()
}

func (f *xlsxFile) newSheet() (err error) {
	if f.sheet != nil {
		if err := f.sheet.Flush(); err != nil {
			return err
		}
	}
	f.sheets++
	name := "Sheet" + strconv.Itoa(f.sheets)
	if f.sheets > 1 { // a new workbook already has the first sheet
		if _, err := f.book.NewSheet(name); err != nil {
			return err
		}
	}
	if f.sheet, err = f.book.NewStreamWriter(name); err != nil {
		return err
	}
	f.at = 1
	return f.sheet.SetRow("A1", f.columns)
}

func (f *xlsxFile) row(cells []jsontext.Value) error {
	if f.at == maxSheetRows {
		if err := f.newSheet(); err != nil {
			return err
		}
	}
	f.cells = f.cells[:0]
	for _, v := range cells {
		cell, err := xlsxCell(v)
		if err != nil {
			return err
		}
		f.cells = append(f.cells, cell)
	}
	f.at++
	return f.sheet.SetRow("A"+strconv.Itoa(f.at), f.cells)
}

// xlsxCell returns a cell with its type. A text never becomes a formula.
func xlsxCell(v jsontext.Value) (any, error) {
	switch v.Kind() {
	case 'n':
		return nil, nil
	case 't', 'f':
		return v.Kind() == 't', nil
	case '0':
		return strconv.ParseFloat(string(v), 64)
	}
	return cellText(v)
}

func (f *xlsxFile) close() error {
	err := f.sheet.Flush()
	if err == nil {
		err = f.book.Write(f.to)
	}
	return errors.Join(err, f.book.Close())
}
