package main

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"fanfare/api"
	"fanfare/deploy/observe"
)

// The states of an alert in a process.
const (
	alertHolds   = "holds"
	alertNotHere = "not_here"
	alertUnknown = "unknown"
)

// ownCondition matches a condition on the present value of one metric. One process can evaluate it; all others need the
// metrics of several processes or their history, which only Prometheus has.
var ownCondition = regexp.MustCompile(`^max by \([a-z_, ]+\) \(([a-z_]+)(?:\{([^}]*)\})?\) (<|>|==) ([0-9.]+)$`)

var labelMatcher = regexp.MustCompile(`^([a-z_]+)="([^"]*)"$`)

// alerts returns the alerts and what this process knows about them, for the API.
func (w *wiring) alerts(ctx context.Context) []api.Alert {
	all, err := alertStates(w.reg)
	if err != nil { // the values that could be read are there
		w.log.WarnContext(ctx, "not all metrics read for the alerts", "err", err)
	}
	return all
}

// alertStates evaluates the alerts on the metrics of this process. Those that hold come first, then the critical ones.
func alertStates(from prometheus.Gatherer) ([]api.Alert, error) {
	values, err := valuesOf(from)
	var out []api.Alert
	for _, a := range observe.Alerts() {
		state, where := evaluate(a.Expr, values)
		out = append(out, api.Alert{
			Name: a.Name, Severity: string(a.Severity), Means: a.Means, Do: a.Do, Runbook: a.RunbookEntry(), State: state, Where: where, ForSeconds: int(a.For.Seconds()),
		})
	}
	slices.SortStableFunc(out, func(a, b api.Alert) int {
		holds := func(a api.Alert) int {
			if a.State == alertHolds {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(holds(a), holds(b)), cmp.Compare(a.Severity, b.Severity))
	})
	return out, err
}

// metricValue is the present value of one series.
type metricValue struct {
	labels map[string]string
	value  float64
}

// valuesOf reads the gauges of this process.
func valuesOf(from prometheus.Gatherer) (map[string][]metricValue, error) {
	families, err := from.Gather()
	out := map[string][]metricValue{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetGauge() == nil {
				continue
			}
			v := metricValue{map[string]string{}, m.GetGauge().GetValue()}
			for _, l := range m.GetLabel() {
				v.labels[l.GetName()] = l.GetValue()
			}
			out[f.GetName()] = append(out[f.GetName()], v)
		}
	}
	return out, err
}

// evaluate says whether a condition holds, and where. The greatest value of all processes is at least the value of this
// one. So a value above the bound of > is enough to say that the condition holds, and a value not below the bound of <
// is enough to say that it does not; a value below it is not enough, because another process may have a greater one.
func evaluate(expr string, values map[string][]metricValue) (state string, where []string) {
	where = []string{}
	parts := ownCondition.FindStringSubmatch(expr)
	if parts == nil {
		return alertUnknown, where
	}
	bound, err := strconv.ParseFloat(parts[4], 64)
	if err != nil {
		return alertUnknown, where
	}
	state = alertUnknown
	for _, v := range values[parts[1]] {
		if !matches(v.labels, parts[2]) {
			continue
		}
		switch {
		case v.value < 0: // it is not known
		case parts[3] == "<":
			if v.value >= bound {
				state = alertNotHere
			}
		case parts[3] == ">" && v.value > bound, parts[3] == "==" && v.value == bound:
			where = append(where, v.String())
		case state == alertUnknown:
			state = alertNotHere
		}
	}
	if len(where) > 0 {
		state = alertHolds
	}
	slices.Sort(where)
	return state, where
}

// matches reports whether labels satisfy matchers such as lane="txn".
func matches(labels map[string]string, matchers string) bool {
	for m := range strings.SplitSeq(matchers, ",") {
		if m == "" {
			continue
		}
		parts := labelMatcher.FindStringSubmatch(strings.TrimSpace(m))
		if parts == nil || labels[parts[1]] != parts[2] {
			return false
		}
	}
	return true
}

// String returns the labels and the value.
func (v metricValue) String() string {
	var labels []string
	for name, value := range v.labels {
		labels = append(labels, name+"="+value)
	}
	slices.Sort(labels)
	value := strconv.FormatFloat(v.value, 'f', -1, 64)
	if len(labels) == 0 {
		return value
	}
	return fmt.Sprintf("%s: %s", strings.Join(labels, ", "), value)
}
