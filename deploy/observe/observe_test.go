package observe

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/knadh/koanf/parsers/yaml"
)

const root = "../.."

func TestGeneratedFilesAreUpToDate(t *testing.T) {
	files, err := Files(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what deploy/observe generates (%v): run make gen", name, err)
		}
	}
	// The old file of a renamed dashboard must be deleted.
	entries, err := os.ReadDir(filepath.Join(root, "deploy/grafana"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if files["deploy/grafana/"+e.Name()] == nil {
			t.Errorf("deploy/grafana/%s is not generated any more: delete it", e.Name())
		}
	}
}

// everyMetric returns the metrics that the product registers, by name.
func everyMetric(t *testing.T) map[string]metric {
	t.Helper()
	all := registered(t, root)
	maps.Copy(all, clientMetrics(t))
	for name := range all {
		if !strings.HasPrefix(name, "fanfare_") {
			t.Errorf("%s: the name of a metric must begin with fanfare_", name)
		}
	}
	// Check the reader itself with one metric of each form that the sources use.
	for name, labels := range map[string][]string{
		"fanfare_ratelimit_denied_total": {"level"}, "fanfare_sender_outcomes_total": {"route", "lane", "kind", "code"},
		"fanfare_scheduler_leading": nil, "fanfare_view_age_seconds": nil, "fanfare_stage_dead_letters_total": {"stage", "topic"},
		"fanfare_window_commit_seconds": {"topic"}, "fanfare_expander_waits_total": {"for"}, "fanfare_kafka_produce_bytes_total": {"node_id", "topic", "client"},
	} {
		m, ok := all[name]
		if !ok || !slices.Equal(slices.Sorted(slices.Values(m.labels)), slices.Sorted(slices.Values(labels))) {
			t.Errorf("%s: read as %+v (%v), want labels %v", name, m, ok, labels)
		}
	}
	return all
}

var (
	metricPattern = regexp.MustCompile(`\b((?:increase|rate)\()?(fanfare_[a-z0-9_]+)(\{[^}]*\})?`)
	byPattern     = regexp.MustCompile(`by \(([^)]*)\)`)
	labelPattern  = regexp.MustCompile(`([a-z_]+)(?:=~|!=|!~|=)"`)
	legendPattern = regexp.MustCompile(`\{\{\s*([a-z_]+)\s*\}\}`)
	valuePattern  = regexp.MustCompile(`\$labels\.([a-z_]+)`)
)

// use is one expression and the legend of its result.
type use struct{ where, expr, legend string }

func uses() []use {
	var all []use
	for _, d := range Dashboards() {
		for _, r := range d.Rows {
			for _, p := range r.Panels {
				for _, q := range p.Queries {
					all = append(all, use{d.ID + ", " + p.Title, q.Expr, q.Legend})
				}
			}
		}
	}
	for _, a := range Alerts() {
		all = append(all, use{a.Name, a.Expr, ""})
	}
	return all
}

// lookup finds a metric by the name in an expression. A histogram has three names there.
func lookup(all map[string]metric, name string) (string, metric, bool) {
	if m, ok := all[name]; ok {
		return name, m, m.kind != "Histogram" // a histogram has no series of its own name
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && all[base].kind == "Histogram" {
			m := all[base]
			m.kind = "Counter"
			if suffix == "_bucket" {
				m.labels = append(slices.Clone(m.labels), "le")
			}
			return base, m, true
		}
	}
	return "", metric{}, false
}

func TestExpressionsNameWhatExists(t *testing.T) {
	all := everyMetric(t)
	for _, u := range uses() {
		found := metricPattern.FindAllStringSubmatch(u.expr, -1)
		labels := []string{"job", "instance", "role", "what"} // labels of the scrape, and those made by label_replace
		for _, f := range found {
			_, m, ok := lookup(all, f[2])
			if !ok {
				t.Errorf("%s: %s is not registered anywhere", u.where, f[2])
				continue
			}
			labels = append(labels, m.labels...)
			for _, l := range labelPattern.FindAllStringSubmatch(f[3], -1) {
				if l[1] != "job" && !slices.Contains(m.labels, l[1]) {
					t.Errorf("%s: %s has no label %q, it has %v", u.where, f[2], l[1], m.labels)
				}
			}
			if rated := f[1] != ""; rated != (m.kind == "Counter") && !isAlert(u.where) {
				t.Errorf("%s: %s is a %s; show a rate of counters, and only of counters", u.where, f[2], m.kind)
			}
		}
		if len(found) == 0 && !strings.Contains(u.expr, "process_") && !strings.Contains(u.expr, "go_") {
			t.Errorf("%s: no metric in %q", u.where, u.expr)
		}
		for _, by := range byPattern.FindAllStringSubmatch(u.expr, -1) {
			for l := range strings.SplitSeq(by[1], ",") {
				if l = strings.TrimSpace(l); !slices.Contains(labels, l) {
					t.Errorf("%s: grouped by %q, which none of its metrics has", u.where, l)
				}
			}
		}
		for _, l := range legendPattern.FindAllStringSubmatch(u.legend, -1) {
			if grouped := byPattern.FindString(u.expr); !strings.Contains(grouped, l[1]) && grouped != "" {
				t.Errorf("%s: the legend names %q, and the expression is %s", u.where, l[1], grouped)
			}
		}
	}
}

func TestEveryMetricIsOnADashboard(t *testing.T) {
	all := everyMetric(t)
	shown := map[string]bool{}
	for _, u := range uses() {
		if isAlert(u.where) {
			continue
		}
		for _, f := range metricPattern.FindAllStringSubmatch(u.expr, -1) {
			if name, _, ok := lookup(all, f[2]); ok {
				shown[name] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !shown[name] {
			t.Errorf("%s (%s) is on no dashboard", name, all[name].where)
		}
	}
}

func isAlert(name string) bool {
	return slices.ContainsFunc(Alerts(), func(a Alert) bool { return a.Name == name })
}

// Each alert has a summary of one line, says what it means and what to do, and has a place in the runbook.
func TestAlertsSayWhatToDo(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, readme))
	if err != nil {
		t.Fatal(err)
	}
	there := anchors(string(page))
	all := everyMetric(t)
	names := map[string]bool{}
	for _, a := range Alerts() {
		if names[a.Name] {
			t.Errorf("%s: twice", a.Name)
		}
		names[a.Name] = true
		if a.Summary == "" || a.Means == "" || a.Do == "" || a.Severity != critical && a.Severity != warning {
			t.Errorf("%s: summary %q, means %q, do %q, severity %q: want all of them", a.Name, a.Summary, a.Means, a.Do, a.Severity)
		}
		if strings.ContainsAny(a.Summary, "\n") || len(a.Summary) > 120 {
			t.Errorf("%s: the summary is one short line", a.Name)
		}
		if !there[a.Anchor()] {
			t.Errorf("%s: %s has no heading for #%s", a.Name, readme, a.Anchor())
		}
		if len(a.Fires) == 0 || len(a.Quiet) == 0 {
			t.Errorf("%s: want series on which it fires, and series on which it does not", a.Name)
		}
		for _, ref := range regexp.MustCompile(`\bFanfare[A-Z][A-Za-z]+`).FindAllString(a.Means+a.Do, -1) {
			if !isAlert(ref) {
				t.Errorf("%s: names %s, which is not an alert", a.Name, ref)
			}
		}
		for _, l := range valuePattern.FindAllStringSubmatch(a.Summary, -1) {
			if !strings.Contains(a.Expr, l[1]) {
				t.Errorf("%s: the summary names the label %q, which the expression does not keep", a.Name, l[1])
			}
		}
		for _, m := range regexp.MustCompile(`fanfare_[a-z_]+`).FindAllString(a.Means+a.Do, -1) {
			if _, _, ok := lookup(all, m); !ok {
				t.Errorf("%s: names %s, which is not registered", a.Name, m)
			}
		}
	}
}

var headingPattern = regexp.MustCompile(`(?m)^#+ (.+)$`)

// anchors returns the anchors of a page, as GitHub and GitLab make them from headings.
func anchors(page string) map[string]bool {
	out := map[string]bool{}
	for _, h := range headingPattern.FindAllStringSubmatch(page, -1) {
		a := strings.ToLower(strings.TrimSpace(h[1]))
		a = regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(a, "")
		out[strings.ReplaceAll(a, " ", "-")] = true
	}
	return out
}

func TestLinksOfThePageExist(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, readme))
	if err != nil {
		t.Fatal(err)
	}
	there := anchors(string(page))
	for _, l := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(string(page), -1) {
		target := l[1]
		if a, ok := strings.CutPrefix(target, "#"); ok {
			if !there[a] {
				t.Errorf("link to #%s: no such heading", a)
			}
			continue
		}
		if strings.Contains(target, "://") {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, "deploy", target)); err != nil {
			t.Errorf("link to %s: %v", target, err)
		}
	}
}

// Each dashboard has its own uid, and its panels have ids, descriptions and places that do not overlap.
func TestDashboardsAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range Dashboards() {
		text, err := d.JSON()
		if err != nil {
			t.Fatal(err)
		}
		var page struct {
			UID    string
			Panels []struct {
				ID          int
				Type        string
				Title       string
				Description string
				GridPos     struct{ X, Y, W, H int }
				Targets     []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(text, &page); err != nil {
			t.Fatal(err)
		}
		if seen[page.UID] || page.UID == "" || len(page.UID) > 40 {
			t.Errorf("uid %q: want a unique one of up to 40 characters", page.UID)
		}
		seen[page.UID] = true
		taken := map[[2]int]string{}
		ids := map[int]bool{}
		for _, p := range page.Panels {
			if ids[p.ID] {
				t.Errorf("%s: panel id %d twice", d.ID, p.ID)
			}
			ids[p.ID] = true
			if p.Type == "timeseries" && (p.Description == "" || len(p.Targets) == 0) {
				t.Errorf("%s, %s: want a description and a query", d.ID, p.Title)
			}
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other, ok := taken[[2]int{x, y}]; ok || x >= gridWidth {
						t.Errorf("%s: %s overlaps %s, or is outside the page", d.ID, p.Title, other)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
		}
	}
}

func TestRulesAreYAML(t *testing.T) {
	rules, err := Rules(Alerts())
	if err != nil {
		t.Fatal(err)
	}
	read, err := yaml.Parser().Unmarshal(rules)
	if err != nil {
		t.Fatal(err)
	}
	groups, _ := read["groups"].([]any)
	group, _ := groups[0].(map[string]any)
	if got, _ := group["rules"].([]any); len(got) != len(Alerts()) {
		t.Errorf("%d rules, want %d", len(got), len(Alerts()))
	}
}
