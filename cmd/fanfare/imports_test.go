package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// An importRule says which packages of this module the files of a folder may import. The first rule whose folder
// contains a file decides. Paths are relative to the root of the module; a trailing / means the folder and everything
// below it.
type importRule struct {
	folder string
	may    []string
	why    string
}

// The import rules. Only cmd wires packages together, so that each other package can be understood, tested and replaced
// by itself. Tests may import more, because they combine packages.
var importRules = []importRule{
	{"schemas/", []string{"schemas/"}, "schemas import nothing else of ours: everything imports them"},
	{"pipeline/stream/", []string{"schemas", "pipeline/stream/"}, "what runs the stages knows none of them, and nothing of what is in the records"},
	{"pipeline/view/", []string{"schemas/", "pipeline/stream/", "pipeline/view/"}, "the control plane is read from topics"},
	{"pipeline/health/", []string{"schemas/", "pipeline/stream/", "pipeline/health/"}, "reports know none of the stages that make them"},
	{"pipeline/dlrindex/", []string{"schemas/", "pipeline/dlrindex/"}, "the index knows Redis, and neither sender nor tracker"},
	{"pipeline/window/", []string{"schemas/", "pipeline/stream/", "pipeline/window/"}, "the intent window stands on stream and knows no stage"},
	{"pipeline/ratelimit/", []string{"schemas/", "pipeline/ratelimit/"}, "limits know nothing of who asks"},
	{"pipeline/sender/", []string{"schemas/", "pipeline/stream/", "pipeline/view/", "pipeline/dlrindex/", "pipeline/window/", "pipeline/ratelimit/", "pipeline/health/", "sinks/carrier", "pipeline/sender/"}, "the sender knows the carrier's contract, cmd picks the carrier"},
	{"pipeline/relay/", []string{"schemas/", "pipeline/stream/", "pipeline/relay/"}, "stages meet only in topics"},
	{"pipeline/scheduler/plan/", []string{"schemas/", "pipeline/scheduler/plan/"}, "the scheduler's decisions are pure: schemas are all they know"},
	{"pipeline/scheduler/", []string{"schemas/", "pipeline/stream/", "pipeline/view/", "pipeline/scheduler/"}, "stages meet only in topics"},
	{"pipeline/expander/", []string{"schemas/", "pipeline/stream/", "pipeline/view/", "pipeline/expander/"}, "stages meet only in topics"},
	{"pipeline/callback/", []string{"schemas/", "pipeline/stream/", "sinks/carrier", "pipeline/callback/"}, "the stage reads what carriers call with through the carrier's contract"},
	{"pipeline/inbound/", []string{"schemas/", "pipeline/stream/", "pipeline/view/", "pipeline/inbound/"}, "stages meet only in topics"},
	{"pipeline/tracker/", []string{"schemas/", "pipeline/stream/", "pipeline/view/", "pipeline/dlrindex/", "pipeline/health/", "pipeline/tracker/"}, "stages meet only in topics"},
	{"sinks/analytics/feed/", []string{"schemas/", "sinks/analytics", "pipeline/stream/", "sinks/analytics/feed/"}, "the feed runs as a stage does, and writes to the contract"},
	{"sinks/analytics/analyticstest/", []string{"schemas/", "sinks/analytics"}, "the suite knows the contract alone"},
	{"sinks/analytics/clickhouse/", []string{"schemas/", "sinks/analytics", "sinks/analytics/clickhouse/"}, "an implementation knows its contract"},
	{"sinks/analytics/sqlite/", []string{"schemas/", "sinks/analytics", "sinks/analytics/sqlite/"}, "an implementation knows its contract"},
	{"sinks/analytics/", []string{"schemas/", "sinks/analytics"}, "a contract knows no implementation"},
	{"sinks/carrier/carriertest/", []string{"schemas/", "sinks/carrier"}, "the suite knows the contract alone"},
	{"sinks/carrier/inflight/", []string{"schemas/", "sinks/carrier", "sinks/carrier/once"}, "a part of the contract knows no implementation"},
	{"sinks/carrier/sim/", []string{"schemas/", "sinks/carrier", "sinks/carrier/inflight", "sinks/carrier/sim/"}, "an implementation knows its contract"},
	{"sinks/carrier/httpsms/", []string{"schemas/", "sinks/carrier", "sinks/carrier/codes", "sinks/carrier/inflight", "sinks/carrier/once", "sinks/carrier/peer", "sinks/carrier/settings", "sinks/carrier/httpsms/"}, "an implementation knows its contract"},
	{"sinks/carrier/rcs/", []string{"schemas/", "sinks/carrier", "sinks/carrier/codes", "sinks/carrier/inflight", "sinks/carrier/once", "sinks/carrier/peer", "sinks/carrier/settings", "sinks/carrier/rcs/"}, "an implementation knows its contract"},
	{"sinks/carrier/whatsapp/", []string{"schemas/", "sinks/carrier", "sinks/carrier/codes", "sinks/carrier/inflight", "sinks/carrier/once", "sinks/carrier/peer", "sinks/carrier/settings", "sinks/carrier/whatsapp/"}, "an implementation knows its contract"},
	{"sinks/carrier/voice/", []string{"schemas/", "sinks/carrier", "sinks/carrier/codes", "sinks/carrier/inflight", "sinks/carrier/once", "sinks/carrier/settings", "sinks/carrier/voice/"}, "an implementation knows its contract"},
	{"sinks/carrier/codes/", []string{"schemas/", "sinks/carrier"}, "a part of the contract knows no implementation"},
	{"sinks/carrier/once/", nil, "a part of connectors knows none of them"},
	{"sinks/carrier/peer/", []string{"schemas/", "sinks/carrier"}, "a part of simulated providers knows none of them"},
	{"sinks/carrier/settings/", nil, "a part of connectors knows none of them"},
	{"sinks/carrier/smpp/", []string{"schemas/", "sinks/carrier", "sinks/carrier/codes", "sinks/carrier/settings", "sinks/carrier/smpp/"}, "an implementation knows its contract"},
	{"sinks/carrier/", []string{"schemas/", "sinks/carrier"}, "a contract knows no implementation"},
	{"sinks/webhook/", []string{"schemas/", "pipeline/stream/", "sinks/webhook/"}, "a sink reads topics"},
	{"api/problem/", []string{"schemas/"}, "errors and bodies know no resource"},
	{"api/phone/", []string{"schemas/", "api/phone/"}, "phone numbers are read without a database"},
	{"api/importfile/", []string{"schemas/", "api/importfile/"}, "files are read without a database"},
	{"api/compliance/", []string{"schemas/"}, "rules are checked without a database"},
	{"api/clientaddr/", nil, "an address is read from a request alone"},
	{"api/edge/", []string{"schemas/", "api/clientaddr", "api/edge/"}, "the public edge works without the API, the store and statistics"},
	{"api/store/", []string{"schemas/", "api/phone/", "api/importfile/", "api/store/"}, "the store is called by the API and calls nothing of it"},
	{"api/", []string{"schemas/", "sinks/analytics", "api/"}, "the API publishes topics and reads statistics; it runs no stage"},
	{"deploy/", []string{"schemas/", "deploy/"}, "what Fanfare runs on does not know Fanfare"},
	{"cmd/", []string{"schemas/", "pipeline/", "sinks/", "api/", "deploy/", "cmd/"}, "cmd wires everything"},
}

func TestImportRules(t *testing.T) {
	root := filepath.Join("..", "..")
	seen := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		seen++
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if breach := breaks(rel, imported); breach != "" {
				t.Errorf("%s imports %s: %s", rel, imported, breach)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 20 {
		t.Errorf("saw %d files: the walk went wrong", seen)
	}
}

// breaks returns why a file may not import a package, "" if it may.
func breaks(file, imported string) string {
	ours, ok := strings.CutPrefix(imported, "fanfare/")
	if !ok {
		return ""
	}
	for _, rule := range importRules {
		if !strings.HasPrefix(file, rule.folder) {
			continue
		}
		for _, may := range rule.may {
			if ours == strings.TrimSuffix(may, "/") || strings.HasSuffix(may, "/") && strings.HasPrefix(ours, may) {
				return ""
			}
		}
		return rule.why
	}
	return "no import rule covers this folder; add one"
}

// TestImportRules would prove nothing if the rules allowed everything.
func TestImportRulesRefuse(t *testing.T) {
	for _, c := range []struct{ file, imported string }{
		{"schemas/ids.go", "fanfare/pipeline/stream"},
		{"pipeline/stream/stage.go", "fanfare/schemas/fanfare/v1"},
		{"pipeline/stream/tail.go", "fanfare/pipeline/view"},
		{"pipeline/view/view.go", "fanfare/pipeline/dlrindex"},
		{"pipeline/scheduler/scheduler.go", "fanfare/pipeline/dlrindex"},
		{"pipeline/sender/handle.go", "fanfare/pipeline/scheduler"},
		{"pipeline/sender/handle.go", "fanfare/sinks/carrier/sim"},
		{"pipeline/stream/stage.go", "fanfare/pipeline/window"},
		{"pipeline/tracker/handle.go", "fanfare/pipeline/window"},
		{"pipeline/inbound/handle.go", "fanfare/api/store"},
		{"pipeline/callback/callback.go", "fanfare/sinks/carrier/httpsms"},
		{"pipeline/tracker/handle.go", "fanfare/pipeline/ratelimit"},
		{"pipeline/scheduler/plan/deal.go", "fanfare/pipeline/stream"},
		{"pipeline/expander/handle.go", "fanfare/api/store"},
		{"api/campaigns.go", "fanfare/pipeline/stream"},
		{"api/store/store.go", "fanfare/api"},
		{"api/store/store.go", "fanfare/api/ui"},
		{"api/phone/parse.go", "fanfare/api/store"},
		{"api/importfile/csv.go", "fanfare/api/store"},
		{"sinks/analytics/sqlite/sqlite.go", "fanfare/sinks/analytics/clickhouse"},
		{"sinks/carrier/carrier.go", "fanfare/sinks/carrier/sim"},
		{"deploy/embedded/embedded.go", "fanfare/cmd/fanfare"},
		{"util/util.go", "fanfare/schemas"},
	} {
		if breaks(c.file, c.imported) == "" {
			t.Errorf("%s may import %s", c.file, c.imported)
		}
	}
}

// The top level of the repository has these entries and no others.
func TestTopLevel(t *testing.T) {
	rooms := []string{"LICENSE", "Makefile", "README.md", "api", "cmd", "deploy", "go.mod", "go.sum", "pipeline", "schemas", "sinks"}
	entries, err := os.ReadDir(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && e.Name() != "bin" && !slices.Contains(rooms, e.Name()) {
			t.Errorf("%s: not at the top level", e.Name())
		}
	}
}
