package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func openAPI(t *testing.T) []byte {
	t.Helper()
	raw, err := os.ReadFile(documentPath)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// run runs a command line against a server that answers with answer, and returns what the command printed.
func run(t *testing.T, answer http.HandlerFunc, args ...string) (string, error) {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	var out bytes.Buffer
	env := map[string]string{"FANFARE_SERVER": server.URL, "FANFARE_KEY": "ff_live_x"}
	commands, err := Commands(Setup{OpenAPI: openAPI(t), Getenv: func(n string) string { return env[n] }, Stdout: &out, Usage: func(err error) error { return fmt.Errorf("usage: %w", err) }})
	if err != nil {
		t.Fatal(err)
	}
	root := &cobra.Command{Use: "fanfare", SilenceErrors: true, SilenceUsage: true}
	root.SetOut(io.Discard)
	root.AddCommand(commands...)
	root.SetArgs(args)
	err = root.ExecuteContext(t.Context())
	return out.String(), err
}

// Every operation of the document has exactly one command, whose name consists of plain words.
func TestEveryOperationHasACommand(t *testing.T) {
	_, operations, err := read(openAPI(t))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, op := range operations {
		noun, verb := commandName(op.ID)
		if noun == "" {
			continue
		}
		if strings.Trim(noun+verb, "abcdefghijklmnopqrstuvwxyz-") != "" {
			t.Errorf("%s: command %q %q", op.ID, noun, verb)
		}
		if other := seen[noun+" "+verb]; other != "" {
			t.Errorf("%s and %s are both %s %s", op.ID, other, noun, verb)
		}
		seen[noun+" "+verb] = op.ID
	}
	for noun, want := range map[string]string{"campaign": "campaigns", "prices": "prices", "policy": "policies", "contact-history": "contact histories", "campaign-stats": "campaign stats"} {
		if got := plural(noun); got != want {
			t.Errorf("plural of %s: got %q, want %q", noun, got, want)
		}
	}
	for _, want := range []string{"campaign create", "campaign pause", "campaign stats", "template approve", "list contacts", "send sms", "tenant create"} {
		if seen[want] == "" {
			t.Errorf("there is no command %s", want)
		}
	}
}

// Flags become fields of the type that the API expects, and the error for a refused request has the text of the API.
func TestCommandAsksTheServer(t *testing.T) {
	var method, path, body, key string
	answer := func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		method, path, body, key = r.Method, r.URL.RequestURI(), string(raw), r.Header.Get("X-Api-Key")
		_, _ = io.WriteString(w, `{"id":"camp_10001","name":"Spring","state":"draft","rate":5}`)
	}
	out, err := run(t, answer, "campaign", "create", "--name", "Spring", "--channel=sms", "--tags", "a, b", "--rate", "5", "--draft", "--contact-list", "people")
	if err != nil {
		t.Fatal(err)
	}
	if method+" "+path != "POST /api/campaigns" || key != "ff_live_x" {
		t.Errorf("got %s %s with key %q", method, path, key)
	}
	if want := `{"channel":"sms","contactList":"people","draft":true,"name":"Spring","rate":5,"tags":["a","b"]}`; body != want {
		t.Errorf("got body %s, want %s", body, want)
	}
	if !strings.Contains(out, "camp_10001") {
		t.Errorf("got %q, want the campaign", out)
	}
	if _, err = run(t, answer, "campaign", "pause", "camp_1"); err != nil || method+" "+path != "POST /api/campaigns/camp_1/pause" {
		t.Errorf("got %s %s, %v", method, path, err)
	}
	if _, err = run(t, answer, "campaign", "create", "--rate", "fast"); err == nil || !strings.Contains(err.Error(), "want a number") {
		t.Errorf("got %v, want the flag refused", err)
	}
	if _, err = run(t, answer, "campaign", "pause"); err == nil || !strings.Contains(err.Error(), "usage") {
		t.Errorf("got %v, want a mistake in the command line", err)
	}
	_, err = run(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"status":409,"code":"wrong_state","detail":"The campaign is completed.","fix":"Duplicate it."}`)
	}, "campaign", "pause", "camp_1")
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Status != 409 || err.Error() != "The campaign is completed. Duplicate it." {
		t.Errorf("got %v, want the API's refusal", err)
	}
}

// The simple fields of an object are flags of their own. They change the fields of the object that another flag gives.
func TestFlagsOfAnObject(t *testing.T) {
	var body string
	answer := func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		body = string(raw)
		_, _ = io.WriteString(w, `{"name":"acme"}`)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--care-down-after", "20", "--care-failover=false"}, `{"care":{"downAfter":20,"failover":false}}`},
		{[]string{"--care-auto-resume", "--rate", "5"}, `{"care":{"autoResume":true},"rate":5}`},
		{[]string{"--care", `{"downAfter":9,"failureSample":50}`, "--care-down-after", "20"}, `{"care":{"downAfter":20,"failureSample":50}}`},
	} {
		if _, err := run(t, answer, append([]string{"route", "update", "acme"}, c.args...)...); err != nil || body != c.want {
			t.Errorf("%q: got body %s, %v, want %s", c.args, body, err, c.want)
		}
	}
	for _, args := range [][]string{{"--care-down-after", "soon"}, {"--care", "calm", "--care-down-after", "20"}} {
		if _, err := run(t, answer, append([]string{"route", "update", "acme"}, args...)...); err == nil {
			t.Errorf("%q: want an error", args)
		}
	}
}

// A list is printed as a table. CSV keeps phone numbers and disables formulas. JSON is the unchanged answer.
func TestOutput(t *testing.T) {
	answer := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"data":[{"id":"contact_1","phoneNumber":"+393331234567","firstName":"=1+1","valid":true}],"page":0,"limit":10,"total":25}`)
	}
	for args, want := range map[string]string{
		"contact list":               "ID         PHONE NUMBER   FIRST NAME\ncontact_1  +393331234567  =1+1\n1 of 25\n",
		"contact list --output csv":  "id,phoneNumber,firstName,valid\ncontact_1,+393331234567,'=1+1,true\n",
		"contact list --output json": "{\n  \"data\": [",
	} {
		out, err := run(t, answer, strings.Fields(args)...)
		if err != nil || !strings.HasPrefix(out, want) {
			t.Errorf("%s: got %q, %v; want %q", args, out, err, want)
		}
	}
}

// stats --watch prints a line when a figure has changed, and ends when the figures cannot change any more.
func TestWatch(t *testing.T) {
	n := 0
	out, err := run(t, func(w http.ResponseWriter, _ *http.Request) {
		n++
		state, pending := "sending", 10
		if n > 1 {
			state, pending = "completed", 0
		}
		_, _ = fmt.Fprintf(w, `{"state":%q,"totalMessages":10,"sent":%d,"delivered":%d,"pending":%d}`, state, 10-pending, 10-pending, pending)
	}, "campaign", "stats", "camp_1", "--watch")
	if err != nil || strings.Count(out, "\n") != 2 || !strings.Contains(out, "completed: 10 sent, 10 delivered") {
		t.Errorf("got %q, %v", out, err)
	}
}

// X1: fanfare import uploads a file, maps its columns, waits for the end and prints the result. If the import fails, so
// does the command.
func TestImportFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "people.csv")
	if err := os.WriteFile(file, []byte("Cellulare\n+393330000001\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var asked []string
	end := `{"id":"imp_1","status":"done","rowsRead":1,"imported":1}`
	answer := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, r.Method+" "+r.URL.RequestURI()+" "+string(body))
		switch r.URL.Path {
		case "/api/contacts/list":
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, `{"code":"name_taken","detail":"There is one."}`)
		case "/api/contacts/upload":
			_, _ = io.WriteString(w, `{"uploadId":"upl_1"}`)
		case "/api/contacts/mapped/file":
			_, _ = io.WriteString(w, `{"id":"imp_1","status":"queued","progress":0}`)
		default:
			_, _ = io.WriteString(w, end)
		}
	}
	out, err := run(t, answer, "import", file, "--list", "people", "--create", "--map", "Cellulare=phone", "--region", "IT")
	if err != nil || !strings.Contains(out, "imported  1") {
		t.Errorf("got %q, %v, want the figures", out, err)
	}
	want := []string{
		`POST /api/contacts/list {"name":"people"}`, "POST /api/contacts/upload?filename=people.csv&region=IT Cellulare\n+393330000001\n",
		`POST /api/contacts/mapped/file {"contactList":"people","mapping":{"Cellulare":"phone"},"region":"IT","uploadId":"upl_1"}`, "GET /api/imports/imp_1 ",
	}
	if strings.Join(asked, "\n") != strings.Join(want, "\n") {
		t.Errorf("got requests\n%s\nwant\n%s", strings.Join(asked, "\n"), strings.Join(want, "\n"))
	}
	end = `{"id":"imp_1","status":"failed","error":"it broke"}`
	if _, err := run(t, answer, "import", file, "--list", "people"); err == nil || !strings.Contains(err.Error(), "it broke") {
		t.Errorf("failed: got %v, want why", err)
	}
	if _, err := run(t, answer, "import", file); err == nil || !strings.Contains(err.Error(), "--list") {
		t.Errorf("no list: got %v, want usage", err)
	}
}

// X7: fanfare export orders a file, waits until it is ready and saves it. If the export fails or the download breaks
// off, no file is left.
func TestExport(t *testing.T) {
	t.Chdir(t.TempDir())
	var asked []string
	polls, whole, end := 0, true, `{"id":"exp_1","status":"done","rows":2,"downloadUrl":"/api/exports/exp_1/download?signature=s"}`
	answer := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, r.Method+" "+r.URL.RequestURI()+" "+string(body)+pick(r.Header.Get("X-Api-Key") == "", " without a key", ""))
		switch {
		case strings.HasSuffix(r.URL.Path, "/download"):
			w.Header().Set("Content-Disposition", `attachment; filename="../members.csv"`)
			if !whole {
				w.Header().Set("Content-Length", "100")
			}
			_, _ = io.WriteString(w, "seq\n0\n1\n")
		case r.Method == http.MethodPost:
			_, _ = io.WriteString(w, `{"id":"exp_1","status":"queued","progress":null}`)
		case polls == 0:
			polls++
			_, _ = io.WriteString(w, `{"id":"exp_1","status":"running","progress":0.5,"rows":1}`)
		default:
			_, _ = io.WriteString(w, end)
		}
	}
	if out, err := run(t, answer, "export", "members", "--campaign-id", "camp_1", "--columns", "seq", "--selection", `{"status":"sent"}`); err != nil || out != "" {
		t.Errorf("got %q, %v, want a file", out, err)
	}
	want := []string{
		`POST /api/exports/members {"campaignId":"camp_1","columns":["seq"],"selection":{"status":"sent"}}`, "GET /api/exports/exp_1 ", "GET /api/exports/exp_1 ",
		"GET /api/exports/exp_1/download?signature=s  without a key",
	}
	if strings.Join(asked, "\n") != strings.Join(want, "\n") {
		t.Errorf("got requests\n%s\nwant\n%s", strings.Join(asked, "\n"), strings.Join(want, "\n"))
	}
	if got, err := os.ReadFile("members.csv"); err != nil || string(got) != "seq\n0\n1\n" {
		t.Errorf("file: got %q, %v", got, err)
	}
	if out, err := run(t, answer, "export", "contacts", "--save", "-"); err != nil || out != "seq\n0\n1\n" {
		t.Errorf("standard output: got %q, %v", out, err)
	}
	if out, err := run(t, answer, "export", "contacts", "--detach"); err != nil || !strings.Contains(out, "exp_1") {
		t.Errorf("detached: got %q, %v, want the id", out, err)
	}
	whole = false
	if _, err := run(t, answer, "export", "contacts", "--save", "cut.csv"); err == nil {
		t.Error("an answer that breaks off: got no error")
	}
	end = `{"id":"exp_1","status":"failed","error":"the list was deleted"}`
	if _, err := run(t, answer, "export", "contacts", "--save", "none.csv"); err == nil || !strings.Contains(err.Error(), "the list was deleted") {
		t.Errorf("failed: got %v, want why", err)
	}
	if files, err := os.ReadDir("."); err != nil || len(files) != 1 {
		t.Errorf("got %v, %v, want the one whole file", files, err)
	}
}

// R86: fanfare campaign segment waits until the list is filled.
func TestSegment(t *testing.T) {
	var asked []string
	answer := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, r.Method+" "+r.URL.Path+" "+string(body))
		_, _ = fmt.Fprintf(w, `{"id":"seg_1","listId":"list_1","status":%q,"done":5,"progress":0.5}`, pick(r.Method == http.MethodPost, "queued", "done"))
	}
	out, err := run(t, answer, "campaign", "segment", "camp_1", "--name", "clicked")
	if err != nil || !strings.Contains(out, "list_1") || strings.Join(asked, "\n") != "POST /api/campaigns/camp_1/segments {\"name\":\"clicked\"}\nGET /api/segments/seg_1 " {
		t.Errorf("got %q, %v after %q", out, err, asked)
	}
}

func pick(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}

// On a terminal the bar is redrawn in its place; elsewhere the progress is printed as lines.
func TestProgressBar(t *testing.T) {
	var out bytes.Buffer
	b := &progressBar{w: &out, terminal: true}
	b.show("importing", 0.5, "5 rows")
	b.show("importing", 1, "10 rows")
	b.end()
	if want := "\r\x1b[Kimporting [###############...............]  50%  5 rows\r\x1b[Kimporting [##############################] 100%  10 rows\n"; out.String() != want {
		t.Errorf("terminal: got %q, want %q", out.String(), want)
	}
	out.Reset()
	b = &progressBar{w: &out}
	b.show("importing", 1, "")
	b.end()
	if want := "importing 100%\n"; out.String() != want {
		t.Errorf("file: got %q, want %q", out.String(), want)
	}
}

// documentPath is absolute: a test changes the folder.
var documentPath, _ = filepath.Abs("../../../schemas/openapi/openapi.json")

// The command orders an audit once, and asks until it is done. If a difference has no explanation, the command fails.
func TestAuditCommand(t *testing.T) {
	asked := 0
	answer := func(explained bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if asked++; asked <= 2 {
				if want := []string{"POST", "GET"}[asked-1]; r.Method != want {
					t.Errorf("request %d: got %s, want %s", asked, r.Method, want)
				}
				_, _ = io.WriteString(w, `{"campaignId":"camp_1","status":"running","figures":[],"notes":[]}`)
				return
			}
			if r.Method != http.MethodGet {
				t.Errorf("request %d: got %s, want GET", asked, r.Method)
			}
			unexplained, why := 0, "the rest is reserved."
			if !explained {
				unexplained, why = 1, "Nothing came."
			}
			_, _ = fmt.Fprintf(w, `{"campaignId":"camp_1","status":"done","unexplained":%d,"notes":["Read up to noon."],"figures":[
				{"name":"sent","values":[{"source":"log","value":5},{"source":"statistics","value":5}],"difference":0,"explained":true,"explanation":null},
				{"name":"billed","values":[{"source":"log","value":0.5},{"source":"ledger","value":0}],"difference":0.5,"explained":%v,"explanation":%q}]}`, unexplained, explained, why)
		}
	}
	out, err := run(t, answer(true), "campaign", "audit", "camp_1")
	want := "sent                  log 5  statistics 5  equal\nbilled                log 0.5  ledger 0  differ by 0.5: the rest is reserved.\nRead up to noon.\n"
	if err != nil || out != want {
		t.Errorf("got %v and\n%s\nwant\n%s", err, out, want)
	}
	asked = 0
	out, err = run(t, answer(false), "campaign", "audit", "camp_1")
	if !errors.Is(err, ErrUnexplained) || !strings.Contains(out, "DIFFER BY 0.5, UNEXPLAINED. Nothing came.") {
		t.Errorf("got %v and %s, want the unexplained difference", err, out)
	}
}

// fanfare erase orders an erasure, waits for its end, and prints what it removed.
func TestEraseCommand(t *testing.T) {
	var asked []string
	out, err := run(t, func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		asked = append(asked, r.Method+" "+r.URL.Path+" "+string(raw))
		status := "running"
		if len(asked) == 3 {
			status = "done"
		}
		_, _ = fmt.Fprintf(w, `{"id":"era_1","status":%q,"removed":{"contacts":1},"stays":["The topic deliveries"]}`, status)
	}, "erase", "--phone", "+393331234567", "--output", "json")
	want := []string{`POST /api/erasures {"phoneNumber":"+393331234567"}`, "GET /api/erasures/era_1 ", "GET /api/erasures/era_1 "}
	if err != nil || fmt.Sprint(asked) != fmt.Sprint(want) || !strings.Contains(out, `"contacts": 1`) || !strings.Contains(out, "The topic deliveries") {
		t.Errorf("got %v, asked %q and printed %s", err, asked, out)
	}
	_, err = run(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"id":"era_1","status":"failed","error":"it did not end within a day"}`)
	}, "erase", "--phone", "+393331234567")
	if err == nil || !strings.Contains(err.Error(), "did not end within a day") || !strings.Contains(err.Error(), "order it again") {
		t.Errorf("one that failed: got %v, want an error that says what to do", err)
	}
	if _, err := run(t, nil, "erase"); err == nil || !strings.Contains(err.Error(), "--phone is needed") {
		t.Errorf("without a number: got %v, want it refused", err)
	}
}
