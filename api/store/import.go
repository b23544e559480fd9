package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"fanfare/api/store/db"
	"fanfare/api/store/phone"
	"fanfare/schemas/audience"
	"fanfare/schemas/hours"
)

func importOf(r db.Import) ImportReport {
	out := ImportReport{
		ID: r.ID, Tenant: r.Tenant, List: uint64(r.List), Source: r.Source, State: ImportState(r.State), Error: r.Error,
		RowsRead: uint64(r.RowsRead), Total: uint64(r.Total), Imported: uint64(r.Imported), Updated: uint64(r.Updated),
		Unchanged: uint64(r.Unchanged), Duplicates: uint64(r.Duplicates), Invalid: uint64(r.Invalid), Unreachable: uint64(r.Unreachable),
		Started: fromMS(r.StartedMs), Seen: fromMS(r.SeenMs), Finished: fromMS(r.FinishedMs),
	}
	_ = json.Unmarshal([]byte(r.Rejected), &out.Rejected) // written by us
	return out
}

// ImportReport returns what an import did, or has done so far.
func (s *Store) ImportReport(ctx context.Context, tenant, id string) (ImportReport, error) {
	r, err := s.q.GetImport(ctx, tenant, id)
	return importOf(r), found(err, "import", id)
}

// Imports returns a page of imports, newest first.
func (s *Store) Imports(ctx context.Context, tenant string, page Page) ([]ImportReport, error) {
	limit, offset := page.bounds()
	rows, err := s.q.ListImports(ctx, tenant, limit, offset)
	return all(rows, err, importOf)
}

// Import reads contacts into a list: a row makes a contact of the tenant, or changes the one that has its number, and puts it
// at the end of the list unless it is there. An empty cell changes nothing. Of rows with the same number in one file the first
// stands, and the others only fill in what it has not, so that the same file changes nothing when it comes again.
//
// It reads as a stream: a batch, the refused rows that are named, and some bytes for each number seen are all that is held. A
// row that cannot be read is refused and counted, and the rest goes on. When the stream itself breaks, what was read stays and
// the error is [ErrStream]; the report says how far it came. While it runs, [Store.ImportReport] shows the figures in any
// process, half a second old; the id is in the first thing that progress is told, if it is not nil.
func (s *Store) Import(ctx context.Context, tenant string, list uint64, opts ImportOptions, in io.Reader, progress func(ImportReport)) (ImportReport, error) {
	im, err := s.newImporter(ctx, tenant, list, opts)
	if err != nil {
		return ImportReport{}, fmt.Errorf("import: %w", err)
	}
	im.progress = progress
	if progress != nil {
		progress(im.report)
	}
	err = im.run(ctx, opts, in)
	return im.finish(context.WithoutCancel(ctx), err)
}

// importer runs one import.
type importer struct {
	s      *Store
	report ImportReport
	region string
	zone   string // the tenant's, of numbers that say nothing
	seen   *roaring64.Bitmap
	batch  importBatch
	most   int // rows of a batch, see pace
	// numbers for new contacts: [next, last).
	next, last int64
	known      bool // most numbers of the last batch were there already
	shown      time.Time
	progress   func(ImportReport)
}

// Bounds of a batch. Between two batches other writers get their turn.
const (
	// leastBatch is 20 ms of work; what takes longer then is waiting, which smaller batches only make more of.
	leastBatch = 1_000
	firstBatch = 2_000
	mostBatch  = 8_000
	// batchTime is how long a transaction of an import should take. SQLite has one writer, and whoever waits should not feel it;
	// Postgres locks what is written, and each transaction costs a dozen round trips.
	batchTime         = 60 * time.Millisecond
	batchTimePostgres = 300 * time.Millisecond
	// showEvery is how often the figures are written.
	showEvery = 500 * time.Millisecond
)

func (s *Store) newImporter(ctx context.Context, tenant string, list uint64, opts ImportOptions) (*importer, error) {
	t, err := s.Tenant(ctx, tenant)
	if err != nil {
		return nil, err
	}
	l, err := s.List(ctx, tenant, list)
	if err == nil && !l.Deleted.IsZero() {
		err = notFound("contact list", ListID(list))
	}
	if err != nil {
		return nil, err
	}
	region := orElse(strings.ToUpper(opts.Region), t.Region)
	if !s.phones.Region(region) {
		return nil, &FieldError{"Region", opts.Region, "want an ISO 3166-1 alpha-2 code such as IT"}
	}
	if opts.Format != FormatCSV && opts.Format != FormatJSON {
		return nil, &FieldError{"Format", string(opts.Format), "want csv or json"}
	}
	im := &importer{
		s: s, region: region, zone: t.Timezone, seen: roaring64.New(), most: firstBatch,
		batch: importBatch{known: map[string]int{}},
		report: ImportReport{
			ID: "imp_" + randomText(16), Tenant: tenant, List: list, Source: cut(strings.ToValidUTF8(opts.Source, "?"), maxName), State: ImportRunning,
		},
	}
	err = s.write(ctx, func(tx *tx) error {
		im.report.Started, im.report.Seen, im.shown = tx.at, tx.at, time.Now()
		return tx.InsertImport(ctx, db.InsertImportParams{
			ID: im.report.ID, Tenant: tenant, List: int64(list), Source: im.report.Source, State: string(im.report.State), Now: tx.now,
		})
	})
	return im, err
}

func (im *importer) run(ctx context.Context, opts ImportOptions, in io.Reader) error {
	var from rows
	var err error
	if opts.Format == FormatJSON {
		from, err = newJSON(in, opts.Columns)
	} else {
		from, err = newCSV(in, opts.Columns)
	}
	if err != nil {
		return im.broken(err)
	}
	var row rawRow
	for {
		err := from.next(&row)
		var bad *rowError
		switch {
		case errors.Is(err, io.EOF):
			return im.flush(ctx)
		case errors.As(err, &bad):
			im.report.RowsRead++
			im.reject(row.line, bad)
		case err != nil:
			return errors.Join(im.broken(err), im.flush(ctx))
		default:
			im.report.RowsRead++
			if bad := im.row(&row); bad != nil {
				im.reject(row.line, bad)
			}
		}
		if im.batch.size() >= im.most || time.Since(im.shown) >= showEvery {
			if err := im.flush(ctx); err != nil {
				return err
			}
		}
	}
}

// broken is the error of a stream that cannot be read on; what is wrong with the file itself says so already.
func (im *importer) broken(err error) error {
	if _, ok := errors.AsType[*FieldError](err); ok {
		return err
	}
	return fmt.Errorf("%w after %d rows: %w", ErrStream, im.report.RowsRead, err)
}

// finish writes the last figures.
func (im *importer) finish(ctx context.Context, err error) (ImportReport, error) {
	im.report.State = ImportDone
	if err != nil {
		im.report.State, im.report.Error = ImportFailed, cut(err.Error(), 500)
	}
	saveErr := im.s.write(ctx, func(tx *tx) error {
		im.report.Finished = tx.at
		return im.show(ctx, tx)
	})
	if im.progress != nil {
		im.progress(im.report)
	}
	if err = errors.Join(err, saveErr); err != nil {
		return im.report, fmt.Errorf("import: %w", err)
	}
	return im.report, nil
}

// show writes the figures for everybody to see.
func (im *importer) show(ctx context.Context, tx *tx) error {
	r := &im.report
	r.Total = r.Imported + r.Updated + r.Unchanged + r.Duplicates + r.Invalid
	r.Seen, im.shown = tx.at, time.Now()
	rejected, err := json.Marshal(r.Rejected)
	if err != nil {
		return err
	}
	return tx.UpdateImport(ctx, db.UpdateImportParams{
		State: string(r.State), Error: r.Error, RowsRead: int64(r.RowsRead), Total: int64(r.Total), Imported: int64(r.Imported),
		Updated: int64(r.Updated), Unchanged: int64(r.Unchanged), Duplicates: int64(r.Duplicates), Invalid: int64(r.Invalid),
		Unreachable: int64(r.Unreachable), Rejected: string(rejected), SeenMs: tx.now, FinishedMs: ms(r.Finished),
		Tenant: r.Tenant, ID: r.ID,
	})
}

func (im *importer) reject(line uint64, bad *rowError) {
	im.report.Invalid++
	if len(im.report.Rejected) < MaxRejected {
		im.report.Rejected = append(im.report.Rejected, Rejected{
			Line: line, Column: cut(strings.ToValidUTF8(bad.column, "?"), 64), Value: cut(strings.ToValidUTF8(bad.value, "?"), 64), Reason: bad.reason,
		})
	}
}

// excelNumber is what Excel makes of a long number, with a point or a comma.
var excelNumber = regexp.MustCompile(`^\+?\d([.,]\d+)?[eE]\+?\d+$`)

// parsePhone reads the cell of a number; a row without one is refused.
func (im *importer) parsePhone(c cell) (phone.Number, *rowError) {
	text := strings.TrimPrefix(c.value, "'") // how spreadsheets keep a number a text
	if formula, ok := strings.CutPrefix(text, `="`); ok {
		text = strings.TrimSuffix(formula, `"`)
	}
	if excelNumber.MatchString(text) {
		return phone.Number{}, &rowError{c.column.header, c.value, "Excel has rounded the number: format the column as text and export it again"}
	}
	n, err := im.s.phones.Parse(text, im.region)
	if err != nil {
		return phone.Number{}, &rowError{c.column.header, c.value, err.Error()}
	}
	return n, nil
}

// row adds a row to the batch, or says why not.
func (im *importer) row(row *rawRow) *rowError {
	var e entry
	var phoneCell cell
	attributes := im.batch.attributes[:0]
	for _, c := range row.cells {
		switch c.column.kind {
		case columnPhone:
			if phoneCell.column == nil || c.column.rank < phoneCell.column.rank {
				phoneCell = c
			}
		case columnFirstName:
			e.first = orElse(e.first, c.value)
		case columnLastName:
			e.last = orElse(e.last, c.value)
		case columnEmail:
			e.email = orElse(e.email, c.value)
		case columnAttribute:
			if c.column.name == AttributeTimezone {
				if _, err := hours.Zone(c.value); err != nil {
					return &rowError{c.column.header, c.value, "want an IANA time zone such as Europe/Rome"}
				}
			}
			attributes = append(attributes, audience.Attr{Name: c.column.name, Value: c.value})
		case columnSkip:
		}
	}
	im.batch.attributes = attributes
	if phoneCell.column == nil {
		return &rowError{column: FieldPhone, reason: "is empty"}
	}
	var bad *rowError
	if e.number, bad = im.parsePhone(phoneCell); bad != nil {
		return bad
	}
	if e.attributes, bad = joinAttributes(attributes); bad != nil {
		return bad
	}
	if e.size() > audience.MaxAttributes {
		return tooLarge(e.size())
	}
	im.add(e)
	return nil
}

func tooLarge(size int) *rowError {
	return &rowError{reason: fmt.Sprintf("has %d bytes of fields, want at most %d", size, audience.MaxAttributes)}
}

// joinAttributes is attributeText of what a row has; of several columns of one name the first stands. Names and values without
// anything to escape, nearly all of them, are put together by hand: encoding/json costs more than parsing the number.
func joinAttributes(attributes []audience.Attr) (string, *rowError) {
	if len(attributes) == 0 {
		return "", nil
	}
	slices.SortStableFunc(attributes, func(a, b audience.Attr) int { return strings.Compare(a.Name, b.Name) })
	var b bytes.Buffer
	b.WriteByte('{')
	for i, a := range attributes {
		if i > 0 {
			if attributes[i-1].Name == a.Name {
				continue
			}
			b.WriteByte(',')
		}
		if !writeJSON(&b, a.Name) {
			return "", &rowError{column: a.Name, reason: "is no name of a column"}
		}
		b.WriteByte(':')
		if !writeJSON(&b, a.Value) {
			return "", &rowError{column: a.Name, reason: "is no text"}
		}
	}
	b.WriteByte('}')
	return b.String(), nil
}

// writeJSON writes a string as encoding/json does.
func writeJSON(b *bytes.Buffer, s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			text, err := json.Marshal(s)
			b.Write(text)
			return err == nil
		}
	}
	b.WriteByte('"')
	b.WriteString(s)
	b.WriteByte('"')
	return true
}

// add puts an entry into the batch. A number that was there before in this file is merged.
func (im *importer) add(e entry) {
	key, err := strconv.ParseUint(e.number.E164[1:], 10, 64)
	repeated := err == nil && !im.seen.CheckedAdd(key)
	if repeated {
		im.report.Duplicates++
	}
	b := &im.batch
	if at, ok := b.known[e.number.E164]; ok {
		b.entries[at].fill(&e)
		return
	}
	e.repeated = repeated
	b.known[e.number.E164] = len(b.entries)
	b.entries = append(b.entries, e)
}

// importBatch are the rows of the transaction to come.
type importBatch struct {
	entries    []entry
	known      map[string]int // by E.164
	attributes []audience.Attr
}

func (b *importBatch) size() int { return len(b.entries) }

// entry is one number of a batch.
type entry struct {
	number             phone.Number
	first, last, email string
	attributes         string // as attributeText has them
	// repeated: an earlier batch of this file had the number. It only fills in.
	repeated bool
}

func (e *entry) size() int {
	return fieldBytes(FieldFirstName, e.first) + fieldBytes(FieldLastName, e.last) + fieldBytes(FieldEmail, e.email) + len(e.attributes)
}

func fieldBytes(name, value string) int {
	if value == "" {
		return 0
	}
	return len(name) + len(value)
}

// fill takes over what e has not.
func (e *entry) fill(other *entry) {
	merged := *e
	merged.first, merged.last, merged.email = orElse(e.first, other.first), orElse(e.last, other.last), orElse(e.email, other.email)
	merged.attributes = overlay(other.attributes, e.attributes)
	if merged.size() <= audience.MaxAttributes { // else the first row stands as it is
		*e = merged
	}
}

// overlay is below with what above has instead.
func overlay(below, above string) string {
	if below == "" || below == above {
		return above
	}
	if above == "" {
		return below
	}
	out, _ := parseAttributes(below) // both were written by attributeText
	over, _ := parseAttributes(above)
	maps.Copy(out, over)
	text, _ := attributeText(out)
	return text
}
