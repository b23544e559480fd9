// Package deploy has no code. Its files are for operators; these tests compare them with the program.
package deploy

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver
	"github.com/knadh/koanf/parsers/yaml"

	"fanfare/api/store"
	"fanfare/deploy/testinfra"
	"fanfare/schemas"
)

// read returns a file of this folder, or below it.
func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func readYAML(t *testing.T, name string) map[string]any {
	t.Helper()
	v, err := yaml.Parser().Unmarshal([]byte(read(t, name)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

// at returns the value at a path of keys.
func at(t *testing.T, v any, path ...string) any {
	t.Helper()
	for _, key := range path {
		m, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("%v: %q is in no mapping", path, key)
		}
		if v, ok = m[key]; !ok {
			t.Fatalf("%v: there is no %q", path, key)
		}
	}
	return v
}

// settings returns the names of the program's settings, from its source.
func settings(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, m := range regexp.MustCompile("`koanf:\"([a-z-]+)\"`").FindAllStringSubmatch(read(t, "../cmd/fanfare/config.go"), -1) {
		names = append(names, m[1])
	}
	if len(names) < 15 {
		t.Fatalf("read %d settings: the reading went wrong", len(names))
	}
	return append(names, "config")
}

// roleNames returns the names that --roles accepts, from the program's source.
func roleNames(t *testing.T) []string {
	t.Helper()
	m := regexp.MustCompile(`(?s)func roleNames\(\) \[\]string \{\s*return \[\]string\{([^}]*)\}`).FindStringSubmatch(read(t, "../cmd/fanfare/roles.go"))
	if m == nil {
		t.Fatal("no roleNames: the reading went wrong")
	}
	var names []string
	for part := range strings.SplitSeq(m[1], ",") {
		name, err := strconv.Unquote(strings.TrimSpace(part))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

// stopLimit returns how long a graceful stop may take, from the program's source.
func stopLimit(t *testing.T) time.Duration {
	t.Helper()
	m := regexp.MustCompile(`const stopLimit = (\d+) \* time\.Second`).FindStringSubmatch(read(t, "../cmd/fanfare/serve.go"))
	if m == nil {
		t.Fatal("no stopLimit: the reading went wrong")
	}
	n, _ := strconv.Atoi(m[1])
	return time.Duration(n) * time.Second
}

var settingPattern = regexp.MustCompile(`\bFANFARE_([A-Z_]+)\b`)

// others are variables of the files in this folder that are not settings of the program.
var others = []string{"IMAGE", "PUBLISH", "PUBLISH_EDGE"}

// The program ignores variables that it does not know, so a misspelt name would leave a setting at its default.
func TestVariablesAreSettings(t *testing.T) {
	known := settings(t)
	seen := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name == "testinfra" || name == "embedded" || name == "observe" {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".json") && !strings.HasSuffix(path, "schema.json") {
			return nil
		}
		for _, m := range settingPattern.FindAllStringSubmatch(read(t, path), -1) {
			if strings.HasPrefix(m[1], "TEST") || slices.Contains(others, m[1]) {
				continue
			}
			seen++
			if name := strings.ReplaceAll(strings.ToLower(m[1]), "_", "-"); !slices.Contains(known, name) {
				t.Errorf("%s: %s is not a setting; settings are %v", path, m[0], known)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 50 {
		t.Errorf("saw %d variables: the walk went wrong", seen)
	}
}

// Each way to deploy must run every role exactly once, by its right name.
func TestEveryRoleRuns(t *testing.T) {
	want := roleNames(t)
	slices.Sort(want)
	split := func(s string) []string {
		return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '"' })
	}
	got := map[string][]string{}
	for _, m := range regexp.MustCompile(`FANFARE_ROLES: ("[^"]*"|\w+)`).FindAllStringSubmatch(read(t, "compose.yaml"), -1) {
		got["compose.yaml"] = append(got["compose.yaml"], split(m[1])...)
	}
	files, err := filepath.Glob("systemd/roles/*.env")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		for _, m := range regexp.MustCompile(`(?m)^FANFARE_ROLES=(.*)$`).FindAllStringSubmatch(read(t, f), -1) {
			got["systemd/roles"] = append(got["systemd/roles"], split(m[1])...)
		}
	}
	sets, _ := at(t, readYAML(t, "helm/fanfare/values.yaml"), "roleSets").(map[string]any)
	for _, set := range sets {
		roles, _ := at(t, set, "roles").([]any)
		for _, r := range roles {
			name, _ := r.(string)
			got["helm/fanfare/values.yaml"] = append(got["helm/fanfare/values.yaml"], name)
		}
	}
	for _, where := range []string{"compose.yaml", "systemd/roles", "helm/fanfare/values.yaml"} {
		slices.Sort(got[where])
		if !slices.Equal(got[where], want) {
			t.Errorf("%s runs %v, want each once of %v", where, got[where], want)
		}
	}
	enum, _ := at(t, schema(t), "properties", "roleSets", "additionalProperties", "properties", "roles", "items", "enum").([]any)
	if len(enum) != len(want) {
		t.Errorf("values.schema.json knows the roles %v, want %v", enum, want)
	}
}

// A process that is killed while it drains leaves messages ambiguous, so each way to deploy must give it enough time.
func TestStopsAreLongEnough(t *testing.T) {
	least := stopLimit(t) + 5*time.Second
	find := func(file, pattern string) time.Duration {
		m := regexp.MustCompile(pattern).FindStringSubmatch(read(t, file))
		if m == nil {
			t.Fatalf("%s: no %s", file, pattern)
		}
		n, _ := strconv.Atoi(m[1])
		return time.Duration(n) * time.Second
	}
	const api = 5 * time.Second // the preStop of the chart uses part of the same time
	for what, got := range map[string]time.Duration{
		"compose.yaml, stop_grace_period":                  find("compose.yaml", `(?s)x-fanfare:.*?stop_grace_period: (\d+)s`),
		"fanfare@.service, TimeoutStopSec":                 find("systemd/fanfare@.service", `TimeoutStopSec=(\d+)s`),
		"values.yaml, terminationGracePeriodSeconds":       find("helm/fanfare/values.yaml", `terminationGracePeriodSeconds: (\d+)`) - api,
		"values.schema.json, terminationGracePeriodSecond": find("helm/fanfare/values.schema.json", `"terminationGracePeriodSeconds": \{\s*"type": "integer",\s*"minimum": (\d+)`) - api,
	} {
		if got < least {
			t.Errorf("%s: got %s, want %s at least", what, got, least)
		}
	}
}

func schema(t *testing.T) map[string]any {
	t.Helper()
	var s map[string]any
	if err := json.Unmarshal([]byte(read(t, "helm/fanfare/values.schema.json")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// Helm checks values against the schema. The schema must have all values of the chart and no others.
func TestChartSchemaIsThatOfValues(t *testing.T) {
	values := readYAML(t, "helm/fanfare/values.yaml")
	var compare func(where string, v any, s map[string]any)
	compare = func(where string, v any, s map[string]any) {
		mapping, isMapping := v.(map[string]any)
		props, hasProps := s["properties"].(map[string]any)
		if !isMapping || !hasProps {
			if each, ok := s["additionalProperties"].(map[string]any); ok && isMapping {
				for key, inner := range mapping {
					compare(where+"."+key, inner, each)
				}
			}
			return
		}
		if s["additionalProperties"] != false {
			t.Errorf("%s: the schema allows unknown values", where)
		}
		for _, key := range slices.Sorted(maps.Keys(mapping)) {
			inner, ok := props[key].(map[string]any)
			if !ok {
				t.Errorf("%s.%s: not in the schema", where, key)
				continue
			}
			compare(where+"."+key, mapping[key], inner)
		}
		for _, key := range slices.Sorted(maps.Keys(props)) {
			if _, ok := mapping[key]; !ok && key != "global" {
				t.Errorf("%s.%s: in the schema but not in values.yaml", where, key)
			}
		}
	}
	compare("values", values, schema(t))

	templates := ""
	err := filepath.WalkDir("helm/fanfare/templates", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			templates += read(t, filepath.ToSlash(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for key := range values {
		if !strings.Contains(templates, "Values."+key) {
			t.Errorf("values.%s: no template uses it", key)
		}
	}
	for _, m := range regexp.MustCompile(`Values((?:\.[a-zA-Z]+)+)`).FindAllStringSubmatch(templates, -1) {
		v := any(values)
		for key := range strings.SplitSeq(strings.TrimPrefix(m[1], "."), ".") {
			inner, _ := v.(map[string]any)
			var ok bool
			if v, ok = inner[key]; !ok {
				t.Errorf("a template uses .Values%s, which values.yaml has not", m[1])
				break
			}
		}
	}
}

// The image is built with the version of Go that go.mod wants.
func TestImageUsesTheGoOfGoMod(t *testing.T) {
	mod := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))
	image := regexp.MustCompile(`FROM .*golang:(\d+\.\d+)-`).FindStringSubmatch(read(t, "Dockerfile"))
	if mod == nil || image == nil || mod[1] != image[1] {
		t.Errorf("go.mod wants %v, the image is built with %v", mod, image)
	}
}

// The flags in the commands of README.md exist.
func TestFlagsOfThePageExist(t *testing.T) {
	known := settings(t)
	source := ""
	for _, f := range []string{"setup.go", "tenants.go", "demo.go"} {
		source += read(t, "../cmd/fanfare/"+f)
	}
	for _, m := range regexp.MustCompile("fanfare (?:serve|doctor|migrate|topics|tenants|keys|ready|restore)[^`\n]*").FindAllString(read(t, "README.md"), -1) {
		for _, f := range regexp.MustCompile(`--([a-z][a-z-]+)`).FindAllStringSubmatch(m, -1) {
			if !slices.Contains(known, f[1]) && !strings.Contains(source, `"`+f[1]+`"`) {
				t.Errorf("README.md: %q: there is no flag --%s", m, f[1])
			}
		}
	}
}

// After fanfare restore the store assigns no number and no version that the topics may already have.
func TestIntegrationRestore(t *testing.T) {
	dsn := testinfra.Need(t, testinfra.Postgres)[testinfra.Postgres]
	schema := "restore" + strings.ToLower(rand.Text()[:8])
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := store.Config{DSN: dsn, Schema: schema, Keys: keys}
	if err := store.Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	t.Cleanup(func() { _, _ = db.ExecContext(context.WithoutCancel(t.Context()), "DROP SCHEMA "+schema+" CASCADE") })
	tenant, err := s.CreateTenant(t.Context(), store.TenantSpec{Name: "Acme"})
	if err != nil {
		t.Fatal(err)
	}
	before, err := s.LeaseSeqs(t.Context(), tenant.ID, time.Now(), 10)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := s.Unpublished(t.Context(), 100)
	if err == nil {
		err = s.MarkPublished(t.Context(), rows)
	}
	if err != nil || len(rows) == 0 {
		t.Fatalf("publish %d rows: %v", len(rows), err)
	}
	published := map[string]uint64{}
	for _, r := range rows {
		published[string(r.Type)+" "+r.Key] = r.Version
	}
	for range 2 { // it may run twice
		if _, err := s.Restore(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	again, err := s.Unpublished(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	if len(again) != len(rows) {
		t.Errorf("%d rows are to be published again, want all %d", len(again), len(rows))
	}
	for _, r := range again {
		if was := published[string(r.Type)+" "+r.Key]; r.Version < was+1_000_000 {
			t.Errorf("%s %s has version %d, was %d: readers that have a newer version ignore it", r.Type, r.Key, r.Version, was)
		}
	}
	after, err := s.LeaseSeqs(t.Context(), tenant.ID, time.Now(), 10)
	if err != nil {
		t.Fatal(err)
	}
	if after.Campaign < before.Campaign+1_000_000 {
		t.Errorf("single sends go on in campaign %d, were in %d: the same seqs would be given out twice", after.Campaign, before.Campaign)
	}
}
