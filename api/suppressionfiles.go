package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"fanfare/api/importfile"
	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// SuppressionChange is one change of a number's opt-out.
type SuppressionChange struct {
	Suppressed bool     `json:"suppressed" doc:"False: the opt-out was lifted."`
	Channel    string   `json:"channel" enum:"all,sms,rcs,whatsapp,voice" doc:"The channel whose opt-out changed."`
	Channels   []string `json:"channels" nullable:"false" doc:"The channels that the number was opted out of after the change."`
	Source     string   `json:"source" doc:"api, import, keyword, link or carrier."`
	Reason     *string  `json:"reason" doc:"Why, in words; null when no reason was given."`
	By         *string  `json:"by" doc:"The key that made the change, or the stage of the pipeline."`
	Time       string   `json:"time" format:"date-time" doc:"When it was changed."`
}

// SuppressionImport is the result of the import of a file of opt-outs. rows is always added + known + invalid.
type SuppressionImport struct {
	Rows     int           `json:"rows" doc:"Rows of the file: added + known + invalid."`
	Added    int           `json:"added" doc:"Numbers that the file has opted out."`
	Known    int           `json:"known" doc:"Numbers that had opted out already, or that occur twice in the file."`
	Invalid  int           `json:"invalid" doc:"Rows that were refused."`
	Rejected []RejectedRow `json:"rejected" nullable:"false" doc:"The first 1,000 refused rows."`
	InEffect bool          `json:"inEffect" doc:"True: Kafka has acknowledged all of them, and after two seconds no sender hands messages over to them. False: they are stored and will take effect by themselves."`
}

type (
	suppressionLogIn struct {
		PhoneNumber string `query:"phoneNumber" required:"true" doc:"With country code, or as it is dialled in the tenant's region."`
	}
	suppressionLogOut      struct{ Body *Page[*SuppressionChange] }
	suppressionExportIn    struct{}
	suppressionImportInput struct {
		Region string `query:"region" doc:"Country as which numbers without a country code are read; default: the tenant's."`

		contentType string
		body        io.Reader
	}
	suppressionImportOut struct{ Body *SuppressionImport }
)

// Resolve keeps the body as a stream, so that huma does not read it.
func (in *suppressionImportInput) Resolve(ctx huma.Context) []error {
	r, _ := humachi.Unwrap(ctx)
	in.contentType, in.body = r.Header.Get("Content-Type"), r.Body
	return nil
}

func (s *server) registerSuppressionFiles() {
	register(s, operation{
		id: "listSuppressionHistory", method: http.MethodGet, path: "/api/suppressions/history", summary: "Every change of a number's opt-out, oldest first",
		scope: store.ScopeRead, errors: []int{422}, tag: suppressionTag,
		describe: "Entries are never changed or removed: the history proves when and how a number opted out and in again (X10).",
	}, s.suppressionLog)
	register(s, operation{
		id: "exportSuppressions", method: http.MethodGet, path: "/api/suppressions/export", summary: "The numbers that have opted out, as CSV",
		scope: store.ScopeRead, tag: suppressionTag,
	}, s.exportSuppressions)
	describeCSV(s.api.OpenAPI().Paths["/api/suppressions/export"].Get, "phone,channels,source,reason,since\n+393331234567,all,api,asked by phone,2025-04-15T09:00:00Z\n")
	register(s, operation{
		id: "importSuppressions", method: http.MethodPost, path: "/api/suppressions/import", summary: "Opt out the numbers of a file",
		scope: store.ScopeContacts, errors: []int{400, 413, 415, 422}, streamed: true, tag: suppressionTag,
		describe: "A file in a format of contact imports: CSV, Excel, vCards or JSON, also compressed with gzip. A column reason has the reason; a column channel has the channel (default: all). Repeating the import changes nothing.",
	}, s.importSuppressions)
	s.api.OpenAPI().Paths["/api/suppressions/import"].Post.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"text/csv":      {Schema: &huma.Schema{Type: huma.TypeString}, Example: "phone,channel,reason\n+393331234567,all,asked by phone\n"},
		contentTypeXLSX: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
	}}
}

func (s *server) suppressionLog(ctx context.Context, in *suppressionLogIn) (*suppressionLogOut, error) {
	who := requestOf(ctx).who
	e164, p := s.number(who, plusInQuery(in.PhoneNumber))
	if p != nil {
		return nil, p
	}
	log, err := s.Store.SuppressionLog(ctx, who.tenant.ID, e164)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	out := &Page[*SuppressionChange]{Data: []*SuppressionChange{}, Limit: len(log), Total: len(log)}
	for i := range log {
		e := &log[i]
		out.Data = append(out.Data, &SuppressionChange{!e.Lifted, scopeName(e.Scope), optedOutOf(e.Channels), e.Source, orNull(e.Reason), orNull(e.By), stamp(e.Updated)})
	}
	return &suppressionLogOut{out}, nil
}

func (s *server) exportSuppressions(ctx context.Context, _ *suppressionExportIn) (*huma.StreamResponse, error) {
	tenant := requestOf(ctx).who.tenant.ID
	return s.answerCSV(ctx, "opt-outs.csv", []string{"phone", "channels", "source", "reason", "since"}, func(ctx context.Context, write func(...string) error) error {
		for after := ""; ; {
			rows, _, err := s.Store.Suppressions(ctx, tenant, store.Page{Limit: exportRows}, after)
			if err != nil {
				return err
			}
			for i := range rows {
				r := &rows[i]
				if err := write(r.Phone, strings.Join(optedOutOf(r.Channels), " "), r.Source, r.Reason, stamp(r.Updated)); err != nil {
					return err
				}
			}
			if len(rows) < exportRows {
				return nil
			}
			after = schemas.NumberKey(rows[len(rows)-1].Phone)
		}
	}), nil
}

// optOutsAtOnce is how many opt-outs one transaction writes. Meanwhile no other transaction can write contacts of the
// tenant.
const optOutsAtOnce = 500

// Names of the columns for the reason and the channel of an opt-out.
const (
	reasonColumn  = "reason"
	channelColumn = "channel"
)

func (s *server) importSuppressions(ctx context.Context, in *suppressionImportInput) (*suppressionImportOut, error) {
	req := requestOf(ctx)
	format, charset, p := importFormat(in.contentType)
	if p != nil {
		return nil, p
	}
	region := in.Region
	if region == "" {
		region = req.who.tenant.Region
	} else if !s.Store.CheckRegion(region) {
		return nil, problem.Field(problem.CodeInvalid, "region", "%q is not a region such as IT.", problem.Truncate(region, 10))
	}
	body := &limitedBody{r: s.stalling(ctx, in.body), left: maxImport}
	ctx = context.WithoutCancel(ctx) // rows before a broken connection are opt-outs too
	rows, err := importfile.Open(body, importfile.Options{Format: format, Charset: charset})
	if err != nil {
		return nil, s.optOutFileProblem(body, 0, err)
	}
	defer func() { _ = rows.Close() }()
	f := &optOutFile{s: s, tenant: req.who.tenant.ID, region: region, cause: store.OptOutCause{Source: "import", By: req.who.key.ID}}
	f.report.Rejected = []RejectedRow{}
	var row importfile.Row
	for {
		err := rows.Next(&row)
		var bad *importfile.RowError
		if err == nil {
			bad = f.add(&row)
		} else if errors.Is(err, io.EOF) {
			break
		} else if !errors.As(err, &bad) {
			if flushErr := f.flush(ctx); flushErr != nil {
				return nil, s.storeProblem(flushErr)
			}
			return nil, s.optOutFileProblem(body, f.report.Rows, err)
		}
		f.report.Rows++
		if bad != nil {
			f.reject(row.Line, bad)
		}
		if len(f.batch) >= optOutsAtOnce {
			if err := f.flush(ctx); err != nil {
				return nil, s.storeProblem(err)
			}
		}
	}
	if err := f.flush(ctx); err != nil {
		return nil, s.storeProblem(err)
	}
	f.report.Known = f.report.Rows - f.report.Added - f.report.Invalid
	f.report.InEffect = f.published(ctx)
	return &suppressionImportOut{&f.report}, nil
}

// optOutFileProblem explains what is wrong with a file of opt-outs.
func (s *server) optOutFileProblem(body *limitedBody, rows int, err error) error {
	const kept = "The rows read before are kept: correct the file and send it again, which imports the rest."
	var file *importfile.FileError
	switch {
	case body.over:
		return problem.New(problem.CodeBodyTooLarge, "A file has at most %d bytes; the rows before the limit are kept.", int64(maxImport))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return problem.New(problem.CodeTimeout, "The file stopped after %d rows: no byte came for %s.", rows, s.ImportStall).WithFix(kept).Because(err)
	case errors.As(err, &file):
		return s.storeProblem((*store.FieldError)(file))
	}
	return problem.New(problem.CodeMalformed, "The file ended early, after %d rows.", rows).WithFix(kept).Because(err)
}

// optOutFile is a file of opt-outs that is being read.
type optOutFile struct {
	s              *server
	tenant, region string
	cause          store.OptOutCause
	batch, last    []store.OptOut
	report         SuppressionImport
}

// add adds the opt-out of a row, or returns why the row is refused.
func (f *optOutFile) add(row *importfile.Row) *importfile.RowError {
	var o store.OptOut
	bad := &importfile.RowError{Column: "phone", Reason: "is empty"}
	for _, c := range row.Cells {
		switch {
		case c.Column.Kind == importfile.Phone && o.Phone == "":
			n, err := f.s.phones.Parse(c.Value, f.region)
			if err != nil {
				bad = &importfile.RowError{Column: c.Column.Header, Value: problem.Truncate(c.Value, 64), Reason: err.Error()}
				continue
			}
			o.Phone = n.E164
		case c.Column.Kind == importfile.Attribute && c.Column.Name == reasonColumn:
			o.Reason = problem.Truncate(c.Value, maxReason)
		case c.Column.Kind == importfile.Attribute && c.Column.Name == channelColumn:
			scope, ok := scopeOf(strings.TrimSpace(c.Value))
			if !ok {
				return &importfile.RowError{Column: c.Column.Header, Value: problem.Truncate(c.Value, 64), Reason: "is not all, sms, rcs, whatsapp or voice"}
			}
			o.Channel = scope
		}
	}
	if o.Phone == "" {
		return bad
	}
	f.batch = append(f.batch, o)
	return nil
}

func (f *optOutFile) reject(line uint64, bad *importfile.RowError) {
	f.report.Invalid++
	if len(f.report.Rejected) < store.MaxRejected {
		f.report.Rejected = append(f.report.Rejected, RejectedRow{Line: line, Column: bad.Column, Value: bad.Value, Reason: bad.Reason})
	}
}

func (f *optOutFile) flush(ctx context.Context) error {
	if len(f.batch) == 0 {
		return nil
	}
	n, err := f.s.Store.OptOuts(ctx, f.tenant, f.cause, f.batch...)
	f.report.Added += n
	f.last, f.batch = f.batch, f.last[:0]
	return err
}

// published waits until Kafka has acknowledged the last opt-out, which the relay publishes last, and reports whether it
// has.
func (f *optOutFile) published(ctx context.Context) bool {
	wait, cancel := context.WithTimeout(ctx, f.s.PublishTimeout)
	defer cancel()
	phones := make([]string, len(f.last))
	for i := range f.last {
		phones[i] = f.last[i].Phone
	}
	return f.s.Store.WaitPublished(wait, f.tenant, phones...) == nil
}
