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

// An importRule says what files of a folder may import of ours. The first rule whose folder holds a file decides; paths are
// relative to the root of the module, and a trailing / means the folder and all below it.
type importRule struct {
	folder string
	may    []string
	why    string
}

// Who may import whom. Wiring is in cmd; everything else stays apart, so that each part can be understood, tested and
// replaced by itself. Tests may import more: they are the ones who put parts together.
var importRules = []importRule{
	{"schemas/", []string{"schemas/"}, "schemas import nothing else of ours: everything imports them"},
	{"pipeline/stream/", []string{"schemas/", "pipeline/stream/"}, "what runs the stages knows none of them"},
	{"pipeline/ratelimit/", []string{"schemas/", "pipeline/ratelimit/"}, "limits know nothing of who asks"},
	{"pipeline/sender/", []string{"schemas/", "pipeline/stream/", "pipeline/ratelimit/", "sinks/carrier", "pipeline/sender/"}, "the sender knows the carrier's contract, cmd picks the carrier"},
	{"pipeline/relay/", []string{"schemas/", "pipeline/stream/", "pipeline/relay/"}, "stages meet only in topics"},
	{"pipeline/scheduler/", []string{"schemas/", "pipeline/stream/", "pipeline/scheduler/"}, "stages meet only in topics"},
	{"pipeline/expander/", []string{"schemas/", "pipeline/stream/", "pipeline/expander/"}, "stages meet only in topics"},
	{"pipeline/tracker/", []string{"schemas/", "pipeline/stream/", "pipeline/tracker/"}, "stages meet only in topics"},
	{"sinks/analytics/feed/", []string{"schemas/", "sinks/analytics", "pipeline/stream/", "sinks/analytics/feed/"}, "the feed runs as a stage does, and writes to the contract"},
	{"sinks/analytics/analyticstest/", []string{"schemas/", "sinks/analytics"}, "the suite knows the contract alone"},
	{"sinks/analytics/clickhouse/", []string{"schemas/", "sinks/analytics", "sinks/analytics/clickhouse/"}, "an implementation knows its contract"},
	{"sinks/analytics/sqlite/", []string{"schemas/", "sinks/analytics", "sinks/analytics/sqlite/"}, "an implementation knows its contract"},
	{"sinks/analytics/", []string{"schemas/", "sinks/analytics"}, "a contract knows no implementation"},
	{"sinks/carrier/carriertest/", []string{"schemas/", "sinks/carrier"}, "the suite knows the contract alone"},
	{"sinks/carrier/sim/", []string{"schemas/", "sinks/carrier", "sinks/carrier/sim/"}, "an implementation knows its contract"},
	{"sinks/carrier/", []string{"schemas/", "sinks/carrier"}, "a contract knows no implementation"},
	{"sinks/webhook/", []string{"schemas/", "pipeline/stream/", "sinks/webhook/"}, "a sink reads topics"},
	{"api/store/", []string{"schemas/", "api/store/"}, "the store is asked, it asks nobody"},
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

// breaks returns why a file may not import a package, "" when it may.
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
	return "no rule names the folder: it has no place in the house"
}

// The test above would be worth nothing if the rules let everything pass.
func TestImportRulesRefuse(t *testing.T) {
	for _, c := range []struct{ file, imported string }{
		{"schemas/ids.go", "fanfare/pipeline/stream"},
		{"pipeline/sender/handle.go", "fanfare/pipeline/scheduler"},
		{"pipeline/sender/handle.go", "fanfare/sinks/carrier/sim"},
		{"pipeline/tracker/handle.go", "fanfare/pipeline/ratelimit"},
		{"pipeline/expander/handle.go", "fanfare/api/store"},
		{"api/campaigns.go", "fanfare/pipeline/stream"},
		{"api/store/store.go", "fanfare/api"},
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

// The top level is the house; nothing else stands there.
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
