// Package observe generates what operators look at, from the tables of this package: the Grafana dashboards, the
// Prometheus alerts, the examples on which each alert fires, and the runbook in deploy/README.md.
//
//	deploy/grafana/*.json               dashboards, to be imported or provisioned
//	deploy/alerts/fanfare.yaml          alerting rules
//	deploy/alerts/examples.yaml         for each alert series on which it fires and series on which it does not
//	deploy/helm/fanfare/files/alerts.yaml   the same rules, for the chart's PrometheusRule
//	deploy/README.md                    the runbook, between two marks
//
// Its tests find every metric that the Go sources register. A panel or an alert may name only existing metrics and
// labels, and every metric must be on a dashboard. deploy/check evaluates every expression with the engine of
// Prometheus.
//
// One Prometheus job is one installation: alerts are grouped by the label job, so that two installations do not mix.
package observe

//go:generate go run fanfare/deploy/observe/gen ../..
