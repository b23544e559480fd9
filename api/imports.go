package api

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"fanfare/api/importfile"
	"fanfare/api/problem"
	"fanfare/api/store"
)

// maxImport is the maximum size of one import: a million of the longest rows.
const maxImport = importfile.MaxBytes

// Import is the report of an import, ended or not. total is always imported + updated + unchanged + duplicates +
// invalid.
type Import struct {
	ID          string        `json:"id" doc:"Names the import in paths." example:"imp_4k2m…"`
	ListID      string        `json:"listId" doc:"Contact list that it adds to."`
	Filename    string        `json:"filename" doc:"As given; empty when no name was given."`
	Status      string        `json:"status" enum:"queued,running,done,failed,cancelled" doc:"In every status, contacts that were imported are kept. queued: no process has begun the import yet."`
	Error       *string       `json:"error" doc:"Why it failed."`
	Progress    *float64      `json:"progress" doc:"Share of the file that was read, 0 to 1; null when its size is not known."`
	RowsRead    uint64        `json:"rowsRead" doc:"Rows that were read so far, good and bad."`
	Total       uint64        `json:"total" doc:"Rows that were worked through so far: imported + updated + unchanged + duplicates + invalid."`
	Imported    uint64        `json:"imported" doc:"Contacts added to the list."`
	Updated     uint64        `json:"updated" doc:"Contacts already in the list whose fields changed."`
	Unchanged   uint64        `json:"unchanged" doc:"Contacts already in the list with the same fields."`
	Duplicates  uint64        `json:"duplicates" doc:"Rows with the number of an earlier row of the file, merged with it."`
	Invalid     uint64        `json:"invalid" doc:"Refused: no E.164 form, or a row that cannot be read. GET /api/imports/{id}/rejects lists them."`
	Unreachable uint64        `json:"unreachable" doc:"Stored, but the number cannot receive messages, so nothing is sent to it."`
	OptedOut    uint64        `json:"optedOut" doc:"Stored, but the number had opted out when the import began, so nothing is sent to it."`
	Rejected    []RejectedRow `json:"rejected" nullable:"false" doc:"The first 1,000 refused rows; empty in a list of imports."`
	StartedAt   string        `json:"startedAt" format:"date-time" doc:"When it was ordered, in UTC."`
	FinishedAt  *string       `json:"finishedAt" format:"date-time" doc:"When it ended, in UTC; null before."`
}

// RejectedRow is a row that was refused.
type RejectedRow struct {
	Line   uint64 `json:"line" doc:"1 is the first line of the file; in JSON, the first object."`
	Column string `json:"column" doc:"Header of the column of the value at fault; empty when the whole row is."`
	Value  string `json:"value" doc:"The value at fault, as in the file."`
	Reason string `json:"reason" doc:"What is wrong with it, in words."`
}

type (
	importIn struct {
		ID      string `path:"id" doc:"Id or name of the list." example:"list_12345"`
		Region  string `query:"region" doc:"Country as which numbers without a country code are read; default: the tenant's. 001 (the world): all numbers have a country code, with or without +." example:"IT"`
		Columns string `query:"columns" doc:"Maps columns to fields: header=field pairs separated by commas, such as cell=phone,Nome=first_name. The field - leaves a column out."`
		Name    string `query:"filename" doc:"Name of the file, shown to people."`

		contentType string
		body        io.Reader
	}
	importOut struct {
		Location string `header:"Location"`
		Body     *Import
	}
	importGetIn struct {
		ID       string `path:"id" doc:"Id or name of the list."`
		ImportID string `path:"importId" doc:"Id of the import."`
	}
	importsIn struct {
		ID     string `path:"id" doc:"Id or name of the list."`
		Page   int    `query:"page" minimum:"0"`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
		Cursor string `query:"cursor" doc:"The value of next in an earlier answer: continues behind its last row. Unlike with page, rows that are added or removed meanwhile cause no gap and no repetition."`
	}
	importsOut struct{ Body *Page[*Import] }
)

// Resolve keeps the body as a stream, so that a file of a million rows is never in memory.
func (in *importIn) Resolve(ctx huma.Context) []error {
	r, _ := humachi.Unwrap(ctx)
	in.contentType, in.body = r.Header.Get("Content-Type"), r.Body
	return nil
}

// stallingBody renews the read deadline with each read: an import may take long, but must not stall.
type stallingBody struct {
	r    io.Reader
	rc   *http.ResponseController
	wait time.Duration
}

func (s *server) stalling(ctx context.Context, body io.Reader) stallingBody {
	return stallingBody{body, http.NewResponseController(requestOf(ctx)), s.ImportStall}
}

// Read reads the next part.
func (b stallingBody) Read(p []byte) (int, error) {
	_ = b.rc.SetReadDeadline(time.Now().Add(b.wait)) // fails only for the recorders of tests, which have no deadlines
	n, err := b.r.Read(p)
	// Remove the deadline for the next request on the connection; after any other error there is no next request
	if errors.Is(err, io.EOF) {
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

func (s *server) registerImports() {
	register(s, operation{
		id: "importContacts", method: http.MethodPost, path: "/api/contacts/list/{id}/import", summary: "Import contacts into a list",
		scope: store.ScopeContacts, errors: []int{400, 404, 409, 413, 415, 422}, streamed: true, testKeys: testKeysConfined, tag: contactTag,
		describe: "A CSV file with a header row (phone, first_name, last_name, email, or the names that Google, Outlook, iPhones and people use for them in several languages; " +
			"every other column is an attribute; comma, semicolon, tab or bar; the charset as declared, else UTF-8, or UTF-16 with a byte order mark), an Excel workbook (.xlsx), " +
			"vCards, or JSON: an array of objects, or objects one after the other. Each of them may be compressed with gzip. The body is streamed. Importing the same file " +
			"again changes nothing. Refused while a person of the tenant is being erased.",
	}, s.importContacts)
	body := s.api.OpenAPI().Paths["/api/contacts/list/{id}/import"].Post
	text := &huma.Schema{Type: huma.TypeString}
	binary := &huma.Schema{Type: huma.TypeString, Format: "binary"}
	body.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"text/csv":             {Schema: text, Example: "phone,first_name,city\n+393331234567,Anna,Rome\n"},
		"text/vcard":           {Schema: text, Example: "BEGIN:VCARD\nVERSION:4.0\nN:Rossi;Anna;;;\nTEL;TYPE=cell:+393331234567\nEND:VCARD\n"},
		"application/x-ndjson": {Schema: text, Example: "{\"phone\":\"+393331234567\",\"first_name\":\"Anna\"}\n"},
		contentTypeXLSX:        {Schema: binary},
		"application/json": {Schema: &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{
			Type: huma.TypeObject, AdditionalProperties: text, Properties: map[string]*huma.Schema{
				"phone":      {Type: huma.TypeString, Description: "With country code, or as dialled in the region."},
				"first_name": {Type: huma.TypeString, Description: "Fills {{first_name}}."},
				"last_name":  {Type: huma.TypeString, Description: "Fills {{last_name}}."},
				"email":      {Type: huma.TypeString, Description: "Fills {{email}}."},
			},
		}}},
	}}
	register(s, operation{
		id: "listImports", method: http.MethodGet, path: "/api/contacts/list/{id}/imports", summary: "List the imports into a list, newest first",
		scope: store.ScopeRead, errors: []int{404, 422}, tag: contactTag,
	}, s.listImports)
	register(s, operation{
		id: "getImport", method: http.MethodGet, path: "/api/contacts/list/{id}/imports/{importId}", summary: "Get the progress of an import",
		scope: store.ScopeRead, errors: []int{404}, tag: contactTag,
	}, s.getImport)
}

const contentTypeXLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

// importFormats maps content types to formats. For "", the first bytes of the file decide: a browser on Windows sends
// the type of a workbook for a CSV file, and application/octet-stream for others.
var importFormats = map[string]importfile.Format{
	"text/csv": importfile.CSV, "application/csv": importfile.CSV, "text/plain": importfile.CSV, "text/tab-separated-values": importfile.CSV,
	"application/json": importfile.JSON, "application/x-ndjson": importfile.JSON, "application/ndjson": importfile.JSON,
	"application/jsonl": importfile.JSON, "application/json-seq": importfile.JSON, "text/json": importfile.JSON,
	contentTypeXLSX: importfile.XLSX, "text/vcard": importfile.VCard, "text/x-vcard": importfile.VCard, "text/directory": importfile.VCard,
	"application/vnd.ms-excel": "", "application/octet-stream": "", "application/gzip": "", "application/x-gzip": "",
}

// importFormat reads the content type of a file: its format, and the charset that it declares. curl --data-binary
// without -H sends a form type, which is refused.
func importFormat(contentType string) (format importfile.Format, charset string, p *problem.Problem) {
	ct, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		ct, _, _ = strings.Cut(strings.ToLower(contentType), ";")
		ct = strings.TrimSpace(ct)
	}
	format, ok := importFormats[ct]
	if !ok && strings.HasSuffix(ct, "+json") {
		format, ok = importfile.JSON, true
	}
	if !ok {
		return "", "", problem.New(problem.CodeMediaType, "The body has the content type %q.", problem.Truncate(contentType, 100)).
			WithFix("Send Content-Type: text/csv, application/json, text/vcard or " + contentTypeXLSX + ".")
	}
	if err := importfile.CheckCharset(params["charset"]); err != nil {
		return "", "", problem.New(problem.CodeMediaType, "The charset %q is not known.", problem.Truncate(params["charset"], 40)).
			WithFix("Send a charset such as utf-8, utf-16, iso-8859-1 or windows-1252, or none for UTF-8.")
	}
	return format, params["charset"], nil
}

// columns reads header=field pairs.
func columns(s string) (map[string]string, *problem.Problem) {
	if s == "" {
		return nil, nil
	}
	out := map[string]string{}
	for pair := range strings.SplitSeq(s, ",") {
		header, field, ok := strings.Cut(pair, "=")
		if header, field = strings.TrimSpace(header), strings.TrimSpace(field); !ok || header == "" || field == "" {
			return nil, problem.Field(problem.CodeInvalid, "columns", "%q is not a pair header=field.", problem.Truncate(pair, 60))
		}
		out[header] = field
	}
	return out, nil
}

func (s *server) importContacts(ctx context.Context, in *importIn) (*importOut, error) {
	who := requestOf(ctx).who
	format, charset, p := importFormat(in.contentType)
	if p != nil {
		return nil, p
	}
	mapping, p := columns(in.Columns)
	if p != nil {
		return nil, p
	}
	l, err := s.listToChange(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	body := &limitedBody{r: s.stalling(ctx, in.body), left: maxImport}
	// When the connection breaks, the context of the request is cancelled, but the rows read before must be stored. So
	// only the end of the body ends an import.
	ctx = context.WithoutCancel(ctx)
	report, err := s.Store.Import(ctx, who.tenant.ID, l.Number, store.ImportOptions{
		Format: format, Charset: charset, Region: strings.ToUpper(in.Region), Columns: mapping, Source: problem.Truncate(in.Name, 200),
	}, body, nil)
	if body.over {
		return nil, problem.New(problem.CodeBodyTooLarge, "An import has at most %d bytes; the rows before the limit are kept.", int64(maxImport))
	}
	if errors.Is(err, store.ErrStream) {
		p := problem.New(problem.CodeMalformed, "The %s.", report.Error)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p = problem.New(problem.CodeTimeout, "The import stopped after %d rows: no byte came for %s.", report.RowsRead, s.ImportStall)
		}
		return nil, p.WithFix("The rows read before are kept: correct the file and import it again, which imports the rest.").Because(err)
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	v := viewImport(&report)
	return &importOut{"/api/contacts/list/" + l.ID() + "/imports/" + v.ID, v}, nil
}

// limitedBody fails a body that is too long, and records that it did.
type limitedBody struct {
	r    io.Reader
	left int64
	over bool
}

// Read stops at the limit.
func (b *limitedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		b.over = true
		return 0, errors.New("the body is too long")
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func viewImport(r *store.ImportReport) *Import {
	v := &Import{
		ID: r.ID, ListID: store.ListID(r.List), Filename: r.Source, Status: string(r.State), Error: orNull(r.Error), RowsRead: r.RowsRead, Total: r.Total,
		Imported: r.Imported, Updated: r.Updated, Unchanged: r.Unchanged, Duplicates: r.Duplicates, Invalid: r.Invalid, Unreachable: r.Unreachable,
		OptedOut: r.OptedOut, Rejected: make([]RejectedRow, 0, len(r.Rejected)), StartedAt: stamp(r.Started), FinishedAt: stampOrNull(r.Finished),
	}
	if r.State == store.ImportDone {
		v.Progress = new(1.0)
	} else if r.Bytes > 0 {
		v.Progress = new(float64(r.BytesRead) / float64(r.Bytes))
	}
	for _, row := range r.Rejected {
		v.Rejected = append(v.Rejected, RejectedRow(row))
	}
	return v
}

func (s *server) getImport(ctx context.Context, in *importGetIn) (*importOut, error) {
	l, err := s.list(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	r, err := s.Store.ImportReport(ctx, l.Tenant, in.ImportID)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	if r.List != l.Number {
		return nil, problem.New(problem.CodeNotFound, "There is no import %q of this list.", problem.Truncate(in.ImportID, 40))
	}
	return &importOut{Body: viewImport(&r)}, nil
}

func (s *server) listImports(ctx context.Context, in *importsIn) (*importsOut, error) {
	l, err := s.list(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return s.importPage(ctx, store.ImportFilter{Page: store.Page{Number: in.Page, Limit: in.Limit}, List: l.Number}, in.Cursor)
}
