package observe

import (
	"fmt"
	"strings"
)

// Query is one expression of a panel.
type Query struct {
	Expr string
	// Legend of its lines, with {{label}}.
	Legend string
}

const (
	thisJob = `{job=~"$job"}`
	// window of a rate: at least four scrapes.
	window = "[$__rate_interval]"
)

// selector returns metric{job=~"$job", more}.
func selector(metric string) string {
	if name, labels, ok := strings.Cut(metric, "{"); ok {
		return name + `{job=~"$job",` + labels
	}
	return metric + thisJob
}

func legendOf(by []string) string {
	parts := make([]string, len(by))
	for i, l := range by {
		parts[i] = "{{" + l + "}}"
	}
	return strings.Join(parts, " ")
}

func aggregate(op, expr string, by []string) string {
	if len(by) == 0 {
		return fmt.Sprintf("%s(%s)", op, expr)
	}
	return fmt.Sprintf("%s by (%s) (%s)", op, strings.Join(by, ","), expr)
}

// rate is the growth of a counter per second.
func rate(metric string, by ...string) Query {
	return Query{aggregate("sum", "rate("+selector(metric)+window+")", by), legendOf(by)}
}

// grown is the growth of a counter in the interval of a point, for rare events.
func grown(metric string, by ...string) Query {
	return Query{aggregate("sum", "increase("+selector(metric)+window+")", by), legendOf(by)}
}

// total is the sum of a gauge.
func total(metric string, by ...string) Query {
	return Query{aggregate("sum", selector(metric), by), legendOf(by)}
}

// worst is the maximum of a gauge.
func worst(metric string, by ...string) Query {
	return Query{aggregate("max", selector(metric), by), legendOf(by)}
}

// quantile of a histogram.
func quantile(q string, metric string, by ...string) Query {
	legend := strings.TrimSpace("p" + strings.TrimPrefix(q, "0.") + " " + legendOf(by))
	buckets := aggregate("sum", "rate("+selector(metric+"_bucket")+window+")", append([]string{"le"}, by...))
	return Query{fmt.Sprintf("histogram_quantile(%s, %s)", q, buckets), legend}
}

// mean of a histogram.
func mean(metric string, by ...string) Query {
	over := func(suffix string) string {
		return aggregate("sum", "rate("+selector(metric+suffix)+window+")", by)
	}
	return Query{over("_sum") + " / " + over("_count"), strings.TrimSpace("mean " + legendOf(by))}
}

// named puts a name in front of the legend of a query.
func (q Query) named(legend string) Query {
	q.Legend = strings.TrimSpace(legend + " " + q.Legend)
	return q
}
