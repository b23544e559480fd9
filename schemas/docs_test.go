package schemas_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	quotedPath = regexp.MustCompile("`([a-z][a-zA-Z0-9_./-]*)`")
	quotedTest = regexp.MustCompile("`(Test[A-Za-z0-9]+)`")
)

// Every file and folder that pipeline/DESIGN.md names exists, and every test of its recipes.
func TestDesignNamesWhatExists(t *testing.T) {
	text, err := os.ReadFile("../pipeline/DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, m := range quotedPath.FindAllStringSubmatch(string(text), -1) {
		top, _, isPath := strings.Cut(m[1], "/")
		if isPath && (top == "api" || top == "cmd" || top == "deploy" || top == "pipeline" || top == "schemas" || top == "sinks") && !strings.Contains(m[1], "NAME") {
			named++
			if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
				t.Errorf("DESIGN.md names %s: %v", m[1], err)
			}
		}
	}
	if named < 40 {
		t.Errorf("found %d paths in DESIGN.md, want more: the pattern went wrong", named)
	}
	var tests strings.Builder
	for _, folder := range []string{".", "wire", "asyncapi", "../cmd/fanfare", "../pipeline/tracker", "../pipeline/scheduler", "../pipeline/scheduler/plan", "../pipeline/sender", "../pipeline/simulation"} {
		files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			tests.Write(b)
		}
	}
	for _, m := range quotedTest.FindAllStringSubmatch(string(text), -1) {
		if !strings.Contains(tests.String(), "func "+m[1]+"(") {
			t.Errorf("DESIGN.md names %s, and there is no such test", m[1])
		}
	}
}
