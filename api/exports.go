package api

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

const exportTag = "Exports"

// downloadLife is how long the link of a download works.
const downloadLife = time.Hour

// maxExportSearch is how long a search may be, in characters.
const maxExportSearch = 100

// maxExportSpan is the longest period for which one export can have the delivery reports of all campaigns.
const maxExportSpan = 31 * 24 * time.Hour

// Export is a file that is made in the background.
type Export struct {
	ID             string     `json:"id" doc:"Names the export in paths." example:"exp_4k2m…"`
	Kind           string     `json:"kind" enum:"delivery-reports,contacts,members,ledger,suppressions" doc:"What is exported."`
	Status         string     `json:"status" enum:"queued,running,done,failed,cancelled" doc:"The file can be downloaded once it is done."`
	Error          *string    `json:"error" doc:"Why it failed; while it runs, why its last step failed."`
	Format         string     `json:"format" enum:"csv,ndjson,xlsx,parquet" doc:"Format of the file."`
	Columns        []string   `json:"columns" nullable:"false" doc:"Columns of the file, in their order."`
	CampaignID     *string    `json:"campaignId" doc:"Campaign that it is about; null: all."`
	ListID         *string    `json:"listId" doc:"Contact list whose contacts it has; null: not of a list."`
	Selection      *Selection `json:"selection" doc:"Which recipients it has; null: all."`
	Search         *string    `json:"search" doc:"Contacts whose name, number or e-mail address contains this; null: all."`
	From           *string    `json:"from" format:"date-time" doc:"Messages handed over at or after this time, in UTC; null: no such limit."`
	To             *string    `json:"to" format:"date-time" doc:"Messages handed over before this time, in UTC; null: no such limit."`
	Progress       *float64   `json:"progress" doc:"0 to 1; null until it is known how many rows there are." example:"0.42"`
	Rows           uint64     `json:"rows" doc:"Rows that are ready."`
	Total          *uint64    `json:"total" doc:"Total rows; null until known. When rows are added or removed meanwhile, the file may have a few more or fewer."`
	DownloadURL    *string    `json:"downloadUrl" doc:"Set when the export is done: the path of a link on this server that works without a key until downloadEndsAt. Each answer has a new link."`
	DownloadEndsAt *string    `json:"downloadEndsAt" format:"date-time" doc:"Until when downloadUrl works, in UTC; null until the export is done."`
	CreatedAt      string     `json:"createdAt" format:"date-time" doc:"When it was ordered, in UTC."`
	FinishedAt     *string    `json:"finishedAt" format:"date-time" doc:"When it ended, in UTC; null before."`
	ExpiresAt      *string    `json:"expiresAt" format:"date-time" doc:"When the export is removed."`
}

// ExportInput orders an export.
type ExportInput struct {
	Format      string    `json:"format,omitempty" enum:"csv,ndjson,xlsx,parquet" doc:"Default: csv."`
	Columns     []string  `json:"columns,omitempty" doc:"Columns in this order; default: all. The description of the operation names them."`
	CampaignID  string    `json:"campaignId,omitempty" example:"camp_12345" doc:"For delivery-reports, members (required), contacts and ledger."`
	Selection   Selection `json:"selection,omitzero" doc:"Which recipients; for delivery-reports and members, and with campaignId for contacts."`
	ContactList string    `json:"contactList,omitempty" doc:"For contacts: id or name of a list; without it all contacts."`
	Search      string    `json:"search,omitempty" doc:"For contacts: search within name, number and e-mail address."`
	From        string    `json:"from,omitempty" format:"date-time" doc:"For delivery-reports: messages handed over at or after this time. Required without campaignId."`
	To          string    `json:"to,omitempty" format:"date-time" doc:"For delivery-reports: messages handed over before this time; default: now. At most 31 days after from."`
}

// KindOfExport is something that can be exported.
type KindOfExport struct {
	Kind        string   `json:"kind" doc:"Last part of the path that orders it."`
	Description string   `json:"description" doc:"What the file has one row for."`
	Columns     []string `json:"columns" nullable:"false" doc:"Columns that it can have, in the order that they have by default."`
	Takes       []string `json:"takes" nullable:"false" doc:"Fields of the request that apply, besides format and columns."`
}

// exportOrder is the order of an export as the job stores it.
type exportOrder struct {
	Kind, Format string
	Columns      []string
	Campaign     string `json:",omitempty"` // public id
	List         uint64 `json:",omitempty"`
	Selection    string `json:",omitempty"` // JSON
	Search       string `json:",omitempty"`
	From, To     int64  `json:",omitempty"` // ms since the epoch
}

type (
	exportCreateIn struct {
		Body problem.Body[ExportInput]
	}
	exportCreateOut struct {
		Location string `header:"Location"`
		Body     *Export
	}
	exportOut struct{ Body *Export }
	exportsIn struct {
		Page   int    `query:"page" minimum:"0"`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"10"`
		Cursor string `query:"cursor" doc:"The value of next in an earlier answer: continues behind its last row. Unlike with page, rows that are added or removed meanwhile cause no gap and no repetition."`
	}
	exportsOut     struct{ Body *Page[*Export] }
	exportKindsOut struct{ Body *Page[*KindOfExport] }
	exportIn       struct {
		ID string `path:"id" doc:"Id of the export." example:"exp_4k2m…"`
	}
	exportDownloadIn struct {
		ID        string `path:"id" doc:"Id of the export." example:"exp_4k2m…"`
		Tenant    string `query:"tenant" doc:"Id of the tenant; part of the link in downloadUrl."`
		Until     string `query:"until" doc:"When the link expires, in seconds since 1970."`
		Signature string `query:"signature" doc:"Proof that this server made the link; part of the link in downloadUrl."`
	}
)

func (s *server) registerExports() {
	for _, kind := range exportKinds {
		register(s, operation{
			id: kind.operation, method: http.MethodPost, path: "/api/exports/" + kind.name, summary: "Export " + kind.what, status: http.StatusAccepted,
			// It only reads
			scope: store.ScopeRead, errors: []int{400, 404, 409, 422}, testKeys: testKeysConfined, tag: exportTag,
			describe: kind.describe + " The answer comes at once; the export runs in the background and continues after a restart. GET /api/exports/{id} returns its progress " +
				"and, once it is done, the link to the file, which is kept for 7 days. Columns: " + strings.Join(kind.columns, ", ") + ".",
		}, func(ctx context.Context, in *exportCreateIn) (*exportCreateOut, error) {
			return s.createExport(ctx, kind, &in.Body.Value)
		})
	}
	register(s, operation{
		id: "listExports", method: http.MethodGet, path: "/api/exports", summary: "List exports, newest first",
		scope: store.ScopeRead, errors: []int{422}, tag: exportTag,
	}, s.listExports)
	register(s, operation{
		id: "listExportKinds", method: http.MethodGet, path: "/api/exports/kinds", summary: "What can be exported, with its columns",
		scope: store.ScopeRead, tag: exportTag,
	}, func(context.Context, *struct{}) (*exportKindsOut, error) {
		out := &Page[*KindOfExport]{Limit: len(exportKinds), Total: len(exportKinds)}
		for _, k := range exportKinds {
			out.Data = append(out.Data, &KindOfExport{k.name, k.describe, k.columns, append([]string{}, k.takes...)})
		}
		return &exportKindsOut{out}, nil
	})
	register(s, operation{
		id: "getExport", method: http.MethodGet, path: "/api/exports/{id}", summary: "Get the progress of an export and the link to its file",
		scope: store.ScopeRead, errors: []int{404}, tag: exportTag,
	}, func(ctx context.Context, in *exportIn) (*exportOut, error) {
		j, err := s.job(ctx, store.JobExport, in.ID)
		if err != nil {
			return nil, err
		}
		return &exportOut{s.viewExport(j)}, nil
	})
	register(s, operation{
		id: "deleteExport", method: http.MethodDelete, path: "/api/exports/{id}", summary: "Cancel an export, or remove one that has ended",
		scope: store.ScopeRead, errors: []int{404}, testKeys: testKeysConfined, tag: exportTag,
		describe: "An export that is queued or running is cancelled: it ends within a second, and its rows are removed. One that has ended is removed with its file.",
	}, s.deleteExport)
	register(s, operation{
		id: "downloadExport", method: http.MethodGet, path: "/api/exports/{id}/download", summary: "The file of an export",
		errors: []int{404}, tag: exportTag, open: true,
		describe: "downloadUrl of GET /api/exports/{id} is the whole link. It needs no key, and works for an hour.",
	}, s.downloadExport)
	op := s.api.OpenAPI().Paths["/api/exports/{id}/download"].Get
	describeCSV(op, "seq,phone,status\n0,+393331234567,delivered\n")
	binary := &huma.Schema{Type: huma.TypeString, Format: "binary"}
	op.Responses["200"].Content[contentTypeNDJSON] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}, Example: `{"seq":0,"phone":"+393331234567"}`}
	op.Responses["200"].Content[contentTypeXLSX] = &huma.MediaType{Schema: binary}
	op.Responses["200"].Content[contentTypeParquet] = &huma.MediaType{Schema: binary}
}

// exportOrderOf checks the order of an export.
func (s *server) exportOrderOf(ctx context.Context, kind *exportKind, in *ExportInput) (*exportOrder, error) {
	o := &exportOrder{Kind: kind.name, Format: in.Format, Columns: in.Columns, Search: strings.TrimSpace(in.Search)}
	var ps problem.List
	switch in.Format {
	case "":
		o.Format = formatCSV
	case formatCSV, formatNDJSON, formatXLSX, formatParquet:
	default:
		ps.Add(problem.CodeInvalid, "format", "%q is not a format: use csv, ndjson, xlsx or parquet.", problem.Truncate(in.Format, 20))
	}
	if utf8.RuneCountInString(o.Search) > maxExportSearch {
		ps.Add(problem.CodeTooLong, "search", "At most %d characters.", maxExportSearch)
	}
	for i, name := range in.Columns {
		field := fmt.Sprintf("columns[%d]", i)
		switch {
		case !kind.has(name):
			ps.Add(problem.CodeInvalid, field, "%q is not a column of %s. It has: %s.", problem.Truncate(name, 60), kind.name, strings.Join(kind.columns, ", "))
		case slices.Contains(in.Columns[:i], name):
			ps.Add(problem.CodeInvalid, field, "%q occurs twice.", problem.Truncate(name, 60))
		}
	}
	if len(in.Columns) == 0 {
		o.Columns = kind.columns
	}
	for field, given := range map[string]bool{
		"campaignId": in.CampaignID != "", "selection": in.Selection.Selection != nil, "contactList": in.ContactList != "", "search": o.Search != "",
		"from": in.From != "", "to": in.To != "",
	} {
		if given && !slices.Contains(kind.takes, field) {
			ps.Add(problem.CodeInvalid, field, "%s does not apply to %s.", field, kind.name)
		}
	}
	if kind == exportMembersKind && in.CampaignID == "" {
		ps.Add(problem.CodeRequired, "campaignId", "campaignId is required: members are the recipients of a campaign.")
	}
	if kind == exportContactsKind {
		switch {
		case in.CampaignID == "" && in.Selection.Selection != nil:
			ps.Add(problem.CodeRequired, "campaignId", "selection selects recipients of a campaign: give campaignId.")
		case in.CampaignID != "" && (in.ContactList != "" || o.Search != ""):
			ps.Add(problem.CodeInvalid, "campaignId", "Give either campaignId, or contactList and search.")
		}
	}
	s.exportSpan(&ps, kind, in, o)
	if err := ps.Err(); err != nil {
		return nil, err
	}
	if in.Selection.Selection != nil {
		o.Selection = in.Selection.String()
	}
	if in.CampaignID != "" {
		c, err := s.campaign(ctx, requestOf(ctx).who, in.CampaignID)
		if err != nil {
			return nil, err
		}
		o.Campaign = c.ID()
	}
	if in.ContactList != "" {
		l, err := s.list(ctx, in.ContactList)
		if err != nil {
			return nil, err
		}
		o.List = l.Number
	}
	return o, nil
}

// exportSpan reads the times of an order.
func (s *server) exportSpan(ps *problem.List, kind *exportKind, in *ExportInput, o *exportOrder) {
	if kind != exportReportsKind {
		return
	}
	read := func(field, text string) time.Time {
		if text == "" {
			return time.Time{}
		}
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			ps.Add(problem.CodeInvalid, field, "%s is no time such as 2026-01-02T15:04:05Z.", field)
		}
		return at
	}
	from, to := read("from", in.From), read("to", in.To)
	switch {
	case in.From == "" && in.To == "" && in.CampaignID != "":
		return
	case in.From == "":
		ps.Add(problem.CodeRequired, "from", "Send campaignId or from: delivery reports are exported for a campaign or a period.")
		return
	case in.To == "":
		to = s.Now()
	}
	if !from.Before(to) {
		ps.Add(problem.CodeInvalid, "to", "to is not after from.")
	} else if in.CampaignID == "" && to.Sub(from) > maxExportSpan {
		ps.Add(problem.CodeInvalid, "to", "At most 31 days at once.")
	}
	o.From, o.To = from.UnixMilli(), to.UnixMilli()
}

func (s *server) createExport(ctx context.Context, kind *exportKind, in *ExportInput) (*exportCreateOut, error) {
	o, err := s.exportOrderOf(ctx, kind, in)
	if err != nil {
		return nil, err
	}
	j, err := s.jobOf(ctx, store.JobExport, o)
	if err != nil {
		return nil, err
	}
	j, err = s.Store.OrderJob(ctx, j)
	if err != nil {
		return nil, s.jobProblem(err)
	}
	return &exportCreateOut{"/api/exports/" + j.ID, s.viewExport(&j)}, nil
}

// jobOf returns a new job of the key of the request.
func (s *server) jobOf(ctx context.Context, kind store.JobKind, options any) (store.Job, error) {
	who := requestOf(ctx).who
	text, err := json.Marshal(options)
	if err != nil {
		return store.Job{}, fmt.Errorf("options of a job: %w", err)
	}
	return store.Job{Tenant: who.tenant.ID, Kind: kind, Test: who.key.Test, By: who.by(), Options: text}, nil
}

// jobProblem explains why a job cannot be ordered.
func (s *server) jobProblem(err error) error {
	if limit, ok := errors.AsType[*store.LimitError](err); ok && limit.Limit == store.LimitJobs {
		p := problem.New(problem.CodeRateLimited, "%d of them wait or run already; at most %d are allowed.", limit.Max, limit.Max).WithFix("Wait until some have ended, or cancel some.")
		p.RetryAfter = 10
		return p
	}
	return s.storeProblem(err)
}

// job returns a job of the tenant.
func (s *server) job(ctx context.Context, kind store.JobKind, id string) (*store.Job, error) {
	j, err := s.Store.Job(ctx, requestOf(ctx).who.tenant.ID, kind, id)
	if errors.Is(err, schemas.ErrNotFound) {
		return nil, problem.New(problem.CodeNotFound, "There is no %s %q.", string(kind), problem.Truncate(id, 40))
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &j, nil
}

// jobPage answers with a page of jobs.
func jobPage[T any](ctx context.Context, s *server, kind store.JobKind, page, limit int, cursor string, view func(*store.Job) T) (*Page[T], error) {
	name := string(kind) + "s"
	f := store.JobFilter{Kind: kind, Page: store.Page{Number: page, Limit: limit}}
	after, p := readCursor(name, cursor)
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
	rows, total, err := s.Store.Jobs(ctx, requestOf(ctx).who.tenant.ID, f)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	out := &Page[T]{Data: []T{}, Page: f.Number, Limit: limit, Total: total}
	for i := range rows {
		out.Data = append(out.Data, view(&rows[i]))
	}
	if n := len(rows); n > 0 {
		last := &rows[n-1]
		out.Next = nextCursor(name, n, limit, func() string { return strconv.FormatInt(last.Started.UnixMilli(), 10) + " " + last.ID })
	}
	return out, nil
}

func (s *server) listExports(ctx context.Context, in *exportsIn) (*exportsOut, error) {
	page, err := jobPage(ctx, s, store.JobExport, in.Page, in.Limit, in.Cursor, s.viewExport)
	if err != nil {
		return nil, err
	}
	return &exportsOut{page}, nil
}

func (s *server) deleteExport(ctx context.Context, in *exportIn) (*exportOut, error) {
	j, err := s.job(ctx, store.JobExport, in.ID)
	if err != nil {
		return nil, err
	}
	j, err = s.endJob(ctx, j)
	if err != nil {
		return nil, err
	}
	return &exportOut{s.viewExport(j)}, nil
}

// mayEnd refuses a test key that would end a job which was not ordered with a test key (X14).
func mayEnd(ctx context.Context, j *store.Job) error {
	if requestOf(ctx).who.key.Test && !j.Test {
		return problem.New(problem.CodeTestKey, "%s was not ordered with a test key, and a test key can end only jobs of test keys.", j.ID)
	}
	return nil
}

// endJob cancels a job, or removes one that has ended.
func (s *server) endJob(ctx context.Context, j *store.Job) (*store.Job, error) {
	if err := mayEnd(ctx, j); err != nil {
		return nil, err
	}
	if !j.Finished.IsZero() {
		return j, s.storeProblem(s.Store.RemoveJob(ctx, j.Tenant, j.Kind, j.ID))
	}
	if err := s.Store.CancelJob(ctx, j.Tenant, j.Kind, j.ID); err != nil && !errors.Is(err, schemas.ErrTransition) {
		return nil, s.storeProblem(err)
	}
	return s.job(ctx, j.Kind, j.ID)
}

// jobProgress returns the progress of a job, 0 to 1; nil while it is unknown.
func jobProgress(j *store.Job) *float64 {
	switch {
	case j.State == store.JobDone:
		return new(1.0)
	case !j.Known:
		return nil
	case j.Total == 0:
		return new(0.0)
	}
	return new(min(float64(j.Done)/float64(j.Total), 1))
}

func (s *server) viewExport(j *store.Job) *Export {
	var o exportOrder
	_ = json.Unmarshal(j.Options, &o) // jobOf wrote them
	v := &Export{
		ID: j.ID, Kind: o.Kind, Status: string(j.State), Error: orNull(j.Error), Format: o.Format, Columns: o.Columns, CampaignID: orNull(o.Campaign),
		Search: orNull(o.Search), Progress: jobProgress(j), Rows: j.Done, CreatedAt: stamp(j.Started), FinishedAt: stampOrNull(j.Finished),
	}
	if j.Known {
		v.Total = new(j.Total)
	}
	if o.List != 0 {
		v.ListID = orNull(store.ListID(o.List))
	}
	if o.Selection != "" {
		if sel, p := parseSelection([]byte(o.Selection)); p == nil {
			v.Selection = &Selection{sel}
		}
	}
	if o.From != 0 {
		v.From, v.To = orNull(stamp(time.UnixMilli(o.From))), orNull(stamp(time.UnixMilli(o.To)))
	}
	if !j.Finished.IsZero() {
		v.ExpiresAt = orNull(stamp(j.Finished.Add(store.JobLife)))
	}
	if j.State == store.JobDone {
		until := s.Now().Add(downloadLife).Truncate(time.Second)
		v.DownloadURL, v.DownloadEndsAt = new(s.exportLink(j.Tenant, j.ID, until)), orNull(stamp(until))
	}
	return v
}

// exportLink returns the link to a file, which works until the given time.
func (s *server) exportLink(tenant, id string, until time.Time) string {
	mac := s.Keys.Sign(linkText(tenant, id, until.Unix()))
	return "/api/exports/" + id + "/download?" + url.Values{
		"tenant": {tenant}, "until": {strconv.FormatInt(until.Unix(), 10)}, "signature": {base64.RawURLEncoding.EncodeToString(mac)},
	}.Encode()
}

// linkText returns the text that the signature of a link signs.
func linkText(tenant, id string, until int64) string {
	return "export\x00" + tenant + "\x00" + id + "\x00" + strconv.FormatInt(until, 10)
}

func (s *server) downloadExport(ctx context.Context, in *exportDownloadIn) (*huma.StreamResponse, error) {
	mac, err := base64.RawURLEncoding.DecodeString(in.Signature)
	until, notNumber := strconv.ParseInt(in.Until, 10, 64)
	if err != nil || notNumber != nil || !s.Keys.Signed(linkText(in.Tenant, in.ID, until), mac) {
		return nil, problem.New(problem.CodeUnauthenticated, "The signature of the link is wrong.").WithFix("GET /api/exports/%s has a new link.", problem.Truncate(in.ID, 40))
	}
	if s.Now().Unix() >= until {
		return nil, problem.New(problem.CodeUnauthenticated, "The link has expired: it works for an hour.").WithFix("GET /api/exports/%s has a new link.", problem.Truncate(in.ID, 40))
	}
	j, err := s.Store.Job(ctx, in.Tenant, store.JobExport, in.ID)
	if err == nil && j.State != store.JobDone {
		err = schemas.ErrNotFound
	}
	if errors.Is(err, schemas.ErrNotFound) {
		return nil, problem.New(problem.CodeNotFound, "The export was removed: it is kept for 7 days.")
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return s.answerExport(ctx, &j)
}
