package store

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"fanfare/api/importfile"
	"fanfare/api/phone"
	"fanfare/api/store/db"
	"fanfare/schemas/audience"
	"fanfare/schemas/hours"
	"fanfare/schemas/text"
)

// Import reads contacts into a list. Each row creates a contact of the tenant, or changes the contact that has its
// number, and adds it to the end of the list unless it is a member. An empty cell changes nothing. When several rows of
// a file have the same number, the first one decides and the others only fill in fields that it lacks. So importing the
// same file again changes nothing.
//
// The file is read as a stream: memory holds one batch, the refused rows that the report names, and a few bytes for
// each number seen. A row that cannot be read is refused and counted, and reading goes on. When the stream itself
// breaks, the rows that were read stay imported and the error is [ErrStream]; the report says how many rows were read.
// While the import runs, [Store.ImportReport] returns figures that are at most half a second old, in any process.
// It is [ErrErasureRuns] while a person of the tenant is being erased.
// progress, if not nil, is called with the report before the first row, after each batch and at the end.
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
	zone   string // the tenant's, for numbers that have no zone
	seen   *roaring64.Bitmap
	batch  importBatch
	most   int // maximum rows of a batch, see pace
	// [next, last) are reserved for the numbers of new contacts.
	next, last int64
	names      map[string]bool // of the merge fields that are counted, see boundFields
	known      bool            // most numbers of the last batch existed already
	shown      time.Time       // when the figures were last written
	progress   func(ImportReport)
	optedOut   *roaring64.Bitmap // keys of numbers, see loadOptOuts
	rejects    []Rejected        // of the rows read since the last transaction

	// For an uploaded file:
	owner  string        // of the import; another process takes it over when this one writes no figures for jobSilent
	resume uint64        // rows that an earlier process has imported or refused
	file   *uploadReader // nil when the file came with the request
	cancel bool          // a client has cancelled the import
}

// Bounds of a batch. Other writers get their turn between two batches.
const (
	// leastBatch is about 20 ms of work. When it takes longer, the import is waiting for other writers, and smaller
	// batches would wait more often.
	leastBatch = 1_000
	firstBatch = 2_000
	mostBatch  = 8_000
	// batchTime is how long a transaction of an import should take. SQLite has one writer, so the others wait for that
	// long. Postgres locks only the rows that are written, and each transaction costs a dozen round trips.
	batchTime         = 60 * time.Millisecond
	batchTimePostgres = 300 * time.Millisecond
	// showEvery is how often the figures are written.
	showEvery = 500 * time.Millisecond
)

func (s *Store) newImporter(ctx context.Context, tenant string, list uint64, opts ImportOptions) (*importer, error) {
	im, err := s.importerOf(ctx, tenant, list, opts)
	if err != nil {
		return nil, err
	}
	im.report.ID, im.report.State = newImportID(), ImportRunning
	err = s.write(ctx, func(tx *tx) error {
		if err := tx.noErasures(ctx, tenant); err != nil {
			return err
		}
		im.report.Started, im.report.Seen, im.shown = tx.at, tx.at, time.Now()
		return tx.InsertImport(ctx, db.InsertImportParams{
			ID: im.report.ID, Tenant: tenant, List: int64(list), Source: im.report.Source, State: string(im.report.State), Now: tx.now,
		})
	})
	return im, err
}

func newImportID() string { return "imp_" + randomText(16) }

// importerOf returns an importer into a list. It does not write a row of imports.
func (s *Store) importerOf(ctx context.Context, tenant string, list uint64, opts ImportOptions) (*importer, error) {
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
	im := &importer{
		s: s, region: region, zone: t.Timezone, seen: roaring64.New(), most: firstBatch, names: map[string]bool{},
		batch:  importBatch{known: map[string]int{}},
		report: ImportReport{Tenant: tenant, List: list, Source: text.Shorten(strings.ToValidUTF8(opts.Source, "?"), maxName)},
	}
	im.optedOut, err = s.optedOutKeys(ctx, tenant)
	return im, err
}

// optedOutKeys returns the keys of the numbers that have opted out, encoded by [keyNumber].
func (s *Store) optedOutKeys(ctx context.Context, tenant string) (*roaring64.Bitmap, error) {
	rows, err := s.d.read.QueryContext(ctx, "SELECT number_key FROM suppressions WHERE tenant = ?1 AND NOT lifted", tenant)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	out := roaring64.New()
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return nil, err
		}
		if n, ok := keyNumber(key); ok {
			out.Add(n)
		}
	}
	return out, rows.Err()
}

// keyNumber encodes the key of a phone number as one integer.
func keyNumber(key string) (uint64, bool) {
	if len(key) < 2 {
		return 0, false
	}
	n, err := strconv.ParseUint(key[1:], 10, 64)
	return n, err == nil
}

func (im *importer) run(ctx context.Context, opts ImportOptions, in io.Reader) error {
	from, err := importfile.Open(in, importfile.Options{Format: opts.Format, Charset: opts.Charset, Columns: opts.Columns})
	if err != nil {
		return im.broken(err)
	}
	defer func() { _ = from.Close() }()
	var row importfile.Row
	if err := im.skip(ctx, from, &row); err != nil {
		return err
	}
	for {
		err := from.Next(&row)
		var bad *importfile.RowError
		switch {
		case errors.Is(err, io.EOF):
			return im.flush(ctx)
		case errors.As(err, &bad):
			im.report.RowsRead++
			im.reject(row.Line, bad)
		case err != nil:
			return errors.Join(im.broken(err), im.flush(ctx))
		default:
			im.report.RowsRead++
			if bad := im.row(&row); bad != nil {
				im.reject(row.Line, bad)
			}
		}
		if im.batch.size() >= im.most || len(im.rejects) >= mostRejects || time.Since(im.shown) >= showEvery {
			if err := im.flush(ctx); err != nil {
				return err
			}
		}
		if im.cancel {
			return errCancelled
		}
	}
}

// broken turns an error of the reader into one of the import: a [FieldError] when the file is refused, else
// [ErrStream].
func (im *importer) broken(err error) error {
	if bad, ok := errors.AsType[*importfile.FileError](err); ok {
		return (*FieldError)(bad)
	}
	return fmt.Errorf("%w after %d rows: %w", ErrStream, im.report.RowsRead, err)
}

// finish writes the final figures of an import whose file came with the request.
func (im *importer) finish(ctx context.Context, err error) (ImportReport, error) {
	if im.conclude(err); im.report.State == ImportCancelled {
		err = nil
	}
	saveErr := im.save(ctx)
	if im.progress != nil {
		im.progress(im.report)
	}
	if err = errors.Join(err, saveErr); err != nil {
		return im.report, fmt.Errorf("import: %w", err)
	}
	return im.report, nil
}

// conclude sets in the report how the import ended.
func (im *importer) conclude(err error) {
	im.report.State = ImportDone
	switch {
	case errors.Is(err, errCancelled):
		im.report.State = ImportCancelled
	case err != nil:
		im.report.State, im.report.Error = ImportFailed, text.Shorten(err.Error(), 500)
	}
}

// save writes the figures of an import that has ended.
func (im *importer) save(ctx context.Context) error {
	return im.s.write(ctx, func(tx *tx) error {
		im.report.Finished = tx.at
		return im.show(ctx, tx)
	})
}

// show writes the figures, for [Store.ImportReport] to read, and the rows refused since the last time. It is [errTaken]
// when another process has taken the import over.
func (im *importer) show(ctx context.Context, tx *tx) error {
	r := &im.report
	r.Total = r.Imported + r.Updated + r.Unchanged + r.Duplicates + r.Invalid
	r.Seen, im.shown = tx.at, time.Now()
	if im.file != nil {
		r.BytesRead = im.file.read
	}
	cancel, err := tx.UpdateImport(ctx, db.UpdateImportParams{
		State: string(r.State), Error: r.Error, RowsRead: int64(r.RowsRead), Total: int64(r.Total), Imported: int64(r.Imported),
		Updated: int64(r.Updated), Unchanged: int64(r.Unchanged), Duplicates: int64(r.Duplicates), Invalid: int64(r.Invalid),
		Unreachable: int64(r.Unreachable), OptedOut: int64(r.OptedOut), BytesRead: int64(r.BytesRead), SeenMs: tx.now, FinishedMs: ms(r.Finished),
		Tenant: r.Tenant, ID: r.ID, Owner: im.owner,
	})
	if errors.Is(err, sql.ErrNoRows) {
		return errTaken
	}
	if err != nil || len(im.rejects) == 0 {
		im.cancel = cancel
		return err
	}
	im.cancel = cancel
	rejected, err := json.Marshal(im.rejects)
	if err != nil {
		return err
	}
	return tx.InsertReject(ctx, r.ID, string(rejected))
}

func (im *importer) reject(line uint64, bad *importfile.RowError) {
	im.report.Invalid++
	row := Rejected{
		Line: line, Column: text.Shorten(strings.ToValidUTF8(bad.Column, "?"), 64),
		Value: text.Shorten(strings.ToValidUTF8(bad.Value, "?"), 64), Reason: bad.Reason,
	}
	im.rejects = append(im.rejects, row)
	if len(im.report.Rejected) < MaxRejected {
		im.report.Rejected = append(im.report.Rejected, row)
	}
}

// number returns the phone number of a row. Of the cells that may hold it, in the order of their ranks, it takes the
// first that can receive messages, else the first that is a phone number at all. The error is that of the first cell.
func (im *importer) number(cells []importfile.Cell) (phone.Number, *importfile.RowError) {
	slices.SortStableFunc(cells, func(a, b importfile.Cell) int { return cmp.Compare(a.Column.Rank, b.Column.Rank) })
	var first *importfile.RowError
	var found phone.Number
	for _, c := range cells {
		for value := range strings.SplitSeq(c.Value, " ::: ") { // Google joins several numbers of one kind with " ::: "
			n, err := im.s.phones.Parse(value, im.region)
			switch {
			case err != nil:
				if first == nil {
					first = refused(c, err.Error())
				}
			case n.Valid && n.Class.TakesText():
				return n, nil
			case found.E164 == "":
				found = n
			}
		}
	}
	if found.E164 != "" {
		return found, nil
	}
	if first == nil {
		first = &importfile.RowError{Column: text.FieldPhone, Reason: "is empty"}
	}
	return found, first
}

// refused returns the error of a row that is refused because of the value of a cell.
func refused(c importfile.Cell, reason string) *importfile.RowError {
	return &importfile.RowError{Column: c.Column.Header, Value: c.Value, Reason: reason}
}

// row adds a row to the batch, or returns why it is refused.
func (im *importer) row(row *importfile.Row) *importfile.RowError {
	var e entry
	numbers, attributes := im.batch.numbers[:0], im.batch.attributes[:0]
	for _, c := range row.Cells {
		switch c.Column.Kind {
		case importfile.Phone:
			numbers = append(numbers, c)
		case importfile.FirstName:
			e.first = orElse(e.first, c.Value)
		case importfile.LastName:
			e.last = orElse(e.last, c.Value)
		case importfile.Email:
			e.email = orElse(e.email, c.Value)
		case importfile.OptIn:
			if e.optIn != 0 || strings.TrimSpace(c.Value) == "" {
				continue
			}
			var ok bool
			if e.optIn, ok = parseOptIn(c.Value, im.report.Started); !ok {
				return refused(c, "want yes, no, or the date of the opt-in, such as 2025-04-15")
			}
		case importfile.OptInSource:
			e.optInSource = orElse(e.optInSource, text.Shorten(c.Value, MaxOptInSource))
		case importfile.Attribute:
			if c.Column.Name == AttributeTimezone {
				if _, err := hours.Zone(c.Value); err != nil {
					return refused(c, "want an IANA time zone such as Europe/Rome")
				}
			}
			attributes = append(attributes, audience.Attr{Name: c.Column.Name, Value: c.Value})
		case importfile.Skip:
		}
	}
	im.batch.numbers, im.batch.attributes = numbers, attributes
	var bad *importfile.RowError
	if e.number, bad = im.number(numbers); bad != nil {
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

// MaxOptInSource is the maximum length of the source of an opt-in, in bytes.
const MaxOptInSource = 200

// optedOutOf is the opt-in time of a row that says "no": it withdraws an earlier opt-in.
const optedOutOf = -1

// parseOptIn reads whether, or when, a person opted in. "yes" means the time of the import.
func parseOptIn(value string, now time.Time) (ms int64, ok bool) {
	value = strings.TrimSpace(value)
	switch strings.ToLower(value) {
	case "yes", "y", "true", "t", "1", "x", "on":
		return now.UnixMilli(), true
	case "no", "n", "false", "f", "0", "off", "-":
		return optedOutOf, true
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if at, err := time.Parse(layout, value); err == nil && at.Year() >= 1990 && !at.After(now.Add(24*time.Hour)) {
			return at.UnixMilli(), true
		}
	}
	return 0, false
}

func tooLarge(size int) *importfile.RowError {
	return &importfile.RowError{Reason: fmt.Sprintf("has %d bytes of fields, want at most %d", size, audience.MaxAttributes)}
}

// joinAttributes returns the same text as [attributeText] for the attributes of a row. When several have the same name,
// the first is kept. Names and values without escapes (nearly all) are written without encoding/json, which would take
// longer than parsing the phone number.
func joinAttributes(attributes []audience.Attr) (string, *importfile.RowError) {
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
			return "", &importfile.RowError{Column: a.Name, Reason: "cannot be the name of an attribute"}
		}
		b.WriteByte(':')
		if !writeJSON(&b, a.Value) {
			return "", &importfile.RowError{Column: a.Name, Reason: "is not text"}
		}
	}
	b.WriteByte('}')
	return b.String(), nil
}

// writeJSON writes a string exactly as encoding/json does. It returns false when encoding/json refuses the string.
func writeJSON(b *bytes.Buffer, s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			escaped, err := json.Marshal(s)
			b.Write(escaped)
			return err == nil
		}
	}
	b.WriteByte('"')
	b.WriteString(s)
	b.WriteByte('"')
	return true
}

// add adds an entry to the batch, or merges it with the one of the same person.
func (im *importer) add(e entry) {
	key, ok := keyNumber(e.number.Key)
	repeated := ok && !im.seen.CheckedAdd(key)
	if im.report.RowsRead <= im.resume {
		return // written and counted
	}
	if repeated {
		im.report.Duplicates++
	}
	e.optedOut = ok && im.optedOut.Contains(key)
	b := &im.batch
	if at, ok := b.known[e.number.Key]; ok {
		b.entries[at].fill(&e)
		return
	}
	e.repeated = repeated
	b.known[e.number.Key] = len(b.entries)
	b.entries = append(b.entries, e)
}

// importBatch holds the rows of the next transaction.
type importBatch struct {
	entries    []entry
	known      map[string]int    // by the key of the number
	numbers    []importfile.Cell // of the row that is being read
	attributes []audience.Attr   // of the row that is being read
}

func (b *importBatch) size() int { return len(b.entries) }

// entry is one number of a batch.
type entry struct {
	number             phone.Number
	first, last, email string
	attributes         string // in the form of attributeText
	optIn              int64  // when the person opted in, in ms; 0: the row does not say; or [optedOutOf]
	optInSource        string
	// repeated: an earlier batch of this file had the number, so this row only fills in what is missing.
	repeated bool
	// changed: the row has changed a contact that existed.
	changed bool
	// optedOut: the number had opted out when the import began.
	optedOut bool
}

func (e *entry) size() int {
	return fieldBytes(text.FieldFirstName, e.first) + fieldBytes(text.FieldLastName, e.last) + fieldBytes(text.FieldEmail, e.email) + len(e.attributes)
}

func fieldBytes(name, value string) int {
	if value == "" {
		return 0
	}
	return len(name) + len(value)
}

// fill copies the fields that e lacks from other.
func (e *entry) fill(other *entry) {
	merged := *e
	merged.first, merged.last, merged.email = orElse(e.first, other.first), orElse(e.last, other.last), orElse(e.email, other.email)
	merged.attributes = overlay(other.attributes, e.attributes)
	if merged.optIn == 0 {
		merged.optIn, merged.optInSource = other.optIn, other.optInSource
	}
	if merged.size() <= audience.MaxAttributes { // if it is too large, the first row stays as it is
		*e = merged
	}
}

// overlay returns the attributes of both. Where both have the same name, the value of above is used.
func overlay(below, above string) string {
	if below == "" || below == above {
		return above
	}
	if above == "" {
		return below
	}
	out, _ := parseAttributes(below) // attributeText wrote both
	over, _ := parseAttributes(above)
	maps.Copy(out, over)
	joined, _ := attributeText(out)
	return joined
}
