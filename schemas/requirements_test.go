package schemas_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	requirementRow = regexp.MustCompile(`(?m)^\| ([RXCPG]\d{1,3}) \| (\S.*) \|$`)
	// citation is a requirement in a text: R1, X12, C30, or a promise or goal in the ranges that exist.
	citation = regexp.MustCompile(`\b(?:[RXC][1-9]\d{0,2}|P[1-9]|G(?:[1-9]|1\d))\b`)
)

// Every requirement that a Go, Markdown or proto file of the repository cites is listed in REQUIREMENTS.md, and the
// list has no gaps, so that requirements that are cited later are listed, too. Each that is not a goal of speed is quoted
// by a test: that test shows where it is checked.
func TestEveryCitedRequirementIsListed(t *testing.T) {
	list, err := os.ReadFile("REQUIREMENTS.md")
	if err != nil {
		t.Fatal(err)
	}
	listed, tested := map[string]bool{}, map[string]bool{}
	for _, row := range requirementRow.FindAllStringSubmatch(string(list), -1) {
		if listed[row[1]] {
			t.Errorf("%s is listed twice", row[1])
		}
		listed[row[1]] = true
	}
	for prefix, last := range map[string]int{"R": 165, "X": 22, "C": 30, "P": 7, "G": 12} {
		for n := range last {
			if id := fmt.Sprint(prefix, n+1); !listed[id] {
				t.Errorf("%s is not in REQUIREMENTS.md", id)
			}
		}
	}
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		name := d.Name()
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != ".." && (name == "node_modules" || name == ".git" || name == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || strings.HasSuffix(name, ".pb.go") || !slices.Contains([]string{".go", ".md", ".proto"}, filepath.Ext(name)):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if inTests(path) {
			for _, id := range quoted(string(text)) {
				tested[id] = true
			}
		}
		for _, id := range citation.FindAllString(string(text), -1) {
			if !listed[id] {
				t.Errorf("%s cites %s, which is not in REQUIREMENTS.md: add it there in one line, or name the thing otherwise", path, id)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for id := range listed {
		if strings.Contains("RXCP", id[:1]) && !tested[id] {
			t.Errorf("no test quotes %s: name it beside the lines that check it", id)
		}
	}
}

// inTests reports whether a file has tests, or the suites that tests run.
func inTests(path string) bool {
	if path == filepath.Join("..", "schemas", "requirements_test.go") { // its comments have examples
		return false
	}
	return strings.HasSuffix(path, "_test.go") || strings.Contains(path, "test/") && strings.HasSuffix(path, ".go")
}

// span is several requirements in a text, such as R21 to R27.
var span = regexp.MustCompile(`\b([RXCP])(\d{1,3}) to ([RXCP])(\d{1,3})\b`)

// quoted returns the requirements that a text quotes, those within spans included.
func quoted(text string) []string {
	out := citation.FindAllString(text, -1)
	for _, m := range span.FindAllStringSubmatch(text, -1) {
		first, _ := strconv.Atoi(m[2])
		last, _ := strconv.Atoi(m[4])
		for n := first; n <= last && m[1] == m[3]; n++ {
			out = append(out, m[1]+strconv.Itoa(n))
		}
	}
	return out
}
