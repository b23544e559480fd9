package api

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/parquet-go/parquet-go"
)

// parquetGroupRows is how many rows a row group of a Parquet file has at most: readers skip whole groups, and the
// writer holds one in memory.
const parquetGroupRows = 50_000

// parquetColumns is the root of a schema. Unlike [parquet.Group] it keeps the columns in their order.
type parquetColumns struct {
	parquet.Group
	fields []parquet.Field
}

// Fields returns the columns.
func (c *parquetColumns) Fields() []parquet.Field { return c.fields }

// parquetFile writes a Parquet file. Each column is optional and has the type of its cells: texts, UTC times with
// microseconds, 64-bit integers, booleans, JSON, and money as a decimal with six places.
type parquetFile struct {
	w     *parquet.GenericWriter[any]
	kinds []cellKind
	row1  []parquet.Row // the row that is written
	texts []byte        // its texts
}

func newParquet(w io.Writer, columns []string, cells map[string]cellKind) *parquetFile {
	f := &parquetFile{row1: []parquet.Row{nil}}
	root := &parquetColumns{Group: parquet.Group{}}
	for _, name := range columns {
		kind := cells[name] // an attribute has no entry; it is a text
		root.Group[name] = parquet.Optional(kind.parquet())
		f.kinds = append(f.kinds, kind)
	}
	at := make(map[string]parquet.Field, len(columns))
	for _, field := range root.Group.Fields() {
		at[field.Name()] = field
	}
	for _, name := range columns {
		root.fields = append(root.fields, at[name])
	}
	f.w = parquet.NewGenericWriter[any](w, parquet.NewSchema("export", root), parquet.Compression(&parquet.Snappy),
		parquet.MaxRowsPerRowGroup(parquetGroupRows), parquet.CreatedBy("fanfare", "", ""))
	return f
}

// parquet returns the type of a column whose cells are of this kind.
func (k cellKind) parquet() parquet.Node {
	switch k {
	case timeCell:
		return parquet.Timestamp(parquet.Microsecond)
	case intCell:
		return parquet.Int(64)
	case boolCell:
		return parquet.Leaf(parquet.BooleanType)
	case moneyCell:
		return parquet.Decimal(6, 18, parquet.Int64Type)
	case jsonCell:
		return parquet.JSON()
	case textCell:
	}
	return parquet.String()
}

func (f *parquetFile) row(cells []jsontext.Value) error {
	row := f.row1[0][:0]
	f.texts = f.texts[:0]
	for i, cell := range cells {
		v, err := f.value(f.kinds[i], cell)
		if err != nil {
			return fmt.Errorf("column %d of an export: %w", i+1, err)
		}
		level := 1
		if v.IsNull() {
			level = 0
		}
		row = append(row, v.Level(0, level, i))
	}
	f.row1[0] = row
	_, err := f.w.WriteRows(f.row1)
	return err
}

// value returns a cell as a value of its column.
func (f *parquetFile) value(kind cellKind, cell jsontext.Value) (parquet.Value, error) {
	if cell.Kind() == 'n' {
		return parquet.NullValue(), nil
	}
	switch kind {
	case intCell:
		n, err := strconv.ParseInt(string(cell), 10, 64)
		return parquet.Int64Value(n), err
	case boolCell:
		return parquet.BooleanValue(cell.Kind() == 't'), nil
	case moneyCell:
		n, ok := parseMoney(string(cell))
		if !ok {
			return parquet.NullValue(), errors.New("is not an amount of money")
		}
		return parquet.Int64Value(int64(n)), nil
	case jsonCell:
		return parquet.ByteArrayValue(cell), nil
	case textCell, timeCell:
	}
	from := len(f.texts)
	texts, err := jsontext.AppendUnquote(f.texts, cell)
	if err != nil {
		return parquet.NullValue(), err
	}
	f.texts = texts
	text := texts[from:]
	if kind != timeCell {
		return parquet.ByteArrayValue(text), nil
	}
	if len(text) == 0 {
		return parquet.NullValue(), nil
	}
	at, err := time.Parse(time.RFC3339, string(text))
	return parquet.Int64Value(at.UnixMicro()), err
}

func (f *parquetFile) close() error { return f.w.Close() }
