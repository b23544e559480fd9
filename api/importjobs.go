package api

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"fanfare/api/importfile"
	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/text"
)

// previewRows is how many rows the answer to an upload shows.
const previewRows = 20

// Upload is an uploaded file, with a preview of its import.
type Upload struct {
	ID        string            `json:"uploadId" doc:"Names the file when its import is started." example:"upl_4k2m…"`
	Filename  string            `json:"filename" doc:"As given; empty when no name was given."`
	Format    string            `json:"format" enum:"csv,json,xlsx,vcard" doc:"What the file was recognised as."`
	Bytes     uint64            `json:"bytes" doc:"Size of the file, in bytes."`
	ExpiresAt string            `json:"expiresAt" format:"date-time" doc:"An import must be started by then."`
	Columns   []UploadColumn    `json:"columns" nullable:"false" doc:"The columns of the file; for JSON and vCard, those of the first rows."`
	Mapping   map[string]string `json:"mapping" doc:"The field that each column would become, in the form that POST /api/contacts/mapped/file takes. Correct it where it is wrong."`
	Preview   []PreviewRow      `json:"preview" nullable:"false" doc:"The first 20 rows, as they would be imported."`
	Warnings  []string          `json:"warnings" nullable:"false" doc:"What looks wrong with the file, in sentences; empty when nothing does."`
}

// UploadColumn is a column of a file.
type UploadColumn struct {
	Header string `json:"header" doc:"As in the file." example:"Cellulare"`
	Field  string `json:"field" example:"phone" doc:"phone, first_name, last_name, email, the name of an attribute, or - for a column that is left out."`
}

// PreviewRow is a row of a file.
type PreviewRow struct {
	Line        uint64   `json:"line" doc:"1 is the first line of the file; in JSON, the first object."`
	Values      []string `json:"values" nullable:"false" doc:"As in the file, in the order of columns; empty for JSON and vCard."`
	PhoneNumber *string  `json:"phoneNumber" doc:"The number as messages would be sent to it; null when the row would be refused."`
	Column      *string  `json:"column" doc:"Column of the value for which the row would be refused."`
	Reason      *string  `json:"reason" doc:"Why the row would be refused."`
}

// MappedFileInput starts the import of a file.
type MappedFileInput struct {
	UploadID    string            `json:"uploadId" example:"upl_4k2m…" doc:"From POST /api/contacts/upload."`
	ContactList string            `json:"contactList" example:"active_customers" doc:"Id or name."`
	Mapping     map[string]string `json:"mapping,omitempty" doc:"Maps headers to fields: phone, first_name, last_name, email, the name of an attribute, or - to leave the column out. Columns that are not mapped are recognised by their headers."`
	Region      string            `json:"region,omitempty" example:"IT" doc:"Country as which numbers without a country code are read; default: the tenant's. 001 (the world): all numbers have a country code, with or without +."`
}

type (
	uploadIn struct {
		Filename string `query:"filename" doc:"Name of the file, shown to people. A form contains it already."`
		Region   string `query:"region" doc:"Country as which numbers without a country code are read; default: the tenant's."`

		contentType string
		body        io.Reader
	}
	uploadOut     struct{ Body *Upload }
	mappedFileIn  struct{ Body problem.Body[MappedFileInput] }
	mappedFileOut struct {
		Location string `header:"Location"`
		Body     *Import
	}
	allImportsIn struct {
		Page   int    `query:"page" minimum:"0"`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"10"`
		Cursor string `query:"cursor" doc:"The value of next in an earlier answer: continues behind its last row. Unlike with page, rows that are added or removed meanwhile cause no gap and no repetition."`
	}
	importIDIn struct {
		ID string `path:"id" doc:"Id of the import." example:"imp_4k2m…"`
	}
)

// Resolve keeps the body as a stream, so that huma does not read it.
func (in *uploadIn) Resolve(ctx huma.Context) []error {
	r, _ := humachi.Unwrap(ctx)
	in.contentType, in.body = r.Header.Get("Content-Type"), r.Body
	return nil
}

func (s *server) registerImportJobs() {
	register(s, operation{
		id: "uploadContacts", method: http.MethodPost, path: "/api/contacts/upload", summary: "Upload a file of contacts", status: http.StatusCreated,
		scope: store.ScopeContacts, errors: []int{400, 413, 415, 422}, streamed: true, testKeys: testKeysConfined, tag: contactTag,
		describe: "The file as it is (CSV, Excel, vCards or JSON, also packed with gzip), or as the file of a form. It is not imported yet: the answer lists the " +
			"columns, the fields that they seem to be, and how the first 20 rows would be read. POST /api/contacts/mapped/file imports it. The file is kept for a day.",
	}, s.uploadContacts)
	binary := &huma.Schema{Type: huma.TypeString, Format: "binary"}
	s.api.OpenAPI().Paths["/api/contacts/upload"].Post.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"text/csv": {Schema: &huma.Schema{Type: huma.TypeString}, Example: "Cellulare;Nome\n333 123 4567;Anna\n"}, contentTypeXLSX: {Schema: binary},
		"application/octet-stream": {Schema: binary}, "multipart/form-data": {Schema: &huma.Schema{
			Type: huma.TypeObject, Properties: map[string]*huma.Schema{"file": {Type: huma.TypeString, Format: "binary", Description: "The file; its name is shown to people."}}, Required: []string{"file"},
		}},
	}}
	register(s, operation{
		id: "importMappedFile", method: http.MethodPost, path: "/api/contacts/mapped/file", summary: "Import an uploaded file into a list", status: http.StatusAccepted,
		scope: store.ScopeContacts, errors: []int{400, 404, 409, 422}, testKeys: testKeysConfined, tag: contactTag,
		describe: "The answer comes at once; the import runs in the background and continues after a restart. GET /api/imports/{id} returns its progress. " +
			"Refused while a person of the tenant is being erased.",
	}, s.importMappedFile)
	register(s, operation{
		id: "listAllImports", method: http.MethodGet, path: "/api/imports", summary: "List imports, newest first",
		scope: store.ScopeRead, errors: []int{422}, tag: contactTag,
	}, func(ctx context.Context, in *allImportsIn) (*importsOut, error) {
		return s.importPage(ctx, store.ImportFilter{Page: store.Page{Number: in.Page, Limit: in.Limit}}, in.Cursor)
	})
	register(s, operation{
		id: "getImportJob", method: http.MethodGet, path: "/api/imports/{id}", summary: "Get the progress of an import",
		scope: store.ScopeRead, errors: []int{404}, tag: contactTag,
	}, func(ctx context.Context, in *importIDIn) (*importOut, error) {
		r, err := s.importReport(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return &importOut{Body: viewImport(r)}, nil
	})
	register(s, operation{
		id: "cancelImport", method: http.MethodPost, path: "/api/imports/{id}/cancel", summary: "Cancel an import",
		scope: store.ScopeContacts, errors: []int{404, 409}, testKeys: testKeysConfined, tag: contactTag,
		describe: "The contacts it has stored are kept. A running import ends within a second.",
	}, s.cancelImport)
	register(s, operation{
		id: "listImportRejects", method: http.MethodGet, path: "/api/imports/{id}/rejects", summary: "The rows that an import refused, as CSV",
		scope: store.ScopeRead, errors: []int{404}, tag: contactTag,
		describe: "Columns: row (its line in the file), column, value (at most 64 characters) and reason. They are kept for a month.",
	}, s.importRejects)
	describeCSV(s.api.OpenAPI().Paths["/api/imports/{id}/rejects"].Get, "row,column,value,reason\n5,phone,nonsense,is not a phone number\n")
}

// describeCSV documents that an operation answers with CSV.
func describeCSV(op *huma.Operation, example string) {
	op.Responses["200"] = &huma.Response{Description: "OK", Content: map[string]*huma.MediaType{
		"text/csv": {Schema: &huma.Schema{Type: huma.TypeString}, Example: example},
	}}
}

// uploadedFile is the file of a request: its body, or the first file of a form.
func (in *uploadIn) uploadedFile(body io.Reader) (io.Reader, error) {
	ct, params, err := mime.ParseMediaType(in.contentType)
	if err != nil || ct != "multipart/form-data" {
		return body, nil //nolint:nilerr // without a multipart type, the body is the file
	}
	form := multipart.NewReader(body, params["boundary"])
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return nil, problem.Field(problem.CodeRequired, "file", "The form has no file.").WithFix("curl -F file=@contacts.csv")
		}
		if err != nil {
			return nil, problem.New(problem.CodeMalformed, "The form cannot be read: %s.", problem.Truncate(err.Error(), 100))
		}
		if part.FileName() != "" {
			in.contentType = part.Header.Get("Content-Type")
			if in.Filename == "" {
				in.Filename = part.FileName()
			}
			return part, nil
		}
	}
}

func (s *server) uploadContacts(ctx context.Context, in *uploadIn) (*uploadOut, error) {
	limited := &limitedBody{r: s.stalling(ctx, in.body), left: maxImport}
	file, err := in.uploadedFile(limited)
	if err != nil {
		return nil, err
	}
	if in.contentType == "" {
		in.contentType = "application/octet-stream"
	}
	format, charset, p := importFormat(in.contentType)
	if p != nil {
		return nil, p
	}
	kept, err := s.Store.SaveUpload(ctx, requestOf(ctx).who.tenant.ID, store.Upload{
		Source: problem.Truncate(in.Filename, 200), Format: format, Charset: charset,
	}, file)
	switch {
	case limited.over:
		return nil, problem.New(problem.CodeBodyTooLarge, "A file has at most %d bytes.", int64(maxImport))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, problem.New(problem.CodeTimeout, "The upload stopped: no byte came for %s.", s.ImportStall)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, problem.New(problem.CodeMalformed, "The upload ended before it was complete.").Because(err)
	case err != nil:
		return nil, s.storeProblem(err)
	case kept.Bytes == 0:
		return nil, problem.Field(problem.CodeRequired, "file", "The file is empty.")
	}
	preview, err := s.Store.PreviewUpload(ctx, kept, store.ImportOptions{Region: in.Region}, previewRows)
	if err != nil {
		return nil, s.fileProblem(err)
	}
	return &uploadOut{viewUpload(&kept, &preview)}, nil
}

// fileProblem explains what is wrong with a file.
func (s *server) fileProblem(err error) error {
	if errors.Is(err, store.ErrStream) {
		return problem.Field(problem.CodeInvalid, "file", "%s.", problem.Truncate(err.Error(), 200))
	}
	return s.storeProblem(err)
}

// fieldNames are the names of a contact's fields in a mapping.
var fieldNames = map[importfile.Kind]string{
	importfile.Phone: text.FieldPhone, importfile.FirstName: text.FieldFirstName, importfile.LastName: text.FieldLastName,
	importfile.Email: text.FieldEmail, importfile.OptIn: importfile.FieldOptIn, importfile.OptInSource: importfile.FieldOptInSource, importfile.Skip: "-",
}

func viewUpload(u *store.Upload, preview *store.Preview) *Upload {
	v := &Upload{
		ID: u.ID, Filename: u.Source, Format: string(preview.Format), Bytes: u.Bytes, ExpiresAt: stamp(u.Expires),
		Columns: []UploadColumn{}, Mapping: map[string]string{}, Preview: []PreviewRow{}, Warnings: []string{},
	}
	for _, c := range preview.Columns {
		field := c.Name
		if name, ok := fieldNames[c.Kind]; ok {
			field = name
		}
		v.Columns = append(v.Columns, UploadColumn{c.Header, field})
		if c.Header != "" && preview.Format != importfile.VCard {
			v.Mapping[c.Header] = field
		}
	}
	for _, row := range preview.Rows {
		v.Preview = append(v.Preview, PreviewRow{
			Line: row.Line, Values: append([]string{}, row.Cells...), PhoneNumber: orNull(row.Phone), Column: orNull(row.Column), Reason: orNull(row.Reason),
		})
	}
	if preview.NoPhone && len(preview.Rows) > 0 {
		v.Warnings = append(v.Warnings, "No column seems to be the phone number: map one to phone.")
	}
	return v
}

func (s *server) importMappedFile(ctx context.Context, in *mappedFileIn) (*mappedFileOut, error) {
	body := &in.Body.Value
	var ps problem.List
	if body.UploadID == "" {
		ps.Add(problem.CodeRequired, "uploadId", "uploadId is required: POST /api/contacts/upload returns it.")
	}
	if body.ContactList == "" {
		ps.Add(problem.CodeRequired, "contactList", "contactList is required.")
	}
	if err := ps.Err(); err != nil {
		return nil, err
	}
	l, err := s.listToChange(ctx, body.ContactList)
	if err != nil {
		return nil, err
	}
	r, err := s.Store.StartImport(ctx, l.Tenant, l.Number, body.UploadID, store.ImportOptions{Region: body.Region, Columns: body.Mapping})
	var field *store.FieldError
	switch {
	case errors.Is(err, schemas.ErrNotFound):
		return nil, problem.Field(problem.CodeNotFound, "uploadId", "There is no upload %q.", problem.Truncate(body.UploadID, 40)).
			WithFix("A file is kept for a day, or until it was imported: upload it again.")
	case errors.As(err, &field) && field.Field == "Columns":
		return nil, problem.Field(problem.CodeInvalid, "mapping", "%q: %s.", problem.Truncate(field.Value, 60), field.Reason)
	case err != nil:
		return nil, s.fileProblem(err)
	}
	return &mappedFileOut{"/api/imports/" + r.ID, viewImport(&r)}, nil
}

// importPage answers with a page of imports.
func (s *server) importPage(ctx context.Context, f store.ImportFilter, cursor string) (*importsOut, error) {
	after, p := readCursor("imports", cursor)
	if p != nil {
		return nil, p
	}
	if after != "" {
		at, id, _ := strings.Cut(after, " ")
		ms, err := strconv.ParseInt(at, 10, 64)
		if err != nil {
			return nil, problem.Field(problem.CodeInvalid, "cursor", "The cursor is not one of this list.")
		}
		f.After, f.AfterTime, f.Number = id, time.UnixMilli(ms), 0
	}
	rows, total, err := s.Store.Imports(ctx, requestOf(ctx).who.tenant.ID, f)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	out := &Page[*Import]{Data: []*Import{}, Page: f.Number, Limit: f.Limit, Total: total}
	for i := range rows {
		out.Data = append(out.Data, viewImport(&rows[i]))
	}
	if n := len(rows); n > 0 {
		last := &rows[n-1]
		out.Next = nextCursor("imports", n, f.Limit, func() string { return strconv.FormatInt(last.Started.UnixMilli(), 10) + " " + last.ID })
	}
	return &importsOut{out}, nil
}

func (s *server) importReport(ctx context.Context, id string) (*store.ImportReport, error) {
	r, err := s.Store.ImportReport(ctx, requestOf(ctx).who.tenant.ID, id)
	if errors.Is(err, schemas.ErrNotFound) {
		return nil, problem.New(problem.CodeNotFound, "There is no import %q.", problem.Truncate(id, 40))
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &r, nil
}

func (s *server) cancelImport(ctx context.Context, in *importIDIn) (*importOut, error) {
	r, err := s.importReport(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if requestOf(ctx).who.key.Test {
		if _, err := s.listToChange(ctx, store.ListID(r.List)); err != nil {
			return nil, err
		}
	}
	err = s.Store.CancelImport(ctx, r.Tenant, r.ID)
	if errors.Is(err, schemas.ErrTransition) {
		return nil, problem.New(problem.CodeWrongState, "The import has ended.").WithFix("GET /api/imports/%s returns its result.", r.ID)
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	if r, err = s.importReport(ctx, in.ID); err != nil {
		return nil, err
	}
	return &importOut{Body: viewImport(r)}, nil
}

func (s *server) importRejects(ctx context.Context, in *importIDIn) (*huma.StreamResponse, error) {
	r, err := s.importReport(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return s.answerCSV(ctx, "rejects-"+r.ID+".csv", []string{"row", "column", "value", "reason"}, func(ctx context.Context, write func(...string) error) error {
		return s.Store.ImportRejects(ctx, r.Tenant, r.ID, func(rows []store.Rejected) error {
			for _, row := range rows {
				if err := write(strconv.FormatUint(row.Line, 10), row.Column, row.Value, row.Reason); err != nil {
					return err
				}
			}
			return nil
		})
	}), nil
}

// answerCSV answers with a CSV file whose rows fill writes. An error after the first rows aborts the connection, so
// that the client does not take a truncated file for a complete one.
func (s *server) answerCSV(ctx context.Context, name string, header []string, fill func(ctx context.Context, write func(...string) error) error) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader("Content-Type", contentTypeCSV)
		hc.SetHeader("Content-Disposition", `attachment; filename="`+name+`"`)
		w, err := newCSV(hc.BodyWriter(), header)
		if err == nil {
			err = fill(ctx, w.write)
		}
		if err = errors.Join(err, w.close()); err != nil {
			s.Logger.WarnContext(ctx, "answer aborted", "request_id", requestOf(ctx).id, "err", err.Error())
			panic(http.ErrAbortHandler) //nolint:forbidigo // the way to break an answer off (net/http)
		}
	}}
}

// harmlessCell changes a text that a spreadsheet would take for a formula. A phone number stays as it is.
func harmlessCell(s string) string {
	if s == "" || !strings.ContainsRune("=+-@\t\r", rune(s[0])) || plainNumber(s) {
		return s
	}
	return "'" + s
}

// plainNumber reports whether s is + and 6 to 15 digits.
func plainNumber(s string) bool {
	if len(s) < 7 || len(s) > 16 || s[0] != '+' {
		return false
	}
	return strings.Trim(s[1:], "0123456789") == ""
}
