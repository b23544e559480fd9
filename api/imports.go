package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"fanfare/api/store"
)

// maxImport is the most bytes of one import: a million rows of the longest kind.
const maxImport = 2 << 30

// Import says what an import did, or has done so far. Always total = imported + updated + unchanged + duplicates + invalid.
type Import struct {
	ID          string        `json:"id" example:"imp_4k2m…"`
	ListID      string        `json:"listId"`
	Status      string        `json:"status" enum:"running,done,failed"`
	Error       *string       `json:"error"`
	RowsRead    uint64        `json:"rowsRead"`
	Total       uint64        `json:"total"`
	Imported    uint64        `json:"imported" doc:"New in the list."`
	Updated     uint64        `json:"updated" doc:"In the list already, with other fields."`
	Unchanged   uint64        `json:"unchanged" doc:"In the list already, as the row has it."`
	Duplicates  uint64        `json:"duplicates" doc:"Repeats within the file, merged with the first."`
	Invalid     uint64        `json:"invalid" doc:"Refused: no E.164 form, or a row that cannot be read."`
	Unreachable uint64        `json:"unreachable" doc:"Stored, but not a number that can take messages: not sent to."`
	Rejected    []RejectedRow `json:"rejected" nullable:"false" doc:"The first 1,000 of invalid."`
	StartedAt   string        `json:"startedAt" format:"date-time"`
	FinishedAt  *string       `json:"finishedAt" format:"date-time"`
}

// RejectedRow is a row that was refused.
type RejectedRow struct {
	Line   uint64 `json:"line" doc:"1 is the first line of the file; of JSON, the first object."`
	Column string `json:"column"`
	Value  string `json:"value"`
	Reason string `json:"reason"`
}

type (
	importIn struct {
		ID      string `path:"id" doc:"Id or name of the list." example:"list_12345"`
		Region  string `query:"region" doc:"Region of numbers without a country code; the tenant's otherwise." example:"IT"`
		Columns string `query:"columns" doc:"Which field a column is: header=field pairs separated by commas, such as cell=phone,Nome=first_name; the field - leaves a column out."`
		Name    string `query:"filename" doc:"Name of the file, for people."`

		contentType string
		body        io.Reader
	}
	importOut struct {
		Location string `header:"Location"`
		Body     *Import
	}
	importGetIn struct {
		ID       string `path:"id" doc:"Id or name of the list."`
		ImportID string `path:"importId"`
	}
	importsIn struct {
		ID string `path:"id" doc:"Id or name of the list."`
	}
	importsOut struct{ Body *Page[*Import] }
)

// Resolve keeps the body as a stream: a million rows are never in memory.
func (in *importIn) Resolve(ctx huma.Context) []error {
	r, _ := humachi.Unwrap(ctx)
	in.contentType, in.body = r.Header.Get("Content-Type"), r.Body
	return nil
}

// stallingBody gives each part of a streamed body its own time: a file may be long, but not stand still.
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
	_ = b.rc.SetReadDeadline(time.Now().Add(b.wait)) // a writer that knows no deadlines is a test's
	n, err := b.r.Read(p)
	if errors.Is(err, io.EOF) { // what comes after may take as long as it likes; after any other error nothing more is to be read
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

func (s *server) registerImports() {
	register(s, operation{
		id: "importContacts", method: http.MethodPost, path: "/api/contacts/list/{id}/import", summary: "Import contacts into a list",
		scope: store.ScopeContacts, errors: []int{400, 404, 413, 415, 422}, streamed: true, tag: contactTag,
		describe: "text/csv with a header row (phone, first_name, last_name, email; every other column is an attribute; comma, semicolon or tab; UTF-8 or UTF-16), " +
			"or application/json with an array of such objects. The body is streamed. Importing the same file again changes nothing.",
	}, s.importContacts)
	body := s.api.OpenAPI().Paths["/api/contacts/list/{id}/import"].Post
	text := &huma.Schema{Type: huma.TypeString}
	body.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"text/csv": {Schema: text, Example: "phone,first_name,city\n+393331234567,Anna,Rome\n"},
		"application/json": {Schema: &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{
			Type: huma.TypeObject, AdditionalProperties: text, Properties: map[string]*huma.Schema{"phone": text, "first_name": text, "last_name": text, "email": text},
		}}},
	}}
	register(s, operation{
		id: "listImports", method: http.MethodGet, path: "/api/contacts/list/{id}/imports", summary: "List the imports into a list, newest first: of the tenant's last 1,000",
		scope: store.ScopeRead, errors: []int{404}, tag: contactTag,
	}, s.listImports)
	register(s, operation{
		id: "getImport", method: http.MethodGet, path: "/api/contacts/list/{id}/imports/{importId}", summary: "How far an import is",
		scope: store.ScopeRead, errors: []int{404}, tag: contactTag,
	}, s.getImport)
}

// importFormat reads the content type. curl --data-binary without one sends a form; a file is not one.
func importFormat(contentType string) (store.Format, *Problem) {
	ct, _, _ := strings.Cut(contentType, ";")
	switch ct = strings.ToLower(strings.TrimSpace(ct)); {
	case ct == "text/csv" || ct == "application/csv" || ct == "text/plain":
		return store.FormatCSV, nil
	case ct == "application/json" || ct == "application/x-ndjson" || strings.HasSuffix(ct, "+json"):
		return store.FormatJSON, nil
	}
	return "", problem(CodeMediaType, "The body is %q.", truncate(contentType, 100)).fixed("Send Content-Type: text/csv, or application/json.")
}

// columns reads header=field pairs.
func columns(s string) (map[string]string, *Problem) {
	if s == "" {
		return nil, nil
	}
	out := map[string]string{}
	for pair := range strings.SplitSeq(s, ",") {
		header, field, ok := strings.Cut(pair, "=")
		if header, field = strings.TrimSpace(header), strings.TrimSpace(field); !ok || header == "" || field == "" {
			return nil, fieldProblem(CodeInvalid, "columns", "%q is not header=field.", truncate(pair, 60))
		}
		out[header] = field
	}
	return out, nil
}

func (s *server) importContacts(ctx context.Context, in *importIn) (*importOut, error) {
	who := requestOf(ctx).who
	format, p := importFormat(in.contentType)
	if p != nil {
		return nil, p
	}
	mapping, p := columns(in.Columns)
	if p != nil {
		return nil, p
	}
	l, err := s.list(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	body := &limitedBody{r: s.stalling(ctx, in.body), left: maxImport}
	// A body that breaks off ends the request's context, and the rows that came before are to be kept: the end of the body is
	// the only end of an import.
	ctx = context.WithoutCancel(ctx)
	report, err := s.Store.Import(ctx, who.tenant.ID, l.Number, store.ImportOptions{
		Format: format, Region: strings.ToUpper(in.Region), Columns: mapping, Source: truncate(in.Name, 200),
	}, body, nil)
	if body.over {
		return nil, problem(CodeBodyTooLarge, "An import has at most %d bytes; what came before is kept.", int64(maxImport))
	}
	if errors.Is(err, store.ErrStream) {
		p := problem(CodeMalformed, "The %s.", report.Error)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p = problem(CodeTimeout, "The import broke off after %d rows: no byte came for %s.", report.RowsRead, s.ImportStall)
		}
		return nil, p.fixed("What was read before is kept: correct the file and import it again, which does the rest.").because(err)
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	v := viewImport(&report)
	return &importOut{"/api/contacts/list/" + l.ID() + "/imports/" + v.ID, v}, nil
}

// limitedBody ends a body that is too long, and remembers that it did.
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
		ID: r.ID, ListID: store.ListID(r.List), Status: string(r.State), Error: orNull(r.Error), RowsRead: r.RowsRead, Total: r.Total,
		Imported: r.Imported, Updated: r.Updated, Unchanged: r.Unchanged, Duplicates: r.Duplicates, Invalid: r.Invalid, Unreachable: r.Unreachable,
		Rejected: make([]RejectedRow, 0, len(r.Rejected)), StartedAt: stamp(r.Started), FinishedAt: stampOrNull(r.Finished),
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
		return nil, problem(CodeNotFound, "There is no import %q of this list.", truncate(in.ImportID, 40))
	}
	return &importOut{Body: viewImport(&r)}, nil
}

func (s *server) listImports(ctx context.Context, in *importsIn) (*importsOut, error) {
	l, err := s.list(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	rows, err := s.Store.Imports(ctx, l.Tenant, store.Page{Limit: 1000})
	if err != nil {
		return nil, s.storeProblem(err)
	}
	out := &Page[*Import]{Data: []*Import{}}
	for i := range rows {
		if rows[i].List == l.Number {
			out.Data = append(out.Data, viewImport(&rows[i]))
		}
	}
	out.Limit, out.Total = len(out.Data), len(out.Data)
	return &importsOut{out}, nil
}
