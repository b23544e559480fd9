// Command prom checks alerts and dashboards with the parser and the engine of Prometheus: every expression is one that
// Prometheus understands, every template can be filled in, and each alert fires on the series on which it should and
// stays quiet on those on which it should not.
//
//	prom ALERTS.yaml EXAMPLES.yaml DASHBOARD.json…
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/template"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
	"go.yaml.in/yaml/v3"
)

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: prom ALERTS.yaml EXAMPLES.yaml DASHBOARD.json…")
		os.Exit(2)
	}
	problems, err := run(os.Args[1], os.Args[2], os.Args[3:])
	for _, p := range problems {
		fmt.Fprintln(os.Stderr, p)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "prom:", err)
	}
	if err != nil || len(problems) > 0 {
		os.Exit(1)
	}
}

var parse = parser.NewParser(parser.Options{})

type example struct {
	Alert  string
	Fires  bool
	Series []struct{ Series, Values string }
}

func run(alerts, examples string, dashboards []string) (problems []string, err error) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	groups, errs := rulefmt.ParseFile(alerts, false, model.UTF8Validation, parse, slog.New(slog.DiscardHandler))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	rules := map[string]rulefmt.Rule{}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			rules[r.Alert] = r
		}
	}
	text, err := os.ReadFile(examples)
	if err != nil {
		return nil, err
	}
	var cases struct{ Examples []example }
	if err := yaml.Unmarshal(text, &cases); err != nil {
		return nil, fmt.Errorf("%s: %w", examples, err)
	}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: parse})
	tried := map[string]int{}
	for _, c := range cases.Examples {
		rule, ok := rules[c.Alert]
		if !ok {
			bad("example of %s: there is no such alert", c.Alert)
			continue
		}
		fired, err := fires(engine, rule, c)
		switch {
		case err != nil:
			bad("%s: %v", c.Alert, err)
		case fired && !c.Fires:
			bad("%s fires on series on which it should be quiet", c.Alert)
		case !fired && c.Fires:
			bad("%s does not fire on series on which it should", c.Alert)
		}
		tried[c.Alert]++
	}
	for name := range rules {
		if tried[name] < 2 {
			bad("%s: an example on which it fires and one on which it does not are wanted", name)
		}
	}
	queries := 0
	for _, path := range dashboards {
		n, err := dashboard(path, bad)
		if err != nil {
			return problems, err
		}
		queries += n
	}
	fmt.Printf("%d alerts on %d examples, %d expressions of %d dashboards\n", len(rules), len(cases.Examples), queries, len(dashboards))
	return problems, nil
}

const (
	step = 30 * time.Second
	end  = 120 * step // of the examples
)

// fires reports whether the alert fires at the end of the example: its expression held for as long as it must, for some
// series.
func fires(engine *promql.Engine, rule rulefmt.Rule, c example) (bool, error) {
	var held memory
	for _, s := range c.Series {
		lset, values, err := parse.ParseSeriesDesc(s.Series + " " + s.Values)
		if err != nil {
			return false, fmt.Errorf("%s: %w", s.Series, err)
		}
		one := series{labels: lset}
		for i, v := range values {
			if !v.Omitted {
				one.samples = append(one.samples, sample{t: (time.Duration(i) * step).Milliseconds(), v: v.Value})
			}
		}
		held = append(held, one)
	}
	holds := map[string]int{}
	evaluations := 0
	for at := end - time.Duration(rule.For); at <= end; at += step {
		evaluations++
		q, err := engine.NewInstantQuery(context.Background(), held, nil, rule.Expr, time.UnixMilli(0).Add(at))
		if err != nil {
			return false, err
		}
		vector, err := q.Exec(context.Background()).Vector()
		if err != nil {
			return false, err
		}
		for _, v := range vector {
			holds[v.Metric.String()]++
			if err := filled(rule, v, at); err != nil {
				return false, err
			}
		}
		q.Close()
	}
	for _, n := range holds {
		if n == evaluations {
			return true, nil
		}
	}
	return false, nil
}

// filled fills the annotations in, as an alert does that fires.
func filled(rule rulefmt.Rule, v promql.Sample, at time.Duration) error {
	data := template.AlertTemplateData(v.Metric.Map(), nil, "", promql.Sample{F: v.F})
	defs := "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$value := .Value}}"
	none := func(context.Context, string, time.Time) (promql.Vector, error) { return nil, nil }
	for name, text := range rule.Annotations {
		out, err := template.NewTemplateExpander(context.Background(), defs+text, rule.Alert, data, model.Time(at.Milliseconds()), none, &url.URL{}, []string{"missingkey=error"}).Expand()
		if err != nil {
			return fmt.Errorf("annotation %s: %w", name, err)
		}
		if strings.Contains(out, "<no value>") || out == "" {
			return fmt.Errorf("annotation %s comes out as %q", name, out)
		}
	}
	return nil
}

func dashboard(path string, bad func(string, ...any)) (queries int, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var page struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &page); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	fill := strings.NewReplacer("$__rate_interval", "2m", "$job", ".*")
	for _, p := range page.Panels {
		for _, t := range p.Targets {
			queries++
			if _, err := parse.ParseExpr(fill.Replace(t.Expr)); err != nil {
				bad("%s, %s: %q: %v", path, p.Title, t.Expr, err)
			}
		}
	}
	return queries, nil
}

// memory is a storage of a few series.
type memory []series

type series struct {
	labels  labels.Labels
	samples []chunks.Sample
}

type sample struct {
	t int64
	v float64
}

func (m memory) Querier(from, to int64) (storage.Querier, error) {
	return &storage.MockQuerier{SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
		var found []storage.Series
		for _, s := range m {
			matches := true
			for _, match := range matchers {
				matches = matches && match.Matches(s.labels.Get(match.Name))
			}
			if matches {
				found = append(found, storage.NewListSeries(s.labels, s.samples))
			}
		}
		return &list{series: found}
	}}, nil
}

type list struct {
	series []storage.Series
	at     int
}

func (l *list) Next() bool                        { l.at++; return l.at <= len(l.series) }
func (l *list) At() storage.Series                { return l.series[l.at-1] }
func (l *list) Err() error                        { return nil }
func (l *list) Warnings() annotations.Annotations { return nil }

func (s sample) T() int64                      { return s.t }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.v }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }
