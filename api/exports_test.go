package api_test

import (
	"bytes"
	"context"
	csvfile "encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
	"github.com/xuri/excelize/v2"

	"fanfare/api"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// runJobs runs exports and segments, as a process with this server does, until the returned function is called.
func (w *env) runJobs(s *api.Server) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.RunJobs(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			w.check(<-done)
		}
	}
	w.Cleanup(stop)
	return stop
}

// export orders an export.
func (w *env) export(kind, order string) string {
	w.Helper()
	return w.call("POST", "/api/exports/"+kind, order).want(202).id()
}

// exportNow is an export as it is now.
func (w *env) exportNow(id string) (got api.Export) {
	w.Helper()
	w.call("GET", "/api/exports/"+id, "").want(200).into(&got)
	return got
}

// exported waits until an export has ended.
func (w *env) exported(id string) (got api.Export) {
	w.Helper()
	w.eventually("the export has ended", &got, func() bool { got = w.exportNow(id); return got.FinishedAt != nil })
	return got
}

// file orders an export and returns its file, downloaded without a key.
func (w *env) file(kind, order string) *answer {
	w.Helper()
	return w.download(w.exported(w.export(kind, order)))
}

func (w *env) download(e api.Export) *answer {
	w.Helper()
	if e.DownloadURL == nil {
		w.Fatalf("export: got %+v, want a link", e)
	}
	return w.callAs("", "GET", *e.DownloadURL, "").want(200)
}

// rows reads a CSV file.
func (a *answer) rows() [][]string {
	a.Helper()
	rows, err := csvfile.NewReader(bytes.NewReader(a.body)).ReadAll()
	a.check(err)
	return rows
}

// X7: the contacts behind the recipients that a selection selects, once each; a contact that was deleted since is left
// out.
func TestExportContactsBySelection(t *testing.T) {
	w := newEnv(t)
	w.runJobs(w.server)
	id := w.sentAndAnswered()
	order := fmt.Sprintf(`{"campaignId":%q,"selection":{"status":"undelivered"},"columns":["phoneNumber","firstName"]}`, id)
	var want []string
	for _, m := range w.members(id, "status=undelivered&limit=40").Data {
		want = append(want, *m.Phone)
	}
	if len(want) != 5 {
		t.Fatalf("got %d members, want 5", len(want))
	}
	phones := func(a *answer) (out []string) {
		for _, r := range a.rows()[1:] {
			out = append(out, r[0])
		}
		return out
	}
	if diff := cmp.Diff(want, phones(w.file("contacts", order))); diff != "" {
		t.Errorf("selected contacts (-want +got):\n%s", diff)
	}
	c, err := w.store.ContactByPhone(t.Context(), w.tenant.ID, want[0])
	w.check(err)
	w.check(w.store.DeleteContact(t.Context(), w.tenant.ID, c.Number, 0))
	if diff := cmp.Diff(want[1:], phones(w.file("contacts", order))); diff != "" {
		t.Errorf("without a deleted one (-want +got):\n%s", diff)
	}
	if got := phones(w.file("contacts", fmt.Sprintf(`{"campaignId":%q}`, id))); len(got) != 39 {
		t.Errorf("all recipients: got %d, want 39", len(got))
	}
	if got := phones(w.file("contacts", fmt.Sprintf(`{"campaignId":%q,"selection":{"channel":"rcs"}}`, id))); len(got) != 0 {
		t.Errorf("no recipients: got %q", got)
	}
	w.call("POST", "/api/exports/contacts", `{"selection":{"status":"undelivered"}}`).problem(422, "required", "campaignId")
	w.call("POST", "/api/exports/contacts", fmt.Sprintf(`{"campaignId":%q,"search":"anna"}`, id)).problem(422, "invalid_value", "campaignId")
}

// X7: the members that a selection selects, in the columns that are asked for, in each format; a cell is no formula in
// a spreadsheet.
func TestExportMembers(t *testing.T) {
	w := newEnv(t)
	w.runJobs(w.server)
	id := w.sentAndAnswered()
	order := fmt.Sprintf(`{"campaignId":%q,"selection":{"status":["undelivered","skipped"]},"columns":["phone","seq","name","state","cost","clicked","deliveredAt"]`, id)
	ordered := w.call("POST", "/api/exports/members", order+"}").want(202)
	subset(t, "ordered", ordered.body, `{"kind":"members","format":"csv","rows":0,"downloadUrl":null,"selection":{"status":["undelivered","skipped"]},"campaignId":"`+id+`"}`)
	if got := ordered.header.Get("Location"); got != "/api/exports/"+ordered.id() {
		t.Errorf("Location: got %q", got)
	}
	done := w.exported(ordered.id())
	if done.Status != "done" || done.Rows != 6 || *done.Total != 6 || *done.Progress != 1 || done.Error != nil {
		t.Errorf("export: got %+v, want 6 rows", done)
	}
	file := w.download(done)
	rows := file.rows()
	if got := fmt.Sprint(rows[0]); got != "[phone seq name state cost clicked deliveredAt]" || len(rows) != 7 {
		t.Fatalf("CSV: got %s and %d rows, want a header and 6", got, len(rows)-1)
	}
	if r := rows[3]; r[1] != "12" || r[2] != "Name12 Rossi M" || r[3] != "undelivered" || r[4] != "0.05" || r[5] != "false" || r[6] != "" || !strings.HasPrefix(r[0], "+39333") {
		t.Errorf("CSV: got %q, want member 12 with its number as it is", r)
	}
	if got := file.header.Get("Content-Disposition"); !strings.HasPrefix(got, `attachment; filename="members-`+id) || !strings.HasSuffix(got, `.csv"`) {
		t.Errorf("Content-Disposition: got %s", got)
	}

	lines := strings.Split(strings.TrimSpace(string(w.file("members", order+`,"format":"ndjson"}`).body)), "\n")
	var m map[string]any
	w.check(json.Unmarshal([]byte(lines[2]), &m))
	if want := map[string]any{"phone": rows[3][0], "seq": 12.0, "name": "Name12 Rossi M", "state": "undelivered", "cost": 0.05, "clicked": false, "deliveredAt": nil}; len(lines) != 6 || !cmp.Equal(m, want) {
		t.Errorf("NDJSON: got %d lines, %v, want 6, %v", len(lines), m, want)
	}

	book, err := excelize.OpenReader(bytes.NewReader(w.file("members", order+`,"format":"xlsx"}`).body))
	w.check(err)
	defer func() { w.check(book.Close()) }()
	sheet, err := book.GetRows("Sheet1")
	w.check(err)
	if len(sheet) != 7 || sheet[3][1] != "12" || sheet[3][2] != "Name12 Rossi M" || sheet[3][0] != rows[3][0] {
		t.Errorf("Excel: got %q, want the same rows", sheet)
	}
	if kind, err := book.GetCellType("Sheet1", "B4"); err != nil || kind != excelize.CellTypeUnset && kind != excelize.CellTypeNumber {
		t.Errorf("Excel: got type %v, %v of a number", kind, err)
	}

	// All columns of all kinds, and a draft has no members.
	if rows := w.file("members", fmt.Sprintf(`{"campaignId":%q}`, id)).rows(); len(rows) != 41 || len(rows[0]) < 20 || rows[1][0] != "0" {
		t.Errorf("all members: got %d rows of %d columns", len(rows)-1, len(rows[0]))
	}
	draft := w.call("POST", "/api/campaigns", `{"name":"D","draft":true,"channel":"sms"}`).want(201).id()
	if rows := w.file("members", fmt.Sprintf(`{"campaignId":%q}`, draft)).rows(); len(rows) != 1 {
		t.Errorf("a draft: got %d rows, want none", len(rows)-1)
	}
}

// X7: a Parquet file has the columns in their order with their types, and the same cells as the JSON lines.
func TestExportParquet(t *testing.T) {
	w := newEnv(t)
	w.relay()
	w.runJobs(w.server)
	id := w.sentAndAnswered()
	w.call("POST", "/api/contacts", `{"phoneNumber":"+393339999999","firstName":"=\"Zoë\"","attributes":{"town":"x"}}`).want(201)
	w.call("POST", "/api/suppressions", `{"phoneNumber":"+393339999998","reason":"asked"}`).want(201)
	for kind, order := range map[string]string{
		"members": `"campaignId":"` + id + `"`, "delivery-reports": `"campaignId":"` + id + `"`, "ledger": `"campaignId":"` + id + `"`, "suppressions": "",
		"contacts": `"columns":["phoneNumber","id","attributes","attributes.town","firstName","valid","optedInAt","createdAt"]`,
	} {
		with := func(format string) string {
			return "{" + order + pickOf(order == "", "", ",") + `"format":"` + format + `"}`
		}
		done := w.exported(w.export(kind, with("parquet")))
		body := w.download(done).body
		file, err := parquet.OpenFile(bytes.NewReader(body), int64(len(body)))
		w.check(err)
		var columns []string
		for _, f := range file.Schema().Fields() {
			columns = append(columns, f.Name())
		}
		if diff := cmp.Diff(done.Columns, columns); diff != "" {
			t.Errorf("%s: columns (-want +got):\n%s", kind, diff)
		}
		var got, want []map[string]any
		for line := range bytes.Lines(w.file(kind, with("ndjson")).body) {
			var row map[string]any
			w.check(json.Unmarshal(line, &row))
			want = append(want, row)
		}
		r := parquet.NewReader(file)
		rows := make([]parquet.Row, file.NumRows()+1)
		n, err := r.ReadRows(rows)
		if !errors.Is(err, io.EOF) {
			t.Errorf("%s: got error %v, want the end of the file", kind, err)
		}
		for _, row := range rows[:n] {
			m := map[string]any{}
			for i, v := range row {
				m[columns[i]] = parquetCell(w, file.Schema().Fields()[i], v)
			}
			got = append(got, m)
		}
		if diff := cmp.Diff(want, got); len(want) == 0 || diff != "" {
			t.Errorf("%s: rows (-JSON lines +Parquet):\n%s", kind, diff)
		}
	}
}

// parquetCell returns a value of a Parquet file as the JSON lines have it.
func parquetCell(w *env, field parquet.Field, v parquet.Value) any {
	if v.IsNull() {
		return nil
	}
	if logical := field.Type().LogicalType(); logical != nil {
		switch logical.Value.(type) {
		case *format.TimestampType:
			return time.UnixMicro(v.Int64()).UTC().Format(time.RFC3339Nano)
		case *format.DecimalType:
			return float64(v.Int64()) / 1e6
		case *format.JsonType:
			var m any
			w.check(json.Unmarshal(v.ByteArray(), &m))
			return m
		}
	}
	if v.Kind() == parquet.Boolean {
		return v.Boolean()
	}
	if v.Kind() == parquet.Int64 {
		return float64(v.Int64())
	}
	return string(v.ByteArray())
}

// X7, design of CSV: no cell of an export is a formula for a spreadsheet, and a phone number stays a number.
func TestExportInjection(t *testing.T) {
	w := newEnv(t)
	w.runJobs(w.server)
	for i, name := range []string{"=cmd()", "+1+1", "-2", "@SUM(A1)", "\tx", "\rx", "Anna \"=x\", Bert"} {
		w.call("POST", "/api/contacts", fmt.Sprintf(`{"phoneNumber":%q,"firstName":%q,"attributes":{"town":"=Roma"}}`, phoneOf(i), name)).want(201)
	}
	rows := w.file("contacts", `{"columns":["phoneNumber","firstName","attributes.town","attributes"]}`).rows()
	var got []string
	for i, r := range rows[1:] {
		got = append(got, r[1])
		if r[0] != phoneOf(i) || r[2] != "'=Roma" || r[3] != `{"town":"=Roma"}` {
			t.Errorf("row %d: got %q, want the number as it is and no formula", i, r)
		}
	}
	for i, name := range got[:6] {
		if !strings.HasPrefix(name, "'") {
			t.Errorf("cell %d: got %q, want an apostrophe before it", i, name)
		}
	}
	if got[6] != `Anna "=x", Bert` {
		t.Errorf("got %q, want it unchanged", got[6])
	}
	lines := w.file("contacts", `{"columns":["firstName","attributes"],"format":"ndjson"}`).body
	if !bytes.HasPrefix(lines, []byte(`{"firstName":"=cmd()","attributes":{"town":"=Roma"}}`+"\n")) {
		t.Errorf("NDJSON: got %s, want texts as they are", lines)
	}
	book, err := excelize.OpenReader(bytes.NewReader(w.file("contacts", `{"columns":["firstName"],"format":"xlsx"}`).body))
	w.check(err)
	defer func() { w.check(book.Close()) }()
	if formula, err := book.GetCellFormula("Sheet1", "A2"); err != nil || formula != "" {
		t.Errorf("Excel: got formula %q, %v, want none", formula, err)
	}
	if v, err := book.GetCellValue("Sheet1", "A2"); err != nil || v != "=cmd()" {
		t.Errorf("Excel: got %q, %v, want the text", v, err)
	}
}

// X7: contacts of a list, the ledger, and opt-outs, over more than one page of the store.
func TestExportRest(t *testing.T) {
	w := newEnv(t)
	w.relay()
	w.runJobs(w.server)
	const n = 2_345
	var file strings.Builder
	file.WriteString("phone\n")
	for i := range n {
		fmt.Fprintln(&file, phoneOf(i))
	}
	w.call("POST", "/api/contacts/list", `{"name":"l"}`).want(201)
	w.call("POST", "/api/contacts/list/l/import", file.String(), header{"Content-Type", "text/csv"}).want(200)
	w.call("POST", "/api/contacts", `{"phoneNumber":"+393339999999"}`).want(201)
	for order, want := range map[string]int{`{}`: n + 1, `{"contactList":"l"}`: n, `{"search":"9999999"}`: 1} {
		done := w.exported(w.export("contacts", order))
		rows := w.download(done).rows()[1:]
		if len(rows) != want || int(*done.Total) != want || int(done.Rows) != want {
			t.Errorf("contacts %s: got %d rows of %d, want %d", order, len(rows), *done.Total, want)
		}
		seen := map[string]bool{}
		for _, r := range rows {
			if seen[r[0]] {
				t.Errorf("contacts %s: got %s twice", order, r[0])
			}
			seen[r[0]] = true
		}
	}
	w.call("POST", "/api/suppressions/import", file.String(), header{"Content-Type", "text/csv"}).want(200)
	if rows := w.file("suppressions", `{"columns":["phone","source"]}`).rows(); len(rows) != n+1 || rows[1][1] != "import" {
		t.Errorf("suppressions: got %d rows, %q, want %d", len(rows)-1, rows[1], n)
	}
	id := w.campaign(3, "")
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	if rows := w.file("ledger", fmt.Sprintf(`{"campaignId":%q}`, id)).rows(); len(rows) != 2 || rows[1][2] != "available" || rows[1][6] != id {
		t.Errorf("ledger: got %q, want what was reserved", rows)
	}
}

// X7: delivery reports of a campaign, and of all campaigns and single sends of a time.
func TestExportDeliveryReports(t *testing.T) {
	w := newEnv(t)
	w.runJobs(w.server)
	id := w.sentAndAnswered() // sends at start
	from := w.clock.now().Add(-time.Hour).Format(time.RFC3339)
	if rows := w.file("delivery-reports", fmt.Sprintf(`{"campaignId":%q,"columns":["campaignId","state","messageId"]}`, id)).rows(); len(rows) != 35 {
		t.Errorf("got %d rows, want the 34 recipients with a known state", len(rows)-1)
	}
	w.clock.forward(24 * time.Hour)
	later := w.clock.now().Format(time.RFC3339)
	other := w.audienceOf(5)
	w.happened(w.tenant.ID, other, 0, 2, schemas.KindSent, schemas.CodeAwaitingDLR)
	var sent struct{ MessageID string }
	w.call("POST", sendPath, docSend).want(200).into(&sent)
	single, err := schemas.ParseID(sent.MessageID)
	w.check(err)
	w.happened(w.tenant.ID, schemas.CampaignID(single.CampaignNumber()), single.Seq(), single.Seq()+1, schemas.KindSent, schemas.CodeAwaitingDLR)
	w.clock.forward(time.Minute)
	count := func(order string) map[string]int {
		out := map[string]int{}
		for _, r := range w.file("delivery-reports", order).rows()[1:] {
			out[r[0]]++
		}
		return out
	}
	for order, want := range map[string]map[string]int{
		fmt.Sprintf(`{"from":%q,"columns":["campaignId"]}`, from):                                                      {id: 30, other: 2, "": 1},
		fmt.Sprintf(`{"from":%q,"columns":["campaignId"]}`, later):                                                     {other: 2, "": 1},
		fmt.Sprintf(`{"from":%q,"to":%q,"columns":["campaignId"]}`, from, later):                                       {id: 30},
		fmt.Sprintf(`{"from":%q,"selection":{"status":"delivered"},"columns":["campaignId"]}`, from):                   {id: 10},
		fmt.Sprintf(`{"campaignId":%q,"from":%q,"to":%q,"columns":["campaignId"]}`, id, later, "2099-01-01T00:00:00Z"): {},
	} {
		if got := count(order); !cmp.Equal(got, want) {
			t.Errorf("%s: got %v rows by campaign, want %v", order, got, want)
		}
	}
	rows := w.file("delivery-reports", fmt.Sprintf(`{"from":%q,"columns":["campaignId","messageId","phone"]}`, later)).rows()
	if !slices.ContainsFunc(rows, func(r []string) bool { return r[0] == "" && r[1] == sent.MessageID }) {
		t.Errorf("got %q, want the single send %s", rows, sent.MessageID)
	}
}

// stuckStats are statistics whose Members waits at one call, until it is let go.
type stuckStats struct {
	analytics.Store
	at      int
	reached chan struct{}
	free    chan struct{}
}

func (s *stuckStats) Members(ctx context.Context, tenant, campaign string, seqs []uint32) ([]analytics.Member, error) {
	if s.at--; s.at == 0 {
		close(s.reached)
		<-s.free
	}
	return s.Store.Members(ctx, tenant, campaign, seqs)
}

// X7: a process that ends in the middle of an export gives nothing back, as after kill -9; another one goes on, and the
// file has every member once, in order, although events come meanwhile, in no order and twice.
func TestExportRestart(t *testing.T) {
	w := newEnv(t)
	const n = 12_345
	id := w.audienceOf(n)
	w.happened(w.tenant.ID, id, 0, n, schemas.KindSent, schemas.CodeAwaitingDLR)
	w.happened(w.tenant.ID, id, 2_000, n, schemas.KindDelivered, schemas.CodeDelivered)
	stuck := &stuckStats{Store: w.stats, at: 2, reached: make(chan struct{}), free: make(chan struct{})}
	first := w.instance(func(d *api.Deps) { d.Analytics = stuck })
	stop := w.runJobs(first)
	export := w.export("members", fmt.Sprintf(`{"campaignId":%q,"selection":{"status":"delivered"},"columns":["seq","phone","status"]}`, id))
	<-stuck.reached
	got := w.exportNow(export)
	if got.Status != "running" || got.Rows == 0 || got.Progress == nil || *got.Progress <= 0 || *got.Progress >= 1 || *got.Total != n-2_000 || got.DownloadURL != nil {
		t.Errorf("in the middle: got %+v, want progress and no link", got)
	}
	var events []uint32
	for seq := range uint32(n) {
		events = append(events, seq, seq)
	}
	rand.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	for _, seq := range events[:200] { // recipients inside and outside the export
		w.happened(w.tenant.ID, id, seq, seq+1, schemas.KindDelivered, schemas.CodeDelivered)
	}
	w.clock.forward(31 * time.Second) // the other process counts the first one as gone
	w.runJobs(w.instance(nil))
	done := w.exported(export)
	close(stuck.free) // the first one lives after all, and must write nothing any more
	stop()
	if done.Status != "done" || done.Rows != n-2_000 {
		t.Errorf("got %+v, want %d rows", done, n-2_000)
	}
	rows := w.download(w.exportNow(export)).rows()[1:]
	if len(rows) != n-2_000 {
		t.Fatalf("got %d rows, want %d", len(rows), n-2_000)
	}
	for i, r := range rows {
		if r[0] != fmt.Sprint(i+2_000) || r[2] != "delivered" || !strings.HasPrefix(r[1], "+39") {
			t.Fatalf("row %d: got %q, want member %d", i, r, i+2_000)
		}
	}
}

// instance is another API process of the same installation.
func (w *env) instance(change func(*api.Deps)) *api.Server {
	w.Helper()
	return w.instanceAt(w.clock.now, change)
}

func (w *env) instanceAt(now func() time.Time, change func(*api.Deps)) *api.Server {
	w.Helper()
	st, err := store.Open(w.Context(), store.Config{DSN: w.dsn, Keys: w.keys, Now: now})
	w.check(err)
	w.Cleanup(func() { _ = st.Close() })
	deps := w.deps
	deps.Store, deps.Registry = st, newRegistry()
	if change != nil {
		change(&deps)
	}
	s, err := api.New(deps)
	w.check(err)
	return s
}

// X7: the link to the file works without a key, for an hour, and cannot be made up.
func TestExportLink(t *testing.T) {
	w := newEnv(t)
	w.runJobs(w.server)
	w.call("POST", "/api/contacts", `{"phoneNumber":"+393331234567"}`).want(201)
	done := w.exported(w.export("contacts", `{"columns":["phoneNumber"]}`))
	other := w.exported(w.export("contacts", `{}`))
	if got := string(w.download(done).body); got != "phoneNumber\n+393331234567\n" {
		t.Errorf("got %q", got)
	}
	link, err := url.Parse(*done.DownloadURL)
	w.check(err)
	with := func(path, name, value string) string {
		q := link.Query()
		q.Set(name, value)
		return (&url.URL{Path: path, RawQuery: q.Encode()}).String()
	}
	until := link.Query().Get("until")
	for what, forged := range map[string]string{
		"another export":   with("/api/exports/"+other.ID+"/download", "until", until),
		"a later end":      with(link.Path, "until", until+"0"),
		"another tenant":   with(link.Path, "tenant", "t_other"),
		"no signature":     with(link.Path, "signature", ""),
		"a bad signature":  with(link.Path, "signature", strings.Repeat("A", 43)),
		"a damaged one":    with(link.Path, "signature", "!!"),
		"nothing but path": link.Path,
	} {
		got := w.callAs("", "GET", forged, "")
		got.what = what
		got.problem(401, "unauthenticated", "")
		got = w.call("GET", forged, "") // a key makes it no better
		got.what = what + " with a key"
		got.problem(401, "unauthenticated", "")
	}
	w.clock.forward(59 * time.Minute)
	w.callAs("", "GET", *done.DownloadURL, "").want(200)
	w.clock.forward(2 * time.Minute)
	w.callAs("", "GET", *done.DownloadURL, "").problem(401, "unauthenticated", "")
	w.download(w.exportNow(done.ID)) // a new link
	if strings.Contains(w.logs.String(), link.Query().Get("signature")) {
		t.Error("the log has the signature of a link")
	}
}

// X7: an export is cancelled while it runs, removed when it has ended, and collected after 7 days.
func TestExportEnds(t *testing.T) {
	w := newEnv(t)
	w.call("POST", "/api/contacts", `{"phoneNumber":"+393331234567"}`).want(201)
	queued := w.export("contacts", `{}`)
	subset(t, "queued", w.call("DELETE", "/api/exports/"+queued, "").want(200).body, `{"status":"cancelled","downloadUrl":null}`)

	id := w.audienceOf(6_000)
	w.happened(w.tenant.ID, id, 0, 6_000, schemas.KindSent, schemas.CodeAwaitingDLR)
	stuck := &stuckStats{Store: w.stats, at: 1, reached: make(chan struct{}), free: make(chan struct{})}
	w.runJobs(w.instance(func(d *api.Deps) { d.Analytics = stuck }))
	running := w.export("members", fmt.Sprintf(`{"campaignId":%q}`, id))
	<-stuck.reached
	w.call("DELETE", "/api/exports/"+running, "").want(200)
	close(stuck.free)
	if got := w.exported(running); got.Status != "cancelled" || got.DownloadURL != nil {
		t.Errorf("cancelled: got %+v", got)
	}
	w.call("DELETE", "/api/exports/"+running, "").want(200)
	w.call("GET", "/api/exports/"+running, "").problem(404, "not_found", "")

	kept := w.exported(w.export("contacts", `{}`))
	w.clock.forward(7*24*time.Hour - time.Minute)
	w.check(w.store.Collect(t.Context()))
	now := w.exportNow(kept.ID)
	w.download(now)
	w.clock.forward(2 * time.Minute)
	w.check(w.store.Collect(t.Context()))
	w.call("GET", "/api/exports/"+kept.ID, "").problem(404, "not_found", "")
	w.callAs("", "GET", *now.DownloadURL, "").problem(404, "not_found", "")
	subset(t, "all", w.call("GET", "/api/exports", "").want(200).body, `{"total":0}`)
}

// P7, X7: a tenant sees, ends and reads no export and no segment of another; the list has a cursor that skips and
// repeats none.
func TestExportTenants(t *testing.T) {
	w := newEnv(t)
	w.runJobs(w.server)
	want := map[string]bool{}
	for i := range 5 {
		want[w.export("contacts", `{}`)] = true
		if i == 2 {
			w.clock.forward(time.Second)
		}
	}
	id := w.campaign(1, "")
	_, strange := w.newTenant("Strange")
	for export := range want {
		w.exported(export)
		w.callAs(strange, "GET", "/api/exports/"+export, "").problem(404, "not_found", "")
		w.callAs(strange, "DELETE", "/api/exports/"+export, "").problem(404, "not_found", "")
		w.callAs(strange, "GET", "/api/segments/"+export, "").problem(404, "not_found", "")
	}
	subset(t, "of another", w.callAs(strange, "GET", "/api/exports", "").want(200).body, `{"total":0,"data":[]}`)
	w.callAs(strange, "POST", "/api/exports/members", fmt.Sprintf(`{"campaignId":%q}`, id)).problem(404, "not_found", "")
	w.callAs(strange, "POST", "/api/campaigns/"+id+"/segments", `{"name":"s"}`).problem(404, "not_found", "")
	subset(t, "contacts of another", w.callAs(strange, "POST", "/api/exports/contacts", `{"contactList":"list 1"}`).body, `{"code":"not_found"}`)
	for at := "/api/exports?limit=2"; ; {
		var page struct {
			Data []api.Export `json:"data"`
			Next *string      `json:"next"`
		}
		w.call("GET", at, "").want(200).into(&page)
		for _, e := range page.Data {
			if !want[e.ID] {
				t.Errorf("got %s twice, or never made", e.ID)
			}
			delete(want, e.ID)
		}
		if page.Next == nil {
			break
		}
		at = "/api/exports?limit=2&cursor=" + *page.Next
	}
	if len(want) != 0 {
		t.Errorf("got no %v", want)
	}
	w.call("GET", "/api/exports?cursor=x", "").problem(422, "invalid_value", "cursor")
}

// X7: what is wrong with an order is said at once, with the field and the rule.
func TestExportRefusals(t *testing.T) {
	w := newEnv(t)
	id := w.campaign(1, "")
	for _, c := range []struct{ kind, order, code, field string }{
		{"contacts", `{"format":"pdf"}`, "invalid_value", "format"},
		{"contacts", `{"columns":["id","seq"]}`, "invalid_value", "columns[1]"},
		{"contacts", `{"columns":["id","id"]}`, "invalid_value", "columns[1]"},
		{"contacts", `{"columns":["attributes."]}`, "invalid_value", "columns[0]"},
		{"members", `{"campaignId":"` + id + `","columns":["attributes.town"]}`, "invalid_value", "columns[0]"},
		{"contacts", `{"campaignId":"` + id + `","search":"x"}`, "invalid_value", "campaignId"},
		{"contacts", `{"selection":{}}`, "required", "campaignId"},
		{"ledger", `{"selection":{}}`, "invalid_value", "selection"},
		{"suppressions", `{"campaignId":"` + id + `"}`, "invalid_value", "campaignId"},
		{"suppressions", `{"search":"x"}`, "invalid_value", "search"},
		{"members", `{}`, "required", "campaignId"},
		{"members", `{"campaignId":"` + id + `","selection":{"stratus":"sent"}}`, "invalid_value", "selection.stratus"},
		{"members", `{"campaignId":"` + id + `","from":"2026-01-01T00:00:00Z"}`, "invalid_value", "from"},
		{"delivery-reports", `{}`, "required", "from"},
		{"delivery-reports", `{"from":"yesterday"}`, "invalid_value", "from"},
		{"delivery-reports", `{"from":"2025-01-02T00:00:00Z","to":"2025-01-01T00:00:00Z"}`, "invalid_value", "to"},
		{"delivery-reports", `{"from":"2025-01-01T00:00:00Z","to":"2025-03-01T00:00:00Z"}`, "invalid_value", "to"},
	} {
		got := w.call("POST", "/api/exports/"+c.kind, c.order)
		got.what = c.kind + " " + c.order
		got.problem(422, c.code, c.field)
	}
	w.call("POST", "/api/exports/members", `{"campaignId":"camp_1"}`).problem(404, "not_found", "")
	w.call("POST", "/api/exports/contacts", `{"contactList":"none"}`).problem(404, "not_found", "")
	for range store.MaxOpenJobs { // no process runs them here
		w.export("contacts", `{}`)
	}
	if got := w.call("POST", "/api/exports/contacts", `{}`); got.status != 429 || got.header.Get("Retry-After") == "" {
		t.Errorf("one too many: got %d %s, want 429 with Retry-After", got.status, got.body)
	}
}

// segmented waits until a segment has ended.
func (w *env) segmented(id string) (got api.Segment) {
	w.Helper()
	w.eventually("the segment has ended", &got, func() bool {
		w.call("GET", "/api/segments/"+id, "").want(200).into(&got)
		return got.FinishedAt != nil
	})
	return got
}

// R86, R164: those who clicked become the list of the next campaign; without clicks a selection is needed.
func TestSegments(t *testing.T) {
	w := newEnv(t)
	w.runJobs(w.server)
	id := w.sentAndAnswered()
	segments := "/api/campaigns/" + id + "/segments"
	if got := w.call("POST", segments, `{"name":"engaged"}`); got.status != 409 || got.object()["code"] != "wrong_state" {
		t.Errorf("while it is sent: got %d %s, want 409 wrong_state", got.status, got.body)
	}
	w.complete(id)
	w.call("POST", segments, `{"name":"engaged"}`).problem(422, "required", "selection")
	w.call("POST", segments, `{"selection":{"status":"delivered"}}`).problem(422, "required", "name")
	w.call("POST", segments, `{"name":"e","selection":{"replied":true}}`).problem(422, "invalid_value", "selection")
	w.happened(w.tenant.ID, id, 2, 7, schemas.KindClicked, schemas.CodeUnspecified)
	w.happened(w.tenant.ID, id, 20, 25, schemas.KindClicked, schemas.CodeBot) // a scanner
	a := w.call("POST", segments, `{"name":"engaged"}`).want(202)
	subset(t, "ordered", a.body, `{"name":"engaged","selection":{"clicked":true},"selected":5,"campaignId":"`+id+`"}`)
	if got := a.header.Get("Location"); got != "/api/segments/"+a.id() {
		t.Errorf("Location: got %q", got)
	}
	got := w.segmented(a.id())
	if got.Status != "done" || got.Progress != 1 || got.Done != 5 {
		t.Errorf("segment: got %+v, want 5", got)
	}
	var list struct {
		Total int
		Data  []struct{ FirstName string }
	}
	w.call("GET", "/api/contacts/list/engaged/contacts", "").want(200).into(&list)
	if list.Total != 5 || list.Data[0].FirstName != "Name2" || list.Data[4].FirstName != "Name6" {
		t.Errorf("list: got %+v, want members 2 to 6", list)
	}
	w.call("POST", segments, `{"name":"engaged"}`).problem(409, "name_taken", "name")
	// The second step of R164.
	next := w.call("POST", "/api/campaigns", `{"name":"Step 2","channel":"sms","message":"Hello again","contactList":"engaged"}`).want(201)
	subset(t, "step 2", w.call("GET", "/api/campaigns/"+next.id()+"/price", "").want(200).body, `{"totalContacts":5}`)

	failed := w.segmented(w.call("POST", segments, `{"name":"failed","selection":{"status":"failed"}}`).want(202).id())
	if failed.Done != 7 || failed.Selected != 7 {
		t.Errorf("selection: got %d of %d, want the 7 undelivered and not sent", failed.Done, failed.Selected)
	}
	subset(t, "all", w.call("GET", "/api/segments", "").want(200).body, `{"total":2}`)
	w.call("POST", "/api/segments/"+failed.ID+"/cancel", "").problem(409, "wrong_state", "")
	w.call("GET", "/api/segments/seg_none", "").problem(404, "not_found", "")
}

// R86: a segment goes on in another process where the first one left it, wherever that ends.
func TestSegmentRestart(t *testing.T) {
	w := newEnv(t)
	const n = 12_000
	id := w.audienceOf(n)
	w.happened(w.tenant.ID, id, 0, n, schemas.KindSent, schemas.CodeAwaitingDLR)
	w.complete(id)
	segment := w.call("POST", "/api/campaigns/"+id+"/segments", `{"name":"all","selection":{"status":"sent"}}`).want(202).id()
	var got api.Segment
	middle := false
	for life := int64(3); got.FinishedAt == nil; life++ { // how often a process looks at its clock before it ends
		if life > 60 {
			t.Fatalf("got %+v after 57 processes", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var left atomic.Int64
		left.Store(life)
		s := w.instanceAt(func() time.Time {
			if left.Add(-1) == 0 {
				cancel()
			}
			return w.clock.now()
		}, nil)
		w.check(s.RunJobs(ctx))
		w.clock.forward(31 * time.Second)
		w.call("GET", "/api/segments/"+segment, "").want(200).into(&got)
		middle = middle || got.Done > 0 && got.Done < n
	}
	if got.Status != "done" || got.Done != n || !middle {
		t.Errorf("got %+v, ended in the middle %v, want %d and a process that did", got, middle, n)
	}
	subset(t, "list", w.call("GET", "/api/contacts/list/all", "").want(200).body, fmt.Sprintf(`{"contacts":%d}`, n))
}
